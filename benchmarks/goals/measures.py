"""What is measured at one place? A function a task: samples of a model, the truth and what a baseline says, as a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from goals.places import Array, Baselines, band_names, bands, decibels, stacked
from numpy.typing import NDArray

from copgen import scores
from copgen.modalities import Table
from copgen.model import CopGen
from copgen.scene import Scene
from copgen.synthetic import world
from copgen.synthetic.resample import resample
from copgen.training.codec_report import codec_report, errors, open_codecs, reconstructed
from copgen.training.sources import Scenes, Worlds

CAUSES = ("DEM", "LULC", "place", "date")
RUNGS = ("DEM", "LULC", "S1RTC", "date", "place", "S2L1C")
CENTRAL = (0.5, 0.9)                             # shares of an ensemble in whose middle the truth is looked for
LEVELS = np.linspace(0, 1, 257)[1:] - 1 / 512    # of the quantiles that stand for a distribution
Numbers = dict[str, float | list[float]]


@dataclass(frozen=True)
class How:
    """How samples are drawn: so many, of so many network calls each."""

    samples: int = 16
    many: int = 32                               # where a distribution is looked at
    steps: int | None = None                     # None: the default solver's
    bank: int = 256                              # worlds among which the ladder's own spread is looked for

    def draw(self, model: CopGen, given: Scene | None, want: str, count: int | None = None) -> list[Scene]:
        return model.generate(given, want, seeds=range(count or self.samples), steps=self.steps)


def by_band(score: Callable[[NDArray[np.floating], NDArray[np.floating]], Array], samples: Sequence[Scene], truth: Scene) -> Array:
    """The mean over pixels of a score of S2L2A, [12]."""
    return np.concatenate([score(stacked(samples, row), truth[row]).mean((1, 2)) for row in truth.table.select("S2L2A")])


def optical_scores(samples: Sequence[Scene], truth: Scene) -> Numbers:
    """Error of the mean and CRPS of S2L2A in DN, every band weighing the same."""
    return {"mae": float(by_band(scores.error_of_mean, samples, truth).mean()), "crps": float(by_band(scores.crps, samples, truth).mean())}


def correction(model: CopGen, truth: Scene, elsewhere: Baselines, how: How) -> Numbers:
    """S2L2A given S2L1C, beside a line a band and the mere copy of L1C."""
    samples = how.draw(model, truth.only("S2L1C"), "S2L2A")
    top = dict(zip(band_names(truth, "S2L1C"), bands(truth, "S2L1C"), strict=True))
    guessed = []
    for name, below, slope, offset, level in zip(band_names(truth, "S2L2A"), bands(truth, "S2L2A"), elsewhere.slope, elsewhere.offset,
                                                 elsewhere.level, strict=True):
        guessed.append([np.abs(guess - below).mean() for guess in (slope * top[name] + offset, top[name], level)])
    line, copy, constant = np.mean(guessed, axis=0)
    codec = by_band(scores.error_of_mean, [model.reconstruct(truth.only("S2L2A"))], truth).mean()
    return {**optical_scores(samples, truth), "line": float(line), "copy": float(copy), "constant": float(constant), "codec": float(codec)}


def land_cover(model: CopGen, truth: Scene, elsewhere: Baselines, how: How) -> Numbers:
    """LULC given S2L2A: the confusion of the samples' most frequent class, and of the baseline's one class."""
    samples = how.draw(model, truth.only("S2L2A"), "LULC")
    legend = truth.table["lulc"].legend
    assert legend is not None
    table = scores.confusion(truth["lulc"], scores.mode(stacked(samples, "lulc")), legend.codes)
    return {"confusion": table.astype(float).ravel().tolist(), "accuracy": float(scores.accuracy(table)),
            "constant": float((truth["lulc"] == elsewhere.code).mean())}


def radar(model: CopGen, truth: Scene, elsewhere: Baselines, how: How) -> Numbers:
    """S1RTC given S2L2A and DEM, in dB, both polarisations weighing the same."""
    samples = decibels(stacked(how.draw(model, truth.only("S2L2A,DEM"), "S1RTC"), "s1rtc"))
    seen = decibels(truth["s1rtc"])
    codec = np.abs(decibels(model.reconstruct(truth.only("S1RTC"))["s1rtc"]) - seen)
    return {"mae": float(scores.error_of_mean(samples, seen).mean()), "crps": float(scores.crps(samples, seen).mean()),
            "constant": float(np.abs(seen - elsewhere.decibels[:, None, None]).mean()), "codec": float(codec.mean())}


def codecs_on_cells(model: CopGen, cells: Mapping[str, Scene], others: Worlds) -> dict[str, Numbers]:
    """What the codecs lose of real cells, each by itself, beside a block PCA of the same size fitted on other places."""
    scenes = list(cells.values())
    report = codec_report(open_codecs(str(model.folder)), Scenes("cells", scenes, model.table), others, each=True)["rows"]

    def of(row: str, what: str, codec: str = "codec") -> list[float]:
        return [float(one[what]) for one in report[row]["codecs"][codec]["each"]]

    found = {"psnr": of("s2l2a_10m", "psnr"), "pca psnr": of("s2l2a_10m", "psnr", "block PCA"),
             "radar": of("s1rtc", "rmse"), "pca radar": of("s1rtc", "rmse", "block PCA"),
             "accuracy": of("lulc", "accuracy"), "majority": of("lulc", "accuracy", "block majority"),
             "metres": of("dem", "rmse"), "pca metres": of("dem", "rmse", "block PCA"),
             "limit": [max(1.0, 0.005 * float(scene["dem"].mean())) for scene in scenes]}
    return {name: {key: values[k] for key, values in found.items()} for k, name in enumerate(cells)}


def codec_on_relief(model: CopGen, seed: int) -> Numbers:
    """The DEM codec's error in percent of the relief, where that is above 100 m."""
    heights = world(seed, model.table)["dem"][None]
    row = model.table["dem"]
    return {key: value for key, value in errors(row, heights, reconstructed(model.codec("dem"), row, heights)).items()
            if key == "percent_of_relief"}


# --- distributions ------------------------------------------------------------------------------------------------------------------

def quantiles(samples: Sequence[Scene]) -> list[float]:
    """256 quantiles of every band of S2L2A over all samples and about 200,000 pixels, band by band."""
    found = []
    for row in samples[0].table.select("S2L2A"):
        values = np.moveaxis(stacked(samples, row), 1, 0)
        values = values.reshape(len(values), -1)
        found.append(np.quantile(values[:, :: values.shape[1] // 200_000 | 1], LEVELS, axis=1).T)       # odd: all columns are seen
    return np.concatenate(found).ravel().tolist()


def spread(samples: Sequence[Scene], truth: Scene, label: str, rng: np.random.Generator) -> Numbers:
    """Variance, squared error and how often the truth lies in the central half and nine tenths of the ensemble, band by band."""
    rows = truth.table.select("S2L2A")
    pairs = [scores.spread_and_error(stacked(samples, row), truth[row]) for row in rows]
    rank = [scores.ranks(stacked(samples, row), truth[row], rng) for row in rows]
    found = {name: [pair[k] for pair in pairs] for k, name in enumerate(("variance", "squared"))}
    found |= {f"inside {level}": [scores.inside(one, len(samples), level)[0] for one in rank] for level in CENTRAL}
    return {f"{label} {name}": np.concatenate([values.mean((1, 2)) for values in by_row]).tolist() for name, by_row in found.items()}


def conditional(model: CopGen, seed: int, how: How) -> Numbers:
    """S2L2A given DEM, LULC, place and date, against as many true resamplings: spread, ranks and distributions, band by band."""
    truth = world(seed, model.table)
    again = [scene.only("S2L2A") for scene in resample(seed, CAUSES, how.many, table=model.table).scenes]
    samples = how.draw(model, truth.only(CAUSES), "S2L2A", how.many)
    rng = np.random.default_rng(0)
    optical = truth.only("S2L2A")
    coded = model.reconstruct(optical)
    return {**spread(samples, optical, "truth", rng), **spread(samples, coded, "coded", rng), **spread(again, optical, "perfect", rng),
            "quantiles": quantiles(samples), "true quantiles": quantiles(again),
            **optical_scores(samples, optical), **{f"own {name}": value for name, value in optical_scores(again, optical).items()}}


def vegetation(samples: Sequence[Scene]) -> float:
    """The mean NDVI over all samples and pixels."""
    red, _, _, infrared = np.moveaxis(stacked(samples, "s2l2a_10m").astype(np.float64), 1, 0)
    return float(((infrared - red) / np.maximum(infrared + red, 1)).mean())


# --- the ladder and the seasons -----------------------------------------------------------------------------------------------------

def rung(model: CopGen, truth: Scene, number: int, how: How) -> Numbers:
    """S2L2A given the first rows of the ladder."""
    return optical_scores(how.draw(model, truth.only(RUNGS[: number + 1]), "S2L2A"), truth)


def own_rung(seed: int, table: Table, number: int, how: How) -> Numbers:
    """What as many draws of the synthetic Earth score, given the same rows; nothing where they are refused."""
    truth = world(seed, table)
    if RUNGS[number] == "S2L1C":
        return {**optical_scores(moved(resample(seed, CAUSES, how.samples, table=table).scenes, truth), truth), "size": float(how.samples)}
    try:
        found = resample(seed, RUNGS[: number + 1], how.samples, table=table, bank=how.bank, candidates=how.bank // 4)
    except ValueError:
        return {}
    return {**optical_scores(found.scenes, truth), "size": found.effective_sample_size}


def moved(draws: Sequence[Scene], truth: Scene) -> list[Scene]:
    """Draws given DEM, LULC, place and date, their S2L2A moved band by band along a line to what it would be over the truth's S2L1C.

    This is the regression adjustment of approximate Bayesian computation (Beaumont, Zhang and Balding 2002), pixel by pixel.
    """
    made: list[dict[str, Array]] = [{} for _ in draws]
    for row in truth.table.select("S2L2A"):
        above = row.replace("s2l2a", "s2l1c")
        same = [truth.table[above].bands.index(band) for band in truth.table[row].bands]
        x, y, seen = stacked(draws, above)[:, same].astype(np.float64), stacked(draws, row).astype(np.float64), truth[above][same]
        off = x - x.mean((0, 2, 3), keepdims=True)
        slope = (off * y).sum((0, 2, 3), keepdims=True) / (off**2).sum((0, 2, 3), keepdims=True)
        for one, layer in zip(made, y + slope * (seen - x), strict=True):
            one[row] = layer
    return [truth.with_layers(one) for one in made]


def seasons(model: CopGen, seed: int, how: How) -> Numbers:
    """What July's NDVI is above January's at a place, of samples given DEM, LULC, place and date and of the world itself."""
    found: dict[str, list[float]] = {"model": [], "true": []}
    for day in ("2021-01-15", "2021-07-15"):
        again = resample(seed, CAUSES, how.samples, table=model.table, date=np.datetime64(day)).scenes
        found["true"].append(vegetation(again))
        found["model"].append(vegetation(how.draw(model, again[0].only(CAUSES), "S2L2A")))
    return {name: july - january for name, (january, july) in found.items()}
