"""Where is a model tried, and what do other places say without any model? Worlds that no training drew, and real cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import Table
from copgen.scene import Scene
from copgen.synthetic import ground, setting, world
from copgen.synthetic.fields import stream
from copgen.synthetic.ground import CROPS, RANGE, TREES
from copgen.synthetic.land import mask
from copgen.training.codec_report import read_cells

UNSEEN = 10_000_000                              # trainings draw far smaller seeds: another world, another place
OTHERS = UNSEEN + 5_000_000                      # worlds that baselines are fitted on
Array = NDArray[np.float64]


@lru_cache(maxsize=1)
def cells(folder: Path, table: Table) -> dict[str, Scene]:
    """The real cells of a folder, by name, each the 1920 m in its middle."""
    return {scene.name: scene for scene in read_cells(folder, table).scenes}


def seeds_near(lat: float, count: int, within: float = 2.0) -> list[int]:
    """The first unseen worlds whose place is at a latitude and mostly green: trees, crops, rangeland."""
    found: list[int] = []
    for seed in range(UNSEEN, UNSEEN + 50_000):
        near = abs(mask().place(stream(seed, "place"))[0] - lat) < within                      # quick, and true of few
        if near and np.isin(ground(setting(seed, 1920)).lulc, (TREES, CROPS, RANGE)).mean() > 0.6:
            found.append(seed)
            if len(found) == count:
                return found
    raise ValueError(f"latitude {lat}: {len(found)} green worlds in 50,000; ask for fewer than {count}")


@dataclass(frozen=True)
class Baselines:
    """What a place's layers are guessed to be from other places alone."""

    slope: Array                                 # [12] of S2L2A on S2L1C, band by band, in the table's order
    offset: Array                                # [12] DN
    level: Array                                 # [12] DN: the median of S2L2A
    decibels: Array                              # [2]: the median of S1RTC
    code: int                                    # the most frequent class

    @classmethod
    def of(cls, places: Iterable[Scene]) -> Baselines:
        """Fitted on places: least squares for the lines; medians, which no other constant beats in absolute error."""
        above, below, radar, classes = [], [], [], []
        for place in places:
            top = dict(zip(band_names(place, "S2L1C"), bands(place, "S2L1C"), strict=True))
            below.append(bands(place, "S2L2A"))
            above.append([top[name] for name in band_names(place, "S2L2A")])
            radar.append(decibels(place["s1rtc"]).reshape(2, -1))
            classes.append(place["lulc"].ravel())
        pairs = [(np.concatenate([one[k].ravel() for one in above]), np.concatenate([one[k].ravel() for one in below]))
                 for k in range(len(below[0]))]
        slope, offset = np.array([np.polyfit(x, y, 1) for x, y in pairs]).T
        return cls(slope, offset, np.array([np.median(y) for _, y in pairs]), np.median(np.concatenate(radar, 1), 1),
                   int(np.bincount(np.concatenate(classes)).argmax()))


@lru_cache(maxsize=1)
def from_worlds(table: Table, count: int) -> Baselines:
    return Baselines.of(world(OTHERS + number, table) for number in range(count))


@lru_cache(maxsize=3)
def from_cells(folder: Path, table: Table, without: str) -> Baselines:
    """Fitted on the other real cells."""
    return Baselines.of(scene for name, scene in cells(folder, table).items() if name != without)


def bands(place: Scene, product: str) -> list[NDArray[np.float32]]:
    """The bands of a product, each [h, w] at its own resolution, in the table's order."""
    return [band for row in place.table.select(product) for band in place[row]]


def band_names(place: Scene, product: str) -> list[str]:
    return [name for row in place.table.select(product) for name in place.table[row].bands]


def decibels(power: NDArray[np.floating]) -> Array:
    return 10 * np.log10(np.maximum(power, 1e-6).astype(np.float64))


def stacked(samples: Sequence[Scene], row: str) -> NDArray[np.floating]:
    """One row of all samples, [m, bands, h, w]."""
    return np.stack([sample[row] for sample in samples])
