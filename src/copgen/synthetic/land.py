"""Where is land, and how far is the sea? The 1 km mask of global-land-mask, made small.

The package holds the mask of NOAA's GLOBE elevation model (public domain; the package is MIT) and unpacks it to 900 MB on import. Here its
file is read in strips and kept as the columns where land and sea change, 3 MB; this takes three seconds, once a process.
"""

from __future__ import annotations

import importlib.util
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

ROWS, COLUMNS, STRIP, PER_DEGREE = 21_600, 43_200, 240, 120
NORTH, SOUTH = 83.0, -60.0                     # Sentinel-2's last land in the north; Antarctica is left out


@dataclass(frozen=True)
class Mask:
    """Land and sea on 30 arc seconds, row by row from the north: `turns[starts[row] : starts[row + 1]]` are the columns of change."""

    starts: NDArray[np.int64]
    turns: NDArray[np.int32]
    first: NDArray[np.bool_]           # whether a row begins, at 180 W, in the sea
    inland: NDArray[np.float32]        # share of land by square of two degrees, smoothed over some thousand kilometres

    def sea(self, lat: float, lon: float) -> bool:
        """Whether a place is in the sea; lakes are land."""
        row = min(max(int((90 - lat) * PER_DEGREE), 0), ROWS - 1)
        column = int((lon + 180) * PER_DEGREE) % COLUMNS
        changes = np.searchsorted(self.turns[self.starts[row]:self.starts[row + 1]], column, side="right")
        return bool(self.first[row] ^ (changes % 2 == 1))

    def coastal(self, lat: float, lon: float, within: float = 0.05) -> bool:
        """Whether there is sea nearby: at one of eight places on a circle of `within` degrees (five kilometres)."""
        wide = within / max(np.cos(np.radians(lat)), 0.1)
        angles = np.arange(8) * np.pi / 4
        return any(self.sea(lat + within * float(np.sin(a)), (lon + wide * float(np.cos(a)) + 180) % 360 - 180) for a in angles)

    def continentality(self, lat: float, lon: float) -> float:
        """0 on islands .. 1 deep in a continent: how much land there is around."""
        row, column = (90 - lat) / 2 - 0.5, (lon + 180) / 2 - 0.5
        i, j = int(np.floor(row)), int(np.floor(column))
        down, right = row - i, column - j
        rows, columns = np.clip([i, i + 1], 0, 89), np.array([j, j + 1]) % 180
        corners = self.inland[np.ix_(rows, columns)]
        return float(np.array([1 - down, down]) @ corners @ np.array([1 - right, right]))

    def place(self, rng: Generator) -> tuple[float, float]:
        """A place (lat, lon) on land, uniformly by area, Antarctica left out."""
        low, high = np.sin(np.radians([SOUTH, NORTH]))
        while True:
            lat, lon = float(np.degrees(np.arcsin(rng.uniform(low, high)))), float(rng.uniform(-180, 180))
            if not self.sea(lat, lon):
                return lat, lon


@lru_cache(maxsize=1)
def mask() -> Mask:
    """The mask, read on first use; ValueError where the package is not installed."""
    found = importlib.util.find_spec("global_land_mask")
    if found is None or not found.submodule_search_locations:
        raise ValueError("places of the synthetic Earth need the package global-land-mask: pip install global-land-mask")
    counts, turns, first, share = [], [], [], []
    path = Path(found.submodule_search_locations[0]) / "globe_combined_mask_compressed.npz"
    with zipfile.ZipFile(path) as archive, archive.open("mask.npy") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        if shape != (ROWS, COLUMNS):
            raise ValueError(f"global-land-mask: a mask of {shape[0]} x {shape[1]} cells; {ROWS} x {COLUMNS} is what version 1 holds")
        for _ in range(ROWS // STRIP):
            sea = np.frombuffer(file.read(STRIP * COLUMNS), bool).reshape(STRIP, COLUMNS)
            row, column = np.nonzero(sea[:, 1:] != sea[:, :-1])
            counts.append(np.bincount(row, minlength=STRIP))
            turns.append((column + 1).astype(np.int32))
            first.append(sea[:, 0].copy())
            share.append(1 - sea[::8, ::8].reshape(STRIP // 8, 180, 30).mean((0, 2)))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Mask(starts, np.concatenate(turns), np.concatenate(first), smoothed(np.array(share)))


def smoothed(share: NDArray[np.float64]) -> NDArray[np.float32]:
    """Averages over about a thousand kilometres, the dateline joined."""
    for _ in range(12):
        share = (np.roll(share, 1, 1) + 2 * share + np.roll(share, -1, 1)) / 4
        tall = np.pad(share, ((1, 1), (0, 0)), mode="edge")
        share = (tall[:-2] + 2 * share + tall[2:]) / 4
    return share.astype(np.float32)
