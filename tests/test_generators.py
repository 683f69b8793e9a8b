"""A generator's samples are its seeds' own; the perfect one draws from the truth's distribution, the collapsed one has no spread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from copgen.evaluation.cases import Resampled, open_cases
from copgen.evaluation.generators import Collapsed, Model, Perfect, mean_layer, open_generator
from copgen.modalities import TABLE
from copgen.reading import CopgenWarning
from copgen.scene import Scene
from copgen.synthetic import world

SMALL = replace(TABLE, footprint=240)            # 24 x 24 pixels of 10 m: quick, and all that is tested is there
CAUSES = ("place", "date", "dem", "lulc")
DRAWN = ("cloud_mask", "s1rtc", "s2l2a_10m")


def same(one: Scene, other: Scene) -> bool:
    return tuple(one.layers) == tuple(other.layers) and all(np.array_equal(one[row], other[row]) for row in one.layers)


# --- a model ------------------------------------------------------------------------------------------------------------------------

def test_a_models_samples_are_those_that_it_draws(tiny_model: Path, scene: Scene) -> None:
    generator = open_generator(f"{tiny_model},steps=2,precision=fp32", device="cpu")
    assert isinstance(generator, Model)
    drawn = generator.samples(scene, ("dem", "lulc"), ("s1rtc", "place"), [4, 9])
    again = generator.model.generate(scene.only("dem,lulc"), "s1rtc,place", seeds=[9], steps=2)[0]
    assert [one.notes["seed"] for one in drawn] == [4, 9] and set(drawn[0].layers) == {"place", "s1rtc"}
    assert same(drawn[1], again) and drawn[1].name == scene.name


def test_a_models_record_has_its_weights_and_how_it_drew(tiny_model: Path) -> None:
    generator = open_generator(f"{tiny_model},steps=2", device="cpu")
    said = generator.record()
    assert said["name"] == "tiny" and said["steps"] == 2 and said["solver"] == "default" and said["parameters"]["backbone"] > 0
    assert all(len(digest) == 64 for digest in said["sha256"].values()) and "backbone.safetensors" in said["sha256"]
    assert said == open_generator(f"{tiny_model},steps=2,solver=default", device="cpu").record()
    assert said != open_generator(f"{tiny_model},steps=3", device="cpu").record()


def test_rows_that_a_model_lacks_are_left_out(tiny_model: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = open_generator(f"{tiny_model},steps=2", device="cpu")
    monkeypatch.setattr(Model, "table", property(lambda self: self.model.table.subset(["dem", "s1rtc"])))
    assert set(generator.samples(scene, ("dem", "lulc"), ("s1rtc", "place"), [1])[0].layers) == {"s1rtc"}
    assert generator.samples(scene, ("dem",), ("place",), [1]) == []


# --- the two ends -------------------------------------------------------------------------------------------------------------------

def test_the_perfect_generator_draws_neither_the_truth_nor_the_other_truths() -> None:
    cases, perfect = open_cases("worlds:1@31", SMALL), open_generator("perfect", SMALL)
    truth, others = cases.observation("world-000031"), cases.others("world-000031", CAUSES, 4)
    drawn = perfect.samples(truth, CAUSES, DRAWN, range(4))
    assert [one.notes["seed"] for one in drawn] == [0, 1, 2, 3] and all(tuple(one.layers) == DRAWN for one in drawn)
    assert len({one["s1rtc"].tobytes() for one in (truth, *others, *drawn)}) == 1 + 4 + 4


def test_a_perfect_sample_is_its_seeds_own() -> None:
    truth, perfect = world(31, SMALL), Perfect(SMALL)
    together = perfect.samples(truth, CAUSES, DRAWN, [70, 2, 5])
    assert [one.notes["seed"] for one in together] == [70, 2, 5]
    for one in together:
        assert same(one, perfect.samples(truth, CAUSES, DRAWN, [one.notes["seed"]])[0])


def test_the_perfect_generator_is_calibrated() -> None:
    """The truth is one draw among the samples: its rank is uniform, so over 60 worlds its mean is in the middle, within 3 deviations."""
    perfect, ranks = Perfect(SMALL), []
    for seed in range(500, 560):
        truth = world(seed, SMALL)
        means = [10 * np.log10(one["s1rtc"]).mean() for one in (truth, *perfect.samples(truth, CAUSES, ("s1rtc",), range(4)))]
        ranks.append(int(np.argsort(np.argsort(means))[0]))
    assert abs(np.mean(ranks) - 2) < 3 * np.sqrt(2 / 60)                         # variance of 0..4: (5² - 1) / 12 = 2
    assert set(ranks) == {0, 1, 2, 3, 4}


def test_what_cannot_be_drawn_again_is_missing_and_told() -> None:
    perfect = Perfect(SMALL, Resampled("exact"))
    with pytest.warns(CopgenWarning, match="resampling=bank"):
        assert perfect.samples(world(31, SMALL), ("dem", "lulc"), DRAWN, [0, 1]) == []
    with pytest.raises(ValueError, match="is no world of the synthetic Earth"):
        perfect.samples(Scene(name="field", table=SMALL), (), DRAWN, [0])


def test_the_collapsed_generator_is_the_mean_for_every_seed() -> None:
    truth, collapsed = world(31, SMALL), Collapsed(SMALL, draws=4)
    first, second = collapsed.samples(truth, CAUSES, DRAWN, [0, 9])
    assert same(first, second) and (first.notes["seed"], second.notes["seed"]) == (0, 9)
    drawn = [one["s1rtc"] for one in collapsed.resampled(truth, CAUSES, 4, -2)]
    np.testing.assert_allclose(10 * np.log10(first["s1rtc"]), np.mean(10 * np.log10(drawn), 0), atol=1e-3)


def test_the_collapsed_generator_keeps_what_makes_its_draws_exact() -> None:
    truth, collapsed = world(31, SMALL), Collapsed(SMALL, Resampled("exact"), 2)
    assert collapsed.kept(truth, (*CAUSES, "s1rtc")) == [CAUSES]
    assert collapsed.kept(truth, ("date", "dem", "lulc", "s1rtc")) == [()]
    assert collapsed.kept(truth, ("place", "date", "s1rtc")) == [("place", "date")]
    assert collapsed.kept(truth, ("place", "dem", "lulc")) == [("place", "dem", "lulc")] * 2
    made = collapsed.samples(truth, (*CAUSES, "s1rtc"), ("s2l2a_60m",), [0])
    assert same(made[0], collapsed.samples(truth, CAUSES, ("s2l2a_60m",), [0])[0])
    later = truth.with_layers({**truth.layers, "date": truth["date"] + 90})
    assert not same(made[0], collapsed.samples(later, CAUSES, ("s2l2a_60m",), [0])[0])
    swapped = truth.with_layers({**truth.layers, "dem": world(9, SMALL)["dem"]})
    with pytest.warns(CopgenWarning, match="dem of another world"):
        assert collapsed.samples(swapped, CAUSES, ("s2l2a_60m",), [0]) == []
    for seed in range(12):
        collapsed.samples(world(seed, SMALL), ("place",), ("date",), [0])
    assert len(collapsed.means) == 8             # of the last alone: memory has an end


def test_means_are_over_the_models_units() -> None:
    """Decibels, not power; across the antimeridian, not around the Earth; across New Year, not in July; the most frequent class."""
    np.testing.assert_allclose(mean_layer(TABLE["s1rtc"], np.array([0.001, 0.1]).reshape(2, 1, 1, 1)), 0.01, rtol=1e-4)
    np.testing.assert_allclose(mean_layer(TABLE["s2l2a_10m"], np.array([100, 300, 800]).reshape(3, 1, 1, 1)), 400, rtol=1e-4)
    np.testing.assert_allclose(mean_layer(TABLE["dem"], np.array([9, 999]).reshape(2, 1, 1, 1)), 99, rtol=1e-3)     # √(10 · 1000) - 1
    assert mean_layer(TABLE["lulc"], np.array([11, 2, 2, 7]).reshape(4, 1, 1, 1)).item() == 2
    np.testing.assert_allclose(mean_layer(TABLE["place"], np.array([[0, 178.0], [0, -178.0]])) % 360, [0, 180], atol=1e-4)
    days = np.array([["2020-12-27"], ["2021-01-05"], ["2021-01-01"]], "datetime64[D]")
    assert str(mean_layer(TABLE["date"], days)[0])[5:] in ("12-31", "01-01")


# --- texts --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "said"), [
    ("nanobot", "no model is called 'nanobot'"), ("nano,steps=0", "a whole number is needed, 1 or larger"),
    ("nano,solver=best", "no solver is called 'best'"), ("nano,precision=fp8", "choose auto, bf16, fp32 or int8"),
    ("nano,draws=3", "a model takes no draws"), ("nano,size=3", "no option is called 'size'"),
    ("perfect,draws=3", "perfect takes no draws"), ("perfect,resampling=some", "choose none, exact, bank or all"),
    ("collapsed,draws=0", "1 or larger"), ("folder:nowhere", "no such folder"), ("folder:", "no such folder"),
    ("published:nowhere", "no such folder"), ("benchmark:nowhere", "no such folder"),
])
def test_a_text_that_names_no_generator_is_refused_with_the_way_out(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        open_generator(text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_options_reach_the_forecasters() -> None:
    assert open_generator("collapsed,draws=3,resampling=exact", SMALL).record() == Collapsed(SMALL, Resampled("exact"), 3).record()
    assert open_generator("perfect,resampling=all", SMALL).record()["resampling"] == "all"
