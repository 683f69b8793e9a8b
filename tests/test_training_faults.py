"""Full disks, corrupt shards, other recipes: each ends a training in one sentence, and its last checkpoint stays."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same_run
from numpy.typing import NDArray
from test_training_loop import HOW, SAMPLES, Line, files, run
from torch import Tensor, nn

from copgen.shards import open_shards, write_shards
from copgen.training.launch import has_compiler
from copgen.training.loop import Player, train
from copgen.training.run_folder import start_run


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_run_and_spares_its_checkpoint(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    run(tmp_path / "full", stop=6)
    before = {name: data for name, data in files(tmp_path / "full").items() if name.startswith("checkpoints")}
    left = r"the checkpoint of step 6 is intact: go on from it with --resume"
    with full_disk(2000), pytest.raises(ValueError, match=rf"12.pt: could not be written \(.+\) and nothing of it is left; .+; {left}"):
        run(tmp_path / "full", resume=True)
    assert {name: data for name, data in files(tmp_path / "full").items() if name.startswith("checkpoints")} == before
    run(tmp_path / "full", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "full")


def test_a_disk_that_is_full_for_the_log_ends_the_run_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "straight")
    opened = Path.open

    def full(path: Path, mode: str = "r", *args, **options):
        if mode == "a":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(ValueError, match=r"metrics.csv: could not be written \(No space left on device\).+free some space"):
            run(tmp_path / "full")
    run(tmp_path / "full", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "full")


def test_a_corrupt_shard_ends_the_run_and_spares_its_checkpoint(tmp_path: Path) -> None:
    x = np.arange(SAMPLES, dtype=np.float32)[:, None]
    shards = write_shards(tmp_path / "shards", SAMPLES, lambda numbers: {"x": x[numbers.start : numbers.stop]}, per_shard=5, meta={})

    shutil.copytree(shards.folder, tmp_path / "damaged")
    damaged = open_shards(tmp_path / "damaged")
    file = damaged.folder / "shard-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-9])

    class Reading(Line):
        def forward(self, numbers: NDArray[np.int64], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            source = damaged if self.steps > 8 else shards
            read = source.read(("x",), numbers)["x"][:, 0]
            return super().forward(np.asarray(read, np.int64), generator, step)

    left = r"the checkpoint of step 6 is intact: go on from it with --resume"
    with pytest.raises(ValueError, match=rf"shard-00001.safetensors: is damaged or gone \(.+\); delete it and run .+; {left}"):
        train({"line": Player(Reading())}, SAMPLES, HOW, tmp_path / "run", save_every=6, log_every=2)
    run(tmp_path / "run", resume=True)
    run(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_run_started_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    start_run(tmp_path, False, {"data": "a", "how": {"steps": 20, "batch": 4}})
    run(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"was started with how.batch = 4, not 8; resume it with the recipe and data that it was started"):
        start_run(tmp_path, True, {"data": "a", "how": {"steps": 20, "batch": 8}})
    with pytest.raises(ValueError, match=r"was started with data = 'a', not 'b'"):
        start_run(tmp_path, True, {"data": "b", "how": {"steps": 20, "batch": 4}})
    assert files(tmp_path) == before
    start_run(tmp_path, True, {"data": "a", "how": {"steps": 30, "batch": 4}})         # longer is allowed


def test_what_a_killed_writer_left_is_tidied_up(tmp_path: Path) -> None:
    run(tmp_path, stop=6)
    for left in (tmp_path / "checkpoints" / ".12.pt.123.part", tmp_path / ".metrics.csv.123.part"):
        left.write_bytes(b"half")
    run(tmp_path, resume=True)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("change, said", [
    ({"micro_batch": 3}, r"micro_batch 3: must divide the batch of 4"), ({"steps": 0}, r"steps 0, batch 4: both are 1 or more")])
def test_what_makes_no_sense_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(HOW, **change)


class Compiled(Line):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, 3))

    def forward(self, numbers: NDArray[np.int64], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.randn(len(numbers), 3, generator=generator)
        error = (self.network(x) - x).square().mean(1)
        return error.mean(), {"half": error / 2}


@pytest.mark.long
@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler")
def test_compiled_networks_learn_the_same(tmp_path: Path) -> None:
    compiled, plain = (train({"line": Player(Compiled())}, SAMPLES, replace(HOW, compile=compile), tmp_path / str(compile))
                       for compile in (True, False))
    assert compiled.keys() == plain.keys()
    assert max(float((compiled[name] - plain[name]).abs().max()) for name in plain) < 1e-4


def test_compiling_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"torch.compile needs a C\+\+ compiler and none was found; install g\+\+"):
        run(tmp_path, replace(HOW, compile=True))
    assert not (tmp_path / "checkpoints").exists()
