"""How good is an ensemble as a distribution? A band's samples against one true observation or many.

The estimators are those of `copgen.scores` (fair CRPS, spread and skill, ranks, energy and variogram score), arranged so that what
concerns the samples alone is computed once for all truths, in one pass over pixels. Every mean is over pixels and over truths.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from copgen.evaluation.stacks import Flat, Row, Stack, row
from copgen.modalities import Modality
from copgen.scores.calibration import rank_counts
from copgen.scores.ensembles import energy_score, length

LAGS = (1, 2, 4, 8)                              # pixels, of the variogram score
OF_TILES = ("crps", "spread", "skill")           # and the ranks: what is also asked of the mean over a tile


def ensemble_rows(stack: Stack, name: str) -> Iterator[Row]:
    """All that is said of the samples of one band together; `name` seeds what is drawn at random (the order of ties)."""
    rng = np.random.default_rng(zlib.crc32(f"{name}/{stack.modality.name}/{stack.band}".encode()))
    if stack.flat.weight:
        for prefix, flat in (("", stack.flat), ("tile ", whole_tile(stack.flat))):
            for statistic, value in {**distances(flat), **moments(flat), **rank_shares(flat, rng)}.items():
                if not prefix or statistic in OF_TILES or statistic.startswith("rank:"):
                    yield from row(None, stack.product, stack.band, prefix + statistic, value, flat.weight)
    yield from row(None, stack.product, stack.band, "variogram score", variogram(stack))


def whole_tile(flat: Flat) -> Flat:
    """The mean of the band over the tile as the one number that is compared: beside each truth over the pixels that all know."""
    if flat.complete:
        samples, truths = (one.mean(1, keepdims=True, dtype=np.float64) for one in (flat.samples, flat.truths))
        return Flat(samples, truths, flat.known[:, :1])
    there = [k for k, known in enumerate(flat.known) if known.any()]
    samples = np.array([flat.samples[:, flat.known[k]].mean(1, dtype=np.float64) for k in there]).T
    truths = np.array([flat.truths[k, flat.known[k]].mean(dtype=np.float64) for k in there])
    return Flat(samples, np.broadcast_to(truths, (len(there),) * 2), np.eye(len(there), dtype=bool))


# --- pixel by pixel -----------------------------------------------------------------------------------------------------------------

def distances(flat: Flat) -> dict[str, float]:
    """`crps`: the fair one (Ferro 2014), the mean distance to the truths less what two samples are apart; `scores.crps` for many truths."""
    m = len(flat.samples)
    away = np.zeros_like(flat.truths, flat.samples.dtype)
    for one in flat.samples:
        away += np.abs(flat.truths - one)
    value = flat.mean(away) / m
    if m > 1:
        ranked = np.sort(flat.samples, axis=0)
        ranked -= ranked[0].copy()               # the level is of no account, and small differences keep their digits
        value -= flat.mean(np.tensordot(2 * np.arange(m, dtype=ranked.dtype) - (m - 1), ranked, axes=1)) / (m * (m - 1))
    return {"crps": value}


def moments(flat: Flat) -> dict[str, float]:
    """`skill` and `error of mean` of the samples' mean, and where there are two samples their `variance` and `spread`.

    Spread is the variance times (m + 1) / m: the expected skill of a perfect ensemble (Fortin et al. 2014), see `scores.spread_and_error`.
    """
    m = len(flat.samples)
    centre = flat.samples.mean(0, dtype=np.float64)
    off = flat.truths - centre
    found = {"skill": flat.mean(off**2), "error of mean": flat.mean(np.abs(off))}
    if m > 1:
        total = np.zeros_like(centre)
        for one in flat.samples:
            total += (one - centre) ** 2
        variance = flat.mean(total) / (m - 1)
        found |= {"variance": variance, "spread": variance * (m + 1) / m}
    return found


def rank_shares(flat: Flat, rng: np.random.Generator) -> dict[str, float]:
    """`rank:<k>:<m>`: the share of truths among whose m samples k lie below, ties in random order (Hamill 2001); see `scores.ranks`."""
    m = len(flat.samples)
    below, ties = np.zeros(flat.truths.shape, np.uint16), np.zeros(flat.truths.shape, np.uint16)
    for one in flat.samples:
        below += one < flat.truths
        ties += one == flat.truths
    tied = np.nonzero(ties)
    below[tied] += rng.integers(0, ties[tied] + 1, dtype=np.uint16)
    counts = rank_counts(below[flat.known], m)
    return {f"rank:{k}:{m}": share for k, share in enumerate(counts / counts.sum())}


# --- many bands, many pixels --------------------------------------------------------------------------------------------------------

def energy_rows(modality: Modality, bands: Sequence[Flat]) -> Iterator[Row]:
    """`energy score`: all bands of a row as one vector a pixel, on the bands' subgrid; a pixel counts where every band is known."""
    samples, truths = (np.stack([getattr(flat, what) for flat in bands], -1) for what in ("samples", "truths"))
    flat = Flat(samples, truths, np.logical_and.reduce([one.known for one in bands]))
    if flat.weight:
        yield from row(None, modality.product, modality.name, "energy score", energy(flat))


def energy(flat: Flat) -> float:
    """The fair energy score of vectors, the mean over truths. What samples are apart does not ask for the truth, so it is taken once."""
    first = energy_score(flat.samples, flat.truths[0])
    nearest, *others = (sum(length(truth - one) for one in flat.samples) / len(flat.samples) for truth in flat.truths.astype(np.float64))
    return flat.mean(np.stack([first, *(first - nearest + other for other in others)]))


def variogram(stack: Stack) -> float:
    """The fair variogram score of `scores.variogram_score`, p = 0.5, the mean over truths without holes; NaN where a sample has one."""
    m, side = len(stack.seeds), stack.samples.shape[-1]
    there = [k for k in range(len(stack.truths)) if stack.whole(m + k)]
    lags = [lag for lag in LAGS if lag < side]
    if not there or not lags or not all(stack.whole(k) for k in range(m)):
        return float("nan")
    return float(np.mean([apart(stack.samples, stack.truths[there], lag, axis) for axis in (1, 2) for lag in lags]))


def apart(samples: NDArray, truths: NDArray, lag: int, axis: int) -> float:
    """The squared error of the mean root of differences at one lag along one axis, less the sampling variance of that mean."""
    m = len(samples)
    found = [roots(one, lag, axis) for one in samples]
    centre = sum(found[1:], found[0]) / np.float32(m)
    error = np.mean([np.square(roots(one, lag, axis) - centre).mean(dtype=np.float64) for one in truths])
    return float(error) - sum(float(np.square(one - centre).mean(dtype=np.float64)) for one in found) / (m * max(m - 1, 1))


def roots(image: NDArray, lag: int, axis: int) -> NDArray:
    """The roots of the differences of pixels that lie a lag apart along an axis (1: rows, 2: columns)."""
    return np.sqrt(np.abs(image[lag:] - image[:-lag] if axis == 1 else image[:, lag:] - image[:, :-lag]))
