"""Which figures can be asked for by name, and what is each made from? Evaluations, or folders of samples, in; named figures out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from copgen.evaluation.arrays import Group, Results, results_of
from copgen.evaluation.asked import conditions
from copgen.evaluation.folders import as_ensemble
from copgen.evaluation.kept import Ensemble, read_ensemble
from copgen.evaluation.rows import PLAN, ROWS, read_rows
from copgen.figures import calibration, distribution
from copgen.figures.architecture import architecture, plan_of
from copgen.figures.basemap import Basemap
from copgen.figures.infilling import infilling
from copgen.figures.maps import placed, places, priors
from copgen.figures.moments import moments
from copgen.figures.narrowing import narrowing
from copgen.figures.profiles import profiles
from copgen.figures.samples import samples_grid
from copgen.modalities import TABLE

Named = Iterator[tuple[str, Figure]]             # file names without ending
RowFigure = Callable[[Sequence[Results], Group], Figure]
NARROWED = "S2L2A"                               # whose distribution is shown as more is given, where it is not given itself


@dataclass(frozen=True)
class Wish:
    """What figures are made from, and which of it. What is not named is left to the figure; rows are rows or products of any table."""

    sources: tuple[Path, ...]                    # evaluations, or (for what is seen) folders of one square that `copgen generate` wrote
    protocol: str | None = None
    given: str | None = None                     # "DEM+LULC"
    cells: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    count: int | None = None                     # samples shown
    style: str = "ours"
    basemap: Basemap | None = None

    def ensembles(self, protocol: str | None = None, given: str | None = None) -> list[Ensemble]:
        """The samples that fit, of this protocol and these given layers where none are asked for; ValueError where there are none."""
        protocol, given = self.protocol or protocol, self.given or given
        found = [one for source in self.sources for one in self.of(source, protocol, given)]
        if not found:
            asked = ", ".join(text for text in (protocol and f"protocol {protocol}", given and f"given {given}", *self.cells) if text)
            raise ValueError(f"{', '.join(map(str, self.sources)) or 'nothing named'}: keeps no samples{f' of {asked}' if asked else ''}; "
                             "evaluate with --keep, or name other samples (--protocol, --given, --cells)")
        return found

    def of_one_condition(self, protocol: str = "given", given: str = "DEM+LULC") -> list[Ensemble]:
        """The samples of one condition: this one where none is asked for, or the first that there is where nobody kept it."""
        found = [one for source in self.sources for one in self.of(source, self.protocol or protocol, self.given or given)]
        if found:
            return found
        kept = self.ensembles()
        asked = kept[0].condition.protocol, kept[0].condition.given
        return [one for one in kept if (one.condition.protocol, one.condition.given) == asked]

    def of(self, source: Path, protocol: str | None, given: str | None) -> Iterator[Ensemble]:
        """The ensembles of one source, a case after the other."""
        if (source / "run.json").is_file():
            yield as_ensemble(source)
            return
        folder = source if source.is_dir() else source.parent
        name = read_rows(source, statistics=["samples"]).meta["generator"]["name"]
        for path in sorted((folder / "samples").glob("[0-9]*/*.safetensors"), key=lambda path: (path.stem, path.parent.name)):
            if self.cells and path.stem not in self.cells:
                continue
            one = read_ensemble(path)
            if (protocol is None or one.condition.protocol == protocol) and (given is None or one.condition.given_name == given):
                yield replace(one, generator=name)

    def results(self) -> list[Results]:
        if wrong := next((source for source in self.sources if not ((source / PLAN).is_file() or source.name == ROWS)), None):
            raise ValueError(f"{wrong}: is no evaluation; this figure is made from rows, which copgen evaluate run writes")
        if not self.sources:
            raise ValueError("no evaluation is named; this figure is made from rows, which copgen evaluate run writes")
        return results_of(read_rows(list(self.sources)))


def by_cell(ensembles: Sequence[Ensemble]) -> dict[str, list[Ensemble]]:
    found: dict[str, list[Ensemble]] = {}
    for one in ensembles:
        found.setdefault(one.observation.name, []).append(one)
    return found


# --- what is seen -------------------------------------------------------------------------------------------------------------------

def draw_samples(wish: Wish) -> Named:
    ensembles, count = wish.of_one_condition(), wish.count or 6
    row = wish.rows[0] if wish.rows else None
    for name in dict.fromkeys(one.generator for one in ensembles):
        own = [one for one in ensembles if one.generator == name]
        for k in range(0, len(own), 4):
            yield f"samples-{name}-{k // 4}", samples_grid(own[k : k + 4], row, count=count, style=wish.style)


def draw_narrowing(wish: Wish) -> Named:
    drawn = [one for one in wish.ensembles("narrowing") if not set(one.observation.table.select(NARROWED)) & set(one.condition.given)]
    for cell, ones in by_cell(drawn).items():
        yield f"narrowing-{cell}", narrowing(ones, wish.bands, product=NARROWED, style=wish.style)


def draw_profiles(wish: Wish) -> Named:
    for cell, ones in by_cell(wish.of_one_condition()).items():
        yield f"profiles-{cell}", profiles(ones, style=wish.style)


def draw_infilling(wish: Wish) -> Named:
    for one in wish.ensembles("infilling"):
        yield f"infilling-{one.generator}-{one.observation.name}", infilling(one, count=wish.count or 2, style=wish.style)


def draw_moments(wish: Wish) -> Named:
    for one in wish.of_one_condition():
        yield f"moments-{one.generator}-{one.observation.name}", moments(one, wish.rows or None, style=wish.style)


def draw_places(wish: Wish) -> Named:
    yield "places", places(placed(wish.ensembles("places")), wish.basemap)


def draw_priors(wish: Wish) -> Named:
    found = {}
    for source in wish.sources:
        drawn = [sample["place"] for sample in as_ensemble(source).samples if "place" in sample]
        found[source.name.removeprefix("LULC-")] = np.stack(drawn) if drawn else np.zeros((0, 2))
    yield "priors", priors(found, {name: colour for name, colour in class_colours().items() if name in found}, wish.basemap)


def class_colours() -> dict[str, str]:
    """The legend's colours by the names that folders have."""
    legend = TABLE["lulc"].legend
    assert legend is not None
    names = (re.sub(r"[^A-Za-z0-9]+", "-", name) for name in legend.names)
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in zip(names, legend.colours, strict=True)}


def draw_architecture(wish: Wish) -> Named:
    from copgen.model import model_folder

    for source in wish.sources or (Path("nano"),):
        yield f"architecture-{source.name}", architecture(plan_of(model_folder(str(source))))


# --- what is counted ----------------------------------------------------------------------------------------------------------------

def of_rows(draw: RowFigure, name: str) -> Callable[[Wish], Named]:
    """A figure a condition that fits; of all that were asked where none is named."""

    def figures(wish: Wish) -> Named:
        runs = wish.results()
        asked = [one for one in conditions(runs) if wish.protocol in (None, one.protocol) and wish.given in (None, one.given)]
        if not asked:
            there = ", ".join(f"{one.protocol} ({one.given})" for one in conditions(runs))
            raise ValueError(f"no condition of protocol {wish.protocol or 'any'} given {wish.given or 'anything'}; there are {there}")
        for one in asked:
            group = tuple(dict.fromkeys(part for members in one.groups for part in members))
            try:
                yield f"{name}-{one.protocol}-{one.given}".replace(" ", "-"), draw(runs, group)
            except ValueError:
                if wish.protocol and wish.given:                 # it alone was asked for
                    raise

    return figures


def draw_influence(wish: Wish) -> Named:
    yield "influence", distribution.influence(wish.results())


@dataclass(frozen=True)
class Entry:
    """A figure that can be asked for: how it is made, and what it shows."""

    draw: Callable[[Wish], Named]
    shows: str


CATALOGUE = {
    "samples": Entry(draw_samples, "grids of samples beside what was given and observed (Figures 1, 10, 11)"),
    "places": Entry(draw_places, "where generators place squares, on a world map (3, 12-15)"),
    "narrowing": Entry(draw_narrowing, "band distributions as more is given (4, 16-19)"),
    "profiles": Entry(draw_profiles, "spectra by land-cover class (5, 7-9)"),
    "infilling": Entry(draw_infilling, "all layers from some bands (6)"),
    "priors": Entry(draw_priors, "where a square of one class is placed (20-27), from folders of generate --constant"),
    "architecture": Entry(draw_architecture, "a model, drawn from its table of modalities (2)"),
    "moments": Entry(draw_moments, "per-pixel mean, standard deviation and class entropy"),
    "ranks": Entry(of_rows(calibration.rank_histograms, "ranks"), "rank histograms of the truth among the samples"),
    "coverage": Entry(of_rows(calibration.coverages, "coverage"), "how often central ranges hold the truth"),
    "reliability": Entry(of_rows(calibration.reliability, "reliability"), "class probabilities against frequencies"),
    "spread": Entry(of_rows(calibration.spread_against_skill, "spread"), "spread of the samples against the error of their mean"),
    "best-of": Entry(of_rows(distribution.best_of, "best-of"), "the best of N samples against N"),
    "consistency": Entry(of_rows(distribution.consistency, "consistency"), "what physics ties between layers, drawn beside observed"),
    "influence": Entry(draw_influence, "how far samples move when a given layer is another cell's"),
}


def figures(name: str, wish: Wish) -> Named:
    """The figures of a name with the names of their files; ValueError for a name that there is not, and for nothing to draw."""
    if name not in CATALOGUE:
        raise ValueError(f"no figure is called {name!r}; there are {', '.join(CATALOGUE)}")
    drawn = False
    for found in CATALOGUE[name].draw(wish):
        drawn = True
        yield found
    if not drawn:
        raise ValueError(f"{', '.join(map(str, wish.sources))}: nothing in there can be drawn as {name}; {CATALOGUE[name].shows}")
