"""Where training samples come from: worlds made on the fly, or layers in shards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import TABLE, Modality, Table
from copgen.scaling import DayOfYear, UnitVector
from copgen.scene import Scene
from copgen.shards import PRESENT, Mixed, Numbers, Shards, open_mixed, shard_folder, starts_of
from copgen.synthetic import world
from copgen.writing import stored

Layers = dict[str, NDArray[Any]]
Chosen = Sequence[int] | Numbers                 # numbers of samples
AT_ONCE = 2**20                                  # samples whose presence is read at a time


class Source(Protocol):
    """Samples by number, as layers in physical units."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    @property
    def incomplete(self) -> bool:
        """Whether samples may lack rows; what they lack is zeros."""
        ...

    @property
    def counts(self) -> Numbers:
        """How many samples lie together, stretch by stretch, in the order of their numbers."""
        ...

    def layers(self, rows: Sequence[str], numbers: Chosen) -> Layers:
        """The layers [len(numbers), *layer_shape] of these rows."""
        ...

    def present(self, rows: Sequence[str], numbers: Chosen) -> NDArray[np.bool_]:
        """Which samples have which rows [len(numbers), len(rows)]."""
        ...


@dataclass(frozen=True)
class Worlds:
    """Synthetic worlds of seeds first..last - 1."""

    first: int
    last: int
    table: Table = TABLE
    workers: int = 1
    incomplete: bool = False

    def __post_init__(self) -> None:
        if drawn := [row.name for row in self.table.rows if row.drawing]:
            raise ValueError(f"{self.name}: {drawn[0]} is a picture of a whole cell, which these squares are too small for; write cells "
                             "(copgen synthesize --archive), and their pictures as shards (copgen encode --archive --layers)")

    @property
    def name(self) -> str:
        return f"synthetic:{self.first}..{self.last}"

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def counts(self) -> Numbers:
        return np.array([len(self)])

    def layers(self, rows: Sequence[str], numbers: Chosen) -> Layers:
        scenes = list(self._made([self.first + int(number) for number in numbers]))
        return {row: np.stack([scene[row] for scene in scenes]) for row in rows}

    def present(self, rows: Sequence[str], numbers: Chosen) -> NDArray[np.bool_]:
        return np.ones((len(numbers), len(rows)), bool)

    def _made(self, seeds: list[int]) -> Iterator[Scene]:
        if self.workers == 1:
            yield from (world(seed, self.table) for seed in seeds)
            return
        with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
            yield from pool.map(world, seeds, [self.table] * len(seeds), chunksize=8)


@dataclass(frozen=True)
class Stored:
    """Layers in shards, as `copgen synthesize --shards` and `copgen encode --layers` write them."""

    shards: Shards | Mixed
    table: Table = field(default=TABLE)

    @property
    def name(self) -> str:
        if isinstance(self.shards, Mixed):
            return "; ".join(f"{part.meta.get('source', part.folder.name)} x {n}" for part, n in self.shards.each)
        return str(self.shards.meta.get("source", self.shards.folder.name))

    @property
    def incomplete(self) -> bool:
        return self.shards.incomplete

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def counts(self) -> Numbers:
        return self.shards.counts

    def present(self, rows: Sequence[str], numbers: Chosen) -> NDArray[np.bool_]:
        return self.shards.present(rows, np.asarray(numbers, np.int64))

    def layers(self, rows: Sequence[str], numbers: Chosen) -> Layers:
        packed = self.shards.read(tuple(rows), np.asarray(numbers, np.int64))
        return {row: unpack(self.table[row], array) for row, array in packed.items()}


@dataclass(frozen=True)
class Scenes:
    """Scenes at hand, each with the rows it has: real files, say."""

    name: str
    scenes: Sequence[Scene]
    table: Table = TABLE
    incomplete: bool = True

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def counts(self) -> Numbers:
        return np.array([len(self)])

    def layers(self, rows: Sequence[str], numbers: Chosen) -> Layers:
        return {row: np.stack([self.scenes[k][row] if row in self.scenes[k] else self._nothing(row) for k in numbers]) for row in rows}

    def present(self, rows: Sequence[str], numbers: Chosen) -> NDArray[np.bool_]:
        return np.array([[row in self.scenes[k] for row in rows] for k in numbers])

    def _nothing(self, row: str) -> NDArray[Any]:
        empty = np.zeros(self.table.layer_shape(row))
        return empty.astype("datetime64[D]") if isinstance(self.table[row].scale, DayOfYear) else empty


def having(source: Source, row: str) -> Numbers:
    """The numbers of the samples that have a row, ascending; ValueError where none has."""
    everything = np.arange(len(source))
    if not source.incomplete:
        return everything
    found = [part[source.present([row], part)[:, 0]] for part in np.array_split(everything, -(-len(everything) // AT_ONCE))]
    if not sum(map(len, found)):
        raise ValueError(f"{source.name}: no sample has {row}; name data that has it")
    return np.concatenate(found)


def counts_of(source: Source, numbers: Numbers) -> Numbers:
    """How many of these samples, ascending, lie together in each stretch of their source."""
    return np.diff(np.searchsorted(numbers, starts_of(source.counts)))


def open_source(texts: str | Sequence[str], table: Table, workers: int = 1) -> Source:
    """`synthetic:FIRST..LAST`, or folders of layer shards, each FOLDER or FOLDER:TIMES; ValueError for anything else."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    if match := re.fullmatch(r"synthetic:(\d+)\.\.(\d+)", texts[0]):
        first, last = int(match[1]), int(match[2])
        if last <= first:
            raise ValueError(f"--data {texts[0]}: the last seed must be larger than the first")
        if len(texts) > 1:
            raise ValueError(f"--data {texts[0]}: only shards can be mixed; write worlds as shards first (copgen synthesize --shards)")
        return Worlds(first, last, table, workers)
    for text in texts:
        if not shard_folder(text)[0].is_dir():
            raise ValueError(f"--data {text}: neither synthetic:FIRST..LAST nor a folder of layer shards")
    shards = open_mixed(texts)
    if shards.meta.get("kind") != "layers":
        raise ValueError(f"--data {', '.join(texts)}: holds {shards.meta.get('kind')}, not layers (copgen synthesize --shards, "
                         "copgen encode --layers)")
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
    packed = {name: pack(table[name], layers) for name, layers in source.layers(table.names, list(numbers)).items()}
    return packed | presence(source, table, numbers)


def presence(source: Source, table: Table, numbers: range) -> dict[str, NDArray[np.uint8]]:
    """The array that says which rows the samples have, where some lack some."""
    return {PRESENT: source.present(table.names, list(numbers)).astype(np.uint8)} if source.incomplete else {}


def meta_of(source: Source, table: Table) -> dict[str, Any]:
    """What an index says of layers from a source."""
    lacking = {"incomplete": True, "rows": list(table.names)} if source.incomplete else {}
    return {"kind": "layers", "source": source.name, **lacking}
