"""How do several processes of this machine share tasks? Each has its own worker; one that is killed is replaced, its task done again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from copgen.engines.hand import Hand, Outcome, lost

SPAWN = get_context("spawn")                     # a fork would share GPUs, threads and open files with this process
GRACE = 5.0                                      # seconds for a worker to take back what it was writing
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Member:
    """A process of the crew, and the task it has in hand."""

    place: int
    process: SpawnProcess
    connection: Connection
    task: int | None = None


class Crew:
    """Processes that each wait for a task, do it and tell; those that end are replaced."""

    def __init__(self, worker: Callable[..., Any], settings: Mapping[str, Any], size: int, gpus: float | None) -> None:
        self.worker, self.settings, self.size = worker, settings, size
        self.gpus = share_of_gpus(size) if gpus is None else gpus
        self.members: list[Member] = []

    def gather(self) -> None:
        for place in range(self.size):
            self.members.append(self.start(place))

    def start(self, place: int) -> Member:
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=serve, args=(theirs, self.worker, dict(self.settings)), daemon=True)
        with environment(surroundings(place, self.size, self.gpus)):
            process.start()
        theirs.close()                           # else a worker's end would not close it
        return Member(place, process, ours)

    def give(self, member: Member, number: int, task: Any) -> None:
        member.task = number
        with suppress(OSError):                  # its process has ended: `told` will see it
            member.connection.send(task)

    def told(self) -> Iterator[tuple[Member, int | None, Outcome | None]]:
        """Wait until processes tell an outcome, or end (no outcome) and are replaced; with the task that each had in hand."""
        by_connection = {member.connection: member for member in self.members}
        for connection in wait(list(by_connection)):
            assert isinstance(connection, Connection)
            member = by_connection[connection]
            number, outcome = member.task, None
            try:
                outcome = connection.recv()
                member.task = None
            except (EOFError, OSError):
                self.dismiss([member])
                self.members[member.place] = self.start(member.place)
            yield member, number, outcome

    @staticmethod
    def dismiss(members: Sequence[Member]) -> None:
        for member in members:
            member.process.terminate()
        until = time.monotonic() + GRACE
        for member in members:
            member.process.join(max(until - time.monotonic(), 0))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            member.connection.close()


def outcomes(
    tasks: Sequence[Any], worker: Callable[..., Any], settings: Mapping[str, Any], *, workers: int, gpus: float | None, tries: int,
) -> Iterator[tuple[int, Outcome]]:
    """The number of each task with what came of it, as they come; after the first failure only of those in hand."""
    waiting, begun, going_on = deque(range(len(tasks))), Counter[int](), True
    crew = Crew(worker, settings, min(workers, len(tasks)), gpus)
    try:
        crew.gather()
        while True:
            for member in crew.members:
                if member.task is None and waiting and going_on:
                    crew.give(member, waiting[0], tasks[waiting[0]])
                    begun[waiting.popleft()] += 1
            if all(member.task is None for member in crew.members):
                return
            for member, number, outcome in crew.told():
                if number is None:
                    continue                     # it ended with nothing in hand
                if outcome is None and begun[number] < tries:
                    waiting.appendleft(number)
                    continue
                outcome = outcome or lost(begun[number], how_ended(member.process))
                going_on = going_on and outcome.kind == "result"
                yield number, outcome
    finally:
        crew.dismiss(crew.members)


def how_ended(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    return signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit status {code}"


def serve(connection: Connection, worker: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """What a process of the crew does until it is ended, by whoever started it or together with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)                   # Ctrl-C reaches the whole group; the first process tells the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))    # takes back what was being written
    threading.Thread(target=end_with_parent, daemon=True).start()
    hand = Hand(worker, settings)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        outcome = hand(task)
        try:
            connection.send(outcome)
        except BrokenPipeError:
            return
        except Exception:                        # a result that can't be sent
            connection.send(Outcome("broken", text=traceback.format_exc()))


def end_with_parent() -> None:
    """However the process that started this one ended: nobody needs the work any more."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_gpus(workers: int) -> float:
    """A GPU a worker where there are any, or as much of one as each can have."""
    import torch

    return min(1.0, torch.cuda.device_count() / workers)


def surroundings(place: int, size: int, gpus: float) -> dict[str, str]:
    """The environment of a worker: its share of the cores, unless somebody has said how many threads, and its GPUs."""
    found = {name: os.environ.get(name, str(max(cores() // size, 1))) for name in THREADS}
    if gpus:
        listed = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
        first, count = int(place * gpus + 1e-6), max(round(gpus), 1)
        mine = range(first, first + count)
        if listed and mine[-1] >= len(listed):
            raise ValueError(f"{size} workers with {gpus:g} GPUs each: there are {len(listed)}; use fewer workers, or less of a GPU each")
        found["CUDA_VISIBLE_DEVICES"] = ",".join(listed[k] if listed else str(k) for k in mine)
    return found


@contextmanager
def environment(names: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a process that is started inside: libraries read them when they are first imported."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
