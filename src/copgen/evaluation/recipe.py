"""What is asked of a generator? Protocols, and the conditions that they are for a case: what is given, what is drawn, how often."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from copgen.config import dump, load
from copgen.modalities import TABLE, TABLES, Table, table_with

MOST_SEEDS = 2**31                               # rows keep a seed in 32 bits
STRICT: dict[str, str] = {"extra": "forbid"}
Words = tuple[str, ...]                          # rows or products, as a person names them
SWAPPED_BY_VALUE = ("place", "date")             # whose values can be written down
EXCHANGED = "exchanged"                          # the note of a case with another's layers: the product, and a hash of them


class NotHere(ValueError):
    """A condition that does not apply to a case, and why."""


@dataclass(frozen=True)
class Condition:
    """What is given to the generator of one case, what it draws, and how often.

    `swap` is a given product that is taken from another case, in a second ensemble beside the case's own.
    """

    protocol: str                                # as the recipe calls it; of a swap with the product: "swap date"
    given: tuple[str, ...]                       # row names, in the table's order
    scored: tuple[str, ...]                      # row names, drawn and scored
    samples: int
    swap: str | None = None
    first_seed: int = 0

    @property
    def seeds(self) -> range:
        """The same for every condition of a recipe, so that conditions are compared with one noise."""
        return range(self.first_seed, self.first_seed + self.samples)

    @property
    def given_name(self) -> str:
        return named(self.given)


def named(rows: Sequence[str], table: Table | None = None) -> str:
    """`DEM+LULC`: products whose rows are all there, else rows, in the table's order; `nothing` for none. None: the table of these rows."""
    table, parts = table or table_with(rows), dict[str, None]()
    for row in (table[name] for name in table.names if name in rows):
        whole = all(other.name in rows for other in table.rows if other.product == row.product)
        parts[row.product if whole else row.name] = None
    return "+".join(parts) or "nothing"


@dataclass(frozen=True)
class Protocol:
    """Conditions of one name. Either `given` lists what is given, or `without` lists what alone is not; or `pairs` leaves out any two.

    scored: what is drawn and scored; none named: what is left out, or of `given` everything else. cells: at most so many cases, those in
    `first` before others and the rest in their order. swap: a given product that is taken from another case; `values` has it by case
    for place ([lat, lon]) and date; a case that is not there takes that of the next case.
    """

    __pydantic_config__: ClassVar = STRICT
    name: str
    given: tuple[Words, ...] = ()
    without: tuple[Words, ...] = ()
    pairs: Words = ()
    scored: Words = ()
    samples: int | None = None                   # None: the recipe's
    cells: int | None = None                     # None: all
    first: tuple[str, ...] = ()
    swap: str | None = None
    values: Mapping[str, datetime.date | tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(map(bool, (self.given, self.without, self.pairs))) != 1:
            raise ValueError(f"{self.name}: exactly one of given, without and pairs is needed; two protocols can do two of them")
        for key in ("samples", "cells"):
            if (count := getattr(self, key)) is not None and count < 1:
                raise ValueError(f"{self.name}: {key} is {count}, at least 1 is needed; leave it out for the default")
        if self.values and self.swap not in SWAPPED_BY_VALUE:
            raise ValueError(f"{self.name}: values are for a swap of {' or '.join(SWAPPED_BY_VALUE)}; leave them out")
        for question in self.questions(0, 1):
            question.check()

    def questions(self, first_seed: int, samples: int) -> list[Question]:
        """One for each list of rows."""
        lists = self.given or self.without or tuple(combinations(self.pairs, 2))
        return [Question(self, words, self.samples or samples, first_seed) for words in lists]

    def cells_of(self, names: Sequence[str]) -> list[str]:
        """Which of these cases it is for, in their order."""
        there = set(names)
        preferred = [name for name in (*self.first, *self.values) if name in there]
        chosen = set(list(dict.fromkeys([*preferred, *names]))[: self.cells])
        return [name for name in names if name in chosen]


@dataclass(frozen=True)
class Question:
    """One list of a protocol, before it is known what a case has."""

    protocol: Protocol
    words: Words
    samples: int
    first_seed: int

    @property
    def name(self) -> str:
        swap = self.protocol.swap
        return f"{self.protocol.name} {swap}" if swap and not self.protocol.name.endswith(swap) else self.protocol.name

    @property
    def names(self) -> Words:
        """All that its protocol names."""
        return (*self.words, *self.protocol.scored, *([self.protocol.swap] if self.protocol.swap else []))

    @property
    def table(self) -> Table:
        """The first table that knows all its words; ValueError where none does."""
        known = [table for table in TABLES.values() if all(table.called(word) for word in self.names)]
        if not known:
            TABLE.select(self.names)             # names the word, and what there is
            raise ValueError(f"{self.protocol.name}: {', '.join(self.names)} are of different tables of modalities; take those of one")
        return known[0]

    def rows(self, table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is given and what is scored, of all rows of a table."""
        listed = table.select(self.words)
        rest = tuple(row for row in table.names if row not in listed)
        given, left = (listed, rest) if self.protocol.given else (rest, listed)
        return given, table.select(self.protocol.scored) or left

    def check(self) -> None:
        """Refuse what would be wrong with every case."""
        given, scored = self.rows(self.table)
        where = f"{self.protocol.name} ({'given' if self.protocol.given else 'without'} {', '.join(self.words) or 'nothing'})"
        if both := [row for row in scored if row in given]:
            raise ValueError(f"{where}: {', '.join(both)} is scored and given; what is given is not drawn: leave it out of one of the two")
        if not scored:
            raise ValueError(f"{where}: nothing is left to draw and score; give less, or leave something out")
        if self.protocol.swap and not set(self.table.select(self.protocol.swap)) <= set(given):
            raise ValueError(f"{where}: {self.protocol.swap} is swapped and not given; only what is given can be swapped")

    def condition(self, table: Table, available: Sequence[str]) -> Condition:
        """What it is for a case with these rows; NotHere where it can't be asked of it.

        Where some rows are left out, one that the case lacks is not given either, but what it lacks can't be left out: that would be
        another question once more.
        """
        whole = table_with(table.names)          # a model may lack rows of its table
        if unknown := [word for word in self.names if not whole.called(word)]:
            raise NotHere(f"the generator knows no {', '.join(unknown)}")
        given, asked = self.rows(whole)
        there = {row for row in available if row in table.by_name}
        protocol = self.protocol
        needed = given if protocol.given else whole.select(protocol.swap or ())
        if lacking := [row for row in needed if row not in there]:
            raise NotHere(f"has no {named(lacking)}, which is given")
        if absent := [word for word in self.words if not there.intersection(whole.select(word))]:
            raise NotHere(f"has no {', '.join(absent)}, which is left out")
        scored = tuple(row for row in asked if row in there)
        if not scored:
            raise NotHere(f"has no {named(asked)}, which is scored")
        return Condition(self.name, tuple(row for row in given if row in there), scored, self.samples, self.protocol.swap, self.first_seed)


@dataclass(frozen=True)
class Recipe:
    """All that one evaluation asks. truths: how many further true observations of each case are looked at, where there are any.

    own_noise: every case has seeds of its own, as all samples of all cases need where they are one set; rows number them as if they were
    the same.
    """

    __pydantic_config__: ClassVar = STRICT
    protocols: tuple[Protocol, ...]
    samples: int = 36                            # the paper's
    first_seed: int = 0
    truths: int = 16
    own_noise: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1 or self.first_seed < 0 or self.truths < 0:
            raise ValueError(f"samples {self.samples}, first_seed {self.first_seed}, truths {self.truths}: at least 1, 0 and 0 are needed")
        if self.first_seed + self.most > MOST_SEEDS:
            raise ValueError(f"first_seed {self.first_seed} and {self.most} samples: rows hold seeds up to {MOST_SEEDS - 1}; begin with a "
                             "smaller one, or ask for fewer")
        if not self.protocols:
            raise ValueError("there are no protocols, so nothing is asked; write at least one [[protocols]]")
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for question in self.questions:
            given, _ = question.rows(question.table)
            key = question.name, given
            if key in seen:
                raise ValueError(f"{question.name}: given {named(given)} is asked twice, and rows of the two could not be told apart; "
                                 "give one of the protocols another name, or leave one out")
            seen.add(key)

    @property
    def most(self) -> int:
        """The largest number of samples of a condition."""
        return max([self.samples, *(protocol.samples or 0 for protocol in self.protocols)])

    def record(self) -> dict[str, Any]:
        """As plans have it: without `own_noise` where it is off, as plans older than that are of the same evaluation."""
        return {key: value for key, value in dump(self).items() if key != "own_noise" or value}

    def seeds_before(self, place: int) -> int:
        """How many seeds belong to the cases before this one in their order."""
        if not self.own_noise:
            return 0
        if self.first_seed + (place + 1) * self.most > MOST_SEEDS:
            raise ValueError(f"case {place + 1} with {self.most} seeds of its own from {self.first_seed} on: rows hold seeds up to "
                             f"{MOST_SEEDS - 1}; ask for fewer samples or cases, or set own_noise = false")
        return place * self.most

    @property
    def questions(self) -> list[Question]:
        """Every condition that cases can be under; their numbers are the folders of an evaluation."""
        return [question for protocol in self.protocols for question in protocol.questions(self.first_seed, self.samples)]


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """A recipe of a TOML file; ValueError that names the file, the key and the rule."""
    return load(Recipe, path, overrides)


def conditions(recipe: Recipe, table: Table, available: Sequence[str]) -> list[Condition]:
    """All conditions of a recipe that a case with these rows can be under."""
    found = []
    for question in recipe.questions:
        try:
            found.append(question.condition(table, available))
        except NotHere:
            continue
    return found
