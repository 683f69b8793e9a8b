"""Values on another grid: exact where grids nest, true to the ground where they don't, the same as GDAL's where both are defined."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject, transform

from copgen.reading.rasters import Grid
from copgen.reading.resampling import fill_nearest, resample, touched
from copgen.scene import Footprint

UTM, ZONE_EAST, DEGREES = CRS.from_epsg(32632), CRS.from_epsg(32633), CRS.from_epsg(4326)
LEFT, TOP = 600_000.0, 5_300_000.0


def grid(resolution: float, left: float = LEFT, top: float = TOP, crs: CRS = UTM) -> Grid:
    return Grid(crs, from_origin(left, top, resolution, resolution))


def noise(side: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(1, side, side))


@pytest.mark.parametrize("factor", [1, 2, 3, 6])
def test_nested_grids_give_block_means(factor: int) -> None:
    values = np.round(noise(96) * 1000)
    truth = values.reshape(1, 96 // factor, factor, 96 // factor, factor).mean((2, 4))
    assert np.array_equal(resample(values, grid(10), grid(10 * factor), 96 // factor), truth)


@pytest.mark.parametrize("source", [12.5, 7.0, 9.979, 3.3])
def test_averages_conserve_the_sum_over_the_ground(source: float) -> None:
    values = noise(int(960 / source) + 4)
    out = resample(values, grid(source, LEFT - source, TOP + source), grid(30), 32)
    edges = np.clip(source * (np.arange(values.shape[1] + 1) - 1), 0, 960)
    weights = np.diff(edges)                                           # metres of each pixel inside, along one axis
    assert np.isclose(out.mean(), weights @ values[0] @ weights / 960**2)


@pytest.mark.parametrize("source", [10.0, 20.0, 13.0, 90.0])
def test_bilinear_keeps_a_plane(source: float) -> None:
    side = int(1200 / source) + 8
    east, south = LEFT - 3 * source + source * (np.arange(side) + 0.5), TOP + 3 * source - source * (np.arange(side) + 0.5)
    plane = (0.3 * (east[None] - LEFT) - 0.7 * (south[:, None] - TOP))[None]
    out = resample(plane, grid(source, LEFT - 3 * source, TOP + 3 * source), grid(10, LEFT + 3.7, TOP - 1.1), 96)
    at = 10 * (np.arange(96) + 0.5)
    assert np.allclose(out[0], 0.3 * (at[None] + 3.7) + 0.7 * (at[:, None] + 1.1))


def test_outermost_values_go_on_to_the_edge() -> None:
    values = noise(48)
    out = resample(values, grid(20), grid(10), 96)
    assert np.isclose(out[0, 0, 0], values[0, 0, 0]) and np.isclose(out[0, -1, -1], values[0, -1, -1])
    assert values.min() <= out.min() and out.max() <= values.max()


def smooth(side: int, seed: int = 0) -> NDArray[np.float64]:
    x = np.linspace(0, 1, side)
    random = np.random.default_rng(seed)
    return np.asarray(sum(random.normal() * np.sin(2 * np.pi * (i * x[:, None] + j * x[None] + random.uniform()))
                          for i in range(1, 8) for j in range(1, 8)))[None]


def warped_grids() -> list[tuple[Grid, int]]:
    """Grids that hold the target 600000..601920 of zone 32: of the next zone, in degrees, rotated."""
    x, y = transform(UTM, ZONE_EAST, [LEFT + 960], [TOP - 960])
    lon, lat = transform(UTM, DEGREES, [LEFT + 960], [TOP - 960])
    degrees = Grid(DEGREES, from_origin(lon[0] - 0.02, lat[0] + 0.02, 1e-4, 1e-4))
    turned = Affine.translation(LEFT - 1000, TOP + 300) @ Affine.rotation(20) @ Affine.scale(10, -10)
    return [(grid(10, x[0] - 1500, y[0] + 1500, ZONE_EAST), 300), (degrees, 400), (Grid(UTM, turned), 380)]


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize(("resolution", "method"), [(10, Resampling.bilinear), (60, Resampling.average)])
def test_between_crss_the_same_as_gdal(case: int, resolution: int, method: Resampling) -> None:
    source, side = warped_grids()[case]
    values, target, pixels = smooth(side), grid(resolution), 1920 // resolution
    ours = resample(values, source, target, pixels)
    theirs = np.zeros_like(ours)
    reproject(values, theirs, src_transform=source.transform, src_crs=source.crs, dst_transform=target.transform, dst_crs=target.crs,
              resampling=method, tolerance=0.0)
    slope = np.abs(np.gradient(values[0])).max()                       # of a source pixel
    assert np.abs(ours - theirs).max() < (0.15 if resolution == 10 else 0.35) * slope       # GDAL widens its kernel on rotated grids
    assert np.abs(ours - theirs).mean() < 0.05 * slope


@pytest.mark.parametrize("case", range(3))
def test_classes_between_crss_are_the_pixels_on_the_spot(case: int) -> None:
    source, side = warped_grids()[case]
    codes = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 5, (1, side // 10, side // 10)), 10, 1), 10, 2).astype(float)
    ours = resample(codes, source, grid(10), 192, classes=True)
    theirs = np.zeros_like(ours)
    reproject(codes, theirs, src_transform=source.transform, src_crs=source.crs, dst_transform=grid(10).transform, dst_crs=UTM,
              resampling=Resampling.nearest, tolerance=0.0)
    assert (ours == theirs).mean() > 0.97 and set(np.unique(ours)) <= set(range(5))


def test_a_tie_goes_to_the_lowest_code() -> None:
    codes = np.array([[[5, 2], [2, 5]]], float)
    assert resample(codes, grid(10), grid(20), 1, classes=True)[0, 0, 0] == 2


def test_touched_pixels_are_those_under_the_square() -> None:
    square = Footprint(UTM, LEFT + 20, TOP - 30, 60.0)
    inside = touched(grid(10), 20, 20, square)
    assert inside.sum() == 36 and inside[3:9, 2:8].all()
    assert touched(grid(10, LEFT + 5), 20, 20, square).sum() == 6 * 7


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_filling_is_by_the_nearest_valid_pixel(share: float) -> None:
    random = np.random.default_rng(int(100 * share))
    values, valid = random.normal(size=(2, 23, 31)), random.random((23, 31)) > share
    filled = fill_nearest(np.where(valid, values, np.nan), valid)
    assert np.array_equal(filled[:, valid], values[:, valid])
    rows, cols = np.nonzero(valid)
    for row, col in zip(*np.nonzero(~valid), strict=True):
        distance = (rows - row) ** 2 + (cols - col) ** 2
        nearest = values[:, rows[distance == distance.min()], cols[distance == distance.min()]]
        assert any(np.array_equal(filled[:, row, col], one) for one in nearest.T)
