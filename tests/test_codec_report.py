"""What a codec loses is measured in the units of the world, at places that nothing was fitted on, beside codecs that learnt nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, filled, tiny_codec
from test_vae_training import QUICK, SCENES, SOURCE, recipe
from torch import Tensor
from typer.testing import CliRunner

from copgen.cli import app
from copgen.codec import CERTAIN, draw
from copgen.scene import Scene
from copgen.training.codec_report import (
    Codecs,
    codec_report,
    data_in,
    errors,
    open_codecs,
    read_cells,
    reconstructed,
    reconstruction_errors,
    shared_worlds,
)
from copgen.training.sources import Scenes
from copgen.training.trivial import BlockMajority, fit_block_pca
from copgen.training.vae import train_vae

RANDOM = np.random.default_rng(0)


# Errors


def test_known_errors_of_reflectance_come_out() -> None:
    """Every element off by 100 DN: 40 dB below 10,000. One band off by 300: it alone."""
    truth = RANDOM.uniform(0, 5000, (3, 4, 16, 16))
    found = errors(TINY["s2l2a_10m"], truth, truth + 100 * RANDOM.choice([-1, 1], truth.shape))
    assert (found["mae"], found["rmse"], found["psnr"]) == pytest.approx((100, 100, 40))
    made = truth.copy()
    made[:, 2] += 300
    found = errors(TINY["s2l2a_10m"], truth, made)
    assert {key: value for key, value in found.items() if key.startswith("rmse ")} == pytest.approx(
        {"rmse B04": 0, "rmse B03": 0, "rmse B02": 300, "rmse B08": 0})
    assert (found["mae"], found["rmse"]) == pytest.approx((75, 150))


def test_the_peak_ratio_is_the_mean_over_places() -> None:
    truth = np.zeros((2, 2, 8, 8))
    made = truth + np.array([10, 1000.0])[:, None, None, None]
    assert errors(TINY["s2l2a_60m"], truth, made)["psnr"] == pytest.approx((60 + 20) / 2)
    alone = [errors(TINY["s2l2a_60m"], truth[k : k + 1], made[k : k + 1])["psnr"] for k in (0, 1)]
    assert alone == pytest.approx([60, 20])


def test_radar_is_measured_in_decibels() -> None:
    power = 10 ** RANDOM.uniform(-2.5, 0, (2, 2, 8, 8))
    found = errors(TINY["s1rtc"], power, power * 10**0.15)
    assert found["mae"] == pytest.approx(1.5) and found["rmse"] == pytest.approx(1.5)
    assert errors(TINY["s1rtc"], 0 * power, 0 * power)["rmse"] == 0                     # no power is the smallest, not minus infinity


def test_heights_are_measured_in_metres_and_against_the_relief_where_there_is_some() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1000, 64), (1, 1, 64, 64))
    flat = np.full((1, 1, 64, 64), 300.0)
    found = errors(TINY["dem"], np.concatenate([ramp, flat]), np.concatenate([ramp + 9, flat + 3]))
    assert found["mae"] == pytest.approx(6)
    assert found["percent_of_relief"] == pytest.approx(1.0, rel=0.01) and found["hilly_places"] == 1
    assert "percent_of_relief" not in errors(TINY["dem"], flat, flat)


def test_classes_are_counted() -> None:
    """Of 100 pixels 80 are trees and 20 crops; 10 crops are taken for trees."""
    truth = np.repeat([2, 5], [80, 20]).reshape(1, 1, 10, 10)
    made = np.repeat([2, 5], [90, 10]).reshape(1, 1, 10, 10)
    found = errors(TINY["lulc"], truth, made)
    assert found == pytest.approx({"accuracy": 90, "iou": 100 * (80 / 90 + 10 / 20) / 2})
    assert errors(TINY["lulc"], truth, truth) == {"accuracy": 100, "iou": 100}
    strange = np.where(np.arange(100).reshape(truth.shape) < 5, 1, truth)
    assert errors(TINY["lulc"], truth, strange)["iou"] == pytest.approx(100 * (75 / 80 + 1) / 2)       # a class that isn't there counts not


def test_a_row_without_a_grid_has_no_errors() -> None:
    with pytest.raises(ValueError, match="date has no grid"):
        errors(TINY["date"], np.zeros((1, 1)), np.zeros((1, 1)))


def test_errors_of_a_codec_are_those_of_what_it_makes_whatever_goes_through_together() -> None:
    layers = SOURCE.layers(["s2l2a_60m"], [0, 1, 2] * 7)["s2l2a_60m"]
    codec = tiny_codec(2)
    made = reconstructed(codec, TINY["s2l2a_60m"], layers)
    assert made.shape == layers.shape
    np.testing.assert_allclose(made[4], reconstructed(codec, TINY["s2l2a_60m"], layers[4:5])[0], rtol=1e-5, atol=0.1)
    assert reconstruction_errors(codec, TINY["s2l2a_60m"], layers) == errors(TINY["s2l2a_60m"], layers, made)


# Trivial codecs


def images(count: int, channels: int = 2, side: int = 16) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(count)) * 2 - 1


def through(codec: object, pixels: Tensor) -> Tensor:
    return codec.decode(draw(codec.moments(pixels), codec.scaling_factor))               # type: ignore[attr-defined]


def test_all_components_keep_all_and_fewer_lose_what_their_variances_say() -> None:
    pixels = images(20)
    whole = fit_block_pca([pixels], 4, 32)
    torch.testing.assert_close(through(whole, pixels), pixels.double())
    few = fit_block_pca([pixels[:7], pixels[7:]], 4, 5)                                 # in parts or at once
    blocks = pixels.double().unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 32)
    lost = torch.linalg.eigvalsh(torch.cov(blocks.T, correction=0))[:-5].sum()
    assert float((through(few, pixels) - pixels).square().mean()) == pytest.approx(float(lost) / 32, rel=1e-9)
    assert few.moments(pixels).shape == (20, 10, 4, 4) and (few.moments(pixels)[:, 5:] == CERTAIN).all()


def test_no_other_codec_of_that_size_that_is_linear_is_better_where_it_was_fitted() -> None:
    pixels = images(30)
    fitted, elsewhere = fit_block_pca([pixels], 4, 3), fit_block_pca([images(31)], 4, 3)
    assert (through(fitted, pixels) - pixels).square().mean() < (through(elsewhere, pixels) - pixels).square().mean()


def test_the_majority_keeps_one_class_a_block() -> None:
    classes = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 1], [2, 2, 0, 0], [2, 0, 0, 0]])
    planes = 2 * torch.nn.functional.one_hot(classes, 3).movedim(-1, 0)[None].float() - 1
    kept = through(BlockMajority(3, 2), planes)
    assert kept.argmax(1)[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 0], [2, 2, 0, 0]]
    assert set(kept.unique().tolist()) == {-1.0, 1.0}


def test_nothing_to_fit_on_is_said() -> None:
    with pytest.raises(ValueError, match="no blocks to fit it on"):
        fit_block_pca([], 8, 8)


# The report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two codecs as their trainings left them."""
    folder = tmp_path_factory.mktemp("vae")
    for row in ("dem", "lulc"):
        train_vae(row, recipe(how=replace(QUICK, steps=2)), Scenes("synthetic:0..6", SCENES, TINY), folder / row)
    return folder


OTHERS = Scenes("others", SCENES[3:], TINY)
HERE = Scenes("here", SCENES[:3], TINY)


def test_a_report_has_each_row_beside_its_trivial_codecs(runs: Path) -> None:
    report = codec_report(open_codecs(str(runs)), HERE, OTHERS, each=True)
    assert list(report["rows"]) == ["dem", "lulc"] and report["seen"] == []
    assert list(report["rows"]["dem"]["codecs"]) == ["codec", "block PCA"] and report["rows"]["dem"]["unit"] == "m"
    assert list(report["rows"]["lulc"]["codecs"]) == ["codec", "block PCA", "block majority"]
    for found in report["rows"].values():
        for measured in found["codecs"].values():
            assert found["count"] == 3 == len(measured["each"])
    dem = report["rows"]["dem"]["codecs"]["block PCA"]
    assert np.mean([one["mae"] for one in dem["each"]]) == pytest.approx(dem["all"]["mae"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_one_run_a_folder_of_runs_and_a_model_are_opened(runs: Path, tiny_model: Path) -> None:
    assert set(open_codecs(str(runs)).by_row) == {"dem", "lulc"} and set(open_codecs(str(runs), "LULC").by_row) == {"lulc"}
    one = open_codecs(str(runs / "dem"))
    assert set(one.by_row) == {"dem"} and one.table == TINY and one.trained_on == ("synthetic:0..6",)
    assert set(open_codecs(str(tiny_model), "S2L2A,place").by_row) == {"s2l2a_10m", "s2l2a_20m", "s2l2a_60m"}
    with pytest.raises(ValueError, match=r"no codec of s1rtc in there; there are those of dem, lulc"):
        open_codecs(str(runs), "S1RTC")
    with pytest.raises(ValueError, match=r"no model is called 'nowhere'"):
        open_codecs("nowhere")


def test_places_are_kept_apart(runs: Path) -> None:
    codecs = open_codecs(str(runs))
    with pytest.raises(ValueError, match=r"--fit here: has places of here, where errors are measured; fit on others"):
        codec_report(codecs, HERE, HERE)
    assert codec_report(codecs, Scenes("synthetic:5..8", SCENES[:2], TINY), OTHERS)["seen"] == ["synthetic:0..6"]
    assert shared_worlds("synthetic:0..10", "synthetic:9..12") and not shared_worlds("synthetic:0..10", "synthetic:10..12")
    assert shared_worlds("real", "real") and not shared_worlds("real", "synthetic:0..3")
    assert data_in({"data": {"source": "a", "more": {"source": "b"}}, "steps": 3}) == ("a", "b")


def test_rows_that_places_lack_are_left_out_and_none_at_all_is_refused(runs: Path) -> None:
    some = Scenes("some", [SCENES[0].only("dem"), SCENES[1]], TINY)
    rows = codec_report(open_codecs(str(runs)), some, OTHERS)["rows"]
    assert rows["dem"]["count"] == 2 and rows["lulc"]["count"] == 1
    with pytest.raises(ValueError, match=r"empty: has none of the rows dem, lulc"):
        codec_report(open_codecs(str(runs)), Scenes("empty", [Scene(table=TINY)], TINY), OTHERS)
    with pytest.raises(ValueError, match=r"--fit heights: has no lulc; fit on data that has it"):
        codec_report(open_codecs(str(runs)), HERE, Scenes("heights", [SCENES[3].only("dem")], TINY))


def test_a_better_codec_has_smaller_errors() -> None:
    """The truth through components of its own kind, against a codec of random weights."""
    random = tiny_codec(1)
    report = codec_report(Codecs("random", TINY, {"dem": filled(random, 1)}), HERE, OTHERS)
    measured = report["rows"]["dem"]["codecs"]
    assert measured["block PCA"]["all"]["rmse"] < measured["codec"]["all"]["rmse"]


# Real cells and the command


def test_cells_are_read_in_their_units(samples: Path) -> None:
    cells = read_cells(samples, TINY)
    assert [scene.name for scene in cells.scenes] == ["282D_485L_3_3", "38D_378R_2_3", "637U_59R_1_3"]
    assert cells.present(["s2l2a_10m", "cloud_mask"], [0, 1, 2]).tolist() == [[True, False]] * 3
    assert all(np.percentile(scene["s2l1c_60m"][2], 1) < 100 for scene in cells.scenes)         # one of them came with the offset
    assert all(0 < np.median(scene["s1rtc"]) < 1 for scene in cells.scenes)


def test_a_folder_without_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--cells .*: no files FOLDER/<product>/<cell>\.tif in there; products are .*DEM"):
        read_cells(tmp_path, TINY)


def test_the_command_prints_a_table_and_writes_the_figures(runs: Path, scene: Scene, tmp_path: Path) -> None:
    from copgen.shards import write_shards
    from copgen.training.sources import meta_of, packed_layers

    for name, some in (("here", SCENES[:2]), ("there", SCENES[2:])):
        source = Scenes(name, some, TINY)
        write_shards(tmp_path / name, len(some), lambda numbers, source=source: packed_layers(source, TINY, numbers), per_shard=4,
                     meta=meta_of(source, TINY))
    out = tmp_path / "report.json"
    arguments = ["codec-report", str(runs), "--data", str(tmp_path / "here"), "--fit", str(tmp_path / "there"), "--out", str(out), "--each"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for word in ("lulc (%)", "dem (m)", "block PCA", "block majority", "RMSE", "IoU %", "trivial codecs fitted on there"):
        assert word in result.output
    (report,) = json.loads(out.read_text())
    assert report["places"] == "here" and report["rows"]["lulc"]["count"] == 2
    refused = CliRunner().invoke(app, ["codec-report", str(runs)])
    assert isinstance(refused.exception, ValueError) and "nowhere to measure" in str(refused.exception)
