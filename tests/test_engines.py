"""Tasks over processes of this machine: each done whatever happens to the processes, and errors told in the task's name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import toy_workers
from toy_workers import Square, Squares, check, noted, threads, unwilling

from copgen.engines import run
from copgen.engines.local import cores, surroundings
from copgen.engines.with_ray import share


def squares(folder: Path, tasks: list[Square], workers: int, seconds: float = 0.0, **more: Any) -> list[Any]:
    return list(run(tasks, Squares, {"folder": folder, "seconds": seconds}, workers=workers, **more))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_by_as_many_workers_as_asked(tmp_path: Path, workers: int) -> None:
    tasks = [Square(k) for k in range(12)]
    found = squares(tmp_path, tasks, workers, seconds=0.01)
    check(tmp_path, 12)
    assert sorted(noted(tmp_path / "begun")) == list(range(12)) and all(task.number == done.number for task, done in found)
    assert {done.process for _, done in found} == set(noted(tmp_path / "workers")) and len(noted(tmp_path / "workers")) == workers
    assert (os.getpid() in noted(tmp_path / "workers")) == (workers == 1)
    assert not children()


def test_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    assert squares(tmp_path, [], 2) == [] and not (tmp_path / "workers").exists()
    squares(tmp_path, [Square(0)], 3)
    assert len(noted(tmp_path / "workers")) == 1


def test_a_killed_worker_loses_only_its_own_task_and_that_is_done_again(tmp_path: Path) -> None:
    tasks = [Square(k, "end once" if k in (0, 3, 7) else "") for k in range(10)]
    squares(tmp_path, tasks, 2, seconds=0.02)
    check(tmp_path, 10)
    assert Counter(noted(tmp_path / "begun")) == Counter([*range(10), 0, 3, 7])
    assert sorted(noted(tmp_path / "made")) == list(range(10))
    assert len(noted(tmp_path / "workers")) == 2 + 3


def test_a_task_that_ends_its_workers_is_named_and_what_others_had_in_hand_is_done(tmp_path: Path) -> None:
    done = []
    with pytest.raises(ValueError, match=r"^square 1: its worker process ended under it 2 times \(Killed\); .*fewer workers"):
        for task, _ in run([Square(0), Square(1, "end"), *map(Square, range(2, 400))], Squares, {"folder": tmp_path, "seconds": 0.05},
                           workers=2, tries=2):
            done.append(task.number)
    assert noted(tmp_path / "begun").count(1) == 2
    assert sorted(done) == sorted({*noted(tmp_path / "begun")} - {1}) and len(done) < 399
    assert not children()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refusal_is_raised_in_the_tasks_name_and_not_tried_again(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match=r"^square 2: has no root$"):
        squares(tmp_path, [Square(0), Square(1), Square(2, "refuse"), *map(Square, range(3, 400))], workers, seconds=0.01)
    assert noted(tmp_path / "begun").count(2) == 1 and len(noted(tmp_path / "begun")) < 400
    assert sorted(noted(tmp_path / "made")) == sorted({*noted(tmp_path / "begun")} - {2})


def test_a_mistake_in_a_worker_comes_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)^square 0: failed in its worker\n\nTraceback.*toy_workers\.py.*KeyError: 'a mistake'"):
        squares(tmp_path, [Square(0, "break"), Square(1)], 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_the_settings_is_said_without_a_task(workers: int) -> None:
    with pytest.raises(ValueError, match=r"^no such model$"):
        list(run([1, 2, 3], unwilling, {"reason": "no such model"}, workers=workers))


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    told = {result for _, result in run(list(range(6)), threads, {}, workers=2)}
    assert {count for _, count in told} == {str(max(cores() // 2, 1))} and "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert surroundings(0, 2, 0)["OMP_NUM_THREADS"] == "3"         # who said so knows better


@pytest.mark.parametrize(("workers", "gpus", "listed", "each"), [
    (2, 1, "", ["0", "1"]), (2, 1, "4,6", ["4", "6"]), (4, 0.5, "", ["0", "0", "1", "1"]), (2, 2, "3,4,5,6", ["3,4", "5,6"]),
    (3, 2 / 3, "0,1", ["0", "0", "1"]),
])
def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch, workers: int, gpus: float, listed: str, each: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [surroundings(place, workers, gpus)["CUDA_VISIBLE_DEVICES"] for place in range(workers)] == each


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ValueError, match="2 workers with 1 GPUs each: there are 1"):
        list(run([1, 2], threads, {}, workers=2, gpus=1))
    assert not children()


@pytest.mark.parametrize(("settings", "says"), [
    ({"engine": "spark"}, "engine 'spark': there are local, ray"), ({"workers": 0}, "0 workers"), ({"tries": 0}, "0 tries"),
    ({"address": "here:1"}, "address here:1"), ({"worker": lambda: None}, "top of a module"),
])
def test_what_cannot_be_run_is_refused_at_once(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run([1], **{"worker": threads, "settings": {}, **settings})


def test_without_ray_the_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'copgen\[ray\]'.*engine local"):
        list(run([1], threads, {}, engine="ray"))


@pytest.mark.parametrize(("nodes", "workers", "gpus", "each"), [
    ([{"CPU": 1}, {"CPU": 1}], 2, None, (1, 0)), ([{"CPU": 8}, {"CPU": 4}], 3, 0, (4, 0)), ([{"CPU": 2}], 5, 0, (1, 0)),
    ([{"CPU": 16, "GPU": 4}] * 2, 8, None, (4, 1)), ([{"CPU": 16, "GPU": 1}], 2, None, (8, 0.5)),
    ([{"CPU": 64}, {"CPU": 8, "GPU": 1}], 1, 1, (8, 1)),
])
def test_workers_of_a_cluster_share_its_nodes(
        nodes: list[dict[str, float]], workers: int, gpus: float | None, each: tuple[int, float]) -> None:
    cluster = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes] + [{"Alive": False, "Resources": {}}])
    assert share(cluster, workers, gpus) == each


def test_gpus_that_no_node_has_are_refused() -> None:
    cluster = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 4, "GPU": 1}}] * 2)
    with pytest.raises(ValueError, match="no node of the cluster has 2 GPUs"):
        share(cluster, 1, 2)


def test_results_are_made_as_they_are_asked_for(tmp_path: Path) -> None:
    found = run([Square(k) for k in range(50)], Squares, {"folder": tmp_path}, workers=2)
    next(found)
    time.sleep(0.5)
    assert len(noted(tmp_path / "begun")) <= 3   # one told, one in hand of each of two workers
    found.close()                                # type: ignore[attr-defined]
    assert not children()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(Path(toy_workers.__file__)), str(tmp_path), "1000", "0.05", "local", "2"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert driver.stdout is not None and driver.stdout.readline()
    workers = [psutil.Process(number) for number in noted(tmp_path / "workers")]
    os.kill(driver.pid, how)
    driver.wait(timeout=10)
    assert workers and not psutil.wait_procs(workers, timeout=10)[1]
    assert 0 < len(list(tmp_path.glob("*.txt"))) < 1000 and not list(tmp_path.glob(".*.part"))


def test_a_driver_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(toy_workers.__file__)), str(tmp_path), "40", "0.03", "local", "2"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert driver.stdout is not None and [driver.stdout.readline() for _ in range(5)]
    driver.kill()
    driver.wait()
    psutil.wait_procs([psutil.Process(one) for one in noted(tmp_path / "workers") if psutil.pid_exists(one)], timeout=10)
    before = noted(tmp_path / "made")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("\n") == 40
    check(tmp_path, 40)
    assert 5 <= len(before) < 40 and sorted(noted(tmp_path / "made")) == list(range(40))
