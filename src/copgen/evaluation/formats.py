"""What is a table of results, and how is it written? Markdown, CSV, LaTeX, and the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from copgen.files import write_all

if TYPE_CHECKING:
    from rich.table import Table as RichTable

SIGNIFICANT = 3                                  # digits that a number is printed with
TINY, HUGE = 1e-4, 1e7                           # outside, a power of ten is printed
ROUNDING = 1e-12                                 # and what is smaller is 0
NOTHING = "–"                                    # what could not be measured


@dataclass(frozen=True)
class Number:
    """A number with the central range in which it lies when places are drawn anew, and what the paper writes behind its ±.

    `low` and `high` are None where there is no such range (one place, a number that was printed elsewhere); `std` is the standard
    deviation over runs or tiles, with a range of its own.
    """

    value: float
    low: float | None = None
    high: float | None = None
    std: float | None = None
    std_low: float | None = None
    std_high: float | None = None
    best: bool = False                           # of its row: bold
    printed: int | None = None                   # places behind the point that it was printed with elsewhere

    @property
    def decimals(self) -> int | None:
        """Places behind the point of all that belongs to the number; None where powers of ten are needed."""
        if self.printed is not None:
            return self.printed
        size = max(abs(x) for x in (self.value, self.low, self.high) if x is not None and math.isfinite(x)) if self.known else 0.0
        if size < ROUNDING:
            return SIGNIFICANT - 1
        return max(0, SIGNIFICANT - 1 - math.floor(math.log10(size))) if TINY <= size < HUGE else None

    @property
    def known(self) -> bool:
        return math.isfinite(self.value)

    def __str__(self) -> str:
        return self.text()

    def text(self, plus_minus: str = "±", interval: bool = True) -> str:
        """ "301 ± 9.5 [295, 307]" with as many digits as make sense."""
        if not self.known:
            return NOTHING
        written = self.written(self.value)
        if self.std is not None:
            written += f" {plus_minus} {self.written(self.std)}"
        if interval and self.low is not None and self.high is not None:
            written += f" [{self.written(self.low)}, {self.written(self.high)}]"
        return written

    def written(self, value: float) -> str:
        text = f"{value:.{SIGNIFICANT - 1}e}" if self.decimals is None else f"{value:.{self.decimals}f}"
        return text.removeprefix("-") if float(text) == 0 else text


Cell = Number | str | int | None                 # None: empty


@dataclass(frozen=True)
class Column:
    """A column's heading, and the heading above it that neighbours share: a generator's name."""

    name: str
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table of results: every row has a cell a column. `counts` says from how many tiles, samples and seeds it was made."""

    name: str                                    # of its files: "table-3"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    counts: Table | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: a row has {len(row)} cells for {len(self.columns)} columns; give one each")

    @property
    def headings(self) -> tuple[str, ...]:
        """One line of headings: "nano: best"."""
        return tuple(f"{one.group}: {one.name}" if one.group and one.name else one.group or one.name for one in self.columns)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings above, each with how many columns it spans; "" where there is none."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers: it is set flush right."""
        return any(isinstance(row[column], (Number, int)) for row in self.rows)


def plain(cell: Cell) -> str:
    """A cell as text."""
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)


def save(tables: Iterable[Table], folder: Path, formats: Sequence[str] = ("md", "csv", "tex")) -> list[Path]:
    """Write every table in every format to `folder`, replacing what is there: <name>.md, <name>.csv, <name>.tex, <name>-counts.csv."""
    if unknown := [one for one in formats if one not in WRITERS]:
        raise ValueError(f"format {unknown[0]!r}: there are {', '.join(WRITERS)}")
    whole = [one for table in tables for one in (table, table.counts) if one]
    return write_all({Path(folder) / f"{table.name}.{one}": WRITERS[one](table).encode() for table in whole for one in formats
                      if one == "csv" or not any(table is other.counts for other in whole)}, overwrite=True)


# --- Markdown -----------------------------------------------------------------------------------------------------------------------

def markdown(table: Table, level: int = 2) -> str:
    """The table with its title, notes and counts in GitHub's Markdown."""
    lines = [f"{'#' * level} {table.title}", ""]
    lines += [bar(escape_bar(one) for one in table.headings), bar("--:" if table.numeric(k) else "---" for k in range(len(table.columns)))]
    lines += [bar(bold(cell, escape_bar(plain(cell)), "**", "**") for cell in row) for row in table.rows]
    lines += ["", *(f"- {note}" for note in table.notes)]
    if table.counts:
        lines += ["", markdown(table.counts, level + 1)]
    return "\n".join(lines).rstrip() + "\n"


def bar(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape_bar(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def bold(cell: Cell, text: str, before: str, after: str) -> str:
    return f"{before}{text}{after}" if isinstance(cell, Number) and cell.best else text


# --- CSV ----------------------------------------------------------------------------------------------------------------------------

PARTS: Mapping[str, str] = {"": "value", " low": "low", " high": "high", " std": "std", " std low": "std_low", " std high": "std_high"}


def comma_separated(table: Table) -> str:
    """One line a row in full precision: a column of numbers becomes its value and, where there are any, "... low", "... high", "... std".

    Title and notes follow, each line starting with "#": `pandas.read_csv(path, comment="#")` leaves them out.
    """
    parts = {k: [end for end, name in PARTS.items() if any(getattr(row[k], name, None) is not None for row in table.rows)]
             for k in range(len(table.columns)) if any(isinstance(row[k], Number) for row in table.rows)}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([heading + end for k, heading in enumerate(table.headings) for end in parts.get(k, [""])])
    for row in table.rows:
        writer.writerow([exact(cell, end) for k, cell in enumerate(row) for end in parts.get(k, [""])])
    for note in (table.title, *table.notes):
        file.write(f"# {' '.join(note.split())}\n")
    return file.getvalue()


def exact(cell: Cell, end: str) -> str:
    if not isinstance(cell, Number):
        return "" if cell is None or end else str(cell)
    value = getattr(cell, PARTS[end])
    return "" if value is None or not math.isfinite(value) else repr(float(value))


# --- LaTeX --------------------------------------------------------------------------------------------------------------------------

SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$",
           "≥": r"$\geq$", "≤": r"$\leq$", "–": "--", "²": r"$^2$", "χ": r"$\chi$", "×": r"$\times$", "<": r"$<$", ">": r"$>$",
           "°": r"$^\circ$", "µ": r"$\mu$"}


def latex(table: Table) -> str:
    r"""A float with booktabs' rules (`\usepackage{booktabs}`): title, notes and counts are in its caption and below it."""
    layout = "".join("r" if table.numeric(k) else "l" for k in range(len(table.columns)))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_tex(table.title)}}}", rf"\label{{tab:{table.name}}}",
             rf"\begin{{tabular}}{{{layout}}}", r"\toprule", *above(table),
             tex_row(escape_tex(column.name) for column in table.columns), r"\midrule"]
    before: Cell = None
    for row in table.rows:
        if before is not None and row[0] != before and isinstance(row[0], str):
            lines.append(r"\addlinespace")
        before = row[0]
        lines.append(tex_row(bold(cell, escape_tex(plain(cell)), r"\textbf{", "}") for cell in row))
    notes = (rf"\par\smallskip\footnotesize {escape_tex(note)}" for note in table.notes)
    lines += [r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]
    return "\n".join(lines) + "\n" + (latex(table.counts) if table.counts else "")


def above(table: Table) -> list[str]:
    """The line of headings that several columns share, with the rules below them."""
    if not any(name for name, _ in table.groups):
        return []
    cells, rules, at = [], [], 1
    for name, width in table.groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_tex(name)}}}")
        rules += [rf"\cmidrule(lr){{{at}-{at + width - 1}}}"] if name else []
        at += width
    return [tex_row(cells), "".join(rules)]


def tex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape_tex(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


# --- the terminal -------------------------------------------------------------------------------------------------------------------

def terminal(table: Table) -> RichTable:
    """The table for `rich.console.Console.print`; its notes and counts are the caption."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    below = [escape(note) for note in table.notes]
    if table.counts:
        below += [escape("; ".join(f"{heading} {plain(cell)}" for heading, cell in zip(table.counts.headings, row, strict=True)))
                  for row in table.counts.rows]
    grid = RichTable(title=escape(table.title), title_justify="left", caption="\n".join(below) or None, caption_justify="left")
    for k, heading in enumerate(table.headings):
        grid.add_column(escape(heading), justify="right" if table.numeric(k) else "left")
    for row in table.rows:
        grid.add_row(*(bold(cell, escape(plain(cell)), "[bold]", "[/bold]") for cell in row))
    return grid


WRITERS = {"md": markdown, "csv": comma_separated, "tex": latex}
