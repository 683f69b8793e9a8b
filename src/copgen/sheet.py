"""What a person looks at first: one sheet with the given layers, the samples side by side, legends, scale, place and date."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from copgen import __version__
from copgen.drawing import INK, MONTHS, PAPER, RULE, SWATCH, TILE, WHITE, Canvas, Colour, fitting, world, year_line
from copgen.files import write_whole
from copgen.modalities import Table
from copgen.pictures import HEAT, RADAR_RANGES, TINTS, Relief, composite, drawn_as, picture, ramp, spread
from copgen.scaling import Decibel, EightBit, Legend, Linear, LogHeight
from copgen.scene import Scene

CHANNELS = ((198, 62, 52), (58, 140, 74), (58, 98, 184))

MARGIN, LABEL, GAP, BLOCK = 32, 124, 8, 28                 # in units of which one pixel at 10 m is one
SHOWN = 8                                                  # samples on a sheet; the others are counted


@dataclass(frozen=True)
class Plan:
    """What is on a sheet, and what its pictures share."""

    given: Scene
    samples: Sequence[Scene]                     # all of them, for the spread
    columns: Sequence[tuple[str, Scene]]         # title and scene
    rows: tuple[str, ...]                        # generated layers; the last may be PLACE for place and date
    given_rows: tuple[str, ...]
    relief: Relief | None
    classes: dict[str, tuple[int, ...]]          # the codes that occur anywhere, by row

    @property
    def table(self) -> Table:
        return self.given.table

    @property
    def tile(self) -> int:
        """One side of a picture, in units: every pixel of the finest row is a whole number of them."""
        finest = max((self.table.side(name) for name in self.table.images), default=TILE)
        return -(-TILE // finest) * finest

    @property
    def spread(self) -> bool:
        return len(self.samples) > 1

    @property
    def width(self) -> float:
        one = LABEL + self.tile
        if len(self.columns) == 1:
            cells = min(3, max(2, len(self.rows), len(self.given_rows)))
            return 2 * MARGIN + cells * one + (cells - 1) * BLOCK
        grid = LABEL + len(self.columns) * (self.tile + GAP) - GAP + (BLOCK + self.tile + 52 if self.spread else 0)
        return 2 * MARGIN + max(grid, 2 * one + BLOCK)


PLACE, PLACE_HEIGHT = "place, date", TILE / 2 + 78


def contact_sheet(
    given: Scene | None, samples: Sequence[Scene], path: Path | None = None, *, real: Scene | None = None, overwrite: bool = False,
    scale: int = 2,
) -> Image.Image:
    """One sheet of a generation: given layers, then the samples side by side (the first eight), then how much all of them differ.

    `real` adds a column of observed layers to compare with. With a `path` it is written as PNG, whole or not at all. One unit of the
    layout is `scale` pixels; a pixel at 10 m is one unit. Raises ValueError for no samples, or where it cannot be written.
    """
    if not samples:
        raise ValueError("a contact sheet needs at least one sample")
    plan = planned(given, samples, real)
    height = 420 + (len(plan.rows) + len(plan.given_rows)) * (plan.tile + 60)
    canvas = Canvas(Image.new("RGB", (round(plan.width * scale), height * scale), PAPER), scale)
    y = header(canvas, plan)
    if plan.given_rows:
        y = section(canvas, "GIVEN", y, plan.width)
        y = cells(canvas, plan, plan.given, plan.given_rows, y)
    y = section(canvas, "GENERATED", y, plan.width)
    y = cells(canvas, plan, plan.columns[0][1], plan.rows, y) if len(plan.columns) == 1 else grid(canvas, plan, y)
    y = footer(canvas, plan, y)
    image = canvas.image.crop((0, 0, canvas.image.width, round(y * scale)))
    if path is not None:
        write_whole(Path(path), png(image), overwrite=overwrite)
    return image


def png(image: Image.Image) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "PNG")
    return memory.getvalue()


def planned(given: Scene | None, samples: Sequence[Scene], real: Scene | None) -> Plan:
    first = samples[0]
    given = given or Scene({}, first.footprint, first.name, first.table)
    made = tuple(name for name in first.layers if name not in given)
    columns = [(f"seed {s.notes['seed']}" if "seed" in s.notes else f"sample {k + 1}", s) for k, s in enumerate(samples[:SHOWN])]
    everything = [*([real] if real else []), given, *samples]
    images = [row for row in first.table.rows if row.is_image]
    heights = [(row, [s[row.name] for s in everything if row.name in s]) for row in images if isinstance(row.scale, LogHeight)]
    relief = next((Relief.of(layers, row.resolution or 1) for row, layers in heights if layers), None)
    classes = {row.name: occurring(row.legend, [s[row.name] for s in everything if row.name in s]) for row in images if row.legend}
    columns = [*([("real", real)] if real else []), *columns]
    shown = [name for name in given.layers if given.table[name].is_image]      # place and date are in the header
    return Plan(given, samples, columns, drawn(given.table, made), drawn(given.table, shown), relief, classes)


def occurring(legend: Legend, layers: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    there = {int(code) for layer in layers for code in np.unique(layer)}
    return tuple(code for code in legend.codes if code in there)


def drawn(table: Table, names: Iterable[str]) -> tuple[str, ...]:
    """Rows in the order of a sheet: what looks like a photograph first (the table's products from the last), place and date last."""
    names = set(names)
    images = [row.name for product in reversed(table.products) for row in table.rows if row.product == product and row.is_image]
    return (*(name for name in images if name in names), *([PLACE] if names - set(images) else []))


def header(canvas: Canvas, plan: Plan) -> float:
    """What was made of what, where, when and by whom; on the right the place on a map, if it is known."""
    given, room = plan.given, plan.width - 2 * MARGIN
    where = centre(given)
    if where is not None:
        room -= TILE + BLOCK
        world(canvas, [where], plan.width - MARGIN - TILE, MARGIN)
    canvas.text(MARGIN, MARGIN - 4, given.name, fitting(given.name, 26, room), INK)
    known = products(plan.table, given.layers) or "nothing given"
    made = products(plan.table, set(plan.samples[0].layers) - set(given.layers))
    size = fitting(f"{known}mmmm{made}", 14, room)
    x, y = canvas.text(MARGIN, MARGIN + 34, known, size, INK), MARGIN + 42
    canvas.line([(x + 10, y), (x + 30, y)], INK)
    canvas.line([(x + 26, y - 4), (x + 30, y), (x + 26, y + 4)], INK)
    canvas.text(x + 40, MARGIN + 34, made, size, INK)
    for k, words in enumerate((ground(plan), making(plan))):
        canvas.text(MARGIN, MARGIN + 60 + 17 * k, " · ".join(words), fitting(" · ".join(words), 11, room))
    return MARGIN + TILE / 2 + 22


def centre(scene: Scene) -> tuple[float, float] | None:
    """Latitude and longitude of a scene whose place is known."""
    if scene.footprint:
        return scene.footprint.centre
    return (float(scene["place"][0]), float(scene["place"][1])) if "place" in scene else None


def ground(plan: Plan) -> list[str]:
    """Where and when, as far as it is known."""
    given, where, side = plan.given, centre(plan.given), f"{plan.table.footprint} m"
    words = [degrees(*where) if where else "unknown place"]
    words += [long_date(given["date"][0])] if "date" in given else []
    if given.footprint:
        code = given.footprint.crs.to_epsg()
        words += [f"EPSG:{code}" if code else "own projection"]
    return [*words, f"{side} x {side}"]


def making(plan: Plan) -> list[str]:
    notes, count = plan.samples[0].notes, len(plan.samples)
    made = [f"model {notes['model']}"] if "model" in notes else []
    made += [plan.columns[-1][0]] if count == 1 else []
    made += [f"solver {notes['solver']}, {notes['steps']} steps"] if {"solver", "steps"} <= set(notes) else []
    return [*made, f"{count} sample{'s' if count > 1 else ''}" + (f", the first {SHOWN} shown" if count > SHOWN else "")]


def products(table: Table, names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(row.product for row in table.rows if row.name in set(names)))


def degrees(lat: float, lon: float) -> str:
    return f"{abs(lat):.2f}° {'N' if lat >= 0 else 'S'} {abs(lon):.2f}° {'E' if lon >= 0 else 'W'}"


def long_date(day: np.datetime64) -> str:
    year, month, date = str(day).split("-")
    return f"{int(date)} {MONTHS[int(month) - 1]} {year}"


def section(canvas: Canvas, title: str, y: float, width: float) -> float:
    x = MARGIN
    for letter in title:                         # spaced capitals
        x = int(canvas.text(x, y, letter, 10, INK) + 2)
    canvas.line([(x + 8, y + 5), (width - MARGIN, y + 5)])
    return y + 22


def cells(canvas: Canvas, plan: Plan, scene: Scene, names: Sequence[str], y: float) -> float:
    """Pictures with their labels, as many in a line as there is room for."""
    a_line = max(1, int((plan.width - 2 * MARGIN + BLOCK) // (LABEL + plan.tile + BLOCK)))
    for k, name in enumerate(names):
        if k and k % a_line == 0:
            y += plan.tile + 20
        x = MARGIN + k % a_line * (LABEL + plan.tile + BLOCK)
        label(canvas, plan, name, x, y)
        tile(canvas, plan, scene, name, x + LABEL, y, ruler=k == 0)
    return y + plan.tile + 30


def grid(canvas: Canvas, plan: Plan, y: float) -> float:
    """A line a layer, a column a sample; the last column is their spread."""
    lefts = [MARGIN + LABEL + k * (plan.tile + GAP) for k in range(len(plan.columns))]
    right = lefts[-1] + plan.tile + BLOCK
    for x, (title, _) in zip(lefts, plan.columns, strict=True):
        canvas.text(x, y, title, 11, INK)
    if plan.spread:
        canvas.text(right, y, f"spread of {len(plan.samples)} samples", 11, INK)
    y += 18
    for name in plan.rows:
        label(canvas, plan, name, MARGIN, y)
        for k, (x, (_, scene)) in enumerate(zip(lefts, plan.columns, strict=True)):
            tile(canvas, plan, scene, name, x, y, ruler=k == 0 and name == plan.rows[0])
        if plan.spread and name != PLACE:
            spread_tile(canvas, plan, name, right, y)
        elif plan.spread:
            place_tile(canvas, plan.samples, right, y)
        y += PLACE_HEIGHT if name == PLACE else plan.tile + (22 if captioned(plan, name) else GAP)
    return y + 14


def captioned(plan: Plan, name: str) -> bool:
    return name != PLACE and isinstance(plan.table[name].scale, LogHeight)


def tile(canvas: Canvas, plan: Plan, scene: Scene, name: str, x: float, y: float, ruler: bool) -> None:
    if name == PLACE:
        return place_tile(canvas, [scene], x, y)
    if name not in scene:
        return canvas.box(x, y, plan.tile, plan.tile, outline=RULE)
    row = plan.table[name]
    canvas.paste(picture(scene, name, plan.relief), x, y, isinstance(row.scale, LogHeight), plan.tile, plan.tile)
    if row.legend or isinstance(row.scale, EightBit):                      # white clouds on white paper
        canvas.box(x, y, plan.tile, plan.tile, outline=RULE)
    if captioned(plan, name):
        canvas.text(x, y + plan.tile + 4, f"{scene[name].min():.0f} to {scene[name].max():.0f} m", 10)
    if ruler:
        scale_and_north(canvas, x, y, plan.tile, 500 * plan.tile / plan.table.footprint)


def scale_and_north(canvas: Canvas, x: float, y: float, side: float, length: float) -> None:
    """A bar of 500 m and an arrow to grid north, white on a dark veil, over the foot of a picture."""
    veil = Image.new("L", (round(side * canvas.scale), 26 * canvas.scale), 150)
    canvas.image.paste(Image.new("RGB", veil.size, (0, 0, 0)), (round(x * canvas.scale), round((y + side - 26) * canvas.scale)), veil)
    base = y + side - 8
    canvas.line([(x + 8, base - 4), (x + 8, base), (x + 8 + length, base), (x + 8 + length, base - 4)], WHITE)
    canvas.text(x + 14 + length, base + 3, "500 m", 10, WHITE, "ls")
    east = x + side - 14
    canvas.line([(east, base), (east, base - 11)], WHITE)
    canvas.line([(east - 3, base - 8), (east, base - 12), (east + 3, base - 8)], WHITE)
    canvas.text(east - 8, base + 3, "N", 10, WHITE, "rs")


def spread_tile(canvas: Canvas, plan: Plan, name: str, x: float, y: float) -> None:
    values, top, unit = spread(plan.table[name], [sample[name] for sample in plan.samples if name in sample])
    canvas.paste(ramp(HEAT, values / top).astype(np.uint8), x, y, isinstance(plan.table[name].scale, LogHeight), plan.tile, plan.tile)
    bar = ramp(HEAT, np.linspace(1, 0, 64))[:, None].astype(np.uint8)
    canvas.paste(bar, x + plan.tile + 6, y, True, 7, plan.tile)
    for k, word in enumerate((f"{top:g}", *unit.split())):
        canvas.text(x + plan.tile + 18, y - 1 + 13 * k, word, 10)
    canvas.text(x + plan.tile + 18, y + plan.tile - 11, "0", 10)


def label(canvas: Canvas, plan: Plan, name: str, x: float, y: float) -> None:
    """A row's name, how it is drawn, and its legend, beside its pictures."""
    if name == PLACE:
        canvas.text(x, y - 3, " and ".join(n for n in ("place", "date") if n in plan.samples[0]), 14, INK)
        return
    row = plan.table[name]
    canvas.text(canvas.text(x, y - 3, row.product, 14, INK) + 6, y, f"{row.resolution} m", 10)
    y += 20
    match row.scale:
        case Legend() as legend:
            for code, words, colour in zip(legend.codes, legend.names, legend.colours, strict=True):
                if code in plan.classes[name]:
                    key(canvas, x, y, colour, words)
                    y += 15
        case Decibel():
            for colour, (words, low, high) in zip(CHANNELS, RADAR_RANGES, strict=True):
                key(canvas, x, y, colour, f"{words} {low:.0f} to {high:.0f} dB")
                y += 15
        case LogHeight() if plan.relief:
            relief_key(canvas, plan.relief, x, y)
        case Linear():
            words, channels = composite(row)
            composite_key(canvas, x, y, words, ["mean of both" if len(bands) > 1 else bands[0] for bands in channels])
        case EightBit():
            composite_key(canvas, x, y, *drawn_as(row))


def composite_key(canvas: Canvas, x: float, y: float, words: str, channels: Sequence[str]) -> None:
    """What a colour picture is called, and what its red, green and blue show."""
    for line in wrapped(words, 20):
        canvas.text(x, y, line, 10)
        y += 13
    for k, channel in enumerate(channels):
        key(canvas, x, y + 3 + 15 * k, CHANNELS[k], channel)


def key(canvas: Canvas, x: float, y: float, colour: Colour, words: str) -> None:
    canvas.box(x, y + 1, 10, 10, colour, SWATCH)
    canvas.text(x + 15, y, words, 10)


def relief_key(canvas: Canvas, relief: Relief, x: float, y: float) -> None:
    canvas.paste(ramp(TINTS, np.linspace(1, 0, 64))[:, None].astype(np.uint8), x, y, True, 10, 96)
    canvas.text(x + 15, y - 1, f"{relief.high:.0f} m", 10)
    canvas.text(x + 15, y + 85, f"{relief.low:.0f} m", 10)
    canvas.text(x, y + 104, f"slopes x {relief.exaggeration:.2g}", 10)


def wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split():
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [*lines, word]
    return lines


def footer(canvas: Canvas, plan: Plan, y: float) -> float:
    canvas.line([(MARGIN, y), (plan.width - MARGIN, y)])
    words = f"copgen {__version__} · Generated layers are samples of what could be there, not observations."
    canvas.text(MARGIN, y + 8, words, 10)
    return y + MARGIN + 18


def place_tile(canvas: Canvas, scenes: Sequence[Scene], x: float, y: float) -> None:
    """Where and when the scenes are; in words if it is one scene."""
    places = [(float(scene["place"][0]), float(scene["place"][1])) for scene in scenes if "place" in scene]
    days = [scene["date"][0] for scene in scenes if "date" in scene]
    one = len(scenes) == 1
    if places:
        world(canvas, places, x, y)
        canvas.text(x, y + TILE / 2 + 6, degrees(*places[0]) if one else f"{len(places)} places", 11, INK)
        y += TILE / 2 + 22
    if days:
        canvas.text(x, y + 1, long_date(days[0]) if one else f"{len(days)} dates", 11, INK)
        year_line(canvas, days, x, y + 28)
