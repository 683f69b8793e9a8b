"""How far does the distribution move when one given layer is another case's? And do the layers of a sample agree with each other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.evaluation.missing import Mask, unknown
from copgen.evaluation.stacks import Array, Row, row, scored, seed_of
from copgen.modalities import Modality
from copgen.scene import Scene
from copgen.scores.distances import EARTH_RADIUS, YEAR
from copgen.scores.physics import Measure, consistency

LEAST = 2                                        # pairs: of one alone no sampling variance is known


# --- a swap -------------------------------------------------------------------------------------------------------------------------

def influence_rows(
    names: Sequence[str], samples: Sequence[Scene], swapped: Sequence[Scene],
    others: Sequence[Scene] = (), swapped_others: Sequence[Scene] = (),
) -> Iterator[Row]:
    """`moved`, the squared distance of two ensembles' means, beside the `spread` of the first; of the truths `true moved`. By band.

    Samples are paired by seed, truths by their order. The means' distance is that of the mean difference of pairs, squared, less its own
    sampling variance: fair, so 0 on average where nothing moves, and right also where a pair shares its noise. Of classes it is the
    sum over the classes of their shares' squared differences; of places and dates the chord in km, and in days round the year.
    """
    by_seed = {seed_of(one): one for one in swapped}
    pairs = [(one, by_seed[seed_of(one)]) for one in samples if seed_of(one) in by_seed]
    true_pairs = list(zip(others, swapped_others, strict=False))
    for name in names:
        made, true = ([pair for pair in group if all(name in one for one in pair)] for group in (pairs, true_pairs))
        if len(made) < LEAST:
            continue
        modality, layer = made[0][0].table[name], made[0][0][name]
        pixels = layer[0].size if modality.is_image else 1
        for band, parts in coordinates(modality).items():
            found = {"moved": sum(moved(*values(made, name, part)) for part in parts),
                     "spread": sum(spread(values(made, name, part)[0]) for part in parts)}
            if len(true) >= LEAST:
                found["true moved"] = sum(moved(*values(true, name, part)) for part in parts)
            for statistic, value in found.items():
                yield from row(None, modality.product, band, statistic, value, pixels)


def coordinates(modality: Modality) -> dict[str, Sequence[int]]:
    """What a layer's squared distances are sums over, by the band of the row: one channel, all codes, or the components of a direction."""
    if modality.legend:
        return {"": modality.legend.codes}
    if modality.is_image:
        return {band: [k] for k, band in enumerate(modality.bands)}
    return {"": range(2 if modality.name == "date" else 3)}          # a date's third is its year


def values(pairs: Sequence[tuple[Scene, Scene]], name: str, part: int) -> tuple[Array, Array]:
    """One coordinate of both of each pair at every pixel, [n, pixels] each."""
    own, other = (np.array([coordinate(pair[k], name, part) for pair in pairs], np.float64) for k in (0, 1))
    return own, other


def coordinate(scene: Scene, name: str, part: int) -> NDArray:
    """One coordinate of a layer at every pixel, in a unit whose squares mean something."""
    modality, layer = scene.table[name], scene[name]
    if modality.legend:
        return layer.ravel() == part
    if modality.is_image:
        return scored(modality, layer[part]).ravel()
    scale = YEAR / (2 * np.pi) if name == "date" else EARTH_RADIUS
    return scale * np.asarray(modality.scale.to_model(layer)).ravel()[part : part + 1]


def moved(own: Array, other: Array) -> float:
    """The squared difference of the means less the sampling variance of that difference, the mean over pixels."""
    off = other - own
    return float((off.mean(0) ** 2 - off.var(0, ddof=1) / len(off)).mean())


def spread(own: Array) -> float:
    return float(own.var(0, ddof=1).mean()) * (len(own) + 1) / len(own)


# --- layers of one sample -----------------------------------------------------------------------------------------------------------

def consistency_rows(given: Sequence[str], drawn: Sequence[str], observation: Scene, samples: Sequence[Scene]) -> Iterator[Row]:
    """`consistency ...` of every sample, completed by what was given, and `truth consistency ...` of the observation's same layers.

    What the given layers say among themselves is no merit of a sample's, and left out.
    """
    fixed = set(measured(observation, given))
    for sample in samples:
        layers = [name for name in drawn if name in sample]
        whole = sample.with_layers({**{name: observation[name] for name in given if name in observation},
                                    **{name: sample[name] for name in layers}})
        yield from rows_of(seed_of(sample), "", set(measured(whole, whole.layers, observation, given)) - fixed)
    yield from rows_of(None, "truth ", set(measured(observation, [*given, *drawn])) - fixed)


def rows_of(seed: int | None, prefix: str, found: set[Measure]) -> Iterator[Row]:
    for one in sorted(found):
        yield from row(seed, "", "", prefix + one.name, one.value, one.weight)


def measured(scene: Scene, names: Any, origin: Scene | None = None, given: Sequence[str] = ()) -> list[Measure]:
    """The measures of these layers of a scene; holes of the given ones are those of the observation they come from."""
    there = [name for name in names if name in scene]
    holes: Mapping[str, Mask | None] = {name: unknown(origin if origin is not None and name in given else scene, name) for name in there}
    return consistency({name: scene[name] for name in there}, scene.table, unknown={k: v for k, v in holes.items() if v is not None})
