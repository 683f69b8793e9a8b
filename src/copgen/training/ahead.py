"""How does a training's data come in time? It is read ahead by other processes, in the order in which it is asked for.

What is read for a forward pass is a function of its samples' numbers and a seed, so any number of readers gives the same bits, none at all
included, and nothing of them is stored. They are torch's DataLoader's: forked, so that whatever reads need not be picklable, and passing
tensors on through shared memory. Not threads: those would take turns with the training's own Python, and share torch's default type with
it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from copgen.inference.memory import keep_memory
from copgen.shards import Numbers
from copgen.training.launch import Precision, numbers_of

Reader = Callable[[Numbers, torch.Generator], Any]
AHEAD = 2                                        # forward passes that each process reads ahead
FAILURES = ("DataLoader worker", "ancdata", "Too many open files", "shared memory")      # in what torch says where readers fail


@dataclass(frozen=True)
class Task:
    """What to read: for which of the readers, which samples, and the seed of all that is drawn for them."""

    reader: int
    numbers: Numbers
    seed: int


class Chunk:
    """What was read for one forward pass, and the generator to go on drawing with.

    No dataclass and no container: Fabric would convert the tensors in those to 32 bits.
    """

    def __init__(self, data: Any, generator: torch.Generator) -> None:
        self.data, self.generator = data, generator


@dataclass(frozen=True)
class Unreadable:
    """An error on its way from the process where it was raised."""

    why: str


class Reading(Dataset[Any]):
    """What readers read, as DataLoader asks for it: data and the generator's state after them."""

    def __init__(self, readers: Sequence[Reader], precision: Precision) -> None:
        self.readers, self.precision = readers, precision

    def __getitem__(self, task: Task) -> tuple[Any, bytes] | Unreadable:
        try:
            chunk = self.chunk(task)
        except ValueError as error:
            return Unreadable(str(error))
        return chunk.data, chunk.generator.get_state().numpy().tobytes()

    def chunk(self, task: Task) -> Chunk:
        generator = torch.Generator().manual_seed(task.seed)
        with numbers_of(self.precision):
            return Chunk(self.readers[task.reader](task.numbers, generator), generator)


def as_they_are(numbers: Numbers, generator: torch.Generator) -> Numbers:
    """The reader of objectives that read nothing: the samples' numbers."""
    return numbers


@contextmanager
def reading(readers: Sequence[Reader], tasks: Iterable[Task], workers: int, precision: Precision) -> Iterator[Iterator[Chunk]]:
    """The tasks' chunks in their order, read by so many processes at most `AHEAD` chunks each ahead of what was asked for; 0: by this one.

    Raises ValueError as the readers do, when the chunk's turn has come, and where a process that reads has died.
    """
    if workers < 0:
        raise ValueError(f"--workers {workers}: processes that read ahead are 0 or more")
    read = Reading(readers, precision)
    chunks = ahead(read, tasks, workers) if workers else (read.chunk(task) for task in tasks)
    try:
        with closing(chunks):
            yield chunks
    except (RuntimeError, OSError) as error:     # DataLoader raises on the signal that a child has ended, whatever is being done then
        if not workers or not any(words in str(error) for words in FAILURES):
            raise
        raise ValueError(f"a process that reads ahead has died ({str(error).splitlines()[0].rstrip('. ')}); go on with --resume, with "
                         "fewer --workers if memory, shared memory (/dev/shm) or open files (ulimit -n) were short") from error


def ahead(read: Reading, tasks: Iterable[Task], workers: int) -> Generator[Chunk]:
    """Chunks that other processes read."""
    loader = DataLoader(read, batch_size=None, sampler=tasks, num_workers=workers, prefetch_factor=AHEAD, collate_fn=unchanged,
                        multiprocessing_context="fork", worker_init_fn=settled, generator=torch.Generator())    # not the global one
    for found in loader:
        if isinstance(found, Unreadable):
            raise ValueError(found.why)
        data, state = found
        generator = torch.Generator()
        generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
        yield Chunk(data, generator)


def unchanged(found: Any) -> Any:
    return found


def settled(worker: int) -> None:
    """A reader ends when its training does, and not before: a signal to a whole group of processes is the training's to answer."""
    keep_memory(large_too=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
