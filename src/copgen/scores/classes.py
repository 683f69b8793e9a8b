"""How well are classes told apart, and how far are their probabilities to be trusted?

An ensemble of m samples of class codes is [m, ...] and its truth [...]; its probability of a class is the share of samples that say it.
A confusion table is [..., K, K] with the truth on its rows. Everything that is taken from tables and counts is a function of their sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.scores.ensembles import check_ensemble

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


def mode(samples: ArrayLike) -> Counts:
    """The most frequent code of every pixel; of several, the smallest."""
    x = np.asarray(samples)
    codes = np.unique(x)
    return codes[class_counts(x, codes).argmax(0)].astype(np.int64)


def class_counts(samples: ArrayLike, codes: ArrayLike) -> Counts:
    """How many samples say each of the codes, [K, ...]."""
    x = np.asarray(samples)
    return np.stack([(x == code).sum(0) for code in np.asarray(codes)])


# --- confusion tables ---------------------------------------------------------------------------------------------------------------

def confusion(truth: ArrayLike, predicted: ArrayLike, codes: ArrayLike) -> Counts:
    """How often a code of the truth (row) is predicted as another (column), in the order of `codes`; ValueError for any other code."""
    order = np.asarray(codes)
    a, b = np.asarray(truth).ravel(), np.asarray(predicted).ravel()
    if strange := sorted(set(np.unique(np.concatenate([a, b])).tolist()) - set(order.tolist())):
        raise ValueError(f"class codes {strange} are not among {order.tolist()}; give a legend that has them")
    sorter = np.argsort(order)
    row, column = (sorter[np.searchsorted(order, x, sorter=sorter)] for x in (a, b))
    return np.bincount(row * len(order) + column, minlength=len(order) ** 2).reshape(len(order), len(order))


def accuracy(table: ArrayLike) -> Array:
    """The share on the diagonal of confusion tables [..., K, K]: top-1, the published `overall_top1`."""
    found = np.asarray(table)
    return np.trace(found, axis1=-2, axis2=-1) / np.maximum(found.sum((-2, -1)), 1)


def kappa(table: ArrayLike) -> Array:
    """Agreement beyond chance of confusion tables [..., K, K] (Cohen 1960, doi 10.1177/001316446002000104); 0 where chance is all."""
    found = np.asarray(table)
    total = np.maximum(found.sum((-2, -1)), 1)
    chance = (found.sum(-1) * found.sum(-2)).sum(-1) / total.astype(np.float64) ** 2
    return np.where(chance < 1, (accuracy(found) - chance) / np.where(chance < 1, 1 - chance, 1), 0.0)


def iou(table: ArrayLike) -> Array:
    """Intersection over union of each class, tp / (tp + fp + fn), [..., K] (Jaccard 1901); NaN of a class that is nowhere."""
    hits, either = overlaps(table)
    return over(hits, either)


def mean_iou(table: ArrayLike) -> Array:
    """The mean of `iou` over the classes that occur in truth or prediction (tp + fp + fn > 0), none of them ignored, as published."""
    return mean_where(iou(table))


def frequency_weighted_iou(table: ArrayLike) -> Array:
    """The mean of `iou`, each class weighted by its pixels in the truth, as published (Long et al. 2015, arXiv 1411.4038)."""
    found = np.asarray(table)
    return over((found.sum(-1) * np.nan_to_num(iou(found))).sum(-1), found.sum((-2, -1)))


def f1(table: ArrayLike) -> Array:
    """2 tp / (2 tp + fp + fn) of each class, [..., K] (Dice 1945); NaN of a class that is nowhere."""
    hits, either = overlaps(table)
    return over(2 * hits, hits + either)


def mean_f1(table: ArrayLike) -> Array:
    """The mean of `f1` over the classes that occur in truth or prediction, none of them ignored, as published."""
    return mean_where(f1(table))


def overlaps(table: ArrayLike) -> tuple[Array, Array]:
    """tp and tp + fp + fn of each class, [..., K]."""
    found = np.asarray(table)
    hits = np.diagonal(found, axis1=-2, axis2=-1)
    return hits, found.sum(-1) + found.sum(-2) - hits


def over(a: ArrayLike, b: ArrayLike) -> Array:
    """a / b, NaN where b is 0."""
    below = np.asarray(b, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, np.asarray(a, np.float64) / below, np.nan)


def mean_where(values: Array) -> Array:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    return over(np.nan_to_num(values).sum(-1), (~np.isnan(values)).sum(-1))


# --- probabilities ------------------------------------------------------------------------------------------------------------------

def brier(samples: ArrayLike, truth: ArrayLike) -> Array:
    """The Brier score of each pixel, summed over the classes (Brier 1950, Monthly Weather Review 78, 1-3): 0 to 2, 0 the best.

    Of few samples its mean is too high, by p (1 - p) / m a class: compare ensembles of one size, or use `fair_brier`.
    """
    share, hit = shares(samples, truth)
    return ((share - hit) ** 2).sum(0)


def fair_brier(samples: ArrayLike, truth: ArrayLike) -> Array:
    """`brier` less p (1 - p) / (m - 1) a class: what infinitely many samples would be expected to get.

    Ferro (2014), doi 10.1002/qj.2270: fair, since its mean does not depend on m.
    """
    share, hit = shares(samples, truth)
    m = len(np.asarray(samples))
    if m < 2:
        raise ValueError(f"{m} sample: a fair Brier score needs at least 2")
    return ((share - hit) ** 2 - share * (1 - share) / (m - 1)).sum(0)


def shares(samples: ArrayLike, truth: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """The share of samples that say a code, and whether the truth does, [K, ...] over the codes that occur."""
    x, y = np.asarray(samples), np.asarray(truth)
    check_ensemble(x, y)
    codes = np.union1d(x, y)
    return class_counts(x, codes) / len(x), np.stack([y == code for code in codes])


def entropy(samples: ArrayLike) -> Array:
    """The Shannon entropy in bits of each pixel's shares of classes (Shannon 1948), 0 where all samples agree.

    The plug-in estimator: of m samples it is too low, by about (K - 1) / (2 m ln 2) for K classes that occur (Miller 1955).
    """
    x = np.asarray(samples)
    share = class_counts(x, np.unique(x)) / len(x)
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(0)


# --- reliability: counts over pixels, by how many samples say a class ---------------------------------------------------------------

def reliability_counts(samples: ArrayLike, truth: ArrayLike, codes: ArrayLike) -> tuple[Counts, Counts]:
    """In how many pixels k of the m samples say a code, and in how many of those the truth does: two tables [K, m + 1].

    The counts of a reliability diagram whose bins are the probabilities that m samples can give (Murphy and Winkler 1977). They add up.
    """
    x, y = np.asarray(samples), np.asarray(truth)
    check_ensemble(x, y)
    order = np.asarray(codes)
    said = class_counts(x, order).reshape(len(order), -1)
    true = np.stack([(y == code).ravel() for code in order])
    cases = np.stack([np.bincount(one, minlength=len(x) + 1) for one in said])
    hits = np.stack([np.bincount(one[there], minlength=len(x) + 1) for one, there in zip(said, true, strict=True)])
    return cases, hits


def calibration_error(cases: ArrayLike, hits: ArrayLike) -> Array:
    """The expected calibration error from counts of reliability [..., K, m + 1]: 0 to 1, the mean over the classes that occur.

    Class by class (Nixon et al. 2019, arXiv 1904.01685; Kull et al. 2019), the mean over pixels of |share of truths - k / m| in each bin k.
    Even a perfect ensemble of m has some, since k / m is not its probability: `perfect_reliability` gives the counts to compare with.
    """
    n, true = np.asarray(cases, np.float64), np.asarray(hits, np.float64)
    gap = over(np.abs(true - n * probabilities(n)).sum(-1), n.sum(-1))
    occurs = (n[..., 1:].sum(-1) > 0) | (true.sum(-1) > 0)
    return mean_where(np.where(occurs, gap, np.nan))


def perfect_reliability(cases: ArrayLike) -> tuple[Array, Array]:
    """What counts of reliability would be if the truth were one more sample, for ensembles of m - 1: cases and hits [..., K, m].

    Each of the m samples in turn is the truth of the others: where k of m say a class, k of them do and leave k - 1, and the other m - k
    do not and leave k. What finite ensembles do to a reliability diagram (Richardson 2001, doi 10.1002/qj.49712757715) is in it.
    """
    n = np.asarray(cases, np.float64)
    m = n.shape[-1] - 1
    if m < 2:
        raise ValueError(f"counts of {m} sample: to take one as the truth of the others needs at least 2")
    hits = (n * probabilities(n))[..., 1:]
    return hits + (n * (1 - probabilities(n)))[..., :-1], hits


def brier_parts(cases: ArrayLike, hits: ArrayLike) -> tuple[Array, Array, Array]:
    """Reliability, resolution and uncertainty of the Brier score from counts [..., K, m + 1], each summed over the classes, [...].

    Murphy (1973), doi 10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2: `brier` is the first less the second plus the third, exactly, since
    a bin holds one probability. Reliability is best at 0, resolution best at the uncertainty, which belongs to the truth alone.
    """
    n, true = np.asarray(cases, np.float64), np.asarray(hits, np.float64)
    total, share = n.sum(-1), np.nan_to_num(over(true, n))
    rate = over(true.sum(-1), total)
    reliability = over((n * (probabilities(n) - share) ** 2).sum(-1), total)
    resolution = over((n * (share - rate[..., None]) ** 2).sum(-1), total)
    return reliability.sum(-1), resolution.sum(-1), (rate * (1 - rate)).sum(-1)


def probabilities(cases: Array) -> Array:
    """k / m of each bin."""
    return np.arange(cases.shape[-1]) / max(cases.shape[-1] - 1, 1)
