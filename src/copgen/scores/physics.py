"""Do the layers of one place agree with one another? Measures of what physics says of several layers at once.

A generator may draw each layer well and still draw layers that cannot be of one place and day. Every measure here takes two layers or
more and needs no truth: an observation of the same ground shows what is usual there. A measure whose layers, classes or relief are not
there is left out. Sentinel-2 in DN, radar in linear power, heights in metres, classes as codes, as a scene has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import TABLE, Modality, Table
from copgen.scaling import Decibel
from copgen.scores.images import averaged
from copgen.sun import Sun, sun_at

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]

LEAST = 30                                       # pixels, of a class or on either side of a comparison
LEAST_ON_SLOPES = 200                            # pixels, and how much the relief must vary below: less says nothing about slopes
LEAST_RELIEF = 0.05                              # standard deviation of the slope, and of the cosine of the sun's incidence on it
GRAZING = 0.1                                    # a smaller cosine of the incidence is mostly light of the sky
LEAST_DN = 1.0                                   # what the products have at least, and a generator may miss
DARK = 1500.0                                    # DN in B02: on brighter ground the air takes away as much light as it adds
BLUE = 0.492                                     # micrometres, the middle of B02
NOTHING_SEEN = ("no data", "clouds")             # classes of land cover that are no land cover
SLOPED = 30                                      # metres a pixel where slopes are compared: the DEM's own
Unknown = Mapping[str, NDArray[np.bool_]]


class Measure(NamedTuple):
    """A number and how many pixels it is of. Its name begins with `consistency` and ends with its unit."""

    name: str
    value: float
    weight: int


def consistency(layers: Mapping[str, NDArray[Any]], table: Table = TABLE, sun: Sun | None = None,
                unknown: Unknown | None = None) -> list[Measure]:
    """All measures that the layers of one place allow, by row name in physical units.

    sun: where it stood; None takes it from the layers `place` and `date` at Sentinel-2's 10:30, or leaves out what needs it.
    unknown: pixels that nothing is known of, [bands, H, W] by row, for layers that were filled.
    """
    if sun is None and "place" in layers and "date" in layers:
        sun = sun_at(float(layers["place"][0]), np.asarray(layers["date"], "datetime64[D]")[0])
    place = Place(layers, table, sun, unknown or {})
    return [Measure(f"consistency {one.name}", float(one.value), int(one.weight))
            for kind in (vegetation, atmosphere, water, cloud, sunlight, radar_slopes) for one in kind(place)]


# --- a place ------------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Place:
    """Layers of one place, by product and band at any whole multiple of their resolution; NaN and -1 where nothing is known."""

    layers: Mapping[str, NDArray[Any]]
    table: Table
    sun: Sun | None
    unknown: Unknown = field(default_factory=dict)
    kept: dict[tuple[str, int], Codes | None] = field(default_factory=dict)            # classes by product and resolution, asked for often

    def row(self, product: str, band: str) -> Modality | None:
        return next((row for row in self.table.rows if row.product == product and band in row.bands and row.name in self.layers), None)

    def band(self, product: str, band: str, resolution: int) -> Array | None:
        """One band [H, W], averaged to coarser pixels; radar in dB. None where it isn't there, or does not fill such pixels."""
        row = self.row(product, band)
        values = None if row is None else self._pixels(row, band)
        factor = None if row is None or values is None else whole_factor(row, values, resolution)
        if row is None or values is None or factor is None:
            return None
        coarse = averaged(values, factor) if factor > 1 else values
        return np.asarray(row.scale.decibels(coarse) if isinstance(row.scale, Decibel) else coarse, np.float64)

    def _pixels(self, row: Modality, band: str) -> Array:
        k = row.bands.index(band)
        values = np.asarray(self.layers[row.name][k], np.float64)
        return np.where(self.unknown[row.name][k], np.nan, values) if row.name in self.unknown else values

    def codes(self, product: str, resolution: int) -> Codes | None:
        """The class of every pixel [H, W] at a resolution; -1 where its parts disagree or are not known."""
        if (product, resolution) not in self.kept:
            self.kept[product, resolution] = self._codes(product, resolution)
        return self.kept[product, resolution]

    def _codes(self, product: str, resolution: int) -> Codes | None:
        row = self.row(product, product)
        values = None if row is None else np.nan_to_num(self._pixels(row, product), nan=-1).astype(np.int64)
        factor = None if row is None or values is None else whole_factor(row, values, resolution)
        if values is None or factor is None:
            return None
        parts = np.stack([values[i::factor, j::factor] for i in range(factor) for j in range(factor)])
        return np.where((parts == parts[0]).all(0), parts[0], -1)

    def code(self, product: str, name: str) -> int:
        """The code of a class by its name; -2, which no pixel has, where the legend lacks it."""
        legend = next((row.legend for row in self.table.rows if row.product == product), None)
        return legend.codes[legend.names.index(name)] if legend and name in legend.names else -2

    def clear(self, resolution: int) -> Mask | bool:
        """Where no cloud and no shadow is mapped; everywhere without a cloud mask."""
        codes = self.codes("cloud_mask", resolution)
        return True if codes is None else codes == self.code("cloud_mask", "clear")

    def land_cover(self, resolution: int) -> Codes | None:
        """The land cover [H, W] at a resolution; -1 where it is mixed, not known, or says that nothing was seen."""
        codes = self.codes("LULC", resolution)
        blind = [self.code("LULC", name) for name in NOTHING_SEEN]
        return None if codes is None else np.where(np.isin(codes, blind), -1, codes)

    def slope(self, resolution: int = SLOPED) -> tuple[Array, Array] | None:
        """Rise per metre to the east and to the north, [H, W] each."""
        height = self.band("DEM", "DEM", resolution)
        if height is None:
            return None
        return np.gradient(height, resolution, axis=1), -np.gradient(height, resolution, axis=0)


def whole_factor(row: Modality, values: NDArray[Any], resolution: int) -> int | None:
    """How many of a row's pixels make one at a resolution, along a side; None where they do not fill it."""
    if row.resolution is None or resolution % row.resolution:
        return None
    factor = resolution // row.resolution
    return None if any(size % factor for size in values.shape) else factor


# --- vegetation and water -----------------------------------------------------------------------------------------------------------

def vegetation(place: Place) -> Iterator[Measure]:
    """NDVI (Rouse et al. 1974) of the classes of the land cover, and how much of its variance they explain (the correlation ratio).

    Trees have most leaves, bare ground, towns, snow and water few: a map that says otherwise is of another place. DN below 1, which the
    products don't have, count as 1.
    """
    red, infrared, codes = place.band("S2L2A", "B04", 10), place.band("S2L2A", "B08", 10), place.land_cover(10)
    legend = next((row.legend for row in place.table.rows if row.product == "LULC"), None)
    if red is None or infrared is None or codes is None or legend is None:
        return
    seen = (codes >= 0) & place.clear(10) & np.isfinite(red + infrared)
    red, infrared = np.maximum(red, LEAST_DN), np.maximum(infrared, LEAST_DN)
    ndvi = (infrared - red) / (infrared + red)
    there = {name: ndvi[seen & (codes == code)] for code, name in zip(legend.codes, legend.names, strict=True)}
    there = {name: values for name, values in there.items() if len(values) >= LEAST}
    for name, values in there.items():
        yield Measure(f"NDVI of {name}, ratio", values.mean(), len(values))
    if len(there) > 1:
        every = np.concatenate(list(there.values()))
        between = sum(len(values) * (values.mean() - every.mean()) ** 2 for values in there.values())
        if every.var() > 0:
            yield Measure("NDVI explained by land cover, share of variance", between / len(every) / every.var(), len(every))


def water(place: Place) -> Iterator[Measure]:
    """Open water mirrors the radar away and absorbs short-wave infrared: both are lower there than on land; and it lies flat."""
    for product, band, unit in (("S1RTC", "vv", "dB"), ("S1RTC", "vh", "dB"), ("S2L2A", "B11", "DN")):
        row = place.row(product, band)
        resolution = row.resolution if row and row.resolution else 10
        values, codes = place.band(product, band, resolution), place.land_cover(resolution)
        if values is not None and codes is not None:
            seen = np.isfinite(values) & (codes >= 0) & (place.clear(resolution) if product == "S2L2A" else True)
            wet = codes == place.code("LULC", "water")
            yield from compared(f"{band.upper()} of water below land", unit, values[seen & wet], values[seen & ~wet])
    slope, codes = place.slope(), place.land_cover(SLOPED)
    if slope is not None and codes is not None:
        steep = np.hypot(*slope)[codes == place.code("LULC", "water")]
        steep = steep[np.isfinite(steep)]
        if len(steep) >= LEAST:
            yield Measure("slope of water, m per m", steep.mean(), len(steep))


def cloud(place: Place) -> Iterator[Measure]:
    """What is mapped as thick cloud is brighter than what is mapped as clear, in blue where land is dark."""
    blue, codes = place.band("S2L1C", "B02", 10), place.codes("cloud_mask", 10)
    if blue is not None and codes is not None:
        clear, thick = (blue[np.isfinite(blue) & (codes == place.code("cloud_mask", name))] for name in ("clear", "thick cloud"))
        yield from compared("blue of clear ground below thick cloud", "DN", clear, thick)


def compared(what: str, unit: str, low: Array, high: Array) -> Iterator[Measure]:
    """How far the mean of one group lies below another's, and how likely a pixel of one is below a pixel of the other.

    The likelihood is the area under the receiver operating characteristic, ties counting half (Mann and Whitney 1947); the weight is the
    smaller group's.
    """
    if len(low) < LEAST or len(high) < LEAST:
        return
    line = np.sort(high)
    below = len(high) - (np.searchsorted(line, low, "left") + np.searchsorted(line, low, "right")) / 2
    yield Measure(f"{what}, {unit}", high.mean() - low.mean(), min(len(low), len(high)))
    yield Measure(f"{what}, probability", below.mean() / len(high), min(len(low), len(high)))


# --- the air ------------------------------------------------------------------------------------------------------------------------

def atmosphere(place: Place) -> Iterator[Measure]:
    """Air scatters blue light into the view: over dark ground the top of the atmosphere (L1C) is bluer than the ground (L2A).

    The least that it adds is known from the sun and the height of the place: see `molecules`. What L1C has beyond that is aerosol, or
    a fault; and as scattering fills in what is dark and dims what is bright, the difference goes with `molecules` pixel by pixel.
    """
    above, below = place.band("S2L1C", "B02", 10), place.band("S2L2A", "B02", 10)
    if above is None or below is None:
        return
    seen = np.isfinite(above) & np.isfinite(below) & place.clear(10)
    added = above - below
    dark = seen & (below < DARK)
    if dark.sum() < LEAST:
        return
    yield Measure("blue of L1C above L2A over dark ground, DN", added[dark].mean(), dark.sum())
    yield Measure("blue of L1C above L2A over dark ground, share of pixels", (added[dark] > 0).mean(), dark.sum())
    if place.sun is None:
        return
    height = place.band("DEM", "DEM", SLOPED)
    expected = 10_000 * molecules(place.sun, 0.0 if height is None else float(np.nanmean(height)), below / 10_000)
    yield Measure("blue of molecules alone over dark ground, DN", expected[dark].mean(), dark.sum())
    yield Measure("blue of L1C above L2A and molecules over dark ground, DN", (added - expected)[dark].mean(), dark.sum())
    if expected[seen].std() > 1:
        together = np.corrcoef(added[seen], expected[seen])[0, 1]
        yield Measure("blue of L1C less L2A with that of molecules, correlation", together, seen.sum())


def molecules(sun: Sun, height: float, ground: Array) -> Array:
    """What air without aerosol adds to the blue reflectance of ground seen straight from above, as a reflectance; single scattering.

    The optical depth is 0.008735 lambda^-4.08 by the pressure at a height of so many metres (Leckner 1978, Solar Energy 20, 143-150).
    The path adds P tau / (4 cos zenith), P = 3/4 (1 + cos^2) being Rayleigh's phase function; half of what is scattered is lost.
    """
    mu = max(float(np.cos(sun.zenith)), 0.2)     # single scattering overrates a low sun
    tau = 0.008735 * BLUE**-4.08 * float(np.exp(-height / 8000))
    path = 0.75 * (1 + mu**2) * tau / (4 * mu)
    return path - (1 - np.exp(-0.5 * tau * (1 + 1 / mu))) * ground


# --- slopes -------------------------------------------------------------------------------------------------------------------------

def sunlight(place: Place) -> Iterator[Measure]:
    """Slopes that face the sun are brighter: by the cosine of the sun's incidence where all light is direct and the ground is matt.

    The exponent is Minnaert's (Smith, Lin and Ranson 1980, Photogrammetric Engineering 46, 1183-1189): 1 for that case, less with
    light from the sky, 0 where the slopes have no part in it, as after a terrain correction. Classes are compared with themselves.
    """
    slope = place.slope()
    if slope is None or place.sun is None:
        return
    light = place.sun.on_slope(*slope)
    for product in ("S2L1C", "S2L2A"):
        bands = [place.band(product, band, SLOPED) for band in ("B02", "B03", "B04", "B08")]
        if any(band is None for band in bands):
            continue
        bright = np.maximum(np.mean([band for band in bands if band is not None], axis=0), LEAST_DN)
        groups = sloped_groups(place, place.clear(SLOPED) & (light > GRAZING) & np.isfinite(bright))
        kept = groups >= 0
        if kept.sum() < LEAST_ON_SLOPES or light[kept].std() < LEAST_RELIEF:
            continue
        x, y = (within(np.log(values[kept]), groups[kept]) for values in (light, bright))
        if x @ x > 0 and y @ y > 0:
            what, together = f"{product[2:]} brightness with sunlight on slopes", float(x @ y)
            yield Measure(f"{what}, correlation", together / float(np.sqrt((x @ x) * (y @ y))), kept.sum())
            yield Measure(f"{what}, exponent", together / float(x @ x), kept.sum())


def radar_slopes(place: Place) -> Iterator[Measure]:
    """What terrain correction left of the slopes in gamma-naught: nothing if all was well, brightness to one side if not.

    Sentinel-1 looks east or west, so it is the slope in that direction whose coefficient is told, without its sign; the share of variance
    is that of slopes in both directions together, less what as many random ones would explain (adjusted R squared, Ezekiel 1930).
    """
    slope = place.slope()
    if slope is None:
        return
    for band in ("vv", "vh"):
        decibels = place.band("S1RTC", band, SLOPED)
        if decibels is None:
            continue
        groups = sloped_groups(place, np.isfinite(decibels))
        kept = groups >= 0
        count = int(kept.sum())
        if count < LEAST_ON_SLOPES or np.hypot(slope[0][kept].std(), slope[1][kept].std()) < LEAST_RELIEF:
            continue
        x, y = np.stack([within(side[kept], groups[kept]) for side in slope], 1), within(decibels[kept], groups[kept])
        found, *_ = np.linalg.lstsq(x, y, rcond=None)
        free = count - len(np.unique(groups[kept]))
        if y @ y > 0 and free > 2:
            left = ((y - x @ found) ** 2).sum() / (y @ y)
            yield Measure(f"{band.upper()} left on slopes, share of variance", 1 - left * free / (free - 2), count)
            yield Measure(f"{band.upper()} left on slopes to east or west, dB per unit slope", abs(found[0]), count)


def sloped_groups(place: Place, seen: Mask) -> Codes:
    """The land cover of pixels that can be compared on slopes, [H, W]; -1 for water and for the rest; one class without a land cover."""
    slope, codes = place.slope(), place.land_cover(SLOPED)
    seen = seen & np.isfinite(slope[0] + slope[1]) if slope is not None else seen
    if codes is None:
        return np.where(seen, 0, -1)
    return np.where(seen & (codes != place.code("LULC", "water")), codes, -1)


def within(values: Array, groups: Codes) -> Array:
    """Values [n] less the mean of their group."""
    _, member = np.unique(groups, return_inverse=True)
    return values - (np.bincount(member, values) / np.bincount(member))[member]
