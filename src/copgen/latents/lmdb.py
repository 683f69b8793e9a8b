"""How do latents of the published pipeline become shards? Its LMDB databases are read without unpickling what they hold.

They are folders with a `data.mdb`: one of all modalities, whose values are pickled dictionaries of arrays, or one a modality, named as the
released weights name them (`S1RTC_vh_vv`, `DEM_DEM`) or as its row is (`DEM_thumbnail`), in any case. Keys are `618U_30L_patch_7`, patches
counted row by row from the north-west, or `618U_30L_7.npy` and `618U_30L_center.npy`, as thumbnails have them. Arrays are float32
[2z, h, w], means and log variances, or their bare bytes. Places are not in them: the published cache divides the cell where the patches
divide its larger images, so they are worked out anew. Dates are those of a file beside, or absent. Of thumbnails, the published pipeline
mirrored each cell's, or not, by chance, and keeps no record of it: the number of a patch may count from the east.

The arrays are found in the pickles by `pickles.arrays_in`, which runs nothing. LMDB's own library trusts a database's pages, though: one
that was tampered with could crash the process that imports it.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from copgen import geoparquet
from copgen.bulk.encode import Codecs
from copgen.bulk.patches import numbers
from copgen.files import json_bytes, sha256, write_json
from copgen.latents.pickles import LARGEST, arrays_in
from copgen.majortom.grid import Names, centre_of, numbers_of, patch_centres_at, tile_corners
from copgen.modalities import TABLES, TILE, Table, table_with
from copgen.scaling import DayOfYear, UnitVector
from copgen.shards import PRESENT, Shards, check_free, finish, length_of, write_shard

PLAN = "plan.json"
KEY = re.compile(r"(\d+[UD]_\d+[LR])_(?:patch_)?(\d+|center)(?:\.npy)?")
CELL, PATCH = "cell", "patch"                    # arrays of a shard besides its rows: int16 [n, 2] as the grid numbers cells, uint8 [n]
LOG_VARIANCE = (-30.0, 20.0)                     # what a draw takes a log variance to lie in
Moments = dict[str, NDArray[Any]]                # of one patch, by row


@dataclass(frozen=True)
class Imported:
    """The shards, how many samples have each row, and how many arrays were left out as they held numbers that are none."""

    shards: Shards
    rows: Mapping[str, int]
    not_finite: Mapping[str, int]


@dataclass(frozen=True)
class Database:
    """An LMDB that is open, of one row or of all (None)."""

    path: Path
    row: str | None
    table: Table
    transaction: Any

    def keys(self) -> Iterator[bytes]:
        with self.transaction.cursor() as cursor:
            yield from cursor.iternext(keys=True, values=False)

    def moments(self, key: bytes) -> Moments:
        """What there is at a key, by row; ValueError for values that are no arrays of known rows."""
        value = self.transaction.get(key)
        if value is None:
            return {}
        try:
            if value.startswith(b"PK"):
                raise ValueError("is a zipped Zarr array, which is not read; write the latents as arrays (--save_to_lmdb)")
            found = arrays_in(value)
            if isinstance(found, dict) == (self.row is not None):
                raise ValueError("holds one array in a database of all rows, or a dictionary in that of one")
            return {row_of(name, self.table): array for name, array in found.items()} if isinstance(found, dict) else {str(self.row): found}
        except ValueError as error:
            raise ValueError(f"{self.path}: {key.decode(errors='replace')}: {error}") from error


@dataclass(frozen=True, eq=False)
class Cells:
    """What is known of cells besides their latents, by name in ascending order; '' and NaT where it is not."""

    names: Names
    dates: NDArray[np.datetime64]
    crs: Names

    def of(self, cells: Names) -> tuple[NDArray[np.datetime64], Names]:
        """Dates and CRSs of cells; without one of its own, a cell has that of the UTM zone of its centre."""
        where = np.minimum(np.searchsorted(self.names, cells), max(len(self.names) - 1, 0))
        known = self.names[where] == cells if len(self.names) else np.zeros(len(cells), bool)
        dates = np.full(len(cells), np.datetime64("NaT"), "datetime64[D]")
        dates[known] = self.dates[where[known]]
        crs = utm_of(*centre_of(cells)).astype("U64")
        given = known.copy()
        given[known] = self.crs[where[known]] != ""
        crs[given] = self.crs[where[given]]
        return dates, crs


NOTHING = Cells(np.array([], np.str_), np.array([], "datetime64[D]"), np.array([], np.str_))


def import_lmdb(source: Path, out: Path, table: Table, *, about: Path | None = None, codecs: Codecs | None = None, per_shard: int = 576,
                progress: Callable[[int, int], object] | None = None) -> Imported:
    """Write the latents of an LMDB, or of a folder of one LMDB a modality, as shards of moments; shards that exist are kept.

    A sample is a patch that any of them has; the rows that it lacks are marked absent. about: of cells, as `read_cells` takes it.
    codecs: those that made the latents, to be checked when they are trained on. progress: of the samples, about how many
    there are. Raises ValueError for what is no such database, for values that are no arrays, and for a folder that holds other shards.
    """
    if codecs and (missing := [row for row in table.images if row not in codecs.folders]):
        raise ValueError(f"{source}: holds latents of {missing[0]}, of which these codecs are none; name the model, or the folder of the "
                         "codecs, that made them")
    used = codecs.hashes() if codecs else {}
    plan = {"lmdb": source.absolute().name, "rows": list(table.names), "patch": table.patch, "about": sha256(about) if about else None,
            "codecs": used, "per_shard": per_shard}
    cells, counts = read_cells(about) if about else NOTHING, []
    with opened(source, table_with(table.names)) as databases:
        settle(out, plan)
        expected = max(int(database.transaction.stat()["entries"]) for database in databases)
        for k, keys in enumerate(parts(keys_of(databases), per_shard)):
            if length_of(out, k) != len(keys):
                arrays, faults = shard_of(databases, keys, table, cells)
                write_json(beside(out, k), {"samples": len(keys), "not finite": faults})      # first, so that a shard has its records
                write_shard(out, k, arrays)
            counts.append(len(keys))
            if progress:
                progress(sum(counts), max(expected, sum(counts)))
    meta = {"kind": "moments", "source": f"{plan['lmdb']} (LMDB)", "incomplete": True}
    return counted(finish(out, counts, meta | {key: plan[key] for key in ("rows", "patch", "codecs")}), table)


def settle(out: Path, plan: Mapping[str, Any]) -> None:
    """Write plan.json; ValueError where the folder has another."""
    path = out / PLAN
    if path.is_file():
        try:
            there = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: could not be read ({error}); choose another folder") from error
        if differing := next((key for key in {**there, **plan} if there.get(key) != json.loads(json_bytes(plan)).get(key)), None):
            raise ValueError(f"{out}: holds latents of {differing} = {there.get(differing)!r}, not {plan.get(differing)!r}; choose another "
                             "folder")
    else:
        check_free(out)
    write_json(path, plan)


def counted(shards: Shards, table: Table) -> Imported:
    rows: Counter[str] = Counter(dict.fromkeys(table.names, 0))
    faults: Counter[str] = Counter()
    for k, (start, count) in enumerate(zip(shards.starts, shards.counts, strict=False)):
        there = shards.present(table.names, np.arange(start, start + count))
        rows.update(dict(zip(table.names, there.sum(0).tolist(), strict=True)))
        faults.update(row for _, row in json.loads(beside(shards.folder, k).read_text())["not finite"])
    return Imported(shards, dict(rows), dict(faults))


def beside(folder: Path, k: int) -> Path:
    """Where the record of the k-th shard is: the keys and rows whose arrays were left out."""
    return folder / f"shard-{k:05d}.json"


# Databases


def table_in(source: Path) -> Table:
    """The table that the latents are of, by what they are called there; ValueError as `import_lmdb`."""
    wrong: list[ValueError] = []
    for table in TABLES.values():
        try:
            with opened(source, table) as databases:
                for database in databases:
                    for key in islice(database.keys(), 1):
                        database.moments(key)
            return table
        except ValueError as error:
            wrong.append(error)
    raise wrong[0]


@contextmanager
def opened(source: Path, table: Table) -> Iterator[list[Database]]:
    """The databases in a folder, of rows of this table; ValueError where there are none, or they can't be read."""
    try:
        import lmdb
    except ImportError as error:
        raise ValueError("reading LMDB needs the package lmdb; install it with: pip install 'copgen[lmdb]'") from error
    paths = [source] if (source / "data.mdb").is_file() else sorted(path.parent for path in source.glob("*/data.mdb"))
    if not paths:
        raise ValueError(f"{source}: holds no LMDB, neither data.mdb itself nor folders with one; name the folder that does")
    with ExitStack() as stack:
        try:
            databases = []
            for path in paths:
                environment = stack.enter_context(lmdb.open(str(path), readonly=True, lock=False, create=False, max_dbs=0))
                row = row_of(path.name, table) if len(paths) > 1 or len(table.called(path.name)) == 1 else None
                databases.append(Database(path, row, table, stack.enter_context(environment.begin(buffers=False))))
            yield databases
        except lmdb.Error as error:
            raise ValueError(f"{source}: could not be read as LMDB ({error}); copy it again") from error


def row_of(name: str, table: Table) -> str:
    """The row that the published pipeline calls so; ValueError where there is none."""
    found = table.called(name)
    if len(found) != 1:
        known = ", ".join(row.released_as for row in table.rows)
        raise ValueError(f"no row is called {name!r} in the released weights; there are: {known}")
    return found[0]


def keys_of(databases: Iterable[Database]) -> Iterator[bytes]:
    """The keys that any database has, ascending; they are read on the way, not held."""
    return (key for key, _ in groupby(heapq.merge(*(database.keys() for database in databases))))


def parts(keys: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    while part := list(islice(keys, size)):
        yield part


# Samples


def shard_of(databases: Sequence[Database], keys: Sequence[bytes], table: Table, cells: Cells) -> tuple[Moments, list[tuple[str, str]]]:
    """The arrays of a shard, and the keys and rows of what was left out."""
    names, patches = places_of(keys, table)
    arrays: Moments = {row: np.zeros((len(keys), *moments_shape(table, row)), np.float16) for row in table.images}
    present, faults = np.zeros((len(keys), len(table.names)), np.uint8), []
    for k, key in enumerate(keys):
        for row, array in (pair for database in databases for pair in database.moments(key).items() if pair[0] in arrays):
            if array.shape not in (expected := moments_shape(table, row), (prod(expected),)):
                raise ValueError(f"{key.decode()}: {row} has moments {list(array.shape)}, the recipe's table {list(expected)}; "
                                 "name the recipe that they were made for")
            arrays[row][k], fine = stored(array.reshape(expected))
            present[k, table.names.index(row)] = fine
            if not fine:
                faults.append((key.decode(), row))
    for row, (layer, there) in whereabouts(names, patches, table, cells).items():
        arrays[row], present[:, table.names.index(row)] = layer, there
    cell = np.stack(numbers_of(names), -1).astype(np.int16)
    return {**arrays, PRESENT: present, CELL: cell, PATCH: patches.astype(np.uint8)}, faults


def moments_shape(table: Table, row: str) -> tuple[int, int, int]:
    z, height, width = table.latent_shape(row)
    return 2 * z, height, width


def stored(array: NDArray[Any]) -> tuple[NDArray[np.float16], bool]:
    """Moments as shards have them, log variances within limits, and whether they are numbers; zeros where they are none."""
    mean, log_variance = np.split(array.astype(np.float32), 2)
    with np.errstate(over="ignore"):
        half = np.concatenate([mean, np.clip(log_variance, *LOG_VARIANCE)]).astype(np.float16)
    fine = bool(np.isfinite(half).all())
    return (half if fine else np.zeros_like(half)), fine


def places_of(keys: Sequence[bytes], table: Table) -> tuple[Names, NDArray[np.int64]]:
    """The cells and patches of keys; ValueError for one that names none."""
    known = {str(number): number for number in numbers(table)} | {"center": numbers(table, "middle")[0]}
    found = [KEY.fullmatch(key.decode(errors="replace")) for key in keys]
    if strange := [key for key, match in zip(keys, found, strict=True) if match is None or match[2] not in known]:
        raise ValueError(f"key {strange[0]!r}: is not a patch of a cell, such as 618U_30L_patch_7")
    pairs = [(match[1], known[match[2]]) for match in found if match]
    return np.array([cell for cell, _ in pairs], np.str_), np.array([patch for _, patch in pairs], np.int64)


def whereabouts(names: Names, patches: NDArray[np.int64], table: Table, cells: Cells
                ) -> dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Vectors of the rows without a grid, and where they are known: patches' true centres, cells' dates."""
    unique, which = np.unique(names, return_inverse=True)
    dates, crs = cells.of(unique)
    day, found = dates[which][:, None], dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]()
    for row in table.names:
        match table[row].scale:
            case UnitVector() as scale:
                found[row] = scale.to_model(centres_of(unique, crs, table)[which, patches]), np.ones(len(names), bool)
            case DayOfYear() as scale:
                known = ~np.isnat(day[:, 0])
                vector = scale.to_model(np.where(known[:, None], day, np.datetime64("2000-01-01")))
                found[row] = np.where(known[:, None, None, None], vector, np.float32(0)), known
    return found


def centres_of(cells: Names, crs: Names, table: Table) -> NDArray[np.float64]:
    """Latitude and longitude [cells, patches + 1, 2] of all patches of cells, and of the square in their middle."""
    corners = tile_corners(cells, crs)
    places = [patch_centres_at(*corners, crs, table.footprint, table.cut), patch_centres_at(*corners, crs, TILE)]
    return np.concatenate([np.stack(place, -1).reshape(len(cells), -1, 2) for place in places], axis=1)


def utm_of(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> Names:
    zone = ((lon + 180) % 360 // 6).astype(int) + 1
    return np.char.add("EPSG:", (np.where(lat >= 0, 32600, 32700) + zone).astype(str))


def read_cells(path: Path) -> Cells:
    """Of an .npz: `cells` and, of the same length, `dates` (days) or `crs` (`EPSG:32630`) or both, as text or numpy's dates, not pickled.

    Or an archive's index.parquet, or the published cache of dates, a pickled dictionary of vectors, which is not unpickled either.
    ValueError for what is none of them.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes, and those of cells have at most {LARGEST}")
        if path.suffix == ".pkl":
            found = arrays_in(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("one array, not a dictionary of them")
            given: dict[str, NDArray[Any]] = {"cells": np.array(list(found), np.str_), "dates": DayOfYear().to_physical(
                np.stack(list(found.values())).reshape(-1, 1, 1, 3))[:, 0]}
        elif path.suffix == ".parquet":
            index = geoparquet.read(path, ("cell", "date", "crs")).to_pydict()
            given = {"cells": np.array(index["cell"], np.str_), "dates": np.array(index["date"], "datetime64[D]"),
                     "crs": np.array([code or "" for code in index["crs"]])}
        else:
            with np.load(path, allow_pickle=False) as archive:
                if sum(one.file_size for one in archive.zip.infolist()) > LARGEST:
                    raise ValueError(f"arrays of more than {LARGEST} bytes, once unpacked")
                given = dict(archive)
        names = given["cells"].astype(np.str_)
        order = np.argsort(names)
        dates = given.get("dates", np.full(len(names), "NaT")).astype("datetime64[D]")
        codes = given.get("crs", np.full(len(names), "")).astype(np.str_)
        if strange := next((code for code in codes.tolist() if not re.fullmatch(r"(EPSG:\d+)?", code)), None):
            raise ValueError(f"the CRS {strange}, which is not like EPSG:32630")
        return Cells(names[order], dates[order], codes[order])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, BadZipFile, MemoryError) as error:
        raise ValueError(f"{path}: says nothing of cells that can be read ({error}); it is an .npz with cells and dates or crs, an "
                         "archive's index.parquet, or the published cache of dates") from error
