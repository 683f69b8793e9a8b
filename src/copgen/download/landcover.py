"""What covers the ground of a cell? Any land cover map brought onto the cell's own grid, by majority, in Esri's codes.

The maps are translated to the table's legend first and warped then: so what the legend takes together counts together. Pixels finer than
the grid's vote, equal and coarser ones are taken by the nearest; where several maps show a pixel, the first one that knows it decides,
those in the cell's own CRS before others. No data stays 0. From ESA WorldCover, shrubs, grass, moss and lichen become one class
(rangeland), mangroves and herbaceous wetland another (flooded vegetation), and there are no clouds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from copgen.download.maps import NETWORK, Source, is_served
from copgen.files import write_all
from copgen.majortom.cells import product, products
from copgen.majortom.grid import TILE, checked_cell
from copgen.modalities import LULC_LEGEND, TABLE
from copgen.reading.acquired import days_said, scene_day
from copgen.reading.rasters import Grid, describe
from copgen.reading.squares import outline, same_crs, to_pixels
from copgen.reading.units import Classes
from copgen.scene import Footprint
from copgen.writing import category_names, geotiff

ROW = TABLE["lulc"]
FINER = 0.95                                     # of the grid's pixel: below, a map's pixels vote
MOST_PIXELS = 2**28                              # of a map over one cell: a quarter of a gigabyte
TRIES = 4
FULL_GRIDS = (("S2L2A", "B04"), ("S2L2A", "B02"), ("S2L2A", "B03"), ("S2L2A", "B08"), ("S2L1C", "B04"), ("S2L1C", "B02"),
              ("S2L1C", "B03"), ("S2L1C", "B08"), ("DEM", "DEM"))      # whose corner is the cell's, in this order


@dataclass(frozen=True)
class LandCover:
    """A cell's land cover as it was written."""

    cell: str
    path: Path
    year: int                                    # of the map
    asked: int                                   # of the cell's date
    maps: tuple[str, ...]                        # what it was made from, without what addresses hold after a question mark
    codes: str                                   # their legend
    unknown: float                               # share of the cell without data


def add_land_cover(root: Path, cell: str, source: Source, *, year: int | None = None, overwrite: bool = False) -> LandCover:
    """Write a cell's land cover into an archive, at `Core-LULC/<row>/<column>/<cell>_<year>.tif`, whole or not at all.

    The grid is that of the cell's 10 m bands on disk, the year that of its date unless it is given, or the nearest that the source has. A
    file that is there is kept unless `overwrite`. Raises ValueError for a cell without such bands or date, for maps that there are not,
    that can't be read, that hold codes outside their legend, and that show nothing of the cell.
    """
    asked = cell_year(root, cell) if year is None else year
    where = cell_square(root, cell)
    row, column = checked_cell(cell).split("_")
    folder = root / "Core-LULC" / row / column
    if not overwrite and (folder / f"{cell}_{asked}.tif").is_file():
        return recorded(folder / f"{cell}_{asked}.tif", cell)
    found = source.find(cell, where, asked)
    path = folder / f"{cell}_{found.year}.tif"
    if not overwrite and path.is_file():
        return recorded(path, cell)
    layer = warped(found.files, where, source.codes, found.driver)
    maps = tuple(without_query(file) for file in found.files)
    made = LandCover(cell, path, found.year, asked, maps, source.codes, float((layer == 0).mean()))
    if made.unknown == 1:
        raise ValueError(f"{', '.join(made.maps)}: shows nothing of cell {cell}; give a map that covers it")
    said = {"asked": made.asked, "maps": list(made.maps), "codes": made.codes, "unknown": made.unknown}
    files = {path: geotiff(ROW, layer[None], where, where.side, {"COPGEN_CELL": cell, "COPGEN_LAND_COVER": json.dumps(said)})}
    files[path.with_name(path.name + ".aux.xml")] = category_names(LULC_LEGEND)
    write_all(files, overwrite=True)
    return made


def recorded(path: Path, cell: str) -> LandCover:
    """What is known of a file written before; ValueError if it can't be read."""
    year = int(path.stem.rpartition("_")[2])
    said: dict[str, Any] = {"asked": year, "maps": [], "codes": "esri", "unknown": 0.0}
    said |= json.loads(describe(path).tags.get("COPGEN_LAND_COVER", "{}"))
    return LandCover(cell, path, year, said["asked"], tuple(said["maps"]), said["codes"], said["unknown"])


def cell_year(root: Path, cell: str) -> int:
    """The year of a cell's date, by the names of its products on disk; ValueError where none has a day."""
    there = products(root, cell)
    day = scene_day(days_said((name, one.path, {}) for name, one in there.items() if name != "LULC"))
    if day is None:
        raise ValueError(f"{root}: no product of cell {cell} on disk says its day, so no year can be chosen for its land cover; "
                         f"download Sentinel-1 or Sentinel-2 too, or state the year")
    return int(str(day)[:4])


def cell_square(root: Path, cell: str) -> Footprint:
    """The square of a cell's images, by the file of a 10 m band of Sentinel-2's, else by its heights."""
    for source, band in FULL_GRIDS:
        found = product(root, checked_cell(cell), source, source)
        if found and (found.path / f"{band}.tif").is_file():
            raster = describe(found.path / f"{band}.tif")
            transform = raster.grid.transform
            sides = np.array([raster.width * transform.a, -raster.height * transform.e])
            if not (raster.grid.is_axis_aligned and np.allclose(sides, TILE, rtol=0, atol=0.01)):
                raise ValueError(f"{raster.path}: is no square of {TILE} m with north upwards, as Major TOM's cells are")
            return Footprint(raster.grid.crs, transform.c, transform.f, float(TILE))
    raise ValueError(f"{root}: cell {cell} has no band of Sentinel-2 at 10 m and no heights on disk, whose grid its land cover would take; "
                     f"download S2L2A first")


# --- warping ------------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Part:
    """A window of a map in the table's codes, and how large its pixels are on the ground."""

    codes: NDArray[np.uint8]
    grid: Grid
    metres: float


def warped(files: Iterable[str], where: Footprint, codes: str, driver: str | None = None) -> NDArray[np.uint8]:
    """Land cover [H, W] of a square at the table's resolution, in its codes, from maps whose legend is `codes`."""
    assert ROW.resolution is not None
    side = round(where.side / ROW.resolution)
    result = np.zeros((side, side), np.uint8)
    parts = [part for file in files for part in patiently_read(file, where, codes, driver)]
    for part in sorted(parts, key=lambda part: not same_crs(part.grid.crs, where.crs)):
        onto = np.zeros_like(result)
        voting = Resampling.mode if part.metres < FINER * ROW.resolution else Resampling.nearest
        reproject(part.codes, onto, src_transform=part.grid.transform, src_crs=part.grid.crs, src_nodata=0, dst_nodata=0,
                  dst_transform=where.transform(ROW.resolution), dst_crs=where.crs, resampling=voting)
        result = np.where(result == 0, onto, result)
    return result


def patiently_read(file: str, where: Footprint, codes: str, driver: str | None) -> list[Part]:
    """The parts of a map over a square; a map on a server is tried again when reading breaks off."""
    remote = "://" in file or file.startswith("/vsi")
    if urlsplit(file).scheme in ("http", "https") and not is_served(file):
        raise ValueError(f"{without_query(file)}: is not there, says its server; check the address")
    for tried in range(1, (TRIES if remote else 1) + 1):
        try:
            return list(parts_of(file, where, codes, driver))
        except (RasterioError, OSError) as error:
            if tried == TRIES or not remote:
                raise ValueError(f"{without_query(file)}: can't be read as a map ({error}); check that it is there and whole") from error
            time.sleep(0.2 * 2**tried)
    raise AssertionError("unreachable")


def parts_of(file: str, where: Footprint, codes: str, driver: str | None) -> Iterator[Part]:
    with rasterio.Env(**NETWORK), rasterio.open(file, driver=driver) as dataset:
        if dataset.crs is None:
            raise ValueError(f"{without_query(file)}: has no coordinate reference system; assign the right one")
        grid = Grid(dataset.crs, dataset.transform)
        for window in windows(grid, dataset.width, dataset.height, where):
            if window.width * window.height > MOST_PIXELS:
                raise ValueError(f"{without_query(file)}: holds {window.width} x {window.height} pixels over one cell, more than are read "
                                 f"here; make it coarser by majority first")
            values = dataset.read(1, window=window)
            ours = translated(without_query(file), values, dataset.nodata, codes)
            yield Part(ours, Grid(grid.crs, window_transform(window, grid.transform)), pixel_metres(grid, where))


def translated(file: str, values: NDArray[Any], nodata: float | None, codes: str) -> NDArray[np.uint8]:
    """A map's values in the table's codes, its own no data as 0; ValueError naming those outside the legend."""
    known, place = np.unique(values, return_inverse=True)
    known = known.astype(np.float64)
    known[np.isnan(known) | (known == nodata)] = 0
    legend, options = Classes(LULC_LEGEND), {"codes": codes}
    legend.check(file, {"LULC": known}, options)
    return legend.convert(known, options).astype(np.uint8)[place.reshape(values.shape)]


def windows(grid: Grid, width: int, height: int, where: Footprint) -> Iterator[Window]:
    """The windows of a map that hold a square: none if it lies elsewhere, two if the map's edges meet inside it."""
    xs, ys = (np.concatenate(values) for values in zip(*(ring(where, share) for share in (1.0, 0.5, 0.02)), strict=True))
    cols, rows = to_pixels(grid, where.crs, xs, ys)
    if not (np.isfinite(cols).all() and np.isfinite(rows).all()):
        return
    expected = 4 * where.side / pixel_metres(grid, where)
    halves = [cols] if np.ptp(cols) < expected + 8 else [cols[cols < cols.mean()], cols[cols >= cols.mean()]]
    for some in halves:
        first, last = int(np.floor(some.min())) - 2, int(np.ceil(some.max())) + 2
        if len(halves) == 2:                     # up to the edge at which the map begins again
            first, last = (0, last) if some is halves[0] else (first, width)
        top, bottom = max(0, int(np.floor(rows.min())) - 2), min(height, int(np.ceil(rows.max())) + 2)
        first, last = max(0, first), min(width, last)
        if first < last and top < bottom:
            yield Window(first, top, last - first, bottom - top)


def ring(where: Footprint, share: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points along the edges of a square around the same middle, `share` as wide."""
    u, v = outline(1, 1)
    left, bottom, right, top = where.bounds
    return (left + right) / 2 + (u - 0.5) * share * where.side, (bottom + top) / 2 + (v - 0.5) * share * where.side


def pixel_metres(grid: Grid, where: Footprint, reach: float = 60.0) -> float:
    """The side, in metres on the ground, of a map's pixel in the middle of a square."""
    x, y = (where.bounds[0] + where.bounds[2]) / 2, (where.bounds[1] + where.bounds[3]) / 2
    cols, rows = to_pixels(grid, where.crs, np.array([x, x + reach, x]), np.array([y, y, y + reach]))
    right, up = cols[1:] - cols[0], rows[1:] - rows[0]
    if grid.crs.is_geographic:
        turn = 360 / abs(grid.transform.a)
        right = (right + turn / 2) % turn - turn / 2
    return float(reach / np.sqrt(abs(right[0] * up[1] - right[1] * up[0])))


def without_query(file: str) -> str:
    """An address without what follows a question mark, which may be a signature."""
    return file.partition("?")[0] if urlsplit(file).scheme in ("http", "https") else file
