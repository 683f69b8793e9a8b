"""`copgen ...`: arguments to calls. Heavy imports are inside the commands, so that --help answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from copgen.console import WIDE, counting, pausing, print_codec_report, print_losses, progress_bar, wide_console

if TYPE_CHECKING:
    from copgen.training.launch import Devices

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Any layers of a place in, many physically plausible Copernicus samples of any others out.\n\n"
                       "Start with `copgen generate --help`; `copgen modalities` lists what can be given and wanted.")

Resume = Annotated[bool, typer.Option("--resume", help="Go on from the folder's newest checkpoint.")]
DeviceCount = Annotated[int, typer.Option("--devices", help="Devices a node: GPUs, or processes of a CPU.")]
Nodes = Annotated[int, typer.Option(help="Nodes, under torchrun or SLURM, which start a process a device.")]
Strategy = Annotated[str, typer.Option(help="On several devices: ddp copies the weights to each, fsdp shares them out.")]
Accelerator = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16, in place of the recipe's.")]
NAMES = "rows, products or released keys, comma-separated; see `copgen modalities`"


def main() -> None:
    """The console script: a wrong request is one sentence on standard error and exit status 2."""
    import warnings

    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        app()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:                     # a path too long, a folder that may not be read
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}; check the path and its permissions", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print("error: the GPU's memory is too small for this batch; lower it with --max-memory, or use --device cpu", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def version(show: bool) -> None:
    if show:
        from copgen import __version__

        print(f"copgen {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def modalities(
    model: Annotated[str | None, typer.Option(help="The table of this model; the released models' if left out.")] = None,
) -> None:
    """The table: every row with its product, bands in channel order, metres per pixel, unit, shape and tokens."""
    from rich.console import Console
    from rich.table import Table as RichTable

    from copgen.modalities import TABLE

    table = TABLE
    if model:
        from copgen.model import CopGen

        table = CopGen.from_pretrained(model).table
    title = f"{table.footprint} m square, {table.sequence_length} tokens ({len(table.rows)} of them times)"
    grid = RichTable(title=title, title_justify="left")
    console = wide_console(Console)
    extra = ("latent", "released key") if console.width >= WIDE else ()
    for heading in ("row", "product", "bands (channel order)", "m/pixel", "unit", "shape", "tokens", *extra):
        grid.add_column(heading, no_wrap=heading != "bands (channel order)")
    for row in table.rows:
        shape, latent = ("x".join(map(str, sizes)) for sizes in (table.layer_shape(row.name), table.latent_shape(row.name)))
        cells = (row.name, row.product, " ".join(row.bands), str(row.resolution or "-"), row.unit, shape, str(table.tokens(row.name)))
        grid.add_row(*cells, *((latent, row.released_as) if extra else ()))
    console.print(grid)


@app.command()
def models() -> None:
    """The models at hand and the released ones: parameters, modalities, licence, and how to get them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable
    from safetensors import SafetensorError

    from copgen import published
    from copgen.model import CopGen, bundled

    grid = RichTable(title_justify="left")
    for heading in ("model", "where", "backbone", "codecs", "modalities", "licence"):
        grid.add_column(heading, overflow="fold")
    local = {folder.parent.name: folder.parent for folder in sorted(published.cache_folder().glob("*/copgen.json"))}
    for where, found in (("bundled", bundled()), ("local", local)):
        for name, folder in found.items():
            try:
                model = CopGen(folder, device="cpu")
                sizes = model.parameters()
            except (ValueError, OSError, SafetensorError) as error:        # the others are listed all the same
                grid.add_row(*map(escape, (name, str(folder), "-", "-", "-", f"broken: {error}")))
                continue
            place = where if where == "bundled" else str(folder)
            grid.add_row(*map(escape, (name, place, f"{sizes['backbone']:,}", f"{sizes['codecs']:,}", str(len(model.table.rows)),
                                       model.record.licence)))
    for name, released in published.MODELS.items():
        if name not in local:
            source = f"released: {released.repository}, fetched when first named" if released.repository else "its files: copgen convert"
            grid.add_row(name, source, f"{released.parameters:,}",
                         f"{published.VAE_PARAMETERS:,}", "12", published.LICENCE)
    wide_console(Console).print(grid)
    print("A folder with copgen.json is a model too: name it wherever a model is asked for. Without a network: copgen convert --help.")


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder for <scene>/sample-000/...; nothing in it is ever deleted.")],
    model: Annotated[str, typer.Option(help="nano, copgen-base, or a model folder (copgen models).")] = "nano",
    input: Annotated[list[str] | None, typer.Option(metavar="PRODUCT=PATH[,key=value...]", help=(
        "A layer to give, repeatable: a GeoTIFF, or a folder of one file a band. Keys: bands=B02:B03:..., unit=linear|dB (radar), "
        "codes=esri|index|worldcover (land cover), offset=1000 (Sentinel-2 of baseline 04.00 and later)."))] = None,
    archive: Annotated[Path | None, typer.Option(help="An archive in Major TOM's layout.")] = None,
    cell: Annotated[str | None, typer.Option(help="The cell to read from it, such as 618U_30L.")] = None,
    given: Annotated[str | None, typer.Option(help=f"What to read from the cell: {NAMES}.")] = None,
    patch: Annotated[str | None, typer.Option(metavar="ROW,COL", help="Another of the cell's 6 x 6 squares; 0,0: north-west.")] = None,
    window: Annotated[str | None, typer.Option(metavar="EASTING,NORTHING", help="The square's left and top, scene's CRS, m.")] = None,
    place: Annotated[str | None, typer.Option(metavar="LAT,LON|none", help="If not the square's centre; none: not given.")] = None,
    date: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD|none", help="The date, if not the files'; none: not given.")] = None,
    offset: Annotated[float, typer.Option(help="To take off an archive's Sentinel-2 DN: 1000 from baseline 04.00 on.")] = 0,
    fill: Annotated[bool, typer.Option("--fill", help="Fill up to 5 % no data from the nearest valid pixels.")] = False,
    want: Annotated[str | None, typer.Option(help=f"What to generate: {NAMES}. Left out: all that is not given.")] = None,
    samples: Annotated[int, typer.Option(help="How many samples.")] = 1,
    seed: Annotated[int, typer.Option(help="Sample k has this seed + k.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Network calls a sample; left out: the solver's own.")] = None,
    solver: Annotated[str, typer.Option(help="default (15 calls), or published: the authors' (50 calls).")] = "default",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32: the backbone's weights. Decoding is always float32.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    absent: Annotated[str, typer.Option(help=(
        "Rows neither given nor wanted: joint (drawn too: samples don't depend on what is wanted), noise or drop (quicker)."))] = "joint",
    posterior: Annotated[str, typer.Option(help="The given layers' latents: mean, or sample (a draw of each seed's own).")] = "mean",
    s1_unit: Annotated[str, typer.Option("--s1-unit", help="Unit of written radar: linear or dB.")] = "linear",
    max_memory: Annotated[str | None, typer.Option(help="What a batch of samples may take, such as 2GB; else half the free.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that this run writes.")] = False,
) -> None:
    """Draw samples of any layers of a square from any others.

    Georeferenced GeoTIFFs in physical units, a contact sheet and a record of the run land in OUT/<scene>/. Nothing given draws
    unconditionally.

    Example: copgen generate --input DEM=dem.tif --input LULC=lulc.tif,codes=index --date 2021-07-23 --want S2L2A,S1RTC
    --samples 8 --out out
    """
    from copgen.job import Job, run

    job = Job(
        out=out, model=model, inputs=tuple(input or ()), archive=archive, cell=cell, given=given,
        patch=pair("--patch", patch, int), window=pair("--window", window, float), place=place, date=date, offset=offset, fill=fill,
        want=want,
        samples=samples, seed=seed, steps=steps, solver=solver, precision=one_of("--precision", precision, "auto", "bf16", "fp32"),
        device=one_of("--device", device, "auto", "cpu", "cuda"), absent=one_of("--absent", absent, "joint", "noise", "drop"),
        posterior=one_of("--posterior", posterior, "mean", "sample"), s1_unit=one_of("--s1-unit", s1_unit, "linear", "dB"),
        max_memory=size("--max-memory", max_memory), overwrite=overwrite, command=tuple(sys.argv[1:]))
    with progress_bar() as bar:
        task = bar.add_task("network calls", total=None)

        def tick(calls: int, of: int, done: int, samples: int) -> None:
            bar.start()
            bar.update(task, completed=calls, total=of, description=f"network calls (sample {min(done + 1, samples)} of {samples})")

        result = run(job, progress=tick, say=lambda text: bar.console.print(text, highlight=False, markup=False, soft_wrap=True))
    print(f"samples: {result.folder}{'/sample-*' if samples > 1 else '/sample-000'}")
    print(f"contact sheet: {result.sheet}")


@app.command()
def convert(
    backbone: Annotated[Path, typer.Option(help="The released backbone, such as 500000_nnet_ema.pth.")],
    vaes: Annotated[Path, typer.Option(help="The folder with the ten released VAEs' folders.")],
    out: Annotated[Path, typer.Option(help="The model folder to make.")],
    heads: Annotated[int | None, typer.Option(help="Attention heads, for sizes that were never released.")] = None,
) -> None:
    """Released weights to a model folder: safetensors and copgen.json. Nothing in the .pth files is run."""
    from copgen.published import convert as convert_files

    print(f"model: {convert_files(backbone, vaes, out, heads=heads)}")


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="Folder for the worlds.")],
    seed: Annotated[int, typer.Option(help="Seed of the first world; world k has this seed + k.")] = 0,
    worlds: Annotated[int, typer.Option(help="How many.")] = 1,
    shards: Annotated[bool, typer.Option("--shards", help="Write shards for training rather than GeoTIFFs.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose table the shards are for.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace GeoTIFFs that this run writes.")] = False,
) -> None:
    """Worlds of a synthetic Earth, all twelve layers each: an instrument and a teaching world, not the Earth."""
    from copgen.modalities import TABLE

    if worlds < 1:
        raise ValueError(f"--worlds {worlds}: at least 1 is needed")
    if not shards:
        from copgen.synthetic import world
        from copgen.writing import save_scene

        for number in range(seed, seed + worlds):
            scene = world(number)
            save_scene(scene, out / scene.name, overwrite=overwrite)
            print(out / scene.name)
        return
    from copgen.shards import write_shards
    from copgen.training.recipe import read_recipe
    from copgen.training.sources import Worlds, meta_of, packed_layers

    table = read_recipe(recipe).modalities if recipe else TABLE
    source = Worlds(seed, seed + worlds, table, workers)
    with counting("worlds") as tick:
        write_shards(out, worlds, lambda numbers: packed_layers(source, table, numbers), per_shard=64,
                     meta=meta_of(source, table), progress=tick)
    print(f"shards: {out}")


@app.command("train-vae")
def train_vae(
    row: Annotated[str, typer.Argument(help="The row to train a codec for.")],
    recipe: Annotated[Path, typer.Option(help="A recipe, such as recipes/nano.toml.")],
    data: Annotated[list[str], typer.Option(help="synthetic:FIRST..LAST, or a folder of layer shards (copgen synthesize --shards); "
                                            "several folders are mixed, each as often as FOLDER:TIMES says.")],
    out: Annotated[Path, typer.Option(help="The run's folder: codec, metrics, checkpoint.")],
    init: Annotated[Path | None, typer.Option(help="A codec's folder to go on from; with train_vae.encoder=kept only its decoder is "
                                              "trained, and its latents stay what they are.")] = None,
    resume: Resume = False,
    devices: DeviceCount = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    accelerator: Accelerator = "auto",
    precision: Precision = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override the recipe, e.g. train_vae.how.steps=100.")] = None,
) -> None:
    """Train one row's codec (VAE): codec.json and codec.safetensors, metrics, previews and checkpoints land in OUT.

    The recipe says which terms of the paper's loss are on: absolute and squared error and KL always, LPIPS where train_vae.perceptual
    names its weights, a PatchGAN from step train_vae.adversarial_from on. recipes/paper-vae.toml has all of them; the bundled model's
    codecs do without the last two. Classes can be learnt by cross entropy (train_vae.reconstruction). The latent scaling factor is
    measured at the end. `copgen codec-report OUT` then tells what the codec loses.

    Example: copgen train-vae dem --recipe recipes/nano.toml --data synthetic:0..2560 --out runs/dem --set train_vae.how.steps=200
    """
    from copgen.store import load_codec
    from copgen.training.recipe import read_recipe
    from copgen.training.sources import open_source
    from copgen.training.vae import train_vae as train

    plan = read_recipe(recipe, (*(set or ()), *at_precision("train_vae", precision)))
    (name,) = exactly_one(plan.modalities.select(row), row)
    with pausing():
        codec = train(name, plan, open_source(data, plan.modalities), out, init=load_codec(init) if init else None, resume=resume,
                      report=print_losses, devices=devices_of(devices, nodes, strategy, accelerator))
    print(f"codec: {out}, latent scaling factor {codec.scaling_factor:.6f}")


@app.command("codec-report")
def codec_report(
    model: Annotated[str, typer.Argument(help=(
        "nano, copgen-base or a model folder (copgen models); a folder of codecs, FOLDER/<row>; or one run of copgen train-vae."))],
    data: Annotated[list[str] | None, typer.Option(help=(
        "Where errors are measured, repeatable: synthetic:FIRST..LAST or a folder of layer shards, of places that were not trained on."))
    ] = None,
    cells: Annotated[list[Path] | None, typer.Option(help=(
        "Real places too, repeatable: a folder of <product>/<cell>.tif as TerraMesh keeps them (radar in dB, land cover as indices)."))
    ] = None,
    fit: Annotated[str, typer.Option(help="Other places to fit the trivial codecs on, as --data.")] = "synthetic:5000000..5000032",
    rows: Annotated[str | None, typer.Option(help=f"Only these: {NAMES}.")] = None,
    most: Annotated[int, typer.Option(help="Places at most, of every --data and of --fit.")] = 128,
    each: Annotated[bool, typer.Option("--each", help="A line for every place, too.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that make worlds.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this file as JSON, too: also each band's.")] = None,
) -> None:
    """What a model's codecs (VAEs) lose: errors of reconstruction in physical units, beside codecs that learnt nothing.

    A codec is the floor under every error of its model. Two trivial ones of the same size show what its learning was worth: as many
    principal components of each block of pixels (8 x 8, all bands jointly) as it has latent channels, and for classes the commonest class
    of each block. They are fitted on other places.

    MAE and RMSE are in digital numbers (Sentinel-2), dB (radar) and metres; PSNR takes reflectances 0..1 as its range and is the mean over
    places; "% of relief" is RMSE over the 5th to 95th percentile of heights, where that is above 100 m; IoU is the mean over the classes
    that the places have.

    Example: copgen codec-report nano --data synthetic:10000000..10000032 --cells terramesh --each
    """
    from copgen.files import check_target, write_json
    from copgen.training.codec_report import codec_report as report_on
    from copgen.training.codec_report import open_codecs, read_cells
    from copgen.training.sources import open_source

    if most < 1:
        raise ValueError(f"--most {most}: at least 1 place is needed")
    if out:
        check_target(out.parent, [out.name], overwrite=True)
    codecs = open_codecs(model, rows)
    table = codecs.table
    places = [*(open_source(text, table, workers) for text in data or ()), *(read_cells(folder, table) for folder in cells or ())]
    if not places:
        raise ValueError("nowhere to measure: name places with --data synthetic:FIRST..LAST or a folder, or real ones with --cells FOLDER")
    others = open_source(fit, table, workers)
    reports = []
    for one in places:
        with counting("rows") as tick:
            reports.append(report_on(codecs, one, others, each=each, most=most, tick=tick))
        print_codec_report(reports[-1])
    if out:
        print(f"report: {write_json(out, reports)}")


@app.command()
def encode(
    recipe: Annotated[Path, typer.Option(help="The recipe of the model.")],
    vaes: Annotated[Path, typer.Option(help="The folder with one trained codec a row: VAES/<row>/codec.safetensors.")],
    data: Annotated[str, typer.Option(help="synthetic:FIRST..LAST, or a folder of layer shards.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards of moments; shards that exist are kept.")],
    workers: Annotated[int, typer.Option(help="Processes that make worlds.")] = 1,
) -> None:
    """Encode samples once for the training of the backbone."""
    from copgen.store import load_codec
    from copgen.training.encode import encode as encode_all
    from copgen.training.recipe import read_recipe
    from copgen.training.sources import open_source

    table = read_recipe(recipe).modalities
    codecs = {row: load_codec(vaes / row) for row in table.images}
    with counting("samples") as tick:
        encode_all(open_source(data, table, workers), codecs, table, out, codec_folder=vaes, progress=tick)
    print(f"latents: {out}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(help="The recipe of the model.")],
    latents: Annotated[list[str], typer.Option(metavar="FOLDER[:TIMES]", help="Shards of moments (copgen encode); several are mixed, "
                                               "each as often as it says.")],
    vaes: Annotated[Path, typer.Option(help="The folder with the codecs that made them.")],
    out: Annotated[Path, typer.Option(help="The run's folder: model/, metrics, checkpoint.")],
    licence: Annotated[str, typer.Option(help="The licence of the weights, for the model folder.")] = "Apache-2.0",
    stop: Annotated[int | None, typer.Option(help="End at this step of the recipe's schedule.")] = None,
    init: Annotated[str | None, typer.Option(help="A model to go on from; what the recipe's backbone has more starts anew.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits.")] = False,
    resume: Resume = False,
    devices: DeviceCount = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    accelerator: Accelerator = "auto",
    precision: Precision = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override the recipe, e.g. train.how.steps=100.")] = None,
) -> None:
    """Train the backbone, and leave a model folder in OUT/model that `copgen generate --model` takes."""
    from copgen.model import CopGen
    from copgen.shards import open_mixed
    from copgen.store import load_codec, save_model
    from copgen.training.backbone import train_backbone
    from copgen.training.encode import check_codecs
    from copgen.training.recipe import read_recipe

    plan = read_recipe(recipe, (*(set or ()), *at_precision("train", precision)))
    table, shards = plan.modalities, open_mixed(latents)
    check_codecs(shards, vaes)
    codecs = {row: load_codec(vaes / row) for row in table.images}
    with pausing():
        network = train_backbone(plan, shards, codecs, out, resume=resume, stop=stop, report=print_losses, say=print,
                                 devices=devices_of(devices, nodes, strategy, accelerator),
                                 init=CopGen.from_pretrained(init).backbone_in("fp32") if init else None)
    save_model(out / "model", plan.name, licence, network, codecs, half=half,
               notes={"data": shards.meta, "samples": len(shards), "steps": min(stop or plan.train.how.steps, plan.train.how.steps),
                      "batch": plan.train.how.batch, **({"init": init} if init else {})})
    print(f"model: {out / 'model'}")


# Arguments


def pair(option: str, text: str | None, kind: Callable[[str], Any]) -> Any:
    """`A,B` -> (A, B)."""
    if text is None:
        return None
    parts = text.split(",")
    try:
        first, second = (kind(part) for part in parts)
    except ValueError:
        raise ValueError(f"{option} {text}: expected two numbers with a comma between them") from None
    return first, second


def one_of(option: str, value: str, *choices: str) -> Any:
    if value not in choices:
        raise ValueError(f"{option} {value}: choose {', '.join(choices)}")
    return value


def at_precision(section: str, precision: str | None) -> tuple[str, ...]:
    """The override of a recipe's precision."""
    return (f"{section}.how.precision={one_of('--precision', precision, 'fp32', 'bf16')}",) if precision else ()


def devices_of(count: int, nodes: int, strategy: str, accelerator: str) -> Devices:
    from copgen.training.launch import Devices

    return Devices(count, nodes, one_of("--strategy", strategy, "auto", "ddp", "fsdp"),
                   one_of("--accelerator", accelerator, "auto", "cpu", "cuda"))


def exactly_one(rows: tuple[str, ...], word: str) -> tuple[str, ...]:
    if len(rows) != 1:
        raise ValueError(f"{word}: these are {len(rows)} rows ({', '.join(rows)}); name one")
    return rows


def size(option: str, text: str | None) -> int | None:
    """`2GB`, `500MB`, `1.5GiB` or bytes -> bytes."""
    if text is None:
        return None
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    number = text.rstrip("BbKkMmGgIi")
    unit = text[len(number) :].upper()
    try:
        return int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"{option} {text}: expected a size such as 2GB or 500MB") from None


if __name__ == "__main__":
    main()
