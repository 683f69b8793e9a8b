"""How alike are two sets of samples? Distances between distributions that are known by samples alone.

A set is vectors [n, d], one a sample. `real` are true observations and `fake` the generator's; distances are Euclidean. What a set is too
small for is NaN, which says that nothing was measured: leave it out, don't average it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.scores.best import order_weights

Array = NDArray[np.float64]
NEIGHBOURS = 5                                   # of the balls of precision and recall
ROUNDING = 1e-13                                 # of a squared distance by products, relative to the squared lengths
NO_WIDTH = 1e-8                                  # a range below this has no inside; the stochastic benchmark's
LARGE = 1 << 26                                  # differences of coordinates that are formed one by one
AT_ONCE = 1024                                   # vectors whose distances to all others are in memory together
MOST_PAIRS = 500                                 # and of images whose distance is looked at


def wasserstein(a: ArrayLike, b: ArrayLike) -> Array:
    """The Wasserstein-1 distance between the values on the last axis of both, [..., m] and [..., n], exactly.

    It is the area between the two quantile functions (Villani 2009, remark 2.19), steps at the multiples of 1/m and 1/n.
    """
    x, y = np.sort(np.asarray(a, np.float64), -1), np.sort(np.asarray(b, np.float64), -1)
    m, n = x.shape[-1], y.shape[-1]
    if m == n:
        return np.abs(x - y).mean(-1)
    edges = np.sort(np.concatenate([np.arange(m) * n, np.arange(n) * m]), kind="stable")     # whole numbers, in units of 1 / m n
    i, j = edges // n, edges // m
    return (np.abs(x[..., i] - y[..., j]) * np.diff(edges, append=m * n)).sum(-1) / (m * n)  # a step that is there twice has no width


# --- neighbours ---------------------------------------------------------------------------------------------------------------------

def nn_accuracy(real: ArrayLike, fake: ArrayLike) -> float:
    """How often a sample's nearest neighbour in the pooled set, itself left out, is of its own kind (Lopez-Paz, Oquab, arXiv 1610.06545).

    1 where the sets lie apart, about 0.5 where one cannot be told from the other (`perfect_nn_accuracy`), and towards 0 where each fake
    sample is a copy of a real one. Neighbours that are equally near share the vote, so that order and duplicates decide nothing.
    NaN where either set is empty or both have one member.
    """
    x, y = pair_of_sets(real, fake)
    if not len(x) or not len(y) or len(x) + len(y) < 3:
        return float("nan")
    pooled, kind = np.concatenate([x, y]), np.arange(len(x) + len(y)) < len(x)
    apart = distances(pooled, pooled)
    np.fill_diagonal(apart, np.inf)
    nearest = apart == apart.min(1, keepdims=True)
    same = nearest & (kind == kind[:, None])
    return float((same.sum(1) / nearest.sum(1)).mean())


def perfect_nn_accuracy(real: int, fake: int) -> float:
    """What `nn_accuracy` is on average where m real and n fake samples are of one distribution; 7/15 for 8 and 8.

    Any other member of the pooled set is as likely the nearest: (m (m - 1) + n (n - 1)) / ((m + n) (m + n - 1)).
    """
    total = real + fake
    return (real * (real - 1) + fake * (fake - 1)) / (total * (total - 1))


def precision(real: ArrayLike, fake: ArrayLike, k: int = NEIGHBOURS) -> float:
    """The share of fake samples that lie near a real one: improved precision (Kynkäänniemi et al. 2019, arXiv 1904.06991, equation 1).

    Near is within the ball around a real sample that reaches its k-th nearest other one, its edge included. NaN where the real set has
    fewer than k + 1 members, whose balls would be of another kind, and where there is no fake sample.
    """
    x, y = pair_of_sets(real, fake)
    if len(x) < k + 1 or not len(y):
        return float("nan")
    reach = np.concatenate([np.partition(distances(some, x), k, axis=1)[:, k] for some in chunks(x)])    # itself comes first, at 0
    return float(np.concatenate([(distances(some, x) <= reach).any(1) for some in chunks(y)]).mean())


def recall(real: ArrayLike, fake: ArrayLike, k: int = NEIGHBOURS) -> float:
    """The share of real samples that lie near a fake one: `precision` with the sets in each other's place; the fake need k + 1 members."""
    return precision(fake, real, k)


def f_score(precision: float, recall: float) -> float:
    """The harmonic mean of both: 0 where one is 0, NaN where one is not known."""
    return 2 * precision * recall / (precision + recall) if precision + recall else precision + recall


def intra_distance(vectors: ArrayLike) -> float:
    """The mean Euclidean distance between two different members of a set: its diversity; NaN for fewer than two."""
    x = a_set(vectors)
    return float(distances(x, x).sum() / (len(x) * (len(x) - 1))) if len(x) > 1 else float("nan")


def mean_of_pairs(distance: Callable[[NDArray[Any], NDArray[Any]], ArrayLike], images: Sequence[NDArray[Any]], most: int = MOST_PAIRS,
                  at_once: int = 16) -> float:
    """The mean of a distance that is known for pairs of images [.., H, W] alone, over all pairs of a set; NaN for fewer than two.

    Of more than `most` pairs so many are drawn without repetition, always the same ones. `distance` takes two stacks and gives one number
    a pair, `at_once` pairs a call.
    """
    pairs = list(combinations(range(len(images)), 2))
    if len(pairs) > most:
        pairs = random.Random(42).sample(pairs, most)                # the benchmark's seed
    found = [np.asarray(distance(np.stack([images[i] for i, _ in part]), np.stack([images[j] for _, j in part])), np.float64)
             for part in (pairs[start : start + at_once] for start in range(0, len(pairs), at_once))]
    return float(np.concatenate(found).mean()) if found else float("nan")


# --- kernels and ranges -------------------------------------------------------------------------------------------------------------

def mmd(real: ArrayLike, fake: ArrayLike) -> float:
    """The squared maximum mean discrepancy, unbiased (Gretton et al. 2012, JMLR 13, lemma 6): 0 on average for one distribution.

    The kernel is exp(-distance^2 / 2 sigma^2), sigma being half the median distance between two members of the pooled set, plus 1e-8. Being
    unbiased it may be negative. NaN where either set has fewer than two members.
    """
    x, y = pair_of_sets(real, fake)
    m, n = len(x), len(y)
    if m < 2 or n < 2:
        return float("nan")
    pooled = np.concatenate([x, y])
    apart = distances(pooled, pooled)
    sigma = np.median(apart[np.triu_indices(m + n, 1)]) / 2 + NO_WIDTH
    kernel = np.exp(-((apart / sigma) ** 2) / 2)
    within_x, within_y = (kernel[part, part].sum() - size for part, size in ((slice(m), m), (slice(m, None), n)))
    return float(within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * kernel[:m, m:].mean())


def range_coverage(real: ArrayLike, fake: ArrayLike) -> Array:
    """The share of each coordinate's real range that the fake range overlaps, [d]; 1 where the real range is 1e-8 or less.

    Smallest to largest, so one stray sample widens it, and more samples cover more. NaN where either set is empty.
    """
    x, y = pair_of_sets(real, fake)
    if not len(x) or not len(y):
        return np.full(x.shape[1], np.nan)
    low, high = x.min(0), x.max(0)
    width = high - low
    common = np.maximum(np.minimum(high, y.max(0)) - np.maximum(low, y.min(0)), 0)
    return np.where(width <= NO_WIDTH, 1.0, common / np.where(width <= NO_WIDTH, 1.0, width))


# --- memorisation -------------------------------------------------------------------------------------------------------------------

class Copying(NamedTuple):
    """Of every sample: its distance to the nearest training and held-out vector, and how likely the former is the smaller one; [n] each."""

    training: Array
    held_out: Array
    nearer: Array


def copying(samples: ArrayLike, training: ArrayLike, held_out: ArrayLike) -> Copying:
    """Do samples lie nearer to what was trained on than to as many places that were not? `nearer` is 0.5 on average if not.

    The nearest of many is nearer than the nearest of few, so the larger set counts as a random part of it as large as the smaller set,
    averaged over all such parts (a complete U-statistic, Hoeffding 1948): exactly, by the rank of each distance. Equal distances count
    half. Leave the case that the samples are of out of both sets: its truth is near for a good reason. The comparison is that of Meehan,
    Chaudhuri and Dasgupta (2020, arXiv 2004.05675) turned round: they compare samples with held-out vectors by their distance to the
    training set. ValueError where either set is empty.
    """
    made, (known, new) = a_set(samples), pair_of_sets(training, held_out)
    if not len(known) or not len(new):
        raise ValueError(f"{len(known)} training and {len(new)} held-out vectors: at least one of each is needed")
    size = min(len(known), len(new))
    chances = [chance_of_nearest(len(one), size) for one in (known, new)]
    rows = [compared(*(np.sort(distances(sample[None], one)[0])[: len(chance)] for one, chance in zip((known, new), chances, strict=True)),
                     *chances) for sample in made]
    return Copying(*np.array(rows, np.float64).reshape(-1, 3).T)


def compared(known: Array, new: Array, chance_known: Array, chance_new: Array) -> tuple[float, float, float]:
    """The expected nearest distance of two sorted lists, each of which is nearest with a chance, and how likely the first is smaller."""
    reached = np.concatenate([[0.0], np.cumsum(chance_new)])
    below, up_to = (reached[np.searchsorted(new, known, side=side)] for side in ("left", "right"))
    nearer = 1 - float(chance_known @ (below + up_to)) / 2
    return float(known @ chance_known), float(new @ chance_new), nearer


def chance_of_nearest(total: int, drawn: int) -> Array:
    """How likely the k-th nearest of `total` is the nearest of `drawn` of them, for k = 1, 2, ..., total - drawn + 1."""
    return order_weights(total, drawn)[: total - drawn + 1]


# --- vectors ------------------------------------------------------------------------------------------------------------------------

def distances(a: Array, b: Array) -> Array:
    """Euclidean distances [m, n] between vectors [m, d] and [n, d].

    By differences, so that equal vectors are at 0 exactly; of large sets by products, which is a hundred times as fast: what is below
    a millionth of the vectors' own length is 0 then, so that equal ones, as of flat pictures, are in each other's balls here, too.
    """
    if a.size * len(b) > LARGE:
        centre = b.mean(0)
        x, y = a - centre, b - centre
        lengths = (x**2).sum(1)[:, None] + (y**2).sum(1)
        squared = lengths - 2 * (x @ y.T)
        return np.sqrt(np.where(squared <= ROUNDING * lengths, 0, squared))
    return np.stack([np.sqrt(((b - one) ** 2).sum(-1)) for one in a]) if len(a) else np.zeros((0, len(b)))


def chunks(vectors: Array) -> list[Array]:
    """The vectors some at a time, so that not all distances are in memory together."""
    return [vectors[start : start + AT_ONCE] for start in range(0, len(vectors), AT_ONCE)]


def a_set(vectors: ArrayLike) -> Array:
    x = np.asarray(vectors, np.float64)
    if x.ndim != 2:
        raise ValueError(f"a set of shape {list(x.shape)}: vectors [n, d] are needed, one a sample")
    return x


def pair_of_sets(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    x, y = a_set(a), a_set(b)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"vectors of {x.shape[1]} and of {y.shape[1]} coordinates: both sets need the same kind")
    return x, y
