"""How do a generator's rasters become rows of the table? Their pixels read with limits, and brought to a row's own size and unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from copgen.modalities import Modality
from copgen.reading.rasters import DRIVERS, MOST_PIXELS, Damaged, opened
from copgen.scaling import Decibel

MOST_BYTES = 64 * 2**20                          # of one file
MOST_BANDS = 64
Array = NDArray[Any]


@contextmanager
def raster_at(path: Path) -> Iterator[Any]:
    """An open GeoTIFF of moderate size; ValueError, naming the file, for anything else, also where it fails later at reading."""
    with opened(path) as dataset:
        check_size(dataset, str(path), path.stat().st_size)
        yield dataset


@contextmanager
def raster_in(data: bytes, what: str) -> Iterator[Any]:
    """The same of a file in memory."""
    if DRIVERS.get(data[:4]) != "GTiff":
        raise ValueError(f"{what}: is no GeoTIFF")
    if len(data) > MOST_BYTES:
        raise ValueError(f"{what}: {len(data) / 2**20:.0f} MiB; {MOST_BYTES >> 20} MiB are the most for an image of one square")
    try:
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            check_size(dataset, what, len(data))
            yield dataset
    except (RasterioError, MemoryError) as error:
        raise Damaged(f"{what}: is truncated or damaged, its pixels could not be read") from error


def check_size(dataset: Any, what: str, size: int) -> None:
    if size > MOST_BYTES or dataset.width * dataset.height > MOST_PIXELS or not 1 <= dataset.count <= MOST_BANDS:
        raise ValueError(f"{what}: {dataset.count} bands of {dataset.width} x {dataset.height} pixels in {size / 2**20:.3g} MiB are more "
                         "than an image of one square can be; cut it to the square first")
    if any("complex" in dtype for dtype in dataset.dtypes):
        raise ValueError(f"{what}: holds complex numbers; give real ones")


def band_indexes(dataset: Any, bands: Sequence[str], what: str) -> list[int]:
    """Where the bands are in a file, counted from 1: by their descriptions if it has them all, else in this order."""
    named = {str(text).lower(): number for number, text in enumerate(dataset.descriptions, 1) if text}
    if all(band.lower() in named for band in bands):
        return [named[band.lower()] for band in bands]
    if dataset.count != len(bands):
        raise ValueError(f"{what}: has {dataset.count} bands, not the {len(bands)} of {', '.join(bands)}, and no descriptions with "
                         "these names; write the bands in this order, or describe them")
    return list(range(1, len(bands) + 1))


def sound(values: Array, row: Modality, nodata: float | None, what: str) -> Array:
    """The values [n, h, w] themselves; ValueError where some are missing.

    Whatever a generator writes is a value, also a digital number of 0: only what is not finite is missing, and in continuous layers what
    equals a no-data tag other than 0.
    """
    missing = ~np.isfinite(values)
    if nodata not in (None, 0) and row.legend is None:
        missing |= values == nodata
    if missing.any():
        raise ValueError(f"{what}: {missing.mean():.2%} of its pixels have no data; a sample is whole: draw it again, or leave it out")
    return values


def at_side(values: Array, side: int, row: Modality, what: str) -> Array:
    """Layers [n, h, w] as [n, side, side]: means of blocks where the pixels are finer, of classes the most frequent one.

    Raises ValueError for pixels that are coarser, or of which no whole number makes one.
    """
    n, height, width = values.shape
    if height != width or height % side:
        raise ValueError(f"{what}: {width} x {height} pixels; {row.name} needs {side} x {side}, or a multiple whose blocks are averaged")
    if height == side:
        return values
    step = height // side
    blocks = values.reshape(n, side, step, side, step).swapaxes(2, 3).reshape(n, side, side, step * step)
    if row.legend is None:
        return np.asarray(blocks.mean(-1, dtype=np.float64), np.float32)
    if not np.isin(values, row.legend.codes).all():
        raise ValueError(f"{what}: holds codes that the legend of {row.name} has not; it has {', '.join(map(str, row.legend.codes))}")
    counts = np.stack([(blocks == code).sum(-1) for code in row.legend.codes])
    return np.asarray(row.legend.codes, np.uint8)[counts.argmax(0)]


def in_power(values: Array, row: Modality, decibels: bool) -> Array:
    """Radar in linear power; other rows as they are."""
    return 10 ** (values.astype(np.float64) / 10) if decibels and isinstance(row.scale, Decibel) else values
