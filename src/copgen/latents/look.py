"""How many latents are in a folder, of what, and how are they spread?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen import geoparquet
from copgen.bulk.encode import Codecs
from copgen.bulk.records import INDEX
from copgen.modalities import table_with
from copgen.shards import Shards, name_of, open_shards
from copgen.store import codec_record

LOWEST, HIGHEST = -30.0, 20.0                    # of log-variances, as `copgen.codec.draw` cuts them
AT_ONCE = 64                                     # samples that are read together
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """How one row's unscaled latents are spread, over places, samples and their posteriors.

    `scaling_factor` would bring them to a standard deviation of 1 (the published rule: one number for all channels); `model_factor` is
    the codec's own. `kl` is the posteriors' divergence from the standard normal, in nats a latent value.
    """

    mean: Floats                                 # [z]
    std: Floats                                  # [z]
    scaling_factor: float
    model_factor: float | None
    kl: float


@dataclass(frozen=True)
class Info:
    """What is in a folder of latents. Of folders that were not made from an archive, cells, dates and rejected are not known."""

    folder: Path
    samples: int
    shards: int
    bytes: int
    having: Mapping[str, int]                    # samples that have a row
    spread: Mapping[str, Spread]                 # of the rows with a codec that any of the samples looked at has
    looked_at: int                               # samples that the spread is of
    cells: int | None
    dates: tuple[str, str] | None                # the first and the last
    rejected: int | None                         # patches that are in no shard
    reasons: Mapping[str, int]                   # patches with a fault of this kind
    meta: Mapping[str, Any]


def info(folder: Path, codecs: Codecs | None = None, *, most: int = 2000, seed: int = 0) -> Info:
    """Count what is in a folder of moments, and measure how latents are spread in at most `most` of its samples, drawn by `seed`.

    `codecs` are those whose scaling factors are to be compared. Raises ValueError for a folder that is not finished, or of other things.
    """
    if most < 1:
        raise ValueError(f"{most} samples to look at: at least 1 is needed")
    shards = open_moments(folder)
    rows = list(shards.meta["rows"])
    numbers = np.sort(np.random.default_rng(seed).permutation(len(shards))[:most])
    factors = {row: codec_record(path).scaling_factor for row, path in codecs.folders.items()} if codecs else {}
    table = table_with(rows)
    spreads = {row: spread_of(shards, row, numbers, factors.get(row)) for row in rows if table[row].is_image}
    written = sum((folder / name_of(k)).stat().st_size for k in range(len(shards.counts)))
    return Info(folder, len(shards), len(shards.counts), written, having(shards, rows),
                {row: spread for row, spread in spreads.items() if spread is not None}, len(numbers), shards.meta.get("cells"),
                dates_of(folder), shards.meta.get("rejected"), shards.meta.get("reasons", {}), shards.meta)


def open_moments(folder: Path) -> Shards:
    """The shards of moments in a folder; ValueError for one that has none, is not finished or holds something else."""
    shards = open_shards(folder)
    if shards.meta.get("kind") != "moments":
        raise ValueError(f"{folder}: holds {shards.meta.get('kind')}, not moments; name a folder that copgen encode wrote")
    try:
        table_with(shards.meta.get("rows", ["?"]))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; name a folder that this version's copgen encode wrote") from error
    return shards


def having(shards: Shards, rows: list[str]) -> dict[str, int]:
    """How many samples have each row: as the index says, else counted."""
    if "having" in shards.meta:
        return dict(shards.meta["having"])
    chunks = (np.arange(first, min(first + 100_000, len(shards))) for first in range(0, len(shards), 100_000))
    counts = sum((shards.present(rows, numbers).sum(axis=0) for numbers in chunks), np.zeros(len(rows), np.int64))
    return dict(zip(rows, counts.tolist(), strict=True))


def dates_of(folder: Path) -> tuple[str, str] | None:
    """The first and the last day in a folder's index, where it has one with days."""
    import pyarrow.compute as pc

    if not (folder / INDEX).is_file():
        return None
    ends = pc.min_max(geoparquet.read(folder / INDEX, ["date"])["date"]).as_py()
    return (str(ends["min"]), str(ends["max"])) if ends["min"] else None


def spread_of(shards: Shards, row: str, numbers: NDArray[np.int64], model_factor: float | None) -> Spread | None:
    """The moments of what would be drawn: the variance of the means and the mean of the variances. None where no sample has the row."""
    numbers = numbers[shards.present([row], numbers)[:, 0]]
    if not len(numbers):
        return None
    sums: list[Floats] = [np.zeros(1)] * 4
    count = 0
    for first in range(0, len(numbers), AT_ONCE):
        stored = shards.read((row,), numbers[first : first + AT_ONCE])[row].astype(np.float64)
        mean, log_variance = np.split(stored, 2, axis=1)                               # [n, z, h, w]
        log_variance = np.clip(log_variance, LOWEST, HIGHEST)
        parts = (mean, mean**2, np.exp(log_variance), log_variance)
        sums = [total + part.sum(axis=(0, 2, 3)) for total, part in zip(sums, parts, strict=True)]
        count += mean[:, 0].size
    mean, square, variance, log_variance = (total / count for total in sums)           # [z]
    everything = float(np.mean(square + variance) - np.mean(mean) ** 2)
    kl = float(np.mean(square + variance - 1 - log_variance) / 2)
    return Spread(mean, np.sqrt(square + variance - mean**2), everything**-0.5, model_factor, kl)
