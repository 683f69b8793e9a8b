"""Can the samples be trusted as probabilities? Ranks of the truth, coverage, reliability of classes, spread against skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter
from numpy.typing import NDArray

from copgen.evaluation import measures
from copgen.evaluation.arrays import Array, Group, Results, Values, modalities_of, ratio
from copgen.figures.panels import DASHED, LABEL, colour_of, having, labelled, marker_of, named_series, nothing, panelled, side_by_side
from copgen.figures.style import BLACK, RULE, blank, paper
from copgen.scores import calibration_error, perfect_reliability
from copgen.scores.calibration import LEVELS, RankTest, contrasts, coverage, rank_test

BAND = "#DCDCDC"                                 # where a perfect ensemble lies, 95 times in 100
TOP = 4.0                                        # times what a perfect ensemble gives: higher bars are cut, with their height
SURE = 0.95


@dataclass(frozen=True)
class Ranks:
    """How often the truth has each rank 0..m among m samples: shares [cells, m + 1] of the cells that have any."""

    shares: Array
    weight: Array                                # [cells]: pixels, or tiles
    cells: NDArray[np.int64]                     # their numbers among all

    @property
    def members(self) -> int:
        return self.shares.shape[1] - 1

    @property
    def share(self) -> Array:
        """Over all cells, [m + 1]."""
        return self.weight @ self.shares / self.weight.sum()

    @property
    def variance(self) -> Array:
        """The variance that every rank's share has because tiles differ, [m + 1]; NaN of a single tile.

        Rank k and rank m - k are alike in a perfect ensemble, so that they are taken together.
        """
        found = self.variance_of(self.shares)
        return (found + found[::-1]) / 2

    def variance_of(self, by_tile: Array) -> Array:
        """Of the weighted mean of numbers [tiles, ...]: tiles are independent, their pixels are not."""
        tiles, weight = len(by_tile), self.weight / self.weight.sum()
        return np.tensordot(weight**2, (by_tile - weight @ by_tile) ** 2, axes=1) * (tiles / (tiles - 1) if tiles > 1 else np.nan)

    def independent(self, share: float, variance: Array) -> Array:
        """For how many independent cases shares of this expectation stand: as many tiles at least, as many pixels at most.

        As many as would give it the variance that it has because tiles differ (Kish 1965, the design effect).
        """
        least = float(self.weight.sum() ** 2 / (self.weight**2).sum())
        found = share * (1 - share) / np.maximum(np.nan_to_num(variance, nan=1.0), 1e-12)
        return np.clip(found, least, max(float(self.weight.sum()), least))

    @property
    def perfect(self) -> Array:
        """Where the share of every rank lies in a perfect ensemble, 95 times in 100: low and high, [2, m + 1]."""
        share = 1 / (self.members + 1)
        return np.array([perfect_range(share, cases) for cases in self.independent(share, self.variance).tolist()]).T

    def held(self, cuts: Sequence[int]) -> Array:
        """The share of truths in the ranges that leave out so many ranks at either end, by tile [tiles, ranges]."""
        return np.stack([self.shares[:, cut:self.members + 1 - cut].sum(1) for cut in cuts], axis=1)

    def test(self) -> RankTest:
        """Slope and convexity of the ranks as Student's t over tiles: neighbouring pixels would make anything certain."""
        from scipy.stats import t

        found, share = contrasts(self.members + 1), 1 / (self.members + 1)
        cases = float(self.independent(share, self.variance).mean())
        with np.errstate(invalid="ignore", divide="ignore"):
            z = found @ self.share / np.sqrt(self.variance_of(self.shares @ found.T))
        p = np.nan_to_num(2 * t.sf(np.abs(z), max(len(self.shares) - 1, 1)), nan=1.0)
        whole = rank_test(self.share, cases)
        return replace(whole, slope=float(z[0]), slope_p=float(p[0]), convexity=float(z[1]), convexity_p=float(p[1]))


def ranks_of(results: Results, group: Group, modality: str, tile: bool = False) -> Ranks | None:
    """The ranks of a modality, all bands together, by pixels or by tiles (of whose mean one number is made); None where there are none.

    Where ensembles have different sizes, those of the size that most pixels have.
    """
    found = sized(results.family(group, modality, "tile rank" if tile else "rank"))
    if not found:
        return None
    m = next(iter(found))[-1]
    total = np.stack([found[k, m].total.sum((1, 2)) if (k, m) in found else np.zeros(len(results.cells)) for k in range(m + 1)], axis=1)
    weight = total.sum(1)
    there = weight > 0
    return Ranks(total[there] / weight[there, None], weight[there], np.flatnonzero(there)) if there.any() else None


def sized(found: Mapping[tuple[int, ...], Values]) -> dict[tuple[int, ...], Values]:
    """Only what is of the size of ensemble (the last of its numbers) that weighs most."""
    sizes: dict[int, float] = {}
    for key, values in found.items():
        sizes[key[-1]] = sizes.get(key[-1], 0.0) + float(values.weight.sum())
    most = max(sizes, key=lambda size: sizes[size], default=0)
    return {key: values for key, values in found.items() if key[-1] == most}


def perfect_range(share: float, independent: float, level: float = SURE) -> tuple[float, float]:
    """The central range of a share that is seen `independent` times, by the binomial distribution, as shares."""
    from scipy.stats import binom

    cases = max(round(independent), 1)
    low, high = binom.ppf([(1 - level) / 2, (1 + level) / 2], cases, share) / cases
    return float(low), float(high)


# --- rank histograms ----------------------------------------------------------------------------------------------------------------

@paper()
def rank_histograms(runs: Sequence[Results], group: Group, modalities: Sequence[str] | None = None, tile: bool = False) -> Figure:
    """How often the truth has each rank among the samples: a line a modality, a column a generator (Hamill 2001).

    Bars are relative to a perfect ensemble's, which all are 1; grey is where 95 % of them would lie, for as many independent cases as the
    tiles are worth. A U is an ensemble too narrow, a dome too wide, a slope one that lies too high or too low.
    """
    shown = having(runs, group, modalities, lambda run, name: ranks_of(run, group, name, tile))
    figure = blank(side_by_side(len(runs)), 0.55 + 0.95 * len(shown))
    grid = figure.subplots(len(shown), len(runs), squeeze=False, sharey=True)
    for line, (name, found) in zip(grid, shown.items(), strict=True):
        for k, (axes, run, ranks) in enumerate(zip(line, runs, found, strict=True)):
            draw_ranks(axes, ranks, colour_of(k))
            if name == next(iter(shown)):
                axes.set_title(run.name)
        line[0].set_ylabel(name)
    what = "means of tiles" if tile else "pixels"
    figure.supxlabel(f"rank of the truth among the samples ({what}); 1: as often as in a perfect ensemble", fontsize=7)
    return figure


def draw_ranks(axes: Axes, ranks: Ranks | None, colour: str) -> None:
    axes.set(ylim=(0, TOP), yticks=[0, 1, 2, 3, 4])
    if ranks is None:
        return nothing(axes)
    m = ranks.members
    height = ranks.share * (m + 1)
    low, high = ranks.perfect * (m + 1)
    axes.fill_between(np.arange(-1, m + 2), np.pad(low, 1, "edge"), np.pad(high, 1, "edge"), step="mid", color=BAND, zorder=0, linewidth=0)
    axes.bar(np.arange(m + 1), np.minimum(height, TOP), 0.9, color=colour, alpha=0.85)
    axes.axhline(1, color=BLACK, linewidth=0.6, linestyle=DASHED)
    for k in np.flatnonzero(height > TOP).tolist():
        side = 1 if k < m / 2 else -1
        axes.text(k + 0.7 * side, TOP * 0.98, f"{height[k]:.1f}", ha="left" if side > 0 else "right", va="top", fontsize=6)
    axes.set(xlim=(-0.7, m + 0.7), xticks=[0, m])
    axes.text(0.5, 0.95, ", ".join(ranks.test().faults()) or "no fault seen", transform=axes.transAxes, ha="center", va="top", fontsize=6,
              bbox=LABEL)


# --- coverage -----------------------------------------------------------------------------------------------------------------------

@paper()
def coverages(runs: Sequence[Results], group: Group, modalities: Sequence[str] | None = None, tile: bool = False) -> Figure:
    """How often central ranges of the samples hold the truth, against how often a perfect ensemble of as many would: a panel a modality.

    Every range that ranks allow is a point of the line; those next to 50, 80, 90 and 95 % are marked. Below the diagonal the ensemble is
    too narrow, above it too wide. Grey is where a perfect ensemble would lie 95 times in 100, by the generator whose tiles differ most.
    """
    shown = having(runs, group, modalities, lambda run, name: ranks_of(run, group, name, tile))
    figure, panels = panelled(len(shown), 1.75)
    for axes, (name, found) in zip(panels, shown.items(), strict=True):
        wide = [draw_coverage(axes, ranks, k) for k, ranks in enumerate(found) if ranks is not None]
        if len({ideal.size for ideal, _ in wide}) == 1:
            bands = np.array([band for _, band in wide])
            axes.fill_between(wide[0][0], bands[:, 0].min(0), bands[:, 1].max(0), color=BAND, linewidth=0, zorder=0)
        axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.6, linestyle=DASHED)
        axes.set(title=name, xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
    figure.supxlabel("share of truths that a perfect ensemble holds", fontsize=7)
    figure.supylabel("share held", fontsize=7)
    named_series(figure, runs)
    return figure


def draw_coverage(axes: Axes, ranks: Ranks, k: int) -> tuple[Array, Array]:
    """The line of one generator; returns what a perfect ensemble holds, and the range about it."""
    m, colour = ranks.members, colour_of(k)
    cuts = list(range(max(m // 2, 1), 0, -1))
    ideal = np.array([(m + 1 - 2 * cut) / (m + 1) for cut in cuts])
    held, variance = ranks.held(cuts), ranks.variance_of(ranks.held(cuts))
    band = [perfect_range(float(one), float(ranks.independent(float(one), var))) for one, var in zip(ideal, variance, strict=True)]
    axes.plot(ideal, ranks.weight @ held / ranks.weight.sum(), color=colour, zorder=3)
    marked = [coverage(ranks.share, level) for level in LEVELS]
    axes.plot([one for _, one in marked], [float(share) for share, _ in marked], ls="", marker=marker_of(k), ms=4, color=colour,
              mec="white", mew=0.4, zorder=4)
    return ideal, np.array(band).T


# --- reliability --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Reliability:
    """Of the pixels where k of m samples say a class: how many there are, and how many have it, [classes, m + 1] each."""

    cases: Array
    hits: Array

    @property
    def chance(self) -> Array:
        """k / m, [m + 1]."""
        m = self.cases.shape[1] - 1
        return np.arange(m + 1) / m

    @property
    def share(self) -> Array:
        """Of all pairs of a pixel and a class, [m + 1]."""
        return self.cases.sum(0) / self.cases.sum()

    @property
    def observed(self) -> Array:
        """Classes together, [m + 1]; NaN where no pixel is."""
        return ratio(self.hits.sum(0), self.cases.sum(0))

    @property
    def error(self) -> float:
        """The expected calibration error, as tables have it."""
        return float(calibration_error(self.cases, self.hits))

    @property
    def perfect(self) -> Reliability:
        """What is seen where each sample in turn is the truth of the others: of m - 1 samples."""
        return Reliability(*perfect_reliability(self.cases))


def reliability_of(results: Results, group: Group, modality: str) -> Reliability | None:
    """From the counts of all cells; of ensembles of different sizes those that most pixels have."""
    table = measures.reliability(results, group, modality)
    return None if table is None else Reliability(*table.sum((0, 1)))


@paper()
def reliability(runs: Sequence[Results], group: Group, modalities: Sequence[str] | None = None) -> Figure:
    """Of the pixels to which the samples give a class with some probability, how many have it: a line a class layer, a column a generator.

    The diagonal is a forecast to be taken at its word; the grey line what is seen where each sample in turn is the truth of the others.
    Below, how often each probability is given (logarithmic): a sharp generator says 0 or 1. In the corner the expected calibration error.
    """
    shown = having(runs, group, modalities, lambda run, name: reliability_of(run, group, name))
    figure = blank(side_by_side(len(runs)), 0.5 + 2.1 * len(shown))
    heights = [1.0, 0.35] * len(shown)
    grid = figure.subplots(2 * len(shown), len(runs), squeeze=False, sharex=True, sharey="row", height_ratios=heights)
    for j, (name, found) in enumerate(shown.items()):
        for k, (run, one) in enumerate(zip(runs, found, strict=True)):
            upper, lower = grid[2 * j][k], grid[2 * j + 1][k]
            draw_reliability(upper, lower, one, k)
            if j == 0:
                upper.set_title(run.name)
        grid[2 * j][0].set_ylabel(f"{name}: observed")
        grid[2 * j + 1][0].set_ylabel("said")
    figure.supxlabel("share of the samples that say the class", fontsize=7)
    return figure


def draw_reliability(upper: Axes, lower: Axes, one: Reliability | None, k: int) -> None:
    upper.plot([0, 1], [0, 1], color=BLACK, linewidth=0.6, linestyle=DASHED)
    upper.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), yticks=[0, 0.5, 1])
    lower.set(yscale="log", ylim=(1e-5, 1.5), yticks=[1e-4, 1e-2, 1], xticks=[0, 0.5, 1])
    if one is None:
        return nothing(upper)
    colour = colour_of(k)
    if len(one.chance) > 2:
        upper.plot(one.perfect.chance, one.perfect.observed, color=RULE, linewidth=2.5, zorder=1)
    upper.plot(one.chance, one.observed, color=colour, marker=marker_of(k), ms=3.5, mec="white", mew=0.3)
    upper.text(0.03, 0.95, f"ECE {one.error:.3f}", transform=upper.transAxes, va="top", fontsize=6, color=BLACK)
    lower.bar(one.chance, one.share, 0.8 / max(len(one.chance) - 1, 1), color=colour, bottom=1e-6)


# --- spread against skill -----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Spreads:
    """A tile each: the spread of the samples and the error of their mean, as standard deviations (roots of means over pixels and bands)."""

    spread: Array                                # [tiles]
    skill: Array

    @property
    def ratio(self) -> float:
        """Of all tiles: 1 in expectation for a perfect ensemble (Fortin et al. 2014); NaN where there is no error."""
        error = float((self.skill**2).mean())
        return float(np.sqrt((self.spread**2).mean() / error)) if error > 0 else np.nan

    def binned(self, bins: int = 6) -> tuple[Array, Array]:
        """Root mean squares in at most so many bins of as many tiles each, three at least, by spread."""
        groups = np.array_split(np.argsort(self.spread, kind="stable"), max(min(bins, len(self.spread) // 3), 1))
        return tuple(np.array([np.sqrt((one[part] ** 2).mean()) for part in groups]) for one in (self.spread, self.skill)) # type: ignore[return-value]


def spreads_of(results: Results, group: Group, modality: str, tile: bool = False) -> Spreads | None:
    before = "tile " if tile else ""
    spread, skill = (results.values(group, modality, before + one) for one in ("spread", "skill"))
    if spread is None or skill is None:
        return None
    both = [ratio(one.total.sum((1, 2)), one.weight.sum((1, 2))) for one in (spread, skill)]
    there = np.isfinite(both[0]) & np.isfinite(both[1])
    return Spreads(*(np.sqrt(one[there]) for one in both)) if there.any() else None


@paper()
def spread_against_skill(runs: Sequence[Results], group: Group, modalities: Sequence[str] | None = None, tile: bool = False) -> Figure:
    """Does the ensemble know how wrong it is? A dot a tile, larger ones the means of tiles of similar spread; a panel a modality.

    On the line the spread of the samples is the error of their mean, as in a perfect ensemble. Above it the ensemble is too sure of
    itself, below it not sure enough; a cloud along the line knows which tiles are hard. Tiles without any spread stand at the left edge.
    """
    shown = having(runs, group, modalities, lambda run, name: spreads_of(run, group, name, tile))
    figure, panels = panelled(len(shown), 1.95)
    for axes, (name, found) in zip(panels, shown.items(), strict=True):
        draw_spreads(axes, found)
        axes.set_title(labelled(name, modalities_of(runs)))
    figure.supxlabel(f"spread of the samples{' (means of tiles)' if tile else ''}", fontsize=7)
    figure.supylabel("error of their mean", fontsize=7)
    named_series(figure, runs)
    return figure


def draw_spreads(axes: Axes, found: Sequence[Spreads | None]) -> None:
    known = np.concatenate([np.concatenate([one.spread, one.skill]) for one in found if one])
    positive = known[known > 0]
    low, high = (positive.min() / 1.3, positive.max() * 1.3) if positive.size else (0.1, 1.0)
    low = max(low, high / 300)
    for k, one in enumerate(found):
        if one is None:
            continue
        colour, marker = colour_of(k), marker_of(k)
        axes.plot(np.maximum(one.spread, low), np.maximum(one.skill, low), ls="", marker=marker, ms=2, mew=0, color=colour, alpha=0.45,
                  clip_on=False)
        axes.plot(*(np.maximum(part, low) for part in one.binned()), marker=marker, ms=5, mec="white", mew=0.5, color=colour, linewidth=0.8,
                  clip_on=False)
        words = f"ratio {one.ratio:.2f}" if np.isfinite(one.ratio) else "no error"
        axes.text(0.97, 0.04 + 0.09 * (len(found) - 1 - k), words, transform=axes.transAxes, ha="right", fontsize=6, color=colour)
    axes.plot([low, high], [low, high], color=BLACK, linewidth=0.6, linestyle=DASHED)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    ticks = [step * 10.0**power for power in range(-6, 7) for step in ((1, 2, 5) if high < 30 * low else (1,))]
    shown = [tick for tick in ticks if low <= tick <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(shown))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
