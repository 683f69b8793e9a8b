"""What figures of rows share: which generators and modalities have a panel, and how generators are told apart in all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from copgen.evaluation.arrays import Group, Results, modalities_of
from copgen.figures.style import PAGE, PALE, SERIES, blank
from copgen.modalities import Table
from copgen.pictures import unit_of

Found = TypeVar("Found")
MARKERS = ("o", "^", "s", "D", "v", "P")
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
DASHED = (0, (4, 2))
FOUR = 4                                         # panels in a line at most
SCORED_IN = {"place": "km", "date": "days"}       # of layers: what their table says


def having(
    runs: Sequence[Results], group: Group, modalities: Sequence[str] | None, read: Callable[[Results, str], Found | None],
) -> dict[str, list[Found | None]]:
    """By modality what every generator has, None where one has nothing; ValueError where nobody has anything."""
    there = {name for run in runs for name in run.modalities(group)}
    names = list(modalities) if modalities is not None else [one for one in modalities_of(runs).products if one in there]
    found = {name: [read(run, name) for run in runs] for name in names}
    if kept := {name: ones for name, ones in found.items() if any(one is not None for one in ones)}:
        return kept
    where = "; ".join(f"{one.protocol} given {one.given}" for one in group) or "no condition"
    raise ValueError(f"{where}: no row says what this figure shows of "
                     f"{', '.join(names) or 'any modality'}; choose another condition, or evaluate more samples")


def panelled(count: int, height: float, most: int = FOUR) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of one size, at most four in a line, which are as wide as a page."""
    wide = min(count, most)
    lines = -(-count // wide)
    figure = blank(0.4 + (PAGE - 0.4) * max(wide, 2) / most, 0.5 + height * lines)
    return figure, [figure.add_subplot(lines, wide, k + 1) for k in range(count)]


def side_by_side(count: int) -> float:
    """The width in inches of a figure that has a column a generator."""
    return min(PAGE, 0.6 + 2.2 * max(count, 1))


def named_series(figure: Figure, runs: Sequence[Results]) -> None:
    """The generators' names with their colours and markers, above the panels."""
    handles = [Line2D([], [], color=colour_of(k), marker=marker_of(k), ms=4, mec="white", mew=0.4, label=run.name)
               for k, run in enumerate(runs)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))


def colour_of(k: int) -> str:
    return SERIES[k % len(SERIES)]


def marker_of(k: int) -> str:
    return MARKERS[k % len(MARKERS)]


def nothing(axes: Axes) -> None:
    """A panel of a generator that has no such rows."""
    axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", va="center", color=PALE, fontsize=6)


def labelled(name: str, table: Table) -> str:
    """A product with the unit of its errors, if it has one."""
    of_layers = (unit_of(row) for row in table.rows if row.product == name and row.is_image and not row.legend)
    unit = SCORED_IN.get(name) or next(of_layers, None)
    return f"{name} ({unit})" if unit else name
