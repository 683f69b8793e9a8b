"""How fast is a training step of the backbone, and what share of the best matrix product of this machine is that?

`python benchmarks/training.py [--size base] [--batch 8] [--micro-batch 2] [--steps 3]` prints samples a second, the operations of the
forward and backward passes (three times the forward's) a second, and their share of the bf16 product measured between the steps: of
834 x 1024 x 4096 on a CPU, of 8192 cubed on a GPU. A step is whole: drawing, noising, both passes, clipping, optimiser, average. On a GPU
it goes through batches, with and without torch.compile and activation checkpointing. Goals: 60 % on a CPU, 50 % on an H100.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from copgen.backbone import BackboneConfig, UViT
from copgen.modalities import Table
from copgen.training.ahead import reading
from copgen.training.denoising import Denoising
from copgen.training.game import Game
from copgen.training.launch import Devices
from copgen.training.loop import Optimisation, Player
from copgen.training.order import order_of
from copgen.training.recipe import BackboneTraining, Recipe, read_recipe
from copgen.training.run_folder import Checkpoints

RECIPES = Path(__file__).parents[1] / "recipes"
GPU_BATCHES = (32, 64, 128)                      # samples a forward pass


class RandomMoments:
    """Moments of as many samples as asked for, all alike: what is read costs next to nothing, as from a warm page cache."""

    def __init__(self, table: Table) -> None:
        random = np.random.default_rng(0)
        self.arrays = {}
        for row in table.names:
            z, height, width = table.latent_shape(row)
            self.arrays[row] = random.normal(size=(2 * z if table[row].is_image else z, height, width)).astype(np.float16)

    def read(self, rows: Sequence[str], numbers: np.ndarray) -> dict[str, np.ndarray]:
        return {row: np.repeat(self.arrays[row][None], len(numbers), 0) for row in rows}

    def present(self, rows: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        return np.ones((len(numbers), len(rows)), bool)


class Peak:
    """The best matrix product, measured between the steps so that both meet the same load of the machine."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.bfloat16, tokens: int = 834, rounds: int = 20) -> None:
        m, k, n = (8192, 8192, 8192) if device.type == "cuda" else (tokens, 1024, 4096)
        self.a, self.b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
        self.operations, self.shape, self.rounds = 2 * m * k * n, f"{m} x {k} x {n}", rounds
        self.found: list[float] = []

    def measure(self) -> float:
        """Operations a second over some rounds."""
        self.a @ self.b
        seconds = timed(self.a.device, lambda: [self.a @ self.b for _ in range(self.rounds)])
        self.found.append(self.rounds * self.operations / seconds)
        return self.found[-1]


def clock_of(device: torch.device) -> Callable[[], float]:
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds; of one thread's own time where there is one only, so that other work on the machine counts as little as may be."""
    clock = clock_of(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def forward_operations(table: Table, config: BackboneConfig) -> int:
    """Of one sample, counted by torch without computing anything."""
    with torch.device("meta"):
        network = UViT(table, replace(config, positions="random"))
        latents = {row: torch.zeros(1, *table.latent_shape(row)) for row in table.names}
        times = {row: torch.zeros(1) for row in table.names}
        with FlopCounterMode(display=False) as counter:
            network.trunk(torch.cat([network.tokens(row, latents[row], times[row]) for row in table.names], dim=1))
    heads = sum(2 * table.tokens(row) * network.head[row].weight.numel() for row in table.names)
    return counter.get_total_flops() + heads


def game_of(recipe: Recipe, how: Optimisation, checkpointing: bool, folder: Path) -> Game:
    torch.manual_seed(0)
    network = UViT(recipe.modalities, recipe.backbone)
    network.activation_checkpointing = checkpointing
    codecs = dict.fromkeys(recipe.modalities.images, SimpleNamespace(scaling_factor=0.5))       # all that a training asks of them
    objective = Denoising(network, BackboneTraining(), RandomMoments(recipe.modalities), codecs)
    return Game(Devices().launch(how.precision), {"backbone": Player(objective)}, how, Checkpoints(folder, 1))


def measure(recipe: Recipe, how: Optimisation, checkpointing: bool, steps: int, peak: Peak, operations: int) -> dict[str, float]:
    """Medians over steps, each against the products just before and after it."""
    with tempfile.TemporaryDirectory() as folder:
        game = game_of(recipe, how, checkpointing, Path(folder))
    device = game.fabric.device
    (seat,) = game.seats
    turn, passes, clock = seat.turn, [], clock_of(device)
    seat.turn = lambda *arguments: (passes.append(clock()), turn(*arguments), passes.append(clock()))[1]
    speeds, shares, both = [], [], []
    with reading(game.readers, game.tasks(order_of(10_000, 0), 0, 1 + steps), 0, how.precision) as chunks:
        game.play(chunks, 0)                     # what the first step prepares
        best = [peak.measure()]
        for step in range(1, 1 + steps):
            seconds = timed(device, lambda step=step: game.play(chunks, step))
            best.append(peak.measure())
            speeds.append(how.batch / seconds)
            rate = 3 * operations * how.batch / seconds
            shares.append(rate / statistics.mean(best[-2:]))
            both.append((passes[-1] - passes[-2]) / seconds)
    return {"samples/s": statistics.median(speeds), "share": statistics.median(shares), "passes": statistics.median(both)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["base", "nano"], default="base")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = read_recipe(RECIPES / "nano.toml") if options.size == "nano" else Recipe("base")
    gpu, operations = torch.cuda.is_available(), forward_operations(recipe.modalities, recipe.backbone)
    peak = Peak(torch.device("cuda" if gpu else "cpu"))
    where = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    tokens = sum(1 + recipe.modalities.tokens(row) for row in recipe.modalities.names)
    print(f"{recipe.name}: {tokens} tokens, {operations / 1e9:.2f} GFLOP a forward pass of a sample; {where}; bf16")
    variants = itertools.product(GPU_BATCHES, (False, True), (False, True)) if gpu else [(options.micro_batch, False, False)]
    shares = []
    for micro, compiled, checkpointing in variants:
        batch = micro * 2 if gpu else options.batch
        how = Optimisation(batch=batch, micro_batch=micro, precision="bf16", compile=compiled)
        try:
            found = measure(recipe, how, checkpointing, options.steps, peak, operations)
        except torch.cuda.OutOfMemoryError:
            print(f"batch {batch} in passes of {micro or batch}, compile {compiled}, checkpointing {checkpointing}: out of memory")
            continue
        shares.append(found["share"])
        print(f"batch {batch} in passes of {micro or batch}, compile {compiled}, checkpointing {checkpointing}: {found['samples/s']:.3g} "
              f"samples/s, {3 * operations * found['samples/s'] / 1e12:.3g} TFLOP/s, {found['share']:.1%} of the peak; "
              f"{found['passes']:.0%} of the time in the passes", flush=True)
    goal = 0.5 if gpu else 0.6
    low, middle, high = (best(peak.found) / 1e12 for best in (min, statistics.median, max))
    met = "met" if max(shares, default=0.0) >= goal else "missed"
    print(f"peak: {middle:.3g} TFLOP/s, bf16, {peak.shape}, median of {len(peak.found)} ({low:.3g} .. {high:.3g}); goal {goal:.0%}: {met}")


if __name__ == "__main__":
    main()
