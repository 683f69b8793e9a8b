"""How far apart are two places, and two dates?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EARTH_RADIUS = 6371.0                                                # km, a sphere, as the published evaluator has it
YEAR = 365.2425                                                      # days, the mean of the Gregorian calendar


def great_circle(a: ArrayLike, b: ArrayLike) -> Array:
    """The distance in kilometres over the sphere between places [..., 2] (latitude, longitude in degrees) that broadcast.

    The haversine formula (Sinnott 1984, Sky and Telescope 68, 159), exact for close places, too.
    """
    (lat_a, lon_a), (lat_b, lon_b) = (np.moveaxis(np.radians(np.asarray(one, np.float64)), -1, 0) for one in (a, b))
    half = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def circular_days(a: ArrayLike, b: ArrayLike) -> Array:
    """How many days apart two dates are in the round of the seasons, whatever their years: 0 to 182.6.

    Dates are datetime64 or days since 1970, and broadcast. The way is measured modulo the mean year, so that the same day of two years
    may be up to three quarters of a day apart: that is what leap days do to the sun.
    """
    first, second = (np.asarray(one).astype("datetime64[D]").astype(np.int64) for one in (a, b))
    ahead = (first - second) % YEAR
    return np.minimum(ahead, YEAR - ahead)
