"""Are all samples together like all truths? FID, KID, precision and recall of two large sets of pictures, by their features.

A line is of one product under one condition: the truths of all cells beside all samples that were kept (`copgen evaluate run --keep N`),
or two folders of pictures, or two files of vectors. `copgen.evaluation.many` has the sets of a single cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from copgen import scores
from copgen.evaluation.asked import shown
from copgen.evaluation.features import Feature, Images, rgb
from copgen.evaluation.formats import Cell, Column, Number, Table
from copgen.evaluation.kept import Ensemble, read_ensemble
from copgen.evaluation.rows import distinct, read_plan
from copgen.evaluation.stacks import Array, by_seed, seed_of
from copgen.modalities import table_with
from copgen.scores import sets
from copgen.scores.frechet import frechet_distance, kernel_distance

NEIGHBOURS = 3                                   # of the balls of precision and recall: Kynkäänniemi et al.'s, and torch-fidelity's
GROUPS = 20                                      # of cells, at most, that are left out in turn
MOST_RANGED = 4000                               # vectors of both sets together of which ranges are made: every number takes GROUPS more
PER_MILLE = 1000                                 # in which kernel distances are printed
FID, LESS_BIAS, KID, SHARES = "FID ↓", "FID less its bias ↓", "KID x 1000 ↓", ("Precision ↑", "Recall ↑", "F-score ↑")
HEADINGS = (FID, LESS_BIAS, KID, *SHARES)
NOTES = (
    "FID: the Fréchet distance between the features of all samples and of all truths, of whatever feature. It is the larger the fewer "
    "there are, also for a perfect generator; less its bias: extrapolated by what it is without groups of cells, which needs more vectors "
    "than coordinates.",
    "KID: the kernel distance, 0 on average for a perfect generator whatever the number; below 0 by chance.",
    "Precision: the share of samples near a truth; recall: the share of truths near a sample (improved precision and recall, "
    "arXiv 1904.06991); F-score: their harmonic mean. Recall grows with the number of samples, and falls where cells share their noise "
    "(a recipe without own_noise = true).",
)


@dataclass(frozen=True)
class Collection:
    """Vectors [n, d] of pictures, and the cell that each is of: cells are independent of each other, their pictures are not.

    A sample of nothing given is of no cell, and has its seed for one.
    """

    vectors: Array
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """Two collections: truths and samples of one product under one condition, as one feature sees them."""

    generator: str
    protocol: str
    given: str
    product: str
    feature: str
    real: Collection
    fake: Collection


# --- measures -----------------------------------------------------------------------------------------------------------------------

def measured(line: Line, k: int = NEIGHBOURS) -> dict[str, Number]:
    """Every measure by its heading, with its range over cells (`scores.jackknife`) where the sets are not too large for one."""
    value = measures(line.real.vectors, line.fake.vectors, k)
    groups = groups_of(line)
    ranged = len(groups) > 1 and len(line.real.cells) + len(line.fake.cells) <= MOST_RANGED
    without = [measures(left(line.real, group), left(line.fake, group), k) for group in groups] if ranged else []
    found: dict[str, Number] = {}
    for name in value:
        interval, less_bias = scores.jackknife(value[name], [one[name] for one in without])
        low, high = np.clip((interval.low, interval.high), 0, 1) if name in SHARES else (interval.low, interval.high)
        found[name] = ranged_number(interval.value, low, high)
        if name == FID:
            reach = interval.high - interval.value
            found[LESS_BIAS] = Number(np.nan) if lacks_rank(line) else ranged_number(less_bias, less_bias - reach, less_bias + reach)
    return found


def lacks_rank(line: Line) -> bool:
    """Whether a covariance does: then the FID's bias is not in proportion to 1 / n, and most of it would be left."""
    return min(len(line.real.vectors), len(line.fake.vectors)) <= line.real.vectors.shape[1]


def ranged_number(value: float, low: float, high: float) -> Number:
    return Number(float(value)) if np.isnan(low) else Number(float(value), float(low), float(high))


def measures(real: Array, fake: Array, k: int) -> dict[str, float]:
    """Fréchet and kernel distance, precision, recall and F-score, by their headings."""
    shares = sets.precision(real, fake, k), sets.recall(real, fake, k)
    found = (frechet_distance(real, fake), PER_MILLE * kernel_distance(real, fake), *shares, sets.f_score(*shares))
    return dict(zip((FID, KID, *SHARES), found, strict=True))


def groups_of(line: Line) -> list[frozenset[str]]:
    """All cells in at most `GROUPS` groups of about one size, by their names' order."""
    cells = sorted({*line.real.cells, *line.fake.cells})
    return [frozenset(cells[k::GROUPS]) for k in range(min(GROUPS, len(cells)))]


def left(collection: Collection, group: frozenset[str]) -> Array:
    """The vectors of all other cells."""
    return collection.vectors[[cell not in group for cell in collection.cells]]


# --- a table ------------------------------------------------------------------------------------------------------------------------

def table_of(lines: Sequence[Line], k: int = NEIGHBOURS) -> Table:
    """All lines under one another, with how many cells, truths and samples each is of."""
    labels = ("Generator", "Protocol", "Given", "Product", "Feature")
    rows: list[tuple[Cell, ...]] = []
    for line in lines:
        found = measured(line, k)
        counts = (len(set(line.real.cells)), len(line.real.cells), len(line.fake.cells))
        rows.append((line.generator, line.protocol, line.given, shown(line.product), line.feature, *counts,
                     *(found[name] for name in HEADINGS)))
    columns = (*map(Column, labels), *map(Column, ("Cells", "Truths", "Samples")), *map(Column, HEADINGS))
    near = f"Near: within a ball about a member of the set that reaches {k} other members."
    return Table("datasets", "All samples beside all truths", columns, tuple(rows), (*NOTES, near, *warnings_of(lines), *ranges_of(lines)))


def warnings_of(lines: Sequence[Line]) -> list[str]:
    """What a reader must know of sets that are small."""
    poor = sorted({f"{line.feature} ({line.real.vectors.shape[1]})" for line in lines if lacks_rank(line)})
    return [f"Fewer vectors than coordinates of {', '.join(poor)}: the covariances lack rank, so that the FID compares with other sets of "
            "the same size alone, and its bias is not known."] if poor else []


def ranges_of(lines: Sequence[Line]) -> list[str]:
    large = any(len(line.real.cells) + len(line.fake.cells) > MOST_RANGED for line in lines)
    said = (f"In brackets: 95 % by the jackknife over at most {GROUPS} groups of cells (a bootstrap would draw cells twice, which are then "
            "each other's neighbours).")
    return [said + (f" Above {MOST_RANGED} vectors there are none." if large else "")]


# --- from runs ----------------------------------------------------------------------------------------------------------------------

@dataclass
class Seen:
    """The vectors of one product of one condition as they come, sample by sample."""

    generator: str
    protocol: str
    given: str
    product: str
    cells: list[str] = field(default_factory=list)                   # that there are samples of
    vectors: dict[str, list[Array]] = field(default_factory=dict)    # of the samples, by feature
    of: list[str] = field(default_factory=list)                      # the cell of each
    known: set[tuple[int, bytes]] = field(default_factory=set)


@dataclass
class Collector:
    """Looks at ensembles one after another, and at every truth once."""

    features: Mapping[str, Feature]
    samples: int | None = None                   # of each cell, at most
    seen: dict[tuple[str, str, str, str], Seen] = field(default_factory=dict)
    truths: dict[tuple[str, str], dict[str, Array]] = field(default_factory=dict)      # by product and cell

    def add(self, ensemble: Ensemble, generator: str) -> None:
        """The samples of one cell under one condition. Of nothing given a seed has one sample, whatever the cell: it counts once."""
        condition, cell = ensemble.condition, ensemble.observation.name
        for product in dict.fromkeys(ensemble.observation.table[row].product for row in condition.scored):
            truth = rgb(ensemble.observation, product)
            if truth is None:
                continue
            key = generator, condition.protocol, condition.given_name, product
            seen = self.seen.setdefault(key, Seen(*key))
            if (product, cell) not in self.truths:
                self.truths[product, cell] = self.vectors(truth[None])
            drawn = by_seed(ensemble.samples)[: self.samples]
            images = {seed_of(one): image for one in drawn if (image := rgb(one, product)) is not None}
            told = {seed: hashlib.sha256(image.tobytes()).digest() for seed, image in images.items()}
            fresh = {seed: image for seed, image in images.items() if condition.given or (seed, told[seed]) not in seen.known}
            seen.known |= set(told.items())
            seen.cells += [cell] if images else []                   # without a sample its truth has nothing to stand beside
            if fresh:
                for name, found in self.vectors(np.stack(list(fresh.values()))).items():
                    seen.vectors.setdefault(name, []).append(found)
                seen.of += [cell if condition.given else f"seed {seed}" for seed in fresh]

    def vectors(self, images: Images) -> dict[str, Array]:
        return {name: np.asarray(feature.call(images), np.float64) for name, feature in self.features.items()}

    def lines(self) -> Iterator[Line]:
        """What was given nothing is compared with the truths of all cells, all else with those of its own."""
        for seen in self.seen.values():
            cells = seen.cells if seen.given != "nothing" else [cell for product, cell in self.truths if product == seen.product]
            for feature, parts in seen.vectors.items():
                real = np.concatenate([self.truths[seen.product, cell][feature] for cell in cells])
                yield Line(seen.generator, seen.protocol, seen.given, seen.product, feature, Collection(real, tuple(cells)),
                           Collection(np.concatenate(parts), tuple(seen.of)))


def lines_of_runs(runs: Sequence[Path], features: Sequence[Feature], samples: int | None = None) -> list[Line]:
    """The lines of evaluations whose samples were kept.

    Raises ValueError for one that kept none, for features that make no vectors, and for evaluations of different tables of modalities:
    pictures and reflectances are not drawn alike, so that their distances are no measure of one another.
    """
    by_name, table = only_vectors(features), None
    lines: list[Line] = []
    names = distinct([str(read_plan(folder)["generator"].get("name", folder.name)) for folder in runs], runs)
    for folder, name in zip(runs, names, strict=True):
        files = sorted(folder.glob("samples/*/*.safetensors"))
        if not files:
            raise ValueError(f"{folder}: keeps no samples; evaluate with --keep and as many cases as shall be looked at")
        collector = Collector(by_name, samples)
        for file in files:
            ensemble = read_ensemble(file)
            whole = table_with(ensemble.observation.table.names)
            if whole != (table := table or whole):
                raise ValueError(f"{folder}: is of other modalities, {', '.join(whole.names)}, than {runs[0]}; look at each by itself")
            if ensemble.condition.swap is None:
                collector.add(ensemble, name)
        lines += collector.lines()
    if not lines:
        raise ValueError(f"{', '.join(map(str, runs))}: no kept layer is a picture or has red, green and blue")
    return lines


def only_vectors(features: Sequence[Feature]) -> dict[str, Feature]:
    if not features:
        raise ValueError("no feature is named; give --features inception:FILE, or --features thumbnails, which needs no weights")
    if wrong := [one.name for one in features if one.kind != "vectors"]:
        raise ValueError(f"{wrong[0]} makes distances of pairs and no vectors, which sets are compared by; take inception:FILE")
    return {one.name: one for one in features}
