"""What else could have been observed, the kept layers being as they are? Draws from the synthetic Earth's conditional distribution.

A world is drawn from causes to effects, so a draw given kept layers is exact where their causes are kept with them. What is kept, its
causes, and what of them no layer shows in full and is therefore kept as it is in the world:

| kept | its causes | and kept with it |
|---|---|---|
| place | none | |
| date | place: no pictures in the polar night | |
| DEM and LULC, both | place | terrain at 10 m: heights, where water gathers, shores, the height of the plain above the sea |

So the sets nothing; place; place and date; place, DEM and LULC; all four are exact. Given them everything else is drawn again from its own
distribution: weather, parcels and towns, plants, soils, snow, air, clouds, radar and noise, and without DEM and LULC the terrain and land
cover too. None of these shaped what is kept; and what else shaped it (chance and holdings in the land cover, canopies and noise in the
DEM) has no part in what is drawn. The one thing known beyond the layers is the terrain between the DEM's pixels: a DEM of 30 m with noise
of some decimetres leaves little of it open. (DEM and LULC are kept together or not at all: canopies stand in the DEM.)

Any other set is answered by importance weights. Candidates are drawn from the exact distribution given as many of the kept layers as
possible, or from all worlds, and weighed by how like their other kept layers are to the world's, in a few statistics a row: approximate
Bayesian computation with a Gaussian kernel (Beaumont, Zhang and Balding 2002). DEM and LULC without a place are kept exactly still:
the weights then say which places and climates such a ground is likely to be of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import TABLE, Table
from copgen.scene import Scene
from copgen.synthetic import render, world
from copgen.synthetic.fields import stream
from copgen.synthetic.ground import Ground, ground
from copgen.synthetic.setting import LOWEST_SUN, Setting, day_with_sun, located, setting, sun_at

GROUND = ("dem", "lulc")
LIKE = 0.35                                      # the kernel's width, in standard deviations between worlds
LEAST = 8.0                                      # an effective sample size below this says nothing about a distribution
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Resampling:
    """Further observations of a world that agree with the layers kept.

    scenes: equally likely draws of all rows, with repetitions where weights chose them.
    exact: the kept rows that are the world's own, bit for bit, in every scene; the other kept rows are alike only.
    weights: of the candidates among which the scenes were chosen, summing to one; None where no weights were needed.
    effective_sample_size: 1 / sum of the squared weights (Kish 1965), the smaller where weights were used twice; the number of
    scenes where none were needed.
    """

    scenes: list[Scene]
    exact: tuple[str, ...]
    weights: Weights | None
    effective_sample_size: float


def resample(
    of: int | Scene, keep: str | Iterable[str], n: int, *, draw: int = 0, table: Table = TABLE, date: np.datetime64 | None = None,
    bank: int = 512, candidates: int = 128, least: float = LEAST,
) -> Resampling:
    """`n` further observations of a world that agree with the rows or products `keep`.

    of: the world's seed (with its table), or the scene that `copgen.synthetic.world` makes of it.
    draw: another number gives other observations. date: the world is looked at on this day instead of its own.
    bank: how many worlds are weighed where place is not kept and the rest is not closed under its causes; they are drawn once a process.
    candidates: how many observations of this very ground or place are weighed by kept layers that only observations show.
    Raises ValueError for a scene that is no world, unknown rows, n below 1, and weights whose effective sample size is below `least`.
    """
    if n < 1:
        raise ValueError(f"{n} resamplings: at least 1 is needed")
    if isinstance(of, Scene) and "synthetic seed" not in of.notes:
        raise ValueError(f"{of.name}: its notes have no synthetic seed; what is not known to the last cause cannot be drawn again")
    seed, table = (int(of.notes["synthetic seed"]), of.table) if isinstance(of, Scene) else (of, table)
    known = Known.of(seed, table.select(keep), table, date)
    if known.closed:
        pairs, weights, size = [(one, one) for one in (fresh(seed, draw, k) for k in range(n))], None, float(n)
    else:
        pairs, weights, size = weighed(known, n, draw, bank, candidates, least)
    scenes = [known.scene(*pair, f"world-{seed:06d}-{draw}-{k}") for k, pair in enumerate(pairs)]
    return Resampling(scenes, known.exact, weights, size)


@dataclass(frozen=True)
class Known:
    """A world with the rows kept of it, and those of them that every draw holds exactly."""

    truth: Scene
    where: Setting
    land: Ground | None                          # None: not kept, so drawn anew
    kept: tuple[str, ...]
    exact: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, kept: tuple[str, ...], table: Table, date: np.datetime64 | None) -> Known:
        where = setting(seed, table.footprint)
        where = where if date is None else replace(where, date=date)
        land = ground(where)
        holds = all(row in kept for row in GROUND)
        held = {"place", *(GROUND if holds else ())} & set(kept)
        held |= {"date"} if held or kept == ("date",) else set()
        return cls(as_scene(where, render(where, land), table, f"world-{seed:06d}"), where, land if holds else None, kept,
                   tuple(row for row in kept if row in held))

    @property
    def rest(self) -> tuple[str, ...]:
        """The kept rows that draws are only like."""
        return tuple(row for row in self.kept if row not in self.exact)

    @property
    def closed(self) -> bool:
        """Whether the causes of all that is kept are kept too, so that nothing needs weights."""
        return not self.rest and ("place" in self.exact or not self.exact)

    def scene(self, origin: int, seed: int, name: str) -> Scene:
        """A candidate: the setting of one seed, observed with another, and what is kept exactly as it is."""
        table, where = self.truth.table, self.elsewhere(origin)
        land = ground(where) if self.land is None else self.land
        layers = render(where, land, seed)
        return as_scene(where, {**layers, **{row: self.truth[row] for row in self.exact}}, table, name)

    def elsewhere(self, origin: int) -> Setting:
        """The setting of a seed as far as it is not the world's own."""
        if "place" in self.exact:
            where = located(origin, self.where.footprint, self.where.date)
            where = where if "date" in self.exact else replace(where, date=day_with_sun(stream(origin, "date"), where.lat))
        else:
            where = setting(origin, self.truth.table.footprint)
            where = replace(where, date=self.where.date) if "date" in self.exact else where
        return where if self.land is None else replace(where, base=self.where.base)


def as_scene(where: Setting, layers: dict[str, NDArray[Any]], table: Table, name: str) -> Scene:
    return Scene({row: layers[row] for row in table.names if row in layers}, where.footprint, name, table)


def fresh(seed: int, draw: int, number: int) -> int:
    """The seed of a further observation: 62 bits, so that it is no world's that anybody counts to."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}/{number}".encode()).digest()[:8], "little") >> 2


# --- weights ------------------------------------------------------------------------------------------------------------------------

def weighed(
    known: Known, n: int, draw: int, worlds: int, candidates: int, least: float,
) -> tuple[list[tuple[int, int]], Weights, float]:
    """Seeds (of the setting, of the observation) of n draws, the candidates' weights and the effective sample size."""
    rng = stream(known.where.seed, f"weights {draw}")
    seeds = [fresh(known.where.seed, draw, k) for k in range(max(candidates, n))]
    pairs, size = [(seed, seed) for seed in seeds], float(len(seeds))
    if "place" not in known.exact:
        bank = Bank.of(known.truth.table, worlds)
        weights, size = likely_worlds(known, bank, least)
        if known.land is None and known.rest:                                # the worlds' own observations are what was weighed
            return [(bank.seeds[k], bank.seeds[k]) for k in rng.choice(worlds, n, p=weights)], weights, size
        pairs = [(bank.seeds[k], seed) for k, seed in zip(rng.choice(worlds, len(seeds), p=weights), seeds, strict=True)]
        if not known.rest:
            return pairs[:n], weights, size
    seen = stacked([features(known.scene(*pair, "candidate"), known.rest) for pair in pairs])
    weights, second = normalised(kernel(seen, features(known.truth, known.rest), known.rest), known.kept, least)
    return [pairs[k] for k in rng.choice(len(pairs), n, p=weights)], weights, min(size, second)


def likely_worlds(known: Known, bank: Bank, least: float) -> tuple[Weights, float]:
    """Weights of a bank's worlds: how like their ground is where it is held, how like all that is kept where it is not."""
    rows = GROUND if known.land is not None else known.rest
    weights = kernel(bank.features, features(known.truth, rows), rows) if rows else np.ones(len(bank.seeds))
    return normalised(weights * sunny(bank.latitudes, known), known.kept, least)


def normalised(weights: Weights, kept: Sequence[str], least: float) -> tuple[Weights, float]:
    """Weights that sum to one and their effective sample size; ValueError where that is too small."""
    total = weights.sum()
    size = float(total**2 / (weights**2).sum()) if total > 0 else 0.0
    if size < least:
        raise ValueError(f"keep {', '.join(kept)}: among {len(weights)} candidates the effective sample size is {size:.1f}, and "
                         f"{least:g} is the least that says anything; keep fewer rows, or place, date, DEM and LULC alone, or raise bank "
                         "and candidates")
    return weights / total, size


def sunny(latitudes: Sequence[float], known: Known) -> Weights:
    """How likely a kept date is at each latitude: all days with enough sun are equally likely there."""
    if "date" not in known.exact:
        return np.ones(len(latitudes))
    day = known.where.date
    return np.array([(sun_at(lat, day).zenith < LOWEST_SUN) / bright_days(round(lat)) for lat in latitudes])


@lru_cache(maxsize=180)
def bright_days(lat: int) -> int:
    """How many days of a year have enough sun for Sentinel-2 at a latitude, one at least."""
    year = np.datetime64("2021-01-01") + np.arange(365)
    return max(sum(sun_at(lat, day).zenith < LOWEST_SUN for day in year), 1)


@dataclass(frozen=True)
class Bank:
    """Worlds to be weighed, by their statistics alone: a world is drawn again when it is chosen."""

    seeds: list[int]
    latitudes: list[float]
    features: dict[str, Weights]                 # [count, kinds, channels] by row

    @staticmethod
    @lru_cache(maxsize=2)
    def of(table: Table, count: int) -> Bank:
        seeds = [fresh(0, -1, k) for k in range(count)]
        found = stacked([features(world(seed, table), table.names) for seed in seeds])
        return Bank(seeds, [setting(seed, table.footprint).lat for seed in seeds], found)


def kernel(candidates: dict[str, Weights], truth: dict[str, Weights], rows: Sequence[str]) -> Weights:
    """A Gaussian of the distances between statistics, those of a kind being measured by their scatter among the candidates; [count]."""
    away = np.zeros(len(candidates[rows[0]]))
    for row in rows:
        scatter = candidates[row].var(0).sum(-1) + 1e-9                      # [kinds]
        away += (((candidates[row] - truth[row]) ** 2).sum(-1) / scatter).mean(-1)
    return np.exp(-away / (2 * LIKE**2))


def features(scene: Scene, rows: Iterable[str]) -> dict[str, Weights]:
    """A few statistics a row, [kinds, channels]: mean, scatter and roughness in the model's units; of classes the roots of their shares."""
    return {row: statistics(scene, row) for row in rows}


def statistics(scene: Scene, row: str) -> Weights:
    modality = scene.table[row]
    pixels = np.asarray(modality.scale.to_model(scene[row]), np.float64)
    if not modality.is_image:
        return pixels.reshape(1, -1)
    mean = pixels.mean((1, 2))
    if modality.legend:
        return np.sqrt((mean[None] + 1) / 2)
    rough = np.abs(np.diff(pixels, axis=1)).mean((1, 2)) + np.abs(np.diff(pixels, axis=2)).mean((1, 2))
    return np.stack([mean, np.log(pixels.std((1, 2)) + 1e-4), np.log(rough + 1e-4)])


def stacked(found: Sequence[dict[str, Weights]]) -> dict[str, Weights]:
    return {row: np.stack([one[row] for one in found]) for row in found[0]}
