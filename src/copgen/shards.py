"""Shards: many samples on disk as a folder of safetensors files, one array a row; layers and moments alike.

A folder holds `shard-00000.safetensors`, `shard-00001.safetensors`, ... and `index.json`, which says what they are, how many samples they
hold and how these are dealt out: `per_shard` of them each, or shard by shard in `counts`. Each file appears whole or not at all, so that a
writer that was killed goes on with the next missing one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from copgen.files import write_json, write_whole

Arrays = Mapping[str, NDArray[Any]]
Numbers = NDArray[np.int64]
INDEX = "index.json"
PRESENT = "present"                              # the array that says which rows a sample has, uint8 [n, rows], where some lack some
OPEN = 64                                        # files that a process keeps open, each and its map
SHARD = re.compile(r"shard-\d{5,}\.safetensors")
AGAIN = "run the command that writes these shards again, it goes on there"
DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4", "F32": "<f4",
          "U64": "<u8", "I64": "<i8", "F64": "<f8"}      # the names of the format's specification


@dataclass(frozen=True, eq=False)
class Shards:
    """Samples by number, read as they are asked for. `counts`: of each shard. `meta` says how they were made."""

    folder: Path
    counts: Numbers
    meta: Mapping[str, Any]

    @cached_property
    def starts(self) -> Numbers:
        """The number of each shard's first sample, and at the end that of all samples."""
        return starts_of(self.counts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def parts(self) -> Sequence[Shards]:
        """The folders that it is made of, as `Mixed` has them: itself."""
        return (self,)

    @property
    def incomplete(self) -> bool:
        """Whether samples may lack rows."""
        return bool(self.meta.get("incomplete", False))

    def present(self, rows: Sequence[str], numbers: Numbers) -> NDArray[np.bool_]:
        """Which samples have which rows [len(numbers), len(rows)]."""
        if not self.incomplete:
            return np.ones((len(numbers), len(rows)), bool)
        known = list(self.meta["rows"])
        if strange := [row for row in rows if row not in known]:
            raise ValueError(f"{self.folder} says nothing of {', '.join(strange)}, only of {', '.join(known)}; "
                             "make it again with this table")
        return self.read((PRESENT,), numbers)[PRESENT][:, [known.index(row) for row in rows]].astype(bool)

    def places(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Each sample's shard, and its place within that; IndexError for a number that is none."""
        shards = sought(self.starts, numbers)
        return shards, numbers - self.starts[shards]

    def read(self, rows: tuple[str, ...], numbers: Numbers) -> dict[str, NDArray[Any]]:
        """The arrays [len(numbers), ...] of these rows; every shard is opened once and read in its own order."""
        numbers, out = np.asarray(numbers, np.int64), dict[str, NDArray[Any]]()
        self.fill(out, rows, numbers, np.arange(len(numbers)), len(numbers))
        return out

    def fill(self, out: dict[str, NDArray[Any]], rows: tuple[str, ...], numbers: Numbers, where: Numbers, count: int) -> None:
        """Read samples into the places `where` of arrays [count, ...] by row, which are made where they are not there yet."""
        shards, places = self.places(numbers)
        for k, mine in groups(shards, places):
            shard = _opened(self.folder / name_of(k))
            if strange := [row for row in rows if row not in shard.arrays]:
                raise ValueError(f"{shard.path} has no {', '.join(strange)}; it holds {', '.join(shard.arrays)}")
            if (held := min(len(shard.arrays[row]) for row in rows)) < self.counts[k]:
                raise ValueError(f"{shard.path}: holds {held} samples, and {INDEX} says {self.counts[k]}; delete it and {AGAIN}")
            for row in rows:
                array = shard.arrays[row]
                if row not in out:
                    out[row] = np.empty((count, *array.shape[1:]), array.dtype)
                if (whole := out[row]).dtype != array.dtype or whole.shape[1:] != array.shape[1:]:
                    raise ValueError(f"{shard.path}: {row} is {array.dtype} {list(array.shape[1:])} and elsewhere {whole.dtype} "
                                     f"{list(whole.shape[1:])}; make the one again that differs")
                shard.fill(whole, row, places[mine], where[mine])
            shard.rest()


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def counts(self) -> Numbers:
        """The samples of each shard, those of a folder as often as it comes."""
        return np.concatenate([np.tile(part.counts, n) for part, n in self.each])

    @cached_property
    def starts(self) -> Numbers:
        """The number of each folder's first sample, and at the end that of all samples."""
        return starts_of([len(part) * n for part, n in self.each])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def present(self, rows: Sequence[str], numbers: Numbers) -> NDArray[np.bool_]:
        """Which samples have which rows [len(numbers), len(rows)]."""
        there = np.empty((len(numbers), len(rows)), bool)
        for where, part, places in self._dealt(numbers):
            there[where] = part.present(rows, places)
        return there

    def read(self, rows: tuple[str, ...], numbers: Numbers) -> dict[str, NDArray[Any]]:
        """The arrays [len(numbers), ...] of these rows."""
        out: dict[str, NDArray[Any]] = {}
        for where, part, places in self._dealt(numbers):
            part.fill(out, rows, places, where, len(numbers))
        return out

    def _dealt(self, numbers: Numbers) -> Iterator[tuple[Numbers, Shards, Numbers]]:
        """By folder: which of the numbers lie there, and their numbers in it."""
        numbers = np.asarray(numbers, np.int64)
        for k, where in groups(sought(self.starts, numbers), numbers):
            yield where, self.parts[k], (numbers[where] - self.starts[k]) % len(self.parts[k])


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
    """The shards in `folder`; ValueError where there are none, one is missing or their writer has not ended."""
    files = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    if INDEX not in files and any(map(SHARD.fullmatch, files)):
        raise ValueError(f"{folder}: is not finished, it has shards but no {INDEX}; {AGAIN}")
    try:
        index = json.loads((folder / INDEX).read_text())
        shards = Shards(folder, counts_of(index), dict(index["meta"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: no readable {INDEX}; make the shards first (copgen synthesize, copgen encode)") from error
    for k in range(len(shards.counts)):
        if name_of(k) not in files:
            raise ValueError(f"{folder}: {name_of(k)} is missing; {AGAIN}")
    return shards


def counts_of(index: Mapping[str, Any]) -> Numbers:
    """How many samples each shard holds; ValueError for an index that contradicts itself."""
    samples, per_shard = int(index["samples"]), index.get("per_shard")
    if per_shard is None:
        counts = np.array(index["counts"], np.int64)
        if counts.ndim != 1 or counts.min(initial=0) < 0 or counts.sum() != samples or samples < 1:
            raise ValueError(f"{samples} samples, and counts that are not theirs")
        return counts
    if samples < 1 or per_shard < 1:
        raise ValueError(f"{samples} samples, {per_shard} a shard")
    return np.minimum(samples - np.arange(0, samples, per_shard, dtype=np.int64), int(per_shard))


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
    else:
        check_free(folder)
    write_json(folder / INDEX, index)
    for k in range(-(-samples // per_shard)):
        numbers = range(k * per_shard, min((k + 1) * per_shard, samples))
        if length_of(folder, k) != len(numbers):
            write_shard(folder, k, make(numbers))
        if progress:
            progress(numbers.stop, samples)
    return open_shards(folder)


def check_free(folder: Path) -> None:
    """ValueError for a folder that holds shards: a writer who finds nothing of his own there would write over them."""
    if folder.is_dir() and any(path.name == INDEX or SHARD.fullmatch(path.name) for path in folder.iterdir()):
        raise ValueError(f"{folder}: holds shards that something else wrote, or whose record of how they were made is gone; "
                         "choose another folder")


def write_shard(folder: Path, k: int, arrays: Arrays) -> Path:
    """Write the k-th shard, whole or not at all: arrays [n, ...], n being any number; the same arrays give the same bytes.

    For writers that learn only on the way how many samples a shard holds; `finish` makes their shards a folder that can be opened.
    """
    if len(lengths := {len(array) for array in arrays.values()}) != 1:
        raise ValueError(f"{folder / name_of(k)}: the arrays of a shard have one length, not {sorted(lengths)}")
    data = save({row: np.ascontiguousarray(array) for row, array in arrays.items()})
    path = write_whole(folder / name_of(k), data)
    _opened.cache_clear()                        # a reader of this process may hold the file that was here
    return path


def digest(arrays: Arrays) -> str:
    """The hash (SHA-256) of a shard's arrays, names, types and shapes included: whoever keeps it can tell when a bit of them changes."""
    found = hashlib.sha256()
    for row, array in sorted(arrays.items()):
        found.update(f"{row} {array.dtype.str} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def finish(folder: Path, counts: Sequence[int], meta: Mapping[str, Any]) -> Shards:
    """Write the index of shards that `write_shard` has written, with so many samples each, and open them.

    Raises ValueError where a shard is missing, is damaged or holds another number of samples, and where there is no sample at all.
    """
    for k, count in enumerate(counts):
        if (there := length_of(folder, k)) != count:
            what = "is missing or damaged" if there is None else f"holds {there} samples, not {count}"
            raise ValueError(f"{folder / name_of(k)}: {what}; {AGAIN}")
    if not sum(counts):
        raise ValueError(f"{folder}: there is not one sample in its {len(counts)} shards, so there is nothing to train on")
    write_json(folder / INDEX, {"samples": int(sum(counts)), "counts": [int(count) for count in counts], "meta": meta})
    return open_shards(folder)


def length_of(folder: Path, k: int) -> int | None:
    """How many samples the k-th shard holds; None where it is missing or damaged, so that it is to be written."""
    try:
        arrays = Mapped(folder / name_of(k)).arrays
    except ValueError:
        return None
    return len(next(iter(arrays.values()))) if arrays else None


def name_of(k: int) -> str:
    return f"shard-{k:05d}.safetensors"





def json_of(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: could not be read ({error}); choose another folder, or delete this one") from error


# How shards are read


class Mapped:
    """A safetensors file as arrays over its memory map; ValueError for one that is not whole.

    Its format's own reader gives one slice a call, and copies it twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self.file)
            self.map = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ)
            self.arrays, self.touched = dict(self._arrays()), False
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, error) from error

    def fill(self, out: NDArray[Any], row: str, places: Numbers, where: Numbers) -> None:
        """Read samples of a row, in ascending order of their places in the shard, into the places `where` of an array.

        Those that lie side by side come from the map. Of those that lie apart, each is read by its position: by page faults it would take
        half as long again, twice as long from a cold disk, whose pages around are then read too.
        """
        array = self.arrays[row]
        beside = len(places) > 1 and bool((np.diff(places) == 1).all())
        if beside or not hasattr(os, "preadv"):
            out[where] = array[places[0] : places[-1] + 1] if beside else array[places]
            self.touched = True
            return
        bytes_, first = out.reshape(len(out), -1).view(np.uint8), self.offsets[row]
        for place, number in zip(places.tolist(), where.tolist(), strict=True):
            sample = bytes_[number]
            if os.preadv(self.file, [sample.data], first + place * len(sample)) != len(sample):
                raise damaged(self.path, f"{row} ends early")

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The file's arrays: 8 bytes with the header's length, the header as JSON, and then the numbers, without gaps."""
        first = 8 + int.from_bytes(self.map[:8], "little")
        entries = json.loads(self.map[8:first])
        entries.pop("__metadata__", None)
        end, self.offsets = first, dict[str, int]()
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (start, stop) = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
            count = int(np.prod(shape, dtype=object))
            if first + start != end or stop - start != count * dtype.itemsize or first + stop > len(self.map):
                raise ValueError(f"{name} does not lie where the header says")
            end, self.offsets[name] = first + stop, first + start
            yield name, np.frombuffer(self.map, dtype, count, first + start).reshape(shape)
        if end != len(self.map):
            raise ValueError(f"{len(self.map)} bytes, and the header says {end}")

    def rest(self) -> None:
        """Let go of the map's pages that were touched, which stay in the system's cache: a reader's memory is then one shard at most."""
        if self.touched and hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)
        self.touched = False


@lru_cache(maxsize=OPEN)
def _opened(path: Path) -> Mapped:
    return Mapped(path)


def damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path}: is damaged or gone ({why}); delete it and run the command that wrote it again")


def starts_of(counts: Sequence[int] | Numbers) -> Numbers:
    """0 and the running sums."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def sought(starts: Numbers, numbers: Numbers) -> Numbers:
    """In which stretch each number lies, where stretches begin at starts[:-1]; IndexError for one that lies in none."""
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= starts[-1]):
        raise IndexError(f"samples {numbers.min()} to {numbers.max()} of {starts[-1]}")
    return np.searchsorted(starts, numbers, "right") - 1


def groups(keys: Numbers, within: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Each key that occurs, with where it does, in the order of `within`."""
    order = np.lexsort((within, keys))
    borders = np.flatnonzero(np.diff(keys[order], prepend=-1, append=-1))
    for first, last in pairwise(borders):
        yield int(keys[order[first]]), order[first:last]
