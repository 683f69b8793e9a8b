"""How good are samples? `evaluate run` writes rows of statistics, `tables`, `compare` and `report` read them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen.commands.options import Address, Device, EngineName, listed, one_of
from copgen.console import stages

if TYPE_CHECKING:
    from copgen.evaluation.formats import Table
    from copgen.evaluation.run import Report

Runs = Annotated[list[Path], typer.Argument(help="Evaluations, one a generator: their folders, or their rows.parquet.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Judge samples against what was observed, as a distribution.\n\n"
                       "`run` writes rows of statistics; `tables`, `compare` and `report` read them, and so does `copgen figures`. `sets` "
                       "looks at the samples themselves.")


@app.command()
def run(
    cases: Annotated[str, typer.Option(help=(
        "Where the truth is: worlds:64 (of the synthetic Earth, none that trainings draw), archive:ROOT, squares:FOLDER "
        "(FOLDER/<product>/<name>.tif), pictures:FOLDER (FOLDER/S2L2A_thumbnail/<name>.png) or benchmark:FOLDER "
        "(Major-TOM/COP-GEN-Benchmark)."))],
    recipe: Annotated[Path, typer.Option(help=(
        "Which layers are given, and which are scored how often: recipes/evaluate.toml (the paper's), "
        "evaluate-small.toml or evaluate-beta.toml."))],
    out: Annotated[Path, typer.Option(help="Folder of this evaluation; what is finished in it is kept.")],
    generator: Annotated[str, typer.Option(help=(
        "What draws: nano, copgen-base or a model folder (options: nano,quality=fast or nano,steps=30,solver=published); samples on disk: "
        "folder:PATH (as copgen generate writes), published:PATH, benchmark:PATH,config=copgen; perfect or collapsed: what to "
        "compare with."))] = "nano",
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: --set samples=8.")] = None,
    keep: Annotated[int, typer.Option(help="Keep the samples of so many first cases of each condition, for figures.")] = 3,
    features: Annotated[str | None, typer.Option(help=(
        "Also compare sets by features, comma-separated: inception:FILE, resnet50:FILE, lpips:FILE, thumbnails. Weights are "
        "yours to fetch."))] = None,
    training: Annotated[str | None, typer.Option(help="Cases it was trained on, none of --cases: are samples copies?")] = None,
    held_out: Annotated[str | None, typer.Option(help="Others that it was not trained on, none of --cases either.")] = None,
    engine: EngineName = "local",
    workers: Annotated[int, typer.Option(help="Processes, each with its model; rows are the same for any number.")] = 1,
    address: Address = None,
    device: Device = "auto",
) -> None:
    """Draw samples of cases under all conditions of a recipe and write statistics of them, against the truth.

    Run the same command again to go on where it ended. OUT/rows.parquet has a line a statistic: cell, protocol, given, seed, modality,
    band, statistic, value, weight; any group's value is sum(value x weight) / sum(weight).

    Example: copgen evaluate run --generator nano --cases worlds:8 --recipe recipes/evaluate-small.toml --out runs/nano
    """
    from copgen.evaluation.plan import Evaluation
    from copgen.evaluation.recipe import load_recipe
    from copgen.evaluation.run import evaluate

    asked = Evaluation(
        generator, cases, load_recipe(recipe, tuple(set or ())), out, keep=keep, device=one_of("--device", device, "auto", "cpu", "cuda"),
        features=listed(features or ""), training=training, held_out=held_out, engine=one_of("--engine", engine, "local", "ray"),
        workers=workers, address=address)
    with stages() as (tick, say):
        report = evaluate(asked, progress=partial(tick, "ensembles"), say=say)
    tell(report)


def tell(report: Report) -> None:
    for text, count in report.warned.items():
        print(f"warning: {count} ensembles: {text}", file=sys.stderr)
    skipped = sum(report.skipped.values())
    print(f"{report.tasks} ensembles: {report.done} done now, {report.kept} before, {report.refused} refused "
          f"in {report.seconds:.1f} s" + (f"; {skipped} do not apply to their case" if skipped else ""))
    for reason, count in report.skipped.items():
        print(f"does not apply: {count}: {reason}")
    if report.refused:
        print(f"refused: see {report.folder / 'failed.jsonl'}")
    print(f"rows: {report.rows}")


@app.command()
def tables(
    runs: Runs,
    table: Annotated[str | None, typer.Option(help="Of the paper's tables 3 to 9, comma-separated, only these.")] = None,
    distribution: Annotated[bool, typer.Option(help="Also the tables of distributions: calibration, sets, consistency, influence.")] = True,
    paper: Annotated[bool, typer.Option("--paper", help="Beside them the numbers that the paper prints.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Distributions also where two layers are left out.")] = False,
    bands: Annotated[bool, typer.Option("--bands", help="Also errors band by band.")] = False,
    format: Annotated[str, typer.Option(help="How they are printed: terminal, md, csv or tex.")] = "terminal",
    out: Annotated[Path | None, typer.Option(help="A folder for each table as Markdown, CSV and LaTeX.")] = None,
    draws: Annotated[int, typer.Option(help="Draws of the bootstrap over cells.")] = 1000,
) -> None:
    """The paper's Tables 3 to 9 and those of distributions, generators side by side, every number with its range over cells.

    Example: copgen evaluate tables runs/nano runs/perfect --out tables
    """
    from copgen.evaluation.arrays import results_of
    from copgen.evaluation.distribution import band_table, best_table, distribution_tables
    from copgen.evaluation.formats import save
    from copgen.evaluation.rows import read_rows
    from copgen.evaluation.tables import paper_tables

    how = one_of("--format", format, "terminal", "md", "csv", "tex")
    try:
        numbers = tuple(int(word) for word in listed(table)) if table else (3, 4, 5, 6, 7, 8, 9)
    except ValueError:
        raise ValueError(f"--table {table}: numbers of the paper's tables are needed, 3 to 9, comma-separated") from None
    results = results_of(read_rows(runs))
    found = paper_tables(results, numbers, paper=paper, draws=draws)
    if distribution and not table:
        found += [*distribution_tables(results, pairs=pairs, draws=draws), best_table(results)]
    if bands:
        found.append(band_table(results, draws=draws))
    if not found:
        raise ValueError(f"{', '.join(map(str, runs))}: has no rows of these tables; evaluate the protocols that they are of")
    for one in found:
        print_table(one, how)
    if out:
        print(*save(found, out), sep="\n")


@app.command()
def sets(
    runs: Annotated[list[Path] | None, typer.Argument(help="Evaluations whose samples were kept (run --keep N): their folders.")] = None,
    real: Annotated[Path | None, typer.Option(help="Instead: a folder of true pictures, or .npy or .safetensors of vectors,")] = None,
    fake: Annotated[Path | None, typer.Option(help="and one of generated ones.")] = None,
    features: Annotated[list[str] | None, typer.Option(help=(
        "By what pictures are compared, repeatable: thumbnails (needs no weights), inception:FILE (the FID's, as in pytorch-fid), "
        "inception-tf:FILE (as in torch-fidelity, the paper's), resnet50:FILE."))] = None,
    samples: Annotated[int | None, typer.Option(help="Of each cell at most so many samples.")] = None,
    neighbours: Annotated[int, typer.Option(help="Precision and recall: how many neighbours a ball reaches.")] = 3,
    format: Annotated[str, typer.Option(help="How it is printed: terminal, md, csv or tex.")] = "terminal",
    out: Annotated[Path | None, typer.Option(help="A folder for the table as Markdown, CSV and LaTeX.")] = None,
    device: Device = "auto",
) -> None:
    """FID, KID, precision, recall and F-score of all samples beside all truths, by product and by what was given.

    Example: copgen evaluate sets runs/beta --features thumbnails --features inception:pt_inception-2015-12-05-6726825d.pth
    """
    from copgen.evaluation.collections import lines_of_pair
    from copgen.evaluation.datasets import lines_of_runs, table_of
    from copgen.evaluation.features import open_feature
    from copgen.evaluation.formats import save
    from copgen.model import pick_device

    how, on = one_of("--format", format, "terminal", "md", "csv", "tex"), one_of("--device", device, "auto", "cpu", "cuda")
    for name, count in (("--samples", samples), ("--neighbours", neighbours)):
        if count is not None and count < 1:
            raise ValueError(f"{name} {count}: at least 1 is needed")
    opened = [open_feature(text, str(pick_device(on))) for text in features or ()]
    if runs and not (real or fake):
        lines = lines_of_runs(runs, opened, samples)
    elif real and fake and not runs:
        if samples is not None:
            raise ValueError(f"--samples {samples}: of two sets all is compared; leave it out, or leave pictures out of {fake}")
        lines = lines_of_pair(real, fake, opened)
    else:
        raise ValueError("name evaluations (RUN...), or two sets (--real FOLDER --fake FOLDER), and not both")
    table = table_of(lines, neighbours)
    print_table(table, how)
    if out:
        print(*save([table], out), sep="\n")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="An evaluation: its folder, or its rows.parquet.")],
    b: Annotated[Path, typer.Argument(help="Another one of the same cases.")],
    pairs: Annotated[bool, typer.Option("--pairs", help="Also where two layers are left out.")] = False,
    format: Annotated[str, typer.Option(help="How it is printed: terminal, md, csv or tex.")] = "terminal",
    draws: Annotated[int, typer.Option(help="Draws of the bootstrap over cells.")] = 2000,
) -> None:
    """Which differences between two generators are real: over the cells that both have, all metrics at once."""
    from copgen.evaluation.arrays import results_of
    from copgen.evaluation.compare import compare as compared
    from copgen.evaluation.rows import read_rows

    how = one_of("--format", format, "terminal", "md", "csv", "tex")
    print_table(compared(*results_of(read_rows([a, b])), pairs=pairs, draws=draws), how)


@app.command()
def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Folder for index.html, which needs nothing else.")],
    title: Annotated[str, typer.Option(help="What stands above.")] = "Evaluation",
    basemap: Annotated[Path | None, typer.Option(help="Under maps: a GeoJSON of polygons, or a raster in EPSG:4326.")] = None,
    command: Annotated[list[str] | None, typer.Option(help="Commands by which the evaluations were made, to be shown; repeatable.")] = None,
    features: Annotated[list[str] | None, typer.Option(help="Also all samples beside all truths, as `sets` has them; repeatable.")] = None,
) -> None:
    """One page with verdict, tables, figures and definitions that can be read without the code.

    Example: copgen evaluate report runs/nano runs/perfect runs/collapsed --out report
    """
    from copgen.figures.basemap import read_basemap
    from copgen.report import report as made

    page = made(runs, out, title=title, basemap=read_basemap(basemap) if basemap else None, commands=tuple(command or ()),
                features=tuple(features or ()))
    print(f"report: {page}")


def print_table(table: Table, how: str) -> None:
    from rich.console import Console

    from copgen.console import wide_console
    from copgen.evaluation.formats import WRITERS, terminal

    if how == "terminal":
        wide_console(Console).print(terminal(table))
    else:
        print(WRITERS[how](table))
