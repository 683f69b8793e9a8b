"""Tasks on a Ray cluster: done whatever is lost, a worker, a node or the driver; and the same samples as without Ray."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bulk_driver
import made_archive
import pytest
import toy_workers
from kill_workers import Driver, storm, title
from toy_workers import Square, Squares, check, noted, pairs, unwilling

from copgen.bulk.generate import Bulk, generate
from copgen.engines import run
from copgen.job import Job

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'copgen[ray]')")

from ray_nodes import TESTS, surroundings, two_nodes  # noqa: E402 - of use with Ray only

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")                # its own use of its own settings


def test_a_cluster_that_is_not_there_is_said_to_be_so_at_once() -> None:
    assert not ray.is_initialized()              # or that one would be used
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"nothing answers at 127\.0\.0\.1:9 .*ray start --head"):
        list(run([1], unwilling, {"reason": ""}, engine="ray", address="127.0.0.1:9"))
    assert time.monotonic() - began < 15


@pytest.fixture(scope="module")
def one_node() -> Iterator[None]:
    """A Ray of two cores, which all these tests share: each start takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
        yield
        ray.shutdown()


def squares(folder: Path, tasks: list[Square], **more: Any) -> list[Any]:
    return list(run(tasks, Squares, {"folder": folder}, engine="ray", workers=2, **more))


@pytest.mark.usefixtures("one_node")
def test_a_killed_worker_loses_only_its_own_task_and_that_is_done_again(tmp_path: Path) -> None:
    found = squares(tmp_path, [Square(k, "end once" if k in (1, 6) else "") for k in range(20)])
    check(tmp_path, 20)
    assert all(task.number == done.number for task, done in found) and len(found) == 20
    assert Counter(noted(tmp_path / "begun")) == Counter([*range(20), 1, 6])
    assert sorted(noted(tmp_path / "made")) == list(range(20)) and len(noted(tmp_path / "workers")) == 2 + 2


@pytest.mark.usefixtures("one_node")
def test_a_task_that_ends_its_workers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^square 1: its worker process ended under it 2 times .*fewer workers"):
        squares(tmp_path, [Square(0), Square(1, "end"), Square(2)], tries=2)
    assert noted(tmp_path / "begun").count(1) == 2


@pytest.mark.usefixtures("one_node")
def test_errors_are_those_of_other_engines_and_tasks_come_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^square 2: has no root$"):
        squares(tmp_path, [Square(0), Square(2, "refuse")])
    monkeypatch.setattr("copgen.engines.with_ray.BLOCKS", 2)                             # as with very many tasks
    tasks: list[Any] = [("a", (1, 2.0)), None, {"b": [1]}, "text", 7, Path("c")]
    assert sorted(run(tasks, pairs, {}, engine="ray", workers=2), key=str) == sorted(((task, (task,)) for task in tasks), key=str)


@pytest.mark.long
def test_two_nodes_survive_the_loss_of_workers_of_a_node_and_of_the_driver(tmp_path: Path) -> None:
    out, count = tmp_path / "out", 400
    out.mkdir()
    began = time.monotonic()
    with two_nodes() as nodes:
        driver = Driver([sys.executable, str(Path(toy_workers.__file__)), str(out), str(count), "0.3", "ray", "2", nodes.address],
                        surroundings())
        killed = storm(driver, nodes.workers, lambda: len(noted(out / "made")) / count, kills=30, seed=1, limit=900,
                       events={0.25: nodes.lose, 0.4: nodes.join, 0.6: driver.restart})
    check(out, count)
    begun, made = Counter(noted(out / "begun")), Counter(noted(out / "made"))
    twice = sum(times > 1 for times in made.values())
    print(f"two nodes: {count} tasks, {killed} workers killed, a node and the driver lost; {sum(begun.values()) - count} tasks begun "
          f"again, 0 lost, {twice} made twice; {time.monotonic() - began:.0f} s")
    assert killed >= 20 and not twice and driver.starts == 2


@pytest.mark.usefixtures("one_node")
def test_ray_draws_the_same_samples(tiny_model: Path, tmp_path: Path) -> None:
    made_archive.make_archive(tmp_path / "archive", (made_archive.CELL, made_archive.EAST), passes=made_archive.PLAIN[:1])
    job = Job(tmp_path / "local", model=str(tiny_model), archive=tmp_path / "archive", given="DEM,LULC", want="S1RTC", steps=1,
              device="cpu")
    generate(Bulk(job))
    report = generate(Bulk(replace(job, out=tmp_path / "ray"), engine="ray", workers=2))
    assert report.drawn == 2
    assert_same_samples(tmp_path / "local", tmp_path / "ray")


@pytest.mark.long
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_samples_of_an_archive_survive_kills(tmp_path: Path, engine: str) -> None:
    cells = (made_archive.CELL, made_archive.EAST, made_archive.SOUTH)
    made_archive.make_archive(tmp_path / "archive", cells)
    command = [sys.executable, str(Path(bulk_driver.__file__)), str(tmp_path / "archive")]
    out, calm, count = tmp_path / "out", tmp_path / "calm", 36 * len(cells)
    one = Driver([*command, str(calm), "nano", "2", "local", "1"], surroundings())
    one.start()
    assert one.process.wait() == 0

    def share() -> float:
        return len(list(out.glob("*/run.json"))) / count

    began = time.monotonic()
    if engine == "ray":
        with two_nodes() as nodes:
            driver = Driver([*command, str(out), "nano", "2", "ray", "2", nodes.address], surroundings())
            killed = storm(driver, nodes.workers, share, kills=12, seed=2, limit=900,
                           events={0.2: nodes.lose, 0.4: nodes.join, 0.6: driver.restart})
    else:
        driver = Driver([*command, str(out), "nano", "2", "local", "2"], surroundings())
        killed = storm(driver, lambda: children_of(driver), share, kills=12, seed=2, limit=900, events={0.6: driver.restart})
    lost = ", a node and the driver" if engine == "ray" else " and the driver"
    print(f"{engine}, samples of nano: {count} squares, {killed} workers{lost} killed; {time.monotonic() - began:.0f} s")
    assert killed >= 8 and driver.starts == 2
    assert_same_samples(calm, out)


def children_of(driver: Driver) -> list[Any]:
    return [child for child in driver.process.children() if "spawn_main" in title(child)]


def assert_same_samples(one: Path, other: Path) -> None:
    """The same files with the same bytes, but for records, which say when and by what command."""
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) for folder in (one, other)]
    assert names[0] == names[1] and any(name.endswith(".tif") for name in names[0])
    assert not [name for name in names[0] if not name.endswith("run.json") and (one / name).read_bytes() != (other / name).read_bytes()]
