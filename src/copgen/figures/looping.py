"""What becomes of an image in a loop of generations, and how fast does it drift? (COP-GEN-Beta's Figure 5, with numbers)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from copgen.figures.style import BLACK, BLUE, PAGE, PALE, VERMILION, look, paper
from copgen.figures.tiles import EDGE, SMALL, Page, caption, reading, row_title, scale_and_north, where_and_when
from copgen.loop import Round, curve
from copgen.modalities import Modality, Table
from copgen.scene import Scene

LABEL, GAP, TOP, PANEL, BESIDE = 0.16, 0.05, 0.55, 1.0, 0.42    # inches: a chain's name, between pictures, title, curves, their numbers
STATISTICS = (("mae", "mean absolute\ndifference"), ("mean", "shift of\nthe mean"), ("std", "change of\nthe std"),
              ("slope", "change of\nspectral slope"))
LINES = (("start", BLACK, "-", "against the start"), ("previous", BLUE, "--", "against the round before"),
         ("chains", VERMILION, ":", "between chains"))
LARGEST = 1.05                                                 # inches of a picture


@paper()
def looping(rounds: Sequence[Round], start: Scene, *, chains: int = 3, style: str = "ours") -> Figure:
    """The start at the left, then each generation in turn, a line a chain; below it the drift of each product over the rounds.

    chains: how many are drawn at most; the curves are the mean over all of them and their bands, with the chains' range. A dotted line is
    how much chains differ from one another in the same round: drift against the start is more than chance only above it. Raises
    ValueError for no rounds.
    """
    if not rounds:
        raise ValueError("a loop of no rounds has nothing to show; run at least one")
    table, chosen = start.table, list(rounds[0].scenes)[:chains]
    products = list(dict.fromkeys(table[row].product for row in order(rounds)))
    rows = [first_row(table, product, rounds[0]) for product in products]
    columns = 1 + len(rounds) * len(rows)
    side = min(LARGEST, (PAGE - LABEL - 2 * EDGE - GAP * (columns - 1)) / columns)
    measures = [one for one in STATISTICS if any(np.isfinite(curve(rounds, product, "start", one[0])[0]).any() for product in products)]
    below = TOP + len(chosen) * (side + GAP) + 0.12 * len(rows) + 0.2
    page = Page.of(PAGE, below + len(products) * (PANEL + 0.32) + 0.5)
    heading(page, rounds, start, products)
    strips(page, rounds, start, rows, chosen, side, style)
    curves(page, rounds, products, measures, below)
    return page.figure


def order(rounds: Sequence[Round]) -> list[str]:
    """The rows of a loop as they were generated."""
    return list(next(iter(rounds[0].scenes.values())).layers)


def first_row(table: Table, product: str, one: Round) -> Modality:
    """The row of a product that is drawn: the one with a natural composite, or its first."""
    rows = [table[name] for name in next(iter(one.scenes.values())).layers if table[name].product == product]
    return next((row for row in rows if row.rgb), rows[0])


def heading(page: Page, rounds: Sequence[Round], start: Scene, products: Sequence[str]) -> None:
    notes = next(iter(rounds[0].scenes.values())).notes
    kept = [row for row in notes.get("given", ()) if row not in order(rounds)]
    words = f"Loop through {' and '.join(products)}, {len(rounds)} rounds · {notes.get('model', 'a generator')}"
    page.text(EDGE, 0.05, words + (f", {', '.join(kept)} kept" if kept else ""), 8, weight="bold")
    page.text(PAGE - EDGE, 0.06, " · ".join(where_and_when(start)), SMALL, PALE, ha="right")


def strips(page: Page, rounds: Sequence[Round], start: Scene, rows: Sequence[Modality], chains: Sequence[int], side: float,
           style: str) -> None:
    """The pictures: what was observed in the first column, then a column a generation; one stretch for all of a row."""
    chosen, lefts = look(style), [EDGE + LABEL + (1 + k) * (side + GAP) for k in range(len(rounds) * len(rows))]
    for k, row in enumerate(rows):
        observed = [start[row.name]] if row.name in start else []
        made = [one.scenes[chain][row.name] for chain in chains for one in rounds]
        pictures = chosen.pictures(row, [*observed, *made]) if row.is_image else []
        for at, colours in enumerate(pictures[len(observed):]):
            x = lefts[at % len(rounds) * len(rows) + k]
            page.picture(x, TOP + at // len(rounds) * (side + GAP), side, colours, chosen.frames["sample"])
        for number in range(len(rounds)):
            words = f"{row.product}\nround {number + 1}"
            page.text(lefts[number * len(rows) + k] + side / 2, TOP - 0.03, words, 6, ha="center", va="bottom", linespacing=1.2)
        words = f"{row_title(row)}: {reading(chosen, row)}" + ("; the observed one is not given" if observed and row != rows[-1] else "")
        page.text(EDGE, TOP + len(chains) * (side + GAP) + 0.02 + 0.12 * k, words, 6, PALE)
        line = (k + 1) % len(rows)                                                             # the start is the last row's
        if observed and pictures and line < len(chains):
            axes = page.picture(EDGE, TOP + line * (side + GAP), side, pictures[0], chosen.frames["truth"])
            caption(axes, row.product, side)
            if line == 0:
                scale_and_north(axes, start.table.footprint, side)
    page.text(EDGE + side / 2, TOP - 0.03, "observed", 6, ha="center", va="bottom")
    for line, chain in enumerate(chains):
        page.text(lefts[0] - 0.06, TOP + line * (side + GAP) + side / 2, f"seed {chain}", 6.5, ha="right", va="center", rotation=90)


def curves(page: Page, rounds: Sequence[Round], products: Sequence[str], measures: Sequence[tuple[str, str]], y: float) -> None:
    """A line of panels a product: how far from the start, from the round before, and between chains."""
    name = 0.5
    width = (PAGE - 2 * EDGE - name) / max(len(measures), 1) - BESIDE
    panels: list[Axes] = []
    for line, product in enumerate(products):
        top = y + 0.38 + line * (PANEL + 0.32)
        page.text(EDGE, top, product, 7.5, weight="bold")
        for k, (statistic, words) in enumerate(measures):
            left = EDGE + name + BESIDE + k * (width + BESIDE)
            axes = page.axes(left, top, width, PANEL - 0.1)
            panel(axes, rounds, product, statistic)
            panels.append(axes)
            if line == 0:
                page.text(left, top - 0.17, words, 7, va="bottom", linespacing=1.2)
            if line == len(products) - 1:
                axes.set_xlabel("round", fontsize=7, labelpad=1)
    handles = {str(line.get_label()): line for axes in panels for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
    if handles:
        page.figure.legend(list(handles.values()), list(handles), loc="lower center", ncols=len(LINES), bbox_to_anchor=(0.5, 0.0),
                           handlelength=2.2)


def panel(axes: Axes, rounds: Sequence[Round], product: str, statistic: str) -> None:
    at, unit = [one.number for one in rounds], ""
    for against, colour, dashes, words in LINES:
        values, found = curve(rounds, product, against, statistic)
        if against == "chains" and statistic != "mae":                       # a signed difference between chains is 0 on average
            continue
        there = np.isfinite(values).any(1)
        if there.any():
            unit, some, x = found, values[there], np.asarray(at)[there]
            axes.fill_between(x, some.min(1), some.max(1), color=colour, alpha=0.12, linewidth=0)
            axes.plot(x, some.mean(1), dashes, color=colour, marker="o", markersize=2.5, label=words)
    if statistic == "mae":
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(0, color=PALE, linewidth=0.5)
    axes.set_xlim(min(at) - 0.3, max(at) + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.tick_params(labelsize=6.5)
    axes.set_title(unit, fontsize=6, color=PALE, loc="left", pad=2)
