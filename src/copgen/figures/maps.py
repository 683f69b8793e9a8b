"""Where on Earth does a generator put a square? Samples of place on a world map, and the places that one land cover calls to mind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch, Patch
from numpy.typing import NDArray

from copgen.drawing import Picture
from copgen.evaluation.kept import Ensemble
from copgen.figures.basemap import WORLD, Basemap, Raster, draw_world, on_land
from copgen.figures.style import BLUE, PAGE, PALE, RULE, SERIES, VERMILION, blank, paper
from copgen.scores.distances import great_circle
from copgen.scores.ensembles import energy_of_distances

Array = NDArray[np.float64]
STAR, MARKERS = "#FFEB3B", ("o", "^", "s", "D", "v", "P")
INHABITED = (-60.0, 84.0)                        # latitudes of a map without samples nearer to the poles
THUMBNAIL = 0.95                                 # inches that a strip of pictures takes
BELT = 15                                        # degrees of latitude that are counted together


@dataclass(frozen=True)
class Placed:
    """One square with the places that generators drew for it: latitude and longitude in degrees, [m, 2] a generator."""

    name: str
    samples: Mapping[str, Array]
    truth: tuple[float, float] | None = None
    given: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A picture of what a place looks like, joined to it by a line."""

    place: tuple[float, float]
    picture: Picture
    words: str = ""


@paper()
def places(cases: Sequence[Placed], basemap: Basemap | None = None, thumbnails: Sequence[Thumbnail] = ()) -> Figure:
    """World maps, one a square: a generator's samples as dots of its own colour and shape, the truth a star (Figures 3, 12 to 15).

    The legend has every generator's energy score in km (Gneiting and Raftery 2007: the mean distance to the truth less half of that
    between samples; lower is better), the median distance to the truth, and the mean distance between samples. `thumbnails` stand
    above the map of a single square. Raises ValueError for no squares, and for thumbnails of several.
    """
    if not cases:
        raise ValueError("no square has samples of its place; evaluate a condition that generates place")
    if thumbnails and len(cases) > 1:
        raise ValueError(f"thumbnails beside {len(cases)} squares: give one square with them")
    bounds = latitudes(one for case in cases for one in case.samples.values())
    wide, generators = 1 if len(cases) == 1 else 2, list(dict.fromkeys(name for case in cases for name in case.samples))
    rows, strip = -(-len(cases) // wide), [THUMBNAIL] if thumbnails else []
    one = (bounds[3] - bounds[2]) / 360 * (PAGE / wide - 0.35) + 0.45 + 0.14 * (1 + len(generators))
    figure = blank(PAGE, one * rows + sum(strip))
    grid = figure.add_gridspec(rows + len(strip), wide, height_ratios=[*strip, *[one] * rows])
    legend: list[Patch] = []
    for k, case in enumerate(cases):
        axes = figure.add_subplot(grid[len(strip) + k // wide, k % wide])
        legend = draw_world(axes, bounds, basemap)
        handles = draw_places(axes, case, generators, brief=wide > 1)
        axes.set_title(f"{case.name}, given {case.given}" if case.given else case.name, loc="left")
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.01, -0.07), labelspacing=0.3, handletextpad=0.2,
                    fontsize=6 if wide > 1 else 7)
        if thumbnails:
            draw_thumbnails(figure, axes, grid[0, 0].subgridspec(1, len(thumbnails)), thumbnails)
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), 6), handlelength=1, fontsize=6)
    if wide > 1:
        figure.supxlabel("ES: energy score, lower is better; then the median distance to the truth, and the mean distance between samples",
                         fontsize=6, color=PALE)
    return figure


def placed(ensembles: Iterable[Ensemble]) -> list[Placed]:
    """The squares of kept ensembles that drew places, a map for each square and what was given, generators side by side."""
    found: dict[tuple[str, str], Placed] = {}
    for one in ensembles:
        drawn = [sample["place"] for sample in one.samples if "place" in sample]
        if not drawn or "place" in one.condition.given or one.condition.swap:
            continue
        truth = tuple(float(x) for x in one.observation["place"]) if "place" in one.observation else None
        key = one.observation.name, one.condition.given_name.replace("+", ", ")
        before = found.get(key, Placed(key[0], {}, truth, key[1])) # type: ignore[arg-type]
        found[key] = replace(before, samples={**before.samples, one.generator: np.stack(drawn)})
    return list(found.values())


def latitudes(samples: Iterable[Array]) -> tuple[float, float, float, float]:
    """A map's west, east, south and north: less of the polar regions where nothing lies there."""
    lat = np.concatenate([np.empty(0), *(np.asarray(one)[:, 0] for one in samples)])
    south, north = min(INHABITED[0], *lat - 2, 0), max(INHABITED[1], *lat + 2, 0)
    return WORLD[0], WORLD[1], max(south, -90.0), min(north, 90.0)


def draw_places(axes: Axes, case: Placed, generators: Sequence[str], brief: bool = False) -> list[Line2D]:
    """The samples and the truth of one square; returns the legend's entries."""
    handles: list[Line2D] = []
    for name, samples in case.samples.items():
        k = generators.index(name)
        handles += axes.plot(samples[:, 1], samples[:, 0], ls="", marker=MARKERS[k % len(MARKERS)], ms=4.5 - 0.5 * min(k, 3), mew=0.4,
                             mec="white", color=SERIES[k % len(SERIES)], alpha=0.85, zorder=4 + 0.1 * k,
                             label=f"{name}: {words(samples, case.truth, brief)}")
    if case.truth is not None:
        lat, lon = case.truth
        place = f"{abs(lat):.1f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.1f}° {'E' if lon >= 0 else 'W'}"
        handles += axes.plot([lon], [lat], ls="", marker="*", ms=11, mew=0.6, mec="black", color=STAR, zorder=6, label=f"truth: {place}")
    return handles


def words(samples: Array, truth: tuple[float, float] | None, brief: bool = False) -> str:
    """What a legend says of a generator's places."""
    between = great_circle(samples[:, None], samples[None])
    count, apart = counted(samples), between.sum() / max(len(samples) * (len(samples) - 1), 1)
    if truth is None:
        return f"{count}, {apart:,.0f} km from each other"
    away = great_circle(samples, truth)
    score, middle = float(energy_of_distances(away, between)), float(np.median(away))
    if brief:
        return f"{len(samples)}, ES {score:,.0f} km, median {middle:,.0f} km, apart {apart:,.0f} km"
    return f"{count}, energy score {score:,.0f} km, median {middle:,.0f} km from the truth, {apart:,.0f} km from each other"


def counted(samples: Array) -> str:
    return f"{len(samples)} sample{'s' if len(samples) > 1 else ''}"


def draw_thumbnails(figure: Figure, axes: Axes, grid: object, thumbnails: Sequence[Thumbnail]) -> None:
    """Pictures in a line above the map, from west to east, each joined to its place."""
    for k, one in enumerate(sorted(thumbnails, key=lambda one: one.place[1])):
        small = figure.add_subplot(grid[0, k])   # type: ignore[index]
        small.imshow(one.picture)
        small.set(xticks=[], yticks=[])
        small.set_title(one.words, fontsize=6, pad=2)
        for spine in small.spines.values():
            spine.set(visible=True, color=PALE)
        line = ConnectionPatch((0.5, 0), (one.place[1], one.place[0]), "axes fraction", "data", axesA=small, axesB=axes, color=PALE,
                               linewidth=0.6, zorder=5)
        line.set_in_layout(False)
        figure.add_artist(line)


@paper()
def priors(places_of: Mapping[str, Array], colours: Mapping[str, str] | None = None, basemap: Basemap | None = None) -> Figure:
    """Where homogeneous squares are put, a map a class: dots of the class's colour, beside them how many lie in each belt of latitude.

    `places_of` has latitudes and longitudes [n, 2] by the class's name, from generations that are given a square of one land cover
    (Figures 20 to 27). The title has their number and the share that lies on land. Raises ValueError for no places.
    """
    if not any(len(one) for one in places_of.values()):
        raise ValueError("no class has places; generate place from a constant land cover first")
    bounds = latitudes(places_of.values())
    wide = 1 if len(places_of) == 1 else 2
    rows = -(-len(places_of) // wide)
    figure = blank(PAGE, ((bounds[3] - bounds[2]) / 360 * (PAGE / wide - 0.3) * 0.88 + 0.42) * rows + 0.15)
    legend: list[Patch] = []
    for k, (name, samples) in enumerate(places_of.items()):
        axes = figure.add_subplot(rows, wide, k + 1)
        legend = draw_world(axes, bounds, basemap)
        colour = (colours or {}).get(name, BLUE)
        axes.plot(samples[:, 1], samples[:, 0], ls="", marker="o", ms=4, mew=0.4, mec="black", color=colour, zorder=4)
        axes.set_title(f"{name}: {counted(samples)}, {on_land(samples):.0%} on land", loc="left")
        draw_belts(axes.inset_axes((1.02 if not isinstance(basemap, Raster) else 1.12, 0, 0.1, 1)), samples[:, 0], bounds[2:], colour)
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), 6), handlelength=1, fontsize=6)
    figure.supxlabel("beside each map: samples by latitude; the line is what places spread evenly over the sphere would give", fontsize=6,
                     color=PALE)
    return figure


def draw_belts(axes: Axes, lat: Array, limits: Sequence[float], colour: str) -> None:
    """Samples a belt of latitude, beside the map; a line for what places spread evenly over the sphere would give."""
    edges = np.arange(-90, 91, BELT)
    counts, _ = np.histogram(lat, edges)
    axes.barh(edges[:-1] + BELT / 2, counts, BELT * 0.85, color=colour, edgecolor=PALE, linewidth=0.4)
    even = len(lat) * np.diff(np.sin(np.radians(edges))) / 2
    axes.stairs(even, edges, orientation="horizontal", color=VERMILION, linewidth=0.7, baseline=None)
    most = int(max(counts.max(), 1))
    axes.set(ylim=limits, yticks=[], xlim=(0, 1.05 * max(most, even.max())), xticks=[most])
    axes.tick_params(labelsize=6, labelcolor=PALE, length=1.5, pad=1)
    axes.spines["left"].set_color(RULE)

