"""Physical units and the model's numbers are each other's inverse, for every row of the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from copgen.modalities import CLOUD_LEGEND, LULC_LEGEND, RADAR, TABLE
from copgen.scaling import DayOfYear, Scaling, UnitVector, days_in
from copgen.scene import Scene, checked

ALL_DAYS = np.arange("1950-01-01", "2051-01-01", dtype="datetime64[D]")
finite = st.floats(-1e6, 1e6, width=32)


def valid_layers(name: str, count: int = 3) -> np.ndarray:
    """Layers [count, *layer_shape] over all of a row's valid range."""
    random = np.random.default_rng(3)
    row, shape = TABLE[name], (count, *TABLE.layer_shape(name))
    if name == "place":
        return random.uniform([-90, -180], [90, 180], shape)
    if name == "date":
        return random.choice(ALL_DAYS, shape)
    if row.legend:
        return random.choice(np.array(row.legend.codes), shape)
    low, high = {"dem": (1e-2, 8800), "s1rtc": (1e-5, 1e4)}.get(name, (1, 65_535))
    return np.exp(random.uniform(np.log(low), np.log(high), shape)).astype(np.float32)


@pytest.mark.parametrize("name", TABLE.names)
def test_the_inverse_gives_the_layers_back(name: str) -> None:
    scale, layers = TABLE[name].scale, valid_layers(name)
    assert isinstance(scale, Scaling)
    numbers = scale.to_model(layers)
    assert numbers.dtype == np.float32
    assert numbers.shape == (len(layers), *TABLE.pixel_shape(name))
    back = scale.to_physical(numbers)
    assert back.shape == layers.shape
    if name == "date" or TABLE[name].legend:
        np.testing.assert_array_equal(back, layers)
    else:
        np.testing.assert_allclose(back, layers, rtol=2e-5, atol=1e-3 if name.startswith("s2") else 1e-5)


@pytest.mark.parametrize("name", TABLE.names)
def test_one_layer_is_scaled_as_in_a_stack(name: str) -> None:
    scale, layers = TABLE[name].scale, valid_layers(name)
    np.testing.assert_array_equal(scale.to_model(layers[1]), scale.to_model(layers)[1])
    np.testing.assert_array_equal(scale.to_physical(scale.to_model(layers))[1], scale.to_physical(scale.to_model(layers[1])))


@pytest.mark.parametrize("name", TABLE.names)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_a_network_makes_becomes_a_layer_that_its_row_accepts(name: str, data: st.DataObject) -> None:
    """Any finite numbers: heights are heights, classes in the legend, places on Earth, dates days of 1950..2050."""
    shape = TABLE.pixel_shape(name)
    corner = data.draw(arrays(np.float32, (shape[0], 1, min(shape[2], 3)), elements=finite))
    numbers = np.resize(corner, shape)
    layer = TABLE[name].scale.to_physical(numbers)
    np.testing.assert_array_equal(checked(TABLE, name, layer), layer)


@pytest.mark.parametrize("legend", [LULC_LEGEND, CLOUD_LEGEND])
def test_every_code_of_a_legend_is_one_hot(legend) -> None:
    codes = np.array(legend.codes, np.uint8).reshape(1, 1, -1)
    planes = legend.to_model(codes)
    np.testing.assert_array_equal(planes[:, 0], 2 * np.eye(legend.classes) - 1)
    np.testing.assert_array_equal(legend.to_physical(planes), codes)


@pytest.mark.parametrize("code", [-1, 3, 6, 12, 255, 256, 258, 1.5, 1e30, np.nan])
def test_a_code_outside_the_legend_is_refused_by_name(code: float) -> None:
    with pytest.raises(ValueError, match=r"class codes .* are not in the legend .*built-up"):
        LULC_LEGEND.to_model(np.array([[[1, 2, code]]]))


def test_every_day_of_the_century_comes_back() -> None:
    scale = DayOfYear()
    np.testing.assert_array_equal(scale.to_physical(scale.to_model(ALL_DAYS[:, None])), ALL_DAYS[:, None])


@given(st.floats(-0.4, 0.4), st.floats(-0.004, 0.004))
def test_a_small_error_moves_a_date_by_little(turn: float, drift: float) -> None:
    """Less than half a day and half a year: the same date, also at New Year."""
    scale = DayOfYear()
    days = np.array(["2020-12-31", "2021-01-01", "2024-02-29", "2000-06-30"], "datetime64[D]")[:, None]
    sine, cosine, century = np.moveaxis(scale.to_model(days), -1, 0)
    angle = np.arctan2(sine, cosine) + turn * 2 * np.pi / 366
    off = np.stack([0.7 * np.sin(angle), 0.7 * np.cos(angle), century + drift], -1)
    expected = days
    np.testing.assert_array_equal(scale.to_physical(off), expected)


def test_leap_years_are_gregorian() -> None:
    assert days_in(np.array([1900, 2000, 2023, 2024])).tolist() == [365, 366, 365, 366]
    assert ALL_DAYS.size == days_in(np.arange(1950, 2051)).sum()


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(0.05, 20))
def test_a_place_does_not_depend_on_the_vectors_length(lat: float, lon: float, length: float) -> None:
    scale = UnitVector()
    vector = scale.to_model(np.array([lat, lon]))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(scale.to_physical(np.float64(vector) * length), scale.to_physical(vector), atol=1e-6)


def test_places_have_the_vectors_that_geometry_says() -> None:
    places = np.array([[0, 0], [0, 90], [90, 12], [-90, 0], [0, 180]])
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [-1, 0, 0]]
    np.testing.assert_allclose(UnitVector().to_model(places)[:, 0, 0], expected, atol=1e-7)


def test_radar_and_height_have_floors_for_what_has_no_logarithm() -> None:
    for name in ("s1rtc", "dem"):
        scale = TABLE[name].scale
        below = scale.to_model(np.array([0, -1, -430.0], np.float32).reshape(3, 1, 1, 1))
        assert np.isfinite(below).all() and np.ptp(below) == 0
        assert below[0] == pytest.approx(-1, abs=0.01)
    assert RADAR.to_model(np.float32(10 ** (-5.5787186))) == pytest.approx(-1, abs=1e-5)


def test_scaling_keeps_order() -> None:
    for name in ("dem", "s1rtc", "s2l2a_10m"):
        rising = TABLE[name].scale.to_model(np.geomspace(0.01, 8000, 200).reshape(1, 1, -1))
        assert (np.diff(rising) > 0).all()


def test_known_numbers() -> None:
    scale = TABLE["s2l2a_10m"].scale
    assert scale.to_model(np.array([0, 5000, 10_000, 20_000])).tolist() == [-1, 0, 1, 3]             # DN are not clipped
    vector = TABLE["date"].scale.to_model(np.array(["2000-04-01"], "datetime64[D]")).ravel()          # day 92 of 366
    np.testing.assert_allclose(vector, [np.sin(2 * np.pi * 92 / 366), np.cos(2 * np.pi * 92 / 366), 0], atol=1e-7)


def test_a_scene_of_generated_layers_can_be_given_again() -> None:
    """Out of [-1, 1] and back in: what a model makes, a model takes."""
    random = np.random.default_rng(0)
    layers = {name: TABLE[name].scale.to_physical(random.normal(0, 2, TABLE.pixel_shape(name))) for name in TABLE.names}
    for name, layer in Scene(layers).layers.items():
        assert np.isfinite(TABLE[name].scale.to_model(layer)).all()
