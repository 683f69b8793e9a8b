"""Is the truth one more draw of the ensemble? What the ranks of truths among their samples say.

A rank histogram is the counts [..., m + 1] of ranks 0..m, the number of samples that lie below the truth. It is flat where truths are
drawn as the samples are; a U shows an ensemble that is too narrow, a dome one that is too wide, a slope one that is too high or too low.
Tests of it take cases to be independent. Neighbouring pixels are not: see `independent` of `rank_test`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from copgen.scores.ensembles import ensemble

Array = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.9, 0.95)                                       # of the central ranges that are reported


def ranks(samples: ArrayLike, truth: ArrayLike, rng: Generator) -> NDArray[np.int64]:
    """The truth's place among the m samples, 0..m, ties broken at random (Hamill 2001, Monthly Weather Review 129, 550-560)."""
    x, y = ensemble(samples, truth)
    ties = (x == y).sum(0)
    return (x < y).sum(0) + rng.integers(0, ties + 1)


def rank_counts(rank: ArrayLike, members: int) -> NDArray[np.int64]:
    """How often each rank 0..m of `members` samples occurs, [m + 1]."""
    found = np.asarray(rank).ravel()
    if found.size and not 0 <= found.min() <= found.max() <= members:
        raise ValueError(f"ranks {found.min()} to {found.max()}: of {members} samples they go from 0 to {members}")
    return np.bincount(found, minlength=members + 1)


# --- central ranges -----------------------------------------------------------------------------------------------------------------

def inside(rank: NDArray[np.int64], members: int, level: float) -> tuple[NDArray[np.bool_], float]:
    """Whether the truth lies in the ensemble's central range, and how often it does where it is one more draw of the ensemble.

    The range leaves out as many ranks at either end as bring that share next to `level`: 29 of the 33 ranks of 32 samples for 0.9.
    """
    cut = left_out(members, level)
    return (rank >= cut) & (rank <= members - cut), (members + 1 - 2 * cut) / (members + 1)


def coverage(counts: ArrayLike, level: float) -> tuple[Array, float]:
    """The share of truths in the central range of `inside`, from counts of ranks [..., m + 1]; and that of a perfect ensemble of m.

    Samples are exchangeable with the truth where the ensemble is perfect: every rank then has probability 1 / (m + 1), so that the share
    beside is exact, whatever the distribution. Of 16 samples the widest range, from the least to the greatest, holds 15 / 17 for 0.95.
    """
    found = np.asarray(counts, np.float64)
    cut = left_out(found.shape[-1] - 1, level)
    with np.errstate(invalid="ignore"):
        share = found[..., cut : found.shape[-1] - cut].sum(-1) / found.sum(-1)
    return share, (found.shape[-1] - 2 * cut) / found.shape[-1]


def left_out(members: int, level: float) -> int:
    """How many ranks a central range leaves out at either end: at least one, since beyond the samples there is no range to speak of."""
    return min(max(round((1 - level) * (members + 1) / 2), 1), members // 2)


# --- flatness -----------------------------------------------------------------------------------------------------------------------

def chi_square(counts: ArrayLike) -> Array:
    """Pearson's statistic of counts of ranks [..., m + 1] against equal ones: chi-square with m degrees of freedom where they are equal."""
    return (deviations(counts) ** 2).sum(-1)


def slope(counts: ArrayLike) -> Array:
    """Bias: the linear part of `chi_square`, a standard normal z where ranks are uniform; above 0, truths lie higher than samples.

    Jolliffe and Primo (2008), doi 10.1175/2007MWR2219.1, split the statistic into independent parts by orthonormal contrasts of the
    ranks: slope^2 + convexity^2 + a rest, each with its own degrees of freedom, so that the kind of fault is tested by itself.
    """
    return deviations(counts) @ contrasts(np.shape(counts)[-1])[0]


def convexity(counts: ArrayLike) -> Array:
    """Dispersion: the quadratic part of `chi_square`, a standard normal z where ranks are uniform; see `slope`.

    Above 0 (a U) the ensemble is too narrow, below 0 (a dome) too wide. Of one sample there is none: NaN.
    """
    return deviations(counts) @ contrasts(np.shape(counts)[-1])[1]


@dataclass(frozen=True)
class RankTest:
    """A rank histogram's chi-square with its p-value, and its two parts that have a name, as z with their p-values."""

    chi_square: float
    degrees: int
    p: float
    slope: float
    slope_p: float
    convexity: float
    convexity_p: float
    cases: float                                                     # independent cases that the counts were taken for

    def faults(self, level: float = 0.05) -> tuple[str, ...]:
        """What the samples are, where its p-value is below `level`: under- or over-dispersed, too low or too high; the plainer fault first.

        A large bias bends the histogram, too, so that the second of two may come from the first.
        """
        dispersed = "under-dispersed" if self.convexity > 0 else "over-dispersed"
        biased = "too low" if self.slope > 0 else "too high"
        found = [(-abs(self.convexity), self.convexity_p, dispersed), (-abs(self.slope), self.slope_p, biased)]
        return tuple(name for _, p, name in sorted(found) if p < level)


def rank_test(counts: ArrayLike, independent: float | None = None) -> RankTest:
    """Tests whether counts of ranks [m + 1] are uniform, and names how they are not: `chi_square`, `slope`, `convexity`.

    `independent` is how many independent cases the counts stand for (tiles, say, where pixels were counted): they are scaled to it. `worth`
    tells it.
    """
    found = np.asarray(counts, np.float64)
    if found.ndim != 1 or len(found) < 2 or found.sum() <= 0:
        raise ValueError(f"counts of ranks {list(found.shape)}, {found.sum():g} in all: a test needs one list [m + 1] with some counts")
    from scipy.special import gammaincc

    found = found * (1 if independent is None else independent / found.sum())
    whole, tilt, bend = float(chi_square(found)), float(slope(found)), float(convexity(found))
    degrees = len(found) - 1
    return RankTest(whole, degrees, float(gammaincc(degrees / 2, whole / 2)), tilt, two_sided(tilt), bend, two_sided(bend), found.sum())


def worth(shares: ArrayLike) -> float:
    """For how many independent cases tiles stand by whose shares of ranks [tiles, m + 1] a histogram is made: `independent` of `rank_test`.

    One a tile where each has one truth. Shares that are a mean over several truths, or bands, vary less between tiles than those of single
    cases; how much less is the design effect (Rao and Scott 1981, Journal of the American Statistical Association 76, 221-230): with t
    truths a tile is worth t (m + 2) / (t + m + 1). It is a mean over the ranks, for chi-square as a whole: bands share their slope and
    convexity more than the rest. Where nothing is known of how tiles differ, each is one.
    """
    found = np.asarray(shares, np.float64)
    tiles, share = len(found), found.mean(0)
    between, single = ((found - share) ** 2).sum() / tiles, (share * (1 - share)).sum()
    if between <= 0:
        return float(tiles)
    effect = between / single                                        # of tiles that are one case each it is 1
    return float((tiles - 1 + effect) / effect)                      # less what the mean itself varies by


def deviations(counts: ArrayLike) -> Array:
    """(counts - expected) / sqrt(expected), expected equal: their squares add up to chi-square; NaN where nothing was counted."""
    found = np.asarray(counts, np.float64)
    expected = found.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (found - expected) / np.sqrt(expected)


def contrasts(number: int) -> Array:
    """The linear and the quadratic contrast of so many ranks, [2, number], orthonormal and each of sum 0; NaN where there is none."""
    rank = np.arange(number) - (number - 1) / 2
    rows = np.stack([rank, rank**2 - (rank**2).mean()])
    with np.errstate(invalid="ignore"):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def two_sided(z: float) -> float:
    """The probability that a standard normal lies farther from 0 than z."""
    return math.erfc(abs(z) / math.sqrt(2))
