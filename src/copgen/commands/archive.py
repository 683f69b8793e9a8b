"""Archives of cells in Major TOM's layout: `download`, `verify`, `split`; `synthesize --archive` makes one of a synthetic Earth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen.commands.options import CellsFile, listed, one_of
from copgen.console import stages


def download(
    out: Annotated[Path, typer.Option(help="The archive's folder; what is there is kept, and the same command goes on with it.")],
    cells: Annotated[str | None, typer.Option(help="Cells by name, comma-separated, such as 618U_30L,38D_378R.")] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="All cells with their centre in a box of degrees; W > E crosses the "
                                             "antimeridian.")] = None,
    cells_file: CellsFile = None,
    products: Annotated[str, typer.Option(help="Only cells that have all of them.")] = "S2L2A,S2L1C,S1RTC,DEM",
    dates: Annotated[str | None, typer.Option(metavar="A..B", help="Days of acquisition, both included.")] = None,
    cloud_cover: Annotated[str, typer.Option(metavar="LOW..HIGH", help="Per cent, of Sentinel-2.")] = "0..10",
    nodata: Annotated[float, typer.Option(help="Largest share of an image without data.")] = 0.0,
    criteria: Annotated[str, typer.Option(help=(
        "Which images of a cell: closest (L1C and L2A of one datatake and tile, and the radar nearest in time), least-cloudy, or latest "
        "(each product's newest, whatever the others': the published choice)."))] = "closest",
    lulc: Annotated[str | None, typer.Option(metavar="SOURCE", help=(
        "Land cover, which Major TOM has not: a raster, VRT, address with {year}, {zone}, ..., or stac:URL#COLLECTION; see docs/data.md."))
    ] = None,
    lulc_year: Annotated[int | None, typer.Option(help="Its year; left out: that of the cell's date, or the nearest there is. "
                                            "Cells that have land cover keep it.")] = None,
    hub: Annotated[str | None, typer.Option(help="Another address with the hub's paths, or a folder that mirrors it.")] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the hub's repositories.")] = "main",
    connections: Annotated[int, typer.Option(help="At most so many requests at a time.")] = 4,
    thumbnails: Annotated[bool, typer.Option(help="The thumbnails, too; to a cell that is there they come later by --only-thumbnails.")
    ] = True,
    only_thumbnails: Annotated[bool, typer.Option("--only-thumbnails", help=(
        "The thumbnails without the bands, which can come later: a hundredth of the bytes, for models of thumbnails."))] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and about how many bytes.")] = False,
) -> None:
    """Cells of Major TOM from the hub: only the rows and columns that are wanted, out of files of gigabytes.

    A cell's files appear whole or not at all; what fails is told and does not stop the others; the same command goes on where it was
    interrupted. index.parquet (GeoParquet) says what was chosen, of which day, with which gaps in time, and the files' hashes.

    Example: copgen download --bbox -5.0,55.5,-2.3,56.9 --dates 2019-01-01..2021-12-31 --out archive
    """
    from copgen.download.request import Request, box_in, percents_in, span_in
    from copgen.download.run import download as fetch

    request = Request(
        out, None if cells is None else listed(cells), None if bbox is None else box_in(bbox), cells_file, listed(products),
        None if dates is None else span_in(dates, "--dates"), percents_in(cloud_cover), nodata,
        one_of("--criteria", criteria, "closest", "least-cloudy", "latest"), lulc, lulc_year, hub, revision, connections, thumbnails,
        not only_thumbnails)
    with stages() as (tick, say):
        report = fetch(request, progress=tick, say=say, dry_run=dry_run)
    for line in report.lines():
        print(line)
    if report.code:
        raise typer.Exit(report.code)


def verify(archive: Annotated[Path, typer.Argument(help="An archive that copgen download made.")]) -> None:
    """Are the files of an archive what was fetched? Compares every one with its hash; the same download brings back what is broken."""
    from copgen.download.run import verify as check

    with stages() as (tick, _):
        cells, wrong = check(archive, tick)
    for what in wrong:
        print(what)
    print(f"{cells} cells: {len(wrong) or 'no'} file{'' if len(wrong) == 1 else 's'} broken or missing")
    raise typer.Exit(bool(wrong))


def split(
    out: Annotated[Path, typer.Option(help="Folder for train.txt, test.txt, between.txt and split.json.")],
    archive: Annotated[Path | None, typer.Option(help="The archive whose cells are split.")] = None,
    cells_file: CellsFile = None,
    how: Annotated[str, typer.Option(help="blocked: neighbouring cells stay together; shuffled: the published split.")] = "blocked",
    seed: Annotated[int, typer.Option(help="The split depends on nothing else.")] = 42,
    train: Annotated[float, typer.Option(help="The share for training.")] = 0.9,
    block: Annotated[int, typer.Option(help="Cells of 10 km along a block's side.")] = 20,
    margin: Annotated[int, typer.Option(help="Cells left out around test blocks, which is where neighbours would leak.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace lists that are there.")] = False,
) -> None:
    """Which cells are for training and which for testing; `copgen encode --cells-file` takes the lists.

    Neighbouring cells look alike, and their images overlap: the published shuffle puts nearly every test cell next to a training cell.
    Blocks with a margin don't, and a cell that is downloaded later is on the side where its block is.

    Example: copgen split --archive archive --out split
    """
    from copgen.majortom.splits import blocked, leakage, shuffled, write_split

    names = cells_of(archive, cells_file)
    found = blocked(names, seed, train, block, margin) if one_of("--how", how, "blocked", "shuffled") == "blocked" else shuffled(
        names, seed, train)
    write_split(out, found, overwrite=overwrite)
    print(f"{len(found.train)} cells for training, {len(found.test)} for testing" +
          (f", {len(found.between)} between them" if found.between else ""))
    print(f"test cells with a neighbour in training: {leakage(found):.1%}")
    print(f"lists: {out}")


def cells_of(archive: Path | None, cells_file: Path | None) -> tuple[str, ...]:
    """The cells of an archive, or of a list; ValueError for none or both."""
    from copgen.majortom.cells import cells
    from copgen.majortom.splits import read_cells

    if (archive is None) == (cells_file is None):
        raise ValueError("which cells? Say it by one of --archive and --cells-file")
    found = tuple(cells(archive)) if archive else read_cells(cells_file or Path())
    if not found:
        raise ValueError(f"{archive or cells_file}: names no cell")
    return found
