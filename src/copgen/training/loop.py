"""What both trainings share: a loop whose randomness is a function of the step, EMA, checkpoints that resume bit for bit.

Everything drawn at a step comes from (seed, step) and the data order from (seed, epoch), so a checkpoint needs no random state: the
step, the weights, their average and the optimiser are the run.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.files import json_bytes, write_json, write_whole


@dataclass(frozen=True)
class Optimisation:
    """How weights are moved. Defaults are the backbone's of the paper (section 3.3.2)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    steps: int = 500_000
    batch: int = 4096
    learning_rate: float = 2e-4
    final_learning_rate: float = 0.0             # the floor of the decay
    decay_power: float = 0.0                     # (1 - step / steps) to this power; 0: constant
    warm_up: int = 5000                          # steps of linear growth from 0
    weight_decay: float = 0.03
    betas: tuple[float, float] = (0.99, 0.99)
    clip: float | None = None                    # the gradient's largest norm
    ema: float = 0.9999
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"steps {self.steps}, batch {self.batch}: both are 1 or more")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        decayed = self.learning_rate * (1 - min(step, self.steps) / self.steps) ** self.decay_power
        return max(decayed, self.final_learning_rate) * min((step + 1) / max(self.warm_up, 1), 1.0)


Losses = Mapping[str, Tensor]
StepLoss = Callable[[nn.Module, NDArray[np.int64], torch.Generator], tuple[Tensor, Losses]]    # network, sample numbers, noise -> loss
Report = Callable[[int, int, Mapping[str, float], float], object]                              # step, steps, losses, samples a second


def train(network: nn.Module, loss: StepLoss, samples: int, how: Optimisation, folder: Path, *, resume: bool = False,
          stop: int | None = None, save_every: int = 500, log_every: int = 20, report: Report | None = None) -> dict[str, Tensor]:
    """Train `network` in place; returns the averaged weights. The run's folder holds metrics.csv and checkpoint.pt.

    stop: the step to end at, where that is before the schedule's last.
    Raises ValueError for a folder that holds another run, and for a loss that is no number (the last checkpoint stays).
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=how.learning_rate, betas=how.betas, weight_decay=how.weight_decay)
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    checkpoint = free_for_run(folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    first = load_checkpoint(checkpoint, network, optimiser, average) if checkpoint.exists() else 0
    metrics = Metrics(folder / "metrics.csv", first)
    network.train()
    clock, since = time.perf_counter(), first
    last = how.steps if stop is None else min(stop, how.steps)
    for step in range(first, last):
        for group in optimiser.param_groups:
            group["lr"] = how.rate(step)
        generator = torch.Generator().manual_seed(seed_of(how.seed, step))
        with torch.autocast("cpu", torch.bfloat16, enabled=how.precision == "bf16"):
            total, parts = loss(network, batch_of(samples, how, step), generator)
        refuse_nan(folder, f"loss of step {step + 1}", total)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), math.inf if how.clip is None else how.clip)
        refuse_nan(folder, f"gradient of step {step + 1}", norm)
        optimiser.step()
        update_average(average, network, how.ema, step)
        done = step + 1
        if done % log_every == 0 or done == last:
            values = {"loss": float(total.detach()), **{name: float(part.detach()) for name, part in parts.items()}}
            speed = (done - since) * how.batch / (time.perf_counter() - clock)
            metrics.add(done, values)
            clock, since = time.perf_counter(), done
            if report:
                report(done, how.steps, values, speed)
        if done % save_every == 0 or done == last:
            save_checkpoint(checkpoint, done, network, optimiser, average)
    return average


def start_run(folder: Path, resume: bool, plan: Mapping[str, Any]) -> None:
    """Write the run's recipe.json; ValueError for a run that is there unasked, or was started otherwise (its length may change)."""
    checkpoint, record = free_for_run(folder, resume), folder / "recipe.json"
    settled = json.loads(json_bytes(plan))
    if checkpoint.exists() and record.exists():
        differing = [key for key, (before, now) in leaves(json.loads(record.read_text()), settled).items()
                     if before != now and not key.endswith("how.steps")]
        if differing:
            before, now = leaves(json.loads(record.read_text()), settled)[differing[0]]
            raise ValueError(f"{folder}: was started with {differing[0]} = {before!r}, not {now!r}; resume it with the recipe and data "
                             "that it was started with, or choose another folder")
    write_json(record, settled)


def leaves(one: Any, other: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Both values at every key path of two nests of dictionaries."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return {key: (one, other)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**one, **other}:
        found |= leaves(one.get(name), other.get(name), f"{key}.{name}" if key else name)
    return found


def free_for_run(folder: Path, resume: bool) -> Path:
    """The path of the folder's checkpoint; ValueError where there is one that nobody asked to go on from."""
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise ValueError(f"{folder}: holds a run already; go on with --resume or choose another folder")
    return checkpoint


def refuse_nan(folder: Path, what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        raise ValueError(f"{folder}: the {what} is {float(value.detach())}; the last checkpoint is intact: "
                         "go on from it with a lower learning rate or in fp32")


def seed_of(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def batch_of(samples: int, how: Optimisation, step: int) -> NDArray[np.int64]:
    """The numbers of a step's samples: each epoch a fresh order, batches running on across epochs."""
    wanted = np.arange(step * how.batch, (step + 1) * how.batch)
    epochs = wanted // samples
    orders = {epoch: np.random.default_rng([how.seed, 1, int(epoch)]).permutation(samples) for epoch in np.unique(epochs)}
    return np.array([orders[epoch][k % samples] for epoch, k in zip(epochs, wanted, strict=True)], np.int64)


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average; early on it forgets faster, so that short runs don't keep their random start."""
    keep = min(decay, (1 + step) / (10 + step))
    for name, tensor in network.state_dict().items():
        average[name].lerp_(tensor, 1 - keep) if tensor.is_floating_point() else average[name].copy_(tensor)


def save_checkpoint(path: Path, step: int, network: nn.Module, optimiser: torch.optim.Optimizer, average: Mapping[str, Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save({"step": step, "network": network.state_dict(), "average": dict(average), "optimiser": optimiser.state_dict()}, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor]) -> int:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average.update(state["average"])
        return int(state["step"])
    except Exception as error:
        raise ValueError(f"{path}: does not fit this run ({error}); use the recipe that it was started with") from error


class Metrics:
    """A CSV of losses; on resuming, rows after the checkpoint are cut off first."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        rows = list(csv.reader(path.read_text().splitlines())) if path.exists() else []
        kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) <= step]
        self.header = rows[0] if rows and kept else None
        write_whole(path, "".join(",".join(row) + "\n" for row in ([self.header] if self.header else []) + kept).encode())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            if self.header is None:
                self.header = ["step", *values]
                file.write(",".join(self.header) + "\n")
            file.write(",".join([str(step), *(f"{values[name]:.6g}" for name in self.header[1:])]) + "\n")
