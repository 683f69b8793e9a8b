"""What would twelve layers of one place look like if we knew how they hang together? A seeded synthetic Earth.

A world is drawn from causes to effects: place and date, climate and sun; terrain, water, parcels and land cover; green leaves, snow and
moisture; reflectance, atmosphere, clouds and radar; at last each row at its own resolution, averaged from a truth at 10 m. Each step has a
random stream of its own. It is an instrument and a teaching world, not the Earth: longitude, for one, says only which part of the land a
place is in, and with it how wet and how rugged the place tends to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import TABLE, Table
from copgen.scene import Footprint, Scene
from copgen.synthetic.fields import PIXEL, Array, averaged, stream
from copgen.synthetic.ground import BUILT, TREES, Ground, ground
from copgen.synthetic.radar import backscatter
from copgen.synthetic.setting import Setting, setting
from copgen.synthetic.sky import observe
from copgen.synthetic.surface import reflectance

__all__ = ["region", "world", "worlds"]

RESOLUTIONS = (10, 20, 30, 60)


def world(seed: int, table: Table = TABLE, *, side: int | None = None) -> Scene:
    """One world with all rows of the table, for its footprint or a square of `side` metres. The same seed gives the same world.

    Raises ValueError for a negative seed and a side that is not a multiple of 60 m.
    """
    table = table if side is None else replace(table, footprint=side)
    layers, footprint = region(seed, table.footprint)
    kept = {name: layers[name] for name in table.names if name in layers}
    return Scene(kept, footprint, f"world-{seed:06d}", table, {"synthetic seed": seed})


def worlds(seeds: Iterable[int], table: Table = TABLE) -> Iterator[Scene]:
    """A world a seed, in order."""
    return (world(seed, table) for seed in seeds)


def region(seed: int, side: int = 1920) -> tuple[dict[str, NDArray[Any]], Footprint]:
    """All twelve layers of a square of `side` metres, in physical units by row name, and its footprint.

    Raises ValueError for a side that is not a multiple of 60 m: pixels of 10, 20, 30 and 60 m must all fit.
    """
    if side <= 0 or side % max(RESOLUTIONS):
        raise ValueError(f"side {side} m: a world's side is a multiple of 60 m, such as 1920, 2880 or 10680")
    where = setting(seed, side)
    land = ground(where, int(side / PIXEL))
    surface, green, snow = reflectance(where, land)
    l1c, l2a, mask = observe(where, surface)
    layers: dict[str, NDArray[Any]] = {
        "place": np.array(where.footprint.centre),
        "date": np.array([where.date], "datetime64[D]"),
        "dem": elevation(where, land),
        "lulc": land.lulc[None],
        "cloud_mask": mask[None],
        "s1rtc": backscatter(where, land, green, snow).astype(np.float32),
    }
    for product, bands in (("S2L1C", l1c), ("S2L2A", l2a)):
        for row in TABLE.rows:
            if row.product == product:
                layers[row.name] = digital_numbers(np.stack([bands[band] for band in row.bands]), int(row.resolution or 10))
    return layers, where.footprint


def digital_numbers(reflectances: Array, resolution: int) -> NDArray[np.float32]:
    """Reflectances at 10 m -> whole DN at the resolution, as the products hold them: 1 at least."""
    return np.clip(np.round(averaged(reflectances, int(resolution / PIXEL)) * 10_000), 1, 19_999).astype(np.float32)


def elevation(where: Setting, land: Ground) -> NDArray[np.float32]:
    """The surface that a DEM from radar shows, at 30 m: ground, part of the trees' and houses' height, and noise."""
    rng = stream(where.seed, "dem")
    tall = np.where(land.lulc == TREES, rng.uniform(2, 14), np.where(land.lulc == BUILT, rng.uniform(1, 5), 0.0))
    metres = averaged(land.height + tall, 3)
    noise = rng.standard_normal(metres.shape) * rng.uniform(0.1, 0.6)
    dry = averaged((land.lulc != 1).astype(np.float64), 3)
    return (metres + noise * dry)[None].astype(np.float32)
