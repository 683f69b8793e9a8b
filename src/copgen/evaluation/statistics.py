"""What does an ensemble say? Samples and truths of one case under one condition -> rows of statistics, from which everything is grouped.

| file | of |
|---|---|
| `continuous` | each sample of a continuous band, against the observation |
| `against` | the samples of a band together, against all true observations |
| `classes` | class layers |
| `vectors` | place and date |
| `many` | sets: many samples beside many true observations |
| `influence` | swaps of a given layer, and layers that must agree with each other |

Sentinel-2 is scored in DN, radar in dB, heights in metres; names that begin with `published` are in the published units. A row without a
seed is of the whole ensemble, or of the truth. What is not defined has no row. Bands are taken one by one, which bounds the memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from copgen.evaluation.against import energy_rows, ensemble_rows
from copgen.evaluation.classes import class_rows
from copgen.evaluation.continuous import sample_rows
from copgen.evaluation.features import Feature
from copgen.evaluation.influence import consistency_rows, influence_rows
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.many import Level, Memory, feature_rows, levels, memory_rows, pixel_rows, set_rows
from copgen.evaluation.stacks import Row, Stack, by_seed, row, seed_of, stacks
from copgen.evaluation.vectors import date_rows, place_rows
from copgen.modalities import Modality
from copgen.scene import Scene

__all__ = ["Memory", "Row", "statistics"]

NO_FEATURES: Mapping[str, Feature] = MappingProxyType({})
ONE_VALUE = {"place": place_rows, "date": date_rows}


def statistics(
    ensemble: Ensemble, swapped: Sequence[Scene] = (), *, swapped_others: Sequence[Scene] = (),
    features: Mapping[str, Feature] = NO_FEATURES, memory: Memory | None = None,
) -> list[Row]:
    """All rows of one case under one condition; the order of the samples decides nothing.

    swapped: what was drawn with the same seeds where one given layer was another case's: then the rows are of its influence alone.
    swapped_others: true observations that agree with that other layer, in the order of the ensemble's. features: by which the colours of
    samples and truths are compared as sets, too. memory: of a model's training places. ValueError for two samples of one seed.
    """
    samples, condition = by_seed(ensemble.samples), ensemble.condition
    if twice := [seed for seed, count in Counter(map(seed_of, samples)).items() if count > 1]:
        raise ValueError(f"{ensemble.observation.name}: two samples have the seed {twice[0]}; give every sample another, as rows are told "
                         "apart by it")
    rows = list(count_rows(ensemble, samples))
    if condition.swap:
        return rows + list(influence_rows(condition.scored, samples, by_seed(swapped), ensemble.others, swapped_others))
    table = ensemble.observation.table
    truths = [ensemble.observation, *ensemble.others]
    for product in dict.fromkeys(table[name].product for name in condition.scored):
        rows += product_rows([table[name] for name in condition.scored if table[name].product == product], samples, truths)
        rows += feature_rows(product, features, samples, truths)
        rows += memory_rows(product, memory, samples) if memory else ()
    return rows + list(consistency_rows(condition.given, condition.scored, ensemble.observation, samples))


def count_rows(ensemble: Ensemble, samples: Sequence[Scene]) -> Iterator[Row]:
    """`samples`: how many of those asked for were drawn whole, by product of which the truth is known."""
    condition, observation = ensemble.condition, ensemble.observation
    by_product: dict[str, list[str]] = {}
    for name in condition.scored:
        if name in observation:
            by_product.setdefault(observation.table[name].product, []).append(name)
    for product, names in by_product.items():
        drawn = sum(all(name in sample for name in names) for sample in samples)
        yield from row(None, product, "", "samples", drawn / condition.samples, condition.samples)


def product_rows(modalities: Sequence[Modality], samples: Sequence[Scene], truths: Sequence[Scene]) -> list[Row]:
    """The rows of one product, band by band, and of its bands together."""
    rows: list[Row] = []
    found: list[Level] = []
    for modality in modalities:
        if not modality.is_image:
            if modality.name in truths[0] and any(modality.name in one for one in samples):
                rows += ONE_VALUE[modality.name](samples, truths)
            continue
        thinned = []
        for stack in stacks(modality.name, samples, truths):
            rows += band_rows(stack, truths[0].name)
            if len(stack.numbers) > 1:
                found += levels(stack)
            thinned.append(stack.thinned)
        if thinned and not modality.legend:
            rows += energy_rows(modality, thinned)
    return rows + list(set_rows(modalities[0].product, found))


def band_rows(stack: Stack, name: str) -> list[Row]:
    if stack.modality.legend:
        return list(class_rows(stack))
    return [*sample_rows(stack), *ensemble_rows(stack, name), *pixel_rows(stack)]
