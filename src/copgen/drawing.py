"""What a sheet is drawn with: paper measured in units, text, pictures, a small map of the world, a year."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]                      # [H, W, 3]
Colour = tuple[int, int, int]

PAPER, INK, GREY, RULE, SWATCH = (251, 249, 245), (34, 38, 44), (112, 116, 122), (214, 209, 200), (160, 158, 154)
WATER, LAND, MARK, WHITE = (226, 232, 235), (198, 200, 190), (206, 52, 40), (255, 255, 255)
TILE = 192                                       # one side of a picture, in units
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
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

    def area(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in points], colour)

    def dot(self, x: float, y: float, radius: float, colour: Colour = MARK) -> None:
        s = self.scale
        self.draw.ellipse([(x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s], colour, WHITE, s // 2)

    def paste(self, colours: Picture, x: float, y: float, smooth: bool = False, width: float = TILE, height: float = TILE) -> None:
        how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        size = (round(width * self.scale), round(height * self.scale))
        self.image.paste(Image.fromarray(colours).resize(size, how), (round(x * self.scale), round(y * self.scale)))


def printable(words: str) -> str:
    """The words in the letters that Pillow's own font has: accents and dashes become their plain neighbours."""
    words = words.translate({0x2013: "-", 0x2014: "-", 0x2212: "-", 0xD7: "x"})
    letters = "".join(c for c in unicodedata.normalize("NFD", words) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in "°·" else "?" for c in letters)


def fitting(words: str, size: float, width: float) -> float:
    """The size at which one line of words is no wider than `width`, at most `size`."""
    return size * min(1.0, width / max(ImageFont.load_default(size).getlength(printable(words)), 1))


def world(canvas: Canvas, places: Sequence[tuple[float, float]], x: float, y: float) -> None:
    """Where on Earth: a plate carree map, as wide as a picture and half as high, with a dot a place."""

    def at(lon: float, lat: float) -> tuple[float, float]:
        return x + (lon + 180) * TILE / 360, y + (90 - lat) * TILE / 360

    canvas.box(x, y, TILE, TILE / 2, WATER)
    for coast in COASTS:
        numbers = [float(number) for number in coast.split()]
        canvas.area([at(lon, lat) for lon, lat in zip(numbers[::2], numbers[1::2], strict=True)], LAND)
    canvas.line([at(-180, 0), at(180, 0)], PAPER, 0.5)
    for lat, lon in places:
        canvas.dot(*at(lon, lat), 3.5)


def year_line(canvas: Canvas, days: Sequence[np.datetime64], x: float, y: float) -> None:
    """When in the year: twelve months with a dot a day."""
    canvas.line([(x, y), (x + TILE, y)])
    for k, name in enumerate(MONTHS):
        canvas.line([(x + k * TILE / 12, y - 2), (x + k * TILE / 12, y + 2)])
        canvas.text(x + (k + 0.5) * TILE / 12, y + 7, name[0], 9, GREY, "ma")
    for day in days:
        _, month, date = (int(part) for part in str(day).split("-"))
        canvas.dot(x + (month - 1 + (date - 0.5) / 31) * TILE / 12, y, 3.5)
