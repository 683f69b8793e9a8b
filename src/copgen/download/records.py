"""What is whole in an archive? A record a cell, written when its files are there; what was under way is finished or withdrawn.

A cell is put together in `.copgen/staged/<cell>`: its files, at last its record. Then its folders get their own places, one renaming each,
and its record follows them. So a folder of a product is whole or absent, and a run that was killed between two renamings is finished by
the next one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from copgen.files import check_target, held, json_bytes, sha256, unwritten, write_bytes, write_json
from copgen.majortom.grid import CELL

HIDDEN = ".copgen"
RECORD = "record.json"
PLACE = re.compile(r"Core-\w+(?:/\w[\w.-]*)+", re.ASCII)         # of a file or folder, relative to the archive


class Full(ValueError):
    """The disk is full: no other cell will fare better."""


class OtherChoice(ValueError):
    """An earlier request chose another product for this cell."""


@dataclass(frozen=True)
class File:
    path: str                                    # relative to the archive
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Taken:
    """One product of a cell as it was taken."""

    id: str
    place: str                                   # its folder or file, relative to the archive
    files: tuple[File, ...]
    day: str | None = None
    sensed: str | None = None                    # UTC
    cloud_cover: float | None = None
    nodata: float | None = None
    source: str = ""                             # file and row group that it came from
    etag: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Record:
    """One cell of an archive."""

    cell: str
    taken: Mapping[str, Taken]
    crs: str = ""
    left: float = 0.0                            # the corner of its images, metres
    top: float = 0.0
    date: str | None = None
    refused: tuple[tuple[str, str, str, int], ...] = field(default=())      # product, id, file, row that metadata told wrongly
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Record:
        """ValueError, naming the file, for what is no record."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            taken = {name: Taken(**{**one, "files": tuple(File(**file) for file in one["files"])})
                     for name, one in said.pop("taken").items()}
            said |= {"refused": tuple((str(a), str(b), str(c), int(d)) for a, b, c, d in said["refused"]), "notes": tuple(said["notes"])}
            places = [place for one in taken.values() for place in (one.place, *(file.path for file in one.files))]
            if strange := [place for place in places if not PLACE.fullmatch(place)]:
                raise ValueError(f"{strange[0]!r} is no place in an archive")
            return cls(taken=taken, **said)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: is no record of a cell ({error}); delete it, and the cell is fetched again") from error


class Archive:
    """An archive's folder and what its hidden part knows of it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.hidden = self.root / HIDDEN
        self.staged = self.hidden / "staged"
        self.unindexed = self.hidden / "unindexed"       # a file that is there while the index may lack a record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time; finishes or withdraws what a killed one left. ValueError for a folder that can't be written, or is in use."""
        check_target(self.root, [])
        with held(self.root):
            with disk_errors(self.root):
                self.staged.mkdir(parents=True, exist_ok=True)
                for folder in sorted(self.staged.iterdir()):
                    if (folder / RECORD).is_file():
                        self._place(Record.read(folder / RECORD))
                    shutil.rmtree(folder)
            yield

    def record(self, cell: str) -> Record | None:
        path = self._path(cell)
        return Record.read(path) if path.is_file() else None

    def write(self, record: Record) -> None:
        """A cell's record, where no folder of it changes."""
        with disk_errors(self.hidden):
            self.unindexed.touch()
        write_json(self._path(record.cell), asdict(record))

    def records(self) -> Iterator[Record]:
        """All records, by cell."""
        for row in sorted((self.hidden / "records").glob("*")):
            for path in sorted(row.glob("*.json")):
                if CELL.fullmatch(path.stem):
                    yield Record.read(path)

    def _path(self, cell: str) -> Path:
        return self.hidden / "records" / cell.split("_")[0] / f"{cell}.json"

    @contextmanager
    def staging(self, cell: str) -> Iterator[Path]:
        """A folder to put a cell together in; whatever isn't committed from it is gone afterwards."""
        folder = self.staged / cell
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with disk_errors(self.root):
                folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, record: Record) -> None:
        """Give what is staged for a cell its own places, and the cell its record.

        Raises ValueError if something else, which no record of this archive knows, is in one of the places.
        """
        folder, before = self.staged / record.cell, self.record(record.cell)
        ours = {one.place for one in before.taken.values()} if before else set()
        for one in record.taken.values():
            there = self.root / one.place
            if (folder / one.place).exists() and there.exists() and one.place not in ours and broken(self.root, one, thorough=True):
                raise ValueError(f"{there}: is there already with other content, and wasn't written by a download; move it away, or choose "
                                 f"another --out")
        with disk_errors(folder):
            write_bytes(folder / f".{RECORD}", json_bytes(asdict(record)))
            (folder / f".{RECORD}").replace(folder / RECORD)
            self._place(record)

    def _place(self, record: Record) -> None:
        folder = self.staged / record.cell
        self.unindexed.touch()
        for one in record.taken.values():
            new, there = folder / one.place, self.root / one.place
            if not new.exists():
                continue                         # it is in its place, of this time or an earlier one
            there.parent.mkdir(parents=True, exist_ok=True)
            if there.exists():
                old = folder / "old" / one.place
                old.parent.mkdir(parents=True, exist_ok=True)
                there.rename(old)
            new.rename(there)
        path = self._path(record.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).replace(path)


def broken(root: Path, taken: Taken, *, thorough: bool = False) -> list[str]:
    """What of a product isn't as recorded: files that are missing or of another size, or (thorough) of another hash."""
    wrong = []
    for file in taken.files:
        path = root / file.path
        if not path.is_file():
            wrong.append(f"{file.path}: is missing")
        elif path.stat().st_size != file.bytes:
            wrong.append(f"{file.path}: has {path.stat().st_size} bytes, not {file.bytes}")
        elif thorough and sha256(path) != file.sha256:
            wrong.append(f"{file.path}: has another content than when it was fetched")
    return wrong


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = Full if error.errno in (errno.ENOSPC, errno.EDQUOT) else ValueError
        raise kind(unwritten(path, error)) from error


def write_staged(staged: Path, place: str, files: Mapping[str, bytes]) -> tuple[File, ...]:
    """Write a product's files under its place in the staging folder."""
    with disk_errors(staged):
        folder = staged / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_bytes(folder / name, data)
    return tuple(File(f"{place}/{name}", len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
