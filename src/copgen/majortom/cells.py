"""What does Major TOM show at a cell? Its layout on disk opened as scenes: one square of a cell, the middle or one of its patches.

The layout: `<root>/Core-<product>/<row>/<cell>/<product id>/<band>.tif`, `id` standing for the product id of heights; land cover is
`<root>/Core-LULC/<row>/<column>/<row>_<column>_<year>.tif`; the cloud mask lies among the bands of S2L1C, or of S2L2A.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from copgen.majortom.grid import CELL, TILE, checked_cell, patch_offsets
from copgen.modalities import TABLE, Table
from copgen.reading import squares
from copgen.reading.acquired import carries_offset, day_in_name, days_said, possible, scene_day
from copgen.reading.rasters import Raster, describe
from copgen.reading.scenes import Date, Input, Place, corner_step, planned, read_onto
from copgen.scene import Footprint, Scene

MASKED = {"cloud_mask": ("S2L1C", "S2L2A")}      # a product that lies in another's folder
ESRI = {"LULC": {"codes": "esri"}}               # what the layout fixes
REFERENCE = ("S2L2A", "S2L1C", "DEM", "S1RTC", "LULC", "cloud_mask")   # whose corner is the cell's: radar images may be a pixel larger
LATE_OFFSET = 1000                               # in the digital numbers of Sentinel-2 since processing baseline 04.00
Offset = float | Literal["named"]


@dataclass(frozen=True)
class Product:
    """One product of a cell: where it is, its id, and the ids that were passed over for it."""

    path: Path
    id: str
    others: tuple[str, ...] = ()


def read_cell(
    root: Path, cell: str, *, given: Iterable[str], table: Table = TABLE, patch: tuple[int, int] | None = None,
    window: tuple[float, float] | None = None, place: Place = None, date: Date = None, fill: bool = False, offset: Offset = 0,
) -> Scene:
    """The given rows (or products) over one square of a cell, with its place and date.

    The square is the cell's middle, or one of its patches (row from the north, column from the west), or at `window` (easting, northing
    of its top left corner). It depends on the cell alone, not on what is given. The date is halfway between the days of the radar and
    the optical product. `offset` is taken off Sentinel-2's digital numbers; `named` is 1000 for products whose name says baseline 04.00 or
    later, and 0 for others. Raises ValueError for a name that is no cell, and for a product that isn't there.
    """
    there = products(root, checked_cell(cell), table)
    rows = [row for row in table.select(given) if table[row].is_image]
    if not rows:
        raise ValueError(f"cell {cell}: no layer with pixels is given; give one of {', '.join(there)}")
    plans = planned(inputs_of(root, cell, rows, there, table, offset), table)
    square = square_of(root, cell, there, table, patch, window)
    days = days_said((name, one.path, {}) for name, one in there.items())
    name = cell if patch is None else f"{cell}_{patch[0]}_{patch[1]}"
    scene = read_onto(square, plans, table=table, place=place, fill=fill, name=name,
                      date=scene_day(days) if date is None else date)      # None: by the tags of the files given
    chosen = {name: {"id": one.id, "passed_over": list(one.others)} for name, one in there.items()}
    return scene.with_layers(scene.layers, cell=cell, patch=patch and list(patch), products=chosen,
                             dates=possible(days))


def cells(root: Path) -> list[str]:
    """The names of all cells under a root, sorted."""
    found = set()
    for source in sorted(root.glob("Core-*")):
        for row in source.iterdir() if source.is_dir() else ():
            for folder in row.iterdir() if row.is_dir() else ():
                name = f"{row.name}_{folder.name}" if source.name == "Core-LULC" else folder.name
                if CELL.fullmatch(name):
                    found.add(name)
    return sorted(found)


def products(root: Path, cell: str, table: Table = TABLE) -> Mapping[str, Product]:
    """The products of a cell that are on disk, the newest where there are several; ValueError if there is none."""
    if not root.is_dir():
        raise ValueError(f"{root}: is no folder; --archive takes the folder that holds Core-S2L2A, Core-S1RTC and so on")
    found = found_products(root, cell, table)
    if not found:
        known = cells(root)
        some = f"{len(known)} cells, such as {', '.join(known[:3])}" if known else "no cells of Major TOM's layout at all"
        raise ValueError(f"{root}: holds nothing of cell {cell}; there are {some}")
    return found


def found_products(root: Path, cell: str, table: Table = TABLE) -> dict[str, Product]:
    """The same, empty for a cell of which nothing is there."""
    of = {name: (product(root, cell, source, name) for source in MASKED.get(name, (name,))) for name in table.products}
    return {name: one for name, some in of.items() if (one := next(filter(None, some), None))}


def product(root: Path, cell: str, source: str, name: str) -> Product | None:
    row, column = cell.split("_")
    if source == "LULC":
        files = sorted((root / "Core-LULC" / row / column).glob(f"{cell}_*.tif"))
        return newest([(file, file.stem) for file in files if re.fullmatch(rf"{cell}_\d{{4}}", file.stem)])
    folder = root / f"Core-{source}" / row / cell
    folders = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    if name in MASKED:
        folders = [one for one in folders if (one / f"{name}.tif").is_file()]
    return newest([(one, one.name) for one in folders])


def newest(found: list[tuple[Path, str]]) -> Product | None:
    """The one with the latest day in its id, or of land cover the latest year."""
    if not found:
        return None
    *others, (path, id_) = sorted(found, key=lambda one: (day_in_name(Path(one[1])) or "", one[1]))
    return Product(path, id_, tuple(other for _, other in others))


def inputs_of(root: Path, cell: str, rows: Iterable[str], there: Mapping[str, Product], table: Table, offset: Offset = 0) -> list[Input]:
    """An input a product where all its rows are given, else an input a row; ValueError for what isn't on disk."""
    wanted: dict[str, list[str]] = {}
    for row in rows:
        wanted.setdefault(table[row].product, []).append(row)
    absent = [name for name in wanted if name not in there]
    if absent:
        raise ValueError(f"{root}: cell {cell} has no {', '.join(absent)} on disk; there are {', '.join(there)}: "
                         f"give only these, or download what is missing")
    return [
        Input(asked, there[name].path, {**ESRI.get(name, {}), **offset_of(there[name].path, name, offset)})
        for name, some in wanted.items()
        for asked in ([name] if len(some) == len(table.select(name)) else some)
    ]


def offset_of(path: Path, product: str, offset: Offset) -> dict[str, str]:
    """The option that takes an offset off a product's digital numbers, if it is Sentinel-2's and carries one."""
    if not product.startswith("S2"):
        return {}
    number = offset if offset != "named" else LATE_OFFSET if carries_offset(path, {}) else 0
    return {"offset": f"{number:g}"} if number else {}


def square_of(
    root: Path, cell: str, there: Mapping[str, Product], table: Table, patch: tuple[int, int] | None, window: tuple[float, float] | None,
) -> Footprint:
    """The square of a cell: its middle, a patch, or at a window; the corner is that of the first product of REFERENCE on disk."""
    if patch is not None and window is not None:
        raise ValueError(f"cell {cell}: a patch and a window are both given; give one of them")
    raster = reference(there)
    crs = squares.scene_crs(raster)
    left, _, _, top = squares.bounds_in(raster, crs)
    if window is None:
        down, right = patch_offset(patch, table.footprint) if patch is not None else middle_offset(table)
        window = (left + right, top - down)
    return squares.choose(raster, crs, table.footprint, 1, window)


def reference(there: Mapping[str, Product]) -> Raster:
    """The raster whose corner is the cell's."""
    path = next(there[name].path for name in REFERENCE if name in there)
    return describe(path if path.is_file() else next(iter(sorted(path.glob("*.tif"))), path))


def middle_offset(table: Table) -> tuple[int, int]:
    """Metres from the cell's corner to that of the square in its middle, on the native grids: 4380 for a square of 1920 m."""
    step = corner_step(table)
    offset = round((TILE - table.footprint) / 2 / step) * step
    return offset, offset


def patch_offset(patch: tuple[int, int], footprint: int) -> tuple[int, int]:
    """Metres southwards and eastwards from the cell's corner to a patch's; the last row and column are flush with the far edge."""
    offsets = patch_offsets(footprint)
    if not all(0 <= i < len(offsets) for i in patch):
        raise ValueError(f"patch {patch[0]},{patch[1]}: a cell has {len(offsets)} x {len(offsets)} patches, ROW,COL each in "
                         f"0..{len(offsets) - 1}")
    return int(offsets[patch[0]]), int(offsets[patch[1]])
