"""What does a raster show on another grid? Averages where pixels get larger, bilinear where they don't, majorities of classes.

Between grids of one CRS the weights are exact: on the same grid the values come back bit for bit, and where whole pixels make up a
larger one, it is their mean. Between two CRSs the positions are exact to about a millimetre, and averages are taken over subpixels.
No value is missing here: `fill_nearest` first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from copgen.reading.rasters import Grid
from copgen.reading.squares import INSIDE, affine, same_crs, to_pixels, warp
from copgen.scene import Footprint

FloatArray = NDArray[np.float64]
Nodes = tuple[FloatArray, FloatArray]            # two coordinates at NODES x NODES points

SNAP = 1e-4                                      # pixels: grids nearer than this are the same grid, written with rounding
COARSER = 1.01                                   # from this ratio of pixel sizes on, pixels are averaged
NODES = 65                                       # exact positions a side, interpolated between: 30 m apart in a square of 1920 m


def resample(values: FloatArray, source: Grid, target: Grid, side: int, *, classes: bool = False) -> FloatArray:
    """Values [n, h, w] on `source` -> [n, side, side] on `target`."""
    values, source = upright(values, source)
    if same_crs(source.crs, target.crs) and source.is_axis_aligned and target.is_axis_aligned:
        if (pixels := shared(values, source, target, side)) is not None:
            return pixels
        return majority(lambda v: separable(v, source, target, side, area=True), values) if classes else (
            separable(values, source, target, side))
    return warped(values, source, target, side, classes)


def upright(values: FloatArray, grid: Grid) -> tuple[FloatArray, Grid]:
    """The same pixels with columns eastwards and rows southwards, for grids that are mirrored or south-up."""
    t = grid.transform
    if not grid.is_axis_aligned:
        return values, grid
    _, height, width = values.shape
    if t.a < 0:
        values, t = values[:, :, ::-1], Affine(-t.a, 0, t.c + width * t.a, 0, t.e, t.f)
    if t.e > 0:
        values, t = values[:, ::-1, :], Affine(t.a, 0, t.c, 0, -t.e, t.f + height * t.e)
    return values, Grid(grid.crs, t)


def majority(smooth: Callable[[FloatArray], FloatArray], values: FloatArray) -> FloatArray:
    """The class with the largest share of each pixel; of equals, the lowest code. `smooth` makes shares of indicator planes."""
    codes = np.unique(values)
    shares = [smooth((band == codes[:, None, None]).astype(np.float64)) for band in values]             # [K, side, side] each
    return codes[np.argmax(np.round(np.stack(shares), 9), axis=1)]       # rounded: equal shares must not differ by the order of sums


# --- within one CRS -----------------------------------------------------------------------------------------------------------------

def shared(values: FloatArray, source: Grid, target: Grid, side: int) -> FloatArray | None:
    """The target's pixels themselves where they are the source's; what `separable` gives, sooner."""
    s, t = source.transform, target.transform
    col, row = snapped((t.c - s.c) / s.a, SNAP), snapped((t.f - s.f) / s.e, SNAP)
    ratios = {snapped(t.a / s.a, SNAP / side), snapped(t.e / s.e, SNAP / side)}
    if ratios != {1.0} or col % 1 or row % 1 or min(col, row) < 0 or col + side > values.shape[2] or row + side > values.shape[1]:
        return None
    return values[:, int(row) : int(row) + side, int(col) : int(col) + side]


def separable(values: FloatArray, source: Grid, target: Grid, side: int, *, area: bool = False) -> FloatArray:
    s, t = source.transform, target.transform
    across = axis_weights(values.shape[2], (t.c - s.c) / s.a, t.a / s.a, side, area)
    down = axis_weights(values.shape[1], (t.f - s.f) / s.e, t.e / s.e, side, area)
    return (down @ values @ across.T) / np.outer(down.sum(1), across.sum(1))


def axis_weights(pixels: int, start: float, ratio: float, side: int, area: bool = False) -> FloatArray:
    """[side, pixels]: what each source pixel contributes along one axis; target pixel i covers start + ratio [i, i + 1]."""
    start, ratio = snapped(start, SNAP), snapped(ratio, SNAP / side)
    steps = np.arange(side)
    if area or ratio > COARSER:                  # the length of each overlap: not divided by the sum, so that whole pixels weigh 1
        first = np.clip(start + steps * ratio, 0, pixels)[:, None]
        last = np.clip(start + (steps + 1) * ratio, 0, pixels)[:, None]
        cells = np.arange(pixels)
        return np.clip(np.minimum(last, cells + 1) - np.maximum(first, cells), 0, None)
    centre = np.clip(start + (steps + 0.5) * ratio - 0.5, 0, pixels - 1)     # beyond the outermost centres: the outermost value
    low = np.minimum(np.floor(centre).astype(int), max(pixels - 2, 0))
    weights = np.zeros((side, pixels))
    weights[steps, low] = 1 - (centre - low)
    if pixels > 1:
        weights[steps, low + 1] = centre - low
    return weights


def snapped(x: float, near: float) -> float:
    return float(round(x)) if abs(x - round(x)) < near else x


# --- between CRSs -------------------------------------------------------------------------------------------------------------------

def warped(values: FloatArray, source: Grid, target: Grid, side: int, classes: bool) -> FloatArray:
    """Means and majorities over subpixels an eighth of a source pixel wide; along an axis that gets no coarser, bilinear."""
    nodes = node_positions(source, values.shape[2], target, side)
    down, right = (max(parts_for(ratio), 4 if classes else 1) for ratio in ratios(nodes, side))
    if classes:
        return majority(lambda v: subpixel_mean(v, nodes, side, down, right, nearest), values)
    return subpixel_mean(values, nodes, side, down, right, nearest if min(down, right) > 1 else bilinear)


def ratios(nodes: Nodes, side: int) -> tuple[float, float]:
    """Source pixels a target pixel, downwards and to the right, in the middle."""
    half = NODES // 2
    down = math.hypot(*(float(part[-1, half] - part[0, half]) for part in nodes))
    right = math.hypot(*(float(part[half, -1] - part[half, 0]) for part in nodes))
    return down / side, right / side


def parts_for(ratio: float) -> int:
    return 1 if ratio <= COARSER else max(math.ceil(ratio), min(math.ceil(8 * ratio), 48))


def node_positions(source: Grid, width: int, target: Grid, side: int) -> Nodes:
    """Columns and rows of `source`, which has `width` columns, [NODES, NODES] at a lattice over the target."""
    at = np.linspace(0, side, NODES)
    cols, rows = np.meshgrid(at, at)
    return to_pixels(source, target.crs, *affine(target.transform, cols, rows), width)


def between(nodes: Nodes, height: int, width: int, rows: NDArray, cols: NDArray) -> Nodes:
    """What the nodes over height x width pixels say at rows x cols (fractions), linearly between them."""
    down, across = at_nodes(rows / height), at_nodes(cols / width)
    return down @ nodes[0] @ across.T, down @ nodes[1] @ across.T


def at_nodes(part: NDArray) -> FloatArray:
    return np.clip(1 - np.abs(part[:, None] * (NODES - 1) - np.arange(NODES)), 0, None)


def subpixel_mean(
    values: FloatArray, nodes: Nodes, side: int, down: int, right: int, sample: Callable[[FloatArray, FloatArray, FloatArray], FloatArray],
) -> FloatArray:
    """The mean of down x right samples in each target pixel; a target row at a time."""
    cols = (np.arange(side * right) + 0.5) / right
    out = []
    for row in range(side):
        x, y = between(nodes, side, side, row + (np.arange(down) + 0.5) / down, cols)
        out.append(sample(values, x, y).reshape(len(values), down, side, right).mean(axis=(1, 3)))
    return np.stack(out, axis=1)


def touched(source: Grid, height: int, width: int, square: Footprint) -> NDArray[np.bool_]:
    """Which of height x width pixels the square touches: exact in the square's CRS, to half a pixel's slant between CRSs."""
    left, bottom, right, top = square.bounds
    if source.is_axis_aligned and same_crs(source.crs, square.crs):
        t = source.transform
        xs, ys = t.c + t.a * (np.arange(width) + 0.5), t.f + t.e * (np.arange(height) + 0.5)
        half_x, half_y = abs(t.a) * (0.5 - INSIDE), abs(t.e) * (0.5 - INSIDE)
        return np.logical_and.outer((ys > bottom - half_y) & (ys < top + half_y), (xs > left - half_x) & (xs < right + half_x))
    lines = np.linspace(0, height, NODES), np.linspace(0, width, NODES)
    corners = np.meshgrid(lines[1], lines[0])
    nodes = warp(source.crs, square.crs, *affine(source.transform, *corners))
    xs, ys = between(nodes, height, width, np.arange(height) + 0.5, np.arange(width) + 0.5)
    half_x, half_y = ((np.ptp(part[NODES // 2, :]) / width + np.ptp(part[:, NODES // 2]) / height) / 2 * (1 - 2 * INSIDE) for part in nodes)
    return (xs > left - half_x) & (xs < right + half_x) & (ys > bottom - half_y) & (ys < top + half_y)


def nearest(values: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Values of the pixels that hold columns x and rows y [h, w]."""
    _, height, width = values.shape
    return values[:, np.clip(np.floor(y), 0, height - 1).astype(int), np.clip(np.floor(x), 0, width - 1).astype(int)]


def bilinear(values: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Values at columns x and rows y [h, w]; beyond the outermost centres, the outermost value."""
    _, height, width = values.shape
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    i, j = np.minimum(np.floor(x).astype(int), max(width - 2, 0)), np.minimum(np.floor(y).astype(int), max(height - 2, 0))
    u, v = x - i, y - j
    right, below = np.minimum(i + 1, width - 1), np.minimum(j + 1, height - 1)
    return ((1 - v) * ((1 - u) * values[:, j, i] + u * values[:, j, right])
            + v * ((1 - u) * values[:, below, i] + u * values[:, below, right]))


# --- what is missing ----------------------------------------------------------------------------------------------------------------

def fill_nearest(values: FloatArray, valid: NDArray[np.bool_]) -> FloatArray:
    """Values [n, h, w] with each pixel that isn't valid [h, w] taken from the nearest that is."""
    if valid.all() or not valid.any():
        return values
    height, width = valid.shape
    rows, far = np.arange(height)[:, None], 1 << 30
    above = np.maximum.accumulate(np.where(valid, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(valid, rows, far)[::-1], axis=0)[::-1]
    closest = np.where(rows - above <= below - rows, above, below)           # the nearest valid row of each column
    gap = np.abs(closest - rows)
    filled = values.copy()
    for row in np.flatnonzero(~valid.all(axis=1)):                           # then the best column: exact, one row at a time
        bad = np.flatnonzero(~valid[row])
        distance = gap[row].astype(float) ** 2 + (np.arange(width) - bad[:, None]) ** 2
        column = np.argmin(distance, axis=1)
        filled[:, row, bad] = values[:, closest[row, column], column]
    return filled
