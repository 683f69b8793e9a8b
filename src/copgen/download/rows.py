"""What does one row of a remote parquet file hold? Its columns by their byte ranges, out of a file of gigabytes.

The footer says where each column of a row group lies. It is read once and kept in memory and on disk with the file's ETag; when the
file turns out to be another one by now, the footer is dropped and read again, once. Format: parquet-format, `FileMetaData`.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from copgen.download.remote import Changed, Hub, Remote
from copgen.files import write_whole

GUESS = 1 << 16                                  # bytes at the end of a file that hold most footers
MAGIC = b"PAR1"
NEAR = 1 << 17                                   # a gap that costs less than another request
SPARE = 0.05                                     # of the wanted bytes may be gaps
TRIES = 3                                        # of a row that can't be decoded, or whose file was changed
KEPT = 32                                        # footers in memory
LARGEST = 1 << 28                                # bytes of a footer or a column of one row: more is none


@dataclass(frozen=True)
class Footer:
    """Where the columns of a file's row groups lie."""

    file: Remote
    data: bytes                                  # as in the file, with its length and the magic number


@dataclass(frozen=True)
class Row:
    """The values of a row by column, the file that they came from, and what they took."""

    values: Mapping[str, Any]
    file: Remote
    wanted: int                                  # bytes of the columns
    fetched: int                                 # these and the gaps between


class Damaged(ValueError):
    """Bytes that came complete and are no parquet row of Major TOM's, or a footer that can't be: read anew they may be."""


class Footers:
    """The footers of a hub's files; safe to use from several threads."""

    def __init__(self, hub: Hub, folder: Path | None = None) -> None:
        self.hub, self.folder = hub, folder
        self._kept: OrderedDict[str, tuple[Remote, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def of(self, name: str) -> tuple[Remote, Any]:
        """The file and pyarrow's FileMetaData of it, from memory, from disk, or from the hub; ValueError if it is no parquet file."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:                               # who comes second waits for the first one's
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
                    return self._kept[name]
            footer = self._stored(name) or fetched_footer(self.hub, name)
            found = footer.file, metadata_of(footer, self.hub.address(name))
            self._store(footer)
            with self._lock:
                self._kept[name] = found
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return found

    def drop(self, name: str) -> None:
        """Forget the footer of a file that was changed or damaged."""
        with self._lock:
            self._kept.pop(name, None)
        if path := self._path(name):
            path.unlink(missing_ok=True)

    def waste(self, row: Row, kind: str) -> None:
        """A row turned out to be of no use: its bytes were in vain, and its footer is not trusted."""
        self.drop(row.file.name)
        self.hub.traffic.count(wanted=-row.wanted)
        self.hub.traffic.count_used("columns", -row.fetched)
        self.hub.traffic.count_retry(kind)

    def _path(self, name: str) -> Path | None:
        return self.folder and self.folder / f"{hashlib.sha256(self.hub.address(name).encode()).hexdigest()[:32]}.footer"

    def _stored(self, name: str) -> Footer | None:
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        try:
            head, _, data = path.read_bytes().partition(b"\n")
            said = json.loads(head)
            whole = data[-4:] == MAGIC and hashlib.sha256(data).hexdigest() == said.pop("sha256") and said["name"] == name
            return Footer(Remote(**said), data) if whole and said["etag"] else None
        except (OSError, ValueError, TypeError, KeyError):
            return None                          # it is only a cache

    def _store(self, footer: Footer) -> None:
        path = self._path(footer.file.name)
        if path is not None and footer.file.etag:
            head = {**asdict(footer.file), "sha256": hashlib.sha256(footer.data).hexdigest()}
            with suppress(ValueError):           # it is only a cache
                write_whole(path, json.dumps(head).encode() + b"\n" + footer.data)


def fetched_footer(hub: Hub, name: str) -> Footer:
    file, end = hub.tail(name, GUESS, "footers")
    length = int.from_bytes(end[-8:-4], "little") + 8
    if len(end) < 12 or end[-4:] != MAGIC or length > min(file.size - 4, LARGEST):
        raise Damaged(f"{hub.address(name)}: is no whole parquet file (it doesn't end as one)")
    if length > len(end):
        end = hub.read(file, file.size - length, file.size - len(end), "footers") + end
    return Footer(file, end[len(end) - length:])


def metadata_of(footer: Footer, address: str) -> Any:
    try:
        metadata = pq.read_metadata(pa.BufferReader(footer.data))
        if not all(metadata.schema.column(i).path for i in range(metadata.num_columns)):     # or what can't be decoded
            raise ValueError("a column has no name")
        return metadata
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"{address}: its footer can't be read ({error})") from error


def read_row(footers: Footers, name: str, row: int, columns: Sequence[str], optional: Iterable[str] = ()) -> Row:
    """The values of one row group's one row in these columns.

    Columns of `optional` that the file hasn't are left out. What was changed or can't be decoded is read anew with its footer. Raises
    ValueError for a row or column that isn't there, and for what stays changed or undecodable.
    """
    for left in reversed(range(TRIES)):
        try:
            file, metadata = footers.of(name)
            return fetched_row(footers.hub, file, metadata, row, columns, optional)
        except (Changed, Damaged) as error:
            footers.drop(name)
            footers.hub.traffic.count_retry("changed" if isinstance(error, Changed) else "unreadable")
            if not left:
                raise type(error)(f"{error}; and again when it was read anew") from error
    raise AssertionError("unreachable")


def fetched_row(hub: Hub, file: Remote, metadata: Any, row: int, columns: Sequence[str], optional: Iterable[str]) -> Row:
    where = hub.address(file.name)
    ranges = ranges_of(metadata, row, columns, frozenset(optional), file.size, where)
    spans = {start: hub.read(file, start, stop, "columns") for start, stop in coalesced(ranges.values())}
    wanted, fetched = sum(stop - start for start, stop in ranges.values()), sum(map(len, spans.values()))
    try:
        with pq.ParquetFile(pa.PythonFile(Spans(file.size, spans), "r"), metadata=metadata, pre_buffer=False,
                            page_checksum_verification=True) as parquet:
            table = parquet.read_row_group(row, columns=list(ranges), use_threads=False)
        values = {column: table[column][0].as_py() for column in ranges}
    except (pa.ArrowException, OSError, ValueError) as error:
        hub.traffic.count_used("columns", -fetched)
        raise Damaged(f"{where}: row group {row} can't be decoded ({error})") from error
    hub.traffic.count(wanted=wanted)
    return Row(values, file, wanted, fetched)


def ranges_of(
    metadata: Any, row: int, columns: Sequence[str], optional: frozenset[str], size: int, where: str
) -> dict[str, tuple[int, int]]:
    """Where the columns of a row group lie; those of `optional` that the file hasn't are left out."""
    if not 0 <= row < metadata.num_row_groups:
        raise Damaged(f"{where}: has no row group {row}, it has {metadata.num_row_groups}")
    group = metadata.row_group(row)
    if group.num_rows != 1:
        raise Damaged(f"{where}: row group {row} holds {group.num_rows} rows; in Major TOM's files each holds one")
    there = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    missing = [column for column in columns if column not in there and column not in optional]
    if missing:
        raise Damaged(f"{where}: has no column {', '.join(missing)}; there are {', '.join(there)}")
    wanted = [column for column in columns if column in there]
    check_places(metadata, row, wanted, size, where)
    return {column: column_range(group.column(there[column]), size - 8, f"{where}: row group {row}, column {column}") for column in wanted}


def check_places(metadata: Any, row: int, columns: Sequence[str], size: int, where: str) -> None:
    """`Damaged` where a footer is wrong about a column in a way that pyarrow's `column(i)` would end the process by (Apache Arrow 26)."""
    with pq.ParquetFile(pa.PythonFile(Spans(size, {}), "r"), metadata=metadata, pre_buffer=False) as parquet:
        for column in columns:
            try:
                parquet.read_row_group(row, columns=[column], use_threads=False)
            except NotFetched:                   # the reader understood where the column lies
                continue
            except (pa.ArrowException, OSError, ValueError) as error:
                raise Damaged(f"{where}: its footer is wrong about column {column} of row group {row} ({error})") from error


def column_range(column: Any, end: int, what: str) -> tuple[int, int]:
    """Where a column chunk's pages lie: its dictionary, if there is one, and its data."""
    start = column.dictionary_page_offset if column.has_dictionary_page else None
    start = column.data_page_offset if start is None else min(start, column.data_page_offset)
    stop = start + column.total_compressed_size
    if max(column.total_compressed_size, column.total_uncompressed_size) > LARGEST:
        raise Damaged(f"{what}: takes {column.total_uncompressed_size:,} bytes, which no image of a cell does")
    if not 4 <= start < stop <= end:
        raise Damaged(f"{what}: lies at bytes {start} to {stop}, outside of the file's data; its footer is wrong")
    return start, stop


def coalesced(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges to ask for: neighbours in one, the smallest gaps first, as long as all gaps are few of the wanted bytes."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop)
        else:
            merged.append((start, stop))
    left = SPARE * sum(stop - start for start, stop in merged)
    gaps = sorted((after[0] - before[1], before[1]) for before, after in pairwise(merged))
    bridged = set()
    for gap, place in gaps:
        if gap <= min(left, NEAR):
            left -= gap
            bridged.add(place)
    found: list[tuple[int, int]] = []
    for start, stop in merged:
        if found and found[-1][1] in bridged:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found


class NotFetched(OSError):
    """Bytes that only others than the wanted columns can need."""


class Spans(io.RawIOBase):
    """A file of which only some spans are there; reading anything else is an error."""

    def __init__(self, size: int, spans: Mapping[int, bytes]) -> None:
        super().__init__()
        self._size, self._spans, self._at = size, spans, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        for start, data in self._spans.items():
            if start <= self._at and stop <= start + len(data):
                found = data[self._at - start:stop - start]
                self._at = stop
                return found
        raise NotFetched(f"bytes {self._at} to {stop} were not fetched")
