"""What files may hold: their units, what is missing in them, and what can't be read at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_rasters import LEFT, QUIET, TOP, numbers, power, raster, read, refused, warned
from rasterio.transform import Affine, from_origin

from copgen.modalities import TABLE

pytestmark = QUIET


# --- units --------------------------------------------------------------------------------------------------------------------------

def test_reflectances_are_refused_or_multiplied(tmp_path: Path) -> None:
    dn = numbers(12)
    path = raster(tmp_path / "r.tif", (dn / 10_000).astype(np.float64))
    assert "unit=reflectance" in refused(f"S2L2A={path}")
    assert np.allclose(read(f"S2L2A={path},unit=reflectance")["s2l2a_10m"], read(f"S2L2A={raster(tmp_path / 'd.tif', dn)}")["s2l2a_10m"])
    assert "unit=reflectance is stated" in refused(f"S2L2A={tmp_path / 'd.tif'},unit=reflectance")
    dark = np.full((12, 224, 224), 3, np.uint16)                       # very dark water, in digital numbers; or percent?
    scene, said = warned(f"S2L2A={raster(tmp_path / 'dark.tif', dark)}")
    assert scene["s2l2a_10m"].max() == 3 and len(said) == 1 and "is 3, a reflectance of 0.0003; if these are percent" in said[0]
    assert warned(f"S2L2A={raster(tmp_path / 'dim.tif', dark + 47)}")[1] == []
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
    scene, said = warned(f"S1RTC={raster(tmp_path / 'sign.tif', np.abs(decibel))}")
    assert scene["s1rtc"].max() > 10 and len(said) == 1 and "decibels without their sign" in said[0]
    assert "uncalibrated" in refused(f"S1RTC={raster(tmp_path / 'counts.tif', power() * 10_000)}")
    assert warned(f"S1RTC={raster(tmp_path / 'usual.tif', power())}")[1] == []
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
