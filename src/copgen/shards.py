"""Shards: many samples on disk as a folder of safetensors files, one array a row; layers and moments alike.

A folder holds `index.json` (kind, rows, samples a shard) and `shard-00000.safetensors`, `shard-00001.safetensors`, ...; each appears
whole or not at all, so that a writer that was killed goes on with the next missing one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
PRESENT = "present"                              # the array that says which rows a sample has, uint8 [n, rows], where some lack some


@dataclass(frozen=True)
class Shards:
    """Samples by number, read as they are asked for. `meta` says how they were made."""

    folder: Path
    samples: int
    per_shard: int
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return self.samples

    @property
    def parts(self) -> Sequence[Shards]:
        """The folders that it is made of, as `Mixed` has them: itself."""
        return (self,)

    @property
    def incomplete(self) -> bool:
        """Whether samples may lack rows."""
        return bool(self.meta.get("incomplete", False))

    def present(self, rows: Sequence[str], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which samples have which rows [len(numbers), len(rows)]."""
        if not self.incomplete:
            return np.ones((len(numbers), len(rows)), bool)
        known = list(self.meta["rows"])
        if strange := [row for row in rows if row not in known]:
            raise ValueError(f"{self.folder} says nothing of {', '.join(strange)}, only of {', '.join(known)}; "
                             "make it again with this table")
        places = [known.index(row) for row in rows]
        return self.read((PRESENT,), numbers)[PRESENT].astype(bool)[:, places]

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


@dataclass(frozen=True)
class Mixed:
    """Several folders of shards as one, each as often as asked."""

    parts: Sequence[Shards]
    times: Sequence[int]

    def __post_init__(self) -> None:
        if len({part.meta.get("kind") for part in self.parts}) > 1 or min(self.times) < 1:
            raise ValueError(f"{', '.join(str(part.folder) for part in self.parts)}: shards of one kind, each once or more, can be mixed")

    @property
    def each(self) -> list[tuple[Shards, int]]:
        return list(zip(self.parts, self.times, strict=True))

    @property
    def folder(self) -> Path:
        return self.parts[0].folder

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the parts share, and each one's own with how often it comes."""
        shared = {key: value for key, value in self.parts[0].meta.items() if all(part.meta.get(key) == value for part in self.parts)}
        return shared | {"mixed": [dict(part.meta) | {"samples": len(part), "times": n} for part, n in self.each]}

    @property
    def incomplete(self) -> bool:
        """Whether samples may lack rows."""
        return any(part.incomplete for part in self.parts)

    def __len__(self) -> int:
        return sum(len(part) * n for part, n in self.each)

    def present(self, rows: Sequence[str], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which samples have which rows [len(numbers), len(rows)]."""
        return np.concatenate([part.present(rows, np.array([k])) for part, k in map(self._place, numbers)])

    def read(self, rows: tuple[str, ...], numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The arrays [len(numbers), ...] of these rows."""
        found = [part.read(rows, np.array([k])) for part, k in map(self._place, numbers)]
        return {row: np.concatenate([arrays[row] for arrays in found]) for row in rows}

    def _place(self, number: np.int64) -> tuple[Shards, int]:
        rest = int(number)
        for part, n in self.each:
            if rest < len(part) * n:
                return part, rest % len(part)
            rest -= len(part) * n
        raise IndexError(f"sample {number} of {len(self)}")


def open_mixed(folders: Iterable[str]) -> Shards | Mixed:
    """`FOLDER` or `FOLDER:TIMES`, one or several of them."""
    named = [shard_folder(text) for text in folders]
    parts, times = [open_shards(folder) for folder, _ in named], [n for _, n in named]
    return parts[0] if times == [1] else Mixed(parts, times)


def shard_folder(text: str) -> tuple[Path, int]:
    """`FOLDER` or `FOLDER:TIMES`, once where it does not say; a folder of that very name is meant as it is."""
    folder, colon, count = text.rpartition(":")
    several = colon and count.isascii() and count.isdecimal() and not Path(text).is_dir()
    return (Path(folder), int(count)) if several else (Path(text), 1)


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
