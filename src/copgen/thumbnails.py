"""How is a picture made of a layer? Major TOM's own recipes for its thumbnails: one small class a kind of layer, each with one method.

`draw(layer, valid)` takes a layer in its physical unit and gives 8-bit colours. Two of the recipes stretch what they find in the image to
the full range, so the same ground looks otherwise in another image: an image is what Major TOM cuts, a tile of 10,680 m (reference: the
published extras of Major TOM; the constants can't change without a new model).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Layer = NDArray[np.floating]
Valid = NDArray[np.bool_]
Colours = NDArray[np.uint8]


@runtime_checkable
class Drawing(Protocol):
    """How one product's thumbnails are made. It `stretches` if the range of the image decides on its colours."""

    stretches: ClassVar[bool]

    def draw(self, layer: Layer, valid: Valid | None = None) -> Colours:
        """A whole image in its physical unit [bands, H, W] -> red, green and blue [3, H, W]; `valid` [H, W], None where all pixels are."""
        ...


@dataclass(frozen=True)
class TrueColour:
    """Digital numbers of red, green and blue: `gain * reflectance ** gamma`, cut to 0..1. Depends on no other pixel; no data is black."""

    stretches: ClassVar[bool] = False
    gain: float = 1.3
    gamma: float = 0.6
    full_scale: float = 10_000                   # digital numbers of a reflectance of 1

    def draw(self, layer: Layer, valid: Valid | None = None) -> Colours:
        share = np.clip(self.gain * (np.maximum(layer, 0).astype(np.float64) / self.full_scale) ** self.gamma, 0, 1)
        return blackened(share * 255, valid)


@dataclass(frozen=True)
class FalseColour:
    """Linear power of vv and vh: decibels of each from their smallest to their largest in the image, and both together as green.

    Power that is not positive becomes the smallest that is: where it is zero the published recipe takes a logarithm of it.
    """

    stretches: ClassVar[bool] = True

    def draw(self, layer: Layer, valid: Valid | None = None) -> Colours:
        vv, vh = (stretched(band, valid) for band in layer)
        both = vv + vh
        return blackened(np.stack([vv, 255 * both / max(float(both.max()), 1e-12), vh]), valid)


@dataclass(frozen=True)
class Hillshade:
    """Heights in metres, lit from one side; the darkest of the image becomes black and the brightest white.

    Slopes are per pixel, not per metre, as in the published recipe: at 30 m a pixel they are thirty times as steep.
    """

    stretches: ClassVar[bool] = True
    azimuth: float = 315.0                       # of the light, in degrees clockwise from north
    altitude: float = 45.0                       # of the light, in degrees above the horizon

    def draw(self, layer: Layer, valid: Valid | None = None) -> Colours:
        height = np.asarray(layer[0])
        south, east = np.gradient(height) if min(height.shape) > 1 else (np.zeros(height.shape), np.zeros(height.shape))
        normal = np.stack([-east.astype(np.float64), south.astype(np.float64), np.ones(height.shape)], -1)
        normal /= np.sqrt((normal**2).sum(-1, keepdims=True))
        light = normal @ self.direction
        known = light if valid is None else light[valid]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        light = (light - low) / (high - low) if high - low > 1e-6 else light
        return blackened(np.repeat(np.clip(light, 0, 1)[None] * 255, 3, 0), valid)

    @property
    def direction(self) -> NDArray[np.float64]:
        """Towards the light: east, north, up."""
        azimuth, altitude = np.radians(90 - self.azimuth), np.radians(self.altitude)
        return np.array([np.cos(azimuth) * np.cos(altitude), np.sin(azimuth) * np.cos(altitude), np.sin(altitude)])


def stretched(power: Layer, valid: Valid | None) -> NDArray[np.float64]:
    """Decibels of one polarisation [H, W], from their smallest to their largest over the valid pixels onto 0..255; 0 where not valid."""
    power = power.astype(np.float64)
    there = np.ones(power.shape, bool) if valid is None else valid
    positive = there & (power > 0)
    if not positive.any():
        return np.zeros(power.shape)
    decibel = 10 * np.log10(np.where(positive, power, power[positive].min()))
    low, high = float(decibel[there].min()), float(decibel[there].max())
    return np.where(there, (decibel - low) / max(high - low, 1e-12) * 255, 0)


def blackened(brightness: NDArray[np.float64], valid: Valid | None) -> Colours:
    """Brightness 0..255 cut to whole numbers, as published, and black where there is no data."""
    colours = brightness.astype(np.uint8)
    return colours if valid is None else np.where(valid, colours, np.uint8(0))
