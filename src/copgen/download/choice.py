"""Which products are taken for a cell, where there are several? Decided for all cells at once, and the same way every time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from copgen.download.metadata import Rows
from copgen.download.sources import OPTICAL, RADAR

Criteria = Literal["closest", "latest", "least-cloudy"]
CRITERIA: tuple[Criteria, ...] = ("closest", "latest", "least-cloudy")
Integers = NDArray[np.int64]
ABSENT = -1


@dataclass(frozen=True)
class Pick:
    """One product of a cell, and where it lies."""

    product: str
    cell: str
    id: str
    sensed: int | None                           # seconds since 1970, UTC; None for heights
    cloud: float | None                          # percent
    nodata: float | None                         # of 1
    file: str                                    # in the source's repository
    row: int                                     # row group

    @property
    def day(self) -> np.datetime64 | None:
        return None if self.sensed is None else np.datetime64(self.sensed, "s").astype("datetime64[D]")


@dataclass(frozen=True)
class Choice:
    """For each cell that has all products, one row of each; and the cells that are left out, by reason."""

    rows: Mapping[str, Rows]
    cells: Any                                   # pyarrow's array of names
    picked: Mapping[str, Integers]               # by product: rows of its table, aligned with `cells`
    left_out: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.cells)

    def picks(self, order: Integers | None = None) -> Iterator[dict[str, Pick]]:
        """The products of each cell, in an order if it is given."""
        order = np.arange(len(self)) if order is None else order
        for start in range(0, len(order), 1024):
            some = order[start:start + 1024]
            columns = [picks_of(name, self.rows[name].table.take(pa.array(taken[some]))) for name, taken in self.picked.items()]
            yield from (dict(zip(self.picked, one, strict=True)) for one in zip(*columns, strict=True))

    def by_place(self) -> Integers:
        """An order in which cells whose products lie in the same files follow each other, so that footers are read once."""
        first = next(iter(self.picked))
        table = self.rows[first].table.select(["file", "row"]).take(pa.array(self.picked[first]))
        return np.asarray(pc.sort_indices(table, [("file", "ascending"), ("row", "ascending")]), np.int64)


def picks_of(product: str, table: Any) -> list[Pick]:
    return [Pick(product, one["cell"], one["id"], one["sensed"], known(one["cloud"]), known(one["nodata"]), one["file"], one["row"])
            for one in table.select(["cell", "id", "sensed", "cloud", "nodata", "file", "row"]).to_pylist()]


def known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def choose(rows: Mapping[str, Rows], criteria: Criteria, asked: tuple[str, ...] | None = None) -> Choice:
    """One product of each source for every cell that has one of each.

    `latest`: the newest of each source, independently. `least-cloudy`: of Sentinel-2 the clearest (the newest of equals), else the newest.
    `closest`: S2L1C and S2L2A of one datatake and tile, and the S1RTC nearest in time to it; of several such, those with the smallest gap,
    then the least cloud, then the newest; a cell without such a pair is left out. What is still equal is settled by product id and place
    in the files. `asked` are the cells that left_out speaks of; without, all that any source has in place.
    """
    cells = everywhere(rows, asked)
    codes = {name: np.asarray(pc.index_in(one.table["cell"], value_set=cells), np.int64) for name, one in rows.items()}
    reasons: dict[str, NDArray[np.bool_]] = {}
    for name, one in rows.items():
        there = np.zeros(len(cells), bool)
        there[codes[name]] = True
        known = np.asarray(pc.is_in(cells, value_set=one.in_place))
        reasons[f"no {name} on the hub"] = ~known
        reasons[f"no {name} that passes the filters"] = known & ~there
    picked = together(rows, codes, len(cells)) if criteria == "closest" else alone(rows, codes, len(cells), criteria)
    unpaired = np.any([taken == ABSENT for taken in picked.values()], axis=0)
    reasons["no S2L1C and S2L2A of one datatake and tile"] = unpaired
    left = np.zeros(len(cells), bool)
    left_out = {}
    for why, mask in reasons.items():            # the first that holds
        if (mask & ~left).any():
            left_out[why] = tuple(cells.filter(pa.array(mask & ~left)).to_pylist())
        left |= mask
    return Choice(rows, cells.filter(pa.array(~left)), {name: taken[~left] for name, taken in picked.items()}, left_out)


def everywhere(rows: Mapping[str, Rows], asked: tuple[str, ...] | None) -> Any:
    if asked is not None:
        return pa.array(sorted(set(asked)), pa.string())
    names = pc.unique(pa.chunked_array([chunk for one in rows.values() for chunk in chunks_of(one.in_place)], pa.string()))
    return names.take(pc.sort_indices(names))


def chunks_of(array: Any) -> list[Any]:
    return list(array.chunks) if isinstance(array, pa.ChunkedArray) else [array]


def alone(rows: Mapping[str, Rows], codes: Mapping[str, Integers], count: int, criteria: Criteria) -> dict[str, Integers]:
    found = {}
    for name, one in rows.items():
        cloud = numbers(one.table["cloud"]) if criteria == "least-cloudy" and one.source.cloudy else np.zeros(len(codes[name]))
        found[name] = firsts(codes[name], count, cloud, -seconds(one))
    return found


def together(rows: Mapping[str, Rows], codes: Mapping[str, Integers], count: int) -> dict[str, Integers]:
    optical = [name for name in OPTICAL if name in rows]
    found = {name: firsts(codes[name], count, -seconds(one)) for name, one in rows.items() if name not in (*optical, RADAR)}
    if not optical:
        return found | alone({RADAR: rows[RADAR]}, codes, count, "latest") if RADAR in rows else found
    passes = one_pass(rows, codes, optical)
    first = passes[optical[0]]
    code, sensed = codes[optical[0]][first], seconds(rows[optical[0]])[first]
    cloud = np.max([numbers(rows[name].table["cloud"])[passes[name]] for name in optical], axis=0)
    gap = np.zeros(len(first), np.int64)
    if RADAR in rows:
        nearest, gap = nearest_in_time(codes[RADAR], seconds(rows[RADAR]), code, sensed)
    best = firsts(code, count, gap, cloud, -sensed)
    for name in optical:
        found[name] = taken(passes[name], best)
    if RADAR in rows:
        found[RADAR] = taken(nearest, best)
    return {name: found[name] for name in rows}


def one_pass(rows: Mapping[str, Rows], codes: Mapping[str, Integers], optical: list[str]) -> dict[str, Integers]:
    """The rows of each optical source that are of one datatake and tile with the others', aligned; of several, the last that was made."""
    datatakes = pc.unique(pa.chunked_array([chunk for name in optical for chunk in chunks_of(rows[name].table["taken"])], pa.string()))
    best = {}
    for name in optical:
        table = rows[name].table
        key = codes[name] * (len(datatakes) + 1) + np.asarray(pc.index_in(table["taken"], value_set=datatakes), np.int64)
        made = np.asarray(pc.rank(table["made"].combine_chunks(), sort_keys="descending", tiebreaker="dense"), np.int64)
        order = np.lexsort((made, key))
        keys, where = np.unique(key[order], return_index=True)
        best[name] = keys, order[where]
    common = best[optical[0]][0]
    for name in optical[1:]:
        common = np.intersect1d(common, best[name][0], assume_unique=True)
    found = {name: at[np.searchsorted(keys, common)] for name, (keys, at) in best.items()}
    order = np.argsort(found[optical[0]], kind="stable")         # in the tables' order, which settles what is equal
    return {name: at[order] for name, at in found.items()}


def nearest_in_time(codes: Integers, times: Integers, code: Integers, time: Integers) -> tuple[Integers, Integers]:
    """For each (code, time) the row with the same code whose time is nearest (the earlier of two), and the gap; ABSENT if there is none."""
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    early = min(times.min(initial=0), time.min(initial=0))
    span = int(max(times.max(initial=0), time.max(initial=0)) - early) + 1
    keys, key = codes * span + (times - early), code * span + (time - early)
    best, gap = np.full(len(code), ABSENT), np.full(len(code), np.iinfo(np.int64).max)
    after = np.searchsorted(keys, key, side="left")
    before = np.searchsorted(keys, keys[np.maximum(after - 1, 0)], side="left") if len(keys) else after      # the first of equal times
    for place, inside in ((before, after > 0), (after, after < len(keys))):
        at = np.where(inside, place, 0)
        same = inside & (codes[at] == code) if len(codes) else np.zeros(len(code), bool)
        distance = np.abs(times[at] - time) if len(codes) else gap
        nearer = same & (distance < gap)
        best[nearer], gap[nearer] = order[at[nearer]], distance[nearer]
    return best, gap


def firsts(code: Integers, count: int, *keys: NDArray[Any]) -> Integers:
    """For each of `count` codes the first row in the order of the keys, then of the rows; ABSENT where there is none."""
    order = np.lexsort((*reversed(keys), code))
    found, where = np.unique(code[order], return_index=True)
    best = np.full(count, ABSENT)
    best[found] = order[where]
    return best


def taken(rows: Integers, best: Integers) -> Integers:
    return np.where(best == ABSENT, ABSENT, rows[best]) if len(rows) else best


def seconds(rows: Rows) -> Integers:
    return np.asarray(pc.fill_null(rows.table["sensed"], 0), np.int64)


def numbers(column: Any) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(), np.float64)
