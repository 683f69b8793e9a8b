"""A model of thumbnails draws pictures from pictures, and keeps the ground where there is one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import TINY_THUMBNAILS
from PIL import Image
from rasterio.transform import from_origin
from typer.testing import CliRunner

from copgen.cli import app
from copgen.job import Job, given_scene, run, run_tiles
from copgen.loop import loop
from copgen.modalities import THUMBNAILS
from copgen.model import CopGen
from copgen.reading import CopgenWarning
from copgen.scene import Scene

PRODUCTS = ("DEM", "S1RTC", "S2L1C", "S2L2A")


def colours(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def s1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of radar as the model takes it: 256 x 256."""
    path = tmp_path_factory.mktemp("pictures") / "s1.webp"
    Image.fromarray(colours(256)).save(path, lossless=True)
    return path


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A larger one of 600 x 520: two tiles either way."""
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (520, 600, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def radar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Georeferenced radar of linear power over more than a square of 2560 m."""
    path, power = tmp_path_factory.mktemp("layers") / "radar.tif", np.random.default_rng(2).gamma(4, 0.02, (2, 300, 300))
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", count=2, height=300, width=300, crs="EPSG:32630",
                       transform=from_origin(500_000, 6_200_000, 10, 10)) as file:
        file.write(power.astype(np.float32))
        file.descriptions = ("vv", "vh")
    return path


def test_pictures_from_a_picture(s1: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    said: list[str] = []
    job = Job(tmp_path, model=str(tiny_thumbnails), inputs=(f"S1RTC={s1}",), want="DEM,S2L2A", samples=2, steps=2)
    result = run(job, say=said.append)
    assert said == ["given: s1rtc_thumbnail; wanted: dem_thumbnail, s2l2a_thumbnail"]         # nothing of a date
    assert result.folder == tmp_path / "s1" and result.given.footprint is None
    assert np.array_equal(np.moveaxis(result.given["s1rtc_thumbnail"], 0, -1), colours(256))
    for folder, scene in zip(result.samples, result.scenes, strict=True):
        assert {path.name for path in folder.iterdir()} == {"DEM_thumbnail.png", "S2L2A_thumbnail.png"}
        with Image.open(folder / "S2L2A_thumbnail.png") as image:
            assert np.array_equal(np.asarray(image), np.moveaxis(scene["s2l2a_thumbnail"], 0, -1))
            assert image.text["COPGEN_GIVEN"] == "s1rtc_thumbnail"                            # type: ignore[attr-defined]
    assert not np.array_equal(result.scenes[0]["s2l2a_thumbnail"], result.scenes[1]["s2l2a_thumbnail"])
    record = json.loads((result.folder / "run.json").read_text())
    assert record["square"] is None and record["given"] == {"s1rtc_thumbnail": [3, 256, 256]}
    assert set(record["model"]["sha256"]) == {"backbone.safetensors", "vae/rgb/codec.safetensors"}


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_other_kinds_of_pictures(kind: Any, tiny_thumbnails: Path, tmp_path: Path) -> None:
    result = run(Job(tmp_path, model=str(tiny_thumbnails), steps=1, pictures=kind))
    assert {path.name for path in result.samples[0].iterdir()} == {f"{product}_thumbnail.{kind}" for product in PRODUCTS}
    with Image.open(result.samples[0] / f"DEM_thumbnail.{kind}") as image:
        same = np.array_equal(np.asarray(image), np.moveaxis(result.scenes[0]["dem_thumbnail"], 0, -1))
        assert image.format == kind.upper() and (same or kind == "jpeg")
    assert result.record["request"]["pictures"] == kind


def test_thumbnails_of_a_georeferenced_layer_keep_its_ground(radar: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    result = run(Job(tmp_path, model=str(tiny_thumbnails), inputs=(f"S1RTC={radar}",), want="S2L2A", steps=1))
    square = result.given.footprint
    assert square is not None and square.side == 2560 and result.record["square"]["crs"] == "EPSG:32630"
    assert {path.name for path in result.samples[0].iterdir()} == {"S2L2A_thumbnail.tif", "S2L2A_thumbnail.png"}
    with rasterio.open(result.samples[0] / "S2L2A_thumbnail.tif") as file:
        assert file.crs == square.crs and file.transform == square.transform(10) and file.shape == (256, 256)
        assert np.array_equal(file.read(), result.scenes[0]["s2l2a_thumbnail"])
    again = run(Job(tmp_path / "back", model=str(tiny_thumbnails), inputs=(f"S2L2A={result.samples[0] / 'S2L2A_thumbnail.tif'}",),
                    want="S1RTC", steps=1))                               # what we write we read: the same colours on the same ground
    assert again.given.footprint == square
    assert np.array_equal(again.given["s2l2a_thumbnail"], result.scenes[0]["s2l2a_thumbnail"])


def test_every_tile_of_a_larger_picture_has_its_own_folder(wide: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int, int]] = []
    job = Job(tmp_path, model=str(tiny_thumbnails), inputs=(f"S2L2A={wide}",), want="S1RTC", samples=2, steps=1)
    results = list(run_tiles(job, progress=lambda *counts: seen.append(counts)))
    assert [one.folder.name for one in results] == ["wide_0_0", "wide_0_1", "wide_1_0", "wide_1_1"]
    assert seen[-1] == (8, 8, 8, 8) and [counts[0] for counts in seen] == sorted(counts[0] for counts in seen)
    with Image.open(wide) as image:
        whole = np.asarray(image)
    for k, one in enumerate(results):
        top, left = 4 + 256 * (k // 2), 44 + 256 * (k % 2)                # the middle 512 x 512 of 520 x 600
        assert np.array_equal(np.moveaxis(one.given["s2l2a_thumbnail"], 0, -1), whole[top : top + 256, left : left + 256])
    alone = run(replace(job, out=tmp_path / "alone", patch=(1, 0)))
    assert alone.folder.name == "wide_1_0"
    assert np.array_equal(alone.scenes[1]["s1rtc_thumbnail"], results[2].scenes[1]["s1rtc_thumbnail"])


def test_tiles_are_refused_together(wide: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, model=str(tiny_thumbnails), inputs=(f"S2L2A={wide}",), want="S1RTC", steps=1)
    (tmp_path / "wide_1_1").mkdir()
    (tmp_path / "wide_1_1" / "run.json").write_text("mine")
    with pytest.raises(ValueError, match=r"wide_1_1.run\.json: exists already"):
        run_tiles(job)
    assert [path.name for path in tmp_path.iterdir()] == ["wide_1_1"]
    for other in (replace(job, inputs=()), replace(job, patch=(0, 0)), replace(job, window=(0.0, 0.0))):
        with pytest.raises(ValueError, match="--tiles divides what --input gives"):
            run_tiles(other)


def test_a_tile_without_data_is_left_out_with_a_warning(tiny_thumbnails: Path, tmp_path: Path) -> None:
    heights = np.random.default_rng(3).uniform(10, 20, (1, 180, 180)).astype(np.float32)       # 5400 m: four tiles
    heights[0, :60, :60] = -32768

    def layer(name: str) -> Job:
        with rasterio.open(tmp_path / name, "w", driver="GTiff", dtype="float32", count=1, height=180, width=180, crs="EPSG:32630",
                           transform=from_origin(500_000, 6_200_000, 30, 30), nodata=-32768) as file:
            file.write(heights)
        return Job(tmp_path / "out", model=str(tiny_thumbnails), inputs=(f"DEM={tmp_path / name}",), want="S1RTC", steps=1)

    with pytest.warns(CopgenWarning, match=r"tile 0,0 is left out: .*no data"):
        results = list(run_tiles(layer("heights.tif")))
    assert [one.folder.name for one in results] == ["heights_0_1", "heights_1_0", "heights_1_1"]
    grounds = [one.given.footprint for one in results]
    assert all(ground is not None and ground.side == 2560 for ground in grounds)
    heights[:] = -32768
    with pytest.raises(ValueError, match=r"every tile of .* lacks data"), pytest.warns(CopgenWarning):
        run_tiles(layer("nothing.tif"))


def test_a_constant_is_a_brightness(s1: Path) -> None:
    scene = given_scene(Job(Path("out"), inputs=(f"S1RTC={s1}",), constants=("DEM=128",)), THUMBNAILS)
    assert scene.name == "s1-DEM-128" and scene["dem_thumbnail"].dtype == np.uint8 and (scene["dem_thumbnail"] == 128).all()
    for wrong in ("DEM=256", "DEM=-1", "DEM=1.5", "DEM=nan", "DEM=high"):
        with pytest.raises(ValueError, match="dem_thumbnail takes a brightness, a whole number of 0 to 255"):
            given_scene(Job(Path("out"), constants=(wrong,)), THUMBNAILS)


@pytest.mark.parametrize(("more", "says"), [
    ({"place": "10,20"}, "--place 10,20: the model has no row place; leave it out"),
    ({"date": "2021-07-23"}, "--date 2021-07-23: the model has no row date; leave it out"),
    ({"s1_unit": "dB"}, "--s1-unit dB: the model draws no radar power; leave it out"),
    ({"want": "LULC"}, "no modality or product is called 'LULC'"), ({"patch": (0, 0), "want": "DEM"}, "--patch chooses a square"),
])
def test_what_thumbnails_lack_is_refused(more: dict[str, Any], says: str, tiny_thumbnails: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        run(Job(tmp_path / "out", model=str(tiny_thumbnails), steps=1, **more))
    assert not (tmp_path / "out").exists()


def test_pictures_of_layers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--pictures webp: the model draws layers, not pictures; leave it out"):
        run(Job(tmp_path / "out", model=str(tiny_model), want="DEM", steps=1, pictures="webp"))
    with pytest.raises(ValueError, match="--pictures gif: there are png, webp, jpeg"):
        run(Job(tmp_path / "out", model=str(tiny_model), want="DEM", steps=1, pictures="gif"))     # type: ignore[arg-type]


def test_a_loop_over_thumbnails_drifts_in_levels(tiny_thumbnails: Path) -> None:
    start = Scene({f"{name}_thumbnail": np.moveaxis(colours(256, k), -1, 0) for k, name in enumerate(("s1rtc", "s2l2a"))},
                  name="noise", table=TINY_THUMBNAILS)

    class Quick(CopGen):
        def generate(self, *arguments: Any, **keywords: Any) -> list[Scene]:
            return super().generate(*arguments, **keywords, steps=1)

    rounds = loop(Quick(tiny_thumbnails), start, rounds=2, seeds=(0, 1))
    assert [one.number for one in rounds] == [1, 2] and set(rounds[1].scenes[1].layers) == {"s1rtc_thumbnail", "s2l2a_thumbnail"}
    (red,) = [d for d in rounds[0].drift if (d.seed, d.product, d.band, d.against, d.statistic) == (0, "S2L2A", "red", "start", "mae")]
    made = rounds[0].scenes[0]["s2l2a_thumbnail"][0].astype(float)
    assert red.unit == "levels of 255" and red.value == pytest.approx(np.abs(made - colours(256, 1)[..., 0]).mean())


def test_the_command_line_says_where_pictures_are(s1: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    words = ["generate", "--model", str(tiny_thumbnails), "--steps", "1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--input", f"S1RTC={s1}", "--want", "DEM,S2L2A", "--pictures", "webp"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "s1" / "contact_sheet.png").is_file() and "contact sheet:" in done.output
    assert (tmp_path / "out" / "s1" / "sample-000" / "DEM_thumbnail.webp").is_file()


def test_the_command_line_draws_every_tile(wide: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    words = ["generate", "--model", str(tiny_thumbnails), "--steps", "1", "--out", str(tmp_path), "--want", "DEM", "--tiles"]
    done = CliRunner().invoke(app, [*words, "--input", f"S1RTC={wide}"])
    assert done.exit_code == 0, done.output
    assert sorted(path.parent.name for path in tmp_path.glob("*/contact_sheet.png")) == ["wide_0_0", "wide_0_1", "wide_1_0", "wide_1_1"]
    refused = CliRunner().invoke(app, [*words, "--archive", str(tmp_path), "--given", "S2L2A", "--cells", "all"])
    assert refused.exit_code and "--patches all" in str(refused.exception)


def test_the_command_line_loops_over_pictures(s1: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    words = ["loop", "--model", str(tiny_thumbnails), "--input", f"S2L2A={s1}", "--rounds", "1", "--samples", "1"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "loop")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "loop" / "round-1" / "seed-0").iterdir()} == {"S1RTC_thumbnail.png", "S2L2A_thumbnail.png"}
    assert "levels of 255" in (tmp_path / "loop" / "drift.csv").read_text()
