"""Truths about the table of qualities: no difference is no loss, errors are in the layers' units, narrower is not better."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copgen.modalities import TABLE

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import quality


def results(scale: float, away: float) -> quality.Results:
    """Twelve worlds at which ensembles of 8 forecast N(0, 1): converged as the truth is drawn, the other spread and moved."""
    rng = np.random.default_rng(0)
    by_place: dict[str, Any] = {}
    for place in range(12):
        truth, noise = rng.normal(size=(1, 24, 24)), rng.normal(size=(8, 1, 24, 24))
        found = {"converged": quality.of_values(noise, truth, noise), "default 6": quality.of_values(scale * noise + away, truth, noise)}
        by_place[str(place)] = {way: {f"{what} DEM": numbers for what, numbers in one.items()} for way, one in found.items()}
    return {"a task": by_place}


def test_the_same_samples_are_no_worse() -> None:
    for one in quality.compared(results(1, 0), "default 6"):
        assert one.more.value == one.more.low == one.more.high == 0 and not one.worse


def test_moved_and_narrowed_ensembles_are_told_from_good_ones() -> None:
    moved = {one.what: one for one in quality.compared(results(1, 0.5), "default 6")}
    assert moved["CRPS"].worse and moved["Wasserstein"].worse
    narrow = {one.what: one for one in quality.compared(results(0.5, 0), "default 6")}
    assert narrow["spread/skill"].converged == pytest.approx(1, abs=0.05) and narrow["spread/skill"].more.high < -0.3


def test_what_moved_is_how_far() -> None:
    by_place = results(1, 0.5)["a task"]
    assert quality.columns_of(by_place, "default 6", "moved DEM").ravel() == pytest.approx(np.full(12, 0.5))


def test_errors_are_in_the_layers_units_and_of_classes_a_share() -> None:
    dem, lulc = np.zeros((3, 1, 4, 4)), np.ones((3, 1, 4, 4))
    half = lulc.copy()
    half[..., :2] = 2
    found = quality.errors(TABLE, {"dem": dem + 3.0, "lulc": half}, {"dem": dem, "lulc": lulc})
    assert found == {"error DEM": 3.0, "error LULC": 0.5}


def test_what_is_done_is_taken_up_and_another_runs_figures_are_refused(tmp_path: Path) -> None:
    file, head = tmp_path / "kept.jsonl", {"samples": 4}
    assert quality.taken_up(file, head) == {}
    with file.open("a") as out:
        out.write('["error", "1", "a task", {"default 6": {"latents": 0.5}}]\n')
    assert quality.taken_up(file, head) == {("error", "1", "a task"): {"default 6": {"latents": 0.5}}}
    with pytest.raises(ValueError, match="another run's figures"):
        quality.taken_up(file, {"samples": 5})
