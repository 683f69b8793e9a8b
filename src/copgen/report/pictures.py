"""Which figures does a report show, and how are they to be read? Each with a caption, and what cannot be drawn with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from copgen.config import parse
from copgen.evaluation.arrays import Results
from copgen.evaluation.kept import Ensemble, read_ensemble
from copgen.evaluation.recipe import Recipe
from copgen.figures import calibration, distribution, maps
from copgen.figures.basemap import Basemap
from copgen.figures.infilling import infilling
from copgen.figures.moments import moments
from copgen.figures.narrowing import narrowing
from copgen.figures.profiles import profiles
from copgen.figures.samples import samples_grid
from copgen.figures.style import rendered
from copgen.report.groups import Condition

DPI = 160
SQUARES = 3                                      # places in a grid of samples; twice as many maps
Draw = Callable[[], Figure]


@dataclass(frozen=True)
class Shown:
    """A figure as PNG with a title, what is seen on it, and how it is read."""

    title: str
    png: bytes
    caption: str
    width: int                                   # of the page, in pixels


@dataclass
class Gallery:
    """Figures of a report, as they are drawn; `missing` says which were not, and why."""

    shown: list[Shown] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, title: str, caption: str, draw: Draw) -> None:
        try:
            figure = draw()
            png = rendered(figure, DPI)["png"]
        except ValueError as error:
            self.missing.append(f"{title}: {error}")
            return
        self.shown.append(Shown(title, png, caption, round(figure.get_figwidth() * 130)))


# --- of rows ------------------------------------------------------------------------------------------------------------------------

RANKS = (
    "How often the truth has each rank among the samples. Flat (1 everywhere) is a perfect ensemble; bars within the grey could be one. "
    "A U: the samples are too alike, the truth often lies outside them. A dome: too spread. A slope: they lie too high or too low. What "
    "is written there is a test over tiles, at 5 %.")
COVERAGE = (
    "How often central ranges of the samples hold the truth, against how often those of a perfect ensemble would. On the diagonal a range "
    "can be taken at its word; below, it is too narrow. Grey: where perfect ensembles would lie. The ranges nearest to 50, 80, 90 and "
    "95 % are marked.")
RELIABILITY = (
    "Of the pixels to which a share of the samples gives a class, how many have it. On the diagonal probabilities can be taken at their "
    "word; the grey line is what is seen where each sample in turn is the truth. Below: how often each share occurs (logarithmic); a "
    "collapsed generator only says 0 and 1.")
SPREAD = (
    "A dot a tile: how far the samples spread against how wrong their mean is, both as standard deviations. Large dots: tiles of similar "
    "spread together. On the line the spread tells the error; above it the generator is too sure. At the left edge there is no spread.")
BEST = (
    "How good the best of N samples is, chosen with the truth at hand: what is covered, not what a user would get. A line that falls (or "
    "rises, for accuracy) says that more samples reach more of what is possible; a flat one that they are all the same. Shaded: 95 % of "
    "draws of tiles.")
CONSISTENCY = (
    "Measures that physics ties between layers, a dot a tile: of what was drawn (the mean over samples) against the observation's. On the "
    "line the drawn layers agree with each other as the observed ones do.")
INFLUENCE = (
    "How far the mean of the samples moves when one given layer is taken from another cell, in units of their spread: 0 where the "
    "generator ignores the layer. Thick black lines: how far true observations move; thin ones: 95 % of draws of tiles. A cross: there is "
    "no spread to measure by.")


def of_rows(gallery: Gallery, runs: Sequence[Results], conditions: Sequence[Condition]) -> None:
    """What rows alone can show: calibration of every condition, then influence."""
    for one in conditions:
        group, name = one.group, one.title
        for tile, what in ((False, "pixels"), (True, "means of tiles")):
            gallery.add(f"Ranks of the truth, {what}: {name}", RANKS, partial(calibration.rank_histograms, runs, group, tile=tile))
        gallery.add(f"Coverage: {name}", COVERAGE, partial(calibration.coverages, runs, group))
        gallery.add(f"Reliability of classes: {name}", RELIABILITY, partial(calibration.reliability, runs, group))
        gallery.add(f"Spread against skill: {name}", SPREAD, partial(calibration.spread_against_skill, runs, group))
        gallery.add(f"Best of N: {name}", BEST, partial(distribution.best_of, runs, group))
        gallery.add(f"Consistency: {name}", CONSISTENCY, partial(distribution.consistency, runs, group))
    gallery.add("Influence of what is given", INFLUENCE, partial(distribution.influence, runs))


# --- of kept samples ----------------------------------------------------------------------------------------------------------------

MAPS = (
    "Where the generators place squares whose place they were not given; the star is where each is. A cluster far from the star is a wrong "
    "certainty; dots over all of a climate's land are a right uncertainty.")
GRID = "The same ground drawn again and again: given layers and observation first, then samples. Pictures of a place share their stretch."
MOMENTS = "Per pixel: the observation, one sample, the mean of all samples, their spread, and the error of the mean."
NARROW = (
    "How what is drawn narrows as more is given (downwards): the pixels of all samples against the observation's. Where more is known, the "
    "distribution should come closer to the observation's and the spread between samples fall.")
PROFILES = (
    "Spectra by class of the land cover: class means and one pixel that was chosen without looking at any spectrum. Coloured bands hold "
    "90 % of the samples.")
INFILLING = "Some bands are given, everything else is drawn. Under each picture stands its error against the observation."


@dataclass(frozen=True)
class Kept:
    """Where a kept ensemble lies, and what it is of."""

    generator: str                               # as the page calls it
    protocol: str
    path: Path

    @property
    def cell(self) -> str:
        return self.path.stem

    def read(self) -> Ensemble:
        return replace(read_ensemble(self.path), generator=self.generator)


def kept_of(name: str, run: Path, recipe: Mapping[str, Any]) -> list[Kept]:
    """The kept ensembles of a run's folder, condition by condition, or of the folder that a file of rows lies in."""
    paths = sorted(((run if run.is_dir() else run.parent) / "samples").glob("[0-9]*/*.safetensors"))
    if not paths:
        return []
    questions = parse(Recipe, dict(recipe), f"{run}: recipe").questions              # their numbers are the folders
    return [Kept(name, questions[number].name, path) for path in paths if (number := int(path.parent.name)) < len(questions)]


def of_samples(gallery: Gallery, kept: Sequence[Kept], basemap: Basemap | None = None) -> None:
    """What only samples can show. They are read for one figure at a time: many don't fit in memory together."""
    for protocol in dict.fromkeys(one.protocol for one in kept):
        ones = [one for one in kept if one.protocol == protocol]
        cells = list(dict.fromkeys(one.cell for one in ones))
        if protocol in ("places", "given"):
            gallery.add(f"Places ({protocol})", MAPS, partial(draw_places, ones, cells[:2 * SQUARES], basemap))
        if protocol == "given":
            draw_scenes(gallery, ones, cells[0])
        if protocol == "narrowing":
            gallery.add(f"Narrowing: {cells[0]}", NARROW, partial(draw_narrowing, ones, cells[0]))
        if protocol == "infilling":
            for one in [one for one in ones if one.cell == cells[0]]:
                gallery.add(f"Infilling by {one.generator}: {one.cell}", INFILLING, partial(draw_infilling, one))


def draw_infilling(one: Kept) -> Figure:
    return infilling(one.read())


def draw_places(ones: Sequence[Kept], cells: Sequence[str], basemap: Basemap | None) -> Figure:
    return maps.places(maps.placed(one for cell in cells for one in at(ones, cell)), basemap)


def draw_narrowing(ones: Sequence[Kept], cell: str) -> Figure:
    return narrowing(list(at(ones, cell)))


def draw_profiles(ones: Sequence[Kept], cell: str) -> Figure:
    return profiles(list(at(ones, cell)))


def draw_samples(ones: Sequence[Kept]) -> Figure:
    return samples_grid([one.read() for one in ones])


def draw_moments(one: Kept) -> Figure:
    return moments(one.read())


def draw_scenes(gallery: Gallery, ones: Sequence[Kept], first: str) -> None:
    """Samples, moments and spectra of the first places, of the last condition: where fewest is given, most is open."""
    last = max(one.path.parent.name for one in ones)
    ones = [one for one in ones if one.path.parent.name == last]
    for name in dict.fromkeys(one.generator for one in ones):
        own = [one for one in ones if one.generator == name]
        gallery.add(f"Samples of {name}", GRID, partial(draw_samples, own[:SQUARES]))
        gallery.add(f"Mean, spread and error of {name}: {own[0].cell}", MOMENTS, partial(draw_moments, own[0]))
    gallery.add(f"Spectra: {first}", PROFILES, partial(draw_profiles, ones, first))


def at(ones: Sequence[Kept], cell: str) -> Iterator[Ensemble]:
    return (one.read() for one in ones if one.cell == cell)
