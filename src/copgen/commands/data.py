"""From an archive, shards of layers or a synthetic Earth to what is trained on: `synthesize`, `encode`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen.commands.options import Address, ArchiveOffset, CellsFile, Device, EngineName, codec_folder, listed, offset_in, one_of
from copgen.console import counting, print_encoding

if TYPE_CHECKING:
    from copgen.bulk.encode import Codecs


def synthesize(
    out: Annotated[Path, typer.Option(help="Folder for the worlds, or the archive.")],
    seed: Annotated[int, typer.Option(help="Seed of the first world; world k has this seed + k.")] = 0,
    worlds: Annotated[int, typer.Option(help="How many.")] = 1,
    shards: Annotated[bool, typer.Option("--shards", help="Write shards for training rather than GeoTIFFs.")] = False,
    archive: Annotated[bool, typer.Option("--archive", help="Write whole cells of 10.68 km in Major TOM's layout; cells that are there are "
                                          "kept.")] = False,
    cells: Annotated[str | None, typer.Option(help="With --archive: these cells, comma-separated, instead of worlds at their own places.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose table the shards are for.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that make shards.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace GeoTIFFs that this run writes.")] = False,
) -> None:
    """Worlds of a synthetic Earth, all twelve layers each: an instrument and a teaching world, not the Earth."""
    if worlds < 1:
        raise ValueError(f"--worlds {worlds}: at least 1 is needed")
    if archive and shards:
        raise ValueError("--archive and --shards: choose one of the two; cells of an archive become shards by copgen encode")
    if cells and not archive:
        raise ValueError(f"--cells {cells}: only an archive has cells; use --archive, too")
    if archive:
        synthesize_archive(out, listed(cells) if cells else (), seed, worlds, overwrite)
    elif shards:
        synthesize_shards(out, seed, worlds, recipe, workers)
    else:
        from copgen.synthetic import world
        from copgen.writing import save_scene

        for number in range(seed, seed + worlds):
            scene = world(number)
            save_scene(scene, out / scene.name, overwrite=overwrite)
            print(out / scene.name)


def synthesize_archive(out: Path, cells: tuple[str, ...], seed: int, worlds: int, overwrite: bool) -> None:
    from copgen.synthetic.cells import write_cells

    count = len(cells) or worlds
    with counting("cells") as tick:
        seeds = () if cells else range(seed, seed + worlds)
        for done, _ in enumerate(write_cells(out, cells, seeds=seeds, seed=seed, overwrite=overwrite), 1):
            tick(done, count)
    print(f"archive: {out}")


def synthesize_shards(out: Path, seed: int, worlds: int, recipe: Path | None, workers: int) -> None:
    from copgen.modalities import TABLE
    from copgen.shards import write_shards
    from copgen.training.recipe import read_recipe
    from copgen.training.sources import Worlds, meta_of, packed_layers

    table = read_recipe(recipe).modalities if recipe else TABLE
    source = Worlds(seed, seed + worlds, table, workers)
    with counting("worlds") as tick:
        write_shards(out, worlds, lambda numbers: packed_layers(source, table, numbers), per_shard=64,
                     meta=meta_of(source, table), progress=tick)
    print(f"shards: {out}")


def encode(
    out: Annotated[Path, typer.Option(help="Folder for the shards of moments; shards that exist are kept.")],
    archive: Annotated[Path | None, typer.Option(help="An archive in Major TOM's layout: all patches of its cells.")] = None,
    data: Annotated[str | None, typer.Option(help="Or synthetic:FIRST..LAST, or a folder of layer shards.")] = None,
    model: Annotated[str | None, typer.Option(help="The model whose codecs encode: nano, copgen-base or a model folder.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Or the recipe of a model in the making, with --vaes.")] = None,
    vaes: Annotated[str | None, typer.Option(help="The folder with its trained codecs: VAES/<row>/codec.safetensors.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Of an archive: its layers as they are, for train-vae --data; the table is "
                                         "that of --model or --recipe.")] = False,
    patches: Annotated[str, typer.Option(help="Of each cell of an archive: all, or the one in its middle.")] = "all",
    cells: Annotated[str | None, typer.Option(help="Only these cells, comma-separated.")] = None,
    cells_file: CellsFile = None,
    no_data: Annotated[float, typer.Option(help="Share of a layer that may lack data and is filled from the nearest pixels; at most 0.05.")
    ] = 0.0,
    unlabelled: Annotated[float, typer.Option(help="From this share of unlabelled land cover on, a patch is bad.")] = 0.05,
    bad: Annotated[str, typer.Option(help="reject patches of which a product is bad, or keep them with this product absent.")] = "reject",
    offset: ArchiveOffset = "0",
    cells_per_shard: Annotated[int, typer.Option(help="Cells whose patches make one shard.")] = 16,
    engine: EngineName = "local",
    devices: Annotated[int, typer.Option(help="Workers, each with its codecs: GPUs, or processes of a CPU.")] = 1,
    address: Address = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Processes that make the worlds of --data synthetic:...")] = 1,
) -> None:
    """Encode once what the backbone is trained on: cells -> patches -> moments of every row that is there, in shards.

    Of an archive, each cell has 6 x 6 patches of 1920 m, or 4 x 4 of its thumbnails. Bad ones are counted by reason and listed in
    rejected.parquet; the others are in index.parquet (GeoParquet) with their true centre, date, shard and row. What was interrupted goes
    on where it was; `copgen latents` looks into the result.

    Example: copgen encode --archive archive --cells-file split/train.txt --model nano --out latents --devices 2
    """
    if (archive is None) == (data is None):
        raise ValueError("what is to be encoded? Say it by one of --archive and --data")
    if archive is None and (cells is not None or cells_file or layers or patches != "all"):
        raise ValueError("--cells, --cells-file, --patches and --layers: only an archive has cells; use --archive")
    codecs = codecs_of(model, recipe, vaes, layers)
    if archive is None:
        encode_data(str(data), codecs, out, workers)
        return
    from copgen.bulk.encode import How, encode_archive
    from copgen.bulk.patches import Limits
    from copgen.majortom.splits import read_cells

    if cells is not None and cells_file:
        raise ValueError("--cells and --cells-file: choose one of the two")
    if workers != 1:
        raise ValueError(f"--workers {workers}: they make worlds; the processes that encode an archive are --devices {workers}")
    how = How(Limits(no_data, unlabelled), one_of("--bad", bad, "reject", "absent"), offset_in(offset))
    with counting("cells") as tick:
        report = encode_archive(
            archive, codecs, out, cells=read_cells(cells_file) if cells_file else None if cells is None else listed(cells),
            patches=one_of("--patches", patches, "all", "middle"), how=how, cells_per_shard=cells_per_shard, workers=devices,
            device=one_of("--device", device, "auto", "cpu", "cuda"), engine=one_of("--engine", engine, "local", "ray"), address=address,
            progress=tick)
    print_encoding(report)


def codecs_of(model: str | None, recipe: Path | None, vaes: str | None, layers: bool) -> Codecs:
    """The codecs that encode; where layers stay as they are, a table without any."""
    from copgen.bulk.encode import Codecs
    from copgen.model import CopGen
    from copgen.training.recipe import read_recipe

    if (model is None) == (recipe is None) or (vaes is None) == (recipe is not None and not layers):
        raise ValueError("which layers? Say it by --model or by --recipe, without --vaes" if layers else
                         "which codecs? Say it by --model, or by --recipe and --vaes")
    if recipe is None:
        codecs = Codecs.of(CopGen.from_pretrained(str(model), device="cpu"))
        return Codecs(codecs.table, {}) if layers else codecs
    plan = read_recipe(recipe)
    return Codecs(plan.modalities, {}) if layers else Codecs.under(codec_folder(str(vaes)), plan.modalities, plan.codec_name)


def encode_data(data: str, codecs: Codecs, out: Path, workers: int) -> None:
    from copgen.store import load_codec
    from copgen.training.encode import encode as encode_all
    from copgen.training.sources import open_source

    with counting("samples") as tick:
        encode_all(open_source(data, codecs.table, workers), codecs.loaded(load_codec), codecs.table, out, made_by=codecs.hashes(),
                   progress=tick)
    print(f"latents: {out}")
