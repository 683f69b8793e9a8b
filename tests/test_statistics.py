"""What must hold of the rows that an ensemble becomes: numbers worked by hand, one pixel after another, for every published convention."""

from dataclasses import replace

import numpy as np
import pytest

from copgen.evaluation.kept import Ensemble
from copgen.evaluation.missing import no_data_note
from copgen.evaluation.recipe import Condition
from copgen.evaluation.statistics import statistics
from copgen.modalities import TABLE, Table
from copgen.scene import Scene

# rows of 10 m over 20 m of ground: images of 2 x 2 pixels
SMALL = Table((TABLE["place"], TABLE["date"], replace(TABLE["dem"], resolution=10), TABLE["lulc"], replace(TABLE["s1rtc"], bands=("vv",)),
               replace(TABLE["s2l2a_10m"], bands=("B04",), rgb=None)), footprint=20)


def scene(seed=None, table=SMALL, **layers):
    made = {name: np.array(layer, "datetime64[D]") if name == "date" else np.array(layer) for name, layer in layers.items()}
    made = {name: layer[None] if layer.ndim == 2 else layer for name, layer in made.items()}
    return Scene(made, name="hand-made", table=table, notes={} if seed is None else {"seed": seed})


def ensemble(truth, *samples, others=(), samples_asked=None, given=(), **more):
    scored = tuple(name for name in truth.table.names if name in truth and name not in given)
    return Ensemble(Condition("test", given, scored, samples_asked or len(samples), **more), truth, list(others), list(samples), "hand")


def found(rows):
    """(seed, band, statistic) -> (value, weight); every row once and finite."""
    table = {(row.seed, row.band, row.statistic): (row.value, row.weight) for row in rows}
    assert len(table) == len({(row.seed, row.modality, row.band, row.statistic) for row in rows}) == len(rows)
    assert all(np.isfinite(row.value) and row.weight > 0 for row in rows)
    return table


def said(rows, modality, seed, band, *names):
    there = found([row for row in rows if row.modality == modality])
    return [there[seed, band, name][0] for name in names]


ERRORS = ("error", "absolute error", "squared error", "published absolute error", "published squared error",
          "published scaled squared error", "psnr", "mean")


def test_reflectance_is_published_in_units_of_one_and_scaled_by_the_truths_own_range():
    """Errors are 500, 0, -1000 and 2000 DN: their sum 1500, of absolutes 3500, of squares 0.25e6 + 1e6 + 4e6 = 5.25e6, over 4.

    Published: DN / 10000, so 1e-4 and 1e-8 of these. Scaled by the truth's 1000 to 5000: truth 0, 0.25, 0.5, 1; sample 0.125, 0.25, 0.25
    and 1.5, cut off at 1. Differences 0.125, 0, -0.25, 0; squares 0.015625 + 0.0625 over 4. PSNR: 10 log10(10000^2 / 1312500).
    """
    truth = scene(s2l2a_10m=[[1000, 2000], [3000, 5000]])
    rows = statistics(ensemble(truth, scene(0, s2l2a_10m=[[1500, 2000], [2000, 7000]])))
    expected = [375, 875, 1312500, 0.0875, 0.013125, 0.01953125, 10 * np.log10(1e8 / 1312500), 3125]
    assert said(rows, "S2L2A", 0, "B04", *ERRORS) == pytest.approx(expected, rel=1e-6)
    assert said(rows, "S2L2A", None, "B04", "truth mean") == [2750]
    assert {row.weight for row in rows if row.statistic in ERRORS and row.statistic != "psnr"} == {4}
    assert {row.weight for row in rows if row.statistic == "psnr"} == {1}
    assert not {"ssim", "published ssim", "slope"} & {row.statistic for row in rows}                 # of 2 x 2 pixels there is none


def test_radar_is_scored_in_decibels_and_published_ones_are_cut_off():
    """Truth -30, -10, 0 and 20 dB; sample -30, -20, 0 and no power at all: the row's floor, 10 log10(2.638e-6) = -55.787 dB.

    Errors 0, -10, 0, -75.787. Published: the truth's 20 is cut off at 10, the sample's floor at -50: errors 0, -10, 0, -60; scaled by the
    truth's -30 to 10: truth 0, 0.5, 0.75, 1; sample 0, 0.25, 0.75 and -0.5, cut off at 0: squares 0.0625 + 1, over 4. For PSNR both are
    cut off at -40 and 10 dB: errors 0, -10, 0, -50, the width 50.
    """
    truth = scene(s1rtc=[[1e-3, 0.1], [1, 100]])
    rows = statistics(ensemble(truth, scene(0, s1rtc=[[1e-3, 0.01], [1, 0]])))
    floor = 10 * np.log10(TABLE["s1rtc"].scale.floor)
    off = floor - 20
    expected = [(off - 10) / 4, (10 - off) / 4, (100 + off**2) / 4, 70 / 4, 3700 / 4, 1.0625 / 4, 10 * np.log10(2500 / 650),
                (floor - 50) / 4]
    assert said(rows, "S1RTC", 0, "vv", *ERRORS) == pytest.approx(expected, rel=1e-5)


def test_heights_are_published_in_metres():
    """Errors 1, 2, -4 and 50 m. Scaled by the truth's 100 to 140: 0.025, 0.05, -0.1 and none, since 190 is cut off at 140."""
    rows = statistics(ensemble(scene(dem=[[100, 110], [120, 140]]), scene(0, dem=[[101, 112], [116, 190]])))
    mean, square = 57 / 4, (1 + 4 + 16 + 2500) / 4
    expected = [49 / 4, mean, square, mean, square, (0.025**2 + 0.05**2 + 0.01) / 4, 10 * np.log10(1e6 / square), 519 / 4]
    assert said(rows, "DEM", 0, "DEM", *ERRORS) == pytest.approx(expected, rel=1e-5)


def test_a_flat_truth_is_scaled_by_a_millionth():
    """Everything above it is cut off at 1, as published: the denominator is 1e-6, in reflectance."""
    rows = statistics(ensemble(scene(s2l2a_10m=np.full((2, 2), 500)), scene(0, s2l2a_10m=[[500, 501], [499, 9000]])))
    assert said(rows, "S2L2A", 0, "B04", "published scaled squared error") == [0.5]


def test_a_copy_has_a_finite_psnr():
    truth = scene(dem=[[1, 2], [3, 4]])
    assert said(statistics(ensemble(truth, replace(truth, notes={"seed": 0}))), "DEM", 0, "DEM", "psnr", "squared error") == [100, 0]


def test_classes_are_counted_pair_by_pair():
    """Codes 1, 1, 5, 11 against 1, 5, 5, 5."""
    rows = statistics(ensemble(scene(lulc=[[1, 1], [5, 11]]), scene(3, lulc=[[1, 5], [5, 5]])))
    hits = {row.statistic: (row.seed, row.value, row.weight) for row in rows if row.statistic.startswith("hits")}
    assert hits == {name: (3, 0.25, 4) for name in ("hits:1:1", "hits:1:5", "hits:5:5", "hits:11:5")}


def test_shares_of_classes_are_held_against_the_truth():
    """Two samples: 1 1 / 2 5 and 1 2 / 2 7, truth 1 1 / 2 2. Water (1): both, one, none, none say it; it is true in the first two.

    Brier: 0; 1/4 + 1/4; 0; 1 + 1/4 + 1/4 over 4. Fair: less p (1 - p) / 1 a class, 1/2 in the second and the fourth. Entropy: 0, 1, 0, 1.
    """
    rows = statistics(ensemble(scene(lulc=[[1, 1], [2, 2]]), scene(0, lulc=[[1, 1], [2, 5]]), scene(1, lulc=[[1, 2], [2, 7]])))
    table = found(rows)
    expected = {(1, 2): (1, 1), (1, 1): (1, 1), (1, 0): (0, 2), (2, 2): (1, 1), (2, 1): (0, 1), (2, 0): (0.5, 2), (5, 1): (0, 1),
                (5, 0): (0, 3), (7, 1): (0, 1), (7, 0): (0, 3)} | {(code, 0): (0, 4) for code in (0, 4, 8, 9, 10, 11)}
    reliability = {name: value for (_, _, name), value in table.items() if name.startswith("reliability")}
    assert reliability == {f"reliability:{code}:{k}:2": value for (code, k), value in expected.items()}
    assert [table[None, "", name] for name in ("brier", "fair brier", "entropy")] == [(0.5, 4), (0.25, 4), (0.5, 4)]


def test_places_are_great_circles_of_the_published_radius():
    """A degree of a meridian is 6371 pi / 180 = 111.195 km; a degree of longitude at 60 degrees is half, but for the sphere's bend."""
    truth, samples = scene(place=[60.0, 10.0]), (scene(0, place=[61.0, 10.0]), scene(1, place=[60.0, 11.0]), scene(2, place=[60.0, 10.0]))
    table = found(statistics(ensemble(truth, *samples)))
    degree = 6371 * np.pi / 180
    half = 2 * 6371 * np.arcsin(0.5 * np.sin(np.radians(0.5)))
    assert [table[seed, "", "kilometres"][0] for seed in range(3)] == pytest.approx([degree, half, 0])
    between = 2 * 6371 * np.arcsin(np.sqrt(np.sin(np.radians(0.5)) ** 2 * (1 + np.cos(np.radians(61)) * np.cos(np.radians(60)))))
    assert table[None, "", "spread km"][0] == pytest.approx((degree + half + between) / 3)
    assert table[None, "", "energy score"][0] == pytest.approx((degree + half) / 3 - (degree + half + between) / 6)


def test_months_do_not_wrap_and_days_of_the_year_do():
    """From 31 December 2020 to 1 January 2021 it is one day, 11 months as published, another month and another year."""
    truth = scene(date=["2021-01-01"])
    table = found(statistics(ensemble(truth, scene(0, date=["2020-12-31"]), scene(1, date=["2019-01-21"]))))
    names = ("days", "months", "same month", "same year", "days of year")
    assert [table[0, "", name][0] for name in names] == [1, 11, 0, 0, 1]
    assert [table[1, "", name][0] for name in names] == pytest.approx([711, 0, 1, 0, 19.485])    # 711 = 2 x 365.2425 - 19.485


def test_an_ensemble_is_scored_pixel_by_pixel_and_as_one_tile():
    """Heights 0, 2 and 4 above 10, everywhere; truth 11, 12, 13 and 15.

    CRPS: mean |x - y| less the 8 of three pairs' distances (2 + 2 + 4) over 3 x 2: 5/3, 4/3, 5/3 and 3 less 4/3: 1/3, 0, 1/3, 5/3.
    Variance 4, spread 16/3; errors of the mean 12: -1, 0, 1, 3: squares 11/4. Ranks 1, 2 or 1 by lot (a tie), 2 and 3.
    As a tile: samples 10, 12, 14 and truth 12.75: CRPS (2.75 + 0.75 + 1.25) / 3 - 4/3, skill 0.5625, rank 2.
    """
    truth = scene(dem=[[11, 12], [13, 15]])
    table = found(statistics(ensemble(truth, *(scene(k, dem=np.full((2, 2), 10 + 2 * k)) for k in range(3)))))
    value = {name: one for (seed, _, name), one in table.items() if seed is None}
    expected = {"crps": (7 / 3 / 4, 4), "variance": (4, 4), "spread": (16 / 3, 4), "skill": (11 / 4, 4), "error of mean": (5 / 4, 4),
                "rank:0:3": (0, 4), "rank:3:3": (0.25, 4), "tile crps": (4.75 / 3 - 4 / 3, 1), "tile spread": (16 / 3, 1),
                "tile skill": (0.5625, 1), "tile rank:2:3": (1, 1), "tile rank:0:3": (0, 1), "samples": (1, 3)}
    assert {name: value[name] for name in expected} == {name: pytest.approx(one, abs=1e-6) for name, one in expected.items()}
    assert sorted(value[f"rank:{k}:3"][0] for k in (1, 2)) == [0.25, 0.5]
    assert value["energy score"][0] == pytest.approx(value["crps"][0])                               # of one band they are the same


def test_many_truths_are_averaged_and_weigh_as_one():
    """One sample at 3; truths 1 and 7: absolute errors 2 and 4, squares 4 and 16, ranks 0 and 1 of 1; against the first alone: 2."""
    truths = [scene(dem=np.full((2, 2), height)) for height in (1, 7)]
    table = found(statistics(ensemble(truths[0], scene(0, dem=np.full((2, 2), 3)), others=truths[1:])))
    value = {name: one for (_, _, name), one in table.items()}
    assert [value[name] for name in ("crps", "error of mean", "skill")] == [(3, 4), (3, 4), (10, 4)]
    assert value["rank:0:1"] == value["rank:1:1"] == (0.5, 4)
    assert value["absolute error"] == (2, 4)
    assert not {"variance", "spread", "nn accuracy"} & set(value)                                    # of one sample there is none


def test_what_is_not_known_does_not_count():
    """The truth's last pixel and one of the second sample's were filled: they are left out, and the weights say so."""
    last, second = np.eye(4, dtype=bool).reshape(4, 1, 2, 2)[[3, 1]]
    truth, other = scene(dem=[[1, 2], [3, 999]]), scene(1, dem=[[3, 777], [3, 5]])
    truth, other = (one.with_layers(one.layers, **no_data_note({"dem": hole})) for one, hole in ((truth, last), (other, second)))
    table = found(statistics(ensemble(truth, scene(0, dem=[[2, 2], [5, -7]]), other)))
    assert table[0, "DEM", "absolute error"] == (1, 3)
    assert table[0, "DEM", "published scaled squared error"] == (pytest.approx((0.25 + 0) / 3), 3)   # 5 is cut off at the truth's 3
    assert table[1, "DEM", "absolute error"] == (1, 2)
    assert table[None, "DEM", "truth mean"] == (2, 3)
    assert table[1, "DEM", "mean"] == (pytest.approx(11 / 3), 3)
    assert table[None, "DEM", "crps"] == (pytest.approx((1.5 - 0.5 + 1 - 1) / 2), 2)
    assert table[None, "DEM", "tile skill"] == (pytest.approx((3.25 - 2) ** 2), 1)                   # means over the two: 3.5, 3; truth 2
    assert not {"psnr", "variogram score"} & {name for _, _, name in table}


def test_samples_that_lack_a_row_are_counted_missing():
    truth = scene(dem=[[1, 2], [3, 4]], lulc=[[1, 1], [2, 2]])
    rows = statistics(ensemble(truth, replace(truth, notes={"seed": 4}), scene(7, lulc=[[1, 1], [1, 1]]), samples_asked=4))
    counts = {row.modality: (row.value, row.weight) for row in rows if row.statistic == "samples"}
    assert counts == {"DEM": (0.25, 4), "LULC": (0.5, 4)}
    assert {row.seed for row in rows if row.statistic == "error"} == {4}
    nothing = statistics(ensemble(truth, samples_asked=4))
    assert [(row.statistic, row.value, row.weight) for row in nothing if "truth" not in row.statistic] == [("samples", 0, 4)] * 2


def test_two_samples_of_one_seed_are_refused():
    truth = scene(dem=[[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="hand-made: two samples have the seed 3"):
        statistics(ensemble(truth, *[replace(truth, notes={"seed": 3})] * 2))


# --- influence ----------------------------------------------------------------------------------------------------------------------

def test_what_a_swap_moves_is_measured_without_its_noise():
    """Pairs at 10 -> 14 and 12 -> 14 m: differences 4 and 2, mean 3, variance 2: 9 - 2/2 = 8. Spread: variance 2 by 3/2.

    Classes: shares of water 1 -> 0 and of trees 0 -> 1 without any noise: 1 + 1, and no spread.
    """
    truth = scene(dem=np.zeros((2, 2)), lulc=np.ones((2, 2)), date=["2021-01-01"])
    before = [scene(seed, dem=np.full((2, 2), height), lulc=np.ones((2, 2))) for seed, height in ((0, 10), (1, 12))]
    after = [scene(seed, dem=np.full((2, 2), 14), lulc=np.full((2, 2), 2)) for seed in (1, 0)]
    one = ensemble(truth, *before, given=("date",), swap="date")
    values = {(row.modality, row.statistic): (row.value, row.weight) for row in statistics(one, after)}
    assert values == {("DEM", "samples"): (1, 2), ("LULC", "samples"): (1, 2), ("DEM", "moved"): (8, 4), ("DEM", "spread"): (3, 4),
                      ("LULC", "moved"): (2, 4), ("LULC", "spread"): (0, 4)}
    true = statistics(replace(one, others=before), after, swapped_others=after[::-1])
    assert {row.modality: row.value for row in true if row.statistic == "true moved"} == {"DEM": 8, "LULC": 2}


def test_a_place_is_moved_by_the_chord_and_a_date_round_the_year():
    """From the equator at 0 to 90 degrees east: sqrt(2) radii. From January to July: across the circle whose round is a year."""
    truth = scene(place=[0, 0], date=["2021-01-01"], dem=np.zeros((2, 2)))
    before = [scene(seed, place=[0.0, 0.0], date=["2021-01-01"]) for seed in (0, 1)]
    after = [scene(seed, place=[0.0, 90.0], date=["2019-07-02"]) for seed in (0, 1)]
    rows = statistics(ensemble(truth, *before, given=("dem",), swap="DEM"), after)
    found = {row.modality: row.value for row in rows if row.statistic == "moved"}
    assert found["place"] == pytest.approx(2 * 6371**2)
    assert found["date"] ** 0.5 == pytest.approx(365.2425 / np.pi, rel=1e-3)
