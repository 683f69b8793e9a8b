"""Physical units to the model's [-1, 1] and back: one small class a kind of quantity, each with the same two methods.

`to_model(x)` takes an array in its physical unit, bands first, and gives float32; `to_physical(y)` is its inverse. The constants are
those of the released weights (reference: the published pre- and post-processing), so they can't change without a new model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating]


@runtime_checkable
class Scaling(Protocol):
    """How one modality's physical values become the model's numbers."""

    def to_model(self, x: ArrayLike) -> FloatArray:
        """Physical units [..., C, H, W] -> float32, nominally in [-1, 1]."""
        ...

    def to_physical(self, y: ArrayLike) -> NDArray:
        """The model's numbers [..., C', H, W] -> physical units; the inverse of `to_model`."""
        ...


@dataclass(frozen=True)
class Linear:
    """`x / full_scale` onto [-1, 1], not clipped: Sentinel-2's digital numbers, 10,000 being a reflectance of 1."""

    full_scale: float

    def to_model(self, x: ArrayLike) -> FloatArray:
        return np.asarray(x, np.float32) / np.float32(self.full_scale) * 2 - 1

    def to_physical(self, y: ArrayLike) -> FloatArray:
        return (np.asarray(y, np.float32) + 1) / 2 * np.float32(self.full_scale)


@dataclass(frozen=True)
class EightBit:
    """Brightness of a picture, 0..255, onto [-1, 1]; back to whole numbers, half and more upwards, and what lies beyond cut off."""

    def to_model(self, x: ArrayLike) -> FloatArray:
        return np.asarray(x, np.float32) / np.float32(127.5) - 1

    def to_physical(self, y: ArrayLike) -> NDArray[np.uint8]:
        unit = np.clip((np.asarray(y, np.float32) + 1) / 2, 0, 1)
        return (unit * np.float32(255) + np.float32(0.5)).astype(np.uint8)


@dataclass(frozen=True)
class Decibel:
    """Linear radar power onto [-1, 1] by its decibels; what is not positive becomes `floor` (linear power) first."""

    low: float                                   # dB at -1
    high: float                                  # dB at +1
    floor: float                                 # the smallest linear power

    def decibels(self, power: ArrayLike) -> FloatArray:
        """10 log10 of the power, or of the floor where that is larger."""
        return 10 * np.log10(np.maximum(np.asarray(power), self.floor))

    def to_model(self, x: ArrayLike) -> FloatArray:
        power = np.asarray(x, np.float32)
        power = np.where(power <= 0, np.float32(self.floor), power)
        unit = (10 * np.log10(power) - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.asarray(unit * 2 - 1, np.float32)

    def to_physical(self, y: ArrayLike) -> FloatArray:
        unit = np.clip((np.asarray(y, np.float32) + 1) / 2, 0, 1)
        decibel = unit * np.float32(self.high - self.low) + np.float32(self.low)
        return np.maximum(np.float32(10) ** (decibel / 10), np.float32(self.floor)).astype(np.float32)


@dataclass(frozen=True)
class LogHeight:
    """Metres onto [-1, 1] by log(1 + h). Heights at or below 0 become `floor`: land below sea level is not represented."""

    low: float
    high: float
    floor: float                                 # metres

    def to_model(self, x: ArrayLike) -> FloatArray:
        height = np.asarray(x, np.float32)
        height = np.where(height <= 0, np.float32(self.floor), height)
        unit = (np.log1p(height) - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.asarray(unit * 2 - 1, np.float32)

    def to_physical(self, y: ArrayLike) -> FloatArray:
        unit = np.clip((np.asarray(y, np.float32) + 1) / 2, 0, 1)
        return np.maximum(np.expm1(unit * np.float32(self.high - self.low) + np.float32(self.low)), np.float32(self.floor))


@dataclass(frozen=True)
class Legend:
    """Class codes [..., 1, H, W] to one-hot planes of -1 and +1 [..., K, H, W]; back by the largest plane."""

    codes: tuple[int, ...]                       # the code of plane k
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]    # RGB, 0..255

    @property
    def classes(self) -> int:
        return len(self.codes)

    def index(self, codes: ArrayLike) -> NDArray[np.int64]:
        """The plane of each code, same shape; ValueError for a code that the legend lacks."""
        values = np.asarray(codes)
        lookup = np.full(256, -1, np.int64)
        lookup[list(self.codes)] = np.arange(self.classes)
        inside = (values >= 0) & (values <= 255) & (values == np.floor(values))
        planes = np.where(inside, lookup[np.where(inside, values, 0).astype(np.int64)], -1)
        if (planes < 0).any():
            strange = sorted({float(v) for v in np.unique(values[planes < 0])[:5]})
            raise ValueError(f"class codes {strange} are not in the legend {dict(zip(self.codes, self.names, strict=True))}")
        return planes

    def to_model(self, x: ArrayLike) -> FloatArray:
        planes = np.moveaxis(np.eye(self.classes, dtype=np.float32)[self.index(x)], -1, -4)   # [..., K, 1, H, W]
        return planes.squeeze(-3) * 2 - 1

    def to_physical(self, y: ArrayLike) -> NDArray[np.uint8]:
        return np.asarray(self.codes, np.uint8)[np.argmax(np.asarray(y), axis=-3)[..., None, :, :]]


@dataclass(frozen=True)
class UnitVector:
    """Latitude and longitude in degrees [..., 2] to a vector of length 1, shape [..., 1, 1, 3], and back."""

    def to_model(self, x: ArrayLike) -> FloatArray:
        lat, lon = np.moveaxis(np.radians(np.asarray(x, np.float64)), -1, 0)
        vector = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
        return vector.astype(np.float32)[..., None, None, :]

    def to_physical(self, y: ArrayLike) -> NDArray[np.float64]:
        vector = np.asarray(y, np.float64)[..., 0, 0, :]
        length = np.linalg.norm(vector, axis=-1, keepdims=True)
        x, y_, z = np.moveaxis(vector / np.maximum(length, 1e-12), -1, 0)    # generated vectors are rarely of length 1
        return np.stack([np.degrees(np.arcsin(np.clip(z, -1, 1))), np.degrees(np.arctan2(y_, x))], -1)


@dataclass(frozen=True)
class DayOfYear:
    """Calendar dates (datetime64[D], [..., 1]) to sine and cosine of the day of year and the year, [..., 1, 1, 3], and back."""

    first_year: int = 1950
    last_year: int = 2050

    def to_model(self, x: ArrayLike) -> FloatArray:
        days = np.asarray(x, "datetime64[D]")[..., 0]
        year = days.astype("datetime64[Y]").astype(int) + 1970
        day_of_year = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(int) + 1
        angle = 2 * np.pi * day_of_year / days_in(year)
        century = 2 * (year - self.first_year) / (self.last_year - self.first_year) - 1
        return np.stack([np.sin(angle), np.cos(angle), century], -1).astype(np.float32)[..., None, None, :]

    def to_physical(self, y: ArrayLike) -> NDArray[np.datetime64]:
        vector = np.asarray(y, np.float64)[..., 0, 0, :]
        sine, cosine, century = np.moveaxis(vector, -1, 0)
        span = self.last_year - self.first_year
        year = np.rint((century + 1) / 2 * span + self.first_year)
        year = np.clip(year, self.first_year, self.last_year).astype(int)          # what is generated may lie beyond
        length = days_in(year)
        day_of_year = np.rint(np.arctan2(sine, cosine) % (2 * np.pi) * length / (2 * np.pi)).astype(int) % length
        day_of_year = np.where(day_of_year == 0, length, day_of_year)
        first_day = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]")
        return (first_day + (day_of_year - 1))[..., None]


def days_in(year: ArrayLike) -> NDArray[np.int64]:
    """365 or 366, by the Gregorian rule."""
    y = np.asarray(year)
    return np.where((y % 4 == 0) & ((y % 100 != 0) | (y % 400 == 0)), 366, 365)
