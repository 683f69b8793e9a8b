"""Pictures of evaluations: `figures`; and a model that lives on its own outputs: `loop`."""

from __future__ import annotations

import csv
import io
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from copgen.commands.options import NAMES, ArchiveOffset, Device, QualityName, listed, offset_in, one_of
from copgen.console import stages

SHOWN = ("samples, places, narrowing, profiles, infilling, priors, architecture, moments, ranks, coverage, reliability, spread, best-of, "
         "consistency, influence; or all")


def figures(
    name: Annotated[str, typer.Argument(help=SHOWN)],
    sources: Annotated[list[Path] | None, typer.Argument(help=(
        "Evaluations (copgen evaluate run), side by side; for what is seen also <scene> folders of copgen generate; priors: those of "
        "--constant; architecture: models."))] = None,
    out: Annotated[Path, typer.Option(help="Folder for NAME-*.png and .pdf; those that are there are replaced.")] = Path("figures"),
    protocol: Annotated[str | None, typer.Option(help="Of this protocol of the recipe.")] = None,
    given: Annotated[str | None, typer.Option(help="Of samples given these layers, such as DEM+LULC.")] = None,
    cells: Annotated[str | None, typer.Option(help="Of these cells, comma-separated.")] = None,
    rows: Annotated[str | None, typer.Option(help=f"Of these layers: {NAMES}.")] = None,
    bands: Annotated[str | None, typer.Option(help="narrowing: these bands, such as B04,B11,B01.")] = None,
    count: Annotated[int | None, typer.Option(help="Samples shown.")] = None,
    style: Annotated[str, typer.Option(help="Stretches: ours (fixed) or published.")] = "ours",
    basemap: Annotated[Path | None, typer.Option(help="Under maps: a GeoJSON of polygons, or a raster in EPSG:4326.")] = None,
    colour_by: Annotated[str | None, typer.Option(help="The property of the basemap's polygons that tells their colours.")] = None,
) -> None:
    """Figures of an evaluation as PNG and PDF, at a paper's width.

    Example: copgen figures narrowing runs/nano --out figures
    """
    from copgen.figures.basemap import read_basemap
    from copgen.figures.catalogue import CATALOGUE, Wish
    from copgen.figures.catalogue import figures as drawn
    from copgen.figures.style import save

    under = read_basemap(basemap, colour_by) if basemap else None
    wish = Wish(tuple(sources or ()), protocol, given, listed(cells or ""), listed(rows or ""), listed(bands or ""), count,
                one_of("--style", style, "ours", "published"), under)
    failed: list[str] = []
    names = [one for one in CATALOGUE if one not in ("priors", "architecture")] if name == "all" else [name]
    for one in names:
        try:
            for file, figure in drawn(one, wish):
                print(*save(figure, out, file.replace("/", "-")))
        except ValueError as error:
            if name != "all":
                raise
            failed.append(f"{one}: {error}")
    if failed and len(failed) == len(names):
        raise ValueError(f"none of the figures could be made; {failed[0]}")
    for text in failed:
        print(f"warning: {text}", file=sys.stderr)


def loop(
    out: Annotated[Path, typer.Option(help="Folder for loop.png, drift.csv and the layers of every round.")],
    model: Annotated[str, typer.Option(help="A bundled or released model, or a model folder (copgen models).")] = "nano",
    input: Annotated[list[str] | None, typer.Option(metavar="PRODUCT=PATH[,key=value...]", help="The start, as for generate.")] = None,
    archive: Annotated[Path | None, typer.Option(help="An archive in Major TOM's layout.")] = None,
    start: Annotated[str | None, typer.Option(help="The cell in it to start from, such as 618U_30L.")] = None,
    through: Annotated[str, typer.Option(help="Products in turn; the start is the last of them.")] = "S1RTC,S2L2A",
    keep: Annotated[str | None, typer.Option(help="Layers of the start that are given every time, such as DEM.")] = None,
    rounds: Annotated[int, typer.Option(help="Times through the products.")] = 4,
    samples: Annotated[int, typer.Option(help="Loops, each with a seed of its own.")] = 3,
    seed: Annotated[int, typer.Option(help="Loop k has this seed + k.")] = 0,
    offset: ArchiveOffset = "0",
    quality: QualityName = "default",
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that this run writes.")] = False,
) -> None:
    """Generate from what was generated, round after round, and measure the drift.

    Example: copgen loop --archive ROOT --start 618U_30L --through S1RTC,S2L2A --rounds 4 --out loop
    """
    from copgen.figures.looping import looping
    from copgen.figures.style import rendered
    from copgen.files import check_target, json_bytes, write_all
    from copgen.job import Job, check_settings, given_scene
    from copgen.loop import Drift
    from copgen.loop import loop as run
    from copgen.model import CopGen

    products = listed(through)
    wanted = ",".join(dict.fromkeys([*products[-1:], *listed(keep or "")]))
    job = Job(out, model, tuple(input or ()), archive, start, given=wanted if archive else None, samples=samples, seed=seed,
              quality=quality, offset=offset_in(offset), device=one_of("--device", device, "auto", "cpu", "cuda"))
    check_settings(job)
    drawn = CopGen.from_pretrained(model, device=job.device)
    scene = given_scene(job, drawn.table)
    check_target(out, ["loop.png", "loop.pdf", "drift.csv", "run.json"], overwrite=overwrite)
    with stages() as (tick, _):
        found = run(drawn, scene, products, rounds, job.seeds, keep=listed(keep or ""), quality=quality,
                    progress=partial(tick, "generations"))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Drift._fields, *(one for each in found for one in each.drift)])
    record = {"model": drawn.name, "sha256": drawn.weights_sha256(), "request": job.request, "through": products, "rounds": rounds,
              "kept": listed(keep or ""), "scene": scene.name, "sources": dict(scene.notes)}
    files = {out / f"loop.{kind}": data for kind, data in rendered(looping(found, scene, chains=samples)).items()}
    write_all({**files, out / "drift.csv": text.getvalue().encode(), out / "run.json": json_bytes(record)}, overwrite=overwrite)
    for each in found:
        for chain, made in each.scenes.items():
            made.save(out / f"round-{each.number}" / f"seed-{chain}", overwrite=overwrite)
    print(f"loop: {out / 'loop.png'}\ndrift: {out / 'drift.csv'}")
