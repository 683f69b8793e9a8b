"""Tables with places: how do columns and geometries become a GeoParquet file, and how do they come back?

GeoParquet 1.1: a Parquet file with geometries as WKB and a JSON under the key `geo` that says so; longitude and latitude in degrees
(OGC:CRS84, which is meant where no CRS is said). Tables may come in pieces, so that millions of rows never lie in memory at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.files import plain, written

VERSION = "1.1.0"
NOTES = "copgen"                                 # the key of what a file's writer says of it
POINT = np.dtype([("order", "u1"), ("kind", "<u4"), ("lon", "<f8"), ("lat", "<f8")])       # a point's WKB, little-endian
MOST_ROWS = 1 << 20                              # of a row group
MOST_POINTS = (2**31 - 1) // POINT.itemsize      # of one array, which counts its bytes in 32 bits


@dataclass(frozen=True)
class About:
    """What a file says of itself: rows, names of columns, the geometry's column and metadata where it has one, its writer's notes."""

    rows: int
    columns: tuple[str, ...]
    geometry: str | None
    geo: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


# --- geometries ---------------------------------------------------------------------------------------------------------------------

def points(lon: ArrayLike, lat: ArrayLike) -> Any:
    """Places as a pyarrow array of WKB points; ValueError for one that is not on Earth, and for more than 2 GB of them."""
    pa, _ = arrow()
    lon, lat = np.broadcast_arrays(np.asarray(lon, float), np.asarray(lat, float))
    check_places(lon, lat)
    if len(lon) > MOST_POINTS:
        raise ValueError(f"{len(lon):,} points in one piece: at most {MOST_POINTS:,} fit; write a table in several pieces")
    records = np.zeros(len(lon), POINT)
    records["order"], records["kind"], records["lon"], records["lat"] = 1, 1, lon, lat
    ends = np.arange(len(lon) + 1, dtype=np.int32) * POINT.itemsize
    return pa.Array.from_buffers(pa.binary(), len(lon), [None, pa.py_buffer(ends), pa.py_buffer(records)])


def places(geometry: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of WKB points, an array or chunked array of pyarrow; ValueError where one is no point."""
    pa, _ = arrow()
    chunks = geometry.chunks if isinstance(geometry, pa.ChunkedArray) else [geometry]
    records = [point_records(chunk) for chunk in chunks]
    found = np.concatenate(records) if records else np.zeros(0, POINT)
    return found["lon"].copy(), found["lat"].copy()


def point_records(array: Any) -> NDArray[Any]:
    """The bytes of WKB points as records, without copying; ValueError as `places`."""
    pa, _ = arrow()
    if array.null_count == 0 and pa.types.is_binary(array.type):
        ends = np.frombuffer(array.buffers()[1], np.int32)[array.offset:array.offset + len(array) + 1]
        if not len(array):
            return np.zeros(0, POINT)
        if np.all(np.diff(ends) == POINT.itemsize):
            records = np.frombuffer(array.buffers()[2], POINT, len(array), int(ends[0]))
            if np.all((records["order"] == 1) & (records["kind"] == 1)):
                return records
    raise ValueError("geometries that are not all points (little-endian WKB); take them apart with shapely")


def polygons(rings: ArrayLike) -> Any:
    """Closed rings [n, k, 2] of longitude and latitude as a pyarrow array of WKB polygons, anticlockwise.

    Longitudes may count on beyond 180 degrees, or jump there. What crosses the antimeridian becomes a polygon on either side of it, as
    the format's specification asks. Raises ValueError for a corner that is not on Earth.
    """
    import shapely

    pa, _ = arrow()
    corners = unrolled(np.asarray(rings, float))
    check_places(corners[..., 0], corners[..., 1], most=540)     # a turn beyond the map
    lon, lat = corners[..., 0], corners[..., 1]
    area = (lon[:, :-1] * lat[:, 1:] - lon[:, 1:] * lat[:, :-1]).sum(1)
    corners = np.where(area[:, None, None] < 0, corners[:, ::-1], corners)
    shapes = shapely.polygons(corners)
    for k in np.flatnonzero(np.abs(corners[..., 0]).max(1) > 180):
        shapes[k] = either_side(shapes[k])
    return pa.array(shapely.to_wkb(shapes), pa.binary())


def unrolled(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rings [n, k, 2] whose longitudes jump at the antimeridian, with longitudes that count on from their first corner's."""
    lon, first = corners[..., 0], corners[:, :1, 0]
    jumps = np.ptp(lon, axis=1, keepdims=True) > 180
    return np.stack([np.where(jumps, first + (lon - first + 180) % 360 - 180, lon), corners[..., 1]], axis=-1)


def either_side(shape: Any) -> Any:
    """A polygon that crosses the antimeridian as the two that it is on the map."""
    import shapely
    from shapely.geometry.polygon import orient

    parts = [(shapely.intersection(shape, shapely.box(turn - 180, -90, turn + 180, 90)), turn) for turn in (-360, 0, 360)]
    moved = [orient(shapely.transform(part, lambda corners, turn=turn: corners - np.array([turn, 0.0])))
             for part, turn in parts if part.area > 0]
    return shapely.multipolygons(moved)


def check_places(lon: NDArray[np.float64], lat: NDArray[np.float64], most: float = 180) -> None:
    wrong = ~((np.abs(lon) <= most) & (np.abs(lat) <= 90))       # what is not a number compares as False
    if wrong.any():
        raise ValueError(f"longitude {lon[wrong][0]:g}, latitude {lat[wrong][0]:g}: is no place; degrees in -{most:g}..{most:g} and "
                         "-90..90 are needed")


# --- files --------------------------------------------------------------------------------------------------------------------------

def write(
    path: Path, tables: Any | Iterable[Any], *, geometry: str | None = "geometry", notes: Mapping[str, Any] | None = None,
    overwrite: bool = True,
) -> Path:
    """Write a pyarrow table, or tables of one schema one after another, whole or not at all; each is a row group, or several.

    `geometry` is the column of WKB (None: a Parquet file without places), `notes` what `describe` gives back. Raises ValueError for no
    table, tables of several schemas, a geometry column that is none, and what `copgen.files` refuses.
    """
    _, pq = arrow()
    pieces = iter([tables] if hasattr(tables, "schema") else tables)
    first = next(pieces, None)
    if first is None:
        raise ValueError(f"{path}: there is no table to write, not even an empty one")
    extent = None if geometry is None else Extent(path, geometry, first.schema)
    plainly = [name for name in first.schema.names if name != geometry]          # geometries don't repeat and have no order
    with written(path, overwrite=overwrite) as part, pq.ParquetWriter(
        part, first.schema, compression="zstd", use_dictionary=plainly, write_statistics=plainly,
    ) as writer:
        for piece in chain([first], pieces):
            if piece.schema != first.schema:
                raise ValueError(f"{path}: tables of one schema are needed, got {first.schema.to_string()} and {piece.schema.to_string()}")
            if extent:
                extent.add(piece[geometry])
            writer.write_table(piece, row_group_size=MOST_ROWS)
        said = {"geo": extent.metadata()} if extent else {}
        said |= {NOTES: dict(notes)} if notes else {}
        writer.add_key_value_metadata({key: json.dumps(value, allow_nan=False, default=plain) for key, value in said.items()})
    return Path(path)


class Extent:
    """What kinds of geometries a column has, and the box around them."""

    def __init__(self, path: Path, column: str, schema: Any) -> None:
        pa, _ = arrow()
        if column not in schema.names or not pa.types.is_binary(schema.field(column).type):
            raise ValueError(f"{path}: a geometry column {column!r} of WKB (binary) is needed; the columns are {', '.join(schema.names)}")
        self.path, self.column = path, column
        self.kinds: set[str] = set()
        self.low, self.high = np.full(2, np.inf), np.full(2, -np.inf)

    def add(self, geometry: Any) -> None:
        """The geometries of one table; ValueError for what is no geometry."""
        try:
            corners, kinds = np.stack(places(geometry), axis=-1), {"Point"}
        except ValueError:                       # other shapes
            corners, kinds = self.corners_of(geometry)
        if len(corners):
            self.kinds |= kinds
            self.low, self.high = np.fmin(self.low, corners.min(0)), np.fmax(self.high, corners.max(0))

    def corners_of(self, geometry: Any) -> tuple[NDArray[np.float64], set[str]]:
        import shapely

        try:
            shapes = shapely.from_wkb(geometry.drop_null().to_numpy(zero_copy_only=False))
        except shapely.errors.ShapelyError as error:
            raise ValueError(f"{self.path}: column {self.column!r} has what is no WKB geometry ({error}); make it with points or polygons"
                             ) from error
        boxes = shapely.bounds(shapes[~shapely.is_empty(shapes)])
        return boxes.reshape(-1, 2), {shape.geom_type for shape in shapes}

    def metadata(self) -> dict[str, Any]:
        box = {"bbox": [*self.low.tolist(), *self.high.tolist()]} if np.isfinite(self.low).all() else {}
        column = {"encoding": "WKB", "geometry_types": sorted(self.kinds), "edges": "planar", **box}
        return {"version": VERSION, "primary_column": self.column, "columns": {self.column: column}}


def describe(path: Path) -> About:
    """What a file says of itself, read from its end alone; ValueError for one that is no Parquet file or contradicts itself."""
    with opened(path) as file:
        schema, keys = file.schema_arrow, file.metadata.metadata or {}
        geo, notes = json_in(path, keys, "geo"), json_in(path, keys, NOTES)
        column = geo.get("primary_column")
        if geo and (column not in schema.names or column not in geo.get("columns", {}) or not str(geo.get("version", "")).startswith("1.")):
            raise ValueError(f"{path}: its metadata (geo) is not GeoParquet 1's or names no column of the file; write it again")
        return About(file.metadata.num_rows, tuple(schema.names), column, geo, notes)


def read(path: Path, columns: Sequence[str] | None = None, *, coded: Sequence[str] = ()) -> Any:
    """The columns asked for as one pyarrow table, all if none are named; of the file no others are read.

    `coded` names columns of repeated strings to be kept as numbers and a dictionary, as they are on the disk. Raises ValueError for a
    file that is no Parquet file, and for a column that it lacks.
    """
    with opened(path, coded) as file:
        there = file.schema_arrow.names
        if absent := [name for name in columns or () if name not in there]:
            raise ValueError(f"{path}: has no column {', '.join(absent)}; there are {', '.join(there)}")
        return file.read(columns=None if columns is None else list(columns))


def read_places(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of all of a file's points, read a row group at a time; ValueError as `describe`, and where some are none."""
    column = describe(path).geometry
    if column is None:
        raise ValueError(f"{path}: has no places, its metadata (geo) is missing; name an index that copgen wrote")
    with opened(path) as file:
        lon, lat, start = np.empty(file.metadata.num_rows), np.empty(file.metadata.num_rows), 0
        for k in range(file.num_row_groups):
            group = file.read_row_group(k, [column])[column]
            stop = start + len(group)
            lon[start:stop], lat[start:stop] = places(group)
            start = stop
    return lon, lat


@contextmanager
def opened(path: Path, coded: Sequence[str] = ()) -> Iterator[Any]:
    pa, pq = arrow()
    try:
        with pq.ParquetFile(path, read_dictionary=list(coded)) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: is no Parquet file, or damaged or gone ({error}); run the command that wrote it again") from error


def json_in(path: Path, keys: Mapping[bytes, bytes], key: str) -> dict[str, Any]:
    try:
        return dict(json.loads(keys.get(key.encode(), b"{}")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: its metadata ({key}) is no JSON ({error}); write it again") from error


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, which training and generating don't need."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("PyArrow is not installed; run `pip install 'copgen[data]'`") from error
    return pyarrow, pyarrow.parquet
