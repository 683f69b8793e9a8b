"""What do many samples buy, what do the given layers change, and do the drawn ones agree with each other? Curves, bars and dots of rows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from copgen.evaluation.arrays import Array, Asked, Group, Results, known_mean, modalities_of, ratio
from copgen.evaluation.measures import pair_by_band, root_of_ratio
from copgen.evaluation.metrics import LOWER, Metric, metrics_of
from copgen.figures.panels import DASHED, colour_of, having, marker_of, named_series, panelled
from copgen.figures.style import BLACK, PAGE, RULE, blank, paper
from copgen.modalities import TABLE, Table
from copgen.scores.best import best_of_n
from copgen.scores.intervals import blocked, blocks, cell_weights, interval_of

SHOWN = ("mae-sane", "mae", "top1", "mean-km", "days")               # the metric of a modality whose best is followed: the first it has
MEASURES = 12                                    # of consistency, at most
DRAWS = 1000


def blocks_of(results: Results) -> NDArray[np.int64]:
    """The block of every cell: those that lie close together are drawn together."""
    return blocks(results.places[:, 0], results.places[:, 1])


# --- best of N ----------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Curve:
    """The expected best of N = 1, 2, ... samples of a tile, the mean over tiles, and its range when tiles are drawn anew."""

    value: Array
    low: Array
    high: Array

    @property
    def number(self) -> NDArray[np.int64]:
        return np.arange(1, len(self.value) + 1)


def curve_of(results: Results, group: Group, modality: str, metric: Metric, most: int = 64) -> Curve | None:
    """A generator's curve by the unbiased estimator `best_of_n`, as far as every tile has samples; None where there are none."""
    sums = metric.read(results, group, modality)
    if sums is None:
        return None
    known = np.any(sums.reshape(*sums.shape[:2], -1), axis=2)
    there = known.any(1)
    tiles = np.where(known, metric.finish(sums), np.nan)[there]
    if not len(tiles):
        return None
    fewest = int(np.isfinite(tiles).sum(1).min())
    curves = best_of_n(tiles, largest=metric.better != LOWER)[:, :min(fewest, most)]                   # [tiles, N]
    taken = cell_weights(blocks_of(results)[there], DRAWS)
    drawn = taken @ curves / np.maximum(taken.sum(1, keepdims=True), 1e-12)
    number = len(np.unique(blocks_of(results)[there]))
    ranges = [interval_of(float(curves[:, k].mean()), drawn[taken.sum(1) > 0, k], number) for k in range(curves.shape[1])]
    return Curve(curves.mean(0), np.array([one.low for one in ranges]), np.array([one.high for one in ranges]))


def followed(modality: str, table: Table = TABLE) -> Metric | None:
    found = {metric.key: metric for metric in metrics_of(modality, table=table)}
    return next((found[key] for key in SHOWN if key in found), None)


@paper()
def best_of(runs: Sequence[Results], group: Group, modalities: Sequence[str] | None = None) -> Figure:
    """How good is the best of N samples, by a metric a modality: a panel each, a line a generator, 95 % of draws of tiles about it.

    A generator without spread gains nothing from more samples; one that covers what is possible falls on and on. The best is chosen
    with the truth at hand, so that it says what is covered and not what anybody would get.
    """
    def read(run: Results, name: str) -> Curve | None:
        metric = followed(name, modalities_of(runs))
        return None if metric is None else curve_of(run, group, name, metric)

    shown = having(runs, group, modalities, read)
    figure, panels = panelled(len(shown), 1.75)
    for axes, (name, found) in zip(panels, shown.items(), strict=True):
        for k, curve in enumerate(found):
            if curve is not None:
                axes.fill_between(curve.number, curve.low, curve.high, color=colour_of(k), alpha=0.18, linewidth=0)
                axes.plot(curve.number, curve.value, color=colour_of(k), marker=marker_of(k), ms=3.5, mec="white", mew=0.3,
                          markevery=[2**e - 1 for e in range(7) if 2**e <= len(curve.value)])
        longest = max(len(curve.value) for curve in found if curve)
        ticks = [2**e for e in range(7) if 2**e <= longest]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(one) for one in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        metric = followed(name, modalities_of(runs))
        axes.set_title(f"{name}: {metric.name if metric else ''} {'↓' if metric and metric.better == LOWER else '↑'}\n"
                       f"{metric.convention if metric else ''}", fontsize=7)
    figure.supxlabel("N: the best of how many samples", fontsize=7)
    named_series(figure, runs)
    return figure


# --- influence ----------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Influence:
    """How far the mean of the samples moves when one given layer is another cell's, in units of the samples' own spread."""

    value: float                                 # NaN where there is no spread to measure by
    low: float
    high: float
    truth: float                                 # how far the mean of true observations moves, in the same unit; NaN where unknown


def influence_of(results: Results, asked: Asked, modality: str) -> Influence | None:
    """As tables have it, the root of the mean move over the mean spread, bands counting the same; None where nothing was swapped."""
    moved, true = (pair_by_band(name, "spread")(results, (asked,), modality) for name in ("moved", "true moved"))
    if moved is None or not moved.any():
        return None
    there = moved.any((1, 2))
    found = blocked(lambda sums: root_of_ratio(sums.T), moved[there, 0].T, blocks=blocks_of(results)[there], draws=DRAWS)
    truth = float(root_of_ratio(true.sum((0, 1)))) if true is not None else np.nan
    return Influence(found.value, found.low, found.high, truth)


@paper()
def influence(runs: Sequence[Results], modalities: Sequence[str] | None = None) -> Figure:
    """How much a given layer matters: a panel for each that was swapped for another cell's, bars by what was drawn.

    A bar is how far the mean of the samples moves in units of their spread: 0 where the layer is ignored. The black line is how far true
    observations move, in the same unit, where they are known. Without any spread there is no unit: a cross.
    """
    swaps = list(dict.fromkeys(one for run in runs for one in run.asked if any("moved" in run.statistics((one,), name)
                                                                               for name in run.modalities((one,)))))
    if not swaps:
        raise ValueError("no row says how far samples moved; evaluate a protocol with swap = \"place\", for one")
    products = len({name for run in runs for one in swaps for name in run.modalities((one,))})
    figure = blank(min(PAGE, 1.0 + 0.45 * products * (1 + len(runs))), 0.4 + 1.5 * len(swaps))
    for axes, asked in zip(figure.subplots(len(swaps), squeeze=False)[:, 0], swaps, strict=True):
        draw_influence(axes, runs, asked, modalities)
    figure.supylabel("shift of the mean / spread", fontsize=7)
    named_series(figure, runs)
    return figure


def draw_influence(axes: Axes, runs: Sequence[Results], asked: Asked, modalities: Sequence[str] | None) -> None:
    shown = having(runs, (asked,), modalities, lambda run, name: influence_of(run, asked, name))
    width = 0.8 / len(runs)
    for j, found in enumerate(shown.values()):
        for k, one in enumerate(found):
            x = j + (k - (len(runs) - 1) / 2) * width
            if one is None:
                continue
            if not np.isfinite(one.value):
                axes.plot([x], [0.03], marker="x", color=colour_of(k), ms=4, clip_on=False, transform=axes.get_xaxis_transform())
                continue
            axes.bar(x, one.value, width * 0.9, color=colour_of(k))
            axes.plot([x, x], [one.low, one.high], color=BLACK, linewidth=0.7)
            if np.isfinite(one.truth):
                axes.plot([x - width * 0.45, x + width * 0.45], [one.truth] * 2, color=BLACK, linewidth=1.6)
    axes.set_xticks(range(len(shown)), list(shown))
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.set_title(f"{asked.protocol} (given {asked.given.replace('+', ', ')})", loc="left")


# --- consistency --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Agreement:
    """A measure of consistency by tile, of what was drawn (the mean over samples) and of the observation."""

    drawn: Array                                 # [tiles]
    truth: Array
    cells: NDArray[np.int64]                     # their numbers among all

    @property
    def error(self) -> float:
        """The mean absolute difference over the mean absolute deviation of the observations; NaN where those are all the same."""
        usual = float(np.abs(self.truth - np.median(self.truth)).mean())
        return float(np.abs(self.drawn - self.truth).mean()) / usual if usual > 0 else np.nan


def agreements(results: Results, group: Group) -> dict[str, Agreement]:
    """Every measure of consistency whose truth is known, too, by its name; of several conditions of a tile the mean."""
    sides: dict[str, list[tuple[Array, Array]]] = {}
    for one in group:
        for modality in results.modalities((one,)):
            for name in results.statistics((one,), modality):
                if name.startswith("consistency ") and (pair := both_sides(results, one, modality, name)) is not None:
                    sides.setdefault(name.removeprefix("consistency "), []).append(pair)
    found = {}
    for name, pairs in sides.items():
        drawn, truth = (known_mean(np.stack(side, axis=1)) for side in zip(*pairs, strict=True))
        there = np.isfinite(drawn) & np.isfinite(truth)
        if there.any():
            found[name] = Agreement(drawn[there], truth[there], np.flatnonzero(there))
    return found


def both_sides(results: Results, asked: Asked, modality: str, name: str) -> tuple[Array, Array] | None:
    """A measure of what was drawn (the mean over samples) and of the observation by tile [cells], NaN in both where one is unknown."""
    values = [results.values((asked,), modality, one) for one in (name, f"truth {name}")]
    if any(one is None for one in values):
        return None
    drawn, truth = (known_mean(ratio(one.total.sum(2), one.weight.sum(2)), axis=1) for one in values if one is not None)
    both = np.isfinite(drawn) & np.isfinite(truth)
    return np.where(both, drawn, np.nan), np.where(both, truth, np.nan)


@paper()
def consistency(runs: Sequence[Results], group: Group, measures: Sequence[str] | None = None) -> Figure:
    """Do the drawn layers agree with each other as observed ones do? A panel a measure, a dot a tile: drawn (the mean) against observed.

    Dots on the line are as consistent as the observation. Those measures that most tiles have are shown, twelve at most; `measures` names
    others. Raises ValueError where no row has a measure with its truth.
    """
    known = [agreements(run, group) for run in runs]
    counts = {name: sum(len(one[name].drawn) for one in known if name in one) for one in known for name in one}
    names = list(measures) if measures is not None else sorted(sorted(counts), key=lambda name: -counts[name])[:MEASURES]
    names = sorted(name for name in names if name in counts)
    if not names:
        raise ValueError("no row has a measure of consistency beside its observation's; evaluate layers that say something of each other")
    figure, panels = panelled(len(names), 1.9)
    for axes, name in zip(panels, names, strict=True):
        draw_agreement(axes, [one.get(name) for one in known])
        axes.set_title("\n".join(textwrap.wrap(name, 27)), fontsize=6)
    figure.supxlabel("of the observation", fontsize=7)
    figure.supylabel("of what was drawn", fontsize=7)
    named_series(figure, runs)
    return figure


def draw_agreement(axes: Axes, found: Sequence[Agreement | None]) -> None:
    ends = np.concatenate([np.concatenate([one.drawn, one.truth]) for one in found if one])
    low, high = (float(x) for x in np.quantile(ends, [0.01, 0.99]))
    pad = 0.08 * (high - low) or 0.5
    low, high = low - pad, high + pad
    axes.plot([low, high], [low, high], color=RULE, linewidth=0.8, linestyle=DASHED, zorder=1)
    for k, one in enumerate(found):
        if one is not None:
            axes.plot(np.clip(one.truth, low, high), np.clip(one.drawn, low, high), ls="", marker=marker_of(k), ms=2.6, mew=0,
                      color=colour_of(k), alpha=0.6, clip_on=False)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=6)
