"""Kills at random while a driver works: its workers again and again, and at given shares of the work whatever else may end."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass
class Driver:
    """A process that has others work; it can be killed and begun again."""

    command: Sequence[str]
    surroundings: Mapping[str, str]
    starts: int = 0

    def start(self) -> None:
        self.starts += 1
        self.process = psutil.Popen(self.command, env=dict(self.surroundings), stdout=subprocess.DEVNULL)

    def restart(self) -> None:
        """Kill it and begin again, once those that it started are gone."""
        children = self.process.children(recursive=True)
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(children, timeout=20)
        self.start()


def storm(
    driver: Driver, workers: Callable[[], list[psutil.Process]], share: Callable[[], float], *, kills: int, seed: int,
    events: Mapping[float, Callable[[], object]], limit: float, pause: float = 1,
) -> int:
    """Kill random workers, spread over the work so that fast machines get as many kills; returns how many were made.

    An event happens when its share of the work is done. pause: the most seconds between two looks; the work must not be over in one.
    """
    moments, killed, until = random.Random(seed), 0, time.monotonic() + limit
    strokes = sorted(moments.uniform(0, 0.9) for _ in range(kills))
    ahead = sorted(events)
    driver.start()
    while driver.process.poll() is None:
        if time.monotonic() > until:
            driver.process.kill()
            raise TimeoutError(f"not done after {limit} s: {share():.0%}, {killed} kills")
        time.sleep(moments.uniform(0.01, pause))                     # at any moment of a task
        if ahead and share() >= ahead[0]:
            events[ahead.pop(0)]()
        elif strokes and share() >= strokes[0] and (there := workers()):
            strokes.pop(0)
            killed += ended(moments.choice(there))
    assert driver.process.returncode == 0 and not ahead
    return killed


def ended(process: psutil.Process) -> bool:
    """Kill it; whether it was still there."""
    with suppress(psutil.NoSuchProcess):         # between being listed and being killed it may come to its end
        process.kill()
        return True
    return False


def title(process: psutil.Process) -> str:
    """Its command; nothing of one that has come to its end."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
