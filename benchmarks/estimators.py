"""Does every estimator give the answer that is known? A table of cases worked by hand, by formula or by numerical integration.

    python benchmarks/estimators.py              # prints the table; exit code 1 if one is missed; under a minute

A forecaster here is a law that samples are drawn from while the truth is drawn from another: the same for a perfect one. What chance
leaves in a found answer is a few times smaller than its tolerance, and seeds are fixed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb, ndtr

from copgen import scores
from copgen.modalities import TABLE
from copgen.scores import images, physics, sets
from copgen.scores.calibration import worth
from copgen.sun import Sun

Array = NDArray[np.float64]
NORMAL = NormalDist()
CASES = 40_000                                                       # of truths and their ensembles


class Row(NamedTuple):
    """One estimator on one case. A tolerance of 0 asks for the answer itself, up to rounding; words must be equal."""

    estimator: str
    case: str
    known: float | str
    found: float | str
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        if isinstance(self.known, str) or isinstance(self.found, str):
            return self.known == self.found
        return abs(self.known - self.found) <= max(self.tolerance, 1e-9 * max(abs(self.known), 1))


def forecaster(seed: int, members: int, wide: float = 1.0, off: float = 0.0, *shape: int) -> tuple[Array, Array]:
    """Samples [members, ...] of N(off, wide^2) and truths of N(0, 1); `shape` stands for CASES."""
    rng = np.random.default_rng(seed)
    shape = shape or (CASES,)
    return wide * rng.standard_normal((members, *shape)) + off, rng.standard_normal(shape)


def mean(values: object) -> float:
    return float(np.mean(np.asarray(values, np.float64)))


# --- ensembles ----------------------------------------------------------------------------------------------------------------------

def ensembles() -> Iterator[Row]:
    y = 0.7
    known = y * (2 * NORMAL.cdf(y) - 1) + 2 * NORMAL.pdf(y) - 1 / math.sqrt(math.pi)         # Gneiting and Raftery 2007, section 4.2
    for members in (2, 8, 40):
        samples, _ = forecaster(1, members)
        yield Row("CRPS, fair", f"N(0, 1) at 0.7, {members} samples", known, mean(scores.crps(samples, np.full(CASES, y))), 0.01)
    for wide in (0.5, 1.0, 2.0):
        samples, truth = forecaster(2, 8, wide)
        error = math.sqrt((1 + wide**2) * 2 / math.pi) - wide / math.sqrt(math.pi)           # E|x - y| - E|x - x'| / 2
        yield Row("CRPS, fair", f"samples {wide:g} times as wide as truths", error, mean(scores.crps(samples, truth)), 0.01)
        spread, skill = scores.spread_and_error(samples, truth)
        ratio = wide * math.sqrt((1 + 1 / 8) / (1 + wide**2 / 8))
        yield Row("spread / skill", f"samples {wide:g} times as wide", ratio, math.sqrt(mean(spread) / mean(skill)), 0.02)
    samples, truth = forecaster(3, 8)
    error = math.sqrt(2 / math.pi * (1 + 1 / 8))
    yield Row("error of the mean", "N(0, 1), 8 samples", error, mean(scores.error_of_mean(samples, truth)), 0.01)


def vectors() -> Iterator[Row]:
    perfect = math.gamma(2) / math.gamma(1.5)                                                # E|x - x'| / 2 in three dimensions
    for members in (2, 16):
        found = mean(scores.energy_score(*forecaster(4, members, 1, 0, CASES // 2, 3)))
        yield Row("energy score, fair", f"perfect, N(0, I) of 3 bands, {members} samples", perfect, found, 0.015)
    collapsed = mean(scores.energy_score(*forecaster(5, 16, 0, 0, CASES // 2, 3)))
    yield Row("energy score, fair", "collapsed onto the mean: E|y|", math.sqrt(2) * perfect, collapsed, 0.015)
    rng = np.random.default_rng(6)
    up, round_ = rng.uniform(-1, 1, (13, CASES // 4)), rng.uniform(-180, 180, (13, CASES // 4))
    places = np.stack([np.degrees(np.arcsin(up)), round_], -1)
    found = energy(scores.great_circle, places)
    yield Row("energy score, places", "perfect, uniform on the sphere: pi R / 4 km", math.pi * 6371 / 4, found, 40)
    found = energy(scores.circular_days, rng.integers(0, 3652, (13, CASES // 4)))
    yield Row("energy score, dates", "perfect, uniform over ten years: year / 8", 365.2425 / 8, found, 0.5)
    yield Row("great circle", "pole to equator, km", math.pi * 6371 / 2, mean(scores.great_circle([90, 0], [0, 77])))
    new_year = np.array(["2019-12-31", "2021-01-01"], "datetime64[D]")
    yield Row("days round the year", "31 December 2019 to 1 January 2021", 367 - 365.2425, mean(scores.circular_days(*new_year)))


def energy(distance: Callable[[NDArray, NDArray], Array], drawn: NDArray) -> float:
    """The energy score of all but the first against the first."""
    truth, samples = drawn[0], drawn[1:]
    return mean(scores.energy_of_distances(distance(samples, truth), distance(samples[:, None], samples[None])))


def textures() -> Iterator[Row]:
    """Of white noise, the root of a difference |d| of N(0, 2) has the mean E|d|^(1/2), and E|d| its square."""
    root, size = math.sqrt(2 / math.pi) * math.gamma(0.75), 2 / math.sqrt(math.pi)
    for members in (2, 16):
        found = mean(scores.variogram_score(*forecaster(7, members, 1, 0, 20, 64, 64)))
        yield Row("variogram score, fair", f"perfect, white noise, {members} samples", size - root**2, found, 0.005)
    samples, truth = forecaster(8, 16, 0, 5, 20, 64, 64)
    yield Row("variogram score, fair", "flat samples, whatever their level", size, mean(scores.variogram_score(samples, truth)), 0.01)
    noise = forecaster(9, 1, 1, 0, 40, 64, 64)[1]
    yield Row("spectral slope", "white noise", 0, mean(images.spectral_slope(noise, 10)), 0.1)
    fields = np.stack([power_law(seed, 96, 3) for seed in range(12)])
    yield Row("spectral slope", "fields of power k^-3", -3, mean(images.spectral_slope(fields, 10)), 0.1)
    a, b = np.full((16, 16), 0.2), np.full((16, 16), 0.6)
    yield Row("SSIM", "two flat images: its formula", (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), mean(images.ssim(a, b)))
    yield Row("PSNR", "off by a tenth of the range, dB", 20, mean(images.psnr(a + 0.1, a)))
    truth, made = np.array([[100.0, 200], [300, 200]]), np.array([[50.0, 250], [400, 200]])
    found = mean(images.psnr(*images.published_scaled(made, truth)))
    yield Row("PSNR, published", "truth's own range, one of 4 pixels off by 1/4", 60 * math.log10(2), found)


def power_law(seed: int, side: int, exponent: float) -> Array:
    """A random field, periodic, of that power law."""
    waves = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    waves[0, 0] = np.inf
    noise = np.random.default_rng(seed).standard_normal((side, side))
    return np.fft.irfft2(np.fft.rfft2(noise) * waves ** (-exponent / 2), (side, side))


# --- calibration --------------------------------------------------------------------------------------------------------------------

def rank_law(members: int, wide: float, off: float = 0.0) -> Array:
    """The probability of each rank 0..m of a truth of N(0, 1) among samples of N(off, wide^2), by integration over the truth."""
    y = np.linspace(-9, 9, 20_001)[:, None]
    below, k = ndtr((y - off) / wide), np.arange(members + 1)
    found = comb(members, k) * below**k * (1 - below) ** (members - k) * np.exp(-(y**2) / 2) / math.sqrt(2 * math.pi)
    return found.sum(0) * (y[1, 0] - y[0, 0])


def calibration() -> Iterator[Row]:
    laws = {"perfect": (1.0, 0.0, ""), "under-dispersed, half as wide": (0.5, 0.0, "under-dispersed"),
            "over-dispersed, twice as wide": (2.0, 0.0, "over-dispersed"), "biased, 0.5 too high": (1.0, 0.5, "too high"),
            "biased, 0.5 too low": (1.0, -0.5, "too low")}
    for name, (wide, off, fault) in laws.items():
        rng = np.random.default_rng(10)
        counts = scores.rank_counts(scores.ranks(*forecaster(11, 16, wide, off), rng), 16)
        law = rank_law(16, wide, off)
        for level in scores.LEVELS[1:3]:
            share, nominal = scores.coverage(counts, level)
            case = f"{name}; perfect {nominal:.3f}"
            yield Row(f"coverage, {100 * level:g} %", case, float(scores.coverage(law, level)[0]), float(share), 0.01)
        yield Row("convexity / sqrt(n)", name, mean(scores.convexity(law)), mean(scores.convexity(counts)) / math.sqrt(CASES), 0.02)
        yield Row("slope / sqrt(n)", name, mean(scores.slope(law)), mean(scores.slope(counts)) / math.sqrt(CASES), 0.02)
        faults = scores.rank_test(counts, independent=400).faults(0.01) or ("",)
        yield Row("rank test, its first fault", f"{name}; 400 cases, 1 %", fault, faults[0])
    samples, truths = forecaster(26, 16, 1, 0, 4000)[0], forecaster(27, 17, 1, 0, 4000)[0]
    tiles = np.stack([scores.rank_counts((one < true[:, None]).sum(1), 16) / 17 for one, true in zip(samples.T, truths.T, strict=True)])
    yield Row("rank test, a tile's worth", "17 truths and 16 samples: t (m + 2) / (t + m + 1)", 9, worth(tiles) / 4000, 0.3)
    flat = np.random.default_rng(12).multinomial(400, np.full(17, 1 / 17), 4000)
    yield Row("chi-square of ranks", "4000 perfect histograms: the mean", 16, mean(scores.chi_square(flat)), 0.4)
    for part in ("p", "slope_p", "convexity_p"):
        below = mean([getattr(scores.rank_test(one), part) < 0.05 for one in flat])
        yield Row(f"rank test, {part}", "perfect: how often below 0.05", 0.05, below, 0.012)


def classes() -> Iterator[Row]:
    law, rng = np.array([0.5, 0.3, 0.2]), np.random.default_rng(13)
    true = rng.choice(3, CASES, p=law)
    for members in (2, 16):
        samples = rng.choice(3, (members, CASES), p=law)
        known = float((law * (1 - law)).sum())                                               # p (1 - p) a class, and 1 / m more by chance
        case = f"perfect, 3 classes, {members} samples"
        yield Row("Brier score", case, known * (1 + 1 / members), mean(scores.brier(samples, true)), 0.01)
        yield Row("Brier score, fair", case, known, mean(scores.fair_brier(samples, true)), 0.01)
    counts = scores.reliability_counts(samples, true, [0, 1, 2])
    yield Row("ECE", "perfect, 16 samples, against its own", 0,
              mean(scores.calibration_error(*counts) - scores.calibration_error(*scores.perfect_reliability(counts[0]))), 0.01)
    reliability, resolution, uncertainty = scores.brier_parts(*counts)
    yield Row("Brier, its three parts", "reliability - resolution + uncertainty", mean(scores.brier(samples, true)),
              mean(reliability - resolution + uncertainty))
    yield Row("Brier, uncertainty", "3 classes of 0.5, 0.3, 0.2", 0.62, mean(uncertainty), 0.01)
    sure = scores.reliability_counts(np.zeros((4, 10), int), np.repeat([0, 1], [7, 3]), [0, 1, 2])
    yield Row("ECE", "always sure of what is true 7 times of 10", 0.3, mean(scores.calibration_error(*sure)))
    yield Row("entropy", "4, 2 and 2 of 8 samples, bits", 1.5, mean(scores.entropy([[0], [0], [0], [0], [1], [1], [2], [2]])))
    table = [[3, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]                           # IoU 3/5, 2/5, 0, and one class nowhere
    yield Row("mean IoU, published", "3/5, 2/5, 0 and a class that is nowhere", 1 / 3, mean(scores.mean_iou(table)))
    yield Row("frequency-weighted IoU", "4, 3 and 1 pixels of truth", (4 * 0.6 + 3 * 0.4) / 8, mean(scores.frequency_weighted_iou(table)))
    yield Row("mean F1, published", "6/8, 4/7, 0", (6 / 8 + 4 / 7) / 3, mean(scores.mean_f1(table)))
    yield Row("top-1", "5 of 8 pixels", 5 / 8, mean(scores.accuracy(table)))
    yield Row("kappa", "Cohen's own example", (0.70 - 0.41) / (1 - 0.41), mean(scores.kappa([[88, 14, 18], [10, 40, 10], [2, 6, 12]])))


# --- sets ---------------------------------------------------------------------------------------------------------------------------

def two_sets() -> Iterator[Row]:
    def drawn(seed: int, *sizes: int) -> list[Array]:
        return np.split(np.random.default_rng(seed).standard_normal((sum(sizes), 2)), np.cumsum(sizes)[:-1])

    def trials(estimator: Callable[[Array, Array], float]) -> float:
        return mean([estimator(*drawn(seed, 16, 16)) for seed in range(1500)])

    real, fake = drawn(20, 400, 400)
    yield Row("1-NN accuracy", "one distribution, 16 and 16: 15/31", sets.perfect_nn_accuracy(16, 16), trials(sets.nn_accuracy), 0.01)
    yield Row("1-NN accuracy", "sets far apart", 1, sets.nn_accuracy(real, fake + 99))
    yield Row("1-NN accuracy", "identical sets: the copy is nearest", 0, sets.nn_accuracy(real, real))
    yield Row("precision, k = 5", "identical sets", 1, sets.precision(real, real))
    yield Row("precision, k = 5", "collapsed onto a real sample", 1, sets.precision(real, 0 * fake + real[0]))
    yield Row("recall, k = 5", "collapsed onto a real sample", 1 / 400, sets.recall(real, 0 * fake + real[0]))
    yield Row("intra-set distance", "N(0, I) in 2 dimensions: sqrt(pi)", math.sqrt(math.pi), sets.intra_distance(real), 0.06)
    yield Row("MMD, unbiased", "one distribution, on average", 0, trials(sets.mmd), 0.003)
    yield Row("MMD, unbiased", "0, 0 against 2, 2: 2 - 2 exp(-2)", 2 - 2 * math.exp(-2), sets.mmd([[0], [0]], [[2], [2]]), 1e-6)
    yield Row("Wasserstein-1", "N(0, 1) against N(0, 4): sqrt(2 / pi)", math.sqrt(2 / math.pi),
              mean(scores.wasserstein(forecaster(21, 1, 2)[0][0], forecaster(22, 1)[1])), 0.02)
    yield Row("Wasserstein-1", "a shift by 3", 3, mean(scores.wasserstein(real.T, real.T + 3)))
    yield Row("range coverage", "0..10 against 5..20", 0.5, mean(sets.range_coverage([[0], [10]], [[5], [20]])))
    none = [sets.copying(*drawn(seed, 20, 200, 20)).nearer for seed in range(300)]
    yield Row("memorisation", "nothing copied, 200 trained on, 20 held out", 0.5, mean(none), 0.02)
    pairs = [drawn(seed, 20, 20) for seed in range(40)]
    copies = [sets.copying(trained + 1e-9, trained, held).nearer for trained, held in pairs]
    yield Row("memorisation", "copies of what was trained on", 1, mean(copies))


def layers() -> Iterator[Row]:
    rng = np.random.default_rng(23)
    low, high = rng.standard_normal(CASES), rng.standard_normal(CASES) + 1
    found = {one.name.rsplit(", ", 1)[1]: one.value for one in physics.compared("land below water", "dB", low, high)}
    below = NORMAL.cdf(1 / math.sqrt(2))
    yield Row("consistency, probability", "N(0, 1) below N(1, 1): Phi(1 / sqrt 2)", below, found["probability"], 0.01)
    level = {"B02": 300, "B03": 400, "B04": 500, "B08": 1500}
    optical = np.stack([np.full((192, 192), level[band]) for band in TABLE["s2l2a_10m"].bands])
    told = physics.consistency({"s2l2a_10m": optical, "lulc": np.full((1, 192, 192), 2)})
    yield Row("consistency, NDVI", "red 500, infrared 1500 DN: 1000 / 2000", 0.5, told[0].value)
    relief = power_law(24, 64, 3)
    east, north = np.gradient(relief, 30, axis=1), -np.gradient(relief, 30, axis=0)
    sun = Sun(zenith=math.radians(40), azimuth=math.radians(150))
    for exponent in (1.0, 0.5, 0.0):
        ground = 2000 * sun.on_slope(east, north) ** exponent + rng.normal(0, 20, relief.shape)
        optical = np.repeat(np.repeat(ground, 3, 0), 3, 1)[None].repeat(4, 0)                # 10 m
        told = physics.consistency({"dem": relief[None], "s2l2a_10m": optical}, sun=sun)
        exponents = [one.value for one in told if one.name.endswith("exponent")]
        yield Row("consistency, sunlight", f"brightness as cos(incidence)^{exponent:g}", exponent, mean(exponents), 0.03)


# --- best of N, ranges, tests -------------------------------------------------------------------------------------------------------

def best() -> Iterator[Row]:
    drawn = np.random.default_rng(24).uniform(size=(CASES // 4, 64))
    smallest, largest = scores.best_of_n(drawn).mean(0), scores.best_of_n(drawn, largest=True).mean(0)
    for n in (1, 4, 16, 64):
        yield Row("best of N, smallest", f"uniform, N = {n} of 64: 1 / (N + 1)", 1 / (n + 1), float(smallest[n - 1]), 0.005)
        yield Row("best of N, largest", f"uniform, N = {n} of 64: N / (N + 1)", n / (n + 1), float(largest[n - 1]), 0.005)
    four = scores.best_of_n([1.0, 2.0, 3.0, 4.0])
    yield Row("best of N, smallest", "1, 2, 3, 4: all six pairs", 10 / 6, float(four[1]))


def regions(rng: np.random.Generator, number: int, cells: int, alike: float) -> tuple[Array, NDArray[np.int64]]:
    """Errors of cells in regions, of variance 1 in all, the share `alike` of it common to a region; and the region of each cell."""
    common = np.repeat(rng.standard_normal(number), cells)
    return math.sqrt(alike) * common + math.sqrt(1 - alike) * rng.standard_normal(number * cells) + 2, np.repeat(np.arange(number), cells)


def ranges() -> Iterator[Row]:
    rng = np.random.default_rng(25)
    weight = np.ones(60)
    ratio = partial(scores.blocked, lambda total, n: total / n, draws=400)
    found: list[bool] = []
    naive: list[bool] = []
    for _ in range(600):
        values, region = regions(rng, 12, 5, 0.5)
        for into, labels in ((found, region), (naive, np.arange(60))):
            one = ratio(values, weight, blocks=labels)
            into.append(one.low <= 2 <= one.high)
    yield Row("blocked bootstrap, 95 %", "12 regions of 5 like cells: how often right", 0.95, mean(found), 0.025)
    few = [ratio(values, np.ones(3), blocks=np.arange(3)) for values in rng.standard_normal((600, 3)) + 2]
    yield Row("blocked bootstrap, 95 %", "3 cells: how often right", 0.95, mean([one.low <= 2 <= one.high for one in few]), 0.025)
    alike = math.sqrt(1 + 4 * 0.5)                                                           # how much wider a mean of like cells spreads
    yield Row("bootstrap, not blocked", "the same cells: too narrow", 2 * NORMAL.cdf(1.96 / alike) - 1, mean(naive), 0.04)
    p = []
    for _ in range(2000):
        (a, region), (b, _) = regions(rng, 12, 5, 0.5), regions(rng, 12, 5, 0.5)
        p.append(scores.paired(lambda total, n: total / n, [a, weight], [b, weight], blocks=region, draws=400).p)
    yield Row("paired difference", "no difference: how often p < 0.05", 0.05, mean(np.array(p) < 0.05), 0.015)
    values, region = regions(rng, 12, 5, 0.5)
    one = scores.paired(lambda total, n: total / n, [values + 1, weight], [values, weight], blocks=region)
    yield Row("paired difference", "one more in every cell", 1, one.value)
    adjusted = " ".join(f"{x:g}" for x in scores.holm([0.01, 0.04, 0.03, 0.005]))
    yield Row("Holm's p", "0.01 0.04 0.03 0.005", "0.03 0.06 0.06 0.02", adjusted)
    yield Row("weighted median", "1, 2, 9 taken 1, 2 and 4 times", 9, float(scores.weighted_quantile([1, 2, 9], [1, 2, 4], 0.5)))


GROUPS = {one.__name__: one for one in (ensembles, vectors, textures, calibration, classes, two_sets, layers, best, ranges)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; all by default")
    began, rows = time.perf_counter(), []
    print(f"{'estimator':26} {'case':50} {'known':>19} {'found':>19} {'tolerance':>9}")
    for name in parser.parse_args().groups or GROUPS:
        for row in GROUPS[name]():
            rows.append(row)
            known, found = (one or "none" if isinstance(one, str) else f"{one:.4f}" for one in (row.known, row.found))
            verdict = "ok" if row.holds else "MISSED"
            print(f"{row.estimator:26} {row.case:50} {known:>19} {found:>19} {row.tolerance:9g} {verdict:>7}", flush=True)
    missed = sum(not row.holds for row in rows)
    print(f"\n{len(rows)} known answers, {missed} missed, {time.perf_counter() - began:.0f} s")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
