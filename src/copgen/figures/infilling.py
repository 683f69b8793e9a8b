"""What follows from a few bands? Everything that was generated of them, beside what was observed (the paper's Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from copgen.evaluation.kept import Ensemble
from copgen.figures.style import PAGE, PALE, Look, look, paper
from copgen.figures.tiles import (
    EDGE,
    SMALL,
    Page,
    asked_of,
    class_key,
    codes_in,
    framed,
    key_height,
    missing,
    name_of,
    quantity,
    reading,
    row_title,
    scale_and_north,
    small_map,
    unit,
    where_and_when,
)
from copgen.scaling import LogHeight
from copgen.scene import Scene
from copgen.scores.distances import great_circle
from copgen.sheet import degrees, long_date

ACROSS, LABEL, GAP, TOP = 6, 0.3, 0.06, 0.3                    # tiles a line; inches
SIDE = (PAGE - LABEL - 2 * EDGE - GAP * (ACROSS - 1)) / ACROSS
TITLE, WORDS = 0.2, 0.15                                       # above a block of tiles, below each generated one


@dataclass(frozen=True)
class Sheet:
    """What is on it: lines of scenes, blocks of rows."""

    ensemble: Ensemble
    lines: tuple[tuple[str, str, Scene], ...]    # words, role, scene
    rows: tuple[str, ...]
    chosen: Look

    @property
    def block(self) -> float:
        """The height of one block of columns, in inches."""
        return TITLE + len(self.lines) * (SIDE + WORDS) + 0.06


@paper()
def infilling(ensemble: Ensemble, *, count: int = 2, style: str = "ours") -> Figure:
    """All rows of one place, six a block: what was observed, and below it what `count` samples made of the given rows.

    Given rows have their own frame in every line. Under each generated picture stands its mean absolute error against the observation in
    the row's unit (classes: the share of pixels that agree). Raises ValueError for an ensemble without samples.
    """
    if not ensemble.samples:
        raise ValueError(f"{ensemble.observation.name}: no samples, so nothing was filled in; evaluate it first")
    truth, table = ensemble.observation, ensemble.observation.table
    drawn = set(ensemble.condition.given) | {row for sample in ensemble.samples for row in sample.layers}
    rows = tuple(row for row in ordered(ensemble) if row in drawn)
    lines = (("observed", "truth", truth), *((name_of(sample, k), "sample", sample) for k, sample in enumerate(ensemble.samples[:count])))
    sheet = Sheet(ensemble, lines, rows, look(style))
    blocks = [rows[k : k + ACROSS] for k in range(0, len(rows), ACROSS)]
    legends = [row for row in rows if table[row].legend]
    keys = sum(key_height(codes_in([scene for _, _, scene in lines], row)) for row in legends)
    page = Page.of(PAGE, TOP + len(blocks) * sheet.block + 0.28 + 0.12 * len(readings(sheet)) + keys)
    heading(page, sheet)
    for k, block in enumerate(blocks):
        block_of(page, sheet, block, TOP + k * sheet.block, ruler=k == 0)
    footing(page, sheet, legends, TOP + len(blocks) * sheet.block + 0.02)
    return page.figure


def ordered(ensemble: Ensemble) -> list[str]:
    """Given rows first, then the others by product from the table's last to its first, so that optical rows stand together."""
    table, given = ensemble.observation.table, ensemble.condition.given
    rest = [row.name for product in reversed(table.products) for row in table.rows if row.product == product and row.name not in given]
    return [*given, *rest]


def heading(page: Page, sheet: Sheet) -> None:
    ensemble, truth = sheet.ensemble, sheet.ensemble.observation
    page.text(EDGE, 0.05, asked_of("All layers", ensemble), 8, weight="bold")
    page.text(PAGE - EDGE, 0.06, " · ".join(where_and_when(truth)), SMALL, PALE, ha="right")


def block_of(page: Page, sheet: Sheet, rows: Sequence[str], y: float, ruler: bool) -> None:
    """Some columns: titles, then a line a scene."""
    given, table = sheet.ensemble.condition.given, sheet.ensemble.observation.table
    for k, row in enumerate(rows):
        x = EDGE + LABEL + k * (SIDE + GAP)
        colour = sheet.chosen.frames["given"] if row in given else "black"
        page.text(x + SIDE / 2, y + TITLE - 0.05, row_title(table[row]), 7, colour, ha="center", va="bottom")
        column(page, sheet, row, x, y + TITLE, ruler and k == 0)
    for k, (words, _, _) in enumerate(sheet.lines):
        page.text(EDGE + LABEL - 0.07, y + TITLE + k * (SIDE + WORDS) + SIDE / 2, words, 7, ha="right", va="center", rotation=90)


def column(page: Page, sheet: Sheet, row: str, x: float, y: float, ruler: bool) -> None:
    """One row of the table: its picture in every line; what is given is shown once and framed in all."""
    truth, given = sheet.ensemble.observation, row in sheet.ensemble.condition.given
    scenes = [truth if given else scene for _, _, scene in sheet.lines]
    there = [scene for scene in scenes if row in scene]
    image = truth.table[row].is_image
    pictures = iter(sheet.chosen.pictures(truth.table[row], [scene[row] for scene in there]) if image and there else [])
    for k, (scene, (_, role, _)) in enumerate(zip(scenes, sheet.lines, strict=True)):
        top, frame = y + k * (SIDE + WORDS), sheet.chosen.frames["given" if given else role]
        if row not in scene:
            missing(page, x, top, SIDE)
        elif image:
            axes = page.picture(x, top, SIDE, next(pictures), frame)
            if ruler and k == 0:
                scale_and_north(axes, truth.table.footprint, SIDE)
        else:
            scalar(page, row, scene, truth, x, top, frame)
        words = "given" if given and k else under(row, scene, truth, k == 0)
        page.text(x + SIDE / 2, top + SIDE + 0.025, words, 6, PALE, ha="center")


def scalar(page: Page, row: str, scene: Scene, truth: Scene, x: float, y: float, frame: str | tuple[float, float, float]) -> None:
    """Place as a dot on a map, date as words, in the room of a picture."""
    axes = page.axes(x, y, SIDE, SIDE)
    framed(axes, frame)
    if row == "place":
        at = (float(scene["place"][0]), float(scene["place"][1]))
        known = (float(truth["place"][0]), float(truth["place"][1])) if "place" in truth else None
        small_map(page.axes(x + 0.04, y + 0.12, SIDE - 0.08, (SIDE - 0.08) / 2), known, [] if scene is truth else [at])
        words = degrees(*at).replace("N ", "N\n").replace("S ", "S\n")
        axes.text(0.5, 0.08, words, ha="center", va="bottom", fontsize=6.5, transform=axes.transAxes, linespacing=1.2)
    else:
        axes.text(0.5, 0.5, long_date(scene["date"][0]).replace(" ", "\n"), ha="center", va="center", fontsize=7,
                  transform=axes.transAxes, linespacing=1.4)


def under(row: str, scene: Scene, truth: Scene, is_truth: bool) -> str:
    """Words under a picture: the range of heights of the truth, the error of a sample."""
    modality = truth.table[row]
    if row not in truth or row not in scene:
        return ""
    if is_truth:
        return f"{truth[row].min():.0f} to {truth[row].max():.0f} m" if isinstance(modality.scale, LogHeight) else ""
    if row == "place":
        return f"{float(great_circle(scene[row], truth[row])):.0f} km away"
    if row == "date":
        days = abs(int((scene[row][0] - truth[row][0]).astype(int)))
        return f"{days} days away"
    if modality.legend:
        return f"{np.mean(scene[row] == truth[row]):.0%} of pixels agree"
    error = float(np.abs(quantity(modality, scene[row]) - quantity(modality, truth[row])).mean())
    return f"error {error:.3f}" if unit(modality) == "reflectance" else f"error {error:.1f} {unit(modality)}"


def footing(page: Page, sheet: Sheet, legends: Sequence[str], y: float) -> None:
    """Frames, how to read colours and numbers, and the classes there are."""
    table, scenes = sheet.ensemble.observation.table, [scene for _, _, scene in sheet.lines]
    bare = ", of reflectance if no unit is said" if any(unit(table[row]) == "reflectance" for row in sheet.rows) else ""
    page.text(page.frames(y, sheet.chosen) + 0.1, y + 0.045, f"errors: mean absolute{bare}; north is up", SMALL, PALE,
              va="center_baseline")
    y += 0.16
    for words in readings(sheet):
        page.text(EDGE, y, words, 6, PALE)
        y += 0.12
    y += 0.05
    for row in legends:
        y = class_key(page, EDGE, y, table[row].legend, codes_in(scenes, row))


def readings(sheet: Sheet) -> list[str]:
    """How to read the colours, rows that are drawn alike together."""
    table, found = sheet.ensemble.observation.table, dict[str, list[str]]()
    for row in sheet.rows:
        if table[row].is_image and not table[row].legend:
            found.setdefault(reading(sheet.chosen, table[row]), []).append(row_title(table[row]))
    return [f"{', '.join(titles)}: {words}" for words, titles in found.items()]
