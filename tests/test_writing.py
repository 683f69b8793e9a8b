"""What is written comes back: numbers, ground, units, classes; and a file is there whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from copgen.files import check_target, write_all, write_json, write_whole
from copgen.modalities import TABLE, THUMBNAILS, Modality, Table
from copgen.scaling import Decibel, EightBit, Legend, Linear, LogHeight
from copgen.scene import Footprint, Scene
from copgen.writing import file_names, raster_name, save_scene, scene_files

UTM = Footprint(CRS.from_epsg(32722), left=790396.040382004, top=7197879.252334284)


def some_layer(row: Modality, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    match row.scale:
        case Legend() as legend:
            return random.choice(np.array(legend.codes), shape)
        case Linear():
            return random.normal(1500, 1200, shape)
        case Decibel():
            return 10 ** (random.uniform(-30, 5, shape) / 10)
        case LogHeight():
            return random.uniform(0, 3000, shape)
        case EightBit():
            return random.integers(0, 256, shape, dtype=np.uint8)
        case _:
            return np.array(["2021-07-23"], "datetime64[D]") if row.name == "date" else np.array([-25.3159412, -48.1])


def whole_scene(table: Table = TABLE, footprint: Footprint | None = UTM) -> Scene:
    layers = {row.name: some_layer(row, table.layer_shape(row.name)) for row in table.rows}
    return Scene(layers, footprint, "282D_485L", table, {"seed": 3, "model": "nano"})


def test_every_row_has_its_file_and_nothing_else_is_there(tmp_path: Path) -> None:
    paths = save_scene(whole_scene(), tmp_path)
    assert {path.name for path in paths} == {
        "DEM.tif", "LULC.tif", "LULC.tif.aux.xml", "cloud_mask.tif", "cloud_mask.tif.aux.xml", "S1RTC.tif", "S2L1C_10m.tif",
        "S2L1C_20m.tif", "S2L1C_60m.tif", "S2L2A_10m.tif", "S2L2A_20m.tif", "S2L2A_60m.tif", "place_and_date.geojson",
    }
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths} == set(file_names(TABLE, TABLE.names))


@pytest.mark.parametrize("name", TABLE.images)
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    scene, row = whole_scene(), TABLE[name]
    save_scene(scene, tmp_path)
    with rasterio.open(tmp_path / raster_name(row)) as file:
        values = file.read()
        assert np.allclose(file.bounds, UTM.bounds, rtol=0, atol=1e-9)
        assert file.transform.almost_equals(UTM.transform(row.resolution), precision=1e-9)
        assert file.crs == UTM.crs
        assert file.descriptions == row.bands and file.units == (row.unit,) * len(row.bands)
        assert {"COPGEN_SEED": "3", "COPGEN_MODEL": "nano", "COPGEN_ROW": name, "datetime": "2021-07-23"}.items() <= file.tags().items()
        dtype, nodata = file.dtypes[0], file.nodata
    expected = {Linear: ("uint16", 0), LogHeight: ("float32", -32768), Decibel: ("float32", -32768), Legend: ("uint8", None)}
    assert dtype == expected[type(row.scale)][0]
    if row.legend:
        assert nodata == {"lulc": 0, "cloud_mask": 255}[name]      # 0 is clear sky in the cloud mask
    else:
        assert nodata == expected[type(row.scale)][1] and not (values == nodata).any()
    if isinstance(row.scale, Linear):
        assert values.min() == 1 and (scene[name] < 0).any()       # 0 would read as no data
        assert np.array_equal(values, np.maximum(np.rint(scene[name]), 1))
    else:
        assert np.array_equal(values, scene[name])


def test_a_class_is_a_colour_and_a_name(tmp_path: Path) -> None:
    save_scene(whole_scene(), tmp_path)
    for row in (TABLE["lulc"], TABLE["cloud_mask"]):
        assert row.legend
        with rasterio.open(tmp_path / raster_name(row)) as file:
            colours = file.colormap(1)
            assert file.colorinterp == (ColorInterp.palette,)
        names = [node.text or "" for node in ElementTree.parse(tmp_path / f"{raster_name(row)}.aux.xml").iter("Category")]
        for code, name, colour in zip(row.legend.codes, row.legend.names, row.legend.colours, strict=True):
            assert colours[code][:3] == colour and names[code] == name
        assert len(names) == max(row.legend.codes) + 1 and [n for n in names if n] == list(row.legend.names)


def test_natural_colour_is_marked(tmp_path: Path) -> None:
    save_scene(whole_scene(), tmp_path)
    with rasterio.open(tmp_path / "S2L2A_10m.tif") as file:
        assert dict(zip(file.colorinterp, file.descriptions, strict=True)) == {
            ColorInterp.red: "B04", ColorInterp.green: "B03", ColorInterp.blue: "B02", ColorInterp.undefined: "B08"}


def test_radar_in_decibel_says_so(tmp_path: Path) -> None:
    power = np.full((2, 192, 192), 0.1)
    power[1, 0, 0] = 0                                             # no echo: the floor of the row, not minus infinity
    save_scene(Scene({"s1rtc": power}, UTM), tmp_path, s1_unit="dB")
    with rasterio.open(tmp_path / "S1RTC.tif") as file:
        assert all("dB" in unit for unit in file.units)
        assert file.read()[0] == pytest.approx(-10, abs=1e-5) and file.read()[1, 0, 0] == pytest.approx(-55.787186, abs=1e-5)
    with pytest.raises(ValueError, match="radar unit 'db'"):
        save_scene(Scene({"s1rtc": power}, UTM), tmp_path / "other", s1_unit="db")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


def test_place_and_date_are_valid_geojson(tmp_path: Path) -> None:
    save_scene(whole_scene(), tmp_path)
    written = json.loads((tmp_path / "place_and_date.geojson").read_text())
    (feature,) = written["features"]
    assert written["type"] == "FeatureCollection" and feature["type"] == "Feature"
    assert feature["geometry"] == {"type": "Point", "coordinates": [-48.1, -25.315941]}    # longitude first
    assert feature["properties"] == {"name": "282D_485L", "date": "2021-07-23", "seed": 3, "model": "nano"}
    save_scene(whole_scene().only("date"), tmp_path / "date")
    (feature,) = json.loads((tmp_path / "date" / "place_and_date.geojson").read_text())["features"]
    assert feature["geometry"] is None and feature["properties"]["date"] == "2021-07-23"
    save_scene(whole_scene().without("place,date"), tmp_path / "neither")
    assert not (tmp_path / "neither" / "place_and_date.geojson").exists()


def test_unknown_ground_has_local_metres_and_no_coordinates(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", rasterio.errors.NotGeoreferencedWarning)
        save_scene(whole_scene(footprint=None), tmp_path)
        for name in TABLE.images:
            with rasterio.open(tmp_path / raster_name(TABLE[name])) as file:
                assert file.crs is None and tuple(file.bounds) == (0, 0, 1920, 1920)
                assert "unknown" in file.tags()["COPGEN_GROUND"]


@pytest.mark.parametrize("crs", ["EPSG:32736", "EPSG:3035", "+proj=laea +lat_0=12.3 +lon_0=45.6 +datum=WGS84 +units=m"])
def test_the_crs_is_exact(crs: str, tmp_path: Path) -> None:
    ground = Footprint(CRS.from_string(crs), 1 / 3, 9625098.22745184)
    save_scene(Scene({"dem": np.ones((1, 64, 64))}, ground), tmp_path)
    with rasterio.open(tmp_path / "DEM.tif") as file:
        assert file.crs == ground.crs and file.transform == ground.transform(30)


def test_another_table_has_other_files() -> None:
    beta = Table(rows=(TABLE["dem"], TABLE["s2l2a_10m"]), footprint=2400)
    files = scene_files(Scene({"s2l2a_10m": np.ones((4, 240, 240))}, None, table=beta))
    assert set(files) == {"S2L2A_10m.tif"}
    assert raster_name(Modality("ndvi", "NDVI", ("NDVI",), Linear(1), 10)) == "NDVI.tif"
    assert raster_name(Modality("heat", "Landsat", ("B10",), Linear(1), 30)) == "heat.tif"


def test_the_date_of_the_given_layers_dates_what_is_made_of_them(tmp_path: Path) -> None:
    given = whole_scene().only("dem,date")
    save_scene(whole_scene().only("s1rtc"), tmp_path, given=given)
    with rasterio.open(tmp_path / "S1RTC.tif") as file:
        assert file.tags()["datetime"] == "2021-07-23" and file.tags()["COPGEN_GIVEN"] == "date,dem"
    assert not (tmp_path / "place_and_date.geojson").exists()      # given, not generated


def test_the_same_scene_is_the_same_bytes(tmp_path: Path) -> None:
    one, two = save_scene(whole_scene(), tmp_path / "one"), save_scene(whole_scene(), tmp_path / "two")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    save_scene(whole_scene(), tmp_path / "one", overwrite=True)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_an_existing_file_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "DEM.tif").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(ValueError, match=r"DEM\.tif.*exists already.*--overwrite"):
        save_scene(whole_scene(), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"DEM.tif": "mine", "notes.txt": "mine too"}
    save_scene(whole_scene(), tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine too"      # only what is written is replaced
    with rasterio.open(tmp_path / "DEM.tif") as file:
        assert file.count == 1


@pytest.mark.parametrize("call", range(5))
def test_a_full_disk_leaves_nothing(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def full(_: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("copgen.files.os.fsync", full)
    with pytest.raises(ValueError, match=r"No space left on device.*free some space"):
        save_scene(whole_scene(), tmp_path / "out" / "sample-000")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "run.json", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("copgen.files.os.fsync", full)
    with pytest.raises(ValueError, match=r"run\.json: could not be written"):
        write_json(tmp_path / "run.json", {"seconds": 1}, overwrite=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_name_that_cannot_be_had_leaves_nothing_new_and_says_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def fails(part: Path, path: Path) -> Path:
        if path.name == "last":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(ValueError, match=r"last: could not be written \(.*\) and nothing of it is left; choose"):
        write_all({tmp_path / "out" / name: b"new" for name in ("first", "second", "last")})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "first").write_bytes(b"old")
    (tmp_path / "last").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"last: could not .* is left, but .*first was replaced before that and its old content is gone"):
        write_all({tmp_path / name: b"new" for name in ("first", "second", "last")}, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"first": b"new", "last": b"old"}


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("copgen.files.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_scene(whole_scene(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_target(tmp_path / "new" / "deep", ["DEM.tif"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="not a folder"):
        check_target(tmp_path / "file" / "out", ["DEM.tif"])
    (tmp_path / "DEM.tif").mkdir()
    with pytest.raises(ValueError, match="a folder has the name"):
        check_target(tmp_path, ["DEM.tif"], overwrite=True)
    monkeypatch.setattr("copgen.files.os.access", lambda *_: False)      # root may write anywhere
    with pytest.raises(ValueError, match="can't be written to"):
        check_target(tmp_path / "new", ["DEM.tif"])


def test_json_takes_what_notes_hold(tmp_path: Path) -> None:
    content = {"path": Path("a/b"), "seeds": np.arange(2), "side": np.float32(1920), "days": np.array(["2021-07-23"], "datetime64[D]")}
    write_json(tmp_path / "run.json", content)
    assert json.loads((tmp_path / "run.json").read_text()) == {"path": "a/b", "seeds": [0, 1], "side": 1920, "days": ["2021-07-23"]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "nan.json", {"seconds": float("nan")})       # not JSON
    assert not (tmp_path / "nan.json").exists()


# --- thumbnails ---------------------------------------------------------------------------------------------------------------------

WIDE = Footprint(UTM.crs, UTM.left, UTM.top, 2560)


def test_thumbnails_on_the_ground_are_georeferenced_rgb_rasters_and_pictures(tmp_path: Path) -> None:
    scene = whole_scene(THUMBNAILS, WIDE)
    names = {f"{product}_thumbnail.{kind}" for product in THUMBNAILS.products for kind in ("tif", "png")}
    assert {path.name for path in save_scene(scene, tmp_path)} == names == set(file_names(THUMBNAILS, THUMBNAILS.names))
    for row in THUMBNAILS.rows:
        with rasterio.open(tmp_path / raster_name(row)) as file:
            assert file.dtypes == ("uint8",) * 3 and file.nodata is None and file.crs == WIDE.crs
            assert file.transform == WIDE.transform(10) and np.allclose(file.bounds, WIDE.bounds, rtol=0, atol=1e-9)
            assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            assert file.tags()["COPGEN_UNIT"] == "8-bit" and file.tags()["COPGEN_ROW"] == row.name
            assert np.array_equal(file.read(), scene[row.name])
        with Image.open(tmp_path / raster_name(row)) as image:
            assert image.mode == "RGB" and image.tag_v2[262] == 2          # type: ignore[attr-defined] # photometric interpretation: RGB


def test_thumbnails_of_unknown_ground_are_pictures_alone(tmp_path: Path) -> None:
    scene = whole_scene(THUMBNAILS, None)
    paths = save_scene(scene, tmp_path)
    assert {path.name for path in paths} == set(file_names(THUMBNAILS, THUMBNAILS.names, grounded=False)) == {
        "DEM_thumbnail.png", "S1RTC_thumbnail.png", "S2L1C_thumbnail.png", "S2L2A_thumbnail.png"}
    for path, row in zip(paths, THUMBNAILS.rows, strict=True):
        with Image.open(path) as image:
            assert image.size == (256, 256) and image.mode == "RGB"
            assert np.array_equal(np.moveaxis(np.asarray(image), -1, 0), scene[row.name])


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_a_picture_says_what_made_it_and_is_the_same_bytes_each_time(kind: str) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 256)[None, None], (3, 256, 256)).astype(np.uint8)
    scene = Scene({"dem_thumbnail": smooth}, None, "hügel", THUMBNAILS, {"seed": 3, "inputs": [{"path": "Täler"}]})
    one, two = (scene_files(scene, pictures=kind)[f"DEM_thumbnail.{kind}"] for _ in range(2))      # type: ignore[arg-type]
    assert one == two
    with Image.open(io.BytesIO(one)) as image:
        said = image.text if kind == "png" else json.loads(image.getexif()[0x010E])                # type: ignore[attr-defined]
        error = np.abs(np.moveaxis(np.asarray(image), -1, 0).astype(int) - smooth)
        assert image.format == kind.upper()
    assert error.max() == 0 or (kind == "jpeg" and error.max() <= 4)
    assert {"COPGEN_SCENE": "hügel", "COPGEN_SEED": "3", "COPGEN_ROW": "dem_thumbnail", "COPGEN_UNIT": "8-bit"}.items() <= said.items()
    assert json.loads(said["COPGEN_INPUTS"]) == [{"path": "Täler"}]


def test_another_kind_of_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="pictures 'gif': there are png, webp, jpeg"):
        scene_files(whole_scene(THUMBNAILS, None), pictures="gif")                                 # type: ignore[arg-type]
