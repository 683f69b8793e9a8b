"""What a model has learnt: the table of goals, in Markdown, with bootstrap intervals over places.

`python benchmarks/nano.py [--model nano] [--worlds 12] [--quick] [--results FILE]`

Worlds have seeds that no training draws; real cells are the TerraMesh cells of COPGEN_SAMPLES or ../shared/data/terramesh and are left
out where there are none. Scores are of 16 samples a place: the error of their mean (classes: of their mode) and the CRPS of the ensemble,
beside the absolute error of baselines that were fitted on other places (worlds of other seeds; for a real cell the other real cells).
The intervals are bootstraps over places: of three cells they say little, so each cell's figure stands beside its mean.
With --results every figure is kept as it is made, and a second run goes on. Exit status 1 says that nothing was learnt: S2L2A
given S2L1C is no better than a constant. Goals that are missed are told, and no failure.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from goals.measures import RUNGS, How
from goals.places import seeds_near
from goals.running import Plan, run, units_of
from goals.table import averaged, markdown, rows, split

from copgen.diffusion import default_steps

SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[2] / "shared" / "data" / "terramesh"))
LATITUDES = {"50 N": 50.0, "40 S": -40.0}


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--worlds", type=int, default=12, help="a task; the ladder takes half as many, each latitude a quarter")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--many", type=int, default=32, help="samples where a distribution is looked at")
    parser.add_argument("--steps", type=int, default=None, help="network calls a sample; the solver's default where not given")
    parser.add_argument("--quick", action="store_true", help="2 worlds, few samples: under a minute, and no figure to quote")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cells", type=Path, default=SAMPLES, help="a folder of TerraMesh cells")
    parser.add_argument("--results", type=Path, default=None, help="a file that keeps what is done")
    options = parser.parse_args(arguments)
    if options.quick:
        options.worlds, options.samples, options.many = 2, 3, 6
    return options


def main() -> None:
    options = options_of()
    began = time.monotonic()
    how = How(options.samples, options.many, options.steps, bank=64 if options.quick else 256)
    cells = options.cells if options.cells.is_dir() else None
    names = sorted(path.stem for path in (cells / "S2L2A").glob("*.tif")) if cells else []
    green = {where: seeds_near(lat, max(options.worlds // 4, 1)) for where, lat in LATITUDES.items()}
    plan = Plan(options.model, how, options.device, options.processes, cells, fitted=16 if options.quick else 48)
    results = run(plan, units_of(options.worlds, names, green, len(RUNGS)), options.results)
    calls = options.steps or default_steps("default")
    print(f"{options.model}: {options.worlds} unseen worlds (seeds from 10000000), {len(names)} real cells, "
          f"{how.samples} or {how.many} samples a place of {calls} network calls; {(time.monotonic() - began) / 60:.1f} minutes")
    print("the real cells are left out: there are none in " + str(options.cells) + "\n" if not names else "")
    print(markdown(rows(results, how, calls)))
    worlds = dict(split(results["correction"]))["worlds"]
    learnt = averaged(worlds, "crps").value < averaged(worlds, "constant").value
    sys.exit(0 if learnt else 1)


if __name__ == "__main__":
    main()
