"""Which metrics are made of rows, and what are they over cells and samples? Published conventions and sane ones, both by name.

A metric is a function of sums: what rows say is added up over what the metric pools, and only then becomes a root, a ratio or a logarithm.
The published conventions are those of the evaluator released with the paper: errors over all pixels of all bands together (so that a band
of 10 m counts 36 times one of 60 m), images scaled by the truth's own least and greatest value before SSIM and PSNR, and PSNR made of the
error of all images together. The sane ones have physical units and fixed ranges, every band counts the same, and PSNR is a mean of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from copgen import scores
from copgen.evaluation.arrays import Array, Finish, Group, Results, Sums, known_mean, known_std, ratio
from copgen.evaluation.formats import Number
from copgen.modalities import TABLE, Table
from copgen.scaling import EightBit
from copgen.scores.images import decibels_of as decibels

Numbers = NDArray[np.intp]                     # of cells
Read = Callable[[Results, Group, str], Sums | None]
LOWER, HIGHER, NEITHER = "lower", "higher", ""
ARROWS = {LOWER: " ↓", HIGHER: " ↑", NEITHER: ""}


@dataclass(frozen=True)
class Metric:
    """A metric: how its sums [cells, samples, ...] are read, and what is made of them. `convention` says which of several it is."""

    key: str                                     # "mae", in file names and on the command line
    name: str                                    # as the paper writes it
    better: str
    read: Read
    finish: Finish
    convention: str = ""
    published: bool = True                       # one of the paper's: the first in a table
    median: bool = False                         # a median over cells, which sums can't give

    @property
    def label(self) -> str:
        return f"{self.name} ({self.convention})" if self.convention else self.name

    @property
    def heading(self) -> str:
        return self.label + ARROWS[self.better]

    def pooled(self, sums: Sums, counts: Array) -> Array:
        """The metric of all cells together, each counted so often, [draws, cells] -> [draws, samples]."""
        if self.median:
            values = self.finish(sums)
            return np.stack([scores.weighted_quantile(one, counts * ~np.isnan(one), 0.5) for one in values.T], axis=-1)
        return self.finish(np.tensordot(counts, sums, axes=1))


# --- sums -> a number ---------------------------------------------------------------------------------------------------------------

def mean_of(sums: Array) -> Array:
    """Sums [..., 2]: of values and of weights."""
    return ratio(sums[..., 0], sums[..., 1])


def root_of(sums: Array) -> Array:
    return np.sqrt(mean_of(sums))


def decibels_of(sums: Array) -> Array:
    """PSNR of a pooled squared error of what lies in 0..1."""
    return decibels(mean_of(sums))


def mean_of_bands(sums: Array) -> Array:
    """Sums [..., 2 x bands]: every band's mean counts the same."""
    half = sums.shape[-1] // 2
    return known_mean(ratio(sums[..., :half], sums[..., half:]))


def root_of_bands(sums: Array) -> Array:
    return np.sqrt(mean_of_bands(sums))


def deviation_of(sums: Array) -> Array:
    """Sums [..., 3] of values, their squares, and how many: the standard deviation of the population."""
    return np.sqrt(np.maximum(ratio(sums[..., 1], sums[..., 2]) - ratio(sums[..., 0], sums[..., 2]) ** 2, 0))


def of_classes(score: Callable[[Array], Array], sums: Array) -> Array:
    """A score of confusion tables [..., k, k]; NaN where nothing was counted."""
    return np.where(sums.sum((-2, -1)) > 0, score(sums), np.nan)


# --- rows -> sums -------------------------------------------------------------------------------------------------------------------

def over_all(statistic: str) -> Read:
    """Of all bands together, as their weights say."""
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        found = results.values(group, modality, statistic)
        return None if found is None else np.stack([found.total.sum(-1), found.weight.sum(-1)], axis=-1)
    return read


def by_band(statistic: str) -> Read:
    """Of every band for itself."""
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        found = results.values(group, modality, statistic)
        return None if found is None else np.concatenate([found.total, found.weight], axis=-1)
    return read


def with_squares(statistic: str) -> Read:
    """Of numbers that are one a cell and sample."""
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        found = results.values(group, modality, statistic)
        if found is None:
            return None
        return np.stack([found.total.sum(-1), (found.total * found.value).sum(-1), found.weight.sum(-1)], axis=-1)
    return read


def confusion(results: Results, group: Group, modality: str) -> Sums | None:
    """How many pixels of each class were drawn as each other, [cells, samples, k, k] in the order of the codes."""
    pairs = results.family(group, modality, "hits")
    if not pairs:
        return None
    codes = sorted({code for pair in pairs for code in pair})
    first = next(iter(pairs.values()))
    table = np.zeros((*first.value.shape[:2], len(codes), len(codes)))
    for (truth, drawn), found in pairs.items():
        table[:, :, codes.index(truth), codes.index(drawn)] = found.total.sum(-1)
    return table


# --- the metrics of every product ---------------------------------------------------------------------------------------------------

PUBLISHED_PSNR = "published: pooled, each band's own min-max"
PUBLISHED_SSIM = "published: each band's own min-max"


def image_metrics(published: str, sane: str, span: str) -> tuple[Metric, ...]:
    """Of continuous layers, whose errors have the unit `published` in the paper and `sane` here; `span` is the range of SSIM and PSNR."""
    return (
        Metric("mae", "MAE", LOWER, over_all("published absolute error"), mean_of, f"published: {published}, pooled"),
        Metric("mae-sane", "MAE", LOWER, by_band("absolute error"), mean_of_bands, f"{sane}, mean over bands", published=False),
        Metric("rmse", "RMSE", LOWER, over_all("published squared error"), root_of, f"published: {published}, pooled"),
        Metric("rmse-sane", "RMSE", LOWER, by_band("squared error"), root_of_bands, f"{sane}, mean over bands", published=False),
        Metric("ssim", "SSIM", HIGHER, over_all("published ssim"), mean_of, PUBLISHED_SSIM),
        Metric("ssim-sane", "SSIM", HIGHER, over_all("ssim"), mean_of, f"{span}, mean over images", published=False),
        Metric("psnr", "PSNR", HIGHER, over_all("published scaled squared error"), decibels_of, PUBLISHED_PSNR),
        Metric("psnr-sane", "PSNR", HIGHER, over_all("psnr"), mean_of, f"{span}, mean over images", published=False),
    )


CLASS_METRICS = (
    Metric("top1", "Top-1", HIGHER, confusion, partial(of_classes, scores.accuracy)),
    Metric("iou", "Mean IoU", HIGHER, confusion, partial(of_classes, scores.mean_iou)),
    Metric("fw-iou", "Fw. IoU", HIGHER, confusion, partial(of_classes, scores.frequency_weighted_iou)),
    Metric("f1", "Mean F1", HIGHER, confusion, partial(of_classes, scores.mean_f1)),
)
PLACE_METRICS = (
    Metric("median-km", "Median km", LOWER, over_all("kilometres"), mean_of, median=True),
    Metric("mean-km", "Mean km", LOWER, over_all("kilometres"), mean_of),
    Metric("std-km", "Std km", NEITHER, with_squares("kilometres"), deviation_of),
    Metric("rmse-km", "RMSE km", LOWER, with_squares("kilometres"), lambda sums: np.sqrt(ratio(sums[..., 1], sums[..., 2]))),
)
DATE_METRICS = (
    Metric("days", "Mean days", LOWER, over_all("days"), mean_of, "published"),
    Metric("median-days", "Median days", LOWER, over_all("days"), mean_of, "published", median=True),
    Metric("months", "Mean months", LOWER, over_all("months"), mean_of, "published: without wrap, January to December 11"),
    Metric("days-of-year", "Mean days of year", LOWER, over_all("days of year"), mean_of, "round the year", published=False),
    Metric("same-month", "Month accuracy", HIGHER, over_all("same month"), mean_of),
    Metric("same-year", "Year accuracy", HIGHER, over_all("same year"), mean_of),
)
HEIGHT_METRICS = tuple(one for one in image_metrics("m", "m", "1000 m") if one.key not in ("mae-sane", "rmse-sane"))
PICTURE_METRICS = tuple(replace(one, published=True) for one in image_metrics("", "levels of 255", "255 levels")
                        if one.key.endswith("-sane"))    # the released evaluator knows no pictures
METRICS: dict[str, tuple[Metric, ...]] = {
    "DEM": HEIGHT_METRICS,                       # one band in metres: both conventions have one error
    "LULC": CLASS_METRICS,
    "cloud_mask": CLASS_METRICS,
    "S1RTC": image_metrics("dB clipped to -50..10", "dB", "50 dB"),
    "S2L1C": image_metrics("reflectance", "DN", "10000 DN"),
    "S2L2A": image_metrics("reflectance", "DN", "10000 DN"),
    "place": PLACE_METRICS,
    "date": DATE_METRICS,
}


def metrics_of(modality: str, keys: Sequence[str] | None = None, sane: bool = True, table: Table = TABLE) -> list[Metric]:
    """The metrics of a table's product, published ones before the sane ones that belong to them; only those of `keys` and their kin."""
    pictures = any(row.product == modality and isinstance(row.scale, EightBit) for row in table.rows)
    kept = [one for one in (PICTURE_METRICS if pictures else METRICS.get(modality, ())) if sane or one.published]
    return [one for one in kept if keys is None or one.key.removesuffix("-sane") in keys]


# --- over cells and samples ---------------------------------------------------------------------------------------------------------

@dataclass
class Measured:
    """What one generator reached under one condition with one product: metrics over its cells, with their ranges.

    Ranges are those of 95 % of draws of blocks of cells, some 100 km wide (`copgen.scores.blocks`).
    """

    results: Results
    group: Group
    modality: str
    draws: int = 1000
    _sums: dict[Read, tuple[Sums, Numbers] | None] = field(default_factory=dict, repr=False)

    def sums(self, metric: Metric) -> tuple[Sums, Numbers] | None:
        """The sums [cells, samples, ...] of the cells that have any, and those cells' numbers; None where no row knows of it."""
        if metric.read not in self._sums:
            found = metric.read(self.results, self.group, self.modality)
            self._sums[metric.read] = None
            if found is not None and found.any():
                there = np.flatnonzero(found.any(axis=tuple(range(1, found.ndim))))
                self._sums[metric.read] = found[there], there
        return self._sums[metric.read]

    def experiment(self, metric: Metric) -> Number | None:
        """The metric of one sample a cell, all cells together: its mean and standard deviation over samples (reference 7.3)."""
        found = self.sums(metric)
        if found is None:
            return None
        by_run = metric.pooled(found[0], taken(self.results, found[1], self.draws))
        return with_std(known_mean(by_run), known_std(by_run), number_of_blocks(self.results, found[1]))

    def number(self, metric: Metric) -> Number | None:
        """The metric as `experiment` has it, without the deviation over samples: of what is said of all samples together."""
        found = self.experiment(metric)
        return found and replace(found, std=None, std_low=None, std_high=None)

    def tiles(self, metric: Metric) -> tuple[Array, Numbers] | None:
        """The metric of every single sample, [cells, samples], NaN where it is missing; and the cells' numbers."""
        found = self.sums(metric)
        return None if found is None else (metric.finish(found[0]), found[1])

    def tile_mean(self, metric: Metric) -> Number | None:
        """Of every cell the mean over its samples; of these the mean and standard deviation over cells."""
        found = self.tiles(metric)
        return None if found is None else over_cells(self.results, known_mean(found[0]), found[1], self.draws, std=True)

    def best(self, metric: Metric, number: int | None = None) -> Number | None:
        """The mean over cells of the best of `number` samples in expectation, of cells that have as many; None: of all that a cell has."""
        found = self.tiles(metric)
        if found is None or metric.better == NEITHER:
            return None
        of_any = scores.best_of_n(found[0], metric.better == HIGHER)                         # [cells, samples]: the best of 1, 2 ...
        if number is None:
            last = np.maximum((~np.isnan(of_any)).sum(-1) - 1, 0)
            return over_cells(self.results, of_any[np.arange(len(last)), last], found[1], self.draws)
        return over_cells(self.results, of_any[:, number - 1], found[1], self.draws) if number <= of_any.shape[1] else None


def over_cells(results: Results, values: Array, cells: Numbers, draws: int, *, std: bool = False) -> Number | None:
    """The mean of one value a cell, those that are not NaN, with its range; None where there are none."""
    known = ~np.isnan(values)
    if not known.any():
        return None
    values, cells = values[known], cells[known]
    weights = taken(results, cells, draws)
    mean = weights @ values / weights.sum(1)
    number = number_of_blocks(results, cells)
    if not std:
        return with_range(mean, number)
    return with_std(mean, np.sqrt(np.maximum(weights @ values**2 / weights.sum(1) - mean**2, 0)), number)


def with_range(drawn: Array, blocks: int) -> Number:
    """A number of the cells as they are, the first, and of every draw."""
    found = scores.interval_of(drawn[0], drawn[1:], blocks)
    low, high = (None if np.isnan(end) else end for end in (found.low, found.high))
    return Number(found.value, low, high)


def with_std(mean: Array, std: Array, blocks: int) -> Number:
    about, spread = with_range(mean, blocks), with_range(std, blocks)
    return Number(about.value, about.low, about.high, spread.value, spread.low, spread.high)


# --- blocks of cells ----------------------------------------------------------------------------------------------------------------

def blocks_of(results: Results, cells: Numbers) -> Numbers:
    return scores.blocks(*results.places[cells].T)


def number_of_blocks(results: Results, cells: Numbers) -> int:
    return int(blocks_of(results, cells).max()) + 1


def taken(results: Results, cells: Numbers, draws: int) -> Array:
    """How often each cell counts: once as they are, then in each draw of blocks, [1 + draws, cells]."""
    drawn = scores.cell_weights(blocks_of(results, cells), draws)
    return np.concatenate([np.ones((1, len(cells))), drawn])
