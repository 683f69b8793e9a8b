"""The layers of a scene on their own grids: copied, averaged, interpolated, warped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_rasters import L2A, LEFT, QUIET, TOP, numbers, power, raster, read
from rasterio.transform import Affine
from rasterio.warp import transform

from copgen.modalities import TABLE

pytestmark = QUIET


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
    for flip, placed in ((np.s_[:, ::-1], Affine(10, 0, LEFT, 0, 10, TOP - side)),
                         (np.s_[:, :, ::-1], Affine(-10, 0, LEFT + side, 0, -10, TOP))):
        flipped = read(f"S1RTC={raster(tmp_path / 'b.tif', values[flip], transform=placed)}")
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
