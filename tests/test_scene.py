"""A scene holds layers that agree with their rows, or it does not come to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from copgen.modalities import TABLE, Table
from copgen.scene import Footprint, Scene, parse_date, parse_place

DEM = np.full((1, 64, 64), 12.0)


def test_layers_get_their_rows_types(scene: Scene) -> None:
    for name, layer in scene.layers.items():
        assert layer.shape == TABLE.layer_shape(name)
        expected = {"place": np.float64, "date": "datetime64[D]"}.get(name, np.uint8 if TABLE[name].legend else np.float32)
        assert layer.dtype == np.dtype(expected), name


@pytest.mark.parametrize(("name", "layer", "message"), [
    ("s2l2a_20m", np.zeros((6, 192, 192)), r"s2l2a_20m: expected \[6, 96, 96\] \(1920 m at 20 m\), got \[6, 192, 192\]"),
    ("dem", DEM[0], r"dem: expected \[1, 64, 64\]"),
    ("dem", np.where(np.eye(64)[None] > 0, np.nan, DEM), "dem: every value must be a finite number"),
    ("dem", np.full((1, 64, 64), "hill"), "dem: every value must be a finite number"),
    ("lulc", np.full((1, 192, 192), 3), r"class codes \[3.0\] are not in the legend"),
    ("cloud_mask", np.full((1, 192, 192), 0.5), r"class codes \[0.5\]"),
    ("place", np.array([-3.19, 255.95]), "latitude lies in -90..90 and longitude in -180..180"),
    ("place", np.array([91.0, 0.0]), "LAT,LON"),
    ("date", np.array(["1949-12-31"]), "a calendar day from 1950-01-01 to 2050-12-31"),
    ("date", np.array(["NaT"], "datetime64[D]"), "a calendar day"),
    ("S2L2A", DEM, "no row is called 'S2L2A'; there are place, date, dem"),
])
def test_a_layer_that_disagrees_with_its_row_is_refused(name: str, layer: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scene({name: layer})


def test_only_and_without_divide_a_scene(scene: Scene) -> None:
    part, rest = scene.only("S2L2A,dem"), scene.without("S2L2A,dem")
    assert list(part.layers) == ["dem", "s2l2a_10m", "s2l2a_20m", "s2l2a_60m"]
    assert part.layers.keys() | rest.layers.keys() == scene.layers.keys()
    assert not part.layers.keys() & rest.layers.keys()
    assert "dem" in part and "dem" not in rest
    with pytest.raises(ValueError, match="hills: no layer s1rtc; there are dem"):
        part.only("S1RTC")
    with pytest.raises(ValueError, match="no modality or product is called 'nope'"):
        scene.without("nope")


def test_new_layers_keep_ground_name_and_notes() -> None:
    ground = Footprint(CRS.from_epsg(32630), 500_000, 6_200_000)
    scene = Scene({"dem": DEM}, ground, "a", notes={"file": "dem.tif"})
    other = scene.with_layers({"place": [1.0, 2.0]}, seed=3)
    assert (other.footprint, other.name) == (ground, "a")
    assert other.notes == {"file": "dem.tif", "seed": 3}
    assert list(other.layers) == ["place"] and "dem" in scene
    assert scene.notes == {"file": "dem.tif"}


def test_layers_are_checked_against_the_scenes_own_table() -> None:
    beta = Table(footprint=2560)
    assert Scene({"s1rtc": np.ones((2, 256, 256))}, table=beta)["s1rtc"].shape == (2, 256, 256)
    with pytest.raises(ValueError, match=r"expected \[2, 256, 256\] \(2560 m at 10 m\)"):
        Scene({"s1rtc": np.ones((2, 192, 192))}, table=beta)


def test_a_footprint_is_as_wide_as_its_table_says() -> None:
    ground = Footprint(CRS.from_epsg(32630), 500_000, 6_200_000, 2560)
    assert Scene({}, ground, table=Table(footprint=2560)).footprint == ground
    with pytest.raises(ValueError, match=r"hill: its footprint is 2560 m wide and its table's 1920 m"):
        Scene({}, ground, "hill")
    with pytest.raises(ValueError, match=r"1920 m wide and its table's 2560 m"):
        Scene({}, Footprint(ground.crs, 0, 0), table=Table(footprint=2560))


@given(st.integers(100_000, 900_000), st.integers(10_000, 9_300_000))
def test_all_rows_lie_on_the_same_square(left: int, top: int) -> None:
    ground = Footprint(CRS.from_epsg(32630), left, top)
    for name in TABLE.images:
        resolution, side = TABLE[name].resolution, TABLE.side(name)
        a, b, c, d, e, f = ground.transform(resolution or 0)[:6]
        assert (b, c, d, f) == (0, left, 0, top)
        assert (c + a * side, f + e * side) == (left + 1920, top - 1920)
    assert ground.bounds == (left, top - 1920, left + 1920, top)


def test_the_centre_of_a_known_square() -> None:
    """On the central meridian of zone 30 (3 W), at the equator's northing 0."""
    lat, lon = Footprint(CRS.from_epsg(32630), 500_000 - 960, 960).centre
    assert lat == pytest.approx(0, abs=1e-9)
    assert lon == pytest.approx(-3, abs=1e-9)


@pytest.mark.parametrize("text", ["55.95", "a,b", "1,2,3", "", "nan,0", "inf,0", "91,0", "0,181", "-3.19;55"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="place"):
        parse_place(text)


@pytest.mark.parametrize("text", ["2021-02-29", "2021-13-01", "23.07.2021", "", "yesterday", "1949-12-31", "2051-01-01", "2021-07-23T1"])
def test_a_date_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"date '?{text}"):
        parse_date(text)


def test_places_and_dates_that_are_some() -> None:
    assert parse_place("55.95, -3.19").tolist() == [55.95, -3.19]
    assert parse_date("2024-02-29") == np.array(["2024-02-29"], "datetime64[D]")
    assert math.isclose(parse_place("-90,180")[0], -90)
