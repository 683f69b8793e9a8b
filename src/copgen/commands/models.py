"""Which tables and models are there, and how do released weights become one? `modalities`, `models`, `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen.console import WIDE, wide_console


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


def convert(
    backbone: Annotated[Path, typer.Option(help="The released backbone, such as 500000_nnet_ema.pth.")],
    vaes: Annotated[Path, typer.Option(help="The folder with the ten released VAEs' folders.")],
    out: Annotated[Path, typer.Option(help="The model folder to make.")],
    heads: Annotated[int | None, typer.Option(help="Attention heads, for sizes that were never released.")] = None,
) -> None:
    """Released weights to a model folder: safetensors and copgen.json. Nothing in the .pth files is run."""
    from copgen.published import convert as convert_files

    print(f"model: {convert_files(backbone, vaes, out, heads=heads)}")
