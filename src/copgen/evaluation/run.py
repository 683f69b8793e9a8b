"""How is a generator evaluated? Condition by condition, case by case: drawn, scored, written; what is written is finished.

A run that was interrupted goes on where it was: a task's rows are there whole or not at all, and its samples, where they are kept,
before them. Rows depend on the case, the condition, the generator and its seeds; on a CPU not on the engine, the workers or kills, to the
last bit.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from copgen import engines
from copgen.bulk.devices import gpus_for
from copgen.evaluation.memory import MEMORY, looked_at, write_memory
from copgen.evaluation.plan import Evaluation, Task, planned, settle, tasks_of
from copgen.evaluation.rows import FAILED, ROWS, digest, whole_meta, write_rows
from copgen.evaluation.worker import Evaluator
from copgen.files import held, write_whole

Progress = Callable[[int, int], object]          # tasks done, tasks in all


@dataclass(frozen=True)
class Report:
    """What is in the folder, and what this run did, in tasks."""

    folder: Path
    rows: Path
    tasks: int
    kept: int                                    # finished before
    done: int                                    # now
    refused: int                                 # a line each in failed.jsonl; tried again when the same is asked for again
    skipped: Mapping[str, int]                   # conditions that do not apply to their case, by reason: among the finished
    warned: Mapping[str, int]
    seconds: float


def evaluate(asked: Evaluation, *, progress: Progress | None = None, say: Callable[[str], object] = lambda _: None) -> Report:
    """Draw and score what is not finished yet, by as many workers as asked, and write all rows as one file.

    Raises ValueError for cases, a generator or a recipe that are wrong, for a folder that belongs to another evaluation, naming what
    differs, and where nothing can be written any more. A task that is refused does not stop the others.
    """
    began, asked = time.perf_counter(), settled(asked)
    generator = asked.tools.generator(asked.generator, device=asked.device)
    cases = asked.tools.cases(asked.cases, generator.table)
    looked = looked_at(asked.training, asked.held_out, cases.names(), lambda text: asked.tools.cases(text, generator.table))
    plan = planned(asked, generator, cases, looked)
    tasks = tasks_of(asked.recipe, plan["names"], asked.keep)
    with held(asked.out):                        # two runs would take each other's unfinished files for those of killed workers
        settle(asked.out, {**plan, "expected": len(tasks)})
        if looked:
            write_memory(asked.out / MEMORY, looked, say)
        todo = [task for task in tasks if not task.is_done(asked.out)]
        before, name = len(tasks) - len(todo), plan["generator"]["name"]
        say(f"{len(tasks)} ensembles of {len(plan['names'])} cases" + (f", {before} of them finished before" if before else ""))
        refusals, warned = done_by_workers(asked, name, todo, lambda done: progress and progress(before + done, len(tasks)))
        notes = finish(asked.out, tasks, {**plan, "failed": len(refusals)})
    return Report(asked.out, asked.out / ROWS, len(tasks), before, len(todo) - len(refusals), len(refusals), notes["skipped"], warned,
                  time.perf_counter() - began)


def settled(asked: Evaluation) -> Evaluation:
    """The evaluation as a process elsewhere can do it; ValueError for a count that is none."""
    if asked.keep < 0:
        raise ValueError(f"keep {asked.keep}: 0 or more cases of each condition are kept")
    if asked.workers < 1:
        raise ValueError(f"{asked.workers} workers: at least 1 is needed")
    gpus_for(asked.device, asked.engine)         # refused before anything is written
    return replace(asked, out=asked.out.absolute())


def done_by_workers(
    asked: Evaluation, name: str, todo: Sequence[Task], progress: Callable[[int], object],
) -> tuple[dict[Task, str], Counter[str]]:
    """Have the tasks done; which were refused and why, also written beside the rows, and what was warned of how often."""
    refusals, warned = told(asked.out, todo), Counter[str]()
    gpus = gpus_for(asked.device, asked.engine)
    progress(0)
    try:
        for done, (task, outcome) in enumerate(engines.run(
                todo, Evaluator, {"asked": asked, "name": name}, engine=asked.engine, workers=asked.workers, gpus=gpus,
                tries=asked.tries, address=asked.address), 1):
            warned.update(outcome.warnings)
            refusals.pop(task, None)
            refusals |= {task: outcome.refused} if outcome.refused else {}
            progress(done)
    finally:
        tell(asked.out, todo, refusals)
    return refusals, warned


def tell(folder: Path, tasks: Sequence[Task], refusals: Mapping[Task, str]) -> None:
    """A line a refusal, in the order of the tasks."""
    lines = [{"cell": task.cell, "condition": task.number, "why": refusals[task]} for task in tasks if task in refusals]
    write_whole(folder / FAILED, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def told(folder: Path, tasks: Sequence[Task]) -> dict[Task, str]:
    """Which of these tasks an earlier run was refused and why: it holds until they are tried again."""
    path = folder / FAILED
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    why = {(line["condition"], line["cell"]): line["why"] for line in lines}
    return {task: why[task.number, task.cell] for task in tasks if (task.number, task.cell) in why}


def finish(folder: Path, tasks: Sequence[Task], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Write all rows as one file, condition by condition, unless it is there; its notes."""
    parts = [task.part(folder) for task in sorted(tasks, key=lambda task: task.number)]
    if (folder / ROWS).is_file():
        notes = whole_meta(folder / ROWS)
        if (notes["parts"], notes["failed"]) == (digest(part for part in parts if part.path.is_file()), meta["failed"]):
            return notes
    return write_rows(folder / ROWS, parts, meta)
