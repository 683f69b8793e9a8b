"""What must hold of the table of goals: it measures what it says, and takes up what an interrupted run left."""

import sys
from pathlib import Path

import numpy as np
import pytest

from copgen.modalities import TABLE
from copgen.scene import Scene
from copgen.synthetic import world

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from goals import measures, running, table
from goals.places import Baselines


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [world(seed) for seed in range(940, 944)]


def with_linear_l2a(place: Scene) -> Scene:
    """The same place with an L2A that is a line of its L1C."""
    layers = dict(place.layers)
    for row in TABLE.select("S2L2A"):
        above = row.replace("s2l2a", "s2l1c")
        layers[row] = 0.5 * place[above][[TABLE[above].bands.index(band) for band in TABLE[row].bands]] + 100
    return place.with_layers(layers)


def test_a_line_a_band_is_found_from_other_places(scenes):
    found = Baselines.of(map(with_linear_l2a, scenes))
    assert found.slope == pytest.approx(np.full(12, 0.5), abs=1e-6) and found.offset == pytest.approx(np.full(12, 100), abs=0.01)
    assert found.code in TABLE["lulc"].legend.codes and (found.decibels < 0).all()


def test_draws_moved_along_a_line_are_the_truth_where_l2a_is_that_line(scenes):
    truth, *draws = map(with_linear_l2a, scenes)
    for one in measures.moved(draws, truth):
        for row in TABLE.select("S2L2A"):
            np.testing.assert_allclose(one[row], truth[row], atol=0.5)


def test_a_perfect_ensemble_has_perfect_figures():
    """Of one more draw of the same normal, beside an unconditional one that is twice as wide and away by two."""
    rng = np.random.default_rng(0)
    levels = measures.LEVELS
    normal = np.quantile(rng.standard_normal(100_000), levels)
    numbers = {f"{label} {what}": value for label in ("truth", "coded", "perfect") for what, value in (
        ("variance", [4.0] * 12), ("squared", [4.0] * 12), ("inside 0.5", [17 / 33] * 12), ("inside 0.9", [29 / 33] * 12))}
    places = {str(seed): {**numbers, "quantiles": np.tile(normal, 12).tolist(), "true quantiles": np.tile(normal + 0.1, 12).tolist()}
              for seed in range(3)}
    found = table.spread_rows(places, measures.How(), "32 x 15")
    assert len(found) == 6 and all(row.met for row in found)
    assert found[0].figure == "1.00 (1.00 .. 1.00)"
    row = table.distribution_row(places, {"quantiles": np.tile(2 * normal + 2, 12).tolist()}, "32 x 15")
    assert row.met and float(row.figure.split()[0]) == pytest.approx(0.1 / 1.95, abs=0.02)


def test_kappa_is_of_all_pixels_together():
    tables = np.array([np.diag([3, 0]).ravel(), np.diag([0, 5]).ravel()], float).T                # each place has one class only
    assert table.pooled_kappa(tables) == 1 and table.pooled_kappa(tables[:, None, [0, 1, 0]]).shape == (1,)


def test_a_run_takes_up_what_another_left(tmp_path):
    file, head = tmp_path / "results.jsonl", {"model": {"backbone": "abc"}}
    assert running.taken_up(file, head) == ({}, set())
    with file.open("a") as out:
        out.write('{"unit": {"task": "rung 0", "place": "5"}, "numbers": {"5": {"mae": 1.5}}}\n{"unit": {"task": "rung 1", "pl')
    results, done = running.taken_up(file, head)
    assert results == {"rung 0": {"5": {"mae": 1.5}}} and done == {running.Unit("rung 0", "5")}
    assert len(file.read_text().splitlines()) == 2                   # what was cut off is gone
    with pytest.raises(ValueError, match="another model"):
        running.taken_up(file, {"model": {"backbone": "def"}})
