"""What did incomplete tuples, modality dropout, clean conditions, shared times and weights do? One small backbone, trained each way.

    python benchmarks/ablations.py --recipe recipes/nano.toml --vaes VAES --latents WORLDS --real REAL --unseen WORLDS

Every variant starts from the same weights and sees the same number of samples. What is printed is the squared error of the backbone's first
guess of the wanted rows' latents from pure noise, weighted by what each channel shows in the pixels, over what it would be for the mean of
all places: 1 is no better than guessing that mean, 0 is perfect. The guess from pure noise is about the conditional mean, so this is what
the given rows say of the wanted ones, before any sampling; figures above 1 come from the schedule, whose last step still holds a little
signal, which a network that learnt to read it also reads in pure noise. Unseen worlds; the last column is real squares, half of which were
trained on by the variants that can use them, and the other half measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import KLCodec
from copgen.diffusion import SCHEDULE
from copgen.shards import Mixed, Shards, open_shards
from copgen.store import load_codec
from copgen.training.backbone import train_backbone
from copgen.training.denoising import channel_weights, drawn_latents
from copgen.training.recipe import BackboneTraining, Recipe, read_recipe

SMALL = BackboneConfig(96, 2, 2, positions="ground", prediction="velocity", canvas=32, canvas_blocks=1)
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "+ incomplete tuples (real squares)": {"real": True},
    "+ modality dropout 0.5": {"modality_dropout": 0.5},
    "+ clean conditions 0.8": {"clean_conditions": 0.8},
    "+ shared times 0.8": {"shared_times": 0.8},
    "+ weights per_token": {"weights": "per_token"},
    "+ weights learned": {"weights": "learned"},
    "all but weights": {"real": True, "modality_dropout": 0.5, "clean_conditions": 0.8, "shared_times": 0.8},
}
TASKS = {
    "S2L2A / S2L1C": ("S2L1C", "S2L2A"),
    "S2L2A / DEM,LULC,place,date": ("DEM,LULC,place,date", "S2L2A"),
    "LULC / S2L2A": ("S2L2A", "LULC"),
    "S1RTC / S2L2A,DEM": ("S2L2A,DEM", "S1RTC"),
    "date / S2L2A": ("S2L2A", "date"),
    "S2L2A / nothing": ("", "S2L2A"),
}
REAL_TASK = ("S2L2A 20,60 m / 10 m, real", ("s2l2a_10m", "s2l2a_20m,s2l2a_60m"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    for name in ("vaes", "latents", "real", "unseen"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    codecs = {row: load_codec(arguments.vaes / row) for row in recipe.modalities.images}
    worlds, real, unseen = (open_shards(folder) for folder in (arguments.latents, arguments.real, arguments.unseen))
    seen, kept = halves(real)
    print(f"{arguments.steps} steps of {arguments.batch}, {len(worlds)} worlds, {len(seen)} real squares trained on, {len(kept)} measured")
    print("| | " + " | ".join([*TASKS, REAL_TASK[0]]) + " |\n|" + "---|" * (len(TASKS) + 2))
    for name, variant in VARIANTS.items():
        network = trained(recipe, variant, worlds, real, seen, codecs, arguments.steps, arguments.batch)
        figures = [first_guess(network, unseen, codecs, np.arange(min(192, len(unseen))), *task) for task in TASKS.values()]
        figures.append(first_guess(network, real, codecs, kept, *REAL_TASK[1]))
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)


def halves(real: Shards) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Squares with Sentinel-2 L2A, by patch (four squares each, one after the other): even patches, odd patches."""
    numbers = np.flatnonzero(real.present(["s2l2a_10m"], np.arange(len(real)))[:, 0])
    return numbers[(numbers // 4) % 2 == 0], numbers[(numbers // 4) % 2 == 1]


class Chosen(Shards):
    """Some samples of other shards."""

    def __init__(self, of: Shards, numbers: NDArray[np.int64]) -> None:
        super().__init__(of.folder, np.array([len(numbers)]), of.meta)
        object.__setattr__(self, "chosen", (of, numbers))

    def fill(self, out: dict[str, NDArray[Any]], rows: tuple[str, ...], numbers: NDArray[np.int64], where: NDArray[np.int64], count: int
             ) -> None:
        of, chosen = self.chosen                 # type: ignore[attr-defined]
        of.fill(out, rows, chosen[numbers], where, count)


def trained(recipe: Recipe, variant: Mapping[str, Any], worlds: Shards, real: Shards, seen: NDArray[np.int64],
            codecs: Mapping[str, KLCodec], steps: int, batch: int) -> UViT:
    settings = {key: value for key, value in variant.items() if key != "real"}
    how = replace(recipe.train.how, steps=steps, batch=batch, micro_batch=None, warm_up=20)
    plan = replace(recipe, backbone=SMALL, train=BackboneTraining(how, weighting="velocity", channels="natural", **settings))
    shards = Mixed([worlds, Chosen(real, seen)], [1, max(len(worlds) // (8 * len(seen)), 1)]) if variant.get("real") else worlds
    with tempfile.TemporaryDirectory() as folder:
        return train_backbone(plan, shards, codecs, Path(folder) / "run")


@torch.no_grad()
def first_guess(network: UViT, shards: Shards, codecs: Mapping[str, KLCodec], numbers: NDArray[np.int64], given: str, wanted: str) -> float:
    """Error of x_0 guessed at the last step over that of the mean latent; a mean over the wanted rows."""
    table = network.table
    factors = {row: codec.scaling_factor for row, codec in codecs.items()}
    rows = (*table.select(given), *table.select(wanted))
    generator = torch.Generator().manual_seed(0)
    x0 = drawn_latents(shards, table, factors, numbers, generator, rows)
    noise = {row: torch.randn(z.shape, generator=generator) for row, z in x0.items()}
    errors: dict[str, list[Tensor]] = {row: [] for row in table.select(wanted)}
    alpha, sigma = SCHEDULE.alpha_sigma(float(SCHEDULE.steps))
    for part in np.array_split(np.arange(len(numbers)), max(len(numbers) // 32, 1)):
        x = {row: noise[row][part] if row in errors else x0[row][part] for row in rows}
        times = {row: torch.full((len(part),), float(SCHEDULE.steps if row in errors else 0)) for row in rows}
        for row, eps in network(x, times).items():
            if row in errors:
                errors[row].append((x[row] - sigma * eps) / alpha - x0[row][part])
    shares = []
    for row, parts in errors.items():
        weights = channel_weights(codecs[row]) if row in codecs else torch.ones(())
        spread = x0[row] - x0[row].mean((0, 2, 3), keepdim=True)
        shares.append(float((torch.cat(parts).square() * weights).mean() / (spread.square() * weights).mean()))
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
