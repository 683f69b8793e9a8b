"""What could be here? The given layers of several places, what was observed, and many samples of it (the paper's Figures 1, 10, 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from copgen.drawing import Picture
from copgen.evaluation.kept import Ensemble
from copgen.figures.style import PAGE, PALE, Look, look, paper
from copgen.figures.tiles import (
    EDGE,
    SMALL,
    Page,
    asked_of,
    class_key,
    codes_in,
    customary,
    key_height,
    missing,
    name_of,
    quantity,
    reading,
    relief_key,
    row_title,
    scale_and_north,
    where_and_when,
)
from copgen.scaling import LogHeight

LABEL, GAP, BETWEEN, TOP = 0.95, 0.045, 0.16, 0.42            # inches: words at the left, between tiles, between places, title
ACROSS = 8                                                    # samples in a line at most
LETTER = 0.055                                                # about as wide as a small letter is, in inches


@dataclass(frozen=True)
class Grid:
    """How tiles are laid out: `lines` of samples a place, reference layers stacked in columns at the left."""

    references: int                              # given layers and the truth
    lines: int
    across: int                                  # samples a line

    @property
    def left(self) -> int:
        return -(-self.references // self.lines)

    @property
    def side(self) -> float:
        columns = self.left + self.across
        return (PAGE - LABEL - 2 * EDGE - BETWEEN / 2 - GAP * (columns - 1)) / columns

    @property
    def height(self) -> float:
        return self.lines * (self.side + GAP) - GAP

    def reference(self, k: int) -> tuple[float, float]:
        """Where the k-th reference layer lies in its place's block, in inches."""
        return EDGE + LABEL + k // self.lines * (self.side + GAP), k % self.lines * (self.side + GAP)

    def sample(self, k: int) -> tuple[float, float]:
        column = self.left + k % self.across
        return EDGE + LABEL + BETWEEN / 2 + column * (self.side + GAP), k // self.across * (self.side + GAP)


@paper()
def samples_grid(
    ensembles: Sequence[Ensemble], row: str | None = None, *, count: int = 6, lines: int | None = None, style: str = "ours",
) -> Figure:
    """One place a block: given image layers, the observation of `row`, and the first `count` samples of it in `lines` lines.

    ensembles: one a place, all of one condition; of what `copgen generate` left, which keeps no more than samples, these are shown alone.
    row: a row or a product, of which the first row is shown; `customary` where None. lines: None for eight samples in each. Pictures of a
    place share their stretch. Raises ValueError for no ensembles, for conditions that differ, and for samples without the row.
    """
    row = check(ensembles, row)
    chosen, first = look(style), ensembles[0]
    kept = {name for ensemble in ensembles for name in ensemble.observation.layers} & set(first.observation.table.images)
    given = [name for name in first.condition.given if name in first.observation.table.images] if kept else []
    count = min(count, max(len(ensemble.samples) for ensemble in ensembles))
    lines = lines or -(-count // ACROSS)
    grid = Grid(len(given) + 1 if kept else 0, lines, -(-count // lines))
    scenes = [ensemble.observation for ensemble in ensembles]
    foot = 0.37 + sum(key_height(codes_in(scenes, name)) for name in given if first.observation.table[name].legend)
    page = Page.of(PAGE, TOP + len(ensembles) * (grid.height + BETWEEN) + foot)
    heading(page, grid, first, given, row)
    y = TOP
    for k, ensemble in enumerate(ensembles):
        block(page, grid, ensemble, given, row, count, chosen, y, ruler=k == 0)
        y += grid.height + BETWEEN
    footing(page, ensembles, [*given, row], row, chosen, y)
    return page.figure


def check(ensembles: Sequence[Ensemble], row: str | None) -> str:
    """The row that is shown, once everything has it."""
    if not ensembles:
        raise ValueError("a grid of samples needs at least one ensemble")
    table = ensembles[0].observation.table
    row = table.select(row)[0] if row else customary(table)
    if len({ensemble.condition.given for ensemble in ensembles}) > 1:
        names = sorted({ensemble.condition.given_name for ensemble in ensembles})
        raise ValueError(f"conditions {', '.join(names)} in one grid of samples: all its places have the same given layers")
    for ensemble in ensembles:
        if not ensemble.samples or any(row not in sample for sample in ensemble.samples):
            raise ValueError(f"{ensemble.observation.name}: no samples with {row}; choose a row that was generated")
    return row


def heading(page: Page, grid: Grid, first: Ensemble, given: Sequence[str], row: str) -> None:
    """What is in each column, once at the top."""
    table = first.observation.table
    scalars = [name for name in first.condition.given if not table[name].is_image]
    page.text(EDGE, 0.05, asked_of(row_title(table[row]), first), 8, weight="bold")
    known = f"given too: {', '.join(scalars)}; " if scalars else "place and date are for reference only; "
    page.text(PAGE - EDGE, 0.06, f"{'' if table.names == table.images else known}north is up", SMALL, PALE, ha="right")
    titles = [*(f"{row_title(table[name])}" for name in given), "observed"][: grid.references]
    if grid.lines == 1:
        for k, words in enumerate(titles):
            x, _ = grid.reference(k)
            page.text(x + grid.side / 2, TOP - 0.04, words, 7, ha="center", va="bottom")
    else:
        for k in range(0, len(titles), grid.lines):
            x, _ = grid.reference(k)
            words = fill(", ".join(titles[k : k + grid.lines]), max(int(grid.side / LETTER), 8))
            page.text(x, TOP - 0.04, words, SMALL, va="bottom", linespacing=1.1)
    x, _ = grid.sample(0)
    page.text(x, TOP - 0.04, f"generated ({name_of(first.samples[0], 0)} and following)", 7, va="bottom")


def block(
    page: Page, grid: Grid, ensemble: Ensemble, given: Sequence[str], row: str, count: int, chosen: Look, y: float, ruler: bool,
) -> None:
    """One place: words at the left, reference layers, samples."""
    truth, samples, table = ensemble.observation, ensemble.samples[:count], ensemble.observation.table
    name, *words = [*where_and_when(truth), *heights(ensemble, given)]
    page.text(EDGE, y, name, 7, weight="bold", wrap=True)
    page.text(EDGE, y + 0.15, "\n".join(words), SMALL, linespacing=1.35)
    shown = [*([truth[row]] if row in truth else []), *(sample[row] for sample in samples)]
    pictures = chosen.pictures(table[row], shown)
    for k, name in enumerate(given):
        x, down = grid.reference(k)
        if name in truth:
            page.picture(x, y + down, grid.side, chosen.pictures(table[name], [truth[name]])[0], chosen.frames["given"])
        else:                                    # what is given to `copgen generate` isn't written again
            missing(page, x, y + down, grid.side, "not kept")
    x, down = grid.reference(len(given))
    first: Axes | None = None
    if row in truth:
        first = page.picture(x, y + down, grid.side, pictures[0], chosen.frames["truth"])
    elif grid.references:
        missing(page, x, y + down, grid.side)
    own: list[Picture] = pictures[len(shown) - len(samples):]
    for k, colours in enumerate(own):
        x, down = grid.sample(k)
        axes = page.picture(x, y + down, grid.side, colours, chosen.frames["sample"])
        first = first or axes
    if ruler and first:
        scale_and_north(first, table.footprint, grid.side)


def heights(ensemble: Ensemble, given: Sequence[str]) -> list[str]:
    table = ensemble.observation.table
    truth = ensemble.observation
    layers = [quantity(table[name], truth[name]) for name in given if name in truth and isinstance(table[name].scale, LogHeight)]
    return [f"{layer.min():.0f} to {layer.max():.0f} m" for layer in layers]


def footing(page: Page, ensembles: Sequence[Ensemble], rows: Sequence[str], row: str, chosen: Look, y: float) -> None:
    """Keys of what is drawn, and how its colours are to be read."""
    table, scenes = ensembles[0].observation.table, [ensemble.observation for ensemble in ensembles]
    x = page.frames(y, chosen)
    for name in rows:
        if isinstance(table[name].scale, LogHeight) and chosen.name == "ours":
            relief_key(page, x + 0.1, y, "heights, low to high: each place its own range")
    page.text(EDGE, y + 0.17, f"{row_title(table[row])}: {reading(chosen, table[row])}", SMALL, PALE)
    y += 0.32
    for name in rows:
        legend = table[name].legend
        if legend:
            y = class_key(page, EDGE, y, legend, codes_in(scenes, name))
