"""What covers the ground? Terrain, and land cover by rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.fields import PIXEL, Array, average_over, cells, compact, fields, ramp, rotated, stream, strips
from copgen.synthetic.relief import Relief, relief
from copgen.synthetic.setting import Setting

WATER, TREES, FLOODED, CROPS, BUILT, BARE, ICE, CLOUDS, RANGE = 1, 2, 4, 5, 7, 8, 9, 10, 11   # ESRI's codes
CHOICES = np.array([TREES, CROPS, BUILT, BARE, ICE, RANGE])


@dataclass(frozen=True)
class Ground(Relief):
    """What stays through the year, at 10 m: terrain and land cover, [side, side] each."""

    lulc: NDArray[np.uint8]

    @property
    def side(self) -> int:
        return int(self.height.shape[0])

    @property
    def slope(self) -> tuple[Array, Array]:
        """Rise per metre towards east and towards north."""
        return np.gradient(self.height, PIXEL, axis=1), -np.gradient(self.height, PIXEL, axis=0)


def ground(where: Setting, seed: int | None = None, terrain: Relief | None = None) -> Ground:
    """Draw the ground of a setting, with its own seed or another one, on drawn or on given terrain."""
    seed = where.seed if seed is None else seed
    terrain = relief(where, seed) if terrain is None else terrain
    return Ground(terrain.height, terrain.wet, terrain.shore, cover(where, terrain, seed))


def holdings(rng: Generator, side: int) -> NDArray[np.int64]:
    """Ids of the pieces of land that are used alike: several parcels each."""
    u, v = rotated(side, float(rng.uniform(0, np.pi)))
    warp = fields(rng, side, 2, slope=4.5, shortest=200.0) * rng.choice([5.0, 40.0, 90.0], p=[0.4, 0.4, 0.2])
    width = float(np.clip(rng.lognormal(np.log(190), 0.55), 60, 800))
    length = width * float(rng.uniform(1.0, 3.5))
    ids, _ = (strips if rng.random() < 0.6 else cells)(rng, u + warp[0], v + warp[1], length, width)
    return compact(ids)


def cover(where: Setting, terrain: Relief, seed: int) -> NDArray[np.uint8]:
    """The class of every pixel: the greatest of scores made of climate, relief, patches of chance, and holdings."""
    rng = stream(seed, "cover")
    height, wet, shore, side = terrain.height, terrain.wet, terrain.shore, terrain.height.shape[0]
    parcel = holdings(rng, side)
    chance = fields(rng, side, 6, slope=float(rng.uniform(2.7, 3.6)), shortest=20.0)
    broad = fields(rng, side, 2, slope=3.6, shortest=150.0)
    east, south = np.gradient(height, PIXEL)
    steep = np.hypot(east, south)
    summer = where.summer - 0.006 * (height - where.base)
    wetness = where.wetness + 0.06 * wet
    luck = rng.normal(0, 0.9, 6)
    people = rng.normal(-1.7, 1.6) - 3.5 * abs(where.wetness - 0.55) - 1.2 * where.ruggedness - 0.3 * max(0.0, 16 - where.summer)
    field_luck = (rng.normal(0, 0.8, int(parcel.max()) + 1))[parcel]
    in_parcel = average_over(parcel, 0.9 * broad[0] + 0.3 * chance[1] - 7 * steep)
    trees = 3.8 * (wetness - 0.50) - 7 * np.maximum(0.30 - wetness, 0) - 4.5 * ramp(12 - summer, 0, 5) + 1.1 * chance[0]
    trees += 8 * where.wetness**2 * np.minimum(steep, 0.4)                       # slopes too steep for fields
    farming = 1.65 - 7.5 * (where.wetness - 0.52) ** 2 - 14 * max(0.22 - where.wetness, 0.0) - 2.0 * where.ruggedness
    crops = farming - 4.5 * ramp(17 - summer, 0, 5) + in_parcel + field_luck
    built = people + 1.6 * average_over(parcel, broad[1]) + 0.8 * chance[2] - 8 * steep
    bare = 7.0 * (0.20 - wetness) + 3.5 * ramp(steep, 0.5, 1.0) + 1.8 * ramp(9 - summer, 0, 8) - 0.5 + 1.0 * chance[3]
    ice = 1.2 * (1.0 - summer) - 2.5 * ramp(steep, 0.7, 1.3) + 0.6 * chance[4] - abs(luck[4])
    grass = 0.35 + 1.1 * ramp(14 - summer, 0, 6) - 3.0 * np.abs(wetness - 0.38) + 1.0 * chance[5]
    luck *= np.array([1, 1, 0.3, 0.7, 1, 0.8])                                   # what makes one world differ from the next
    scores = np.stack([trees, crops, built, bare, ice, grass]) + luck[:, None, None]
    lulc = CHOICES[scores.argmax(0)].astype(np.uint8)
    marsh = (shore < 1.2 + 0.9 * chance[4]) & (steep < 0.15) & (wetness > 0.3) & (chance[2] + luck[0] > -0.1)
    lulc[marsh & (lulc != BUILT) & (lulc != ICE)] = FLOODED
    if rng.random() < 0.006:                                        # the map's own clouds: places never seen clear
        lulc[broad[1] + chance[0] > 1.5] = CLOUDS
    lulc[shore < 0] = WATER
    return lulc
