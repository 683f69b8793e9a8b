"""Which tables and models are there, and how do released weights become one? `modalities`, `models`, `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copgen.console import WIDE, wide_console

if TYPE_CHECKING:
    from copgen.modalities import Table


def modalities(
    model: Annotated[str | None, typer.Option(help="The table of this model.")] = None,
    table: Annotated[str | None, typer.Option(help="The table of this name: copgen (if left out) or thumbnails.")] = None,
) -> None:
    """The table: every row with its product, bands in channel order, metres per pixel, unit, shape and tokens."""
    from rich.console import Console
    from rich.table import Table as RichTable

    chosen = table_of(model, table)
    drawn = any(row.drawing for row in chosen.rows)
    title = f"{chosen.footprint} m square, {chosen.sequence_length} tokens ({len(chosen.rows)} of them times)"
    grid = RichTable(title=title, title_justify="left")
    console = wide_console(Console)
    extra = ("latent", "released key") if console.width >= WIDE else ()
    made = ("drawn from",) if drawn else ()
    for heading in ("row", "product", "bands (channel order)", *made, "m/pixel", "unit", "shape", "tokens", *extra):
        grid.add_column(heading, no_wrap=heading not in ("bands (channel order)", "drawn from"))
    for row in chosen.rows:
        shape, latent = ("x".join(map(str, sizes)) for sizes in (chosen.layer_shape(row.name), chosen.latent_shape(row.name)))
        cells = (str(row.resolution or "-"), row.unit, shape, str(chosen.tokens(row.name)))
        picture = (f"{' '.join(row.source.bands)}, {row.source.unit}" if row.source else "-",) if drawn else ()
        grid.add_row(row.name, row.product, " ".join(row.bands), *picture, *cells, *((latent, row.released_as) if extra else ()))
    console.print(grid)


def table_of(model: str | None, table: str | None) -> Table:
    """The table of a model or of a name, COP-GEN's if neither is said; ValueError for both, or a name that no table has."""
    from copgen.modalities import TABLE, TABLES

    if model and table:
        raise ValueError(f"--model {model} and --table {table}: a model has a table of its own; give one of the two")
    if model:
        from copgen.model import CopGen

        return CopGen.from_pretrained(model).table
    if table and table not in TABLES:
        raise ValueError(f"no table is called {table!r}; there are {', '.join(TABLES)}")
    return TABLES[table] if table else TABLE


def models() -> None:
    """The models at hand and the released ones: parameters, modalities, licence, and how to get them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable
    from safetensors import SafetensorError

    from copgen import published
    from copgen.files import cache_folder
    from copgen.model import CopGen, bundled

    grid = RichTable(title_justify="left")
    for heading in ("model", "where", "backbone", "codecs", "modalities", "licence"):
        grid.add_column(heading, overflow="fold")
    local = {folder.parent.name: folder.parent for folder in sorted(cache_folder().glob("*/copgen.json"))}
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
            grid.add_row(name, source, f"{released.parameters:,}", f"{released.system.parameters:,}",
                         str(len(released.system.table.rows)), published.LICENCE)
    wide_console(Console).print(grid)
    print("A folder with copgen.json is a model too: name it wherever a model is asked for. Without a network: copgen convert --help.")


def convert(
    backbone: Annotated[Path, typer.Option(help="The released backbone: 500000_nnet_ema.pth, or COP-GEN-Beta's nnet_ema_114000.pth.")],
    vaes: Annotated[Path, typer.Option("--vaes", "--vae", help="What it needs: the folder with the ten released VAEs' folders, or "
                                       "COP-GEN-Beta's VAE (autoencoder_kl_ema.pth, or the folder of sd-vae-ft-ema).")],
    out: Annotated[Path, typer.Option(help="The model folder to make.")],
    heads: Annotated[int | None, typer.Option(help="Attention heads, for sizes that were never released.")] = None,
) -> None:
    """Released weights to a model folder: safetensors and copgen.json. Nothing in the .pth files is run."""
    from copgen.published import convert as convert_files

    print(f"model: {convert_files(backbone, vaes, out, heads=heads)}")
