"""Cells made for a test: as parquet files in Major TOM's schema, which `hub_server` serves, and as an archive on disk in its layout.

The pixels are flat by default (every band of every product has a number of its own, `flat_value`), or grainy, so that files have a real
size, or real ones (a TerraMesh cell, mirrored until it fills a Major TOM cell, untouched in its middle), or a synthetic Earth's.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from huggingface_hub import constants
from numpy.typing import NDArray
from PIL import Image
from rasterio.io import MemoryFile

from copgen.majortom.cells import nominal_ground
from copgen.majortom.grid import TILE
from copgen.modalities import LULC_LEGEND, TABLE
from copgen.scene import Footprint
from copgen.synthetic.cells import cell_world, radar_id, sentinel2_ids

Content = Literal["flat", "grain", "real", "synthetic"]
Array = NDArray[Any]

CELL, EAST, SOUTH = "618U_30L", "618U_29L", "38D_378R"
REAL = ("282D_485L", "38D_378R", "637U_59R")     # the cells of TerraMesh that lie in shared data, of which each holds one part
HOST = constants.ENDPOINT                        # metadata name whole addresses; who reads them takes the path and asks its own hub
L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
L1C = (*L2A[:10], "B10", *L2A[10:])
BANDS = {"S2L2A": (*L2A, "cloud_mask"), "S2L1C": (*L1C, "cloud_mask"), "S1RTC": ("vv", "vh"), "DEM": ("DEM", "compressed")}
RESOLUTION = {band: row.resolution or 0 for row in TABLE.rows for band in row.bands} | {"compressed": 30}


@dataclass(frozen=True)
class Pass:
    """One time that satellites came over a cell: the sources it gave, how cloudy, how much of it without data, and in which tile."""

    time: str
    sources: tuple[str, ...] = ("S2L1C", "S2L2A")
    cloud_cover: float = 1.0
    nodata: float = 0.0
    neighbour: bool = False                      # in the neighbouring tile of Sentinel-2's: another product of the same datatake


OPTICAL, RADAR = ("S2L1C", "S2L2A"), ("S1RTC",)
PLAIN = (Pass("2021-06-10T11:21:19"), Pass("2021-06-08T06:31:41", RADAR))
PASSES = (
    Pass("2021-06-10T11:21:19", cloud_cover=2.0),
    Pass("2021-06-10T11:21:19", ("S2L1C",), cloud_cover=0.5, neighbour=True),
    Pass("2021-07-15T11:21:11", ("S2L2A",), cloud_cover=1.0),        # the newest of S2L2A, which has no S2L1C beside it
    Pass("2020-08-01T11:21:09", cloud_cover=0.1),                    # the clearest
    Pass("2021-06-20T11:21:19", cloud_cover=60.0),
    Pass("2021-08-04T11:21:21", cloud_cover=0.0, nodata=0.3),
    Pass("2021-06-04T06:31:41", RADAR),
    Pass("2021-06-08T06:31:42", RADAR, nodata=0.1),
    Pass("2021-06-13T18:05:22", RADAR),                              # three days after the first
    Pass("2020-08-06T06:31:44", RADAR),                              # five days after the clearest
    Pass("2021-07-16T06:31:43", RADAR),
)


@dataclass(frozen=True)
class Product:
    """One row of one source's parquet files: what its metadata say, and its files."""

    source: str                                  # S2L2A: that of Core-S2L2A
    cell: str
    id: str                                      # "id" for heights, which have none
    time: datetime | None
    footprint: Footprint
    cloud_cover: float = 0.0
    nodata: float = 0.0
    bands: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    thumbnail: bytes = field(default=b"", repr=False)
    part: int = 0                                # of images/part_00001.parquet, and the row group in it
    row: int = 0

    @property
    def file(self) -> str:
        return f"images/part_{self.part:05d}.parquet"


@dataclass(frozen=True)
class Made:
    """All products made."""

    folder: Path
    products: tuple[Product, ...]

    def of(self, source: str, cell: str = CELL, day: str = "") -> list[Product]:
        """A cell's products of a source, oldest first, of one day if it is given."""
        found = [one for one in self.products if (one.source, one.cell) == (source, cell) and (not day or str(one.time)[:10] == day)]
        return sorted(found, key=lambda one: (str(one.time), one.id))


def make_hub(
    folder: Path, cells: Iterable[str] = (CELL,), *, passes: Iterable[Pass] = PASSES, content: Content = "flat",
    samples: Path | None = None, rows_per_part: int = 4, troubles: bool = True, text_times: bool = True,
) -> Made:
    """Write `<folder>/Core-*/metadata.parquet` and `images/part_0000k.parquet` (one row a row group), and return what is in them.

    With `troubles`, the metadata of the first cell hold a row twice, one row that points to another product's row group, one that
    contradicts another's cloud cover, and the typing error `EPSG:EPSG:`. `samples` is the folder of TerraMesh that `content="real"` reads.
    """
    passes, made = tuple(passes), []
    every = [one for cell in cells for one in products(cell, passes, content, samples)]
    for source in BANDS:
        found = [one for one in every if one.source == source]
        if not found:                            # a hub without this source
            continue
        placed = [replace(one, part=1 + k // rows_per_part, row=k % rows_per_part) for k, one in enumerate(found)]
        for part in sorted({one.part for one in placed}):
            write_images(folder / f"Core-{source}", [one for one in placed if one.part == part], text_times)
        rows = [metadata_of(one, text_times) for one in placed]
        pq.write_table(pa.Table.from_pylist(troubled(rows) if troubles else rows), folder / f"Core-{source}" / "metadata.parquet")
        made += placed
    return Made(folder, tuple(made))


def make_archive(
    root: Path, cells: Iterable[str] = (CELL,), *, passes: Iterable[Pass] = PLAIN, content: Content = "flat", samples: Path | None = None,
    lulc: bool = True,
) -> Made:
    """Write the same cells in Major TOM's layout on disk, with land cover of the year of the first pass, and return what is there."""
    passes, made = tuple(passes), []
    for cell in cells:
        found = list(products(cell, passes, content, samples))
        for one in found:
            write_product(root, one)
        if lulc:
            write_lulc(root, cell, land_cover(cell, content, samples), found)
        made += found
    return Made(root, tuple(made))


def products(cell: str, passes: Iterable[Pass], content: Content = "flat", samples: Path | None = None) -> Iterator[Product]:
    """A cell's products: those of every pass, and its heights."""
    ground = nominal_ground(cell)
    if content == "real":
        ground, passes = real_ground(cell, samples), real_passes(cell, samples)
    for one in passes:
        time = datetime.fromisoformat(one.time)
        east = replace(ground, left=ground.left + 100_000 * one.neighbour)
        ids = dict(zip(OPTICAL, sentinel2_ids(east, time), strict=True)) | {"S1RTC": radar_id(time)}
        for source in one.sources:
            yield filled(Product(source, cell, ids[source], time, ground, one.cloud_cover, one.nodata), content, samples)
    yield filled(Product("DEM", cell, "id", None, ground), content, samples)


def filled(product: Product, content: Content, samples: Path | None) -> Product:
    bands = {band: geotiff(pixels(product, band, content, samples), product.footprint) for band in BANDS[product.source]}
    return replace(product, bands=bands, thumbnail=png(product.id))


# --- pixels -------------------------------------------------------------------------------------------------------------------------

def flat_value(id_: str, band: str) -> int:
    """The number that fills a band of a product, 100..3099; thousandths of it for radar, 10..59 for cirrus, 0 for the cloud mask."""
    number = zlib.crc32(f"{id_} {band}".encode())
    return 0 if band == "cloud_mask" else 10 + number % 50 if band == "B10" else 100 + number % 3000


def pixels(product: Product, band: str, content: Content, samples: Path | None) -> Array:
    side, kind = TILE // RESOLUTION[band], type_of(band)
    if content in ("real", "synthetic"):
        layers = real_bands(product.cell, samples) if content == "real" else synthetic_bands(product.cell)
        return layers[f"{product.source} {band}"] if band != "cloud_mask" else layers.get("cloud_mask", np.zeros((side, side), kind))
    value = flat_value(product.cell + product.id, band)
    flat = np.full((side, side), value / 1000 if product.source == "S1RTC" else value, kind)
    if content == "grain" and band != "cloud_mask":
        grain = np.random.default_rng(value).integers(0, 32, flat.shape)
        flat += (grain / 1000 if product.source == "S1RTC" else grain).astype(kind)
    return flat


def type_of(band: str) -> type:
    return {"cloud_mask": np.uint8, "LULC": np.uint8, "vv": np.float32, "vh": np.float32, "DEM": np.float32}.get(band, np.uint16)


def land_cover(cell: str, content: Content, samples: Path | None) -> NDArray[np.uint8]:
    if content in ("real", "synthetic"):
        return (real_bands(cell, samples) if content == "real" else synthetic_bands(cell))["LULC"]
    codes = np.array(LULC_LEGEND.codes[1:], np.uint8)                # stripes of 60 m of all classes
    return np.broadcast_to(codes[(np.arange(1068) // 6) % len(codes)], (1068, 1068))


@lru_cache(maxsize=2)
def synthetic_bands(cell: str) -> Mapping[str, Array]:
    scene = cell_world(cell, seed=zlib.crc32(cell.encode()))
    found: dict[str, Array] = {}
    for name in scene.table.images:
        row = TABLE[name]
        for k, band in enumerate(row.bands):
            key = band if row.product in ("LULC", "cloud_mask") else f"{row.product} {band}"
            found[key] = scene[name][k].astype(type_of(band))
    return found | {"DEM compressed": found["DEM DEM"].clip(0).astype(np.uint16)}


@lru_cache(maxsize=4)
def real_bands(cell: str, samples: Path | None) -> Mapping[str, Array]:
    """A TerraMesh cell's bands at their native resolutions (there they are repeated pixels), mirrored to fill a whole cell."""
    found: dict[str, Array] = {}
    for source, names in (("S2L2A", L2A), ("S2L1C", L1C), ("S1RTC", ("vv", "vh")), ("DEM", ("DEM",)), ("LULC", ("LULC",))):
        with rasterio.open(real_file(cell, source, samples)) as dataset:
            stack = dataset.read()[:, :222, :222]                    # 37 pixels of 60 m; the rest cuts one
        if source == "S1RTC":
            stack = 10 ** (stack / 10)
        elif source == "LULC":
            stack = np.array(LULC_LEGEND.codes)[stack]
        for name, band in zip(names, stack, strict=True):
            factor = RESOLUTION[name] // 10
            native = band.reshape(222 // factor, factor, 222 // factor, factor).astype(np.float64)
            native = native.mean((1, 3)) if name == "DEM" else native[:, 0, :, 0]
            key = name if source == "LULC" else f"{source} {name}"
            found[key] = np.pad(native, (4260 // RESOLUTION[name], 4200 // RESOLUTION[name]), mode="symmetric").astype(type_of(name))
    return found | {"DEM compressed": found["DEM DEM"].clip(0).astype(np.uint16)}


def real_file(cell: str, source: str, samples: Path | None) -> Path:
    assert samples is not None, "content='real' needs the folder of TerraMesh's cells: the fixture `samples`"
    return next((samples / source).glob(f"{cell}_*.tif"))


def real_ground(cell: str, samples: Path | None) -> Footprint:
    """A cell's square with the real pixels where they are on Earth, in its middle; to the whole metre."""
    with rasterio.open(real_file(cell, "S2L2A", samples)) as dataset:
        return Footprint(dataset.crs, round(dataset.transform.c) - 4260.0, round(dataset.transform.f) + 4260.0, float(TILE))


def real_passes(cell: str, samples: Path | None) -> list[Pass]:
    times = []
    for source in ("LULC", "S1RTC"):             # TerraMesh's land cover has the optical image's time
        with rasterio.open(real_file(cell, source, samples)) as dataset:
            times.append(dataset.tags()["datetime"][:19])
    return [Pass(times[0], OPTICAL), Pass(times[1], RADAR)]


def geotiff(values: Array, ground: Footprint) -> bytes:
    """One band as a GeoTIFF, as Major TOM holds it: deflate, no tags of its own."""
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype=values.dtype, count=1, height=len(values), width=values.shape[1], crs=ground.crs,
                         transform=ground.transform(ground.side / len(values)), compress="deflate", zlevel=1) as dataset:
            dataset.write(values, 1)
        return bytes(memory.getbuffer())


def make_thumbnails(root: Path, cells: Iterable[str] = (CELL,), sides: Mapping[str, int] | None = None) -> Path:
    """Write cells of which there are only thumbnails: smooth colours that differ by cell and product, heights in grey and 30 m a pixel."""
    time = datetime.fromisoformat(PLAIN[0].time)
    for cell in cells:
        ids = dict(zip(OPTICAL, sentinel2_ids(nominal_ground(cell), time), strict=True)) | {"S1RTC": radar_id(time), "DEM": "id"}
        for source, side in (sides or {"S2L2A": 1068, "S2L1C": 1068, "S1RTC": 1068, "DEM": 356}).items():
            waves = np.random.default_rng(zlib.crc32(f"{cell} {source}".encode())).uniform(5, 40, (3, 2, 1)) * np.linspace(0, 1, side)
            colours = 127.5 + 60 * (np.sin(waves[:, 0, :, None]) + np.sin(waves[:, 1, None]))
            image = Image.fromarray(np.moveaxis(colours, 0, -1).astype(np.uint8))
            folder = root / f"Core-{source}" / cell.split("_")[0] / cell / ids[source]
            folder.mkdir(parents=True)
            (image.convert("L") if source == "DEM" else image).save(folder / "thumbnail.png", compress_level=1)
    return root


def png(text: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), tuple(zlib.crc32(text.encode()).to_bytes(4, "big")[:3])).save(buffer, "PNG")
    return buffer.getvalue()


# --- files --------------------------------------------------------------------------------------------------------------------------

def write_images(folder: Path, some: list[Product], text_times: bool) -> None:
    rows = []
    for one in some:
        named = {} if one.source == "DEM" else {"product_id": one.id}
        timed = {} if one.time is None else {"timestamp": str(one.time) if text_times else one.time}
        rows.append({**named, "grid_cell": one.cell, **timed, "thumbnail": one.thumbnail, **one.bands})
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / some[0].file, row_group_size=1)


def metadata_of(one: Product, text_times: bool) -> dict[str, Any]:
    """A row of metadata.parquet, with the columns of its source."""
    lat, lon = one.footprint.centre
    row, column = one.cell.split("_")
    optical, dated = one.source.startswith("S2"), one.time is not None
    said: dict[str, Any] = {"grid_cell": one.cell, "grid_row_u": signed(row, "D"), "grid_col_r": signed(column, "L")}
    said |= {"product_id": one.id, "timestamp": str(one.time) if text_times else one.time} if dated else {}
    said |= {"cloud_cover": one.cloud_cover} if optical else {}
    said |= {"nodata": one.nodata} if dated else {"nodata": one.nodata, "max_val": 900.0, "min_val": 0.0}
    said |= {"orbit_state": "descending" if one.time and one.time.hour < 12 else "ascending"} if one.source == "S1RTC" else {}
    said |= {"centre_lat": lat, "centre_lon": lon, "crs": f"EPSG:{one.footprint.crs.to_epsg()}",
             "parquet_url": f"{HOST}/datasets/Major-TOM/Core-{one.source}/resolve/main/{one.file}", "parquet_row": one.row}
    if optical:
        return said | {"geometry": struct.pack("<BIdd", 1, 1, lon, lat)}                     # well-known binary of a point
    return said if dated else said | {"__index_level_0__": zlib.crc32(one.cell.encode()) % 10**6}


def signed(name: str, negative: str) -> int:
    return int(name[:-1]) * (-1 if name[-1] == negative else 1)


def troubled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with what is known to be wrong in the real metadata; the true rows are all there too."""
    first, other = rows[0], rows[-1]
    wrong = [dict(first)]                                                                    # twice
    if len(rows) > 1:
        wrong += [{**first, "parquet_url": other["parquet_url"], "parquet_row": other["parquet_row"]}]      # points to another's row
    if "cloud_cover" in first:
        wrong += [{**first, "cloud_cover": first["cloud_cover"] + 5.0}]
    true = [{**first, "crs": first["crs"].replace("EPSG:", "EPSG:EPSG:")}, *rows[1:]]
    return [wrong[-1], *true, *wrong[:-1]]       # a wrong one first, so that taking the first is found out


def write_product(root: Path, one: Product) -> Path:
    folder = root / f"Core-{one.source}" / one.cell.split("_")[0] / one.cell / one.id
    folder.mkdir(parents=True, exist_ok=True)
    for band, data in one.bands.items():
        (folder / f"{band}.tif").write_bytes(data)
    (folder / "thumbnail.png").write_bytes(one.thumbnail)
    return folder


def write_lulc(root: Path, cell: str, codes: NDArray[np.uint8], some: list[Product]) -> Path:
    year = next((one.time.year for one in some if one.time is not None), 2021)
    file = root / "Core-LULC" / Path(*cell.split("_")) / f"{cell}_{year}.tif"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(geotiff(codes, some[0].footprint))
    return file
