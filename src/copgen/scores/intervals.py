"""How sure is a figure? The range in which it lies when other places are drawn, and whether two figures differ.

Places that lie close together are alike, so whole blocks of them are drawn (`blocks`), and figures are functions of sums over places
(`blocked`): a draw says how often each block is taken, and one matrix product gives the sums of all draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.scores.distances import EARTH_RADIUS

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

FEW = 5                                                              # blocks: of fewer, percentiles are no range
SAME = 1e-9                                                          # of a difference: draws that vary by no more than rounding


@dataclass(frozen=True)
class Interval:
    """A figure with the central range in which it lies when places are drawn anew."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} .. {self.high:{spec}})"


@dataclass(frozen=True)
class Difference(Interval):
    """One figure less another, its range, and the probability of one so far from 0 or farther where there is none."""

    p: float


# --- single places ------------------------------------------------------------------------------------------------------------------

def over_places(
    statistic: Callable[..., ArrayLike], *by_place: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0,
) -> Interval:
    """A statistic of places with its percentile bootstrap (Efron 1979, doi 10.1214/aos/1176344552): whole places are drawn anew.

    Each array has places on its last axis; `statistic` takes the arrays and reduces that axis: `lambda x, y: x.mean(-1) / y.mean(-1)`.
    With few places the range is too narrow: a handful cannot show what they lack.
    """
    arrays = [np.asarray(one, np.float64) for one in by_place]
    places = arrays[0].shape[-1]
    if not places or any(one.shape[-1] != places for one in arrays):
        raise ValueError(f"places {[one.shape[-1] for one in arrays]}: every array needs as many, and at least one")
    drawn = np.random.default_rng(seed).integers(0, places, (draws, places))
    values = np.asarray(statistic(*(one[..., drawn] for one in arrays)))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.asarray(statistic(*arrays))), float(low), float(high))


def mean(values: Array) -> Array:
    """The mean over places, for `over_places`."""
    return values.mean(-1)


# --- groups of places ---------------------------------------------------------------------------------------------------------------

def jackknife(value: float, without: ArrayLike, level: float = 0.95) -> tuple[Interval, float]:
    """The range of a figure that is known without each of g groups of places in turn, and the figure less its bias.

    For what drawing places anew would spoil: a vector that is drawn twice is its own nearest neighbour, and fewer different ones have a
    covariance of less rank. The grouped jackknife (Shao and Tu 1995, sections 1.2 and 2.3): Student's t of g - 1 times the standard error
    sqrt((g - 1) / g sum (f_j - mean f)^2), and g f - (g - 1) mean f_j, which a bias in proportion to 1 / n leaves. NaN of fewer than two.
    """
    from scipy.special import stdtrit

    left = np.asarray(without, np.float64)
    g = len(left)
    if g < 2 or not np.isfinite(left).all() or not np.isfinite(value):
        return Interval(float(value), np.nan, np.nan), float("nan")
    error = np.sqrt((g - 1) / g * ((left - left.mean()) ** 2).sum())
    reach = float(stdtrit(g - 1, (1 + level) / 2) * error)
    return Interval(float(value), float(value) - reach, float(value) + reach), float(g * value - (g - 1) * left.mean())


# --- blocks of places ---------------------------------------------------------------------------------------------------------------

def blocks(latitude: ArrayLike, longitude: ArrayLike, kilometres: float = 100.0) -> Counts:
    """The block of each place, numbered from 0: squares of about so many kilometres, in belts of latitude and columns of longitude.

    A place without a position (NaN) is a block of its own.
    """
    lat, lon = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    belts = max(round(np.pi * EARTH_RADIUS / kilometres), 1)
    belt = np.clip(np.floor((lat + 90) / 180 * belts), 0, belts - 1)
    middle = np.radians((belt + 0.5) * 180 / belts - 90)
    columns = np.maximum(np.round(2 * np.pi * EARTH_RADIUS * np.cos(middle) / kilometres), 1)
    square = np.stack([belt, np.floor(lon % 360 / 360 * columns)], -1)
    alone = np.isnan(square).any(-1)
    square[alone] = np.stack([np.full(alone.sum(), -1.0), np.arange(alone.sum())], -1)
    return np.unique(square, axis=0, return_inverse=True)[1].ravel()


def blocked(
    statistic: Callable[..., ArrayLike], *by_cell: ArrayLike, blocks: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0,
) -> Interval:
    """A function of sums over cells with its range: whole blocks of cells are drawn anew, as many as there are.

    Each array [..., cells] holds one sum a cell (NaN where a cell has none: it adds nothing); `statistic` takes their totals [..., draws]
    and returns [draws]: `lambda error, weight: np.sqrt(error / weight)`. Draws in which it is not finite are left out.
    The cluster bootstrap (Davison and Hinkley 1997, section 3.8) with the range of `interval_of`.
    """
    labels, number = check_blocks(blocks, by_cell)
    drawn = by_draw(statistic, by_cell, labels, draws, seed)
    return interval_of(drawn[0], drawn[1:], number, level)


def paired(
    statistic: Callable[..., ArrayLike], a: Sequence[ArrayLike], b: Sequence[ArrayLike], *, blocks: ArrayLike,
    level: float = 0.95, draws: int = 2000, seed: int = 0,
) -> Difference:
    """A function of sums over cells for a, less that for b, over the same cells, with its range and the p-value of no difference.

    Both are computed from the same draws of blocks, so what makes a block hard for both cancels. The range is Student's t times the
    bootstrap's standard error (Efron and Tibshirani 1993, chapter 12; enlarged as in `interval_of`), and p is that t's: it has no floor at
    1 / draws, as many comparisons need (`holm`). Where all draws agree there is no t: p is the sign test's, 2^(1 - n) for n blocks.
    """
    from scipy.special import stdtr

    labels, number = check_blocks(blocks, [*a, *b])
    drawn = by_draw(statistic, a, labels, draws, seed) - by_draw(statistic, b, labels, draws, seed)
    value, kept = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    if number < 2 or len(kept) < 2 or not np.isfinite(value):
        return Difference(value, np.nan, np.nan, np.nan)
    error, reach = spread_of(kept, number, level)
    signs = 2.0 ** (1 - number) if value else 1.0                    # right in three of three cells, say: that is one in four by chance
    p = 2 * stdtr(number - 1, -abs(value) / error) if error > SAME * abs(value) else signs
    return Difference(value, value - reach, value + reach, float(p))


def holm(p: ArrayLike) -> Array:
    """P-values of several tests, enlarged so that with any below a level the chance of a single false one is below it, too.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70: the i-th smallest of n times n - i + 1, none smaller than the one before.
    A NaN is no test.
    """
    found = np.asarray(p, np.float64)
    tests = np.flatnonzero(~np.isnan(found))
    order = tests[np.argsort(found[tests], kind="stable")]
    adjusted = np.full(found.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(found[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


# --- draws --------------------------------------------------------------------------------------------------------------------------

def interval_of(value: float, drawn: ArrayLike, number: int, level: float = 0.95) -> Interval:
    """The central range of a figure drawn anew from `number` blocks: the expanded percentile bootstrap, NaN of a single block.

    Hesterberg (2015), doi 10.1080/00031305.2015.1089789: percentiles farther out by sqrt(n / (n - 1)) and Student's t, so that few
    blocks do not make a range too narrow. Percentiles end at the extreme blocks, which of 2, 3 and 4 is right 50, 75 and 87 % of the time:
    below 5 blocks the range is Student's t times the bootstrap's standard error, to either side. What is not finite is left out.
    """
    found = np.asarray(drawn, np.float64)
    found = found[np.isfinite(found)]
    if number < 2 or not len(found) or not np.isfinite(value):
        return Interval(float(value), np.nan, np.nan)
    from scipy.special import ndtr, stdtrit

    if number < FEW:
        _, reach = spread_of(found, number, level)
        return Interval(float(value), float(value - reach), float(value + reach))
    tail = ndtr(np.sqrt(number / (number - 1)) * stdtrit(number - 1, (1 - level) / 2))
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def spread_of(drawn: Array, number: int, level: float) -> tuple[float, float]:
    """The standard error of a figure drawn anew from `number` blocks, and how far its range reaches by Student's t."""
    from scipy.special import stdtrit

    error = drawn.std() * np.sqrt(number / (number - 1))             # a draw of n blocks spreads by n - 1 where the truth does by n
    return float(error), float(stdtrit(number - 1, (1 + level) / 2) * error)


def cell_weights(blocks: ArrayLike, draws: int = 2000, seed: int = 0) -> Array:
    """How often each cell is taken in each draw of blocks, [draws, cells]: the draws of `blocked`, for what is no function of sums."""
    labels = np.asarray(blocks)
    return draws_of(int(labels.max()) + 1, draws, seed)[1:, labels]


def weighted_quantile(values: ArrayLike, weights: ArrayLike, q: float) -> Array:
    """The quantile of values [n], each there so many times, for every row of weights [..., n]; NaN where all are 0.

    The inverse of the distribution function, the mean of both neighbours where it is level: the median is the usual one.
    """
    x = np.asarray(values, np.float64)
    order = np.argsort(x)
    rising = np.cumsum(np.asarray(weights, np.float64)[..., order], -1)
    goal = q * rising[..., -1:]
    below, above = ((x[order][np.minimum((one).sum(-1), len(x) - 1)]) for one in (rising < goal, rising <= goal))
    return np.where(rising[..., -1] > 0, (below + above) / 2, np.nan)


def check_blocks(blocks: ArrayLike, by_cell: Sequence[ArrayLike]) -> tuple[Counts, int]:
    """The labels and how many blocks there are; ValueError where an array has not one number a cell."""
    labels = np.asarray(blocks)
    cells = [np.shape(one)[-1] for one in by_cell]
    if labels.ndim != 1 or not labels.size or any(number != len(labels) for number in cells):
        raise ValueError(f"cells {cells}, blocks {list(labels.shape)}: every array needs one number a cell, and every cell a block")
    found = np.unique(labels)
    return np.searchsorted(found, labels), len(found)


def by_draw(statistic: Callable[..., ArrayLike], by_cell: Sequence[ArrayLike], labels: Counts, draws: int, seed: int) -> Array:
    """The statistic of the cells as they are, and of every draw: [1 + draws]."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], np.arange(labels.max() + 1))                      # of each block's cells
    taken = draws_of(len(first), draws, seed).T
    totals = [np.add.reduceat(np.nan_to_num(np.asarray(one, np.float64))[..., order], first, axis=-1) @ taken for one in by_cell]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.broadcast_to(np.asarray(statistic(*totals), np.float64), (draws + 1,))


@lru_cache(maxsize=4)                                                # one run draws the same blocks for hundreds of figures
def draws_of(number: int, draws: int, seed: int) -> Array:
    """How often each of so many blocks is taken, [1 + draws, number], not to be written to: once, then as often as it is drawn."""
    drawn = np.random.default_rng(seed).integers(0, number, (draws, number)) + number * np.arange(draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=draws * number).reshape(draws, number)
    taken = np.concatenate([np.ones((1, number)), counts])
    taken.setflags(write=False)
    return taken
