"""An evaluation's rows are those of its cases, conditions and seeds, whoever works, however often it is killed; nothing is lost unsaid."""

from __future__ import annotations

import json
import os
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import kill_workers
import numpy as np
import psutil
import pytest
import toy_evaluation
from toy_evaluation import RECIPE, random_scene, toy

from copgen import geoparquet
from copgen.evaluation.arrays import results_of
from copgen.evaluation.kept import Ensemble, read_ensemble, write_ensemble
from copgen.evaluation.plan import Tools, check_noise
from copgen.evaluation.recipe import Condition, Protocol, Recipe
from copgen.evaluation.rows import COLUMNS, Part, read_rows
from copgen.evaluation.run import evaluate
from copgen.files import held
from copgen.scene import Scene

PER_CELL = 4                                     # conditions of every cell of the toy recipe; two cells have a fifth


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(frame: Any) -> list[tuple[str, ...]]:
    return list(frame.astype(str).itertuples(index=False, name=None))


def assert_same_scene(one: Scene, other: Scene) -> None:
    assert (one.name, one.footprint, one.notes, one.table) == (other.name, other.footprint, other.notes, other.table)
    assert list(one.layers) == list(other.layers)
    for row, layer in one.layers.items():
        np.testing.assert_array_equal(layer, other[row], strict=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells under all conditions, one cell's samples kept; read it, don't write to it."""
    out = tmp_path_factory.mktemp("evaluation") / "toy"
    evaluate(toy(out, keep=1))
    return out


def test_every_condition_of_every_case_is_drawn_scored_and_written(finished: Path) -> None:
    rows = read_rows(finished)
    frame = rows.frame
    assert list(frame.columns) == ["generator", *COLUMNS] and set(frame["generator"]) == {"toy"}
    assert (rows.meta["expected"], rows.meta["finished"], rows.meta["failed"], rows.meta["skipped"]) == (18, 18, 0, {})
    asked = frame.groupby(["protocol", "given"], observed=True)["cell"].nunique()
    assert dict(asked) == {
        ("all-minus-target", "place+date+LULC+s2l2a_60m"): 4, ("all-minus-target", "place+date+DEM+s2l2a_60m"): 4,
        ("all-minus-target", "DEM+LULC+s2l2a_60m"): 4, ("given", "DEM+LULC"): 4, ("swap date", "place+date+DEM"): 2}
    drawn = random_scene("cell-2 " + str(told("cell-2", ("dem", "lulc"))), 1, ("s2l2a_60m",))["s2l2a_60m"]
    one = frame[(frame["cell"] == "cell-2") & (frame["protocol"] == "given") & (frame["band"] == "B09") & (frame["seed"] == 1)]
    assert one["value"].tolist() == [float(drawn[1].astype(float).mean())] and one["weight"].tolist() == [16.0]
    assert {name: tuple(place) for name, place in rows.meta["places"].items()} == {
        f"cell-{k}": tuple(random_scene(f"cell-{k}", 0)["place"]) for k in range(4)}
    assert [(one["protocol"], one["samples"], one["cells"]) for one in rows.meta["conditions"]] == [
        *[("all-minus-target", 3, 4)] * 3, ("given", 2, 4), ("swap date", 3, 2)]


def told(cell: str, given: tuple[str, ...]) -> int:
    return zlib.crc32(b"".join(random_scene(cell, 0)[row].tobytes() for row in given))


def test_two_workers_write_the_bytes_of_one(finished: Path, tmp_path: Path) -> None:
    report = evaluate(toy(tmp_path / "two", keep=1, workers=2))
    assert (report.tasks, report.kept, report.done, report.refused) == (18, 0, 18, 0)
    assert files(tmp_path / "two") == files(finished)


def test_what_is_finished_is_not_done_again(finished: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "again", list[tuple[int, int]]()
    evaluate(toy(out, keep=1))
    gone = [out / "parts" / "001" / "cell-2.parquet", out / "samples" / "000" / "cell-0.safetensors", out / "rows.parquet"]
    for path in gone:
        path.unlink()
    (out / "parts" / "001" / ".cell-2.parquet.77.part").write_bytes(b"left by a worker that was killed")
    times = {path: path.stat().st_mtime_ns for path in (out / "parts").rglob("*.parquet")}
    report = evaluate(toy(out, keep=1), progress=lambda *count: calls.append(count))
    assert (report.kept, report.done) == (16, 2) and calls == [(16, 18), (17, 18), (18, 18)]
    assert files(out) == files(finished)
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == [out / "parts" / "000" / "cell-0.parquet"]
    report = evaluate(toy(out, keep=1))
    assert (report.kept, report.done) == (18, 0) and files(out) == files(finished)


def test_more_samples_are_kept_without_drawing_all_again(tmp_path: Path) -> None:
    out = tmp_path / "kept"
    evaluate(toy(out))
    before = files(out)
    report = evaluate(toy(out, keep=2))
    assert (report.kept, report.done) == (18 - 2 * 5, 2 * 5)
    assert {name: data for name, data in files(out).items() if not name.startswith("samples")} == before
    assert len(list((out / "samples").rglob("*.safetensors"))) == 10


@pytest.mark.parametrize(("change", "says"), [
    ({"recipe": replace(RECIPE, samples=4)}, "with recipe.samples 3, not 4"),
    ({"recipe": replace(RECIPE, protocols=RECIPE.protocols[:2])}, "with recipe.protocols a list of 3, not a list of 2"),
    ({"what": "toy,short=1"}, 'with generator.options.short null, not "1"'),
    ({"cells": "5"}, 'with cases.text "1", not "5"'),
    ({"features": ("thumbnails",)}, "with features.thumbnails null, not {}"),
])
def test_the_folder_of_another_evaluation_is_refused_naming_what_differs(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    evaluate(toy(tmp_path / "one", "1"))
    before = files(tmp_path / "one")
    with pytest.raises(ValueError, match=rf"one: is another evaluation, {says}; choose another folder"):
        evaluate(toy(tmp_path / "one", **{"cells": "1", **change}))
    assert files(tmp_path / "one") == before


def test_a_folder_from_before_a_key_of_recipes_goes_on(tmp_path: Path) -> None:
    """What is off is not in the plan, so that neither older folders nor their bytes are another evaluation's."""
    evaluate(toy(tmp_path, "1"))
    assert "own_noise" not in json.loads((tmp_path / "plan.json").read_text())["recipe"]
    with pytest.raises(ValueError, match=r"with recipe\.own_noise null, not true"):
        evaluate(toy(tmp_path, "1", recipe=replace(RECIPE, own_noise=True)))


def test_samples_that_are_there_are_not_asked_for_by_other_seeds(tmp_path: Path) -> None:
    own = replace(RECIPE, own_noise=True)
    kept = {"kept in": {"own_noise": True}}
    for source, recipe, says in (({"source": "folder"}, own, "false"), (kept, RECIPE, "true"), ({"kept in": {}}, own, "false")):
        with pytest.raises(ValueError, match=f"its samples are there already.* --set own_noise={says}"):
            check_noise(toy(tmp_path, recipe=recipe), source)
    for source, recipe in (({"source": "folder"}, RECIPE), (kept, own), ({"source": "model"}, own)):
        check_noise(toy(tmp_path, recipe=recipe), source)


def test_a_folder_with_something_else_is_refused_and_one_has_one_run_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.tex and no plan\.json"):
        evaluate(toy(tmp_path))
    with held(tmp_path / "busy"), pytest.raises(ValueError, match="another run writes to it"):
        evaluate(toy(tmp_path / "busy"))
    assert not (tmp_path / "busy").exists()


def test_what_is_refused_is_told_counted_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bad"
    report = evaluate(toy(out, "3,bad=1"))
    lines = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert report.refused == 6 and {line["why"] for line in lines} == {"cell-1: is torn"}
    assert [(line["cell"], line["condition"]) for line in lines] == [("cell-0", 4), *(("cell-1", k) for k in range(5))]     # its date
    meta = read_rows(out).meta
    assert (meta["expected"], meta["finished"], meta["failed"]) == (14, 8, 6)
    before = files(out)
    with pytest.raises(ValueError, match="0 workers"):               # nothing is tried again
        evaluate(toy(out, "3,bad=1", workers=0))
    assert files(out) == before
    with monkeypatch.context() as patched:       # it is mended
        patched.setattr(toy_evaluation.Cases, "observation", lambda self, name: random_scene(name, 0))
        report = evaluate(toy(out, "3,bad=1"))
    assert (report.kept, report.done, report.refused) == (8, 6, 0)
    meta = read_rows(out).meta
    assert (meta["finished"], meta["failed"], (out / "failed.jsonl").read_bytes()) == (14, 0, b"")


def test_a_condition_that_does_not_apply_is_finished_and_counted(tmp_path: Path) -> None:
    report = evaluate(toy(tmp_path / "bare", "3,bare=2"))
    assert (report.done, report.refused) == (14, 0)
    assert report.skipped == {"has no LULC, which is given": 1, "has no LULC, which is left out": 1}
    rows = read_rows(tmp_path / "bare")
    assert rows.meta["skipped"] == report.skipped and rows.meta["finished"] == rows.meta["expected"] == 14
    assert {"DEM+s2l2a_60m", "place+date+s2l2a_60m"} == set(rows.frame[rows.frame["cell"] == "cell-2"]["given"])


def test_a_statistic_that_is_no_number_is_refused(tmp_path: Path) -> None:
    report = evaluate(toy(tmp_path / "odd", "2", what="odd"))
    assert report.refused == 4 and "LULC error: is nan with weight 1.0; a statistic is a finite number" in (
        tmp_path / "odd" / "failed.jsonl").read_text()


def test_missing_samples_are_in_the_rows(tmp_path: Path) -> None:
    evaluate(toy(tmp_path / "short", "2", what="toy,short=1"))
    counts = read_rows(tmp_path / "short", statistics=["samples"]).frame
    asked, drawn = 2 * (3 * 3 + 2 + 3), 2 * (3 * 2 + 1 + 2)
    assert counts["weight"].sum() == asked and (counts["value"] * counts["weight"]).sum() == pytest.approx(drawn)


def test_a_swap_takes_what_the_recipe_says_or_the_next_case_s_with_the_same_seeds(finished: Path, tmp_path: Path) -> None:
    evaluate(toy(tmp_path / "swap", keep=2, recipe=replace(RECIPE, protocols=RECIPE.protocols[2:])))
    for cell, day in (("cell-0", random_scene("cell-1", 0)["date"]), ("cell-3", np.array(["2019-02-03"], "datetime64[D]"))):
        kept = read_ensemble(Part(tmp_path / "swap", 0, cell).ensemble)
        case = random_scene(cell, 0)
        other = case.with_layers({**case.layers, "date": day})
        expected = toy_evaluation.Generator("toy").samples(other, kept.condition.given, kept.condition.scored, kept.condition.seeds)
        assert [one.notes["seed"] for one in kept.samples] == [one.notes["seed"] for one in kept.swapped] == [0, 1, 2]
        for one, again in zip(kept.swapped, expected, strict=True):
            assert_same_scene(one, again)
        assert not np.array_equal(kept.swapped[0]["s2l2a_60m"], kept.samples[0]["s2l2a_60m"])
    report = evaluate(toy(tmp_path / "alone", "1"))
    assert report.skipped == {"no other case has another date to swap for": 1}


def test_an_ensemble_comes_back_as_it_was(tmp_path: Path) -> None:
    condition = Condition("given", ("dem", "lulc"), ("place", "date", "s2l2a_60m"), 3)
    samples = [replace(random_scene("a", k, rows), notes={"seed": k}) for k, rows in enumerate((
        ("date", "s2l2a_60m"), ("place", "date"), ("place", "date", "s2l2a_60m")))]
    truth = random_scene("a", 9)
    one = Ensemble(condition, truth, [replace(truth, footprint=None, notes={"draw": 1})], samples, "toy", samples[::-1], [truth])
    path = write_ensemble(tmp_path / "deep" / "a.safetensors", one)
    again = read_ensemble(path)
    assert (again.condition, again.generator, len(again.swapped)) == (condition, "toy", 3)
    assert_same_scene(again.observation, truth)
    assert_same_scene(again.others[0], one.others[0].only(condition.scored))
    assert_same_scene(again.swapped_others[0], truth.only(condition.scored))
    for mine, theirs in zip([*one.samples, *one.swapped], [*again.samples, *again.swapped], strict=True):
        assert_same_scene(mine, theirs)
    assert write_ensemble(tmp_path / "b.safetensors", again).read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"a\.safetensors: is no kept ensemble"):
        read_ensemble(path)


def test_on_the_synthetic_earth_truths_and_forecasters_are_told_apart(tmp_path: Path) -> None:
    recipe = Recipe((
        Protocol("given", given=(("DEM", "LULC", "place", "date"),), scored=("S2L2A", "S1RTC")),
        Protocol("swap", given=(("DEM", "LULC", "place", "date"),), scored=("s2l2a_60m",), swap="date", cells=1)), samples=6, truths=3)
    spread = {}
    for name in ("perfect", "collapsed"):
        asked = toy(tmp_path / name, "worlds:2", what=name, recipe=recipe, tools=Tools(toy_evaluation.forecaster), keep=1,
                    training="worlds:3@0", held_out="worlds:2@50")
        report = evaluate(asked)
        assert (report.done, report.refused) == (3, 0), (tmp_path / name / "failed.jsonl").read_text()
        rows = read_rows(tmp_path / name, statistics=["spread", "samples", "true moved"], modalities=["S2L2A", "S1RTC"]).frame
        counts = rows[rows["statistic"] == "samples"]
        assert set(counts["modality"]) == {"S2L2A", "S1RTC"} and (counts["value"] == 1).all() and (counts["weight"] == 6).all()
        spread[name] = rows[(rows["statistic"] == "spread") & (rows["protocol"] == "given")].groupby("band", observed=True)["value"].mean()
        assert (rows[rows["statistic"] == "true moved"]["protocol"] == "swap date").all() and "true moved" in set(rows["statistic"])
        near = read_rows(tmp_path / name, statistics=["nearest training", "nearest held-out", "nearer training"]).frame
        assert list(near.groupby("statistic", observed=True).size()) == [2 * 6] * 3 and set(near["seed"]) == set(range(6))
    assert (spread["collapsed"] == 0).all() and (spread["perfect"] > 0).all() and len(spread["perfect"]) == 14
    kept = read_ensemble(Part(tmp_path / "perfect", 1, "world-10000000").ensemble)
    assert len(kept.others) == len(kept.swapped_others) == 3 and kept.others[0]["s2l2a_60m"].shape == (2, 4, 4)


@pytest.mark.parametrize(("settings", "says"), [
    ({"training": "2"}, "name both or neither"), ({"held_out": "2"}, "name both or neither"),
    ({"training": "8", "held_out": "6"}, r"cell-0 \(6 in all\) is also among those trained on"),
    ({"keep": -1}, "keep -1"), ({"workers": 0}, "0 workers"),
    ({"features": ("smell",)}, "feature 'smell'"), ({"cells": "0"}, "there are none"),
])
def test_what_is_wrong_everywhere_is_refused_before_anything_is_drawn(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate(toy(tmp_path / "out", **{"cells": "4", **settings}))
    assert not (tmp_path / "out").exists() or not (tmp_path / "out" / "parts").exists()


# --- reading ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [{"workers": 0}, {"keep": -1}, {"device": "cuda"}])
def test_settings_that_are_refused_leave_no_folder(tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError):
        evaluate(toy(tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_an_unfinished_evaluation_is_read_and_says_how_much_is_there(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    evaluate(toy(out, keep=1))
    (out / "parts" / "003" / "cell-1.parquet").unlink()              # rows.parquet has more than there is: it is out of date
    half = read_rows(out)
    assert (half.meta["expected"], half.meta["finished"], half.meta["failed"]) == (18, 17, 0)
    whole = read_rows(finished).frame
    rest = whole[~((whole["cell"] == "cell-1") & (whole["protocol"] == "given"))]
    assert lines(half.frame) == lines(rest)
    for path in (out / "parts").rglob("*.parquet"):
        path.unlink()
    none = read_rows(out)
    assert len(none.frame) == 0 and list(none.frame.columns) == ["generator", *COLUMNS] and none.meta["finished"] == 0
    for paths in (out, [finished, out]):
        with pytest.raises(ValueError, match="has no finished part yet; run it to its end"):
            results_of(read_rows(paths))


def test_reading_some_is_reading_all_and_choosing(finished: Path) -> None:
    whole = read_rows(finished).frame
    name = whole["statistic"].astype(str)
    for asked, keep in [
        ({"statistics": ["mean"]}, whole["statistic"] == "mean"),
        ({"statistics": ["rank:"]}, name.str.startswith("rank:")),
        ({"statistics": ["rank:1:4", "samples"], "protocols": ["given"]},
         name.isin(["rank:1:4", "samples"]) & (whole["protocol"] == "given")),
        ({"modalities": ["place", "date"]}, whole["modality"].isin(["place", "date"])),
        ({"statistics": ["nothing such"]}, whole["statistic"] == ""),
    ]:
        some = read_rows(finished / "rows.parquet", **asked).frame       # type: ignore[arg-type]
        assert lines(some) == lines(whole[keep]), asked
    few = read_rows(finished, columns=["cell", "value"], statistics=["mean"]).frame
    assert list(few.columns) == ["generator", "cell", "value"] and len(few) == (whole["statistic"] == "mean").sum()


def test_several_runs_stand_side_by_side(finished: Path, tmp_path: Path) -> None:
    evaluate(toy(tmp_path / "other", "2", what="other"))
    evaluate(toy(tmp_path / "second", "2"))
    both = read_rows([finished, tmp_path / "other" / "rows.parquet", tmp_path / "second"])
    names = ["toy (toy)", "other", "toy (second)"]
    assert list(both.frame["generator"].unique()) == names == [one["name"] for one in both.meta["runs"]]
    assert both.meta["expected"] == sum(one["expected"] for one in both.meta["runs"]) == 18 + 10 + 10
    parts = [read_rows(path).frame for path in (finished, tmp_path / "other", tmp_path / "second")]
    for name, part in zip(names, parts, strict=True):
        assert lines(both.frame[both.frame["generator"] == name][list(COLUMNS)]) == lines(part[list(COLUMNS)])


def test_what_is_no_evaluation_says_so(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no plan\.json"):
        read_rows(tmp_path)
    with pytest.raises(ValueError, match="is no Parquet file"):
        read_rows(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="which are not those of an evaluation"):
        pa, _ = geoparquet.arrow()
        read_rows(geoparquet.write(tmp_path / "x.parquet", pa.table({"a": [1]}), geometry=None))
    with pytest.raises(ValueError, match="has no column colour"):
        read_rows(finished, columns=["colour"])
    with pytest.raises(ValueError, match="no evaluation is named"):
        read_rows([])


def test_the_merge_holds_few_rows_at_a_time(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(toy(tmp_path / "small", keep=1))
    monkeypatch.setattr("copgen.evaluation.rows.AT_ONCE", 50)
    (tmp_path / "small" / "rows.parquet").unlink()
    evaluate(toy(tmp_path / "small", keep=1))
    _, pq = geoparquet.arrow()
    groups = pq.ParquetFile(tmp_path / "small" / "rows.parquet").metadata
    assert groups.num_row_groups >= 5 and max(groups.row_group(k).num_rows for k in range(groups.num_row_groups)) < 100
    assert lines(read_rows(finished).frame) == lines(read_rows(tmp_path / "small").frame)


# --- kills --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("cells", "seconds", "kills", "restarts"), [
    (4, 0.1, 1, (0.5,)), pytest.param(25, 0.1, 16, (0.3, 0.6, 0.95), marks=pytest.mark.long)])
def test_a_killed_and_resumed_evaluation_has_the_same_bytes(
        tmp_path: Path, cells: int, seconds: float, kills: int, restarts: tuple[float, ...]) -> None:
    evaluate(toy(tmp_path / "peace", str(cells), what="toy", keep=2))
    out = tmp_path / "storm"
    command = [sys.executable, toy_evaluation.__file__, str(out), str(cells), str(seconds), "2"]
    driver = kill_workers.Driver(command, {**os.environ, "OMP_NUM_THREADS": "1"})
    tasks = cells * PER_CELL + 2

    def share() -> float:
        return len(list(out.glob("parts/*/[!.]*.parquet"))) / tasks

    def workers() -> list[psutil.Process]:
        return [one for one in driver.process.children() if "spawn_main" in kill_workers.title(one)]

    events = dict.fromkeys(restarts, driver.restart)
    killed = kill_workers.storm(driver, workers, share, kills=kills, seed=1, events=events, limit=600, pause=seconds)
    print(f"kill -9: {killed} of workers, {driver.starts - 1} of the whole run")
    assert driver.starts == 1 + len(restarts) and killed >= kills // 2
    assert files(out) == files(tmp_path / "peace")


def test_cases_with_noise_of_their_own_have_other_samples_under_the_same_numbers(tmp_path: Path) -> None:
    """Conditions of one case share their noise, cases do not; rows and conditions are named as ever, kept samples by what drew them."""
    recipe = replace(RECIPE, own_noise=True)
    evaluate(toy(tmp_path / "own", "3", recipe=recipe, keep=3))
    frame = read_rows(tmp_path / "own").frame
    assert set(frame["seed"].dropna()) == {0, 1, 2}
    assert [one["first_seed"] for one in read_rows(tmp_path / "own").meta["conditions"]] == [0] * 5
    kept = {(number, cell): [one.notes["seed"] for one in read_ensemble(Part(tmp_path / "own", number, cell).ensemble).samples]
            for number in (0, 3) for cell in ("cell-0", "cell-2")}
    assert kept == {(0, "cell-0"): [0, 1, 2], (3, "cell-0"): [0, 1], (0, "cell-2"): [6, 7, 8], (3, "cell-2"): [6, 7]}
    with pytest.raises(ValueError, match="seeds of its own"):
        replace(recipe, first_seed=2**31 - 5).seeds_before(1)
