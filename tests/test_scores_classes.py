"""What must hold of scores of classes: hand-worked and brute-force answers. More known answers are in test_estimators."""

import numpy as np
import pytest

from copgen import scores

CODES = [0, 1, 2, 5]


def drawn(seed, members=6, pixels=400):
    """Samples and truths of classes in which some are rare, and one never occurs."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet([2, 1, 1], pixels).cumsum(1)
    codes = np.array([0, 1, 5])[(rng.uniform(size=(members + 1, pixels, 1)) > law).sum(-1).clip(max=2)]
    return codes[1:], codes[0]


def test_the_mode_is_the_most_frequent_code():
    assert scores.mode([[5, 1, 11], [5, 2, 11], [1, 2, 5]]).tolist() == [5, 2, 11]


def test_confusion_counts_codes_in_the_order_given_and_refuses_others():
    table = scores.confusion([1, 1, 7, 5], [1, 7, 7, 1], [7, 1, 5])
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match=r"\[5\] are not among"):
        scores.confusion([1, 5], [1, 1], [1, 7])


def test_kappa_has_its_limits():
    assert scores.kappa(np.diag([3, 4])) == 1 and scores.kappa(np.array([[1, 1], [1, 1]])) == 0
    assert scores.kappa(np.array([[9, 0], [0, 0]])) == 0
    assert scores.kappa(np.stack([np.eye(3, dtype=int), np.diag([1, 2, 3])])).shape == (2,)


def test_published_class_metrics_by_hand():
    """Truth 0 0 0 1 1 2, predicted 0 0 1 1 0 0: no code is ignored, 0 (no data) included; code 5 is nowhere and does not count."""
    table = scores.confusion([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0], CODES)
    # tp 2 1 0, fp 2 1 0, fn 1 1 1
    assert scores.iou(table) == pytest.approx([2 / 5, 1 / 3, 0, np.nan], nan_ok=True)
    assert scores.f1(table) == pytest.approx([4 / 7, 1 / 2, 0, np.nan], nan_ok=True)
    assert scores.mean_iou(table) == pytest.approx((2 / 5 + 1 / 3 + 0) / 3)
    assert scores.mean_f1(table) == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    assert scores.frequency_weighted_iou(table) == pytest.approx((3 * 2 / 5 + 2 / 3) / 6)
    assert scores.accuracy(table) == pytest.approx(3 / 6)


def test_class_metrics_of_many_tables_are_each_ones_and_nothing_is_nan():
    tables = np.random.default_rng(0).integers(0, 9, (2, 5, 4, 4))
    for metric in (scores.mean_iou, scores.mean_f1, scores.frequency_weighted_iou, scores.accuracy):
        assert metric(tables)[1, 3] == pytest.approx(float(metric(tables[1, 3]))) and metric(np.eye(3)) == 1
    assert np.isnan([scores.mean_iou(np.zeros((3, 3))), scores.frequency_weighted_iou(np.zeros((3, 3)))]).all()
    only = scores.confusion([1, 1], [2, 2], CODES)
    assert scores.mean_iou(only) == scores.mean_f1(only) == 0                                # both classes count, with nothing right


def test_a_class_that_is_predicted_and_never_true_counts_in_the_mean_and_weighs_nothing():
    table = scores.confusion([1, 1, 1, 1], [1, 1, 1, 2], CODES)
    assert scores.mean_iou(table) == pytest.approx((3 / 4 + 0) / 2) and scores.frequency_weighted_iou(table) == pytest.approx(3 / 4)


def test_brier_and_its_fair_form_are_their_sums_over_classes():
    samples, truth = drawn(1)
    share = np.array([(samples == code).mean(0) for code in CODES])
    hit = np.array([truth == code for code in CODES])
    assert scores.brier(samples, truth) == pytest.approx(((share - hit) ** 2).sum(0))
    assert scores.fair_brier(samples, truth) == pytest.approx(((share - hit) ** 2 - share * (1 - share) / 5).sum(0))
    assert scores.brier([[1, 1]], [1, 2]).tolist() == [0, 2]
    with pytest.raises(ValueError, match="needs at least 2"):
        scores.fair_brier([[1, 1]], [1, 2])


def test_the_fair_brier_score_does_not_depend_on_the_number_of_samples():
    samples, truth = drawn(2, 16, 40_000)
    few = scores.fair_brier(samples[:2], truth).mean()
    assert few == pytest.approx(scores.fair_brier(samples, truth).mean(), abs=0.01)
    assert scores.brier(samples[:2], truth).mean() > few + 0.1


def test_entropy_is_none_where_samples_agree_and_all_bits_where_each_differs():
    assert scores.entropy([[3, 0], [3, 1], [3, 2], [3, 5]]).tolist() == [0, 2]


def test_reliability_counts_are_what_is_counted_and_add_up():
    samples, truth = drawn(3)
    cases, hits = scores.reliability_counts(samples, truth, CODES)
    for row, code in enumerate(CODES):
        for k in range(7):
            there = (samples == code).sum(0) == k
            assert (cases[row, k], hits[row, k]) == (there.sum(), (there & (truth == code)).sum())
    parts = [scores.reliability_counts(samples[:, half], truth[half], CODES) for half in (slice(150), slice(150, None))]
    assert np.array_equal(np.sum(parts, 0), [cases, hits])


def test_classes_that_occur_nowhere_do_not_dilute_the_calibration_error():
    samples, truth = drawn(4)
    found = [scores.calibration_error(*scores.reliability_counts(samples, truth, codes)) for codes in ([0, 1, 5], CODES, [*CODES, 7, 8])]
    assert found[0] == found[1] == found[2] > 0
    assert np.isnan(scores.calibration_error(np.zeros((3, 5)), np.zeros((3, 5))))


def test_overconfident_classes_have_a_calibration_error_beyond_that_of_a_perfect_ensemble():
    samples, truth = drawn(5, 16, 20_000)
    mode = np.where(np.random.default_rng(0).uniform(size=samples.shape) < 0.8, scores.mode(samples), samples)
    perfect, sure = (scores.reliability_counts(made, truth, CODES) for made in (samples, mode))
    beside = [float(scores.calibration_error(*one) - scores.calibration_error(*scores.perfect_reliability(one[0])))
              for one in (perfect, sure)]
    assert abs(beside[0]) < 0.01 and beside[1] > 0.1


def test_the_perfect_reliability_is_that_of_each_sample_against_the_others():
    samples, truth = drawn(6, 5)
    cases, _ = scores.reliability_counts(samples, truth, CODES)
    each = [scores.reliability_counts(np.delete(samples, k, 0), samples[k], CODES) for k in range(5)]
    expected = np.mean(each, 0)
    np.testing.assert_allclose(scores.perfect_reliability(cases), expected)
    with pytest.raises(ValueError, match="at least 2"):
        scores.perfect_reliability(np.ones((3, 2)))


def test_the_parts_of_the_brier_score_add_up_and_have_their_limits():
    samples, truth = drawn(7)
    reliability, resolution, uncertainty = scores.brier_parts(*scores.reliability_counts(samples, truth, CODES))
    assert reliability - resolution + uncertainty == pytest.approx(scores.brier(samples, truth).mean())
    known = scores.brier_parts(*scores.reliability_counts(np.stack([truth] * 4), truth, CODES))
    assert known[0] == 0 and known[1] == pytest.approx(float(known[2])) == pytest.approx(float(uncertainty))
    always = scores.brier_parts(*scores.reliability_counts(np.ones((4, 400), int), truth, CODES))
    assert always[1] == pytest.approx(0)                                                     # one probability resolves nothing
    many = np.stack([scores.reliability_counts(*drawn(seed), CODES) for seed in range(3)], 1)
    assert scores.brier_parts(*many)[0][1] == pytest.approx(float(scores.brier_parts(*many[:, 1])[0]))


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="truth's shape"):
        scores.brier(np.zeros((3, 4)), np.zeros(5))
