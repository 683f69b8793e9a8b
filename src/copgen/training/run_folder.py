"""What is in a run's folder? Its recipe, its previews and its checkpoints, each of them there whole or not at all."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from copgen.files import json_bytes, make_folder, unwritten, write_json
from copgen.training.launch import is_first_process

State = dict[str, Any]
KEPT = 2                                         # the newest, and the one before it for the day when the newest is found damaged
FREE = ("how.steps", "how.save_every", "how.keep_every")      # of a recipe: what may change while a run goes on


class Checkpoints:
    """`checkpoints/<step>.pt`: the newest ones and one every `keep_every` steps."""

    def __init__(self, folder: Path, keep_every: int) -> None:
        self.folder, self.keep_every = folder / "checkpoints", keep_every

    def steps(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"{step}.pt"

    def save(self, step: int, state: State) -> None:
        """Write one, whole or not at all, then remove those that are no longer needed; ValueError where it can't be written."""
        path = self.path(step)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            make_folder(self.folder)
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())          # a full disk or quota may show only here
            part.replace(path)
        except (OSError, RuntimeError) as error:     # torch's writer says RuntimeError when a write failed half-way
            with suppress(OSError):
                part.unlink(missing_ok=True)
            cause = error if isinstance(error, OSError) else OSError(str(error).splitlines()[0])
            raise ValueError(f"{unwritten(path, cause)}; {self.way_on()}") from error
        for old in self.steps()[:-KEPT]:
            if old % self.keep_every:
                self.path(old).unlink(missing_ok=True)

    def load(self, first: bool = True) -> State | None:
        """The newest that can be read, warning of those that can't; None without any. ValueError where none of several can be read.

        first: whether this is the process that writes, and tidies up after one that was killed while it wrote.
        """
        for path in [*self.folder.glob(".*.part"), *self.folder.parent.glob(".*.part")] if first else []:
            path.unlink(missing_ok=True)
        steps = self.steps()
        for step in reversed(steps):
            try:
                return dict(torch.load(self.path(step), map_location="cpu", weights_only=True, mmap=True))
            except Exception as error:           # torch.load raises many kinds
                warnings.warn(f"{self.path(step)}: is damaged ({first_line(error)}); trying the one before it", stacklevel=2)
        if steps:
            raise ValueError(f"{self.folder}: none of its {len(steps)} checkpoints can be read; delete the folder {self.folder.parent} and "
                             "train anew")
        return None

    def way_on(self) -> str:
        """What is left to go on from, for the end of an error's sentence."""
        steps = self.steps()
        return f"the checkpoint of step {steps[-1]} is intact: go on from it with --resume" if steps else "there is no checkpoint yet"


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].strip(" .") or type(error).__name__


def start_run(folder: Path, resume: bool, plan: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
    """Write the run's recipe.json; ValueError for a run that is there unasked, or was started otherwise (its length may change).

    defaults: what a run was started with whose record lacks a key, as those have that are older than the key.
    """
    refuse_run(folder, resume)
    record, settled = folder / "recipe.json", json.loads(json_bytes(plan))
    if has_run(folder) and record.exists():
        both = leaves(filled(json.loads(record.read_text()), defaults), settled)
        differing = [key for key, (before, now) in both.items() if before != now and not key.endswith(FREE)]
        if differing:
            before, now = both[differing[0]]
            raise ValueError(f"{folder}: was started with {differing[0]} = {before!r}, not {now!r}; resume it with the recipe and data "
                             "that it was started with, or choose another folder")
    if is_first_process():
        write_json(record, settled)


def has_run(folder: Path) -> bool:
    return bool(Checkpoints(folder, 1).steps())


def refuse_run(folder: Path, resume: bool) -> None:
    """ValueError for a folder with a run's checkpoints that was not asked to go on."""
    if has_run(folder) and not resume:
        raise ValueError(f"{folder}: holds a run already; go on with --resume or choose another folder")


def filled(record: Any, defaults: Any) -> Any:
    """A nest of dictionaries with what it lacks of another."""
    if not (isinstance(record, Mapping) and isinstance(defaults, Mapping)):
        return record
    return {**defaults, **{key: filled(value, defaults.get(key)) for key, value in record.items()}}


def leaves(one: Any, other: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Both values at every key path of two nests of dictionaries."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return {key: (one, other)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**one, **other}:
        found |= leaves(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
    return found
