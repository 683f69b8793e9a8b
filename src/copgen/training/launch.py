"""On what does a training run? One device or many, on one node or several, through Lightning Fabric."""

from __future__ import annotations

import atexit
import faulthandler
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch.distributed import is_torchelastic_launched

from copgen.inference.memory import keep_memory
from copgen.training.sharding import shared_out

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["fp32", "bf16", "fp64"]
FABRIC_NAMES: dict[Precision, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp64": "32-true"}    # its own 64-true bars FSDP


@dataclass(frozen=True)
class Devices:
    """How many devices a node, how many nodes, and how they share the work; tested with two processes of a CPU and gloo.

    Under torchrun and SLURM their environments say which process this is; otherwise the first process starts the others of its node.
    """

    count: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    patience: float = 1800.0                     # seconds that processes wait for each other: the first one saves and draws meanwhile

    def __post_init__(self) -> None:
        if self.count < 1 or self.nodes < 1:
            raise ValueError(f"--devices {self.count} --nodes {self.nodes}: both are 1 or more")
        if self.patience <= 0:
            raise ValueError(f"patience {self.patience}: seconds are above 0")
        if self.accelerator == "cuda" and not torch.cuda.is_available():
            raise ValueError("--accelerator cuda: there is no CUDA device here; use cpu or auto")

    @property
    def world(self) -> int:
        return self.count * self.nodes

    def launch(self, precision: Precision) -> Fabric:
        """Fabric with all its processes started: each of them goes on from here."""
        from lightning_fabric import Fabric

        started = int(os.environ.get("WORLD_SIZE", "1")) if is_torchelastic_launched() else self.world
        if started != self.world:                # each would train by itself, all into one folder
            raise ValueError(f"torchrun started {started} processes, and --devices {self.count} --nodes {self.nodes} are {self.world}; "
                             "say the same to both")
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        fabric = Fabric(accelerator=accelerator if self.accelerator == "auto" else self.accelerator, devices=self.count,
                        num_nodes=self.nodes, strategy=self._strategy(), precision=FABRIC_NAMES[precision])
        fabric.launch()
        if self.world > 1:
            atexit.unregister(let_go)            # a process may train several times
            atexit.register(let_go)
        if fabric.device.type == "cpu":
            keep_memory(large_too=True)
        return fabric

    def _strategy(self) -> Any:
        if self.world == 1:
            return "auto"
        from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

        timeout = timedelta(seconds=self.patience)
        if self.strategy == "fsdp":
            return ModelParallelStrategy(shared_out, data_parallel_size=self.world, tensor_parallel_size=1, timeout=timeout)
        return DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True, timeout=timeout)

    @contextmanager
    def watched(self) -> Iterator[Callable[[], None]]:
        """A function to call at every step, on several devices: where twice `patience` passes without, stacks are printed and all ends.

        Waiting for a process fails by itself after `patience`; this is for whatever else may stand still, so that nobody waits for ever.
        """
        def alive() -> None:
            if self.world > 1:
                faulthandler.dump_traceback_later(2 * self.patience, exit=True, file=2)

        alive()
        try:
            yield alive
        finally:
            if self.world > 1:
                faulthandler.cancel_dump_traceback_later()


ONE = Devices()


def is_first_process() -> bool:
    """Whether this process is the one that writes, as torchrun, SLURM and Fabric number them, also before Fabric is there."""
    for names in (("RANK",), ("SLURM_PROCID",), ("NODE_RANK", "LOCAL_RANK")):
        if any(name in os.environ for name in names):
            return all(int(os.environ.get(name, "0")) == 0 for name in names)
    return True


@contextmanager
def numbers_of(precision: Precision) -> Iterator[None]:
    """What is made inside is of 64 bits where that is asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if precision == "fp64" else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def has_compiler() -> bool:
    """Whether torch.compile would find a C++ compiler to call."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([named] if named else ["g++", "clang++", "c++"]))


def check_compiler() -> None:
    """ValueError where torch.compile would find no compiler to call."""
    if not has_compiler():
        raise ValueError("compile = true: torch.compile needs a C++ compiler and none was found; install g++, name one in CXX, or set "
                         "compile = false")


def let_go() -> None:
    """Before the interpreter ends: threads of the process group take it to let go of the last tensors, and abort the process if they can't.

    Where the end comes a few milliseconds after the last exchange, one may still wait for its turn; asleep, this thread lets it have that.
    """
    time.sleep(0.2)


def leave(code: int) -> NoReturn:
    """End a process that has done its part, without the interpreter's last steps.

    Under load, threads of the process group now and then outlive those steps and abort the process; the launcher takes that for a failure
    and kills the first process, which is still at work.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
