"""How alike are two images? SSIM and PSNR with a fixed range and with the published one, and texture by its power spectrum.

Images are the last two axes of an array; what stands before them is kept, so that [m, bands, H, W] beside [bands, H, W] gives [m, bands].
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]                # single precision stays so: it is twice as fast
SIGMA, REACH = 1.5, 5                            # of SSIM's Gaussian window, 11 pixels wide
K1, K2 = 0.01, 0.03
LEAST_WIDTH = 1e-6                               # of a truth's own range where published errors are scaled by it
MOST_DECIBELS = 100.0                            # PSNR of images that are equal to a hundred-thousandth of their range
FLAT = 1e-24                                     # power beside that of the values themselves: their rounding
LONGEST_WAVES = 3                                # a square holds at least so many waves of a length that its slope is fitted on


class Range(NamedTuple):
    """The fixed width of a quantity's values, and where they are cut off before they are compared."""

    width: float
    low: float = -np.inf
    high: float = np.inf

    def clip(self, values: ArrayLike) -> Floats:
        return np.clip(floats(values), self.low, self.high)


RANGES = {                                       # by product, in DN, dB and metres: the same for every image, unlike the published ones
    "S2L1C": Range(10_000), "S2L2A": Range(10_000), "S1RTC": Range(50, -40, 10), "DEM": Range(1000),
}

LEVELS = Range(255)                              # of pictures, whatever they are of


# --- two images ---------------------------------------------------------------------------------------------------------------------

def published_scaled(made: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    """Both images with the truth's own smallest value at 0 and largest at 1, cut off there: what published SSIM and PSNR are of.

    The truth's range is at least 1e-6. As it is each image's own, an error counts the more the flatter the truth is.
    """
    x, y = floats(made), floats(truth)
    low, high = y.min((-2, -1), keepdims=True), y.max((-2, -1), keepdims=True)
    width = np.maximum(high - low, LEAST_WIDTH)
    return np.clip((x - low) / width, 0, 1), np.clip((y - low) / width, 0, 1)


def ssim(made: ArrayLike, truth: ArrayLike, width: float = 1.0) -> Array:
    """Structural similarity, the mean of its map over every pixel (Wang et al. 2004, doi 10.1109/TIP.2003.819861); 1 for equal images.

    width: of the values' range. As torchmetrics 1.6.3 has it: Gaussian window of 11 x 11 and sigma 1.5, images mirrored at their edges
    without repeating the edge, variances of the weighted mean's kind. ValueError for images of fewer than 6 pixels a side.
    """
    x, y = floats(made), floats(truth)
    if min(x.shape[-2:] + y.shape[-2:]) <= REACH:
        raise ValueError(f"images of {x.shape[-2]} x {x.shape[-1]} pixels: SSIM mirrors {REACH} at each edge and needs more than that")
    c1, c2 = (K1 * width) ** 2, (K2 * width) ** 2
    level = y.mean((-2, -1), keepdims=True)      # squares of what is left keep their digits in single precision
    x, y = x - level, y - level
    off_x, off_y = windowed(x), windowed(y)
    variances = np.maximum(windowed(x * x) - off_x**2, 0) + np.maximum(windowed(y * y) - off_y**2, 0)
    covariance = windowed(x * y) - off_x * off_y
    mean_x, mean_y = off_x + level, off_y + level
    likeness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * (2 * covariance + c2) / (variances + c2)
    return likeness.mean((-2, -1), dtype=np.float64)


def windowed(images: Floats) -> Floats:
    """The Gaussian-weighted mean around every pixel."""
    height, width = images.shape[-2:]
    down, across = (window(side).astype(images.dtype) for side in (height, width))
    return down @ (images.reshape(-1, width) @ across.T).reshape(images.shape)


@lru_cache(maxsize=8)
def window(side: int) -> Array:
    """The matrix [side, side] that takes the weighted mean along a line which is mirrored at its ends."""
    weights = np.exp(-((np.arange(-REACH, REACH + 1) / SIGMA) ** 2) / 2)
    matrix = np.zeros((side, side))
    for step, weight in zip(range(-REACH, REACH + 1), weights / weights.sum(), strict=True):
        at = np.abs(np.arange(side) + step)
        np.add.at(matrix, (np.arange(side), np.where(at < side, at, 2 * (side - 1) - at)), weight)
    matrix.setflags(write=False)
    return matrix


def psnr(made: ArrayLike, truth: ArrayLike, width: float = 1.0) -> Array:
    """Peak signal-to-noise ratio of each image in dB, `width` being the peak; at most 100, so that an exact copy has a mean, too."""
    return decibels_of(((floats(made) - floats(truth)) ** 2).mean((-2, -1), dtype=np.float64), width)


def decibels_of(squared_error: ArrayLike, width: float = 1.0) -> Array:
    """The PSNR of a mean squared error: of one image, or as published of all pixels of all images pooled, scaled to a range of 1."""
    relative = np.asarray(squared_error, np.float64) / width**2
    return -10 * np.log10(np.maximum(relative, 10 ** (-MOST_DECIBELS / 10)))


# --- texture ------------------------------------------------------------------------------------------------------------------------

def radial_spectrum(fields: ArrayLike, resolution: float) -> tuple[Array, Array]:
    """How much waves of each length contribute: frequencies [k] in cycles per metre and power [..., k] in the field's unit squared x m2.

    The two-dimensional periodogram of square fields [..., N, N] with `resolution` metres a pixel, averaged over rings one cycle per side
    wide, from one cycle a side to the Nyquist frequency. The mean is taken off and a Hann window in both directions keeps what the
    edges cut from leaking (Harris 1978, doi 10.1109/PROC.1978.10837); its loss of power is made good, so that white noise of variance
    s2 has the power s2 resolution^2 at every frequency.
    """
    x = np.asarray(fields, np.float64)
    side = x.shape[-1]
    if x.shape[-2] != side or side < 4 * LONGEST_WAVES:
        raise ValueError(f"fields of {x.shape[-2]} x {side} pixels: squares of at least {4 * LONGEST_WAVES} a side are needed")
    hann = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    window = np.outer(hann, hann)
    level = (x * window).sum((-2, -1), keepdims=True) / window.sum()
    power = np.abs(np.fft.rfft2((x - level) * window)) ** 2 * (resolution**2 / (window**2).sum())
    waves = np.hypot(np.fft.fftfreq(side, 1 / side)[:, None], np.fft.rfftfreq(side, 1 / side)[None])
    ring = np.rint(waves).astype(int).ravel()
    twice = np.broadcast_to(np.where((np.arange(side // 2 + 1) % (side / 2)) == 0, 1.0, 2.0), waves.shape).ravel()   # the other half plane
    count = np.bincount(ring, twice)
    flat = power.reshape(-1, ring.size)
    sums = np.stack([np.bincount(ring, one * twice) for one in flat]).reshape(*x.shape[:-2], -1)
    kept = slice(1, side // 2 + 1)
    return np.arange(1, side // 2 + 1) / (side * resolution), sums[..., kept] / count[kept]


def spectral_slope(fields: ArrayLike, resolution: float) -> Array:
    """The exponent by which power changes with frequency, [...]: 0 for white noise, about -3 for land seen from above; NaN for flat fields.

    The line through log power against log frequency, waves from a third of the square's side to two pixels long, each octave weighing about
    the same. Averaging and blurring make it steeper, noise and speckle make it flatter. Right to about 0.1 on average from 64 pixels on.
    """
    frequency, power = radial_spectrum(fields, resolution)
    x, kept = np.log(frequency[LONGEST_WAVES - 1 :]), power[..., LONGEST_WAVES - 1 :]
    weight = 1 / frequency[LONGEST_WAVES - 1 :]
    rounding = FLAT * (np.abs(fields).max((-2, -1)) * resolution)[..., None] ** 2
    weight, there = weight / weight.sum(), kept > rounding
    y = np.log(np.where(there, kept, 1.0))
    off = x - weight @ x
    return np.where(there.all(-1), y @ (weight * off) / (weight @ off**2), np.nan)


def floats(values: ArrayLike) -> Floats:
    """As single precision if it is that already, else as double."""
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)


def averaged(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means of factor x factor blocks of the last two axes."""
    *front, height, width = values.shape
    return values.reshape(*front, height // factor, factor, width // factor, factor).mean((-3, -1))
