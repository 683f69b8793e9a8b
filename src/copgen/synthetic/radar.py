"""What does Sentinel-1 see? Gamma-naught of VV and VH from class, leaves, moisture and relief, with speckle of 5 looks."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from copgen.synthetic.fields import Array, fields, logistic, smooth, stream
from copgen.synthetic.ground import BARE, BUILT, CLOUDS, CROPS, FLOODED, ICE, RANGE, TREES, WATER, Ground
from copgen.synthetic.plan import Plan
from copgen.synthetic.setting import Setting

LOOKS = 5.0                                    # the ground range product's 4.4 (IW, high resolution), and what resampling to a map averages
BLUR = 0.25                                    # pixels are finer than the resolution of 20 m: neighbours correlate by 2/3, next ones by 1/6

# mean dB of VV and VH, and how much they scatter from world to world
LEVELS = {WATER: (-20.0, -27.5, 2.6), TREES: (-9.3, -14.8, 1.1), FLOODED: (-9.5, -16.8, 1.8), CROPS: (-12.8, -19.2, 1.3),
          BUILT: (-6.3, -13.5, 1.5), BARE: (-14.5, -22.2, 2.6), ICE: (-10.5, -17.5, 3.0), CLOUDS: (-12.0, -18.5, 1.5),
          RANGE: (-13.0, -19.6, 1.5)}


def backscatter(where: Setting, land: Ground, lots: Plan, green: Array, snow: Array, seed: int) -> Array:
    """Gamma-naught [2, side, side] (vv, vh) in linear power."""
    rng = stream(seed, "radar")
    side = green.shape[0]
    texture = fields(rng, side, 2, slope=1.7, longest=800.0)
    mean = np.zeros((2, side, side))
    for code, (vv, vh, scatter) in LEVELS.items():
        both = rng.normal(0, scatter)
        pair = np.array([vv + both, min(vh + both * 0.8 + rng.normal(0, 0.6), vv + both - 3.5)])
        mean += np.where(land.lulc == code, pair[:, None, None], 0)
    water, trees, crops, built = (land.lulc == code for code in (WATER, TREES, CROPS, BUILT))
    open_land = ~(water | trees | built)
    frozen = where.temperature() < -2
    moisture = (where.rain - 0.5 + rng.normal(0, 0.2)) * (0.0 if frozen else 1.0) - 1.5 * frozen
    soil = (moisture * 3.2 + 0.5 * land.wet) * (1 - 0.6 * green) * open_land
    leaves = np.array([0.5, 4.2])[:, None, None] * (green - 0.45) * open_land + np.array([0.6, 1.4])[:, None, None] * (green - 0.6) * trees
    plot = rng.normal(0, 1, (2, 2, int(lots.parcel.max()) + 1))[:, :, lots.parcel] * crops
    mean += soil + leaves + 1.5 * plot[0] + 0.5 * plot[1]
    mean += np.where(trees, 0.6, 0.9) * texture[0] * ~water + 0.35 * texture[1] * water
    mean -= np.array([1.2, 1.0])[:, None, None] * snow * open_land * logistic(where.temperature())   # wet snow absorbs
    mean += np.array([2.0, 2.6])[:, None, None] * lots.edge * crops * where.wetness
    mean -= np.array([6.0, 7.0])[:, None, None] * np.where(built, 0.5, 0.6) * lots.road
    mean += relief(rng, land)
    power = 10 ** (mean / 10) + towns(rng, lots, built)
    return np.maximum(power * speckle(rng, power.shape) + 2e-4 * np.array([2.0, 1.0])[:, None, None], 1e-5)


def relief(rng: Generator, land: Ground) -> Array:
    """What terrain correction leaves, in dB: slopes that face the radar a little bright, those behind a little dark."""
    east, _ = land.slope
    facing = rng.choice([-1.0, 1.0]) * east                       # the orbit climbs or descends: lit from the west or from the east
    return np.clip(4.0 * facing, -3.5, 3.5) * (land.lulc != WATER)


def towns(rng: Generator, lots: Plan, built: Array) -> Array:
    """Corners between walls and ground: a few lots answer many times brighter, most in VV."""
    count = int(lots.block.max()) + 1
    corner = (rng.random(count) < 0.30) * rng.exponential(1.0, count)
    bright = np.where(built, corner[lots.block] * rng.gamma(0.5, 2.0, built.shape), 0.0) * (1 - lots.road)
    bright = smooth(bright, 0.12)
    strength = rng.lognormal(np.log(0.55), 0.5)
    return np.stack([bright * strength, bright * strength * 0.16])


def speckle(rng: Generator, shape: tuple[int, ...]) -> Array:
    """Multiplicative speckle of mean one: gamma noise, a little blurred, so that its looks are LOOKS after blurring."""
    kept = (2 * BLUR**2 + (1 - 2 * BLUR) ** 2) ** 2               # what the blur leaves of the variance of white noise
    looks = LOOKS * kept
    return smooth(rng.gamma(looks, 1 / looks, shape), BLUR)
