"""What is in a raster file? Its grid, bands, names and tags, and a window of its values with what is missing marked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from copgen.reading.pictures import first_bytes, is_picture, read_picture

DRIVERS = {                                      # by first bytes; no virtual formats: an input can't point to other files or the network
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\0\0\0\x0c": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
MISSING = (-32768.0, -32767.0, -9999.0)          # the usual numbers for no data, often left untagged
LARGEST = 1e30                                   # beyond it lie only the float formats' own markers of no data
MOST_PIXELS = 2688 * 2688                        # of one window: a square of 2560 m at 1 m, and a little around it


class Damaged(ValueError):
    """A raster file can't be read to its end."""


@dataclass(frozen=True)
class Grid:
    """Where pixels lie: a CRS and the geotransform from (column, row) to it."""

    crs: CRS
    transform: Affine

    @property
    def is_axis_aligned(self) -> bool:
        return self.transform.b == 0 and self.transform.d == 0

    def from_pixel(self, col: float, row: float) -> Grid:
        """The same grid, counted from another pixel."""
        t = self.transform
        return Grid(self.crs, Affine(t.a, t.b, t.a * col + t.b * row + t.c, t.d, t.e, t.d * col + t.e * row + t.f))


@dataclass(frozen=True)
class Raster:
    """A raster file's description; no pixels are held."""

    path: Path
    grid: Grid
    width: int
    height: int
    count: int
    descriptions: tuple[str | None, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)      # of the file and of its bands, in any namespace
    nodata: tuple[float | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    dtypes: tuple[str, ...] = ()

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Width and height of a pixel in the units of the file's CRS."""
        t = self.grid.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)


def describe(path: Path) -> Raster:
    """The file's description; ValueError if it is missing, no raster, damaged or without a place on Earth."""
    with opened(path) as dataset:
        if not dataset.count:
            raise ValueError(f"{path}: holds no bands; give a GeoTIFF with pixels")
        if dataset.crs is None or not dataset.crs.wkt:
            raise ValueError(
                f"{path}: has no coordinate reference system (CRS); assign the right one, such as with gdal_edit.py -a_srs EPSG:32630"
            )
        transform = dataset.transform
        if transform == Affine.identity() or not math.isfinite(transform.determinant) or transform.determinant == 0:
            raise ValueError(f"{path}: has no geotransform, so its pixels have no place on the ground; georeference it first")
        if not (dataset.crs.is_projected or dataset.crs.is_geographic):
            raise ValueError(f"{path}: its coordinate reference system is a local one, without a place on Earth; georeference it first")
        if any("complex" in dtype for dtype in dataset.dtypes):
            raise ValueError(f"{path}: holds complex numbers; give terrain-corrected power (RTC), not single-look complex data")
        grid = Grid(dataset.crs, straightened(transform, dataset.width, dataset.height))
        return Raster(path, grid, dataset.width, dataset.height, dataset.count, descriptions_of(dataset), all_tags(dataset),
                      tuple(dataset.nodatavals), tuple(dataset.scales), tuple(dataset.offsets), tuple(dataset.dtypes))


def straightened(t: Affine, width: int, height: int) -> Affine:
    """The geotransform without a rotation that is only rounding: less than a ten-thousandth of a pixel over the whole raster."""
    slight = abs(t.b) * height < 1e-4 * abs(t.a) and abs(t.d) * width < 1e-4 * abs(t.e)
    return Affine(t.a, 0, t.c, 0, t.e, t.f) if slight else t


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open dataset; whatever goes wrong in it, also later at reading, becomes Damaged, a ValueError naming the file."""
    driver = DRIVERS.get(first_bytes(path))
    if driver is None:
        raise ValueError(f"{path}: is not a raster that is read here (GeoTIFF or JPEG 2000); convert it, such as with gdal_translate")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path, driver=driver)
    except (RasterioError, OSError) as error:
        raise Damaged(damaged(path)) from error
    with dataset:
        try:
            yield dataset
        except (RasterioError, MemoryError) as error:
            raise Damaged(damaged(path)) from error


def damaged(path: Path) -> str:
    return f"{path}: is truncated or damaged, its pixels could not be read; copy or download it again"


def descriptions_of(dataset: Any) -> tuple[str | None, ...]:
    try:
        return tuple(dataset.descriptions)
    except UnicodeDecodeError:                   # not in UTF-8: no names rather than no file
        return (None,) * int(dataset.count)


def all_tags(dataset: Any) -> dict[str, str]:
    """The tags of the file and of every band, in every namespace but GDAL's own; the file's own win."""
    found: dict[str, str] = {}
    for band in range(dataset.count, -1, -1):    # 0 is the file itself
        for space in [*dataset.tag_namespaces(band), None]:
            if space not in ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS"):
                with suppress(UnicodeDecodeError):
                    found |= dataset.tags(band, ns=space) if space else dataset.tags(band)
    return found


def read_window(raster: Raster, indexes: Sequence[int], window: Window, *, classes: Sequence[int] | None = None,
                scaled: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values [n, h, w] of some bands (counted from 1) and where all of them are valid [h, w].

    Missing is what the file says (no-data tag, mask, alpha), what isn't finite, and the usual numbers for no data. For a class layer,
    `classes` are its codes: a no-data tag that is one of them is a class. `scaled` applies the file's own scale and offset.
    """
    if window.width * window.height > MOST_PIXELS:
        x, y = raster.pixel_size
        raise ValueError(f"{raster.path}: its pixels ({x:g} x {y:g} in the CRS's unit) are too small for one square; "
                         f"average it to 1 m a pixel or coarser first")
    stored, masks = read_stored(raster.path, list(indexes), window)
    values = stored.astype(np.float64)
    for k, index in enumerate(indexes):
        if classes is not None and raster.nodata[index - 1] in classes:
            masks[k] = True
    valid = masks & np.isfinite(values) & (np.abs(values) < LARGEST) & ~np.isin(values, MISSING)
    if scaled:
        scale, offset = (np.array([part[i - 1] for i in indexes])[:, None, None] for part in (raster.scales, raster.offsets))
        values = values * scale + offset
    return values, np.asarray(valid.all(axis=0))


def read_stored(path: Path, indexes: list[int], window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The numbers in a file [n, h, w] and which of them it calls valid; of a picture, which has its place from elsewhere, all are."""
    if is_picture(path):
        try:
            colours = read_picture(path)[np.array(indexes) - 1][:, *window.toslices()]
        except ValueError as error:
            raise Damaged(str(error)) from error
        return colours, np.ones(colours.shape, bool)
    with opened(path) as dataset:
        return dataset.read(indexes, window=window), dataset.read_masks(indexes, window=window) > 0
