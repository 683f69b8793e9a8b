"""Are the samples of one case, as a set, like its many true observations, and unlike what was trained on? By vectors, one an image.

The vector of an image is its band means (of classes, shares), or what a feature of `copgen.evaluation.features` makes of its colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copgen.evaluation.features import Feature, rgb, thumbnails
from copgen.evaluation.stacks import Array, Row, Stack, masked_means, row, seed_of
from copgen.scene import Scene
from copgen.scores import sets

LEAST = 2                                        # members of a set
MEASURES: dict[str, Callable[[Array, Array], float]] = {             # of real and fake vectors
    "nn accuracy": sets.nn_accuracy, "truth nn accuracy": lambda real, fake: sets.perfect_nn_accuracy(len(real), len(fake)),   # by chance
    "precision": sets.precision, "recall": sets.recall, "mmd": sets.mmd,
    "intra distance": lambda real, fake: sets.intra_distance(fake), "truth intra distance": lambda real, fake: sets.intra_distance(real),
}


@dataclass(frozen=True)
class Level:
    """One coordinate of the vector that stands for an image: the mean of a band, or the share of a class; by seed and truth's number."""

    band: str                                    # "" for a class
    samples: Mapping[int, float]
    truths: Mapping[int, float]


def levels(stack: Stack) -> Iterator[Level]:
    """The coordinates that one band gives; what nothing is known of is left out."""
    m = len(stack.seeds)
    images, masks = (stack.samples, stack.truths), ((None, None) if stack.known is None else (stack.known[:m], stack.known[m:]))
    legend = stack.modality.legend
    kinds: Sequence[tuple[str, Callable[[NDArray], NDArray]]] = [(stack.band, np.asarray)] if legend is None else [
        ("", partial(np.equal, code)) for code in legend.codes]
    for band, of in kinds:
        means = (masked_means(of(one), mask)[0] for one, mask in zip(images, masks, strict=True))
        yield Level(band, *(finite(names, one) for names, one in zip((stack.seeds, stack.numbers), means, strict=True)))


def finite(names: Sequence[int], means: Array) -> dict[int, float]:
    return {name: float(mean) for name, mean in zip(names, means, strict=True) if np.isfinite(mean)}


def set_rows(product: str, found: Sequence[Level]) -> Iterator[Row]:
    """All measures of sets on the vectors of those samples and truths that have every coordinate; by band where one is enough."""
    fake, real = (vectors([getattr(level, what) for level in found]) for what in ("samples", "truths"))
    yield from measures(product, "", real, fake)
    if min(len(fake), len(real)) >= LEAST:
        apart, covered = sets.wasserstein(real.T, fake.T), sets.range_coverage(real, fake)
        for level, away, share in zip(found, apart, covered, strict=True):
            if level.band:
                yield from row(None, product, level.band, "wasserstein", away)
                yield from row(None, product, level.band, "range coverage", share)


def vectors(coordinates: Sequence[Mapping[int, float]]) -> Array:
    """One a member that has every coordinate, in the order of the members."""
    members = sorted(set.intersection(*map(set, coordinates))) if coordinates else []
    return np.array([[values[member] for values in coordinates] for member in members]).reshape(len(members), len(coordinates))


def measures(product: str, prefix: str, real: ArrayLike, fake: ArrayLike) -> Iterator[Row]:
    """The measures of two sets of vectors; those alone for which the sets are large enough."""
    x, y = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if min(len(x), len(y)) >= LEAST:
        for name, measure in MEASURES.items():
            yield from row(None, product, "", prefix + name, measure(x, y))


def pixel_rows(stack: Stack) -> Iterator[Row]:
    """`pixel wasserstein`: the pixels of all samples beside those of all truths, on a regular subgrid of at most 64 x 64."""
    flat = stack.thinned
    there = flat.known.all(0)
    if there.any() and min(len(flat.samples), len(flat.truths)) >= LEAST:
        value = sets.wasserstein(flat.samples[:, there].ravel(), flat.truths[:, there].ravel())
        yield from row(None, stack.product, stack.band, "pixel wasserstein", value)


# --- colours ------------------------------------------------------------------------------------------------------------------------

def feature_rows(product: str, features: Mapping[str, Feature], samples: Sequence[Scene], truths: Sequence[Scene]) -> Iterator[Row]:
    """The measures of sets with a feature's name before theirs; of a feature that only tells distances, those within each set."""
    fake, real = ([image for one in scenes if (image := rgb(one, product)) is not None] for scenes in (samples, truths))
    if min(len(fake), len(real)) < LEAST:
        return
    for name, feature in features.items():
        if feature.kind == "vectors":
            yield from measures(product, f"{name} ", *(feature.call(np.stack(images)) for images in (real, fake)))
        else:
            for statistic, images in (("intra distance", fake), ("truth intra distance", real)):
                yield from row(None, product, "", f"{name} {statistic}", sets.mean_of_pairs(feature.call, images))


@dataclass(frozen=True)
class Memory:
    """Vectors of what a model was trained on and of places of the same kind that it was not, by product; and what makes such vectors."""

    training: Mapping[str, Array]
    held_out: Mapping[str, Array]
    feature: Feature = field(default_factory=lambda: Feature("thumbnails", "vectors", thumbnails))

    @classmethod
    def of(cls, training: Iterable[Scene], held_out: Iterable[Scene], feature: Feature | None = None) -> Memory:
        """Of scenes, one at a time; of their products that have colours."""
        empty = cls({}, {})
        feature = feature or empty.feature
        return cls(vectors_by_product(training, feature), vectors_by_product(held_out, feature), feature)


def vectors_by_product(scenes: Iterable[Scene], feature: Feature) -> dict[str, Array]:
    found: dict[str, list[Array]] = {}
    for scene in scenes:
        for product in scene.table.products:
            image = rgb(scene, product)
            if image is not None:
                found.setdefault(product, []).append(feature.call(image[None])[0])
    return {product: np.stack(one) for product, one in found.items()}


def memory_rows(product: str, memory: Memory, samples: Sequence[Scene]) -> Iterator[Row]:
    """Of every sample `nearest training` and `nearest held-out`, distances, and `nearer training`: 0.5 on average if nothing is copied."""
    if product not in memory.training or product not in memory.held_out:
        return
    images = {seed_of(one): image for one in samples if (image := rgb(one, product)) is not None}
    if not images:
        return
    found = sets.copying(memory.feature.call(np.stack(list(images.values()))), memory.training[product], memory.held_out[product])
    for statistic, each in (("nearest training", found.training), ("nearest held-out", found.held_out), ("nearer training", found.nearer)):
        for seed, value in zip(images, each, strict=True):
            yield from row(seed, product, "", statistic, value)
