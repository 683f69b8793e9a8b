"""What lies between the ground and Sentinel-2? A simple atmosphere, clouds and their shadows: L1C and L2A from surface reflectance.

Top of atmosphere is rho_path + T (d rho + (1 - d) rho_around) / (1 - s rho_around), band by band: molecules of optical depth
0.008735 lambda^-4.08 and an aerosol lambda^-1.3, both scattering once, a share d of the light coming straight up and the rest from a
neighbourhood of some hundred metres, and gas that absorbs by T = exp(-a sqrt(m w)), w being centimetres of water vapour and m the air mass.
L2A is the surface as a product would show it: an aerosol wrongly guessed is left in it, and clouds stay as bright as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.scores.images import averaged
from copgen.synthetic.fields import PIXEL, Array, fields, smooth, stream
from copgen.synthetic.setting import Setting
from copgen.synthetic.surface import BANDS, MICROMETRES

L1C_BANDS = (*BANDS[:10], "B10", *BANDS[10:])
VAPOUR = np.array([0, 0, .002, .006, .018, .022, .012, .025, .004, .62, .022, .045])   # absorption a, by band
OZONE = np.array([.001, .006, .030, .018, .006, .003, .001, 0, 0, 0, 0, 0])
ICE_CLOUD = np.array([1, 1, 1, 1, 1, .99, .98, .97, .95, .93, .48, .33])               # a cloud's brightness beside its visible one
DROPS_CLOUD = np.array([1, 1, .99, .98, .98, .98, .98, .97, .97, .94, .72, .55])
CLEAR, THICK, THIN, SHADOW = 0, 1, 2, 3


@dataclass(frozen=True)
class Clouds:
    """Opacity of clouds and of their shadows, 0..1 [side, side], their brightness [12, side, side] and height in metres."""

    opacity: Array
    shadow: Array
    brightness: Array
    height: float


def cloud_mask(veil: Clouds, seed: int) -> NDArray[np.uint8]:
    """0 clear, 1 thick, 2 thin, 3 shadow, as a detector would map them on 20 m: cautious or bold by world, patchy at thin edges.

    Clouds of less than about 0.12 opacity are missed, and shadows that darken the ground by less than about a third.
    """
    side = veil.opacity.shape[0]
    if veil.height == 0:
        return np.zeros((side, side), np.uint8)
    rng = stream(seed, "mask")
    bold, shady = np.exp(rng.normal(0, 0.25, 2))
    doubt = np.exp(0.25 * fields(rng, side, 1, slope=2.0, longest=500.0)[0])
    seen, dark = (averaged(part * doubt, 2).repeat(2, 0).repeat(2, 1) for part in (veil.opacity, veil.shadow))
    cloud = np.where(seen > 0.5 * bold, THICK, np.where(seen > 0.12 * bold, THIN, CLEAR))
    return np.where((cloud == CLEAR) & (dark > 0.35 * shady), SHADOW, cloud).astype(np.uint8)


def clouds(where: Setting, side: int, seed: int) -> Clouds:
    """The clouds of a world and the shadows that the sun throws from them; about four worlds in ten have any."""
    rng = stream(seed, "clouds")
    kind = rng.choice(4, p=[0.60, 0.21, 0.12, 0.07])                # none, cumulus, cirrus, layers
    if kind == 0:
        clear = np.zeros((side, side), np.float32)
        return Clouds(clear, clear, np.broadcast_to(clear, (12, side, side)), 0.0)
    slope, longest, height = [(3.4, 900.0, rng.uniform(600, 2500)), (3.6, 1e5, rng.uniform(6000, 11000)),
                              (3.3, 1e5, rng.uniform(1500, 5000))][kind - 1]
    shape, detail = fields(rng, side, 2, slope, longest, shortest=25.0, crop=False)
    cover = rng.beta(1.0, 2.0) if kind != 3 else rng.beta(2.0, 1.0)
    depth = np.clip(shape + 0.12 * detail - np.quantile(shape, 1 - min(cover, 0.98)), 0, None)
    depth *= {1: rng.uniform(1.2, 4.5), 2: rng.uniform(0.2, 0.8), 3: rng.uniform(1.0, 5)}[int(kind)]
    opacity = 1 - np.exp(-depth)
    if kind == 2:
        opacity = np.minimum(opacity, 0.6)
    away = height * np.tan(min(where.sun.zenith, np.radians(70))) / PIXEL      # pixels, away from the sun; azimuth is clockwise from north
    moved = (round(away * np.cos(where.sun.azimuth)), round(-away * np.sin(where.sun.azimuth)))
    shadow = np.roll(opacity, moved, axis=(0, 1))[:side, :side] * (0.25 if kind == 2 else 0.9)
    opacity, depth, detail = opacity[:side, :side], depth[:side, :side], detail[:side, :side]
    visible = np.clip((0.38 + 0.32 * (1 - np.exp(-depth / 2.5))) * np.exp(0.07 * detail + rng.normal(0, 0.12)), 0.3, 1.0)
    colour = ICE_CLOUD if kind == 2 else DROPS_CLOUD
    opacity, shadow = opacity.astype(np.float32), shadow.astype(np.float32)
    return Clouds(opacity, shadow, visible.astype(np.float32) * single(colour), height)


def observe(where: Setting, surface: Array, seed: int) -> tuple[dict[str, Array], dict[str, Array], NDArray[np.uint8]]:
    """Reflectances of L1C and L2A by band, [side, side] each, and the cloud mask, from the surface's [12, side, side]."""
    rng = stream(seed, "sky")
    veil = clouds(where, surface.shape[-1], seed)
    sky_light = 0.20 + 0.45 * (MICROMETRES / 0.443) ** -2.5                     # what a shadow leaves, bluer than sunlight
    if veil.height > 0:
        surface = surface * (1 - veil.shadow * (1 - single(sky_light * 0.8)))
    mass = 1 + 1 / np.cos(where.sun.zenith)
    moist = 0.3 + 2.2 * float(np.exp((where.temperature() - 15) / 18)) * (0.35 + 0.75 * where.wetness)
    vapour = float(np.clip(moist * rng.lognormal(-0.1, 0.3), 0.1, 6.0)) * np.exp(-where.base / 2200)
    aerosol = float(np.clip(rng.lognormal(np.log(0.13 + 0.07 * (where.wetness < 0.12)), 0.65), 0.02, 0.9)) * np.exp(-where.base / 3000)
    gas = single(np.exp(-VAPOUR * np.sqrt(mass * vapour) - OZONE * mass))
    path, through, back, straight = (single(part) for part in optics(where, aerosol))
    around = neighbourhood(surface)
    l1c = gas * (path + through * (straight * surface + (1 - straight) * around) / (1 - back * around))
    miss = rng.normal(0.002, 0.025) + 0.05 * aerosol * rng.normal()
    l2a = surface + single(0.30 * miss * (MICROMETRES / 0.55) ** -1.8) * (1 - 2.0 * surface)
    l2a *= single(np.exp(rng.normal(0, 0.015, 12)))
    mask = cloud_mask(veil, seed)
    if veil.height > 0:
        above = single(np.exp(-VAPOUR * np.sqrt(mass * vapour * np.exp(-veil.height / 2200))))
        l1c += veil.opacity * (veil.brightness * above + np.float32(0.3) * path - l1c)
        l2a += veil.opacity * (veil.brightness * (np.float32(0.9) + np.float32(0.1) * above / gas) - l2a)
    cirrus = cirrus_band(rng, surface[10], veil, mass, vapour)
    top = dict(zip(BANDS, l1c, strict=True)) | {"B10": cirrus}
    return {band: top[band] for band in L1C_BANDS}, dict(zip(BANDS, l2a, strict=True)), mask


def optics(where: Setting, aerosol: float) -> tuple[Array, Array, Array, Array]:
    """Path reflectance, two-way transmission, spherical albedo and the share of light that comes up unscattered, [12] each.

    For the sun of a setting and the view straight down.
    """
    pressure = float(np.exp(-where.base / 8000))
    mu = float(np.cos(where.sun.zenith))
    molecules = pressure * 0.008735 * MICROMETRES**-4.08
    particles = aerosol * (MICROMETRES / 0.55) ** -1.3
    scattered = 0.75 * (1 + mu**2) * molecules + 0.28 * particles
    slant = 1 / max(mu, 0.25)                                       # single scattering overrates a low sun
    path = scattered * slant / 4
    through = np.exp(-(0.45 * molecules + 0.17 * particles) * (1 + slant))
    back = 0.85 * molecules + 0.16 * particles
    straight = np.exp(-0.8 * molecules - 0.7 * particles) / np.exp(-0.45 * molecules - 0.17 * particles)
    return path, through, back, straight


def neighbourhood(surface: Array) -> Array:
    """What a pixel's surroundings of some hundred metres reflect on average: scattered light brings it into the pixel's view."""
    wide = averaged(surface, 6)
    for _ in range(12):
        wide = smooth(wide, 0.25)
    between = blocks_to_pixels(surface.shape[-1], 6)
    return between @ wide @ between.T


@lru_cache(maxsize=8)
def blocks_to_pixels(side: int, factor: int) -> Array:
    """The matrix [side, side / factor] of linear interpolation between the middles of blocks."""
    at = np.clip((np.arange(side) + 0.5) / factor - 0.5, 0, side // factor - 1)
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(side // factor)), 0).astype(np.float32)
    weights.setflags(write=False)
    return weights


def single(by_band: Array) -> Array:
    """[12] -> [12, 1, 1] in single precision."""
    return by_band.astype(np.float32)[:, None, None]


def cirrus_band(rng: Generator, ground: Array, veil: Clouds, mass: float, vapour: float) -> Array:
    """B10, in which water vapour hides the ground: only what is high enough, or very dry air, shows."""
    floor = 0.0012 + rng.gamma(1.6, 0.0006)
    seen = np.exp(-6.2 * np.sqrt(mass * vapour) ** 0.8)
    cloud = veil.opacity * (veil.brightness[8] * np.exp(-6.2 * np.sqrt(mass * vapour * np.exp(-veil.height / 2200)) ** 0.8))
    return floor + seen * ground * (1 - veil.opacity) + 0.6 * cloud + 0.0001 * rng.standard_normal(ground.shape)
