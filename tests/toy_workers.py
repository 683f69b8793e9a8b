"""Workers for the tests of the engines, in a module of their own: other processes import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen.files import write_whole


@dataclass(frozen=True)
class Square:
    """A number to be squared into a file."""

    number: int
    doing: str = ""

    def __str__(self) -> str:
        return f"square {self.number}"


@dataclass(frozen=True)
class Done:
    number: int
    process: int
    made: bool                                   # rather than found


class Squares:
    """Writes each square to a file of its own, as encoding writes a shard; what it began is a line in `begun`, what it made in `made`."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.folder, self.seconds = folder, seconds
        note(folder / "workers", os.getpid())

    def __call__(self, task: Square) -> Done:
        path = self.folder / f"{task.number:05d}.txt"
        if made := not path.exists():
            note(self.folder / "begun", task.number)
            self.do(task)
            write_whole(path, f"{task.number ** 2}\n".encode())
            note(self.folder / "made", task.number)
        return Done(task.number, os.getpid(), made)

    def do(self, task: Square) -> None:
        time.sleep(self.seconds)
        match task.doing:
            case "end once" if self.first(task):
                os.kill(os.getpid(), signal.SIGKILL)
            case "end":
                os.kill(os.getpid(), signal.SIGKILL)
            case "refuse":
                raise ValueError("has no root")
            case "break":
                raise KeyError("a mistake")
            case "sleep":
                time.sleep(60)

    def first(self, task: Square) -> bool:
        return (self.folder / "begun").read_text().split().count(str(task.number)) == 1


def note(path: Path, number: int) -> None:
    """One line more, whole also where several processes write."""
    handle = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(handle, f"{number}\n".encode())
    os.close(handle)


def noted(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def threads() -> Any:
    """A worker that tells how many threads it was allowed, whatever its task."""
    return lambda _: (os.getpid(), os.environ.get("OMP_NUM_THREADS"))


def pairs() -> Any:
    """A worker that gives its task back."""
    return lambda task: (task,)


def unwilling(reason: str) -> Any:
    raise ValueError(reason)


def check(folder: Path, count: int) -> None:
    """Every file is there, once and right, and each was made exactly once."""
    assert sorted(path.name for path in folder.glob("*.txt")) == [f"{k:05d}.txt" for k in range(count)]
    assert all((folder / f"{k:05d}.txt").read_text() == f"{k ** 2}\n" for k in range(count))


if __name__ == "__main__":                       # a driver that can be killed: FOLDER COUNT SECONDS ENGINE WORKERS [ADDRESS]
    from copgen import engines

    signal.signal(signal.SIGINT, signal.default_int_handler)           # which a shell's background job is started without
    there, count, seconds, engine, workers, *address = sys.argv[1:]
    tasks = [Square(k) for k in range(int(count))]
    for _, done in engines.run(tasks, Squares, {"folder": Path(there), "seconds": float(seconds)}, engine=engine,  # type: ignore[arg-type]
                               workers=int(workers), address=address[0] if address else None):
        print(done.number, flush=True)
