"""Where and when is a world, and what is its climate and its sun?

Places are drawn uniformly from the land outside Antarctica. How dry and how rugged a part of the Earth is, is interpolated between some
ninety regions with numbers by hand, and the swing of the year follows the land around: so place is a cause of what is seen, through
the climate. Beyond this, and which coasts are near, longitude says nothing in these worlds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from copgen.scene import Footprint
from copgen.sun import Sun, day_of_year, sun_at
from copgen.synthetic.fields import PIXEL, logistic, stream
from copgen.synthetic.land import mask

FIRST, LAST = np.datetime64("2017-01-01"), np.datetime64("2025-12-31")
LOWEST_SUN = np.radians(79)                                       # Sentinel-2 takes no pictures of the polar night

# south, north, west, east (degrees), wetness (0 desert .. 1 rain forest), ruggedness (0 plain .. 1 high mountains)
REGIONS = np.array([
    (60, 70, -160, -142, .55, .6), (58, 68, -134, -112, .55, .3), (50, 60, -126, -114, .7, .8), (50, 60, -112, -96, .5, .1),
    (47, 56, -94, -72, .65, .2), (62, 72, -118, -96, .4, .2), (40, 48, -123, -112, .45, .8), (32, 40, -119, -108, .2, .7),
    (36, 48, -104, -92, .48, .1), (37, 44, -90, -76, .66, .3), (31, 37, -94, -80, .68, .2), (19, 30, -104, -99, .33, .7),
    (9, 17, -91, -83.8, .78, .6), (-4, 6, -78, -72, .92, .6), (-11, 1, -70, -51, .95, .1), (-14, -5, -46, -38, .38, .3),
    (-23, -14, -55, -43, .6, .3), (-20, -14, -71.5, -67, .28, 1), (-34, -24, -63, -53, .58, .1), (-39, -33, -66, -59, .45, .1),
    (-50, -40, -71, -67.5, .22, .5), (-32, -20, -69.8, -67, .08, 1), (51, 56, -4, -1, .7, .3), (58, 67, 12, 17, .62, .5),
    (61, 67, 23, 30, .58, .1), (43, 50, 0, 7, .6, .3), (47, 54, 7, 19, .58, .3), (45, 47.5, 7, 14, .72, 1), (37, 43, -7, -1, .36, .4),
    (38, 45, 15.5, 23, .48, .7), (44, 54, 22, 40, .52, .1), (54, 64, 32, 58, .58, .1), (37, 41, 29, 43, .33, .7),
    (55, 68, 62, 90, .55, .1), (54, 70, 92, 128, .45, .5), (45, 54, 52, 84, .25, .1), (41, 48, 88, 108, .14, .5), (28, 36, 80, 96, .28, 1),
    (36, 41, 77, 88, .05, .3), (24, 34, 103, 119, .7, .6), (34, 42, 108, 118, .45, .4), (43, 52, 118, 131, .52, .4),
    (21, 29, 74, 85, .48, .2), (12, 20, 75, 79.5, .45, .3), (26, 31, 70, 75, .14, .1), (12, 22, 97, 106, .72, .4),
    (-2, 4, 110, 116, .95, .4), (-6, -3.2, 138, 142, .95, .7), (25, 36, 48, 60, .08, .5), (16, 28, 42, 54, .03, .2),
    (19, 31, -6, 11, .02, .2), (18, 30, 12, 31, .01, .2), (11, 17, -10, 22, .26, .1), (6, 10, -7, 28, .62, .2), (-4, 4, 12, 28, .93, .1),
    (4, 12, 35, 41, .48, .9), (-10, -1, 31, 38, .5, .4), (-17, -8, 14, 32, .55, .2), (-27, -18, 16, 26, .18, .1),
    (-33, -25, 20, 30, .36, .4), (-23, -15, 45.5, 48, .6, .5), (-30, -19, 118, 140, .08, .1), (-35, -27, 142, 150, .38, .2),
    (-22, -15, 127, 145, .42, .2), (-44.8, -43, 169, 171.3, .7, 1), (70, 75, 90, 110, .3, .2), (63, 73, -50, -40, .4, .2),
    (33, 37, 71, 78, .3, 1), (64, 66, -21, -16, .65, .6), (37.5, 41.5, -9.2, -8.6, .55, .3), (52, 53, 4.2, 5, .6, 0),
    (55, 57, 8, 8.6, .6, .1), (60, 62.5, 4.8, 6, .8, .8), (61, 64, 21, 23, .58, .1), (36, 47, -124.2, -123.7, .65, .6),
    (31, 33, -81.5, -80.6, .68, 0), (27, 30, -97.6, -95, .55, 0), (57, 60, -94, -92.5, .45, .1), (-38, -30, -73, -71.3, .4, .6),
    (-14, -8, -79, -76.2, .08, .6), (-13, -5, -39, -35, .6, .2), (-28, -18, 12, 15.5, .02, .2), (4.8, 6.2, -3, 8, .8, .1),
    (36, 37, 1, 9, .42, .5), (-26, -18, 32.8, 36, .58, .1), (9, 15, 73.8, 76.4, .75, .3), (11, 17, 107.5, 109.3, .72, .5),
    (22, 27, 114, 119.5, .7, .5), (35, 40, 139.7, 141, .7, .6), (-22, -16, 145.5, 149, .6, .3), (-34, -31, 115, 115.8, .42, .1),
    (-44, -42, 171, 173, .65, .6), (64, 70, -53.5, -51, .45, .8), (2, 6, 115, 118, .92, .4), (66, 72, 128, 140, .35, .1),
    (60, 83, -58, -22, .3, .15), (73, 83, -118, -62, .25, .4), (73, 81, 52, 66, .35, .4), (-56, -50, -76, -66, .65, .6),
    (8, 18, 42, 51, .12, .4),
])


@dataclass(frozen=True)
class Setting:
    """Where and when, with its climate: what every layer of a world has in common."""

    seed: int
    footprint: Footprint
    lat: float
    lon: float
    date: np.datetime64
    wetness: float                     # 0 desert .. 1 rain forest: the climate, which follows from the place
    ruggedness: float                  # 0 plain .. 1 high mountains, which follows from the place too
    swing: float                       # kelvin: half of summer less winter, as well
    coastal: bool                      # whether the sea is within five kilometres
    base: float                        # metres above the sea: drawn with the terrain, which shows it
    warmer: float = 0.0                # the weather of these weeks beside the climate, in kelvin
    wetter: float = 0.0                # and as a share of a full soil

    @property
    def sun(self) -> Sun:
        """The sun when Sentinel-2 passes."""
        return sun_at(self.lat, self.date)

    @property
    def side(self) -> int:
        """Pixels of 10 m along one side."""
        return round(self.footprint.side / PIXEL)

    @property
    def season(self) -> float:
        """Days since the coldest of the year, 0..365: about 20 January in the north, 20 July in the south."""
        return float((day_of_year(self.date) - 20 - (0 if self.lat >= 0 else 182.5)) % 365.25)

    @property
    def annual(self) -> float:
        """Mean temperature of the year at the base height, degrees Celsius."""
        return 27.0 - 0.0073 * self.lat**2 + 1.2 * waves(self.lat, self.lon, 1) - 0.006 * self.base

    @property
    def summer(self) -> float:
        """Mean temperature of the warmest month at the base height: what lets trees and crops grow, and melts what is not glacier."""
        return self.annual + self.swing

    def temperature(self, lag: float = 0.0) -> float:
        """Temperature at the base height `lag` days before the date."""
        return self.annual + self.warmer - self.swing * float(np.cos(2 * np.pi * (self.season - lag) / 365.25))

    @property
    def rain(self) -> float:
        """0..1: how well watered plants are at the date; rain comes in summer, but in winter where the climate is Mediterranean."""
        mediterranean = 29 < abs(self.lat) < 44 and self.wetness < 0.5
        phase = 2 * np.pi * (self.season - (0 if mediterranean else 182.5) - 35) / 365.25
        swing = 0.75 * (1 - self.wetness) * float(np.clip(1.5 - abs(self.lat) / 50, 0.15, 1))
        return float(np.clip(0.25 + 0.9 * self.wetness + self.wetter + swing * np.cos(phase), 0, 1))

    @property
    def growth(self) -> float:
        """0..1: how green what drops its leaves is at the date."""
        return float(logistic((self.temperature(lag=18) - 8.0) / 2.2)) * self.rain


def setting(seed: int, side: float) -> Setting:
    """Draw place and date for a square of `side` metres, and what follows from them."""
    footprint = square(*mask().place(stream(seed, "place")), side)
    lat = footprint.centre[0]
    return located(seed, footprint, day_with_sun(stream(seed, "date"), lat))


def located(seed: int, footprint: Footprint, date: np.datetime64) -> Setting:
    """The setting of a given square and date. Its climate follows; only the height of its plain above the sea is drawn."""
    lat, lon = footprint.centre
    wetness, ruggedness = climate(lat, lon)
    coastal = mask().coastal(lat, lon)
    swing = (1.0 + (0.30 if lat > 0 else 0.20) * abs(lat)) * (0.62 + 0.55 * mask().continentality(lat, lon))
    base = stream(seed, "base").lognormal(np.log(60 + 1400 * ruggedness**1.5), 0.8)
    base = 0.0 if coastal else min(float(base), 300 + 4500 * ruggedness**1.3)
    return Setting(seed, footprint, lat, lon, date, wetness, ruggedness, swing, coastal, base)


def under_weather(where: Setting, seed: int) -> Setting:
    """The same place and date in weeks that are warmer or colder, wetter or drier than usual."""
    rng = stream(seed, "weather")
    return replace(where, warmer=float(rng.normal(0, 1.6)), wetter=float(rng.normal(0, 0.10)))


def day_with_sun(rng: Generator, lat: float) -> np.datetime64:
    """A day of Sentinel-2's years on which the sun stands high enough at the latitude."""
    for _ in range(1000):
        day = FIRST + np.timedelta64(int(rng.integers(0, int((LAST - FIRST).astype(int)) + 1)), "D")
        if sun_at(lat, day).zenith < LOWEST_SUN:
            return day
    raise ValueError(f"latitude {lat:.1f}: the sun never stands high enough for Sentinel-2")


def climate(lat: float, lon: float) -> tuple[float, float]:
    """Wetness and ruggedness of a place: of the regions around, the nearer the more, and smooth waves some hundred kilometres long."""
    south, north, west, east, wetness, ruggedness = REGIONS.T
    middle, half = (west + east) / 2, (east - west) / 2
    across = np.maximum(np.abs((lon - middle + 180) % 360 - 180) - half, 0) * np.cos(np.radians(lat))
    along = np.maximum(np.maximum(south - lat, lat - north), 0)
    weight = (np.hypot(across, along) + 1.0) ** -3
    weight /= weight.sum()
    return (float(np.clip(weight @ wetness + 0.07 * waves(lat, lon, 2), 0, 1)),
            float(np.clip(weight @ ruggedness + 0.12 * waves(lat, lon, 3), 0, 1)))


@lru_cache(maxsize=4)
def wave_numbers(which: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = stream(0, f"waves {which}")
    return rng.standard_normal((24, 3)) * 25, rng.uniform(0, 2 * np.pi, 24)


def waves(lat: float, lon: float, which: int) -> float:
    """A fixed smooth pattern over the globe, of about zero mean and unit variance: the regions' own variety."""
    phi, lam = np.radians(lat), np.radians(lon)
    direction, phase = wave_numbers(which)
    at = direction @ np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    return float(np.cos(at + phase).sum() / np.sqrt(12))


def square(lat: float, lon: float, side: float) -> Footprint:
    """The square of `side` metres around a place in its UTM zone, its corner on a multiple of 60 m."""
    zone = int((lon + 180) // 6) + 1
    crs = CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
    (x,), (y,) = warp_points(CRS.from_epsg(4326), crs, [lon], [lat])
    return Footprint(crs, round((x - side / 2) / 60) * 60.0, round((y + side / 2) / 60) * 60.0, float(side))
