"""Where is a generator sure, and is it right there? Per-pixel mean, spread and entropy of samples beside truth and error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from copgen.drawing import Picture
from copgen.evaluation.kept import Ensemble
from copgen.figures.style import PAGE, PALE, look, paper
from copgen.figures.tiles import (
    EDGE,
    SMALL,
    Page,
    asked_of,
    class_key,
    codes_in,
    key_height,
    missing,
    quantity,
    reading,
    row_title,
    scale_and_north,
    unit,
    where_and_when,
)
from copgen.modalities import Modality
from copgen.pictures import round_up
from copgen.scaling import Decibel, EightBit, Linear
from copgen.scores.classes import entropy, mode

Map = NDArray[np.float64]
COLUMNS, LABEL, BAR, GAP, TOP = 5, 0.85, 0.55, 0.06, 0.62       # truth, one sample, mean, spread, error; inches
SIDE = (PAGE - LABEL - BAR - 2 * EDGE - GAP * (COLUMNS - 1)) / COLUMNS
LINE = SIDE + 0.12
KINDS = ("S2L2A", "S1RTC", "DEM", "LULC", "cloud_mask")
COLOURS = "magma"                                # from certain to uncertain; its order is seen with any colour vision, and in grey


@dataclass(frozen=True)
class Moments:
    """What the samples of one row say at each pixel."""

    middle: NDArray[Any]                         # a layer [bands, H, W] in its physical unit: their mean, or their commonest class
    spread: Map                                  # [H, W]: standard deviation, or entropy in bits
    error: Map | None                            # [H, W]: of the middle against the truth, or the share of samples that are wrong
    names: tuple[str, str]                       # of spread and error, with their units
    tops: tuple[float, float]                    # where their colours end


def moments_of(row: Modality, layers: Sequence[NDArray[Any]], truth: NDArray[Any] | None) -> Moments:
    """Per-pixel moments of layers [bands, H, W] of one row, and how far from the truth they are.

    Continuous rows: the mean (of decibels for radar) over samples; the standard deviation (ddof 1) and the absolute error of the mean, both
    the root mean square over the row's bands, in one scale, so that a calibrated spread looks as large as the error. Classes: the
    commonest, the entropy of their shares in bits, and the share of samples whose class is not the truth's.
    """
    if row.legend:
        return class_moments(row, layers, truth)
    values = np.stack([quantity(row, layer) for layer in layers])                          # [m, bands, H, W]
    spread = np.sqrt(values.var(0, ddof=1).mean(0)) if len(values) > 1 else np.zeros(values.shape[-2:])
    mean = values.mean(0)
    error = np.sqrt(((mean - quantity(row, truth)) ** 2).mean(0)) if truth is not None else None
    top = round_up(max(float(np.quantile(one, 0.99)) for one in (spread, *([] if error is None else [error]))))
    return Moments(physical(row, mean), spread, error, (unit(row), unit(row)), (top, top))


def class_moments(row: Modality, layers: Sequence[NDArray[Any]], truth: NDArray[Any] | None) -> Moments:
    legend = row.legend
    assert legend is not None
    stack = np.stack(layers)[:, 0]
    wrong = (stack != truth[0]).mean(0) if truth is not None else None
    most = float(np.log2(min(len(stack), legend.classes)))                                 # no more than that many samples can say
    commonest = mode(stack).astype(np.uint8)[None]
    return Moments(commonest, entropy(stack), wrong, ("bits", "share"), (max(most, 1.0), 1.0))


def physical(row: Modality, values: Map) -> NDArray[Any]:
    """What `quantity` read, back in the row's physical unit."""
    match row.scale:
        case Linear() as linear:
            return (values * linear.full_scale).astype(np.float32)
        case Decibel():
            return (10 ** (values / 10)).astype(np.float32)
        case EightBit():
            return np.rint(values).astype(np.uint8)
        case _:
            return values.astype(np.float32)


@paper()
def moments(ensemble: Ensemble, rows: Sequence[str] | None = None, *, style: str = "ours") -> Figure:
    """A line a generated row: the observation, one sample, the samples' mean, their spread, and the error of the mean.

    rows: of those that were drawn; None: the first row of Sentinel-2 at the surface, of radar, heights and classes. Spread and error
    of a row share one colour bar where they share a unit. Raises ValueError where there are no samples of a row.
    """
    truth, table = ensemble.observation, ensemble.observation.table
    drawn = {row for sample in ensemble.samples for row in sample.layers}
    chosen = table.select(rows) if rows is not None else tuple(row for row in customary(ensemble) if row in drawn)
    if not chosen or (missed := [row for row in chosen if row not in drawn]):
        raise ValueError(f"{truth.name}: no samples of {', '.join(missed) if chosen else 'any layer with a grid'}; "
                         f"there are {', '.join(sorted(drawn)) or 'none'}")
    legends = [row for row in chosen if table[row].legend]
    words = {reading(look(style), table[row]): row for row in chosen if not table[row].legend}
    scenes = [truth, *ensemble.samples]
    keys = sum(key_height(codes_in(scenes, row)) + 0.04 for row in legends)
    page = Page.of(PAGE, TOP + LINE * len(chosen) + 0.1 + 0.12 * len(words) + keys)
    heading(page, ensemble, chosen)
    for k, row in enumerate(chosen):
        line(page, ensemble, row, style, TOP + k * LINE, ruler=k == 0)
    y = TOP + LINE * len(chosen)
    for text, row in words.items():
        page.text(EDGE, y, f"{row_title(table[row])}: {text}", 6, PALE)
        y += 0.12
    for row in legends:
        y = class_key(page, EDGE, y + 0.04, table[row].legend, codes_in(scenes, row))
    return page.figure


def customary(ensemble: Ensemble) -> list[str]:
    """One row a kind, its product's first: optical at the surface, radar, heights, land cover, clouds."""
    rows = ensemble.observation.table.rows
    firsts = (next((row.name for row in rows if row.product == product), None) for product in KINDS)
    return [name for name in firsts if name]


def heading(page: Page, ensemble: Ensemble, rows: Sequence[str]) -> None:
    title, table = f"{len(ensemble.samples)} samples", ensemble.observation.table
    page.text(EDGE, 0.05, asked_of(title, ensemble), 8, weight="bold")
    page.text(PAGE - EDGE, 0.06, " · ".join(where_and_when(ensemble.observation)), SMALL, PALE, ha="right")
    drawn = any(table[row].legend for row in rows)
    titles = (("observed", ""), ("one sample", ""), ("mean", "commonest class"), ("standard deviation", "entropy"),
              ("error of the mean", "share wrong"))
    for k, (words, more) in enumerate(titles):
        x = EDGE + LABEL + k * (SIDE + GAP) + SIDE / 2
        page.text(x, TOP - 0.14, words, 7, ha="center", va="bottom")
        page.text(x, TOP - 0.03, f"classes: {more}" if more and drawn else "", 6, PALE, ha="center", va="bottom")


def line(page: Page, ensemble: Ensemble, row: str, style: str, y: float, ruler: bool) -> None:
    """Five pictures of one row with the colour bar of the last two."""
    truth, modality, chosen = ensemble.observation, ensemble.observation.table[row], look(style)
    layers = [sample[row] for sample in ensemble.samples if row in sample]
    found = moments_of(modality, layers, truth.layers.get(row))
    shown = [*([truth[row]] if row in truth else []), layers[0], found.middle]
    pictures: list[Picture | None] = list(chosen.pictures(modality, shown))
    if row not in truth:
        pictures.insert(0, None)
    page.text(EDGE, y, row_title(modality), 8, weight="bold")
    page.text(EDGE, y + 0.17, "\n".join(bands_of(modality)), SMALL, PALE, linespacing=1.3)
    for k, colours in enumerate(pictures):
        x = EDGE + LABEL + k * (SIDE + GAP)
        if colours is None:
            missing(page, x, y, SIDE)
            continue
        axes = page.picture(x, y, SIDE, colours, chosen.frames["truth" if k == 0 else "sample"])
        if ruler and k == 0:
            scale_and_north(axes, truth.table.footprint, SIDE)
    maps(page, found, EDGE + LABEL + 3 * (SIDE + GAP), y)


def bands_of(modality: Modality) -> list[str]:
    """The bands over which the root mean square is taken, two a line."""
    bands = [band.upper() for band in modality.bands]
    return ["rms of bands", *(", ".join(bands[k : k + 2]) for k in range(0, len(bands), 2))] if len(bands) > 1 else []


def maps(page: Page, found: Moments, x: float, y: float) -> None:
    """Spread and error in colours; a bar for both, or one under another where they have different units."""
    drawn = []
    for values, top in zip((found.spread, found.error), found.tops, strict=True):
        if values is None:
            missing(page, x, y, SIDE)
        else:
            drawn.append(page.picture(x, y, SIDE, values, None, cmap=COLOURS, vmin=0, vmax=top).images[0])
        x += SIDE + GAP
    same = found.names[0] == found.names[1]
    heights = [SIDE - 0.06] if same or len(drawn) < 2 else [(SIDE - 0.28) / 2] * 2
    for k, (image, height, name) in enumerate(zip(drawn, heights, found.names, strict=False)):
        bar = page.axes(x + 0.01, y + 0.03 + k * (height + 0.22), 0.07, height)
        page.figure.colorbar(image, cax=bar, ticks=[0, found.tops[k] / 2, found.tops[k]], format="{x:.3g}")
        bar.tick_params(labelsize=6, pad=1.5, length=1.5)
        bar.spines["outline"].set_linewidth(0.4)
        page.text(x + 0.39, y + 0.03 + k * (height + 0.22) + height / 2, name, 6, rotation=90, ha="left", va="center")
