"""What is said to go wrong with the published thumbnail model does not happen here (docs/differences.md), on a tiny model of its table."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY_THUMBNAILS, tiny_backbone, tiny_codec
from PIL import Image

from copgen import diffusion
from copgen.bulk.patches import read_patches
from copgen.majortom.cells import read_cell
from copgen.modalities import THUMBNAILS
from copgen.model import CopGen
from copgen.reading import read_scene
from copgen.scene import Scene
from copgen.store import save_model

STEPS, ROWS = 3, THUMBNAILS.names
RADAR, SURFACE = "s1rtc_thumbnail", "s2l2a_thumbnail"
CELL = "618U_30L"


@pytest.fixture(scope="module")
def model(tiny_thumbnails: Path) -> CopGen:
    return CopGen.from_pretrained(tiny_thumbnails, device="cpu", precision="fp32")


def picture(seed: int, side: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8)


def scene_of(**layers: np.ndarray) -> Scene:
    return Scene({f"{product}_thumbnail": layer for product, layer in layers.items()}, table=TINY_THUMBNAILS)


def saved(path: Path, layer: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.moveaxis(layer, 0, -1)).save(path)
    return path


# --- inputs are a mapping -----------------------------------------------------------------------------------------------------------

def test_the_order_in_which_pictures_are_named_means_nothing(model: CopGen, tmp_path: Path) -> None:
    """The published notebook sorts the names of what is given but not the images: two are swapped in one of its examples."""
    named = {"S1RTC": saved(tmp_path / "a.png", picture(1)), "DEM": saved(tmp_path / "b.png", picture(2))}
    inputs = [f"{product}={path}" for product, path in named.items()]
    there, back = (read_scene(words, table=model.table) for words in (inputs, inputs[::-1]))
    exchanged = read_scene([f"S1RTC={named['DEM']}", f"DEM={named['S1RTC']}"], table=model.table)
    samples = [model.generate(scene, "S2L2A", steps=STEPS)[0][SURFACE] for scene in (there, back, exchanged)]
    assert np.array_equal(there[RADAR], picture(1)) and np.array_equal(back[RADAR], picture(1))
    assert np.array_equal(samples[0], samples[1]) and not np.array_equal(samples[0], samples[2])


def test_any_rows_are_drawn_of_any_others(model: CopGen) -> None:
    everything = scene_of(dem=picture(0), s1rtc=picture(1), s2l1c=picture(2), s2l2a=picture(3))
    subsets = [rows for count in range(len(ROWS)) for rows in combinations(ROWS, count)]
    assert len(subsets) == 15
    for given in subsets:
        (sample,) = model.generate(everything.only(given), steps=2)
        assert tuple(sample.layers) == tuple(row for row in ROWS if row not in given)
        assert all(layer.dtype == np.uint8 and layer.shape == (3, 256, 256) for layer in sample.layers.values())


# --- what is neither given nor wanted -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("absent", ["joint", "noise", "drop"])
def test_what_is_neither_given_nor_wanted_is_never_noise_that_is_called_clean(model: CopGen, absent: Any,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[dict[str, Any], dict[str, float]]] = []
    sample = diffusion.sample

    def watched(backbone: Any, *args: Any, **options: Any) -> Any:
        def call(latents: Any, times: Any) -> Any:
            calls.append((dict(latents), {row: float(time[0]) for row, time in times.items()}))
            return backbone(latents, times)
        return sample(call, *args, **options)

    monkeypatch.setattr(diffusion, "sample", watched)
    model.generate(scene_of(s1rtc=picture(1)), "S2L2A", steps=STEPS, absent=absent)
    unknown = {"dem_thumbnail", "s2l1c_thumbnail"}
    assert calls
    for latents, times in calls:
        assert {row for row, time in times.items() if time == 0} == {RADAR}
        assert set(latents) == (set(ROWS) if absent != "drop" else {RADAR, SURFACE})
        if absent == "joint":
            assert {times[row] for row in unknown} == {times[SURFACE]}
        if absent == "noise":                    # the same noise at every call, and told as what it is
            assert all(times[row] == 1000 and latents[row].equal(calls[0][0][row]) for row in unknown)


def test_a_sample_does_not_depend_on_what_else_is_wanted(model: CopGen) -> None:
    given = scene_of(s1rtc=picture(1))
    alone, beside = (model.generate(given, want, steps=STEPS)[0][SURFACE] for want in ("S2L2A", "DEM,S2L1C,S2L2A"))
    assert np.array_equal(alone, beside)


# --- seeds --------------------------------------------------------------------------------------------------------------------------

def test_a_seed_is_a_sample_whatever_is_drawn_beside_it(model: CopGen) -> None:
    given = scene_of(s2l1c=picture(4))
    many = model.generate(given, "S2L2A", seeds=[5, 6, 7], steps=STEPS)
    (one,) = model.generate(given, "S2L2A", seeds=[7], steps=STEPS)
    assert one.notes["seed"] == 7 and np.array_equal(one[SURFACE], many[2][SURFACE])
    assert len({sample[SURFACE].tobytes() for sample in many}) == 3


def test_nothing_given_takes_no_data(model: CopGen) -> None:
    """The published script draws as many unconditional samples as a data set has."""
    first, second = model.generate(seeds=[0, 1], steps=STEPS)
    assert set(first.layers) == set(ROWS) and not np.array_equal(first[SURFACE], second[SURFACE])


# --- data ---------------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One cell of Major TOM's thumbnails, whose red tells the column and whose green the line; 30 m a pixel for elevation."""
    line, column = np.mgrid[:1068, :1068]
    colours = np.stack([column % 256, line % 256, column // 256 + 8 * (line // 256)]).astype(np.uint8)
    for product in THUMBNAILS.products:
        folder = tmp_path / f"Core-{product}" / "618U" / CELL / ("id" if product == "DEM" else f"{product}_20210101T110000")
        saved(folder / "thumbnail.png", colours if product != "DEM" else np.repeat(colours[:1, :356, :356], 3, 0))
    return tmp_path


def test_no_patch_is_turned_and_its_number_says_where_it_lies(archive: Path) -> None:
    """The published preparation mirrors half of all cells, those of the test set too, without a note; numbers then point elsewhere."""
    patches = read_patches(archive, CELL, THUMBNAILS)
    assert [patch.number for patch in patches] == list(range(16))
    line, column = np.mgrid[:256, :256]
    for patch in patches:
        assert patch.scene is not None
        top, left = 22 + 256 * (patch.number // 4), 22 + 256 * (patch.number % 4)
        for row in (RADAR, "s2l1c_thumbnail", SURFACE):
            red, green, _ = patch.scene[row]
            assert np.array_equal(red, (left + column) % 256) and np.array_equal(green, (top + line) % 256)
    again = read_patches(archive, CELL, THUMBNAILS)
    assert all(np.array_equal(one.scene[row], other.scene[row]) for one, other in zip(patches, again, strict=True) for row in ROWS)


def test_the_default_square_is_the_middle_patch_of_the_released_models_training(archive: Path) -> None:
    red, green, _ = read_cell(archive, CELL, given=["S2L2A"], table=THUMBNAILS)[SURFACE]
    line, column = np.mgrid[:256, :256]
    assert np.array_equal(red, (406 + column) % 256) and np.array_equal(green, (406 + line) % 256)


# --- sizes --------------------------------------------------------------------------------------------------------------------------

def test_no_size_is_written_into_the_code(tmp_path: Path) -> None:
    """Another square, codec and patch of the same rows: only the table says so."""
    table = replace(THUMBNAILS, footprint=640, patch=4)
    codec = tiny_codec(3, latent_channels=4)
    save_model(tmp_path / "small", "small", "Apache-2.0", tiny_backbone(table), dict.fromkeys(table.images, codec), name_of=lambda _: "rgb")
    small = CopGen.from_pretrained(tmp_path / "small", device="cpu")
    (sample,) = small.generate(Scene({RADAR: picture(1, 64)}, table=table), "S2L2A", steps=2)
    assert sample[SURFACE].shape == (3, 64, 64) and small.table.sequence_length == 4 + 4 * 4
    assert sorted(path.name for path in (tmp_path / "small" / "vae").iterdir()) == ["rgb"]
