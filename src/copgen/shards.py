"""Shards: many samples on disk as a folder of safetensors files, one array a row; layers and moments alike.

A folder holds `index.json` (kind, rows, samples a shard) and `shard-00000.safetensors`, `shard-00001.safetensors`, ...; each appears
whole or not at all, so that a writer that was killed goes on with the next missing one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from copgen.files import write_json, write_whole

Arrays = Mapping[str, NDArray[Any]]
INDEX = "index.json"


@dataclass(frozen=True)
class Shards:
    """Samples by number, read as they are asked for. `meta` says how they were made."""

    folder: Path
    samples: int
    per_shard: int
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return self.samples

    def read(self, rows: tuple[str, ...], numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The arrays [len(numbers), ...] of these rows."""
        found: dict[str, list[NDArray[Any]]] = {row: [] for row in rows}
        for number in numbers:
            shard = _opened(self.folder / name_of(int(number) // self.per_shard))
            try:
                for row in rows:
                    found[row].append(shard.get_slice(row)[int(number) % self.per_shard])
            except SafetensorError as error:
                raise ValueError(f"{self.folder}: {error}; it holds {', '.join(shard.keys())}") from error
        return {row: np.stack(arrays) for row, arrays in found.items()}


def open_shards(folder: Path) -> Shards:
    """The shards in `folder`; ValueError where there are none or one is missing."""
    try:
        index = json.loads((folder / INDEX).read_text())
        shards = Shards(folder, int(index["samples"]), int(index["per_shard"]), dict(index["meta"]))
        if shards.samples < 1 or shards.per_shard < 1:
            raise ValueError(f"{shards.samples} samples, {shards.per_shard} a shard")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: no readable {INDEX}; make the shards first (copgen synthesize, copgen encode)") from error
    for k in range(-(-shards.samples // shards.per_shard)):
        if not (folder / name_of(k)).is_file():
            raise ValueError(f"{folder}: {name_of(k)} is missing; run the command that writes these shards again, it goes on there")
    return shards


def write_shards(folder: Path, samples: int, make: Callable[[range], Arrays], *, per_shard: int, meta: Mapping[str, Any],
                 progress: Callable[[int, int], object] | None = None) -> Shards:
    """Write `samples` samples, `make(range)` giving the arrays [n, ...] of one shard; shards that exist are kept.

    Raises ValueError where the folder holds shards of other things.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = {"samples": samples, "per_shard": per_shard, "meta": json.loads(json.dumps(meta))}
    if (folder / INDEX).exists():
        there = json_of(folder / INDEX)
        for key in ("per_shard", "meta"):
            if there.get(key) != index[key]:
                raise ValueError(f"{folder}: holds shards made with {key} {there.get(key)}, not {index[key]}; choose another folder")
    write_json(folder / INDEX, index)
    for k in range(-(-samples // per_shard)):
        numbers = range(k * per_shard, min((k + 1) * per_shard, samples))
        path = folder / name_of(k)
        if not (path.is_file() and _length(path) == len(numbers)):
            write_whole(path, save({row: np.ascontiguousarray(array) for row, array in make(numbers).items()}))
            _opened.cache_clear()                # a reader of this process may hold the file that was here
        if progress:
            progress(numbers.stop, samples)
    return open_shards(folder)


def name_of(k: int) -> str:
    return f"shard-{k:05d}.safetensors"


def json_of(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: could not be read ({error}); choose another folder, or delete this one") from error


@lru_cache(maxsize=256)
def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: is damaged or gone ({error}); delete it and run the command that wrote it again") from error


def _length(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as shard:
            return int(shard.get_slice(next(iter(shard.keys()))).get_shape()[0])
    except (OSError, SafetensorError, StopIteration):
        return -1
