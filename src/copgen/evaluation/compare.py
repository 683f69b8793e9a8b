"""Is a difference between two generators real? Metric by metric over the cells that both have, and told apart from luck."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from copgen import scores
from copgen.evaluation.arrays import Array, Results, known_mean, ratio
from copgen.evaluation.asked import Condition, conditions, counted, shown
from copgen.evaluation.formats import Cell, Column, Number, Table
from copgen.evaluation.measures import calibration_measures, set_measures
from copgen.evaluation.metrics import HIGHER, LOWER, Measured, Metric, Numbers, metrics_of

LEVEL = 0.05                                     # of a difference that chance would make so rarely, all comparisons together
NOTHING_SHOWN = "no difference shown"
FAIR = ("CRPS", "energy score", "variogram score", "fair Brier score", "mmd")               # measures of any number of samples alike


@dataclass(frozen=True)
class Compared:
    """One metric of two generators over the same cells. `difference` is A less B; `p` is adjusted for all comparisons (Holm)."""

    protocol: str
    given: str
    modality: str
    name: str                                    # of the metric, and "best of 16"
    better: str
    a: Number
    b: Number
    difference: Number
    p: float
    cells: int

    @property
    def verdict(self) -> str:
        """Who is better, where chance would say so in fewer than one of twenty whole tables."""
        if not self.p < LEVEL or not self.better:
            return NOTHING_SHOWN if self.better or not self.p < LEVEL else "different"
        return "A better" if (self.difference.value < 0) == (self.better == LOWER) else "B better"


def compare(a: Results, b: Results, *, sane: bool = True, pairs: bool = False, draws: int = 2000) -> Table:
    """A table of every metric that both generators have: their numbers, the difference with its range, and a verdict.

    Over the cells that both have, with the same draws of blocks of cells for both; p-values are Holm's for all lines of the table. Of
    products whose bands differ those are compared that both have, and of ensembles of other sizes what does not depend on the size: of more
    samples the mean is better, and the range wider, whatever they are worth. pairs: also under conditions that leave out two layers. Raises
    ValueError where there is nothing to compare.
    """
    lines, notes, counts = comparisons(a, b, sane=sane, pairs=pairs, draws=draws)
    if not lines:
        raise ValueError(f"{a.name} and {b.name} have no metric of the same condition and cells in common; evaluate both with one recipe "
                         "on the same cases")
    rows: list[tuple[Cell, ...]] = [
        (one.protocol, one.given, shown(one.modality), one.name, one.cells, one.a, one.b, one.difference, Number(one.p), one.verdict)
        for one in lines]
    headings = ("Protocol", "Given", "Product", "Metric", "Cells", f"A: {a.name}", f"B: {b.name}", "A - B", "p (Holm)", "Verdict")
    told = [sum(one.verdict == word for one in lines) for word in ("A better", "B better", NOTHING_SHOWN)]
    summary = f"{len(lines)} comparisons: A better in {told[0]}, B better in {told[1]}, no difference shown in {told[2]}."
    method = ("A - B: over the cells of both; in brackets the range of 95 % by the bootstrap of blocks of about 100 km. p: of no "
              f"difference, by Student's t, adjusted for all comparisons (Holm); below {LEVEL:g} a verdict is given.")
    title = f"{a.name} (A) against {b.name} (B)"
    return Table("compare", title, tuple(map(Column, headings)), tuple(rows), (summary, method, *notes), counts)


def comparisons(a: Results, b: Results, *, sane: bool = True, pairs: bool = False,
                draws: int = 2000) -> tuple[list[Compared], list[str], Table]:
    """Every comparison with its adjusted p, notes on what is not in common, and the counts."""
    found: list[Compared] = []
    notes, lines = apart(a, b), []
    for condition in conditions((a, b), pairs=pairs):
        if not all(condition.groups):
            continue
        for modality in (one for one in a.modalities(condition.groups[0]) if one and one in b.modalities(condition.groups[1])):
            both, told = in_common(a, b, condition, modality)
            made = list(product(both, condition, draws, sane))
            found += made
            notes += [*told, *other_sizes(both)] if made else []
            lines += [(condition.name, one.results, one.group, modality) for one in both if made]
    adjusted = scores.holm([one.p for one in found])
    return [replace(one, p=float(p)) for one, p in zip(found, adjusted, strict=True)], list(dict.fromkeys(notes)), counted("compare", lines)


def apart(a: Results, b: Results) -> list[str]:
    """Cells that one of them lacks."""
    first, second = set(a.cells), set(b.cells)
    return [f"{len(mine - other)} cells of {one.name} are not among those of {another.name} and are left out"
            for one, another, mine, other in ((a, b, first, second), (b, a, second, first)) if mine - other]


def in_common(a: Results, b: Results, condition: Condition, modality: str) -> tuple[tuple[Measured, Measured], list[str]]:
    """Both with the bands that both have, and a note where that leaves some out."""
    bands = [{band for name in ("absolute error", "published absolute error") for band in results.bands_of(group, modality, name)}
             for results, group in zip((a, b), condition.groups, strict=True)]
    common = bands[0] & bands[1]
    told = [f"{shown(modality)}: only {one.name} has {', '.join(sorted(mine - common))}; left out"
            for one, mine in zip((a, b), bands, strict=True) if mine - common]
    if told:
        a, b = (results.with_bands({modality: common}) for results in (a, b))
    return (Measured(a, condition.groups[0], modality), Measured(b, condition.groups[1], modality)), told


def other_sizes(both: Sequence[Measured]) -> list[str]:
    """A note where one usually has more samples of a tile than the other."""
    found = [(one.results.name, one.results.values(one.group, one.modality, "samples")) for one in both]
    sizes = [(name, float(np.median(one.total.sum((1, 2))[one.weight.sum((1, 2)) > 0]))) for name, one in found if one is not None]
    if len({size for _, size in sizes}) < 2:
        return []
    told = ", ".join(f"{name} {size:g}" for name, size in sizes)
    return [f"{shown(both[0].modality)}: samples of a tile: {told}; of their sets and of the ensemble only what does not depend on that"]


def product(both: tuple[Measured, Measured], condition: Condition, draws: int, sane: bool) -> Iterator[Compared]:
    """All comparisons of one product under one condition; the p-values are not adjusted yet."""
    modality, group = both[0].modality, both[0].group
    measures = [one for one in (*calibration_measures(both[0].results, group, modality), *set_measures(both[0].results, group, modality))
                if one.metric.better and not one.own and (one.metric.name.startswith(FAIR) or one.metric.name.endswith(FAIR)
                                                          or not other_sizes(both))]
    metrics = metrics_of(modality, sane=sane, table=both[0].results.table)
    for metric in (*(one for one in metrics if one.better and not one.median), *(one.metric for one in measures)):
        sums = [one.sums(metric) for one in both]
        if sums[0] is None or sums[1] is None:
            continue
        first, second, cells = on_common_cells(both, sums[0], sums[1])
        if not len(cells):
            continue
        where = both[0].results.places[cells]
        yield compared(condition, modality, metric.label, metric.better, partial(pooled, metric), first, second, where, draws)
        number = min(samples_of(metric.finish(one)) for one in (first, second)) if metric in metrics else 0
        if number > 1:
            name, x, y = f"{metric.label}, best of {number}", bests(metric, first, number), bests(metric, second, number)
            yield compared(condition, modality, name, metric.better, mean_over_cells, x, y, where, draws)


def on_common_cells(
    both: Sequence[Measured], first: tuple[Array, Numbers], second: tuple[Array, Numbers],
) -> tuple[Array, Array, Numbers]:
    """The sums of the cells that both have, in one order, and these cells' numbers in the first."""
    place = [{one.results.cells[cell]: k for k, cell in enumerate(sums[1])} for one, sums in zip(both, (first, second), strict=True)]
    common = sorted(set(place[0]) & set(place[1]))
    rows = [[one[name] for name in common] for one in place]
    return first[0][rows[0]], second[0][rows[1]], first[1][rows[0]]


def pooled(metric: Metric, sums: Array) -> Array:
    """Totals over cells [samples, ..., draws] -> the mean over samples of the metric, [draws]."""
    return known_mean(metric.finish(np.moveaxis(sums, -1, 0)))


def samples_of(tiles: Array) -> int:
    """The most samples that every cell has."""
    return int((~np.isnan(tiles)).sum(1).min())


def bests(metric: Metric, sums: Array, number: int) -> Array:
    """Of every cell the best of so many samples in expectation, and 1: what adds up to their mean."""
    best = scores.best_of_n(metric.finish(sums), metric.better == HIGHER)[:, number - 1]
    return np.stack([best, np.ones_like(best)], axis=-1)


def mean_over_cells(sums: Array) -> Array:
    return ratio(sums[0], sums[1])


def compared(
    condition: Condition, modality: str, name: str, better: str, statistic: Callable[[Array], Array], first: Array, second: Array,
    places: Array, draws: int,
) -> Compared:
    """One comparison of sums [cells, ...] that `statistic` makes a number of."""
    x, y = np.moveaxis(first, 0, -1), np.moveaxis(second, 0, -1)
    found = scores.paired(statistic, [x], [y], blocks=scores.blocks(*places.T), draws=draws)
    a, b = (Number(float(statistic(one.sum(-1)[..., None])[0])) for one in (x, y))
    low, high = (None if np.isnan(end) else end for end in (found.low, found.high))
    return Compared(condition.protocol, condition.shown, modality, name, better, a, b, Number(found.value, low, high), found.p, len(places))
