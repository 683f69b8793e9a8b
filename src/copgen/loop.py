"""How far does a model drift when it lives on its own outputs? Layers generated of layers generated, and what changes on the way.

COP-GEN-Beta's looping (its Figure 5): from an observed Sentinel-2 image a radar image, from that a new Sentinel-2 image, and so on. Each
generation is conditioned on the one before and on nothing else but layers that are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import Modality, Table
from copgen.pictures import unit_of
from copgen.scaling import Decibel
from copgen.scene import Scene
from copgen.scores.distances import great_circle
from copgen.scores.images import spectral_slope

Progress = Callable[[int, int], object]          # generations done, generations in all


class Generative(Protocol):
    """What a loop needs of a model: `copgen.model.CopGen` has it."""

    table: Table

    def generate(self, given: Scene | None = None, want: Any = None, *, seeds: Sequence[int] = (0,),
                 quality: str = "default") -> list[Scene]: ...


class Drift(NamedTuple):
    """One number about how a generated product differs from another one of the same ground.

    against: `start` (what was observed), `previous` (the same product a round earlier, in the same chain) or `chains` (the other chains'
    in this round: how much samples differ anyway). statistic and unit: see `differences`.
    """

    round: int                                   # from 1
    seed: int                                    # of the chain
    product: str
    band: str
    against: str
    statistic: str
    unit: str
    value: float


@dataclass(frozen=True)
class Round:
    """One way through all products: what each chain generated, and how far it has come."""

    number: int                                  # from 1; round 0 is the start
    scenes: Mapping[int, Scene]                  # by the chain's seed, with every product of `through` as last generated
    drift: tuple[Drift, ...]


def loop(
    model: Generative, start: Scene, through: Sequence[str] = ("S1RTC", "S2L2A"), rounds: int = 4, seeds: Sequence[int] = (0,), *,
    keep: Sequence[str] = (), quality: str = "default", progress: Progress | None = None,
) -> list[Round]:
    """`rounds` times through the products: each is generated given the one before, the first given the last, which `start` has.

    start: an observed scene; what it has of the other products is measured against, never given. keep: rows or products of `start` that
    are given every time. quality: of every generation (`copgen.quality`). seeds: one chain each; every generation has noise of its own,
    by chain, round and product. Returns the rounds without the start. Raises ValueError for fewer than two products, rounds or seeds below
    one, and layers that `start` lacks.
    """
    legs = checked(start, through, rounds, seeds, keep)
    kept = start.only(model.table.select(keep)) if keep else start.with_layers({})
    current = dict.fromkeys(seeds, start.only(legs[-1][1]))                  # the last generation of each chain
    known: dict[int, Scene] = dict.fromkeys(seeds, start)                    # all products of each chain, as they were last
    found: list[Round] = []
    for number in range(1, rounds + 1):
        made: dict[int, Scene] = {}
        for chain in seeds:
            layers: dict[str, NDArray[Any]] = {}
            for leg, (product, rows) in enumerate(legs):
                given = kept.with_layers({**kept.layers, **current[chain].layers})
                sample = model.generate(given, rows, seeds=[noise_seed(chain, number, product)], quality=quality)[0]
                current[chain] = sample.only(rows)
                layers |= current[chain].layers
                if progress:
                    done = ((number - 1) * len(seeds) + len(made)) * len(legs) + leg + 1
                    progress(done, rounds * len(seeds) * len(legs))
            made[chain] = replace(start, layers=layers, notes={**sample.notes, "seed": chain, "round": number, "through": list(through)})
        found.append(Round(number, made, tuple(drifts(number, made, start, known if number > 1 else {}))))
        known = made
    return found


def checked(
    start: Scene, through: Sequence[str], rounds: int, seeds: Sequence[int], keep: Sequence[str],
) -> list[tuple[str, tuple[str, ...]]]:
    """The products of a loop with their rows, or ValueError."""
    legs = [(word, start.table.select(word)) for word in through]
    if len(legs) < 2 or len({row for _, rows in legs for row in rows}) < sum(len(rows) for _, rows in legs):
        raise ValueError(f"through {', '.join(through) or 'nothing'}: a loop goes through two products at least, such as S1RTC,S2L2A")
    if rounds < 1 or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"rounds {rounds}, seeds {list(seeds)}: at least one round and one seed are needed, and no seed twice")
    if lacking := [row for row in (*legs[-1][1], *start.table.select(keep)) if row not in start]:
        raise ValueError(f"{start.name}: has no {', '.join(lacking)}; a loop starts from the last product it goes through, and keeps what "
                         f"there is: {', '.join(start.layers)}")
    if both := [row for row in start.table.select(keep) for _, rows in legs if row in rows]:
        raise ValueError(f"keep {', '.join(both)}: what is kept is not generated; leave it out of keep or of through")
    return legs


def noise_seed(chain: int, number: int, product: str) -> int:
    """The seed of one generation: no two of a loop share their noise."""
    return int.from_bytes(hashlib.sha256(f"{chain}/{number}/{product}".encode()).digest()[:8], "little") >> 2


# --- drift --------------------------------------------------------------------------------------------------------------------------

def drifts(number: int, made: Mapping[int, Scene], start: Scene, before: Mapping[int, Scene]) -> list[Drift]:
    """All numbers of one round: every chain against the start, the round before and the other chains."""
    found: list[Drift] = []
    for chain, scene in made.items():
        others = [other for seed, other in made.items() if seed != chain]
        for against, references in (("start", [start]), ("previous", [before[chain]] if chain in before else []), ("chains", others)):
            found += [Drift(number, chain, *names, value) for names, value in compared(scene, references, against)]
    return found


def compared(scene: Scene, references: Sequence[Scene], against: str) -> list[tuple[tuple[str, str, str, str, str], float]]:
    """Differences from each reference, averaged over the references, by product, band, against, statistic and unit."""
    sums: dict[tuple[str, str, str, str, str], list[float]] = {}
    for reference in references:
        for name in scene.layers:
            if name in reference:
                row = scene.table[name]
                for band, statistic, unit, value in differences(row, scene[name], reference[name]):
                    sums.setdefault((row.product, band, against, statistic, unit), []).append(value)
    return [(key, float(np.mean(values))) for key, values in sums.items()]


def differences(row: Modality, made: NDArray[Any], reference: NDArray[Any]) -> list[tuple[str, str, str, float]]:
    """How a layer differs from another one of its row: (band, statistic, unit, value).

    Continuous rows, in DN, dB, metres or levels: `mae` (mean absolute difference over pixels), `mean` and `std` (of the layer less those of
    the reference), `slope` (of the radial power spectrum, the layer's less the reference's). Classes: `mae` is the share of pixels that
    differ, and the only one. Place: `mae` in kilometres; date: in days.
    """
    if row.name == "place":
        return [("", "mae", "km", float(great_circle(made, reference)))]
    if row.name == "date":
        return [("", "mae", "days", float(abs((made[0] - reference[0]).astype(int))))]
    if row.legend:
        return [("", "mae", "share", float(np.mean(made != reference)))]
    unit, found = unit_of(row), []
    for band, a, b in zip(row.bands, measured(row, made), measured(row, reference), strict=True):
        found += [(band, "mae", unit, float(np.abs(a - b).mean())), (band, "mean", unit, float(a.mean() - b.mean())),
                  (band, "std", unit, float(a.std() - b.std()))]
        slopes = spectral_slope(np.stack([a, b]), float(row.resolution or 1))
        if np.isfinite(slopes).all():
            found.append((band, "slope", "exponent", float(slopes[0] - slopes[1])))
    return found


def measured(row: Modality, layer: NDArray[Any]) -> NDArray[np.float64]:
    """A layer in the unit in which it is compared: radar in dB."""
    values = np.asarray(layer, np.float64)
    return 10 * np.log10(np.maximum(values, row.scale.floor)) if isinstance(row.scale, Decibel) else values


def curve(rounds: Sequence[Round], product: str, against: str, statistic: str) -> tuple[NDArray[np.float64], str]:
    """One measure over the rounds, the mean over bands, by chain: ([rounds, chains], NaN where there is none; its unit)."""
    chains = list(rounds[0].scenes)
    table, unit = np.full((len(rounds), len(chains)), np.nan), ""
    for k, one in enumerate(rounds):
        for column, chain in enumerate(chains):
            there = [d for d in one.drift if (d.seed, d.product, d.against, d.statistic) == (chain, product, against, statistic)]
            if there:
                table[k, column], unit = float(np.mean([d.value for d in there])), there[0].unit
    return table, unit
