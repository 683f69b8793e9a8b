"""What says whether samples are distributed as the truth is? Measures of calibration, sets, consistency, influence and memorisation.

Beside every measure stands what a perfect generator of as many samples would get, where that is known: of coverage the share of ranks, of
reliability each sample in turn as the truth of the others, of texture and consistency what the true observations have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from copgen import scores
from copgen.evaluation.arrays import Array, Finish, Group, Results, Sums, known_mean, ratio
from copgen.evaluation.formats import Number
from copgen.evaluation.metrics import (
    HIGHER,
    LOWER,
    NEITHER,
    Measured,
    Metric,
    Read,
    by_band,
    mean_of,
    mean_of_bands,
    over_all,
    root_of_bands,
)
from copgen.scores.calibration import contrasts, worth

LIKE_THE_TRUTH = "truth "                        # before the name of what the truth has
Reference = Metric | float | None                # what a perfect generator gets: another metric of the same rows, or a number


@dataclass(frozen=True)
class Measure:
    """One line of a table: a metric, and what a perfect generator would get. `own` is for what is no function of sums over cells."""

    metric: Metric
    perfect: Reference = None
    own: Callable[[Measured], Number | None] | None = None

    def number(self, measured: Measured) -> Number | None:
        return self.own(measured) if self.own else measured.number(self.metric)

    def reference(self, measured: Measured) -> Number | None:
        if isinstance(self.perfect, Metric):
            found = measured.number(self.perfect)
            certain = found and found.low is not None and found.high is not None and math.isclose(found.low, found.high)
            return Number(found.value) if found and certain else found
        return None if self.perfect is None else Number(self.perfect)


def of(name: str, better: str, read: Read, finish: Finish, perfect: Reference | Finish = None) -> Measure:
    """A measure by name; a `perfect` function is of the same sums."""
    metric = Metric(name, name, better, read, finish)
    if perfect is None or isinstance(perfect, Metric | float):
        return Measure(metric, perfect)
    return Measure(metric, Metric(name, name, better, read, perfect))


# --- calibration: continuous layers -------------------------------------------------------------------------------------------------

def pair_by_band(first: str, second: str) -> Read:
    """Two statistics of every band, [..., 3 x bands]: both totals and the first one's weights, where a cell has both.

    Of one sample there is skill and no spread, and only of some cells is it known how far the truth moves.
    """
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        a, b = (results.values(group, modality, name) for name in (first, second))
        if a is None or b is None or a.bands != b.bands or a.seeds != b.seeds:
            return None
        both = (a.weight > 0) & (b.weight > 0)
        return np.concatenate([a.total * both, b.total * both, a.weight * both], axis=-1)
    return read


def root_of_ratio(sums: Array) -> Array:
    """Of the first statistic over the second, bands counting the same."""
    first, second, _ = thirds(sums)
    return np.sqrt(ratio(np.maximum(first, 0), second))


def thirds(sums: Array) -> tuple[Array, Array, Array]:
    """The means over bands of two statistics, and the weight."""
    bands = sums.shape[-1] // 3
    a, b, weight = (sums[..., k * bands : (k + 1) * bands] for k in range(3))
    return known_mean(ratio(a, weight)), known_mean(ratio(b, weight)), weight.sum(-1)


def less_truth(statistic: str) -> Read:
    """Of every band and cell the mean over samples less what the truth has, and 1: [..., 2 x bands]."""
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        samples, truth = (results.values(group, modality, name) for name in (statistic, LIKE_THE_TRUTH + statistic))
        if samples is None or truth is None or samples.bands != truth.bands:
            return None
        off = ratio(samples.total.sum(1), samples.weight.sum(1)) - ratio(truth.total.sum(1), truth.weight.sum(1))
        return np.concatenate([np.nan_to_num(off), ~np.isnan(off)], axis=-1)[:, None]
    return read


def coverage(level: float, prefix: str = "") -> Read:
    """How many truths lie in the central range, how many would of a perfect ensemble, and of how many: [..., 3 x bands]."""
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        found = results.family(group, modality, f"{prefix}rank")
        parts = []
        for m in sorted({m for _, m in found}):
            counts = np.stack([found[k, m].total for k in range(m + 1) if (k, m) in found], axis=-1)
            if counts.shape[-1] == m + 1:
                inside, perfect = scores.coverage(counts, level)
                there = counts.sum(-1)
                parts.append(np.concatenate([np.nan_to_num(inside) * there, perfect * there, there], axis=-1))
        return np.sum(parts, axis=0) if parts else None
    return read


def rank_shares(prefix: str) -> Read:
    """Shares of the ranks [cells, 1, m + 1], bands and cells counting the same, for the usual number of samples."""
    def read(results: Results, group: Group, modality: str) -> Sums | None:
        found = results.family(group, modality, f"{prefix}rank")
        if not found:
            return None
        usual = max(sorted({m for _, m in found}), key=lambda m: sum(one.weight.any(-1).sum() for key, one in found.items() if key[1] == m))
        there = [one for key, one in found.items() if key[1] == usual]
        shares = [np.where(one.weight > 0, one.value, np.nan) for one in there]
        return np.nan_to_num(known_mean(np.stack(shares, axis=-2)))
    return read


TILE_RANKS = rank_shares("tile ")


def bent(sums: Array, which: int) -> Array:
    """How far ranks are from flat along one of `scores.calibration.contrasts`, in deviations of a single flat rank; 0 where they are."""
    number = sums.shape[-1]
    return ratio(sums @ contrasts(number)[which] * np.sqrt(number), sums.sum(-1))


def rank_test(part: str) -> Callable[[Measured], Number | None]:
    """One number of `scores.rank_test` of tiles, for as many independent cases as they are worth."""
    def number(measured: Measured) -> Number | None:
        found = measured.sums(Metric("", "", NEITHER, TILE_RANKS, mean_of))
        if found is None or found[0].shape[-1] < 2:
            return None
        shares = found[0].sum(1)
        test = scores.rank_test(shares.sum(0), worth(shares))
        return Number(test.chi_square / test.degrees if part == "chi_square" else test.p)
    return number


def tested(name: str, part: str, perfect: float | None) -> Measure:
    return Measure(Metric(name, name, NEITHER, TILE_RANKS, mean_of), perfect, rank_test(part))


def second(sums: Array) -> Array:
    return thirds(sums)[1]


def calibration(prefix: str, what: str) -> list[Measure]:
    """Of pixels, or with the prefix "tile " of tiles' means."""
    ratio_read = pair_by_band(f"{prefix}spread", f"{prefix}skill")
    return [
        of(f"CRPS of {what}", LOWER, by_band(f"{prefix}crps"), mean_of_bands),
        of(f"RMSE of the samples' mean, {what}", LOWER, by_band(f"{prefix}skill"), root_of_bands,
           Metric("", "", NEITHER, by_band(f"{prefix}spread"), root_of_bands)),
        of(f"spread / skill of {what}", NEITHER, ratio_read, root_of_ratio, 1.0),
        *(of(f"{level:.0%} range holds, {what}", NEITHER, coverage(level, prefix), lambda sums: thirds(sums)[0], second)
          for level in scores.LEVELS),
        of(f"ranks of {what}: dispersion (above 0 too narrow, below too wide)", NEITHER, rank_shares(prefix), partial(bent, which=1), 0.0),
        of(f"ranks of {what}: bias (above 0 too low, below too high)", NEITHER, rank_shares(prefix), partial(bent, which=0), 0.0),
    ]


CONTINUOUS = [
    *calibration("", "pixels"),
    of("energy score of all bands", LOWER, by_band("energy score"), mean_of_bands),
    of("variogram score", LOWER, by_band("variogram score"), mean_of_bands),
    *calibration("tile ", "tiles"),
    tested("ranks of tiles: chi-square / degrees of freedom", "chi_square", 1.0),
    tested("ranks of tiles: p of flat ones", "p", None),
    of("spectral slope", NEITHER, by_band("slope"), mean_of_bands, Metric("", "", NEITHER, by_band("truth slope"), mean_of_bands)),
    of("spectral slope, samples less truth", NEITHER, less_truth("slope"), mean_of_bands, 0.0),
    of("mean", NEITHER, by_band("mean"), mean_of_bands, Metric("", "", NEITHER, by_band("truth mean"), mean_of_bands)),
]


# --- calibration: classes, places and dates -----------------------------------------------------------------------------------------

def reliability(results: Results, group: Group, modality: str) -> Sums | None:
    """Cases and hits of every class and number of samples that say it, [cells, 1, 2, classes, m + 1], for the usual m."""
    found = results.family(group, modality, "reliability")
    if not found:
        return None
    usual = max({m for *_, m in found}, key=lambda m: sum(one.weight.sum() for (*_, n), one in found.items() if n == m))
    codes = sorted({code for code, *_ in found})
    table = np.zeros((len(results.cells), 1, 2, len(codes), usual + 1))
    for (code, k, m), one in found.items():
        if m == usual:
            table[:, 0, :, codes.index(code), k] = np.stack([one.weight.sum((1, 2)), one.total.sum((1, 2))], axis=-1)
    return table


def of_counts(score: Callable[[Array, Array], Array], sums: Array, *, perfect: bool = False) -> Array:
    """A score of counts of reliability [..., 2, classes, m + 1]; `perfect`: of what they would be if the truth were one more sample."""
    cases, hits = sums[..., 0, :, :], sums[..., 1, :, :]
    if perfect and cases.shape[-1] < 3:
        return np.full(cases.shape[:-2], np.nan)
    return score(*(scores.perfect_reliability(cases) if perfect else (cases, hits)))


def brier_of(cases: Array, hits: Array) -> Array:
    reliable, resolved, uncertain = scores.brier_parts(cases, hits)
    return reliable - resolved + uncertain


CLASSES = [
    of("Brier score", LOWER, reliability, partial(of_counts, brier_of), partial(of_counts, brier_of, perfect=True)),
    of("fair Brier score", LOWER, over_all("fair brier"), mean_of),
    of("expected calibration error (ECE)", LOWER, reliability, partial(of_counts, scores.calibration_error),
       partial(of_counts, scores.calibration_error, perfect=True)),
    of("entropy of the samples, bits", NEITHER, over_all("entropy"), mean_of),
]


def half_of(statistic: str) -> Metric:
    """Half the mean distance between samples: the fair energy score of an ensemble that the truth is one more draw of."""
    return Metric("", "", NEITHER, over_all(statistic), lambda sums: mean_of(sums) / 2)


VALUES = {
    "place": [of("energy score, km", LOWER, over_all("energy score"), mean_of, half_of("spread km")),
              of("mean distance between samples, km", NEITHER, over_all("spread km"), mean_of)],
    "date": [of("energy score, days", LOWER, over_all("energy score"), mean_of, half_of("spread days")),
             of("mean distance between samples, days", NEITHER, over_all("spread days"), mean_of)],
}


def calibration_measures(results: Results, group: Group, modality: str) -> list[Measure]:
    names = results.statistics(group, modality)
    if modality in VALUES:
        return VALUES[modality]
    return CLASSES if any(name.startswith("reliability:") for name in names) else CONTINUOUS


# --- sets, consistency, influence, memorisation -------------------------------------------------------------------------------------

# the ends of names: what is better, and what is perfect; the Wasserstein distance of two finite sets of one distribution is above 0
SETS: dict[str, tuple[str, Reference]] = {
    "nn accuracy": (NEITHER, 0.5), "precision": (HIGHER, None), "recall": (HIGHER, None), "intra distance": (NEITHER, None),
    "mmd": (LOWER, 0.0), "pixel wasserstein": (LOWER, None), "wasserstein": (LOWER, None), "range coverage": (HIGHER, None),
}


def set_measures(results: Results, group: Group, modality: str) -> list[Measure]:
    """Of the samples of a cell beside its many true observations, in whatever features they were looked at."""
    names = results.statistics(group, modality)
    ends = {name: end for name in names for end in SETS if name.endswith(end) and LIKE_THE_TRUTH not in name}
    return [of(name, better, by_band(name), mean_of_bands, true_of(names, name) or perfect)
            for name, (better, perfect) in ((name, SETS[ends[name]]) for name in sorted(ends))]


def true_of(names: Sequence[str], name: str) -> Metric | None:
    """What the truth has of the same: "truth slope", "lpips truth intra distance"."""
    ends = [end for end in SETS if name.endswith(end)]
    called = [f"{LIKE_THE_TRUTH}{name}", *(f"{name.removesuffix(end)}{LIKE_THE_TRUTH}{end}" for end in ends)]
    there = [one for one in called if one in names]
    return Metric("", "", NEITHER, by_band(there[0]), mean_of_bands) if there else None


def consistency_measures(results: Results, group: Group, modality: str) -> list[Measure]:
    """Of layers that were drawn or given together; what is perfect is what the observations have."""
    names = results.statistics(group, modality)
    found = sorted(name for name in names if name.startswith("consistency "))
    return [of(name.removeprefix("consistency "), NEITHER, over_all(name), mean_of, true_mean(names, name)) for name in found]


def true_mean(names: Sequence[str], name: str) -> Metric | None:
    called = LIKE_THE_TRUTH + name
    return Metric("", "", NEITHER, over_all(called), mean_of) if called in names else None


def influence_measures(results: Results, group: Group, modality: str) -> list[Measure]:
    """How far the samples' mean moves, in units of the samples' spread; the truth's in units of the same."""
    if "moved" not in results.statistics(group, modality):
        return []
    true = Metric("", "", NEITHER, pair_by_band("true moved", "spread"), root_of_ratio)
    return [of("moved / spread", NEITHER, pair_by_band("moved", "spread"), root_of_ratio,
               true if "true moved" in results.statistics(group, modality) else None),
            of("moved", NEITHER, by_band("moved"), root_of_moved)]


def root_of_moved(sums: Array) -> Array:
    """The root of a fair squared distance, which may fall below 0 by chance."""
    return np.sqrt(np.maximum(mean_of_bands(sums), 0))


def memory_measures(results: Results, group: Group, modality: str) -> list[Measure]:
    names = results.statistics(group, modality)
    ends = [(name, 0.5 if name.endswith("nearer training") else None) for name in sorted(names)
            if name.endswith(("nearest training", "nearest held-out", "nearer training"))]
    return [of(name, NEITHER, over_all(name), mean_of, perfect) for name, perfect in ends]
