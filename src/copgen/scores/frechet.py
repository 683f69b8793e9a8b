"""How far apart are two large sets of vectors? The Fréchet distance (FID, if the vectors are Inception's) and the kernel distance (KID).

Sets are vectors [n, d], one a picture. `copgen.scores.sets` has the other measures of sets, and those of small ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from copgen.scores.sets import Array, chunks, pair_of_sets

DEGREE = 3                                       # of the kernel distance's polynomial


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """The squared Fréchet distance of the Gaussians with the sets' means and covariances (Heusel et al. 2017, arXiv 1706.08500).

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2). With S1 = A'A and S2 = B'B the last trace is the sum of the singular
    values of A B': no matrix has a root taken, so nothing fails and nothing becomes complex where a covariance lacks rank, as that of n
    vectors does in n coordinates or more. It is of finite sets, and larger the smaller they are: two sets of one distribution are not at
    0. NaN where either set has fewer than two members.
    """
    x, y = pair_of_sets(real, fake)
    if len(x) < 2 or len(y) < 2:
        return float("nan")
    a, b = factor(x), factor(y)
    common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * common
    return max(float(distance), 0.0)             # below 0 by rounding alone


def factor(vectors: Array) -> Array:
    """A matrix [r, d] with at most d rows whose square is the covariance: A'A = S."""
    centred = (vectors - vectors.mean(0)) / np.sqrt(len(vectors) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """The squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, unbiased: the KID (Bińkowski et al. 2018, arXiv 1801.01401).

    0 on average for one distribution, however small the sets are, and hence below 0 at times. Of the sets as a whole: a mean over parts, as
    other programs have it, has the same expectation and a larger variance. NaN where either set has fewer than two members.
    """
    x, y = pair_of_sets(real, fake)
    m, n, d = len(x), len(y), x.shape[1]
    if m < 2 or n < 2:
        return float("nan")

    def total(a: Array, b: Array) -> float:
        return float(sum(((some @ b.T / d + 1) ** DEGREE).sum() for some in chunks(a)))

    def within(one: Array) -> float:
        return total(one, one) - float((((one**2).sum(1) / d + 1) ** DEGREE).sum())

    return within(x) / (m * (m - 1)) + within(y) / (n * (n - 1)) - 2 * total(x, y) / (m * n)
