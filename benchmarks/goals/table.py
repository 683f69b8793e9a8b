"""What do the numbers say? A row a goal: the figure with its interval over places, the goal, whether it is met, what stands beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from goals.measures import CENTRAL, RUNGS, How, Numbers
from goals.places import Array
from goals.running import JOINT, Results

from copgen import scores
from copgen.modalities import TABLE
from copgen.scores import Interval, mean, over_places

NAMES = [band for row in TABLE.rows if row.product == "S2L2A" for band in row.bands]
PSNR = {"282D_485L_3_3": 34.2, "38D_378R_2_3": 36.7, "637U_59R_1_3": 32.2}      # dB: a block PCA of the same size, fitted on other places
HEADER = "| what | figure (95 % interval over places) | goal | met | beside it | places | samples |\n|---|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    figure: str
    goal: str
    met: bool | None                             # None: no goal, a figure that is given
    beside: str
    places: str
    samples: str

    def __str__(self) -> str:
        met = {True: "yes", False: "no", None: ""}[self.met]
        return f"| {self.what} | {self.figure} | {self.goal} | {met} | {self.beside} | {self.places} | {self.samples} |"


def rows(results: Results, how: How, calls: int) -> list[Row]:
    """The whole table, as far as there are results."""
    drawn, many = f"{how.samples} x {calls}", f"{how.many} x {calls}"
    found = [*codec_rows(results), *correction_rows(results.get("correction", {}), drawn)]
    if "conditional" in results:
        found += [conditional_row(results["conditional"], many), *spread_rows(results["conditional"], how, many),
                  distribution_row(results["conditional"], results["unconditional"][JOINT], many)]
    found += [*ladder_rows(results, drawn), *season_rows(results, drawn), *cover_rows(results.get("land_cover", {}), drawn)]
    return [*found, *radar_rows(results.get("radar", {}), drawn)]


def split(by_place: Mapping[str, Numbers]) -> list[tuple[str, dict[str, Numbers]]]:
    """Worlds and real cells apart, as far as there are any."""
    worlds = {place: numbers for place, numbers in by_place.items() if place.isdigit()}
    real = {place: numbers for place, numbers in by_place.items() if not place.isdigit()}
    return [(name, part) for name, part in (("worlds", worlds), ("real cells", real)) if part]


def column(by_place: Mapping[str, Numbers], key: str) -> Array:
    """One figure of every place, places last."""
    return np.moveaxis(np.array([numbers[key] for _, numbers in sorted(by_place.items())], np.float64), 0, -1)


def averaged(by_place: Mapping[str, Numbers], key: str) -> Interval:
    return over_places(mean, column(by_place, key))


def count(by_place: Mapping[str, Numbers]) -> str:
    return f"{len(by_place)}"


def each(values: Iterable[float], form: str = ".1f") -> str:
    return ", ".join(f"{value:{form}}" for value in values)


# --- reconstruction -----------------------------------------------------------------------------------------------------------------

def codec_rows(results: Results) -> list[Row]:
    found = []
    if real := results.get("codecs"):
        got = {key: column(real, key) for key in next(iter(real.values()))}
        least = np.array([PSNR.get(name, 0.0) for name in sorted(real)])
        make = partial(Row, places=f"{count(real)} real cells", samples="codec alone")
        found = [
            make("reconstruction: S2L2A 10 m, PSNR (dB)", f"{each(got['psnr'])}; mean {got['psnr'].mean():.1f}",
                 f"{each(least)} and 35 on average", bool((got["psnr"] >= least).all() and got["psnr"].mean() >= 35),
                 f"block PCA fitted on worlds: {each(got['pca psnr'])}"),
            make("reconstruction: S1RTC, RMSE (dB)", each(got["radar"], ".2f"), "<= 1.8 each", bool((got["radar"] <= 1.8).all()),
                 f"block PCA: {each(got['pca radar'], '.2f')}"),
            make("reconstruction: LULC, accuracy (%)", each(got["accuracy"]), ">= 98 each", bool((got["accuracy"] >= 98).all()),
                 f"block majority: {each(got['majority'])}"),
            make("reconstruction: DEM, RMSE (m)", each(got["metres"], ".2f"), f"<= max(1 m, 0.5 % of height): {each(got['limit'], '.2f')}",
                 bool((got["metres"] <= got["limit"]).all()), f"block PCA: {each(got['pca metres'], '.2f')}"),
        ]
    if hilly := {place: numbers for place, numbers in results.get("relief", {}).items() if numbers}:
        share = column(hilly, "percent_of_relief")
        found.append(Row("reconstruction: DEM, RMSE in % of the relief", f"{over_places(mean, share):.2f}; worst {share.max():.2f}", "<= 5",
                         bool(share.mean() <= 5), "", f"{len(share)} worlds with over 100 m", "codec alone"))
    return found


# --- given layers -------------------------------------------------------------------------------------------------------------------

def correction_rows(by_place: Mapping[str, Numbers], drawn: str) -> list[Row]:
    found = []
    for name, part in split(by_place):
        error, score, line, copy = (averaged(part, key) for key in ("mae", "crps", "line", "copy"))
        single = f": {each(column(part, 'mae'), '.0f')}" if name == "real cells" else ""
        lines = f" ({each(column(part, 'line'), '.0f')})" if single else ""
        beside = (f"line a band fitted on other places {line.value:.0f}{lines}, copy of L1C {copy.value:.0f}, best constant "
                  f"{averaged(part, 'constant').value:.0f}, codec alone {averaged(part, 'codec').value:.0f}")
        found += [Row(f"S2L2A given S2L1C, {name}: MAE of the mean (DN)", f"{error:.0f}{single}", f"< {line.value:.0f}",
                      error.value < line.value, beside, count(part), drawn),
                  Row(f"S2L2A given S2L1C, {name}: CRPS (DN)", f"{score:.0f}", f"< {line.value:.0f}", score.value < line.value,
                      "the same", count(part), drawn)]
    return found


def cover_rows(by_place: Mapping[str, Numbers], drawn: str) -> list[Row]:
    found = []
    for name, part in split(by_place):
        tables, real = column(part, "confusion"), name == "real cells"                         # [k * k, places]
        agreed = over_places(pooled_kappa, tables)
        figure = f"{agreed:.2f}" + (f": {each(pooled_kappa(tables[..., None]), '.2f')}" if real else "")
        beside = (f"accuracy {averaged(part, 'accuracy').value:.1%}; the class that is commonest elsewhere: "
                  f"{averaged(part, 'constant').value:.1%}, kappa 0")
        found.append(Row(f"LULC given S2L2A, {name}: Cohen's kappa of the mode", figure, "given" if real else ">= 0.4",
                         None if real else agreed.value >= 0.4, beside, count(part), drawn))
    return found


def pooled_kappa(tables: Array) -> Array:
    """Of all pixels of all places together: flat confusion tables [k * k, ..., places] -> [...]."""
    total = np.moveaxis(tables.sum(-1), 0, -1)
    side = round(total.shape[-1] ** 0.5)
    return scores.kappa(total.reshape(*total.shape[:-1], side, side))


def radar_rows(by_place: Mapping[str, Numbers], drawn: str) -> list[Row]:
    found = []
    for name, part in split(by_place):
        gain = over_places(lambda crps, constant: 1 - crps.mean(-1) / constant.mean(-1), column(part, "crps"), column(part, "constant"))
        beside = (f"CRPS {averaged(part, 'crps'):.2f} dB, constant fitted on other places {averaged(part, 'constant').value:.2f} dB, "
                  f"MAE of the mean {averaged(part, 'mae').value:.2f} dB, codec alone {averaged(part, 'codec').value:.2f} dB")
        single = f": {each(1 - column(part, 'crps') / column(part, 'constant'), '.0%')}" if name == "real cells" else ""
        found.append(Row(f"S1RTC given S2L2A + DEM, {name}: CRPS below the constant's MAE by", f"{gain:.0%}{single}", ">= 15 %",
                         gain.value >= 0.15, beside, count(part), drawn))
    return found


# --- distributions ------------------------------------------------------------------------------------------------------------------

def conditional_row(by_place: Mapping[str, Numbers], drawn: str) -> Row:
    got, own = ([averaged(by_place, f"{whose}{key}").value for key in ("mae", "crps")] for whose in ("", "own "))
    return Row("S2L2A given DEM, LULC, place, date: CRPS (DN)", f"{averaged(by_place, 'crps'):.0f}", "given", None,
               f"true resamplings {own[1]:.0f}; MAE of the mean {got[0]:.0f}, of true resamplings {own[0]:.0f}", count(by_place), drawn)


def spread_rows(by_place: Mapping[str, Numbers], how: How, drawn: str) -> list[Row]:
    def ratio(variance: Array, squared: Array) -> Array:
        """The mean over bands of the spread-to-skill ratio; [12, ..., places] -> [...]."""
        return np.sqrt(variance.mean(-1) / squared.mean(-1)).mean(0)

    found, n = [], count(by_place)
    for label, against in (("truth", "the truth"), ("coded", "the truth's reconstruction")):
        skill, perfect = (over_places(ratio, column(by_place, f"{one} variance"), column(by_place, f"{one} squared"))
                          for one in (label, "perfect"))
        found.append(Row(f"S2L2A given DEM, LULC, place, date: spread-to-skill against {against}", f"{skill:.2f}", "0.8 - 1.25",
                         0.8 <= skill.value <= 1.25, f"true resamplings {perfect:.2f}", n, drawn))
        for level in CENTRAL:
            share, ideal = (over_places(lambda x: x.mean((0, -1)), column(by_place, f"{one} inside {level}")) for one in (label, "perfect"))
            nominal = scores.inside(np.zeros(1, int), how.many, level)[1]
            beside = f"a perfect ensemble of {how.many} {nominal:.1%}, true resamplings {ideal:.1%}"
            found.append(Row(f"- coverage of the central {level:.0%} of ranks against {against}", f"{share:.1%}", "within 5 points",
                             abs(share.value - nominal) <= 0.05, beside, n, drawn))
    return found


def distribution_row(by_place: Mapping[str, Numbers], free: Numbers, drawn: str) -> Row:
    got, true = (column(by_place, key).reshape(len(NAMES), -1, len(by_place)) for key in ("quantiles", "true quantiles"))
    anyhow = np.reshape(np.array(free["quantiles"]), (len(NAMES), -1, 1))
    given, nothing = (np.stack([scores.wasserstein(x.T, true[band].T) for band, x in enumerate(one)]) for one in (
        got, np.broadcast_to(anyhow, true.shape)))                                             # [12, places]
    ratio = over_places(lambda x, y: (x.mean(-1) / y.mean(-1)).mean(0), given, nothing)
    bands = given.mean(-1) / nothing.mean(-1)
    worst = int(bands.argmax())
    return Row("- Wasserstein-1 to the resamplings, of the unconditional model's, mean over bands",
               f"{ratio:.2f}; worst {NAMES[worst]} {bands[worst]:.2f}", "< 0.5 in every band", bool(bands[worst] < 0.5),
               f"{given.mean():.0f} DN; unconditional {nothing.mean():.0f} DN", count(by_place), drawn)


# --- the ladder and the seasons -----------------------------------------------------------------------------------------------------

def ladder_rows(results: Results, drawn: str) -> list[Row]:
    steps = [results.get(f"rung {number}", {}) for number in range(len(RUNGS))]
    if not all(steps):
        return []
    errors = [column(step, "mae") for step in steps]
    found = []
    for number, step in enumerate(steps):
        figure, goal, met = f"{averaged(step, 'mae'):.0f}", "", None
        if number:
            growth = over_places(mean, errors[number] - errors[number - 1])
            figure, goal, met = f"{figure}; step {growth:+.0f}", "no growth beyond its interval", growth.low <= 0
        found.append(Row(f"ladder, S2L2A given {'+ ' if number else ''}{RUNGS[number]}: MAE of the mean (DN)", figure, goal, met,
                         f"CRPS {averaged(step, 'crps').value:.0f}; {own(results.get(f'own {number}', {}))}", count(step), drawn))
    last = over_places(lambda x, y: x.mean(-1) / y.mean(-1), errors[-1], errors[0])
    return [*found, Row("ladder, last rung over the first", f"{last:.2f}", "< 0.5", last.value < 0.5, "", count(steps[0]), drawn)]


def own(by_place: Mapping[str, Numbers]) -> str:
    """What the world's own draws score, where there are enough of them."""
    there = {place: numbers for place, numbers in by_place.items() if numbers}
    if not there:
        return "the world's own: refused (effective sample size below 8)"
    refused = f", refused at {len(by_place) - len(there)}" if len(there) < len(by_place) else ""
    return (f"the world's own {averaged(there, 'mae').value:.0f}, CRPS {averaged(there, 'crps').value:.0f} "
            f"(effective sample size {np.median(column(there, 'size')):.0f}{refused})")


def season_rows(results: Results, drawn: str) -> list[Row]:
    found = []
    for task, by_place in sorted(results.items()):
        if task.startswith("seasons"):
            share = over_places(lambda x, y: x.mean(-1) / y.mean(-1), column(by_place, "model"), column(by_place, "true"))
            beside = f"NDVI July less January: samples {averaged(by_place, 'model'):+.3f}, the world {averaged(by_place, 'true'):+.3f}"
            found.append(Row(f"date given, {task.partition(' ')[2]}: NDVI's movement as a share of the true one", f"{share:.2f}", ">= 0.5",
                             share.value >= 0.5, beside, count(by_place), drawn))
    return found


def markdown(found: Sequence[Row]) -> str:
    return "\n".join([HEADER, *map(str, found)])


