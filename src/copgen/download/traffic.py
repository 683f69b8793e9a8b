"""What did reading from a hub cost, how long does one go on trying, and who ends it?"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


class Stopped(Exception):
    """The run was asked to end; what is under way is given up."""


@dataclass(frozen=True)
class Patience:
    """How often a request is tried and how long between tries: twice as long each time, up to `longest` seconds, less up to half by chance.

    A server's Retry-After is waited for, up to `obeyed` seconds.
    """

    tries: int = 8
    first: float = 0.5
    longest: float = 60
    obeyed: float = 300
    connect: float = 10                          # seconds until a connection stands
    silence: float = 60                          # seconds without a byte
    least: float = 1000                          # bytes a second, after so long

    def wait(self, tried: int, after: float | None) -> float:
        if after is not None:
            return min(after, self.obeyed) + random.uniform(0, self.first)
        return float(min(self.longest, self.first * 2 ** (tried - 1)) * random.uniform(0.5, 1))


@dataclass
class Traffic:
    """Requests, bytes and retries by kind; safe to count in from several threads."""

    requests: int = 0
    wanted: int = 0                              # bytes of the columns that were asked for
    received: Counter[str] = field(default_factory=Counter)     # bytes of bodies, by purpose
    used: Counter[str] = field(default_factory=Counter)         # of these, bytes that were handed on
    retries: Counter[str] = field(default_factory=Counter)      # by what went wrong
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, *, requests: int = 0, wanted: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.wanted += wanted

    def count_received(self, purpose: str, size: int) -> None:
        with self._lock:
            self.received[purpose] += size

    def count_used(self, purpose: str, size: int) -> None:
        with self._lock:
            self.used[purpose] += size

    def count_retry(self, kind: str) -> None:
        with self._lock:
            self.retries[kind] += 1

    @property
    def wasted(self) -> int:
        """Bytes that came and could not be used."""
        return self.received.total() - self.used.total()

    @property
    def ratio(self) -> float | None:
        """Bytes received for columns over bytes of the columns; None before any."""
        return self.received["columns"] / self.wanted if self.wanted else None

    def summary(self) -> dict[str, Any]:
        with self._lock:
            return {"requests": self.requests, "bytes": self.received.total(), "bytes_by_purpose": dict(self.received),
                    "bytes_of_wanted_columns": self.wanted, "ratio": self.ratio, "bytes_wasted": self.wasted,
                    "retries": dict(self.retries)}
