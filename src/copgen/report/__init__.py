"""What did an evaluation find? One HTML page that a reviewer can read without the code: verdict, making, tables, figures, definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from copgen.evaluation.arrays import Results
from copgen.evaluation.compare import compare
from copgen.evaluation.datasets import lines_of_runs, table_of
from copgen.evaluation.distribution import best_table, distribution_tables
from copgen.evaluation.features import open_feature
from copgen.evaluation.formats import Table
from copgen.evaluation.rows import read_rows
from copgen.evaluation.tables import paper_tables
from copgen.figures.basemap import Basemap
from copgen.files import write_whole
from copgen.report.definitions import UNITS, definition
from copgen.report.groups import Condition, conditions_of
from copgen.report.html import Markup, joined, listed, page, picture, table, tag
from copgen.report.making import making
from copgen.report.pictures import Gallery, kept_of, of_rows, of_samples
from copgen.report.verdict import PROPERTIES, SIGNS, UNKNOWN, Judged, Property, verdict

__all__ = ["report"]

PAGE = "index.html"
CONDITIONS = 3                                   # that a verdict is given on, and whose calibration is drawn
SECTIONS = (("verdict", "Verdict at a glance"), ("making", "How it was made"), ("tables", "Tables"), ("figures", "Figures"),
            ("definitions", "What every statistic means"))


def report(
    runs: Sequence[Path], out: Path, *, title: str = "Evaluation", basemap: Basemap | None = None, commands: Sequence[str] = (),
    tables: Sequence[Table] | None = None, features: Sequence[str] = (), overwrite: bool = True,
) -> Path:
    """Write one page of the evaluations `runs` (folders, or files of rows; one generator each) to `out`/index.html and return its path.

    Everything is within the page; it asks for nothing from elsewhere, and the same runs give the same bytes. Maps lie over `basemap`,
    `commands` are shown as how it was made, `tables` stand in place of all that rows can make. By `features` (texts for `open_feature`)
    all kept samples are compared with all truths. Raises ValueError for no runs, for what is no evaluation, and where the page can't be
    written.
    """
    if not runs:
        raise ValueError("a report needs at least one evaluation; name the folder of one")
    paths = [Path(run) for run in runs]
    results = results_of(paths)
    conditions = conditions_of(results)
    gallery = Gallery()
    of_rows(gallery, results, conditions[:CONDITIONS])
    of_samples(gallery, [one for run, path in zip(results, paths, strict=True)
                         for one in kept_of(run.name, path, run.meta.get("recipe") or {})], basemap)
    shown = [*whole_sets(paths, features), *(tables if tables is not None else all_tables(results))]
    metas = {run.name: run.meta for run in results}
    contents = {
        "verdict": glance(results, conditions[:CONDITIONS]),
        "making": making(metas, paths, commands),
        "tables": joined(tag("div", table(one), id=one.name) for one in shown) if shown else tag("p", "No table has any rows."),
        "figures": figures(gallery), "definitions": definitions(results),
    }
    body = [tag("h1", title), tag("p", lead(results, metas), class_="lead"), contents_of(shown, gallery)]
    body += [joined([tag("h2", words, id=key), contents[key]]) for key, words in SECTIONS]
    return write_whole(Path(out) / PAGE, page(title, body), overwrite=overwrite)


def results_of(paths: Sequence[Path]) -> list[Results]:
    """A generator's rows each, with the names that tell them apart."""
    rows = read_rows(list(paths))
    metas = rows.meta.get("runs") or [rows.meta]
    names = [str(name) for name in rows.frame["generator"].cat.categories]
    return [Results(rows.frame[rows.frame["generator"] == name], name, meta) for name, meta in zip(names, metas, strict=True)]


def whole_sets(paths: Sequence[Path], features: Sequence[str]) -> list[Table]:
    """The table of all samples beside all truths, where features are named."""
    return [table_of(lines_of_runs(paths, [open_feature(text) for text in features]))] if features else []


def all_tables(results: Sequence[Results]) -> list[Table]:
    """The paper's tables, those of distributions, of the best of N, and the first generator against each other one it compares with."""
    found = [*paper_tables(results), *distribution_tables(results), best_table(results, sane=False)]
    for k, other in enumerate(results[1:], 1):
        try:
            one = compare(results[0], other, sane=False)
        except ValueError:                       # they were not asked for the same: the other tables still stand
            continue
        found.append(replace(one, name=f"{one.name}-{k}"))
    return [one for one in found if one.rows]


def lead(results: Sequence[Results], metas: Mapping[str, Mapping[str, Any]]) -> str:
    """What this page is of, in a sentence."""
    tiles = max(len(run.cells) for run in results)
    names = ", ".join(run.name for run in results)
    return (f"{len(results)} generator{'s' if len(results) > 1 else ''} ({names}) on {tiles} tiles, judged as samples of a distribution: "
            "by how near they are, whether their spread can be believed, how much of what is possible they cover, and whether their layers "
            "belong together.")


def contents_of(tables: Sequence[Table], gallery: Gallery) -> Markup:
    """The table of contents, with what stands in the longer sections."""
    inner = {"tables": [(one.name, one.title) for one in tables],
             "figures": [(f"figure-{k}", one.title) for k, one in enumerate(gallery.shown, 1)]}
    items = []
    for key, words in SECTIONS:
        below = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title in inner.get(key, ())]
        items.append(tag("li", tag("a", words, href=f"#{key}"), *([tag("ol", *below)] if below else [])))
    return tag("nav", tag("ol", *items), aria_label="Contents")


# --- verdict ------------------------------------------------------------------------------------------------------------------------

def glance(results: Sequence[Results], conditions: Sequence[Condition]) -> Markup:
    """A matrix of generators and properties for each condition, then the rules of its signs and its single numbers."""
    if not conditions:
        return tag("p", "Nothing was drawn more than once, so that there is no distribution to judge; see the tables.")
    rules = [joined([tag("b", f"{one.name}, {one.number}: "), one.rule]) for one in PROPERTIES]
    every = [verdict(results, one.group) for one in conditions]
    told = [k for k, found in enumerate(every) if k == 0 or known(found) > 1]        # a condition of a few tiles tells little
    conditions, found = [conditions[k] for k in told], [every[k] for k in told]
    said = ("Blue and ✓: as it should be. Grey and ○: in between. Orange and ✗: not so. Each number is a mean over layers (or measures); "
            "below it the range in which it lies when blocks of tiles are drawn anew (95 %).")
    both = list(zip((capital(one.title) for one in conditions), found, strict=True))
    return joined([
        tag("p", said), *(part for title, judged in both for part in (tag("h3", title), matrix(judged))),
        tag("h3", "How the signs are made"), listed(rules),
        tag("h3", "The single numbers"), *(part for title, judged in both for part in (tag("h4", title), single_numbers(judged)))])


def known(found: Mapping[str, Mapping[str, Judged]]) -> int:
    """How many of its properties are known of the generator of which most are."""
    return max(sum(one.sign != UNKNOWN for one in judged.values()) for judged in found.values())


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def matrix(found: Mapping[str, Mapping[str, Judged]]) -> Markup:
    head = [tag("th", one.name, tag("span", one.question, class_="said")) for one in PROPERTIES]
    lines = [tag("tr", tag("th", name, scope="row"), *(square(one, judged[one.name]) for one in PROPERTIES))
             for name, judged in found.items()]
    return tag("table", tag("thead", tag("tr", tag("td", ""), *head)), tag("tbody", *lines), class_="verdict")


def square(one: Property, found: Judged) -> Markup:
    """One field of the matrix: its sign, its number and what that is."""
    sign = tag("span", SIGNS[found.sign], class_="sign", title=found.sign)
    if found.sign == UNKNOWN:
        return tag("td", sign, tag("span", f"not measured: {one.missing}", class_="said"), class_=UNKNOWN)
    spread = f"{found.low:.2f} to {found.high:.2f}" if np.isfinite(found.low) else "one block of tiles: no range"
    return tag("td", sign, tag("span", found.written, class_="big"), tag("span", one.number, class_="said"),
               tag("span", spread, class_="said"), class_=found.sign)


def single_numbers(found: Mapping[str, Mapping[str, Judged]]) -> Markup:
    """Every modality's or measure's number, generators side by side."""
    rows = []
    for one in PROPERTIES:
        parts = list(dict.fromkeys(part for judged in found.values() for part in judged[one.name].parts))
        for k, part in enumerate(parts):
            numbers = [tag("td", written(judged[one.name].parts.get(part)), class_="number") for judged in found.values()]
            title = [tag("th", one.name, rowspan=len(parts), scope="rowgroup")] if k == 0 else []
            rows.append(tag("tr", *title, tag("td", part), *numbers))
    head = tag("tr", tag("th", "property"), tag("th", "of"), *(tag("th", name, class_="number") for name in found))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll")


def written(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


# --- figures and definitions --------------------------------------------------------------------------------------------------------

def figures(gallery: Gallery) -> Markup:
    parts = []
    for k, one in enumerate(gallery.shown, 1):
        caption = tag("figcaption", tag("b", f"Figure {k}. {one.title}. "), one.caption)
        parts.append(tag("figure", picture(one.png, one.title, one.width), caption, id=f"figure-{k}"))
    if gallery.missing:
        parts += [tag("h3", "Not drawn, and why"), listed(gallery.missing)]
    return joined(parts)


def definitions(results: Sequence[Results]) -> Markup:
    """Those of the statistics that the rows have, in the order of the definitions."""
    there = {name for run in results for one in run.asked for modality in run.modalities((one,))
             for name in run.statistics((one,), modality)}
    known = {one.name: one for one in map(definition, sorted(there)) if one}
    lines = []
    for one in sorted(known.values(), key=lambda one: one.name.strip(": ")):
        reference = [tag("span", f" ({one.reference})", class_="small")] if one.reference else []
        lines += [tag("dt", one.name.strip(": ")), tag("dd", one.words, *reference)]
    return joined([tag("p", UNITS), tag("dl", *lines)])
