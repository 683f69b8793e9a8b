"""How does a thumbnail come out of a measured layer? A whole image is drawn by the row's recipe, then the square is cut out of it.

The recipes stretch what they find in an image, so the image matters: it is what Major TOM would have cut, the file itself where that is no
larger, else the 10,680 m around the square as far as the file goes. It is drawn on its own pixels where these are the recipe's, 30 m of
heights and 10 m of all else, and on such pixels made for it otherwise: smoothing before a stretch is seen after it. What is missing in it
is not stretched with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from copgen.modalities import TILE, Modality
from copgen.reading import squares
from copgen.reading.bandfiles import Found
from copgen.reading.rasters import MOST_PIXELS, Grid, Raster
from copgen.reading.resampling import SNAP, between, fill_nearest, node_positions, resample, snapped, upright
from copgen.reading.units import Quantity
from copgen.scene import Footprint

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Reader = Callable[..., tuple[FloatArray, Mask]]  # as read_window
Kept = dict[Any, "Image"]

BLOCKS = 4                                       # along each side of an image whose pixels are made, at least
ROOM = 120                                       # metres that an image may be larger than Major TOM's, whose edges were rounded
HALF = 0.5                                       # the share of valid pixels in a pixel made of them that makes it valid
MUCH_SMALLER = 0.5                               # from this share of a tile's area down, another stretch is worth a warning


@dataclass(frozen=True)
class Image:
    """A drawn image: colours [3, h, w], where it has data [h, w], and its grid, which is upright."""

    colours: NDArray[np.uint8]
    valid: Mask
    grid: Grid

    @property
    def square_metres(self) -> float:
        """Of ground with data."""
        return float(self.valid.sum() * abs(self.grid.transform.determinant))


@dataclass(frozen=True)
class Drawer:
    """What it takes to draw one thumbnail of an input: the row, its files, their unit, who reads them, and the images drawn before.

    `warned` is added to.
    """

    row: Modality
    found: Found
    quantity: Quantity
    options: Mapping[str, str]
    read: Reader
    kept: Kept
    warned: list[str]

    @property
    def resolution(self) -> int:
        """Metres a pixel of the image that is drawn."""
        resolution = self.found.held(self.row).resolution
        assert resolution is not None
        return resolution

    def thumbnail(self, square: Footprint) -> NDArray[np.uint8]:
        """The square's part of its image, on the row's pixels; a warning where the colours depend on how little the image shows."""
        assert self.row.resolution is not None and self.row.drawing is not None
        image = self.image(square)
        if self.row.drawing.stretches and image.square_metres < MUCH_SMALLER * TILE**2:
            self.warned.append(
                f"{self.found.first.path}: {self.row.name} is stretched over the {image.square_metres / 1e6:.3g} km2 that the file has "
                f"around the square, and Major TOM's over {TILE**2 / 1e6:.3g} km2, so its brightness differs from what the model knows; "
                f"give a layer of {TILE} x {TILE} m around the square")
        return cut(image, square, self.row.resolution)

    def image(self, square: Footprint) -> Image:
        """The drawn image around a square, the same one for all squares of a file that is no larger."""
        rasters = [raster for raster, _ in self.found.files(self.row)]
        own = all(is_native(raster, self.resolution) and alike(raster, rasters[0]) for raster in rasters)
        if not own:
            return self.drawn(*self.made_pixels(square))
        window = image_window(rasters[0], square, self.resolution)
        key = (self.row.name, rasters[0].path, window.col_off, window.row_off)
        if key not in self.kept:
            self.kept[key] = self.drawn(*self.own_pixels(window))
        return self.kept[key]

    def drawn(self, layer: FloatArray, valid: Mask, grid: Grid) -> Image:
        assert self.row.drawing is not None
        whole = layer if valid.all() else with_neighbours(layer, valid)
        return Image(self.row.drawing.draw(whole.astype(np.float32), None if valid.all() else valid), valid, grid)

    def own_pixels(self, window: Window) -> tuple[FloatArray, Mask, Grid]:
        """The image as its files hold it: layer [bands, h, w], valid [h, w], grid."""
        planes: dict[str, FloatArray] = {}
        everywhere = np.ones((window.height, window.width), bool)
        for raster, bands in self.found.files(self.row):
            values, valid = self.values(raster, bands, window)
            planes |= dict(zip(bands, values, strict=True))
            everywhere &= valid
        grid = raster.grid.from_pixel(window.col_off, window.row_off)
        stack, grid = upright(np.stack([*self.ordered(planes), everywhere.astype(np.float64)]), grid)
        return stack[:-1], stack[-1] > 0, grid

    def made_pixels(self, square: Footprint) -> tuple[FloatArray, Mask, Grid]:
        """The image on pixels that share the square's corner: made in blocks, so that files of small pixels fit into memory."""
        side = TILE // self.resolution
        before = math.floor((TILE - square.side) / 2 / self.resolution) * self.resolution
        image = Footprint(square.crs, square.left - before, square.top + before, float(side * self.resolution))
        block = self.block(image, side)
        layer, valid = np.zeros((len(self.found.held(self.row).bands), side, side)), np.zeros((side, side), bool)
        first = sorted({min(k * block, side - block) for k in range(math.ceil(side / block))})
        for down in first:
            for across in first:
                part = Footprint(image.crs, image.left + across * self.resolution, image.top - down * self.resolution,
                                 float(block * self.resolution))
                here = slice(down, down + block), slice(across, across + block)
                layer[:, *here], valid[here] = self.part(part, block)
        rows, cols = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
        there = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)                 # as far as the file goes
        return layer[:, *there], valid[there], Grid(image.crs, image.transform(self.resolution)).from_pixel(cols[0], rows[0])

    def block(self, image: Footprint, side: int) -> int:
        """Pixels along a side of the blocks: none reads more than may be read at once, and those beyond the file need no time."""
        windows = [squares.window_over(raster, image) for raster, _ in self.found.files(self.row)]
        most = max(window.width * window.height for window in windows)
        return math.ceil(side / max(math.ceil(math.sqrt(1.1 * most / MOST_PIXELS)), BLOCKS))

    def part(self, square: Footprint, side: int) -> tuple[FloatArray, Mask]:
        """One block [bands, side, side] and where it has data."""
        target = Grid(square.crs, square.transform(self.resolution))
        planes = {band: np.zeros((side, side)) for band in self.found.held(self.row).bands}
        everywhere = np.ones((side, side), bool)
        for raster, bands in self.found.files(self.row):
            if not squares.overlaps(raster, square):
                return np.stack(self.ordered(planes)), np.zeros((side, side), bool)
            window = squares.window_over(raster, square)
            values, valid = self.values(raster, bands, window)
            grid = raster.grid.from_pixel(window.col_off, window.row_off)
            with np.errstate(invalid="ignore"):  # beyond the file a mean is one of nothing
                made = resample(np.where(valid, values, 0), grid, target, side)
                share = resample(valid[None].astype(np.float64), grid, target, side)[0]
            planes |= dict(zip(bands, made / np.where(share > 1 - 1e-9, 1, np.maximum(share, HALF)), strict=True))
            everywhere &= (share >= HALF) & shown(valid.shape, grid, target, side)
        return np.stack(self.ordered(planes)), everywhere

    def values(self, raster: Raster, bands: tuple[str, ...], window: Window) -> tuple[FloatArray, Mask]:
        """Bands of one file in the table's unit [n, h, w], and where none of them is missing."""
        values, valid = self.read(raster, [self.found.bands[band].index for band in bands], window, scaled=self.quantity.scaled)
        valid = valid & ~self.quantity.is_missing(values).any(axis=0)
        return self.quantity.convert(np.where(valid, values, np.nan), self.options), valid

    def ordered(self, planes: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [planes[band] for band in self.found.held(self.row).bands]


def is_native(raster: Raster, resolution: int) -> bool:
    """Whether a raster's own pixels are those that the recipe is made for, in metres on the ground."""
    size = (snapped(length / resolution, SNAP / max(raster.width, raster.height)) for length in raster.pixel_size)
    return raster.grid.is_axis_aligned and set(size) == {1.0} and squares.same_crs(raster.grid.crs, squares.scene_crs(raster))


def alike(one: Raster, other: Raster) -> bool:
    return (one.grid, one.width, one.height) == (other.grid, other.width, other.height)


def image_window(raster: Raster, square: Footprint, resolution: int) -> Window:
    """The pixels of a raster that are drawn for a square: along each side all of them, or as many as a tile has around it."""
    left, up, right, down = squares.square_in_pixels(raster, square)
    (col, width), (row, height) = (stretch(length, (first + last) / 2, resolution) for length, first, last in
                                   ((raster.width, left, right), (raster.height, up, down)))
    return Window(col, row, width, height)


def stretch(length: int, centre: float, resolution: int) -> tuple[int, int]:
    """Where the pixels begin that are drawn around a centre, and how many they are."""
    if length * resolution <= TILE + ROOM:
        return 0, length
    size = TILE // resolution
    return min(max(round(centre - size / 2), 0), length - size), size


def shown(shape: tuple[int, ...], grid: Grid, target: Grid, side: int) -> Mask:
    """Which target pixels have their middle within a grid of this shape."""
    steps = np.arange(side) + 0.5
    cols, rows = between(node_positions(grid, shape[1], target, side), side, side, steps, steps)
    return (cols > 0) & (cols < shape[1]) & (rows > 0) & (rows < shape[0])


def with_neighbours(layer: FloatArray, valid: Mask) -> FloatArray:
    """A layer with the value of a valid pixel in each that is missing beside one, for slopes, and 0 in the others."""
    filled, missing = np.where(valid, layer, 0), ~valid
    up, down, left, right = np.s_[:-1, :], np.s_[1:, :], np.s_[:, :-1], np.s_[:, 1:]
    for here, there in ((down, up), (up, down), (right, left), (left, right)):
        take = missing[here] & valid[there]
        filled[:, *here][:, take] = layer[:, *there][:, take]
        missing[here] &= ~take
    return filled


def cut(image: Image, square: Footprint, resolution: int) -> NDArray[np.uint8]:
    """The square's part of an image; heights' shades bilinear between their larger pixels, missing pixels as the nearest."""
    height, width = image.valid.shape
    window = squares.window_over(Raster(Path(), image.grid, width, height, len(image.colours)), square)
    here = window.toslices()
    colours = fill_nearest(image.colours[:, *here].astype(np.float64), image.valid[here])
    target = Grid(square.crs, square.transform(resolution))
    return levels(resample(colours, image.grid.from_pixel(window.col_off, window.row_off), target, round(square.side / resolution)))


def levels(values: FloatArray) -> NDArray[np.uint8]:
    """Brightness in whole numbers, half and more upwards."""
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)
