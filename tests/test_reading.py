"""Real files become scenes: the words of an input, the square, the bands, place and date, and real cells."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_rasters import L1C, L2A, LEFT, QUIET, TOP, numbers, power, raster, read, refused, warned
from rasterio.crs import CRS
from rasterio.transform import Affine

from copgen.modalities import TABLE
from copgen.reading import read_scene
from copgen.reading.scenes import scene_name
from copgen.scene import Footprint, Scene
from copgen.writing import scene_files

pytestmark = QUIET
SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[2] / "shared" / "data" / "terramesh"))
CELLS = sorted(path.stem for path in SAMPLES.glob("S2L2A/*.tif"))


# --- the square ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("width", "height"), [(192, 192), (193, 197), (198, 250), (224, 224), (400, 231), (1068, 1068)])
def test_the_square_is_in_the_middle_on_the_sixty_metre_grid(tmp_path: Path, width: int, height: int) -> None:
    path = raster(tmp_path / "dem.tif", np.zeros((height, width), np.float32))
    square = read(f"DEM={path}").footprint
    assert square is not None
    for offset, spare in ((square.left - LEFT, width * 10 - 1920), (TOP - square.top, height * 10 - 1920)):
        assert offset % 60 == 0 and 0 <= offset <= spare and abs(offset - spare / 2) <= 30


def test_a_cell_of_major_tom_has_its_square_4380_m_from_the_corner(tmp_path: Path) -> None:
    square = read(f"DEM={raster(tmp_path / 'dem.tif', np.zeros((356, 356), np.float32), resolution=30)}").footprint
    assert square is not None and (square.left, square.top) == (LEFT + 4380, TOP - 4380)


def test_a_window_is_taken_exactly_and_refused_outside(tmp_path: Path) -> None:
    path = raster(tmp_path / "dem.tif", np.zeros((224, 224), np.float32))
    square = read(f"DEM={path}", window=(LEFT + 13.7, TOP - 21.25)).footprint
    assert square is not None and (square.left, square.top) == (LEFT + 13.7, TOP - 21.25)
    assert "covers only a part" in refused(f"DEM={path}", window=(LEFT - 1, TOP))
    assert "does not overlap" in refused(f"DEM={path}", window=(LEFT + 90_000, TOP))
    assert "finite" in refused(f"DEM={path}", window=(float("nan"), TOP))


def test_rounding_in_a_files_numbers_is_no_reason_to_refuse_or_resample(tmp_path: Path) -> None:
    first = raster(tmp_path / "a.tif", numbers(12, 192))
    radar, height = power(2, 192), power(1, 64)
    s1 = raster(tmp_path / "b.tif", radar, left=LEFT - 1e-7, top=TOP + 1e-7)
    dem = raster(tmp_path / "c.tif", height, transform=Affine(30, 1e-9, LEFT + 1e-7, -1e-9, -30, TOP - 1e-7))
    scene = read(f"S2L2A={first}", f"S1RTC={s1}", f"DEM={dem}")
    assert np.array_equal(scene["s1rtc"], radar) and np.array_equal(scene["dem"], height)


def test_too_small_says_both_sizes(tmp_path: Path) -> None:
    message = refused(f"DEM={raster(tmp_path / 'small.tif', np.zeros((120, 200), np.float32))}")
    assert "small.tif" in message and "2000 x 1200 m" in message and "1920 x 1920 m" in message


def test_layers_elsewhere_are_refused_by_name(tmp_path: Path) -> None:
    here = raster(tmp_path / "here.tif", np.zeros((224, 224), np.float32))
    apart = raster(tmp_path / "apart.tif", power(), left=LEFT + 50_000)
    near = raster(tmp_path / "near.tif", power(), left=LEFT + 500)
    other = raster(tmp_path / "other.tif", power(), crs=32755)
    for path, word in ((apart, "does not overlap"), (near, "covers only a part"), (other, "does not overlap")):
        message = refused(f"DEM={here}", f"S1RTC={path}")
        assert path.name in message and word in message and "left 500" in message


# --- bands --------------------------------------------------------------------------------------------------------------------------

def test_names_in_any_order_and_spelling_are_found(tmp_path: Path) -> None:
    values = numbers(12)
    usual = read(f"S2L2A={raster(tmp_path / 'usual.tif', values)}")
    order = np.random.default_rng(3).permutation(12)
    spelled = [f"{name.lower()} (reflectance)" if k % 3 else name.replace("B0", "B") for k, name in enumerate(L2A)]
    named = raster(tmp_path / "named.tif", values[order], names=tuple(spelled[k] for k in order))
    listed = raster(tmp_path / "listed.tif", values[order])
    words = ":".join(L2A[k] for k in order)
    for scene in (read(f"S2L2A={named}"), read(f"S2L2A={listed},bands={words}")):
        assert all(np.array_equal(scene[row], usual[row]) for row in TABLE.select("S2L2A"))
    radar = power(3)
    path = raster(tmp_path / "radar.tif", radar, names=("angle", "Gamma0_VH", "Gamma0_VV"))
    assert np.array_equal(read(f"S1RTC={path}")["s1rtc"], radar[[2, 1], 18:210, 18:210])
    ratio = raster(tmp_path / "ratio.tif", radar, names=("VV", "VH", "VV/VH"))
    assert np.array_equal(read(f"S1RTC={ratio}")["s1rtc"], radar[[0, 1], 18:210, 18:210])
    counted = raster(tmp_path / "counted.tif", values, names=tuple(f"Band {k}" for k in range(1, 13)))   # that is no name: the usual order
    assert np.array_equal(read(f"S2L2A={counted}")["s2l2a_60m"], usual["s2l2a_60m"])
    unnamed = raster(tmp_path / "two.tif", radar[:2])
    assert np.array_equal(read(f"S1RTC={unnamed}")["s1rtc"], radar[[0, 1], 18:210, 18:210])


def test_a_folder_of_a_file_a_band_at_native_resolution(tmp_path: Path) -> None:
    folder = tmp_path / "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP"
    files = {}
    for row in (TABLE[name] for name in TABLE.select("S2L2A")):
        assert row.resolution is not None
        for k, band in enumerate(row.bands):
            files[band] = numbers(1, 2400 // row.resolution, k)
            style = (f"{band}.tif", f"T33UUP_20170613T101031_{band}_{row.resolution}m.tif", f"x_{band}.tiff")[k % 3]
            raster(folder / style, files[band], resolution=row.resolution)
    raster(folder / "cloud_mask.tif", np.zeros((240, 240), np.uint8))
    raster(folder / "T33UUP_20170613T101031_B03_60m.tif", numbers(1, 40), resolution=60)     # also there, coarser: passed over
    scene = read(f"S2L2A={folder}")
    assert np.array_equal(scene["s2l2a_60m"][1], files["B09"][0, 4:36, 4:36])
    assert np.array_equal(scene["s2l2a_10m"][1], files["B03"][0, 24:216, 24:216])
    assert str(scene["date"][0]) == "2017-06-13" and scene.name == folder.name
    assert len(scene.notes["inputs"][0]["sha256"]) == 12
    assert np.all(read(f"S2L2A={folder}", f"cloud_mask={folder}")["cloud_mask"] == 0)


def test_a_product_as_it_is_downloaded(tmp_path: Path) -> None:
    safe = tmp_path / "S2A_MSIL2A_20230613T101031_N0509_R022_T33UUP_20230613T140101.SAFE"
    images = safe / "GRANULE" / "L2A_T33UUP_A041" / "IMG_DATA"
    for resolution, bands in ((10, ("B02", "B03", "B04", "B08", "TCI")), (20, ("B02", "B05", "B06", "B07", "B8A", "B11", "B12")),
                              (60, ("B01", "B02", "B09"))):
        for k, band in enumerate(bands):
            raster(images / f"R{resolution}m" / f"T33UUP_20230613T101031_{band}_{resolution}m.jp2",
                   numbers(3 if band == "TCI" else 1, 2400 // resolution, k), resolution=resolution)
    scene, said = warned(f"S2L2A={safe}")
    assert np.array_equal(scene["s2l2a_10m"][2], numbers(1, 240, 0)[0, 24:216, 24:216])
    assert str(scene["date"][0]) == "2023-06-13" and len(said) == 1 and "04.00" in said[0]


@pytest.mark.parametrize(("path", "name"), [
    ("a/hill.tif", "hill"), ("S2A_MSIL2A_X.SAFE", "S2A_MSIL2A_X"), (".", "here"), ("..", "up"), ("../here/", "here"), ("/", "scene"),
    ("a/DEM.tif", "DEM"), ("LULC", "LULC"), ("a/...tif", "a"), ("a/..", "here"), ("a/.hidden", ".hidden"),
])
def test_a_scene_is_named_after_its_first_input(path: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the file or folder; never by a word that leads out of --out."""
    (tmp_path / "up" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "up" / "here")
    assert scene_name(Path(path)) == name


def test_a_folder_given_by_its_dots_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster(tmp_path / "place" / "DEM.tif", np.zeros((224, 224), np.float32))
    (tmp_path / "place" / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "place" / "inner")
    assert read("DEM=..").name == "place"


def test_what_copgen_writes_is_read_back(tmp_path: Path, scene: Scene) -> None:
    """All rows of a sample lie in one folder; each product finds its own files there."""
    square = Footprint(CRS.from_epsg(32630), LEFT, TOP)
    for unit in ("linear", "dB"):
        for name, data in scene_files(replace(scene, footprint=square), s1_unit=unit).items():
            (tmp_path / name).write_bytes(data)
        back = read(*(f"{product}={tmp_path}" + {"S1RTC": f",unit={unit}", "LULC": ",codes=esri"}.get(product, "")
                      for product in ("DEM", "LULC", "cloud_mask", "S1RTC", "S2L1C", "S2L2A")))
        assert back.footprint == square
        for row in TABLE.images:
            assert np.allclose(back[row], scene[row], atol=0.5 if row.startswith("s2") else 0, rtol=1e-5)


def test_a_row_alone_needs_only_its_bands(tmp_path: Path) -> None:
    path = raster(tmp_path / "four.tif", numbers(4), names=("B02", "B03", "B04", "B08"))
    for name in ("s2l1c_10m", "S2L1C_B02_B03_B04_B08"):
        assert set(read(f"{name}={path}").layers) == {"s2l1c_10m", "place"}
    message = refused(f"S2L1C={path}")
    assert "B10" in message and "s2l1c_10m=four.tif" in message


def test_refusals_about_bands(tmp_path: Path) -> None:
    twelve = raster(tmp_path / "twelve.tif", numbers(12))
    assert "s2l1c_10m" in refused(f"S2L1C={twelve}") and "bands=" in refused(f"S2L1C={twelve}")
    assert "bands=" in refused(f"s2l2a_10m={raster(tmp_path / 'four.tif', numbers(4))}")
    assert "bands=" in refused(f"S2L2A={raster(tmp_path / 'ten.tif', numbers(10))}")
    assert "names 2 bands and the file has 12" in refused(f"S2L2A={twelve},bands=B01:B02")
    assert "both" in refused(f"S2L2A={raster(tmp_path / 'twice.tif', numbers(13), names=(*L2A, 'B12'))}")
    assert "vh" in refused(f"S1RTC={raster(tmp_path / 'vv.tif', power(1), names=('VV',))}")
    (tmp_path / "empty").mkdir()
    assert "no GeoTIFF" in refused(f"DEM={tmp_path / 'empty'}")
    assert "given twice" in refused(f"S2L2A={twelve}", f"s2l2a_20m={twelve}")
    assert "no modality or product" in refused(f"S2L3A={twelve}")
    assert "--place" in refused(f"place={twelve}")
    assert "one product or row" in refused(f"S2L2A,DEM={twelve}")
    with pytest.raises(ValueError, match="no input"):
        read_scene([])


# --- place and date -----------------------------------------------------------------------------------------------------------------

def test_place_and_date_are_found_and_overridden(tmp_path: Path) -> None:
    s1 = raster(tmp_path / "s1.tif", np.full((2, 224, 224), 0.1, np.float32), tags={"datetime": "2021-07-20T08:40:10.000000000"})
    s2 = raster(tmp_path / "S2A_MSIL2A_20210725T101031_N0205_R022_T33UUP.tif", numbers(12))
    lulc = raster(tmp_path / "l.tif", np.full((224, 224), 5, np.uint8), tags={"datetime": "2021-01-01T00:00:00"})
    texts = {"s1": f"S1RTC={s1}", "s2": f"S2L2A={s2}", "lulc": f"LULC={lulc},codes=esri"}
    for given, day in ((("s1", "s2"), "2021-07-22"), (("s2", "lulc"), "2021-07-25"), (("s1",), "2021-07-20")):
        scene = read(*(texts[name] for name in given))
        assert str(scene["date"][0]) == day and scene.footprint is not None
        assert np.allclose(scene["place"], scene.footprint.centre)
    assert "date" not in read(texts["lulc"])                           # a year's mark
    assert str(read(texts["s1"], date="1999-12-31")["date"][0]) == "1999-12-31"
    scene = read(texts["s1"], date="none", place="none")
    assert not {"place", "date"} & set(scene.layers)
    assert np.array_equal(read(texts["s1"], place="-33.5,151.25")["place"], [-33.5, 151.25])
    assert np.array_equal(read(texts["s1"], place=np.array([1.0, 2.0]))["place"], [1, 2])
    assert "latitude" in refused(texts["s1"], place="91,0") and "YYYY-MM-DD" in refused(texts["s1"], date="2021-02-30")


@pytest.mark.parametrize(("tag", "day"), [
    ("2021-07-20", "2021-07-20"), ("2021-07-20T23:59:59Z", "2021-07-20"), ("2021-07-20T22:30:00-05:00", "2021-07-21"),
    ("2021:07:20 10:11:12", "2021-07-20"), ("2021-07-20T08:40:10.123456789", "2021-07-20"), ("20210720", "2021-07-20"),
    ("20210720T084010", "2021-07-20"), ("20210720T223000-0500", "2021-07-21"), ("2021-07-20T08", "2021-07-20"),
    ("2021-07-20 22:30-05:00", "2021-07-21")])
def test_tags_are_calendar_dates_in_utc(tmp_path: Path, tag: str, day: str) -> None:
    tags = {"datetime": tag, "TIFFTAG_DATETIME": "2024:01:05 00:00:00"}          # the second is the day of processing
    path = raster(tmp_path / "s1.tif", power(), tags=tags)
    assert str(read(f"S1RTC={path}")["date"][0]) == day


def test_an_impossible_date_is_refused_unless_it_is_overridden(tmp_path: Path) -> None:
    flat = np.full((2, 224, 224), 0.1, np.float32)
    tagged = raster(tmp_path / "s1.tif", flat, tags={"datetime": "2021-02-30T00:00:00"})
    named = raster(tmp_path / "S1A_IW_GRDH_1SDV_20171345T064724_x.tif", flat)
    for path in (tagged, named):
        assert path.name in (message := refused(f"S1RTC={path}")) and "--date" in message
        assert str(read(f"S1RTC={path}", date="2021-03-02")["date"][0]) == "2021-03-02"
        assert "date" not in read(f"S1RTC={path}", date="none")


def test_an_impossible_date_that_nobody_asks_for_stops_nothing(tmp_path: Path) -> None:
    flat, bad = np.full((224, 224), 5, np.uint8), {"datetime": "2021-02-30"}
    s1 = raster(tmp_path / "s1.tif", np.full((2, 224, 224), 0.1, np.float32), tags={"datetime": "2021-07-20"})
    dem, lulc = (raster(tmp_path / f"{name}.tif", flat, tags=bad) for name in ("heights", "cover"))
    scene = read(f"DEM={dem}", f"LULC={lulc},codes=esri", f"S1RTC={s1}")
    assert str(scene["date"][0]) == "2021-07-20" and scene.notes["dates"] == {"S1RTC": "2021-07-20"}
    assert "date" not in read(f"DEM={dem}")                            # a height model's never counts
    assert "cover.tif" in refused(f"DEM={dem}", f"LULC={lulc},codes=esri")
    s2 = raster(tmp_path / "s2.tif", numbers(12), tags=bad)
    assert "s2.tif" in refused(f"S1RTC={s1}", f"S2L2A={s2}")           # halfway to it is nowhere


def test_notes_are_json_and_hold_the_hashes(tmp_path: Path) -> None:
    path = raster(tmp_path / "dem.tif", np.zeros((224, 224), np.float32))
    notes = read(f"DEM={path},unit=m").notes
    assert json.loads(json.dumps(notes)) == notes
    assert notes["inputs"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert notes["inputs"][0]["options"] == {"unit": "m"} and notes["square"]["left"] == LEFT + 180


# --- real cells ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not CELLS, reason=f"no TerraMesh cells in {SAMPLES} (set COPGEN_SAMPLES)")
@pytest.mark.parametrize("cell", CELLS)
def test_terramesh_cells_keep_their_native_pixels(cell: str) -> None:
    files = {product: SAMPLES / product / f"{cell}.tif" for product in ("S2L2A", "S2L1C", "S1RTC", "DEM", "LULC")}
    options = {"S1RTC": ",unit=dB", "LULC": ",codes=index"}
    scene = read(*(f"{product}={path}{options.get(product, '')}" for product, path in files.items()))
    assert set(scene.layers) == set(TABLE.names) - {"cloud_mask"}
    stacks = {}
    for product, path in files.items():
        with rasterio.open(path) as dataset:
            stacks[product], bounds = dataset.read()[:, 18:210, 18:210].astype(np.float64), dataset.bounds
    square = scene.footprint
    assert square is not None
    assert np.allclose((square.left, square.top), (bounds.left + 180, bounds.top - 180), rtol=0, atol=1e-6)
    for product, order in (("S2L2A", L2A), ("S2L1C", L1C)):
        for row in (TABLE[name] for name in TABLE.select(product)):
            assert row.resolution is not None
            step = row.resolution // 10
            assert np.array_equal(scene[row.name], stacks[product][[order.index(band) for band in row.bands], ::step, ::step])
    assert np.array_equal(scene["s1rtc"], (10 ** (stacks["S1RTC"] / 10)).astype(np.float32))
    assert np.allclose(scene["dem"][0], stacks["DEM"].reshape(64, 3, 64, 3).mean((1, 3)))
    assert np.array_equal(scene["lulc"][0], np.array([0, 1, 2, 4, 5, 7, 8, 9, 10, 11])[stacks["LULC"][0].astype(int)])
