"""What a model has learnt: Sentinel-2 L2A given L1C against given nothing, on worlds it never saw.

`python benchmarks/nano.py [--model nano] [--worlds 48]` prints the mean absolute error of each over all bands (equal weight a band,
DN), bootstrap intervals over worlds, their ratio, and the codecs' own reconstruction error, which is the floor. Exit status 1 says
that nothing was learnt: the intervals overlap. The goal, a ratio of at most 0.6, is printed as met or missed.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from copgen.model import CopGen
from copgen.synthetic import world

UNSEEN = 10_000_000                              # trainings draw far smaller seeds: another world, another place


def band_errors(truth: dict[str, np.ndarray], sample: dict[str, np.ndarray], rows: tuple[str, ...]) -> float:
    """Mean absolute error, every band of these rows weighing the same."""
    return float(np.concatenate([np.abs(truth[row] - sample[row]).mean(axis=(1, 2)) for row in rows]).mean())


def interval(values: np.ndarray, rng: np.random.Generator, draws: int = 2000) -> tuple[float, float]:
    """The central 95 % of the mean under resampling of worlds."""
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--worlds", type=int, default=48)
    parser.add_argument("--steps", type=int, default=None)
    options = parser.parse_args()
    model = CopGen.from_pretrained(options.model)
    rows = model.table.select("S2L2A")
    errors: dict[str, list[float]] = {"codec alone": [], "given S2L1C": [], "given nothing": []}
    for number in range(options.worlds):
        truth = world(UNSEEN + number, model.table)
        drawn = {
            "codec alone": model.reconstruct(truth.only("S2L2A")),
            "given S2L1C": model.generate(truth.only("S2L1C"), "S2L2A", seeds=[number], steps=options.steps)[0],
            "given nothing": model.generate(None, "S2L2A", seeds=[number], steps=options.steps)[0],
        }
        for what, sample in drawn.items():
            errors[what].append(band_errors(truth.layers, sample.layers, rows))
    rng = np.random.default_rng(0)
    print(f"{model.name}: mean absolute error of S2L2A, {options.worlds} unseen worlds, 1 sample each, all 12 bands, DN")
    for what, values in errors.items():
        low, high = interval(np.array(values), rng)
        print(f"{what:>14}: {np.mean(values):7.1f}   95 % interval {low:7.1f} .. {high:7.1f}")
    conditioned, free = np.array(errors["given S2L1C"]), np.array(errors["given nothing"])
    draws = rng.integers(0, len(free), (2000, len(free)))
    ratios = conditioned[draws].mean(1) / free[draws].mean(1)
    ratio = conditioned.mean() / free.mean()
    apart = interval(conditioned, rng)[1] < interval(free, rng)[0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    print(f"ratio given S2L1C / given nothing: {ratio:.3f}   95 % interval {low:.3f} .. {high:.3f}   "
          f"(goal: at most 0.6, {'met' if ratio <= 0.6 else 'missed'}); the two intervals above are {'' if apart else 'not '}apart")
    sys.exit(0 if apart else 1)


if __name__ == "__main__":
    main()
