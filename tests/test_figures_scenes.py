"""Figures of scenes: they show the numbers that are there, in the stretches that they name, legibly, and with the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.image import AxesImage
from matplotlib.text import Text

from copgen.evaluation.kept import Ensemble
from copgen.evaluation.recipe import Condition
from copgen.figures.infilling import infilling
from copgen.figures.looping import looping
from copgen.figures.moments import moments, moments_of
from copgen.figures.narrowing import Source, density, edges_of, histogram, narrowing, silverman
from copgen.figures.profiles import WAVELENGTHS, profiles, spectra, spot
from copgen.figures.samples import samples_grid
from copgen.figures.style import LOOKS, blank, look, paper, rendered, save
from copgen.figures.tiles import asked_of
from copgen.loop import Drift, Round
from copgen.modalities import THUMBNAILS
from copgen.pictures import Relief, render
from copgen.scene import Scene

GIVEN = ("dem", "lulc")
SPECTRAL = ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m")


def ensemble_of(scene, given=GIVEN, count=6, generator="nano", others=2):
    """Samples around a scene: more or less light and noise, shifted classes, other places and dates."""

    def drawn(seed):
        random = np.random.default_rng(seed)
        layers = {}
        for row, layer in scene.layers.items():
            if row == "place":
                layers[row] = layer + random.uniform(-20, 20, 2)
            elif row == "date":
                layers[row] = layer + int(random.integers(-200, 200))
            elif scene.table[row].drawing:
                layers[row] = np.clip(layer * random.uniform(0.7, 1.4), 0, 255).astype(np.uint8)
            elif scene.table[row].legend:
                layers[row] = np.roll(layer, int(random.integers(0, 60)), axis=-1)
            else:
                layers[row] = layer * random.uniform(0.7, 1.4) * random.uniform(0.9, 1.1, layer.shape)
        return scene.with_layers({row: layer for row, layer in layers.items() if row not in given}, seed=seed)

    scored = tuple(row for row in scene.table.names if row not in given)
    samples = [drawn(k) for k in range(count)]
    return Ensemble(Condition("given", given, scored, count), scene, [drawn(100 + k) for k in range(others)], samples, generator)


def rounds_of(scene, count=3):
    """A loop that does nothing, with made-up drift."""
    layers = {row: scene[row] for row in scene.table.select("S1RTC,S2L2A")}
    found = []
    for number in range(1, count + 1):
        drift = tuple(Drift(number, chain, product, "x", against, statistic, "DN", 10.0 * number + chain)
                      for chain in (0, 1) for product in ("S1RTC", "S2L2A") for against in ("start", "previous", "chains")
                      for statistic in ("mae", "mean", "std", "slope") if against != "previous" or number > 1)
        found.append(Round(number, {chain: scene.with_layers(layers, seed=chain) for chain in (0, 1)}, drift))
    return found


@pytest.fixture(scope="module")
def ensemble(scene):
    return ensemble_of(scene)


@pytest.fixture(scope="module")
def drawn():
    """Thumbnails of one square, from a seed."""
    random, slope = np.random.default_rng(11), np.linspace(0, 1, 256)
    shapes = {name: np.add.outer(slope * random.uniform(40, 120), slope * random.uniform(40, 120)) for name in THUMBNAILS.names}
    layers = {name: (shape[None] + random.uniform(0, 15, (3, 256, 256))).astype(np.uint8) for name, shape in shapes.items()}
    return Scene(layers, name="drawn hills", table=THUMBNAILS)


@pytest.fixture(scope="module")
def figures(scene, ensemble, drawn):
    """Every figure in both styles; those that pictures have, of pictures too."""
    other = ensemble_of(replace(scene, name="other hills"))
    more = ensemble_of(scene, ("dem", "lulc", "s1rtc"))
    rival = replace(ensemble, generator="rival", samples=ensemble.samples[::-1])
    found = {}
    for style in LOOKS:
        found |= {
            f"samples {style}": samples_grid([ensemble, other], style=style),
            f"samples in lines {style}": samples_grid([ensemble], count=6, lines=3, style=style),
            f"narrowing {style}": narrowing([ensemble, rival, more], style=style),
            f"profiles {style}": profiles([ensemble, rival], style=style),
            f"infilling {style}": infilling(ensemble_of(scene, ("s2l2a_10m",)), style=style),
            f"moments {style}": moments(ensemble, style=style),
            f"looping {style}": looping(rounds_of(scene), scene, style=style),
        }
    radar, all_but_one = ensemble_of(drawn, ("s1rtc_thumbnail",), 16), ensemble_of(drawn, THUMBNAILS.names[:3])
    return found | {
        "samples of pictures": samples_grid([radar], count=16, lines=2),
        "narrowing of pictures": narrowing([radar, all_but_one]),
        "infilling of pictures": infilling(radar),
        "moments of pictures": moments(radar),
        "looping of pictures": looping(rounds_of(drawn), drawn),
    }


def images(figure):
    return [np.asarray(image.get_array()) for image in figure.findobj(AxesImage)]


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def shown(figure, picture):
    return any(image.shape == picture.shape and (image == picture).all() for image in images(figure))


# --- all of them --------------------------------------------------------------------------------------------------------------------

def test_no_words_touch_other_words_or_leave_the_page(figures, monkeypatch):
    drawn = {}
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, *more, **other: (drawn.update({id(text): text}), draw(text, *more, **other)))
    for name, figure in figures.items():
        drawn.clear()
        with paper():
            figure.canvas.draw()
            boxes = [(text.get_text(), text.get_window_extent()) for text in drawn.values() if text.get_text().strip()]
        assert len(boxes) > 9
        for said, box in boxes:
            inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
            assert inside, f"{name}: {said!r} leaves the page"
        for (one, a), (two, b) in combinations(boxes, 2):
            apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
            assert apart, f"{name}: {one!r} touches {two!r}"


def test_a_title_of_many_given_layers_names_what_is_missing(scene):
    given = {words: tuple(row for row in scene.table.names if row not in scene.table.select(words)) for words in ("DEM", "S2L1C,S2L2A")}
    said = [asked_of("DEM", ensemble_of(scene, rows, 1)) for rows in given.values()]
    assert said == ["DEM given everything but DEM · nano", "DEM given everything but S2L1C and S2L2A · nano"]
    assert asked_of("DEM", ensemble_of(scene, ("lulc", "s2l2a_10m"), 1), generator=False) == "DEM given LULC + S2L2A 10 m"
    assert asked_of("DEM", ensemble_of(scene, (), 1), generator=False) == "DEM given nothing"


def test_all_words_are_six_points_at_least_and_figures_are_a_page_wide(figures):
    for name, figure in figures.items():
        assert figure.get_figwidth() == 7.0
        small = {t.get_text() for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t.get_fontsize() < 6}
        assert not small, f"{name}: {small}"


def test_the_same_figure_has_the_same_bytes(ensemble):
    first = rendered(samples_grid([ensemble], count=2), dpi=80)
    with matplotlib.rc_context({"font.size": 22, "axes.facecolor": "red", "image.cmap": "jet"}):     # what a user may have set
        assert rendered(samples_grid([ensemble], count=2), dpi=80) == first
    assert b"CreationDate" not in first["pdf"] and b"Software" not in first["png"]


def test_bytes_do_not_hang_on_the_process_and_pyplot_is_left_alone():
    code = """
import sys, hashlib, numpy as np
from copgen.figures.style import blank, paper, rendered
with paper():
    figure = blank(3.4, 2)
    axes = figure.add_subplot(title="Größe, µm²")
    axes.plot([1, 2, 4]); axes.imshow(np.arange(9).reshape(3, 3))
print({kind: hashlib.sha256(data).hexdigest() for kind, data in rendered(figure, 60).items()}, "matplotlib.pyplot" in sys.modules)
"""
    said = [subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed}, check=True,
                           capture_output=True, text=True).stdout for seed in ("1", "2")]
    assert said[0] == said[1] and said[0].strip().endswith("False")


def test_both_files_are_written(tmp_path):
    with paper():
        figure = blank(3.4, 2)
    paths = save(figure, tmp_path, "empty", dpi=50)
    assert [path.name for path in paths] == ["empty.png", "empty.pdf"]
    assert hashlib.sha256(paths[1].read_bytes()).digest() == hashlib.sha256(rendered(figure, 50)["pdf"]).digest()
    with pytest.raises(ValueError, match="empty"):
        save(figure, tmp_path, "empty", overwrite=False)


# --- stretches ----------------------------------------------------------------------------------------------------------------------

def test_published_stretches_are_those_of_the_reference(scene):
    row, radar, dem = (scene.table[name] for name in ("s2l2a_10m", "s1rtc", "dem"))
    layer = np.zeros(scene.table.layer_shape("s2l2a_10m"))
    layer[:, 0, 0], layer[0, 0, 1], layer[1, 0, 1] = 1000, 9000, -50
    (picture,) = LOOKS["published"].pictures(row, [layer])
    assert picture[0, 0].tolist() == [round(255 * 1.3 * 0.1**0.6)] * 3 and picture[0, 1].tolist() == [255, 0, 0]
    quiet, loud = np.full((2, 4, 4), 0.001), np.full((2, 4, 4), 0.1)
    low, high = LOOKS["published"].pictures(radar, [quiet, loud])
    assert (low == 0).all() and (high == 255).all()
    slope = np.add.outer(np.arange(64.0), np.arange(64.0))[None]                 # rises to the south-east: it faces the light
    valley = np.minimum(slope, slope[:, ::-1, ::-1])
    (shade,) = LOOKS["published"].pictures(dem, [np.ascontiguousarray(valley)])
    assert shade[10, 10].mean() > shade[50, 50].mean()
    assert shown(samples_grid([ensemble_of(scene)], style="published"), LOOKS["published"].pictures(dem, [scene["dem"]])[0])


def test_our_stretch_does_not_depend_on_what_is_beside(scene):
    row = scene.table["s2l2a_10m"]
    (alone,) = LOOKS["ours"].pictures(row, [scene["s2l2a_10m"]])
    beside, _ = LOOKS["ours"].pictures(row, [scene["s2l2a_10m"], scene["s2l2a_10m"] * 3])
    np.testing.assert_array_equal(alone, beside)
    low, high = LOOKS["ours"].pictures(scene.table["dem"], [scene["dem"], scene["dem"] + 500])       # heights share one relief
    relief = Relief.of([scene["dem"], scene["dem"] + 500], 30)
    np.testing.assert_array_equal(low, render(scene.table["dem"], scene["dem"], relief))
    assert (low != high).any()


def test_a_style_that_is_none_is_refused():
    with pytest.raises(ValueError, match="ours, published"):
        look("pretty")


# --- samples ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("style", LOOKS)
def test_a_grid_shows_given_truth_and_samples_in_their_stretch(ensemble, style):
    figure, table = samples_grid([ensemble], count=4, style=style), ensemble.observation.table
    layers = [ensemble.observation["s2l2a_10m"], *(sample["s2l2a_10m"] for sample in ensemble.samples[:4])]
    for picture in LOOKS[style].pictures(table["s2l2a_10m"], layers):
        assert shown(figure, picture)
    assert shown(figure, LOOKS[style].pictures(table["lulc"], [ensemble.observation["lulc"]])[0])
    assert not shown(figure, LOOKS[style].pictures(table["s2l2a_10m"], [ensemble.samples[4]["s2l2a_10m"]])[0])
    said = " ".join(words(figure))
    assert "given DEM + LULC" in said and "55.95° N" in said and "23 July 2021" in said


def test_an_observation_without_the_row_is_said_to_be_missing(ensemble):
    blind = replace(ensemble, observation=ensemble.observation.without("S2L2A"))
    assert "not observed" in words(samples_grid([blind]))


def test_grids_of_nothing_or_of_two_conditions_are_refused(scene, ensemble):
    for wrong, says in (([], "at least one"), ([ensemble, ensemble_of(scene, ("dem",))], "same given"),
                        ([ensemble_of(scene, ("s2l2a_10m",))], "no samples with s2l2a_10m")):
        with pytest.raises(ValueError, match=says):
            samples_grid(wrong)


# --- narrowing ----------------------------------------------------------------------------------------------------------------------

def test_densities_integrate_to_one_and_are_the_gaussian_kernel_estimate():
    from scipy.stats import gaussian_kde

    random = np.random.default_rng(3)
    values = np.concatenate([random.normal(0.1, 0.02, 1500), random.normal(0.4, 0.05, 500)])
    grid, width = np.linspace(-0.2, 0.8, 2048), silverman(values)
    found = density(values, grid, width)
    exact = gaussian_kde(values, bw_method=width / values.std(ddof=1))(grid)
    np.testing.assert_allclose(found, exact, atol=2e-3 * exact.max())
    assert found.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
    mean = (grid * found).sum() * (grid[1] - grid[0])
    assert mean == pytest.approx(values.mean(), abs=1e-4)
    assert ((grid - mean) ** 2 * found).sum() * (grid[1] - grid[0]) == pytest.approx(values.var() + width**2, rel=1e-2)
    part = density(values, grid[grid < 0.25], width)                              # what lies beyond the grid is counted, not squeezed in
    np.testing.assert_allclose(part, found[grid < 0.25], atol=1e-2 * found.max())
    edges = np.linspace(-0.2, 0.8, 65)
    assert (histogram(values, edges) * np.diff(edges)).sum() == pytest.approx(1)


def test_bins_of_whole_numbers_hold_equally_many():
    for low, high in ((3.0, 200.0), (0.2, 255.0), (10.0, 60.0)):
        edges = edges_of(low, high, 96, whole=True)
        assert len(edges) <= 98 and len(set(np.diff(edges))) == 1 and (edges % 1 == 0.5).all() and edges[0] <= low and edges[-1] >= high
    np.testing.assert_allclose(edges_of(-0.04, 0.3, 96, whole=False), np.linspace(-0.04, 0.3, 97))


def test_silverman_of_a_normal_distribution():
    values = np.random.default_rng(0).standard_normal(100_000)
    assert silverman(values) == pytest.approx(0.9 * 100_000**-0.2, rel=0.01)


def test_the_spread_beside_a_row_is_that_between_samples():
    truth = np.random.default_rng(0).uniform(0, 0.3, (16, 16))
    samples = np.stack([truth + offset for offset in (-0.01, 0.01, 0.03)])
    assert Source(samples, "blue").spread == pytest.approx(0.02 * np.sqrt(4 / 3))
    assert np.isnan(Source(samples[:1], "blue").spread)


def test_the_ladder_names_what_is_added_and_how_far_the_truth_is(scene):
    def shifted(given, away):
        one = ensemble_of(scene, given, 3)
        return replace(one, samples=[scene.with_layers({row: scene[row] + away for row in SPECTRAL}, seed=k) for k in range(3)])

    figure = narrowing([shifted(("dem",), 500), shifted(("dem", "lulc"), 200), shifted(("dem", "lulc", "s1rtc"), 0)])
    said = words(figure)
    assert {"given\nDEM", "+ LULC", "+ S1RTC"} <= set(said)
    assert [sum(f"spread 0.000\n$W_1$ {away}" == text for text in said) for away in ("0.050", "0.020", "0.000")] == [3, 3, 3]


def test_narrowing_is_of_one_place_and_of_bands_that_there_are(scene, ensemble):
    with pytest.raises(ValueError, match="other"):
        narrowing([ensemble, ensemble_of(replace(scene, name="other"))])
    with pytest.raises(ValueError, match="no band 'B10'"):
        narrowing([ensemble], ("B10",))


# --- profiles -----------------------------------------------------------------------------------------------------------------------

def test_pixels_are_chosen_from_the_class_mask_and_nothing_else(ensemble):
    random = np.random.default_rng(1)
    mask = np.zeros((192, 192), bool)
    mask[40:90, 20:100] = True
    chosen = [spot(mask, "hills", 2, seed) for seed in range(20)]
    assert all(43 <= at.line < 87 and 23 <= at.column < 97 and at.inside for at in chosen) and len(set(chosen)) > 10
    thin = np.zeros((192, 192), bool)
    thin[:, 7] = True
    assert not spot(thin, "hills", 2, 0).inside and spot(thin, "hills", 2, 0).column == 7

    def marked(one):
        return [line.get_xydata().tolist() for axes in profiles([one]).axes for line in axes.get_lines() if line.get_marker() == "s"]

    def noisy(scene):
        return replace(scene, layers={row: random.uniform(1, 9000, layer.shape) if row in SPECTRAL else layer
                                      for row, layer in scene.layers.items()})

    changed = replace(ensemble, observation=noisy(ensemble.observation), samples=[noisy(sample) for sample in ensemble.samples])
    assert marked(ensemble) == marked(changed) and marked(ensemble)


def test_class_means_are_those_of_the_classes(scene):
    codes = {int(code): 500 * k for k, code in enumerate(np.unique(scene["lulc"]), 1)}
    blocks = np.kron(scene["lulc"][0][::6, ::6], np.ones((6, 6), int))[None]                # classes of whole 60 m pixels
    level = np.vectorize(codes.get)(blocks[0]).astype(float)

    def painted(away):
        steps = {row: 192 // scene.table.side(row) for row in SPECTRAL}
        return {row: np.stack([level[::step, ::step] + away] * len(scene.table[row].bands)) for row, step in steps.items()}

    truth = replace(scene, layers={**scene.layers, "lulc": blocks, **painted(0)})
    samples = [truth.with_layers(painted(100), seed=k) for k in range(3)]
    figure = profiles([Ensemble(Condition("given", GIVEN, SPECTRAL, 3), truth, [], samples, "nano")], most=1)
    counts = {code: int((blocks == code).sum()) for code in codes if code}
    most = max(counts, key=lambda code: (counts[code], -code))
    lines = [line for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata()) == 12]
    assert len(lines) == 4                                                                   # two panels, truth and median
    for line in lines:
        np.testing.assert_allclose(line.get_xdata(), sorted(set(WAVELENGTHS.values()) - {1375}))
        np.testing.assert_allclose(line.get_ydata(), (codes[most] + (100 if line.get_marker() == "None" else 0)) / 10_000, atol=1e-6)


def test_spectra_are_in_the_order_of_wavelengths_with_cirrus_where_it_is_seen(scene):
    found = spectra(scene, "S2L1C")
    assert found.bands == tuple(WAVELENGTHS) and found.values.shape == (13, 192, 192)
    row = scene.table["s2l1c_60m"]
    assert found.values[10, 100, 7] == pytest.approx(scene["s2l1c_60m"][row.bands.index("B10"), 16, 1] / 10_000)
    with pytest.raises(ValueError, match="land cover"):
        profiles([replace(ensemble_of(scene), observation=scene.without("LULC"))])


# --- infilling, moments, looping ----------------------------------------------------------------------------------------------------

def test_an_infilling_sheet_tells_the_error_of_everything_generated(scene):
    layers = {"s2l2a_20m": scene["s2l2a_20m"] + 150, "s1rtc": scene["s1rtc"] * 2, "dem": scene["dem"] + 5, "place": scene["place"] - [1, 0],
              "date": scene["date"] + 9, "lulc": scene["lulc"], "cloud_mask": np.where(scene["cloud_mask"] == 0, 1, 0)}
    sample = scene.with_layers(layers, seed=4)
    one = Ensemble(Condition("infilling", ("s2l2a_10m",), tuple(layers), 1), scene, [], [sample], "nano")
    figure = infilling(one, count=1)
    said = words(figure)
    agree = f"{np.mean(layers['cloud_mask'] == scene['cloud_mask']):.0%} of pixels agree"
    assert {"error 0.015", "error 3.0 dB", "error 5.0 m", "111 km away", "9 days away", "100% of pixels agree", agree, "seed 4",
            "given"} <= set(said)
    assert all(shown(figure, render(scene.table[row], scene[row])) for row in ("s2l2a_10m", "lulc"))
    assert "S2L1C 10 m" not in said                                                          # neither given nor drawn


def test_moments_of_samples_with_a_known_spread(scene):
    row, truth = scene.table["dem"], scene["dem"]
    found = moments_of(row, [truth + 10 + away for away in (-3, 3)], truth)
    np.testing.assert_allclose(found.spread, 3 * np.sqrt(2), atol=1e-3)
    np.testing.assert_allclose(found.error, 10, atol=1e-3)
    np.testing.assert_allclose(found.middle, truth + 10, atol=1e-3)
    assert found.tops[0] == found.tops[1] >= 10                                               # one scale for both
    radar = moments_of(scene.table["s1rtc"], [scene["s1rtc"], scene["s1rtc"] * 100], None)
    np.testing.assert_allclose(radar.middle, scene["s1rtc"] * 10, rtol=1e-4)                  # the mean of decibels
    assert radar.error is None


def test_moments_of_classes(scene):
    row, one = scene.table["cloud_mask"], np.zeros((1, 192, 192), np.uint8)
    found = moments_of(row, [one, one, one + 1, one + 1], one)
    np.testing.assert_allclose(found.spread, 1)                                               # one bit
    np.testing.assert_allclose(found.error, 0.5)
    sure = moments_of(row, [one, one, one], one + 2)
    assert (sure.spread == 0).all() and (sure.error == 1).all() and (sure.middle == 0).all()


def test_maps_of_moments_are_in_the_figure(ensemble):
    figure = moments(ensemble, ["s2l2a_10m", "cloud_mask"])
    layers = [sample["s2l2a_10m"] for sample in ensemble.samples]
    found = moments_of(ensemble.observation.table["s2l2a_10m"], layers, ensemble.observation["s2l2a_10m"])
    assert shown(figure, found.spread) and shown(figure, found.error)
    assert {"reflectance", "bits", "share"} <= set(words(figure))
    with pytest.raises(ValueError, match="no samples of dem"):
        moments(ensemble, ["dem"])


def test_a_loop_shows_its_pictures_and_its_drift(scene):
    rounds = rounds_of(scene)
    figure = looping(rounds, scene)
    assert all(shown(figure, render(scene.table[row], scene[row])) for row in ("s2l2a_10m", "s1rtc"))
    drawn = [line.get_xydata().tolist() for axes in figure.axes for line in axes.get_lines() if line.get_label() == "against the start"]
    assert len(drawn) == 8 and all(points == [[1, 10.5], [2, 20.5], [3, 30.5]] for points in drawn)
    with pytest.raises(ValueError, match="no rounds"):
        looping([], scene)


# --- pictures -----------------------------------------------------------------------------------------------------------------------

def test_pictures_are_shown_as_they_are_in_any_style(drawn):
    radar = ensemble_of(drawn, ("s1rtc_thumbnail",), 16)
    for style in LOOKS:
        figure = samples_grid([radar], count=16, lines=2, style=style)
        own = [sample["s2l2a_thumbnail"] for sample in radar.samples]
        assert all(shown(figure, np.moveaxis(one, 0, -1)) for one in (drawn["s1rtc_thumbnail"], drawn["s2l2a_thumbnail"], *own))
        assert "S2L2A given S1RTC · nano" in words(figure)
        assert "S2L2A: true colour (B04, B03, B02 as red, green, blue)" in words(figure)


def test_the_mean_of_pictures_is_a_picture_and_their_spread_is_in_levels(drawn):
    row = drawn.table["dem_thumbnail"]
    found = moments_of(row, [np.full((3, 256, 256), level, np.uint8) for level in (10, 20, 33)], np.full((3, 256, 256), 30, np.uint8))
    assert found.middle.dtype == np.uint8 and (found.middle == 21).all()
    assert found.spread == pytest.approx(np.std([10, 20, 33], ddof=1)) and found.error == pytest.approx(9.0)
    assert found.names == ("levels of 255", "levels of 255")


def test_figures_that_need_spectra_refuse_pictures(drawn):
    with pytest.raises(ValueError, match="need its land cover and the spectral bands of its S2L2A; it has dem_thumbnail"):
        profiles([ensemble_of(drawn, ("s1rtc_thumbnail",))])
    with pytest.raises(ValueError, match="no band 'B04'; it has red, green, blue"):
        narrowing([ensemble_of(drawn, ("s1rtc_thumbnail",))], ("B04",))


def test_samples_of_which_no_truth_was_kept_are_shown_without_it(ensemble):
    """As `copgen generate` leaves them."""
    blind = replace(ensemble, observation=ensemble.observation.only("place, date"))
    first = render(ensemble.observation.table["s2l2a_10m"], ensemble.samples[0]["s2l2a_10m"])
    assert len(images(samples_grid([blind]))) == 6 and shown(samples_grid([blind]), first) and shown(moments(blind), first)
    assert "not observed" in words(infilling(blind))
    with pytest.raises(ValueError, match="nothing was observed of s2l2a_10m"):
        narrowing([blind])
