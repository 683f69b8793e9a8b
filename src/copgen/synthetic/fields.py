"""What are the patterns made of? Power-law random fields, parcels and averages, all from seeded generators.

Fields are drawn on a square half as wide again as the one wanted and cropped, so that the periodicity of the Fourier transform is not seen.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]                                 # single precision is enough, and fast
SMOOTH, COARSE = 150.0, 3                                         # fields without waves shorter than this are drawn on a coarser grid
PIXEL = 10.0                                                      # metres: the truth is drawn at 10 m


def stream(seed: int, step: str) -> Generator:
    """The random numbers of one step of one world: another step's draws never shift them."""
    if seed < 0:
        raise ValueError(f"seed {seed}: a world's seed is a whole number from 0 on")
    return Generator(PCG64(SeedSequence([seed, zlib.crc32(step.encode())])))


def padded(side: int) -> int:
    """Pixels of the square on which fields for `side` pixels are drawn."""
    return -(-3 * side // 192) * 96


@lru_cache(maxsize=96)
def amplitude(side: int, pixel: float, slope: float, longest: float, shortest: float) -> Array:
    """Fourier amplitudes of a field of unit variance with power k^-slope between two wavelengths in metres."""
    k = np.fft.fftfreq(side, pixel)
    radius = np.hypot(k[:, None], k[None, :])
    radius[0, 0] = 1.0
    band = np.exp(-((radius * shortest) ** 2) / 2) / (1 + (radius * longest) ** -8)
    result = radius ** (-slope / 2) * band
    result[0, 0] = 0.0
    result *= side * side / np.sqrt((result**2).sum())
    result = result.astype(np.float32)
    result.setflags(write=False)
    return result


def fields(rng: Generator, side: int, count: int, slope: float, longest: float = 1e5, shortest: float = 0.0, crop: bool = True) -> Array:
    """`count` independent Gaussian fields [count, side, side] of zero mean and unit variance; `crop=False` leaves the periodic square."""
    size, pairs = padded(side), -(-count // 2)
    slope = round(5 * slope) / 5                                    # few different ones, so that their amplitudes are kept
    if shortest >= SMOOTH and crop:
        to_fine = between(side, size // COARSE)
        return to_fine @ drawn(rng, size // COARSE, PIXEL * COARSE, pairs, slope, longest, shortest)[:count] @ to_fine.T
    keep = side if crop else size
    return drawn(rng, size, PIXEL, pairs, slope, longest, shortest)[:count, :keep, :keep]


def drawn(rng: Generator, size: int, pixel: float, pairs: int, slope: float, longest: float, shortest: float) -> Array:
    """Periodic fields [2 pairs, size, size]: the real and imaginary parts of a complex one are independent."""
    white = rng.standard_normal((pairs, size, size, 2), dtype=np.float32).view(np.complex64)[..., 0]
    white *= amplitude(size, pixel, slope, longest, shortest)
    both = np.fft.ifft2(white)
    return np.stack([both.real, both.imag], axis=1).reshape(2 * pairs, size, size).astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def between(side: int, coarse: int) -> Array:
    """The matrix [side, coarse] of linear interpolation from coarse pixels, the second of which begins at the first fine one."""
    at = (np.arange(side) - (COARSE - 1) / 2) / COARSE + 1
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(coarse)), 0).astype(np.float32)
    weights.setflags(write=False)
    return weights


def grid(side: int) -> tuple[Array, Array]:
    """Metres east and south of the upper left corner, at the pixels' centres."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) * PIXEL
    return np.broadcast_to(axis, (side, side)), np.broadcast_to(axis[:, None], (side, side))


def rotated(side: int, angle: float) -> tuple[Array, Array]:
    """The grid turned by `angle` about the middle of the square, in metres from the middle."""
    x, y = grid(side)
    x, y = x - side * PIXEL / 2, y - side * PIXEL / 2
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def strips(rng: Generator, u: Array, v: Array, length: float, width: float) -> tuple[NDArray[np.int64], Array]:
    """Rectangular fields: strips of uneven width across v, cut unevenly along u. Returns ids and metres to the nearest edge."""
    reach = float(max(np.abs(u).max(), np.abs(v).max())) + 2 * max(length, width)
    rows = np.cumsum(rng.lognormal(-0.06, 0.35, int(4 * reach / width) + 4)) * width - 1.2 * reach
    cuts = np.cumsum(rng.lognormal(-0.12, 0.5, int(8 * reach / length) + 8)) * length - 2.4 * reach
    row = np.clip(np.searchsorted(rows, v), 1, len(rows) - 1)
    along = u + rng.uniform(-1, 1, len(rows))[row] * min(length * 3, reach)
    column = np.clip(np.searchsorted(cuts, along), 1, len(cuts) - 1)
    edge = np.minimum(np.minimum(v - rows[row - 1], rows[row] - v), np.minimum(along - cuts[column - 1], cuts[column] - along))
    row, column = row - row.min(), column - column.min()
    return row * (column.max() + 1) + column, np.maximum(edge, 0.0)


def cells(rng: Generator, u: Array, v: Array, length: float, width: float) -> tuple[NDArray[np.int64], Array]:
    """Irregular polygons: Voronoi cells of a jittered grid. Returns ids and roughly the metres to the nearest edge."""
    u, v = u / length, v / width
    across = int(np.abs(u).max()) + 3
    down = int(np.abs(v).max()) + 3
    jitter = rng.uniform(0.05, 0.95, (2, 2 * down + 1, 2 * across + 1))
    i, j = np.floor(v).astype(int), np.floor(u).astype(int)
    nearest, second = np.full(u.shape, np.inf), np.full(u.shape, np.inf)
    owner = np.zeros(u.shape, np.int64)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            row, column = i + di + down, j + dj + across
            distance = (i + di + jitter[0, row, column] - v) ** 2 + (j + dj + jitter[1, row, column] - u) ** 2
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            owner = np.where(closer, row * (2 * across + 1) + column, owner)
            nearest = np.where(closer, distance, nearest)
    return owner, (np.sqrt(second) - np.sqrt(nearest)) * min(length, width) / 2


def compact(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same partition with ids 0, 1, 2, ..."""
    present = np.zeros(int(ids.max()) + 1, np.int64)
    present[ids] = 1
    return (np.cumsum(present) - 1)[ids]


def average_over(ids: NDArray[np.int64], values: Array) -> Array:
    """Every pixel's parcel mean."""
    counts = np.bincount(ids.ravel())
    return (np.bincount(ids.ravel(), values.ravel()) / np.maximum(counts, 1))[ids]


def smooth(values: Array, weight: float) -> Array:
    """One pass of the kernel (weight, 1 - 2 weight, weight) along both axes, edges repeated."""
    for axis in (-2, -1):
        pad = [(0, 0)] * values.ndim
        pad[axis] = (1, 1)
        wide = np.moveaxis(np.pad(values, pad, mode="edge"), axis, 0)
        values = np.moveaxis(weight * (wide[:-2] + wide[2:]) + (1 - 2 * weight) * wide[1:-1], 0, axis)
    return values


def ramp(values: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def logistic(values: Array | float) -> Array:
    return 1.0 / (1.0 + np.exp(-np.asarray(values, np.float64)))
