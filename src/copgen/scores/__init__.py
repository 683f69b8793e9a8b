"""How good are samples? Estimators by name: arrays in, numbers out; each names its source."""

from copgen.scores.best import best_of_n
from copgen.scores.calibration import LEVELS, RankTest, chi_square, convexity, coverage, inside, rank_counts, rank_test, ranks, slope
from copgen.scores.classes import (
    accuracy,
    brier,
    brier_parts,
    calibration_error,
    class_counts,
    confusion,
    entropy,
    f1,
    fair_brier,
    frequency_weighted_iou,
    iou,
    kappa,
    mean_f1,
    mean_iou,
    mode,
    perfect_reliability,
    reliability_counts,
)
from copgen.scores.distances import circular_days, great_circle
from copgen.scores.ensembles import crps, energy_of_distances, energy_score, ensemble, error_of_mean, spread_and_error, variogram_score
from copgen.scores.intervals import (
    Difference,
    Interval,
    blocked,
    blocks,
    cell_weights,
    holm,
    interval_of,
    jackknife,
    mean,
    over_places,
    paired,
    weighted_quantile,
)
from copgen.scores.sets import wasserstein

__all__ = [
    "LEVELS", "Difference", "Interval", "RankTest", "accuracy", "best_of_n", "blocked", "blocks", "brier", "brier_parts",
    "calibration_error", "cell_weights", "chi_square", "circular_days", "class_counts", "confusion", "convexity", "coverage", "crps",
    "energy_of_distances", "energy_score", "ensemble", "entropy", "error_of_mean", "f1", "fair_brier", "frequency_weighted_iou",
    "great_circle", "holm", "inside", "interval_of", "iou", "jackknife", "kappa", "mean", "mean_f1", "mean_iou", "mode", "over_places",
    "paired", "perfect_reliability", "rank_counts", "rank_test", "ranks", "reliability_counts", "slope", "spread_and_error",
    "variogram_score", "wasserstein", "weighted_quantile",
]
