"""A generator, cases and a statistic that take no time, in a module of their own: other processes import it.

`python toy_evaluation.py OUT CELLS SECONDS WORKERS` is an evaluation that can be killed.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from copgen.evaluation.generators import open_generator
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.plan import Evaluation, Tools
from copgen.evaluation.recipe import Protocol, Recipe
from copgen.evaluation.run import evaluate
from copgen.evaluation.statistics import Row
from copgen.modalities import TABLE, Table
from copgen.scene import Footprint, Scene

ROWS = ("place", "date", "dem", "lulc", "s2l2a_60m")
SMALL = replace(TABLE.subset(ROWS), footprint=240)
RECIPE = Recipe((
    Protocol("all-minus-target", without=(("DEM",), ("LULC",), ("place", "date"))),
    Protocol("given", given=(("DEM", "LULC"),), samples=2),
    Protocol("swap", given=(("DEM", "place", "date"),), swap="date", cells=2, values={"cell-3": date(2019, 2, 3)}),
), samples=3, truths=2)


def random_scene(name: str, seed: int, rows: Sequence[str] = ROWS) -> Scene:
    """Layers that depend on the name and the seed alone."""
    chance = np.random.default_rng([zlib.crc32(name.encode()), seed])
    layers: dict[str, Any] = {}
    for row in ROWS:
        shape, legend = SMALL.layer_shape(row), SMALL[row].legend
        if row == "place":
            layers[row] = chance.uniform(-60, 60, 2)
        elif row == "date":
            layers[row] = np.datetime64("2020-01-01") + chance.integers(0, 700, 1)
        else:
            layers[row] = chance.choice(legend.codes, shape) if legend else chance.uniform(1, 1000, shape).astype(np.float32)
    return Scene({row: layers[row] for row in rows}, Footprint(CRS.from_epsg(32630), 5e5, 6e6, 240.0), name, SMALL)


@dataclass
class Cases:
    """cell-0, cell-1, ...; what the words after the number say of one of them: `6,bare=2` has no land cover, `6,bad=1` can't be read."""

    text: str

    def names(self) -> Sequence[str]:
        return [f"cell-{k}" for k in range(int(self.text.partition(",")[0]))]

    def observation(self, name: str) -> Scene:
        number = name.removeprefix("cell-")
        if f"bad={number}" in self.text.split(","):
            raise ValueError(f"{name}: is torn")
        bare = f"bare={number}" in self.text.split(",")
        return random_scene(name, 0, [row for row in ROWS if not bare or row != "lulc"])

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        known = self.observation(name).only(given)
        return [one.with_layers({**one.layers, **known.layers}) for one in (random_scene(name, 100 + k) for k in range(count))]

    def record(self) -> dict[str, Any]:
        return {"source": "toy", "text": self.text}


@dataclass
class Generator:
    """Samples that depend on the name, the seed and what is given. `short=1`: the last is missing; `seconds=0.1`: it takes so long."""

    text: str
    table: Table = SMALL

    @property
    def options(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.text.split(",")[1:])

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        time.sleep(float(self.options.get("seconds", "0")))
        told = zlib.crc32(b"".join(case[row].tobytes() for row in given))
        seeds = list(seeds)[: len(seeds) - int(self.options.get("short", "0"))]
        drawn = {seed: random_scene(f"{case.name} {told}", seed, want) for seed in seeds}
        return [replace(one, name=f"{case.name}-{seed}", notes={"seed": seed}) for seed, one in drawn.items()]

    def record(self) -> dict[str, Any]:
        return {"name": self.text.partition(",")[0], "options": {key: value for key, value in self.options.items() if key != "seconds"}}


def score(ensemble: Ensemble, swapped: Sequence[Scene] = (), **more: Any) -> list[Row]:
    """The mean of every row of every sample; how many there are; how far the swap moved the heights or the reflectances."""
    rows = [Row(one.notes["seed"], SMALL[row].product, band, "mean", float(layer.astype(float)[k].mean()), float(layer[k].size))
            for one in ensemble.samples for row, layer in one.layers.items() for k, band in enumerate(SMALL[row].bands)]
    rows += [Row(None, SMALL[row].product, f"{k}", f"rank:{k}:4", 0.2, 5.0) for row in ensemble.condition.scored for k in range(5)]
    if swapped:
        rows.append(Row(None, "S2L2A", "", "moved", float(len(swapped)), 1.0))
    if "lulc" in ensemble.condition.scored and ensemble.generator == "odd":
        rows.append(Row(0, "LULC", "", "error", float("nan"), 1.0))
    share = len(ensemble.samples) / ensemble.condition.samples
    return [*rows, Row(None, SMALL[ensemble.condition.scored[0]].product, "", "samples", share, float(ensemble.condition.samples))]


def generator(text: str, *, device: str = "auto") -> Generator:
    return Generator(text)


def forecaster(text: str, *, device: str = "auto") -> Any:
    """A forecaster of the synthetic Earth for small squares."""
    return open_generator(text, replace(TABLE, footprint=240), device=device)


def cases(text: str, table: Table) -> Cases:
    assert table == SMALL
    return Cases(text)


def toy(out: Path, cells: str = "4", *, what: str = "toy", **settings: Any) -> Evaluation:
    return Evaluation(what, cells, **{"recipe": RECIPE, "out": out, "device": "cpu", "tools": Tools(generator, cases, score), **settings})


if __name__ == "__main__":
    import toy_evaluation as named  # workers find its functions by the module's name

    out, cells, seconds, workers = sys.argv[1:]
    evaluate(named.toy(Path(out), cells, what=f"toy,seconds={seconds}", workers=int(workers), keep=2, tries=50))
