"""What would Major TOM hold of the synthetic Earth? Whole cells of it, written in Major TOM's layout on disk.

A cell is one world of 10,680 m, drawn whole, so that its patches belong together: it lies where the grid has the cell, in the UTM zone of
its middle. The products have names as the satellites' have, from which their days are read back; they say processing baseline 03.01, the
last whose digital numbers carry no offset, as these don't, whatever the year.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from copgen.files import write_all
from copgen.majortom.cells import nominal_ground
from copgen.majortom.grid import TILE, cell_at, checked_cell, is_published
from copgen.modalities import TABLE, THUMBNAILS, Modality
from copgen.scene import Footprint, Scene
from copgen.synthetic import render
from copgen.synthetic.fields import stream
from copgen.synthetic.ground import ground
from copgen.synthetic.land import mask
from copgen.synthetic.setting import FIRST, LAST, Setting, day_with_sun, located
from copgen.writing import category_names, geotiff, stored

WIDE = replace(TABLE, footprint=TILE)                            # the table over a whole cell
SEED_TAG = "COPGEN_SYNTHETIC_SEED"
APART = 3                                                        # days, at most, that a radar image is from the cell's date
SECOND = (datetime(2017, 7, 1), datetime(2021, 12, 1))           # when there were a Sentinel-2B and a Sentinel-1B
RADAR_LAUNCH, RADAR_DAY = datetime(2014, 4, 3), 175 / 12         # Sentinel-1's orbits a day


def write_cells(
    root: Path, cells: Iterable[str] = (), *, seeds: Iterable[int] = (), seed: int = 0, overwrite: bool = False,
) -> Iterator[tuple[str, list[Path]]]:
    """Write cells of the synthetic Earth under `root` one after the other; yields each one's name and files once it is there.

    `cells` are drawn by `seed`, each differently; every one of `seeds` is drawn at the place that it would have as a world. A cell that
    is there is passed over unless `overwrite`, so what was interrupted goes on where it was. Raises ValueError, before anything is drawn,
    for a name that is no cell of Major TOM's and for a cell that comes twice; and for a cell of which the folder has other products.
    """
    drawn = [(cell, seed_of(cell, seed)) for cell in cells] + [(cell_of(one), one) for one in seeds]
    names = [cell for cell, _ in drawn]
    for cell in names:
        if not is_published(checked_cell(cell)):
            raise ValueError(f"cell {cell}: Major TOM has no cells beyond 85 degrees of latitude; choose one nearer to the equator")
        if names.count(cell) > 1:
            raise ValueError(f"cell {cell}: comes twice; leave out one of the names or seeds that mean it")
    for cell, one in drawn:
        yield cell, write_cell(root, cell, one, overwrite=overwrite)


def write_cell(root: Path, cell: str, seed: int, *, overwrite: bool = False) -> list[Path]:
    """Write one cell and return its files; nothing is drawn if they are all there, unless `overwrite`.

    Its files appear together when all are on the disk. Raises ValueError if the folder has other products of the cell: they would be
    taken for the same place and time.
    """
    where = cell_setting(cell, seed)
    paths, row, column = cell_paths(root, cell, where), *cell.split("_")
    strange = {*root.glob(f"Core-*/{row}/{cell}/*/*"), *root.glob(f"Core-LULC/{row}/{column}/{cell}_*")} - set(paths)
    strange |= {path for path in paths if path.name == "DEM.tif" and path.is_file() and seed_in(path) != str(seed)}
    if strange:
        raise ValueError(f"{min(strange)}: is of cell {cell} too, but not of the one drawn by seed {seed}; choose another folder")
    if overwrite or not all(path.is_file() for path in paths):
        write_all(cell_files(root, cell, seed), overwrite=True)      # a part of it may be there: the same
    return paths


def seed_in(path: Path) -> str:
    """The seed that a file of a synthetic cell says, '' for any other file."""
    with rasterio.open(path) as dataset:
        return str(dataset.tags().get(SEED_TAG, ""))


def cell_of(seed: int) -> str:
    """The cell in which the world of a seed lies."""
    return str(cell_at(*mask().place(stream(seed, "place"))))


def seed_of(cell: str, seed: int) -> int:
    """The seed of the world that is drawn at a cell."""
    return zlib.crc32(f"{seed} {cell}".encode())


def cell_setting(cell: str, seed: int) -> Setting:
    """Where and when the world of a cell is, with its climate."""
    where = nominal_ground(cell)
    first, last = FIRST + APART, LAST - APART
    return located(seed, where, np.clip(day_with_sun(stream(seed, "date"), where.centre[0]), first, last))


def cell_world(cell: str, seed: int) -> Scene:
    """All layers over a whole cell, [bands, 1068, 1068] at 10 m."""
    where = cell_setting(cell, seed)
    return Scene(render(where, ground(where)), where.footprint, cell, WIDE, {"synthetic seed": seed})


# --- files --------------------------------------------------------------------------------------------------------------------------

def cell_files(root: Path, cell: str, seed: int) -> dict[Path, bytes]:
    """The files of a cell in Major TOM's layout."""
    scene, folders = cell_world(cell, seed), product_folders(root, cell, cell_setting(cell, seed))
    assert scene.footprint is not None
    files: dict[Path, bytes] = {}
    for row in (WIDE[name] for name in WIDE.images):
        for product in (("S2L1C", "S2L2A") if row.product == "cloud_mask" else (row.product,)):
            folder, day = folders[product]
            tags = {SEED_TAG: str(seed)} | ({"datetime": day} if day else {})
            for k, band in enumerate(row.bands):
                single = replace(row, bands=(band,), rgb=None)
                file = folder if row.product == "LULC" else folder / f"{band}.tif"
                files[file] = geotiff(single, scene[row.name][k:k + 1], scene.footprint, TILE, tags)
                if row.product == "LULC" and row.legend:
                    files[file.with_name(file.name + ".aux.xml")] = category_names(row.legend)
    for row in THUMBNAILS.rows:
        files[folders[row.product][0] / "thumbnail.png"] = thumbnail(row, scene)
    return files


def cell_paths(root: Path, cell: str, where: Setting) -> list[Path]:
    """Where the files of a cell lie, before they are drawn."""
    folders = product_folders(root, cell, where)
    bands = {product: [band for name in WIDE.select(product) for band in WIDE[name].bands] for product in folders}
    paths = [folder / f"{name}{end}" for product, (folder, _) in folders.items() if product != "LULC"
             for name, end in [*((band, ".tif") for band in bands[product]), ("thumbnail", ".png")]]
    paths += [folders[product][0] / "cloud_mask.tif" for product in ("S2L1C", "S2L2A")]
    lulc = folders["LULC"][0]
    return [*paths, lulc, lulc.with_name(lulc.name + ".aux.xml")]


def product_folders(root: Path, cell: str, where: Setting) -> dict[str, tuple[Path, str]]:
    """By product, its folder (for land cover its file) and its day; the cell's date is halfway between the radar's and the optical day."""
    row, column = cell.split("_")
    apart = timedelta(days=int(stream(where.seed, "apart").integers(-APART, APART + 1)))
    date = datetime.fromisoformat(str(where.date))
    optical = date - apart + local_time(10.5, where.lon)
    radar = date + apart + local_time(float(stream(where.seed, "orbit").choice([6.0, 18.0])), where.lon)
    l1c, l2a = sentinel2_ids(where.footprint, optical)
    ids = {"S2L1C": (l1c, optical), "S2L2A": (l2a, optical), "S1RTC": (radar_id(radar), radar)}
    folders = {product: (root / f"Core-{product}" / row / cell / id_, time.isoformat()) for product, (id_, time) in ids.items()}
    land_cover = root / "Core-LULC" / row / column / f"{cell}_{date.year}.tif"
    return folders | {"DEM": (root / "Core-DEM" / row / cell / "id", ""), "LULC": (land_cover, "")}


def thumbnail(row: Modality, scene: Scene) -> bytes:
    """A whole layer as its files hold it, drawn pixel by pixel; in grey where it is of one band, as Major TOM's are."""
    source, drawing = row.source, row.drawing
    assert source is not None and drawing is not None
    bands = [WIDE[source.name].bands.index(band) for band in source.bands]
    colours = drawing.draw(stored(source, scene[source.name][bands]).values)
    buffer = io.BytesIO()
    Image.fromarray(colours[0] if len(bands) == 1 else np.moveaxis(colours, 0, -1)).save(buffer, "PNG")
    return buffer.getvalue()


# --- names of products ----------------------------------------------------------------------------------------------------------------

def local_time(hour: float, lon: float) -> timedelta:
    """The time of the day in UTC at which the sun has `hour` there; the day stays the same one."""
    return timedelta(seconds=round((hour - lon / 15) % 24 * 3600) % 86_400)


def sentinel2_ids(where: Footprint, time: datetime) -> tuple[str, str]:
    """The names of a Sentinel-2 product's two levels: the same datatake and tile, processed some hours apart."""
    letter = "AB"[(time - SECOND[0]).days % 10 >= 5] if time >= SECOND[0] else "A"     # the same orbit every ten days, the other's between
    orbit = 1 + zlib.crc32(f"{where.crs.to_epsg()} {time.timetuple().tm_yday % 10}".encode()) % 143
    taken, tile = f"{time:%Y%m%dT%H%M%S}", tile_of(where)
    l1c, l2a = (f"S2{letter}_MSIL{level}_{taken}_N0301_R{orbit:03d}_{tile}_{time + timedelta(hours=hours):%Y%m%dT%H%M%S}"
                for level, hours in (("1C", 2), ("2A", 4)))
    return l1c, l2a


def radar_id(time: datetime) -> str:
    """The name of a Sentinel-1 product, corrected for terrain."""
    letter = "B" if time < SECOND[1] and time.toordinal() % 12 >= 6 else "A"
    orbit = round((time - RADAR_LAUNCH).total_seconds() / 86_400 * RADAR_DAY)
    return (f"S1{letter}_IW_GRDH_1SDV_{time:%Y%m%dT%H%M%S}_{time + timedelta(seconds=25):%Y%m%dT%H%M%S}_{orbit:06d}_"
            f"{zlib.crc32(time.isoformat().encode()) % 2**24:06X}_rtc")


def tile_of(where: Footprint) -> str:
    """Sentinel-2's name of the tile that holds the middle of a square, such as T30UUG: the military grid's square of 100 km."""
    easting, northing = where.left + where.side / 2, where.top - where.side / 2
    zone, lat = int(where.crs.to_epsg() or 0) % 100, where.centre[0]
    band = "CDEFGHJKLMNPQRSTUVWX"[min(max(int((lat + 80) // 8), 0), 19)]
    column = "ABCDEFGHJKLMNPQRSTUVWXYZ"[(zone - 1) % 3 * 8 + int(easting // 100_000) - 1]
    return f"T{zone:02d}{band}{column}{'ABCDEFGHJKLMNPQRSTUV'[(int(northing // 100_000) + (5 if zone % 2 == 0 else 0)) % 20]}"
