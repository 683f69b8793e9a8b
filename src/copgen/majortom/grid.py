"""Which cell of Major TOM's grid is a place in, and where are a cell and its patches?

The grid parts the Earth into 2004 rows of equal latitude, each into as many columns as make them at most 10 km wide at the row's
southern edge (on a sphere of the equator's radius). Row `0U` begins at the equator and counts north, `1D` ends there and counts south;
column `0R` begins at Greenwich and counts east, `1L` ends there and counts west. A cell's point is its south-west corner. Where a row
has an odd number of columns, its last `R` lies on both sides of the antimeridian.

The images of a cell are a square of 10,680 m in a UTM zone, 340 m further than 10 km on each side from the cell's point, so larger than
the cell and turned against it: their patches are placed by the square's own corner and CRS, never by dividing the cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.modalities import TABLE, TILE, Table

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Names = NDArray[np.str_]

CELL = re.compile(r"(0|[1-9][0-9]{0,3})([UD])_(0|[1-9][0-9]{0,3})([LR])")
SIDE = 10.0                                      # km, at most, of a cell
RADIUS = 6378.137                                # km, of the equator
ROWS = math.ceil(math.pi * RADIUS / SIDE)        # from pole to pole: 2004
HEIGHT = 180 / ROWS                              # degrees of a row
SOUTH, NORTH = -(ROWS // 2), ROWS // 2 - 1       # the first and the last row's number: 1002D, 1001U
PUBLISHED = 85.0                                 # degrees: Major TOM has only cells whose point lies within this latitude


# --- cells --------------------------------------------------------------------------------------------------------------------------

def cell_at(lat: ArrayLike, lon: ArrayLike) -> Names:
    """The names of the cells that places lie in, in the places' shape; any longitude, counted on or wrapped, latitudes in -90..90.

    An edge belongs to the cell north or east of it, the north pole to the last row. Raises ValueError for what is no place.
    """
    lat, lon = np.broadcast_arrays(np.asarray(lat, float), np.asarray(lon, float))
    wrong = ~(np.isfinite(lon) & (np.abs(lat) <= 90))            # a latitude that is not a number compares as False
    if wrong.any():
        raise ValueError(f"place {lat[wrong][0]:g},{lon[wrong][0]:g}: latitude lies in -90..90 degrees and longitude is finite, "
                         f"in this order: LAT,LON")
    rows = np.minimum(steps(lat, np.full(lat.shape, HEIGHT)), NORTH)
    return names_of(rows, steps(wrapped(lon), 360 / columns_of(rows)))


def point_of(cells: ArrayLike) -> tuple[Floats, Floats]:
    """Latitude and longitude of cells' south-west corners; longitudes in -180..180, 180 left out. ValueError as `numbers_of`."""
    rows, columns = numbers_of(cells)
    return np.asarray(rows * HEIGHT), np.asarray(columns * (360 / columns_of(rows)))


def centre_of(cells: ArrayLike) -> tuple[Floats, Floats]:
    """Latitude and longitude halfway between cells' edges, not of their images; ValueError as `numbers_of`."""
    rows, columns = numbers_of(cells)
    return np.asarray((rows + 0.5) * HEIGHT), wrapped((columns + 0.5) * (360 / columns_of(rows)))


def is_published(cells: ArrayLike) -> NDArray[np.bool_]:
    """Whether cells are within the latitudes that Major TOM keeps to; ValueError as `numbers_of`."""
    return np.asarray(np.abs(point_of(cells)[0]) <= PUBLISHED)


def checked_cell(cell: str) -> str:
    """The name itself; ValueError for one that is no cell of the grid."""
    numbers_of(cell)
    return cell


def numbers_of(cells: ArrayLike) -> tuple[Integers, Integers]:
    """Rows counted north from the equator (`1D` is -1) and columns counted east from Greenwich (`1L` is -1), in the names' shape.

    Raises ValueError for a name that is malformed, or names a row or column that there is not.
    """
    names = np.asarray(cells, dtype=np.str_)
    if not names.size:
        return np.zeros(names.shape, np.int64), np.zeros(names.shape, np.int64)
    parsed = np.array([numbers_in(name) for name in names.ravel().tolist()], np.int64).reshape(*names.shape, 2)
    rows, columns = parsed[..., 0], parsed[..., 1]
    count = columns_of(np.clip(rows, SOUTH, NORTH))
    columns = np.where(2 * columns == count, -columns, columns)          # both names of the cell that begins at the antimeridian
    wrong = (rows < SOUTH) | (rows > NORTH) | (columns < -(count // 2)) | (2 * columns >= count)
    if wrong.any():
        name, row, of = (values[wrong][0] for values in (names, rows, count))
        there = f"the rows are {-SOUTH}D to {NORTH}U" if not SOUTH <= row <= NORTH else \
            f"the columns of its row are {of // 2}L to {(of - 1) // 2}R"
        raise ValueError(f"cell {str(name)!r}: Major TOM's grid has none of this name; {there}")
    return rows, columns


def numbers_in(name: str) -> tuple[int, int]:
    found = CELL.fullmatch(name)
    if not found or found[1] + found[2] == "0D" or found[3] + found[4] == "0L":
        raise ValueError(f"cell {name!r}: a Major TOM cell is named by row and column, such as 618U_30L or 38D_378R")
    return int(found[1]) * (1 if found[2] == "U" else -1), int(found[3]) * (1 if found[4] == "R" else -1)


def names_of(rows: Integers, columns: Integers) -> Names:
    """The names of cells by rows and columns as `numbers_of` counts them; columns may count on around the Earth."""
    rows, columns = np.broadcast_arrays(rows, columns)
    count = columns_of(rows)
    columns = (columns + count // 2) % count - count // 2
    # Where 180 degrees comes out a rounding short of the antimeridian, the published grid names the cell that begins there R, not L.
    east = (2 * columns == -count) & ((count // 2) * (360 / count) - 180 < 0)
    columns = np.where(east, -columns, columns)
    pairs = zip(rows.ravel().tolist(), columns.ravel().tolist(), strict=True)
    return np.array([f"{abs(row)}{'D' if row < 0 else 'U'}_{abs(column)}{'L' if column < 0 else 'R'}" for row, column in pairs],
                    dtype=np.str_).reshape(rows.shape)


def columns_of(rows: Integers) -> Integers:
    """How many cells there are in rows; one at the south pole, seven at the north pole."""
    return COLUMNS[np.asarray(rows) - SOUTH]


def around(
    rows: Integers, columns: Integers, reach: int = 1, gap: float = 1e-9,
) -> Iterator[tuple[Integers, Integers, NDArray[np.bool_]]]:
    """Rows and columns [n] of one neighbour after another of each of n cells, and which of the cells have such a one.

    Neighbours are the cells that touch the cell, for a `reach` of 2 those that touch these, and so on; the cell itself is among them.
    So are cells of other rows that lie less than a `gap` beside, in shares of a cell; by default that is only how numbers are rounded.
    """
    edges = np.stack([columns - (reach - 1), columns + reach]) * (360 / columns_of(rows))       # west and east, degrees
    for up in range(-reach, reach + 1):
        there = (rows + up >= SOUTH) & (rows + up <= NORTH)
        beside = np.clip(rows + up, SOUTH, NORTH)
        count = columns_of(beside)
        near = gap * 360 / np.minimum(count, columns_of(rows))               # the same as the neighbour finds
        first, last = np.floor((edges[0] - near) / (360 / count)), np.floor((edges[1] + near) / (360 / count))
        last = np.minimum(last, first + count - 1)
        for k in range(int((last - first).max(initial=-1)) + 1):
            column = first.astype(np.int64) + k
            yield beside, (column + count // 2) % count - count // 2, there & (first + k <= last)


def steps(degrees: Floats, size: Floats) -> Integers:
    """How many whole steps lie below an angle, such that exactly n steps are n, whatever division makes of them."""
    count = np.floor(degrees / size)
    count = np.where(count * size > degrees, count - 1, count)
    return np.where((count + 1) * size <= degrees, count + 1, count).astype(np.int64)


def wrapped(lon: Floats) -> Floats:
    """Longitudes in -180..180, 180 left out; those that are so stay as they are."""
    return np.where((lon >= -180) & (lon < 180), lon, (lon + 180) % 360 % 360 - 180)   # of a tiny negative, the remainder rounds to 360


def counted_columns() -> Integers:
    """The number of columns of every row, from the south."""
    widths = [2 * math.pi * (RADIUS * math.cos(row * HEIGHT * math.pi / 180)) / SIDE for row in range(SOUTH, NORTH + 1)]
    return np.array([math.ceil(width) for width in widths], np.int64)


COLUMNS = counted_columns()


# --- patches ------------------------------------------------------------------------------------------------------------------------

def patch_offsets(footprint: int = TABLE.footprint, tile: float = TILE, step: int = 1, cut: int | None = None) -> Integers:
    """Metres from the north or west edge of a cell's images to the patches along it; the last is flush with the far edge.

    Of a `tile` of another side it is flush to a multiple of `step` metres, and there is none where a patch is larger. With a `cut`, the
    patches part only so many metres in the middle, if the tile has as many.
    """
    if cut is not None and cut < tile:
        return np.asarray(round((tile - cut) / 2 / step) * step + patch_offsets(footprint, cut, step))
    last = math.floor((tile - footprint) / step + 1e-6) * step
    return np.unique(np.minimum(np.arange(math.ceil(tile / footprint - 1e-6)) * footprint, last)) if last >= 0 else np.arange(0)


def patch_starts(row: str, table: Table = TABLE) -> Integers:
    """The same in pixels of one row of the table; ValueError for a row whose pixels the patches would cut."""
    table.side(row)                              # has a grid, whose pixels fill the footprint
    resolution = table[row].resolution
    offsets = patch_offsets(table.footprint, cut=table.cut)
    if resolution is None or (offsets % resolution).any():
        raise ValueError(f"{row}: patches of {table.footprint} m begin {', '.join(map(str, offsets))} m into a cell and would cut its "
                         f"pixels of {resolution} m; choose another footprint")
    return offsets // resolution


def patch_centres(
    lat: ArrayLike, lon: ArrayLike, crs: str | Iterable[str], footprint: int = TABLE.footprint, cut: int | None = None,
) -> tuple[Floats, Floats]:
    """Latitude and longitude [n, 6, 6] of the patches of n cells, by the centres of their images and their CRS, as the metadata has them.

    Rows count from the north of the images, columns from the west. Raises ValueError as `patch_centres_at`.
    """
    lat, lon, codes = aligned(lat, lon, crs)
    x, y = through(codes, lon, lat)
    return patch_centres_at(x - TILE / 2, y + TILE / 2, codes, footprint, cut)


def patch_centres_at(
    left: ArrayLike, top: ArrayLike, crs: str | Iterable[str], footprint: int = TABLE.footprint, cut: int | None = None,
) -> tuple[Floats, Floats]:
    """Latitude and longitude [n, 6, 6] of the patches of n cells, by the north-west corners of their images, as the files have them.

    Raises ValueError for a CRS that is not in metres.
    """
    left, top, codes = aligned(left, top, crs)
    middle = patch_offsets(footprint, cut=cut) + footprint / 2
    x, y = np.broadcast_arrays(left[:, None, None] + middle, top[:, None, None] - middle[:, None])
    lon, lat = through(codes, x, y, back=True)
    return lat, wrapped(lon)


def tile_corners(cells: ArrayLike, crs: str | Iterable[str]) -> tuple[Floats, Floats]:
    """Easting and northing [n] of the north-west corners that cells' images should have; files may begin up to a pixel beside.

    Raises ValueError as `numbers_of` and `patch_centres_at`.
    """
    lat, lon, codes = aligned(*point_of(cells), crs)
    x, y = through(codes, lon, lat)
    beyond = (TILE - 1000 * SIDE) / 2
    return x - beyond, y - beyond + TILE


def tile_rings(left: ArrayLike, top: ArrayLike, crs: str | Iterable[str], size: float = TILE) -> Floats:
    """The outlines of images as closed rings [n, 5, 2] of longitude and latitude, anticlockwise; beyond 180 they count on.

    Raises ValueError for a CRS that is not in metres.
    """
    left, top, codes = aligned(left, top, crs)
    x = left[:, None] + np.array([0, size, size, 0, 0])
    y = top[:, None] - np.array([size, size, 0, 0, size])
    lon, lat = through(codes, x, y, back=True)
    return np.stack([lon[:, :1] + wrapped(lon - lon[:, :1]), lat], axis=-1)


def aligned(one: ArrayLike, other: ArrayLike, crs: str | Iterable[str]) -> tuple[Floats, Floats, Names]:
    codes = np.array([crs] if isinstance(crs, str) else [str(code) for code in crs], dtype=np.str_)
    first, second, names = np.broadcast_arrays(np.atleast_1d(np.asarray(one, float)), np.atleast_1d(np.asarray(other, float)), codes)
    return first, second, names


def through(codes: Names, x: Floats, y: Floats, *, back: bool = False) -> tuple[Floats, Floats]:
    """Longitudes and latitudes [n, ...] in n CRSs, or `back` from these: one call for all places of a CRS."""
    # here, as names of cells need none of it
    from rasterio.crs import CRS
    from rasterio.warp import transform

    geographic, out = CRS.from_epsg(4326), np.empty((2, *x.shape))
    for code in np.unique(codes):
        metric = CRS.from_user_input(str(code))
        if not metric.is_projected or metric.linear_units_factor[1] != 1:
            raise ValueError(f"CRS {code}: a cell's images lie in a CRS in metres, such as EPSG:32630; correct the metadata or the file")
        here = codes == code
        ends = (metric, geographic) if back else (geographic, metric)
        out[:, here] = np.reshape(transform(*ends, x[here].ravel(), y[here].ravel())[:2], (2, *x[here].shape))
    return out[0], out[1]
