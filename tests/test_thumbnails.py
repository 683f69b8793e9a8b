"""Thumbnails are what Major TOM's recipes draw of whole images, and the square's part of them stays where it lies."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from made_rasters import QUIET, numbers, power, raster, refused
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform

from copgen.bulk.patches import patches_a_side, read_patches
from copgen.majortom.cells import nominal_ground, patches_of, read_cell
from copgen.majortom.grid import patch_offsets
from copgen.modalities import THUMBNAILS
from copgen.reading import CopgenWarning, read_scene
from copgen.thumbnails import FalseColour, Hillshade, TrueColour

Array = NDArray[Any]
CELL, ID = "618U_30L", "S2B_MSIL2A_20230610T112119_N0301_R037_T30UVG_20230610T140101"
RADAR = "S1A_IW_GRDH_1SDV_20230604T063141_20230604T063206_048834_05DF6E_rtc"
LEFT, TOP = 399_960.0, 5_600_040.0

pytestmark = QUIET


def hills(side: int, seed: int = 3, steep: float = 40) -> Array:
    """Smooth heights in metres, float32."""
    wave = np.random.default_rng(seed).uniform(0.01, 0.05, 4)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    folds = np.sin(wave[0] * x + 1) + np.cos(wave[1] * y) + np.sin(wave[2] * (x + y)) * np.cos(wave[3] * x)
    return (500 + steep * folds).astype(np.float32)


# --- the recipes ---------------------------------------------------------------------------------------------------------------------

def test_true_colour_by_hand() -> None:
    numbers = np.array([0, -5, 1000, 3000, 6458, 10_000, 30_000], np.float32)
    expected = [0, 0, 83, 160, 255, 255, 255]    # 1.3 x 0.1^0.6 x 255 = 83.3; 1.3 x 0.3^0.6 x 255 = 160.97; 1.3 x 0.6458^0.6 > 1
    drawn = TrueColour().draw(np.stack([numbers[None]] * 3))
    assert drawn.dtype == np.uint8 and drawn[:, 0].tolist() == [expected] * 3


def test_false_colour_by_hand() -> None:
    vv = np.array([[0.01, 0.1], [1, 10]])
    vh = np.array([[1.0, 0.1], [0.01, 0.001]])   # falls by 10 dB where vv rises by 10 dB: green is the same everywhere
    red, green, blue = FalseColour().draw(np.stack([vv, vh]))
    assert red.tolist() == [[0, 85], [170, 255]] and blue.tolist() == [[255, 170], [85, 0]] and np.ptp(green.astype(int)) <= 1
    masked = np.stack([np.array([[-3, 0.1], [1, 10]]), np.array([[0, 0.1], [1, 10]])])
    red, _, blue = FalseColour().draw(masked)    # what is not positive is the smallest that is
    assert red.tolist() == blue.tolist() == [[0, 0], [127, 255]]


def test_false_colour_depends_on_ratios_alone() -> None:
    layer = power(2, 64)
    scaled = layer * np.array([10, 0.01], np.float32)[:, None, None]
    assert np.abs(FalseColour().draw(layer).astype(int) - FalseColour().draw(scaled)).max() <= 1


def test_hillshade_is_matplotlibs() -> None:
    colors = pytest.importorskip("matplotlib.colors")
    height = hills(90)
    light = colors.LightSource(azdeg=315, altdeg=45).hillshade(height, vert_exag=1)
    assert np.array_equal(Hillshade().draw(height[None]), np.repeat((light * 255).astype(np.uint8)[None], 3, 0))


def test_hillshade_of_known_ground() -> None:
    assert np.all(Hillshade().draw(np.full((1, 5, 5), 17.0)) == 180)                   # flat: the sine of 45 degrees
    ridge = np.minimum(np.arange(20), np.arange(20)[::-1])[None, None] * np.ones((1, 20, 1))
    shade = Hillshade().draw(ridge)
    assert np.all(shade[:, :, 2] >= 254) and np.all(shade[:, :, -3] == 0)              # lit from the north-west; rounding costs a level
    assert np.array_equal(Hillshade().draw(ridge + 4000), shade)


@pytest.mark.parametrize("drawing", [TrueColour(), FalseColour(), Hillshade()])
def test_what_is_not_valid_is_black_and_changes_nothing(drawing: Any) -> None:
    bands = {TrueColour: 3, FalseColour: 2, Hillshade: 1}[type(drawing)]
    layer = np.repeat(hills(40)[None], bands, 0) * np.arange(1, bands + 1)[:, None, None]
    valid = np.ones((40, 40), bool)
    valid[:, 30:] = False
    strange = np.where(valid, layer, 1e6)
    strange[:, :, 30] = layer[:, :, 30]          # the neighbours of valid pixels, by which slopes are measured
    drawn = drawing.draw(strange, valid)
    assert np.all(drawn[:, :, 30:] == 0)
    assert np.array_equal(drawn, drawing.draw(layer, valid)) and drawn[:, :, :30].max() > 0


# --- from files ----------------------------------------------------------------------------------------------------------------------

def whole_images(archive: Path) -> dict[str, Array]:
    """What the recipes draw of the cell's whole images, at 10 m as the published preparation makes it."""
    drawn = {}
    for row in THUMBNAILS.rows:
        assert row.source and row.drawing
        folder = next((archive / f"Core-{row.product}" / "618U" / CELL).iterdir())
        bands = np.concatenate([rasterio.open(folder / f"{band}.tif").read() for band in row.source.bands]).astype(np.float32)
        colours = np.moveaxis(row.drawing.draw(bands), 0, -1)
        drawn[row.name] = np.moveaxis(np.asarray(Image.fromarray(colours).resize((1068, 1068), Image.Resampling.BILINEAR)), -1, 0)
    return drawn


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell with the bands that thumbnails are drawn from and no pictures."""
    root = tmp_path_factory.mktemp("archive")
    x, y = np.meshgrid(np.linspace(0, 1, 1068), np.linspace(0, 1, 1068))
    for product, id_ in (("S2L2A", ID), ("S2L1C", ID.replace("L2A", "L1C"))):
        for k, band in enumerate(("B02", "B03", "B04")):
            ground = (300 + 200 * k + 2000 * x * y + 40 * k * (x - y)).astype(np.uint16)
            raster(root / f"Core-{product}" / "618U" / CELL / id_ / f"{band}.tif", ground, left=LEFT, top=TOP)
    for k, band in enumerate(("vv", "vh")):
        raster(root / "Core-S1RTC" / "618U" / CELL / RADAR / f"{band}.tif", power(1, 1068, k)[0], left=LEFT, top=TOP)
    raster(root / "Core-DEM" / "618U" / CELL / "id" / "DEM.tif", hills(356), resolution=30, left=LEFT, top=TOP)
    return root


def assert_part_of(whole: dict[str, Array], layers: Any, top: int, left: int) -> None:
    for name, image in whole.items():
        apart = np.abs(image[:, top:top + 256, left:left + 256].astype(int) - layers[name])
        assert apart.max() <= (1 if name == "dem_thumbnail" else 0), name              # Pillow's two roundings, not ours


def test_patches_of_a_cell_are_cut_from_the_whole_images(archive: Path) -> None:
    whole, patches = whole_images(archive), read_patches(archive, CELL, THUMBNAILS)
    assert len(patches) == 16 == patches_a_side(THUMBNAILS) ** 2 and not any(patch.faults for patch in patches)
    for patch in patches:
        i, j = divmod(patch.number, 4)
        assert_part_of(whole, patch.scene, 22 + 256 * i, 22 + 256 * j)
        square = patch.scene.footprint
        assert square and (square.left, square.top, square.side) == (LEFT + 220 + 2560 * j, TOP - 220 - 2560 * i, 2560)
    one = read_cell(archive, CELL, given=["S1RTC", "DEM"], table=THUMBNAILS, patch=(3, 1))
    assert set(one.layers) == {"s1rtc_thumbnail", "dem_thumbnail"} and one.name == f"{CELL}_3_1"
    assert all(np.array_equal(one[name], patches[13].scene[name]) for name in one.layers)
    assert patches_of(archive, CELL, THUMBNAILS) == [(i, j) for i in range(4) for j in range(4)]


def test_the_middle_of_a_cell_is_the_centre_crop(archive: Path) -> None:
    scene = read_cell(archive, CELL, given=THUMBNAILS.images, table=THUMBNAILS)
    assert_part_of(whole_images(archive), scene, 406, 406)
    assert scene.footprint and (scene.footprint.left, scene.footprint.top) == (LEFT + 4060, TOP - 4060)
    folders = [next((archive / f"Core-{product}" / "618U" / CELL).iterdir()) for product in THUMBNAILS.products]
    files = read_scene([f"{product}={folder}" for product, folder in zip(THUMBNAILS.products, folders, strict=True)], table=THUMBNAILS)
    assert files.footprint == scene.footprint and all(np.array_equal(files[name], scene[name]) for name in THUMBNAILS.names)


def test_patches_divide_the_cut() -> None:
    assert patch_offsets(2560, cut=THUMBNAILS.cut).tolist() == [220, 2780, 5340, 7900]
    assert patch_offsets(2560, 10_700, 10, 10_240).tolist() == [230, 2790, 5350, 7910]
    assert patch_offsets(2560, 6000, 10, 10_240).tolist() == patch_offsets(2560, 6000, 10).tolist()    # a smaller one is divided whole


# --- stored pictures -----------------------------------------------------------------------------------------------------------------

@pytest.fixture
def pictured(archive: Path, tmp_path: Path) -> Path:
    """The same cell as pictures alone: heights in grey at 30 m, as Major TOM has them."""
    for name, image in whole_images(archive).items():
        row = THUMBNAILS[name]
        (folder,) = (archive / f"Core-{row.product}" / "618U" / CELL).iterdir()
        own = tmp_path / folder.relative_to(archive)
        own.mkdir(parents=True)
        if row.product == "DEM":
            Image.fromarray(Hillshade().draw(hills(356)[None])[0]).save(own / "thumbnail.png")
        else:
            Image.fromarray(np.moveaxis(image, 0, -1)).save(own / "thumbnail.png")
    return tmp_path


def test_pictures_alone_lie_where_the_cells_name_says(archive: Path, pictured: Path) -> None:
    bands, pictures = (read_patches(root, CELL, THUMBNAILS) for root in (archive, pictured))
    ground = nominal_ground(CELL)
    for one, other in zip(bands, pictures, strict=True):
        assert not other.faults and all(np.array_equal(one.scene[name], other.scene[name]) for name in THUMBNAILS.names)
        i, j = divmod(other.number, 4)
        square = other.scene.footprint
        assert square and (square.crs, square.left, square.top) == (ground.crs, ground.left + 220 + 2560 * j, ground.top - 220 - 2560 * i)


def test_pictures_alone_lie_where_the_bands_would(pictured: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of a real cell each image begins at the nearest of its own pixels: those of 60 m up to 30 m beside, which no thumbnail shows."""
    ground, whole = nominal_ground(CELL), tmp_path_factory.mktemp("whole")
    for product in ("S2L2A", "S2L1C"):
        (folder,) = (pictured / f"Core-{product}" / "618U" / CELL).iterdir()
        for resolution, bands in ((10, ("B02", "B03", "B04")), (60, ("B01", "B09"))):
            left, top = (round(corner / resolution) * resolution for corner in (ground.left, ground.top))
            assert resolution == 10 or (left, top) != (ground.left, ground.top)
            for band in bands:
                raster(whole / folder.relative_to(pictured) / f"{band}.tif", np.full((10_680 // resolution,) * 2, 900, np.uint16),
                       resolution=resolution, left=left, top=top)
    for patch in (None, (0, 0), (3, 1)):
        settings: dict[str, Any] = {"given": ["S2L2A"], "table": THUMBNAILS, "patch": patch}
        assert read_cell(whole, CELL, **settings).footprint == read_cell(pictured, CELL, **settings).footprint
    radar = next((pictured / "Core-S1RTC" / "618U" / CELL).iterdir())          # a picture beside the bands of others lies on their 10 m
    alone = read_cell(pictured, CELL, given=["S1RTC"], table=THUMBNAILS)
    shutil.copytree(radar, whole / radar.relative_to(pictured))
    assert np.array_equal(read_cell(whole, CELL, given=["S1RTC"], table=THUMBNAILS)["s1rtc_thumbnail"], alone["s1rtc_thumbnail"])


def test_a_stored_picture_lies_on_its_bands(archive: Path, pictured: Path) -> None:
    (stored,), (folder,) = (list((root / "Core-S2L2A" / "618U" / CELL).iterdir()) for root in (pictured, archive))
    for band in ("B02", "B03", "B04"):
        (stored / f"{band}.tif").write_bytes((folder / f"{band}.tif").read_bytes())
    grey = np.random.default_rng(0).integers(0, 256, (1068, 1068), np.uint8)
    Image.fromarray(grey).save(stored / "thumbnail.png")
    settings: dict[str, Any] = {"given": ["S2L2A"], "table": THUMBNAILS}
    scene, drawn = read_cell(pictured, CELL, **settings), read_cell(archive, CELL, **settings)
    assert np.array_equal(scene["s2l2a_thumbnail"], np.repeat(grey[None, 406:662, 406:662], 3, 0)) and scene.footprint == drawn.footprint
    without = read_cell(pictured, CELL, **settings, offset=100)         # which the picture's numbers still have
    assert np.array_equal(without["s2l2a_thumbnail"], read_cell(archive, CELL, **settings, offset=100)["s2l2a_thumbnail"])
    Image.fromarray(grey[:256, :256]).save(stored / "thumbnail.png")    # no picture of the whole image
    assert np.array_equal(read_cell(pictured, CELL, **settings)["s2l2a_thumbnail"], drawn["s2l2a_thumbnail"])
    (stored / "thumbnail.png").write_bytes(b"nothing")
    assert np.array_equal(read_cell(pictured, CELL, **settings)["s2l2a_thumbnail"], drawn["s2l2a_thumbnail"])


def test_bad_pictures_are_faults(pictured: Path) -> None:
    with pytest.raises(ValueError, match=r"thumbnail\.png: is drawn of digital numbers as they were, and there are no bands"):
        read_cell(pictured, CELL, given=["S2L2A"], table=THUMBNAILS, offset=1000)
    (stored,) = (pictured / "Core-S1RTC" / "618U" / CELL).iterdir()
    whole = (stored / "thumbnail.png").read_bytes()
    (stored / "thumbnail.png").write_bytes(whole[:len(whole) // 2])
    (other,) = (pictured / "Core-DEM" / "618U" / CELL).iterdir()
    Image.new("L", (300, 300)).save(other / "thumbnail.png")
    for patch in read_patches(pictured, CELL, THUMBNAILS):
        assert {(fault.product, fault.reason) for fault in patch.faults} == {("S1RTC", "unreadable"), ("DEM", "unreadable")}
        assert set(patch.scene.layers) == {"s2l1c_thumbnail", "s2l2a_thumbnail"}
    with pytest.raises(ValueError, match=r"300 x 300 pixels, and a picture of the whole image has 1068 x 1068 or 356 x 356"):
        read_cell(pictured, CELL, given=["DEM"], table=THUMBNAILS)


def test_pictures_that_are_black_lack_data(pictured: Path) -> None:
    """A stored picture doesn't say where its bands had none; it is black there, and hardly anywhere else."""
    (stored,) = (pictured / "Core-S2L2A" / "618U" / CELL).iterdir()
    with Image.open(stored / "thumbnail.png") as image:
        wedge = np.asarray(image).copy()
    wedge[:22 + 64] = 0                                                  # a quarter of the northern patches
    Image.fromarray(wedge).save(stored / "thumbnail.png")
    for patch in read_patches(pictured, CELL, THUMBNAILS):
        assert {(fault.product, fault.reason) for fault in patch.faults} == ({("S2L2A", "no data")} if patch.number < 4 else set())
        assert not patch.faults or "25.00% of the patch is black" in patch.faults[0].detail


# --- the image around a square -------------------------------------------------------------------------------------------------------

def thumbnail(*inputs: str, **settings: Any) -> Array:
    scene = read_scene(inputs, table=THUMBNAILS, **settings)
    (layer,) = scene.layers.values()
    return layer


def test_of_a_large_file_the_tile_around_the_square_is_drawn(tmp_path: Path) -> None:
    values = power(2, 1600)
    plain = thumbnail(f"S1RTC={raster(tmp_path / 'a.tif', values, names=('vv', 'vh'))}")
    values[:, 10, 10] = 1e5                      # 6.6 km off the middle
    assert np.array_equal(thumbnail(f"S1RTC={raster(tmp_path / 'b.tif', values, names=('vv', 'vh'))}"), plain)
    values[:, 1300, 300] = 1e5                   # 5 km off: stretches
    assert thumbnail(f"S1RTC={raster(tmp_path / 'c.tif', values, names=('vv', 'vh'))}").max() < plain.max()
    corner = thumbnail(f"S1RTC={tmp_path / 'b.tif'}", window=(500_020.0, 6_000_040.0))  # the tile is moved into the file
    assert np.array_equal(corner, FalseColour().draw(values[:, :1068, :1068])[:, :256, :256])


def test_a_stretch_over_much_less_than_a_tile_warns(archive: Path, tmp_path: Path) -> None:
    """Not where colours depend on no other pixel, nor where the image is a whole one."""
    def stretched(text: str) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_scene([text], table=THUMBNAILS)
        return [str(one.message) for one in caught if issubclass(one.category, CopgenWarning) and "stretched over" in str(one.message)]

    radar = raster(tmp_path / "radar.tif", power(2, 300), names=("vv", "vh"))
    relief = raster(tmp_path / "relief.tif", hills(300))                 # drawn on pixels made for it
    for text in (f"S1RTC={radar}", f"DEM={relief}"):
        (message,) = stretched(text)
        assert "the 9 km2 that the file has" in message and "Major TOM's over 114 km2" in message
    whole = next((archive / "Core-S1RTC" / "618U" / CELL).iterdir())
    numbered = raster(tmp_path / "numbers.tif", numbers(3, 300), names=("B04", "B03", "B02"))
    assert not stretched(f"S1RTC={whole}") and not stretched(f"S2L2A={numbered}")


def test_no_data_outside_the_square_is_masked_and_inside_refused(tmp_path: Path) -> None:
    holed = hills(356)[None].copy()
    holed[:, :40] = -32768
    masked = thumbnail(f"DEM={raster(tmp_path / 'holed.tif', holed, resolution=30, nodata=-32768)}")
    assert np.array_equal(masked, thumbnail(f"DEM={raster(tmp_path / 'untagged.tif', holed, resolution=30)}"))
    edged = np.where(np.arange(356)[:, None] == 39, holed[:, 40:41], holed)             # slopes end at the edge, not in the hole
    drawn = Hillshade().draw(edged, np.broadcast_to(np.arange(356)[:, None] >= 40, (356, 356)))
    larger = np.asarray(Image.fromarray(drawn[0]).resize((1068, 1068), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(masked - larger[406:662, 406:662]).max() <= 1
    holed[:, 170, 170] = -32768
    path = raster(tmp_path / "inside.tif", holed, resolution=30)
    assert "has no data in DEM" in refused(f"DEM={path}", table=THUMBNAILS)
    filled = thumbnail(f"DEM={path}", fill=True)
    apart = np.abs(filled.astype(int) - masked)
    assert apart.max() > 0 and (apart.max(0) > 0).sum() < 15 * 15      # only the pixel and its neighbours


def test_an_image_of_another_zone_is_drawn_before_it_is_moved(tmp_path: Path) -> None:
    path = raster(tmp_path / "s1.tif", power(2, 1068), names=("vv", "vh"), left=500_000, top=6_000_000)
    (x,), (y,) = transform("EPSG:32630", "EPSG:32631", [505_340], [5_994_660])
    black = raster(tmp_path / "black.tif", np.zeros((3, 256, 256), np.uint8), crs=32631, left=x - 1280, top=y + 1280)
    scene = read_scene([f"S2L2A={black}", f"S1RTC={path}"], table=THUMBNAILS)
    own = thumbnail(f"S1RTC={path}")
    moved = scene["s1rtc_thumbnail"].astype(float)                     # turned by 5 degrees: other pixels, the same brightness
    assert np.allclose(moved.mean((1, 2)), own.mean((1, 2)), atol=1.5) and scene.footprint is not None


def test_heights_in_degrees_look_as_those_in_metres(tmp_path: Path) -> None:
    def height(x: Array, y: Array) -> Array:
        return (300 + 150 * np.sin(x / 700) * np.cos(y / 900)).astype(np.float32)

    metric = raster(tmp_path / "metric.tif", height(*np.meshgrid(500_000 + 30 * np.arange(356) + 15, 6_000_000 - 30 * np.arange(356) - 15)),
                    resolution=30, left=500_000, top=6_000_000)
    (west, east), (south, north) = transform("EPSG:32630", "EPSG:4326", [499_000, 512_000], [5_988_000, 6_001_000])
    size = 1 / 3600                              # a second of arc
    lon, lat = np.meshgrid(np.arange(west, east, size) + size / 2, np.arange(north, south, -size) - size / 2)
    x, y = (np.reshape(v, lon.shape) for v in transform("EPSG:4326", "EPSG:32630", lon.ravel(), lat.ravel()))
    degrees = raster(tmp_path / "degrees.tif", height(x, y), crs=4326, transform=from_origin(west, north, size, size))
    square = (504_060.0, 5_995_940.0)
    ours = read_scene([f"S2L2A={picture_at(tmp_path, square)}", f"DEM={degrees}"], table=THUMBNAILS)["dem_thumbnail"].astype(int)
    apart = np.abs(ours - thumbnail(f"DEM={metric}", window=square))
    assert apart.mean() < 2 and apart.max() < 30


def picture_at(folder: Path, corner: tuple[float, float]) -> Path:
    return raster(folder / "picture.tif", np.full((3, 256, 256), 9, np.uint8), left=corner[0], top=corner[1])


def test_heights_of_one_metre_are_averaged_in_blocks(tmp_path: Path) -> None:
    heights = hills(100)
    fine = np.kron(heights, np.ones((30, 30))).astype(np.float32)      # a window of more pixels than are read at once
    coarse = raster(tmp_path / "coarse.tif", heights, resolution=30)
    window = (500_020.0, 6_000_040.0)
    expected = thumbnail(f"DEM={coarse}", window=window)
    blocks = raster(tmp_path / "fine.tif", fine, resolution=1, compress="deflate")
    assert np.array_equal(thumbnail(f"DEM={blocks}", window=window), expected)
    middling = fine[::5, ::5].copy()
    middling[::6, ::6] = np.nan                  # 3 % of every 30 m: the mean of the others
    holed = raster(tmp_path / "holed.tif", middling, resolution=5)
    assert np.array_equal(thumbnail(f"DEM={holed}", window=window, fill=True), expected)


# --- real cells ----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("cell", ["38D_378R_2_3", "282D_485L_3_3", "637U_59R_1_3"])
def test_real_cells_drawn(cell: str, samples: Path) -> None:
    """They are of 2,240 m, too small for the model, so they are drawn whole."""
    table = replace(THUMBNAILS, footprint=2240)
    files = {product: samples / product / f"{cell}.tif" for product in THUMBNAILS.products}
    scene = read_scene([f"S1RTC={files['S1RTC']},unit=dB", *(f"{p}={files[p]}" for p in ("DEM", "S2L1C", "S2L2A"))], table=table)
    with rasterio.open(files["S2L2A"]) as bands, rasterio.open(samples / "S2RGB" / f"{cell}.tif") as rendered:
        numbers = bands.read([4, 3, 2]).astype(np.float64)
        theirs = rendered.read().astype(np.float64)
    expected = (np.clip(1.3 * (numbers / 10_000) ** 0.6, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(scene["s2l2a_thumbnail"], expected)
    for mine, other in zip(expected, theirs, strict=True):              # TerraMesh's own rendering of the same cell
        assert np.corrcoef(mine.ravel(), other.ravel())[0, 1] > 0.9
    assert all(scene["s1rtc_thumbnail"][k].min() == 0 and scene["s1rtc_thumbnail"][k].max() == 255 for k in (0, 2))
    relief = scene["dem_thumbnail"]
    assert np.array_equal(relief[0], relief[1]) and relief.min() == 0 and relief.max() == 255


def test_a_picture_beside_a_layer_warns(tmp_path: Path) -> None:
    Image.new("RGB", (256, 256), (1, 2, 3)).save(tmp_path / "s1.png")
    with pytest.warns(CopgenWarning, match=r"s1\.png: has no place, and is believed to show the square"):
        read_scene([f"S1RTC={tmp_path / 's1.png'}", f"S2L2A={picture_at(tmp_path, (500_000.0, 6_000_000.0))}"], table=THUMBNAILS)
