"""What does an evaluation consist of, and does a folder belong to it? The request, its tasks, and the record that is kept."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from copgen.engines import Engine
from copgen.evaluation.cases import Cases, open_cases
from copgen.evaluation.features import open_feature
from copgen.evaluation.generators import FILES, Generator, open_generator
from copgen.evaluation.memory import Looked
from copgen.evaluation.recipe import Recipe
from copgen.evaluation.rows import PLAN, PLANNED, Part, read_plan
from copgen.evaluation.statistics import Row, statistics
from copgen.files import json_bytes, write_json

NAME = re.compile(r"[^/\\\0.][^/\\\0]*")         # what can be a file's


@dataclass(frozen=True)
class Tools:
    """What opens a generator and cases and scores an ensemble: functions of modules, as other processes must find them."""

    generator: Callable[..., Generator] = open_generator         # (text, device=...)
    cases: Callable[..., Cases] = open_cases                     # (text, table)
    statistics: Callable[..., list[Row]] = statistics            # (ensemble, swapped, ...)


@dataclass(frozen=True)
class Evaluation:
    """What `copgen evaluate run` was asked for. keep: of how many first cases of each condition the samples are kept."""

    generator: str
    cases: str
    recipe: Recipe
    out: Path
    keep: int = 0
    device: str = "auto"
    features: tuple[str, ...] = ()               # as `open_feature` takes them
    training: str | None = None                  # cases that the model was trained on, to look for memorised ones,
    held_out: str | None = None                  # and as many of their kind that it was not; both or neither
    engine: Engine = "local"
    workers: int = 1
    address: str | None = None
    tries: int = 3                               # of a task whose worker is killed
    tools: Tools = field(default_factory=Tools)


@dataclass(frozen=True)
class Task:
    """One condition of one case; `number` is the question's in the recipe."""

    number: int
    cell: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{self.cell}, condition {self.number}"

    def part(self, folder: Path) -> Part:
        return Part(folder, self.number, self.cell)

    def is_done(self, folder: Path) -> bool:
        part = self.part(folder)
        return part.path.is_file() and (not self.kept or part.ensemble.is_file() or part.is_skipped)


def planned(asked: Evaluation, generator: Generator, cases: Cases, looked: Looked | None) -> dict[str, Any]:
    """What plan.json says of this evaluation; ValueError for cases whose names can't be those of files."""
    names = list(cases.names())
    if not names:
        raise ValueError(f"cases {asked.cases}: there are none; name some that are there")
    if wrong := next((name for name, count in Counter(names).items() if count > 1 or not NAME.fullmatch(name)), None):
        raise ValueError(f"cases {asked.cases}: the name {wrong!r} is there twice or can't be a file's; rename it")
    drawn_by = generator.record()
    check_noise(asked, drawn_by)
    plan = {"generator": drawn_by, "cases": cases.record(), "recipe": asked.recipe.record(),
            "features": {one.name: one.record for one in map(open_feature, asked.features)}, "memory": looked and looked.record(),
            "names": names}
    assert set(plan) == set(PLANNED)
    found: dict[str, Any] = json.loads(json_bytes(plan))
    found["generator"].setdefault("name", asked.generator)
    return found


def check_noise(asked: Evaluation, generator: Mapping[str, Any]) -> None:
    """ValueError where samples that are there already would be asked for by seeds that they were not drawn with."""
    on_disk = generator.get("source") in FILES
    if not on_disk and "kept in" not in generator:
        return
    drawn_so = not on_disk and generator["kept in"].get("own_noise", False)
    if drawn_so != asked.recipe.own_noise:
        raise ValueError(f"generator {asked.generator}: its samples are there already, under the seeds that they were drawn with, and a "
                         f"recipe with own_noise = {json.dumps(asked.recipe.own_noise)} asks for others; change it by --set "
                         f"own_noise={json.dumps(drawn_so)}")


def settle(folder: Path, plan: Mapping[str, Any]) -> None:
    """Make this the folder's plan, or find that it is, and remove what killed workers left half-written.

    Raises ValueError for a folder that belongs to another evaluation, or to something else.
    """
    if (folder / PLAN).is_file():
        there = read_plan(folder)
        if found := next(differences({key: there.get(key) for key in PLANNED}, {key: plan[key] for key in PLANNED}), None):
            key, was, now = found
            raise ValueError(f"{folder}: is another evaluation, with {key} {shown(was)}, not {shown(now)}; choose another folder, or ask "
                             "for the same")
    elif strange := next((path for path in sorted(folder.iterdir()) if not path.name.startswith(".")), None):
        raise ValueError(f"{folder}: holds {strange.name} and no {PLAN}, so it is no evaluation; choose another folder")
    else:
        write_json(folder / PLAN, plan)
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def differences(there: Any, asked: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two records differ: the dotted key, and what each has there."""
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for name in {**there, **asked}:
            yield from differences(there.get(name), asked.get(name), f"{key}.{name}".lstrip("."))
    elif isinstance(there, list) and isinstance(asked, list) and len(there) == len(asked):
        for k, (one, other) in enumerate(zip(there, asked, strict=True)):
            yield from differences(one, other, f"{key}.{k}")
    elif there != asked:
        yield key, there, asked


def shown(value: Any, longest: int = 80) -> str:
    text = f"a list of {len(value)}" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def tasks_of(recipe: Recipe, names: Sequence[str], keep: int) -> list[Task]:
    """Every condition of every case that it is for, case by case, so that an unfinished run has all conditions of some."""
    places = [{name: place for place, name in enumerate(question.protocol.cells_of(names))} for question in recipe.questions]
    return [Task(number, name, place[name] < keep) for name in names for number, place in enumerate(places) if name in place]
