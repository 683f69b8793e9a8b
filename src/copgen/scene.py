"""Scene: one square of ground at one time, its layers in physical units."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as warp_points

from copgen.modalities import TABLE, Table
from copgen.scaling import EightBit

FIRST_DATE, LAST_DATE = np.datetime64("1950-01-01"), np.datetime64("2050-12-31")   # what the date's encoding spans


@dataclass(frozen=True)
class Footprint:
    """A square of ground: its CRS (projected, in metres), the left and top edge and the side, in metres."""

    crs: CRS
    left: float
    top: float
    side: float = 1920.0

    def transform(self, resolution: float) -> Affine:
        """The geotransform of a north-up raster over this square at `resolution` metres a pixel."""
        return from_origin(self.left, self.top, resolution, resolution)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in metres."""
        return (self.left, self.top - self.side, self.left + self.side, self.top)

    @property
    def centre(self) -> tuple[float, float]:
        """Latitude and longitude of the centre in degrees (WGS 84)."""
        x, y = self.left + self.side / 2, self.top - self.side / 2
        lon, lat = warp_points(self.crs, CRS.from_epsg(4326), [x], [y])
        return float(lat[0]), float(lon[0])


@dataclass(frozen=True)
class Scene:
    """Layers of one square, by row name, in physical units.

    Images are [bands, H, W] (Sentinel-2 in DN, radar in linear power, heights in metres, classes as codes), `place` is [lat, lon] in
    degrees, `date` one datetime64[D]. `footprint` is None where the ground is unknown. `notes` are kept with what is made from this
    scene (files, hashes, what was filled). Raises ValueError for a layer that disagrees with its row, and for a footprint of another
    side than the table's.
    """

    layers: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    footprint: Footprint | None = None
    name: str = "scene"
    table: Table = TABLE
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.footprint is not None and self.footprint.side != self.table.footprint:
            raise ValueError(f"{self.name}: its footprint is {self.footprint.side:g} m wide and its table's {self.table.footprint} m; "
                             "give a square of the table's side, or a table of this footprint")
        object.__setattr__(self, "layers", {name: checked(self.table, name, layer) for name, layer in self.layers.items()})

    def __contains__(self, name: str) -> bool:
        return name in self.layers

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.layers[name]

    def only(self, names: str | Iterable[str]) -> Scene:
        """The same scene with only these layers (rows, products or released keys); ValueError for one it lacks."""
        chosen = self.table.select(names)
        missing = [name for name in chosen if name not in self.layers]
        if missing:
            raise ValueError(f"{self.name}: no layer {', '.join(missing)}; there are {', '.join(self.layers) or 'none'}")
        return replace(self, layers={name: self.layers[name] for name in chosen})

    def without(self, names: str | Iterable[str]) -> Scene:
        """The same scene less these layers."""
        dropped = set(self.table.select(names))
        return replace(self, layers={name: layer for name, layer in self.layers.items() if name not in dropped})

    def with_layers(self, layers: Mapping[str, NDArray[Any]], **notes: Any) -> Scene:
        """The same ground with exactly these layers; keyword arguments are added to the notes."""
        return replace(self, layers=dict(layers), notes={**self.notes, **notes})

    def save(self, folder: str | Path, *, s1_unit: Literal["linear", "dB"] = "linear", overwrite: bool = False) -> list[Path]:
        """Write every layer into `folder` as `copgen.writing.save_scene` does, and return the files' paths."""
        from copgen.writing import save_scene  # the one arrow upwards: a scene's own verb, its work a layer above

        return save_scene(self, Path(folder), s1_unit=s1_unit, overwrite=overwrite)


def checked(table: Table, name: str, layer: Any) -> NDArray[Any]:
    """The layer as an array that agrees with its row in shape, type and range, or ValueError."""
    if name not in table.by_name:
        raise ValueError(f"no row is called {name!r}; there are {', '.join(table.names)}")
    row = table[name]
    array = np.asarray(layer, "datetime64[D]") if name == "date" else np.asarray(layer)
    expected = table.layer_shape(name)
    if array.shape != expected:
        ground = f" ({table.footprint} m at {row.resolution} m)" if row.is_image else ""
        raise ValueError(f"{name}: expected {list(expected)}{ground}, got {list(array.shape)}")
    if name == "date":
        return checked_date(array)
    if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
        raise ValueError(f"{name}: every value must be a finite number; fill or mask no data first")
    if name == "place":
        return checked_place(array.astype(np.float64))
    if row.legend:
        row.legend.index(array)                  # refuses codes outside the legend
        return array.astype(np.uint8)
    if isinstance(row.scale, EightBit):
        return checked_levels(name, array)
    return array.astype(np.float32)


def checked_levels(name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 and ((array < 0) | (array > 255) | (array != np.floor(array))).any():
        raise ValueError(f"{name}: a picture has whole numbers from 0 to 255, and there are values from {array.min():g} to "
                         f"{array.max():g}; draw the layer first, or bring it to 8 bits")
    return array.astype(np.uint8)


def checked_place(place: NDArray[np.float64]) -> NDArray[np.float64]:
    lat, lon = (float(x) for x in place)
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise ValueError(f"place {lat},{lon}: latitude lies in -90..90 and longitude in -180..180 degrees, in this order: LAT,LON")
    return place


def checked_date(date: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    if np.isnat(date).any() or (date < FIRST_DATE).any() or (date > LAST_DATE).any():
        raise ValueError(f"date {date[0]}: a calendar day from {FIRST_DATE} to {LAST_DATE} is needed, as YYYY-MM-DD")
    return date


def parse_place(text: str) -> NDArray[np.float64]:
    """`LAT,LON` in degrees -> [2]; ValueError that says what is wrong."""
    try:
        lat, lon = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"place {text!r}: expected LAT,LON in degrees, such as 55.95,-3.19") from None
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise ValueError(f"place {text!r}: latitude and longitude must be finite numbers of degrees")
    return checked_place(np.array([lat, lon]))


def parse_date(text: str) -> NDArray[np.datetime64]:
    """`YYYY-MM-DD` -> [1] of datetime64[D]; ValueError that says what is wrong."""
    try:
        day = datetime.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise ValueError(f"date {text!r}: expected a calendar day as YYYY-MM-DD ({error})") from None
    return checked_date(np.array([day], "datetime64[D]"))
