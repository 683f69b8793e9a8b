"""What does the ground look like? Terrain with valleys, rivers and shores, parcels, and land cover by rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.fields import PIXEL, Array, average_over, cells, compact, fields, logistic, ramp, rotated, stream, strips
from copgen.synthetic.setting import Setting

WATER, TREES, FLOODED, CROPS, BUILT, BARE, ICE, CLOUDS, RANGE = 1, 2, 4, 5, 7, 8, 9, 10, 11   # ESRI's codes
CHOICES = np.array([TREES, CROPS, BUILT, BARE, ICE, RANGE])


@dataclass(frozen=True)
class Ground:
    """What stays through the year, at 10 m: [side, side] each."""

    height: Array                      # metres above the sea, water level on water
    lulc: NDArray[np.uint8]
    parcel: NDArray[np.int64]          # ids 0, 1, 2, ...
    edge: Array                        # 0..1: hedge, ditch or track between parcels
    block: NDArray[np.int64]           # ids of the houses and yards of towns
    road: Array                        # 0..1: streets of towns, highways
    wet: Array                         # about 0 +- 1: where water gathers
    shore: Array                       # metres above the nearest water level (large where there is none)

    @property
    def slope(self) -> tuple[Array, Array]:
        """Rise per metre towards east and towards north."""
        return np.gradient(self.height, PIXEL, axis=1), -np.gradient(self.height, PIXEL, axis=0)


def ground(where: Setting, side: int) -> Ground:
    """Draw the ground of a setting on `side` pixels of 10 m."""
    rng = stream(where.seed, "terrain")
    height, wet, level = terrain(rng, where, side)
    shore = height - level
    water = shore < 0
    rng = stream(where.seed, "cover")
    parcel, edge, angle = parcels(rng, where, side)
    flat = np.maximum(height, level)
    lulc = cover(rng, where, side, flat, wet, shore, parcel)
    lulc[water] = WATER
    block, street = town_plan(rng, side, angle) if (lulc == BUILT).any() else (np.zeros_like(parcel), np.zeros_like(flat))
    way = np.where(lulc == BUILT, street, highways(rng, side, lulc)) * ~water
    return Ground(flat, lulc, parcel, edge, block, way, wet, shore)


def terrain(rng: Generator, where: Setting, side: int) -> tuple[Array, Array, Array]:
    """Height before water fills it, where water gathers (about 0 +- 1), and the water's level, all [side, side]."""
    course, tilt = fields(rng, side, 2, slope=4.2, shortest=60.0)
    second, rough = fields(rng, side, 2, slope=rng.uniform(3.6, 4.4), longest=1100.0, shortest=25.0)
    third, bend = fields(rng, side, 2, slope=4.2, longest=400.0, shortest=20.0)
    mountains = logistic((where.ruggedness - 0.45) * 6)
    relief = float(np.clip(rng.lognormal(np.log(9 + 330 * where.ruggedness**2), 0.75), 3, 1300))
    valleys = np.abs(course + 0.10 * bend) ** (0.8 + 0.4 * rng.random())                  # valleys where a smooth field is zero,
    valleys += (0.10 + 0.38 * valleys) * np.abs(second)                                   # tributaries, deeper on high ground,
    valleys += (0.03 + 0.13 * valleys) * np.abs(third)                                    # and gullies
    shape = (0.5 + 0.5 * mountains) * valleys + 0.12 * rough + rng.uniform(0.1, 0.7) * tilt
    low, high = np.percentile(shape, (2, 98))
    shape = (shape - low) / max(high - low, 1e-6)
    wet = 1.2 - 2.2 * np.sqrt(np.clip(shape, 0, 1.2)) + 0.3 * bend
    height = where.base + relief * shape
    level = np.full_like(height, -1e6)
    kind, wetness = rng.random(), where.wetness
    if where.base == 0:                                             # a coast: the sea covers a share of the square
        level[:] = 0.0
        height = height - np.quantile(height, min(rng.beta(1.1, 1.6), 0.97))
        height = np.where(height < 0, height * 0.4, height)
    elif kind < 0.04 + 0.34 * wetness:                              # a lake in the lowest ground
        level[:] = np.quantile(height, rng.beta(0.8, 4.0) * (0.25 + 0.75 * wetness))
    if where.base == 0 or rng.random() < 0.04 + 0.40 * wetness:     # a river in the main valley, a little lower than its banks
        width = float(np.clip(rng.lognormal(np.log(55), 0.8), 15, 500))
        steep = np.hypot(*np.gradient(course, PIXEL)) + 2e-4
        away = np.abs(course + 0.03 * bend) / steep                 # metres from the line where the field is zero
        bank = ramp(away, width / 2, width / 2 + 60 + relief / 2)
        bed = height - (1 - bank) * (0.35 * relief * shape + 1.0)
        river = away < width / 2
        height = np.where(river, bed - 0.5, bed)
        level = np.where(river, np.maximum(level, bed), level)
        wet = wet + 1.0 * np.exp(-away / 250)
    return height, wet, level


def parcels(rng: Generator, where: Setting, side: int) -> tuple[NDArray[np.int64], Array, float]:
    """Fields as rectangles or polygons in a direction of their own: ids, 0..1 at their edges, the direction."""
    angle = float(rng.uniform(0, np.pi))
    u, v = rotated(side, angle)
    warp = fields(rng, side, 2, slope=4.5, shortest=200.0) * rng.choice([5.0, 40.0, 90.0], p=[0.4, 0.4, 0.2])
    width = float(np.clip(rng.lognormal(np.log(170), 0.55), 50, 800))
    length = width * float(rng.uniform(1.0, 3.5))
    ids, distance = (strips if rng.random() < 0.6 else cells)(rng, u + warp[0], v + warp[1], length, width)
    hedge = float(rng.uniform(4, 14))
    return compact(ids), np.clip(1.2 - distance / hedge, 0, 1) * float(rng.beta(1.2, 1.5)), angle


def town_plan(rng: Generator, side: int, angle: float) -> tuple[NDArray[np.int64], Array]:
    """Lots of a town with their ids, and its streets, 0..1."""
    u, v = rotated(side, angle + rng.normal(0, 0.3))
    bend = fields(rng, side, 2, slope=4.5, shortest=300.0) * rng.choice([3.0, 30.0, 70.0])
    u, v = u + bend[0], v + bend[1]
    _, distance = strips(rng, u, v, float(rng.uniform(90, 220)), float(rng.uniform(60, 120)))
    lots, _ = strips(rng, u, v, *(float(x) for x in rng.uniform(16, 42, 2)))
    return compact(lots), np.clip(1.3 - distance / float(rng.uniform(6, 10)), 0, 1)


def highways(rng: Generator, side: int, lulc: NDArray[np.uint8]) -> Array:
    """A road or two through the land, 0..1; most worlds have none."""
    if rng.random() < (0.75 if (lulc == BUILT).mean() < 0.01 else 0.25):
        return np.zeros((side, side))
    line = fields(rng, side, 2, slope=5.0, shortest=400.0)
    away = np.abs(line - rng.normal(0, 0.5, (2, 1, 1))) / (np.stack([np.hypot(*np.gradient(one, PIXEL)) for one in line]) + 5e-5)
    return np.clip(1.4 - away / rng.uniform(5, 12, (2, 1, 1)), 0, 1).max(0) * rng.uniform(0.4, 1)


def cover(
    rng: Generator, where: Setting, side: int, height: Array, wet: Array, shore: Array, parcel: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """The class of every pixel: the greatest of scores made of climate, relief, patches of chance, and parcels."""
    chance = fields(rng, side, 6, slope=float(rng.uniform(2.7, 3.6)), shortest=20.0)
    broad = fields(rng, side, 2, slope=3.6, shortest=150.0)
    east, south = np.gradient(height, PIXEL)
    steep = np.hypot(east, south)
    warm = where.annual - 0.006 * (height - where.base)
    wetness = where.wetness + 0.06 * wet
    luck = rng.normal(0, 0.9, 6)
    people = rng.normal(-1.7, 1.6) - 3.5 * abs(where.wetness - 0.55) - 1.2 * where.ruggedness - 0.1 * max(0.0, 4 - where.annual)
    field_luck = (rng.normal(0, 0.8, int(parcel.max()) + 1))[parcel]
    in_parcel = average_over(parcel, 0.9 * broad[0] + 0.3 * chance[1] - 7 * steep)
    trees = 3.8 * (wetness - 0.50) - 7 * np.maximum(0.30 - wetness, 0) - 2.5 * ramp(-warm, 2, 8) + 1.1 * chance[0]
    trees += 8 * where.wetness**2 * np.minimum(steep, 0.4)                       # slopes too steep for fields
    farming = 1.65 - 7.5 * (where.wetness - 0.52) ** 2 - 14 * max(0.22 - where.wetness, 0.0) - 2.0 * where.ruggedness
    crops = farming - 2.2 * ramp(-warm, -4, 2) + in_parcel + field_luck
    built = people + 1.6 * average_over(parcel, broad[1]) + 0.8 * chance[2] - 8 * steep
    bare = 7.0 * (0.20 - wetness) + 3.5 * ramp(steep, 0.5, 1.0) + 1.6 * ramp(-warm, 1, 9) - 0.5 + 1.0 * chance[3]
    ice = 1.5 * (-warm - 7.5) - 2.5 * ramp(steep, 0.7, 1.3) + 0.6 * chance[4] - abs(luck[4])
    grass = 0.35 + 1.1 * ramp(-warm, -3, 8) - 3.0 * np.abs(wetness - 0.38) + 1.0 * chance[5]
    luck *= np.array([1, 1, 0.3, 0.7, 1, 0.8])                                   # what makes one world differ from the next
    scores = np.stack([trees, crops, built, bare, ice, grass]) + luck[:, None, None]
    lulc = CHOICES[scores.argmax(0)].astype(np.uint8)
    marsh = (shore < 2.5 + 1.5 * chance[4]) & (steep < 0.15) & (wetness > 0.3) & (chance[2] + luck[0] > -0.1)
    lulc[marsh & (lulc != BUILT) & (lulc != ICE)] = FLOODED
    if rng.random() < 0.006:                                        # the map's own clouds: places never seen clear
        lulc[broad[1] + chance[0] > 1.5] = CLOUDS
    return lulc
