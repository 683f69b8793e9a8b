"""What are Tables 3 to 9 of the paper for the generators at hand? Targets, conditions and metrics as printed, a column a generator."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from copgen.evaluation.arrays import Group, Results, modalities_of
from copgen.evaluation.asked import Line as Counted
from copgen.evaluation.asked import asked_without, counted, not_given, removable, shown, unfinished
from copgen.evaluation.formats import Cell, Column, Number, Table
from copgen.evaluation.metrics import LOWER, NEITHER, Measured, Metric, metrics_of

Level = Literal["best", "mean and best", "experiment"]
FULL = "Full Context"
TOP3 = ("Top-3 accuracy is left out: the published evaluator takes it of one-hot predictions, whose second and third class are ties in "
        "arbitrary order, so that it says nothing.")
RANGES = "In brackets: where 95 % of the numbers lie when blocks of about 100 km of the cells are drawn anew. Bold: the best of its line."
PAPER = "\"(paper)\": as printed in arXiv:2603.03239v1, of other cells and samples."
EXPERIMENT = "One sample a tile, all tiles together: mean and standard deviation over the samples' seeds."
BEST = ("Best: the mean over tiles of the best of all samples of the tile, by each metric for itself. It grows with the number of samples; "
        "see the table of best of N.")
TILE = "Mean: of every tile the mean over its samples; of these mean and standard deviation over tiles. " + BEST
IMAGE, CLASSES = ("mae", "rmse", "ssim", "psnr"), ("top1", "iou", "f1")
PLACES, DATES = ("median-km", "mean-km", "std-km", "rmse-km"), ("days", "months", "days-of-year", "same-month", "same-year")


@dataclass(frozen=True)
class Plan:
    """One of the paper's tables: its title, which metrics it has of each target, and what is left out beside the target.

    removed: by target, "" for nothing; None: whatever else was left out alone. more: of what the paper has no line for.
    """

    number: int
    title: str
    level: Level
    keys: Mapping[str, Sequence[str]]
    removed: Mapping[str, Sequence[str]] | None
    more: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def lines(self, generators: Sequence[Results], paper: bool) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Target, what is removed, and the keys of its metrics."""
        printed = [(target, removed) for number, target, removed, *_ in printed_numbers() if number == self.number]
        for target, keys in {**self.keys, **self.more}.items():
            if self.removed is not None:
                removed = self.removed.get(target, ("",))
            else:
                known = [one for one, other in printed if one == target for one in (other,) if paper]
                removed = list(dict.fromkeys([*known, *(one for results in generators for one in removable(results, target))]))
            for one in removed:
                yield target, one, keys


BOTH_WAYS = {"S2L1C": ("", "S2L2A"), "S2L2A": ("", "S2L1C")}
MORE = {"date": DATES, "cloud_mask": CLASSES}
PLANS = {plan.number: plan for plan in (
    Plan(3, "Table 3: Tile-level peak capability, the best sample of each tile", "best",
         {"DEM": ("mae", "ssim"), "LULC": ("top1", "iou"), "S1RTC": ("mae", "psnr"), "S2L1C": ("mae", "psnr"), "S2L2A": ("mae", "psnr"),
          "place": ("mean-km",)}, BOTH_WAYS, {"date": ("days",), "cloud_mask": ("top1", "iou")}),
    Plan(4, "Table 4: Tile-level best performance, leave-one-out", "best",
         {"DEM": ("mae",), "LULC": ("top1",), **dict.fromkeys(("S1RTC", "S2L1C", "S2L2A"), ("mae",)), "place": ("mean-km",)}, None,
         {"date": ("days",), "cloud_mask": ("top1",)}),
    Plan(5, "Table 5: Tile-level cross-modal generation", "mean and best",
         {"DEM": ("mae", "rmse", "ssim"), "LULC": ("top1", "iou", "fw-iou", "f1"), "S1RTC": ("mae", "ssim", "psnr"),
          "S2L1C": ("mae", "ssim", "psnr"), "S2L2A": ("mae", "ssim", "psnr"), "place": ("mean-km",)}, BOTH_WAYS, MORE),
    Plan(6, "Table 6: Experiment-level cross-modal generation", "experiment",
         {"DEM": IMAGE, "S1RTC": IMAGE, "S2L1C": IMAGE, "S2L2A": IMAGE, "LULC": CLASSES, "place": PLACES}, BOTH_WAYS, MORE),
    Plan(7, "Table 7: Tile-level leave-one-out ablation", "mean and best",
         {"DEM": ("mae", "ssim"), "LULC": ("iou", "top1"), **dict.fromkeys(("S1RTC", "S2L1C", "S2L2A"), ("mae", "psnr")),
          "place": ("mean-km",)}, None, {"date": ("days",), "cloud_mask": ("iou", "top1")}),
    Plan(8, "Table 8: Experiment-level leave-one-out ablation", "experiment",
         {"DEM": IMAGE, "S1RTC": IMAGE, "S2L1C": IMAGE, "S2L2A": IMAGE, "LULC": CLASSES, "place": PLACES}, None, MORE),
)}


def paper_tables(generators: Sequence[Results], numbers: Sequence[int] = (3, 4, 5, 6, 7, 8, 9), *, paper: bool = False, sane: bool = True,
                 draws: int = 1000) -> list[Table]:
    """The paper's tables for some generators side by side, those that there are rows for.

    paper: with the printed numbers of COP-GEN and TerraMind beside them. sane: also metrics in physical units with fixed ranges, beside the
    published conventions. Raises ValueError for a table that is not among 3 to 9.
    """
    if unknown := [one for one in numbers if one not in {*PLANS, 9}]:
        raise ValueError(f"table {unknown[0]}: there are the paper's tables 3 to 9")
    known = Known(draws)
    made = [table_9(generators, paper) if number == 9 else table_of(PLANS[number], generators, known, paper, sane) for number in numbers]
    return [one for one in made if one.rows]


@dataclass
class Known:
    """What was measured already: tables share it."""

    draws: int
    found: dict[tuple[int, Group, str], Measured] = field(default_factory=dict)

    def measured(self, results: Results, group: Group, modality: str) -> Measured:
        key = (id(results), group, modality)
        if key not in self.found:
            self.found[key] = Measured(results, group, modality, self.draws)
        return self.found[key]


def table_of(plan: Plan, generators: Sequence[Results], known: Known, paper: bool, sane: bool) -> Table:
    rows: list[tuple[Cell, ...]] = []
    lines: list[Counted] = []
    for target, removed, keys in plan.lines(generators, paper):
        groups = [asked_without(results, target, (removed,) if removed else (), pairs=plan.removed is None) for results in generators]
        condition = f"w/o {shown(removed)}" if removed else FULL
        lines += [(f"{condition}{not_given(results, group, (target, removed))}", results, group, target)
                  for results, group in zip(generators, groups, strict=True) if group]
        for metric in metrics_of(target, keys, sane, modalities_of(generators)):
            ours = [numbers_of(plan.level, known.measured(results, group, target), metric) if group else [None] * width(plan.level)
                    for results, group in zip(generators, groups, strict=True)]
            theirs = [printed(plan, target, removed, metric, name) for name in PRINTED] if paper else []
            if any(cell is not None for cells in [*ours, *theirs] for cell in cells):
                rows.append((shown(target), condition, metric.heading, *flat(emphasised(ours, metric)), *flat(theirs)))
    columns = [Column(name, group) for group in headings(generators, paper) for name in COLUMNS[plan.level]]
    notes = [{"best": BEST, "mean and best": TILE, "experiment": EXPERIMENT}[plan.level], RANGES]
    notes += [TOP3] * (plan.level == "experiment") + [PAPER] * paper + [note for results in generators for note in unfinished(results)]
    return Table(f"table-{plan.number}", plan.title, (Column("Target"), Column("Condition"), Column("Metric"), *columns), tuple(rows),
                 tuple(notes), counted(f"table-{plan.number}", lines))


COLUMNS: dict[Level, tuple[str, ...]] = {"best": ("Best",), "mean and best": ("Mean ± Std", "Best"), "experiment": ("Mean ± Std",)}


def width(level: Level) -> int:
    return len(COLUMNS[level])


def numbers_of(level: Level, measured: Measured, metric: Metric) -> list[Number | None]:
    if level == "experiment":
        return [measured.experiment(metric)]
    return [measured.tile_mean(metric)] * (level == "mean and best") + [measured.best(metric)]


def emphasised(numbers: Sequence[Sequence[Number | None]], metric: Metric) -> list[list[Number | None]]:
    """With the best of every column of a line, over several generators, marked."""
    made = [list(one) for one in numbers]
    for k in range(len(made[0]) if made else 0):
        there = [one[k] for one in made]
        values = [one.value for one in there if one is not None]
        if metric.better != NEITHER and len(values) > 1:
            first = min(values) if metric.better == LOWER else max(values)
            for one, cell in zip(made, there, strict=True):
                one[k] = cell and replace(cell, best=cell.value == first)
    return made


def flat(cells: Sequence[Sequence[Number | None]]) -> list[Number | None]:
    return [cell for some in cells for cell in some]


# --- the paper's own numbers --------------------------------------------------------------------------------------------------------

PRINTED = ("COP-GEN", "TerraMind")


def headings(generators: Sequence[Results], paper: bool) -> list[str]:
    return [*(results.name for results in generators), *(f"{name} (paper)" for name in PRINTED if paper)]


@lru_cache(maxsize=1)
def printed_numbers() -> dict[tuple[int, str, str, str, str, str], Number]:
    """What the paper prints, by table, target, what is removed, metric, generator, and "mean" or "best"."""
    text = (files("copgen") / "assets" / "paper-tables.csv").read_text(encoding="utf-8")
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {(int(one["table"]), one["target"], one["removed"], one["metric"], one["generator"], one["level"]):
            Number(float(one["value"]), std=float(one["std"]) if one["std"] else None, printed=len(one["value"].partition(".")[2]))
            for one in lines}


def printed(plan: Plan, target: str, removed: str, metric: Metric, name: str) -> list[Number | None]:
    """The paper's numbers of one line and model; published metrics alone have any."""
    parts = {"best": ("best",), "mean and best": ("mean", "best"), "experiment": ("mean",)}[plan.level]
    return [printed_numbers().get((plan.number, target, removed, metric.key, name, part)) for part in parts]


# --- table 9 ------------------------------------------------------------------------------------------------------------------------

def table_9(generators: Sequence[Results], paper: bool) -> Table:
    """Parameters of every model at hand, in millions."""
    counts = {results.name: results.meta.get("generator", {}).get("parameters") for results in generators}
    there = {name: found for name, found in counts.items() if found}
    parts = list(dict.fromkeys(part for found in there.values() for part in found))
    theirs = {f"{name} (paper)": printed_numbers()[9, "", "", "backbone", name, "mean"] for name in PRINTED if paper}
    columns = (Column("Parameters (millions)"), *(Column(name) for name in (*there, *theirs)))
    rows = [(part.capitalize(), *(Number(found[part] / 1e6) if part in found else None for found in there.values()),
             *((number if part == "backbone" else None) for number in theirs.values())) for part in parts or ["backbone"] * bool(theirs)]
    notes = [f"{name}: no model of ours, its parameters are not known" for name in counts if name not in there]
    return Table("table-9", "Table 9: Parameters of every model at hand", columns, tuple(rows), (*notes, *[PAPER] * paper))
