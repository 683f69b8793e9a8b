"""What all figures share: paper's widths and type, colours that everybody can tell apart, named stretches, and files of the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from numpy.typing import NDArray

from copgen.drawing import Picture
from copgen.files import write_all
from copgen.modalities import Modality
from copgen.pictures import Relief, render, to_bytes
from copgen.scaling import Decibel, Legend, Linear, LogHeight

COLUMN, PAGE = 3.4, 7.0                          # inches: a column and a page of a two-column paper
DPI = 300

# Okabe and Ito 2008, "Color universal design": eight colours that people with any colour vision tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
TRUTH, SAMPLES, OTHERS = BLACK, BLUE, ORANGE     # what is observed, what is generated, further observations of the same ground
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)                     # generators or conditions side by side, in this order
PALE, RULE = "#6B6F75", "#C9C6C0"                # words beside the point; thin lines

TYPE: dict[str, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "figure.titlesize": 9, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "patch.linewidth": 0.6, "grid.linewidth": 0.4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5, "axes.spines.top": False, "axes.spines.right": False, "grid.color": RULE, "legend.frameon": False,
    "legend.borderaxespad": 0.3, "axes.axisbelow": True, "pdf.fonttype": 42, "image.interpolation": "none",
    "figure.constrained_layout.use": True,
}


@contextmanager
def paper() -> Iterator[None]:
    """Matplotlib's own defaults with paper's type sizes, whatever the user's settings are; also a decorator: `@paper()`."""
    with matplotlib.style.context(["default", TYPE]):
        yield


def blank(width: float = PAGE, height: float = 3.0) -> Figure:
    """An empty figure in inches, drawn by Agg without pyplot; call it, and all that draws on it, within `paper()`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure, dpi: int = DPI) -> dict[str, bytes]:
    """The figure as `png` and `pdf`, without dates or versions: the same figure gives the same bytes."""
    files = {}
    metadata: dict[str, Any] = {"png": {"Software": None}, "pdf": dict.fromkeys(("Creator", "Producer", "CreationDate", "ModDate"))}
    with paper():
        for kind, notes in metadata.items():
            memory = io.BytesIO()
            figure.savefig(memory, format=kind, dpi=dpi, metadata=notes, facecolor="white")
            files[kind] = memory.getvalue()
    return files


def save(figure: Figure, folder: str | Path, name: str, *, dpi: int = DPI, overwrite: bool = True) -> list[Path]:
    """Write `folder`/`name`.png and .pdf, both or none, and return their paths; ValueError where they can't be written."""
    return write_all({Path(folder) / f"{name}.{kind}": data for kind, data in rendered(figure, dpi).items()}, overwrite=overwrite)


# --- stretches ----------------------------------------------------------------------------------------------------------------------

Batch = Callable[[Modality, Sequence[NDArray[Any]]], list[Picture]]


@dataclass(frozen=True)
class Look:
    """A named way to draw layers: how values become colours, how a row's colours are to be read, and frames by role."""

    name: str
    pictures: Batch                              # layers of one row that are shown together -> pictures [H, W, 3]
    frames: Mapping[str, str | tuple[float, float, float]]                 # "given", "truth", "sample"


def ours(row: Modality, layers: Sequence[NDArray[Any]]) -> list[Picture]:
    """Fixed stretches of `copgen.pictures`: the same colour is the same value in every figure; heights share one relief."""
    relief = Relief.of(layers, row.resolution or 1) if isinstance(row.scale, LogHeight) else None
    return [render(row, layer, relief) for layer in layers]


def published(row: Modality, layers: Sequence[NDArray[Any]]) -> list[Picture]:
    """The published stretches (reference 8.1): clip(1.3 r^0.6), radar's decibels by their own range, hillshade, class colours.

    Radar's range is that of all layers shown together; published figures stretch truth and samples apart, which hides a shift.
    """
    match row.scale:
        case Linear() as linear:
            shown = natural(row)
            return [to_bytes(published_tone(np.moveaxis(layer[shown], 0, -1) / linear.full_scale)) for layer in layers]
        case Decibel():
            return published_radar(row, layers)
        case LogHeight():
            light = LightSource(azdeg=315, altdeg=45)
            return [to_bytes(np.repeat(light.hillshade(layer[0].astype(float), vert_exag=1)[..., None], 3, -1)) for layer in layers]
        case Legend() | _:
            return [render(row, layer) for layer in layers]


def published_tone(reflectance: NDArray[Any]) -> NDArray[np.float64]:
    """Reflectance to brightness 0..1, clip(1.3 r^0.6); what is negative is black."""
    return np.clip(1.3 * np.maximum(np.asarray(reflectance, np.float64), 0) ** 0.6, 0, 1)


def natural(row: Modality) -> list[int]:
    """The bands of the published composite: the first three channels; of two, the first, second and first."""
    return [0, 1, 2] if len(row.bands) >= 3 else [0, len(row.bands) - 1, 0]


def published_radar(row: Modality, layers: Sequence[NDArray[Any]]) -> list[Picture]:
    stack = np.stack(layers).astype(np.float64)                                            # [n, bands, H, W]
    least = stack[stack > 0].min() if (stack > 0).any() else 1e-6
    decibel = 10 * np.log10(np.maximum(stack, least))
    low, high = decibel.min((0, 2, 3), keepdims=True), decibel.max((0, 2, 3), keepdims=True)
    unit = (decibel - low) / np.maximum(high - low, 1e-6)
    vv, vh = (unit[:, row.bands.index(band)] for band in ("vv", "vh"))
    return list(to_bytes(np.stack([vv, (vv + vh) / max(float((vv + vh).max()), 1e-6), vh], -1)))


LOOKS = {
    "ours": Look("ours", ours, {"given": VERMILION, "truth": BLACK, "sample": BLUE}),
    "published": Look("published", published, {"given": (1.0, 0.3, 0.2), "truth": (0.2, 0.9, 0.3), "sample": (0.3, 0.5, 1.0)}),
}


def look(name: str) -> Look:
    """A style by its name; ValueError that names them all."""
    if name not in LOOKS:
        raise ValueError(f"no style is called {name!r}; there are: {', '.join(LOOKS)}")
    return LOOKS[name]
