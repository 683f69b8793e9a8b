"""Does more knowledge narrow what is generated? Band distributions along a ladder of conditions (the paper's Figures 4, 16-19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from copgen import scores
from copgen.evaluation.kept import Ensemble
from copgen.figures.style import PAGE, PALE, SERIES, TRUTH, blank, paper
from copgen.figures.tiles import SMALL, given_words, quantity, unit, where_and_when
from copgen.modalities import Modality, Table
from copgen.scaling import EightBit

Array = NDArray[np.float64]
BANDS = ("B04", "B11", "B01")                    # of 10, 20 and 60 m
POINTS = 2048                                    # of the grid on which densities are evaluated
BINS = {"ours": 96, "published": 256}
PEAK = 4.0                                       # times the samples' highest density: as far as the vertical axis goes
SHOWN = 0.001                                    # of each source's pixels may lie beyond either end of the axis


@dataclass(frozen=True)
class Source:
    """One band as the samples of a condition have it."""

    samples: Array                               # [m, H, W]
    colour: str                                  # of its generator

    @property
    def spread(self) -> float:
        """The root mean square over pixels of the standard deviation between samples (fair: times (m + 1) / m); NaN for one sample."""
        m = len(self.samples)
        return float(np.sqrt(self.samples.var(0, ddof=1).mean() * (m + 1) / m)) if m > 1 else float("nan")


@paper()
def narrowing(ensembles: Sequence[Ensemble], bands: Sequence[str] = (), *, product: str = "S2L2A", style: str = "ours") -> Figure:
    """A row a condition, least given first, and a column a band: histogram and density of all pixels of all samples, and the truth's.

    ensembles: of one place; several generators of one condition share its row. bands: `customary` where none is named. Truth and
    samples are the same square, pixel by pixel. Beside each row stand the spread between samples at a pixel and the Wasserstein-1
    distance to the truth's pixels, in the band's unit. Densities are Gaussian kernel estimates; the bandwidth, half of Silverman's for
    the truth and the same for all, is printed. style: `published` has the paper's 256 bins, symmetric-logarithmic axis and Scott's
    rule. Raises ValueError for several places and unknown bands.
    """
    check(ensembles)
    table = ensembles[0].observation.table
    ladder = sorted({ensemble.condition.given for ensemble in ensembles}, key=lambda given: (len(given), given))
    bands = bands or customary(table, product)
    places = [located(table, product, band) for band in bands]
    if unseen := [row for row, _ in places if row not in ensembles[0].observation]:
        raise ValueError(f"{ensembles[0].observation.name}: nothing was observed of {unseen[0]}, to which samples are compared; keep the "
                         "samples of an evaluation (--keep) instead")
    colours = dict(zip(dict.fromkeys(ensemble.generator for ensemble in ensembles), SERIES, strict=False))
    figure = blank(PAGE, 0.95 + 0.72 * len(ladder))
    axes = figure.subplots(len(ladder), len(bands), squeeze=False, sharex="col")
    for column, (row, index) in enumerate(places):
        truth = quantity(table[row], ensembles[0].observation[row])[index]
        sources = [[of(ensemble, row, index, colours) for ensemble in ensembles if ensemble.condition.given == given] for given in ladder]
        bins, width = column_of(list(axes[:, column]), truth, sources, table[row], style)
        words = f"{bands[column]} ({table[row].resolution} m), {unit(table[row])}\n{bins} bins, kernel's bandwidth {width:.2g}"
        axes[-1, column].set_xlabel(words, fontsize=7, linespacing=1.3)
    for line, words in enumerate(steps(ladder, table)):
        axes[line, 0].set_ylabel(words, rotation=0, ha="right", va="center", labelpad=6, fontsize=7, linespacing=1.25)
    heading(figure, ensembles, product, colours)
    return figure


def check(ensembles: Sequence[Ensemble]) -> None:
    names = {ensemble.observation.name for ensemble in ensembles}
    if len(names) != 1:
        raise ValueError(f"places {', '.join(sorted(names)) or 'none'}: the narrowing of a distribution is that of one place; choose one")


def customary(table: Table, product: str) -> list[str]:
    """A band of each resolution; of a product that has not all of these, its first three."""
    there = [band for row in table.rows if row.product == product for band in row.bands]
    return list(BANDS) if set(BANDS) <= set(there) else there[:3]


def located(table: Table, product: str, band: str) -> tuple[str, int]:
    """The row that has a product's band, and which of its bands it is; ValueError that names the product's bands."""
    for row in table.rows:
        if row.product == product and band in row.bands:
            return row.name, row.bands.index(band)
    there = [name for row in table.rows if row.product == product for name in row.bands]
    raise ValueError(f"{product} has no band {band!r}; it has {', '.join(there) or 'no rows in this table'}")


def of(ensemble: Ensemble, row: str, index: int, colours: Mapping[str, str]) -> Source:
    layers = [sample[row] for sample in ensemble.samples if row in sample]
    if not layers:
        raise ValueError(f"{ensemble.observation.name} given {ensemble.condition.given_name}: no samples with {row}")
    return Source(np.stack([quantity(ensemble.observation.table[row], layer)[index] for layer in layers]),
                  colours[ensemble.generator])


def column_of(axes: Sequence[Axes], truth: Array, sources: Sequence[Sequence[Source]], row: Modality, style: str) -> tuple[int, float]:
    """One band down the ladder, all on one axis; returns the number of bins and the kernel's bandwidth."""
    everything = [truth.ravel(), *(source.samples.ravel() for line in sources for source in line)]
    low = min(float(np.quantile(values, SHOWN)) for values in everything)
    high = max(float(np.quantile(values, 1 - SHOWN)) for values in everything)
    margin = 0.04 * max(high - low, 1e-6)
    low, high = low - margin, high + margin
    rule = silverman(truth) / 2 if style != "published" else scott(truth)    # several covers are several peaks: the rule is for one
    whole = isinstance(row.scale, EightBit)
    width = max(rule, (high - low) / POINTS * 4, float(whole))
    grid, edges = np.linspace(low, high, POINTS), edges_of(low, high, BINS[style], whole)
    observed = density(truth, grid, width)
    top = 0.0
    for panel, line in zip(axes, sources, strict=True):
        curve(panel, truth, observed, grid, edges, TRUTH)
        for source in line:
            made = density(source.samples, grid, width)
            curve(panel, source.samples, made, grid, edges, source.colour)
            top = max(top, float(made.max()))
        numbers(panel, truth, line, unit(row))
    finish(axes, float(observed.max()), top, style)
    axes[0].set_xlim(low, high)
    return len(edges) - 1, width


def curve(panel: Axes, values: Array, smooth: Array, grid: Array, edges: Array, colour: str) -> None:
    panel.stairs(histogram(values, edges), edges, fill=True, color=colour, alpha=0.22, linewidth=0)
    panel.plot(grid, smooth, color=colour, linewidth=1.1)


def finish(axes: Sequence[Axes], peak: float, top: float, style: str) -> None:
    """One vertical axis for a column; an observed peak too high for it runs out at the top, and it is told how far."""
    cut = style != "published" and peak > 1.5 * PEAK * top
    for panel in axes:
        panel.spines["left"].set_visible(False)
        if style == "published":
            panel.set_yscale("symlog", linthresh=0.01)
        panel.set_ylim(0, PEAK * top if cut else 1.12 * max(peak, top))
        panel.set_yticks([])
        panel.yaxis.set_minor_locator(NullLocator())
    if cut:
        axes[0].set_title(f"observed peak cut, {peak / (PEAK * top):.0f} times as high", fontsize=6, color=PALE, loc="left", pad=3)


def numbers(panel: Axes, truth: Array, line: Sequence[Source], name: str) -> None:
    """The spread of each generator's samples and their distance to the truth: two lines for one generator, one for each of several."""
    digits, between = (3 if name == "reflectance" else 1), ("\n" if len(line) == 1 else ", ")
    for k, source in enumerate(line):
        away = float(scores.wasserstein(truth.ravel(), source.samples.ravel()))
        words = f"spread {source.spread:.{digits}f}{between}$W_1$ {away:.{digits}f}" + ("" if name == "reflectance" else f" {name}")
        panel.text(0.985, 0.97 - 0.19 * k, words, ha="right", va="top", fontsize=SMALL, color=source.colour, transform=panel.transAxes,
                   linespacing=1.2, bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})


def steps(ladder: Sequence[Sequence[str]], table: Table) -> list[str]:
    """What each rung adds to the one before, or all that it has where it isn't more of the same."""
    words, before = [], set[str]()
    for given in ladder:
        more = given_words(table, [row for row in given if row not in before])
        words.append("+ " + "\n+ ".join(more) if before and before < set(given) else "given\n" + "\n".join(given_words(table, given)))
        before = set(given)
    return words


def heading(figure: Figure, ensembles: Sequence[Ensemble], product: str, colours: Mapping[str, str]) -> None:
    counts = sorted({len(ensemble.samples) for ensemble in ensembles})
    place = " · ".join(where_and_when(ensembles[0].observation))
    figure.suptitle(f"{product}, all pixels · {place}", x=0.01, ha="left", fontsize=8, fontweight="bold")
    lines = {"observed": TRUTH, **{f"{name}, {' or '.join(map(str, counts))} samples": colour for name, colour in colours.items()}}
    figure.legend([Line2D([], [], color=colour) for colour in lines.values()], list(lines), ncols=min(len(lines), 4), handlelength=1.4,
                  loc="outside upper right" if len(lines) < 3 else "outside lower center", columnspacing=1.2)


# --- densities ----------------------------------------------------------------------------------------------------------------------

def edges_of(low: float, high: float, most: int, whole: bool) -> Array:
    """Edges of bins from low to high; of whole numbers each bin holds equally many, so that no bin is higher for holding one more."""
    step = (high - low) / most
    if whole:
        low, step = np.rint(low) - 0.5, max(1.0, np.ceil(step))
    return np.asarray(low + step * np.arange(np.ceil((high - low) / step - 1e-9) + 1))


def histogram(values: Array, edges: Array) -> Array:
    """A density over evenly spaced edges of all the values, those beyond the edges counted too."""
    counts, _ = np.histogram(values, edges)
    return counts / (values.size * np.diff(edges))


def silverman(values: Array) -> float:
    """Silverman's rule of thumb for a Gaussian kernel's bandwidth, 0.9 min(std, IQR / 1.34) n^(-1/5) (1986, equation 3.31)."""
    quarter, three = np.quantile(values, (0.25, 0.75))
    scatter = min(float(values.std(ddof=1)), float(three - quarter) / 1.34) or float(values.std(ddof=1))
    return float(0.9 * scatter * values.size**-0.2)


def scott(values: Array) -> float:
    """Scott's rule, std n^(-1/5) (1992, equation 6.42), of which seaborn's and the published figures' densities are made."""
    return float(values.std(ddof=1) * values.size**-0.2)


def density(values: Array, grid: Array, bandwidth: float) -> Array:
    """The Gaussian kernel estimate of a density on an evenly spaced grid: values shared out to bins, then a convolution by FFT.

    Each value is shared between its two neighbouring bins (linear binning; Wand 1994, doi 10.1080/10618600.1994.10474656) of a grid that
    reaches four bandwidths and all values beyond, so that the estimate integrates to one over the line, not over what is shown.
    """
    from scipy.signal import fftconvolve

    step = float(grid[1] - grid[0])
    reach = int(np.ceil(4 * bandwidth / step))
    below = reach + max(0, int(np.ceil((grid[0] - values.min()) / step)))
    above = reach + max(0, int(np.ceil((values.max() - grid[-1]) / step)))
    size = len(grid) + below + above
    at = (values.ravel() - grid[0]) / step + below
    left = np.clip(np.floor(at).astype(np.int64), 0, size - 2)
    share = at - left
    bins = np.bincount(left, 1 - share, size) + np.bincount(left + 1, share, size)
    offsets = np.arange(-reach, reach + 1) * step / bandwidth
    kernel = np.exp(-0.5 * offsets**2)
    smooth = fftconvolve(bins, kernel / kernel.sum(), mode="same") / (values.size * step)
    return np.maximum(smooth[below : below + len(grid)], 0)
