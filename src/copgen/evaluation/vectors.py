"""How far off are places and dates, and do they spread as they should? Rows of what is one value a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from copgen import scores
from copgen.evaluation.stacks import Array, Row, row, seed_of
from copgen.scene import Scene


def place_rows(samples: Sequence[Scene], truths: Sequence[Scene]) -> Iterator[Row]:
    """`kilometres` of every sample from the observation; `energy score` and `spread km` of all of them, over the sphere."""
    seeds, made, true = values("place", samples, truths)
    for seed, kilometres in zip(seeds, scores.great_circle(made, true[0]), strict=True):
        yield from row(seed, "place", "", "kilometres", kilometres)
    yield from together("place", "spread km", scores.great_circle, made, true)


def date_rows(samples: Sequence[Scene], truths: Sequence[Scene]) -> Iterator[Row]:
    """Days and months off, as published, and in the round of the year; `energy score` and `spread days` are round the year, too."""
    seeds, made, true = values("date", samples, truths)
    made, true = made[:, 0], true[:, 0]
    months, own_month = (one.astype("datetime64[M]").astype(int) % 12 for one in (made, true[0]))
    years, own_year = (one.astype("datetime64[Y]") for one in (made, true[0]))
    found = {
        "days": np.abs(made - true[0]).astype(np.int64), "months": np.abs(months - own_month),               # December to January: 11
        "same month": months == own_month, "same year": years == own_year, "days of year": scores.circular_days(made, true[0]),
    }
    for statistic, each in found.items():
        for seed, value in zip(seeds, each, strict=True):
            yield from row(seed, "date", "", statistic, value)
    yield from together("date", "spread days", scores.circular_days, made, true)


def values(name: str, samples: Sequence[Scene], truths: Sequence[Scene]) -> tuple[list[int], NDArray, NDArray]:
    """The seeds and values of the samples that have this row, and the truths' values."""
    made = [one for one in samples if name in one]
    return [seed_of(one) for one in made], np.stack([one[name] for one in made]), np.stack([one[name] for one in truths if name in one])


def together(product: str, spread: str, distance: Callable[..., Array], made: NDArray, true: NDArray) -> Iterator[Row]:
    """The energy score of a distance, the mean over truths, and the mean distance between two samples."""
    m = len(made)
    between = distance(made[:, None], made[None])
    energy = [scores.energy_of_distances(distance(made, one), between) for one in true]
    yield from row(None, product, "", "energy score", np.mean(energy))
    if m > 1:
        yield from row(None, product, "", spread, between.sum() / (m * (m - 1)))
