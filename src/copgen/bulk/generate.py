"""How are samples drawn for a whole archive? Square by square: each is a generate job with its own folder and record in OUT.

A square whose record is there, of the same request and weights, is finished: so what was interrupted goes on where it was. One that is
refused, for a product that is missing or has no data, is told in OUT/failed.jsonl and does not stop the others; it is tried again when
the same is asked for again.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from copgen import engines
from copgen.bulk.devices import gpus_for, one_thread
from copgen.bulk.patches import patches_a_side
from copgen.engines import Engine
from copgen.files import check_target, held, write_whole
from copgen.job import ADDED, RECORD, Job, check_settings, check_weights, draw, given_scene, stated, wanted_rows
from copgen.majortom.cells import cells as cells_on_disk
from copgen.majortom.cells import found_products
from copgen.majortom.grid import checked_cell
from copgen.modalities import Table
from copgen.model import CopGen, bundled
from copgen.reading import CopgenWarning
from copgen.reading.rasters import Damaged
from copgen.reading.scenes import NoData
from copgen.reading.squares import NotCovered

FAILED = "failed.jsonl"
NUMBER = re.compile(r"[\d.]+")
REASONS = {NoData: "no data", NotCovered: "not covered", Damaged: "unreadable"}
Progress = Callable[[int, int], object]          # squares done, squares in all


@dataclass(frozen=True)
class Bulk:
    """What `copgen generate` was asked to draw at many cells. The job has no cell and no patch: these are each square's own."""

    job: Job
    cells: tuple[str, ...] | None = None         # None: all that the archive holds
    patches: Literal["middle", "all"] = "middle"
    engine: Engine = "local"
    workers: int = 1
    address: str | None = None
    tries: int = 3                               # of a square whose worker is killed


@dataclass(frozen=True)
class Square:
    """The middle of a cell, or one of its patches."""

    cell: str
    patch: tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.cell if self.patch is None else f"{self.cell}_{self.patch[0]}_{self.patch[1]}"

    def of(self, job: Job) -> Job:
        return replace(job, cell=self.cell, patch=self.patch)


@dataclass(frozen=True)
class Outcome:
    """What came of a square: samples, or the reason why not."""

    reason: str = ""
    detail: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What is in the folder, and what this run did, in squares: refusals by reason; what was warned of, in one square's words."""

    folder: Path
    squares: int
    kept: int                                    # finished before
    drawn: int
    refused: Mapping[str, int]
    warned: Mapping[str, int]
    failed: Path                                 # a line a refusal
    seconds: float


@dataclass
class Tally:
    """What has come of the squares so far."""

    drawn: int = 0
    refusals: list[dict[str, Any]] = field(default_factory=list)
    warned: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)          # of the first who gave a warning that differs in numbers only

    def add(self, square: Square, outcome: Outcome) -> None:
        self.warned.update({self.words.setdefault(NUMBER.sub("", text), text) for text in outcome.warnings})
        if outcome.reason:
            self.refusals.append({"cell": square.cell, "patch": square.patch, "reason": outcome.reason, "detail": outcome.detail})
        else:
            self.drawn += 1

    def lines(self) -> bytes:
        ordered = sorted(self.refusals, key=lambda one: (one["cell"], one["patch"] or ()))
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in ordered).encode()


def generate(bulk: Bulk, *, progress: Progress | None = None, say: Callable[[str], object] = lambda _: None) -> Report:
    """Draw every square that is not finished, by as many workers as asked; each has the model once.

    A sample depends on its square's files, its seed, the weights and the job's settings; on a CPU not on the engine, the number of
    workers or their order, to the last bit, as every worker computes with one thread. Raises ValueError for settings that are wrong for
    every square, for squares in the folder that another request drew (unless the job may overwrite them), and where nothing can be
    written any more.
    """
    began, job = time.perf_counter(), settled(bulk.job)
    model = CopGen.from_pretrained(job.model, device="cpu")              # its record; workers have the weights
    check(job, model.table)
    squares = squares_of(job.archive or Path(), bulk, model.table)
    drawn_by = made_by(job, model)
    todo = [square for square in squares if not is_finished(square.of(job), drawn_by)]
    done, tally = len(squares) - len(todo), Tally()
    say(f"{len(squares)} squares of {len({square.cell for square in squares})} cells" + (f", {done} of them drawn before" if done else ""))
    gpus = gpus_for(job.device, bulk.engine)
    with held(job.out):                          # two runs would take each other's unfinished files for those of killed workers
        try:
            for square, outcome in engines.run(todo, Sampler, {"job": job}, engine=bulk.engine, workers=bulk.workers, gpus=gpus,
                                               tries=bulk.tries, address=bulk.address):
                done += 1
                tally.add(square, outcome)
                if progress:
                    progress(done, len(squares))
        finally:
            if done == len(squares) or tally.drawn or tally.refusals:    # else what the run before has told still stands
                write_whole(job.out / FAILED, tally.lines())
    return Report(job.out, len(squares), len(squares) - len(todo), tally.drawn, Counter(one["reason"] for one in tally.refusals),
                  tally.warned, job.out / FAILED, time.perf_counter() - began)


def settled(job: Job) -> Job:
    """The job as a process somewhere else can do it: with whole paths."""
    model = str(Path(job.model).absolute()) if Path(job.model).is_dir() and job.model not in bundled() else job.model
    return replace(job, out=job.out.absolute(), archive=job.archive and job.archive.absolute(), model=model)


def check(job: Job, table: Table) -> None:
    """Refuse what would be refused at every square."""
    if job.archive is None or job.cell is not None or job.patch is not None or job.window is not None:
        raise ValueError("many cells need --archive, and neither --cell nor --patch nor --window, which name one square; use --patches")
    check_settings(replace(job, cell="0U_0R"))
    if not job.archive.is_dir():
        raise ValueError(f"{job.archive}: is no folder; --archive takes the folder that holds Core-S2L2A, Core-S1RTC and so on")
    given_rows(job, table)
    wanted = table.select(job.want) if job.want else ()
    stated("place", job.place, wanted, table)
    stated("date", job.date, wanted, table)
    check_target(job.out, [])


def given_rows(job: Job, table: Table) -> tuple[str, ...]:
    """The rows read at every square, and those wanted are checked against them."""
    rows = tuple(row for row in table.select(str(job.given)) if table[row].is_image)
    if not rows:
        raise ValueError(f"--given {job.given}: no layer with pixels is given; give one of {', '.join(table.products)}")
    wanted_rows(job, rows, table)
    return rows


def squares_of(archive: Path, bulk: Bulk, table: Table) -> list[Square]:
    cells = cells_on_disk(archive) if bulk.cells is None else list(dict.fromkeys(map(checked_cell, bulk.cells)))
    if not cells:
        raise ValueError("no cell is named" if bulk.cells is not None else f"{archive}: holds no cells of Major TOM's layout; name the "
                         "folder that holds Core-S2L2A, Core-S1RTC and so on")
    side = range(patches_a_side(table))
    patches = [None] if bulk.patches == "middle" else [(i, j) for i in side for j in side]
    return [Square(cell, patch) for cell in cells for patch in patches]


# --- what is finished ---------------------------------------------------------------------------------------------------------------

def made_by(job: Job, model: CopGen) -> dict[str, Any]:
    """What a record says of a square that this request drew with these weights."""
    rows = given_rows(job, model.table)
    return {"request": job.request, "weights": model.weights_sha256([*rows, *wanted_rows(job, rows, model.table)])}


def is_finished(job: Job, made_by: Mapping[str, Any]) -> bool:
    """Whether a square's record is there; ValueError if it is that of another request, and the job may not overwrite it."""
    path = job.out / str(Square(job.cell or "", job.patch)) / RECORD
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):      # none, or not a whole one
        return False
    try:
        there = {"request": record["request"], "weights": record["model"]["sha256"]}
    except (KeyError, TypeError):                # of another kind, or of an older version
        there = {}
    if there != made_by and not job.overwrite:
        raise ValueError(f"{path}: is there already, {difference(there, made_by)}; choose another folder, or draw it again on purpose "
                         "(--overwrite)")
    return there == made_by


def difference(there: Mapping[str, Any], made_by: Mapping[str, Any]) -> str:
    was, now = there.get("request", {}), made_by["request"]
    for key in {**was, **now} if was else ():
        before, asked = (one.get(key, ADDED.get(key)) for one in (was, now))
        if before != asked:
            return f"drawn with {key} {before}, not {asked}"
    return "drawn with other weights" if was else "and does not say what drew it"


# --- a worker -----------------------------------------------------------------------------------------------------------------------

class Sampler:
    """Draws squares; it has the model once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = CopGen.from_pretrained(job.model, device=job.device, precision=job.precision)
        rows = given_rows(job, self.model.table)
        check_weights(self.model, [*rows, *wanted_rows(job, rows, self.model.table)])
        self.made_by = made_by(job, self.model)

    def __call__(self, square: Square) -> Outcome:
        job = square.of(self.job)
        if is_finished(job, self.made_by):       # by a worker that ended before it could tell
            return Outcome()
        with warnings.catch_warnings(record=True) as warned, one_thread(self.model.device):
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", CopgenWarning)
            reason, detail = self.drawn(job)
        texts = tuple(str(one.message).rpartition(f"{job.archive}/")[2].partition(": ")[2] or str(one.message) for one in warned)
        return Outcome(reason, detail.replace(f"{job.archive}/", ""), texts)

    def drawn(self, job: Job) -> tuple[str, str]:
        """Draw a square; the reason and the sentence if it is refused."""
        there = found_products(job.archive or Path(), job.cell or "", self.model.table)
        if not there:
            return "not there", f"the archive holds nothing of cell {job.cell}; download it first"
        if lacking := sorted({self.model.table[row].product for row in given_rows(job, self.model.table)} - set(there)):
            return "no product", f"cell {job.cell} has no {', '.join(lacking)}, only {', '.join(there)}; download what is missing"
        try:
            scene = given_scene(job, self.model.table)
        except ValueError as error:
            return REASONS.get(type(error), "refused"), str(error)
        for part in (job.out / scene.name).rglob(".*.part"):             # of a worker that ended while it wrote
            part.unlink(missing_ok=True)
        try:
            draw(replace(job, overwrite=True), self.model, scene)
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise                            # what can't be written here can't be written for the others either
            return "not drawn", str(error)
        return "", ""
