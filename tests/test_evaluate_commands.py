"""The commands as a user types them, from worlds to rows, tables, figures and a page; and samples that are scored again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_evaluation_folders import made_scene
from typer.testing import CliRunner

from copgen.cli import app
from copgen.evaluation.generators import open_generator
from copgen.evaluation.kept import Ensemble, write_ensemble
from copgen.evaluation.recipe import Condition
from copgen.evaluation.rows import PLANNED, read_rows
from copgen.evaluation.worker import with_others
from copgen.files import write_json

RECIPE = """
samples = 3
truths = 2
[[protocols]]
name = "given"
given = [["DEM", "LULC", "place", "date"]]
scored = ["S1RTC", "cloud_mask"]
[[protocols]]
name = "swap"
given = [["DEM", "LULC", "place", "date"]]
scored = ["S1RTC"]
swap = "date"
"""


def ran(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object) -> str:
    with pytest.raises(ValueError) as error:
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return str(error.value)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A perfect and a collapsed generator on two worlds."""
    folder = tmp_path_factory.mktemp("evaluations")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    for name in ("perfect", "collapsed"):
        ran("evaluate", "run", "--generator", name, "--cases", "worlds:2", "--recipe", recipe, "--out", folder / name, "--keep", 2)
    return {"recipe": recipe, "perfect": folder / "perfect", "collapsed": folder / "collapsed"}


def test_a_finished_evaluation_is_kept_as_it_is(runs: dict[str, Path]) -> None:
    before = (runs["perfect"] / "rows.parquet").read_bytes()
    said = ran("evaluate", "run", "--generator", "perfect", "--cases", "worlds:2", "--recipe", runs["recipe"], "--out", runs["perfect"],
               "--keep", 2)
    assert "0 done now, 4 before, 0 refused" in said
    assert (runs["perfect"] / "rows.parquet").read_bytes() == before


def test_samples_that_were_kept_give_the_same_rows_when_they_are_scored_again(runs: dict[str, Path], tmp_path: Path) -> None:
    ran("evaluate", "run", "--generator", f"kept:{runs['perfect']}", "--cases", "worlds:2", "--recipe", runs["recipe"],
        "--out", tmp_path / "e")
    drawn, again = (read_rows(path).frame.drop(columns="generator") for path in (runs["perfect"], tmp_path / "e"))
    assert len(drawn) and drawn.equals(again)


def test_kept_samples_have_all_rows_that_were_drawn_and_swaps_their_own_value(tmp_path: Path) -> None:
    """Of two conditions with the same given rows and seeds the one that drew the row; of a swap only for the date that it had."""
    case = made_scene("a")
    given, both = ("date", "dem"), ("place", "s2l2a_60m")
    drawn = [case.with_layers({row: made_scene("a", seed)[row] for row in both}, seed=seed) for seed in range(2)]
    days = {day: with_others(case, "date", {"date": np.array([day], "datetime64[D]")}) for day in ("2020-02-01", "2020-06-01")}
    swapped = [days["2020-02-01"].with_layers(one.layers, **{**days["2020-02-01"].notes, **one.notes}) for one in drawn]
    conditions = (Condition("places", given, ("place",), 2), Condition("given", given, both, 2),
                  Condition("swap date", given, both, 2, "date"))
    for k, one in enumerate(conditions):
        samples = [sample.only(one.scored) for sample in drawn]
        write_ensemble(tmp_path / f"samples/00{k}/a.safetensors", Ensemble(one, case, [], samples, "x", swapped if one.swap else []))
    write_json(tmp_path / "plan.json", {**{key: {} for key in (*PLANNED, "expected")}, "generator": {"name": "x"}})
    kept = open_generator(f"kept:{tmp_path}")
    assert [set(one.layers) for one in kept.samples(case, given, both, range(2))] == [set(both)] * 2
    assert len(kept.samples(days["2020-02-01"], given, both, range(2))) == 2
    assert kept.samples(days["2020-06-01"], given, both, range(2)) == []
    both_changed = days["2020-02-01"].with_layers({**days["2020-02-01"].layers, "dem": case["dem"] + 1})
    assert kept.samples(both_changed, given, both, range(2)) == []
    before = kept.record()
    write_ensemble(tmp_path / "samples/001/b.safetensors", Ensemble(conditions[1], replace(case, name="b"), [], drawn, "x"))
    assert open_generator(f"kept:{tmp_path}").record() != before


def test_what_was_not_kept_cannot_be_scored_again(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    assert "keeps no samples" in refused("evaluate", "run", "--generator", f"kept:{tmp_path}", "--cases", "worlds:1", "--recipe",
                                         runs["recipe"], "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_put_generators_side_by_side(runs: dict[str, Path], tmp_path: Path) -> None:
    said = ran("evaluate", "tables", runs["perfect"], runs["collapsed"], "--format", "md", "--out", tmp_path, "--draws", 50)
    assert "perfect" in said and "collapsed" in said and "spread" in said
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".csv", ".tex"}
    assert "3 to 9" in refused("evaluate", "tables", runs["perfect"], "--table", "x")
    assert "table 12" in refused("evaluate", "tables", runs["perfect"], "--table", "12")


def test_a_generator_does_not_differ_from_itself(runs: dict[str, Path]) -> None:
    said = ran("evaluate", "compare", runs["perfect"], runs["perfect"], "--format", "csv", "--draws", 50)
    assert "no difference shown" in said and "A better" not in said.partition("\n\n")[0].replace("A better in 0", "")


def test_figures_and_the_page_are_made_from_what_is_there(runs: dict[str, Path], tmp_path: Path) -> None:
    ran("figures", "ranks", runs["perfect"], runs["collapsed"], "--protocol", "given", "--out", tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".pdf"}
    ran("figures", "moments", runs["perfect"], "--protocol", "given", "--given", "place+date+DEM+LULC", "--rows", "s1rtc",
        "--out", tmp_path)
    assert (tmp_path / "moments-perfect-world-10000000.png").is_file()
    page = ran("evaluate", "report", runs["perfect"], runs["collapsed"], "--out", tmp_path / "report")
    assert "index.html" in page and "collapsed" in (tmp_path / "report" / "index.html").read_text()
    assert "none of the figures could be made" in refused("figures", "all", "--out", tmp_path)
    assert "no figure is called" in refused("figures", "nothing", runs["perfect"], "--out", tmp_path)
    assert "keeps no samples of protocol narrowing" in refused("figures", "narrowing", runs["perfect"], "--out", tmp_path)


def test_a_loop_leaves_its_rounds_and_its_drift(tiny_model: Path, dem: Path, tmp_path: Path) -> None:
    ran("loop", "--model", tiny_model, "--input", f"DEM={dem}", "--through", "LULC,DEM", "--rounds", 2, "--samples", 2,
        "--out", tmp_path / "loop")
    assert (tmp_path / "loop" / "loop.png").is_file() and (tmp_path / "loop" / "round-2" / "seed-1").is_dir()
    lines = (tmp_path / "loop" / "drift.csv").read_text().splitlines()
    assert lines[0].startswith("round,seed,product") and {line[0] for line in lines[1:]} == {"1", "2"}
    assert "exists already" in refused("loop", "--model", tiny_model, "--input", f"DEM={dem}", "--through", "LULC,DEM", "--out",
                                       tmp_path / "loop")
