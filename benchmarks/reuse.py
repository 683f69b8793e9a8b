"""What do kept keys and values of rows that stand still gain, and what do they lose? Seconds and errors against whole calls alone.

    python benchmarks/reuse.py                          # nano's errors, base's seconds: some 15 minutes
    python benchmarks/reuse.py --part error --bare      # errors of nano without its canvas: attention alone says what is given

`--reuse N` (`copgen.call`): every N-th call is whole, in those between only the rows drawn are computed. Errors are nano's, distances from
200 whole calls of the same noise in float32, of the latents of the wanted rows and of their layers in physical units; seconds those of the
calls of one sample at base size, with random weights in bf16: calls and their seconds, whole and short by turns in one process. What a
larger network loses is not known from here. `wrong`: calls between whole ones see keys and values of another place, so that it shows
whether they say anything at all. Distribution: as in benchmarks/quality.py, beside samples of as many whole calls.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from goals.places import cells
from quality import UNSEEN, Numbers, Problem, Results, distribution, errors, print_distribution, print_errors
from solvers import distance
from torch import Tensor
from training import Peak, timed

from copgen.backbone import Kept, UViT
from copgen.call import Call
from copgen.diffusion import sample
from copgen.inference.linear import lay_out
from copgen.inference.memory import keep_memory
from copgen.modalities import TABLE, Table
from copgen.model import CopGen, gaussian
from copgen.scene import Scene
from copgen.synthetic import world

SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[2] / "shared" / "data" / "terramesh"))
TASKS = {"all but S1RTC -> S1RTC": ("all", "S1RTC", False), "all but S2L2A -> S2L2A": ("all", "S2L2A", False),
         "S2L2A -> S1RTC, DEM, LULC": ("S2L2A", "S1RTC,DEM,LULC", False), "S2L2A -> S1RTC, DEM, LULC, others absent as noise":
         ("S2L2A", "S1RTC,DEM,LULC", True), "DEM, LULC -> S2L2A": ("DEM,LULC", "S2L2A", False)}
WHOLE = [(calls, 1) for calls in (6, 8, 10, 12, 15)]
WAYS = [*WHOLE, (10, 2), (10, 3), (10, 5), (15, 3), (15, 5), (15, 8), (15, 15)]              # network calls; each how many of them is whole
JUDGED = [(10, 1), (10, 3), (15, 1), (15, 3), (15, 5)]                                       # by distribution
CONVERGED = {"error": (200, 1), "distribution": (50, 1)}
WRONG = (15, 0)


def name(way: tuple[int, int]) -> str:
    calls, reuse = way
    return f"{calls} calls" + ("" if reuse == 1 else ", each 3rd whole, wrong between" if not reuse else f", each {reuse} whole")


class Wrong(Call):
    """What is kept is that of another place: the next in the batch."""

    def __call__(self, latents: Mapping[str, Tensor], times: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().__call__(latents, times)
        if self.kept is not None and self.calls % self.reuse == 1:                           # after a whole call
            self.kept = Kept((layer, qkv.roll(1, 0)) for layer, qkv in self.kept.items())
            self.heads = {row: head.roll(1, 0) for row, head in self.heads.items()}
        return found


def rows_of(table: Table, task: str, there: list[str]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Rows given, wanted, drawn, and absent as noise, of a place that has the rows `there`."""
    known, want, noise = TASKS[task]
    wanted = list(table.select(want))
    given = [row for row in there if row not in wanted] if known == "all" else list(table.select(known))
    drawn = [row for row in table.names if (row in wanted if noise else row not in given)]
    return given, wanted, drawn, [row for row in table.names if row not in given and row not in drawn]


@dataclass(frozen=True)
class Still(Problem):
    """A problem whose rows that stand still may be reused; some of them may be absent."""

    network: UViT = field(kw_only=True)
    absent: Mapping[str, Tensor] = field(kw_only=True)

    @classmethod
    def at(cls, model: CopGen, network: UViT, truth: Scene, task: str, seeds: range) -> Still:
        given, want, drawn, absent = rows_of(model.table, task, list(truth.layers))
        clean = {row: z.expand(len(seeds), *z.shape[1:]) for row, z in model.encode(truth.only(given)).items()}
        noise, unseen = ({row: gaussian(seeds, row, model.table.latent_shape(row)) for row in rows} for rows in (drawn, absent))
        return cls(model, "fp32", truth, tuple(want), clean, noise, network=network, absent=unseen)

    def draw(self, way: tuple[int, int]) -> dict[str, Tensor]:
        calls, reuse = way
        schedule = self.network.config.schedule
        still = {**{row: (z, 0.0) for row, z in self.given.items()}, **{row: (z, float(schedule.steps)) for row, z in self.absent.items()}}
        call = (Call if reuse else Wrong)(self.network, list(self.noise), still, reuse or 3)
        return sample(call, self.noise, self.given, "default", calls, absent=self.absent, denoise=True, schedule=schedule)


@torch.no_grad()
def measure(part: str, problem: Still) -> dict[str, Numbers]:
    right = problem.draw(CONVERGED[part])
    layers = problem.layers(right)
    found: dict[str, Numbers] = {"converged": {} if part == "error" else distribution(problem, layers, layers)}
    for way in WAYS if part == "error" else JUDGED:
        latents = problem.draw(way)
        made = problem.layers(latents)
        off = distance(*({row: z[row] for row in problem.want} for z in (latents, right)))[0]
        found[name(way)] = ({"latents": off, **errors(problem.model.table, made, layers)} if part == "error" else
                            distribution(problem, made, layers))
    return found


@torch.no_grad()
def wrong(model: CopGen, network: UViT, task: str, places: int) -> tuple[float, float]:
    """The distance of the latents with what was kept of the same places, and with that of others."""
    each = [Still.at(model, network, world(UNSEEN + k, model.table), task, range(k, k + 1)) for k in range(places)]
    first = each[0]
    given, noise, absent = ({row: torch.cat([getattr(one, part)[row] for one in each]) for row in getattr(first, part)}
                            for part in ("given", "noise", "absent"))
    problem = Still(model, "fp32", first.truth, first.want, given, noise, network=network, absent=absent)
    right, *made = (problem.draw(way) for way in (CONVERGED["distribution"], (15, 3), WRONG))
    return tuple(distance(*({row: z[row] for row in problem.want} for z in (one, right)))[0] for one in made)  # type: ignore[return-value]


def run(options: argparse.Namespace, model: CopGen) -> dict[str, Results]:
    """Errors at worlds and cells and the distribution at worlds; a line of the results' file a place and task."""
    network = copy.deepcopy(model.backbone)
    if options.bare:
        network.canvas = None
    squares = cells(options.cells, model.table) if options.cells.is_dir() else {}
    worlds = [str(UNSEEN + k) for k in range(max(options.places, options.worlds))]
    work = [("error", place, task) for place in [*worlds[: options.places], *squares] for task in TASKS]
    work += [("distribution", place, task) for place in worlds[: options.worlds] for task in list(TASKS)[:3]]
    kept, found, began = read(options.results), {}, time.monotonic()
    for part, place, task in work:
        if options.part not in (None, part):
            continue
        if (key := json.dumps([part, place, task])) not in kept:
            truth = world(int(place), model.table) if place.isdigit() else squares[place]
            problem = Still.at(model, network, truth, task, range(1 if part == "error" else options.samples))
            kept[key] = measure(part, problem)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps([key, kept[key]]) + "\n")
            print(f"{part}: {task}, at {place}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        found.setdefault(part if place.isdigit() else "error at real cells", {}).setdefault(task, {})[place] = kept[key]
    for task in TASKS if options.part in (None, "error") else ():
        own, other = wrong(model, network, task, options.places)
        print(f"{task}: 15 calls, each 3rd whole: {own:.4f}; with keys and values of another place: {other:.4f}")
    return found


def read(file: Path | None) -> dict[str, dict[str, Numbers]]:
    return dict(map(json.loads, file.read_text().splitlines())) if file and file.exists() else {}


@torch.no_grad()
def seconds(rounds: int = 7) -> dict[str, tuple[float, float]]:
    """Print and return the seconds of a whole and of a short call of every task, at base size."""
    keep_memory()
    network = UViT(TABLE).bfloat16().eval()
    lay_out(network)
    peak, found = Peak(torch.device("cpu")), {}
    print(f"\n## Seconds of a call at base size, bf16, {torch.get_num_threads()} threads\n")
    print("| task | tokens drawn | standing still | whole call | short call | short / whole |\n|---|--:|--:|--:|--:|--:|")
    for task in TASKS:
        given, _, drawn, absent = rows_of(TABLE, task, list(TABLE.names))
        latents = {row: torch.randn(1, *TABLE.latent_shape(row)) for row in TABLE.names}
        still = {**{row: (latents[row], 0.0) for row in given}, **{row: (latents[row], 1000.0) for row in absent}}
        now, times = {row: latents[row] for row in drawn}, {row: torch.full((1,), 500.0) for row in drawn}
        calls = [Call(network, drawn, still), Call(network, drawn, still, reuse=10**9)]
        took: list[list[float]] = [[], []]
        for call in (*calls, *calls):            # the first of the second is whole
            call(now, times)
        for _ in range(rounds):
            for call, one in zip(calls, took, strict=True):
                one.append(timed(peak.a.device, lambda call=call, now=now, times=times: call(now, times)))
        peak.measure()
        whole, short = found[task] = (statistics.median(took[0]), statistics.median(took[1]))
        tokens = [sum(1 + TABLE.tokens(row) for row in rows) for rows in (drawn, still)]
        print(f"| {task} | {tokens[0]} | {tokens[1]} | {whole:.3f} | {short:.3f} | {short / whole:.2f} |", flush=True)
    print(f"\npeak: {statistics.median(peak.found) / 1e9:.0f} GFLOP/s, {peak.shape}")
    return found


def print_frontier(took: Mapping[str, tuple[float, float]], results: Results) -> None:
    print("\n## The frontier: seconds of all calls of one sample at base size, and nano's error at worlds\n")
    print("| task | " + " | ".join(name(way) for way in WAYS) + " |\n|---|" + "---|" * len(WAYS))
    for task, by_place in results.items():
        whole, short = took[task]
        cost = [(n := -(-calls // reuse)) * whole + (calls - n) * short for calls, reuse in WAYS]
        off = [statistics.mean(of[name(way)]["latents"] for of in by_place.values()) for way in WAYS]
        print(f"| {task} | " + " | ".join(f"{s:.2f} s: {error:.4f}" for s, error in zip(cost, off, strict=True)) + " |")


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["seconds", *CONVERGED], help="only this one")
    parser.add_argument("--places", type=int, default=4, help="worlds at which the error is measured")
    parser.add_argument("--worlds", type=int, default=8, help="at which the distribution is")
    parser.add_argument("--samples", type=int, default=4, help="a world, for the distribution")
    parser.add_argument("--bare", action="store_true", help="nano without its canvas")
    parser.add_argument("--cells", type=Path, default=SAMPLES, help="a folder of TerraMesh cells")
    parser.add_argument("--results", type=Path, help="a file that keeps what is done")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    took = seconds() if options.part in (None, "seconds") else {}
    if options.part == "seconds":
        return
    model = CopGen.from_pretrained("nano", device="cpu", precision="fp32")
    results = run(options, model)
    for part, where in (("error", "synthetic worlds"), ("error at real cells", "real cells")):
        if part in results:
            print_errors(model, results[part], f"{where}, 200 whole calls of the same noise")
    if took:
        print_frontier(took, results["error"])
    if "distribution" in results:
        print_distribution(model, results["distribution"])


if __name__ == "__main__":
    main()
