"""What must hold of scores: known answers, other people's formulas, and that a perfect ensemble is found perfect."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copgen import scores

NUMBERS = st.floats(-100, 100, allow_nan=False)


@given(st.lists(NUMBERS, min_size=2, max_size=9), NUMBERS)
def test_crps_is_its_double_sum(samples, truth):
    m = len(samples)
    pairs = sum(abs(a - b) for a in samples for b in samples) / (2 * m * (m - 1))
    expected = sum(abs(a - truth) for a in samples) / m - pairs
    assert scores.crps(samples, truth) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("members", [2, 5, 40])
def test_fair_crps_has_the_same_mean_for_any_number_of_members(members):
    """Of a standard normal at its truth y: y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi), Gneiting and Raftery 2007."""
    samples = np.random.default_rng(3).standard_normal((members, 200_000))
    y = 0.7
    expected = y * (2 * NormalDist().cdf(y) - 1) + 2 * NormalDist().pdf(y) - 1 / np.sqrt(np.pi)
    assert scores.crps(samples, np.full(200_000, y)).mean() == pytest.approx(expected, abs=0.005)


def test_one_sample_is_scored_by_its_absolute_error():
    assert scores.crps([[3.0, 1.0]], [1.0, 1.0]).tolist() == [2.0, 0.0]
    assert scores.error_of_mean([[3.0], [1.0]], [1.0]).tolist() == [1.0]


@pytest.mark.parametrize("wide", [0.5, 1.0, 2.0])
def test_spread_to_skill_tells_how_much_too_wide_an_ensemble_is(wide):
    rng = np.random.default_rng(1)
    spread, error = scores.spread_and_error(wide * rng.standard_normal((8, 100_000)), rng.standard_normal(100_000))
    expected = wide * np.sqrt((1 + 1 / 8) / (1 + wide**2 / 8))
    assert np.sqrt(spread.mean() / error.mean()) == pytest.approx(expected, rel=0.01)


def test_the_rank_of_one_more_draw_is_uniform_also_where_values_tie():
    rng = np.random.default_rng(2)
    for drawn in (rng.standard_normal((8, 90_000)), rng.integers(0, 3, (8, 90_000))):
        counts = np.bincount(scores.ranks(drawn[1:], drawn[0], rng), minlength=8)
        assert counts / 90_000 == pytest.approx(np.full(8, 1 / 8), abs=0.005)


def test_coverage_of_a_perfect_ensemble_is_the_share_that_is_named():
    rng = np.random.default_rng(4)
    drawn = rng.standard_normal((33, 50_000))
    for level, share in ((0.9, 29 / 33), (0.5, 17 / 33)):
        within, nominal = scores.inside(scores.ranks(drawn[1:], drawn[0], rng), 32, level)
        assert nominal == pytest.approx(share)
        assert within.mean() == pytest.approx(share, abs=0.01)


def test_the_mode_is_the_most_frequent_code():
    assert scores.mode([[5, 1, 11], [5, 2, 11], [1, 2, 5]]).tolist() == [5, 2, 11]


def test_kappa_has_its_known_value_and_limits():
    """The worked example of Cohen's paper: observed 0.70, expected by chance 0.41, kappa 0.49."""
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    assert scores.accuracy(table) == pytest.approx(0.70)
    assert scores.kappa(table) == pytest.approx((0.70 - 0.41) / (1 - 0.41))
    assert scores.kappa(np.diag([3, 4])) == 1 and scores.kappa(np.array([[1, 1], [1, 1]])) == 0
    assert scores.kappa(np.array([[9, 0], [0, 0]])) == 0
    assert scores.kappa(np.stack([table, np.diag([1, 2, 3])])).shape == (2,)


def test_confusion_counts_codes_in_the_order_given_and_refuses_others():
    table = scores.confusion([1, 1, 7, 5], [1, 7, 7, 1], [7, 1, 5])
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match=r"\[5\] are not among"):
        scores.confusion([1, 5], [1, 1], [1, 7])


@given(st.lists(NUMBERS, min_size=1, max_size=8), st.lists(NUMBERS, min_size=1, max_size=8))
def test_wasserstein_is_the_cheapest_way_to_move_one_set_onto_the_other(a, b):
    """In one dimension that is in order, once either set is repeated until both have as many."""
    cost = np.abs(np.sort(a * len(b)) - np.sort(b * len(a))).mean()
    assert scores.wasserstein(a, b) == pytest.approx(cost, abs=1e-9)


def test_wasserstein_of_a_shift_is_the_shift_band_by_band():
    values = np.random.default_rng(0).standard_normal((3, 500))
    assert scores.wasserstein(values, values + np.array([[1.0], [2.0], [-3.0]])) == pytest.approx([1, 2, 3])


def test_the_bootstrap_of_a_mean_is_about_its_standard_error():
    values = np.random.default_rng(5).standard_normal(400) + 10
    found = scores.over_places(scores.mean, values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert f"{scores.Interval(1.26, 1, 2):.1f}" == "1.3 (1.0 .. 2.0)"


def test_places_stay_together_in_the_bootstrap():
    """A ratio of two figures that go together place by place does not vary at all."""
    values = np.random.default_rng(6).uniform(1, 5, 30)
    found = scores.over_places(lambda x, y: x.mean(-1) / y.mean(-1), 2 * values, values)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    with pytest.raises(ValueError, match="as many"):
        scores.over_places(scores.mean, [])


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="truth's shape"):
        scores.crps(np.zeros((3, 4)), np.zeros(5))
    with pytest.raises(ValueError, match="at least 2"):
        scores.spread_and_error(np.zeros((1, 4)), np.zeros(4))
