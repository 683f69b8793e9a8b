"""Real files become scenes: the square, the grids, the bands, the units, what is missing, and every refusal."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from copgen.modalities import TABLE
from copgen.reading import CopgenWarning, Input, parse_input, read_scene
from copgen.scene import Footprint, Scene
from copgen.writing import scene_files

LEFT, TOP = 500_020.0, 6_000_040.0
SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[1] / ".." / "shared" / "data" / "terramesh"))
CELLS = sorted(path.stem for path in SAMPLES.glob("S2L2A/*.tif"))
L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
L1C = (*L2A[:10], "B10", *L2A[10:])

pytestmark = [pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning"),       # `warned` collects them where they matter
              pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]          # rasterio's own


def raster(path: Path, values: NDArray[Any], *, resolution: float = 10, left: float = LEFT, top: float = TOP, crs: Any = 32630,
           names: tuple[str, ...] = (), tags: dict[str, str] | None = None, transform: Affine | None = None, **profile: Any) -> Path:
    values = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=len(values), dtype=values.dtype,
                       crs=crs if crs is None or isinstance(crs, str) else f"EPSG:{crs}",
                       transform=transform or from_origin(left, top, resolution, resolution), **profile) as dataset:
        dataset.write(values)
        if names:
            dataset.descriptions = names
        dataset.update_tags(**(tags or {}))
    return path


def numbers(bands: int, side: int = 224, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(100, 5000, (bands, side, side)).astype(np.uint16)


def power(bands: int = 2, side: int = 224, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).gamma(2, 0.05, (bands, side, side)).astype(np.float32)


def read(*texts: str, **settings: Any) -> Scene:
    return read_scene([parse_input(text) for text in texts], **settings)


def refused(*texts: str, **settings: Any) -> str:
    """The message of a refusal: one sentence."""
    with pytest.raises(ValueError) as error:
        read(*texts, **settings)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700
    return message


def warned(*texts: str, **settings: Any) -> tuple[Scene, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = read(*texts, **settings)
    messages = [str(one.message) for one in caught if isinstance(one.message, CopgenWarning)]
    assert scene.notes["warnings"] == messages
    return scene, messages


# --- the words of an input ----------------------------------------------------------------------------------------------------------

def test_parse_input_takes_options_from_the_right(tmp_path: Path) -> None:
    assert parse_input("S2L2A=a/b.tif,bands=B02:B03,unit=dn") == Input("S2L2A", Path("a/b.tif"), {"bands": "B02:B03", "unit": "dn"})
    assert parse_input("DEM=my,odd=folder/dem=1.tif") == Input("DEM", Path("my,odd=folder/dem=1.tif"))
    odd = raster(tmp_path / "x,offset=3", numbers(1))
    assert parse_input(f"DEM={odd}").path == odd                      # a file of that name is there
    for text, word in (("S2L2A", "PRODUCT=PATH"), ("=a.tif", "PRODUCT=PATH"), ("DEM=a.tif,colour=1", "bands, unit, codes, offset"),
                       ("DEM=a.tif,unit=", "empty"), ("DEM=a.tif,unit=m,unit=m", "twice")):
        with pytest.raises(ValueError, match=word):
            parse_input(text)


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


# --- the grids ----------------------------------------------------------------------------------------------------------------------

def test_pixels_on_the_grid_are_copied_and_stacked_ones_come_back_native(tmp_path: Path) -> None:
    native = {10: numbers(4, 240), 20: numbers(6, 120, 1), 60: numbers(2, 40, 2)}
    stack = {band: native[row.resolution][k].repeat(row.resolution // 10, 0).repeat(row.resolution // 10, 1)
             for row in TABLE.rows if row.product == "S2L2A" and row.resolution for k, band in enumerate(row.bands)}
    scene = read(f"S2L2A={raster(tmp_path / 'stack.tif', np.stack([stack[band] for band in L2A]))}")
    assert scene.footprint is not None
    for row in ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m"):
        resolution = TABLE[row].resolution
        assert resolution is not None
        i, j = round((TOP - scene.footprint.top) / resolution), round((scene.footprint.left - LEFT) / resolution)
        side = 1920 // resolution
        assert np.array_equal(scene[row], native[resolution][:, i:i + side, j:j + side])


def test_south_up_and_mirrored_rasters_are_the_same_ground(tmp_path: Path) -> None:
    values = power()
    upright = read(f"S1RTC={raster(tmp_path / 'a.tif', values)}")
    side = 2240.0
    for flip, transform in ((np.s_[:, ::-1], Affine(10, 0, LEFT, 0, 10, TOP - side)),
                            (np.s_[:, :, ::-1], Affine(-10, 0, LEFT + side, 0, -10, TOP))):
        flipped = read(f"S1RTC={raster(tmp_path / 'b.tif', values[flip], transform=transform)}")
        assert flipped.footprint == upright.footprint and np.array_equal(flipped["s1rtc"], upright["s1rtc"])


def test_a_shift_below_a_pixel_is_bilinear_and_keeps_the_edges(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(192), 2 * np.arange(192)).astype(np.float32) + 100
    first = raster(tmp_path / "first.tif", numbers(12, 192))
    scene = read(f"S2L2A={first}", f"S1RTC={raster(tmp_path / 's1.tif', np.stack([ramp, ramp]) / 1000, left=LEFT - 0.005)}")
    assert np.isfinite(scene["s1rtc"]).all()
    inner = scene["s1rtc"][0, 1:-1, 1:-1]
    assert np.allclose(inner, (ramp + 0.0005 * 2)[1:-1, 1:-1] / 1000, atol=1e-6)
    assert scene["s1rtc"].min() >= ramp.min() / 1000 - 1e-6 and scene["s1rtc"].max() <= ramp.max() / 1000 + 1e-6


def test_radar_is_averaged_in_linear_power(tmp_path: Path) -> None:
    decibel = np.zeros((2, 448, 448), np.float32)
    decibel[:, ::2] = -20                                              # halves: the mean power is (1 + 0.01) / 2
    path = raster(tmp_path / "s1.tif", decibel, resolution=5)
    assert np.allclose(read(f"S1RTC={path},unit=dB")["s1rtc"], 0.505, atol=1e-6)


def test_classes_go_by_majority(tmp_path: Path) -> None:
    codes = np.full((448, 448), 2, np.uint8)
    codes[::2, ::2] = 11                                               # one of four: outvoted
    codes[:, :224] = 5
    lulc = read(f"LULC={raster(tmp_path / 'l.tif', codes, resolution=5)},codes=esri")["lulc"]
    assert set(np.unique(lulc)) == {2, 5}
    coarse = np.random.default_rng(0).choice([1, 2, 5, 7], (80, 80)).astype(np.uint8)
    fine = read(f"LULC={raster(tmp_path / 'c.tif', coarse, resolution=30)},codes=esri")["lulc"][0]
    assert np.array_equal(fine, coarse[8:72, 8:72].repeat(3, 0).repeat(3, 1))


def test_a_geographic_raster_becomes_utm_and_shows_the_same_ground(tmp_path: Path) -> None:
    longitudes, latitudes = 10.0 + (np.arange(400) + 0.5) * 1e-4, 47.02 - (np.arange(400) + 0.5) * 1e-4
    field = (1000 + 4000 * (longitudes[None] - 10) / 0.04 + 2000 * (47.02 - latitudes[:, None]) / 0.04).astype(np.float32)
    path = raster(tmp_path / "geographic.tif", field, crs=4326, left=10.0, top=47.02, resolution=1e-4)
    scene = read(f"DEM={path}")
    square = scene.footprint
    assert square is not None and square.crs.to_epsg() == 32632
    assert np.allclose(scene["place"], (47.0, 10.02), atol=0.001)
    from rasterio.warp import transform
    xs, ys = np.meshgrid(square.left + 30 * (np.arange(64) + 0.5), square.top - 30 * (np.arange(64) + 0.5))
    lon, lat = (np.reshape(v, xs.shape) for v in transform(square.crs, "EPSG:4326", xs.ravel(), ys.ravel()))
    truth = 1000 + 4000 * (lon - 10) / 0.04 + 2000 * (47.02 - lat) / 0.04
    assert np.abs(scene["dem"][0] - truth).max() < 1                   # of 6000: a tenth of a pixel


def test_a_raster_across_the_date_line(tmp_path: Path) -> None:
    field = np.tile(np.arange(400, dtype=np.float32) / 100, (400, 1))
    for left in (179.98, -180.02):
        path = raster(tmp_path / "dateline.tif", field, crs=4326, left=left, top=-16.98, resolution=1e-4)
        scene = read(f"DEM={path}")
        assert scene.footprint is not None and scene.footprint.crs.to_epsg() in (32701, 32760)
        assert abs(abs(scene["place"][1]) - 180) < 0.001 and np.all(np.diff(scene["dem"][0], axis=1) > 0)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:2263"])
def test_a_crs_whose_metre_is_not_the_grounds_becomes_utm(tmp_path: Path, crs: str) -> None:
    left, top, size = (1_000_000.0, 8_000_000.0, 30.0) if crs == "EPSG:3857" else (985_000.0, 200_000.0, 33.0)
    path = raster(tmp_path / "odd.tif", np.full((400, 400), 7.0, np.float32), crs=crs, left=left, top=top, resolution=size)
    scene = read(f"DEM={path}")
    assert scene.footprint is not None and scene.footprint.crs.to_epsg() in (32632, 32618) and np.all(scene["dem"] == 7)


def test_a_rotated_raster_is_warped_within_its_crs(tmp_path: Path) -> None:
    turn = Affine.translation(LEFT, TOP) @ Affine.rotation(20) @ Affine.scale(10, -10)
    path = raster(tmp_path / "turned.tif", np.full((2, 400, 400), 0.25, np.float32), transform=turn)
    scene = read(f"S1RTC={path}")
    assert scene.footprint is not None and scene.footprint.crs.to_epsg() == 32630 and np.all(scene["s1rtc"] == 0.25)


def test_another_utm_zone_lies_on_the_same_ground(tmp_path: Path) -> None:
    """A height field that is a function of the place alone, stored in two zones, is the same layer within interpolation."""
    from rasterio.warp import transform

    def stored(crs: int, left: float, top: float) -> Path:
        xs, ys = np.meshgrid(left + 10 * (np.arange(420) + 0.5), top - 10 * (np.arange(420) + 0.5))
        lon, lat = (np.reshape(v, xs.shape) for v in transform(f"EPSG:{crs}", "EPSG:4326", xs.ravel(), ys.ravel()))
        waves = 1 + 0.5 * np.sin(2 * np.pi * lon / 0.008) * np.cos(2 * np.pi * lat / 0.006)
        return raster(tmp_path / f"{crs}.tif", np.stack([waves, waves]).astype(np.float32), crs=crs, left=left, top=top)

    near = stored(32632, 270_000.0, 5_200_000.0)
    x, y = transform("EPSG:32632", "EPSG:32631", [272_100.0], [5_197_900.0])
    far = stored(32631, x[0] - 2100, y[0] + 2100)
    one, other = read(f"S1RTC={near}"), read(f"DEM={near},bands=DEM:x", f"S1RTC={far}")
    assert one.footprint == other.footprint
    assert np.abs(one["s1rtc"] - other["s1rtc"]).max() < 2e-3          # of 1; a shift by a pixel would be 4e-2


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


def test_a_scene_is_never_named_after_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- units --------------------------------------------------------------------------------------------------------------------------

def test_reflectances_are_refused_or_multiplied(tmp_path: Path) -> None:
    dn = numbers(12)
    path = raster(tmp_path / "r.tif", (dn / 10_000).astype(np.float64))
    assert "unit=reflectance" in refused(f"S2L2A={path}")
    assert np.allclose(read(f"S2L2A={path},unit=reflectance")["s2l2a_10m"], read(f"S2L2A={raster(tmp_path / 'd.tif', dn)}")["s2l2a_10m"])
    assert "unit=reflectance is stated" in refused(f"S2L2A={tmp_path / 'd.tif'},unit=reflectance")
    dark = np.full((12, 224, 224), 3, np.uint16)                       # very dark water, in digital numbers
    assert read(f"S2L2A={raster(tmp_path / 'dark.tif', dark)}")["s2l2a_10m"].max() == 3
    clamped = raster(tmp_path / "water.tif", np.ones((6, 224, 224), np.uint16), names=("B05", "B06", "B07", "B8A", "B11", "B12"))
    assert read(f"s2l2a_20m={clamped}")["s2l2a_20m"].max() == 1


def test_digital_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    bright, spot = numbers(12) * 6, numbers(12)
    bright[3] = 20_100
    spot[3, 100, 100] = 32_768
    assert "above 20000" in refused(f"S2L2A={raster(tmp_path / 'bright.tif', bright)}")
    assert "B04 holds 32768" in refused(f"S2L2A={raster(tmp_path / 'spot.tif', spot)}")


def test_radar_in_decibels_must_be_stated(tmp_path: Path) -> None:
    decibel = np.random.default_rng(0).normal(-12, 4, (2, 224, 224))
    path = raster(tmp_path / "db.tif", decibel)
    assert "add unit=dB" in refused(f"S1RTC={path}") and "add unit=dB" in refused(f"S1RTC={path},unit=linear")
    assert np.allclose(read(f"S1RTC={path},unit=dB")["s1rtc"], 10 ** (decibel[:, 18:210, 18:210] / 10))
    assert "no value is negative" in refused(f"S1RTC={raster(tmp_path / 'linear.tif', power())},unit=dB")
    assert "unit is one of linear, dB" in refused(f"S1RTC={path},unit=watt")
    few = np.abs(decibel)
    few[0, :2] *= -1                                                   # 0.4 % negative, as noise removal leaves it
    read(f"S1RTC={raster(tmp_path / 'few.tif', few / 100)}")


def test_land_cover_codes(tmp_path: Path) -> None:
    esri = np.random.default_rng(0).choice([0, 1, 2, 4, 5, 7, 8, 9, 10, 11], (224, 224), p=[0.01] + [0.11] * 9)
    index = np.searchsorted([0, 1, 2, 4, 5, 7, 8, 9, 10, 11], esri)
    a, b = (raster(tmp_path / f"{k}.tif", v.astype(np.uint8)) for k, v in enumerate((esri, index)))
    truth = read(f"LULC={a}")["lulc"]
    assert np.array_equal(truth, esri[None, 18:210, 18:210]) and np.array_equal(read(f"LULC={b},codes=index")["lulc"], truth)
    for text in (f"LULC={b}", f"LULC={b},codes=esri"):                 # 3 and 6 are no Esri codes
        assert "add codes=index" in refused(text)
    cover = np.random.default_rng(1).choice([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], (224, 224))
    world = raster(tmp_path / "w.tif", cover.astype(np.uint8))
    assert "add codes=worldcover" in refused(f"LULC={world}")
    assert set(np.unique(read(f"LULC={world},codes=worldcover")["lulc"])) == {1, 2, 4, 5, 7, 8, 9, 11}
    assert "recode" in refused(f"LULC={raster(tmp_path / 'x.tif', np.full((224, 224), 200, np.uint8))}")
    assert "takes no option codes" in refused(f"DEM={a},codes=esri") and "codes is one of" in refused(f"LULC={a},codes=usgs")
    mask = raster(tmp_path / "m.tif", np.full((224, 224), 7, np.uint8))
    assert "legend" in refused(f"cloud_mask={mask}") and "takes no option codes" in refused(f"cloud_mask={mask},codes=index")
    either, said = warned(f"LULC={raster(tmp_path / 'e.tif', np.full((224, 224), 5, np.uint8))}")
    assert np.all(either["lulc"] == 5) and "could be indices" in said[0]
    assert warned(f"LULC={tmp_path / 'e.tif'},codes=esri")[1] == []
    assert "no data" in warned(f"LULC={raster(tmp_path / 'n.tif', np.zeros((224, 224), np.uint8), nodata=0)}")[1][0]


def test_the_offset_of_the_processing_baseline(tmp_path: Path) -> None:
    dn = numbers(13)
    dn[10] = np.random.default_rng(0).integers(8, 40, dn[10].shape)
    assert warned(f"S2L1C={raster(tmp_path / 'plain.tif', dn)}")[1] == []
    late = raster(tmp_path / "late.tif", dn + 1000)
    scene, said = warned(f"S2L1C={late}")
    assert len(said) == 1 and "offset=1000" in said[0] and scene["s2l1c_60m"][2].min() > 1000
    scene, said = warned(f"S2L1C={late},offset=1000")
    assert said == [] and np.array_equal(scene["s2l1c_10m"], read(f"S2L1C={tmp_path / 'plain.tif'}")["s2l1c_10m"])
    scene, said = warned(f"S2L1C={tmp_path / 'plain.tif'},offset=1000")     # subtracted twice: clamped, never no data, and said
    assert scene["s2l1c_60m"].min() == 1 and "subtracted before" in said[0]
    name = tmp_path / "S2B_MSIL2A_20230610T074621_N0509_R135_T36MWC_20230610T101031.tif"
    for path, tags in ((name, {}), (tmp_path / "x.tif", {"PRODUCT_URI": name.stem})):
        assert "04.00" in warned(f"S2L2A={raster(path, numbers(12), tags=tags)}")[1][0]
    early = tmp_path / "S2B_MSIL2A_20190610T074621_N0212_R135_T36MWC_20190610T101031.tif"
    assert warned(f"S2L2A={raster(early, numbers(12))}")[1] == []
    for wrong in ("offset=-1000", "offset=ten", "offset=nan"):
        assert "offset=" in refused(f"S2L2A={early},{wrong}")
    assert "takes no option offset" in refused(f"DEM={early},offset=1000")


def test_names_that_contradict_the_user_are_pointed_out(tmp_path: Path) -> None:
    surface = tmp_path / "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP.tif"
    _, said = warned(f"S2L1C={raster(surface, numbers(13))}")
    assert len(said) == 1 and "says L2A" in said[0]
    ground_range = tmp_path / "S1A_IW_GRDH_1SDV_20170613T165043_33UUP.tif"
    assert "gamma-naught" in warned(f"S1RTC={raster(ground_range, power())}")[1][0]
    corrected = tmp_path / "S1A_IW_GRDH_1SDV_20170613T165043_20170613T165108_017019_01C5A2_rtc.tif"
    assert warned(f"S1RTC={raster(corrected, power())}")[1] == []
    assert "90 m are interpolated to the 10 m" in warned(f"S1RTC={raster(tmp_path / 'c.tif', power(2, 40), resolution=90)}")[1][0]


def test_heights_are_metres(tmp_path: Path) -> None:
    assert "not metres" in refused(f"DEM={raster(tmp_path / 'ft.tif', np.full((224, 224), 20_000, np.int16))}")
    path = raster(tmp_path / "dm.tif", np.full((224, 224), 1234, np.int16))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.1,), (5.0,)
    assert np.allclose(read(f"DEM={path}")["dem"], 128.4)


# --- what is missing ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("product", "bands", "mark", "nodata"), [
    ("S2L2A", 12, 0, None), ("S1RTC", 2, np.nan, None), ("S1RTC", 2, -np.inf, None), ("S1RTC", 2, -32768, None),
    ("DEM", 1, -9999, None), ("DEM", 1, -32768, -32768), ("DEM", 1, 77, 77), ("LULC", 1, 255, 255)])
def test_missing_pixels_are_refused_with_share_and_place_and_filled_on_request(
        tmp_path: Path, product: str, bands: int, mark: float, nodata: float | None) -> None:
    values = np.full((bands, 224, 224), 5.0, np.float32)
    values[-1, 100:110, 60:80] = mark                                  # of one band
    path = raster(tmp_path / "x.tif", values, nodata=nodata)
    text = f"{product}={path}" + (",codes=esri" if product == "LULC" else "")
    message = refused(text)
    for said in ("x.tif", "0.54% (200 pixels)", "left 500620.0, bottom 5998940.0, right 500820.0, top 5999040.0"):
        assert said in message
    scene = read(text, fill=True)
    assert all(np.all(scene[row] == 5) for row in TABLE.select(product))
    assert scene.notes["filled"] and all(round(part["share"], 4) == 0.0054 for row in scene.notes["filled"].values() for part in row)
    values[-1, :, :60] = mark
    assert "at most 5%" in refused(f"{product}={raster(tmp_path / 'y.tif', values, nodata=nodata)}", fill=True)


def test_missing_pixels_outside_the_square_are_nobodys_business_and_do_not_leak(tmp_path: Path) -> None:
    values = np.full((2, 224, 224), 0.5, np.float32)
    values[:, :18], values[:, 210:], values[:, :, :18], values[:, :, 210:] = np.nan, np.nan, np.nan, np.nan
    exact = raster(tmp_path / "exact.tif", values)
    assert np.all(read(f"S1RTC={exact}")["s1rtc"] == 0.5)
    first = raster(tmp_path / "dem.tif", np.zeros((224, 224), np.float32))
    values[:, 17] = 0.5                                                # the square lies half a pixel higher: one row more is needed
    shifted = raster(tmp_path / "shifted.tif", values, top=TOP - 5)
    assert np.all(read(f"DEM={first}", f"S1RTC={shifted}")["s1rtc"] == 0.5)


def test_filling_takes_the_nearest(tmp_path: Path) -> None:
    height = np.tile(np.arange(224, dtype=np.float32), (224, 1))
    broken = height.copy()
    broken[50:60, 100:103] = np.nan
    filled = read(f"S1RTC={raster(tmp_path / 'f.tif', np.stack([broken, broken]) / 1000)}", fill=True)["s1rtc"][0]
    assert np.allclose(filled[34, [82, 83, 84]] * 1000, [99, 99, 103])


def test_a_mask_in_the_file_counts_as_missing(tmp_path: Path) -> None:
    path = raster(tmp_path / "m.tif", np.full((224, 224), 3.0, np.float32))
    with rasterio.open(path, "r+") as dataset:
        mask = np.full((224, 224), 255, np.uint8)
        mask[100, 100] = 0
        dataset.write_mask(mask)
    assert "(1 pixel)" in refused(f"DEM={path}")


# --- damaged and nonsensical files --------------------------------------------------------------------------------------------------

def test_files_that_are_none(tmp_path: Path) -> None:
    assert "no such file" in refused(f"DEM={tmp_path / 'nowhere.tif'}")
    (tmp_path / "text.tif").write_text("This is a letter.")
    (tmp_path / "nothing.tif").write_bytes(b"")
    virtual = tmp_path / "virtual.tif"
    virtual.write_text('<VRTDataset rasterXSize="4" rasterYSize="4"></VRTDataset>')
    for name in ("text.tif", "nothing.tif", "virtual.tif"):
        assert name in (message := refused(f"DEM={tmp_path / name}")) and "is not a raster" in message
    (tmp_path / "sub").mkdir()
    whole = raster(tmp_path / "whole.tif", np.random.default_rng(0).random((224, 224)).astype(np.float32), compress="deflate", tiled=True,
                   blockxsize=64, blockysize=64)
    data = whole.read_bytes()
    for keep in (6, 100, len(data) // 2, len(data) - 2000):
        cut = tmp_path / f"cut{keep}.tif"
        cut.write_bytes(data[:keep])
        assert f"cut{keep}.tif" in (message := refused(f"DEM={cut}")) and "damaged" in message


def test_jpeg_2000_is_read(tmp_path: Path) -> None:
    values = numbers(1)
    path = tmp_path / "B02.jp2"
    with rasterio.open(path, "w", driver="JP2OpenJPEG", width=224, height=224, count=1, dtype="uint16", crs="EPSG:32630",
                       transform=from_origin(LEFT, TOP, 10, 10), QUALITY="100", REVERSIBLE="YES") as target:
        target.write(values)
    data = path.read_bytes()
    for band in ("B03", "B04", "B08"):
        (tmp_path / f"{band}.jp2").write_bytes(data)
    assert np.array_equal(read(f"s2l2a_10m={tmp_path}")["s2l2a_10m"][0], values[0, 18:210, 18:210])
    path.write_bytes(data[:len(data) // 3])
    assert "damaged" in refused(f"s2l2a_10m={tmp_path}")


def test_files_without_a_place_on_earth(tmp_path: Path) -> None:
    flat = np.zeros((224, 224), np.float32)
    assert "coordinate reference system" in refused(f"DEM={raster(tmp_path / 'a.tif', flat, crs=None)}")
    assert "geotransform" in refused(f"DEM={raster(tmp_path / 'b.tif', flat, transform=Affine.identity())}")
    assert "latitude" in refused(f"DEM={raster(tmp_path / 'c.tif', flat, crs=4326, left=10, top=95, resolution=1e-4)}")
    local = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    assert "d.tif" in refused(f"DEM={raster(tmp_path / 'd.tif', flat, crs=local)}")
    assert "complex" in refused(f"S1RTC={raster(tmp_path / 'e.tif', np.zeros((2, 224, 224), np.complex64))}")


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
    ("2021:07:20 10:11:12", "2021-07-20"), ("2021-07-20T08:40:10.123456789", "2021-07-20")])
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


def test_notes_are_json_and_hold_the_hashes(tmp_path: Path) -> None:
    import hashlib
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
