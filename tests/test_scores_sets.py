"""What must hold of measures of sets: hand-worked cases, what one distribution gives, and that collapse, shift and copies are found."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copgen.scores import sets
from copgen.scores.sets import (
    copying,
    intra_distance,
    mean_of_pairs,
    mmd,
    nn_accuracy,
    perfect_nn_accuracy,
    precision,
    range_coverage,
    recall,
    wasserstein,
)

NUMBERS = st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=8)


def column(*values):
    """Vectors of one coordinate."""
    return np.array(values, float)[:, None]


def normal(seed, n, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


@given(NUMBERS, NUMBERS)
def test_wasserstein_is_the_cheapest_way_to_move_one_set_onto_the_other(a, b):
    """In one dimension that is in order, once either set is repeated until both have as many."""
    cost = np.abs(np.sort(a * len(b)) - np.sort(b * len(a))).mean()
    assert wasserstein(a, b) == pytest.approx(cost, abs=1e-9)


def test_wasserstein_of_a_shift_is_the_shift_band_by_band():
    values = np.random.default_rng(0).standard_normal((3, 500))
    assert wasserstein(values, values + np.array([[1.0], [2.0], [-3.0]])) == pytest.approx([1, 2, 3])


def test_the_nearest_neighbour_is_of_the_own_kind_in_sets_apart_and_never_among_copies():
    assert nn_accuracy(column(0, 1, 2), column(10, 11)) == 1
    assert nn_accuracy(column(0, 5, 10), column(0, 5, 10)) == 0
    # 0 is nearest to 1 and 4 to 1.5, which is right; 1 and 1.5 are each other's nearest, which is wrong
    assert nn_accuracy(column(0, 1), column(1.5, 4)) == 0.5
    # 1 is as near to 0 as to 2: half a vote; 0 and 2 are nearest to 1, which is of the kind of 0
    assert nn_accuracy(column(0, 1), column(2)) == pytest.approx((1 + 0.5 + 0) / 3)
    assert nn_accuracy(column(5, 5, 5), column(5, 5, 5)) == pytest.approx(2 / 5)                # five neighbours at 0, two of the own kind


@pytest.mark.parametrize(("real", "fake"), [(8, 8), (16, 4), (2, 16)])
def test_one_distribution_gives_the_accuracy_of_chance(real, fake):
    found = np.mean([nn_accuracy(*np.split(normal(seed, real + fake), [real])) for seed in range(1500)])
    assert found == pytest.approx(perfect_nn_accuracy(real, fake), abs=0.012)


def test_precision_and_recall_count_points_in_balls_edges_included():
    real = column(0, 1, 3)                       # nearest others at 1, 1 and 2: the balls -1..1, 0..2 and 1..5
    assert precision(real, column(-1, 2, 5, 5.5), k=1) == 0.75
    assert precision(real, column(-1.01, 6), k=1) == 0
    fake = column(0, 0.25)                       # balls -0.25..0.25 and 0..0.5: of the real points only 0 lies in one
    assert recall(real, fake, k=1) == pytest.approx(1 / 3)


def test_collapse_keeps_precision_and_loses_recall_and_blur_the_other_way_round():
    real = normal(0, 200)
    narrow, wide = 0.05 * normal(1, 200), 4 * normal(2, 200)
    assert precision(real, narrow) == 1 and recall(real, narrow) < 0.01
    assert precision(real, wide) < 0.25 and recall(real, wide) > 0.8
    assert precision(real, normal(3, 200)) > 0.85 < recall(real, normal(3, 200))
    assert precision(real, real) == recall(real, real) == 1


def test_sets_that_are_too_small_measure_nothing():
    assert np.isnan(precision(normal(0, 5), normal(1, 9))) and not np.isnan(precision(normal(0, 6), normal(1, 1)))
    assert np.isnan(recall(normal(0, 9), normal(1, 5))) and np.isnan(precision(normal(0, 6), normal(1, 0)))
    assert np.isnan([nn_accuracy(normal(0, 1), normal(1, 1)), nn_accuracy(normal(0, 0), normal(1, 4)), intra_distance(normal(0, 1)),
                     mmd(normal(0, 1), normal(1, 4)), mean_of_pairs(lambda a, b: [0.0], [np.zeros(3)])]).all()
    assert np.isnan(range_coverage(normal(0, 0), normal(1, 4))).all()


def test_intra_distance_is_the_mean_over_pairs():
    assert intra_distance([[0, 0], [3, 4], [0, 4]]) == pytest.approx((5 + 3 + 4) / 3)
    assert intra_distance(normal(0, 400, 1)) == pytest.approx(2 / np.sqrt(np.pi), rel=0.05)      # of two standard normals


def test_mean_of_pairs_looks_at_all_pairs_or_at_so_many():
    images = list(normal(0, 40, 7))
    asked = []

    def distance(a, b):
        asked.append(len(a))
        return np.sqrt(((a - b) ** 2).sum(-1))

    assert mean_of_pairs(distance, images, most=10_000) == pytest.approx(intra_distance(images))
    assert sum(asked) == 780 and max(asked) == 16
    asked.clear()
    some = mean_of_pairs(distance, images)
    assert sum(asked) == 500 and some == mean_of_pairs(distance, images) and some == pytest.approx(intra_distance(images), rel=0.1)


def test_mmd_has_its_hand_worked_value():
    """Distances of the pooled pairs are 0, 2, 2, 2, 2, 0: median 2, sigma 1, so the kernel is 1 within a set and exp(-2) across."""
    assert mmd(column(0, 0), column(2, 2)) == pytest.approx(1 + 1 - 2 * np.exp(-2), abs=1e-6)
    assert mmd(column(3, 3, 3), column(3, 3)) == 0                                              # all equal: sigma is 1e-8


def test_mmd_is_its_double_sum_and_zero_on_average_for_one_distribution():
    x, y = normal(0, 5), normal(1, 7) + 1
    pooled = np.concatenate([x, y])
    sigma = np.median([np.linalg.norm(a - b) for a, b in combinations(pooled, 2)]) / 2 + 1e-8

    def mean_kernel(pairs):
        return np.mean([np.exp(-np.linalg.norm(a - b) ** 2 / (2 * sigma**2)) for a, b in pairs])

    expected = mean_kernel(combinations(x, 2)) + mean_kernel(combinations(y, 2)) - 2 * mean_kernel([(a, b) for a in x for b in y])
    assert mmd(x, y) == pytest.approx(expected)
    trials = [mmd(normal(2 * seed, 8), normal(2 * seed + 1, 16)) for seed in range(2, 802)]
    assert abs(np.mean(trials)) < 3 * np.std(trials) / np.sqrt(800) and min(trials) < 0
    assert mmd(normal(0, 30), normal(1, 30) + 2) > 5 * np.std(trials)


def test_range_coverage_is_the_share_of_the_real_range():
    real = np.array([[0, 0, 0, 1, 0], [10, 10, 10, 1, 10]], float)
    fake = np.array([[5, 20, -5, 7, 2], [20, 30, 15, 8, 7]], float)                               # half, apart, more, flat, inside
    assert range_coverage(real, fake).tolist() == [0.5, 0, 1, 1, 0.5]


@pytest.mark.parametrize(("training", "held_out"), [(50, 50), (400, 20), (10, 90)])
def test_nothing_memorised_is_nearer_to_training_half_of_the_time_whatever_the_sizes(training, held_out):
    found = np.concatenate([copying(*np.split(normal(seed, 20 + training + held_out, 2), [20, 20 + training])).nearer
                            for seed in range(60)])
    assert found.mean() == pytest.approx(0.5, abs=0.04)


def test_copies_of_training_vectors_are_found():
    training, held_out = normal(0, 300, 8), normal(1, 30, 8)
    whole = copying(training[:40] + 1e-9, training[:30], held_out)
    assert whole.nearer[:30].tolist() == [1.0] * 30 and whole.training[:30].max() < 1e-8 < whole.held_out.min()
    # with ten times as many to choose from, a copy is among a random tenth of them one time in ten, and else no nearer than by chance
    part = [copying(trained, trained, normal(1000 + seed, 30, 8)).nearer.mean() for seed in range(40) for trained in [normal(seed, 300, 8)]]
    assert np.mean(part) == pytest.approx(0.1 + 0.9 * 0.5, abs=0.02)


def test_the_larger_set_counts_as_all_its_parts_of_the_smaller_ones_size():
    training, held_out, sample = column(1, 2, 5, 9), column(-2, 4), column(0)
    parts = [np.abs(np.array(part)).min() for part in combinations([1, 2, 5, 9], 2)]              # 1 1 1 2 2 5
    found = copying(sample, training, held_out)
    assert found.training[0] == pytest.approx(np.mean(parts)) and found.held_out[0] == 2
    assert found.nearer[0] == pytest.approx(np.mean([1, 1, 1, 0.5, 0.5, 0]))
    back = copying(sample, held_out, training)
    assert (back.training[0], back.nearer[0]) == (2, pytest.approx(1 - found.nearer[0]))
    assert sets.chance_of_nearest(4, 2) == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_what_is_no_set_is_refused():
    with pytest.raises(ValueError, match="one a sample"):
        intra_distance([1.0, 2.0])
    with pytest.raises(ValueError, match="the same kind"):
        mmd(normal(0, 3, 2), normal(0, 3, 3))
    with pytest.raises(ValueError, match="at least one of each"):
        copying(normal(0, 3), normal(0, 3), normal(0, 0))
