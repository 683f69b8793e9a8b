"""Pictures in: as they are, the middle of larger ones, their tiles; on the ground where a file has it; refused where they mislead."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_rasters import QUIET, numbers, power, raster, read, refused
from numpy.typing import NDArray
from PIL import Image, ImageCms

from copgen.modalities import TABLE, THUMBNAILS
from copgen.reading import Input, parse_input, read_scene, tiles_of
from copgen.reading.pictures import describe_picture, read_picture
from copgen.scene import Scene
from copgen.thumbnails import TrueColour
from copgen.writing import geotiff

Array = NDArray[Any]
pytestmark = QUIET


def noise(height: int = 256, width: int = 256, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(side: int = 256) -> Array:
    x = np.linspace(0, 255, side)
    return np.stack([np.add.outer(x, x) / 2, np.add.outer(x, -x) / 2 + 128, np.full((side, side), 90.0)], -1).astype(np.uint8)


def saved(path: Path, pixels: Array | Image.Image, form: str | None = None, **settings: Any) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, form, **settings)
    return path


def png(path: Path, width: int, height: int, bits: int, kind: int, data: bytes, before: bytes = b"") -> Path:
    """A PNG written chunk by chunk (W3C, Portable Network Graphics, third edition, chapter 11)."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + (chunk(b"zTXt", before) if before else b"")
                     + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
    return path


def thumbnail(*inputs: str, **settings: Any) -> Array:
    (layer,) = read(*inputs, table=THUMBNAILS, **settings).layers.values()
    return layer


# --- what is taken -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("form", "settings"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pictures_come_as_they_are(form: str, settings: dict[str, Any], tmp_path: Path) -> None:
    pixels = noise()
    scene = read(f"S1RTC={saved(tmp_path / 'vv.tif', pixels, form, **settings)}", table=THUMBNAILS)     # whatever it is called
    assert np.array_equal(np.moveaxis(scene["s1rtc_thumbnail"], 0, -1), pixels) and scene["s1rtc_thumbnail"].dtype == np.uint8
    assert scene.footprint is None and scene.name == "vv" and set(scene.layers) == {"s1rtc_thumbnail"} and "square" not in scene.notes
    assert scene.notes["inputs"][0]["picture"] == {"format": form, "width": 256, "height": 256}


@pytest.mark.parametrize(("form", "settings"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_pictures_come_as_they_decode(form: str, settings: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "a", smooth(), form, **settings)            # colours at half the resolution
    assert np.abs(np.moveaxis(thumbnail(f"DEM={path}"), 0, -1).astype(int) - smooth()).mean() < 3


def test_grey_palettes_and_opaque_alpha_are_colours(tmp_path: Path) -> None:
    grey = noise()[..., 0]
    for form in ("PNG", "JPEG"):
        layer = read_picture(saved(tmp_path / "grey", grey, form, **({"quality": 100} if form == "JPEG" else {})))
        assert np.array_equal(layer[0], layer[1]) and np.array_equal(layer[0], layer[2])
    assert np.array_equal(read_picture(saved(tmp_path / "grey.png", grey))[0], grey)
    few = Image.fromarray(noise()).quantize(16)
    assert np.array_equal(np.moveaxis(read_picture(saved(tmp_path / "few.png", few)), 0, -1), np.asarray(few.convert("RGB")))
    opaque = np.dstack([noise(), np.full((256, 256), 255, np.uint8)])
    assert np.array_equal(np.moveaxis(read_picture(saved(tmp_path / "opaque.png", opaque)), 0, -1), noise())


def test_a_profile_changes_no_number(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(np.moveaxis(read_picture(saved(tmp_path / "a.png", noise(), icc_profile=profile)), 0, -1), noise())


# --- what is refused -----------------------------------------------------------------------------------------------------------------

def clear(kind: str) -> dict[str, Any]:
    if kind == "alpha":
        return {"pixels": np.dstack([noise(), np.where(np.arange(256) == 7, 254, 255).astype(np.uint8)[None].repeat(256, 0)])}
    few = Image.fromarray(noise()).quantize(16)
    return {"pixels": few, "transparency": 3} if kind == "palette" else {"pixels": noise(), "transparency": tuple(noise()[0, 0].tolist())}


@pytest.mark.parametrize("kind", ["alpha", "palette", "colour"])
def test_transparent_pictures_are_refused(kind: str, tmp_path: Path) -> None:
    assert "is transparent in places" in refused(f"DEM={saved(tmp_path / 'a.png', **clear(kind))}", table=THUMBNAILS)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_a_noted_rotation_is_refused_and_upright_is_not(form: str, tmp_path: Path) -> None:
    for orientation in (1, 3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / "a", noise(), form, exif=exif)
        if orientation == 1:
            assert read_picture(path).shape == (3, 256, 256)
        else:
            assert "north must be up" in refused(f"DEM={path}", table=THUMBNAILS)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_animations_are_refused(form: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a", noise(), form, save_all=True, append_images=[Image.fromarray(noise(seed=1))])
    assert "several pictures" in refused(f"DEM={path}", table=THUMBNAILS)


def test_other_kinds_of_pixels_are_refused(tmp_path: Path) -> None:
    deep = np.full((256, 256), 40_000, np.uint16)
    for path in (saved(tmp_path / "grey.png", deep), png(tmp_path / "rgb.png", 256, 256, 16, 2, (b"\0" + bytes(256 * 6)) * 256)):
        assert "16 bits" in refused(f"DEM={path}", table=THUMBNAILS)
    assert "CMYK" in refused(f"DEM={saved(tmp_path / 'a.jpg', Image.fromarray(noise()).convert('CMYK'))}", table=THUMBNAILS)
    assert "kind 1" in refused(f"DEM={saved(tmp_path / 'a.png', Image.fromarray(noise()[..., 0] > 99))}", table=THUMBNAILS)


def test_bombs_are_refused_unopened(tmp_path: Path) -> None:
    for side in (4097, 60_000):
        assert "at most 4096 x 4096" in refused(f"DEM={png(tmp_path / 'a.png', side, side, 8, 2, bytes(100))}", table=THUMBNAILS)
    text = b"k\0\0" + zlib.compress(bytes(100_000_000))
    assert "damaged" in refused(f"DEM={png(tmp_path / 'b.png', 256, 256, 8, 0, bytes(257) * 256, before=text)}", table=THUMBNAILS)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_truncated_and_damaged_pictures_are_refused(form: str, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", noise(), form).read_bytes()
    random = np.random.default_rng(1)
    for keep in (20, 60, len(whole) // 2, len(whole) - 40 if form != "JPEG" else len(whole) // 3):
        (tmp_path / "part").write_bytes(whole[:keep])
        assert "damaged" in refused(f"DEM={tmp_path / 'part'}", table=THUMBNAILS)
    for _ in range(40):                          # whatever is wrong in it, nothing but a refusal comes out
        hit = bytearray(whole)
        for at in random.integers(12, 400, 3):
            hit[at] = int(random.integers(256))
        (tmp_path / "hit").write_bytes(hit)
        try:
            assert read_picture(tmp_path / "hit").shape[0] == 3
        except ValueError as error:
            assert str(tmp_path / "hit") in str(error)


def test_what_is_no_picture_is_not_taken_for_one(tmp_path: Path) -> None:
    gif = saved(tmp_path / "a.png", Image.fromarray(noise()), "GIF")
    assert "is not a raster that is read here" in refused(f"DEM={gif}", table=THUMBNAILS)
    with pytest.raises(ValueError, match="no PNG, WebP or JPEG"):
        describe_picture(gif)
    assert "no such file" in refused(f"DEM={tmp_path / 'none.png'}", table=THUMBNAILS)
    picture = saved(tmp_path / "b.png", noise())
    assert "is not a raster that is read here" in refused(f"DEM={picture}")             # heights are no picture
    assert "takes no option unit=" in refused(f"DEM={picture},unit=m", table=THUMBNAILS)
    assert "is not a raster" in refused(f"DEM={picture},as=layer", table=THUMBNAILS)
    assert "no window can lie" in refused(f"DEM={picture}", table=THUMBNAILS, window=(0.0, 0.0))


# --- the square of a picture ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("height", "width", "top", "left"), [(256, 256, 0, 0), (257, 258, 0, 1), (259, 262, 2, 3), (1068, 1068, 406, 406)])
def test_of_a_larger_picture_the_middle_is_taken(height: int, width: int, top: int, left: int, tmp_path: Path) -> None:
    """The corners are torchvision's CenterCrop's: int(round(x / 2)), which rounds a half to the even number."""
    pixels = noise(height, width)
    layer = thumbnail(f"S2L2A={saved(tmp_path / 'a.png', pixels)}")
    assert np.array_equal(np.moveaxis(layer, 0, -1), pixels[top:top + 256, left:left + 256])


def test_smaller_pictures_are_refused(tmp_path: Path) -> None:
    message = refused(f"S2L2A={saved(tmp_path / 'a.png', noise(255, 300))}", table=THUMBNAILS)
    assert "300 x 255 pixels, and 256 x 256 of 10 m are needed" in message


def test_tiles_divide_the_middle(tmp_path: Path) -> None:
    pixels = noise(1068, 800)
    text = f"S2L2A={saved(tmp_path / 'a.png', pixels)}"
    tiles = tiles_of([text], table=THUMBNAILS)
    assert tiles == [(i, j) for i in range(4) for j in range(3)]
    rows = [np.concatenate([thumbnail(text, tile=(i, j)) for j in range(3)], 2) for i in range(4)]
    assert np.array_equal(np.moveaxis(np.concatenate(rows, 1), 0, -1), pixels[22:1046, 16:784])
    one = read(text, table=THUMBNAILS, tile=(2, 1))
    assert one.name == "a_2_1" and one.notes["tile"] == [2, 1]
    assert "no tile 4,0; there are 4 x 3" in refused(text, table=THUMBNAILS, tile=(4, 0))
    assert "give one of them" in refused(text, table=THUMBNAILS, tile=(0, 0), window=(0.0, 0.0))
    with pytest.raises(ValueError, match="show the same ground"):
        tiles_of([text, f"DEM={saved(tmp_path / 'b.png', noise())}"], table=THUMBNAILS)
    with pytest.raises(ValueError, match="0 tiles of 2560 m"):
        tiles_of([f"DEM={saved(tmp_path / 'c.png', noise(200, 200))}"], table=THUMBNAILS)


def test_heights_of_a_whole_tile_are_brought_to_10_m(tmp_path: Path) -> None:
    """Major TOM's pictures of heights have 356 pixels of 30 m; the published preparation enlarges them by Pillow's bilinear."""
    grey = (smooth(356)[..., 0] // 2 + noise(356, 356)[..., 0] // 2).astype(np.uint8)
    text = f"DEM={saved(tmp_path / 'dem.png', grey)}"
    expected = np.asarray(Image.fromarray(grey).resize((1068, 1068), Image.Resampling.BILINEAR))
    assert np.array_equal(thumbnail(text)[1], expected[406:662, 406:662])
    both = [text, f"S2L2A={saved(tmp_path / 's2.png', noise(1068, 1068))}"]
    assert len(tiles_of(both, table=THUMBNAILS)) == 16
    scene = read(*both, table=THUMBNAILS, tile=(0, 3))
    assert np.array_equal(scene["dem_thumbnail"][0], expected[22:278, 790:1046]) and scene.footprint is None
    other = thumbnail(f"S2L2A={saved(tmp_path / 'other.png', np.repeat(grey[..., None], 3, 2))}")         # not of heights: 10 m
    assert np.array_equal(other[0], grey[50:306, 50:306])


def test_two_pictures_are_one_square(tmp_path: Path) -> None:
    scene = read(f"S1RTC={saved(tmp_path / 's1.webp', noise(), lossless=True)}", f"dem={saved(tmp_path / 'dem.png', noise(seed=2))}",
                 table=THUMBNAILS)
    assert set(scene.layers) == {"s1rtc_thumbnail", "dem_thumbnail"} and scene.name == "s1"
    assert "given twice" in refused(f"s1_rtc={tmp_path / 's1.webp'}", f"S1RTC={tmp_path / 'dem.png'}", table=THUMBNAILS)


# --- pictures on the ground ----------------------------------------------------------------------------------------------------------

def test_a_georeferenced_picture_keeps_its_place(tmp_path: Path) -> None:
    pixels = np.moveaxis(noise(300, 300), -1, 0)
    pixels[:, 0, 0] = 0                          # all 256 levels are values, black too
    path = raster(tmp_path / "a.tif", pixels)
    scene = read(f"S2L1C={path}", table=THUMBNAILS)
    assert np.array_equal(scene["s2l1c_thumbnail"], pixels[:, 22:278, 22:278]) and scene["s2l1c_thumbnail"].dtype == np.uint8
    assert scene.footprint is not None and (scene.footprint.left, scene.footprint.top) == (500_240.0, 6_000_040.0 - 220)
    corner = (500_020.0, 6_000_040.0)
    assert np.array_equal(thumbnail(f"S2L1C={path}", window=corner), pixels[:, :256, :256])
    half = thumbnail(f"S2L1C={path}", window=(corner[0] + 5, corner[1]))                # between pixels: means, half upwards
    assert np.array_equal(half, (pixels[:, :256, :256].astype(int) + pixels[:, :256, 1:257] + 1) // 2)


def test_what_we_write_is_read_back(tmp_path: Path) -> None:
    ground = read(f"S2L2A={raster(tmp_path / 'ground.tif', np.moveaxis(noise(), -1, 0))}", table=THUMBNAILS)
    for row in THUMBNAILS.rows:
        layer = np.moveaxis(noise(seed=5), -1, 0)
        path = tmp_path / f"{row.product}_thumbnail.tif"
        path.write_bytes(geotiff(row, layer, ground.footprint, THUMBNAILS.footprint, {}))
        scene = read(f"{row.product}={path}", table=THUMBNAILS)
        assert np.array_equal(scene[row.name], layer) and scene.footprint == ground.footprint and not scene.notes["warnings"]


def test_as_says_which_where_a_file_does_not(tmp_path: Path) -> None:
    low = (smooth(300)[..., 0] // 2)[None]       # heights below 256 m in 8 bits
    path = raster(tmp_path / "low.tif", low)
    picture = thumbnail(f"DEM={path},as=thumbnail")
    assert np.array_equal(picture, np.repeat(low[:, 22:278, 22:278], 3, 0))
    drawn = thumbnail(f"DEM={path}")
    assert np.array_equal(drawn, thumbnail(f"DEM={path},as=layer")) and not np.array_equal(drawn, picture)
    colours = raster(tmp_path / "colours.tif", np.moveaxis(np.maximum(noise(300, 300), 1), -1, 0), names=("B02", "B03", "B04"))
    assert not np.array_equal(thumbnail(f"S2L2A={colours}"), thumbnail(f"S2L2A={colours},as=layer"))
    assert "as is one of thumbnail, layer" in refused(f"DEM={path},as=map", table=THUMBNAILS)
    assert "takes no option as=" in refused(f"DEM={path},as=layer")
    assert "whole numbers from 0 to 255" in refused(f"DEM={raster(tmp_path / 'deep.tif', numbers(1, 300))},as=thumbnail", table=THUMBNAILS)
    assert parse_input("DEM=a.png,as=thumbnail") == Input("DEM", Path("a.png"), {"as": "thumbnail"})


def test_layers_are_read_by_the_names_of_their_bands(tmp_path: Path) -> None:
    values = numbers(12, 300)
    stack = raster(tmp_path / "stack.tif", values)                      # the usual order, without names
    assert np.array_equal(thumbnail(f"S2L2A={stack}"), TrueColour().draw(values[[3, 2, 1], 22:278, 22:278]))
    three = raster(tmp_path / "three.tif", values[:3], names=("B02", "B03", "B04"))
    assert np.array_equal(thumbnail(f"s2l2a_thumbnail={three}"), TrueColour().draw(values[[2, 1, 0], 22:278, 22:278]))
    assert "name them in the file's order" in refused(f"S2L2A={raster(tmp_path / 'bare.tif', values[:3])}", table=THUMBNAILS)
    offset = thumbnail(f"S2L2A={three},offset=1000")
    assert np.array_equal(offset, TrueColour().draw(np.maximum(values[[2, 1, 0], 22:278, 22:278].astype(int) - 1000, 1)))
    decibel = raster(tmp_path / "db.tif", (10 * np.log10(power(2, 300))).astype(np.float32), names=("vv", "vh"))
    linear = raster(tmp_path / "linear.tif", power(2, 300), names=("vv", "vh"))
    assert np.abs(thumbnail(f"S1RTC={decibel},unit=dB").astype(int) - thumbnail(f"S1RTC={linear}")).max() <= 1
    assert "add unit=dB" in refused(f"S1RTC={decibel}", table=THUMBNAILS)


def test_tiles_on_the_ground_are_the_patches(tmp_path: Path) -> None:
    path = raster(tmp_path / "a.tif", numbers(3, 1068), names=("B04", "B03", "B02"))
    tiles = tiles_of([f"S2L2A={path}"], table=THUMBNAILS)
    assert len(tiles) == 16
    scene = read(f"S2L2A={path}", table=THUMBNAILS, tile=(3, 2))
    assert scene.footprint is not None and (scene.footprint.left, scene.footprint.top) == (500_020.0 + 220 + 5120, 6_000_040.0 - 220 - 7680)
    small = raster(tmp_path / "small.tif", power(2, 600), names=("vv", "vh"))
    inside = tiles_of([f"S2L2A={path}", f"S1RTC={small}"], table=THUMBNAILS)            # only those that both show
    assert inside == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert tiles_of([f"DEM={raster(tmp_path / 'dem.tif', numbers(1, 130).astype(np.float32), resolution=30)}"]) == [
        (i, j) for i in range(2) for j in range(2)]                     # of the other table: 1920 m


# --- scenes --------------------------------------------------------------------------------------------------------------------------

def test_a_scene_holds_pictures_as_whole_numbers() -> None:
    picture = np.moveaxis(noise(), -1, 0)
    for layer in (picture, picture.astype(np.float64), picture.astype(np.int64)):
        kept = Scene({"dem_thumbnail": layer}, table=THUMBNAILS)["dem_thumbnail"]
        assert kept.dtype == np.uint8 and np.array_equal(kept, picture)
    for wrong in (picture - 0.5, picture.astype(int) - 1, picture.astype(int) * 2):
        with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
            Scene({"dem_thumbnail": wrong}, table=THUMBNAILS)


def test_a_name_alone_is_an_input(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise())
    assert np.array_equal(read_scene(f"DEM={path}", table=THUMBNAILS)["dem_thumbnail"],
                          read_scene([Input("DEM", path)], table=THUMBNAILS)["dem_thumbnail"])
    assert TABLE.cut is None and THUMBNAILS.cut == 4 * THUMBNAILS.footprint
