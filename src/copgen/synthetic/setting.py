"""Where and when is a world, and what is its climate and its sun?

Places are drawn from rectangles that cover the land roughly. Each carries how wet and how rugged that part of the Earth is; beyond this,
longitude says nothing in these worlds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from copgen.scene import Footprint
from copgen.synthetic.fields import logistic, stream

FIRST, LAST = np.datetime64("2017-01-01"), np.datetime64("2025-12-31")

# south, north, west, east (degrees), weight, wetness (0 desert .. 1 rain forest), ruggedness (0 plain .. 1 high mountains)
LAND = np.array([
    (60, 70, -160, -142, 1.5, .55, .6), (58, 68, -134, -112, 2.0, .55, .3), (50, 60, -126, -114, 1.5, .70, .8),
    (50, 60, -112, -96, 1.5, .50, .1), (47, 56, -94, -72, 2.0, .65, .2), (62, 72, -118, -96, 1.2, .40, .2),
    (40, 48, -123, -112, 1.5, .45, .8), (32, 40, -119, -108, 1.5, .20, .7), (36, 48, -104, -92, 2.8, .48, .1),
    (37, 44, -90, -76, 2.5, .66, .3), (31, 37, -94, -80, 2.0, .68, .2), (19, 30, -104, -99, 1.2, .33, .7),
    (9, 17, -91, -83.8, 0.8, .78, .6), (-4, 6, -78, -72, 1.0, .92, .6), (-11, 1, -70, -51, 3.0, .95, .1),
    (-14, -5, -46, -38, 1.2, .38, .3), (-23, -14, -55, -43, 2.0, .60, .3), (-20, -14, -71.5, -67, 1.2, .28, 1.),
    (-34, -24, -63, -53, 2.0, .58, .1), (-39, -33, -66, -59, 1.3, .45, .1), (-50, -40, -71, -67.5, 1.0, .22, .5),
    (-32, -20, -69.8, -67, 0.8, .08, 1.), (51, 56, -4, -1, 1.0, .70, .3), (58, 67, 12, 17, 1.5, .62, .5), (61, 67, 23, 30, 1.5, .58, .1),
    (43, 50, 0, 7, 2.5, .60, .3), (47, 54, 7, 19, 3.0, .58, .3), (45, 47.5, 7, 14, 1.2, .72, 1.), (37, 43, -7, -1, 1.5, .36, .4),
    (38, 45, 15.5, 23, 0.9, .48, .7), (44, 54, 22, 40, 2.5, .52, .1), (54, 64, 32, 58, 2.5, .58, .1), (37, 41, 29, 43, 1.3, .33, .7),
    (55, 68, 62, 90, 2.0, .55, .1), (54, 70, 92, 128, 2.0, .45, .5), (45, 54, 52, 84, 2.5, .25, .1), (41, 48, 88, 108, 2.0, .14, .5),
    (28, 36, 80, 96, 2.0, .28, 1.), (36, 41, 77, 88, 1.0, .05, .3), (24, 34, 103, 119, 2.5, .70, .6), (34, 42, 108, 118, 1.8, .45, .4),
    (43, 52, 118, 131, 1.5, .52, .4), (21, 29, 74, 85, 2.2, .48, .2), (12, 20, 75, 79.5, 1.5, .45, .3), (26, 31, 70, 75, 0.8, .14, .1),
    (12, 22, 97, 106, 1.5, .72, .4), (-2, 4, 110, 116, 1.2, .95, .4), (-6, -3.2, 138, 142, 0.6, .95, .7), (25, 36, 48, 60, 1.6, .08, .5),
    (16, 28, 42, 54, 1.8, .03, .2), (19, 31, -6, 11, 2.5, .02, .2), (18, 30, 12, 31, 2.5, .01, .2), (11, 17, -10, 22, 2.5, .26, .1),
    (6, 10, -7, 28, 2.0, .62, .2), (-4, 4, 12, 28, 2.5, .93, .1), (4, 12, 35, 41, 1.5, .48, .9), (-10, -1, 31, 38, 1.8, .50, .4),
    (-17, -8, 14, 32, 2.2, .55, .2), (-27, -18, 16, 26, 1.8, .18, .1), (-33, -25, 20, 30, 1.6, .36, .4),
    (-23, -15, 45.5, 48, 0.8, .60, .5), (-30, -19, 118, 140, 2.5, .08, .1), (-35, -27, 142, 150, 1.8, .38, .2),
    (-22, -15, 127, 145, 1.5, .42, .2), (-44.8, -43, 169, 171.3, 0.6, .7, 1.), (70, 75, 90, 110, 0.8, .30, .2),
    (63, 73, -50, -40, 0.7, .40, .2), (33, 37, 71, 78, 0.8, .30, 1.), (64, 66, -21, -16, 0.5, .65, .6),
])

# the same for strips along coasts, without a weight
COASTS = np.array([
    (37.5, 41.5, -9.2, -8.6, .55, .3), (52, 53, 4.2, 5.0, .60, .0), (55, 57, 8, 8.6, .60, .1), (60, 62.5, 4.8, 6, .80, .8),
    (61, 64, 21, 23, .58, .1), (36, 47, -124.2, -123.7, .65, .6), (31, 33, -81.5, -80.6, .68, .0), (27, 30, -97.6, -95, .55, .0),
    (57, 60, -94, -92.5, .45, .1), (-38, -30, -73, -71.3, .40, .6), (-14, -8, -79, -76.2, .08, .6), (-13, -5, -39, -35, .60, .2),
    (-28, -18, 12, 15.5, .02, .2), (4.8, 6.2, -3, 8, .80, .1), (36, 37, 1, 9, .42, .5), (-26, -18, 32.8, 36, .58, .1),
    (9, 15, 73.8, 76.4, .75, .3), (11, 17, 107.5, 109.3, .72, .5), (22, 27, 114, 119.5, .70, .5), (35, 40, 139.7, 141, .70, .6),
    (-22, -16, 145.5, 149, .60, .3), (-34, -31, 115, 115.8, .42, .1), (-44, -42, 171, 173, .65, .6), (64, 70, -53.5, -51, .45, .8),
    (2, 6, 115, 118, .92, .4), (66, 72, 128, 140, .35, .1),
])
COASTAL = 0.09                                                   # share of worlds that are on a coast


@dataclass(frozen=True)
class Sun:
    """Where the sun stands: zenith angle and azimuth (clockwise from north), in radians."""

    zenith: float
    azimuth: float


@dataclass(frozen=True)
class Setting:
    """Where and when, with its climate: what every layer of a world has in common."""

    seed: int
    footprint: Footprint
    lat: float
    lon: float
    date: np.datetime64
    wetness: float                     # 0 desert .. 1 rain forest
    ruggedness: float                  # 0 plain .. 1 high mountains
    base: float                        # metres above the sea
    swing: float                       # kelvin: half of summer less winter
    warmth: float                      # kelvin: how much warmer this year and place are than the latitude says
    sun: Sun

    @property
    def season(self) -> float:
        """Days since the coldest of the year, 0..365: about 20 January in the north, 20 July in the south."""
        return float((day_of_year(self.date) - 20 - (0 if self.lat >= 0 else 182.5)) % 365.25)

    @property
    def annual(self) -> float:
        """Mean temperature of the year at the base height, degrees Celsius."""
        return 27.0 - 0.0073 * self.lat**2 + self.warmth - 0.006 * self.base

    def temperature(self, lag: float = 0.0) -> float:
        """Temperature at the base height `lag` days before the date."""
        return self.annual - self.swing * float(np.cos(2 * np.pi * (self.season - lag) / 365.25))

    @property
    def rain(self) -> float:
        """0..1: how well watered plants are at the date; rain comes in summer, but in winter where the climate is Mediterranean."""
        mediterranean = 29 < abs(self.lat) < 44 and self.wetness < 0.5
        phase = 2 * np.pi * (self.season - (0 if mediterranean else 182.5) - 35) / 365.25
        swing = 0.75 * (1 - self.wetness) * float(np.clip(1.5 - abs(self.lat) / 50, 0.15, 1))
        return float(np.clip(0.25 + 0.9 * self.wetness + swing * np.cos(phase), 0, 1))

    @property
    def growth(self) -> float:
        """0..1: how green what drops its leaves is at the date."""
        return float(logistic((self.temperature(lag=18) - 8.0) / 2.2)) * self.rain


def setting(seed: int, side: float) -> Setting:
    """Draw place, date and climate for a square of `side` metres."""
    rng = stream(seed, "setting")
    inland = LAND[rng.choice(len(LAND), p=LAND[:, 4] / LAND[:, 4].sum()), [0, 1, 2, 3, 5, 6]]
    coastal = rng.random() < COASTAL
    box = COASTS[rng.integers(len(COASTS))] if coastal else inland
    south, north, west, east, wetness, ruggedness = (float(x) for x in box)
    footprint = square(float(rng.uniform(south, north)), float(rng.uniform(west, east)), side)
    lat, lon = footprint.centre
    wetness = float(np.clip(wetness + rng.normal(0, 0.08), 0, 1))
    ruggedness = float(np.clip(ruggedness + rng.normal(0, 0.15), 0, 1))
    base = 0.0 if coastal else min(float(rng.lognormal(np.log(60 + 1400 * ruggedness**1.5), 0.8)), 300 + 4500 * ruggedness**1.3)
    swing = (1.0 + (0.28 if lat > 0 else 0.17) * abs(lat)) * float(rng.uniform(0.7, 1.2))
    warmth, day = float(rng.normal(0, 1.8)), FIRST
    for _ in range(1000):                                        # Sentinel-2 takes no pictures of the polar night
        day = FIRST + np.timedelta64(int(rng.integers(0, int((LAST - FIRST).astype(int)) + 1)), "D")
        if sun_at(lat, day).zenith < np.radians(79):
            break
    return Setting(seed, footprint, lat, lon, day, wetness, ruggedness, base, swing, warmth, sun_at(lat, day))


def square(lat: float, lon: float, side: float) -> Footprint:
    """The square of `side` metres around a place in its UTM zone, its corner on a multiple of 60 m."""
    zone = int((lon + 180) // 6) + 1
    crs = CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
    (x,), (y,) = warp_points(CRS.from_epsg(4326), crs, [lon], [lat])
    return Footprint(crs, round((x - side / 2) / 60) * 60.0, round((y + side / 2) / 60) * 60.0, float(side))


def day_of_year(date: np.datetime64) -> int:
    return int((date - date.astype("datetime64[Y]")).astype(int)) + 1


def sun_at(lat: float, date: np.datetime64, hour: float = 10.5) -> Sun:
    """The sun at local solar time `hour` (Sentinel-2 passes at 10:30), from its declination."""
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (day_of_year(date) + 10) / 365.25)
    angle, phi = np.radians(15 * (hour - 12)), np.radians(lat)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(angle)
    return Sun(float(np.arccos(np.clip(up, -1, 1))), float(np.arctan2(east, north) % (2 * np.pi)))
