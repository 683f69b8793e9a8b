"""An archive becomes shards of moments that depend on its cells alone, with a record of what became of every patch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from made_archive import CELL, EAST, REAL, SOUTH, make_archive

from copgen import geoparquet, shards
from copgen.bulk import encode
from copgen.bulk.encode import Codecs, Encoder, How, Task, batch_for, encode_archive
from copgen.bulk.patches import Limits, read_patches
from copgen.codec import KLCodec
from copgen.majortom.cells import cells as cells_on_disk
from copgen.model import CopGen
from copgen.shards import PRESENT, open_shards
from copgen.store import load_codec, save_codec
from copgen.training.encode import check_codecs, stored_moments

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")          # rasterio's own
ROWS = ("place", "date", "dem", "s1rtc", "s2l2a_20m")
CELLS = sorted((CELL, EAST, SOUTH))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cells; one has no radar."""
    root = tmp_path_factory.mktemp("archives") / "archive"
    make_archive(root, CELLS, content="grain")
    shutil.rmtree(root / "Core-S1RTC" / EAST.split("_")[0] / EAST)
    return root


@pytest.fixture(scope="module")
def codecs(tiny_model: Path) -> Codecs:
    return Codecs.of(CopGen.from_pretrained(tiny_model), ROWS)


@pytest.fixture(scope="module")
def latents(archive: Path, codecs: Codecs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three cells, two a shard; read it, don't write to it."""
    return encode_archive(archive, codecs, tmp_path_factory.mktemp("latents") / "latents", cells_per_shard=2).folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("shard-*"))}


# What is in the shards


def test_shards_hold_the_codecs_moments_of_every_patch(archive: Path, codecs: Codecs, latents: Path) -> None:
    made = open_shards(latents)
    assert list(made.counts) == [72, 36] and made.meta["kind"] == "moments" and made.meta["rows"] == list(ROWS)
    there = made.present(ROWS, np.arange(108))
    for k, cell in enumerate(CELLS):
        assert (there[36 * k : 36 * k + 36] == [True, True, True, cell != EAST, True]).all()
        patches = read_patches(archive, cell, codecs.table)
        for number in (0, 17, 35):
            found, scene = made.read(ROWS, np.array([36 * k + number])), patches[number].scene
            for row in ROWS:
                if row not in scene:
                    assert not found[row].any()
                    continue
                pixels = torch.from_numpy(TINY[row].scale.to_model(scene[row]))
                with torch.no_grad():
                    stored = load_codec(codecs.folders[row]).moments(pixels[None]) if row in codecs.folders else pixels[None]
                assert found[row].dtype == (np.float16 if row in codecs.folders else np.float32)
                np.testing.assert_allclose(found[row].astype(np.float32), stored.numpy(), rtol=2e-3, atol=2e-3)


def test_the_index_says_where_and_when_each_sample_is(archive: Path, codecs: Codecs, latents: Path) -> None:
    index, about = geoparquet.read(latents / "index.parquet"), geoparquet.describe(latents / "index.parquet")
    lines = index.to_pylist()
    assert [(line["cell"], line["patch"]) for line in lines] == [(cell, n) for cell in CELLS for n in range(36)]
    assert [(line["shard"], line["row"]) for line in lines] == [(0, n) for n in range(72)] + [(1, n) for n in range(36)]
    assert about.geometry == "geometry" and about.notes["rows"] == list(ROWS) and about.notes["archive"] == "archive"
    lon, lat = geoparquet.places(index["geometry"])
    for k, cell in enumerate(CELLS):
        for patch in read_patches(archive, cell, codecs.table)[::7]:
            line = lines[36 * k + patch.number]
            assert (lat[36 * k + patch.number], lon[36 * k + patch.number]) == tuple(patch.scene["place"])
            assert line["date"] == patch.scene["date"][0].item()
            assert line["modalities"] == sum(1 << bit for bit, row in enumerate(ROWS) if row in patch.scene)
    assert geoparquet.describe(latents / "rejected.parquet").rows == 0


def test_who_trains_can_tell_whether_the_codecs_are_these(latents: Path, tiny_model: Path, tmp_path: Path) -> None:
    check_codecs(open_shards(latents), tiny_model / "vae")
    with pytest.raises(ValueError, match="is not the codec"):
        check_codecs(open_shards(latents), tmp_path)


def test_moments_are_cut_to_what_16_bits_hold() -> None:
    class Extreme(torch.nn.Module):
        quant_conv = torch.nn.Conv2d(1, 1, 1)

        def moments(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1e9, 7.0, -1e9, 1e9]).reshape(1, 4, 1, 1)

    codec: Any = Extreme()
    assert stored_moments(codec, np.zeros((1, 1, 1, 1), np.float32)).ravel().tolist() == [np.inf, 7, -65504, 65504]


# The same to the last bit


def test_a_cells_moments_depend_on_no_other_cell_nor_on_threads(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = open_shards(encode_archive(archive, codecs, tmp_path / "alone", cells=[EAST]).folder)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    among, first = open_shards(latents), 36 * CELLS.index(EAST)
    for row, array in alone.read((*ROWS, PRESENT), np.arange(36)).items():
        assert np.array_equal(array, among.read((row,), np.arange(first, first + 36))[row])


@pytest.mark.parametrize("batch", [1, 5, 36])
def test_a_patchs_moments_depend_on_no_other_patch(archive: Path, codecs: Codecs, tmp_path: Path, batch: int) -> None:
    worker = Encoder(archive, tmp_path, codecs, How(batch=batch), "cpu")
    patches, arrays = worker.encoded(CELL)
    some = [patches[n] for n in (31, 2, 17)]
    for row in ROWS:
        assert np.array_equal(worker.stored(row, some), arrays[row][[31, 2, 17]])


def test_a_gpu_has_a_cells_patches_at_once_or_what_its_memory_holds(codecs: Codecs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_for(codecs, "cpu") == batch_for(codecs, "auto") == 4 and batch_for(codecs, "cuda") == 36       # of workers elsewhere
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    one = 6 * 4 * 8 * 48**2                      # bytes of a patch in the largest codec: 8 channels on 48 x 48 after its stem
    for free, batch in ((1 << 40, 36), (4 * 5 * one, 5), (1, 1)):
        monkeypatch.setattr(encode, "free_memory", lambda device, free=free: free)
        assert batch_for(codecs, "auto") == batch and batch_for(codecs, "cpu") == 4


def test_two_processes_write_the_bytes_of_one(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = encode_archive(archive, codecs, tmp_path / "latents", cells_per_shard=2, workers=2, progress=lambda *done: seen.append(done))
    assert contents(report.folder) == contents(latents)
    assert seen[0] == (0, 3) and seen[-1] == (3, 3) and report.made == 2 and report.patches == 108


# Going on


def test_shards_that_are_there_are_kept(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path) -> None:
    folder, before = shutil.copytree(latents, tmp_path / "latents"), contents(latents)
    for gone, rewritten in ((("shard-00001.safetensors", "index.json"), 1), (("shard-00000.parquet", "index.parquet"), 0)):
        for name in gone:
            (folder / name).unlink()
        kept = stamps(folder)
        report = encode_archive(archive, codecs, folder, cells_per_shard=2)
        assert (report.made, report.kept) == (1, 1) and contents(folder) == before
        assert all(stamps(folder)[name] == stamp for name, stamp in kept.items() if f"0000{rewritten}" not in name)
    cut = folder / "shard-00000.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    assert encode_archive(archive, codecs, folder, cells_per_shard=2).made == 1 and contents(folder) == before


def test_records_that_are_damaged_are_to_be_deleted(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path) -> None:
    folder, before = shutil.copytree(latents, tmp_path / "latents"), contents(latents)
    (folder / "shard-00001.parquet").write_bytes(before["shard-00001.parquet"][:1000])
    with pytest.raises(ValueError, match=r"shard-00001\.parquet: .*; delete it and run copgen encode again"):
        encode_archive(archive, codecs, folder, cells_per_shard=2)
    (folder / "shard-00001.parquet").unlink()
    encode_archive(archive, codecs, folder, cells_per_shard=2)
    assert contents(folder) == before


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(archive: Path, codecs: Codecs, latents: Path, tiny_model: Path,
                                                         tmp_path: Path) -> None:
    """Killed with its workers as soon as its first shard is there."""
    folder = tmp_path / "latents"
    code = ("import sys; from pathlib import Path; from copgen.bulk.encode import *; model, archive, out = map(Path, sys.argv[1:4])\n"
            "if __name__ == '__main__':\n"
            f"    encode_archive(archive, Codecs.of(CopGen(model), {ROWS}), out, cells_per_shard=2, workers=2)")
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), str(tiny_model), str(archive), str(folder)], start_new_session=True)
    until = time.monotonic() + 120
    while not list(folder.glob("shard-*.safetensors")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(folder.glob("shard-*.safetensors"))
    if not (folder / "index.json").is_file():
        with pytest.raises(ValueError, match="is not finished"):
            open_shards(folder)
    encode_archive(archive, codecs, folder, cells_per_shard=2)
    assert {name: data for name, data in contents(folder).items() if not name.startswith(".")} == contents(latents)


@pytest.mark.parametrize(("changed", "match"), [
    ({"cells_per_shard": 3}, "cells_per_shard 2, not 3"),
    ({"cells": CELLS[:2]}, r"cells 3 \(38D_378R to 618U_30L\), not 2"),
    ({"how": How(limits=Limits(no_data=0.01))}, "how"),
    ({"how": How(batch=5)}, "how"),
])
def test_another_plan_is_refused(archive: Path, codecs: Codecs, latents: Path, changed: dict[str, Any], match: str) -> None:
    before = contents(latents)
    with pytest.raises(ValueError, match=f"another plan, with {match}"):
        encode_archive(archive, codecs, latents, **{"cells_per_shard": 2, **changed})
    assert contents(latents) == before


def test_other_rows_or_codecs_are_another_plan(archive: Path, codecs: Codecs, latents: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another plan, with rows"):
        encode_archive(archive, Codecs.of(CopGen(tiny_model), ROWS[:4]), latents, cells_per_shard=2)
    folders = {row: shutil.copytree(folder, tmp_path / row) for row, folder in codecs.folders.items()}
    save_codec(shifted(load_codec(folders["dem"])), folders["dem"])
    with pytest.raises(ValueError, match="another plan, with codecs"):
        encode_archive(archive, Codecs.under(tmp_path, codecs.table), latents, cells_per_shard=2)


@pytest.mark.parametrize("lost", ["plan.json", "shard-00000.parquet plan.json index.json"])
def test_shards_that_something_else_wrote_are_refused_and_kept(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path,
                                                               lost: str) -> None:
    folder = shutil.copytree(latents, tmp_path / "latents")
    for name in lost.split():
        (folder / name).unlink()
    before = contents(folder)
    with pytest.raises(ValueError, match="choose another folder"):
        encode_archive(archive, codecs, folder, cells_per_shard=2)
    assert contents(folder) == before


def shifted(codec: KLCodec, by: float = 1.0) -> KLCodec:
    assert codec.quant_conv.bias is not None
    with torch.no_grad():
        codec.quant_conv.bias += by
    return codec


# What is bad


@pytest.fixture
def spoiled(archive: Path, tmp_path: Path) -> Path:
    """The archive with a band of one cell cut short."""
    root = shutil.copytree(archive, tmp_path / "archive")
    path = next((root / "Core-S2L2A" / CELL.split("_")[0] / CELL).rglob("B11.tif"))
    path.write_bytes(path.read_bytes()[:5000])
    return root


def test_bad_patches_are_counted_by_reason_and_none_is_lost(spoiled: Path, codecs: Codecs, tmp_path: Path) -> None:
    report = encode_archive(spoiled, codecs, tmp_path / "latents", cells=[*CELLS, "0U_0R"], cells_per_shard=1)
    assert (report.tally.samples, report.tally.rejected) == (72, 72)
    assert report.tally.reasons == {"unreadable": 36, "not there": 36} and report.tally.rows["s1rtc"] == 36
    assert list(open_shards(report.folder).counts) == [0, 36, 36, 0]             # 0U_0R, 38D_378R, 618U_29L, 618U_30L
    rejected = geoparquet.read(report.folder / "rejected.parquet").to_pylist()
    assert {(line["cell"], line["product"], line["reason"]) for line in rejected} == {
        (CELL, "S2L2A", "unreadable"), ("0U_0R", "all", "not there")}
    assert len(rejected) == 72 and all(line["row"] is None and str(spoiled) not in line["detail"] for line in rejected)
    assert json.loads((report.folder / "index.json").read_text())["meta"]["reasons"] == report.tally.reasons


def test_a_patch_may_be_kept_without_the_product_that_is_bad(spoiled: Path, codecs: Codecs, tmp_path: Path) -> None:
    report = encode_archive(spoiled, codecs, tmp_path / "latents", how=How(bad="absent"))
    assert (report.tally.samples, report.tally.rejected, report.tally.reasons) == (108, 0, {"unreadable": 36})
    assert report.tally.rows == {"place": 108, "date": 108, "dem": 108, "s1rtc": 72, "s2l2a_20m": 72}
    made = open_shards(report.folder)
    there = made.present(["s2l2a_20m"], np.arange(108))[:, 0]
    stored = made.read(("s2l2a_20m",), np.arange(108))["s2l2a_20m"]
    assert not stored[~there].any() and stored[there].any()
    rejected = geoparquet.read(report.folder / "rejected.parquet").to_pylist()
    assert [line["row"] for line in rejected] == list(range(72, 108))


def test_moments_that_16_bits_do_not_hold_are_bad(archive: Path, codecs: Codecs, tmp_path: Path) -> None:
    folders = {row: shutil.copytree(folder, tmp_path / row) for row, folder in codecs.folders.items()}
    save_codec(shifted(load_codec(folders["s1rtc"]), 1e6), folders["s1rtc"])
    far = Codecs(codecs.table, folders)
    report = encode_archive(archive, far, tmp_path / "strict", cells=[CELL, EAST])
    assert (report.tally.samples, report.tally.rejected, report.tally.reasons) == (36, 36, {"no moments": 36})      # one has no radar
    report = encode_archive(archive, far, tmp_path / "lenient", cells=[CELL], how=How(bad="absent"))
    assert report.tally.samples == 36 and report.tally.rows["s1rtc"] == 0
    assert not open_shards(report.folder).read(("s1rtc",), np.arange(36))["s1rtc"].any()


def test_a_folder_of_nothing_but_bad_patches_is_no_folder_of_latents(codecs: Codecs, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"every patch was rejected \(not there 36\).*rejected.parquet"):
        encode_archive(archive, codecs, tmp_path / "latents", cells=["0U_0R"])
    assert geoparquet.describe(tmp_path / "latents" / "rejected.parquet").rows == 36
    with pytest.raises(ValueError, match="is not finished"):
        open_shards(tmp_path / "latents")


def test_what_cannot_be_encoded_is_refused_before_anything_is_written(archive: Path, codecs: Codecs, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "latents"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for match, change in (("sees no GPU", {"device": "cuda"}), ("is no folder", {"root": tmp_path / "nowhere"}),
                          ("no cells to encode", {"root": tmp_path}), ("such as 618U_30L", {"cells": ["../etc"]}),
                          ("0 cells a shard", {"cells_per_shard": 0}),
                          ("there is no such file", {"codecs": Codecs.under(tmp_path, codecs.table)})):
        with pytest.raises(ValueError, match=match):
            encode_archive(**{"root": archive, "codecs": codecs, "out": out, **change})
    assert not out.exists()


# Training on it


@pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning")
def test_from_real_cells_to_a_backbone_in_training(samples: Path, codecs: Codecs, tiny_model: Path, tmp_path: Path) -> None:
    """A demonstration: nothing that learns from these cells is kept."""
    from copgen.backbone import BackboneConfig
    from copgen.training.backbone import train_backbone
    from copgen.training.loop import Progress
    from copgen.training.recipe import read_recipe

    make_archive(tmp_path / "archive", REAL[:1], content="real", samples=samples)
    report = encode_archive(tmp_path / "archive", Codecs.of(CopGen(tiny_model)), tmp_path / "latents")
    assert report.tally.samples == 36 and cells_on_disk(tmp_path / "archive") == [REAL[0]]
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "nano.toml",
                         ("table.latent_channels=8", "train.how.steps=10", "train.how.batch=4", "train.how.micro_batch=4",
                          'train.how.precision="fp32"', 'train.channels="uniform"'))
    recipe = replace(recipe, backbone=BackboneConfig(width=32, depth=2, heads=2))
    losses: list[float] = []

    def kept(progress: Progress) -> None:
        losses.append(progress.losses["loss"])

    vaes = {row: load_codec(tiny_model / "vae" / row) for row in TINY.images}
    network = train_backbone(recipe, open_shards(report.folder), vaes, tmp_path / "run", report=kept)
    assert losses and np.isfinite(losses).all()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_a_worker_does_one_shard_at_a_time_and_says_how_many_patches(archive: Path, codecs: Codecs, tmp_path: Path) -> None:
    worker = Encoder(archive, tmp_path, codecs, How(batch=1), "cpu")
    assert worker(Task(7, (SOUTH,))) == 36
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-00007.parquet", "shard-00007.safetensors"]
    assert shards.length_of(tmp_path, 7) == 36 and str(Task(7, (SOUTH,))) == "shard-00007.safetensors (38D_378R to 38D_378R)"
