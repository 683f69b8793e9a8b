"""What must hold of consistency between layers: known answers, layers of another place found out, real cells believable."""

import numpy as np
import pytest

from copgen.modalities import TABLE
from copgen.scores.physics import DARK, consistency, molecules
from copgen.sun import Sun, sun_at
from copgen.synthetic import world
from copgen.training.codec_report import read_cells

SIDE, COARSE = 192, 64
SUN = Sun(zenith=np.radians(40), azimuth=np.radians(150))
HILLY = (1, 9, 14, 26, 32, 34, 37, 41, 43, 53, 61, 65)   # worlds with slopes, half of them with water
WATER, TREES, CROPS, CLOUDS = 1, 2, 5, 10        # codes of the land cover
TEN = {"B04": 0, "B03": 1, "B02": 2, "B08": 3}


def measured(layers, **options):
    return {one.name: one.value for one in consistency(layers, **options)}


def ten_metres(**bands):
    """The bands at 10 m, 500 DN where nothing else is said."""
    layer = np.full((4, SIDE, SIDE), 500.0)
    for band, values in bands.items():
        layer[TEN[band]] = values
    return layer


def half(left, right):
    """A map of one value to the west and another to the east, the border between whole pixels of 60 m."""
    return np.where(np.arange(SIDE)[None] < SIDE // 2, left, right) + np.zeros((SIDE, 1), np.asarray(left).dtype)


def land_cover(left, right):
    return half(left, right)[None].astype(np.uint8)


def hills(seed=0, steep=0.3):
    """Smooth heights at 30 m, slopes of about `steep`."""
    east, south = np.meshgrid(np.arange(COARSE) * 30.0, np.arange(COARSE) * 30.0)
    phases = np.random.default_rng(seed).uniform(0, 6, 4)
    directions = [(1, 0), (0, 1), (1, 1), (1, -1)]
    heights = sum(np.sin(2 * np.pi * (east * a + south * b) / 640 + phase) for (a, b), phase in zip(directions, phases, strict=True))
    return (300 + heights * steep * 640 / (2 * np.pi) / 1.7)[None]


def fine(coarse):
    """Every pixel of 30 m as nine of 10 m."""
    return np.repeat(np.repeat(coarse, 3, -2), 3, -1)


def slopes(dem):
    return np.gradient(dem[0], 30, axis=1), -np.gradient(dem[0], 30, axis=0)


# --- vegetation and water -----------------------------------------------------------------------------------------------------------

def test_ndvi_of_a_class_is_the_mean_ratio_of_its_pixels():
    """(3000 - 500) / 3500 = 0.714 over trees, (900 - 700) / 1600 = 0.125 over crops; with no variance inside, the classes explain all."""
    layers = {"lulc": land_cover(TREES, CROPS), "s2l2a_10m": ten_metres(B04=half(500.0, 700.0), B08=half(3000.0, 900.0))}
    found = {one.name: one for one in consistency(layers)}
    assert found["consistency NDVI of trees, ratio"].value == pytest.approx(2500 / 3500)
    assert found["consistency NDVI of crops, ratio"].value == pytest.approx(0.125)
    assert found["consistency NDVI of crops, ratio"].weight == SIDE * SIDE // 2
    assert found["consistency NDVI explained by land cover, share of variance"].value == pytest.approx(1)
    assert len(found) == 3


def test_half_of_the_ndvi_is_explained_where_as_much_varies_inside_the_classes():
    """NDVI is 0.2 +- 0.1 in the one and 0.4 +- 0.1 in the other class: 0.01 of variance between them and 0.01 inside."""
    ndvi = half(0.2, 0.4) + np.where(np.arange(SIDE)[:, None] % 2, 0.1, -0.1)
    layers = {"lulc": land_cover(TREES, CROPS), "s2l2a_10m": ten_metres(B04=1000 * (1 - ndvi), B08=1000 * (1 + ndvi))}
    assert measured(layers)["consistency NDVI explained by land cover, share of variance"] == pytest.approx(0.5)


def test_dn_that_no_product_has_make_no_ndvi_beyond_one():
    layers = {"lulc": land_cover(TREES, CROPS), "s2l2a_10m": ten_metres(B04=half(-3.0, 3.0), B08=half(4.0, -2.9))}
    found = measured(layers)
    assert found["consistency NDVI of trees, ratio"] == pytest.approx(3 / 5)
    assert found["consistency NDVI of crops, ratio"] == pytest.approx(-2 / 4)


def test_clouds_and_classes_that_saw_nothing_are_left_out():
    layers = {"lulc": land_cover(TREES, CLOUDS), "s2l2a_10m": ten_metres(B04=half(500.0, 5000.0), B08=half(3000.0, 5000.0))}
    assert set(measured(layers)) == {"consistency NDVI of trees, ratio"}
    layers["cloud_mask"] = land_cover(1, 0)
    assert measured(layers) == {}


def test_water_is_told_from_land_by_radar_and_short_wave_infrared_and_lies_flat():
    """VV is -20 dB over water and -8 dB over land, VH -12 dB over both; half of the land is as dark in B11 as the water."""
    ten, twenty = 10.0 ** (half(-20.0, -8.0) / 10), np.full((6, 96, 96), 2000.0)
    twenty[4] = np.where(np.arange(96)[None] < 48, 100, np.where(np.arange(96)[:, None] % 2, 100, 1900))
    dem = np.maximum(np.arange(COARSE) - COARSE // 2, 0)[None, None] * 6.0 + np.zeros((1, COARSE, 1))
    layers = {"lulc": land_cover(WATER, CROPS), "s1rtc": np.stack([ten, np.full_like(ten, 10**-1.2)]), "s2l2a_20m": twenty, "dem": dem}
    found = measured(layers)
    assert found["consistency VV of water below land, dB"] == pytest.approx(12)
    assert found["consistency VV of water below land, probability"] == 1
    assert found["consistency VH of water below land, dB"] == pytest.approx(0, abs=1e-9)
    assert found["consistency VH of water below land, probability"] == 0.5
    assert found["consistency B11 of water below land, DN"] == pytest.approx(900)
    assert found["consistency B11 of water below land, probability"] == 0.75
    assert found["consistency slope of water, m per m"] == 0
    layers["lulc"] = land_cover(CROPS, WATER)                                                    # the land cover of another place
    assert measured(layers)["consistency VV of water below land, probability"] == 0
    # the slope of 0.2 begins half a pixel inside the land, where it is 0.1
    assert measured(layers)["consistency slope of water, m per m"] == pytest.approx((31 * 0.2 + 0.1) / 32)


def test_thick_cloud_is_brighter_than_clear_ground():
    layers = {"cloud_mask": land_cover(1, 0), "s2l1c_10m": ten_metres(B02=half(6000.0, 900.0))}
    assert measured(layers) == {"consistency blue of clear ground below thick cloud, DN": 5100,
                                "consistency blue of clear ground below thick cloud, probability": 1}


# --- the air ------------------------------------------------------------------------------------------------------------------------

def test_molecules_have_the_blue_that_is_in_the_books():
    """Optical depth 0.158 at 492 nm and sea level: black ground seems to reflect 0.053 under a sun 40 degrees from the zenith."""
    tau, mu = 0.008735 * 0.492**-4.08, np.cos(SUN.zenith)
    assert tau == pytest.approx(0.158, abs=0.001)
    black = float(molecules(SUN, 0, np.zeros(1))[0])
    assert black == pytest.approx(0.75 * (1 + mu**2) * tau / (4 * mu)) and 0.055 < black < 0.065
    assert molecules(SUN, 8000, np.zeros(1))[0] == pytest.approx(black / np.e)
    assert molecules(Sun(np.radians(70), 0), 0, np.zeros(1))[0] > 1.5 * black and molecules(SUN, 0, np.ones(1))[0] < 0


def test_air_that_is_molecules_alone_is_found_to_be_just_that():
    surface = 200 + 1000 * np.random.default_rng(0).random((SIDE, SIDE))
    pure = surface + 1e4 * molecules(SUN, 0, surface / 1e4)
    layers = {"s2l2a_10m": ten_metres(B02=surface), "s2l1c_10m": ten_metres(B02=pure + 40)}       # and 40 DN of haze
    found = measured(layers, sun=SUN)
    assert found["consistency blue of L1C above L2A and molecules over dark ground, DN"] == pytest.approx(40)
    assert found["consistency blue of L1C above L2A over dark ground, share of pixels"] == 1
    assert found["consistency blue of L1C above L2A over dark ground, DN"] == pytest.approx(
        40 + found["consistency blue of molecules alone over dark ground, DN"])
    assert found["consistency blue of L1C less L2A with that of molecules, correlation"] == pytest.approx(1)
    # the two products of one place exchanged: no air adds less than nothing to dark ground
    wrong = measured({"s2l2a_10m": layers["s2l1c_10m"], "s2l1c_10m": layers["s2l2a_10m"]}, sun=SUN)
    assert wrong["consistency blue of L1C above L2A over dark ground, share of pixels"] == 0
    assert wrong["consistency blue of L1C less L2A with that of molecules, correlation"] == pytest.approx(-1)
    assert len(measured(layers)) == 2                                                            # without place and date no sun
    assert measured(layers, sun=None) == measured({**layers, "place": np.array([10.0, 10.0])})
    bright = {name: layer + DARK for name, layer in layers.items()}
    assert measured(bright, sun=SUN) == {}


# --- slopes -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("product", ["L1C", "L2A"])
def test_matt_ground_is_as_bright_as_the_cosine_of_the_suns_incidence(product):
    """L = k cos(i): the exponent and the correlation are 1, whatever the brightness of the classes."""
    dem = hills()
    light = SUN.on_slope(*slopes(dem))
    bright = fine(np.maximum(light, 0.01)) * half(1000.0, 4000.0)
    layers = {"dem": dem, "lulc": land_cover(TREES, CROPS), f"s2{product.lower()}_10m": np.stack([bright] * 4)}
    found = measured(layers, sun=SUN)
    assert found[f"consistency {product} brightness with sunlight on slopes, exponent"] == pytest.approx(1)
    assert found[f"consistency {product} brightness with sunlight on slopes, correlation"] == pytest.approx(1)
    layers[f"s2{product.lower()}_10m"] = np.stack([bright**0.5] * 4)
    assert measured(layers, sun=SUN)[f"consistency {product} brightness with sunlight on slopes, exponent"] == pytest.approx(0.5)


def test_a_sun_on_the_other_side_or_another_terrain_is_found_out():
    dem = hills()
    bright = fine(np.maximum(SUN.on_slope(*slopes(dem)), 0.01)) * 2000
    layers = {"dem": dem, "s2l2a_10m": np.stack([bright] * 4)}
    name = "consistency L2A brightness with sunlight on slopes, correlation"
    assert measured(layers, sun=SUN)[name] == pytest.approx(1)
    assert measured(layers, sun=Sun(SUN.zenith, SUN.azimuth + np.pi))[name] < -0.7
    assert abs(measured({**layers, "dem": hills(seed=1)}, sun=SUN)[name]) < 0.6
    assert name not in measured({**layers, "dem": hills(steep=0.03)}, sun=SUN)                   # too flat to tell
    assert name not in measured(layers)


def test_what_terrain_correction_left_is_found_by_its_coefficient():
    """4 dB a unit slope to the east, under classes of other brightness and noise of 1 dB; corrected radar has nothing of it."""
    dem = hills()
    east, north = slopes(dem)
    noise = np.random.default_rng(0).standard_normal((2, COARSE, COARSE))
    flat = noise + half(-12.0, -6.0)[::3, ::3]
    layers = {"dem": dem, "lulc": land_cover(TREES, CROPS), "s1rtc": fine(10 ** ((flat + np.stack([-4 * east, 3 * north])) / 10))}
    found = measured(layers)
    inside = east.std() * 4
    assert found["consistency VV left on slopes to east or west, dB per unit slope"] == pytest.approx(4, abs=0.25)
    assert found["consistency VV left on slopes, share of variance"] == pytest.approx(inside**2 / (inside**2 + 1), abs=0.05)
    assert found["consistency VH left on slopes to east or west, dB per unit slope"] < 0.25
    assert found["consistency VH left on slopes, share of variance"] > 0.2
    corrected = measured({**layers, "s1rtc": fine(10 ** (flat / 10))})
    assert corrected["consistency VV left on slopes, share of variance"] == pytest.approx(0, abs=0.002)
    assert corrected["consistency VV left on slopes to east or west, dB per unit slope"] < 0.25


# --- whole places -------------------------------------------------------------------------------------------------------------------

def test_every_measure_needs_two_layers_and_tells_its_unit():
    scene = world(14)
    for name in scene.layers:
        assert measured({name: scene[name]}) == {}
    names = list(measured(scene.layers))
    assert len(names) == len(set(names)) > 15
    assert all(name.startswith("consistency ") and name.count(", ") == 1 for name in names)


def test_unknown_pixels_count_for_nothing():
    scene = world(14)
    half_known = {name: np.zeros(scene[name].shape, bool) for name in TABLE.images}
    broken = dict(scene.layers)
    for name in ("s2l2a_10m", "s2l1c_10m", "s1rtc", "s2l2a_20m"):
        middle = scene[name].shape[-1] // 2
        half_known[name][..., :middle] = True
        broken[name] = np.where(half_known[name], 12_345.0, scene[name])
    west = {name: np.where(mask, 1.0, scene[name]) if mask.any() else scene[name] for name, mask in half_known.items()}
    west |= {name: scene[name] for name in ("place", "date")}
    found = measured(broken, unknown=half_known)
    assert found and found == measured(west, unknown=half_known) != measured(broken)
    assert all(np.isfinite(list(found.values())))


def test_synthetic_worlds_are_consistent_and_layers_of_two_worlds_are_not():
    """Worlds are made with direct light of 0.78 and a radar residual of 4 dB a unit slope to the east or the west."""
    scenes = [world(seed) for seed in HILLY]

    def middle(name, layers):
        values = [found[name] for found in map(measured, layers) if name in found]
        assert len(values) >= 3, name
        return np.median(values)

    own = [scene.layers for scene in scenes]
    mixed = [{**own[k], **{name: own[k - 1][name] for name in own[k] if name[:3] in ("s2l", "s1r")}} for k in range(len(own))]
    assert 0.5 < middle("consistency L2A brightness with sunlight on slopes, exponent", own) < 0.9
    assert 3.5 < middle("consistency VV left on slopes to east or west, dB per unit slope", own) < 4.5
    for name, good, chance in (("consistency L2A brightness with sunlight on slopes, correlation", 0.4, 0.1),
                               ("consistency NDVI explained by land cover, share of variance", 0.3, 0.15),
                               ("consistency VV of water below land, probability", 0.9, 0.75)):
        assert middle(name, own) > good and middle(name, mixed) < chance, name
    assert middle("consistency blue of L1C above L2A over dark ground, share of pixels", own) == 1


def test_real_cells_are_consistent(samples):
    """The ranges are what is physically believable, not what the cells happen to have."""
    found = {scene.name: measured(scene.layers) for scene in read_cells(samples, TABLE).scenes}
    coast = next(values for name, values in found.items() if name.startswith("282D"))            # sea, beach and rain forest
    assert coast["consistency NDVI of trees, ratio"] > 0.6 > 0.2 > coast["consistency NDVI of water, ratio"]
    assert coast["consistency NDVI explained by land cover, share of variance"] > 0.6
    assert coast["consistency VV of water below land, dB"] > 5 and coast["consistency VV of water below land, probability"] > 0.85
    assert coast["consistency slope of water, m per m"] < 0.02
    for values in found.values():
        assert values["consistency blue of L1C above L2A over dark ground, share of pixels"] > 0.99
        assert values["consistency blue of L1C less L2A with that of molecules, correlation"] > 0.95
        assert -150 < values["consistency blue of L1C above L2A and molecules over dark ground, DN"] < 400


def test_the_sun_of_the_layers_own_place_and_date_is_used():
    scene = world(14)
    sun = sun_at(float(scene["place"][0]), scene["date"][0])
    assert measured(scene.layers) == measured(scene.layers, sun=sun) != measured(scene.layers, sun=Sun(0.1, 0.0))
