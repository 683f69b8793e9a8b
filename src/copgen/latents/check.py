"""Is a folder of latents whole? Every shard, its records and the indices against each other, and what to do about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen import geoparquet
from copgen.bulk.encode import PLAN, Codecs, Plan, Task, meta_of
from copgen.bulk.records import DIGEST, INDEX, REJECTED, Tally, beside, faults_of, numbered, read_records, samples_of
from copgen.config import load
from copgen.files import json_bytes
from copgen.modalities import table_with
from copgen.shards import INDEX as SHARD_INDEX
from copgen.shards import PRESENT, Mapped, counts_of, digest, json_of, name_of

AGAIN = "run the same copgen encode again, it goes on there"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Problem:
    """What is wrong with which file, and what to do."""

    file: Path
    what: str
    way_out: str


@dataclass(frozen=True)
class Verdict:
    """What was checked and what is wrong; nothing wrong is an empty tuple."""

    folder: Path
    shards: int
    samples: int
    problems: tuple[Problem, ...]


def verify(folder: Path, codecs: Codecs | None = None, progress: Callable[[int, int], object] | None = None) -> Verdict:
    """Read everything in a folder of moments and check that it agrees; of folders not made from an archive, the shards alone.

    Every shard is whole, has all rows in one shape, finite numbers, and zeros where a row is absent; it holds as many samples as the
    index says, of the hash that its records say; each sample has one record, each cell of the plan its records, and the indices are what
    the records add up to. `codecs` are checked to be those that made the latents. Raises ValueError for a folder that holds no latents.
    """
    plan = plan_of(folder)
    if plan is None and not (folder / SHARD_INDEX).is_file():
        raise ValueError(f"{folder}: holds no latents, or none that are finished; name a folder that copgen encode wrote")
    index = json_of(folder / SHARD_INDEX) if plan is None or (folder / SHARD_INDEX).is_file() else None
    if (plan.kind if plan else (index or {}).get("meta", {}).get("kind")) != "moments":
        raise ValueError(f"{folder}: holds no moments; name a folder that copgen encode wrote")
    tasks = plan.tasks() if plan else []
    counts = [int(count) for count in counts_of(index)] if index else [None] * len(tasks)
    rows = list(plan.rows) if plan else list((index or {})["meta"]["rows"])
    problems = list(differences(folder, plan, index, tasks, codecs))
    shapes: dict[str, tuple[int, ...]] = {}
    samples = 0
    for k, (count, task) in enumerate(zip_longest(counts, tasks)):
        found, there = shard_problems(folder, k, count, rows, shapes, task)
        problems, samples = problems + found, samples + there
        if progress:
            progress(k + 1, max(len(counts), len(tasks)))
    if plan and index and not problems:
        problems += index_problems(folder, plan, index, len(tasks))
    return Verdict(folder, max(len(counts), len(tasks)), samples, tuple(problems))


def plan_of(folder: Path) -> Plan | None:
    """The plan of a folder that was made from an archive."""
    path = folder / PLAN
    return load(Plan, path) if path.is_file() and "archive" in json_of(path) else None


def differences(folder: Path, plan: Plan | None, index: Mapping[str, Any] | None, tasks: Sequence[Task],
                codecs: Codecs | None) -> Iterator[Problem]:
    """Where the plan, the index and the codecs do not belong together."""
    if index is None:
        yield Problem(folder / SHARD_INDEX, "is missing: the folder is not finished", AGAIN)
    elif plan and (len(counts_of(index)) != len(tasks) or tuple(index["meta"]["rows"]) != plan.rows):
        yield Problem(folder / SHARD_INDEX, f"does not belong to {PLAN}", f"delete it and {AGAIN}")
    made_by = plan.codecs if plan else (index or {}).get("meta", {}).get("codecs", {})
    for file in codecs.differing(made_by) if codecs else ():
        yield Problem(file, "is not the codec that made these moments", "name the model that did, or encode into another folder")


def shard_problems(folder: Path, k: int, count: int | None, rows: Sequence[str], shapes: dict[str, tuple[int, ...]],
                   task: Task | None) -> tuple[list[Problem], int]:
    """What is wrong with one shard and its records, and its samples. `shapes` are those of the first shard, set by it."""
    path = folder / name_of(k)
    again = f"and {AGAIN}" if task else "and run the command that wrote it again"
    way_out = f"delete it{f' and {beside(folder, k).name}' if task else ''}, {again}"
    try:
        arrays = Mapped(path).arrays
        samples = len(next(iter(arrays.values()), ()))
        wrong = [*array_problems(arrays, rows, shapes)]
        if count is not None and samples != count:
            wrong.append(f"holds {samples} samples, and {SHARD_INDEX} says {count}")
        if task and not wrong:
            wrong += record_problems(read_records(beside(folder, k)), arrays[PRESENT], task)
        if task and not wrong and digest(arrays) != geoparquet.describe(beside(folder, k)).notes.get(DIGEST):
            wrong.append("has changed since its records were written: its hash is another")
    except ValueError as error:
        return [Problem(path, str(error), way_out)], 0
    return [Problem(path, what, way_out) for what in wrong], samples


def array_problems(arrays: Arrays, rows: Sequence[str], shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    if missing := [row for row in rows if row not in arrays]:
        yield f"lacks {', '.join(missing)}"
        return
    if len(lengths := {len(array) for array in arrays.values()}) != 1:
        yield f"its arrays are of {', '.join(map(str, sorted(lengths)))} samples"
        return
    there, table = arrays.get(PRESENT, np.ones((max(lengths), len(rows)), np.uint8)), table_with(rows)
    for k, row in enumerate(rows):
        shape = shapes.setdefault(row, arrays[row].shape[1:])
        if arrays[row].shape[1:] != shape or len(shape) != 3:
            yield f"{row} is {list(arrays[row].shape[1:])}, and {list(shape)} in the first shard"
        elif not np.isfinite(arrays[row]).all():
            yield f"{row} holds what is no number"
        elif arrays[row][there[:, k] == 0].any():
            yield f"{row} is not all zeros where it is absent"
        elif not table[row].is_image and not np.isin(np.linalg.norm(arrays[row][there[:, k] == 1], axis=-1).round(), (1,)).all():
            yield f"{row} holds what is no {row}"       # a unit vector, or sine, cosine and a year in -1..1


def record_problems(records: Any, there: NDArray[np.uint8], task: Task) -> Iterator[str]:
    """What is wrong with the records of a shard whose samples have the rows `there` [n, rows]."""
    import pyarrow.compute as pc

    samples, faults = records.filter(pc.is_null(records["reason"])), records.filter(pc.is_valid(records["reason"]))
    if samples["row"].to_pylist() != list(range(len(there))):
        yield f"has {len(there)} samples, and its records speak of {len(samples)}, or not of each once"
        return
    if (samples["modalities"].to_numpy() != there.astype(np.int64) @ (1 << np.arange(there.shape[1]))).any():
        yield "has other rows than its records say"
    patches = list(zip(samples["cell"].to_pylist(), samples["patch"].to_pylist(), strict=True))
    if len(set(patches)) != len(patches):
        yield "has a patch twice"
    gone = faults.filter(pc.is_null(faults["row"]))
    if set(patches) & set(zip(gone["cell"].to_pylist(), gone["patch"].to_pylist(), strict=True)):
        yield "has a patch that its records say was rejected"
    if set(records["cell"].to_pylist()) != set(task.cells):
        yield f"has records of other cells than its {len(task.cells)} ({task.cells[0]} to {task.cells[-1]})"


def index_problems(folder: Path, plan: Plan, index: Mapping[str, Any], shards: int) -> list[Problem]:
    """Whether the indices of all shards are what the shards' records add up to; they are read a part at a time."""
    tally = Tally()
    parts = {INDEX: lambda table: samples_of(table, plan.rows, tally), REJECTED: lambda table: faults_of(table, tally)}
    wrong = [name for name, part in parts.items() if not same_tables(folder / name, map(part, numbered(folder, shards)))]
    if not wrong and index["meta"] != json.loads(json_bytes(meta_of(plan, tally))):
        wrong = [SHARD_INDEX]
    return [Problem(folder / name, "is missing, damaged or not what the shards' records add up to", f"delete it and {AGAIN}")
            for name in wrong]


def same_tables(path: Path, parts: Iterator[Any]) -> bool:
    """Whether a file's row groups are these tables, one after another; those without rows don't count."""
    try:
        with geoparquet.opened(path) as file:
            groups = (file.read_row_group(k) for k in range(file.num_row_groups))
            pairs = zip_longest((group for group in groups if len(group)), (part for part in parts if len(part)))
            return all(group is not None and part is not None and group.equals(part) for group, part in pairs)
    except ValueError:
        return False
