"""Where training samples come from: worlds made on the fly, or layers in shards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import TABLE, Modality, Table
from copgen.scaling import DayOfYear, UnitVector
from copgen.scene import Scene
from copgen.shards import Shards, open_shards
from copgen.synthetic import world
from copgen.writing import stored

Layers = dict[str, NDArray[Any]]


class Source(Protocol):
    """Samples by number, as layers in physical units."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def layers(self, rows: Sequence[str], numbers: Sequence[int]) -> Layers:
        """The layers [len(numbers), *layer_shape] of these rows."""
        ...


@dataclass(frozen=True)
class Worlds:
    """Synthetic worlds of seeds first..last - 1."""

    first: int
    last: int
    table: Table = TABLE
    workers: int = 1

    @property
    def name(self) -> str:
        return f"synthetic:{self.first}..{self.last}"

    def __len__(self) -> int:
        return self.last - self.first

    def layers(self, rows: Sequence[str], numbers: Sequence[int]) -> Layers:
        scenes = list(self._made([self.first + int(number) for number in numbers]))
        return {row: np.stack([scene[row] for scene in scenes]) for row in rows}

    def _made(self, seeds: list[int]) -> Iterator[Scene]:
        if self.workers == 1:
            yield from (world(seed, self.table) for seed in seeds)
            return
        with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
            yield from pool.map(world, seeds, [self.table] * len(seeds), chunksize=8)


@dataclass(frozen=True)
class Stored:
    """Layers in shards, as `copgen synthesize --shards` writes them."""

    shards: Shards
    table: Table = field(default=TABLE)

    @property
    def name(self) -> str:
        return str(self.shards.meta.get("source", self.shards.folder.name))

    def __len__(self) -> int:
        return len(self.shards)

    def layers(self, rows: Sequence[str], numbers: Sequence[int]) -> Layers:
        packed = self.shards.read(tuple(rows), np.asarray(numbers, np.int64))
        return {row: unpack(self.table[row], array) for row, array in packed.items()}


def open_source(text: str, table: Table, workers: int = 1) -> Source:
    """`synthetic:FIRST..LAST`, or a folder of layer shards; ValueError for anything else."""
    if match := re.fullmatch(r"synthetic:(\d+)\.\.(\d+)", text):
        first, last = int(match[1]), int(match[2])
        if last <= first:
            raise ValueError(f"--data {text}: the last seed must be larger than the first")
        return Worlds(first, last, table, workers)
    folder = Path(text)
    if not folder.is_dir():
        raise ValueError(f"--data {text}: neither synthetic:FIRST..LAST nor a folder of layer shards")
    shards = open_shards(folder)
    if shards.meta.get("kind") != "layers":
        raise ValueError(f"--data {text}: holds {shards.meta.get('kind')}, not layers (copgen synthesize --shards)")
    return Stored(shards, table)


def pack(row: Modality, layers: NDArray[Any]) -> NDArray[Any]:
    """Layers as their files would hold them (DN as uint16, classes as uint8), days as int32."""
    match row.scale:
        case DayOfYear():
            return layers.astype("datetime64[D]").astype(np.int32)
        case UnitVector():
            return layers.astype(np.float64)
        case _:
            return stored(row, layers).values


def unpack(row: Modality, array: NDArray[Any]) -> NDArray[Any]:
    return array.astype("datetime64[D]") if isinstance(row.scale, DayOfYear) else array


def packed_layers(source: Source, table: Table, numbers: range) -> Mapping[str, NDArray[Any]]:
    """All rows of these samples, packed: what one shard of layers holds."""
    return {name: pack(table[name], layers) for name, layers in source.layers(table.names, list(numbers)).items()}
