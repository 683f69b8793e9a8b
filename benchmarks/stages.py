"""How long does a stage take, and how much memory? Each in a process of its own, with its files out of the page cache.

What the benchmarks of data share. A stage is a function of a folder and options that yields once when it is ready to begin (what it
imports and prepares counts as memory, not as time), and then a `Done` after each thing that it does.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

MEASURED = "a stage's lines: "


@dataclass(frozen=True)
class Done:
    """What was done and what came of it; seconds where the stage knows them better than the clock on the wall."""

    name: str
    what: str
    seconds: float | None = None
    gigabytes: float | None = None


READY = Done("", "")
Stage = Callable[[], Iterator[Done]]


def measured(stage: Stage) -> list[Done]:
    """What a stage did from one yield to the next: seconds, and the process's peak memory so far."""
    lines, work = [], stage()
    next(work)
    start = time.perf_counter()
    for done in work:
        seconds = time.perf_counter() - start if done.seconds is None else done.seconds
        lines.append(Done(done.name, done.what, seconds, done.gigabytes or peak_memory() / 1e9))
        start = time.perf_counter()
    return lines


def apart(command: list[str], folder: Path) -> list[Done]:
    """The lines of a command that prints `as_text`, in a process of its own and with a folder's files out of the page cache."""
    forget(folder)
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [Done(**line) for line in json.loads(printed.rpartition(MEASURED)[2])]


def as_text(lines: list[Done]) -> str:
    return MEASURED + json.dumps([asdict(line) for line in lines])


def peak_memory(process: str = "self") -> int:
    """Bytes of a process at its largest; unlike getrusage's, not of the one that started it."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def forget(folder: Path) -> None:
    """Put all files of a folder out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def head() -> None:
    print(f"{'stage':40} {'seconds':>8} {'peak GB':>8}  what", flush=True)


def show(done: Done, more: str = "") -> None:
    print(f"{done.name:40} {done.seconds or 0:8.2f} {done.gigabytes or 0:8.2f}  {done.what}{more}", flush=True)
