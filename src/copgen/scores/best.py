"""How good is the best of N samples? Its expectation, from all m that there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def best_of_n(values: ArrayLike, largest: bool = False) -> Array:
    """The expected best of N = 1..m values drawn without replacement from the m on the last axis, [..., m] in and out.

    The best is the smallest, or the `largest`. Unbiased for the best of N fresh samples, and the mean over all subsets of N: the i-th in
    order is the best of C(m - i, N - 1) of the C(m, N) subsets (the minimum's U-statistic, Hoeffding 1948, doi 10.1214/aoms/1177730196;
    Chen et al. 2021, arXiv 2107.03374, have it for successes). A NaN is a missing sample: there, N beyond those left is NaN.
    """
    x = np.asarray(values, np.float64)
    ordered = np.sort(-x if largest else x, axis=-1)                 # NaN comes last
    there = (~np.isnan(x)).sum(-1)
    best = np.full(x.shape, np.nan)
    for number in np.unique(there[there > 0]):
        rows = there == number
        best[rows, :number] = expected(ordered[rows, :number], order_weights(int(number), np.arange(1, number + 1)))
    return -best if largest else best


def expected(ordered: Array, weights: Array) -> Array:
    """The weighted sums; what has no weight does not count, even where it is infinite."""
    found = np.where(np.isinf(ordered), 0, ordered) @ weights.T
    for end in (np.inf, -np.inf):
        found = np.where((ordered == end) @ (weights > 0).T, end, found)
    return found


def order_weights(number: int, drawn: ArrayLike) -> Array:
    """How likely the i-th in order is the best where N = `drawn` [...] of `number` are drawn without replacement, [..., number].

    N / m for the first, and from one to the next (m - i - N + 1) / (m - i): products of factors of at most 1, so none overflows.
    """
    n, place = np.asarray(drawn)[..., None], np.arange(1, number)
    following = np.maximum(number - place - n + 1, 0) / (number - place)
    return np.cumprod(np.concatenate([n / number, following], axis=-1), axis=-1)
