"""Which square of ground? Its CRS and corner, chosen from the first raster, and whether other rasters cover it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as warp_points
from rasterio.windows import Window

from copgen.reading.rasters import Grid, Raster
from copgen.scene import Footprint

FloatArray = NDArray[np.float64]

INSIDE = 1e-3                                    # pixels that a square may reach beyond the data: rounding in the file's numbers
TRUE_SCALE = 0.05                                # a CRS whose metre differs more than this from the ground's is not used
EARTH_RADIUS = 6_371_008.8                       # metres, the mean
WGS84 = CRS.from_epsg(4326)


class NotCovered(ValueError):
    """A raster does not show the whole square."""


def warp(source: CRS, target: CRS, xs: FloatArray, ys: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates in another CRS, same shape; what cannot be transformed becomes infinite."""
    if same_crs(source, target):
        return xs, ys
    try:
        x, y = warp_points(source, target, xs.ravel().tolist(), ys.ravel().tolist())
    except Exception:                            # GDAL's own errors, whose class rasterio keeps private: outside the projection, mostly
        return np.full(xs.shape, np.inf), np.full(ys.shape, np.inf)
    return np.reshape(x, xs.shape), np.reshape(y, ys.shape)


def same_crs(one: CRS, other: CRS) -> bool:
    return bool(one == other) or (one.to_epsg() is not None and one.to_epsg() == other.to_epsg())


def label(crs: CRS) -> str:
    """`EPSG:32630` where there is such a code, else the whole WKT."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


# --- choosing -----------------------------------------------------------------------------------------------------------------------

def scene_crs(raster: Raster) -> CRS:
    """The raster's CRS; the UTM zone of its centre if that one is geographic, or its unit is not a metre on the ground.

    The second covers feet, and projections that stretch, such as Web Mercator's: 1920 of its metres at 60 degrees north are 960.
    """
    middle = affine(raster.grid.transform, np.array([raster.width / 2]), np.array([raster.height / 2]))
    x, y = (float(v[0]) for v in middle)
    lons, lats = warp(raster.grid.crs, WGS84, *middle)
    lon, lat = float(lons[0]), float(lats[0])
    if not (math.isfinite(lon) and -90 <= lat <= 90 and -360 <= lon <= 360):
        raise ValueError(f"{raster.path}: its centre ({x:g}, {y:g} in {label(raster.grid.crs)}) is no place on Earth, "
                         f"latitude must be in -90..90 degrees; correct its CRS or geotransform")
    if not raster.grid.crs.is_geographic and abs(ground_metres(raster.grid.crs, x, y) - 1) <= TRUE_SCALE:
        return raster.grid.crs
    return utm(lat, lon)


def utm(lat: float, lon: float) -> CRS:
    """The UTM zone of a place."""
    zone = int(((lon + 180) % 360) // 6) + 1
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def ground_metres(crs: CRS, x: float, y: float) -> float:
    """Metres on the ground of one unit of a projected CRS near a point, the mean of both directions."""
    reach = 500.0
    xs, ys = np.array([x - reach, x + reach, x, x]), np.array([y, y, y - reach, y + reach])
    lon, lat = (np.radians(v) for v in warp(crs, WGS84, xs, ys))
    half = [np.sin((lat[i + 1] - lat[i]) / 2) ** 2 + np.cos(lat[i]) * np.cos(lat[i + 1]) * np.sin((lon[i + 1] - lon[i]) / 2) ** 2
            for i in (0, 2)]                     # haversine
    return float(np.mean(2 * EARTH_RADIUS * np.arcsin(np.sqrt(half))) / (2 * reach))


def choose(raster: Raster, crs: CRS, side: float, step: float, window: tuple[float, float] | None = None) -> Footprint:
    """The square that the model sees: at `window` (left, top), or in the middle of the raster.

    In the middle means: the corner lies a whole number of `step` metres from the raster's own top left corner, as near to the centred
    one as can be. Raises ValueError if the raster is too small for it, or the window lies outside.
    """
    if window is not None:
        if not all(math.isfinite(x) for x in window):
            raise ValueError(f"window {window[0]},{window[1]}: EASTING,NORTHING must be finite numbers of metres")
        square = Footprint(crs, float(window[0]), float(window[1]), float(side))
        require_inside(raster, square)
        return square
    left, bottom, right, top = bounds_in(raster, crs)
    for x, y in lattice((right - left - side) / 2, (top - bottom - side) / 2, step):
        square = Footprint(crs, left + x, top - y, float(side))
        if covers(raster, square):
            return square
    slanted = min(right - left, top - bottom) >= side
    raise ValueError(f"{raster.path}: shows {right - left:g} x {top - bottom:g} m{' overall, slanted' if slanted else ''} in {label(crs)}, "
                     f"and a square of {side:g} x {side:g} m is needed; give a larger cut-out")


def tiles(raster: Raster, crs: CRS, side: float, step: float) -> dict[tuple[int, int], Footprint]:
    """The squares that divide the middle of the raster, by row from the north and column from the west, as many as it covers."""
    left, bottom, right, top = bounds_in(raster, crs)
    down, across = (math.floor(length / side + 1e-6) for length in (top - bottom, right - left))
    y, x = (round((length - count * side) / 2 / step) * step for length, count in ((top - bottom, down), (right - left, across)))
    found = {(i, j): Footprint(crs, left + x + j * side, top - y - i * side, float(side)) for i in range(down) for j in range(across)}
    return {place: square for place, square in found.items() if covers(raster, square)}


def lattice(x: float, y: float, step: float) -> Iterator[tuple[float, float]]:
    """The nearest multiples of `step` to a point, nearest first."""
    if min(x, y) < -step:                        # smaller than the square: none can fit
        return
    i, j = math.floor(x / step + 0.5), math.floor(y / step + 0.5)
    near = [((i + di) * step, (j + dj) * step) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    yield from sorted(near, key=lambda point: math.hypot(point[0] - x, point[1] - y))


def bounds_in(raster: Raster, crs: CRS) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the raster in a CRS."""
    xs, ys = warp(raster.grid.crs, crs, *affine(raster.grid.transform, *outline(raster.width, raster.height)))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise ValueError(f"{raster.path}: reaches beyond where {label(crs)} is defined; cut it to the neighbourhood of the square first")
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def outline(width: float, height: float, points: int = 33) -> tuple[FloatArray, FloatArray]:
    """Points along the edges of a rectangle from (0, 0)."""
    u, zero, one = np.linspace(0, 1, points), np.zeros(points), np.ones(points)
    return np.concatenate([u, u, zero, one]) * width, np.concatenate([zero, one, u, u]) * height


def affine(t: Affine, cols: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f


def square_in_pixels(raster: Raster, square: Footprint) -> tuple[float, float, float, float]:
    """First column, first row, last column, last row that the square touches in the raster's pixels; not clipped."""
    t = raster.grid.transform
    if raster.grid.is_axis_aligned and same_crs(raster.grid.crs, square.crs):
        left, bottom, right, top = square.bounds
        across, down = sorted(((left - t.c) / t.a, (right - t.c) / t.a)), sorted(((top - t.f) / t.e, (bottom - t.f) / t.e))
        return across[0], down[0], across[1], down[1]
    cols, rows = to_pixels(raster.grid, square.crs, *affine(square.transform(square.side), *outline(1, 1)), raster.width)
    return float(cols.min()), float(rows.min()), float(cols.max()), float(rows.max())


def to_pixels(grid: Grid, crs: CRS, xs: FloatArray, ys: FloatArray, width: int | None = None) -> tuple[FloatArray, FloatArray]:
    """Coordinates in a CRS -> columns and rows (fractions) of a grid; one of `width` columns may also end before them."""
    x, y = warp(crs, grid.crs, xs, ys)
    cols, rows = affine(~grid.transform, x, y)
    if grid.crs.is_geographic and grid.is_axis_aligned:          # longitudes may count on beyond 180 degrees, or from 0 to 360
        turn = 360 / abs(grid.transform.a)
        turned = np.where(cols < -2, cols + turn, np.where(cols > turn, cols - turn, cols))
        beyond = None if width is None else [np.maximum(np.maximum(-some, some - width), 0) for some in (turned, cols)]
        cols = turned if beyond is None else np.where(beyond[0] < beyond[1], turned, cols)
    return cols, rows


def covers(raster: Raster, square: Footprint) -> bool:
    first_col, first_row, last_col, last_row = square_in_pixels(raster, square)
    return (first_col >= -INSIDE and first_row >= -INSIDE
            and last_col <= raster.width + INSIDE and last_row <= raster.height + INSIDE)


def require_inside(raster: Raster, square: Footprint) -> None:
    """NotCovered if part of the square, or all of it, lies outside the raster."""
    if covers(raster, square):
        return
    apart = not overlaps(raster, square)
    raise NotCovered(
        f"{raster.path}: {'does not overlap with' if apart else 'covers only a part of'} the square {in_words(square.bounds)} "
        f"({label(square.crs)}); it shows {in_words(native_bounds(raster))} ({label(raster.grid.crs)}): give a file of the same place, or "
        f"another square with --window EASTING,NORTHING"
    )


def overlaps(raster: Raster, square: Footprint) -> bool:
    first_col, first_row, last_col, last_row = square_in_pixels(raster, square)
    return last_col > 0 and last_row > 0 and first_col < raster.width and first_row < raster.height


def native_bounds(raster: Raster) -> tuple[float, float, float, float]:
    return bounds_in(raster, raster.grid.crs)


def in_words(bounds: tuple[float, float, float, float]) -> str:
    digits = 7 if max(map(abs, bounds)) <= 360 else 3              # degrees, or metres as --window would have to be typed
    left, bottom, right, top = (f"{value:.7g}" if digits == 7 else str(round(value, digits)) for value in bounds)
    return f"left {left}, bottom {bottom}, right {right}, top {top}"


def window_over(raster: Raster, square: Footprint, margin: int = 2) -> Window:
    """The raster's pixels under the square, and `margin` more on each side where there are any."""
    first_col, first_row, last_col, last_row = square_in_pixels(raster, square)
    left, right = max(math.floor(first_col) - margin, 0), min(math.ceil(last_col) + margin, raster.width)
    up, down = max(math.floor(first_row) - margin, 0), min(math.ceil(last_row) + margin, raster.height)
    return Window(left, up, right - left, down - up)


def bounds_of(chosen: NDArray[np.bool_], grid: Grid, crs: CRS) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in a CRS of the chosen pixels of a grid."""
    rows, cols = np.nonzero(chosen)
    corners = np.meshgrid(np.array([cols.min(), cols.max() + 1.0]), np.array([rows.min(), rows.max() + 1.0]))
    xs, ys = warp(grid.crs, crs, *affine(grid.transform, *corners))
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
