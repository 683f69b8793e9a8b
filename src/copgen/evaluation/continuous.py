"""How far is each sample of a continuous band from the observation? In physical units and in the published ones.

Published units are reflectance, dB cut off at -50 and 10, and metres, each image by itself, as the released evaluator reads them; there,
SSIM and the error that becomes PSNR are of images scaled by the truth's own smallest and largest value. The other SSIM and PSNR have
a fixed range, `copgen.scores.images.RANGES`, of pictures that of their levels: for these there are no other, published units.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from copgen.evaluation.stacks import Array, Row, Stack, masked_means, row
from copgen.modalities import Modality
from copgen.scaling import Decibel, EightBit, Linear
from copgen.scores.images import LEVELS, LONGEST_WAVES, RANGES, REACH, Range, psnr, published_scaled, spectral_slope, ssim

CUT_OFF = (-50, 10)                              # dB
PUBLISHED = "published "
AT_ONCE = 16                                     # samples, which bounds the memory of what is compared in double precision
Means = tuple[Array, Array]                      # of each sample, and over how many pixels or images
Pair = tuple[NDArray, NDArray]                   # samples and truth
Published = tuple[NDArray, Pair]                 # errors, and what is scaled by the truth's range


def sample_rows(stack: Stack) -> Iterator[Row]:
    """The statistics of every sample against the observation, and the observation's own."""
    for part in stack.parts(AT_ONCE):
        published = of_published(part) if has_published(part.modality) else None
        found = {**errors(part), **published_errors(part, published), **alike(part, published), **alone(part)}
        for statistic, (values, weights) in found.items():
            for seed, value, weight in zip(part.seeds, values, weights, strict=True):
                yield from row(seed, stack.product, stack.band, statistic, value, weight)
    m = len(stack.seeds)
    mean, count = masked_means(stack.truths[:1], None if stack.known is None else stack.known[m : m + 1])
    yield from row(None, stack.product, stack.band, "truth mean", mean[0], count[0])
    yield from row(None, stack.product, stack.band, "truth slope", slopes(stack, stack.truths[:1], [m])[0])


def errors(stack: Stack) -> dict[str, Means]:
    """In the units of scoring."""
    off = stack.samples - stack.truths[0]
    return {"error": stack.means(off), "absolute error": stack.means(np.abs(off)), "squared error": stack.means(np.square(off))}


def has_published(modality: Modality) -> bool:
    """Whether the released evaluator has conventions for it; it knows no pictures."""
    return not isinstance(modality.scale, EightBit)


def published_errors(stack: Stack, published: Published | None) -> dict[str, Means]:
    """In published units, and of images scaled by the truth's range."""
    if published is None:
        return {}
    off, scaled = published
    return {
        PUBLISHED + "absolute error": stack.means(np.abs(off)), PUBLISHED + "squared error": stack.means(np.square(off)),
        PUBLISHED + "scaled squared error": stack.means(np.square(scaled[0] - scaled[1])),
    }


def of_published(stack: Stack) -> Published:
    """In published units the errors [m, H, W], and samples and truth scaled by the truth's range."""
    samples, truth = (in_published(stack.modality, one) for one in (stack.samples, stack.truths[0]))
    if not stack.whole(len(stack.seeds)) and stack.known is not None:
        known = stack.known[len(stack.seeds)]
        truth = np.where(known, truth, truth[known].min(initial=np.inf) if known.any() else 0)       # what fills holes is not in the range
    return samples - truth, published_scaled(samples, truth)


def in_published(modality: Modality, values: NDArray) -> NDArray:
    """Values in the units of scoring -> the published ones. The floor of our dB lies below -50, where the published are cut off."""
    match modality.scale:
        case Linear() as linear:
            return values / np.float32(linear.full_scale)
        case Decibel():
            return np.clip(values, *CUT_OFF)
    return values


def alike(stack: Stack, published: Published | None) -> dict[str, Means]:
    """SSIM and PSNR, one a whole image; none of images with holes."""
    m = len(stack.seeds)
    there = [k for k in range(m) if stack.whole(k) and stack.whole(m)]
    if not there:
        return {}
    span = LEVELS if isinstance(stack.modality.scale, EightBit) else RANGES.get(
        stack.product, Range(float(np.ptp(stack.truths[0])) or 1.0))
    samples, truth = (span.clip(one) for one in (stack.samples[there], stack.truths[0]))
    found = {"psnr": psnr(samples, truth, span.width)}
    if stack.samples.shape[-1] > REACH:
        found["ssim"] = ssim(samples, truth, span.width)
        if published is not None:
            scaled = published[1]
            found[PUBLISHED + "ssim"] = ssim(scaled[0][there], scaled[1])
    return {name: spread_out(values, there, m) for name, values in found.items()}


def alone(stack: Stack) -> dict[str, Means]:
    """What is said of a sample by itself: its mean, and the slope of its spectrum."""
    m = len(stack.seeds)
    return {"mean": masked_means(stack.samples, None if stack.known is None else stack.known[:m]),
            "slope": spread_out(slopes(stack, stack.samples, range(m)), range(m), m)}


def slopes(stack: Stack, images: NDArray, members: range | list[int]) -> Array:
    """The spectral slope of images without holes, NaN for the others; `members` are their numbers in the stack."""
    found = np.full(len(images), np.nan)
    whole = [k for k, member in enumerate(members) if stack.whole(member)]
    if whole and images.shape[-1] >= 4 * LONGEST_WAVES:
        found[whole] = spectral_slope(images[whole], float(stack.modality.resolution or 1))
    return found


def spread_out(values: Array, members: range | list[int], total: int) -> Means:
    """One value an image, at the members that have one, and weights of 1."""
    found = np.full(total, np.nan)
    found[list(members)] = values
    return found, np.ones(total)
