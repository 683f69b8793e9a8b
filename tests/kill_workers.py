"""Kills at random while a driver works: its workers again and again, and at given shares of the work whatever else may end."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
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
    driver: Driver, workers: Callable[[], list[psutil.Process]], share: Callable[[], float], *, seed: int, pause: tuple[float, float],
    events: Mapping[float, Callable[[], object]], limit: float,
) -> int:
    """Kill until the driver is done; returns how many workers were killed. An event happens when its share of the work is done."""
    moments, killed, ahead, until = random.Random(seed), 0, sorted(events), time.monotonic() + limit
    driver.start()
    while driver.process.poll() is None:
        if time.monotonic() > until:
            driver.process.kill()
            raise TimeoutError(f"not done after {limit} s: {share():.0%}, {killed} kills")
        time.sleep(moments.uniform(*pause))
        if ahead and share() >= ahead[0]:
            events[ahead.pop(0)]()
        elif there := workers():
            moments.choice(there).kill()
            killed += 1
    assert driver.process.returncode == 0 and not ahead
    return killed
