"""How were the numbers of a report made? What was asked of whom, of which truth, with what versions, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from copgen import __version__
from copgen.evaluation.formats import Cell, Column, Table
from copgen.evaluation.rows import FAILED
from copgen.report.html import Markup, joined, listed, table, tag

SHOWN = 8                                        # failures of a run
DIGITS = 12                                      # of a hash


def making(metas: Mapping[str, Mapping[str, Any]], paths: Sequence[Path], commands: Sequence[str] = ()) -> Markup:
    """The section: a table of runs, what each generator and the truth are, the recipe, failures, and the commands."""
    parts: list[str] = [table(counts(metas)), tag("h3", "Generators")]
    parts += [recorded(name, meta.get("generator", {})) for name, meta in metas.items()]
    parts += [tag("h3", "Truth"), *different({name: meta.get("cases", {}) for name, meta in metas.items()})]
    parts += [tag("h3", "What was asked"), *(table(asked(name, meta)) for name, meta in distinct(metas, "recipe").items())]
    for name, path in zip(metas, paths, strict=True):
        parts += failures(name, path)
    lines = list(commands) or [f"copgen evaluate report {' '.join(path.name for path in paths)}"]
    parts += [tag("h3", "Commands"), tag("pre", "\n".join(lines)), tag("p", f"This page was made by copgen {__version__}.", class_="small")]
    return joined(parts)


def counts(metas: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line a run: tiles, and how many of its parts are finished."""
    rows: list[tuple[Cell, ...]] = []
    for name, meta in metas.items():
        skipped = meta.get("skipped") or {}
        rows.append((name, len(meta.get("names") or meta.get("places") or ()), int(meta.get("expected") or 0),
                     int(meta.get("finished") or 0), sum(skipped.values()), int(meta.get("failed") or 0)))
    columns = ("generator", "tiles", "parts asked for", "finished", "of them not applicable", "failed")
    notes = ["A part is one condition of one tile. It does not apply where the tile lacks what is given or scored."]
    notes += [f"{name}: {count} times: {reason}" for name, meta in metas.items() for reason, count in (meta.get("skipped") or {}).items()]
    return Table("counts", "What was evaluated", tuple(Column(one) for one in columns), tuple(rows), tuple(notes))


def recorded(name: str, record: Mapping[str, Any]) -> Markup:
    """A record as a list of what it says; hashes are cut, files are counted."""
    return joined([tag("h4", name), listed(f"{key}: {told(value)}" for key, value in record.items() if key != "name")])


def told(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {told(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(told(part) for part in value[:24]) + (f" and {len(value) - 24} more" if len(value) > 24 else "")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return text[:DIGITS] + "…" if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text) else text


def different(records: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    """Once where all runs have the same, else one each: then they don't compare."""
    texts = {name: json.dumps(record, sort_keys=True) for name, record in records.items()}
    if len(set(texts.values())) == 1:
        return [recorded("the same for all" if len(records) > 1 else next(iter(records)), next(iter(records.values())))]
    warning = tag("p", "The runs have different truths: their numbers do not compare.")
    return [warning, *(recorded(name, record) for name, record in records.items())]


def distinct(metas: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Mapping[str, Any]]:
    """The runs whose `key` differs, named by all that share it."""
    found: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for name, meta in metas.items():
        found.setdefault(json.dumps(meta.get(key), sort_keys=True), ([], meta))[0].append(name)
    return {", ".join(names): meta for names, meta in found.values()}


def asked(name: str, meta: Mapping[str, Any]) -> Table:
    """The conditions that cases were under: a line each."""
    rows: list[tuple[Cell, ...]] = []
    for one in meta.get("conditions") or ():
        rows.append((str(one.get("protocol", "")), ", ".join(one.get("given") or ()) or "nothing", ", ".join(one.get("scored") or ()),
                     str(one.get("swap") or ""), int(one.get("samples") or 0), int(one.get("cells") or 0)))
    columns = ("protocol", "given rows", "scored rows", "swapped", "samples", "tiles")
    recipe = meta.get("recipe") or {}
    note = f"Further true observations of each tile, where there are any: {recipe.get('truths', 0)}."
    return Table("asked", f"Conditions ({name})", tuple(Column(one) for one in columns), tuple(rows), (note,))


def failures(name: str, path: Path) -> list[Markup]:
    """The first lines of failed.jsonl."""
    file = (path if path.is_dir() else path.parent) / FAILED
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    if not lines:
        return []
    said = [json.loads(line) for line in lines[:SHOWN]]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [tag("h4", f"What failed: {name}"), listed([f"{one.get('cell')}, condition {one.get('condition')}: {one.get('why')}"
                                                      for one in said] + more)]
