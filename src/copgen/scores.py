"""How good is an ensemble? Scores of samples against the truth, element by element, and what places in number say about their mean.

Samples come first: an ensemble of m samples is [m, ...] and its truth [...]. A score keeps the shape [...] of the truth, so that a caller
averages as the question asks: pixels first, then bands, then places. What takes a root or a ratio is taken after that average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


# --- an ensemble against the truth --------------------------------------------------------------------------------------------------

def crps(samples: ArrayLike, truth: ArrayLike) -> Array:
    """The continuous ranked probability score, in the truth's unit; of a single value it is the absolute error.

    The fair estimator of Ferro (2014), doi 10.1002/qj.2270: mean |x - y| less the sum of |x_i - x_j| over pairs / m (m - 1). Its
    expectation does not depend on m, so ensembles of different sizes compare. A single sample is scored by its absolute error.
    """
    x, y = ensemble(samples, truth)
    m = len(x)
    error = np.abs(x - y).mean(0)
    if m == 1:
        return error
    weights = 2 * np.arange(m) - (m - 1)                             # sorted, the k-th is larger than k and smaller than m - 1 - k
    return error - np.tensordot(weights, np.sort(x, axis=0), axes=1) / (m * (m - 1))


def error_of_mean(samples: ArrayLike, truth: ArrayLike) -> Array:
    """The absolute error of the ensemble's mean."""
    x, y = ensemble(samples, truth)
    return np.abs(x.mean(0) - y)


def spread_and_error(samples: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    """The ensemble's variance times (m + 1) / m, and the squared error of its mean.

    Both have the same expectation where the truth is one more draw of the ensemble (Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1): the
    root of the ratio of their averages is the spread-to-skill ratio.
    """
    x, y = ensemble(samples, truth)
    if len(x) < 2:
        raise ValueError(f"{len(x)} sample: a spread needs at least 2")
    return x.var(0, ddof=1) * (len(x) + 1) / len(x), (x.mean(0) - y) ** 2


def ranks(samples: ArrayLike, truth: ArrayLike, rng: Generator) -> NDArray[np.int64]:
    """The truth's place among the m samples, 0..m, ties broken at random (Hamill 2001, Monthly Weather Review 129, 550-560)."""
    x, y = ensemble(samples, truth)
    ties = (x == y).sum(0)
    return (x < y).sum(0) + rng.integers(0, ties + 1)


def inside(rank: NDArray[np.int64], members: int, level: float) -> tuple[NDArray[np.bool_], float]:
    """Whether the truth lies in the ensemble's central range, and how often it does where it is one more draw of the ensemble.

    The range leaves out as many ranks at either end as bring that share next to `level`: 29 of the 33 ranks of 32 samples for 0.9.
    """
    cut = round((1 - level) * (members + 1) / 2)
    return (rank >= cut) & (rank <= members - cut), (members + 1 - 2 * cut) / (members + 1)


def ensemble(samples: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    """Both as float64; ValueError where a sample has another shape than the truth, or there is none."""
    x, y = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if x.ndim != y.ndim + 1 or x.shape[1:] != y.shape or not len(x):
        raise ValueError(f"samples {list(x.shape)}: at least one is needed, each of the truth's shape {list(y.shape)}")
    return x, y


# --- classes ------------------------------------------------------------------------------------------------------------------------

def mode(samples: ArrayLike) -> NDArray[np.int64]:
    """The most frequent code of every pixel; of several, the smallest."""
    x = np.asarray(samples)
    codes = np.unique(x)
    return codes[np.stack([(x == code).sum(0) for code in codes]).argmax(0)].astype(np.int64)


def confusion(truth: ArrayLike, predicted: ArrayLike, codes: ArrayLike) -> NDArray[np.int64]:
    """How often a code of the truth (row) is predicted as another (column), in the order of `codes`; ValueError for any other code."""
    order = np.asarray(codes)
    a, b = np.asarray(truth).ravel(), np.asarray(predicted).ravel()
    if strange := sorted(set(np.unique(np.concatenate([a, b])).tolist()) - set(order.tolist())):
        raise ValueError(f"class codes {strange} are not among {order.tolist()}; give a legend that has them")
    sorter = np.argsort(order)
    row, column = (sorter[np.searchsorted(order, x, sorter=sorter)] for x in (a, b))
    return np.bincount(row * len(order) + column, minlength=len(order) ** 2).reshape(len(order), len(order))


def accuracy(table: NDArray[np.integer]) -> Array:
    """The share on the diagonal of confusion tables [..., k, k]."""
    return np.trace(table, axis1=-2, axis2=-1) / np.maximum(table.sum((-2, -1)), 1)


def kappa(table: NDArray[np.integer]) -> Array:
    """Agreement beyond chance of confusion tables [..., k, k] (Cohen 1960, doi 10.1177/001316446002000104); 0 where chance is all."""
    total = np.maximum(table.sum((-2, -1)), 1)
    chance = (table.sum(-1) * table.sum(-2)).sum(-1) / total.astype(np.float64) ** 2
    return np.where(chance < 1, (accuracy(table) - chance) / np.where(chance < 1, 1 - chance, 1), 0.0)


# --- two distributions --------------------------------------------------------------------------------------------------------------

def wasserstein(a: ArrayLike, b: ArrayLike) -> Array:
    """The Wasserstein-1 distance between the values on the last axis of both, [..., m] and [..., n], exactly.

    It is the area between the two quantile functions (Villani 2009, remark 2.19), steps at the multiples of 1/m and 1/n.
    """
    x, y = np.sort(np.asarray(a, np.float64), -1), np.sort(np.asarray(b, np.float64), -1)
    m, n = x.shape[-1], y.shape[-1]
    if m == n:
        return np.abs(x - y).mean(-1)
    edges = np.unique(np.concatenate([np.arange(m + 1) * n, np.arange(n + 1) * m]))          # whole numbers, in units of 1 / m n
    i, j = edges[:-1] // n, edges[:-1] // m
    return (np.abs(x[..., i] - y[..., j]) * np.diff(edges)).sum(-1) / (m * n)


# --- over places --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Interval:
    """A figure with the central range in which it lies when places are drawn anew."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} .. {self.high:{spec}})"


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
