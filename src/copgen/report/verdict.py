"""What is to be said of a generator at a glance? Four properties, a number and a sign each, by rules that the page states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from copgen.evaluation import measures
from copgen.evaluation.arrays import Array, Group, Results, ratio
from copgen.figures.calibration import ranks_of
from copgen.figures.distribution import agreements, blocks_of
from copgen.scores.calibration import LEVELS, coverage, left_out
from copgen.scores.classes import perfect_reliability
from copgen.scores.distances import great_circle
from copgen.scores.intervals import draws_of, interval_of

LEAST = 5                                        # tiles, to compare with the others of
DRAWS = 1000
FAR = 2.0                                        # deviations: a measure that is always the same in truth would outweigh all others
GOOD, FAIR, POOR, UNKNOWN = "good", "fair", "poor", "unknown"
SIGNS = {GOOD: "✓", FAIR: "○", POOR: "✗", UNKNOWN: "–"}
Read = Callable[[Array], Array]                  # how often each cell counts, [draws, cells] -> [draws]
Judge = Callable[[float, float, float, Collection[float]], str]      # value, low, high, and what it is the mean of -> sign


@dataclass(frozen=True)
class Property:
    """One column of the verdict: what it is, its number, and the rule that makes a sign of it."""

    name: str
    question: str
    number: str                                  # what is printed
    rule: str
    judge: Judge
    measure: Callable[[Results, Group], dict[str, Read]]
    missing: str = "no rows say it"


@dataclass(frozen=True)
class Judged:
    """A property of a generator: the mean over what was drawn, its range when tiles are drawn anew, and the single numbers."""

    value: float
    low: float
    high: float
    sign: str
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def written(self) -> str:
        return f"{self.value:.2f}" if np.isfinite(self.value) else "not measured"


def judged(one: Property, results: Results, group: Group) -> Judged:
    """The mean over the modalities (or measures) that have the property; `unknown` where none has."""
    reads = one.measure(results, group)
    if not reads:
        return Judged(np.nan, np.nan, np.nan, UNKNOWN)
    labels = blocks_of(results)
    taken = draws_of(int(labels.max()) + 1, DRAWS, 0)[:, labels]
    drawn = {name: read(taken) for name, read in reads.items()}
    drawn = {name: values for name, values in drawn.items() if np.isfinite(values[0])}
    if not drawn:
        return Judged(np.nan, np.nan, np.nan, UNKNOWN)
    mean = np.mean(list(drawn.values()), axis=0)
    found = interval_of(float(mean[0]), mean[1:], int(labels.max()) + 1)
    parts = {name: float(values[0]) for name, values in drawn.items()}
    return Judged(found.value, found.low, found.high, one.judge(found.value, found.low, found.high, parts.values()), parts)


# --- accuracy -----------------------------------------------------------------------------------------------------------------------

def accuracy(results: Results, group: Group) -> dict[str, Read]:
    """By modality 1 less its score over that of a guess from all other tiles' truths."""
    found = {}
    for modality in results.modalities(group):
        pair = image_scores(results, group, modality) or class_scores(results, group, modality) or (
            place_scores(results, group) if modality == "place" else None)
        if pair is not None and (pair[1] > 0).any(1).sum() >= LEAST:
            found[modality] = skill(*pair)
    return found


def skill(score: Array, guess: Array) -> Read:
    """Sums [cells, bands] of both -> 1 less their ratio, the mean over bands."""
    def read(taken: Array) -> Array:
        return np.mean(1 - ratio(taken @ score, taken @ guess), axis=1)
    return read


def image_scores(results: Results, group: Group, modality: str) -> tuple[Array, Array] | None:
    """The CRPS of means of tiles, and that of the other tiles' means taken for an ensemble."""
    score, truth = results.values(group, modality, "tile crps"), results.values(group, modality, "truth mean")
    if score is None or truth is None:
        return None
    bands = [band for band in score.bands if band in truth.bands]
    value, weight = (getattr(score, what)[:, 0, [score.bands.index(band) for band in bands]] for what in ("value", "weight"))
    there = weight > 0
    means, known = (getattr(truth, what)[:, 0, [truth.bands.index(band) for band in bands]] for what in ("value", "weight"))
    guess = np.stack([others(np.where(known[:, k] > 0, means[:, k], np.nan)) for k in range(len(bands))], axis=1)
    there &= np.isfinite(guess)
    return np.where(there, value, 0), np.where(there, guess, 0)


def others(values: Array) -> Array:
    """The fair CRPS of every value with all others as its ensemble; NaN where it is NaN itself."""
    return from_distances(np.abs(values[:, None] - values[None]))


def from_distances(apart: Array) -> Array:
    """The energy score of each of n, the others being its ensemble, from their distances [n, n]; NaN for what is NaN."""
    known = np.isfinite(np.diagonal(apart))
    n = known.sum()
    if n < 3:
        return np.full(len(apart), np.nan)
    table = np.where(known[:, None] & known[None], apart, 0)
    to_others, everything = table.sum(1), table.sum()
    pairs = (everything - 2 * to_others) / ((n - 1) * (n - 2))
    return np.where(known, to_others / (n - 1) - pairs / 2, np.nan)


def class_scores(results: Results, group: Group, modality: str) -> tuple[Array, Array] | None:
    """The fair Brier score, and that of the other tiles' shares of classes."""
    score, pairs = results.values(group, modality, "fair brier"), results.family(group, modality, "hits")
    if score is None or not pairs:
        return None
    codes = sorted({truth for truth, _ in pairs})
    counts = np.stack([sum(found.total.sum((1, 2)) for (truth, _), found in pairs.items() if truth == code) for code in codes], axis=1)
    there = counts.sum(1) > 0
    share = ratio(counts, counts.sum(1, keepdims=True))
    mean = ratio(counts.sum(0) - counts, (counts.sum() - counts.sum(1))[:, None])                      # of all other tiles
    guess = 1 - 2 * (share * mean).sum(1) + (mean**2).sum(1)
    value = ratio(score.total.sum((1, 2)), score.weight.sum((1, 2)))
    there &= np.isfinite(value) & np.isfinite(guess)
    return np.where(there, value, 0)[:, None], np.where(there, guess, 0)[:, None]


def place_scores(results: Results, group: Group) -> tuple[Array, Array] | None:
    """The energy score of places in kilometres, and that of the other tiles' places."""
    score = results.values(group, "place", "energy score")
    if score is None:
        return None
    value = ratio(score.total.sum((1, 2)), score.weight.sum((1, 2)))
    places = np.where(np.isfinite(value)[:, None], results.places, np.nan)
    guess = from_distances(great_circle(places[:, None], places[None]))
    there = np.isfinite(value) & np.isfinite(guess)
    return np.where(there, value, 0)[:, None], np.where(there, guess, 0)[:, None]


# --- calibration --------------------------------------------------------------------------------------------------------------------

def calibration(results: Results, group: Group) -> dict[str, Read]:
    """By modality how far shares are from what a perfect ensemble gives: of truths in central ranges, or of pixels of a class."""
    found = {}
    for modality in results.modalities(group):
        if (read := covered(results, group, modality) or reliable(results, group, modality)) is not None:
            found[modality] = read
    return found


def covered(results: Results, group: Group, modality: str) -> Read | None:
    ranks = ranks_of(results, group, modality)
    if ranks is None or ranks.members < 2:       # one sample has no range
        return None
    cuts = [left_out(ranks.members, level) for level in LEVELS]
    ideal = np.array([coverage(ranks.share, level)[1] for level in LEVELS])
    held = np.zeros((len(results.cells), len(LEVELS)))
    weight = np.zeros(len(results.cells))
    held[ranks.cells], weight[ranks.cells] = ranks.held(cuts) * ranks.weight[:, None], ranks.weight

    def read(taken: Array) -> Array:
        return np.abs(ratio(taken @ held, (taken @ weight)[:, None]) - ideal).mean(1)
    return read


def reliable(results: Results, group: Group, modality: str) -> Read | None:
    """The share of probability that lies in a wrong class, beside an ensemble that the truth is one more sample of.

    Half the difference, class by class, of how often a class is seen where so many samples say it and how often it would be. Said is what
    all but one sample say, each left out in turn: where k of m do, a perfect ensemble's truth does less or more often than k / m.
    """
    table = measures.reliability(results, group, modality)
    if table is None or table.shape[-1] < 3:                         # of one sample none is left to say anything
        return None
    cases, hits = np.moveaxis(table[:, 0], 1, 0)                     # [cells, classes, m + 1] each
    said = np.arange(cases.shape[-1]) / (cases.shape[-1] - 1)
    seen = (hits * (1 - said))[..., :-1] + (hits * said)[..., 1:]    # where k of the m - 1 others say it
    _, perfect = perfect_reliability(cases)

    def read(taken: Array) -> Array:
        off, whole = (np.tensordot(taken, one, axes=1) for one in (seen - perfect, perfect))
        return ratio(np.abs(off).sum((1, 2)) / 2, whole.sum((1, 2)))
    return read


# --- diversity and consistency ------------------------------------------------------------------------------------------------------

def diversity(results: Results, group: Group) -> dict[str, Read]:
    """By modality the mean distance between samples over that between true observations of the same ground."""
    found = {}
    for modality in results.modalities(group):
        drawn, true = (results.values(group, modality, name) for name in ("intra distance", "truth intra distance"))
        if drawn is None or true is None:
            continue
        there = (drawn.weight.sum((1, 2)) > 0) & (true.weight.sum((1, 2)) > 0)
        a, b = (np.where(there, ratio(one.total.sum((1, 2)), one.weight.sum((1, 2))), 0) for one in (drawn, true))
        found[modality] = over(a, b)
    return found


def over(a: Array, b: Array) -> Read:
    def read(taken: Array) -> Array:
        return ratio(taken @ a, taken @ b)
    return read


def consistency(results: Results, group: Group) -> dict[str, Read]:
    """By measure of consistency how far the mean of what was drawn lies from that of the observations, in their standard deviations."""
    found = {}
    for name, one in agreements(results, group).items():
        if len(one.drawn) >= LEAST and one.truth.std() > 0:
            found[name] = shift(one.cells, one.drawn, one.truth, len(results.cells))
    return found


def shift(cells: NDArray[np.int64], drawn: Array, truth: Array, number: int) -> Read:
    """The squared difference of the means, less what it is by chance where there is none, as a root in the truth's deviations."""
    columns = np.zeros((number, 5))
    columns[cells] = np.stack([drawn - truth, (drawn - truth) ** 2, truth, truth**2, np.ones_like(truth)], axis=1)

    def read(taken: Array) -> Array:
        away, square, total, squares, n = (taken @ columns).T
        mean, variance = ratio(away, n), ratio(squares, n) - ratio(total, n) ** 2
        chance = ratio(np.maximum(ratio(square, n) - mean**2, 0), n - 1)
        return np.minimum(np.sqrt(ratio(np.maximum(mean**2 - chance, 0), np.maximum(variance, 0))), FAR)
    return read


# --- the rules ----------------------------------------------------------------------------------------------------------------------

def beats_guess(value: float, low: float, high: float, parts: Collection[float]) -> str:
    return GOOD if low > 0 else POOR if high < 0 or value <= 0 else FAIR


def at_most(good: float, fair: float) -> Judge:
    return lambda value, low, high, parts: GOOD if value <= good else FAIR if value <= fair else POOR


def about_one(value: float, low: float, high: float, parts: Collection[float]) -> str:
    """One layer that is too wild does not make up for another that is too alike."""
    each = all(0.5 <= part <= 2 for part in parts)
    return GOOD if 0.8 <= value <= 1.25 and each else FAIR if 0.5 <= value <= 2 else POOR


PROPERTIES = (
    Property("Accuracy", "Are the samples near the truth?", "skill against other tiles",
             "1 less the score over that of a guess which takes all other tiles' truths for its samples: CRPS of tile means, Brier score "
             "of classes, energy score of places. 1 is perfect, 0 no better than the guess. ✓ where the whole 95 % range lies above 0, "
             "✗ where the number is not above 0, ○ otherwise.", beats_guess, accuracy,
             f"fewer than {LEAST} tiles, or no layer of which such a guess can be made"),
    Property("Calibration", "Can the spread be taken at its word?", "error of shares",
             "how far the share of truths in the central ranges (50, 80, 90, 95 %) is from that of a perfect ensemble of the same size, "
             "the mean over ranges; of classes, the share of probability given to a wrong class, beyond what so few samples do. 0 is "
             "perfect. ✓ up to 0.05, ○ up to 0.15, ✗ above.", at_most(0.05, 0.15), calibration, "nothing was drawn more than once"),
    Property("Diversity", "Do samples differ as observations do?", "spread over the true spread",
             "the mean distance between two samples of a tile over that between two true observations of the same ground. 1 is right, "
             "less is too alike, more too wild. ✓ between 0.8 and 1.25 where every layer's is between 0.5 and 2, ○ between 0.5 and 2, ✗ "
             "beyond.", about_one, diversity,
             "only one true observation a tile is known"),
    Property("Consistency", "Do the layers agree with each other?", "shift of physical measures",
             "how far the mean of each measure of consistency lies from that of observations, beyond chance, in standard deviations of "
             "these (Cohen's d), 2 at most, the mean over measures. 0 is right. ✓ up to 0.2 (small), ○ up to 0.5 (medium), ✗ above.",
             at_most(0.2, 0.5), consistency, f"fewer than {LEAST} tiles, or no layers that say something of each other"),
)


def verdict(runs: Sequence[Results], group: Group) -> dict[str, dict[str, Judged]]:
    """Every generator's properties under one condition, by names."""
    return {run.name: {one.name: judged(one, run, group) for one in PROPERTIES} for run in runs}
