"""A cell of Major TOM's layout on disk becomes a scene: the right folder, the right square, the right day."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from copgen.majortom.cells import cells, found_products, read_cell
from copgen.majortom.grid import patch_offsets
from copgen.modalities import TABLE, Table
from copgen.reading import CopgenWarning

LEFT, TOP, CRS = 399_960.0, 5_600_040.0, "EPSG:32630"
CELL = "618U_30L"
S2, OLD_S2 = "S2B_MSIL2A_20230610T112119_N0509_R037_T30UVG_20230610T140101", "S2A_MSIL2A_20170613T112119_N0205_R037_T30UVG_20170613T112119"
S2_L1C = "S2B_MSIL1C_20230610T112119_N0509_R037_T30UVG_20230610T120101"
S1 = "S1A_IW_GRDH_1SDV_20230604T063141_20230604T063206_048834_05DF6E_rtc"

pytestmark = [pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning"),
              pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]          # rasterio's own


def tile(path: Path, values: NDArray[Any], resolution: float, shift: float = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1, dtype=values.dtype, crs=CRS,
                       transform=from_origin(LEFT - shift, TOP + shift, resolution, resolution)) as dataset:
        dataset.write(values, 1)


def numbered(resolution: int, seed: int, low: int = 100, high: int = 5000) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(low, high, (10_680 // resolution,) * 2).astype(np.uint16)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell with all products, two of S2L2A and two years of land cover; the radar is a pixel larger on each side."""
    root = tmp_path_factory.mktemp("archive")
    folder = Path("618U") / CELL
    for product, id_, low in (("S2L2A", S2, 100), ("S2L2A", OLD_S2, 3000), ("S2L1C", S2_L1C, 100)):
        for row in (TABLE[name] for name in TABLE.select(product)):
            for k, band in enumerate(row.bands):
                assert row.resolution is not None
                tile(root / f"Core-{product}" / folder / id_ / f"{band}.tif", numbered(row.resolution, k, low), row.resolution)
        tile(root / f"Core-{product}" / folder / id_ / "cloud_mask.tif", (numbered(10, 9) % 4).astype(np.uint8), 10)
        (root / f"Core-{product}" / folder / id_ / "thumbnail.png").write_bytes(b"not read")
    for k, band in enumerate(("vv", "vh")):
        wide = np.random.default_rng(k).gamma(2, 0.05, (1070, 1070)).astype(np.float32)
        tile(root / "Core-S1RTC" / folder / S1 / f"{band}.tif", wide, 10, shift=10)
    tile(root / "Core-DEM" / folder / "id" / "DEM.tif", numbered(30, 5, 0, 900).astype(np.float32), 30)
    tile(root / "Core-DEM" / folder / "id" / "compressed.tif", numbered(30, 6), 30)
    for year, code in ((2020, 2), (2023, 11)):
        tile(root / "Core-LULC" / "618U" / "30L" / f"{CELL}_{year}.tif", np.full((1069, 1069), code, np.uint8), 10)
    return root


def pixels(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def test_a_cloud_mask_is_there_where_its_file_is(tmp_path: Path) -> None:
    for product, id_ in (("S2L1C", S2_L1C), ("S2L2A", S2)):
        tile(tmp_path / f"Core-{product}" / "618U" / CELL / id_ / "B02.tif", numbered(10, 0), 10)
    assert set(found_products(tmp_path, CELL)) == {"S2L1C", "S2L2A"}
    tile(tmp_path / "Core-S2L2A" / "618U" / CELL / S2 / "cloud_mask.tif", numbered(10, 9, 0, 4).astype(np.uint8), 10)
    assert found_products(tmp_path, CELL)["cloud_mask"].id == S2                # not the first that it might lie in


def test_the_middle_of_a_cell_is_438_pixels_in(archive: Path) -> None:
    scene = read_cell(archive, CELL, given=TABLE.images)
    assert set(scene.layers) == set(TABLE.names) and scene.name == CELL
    assert scene.footprint is not None and (scene.footprint.left, scene.footprint.top) == (LEFT + 4380, TOP - 4380)
    for name in ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m", "s2l1c_60m"):
        row = TABLE[name]
        assert row.resolution is not None
        start, side = 4380 // row.resolution, 1920 // row.resolution
        folder = archive / f"Core-{row.product}" / "618U" / CELL / (S2 if row.product == "S2L2A" else S2_L1C)
        for k, band in enumerate(row.bands):
            assert np.array_equal(scene[name][k], pixels(folder / f"{band}.tif")[start:start + side, start:start + side])
    vv = pixels(archive / "Core-S1RTC" / "618U" / CELL / S1 / "vv.tif")
    assert np.array_equal(scene["s1rtc"][0], vv[439:631, 439:631])    # by the georeference, not by the middle of the larger tile
    dem = pixels(archive / "Core-DEM" / "618U" / CELL / "id" / "DEM.tif")
    assert np.array_equal(scene["dem"][0], dem[146:210, 146:210])
    assert np.all(scene["lulc"] == 11)                                 # the latest year
    mask = pixels(archive / "Core-S2L1C" / "618U" / CELL / S2_L1C / "cloud_mask.tif")
    assert np.array_equal(scene["cloud_mask"][0], mask[438:630, 438:630])


def test_the_square_place_and_day_do_not_depend_on_what_is_given(archive: Path) -> None:
    every = read_cell(archive, CELL, given=TABLE.images)
    for given in (["DEM"], ["S1RTC"], ["LULC"], ["s2l1c_60m"]):
        one = read_cell(archive, CELL, given=given)
        assert one.footprint == every.footprint and np.array_equal(one["place"], every["place"])
        assert str(one["date"][0]) == "2023-06-07"                     # between 4 and 10 June
        assert set(one.layers) == {*TABLE.select(given), "place", "date"}
    assert every.notes["products"]["S2L2A"] == {"id": S2, "passed_over": [OLD_S2]}
    assert every.notes["dates"] == {"S2L2A": "2023-06-10", "S2L1C": "2023-06-10", "S1RTC": "2023-06-04", "cloud_mask": "2023-06-10"}
    stated = read_cell(archive, CELL, given=["DEM"], date="2001-02-03", place="none")
    assert str(stated["date"][0]) == "2001-02-03" and "place" not in stated


def test_patches_cover_the_cell_from_the_north_west(archive: Path) -> None:
    dem = pixels(archive / "Core-DEM" / "618U" / CELL / "id" / "DEM.tif")
    for patch, (i, j) in {(0, 0): (0, 0), (0, 5): (0, 292), (2, 1): (128, 64), (5, 4): (292, 256)}.items():
        scene = read_cell(archive, CELL, given=["DEM"], patch=patch)
        assert np.array_equal(scene["dem"][0], dem[i:i + 64, j:j + 64]) and scene.name == f"{CELL}_{patch[0]}_{patch[1]}"
    for wrong in ((6, 0), (0, -1)):
        with pytest.raises(ValueError, match="6 x 6 patches"):
            read_cell(archive, CELL, given=["DEM"], patch=wrong)


@pytest.mark.parametrize("footprint", [1920, 2560])
def test_patches_overlap_only_at_the_far_edge_and_never_cut_a_pixel(footprint: int) -> None:
    count = -(-10_680 // footprint)
    starts = patch_offsets(footprint).tolist()
    assert len(starts) == count and starts[0] == 0 and starts[-1] + footprint == 10_680
    assert all(0 < b - a <= footprint for a, b in pairwise(starts))
    if footprint == 1920:
        assert starts == [0, 1920, 3840, 5760, 7680, 8760]


def test_another_footprint_reads_the_same_cell(archive: Path) -> None:
    scene = read_cell(archive, CELL, given=["S2L2A"], table=Table(footprint=960))
    assert scene["s2l2a_60m"].shape == (2, 16, 16) and scene.footprint is not None
    assert (scene.footprint.left - LEFT) % 60 == 0


def test_a_window_and_a_fill_pass_through(archive: Path) -> None:
    scene = read_cell(archive, CELL, given=["DEM"], window=(LEFT + 300, TOP - 600))
    assert scene.footprint is not None and scene.footprint.left == LEFT + 300
    with pytest.raises(ValueError, match="one of them"):
        read_cell(archive, CELL, given=["DEM"], window=(LEFT, TOP), patch=(0, 0))
    with pytest.raises(ValueError, match="covers only a part"):
        read_cell(archive, CELL, given=["DEM"], window=(LEFT - 300, TOP))


@pytest.mark.parametrize("name", ["../618U_30L", "618U_30L/..", "618U", "618X_30L", "", "618U_30L\n"])
def test_names_that_are_no_cells_never_become_paths(archive: Path, name: str) -> None:
    with pytest.raises(ValueError, match="such as 618U_30L"):
        read_cell(archive, name, given=["DEM"])


def test_what_is_not_there_is_said(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"618U_31L.*1 cells, such as 618U_30L"):
        read_cell(archive, "618U_31L", given=["DEM"])
    with pytest.raises(ValueError, match="no cells of Major TOM"):
        read_cell(tmp_path, CELL, given=["DEM"])
    with pytest.raises(ValueError, match="is no folder"):
        read_cell(tmp_path / "nowhere", CELL, given=["DEM"])
    tile(tmp_path / "Core-DEM" / "618U" / CELL / "id" / "DEM.tif", numbered(30, 5).astype(np.float32), 30)
    with pytest.raises(ValueError, match=r"has no S1RTC on disk; there are DEM"):
        read_cell(tmp_path, CELL, given=["DEM", "S1RTC"])
    with pytest.raises(ValueError, match="no layer with pixels"):
        read_cell(tmp_path, CELL, given=["place"])
    assert "date" not in read_cell(tmp_path, CELL, given=["DEM"])


def test_cells_are_listed(archive: Path, tmp_path: Path) -> None:
    assert cells(archive) == [CELL] and cells(tmp_path) == []


def test_digital_numbers_of_late_baselines_are_pointed_out(archive: Path) -> None:
    with pytest.warns(CopgenWarning, match="04.00"):
        read_cell(archive, CELL, given=["S2L2A"])
