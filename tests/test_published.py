"""Released files become a model folder that draws what they draw; and whatever is wrong with them is named, and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import pickle
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_released import HEADS, hub_of, own_caches, released_backbone, released_vae

from copgen import diffusion, published
from copgen.modalities import TABLE
from copgen.model import CopGen, gaussian
from copgen.scene import Scene

NAME = "copgen-base"
VAE_REPOSITORY = published.MODELS[NAME].system.repository
REVISIONS = {"mespinosami/copgen-base": "a" * 40, VAE_REPOSITORY: "b" * 40}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone and ten VAEs named and laid out as the released ones."""
    folder = tmp_path_factory.mktemp("released")
    torch.save(released_backbone(), folder / "500000_nnet_ema.pth")
    for row, name in published.VAE_FOLDERS.items():
        (folder / "vae" / name).mkdir(parents=True)
        torch.save(released_vae(row), folder / "vae" / name / "model-50-ema.pth")
    return folder


def linked(released: Path, folder: Path) -> tuple[Path, Path]:
    """The same files in a folder of one's own, where some may be replaced."""
    for file in released.rglob("*.pth"):
        link = folder / file.relative_to(released)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return folder / "500000_nnet_ema.pth", folder / "vae"


def rewrite(path: Path, content: Any) -> None:
    path.unlink()
    torch.save(content, path)


# --- names --------------------------------------------------------------------------------------------------------------------------


def test_every_row_has_its_released_key() -> None:
    assert published.KEYS == {
        "place": "3d_cartesian_lat_lon", "date": "mean_timestamps", "dem": "DEM_DEM", "lulc": "LULC_LULC",
        "cloud_mask": "S2L1C_cloud_mask", "s1rtc": "S1RTC_vh_vv", "s2l1c_10m": "S2L1C_B02_B03_B04_B08",
        "s2l1c_20m": "S2L1C_B05_B06_B07_B11_B12_B8A", "s2l1c_60m": "S2L1C_B01_B09_B10", "s2l2a_10m": "S2L2A_B02_B03_B04_B08",
        "s2l2a_20m": "S2L2A_B05_B06_B07_B11_B12_B8A", "s2l2a_60m": "S2L2A_B01_B09",
    }
    for row, key in published.KEYS.items():
        assert TABLE.select(key) == TABLE.select(key.lower()) == (row,)


def test_the_network_order_is_that_of_the_released_file() -> None:
    assert published.ORDER == ("place", "dem", "lulc", "s1rtc", "s2l1c_60m", "s2l1c_10m", "s2l1c_20m", "cloud_mask",
                               "s2l2a_60m", "s2l2a_10m", "s2l2a_20m", "date")


# --- files to a model folder --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "deep" / "model"
    return published.convert(released / "500000_nnet_ema.pth", released / "vae", out, heads=HEADS)


def test_a_converted_model_draws_what_the_released_weights_draw(released: Path, converted: Path) -> None:
    model = CopGen.from_pretrained(converted, device="cpu", precision="fp32")
    heights = np.linspace(0, 900, 64 * 64).reshape(1, 64, 64)
    (scene,) = model.generate(Scene({"dem": heights}), "s2l2a_60m,date", seeds=[5], steps=3, solver="published")

    backbone = published.backbone(torch.load(released / "500000_nnet_ema.pth", weights_only=True), heads=HEADS)
    codecs = {row: published.codec(released_vae(row), row) for row in ("dem", "s2l2a_60m")}
    with torch.no_grad():
        pixels = torch.from_numpy(TABLE["dem"].scale.to_model(heights.astype(np.float32)))[None]
        given = {"dem": codecs["dem"].moments(pixels).chunk(2, dim=1)[0] * 0.404247}
        noise = {row: gaussian([5], row, TABLE.latent_shape(row)) for row in TABLE.names if row != "dem"}
        latents = diffusion.sample(backbone, noise, given, solver="published", steps=3)
        decoded = codecs["s2l2a_60m"].decode(latents["s2l2a_60m"])
    assert np.allclose(scene["s2l2a_60m"], TABLE["s2l2a_60m"].scale.to_physical(decoded[0].numpy()), atol=0.5)
    assert scene["date"] == TABLE["date"].scale.to_physical(latents["date"][0].numpy())


def test_the_folder_says_where_it_comes_from(released: Path, converted: Path) -> None:
    record = json.loads((converted / "copgen.json").read_text())
    sources = record["notes"]["converted from"]
    assert len(sources) == 11
    for file in [*released.rglob("*.pth")]:
        name = file.name if file.parent == released else f"{file.parent.name}/{file.name}"
        assert sources[name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {path.name for path in converted.iterdir()} == {"copgen.json", "backbone.safetensors", "vae"}
    assert [path.name for path in converted.parent.iterdir()] == ["model"]


def test_a_raw_training_checkpoint_serves_as_well(released: Path, converted: Path, tmp_path: Path) -> None:
    backbone, vaes = linked(released, tmp_path)
    folder = vaes / published.VAE_FOLDERS["dem"]
    (folder / "model-50-ema.pth").unlink()
    weights = released_vae("dem")
    averaged = {"initted": torch.ones(1), **{f"ema_model.{key}": tensor for key, tensor in weights.items()},
                "ema_model.loss.logvar": torch.ones(())}
    raw = {"step": 500_000, "model": {key: torch.zeros_like(tensor) for key, tensor in weights.items()}, "ema": averaged}
    torch.save(raw, folder / "model-50.pt")
    out = published.convert(backbone, vaes, tmp_path / "out", heads=HEADS)
    assert (out / "vae/dem/codec.safetensors").read_bytes() == (converted / "vae/dem/codec.safetensors").read_bytes()


def refused(backbone: Path, vaes: Path, out: Path) -> str:
    """The message of a conversion that fails; and nothing may be there after it."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(ValueError) as error:
        published.convert(backbone, vaes, out, heads=HEADS)
    assert not out.exists() and sorted(out.parent.rglob("*")) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_vae_is_named_with_its_exact_path(released: Path, tmp_path: Path) -> None:
    backbone, vaes = linked(released, tmp_path)
    missing = vaes / "S2L2A_96x96_B5_6_7_8A_11_12_latent_8" / "model-50-ema.pth"
    missing.unlink()
    message = refused(backbone, vaes, tmp_path / "out")
    assert message.startswith(f"{missing}: there is no such file") and "mespinosami/copgen-vaes" in message
    assert "there is no such file" in refused(tmp_path / "none.pth", released / "vae", tmp_path / "out")


@pytest.mark.parametrize("row", ["dem", "cloud_mask", "s2l2a_20m"])                # read first, seventh and last
def test_a_damaged_vae_leaves_nothing(row: str, released: Path, tmp_path: Path) -> None:
    backbone, vaes = linked(released, tmp_path)
    file = vaes / published.VAE_FOLDERS[row] / "model-50-ema.pth"
    half = file.read_bytes()[: file.stat().st_size // 2]
    file.unlink()
    file.write_bytes(half)
    assert refused(backbone, vaes, tmp_path / "new" / "out").startswith(f"{file}: refused")
    assert not (tmp_path / "new").exists()


def without(key: str) -> Any:
    return lambda weights: {name: tensor for name, tensor in weights.items() if name != key}


@pytest.mark.parametrize(("change", "says"), [
    (without("pos_embed"), "pos_embed"),
    (without("mid_block.attn.qkv.weight"), "mid_block.attn.qkv.weight"),
    (lambda weights: weights | {"mid_block.attn.qkv.weight": torch.zeros(3, 3)}, "mid_block.attn.qkv.weight has shape"),
    (lambda weights: weights | {"pos_embed": torch.zeros(1, 77, 32)}, "77 tokens"),
    (lambda weights: weights | {"pos_embed": torch.zeros(834)}, "pos_embed"),
    (lambda weights: weights | {"patch_embeds.12.proj.bias": torch.zeros(32)}, "patch_embeds.12.proj.bias"),
    (lambda weights: weights | {"norm.weight": "text"}, "norm.weight"),
    (lambda weights: weights | {"extra": torch.zeros(1)}, "extra"),
    (lambda weights: {k: v for k, v in weights.items() if "blocks" not in k}, "depth 0"),
    (lambda weights: list(weights.values()), "list"),
])
def test_weights_that_are_no_backbone_are_refused_by_name(change: Any, says: str, released: Path, tmp_path: Path) -> None:
    backbone, vaes = linked(released, tmp_path)
    rewrite(backbone, change(released_backbone()))
    message = refused(backbone, vaes, tmp_path / "out")
    assert message.startswith(f"{backbone}: ") and says in message


@pytest.mark.parametrize(("change", "says"), [
    (lambda weights: released_vae("s2l2a_60m"), "another row's"),
    (without("post_quant_conv.weight"), "post_quant_conv.weight"),
    (lambda weights: weights | {"quant_conv.weight": torch.zeros(2, 2, 1, 1)}, "quant_conv.weight has shape"),
    (lambda weights: weights | {"encoder.conv_in.weight": torch.zeros(3)}, "encoder.conv_in.weight"),
    (lambda weights: {"ema": {}}, "encoder.conv_in.weight"),
    (lambda weights: {"state_dict": weights}, "encoder.conv_in.weight"),
])
def test_a_vae_of_something_else_is_refused_by_name(change: Any, says: str, released: Path, tmp_path: Path) -> None:
    backbone, vaes = linked(released, tmp_path)
    file = vaes / published.VAE_FOLDERS["dem"] / "model-50-ema.pth"
    rewrite(file, change(released_vae("dem")))
    message = refused(backbone, vaes, tmp_path / "out")
    assert message.startswith(f"{file}: ") and says in message


def test_what_exists_is_never_replaced(released: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        published.convert(released / "500000_nnet_ema.pth", released / "vae", tmp_path / "out", heads=HEADS)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/out.*choose another folder"):
        published.convert(released / "500000_nnet_ema.pth", released / "vae", tmp_path / "file" / "out", heads=HEADS)


class Hostile:
    """What unpickling this would do: make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pth_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "hostile.pth"
    if zipped:
        torch.save({"pos_embed": Hostile(mark)}, file)
    else:
        file.write_bytes(pickle.dumps({"pos_embed": Hostile(mark)}))
    with pytest.raises(ValueError, match=r"hostile\.pth: refused") as error:
        published.read_weights(file)
    assert "\n" not in str(error.value)
    assert not mark.exists()
    torch.load(file, weights_only=False) if zipped else pickle.loads(file.read_bytes())
    assert mark.exists()                         # the file was a real one


def test_a_file_of_the_older_format_is_read_too(tmp_path: Path) -> None:
    torch.save({"pos_embed": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert published.read_weights(tmp_path / "old.pth")["pos_embed"].tolist() == [1, 1]


# --- the hub ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_caches(NAME, tmp_path, monkeypatch)


@pytest.fixture
def hub(released: Path, tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A hub on this machine: its address, the folder it serves and the requests it had."""
    served = tmp_path / "served"
    linked(released, served)
    with hub_of({"mespinosami/copgen-base": served, VAE_REPOSITORY: served / "vae"}, REVISIONS) as (endpoint, requests):
        yield endpoint, served, requests


def test_a_released_model_is_fetched_and_converted_once(hub: tuple[str, Path, list[str]], caches: Path, converted: Path) -> None:
    endpoint, _, requests = hub
    folder = published.fetch(NAME, endpoint=endpoint)
    assert folder == caches / NAME and requests
    record = json.loads((folder / "copgen.json").read_text())
    assert record["name"] == NAME and record["notes"]["revisions"] == REVISIONS
    assert record["notes"]["converted from"] == json.loads((converted / "copgen.json").read_text())["notes"]["converted from"]
    assert (folder / "backbone.safetensors").read_bytes() == (converted / "backbone.safetensors").read_bytes()
    assert [path.name for path in caches.iterdir()] == [NAME]

    requests.clear()
    assert published.fetch(NAME, endpoint=endpoint) == folder and requests == []
    assert CopGen.from_pretrained(NAME).name == NAME                       # by its name, with no hub at all


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(hub: tuple[str, Path, list[str]], caches: Path) -> None:
    endpoint, served, requests = hub
    last = served / "vae" / list(published.VAE_FOLDERS.values())[-1] / "model-50-ema.pth"
    last.rename(served / "aside")
    with pytest.raises(ValueError, match="could not be fetched"):
        published.fetch(NAME, endpoint=endpoint)
    assert not caches.exists()
    (served / "aside").rename(last)
    requests.clear()
    published.fetch(NAME, endpoint=endpoint)
    assert len([request for request in requests if request.startswith("GET") and "resolve" in request]) == 2   # the last VAE, the backbone


def test_files_that_are_damaged_on_the_hub_leave_no_model(hub: tuple[str, Path, list[str]], caches: Path) -> None:
    endpoint, served, _ = hub
    rewrite(served / "vae" / published.VAE_FOLDERS["lulc"] / "model-50-ema.pth", {"no": "weights"})
    with pytest.raises(ValueError, match=r"LULC_192x192_LULC_latent_8/model-50-ema\.pth: "):
        published.fetch(NAME, endpoint=endpoint)
    assert not caches.exists()


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_every_file_and_the_command_are_named(offline: bool, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    began = time.monotonic()
    with pytest.raises(ValueError) as error:
        published.fetch(NAME, endpoint=closed_port())
    assert time.monotonic() - began < 30         # it gives up; retries would take minutes
    message = str(error.value)
    for part in ("500000_nnet_ema.pth of mespinosami/copgen-base", *published.VAE_FOLDERS.values(), "model-50-ema.pth",
                 VAE_REPOSITORY, f"copgen convert --backbone 500000_nnet_ema.pth --vaes FOLDER --out {caches / NAME}"):
        assert part in message
    assert "\n" not in message and not caches.exists()


def test_what_it_says_to_do_without_a_network_works(released: Path, caches: Path) -> None:
    published.convert(released / "500000_nnet_ema.pth", released / "vae", caches / NAME)
    assert published.fetch(NAME, endpoint=closed_port()) == caches / NAME
    assert CopGen.from_pretrained(NAME).name == NAME


def test_a_cache_that_holds_something_else_is_refused_before_the_download(caches: Path) -> None:
    (caches / NAME).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"is no model.*COPGEN_CACHE"):
        published.fetch(NAME, endpoint=closed_port())


def test_a_second_process_that_was_quicker_is_no_error(released: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any) -> tuple[Path, Path, dict[str, str]]:
        published.convert(released / "500000_nnet_ema.pth", released / "vae", caches / NAME)
        return released / "500000_nnet_ema.pth", released / "vae", {}

    monkeypatch.setattr("copgen.published.hub.download", download)
    assert published.fetch(NAME) == caches / NAME
