"""Which rows of a source's metadata may be taken? Fetched once, revalidated, checked as from a stranger, filtered in whole columns.

When a product was sensed is read from its id, which its row in the parquet file repeats; the column of time stamps is not needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copgen.download.hub import origin
from copgen.download.records import disk_errors
from copgen.download.remote import Changed, Hub, Remote
from copgen.download.sources import NO_ID, Source
from copgen.files import sha256, write_json
from copgen.majortom.grid import CELL

TRIES = 3                                        # of a file that is changed while it is read
PIECE = 1 << 23                                  # bytes asked for at once
FILE = r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*\.parquet"
Masks = dict[str, NDArray[np.bool_]]
Fetching = Callable[[str, int, int], None]       # file, bytes here, bytes of it


@dataclass(frozen=True)
class Filters:
    """What a row must be; everything is inclusive."""

    cells: tuple[str, ...] | None = None
    bbox: tuple[float, float, float, float] | None = None           # west, south, east, north of centres; west > east: across 180 degrees
    dates: tuple[np.datetime64, np.datetime64] | None = None
    cloud_cover: tuple[float, float] | None = None                  # percent, of Sentinel-2
    nodata: float | None = None                                     # at most, of 1


@dataclass(frozen=True)
class Rows:
    """The rows of one source that may be taken, and what was left out why.

    The table's columns: cell, id, sensed (seconds since 1970), taken (datatake and tile), made, cloud, nodata, lat, lon, file, row; sorted
    by id, file and row, so that what is settled by order is settled the same way every time.
    """

    source: Source
    table: Any                                   # pyarrow.Table
    in_place: Any                                # names of all cells where asked, those without a row that may be taken too
    commit: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()                  # contradictions, and how they were settled


# --- the file -----------------------------------------------------------------------------------------------------------------------

def fetch_metadata(hub: Hub, source: Source, cache: Path, progress: Fetching | None = None) -> tuple[Path, Remote]:
    """The metadata.parquet of a source: from the cache if the hub still has the same, else fetched, going on where it broke off."""
    name = f"{source.repository}/metadata.parquet"
    key = hashlib.sha256(hub.address(name).encode()).hexdigest()[:16]
    path = cache / f"{source.repository}-{key}.parquet"
    note = path.with_suffix(".json")
    known = noted(note) if path.is_file() else None
    if known is not None and path.stat().st_size != known.size:
        known = None
    now = hub.look(name, known.etag if known else "")
    if now is None and known is not None:
        return path, known
    assert now is not None
    cache.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(TRIES)):
        try:
            fetch_whole(hub, now, path, progress)
            break
        except Changed:
            hub.traffic.count_retry("changed")
            if not left:
                raise
            now = hub.look(name) or now
    write_json(note, asdict(now))
    return path, now


def fetch_whole(hub: Hub, file: Remote, path: Path, progress: Fetching | None = None) -> None:
    """Fetch a whole file piece by piece; what is there of the same file stays, and the file has its name when it is complete."""
    tag = hashlib.sha256(f"{file.etag} {file.size}".encode()).hexdigest()[:16]
    part = path.with_name(f".{path.name}.{tag}.part")
    for stale in path.parent.glob(f".{path.name}.*.part"):
        if stale != part or not file.etag:       # what may be of another file
            stale.unlink()
    with disk_errors(path), part.open("ab") as output:
        here = output.tell()
        if here > file.size:
            output.truncate(0)
            here = 0
        while here < file.size:
            data = hub.read(file, here, min(here + PIECE, file.size), "metadata")
            output.write(data)
            here += len(data)
            if progress:
                progress(file.name, here, file.size)
    if re.fullmatch(r"[0-9a-f]{64}", file.etag) and sha256(part) != file.etag:      # the hub's ETag of a large file is its hash
        part.unlink()
        raise Changed(f"{hub.address(file.name)}: is not what its ETag says, {file.etag}")
    part.replace(path)


def noted(path: Path) -> Remote | None:
    try:
        found = Remote(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.etag else None         # without one nothing says that it is still the same


# --- its rows -----------------------------------------------------------------------------------------------------------------------

def read_metadata(path: Path, source: Source, filters: Filters, allowed: frozenset[tuple[str, str, int | None]], commit: str = "") -> Rows:
    """The rows of a metadata file that pass the filters and can be trusted; `allowed` are the origins that it may point to.

    Raises ValueError, naming the file, if it is no parquet file or lacks a column.
    """
    table = needed_columns(path, source)
    place = in_place(table, filters)
    table = table.filter(pa.array(place))
    counts: Counter[str] = Counter()
    notes: list[str] = []
    cells = pc.unique(table["grid_cell"].filter(pc.match_substring_regex(table["grid_cell"], whole(CELL.pattern))))
    table = trusted(table, source, allowed, counts, notes)
    table = settled(table, source, notes)
    keep = np.ones(table.num_rows, bool)
    for why, passing in passing_filters(table, source, filters).items():
        counts[why] += int((keep & ~passing).sum())
        keep &= passing
    table = table.filter(pa.array(keep)).sort_by([(key, "ascending") for key in ("id", "file", "row")])
    return Rows(source, table, cells, commit, {why: n for why, n in counts.items() if n}, tuple(notes))


def needed_columns(path: Path, source: Source) -> Any:
    names = ["grid_cell", "centre_lat", "centre_lon", "nodata", "parquet_url", "parquet_row"]
    names += (["product_id"] if source.id_pattern else []) + (["cloud_cover"] if source.cloudy else [])
    try:
        there = pq.read_schema(path).names
        if missing := [name for name in names if name not in there]:
            raise ValueError(f"{path}: has no column {', '.join(missing)}, so it is no metadata of {source.repository}; delete it to fetch "
                             f"it again, or see --hub")
        with pq.ParquetFile(path, read_dictionary=["parquet_url"]) as file:
            table = file.read(names)
        return table.cast(pa.schema([(name, wanted_type(name)) for name in names]))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: can't be read as metadata of {source.repository} ({error}); delete it to fetch it again") from error


def wanted_type(name: str) -> Any:
    return {"parquet_url": pa.dictionary(pa.int32(), pa.string()), "parquet_row": pa.int64(), "grid_cell": pa.string(),
            "product_id": pa.string()}.get(name, pa.float64())


def in_place(table: Any, filters: Filters) -> NDArray[np.bool_]:
    if filters.cells is not None:
        return truths(pc.is_in(table["grid_cell"], value_set=pa.array(filters.cells, pa.string())))
    if filters.bbox is None:
        return np.ones(table.num_rows, bool)
    west, south, east, north = filters.bbox
    lat, lon = (table[name].to_numpy() for name in ("centre_lat", "centre_lon"))
    across = (lon >= west) | (lon <= east) if west > east else (lon >= west) & (lon <= east)
    return np.asarray(across & (lat >= south) & (lat <= north))


def trusted(table: Any, source: Source, allowed: frozenset[tuple[str, str, int | None]], counts: Counter[str], notes: list[str]) -> Any:
    """The rows whose names can become folders and whose addresses lead into the source's repository; with `file`, `row` and id's parts."""
    ids = table["product_id"] if source.id_pattern else pa.chunked_array([pa.repeat(pa.scalar(NO_ID), table.num_rows)])
    files = files_at(table["parquet_url"], source, allowed)
    row = pc.fill_null(table["parquet_row"], -1)
    good: Masks = {
        "cell's name is none": truths(pc.match_substring_regex(table["grid_cell"], whole(CELL.pattern))),
        "product id is none": truths(pc.match_substring_regex(ids, whole(source.id_pattern or NO_ID))),
        "address leads elsewhere": ~np.asarray(files.is_null()),
        "row number is none": np.asarray(pc.and_(pc.greater_equal(row, 0), pc.less(row, 1 << 31))),
        "place is none": np.isfinite(table["centre_lat"].to_numpy()) & np.isfinite(table["centre_lon"].to_numpy()),
    }
    said = {"cell's name is none": table["grid_cell"], "product id is none": ids, "address leads elsewhere": table["parquet_url"]}
    keep = np.ones(table.num_rows, bool)
    for why, mask in good.items():
        wrong = np.flatnonzero(keep & ~mask)
        if len(wrong):
            counts[f"refused: {why}"] = len(wrong)
            example = f", such as {said[why][int(wrong[0])].as_py()!r:.120}" if why in said else ""
            notes.append(f"{source.repository}: {len(wrong)} metadata rows refused because their {why}{example}")
        keep &= mask
    table, ids, files = (one.filter(pa.array(keep)) for one in (table, ids, files))
    return pa.table({
        "cell": table["grid_cell"], "id": ids, **parts_of(ids, source), "nodata": table["nodata"], "lat": table["centre_lat"],
        "lon": table["centre_lon"], "file": files, "row": table["parquet_row"],
        "cloud": table["cloud_cover"] if source.cloudy else pa.nulls(table.num_rows, pa.float64()),
    })


def whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"                 # in RE2's terms, which pyarrow speaks


def files_at(addresses: Any, source: Source, allowed: frozenset[tuple[str, str, int | None]]) -> Any:
    """The path in the repository of each address; null for one that leads elsewhere. There are few different ones."""
    combined = addresses.combine_chunks()
    whole = combined if isinstance(combined, pa.DictionaryArray) else pa.concat_arrays(combined.chunks)
    files = pa.array([file_at(one, source, allowed) for one in whole.dictionary.to_pylist()], pa.string())
    return files.take(whole.indices)


def file_at(address: str | None, source: Source, allowed: frozenset[tuple[str, str, int | None]]) -> str | None:
    try:
        parts = urlsplit(address or "")
        if origin(address or "") not in allowed or parts.username or parts.password:
            return None
    except ValueError:                           # a port that is no number
        return None
    found = re.fullmatch(rf"/datasets/[\w.-]+/{source.repository}/(?:resolve|blob)/[\w.%-]+/({FILE})", parts.path, re.ASCII)
    return found[1] if found else None


def parts_of(ids: Any, source: Source) -> dict[str, Any]:
    """What ids say: when it was sensed and made, and which datatake and tile it is (empty where it isn't said)."""
    count = len(ids)
    if not source.id_pattern:
        return {"sensed": pa.nulls(count, pa.int64()), "made": pa.nulls(count, pa.string()), "taken": pa.nulls(count, pa.string())}
    found = pc.extract_regex(ids, whole(source.id_pattern))
    said = {name: pc.struct_field(found, name) for name in re.findall(r"\(\?P<(\w+)>", source.id_pattern)}
    sensed = pc.strptime(said["sensed"], "%Y%m%dT%H%M%S", "s", error_is_null=True).cast(pa.int64())
    parts = [said[name] for name in ("platform", "sensed", "orbit", "tile") if name in said]
    return {"sensed": sensed, "made": said.get("made", pa.nulls(count, pa.string())), "taken": pc.binary_join_element_wise(*parts, "_")}


def settled(table: Any, source: Source, notes: list[str]) -> Any:
    """One row for each cell, product and place in the files: of contradictory clouds and no data, the worse holds.

    Rows of one product at several places stay: the parquet row itself says which is true.
    """
    keys = ["cell", "id", "file", "row"]
    once = table.select(keys).group_by(keys).aggregate([]).num_rows
    if once < table.num_rows:
        notes.append(f"{source.repository}: {table.num_rows - once} metadata rows are there again for the same product and place; where "
                     f"they contradict each other, the larger cloud cover and share of no data hold")
        keys += ["sensed", "made", "taken"]      # which the id says
        grouped = table.group_by(keys).aggregate([(name, "max") for name in table.column_names if name not in keys])
        table = grouped.rename_columns([name.removesuffix("_max") for name in grouped.column_names])
    places = table.select(["cell", "id"]).group_by(["cell", "id"]).aggregate([]).num_rows
    if places < table.num_rows:
        notes.append(f"{source.repository}: {table.num_rows - places} metadata rows give a product another place in the files; what lies "
                     f"there says which is true")
    return table


def passing_filters(table: Any, source: Source, filters: Filters) -> Masks:
    """By the reason for which a row is left out, which rows are not."""
    masks: Masks = {}
    if source.id_pattern:
        sensed = pc.fill_null(table["sensed"], -1).to_numpy()
        first, last = filters.dates or (np.datetime64("1970-01-01"), np.datetime64("9999-12-31"))
        start, stop = (day.astype("datetime64[s]").astype(np.int64) for day in (first, last + np.timedelta64(1, "D")))
        masks["outside of the dates"] = (sensed >= start) & (sensed < stop)
    if source.cloudy and filters.cloud_cover is not None:
        cloud = table["cloud"].to_numpy()
        masks["too cloudy"] = (cloud >= filters.cloud_cover[0]) & (cloud <= filters.cloud_cover[1])     # not for NaN
    if filters.nodata is not None:
        masks["too much without data"] = table["nodata"].to_numpy() <= filters.nodata
    return masks


def truths(mask: Any) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(mask, False))
