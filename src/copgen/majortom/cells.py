"""What does Major TOM show at a cell? Its layout on disk opened as scenes: one square of a cell, the middle or one of its patches.

The layout: `<root>/Core-<product>/<row>/<cell>/<product id>/<band>.tif`, `id` standing for the product id of heights; land cover is
`<root>/Core-LULC/<row>/<column>/<row>_<column>_<year>.tif`; the cloud mask lies among the bands of S2L1C, or of S2L2A. Beside the bands, or
alone, there may be `thumbnail.png`, a picture of the whole image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rasterio.crs import CRS
from rasterio.transform import from_origin

from copgen.majortom.grid import CELL, TILE, centre_of, checked_cell, patch_offsets, tile_corners
from copgen.modalities import TABLE, Modality, Table
from copgen.reading import squares
from copgen.reading.acquired import carries_offset, day_in_name, days_said, possible, scene_day
from copgen.reading.bandfiles import BandFile, Found
from copgen.reading.pictures import describe_picture
from copgen.reading.rasters import Grid, Raster, describe
from copgen.reading.scenes import Date, Input, Place, corner_step, plan, read_onto
from copgen.scene import Footprint, Scene

MASKED = {"cloud_mask": ("S2L1C", "S2L2A")}      # a product that lies in another's folder
ESRI = {"LULC": {"codes": "esri"}}               # what the layout fixes
REFERENCE = ("S2L2A", "S2L1C", "DEM", "S1RTC", "LULC", "cloud_mask")   # on whose pixels the squares of a cell lie
APART = 120                                      # metres at most between the edges of images that were cut for one cell
FINEST = 10                                      # metres of the smallest pixels
STORED = "thumbnail.png"                         # of a product's whole image
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
    everything = {**found_products(root, cell), **there}               # also what the table lacks: square and day are the cell's
    plans = [(one, plan_in(cell, everything, one, table)) for one in inputs_of(root, cell, rows, there, table, offset)]
    square = square_of(cell, everything, table, patch, window)
    days = days_said((name, one.path, {}) for name, one in everything.items())
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
    of = {name: [product(root, cell, source, name) for source in MASKED.get(name, (name,))] for name in table.products}
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


def plan_in(cell: str, there: Mapping[str, Product], one: Input, table: Table) -> Found:
    """Where an input of a cell is. A thumbnail is the stored one, if that shows the whole image; else it is drawn from the bands.

    Where an offset is to be taken off, it is drawn too: stored pictures are of the digital numbers as they were. Raises ValueError as
    `copgen.reading` does, and for a stored picture of another size where there are no bands either.
    """
    rows, stored = [table[name] for name in table.select(one.product)], one.path / STORED
    pictured = rows[0].drawing is not None and stored.is_file()
    try:
        layer = plan(one, table)
    except ValueError as error:
        if not pictured:
            raise
        if one.options:
            raise ValueError(f"{stored}: is drawn of digital numbers as they were, and there are no bands to take an offset off; leave the "
                             f"offset out, or download the bands too") from error
        return placed(stored, rows, reference(cell, there, table), APART)        # no bands
    assert isinstance(layer, Found)              # the product's folder, or land cover's file: no picture
    if pictured and not one.options:
        with suppress(ValueError):               # what is no picture of the bands is passed over
            return placed(stored, rows, layer.first, 0)
    return layer


def placed(stored: Path, rows: Sequence[Modality], image: Raster, apart: float) -> Found:
    """A stored picture on the ground of an image that it shows whole, to so many metres; ValueError if it doesn't."""
    picture = describe_picture(stored)
    sizes = dict.fromkeys(row.resolution for row in (rows[0], rows[0].source) if row and row.resolution)
    extent = [length * size for length, size in zip((image.width, image.height), image.pixel_size, strict=True)]
    fitting = [size for size in sizes if abs(picture.width * size - extent[0]) <= apart and abs(picture.height * size - extent[1]) <= apart]
    t = image.grid.transform
    if not (fitting and image.grid.is_axis_aligned and t.a > 0 > t.e):
        whole = " or ".join(f"{round(extent[0] / size)} x {round(extent[1] / size)}" for size in sizes)
        raise ValueError(f"{stored}: has {picture.width} x {picture.height} pixels, and a picture of the whole image has {whole}; "
                         f"download the cell again, with its bands")
    grid = Grid(image.grid.crs, from_origin(t.c, t.f, fitting[0], fitting[0]))
    raster = Raster(stored, grid, picture.width, picture.height, len(rows[0].bands))
    return Found(tuple(rows), {band: BandFile(raster, k) for row in rows for k, band in enumerate(row.bands, 1)})


def offset_of(path: Path, product: str, offset: Offset) -> dict[str, str]:
    """The option that takes an offset off a product's digital numbers, if it is Sentinel-2's and carries one."""
    if not product.startswith("S2"):
        return {}
    number = offset if offset != "named" else LATE_OFFSET if carries_offset(path, {}) else 0
    return {"offset": f"{number:g}"} if number else {}


def square_of(
    cell: str, there: Mapping[str, Product], table: Table, patch: tuple[int, int] | None, window: tuple[float, float] | None,
) -> Footprint:
    """The square of a cell: the middle of what its images show, a patch of that, or at a window."""
    if patch is not None and window is not None:
        raise ValueError(f"cell {cell}: a patch and a window are both given; give one of them")
    ground = ground_of(cell, there, table)
    if window is None:
        down, right = patch_offset(patch, table, ground) if patch is not None else middle_offset(table.footprint, ground)
        window = (ground.left + right, ground.top - down)
    return squares.choose(ground.raster, ground.crs, table.footprint, 1, window)


@dataclass(frozen=True)
class Ground:
    """What all images of a cell show, in metres of the reference's CRS: `down` southwards and `across` eastwards of the corner."""

    raster: Raster                               # the reference
    crs: CRS
    left: float
    top: float
    down: float
    across: float
    step: int                                    # metres between the corners that a square may have


def patches_of(root: Path, cell: str, table: Table = TABLE) -> list[tuple[int, int]]:
    """The patches of a cell by row and column, row by row; ValueError as `products`."""
    there = products(root, checked_cell(cell), table)
    downs, rights = offsets_of(table, ground_of(cell, {**found_products(root, cell), **there}, table))
    return [(i, j) for i in range(len(downs)) for j in range(len(rights))]


def ground_of(cell: str, there: Mapping[str, Product], table: Table) -> Ground:
    """The ground of a cell, its corner a whole number of the table's steps from the reference's.

    The window of each image was rounded to its own pixels, so images of one cell may begin some pixels apart; what begins further apart
    was not cut for it, and does not count. Raises ValueError where no image can be read.
    """
    first, step = reference(cell, there, table), corner_step(table)
    crs = squares.scene_crs(first)
    left, bottom, right, top = own = squares.bounds_in(first, crs)
    for raster in rasters_of(there, table):
        edges = squares.bounds_in(raster, crs)
        if max(abs(edge - mine) for edge, mine in zip(edges, own, strict=True)) <= APART:
            left, bottom, right, top = max(left, edges[0]), max(bottom, edges[1]), min(right, edges[2]), min(top, edges[3])
    left, top = own[0] + whole(left - own[0], step), own[3] - whole(own[3] - top, step)
    return Ground(first, crs, left, top, top - bottom, right - left, step)


def rasters_of(there: Mapping[str, Product], table: Table) -> Iterator[Raster]:
    """All images that can be read."""
    for file in sorted({file for name, one in there.items() for file in images_of(name, one, table)}):
        with suppress(ValueError):
            yield describe(file)


def images_of(name: str, one: Product, table: Table) -> list[Path]:
    """The files of a product; of one with thumbnails those that they are drawn from, as larger pixels begin elsewhere."""
    if one.path.is_file():
        return [one.path]
    files = sorted(one.path.glob("*.tif"))
    drawn = {band for row in table.rows if row.product == name and row.source for band in row.source.bands}
    return [file for file in files if file.stem in ({name} if name in MASKED else drawn)] or files


def whole(length: float, step: int) -> int:
    """A length in metres, up to a multiple of `step`."""
    return math.ceil(length / step - 1e-6) * step


def reference(cell: str, there: Mapping[str, Product], table: Table) -> Raster:
    """The raster on whose pixels the squares lie: the first of REFERENCE that can be read, the cell's own square if only pictures can.

    Raises the first one's ValueError if none can.
    """
    wrong: list[ValueError] = []
    for name in (name for name in REFERENCE if name in there):
        try:
            return describe(next(iter(images_of(name, there[name], table)), there[name].path))
        except ValueError as error:
            wrong.append(error)
    if pictures := [one.path / STORED for one in there.values() if (one.path / STORED).is_file()]:
        square = nominal_ground(cell)
        return Raster(pictures[0], Grid(square.crs, square.transform(FINEST)), TILE // FINEST, TILE // FINEST, 1)
    raise wrong[0]


def nominal_ground(cell: str) -> Footprint:
    """The square of a cell's images by its name alone: in the UTM zone of its middle, the corner where the finest pixels have one.

    Major TOM rounds the corner of each image to the nearest of its own pixels, and thumbnails show those of 10 m.
    """
    lat, lon = centre_of(checked_cell(cell))
    crs = squares.utm(float(lat), float(lon))
    (left,), (top,) = tile_corners([cell], crs.to_string())
    return Footprint(crs, round(left / FINEST) * float(FINEST), round(top / FINEST) * float(FINEST), float(TILE))


def middle_offset(footprint: int, ground: Ground) -> tuple[int, int]:
    """Metres from the ground's corner to that of the square in its middle, on the native grids: 4380 for 1920 m of a whole cell."""
    down, across = (round((min(TILE, side) - footprint) / 2 / ground.step) * ground.step for side in (ground.down, ground.across))
    return down, across


def patch_offset(patch: tuple[int, int], table: Table, ground: Ground) -> tuple[int, int]:
    """Metres southwards and eastwards from the ground's corner to a patch's."""
    downs, rights = offsets_of(table, ground)
    if not (0 <= patch[0] < len(downs) and 0 <= patch[1] < len(rights)):
        raise ValueError(f"patch {patch[0]},{patch[1]}: the cell has {len(downs)} x {len(rights)} patches, ROW,COL from 0,0 to "
                         f"{len(downs) - 1},{len(rights) - 1}")
    return downs[patch[0]], rights[patch[1]]


def offsets_of(table: Table, ground: Ground) -> tuple[list[int], list[int]]:
    """Metres southwards and eastwards from the ground's corner to its rows and columns of patches."""
    downs, rights = (patch_offsets(table.footprint, min(TILE, side), ground.step, table.cut).tolist()
                     for side in (ground.down, ground.across))
    return downs, rights
