"""Who does a list of tasks? This process, processes beside it, or the workers of a Ray cluster; the same code does each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from copgen.engines.hand import Outcome, named

Engine = Literal["local", "ray"]
T = TypeVar("T")
R = TypeVar("R")


def run(
    tasks: Sequence[T], worker: Callable[..., Callable[[T], R]], settings: Mapping[str, Any], *, engine: Engine = "local",
    workers: int = 1, gpus: float | None = 0, tries: int = 3, address: str | None = None,
) -> Iterator[tuple[T, R]]:
    """Each task with its result, in the order in which they are done.

    worker: a class or function of a module, called once in every process as `worker(**settings)`; what it returns is called with one
    task at a time. Tasks, settings and results go from process to process: small records. A process can end at any moment, and its
    task is then done again from the start: a task must leave its output whole or not at all, and may find it there.
    engine: `local` is this process where `workers` is 1, else that many processes beside it; `ray` is a Ray cluster.
    gpus: of each worker; None gives each a GPU where there are any, shared where there are more workers.
    tries: how often a task is begun whose worker process ends under it. The other workers and tasks don't notice.
    address: of the Ray cluster that is running; None starts one on this machine for as long as it takes.

    One task a worker is in flight. Raises ValueError for a task that raised one, or whose workers ended `tries` times, and RuntimeError
    with the worker's traceback for any other error, named after the task (in this process: that error itself); no further task is begun
    then, and those in flight are done first (on Ray they are cut short).
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine {engine!r}: there are {', '.join(get_args(Engine))}")
    if workers < 1 or tries < 1:
        raise ValueError(f"{workers} workers, {tries} tries: both are 1 or more")
    if "<" in worker.__qualname__:
        raise ValueError(f"worker {worker.__qualname__}: other processes can't find it; define it at the top of a module")
    if address is not None and engine != "ray":
        raise ValueError(f"address {address}: engine {engine} has none; use engine ray, or leave it out")
    if not tasks:
        return iter(())
    if engine == "local" and workers == 1:
        return in_place(tasks, worker, settings)
    return results(tasks, outcomes(tasks, worker, settings, engine, workers, gpus, tries, address))


def in_place(tasks: Iterable[T], worker: Callable[..., Callable[[T], R]], settings: Mapping[str, Any]) -> Iterator[tuple[T, R]]:
    work: Callable[[T], R] | None = None
    for task in tasks:
        work = work or worker(**settings)
        try:
            result = work(task)
        except ValueError as error:
            raise ValueError(f"{named(task)}: {error}") from error
        yield task, result


def outcomes(
    tasks: Sequence[Any], worker: Callable[..., Any], settings: Mapping[str, Any], engine: Engine, workers: int, gpus: float | None,
    tries: int, address: str | None,
) -> Iterator[tuple[int, Outcome]]:
    if engine == "ray":
        from copgen.engines import with_ray

        return with_ray.outcomes(tasks, worker, settings, workers=workers, gpus=gpus, tries=tries, address=address)
    from copgen.engines import local

    return local.outcomes(tasks, worker, settings, workers=workers, gpus=gpus, tries=tries)


def results(tasks: Sequence[T], found: Iterator[tuple[int, Outcome]]) -> Iterator[tuple[T, Any]]:
    """The results among the outcomes; the first error when all outcomes are there."""
    failure: Exception | None = None
    for number, outcome in found:
        error = outcome.error(tasks[number])
        if error is None:
            yield tasks[number], outcome.result
        failure = failure or error
    if failure:
        raise failure
