"""How does an archive become latents? Cell by cell: its patches, the moments of what is there, a shard for every few cells.

Without codecs the patches' layers are stored as they are, which is what codecs are trained on.

The folder holds `plan.json` (what is encoded, by what, and which cells each shard has), `shard-00000.safetensors` with its records in
`shard-00000.parquet` beside it, written first, and at the end `index.parquet`, `rejected.parquet` and `index.json`, which makes it a
folder of shards that training opens. A shard depends on its cells, their files and the codecs alone: whoever writes it, it is the same
to the last bit on one kind of processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from copgen import engines, shards
from copgen.bulk.devices import gpus_for, one_thread
from copgen.bulk.patches import Fault, Limits, NotThere, Patch, Which, numbers, read_patches
from copgen.bulk.records import REJECTED, Record, Tally, beside, write_index, write_records
from copgen.codec import KLCodec
from copgen.codecs import full_float32
from copgen.config import dump, load
from copgen.engines import Engine
from copgen.files import sha256, write_json
from copgen.majortom.cells import Offset
from copgen.majortom.cells import cells as cells_on_disk
from copgen.majortom.grid import checked_cell
from copgen.memory import free_memory
from copgen.modalities import Table
from copgen.model import CopGen, pick_device
from copgen.scene import Scene
from copgen.store import codec_record, load_codec
from copgen.training.encode import stored_moments
from copgen.training.sources import Scenes, packed_layers

PLAN = "plan.json"
FEW = 4                                          # patches: a quarter quicker than one, on a CPU
ALIVE = 6                                        # tensors of an encoder's first level that are there at one time
Bad = Literal["reject", "absent"]
Progress = Callable[[int, int], object]          # cells done, cells in all
Layers = Mapping[str, NDArray[Any]]
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Codecs:
    """The rows that are encoded, and the folder of each one's codec, which rows may share; no folders: layers stay layers."""

    table: Table
    folders: Mapping[str, Path]

    @classmethod
    def of(cls, model: CopGen, rows: Sequence[str] | None = None) -> Codecs:
        """A model's codecs, of all its rows or some."""
        table = model.table if rows is None else model.table.subset(model.table.select(rows))
        return cls(table, {row: model.folder / "vae" / model.record.codecs[row] for row in table.images})

    @classmethod
    def under(cls, folder: Path, table: Table, name: Callable[[str], str] = str) -> Codecs:
        """Those in a folder of codecs, as `copgen train-vae` leaves them; `name`: of a row's codec, its own where rows share none."""
        return cls(table, {row: folder / name(row) for row in table.images})

    def loaded(self, load: Callable[[Path], Loaded]) -> dict[str, Loaded]:
        """What `load` makes of each row's folder, once a folder."""
        there = {folder: load(folder) for folder in dict.fromkeys(self.folders.values())}
        return {row: there[folder] for row, folder in self.folders.items()}

    def hashes(self) -> dict[str, str]:
        """The hash of each row's weights; ValueError for one that isn't there."""
        files = [folder / "codec.safetensors" for folder in self.folders.values()]
        if missing := next((file for file in files if not file.is_file()), None):
            raise ValueError(f"{missing}: there is no such file; name the folder of a model, or one with a codec for every row")
        return self.loaded(lambda folder: sha256(folder / "codec.safetensors"))

    def differing(self, made_by: Mapping[str, str]) -> list[Path]:
        """Which of the codecs that made some latents these are not, given by their hashes; the files that should be them."""
        there = self.hashes()
        return [self.folders.get(row, Path(row)) / "codec.safetensors" for row in made_by if there.get(row) != made_by[row]]


@dataclass(frozen=True)
class How:
    """What a patch's latents depend on besides its files and the codecs.

    bad: a patch of which one product is bad is rejected, or kept with this product's rows absent. offset: taken off Sentinel-2's
    digital numbers. batch: patches that a codec sees at once. Its products round otherwise in a batch of another size, but not with
    other patches beside: batches are always of this size, the last of a cell filled up with zeros.
    """

    limits: Limits = field(default_factory=Limits)
    bad: Bad = "reject"
    offset: Offset = 0.0
    batch: int = 0                               # 0: as `batch_for` finds; the folder's plan keeps it


@dataclass(frozen=True)
class Plan:
    """What plan.json says: a folder belongs to one of these."""

    archive: str                                 # the folder's name
    rows: tuple[str, ...]
    footprint: int
    patch: int
    codecs: dict[str, str]
    how: How
    cells_per_shard: int
    cells: tuple[str, ...]
    patches: Which = "all"                       # of each cell

    @property
    def kind(self) -> str:
        """What the shards hold."""
        return "moments" if self.codecs else "layers"

    def tasks(self) -> list[Task]:
        """The shards and the cells of each."""
        firsts = range(0, len(self.cells), self.cells_per_shard)
        return [Task(k, self.cells[first : first + self.cells_per_shard]) for k, first in enumerate(firsts)]


@dataclass(frozen=True)
class Task:
    """One shard."""

    number: int
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"{shards.name_of(self.number)} ({self.cells[0]} to {self.cells[-1]})"


@dataclass(frozen=True)
class Report:
    """What is in the folder, and what this run did."""

    folder: Path
    cells: int
    tally: Tally
    bytes: int
    made: int                                    # shards written now
    kept: int                                    # shards that were there
    patches: int                                 # patches encoded now
    seconds: float


def encode_archive(
    root: Path, codecs: Codecs, out: Path, *, cells: Sequence[str] | None = None, patches: Which = "all", cells_per_shard: int = 16,
    how: How | None = None, device: str = "auto", engine: Engine = "local", workers: int = 1, address: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Encode an archive's cells (None: all of them), or go on with it; shards that are there are kept.

    `patches`: all of a cell, or the one in its middle. Without codecs it is the patches' layers that are stored. `engine`, `workers` and
    `address` are those of `copgen.engines.run`; each worker reads a cell at a time and has the codecs once, on a GPU where there is one.
    On a CPU each works with one thread. Raises ValueError for a folder that holds latents of another plan, for codecs that are not there,
    and where not one patch is good.
    """
    root, out, began = root.absolute(), out.absolute(), time.perf_counter()
    gpus = gpus_for(device, engine)              # refuses a device that there is not, before anything is written
    wanted = planned(root, codecs, cells, patches, cells_per_shard, how or How())
    plan = settled_plan(out, wanted, lambda: batch_for(codecs, device))
    tasks = plan.tasks()
    todo = [task for task in tasks if not is_made(out, task)]
    done, made = len(plan.cells) - sum(len(task.cells) for task in todo), 0
    settings = {"root": root, "out": out, "codecs": codecs, "how": plan.how, "device": device, "patches": plan.patches}
    if progress:
        progress(done, len(plan.cells))
    for task, count in engines.run(todo, Encoder, settings, engine=engine, workers=workers, gpus=gpus, address=address):
        done, made = done + len(task.cells), made + count
        if progress:
            progress(done, len(plan.cells))
    tally = write_index(out, len(tasks), plan.rows, {"archive": plan.archive, "how": dump(plan.how)})
    if not tally.samples:
        raise ValueError(f"{out}: every patch was rejected ({in_words(tally.reasons)}), so there is nothing to train on; "
                         f"{REJECTED} says why of each; mend that and encode into another folder")
    shards.finish(out, [shards.length_of(out, task.number) or 0 for task in tasks], meta_of(plan, tally))
    written = sum((out / shards.name_of(task.number)).stat().st_size for task in tasks)
    return Report(out, len(plan.cells), tally, written, len(todo), len(tasks) - len(todo), made, time.perf_counter() - began)


def planned(root: Path, codecs: Codecs, cells: Sequence[str] | None, patches: Which, cells_per_shard: int, how: How) -> Plan:
    """The plan of what is asked for; ValueError for cells that are none, or an archive without any."""
    if cells_per_shard < 1:
        raise ValueError(f"{cells_per_shard} cells a shard: at least 1 is needed")
    if not root.is_dir():
        raise ValueError(f"{root}: is no folder; name the one that holds Core-S2L2A, Core-S1RTC and so on")
    chosen = tuple(sorted({checked_cell(cell) for cell in cells} if cells is not None else cells_on_disk(root)))
    if not chosen:
        raise ValueError(f"{root}: no cells to encode; download some first (copgen download)")
    table = codecs.table
    return Plan(root.name, table.names, table.footprint, table.patch, codecs.hashes(), how, cells_per_shard, chosen, patches)


def settled_plan(out: Path, plan: Plan, batch: Callable[[], int]) -> Plan:
    """The plan that the folder has, if it is this one, else this one written there. What is left open is as it was, or is chosen."""
    path = out / PLAN
    if not path.exists():
        shards.check_free(out)
        plan = plan if plan.how.batch else replace(plan, how=replace(plan.how, batch=batch()))
        write_json(path, dump(plan))
        return plan
    there = load(Plan, path)
    if not plan.how.batch:
        plan = replace(plan, how=replace(plan.how, batch=there.how.batch))
    if differing := next((one.name for one in fields(Plan) if getattr(there, one.name) != getattr(plan, one.name)), None):
        theirs, ours = (short(getattr(one, differing)) for one in (there, plan))
        raise ValueError(f"{out}: holds latents of another plan, with {differing} {theirs}, not {ours}; choose another folder, "
                         f"or ask for the same")
    return there


def short(value: Any) -> str:
    return f"{len(value)} ({value[0]} to {value[-1]})" if isinstance(value, tuple) else str(value)


def batch_for(codecs: Codecs, device: str) -> int:
    """Patches at once: few on a CPU, which gains little from more; on a GPU a cell's, or what a quarter of its free memory holds.

    Workers elsewhere may have GPUs where this process has none: `cuda` says that they do.
    """
    cell, here = len(numbers(codecs.table)), torch.cuda.is_available()
    if not codecs.folders:
        return 1
    if not here:
        return cell if device.startswith("cuda") else FEW
    if (place := pick_device(device)).type == "cpu":
        return FEW
    configs = {row: codec_record(folder).config for row, folder in codecs.folders.items()}
    each = max(ALIVE * 4 * config.width * (codecs.table.side(row) // config.stem) ** 2 for row, config in configs.items())
    return int(min(max(free_memory(place) // 4 // each, 1), cell))


def is_made(out: Path, task: Task) -> bool:
    """Whether a shard is there and whole, with its records."""
    return beside(out, task.number).is_file() and shards.length_of(out, task.number) is not None


def meta_of(plan: Plan, tally: Tally) -> dict[str, Any]:
    """What index.json says: as the shards of `copgen encode --data`, how the patches were chosen, and what became of them."""
    meta = {"kind": plan.kind, "source": f"archive {plan.archive}", "rows": list(plan.rows), "patch": plan.patch, "codecs": plan.codecs,
            "incomplete": True, "how": dump(plan.how), "cells": len(plan.cells), "having": {row: tally.rows[row] for row in plan.rows},
            "rejected": tally.rejected, "reasons": dict(sorted(tally.reasons.items()))}
    return meta if plan.patches == "all" else meta | {"patches": plan.patches}


def in_words(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))


def encoder_of(folder: Path, device: torch.device) -> KLCodec:
    """A codec without what only decodes: more than half of its weights."""
    return load_codec(folder, "encoder").to(device).requires_grad_(False)


# --- a worker -----------------------------------------------------------------------------------------------------------------------

class Encoder:
    """Writes shards; it has the codecs once. What it returns is how many patches are in the shard."""

    def __init__(self, root: Path, out: Path, codecs: Codecs, how: How, device: str = "auto", patches: Which = "all") -> None:
        self.root, self.out, self.table, self.which = root, out, codecs.table, patches
        self.how = how if how.batch else replace(how, batch=batch_for(codecs, device))
        self.device = pick_device(device)
        self.codecs = codecs.loaded(lambda folder: encoder_of(folder, self.device))

    def __call__(self, task: Task) -> int:
        records: list[Record] = []
        parts: list[dict[str, NDArray[Any]]] = []
        count = 0
        for cell in task.cells:
            patches, arrays = self.encoded(cell)
            parts.append(arrays)
            for patch in patches:
                kept = self.keeps(patch)
                records += self.records(patch, count if kept else None)
                count += kept
        names = list(parts[0])                   # each cell's arrays go as the shard's come: they are large
        whole = {name: np.concatenate([part.pop(name) for part in parts]) for name in names}
        write_records(beside(self.out, task.number), records, shards.digest(whole))
        shards.write_shard(self.out, task.number, whole)
        return count

    def encoded(self, cell: str) -> tuple[list[Patch], dict[str, NDArray[Any]]]:
        """All patches of a cell, and the arrays of those that are kept."""
        patches = self.read(cell)
        with one_thread(self.device), full_float32():
            arrays = self.moments(patches) if self.codecs else self.layers(patches)
        patches = [self.found_finite(patch, {row: array[n] for row, array in arrays.items()}) for n, patch in enumerate(patches)]
        kept = np.array([self.keeps(patch) for patch in patches], bool)
        there = np.array([[row in patch.scene for row in self.table.names] for patch in patches], np.uint8)
        for k, row in enumerate(self.table.names):
            arrays[row][there[:, k] == 0] = 0    # of a product whose other rows turned out bad
        return patches, {name: array[kept] for name, array in {**arrays, shards.PRESENT: there}.items()}

    def read(self, cell: str) -> list[Patch]:
        """A cell's patches; where nothing of it can be read, all of them with that fault."""
        try:
            return read_patches(self.root, cell, self.table, limits=self.how.limits, offset=self.how.offset, which=self.which)
        except ValueError as error:
            reason = "not there" if isinstance(error, NotThere) else "unreadable"
            fault = Fault("all", reason, str(error).replace(f"{self.root}", self.root.name))
            empty = Scene({}, None, cell, self.table)
            return [Patch(cell, number, empty, (fault,), 0.0, ()) for number in numbers(self.table, self.which)]

    def keeps(self, patch: Patch) -> bool:
        return not (patch.faults and self.how.bad == "reject") and any(row in patch.scene for row in self.table.images)

    def layers(self, patches: Sequence[Patch]) -> dict[str, NDArray[Any]]:
        """What the shard holds of all rows without codecs, as all shards of layers do."""
        scenes = Scenes(self.root.name, [patch.scene for patch in patches], self.table)
        arrays = packed_layers(scenes, self.table, range(len(patches)))
        return {row: arrays[row] for row in self.table.names}

    def moments(self, patches: Sequence[Patch]) -> dict[str, NDArray[Any]]:
        return {row: self.stored(row, patches) for row in self.table.names}

    def stored(self, row: str, patches: Sequence[Patch]) -> NDArray[Any]:
        """What the shard holds of one row [patches, ...], zeros where it is absent."""
        scale, (z, height, width), codec = self.table[row].scale, self.table.latent_shape(row), self.codecs.get(row)
        out = np.zeros((len(patches), 2 * z if codec else z, height, width), np.float16 if codec else np.float32)
        where = [n for n, patch in enumerate(patches) if row in patch.scene and self.keeps(patch)]
        for first in range(0, len(where), self.how.batch):
            some = where[first : first + self.how.batch]
            pixels = np.zeros((self.how.batch, *self.table.pixel_shape(row)), np.float32)
            pixels[: len(some)] = [scale.to_model(patches[n].scene[row]) for n in some]
            out[some] = (stored_moments(codec, pixels) if codec else pixels)[: len(some)]
        return out

    def found_finite(self, patch: Patch, arrays: Layers) -> Patch:
        """The patch with a fault of each product whose moments are no numbers."""
        bad = sorted({self.table[row].product for row, array in arrays.items() if not np.isfinite(array).all()})
        if not bad:
            return patch
        faults = (Fault(product, "no moments", f"{patch.scene.name}: its latents hold numbers that 16 bits don't") for product in bad)
        return replace(patch, scene=patch.scene.without(bad), faults=(*patch.faults, *faults))

    def records(self, patch: Patch, row: int | None) -> Iterator[Record]:
        for fault in patch.faults:
            yield Record(patch.cell, patch.number, row=row, product=fault.product, reason=fault.reason, detail=fault.detail)
        if row is None:
            return
        scene = patch.scene
        lat, lon = scene.footprint.centre if scene.footprint else (None, None)
        day = scene["date"][0].item() if "date" in scene else None
        modalities = sum(1 << k for k, name in enumerate(self.table.names) if name in scene)
        yield Record(patch.cell, patch.number, lat, lon, day, row, modalities, patch.no_data, " ".join(patch.warnings) or None)
