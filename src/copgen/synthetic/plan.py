"""How do people divide the land? Parcels of fields, lots and streets of towns, highways: what a land cover map does not show.

A plan is drawn from the land cover alone and fresh randomness, not the other way round: so that it can be drawn again for a given map. It
follows the map's own straight edges, which have the directions of holdings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.fields import PIXEL, Array, cells, compact, fields, rotated, smooth, stream, strips
from copgen.synthetic.ground import BUILT, CROPS, WATER, Ground


@dataclass(frozen=True)
class Plan:
    """What divides the land, at 10 m: [side, side] each."""

    parcel: NDArray[np.int64]          # ids 0, 1, 2, ...
    edge: Array                        # 0..1: hedge, ditch or track between parcels
    block: NDArray[np.int64]           # ids of the houses and yards of towns
    road: Array                        # 0..1: streets of towns, highways


def plan(land: Ground, seed: int) -> Plan:
    """Draw how the land is divided."""
    rng = stream(seed, "plan")
    side, built = land.side, land.lulc == BUILT
    angle = direction(rng, land.lulc == CROPS)
    parcel, edge = parcels(rng, side, angle)
    block, street = town_plan(rng, side, direction(rng, built, angle)) if built.any() else (np.zeros_like(parcel), np.zeros_like(edge))
    road = np.where(built, street, highways(rng, side, built)) * (land.lulc != WATER)
    return Plan(parcel, edge, block, road)


def direction(rng: Generator, inside: NDArray[np.bool_], otherwise: float | None = None) -> float:
    """The direction of a class's straight edges, in radians, a quarter turn being the same; without such edges another one or any."""
    soft = inside.astype(np.float32)
    for _ in range(2):
        soft = smooth(soft, 0.25)
    south, east = np.gradient(soft, axis=0), np.gradient(soft, axis=1)
    strong = np.hypot(east, south) > 0.05
    fourth = complex(np.exp(4j * np.arctan2(south[strong], east[strong])).mean()) if strong.sum() > 50 else 0j
    agreed = abs(fourth)
    drawn = float(rng.uniform(0, np.pi / 2)) if otherwise is None else otherwise + float(rng.normal(0, 0.2))
    if agreed < 0.12:
        return drawn
    return float(np.angle(fourth)) / 4 + float(rng.normal(0, 0.02 / agreed))


def parcels(rng: Generator, side: int, angle: float) -> tuple[NDArray[np.int64], Array]:
    """Fields as rectangles or polygons in a direction: ids, and 0..1 at their edges."""
    u, v = rotated(side, angle)
    warp = fields(rng, side, 2, slope=4.5, shortest=200.0) * rng.choice([4.0, 20.0, 60.0], p=[0.5, 0.3, 0.2])
    width = float(np.clip(rng.lognormal(np.log(130), 0.6), 40, 800))
    length = width * float(rng.uniform(1.0, 4.0))
    ids, distance = (strips if rng.random() < 0.65 else cells)(rng, u + warp[0], v + warp[1], length, width)
    hedge = float(rng.uniform(4, 14))
    return compact(ids), np.clip(1.2 - distance / hedge, 0, 1) * float(rng.beta(1.2, 1.5))


def town_plan(rng: Generator, side: int, angle: float) -> tuple[NDArray[np.int64], Array]:
    """Lots of a town with their ids, and its streets, 0..1."""
    u, v = rotated(side, angle)
    bend = fields(rng, side, 2, slope=4.5, shortest=300.0) * rng.choice([3.0, 30.0, 70.0])
    u, v = u + bend[0], v + bend[1]
    _, distance = strips(rng, u, v, float(rng.uniform(90, 220)), float(rng.uniform(60, 120)))
    lots, _ = strips(rng, u, v, *(float(x) for x in rng.uniform(16, 42, 2)))
    return compact(lots), np.clip(1.3 - distance / float(rng.uniform(6, 10)), 0, 1)


def highways(rng: Generator, side: int, built: NDArray[np.bool_]) -> Array:
    """A road or two through the land, 0..1; most worlds have none."""
    if rng.random() < (0.75 if built.mean() < 0.01 else 0.25):
        return np.zeros((side, side))
    line = fields(rng, side, 2, slope=5.0, shortest=400.0)
    away = np.abs(line - rng.normal(0, 0.5, (2, 1, 1))) / (np.stack([np.hypot(*np.gradient(one, PIXEL)) for one in line]) + 5e-5)
    return np.clip(1.4 - away / rng.uniform(5, 12, (2, 1, 1)), 0, 1).max(0) * rng.uniform(0.4, 1)
