"""What does a worker of an evaluation do? A condition of a case at a time: it has samples drawn, scores them and writes the rows."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.bulk.devices import one_thread
from copgen.evaluation.cases import OTHERS, Worlds
from copgen.evaluation.features import open_feature
from copgen.evaluation.kept import Ensemble, write_ensemble
from copgen.evaluation.memory import MEMORY, read_memory
from copgen.evaluation.plan import Evaluation, Task
from copgen.evaluation.recipe import EXCHANGED, NotHere, Question
from copgen.evaluation.rows import check_rows, write_part
from copgen.evaluation.statistics import Row
from copgen.model import pick_device
from copgen.reading import CopgenWarning
from copgen.scene import Scene


@dataclass(frozen=True)
class Outcome:
    """What came of a task: rows, or the reason why not."""

    refused: str = ""
    warnings: tuple[str, ...] = ()


class Evaluator:
    """Does tasks; it has the generator and the cases once."""

    def __init__(self, asked: Evaluation, name: str) -> None:
        self.asked, self.name, self.questions = asked, name, asked.recipe.questions
        self.generator = asked.tools.generator(asked.generator, device=asked.device)
        self.cases = asked.tools.cases(asked.cases, self.generator.table)
        self.names = list(self.cases.names())
        self.place = {name: k for k, name in enumerate(self.names)}
        self.observation = lru_cache(maxsize=4)(self.cases.observation)            # conditions of a case come one after another
        self.device = pick_device(asked.device)
        self.features = {one.name: one for one in (open_feature(text, str(self.device)) for text in asked.features)}
        self.memory = read_memory(asked.out / MEMORY) if asked.training else None

    def __call__(self, task: Task) -> Outcome:
        """Done, skipped or refused; what is refused, of the truth, by the generator or in scoring, leaves nothing."""
        if task.is_done(self.asked.out):         # by a worker that ended before it could tell
            return Outcome()
        part = task.part(self.asked.out)
        with warnings.catch_warnings(record=True) as warned, one_thread(self.device):
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", CopgenWarning)
            try:
                found = self.ensemble(task)
                rows = self.scored(found)
            except NotHere as reason:
                write_part(part, None, [], skipped=str(reason))
                return Outcome()
            except ValueError as error:
                return Outcome(refused=str(error), warnings=texts(warned, task))
        if task.kept:                            # first, as a part that is there is finished
            write_ensemble(part.ensemble, found)
        before = self.asked.recipe.seeds_before(self.place[task.cell])
        condition = replace(found.condition, first_seed=found.condition.first_seed - before)
        write_part(part, condition, [row if row.seed is None else row._replace(seed=row.seed - before) for row in rows],
                   place_of(found.observation))
        return Outcome(warnings=texts(warned, task))

    def ensemble(self, task: Task) -> Ensemble:
        """Draw what a task asks for; NotHere where it does not apply to its case."""
        question, case = self.questions[task.number], self.observation(task.cell)
        condition = question.condition(self.generator.table, tuple(case.layers))
        before = self.asked.recipe.seeds_before(self.place[task.cell])
        condition = replace(condition, first_seed=condition.first_seed + before)
        other = self.exchanged(case, question, condition.swap) if condition.swap else None
        found = Ensemble(condition, case, self.cases.others(task.cell, condition.given, self.asked.recipe.truths),
                         self.generator.samples(case, condition.given, condition.scored, condition.seeds), self.name)
        if other is None:
            return found
        return replace(found, swapped=self.generator.samples(other, condition.given, condition.scored, condition.seeds),
                       swapped_others=self.agreeing(other, condition.given) if found.others else [])

    def agreeing(self, case: Scene, given: Sequence[str]) -> list[Scene]:
        """What else could be true where a case has another's layer; only the synthetic Earth knows, and not of every mixture."""
        return self.cases.resampled(case, given, self.asked.recipe.truths, OTHERS) if isinstance(self.cases, Worlds) else []

    def scored(self, found: Ensemble) -> list[Row]:
        rows = self.asked.tools.statistics(found, found.swapped, swapped_others=found.swapped_others, features=self.features,
                                           memory=self.memory)
        check_rows(rows)
        return rows

    def exchanged(self, case: Scene, question: Question, product: str) -> Scene:
        """The case with another's layers of a product: those that the recipe says, else those of the next case where they differ."""
        said = question.protocol.values.get(case.name)
        rows = case.table.select(product)
        if said is not None:
            layer = np.array(said) if product == "place" else np.array([said], "datetime64[D]")
            return with_others(case, product, {product: layer})
        start = self.place[case.name]
        for name in (self.names[(start + k) % len(self.names)] for k in range(1, len(self.names))):
            other = self.observation(name)
            if all(row in other for row in rows) and any(not np.array_equal(case[row], other[row]) for row in rows):
                return with_others(case, product, {row: other[row] for row in rows})
        raise NotHere(f"no other case has another {product} to swap for")


def with_others(case: Scene, product: str, layers: Mapping[str, NDArray[Any]]) -> Scene:
    """The case with other layers of a product, and with a note of it: samples that lie somewhere already were not drawn from them."""
    changed = case.with_layers({**case.layers, **layers})
    digest = hashlib.sha256(b"".join(changed[row].tobytes() for row in layers)).hexdigest()
    return changed.with_layers(changed.layers, **{EXCHANGED: {"product": product, "sha256": digest}})


def place_of(case: Scene) -> tuple[float, float] | None:
    """Latitude and longitude, where they are known."""
    if "place" in case:
        return float(case["place"][0]), float(case["place"][1])
    return case.footprint.centre if case.footprint else None


def texts(warned: Sequence[warnings.WarningMessage], task: Task) -> tuple[str, ...]:
    """What was warned of, without the case's name, as the same is often said of many."""
    return tuple(dict.fromkeys(str(one.message).removeprefix(f"{task.cell}: ") for one in warned))
