"""`python kill_storm.py FOLDER STEPS KILLS SEED`: trains in FOLDER/peace and, under kill -9 at random moments, in FOLDER/storm.

Prints how many kills there were and how many of them fell into the writing of a file. Children are forked, so that they begin at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import lightning_fabric  # noqa: F401
import numpy as np
import torch
import torch.utils.tensorboard
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.training.loop import Objective, Optimisation, Player, train


class Denoiser(Objective):
    """Large enough that its checkpoint takes a while to write."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(16, 4096), nn.GELU(), nn.Linear(4096, 16))
        self.data = (torch.randn(50, 16),)

    def forward(self, numbers: NDArray[np.int64], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.data[0][numbers]
        error = (self.network(x + torch.randn(x.shape, generator=generator)) - x).square().mean(1)
        return error.mean(), {"error": error}


def trained(folder: Path, steps: int) -> None:
    how = Optimisation(steps=steps, batch=8, micro_batch=4, learning_rate=1e-3, decay_power=1.0, warm_up=10, clip=1.0, ema=0.99)
    average = train({"denoiser": Player(Denoiser())}, 50, how, folder, resume=True, save_every=1, log_every=7, keep_every=50)
    torch.save(average, folder / "final.pt")


def forked(folder: Path, steps: int) -> int:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        trained(folder, steps)
        os._exit(0)
    return child


def storm(folder: Path, steps: int, kills: int, seed: int) -> dict[str, int]:
    """Kill until `kills` have been made or the training ends; then let it end."""
    moments, done, during = random.Random(seed), 0, 0
    while done < kills and not (folder / "final.pt").exists():
        child, before, gone = forked(folder, steps), newest(folder), 0
        while newest(folder) == before and not gone:
            time.sleep(0.002)                    # each child gets a step further, so that there is an end
            gone = os.waitpid(child, os.WNOHANG)[0]
        if not gone:
            until, share = time.monotonic() + moments.uniform(0, 0.1), steps * (done + 1) // (kills + 1)
            while time.monotonic() < until and newest(folder) < share:       # fast machines leave steps for the kills to come
                time.sleep(0.001)
            os.kill(child, signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            done += killed
            during += killed and any(folder.rglob("*.part"))
    if not (folder / "final.pt").exists():
        os.waitpid(forked(folder, steps), 0)
    return {"kills": done, "during a write": during}


def newest(folder: Path) -> int:
    return max((int(path.stem) for path in (folder / "checkpoints").glob("*.pt")), default=0)


if __name__ == "__main__":
    there, numbers = Path(sys.argv[1]), [int(argument) for argument in sys.argv[2:]]
    os.waitpid(forked(there / "peace", numbers[0]), 0)
    print(json.dumps(storm(there / "storm", *numbers)))
