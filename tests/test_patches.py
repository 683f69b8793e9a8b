"""A cell's patches are what `read_cell` shows of it, each file read once; what it refuses is told, patch by patch."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from made_archive import CELL, make_archive
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin

from copgen.bulk import patches as module
from copgen.bulk.patches import REASONS, Limits, NotThere, Patch, read_patches
from copgen.majortom.cells import read_cell
from copgen.majortom.grid import TILE, patch_offsets
from copgen.modalities import TABLE

pytestmark = [pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning"),
              pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]          # rasterio's own
ALL = range(36)
Edit = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture(scope="module")
def grainy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole cell, no two pixels alike; the radar is a pixel larger on each side, the land cover on two, as in Major TOM."""
    root = tmp_path_factory.mktemp("grainy")
    make_archive(root, (CELL,), content="grain")
    for band in ("vv", "vh"):
        edit(root, "S1RTC", band, lambda values: np.pad(values, 1, mode="reflect"), shift=-1)
    codes = np.random.default_rng(0).choice([1, 2, 5, 7, 11], (1069, 1069)).astype(np.uint8)
    edit(root, "LULC", "*", lambda _: codes)
    edit(root, "S2L1C", "cloud_mask", lambda values: (np.random.default_rng(1).integers(0, 4, values.shape)).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flat")
    make_archive(root, (CELL,))
    return root


@pytest.fixture
def archive(flat: Path, tmp_path: Path) -> Path:
    """A flat cell to spoil."""
    return shutil.copytree(flat, tmp_path / "archive")


def band_file(root: Path, product: str, band: str = "*") -> Path:
    return next(iter(sorted((root / f"Core-{product}").rglob(f"{band}.tif"))))


def edit(root: Path, product: str, band: str, change: Edit, *, shift: int = 0) -> Path:
    """Change a band's pixels; `shift` moves the first one by so many pixels to the south and east."""
    path = band_file(root, product, band)
    with rasterio.open(path) as dataset:
        values, profile = dataset.read(1), dataset.profile
    values, t = change(values.copy()), profile["transform"]
    profile |= {"height": values.shape[0], "width": values.shape[1], "transform": t @ Affine.translation(shift, shift)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values, 1)
    return path


def bounds_of(path: Path) -> Any:
    with rasterio.open(path) as dataset:
        return dataset.bounds


def zeros_at(*places: tuple[int, int]) -> Edit:
    def change(values: NDArray[Any]) -> NDArray[Any]:
        for place in places:
            values[place] = 0
        return values
    return change


def faults(patches: list[Patch]) -> dict[int, set[tuple[str, str]]]:
    """What is wrong with which patch, and that each reason has a meaning."""
    assert {fault.reason for patch in patches for fault in patch.faults} <= set(REASONS)
    return {patch.number: {(fault.product, fault.reason) for fault in patch.faults} for patch in patches if patch.faults}


# What is good


def test_every_patch_is_what_read_cell_reads_bit_for_bit(grainy: Path) -> None:
    patches = read_patches(grainy, CELL)
    assert [patch.number for patch in patches] == list(ALL) and not faults(patches)
    for number in (0, 5, 8, 13, 29, 30, 34, 35):
        patch, one = patches[number], read_cell(grainy, CELL, given=TABLE.images, patch=(number // 6, number % 6))
        assert patch.scene.footprint == one.footprint and patch.scene.name == one.name and list(patch.scene.layers) == list(TABLE.names)
        for name, layer in one.layers.items():
            assert patch.scene[name].dtype == layer.dtype and np.array_equal(patch.scene[name], layer), (number, name)


def test_larger_tiles_are_aligned_by_where_they_are_not_by_their_size(grainy: Path) -> None:
    last = read_patches(grainy, CELL, TABLE.subset(["lulc", "s1rtc", "dem"]))[35].scene
    for product, band, name, first in (("LULC", "*", "lulc", 876), ("S1RTC", "vv", "s1rtc", 877), ("DEM", "DEM", "dem", 292)):
        with rasterio.open(band_file(grainy, product, band)) as dataset:
            values = dataset.read(1)
        side = TABLE.side(name)
        assert np.array_equal(last[name][0], values[first : first + side, first : first + side])


def test_the_offset_is_taken_off_as_in_one_square(grainy: Path) -> None:
    table = TABLE.subset(["s2l2a_60m", "s2l1c_10m"])
    shifted = read_patches(grainy, CELL, table, offset=50)[7].scene
    one = read_cell(grainy, CELL, given=table.images, table=table, patch=(1, 1), offset=50)
    assert all(np.array_equal(shifted[name], one[name]) for name in table.images)


def test_an_offset_that_a_products_name_tells_is_taken_off_this_product(archive: Path) -> None:
    folder = band_file(archive, "S2L1C").parent
    edit(archive, "S2L1C", "B01", lambda values: values + 1000)
    table = TABLE.subset(["s2l1c_60m", "s2l2a_60m"])
    before = read_patches(archive, CELL, table)[0].scene
    folder.rename(folder.with_name(folder.name.replace("N0301", "N0509")))
    after = read_patches(archive, CELL, table, offset="named")[0].scene
    assert np.array_equal(after["s2l1c_60m"][0], before["s2l1c_60m"][0] - 1000)
    assert np.array_equal(after["s2l2a_60m"], before["s2l2a_60m"])


def test_each_file_is_read_once(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = Counter[Path](), module.read_window

    def counted(raster: Any, *args: Any, **settings: Any) -> Any:
        read[raster.path] += 1
        return real(raster, *args, **settings)

    monkeypatch.setattr(module, "read_window", counted)
    read_patches(flat, CELL)
    assert len(read) == sum(len(TABLE[row].bands) for row in TABLE.images) and set(read.values()) == {1}


def test_place_and_date_are_the_patchs_centre_and_the_cells_day(flat: Path) -> None:
    patches = read_patches(flat, CELL, TABLE.subset(["place", "date", "dem"]))
    places = np.array([patch.scene["place"] for patch in patches])
    assert len(np.unique(places, axis=0)) == 36                         # the published cache has the same for the last two of a row
    footprint = patches[14].scene.footprint
    assert footprint is not None and tuple(places[14]) == footprint.centre
    assert {str(patch.scene["date"][0]) for patch in patches} == {"2021-06-09"}        # between the 8th and the 10th


def test_a_product_that_is_not_there_is_no_fault(archive: Path) -> None:
    shutil.rmtree(archive / "Core-S1RTC")
    shutil.rmtree(archive / "Core-LULC")
    patches = read_patches(archive, CELL)
    assert not faults(patches)
    assert all(set(TABLE.names) - set(patch.scene.layers) == {"s1rtc", "lulc"} for patch in patches)
    assert {str(patch.scene["date"][0]) for patch in patches} == {"2021-06-10"}


# What is bad


def test_missing_pixels_are_judged_patch_by_patch(archive: Path) -> None:
    edit(archive, "S2L2A", "B03", zeros_at((0, 0), (1000, 500)))        # of row 5 only, and column 2; patches overlap from 876 to 960
    edit(archive, "S2L2A", "B12", zeros_at((450, 0)))                   # of rows 4 and 5
    table = TABLE.subset(TABLE.select("S2L2A,DEM"))
    patches = read_patches(archive, CELL, table)
    assert faults(patches) == {number: {("S2L2A", "no data")} for number in (0, 24, 30, 32)}
    assert set(patches[0].scene.layers) == {"dem"} and set(patches[1].scene.layers) == set(table.names)
    assert "0.00% (1 pixel)" in patches[0].faults[0].detail and str(archive) not in patches[0].faults[0].detail


def test_up_to_the_limit_missing_pixels_are_filled_as_in_one_square(archive: Path) -> None:
    edit(archive, "S2L2A", "B03", zeros_at(*((0, k) for k in range(100))))
    edit(archive, "DEM", "DEM", lambda values: np.where(np.indices(values.shape)[0] < 20, np.nan, values))
    table = TABLE.subset(["s2l2a_10m", "dem"])
    patches = read_patches(archive, CELL, table, limits=Limits(no_data=0.05))
    assert faults(patches) == {number: {("DEM", "no data")} for number in range(6)}    # 20 lines of 64
    one = read_cell(archive, CELL, given=["s2l2a_10m"], table=table, patch=(0, 0), fill=True)
    assert np.array_equal(patches[0].scene["s2l2a_10m"], one["s2l2a_10m"])
    assert patches[0].no_data == pytest.approx(100 / 192**2) and patches[6].no_data == 0


@pytest.mark.parametrize(("pixels", "bad"), [(1843, False), (1844, True)])             # 5 % of 192 x 192 is 1843.2
def test_land_cover_is_bad_from_5_percent_unlabelled_on(archive: Path, pixels: int, bad: bool) -> None:
    edit(archive, "LULC", "*", zeros_at(*((k // 192, k % 192) for k in range(pixels))))
    patches = read_patches(archive, CELL, TABLE.subset(["lulc"]))
    assert faults(patches) == ({0: {("LULC", "unlabelled")}} if bad else {})
    assert patches[0].no_data == (0 if bad else pytest.approx(1843 / 192**2))


def test_radar_that_ends_inside_the_cell_is_bad_where_it_ends(archive: Path) -> None:
    for band in ("vv", "vh"):
        edit(archive, "S1RTC", band, lambda values: values[:, :600])
    patches = read_patches(archive, CELL, TABLE.subset(["s1rtc", "dem"]))
    assert faults(patches) == {number: {("S1RTC", "not covered")} for number in ALL if number % 6 >= 3}      # 576 + 192 > 600
    details = [fault.detail for patch in patches for fault in patch.faults]
    assert details and all("it shows left" in detail and "--window" not in detail for detail in details)   # encode has no --window


def test_images_whose_windows_were_rounded_differently_lose_no_patch(archive: Path) -> None:
    """The radar begins a pixel inside the 60 m bands, the 10 m bands end two before them: all patches lie on what all show."""
    for band in ("vv", "vh"):
        edit(archive, "S1RTC", band, lambda values: values[:-1, :-1], shift=1)
    for band in ("B02", "B03", "B04", "B08"):
        edit(archive, "S2L2A", band, lambda values: values[:-2, :-2])
    patches = read_patches(archive, CELL)
    assert faults(patches) == {} and len(patches) == 36
    corner, inner, edge = (bounds_of(band_file(archive, *band)) for band in (("S2L2A", "B01"), ("S1RTC", "vv"), ("S2L2A", "B04")))
    grounds = [patch.scene.footprint for patch in patches if patch.scene.footprint]
    assert len(grounds) == 36
    assert all((one.left - corner.left) % 60 == (corner.top - one.top) % 60 == 0 for one in grounds)
    assert min(one.left for one in grounds) == corner.left + 60 >= inner.left and max(one.top for one in grounds) <= inner.top
    assert max(one.left + 1920 for one in grounds) <= edge.right < corner.left + TILE
    assert np.array_equal(read_cell(archive, CELL, given=["S2L2A"], patch=(5, 5))["s2l2a_10m"], patches[35].scene["s2l2a_10m"])


def test_a_truncated_file_spoils_its_product_everywhere_and_no_other(archive: Path) -> None:
    path = band_file(archive, "S2L1C", "B11")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    patches = read_patches(archive, CELL)
    assert faults(patches) == {number: {("S2L1C", "unreadable")} for number in ALL}
    assert all("s2l2a_10m" in patch.scene and "s2l1c_10m" not in patch.scene for patch in patches)


@pytest.mark.parametrize("spoil", [lambda folder: (folder / "B01.tif").write_bytes(b"II*"), shutil.rmtree])
def test_a_product_that_cannot_be_opened_does_not_hide_where_the_cell_is(archive: Path, spoil: Callable[[Path], object]) -> None:
    """The cell's corner is that of its Sentinel-2 image, which has one file cut to nothing, or is an empty folder."""
    folder = band_file(archive, "S2L2A").parent
    before = read_patches(archive, CELL, TABLE.subset(["dem"]))
    spoil(folder)
    folder.mkdir(exist_ok=True)
    patches = read_patches(archive, CELL, TABLE.subset(["s2l2a_60m", "dem"]))
    assert faults(patches) == {number: {("S2L2A", "unreadable")} for number in ALL}
    assert all(np.array_equal(one.scene["dem"], other.scene["dem"]) for one, other in zip(patches, before, strict=True))


def test_a_band_that_is_not_there_spoils_its_product(archive: Path) -> None:
    band_file(archive, "S2L2A", "B8A").unlink()
    patches = read_patches(archive, CELL, TABLE.subset(TABLE.select("S2L2A,DEM")))
    assert faults(patches) == {number: {("S2L2A", "unreadable")} for number in ALL} and "B8A" in patches[0].faults[0].detail


def test_impossible_values_are_bad_where_they_are(archive: Path) -> None:
    edit(archive, "S2L2A", "B02", lambda values: np.where(np.indices(values.shape).sum(0) == 0, 60_000, values).astype(values.dtype))
    edit(archive, "S2L1C", "cloud_mask", lambda values: np.where(np.indices(values.shape).sum(0) == 2134, 9, values).astype(np.uint8))
    patches = read_patches(archive, CELL)
    assert faults(patches) == {0: {("S2L2A", "implausible")}, 35: {("cloud_mask", "implausible")}}


def test_an_impossible_day_is_a_fault_of_the_date(archive: Path) -> None:
    folder = band_file(archive, "S2L2A").parent
    folder.rename(folder.with_name(folder.name.replace("20210610", "20210631")))
    patches = read_patches(archive, CELL, TABLE.subset(["date", "dem", "s2l2a_60m"]))
    assert faults(patches) == {number: {("date", "implausible")} for number in ALL} and "s2l2a_60m" in patches[0].scene


def test_a_warning_is_kept_with_its_patch(archive: Path) -> None:
    edit(archive, "S2L1C", "B10", lambda values: np.where(np.indices(values.shape)[0] < 32, 1010, 20).astype(values.dtype))
    patches = read_patches(archive, CELL, TABLE.subset(TABLE.select("S2L1C")))
    assert [patch.number for patch in patches if patch.warnings] == list(range(6)) and not faults(patches)
    assert patches[0].warnings[0].startswith("S2L1C: the offset of 1000")


@pytest.mark.parametrize(("cell", "match"), [("618U_29L", "holds nothing of cell 618U_29L"), ("../618U_30L", "such as 618U_30L")])
def test_cells_that_are_not_there_are_refused(flat: Path, cell: str, match: str) -> None:
    with pytest.raises(NotThere if "nothing" in match else ValueError, match=match):
        read_patches(flat, cell)


@pytest.mark.parametrize("wrong", [{"no_data": -0.1}, {"no_data": 0.06}, {"unlabelled": 0.0}, {"unlabelled": float("nan")}])
def test_limits_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limit of"):
        Limits(**wrong)


# Tiles of other sizes


def small(root: Path, side: int) -> None:
    """Heights of `side` x `side` m, and optical bands over them."""
    for product, band, resolution in (("DEM", "DEM", 30), *(("S2L2A", band, 10) for band in TABLE["s2l2a_10m"].bands)):
        id_ = "id" if product == "DEM" else "S2A_MSIL2A_20210610T112119_N0301_R037_T30UVG_20210610T140101"
        path = root / f"Core-{product}" / CELL.split("_")[0] / CELL / id_ / f"{band}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        count = -(-side // resolution)
        values = np.random.default_rng(resolution).integers(100, 4000, (count, count)).astype(np.float32 if product == "DEM" else np.uint16)
        with rasterio.open(path, "w", driver="GTiff", width=count, height=count, count=1, dtype=values.dtype, crs="EPSG:32630",
                           transform=from_origin(400_000, 5_600_040, resolution, resolution)) as dataset:
            dataset.write(values, 1)


def test_a_smaller_tile_has_as_many_patches_as_fit(tmp_path: Path) -> None:
    """The cells of TerraMesh: 224 pixels."""
    small(tmp_path, 2240)
    patches = read_patches(tmp_path, CELL, TABLE.subset(["s2l2a_10m"]))
    assert [patch.number for patch in patches] == [0, 1, 6, 7] and not faults(patches)
    with rasterio.open(band_file(tmp_path, "S2L2A", "B04")) as dataset:
        values = dataset.read(1)
    assert np.array_equal(patches[3].scene["s2l2a_10m"][0], values[32:, 32:])
    finest = read_patches(tmp_path, CELL, TABLE.subset(["s2l2a_10m", "dem"]))[3].scene.footprint
    assert finest is not None and finest.left == 400_300                # a pixel of 30 m is not cut: 300 m, not 320


def test_a_tile_smaller_than_a_patch_is_refused(tmp_path: Path) -> None:
    small(tmp_path, 1890)
    with pytest.raises(ValueError, match="less than a patch of 1920 m"):
        read_patches(tmp_path, CELL, TABLE.subset(["s2l2a_10m"]))


@given(footprint=st.sampled_from([960, 1920, 2400]), pixels=st.integers(0, 400), step=st.sampled_from([10, 30, 60]))
def test_patches_cover_a_tile_but_for_less_than_a_step(footprint: int, pixels: int, step: int) -> None:
    side = footprint + 10 * pixels
    starts = patch_offsets(footprint, side, step).tolist()
    assert starts[0] == 0 and all(0 < b - a <= footprint for a, b in pairwise(starts))
    assert 0 <= side - (starts[-1] + footprint) < step and all(start % step == 0 for start in starts)
    assert patch_offsets(footprint, TILE, 60).tolist() == patch_offsets(footprint).tolist()
