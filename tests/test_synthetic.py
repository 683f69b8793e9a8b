"""What must hold on the synthetic Earth: the same seed gives the same world, and its layers obey the physics they were made by."""

import hashlib
import importlib.util
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from copgen.modalities import TABLE
from copgen.synthetic import ground, region, render, world, worlds
from copgen.synthetic.drainage import drained
from copgen.synthetic.fields import fields, padded, rotated, stream
from copgen.synthetic.land import mask
from copgen.synthetic.plan import direction, plan
from copgen.synthetic.radar import LOOKS, speckle
from copgen.synthetic.relief import relief
from copgen.synthetic.setting import climate, setting, sun_at
from copgen.synthetic.sky import cloud_mask, clouds
from copgen.synthetic.surface import BANDS, reflectance

WATER, TREES, CROPS, BUILT, BARE = 1, 2, 5, 7, 8


@pytest.fixture(scope="module")
def many():
    return list(worlds(range(500, 545)))


def blocks(layer, factor):
    count, height, width = layer.shape
    return layer.reshape(count, height // factor, factor, width // factor, factor).mean((2, 4))


def snow_free(scene):
    """Where the ground is seen, [192, 192]: no cloud, no shadow, no snow (its NDSI is high)."""
    green, infrared = scene["s2l2a_10m"][1], at_10m(scene["s2l2a_20m"])[4]
    return (scene["cloud_mask"][0] == 0) & ~((green - infrared > 0.2 * (green + infrared)) & (scene["s2l2a_10m"][3] > 1000))


def seen(many, code, name, least=400):
    """Mean of a row's bands over a class's clear pixels, a world a line; worlds with fewer pixels than `least` are left out."""
    places = [(scene, snow_free(scene) & (scene["lulc"][0] == code)) for scene in many]
    return np.array([at_10m(scene[name])[:, where].mean(1) for scene, where in places if where.sum() >= least])


def at_10m(layer):
    factor = 192 // layer.shape[-1]
    return layer.repeat(factor, 1).repeat(factor, 2)


def test_the_same_seed_gives_the_same_world():
    first, second = world(7), world(7)
    assert first.name == "world-000007" and first.notes["synthetic seed"] == 7
    assert first.footprint == second.footprint
    for name in TABLE.names:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_world_does_not_depend_on_what_was_drawn_before(many):
    np.testing.assert_array_equal(world(510)["s1rtc"], many[10]["s1rtc"])


def test_another_process_draws_the_same_world(many):
    code = "import hashlib; from copgen.synthetic import world; print(hashlib.sha256(world(510)['s2l1c_20m'].tobytes()).hexdigest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(many[10]["s2l1c_20m"].tobytes()).hexdigest()


def test_rendering_with_another_seed_keeps_the_causes_and_draws_the_effects_again(many):
    where = setting(510, 1920)
    land = ground(where)
    own, other = render(where, land), render(where, land, 7)
    for name in TABLE.names:
        np.testing.assert_array_equal(own[name], many[10][name])
    for name in ("place", "date", "lulc"):
        np.testing.assert_array_equal(other[name], own[name])
    for name in ("s1rtc", "s2l1c_10m", "s2l2a_20m", "dem"):
        assert (other[name] != own[name]).mean() > 0.9
    assert np.abs(other["dem"] - own["dem"]).max() < 20          # the ground is the same: canopies and noise are not


def test_different_seeds_give_different_worlds(many):
    assert len({scene["s2l2a_10m"].tobytes() for scene in many}) == len(many)
    assert len({str(scene["date"][0]) for scene in many}) > len(many) / 2


def test_a_world_holds_every_row_in_valid_units(many):
    for scene in many:                                           # Scene has checked shapes, codes and finiteness
        assert tuple(scene.layers) == TABLE.names
        for name in TABLE.names:
            if name.startswith("s2"):
                assert scene[name].min() >= 1 and scene[name].max() < 20_000
        assert scene["s1rtc"].min() > 0
        assert np.datetime64("2017-01-01") <= scene["date"][0] <= np.datetime64("2025-12-31")
        assert scene["dem"].min() > -500 and scene["dem"].max() < 8000


def test_the_place_is_the_middle_of_the_footprint_in_its_utm_zone(many):
    for scene in many:
        assert scene["place"] == pytest.approx(scene.footprint.centre, abs=1e-9)
        assert scene.footprint.left % 60 == 0 and scene.footprint.top % 60 == 0
        lat, lon = scene["place"]
        assert abs(((lon + 180) % 6) - 3) < 3.05                 # in the zone, or within the square's size of its edge
        assert scene.footprint.crs.to_epsg() // 100 == (326 if lat >= 0 else 327)
        assert -60 < lat < 83.1


@pytest.mark.parametrize("side", [960, 2880])
def test_a_region_may_have_another_side(side):
    layers, footprint = region(7, side)
    assert footprint.side == side
    table = replace(TABLE, footprint=side)
    assert {name: layer.shape for name, layer in layers.items()} == {name: table.layer_shape(name) for name in TABLE.names}
    assert world(7, side=side).table.footprint == side


def test_sides_and_seeds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="multiple of 60 m"):
        region(7, 1930)
    with pytest.raises(ValueError, match="from 0 on"):
        world(-1)


@pytest.mark.long
def test_a_whole_cell_of_major_tom_can_be_drawn():
    layers, _ = region(3, 10_680)
    assert layers["s2l2a_10m"].shape == (4, 1068, 1068)
    assert layers["dem"].shape == (1, 356, 356) and layers["s2l1c_60m"].shape == (3, 178, 178)


def test_land_is_land_and_sea_is_sea():
    for lat, lon in [(48.85, 2.35), (-1.29, 36.82), (-33.4, -70.6), (55.0, 83.0), (47.0, 59.5)]:
        assert not mask().sea(lat, lon)
    for lat, lon in [(30, -40), (0, 0), (-40, 120), (42, 5), (43, 34), (70, 0)]:
        assert mask().sea(lat, lon)
    assert mask().coastal(43.29, 5.37) and not mask().coastal(48.85, 2.35)      # Marseille, Paris
    assert mask().continentality(55, 83) > 0.85 > 0.4 > mask().continentality(64.1, -21.9)


def test_places_are_uniform_on_land():
    rng = np.random.default_rng(0)
    places = np.array([mask().place(rng) for _ in range(3000)])
    assert (places[:, 0] > 0).mean() == pytest.approx(0.738, abs=0.025)         # 99.4 of 134.7 million square kilometres
    assert (np.abs(places[:, 0]) < 23.44).mean() == pytest.approx(0.37, abs=0.03)
    assert not any(mask().sea(lat, lon) for lat, lon in places[:100])


def test_a_missing_land_mask_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install global-land-mask"):
        mask.__wrapped__()


def test_climate_follows_from_the_place():
    assert climate(24, 5)[0] < 0.15 < 0.8 < climate(-3, -60)[0]                 # Sahara, Amazon
    assert climate(31, 88)[1] > 0.7 > 0.4 > climate(-5, -62)[1]                 # Tibet


def test_water_runs_downhill_and_none_is_lost():
    surface = np.random.default_rng(1).standard_normal((40, 40))
    tree = drained(surface, np.zeros((40, 40), bool), 2, np.random.default_rng(2), inflow=500.0)
    outlet = tree.below == np.arange(1600)
    assert tree.area[outlet].sum() == pytest.approx(1600 + 500)
    assert (tree.filled[tree.below] <= tree.filled).all() and (tree.filled >= surface.ravel()).all()
    assert (tree.area[tree.below[~outlet]] > tree.area[~outlet]).all()
    assert sorted(tree.order) == list(range(1600))
    steps = tree.climb(np.where(outlet, 0.0, 1.0))
    assert (steps[~outlet] == steps[tree.below[~outlet]] + 1).all()


def test_rivers_lie_in_valleys():
    """Around water the ground rises: in every world with a river or lake the banks are higher than the water."""
    found = 0
    for seed in range(500, 530):
        land = relief(setting(seed, 1920), seed)
        near = (land.shore > 0) & (land.shore < 1e5)
        if (land.shore < 0).sum() > 200 and near.sum() > 200:
            found += 1
            assert land.height[land.shore < 0].mean() < land.height[near].mean()
    assert found >= 5


def test_fields_take_the_direction_of_the_maps_straight_edges():
    for angle in (0.3, 0.9, 1.3):
        u, v = rotated(192, angle)
        drawn = direction(np.random.default_rng(0), (np.abs(u) < 500) & (np.abs(v) < 300))
        assert abs((drawn - angle + np.pi / 4) % (np.pi / 2) - np.pi / 4) < 0.1


def test_the_cloud_mask_is_good_and_not_perfect():
    agreed = []
    for seed in range(900, 940):
        veil = clouds(setting(seed, 1920), 192, seed)
        if veil.height and 0.1 < (veil.opacity > 0.8).mean() < 0.9:
            seen = cloud_mask(veil, seed)
            assert (np.isin(seen, (1, 2))[veil.opacity > 0.8]).mean() > 0.95
            agreed.append((np.isin(seen, (1, 2)) == (veil.opacity > 0.05)).mean())
    assert 0.8 < np.mean(agreed) < 0.995


def test_fields_have_unit_variance_and_do_not_wrap_around():
    drawn = np.stack([fields(stream(seed, "test"), 96, 2, slope=2.0, longest=400.0) for seed in range(30)])
    assert drawn.std() == pytest.approx(1, rel=0.05)
    opposite = np.corrcoef(drawn[..., 0].ravel(), drawn[..., -1].ravel())[0, 1]
    beside = np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1]
    assert abs(opposite) < 0.1 < 0.5 < beside
    assert padded(96) >= 1.5 * 96


def test_the_sun_stands_in_the_south_east_of_the_north_and_the_north_east_of_the_south():
    june = np.datetime64("2021-06-21")
    assert 90 < np.degrees(sun_at(50, june).azimuth) < 180
    assert 0 < np.degrees(sun_at(-40, june).azimuth) < 90
    noon = sun_at(50, june, hour=12)
    assert np.degrees(noon.zenith) == pytest.approx(50 - 23.44, abs=0.05)


def test_leaves_have_a_red_edge(many):
    red, _, _, infrared = seen(many, TREES, "s2l2a_10m").T
    assert (infrared > 1.5 * red).mean() > 0.9
    edge, plateau = seen(many, TREES, "s2l2a_20m")[:, [0, 2]].T
    assert (plateau > edge).mean() > 0.9


def test_water_is_dark_in_the_infrared(many):
    _, green, _, infrared = seen(many, WATER, "s2l2a_10m").T
    assert np.median(infrared) < 400 and (infrared < green).mean() > 0.9
    short = seen(many, WATER, "s2l2a_20m")[:, 4]
    assert np.median(short) < 250


def test_snow_is_bright_in_the_visible_and_dark_in_the_short_wave_infrared():
    cold = worlds(seed for seed in range(500, 2000) if setting(seed, 1920).summer < 2)
    scene = next(one for one in cold if (one["lulc"] == 9).mean() > 0.5 and (one["cloud_mask"] == 0).mean() > 0.9)
    clear = scene["cloud_mask"][0] == 0
    green, short = scene["s2l2a_10m"][1][clear].mean(), scene["s2l2a_20m"][4].mean()
    assert (green - short) / (green + short) > 0.6


def test_vh_is_below_vv_and_classes_keep_their_order(many):
    def decibels(code):
        return 10 * np.log10(seen(many, code, "s1rtc"))

    for code in (WATER, TREES, CROPS, BUILT, BARE):
        vv, vh = decibels(code).T
        assert (vv - vh > 2).all()
    vv = {code: np.median(decibels(code)[:, 0]) for code in (WATER, BARE, CROPS, TREES, BUILT)}
    assert sorted(vv, key=vv.get) == [WATER, BARE, CROPS, TREES, BUILT]


def test_speckle_has_mean_one_and_the_stated_looks():
    drawn = speckle(np.random.default_rng(1), (2, 400, 400))
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.mean() ** 2 / drawn.var() == pytest.approx(LOOKS, rel=0.05)
    rest = drawn - 1
    beside, next_one = ((rest[..., step:] * rest[..., :-step]).mean() / drawn.var() for step in (1, 2))
    assert beside == pytest.approx(2 / 3, abs=0.02) and next_one == pytest.approx(1 / 6, abs=0.02)      # as in real products


def test_the_atmosphere_brightens_the_blue_of_dark_ground(many):
    for code in (WATER, TREES):
        above, ground_level = seen(many, code, "s2l1c_10m")[:, 2], seen(many, code, "s2l2a_10m")[:, 2]
        dark = ground_level < 800
        assert dark.sum() > 5 and (above[dark] > ground_level[dark] + 100).all()


def test_water_vapour_hides_the_ground_in_b10_and_dims_b09(many):
    clear = [scene for scene in many if (scene["cloud_mask"] == 0).all()]
    assert max(scene["s2l1c_60m"][2].mean() for scene in clear) < 300
    assert np.median([scene["s2l1c_60m"][1].mean() / scene["s2l2a_60m"][1].mean() for scene in clear]) < 0.6


def test_clouds_are_brighter_and_shadows_darker_than_the_clear_ground(many):
    def blue(scene, code, row):
        return np.median(scene[row][2][scene["cloud_mask"][0] == code])

    counts = [np.bincount(scene["cloud_mask"].ravel(), minlength=4) for scene in many]
    some = [scene for scene, count in zip(many, counts, strict=True) if min(count[0], count[1]) > 500 and snow_free(scene).mean() > 0.2]
    assert some
    for scene in some:
        for row in ("s2l1c_10m", "s2l2a_10m"):
            assert blue(scene, 1, row) > blue(scene, 0, row) + 1000
    shaded = [scene for scene, count in zip(many, counts, strict=True) if min(count[0], count[3]) > 500]
    assert np.mean([blue(scene, 3, "s2l2a_10m") < blue(scene, 0, "s2l2a_10m") for scene in shaded]) > 0.8


def test_about_four_worlds_in_ten_have_clouds():
    cloudy = [(region(seed, 480)[0]["cloud_mask"] > 0).any() for seed in range(150)]
    assert 0.25 < np.mean(cloudy) < 0.5


def test_bands_of_all_resolutions_are_registered(many):
    """B8A at 20 m lies beside B08 at 10 m in the spectrum: block means agree, and agree less when moved by one pixel."""
    scenes = [scene for scene in many if scene["s2l2a_10m"][3].std() > 250]
    for scene in scenes:
        fine, coarse = blocks(scene["s2l2a_10m"][3:], 2)[0], scene["s2l2a_20m"][3]
        aligned = np.corrcoef(fine[1:-1, 1:-1].ravel(), coarse[1:-1, 1:-1].ravel())[0, 1]
        assert aligned > 0.8
        for moved in (coarse[2:, 1:-1], coarse[:-2, 1:-1], coarse[1:-1, 2:], coarse[1:-1, :-2]):
            assert np.corrcoef(fine[1:-1, 1:-1].ravel(), moved.ravel())[0, 1] < aligned


def test_water_is_flat_and_lies_low(many):
    for scene in many:
        water = blocks((scene["lulc"] == WATER).astype(float), 3)[0]
        if (water == 1).sum() > 200 and (water == 0).sum() > 200:
            height = scene["dem"][0]
            assert np.median(height[water == 1]) < np.median(height[water == 0])


def ndvi(where, code):
    land = ground(where)
    surface, _, snow = reflectance(where, land, plan(land, where.seed), where.seed)
    red, infrared = surface[BANDS.index("B04")], surface[BANDS.index("B08")]
    chosen = (land.lulc == code) & (snow < 0.05)
    return float(((infrared - red) / (infrared + red))[chosen].mean()) if chosen.sum() > 200 else np.nan


@pytest.mark.parametrize("hemisphere", [1, -1])
def test_summer_is_greener_in_either_hemisphere(hemisphere):
    """The very same ground, with nothing but the date moved by half a year."""
    found = {TREES: [], CROPS: []}
    for seed in range(700):
        where = setting(seed, 640)
        if not (35 < hemisphere * where.lat < 58 and where.wetness > 0.4):
            continue
        days = np.datetime64("2021-01-15"), np.datetime64("2021-07-15")
        january, july = (replace(where, date=day) for day in days)
        for code, rises in found.items():
            rises.append(hemisphere * (ndvi(july, code) - ndvi(january, code)))
        if min(np.isfinite(rises).sum() for rises in found.values()) >= 6:
            break
    for rises in found.values():
        assert np.nanmean(rises) > 0.05


def test_class_means_leave_at_least_half_of_the_variance(many):
    """The classes of land alone do not tell what a pixel looks like."""
    clear = [snow_free(scene) for scene in many]
    lulc = np.concatenate([scene["lulc"][0][where] for scene, where in zip(many, clear, strict=True)])
    for band in range(4):
        value = np.concatenate([scene["s2l2a_10m"][band][where] for scene, where in zip(many, clear, strict=True)])
        left = sum(value[lulc == code].var() * (lulc == code).mean() for code in np.unique(lulc))
        assert left / value.var() > 0.5
