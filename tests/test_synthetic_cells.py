"""Whole cells of the synthetic Earth lie where the grid has them, and are read back as any archive is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_rasters import QUIET
from PIL import Image

from copgen.majortom import read_cell
from copgen.majortom.cells import nominal_ground
from copgen.majortom.grid import cell_at, patch_starts, tile_corners
from copgen.modalities import TABLE, THUMBNAILS
from copgen.reading.acquired import carries_offset, day_in_name
from copgen.scene import Scene
from copgen.synthetic import cells
from copgen.synthetic.cells import WIDE, cell_of, cell_setting, product_folders, seed_of, tile_of, write_cells
from copgen.synthetic.setting import square

pytestmark = QUIET
CELL = "524U_134R"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scene]:
    """An archive of one cell, and the cell as it was drawn for it."""
    root = tmp_path_factory.mktemp("archive")
    scene = cells.cell_world(CELL, seed_of(CELL, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "cell_world", lambda cell, seed: scene)
        ((cell, files),) = write_cells(root, [CELL])
    assert cell == CELL and all(path.is_file() for path in files)
    assert sorted(files) == sorted(path for path in root.rglob("*") if path.is_file())
    return root, scene


def test_a_cell_is_read_back_as_it_was_drawn(drawn: tuple[Path, Scene]) -> None:
    root, world = drawn
    assert world.footprint == nominal_ground(CELL)
    for patch in (None, (0, 0), (5, 2)):
        scene = read_cell(root, CELL, given=TABLE.images, patch=patch)
        assert set(scene.layers) == set(TABLE.names) and scene["date"] == world["date"]
        for name in TABLE.images:
            starts = [TABLE.side(name) * 438 // 192] * 2 if patch is None else [patch_starts(name)[i] for i in patch]
            rows, columns = (slice(start, start + TABLE.side(name)) for start in starts)
            assert np.array_equal(scene[name], world[name][:, rows, columns])


def test_the_thumbnails_are_what_the_bands_are_drawn_as(drawn: tuple[Path, Scene], tmp_path: Path) -> None:
    """Of Major TOM's sizes, heights in grey; a cell without them shows the same, and one with nothing else too."""
    root, _ = drawn
    bare = Path(shutil.copytree(root, tmp_path / "bare", ignore=shutil.ignore_patterns("thumbnail.png")))
    alone = Path(shutil.copytree(root, tmp_path / "alone", ignore=shutil.ignore_patterns("*.tif", "*.xml")))
    for product in THUMBNAILS.products:
        with Image.open(next(alone.glob(f"Core-{product}/524U/{CELL}/*/thumbnail.png"))) as image:
            assert (image.size, image.mode) == (((356, 356), "L") if product == "DEM" else ((1068, 1068), "RGB"))
    for patch in (None, (0, 0), (3, 1)):
        stored, made, only = (read_cell(one, CELL, given=THUMBNAILS.products, table=THUMBNAILS, patch=patch) for one in (root, bare, alone))
        assert stored.footprint == made.footprint == only.footprint
        for name in THUMBNAILS.names:
            assert np.array_equal(stored[name], only[name]) and np.array_equal(stored[name], made[name])


def test_all_bands_lie_on_one_square(drawn: tuple[Path, Scene]) -> None:
    root, world = drawn
    assert world.footprint is not None
    for path in root.rglob("*.tif"):
        with rasterio.open(path) as dataset:
            assert dataset.crs == world.footprint.crs and np.allclose(dataset.bounds, world.footprint.bounds)
            assert dataset.count == 1 and dataset.tags()["COPGEN_SYNTHETIC_SEED"] == str(seed_of(CELL, 0))
    for product, count in (("S2L1C", 15), ("S2L2A", 14), ("S1RTC", 3), ("DEM", 2)):
        assert len(list(root.glob(f"Core-{product}/524U/{CELL}/*/*"))) == count


def test_what_is_there_is_passed_over_and_nothing_is_mixed(drawn: tuple[Path, Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    root, world = drawn
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.tif")}
    with monkeypatch.context() as patch:
        patch.setattr(cells, "cell_world", lambda *_: pytest.fail("drawn again"))
        assert len(list(write_cells(root, [CELL]))) == 1
        for other in ({"seed": 1}, {"seed": 1, "overwrite": True}):
            with pytest.raises(ValueError, match=f"is of cell {CELL} too, but not of the one drawn by seed"):
                list(write_cells(root, [CELL], **other))     # type: ignore[arg-type]
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.tif")}
    lost = next(root.rglob("B8A.tif"))
    content = lost.read_bytes()
    lost.unlink()                                # as if killed while the files got their names
    monkeypatch.setattr(cells, "cell_world", lambda *_: world)
    list(write_cells(root, [CELL]))
    assert lost.read_bytes() == content


def test_the_names_of_products_say_the_days_around_the_cells_date() -> None:
    apart = set()
    for seed in range(40):
        cell = cell_of(seed)
        where = cell_setting(cell, seed)
        days = {product: day_in_name(folder) for product, (folder, _) in product_folders(Path(), cell, where).items()}
        assert days["DEM"] is None is days["LULC"] and days["S2L1C"] == days["S2L2A"]
        optical, radar = (np.datetime64(days[product] or "") for product in ("S2L2A", "S1RTC"))
        assert optical + (radar - optical) // 2 == where.date
        apart.add(int((radar - optical).astype(int)))
        folders = product_folders(Path(), cell, where)
        assert folders["LULC"][0].stem == f"{cell}_{str(where.date)[:4]}" and not carries_offset(folders["S2L1C"][0], {})
        l1c, l2a = (folders[product][0].name.split("_") for product in ("S2L1C", "S2L2A"))
        assert (l1c[0], *l1c[2:6]) == (l2a[0], *l2a[2:6])            # satellite, time, baseline, orbit and tile
        assert folders["S2L2A"][1][:10] == days["S2L2A"] and where == cell_setting(cell, seed)
    assert apart == {-6, -4, -2, 0, 2, 4, 6}


def test_a_cell_lies_where_the_grid_has_it() -> None:
    for cell in ("618U_30L", "0U_0R", "1D_1L", "38D_378R", "282D_485L", "900U_10R", "183D_1916R"):
        where = nominal_ground(cell)
        assert str(cell_at(*where.centre)) == cell and where.side == 10_680
        assert where.left % 10 == where.top % 10 == 0
        (left,), (top,) = tile_corners([cell], where.crs.to_string())
        assert abs(where.left - left) <= 5 and abs(where.top - top) <= 5
    for seed in range(20):
        assert nominal_ground(cell_of(seed)).side == WIDE.footprint == cell_setting(cell_of(seed), seed).footprint.side


@pytest.mark.parametrize(("lat", "lon", "tile"), [
    (48.2, 11.5, "T32UPU"), (52.5, 13.0, "T33UUU"), (48.85, 2.35, "T31UDQ"), (-33.87, 151.2, "T56HLH"), (-23.55, -46.63, "T23KLP"),
    (-1.29, 36.82, "T37MBU"), (55.55, -4.68, "T30UUG"),
])
def test_tiles_are_named_as_sentinel_2s(lat: float, lon: float, tile: str) -> None:
    assert tile_of(square(lat, lon, 10_680)) == tile


def test_cells_that_can_not_be_are_refused_before_any_is_drawn(tmp_path: Path) -> None:
    for names, seeds, said in ((["../x"], [], "618U_30L"), (["990U_3R"], [], "beyond 85 degrees"), (["0U_0R", "0U_0R"], [], "comes twice"),
                               ([cell_of(3)], [3], "comes twice"), ([], [-1], "seed -1")):
        with pytest.raises(ValueError, match=said):
            next(write_cells(tmp_path / "archive", names, seeds=seeds))
    assert not (tmp_path / "archive").exists()
