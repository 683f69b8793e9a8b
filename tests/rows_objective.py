"""A small objective for runs in several processes, which start as scripts: `python rows_objective.py FOLDER CASE...`.

A case is NAME:DEVICES:STRATEGY:PRECISION:STOP[:ACCIDENT]; its run's folder is FOLDER/NAME, and one that is there is gone on with. The
environment's READERS is the number of processes that read ahead for each, and PATIENCE the seconds that they wait for each other.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.training.launch import Devices, leave
from copgen.training.loop import Objective, Optimisation, Paused, Player, train

STEPS = 12


class Rows(Objective):
    """Four rows of which each chunk has one and never the fifth, and blocks that every chunk goes through."""

    def __init__(self, accident: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.ModuleDict({str(k): nn.Linear(4, 16) for k in range(5)})
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.often = nn.ModuleList([nn.Linear(16, 16)])
        self.head = nn.Linear(16, 4)
        self.accident = accident

    def forward(self, numbers: NDArray[np.int64], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        last = os.environ.get("LOCAL_RANK") == "1"
        if step == 7 and last and self.accident == "corrupt":
            raise ValueError("shard-00003.safetensors: is damaged or gone")
        if step == 7 and last and self.accident == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if step == 7 and last and self.accident == "stall":
            time.sleep(3 * patience())
        x = torch.randn(len(numbers), 4, generator=generator, dtype=torch.float64).to(self.head.weight.dtype)
        row = int(numbers[0]) % 4
        h = self.embed[str(row)](x)
        for block in self.blocks:
            h = h + torch.tanh(block(h))
        if row % 2 or self.accident != "seldom":
            h = h + self.often[0](h)
        error = (self.head(h) - x.flip(1)).square().mean(1)
        return error.mean(), {"error": error, "odd": error.mean() if row % 2 else torch.tensor(float("nan"))}


def how(precision: str) -> Optimisation:
    return Optimisation(steps=STEPS, batch=12, micro_batch=3, learning_rate=1e-2, warm_up=3, clip=1.0, ema=0.9, precision=precision)


def patience() -> float:
    return float(os.environ.get("PATIENCE", "1800"))


def run(folder: Path, case: str) -> dict[str, Tensor]:
    name, count, strategy, precision, stop, *accident = case.split(":")
    devices, readers = Devices(int(count), 1, strategy, "cpu", patience()), int(os.environ.get("READERS", "0"))
    return train({"rows": Player(Rows(*accident))}, 50, how(precision), folder / name, devices=devices, workers=readers, resume=True,
                 save_every=5, log_every=4, stop=int(stop))


if __name__ == "__main__":
    torch.set_num_threads(1)
    code = 0
    for case in sys.argv[2:]:
        try:
            run(Path(sys.argv[1]), case)
        except SystemExit:                       # not the first process: it goes on with the next case
            continue
        except Paused as pause:
            print(pause, file=sys.stderr)
            code = pause.code
        except ValueError as error:
            traceback.print_exc()                # where this process was, should it have waited in vain
            print(f"error: {error}", file=sys.stderr)
            code = 2
        if code:
            break
    leave(code)                                  # as the commands do
