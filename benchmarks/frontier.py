"""The frontier as a picture: seconds of a sample against its error, a line a way of computing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.ticker import FixedLocator, NullLocator

from copgen.figures.style import PALE, SERIES, blank, paper, rendered
from copgen.files import write_whole


@dataclass(frozen=True)
class Point:
    seconds: float
    error: float
    calls: int
    said: str = ""                               # the quality that it is


@paper()
def draw(lines: Mapping[str, Sequence[Point]], title: str, path: Path, goal: tuple[float, float]) -> Path:
    """Write the picture: both axes logarithmic, calls beside the points, the goal's seconds and error as lines."""
    figure = blank(7.0, 4.0)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", title=title, xlabel="seconds a sample, encoding and decoding included",
             ylabel="distance from the converged latents (nano)")
    axes.margins(y=0.12)
    seconds, error = goal
    axes.axvline(seconds, color=PALE, linewidth=0.6, linestyle="--")
    axes.axhline(error, color=PALE, linewidth=0.6, linestyle="--")
    axes.annotate(f"goal: under {seconds:g} s, with no larger an error than the published calls", (seconds, 1), ha="right", va="top",
                  xycoords=("data", "axes fraction"), xytext=(-4, -2), textcoords="offset points", color=PALE, fontsize=7)
    for (name, points), colour in zip(lines.items(), SERIES, strict=False):
        lonely = len(points) == 1
        axes.plot([point.seconds for point in points], [point.error for point in points], marker="D" if lonely else "o", markersize=4,
                  linestyle="none" if lonely else "-", color=colour, label=name)
        for point in points:
            axes.annotate(f"{point.calls} {point.said}".strip(), (point.seconds, point.error), xytext=(4, 4), textcoords="offset points",
                          fontsize=6, color=colour)
    for axis, ticks in ((axes.xaxis, (1, 2, 3, 5, 10, 15, 20, 30, 50, 100)), (axes.yaxis, (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    axes.grid(visible=True, which="major")
    axes.legend(loc="lower left")
    return write_whole(path, rendered(figure, 150)["png"])
