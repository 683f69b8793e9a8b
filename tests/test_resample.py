"""What must hold of draws from the synthetic Earth's conditional: what is kept is kept, and the truth is one draw among the others."""

from dataclasses import replace

import numpy as np
import pytest

from copgen import scores
from copgen.modalities import TABLE
from copgen.synthetic import world
from copgen.synthetic.resample import Bank, kernel, normalised, resample
from copgen.synthetic.setting import LOWEST_SUN, climate, setting, sun_at

SMALL = replace(TABLE, footprint=240)            # 24 x 24 pixels of 10 m: quick, and all that is tested is there
CAUSES = "place,date,dem,lulc"


def decibels(scene):
    return 10 * np.log10(scene["s1rtc"][0]).mean()


def greenness(scene):
    red, _, _, infrared = scene["s2l2a_10m"].astype(float)
    return ((infrared - red) / (infrared + red)).mean()


STATISTICS = {
    "blue of L1C": lambda scene: scene["s2l1c_10m"][2].mean(), "infrared of L2A": lambda scene: scene["s2l2a_10m"][3].mean(),
    "NDVI": greenness, "VV": decibels, "clouds": lambda scene: (scene["cloud_mask"] > 0).mean(),
    "vapour": lambda scene: scene["s2l1c_60m"][1].mean() / scene["s2l2a_60m"][1].mean(),
}


@pytest.mark.parametrize("keep", ["", "place", "place,date", "place,dem,lulc", CAUSES])
def test_kept_layers_are_the_worlds_bit_for_bit_and_all_others_are_drawn_anew(keep):
    truth = world(31, SMALL)
    found = resample(31, keep, 3, table=SMALL)
    kept = SMALL.select(keep)
    assert found.exact == kept and found.weights is None and found.effective_sample_size == 3
    for scene in found.scenes:
        assert tuple(scene.layers) == tuple(truth.layers)
        for row in truth.layers:
            assert np.array_equal(scene[row], truth[row]) == (row in kept or (row == "cloud_mask" and not scene[row].any()))
    assert len({scene["s2l2a_10m"].tobytes() for scene in found.scenes}) == 3


def test_another_draw_is_another_observation_and_the_same_is_the_same():
    first, again, other = (resample(of, CAUSES, 1, table=SMALL, draw=draw).scenes[0] for of, draw in ((8, 0), (world(8, SMALL), 0), (8, 1)))
    np.testing.assert_array_equal(first["s1rtc"], again["s1rtc"])
    assert not np.array_equal(first["s1rtc"], other["s1rtc"])


def test_a_world_may_be_looked_at_on_another_day():
    day = np.datetime64("2021-04-01")
    found = resample(8, CAUSES, 2, table=SMALL, date=day)
    truth = world(8, SMALL)
    assert all(scene["date"][0] == day and np.array_equal(scene["lulc"], truth["lulc"]) for scene in found.scenes)


@pytest.fixture(scope="module")
def calibration():
    """Sixty worlds, each with seven resamplings given place, date, terrain and land cover: every statistic, [60], [60, 7]."""
    truths, drawn = [], []
    for seed in range(700, 760):
        truths.append([measure(world(seed, SMALL)) for measure in STATISTICS.values()])
        drawn.append([[measure(scene) for measure in STATISTICS.values()] for scene in resample(seed, CAUSES, 7, table=SMALL).scenes])
    return {name: (np.array(truths)[:, k], np.array(drawn)[..., k]) for k, name in enumerate(STATISTICS)}


@pytest.mark.parametrize("name", STATISTICS)
def test_the_truth_ranks_anywhere_among_its_resamplings(name, calibration):
    """Simulation-based calibration (Talts et al. 2018): ranks 0..7, two to a bin, are uniform by chi-square (3 degrees: 16.3 at 0.1 %)."""
    truth, drawn = calibration[name]
    counts = np.bincount(scores.ranks(drawn.T, truth, np.random.default_rng(0)) // 2, minlength=4)
    assert ((counts - 15) ** 2 / 15).sum() < 16.3


@pytest.mark.parametrize("name", STATISTICS)
def test_resamplings_have_the_worlds_mean(name, calibration):
    """By the law of total expectation: truths less the means of their resamplings average to zero."""
    truth, drawn = calibration[name]
    error = truth - drawn.mean(1)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(truth))


def test_place_tells_the_season_that_can_be_seen_and_ground_the_climate():
    north = next(seed for seed in range(400, 2000) if setting(seed, 240).lat > 66)
    days = [scene["date"][0] for scene in resample(north, "place", 12, table=SMALL).scenes]
    assert len(set(days)) > 6 and all(sun_at(setting(north, 240).lat, day).zenith < LOWEST_SUN for day in days)


def test_ground_without_a_place_is_kept_and_tells_how_wet_it_is():
    """Places drawn for the ground of deserts and of forests are nearer to these in wetness than places are on the whole."""
    everywhere = np.array([setting(seed, 240).wetness for seed in Bank.of(SMALL, 150).seeds])
    extreme = [seed for seed in range(400, 600) if not 0.1 < setting(seed, 240).wetness < 0.7][:5]
    drawn, prior = [], []
    for seed in extreme:
        truth, found = world(seed, SMALL), resample(seed, "dem,lulc", 12, table=SMALL, bank=150, least=0)
        assert found.exact == ("dem", "lulc")
        assert all(np.array_equal(scene[row], truth[row]) for scene in found.scenes for row in found.exact)
        wet = np.array([climate(*scene["place"])[0] for scene in found.scenes])
        drawn.append(np.abs(wet - setting(seed, 240).wetness).mean())
        prior.append(np.abs(everywhere - setting(seed, 240).wetness).mean())
    assert np.mean(drawn) < 0.8 * np.mean(prior)


def test_weights_prefer_observations_like_the_kept_one():
    """Given radar besides the causes, draws are nearer to the truth's radar than without it; the causes stay exact."""
    nearer = []
    for seed in (3, 4, 5):
        truth = world(seed, SMALL)
        free = resample(seed, CAUSES, 40, table=SMALL).scenes
        found = resample(seed, CAUSES + ",s1rtc", 40, table=SMALL, candidates=60, least=1)
        assert found.exact == SMALL.select(CAUSES) and 1 <= found.effective_sample_size < 60
        assert found.weights.sum() == pytest.approx(1)
        far, near = (np.mean([abs(decibels(scene) - decibels(truth)) for scene in scenes]) for scenes in (free, found.scenes))
        nearer.append(near < far)
    assert all(nearer)


def test_a_date_alone_says_which_hemisphere_is_not_in_the_polar_night():
    found = resample(7, "date", 40, table=SMALL, date=np.datetime64("2021-12-21"), bank=150)
    assert found.exact == ("date",) and max(scene["place"][0] for scene in found.scenes) < 57
    assert {str(scene["date"][0]) for scene in found.scenes} == {"2021-12-21"}


def test_the_effective_sample_size_counts_equal_weights_and_too_small_a_one_is_refused():
    weights, size = normalised(np.array([2.0, 2.0, 0.0, 2.0]), ["dem"], 1)
    assert size == pytest.approx(3) and weights.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"keep s2l2a_10m: among 2 candidates the effective sample size is 1\.0.*raise bank"):
        normalised(np.array([1.0, 0.0]), ["s2l2a_10m"], 8)
    with pytest.raises(ValueError, match="size is 0"):
        normalised(np.zeros(3), ["dem"], 8)
    with pytest.raises(ValueError, match="the least that says anything"):
        resample(7, "S2L1C,S2L2A,LULC,S1RTC", 4, table=SMALL, bank=150)


def test_the_kernel_is_one_for_the_same_and_falls_with_distance():
    candidates = {"dem": np.array([[[0.0]], [[1.0]], [[2.0]]])}
    weights = kernel(candidates, {"dem": np.array([[0.0]])}, ["dem"])
    assert weights[0] == 1 and weights[0] > weights[1] > weights[2] > 0


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        resample(7, "place", 0, table=SMALL)
    with pytest.raises(ValueError, match="no modality or product is called 'S3'"):
        resample(7, "S3", 1, table=SMALL)
    with pytest.raises(ValueError, match="no synthetic seed"):
        resample(resample(7, "place", 1, table=SMALL).scenes[0], "place", 1)
