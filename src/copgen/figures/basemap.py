"""What lies under the dots of a world map: coastlines without a network, and any polygons or raster that somebody gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm, Normalize, is_color_like
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from copgen.figures.style import PALE

SEA, LAND, COAST, GRID = "#EEF3F6", "#E3E0D8", "#8D9096", "#D5DADD"
WORLD = (-180.0, 180.0, -90.0, 90.0)
CELLS = (720, 1440)                              # of the coastline's grid, from the north: a quarter of a degree
SAMPLED = 5                                      # every fifth row of the mask's 21600
RASTER = (1000, 2000)                            # a raster is read no finer than this: a page at 300 dpi is 2100 pixels wide
# Peel et al. 2007, the five major climates of Koeppen, in the colours of the published figures
KNOWN = {"Arid": "#fb8072", "Tropical": "#b3de69", "Temperate": "#ffffb3", "Cold": "#bebada", "Polar": "#8dd3c7"}
# ColorBrewer's Set3: pale, so that dots stand out
PASTELS = ("#8dd3c7", "#ffffb3", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#fccde5", "#d9d9d9", "#bc80bd", "#ccebc5",
           "#ffed6f")


@dataclass(frozen=True)
class Areas:
    """Polygons from GeoJSON, each an outline in degrees with its value: a word, a colour or a number."""

    name: str
    outlines: tuple[Outline, ...]
    values: tuple[str | float, ...]

    def draw(self, axes: Axes) -> list[Patch]:
        """Fill them and return what a legend needs; numbers get a colour bar instead."""
        if all(isinstance(value, float) for value in self.values):
            shades = ScalarMappable(Normalize(), "cividis")
            numbers = np.array(self.values, float)
            shades.set_array(numbers)
            shades.autoscale()
            axes.add_collection(PathCollection(list(self.outlines), facecolors=shades.to_rgba(numbers), linewidths=0, zorder=1))
            colour_bar(axes, shades, self.name)
            return []
        words = [str(value) for value in self.values]
        colours = chosen_colours(words)
        axes.add_collection(PathCollection(list(self.outlines), facecolors=[colours[word] for word in words], linewidths=0, zorder=1))
        return [Patch(facecolor=colour, label=word) for word, colour in colours.items() if word.lower() != colour.lower()]


@dataclass(frozen=True)
class Raster:
    """A raster in degrees: values [H, W] with NaN where there are none, or colours [H, W, 3 or 4] in 0..1; and its bounds."""

    name: str
    values: NDArray[Any]
    bounds: tuple[float, float, float, float]    # west, east, south, north

    def draw(self, axes: Axes) -> list[Patch]:
        if self.values.ndim == 3:
            axes.imshow(self.values, extent=self.bounds, zorder=1, aspect="auto", interpolation="bilinear")
            return []
        known = self.values[np.isfinite(self.values)]
        low, high = (float(x) for x in np.quantile(known, [0.02, 0.98])) if known.size else (0.0, 1.0)
        skewed = known.size and low > 0 and high > 100 * low
        scale = LogNorm(low, high) if skewed else Normalize(low, max(high, low + 1e-9))
        shown = axes.imshow(self.values, extent=self.bounds, zorder=1, aspect="auto", cmap="cividis", norm=scale, alpha=0.7)
        colour_bar(axes, shown, self.name)
        return []


Basemap = Areas | Raster


def colour_bar(axes: Axes, shown: ScalarMappable, name: str) -> None:
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes((1.01, 0, 0.015, 1)))
    bar.set_label(name, fontsize=6, labelpad=1)
    bar.ax.tick_params(labelsize=6, length=1.5, pad=1)


def chosen_colours(words: Sequence[str]) -> dict[str, str]:
    """A colour a word: its own where it is one (#rrggbb), the known climates' first and in their order, else the next pale one."""
    spare = cycle(PASTELS)
    order = [word for word in KNOWN if word in words] + sorted(set(words) - set(KNOWN))
    return {word: word if word.startswith("#") and is_color_like(word) else KNOWN.get(word) or next(spare) for word in order}


def draw_world(axes: Axes, bounds: tuple[float, float, float, float] = WORLD, basemap: Basemap | None = None) -> list[Patch]:
    """A plate carree map with coastlines on these axes, and under them the basemap; returns the basemap's legend."""
    legend = basemap.draw(axes) if basemap else []
    axes.set_facecolor(SEA)
    lat, lon, share = land_share()
    if basemap is None:
        axes.contourf(lon, lat, share, levels=[0.5, 1.5], colors=[LAND], zorder=1)
    axes.contour(lon, lat, share, levels=[0.5], colors=[COAST], linewidths=0.3, zorder=2)
    west, east, south, north = bounds
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
    axes.set_xticks(np.arange(-180, 181, 60), [degrees(x, "W", "E") for x in range(-180, 181, 60)])
    axes.set_yticks(np.arange(-60, 91, 30), [degrees(y, "S", "N") for y in range(-60, 91, 30)])
    axes.set(xlim=(west, east), ylim=(south, north))
    axes.tick_params(length=0, labelsize=6, labelcolor=PALE)
    axes.grid(True, color=GRID, linewidth=0.3, zorder=1.5)
    axes.set_axisbelow(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GRID, linewidth=0.5)
    return legend


def degrees(value: int, below: str, above: str) -> str:
    return f"{abs(value)}°{below if value < 0 else above if value > 0 else ''}" if abs(value) < 180 else "180°"


@lru_cache(maxsize=1)
def land_share() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Latitudes from the north, longitudes, and the share of land in each cell of a quarter of a degree [720, 1440].

    From the 1 km mask of global-land-mask (NOAA's GLOBE), read once a process; ValueError where the package is not installed.
    """
    from copgen.synthetic.land import COLUMNS, ROWS, mask

    found = mask()
    share = np.zeros(CELLS, np.float32)
    rows, wide = ROWS // CELLS[0], COLUMNS // CELLS[1]
    for row in range(SAMPLED // 2, ROWS, SAMPLED):
        changes = np.zeros(COLUMNS, np.int8)
        changes[found.turns[found.starts[row]:found.starts[row + 1]]] = 1
        land = (np.cumsum(changes, dtype=np.int32) % 2 == 1) == found.first[row]
        share[row // rows] += land.reshape(CELLS[1], wide).mean(1)
    lat, lon = (np.arange(count) + 0.5 for count in CELLS)
    return 90 - lat * 180 / CELLS[0], lon * 360 / CELLS[1] - 180, share / (rows / SAMPLED)


def on_land(places: NDArray[np.float64]) -> float:
    """The share of places [n, 2] (latitude, longitude) that lie on land, lakes counted as land."""
    from copgen.synthetic.land import mask

    found = mask()
    return float(np.mean([not found.sea(float(lat), float(lon)) for lat, lon in places]))


# --- what is given ------------------------------------------------------------------------------------------------------------------

def read_basemap(path: str | Path, by: str | None = None) -> Basemap:
    """Polygons of a GeoJSON file, coloured by the property `by`, or a raster of one band (values) or three (colours) in EPSG:4326.

    Raises ValueError for another CRS, other geometries than polygons, and a property that no feature has.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; a basemap is a GeoJSON file of polygons or a raster in EPSG:4326")
    return read_areas(path, by) if path.suffix.lower() in (".json", ".geojson") else read_raster(path)


def read_areas(path: Path, by: str | None) -> Areas:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no GeoJSON ({error}); give a FeatureCollection of polygons") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or not features or not all(isinstance(one, dict) for one in features):
        raise ValueError(f"{path}: has no features; give a GeoJSON FeatureCollection of polygons")
    properties = [one.get("properties") or {} for one in features]
    if by is None:
        by = next((key for key, value in properties[0].items() if isinstance(value, str | int | float)), "")
    if not any(by in one for one in properties):
        there = sorted({key for one in properties for key in one})
        raise ValueError(f"{path}: no feature has the property {by!r} to be coloured by; there are: {', '.join(there) or 'none'}")
    kept = [(outline(path, one.get("geometry")), known[by]) for one, known in zip(features, properties, strict=True)
            if known.get(by) is not None]
    numeric = all(isinstance(value, int | float) for _, value in kept)
    return Areas(by, tuple(shape for shape, _ in kept), tuple(float(value) if numeric else str(value) for _, value in kept))


def outline(path: Path, geometry: Any) -> Outline:
    """A Polygon or MultiPolygon as one path: rings outside run one way, holes the other, whatever the file does."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"{path}: a feature of type {kind}; a basemap has features of type Polygon or MultiPolygon only")
    polygons = geometry.get("coordinates") if kind == "MultiPolygon" else [geometry.get("coordinates")]
    try:
        rings = [wound(np.array([point[:2] for point in ring], np.float64), outside=k == 0)
                 for rings in polygons for k, ring in enumerate(rings)]
        points = np.concatenate(rings)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: a {kind} whose coordinates are not rings of [longitude, latitude]; write it again as GeoJSON") from error
    if not np.isfinite(points).all() or (np.abs(points) > (181, 91)).any():
        raise ValueError(f"{path}: coordinates such as {points[np.abs(points).max(1).argmax()].tolist()} are no longitudes and latitudes; "
                         "reproject it to EPSG:4326, which GeoJSON demands")
    return Outline(points, np.concatenate([codes(len(ring)) for ring in rings]))


def wound(ring: NDArray[np.float64], outside: bool) -> NDArray[np.float64]:
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 4:
        raise ValueError("a ring has at least four points")
    x, y = ring.T
    area = float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    return ring if (area > 0) == outside else ring[::-1]


def codes(points: int) -> NDArray[np.uint8]:
    return np.array([Outline.MOVETO, *[Outline.LINETO] * (points - 2), Outline.CLOSEPOLY], np.uint8)


def read_raster(path: Path) -> Raster:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path) as source:
            if source.crs is None or source.crs.to_epsg() != 4326 or source.transform.b or source.transform.d:
                raise ValueError(f"{path}: its CRS is {source.crs or 'unknown'}; a basemap is a north-up raster in EPSG:4326: "
                                 "reproject it (gdalwarp -t_srs EPSG:4326)")
            if source.count not in (1, 3, 4):
                raise ValueError(f"{path}: has {source.count} bands; a basemap has 1 (values) or 3 (red, green, blue)")
            size = tuple(min(have, most) for have, most in zip(source.shape, RASTER, strict=True))
            bands = source.read(out_shape=(source.count, *size), resampling=Resampling.average, masked=True)
            west, south, east, north = source.bounds
    except RasterioIOError as error:
        raise ValueError(f"{path}: is no raster that can be read ({error}); a basemap is GeoJSON or a GeoTIFF in EPSG:4326") from error
    if source.count == 1:
        return Raster(path.stem, bands[0].astype(np.float64).filled(np.nan), (west, east, south, north))
    if bands.dtype != np.uint8:
        raise ValueError(f"{path}: its colours are {bands.dtype}; a basemap of three bands has bytes, 0 to 255")
    return Raster(path.stem, np.moveaxis(bands.filled(255), 0, -1) / 255.0, (west, east, south, north))
