"""How a scene is written: a GeoTIFF or a picture a row, a GeoJSON for place and date, every file whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.enums import ColorInterp
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.transform import Affine, from_origin

from copgen import __version__
from copgen.files import json_bytes, plain, write_all
from copgen.modalities import Modality, Table
from copgen.scaling import Decibel, EightBit, Legend, Linear
from copgen.scene import Footprint, Scene

PLACE_AND_DATE = "place_and_date.geojson"
NO_DATA = -32768.0                               # heights and radar: no height is that deep, no power negative; Major TOM's own value
DECIBEL_UNIT = "gamma0 (dB)"
BAND_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
DESCRIPTION = 0x010E                             # Exif's tag for text about the image
RadarUnit = Literal["linear", "dB"]
PictureKind = Literal["png", "webp", "jpeg"]     # the first two are lossless


@dataclass(frozen=True)
class Stored:
    """Layers as their files hold them."""

    values: NDArray[Any]                         # [..., bands, H, W] in the file's type
    nodata: float | None                         # None: every value is one
    unit: str
    predictor: int                               # TIFF's: 1 none, 2 differences of integers, 3 of floating-point bytes


def save_scene(
    scene: Scene, folder: Path, *, s1_unit: RadarUnit = "linear", overwrite: bool = False, given: Scene | None = None,
    pictures: PictureKind = "png",
) -> list[Path]:
    """Write every layer of `scene` into `folder` (made if need be) and return the paths.

    A row becomes one GeoTIFF at its native resolution with the exact CRS and the square's transform: Sentinel-2 as uint16 DN in
    1..65535 (0 is no data), heights (m) and radar (linear power or dB) as float32 (-32768 is no data), classes as uint8 with a colour
    table, their names in the `.aux.xml` beside it (where GDAL keeps category names). Place and date become one GeoJSON. Where the
    ground is unknown there is no CRS: the square then lies on a local grid of metres with its lower left corner at 0, 0, and a place
    that was generated does not georeference it. A thumbnail becomes a picture, too, and only that where the ground is unknown. `given` is
    what the scene was made from: it is named in the tags, and its date is used where the scene has none.

    The files depend on the scene alone, to the byte. All are encoded before the first is written. Raises ValueError for a file that
    exists (unless `overwrite`), a folder that cannot be written and a full disk; none of the files is left then.
    """
    folder = Path(folder)
    files = {folder / name: data for name, data in scene_files(scene, s1_unit=s1_unit, given=given, pictures=pictures).items()}
    return write_all(files, overwrite=overwrite)


def file_names(table: Table, rows: Iterable[str], *, grounded: bool = True, pictures: PictureKind = "png") -> tuple[str, ...]:
    """The names of the files that these rows are written to, for `check_target`; `grounded` where the scene has a footprint."""
    names: list[str] = []
    for row in (table[name] for name in table.select(rows)):
        if not row.is_image:
            names.append(PLACE_AND_DATE)
        elif grounded or not is_picture(row):
            names += [raster_name(row)] + ([raster_name(row) + ".aux.xml"] if row.legend else [])
        names += [picture_name(row, pictures)] if is_picture(row) else []
    return tuple(dict.fromkeys(names))


def is_picture(row: Modality) -> bool:
    return isinstance(row.scale, EightBit)


def raster_name(row: Modality) -> str:
    """`S2L2A_10m.tif`, `DEM.tif`: the product, and what the row's name adds to it."""
    stem = row.name.lower().removeprefix(row.product.lower())
    return f"{row.name if stem == row.name.lower() else row.product + stem}.tif"


def picture_name(row: Modality, kind: PictureKind = "png") -> str:
    """`S2L2A_thumbnail.png`: as the raster, but for the ending."""
    return f"{raster_name(row).removesuffix('.tif')}.{kind}"


def scene_files(
    scene: Scene, *, s1_unit: RadarUnit = "linear", given: Scene | None = None, pictures: PictureKind = "png"
) -> dict[str, bytes]:
    """The bytes of every file of a scene, by name."""
    files: dict[str, bytes] = {}
    tags = provenance(scene, given)
    for row in scene.table.rows:
        if row.is_image and row.name in scene:
            if scene.footprint or not is_picture(row):
                files[raster_name(row)] = geotiff(row, scene[row.name], scene.footprint, scene.table.footprint, tags, s1_unit)
            if is_picture(row):
                files[picture_name(row, pictures)] = picture_file(row, scene[row.name], tags, pictures)
            if row.legend:
                files[raster_name(row) + ".aux.xml"] = category_names(row.legend)
    if "place" in scene or "date" in scene:
        files[PLACE_AND_DATE] = json_bytes(place_and_date(scene))
    return files


def stored(row: Modality, layer: NDArray[Any], s1_unit: RadarUnit = "linear") -> Stored:
    """Layers [..., bands, H, W] in their physical unit -> the numbers, unit and no-data value of their files."""
    if s1_unit not in ("linear", "dB"):
        raise ValueError(f"radar unit {s1_unit!r}: 'linear' (power) and 'dB' are known")
    match row.scale:
        case Legend() as legend:
            nodata = next((code for code, name in zip(legend.codes, legend.names, strict=True) if name == "no data"), 255)
            return Stored(layer.astype(np.uint8), nodata, row.unit, predictor=1)
        case EightBit():
            return Stored(layer.astype(np.uint8), None, row.unit, predictor=2)
        case Linear():
            return Stored(np.clip(np.rint(layer), 1, 65535).astype(np.uint16), 0, row.unit, predictor=2)
        case Decibel() as radar if s1_unit == "dB":
            decibel = 10 * np.log10(np.maximum(layer.astype(np.float64), radar.floor))
            return Stored(decibel.astype(np.float32), NO_DATA, DECIBEL_UNIT, predictor=3)
        case _:
            return Stored(layer.astype(np.float32), NO_DATA, row.unit, predictor=3)


def geotiff(
    row: Modality, layer: NDArray[Any], footprint: Footprint | None, side: float, tags: Mapping[str, str], s1_unit: RadarUnit = "linear"
) -> bytes:
    """One layer as the bytes of a GeoTIFF. Encoded in memory: GDAL may pass over a write that fails as it closes a file."""
    file = stored(row, layer, s1_unit)
    bands, height, width = file.values.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", dtype=file.values.dtype, count=bands, height=height, width=width, nodata=file.nodata,
            crs=footprint.crs if footprint else None, transform=ground_transform(row, footprint, side),
            compress="deflate", predictor=file.predictor,
        ) as dataset:
            if row.legend:
                dataset.write_colormap(1, dict(zip(row.legend.codes, row.legend.colours, strict=True)))
            describe(dataset, row, file.unit)
            dataset.update_tags(**tags, COPGEN_ROW=row.name, COPGEN_UNIT=file.unit)
            dataset.write(file.values)
        return bytes(memory.getbuffer())


def picture_file(row: Modality, layer: NDArray[Any], tags: Mapping[str, str], kind: PictureKind) -> bytes:
    """A thumbnail [3, H, W] as the bytes of a picture: the tags as PNG's text chunks, or as JSON in Exif's description."""
    if kind not in get_args(PictureKind):
        raise ValueError(f"pictures {kind!r}: there are {', '.join(get_args(PictureKind))}")
    said, memory = {**tags, "COPGEN_ROW": row.name, "COPGEN_UNIT": row.unit}, io.BytesIO()
    image = Image.fromarray(np.moveaxis(layer, 0, -1).astype(np.uint8))
    if kind == "png":
        chunks = PngInfo()
        for key, text in said.items():
            chunks.add_text(key, text)
        image.save(memory, "PNG", pnginfo=chunks)
        return memory.getvalue()
    exif = Image.Exif()
    exif[DESCRIPTION] = json.dumps(said)
    how = {"lossless": True} if kind == "webp" else {"quality": 95, "subsampling": 0}
    image.save(memory, kind.upper(), exif=exif, **how)
    return memory.getvalue()


def ground_transform(row: Modality, footprint: Footprint | None, side: float) -> Affine:
    """The square's geotransform at the row's resolution; on a local grid of metres where the ground is unknown."""
    assert row.resolution is not None
    return footprint.transform(row.resolution) if footprint else from_origin(0, side, row.resolution, row.resolution)


def describe(dataset: DatasetWriter, row: Modality, unit: str) -> None:
    dataset.descriptions = row.bands
    dataset.units = (unit,) * len(row.bands)
    if row.rgb:                                  # so that a viewer opens the file in natural colour
        colours = dict(zip(row.rgb, BAND_COLOURS, strict=True))
        dataset.colorinterp = tuple(colours.get(band, ColorInterp.undefined) for band in row.bands)


def category_names(legend: Legend) -> bytes:
    """GDAL's sidecar (PAM) with the name of each class, indexed by code; codes between that mean nothing have an empty name."""
    names = dict(zip(legend.codes, legend.names, strict=True))
    lines = [f"      <Category>{escape(names.get(code, ''))}</Category>" for code in range(max(legend.codes) + 1)]
    head = ["<PAMDataset>", '  <PAMRasterBand band="1">', "    <CategoryNames>"]
    return "\n".join([*head, *lines, "    </CategoryNames>", "  </PAMRasterBand>", "</PAMDataset>", ""]).encode()


def provenance(scene: Scene, given: Scene | None = None) -> dict[str, str]:
    """The tags of every file: who made it from what (the scene's notes, one tag each), and the day."""
    tags = {"COPGEN_VERSION": __version__, "COPGEN_SCENE": scene.name}
    if given is not None:
        tags["COPGEN_GIVEN"] = ",".join(name for name in given.table.names if name in given)
    if scene.footprint is None:
        tags["COPGEN_GROUND"] = "unknown place: local metres from the lower left corner of the square, not coordinates"
    for key, value in scene.notes.items():
        tags[f"COPGEN_{key.upper()}"] = value if isinstance(value, str) else words(value)
    dated = next((s for s in (scene, given) if s is not None and "date" in s), None)
    if dated is not None:
        tags["datetime"] = str(dated["date"][0])
    return tags


def words(value: Any) -> str:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value, default=plain, sort_keys=True)


def place_and_date(scene: Scene) -> dict[str, Any]:
    """Place and date as a GeoJSON FeatureCollection of one point (RFC 7946: longitude first), without geometry for no place."""
    geometry = None
    if "place" in scene:
        lat, lon = (round(float(degrees), 6) + 0.0 for degrees in scene["place"])
        geometry = {"type": "Point", "coordinates": [lon, lat]}
    date = str(scene["date"][0]) if "date" in scene else None
    notes = {key: value for key, value in scene.notes.items() if isinstance(value, (str, int, float, bool))}
    properties = {**notes, "name": scene.name, "date": date}
    return {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry, "properties": properties}]}
