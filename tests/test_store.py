"""A model folder gives back the model that was put in; a damaged, foreign or hostile one is refused with the file and the reason."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, tiny_backbone, tiny_codec
from safetensors.torch import load_file, save_file

from copgen.backbone import BackboneConfig, UViT
from copgen.model import CopGen
from copgen.store import describe, load_backbone, load_codec, load_record, save_codec, save_model

SMALL = TINY.subset(["place", "dem", "s2l2a_60m"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of three rows, its own copy for every test."""
    codecs = {name: tiny_codec(TINY[name].channels) for name in SMALL.images}
    save_model(tmp_path / "model", "small", "CC0", tiny_backbone(SMALL), codecs, notes={"steps": 3})
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], object], file: str = "copgen.json") -> None:
    record = json.loads((folder / file).read_text())
    change(record)
    (folder / file).write_text(json.dumps(record))


def test_what_was_saved_is_what_is_loaded(folder: Path) -> None:
    record = load_record(folder)
    assert (record.name, record.licence, record.notes) == ("small", "CC0", {"steps": 3})
    table = record.table("here")
    assert table == SMALL
    backbone, original = load_backbone(folder, record, table), tiny_backbone(SMALL)
    assert backbone.config == original.config
    for name, tensor in original.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], tensor), name
    for name in SMALL.images:
        codec, original_codec = load_codec(folder / "vae" / name), tiny_codec(TINY[name].channels)
        assert (codec.config, codec.scaling_factor) == (original_codec.config, original_codec.scaling_factor)
        for key, tensor in original_codec.state_dict().items():
            assert torch.equal(codec.state_dict()[key], tensor), key


def test_a_saved_model_can_be_moved_and_is_the_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    codecs = {name: tiny_codec(TINY[name].channels) for name in SMALL.images}
    save_model(tmp_path / "again", "small", "CC0", tiny_backbone(SMALL), codecs, notes={"steps": 3})
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert [str(file) for file in files] == ["backbone.safetensors", "copgen.json", "vae/dem/codec.json", "vae/dem/codec.safetensors",
                                             "vae/s2l2a_60m/codec.json", "vae/s2l2a_60m/codec.safetensors"]
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    before = CopGen(folder).weights_sha256()
    shutil.move(folder, tmp_path / "moved")
    assert CopGen(tmp_path / "moved").weights_sha256() == before


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    codec = tiny_codec(2)
    save_codec(codec, tmp_path / "half", torch.float16)
    save_codec(codec, tmp_path / "whole")
    half, whole = tmp_path / "half" / "codec.safetensors", tmp_path / "whole" / "codec.safetensors"
    assert {tensor.dtype for tensor in load_file(half).values()} == {torch.float16}
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    for name, tensor in load_codec(tmp_path / "half").state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, codec.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_a_description_is_data_that_json_keeps() -> None:
    for row in TINY.rows:
        assert json.loads(json.dumps(describe(row))) == describe(row)


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r["rows"][1].update(resolution=10), r"row dem has resolution = 10, this version's table 30"),
    (lambda r: r["rows"][2].update(bands=["B09", "B01"]), r"row s2l2a_60m has bands = \['B09', 'B01'\]"),
    (lambda r: r["rows"][2]["scale"].update(full_scale=1.0), "row s2l2a_60m has scale"),
    (lambda r: r["rows"][2].pop("unit"), "row s2l2a_60m has unit = None"),
    (lambda r: r["rows"][2].update(colour="red"), "row s2l2a_60m has colour = 'red'"),
    (lambda r: r["rows"][1].update(name="dsm"), "row 'dsm' is not in this version's table"),
    (lambda r: r["rows"][1].pop("name"), "row 'None' is not in this version's table"),
    (lambda r: r.update(format=2), "format 2, this version reads 1"),
    (lambda r: (r.update(format=2, surprise=1), r.pop("codecs")), "copgen.json: format 2, this version reads 1"),
    (lambda r: r.update(format="new"), "format new, this version reads 1"),
    (lambda r: r.update(surprise=1), r"copgen.json: surprise"),
    (lambda r: r.pop("codecs"), r"copgen.json: codecs: Field required"),
    (lambda r: r.update(footprint="wide"), r"copgen.json: footprint: .*\(got 'wide'\)"),
    (lambda r: r["backbone"].update(depth=3), "depth 3: must be even"),
    (lambda r: r["codecs"].pop("dem"), "no codec for dem"),
    (lambda r: r["codecs"].update(dem="../../elsewhere"), "the codec of dem is called '../../elsewhere'; a plain name is needed"),
    (lambda r: r["codecs"].update(dem="/etc"), "a plain name is needed"),
    (lambda r: r["codecs"].update(dem=".."), "a plain name is needed"),
    (lambda r: r["codecs"].update(dem=""), "a plain name is needed"),
])
def test_a_record_that_differs_is_refused_naming_what_differs(folder: Path, change: Callable, message: str) -> None:
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        CopGen(folder)


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r["backbone"].update(width=64), r"backbone.safetensors: embed.dem.bias has shape \[32\], expected \[64\]; .* another size"),
    (lambda r: r["backbone"].update(depth=4), r"backbone.safetensors: \d+ weights are missing, first in_blocks.1"),
    (lambda r: r.update(patch=2), r"backbone.safetensors: embed.dem.weight has shape .*expected \[32, 8, 2, 2\]"),
    (lambda r: r["rows"].pop(1), "weights are not this model's, first embed.dem.bias"),
])
def test_weights_of_another_size_are_refused(folder: Path, change: Callable, message: str) -> None:
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        CopGen(folder).backbone  # noqa: B018


def test_one_weight_is_one_weight(folder: Path) -> None:
    path = folder / "backbone.safetensors"
    weights = load_file(path)
    first = min(weights)
    save_file({name: tensor for name, tensor in weights.items() if name != first}, path)
    with pytest.raises(ValueError, match=rf"1 weight is missing, first {first}"):
        CopGen(folder).backbone  # noqa: B018


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r["config"].update(stem=2), "codec.safetensors: decoder.conv_out.bias has shape"),
    (lambda r: r["config"].update(channels=3), "codec.safetensors: decoder.conv_out.bias has shape"),
    (lambda r: r["config"].update(width="wide"), "codec.json: config.width: "),
    (lambda r: r["config"].update(groups=3), "a multiple of the groups"),
    (lambda r: r.pop("scaling_factor"), "codec.json.*scaling_factor"),
    (lambda r: r.update(scaling_factor="big"), "codec.json.*scaling_factor"),
    (lambda r: r.update(scaling_factor=0), "codec.json.*scaling_factor"),
    (lambda r: r.update(scaling_factor=float("nan")), "codec.json.*scaling_factor"),
])
def test_a_codec_of_another_size_is_refused(folder: Path, change: Callable, message: str) -> None:
    edit(folder, change, "vae/dem/codec.json")
    with pytest.raises(ValueError, match=message):
        CopGen(folder).codec("dem")


def test_a_record_that_asks_for_more_memory_than_there_is_is_refused(folder: Path) -> None:
    edit(folder, lambda r: r["backbone"].update(width=2**24))
    edit(folder, lambda r: r["config"].update(width=2**24), "vae/dem/codec.json")
    for read in (lambda: CopGen(folder).backbone, lambda: CopGen(folder).codec("dem")):
        with pytest.raises(ValueError, match=r"16777216.*make sense|another size"):
            read()


def test_a_codec_for_another_row_is_refused(folder: Path) -> None:
    edit(folder, lambda r: r["codecs"].update(dem="s2l2a_60m"))
    with pytest.raises(ValueError, match=r"codec s2l2a_60m has 2 channels, stride 8 .*row dem needs 1, 8 and 8"):
        CopGen(folder).codec("dem")


def test_rows_may_share_a_codec(tmp_path: Path) -> None:
    """COP-GEN-Beta has one for all; it is then read once."""
    table = TINY.subset(["s2l1c_10m", "s2l2a_10m"])
    folder = tmp_path / "shared"
    save_model(folder, "shared", "CC0", tiny_backbone(table), {"s2l1c_10m": tiny_codec(4)})
    edit(folder, lambda r: r["codecs"].update(s2l2a_10m="s2l1c_10m"))
    model = CopGen(folder)
    assert model.codec("s2l1c_10m") is model.codec("s2l2a_10m")


def test_a_codec_that_one_row_may_use_is_not_for_every_row(folder: Path) -> None:
    edit(folder, lambda r: r["codecs"].update(dem="s2l2a_60m"))
    model = CopGen(folder)
    assert model.codec("s2l2a_60m").config.channels == 2                 # read, and kept for those that share it
    with pytest.raises(ValueError, match=r"codec s2l2a_60m has 2 channels, .*row dem needs 1, 8 and 8; convert or train"):
        model.codec("dem")


def test_a_record_that_nests_without_end_is_refused(folder: Path) -> None:
    (folder / "copgen.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"copgen\.json: could not be read"):
        CopGen(folder)


@pytest.mark.parametrize("file", ["backbone.safetensors", "vae/dem/codec.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "pickle", "nothing but zeros"])
def test_damaged_weights_are_refused(folder: Path, file: str, damage: str) -> None:
    path = folder / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        hostile = pickle.dumps({"weights": Path("/tmp")})
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "pickle": hostile}.get(damage, bytes(len(data))))
    model = CopGen(folder)
    with pytest.raises(ValueError, match=rf"{path.name}: is missing, damaged or no safetensors file"):
        model.codec("dem") if "vae" in file else model.backbone


@pytest.mark.parametrize(("text", "message"), [
    (None, "there is no such file, so .* is not a model folder"),
    ("", "could not be read"),
    ("{", "could not be read"),
    ("[]", "expected a JSON object"),
    ("\xff\xfe", "could not be read"),
])
def test_a_folder_without_a_readable_record_is_no_model(folder: Path, text: str | None, message: str) -> None:
    (folder / "copgen.json").unlink() if text is None else (folder / "copgen.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=rf"copgen.json: {message}"):
        CopGen(folder)


def test_a_name_that_is_no_model_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no model is called 'nanno' and there is no such folder; there are .*copgen-base"):
        CopGen.from_pretrained("nanno")


@pytest.mark.parametrize("calls", [1, 2, 6])
def test_a_full_disk_leaves_the_old_model_as_it_was(folder: Path, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    left = iter(range(calls - 1))

    def fills_up(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fills_up)
    codecs = {name: tiny_codec(TINY[name].channels, seed=1) for name in SMALL.images}
    with pytest.raises(ValueError, match="No space left on device"):
        save_model(folder, "other", "CC0", tiny_backbone(SMALL, seed=1), codecs)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("value", "half"), [(1e6, True), (float("nan"), False), (float("inf"), False)])
def test_weights_that_a_file_cannot_hold_are_not_saved(tmp_path: Path, value: float, half: bool) -> None:
    codec = tiny_codec(1)
    codec.quant_conv.weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"quant_conv.weight: holds values that are no numbers"):
        save_model(tmp_path / "m", "m", "CC0", tiny_backbone(SMALL), {"dem": codec}, half=half)
    assert not (tmp_path / "m").exists()


def test_a_save_that_stops_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def fills_up(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(ValueError, match="No space left on device"):
        save_model(tmp_path / "m", "m", "CC0", tiny_backbone(SMALL), {name: tiny_codec(TINY[name].channels) for name in SMALL.images})
    assert not list(tmp_path.iterdir())


def test_a_model_is_counted_without_loading_it(folder: Path) -> None:
    model = CopGen(folder)
    codecs = sum(p.numel() for name in SMALL.images for p in tiny_codec(TINY[name].channels).parameters())
    assert model.parameters() == {"backbone": sum(p.numel() for p in tiny_backbone(SMALL).parameters()), "codecs": codecs}
    assert not model.codecs._whole and not model.codecs._halves and not model._backbones


def test_sizes_of_a_config_are_those_of_the_network() -> None:
    assert UViT(SMALL, BackboneConfig(64, 4, 4)).state_dict()["out_blocks.1.skip_linear.weight"].shape == (64, 128)
