"""What does an evaluation cost beside the drawing? Time and memory of scoring tiles x samples, of their rows and of all tables of these.

`python benchmarks/evaluation.py [--tiles 500] [--samples 16] [--quick]`

Samples are the truth with noise, which costs nothing to draw; S2L2A, LULC and place are scored. Each line is a process of its own, so that
its peak of memory is its own. The growth is the ratio of two lines of this run; the model's own time is not in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from copgen.evaluation.plan import Evaluation, Tools
from copgen.evaluation.recipe import Protocol, Recipe
from copgen.evaluation.run import evaluate
from copgen.modalities import TABLE, Table
from copgen.scene import Scene
from copgen.synthetic import world

SCORED = ("S2L2A", "LULC", "place")
GROUNDS = 8                                      # worlds; further tiles are these, shifted


class Tiles:
    """So many squares, each a world shifted by some pixels."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.ground = lru_cache(maxsize=GROUNDS)(world)

    def names(self) -> Sequence[str]:
        return [f"tile-{number:04d}" for number in range(self.count)]

    def observation(self, name: str) -> Scene:
        number = int(name[-4:])
        scene = self.ground(10_000_000 + number % GROUNDS)
        shift = number // GROUNDS
        layers = {row: np.roll(layer, shift * 60 // (TABLE[row].resolution or 60), -1) if TABLE[row].is_image else layer
                  for row, layer in scene.layers.items()}
        return Scene({**layers, "place": scene["place"] + [0, shift % 40]}, scene.footprint, name)

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        return []

    def record(self) -> dict[str, Any]:
        return {"tiles": self.count}


class Noisy:
    """The truth with noise of its own for each seed."""

    table = TABLE

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        return [case.with_layers({row: self.layer(case[row], row, seed) for row in want}, seed=seed) for seed in seeds]

    def layer(self, truth: np.ndarray, row: str, seed: int) -> np.ndarray:
        if row == "lulc":
            return np.roll(truth, seed, -1)
        noise = np.random.default_rng(seed).standard_normal(truth.shape, dtype=np.float32)
        return np.clip(truth + (300 if TABLE[row].is_image else 0.5) * noise, -89, None)

    def record(self) -> dict[str, Any]:
        return {"name": "noisy"}


def tiles(text: str, table: Table) -> Tiles:
    return Tiles(int(text))


def noisy(text: str, *, device: str = "cpu") -> Noisy:
    return Noisy()


def one(count: int, samples: int) -> dict[str, float]:
    """Score, write and tabulate in this process."""
    from copgen.evaluation.arrays import results_of
    from copgen.evaluation.distribution import distribution_tables
    from copgen.evaluation.rows import read_rows
    from copgen.evaluation.tables import paper_tables

    recipe = Recipe((Protocol("all-minus-target", without=(SCORED,)),), samples=samples)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = evaluate(Evaluation("noisy", str(count), recipe, Path(folder), tools=Tools(noisy, tiles)))
        scored, peak = time.perf_counter() - began, peak_memory()
        rows = read_rows(report.rows)
        results = results_of(rows)
        made = [*paper_tables(results), *distribution_tables(results)]
        return {"scoring s": scored, "scoring GB": peak, "rows": len(rows.frame), "file MB": report.rows.stat().st_size / 1e6,
                "tables s": time.perf_counter() - began - scored, "all GB": peak_memory(), "tables": len(made)}


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="8 tiles of 4 samples instead")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    most, many = (8, 4) if options.quick else (options.tiles, options.samples)
    lines = [(most // 4, many), (most // 2, many), (most, many), (most // 4, many // 4), (most // 4, many * 4)]
    print("| tiles | samples | scoring s | ms a tile | peak GB | rows | file MB | all tables s | peak GB |\n|" + "---|" * 9)
    found = {}
    for count, samples in lines:
        run = subprocess.run([sys.executable, __file__, "--one", str(count), str(samples)], capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        found[count, samples] = it = json.loads(run.stdout.splitlines()[-1])
        print(f"| {count} | {samples} | {it['scoring s']:.1f} | {1000 * it['scoring s'] / count:.0f} | {it['scoring GB']:.2f} | "
              f"{it['rows']:.0f} | {it['file MB']:.1f} | {it['tables s']:.1f} | {it['all GB']:.2f} |", flush=True)
    for what, (small, large) in {"tiles": (lines[0], lines[2]), "samples": (lines[3], lines[4])}.items():
        ratios = {key: found[large][key] / found[small][key] for key in ("scoring s", "scoring GB", "tables s", "all GB")}
        times = large[0] / small[0] if what == "tiles" else large[1] / small[1]
        print(f"{times:g} times the {what}: " + ", ".join(f"{key} x {ratio:.2f}" for key, ratio in ratios.items()))


if __name__ == "__main__":
    main()
