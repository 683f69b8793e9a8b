"""What shape has the land? Heights, shores and rivers at 10 m from a drained surface of 30 m cells, and where water gathers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.drainage import CELL, Drainage, drained
from copgen.synthetic.fields import PIXEL, Array, drawn, fields, logistic, ramp, smooth, stream
from copgen.synthetic.setting import Setting

MARGIN = 6                                                       # cells around the square that drain into it
FINER = int(CELL / PIXEL)
WIDEST = 12.0                                                     # metres: the least width of a river that the land cover shows


@dataclass(frozen=True)
class Relief:
    """The terrain of a world at 10 m: [side, side] each."""

    height: Array                      # metres above the sea, water level on water
    wet: Array                         # about 0 +- 1: where water gathers
    shore: Array                       # metres above the nearest water level, below 0 on water (large where there is none)


def relief(where: Setting, seed: int) -> Relief:
    """Draw the terrain of a setting."""
    rng = stream(seed, "terrain")
    side = where.side
    cells = side // FINER + 2 * MARGIN
    rugged = float(np.clip(where.ruggedness + rng.normal(0, 0.12), 0, 1))
    rise = float(np.clip(rng.lognormal(np.log(9 + 330 * rugged**2), 0.75), 3, 1300)) * (side / 192) ** 0.4
    plain, surface, hardness = rough_surface(rng, cells)
    share = standing_water(rng, where)
    sea = plain < np.quantile(plain, share) if share else np.zeros_like(plain, bool)
    tree = drained(surface, sea, int(rng.integers(1, 4)), rng, inflow=river_above(rng, where))
    coarse, hand = balanced(tree, plain, hardness, sea, rng)
    up = spline(side, cells)
    shape, above, hard = (up @ part.astype(np.float32) @ up.T for part in (coarse, hand, hardness))
    bumps, gullies = fields(rng, side, 2, slope=rng.uniform(3.2, 4.0), longest=450.0, shortest=20.0)
    steep = np.clip(np.hypot(*np.gradient(shape)) * side / 4, 0.05, 1.5)
    shape += steep * (0.012 * bumps * np.exp(0.3 * hard) + 0.03 * (np.abs(gullies) - 0.8) * logistic(6 * (rugged - 0.35)))
    height = where.base + rise * shape
    level = np.full_like(height, where.base if share else -1e6)
    wet = 1.2 - 2.2 * np.sqrt(np.clip(above, 0, 1.2)) + 0.25 * gullies
    for path, width in rivers(tree, coarse, where, rng):
        height, level, wet = with_river(height, level, wet, path, width, where.base, rise)
    return Relief(np.maximum(height, level), wet, height - level)


def rough_surface(rng: Generator, cells: int) -> tuple[Array, Array, Array]:
    """A smooth fractal surface that tilts, the same roughened (so that water finds winding ways), and how hard its rock is."""
    size = 3 * cells // 2 // 2 * 2
    smooth_slope = round(5 * float(rng.uniform(3.4, 4.4))) / 5
    plain, hardness = drawn(rng, size, CELL, 1, smooth_slope, 6e3, 180.0)[:, :cells, :cells]
    rough, _ = drawn(rng, size, CELL, 1, 2.4, 2e3, 0.0)[:, :cells, :cells]
    angle, tilt = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 1.2)) * cells / 84
    axis = np.linspace(-1.7, 1.7, cells)
    plain = plain + tilt * (np.cos(angle) * axis + np.sin(angle) * axis[:, None])
    return plain, plain + float(rng.uniform(0.25, 0.6)) * rough, hardness


def standing_water(rng: Generator, where: Setting) -> float:
    """The share of the square that sea or a lake covers."""
    if where.coastal:
        return float(np.clip(rng.beta(1.1, 1.6), 0.02, 0.95))
    return float(rng.beta(0.8, 4.0) * (0.2 + 0.7 * where.wetness)) if rng.random() < 0.02 + 0.26 * where.wetness else 0.0


def river_above(rng: Generator, where: Setting) -> float:
    """Cells that a river drains before it enters; most places have no large river."""
    if rng.random() > 0.10 + 0.42 * where.wetness:
        return 0.0
    return float(np.clip(rng.lognormal(np.log(400), 1.7), 20, 60_000)) * 1e6 / CELL**2


def balanced(tree: Drainage, plain: Array, hardness: Array, sea: NDArray[np.bool_], rng: Generator) -> tuple[Array, Array]:
    """Heights of cells in balance with their rivers, about 0..1 and below 0 in the sea, and heights above the nearest channel."""
    outlet = tree.below == np.arange(tree.side**2)
    cut = np.where(outlet, 0.0, tree.lengths() / CELL * tree.area**-0.45 * np.exp(0.45 * hardness.ravel() - 0.1))
    old = np.maximum(plain.ravel() - plain.ravel()[tree.below], 0) * ~outlet
    first, second = tree.climb(cut), tree.climb(old)
    rise = cut + float(rng.uniform(0.1, 0.7)) * first.std() / max(float(second.std()), 1e-6) * old
    height = tree.climb(rise)
    scale = max(float(np.quantile(height, 0.98)), 1e-6)
    hand = tree.climb_from(rise, tree.area > 60) / scale
    shape: Array = (height / scale).reshape(plain.shape)
    if sea.any():
        shape = np.where(sea, 0.5 * (plain - plain[sea].max()) - 0.01, shape + 0.01)
    for _ in range(2):                                             # soil creeps down the slopes
        shape = smooth(shape, 0.22)
    return shape, hand.reshape(plain.shape)


@lru_cache(maxsize=8)
def spline(side: int, cells: int) -> Array:
    """The matrix [side, cells] of cubic B-splines: a smooth surface at 10 m from cells, MARGIN of which lie before the first pixel."""
    at = (np.arange(side) + 0.5) / FINER + MARGIN - 0.5
    t = np.abs(at[:, None] - np.arange(cells))
    weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0)).astype(np.float32)
    weights.setflags(write=False)
    return weights


def rivers(tree: Drainage, height: Array, where: Setting, rng: Generator) -> list[tuple[Array, float]]:
    """Rivers wide enough to be seen: their points [n, 3] (row and column at 10 m, height as in `height`) and width in metres."""
    wide = 5.0 * (tree.area * CELL**2 / 1e6) ** 0.4 * (0.25 + where.wetness) * float(rng.lognormal(0, 0.35))
    channel = wide > WIDEST
    fed = np.zeros(len(wide), bool)
    fed[tree.below[channel & (tree.below != np.arange(len(wide)))]] = True
    found, seen = [], np.zeros(len(wide), bool)
    bends = rng.normal(0, 0.35, (len(wide), 2))
    for head in np.flatnonzero(channel & ~fed)[np.argsort(-wide[channel & ~fed])]:
        path, cell = [int(head)], int(head)
        while tree.below[cell] != cell and not seen[cell]:
            seen[cell] = True
            cell = int(tree.below[cell])
            path.append(cell)
        if len(path) > 2:
            i, j = np.divmod(np.array(path), tree.side)
            line = np.stack([i + bends[path, 0], j + bends[path, 1], height.ravel()[path]], 1)
            line[:, :2] = (line[:, :2] - MARGIN + 0.5) * FINER - 0.5
            found.append((rounded(line), float(np.median(wide[path]))))
    return found


def rounded(line: Array) -> Array:
    """A polyline with its corners cut (Chaikin), ten points and more a cell."""
    for _ in range(4):
        quarter, three = 0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]
        line = np.concatenate([line[:1], np.stack([quarter, three], 1).reshape(-1, line.shape[1]), line[-1:]])
    return line


def with_river(
    height: Array, level: Array, wet: Array, path: Array, width: float, base: float, rise: float
) -> tuple[Array, Array, Array]:
    """The terrain with a river: water of its width, banks that lead up to the valley, wet ground beside."""
    side, reach = height.shape[0], width / 2 + 90 + min(rise, 150)
    around = int(reach / PIXEL) + 1
    away, bed = np.full_like(height, reach), np.full_like(height, -1e6)
    near = np.all((path[:, :2] > -around) & (path[:, :2] < side + around), axis=1)
    for i, j, h in path[near][::2]:
        rows, columns = (slice(max(int(at) - around, 0), max(int(at) + around + 1, 0)) for at in (i, j))
        down, right = np.arange(*rows.indices(side)), np.arange(*columns.indices(side))
        distance = np.hypot((down - i)[:, None], right - j) * PIXEL
        closer = distance < away[rows, columns]
        away[rows, columns][closer] = distance[closer]
        bed[rows, columns][closer] = base + rise * h
    dry = height >= level
    touched = (away < reach) & dry
    river = touched & (away < width / 2)
    shaped = np.maximum(bed + 0.6 + (height - bed) * ramp(away, width / 2, reach), bed + 0.2)
    height = np.where(river, bed - 0.5, np.where(touched, shaped, height))
    return height, np.where(touched, bed, level), wet + 1.0 * np.exp(-away / 250) * (away < reach)
