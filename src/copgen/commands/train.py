"""Codecs and the backbone: `train-vae`, `codec-report`, `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen.commands.options import (
    NAMES,
    Accelerator,
    DeviceCount,
    Nodes,
    Precision,
    Resume,
    Strategy,
    Workers,
    at_precision,
    codec_folder,
    devices_of,
    exactly_one,
)
from copgen.console import counting, pausing, print_codec_report, print_losses


def train_vae(
    row: Annotated[str, typer.Argument(help="The row to train a codec for, or the codec that a recipe's rows share.")],
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
    workers: Workers = 0,
    precision: Precision = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override the recipe, e.g. train_vae.how.steps=100.")] = None,
) -> None:
    """Train one row's codec (VAE), or the one that rows share: codec.json and codec.safetensors, metrics, checkpoints land in OUT.

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
    name = row if plan.coded_by(row) else plan.codec_name(*exactly_one(plan.modalities.select(row), row))
    with pausing():
        codec = train(name, plan, open_source(data, plan.modalities), out, init=load_codec(init) if init else None, workers=workers,
                      resume=resume,
                      report=print_losses, devices=devices_of(devices, nodes, strategy, accelerator))
    print(f"codec: {out}, latent scaling factor {codec.scaling_factor:.6f}")


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


def train(
    recipe: Annotated[Path, typer.Option(help="The recipe of the model.")],
    latents: Annotated[list[str], typer.Option(metavar="FOLDER[:TIMES]", help="Shards of moments (copgen encode); several are mixed, "
                                               "each as often as it says.")],
    vaes: Annotated[str, typer.Option(help="The folder with the codecs that made them, or the model that has them.")],
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
    workers: Workers = 0,
    precision: Precision = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override the recipe, e.g. train.how.steps=100.")] = None,
) -> None:
    """Train the backbone, and leave a model folder in OUT/model that `copgen generate --model` takes."""
    from copgen.model import CopGen
    from copgen.shards import open_mixed
    from copgen.store import save_model
    from copgen.training.backbone import train_backbone
    from copgen.training.encode import check_codecs, codecs_of
    from copgen.training.recipe import read_recipe

    plan = read_recipe(recipe, (*(set or ()), *at_precision("train", precision)))
    shards, made_by = open_mixed(latents), codec_folder(vaes)
    check_codecs(shards, made_by, plan.codec_name)
    codecs = codecs_of(plan, made_by)
    with pausing():
        network = train_backbone(plan, shards, codecs, out, workers=workers, resume=resume, stop=stop, report=print_losses, say=print,
                                 devices=devices_of(devices, nodes, strategy, accelerator),
                                 init=CopGen.from_pretrained(init).backbone_in("fp32") if init else None)
    save_model(out / "model", plan.name, licence, network, codecs, half=half, name_of=plan.codec_name,
               notes={"data": shards.meta, "samples": len(shards), "steps": min(stop or plan.train.how.steps, plan.train.how.steps),
                      "batch": plan.train.how.batch, **({"init": init} if init else {})})
    print(f"model: {out / 'model'}")
