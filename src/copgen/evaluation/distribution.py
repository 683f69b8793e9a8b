"""Are samples distributed as the truth is? Tables of `measures`, generators side by side, and of the best of N samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from copgen.evaluation.arrays import Group, Results, band_order, modalities_of
from copgen.evaluation.asked import Condition, conditions, counted, shown, unfinished
from copgen.evaluation.formats import Cell, Column, Table
from copgen.evaluation.measures import (
    Measure,
    calibration_measures,
    consistency_measures,
    influence_measures,
    memory_measures,
    set_measures,
)
from copgen.evaluation.metrics import Measured, metrics_of

Choose = Callable[[Results, Group, str], list[Measure]]
BESIDE = ("If perfect: what the number would be if the truth were one more of the samples, where that is known; of texture, sets and "
          "consistency what true observations have.")
RANGES = "In brackets: where 95 % of the numbers lie when blocks of about 100 km of the cells are drawn anew."
RELIABLE = ("Beside Brier score and ECE stands what they are where each sample in turn is the truth of the others: even a perfect ensemble "
            "has an ECE above 0.")
KINDS: dict[str, tuple[str, Choose, bool, tuple[str, ...]]] = {      # title, measures, of swaps, notes
    "calibration": ("Calibration: the truth as one more sample", calibration_measures, False, (RELIABLE,)),
    "sets": ("Sets: samples of a cell beside its many true observations", set_measures, False,
             ("nn accuracy: near 0.5 where the sets can't be told apart, 1 where they lie apart.",)),
    "consistency": ("Consistency: do the layers of a sample agree with each other?", consistency_measures, False,
                    ()),
    "influence": ("Influence: how far does the distribution move when a given layer is another cell's?", influence_measures, True,
                  ("In units of the samples' spread; if perfect: how far the true distribution moves, in the same units.",)),
    "memorisation": ("Memorisation: are samples nearer to what was trained on than to what was held out?", memory_measures, False,
                     ("nearer training: the share of samples whose nearest neighbour is a training patch; 0.5 where nothing is copied.",
                    "The range is over cells, not over the places that were looked at: few of them are the nearest to many samples.")),
}


def distribution_tables(generators: Sequence[Results], kinds: Sequence[str] = tuple(KINDS), *, pairs: bool = False,
                        draws: int = 1000) -> list[Table]:
    """The tables of distributions for some generators side by side, those that there are rows for.

    pairs: also under conditions that leave out two layers. Raises ValueError for a kind that there is not.
    """
    if unknown := [one for one in kinds if one not in KINDS]:
        raise ValueError(f"table {unknown[0]!r}: there are {', '.join(KINDS)}")
    made = [table_of(kind, generators, pairs, draws) for kind in kinds]
    return [one for one in made if one.rows]


def table_of(kind: str, generators: Sequence[Results], pairs: bool, draws: int) -> Table:
    title, choose, swaps, notes = KINDS[kind]
    rows: list[tuple[Cell, ...]] = []
    lines = []
    for condition in conditions(generators, pairs=pairs, swaps=swaps):
        for modality in products_of(generators, condition):
            there = [(k, Measured(results, group, modality, draws)) for k, (results, group)
                     in enumerate(zip(generators, condition.groups, strict=True)) if group]
            found = lines_of(there, choose, len(generators))
            rows += [(condition.protocol, condition.shown, shown(modality), *one) for one in found]
            lines += [(condition.name, one.results, one.group, modality) for _, one in there if found]
    return Table(kind, title, columns(generators, "Protocol", "Given", "Product", "Measure"), tuple(rows),
                 (*notes, BESIDE, RANGES, *(note for results in generators for note in unfinished(results))), counted(kind, lines))


def columns(generators: Sequence[Results], *labels: str) -> tuple[Column, ...]:
    return (*map(Column, labels), *(Column(name, results.name) for results in generators for name in ("measured", "if perfect")))


def products_of(generators: Sequence[Results], condition: Condition) -> list[str]:
    return list(dict.fromkeys(modality for results, group in zip(generators, condition.groups, strict=True) if group
                              for modality in results.modalities(group)))


def lines_of(there: Sequence[tuple[int, Measured]], choose: Choose, total: int) -> list[tuple[Cell, ...]]:
    """The lines of one product under one condition: a measure, and of every generator what it has and what is perfect."""
    by_name: dict[str, list[tuple[int, Measured, Measure]]] = {}
    for k, measured in there:
        for measure in choose(measured.results, measured.group, measured.modality):
            by_name.setdefault(measure.metric.heading, []).append((k, measured, measure))
    rows = []
    for name, found in by_name.items():
        cells: list[Cell] = [None] * (2 * total)
        for k, measured, measure in found:
            if (number := measure.number(measured)) is not None:
                cells[2 * k], cells[2 * k + 1] = number, measure.reference(measured)
        if any(cell is not None for cell in cells):
            rows.append((name, *cells))
    return rows


# --- bands, best of N ---------------------------------------------------------------------------------------------------------------

BY_BAND = ("CRPS of pixels", "spread / skill of pixels", "90% range holds, pixels", "spectral slope, samples less truth", "wasserstein",
           "range coverage")


def band_table(generators: Sequence[Results], *, draws: int = 1000) -> Table:
    """The most telling measures, band by band."""
    rows: list[tuple[Cell, ...]] = []
    for condition in conditions(generators):
        for modality in products_of(generators, condition):
            groups = list(zip(generators, condition.groups, strict=True))
            bands = dict.fromkeys(band for results, group in groups if group for band in results.bands_of(group, modality, "crps"))
            for band in sorted(bands, key=band_order) if len(bands) > 1 else ():
                there = [(k, Measured(results.with_bands({modality: {band}}), group, modality, draws))
                         for k, (results, group) in enumerate(groups) if group]
                rows += [(condition.protocol, condition.shown, shown(modality), band, *one)
                         for one in lines_of(there, told_by_band, len(generators))]
    return Table("bands", "Calibration band by band", columns(generators, "Protocol", "Given", "Product", "Band", "Measure"), tuple(rows),
                 (BESIDE, RANGES))


def told_by_band(results: Results, group: Group, modality: str) -> list[Measure]:
    every = [*calibration_measures(results, group, modality), *set_measures(results, group, modality)]
    return [one for one in every if one.metric.name in BY_BAND]


NUMBERS = (1, 2, 4, 8, 16, 32, 64)


def best_table(generators: Sequence[Results], *, sane: bool = True, pairs: bool = False, draws: int = 1000) -> Table:
    """The best of N samples of a tile in expectation, as N grows, the mean over tiles that have as many samples."""
    rows: list[tuple[Cell, ...]] = []
    lines = []
    for condition in conditions(generators, pairs=pairs):
        for modality in products_of(generators, condition):
            there = [Measured(results, group, modality, draws) if group else None
                     for results, group in zip(generators, condition.groups, strict=True)]
            for metric in metrics_of(modality, sane=sane, table=modalities_of(generators)):
                found = [[one and one.best(metric, number) for number in NUMBERS] for one in there]
                rows += [(condition.protocol, condition.shown, shown(modality), metric.heading, number, *cells)
                         for number, *cells in zip(NUMBERS, *found, strict=True) if any(cells)]
            lines += [(condition.name, one.results, one.group, modality) for one in there if one and modality]
    headings = (*map(Column, ("Protocol", "Given", "Product", "Metric", "N")), *(Column(results.name) for results in generators))
    notes = ("The mean over all ways to take N of a tile's samples, of their best: unbiased for N fresh samples, and no luck of one draw.",
             "Tiles with fewer than N samples are not counted at that N.", RANGES)
    return Table("best-of-n", "Best of N samples", headings, tuple(rows), notes, counted("best-of-n", lines))
