"""How does a training go? Losses summed up over the steps between two lines, a CSV of them, and TensorBoard's curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from copgen.files import unwritten, write_whole


class Sums:
    """Means of named values over the steps since the last line. What is NaN (a row that no sample had) is left out of its mean."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}        # [2] each: the sum and the count of what is a number

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            pair = torch.stack([value.nansum().double(), (~value.isnan()).sum().double()])
            self.sums[name] = self.sums[name] + pair if name in self.sums else pair

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace this process's sums by those of all, `total` adding up a tensor over the processes."""
        if self.sums:
            names = list(self.sums)
            self.sums = dict(zip(names, total(torch.stack([self.sums[name] for name in names])).unbind(), strict=True))

    def means(self) -> dict[str, float]:
        return {name: float(pair[0] / pair[1]) for name, pair in self.sums.items()}


class Metrics:
    """A CSV of losses and, where tensorboard is installed, its event files; on resuming, what came after the checkpoint is cut off."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "metrics.csv"
        rows = list(csv.DictReader(self.path.read_text().splitlines())) if self.path.exists() else []
        self.rows = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) <= step and None not in row.values()]
        self.header = list(self.rows[0]) if self.rows else []
        self.board = board(folder, step)
        self.rewrite()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One more line and point of every curve; ValueError where the disk is full."""
        try:
            self._add(step, values)
        except OSError as error:
            raise ValueError(unwritten(self.path, error)) from error

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append({"step": str(step), **{name: f"{value:.6g}" for name, value in values.items()}})
        if new := [name for name in self.rows[-1] if name not in self.header]:
            self.header += new                   # the first line, or a player that begins later
            self.rewrite()
        else:
            with self.path.open("a") as file:
                file.write(self.line(self.rows[-1]))
        if self.board:
            for name, value in values.items():
                if not math.isnan(value):        # nothing of it was in any chunk
                    self.board.add_scalar(f"loss/{name}", value, step)
            self.board.flush()

    def line(self, row: Mapping[str, str]) -> str:
        return ",".join(row.get(name, "") for name in self.header) + "\n"

    def rewrite(self) -> None:
        lines = [",".join(self.header) + "\n"] if self.header else []
        write_whole(self.path, "".join(lines + [self.line(row) for row in self.rows]).encode())


def board(folder: Path, step: int) -> Any:
    """TensorBoard's writer, which hides what an earlier process wrote past `step`; None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
