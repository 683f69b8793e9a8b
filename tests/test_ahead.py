"""What other processes read ahead is what would have been read in place, bit for bit; they come and go with the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, assert_same, assert_same_run, last_checkpoint
from numpy.typing import NDArray
from test_denoising import CODECS, RECIPE, moments
from test_devices import SCRIPT, ended, started
from test_training_loop import HOW, SAMPLES, Line, run
from torch import Tensor

from copgen.shards import Mixed, Shards, open_shards, write_shards
from copgen.training.ahead import Task, as_they_are, reading
from copgen.training.backbone import train_backbone
from copgen.training.loop import Optimisation, Player, train
from copgen.training.recipe import BackboneTraining, CodecTraining, Recipe
from copgen.training.sources import Worlds
from copgen.training.vae import train_vae

TEN = Optimisation(steps=10, batch=6, micro_batch=3, learning_rate=1e-3, warm_up=1, seed=2)
ALL_OPTIONS = BackboneTraining(TEN, modality_dropout=0.5, clean_conditions=0.5, shared_times=0.5, weights="learned")


def mixed_moments(folder: Path) -> Mixed:
    return Mixed([moments(folder / "whole"), moments(folder / "lacking", samples=3, lacking={0: ("s1rtc",), 1: ("dem", "date")})], [1, 3])


@pytest.mark.parametrize("precision, shards_mixed", [("fp32", None), ("fp32", 2), ("fp64", None)])
def test_ten_steps_of_a_backbone_are_the_same_for_any_number_of_readers(tmp_path: Path, precision: str, shards_mixed: int | None) -> None:
    how = replace(TEN, precision=precision, shards_mixed=shards_mixed)
    recipe, shards = replace(RECIPE, train=replace(ALL_OPTIONS, how=how)), mixed_moments(tmp_path)
    for workers in (0, 1, 2):
        train_backbone(recipe, shards, CODECS, tmp_path / str(workers), workers=workers)
    for workers in (1, 2):
        assert_same_run(tmp_path / "0", tmp_path / str(workers))


def test_steps_of_a_codec_and_its_opponent_are_the_same_for_any_number_of_readers(tmp_path: Path) -> None:
    """Two players, of whom the second joins later and is shown the same crops; worlds are made by the readers."""
    plan = CodecTraining(replace(TEN, steps=5, batch=2, micro_batch=1), adversarial_from=3)
    recipe: Recipe = replace(RECIPE, train_vae=plan)
    made = [train_vae("s2l2a_60m", recipe, Worlds(0, 3, TINY), tmp_path / str(workers), workers=workers) for workers in (0, 2)]
    assert_same_run(tmp_path / "0", tmp_path / "2")
    assert made[0].scaling_factor == made[1].scaling_factor


class ReadLine(Line):
    """A line whose samples lie in shards and are drawn from where they are read."""

    def __init__(self, shards: Shards) -> None:
        super().__init__()
        self.reader = lambda numbers, generator: (torch.from_numpy(shards.read(("x",), numbers)["x"]),
                                                  torch.randn(len(numbers), 3, generator=generator), os.getpid())
        self.readers: set[int] = set()

    def forward(self, data: tuple[Tensor, Tensor, int], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, noise, reader = data
        self.readers.add(reader)
        loss, parts = super().forward(x[:, 0].numpy(), generator, step)
        return loss + 0 * noise.sum() + (noise[0, 0] * self.weight).sum(), parts


def line_shards(folder: Path) -> Shards:
    x = np.arange(SAMPLES, dtype=np.int64)[:, None]
    return write_shards(folder, SAMPLES, lambda numbers: {"x": x[numbers.start : numbers.stop]}, per_shard=3, meta={})


def read_run(folder: Path, shards: Shards, workers: int, **options) -> ReadLine:
    line = ReadLine(shards)
    train({"line": Player(line)}, shards.counts, HOW, folder, **{"save_every": 6, "log_every": 2, "workers": workers, **options})
    return line


def test_a_run_goes_on_with_another_number_of_readers(tmp_path: Path) -> None:
    shards = line_shards(tmp_path / "shards")
    assert read_run(tmp_path / "straight", shards, 0).readers == {os.getpid()}
    for stop, workers in ((6, 2), (10, 0), (14, 1), (20, 2)):
        line = read_run(tmp_path / "changing", shards, workers, stop=stop, resume=True)
        assert len(line.readers) == max(workers, 1) and (os.getpid() in line.readers) == (workers == 0)
    assert_same_run(tmp_path / "straight", tmp_path / "changing")


def children() -> list[int]:
    """The processes that this one has started and that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(status.parent.name))
    return found


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


@linux
def test_a_reader_that_dies_ends_the_run_in_one_sentence_and_spares_its_checkpoint(tmp_path: Path) -> None:
    shards = line_shards(tmp_path / "shards")
    there = children()

    class Murderous(ReadLine):
        def forward(self, data, generator, step):
            if step == 8:
                os.kill(next(pid for pid in children() if pid not in there), signal.SIGKILL)
                time.sleep(0.5)
            return super().forward(data, generator, step)

    with pytest.raises(ValueError, match=r"a process that reads ahead has died \(.+ killed by signal: Killed\); go on with --resume"):
        train({"line": Player(Murderous(shards))}, shards.counts, HOW, tmp_path / "run", save_every=6, log_every=2, workers=2)
    assert last_checkpoint(tmp_path / "run")["step"] == 6 and children() == there
    read_run(tmp_path / "run", shards, 2, resume=True)
    read_run(tmp_path / "straight", shards, 0)
    assert_same_run(tmp_path / "straight", tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_ends_the_run_when_its_turn_has_come(tmp_path: Path, workers: int) -> None:
    """The same sentence, and the same steps before it, whoever reads."""
    shards = line_shards(tmp_path / "shards")
    seen: list[int] = []

    class Watching(ReadLine):
        def forward(self, data, generator, step):
            seen.append(step)
            return super().forward(data, generator, step)

    file = shards.folder / "shard-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"^\S+shard-00001.safetensors: is damaged or gone \(.+\); delete it and run .+; there is no"):
        train({"line": Player(Watching(open_shards(shards.folder)))}, shards.counts, HOW, tmp_path / "run", workers=workers)
    numbers = np.random.default_rng([HOW.seed, 1, 0]).permutation(SAMPLES)
    assert len(seen) == next(k for k in range(3) if ((numbers[4 * k : 4 * k + 4] // 3) == 1).any())


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_pauses_the_run_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """As a batch system and a terminal send it: to the training and its readers alike."""
    folder = tmp_path / "paused"
    line_shards(tmp_path / "shards")
    script = ("import sys, test_ahead; from pathlib import Path; from copgen.training.loop import Paused\n"
              "try: test_ahead.slow(Path(sys.argv[1]), Path(sys.argv[2]))\n"
              "except Paused as pause: print(pause, pause.code)")
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "shards"), str(folder)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).parent,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not list((folder / "checkpoints").glob("*.pt")):
        time.sleep(0.05)
    os.killpg(process.pid, number)
    said, errors = process.communicate(timeout=60)
    assert f"saved; go on with --resume {128 + number}" in said and not errors, (said, errors)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    shards = open_shards(tmp_path / "shards")
    read_run(folder, shards, 0, resume=True, save_every=1)
    read_run(tmp_path / "straight", shards, 0)
    assert_same(last_checkpoint(tmp_path / "straight"), last_checkpoint(folder))


def test_readers_of_several_processes_each_read_that_ones_chunks(tmp_path: Path) -> None:
    """Two processes with two readers each, and two without any: bit for bit the same."""
    counts = {"without": "0", "with": "2"}
    runs = [started([SCRIPT, str(tmp_path), f"{name}:2:ddp:fp32:12"], {"READERS": count}) for name, count in counts.items()]
    for code, said in map(ended, runs):
        assert code == 0, said
    assert_same(last_checkpoint(tmp_path / "without"), last_checkpoint(tmp_path / "with"))


@linux
@pytest.mark.long
def test_readers_end_when_their_training_was_killed(tmp_path: Path) -> None:
    """kill -9 leaves no time to tell them; they look every five seconds."""
    line_shards(tmp_path / "shards")
    script = "import sys, test_ahead; from pathlib import Path; test_ahead.slow(Path(sys.argv[1]), Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "shards"), str(tmp_path / "run")], start_new_session=True,
                               cwd=Path(__file__).parent, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not list((tmp_path / "run" / "checkpoints").glob("*.pt")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, 0)            # the readers are of its group
            time.sleep(0.2)


def slow(shards: Path, folder: Path) -> None:
    """A run that is still going when it gets a signal."""

    class Slow(ReadLine):
        def forward(self, data, generator, step):
            time.sleep(0.3)
            return super().forward(data, generator, step)

    opened = open_shards(shards)
    train({"line": Player(Slow(opened))}, opened.counts, HOW, folder, save_every=1, log_every=2, workers=2)


def test_no_more_is_read_ahead_than_was_agreed(tmp_path: Path) -> None:
    """Memory is bounded by the chunks that wait: two a reader, and the one in use."""
    def note(numbers: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
        (tmp_path / str(numbers[0])).touch()
        return numbers

    tasks = [Task(0, np.array([k]), k) for k in range(50)]
    with reading([note], tasks, 2, "fp32") as chunks:
        for k in range(5):
            assert next(chunks).data.tolist() == [k]
            time.sleep(0.2)
            assert len(list(tmp_path.iterdir())) <= k + 1 + 2 * 2


def test_readers_draw_before_the_objective_and_from_the_same_generator() -> None:
    def draws(numbers: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        return torch.rand(3, generator=generator)

    whole = torch.rand(5, generator=torch.Generator().manual_seed(7))
    for workers in (0, 1):
        before = torch.get_rng_state()
        with reading([as_they_are, draws], [Task(1, np.arange(2), 7)], workers, "fp32") as chunks:
            (chunk,) = list(chunks)
        assert torch.equal(torch.cat([chunk.data, torch.rand(2, generator=chunk.generator)]), whole)
        assert torch.equal(torch.get_rng_state(), before)                            # nobody else's draws are moved


def test_a_number_of_readers_that_means_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--workers -1: processes that read ahead are 0 or more"):
        run(tmp_path, workers=-1)
