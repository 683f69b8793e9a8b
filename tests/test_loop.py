"""A loop of generations: what each one is given, and drift on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from copgen.loop import curve, differences, loop
from copgen.model import CopGen

S2 = ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m")


class Fixed:
    """A generator that gives the layers of one scene, changed by `step` at each call of Sentinel-2, and remembers what it was asked."""

    def __init__(self, scene, step=0.0):
        self.table, self.scene, self.step, self.asked, self.rounds = scene.table, scene, step, [], {}

    def generate(self, given=None, want=None, *, seeds=(0,), quality="default"):
        self.asked.append((dict(given.layers), tuple(want), tuple(seeds)))
        away = 0.0
        if "s2l2a_10m" in want:
            self.rounds["s2"] = self.rounds.get("s2", 0) + 1
            away = self.step * self.rounds["s2"]
        layers = {row: self.scene[row] + (away if row.startswith("s2") else 0) for row in want}
        return [given.with_layers(layers, seed=seed) for seed in seeds]


def test_what_always_comes_back_the_same_does_not_drift(scene):
    rounds = loop(Fixed(scene), scene, ("S1RTC", "S2L2A"), rounds=3, seeds=(0, 5))
    assert [one.number for one in rounds] == [1, 2, 3] and all(set(one.scenes) == {0, 5} for one in rounds)
    drift = [d for one in rounds for d in one.drift]
    assert drift and all(d.value == 0 for d in drift)
    assert {d.against for d in rounds[0].drift} == {"start", "chains"}           # there is no round before the first
    assert {d.against for d in rounds[1].drift} == {"start", "previous", "chains"}
    assert {(d.product, d.statistic) for d in drift} == {(p, s) for p in ("S1RTC", "S2L2A") for s in ("mae", "mean", "std", "slope")}


def test_a_step_a_round_is_measured_as_that(scene):
    rounds = loop(Fixed(scene, 100.0), scene, ("S1RTC", "S2L2A"), rounds=4)
    away, unit = curve(rounds, "S2L2A", "start", "mae")
    np.testing.assert_allclose(away[:, 0], [100, 200, 300, 400], atol=0.01)
    assert unit == "DN"
    shift, _ = curve(rounds, "S2L2A", "previous", "mean")
    assert np.isnan(shift[0, 0])
    np.testing.assert_allclose(shift[1:, 0], 100, atol=0.01)
    np.testing.assert_allclose(curve(rounds, "S2L2A", "start", "std")[0], 0, atol=0.01)
    np.testing.assert_allclose(curve(rounds, "S2L2A", "start", "slope")[0], 0, atol=1e-3)
    np.testing.assert_array_equal(curve(rounds, "S1RTC", "start", "mae")[0], 0)


def test_each_generation_sees_the_one_before_and_what_is_kept_alone(scene):
    model, seen = Fixed(scene, 7.0), []
    loop(model, scene, ("S1RTC", "S2L2A"), rounds=2, seeds=(3,), keep=("LULC",), progress=lambda done, of: seen.append((done, of)))
    given = [set(layers) for layers, _, _ in model.asked]
    assert given == [{"lulc", *S2}, {"lulc", "s1rtc"}] * 2
    assert [want for _, want, _ in model.asked] == [("s1rtc",), S2] * 2
    np.testing.assert_array_equal(model.asked[0][0]["s2l2a_10m"], scene["s2l2a_10m"])
    np.testing.assert_allclose(model.asked[2][0]["s2l2a_10m"], scene["s2l2a_10m"] + 7, rtol=1e-6)    # its own output, not the start
    assert len({seeds for _, _, seeds in model.asked}) == 4                      # no two generations share their noise
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_chains_do_not_know_of_one_another(tiny_model, scene):
    model = CopGen.from_pretrained(tiny_model)
    start = scene.only("S2L2A,S1RTC")
    alone = loop(model, start, rounds=2, seeds=(1,))
    both = loop(model, start, rounds=2, seeds=(0, 1))
    for one, other in zip(alone, both, strict=True):
        for row, layer in one.scenes[1].layers.items():
            np.testing.assert_array_equal(layer, other.scenes[1][row])
    assert not np.array_equal(both[1].scenes[0]["s1rtc"], both[1].scenes[1]["s1rtc"])
    assert both[0].scenes[1].notes["round"] == 1 and both[0].scenes[1].notes["seed"] == 1


def test_differences_in_their_units(scene):
    table = scene.table

    def found(row, made, statistic="mae"):
        return [(unit, value) for _, name, unit, value in differences(table[row], made, scene[row]) if name == statistic]

    for unit, value in found("s1rtc", scene["s1rtc"] * 10):
        assert unit == "dB" and value == pytest.approx(10, abs=1e-3)
    assert found("dem", scene["dem"] + 5) == [("m", pytest.approx(5, abs=1e-3))]
    assert found("place", scene["place"] + [1, 0]) == [("km", pytest.approx(111.19, abs=0.01))]
    assert found("date", scene["date"] - 9) == [("days", 9.0)]
    lulc = scene["lulc"].copy()
    lulc[0, :19] = np.where(lulc[0, :19] == 1, 2, 1)
    assert found("lulc", lulc) == [("share", pytest.approx(19 / 192))]
    twice = differences(table["dem"], scene["dem"] * 2, scene["dem"])
    assert dict((name, value) for _, name, _, value in twice)["std"] == pytest.approx(scene["dem"].std(), rel=1e-5)
    noise = np.random.default_rng(0).normal(100, 1, scene["dem"].shape)
    rough = {name: value for _, name, _, value in differences(table["dem"], noise, scene["dem"])}
    assert rough["slope"] > 1                                                     # noise has a flatter spectrum than a ramp


@pytest.mark.parametrize(("through", "more", "says"), [
    (("S2L2A",), {}, "two products"), (("S2L2A", "s2l2a_10m"), {}, "two products"), (("S1RTC", "S2L2A"), {"rounds": 0}, "at least one"),
    (("S1RTC", "S2L2A"), {"seeds": (1, 1)}, "twice"), (("S1RTC", "DEM"), {}, "has no dem"),
    (("S1RTC", "S2L2A"), {"keep": ("S2L2A",)}, "leave it out"), (("S1RTC", "S2L2A"), {"keep": ("LULC",)}, "has no lulc"),
])
def test_a_loop_that_cannot_be_is_refused(scene, through, more, says):
    start = scene.only("S2L2A,S1RTC")
    with pytest.raises(ValueError, match=says):
        loop(Fixed(scene), start, through, **more)
