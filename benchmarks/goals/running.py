"""How do two processes share the work? Tasks at places, each done once, kept in a file as they are done and taken up from there."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch
from goals import measures
from goals.measures import How, Numbers
from goals.places import OTHERS, UNSEEN, cells, from_cells, from_worlds

from copgen.model import CopGen
from copgen.synthetic import world
from copgen.training.sources import Worlds

Results = dict[str, dict[str, Numbers]]          # by task, then by place
JOINT = "all"                                    # the place of what is measured at all places together


@dataclass(frozen=True)
class Plan:
    """What is measured, how, and on which places."""

    model: str
    how: How
    device: str
    processes: int
    cells: Path | None
    fitted: int                                  # worlds that baselines are fitted on


@dataclass(frozen=True, order=True)
class Unit:
    """One task at one place: a world's seed, a cell's name, or JOINT."""

    task: str
    place: str


@lru_cache(maxsize=1)
def opened(plan: Plan) -> CopGen:
    torch.set_num_threads(max((os.cpu_count() or 1) // plan.processes, 1))
    return CopGen.from_pretrained(plan.model, device=plan.device)


def measured(plan: Plan, unit: Unit) -> dict[str, Numbers]:
    """The numbers of a unit, by place."""
    model, how, (task, _, number) = opened(plan), plan.how, unit.task.partition(" ")
    match task:
        case "codecs":
            assert plan.cells is not None
            return measures.codecs_on_cells(model, cells(plan.cells, model.table), Worlds(OTHERS, OTHERS + plan.fitted, model.table))
        case "unconditional":
            return {JOINT: {"quantiles": measures.quantiles(how.draw(model, None, "S2L2A", how.many))}}
    if unit.place.isdigit():
        seed = int(unit.place)
        match task:
            case "relief":
                return {unit.place: measures.codec_on_relief(model, seed)}
            case "conditional":
                return {unit.place: measures.conditional(model, seed, how)}
            case "own":
                return {unit.place: measures.own_rung(seed, model.table, int(number), how)}
            case "seasons":
                return {unit.place: measures.seasons(model, seed, how)}
        truth, elsewhere = world(seed, model.table), from_worlds(model.table, plan.fitted)
    else:
        assert plan.cells is not None
        truth, elsewhere = cells(plan.cells, model.table)[unit.place], from_cells(plan.cells, model.table, unit.place)
    if task == "rung":
        return {unit.place: measures.rung(model, truth, int(number), how)}
    guided = {"correction": measures.correction, "land_cover": measures.land_cover, "radar": measures.radar}
    return {unit.place: guided[task](model, truth, elsewhere, how)}


def run(plan: Plan, units: Sequence[Unit], file: Path | None) -> Results:
    """All units' numbers; those that the file already has are not measured again."""
    head = {"model": CopGen.from_pretrained(plan.model, device="cpu").weights_sha256(), "how": asdict(plan.how), "fitted": plan.fitted}
    results, done = taken_up(file, head)
    left = [unit for unit in units if unit not in done]
    began = time.monotonic()
    with ProcessPoolExecutor(plan.processes, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(measured, plan, unit): unit for unit in left}
        for count, future in enumerate(as_completed(waiting), 1):
            unit, found = waiting[future], future.result()
            add(results, unit, found)
            if file:
                with file.open("a") as out:
                    out.write(json.dumps({"unit": asdict(unit), "numbers": found}) + "\n")
            took = time.monotonic() - began
            print(f"\r{count}/{len(left)} {unit.task} {unit.place}: {took:.0f} s, about {took / count * (len(left) - count):.0f} s left   ",
                  end="\n" if count == len(left) else "", file=sys.stderr, flush=True)
    return results


def taken_up(file: Path | None, head: dict[str, object]) -> tuple[Results, set[Unit]]:
    """What a file of an earlier run holds; a new one begins with what its numbers depend on."""
    results: Results = {}
    done: set[Unit] = set()
    if file is None:
        return results, done
    if not file.exists():
        file.write_text(json.dumps(head) + "\n")
        return results, done
    first, *lines = file.read_text().splitlines(keepends=True)
    if json.loads(first) != head:
        raise ValueError(f"{file}: holds figures of another model, or drawn in another way; give another --results")
    whole = [line for line in lines if line.endswith("\n")]                  # the last one may have been cut off
    file.write_text("".join([first, *whole]))
    for entry in map(json.loads, whole):
        done.add(Unit(**entry["unit"]))
        add(results, Unit(**entry["unit"]), entry["numbers"])
    return results, done


def add(results: Results, unit: Unit, found: dict[str, Numbers]) -> None:
    results.setdefault(unit.task, {}).update(found)


def units_of(worlds: int, names: Sequence[str], green: dict[str, list[int]], rungs: int) -> list[Unit]:
    """All that the table of goals needs, the longest first."""
    seeds = [str(UNSEEN + number) for number in range(worlds)]
    some = seeds[: max(worlds // 2, 1)]
    units = [Unit(f"own {number}", seed) for seed in some for number in range(rungs)]
    units += [Unit("conditional", seed) for seed in seeds] + [Unit("unconditional", JOINT)]
    units += [Unit(f"rung {number}", seed) for seed in some for number in range(rungs)]
    units += [Unit(f"seasons {where}", str(seed)) for where, found in green.items() for seed in found]
    units += [Unit(task, place) for task in ("correction", "land_cover", "radar") for place in (*seeds, *names)]
    units += [Unit("relief", str(UNSEEN + number)) for number in range(4 * worlds)]
    return units + ([Unit("codecs", JOINT)] if names else [])
