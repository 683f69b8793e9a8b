"""How does the ground reflect? Mixtures of class spectra with season, moisture, snow and slope, in the twelve bands of L2A.

The spectra below are rounded typical band values, written by hand after public libraries (USGS Spectral Library Version 7, Kokaly et al.
2017; ECOSTRESS, Meerdink et al. 2019). They are endmembers: what a pixel shows is always a scattered mixture of several.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.fields import Array, fields, logistic, ramp, smooth, stream
from copgen.synthetic.ground import BARE, BUILT, CLOUDS, CROPS, FLOODED, ICE, RANGE, TREES, WATER, Ground
from copgen.synthetic.plan import Plan
from copgen.synthetic.setting import Setting

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
MICROMETRES = np.array([.443, .492, .560, .665, .704, .740, .783, .833, .865, .945, 1.614, 2.202])

SPECTRA = {
    "broadleaf": (.012, .016, .040, .018, .070, .230, .295, .315, .340, .335, .155, .062),
    "conifer":   (.011, .013, .026, .016, .045, .125, .155, .170, .185, .185, .088, .038),
    "crop":      (.017, .022, .058, .026, .090, .320, .410, .440, .455, .450, .200, .090),
    "straw":     (.055, .068, .105, .145, .180, .215, .235, .260, .280, .290, .345, .235),
    "wood":      (.025, .032, .048, .062, .085, .125, .145, .165, .185, .195, .195, .120),
    "dark soil": (.036, .043, .060, .080, .098, .112, .123, .135, .148, .158, .215, .175),
    "loam":      (.055, .068, .098, .138, .165, .182, .196, .212, .225, .232, .305, .255),
    "red soil":  (.042, .050, .085, .165, .200, .222, .240, .252, .270, .278, .360, .290),
    "sand":      (.110, .140, .220, .320, .360, .380, .400, .415, .430, .435, .520, .460),
    "rock":      (.090, .105, .132, .158, .172, .182, .192, .203, .213, .218, .265, .235),
    "clear water":  (.022, .020, .016, .008, .006, .005, .005, .004, .004, .003, .002, .001),
    "turbid water": (.050, .066, .106, .118, .105, .060, .056, .045, .036, .025, .011, .007),
    "green water":  (.026, .030, .058, .034, .036, .022, .021, .017, .014, .010, .005, .003),
    "snow":      (.890, .890, .870, .850, .840, .820, .805, .790, .760, .680, .105, .085),
    "old ice":   (.560, .560, .550, .500, .460, .415, .395, .370, .345, .290, .030, .022),
    "asphalt":   (.078, .085, .096, .106, .112, .117, .121, .128, .133, .136, .150, .138),
    "concrete":  (.150, .175, .215, .245, .258, .266, .274, .285, .290, .292, .310, .290),
    "tiles":     (.062, .070, .105, .170, .200, .222, .240, .255, .270, .275, .320, .270),
    "metal":     (.300, .340, .385, .410, .420, .425, .430, .440, .440, .440, .420, .390),
}
NAMES = tuple(SPECTRA)
TABLE = np.array([SPECTRA[name] for name in NAMES])                                           # [endmembers, 12]
DRYING = np.array([.75, .75, .8, .85, .9, .9, .95, .95, 1., 1.05, 1.35, 1.5], np.float32)     # how much moisture darkens soil, by band


def reflectance(where: Setting, land: Ground, lots: Plan, seed: int) -> tuple[Array, Array, Array]:
    """Surface reflectance [12, side, side] under a clear sky, and the green cover and snow cover [side, side] that are in it."""
    rng = stream(seed, "surface")
    side = land.height.shape[0]
    texture = fields(rng, side, 4, slope=float(rng.uniform(1.3, 2.4)), longest=3000.0)
    green, kind = greenness(rng, where, land, lots, texture)
    shares = mixture(rng, where, land, lots, green, kind, texture).astype(np.float32)
    snow = snow_cover(rng, where, land, texture[3])
    spectra = varied_spectra(rng)
    total = np.tensordot(spectra, shares, axes=(0, 0))                                        # [12, side, side]
    moisture = np.clip(0.45 * where.rain + 0.13 * land.wet + 0.12 * texture[2] + rng.normal(0, 0.15), 0, 1)
    dry_land = (1 - green) * (land.lulc != WATER) * (land.lulc != ICE)
    total *= 1 - np.float32(0.32) * DRYING[:, None, None] * (moisture * dry_land).astype(np.float32)
    managed = np.select([land.lulc == CROPS, land.lulc == TREES, land.lulc == RANGE], [1.0, 0.5, 0.3], 0.0)  # fields, stands, pastures
    plot = rng.normal(0, 1, (2, int(lots.parcel.max()) + 1))[:, lots.parcel] * managed
    lot = rng.normal(0, 1, int(lots.block.max()) + 1)[lots.block] * (land.lulc == BUILT)
    rough = np.where(land.lulc == WATER, 0.06, np.where(land.lulc == TREES, 0.13, 0.09))
    total *= np.exp(rough * texture[0] + 0.14 * plot[0] + 0.28 * lot).astype(np.float32)      # brightness
    tilt = (0.05 * texture[1] + 0.06 * plot[1]).astype(np.float32)
    total *= np.exp(np.linspace(-1, 1, 12, dtype=np.float32)[:, None, None] * tilt)           # colour
    snow = snow.astype(np.float32)
    if snow.max() > 0.005:
        total += snow * (varied_snow(rng).astype(np.float32)[:, None, None] * (1 + np.float32(0.05) * texture[0]) - total)
    total = np.maximum(total, np.float32(0.0004)) * illumination(where, land).astype(np.float32)
    total *= 1 + 0.018 * rng.standard_normal(total.shape, dtype=np.float32)
    return smooth(total, 0.11), green, snow                                # the optics blur what is finer than a pixel


def varied_spectra(rng: Generator) -> Array:
    """This world's endmembers: each somewhat brighter, steeper and wavier than the table's."""
    axis = np.linspace(-1, 1, len(BANDS))
    level, slope, bow = rng.normal(0, 1, (3, len(NAMES), 1)) * np.array([0.24, 0.13, 0.07])[:, None, None]
    return (TABLE * np.exp(level + slope * axis + bow * (axis**2 - 0.4))).astype(np.float32)


def varied_snow(rng: Generator) -> Array:
    age = rng.beta(1.2, 2.5)
    return (1 - age) * TABLE[NAMES.index("snow")] + age * TABLE[NAMES.index("old ice")]


def greenness(rng: Generator, where: Setting, land: Ground, lots: Plan, texture: Array) -> tuple[Array, Array]:
    """Share of green leaves, 0..1, at the date, and a number 0..1 a parcel that says what grows there."""
    count = int(lots.parcel.max()) + 1
    kind = rng.random(count)
    growth = where.growth
    evergreen = logistic((where.annual - 19) / 2 if where.wetness > 0.6 else -2.0)
    leaves = 0.45 + 0.48 * max(growth, float(evergreen))
    conifers = float(where.annual < 9) * (0.5 + 0.45 * ramp(np.array(9 - where.annual), 0, 9))
    trees = conifers * 0.80 + (1 - conifers) * leaves + 0.05 * texture[1]
    trees = trees * (0.40 + 0.60 * np.clip(where.wetness * 2.2, 0, 1)) * (1 - 0.4 * rng.beta(1, 2))          # stands may be open
    grass = (0.10 + 0.75 * growth * np.clip(0.15 + 1.4 * where.wetness, 0, 1)) + 0.10 * texture[1] + 0.10 * land.wet
    season = where.season
    winter_crop = np.exp(-(((season - 120 - 25 * kind) / 52) ** 2)) + 0.35 * np.exp(-(((season - 325) / 40) ** 2))
    summer_crop = np.exp(-(((season - 190 - 30 * kind) / 42) ** 2))
    tropical = np.clip(where.rain + 0.4 * np.sin(2 * np.pi * (season / 182.6 + kind * 3)), 0, 1)
    winter_share = 0.5 if abs(where.lat) > 28 else 0.15
    crop = np.where(kind < winter_share, winter_crop, summer_crop) * (0.35 + 0.65 * max(where.rain, 0.6 * float(where.wetness > 0.4)))
    crop = np.where(abs(where.lat) < 26, 0.75 * tropical, crop) * float(logistic((where.temperature(10) - 3) / 1.5))
    crop = 0.06 + 0.88 * np.where(kind > 0.86, 0.3 + 0.6 * growth, crop)                     # some parcels are meadows
    crop = np.clip(crop + rng.normal(0, 0.10, count), 0.02, 0.97)[lots.parcel] + 0.06 * texture[1]
    reeds = 0.25 + 0.5 * growth + 0.15 * texture[1]
    by_class = [(TREES, trees), (RANGE, grass), (CROPS, crop), (FLOODED, reeds), (BARE, 0.02 + 0.05 * where.wetness + 0.03 * texture[1]),
                (CLOUDS, grass)]
    green = np.zeros_like(land.height)
    for code, share in by_class:
        green = np.where(land.lulc == code, share, green)
    hedges = lots.edge * (land.lulc == CROPS) * where.wetness
    return np.clip(green + hedges * (0.7 * leaves - green), 0, 0.98), kind


def mixture(
    rng: Generator, where: Setting, land: Ground, lots: Plan, green: Array, kind: Array, texture: Array
) -> Array:
    """Shares of the endmembers in every pixel, [endmembers, side, side]; they sum to one."""
    is_ = {code: land.lulc == code for code in (WATER, TREES, FLOODED, CROPS, BUILT, BARE, ICE)}
    flooded = np.where(is_[FLOODED], (1 - green) * np.clip(0.55 + 0.25 * texture[2], 0, 1), 0.0)
    litter = np.where(is_[TREES], rng.uniform(0.35, 0.9), np.where(is_[BARE], 0.03, 0.50 + 0.2 * texture[2]))
    litter = np.where(is_[CROPS], ((kind * 7.3) % 1 * 0.9)[lots.parcel] * float(where.season > 170), litter)     # stubble after harvest
    litter = np.clip(litter, 0, 1) * (1 - green - flooded)
    wood = litter * np.where(is_[TREES], 1.0, 0.12)
    shares = leaf_shares(where, is_, green, texture) | soil_shares(rng, where, 1 - green - flooded - litter, texture)
    shares |= {"wood": wood, "straw": litter - wood, "green water": flooded}
    stack = np.zeros((len(NAMES), *green.shape), np.float32)
    put(stack, ~(is_[WATER] | is_[ICE] | is_[BUILT]), shares)
    put(stack, is_[WATER], water_shares(rng, land, texture))
    put(stack, is_[ICE], {"snow": 0.72 + 0.1 * texture[2], "old ice": 0.28 - 0.1 * texture[2]})
    if is_[BUILT].any():
        put(stack, is_[BUILT], town_shares(rng, where, lots, texture))
    paved = (lots.road * ~is_[BUILT] * 0.8).astype(np.float32)
    stack *= 1 - paved
    stack[NAMES.index("asphalt")] += paved
    return np.maximum(stack, 0)


def put(stack: Array, where: NDArray[np.bool_], shares: dict[str, Array]) -> None:
    for name, share in shares.items():
        np.copyto(stack[NAMES.index(name)], share, where=where, casting="same_kind")


def leaf_shares(where: Setting, is_: dict[int, NDArray[np.bool_]], green: Array, texture: Array) -> dict[str, Array]:
    """Green cover as needles, leaves of trees and shrubs, and crops and grass."""
    needles = float(logistic((8 - where.annual) / 2)) + 0.35 * texture[1] * float(2 < where.annual < 13)
    conifer = green * np.clip(needles, 0, 1) * is_[TREES]
    broadleaf = (green - conifer) * np.where(is_[CROPS], 0.10, np.where(is_[TREES], 1.0, 0.65))
    return {"conifer": conifer, "broadleaf": broadleaf, "crop": green - conifer - broadleaf}


def soil_shares(rng: Generator, where: Setting, bare: Array, texture: Array) -> dict[str, Array]:
    """What is neither leaf nor litter nor water, as a patchy mixture of this world's soils."""
    dry, red = 1 - where.wetness, float(abs(where.lat) < 32) * rng.random()
    likely = np.array([0.3 + 2.5 * where.wetness, 1.2, 0.1 + 1.5 * red, 0.1 + 2.2 * dry**2, 0.2 + 0.9 * where.ruggedness])
    weights = rng.dirichlet(likely).astype(np.float32)[:, None, None]
    patchy = weights * np.exp(np.float32(0.55) * np.stack([-texture[1], texture[2], texture[1], -texture[2], texture[3]]))
    return dict(zip(("dark soil", "loam", "red soil", "sand", "rock"), bare * patchy / patchy.sum(0), strict=True))


def water_shares(rng: Generator, land: Ground, texture: Array) -> dict[str, Array]:
    """Water from clear to muddy, muddier near its shore and along currents."""
    mud = np.clip(rng.beta(0.7, 1.6) + 0.10 * texture[2] + 0.25 * np.exp(land.wet - 2.5) * rng.random(), 0, 1)
    algae = (1 - mud) * rng.beta(0.8, 2.0)
    return {"turbid water": mud, "green water": algae, "clear water": 1 - mud - algae}


def town_shares(rng: Generator, where: Setting, lots: Plan, texture: Array) -> dict[str, Array]:
    """Streets, roofs lot by lot, and gardens between."""
    count = int(lots.block.max()) + 1
    style = rng.dirichlet([1.2, 1.5, 0.25])                                                   # tiles, concrete, metal
    roof = rng.choice(3, count, p=style)[lots.block]
    open_lot = (rng.random(count) < rng.beta(1.5, 2.5))[lots.block]
    garden = np.clip(np.where(open_lot, 0.75, 0.15) + 0.1 * texture[1], 0, 1) * (1 - lots.road)
    leaves = garden * np.clip(0.25 + 0.65 * where.growth * min(1.0, 0.3 + where.wetness), 0, 1)
    house = 1 - lots.road - garden
    return {"asphalt": lots.road + 0.3 * house, "tiles": 0.7 * house * (roof == 0), "concrete": 0.7 * house * (roof == 1),
            "metal": 0.7 * house * (roof == 2), "broadleaf": 0.6 * leaves, "crop": 0.4 * leaves, "loam": garden - leaves}


def snow_cover(rng: Generator, where: Setting, land: Ground, texture: Array) -> Array:
    """0..1: the season's snow, more of it where it is higher and colder; canopies, towns and open water hide it."""
    warm = where.temperature(lag=12) + rng.normal(0, 2.0) - 0.006 * (land.height - where.base)
    deep = rng.uniform(0.45, 1.0)
    amount = logistic(-(warm + 3.5) / 0.9 + 0.5 * texture + 1.5 * (where.wetness - 0.45))
    shown = np.select([land.lulc == TREES, land.lulc == BUILT], [0.35, 0.55], np.clip(deep + 0.15 * texture, 0.2, 0.97))
    frozen = float(where.temperature(lag=25) < -3 and where.base > 0)
    return amount * np.where(land.lulc == WATER, frozen * 0.9, shown)


def illumination(where: Setting, land: Ground) -> Array:
    """What slopes receive beside flat ground: the cosine of the sun on the slope for direct light, a share of sky light for all."""
    sky, facing = 0.22, where.sun.on_slope(*land.slope)
    return np.clip((1 - sky) * np.maximum(facing, 0) / np.cos(where.sun.zenith) + sky, 0.15, 2.2)
