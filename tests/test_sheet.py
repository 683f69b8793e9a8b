"""A colour on the sheet is a value: fixed stretches, legends and spreads with known answers; and the sheet is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont
from rasterio.crs import CRS

from copgen.drawing import LAND, PAPER, TILE, WATER, Canvas, fitting, printable, world
from copgen.modalities import TABLE, THUMBNAILS, Modality, Table
from copgen.pictures import COMPOSITES, HEAT, TINTS, Relief, composite, drawn_as, picture, ramp, render, round_up, spread, tone
from copgen.scaling import Linear
from copgen.scene import Footprint, Scene
from copgen.sheet import contact_sheet, degrees, drawn, long_date, planned

UTM = Footprint(CRS.from_epsg(32630), 487000.0, 6202000.0)


def smooth(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A few waves in 0..1, [bands, H, W]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[1], 0 : shape[2]] / shape[1]
    waves = [sum(np.sin(a * x + b * y + c) for a, b, c in random.uniform(-9, 9, (5, 3))) for _ in range(shape[0])]
    return np.clip(0.5 + np.stack(waves) / 8, 0, 1)


def scene(seed: int = 0, table: Table = TABLE, footprint: Footprint | None = UTM) -> Scene:
    layers: dict[str, np.ndarray] = {}
    for row in table.rows:
        if row.name == "place":
            layers["place"] = np.array([55.95, -3.19 + seed])
        elif row.name == "date":
            layers["date"] = np.array(["2023-07-21"], "datetime64[D]") + seed
        else:
            share = smooth(table.layer_shape(row.name), seed)
            if row.legend:
                layers[row.name] = np.array(row.legend.codes)[(share * 2.99).astype(int)]
            else:
                layers[row.name] = {"dem": share * 300, "s1rtc": 10 ** (share * 2.5 - 2.5)}.get(row.name, share * 4000)
    return Scene(layers, footprint, "edinburgh", table, {"seed": seed, "model": "nano"})


def places_of(tile: np.ndarray, sheet: Image.Image, scale: int, units: int = TILE) -> list[tuple[int, int]]:
    """Where on a sheet a picture is (left, top in units), pixel for pixel."""
    side = units * scale
    pixels, large = (np.asarray(image).astype(int) @ (1, 256, 65536) for image in (sheet, Image.fromarray(tile).resize((side, side), 0)))
    ys, xs = (axis.ravel() for axis in np.mgrid[: pixels.shape[0] - side, : pixels.shape[1] - side])
    for v, u in np.random.default_rng(0).integers(side // 8, side * 3 // 4, (60, 2)):     # neither its frame nor its scale bar
        fits = pixels[ys + v, xs + u] == large[v, u]
        ys, xs = ys[fits], xs[fits]
    inner = (slice(9, -60), slice(9, -9))
    exact = [np.array_equal(pixels[y : y + side, x : x + side][inner], large[inner]) for y, x in zip(ys, xs, strict=True)]
    return [(int(x) // scale, int(y) // scale) for y, x, here in zip(ys, xs, exact, strict=True) if here]


@pytest.mark.parametrize("name", TABLE.images)
def test_a_picture_is_as_large_as_its_layer_and_leaves_it_alone(name: str) -> None:
    before = scene()
    shot = picture(before, name)
    assert shot.shape == (TABLE.side(name), TABLE.side(name), 3) and shot.dtype == np.uint8
    assert shot.std() > 5 and np.array_equal(before[name], scene()[name])


def test_a_reflectance_is_the_same_colour_everywhere() -> None:
    row = TABLE["s2l2a_10m"]
    layer = np.zeros((4, 192, 192), np.float32)
    layer[0, 0, 0], layer[1, 0, 1], layer[2, 0, 2], layer[3] = 1500, 1500, 1500, 9000    # B04, B03, B02; B08 is not seen
    shot = render(row, layer)
    level = round(float(tone(np.array(0.15))) * 255)
    assert shot[0, :4].tolist() == [[level, 0, 0], [0, level, 0], [0, 0, level], [0, 0, 0]]
    assert (render(row, np.full_like(layer, 10_000)) == 255).all() and (render(row, np.full_like(layer, -50)) == 0).all()
    dark, bright = tone(np.array([0.0, 0.03])), tone(np.array([0.5, 0.8]))
    assert np.diff(dark) > 0.15 and np.diff(bright) > 0.05                               # forests and clouds both show their shape


def test_every_reflectance_row_has_a_composite_of_its_own_bands() -> None:
    for row in (row for row in TABLE.rows if isinstance(row.scale, Linear)):
        name, channels = composite(row)
        assert name == COMPOSITES[(10, 20, 60).index(row.resolution or 0)][0]
        assert {band for mixed in channels for band in mixed} <= set(row.bands)
        if row.rgb:
            assert channels == tuple((band,) for band in row.rgb)
    odd = Modality("ndvi", "NDVI", ("NDVI",), Linear(1), 10)
    assert render(odd, np.full((1, 4, 4), 0.5)).std() == 0                               # one band is grey


def test_radar_ranges_are_fixed_decibels() -> None:
    def colour(vv: float, vh: float) -> list[int]:
        return render(TABLE["s1rtc"], 10 ** (np.array([vv, vh])[:, None, None] / 10))[0, 0].tolist()

    assert colour(-25, -32) == [0, 0, round(7 / 14 * 255)]
    assert colour(0, -5) == [255, 255, round(5 / 14 * 255)]
    assert colour(-12.5, -12.5) == [128, round((32 - 12.5) / 27 * 255), 0]
    assert render(TABLE["s1rtc"], np.zeros((2, 1, 1))).tolist() == [[[0, 0, 0]]]         # no echo is no error


def test_a_class_has_the_colour_of_the_legend() -> None:
    legend = TABLE["lulc"].legend
    assert legend
    shot = render(TABLE["lulc"], np.array(legend.codes)[None, None])
    assert [tuple(colour) for colour in shot[0].tolist()] == list(legend.colours)


def test_relief_is_lit_from_the_north_west() -> None:
    relief = Relief(0, 3000, 1)
    south, east = np.mgrid[0:64, 0:64] * 30.0
    heights = (0 * east, east + south, 0 * east + 1890, 3780 - east - south)
    flat, rising, level, falling = (render(TABLE["dem"], height[None], relief)[32, 32].mean() for height in heights)
    assert rising > level > falling                                                      # rising to the south-east faces the light
    assert flat == pytest.approx(np.mean(TINTS[0]), abs=1)
    assert Relief.of([np.full((1, 64, 64), 7.0)], 30) == Relief(7, 27, 6)                # level ground: 20 m, steepened at most sixfold
    assert Relief.of([(east + south)[None]], 30).exaggeration == 1


def test_the_spread_has_known_answers() -> None:
    one, two = np.zeros((6, 96, 96)), np.full((6, 96, 96), 2.0)
    values, top, unit = spread(TABLE["s2l2a_20m"], [one, two])
    assert values == pytest.approx(2**0.5) and (top, unit) == (1.5, "DN")
    values, _, unit = spread(TABLE["s1rtc"], [np.full((2, 9, 9), 0.1), np.full((2, 9, 9), 1.0)])
    assert values == pytest.approx(10 / 2**0.5) and unit == "dB"
    clear, cloudy = np.zeros((1, 9, 9), np.uint8), np.ones((1, 9, 9), np.uint8)
    values, top, unit = spread(TABLE["cloud_mask"], [clear, clear, cloudy, clear])
    assert values == pytest.approx(25) and (top, unit) == (30, "percent differ")
    assert spread(TABLE["dem"], [np.ones((1, 9, 9))] * 3)[0].max() == 0                  # samples that agree
    assert [round_up(v) for v in (0, 0.012, 1, 1.01, 6.9, 7.01, 640)] == [1, pytest.approx(0.015), 1, 1.5, 7, 10, 700]
    assert np.array_equal(ramp(HEAT, np.array([0.0, 1.0])), np.array([HEAT[0], HEAT[-1]]))


@pytest.mark.parametrize("scale", [1, 2])
def test_given_layers_come_first_then_the_samples_side_by_side(scale: int) -> None:
    given, samples = scene(9).only("cloud_mask"), [scene(k).only("lulc,s2l2a_10m") for k in range(3)]
    sheet = contact_sheet(given, samples, scale=scale)
    ((_, top),) = places_of(picture(given, "cloud_mask"), sheet, scale)
    lines = {name: [places_of(picture(sample, name), sheet, scale) for sample in samples] for name in ("s2l2a_10m", "lulc")}
    assert all(len(spots) == 1 for line in lines.values() for spots in line)
    (a,), (b,), (c,) = lines["s2l2a_10m"]
    assert a[1] == b[1] == c[1] > top + TILE and b[0] - a[0] == c[0] - b[0] > TILE
    assert [spots[0][0] for spots in lines["lulc"]] == [a[0], b[0], c[0]] and lines["lulc"][0][0][1] > a[1] + TILE


def test_many_samples_are_eight_columns_and_all_of_them_make_the_spread() -> None:
    samples = [scene(k).only("dem") for k in range(11)]
    plan = planned(None, samples, None)
    assert [title for title, _ in plan.columns] == [f"seed {k}" for k in range(8)] and len(plan.samples) == 11
    assert contact_sheet(None, samples, scale=1).width == contact_sheet(None, samples[:8], scale=1).width


def test_legends_hold_the_classes_that_occur_and_heights_share_their_tints() -> None:
    water, trees = (np.full((1, 192, 192), code) for code in (1, 2))
    low, high = np.full((1, 64, 64), 10.0), np.full((1, 64, 64), 900.0)
    plan = planned(Scene({"lulc": water}, UTM), [Scene({"dem": low}), Scene({"dem": high})], Scene({"lulc": trees}))
    assert plan.classes["lulc"] == (1, 2) and plan.classes["cloud_mask"] == ()
    assert plan.relief and (plan.relief.low, plan.relief.high) == (10, 900)


@pytest.mark.parametrize("want", ["place", "date", "place,date", "s2l1c_60m", "cloud_mask,place", ",".join(TABLE.names)])
@pytest.mark.parametrize("count", [1, 2])
def test_any_layers_make_a_sheet(want: str, count: int) -> None:
    samples = [scene(k, footprint=None).only(want) for k in range(count)]
    for given, real in ((None, None), (scene().without(want), None), (scene().without(want), scene())):
        if given is None or given.layers:
            sheet = np.asarray(contact_sheet(given, samples, real=real, scale=1))
            assert sheet.shape[0] > 150 and (sheet[:20] == PAPER).all() and (sheet[-20:] == PAPER).all()    # the margins are free
            assert (sheet[:, :24] == PAPER).all() and (sheet[:, -6:] == PAPER).all()


def test_another_footprint_has_its_own_scale() -> None:
    beta = Table(rows=(TABLE["dem"], TABLE["s2l2a_10m"]), footprint=2400)
    wide = Footprint(UTM.crs, UTM.left, UTM.top, 2400)
    sheet = contact_sheet(scene(0, beta, wide).only("dem"), [scene(1, beta, wide).only("s2l2a_10m")], scale=1)
    assert sheet.width > 2 * TILE


def thumbnails(seed: int = 0) -> Scene:
    layers = {row: (smooth((3, 256, 256), seed + k) * 255).astype(np.uint8) for k, row in enumerate(THUMBNAILS.names)}
    return Scene(layers, None, "edinburgh", THUMBNAILS, {"seed": seed})


def test_a_thumbnail_is_its_own_picture_and_its_spread_is_in_levels() -> None:
    for row in THUMBNAILS.rows:
        layer = thumbnails()[row.name]
        assert np.array_equal(render(row, layer), np.moveaxis(layer, 0, -1)) and render(row, layer).dtype == np.uint8
        values, _, unit = spread(row, [np.full((3, 9, 9), level, np.uint8) for level in (250, 254)])
        assert values == pytest.approx(4 / 2**0.5) and unit == "levels of 255"


def test_the_colours_of_thumbnails_have_names() -> None:
    said = {row.product: drawn_as(row) for row in THUMBNAILS.rows}
    assert said["S2L2A"] == said["S2L1C"] == ("true colour", ("B04", "B03", "B02")) and said["DEM"][1] == ()
    assert said["S1RTC"][1] == ("VV", "VV and VH", "VH") and "315" in said["DEM"][0]


@pytest.mark.parametrize("scale", [1, 2])
def test_every_pixel_of_a_larger_square_is_a_whole_number_of_the_sheets(scale: int) -> None:
    given, samples = thumbnails(9).only("S1RTC"), [thumbnails(10 * k).only("S2L2A") for k in range(2)]
    sheet = contact_sheet(given, samples, scale=scale)
    assert planned(given, samples, None).tile == 256 and planned(None, [scene()], None).tile == TILE == 192
    pictures = [picture(given, "s1rtc_thumbnail"), *(picture(sample, "s2l2a_thumbnail") for sample in samples)]
    ((x, top),), ((a, below),), ((b, same),) = (places_of(one, sheet, scale, 256) for one in pictures)
    assert x == a == b - 264 and below == same > top + 256


def test_long_and_foreign_names_fit() -> None:
    title = "S2A_MSIL2A_20210723T132241_N0301_R038_T22JGT_20210723T170114_São_Paulo_中"
    assert printable(title).endswith("_Sao_Paulo_?") and printable("55° N · 3–4 × 2") == "55° N · 3-4 x 2"
    assert ImageFont.load_default(fitting(title, 26, 300)).getlength(printable(title)) <= 301
    base = scene().only("dem")
    assert contact_sheet(Scene(base.layers, UTM, title), [scene(1).only("lulc")], scale=1).width < 1100


def test_words_for_place_and_date() -> None:
    assert degrees(55.95, -3.19) == "55.95° N 3.19° W" and degrees(-25.316, 48.1) == "25.32° S 48.10° E"
    assert long_date(np.datetime64("2023-07-21")) == "21 July 2023" and long_date(np.datetime64("2024-02-29")) == "29 February 2024"
    assert drawn(TABLE, TABLE.names)[0] == "s2l2a_10m" and len(drawn(TABLE, TABLE.names)) == 11


def test_the_map_knows_land_from_sea() -> None:
    canvas = Canvas(Image.new("RGB", (2 * TILE, TILE), PAPER), 2)
    world(canvas, [], 0, 0)

    land = ((48, 5), (40, -100), (-10, -55), (20, 0), (60, 100), (-25, 135), (30, 105), (72, -40), (-85, 0))
    sea = ((30, -40), (-30, -10), (10, -150), (-20, 80), (-40, 120), (36, 18), (15, 65), (2, 160))
    for places, colour in ((land, LAND), (sea, WATER)):
        for lat, lon in places:
            assert canvas.image.getpixel((round((lon + 180) * 2 * TILE / 360), round((90 - lat) * 2 * TILE / 360))) == colour, (lat, lon)


def test_the_sheet_is_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    given, samples = scene().only("dem,date"), [scene(k).only("s1rtc") for k in range(2)]
    for name in ("one", "two"):
        contact_sheet(given, samples, tmp_path / name / "contact_sheet.png", scale=1)
    one, two = (tmp_path / name / "contact_sheet.png" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes() and Image.open(one).size == contact_sheet(given, samples, scale=1).size
    with pytest.raises(ValueError, match="exists already"):
        contact_sheet(given, samples, one)
    contact_sheet(given, samples, one, overwrite=True, scale=1)
    assert [path.name for path in one.parent.iterdir()] == ["contact_sheet.png"]
    with pytest.raises(ValueError, match="at least one sample"):
        contact_sheet(given, [])
