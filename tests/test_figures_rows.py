"""Figures of rows: what is drawn is what the rows say, and a perfect ensemble lies where the figure says that it would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
from made_rows import Made, places_of

from copgen.evaluation.arrays import Asked
from copgen.evaluation.distribution import distribution_tables
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.recipe import Condition
from copgen.figures import architecture, basemap, calibration, distribution, maps
from copgen.figures.style import rendered
from copgen.modalities import THUMBNAILS
from copgen.scene import Scene
from copgen.scores import best_of_n
from copgen.scores.calibration import ranks

WHERE = {"protocol": "given", "given": "LULC"}
GROUP = (Asked("given", "LULC"),)
CELLS = [f"cell-{k:03d}" for k in range(40)]
REPOSITORY = Path(__file__).parent.parent


def simulated(seed: int, wide: float = 1.0, tiles: int = 40, members: int = 8, pixels: int = 50) -> np.ndarray:
    """Shares of ranks [tiles, m + 1] of ensembles whose pixels are alike; `wide` is the samples' spread beside the truth's."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(tiles):
        truth = rng.normal() + 0.5 * rng.normal(size=pixels)
        samples = wide * (rng.normal(size=(members, 1)) + 0.5 * rng.normal(size=(members, pixels)))
        found.append(np.bincount(ranks(samples, truth, rng), minlength=members + 1) / pixels)
    return np.array(found)


def ranks_from(shares: np.ndarray) -> calibration.Ranks:
    return calibration.Ranks(shares, np.full(len(shares), 50.0), np.arange(len(shares)))


def rank_rows(made: Made, shares: np.ndarray, name: str = "rank", modality: str = "DEM") -> None:
    for cell, one in zip(CELLS, shares, strict=True):
        for k, share in enumerate(one):
            made.add(cell, f"{name}:{k}:{len(one) - 1}", share, 50, modality=modality, **WHERE)


# --- ranks and coverage -------------------------------------------------------------------------------------------------------------

def test_bars_are_the_shares_of_ranks():
    shares = simulated(0)
    made = Made()
    rank_rows(made, shares)
    figure = calibration.rank_histograms([made.results()], GROUP)
    heights = [bar.get_height() for bar in figure.axes[0].patches if bar.get_width() == 0.9]
    assert heights == pytest.approx(shares.mean(0) * 9)


def test_a_bar_that_is_cut_has_its_height_beside_it():
    made = Made()
    rank_rows(made, np.tile([0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3], (40, 1)))
    axes = calibration.rank_histograms([made.results()], GROUP).axes[0]
    assert max(bar.get_height() for bar in axes.patches if bar.get_width() == 0.9) == calibration.TOP
    assert {"6.3"} <= {text.get_text() for text in axes.texts}


def test_perfect_ensembles_lie_within_the_grey_as_often_as_it_says():
    inside = []
    for seed in range(60):
        one = ranks_from(simulated(seed))
        low, high = one.perfect
        inside.append(np.mean((one.share >= low) & (one.share <= high)))
    assert 0.91 < np.mean(inside) < 0.99


def test_pixels_that_are_alike_do_not_make_a_fault():
    faults = [ranks_from(simulated(seed)).test().faults() for seed in range(100)]
    assert sum(bool(one) for one in faults) <= 16                    # two tests at 5 %
    assert sum("under-dispersed" in ranks_from(simulated(seed, wide=0.5)).test().faults() for seed in range(20)) == 20
    assert sum("over-dispersed" in ranks_from(simulated(seed, wide=2.0)).test().faults() for seed in range(20)) >= 18


def test_as_many_cases_as_tiles_where_a_tile_is_one_case_and_as_pixels_where_each_is_its_own():
    rng = np.random.default_rng(3)
    one_a_tile = ranks_from(np.eye(9)[rng.integers(0, 9, 400)])
    cases = one_a_tile.independent(1 / 9, one_a_tile.variance)
    assert np.median(cases) == pytest.approx(400, rel=0.15)
    free = ranks_from(rng.multinomial(50, np.full(9, 1 / 9), 400) / 50)
    assert np.median(free.independent(1 / 9, free.variance)) == pytest.approx(400 * 50, rel=0.15)


def test_coverage_is_drawn_where_the_counts_put_it():
    made = Made()
    rank_rows(made, np.tile([0.3, 0.1, 0.2, 0.1, 0.3], (40, 1)))
    axes = calibration.coverages([made.results()], GROUP).axes[0]
    ideal, held = axes.lines[0].get_xdata(), axes.lines[0].get_ydata()
    assert list(ideal) == pytest.approx([1 / 5, 3 / 5]) and list(held) == pytest.approx([0.2, 0.4])


def test_ensembles_of_the_usual_size_are_taken():
    made = Made()
    rank_rows(made, simulated(1))
    made.add(CELLS[0], "rank:0:2", 1.0, 50, **WHERE)
    found = calibration.ranks_of(made.results(), GROUP, "DEM")
    assert found is not None and found.members == 8


def test_what_nobody_has_is_refused():
    made = Made()
    rank_rows(made, simulated(1))
    with pytest.raises(ValueError, match="given given LULC: no row says what this figure shows of DEM"):
        calibration.spread_against_skill([made.results()], GROUP)


def test_a_generator_without_the_rows_has_an_empty_panel():
    both, one = Made(), Made()
    rank_rows(both, simulated(0))
    rank_rows(both, simulated(1), modality="S1RTC")
    rank_rows(one, simulated(2))
    axes = calibration.rank_histograms([both.results("a"), one.results("b")], GROUP).axes
    assert ["not evaluated" in {text.get_text() for text in panel.texts} for panel in axes] == [False, False, False, True]


# --- reliability, spread, best of N, influence, consistency -------------------------------------------------------------------------

def test_reliability_is_hits_over_cases():
    made = Made()
    for code, k, pixels, hits in ((1, 0, 60, 6), (1, 2, 40, 30), (2, 0, 40, 10), (2, 2, 60, 54)):
        made.add(CELLS[0], f"reliability:{code}:{k}:2", hits / pixels, pixels, modality="LULC", protocol="given", given="DEM")
    found = calibration.reliability_of(made.results(), (Asked("given", "DEM"),), "LULC")
    assert found is not None
    assert found.observed == pytest.approx([16 / 100, np.nan, 84 / 100], nan_ok=True)
    assert found.share == pytest.approx([0.5, 0, 0.5]) and found.error == pytest.approx((16 + 16) / 200)
    axes = calibration.reliability([made.results()], (Asked("given", "DEM"),)).axes[0]
    assert "ECE 0.160" in {text.get_text() for text in axes.texts}


def test_spread_and_skill_are_roots_a_tile_each():
    made = Made()
    for cell, spread, skill in zip(CELLS[:3], (4.0, 9.0, 16.0), (4.0, 9.0, 64.0), strict=True):
        made.add(cell, "spread", spread, 10, **WHERE)
        made.add(cell, "skill", skill, 10, **WHERE)
    found = calibration.spreads_of(made.results(), GROUP, "DEM")
    assert found is not None
    assert list(found.spread) == [2, 3, 4] and list(found.skill) == [2, 3, 8]
    assert found.ratio == pytest.approx(np.sqrt(29 / 77))
    assert [list(part) for part in found.binned(1)] == [[pytest.approx(np.sqrt(29 / 3))], [pytest.approx(np.sqrt(77 / 3))]]


def test_a_generator_without_error_has_no_ratio():
    made = Made()
    for cell in CELLS[:3]:
        made.add(cell, "spread", 0.0, 10, **WHERE)
        made.add(cell, "skill", 0.0, 10, **WHERE)
    axes = calibration.spread_against_skill([made.results()], GROUP).axes[0]
    assert [text.get_text() for text in axes.texts] == ["no error"]


def test_the_curve_is_the_unbiased_best_of_n():
    errors = np.random.default_rng(0).uniform(100, 200, (12, 6))
    made = Made()
    for cell, one in zip(CELLS, errors, strict=False):
        for seed, error in enumerate(one):
            made.add(cell, "kilometres", error, modality="place", seed=seed, **WHERE)
    metric = distribution.followed("place")
    assert metric is not None
    found = distribution.curve_of(made.results(places=places_of(CELLS)), GROUP, "place", metric)
    assert found is not None
    assert found.value == pytest.approx(best_of_n(errors).mean(0)) and found.value[0] == pytest.approx(errors.mean())
    assert (found.low < found.value).all() and (found.value < found.high).all()


def test_influence_is_the_root_of_moved_over_spread():
    made, swap = Made(), {"protocol": "swap date", "given": "DEM+date", "modality": "S1RTC", "band": "vv"}
    for cell, moved in zip(CELLS[:4], (2.0, 6.0, -1.0, 9.0), strict=True):
        made.add(cell, "moved", moved, 100, **swap)
        made.add(cell, "spread", 16.0, 100, **swap)
        made.add(cell, "true moved", 8.0, 100, **swap)
    found = distribution.influence_of(made.results(), Asked("swap date", "DEM+date"), "S1RTC")
    assert found is not None and found.value == pytest.approx(0.5) and found.truth == pytest.approx(np.sqrt(0.5))
    for statistic, value in (("moved", 4.0), ("spread", 16.0)):      # a tile of which no other truth is known
        made.add(CELLS[4], statistic, value, 100, **swap)
    found = distribution.influence_of(made.results(), Asked("swap date", "DEM+date"), "S1RTC")
    assert found is not None and found.value == pytest.approx(0.5) and found.truth == pytest.approx(np.sqrt(0.5))
    bars = distribution.influence([made.results()]).axes[0].patches
    assert [bar.get_height() for bar in bars] == [pytest.approx(0.5)]


def test_influence_is_drawn_as_tables_have_it():
    """A band of 36 times as many pixels counts no more than another."""
    made, swap = Made(), {"protocol": "swap date", "given": "DEM+date", "modality": "S2L2A"}
    for band, moved, pixels in (("B02", 4.0, 3600), ("B01", 16.0, 100)):
        for statistic, value in (("moved", moved), ("spread", 10.0), ("true moved", 2 * moved)):
            made.add(CELLS[0], statistic, value, pixels, band=band, **swap)
    results = made.results()
    found = distribution.influence_of(results, Asked("swap date", "DEM+date"), "S2L2A")
    row = next(row for row in distribution_tables([results], ["influence"])[0].rows if row[3] == "moved / spread")
    assert found is not None and (found.value, found.truth) == pytest.approx((1.0, np.sqrt(2)))
    assert (row[4].value, row[5].value) == pytest.approx((found.value, found.truth))


def test_consistency_has_a_dot_a_tile():
    made = Made()
    for k, cell in enumerate(CELLS[:5]):
        made.add(cell, "truth consistency NDVI of trees, ratio", k / 10, 30, modality="LULC", **WHERE)
        for seed in range(2):
            made.add(cell, "consistency NDVI of trees, ratio", k / 10 + 0.1 * seed, 30, seed=seed, modality="LULC", **WHERE)
    found = distribution.agreements(made.results(), GROUP)["NDVI of trees, ratio"]
    assert found.truth == pytest.approx(np.arange(5) / 10) and found.drawn == pytest.approx(np.arange(5) / 10 + 0.05)
    assert found.error == pytest.approx(0.05 / 0.12)
    assert len(distribution.consistency([made.results()], GROUP).axes[0].lines[1].get_xdata()) == 5


# --- maps ---------------------------------------------------------------------------------------------------------------------------

def test_dots_lie_at_their_longitude_and_latitude_and_a_star_at_the_truth():
    case = maps.Placed("here", {"a": np.array([[10.0, 20.0], [-30.0, 140.0]]), "b": np.array([[0.0, 0.0]])}, (55.0, -3.0), "DEM")
    axes = maps.places([case]).axes[0]
    drawn = {line.get_marker(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn == {"o": ([20, 140], [10, -30]), "^": ([0], [0]), "*": ([-3], [55])}


def test_a_legend_says_how_far_the_samples_lie():
    quarter = np.pi / 2 * 6371
    assert maps.words(np.array([[0.0, 0.0], [0.0, 0.0]]), (0.0, 90.0)) == (
        f"2 samples, energy score {quarter:,.0f} km, median {quarter:,.0f} km from the truth, 0 km from each other")
    assert "energy score 0 km" in maps.words(np.array([[5.0, 5.0]]), (5.0, 5.0))


def test_coastlines_put_cities_on_land_and_the_atlantic_in_the_sea():
    lat, lon, share = basemap.land_share()

    def at(place: tuple[float, float]) -> float:
        return float(share[np.abs(lat - place[0]).argmin(), np.abs(lon - place[1]).argmin()])

    assert all(at(place) > 0.9 for place in ((48.85, 2.35), (-1.3, 36.8), (40.0, -100.0), (-75.0, 0.0)))
    assert all(at(place) < 0.1 for place in ((30.0, -40.0), (-40.0, -120.0), (0.0, -20.0), (10.0, 65.0)))
    assert basemap.on_land(np.array([[48.85, 2.35], [30.0, -40.0]])) == 0.5


def test_priors_have_a_map_a_class():
    figure = maps.priors({"trees": np.array([[60.5, 10.0], [62.0, 25.0]]), "water": np.array([[0.0, -30.0]])}, {"trees": "#358221"})
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["trees: 2 samples, 100% on land", "water: 1 sample, 0% on land"]


def test_places_are_found_in_ensembles_that_drew_them():
    def kept(generator: str, given: tuple[str, ...], **layers: np.ndarray) -> Ensemble:
        truth = Scene({"place": np.array([1.0, 2.0])}, name="here")
        return Ensemble(Condition("given", given, ("place",), 2), truth, [], [Scene(layers)] * 2, generator)

    place = np.array([3.0, 4.0])
    found = maps.placed([kept("a", ("dem",), place=place), kept("b", ("dem",), place=place), kept("c", ("dem", "place"))])
    assert [(one.name, one.given, one.truth, sorted(one.samples)) for one in found] == [("here", "DEM", (1.0, 2.0), ["a", "b"])]
    assert found[0].samples["a"].tolist() == [[3, 4], [3, 4]]


def test_maps_refuse_what_they_cannot_show():
    with pytest.raises(ValueError, match="no square has samples"):
        maps.places([])
    with pytest.raises(ValueError, match="give one square"):
        maps.places([maps.Placed("a", {}), maps.Placed("b", {})], thumbnails=[maps.Thumbnail((0, 0), np.zeros((2, 2, 3), np.uint8))])
    with pytest.raises(ValueError, match="no class has places"):
        maps.priors({"trees": np.zeros((0, 2))})


# --- basemaps -----------------------------------------------------------------------------------------------------------------------

def geojson(path: Path, rings: list[list[list[float]]], kind: str = "Polygon", **properties: object) -> Path:
    coordinates = rings if kind == "Polygon" else [rings]
    feature = {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")
    return path


SQUARE, HOLE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
@pytest.mark.parametrize("turn", [1, -1])
def test_a_hole_is_a_hole_whichever_way_its_ring_runs(tmp_path, kind, turn):
    areas = basemap.read_basemap(geojson(tmp_path / "a.geojson", [SQUARE, HOLE[::turn]], kind, climate="Arid"), "climate")
    assert isinstance(areas, basemap.Areas) and areas.values == ("Arid",)
    outside, hole = areas.outlines[0].vertices[:5], areas.outlines[0].vertices[5:]
    area = [float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2) for x, y in (outside.T, hole.T)]
    assert area == [100, -4]                         # opposite turns: what is filled is the one less the other


def test_polygons_are_coloured_by_a_property(tmp_path):
    assert basemap.chosen_colours(["Polar", "Arid", "#123456", "swamp"]) == {
        "Arid": "#fb8072", "Polar": "#8dd3c7", "#123456": "#123456", "swamp": "#8dd3c7"}
    numbers = basemap.read_basemap(geojson(tmp_path / "a.json", [SQUARE], trees=35))
    assert isinstance(numbers, basemap.Areas) and numbers.values == (35.0,) and numbers.name == "trees"


@pytest.mark.parametrize(("content", "message"), [
    ("{", "is no GeoJSON"), ("{}", "has no features"), ('{"features": [3]}', "has no features"),
    ('{"features": [{"properties": {"a": "x"}, "geometry": {"type": "Point", "coordinates": [0, 0]}}]}', "type Point"),
    ('{"features": [{"properties": {"a": "x"}, "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}]}', "not rings"),
    ('{"features": [{"properties": {"a": "x"}, "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [5e5, 0], [5e5, 6e6], [0, 0]]]}}]}',
     "EPSG:4326"),
    ('{"features": [{"properties": {"b": "x"}, "geometry": null}]}', "no feature has the property 'a'.* there are: b")])
def test_what_is_no_basemap_is_refused(tmp_path, content, message):
    path = tmp_path / "map.geojson"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        basemap.read_basemap(path, "a")


def test_rasters_in_degrees_are_read_and_others_refused(tmp_path):
    import rasterio
    from rasterio.transform import from_bounds

    def written(name: str, crs: str) -> Path:
        values = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
        values[0, 0, 0] = -1
        with rasterio.open(tmp_path / name, "w", driver="GTiff", width=4, height=2, count=1, dtype="float32", crs=crs, nodata=-1,
                           transform=from_bounds(-180, -90, 180, 90, 4, 2)) as file:
            file.write(values)
        return tmp_path / name

    found = basemap.read_basemap(written("a.tif", "EPSG:4326"))
    assert isinstance(found, basemap.Raster) and found.bounds == (-180, 180, -90, 90)
    assert np.isnan(found.values[0, 0]) and found.values[1].tolist() == [4, 5, 6, 7]
    with pytest.raises(ValueError, match=r"its CRS is EPSG:3857; .*gdalwarp -t_srs EPSG:4326"):
        basemap.read_basemap(written("b.tif", "EPSG:3857"))
    with pytest.raises(ValueError, match="there is no such file"):
        basemap.read_basemap(tmp_path / "c.tif")


# --- architecture -------------------------------------------------------------------------------------------------------------------

NANO = REPOSITORY / "src" / "copgen" / "assets" / "nano"


def beta_plan() -> architecture.Plan:
    return architecture.paper_plan("COP-GEN-Beta", THUMBNAILS, shared="rgb")


@pytest.mark.parametrize(("plan", "backbone", "codecs"), [(architecture.paper_plan, 286_986_562, 837_121_850),
                                                          (beta_plan, 286_648_384, 83_653_863)])
def test_the_plans_have_the_published_numbers_of_parameters(plan, backbone, codecs):
    assert plan().backbone_parameters == backbone and sum(plan().codec_parameters.values()) == codecs


@pytest.mark.parametrize(("mark", "plan"), [("paper", architecture.paper_plan), ("nano", lambda: architecture.plan_of(NANO)),
                                            ("beta", beta_plan)])
def test_the_numbers_of_the_documentation_are_the_tables(mark, plan):
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, _, after = text.partition(f"<!-- numbers: {mark} -->\n\n")
    assert after.partition("\n\n<!-- end -->")[0] == architecture.numbers(plan()), "python docs/architecture.py writes them anew"


@pytest.mark.parametrize("plan", [architecture.paper_plan, beta_plan])
def test_the_diagram_says_every_row_with_its_tokens_and_every_codec(plan):
    table = plan().table
    words = [text.get_text() for text in architecture.architecture(plan()).axes[0].texts]
    assert [word for word in words if word.startswith("1 + ")] == [f"1 + {table.tokens(name)}" for name in table.names]
    assert any(f"{table.sequence_length} tokens" in word for word in words) and any("10 + 1 + 10" in word for word in words)
    assert sum(word.startswith("VAE") for word in words) == len(plan().codecs)


# --- files --------------------------------------------------------------------------------------------------------------------------

def test_the_same_rows_give_the_same_bytes():
    made = Made()
    rank_rows(made, simulated(0))
    first, second = (rendered(calibration.rank_histograms([made.results()], GROUP), 60) for _ in range(2))
    assert first == second and first["png"].startswith(b"\x89PNG") and first["pdf"].startswith(b"%PDF")
