"""What does each quality lose? Errors against the converged samples of the same noises, and the distribution that is drawn.

`python benchmarks/quality.py [--model nano] [--places 4] [--worlds 12] [--samples 4] [--quick] [--results FILE]`

Three tasks on synthetic worlds whose seeds no training draws and on which no solver was tuned; on real cells (the TerraMesh cells of
COPGEN_SAMPLES or ../shared/data/terramesh, where there are any) the solver's error alone.

Error: the root mean square difference of a sample from the converged one of the same noise, the mean over noises; of the latents of all
rows that are drawn, and of the wanted layers after decoding, in DN, dB, metres and shares of pixels of another class. Converged is the
quality `reference`, 200 calls (`--check` prints how far that is from 1000 calls of another solver). In float32, so that what is measured
is the solver and not the arithmetic; at --places worlds and every cell, one noise each.

Distribution, in the precision that a user draws in: of the samples at each world the fair CRPS (classes: the fair Brier score), the
spread-to-skill ratio over all worlds, the Wasserstein distance (classes: total variation) of the values of all samples from the truth's,
each the mean over bands; all beside those of the converged samples (60 calls), of the same worlds and noises. So the differences are
paired, with a bootstrap over worlds, and a number of calls draws a worse distribution where a difference is above 0 with its whole
interval (a spread-to-skill ratio: farther from 1). Of many comparisons some are, by chance: what Holm's correction leaves is told, too.
"Moved" is the Wasserstein distance between few calls' values and the converged ones', which needs no truth.

With --results every figure is kept as it is made, and a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from goals.places import cells
from numpy.typing import NDArray
from solvers import converged, distance
from torch import Tensor

from copgen import scores
from copgen.codecs import full_float32
from copgen.diffusion import joint_denoiser, sample
from copgen.loop import measured
from copgen.modalities import Table
from copgen.model import CopGen, Precision, gaussian
from copgen.pictures import unit_of
from copgen.quality import QUALITIES
from copgen.scene import Scene
from copgen.synthetic import world

UNSEEN = 13_000_000                              # worlds reported; 12_000_000 and on are those that solvers may be tuned on
TASKS = {"S2L2A given DEM, LULC": ("DEM,LULC", "S2L2A"), "S1RTC, DEM, LULC given S2L2A": ("S2L2A", "S1RTC,DEM,LULC"),
         "S2L2A given S1RTC": ("S1RTC", "S2L2A")}
Way = tuple[str, int]                            # a solver and its network calls, the last a denoising
WAYS: list[Way] = [*(("default", calls) for calls in (6, 8, 10, 12, 15, 20, 30, 50)), ("published", 51)]
CONVERGED: dict[str, Way] = {"error": ("default", QUALITIES["reference"].steps), "distribution": ("default", 60)}
PRECISION: dict[str, Precision] = {"error": "fp32", "distribution": "auto"}
SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[2] / "shared" / "data" / "terramesh"))
Numbers = dict[str, Any]                         # by what is measured: a number, or one a band
ByPlace = dict[str, dict[str, Numbers]]          # by place and way
Results = dict[str, ByPlace]                     # by task


# --- measuring ----------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Problem:
    """One place and task: what is given, and the noises to start from."""

    model: CopGen
    precision: Precision
    truth: Scene
    want: tuple[str, ...]
    given: Mapping[str, Tensor]
    noise: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: CopGen, precision: Precision, truth: Scene, task: str, seeds: Sequence[int]) -> Problem:
        known, want = (model.table.select(part) for part in TASKS[task])
        given = {row: z.expand(len(seeds), *z.shape[1:]) for row, z in model.encode(truth.only(known)).items()}
        noise = {row: gaussian(seeds, row, model.table.latent_shape(row)) for row in model.table.names if row not in given}
        return cls(model, precision, truth, want, given, noise)

    def draw(self, way: Way) -> dict[str, Tensor]:
        backbone = self.model.backbone_in(self.precision)
        return sample(backbone, self.noise, self.given, *way, denoise=True, schedule=backbone.config.schedule)

    @torch.no_grad()
    def layers(self, latents: Mapping[str, Tensor]) -> dict[str, NDArray[np.float64]]:
        """The wanted layers [m, bands, h, w], in the units in which they are compared."""
        found = {}
        for row in self.want:
            with full_float32():
                pixels = self.model.codec(row).decode(latents[row])
            modality = self.model.table[row]
            found[row] = measured(modality, modality.scale.to_physical(pixels.float().numpy()))
        return found


def measure(problem: Problem, part: str, ways: Sequence[Way]) -> dict[str, Numbers]:
    """The numbers of every way, and those of the converged samples."""
    right = problem.draw(CONVERGED[part])
    layers = problem.layers(right)
    found = {"converged": {} if part == "error" else distribution(problem, layers, layers)}
    for way in ways:
        latents = problem.draw(way)
        made = problem.layers(latents)
        found[name(way)] = ({"latents": distance(latents, right)[0], **errors(problem.model.table, made, layers)} if part == "error" else
                            distribution(problem, made, layers))
    return found


def name(way: Way) -> str:
    solver, calls = way
    return f"{solver} {calls}" if solver == "default" else f"{solver} {calls - 1} + 1"


def by_product(table: Table, rows: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Bands' numbers by row -> by product, in the table's order."""
    found: dict[str, list[float]] = {}
    for row in table.names:
        if row in rows:
            found.setdefault(table[row].product, []).extend(float(value) for value in rows[row])
    return found


def errors(table: Table, made: Mapping[str, NDArray], right: Mapping[str, NDArray]) -> Numbers:
    """`error S1RTC` and so on: root mean square over a sample's pixels and bands, mean over samples; classes: the share that differs."""
    squares = {row: ((made[row] != right[row]) if table[row].legend else (made[row] - right[row]) ** 2).mean((2, 3)).T for row in made}
    found = {}
    for product in {table[row].product: None for row in squares}:
        one = np.concatenate([squares[row] for row in squares if table[row].product == product]).mean(0)        # [m]
        found[f"error {product}"] = float((one if any(table[row].legend for row in table.select(product)) else np.sqrt(one)).mean())
    return found


def distribution(problem: Problem, made: Mapping[str, NDArray], right: Mapping[str, NDArray]) -> Numbers:
    """`crps S1RTC`, `variance S1RTC` and so on, a number a band; classes have one band and no variance."""
    table, parts = problem.model.table, {}
    for row, x in made.items():
        truth = measured(table[row], problem.truth[row])
        found = of_classes(x, truth, right[row]) if table[row].legend else of_values(x, truth, right[row])
        for what, values in found.items():
            parts.setdefault(what, {})[row] = values
    return {f"{what} {product}": values for what, rows in parts.items() for product, values in by_product(table, rows).items()}


def of_values(x: NDArray, truth: NDArray, right: NDArray) -> dict[str, NDArray]:
    variance, squared = scores.spread_and_error(x, truth)
    flat, other, true = (np.moveaxis(one, -3, 0).reshape(one.shape[-3], -1) for one in (x, right, truth))
    return {"crps": scores.crps(x, truth).mean((1, 2)), "variance": variance.mean((1, 2)), "squared": squared.mean((1, 2)),
            "wasserstein": scores.wasserstein(flat, np.repeat(true, len(x), -1)), "moved": scores.wasserstein(flat, other)}


def of_classes(x: NDArray, truth: NDArray, right: NDArray) -> dict[str, NDArray]:
    def shares(codes: NDArray) -> NDArray:
        return (codes.ravel()[:, None] == occur).mean(0)

    occur = np.unique(np.concatenate([one.ravel() for one in (x, truth, right)]))
    return {"crps": scores.fair_brier(x, truth).mean((1, 2)), "wasserstein": np.abs(shares(x) - shares(truth)).sum(keepdims=True) / 2,
            "moved": np.abs(shares(x) - shares(right)).sum(keepdims=True) / 2}


# --- the run ------------------------------------------------------------------------------------------------------------------------

def run(options: argparse.Namespace, model: CopGen) -> dict[str, Results]:
    """The errors at worlds and at real cells, and the distribution; a line of the results' file for each place and task."""
    ways = [way for way in WAYS if not options.calls or way[1] in options.calls]
    squares = cells(options.cells, model.table) if options.cells.is_dir() else {}
    kept = taken_up(options.results, {"model": model.weights_sha256(), "ways": [name(way) for way in ways], "samples": options.samples})
    worlds = [str(UNSEEN + k) for k in range(max(options.worlds, options.places))]
    work = [("error", place, task) for place in [*worlds[: options.places], *squares] for task in TASKS]
    work += [("distribution", place, task) for place in worlds[: options.worlds] for task in TASKS]
    work = [one for one in work if options.part in (None, one[0])]
    began = time.monotonic()
    found: dict[str, Results] = {}
    for count, (part, place, task) in enumerate(work, 1):
        if (part, place, task) not in kept:
            truth = world(int(place), model.table) if place.isdigit() else squares[place]
            problem = Problem.of(model, PRECISION[part], truth, task, range(1 if part == "error" else options.samples))
            kept[part, place, task] = measure(problem, part, ways)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps([part, place, task, kept[part, place, task]]) + "\n")
            print(f"{count}/{len(work)} {part}: {task}, at {place}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        of = part if place.isdigit() else "error at real cells"
        found.setdefault(of, {}).setdefault(task, {})[place] = kept[part, place, task]
    return found


def taken_up(file: Path | None, head: Numbers) -> dict[tuple[str, str, str], dict[str, Numbers]]:
    """What a file of an earlier run holds, by part, place and task; a new one begins with what its numbers depend on."""
    if file is None:
        return {}
    if not file.exists():
        file.write_text(json.dumps(head) + "\n")
        return {}
    first, *lines = file.read_text().splitlines()
    if json.loads(first) != head:
        raise ValueError(f"{file}: holds another model's or another run's figures; name another file, or repeat that run's options")
    return {(part, place, task): numbers for part, place, task, numbers in map(json.loads, lines)}


# --- the tables ---------------------------------------------------------------------------------------------------------------------

def columns_of(results: ByPlace, way: str, key: str) -> NDArray[np.float64]:
    """One figure of every place [..., places]."""
    return np.stack([np.asarray(by_way[way][key], np.float64) for by_way in results.values()], -1)


def print_errors(model: CopGen, results: Results, where: str) -> None:
    print(f"\n## Error against the converged samples, {where}\n")
    for task, by_place in results.items():
        ways = ways_of(by_place)
        keys = list(next(iter(by_place.values()))[ways[0]])
        print(f"| {task} | " + " | ".join(f"{key.removeprefix('error ')}{unit(model, key)}" for key in keys) + " |")
        print("|---|" + "---|" * len(keys))
        for way in ways:
            figures = [scores.over_places(scores.mean, columns_of(by_place, way, key)) for key in keys]
            print(f"| {way} | " + " | ".join(f"{figure:.2g}" for figure in figures) + " |")
        print()


def ways_of(by_place: ByPlace) -> list[str]:
    return [way for way in next(iter(by_place.values())) if way != "converged"]


def unit(model: CopGen, key: str) -> str:
    product = key.partition(" ")[2]
    if not product:
        return ""
    row = model.table[model.table.select(product)[0]]
    return " (share)" if row.legend else f" ({unit_of(row)})"


def averaged(total: NDArray, places: NDArray) -> NDArray:
    """The mean over bands and places, from sums over places."""
    return (total / places).mean(0)


def ratio(variance: NDArray, squared: NDArray, _: NDArray) -> NDArray:
    """The mean over bands of the spread-to-skill ratio, from sums over places."""
    return np.sqrt(variance / squared).mean(0)


MEASURES: dict[str, tuple[Callable[..., NDArray], tuple[str, ...]]] = {
    "CRPS": (averaged, ("crps",)), "spread/skill": (ratio, ("variance", "squared")), "Wasserstein": (averaged, ("wasserstein",))}


@dataclass(frozen=True)
class Compared:
    """A measure of the converged samples, and a way's less it."""

    task: str
    product: str
    what: str
    converged: float
    more: scores.Difference

    @property
    def worse(self) -> bool:
        """Above the converged samples' with its whole interval (a spread-to-skill ratio: farther from 1)."""
        if self.what == "spread/skill":
            return (self.more.high < 0 and self.converged < 1) or (self.more.low > 0 and self.converged > 1)
        return self.more.low > 0


def compared(results: Results, way: str) -> list[Compared]:
    """All measures of a way against the converged samples of the same worlds and noises."""
    found = []
    for task, by_place in results.items():
        keys = next(iter(by_place.values()))["converged"]
        for product in products(keys):
            for what, (statistic, needs) in MEASURES.items():
                if all(f"{need} {product}" in keys for need in needs):
                    a, b = ([columns_of(by_place, which, f"{need} {product}") for need in needs] for which in (way, "converged"))
                    more = scores.paired(statistic, with_places(a), with_places(b), blocks=np.arange(len(by_place)))
                    found.append(Compared(task, product, what, float(statistic(*(one.sum(-1) for one in with_places(b)))), more))
    return found


def products(keys: Iterable[str]) -> list[str]:
    return [key.removeprefix("crps ") for key in keys if key.startswith("crps ")]


def with_places(columns: list[NDArray]) -> list[NDArray]:
    """And a 1 for every place: the sums of these are what averages divide by."""
    return [*columns, np.ones((1, columns[0].shape[-1]))]


def print_distribution(model: CopGen, results: Results) -> None:
    ways = ways_of(next(iter(results.values())))
    of = {way: compared(results, way) for way in ways}
    print("\n## Distribution: of the converged samples, and what a number of calls adds (95 % interval, paired over worlds)\n")
    print("| task | measure | converged | " + " | ".join(ways) + " |\n|---|---|---|" + "---|" * len(ways))
    for k, one in enumerate(of[ways[0]]):
        what = one.what if one.what == "spread/skill" else f"{one.what}{unit(model, 'error ' + one.product)}"
        print(f"| {one.task} | {one.product} {what} | {one.converged:.3g} | " + " | ".join(
            f"{of[way][k].more:+.2g}{' worse' if of[way][k].worse else ''}" for way in ways) + " |")
    for task, by_place in results.items():
        for product in products(next(iter(by_place.values()))["converged"]):
            moved = [columns_of(by_place, way, f"moved {product}").mean() for way in ways]
            print(f"| {task} | {product} moved{unit(model, 'error ' + product)} | 0 | " + " | ".join(f"{one:.2g}" for one in moved) + " |")
    print()
    for way in ways:
        worse = [one for one in of[way] if one.worse]
        adjusted = scores.holm([one.more.p for one in of[way]])
        sure = sum(one.worse and p < 0.05 for one, p in zip(of[way], adjusted, strict=True))
        print(f"{way}: worse than converged in {len(worse)} of {len(of[way])} comparisons ({sure} after Holm's correction); relative to it "
              f"CRPS {growth(of[way], 'CRPS', max)}, Wasserstein {growth(of[way], 'Wasserstein', max)} (median; largest), "
              f"spread/skill {growth(of[way], 'spread/skill', min)} (median; smallest)")


def growth(found: Sequence[Compared], what: str, extreme: Callable[[Sequence[float]], float]) -> str:
    shares = [one.more.value / one.converged for one in found if one.what == what]
    return f"{statistics.median(shares):+.1%}; {extreme(shares):+.1%}"


def print_check(model: CopGen) -> None:
    """How far is what is called converged from 1000 calls of another solver? On worlds that nothing is reported of."""
    print("Converged? Distance from 1000 calls of third-order singlestep, uniform log-SNR, of one noise")
    backbone = model.backbone_in("fp32")
    for k, task in enumerate(TASKS):
        problem = Problem.of(model, "fp32", world(UNSEEN - 1_000_000 + k, model.table), task, [1000 + k])
        with torch.no_grad():
            schedule = backbone.config.schedule
            _, truth = converged(joint_denoiser(backbone, problem.given, {}, schedule), problem.noise, 1000, schedule)
        ways = [*CONVERGED.values(), ("default", 50), ("published", 51)]
        print(f"{task}: " + ", ".join(f"{name(way)}: {distance(problem.draw(way), truth)[0]:.1e}" for way in ways), flush=True)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--places", type=int, default=4, help="worlds at which the error is measured")
    parser.add_argument("--worlds", type=int, default=12, help="at which the distribution is")
    parser.add_argument("--samples", type=int, default=4, help="a world, for the distribution")
    parser.add_argument("--calls", type=int, nargs="+", help="only these of 6, 8, 10, 12, 15, 20, 30, 50 and 51 (published + denoising)")
    parser.add_argument("--part", choices=list(CONVERGED), help="only this one")
    parser.add_argument("--quick", action="store_true", help="few worlds, samples and calls: under a minute, and no figure to quote")
    parser.add_argument("--check", action="store_true", help="only: how far is what is called converged from converged?")
    parser.add_argument("--cells", type=Path, default=SAMPLES, help="a folder of TerraMesh cells")
    parser.add_argument("--results", type=Path, default=None, help="a file that keeps what is done")
    options = parser.parse_args(arguments)
    if options.quick:
        options.places, options.worlds, options.samples, options.calls, options.cells = 1, 2, 2, [10, 15], Path("none")
        CONVERGED.update(error=("default", 50), distribution=("default", 20))
    return options


def main() -> None:
    options = options_of()
    began = time.perf_counter()
    model = CopGen.from_pretrained(options.model, device="cpu")
    if options.check:
        print_check(model)
        return
    results = run(options, model)
    print(f"{model.name}: worlds of seeds from {UNSEEN} on")
    for part, where in (("error", "synthetic worlds"), ("error at real cells", "real cells")):
        if part in results:
            print_errors(model, results[part], f"{where}, {CONVERGED['error'][1]} calls of the same noise")
    if "distribution" in results:
        print_distribution(model, results["distribution"])
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
