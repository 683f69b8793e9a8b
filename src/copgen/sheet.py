"""What a person looks at first: one sheet with the given layers, the samples side by side, legends, scale, place and date."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from copgen import __version__
from copgen.modalities import Table
from copgen.scaling import Decibel, Legend, Linear, LogHeight
from copgen.pictures import HEAT, RADAR_RANGES, TINTS, Colour, Picture, Relief, composite, picture, ramp, render, spread
from copgen.scene import Scene
from copgen.writing import write_whole

PAPER, INK, GREY, RULE = (251, 249, 245), (34, 38, 44), (112, 116, 122), (214, 209, 200)
CHANNELS = ((198, 62, 52), (58, 140, 74), (58, 98, 184))
WATER, LAND, MARK = (226, 232, 235), (198, 200, 190), (206, 52, 40)

MARGIN, LABEL, TILE, GAP, BLOCK = 32, 124, 192, 8, 28      # in units of which one pixel at 10 m is one
SHOWN = 8                                                  # samples on a sheet; the others are counted
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


@dataclass
class Canvas:
    """Paper that is measured in units; `scale` pixels are one unit."""

    image: Image.Image
    scale: int
    draw: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, words: str, size: float = 11, colour: Colour = GREY, anchor: str = "la") -> float:
        """Write one line and return where it ends."""
        font = ImageFont.load_default(size * self.scale)
        self.draw.text((x * self.scale, y * self.scale), printable(words), colour, font, anchor)
        return x + font.getlength(printable(words)) / self.scale

    def box(self, x: float, y: float, width: float, height: float, fill: Colour | None = None, outline: Colour | None = None) -> None:
        s = self.scale
        corner = (round((x + width) * s) - 1, round((y + height) * s) - 1)
        self.draw.rectangle((round(x * s), round(y * s), *corner), fill, outline)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour = RULE, width: float = 1) -> None:
        self.draw.line([(x * self.scale, y * self.scale) for x, y in points], colour, max(1, round(width * self.scale)))

    def dot(self, x: float, y: float, radius: float, colour: Colour = MARK) -> None:
        s = self.scale
        self.draw.ellipse([(x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s], colour, (255, 255, 255), s // 2)

    def paste(self, colours: Picture, x: float, y: float, smooth: bool = False, width: float = TILE, height: float = TILE) -> None:
        how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        size = (round(width * self.scale), round(height * self.scale))
        self.image.paste(Image.fromarray(colours).resize(size, how), (round(x * self.scale), round(y * self.scale)))


def printable(words: str) -> str:
    """The words in the letters that Pillow's own font has: accents and dashes become their plain neighbours."""
    words = words.translate({0x2013: "-", 0x2014: "-", 0x2212: "-", 0xD7: "x", 0x2192: "->"})
    parts = unicodedata.normalize("NFKD", words.replace("°", "\0"))
    letters = "".join(c for c in parts if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "°" if c == "\0" else "?" for c in letters)


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
    def spread(self) -> bool:
        return len(self.samples) > 1

    @property
    def width(self) -> float:
        one = LABEL + TILE
        if len(self.columns) == 1:
            cells = min(3, max(2, len(self.rows), len(self.given_rows)))
            return 2 * MARGIN + cells * one + (cells - 1) * BLOCK
        grid = LABEL + len(self.columns) * (TILE + GAP) - GAP + (BLOCK + TILE + 52 if self.spread else 0)
        return 2 * MARGIN + max(grid, 2 * one + BLOCK)


PLACE = "place, date"


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
    height = 420 + (len(plan.rows) + len(plan.given_rows)) * (TILE + 60)
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
    return Plan(given, samples, columns, drawn(given.table, made), drawn(given.table, given.layers), relief, classes)


def occurring(legend: Legend, layers: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    there = {int(code) for layer in layers for code in np.unique(layer)}
    return tuple(code for code in legend.codes if code in there)


def drawn(table: Table, names: Iterable[str]) -> tuple[str, ...]:
    """Rows in the order of a sheet: what looks like a photograph first (the table's products from the last), place and date last."""
    names = set(names)
    images = [row.name for product in reversed(table.products) for row in table.rows if row.product == product and row.is_image]
    return (*(name for name in images if name in names), *([PLACE] if names - set(images) else []))


def header(canvas: Canvas, plan: Plan) -> float:
    given, first = plan.given, plan.samples[0]
    canvas.text(MARGIN, MARGIN - 4, given.name, 26, INK)
    x = canvas.text(MARGIN, MARGIN + 33, products(plan.table, given.layers) or "nothing given", 14, INK)
    canvas.line([(x + 10, MARGIN + 41), (x + 30, MARGIN + 41)], INK)
    canvas.line([(x + 26, MARGIN + 37), (x + 30, MARGIN + 41), (x + 26, MARGIN + 45)], INK)
    canvas.text(x + 40, MARGIN + 33, products(plan.table, [n for n in first.layers if n not in given]), 14, INK)
    canvas.text(MARGIN, MARGIN + 56, " · ".join([*ground(plan), *making(plan)]), 11)
    return MARGIN + 84


def ground(plan: Plan) -> list[str]:
    """Where and when, as far as it is known."""
    given, side = plan.given, plan.table.footprint
    known = given.footprint.centre if given.footprint else given["place"] if "place" in given else None
    place = degrees(*known) if known is not None else "unknown place"
    crs = [given.footprint.crs.to_string()[:24]] if given.footprint else []
    return [place, *([long_date(given["date"][0])] if "date" in given else []), f"{side} m x {side} m", *crs]


def making(plan: Plan) -> list[str]:
    notes, count = plan.samples[0].notes, len(plan.samples)
    made = [f"model {notes['model']}"] if "model" in notes else []
    made += [f"{notes['solver']}, {notes['steps']} steps"] if {"solver", "steps"} <= set(notes) else []
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
    a_line = max(1, int((plan.width - 2 * MARGIN + BLOCK) // (LABEL + TILE + BLOCK)))
    for k, name in enumerate(names):
        if k and k % a_line == 0:
            y += TILE + 20
        x = MARGIN + k % a_line * (LABEL + TILE + BLOCK)
        label(canvas, plan, name, x, y)
        tile(canvas, plan, scene, name, x + LABEL, y, ruler=k == 0)
    return y + TILE + 30


def grid(canvas: Canvas, plan: Plan, y: float) -> float:
    """A line a layer, a column a sample; the last column is their spread."""
    lefts = [MARGIN + LABEL + k * (TILE + GAP) for k in range(len(plan.columns))]
    right = lefts[-1] + TILE + BLOCK
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
        y += TILE + (22 if captioned(plan, name) else GAP)
    return y + 20


def captioned(plan: Plan, name: str) -> bool:
    return name != PLACE and isinstance(plan.table[name].scale, LogHeight)


def tile(canvas: Canvas, plan: Plan, scene: Scene, name: str, x: float, y: float, ruler: bool) -> None:
    if name == PLACE:
        return place_tile(canvas, [scene], x, y)
    if name not in scene:
        return canvas.box(x, y, TILE, TILE, outline=RULE)
    row = plan.table[name]
    canvas.paste(picture(scene, name, plan.relief), x, y, smooth=isinstance(row.scale, LogHeight))
    if captioned(plan, name):
        canvas.text(x, y + TILE + 4, f"{scene[name].min():,.0f} to {scene[name].max():,.0f} m", 10)
    if ruler:
        scale_and_north(canvas, x, y, 500 * TILE / plan.table.footprint)


def scale_and_north(canvas: Canvas, x: float, y: float, length: float) -> None:
    """A bar of 500 m and an arrow to grid north, white on a dark veil."""
    veil = Image.new("L", (TILE * canvas.scale, 26 * canvas.scale), 120)
    canvas.image.paste(Image.new("RGB", veil.size, (0, 0, 0)), (round(x * canvas.scale), round((y + TILE - 26) * canvas.scale)), veil)
    white, base = (255, 255, 255), y + TILE - 8
    canvas.line([(x + 8, base - 4), (x + 8, base), (x + 8 + length, base), (x + 8 + length, base - 4)], white)
    canvas.text(x + 14 + length, base + 3, "500 m", 10, white, "ls")
    east = x + TILE - 14
    canvas.line([(east, base), (east, base - 11)], white)
    canvas.line([(east - 3, base - 8), (east, base - 12), (east + 3, base - 8)], white)
    canvas.text(east - 8, base + 3, "N", 10, white, "rs")


def spread_tile(canvas: Canvas, plan: Plan, name: str, x: float, y: float) -> None:
    values, top, unit = spread(plan.table[name], [sample[name] for sample in plan.samples])
    canvas.paste(ramp(HEAT, values / top).astype(np.uint8), x, y, smooth=isinstance(plan.table[name].scale, LogHeight))
    bar = ramp(HEAT, np.linspace(1, 0, 64))[:, None].astype(np.uint8)
    canvas.paste(bar, x + TILE + 6, y, True, 7, TILE)
    canvas.text(x + TILE + 18, y - 1, f"{top:,.4g}", 10)
    for k, word in enumerate(unit.split()):
        canvas.text(x + TILE + 18, y + 12 + 12 * k, word, 10)
    canvas.text(x + TILE + 18, y + TILE - 11, "0", 10)


def label(canvas: Canvas, plan: Plan, name: str, x: float, y: float) -> None:
    """A row's name, how it is drawn, and its legend, beside its pictures."""
    if name == PLACE:
        canvas.text(x, y - 3, "place, date", 14, INK)
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
            for line in wrapped(words, 20):
                canvas.text(x, y, line, 10)
                y += 13
            for colour, bands in zip(CHANNELS, channels, strict=True):
                key(canvas, x, y + 3, colour, "mean of both" if len(bands) > 1 else bands[0])
                y += 15


def key(canvas: Canvas, x: float, y: float, colour: Colour, words: str) -> None:
    canvas.box(x, y + 1, 10, 10, colour, RULE)
    canvas.text(x + 15, y, words, 10)


def relief_key(canvas: Canvas, relief: Relief, x: float, y: float) -> None:
    canvas.paste(ramp(TINTS, np.linspace(1, 0, 64))[:, None].astype(np.uint8), x, y, True, 10, 96)
    canvas.text(x + 15, y - 1, f"{relief.high:,.0f} m", 10)
    canvas.text(x + 15, y + 85, f"{relief.low:,.0f} m", 10)
    canvas.text(x, y + 104, f"shading x {relief.exaggeration:.1f}", 10)


def wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split():
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [*lines, word]
    return lines


def footer(canvas: Canvas, plan: Plan, y: float) -> float:
    canvas.line([(MARGIN, y), (plan.width - MARGIN, y)])
    words = f"copgen {__version__} · Generated layers are samples of what could be there, not observations."
    canvas.text(MARGIN, y + 8, words, 10)
    return y + MARGIN + 4


# ------------------------------------------------------------------------------------------------------- place and date


COASTS = (                                       # longitude, latitude: a sketch by hand, for orientation only
    "-168 66 -156 71 -128 70 -95 72 -82 70 -94 59 -80 52 -77 62 -65 59 -56 52 -66 45 -70 42 -76 35 -81 31 -80 25 -83 29 -90 30 -97 27 "
    "-97 20 -90 21 -87 16 -83 10 -78 8 -84 9 -95 16 -105 20 -113 31 -110 23 -117 33 -124 40 -124 48 -135 58 -150 60 -165 54 -158 59",
    "-73 78 -60 82 -30 83 -18 78 -22 70 -40 65 -44 60 -52 65 -55 70",
    "-78 8 -72 12 -60 9 -50 1 -35 -6 -39 -15 -48 -27 -57 -36 -65 -42 -68 -53 -74 -50 -73 -38 -70 -20 -76 -14 -81 -5 -79 2",
    "-6 36 10 37 11 33 20 31 32 31 37 21 43 12 51 12 40 -3 40 -15 35 -22 32 -28 26 -34 18 -34 12 -17 13 -6 9 4 -8 5 -17 14 -16 22 -10 30",
    "-9 43 -9 37 -2 37 3 43 9 44 16 38 18 41 13 45 20 40 23 37 27 41 27 37 36 36 34 31 39 21 44 13 55 17 59 23 51 25 48 30 57 26 67 25 "
    "73 18 77 8 80 14 88 22 94 17 98 9 103 2 100 12 106 9 109 13 107 20 118 24 122 31 120 38 126 35 129 37 130 43 141 53 135 55 155 59 "
    "157 51 163 60 178 63 180 69 140 73 105 78 80 73 68 69 44 67 41 68 26 71 12 66 5 61 8 58 12 56 18 60 18 55 8 54 2 51 -2 48 -1 44",
    "-5 50 1 51 1 53 -2 57 -5 58 -5 55 -3 54", "-10 52 -6 52 -6 55 -9 54", "-24 65 -14 66 -15 64 -22 64",
    "130 32 136 34 141 36 142 43 145 44 140 44 139 38 133 35", "44 -25 47 -25 50 -15 45 -17",
    "114 -22 122 -18 130 -12 136 -12 136 -16 140 -17 142 -11 146 -19 153 -27 150 -37 141 -38 135 -34 129 -32 118 -35 115 -33",
    "167 -46 173 -41 175 -36 178 -38 171 -45", "109 1 117 7 119 5 116 -4 110 -3", "95 5 104 -2 106 -6 114 -8 105 -7 100 -1",
    "131 -1 141 -3 150 -10 141 -9 134 -4",
    "-180 -78 -100 -74 -60 -65 -58 -72 -30 -78 0 -70 60 -67 110 -66 150 -69 170 -72 180 -78 180 -90 -180 -90",
)


def place_tile(canvas: Canvas, scenes: Sequence[Scene], x: float, y: float) -> None:
    """Where on Earth and when in the year the scenes are: a small map, a strip of months, and in words if it is one scene."""
    per_degree = TILE / 360
    canvas.box(x, y, TILE, TILE / 2, WATER)
    for coast in COASTS:
        numbers = [float(n) for n in coast.split()]
        points = [((x + (lon + 180) * per_degree), y + (90 - lat) * per_degree) for lon, lat in zip(*[iter(numbers)] * 2, strict=True)]
        canvas.draw.polygon([(px * canvas.scale, py * canvas.scale) for px, py in points], LAND)
    canvas.line([(x, y + TILE / 4), (x + TILE, y + TILE / 4)], RULE, 0.5)
    for scene in scenes:
        if "place" in scene:
            lat, lon = scene["place"]
            canvas.dot(x + (lon + 180) * per_degree, y + (90 - lat) * per_degree, 3.5)
    places, dates = ([s[name] for s in scenes if name in s] for name in ("place", "date"))
    y += TILE / 2 + 8
    canvas.text(x, y, (degrees(*places[0]) if places else "unknown place") if len(scenes) == 1 else f"{len(places)} places", 11, INK)
    canvas.text(x, y + 20, (long_date(dates[0][0]) if dates else "unknown date") if len(scenes) == 1 else f"{len(dates)} dates", 11, INK)
    month = TILE / 12
    canvas.line([(x, y + 48), (x + TILE, y + 48)])
    for k, name in enumerate(MONTHS):
        canvas.line([(x + k * month, y + 46), (x + k * month, y + 50)])
        canvas.text(x + (k + 0.5) * month, y + 55, name[0], 9, GREY, "ma")
    for day in (date[0] for date in dates):
        year = day.astype("datetime64[Y]")
        canvas.dot(x + TILE * (day - year.astype("datetime64[D]")).astype(int) / 366, y + 48, 3.5)
