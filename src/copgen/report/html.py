"""How is a page written that opens anywhere? HTML in one file: everything escaped, nothing fetched, pictures within."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from copgen.evaluation.formats import Cell, Number, Table, plain

VOID = frozenset({"img", "meta", "br", "hr", "wbr"})
FOLDED = 60                                      # lines: a longer table is opened by who wants it
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"               # a browser that keeps to it asks nobody for anything

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.5rem 4rem; background: #fff; color: #16191d;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: .6rem; border-top: 2px solid #16191d; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
h4 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
p, li { max-width: 46rem; }
.lead { color: #4a4f57; margin-top: 0; }
a { color: #004b87; }
nav > ol { padding-left: 1.2rem; margin: .4rem 0 0; }
nav ol ol { columns: 2; column-gap: 2.5rem; font-size: .85rem; padding-left: 1.6rem; }
nav ol ol li { max-width: 24rem; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
nav ol ol li { break-inside: avoid; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .82rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .22rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e2e1dd; }
thead th { border-bottom: 1px solid #16191d; vertical-align: bottom; }
thead tr.groups th { border-bottom: 1px solid #a9acb0; text-align: center; }
td.number, th.number { text-align: right; white-space: nowrap; }
td .range, td .plus { color: #666b72; font-size: .88em; }
.notes, .small { font-size: .85rem; color: #4a4f57; }
.notes { padding-left: 1.1rem; margin: .2rem 0 1rem; }
.verdict { font-size: 1rem; width: 100%; table-layout: fixed; }
.verdict th, .verdict td { padding: .55rem .7rem; }
.verdict td, .verdict thead th { width: 21%; border: 2px solid #fff; }
.verdict thead td { background: none; }
.verdict thead th .said { font-weight: 400; }
.verdict tbody th { vertical-align: middle; }
.verdict .big { font-size: 1.25rem; font-weight: 650; white-space: nowrap; }
.verdict .sign { font-size: 1.2rem; display: inline-block; width: 1.4em; }
.verdict .said { display: block; font-size: .82rem; color: #34383e; }
td.good { background: #d6e6f5; } td.fair { background: #efeeea; } td.poor { background: #f9d9c4; }
td.unknown { background: #fff; color: #666b72; }
figure { margin: 1.2rem 0 2rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; max-width: 46rem; margin-top: .4rem; color: #34383e; }
figcaption b { color: #16191d; }
code, pre { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: #f5f4f1; padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
dt { font-weight: 600; margin-top: .7rem; } dd { margin: 0 0 0 1.2rem; max-width: 44rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; } h3, h4, caption { break-after: avoid; }
  figure, tr, .verdict { break-inside: avoid; }
  .scroll { overflow: visible; }
  a { color: inherit; text-decoration: none; }
}
"""


class Markup(str):
    """What is HTML already; any other string is text, and is escaped where it enters a page."""


def escaped(content: str) -> Markup:
    return content if isinstance(content, Markup) else Markup(html.escape(content, quote=True))


def tag(name: str, /, *content: str, **attributes: str | int) -> Markup:
    """An element; attributes whose names are Python's own end in an underscore: class_."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"' for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(escaped(part) for part in content)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    return Markup("\n".join(escaped(part) for part in parts))


def page(title: str, body: Sequence[str]) -> bytes:
    """A whole page; no element of it names another file or site."""
    head = tag("head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"), tag("title", title),
               tag("style", Markup(STYLE)))
    return ("<!DOCTYPE html>\n" + tag("html", head, "\n", tag("body", joined(body)), lang="en") + "\n").encode("utf-8")


def picture(png: bytes, words: str, width: int | None = None) -> Markup:
    """A PNG within the page; `words` say what it shows where it can't be seen."""
    size = {"width": width} if width else {}
    return tag("img", src="data:image/png;base64," + base64.b64encode(png).decode(), alt=words, **size)


def listed(lines: Iterable[str], class_: str = "notes") -> Markup:
    items = [tag("li", line) for line in lines]
    return tag("ul", *items, class_=class_) if items else Markup("")


# --- tables of results --------------------------------------------------------------------------------------------------------------

def table(one: Table) -> Markup:
    """A table with its headings, notes and counts; a long one is folded up."""
    numeric = [one.numeric(k) for k in range(len(one.columns))]
    head = [tag("tr", *(tag("th", column.name, **kind(numeric[k])) for k, column in enumerate(one.columns)))]
    if any(name for name, _ in one.groups):
        head.insert(0, tag("tr", *(tag("th", name, colspan=width) for name, width in one.groups), class_="groups"))
    grid = tag("table", tag("caption", one.title), tag("thead", *head), tag("tbody", joined(lines(one, numeric))))
    framed = tag("div", grid, class_="scroll")
    if len(one.rows) > FOLDED:
        framed = tag("details", tag("summary", f"{one.title}: {len(one.rows)} lines"), framed)
    return joined([framed, listed(one.notes), *([table(one.counts)] if one.counts else [])])


def lines(one: Table, numeric: Sequence[bool]) -> list[Markup]:
    """The lines of a table; what the first columns say again and again is said once, beside all lines that it is of."""
    labels = next((k for k, number in enumerate(numeric) if number), len(numeric)) - 1
    found = []
    for at, row in enumerate(one.rows):
        cells = []
        for k, value in enumerate(row):
            many = 1 if k >= labels else repeated(one, at, k)
            if many:
                cells.append(tag("td", cell(value), **kind(numeric[k]), **({"rowspan": many} if many > 1 else {})))
        found.append(tag("tr", *cells))
    return found


def repeated(one: Table, at: int, column: int) -> int:
    """For how many lines from this one on a label stands; 0 where the line above has it already."""
    wanted = one.rows[at][:column + 1]
    if at and one.rows[at - 1][:column + 1] == wanted:
        return 0
    return next((k for k in range(1, len(one.rows) - at) if one.rows[at + k][:column + 1] != wanted), len(one.rows) - at)


def kind(numeric: bool) -> dict[str, str | int]:
    return {"class_": "number"} if numeric else {}


def cell(value: Cell) -> Markup:
    """A number with its range beside it in grey; bold where it is the best of its row."""
    if not isinstance(value, Number) or not value.known:
        return Markup(escaped(plain(value)).replace("+", "+<wbr>"))                  # what was given may break there
    number = escaped(value.written(value.value))
    parts = [tag("b", number) if value.best else number]
    parts += [tag("span", f" ± {value.written(value.std)}", class_="plus")] if value.std is not None else []
    if value.low is not None and value.high is not None:
        parts.append(tag("span", f" [{value.written(value.low)}, {value.written(value.high)}]", class_="range"))
    return Markup("".join(parts))
