"""Where are the statistics, and how do they come back? One long table, written part by part, read whole or only what is asked for.

A row is one statistic: `value` is the mean over `weight` elements, so that any group's is sum(value * weight) / sum(weight). A run's
folder has `plan.json` (generator, cases, recipe), a file `parts/<condition>/<cell>.parquet` for each condition of each case, there whole or
not at all, and at the end all of them one after another as `rows.parquet`, which needs nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen import geoparquet
from copgen.config import dump
from copgen.evaluation.recipe import Condition

PLAN, PARTS, ROWS, FAILED = "plan.json", "parts", "rows.parquet", "failed.jsonl"
PLANNED = ("generator", "cases", "recipe", "features", "memory", "names")      # what plan.json says, and a folder belongs to
CODED = ("cell", "protocol", "given", "modality", "band", "statistic")           # strings that repeat
COLUMNS = ("cell", "protocol", "given", "seed", "modality", "band", "statistic", "value", "weight")
AT_ONCE = 1 << 18                                # rows of a group of rows.parquet, about
Statistic = tuple[int | None, str, str, str, float, float]           # seed, modality, band, statistic, value, weight


@dataclass(frozen=True)
class Rows:
    """Statistics, and what they are of.

    frame: a pandas DataFrame with the columns `generator` (its name) and COLUMNS; strings are categories, `seed` is a nullable Int32.
    `given` is the condition's name of what was given, and a swap's `protocol` ends in the product that was swapped.
    meta: `generator`, `cases` (their records), `recipe`, `names` (of all cases), `places` ({cell: [lat, lon]} of those whose place
    is known), `conditions` (each as JSON with `cells`, how many have it), and of parts, which are a condition of a case each: `expected`,
    `finished`, `skipped` (those of the finished that do not apply to their case, counted by reason), `failed`. Of several runs also
    `runs`, the list of each one's, with the `name` that the column `generator` has.
    """

    frame: Any
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Where the rows of one condition of one case are."""

    folder: Path
    number: int
    cell: str

    @property
    def path(self) -> Path:
        return self.folder / PARTS / f"{self.number:03d}" / f"{self.cell}.parquet"

    @property
    def ensemble(self) -> Path:
        """Where what was drawn is kept, of the first cases."""
        return self.folder / "samples" / f"{self.number:03d}" / f"{self.cell}.safetensors"

    @property
    def is_skipped(self) -> bool:
        """Whether it is there and says that the condition does not apply to the case."""
        return geoparquet.describe(self.path).notes["condition"] is None


def schema() -> Any:
    pa, _ = geoparquet.arrow()
    kinds = {"seed": pa.int32(), "value": pa.float64(), "weight": pa.float64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def check_rows(rows: Iterable[Statistic]) -> None:
    """ValueError for a statistic that is no number: it would spoil every mean that it is in."""
    for _, modality, band, statistic, value, weight in rows:
        if not (math.isfinite(value) and math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{' '.join(filter(None, (modality, band, statistic)))}: is {value} with weight {weight}; a statistic is a "
                             "finite number, or left out where it is not defined")


# --- writing ------------------------------------------------------------------------------------------------------------------------

def write_part(
    part: Part, condition: Condition | None, rows: Sequence[Statistic], place: Sequence[float] | None = None, skipped: str = "",
) -> None:
    """The rows of one condition of one case, whole or not at all; ValueError if they can't be written.

    No condition: it does not apply to this case, for the reason `skipped`. place: latitude and longitude.
    """
    pa, _ = geoparquet.arrow()
    constant = (part.cell, condition.protocol, condition.given_name) if condition else ("", "", "")
    columns: dict[str, Any] = {name: [value] * len(rows) for name, value in zip(COLUMNS, constant, strict=False)}
    columns |= dict(zip(COLUMNS[3:], zip(*rows, strict=True) if rows else [()] * 6, strict=True))
    notes = {"condition": condition and dump(condition), "place": place and [float(x) for x in place], "skipped": skipped}
    geoparquet.write(part.path, pa.table({name: list(columns[name]) for name in COLUMNS}, schema()), geometry=None, notes=notes)


def write_rows(path: Path, parts: Sequence[Part], meta: Mapping[str, Any]) -> dict[str, Any]:
    """All parts that are there one after another, in this order, as one file; returns its notes: `meta` and what the parts add up to.

    The same parts give the same bytes; few of them are in memory at one time.
    """
    there = [part for part in parts if part.path.is_file()]
    notes = {**meta, **summed(there, len(parts))}
    geoparquet.write(path, gathered(there), geometry=None, notes=notes)
    return notes


def gathered(parts: Iterable[Part]) -> Iterator[Any]:
    """Tables of about AT_ONCE rows, one of none at least."""
    pa, _ = geoparquet.arrow()
    some = [schema().empty_table()]
    for part in parts:
        some.append(geoparquet.read(part.path))
        if sum(map(len, some)) >= AT_ONCE:
            yield pa.concat_tables(some).combine_chunks()
            some = []
    if some:
        yield pa.concat_tables(some).combine_chunks()


def digest(parts: Iterable[Part]) -> str:
    """What tells these parts from others: two runs of one plan with the same parts have the same rows."""
    return hashlib.sha256("".join(sorted(f"{part.number}/{part.cell}\n" for part in parts)).encode()).hexdigest()


def summed(parts: Sequence[Part], expected: int) -> dict[str, Any]:
    """What the notes of finished parts add up to, as `Rows.meta` has it."""
    places: dict[str, list[float]] = {}
    conditions, skipped, finished = Counter[str](), Counter[str](), 0
    for part in parts:
        notes = geoparquet.describe(part.path).notes
        finished += 1
        if notes["condition"] is None:
            skipped[notes["skipped"]] += 1
            continue
        conditions[json.dumps(notes["condition"])] += 1
        if notes["place"]:
            places[part.cell] = notes["place"]
    return {"expected": expected, "finished": finished, "parts": digest(parts), "skipped": dict(sorted(skipped.items())), "places": places,
            "conditions": [{**json.loads(text), "cells": count} for text, count in conditions.items()]}


# --- reading ------------------------------------------------------------------------------------------------------------------------

def read_rows(
    paths: Path | str | Sequence[Path | str], *, statistics: Sequence[str] | None = None, protocols: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None, columns: Sequence[str] | None = None,
) -> Rows:
    """The rows of an evaluation: its folder, finished or not, or its rows.parquet; or of several.

    What is named of statistics, protocols, modalities and columns alone is read (None: all); a statistic that ends in a colon stands
    for all that begin so ("rank:"). Runs whose generators have one name are told apart by their folders. Raises ValueError for what is
    no evaluation, or damaged.
    """
    import pandas as pd

    names = [paths] if isinstance(paths, str | Path) else list(paths)
    if not names:
        raise ValueError("no evaluation is named; name the folder of one, or its rows.parquet")
    wanted = {"statistic": statistics, "protocol": protocols, "modality": modalities}
    runs = [read_run(Path(path), wanted, columns) for path in names]
    called = distinct([run.meta["generator"]["name"] for run in runs], [Path(path) for path in names])
    for run, name in zip(runs, called, strict=True):
        run.frame.insert(0, "generator", pd.Categorical([name] * len(run.frame), categories=list(dict.fromkeys(called))))
    if len(runs) == 1:
        return runs[0]
    metas = [{**run.meta, "name": name} for run, name in zip(runs, called, strict=True)]
    sums = {key: sum(meta[key] for meta in metas) for key in ("expected", "finished", "failed")}
    return Rows(joined([run.frame for run in runs]), {**runs[0].meta, **sums, "runs": metas})


def distinct(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The names, those that occur twice with the folder's, and those that even then occur twice with a number."""
    folders = [path.parent.name if path.suffix == ".parquet" else path.name for path in paths]
    longer = [f"{name} ({folder})" if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)]
    return [f"{name} {longer[: k + 1].count(name)}" if longer.count(name) > 1 else name for k, name in enumerate(longer)]


def joined(frames: Sequence[Any]) -> Any:
    """Frames one after another, whose categories need not be the same."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    frames = [frame for frame in frames if len(frame)] or frames[:1]             # the categories of an empty one are of no type
    columns = {name: [frame[name] for frame in frames] for name in frames[0].columns}
    return pd.DataFrame({name: union_categoricals(parts) if isinstance(parts[0].dtype, pd.CategoricalDtype) else
                         pd.concat(parts, ignore_index=True) for name, parts in columns.items()})


def read_run(path: Path, wanted: Mapping[str, Sequence[str] | None], columns: Sequence[str] | None) -> Rows:
    files, meta = files_of(path)
    columns = list(COLUMNS if columns is None else columns)
    pa, _ = geoparquet.arrow()
    tables = [table for file in files for table in selected(file, columns, wanted)]
    table = pa.concat_tables(tables).unify_dictionaries() if tables else coded_schema(columns).empty_table()
    import pandas as pd

    return Rows(table.to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get, self_destruct=True, split_blocks=True), meta)


def files_of(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files whose rows count, and what they are of: a folder's rows.parquet if it has all parts that are there, else the parts."""
    if path.suffix == ".parquet":
        return [path], whole_meta(path)
    if not (path / PLAN).is_file():
        raise ValueError(f"{path}: is no evaluation, it has no {PLAN}; name a folder that copgen evaluate run wrote, or its {ROWS}")
    parts = parts_there(path)
    if (path / ROWS).is_file() and (meta := whole_meta(path / ROWS)).get("parts") == digest(parts):
        return [path / ROWS], meta
    plan = read_plan(path)
    meta = {**{key: plan[key] for key in PLANNED}, **summed(parts, plan["expected"])}
    return [part.path for part in parts], {**meta, "failed": refusals_in(path)}


def refusals_in(folder: Path) -> int:
    """How many tasks the last run was refused."""
    path = folder / FAILED
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def parts_there(folder: Path) -> list[Part]:
    """The finished parts of a folder, condition by condition."""
    found = sorted((folder / PARTS).glob("[0-9]*/*.parquet"))
    return [Part(folder, int(path.parent.name), path.stem) for path in found if not path.name.startswith(".")]


def read_plan(folder: Path) -> dict[str, Any]:
    try:
        plan = dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
        if lacking := {*PLANNED, "expected"} - set(plan):
            raise ValueError(f"it says nothing of {', '.join(sorted(lacking))}, so another version made it")
        return plan
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / PLAN}: could not be read ({error}); evaluate into another folder") from error


def whole_meta(path: Path) -> dict[str, Any]:
    about = geoparquet.describe(path)
    if about.columns != COLUMNS or "generator" not in about.notes:
        raise ValueError(f"{path}: has the columns {', '.join(about.columns)}, which are not those of an evaluation; name a {ROWS} that "
                         "copgen evaluate run wrote")
    return dict(about.notes)


def selected(path: Path, columns: Sequence[str], wanted: Mapping[str, Sequence[str] | None]) -> Iterator[Any]:
    """The wanted rows of a file, a row group at a time; of a group without any only what tells is read."""
    asked = {name: values for name, values in wanted.items() if values is not None}
    coded = [name for name in CODED if name in {*columns, *asked}]
    with geoparquet.opened(path, coded) as file:
        if lacking := [name for name in columns if name not in file.schema_arrow.names]:
            raise ValueError(f"{path}: has no column {', '.join(lacking)}; there are {', '.join(COLUMNS)}")
        for k in range(file.num_row_groups):
            keep = np.ones(file.metadata.row_group(k).num_rows, bool)
            for name, values in asked.items():
                if keep.any():
                    keep &= matching(file.read_row_group(k, [name])[name], values)
            if keep.any():
                table = file.read_row_group(k, list(columns))
                yield table if keep.all() else table.filter(keep)


def matching(column: Any, values: Sequence[str]) -> NDArray[np.bool_]:
    """Which of a dictionary column's strings are among the values, or begin with one that ends in a colon."""
    exact, families = set(values), tuple(value for value in values if value.endswith(":"))
    found = [np.zeros(0, bool)]
    for chunk in column.chunks:
        good = np.array([word in exact or word.startswith(families) for word in chunk.dictionary.to_pylist()], bool)
        found.append(good[chunk.indices.to_numpy()])
    return np.concatenate(found)


def coded_schema(columns: Sequence[str]) -> Any:
    pa, _ = geoparquet.arrow()
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(name, text if name in CODED else schema().field(name).type) for name in columns])
