"""How good is an ensemble? Scores of samples against the truth, element by element.

Samples come first: an ensemble of m samples is [m, ...] and its truth [...]. A score keeps the shape [...] of the truth, so that a caller
averages as the question asks: pixels first, then bands, then places. What takes a root or a ratio is taken after that average.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def ensemble(samples: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    """Both as float64; ValueError where a sample has another shape than the truth, or there is none."""
    x, y = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    check_ensemble(x, y)
    return x, y


def check_ensemble(samples: NDArray, truth: NDArray) -> None:
    if samples.ndim != truth.ndim + 1 or samples.shape[1:] != truth.shape or not len(samples):
        raise ValueError(f"samples {list(samples.shape)}: at least one is needed, each of the truth's shape {list(truth.shape)}")


# --- a number -----------------------------------------------------------------------------------------------------------------------

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


# --- a vector, a place, a date: anything that has a distance ------------------------------------------------------------------------

def energy_score(samples: ArrayLike, truth: ArrayLike, axis: int = -1) -> Array:
    """The energy score of vectors whose components lie on `axis` of the truth, in the components' unit; that axis is gone.

    Gneiting and Raftery (2007), doi 10.1198/016214506000001437, section 4.3, with the fair estimator's pairs (as in `crps`, which it
    is for a single component): mean |x - y| less the sum of |x_i - x_j| over pairs / m (m - 1), Euclidean lengths. A single sample is
    scored by its distance. Takes no more memory than the samples twice over.
    """
    x, y = ensemble(samples, truth)
    if not -y.ndim <= axis < y.ndim:
        raise ValueError(f"axis {axis}: a vector of the truth {list(y.shape)} needs one of its axes")
    x, y = (np.moveaxis(one, axis % y.ndim - y.ndim, -1) for one in (x, y))
    m = len(x)
    error = length(x - y).sum(0) / m
    pairs = sum((length(x[i + 1 :] - x[i]).sum(0) for i in range(m - 1)), np.zeros_like(error))
    return error - pairs / (m * max(m - 1, 1))


def length(vectors: Array) -> Array:
    return np.sqrt(np.einsum("...i,...i->...", vectors, vectors))


def energy_of_distances(to_truth: ArrayLike, between: ArrayLike) -> Array:
    """The energy score from distances alone: of the m samples to the truth [m, ...], and between them [m, m, ...].

    The fair estimator of `energy_score` for any distance of negative type (Sejdinovic et al. 2013, doi 10.1214/13-AOS1140): for those it
    is proper. `great_circle` and `circular_days` are such distances (Gangolli 1967). A single sample is scored by its distance.
    """
    error, pairs = np.asarray(to_truth, np.float64), np.asarray(between, np.float64)
    m = len(error)
    if not m or pairs.shape != (m, *error.shape):
        raise ValueError(f"distances between samples {list(pairs.shape)}: expected {[m, *error.shape]}, and at least one sample")
    return error.mean(0) - pairs.sum((0, 1)) / (2 * m * max(m - 1, 1))


# --- an image -----------------------------------------------------------------------------------------------------------------------

def variogram_score(samples: ArrayLike, truth: ArrayLike, lags: Sequence[int] = (1, 2, 4, 8), p: float = 0.5) -> Array:
    """How well differences between pixels are met, whatever their level: the variogram score of images [..., H, W], in unit^(2p).

    Scheuerer and Hamill (2015), doi 10.1175/MWR-D-14-00269.1: (|y_i - y_j|^p less its mean over samples)^2, here over the
    pairs of pixels that lie a lag apart along a row or a column; every lag that fits into the image weighs the same, and so do both
    directions. Fair: less the sampling variance of that mean, so that ensembles of different sizes compare (of one sample, nothing).
    """
    x, y = ensemble(samples, truth)
    if x.ndim < 3 or not lags or min(lags) < 1 or p <= 0:
        raise ValueError(f"truth {list(y.shape)}, lags {list(lags)}, p {p}: a variogram score needs images, lags of at least 1 and p > 0")
    fits = [(lag, axis) for axis in (-1, -2) for lag in lags if lag < y.shape[axis]]
    if not fits:
        raise ValueError(f"lags {list(lags)}: an image of {y.shape[-2]} x {y.shape[-1]} pixels needs one below its side")
    return np.mean([variogram_error(x, y, lag, axis, p) for lag, axis in fits], axis=0)


def variogram_error(x: Array, y: Array, lag: int, axis: int, p: float) -> Array:
    """The fair squared error of |y_i - y_j|^p at one lag along one axis, the mean over pairs of pixels. A sample at a time."""
    m = len(x)
    expected = difference(y, lag, axis, p)
    total, squares = np.zeros_like(expected), np.zeros_like(expected)
    for one in x:
        found = difference(one, lag, axis, p) - expected             # deviations from the truth: no digits are lost in the variance
        total += found
        squares += found * found
    sampling = np.maximum(squares - total**2 / m, 0) / (m * max(m - 1, 1))
    return ((total / m) ** 2 - sampling).mean((-2, -1))


def difference(image: Array, lag: int, axis: int, p: float) -> Array:
    one = np.moveaxis(image, axis, -1)
    return np.abs(one[..., lag:] - one[..., :-lag]) ** p
