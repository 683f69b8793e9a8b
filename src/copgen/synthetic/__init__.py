"""What would twelve layers of one place look like if we knew how they hang together? A seeded synthetic Earth.

A world is drawn from causes to effects: place and date, and the climate and sun that follow from them (`setting`); terrain with its rivers,
then land cover (`ground`); then all that is observed (`render`): the weather of those weeks, parcels and towns, green leaves, snow and
moisture, reflectance, atmosphere, clouds and radar, at last each row at its own resolution, averaged from a truth at 10 m. Each step has a
random stream of its own, and each takes nothing from the steps before it that the layers do not show, so that it can be drawn again for
given layers: `render` with another seed is a draw given place, date, terrain and land cover.

It is an instrument and a teaching world, not the Earth. Latitude and season carry climate, sun and snow; longitude says only how wet
and rugged that part of the Earth is, how far from the sea, and which coast is near.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import TABLE, Table
from copgen.scene import Footprint, Scene
from copgen.scores.images import averaged
from copgen.synthetic.fields import PIXEL, Array, stream
from copgen.synthetic.ground import BUILT, TREES, Ground, ground
from copgen.synthetic.plan import plan
from copgen.synthetic.radar import backscatter
from copgen.synthetic.setting import Setting, setting, under_weather
from copgen.synthetic.sky import observe
from copgen.synthetic.surface import reflectance

__all__ = ["ground", "region", "render", "setting", "world", "worlds"]

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
    return render(where, ground(where)), where.footprint


def render(where: Setting, land: Ground, seed: int | None = None) -> dict[str, NDArray[Any]]:
    """All twelve layers as observed at a place and date over given ground: everything but place, date and land cover drawn anew.

    With the setting's own seed (None) it is the world of that seed. With another one it is a draw from the distribution of all
    observations given place, date, terrain and land cover: the weather, parcels, plants, soils, snow, sky and noise are others.
    """
    seed = where.seed if seed is None else seed
    now, lots = under_weather(where, seed), plan(land, seed)
    surface, green, snow = reflectance(now, land, lots, seed)
    l1c, l2a, mask = observe(now, surface, seed)
    layers: dict[str, NDArray[Any]] = {
        "place": np.array(where.footprint.centre),
        "date": np.array([where.date], "datetime64[D]"),
        "dem": elevation(land, seed),
        "lulc": land.lulc[None],
        "cloud_mask": mask[None],
        "s1rtc": backscatter(now, land, lots, green, snow, seed).astype(np.float32),
    }
    for product, bands in (("S2L1C", l1c), ("S2L2A", l2a)):
        for row in TABLE.rows:
            if row.product == product:
                layers[row.name] = digital_numbers(np.stack([bands[band] for band in row.bands]), int(row.resolution or 10))
    return layers


def digital_numbers(reflectances: Array, resolution: int) -> NDArray[np.float32]:
    """Reflectances at 10 m -> whole DN at the resolution, as the products hold them: 1 at least."""
    return np.clip(np.round(averaged(reflectances, int(resolution / PIXEL)) * 10_000), 1, 19_999).astype(np.float32)


def elevation(land: Ground, seed: int) -> NDArray[np.float32]:
    """The surface that a DEM from radar shows, at 30 m: ground, part of the trees' and houses' height, and noise."""
    rng = stream(seed, "dem")
    tall = np.where(land.lulc == TREES, rng.uniform(2, 14), np.where(land.lulc == BUILT, rng.uniform(1, 5), 0.0))
    metres = averaged(land.height + tall, 3)
    noise = rng.standard_normal(metres.shape) * rng.uniform(0.1, 0.6)
    dry = averaged((land.lulc != 1).astype(np.float64), 3)
    return (metres + noise * dry)[None].astype(np.float32)
