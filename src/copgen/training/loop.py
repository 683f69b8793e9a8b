"""What both trainings share: players that take turns, a loop whose randomness is a function of the step, runs that resume bit for bit.

Everything drawn at a step comes from (seed, step, chunk) and the data order from (seed, epoch), so a checkpoint needs no random state: the
step, the weights, their average and the optimisers are the run. Chunks are dealt out to the devices in turn, whatever their number is: one
device and many see the same samples with the same noise, and differ by the order of summation only. How many processes read ahead changes
nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from copgen.files import write_whole
from copgen.shards import Numbers
from copgen.training.ahead import Reader, as_they_are, reading
from copgen.training.game import Game
from copgen.training.launch import ONE, Devices, Precision
from copgen.training.metrics import Metrics
from copgen.training.order import order_of
from copgen.training.run_folder import Checkpoints, refuse_run
from copgen.training.sharding import gathered

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Optimisation:
    """How weights are moved. Defaults are the backbone's of the paper (section 3.3.2)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    steps: int = 500_000
    batch: int = 4096                            # samples a step, over all devices
    micro_batch: int | None = None               # samples a forward pass: what one device holds at a time; None: the whole batch
    shards_mixed: int | None = None              # shards whose samples are shuffled together, for data beyond memory; None: all are
    learning_rate: float = 2e-4
    final_learning_rate: float = 0.0             # the floor of the decay
    decay_power: float = 0.0                     # (1 - step / steps) to this power; 0: constant
    warm_up: int = 5000                          # steps of linear growth from 0
    weight_decay: float = 0.03
    betas: tuple[float, float] = (0.99, 0.99)
    clip: float | None = None                    # the gradient's largest norm
    ema: float = 0.9999
    ema_how: Literal["growing", "constant", "published"] = "growing"       # see averages.py
    precision: Precision = "fp32"
    compile: bool = False                        # the networks, with torch.compile
    save_every: int = 500                        # steps between checkpoints, the newest two of which stay
    keep_every: int = 10_000                     # steps between those that stay for good, and between previews
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"steps {self.steps}, batch {self.batch}: both are 1 or more")
        if self.save_every < 1 or self.keep_every < 1:
            raise ValueError(f"save_every {self.save_every}, keep_every {self.keep_every}: both are 1 or more steps")
        if self.shards_mixed is not None and self.shards_mixed < 1:
            raise ValueError(f"shards_mixed {self.shards_mixed}: is 1 or more, or left out to shuffle everything")
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch % self.micro_batch):
            raise ValueError(f"micro_batch {self.micro_batch}: must divide the batch of {self.batch}")

    @property
    def chunks(self) -> int:
        return self.batch // (self.micro_batch or self.batch)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        decayed = self.learning_rate * (1 - min(step, self.steps) / self.steps) ** self.decay_power
        return max(decayed, self.final_learning_rate) * min((step + 1) / max(self.warm_up, 1), 1.0)


class Objective(nn.Module, ABC):
    """What is minimised. It holds the networks whose weights it moves, and says how its data are read.

    Its parameters and buffers are what is moved, averaged and stored: a network that it only uses is kept out of its modules (in a tuple).
    reader: samples' numbers and a generator -> what `forward` takes; called ahead of time in another process, so it knows no network.
    """

    reader: Reader = staticmethod(as_they_are)

    @abstractmethod
    def forward(self, data: Any, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one chunk, a mean over its samples, and its parts by name.

        data: what `reader` gave for the chunk's samples. generator: all its randomness, of which the reader has drawn first; on the CPU, so
        that the same is drawn on every device; all players get the same. A part is a mean or one value a sample; NaN where there is nothing
        of it, which its mean leaves out. Every chunk has the same parts.
        """

    def compile_networks(self) -> None:
        """Let torch compile what `forward` calls."""
        for network in self.children():
            network.compile()


@dataclass(frozen=True)
class Player:
    """One of those that take turns within a step, each with its optimiser: an autoencoder, then its discriminator."""

    objective: Objective
    how: Optimisation | None = None              # its learning rates, decay, betas and clip; None: the run's
    starts: int = 0                              # the first step at which it plays


@dataclass(frozen=True)
class Progress:
    """What is reported: a mean since the last report for each loss, samples a second, and seconds left."""

    step: int
    steps: int
    losses: Mapping[str, float]
    speed: float
    left: float


Report = Callable[[Progress], object]
Preview = Callable[[int, Mapping[str, Tensor]], bytes | None]       # the step and the averaged weights -> a PNG, or nothing


class Paused(Exception):
    """A run was asked to end (SIGTERM, Ctrl-C) and has saved where it is; `code` is the exit status that shells expect."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def train(players: Mapping[str, Player], samples: int | Numbers, how: Optimisation, folder: Path, *, devices: Devices = ONE,
          workers: int = 0, resume: bool = False, stop: int | None = None, save_every: int | None = None, log_every: int = 20,
          keep_every: int | None = None, preview: Preview | None = None, report: Report | None = None) -> dict[str, Tensor]:
    """Train the players' objectives in place; returns the averaged state of the first one's.

    samples: how many there are, or how many lie in each shard. workers: processes that read ahead, on each device; the run is the same.
    The run's folder holds metrics.csv, TensorBoard's events, checkpoints/ (one every `save_every` steps; the newest stay, and one every
    `keep_every`; `how` says both unless they are given here) and previews/ (one every `keep_every` steps).
    stop: the step to end at, where that is before the schedule's last.
    On several devices every process calls this; the first returns, the others end here, by SystemExit.
    Raises ValueError for a folder that holds another run, for a loss that is no number (the last checkpoint stays) and for what can't be
    written; Paused after SIGTERM and Ctrl-C.
    """
    if stop is not None and stop < 1:
        raise ValueError(f"stop {stop}: is a step of the schedule, 1 or more")
    save_every, keep_every = save_every or how.save_every, keep_every or how.keep_every
    refuse_run(folder, resume)
    check_shares(how, players, devices)
    fabric = devices.launch(how.precision)
    checkpoints, pause = Checkpoints(folder, keep_every), None
    with Signals() as signals, peers(fabric, devices.patience), devices.watched() as alive, ExitStack() as stack:
        game = Game(fabric, players, how, checkpoints)
        first, last = game.restore(), how.steps if stop is None else min(stop, how.steps)
        diary = Diary(folder, first, last, how.batch, report) if fabric.is_global_zero and first < last else None
        tasks = game.tasks(order_of(samples, how.seed, how.shards_mixed), first, last)
        chunks = stack.enter_context(reading(game.readers, tasks, workers, how.precision))
        for step in range(first, last):
            alive()
            game.play(chunks, step)
            done, ends = step + 1, step + 1 == last
            asked = 0 if ends else agreed(fabric, signals.asked)
            if done % log_every == 0 or ends:
                losses = game.means()
                if diary:
                    diary.note(done, losses)
            if done % save_every == 0 or done % keep_every == 0 or ends or asked:
                state = game.state(done)
                if fabric.is_global_zero:
                    checkpoints.save(done, state)
                    if preview and (done % keep_every == 0 or ends) and (picture := preview(done, state["average"])):
                        write_whole(folder / "previews" / f"{done}.png", picture)
            if asked:
                pause = Paused(f"{folder}: stopped at step {done} of {last} and saved; go on with --resume", 128 + asked)
                break
        average = gathered(game.average.state, fabric.is_global_zero)
    if not fabric.is_global_zero:
        raise SystemExit(0)                      # what follows a training is one process's work
    if pause:
        raise pause
    return average


def check_shares(how: Optimisation, players: Mapping[str, Player], devices: Devices) -> None:
    """ValueError for what these devices can't share."""
    if how.chunks % devices.world:
        raise ValueError(f"batch {how.batch}: {how.chunks} forward passes of {how.batch // how.chunks} samples can't be shared evenly by "
                         f"{devices.world} devices; set micro_batch so that batch / micro_batch is a multiple of {devices.world}")
    if devices.strategy == "fsdp" and len(players) > 1:
        raise ValueError(f"--strategy fsdp: {' and '.join(players)} use each other's weights, which fsdp leaves in shards; use ddp")


class Signals:
    """While it is entered, SIGTERM and the first Ctrl-C are wishes to end; a second Ctrl-C interrupts."""

    def __init__(self) -> None:
        self.asked = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Diary:
    """The first process's record of a run: its metrics and what is reported."""

    def __init__(self, folder: Path, first: int, last: int, batch: int, report: Report | None) -> None:
        self.metrics, self.report = Metrics(folder, first), report
        self.last, self.batch, self.step, self.since = last, batch, first, time.perf_counter()

    def note(self, done: int, losses: Mapping[str, float]) -> None:
        self.metrics.add(done, losses)
        now = time.perf_counter()
        pace = (now - self.since) / (done - self.step)
        self.step, self.since = done, now
        if self.report:
            self.report(Progress(done, self.last, losses, self.batch / pace, pace * (self.last - done)))


def agreed(fabric: Fabric, asked: int) -> int:
    """The signal that any of the processes was sent, or 0, so that all of them stop at the same step."""
    if fabric.world_size == 1:
        return asked
    highest = fabric.all_reduce(torch.tensor(float(asked), device=fabric.device), reduce_op="max")
    assert isinstance(highest, Tensor)
    return int(highest)


@contextmanager
def peers(fabric: Fabric, patience: float) -> Iterator[None]:
    """Where another process of the run has ended or stands still, waiting for it fails: that is its fault and not this one's."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        late = any(word in said for word in ("timed out", "timeout"))
        if fabric.world_size == 1 or not (late or any(word in said for word in ("gloo", "nccl", "connection", "peer"))):
            raise
        if late:
            raise ValueError(f"another process of this training has not answered for {patience:.0f} s, so this one ends; see whether it "
                             "stands still or its machine can't be reached, then go on with --resume") from error
        raise ValueError("another process of this training has ended, so this one ends too; see what that one said") from error
