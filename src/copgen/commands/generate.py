"""Samples of any layers from any others: `generate`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen.commands.options import (
    NAMES,
    Address,
    ArchiveOffset,
    CellsFile,
    Device,
    EngineName,
    QualityName,
    listed,
    offset_in,
    one_of,
    pair,
    size,
)
from copgen.console import progress_bar, stages

if TYPE_CHECKING:
    from copgen.job import Job

Inputs = Annotated[list[str] | None, typer.Option(metavar="PRODUCT=PATH[,key=value...]", help=(
    "A layer to give, repeatable: a GeoTIFF, a folder of one file a band, or (model of thumbnails) a PNG, WebP or JPEG. Keys: "
    "bands=B02:B03:..., unit=linear|dB (radar), codes=esri|index|worldcover (land cover), offset=1000 (Sentinel-2 of baseline 04.00 "
    "and later), as=thumbnail|layer (what a file of 8 bits holds)."))]
AbsentRows = Annotated[str, typer.Option(help=(
    "Rows neither given nor wanted: joint (drawn too: samples don't depend on what is wanted), noise or drop (quicker)."))]
Reuse = Annotated[int, typer.Option(metavar="N", help=(
    "Only every N-th network call looks at what is given anew: an approximation, quicker the more is given; with nano, 3 loses little."))]
PrecisionName = Annotated[str, typer.Option("--precision", help=(
    "auto, bf16 or fp32: the network's numbers; or int8: 8 bits in most of its products, quicker (CPUs with AMX)."))]
MaxMemory = Annotated[str | None, typer.Option(metavar="SIZE", help=(
    "What weights and work may take together beside Python, such as 2GB; else half of what is free for a batch of samples."))]


def generate(
    out: Annotated[Path, typer.Option(help="Folder for <scene>/sample-000/...; nothing in it is ever deleted.")],
    model: Annotated[str, typer.Option(help="A bundled or released model, or a model folder (copgen models).")] = "nano",
    input: Inputs = None,
    archive: Annotated[Path | None, typer.Option(help="An archive in Major TOM's layout.")] = None,
    cell: Annotated[str | None, typer.Option(help="The cell to read from it, such as 618U_30L.")] = None,
    given: Annotated[str | None, typer.Option(help=f"What to read from the cell: {NAMES}.")] = None,
    constant: Annotated[list[str] | None, typer.Option(metavar="PRODUCT=VALUE", help="A layer alike everywhere: LULC=trees.")] = None,
    patch: Annotated[str | None, typer.Option(metavar="ROW,COL", help="Another square of the cell or input; 0,0: north-west.")] = None,
    window: Annotated[str | None, typer.Option(metavar="EASTING,NORTHING", help="The square's left and top, scene's CRS, m.")] = None,
    tiles: Annotated[bool, typer.Option("--tiles", help="All squares of the input instead, each with its own folder.")] = False,
    place: Annotated[str | None, typer.Option(metavar="LAT,LON|none", help="If not the square's centre; none: not given.")] = None,
    date: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD|none", help="The date, if not the files'; none: not given.")] = None,
    offset: ArchiveOffset = "0",
    cells: Annotated[str | None, typer.Option(help="Or many cells, comma-separated, or `all` that the archive holds.")] = None,
    cells_file: CellsFile = None,
    patches: Annotated[str, typer.Option(help="Of many cells: the square in the middle of each, or all.")] = "middle",
    engine: EngineName = "local",
    devices: Annotated[int, typer.Option(help="Of many cells: workers, each with its model: GPUs, or processes of a CPU.")] = 1,
    address: Address = None,
    fill: Annotated[bool, typer.Option("--fill", help="Fill up to 5 % no data from the nearest valid pixels.")] = False,
    want: Annotated[str | None, typer.Option(help=f"What to generate: {NAMES}. Left out: all that is not given.")] = None,
    samples: Annotated[int, typer.Option(help="How many samples.")] = 1,
    seed: Annotated[int, typer.Option(help="Sample k has this seed + k.")] = 0,
    quality: QualityName = "default",
    steps: Annotated[int | None, typer.Option(help="Network calls a sample, in place of a quality's.")] = None,
    solver: Annotated[str, typer.Option(help="default, every quality's, or published: the authors' (50 calls).")] = "default",
    reuse: Reuse = 1,
    precision: PrecisionName = "auto",
    device: Device = "auto",
    absent: AbsentRows = "joint",
    posterior: Annotated[str, typer.Option(help="The given layers' latents: mean, or sample (a draw of each seed's own).")] = "mean",
    s1_unit: Annotated[str, typer.Option("--s1-unit", help="Unit of written radar: linear or dB.")] = "linear",
    pictures: Annotated[str, typer.Option(help="Thumbnails as png, webp (both lossless) or jpeg, beside GeoTIFFs.")] = "png",
    max_memory: MaxMemory = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that this run writes.")] = False,
) -> None:
    """Draw samples of any layers of a square from any others.

    Georeferenced GeoTIFFs in physical units, a contact sheet and a record of the run land in OUT/<scene>/. Nothing given: unconditional.
    A model of thumbnails takes pictures, or draws them from layers, and writes pictures, georeferenced where the ground is known.

    Of many cells (--archive with --cells or --cells-file), each square has its own folder; what is finished is kept when the command is run
    again, what is refused is told in OUT/failed.jsonl, and a sample is the same whatever the engine and the number of workers.

    Example: copgen generate --input DEM=dem.tif --input LULC=lulc.tif,codes=index --date 2021-07-23 --want S2L2A,S1RTC --out out
    Example: copgen generate --model cop-gen-beta --input S1RTC=s1.webp --want DEM,S2L2A --samples 4 --out out
    """
    from copgen.job import Job

    job = Job(
        out=out, model=model, inputs=tuple(input or ()), archive=archive, cell=cell, given=given, constants=tuple(constant or ()),
        patch=pair("--patch", patch, int), window=pair("--window", window, float), place=place, date=date, offset=offset_in(offset),
        fill=fill, want=want, samples=samples, seed=seed, quality=quality, steps=steps, solver=solver, reuse=reuse,
        max_memory=size("--max-memory", max_memory), precision=one_of("--precision", precision, "auto", "bf16", "fp32", "int8"),
        device=one_of("--device", device, "auto", "cpu", "cuda"), absent=one_of("--absent", absent, "joint", "noise", "drop"),
        posterior=one_of("--posterior", posterior, "mean", "sample"), s1_unit=one_of("--s1-unit", s1_unit, "linear", "dB"),
        pictures=one_of("--pictures", pictures, "png", "webp", "jpeg"), overwrite=overwrite, command=tuple(sys.argv[1:]))
    for_many = (patches, engine, devices, address)
    many(job, tiles, cells, cells_file, for_many) if cells is not None or cells_file is not None else one(job, tiles, for_many)


def one(job: Job, tiles: bool, for_many: tuple[str, str, int, str | None]) -> None:
    """Samples of one square, or of every tile of the inputs."""
    from copgen.job import run, run_tiles

    if for_many != ("middle", "local", 1, None):
        raise ValueError("--patches, --engine, --devices and --address are for many cells; name them with --cells, or leave these out")
    with progress_bar() as bar:
        task = bar.add_task("network calls", total=None)

        def tick(calls: int, of: int, done: int, samples: int) -> None:
            bar.start()
            bar.update(task, completed=calls, total=of, description=f"network calls (sample {min(done + 1, samples)} of {samples})")

        def say(text: str) -> None:
            bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

        results = run_tiles(job, progress=tick, say=say) if tiles else [run(job, progress=tick, say=say)]
        made = [(result.folder, result.sheet) for result in results]
    for folder, sheet in made:
        print(f"samples: {folder}{'/sample-*' if job.samples > 1 else '/sample-000'}")
        print(f"contact sheet: {sheet}")


def many(job: Job, tiles: bool, cells: str | None, cells_file: Path | None, for_many: tuple[str, str, int, str | None]) -> None:
    """Squares of many cells."""
    from copgen.bulk.generate import Bulk, generate
    from copgen.majortom.splits import read_cells

    if tiles:
        raise ValueError("--tiles divides what --input gives; of many cells take --patches all")
    if cells is not None and cells_file is not None:
        raise ValueError("--cells and --cells-file: choose one of the two")
    patches, engine, devices, address = for_many
    which, how = one_of("--patches", patches, "middle", "all"), one_of("--engine", engine, "local", "ray")
    named = read_cells(cells_file) if cells_file else None if cells == "all" else listed(str(cells))
    with stages() as (tick, say):
        report = generate(Bulk(job, named, which, how, devices, address), progress=partial(tick, "squares"), say=say)
    for text, count in report.warned.items():
        print(f"warning: {count} squares: {text}", file=sys.stderr)
    print(f"{report.squares} squares: {report.drawn} drawn, {report.kept} kept, {sum(report.refused.values())} refused "
          f"in {report.seconds:.1f} s")
    for reason, count in report.refused.items():
        print(f"refused, {reason}: {count} (see {report.failed})")
    print(f"samples: {report.folder}/*/sample-*")
