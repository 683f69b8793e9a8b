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
