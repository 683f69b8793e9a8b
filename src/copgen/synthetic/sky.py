"""What lies between the ground and Sentinel-2? A simple atmosphere, clouds and their shadows: L1C and L2A from surface reflectance.

Top of atmosphere is rho_path + T rho / (1 - s rho), band by band: molecules of optical depth 0.008735 lambda^-4.08 and an aerosol
lambda^-1.3, both scattering once, and gas that absorbs by T = exp(-a sqrt(m w)), w being centimetres of water vapour and m the air mass.
L2A is the surface as a product would show it: an aerosol wrongly guessed is left in it, and clouds stay as bright as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.fields import PIXEL, Array, fields, stream
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

    @property
    def mask(self) -> NDArray[np.uint8]:
        """0 clear, 1 thick, 2 thin, 3 shadow."""
        cloud = np.where(self.opacity > 0.55, THICK, np.where(self.opacity > 0.10, THIN, CLEAR))
        return np.where((cloud == CLEAR) & (self.shadow > 0.30), SHADOW, cloud).astype(np.uint8)


def clouds(where: Setting, side: int) -> Clouds:
    """The clouds of a world and the shadows that the sun throws from them; about four worlds in ten have any."""
    rng = stream(where.seed, "clouds")
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


def observe(where: Setting, surface: Array) -> tuple[dict[str, Array], dict[str, Array], NDArray[np.uint8]]:
    """Reflectances of L1C and L2A by band, [side, side] each, and the cloud mask, from the surface's [12, side, side]."""
    rng = stream(where.seed, "sky")
    veil = clouds(where, surface.shape[-1])
    sky_light = 0.20 + 0.45 * (MICROMETRES / 0.443) ** -2.5                     # what a shadow leaves, bluer than sunlight
    if veil.height > 0:
        surface = surface * (1 - veil.shadow * (1 - single(sky_light * 0.8)))
    mass = 1 + 1 / np.cos(where.sun.zenith)
    moist = 0.3 + 2.2 * float(np.exp((where.temperature() - 15) / 18)) * (0.35 + 0.75 * where.wetness)
    vapour = float(np.clip(moist * rng.lognormal(-0.1, 0.3), 0.1, 6.0)) * np.exp(-where.base / 2200)
    aerosol = float(np.clip(rng.lognormal(np.log(0.11 + 0.08 * (where.wetness < 0.12)), 0.6), 0.02, 0.9)) * np.exp(-where.base / 3000)
    gas = single(np.exp(-VAPOUR * np.sqrt(mass * vapour) - OZONE * mass))
    path, through, back = (single(part) for part in optics(where, aerosol))
    l1c = gas * (path + through * surface / (1 - back * surface))
    miss = rng.normal(0.002, 0.025) + 0.05 * aerosol * rng.normal()
    l2a = surface + single(0.30 * miss * (MICROMETRES / 0.55) ** -1.8) * (1 - 2.0 * surface)
    l2a *= single(np.exp(rng.normal(0, 0.015, 12)))
    if veil.height > 0:
        above = single(np.exp(-VAPOUR * np.sqrt(mass * vapour * np.exp(-veil.height / 2200))))
        l1c += veil.opacity * (veil.brightness * above + np.float32(0.3) * path - l1c)
        l2a += veil.opacity * (veil.brightness * (np.float32(0.9) + np.float32(0.1) * above / gas) - l2a)
    cirrus = cirrus_band(rng, surface[10], veil, mass, vapour)
    top = dict(zip(BANDS, l1c, strict=True)) | {"B10": cirrus}
    return {band: top[band] for band in L1C_BANDS}, dict(zip(BANDS, l2a, strict=True)), veil.mask


def optics(where: Setting, aerosol: float) -> tuple[Array, Array, Array]:
    """Path reflectance, two-way transmission and spherical albedo [12], for the sun of a setting and the view straight down."""
    pressure = float(np.exp(-where.base / 8000))
    mu = float(np.cos(where.sun.zenith))
    molecules = pressure * 0.008735 * MICROMETRES**-4.08
    particles = aerosol * (MICROMETRES / 0.55) ** -1.3
    scattered = 0.75 * (1 + mu**2) * molecules + 0.28 * particles
    slant = 1 / max(mu, 0.25)                                       # single scattering overrates a low sun
    path = scattered * slant / 4
    through = np.exp(-(0.45 * molecules + 0.17 * particles) * (1 + slant))
    back = 0.85 * molecules + 0.16 * particles
    return path, through, back


def single(by_band: Array) -> Array:
    """[12] -> [12, 1, 1] in single precision."""
    return by_band.astype(np.float32)[:, None, None]


def cirrus_band(rng: Generator, ground: Array, veil: Clouds, mass: float, vapour: float) -> Array:
    """B10, in which water vapour hides the ground: only what is high enough, or very dry air, shows."""
    floor = 0.0012 + rng.gamma(1.6, 0.0006)
    seen = np.exp(-6.2 * np.sqrt(mass * vapour) ** 0.8)
    cloud = veil.opacity * (veil.brightness[8] * np.exp(-6.2 * np.sqrt(mass * vapour * np.exp(-veil.height / 2200)) ** 0.8))
    return floor + seen * ground * (1 - veil.opacity) + 0.6 * cloud + 0.0001 * rng.standard_normal(ground.shape)
