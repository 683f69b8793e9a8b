"""Do generated spectra look like those of their land cover? Reflectance against wavelength, per class (the paper's Figures 5, 7-9)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from copgen.evaluation.kept import Ensemble
from copgen.figures.style import OTHERS, PAGE, PALE, SERIES, TRUTH, look, paper
from copgen.figures.tiles import EDGE, SMALL, Page, asked_of, name_of, quantity, reading, rgb, row_title, scale_and_north, where_and_when
from copgen.modalities import Table
from copgen.scene import Scene

Array = NDArray[np.float64]
WAVELENGTHS = {                                  # nm, centres of Sentinel-2's bands (reference 8.2; B10 is the cirrus band)
    "B01": 443, "B02": 490, "B03": 560, "B04": 665, "B05": 705, "B06": 740, "B07": 783, "B08": 842, "B8A": 865, "B09": 945,
    "B10": 1375, "B11": 1610, "B12": 2190,
}
TICKS = ("B02", "B04", "B08", "B10", "B11", "B12")               # those that have room for their wavelengths
ERODED, FRAME = 3, 5                             # pixels of 10 m: from the edge of a class, and from that of the picture
CENTRAL = (0.05, 0.95)                           # of samples, or of pixels
LEAST = 0.005                                    # share of the pixels from which a class is shown
TOP, PICTURE, LINE, GAP = 0.4, 1.31, 1.22, 0.08                            # inches


@dataclass(frozen=True)
class Spot:
    """One pixel of a class, on the grid of the land cover."""

    line: int
    column: int
    inside: bool                                 # as far from other classes as asked; False: the class has no such pixel


@dataclass(frozen=True)
class Spectra:
    """All bands of a scene on the 10 m grid, by wavelength."""

    bands: tuple[str, ...]
    values: Array                                # [bands, H, W] reflectance
    lulc: NDArray[np.integer] | None             # [H, W] where the scene has its own


@paper()
def profiles(
    ensembles: Sequence[Ensemble], *, product: str = "S2L2A", most: int = 5, seed: int = 0, style: str = "ours",
) -> Figure:
    """A row a land-cover class of the truth, the most frequent first: the mean spectrum of its pixels, and that of one pixel.

    ensembles: of one place and condition, one a generator. Class means: the truth's with its pixels' 5 to 95 % in grey, the samples'
    median with 5 to 95 % of the samples, further observations (where there are any) as thin lines. Single pixels: the same of one
    pixel, chosen by `spot` from the truth's classes and `seed` alone: no value of any source is looked at. Classes are the observation's,
    and a sample's own where its land cover was generated, too; bands of 20 and 60 m are repeated on the 10 m grid. Raises ValueError
    without land cover or without the product.
    """
    truth, table = check(ensembles, product)
    lulc = truth["lulc"][0]
    classes = frequent(lulc, most)
    spots = {code: spot(lulc == code, truth.name, code, seed) for code in classes}
    lines = lines_of(ensembles, any(one.others for one in ensembles))
    page = Page.of(PAGE, TOP + PICTURE + 0.45 + LINE * len(classes) + 0.2 + 0.15 * lines)
    heading(page, ensembles, product)
    pictures(page, ensembles, product, spots, style)
    observed, y = spectra(truth, product), TOP + PICTURE + 0.45
    generated = [[spectra(sample, product) for sample in ensemble.samples] for ensemble in ensembles]
    others = [spectra(other, product) for ensemble in ensembles[:1] for other in ensemble.others if has(other, product)]
    for k, code in enumerate(classes):
        mask, at = lulc == code, spots[code]
        means = page.axes(1.25, y + k * LINE, 2.6, LINE - 0.28)
        single = page.axes(4.25, y + k * LINE, 2.6, LINE - 0.28)
        high = draw(means, observed, [means_of(line, code, mask) for line in generated], means_of(others, code, mask),
             observed.values[:, mask].mean(1), np.quantile(observed.values[:, mask], CENTRAL, axis=1))
        top = draw(single, observed, [[pixel(one, at) for one in line] for line in generated], [pixel(one, at) for one in others],
                   pixel(observed, at))
        name_of_class(page, table, code, float(mask.mean()), at, y + k * LINE)
        finish(means, single, max(high, top), observed.bands, first=k == 0, last=k == len(classes) - 1)
    key(page, ensembles, bool(others), y + LINE * len(classes) + 0.12)
    return page.figure


def check(ensembles: Sequence[Ensemble], product: str) -> tuple[Scene, Table]:
    kinds = {(ensemble.observation.name, ensemble.condition.given) for ensemble in ensembles}
    if len(kinds) != 1:
        raise ValueError(f"{len(kinds)} places and conditions: spectral profiles are of one place under one condition; choose one")
    truth = ensembles[0].observation
    if "lulc" not in truth or not has(truth, product):
        raise ValueError(f"{truth.name}: profiles per class need its land cover and the spectral bands of its {product}; it has "
                         f"{', '.join(truth.layers)}")
    for ensemble in ensembles:
        if not ensemble.samples or not all(has(sample, product) for sample in ensemble.samples):
            raise ValueError(f"{truth.name}: {ensemble.generator} has no samples with all bands of {product}")
    return truth, truth.table


def rows_of(table: Table, product: str) -> list[str]:
    return [row.name for row in table.rows if row.product == product and set(row.bands) <= set(WAVELENGTHS)]


def has(scene: Scene, product: str) -> bool:
    rows = rows_of(scene.table, product)
    return bool(rows) and all(row in scene for row in rows)


def spectra(scene: Scene, product: str) -> Spectra:
    """All bands of a product on the grid of the land cover, coarser pixels repeated, in the order of their wavelengths."""
    table, bands = scene.table, {}
    side = table.side("lulc")
    for row in rows_of(table, product):
        repeat = side // table.side(row)
        for band, values in zip(table[row].bands, quantity(table[row], scene[row]), strict=True):
            bands[band] = np.kron(values, np.ones((repeat, repeat)))
    names = tuple(sorted(bands, key=WAVELENGTHS.__getitem__))
    return Spectra(names, np.stack([bands[name] for name in names]), scene["lulc"][0] if "lulc" in scene else None)


def pixel(one: Spectra, at: Spot) -> Array:
    return np.asarray(one.values[:, at.line, at.column])


def means_of(scenes: Sequence[Spectra], code: int, mask: NDArray[np.bool_]) -> list[Array]:
    """The mean spectrum of a class in each scene: where its own land cover has the class, or in the truth's mask if it has none."""
    own = [(one, mask if one.lulc is None else one.lulc == code) for one in scenes]
    return [one.values[:, where].mean(1) for one, where in own if where.any()]


def frequent(lulc: NDArray[np.integer], most: int) -> list[int]:
    """The classes that cover enough to be shown, the most frequent first; 0, no data, is none."""
    codes, counts = np.unique(lulc, return_counts=True)
    chosen = [(-count, int(code)) for code, count in zip(codes, counts, strict=True) if code and count >= LEAST * lulc.size]
    return [code for _, code in sorted(chosen)[:most]]


def spot(mask: NDArray[np.bool_], name: str, code: int, seed: int) -> Spot:
    """A pixel of a class mask, drawn from its inside by a hash of the place's name, the class and a seed: by nothing that is compared.

    Inside is what a square of 7 x 7 pixels erodes the mask to (3 pixels), 5 pixels from the picture's edge; of a class that has no such
    pixel all of its pixels are drawn from.
    """
    from scipy.ndimage import binary_erosion

    inner = binary_erosion(mask, np.ones((2 * ERODED + 1,) * 2))
    inner[:FRAME], inner[-FRAME:], inner[:, :FRAME], inner[:, -FRAME:] = False, False, False, False
    inside = bool(inner.any())
    lines, columns = np.nonzero(inner if inside else mask)
    key = int.from_bytes(hashlib.sha256(f"{name}/{code}/{seed}".encode()).digest()[:8], "little")
    chosen = np.random.default_rng(key).integers(len(lines))
    return Spot(int(lines[chosen]), int(columns[chosen]), inside)


# --- drawing ------------------------------------------------------------------------------------------------------------------------

def draw(axes: Axes, bands: Spectra, generated: Sequence[Sequence[Array]], others: Sequence[Array], truth: Array,
         scatter: Array | None = None) -> float:
    """Curves of one panel: truth in black, further observations as thin lines, each generator's median and central range.

    Returns the reflectance up to which the panel needs to go: further observations under clouds may run out of it.
    """
    at = [WAVELENGTHS[band] for band in bands.bands]
    high = [truth.max()]
    if scatter is not None:
        axes.fill_between(at, *scatter, color=TRUTH, alpha=0.12, linewidth=0)
        high.append(scatter.max())
    for other in others:
        axes.plot(at, other, color=OTHERS, linewidth=0.5, alpha=0.7)
    for samples, colour in zip(generated, SERIES, strict=False):
        if samples:
            low, middle, top = np.quantile(np.stack(samples), (CENTRAL[0], 0.5, CENTRAL[1]), axis=0)
            axes.fill_between(at, low, top, color=colour, alpha=0.25, linewidth=0)
            axes.plot(at, middle, color=colour, linewidth=1.2)
            high.append(top.max())
    axes.plot(at, truth, "o-", color=TRUTH, linewidth=1.0, markersize=2)
    if others:
        high.append(np.quantile(np.stack(others).max(1), 0.75))
    return 1.08 * float(max(high))


def finish(means: Axes, single: Axes, high: float, bands: Sequence[str], first: bool, last: bool) -> None:
    """One scale for both panels of a line, zero included; wavelengths under the last."""
    low = min(0.0, means.get_ylim()[0], single.get_ylim()[0])
    for axes in (means, single):
        axes.set(xlim=(420, 2230), ylim=(low, high), xticks=[WAVELENGTHS[band] for band in bands if band in TICKS])
        axes.set_xticks([WAVELENGTHS[band] for band in bands], minor=True)
        axes.grid(axis="y")
        axes.tick_params(axis="x", labelsize=6.5, labelbottom=last)
        if last:
            axes.set_xlabel("wavelength, nm", fontsize=7, labelpad=1)
    means.set_ylabel("reflectance", fontsize=7)
    if first:
        means.set_title("mean of the class's pixels", fontsize=7.5, loc="left", pad=4)
        single.set_title("one pixel, drawn from the class mask alone", fontsize=7.5, loc="left", pad=4)


def name_of_class(page: Page, table: Table, code: int, share: float, at: Spot, y: float) -> None:
    legend = table["lulc"].legend
    assert legend is not None
    k = legend.codes.index(code)
    page.swatch(EDGE, y + 0.02, rgb(legend.colours[k]), "")
    page.text(EDGE, y + 0.16, "\n".join(legend.names[k].split(" ")), 7.5, weight="bold", linespacing=1.1)
    page.text(EDGE, y + 0.45, f"{share:.1%} of\nthe pixels", SMALL, PALE, linespacing=1.2)
    words = f"line {at.line}, column {at.column}" + ("" if at.inside else " (at the class's edge)")
    page.text(6.85, y + 0.01, words, 6, PALE, ha="right")


def heading(page: Page, ensembles: Sequence[Ensemble], product: str) -> None:
    page.text(EDGE, 0.05, asked_of(product, ensembles[0], generator=False), 8, weight="bold")
    page.text(PAGE - EDGE, 0.06, " · ".join(where_and_when(ensembles[0].observation)), SMALL, PALE, ha="right")


def pictures(page: Page, ensembles: Sequence[Ensemble], product: str, spots: Mapping[int, Spot], style: str) -> None:
    """Land cover, the observation and the first samples, with the chosen pixels marked on each."""
    truth, chosen = ensembles[0].observation, look(style)
    table = truth.table
    row = next(name for name in rows_of(table, product) if table[name].rgb)
    each = 3 if len(ensembles) == 1 else 1
    shown = [("observed", "truth", truth), *((f"{one.generator}, {name_of(sample, k)}", "sample", sample)
                                             for one in ensembles for k, sample in enumerate(one.samples[:each]))][:4]
    natural = chosen.pictures(table[row], [scene[row] for _, _, scene in shown])
    cover = chosen.pictures(table["lulc"], [truth["lulc"]])[0]
    role = "given" if "lulc" in ensembles[0].condition.given else "truth"
    tiles = [(row_title(table["lulc"]), cover, chosen.frames[role]),
             *((words, colours, chosen.frames[kind]) for (words, kind, _), colours in zip(shown, natural, strict=True))]
    for k, (words, colours, frame) in enumerate(tiles):
        x, side = EDGE + k * (PICTURE + GAP), PICTURE
        page.text(x, TOP - 0.03, words, SMALL, va="bottom")
        axes = page.picture(x, TOP, side, colours, frame)
        for at in spots.values():
            axes.plot(at.column, at.line, "s", markersize=5, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.4)
            axes.plot(at.column, at.line, "s", markersize=5, markerfacecolor="none", markeredgecolor="white", markeredgewidth=0.7)
        if k == 0:
            scale_and_north(axes, table.footprint, side)
    page.text(EDGE, TOP + PICTURE + 0.04, f"{row_title(table[row])}: {reading(chosen, table[row])}", 6, PALE)


def lines_of(ensembles: Sequence[Ensemble], others: bool) -> int:
    """How many lines the key takes."""
    return 1 if 2 * len(ensembles) + others <= 3 else 2


def key(page: Page, ensembles: Sequence[Ensemble], others: bool, y: float) -> None:
    """What lines and bands mean."""
    handles: list[tuple[Line2D | Patch, str]] = [(Line2D([], [], color=TRUTH, marker="o", markersize=2, linewidth=1), "observed"),
                                                 (Patch(color=TRUTH, alpha=0.12, linewidth=0), "its pixels, 5–95 %")]
    for ensemble, colour in zip(ensembles, SERIES, strict=False):
        handles += [(Line2D([], [], color=colour), f"{ensemble.generator}, median"),
                    (Patch(color=colour, alpha=0.25, linewidth=0), f"{len(ensemble.samples)} samples, 5–95 %")]
    if others:
        handles.append((Line2D([], [], color=OTHERS, linewidth=0.7), f"{len(ensembles[0].others)} further observations"))
    page.figure.legend(*zip(*handles, strict=True), loc="upper center", bbox_to_anchor=(0.5, 1 - y / page.height), fontsize=SMALL,
                       ncols=-(-len(handles) // lines_of(ensembles, others)), handlelength=1.4, columnspacing=1.0)
