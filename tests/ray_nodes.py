"""A Ray cluster of two nodes on this machine, each with one core, started as on two machines; it can be killed in parts."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from kill_workers import ended, title

TESTS = Path(__file__).parent
STORE = 80 * 2**20                               # bytes of shared memory a node; Ray wants 75 MB at least


class Node:
    """`ray start ... --block` in a session of its own, so that it and all that it started can be ended together."""

    def __init__(self, temporary: Path, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--num-cpus=1", f"--object-store-memory={STORE}",
                   "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block"]
        with (temporary / "nodes.log").open("ab") as log:
            self.process = psutil.Popen(command, env=surroundings(), stdout=log, stderr=log, start_new_session=True)

    def parts(self) -> list[psutil.Process]:
        return [*self.process.children(recursive=True), self.process] if self.process.is_running() else []

    def kill(self) -> None:
        parts = self.parts()
        for part in parts:
            ended(part)
        psutil.wait_procs(parts, timeout=10)


def surroundings() -> dict[str, str]:
    """No network beyond this machine, and the tests' modules for the workers."""
    return {**os.environ, "PYTHONPATH": str(TESTS), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
            "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}


class Nodes:
    """A head and another node."""

    def __init__(self, temporary: Path) -> None:
        self.temporary, self.port = temporary, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.head = Node(temporary, ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={temporary / 'ray'}"])
        self.other: Node | None = None

    def join(self) -> None:
        assert self.other is None
        self.other = Node(self.temporary, [f"--address={self.address}"])

    def lose(self) -> None:
        """One node is gone from one moment to the next, as by a power cut."""
        assert self.other is not None
        self.other.kill()
        self.other = None

    def workers(self) -> list[psutil.Process]:
        """The processes that have tasks' workers in them."""
        return [part for node in (self.head, self.other) if node for part in node.parts() if "MapWorker" in title(part)]


@contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Ray's sockets lie in its temporary folder, and a socket's path has at most 107 characters: pytest's are too long."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        nodes = Nodes(Path(temporary))
        try:
            wait_for(nodes.port, nodes.head)
            nodes.join()
            yield nodes
        finally:
            for node in (nodes.other, nodes.head):
                if node:
                    node.kill()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int, head: Node, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and head.process.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the head of the Ray cluster did not start")
