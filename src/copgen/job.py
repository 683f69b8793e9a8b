"""One generate job: what is given in, samples, contact sheet and record out; everything that can be refused is refused first."""

from __future__ import annotations

import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from copgen import __version__, diffusion
from copgen.call import check_reuse
from copgen.files import check_target, json_bytes, write_all
from copgen.majortom.cells import Offset, read_cell
from copgen.modalities import Modality, Table
from copgen.model import Absent, CopGen, Precision, Progress, check_seeds
from copgen.reading import CopgenWarning, read_scene, tiles_of
from copgen.reading.scenes import NoData
from copgen.scaling import Decibel, EightBit
from copgen.scene import Scene, parse_date, parse_place
from copgen.sheet import contact_sheet, png
from copgen.writing import PictureKind, RadarUnit, file_names, is_picture, scene_files

SHEET, RECORD = "contact_sheet.png", "run.json"
INCIDENTAL = {"out", "model", "inputs", "archive", "cell", "patch", "device", "max_memory", "overwrite", "command"}
# by later versions: not in a request while they say nothing new
ADDED = {"constants": [], "pictures": "png", "quality": "default", "reuse": 1}


@dataclass(frozen=True)
class Job:
    """What `copgen generate` was asked for. Either `inputs`, or `archive` with `cell` and `given`, or nothing: unconditional."""

    out: Path
    model: str = "nano"
    inputs: tuple[str, ...] = ()
    archive: Path | None = None
    cell: str | None = None
    given: str | None = None
    constants: tuple[str, ...] = ()              # PRODUCT=VALUE: layers that are the same everywhere
    patch: tuple[int, int] | None = None
    window: tuple[float, float] | None = None
    place: str | None = None                     # LAT,LON or none
    date: str | None = None                      # YYYY-MM-DD or none
    offset: Offset = 0                           # of Sentinel-2's digital numbers in an archive
    fill: bool = False
    want: str | None = None
    samples: int = 1
    seed: int = 0
    quality: str = "default"
    steps: int | None = None
    solver: str = "default"
    reuse: int = 1
    precision: Precision = "auto"
    device: str = "auto"
    absent: Absent = "joint"
    posterior: Literal["mean", "sample"] = "mean"
    s1_unit: RadarUnit = "linear"
    pictures: PictureKind = "png"                # of thumbnails
    max_memory: int | None = None
    overwrite: bool = False
    command: tuple[str, ...] = field(default=(), compare=False)

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.samples))

    @property
    def request(self) -> dict[str, Any]:
        """What samples depend on besides the ground and the weights, as run.json has it: all but where things are and what computes."""
        asked: dict[str, Any] = json.loads(json_bytes({key: value for key, value in asdict(self).items() if key not in INCIDENTAL}))
        return {key: value for key, value in asked.items() if key not in ADDED or value != ADDED[key]}


@dataclass(frozen=True)
class Result:
    """What a job left on disk."""

    folder: Path
    sheet: Path
    samples: list[Path]
    given: Scene
    scenes: list[Scene]
    record: dict[str, Any]


def run(job: Job, *, progress: Progress | None = None, say: Callable[[str], object] = lambda _: None) -> Result:
    """Read, generate and write; ValueError with one sentence for anything that is wrong, and then nothing was written."""
    check_settings(job)
    model = CopGen.from_pretrained(job.model, device=job.device, precision=job.precision)
    return draw(job, model, given_scene(job, model.table), progress=progress, say=say)


def run_tiles(job: Job, *, progress: Progress | None = None, say: Callable[[str], object] = lambda _: None) -> Iterator[Result]:
    """The same at every tile of the inputs, each in a folder of its own; one that lacks data is left out with a warning.

    Nothing is drawn where another one is refused. Tiles are drawn as results are asked for: of a large file they don't fit into memory.
    """
    check_settings(job)
    if not job.inputs or job.patch or job.window:
        raise ValueError("--tiles divides what --input gives, without --patch or --window, which name one square; for those of an archive "
                         "take --cells and --patches all")
    model = CopGen.from_pretrained(job.model, device=job.device, precision=job.precision)
    scenes = [scene for tile in tiles_of(job.inputs, table=model.table) if (scene := given_of_tile(job, tile, model.table))]
    if not scenes:
        raise ValueError(f"--tiles: every tile of {', '.join(job.inputs)} lacks data; give another file, or --fill small gaps")
    for scene in scenes:
        target(job, model, scene)
    say(f"tiles: {len(scenes)}")
    return (draw(job, model, scene, progress=progress and partial(shifted, progress, k, len(scenes), job.samples),
                 say=(lambda _: None) if k else say) for k, scene in enumerate(scenes))


def given_of_tile(job: Job, tile: tuple[int, int], table: Table) -> Scene | None:
    """What is given of a tile; None, with a warning, where it has no data."""
    try:
        return given_scene(replace(job, patch=tile), table)
    except NoData as error:
        warnings.warn(f"tile {tile[0]},{tile[1]} is left out: {error}", CopgenWarning, stacklevel=3)
        return None


def shifted(progress: Progress, before: int, tiles: int, samples: int, calls: int, of: int, done: int, _: int) -> None:
    """From calls and samples of one tile to those of all of them."""
    progress(before * of + calls, tiles * of, before * samples + done, tiles * samples)


def draw(
    job: Job, model: CopGen, scene: Scene, *, progress: Progress | None = None, say: Callable[[str], object] = lambda _: None,
) -> Result:
    """The rest of a job, once the model is there and what is given has been read."""
    folder, wanted = target(job, model, scene)
    began = time.perf_counter()
    rows = {*scene.layers, *wanted}
    with ThreadPoolExecutor(1) as beside:        # hashes for run.json: a second of one core for a large model
        beside.submit(model.weights_sha256, rows)
        check_weights(model, rows)
        undated = "date" in model.table.by_name and job.date is None and not {"date"} & rows
        unknown = "; date unknown (state it with --date)" if undated else ""
        say(f"given: {', '.join(scene.layers) or 'nothing'}; wanted: {', '.join(wanted)}{unknown if scene.layers else ''}")
        scenes = model.generate(scene, wanted, seeds=job.seeds, quality=job.quality, steps=job.steps, solver=job.solver, absent=job.absent,
                                posterior=job.posterior, reuse=job.reuse, max_memory=job.max_memory, progress=progress)
    seconds = time.perf_counter() - began
    record = record_of(job, model, scene, scenes, wanted, seconds)
    return write(job, scene, scenes, folder, record)


def target(job: Job, model: CopGen, scene: Scene) -> tuple[Path, tuple[str, ...]]:
    """The folder of a scene's samples and the rows that are drawn there; ValueError for what could not be drawn or written."""
    wanted = wanted_rows(job, scene, model.table)
    folder = job.out / scene.name
    check_target(folder, [SHEET, RECORD], overwrite=job.overwrite)
    writes = file_names(model.table, wanted, grounded=scene.footprint is not None, pictures=job.pictures)
    for number in range(job.samples):
        check_target(folder / sample_name(number), writes, overwrite=job.overwrite)
    warn_of_others(folder, {folder / sample_name(number) / name for number in range(job.samples) for name in writes})
    return folder, wanted


def warn_of_others(folder: Path, writes: set[Path]) -> None:
    """Say which samples of an earlier run will lie beside the new ones: nothing is ever deleted."""
    others = [path for path in sorted(folder.glob("sample-*/*")) if path not in writes]
    if others:
        warnings.warn(f"{folder}: {len(others)} files of an earlier run stay beside the new ones, such as {others[0].relative_to(folder)}, "
                      "and run.json will not speak of them; choose another --out to keep runs apart", CopgenWarning, stacklevel=4)


def check_settings(job: Job) -> None:
    """What needs no file and no network to be refused."""
    if job.samples < 1:
        raise ValueError(f"--samples {job.samples}: at least 1 is needed")
    if job.steps is not None and job.steps < 1:
        raise ValueError(f"--steps {job.steps}: at least 1 network call is needed")
    check_seeds([job.seed])
    if job.solver not in diffusion.SOLVERS:
        raise ValueError(f"--solver {job.solver}: there are {', '.join(diffusion.SOLVERS)}")
    diffusion.way(job.quality, job.solver, job.steps)
    check_reuse(job.reuse)
    if job.pictures not in get_args(PictureKind):
        raise ValueError(f"--pictures {job.pictures}: there are {', '.join(get_args(PictureKind))}")
    if job.place not in (None, "none"):
        parse_place(str(job.place))
    if job.date not in (None, "none"):
        parse_date(str(job.date))
    if (job.archive is None) != (job.cell is None):
        raise ValueError("--archive ROOT and --cell NAME belong together: give both or neither")
    if job.archive is not None and job.inputs:
        raise ValueError("--input and --archive: give layers one way or the other, not both")
    if job.archive is not None and not job.given:
        raise ValueError("--archive needs --given: the products to read from the cell, such as --given DEM,S1RTC")
    if job.want is not None and not job.want.strip(" ,"):
        raise ValueError(f"--want {job.want!r}: names nothing; name products or rows, or leave it out for all that is not given")
    if job.window is not None and not (job.inputs or job.archive):
        raise ValueError("--window chooses a square from --input or --archive, and neither is there; leave it out")
    if job.archive is None and job.offset:
        raise ValueError("--offset is for an archive; with --input write S2L1C=PATH,offset=1000")
    if job.archive is None and job.given:
        raise ValueError("--given chooses from an archive; with --input every layer named is given")
    if job.patch is not None and not (job.inputs or job.archive):
        raise ValueError("--patch chooses a square from --input or --archive, and neither is there; leave it out")


def check_weights(model: CopGen, rows: Iterable[str]) -> None:
    """What is damaged is refused now, not after the drawing."""
    model.check(rows)


def given_scene(job: Job, table: Table) -> Scene:
    """The given layers on one square; place and date among them where they are known, unless they are wanted or `none`."""
    scene, constants = read_given(job, table), [constant(text, table) for text in job.constants]
    layers = {row: layer for _, some in constants for row, layer in some.items()}
    if len(layers) < sum(len(some) for _, some in constants):
        raise ValueError(f"--constant {', '.join(job.constants)}: a layer is named twice; leave one of the two out")
    if both := [row for row in layers if row in scene]:
        raise ValueError(f"--constant: {', '.join(both)} is given by a file, too; leave one of the two out")
    if not layers:
        return scene
    named = replace(scene, name="-".join([*(() if scene.name == "unconditional" else (scene.name,)), *(name for name, _ in constants)]))
    return named.with_layers({row: {**scene.layers, **layers}[row] for row in table.names if row in scene or row in layers},
                             constants=list(job.constants))


def constant(text: str, table: Table) -> tuple[str, dict[str, np.ndarray]]:
    """`LULC=trees` or `DEM=250` -> a name for a folder, and layers that are the same everywhere; ValueError that says what is wrong."""
    product, sign, value = text.partition("=")
    rows = [table[row] for row in table.select(product)] if sign else []
    if not rows or not all(row.is_image for row in rows):
        raise ValueError(f"--constant {text}: takes PRODUCT=VALUE for a layer with pixels, such as DEM=250")
    layers = {row.name: np.full(table.layer_shape(row.name), constant_value(text, value, row)) for row in rows}
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"{product}-{value}"), layers


def constant_value(text: str, value: str, row: Modality) -> float:
    """A class by its name or code, any other layer by a number in its unit."""
    if row.legend and value in row.legend.names:
        return row.legend.codes[row.legend.names.index(value)]
    levels = row.legend.codes if row.legend else range(256) if isinstance(row.scale, EightBit) else None
    try:
        number = float(value)
        if abs(number) <= float(np.finfo(np.float32).max) if levels is None else number in levels:
            return number
    except ValueError:
        pass
    choices = ", ".join(f"{name} ({code})" for name, code in zip(row.legend.names, row.legend.codes, strict=True)) if row.legend else ""
    takes = f"one of {choices}" if choices else f"a number in {row.unit}" if levels is None else "a brightness, a whole number of 0 to 255"
    raise ValueError(f"--constant {text}: {row.name} takes {takes}")


def read_given(job: Job, table: Table) -> Scene:
    """What files and options say of the square."""
    wanted = table.select(job.want) if job.want else ()
    place, date = stated("place", job.place, wanted, table), stated("date", job.date, wanted, table)
    if job.archive is not None and job.cell is not None:
        rows = table.select(str(job.given))
        return read_cell(job.archive, job.cell, given=[row for row in rows if table[row].is_image], table=table, patch=job.patch,
                         window=job.window, place=place, date=date, fill=job.fill, offset=job.offset)
    if job.inputs:
        return read_scene(job.inputs, table=table, window=job.window, tile=job.patch, place=place, date=date, fill=job.fill)
    vectors = {"place": (place, parse_place), "date": (date, parse_date)}
    layers = {row: parse(text) for row, (text, parse) in vectors.items() if text not in (None, "none")}
    return Scene(layers, table=table, name="-and-".join(layers) or "unconditional")


def stated(row: str, value: str | None, wanted: Sequence[str], table: Table) -> str | None:
    """What the user says of place or date: the value, `none`, or None for what the files say; wanted means none."""
    if value not in (None, "none") and row not in table.by_name:
        raise ValueError(f"--{row} {value}: the model has no row {row}; leave it out")
    if value not in (None, "none") and row in wanted:
        raise ValueError(f"{row}: both given (--{row} {value}) and wanted; leave it out of one of the two")
    return "none" if row in wanted else value


def wanted_rows(job: Job, given: Scene | Sequence[str], table: Table) -> tuple[str, ...]:
    rows = table.select(job.want) if job.want else tuple(row for row in table.names if row not in given)
    if both := [row for row in rows if row in given]:
        raise ValueError(f"{', '.join(both)}: both given and wanted; leave it out of one of the two")
    if not rows:
        raise ValueError("nothing is left to generate: every row is given; name fewer inputs")
    if job.pictures != "png" and not any(is_picture(table[row]) for row in rows):
        raise ValueError(f"--pictures {job.pictures}: the model draws layers, not pictures; leave it out")
    if job.s1_unit != "linear" and not any(isinstance(row.scale, Decibel) for row in table.rows):
        raise ValueError(f"--s1-unit {job.s1_unit}: the model draws no radar power; leave it out")
    return rows


def sample_name(number: int) -> str:
    return f"sample-{number:03d}"


def write(job: Job, scene: Scene, scenes: Sequence[Scene], folder: Path, record: dict[str, Any]) -> Result:
    """All files of the job are made in memory, then put on disk together, each whole."""
    files: dict[Path, bytes] = {}
    for number, one in enumerate(scenes):
        for name, data in scene_files(one, s1_unit=job.s1_unit, given=scene, pictures=job.pictures).items():
            files[folder / sample_name(number) / name] = data
    files[folder / SHEET] = png(contact_sheet(scene, scenes))
    files[folder / RECORD] = json_bytes(record)
    write_all(files, overwrite=job.overwrite)
    return Result(folder, folder / SHEET, [folder / sample_name(k) for k in range(len(scenes))], scene, list(scenes), record)


def record_of(job: Job, model: CopGen, scene: Scene, scenes: Sequence[Scene], wanted: Sequence[str], seconds: float) -> dict[str, Any]:
    """run.json: enough to draw the same samples again, and to know what they were drawn from."""
    import rasterio
    import torch

    square = scene.footprint
    notes = scenes[0].notes
    return {
        "copgen": __version__,
        "command": list(job.command),
        "request": job.request,
        "model": {"name": model.name, "licence": model.record.licence, "sha256": model.weights_sha256([*scene.layers, *wanted])},
        "scene": scene.name,
        "given": {row: layer_note(scene, row) for row in scene.layers},
        "wanted": list(wanted),
        "sources": {key: value for key, value in scene.notes.items() if key != "square"},
        "square": None if square is None else {"crs": square.crs.to_string(), "left": square.left, "top": square.top, "side": square.side},
        "samples": [{"folder": sample_name(k), "seed": one.notes["seed"]} for k, one in enumerate(scenes)],
        "quality": notes["quality"], "solver": notes["solver"], "calls": notes["steps"], "precision": notes["precision"],
        "codecs": notes["codecs"], "device": str(model.device),
        "absent": job.absent, "posterior": job.posterior, "reuse": job.reuse, "s1_unit": job.s1_unit,
        "seconds": round(seconds, 2),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                     "rasterio": rasterio.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count()},
    }


def layer_note(scene: Scene, row: str) -> Any:
    layer = scene[row]
    return [float(x) for x in layer] if row == "place" else str(layer[0]) if row == "date" else list(layer.shape)
