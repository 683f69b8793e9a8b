"""Which patches does a cell have? A cell of Major TOM on disk becomes its squares, as layers in physical units; each file is read once.

Every layer is what `read_cell(..., patch=(i, j))` gives. What that refuses is not refused here but told: a patch comes with its faults.
A product that is not on disk is no fault; its rows are absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from copgen.majortom.cells import Offset, Product, found_products, ground_of, inputs_of, middle_offset, offsets_of, plan_in
from copgen.majortom.grid import checked_cell, patch_offsets
from copgen.modalities import TABLE, Modality, Table
from copgen.reading.acquired import days_said, scene_day
from copgen.reading.bandfiles import Found
from copgen.reading.drawn import Kept
from copgen.reading.rasters import MOST_PIXELS, Damaged, Raster, read_window
from copgen.reading.scenes import MOST_FILLED, Input, NoData, date_layer, read_layers
from copgen.reading.squares import NotCovered
from copgen.scaling import EightBit
from copgen.scene import Footprint, Scene, checked

REASONS = {
    "not there": "a cell of which the archive holds nothing",
    "unreadable": "a file that is damaged, or isn't what its place in the archive says",
    "not covered": "an image that does not show the whole patch",
    "no data": "more pixels without data than may be filled",
    "unlabelled": "too much land cover of the class 'no data'",
    "implausible": "values that can't be in their unit or legend, or a day that is none",
    "no moments": "latents that are no numbers, or too large for 16 bits",
}
WAY_OUT = re.compile(r"[;:] (?:choose|give) [^;:]*--window.*")       # which is for who gave one square
Layers = Mapping[str, NDArray[Any]]
Which = Literal["all", "middle"]                 # of a cell's squares
Place = tuple[int, int] | None                   # row and column of a patch; None: the square in the cell's middle


class NotThere(ValueError):
    """An archive holds nothing of a cell."""


@dataclass(frozen=True)
class Limits:
    """From where on a patch is bad, as shares of a layer's pixels.

    By default as published: only images whose metadata say that no data is missing, and no patch with 5 % of its land cover unlabelled.
    """

    no_data: float = 0.0                         # up to here missing pixels are filled from the nearest
    unlabelled: float = 0.05                     # from here on land cover is bad

    def __post_init__(self) -> None:
        if not 0 <= self.no_data <= MOST_FILLED:
            raise ValueError(f"limit of no data {self.no_data:g}: a share from 0 to {MOST_FILLED:g} is needed; more is not made up")
        if not 0 < self.unlabelled <= 1:
            raise ValueError(f"limit of unlabelled land cover {self.unlabelled:g}: a share above 0, at most 1, is needed")


@dataclass(frozen=True)
class Fault:
    """Why a product is bad over a patch: one of REASONS, and the sentence that says it of the file."""

    product: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Part:
    """What one product, or several, give of one square. `no_data` is the largest share of a layer that was filled or is unlabelled."""

    layers: Layers = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    no_data: float = 0.0
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Part) -> Part:
        return Part({**self.layers, **other.layers}, self.faults + other.faults, max(self.no_data, other.no_data),
                    self.warnings + other.warnings)


@dataclass(frozen=True)
class Patch:
    """One square of a cell: its number (row x 6 + column of 6 x 6, from the north-west), the layers that are good, and the faults."""

    cell: str
    number: int
    scene: Scene
    faults: tuple[Fault, ...]
    no_data: float
    warnings: tuple[str, ...]


class WholeFiles:
    """A reader of windows, as `read_window`, that reads each file once and keeps it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, tuple[int, ...]], tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}

    def __call__(self, raster: Raster, indexes: Sequence[int], window: Window, *, classes: Sequence[int] | None = None,
                 scaled: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        if raster.width * raster.height > MOST_PIXELS:
            return read_window(raster, indexes, window, classes=classes, scaled=scaled)
        key = (raster.path, tuple(indexes))
        if key not in self._kept:
            self._kept[key] = read_window(raster, indexes, Window(0, 0, raster.width, raster.height), classes=classes, scaled=scaled)
        values, valid = self._kept[key]
        part = window.toslices()
        return values[:, *part], valid[part]


def patches_a_side(table: Table = TABLE) -> int:
    """Patches along a side of a whole tile: 6 of 1920 m."""
    return len(patch_offsets(table.footprint, cut=table.cut))


def numbers(table: Table = TABLE, which: Which = "all") -> range:
    """The numbers of a cell's patches; that of the square in its middle follows the last."""
    count = patches_a_side(table) ** 2
    return range(count) if which == "all" else range(count, count + 1)


def read_patches(
    root: Path, cell: str, table: Table = TABLE, *, limits: Limits | None = None, offset: Offset = 0, which: Which = "all",
) -> list[Patch]:
    """All patches of a cell with what is on disk of the table's rows, their places and their date, in the order of their numbers.

    A tile that is smaller than Major TOM's 10,680 m has as many as fit. `offset` is taken off Sentinel-2's digital numbers. Raises
    ValueError for a name that is no cell, and where nothing can be read at all: no product (NotThere), or no raster to tell the cell's
    corner by.
    """
    there = found_products(root, checked_cell(cell))                   # of all rows: corner and day don't depend on what is asked for
    images = [row for row in table.images if table[row].product in there]
    if not images:
        raise NotThere(f"{root}: holds nothing of cell {cell}{' but ' if there else ''}{', '.join(there)}; download it first")
    ground = patch_squares(cell, there, table, which)
    inputs = inputs_of(root, cell, images, there, table, offset)
    plans = [(one, planned(cell, there, one, table)) for one in inputs]
    parts = [dated(there, plans, table)] * len(ground)
    for one, found in plans:
        parts = [part + more for part, more in zip(parts, parts_of(one, found, ground, table, limits or Limits()), strict=True)]
    return [patch_of(root, cell, place, square, part, table) for (place, square), part in zip(ground, parts, strict=True)]


def patch_squares(cell: str, there: Mapping[str, Product], table: Table, which: Which = "all") -> list[tuple[Place, Footprint]]:
    """The squares of a cell by row and column, row by row, or the one in its middle; their corner is `read_cell`'s."""
    ground = ground_of(cell, there, table)
    if which == "middle":
        y, x = middle_offset(table.footprint, ground)
        return [(None, Footprint(ground.crs, ground.left + x, ground.top - y, float(table.footprint)))]
    downs, rights = offsets_of(table, ground)
    if not (downs and rights):
        raise ValueError(f"{ground.raster.path}: the cell's images show {ground.across:g} x {ground.down:g} m, less than a patch of "
                         f"{table.footprint} m; download the cell again")
    return [((i, j), Footprint(ground.crs, ground.left + x, ground.top - y, float(table.footprint)))
            for i, y in enumerate(downs) for j, x in enumerate(rights)]


def planned(cell: str, there: Mapping[str, Product], one: Input, table: Table) -> Found | Fault:
    try:
        return plan_in(cell, there, one, table)
    except ValueError as error:
        return Fault(table[table.select(one.product)[0]].product, "unreadable", str(error))


def dated(there: Mapping[str, Product], plans: Iterable[tuple[Input, Found | Fault]], table: Table) -> Part:
    """The day, by `read_cell`'s rule: by the names of all products, else by the tags of the files."""
    if "date" not in table.by_name:
        return Part()
    try:
        day = scene_day(days_said((name, one.path, {}) for name, one in there.items()))
        layer, _ = date_layer(day, [(one, found) for one, found in plans if isinstance(found, Found)])
    except ValueError as error:
        return Part(faults=(Fault("date", "implausible", str(error)),))
    return Part() if layer is None else Part({"date": layer})


def parts_of(
    one: Input, found: Found | Fault, ground: Sequence[tuple[Any, Footprint]], table: Table, limits: Limits,
) -> list[Part]:
    """What one input gives of every square."""
    if isinstance(found, Fault):
        return [Part(faults=(found,))] * len(ground)
    read, kept = WholeFiles(), Kept()
    try:
        return [part_of(one, found, square, table, limits, read, kept) for _, square in ground]
    except Damaged as error:                     # a file that ends too early is bad everywhere
        return [Part(faults=(Fault(found.rows[0].product, "unreadable", str(error)),))] * len(ground)


def part_of(one: Input, found: Found, square: Footprint, table: Table, limits: Limits, read: WholeFiles, kept: Kept) -> Part:
    """What one input gives of one square. Damaged is raised, all else that is wrong is a fault."""
    warned: list[str] = []
    filled: dict[str, list[dict[str, Any]]] = {}
    product = found.rows[0].product
    try:
        layers = read_layers(one, found, square, limits.no_data, warned, filled, read, kept)
        layers = {name: checked(table, name, layer) for name, layer in layers.items()}
    except Damaged:
        raise
    except ValueError as error:
        reason = "no data" if isinstance(error, NoData) else "not covered" if isinstance(error, NotCovered) else "implausible"
        return Part(faults=(Fault(product, reason, WAY_OUT.sub("", str(error))),))
    unlabelled = max((unlabelled_share(row, layers[row.name]) for row in found.rows), default=0.0)
    if unlabelled >= limits.unlabelled:
        return Part(faults=(Fault(product, "unlabelled", f"{one.path}: {unlabelled:.2%} of the patch is of the class 'no data'"),))
    black = max((black_share(row, layers[row.name]) for row in found.rows), default=0.0)
    if black > MOST_FILLED:
        return Part(faults=(Fault(product, "no data", f"{one.path}: {black:.2%} of the patch is black, as pictures show no data"),))
    made_up = max((float(piece["share"]) for pieces in filled.values() for piece in pieces), default=0.0)
    return Part(layers, (), max(made_up, unlabelled), tuple(text.replace(str(one.path), product) for text in warned))


def unlabelled_share(row: Modality, layer: NDArray[Any]) -> float:
    """The share of pixels of a class called 'no data'."""
    if row.legend is None or "no data" not in row.legend.names:
        return 0.0
    return float((layer == row.legend.codes[row.legend.names.index("no data")]).mean())


def black_share(row: Modality, layer: NDArray[Any]) -> float:
    """The share of a picture's pixels that are black in all colours: next to nothing where there is data."""
    return float((layer == 0).all(axis=0).mean()) if isinstance(row.scale, EightBit) else 0.0


def patch_of(root: Path, cell: str, place: Place, square: Footprint, part: Part, table: Table) -> Patch:
    layers, side = dict(part.layers), patches_a_side(table)
    name, number = (cell, side**2) if place is None else (f"{cell}_{place[0]}_{place[1]}", place[0] * side + place[1])
    if "place" in table.by_name:
        layers["place"] = np.array(square.centre)
    scene = Scene({name: layers[name] for name in table.names if name in layers}, square, name, table)
    faults = tuple(Fault(one.product, one.reason, one.detail.replace(f"{root}/", "")) for one in part.faults)
    return Patch(cell, number, scene, faults, part.no_data, tuple(one.replace(f"{root}/", "") for one in part.warnings))
