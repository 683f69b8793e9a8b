"""What a layer looks like: its physical values as colours, with stretches that are the same for every picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.drawing import Colour, Picture
from copgen.modalities import Modality
from copgen.scaling import Decibel, EightBit, Legend, Linear, LogHeight
from copgen.scene import Scene
from copgen.thumbnails import FalseColour, Hillshade, TrueColour

TINTS = ((104, 140, 110), (164, 178, 128), (214, 203, 152), (196, 160, 118), (158, 122, 102), (236, 232, 228))   # heights, low to high
HEAT = ((14, 12, 34), (84, 22, 109), (186, 54, 85), (249, 142, 9), (252, 246, 180))                               # sure to unsure
COMPOSITES = (                                   # the bands whose mean is red, green and blue; the first that a row has is used
    ("true colour", (("B04",), ("B03",), ("B02",))),
    ("shortwave infrared", (("B12",), ("B8A",), ("B05",))),
    ("near infrared and coastal blue", (("B09",), ("B09", "B01"), ("B01",))),
)
RADAR_RANGES = (("VV", -25.0, 0.0), ("VH", -32.0, -5.0), ("VV / VH", 0.0, 14.0))     # dB


@dataclass(frozen=True)
class Relief:
    """What heights are drawn with: the same for all pictures of a sheet."""

    low: float                                   # metres at the first tint
    high: float                                  # metres at the last
    exaggeration: float                          # of slopes, for the shading

    @classmethod
    def of(cls, heights: Iterable[NDArray[Any]], resolution: float) -> Relief:
        """From the heights themselves: their range, 20 m at least, and slopes steepened until one in ten is of 0.4 or more."""
        planes = [np.asarray(h, np.float64).reshape(h.shape[-2:]) for h in heights]
        low, high = min(float(p.min()) for p in planes), max(float(p.max()) for p in planes)
        slopes = np.concatenate([np.hypot(*np.gradient(p, resolution)).ravel() for p in planes])
        return cls(low, max(high, low + 20), float(np.clip(0.4 / max(float(np.quantile(slopes, 0.9)), 1e-6), 1, 6)))


def picture(scene: Scene, row: str, relief: Relief | None = None) -> Picture:
    """One layer of a scene in colours, [H, W, 3] at its own resolution; `relief` makes heights comparable between scenes."""
    return render(scene.table[row], scene[row], relief)


def render(row: Modality, layer: NDArray[Any], relief: Relief | None = None) -> Picture:
    """A layer in its physical unit -> colours [H, W, 3].

    Stretches are fixed, so that the same colour is the same value everywhere: Sentinel-2 by `tone`, radar by `RADAR_RANGES`, classes by
    their legend; heights as shaded tints by `relief` (their own range if it is left out). A thumbnail is its own picture.
    """
    match row.scale:
        case EightBit():
            return np.ascontiguousarray(np.moveaxis(np.asarray(layer, np.uint8), 0, -1))
        case Legend() as legend:
            return np.asarray(legend.colours, np.uint8)[legend.index(layer[0])]
        case Decibel() as radar:
            return radar_colours(row, layer, radar.floor)
        case LogHeight():
            return shaded(layer[0], row.resolution or 1, relief or Relief.of([layer], row.resolution or 1))
        case Linear() as linear:
            _, channels = composite(row)
            bands = [np.mean([layer[row.bands.index(band)] for band in mixed], axis=0) for mixed in channels]
            return to_bytes(tone(np.stack(bands, -1) / linear.full_scale))
        case _:
            return to_bytes(np.repeat(((row.scale.to_model(layer)[0] + 1) / 2)[..., None], 3, -1))


def tone(reflectance: NDArray[Any]) -> NDArray[Any]:
    """Reflectance to brightness 0..1: forests (0.03) are not black, and clouds (0.5 to 1) still have a shape."""
    return (1 - np.exp(-3 * np.maximum(reflectance, 0) ** 0.75)) / (1 - np.exp(-3))


def composite(row: Modality) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """What a reflectance row is drawn with: a name, and the bands of red, green and blue."""
    for name, channels in COMPOSITES:
        if {band for mixed in channels for band in mixed} <= set(row.bands):
            return name, channels
    return "bands as colours", tuple((band,) for band in (row.bands * 3)[:3])


def drawn_as(row: Modality) -> tuple[str, tuple[str, ...]]:
    """What the colours of a thumbnail are: a name, and what red, green and blue show; nothing where they are all alike."""
    match row.drawing:
        case TrueColour():
            return "true colour", row.source.bands if row.source else row.bands
        case FalseColour():
            return "false colour, stretched in each image", ("VV", "VV and VH", "VH")
        case Hillshade(azimuth=azimuth):
            return f"hillshade, lit from {azimuth:g}°", ()
        case _:
            return "picture", row.bands


def radar_colours(row: Modality, power: NDArray[Any], floor: float) -> Picture:
    decibel = 10 * np.log10(np.maximum(power, floor))
    vv, vh = (decibel[row.bands.index(band)] if band in row.bands else decibel[0] for band in ("vv", "vh"))
    return to_bytes(np.stack([(x - low) / (high - low) for x, (_, low, high) in zip((vv, vh, vv - vh), RADAR_RANGES, strict=True)], -1))


def shaded(height: NDArray[Any], resolution: float, relief: Relief) -> Picture:
    """Heights [H, W] as tints, lit from the north-west at 45 degrees."""
    down, right = np.gradient(height.astype(np.float64) * relief.exaggeration, resolution)
    light = (1 + (right + down) / np.sqrt(2)) / np.sqrt(2 * (1 + right**2 + down**2))       # cosine of the angle to the light
    tint = ramp(TINTS, (height - relief.low) / (relief.high - relief.low))
    return to_bytes(tint / 255 * (0.30 + 0.99 * np.clip(light, 0, 1))[..., None])           # flat ground keeps its tint


def ramp(colours: Sequence[Colour], share: NDArray[Any]) -> NDArray[np.float64]:
    """Colours of shares 0..1, interpolated between equally spaced ones; [..., 3] in 0..255."""
    at = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(share, at, channel) for channel in np.asarray(colours, float).T], -1)


def to_bytes(share: NDArray[Any]) -> Picture:
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def spread(row: Modality, layers: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], float, str]:
    """How much the samples differ at each pixel: [H, W], the value at full colour, and what it is.

    Standard deviations (mean over the bands) in DN, dB, metres or levels; for classes the share of samples that differ from the commonest.
    """
    stack = np.stack(layers)
    if row.legend:
        votes = np.stack([(stack[:, 0] == code).mean(0) for code in row.legend.codes])
        share = 100 * (1 - votes.max(0))
        return share, max(10.0, round_up(float(share.max()))), "percent differ"
    if isinstance(row.scale, Decibel):
        stack = 10 * np.log10(np.maximum(stack, row.scale.floor))
    deviation = stack.std(axis=0, ddof=1).mean(axis=0)
    return deviation, round_up(float(np.quantile(deviation, 0.99))), unit_of(row)


def unit_of(row: Modality) -> str:
    """The unit of a difference between two layers of a row: `DN`, `dB`, `m`, `levels of 255`."""
    match row.scale:
        case Decibel():
            return "dB"
        case EightBit():
            return "levels of 255"
        case _:
            return row.unit.split(" ")[0]


def round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 1.5, 2, 3, 5, 7, 10) if step * power >= value * (1 - 1e-9)))
