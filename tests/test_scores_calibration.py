"""What must hold of ranks: a perfect ensemble is found perfect, and a fault is found and named. Known answers are in test_estimators."""

import numpy as np
import pytest
from scipy import stats

from copgen import scores
from copgen.scores.calibration import contrasts, worth


def test_the_rank_of_one_more_draw_is_uniform_also_where_values_tie():
    rng = np.random.default_rng(2)
    for drawn in (rng.standard_normal((8, 90_000)), rng.integers(0, 3, (8, 90_000))):
        counts = scores.rank_counts(scores.ranks(drawn[1:], drawn[0], rng), 7)
        assert counts / 90_000 == pytest.approx(np.full(8, 1 / 8), abs=0.005)
        assert scores.rank_test(counts).p > 0.01


def test_which_of_the_draws_is_the_truth_does_not_matter():
    """Ranks of each of m + 1 values among the others are 0..m, each once."""
    values = np.random.default_rng(0).standard_normal(9)
    found = [int(scores.ranks(np.delete(values, k), values[k], np.random.default_rng(0))) for k in range(9)]
    assert sorted(found) == list(range(9))


def test_coverage_is_the_mean_of_inside_and_leaves_out_an_end_at_least():
    rng = np.random.default_rng(4)
    for members in (2, 5, 16, 32, 99):
        rank = rng.integers(0, members + 1, 500)
        counts = scores.rank_counts(rank, members)
        for level in scores.LEVELS:
            within, nominal = scores.inside(rank, members, level)
            share, same = scores.coverage(counts, level)
            assert share == pytest.approx(within.mean()) and nominal == same < 1
    assert scores.coverage(np.ones(17), 0.95)[1] == 15 / 17 and scores.inside(np.zeros(1, int), 32, 0.9)[1] == 29 / 33
    assert scores.coverage(np.ones((4, 3, 17)), 0.5)[0].shape == (4, 3) and np.isnan(scores.coverage(np.zeros(17), 0.5)[0])


def test_chi_square_is_scipys_and_its_parts_are_all_of_it_for_two_samples():
    rng = np.random.default_rng(5)
    for members in (2, 9):
        counts = rng.integers(20, 90, members + 1)
        found, expected = scores.rank_test(counts), stats.chisquare(counts)
        assert (found.chi_square, found.p, found.degrees) == pytest.approx((expected.statistic, expected.pvalue, members))
        assert found.cases == counts.sum()
        parts = found.slope**2 + found.convexity**2
        assert parts == pytest.approx(found.chi_square) if members == 2 else parts < found.chi_square
        assert found.slope_p == pytest.approx(2 * stats.norm.sf(abs(found.slope)))


@pytest.mark.parametrize(("wide", "fault"), [(0.5, "under-dispersed"), (0.8, "under-dispersed"), (1.3, "over-dispersed"),
                                              (2.0, "over-dispersed")])
def test_every_measure_flags_an_ensemble_of_the_wrong_width(wide, fault):
    rng = np.random.default_rng(8)
    samples, truth = wide * rng.standard_normal((16, 4000)), rng.standard_normal(4000)
    counts = scores.rank_counts(scores.ranks(samples, truth, rng), 16)
    told = scores.rank_test(counts)
    assert told.p < 1e-3 and told.convexity_p < 1e-3 and told.faults(0.001)[0] == fault
    narrow = fault == "under-dispersed"
    for level in scores.LEVELS:
        share, nominal = scores.coverage(counts, level)
        assert share < nominal - 0.02 if narrow else share > nominal + 0.02
    spread, error = scores.spread_and_error(samples, truth)
    assert spread.mean() < 0.9 * error.mean() if narrow else spread.mean() > 1.1 * error.mean()


def test_contrasts_are_orthonormal_and_blind_to_a_level():
    for number in (3, 17, 65):
        both = np.concatenate([contrasts(number), np.full((1, number), number**-0.5)])
        assert both @ both.T == pytest.approx(np.eye(3), abs=1e-12)


def test_the_signs_of_the_parts_name_the_fault():
    flat = np.full(9, 40)
    rank = np.arange(9) - 4
    named = {("under-dispersed",): flat + 2 * rank**2, ("over-dispersed",): flat + 40 - 2 * rank**2, ("too low",): flat + 9 * rank,
             ("too high",): flat - 9 * rank, (): flat}
    for faults, counts in named.items():
        assert scores.rank_test(counts).faults() == faults
    assert scores.rank_test(flat + 9 * rank + rank**2).faults() == ("too low", "under-dispersed")    # the plainer one first
    assert float(scores.slope(named[("too low",)])) > 0 > float(scores.slope(named[("too high",)]))


def test_pixels_of_few_tiles_are_no_more_than_the_tiles():
    """Ten tiles whose 10 000 pixels all rank alike: counted as pixels they look certain, as tiles they say little."""
    tiles = scores.rank_counts(np.random.default_rng(7).integers(0, 9, 10), 8)
    assert scores.rank_test(tiles * 10_000).p < 1e-9
    told, as_tiles = scores.rank_test(tiles * 10_000, independent=10), scores.rank_test(tiles)
    assert told == as_tiles and told.p > 0.05


def shares_of_tiles(seed, truths, wide=1.0, tiles=60, members=16):
    """Ranks of several truths of each tile among the same samples, as shares."""
    rng = np.random.default_rng(seed)
    samples, true = wide * rng.standard_normal((members, tiles)), rng.standard_normal((truths, tiles))
    return np.stack([scores.rank_counts((samples[:, k] < true[:, k, None]).sum(1), members) / truths for k in range(tiles)])


def test_tiles_are_worth_as_many_cases_as_their_truths_are_with_the_same_samples():
    """The variance of a share of t truths is that of one truth by (t + m + 1) / t (m + 2): a Dirichlet law of the samples' steps."""
    assert worth(shares_of_tiles(0, 1)) == pytest.approx(60)
    for truths in (4, 17):
        found = np.mean([worth(shares_of_tiles(seed, truths)) for seed in range(40)])
        assert found / 60 == pytest.approx(truths * 18 / (truths + 17), rel=0.05)
    assert worth([[1, 0, 0]] * 9) == 9 and worth([[0.5, 0.25, 0.25]]) == 1                      # nothing is known of how tiles differ


def test_ranks_of_many_truths_are_tested_as_what_they_are_worth():
    """Each tile counted as one case, a perfect ensemble has a chi-square a ninth of what it should be, and a narrow one is not told."""
    def tests(wide, cases):
        return [scores.rank_test(one.sum(0), cases(one)) for one in (shares_of_tiles(seed, 17, wide) for seed in range(60))]

    assert np.mean([one.chi_square / one.degrees for one in tests(1, worth)]) == pytest.approx(1, abs=0.12)
    assert np.mean([one.chi_square / one.degrees for one in tests(1, len)]) < 0.15
    assert np.mean([one.p < 0.05 for one in tests(1, worth)]) < 0.15
    assert np.mean([one.p < 0.05 for one in tests(0.75, worth)]) > 0.95 > 0.05 > np.mean([one.p < 0.05 for one in tests(0.75, len)])


def test_histograms_of_many_are_each_ones():
    counts = np.random.default_rng(6).integers(1, 50, (4, 3, 11))
    for part in (scores.chi_square, scores.slope, scores.convexity):
        assert part(counts)[2, 1] == pytest.approx(float(part(counts[2, 1])))


def test_what_cannot_be_told_is_nan_or_refused():
    assert np.isnan(scores.convexity([3, 5])) and np.isnan(scores.chi_square([0, 0, 0]))
    assert scores.rank_test([30, 60]).faults() == ("too low",)                               # one sample: no dispersion
    with pytest.raises(ValueError, match="needs one list"):
        scores.rank_test([0, 0, 0])
    with pytest.raises(ValueError, match="of 4 samples they go from 0 to 4"):
        scores.rank_counts([0, 5], 4)
