"""What must hold of the rows of whole ensembles: perfect ones look perfect, faulty ones don't, and the order of samples decides nothing."""

import random
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from copgen import scores
from copgen.evaluation.features import Feature
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.memory import looked_at
from copgen.evaluation.recipe import Condition
from copgen.evaluation.statistics import Memory, statistics
from copgen.modalities import TABLE, Table
from copgen.scene import Scene
from copgen.scores.calibration import rank_test
from copgen.synthetic import world
from copgen.synthetic.resample import resample

PLAIN = Table((replace(TABLE["dem"], resolution=10), TABLE["lulc"]), footprint=480)                  # images of 48 x 48 pixels
CRPS = (1.09 / np.pi) ** 0.5                      # of N(0, 1.09) against itself, Gneiting and Raftery 2007
CAUSES = ("place", "date", "dem", "lulc")


def fields(rng, count, wide=1.0, table=PLAIN):
    """Noise around a height that is drawn itself, so that the tile's mean is uncertain, too."""
    side = table.side("dem")
    return [Scene({"dem": 500 + wide * (0.3 * rng.normal() + rng.standard_normal((1, side, side)))}, table=table) for _ in range(count)]


def of(truth, others, samples, scored=("dem",), given=()):
    numbered = [one.with_layers(one.layers, seed=seed) for seed, one in enumerate(samples)]
    return Ensemble(Condition("test", given, scored, len(samples)), truth, list(others), numbered, "made")


def pooled(cells):
    """The weighted mean of every statistic of the whole ensembles of many cells."""
    rows = [row for cell in cells for row in cell if row.seed is None]
    total = {name: np.zeros(2) for name in {row.statistic for row in rows}}
    for row in rows:
        total[row.statistic] += row.value * row.weight, row.weight
    return {name: value / weight for name, (value, weight) in total.items()}


def histogram(found, prefix=""):
    return np.array([found[f"{prefix}rank:{k}:8"] for k in range(9)])


def many_cells(wide, cells=80):
    rng = np.random.default_rng(3)
    return pooled([statistics(of(*fields(rng, 1), [], fields(rng, 8, wide))) for _ in range(cells)])


def test_a_perfect_ensemble_has_the_spread_of_its_skill_and_flat_ranks():
    """The truth is one more draw. 80 tiles, and 8 times as many samples; a tile's mean is one number."""
    found = many_cells(1)
    assert found["spread"] == pytest.approx(found["skill"], rel=0.1)
    assert found["tile spread"] == pytest.approx(found["tile skill"], rel=0.3)
    assert found["crps"] == pytest.approx(CRPS, rel=0.05)
    assert histogram(found) == pytest.approx(np.full(9, 1 / 9), abs=0.02)
    assert not rank_test(80 * histogram(found, "tile ")).faults(0.001)


@pytest.mark.parametrize(("wide", "fault"), [(0.3, "under-dispersed"), (3, "over-dispersed")])
def test_a_faulty_ensemble_is_told_by_spread_and_ranks(wide, fault):
    found = many_cells(wide)
    assert rank_test(80 * histogram(found, "tile ")).faults(0.001) == (fault,)
    assert (found["spread"] < found["skill"] / 2) == (wide < 1)
    assert found["crps"] > 1.1 * CRPS


def test_a_collapsed_ensemble_is_flagged():
    """Always the same image: no spread, the truth always outside, and a set that covers nothing."""
    rng = np.random.default_rng(0)
    truth, *others = fields(rng, 9)
    found = pooled([statistics(of(truth, others, fields(rng, 1) * 8))])
    assert found["spread"] == found["variance"] == found["range coverage"] == found["intra distance"] == 0
    assert found["rank:0:8"] + found["rank:8:8"] == 1
    assert found["recall"] == 0 and found["nn accuracy"] > 0.8 and found["truth intra distance"] > 0
    assert found["error of mean"] == pytest.approx(found["crps"])


def test_rows_are_what_the_estimators_say():
    """The one pass over many truths against `copgen.scores`, a truth at a time and in double precision."""
    rng = np.random.default_rng(1)
    truths, samples = fields(rng, 3), fields(rng, 5, 1.5)
    found = {row.statistic: row.value for row in statistics(of(truths[0], truths[1:], samples)) if row.seed is None}
    x, ys = np.stack([one["dem"][0] for one in samples]), [one["dem"][0] for one in truths]
    pairs = [scores.spread_and_error(x, y) for y in ys]
    expected = {
        "crps": np.mean([scores.crps(x, y) for y in ys]), "error of mean": np.mean([scores.error_of_mean(x, y) for y in ys]),
        "spread": np.mean([spread for spread, _ in pairs]), "skill": np.mean([error for _, error in pairs]),
        "variogram score": np.mean([scores.variogram_score(x, y) for y in ys]),
        "energy score": np.mean([scores.energy_score(x[..., None], y[..., None]) for y in ys]),
        "tile crps": np.mean([scores.crps(x.mean((1, 2), dtype=float), y.mean(dtype=float)) for y in ys]),
        "pixel wasserstein": scores.wasserstein(x.ravel(), np.ravel(ys)),
    }
    counts = np.mean([scores.rank_counts(scores.ranks(x, y, rng), 5) for y in ys], axis=0) / ys[0].size
    expected |= {f"rank:{k}:5": share for k, share in enumerate(counts)}
    assert {name: found[name] for name in expected} == {name: pytest.approx(value, rel=1e-4, abs=1e-9) for name, value in expected.items()}


def test_rows_of_classes_are_what_the_estimators_say():
    rng = np.random.default_rng(1)
    truths, samples = ([Scene({"lulc": rng.choice(codes, (1, 48, 48))}, table=PLAIN) for _ in range(4)]
                       for codes in ((1, 2, 5), (1, 1, 2, 7)))
    found = {row.statistic: row for row in statistics(of(truths[0], truths[1:], samples, ("lulc",))) if row.seed is None}
    x, ys = np.stack([one["lulc"][0] for one in samples]), [one["lulc"][0] for one in truths]
    assert found["brier"].value == pytest.approx(np.mean([scores.brier(x, y) for y in ys]))
    assert found["fair brier"].value == pytest.approx(np.mean([scores.fair_brier(x, y) for y in ys]))
    assert found["entropy"].value == pytest.approx(scores.entropy(x).mean())
    cases, hits = np.sum([scores.reliability_counts(x, y, (1, 2)) for y in ys], axis=0)
    for i, code in enumerate((1, 2)):
        for k in range(5):
            row = found[f"reliability:{code}:{k}:4"]
            assert (row.value, row.weight) == pytest.approx((hits[i, k] / cases[i, k], cases[i, k] / 4))


def test_ties_are_broken_at_random():
    """Heights in whole metres: a perfect ensemble still has flat ranks."""
    rng = np.random.default_rng(5)
    whole = [Scene({"dem": rng.integers(0, 3, (1, 48, 48))}, table=PLAIN) for _ in range(9)]
    assert histogram(pooled([statistics(of(whole[0], [], whole[1:]))])) == pytest.approx(np.full(9, 1 / 9), abs=0.03)


@pytest.fixture(scope="module")
def earth():
    """A world, and what else could have been observed there."""
    return world(3), resample(3, CAUSES, 12).scenes


def test_the_order_of_samples_decides_nothing(earth):
    one = of(earth[0], earth[1][4:6], earth[1][:4], ("dem", "cloud_mask", "s2l2a_60m"), ("place", "date"))
    shuffled = random.Random(0).sample(one.samples, 4)
    assert [one.notes["seed"] for one in shuffled] != [0, 1, 2, 3]
    assert statistics(replace(one, samples=shuffled)) == statistics(one)


def test_samples_at_a_time_decide_nothing(monkeypatch):
    truth, *samples = fields(np.random.default_rng(2), 4)
    whole = {row[:4]: row[4:] for row in statistics(of(truth, [], samples))}
    monkeypatch.setattr("copgen.evaluation.continuous.AT_ONCE", 2)
    parts = {row[:4]: row[4:] for row in statistics(of(truth, [], samples))}
    assert parts == {name: pytest.approx(numbers, rel=1e-12) for name, numbers in whole.items()}


# --- the synthetic Earth ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def drawn(earth):
    """All that is drawn anew given place, date, terrain and land cover, of one world, against as many true observations."""
    truth, scenes = earth
    scored = tuple(name for name in TABLE.images if name not in CAUSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return statistics(of(truth, scenes[6:], scenes[:6], scored, CAUSES))


def test_every_row_is_a_finite_number_and_there_once(drawn):
    assert len({row[:4] for row in drawn}) == len(drawn)
    assert all(np.isfinite(row.value) and row.weight > 0 for row in drawn)
    assert {row.modality for row in drawn} == {"S1RTC", "S2L1C", "S2L2A", "cloud_mask", ""}
    assert {row.band for row in drawn if row.modality == "S2L1C" and row.statistic == "ssim"} == {
        "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"}
    bands = {row.band: row.weight for row in drawn if row.seed == 0 and row.modality == "S2L2A" and row.statistic == "error"}
    assert (bands["B02"], bands["B05"], bands["B09"]) == (192**2, 96**2, 32**2)


def test_true_resamplings_score_as_the_truth_does(drawn):
    """Of one world's weather the samples are no better known than the truth: signs alone can be told from six of them."""
    found = {(row.modality, row.statistic): row.value for row in drawn if row.band == ""}
    for product in ("S1RTC", "S2L1C", "S2L2A"):
        assert found[product, "nn accuracy"] < 0.8
        assert found[product, "precision"] > 0.5 and found[product, "recall"] > 0.5
    assert {name for product, name in found if product == "cloud_mask"} >= {"brier", "fair brier", "entropy", "nn accuracy", "mmd"}


def test_layers_of_true_resamplings_agree_with_each_other_as_the_truths_do(drawn):
    own, true = ({row.statistic: row.value for row in drawn if row.statistic.startswith(prefix) and row.seed in (seed, None)}
                 for prefix, seed in (("consistency", 0), ("truth consistency", None)))
    name = "consistency blue of L1C above L2A over dark ground, share of pixels"
    assert own[name] > 0.9 and true[f"truth {name}"] > 0.9
    assert any("NDVI" in name for name in own) and any("VV left on slopes" in name for name in own)


def test_what_given_layers_say_of_each_other_is_not_the_samples_merit(earth):
    truth, _ = earth
    names = {row.statistic for row in statistics(of(truth, [], [truth] * 2, ("s1rtc",), (*CAUSES, "s2l2a_10m")))}
    assert any(name.startswith("consistency VV") for name in names)
    assert not any("NDVI" in name for name in names)


# --- features and memory ------------------------------------------------------------------------------------------------------------

def test_features_make_vectors_or_distances(earth):
    truth, scenes = earth
    level = Feature("level", "vectors", lambda images: images.mean((2, 3), dtype=float))
    apart = Feature("apart", "distance", lambda a, b: np.abs(a - b).mean((1, 2, 3)))
    one = of(truth, scenes[3:5], scenes[:3], ("s2l2a_10m",), CAUSES)
    found = {row.statistic: row.value for row in statistics(one, features={"level": level, "apart": apart}) if row.band == ""}
    rgb = np.stack([scene["s2l2a_10m"][:3] for scene in scenes[:3]]) / 10_000
    assert found["level intra distance"] == pytest.approx(scores.sets.intra_distance(rgb.mean((2, 3))), rel=1e-4)
    between = [np.abs(rgb[i] - rgb[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found["apart intra distance"] == pytest.approx(np.mean(between), rel=1e-4)
    assert "level nn accuracy" in found and "apart nn accuracy" not in found
    assert "level precision" not in found                                                            # five neighbours, three truths


def test_a_copy_of_a_training_place_is_told():
    """Sample 0 is a training place itself, sample 1 a held-out one."""
    places = [world(seed) for seed in range(6)]
    memory = Memory.of(places[:3], places[3:])
    rows = statistics(of(places[5], [], [places[1], places[4]], ("s2l2a_10m",)), memory=memory)
    found = {(row.seed, row.statistic): row.value for row in rows if "nearest" in row.statistic or "nearer" in row.statistic}
    assert found[0, "nearest training"] == found[1, "nearest held-out"] == 0 < found[1, "nearest training"]
    assert (found[0, "nearer training"], found[1, "nearer training"]) == (1, 0)


@pytest.mark.parametrize(("training", "held_out", "says"), [
    ("a b", "c b", "held out c b: b .* among those trained on"), ("a b", "c x", "held out c x: x .* among the cases"),
    ("a x", "c d", "training a x: x .* among the cases")])
def test_a_case_is_near_to_itself_and_neither_a_training_place_nor_held_out(training, held_out, says):
    """A sample that is given a case's other layers lies near the case: not because it was learnt by heart."""
    def opened(text):
        return SimpleNamespace(names=text.split)

    with pytest.raises(ValueError, match=says):
        looked_at(training, held_out, ["x", "y"], opened)
    assert looked_at("a b", "c d", ["x", "y"], opened) is not None
