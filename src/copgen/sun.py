"""Where does the sun stand, and how does its light fall on a slope?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Sun:
    """Where the sun stands: zenith angle and azimuth (clockwise from north), in radians."""

    zenith: float
    azimuth: float

    def on_slope(self, east: Array, north: Array) -> Array:
        """The cosine of the angle between the sun and a slope that rises by so much a metre to the east and to the north.

        It is cos(zenith) on flat ground, and negative where the slope itself hides the sun.
        """
        zenith, azimuth = self.zenith, self.azimuth
        return (np.cos(zenith) - np.sin(zenith) * (east * np.sin(azimuth) + north * np.cos(azimuth))) / np.sqrt(1 + east**2 + north**2)


def day_of_year(date: np.datetime64) -> int:
    return int((date - date.astype("datetime64[Y]")).astype(int)) + 1


def sun_at(lat: float, date: np.datetime64, hour: float = 10.5) -> Sun:
    """The sun at local solar time `hour` (Sentinel-2 passes at 10:30), from its declination.

    Within about a degree for that hour. Passes are timed by the mean sun, from which the true one is up to 16 minutes away; and they are
    later the farther north they are seen, by 40 minutes at 50 degrees.
    """
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (day_of_year(date) + 10) / 365.25)
    angle, phi = np.radians(15 * (hour - 12)), np.radians(lat)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(angle)
    return Sun(float(np.arccos(np.clip(up, -1, 1))), float(np.arctan2(east, north) % (2 * np.pi)))
