"""Cells of which only thumbnails are on disk are split, stored as layers and encoded as any are; what is interrupted ends the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_THUMBNAILS, tiny_codec
from made_archive import CELL, EAST, make_archive, make_thumbnails
from PIL import Image
from typer.testing import CliRunner

from copgen import geoparquet
from copgen.bulk import encode
from copgen.bulk.encode import Codecs, Encoder, How, encode_archive
from copgen.bulk.patches import read_patches
from copgen.cli import app
from copgen.latents.check import verify
from copgen.latents.look import info
from copgen.latents.show import choose, decoded, sample
from copgen.modalities import THUMBNAILS
from copgen.model import CopGen
from copgen.shards import PRESENT, open_shards
from copgen.store import load_codec, save_codec
from copgen.training.encode import check_codecs
from copgen.training.sources import Worlds, open_source

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")          # rasterio's own
CELLS = sorted((CELL, EAST))
ROWS = THUMBNAILS.names


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells; one has no radar."""
    root = make_thumbnails(tmp_path_factory.mktemp("archives") / "archive", CELLS)
    shutil.rmtree(root / "Core-S1RTC" / "618U" / EAST)
    return root


@pytest.fixture(scope="module")
def codecs(tiny_thumbnails: Path) -> Codecs:
    return Codecs.of(CopGen.from_pretrained(tiny_thumbnails))


@pytest.fixture(scope="module")
def latents(archive: Path, codecs: Codecs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both cells, one a shard; read it, don't write to it."""
    return encode_archive(archive, codecs, tmp_path_factory.mktemp("latents") / "latents", cells_per_shard=1).folder


@pytest.fixture(scope="module")
def layers(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_archive(archive, Codecs(THUMBNAILS, {}), tmp_path_factory.mktemp("layers") / "layers").folder


def picture(archive: Path, product: str, cell: str = CELL) -> Image.Image:
    return Image.open(next((archive / f"Core-{product}" / "618U" / cell).glob("*/thumbnail.png")))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Cells and patches


def test_cells_are_split_by_their_names_alone(archive: Path, tmp_path: Path) -> None:
    make_thumbnails(tmp_path / "archive", [f"{row}U_{column}L" for row in (600, 660) for column in (1, 200)], sides={"S2L2A": 8})
    for k, how in enumerate(("blocked", "blocked", "shuffled", "shuffled")):
        done = CliRunner().invoke(app, ["split", "--archive", f"{tmp_path}/archive", "--out", f"{tmp_path}/{k}", "--how", how,
                                        "--seed", "7", "--train", "0.5"])
        assert done.exit_code == 0, done.output
    assert contents(tmp_path / "0") == contents(tmp_path / "1") != contents(tmp_path / "2") == contents(tmp_path / "3")
    named = [set((tmp_path / "2" / name).read_text().split()) for name in ("train.txt", "test.txt")]
    assert not named[0] & named[1] and len(named[0] | named[1]) == 4


def test_a_cell_has_4_x_4_patches_of_its_middle_1024_pixels_and_one_in_the_middle_of_all(archive: Path) -> None:
    """The published CenterCrop(1024), 4 x 4 and CenterCrop(256); of heights after Resize(1068), which rounds its last digit otherwise."""
    patches, (middle,) = read_patches(archive, CELL, THUMBNAILS), read_patches(archive, CELL, THUMBNAILS, which="middle")
    assert [patch.number for patch in patches] == list(range(16)) and middle.number == 16
    pictures = {name: picture(archive, THUMBNAILS[name].product) for name in ROWS}
    for name, image in pictures.items():
        whole = np.asarray(image.resize((1068, 1068), Image.Resampling.BILINEAR).convert("RGB"), np.int16).transpose(2, 0, 1)
        for patch, (top, left) in [*((patches[4 * i + j], (22 + 256 * i, 22 + 256 * j)) for i in range(4) for j in range(4)),
                                   (middle, (406, 406))]:
            apart = np.abs(patch.scene[name] - whole[:, top : top + 256, left : left + 256]).max()
            assert patch.scene[name].dtype == np.uint8 and apart <= (1 if name == "dem_thumbnail" else 0)


# Latents


def test_rows_that_share_a_codec_have_its_moments(archive: Path, codecs: Codecs, latents: Path, tiny_thumbnails: Path) -> None:
    made, codec = open_shards(latents), load_codec(tiny_thumbnails / "vae" / "rgb")
    assert list(made.counts) == [16, 16] and made.meta["rows"] == list(ROWS) and len(set(made.meta["codecs"].values())) == 1
    check_codecs(made, tiny_thumbnails / "vae", lambda row: "rgb")
    for first, cell in ((0, EAST), (16, CELL)):
        for number in (0, 11):
            scene, found = read_patches(archive, cell, THUMBNAILS)[number].scene, made.read(ROWS, np.array([first + number]))
            for row in ROWS:
                if row not in scene:
                    assert row == "s1rtc_thumbnail" and cell == EAST and not found[row].any()
                    continue
                with torch.no_grad():
                    moments = codec.moments(torch.from_numpy(THUMBNAILS[row].scale.to_model(scene[row]))[None])
                np.testing.assert_allclose(found[row].astype(np.float32), moments.numpy(), rtol=2e-3, atol=2e-3)
    assert [line["patch"] for line in geoparquet.read(latents / "index.parquet").to_pylist()] == [*range(16)] * 2


def test_a_shared_codec_is_loaded_once(codecs: Codecs, archive: Path, tmp_path: Path) -> None:
    worker = Encoder(archive, tmp_path, codecs, How(batch=1), "cpu")
    assert len(set(map(id, worker.codecs.values()))) == 1 and list(worker.codecs) == list(ROWS)


def test_one_patch_a_cell_is_what_the_whole_cell_has_in_its_middle(archive: Path, codecs: Codecs, tmp_path: Path) -> None:
    report = encode_archive(archive, codecs, tmp_path / "middle", patches="middle")
    index = geoparquet.read(report.folder / "index.parquet").to_pylist()
    assert [(line["cell"], line["patch"]) for line in index] == [(cell, 16) for cell in CELLS]
    assert open_shards(report.folder).meta["patches"] == "middle" and verify(report.folder, codecs).problems == ()
    assert sample(report.folder, codecs, cell=CELL, archive=archive, scale=1).width
    with pytest.raises(ValueError, match="another plan, with patches middle, not all"):
        encode_archive(archive, codecs, report.folder)


def test_a_folder_from_before_there_was_a_choice_of_patches_goes_on(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(latents, tmp_path / "latents"))
    plan = json.loads((folder / "plan.json").read_text())
    assert plan.pop("patches") == "all" and "patches" not in open_shards(folder).meta
    (folder / "plan.json").write_text(json.dumps(plan))
    assert encode_archive(archive, codecs, folder, cells_per_shard=1).kept == 2 and verify(folder, codecs).problems == ()


def test_a_cell_of_which_nothing_is_there_has_each_patch_rejected_once(archive: Path, codecs: Codecs, tmp_path: Path) -> None:
    for which, count in (("all", 16), ("middle", 1)):
        report = encode_archive(archive, codecs, tmp_path / which, cells=[CELL, "0U_0R"], patches=which)          # type: ignore[arg-type]
        assert (report.tally.samples, report.tally.rejected, report.tally.reasons) == (count, count, {"not there": count})


@pytest.mark.parametrize("kind", ["moments", "layers"])
def test_what_was_interrupted_ends_with_the_same_bytes(kind: str, archive: Path, codecs: Codecs, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    used = codecs if kind == "moments" else Codecs(THUMBNAILS, {})
    whole = contents(encode_archive(archive, used, tmp_path / "whole", cells_per_shard=1).folder)
    write = encode.shards.write_shard

    def killed(folder: Path, k: int, arrays: Any) -> Path:
        if k == 1:                               # its records are there already
            raise KeyboardInterrupt
        return write(folder, k, arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode.shards, "write_shard", killed)
        encode_archive(archive, used, tmp_path / "killed", cells_per_shard=1)
    with pytest.raises(ValueError, match="is not finished"):
        open_shards(tmp_path / "killed")
    report = encode_archive(archive, used, tmp_path / "killed", cells_per_shard=1)
    assert (report.made, report.kept) == (1, 1) and contents(report.folder) == whole
    assert encode_archive(archive, used, tmp_path / "killed", cells_per_shard=1).made == 0


# A look into them


def test_latents_of_thumbnails_are_counted_checked_and_shown(archive: Path, codecs: Codecs, latents: Path, tmp_path: Path) -> None:
    found = info(latents, codecs)
    assert found.having == {row: 16 if row == "s1rtc_thumbnail" else 32 for row in ROWS} and found.dates is None
    assert set(found.spread) == set(ROWS) and {spread.model_factor for spread in found.spread.values()} == {0.5}
    assert verify(latents, codecs).problems == () and verify(latents).samples == 32
    image = sample(latents, codecs, numbers=[3, 20], archive=archive, path=tmp_path / "sheet.png", scale=1)
    assert image.width > 4 * 256 and (tmp_path / "sheet.png").is_file()
    shards = open_shards(latents)
    (scene,) = decoded(shards, codecs, choose(shards, [20], None, 1))
    assert set(scene.layers) == set(ROWS) and {layer.dtype for layer in scene.layers.values()} == {np.dtype(np.uint8)}


def test_other_codecs_are_told_for_every_row_that_they_are_of(latents: Path, codecs: Codecs, tmp_path: Path) -> None:
    save_codec(tiny_codec(3, seed=5, latent_channels=4), tmp_path / "rgb")
    other = Codecs.under(tmp_path, codecs.table, lambda row: "rgb")
    assert [problem.file for problem in verify(latents, other).problems] == [tmp_path / "rgb" / "codec.safetensors"] * 4


# Layers


def test_layers_are_the_pictures_as_training_reads_them(archive: Path, layers: Path) -> None:
    source = open_source(str(layers), TINY_THUMBNAILS)
    assert len(source) == 32 and source.incomplete and source.name == "archive archive"
    scenes = [patch.scene for cell in CELLS for patch in read_patches(archive, cell, THUMBNAILS)]
    found, there = source.layers(ROWS, range(32)), source.present(ROWS, range(32))
    for n, scene in enumerate(scenes):
        assert there[n].tolist() == [row in scene for row in ROWS]
        for row in ROWS:
            assert found[row].dtype == np.uint8 and np.array_equal(found[row][n], scene[row] if row in scene else np.zeros((3, 256, 256)))
    for look in (info, verify):
        with pytest.raises(ValueError, match="moments"):
            look(layers)


def test_measured_layers_of_an_archive_are_stored_as_its_files_hold_them(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive", [CELL], content="grain")
    shutil.rmtree(tmp_path / "archive" / "Core-DEM")
    table = TINY.subset(("place", "date", "dem", "lulc", "s1rtc", "s2l2a_20m"))
    report = encode_archive(tmp_path / "archive", Codecs(table, {}), tmp_path / "layers")
    packed = open_shards(report.folder).read((*table.names, PRESENT), np.arange(36))
    assert {row: packed[row].dtype.str[1:] for row in table.names} == {
        "place": "f8", "date": "i4", "dem": "f4", "lulc": "u1", "s1rtc": "f4", "s2l2a_20m": "u2"}
    source = open_source(str(report.folder), TINY)
    found = source.layers(table.names, range(36))
    for n, patch in enumerate(read_patches(tmp_path / "archive", CELL, table)):
        for row in table.names:
            assert np.array_equal(found[row][n], patch.scene[row]) if row in patch.scene else not found[row][n].any()
    assert packed[PRESENT].tolist() == [[1, 1, 0, 1, 1, 1]] * 36


def test_worlds_are_too_small_for_pictures_of_cells() -> None:
    with pytest.raises(ValueError, match=r"synthetic:0\.\.3: dem_thumbnail is a picture of a whole cell.*copgen synthesize --archive"):
        Worlds(0, 3, THUMBNAILS)


# The command


RECIPE = """
name = "tiny"
shared_codec = "rgb"
[table]
of = "thumbnails"
[codec]
width = 8
multipliers = [1, 2]
blocks = 1
stem = 4
groups = 4
attention = false
"""


def test_by_a_recipe_as_by_the_model(archive: Path, latents: Path, layers: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe, run = ["encode", "--archive", str(archive), "--recipe", f"{tmp_path}/recipe.toml"], CliRunner().invoke
    for out, folder, more in (("moments", latents, ["--vaes", f"{tiny_thumbnails}/vae", "--cells-per-shard", "1"]),
                              ("layers", layers, ["--layers"])):
        done = run(app, [*recipe, "--out", f"{tmp_path}/{out}", *more])
        assert done.exit_code == 0 and f"shards: {tmp_path}/{out}" in done.output
        ours, theirs = contents(tmp_path / out), contents(folder)
        assert {name: data for name, data in ours.items() if "shard" in name} == {name: theirs[name] for name in theirs if "shard" in name}
        plan, index = ({**json.loads(some["plan.json"])} for some in (ours, theirs)), json.loads(ours["index.json"])
        assert next(plan)["codecs"] == next(plan)["codecs"] and index["meta"]["kind"] == out
    assert run(app, ["latents", "verify", f"{tmp_path}/moments", "--model", str(tiny_thumbnails)]).exit_code == 0


@pytest.mark.parametrize(("words", "said"), [
    (["--layers", "--vaes", "x", "--recipe", "r"], "which layers? Say it by --model or by --recipe, without --vaes"),
    (["--layers"], "which layers?"), (["--recipe", "r"], "which codecs? Say it by --model, or by --recipe and --vaes"),
    (["--model", "nano", "--patches", "some"], "--patches some: choose all, middle"),
])
def test_what_is_not_enough_or_too_much_is_told(words: list[str], said: str, archive: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["encode", "--archive", str(archive), "--out", f"{tmp_path}/out", *words])
    assert isinstance(done.exception, ValueError) and said in str(done.exception) and not (tmp_path / "out").exists()


def test_only_an_archive_has_patches_and_layers(tmp_path: Path) -> None:
    for words in (["--layers"], ["--patches", "middle"], ["--cells", CELL]):
        done = CliRunner().invoke(app, ["encode", "--data", "synthetic:0..1", "--out", f"{tmp_path}/out", "--model", "nano", *words])
        assert "only an archive has cells; use --archive" in str(done.exception)


def test_another_geometry_is_another_number_of_patches(archive: Path) -> None:
    """What patches there are follows from the table: nothing is fixed to 6 x 6 or 4 x 4."""
    small = replace(THUMBNAILS, footprint=640)
    patches = read_patches(archive, CELL, small)
    assert len(patches) == 16**2 and patches[17].scene["s2l2a_thumbnail"].shape == (3, 64, 64)
    whole = np.asarray(picture(archive, "S2L2A")).transpose(2, 0, 1)
    assert np.array_equal(patches[17].scene["s2l2a_thumbnail"], whole[:, 86:150, 86:150])
