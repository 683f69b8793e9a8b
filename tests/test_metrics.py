"""Metrics made of rows are those computed from the pixels, in the conventions of the published evaluator and in sane ones."""

import numpy as np
import pandas as pd
import pytest
from made_rows import Made, classes, errors, given_all_but, places_of

from copgen import scores
from copgen.evaluation.arrays import Results, band_order
from copgen.evaluation.asked import asked_without, removable
from copgen.evaluation.metrics import METRICS, Measured, metrics_of

BANDS = {"B04": 24, "B11": 12, "B01": 4}         # of several resolutions: pixels along a side


def metric(modality, key):
    return next(one for one in METRICS[modality] if one.key == key)


def optical(cells=5, seeds=3, lacking=()):
    """Rows of S2L2A and the images they were made of: [cell][band] and [cell, seed][band]."""
    rng = np.random.default_rng(0)
    made, truths, drawn = Made(), {}, {}
    for c in range(cells):
        for band, side in BANDS.items():
            truths[c, band] = rng.uniform(100, 3000 + 500 * c, (side, side))
            for seed in range(seeds):
                if (c, seed) not in lacking:
                    drawn[c, seed, band] = truths[c, band] + rng.normal(0, 100 + 50 * seed, (side, side))
                    errors(made, f"c{c}", seed, truths[c, band], drawn[c, seed, band], modality="S2L2A", band=band)
    names = [f"c{c}" for c in range(cells)]
    return made.results(places=places_of(names), cells=names), truths, drawn


def measured(results, modality):
    return Measured(results, tuple(results.asked), modality, draws=200)


def run_level(truths, drawn, seed, function):
    """What the published evaluator has of one run: a function of all differences of all pixels of all bands."""
    off = np.concatenate([(drawn[key] - truths[key[0], key[2]]).ravel() for key in drawn if key[1] == seed])
    return function(off / 1e4)


def test_published_errors_pool_all_pixels_of_all_bands_and_tiles():
    results, truths, drawn = optical()
    found = measured(results, "S2L2A")
    for key, function in (("mae", lambda off: np.abs(off).mean()), ("rmse", lambda off: np.sqrt((off**2).mean()))):
        direct = [run_level(truths, drawn, seed, function) for seed in range(3)]
        number = found.experiment(metric("S2L2A", key))
        assert number.value == pytest.approx(np.mean(direct), rel=1e-12)
        assert number.std == pytest.approx(np.std(direct), rel=1e-9)


def test_sane_errors_count_every_band_the_same():
    results, truths, drawn = optical()
    found = measured(results, "S2L2A")
    by_band = [[np.mean([np.abs(drawn[c, s, b] - truths[c, b]).mean() for c in range(5)]) for b in BANDS] for s in range(3)]
    assert found.experiment(metric("S2L2A", "mae-sane")).value == pytest.approx(np.mean(by_band))
    squares = [[np.mean([((drawn[c, s, b] - truths[c, b]) ** 2).mean() for c in range(5)]) for b in BANDS] for s in range(3)]
    assert found.experiment(metric("S2L2A", "rmse-sane")).value == pytest.approx(np.sqrt(np.mean(squares, 1)).mean())


def scaled_error(truth, made):
    x, y = ((one - truth.min()) / (truth.max() - truth.min()) for one in (made, truth))
    return ((np.clip(x, 0, 1) - y) ** 2).ravel()


def test_published_psnr_is_of_the_pooled_error_and_no_mean_of_images():
    results, truths, drawn = optical()
    found = measured(results, "S2L2A")
    direct = [-10 * np.log10(np.concatenate([scaled_error(truths[c, b], drawn[c, s, b]) for c in range(5) for b in BANDS]).mean())
              for s in range(3)]
    assert found.experiment(metric("S2L2A", "psnr")).value == pytest.approx(np.mean(direct))
    tiles = [[-10 * np.log10(np.concatenate([scaled_error(truths[c, b], drawn[c, s, b]) for b in BANDS]).mean()) for s in range(3)]
             for c in range(5)]
    per_tile = np.mean(tiles, 1)
    mean = found.tile_mean(metric("S2L2A", "psnr"))
    assert mean.value == pytest.approx(per_tile.mean()) and mean.std == pytest.approx(per_tile.std())
    assert found.best(metric("S2L2A", "psnr")).value == pytest.approx(np.max(tiles, 1).mean())


def test_psnr_worked_by_hand():
    """Two images of one pixel each, errors 0.1 and 0.3 of the range: pooled 10 log10(1 / 0.05) = 13.01, the mean of images 15.23."""
    made = Made()
    for cell, error, psnr in (("a", 0.01, 20.0), ("b", 0.09, 10.458)):
        made.add(cell, "published scaled squared error", error, 100, seed=0)
        made.add(cell, "psnr", psnr, 1, seed=0)
    found = measured(made.results(), "DEM")
    assert found.experiment(metric("DEM", "psnr")).value == pytest.approx(13.0103, abs=1e-4)
    assert found.experiment(metric("DEM", "psnr-sane")).value == pytest.approx(15.229)
    assert found.tile_mean(metric("DEM", "psnr")).value == pytest.approx((20 + 10.4576) / 2, abs=1e-4)


def test_ssim_is_a_mean_of_images():
    made = Made()
    for seed in (0, 1):
        for band, value in (("B04", 0.2), ("B11", 0.6)):
            made.add("a", "published ssim", value + 0.1 * seed, 1, seed=seed, modality="S2L2A", band=band)
    found = measured(made.results(), "S2L2A")
    number = found.experiment(metric("S2L2A", "ssim"))
    assert number.value == pytest.approx(0.45) and number.std == pytest.approx(0.05)
    assert found.best(metric("S2L2A", "ssim")).value == pytest.approx(0.5)


# Classes


def test_classes_worked_by_hand():
    """Truth 1 1 1 2, drawn 1 1 2 2: IoU 2/3 and 1/2, weighted 0.625; F1 4/5 and 2/3. The other classes are nowhere and do not count."""
    made = Made()
    classes(made, "a", 0, np.array([1, 1, 1, 2]), np.array([1, 1, 2, 2]), modality="LULC")
    found = measured(made.results(), "LULC")
    expected = {"top1": 3 / 4, "iou": (2 / 3 + 1 / 2) / 2, "fw-iou": (3 * 2 / 3 + 1 / 2) / 4, "f1": (4 / 5 + 2 / 3) / 2}
    assert {key: found.experiment(metric("LULC", key)).value for key in expected} == pytest.approx(expected)


def test_classes_are_pooled_over_tiles_before_a_ratio_is_taken():
    rng = np.random.default_rng(1)
    truth, drawn = rng.choice([1, 2, 7, 11], (6, 50)), rng.choice([1, 2, 5], (6, 2, 50))
    made = Made()
    for c in range(6):
        for seed in range(2):
            classes(made, f"c{c}", seed, truth[c], drawn[c, seed], modality="LULC")
    found = measured(made.results(), "LULC")
    codes = [1, 2, 5, 7, 11]
    whole = [scores.mean_iou(scores.confusion(truth, drawn[:, seed], codes)) for seed in range(2)]
    assert found.experiment(metric("LULC", "iou")).value == pytest.approx(np.mean(whole))
    tiles = [[scores.mean_f1(scores.confusion(truth[c], drawn[c, seed], codes)) for seed in range(2)] for c in range(6)]
    assert found.tile_mean(metric("LULC", "f1")).value == pytest.approx(np.mean(tiles))
    assert found.best(metric("LULC", "f1")).value == pytest.approx(np.max(tiles, 1).mean())


# Places and dates


def test_kilometres_of_places():
    rng = np.random.default_rng(2)
    away = rng.exponential(500, (7, 4))
    made = Made()
    for c, seed in np.ndindex(away.shape):
        made.add(f"c{c}", "kilometres", away[c, seed], 1, seed=seed, modality="place")
    found = measured(made.results(), "place")
    for key, direct in (("median-km", np.median(away, 0)), ("mean-km", away.mean(0)), ("std-km", away.std(0)),
                        ("rmse-km", np.sqrt((away**2).mean(0)))):
        number = found.experiment(metric("place", key))
        assert number.value == pytest.approx(direct.mean()) and number.std == pytest.approx(direct.std()), key
    assert found.best(metric("place", "mean-km")).value == pytest.approx(away.min(1).mean())
    assert found.best(metric("place", "std-km")) is None


def test_the_range_of_a_median_is_that_of_drawn_medians():
    away = np.array([1.0, 2, 4, 8, 16, 32, 64, 128])
    made, names = Made(), [f"c{k}" for k in range(8)]
    for name, value in zip(names, away, strict=True):
        made.add(name, "kilometres", value, 1, seed=0, modality="place")
    results = made.results(places=places_of(names))
    number = Measured(results, tuple(results.asked), "place", draws=500).experiment(metric("place", "median-km"))
    weights = scores.cell_weights(scores.blocks(*results.places.T), 500)
    direct = [np.median(np.repeat(away, one.astype(int))) for one in weights]
    expected = scores.interval_of(12.0, direct, 8)
    assert (number.value, number.low, number.high) == pytest.approx((12.0, expected.low, expected.high))


def test_months_are_counted_without_wrap_and_days_of_year_round_the_year():
    made = Made()
    for statistic, value in (("days", 31), ("months", 11), ("same month", 0), ("same year", 0), ("days of year", 31)):
        made.add("a", statistic, value, 1, seed=0, modality="date")
    found = measured(made.results(), "date")
    assert found.experiment(metric("date", "months")).value == 11
    assert found.experiment(metric("date", "days-of-year")).value == 31
    assert "without wrap" in metric("date", "months").label


# What is missing, how sure


def test_a_missing_sample_counts_nowhere():
    results, truths, drawn = optical(lacking={(1, 2), (4, 0)})
    found = measured(results, "S2L2A")
    direct = [run_level(truths, drawn, seed, lambda off: np.abs(off).mean()) for seed in range(3)]
    assert found.experiment(metric("S2L2A", "mae")).value == pytest.approx(np.mean(direct))
    tiles = [[np.abs(np.concatenate([(drawn[c, s, b] - truths[c, b]).ravel() for b in BANDS])).mean() / 1e4
              for s in range(3) if (c, s, "B04") in drawn] for c in range(5)]
    assert found.tile_mean(metric("S2L2A", "mae")).value == pytest.approx(np.mean([np.mean(one) for one in tiles]))
    assert found.best(metric("S2L2A", "mae")).value == pytest.approx(np.mean([min(one) for one in tiles]))


def test_best_of_n_is_the_mean_over_all_subsets():
    values = np.array([[5.0, 1, 3], [2, 2, 8]])
    made = Made()
    for c, seed in np.ndindex(values.shape):
        made.add(f"c{c}", "kilometres", values[c, seed], 1, seed=seed, modality="place")
    found = measured(made.results(), "place")
    of = [found.best(metric("place", "mean-km"), n).value for n in (1, 2, 3)]
    assert of == pytest.approx([values.mean(), np.mean([(1 + 3 + 1) / 3, (2 + 2 + 2) / 3]), 1.5])
    assert found.best(metric("place", "mean-km"), 4) is None


def test_ranges_are_those_of_drawn_blocks():
    results, *_ = optical(cells=8)
    found = measured(results, "S2L2A")
    number = found.tile_mean(metric("S2L2A", "mae"))
    tiles = np.nanmean(found.tiles(metric("S2L2A", "mae"))[0], 1)
    weights = scores.cell_weights(scores.blocks(*results.places.T), 200)
    direct = scores.interval_of(tiles.mean(), weights @ tiles / weights.sum(1), 8)
    assert (number.low, number.high) == pytest.approx((direct.low, direct.high))
    assert number.low < number.value < number.high


def test_one_block_has_no_range():
    results, *_ = optical(cells=3)
    close = Results(frame_of(results), "near", {"places": {cell: [10.0, 10.0] for cell in ("c0", "c1", "c2")}})
    number = measured(close, "S2L2A").tile_mean(metric("S2L2A", "mae"))
    assert number.low is None and number.high is None and number.value > 0


def frame_of(results):
    """The rows of results, again."""
    made = Made()
    for statistic in results.statistics(tuple(results.asked), "S2L2A"):
        found = results.values(tuple(results.asked), "S2L2A", statistic)
        for c, s, b in zip(*np.nonzero(found.weight), strict=True):
            made.add(results.cells[c], statistic, found.value[c, s, b], found.weight[c, s, b], seed=found.seeds[s], modality="S2L2A",
                     band=found.bands[b])
    return made.frame()


def test_rows_that_are_there_twice_are_refused():
    results, *_ = optical(cells=2)
    frame = frame_of(results)
    with pytest.raises(ValueError, match="c0 has a row twice"):
        measured(Results(pd.concat([frame, frame.iloc[:1]])), "S2L2A").tile_mean(metric("S2L2A", "mae-sane"))


def test_rows_without_a_column_are_refused():
    with pytest.raises(ValueError, match="lack the column protocol"):
        Results(pd.DataFrame({"cell": ["a"]}))


def test_the_order_of_rows_does_not_matter():
    results, *_ = optical()
    frame = frame_of(results)
    mixed = Results(frame.sample(frac=1, random_state=0), "mixed", results.meta)
    for one in metrics_of("S2L2A", ("mae", "rmse", "psnr"), sane=False):
        a, b = (measured(found, "S2L2A").experiment(one) for found in (results, mixed))
        assert a.value == pytest.approx(b.value, rel=1e-12) and a.low == pytest.approx(b.low)


def test_bands_stand_by_wavelength():
    assert sorted(["B12", "B8A", "B09", "B08", "B01"], key=band_order) == ["B01", "B08", "B8A", "B09", "B12"]
    assert sorted(["vh", "vv"], key=band_order) == ["vv", "vh"]


# Which rows a line is made of


def scored(made, given, cells=("a",), modality="DEM", protocol="all-minus-target"):
    for cell in cells:
        made.add(cell, "published absolute error", 1, 10, seed=0, modality=modality, band="DEM", given=given, protocol=protocol)


def test_lines_are_told_apart_by_what_was_not_given():
    made = Made()
    scored(made, given_all_but("DEM"))
    scored(made, given_all_but("DEM", "LULC"), protocol="leave-one-out")
    scored(made, given_all_but("DEM", "date"), protocol="leave-one-out")
    scored(made, "LULC", protocol="given")
    results = made.results()
    assert [one.given for one in asked_without(results, "DEM")] == [given_all_but("DEM")]
    assert [one.given for one in asked_without(results, "DEM", ("LULC",))] == [given_all_but("DEM", "LULC")]
    assert [one.given for one in asked_without(results, "DEM", ("date",))] == [given_all_but("DEM", "date")]
    assert asked_without(results, "DEM", ("S1RTC",)) == () and asked_without(results, "LULC") == ()
    assert removable(results, "DEM") == ["LULC", "date"]


def test_of_protocols_that_ask_the_same_that_of_most_samples_counts():
    made = Made()
    given = given_all_but("S2L2A", "S2L1C")
    scored(made, given_all_but("DEM"))
    scored(made, given, cells=("a",), modality="S2L2A", protocol="narrowing")
    scored(made, given, cells=("a", "b"), modality="S2L2A", protocol="without S2L1C")
    scored(made, given, cells=("a", "b", "c"), modality="S2L2A", protocol="leave-one-out")
    results = made.results()
    assert [one.protocol for one in asked_without(results, "S2L2A", ("S2L1C",))] == ["without S2L1C"]
    assert [one.protocol for one in asked_without(results, "S2L2A", ("S2L1C",), pairs=True)] == ["leave-one-out"]


def test_a_generator_that_knows_no_dates_has_the_full_context_too():
    made = Made()
    scored(made, "place+LULC+S1RTC+S2L1C+S2L2A")
    assert len(asked_without(made.results(), "DEM")) == 1


def test_cells_that_lack_a_layer_belong_to_the_same_line():
    made = Made()
    scored(made, given_all_but("DEM"), cells=("a", "b"))
    scored(made, given_all_but("DEM", "cloud_mask"), cells=("c",))
    results = made.results()
    group = asked_without(results, "DEM")
    assert len(group) == 2 and len(results.cells_of(group, "DEM")) == 3


def test_swaps_are_no_line_of_a_table():
    made = Made()
    scored(made, given_all_but("DEM"), protocol="swap date")
    made.add("a", "moved", 1, 10, modality="DEM", band="DEM", protocol="swap date")
    assert asked_without(made.results(), "DEM") == ()
