"""What do commands print? Progress, losses and tables, the same everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from copgen.bulk.encode import Report
    from copgen.latents.look import Info
    from copgen.training.loop import Progress

WIDE = 150                                       # columns that the whole table takes


def wide_console(console: type) -> Any:
    """A console that never cuts columns when its output is piped into a file."""
    return console() if sys.stdout.isatty() else console(width=200)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar that shows when it is started: what is refused before that is one line on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
                   console=Console(stderr=True))
    try:
        yield bar
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)
        bar.start()
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """A bar a stage of the work, by name, and a way to say something above them."""
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                bar.start()
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tick, lambda text: bar.console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_codec_report(report: Mapping[str, Any]) -> None:
    """A report of `copgen.training.codec_report` as a table; its JSON has the bands' figures, too."""
    from rich.console import Console
    from rich.table import Table as RichTable

    columns = {"mae": "MAE", "rmse": "RMSE", "psnr": "PSNR dB", "percent_of_relief": "% of relief", "accuracy": "accuracy %",
               "iou": "IoU %"}
    grid = RichTable(title=f"{report['model']} at {report['places']}; trivial codecs fitted on {report['fitted on']}", title_justify="left")
    for heading in ("row", "codec", "places", *columns.values()):
        grid.add_column(heading, justify="right" if heading in columns.values() else "left", no_wrap=True)
    for row, found in report["rows"].items():
        for k, (name, measured) in enumerate(found["codecs"].items()):
            for n, errors in enumerate(({"place": f"all {found['count']}", **measured["all"]}, *measured.get("each", ()))):
                label = f"{row} ({found['unit']})" if not (k or n) else ""
                cells = (f"{errors[key]:.4g}" if key in errors else "" for key in columns)
                grid.add_row(label, "" if n else name, errors["place"], *cells)
        grid.add_section()
    wide_console(Console).print(grid)
    for name in report["seen"]:
        print(f"warning: {report['model']} was trained on {name}, which has some of these places: the figures flatter it", file=sys.stderr)


def print_encoding(report: Report) -> None:
    """What an archive became, by how much and why not all of it."""
    tally, seconds = report.tally, max(report.seconds, 1e-9)
    print(f"{tally.samples} patches of {report.cells} cells, {report.bytes / 1e6:.1f} MB; rows they have: "
          + ", ".join(f"{row} {count}" for row, count in tally.rows.items()))
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.reasons.items()))
    print(f"rejected: {tally.rejected} patches" + (f"; with a fault: {reasons} (rejected.parquet says which)" if reasons else ""))
    if tally.warned:
        print(f"warning: {tally.warned} patches came with a warning, such as: {tally.warning}", file=sys.stderr)
    print(f"{report.made} shards written, {report.kept} kept; {report.patches} patches in {seconds:.1f} s, "
          f"{report.patches / seconds:.3g} a second")
    print(f"shards: {report.folder}")


def print_latents(info: Info) -> None:
    """What is in a folder of latents."""
    from rich.console import Console
    from rich.table import Table as RichTable

    cells = "" if info.cells is None else f" of {info.cells} cells"
    dates = f", {info.dates[0]} to {info.dates[1]}" if info.dates else ""
    print(f"{info.folder}: {info.samples} samples{cells} in {info.shards} shards, {info.bytes / 1e6:.1f} MB{dates}")
    print(f"source: {info.meta.get('source', 'unknown')}")
    if info.rejected is not None:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(info.reasons.items()))
        print(f"rejected: {info.rejected} patches" + (f"; with a fault: {reasons}" if reasons else ""))
    grid = RichTable(title=f"latents before scaling, of {info.looked_at} samples", title_justify="left")
    for heading in ("row", "samples", "scaling factor", "the model's", "KL a value", "mean by channel", "std by channel"):
        grid.add_column(heading, justify="left" if heading == "row" else "right", overflow="fold")
    for row, count in info.having.items():
        if spread := info.spread.get(row):
            model = "-" if spread.model_factor is None else f"{spread.model_factor:.4f}"
            channels = (" ".join(f"{value:.2f}" for value in values) for values in (spread.mean, spread.std))
            grid.add_row(row, str(count), f"{spread.scaling_factor:.4f}", model, f"{spread.kl:.3g}", *channels)
        else:
            grid.add_row(row, str(count), *["-"] * 5)
    wide_console(Console).print(grid)


def print_losses(progress: Progress) -> None:
    parts = " ".join(f"{name} {value:.4g}" for name, value in progress.losses.items())
    left = timedelta(seconds=round(progress.left))
    print(f"step {progress.step}/{progress.steps}  {progress.speed:.3g} samples/s  {left} left  {parts}", flush=True)


@contextmanager
def pausing() -> Iterator[None]:
    """A training that was asked to end says so in one sentence; processes that helped the first one end here."""
    from copgen.training.launch import leave
    from copgen.training.loop import Paused

    try:
        yield
    except SystemExit as done:
        leave(int(done.code or 0))
    except Paused as pause:
        print(pause, file=sys.stderr)
        raise typer.Exit(pause.code) from None
