"""Which of the rows belong to a line of a table? By what was drawn and what was left out of what was given, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from copgen.evaluation.arrays import NO_SEED, Asked, Group, Results, modalities_of
from copgen.evaluation.formats import Column, Table
from copgen.modalities import TABLE
from copgen.modalities import Table as Modalities

COMMON = ("place", "DEM", "LULC", "S1RTC", "S2L1C", "S2L2A")        # that conditions are told apart by in the paper
NAMES = {"place": "LatLon", "date": "Date", "cloud_mask": "Cloud mask", "": "layers together"}         # as the paper has them
SCORED = ("published absolute error", "absolute error", "kilometres", "days")       # any of these, or hits of classes: it was drawn
FEW = 2                                          # products that are named as left out, where no more are
PAIRS = "leave-one-out"                          # the protocol of two left out, often with fewer samples


def shown(product: str) -> str:
    return NAMES.get(product, product)


def scored(results: Results, asked: Asked, modality: str) -> bool:
    """Whether samples of a product were compared with the truth."""
    return any(name in SCORED or name.startswith("hits:") for name in results.statistics((asked,), modality))


def swapped(results: Results, asked: Asked) -> bool:
    """Whether something that is given came from another cell, in a second ensemble: its rows are of influence alone."""
    return any("moved" in results.statistics((asked,), modality) for modality in results.modalities((asked,)))


def asked_without(results: Results, target: str, removed: Sequence[str] = (), *, pairs: bool = False) -> Group:
    """What was asked where all but the target and what is removed was given; () where that was not asked.

    pairs: the protocol of pairs comes before others that ask the same; otherwise it comes last.

    As published, conditions are told apart by the six common products: a generator that knows no dates is not left out. But of several
    the one that was given most counts, of several protocols that of most samples, and they are not pooled; dates and cloud masks can be
    what is removed. Cases that lack a row have a name of their own for what they were given: they are looked at as one, where their cells
    are others.
    """
    wanted = {target, *removed}
    universe = {name for asked in results.asked for name in (*asked.names, *results.modalities((asked,)))} & set(TABLE.products)
    fit = [asked for asked in results.asked if asked.names <= universe and scored(results, asked, target) and not swapped(results, asked)
           and (missing := universe - asked.names) >= wanted and missing & set(COMMON) == wanted & set(COMMON)]
    samples = Counter[str]()
    for asked in fit:
        counts = results.values((asked,), target, "samples")
        samples[asked.protocol] += round(counts.total.sum()) if counts else len(results.cells_of((asked,), target))
    fit.sort(key=lambda asked: ((asked.protocol == PAIRS) != pairs, -len(asked.names), -samples[asked.protocol], asked))
    return together(results, [one for one in fit if one.protocol == fit[0].protocol])[0] if fit else ()


def together(results: Results, asked: Iterable[Asked]) -> list[Group]:
    """Groups of what was asked of different cells, in this order."""
    groups: list[tuple[list[Asked], set[int]]] = []
    for one in asked:
        there = {cell for modality in results.modalities((one,)) for cell in results.cells_of((one,), modality).tolist()}
        for members, cells in groups:
            if not there & cells:
                members.append(one)
                cells |= there
                break
        else:
            groups.append(([one], there))
    return [tuple(members) for members, _ in groups]


def removable(results: Results, target: str) -> list[str]:
    """What else was left out alone when the target was drawn, the paper's products first."""
    order = (*COMMON, *(one for one in TABLE.products if one not in COMMON))
    return [one for one in order if one != target and asked_without(results, target, (one,), pairs=True)]


# --- several generators -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Condition:
    """One thing that was asked of several generators, () of those it was not asked of."""

    protocol: str
    given: str                                   # of the first generator that it was asked of
    groups: tuple[Group, ...]                    # one a generator
    table: Modalities = TABLE

    @property
    def shown(self) -> str:
        """What was given, shortly: "all but DEM"."""
        names = Asked(self.protocol, self.given).names
        rest = [name for name in self.table.products if name not in names]
        few = 0 < len(rest) <= FEW and len(rest) < len(names)
        return f"all but {', '.join(rest)}" if few and names <= set(self.table.products) else self.given

    @property
    def name(self) -> str:
        return f"{self.protocol}, given {self.shown}" if self.protocol != "given" else f"given {self.shown}"

    @property
    def common(self) -> tuple[str, frozenset[str]]:
        """What of it any generator can be given: that one knows no dates makes no other condition."""
        return self.protocol, frozenset(Asked(self.protocol, self.given).names - {"date", "cloud_mask"})


def conditions(generators: Sequence[Results], *, pairs: bool = False, swaps: bool = False) -> list[Condition]:
    """All that was asked, generators side by side: first those that were given the same, then those that differ in dates and masks alone.

    pairs: also the protocol of two that are left out. swaps: those alone where something given was another cell's.
    """
    found: dict[tuple[str, str], list[Group]] = {}
    for k, results in enumerate(generators):
        kept = [one for one in results.asked if (pairs or one.protocol != PAIRS) and swapped(results, one) == swaps]
        by_common: dict[tuple[str, frozenset[str]], list[Asked]] = {}
        for one in sorted(kept, key=lambda asked: -len(asked.names)):
            by_common.setdefault(Condition(*one, ()).common, []).append(one)
        for group in (group for asked in by_common.values() for group in together(results, asked)):
            found.setdefault((group[0].protocol, group[0].given), [()] * len(generators))[k] = group
    return merged([Condition(*key, tuple(groups), modalities_of(generators)) for key, groups in found.items()])


def merged(found: Sequence[Condition]) -> list[Condition]:
    """With those made one that have the same in common, and no generator twice."""
    kept: list[Condition] = []
    for one in found:
        for k, other in enumerate(kept):
            if one.common == other.common and not any(a and b for a, b in zip(one.groups, other.groups, strict=True)):
                kept[k] = replace(other, groups=tuple(a or b for a, b in zip(other.groups, one.groups, strict=True)))
                break
        else:
            kept.append(one)
    return kept


# --- counts -------------------------------------------------------------------------------------------------------------------------

Line = tuple[str, Results, Group, str]                              # what was asked, and of which rows a product was measured


def counted(name: str, lines: Iterable[Line]) -> Table:
    """From how many tiles, samples and seeds numbers were made, and what is missing: a line for all that agree."""
    found: dict[tuple[str | int, ...], dict[str, dict[str, None]]] = {}
    for title, results, group, modality in lines:
        products = found.setdefault((results.name, *counts_of(results, group, modality)), {}).setdefault(title, {})
        products[shown(modality)] = None
    columns = ("generator", "of", "tiles", "samples a tile", "seeds", "samples missing")
    rows = tuple((key[0], "; ".join(f"{', '.join(products)} ({title})" for title, products in titles.items()), *key[1:])
                 for key, titles in found.items())
    return Table(f"{name}-counts", "Counts", tuple(Column(one) for one in columns), rows)


def counts_of(results: Results, group: Group, modality: str) -> tuple[int, str, int | str, int]:
    """Tiles, samples a tile, seeds (nothing where rows are of all samples together), and samples that were asked for and are not there."""
    there = drawn(results, group, modality)
    of_tile, missing = there.sum(1)[there.any(1)], 0
    if (asked := results.values(group, modality, "samples")) is not None:
        of_tile = np.rint(asked.total.sum((1, 2)))[asked.weight.sum((1, 2)) > 0].astype(int)
        missing = round(asked.weight.sum() - asked.total.sum())
    low, high = (of_tile.min(), of_tile.max()) if len(of_tile) else (0, 0)
    each = f"{low}" if low == high else f"{low} to {high}"
    return len(results.cells_of(group, modality)), each, int(there.any(0).sum()) or "", missing


def drawn(results: Results, group: Group, modality: str) -> NDArray[np.bool_]:
    """Which samples of which cells there are rows of, [cells, samples]."""
    names = results.statistics(group, modality)
    found = [results.values(group, modality, name) for name in ([name for name in SCORED if name in names] or names)[:1]]
    if any(name.startswith("hits:") for name in names):
        found = list(results.family(group, modality, "hits").values())
    elif modality == "":
        found = [results.values(group, modality, name) for name in names if not name.startswith("truth ")]
    there = [(one.seeds, one.weight.any(-1)) for one in found if one and NO_SEED not in one.seeds]
    seeds = sorted({seed for some, _ in there for seed in some})
    table = np.zeros((len(results.cells), len(seeds)), bool)
    for some, known in there:
        table[:, np.searchsorted(seeds, some)] |= known
    return table


def not_given(results: Results, group: Group, beside: Iterable[str]) -> str:
    """What else was not given, beside what a line says: "; not given: date", or nothing."""
    given = {name for asked in group for name in asked.names}
    rest = [shown(name) for name in results.table.products if name not in {*given, *beside}]
    return f"; not given: {', '.join(rest)}" if rest else ""


def unfinished(results: Results) -> list[str]:
    """A note where an evaluation has not ended, or something failed."""
    meta = results.meta
    expected, finished, failed = (int(meta.get(key) or 0) for key in ("expected", "finished", "failed"))
    if finished >= expected and not failed:
        return []
    return [f"{results.name}: {finished} of {expected} parts are finished, {failed} failed: what follows is of those alone"]
