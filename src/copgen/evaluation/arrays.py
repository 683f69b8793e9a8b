"""What do rows say, as arrays of cells, samples and bands? Every number of a table is a sum over these."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from copgen.evaluation.rows import Rows
from copgen.modalities import TABLE, TABLES, Table

Array = NDArray[np.float64]

KEYS = ("protocol", "given", "modality", "statistic")
NO_SEED = -1                                     # of statistics of a whole ensemble, or of the truth


class Asked(NamedTuple):
    """What was given to a generator, and under which protocol."""

    protocol: str
    given: str                                   # "DEM+LULC"; "nothing"

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.given.split("+")) - {"nothing", ""}


Group = tuple[Asked, ...]                        # what is looked at as one: the cells of each are others


@dataclass(frozen=True)
class Values:
    """One statistic of a modality: means [cells, seeds, bands] and what they weigh, 0 where there is none.

    What is said of a whole ensemble has one seed, `NO_SEED`; what is said of all bands together has one band, "".
    """

    value: Array
    weight: Array
    seeds: tuple[int, ...]
    bands: tuple[str, ...]

    @property
    def total(self) -> Array:
        return self.value * self.weight

    def of_band(self, band: str) -> Values:
        """Only this band, if it is there; otherwise nothing at all."""
        keep = [k for k, name in enumerate(self.bands) if name == band]
        return Values(self.value[:, :, keep], self.weight[:, :, keep], self.seeds, tuple(self.bands[k] for k in keep))


class Results:
    """The rows of one generator, sorted once so that every statistic is a slice.

    ValueError where a row is there twice, or a column is missing.
    """

    def __init__(self, frame: pd.DataFrame, name: str = "", meta: Mapping[str, Any] | None = None) -> None:
        if missing := [one for one in (*KEYS, "cell", "seed", "band", "value", "weight") if one not in frame.columns]:
            raise ValueError(f"the rows lack the column {missing[0]}; give rows that `copgen evaluate run` wrote")
        self.meta: Mapping[str, Any] = meta or {}
        self.name = name or str(self.meta.get("generator", {}).get("name", "")) or "generator"
        coded = {one: _coded(frame[one]) for one in (*KEYS, "cell", "band")}
        self.cells = coded["cell"][1]
        self.bands = coded["band"][1]
        self._names = {one: coded[one][1] for one in KEYS}
        group = np.zeros(len(frame), np.int64)
        for one in KEYS:
            group = group * len(coded[one][1]) + coded[one][0]
        order = np.argsort(group, kind="stable")
        numbers = frame["seed"].to_numpy(np.float64, na_value=np.nan)
        codes, seeds = pd.factorize(np.where(np.isnan(numbers), NO_SEED, numbers).astype(np.int64), sort=True)
        self._seed, self._seeds = codes[order], np.asarray(seeds)
        self._cell, self._band = coded["cell"][0][order], coded["band"][0][order]
        self._value = frame["value"].to_numpy(np.float64)[order]
        self._weight = frame["weight"].to_numpy(np.float64)[order]
        self._slices = self._sliced(group[order])
        self._allowed: dict[str, NDArray[np.bool_]] = {}
        self.places = _places(self.cells, self.meta.get("places", {}))

    def _sliced(self, group: NDArray[np.int64]) -> dict[tuple[Asked, str], dict[str, slice]]:
        """Where the rows of every statistic lie, by what was asked and the modality."""
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        found: dict[tuple[Asked, str], dict[str, slice]] = {}
        for start, stop in zip(starts, [*starts[1:], len(group)], strict=True):
            code, names = int(group[start]), []
            for one in reversed(KEYS):
                code, which = divmod(code, len(self._names[one]))
                names.append(self._names[one][which])
            statistic, modality, given, protocol = names
            found.setdefault((Asked(protocol, given), modality), {})[statistic] = slice(int(start), int(stop))
        return found

    @cached_property
    def table(self) -> Table:
        """The table of modalities that all these bands are of; COP-GEN's where none has them."""
        bands = {band for band in self.bands if band}
        return next((one for one in TABLES.values() if bands <= {name for row in one.rows for name in (row.name, *row.bands)}), TABLE)

    @property
    def asked(self) -> list[Asked]:
        """All that was asked, each once."""
        return list(dict.fromkeys(one for one, _ in self._slices))

    def modalities(self, group: Group) -> list[str]:
        """The products that anything is known of, in the table's order."""
        there = {modality for one, modality in self._slices if one in group}
        return [one for one in TABLE.products if one in there] + sorted(there - set(TABLE.products))

    def statistics(self, group: Group, modality: str) -> list[str]:
        """What is known of a product, each name once."""
        return list(dict.fromkeys(name for one in group for name in self._slices.get((one, modality), ())))

    def cells_of(self, group: Group, modality: str) -> NDArray[np.int64]:
        """The numbers of the cells that anything is known of."""
        found = [self._cell[where] for one in group for where in self._slices.get((one, modality), {}).values()]
        return occurring(found, len(self.cells))

    def values(self, group: Group, modality: str, statistic: str) -> Values | None:
        """A statistic as arrays; None where no row has it."""
        where = self._rows(group, modality, statistic)
        return self._dense([where])[0] if len(where) else None

    def family(self, group: Group, modality: str, name: str) -> dict[tuple[int, ...], Values]:
        """All statistics called "<name>:<number>:<number>...", by their numbers, with the same seeds and bands."""
        there = {tuple(int(n) for n in statistic.split(":")[1:]): self._rows(group, modality, statistic)
                 for statistic in self.statistics(group, modality) if statistic.startswith(f"{name}:")}
        keys = sorted(there)
        return dict(zip(keys, self._dense([there[key] for key in keys]), strict=True)) if keys else {}

    def bands_of(self, group: Group, modality: str, statistic: str) -> set[str]:
        return {self.bands[code] for code in occurring([self._band[self._rows(group, modality, statistic)]], len(self.bands))}

    def with_bands(self, allowed: Mapping[str, Collection[str]]) -> Results:
        """The same, of these products only rows of these bands (and of all bands together)."""
        narrowed = copy(self)
        narrowed._allowed = {modality: np.array([not band or band in bands for band in self.bands]) for modality, bands in allowed.items()}
        return narrowed

    def _rows(self, group: Group, modality: str, statistic: str) -> NDArray[np.int64]:
        slices = [self._slices.get((one, modality), {}).get(statistic) for one in group]
        rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(one.start, one.stop) for one in slices if one)])
        return rows[self._allowed[modality][self._band[rows]]] if modality in self._allowed else rows

    def _dense(self, rows: Sequence[NDArray[np.int64]]) -> list[Values]:
        seeds = occurring([self._seed[where] for where in rows], len(self._seeds))
        there = occurring([self._band[where] for where in rows], len(self.bands))
        bands = np.array(sorted(there, key=lambda code: band_order(self.bands[code])), np.int64)
        shape = (len(self.cells), len(seeds), len(bands))
        places = [np.zeros(len(known), np.int64) for known in (self._seeds, self.bands)]              # of codes on the axes
        for place, codes in zip(places, (seeds, bands), strict=True):
            place[codes] = np.arange(len(codes))
        names = tuple(self.bands[code] for code in bands)
        return [Values(*self._filled(where, shape, *places), tuple(self._seeds[seeds].tolist()), names) for where in rows]

    def _filled(self, where: NDArray[np.int64], shape: tuple[int, ...], seed: NDArray[np.int64],
                band: NDArray[np.int64]) -> tuple[Array, Array]:
        index = np.ravel_multi_index((self._cell[where], seed[self._seed[where]], band[self._band[where]]), shape)
        value, weight = np.zeros(shape), np.zeros(shape)
        known = np.isfinite(self._value[where])
        value.ravel()[index] = np.where(known, self._value[where], 0)
        weight.ravel()[index] = np.where(known, self._weight[where], 0)
        times = np.bincount(index, minlength=1)
        if times.max() > 1:
            row = times.argmax()
            raise ValueError(f"{self.name}: cell {self.cells[np.unravel_index(row, shape)[0]]} has a row twice; "
                             f"leave out one of the files that say the same")
        return value, weight


def results_of(rows: Rows | Sequence[Rows]) -> list[Results]:
    """The results of every generator in what `rows.read_rows` read, of one run or of several, in their order.

    Raises ValueError for an evaluation of which no part is finished.
    """
    found = []
    for one in [rows] if isinstance(rows, Rows) else rows:
        metas = one.meta.get("runs") or [one.meta]
        if empty := next((meta for meta in metas if meta.get("finished") == 0), None):
            raise ValueError(f"the evaluation of {empty.get('name') or empty['generator']['name']} has no finished part yet; run it to its "
                             "end, or leave it out")
        names = list(one.frame["generator"].cat.categories) if "generator" in one.frame else [""]
        for name, meta in zip(names, metas, strict=True):
            frame = one.frame[one.frame["generator"] == name] if len(names) > 1 else one.frame
            found.append(Results(frame, name, meta))
    return found


def modalities_of(generators: Sequence[Results]) -> Table:
    """The table of modalities that several generators are of; ValueError where they differ: nothing of theirs stands side by side."""
    if other := next((one for one in generators if one.table != generators[0].table), None):
        raise ValueError(f"{generators[0].name} and {other.name} are of different tables of modalities, "
                         f"{', '.join(generators[0].table.names)} and {', '.join(other.table.names)}; make the tables of each by itself")
    return generators[0].table if generators else TABLE


def band_order(band: str) -> tuple[int, float, str]:
    """By wavelength for Sentinel-2 (B8A after B08), by the table for others."""
    if found := re.fullmatch(r"B(\d+)(A?)", band):
        return (0, int(found[1]) + (0.5 if found[2] else 0), band)
    known = [name for table in TABLES.values() for row in table.rows for name in row.bands]
    return (1, known.index(band) if band in known else len(known), band)


def occurring(codes: Sequence[NDArray[np.int64]], number: int) -> NDArray[np.int64]:
    """Which of the codes 0..number - 1 occur, in order; of many rows much faster than `np.unique`."""
    there = np.zeros(number, bool)
    for some in codes:
        there[some] = True
    return np.flatnonzero(there)


def _coded(column: pd.Series[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes and names of a column of strings."""
    kept = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
    codes = kept.cat.codes.to_numpy().astype(np.int64)
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum())} rows have no {column.name}; give rows that `copgen evaluate run` wrote")
    return codes, tuple(str(one) for one in kept.cat.categories)


def _places(cells: Sequence[str], known: Mapping[str, Any]) -> Array:
    """[cells, 2] degrees of latitude and longitude, NaN where unknown."""
    return np.array([known.get(cell) or (np.nan, np.nan) for cell in cells], np.float64).reshape(len(cells), 2)


# --- sums ---------------------------------------------------------------------------------------------------------------------------

Sums = Array                                     # [cells, seeds, ...]: what is added up over cells before a metric is made of it
Finish = Callable[[Array], Array]                # sums [draws, seeds, ...] -> [draws, seeds]


def ratio(total: Array, weight: Array) -> Array:
    """NaN where nothing weighs."""
    return np.divide(total, weight, out=np.full(np.broadcast_shapes(total.shape, weight.shape), np.nan), where=weight > 0)


def known_mean(values: Array, axis: int = -1) -> Array:
    """The mean of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis), known.sum(axis).astype(np.float64))


def known_std(values: Array, axis: int = -1) -> Array:
    """The standard deviation (of the population) of what is not NaN."""
    centre = np.expand_dims(known_mean(values, axis), axis)
    return np.sqrt(known_mean((values - centre) ** 2, axis))
