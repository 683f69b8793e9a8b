"""Which cells are for training and which for testing? Two ways, each the same on every machine from a seed alone.

`shuffled` is the published one, applied to the sorted cells as the published lists depend on the order of a file system. Nearly all of
its test cells touch a training cell, and a tile overlaps its neighbours'. `blocked` keeps blocks of neighbouring cells together and
decides on each by a hash of the seed and the block: so which other cells there are does not matter, and cells that are downloaded
later don't change sides.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.files import json_bytes, write_all
from copgen.majortom.grid import NORTH, SOUTH, Integers, around, columns_of, numbers_of

SEED, TRAIN = 42, 0.9                            # the published split's (encode_moments_vae.py)
BLOCK, MARGIN = 20, 1                            # cells along a side of a block, 200 km; cells left out around those for testing
OVERHANG = 0.15                                  # of a cell: images of cells at a corner overlap by 680 m and turn by 3 degrees
LISTS = {"train": "train.txt", "test": "test.txt", "between": "between.txt"}
RECORD = "split.json"


@dataclass(frozen=True)
class Split:
    """Sorted names of cells; `between` are those left out to keep the others apart. `how` says how it was made."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    between: tuple[str, ...] = ()
    how: Mapping[str, Any] = field(default_factory=dict)


def shuffled(cells: Iterable[str], seed: int = SEED, train: float = TRAIN) -> Split:
    """The first share of the sorted cells after Python's own shuffle; it changes wholly where one cell is added."""
    names = distinct(cells)
    checked_share(train)
    order = names.copy()
    random.Random(seed).shuffle(order)
    count = int(train * len(order))
    return Split(tuple(sorted(order[:count])), tuple(sorted(order[count:])), how={"method": "shuffled", "seed": seed, "train": train})


def blocked(cells: Iterable[str], seed: int = SEED, train: float = TRAIN, block: int = BLOCK, margin: int = MARGIN) -> Split:
    """Blocks of `block` rows and about as many columns, in training with a probability of `train` each.

    Cells that would be in training but lie within `margin` cells of where the test blocks are, whether or not there are cells, are left
    out: so no training cell is nearer than that to a test cell, and no images of the two overlap. Without a margin, the cells on the rims
    of test blocks have training cells beside them.
    """
    names = distinct(cells)
    checked_share(train)
    if block < 1 or not 0 <= margin <= block:
        raise ValueError(f"blocks of {block} cells with a margin of {margin}: a block has at least one cell a side and a margin is from "
                         "0 to a block's side")
    rows, columns = numbers_of(names)
    chosen = Blocks(seed, train, block)
    test = chosen.tested(rows, columns)
    near = np.zeros(len(names), bool)
    for row, column, there in around(rows, columns, margin, OVERHANG) if margin else ():
        near |= there & chosen.tested(row, column)
    every = np.array(names, dtype=np.str_)
    train_, test_, between = (tuple(every[which].tolist()) for which in (~test & ~near, test, near & ~test))
    return Split(train_, test_, between, {"method": "blocked", "seed": seed, "train": train, "block": block, "margin": margin})


class Blocks:
    """The Earth in blocks, each for training or testing: bands of rows, cut into as many columns as makes them about square."""

    def __init__(self, seed: int, train: float, block: int) -> None:
        self.block = block
        bands = -(-(NORTH + 1 - SOUTH) // block)
        middle = np.minimum(SOUTH + np.arange(bands) * block + block // 2, NORTH)
        self.columns = np.maximum(np.rint(columns_of(middle) / block).astype(np.int64), 1)
        self.starts = np.concatenate([[0], np.cumsum(self.columns)])
        self.test = np.array([drawn(seed, block, band, column) >= train for band, count in enumerate(self.columns)
                              for column in range(count)])

    def tested(self, rows: Integers, columns: Integers) -> NDArray[np.bool_]:
        """Whether cells lie in test blocks, each by its middle."""
        band = (rows - SOUTH) // self.block
        turn = (columns + 0.5) / columns_of(rows) + 0.5                    # of the Earth's circle, from the antimeridian
        column = np.floor(turn * self.columns[band]).astype(np.int64) % self.columns[band]
        return np.asarray(self.test[self.starts[band] + column])


def drawn(seed: int, block: int, band: int, column: int) -> float:
    """A number in [0, 1) from a block's place and the seed, the same on every machine."""
    digest = hashlib.blake2b(f"{seed} {block} {band} {column}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def leakage(split: Split) -> float:
    """The share of test cells that touch a training cell, or whose images may overlap with one's."""
    if not split.test:
        return 0.0
    trained = np.unique(numbered(*numbers_of(split.train)))
    rows, columns = numbers_of(split.test)
    leaks = np.zeros(len(rows), bool)
    for row, column, there in around(rows, columns, gap=OVERHANG):
        leaks |= there & np.isin(numbered(row, column), trained)
    return float(leaks.mean())


def numbered(rows: Integers, columns: Integers) -> Integers:
    """One number a cell."""
    return rows * 10_000 + columns               # at most 4008 columns


def distinct(cells: Iterable[str]) -> list[str]:
    """Sorted names, each once; ValueError where two name one cell, or one names none."""
    names = sorted(set(map(str, cells)))
    if len(np.unique(numbered(*numbers_of(names)))) < len(names):
        raise ValueError("two names mean one cell, which begins at the antimeridian; keep one of them")
    return names


def checked_share(train: float) -> None:
    if not 0 <= train <= 1:
        raise ValueError(f"a share of {train:g} for training: from 0 to 1 is needed")


# --- on disk ------------------------------------------------------------------------------------------------------------------------

def write_split(folder: Path, split: Split, *, overwrite: bool = False) -> list[Path]:
    """Write `train.txt`, `test.txt` and `between.txt`, sorted names one a line, and `split.json` that says how they were made."""
    lists = {folder / file: "".join(f"{name}\n" for name in getattr(split, part)).encode() for part, file in LISTS.items()}
    counts = {part: len(getattr(split, part)) for part in LISTS}
    return write_all({**lists, folder / RECORD: json_bytes({**split.how, "cells": counts, "leakage": leakage(split)})},
                     overwrite=overwrite)


def read_split(folder: Path) -> Split:
    """The lists of a folder, which need not be ours: `between.txt` and `split.json` may lack. ValueError where a cell is in two lists."""
    train, test, between = (read_cells(folder / file) if part != "between" or (folder / file).exists() else ()
                            for part, file in LISTS.items())
    if twice := {*train} & {*test} | {*train} & {*between} | {*test} & {*between}:
        raise ValueError(f"{folder}: {min(twice)} is in two of the lists, with {len(twice) - 1} more; make the split again")
    try:
        how = json.loads((folder / RECORD).read_text()) if (folder / RECORD).exists() else {}
    except ValueError as error:
        raise ValueError(f"{folder / RECORD}: is no JSON ({error}); make the split again, or delete this file") from error
    return Split(train, test, between, how)


def read_cells(path: Path) -> tuple[str, ...]:
    """The sorted names of cells in a text file, one a line or several with commas or blanks between; # begins a comment.

    Raises ValueError for what can't be read, or names no cell.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()        # some editors begin a file with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no list of cells could be read ({error}); give a text file with one name a line") from error
    try:
        return tuple(distinct(name for line in lines for name in re.split(r"[\s,]+", line.partition("#")[0]) if name))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
