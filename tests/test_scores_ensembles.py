"""What must hold of scores of ensembles: other people's formulas, in full. Known answers are in test_estimators."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copgen import scores

NUMBERS = st.floats(-100, 100, allow_nan=False)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@given(st.lists(NUMBERS, min_size=2, max_size=9), NUMBERS)
def test_crps_is_its_double_sum(samples, truth):
    m = len(samples)
    pairs = sum(abs(a - b) for a in samples for b in samples) / (2 * m * (m - 1))
    expected = sum(abs(a - truth) for a in samples) / m - pairs
    assert scores.crps(samples, truth) == pytest.approx(expected, abs=1e-9)


def test_one_sample_is_scored_by_its_distance():
    assert scores.crps([[3.0, 1.0]], [1.0, 1.0]).tolist() == [2.0, 0.0]
    assert scores.error_of_mean([[3.0], [1.0]], [1.0]).tolist() == [1.0]
    assert scores.energy_score([[3.0, 4.0]], [0.0, 0.0]) == 5
    assert scores.energy_of_distances([7.0], [[0.0]]) == 7


@pytest.mark.parametrize("members", [2, 3, 6])
def test_the_energy_score_is_its_double_sum_whichever_axis_holds_the_vector(members):
    samples, truth = normal(0, members, 4, 5), normal(1, 4, 5)
    expected = [np.mean([np.linalg.norm(x - y) for x in xs]) - np.mean([np.linalg.norm(a - b) for a, b in combinations(xs, 2)]) / 2
                for xs, y in zip(samples.transpose(1, 0, 2), truth, strict=True)]
    assert scores.energy_score(samples, truth) == pytest.approx(np.array(expected))
    for axis in (0, -2):
        assert scores.energy_score(samples.swapaxes(1, 2), truth.T, axis=axis) == pytest.approx(np.array(expected))


def test_the_energy_score_of_numbers_is_the_crps_and_turning_all_vectors_changes_nothing():
    samples, truth = normal(2, 7, 30, 3), normal(3, 30, 3)
    assert scores.energy_score(samples[..., :1], truth[..., :1]) == pytest.approx(scores.crps(samples[..., 0], truth[..., 0]))
    turn, _ = np.linalg.qr(normal(4, 3, 3))
    assert scores.energy_score(samples @ turn, truth @ turn) == pytest.approx(scores.energy_score(samples, truth))


def test_distances_alone_give_the_same_energy_score():
    samples, truth = normal(5, 6, 20, 3), normal(6, 20, 3)
    to_truth = np.linalg.norm(samples - truth, axis=-1)
    between = np.linalg.norm(samples[:, None] - samples[None], axis=-1)
    assert scores.energy_of_distances(to_truth, between) == pytest.approx(scores.energy_score(samples, truth))
    with pytest.raises(ValueError, match=r"expected \[6, 6, 20\]"):
        scores.energy_of_distances(to_truth, between[0])


def test_the_energy_score_takes_no_more_memory_than_the_samples_twice_over():
    samples, truth = normal(13, 32, 4, 10_000), normal(14, 4, 10_000)
    tracemalloc.start()
    scores.energy_score(samples, truth, axis=0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2 * samples.nbytes


def test_the_variogram_score_is_its_sum_over_pairs_of_pixels():
    samples, truth, p = normal(7, 4, 5, 6), normal(8, 5, 6), 0.7
    terms = []
    for lag in (1, 3):
        for down, right in ((lag, 0), (0, lag)):
            pairs = [((i, j), (i + down, j + right)) for i in range(5 - down) for j in range(6 - right)]
            found = [[abs(one[a] - one[b]) ** p for one in samples] for a, b in pairs]
            terms.append(np.mean([(np.mean(made) - abs(truth[a] - truth[b]) ** p) ** 2 - np.var(made, ddof=1) / 4
                                  for made, (a, b) in zip(found, pairs, strict=True)]))
    assert scores.variogram_score(samples, truth, (1, 3), p) == pytest.approx(np.mean(terms))


def test_the_variogram_score_sees_texture_and_no_level():
    truth = normal(9, 2, 32, 32)
    samples = normal(10, 8, 2, 32, 32)
    found = scores.variogram_score(samples, truth)
    assert found.shape == (2,)
    assert scores.variogram_score(samples + 100, truth - 7) == pytest.approx(found)
    blurred = (samples + np.roll(samples, 1, -1) + np.roll(samples, 1, -2)) / 3
    assert (scores.variogram_score(blurred, truth) > found + 0.05).all()
    assert scores.variogram_score(truth[None], truth) == pytest.approx(np.zeros(2), abs=1e-12)


def test_lags_that_do_not_fit_are_left_out_and_none_at_all_is_refused():
    samples, truth = normal(11, 3, 4, 40), normal(12, 4, 40)
    wide = [scores.variogram_score(samples, truth, (lag,)) for lag in (1, 2)]                # 8 fits along rows alone
    along = scores.variogram_score(samples[..., :1, :], truth[:1], (8,))
    assert np.isfinite([*wide, along]).all()
    with pytest.raises(ValueError, match="an image of 4 x 4 pixels needs one below its side"):
        scores.variogram_score(samples[..., :4], truth[:, :4], (4, 8))
    with pytest.raises(ValueError, match="needs images"):
        scores.variogram_score([[1.0, 2.0]], [1.0, 2.0])


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="truth's shape"):
        scores.crps(np.zeros((3, 4)), np.zeros(5))
    with pytest.raises(ValueError, match="at least 2"):
        scores.spread_and_error(np.zeros((1, 4)), np.zeros(4))
    with pytest.raises(ValueError, match="axis 2"):
        scores.energy_score(np.zeros((3, 4)), np.zeros(4), axis=2)


# --- places and dates ---------------------------------------------------------------------------------------------------------------

def test_great_circles_keep_their_length_across_the_date_line_and_the_poles():
    east, west = [0.0, 179.5], [0.0, -179.5]
    assert scores.great_circle(east, west) == pytest.approx(np.pi * 6371 / 180)
    assert scores.great_circle([89, 0], [89, 180]) == pytest.approx(2 * np.pi * 6371 / 180)
    assert scores.great_circle([10, 20], [-10, -160]) == pytest.approx(np.pi * 6371)             # antipodes
    assert scores.great_circle([48.85, 2.35], [51.51, -0.13]) == pytest.approx(343.9, abs=1)     # Paris to London
    many = scores.great_circle(np.zeros((5, 1, 2)), np.zeros((3, 2)))
    assert many.shape == (5, 3) and not many.any()


def test_dates_are_apart_the_short_way_round_the_year():
    dates = np.array(["2020-01-05", "2019-12-28", "2013-07-05", "1960-01-05"], "datetime64[D]")
    assert scores.circular_days(dates[0], dates) == pytest.approx([0, 8, 182, 0], abs=0.8)
    assert scores.circular_days(dates[0].astype(int), dates[1].astype(int)) == scores.circular_days(dates[1], dates[0]) == 8
