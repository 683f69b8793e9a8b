"""What must hold of ranges and tests: places stay together, draws are draws, and the best of N is the mean over subsets.

How often ranges and tests are right is in test_estimators.
"""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copgen import scores
from copgen.scores.best import order_weights


def ratio(total, weight):
    return total / weight


# --- single places ------------------------------------------------------------------------------------------------------------------

def test_the_bootstrap_of_a_mean_is_about_its_standard_error():
    values = np.random.default_rng(5).standard_normal(400) + 10
    found = scores.over_places(scores.mean, values)
    blocked = scores.blocked(ratio, values, np.ones(400), blocks=np.arange(400))
    for one in (found, blocked):
        assert one.value == pytest.approx(values.mean())
        assert one.high - one.low == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert f"{scores.Interval(1.26, 1, 2):.1f}" == "1.3 (1.0 .. 2.0)"


def test_places_stay_together_in_the_bootstrap():
    """A ratio of two figures that go together place by place does not vary at all."""
    values = np.random.default_rng(6).uniform(1, 5, 30)
    found = scores.over_places(lambda x, y: x.mean(-1) / y.mean(-1), 2 * values, values)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    found = scores.blocked(ratio, 2 * values, values, blocks=np.arange(30) // 4)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    with pytest.raises(ValueError, match="as many"):
        scores.over_places(scores.mean, [])


# --- blocks -------------------------------------------------------------------------------------------------------------------------

def test_blocks_are_about_so_wide_everywhere():
    rng = np.random.default_rng(0)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-1, 1, 30_000))), rng.uniform(-180, 180, 30_000)
    found = scores.blocks(lat, lon, 1000)
    assert len(np.unique(found)) == found.max() + 1 == pytest.approx(4 * np.pi * 6.371**2, rel=0.05)
    across = [scores.great_circle(*np.stack([lat, lon], -1)[np.flatnonzero(found == block)[[0, -1]]]) for block in range(found.max() + 1)]
    assert max(across) < 1000 * 2**0.5 * 1.1
    assert len(np.unique(scores.blocks(lat, lon + 360, 1000))) == found.max() + 1


def test_neighbours_share_a_block_and_unknown_places_none():
    found = scores.blocks([47.01, 47.02, -30, np.nan, 47.01, np.nan], [8.01, 8.02, 150, 3, 8.012, np.nan])
    assert found[0] == found[1] == found[4]
    assert len(set(found.tolist())) == 4
    assert scores.blocks([90, -90, 90], [0, 0, 1]).tolist() == [1, 0, 1]


def test_blocks_of_like_cells_make_the_range_wider_and_names_of_blocks_do_not_matter():
    rng = np.random.default_rng(1)
    region = np.repeat(np.arange(25), 4)
    values = rng.standard_normal(25)[region] + 0.1 * rng.standard_normal(100)
    naive, found, renamed = (scores.blocked(ratio, values, np.ones(100), blocks=one) for one in (np.arange(100), region, 7 * region + 90))
    assert found.high - found.low == pytest.approx(2 * (naive.high - naive.low), rel=0.2)
    assert renamed == found


def test_cells_without_a_figure_add_nothing_and_draws_without_any_are_left_out():
    values = np.array([1.0, np.nan, 3.0, np.nan, np.nan, 2.0])
    there = np.isfinite(values)
    found = scores.blocked(ratio, values, there, blocks=np.arange(6))
    assert found.value == 2 and 1 <= found.low < found.high <= 3
    lone = scores.blocked(ratio, [5.0, np.nan, np.nan], [1, 0, 0], blocks=[0, 1, 2])          # three in ten draws lack the one cell
    assert (lone.value, lone.low, lone.high) == (5, 5, 5)


def test_one_block_has_no_range_and_arrays_that_do_not_fit_are_refused():
    alone = scores.blocked(ratio, [1.0, 2.0], [1, 1], blocks=[3, 3])
    assert alone.value == 1.5 and np.isnan([alone.low, alone.high]).all()
    assert np.isnan(scores.paired(ratio, [[1.0], [1]], [[2.0], [1]], blocks=[0]).p)
    for cells, labels in (([1.0, 2.0], [0, 1, 2]), ([], [])):
        with pytest.raises(ValueError, match="every array needs one number a cell"):
            scores.blocked(scores.mean, cells, blocks=labels)


def test_leading_axes_are_the_statistics_own():
    """The mean over seeds of each seed's pooled root mean square."""
    squares = np.random.default_rng(2).chisquare(3, (4, 50))
    weight = np.full(50, 7.0)
    found = scores.blocked(lambda total, n: np.sqrt(total / n).mean(0), squares * weight, weight, blocks=np.arange(50) // 2)
    assert found.value == pytest.approx(np.sqrt(squares.mean(1)).mean()) and found.low < found.value < found.high


@pytest.mark.parametrize("number", [3, 5])
def test_few_blocks_have_a_wider_range_than_their_percentiles(number):
    values = np.random.default_rng(3).standard_normal(number)
    narrow = scores.over_places(scores.mean, values)
    found = scores.blocked(ratio, values, np.ones(number), blocks=np.arange(number))
    assert found.high - found.low > 1.3 * (narrow.high - narrow.low) and found.low < found.value < found.high


def test_faults_of_ranks_have_their_range_over_tiles_too():
    """Counts are sums: what pixels of a tile have in common is in the range of the convexity, and the fault is beyond it."""
    rng = np.random.default_rng(9)
    tiles = rng.standard_normal((40, 1)) * 0.7
    for wide, sign in ((0.4, 1), (1.0, 0), (2.5, -1)):
        rank = scores.ranks(wide * rng.standard_normal((16, 40, 200)), tiles + np.sqrt(0.51) * rng.standard_normal((40, 200)), rng)
        counts = np.stack([scores.rank_counts(one, 16) for one in rank], -1)                 # [ranks, tiles]
        found = scores.blocked(lambda total: scores.convexity(total.T), counts, blocks=np.arange(40))
        assert (found.low > 0) - (found.high < 0) == sign


def test_cell_weights_are_the_draws_of_blocked():
    values, labels = np.random.default_rng(4).uniform(size=12), np.arange(12) // 3
    weights = scores.cell_weights(labels, 500, seed=8)
    assert weights.shape == (500, 12) and (weights.sum(1) == 12).all() and np.array_equal(weights[:, 0], weights[:, 2])
    expected = scores.interval_of(values.mean(), weights @ values / weights.sum(1), 4)
    found = scores.blocked(ratio, values, np.ones(12), blocks=labels, draws=500, seed=8)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=9))
def test_a_weighted_median_is_the_median_of_repeated_values(pairs):
    values, weights = np.array(pairs).T
    found = scores.weighted_quantile(values, np.stack([weights, 0 * weights, 0 * weights + 1]), 0.5)
    expected = [np.median(np.repeat(values, weights)) if weights.any() else np.nan, np.nan, np.median(values)]
    assert found == pytest.approx(expected, nan_ok=True)


# --- differences --------------------------------------------------------------------------------------------------------------------

def test_what_is_hard_for_both_cancels_in_a_paired_difference():
    rng = np.random.default_rng(5)
    hard, weight, labels = 10 * rng.exponential(size=60), np.ones(60), np.arange(60) // 2
    a, b = hard + 0.3 + 0.2 * rng.standard_normal(60), hard + 0.2 * rng.standard_normal(60)
    one = scores.paired(ratio, [a, weight], [b, weight], blocks=labels)
    single = scores.blocked(ratio, a, weight, blocks=labels)
    assert one.value == pytest.approx((a - b).mean()) and one.p < 1e-6                       # smaller than 1 / draws can be
    assert one.high - one.low < 0.2 < single.high - single.low
    back = scores.paired(ratio, [b, weight], [a, weight], blocks=labels)
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-one.value, -one.high, -one.low, one.p))


def test_the_range_of_a_difference_leaves_out_0_where_p_is_below_what_it_leaves():
    rng = np.random.default_rng(6)
    for off in (0.1, 0.2, 0.3, 0.4, 0.5):
        a, b, weight = rng.standard_normal(40) + off, np.zeros(40), np.ones(40)
        found = scores.paired(ratio, [a, weight], [b, weight], blocks=np.arange(40), level=0.9)
        assert (found.low > 0 or found.high < 0) == (found.p < 0.1)


def test_equal_figures_do_not_differ_and_a_constant_difference_is_as_sure_as_its_signs():
    values, weight = np.random.default_rng(7).uniform(size=20), np.ones(20)
    same = scores.paired(ratio, [values, weight], [values, weight], blocks=np.arange(20))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    off = scores.paired(ratio, [values + 1, weight], [values, weight], blocks=np.arange(20))
    assert off.value == pytest.approx(1) and off.p == pytest.approx(2**-19)
    three = scores.paired(ratio, [np.ones(3), np.ones(3)], [np.zeros(3), np.ones(3)], blocks=np.arange(3))
    assert (three.value, three.p) == (1, 0.25)                                               # a year that is right in three cells of three


def test_holm_steps_up_and_leaves_out_what_was_not_tested():
    assert scores.holm([0.01, np.nan, 0.04, 0.03, 0.005]) == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert scores.holm([0.5, 0.9]).tolist() == [1, 1] and scores.holm([0.02]).tolist() == [0.02] and scores.holm([]).size == 0


def test_holm_keeps_the_chance_of_a_single_false_finding():
    p = np.random.default_rng(8).uniform(size=(2000, 20))
    assert np.mean([scores.holm(one).min() < 0.05 for one in p]) == pytest.approx(0.05, abs=0.015)


# --- the best of N ------------------------------------------------------------------------------------------------------------------

@given(st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=8))
def test_the_best_of_n_is_the_mean_over_all_subsets(values):
    for best, largest in ((min, False), (max, True)):
        expected = [np.mean([best(some) for some in combinations(values, n)]) for n in range(1, len(values) + 1)]
        assert scores.best_of_n(values, largest=largest) == pytest.approx(expected, abs=1e-9)


def test_missing_samples_shorten_the_curve_and_infinite_ones_spoil_only_where_they_are_the_best():
    found = scores.best_of_n([[[4.0, np.nan, 2.0], [1.0, 2.0, 3.0]], [[np.nan] * 3, [np.inf, 5.0, 1.0]]])
    assert found[0, 0] == pytest.approx([3, 2, np.nan], nan_ok=True) and found[0, 1] == pytest.approx([2, 4 / 3, 1])
    assert np.isnan(found[1, 0]).all()
    assert found[1, 1] == pytest.approx([np.inf, (5 + 1 + 1) / 3, 1])
    assert scores.best_of_n([np.inf, 30.0], largest=True).tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("number", [1, 64, 1000])
def test_weights_of_many_samples_are_probabilities(number):
    weights = order_weights(number, np.arange(1, number + 1))
    assert (weights >= 0).all() and weights.sum(1) == pytest.approx(np.ones(number))
    curve = scores.best_of_n(np.random.default_rng(9).standard_normal(number))
    assert (np.diff(curve) <= 1e-12).all()
