"""How do the workers of a Ray cluster share tasks? As actors of Ray Data: each has its own worker; one that is lost is replaced."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from copgen.engines.hand import Hand, Outcome, lost

BLOCKS = 10_000                                  # Ray Data takes milliseconds and kilobytes for each: more tasks share them
AHEAD = 2                                        # tasks sent to a worker: the one in hand and the next, so that it need not wait
STORE = 256 * 2**20                              # bytes of shared memory of a Ray that is started here: only records pass through it
KNOCK = 10.0                                     # seconds for a cluster to answer
WAY_IN = "start a cluster with `ray start --head` and name its address, or leave the address out"
SETTINGS = {                                     # unless somebody has said otherwise
    "RAY_USAGE_STATS_ENABLED": "0",              # nothing is told to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",   # a worker without GPUs of its own sees what this process sees
}


@dataclass(frozen=True)
class Numbered:
    """A task as a row of a dataset: opaque, or Arrow's columns would make lists of tuples."""

    number: int
    task: Any


class Ledger:
    """How often each task was begun and not ended. Ray's own count of retries takes a node's silence for several losses."""

    def __init__(self) -> None:
        self.open = Counter[int]()

    def begin(self, number: int) -> int:
        self.open[number] += 1
        return self.open[number]

    def end(self, number: int) -> None:
        del self.open[number]


class Actor:
    """A hand that takes tasks as rows and gives outcomes as rows."""

    def __init__(self, worker: Callable[..., Any], settings: Mapping[str, Any], ledger: Any, tries: int) -> None:
        self.hand, self.ledger, self.tries = Hand(worker, settings), ledger, tries

    def __call__(self, row: dict[str, Numbered]) -> dict[str, Any]:
        import ray

        number = row["item"].number
        if ray.get(self.ledger.begin.remote(number)) > self.tries:
            return {"number": number, "outcome": lost(self.tries, "killed, or with its node")}
        outcome = self.hand(row["item"].task)
        self.ledger.end.remote(number)
        return {"number": number, "outcome": outcome}


def outcomes(
    tasks: Sequence[Any], worker: Callable[..., Any], settings: Mapping[str, Any], *, workers: int, gpus: float | None, tries: int,
    address: str | None,
) -> Iterator[tuple[int, Outcome]]:
    """The number of each task with what came of it, as they come, up to the first failure.

    Tasks that are in hand then may be cut short; those whose results are lost with a node are done again.
    """
    ray = imported()
    with ExitStack() as stack:
        stack.enter_context(quiet(ray))
        stack.enter_context(cluster(ray, address, workers))
        cpus, gpus = share(ray, workers, gpus)
        rows = ray.data.from_items([Numbered(*one) for one in enumerate(tasks)], override_num_blocks=min(len(tasks), BLOCKS))
        done = rows.map(Actor, fn_constructor_args=(worker, dict(settings), ledger(ray), tries), num_cpus=cpus, num_gpus=gpus,
                        compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks)), max_tasks_in_flight_per_actor=AHEAD))
        try:
            for row in done.iter_rows():
                yield row["number"], row["outcome"]
                if row["outcome"].kind != "result":
                    return
        except ray.exceptions.RayError as error:
            raise ValueError(f"engine ray: {last_line(error)}; every node needs the same packages and folders as this one, and the cluster "
                             "must go on running") from error


def imported() -> Any:
    """Ray, which need not be installed; ValueError if it isn't."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("engine ray: Ray is not installed; run `pip install 'copgen[ray]'`, or use engine local") from error
    return ray


@contextmanager
def cluster(ray: Any, address: str | None, workers: int) -> Iterator[None]:
    """The cluster that this process is in, or the one at an address, or one on this machine until the end of the work."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        check_answers(address)
    here = {"address": "local", "num_cpus": max(workers, os.cpu_count() or 1), "object_store_memory": STORE, "include_dashboard": False}
    try:
        ray.init(**({"address": address} if address else here), logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"engine ray: {'can not join ' + address if address else 'Ray does not start'} ({last_line(error)}); "
                         f"{WAY_IN}") from error
    try:
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """ValueError where nobody is at home; Ray itself would go on knocking for minutes."""
    host, colon, port = address.rpartition("/")[2].rpartition(":")
    if not (colon and port.isdecimal()):
        return                                   # such as `auto`
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise ValueError(f"engine ray: nothing answers at {address} ({error.strerror or error}); {WAY_IN}") from error


def ledger(ray: Any) -> Any:
    """A ledger on this process's own node: it is lost only when this process is."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Ledger).options(scheduling_strategy=here).remote()


def share(ray: Any, workers: int, gpus: float | None) -> tuple[int, float]:
    """The cores and GPUs of each worker: as many cores as let all workers fit on the nodes there are; those that don't fit wait."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = min(1.0, sum(node.get("GPU", 0) for node in nodes) / workers)
    if gpus and not any(node.get("GPU", 0) >= gpus for node in nodes):
        raise ValueError(f"engine ray: no node of the cluster has {gpus:g} GPUs for a worker; ask for less")

    def fitting(cpus: int) -> int:
        return sum(int(min(node.get("CPU", 0) / cpus, node.get("GPU", 0) / gpus if gpus else workers)) for node in nodes)

    most = int(max(node.get("CPU", 0) for node in nodes))
    return next((cpus for cpus in range(most, 1, -1) if fitting(cpus) >= workers), 1), gpus


@contextmanager
def quiet(ray: Any) -> Iterator[None]:
    """Ray Data without its bars and log: what goes wrong is raised, and progress is the caller's."""
    loggers, context = [logging.getLogger(name) for name in ("ray", "ray.data")], ray.data.DataContext.get_current()
    before = [logger.level for logger in loggers], context.enable_progress_bars
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        context.enable_progress_bars = False
        yield
    finally:
        for logger, level in zip(loggers, before[0], strict=True):
            logger.setLevel(level)
        context.enable_progress_bars = before[1]


def last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
