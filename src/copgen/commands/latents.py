"""A look into folders of latents: `latents info`, `verify`, `sample`; and `latents import` for those of the published pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen.commands.options import listed
from copgen.console import counting, print_latents

if TYPE_CHECKING:
    from copgen.bulk.encode import Codecs
    from copgen.modalities import Table

Folder = Annotated[Path, typer.Argument(help="A folder of latents that copgen encode wrote.")]
Model = Annotated[str | None, typer.Option(help="The model whose codecs made them: nano, copgen-base or a model folder.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Look into a folder of latents.",
                  context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def info(
    folder: Folder,
    model: Model = None,
    most: Annotated[int, typer.Option(help="Samples at most that statistics are of.")] = 2000,
    seed: Annotated[int, typer.Option(help="Which samples these are.")] = 0,
) -> None:
    """Counts, dates, what was rejected and why; each row's mean and spread, and its scaling factor beside the model's."""
    from copgen.latents.look import info as look

    print_latents(look(folder, codecs_of(model) if model else None, most=most, seed=seed))


@app.command()
def verify(folder: Folder, model: Model = None) -> None:
    """Read everything and check that it agrees: shards, records, index, counts, numbers; with --model, the codecs."""
    from copgen.latents.check import verify as check

    with counting("shards") as tick:
        verdict = check(folder, codecs_of(model) if model else None, tick)
    for problem in verdict.problems:
        print(f"{problem.file}: {problem.what}; {problem.way_out}")
    count = len(verdict.problems)
    print(f"{verdict.shards} shards, {verdict.samples} samples: {count or 'no'} problem{'' if count == 1 else 's'}")
    raise typer.Exit(bool(verdict.problems))


@app.command()
def sample(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The picture to write, a PNG.")],
    model: Annotated[str, typer.Option(help="The model whose codecs made them: nano, copgen-base or a model folder.")] = "nano",
    numbers: Annotated[str | None, typer.Option(help="These samples, comma-separated.")] = None,
    cell: Annotated[str | None, typer.Option(help="Samples of this cell.")] = None,
    archive: Annotated[Path | None, typer.Option(help="The archive that they are of: real layers beside the decoded.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a picture that is there.")] = False,
) -> None:
    """A contact sheet of some samples, decoded."""
    from copgen.latents.show import sample as show

    try:
        chosen = [int(number) for number in listed(numbers or "")]
    except ValueError:
        raise ValueError(f"--numbers {numbers}: takes samples by number, such as 0,35,36") from None
    show(folder, codecs_of(model), numbers=chosen, cell=cell, archive=archive, path=out, overwrite=overwrite)
    print(f"sheet: {out}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="An LMDB of the published pipeline, or a folder of one a modality.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards of moments; shards that exist are kept.")],
    about: Annotated[Path | None, typer.Option(help="Dates and CRS of cells: an archive's index.parquet, or an .npz.")] = None,
    vaes: Annotated[str | None, typer.Option(help="The model, the folder of the codecs or that of the one that all rows share, that made "
                                           "them: training will check.")] = None,
) -> None:
    """Latents of the published pipeline (LMDB) to shards. Nothing in them is unpickled: arrays are found in the pickles and copied out."""
    from copgen.latents.lmdb import import_lmdb, table_in

    table = table_in(source)
    with counting("samples") as tick:
        found = import_lmdb(source, out, table, about=about, codecs=made_by(vaes, table) if vaes else None, progress=tick)
    print(f"{len(found.shards)} samples; rows they have: " + ", ".join(f"{row} {count}" for row, count in found.rows.items()))
    for row, count in found.not_finite.items():
        print(f"left out, {row} with numbers that are none: {count}")
    print(f"latents: {out}")


def made_by(vaes: str, table: Table) -> Codecs:
    """The codecs of a model, of a folder with one a row, or the one that a folder is of."""
    from copgen.bulk.encode import Codecs

    folder = Path(vaes)
    if (folder / "codec.json").is_file():
        return Codecs(table, dict.fromkeys(table.images, folder))
    return Codecs.under(folder, table) if folder.is_dir() and not (folder / "copgen.json").is_file() else codecs_of(vaes)


def codecs_of(model: str) -> Codecs:
    from copgen.bulk.encode import Codecs
    from copgen.model import CopGen

    return Codecs.of(CopGen.from_pretrained(model, device="cpu"))
