"""What must hold of the Fréchet and the kernel distance: known answers for Gaussians, invariances, and what a finite set does to them."""

from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from copgen.scores import jackknife
from copgen.scores.frechet import frechet_distance, kernel_distance
from copgen.scores.sets import LARGE, distances, f_score, precision, recall


def normal(seed, n, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


def exactly(mean, root, n=40, seed=0):
    """Vectors whose mean is `mean` and whose covariance is root @ root.T to the last digits."""
    x = normal(seed, n, len(mean))
    x = x - x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T @ np.asarray(root, float).T + mean


def by_roots(x, y):
    """The formula as it is written, with roots of matrices."""
    s1, s2 = np.cov(x.T), np.cov(y.T)
    half = sqrtm(s1)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(np.real(sqrtm(half @ s2 @ half)))


def test_the_distance_of_gaussians_is_that_of_means_and_of_standard_deviations():
    real, fake = exactly([0.0, 0, 0], np.diag([1.0, 2, 3])), exactly([1.0, 2, -2], np.diag([2.0, 2, 0.5]), seed=1)
    assert frechet_distance(real, fake) == pytest.approx(9 + 1 + 0 + 2.5**2, rel=1e-12)


def test_the_distance_is_the_formula_of_the_roots_of_covariances():
    real, fake = normal(0, 300, 12) @ normal(1, 12, 12), normal(2, 200, 12) @ normal(3, 12, 12) + 0.5
    assert frechet_distance(real, fake) == pytest.approx(by_roots(real, fake), rel=1e-8)


def test_covariances_without_full_rank_are_no_special_case():
    """Vectors in three of fifty coordinates are as far apart as in these three; few vectors give what the formula gives of them."""
    real, fake = exactly([0.0, 0, 0], np.diag([1.0, 2, 3]), n=20), exactly([1.0, 2, -2], np.diag([2.0, 2, 0.5]), n=20, seed=1)
    turn = np.linalg.qr(normal(4, 50, 50))[0][:3]
    assert frechet_distance(real @ turn, fake @ turn) == pytest.approx(9 + 1 + 2.5**2, rel=1e-10)
    few, others = normal(0, 5, 8), normal(1, 6, 8)
    values = np.linalg.eigvals(np.cov(few.T) @ np.cov(others.T))
    expected = ((few.mean(0) - others.mean(0)) ** 2).sum() + few.var(0, ddof=1).sum() + others.var(0, ddof=1).sum() - 2 * np.sqrt(
        np.maximum(values.real, 0)).sum()
    assert frechet_distance(few, others) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (6, 30)])
def test_the_distance_is_symmetric_zero_of_one_set_and_blind_to_turns_and_order(n, d):
    real, fake = normal(0, n, d), normal(1, n + 3, d) * 1.5 + 1
    distance = frechet_distance(real, fake)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-12) and frechet_distance(fake, real) == pytest.approx(distance)
    turn = np.linalg.qr(normal(2, d, d))[0]
    assert frechet_distance(real[::-1] @ turn + 3, fake @ turn + 3) == pytest.approx(distance)
    assert frechet_distance(real, real + 2) == pytest.approx(4 * d)
    assert frechet_distance(2 * real, 2 * fake) == pytest.approx(4 * distance)


def test_finite_sets_of_one_distribution_are_apart_and_the_jackknife_takes_most_of_that_away():
    def found(n, seed, groups=10):
        x, y, label = normal(2 * seed, n, 6), normal(2 * seed + 1, n, 6), np.arange(n) % groups
        value = frechet_distance(x, y)
        return value, jackknife(value, [frechet_distance(x[label != g], y[label != g]) for g in range(groups)])[1]

    plain, less = np.array([found(50, seed) for seed in range(30)]).T
    larger = np.mean([found(200, seed)[0] for seed in range(30)])
    assert plain.mean() > 0.2 and larger == pytest.approx(plain.mean() / 4, rel=0.25)             # it falls with 1 / n
    assert abs(less.mean()) < 0.15 * plain.mean()


def test_the_jackknife_of_a_mean_is_its_standard_error_and_that_of_a_variance_is_unbiased():
    x = normal(0, 12, 1)[:, 0]
    left = np.array([np.delete(x, k) for k in range(12)])
    interval, less_bias = jackknife(x.mean(), left.mean(1))
    assert (interval.high - interval.low) / 2 == pytest.approx(2.200985 * x.std(ddof=1) / np.sqrt(12), rel=1e-6)   # Student's t of 11
    assert interval.value == pytest.approx(less_bias) == pytest.approx(x.mean())
    assert jackknife(x.var(), left.var(1))[1] == pytest.approx(x.var(ddof=1))
    assert np.isnan(jackknife(1.0, [])[1]) and np.isnan(jackknife(1.0, [1.0, float("nan")])[0].low)


def test_the_kernel_distance_is_its_double_sum_and_zero_on_average():
    x, y = normal(0, 5, 4), normal(1, 6, 4) + 1

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    expected = (np.mean([kernel(a, b) for a, b in combinations(x, 2)]) + np.mean([kernel(a, b) for a, b in combinations(y, 2)])
                - 2 * np.mean([kernel(a, b) for a in x for b in y]))
    assert kernel_distance(x, y) == pytest.approx(expected)
    trials = [kernel_distance(normal(2 * seed, 6, 4), normal(2 * seed + 1, 9, 4)) for seed in range(800)]
    assert abs(np.mean(trials)) < 3 * np.std(trials) / np.sqrt(800) and min(trials) < 0 < kernel_distance(x, y)


def test_sets_of_one_member_have_no_distance():
    assert np.isnan([frechet_distance(normal(0, 1), normal(1, 9)), kernel_distance(normal(0, 9), normal(1, 1))]).all()
    with pytest.raises(ValueError, match="the same kind"):
        frechet_distance(normal(0, 9, 2), normal(0, 9, 3))


def test_many_vectors_have_the_distances_and_neighbours_of_few():
    x, y = normal(0, 300, 600) + 5, normal(1, 400, 600) * 1.05 + 5
    assert x.size * len(y) > LARGE > x[:50].size * len(y)
    plain = np.concatenate([distances(part, y) for part in np.split(x, 6)])
    np.testing.assert_allclose(distances(x, y), plain, rtol=1e-10)
    reach = np.sort(np.concatenate([distances(part, x) for part in np.split(x, 6)]), 1)[:, 3]
    assert precision(x, y, 3) == (reach >= plain.T).any(1).mean() and 0 < precision(x, y, 3) < 1
    assert recall(x, y, 3) == precision(y, x, 3)


def test_the_measures_of_large_sets_are_those_of_all_pairs(monkeypatch):
    """Also where only some vectors at a time are looked at."""
    x, y = normal(0, 300, 600) + 5, normal(1, 400, 600) + 5
    whole = kernel_distance(x, y), precision(x, y, 3)
    monkeypatch.setattr("copgen.scores.sets.AT_ONCE", 64)
    assert (kernel_distance(x, y), precision(x, y, 3)) == (pytest.approx(whole[0], rel=1e-9), whole[1])


def test_equal_vectors_of_large_sets_are_in_each_others_balls():
    """As the features of flat pictures are; what is no number is near nothing."""
    equal = np.repeat(normal(0, 1, 600) + 5, 300, 0)
    flat = np.concatenate([equal, normal(1, 300, 600) + 5])
    assert equal.size * len(flat) > LARGE
    assert (distances(flat, flat)[:300, :300] == 0).all() and precision(flat, equal + 1e-9, 3) == 1
    assert np.isnan(distances(np.where(flat == flat[0, 0], np.nan, flat), flat)[0]).all()


def test_the_f_score_is_the_harmonic_mean():
    assert f_score(0.5, 1.0) == pytest.approx(2 / 3) and f_score(0.3, 0.3) == pytest.approx(0.3)
    assert f_score(0, 0) == f_score(0.7, 0) == 0 and np.isnan(f_score(float("nan"), 0.5))
