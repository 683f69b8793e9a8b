"""The published evaluator's numbers, worked by hand: scenes go in, and what comes out of rows and metrics is the arithmetic written here.

Each convention of the released evaluator has one case that can be followed with pencil and paper, next to what is sane of the same.
"""

import numpy as np
import pytest
from made_rows import Made

from copgen.evaluation.kept import Ensemble
from copgen.evaluation.metrics import METRICS, Measured
from copgen.evaluation.recipe import Condition
from copgen.evaluation.statistics import statistics
from copgen.modalities import Table
from copgen.scene import Scene

SMALL = Table(footprint=480)                     # 48, 24, 16 and 8 pixels of 10, 20, 30 and 60 m a side


def metrics(product, cases):
    """All metrics of one run, by key: cases are pairs of layers, the truth's and the one sample's."""
    made = Made()
    for k, (truth, drawn) in enumerate(cases):
        observation, sample = Scene(truth, name=f"c{k}", table=SMALL), Scene(drawn, table=SMALL, notes={"seed": 0})
        scored = tuple(name for name in SMALL.names if SMALL[name].product == product)
        for one in statistics(Ensemble(Condition("p", (), scored, 1), observation, [], [sample], "a generator")):
            made.add(f"c{k}", one.statistic, one.value, one.weight, seed=one.seed, modality=one.modality, band=one.band, given="nothing")
    results = made.results()
    measured = Measured(results, tuple(results.asked), product, draws=10)
    return {one.key: number.value for one in METRICS[product] if (number := measured.experiment(one)) is not None}


def checked(low, high, bands, side):
    """A layer whose pixels are in turn of a low and of a high value: half of them each, in every row."""
    return np.where((np.arange(side)[:, None] + np.arange(side)) % 2, high, low) * np.ones((bands, 1, 1))


def optical(offset=(0, 0, 0)):
    """S2L2A of 1000 and 2000 DN; every pixel of the 10, 20 and 60 m bands so much brighter."""
    rows = {"s2l2a_10m": (4, 48), "s2l2a_20m": (6, 24), "s2l2a_60m": (2, 8)}
    return {row: checked(1000.0, 2000.0, *shape) + more for (row, shape), more in zip(rows.items(), offset, strict=True)}


def test_errors_pool_the_pixels_of_all_bands():
    """10, 20 and 60 m bands are off by 0.01, 0.03 and 0.06; to each pixel of 60 m belong 36 and 9 smaller ones.

    Of 4 x 36 + 6 x 9 + 2 x 1 = 200 pixels the mean error is (144 x 0.01 + 54 x 0.03 + 2 x 0.06) / 200 = 3.18 / 200, and the mean square
    (144 x 0.0001 + 54 x 0.0009 + 2 x 0.0036) / 200 = 0.0702 / 200. Bands that count the same have (4 x 100 + 6 x 300 + 2 x 600) / 12 DN.
    """
    found = metrics("S2L2A", [(optical(), optical((100, 300, 600)))])
    assert found["mae"] == pytest.approx(0.0159) and found["rmse"] == pytest.approx(np.sqrt(0.000351))
    assert found["mae-sane"] == pytest.approx(3400 / 12)
    assert found["rmse-sane"] == pytest.approx(np.sqrt((4 * 100**2 + 6 * 300**2 + 2 * 600**2) / 12))


def test_psnr_is_of_errors_scaled_by_the_truths_range_cut_off_and_pooled():
    """The truth spans 1000 to 2000 DN. 100 DN too bright is 0.1 for its low pixels and nothing for its high ones, which are cut off at 1.

    Mean squares are 0.01 / 2, 0.09 / 2 and 0.36 / 2; pooled (144 x 0.005 + 54 x 0.045 + 2 x 0.18) / 200 = 0.01755, 17.56 dB. With the range
    of 10000 DN the bands have 40, 30.46 and 24.44 dB, and the mean of all twelve is 32.63.
    """
    found = metrics("S2L2A", [(optical(), optical((100, 300, 600)))])
    assert found["psnr"] == pytest.approx(17.557, abs=5e-4)
    by_band = [40.0] * 4 + [30.4576] * 6 + [24.4370] * 2
    assert found["psnr-sane"] == pytest.approx(np.mean(by_band), abs=5e-4) == pytest.approx(32.635, abs=5e-4)


def test_psnr_of_tiles_is_that_of_their_pooled_error():
    """One tile without an error, one with 0.01755: the pooled error is half of it, 3.01 dB better; no mean of the two exists."""
    found = metrics("S2L2A", [(optical(), optical((100, 300, 600))), (optical(), optical())])
    assert found["psnr"] == pytest.approx(17.557 + 3.0103, abs=5e-4)
    assert found["psnr-sane"] == pytest.approx((32.635 + 100) / 2, abs=5e-4)                     # a copy counts as 100 dB


def test_ssim_is_a_mean_over_images_whatever_their_size():
    """Eight of twelve images are copies, which have 1. The 10 m bands are flat, so that their SSIM is (2 a b + c1) / (a^2 + b^2 + c1).

    A flat truth has a range of 1e-6, so that it is 0 and all that is brighter is 1: c1 / (1 + c1), c1 being 0.01^2. With the range of
    10000 DN a = 0.1 and b = 0.2: 0.0401 / 0.0501.
    """
    truth, drawn = ({**optical(), "s2l2a_10m": np.full((4, 48, 48), level)} for level in (1000.0, 2000.0))
    found = metrics("S2L2A", [(truth, drawn)])
    assert found["ssim"] == pytest.approx((4 * 0.0001 / 1.0001 + 8) / 12, abs=1e-6)
    assert found["ssim-sane"] == pytest.approx((4 * 0.0401 / 0.0501 + 8) / 12, abs=1e-6)


def test_radar_is_compared_in_decibels_cut_off_at_minus_50_and_10():
    """vv: no power at all is -50 dB, and what was drawn has -40: 10 dB off. vh: 10 dB beside 20, which is cut off: no error."""
    truth = np.stack([np.zeros((48, 48)), np.full((48, 48), 10.0)])
    drawn = np.stack([np.full((48, 48), 1e-4), np.full((48, 48), 100.0)])
    found = metrics("S1RTC", [({"s1rtc": truth}, {"s1rtc": drawn})])
    assert found["mae"] == pytest.approx(5, abs=1e-4) and found["rmse"] == pytest.approx(np.sqrt(50), abs=1e-4)
    assert found["mae-sane"] == pytest.approx((55.787186 - 40 + 10) / 2, abs=1e-3)                # the row's own floor, and no upper end


def test_heights_are_compared_in_metres():
    found = metrics("DEM", [({"dem": np.full((1, 16, 16), 100.0)}, {"dem": np.full((1, 16, 16), 103.0)}),
                            ({"dem": np.full((1, 16, 16), 100.0)}, {"dem": np.full((1, 16, 16), 99.0)})])
    assert found["mae"] == pytest.approx(2) and found["rmse"] == pytest.approx(np.sqrt(5))


def test_classes_that_occur_on_either_side_count_no_data_included():
    """Half is water (1) and half trees (2); all water is found, half of the trees are, and the other half is drawn as no data (0).

    |         | tp | fp | fn | IoU | F1  |
    | no data | 0  | 1  | 0  | 0   | 0   |
    | water   | 2  | 0  | 0  | 1   | 1   |
    | trees   | 1  | 0  | 1  | 1/2 | 2/3 |
    """
    truth = np.where(np.arange(48)[:, None] < 24, 1, 2) * np.ones((1, 48, 48), np.uint8)
    drawn = np.where((truth == 2) & (np.arange(48) < 24), 0, truth)
    found = metrics("LULC", [({"lulc": truth}, {"lulc": drawn})])
    assert found["top1"] == pytest.approx(3 / 4)
    assert found["iou"] == pytest.approx((0 + 1 + 1 / 2) / 3) and found["f1"] == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert found["fw-iou"] == pytest.approx(0.5 * 1 + 0.5 * 1 / 2)                               # by the truth's pixels


def test_classes_are_pooled_over_tiles_before_any_ratio():
    """A tile of trees of which a quarter is drawn as water, and one of water that is found: water 4 / 5, trees 3 / 4."""
    trees, lake = np.full((1, 48, 48), 2), np.ones((1, 48, 48), int)
    quarter = np.where((np.arange(48)[:, None] < 24) & (np.arange(48) < 24), 1, trees)
    found = metrics("LULC", [({"lulc": trees}, {"lulc": quarter}), ({"lulc": lake}, {"lulc": lake})])
    assert found["iou"] == pytest.approx((4 / 5 + 3 / 4) / 2) and found["top1"] == pytest.approx(7 / 8)


def test_places_are_kilometres_on_a_sphere_of_6371():
    """1, 2 and 6 degrees along the equator, 111.195 km each: mean 3, median 2, deviation sqrt(14 / 3), RMSE sqrt(41 / 3) degrees."""
    degree = 6371 * np.pi / 180
    found = metrics("place", [({"place": [0.0, 10.0]}, {"place": [0.0, 10.0 + off]}) for off in (1, -2, 6)])
    assert degree == pytest.approx(111.195, abs=1e-3)
    assert [found[key] / degree for key in ("mean-km", "median-km", "std-km", "rmse-km")] == pytest.approx(
        [3, 2, np.sqrt(14 / 3), np.sqrt(41 / 3)])


def test_dates_are_days_months_without_wrap_and_years():
    """31 January and 1 February are a day and a month apart, New Year's Eve and New Year a day and 11 months; 15 and 25 June ten days."""
    pairs = [("2020-01-31", "2020-02-01"), ("2020-12-31", "2021-01-01"), ("2021-06-15", "2021-06-25")]
    found = metrics("date", [({"date": np.array([truth], "datetime64[D]")}, {"date": np.array([drawn], "datetime64[D]")})
                             for truth, drawn in pairs])
    assert [found[key] for key in ("days", "median-days", "months", "same-month", "same-year")] == pytest.approx([4, 1, 4, 1 / 3, 2 / 3])
