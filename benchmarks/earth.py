"""How like the real Earth is the synthetic one? Spectra, texture, air and radar of worlds beside those of real samples, in one table.

`python benchmarks/earth.py [--worlds 200] [--samples FOLDER]` prints, for every statistic, the synthetic worlds (5th, 50th and 95th
percentile over worlds) and the real samples (least, median, greatest, and how many), a column a band. Clouds, their shadows and snow are
left out of the worlds. Classes: DN of S2L2A and dB, the median over pixels, in worlds and cells with at least 300 of the class.

Real samples: TerraMesh cells (shown, never adjusted to), s2-100k and BigEarthNet patches (slopes of power spectra, texture, band
correlations; BigEarthNet's labels stand for whole patches), the L1C with iCOR's L2A of the folder mol-l1c-l2a (air), radar of SEN12MS-CR,
Sen1Floods11 and BigEarthNet (looks, correlation of neighbours, and water with one decibel added, sigma- to gamma-naught at 38 degrees).
The Earth was adjusted to s2-100k (slope of power spectra, texture), to the radar of SEN12MS-CR and Sen1Floods11 (looks, correlation of
neighbours) and, loosely, to mol-l1c-l2a (path reflectance); to nothing else here. Correlations, slopes and texture do not feel the offset
of 1000 that some s2-100k patches have.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from copgen.modalities import TABLE
from copgen.synthetic import region

Grid = NDArray[np.float64]
Found = dict[tuple[str, str], float]              # (statistic, column) -> value of one world or sample

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
FINE, SHARP = ("B02", "B03", "B04", "B08"), ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
RADAR = ("VV", "VH")
CLASSES = {1: "water", 2: "trees", 4: "flooded", 5: "crops", 7: "built-up", 8: "bare", 9: "snow/ice", 11: "rangeland"}
TERRAMESH_CODES = np.array([0, 1, 2, 4, 5, 7, 8, 9, 10, 11])      # its class indices as ESRI's codes
LABELS = {"Non-irrigated arable land": "crops", "Pastures": "rangeland", "Coniferous forest": "trees"}
LEAST, PATCH = 300, 16
SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[2] / "shared" / "data" / "terramesh")).parent
SEEDS = 20_000_000                                # far from those of trainings


def correlations(bands: dict[str, Grid], clear: NDArray[np.bool_]) -> Found:
    """Each band with the red and with the near infrared one."""
    values = np.corrcoef(np.stack([band[clear] for band in bands.values()]))
    names = list(bands)
    return {(f"correlation with {other}", name): float(value) for other in ("B04", "B08")
            for name, value in zip(names, values[names.index(other)], strict=True)}


def spectral_slope(image: Grid) -> float:
    """The s in power ~ k^-s, fitted between waves of 1000 m and 22 m of the windowed image (Hann), rings of equal ratio."""
    side = min(image.shape)
    window = np.hanning(side)
    image = image[:side, :side]
    power = np.abs(np.fft.fft2((image - image.mean()) * window * window[:, None])) ** 2
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(side, 10), np.fft.fftfreq(side, 10)))
    rings = np.geomspace(1 / 1000, 1 / 22, 9)
    mean = [power[(k >= low) & (k < high)].mean() for low, high in pairwise(rings)]
    return -float(np.polyfit(np.log(np.sqrt(rings[1:] * rings[:-1])), np.log(mean), 1)[0])


def blocks(image: Grid, side: int) -> Grid:
    """Non-overlapping squares [n, side, side]."""
    height, width = (length // side for length in image.shape)
    return image[:height * side, :width * side].reshape(height, side, width, side).swapaxes(1, 2).reshape(-1, side, side)


def texture(image: Grid) -> float:
    """The share of the variance that is within blocks of 80 m."""
    return float(blocks(image, 8).var((1, 2)).mean() / max(image.var(), 1e-12))


def patterns(bands: dict[str, Grid]) -> Found:
    found: Found = {("slope of power spectrum", name): spectral_slope(bands[name]) for name in FINE}
    return found | {("variance within 80 m", name): texture(bands[name]) for name in SHARP}


def looks(power: Grid, name: str) -> Found:
    """Equivalent looks, mean^2 / variance, and the correlation of neighbours, in the most even tenth of the squares of 160 m."""
    squares = blocks(power, PATCH)
    squares = squares[np.isfinite(squares).all((1, 2))]
    mean, variance = squares.mean((1, 2)), squares.var((1, 2))
    even = np.argsort(variance / mean**2)[: max(len(mean) // 10, 3)]
    rest = (squares - mean[:, None, None])[even]
    moved = [(rest[:, :, step:] * rest[:, :, :-step]).mean((1, 2)) / variance[even] for step in (1, 2)]
    return {("looks, most even squares", name): float((mean**2 / variance)[even].mean()),
            ("correlation of neighbours", name): float(moved[0].mean()), ("of next neighbours", name): float(moved[1].mean()),
            ("looks, median square", name): float(np.median(mean**2 / variance))}


def class_medians(layers: dict[str, Grid], lulc: NDArray[np.uint8], clear: NDArray[np.bool_]) -> Found:
    chosen = {name: clear & (lulc == code) for code, name in CLASSES.items()}
    return {(name, band): float(np.median(image[where])) for name, where in chosen.items() if where.sum() >= LEAST
            for band, image in layers.items()}


def air(above: dict[str, Grid], below: dict[str, Grid], clear: NDArray[np.bool_]) -> Found:
    """The line L1C = a + b L2A over the pixels, both in DN."""
    found: Found = {}
    for band in below:
        slope, start = np.polyfit(below[band][clear], above[band][clear], 1)
        found |= {("L1C over L2A: a, DN", band): float(start), ("L1C over L2A: b", band): float(slope)}
    return found


def one_world(seed: int) -> tuple[Found, dict[str, Grid]]:
    """The statistics of a world, and some of its clear pixels with their classes."""
    layers, _ = region(seed)
    l2a, l1c = ({band: layer[i].astype(float).repeat(192 // layer.shape[1], 0).repeat(192 // layer.shape[1], 1)
                 for name, bands in rows.items() for i, band in enumerate(bands) for layer in [layers[name]]}
                for rows in (rows_of("s2l2a"), rows_of("s2l1c")))
    l2a, lulc = {band: l2a[band] for band in BANDS}, layers["lulc"][0]
    clear = layers["cloud_mask"][0] == 0
    snow = (l2a["B03"] - l2a["B11"] > 0.2 * (l2a["B03"] + l2a["B11"])) & (l2a["B04"] > 1000)
    free = clear & (~snow | (lulc == 9))
    decibel = {name: 10 * np.log10(image.astype(float)) for name, image in zip(RADAR, layers["s1rtc"], strict=True)}
    found = class_medians(l2a | decibel, lulc, free) | radar_patterns(decibel)
    if free.mean() > 0.5:
        found |= correlations(l2a, free) | air(l1c, l2a, clear)
    if free.all():
        found |= patterns(l2a)
    some = np.flatnonzero(free)[::37]
    return found, {"lulc": lulc.ravel()[some].astype(float)} | {band: image.ravel()[some] for band, image in l2a.items()}


def rows_of(product: str) -> dict[str, tuple[str, ...]]:
    return {row.name: row.bands for row in TABLE.rows if row.name.startswith(product)}


def radar_patterns(decibel: dict[str, Grid]) -> Found:
    found: Found = {("variance within 80 m", name): texture(image) for name, image in decibel.items()}
    for name, image in decibel.items():
        found |= looks(10 ** (image / 10), name)
    return found


def read(path: Path) -> NDArray[np.float64]:
    with rasterio.open(path) as file:
        return file.read().astype(float)


def terramesh(folder: Path) -> Iterator[tuple[Found, dict[str, Grid]]]:
    for path in sorted((folder / "terramesh" / "S2L2A").glob("*.tif")):
        l2a = dict(zip(BANDS, read(path), strict=True))
        stack = read(folder / "terramesh" / "S2L1C" / path.name)
        stack = np.delete(stack - (1000 if stack[10].min() > 900 else 0), 10, axis=0)      # B10's least tells the offset of 1000
        decibel = dict(zip(RADAR, read(folder / "terramesh" / "S1RTC" / path.name), strict=True))
        lulc = TERRAMESH_CODES[read(folder / "terramesh" / "LULC" / path.name)[0].astype(int)].astype(np.uint8)
        every = np.ones(lulc.shape, bool)
        found = class_medians(l2a | decibel, lulc, every) | correlations(l2a, every) | patterns(l2a) | radar_patterns(decibel)
        found |= air(dict(zip(BANDS, stack, strict=True)), l2a, every)
        yield found, {"lulc": lulc.ravel().astype(float)} | {band: image.ravel() for band, image in l2a.items()}


def patches(folder: Path) -> Iterator[Found]:
    for path in sorted((folder / "s2-100k").glob("*.tif")):
        bands = dict(zip(BANDS, read(path), strict=True))
        yield correlations(bands, np.ones(bands["B02"].shape, bool)) | patterns(bands)


def bigearthnet(folder: Path) -> Iterator[Found]:
    for place in sorted((folder / "bigearthnet").glob("S2*")):
        bands = {band: read(place / f"{place.name}_{band}.tif")[0] for band in BANDS}
        bands = {band: image.repeat(120 // len(image), 0).repeat(120 // len(image), 1) for band, image in bands.items()}
        labels = json.loads((place / f"{place.name}_labels_metadata.json").read_text())["labels"]
        found = correlations(bands, np.ones((120, 120), bool)) | patterns(bands)
        if labels[0] in LABELS:
            found |= {(LABELS[labels[0]], band): float(np.median(image)) for band, image in bands.items()}
        yield found
    for place in sorted((folder / "bigearthnet").glob("S1*")):
        yield radar_patterns({name: read(place / f"{place.name}_{name}.tif")[0] for name in RADAR})


def ground_range(folder: Path) -> Iterator[Found]:
    for path in sorted((folder / "sen12mscr" / "s1").glob("*.tif")) + sorted((folder / "sen1floods11" / "S1").glob("*.tif")):
        decibel = dict(zip(RADAR, read(path), strict=True))
        found = {key: value for key, value in radar_patterns(decibel).items() if np.isfinite(value)}
        label = folder / "sen1floods11" / "Label" / path.name.replace("S1Hand", "LabelHand")
        if label.exists() and (water := read(label)[0] == 1).sum() >= LEAST:
            found |= {("water", name): float(np.nanmedian(image[water])) + 1.0 for name, image in decibel.items()}
        yield found


def corrected(folder: Path) -> Iterator[Found]:
    names = {band: (f"ref_input_S2_{band}.tif", f"ref_check_icor_S2_{band}.tif") for band in FINE}
    above, below = ({band: read(folder / "mol-l1c-l2a" / pair[i])[0] for band, pair in names.items()} for i in (0, 1))
    clear = np.all([np.isfinite(below[band]) & (below[band] > 0) for band in FINE], axis=0)
    scale = 1.0 if np.nanmedian(above["B08"]) > 2 else 10_000.0
    yield air({band: image * scale for band, image in above.items()}, {band: image * scale for band, image in below.items()}, clear)


def left_by_classes(pixels: list[dict[str, Grid]]) -> tuple[Found, float]:
    """The share of the variance of all pixels that the means of the classes leave, by band and in all bands together."""
    lulc = np.concatenate([one["lulc"] for one in pixels])
    values = np.stack([np.concatenate([one[band] for one in pixels]) for band in BANDS])
    within, between = sum(values[:, lulc == code].var(1) * (lulc == code).mean() for code in np.unique(lulc)), values.var(1)
    found = {("variance left by class means", band): float(share) for band, share in zip(BANDS, within / between, strict=True)}
    return found, float(within.sum() / between.sum())


def line(label: str, source: str, what: str, values: dict[str, float]) -> str:
    def shown(column: str) -> str:
        if column not in values:
            return ""
        value = values[column]
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 8 else f"{value:.2f}"

    return f"{label:<29}{source:<12}{what:<7}" + "".join(f"{shown(column):>6}" for column in (*BANDS, *RADAR))


def lines(statistic: str, source: str, samples: list[Found], summary: dict[str, float]) -> Iterator[str]:
    """One line a quantile, or one where there is one sample."""
    columns: dict[str, list[float]] = defaultdict(list)
    for found in samples:
        for (name, column), value in found.items():
            if name == statistic:
                columns[column].append(value)
    if not columns:
        return
    count = max(len(values) for values in columns.values())
    for what, quantile in summary.items() if count > 1 else [("one", 0.5)]:
        values = {column: float(np.quantile(of_samples, quantile)) for column, of_samples in columns.items()}
        yield line(statistic, source, what if what != "median" else f"of {count}", values)


def table(sources: Iterable[tuple[str, list[Found], dict[str, float]]]) -> Iterator[str]:
    sources = list(sources)
    yield f"{'':<48}" + "".join(f"{column:>6}" for column in (*BANDS, *RADAR))
    order = dict.fromkeys([*CLASSES.values(), *(name for _, samples, _ in sources for found in samples for name, _ in found)])
    for statistic in order:
        for source, samples, summary in sources:
            yield from lines(statistic, source, samples, summary)
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--samples", type=Path, default=SAMPLES)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:
        drawn = list(pool.map(one_world, range(SEEDS, SEEDS + options.worlds), chunksize=8))
    worlds, cells = [found for found, _ in drawn], list(terramesh(options.samples))
    (worlds_left, in_all), (cells_left, in_cells) = (left_by_classes([pixels for _, pixels in of]) for of in (drawn, cells))
    of_worlds, of_samples = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}, {"least": 0.0, "median": 0.5, "most": 1.0}
    shown = [
        ("synthetic", worlds, of_worlds), ("synthetic", [worlds_left], of_worlds),
        ("TerraMesh", [found for found, _ in cells], of_samples), ("TerraMesh", [cells_left], of_samples),
        ("s2-100k", list(patches(options.samples)), of_samples), ("BigEarthNet", list(bigearthnet(options.samples)), of_samples),
        ("GRD", list(ground_range(options.samples)), of_samples), ("iCOR", list(corrected(options.samples)), of_samples),
    ]
    print("\n".join(table(shown)))
    print(f"variance that class means leave, all bands together: {in_all:.2f} (at least 0.5: {'met' if in_all >= 0.5 else 'missed'}), "
          f"least of a band {min(worlds_left.values()):.2f}; TerraMesh cells {in_cells:.2f} and {min(cells_left.values()):.2f}")


if __name__ == "__main__":
    main()
