"""What pictures in a figure have in common: a page measured in inches, framed tiles, keys, and words for where, when and what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from copgen.drawing import COASTS, Picture
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.recipe import named
from copgen.figures.style import GREEN, PALE, RULE, SAMPLES, Look, blank, natural
from copgen.modalities import Modality, Table
from copgen.pictures import RADAR_RANGES, TINTS, composite, drawn_as, ramp, unit_of
from copgen.scaling import Decibel, EightBit, Legend, Linear, LogHeight
from copgen.scene import Scene
from copgen.sheet import centre, degrees, long_date

SMALL = 6.5                                      # points: the least that is legible in print
ROOM = 0.9                                       # inches that a picture needs for an arrow beside its scale
MOST = 4                                         # given layers that a title names one by one
KEYS = 6                                         # classes in a line of a key
EDGE = 0.06                                      # inches: a page's margin
Frame = str | tuple[float, float, float]


@dataclass(frozen=True)
class Page:
    """A figure on which things are put by inches from its left and top edge."""

    figure: Figure
    width: float
    height: float

    @classmethod
    def of(cls, width: float, height: float) -> Page:
        figure = blank(width, height)
        figure.set_layout_engine("none")
        return cls(figure, width, height)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        return self.figure.add_axes((x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height))

    def text(self, x: float, y: float, words: str, size: float = 8, colour: Any = "black", **how: Any) -> None:
        """Words from (x, y), which is their upper left corner unless `ha` and `va` say otherwise."""
        how = {"ha": "left", "va": "top", **how}
        self.figure.text(x / self.width, 1 - y / self.height, words, fontsize=size, color=colour, **how)

    def picture(self, x: float, y: float, side: float, colours: Picture | NDArray[Any], frame: Frame | None = None, **how: Any) -> Axes:
        """A square picture, its first row at the top (north), with a frame in a role's colour."""
        axes = self.axes(x, y, side, side)
        axes.imshow(colours, interpolation="nearest", **how)
        framed(axes, frame)
        return axes

    def swatch(self, x: float, y: float, colour: Any, words: str, size: float = SMALL) -> None:
        """A little box in a colour with its meaning, from (x, y)."""
        box = Rectangle((x / self.width, 1 - (y + 0.09) / self.height), 0.13 / self.width, 0.09 / self.height, facecolor=colour,
                        edgecolor=PALE, linewidth=0.4, transform=self.figure.transFigure)
        self.figure.add_artist(box)
        self.text(x + 0.17, y + 0.045, words, size, va="center_baseline")

    def frames(self, y: float, look: Look) -> float:
        """What the frames' colours mean; returns where they end."""
        for k, (words, role) in enumerate((("given", "given"), ("observed", "truth"), ("generated", "sample"))):
            self.swatch(EDGE + 0.75 * k, y, look.frames[role], words)
        return EDGE + 0.75 * 3


def framed(axes: Axes, frame: Frame | None) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame or RULE, linewidth=1.2 if frame else 0.5)


def missing(page: Page, x: float, y: float, side: float, words: str = "not observed") -> None:
    """The place of a picture that there is none for."""
    axes = page.axes(x, y, side, side)
    framed(axes, None)
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=SMALL, color=PALE, transform=axes.transAxes)


def scale_and_north(axes: Axes, footprint: float, side: float) -> None:
    """A bar of about a quarter of the square, and an arrow to grid north, on a dark veil along a picture's lower edge; `side` in inches.

    A small picture has room for the bar alone: its first row is north, as everywhere.
    """
    length = max(step for step in (100, 200, 250, 500, 1000, 2000, 2500, 5000) if step <= max(footprint * 0.3, 100))
    share, veil = length / footprint, 0.15 / side
    add: dict[str, Any] = {"transform": axes.transAxes}
    axes.add_patch(Rectangle((0, 0), 1, veil, facecolor="black", alpha=0.6, linewidth=0, **add))
    axes.plot([0.04, 0.04 + share], [veil / 2] * 2, color="white", linewidth=1.0, solid_capstyle="butt", **add)
    axes.text(0.06 + share, veil / 2, f"{length} m", color="white", fontsize=6, va="center_baseline", **add)
    if side < ROOM:
        return
    axes.annotate("", (0.94, veil * 0.95), (0.94, veil * 0.1), "axes fraction", arrowprops={
        "arrowstyle": "-|>,head_width=0.12,head_length=0.2", "color": "white", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0})
    axes.text(0.91, veil / 2, "N", color="white", fontsize=6, ha="right", va="center_baseline", **add)


def caption(axes: Axes, words: str, side: float) -> None:
    """Words on a dark veil along a picture's upper edge; `side` in inches."""
    veil = 0.15 / side
    axes.add_patch(Rectangle((0, 1 - veil), 1, veil, facecolor="black", alpha=0.6, linewidth=0, transform=axes.transAxes))
    axes.text(0.04, 1 - veil / 2, words, color="white", fontsize=6, va="center_baseline", transform=axes.transAxes)


# --- keys ---------------------------------------------------------------------------------------------------------------------------

def key_height(codes: Collection[int]) -> float:
    """How many inches the key of so many classes takes."""
    return 0.15 * -(-len(codes) // KEYS)


def class_key(page: Page, x: float, y: float, legend: Legend | None, codes: Collection[int]) -> float:
    """The classes of `codes` with their colours, six a line; returns where it ends, down the page."""
    if legend is None:
        return y
    chosen = [k for k, code in enumerate(legend.codes) if code in codes]
    for place, k in enumerate(chosen):
        page.swatch(x + place % KEYS * 1.14, y + place // KEYS * 0.15, rgb(legend.colours[k]), legend.names[k])
    return y + key_height(chosen)


def relief_key(page: Page, x: float, y: float, words: str, width: float = 0.5) -> None:
    """The tints of heights, low to high, with words about their range."""
    axes = page.axes(x, y, width, 0.09)
    axes.imshow(ramp(TINTS, np.linspace(0, 1, 128))[None] / 255, aspect="auto")
    framed(axes, None)
    page.text(x + width + 0.06, y + 0.045, words, SMALL, va="center_baseline")


def rgb(colour: Sequence[int]) -> tuple[float, float, float]:
    red, green, blue = (channel / 255 for channel in colour)
    return red, green, blue


def codes_in(scenes: Iterable[Scene], row: str) -> set[int]:
    return {int(code) for scene in scenes if row in scene for code in np.unique(scene[row])}


# --- words and numbers --------------------------------------------------------------------------------------------------------------

def where_and_when(scene: Scene) -> list[str]:
    """The name of a scene, its place and its date, as far as they are known."""
    at = centre(scene)
    return [scene.name, *([degrees(*at)] if at else []), *([long_date(scene["date"][0])] if "date" in scene else [])]


def given_words(table: Table, given: Sequence[str]) -> list[str]:
    """What is given, as people say it: products, or their rows where not all are given."""
    parts = named(given, table).split("+")
    return [row_title(table[part]) if part in table.by_name else part.replace("_", " ") for part in parts]


def asked_of(what: str, ensemble: Ensemble, generator: bool = True) -> str:
    """What was generated of what, and by whom, as a title of one line: of many given layers those that are not."""
    table, given = ensemble.observation.table, ensemble.condition.given
    words, rest = given_words(table, given), given_words(table, [row for row in table.names if row not in given])
    if len(words) > MOST:
        words = [f"everything but {' and '.join(rest)}"] if len(rest) < MOST else [*words[: MOST - 1], f"{len(words) - MOST + 1} more"]
    return f"{what} given {' + '.join(words)}" + (f" · {ensemble.generator}" if generator else "")


def name_of(sample: Scene, k: int) -> str:
    """What the k-th of several samples is called: by its seed, if that is known."""
    return f"seed {sample.notes['seed']}" if "seed" in sample.notes else f"sample {k + 1}"


def row_title(row: Modality) -> str:
    return f"{row.product} {row.resolution} m" if isinstance(row.scale, Linear) else row.product.replace("_", " ")


def reading(look: Look, row: Modality) -> str:
    """How to read a row's colours."""
    match row.scale:
        case EightBit():
            words, colours = drawn_as(row)
            return f"{words} ({', '.join(colours)} as red, green, blue)" if colours else words
        case Linear() if look.name == "published":
            return f"{', '.join(row.bands[k] for k in natural(row))} as red, green, blue; 1.3 times reflectance to the power 0.6"
        case Linear():
            name, channels = composite(row)
            return f"{name} ({', '.join(' and '.join(bands) for bands in channels)} as red, green, blue), one fixed stretch"
        case Decibel() if look.name == "published":
            return "VV, VV + VH, VH as red, green, blue, decibels by their own range"
        case Decibel():
            ranges = (f"{name} {low:.0f} to {high:.0f} dB".replace("-", "−") for name, low, high in RADAR_RANGES)
            return f"{', '.join(ranges)} as red, green, blue"
        case LogHeight():
            return "hillshade, sun at 315°, 45° high" if look.name == "published" else "tints by height, shaded from the north-west"
        case _:
            return "colours by class"


def quantity(row: Modality, layer: NDArray[Any]) -> NDArray[np.float64]:
    """A continuous layer in the unit that people read: reflectance 0..1, decibels, metres, brightness; ValueError for a row without one."""
    values = np.asarray(layer, np.float64)
    match row.scale:
        case Linear() as linear:
            return values / linear.full_scale
        case Decibel() as radar:
            return np.asarray(10 * np.log10(np.maximum(values, radar.floor)))
        case LogHeight() | EightBit():
            return values
    raise ValueError(f"{row.name} is not measured on a continuous scale; choose a row of reflectance, radar or heights")


def unit(row: Modality) -> str:
    """The unit of `quantity`."""
    return "reflectance" if isinstance(row.scale, Linear) else unit_of(row)


def customary(table: Table) -> str:
    """The row that is shown where none is named: the table's last with a natural composite, Sentinel-2 at the surface."""
    return next((row.name for row in reversed(table.rows) if row.rgb), table.images[-1])


def small_map(axes: Axes, truth: tuple[float, float] | None, samples: Sequence[tuple[float, float]]) -> None:
    """Where on Earth, plate carrée, for orientation: samples as dots, the truth as a star; places are (latitude, longitude)."""
    axes.set(xlim=(-180, 180), ylim=(-90, 90), facecolor="#EEF3F6")
    for coast in COASTS:
        points = np.array(coast.split(), float).reshape(-1, 2)
        axes.fill(points[:, 0], points[:, 1], color="#C6C8BE", linewidth=0)
    framed(axes, None)
    if samples:
        lat, lon = zip(*samples, strict=True)
        axes.plot(lon, lat, "o", color=SAMPLES, markersize=3, markeredgecolor="white", markeredgewidth=0.3)
    if truth:
        axes.plot(truth[1], truth[0], "*", color=GREEN, markersize=6, markeredgecolor="black", markeredgewidth=0.4)
