"""What lies above one another? One band of all samples and of all truths, in the units of scoring, and the rows made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.evaluation.missing import unknown
from copgen.modalities import Modality
from copgen.scaling import Decibel, EightBit
from copgen.scene import Scene

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
SIDE = 64                                        # pixels along one side of the subgrid on which whole vectors and sets are compared


class Row(NamedTuple):
    """One statistic: `value` is the mean over `weight` elements, so that any grouping is sum(value * weight) / sum(weight)."""

    seed: int | None                             # None: of the whole ensemble, or of the truth
    modality: str                                # the product
    band: str                                    # "" where all bands count together
    statistic: str
    value: float
    weight: float


def row(seed: int | None, modality: str, band: str, statistic: str, value: ArrayLike, weight: ArrayLike = 1.0) -> Iterator[Row]:
    """One row; none where nothing was counted, or the value is undefined (which NaN says)."""
    one, many = float(np.asarray(value)), float(np.asarray(weight))
    if many > 0 and np.isfinite(one):
        yield Row(seed, modality, band, statistic, one, many)


@dataclass(frozen=True)
class Stack:
    """One band: samples [m, H, W] with their seeds, and truths [t, H, W] with their numbers, the observation first.

    Sentinel-2 in DN, radar in dB, heights in metres, pictures in levels, classes as codes. `known` [m + t, H, W] is None where all
    pixels are.
    """

    modality: Modality
    band: str
    seeds: tuple[int, ...]
    numbers: tuple[int, ...]
    samples: NDArray
    truths: NDArray
    known: Mask | None = None

    @property
    def product(self) -> str:
        return self.modality.product

    @cached_property
    def seen(self) -> Mask | None:
        """Where a sample and the observation are both known, [m, H, W]; None: everywhere."""
        m = len(self.seeds)
        return None if self.known is None else self.known[:m] & self.known[m]

    def means(self, values: NDArray) -> tuple[Array, Array]:
        """The mean of each sample's values [m, H, W] over the pixels that both know, and how many these are."""
        return masked_means(values, self.seen)

    def whole(self, member: int) -> bool:
        """Whether an image (the samples, then the truths) has no hole: without that neither texture nor spectrum is defined."""
        return self.known is None or bool(self.known[member].all())

    def parts(self, most: int) -> Iterator[Stack]:
        """At most so many samples at a time, beside the same truths."""
        for start in range(0, len(self.seeds), most):
            part = slice(start, start + most)
            known = None if self.known is None else np.concatenate([self.known[: len(self.seeds)][part], self.known[len(self.seeds) :]])
            yield replace(self, seeds=self.seeds[part], samples=self.samples[part], known=known)

    @cached_property
    def flat(self) -> Flat:
        """The pixels that every sample knows, in one line; truths with the share of a pixel that each is worth."""
        flat = self.every(1)
        if flat.complete:
            return flat
        there = flat.known.any(0)
        return Flat(flat.samples[:, there], flat.truths[:, there], flat.known[:, there])

    @cached_property
    def thinned(self) -> Flat:
        """The pixels of a regular subgrid of at most 64 x 64, all kept; one that a sample does not know is known of no truth."""
        flat = self.every(-(-self.samples.shape[-1] // SIDE))
        return Flat(flat.samples.copy(), flat.truths.copy(), flat.known)     # which outlives its stack

    def every(self, step: int) -> Flat:
        """Every step-th pixel in both directions."""
        m = len(self.seeds)
        samples, truths = (one[:, ::step, ::step].reshape(len(one), -1) for one in (self.samples, self.truths))
        if self.known is None:
            return Flat(samples, truths, np.ones(truths.shape, bool))
        known = self.known[:, ::step, ::step].reshape(len(self.known), -1)
        return Flat(samples, truths, known[m:] & known[:m].all(0))


@dataclass(frozen=True)
class Flat:
    """Samples [m, n] and truths [t, n] at the same n pixels, and which truths are known where."""

    samples: NDArray
    truths: NDArray
    known: Mask

    @cached_property
    def complete(self) -> bool:
        return bool(self.known.all())

    @cached_property
    def shares(self) -> Array:
        """What each pixel weighs [n]: the share of the truths that are known there, so that a pixel counts once however many there are."""
        return self.known.mean(0)

    @property
    def weight(self) -> float:
        """How many pixels it is a mean over."""
        return float(self.shares.sum())

    def mean(self, values: NDArray) -> float:
        """The weighted mean of a value a pixel [n], or of a value a truth and pixel [t, n]; NaN where there is no pixel."""
        if self.complete and values.size:
            return float(values.mean(dtype=np.float64))
        if not self.weight:
            return float("nan")
        weights = self.shares if values.ndim == 1 else self.known / len(self.truths)
        return float((values * weights).sum(dtype=np.float64)) / self.weight


def masked_means(values: NDArray, mask: Mask | None) -> tuple[Array, Array]:
    """The mean over the last two axes of what the mask leaves [m, H, W], and how many pixels that are; NaN where there are none."""
    if mask is None:
        return values.mean((1, 2), dtype=np.float64), np.full(len(values), values[0].size, np.float64)
    count = mask.sum((1, 2))
    total = np.where(mask, values, 0).sum((1, 2), dtype=np.float64)
    return np.where(count, total / np.maximum(count, 1), np.nan), count.astype(np.float64)


# --- from scenes --------------------------------------------------------------------------------------------------------------------

def stacks(name: str, samples: Sequence[Scene], truths: Sequence[Scene]) -> Iterator[Stack]:
    """A stack a band of one row, of the samples and truths that have it: band by band, so that memory holds one at a time."""
    modality = truths[0].table[name]
    made = [one for one in samples if name in one]
    numbers = tuple(number for number, one in enumerate(truths) if name in one)
    if not made or name not in truths[0]:
        return
    true = [truths[number] for number in numbers]
    holes = [unknown(one, name) for one in (*made, *true)]
    for k, band in enumerate(modality.bands):
        known = None if all(hole is None for hole in holes) else np.stack(
            [np.ones(one[name][k].shape, bool) if hole is None else ~hole[k] for one, hole in zip((*made, *true), holes, strict=True)])
        images, real = (np.stack([scored(modality, one[name][k]) for one in group]) for group in (made, true))
        yield Stack(modality, band, tuple(seed_of(one) for one in made), numbers, images, real, known)


def scored(modality: Modality, layer: NDArray) -> NDArray:
    """A layer in the unit that it is scored in: radar in dB, floored as the row is; all else as it is, levels with room for a sign."""
    if isinstance(modality.scale, EightBit):
        return layer.astype(np.float32)
    return modality.scale.decibels(layer) if isinstance(modality.scale, Decibel) else layer


def seed_of(scene: Scene) -> int:
    return int(scene.notes["seed"])


def by_seed(samples: Sequence[Scene]) -> list[Scene]:
    """In the order of their seeds, so that the order in which they come decides nothing; one without a seed has its place for one."""
    named = [one if "seed" in one.notes else one.with_layers(one.layers, seed=k) for k, one in enumerate(samples)]
    return sorted(named, key=seed_of)
