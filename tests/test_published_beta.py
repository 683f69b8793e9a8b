"""COP-GEN-Beta's released files become a model folder, whichever way its VAE is stored; and another VAE is told from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from made_released import HEADS, hub_of, in_diffusers, own_caches, released_backbone, released_vae
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from copgen import diffusion, published
from copgen.cli import app
from copgen.files import sha256
from copgen.modalities import THUMBNAILS
from copgen.model import CopGen, gaussian
from copgen.scene import Scene

NAME, FILE = "cop-gen-beta", "nnet_ema_114000.pth"
VAES = "stabilityai/sd-vae-ft-ema"
REVISIONS = {"mespinosami/COP-GEN-Beta": "c" * 40, VAES: "d" * 40}
CONFIG = {                                       # that of sd-vae-ft-ema
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.4.2", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
    "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 256,
}


def picture_vae() -> dict[str, Tensor]:
    return released_vae("dem_thumbnail", table=THUMBNAILS)


def other_decoder() -> dict[str, Tensor]:
    """As the authors' two files are said to be: one encoder, two decoders."""
    return {key: tensor + 0.01 if key.startswith("decoder.") else tensor for key, tensor in picture_vae().items()}


def diffusers_folder(folder: Path, weights: dict[str, Tensor], config: dict[str, object] = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("beta") / FILE
    torch.save(released_backbone(table=THUMBNAILS), file)
    return file


@pytest.fixture(scope="module")
def converted(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authors")
    torch.save(picture_vae(), folder / "autoencoder_kl_ema.pth")
    torch.save(other_decoder(), folder / "autoencoder_kl.pth")         # beside it, as the authors keep them
    return published.convert(backbone, folder, folder / "model", heads=HEADS)


def record_of(model: Path) -> dict:
    record: dict = json.loads((model / "copgen.json").read_text())
    return record


def test_four_rows_share_one_codec_that_is_stored_once(converted: Path) -> None:
    record = record_of(converted)
    assert record["codecs"] == dict.fromkeys(THUMBNAILS.names, "rgb")
    assert [folder.name for folder in (converted / "vae").iterdir()] == ["rgb"]
    assert list(record["notes"]["converted from"]) == [FILE, "autoencoder_kl_ema.pth"]         # what the authors drew with
    model = CopGen.from_pretrained(converted, device="cpu")
    assert model.table == THUMBNAILS and model.codec("dem_thumbnail") is model.codec("s2l2a_thumbnail")
    assert model.codec("dem_thumbnail").scaling_factor == 0.18215


def test_two_files_of_one_name_are_both_recorded(backbone: Path, tmp_path: Path) -> None:
    vae = tmp_path / FILE
    torch.save(picture_vae(), vae)
    record = record_of(published.convert(backbone, vae, tmp_path / "model", heads=HEADS))
    assert record["notes"]["converted from"] == {f"backbone {FILE}": sha256(backbone), FILE: sha256(vae)}


def test_a_converted_model_draws_what_the_released_weights_draw(backbone: Path, converted: Path) -> None:
    model = CopGen.from_pretrained(converted, device="cpu", precision="fp32")
    radar = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)
    given = Scene({"s1rtc_thumbnail": radar}, table=THUMBNAILS)
    (scene,) = model.generate(given, "S2L2A", seeds=[5], steps=3, solver="published")

    network = published.backbone(published.read_weights(backbone), heads=HEADS, table=THUMBNAILS)
    vae = published.codec(picture_vae(), "s2_l2a", table=THUMBNAILS)
    with torch.no_grad():
        pixels = torch.from_numpy(radar[None].astype(np.float32) / 127.5 - 1)
        mean = vae.moments(pixels).chunk(2, dim=1)[0] * 0.18215
        noise = {row: gaussian([5], row, (4, 32, 32)) for row in THUMBNAILS.names if row != "s1rtc_thumbnail"}
        latents = diffusion.sample(network, noise, {"s1rtc_thumbnail": mean}, solver="published", steps=3)
        picture = (vae.decode(latents["s2l2a_thumbnail"])[0].add(1).div(2).clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    assert scene["s2l2a_thumbnail"].dtype == np.uint8 and len(np.unique(picture)) > 50
    assert np.abs(scene["s2l2a_thumbnail"].astype(int) - picture.numpy().astype(int)).max() <= 1


def authors_file(folder: Path) -> Path:
    torch.save(picture_vae(), folder / "anything.pth")
    return folder / "anything.pth"


def folder_of_today(folder: Path) -> Path:
    return diffusers_folder(folder, in_diffusers(picture_vae()), CONFIG | {"scaling_factor": 0.18215})


def folder_of_2022(folder: Path) -> Path:
    return diffusers_folder(folder, in_diffusers(picture_vae(), older=True))


def pickled(folder: Path) -> Path:
    torch.save(in_diffusers(picture_vae(), older=True, pointwise=True), folder / "diffusion_pytorch_model.bin")
    return folder


@pytest.mark.parametrize("stored", [authors_file, folder_of_today, folder_of_2022, pickled])
def test_the_vae_is_the_same_however_it_is_stored(stored: Callable[[Path], Path], backbone: Path, converted: Path, tmp_path: Path) -> None:
    out = published.convert(backbone, stored(tmp_path), tmp_path / "out", heads=HEADS)
    for file in ("vae/rgb/codec.safetensors", "vae/rgb/codec.json", "backbone.safetensors"):
        assert (out / file).read_bytes() == (converted / file).read_bytes()
    assert record_of(out)["notes"]["codec parts"] == record_of(converted)["notes"]["codec parts"]


def test_the_folder_tells_an_encoder_from_a_decoder_that_differ(backbone: Path, converted: Path, tmp_path: Path) -> None:
    torch.save(other_decoder(), tmp_path / "autoencoder_kl.pth")
    ours, other = (record_of(model)["notes"]["codec parts"]["rgb"]
                   for model in (converted, published.convert(backbone, tmp_path, tmp_path / "out", heads=HEADS)))
    assert ours["encoder"] == other["encoder"] and ours["decoder"] != other["decoder"]


# --- what is another autoencoder ----------------------------------------------------------------------------------------------------


def message(backbone: Path, vaes: Path, out: Path) -> str:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(ValueError) as error:
        published.convert(backbone, vaes, out, heads=HEADS)
    assert sorted(out.parent.rglob("*")) == before and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("change", "says"), [
    ({"scaling_factor": 0.13025}, "scaling_factor is 0.13025, the model was trained with 0.18215"),            # SDXL's: the same shapes
    ({"scaling_factor": None}, "scaling_factor is None"),
    ({"norm_num_groups": 16}, "norm_num_groups is 16, the model was trained with 32; this is another autoencoder's: take the released one"),
    ({"act_fn": "relu"}, "act_fn is 'relu'"),
    ({"_class_name": "VQModel"}, "_class_name is 'VQModel'"),
    ({"shift_factor": 0.0609}, "shift_factor is 0.0609"),
    ({"scaling_factor": 10**400}, "scaling_factor is 1000"),                       # more than a float holds
    ({"scaling_factor": float("nan")}, "scaling_factor is nan"),
    ({"latents_mean": [0.0] * 10**5}, "latents_mean is [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ...], "),
])
def test_a_config_that_says_it_is_another_is_believed(change: dict[str, object], says: str, backbone: Path, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "vae", in_diffusers(picture_vae()), CONFIG | change)
    said = message(backbone, folder, tmp_path / "out")
    assert said.startswith(f"{folder / 'config.json'}: ") and says in said


@pytest.mark.parametrize(("weights", "says"), [
    (lambda: released_vae("s2l1c_60m"), "8 latent channels and stride 8, the model needs 4 and 8"),            # three bands, of COP-GEN
    (lambda: released_vae("dem"), "1 channels, the row has 3"),
    (lambda: in_diffusers(picture_vae()) | {"encoder.mid_block.attentions.0.query.weight": torch.zeros(32, 32)}, "is there twice"),
    (lambda: in_diffusers(picture_vae()) | {"loss.logvar": torch.zeros(1)}, "1 weight is not this model's, first loss.logvar"),
    (lambda: {key: tensor for key, tensor in in_diffusers(picture_vae()).items() if "to_v.bias" not in key},
     "2 weights are missing, first decoder.mid.attn_1.v.bias"),
    (lambda: {key: tensor for key, tensor in in_diffusers(picture_vae()).items() if "decoder.up_blocks.3" not in key}, "missing"),
    (lambda: in_diffusers(picture_vae()) | {"decoder.up_blocks.9.resnets.0.norm1.bias": torch.zeros(32)}, "missing"),
    (lambda: in_diffusers(picture_vae()) | {"encoder.down_blocks.1.resnets.0.conv1.weight": torch.zeros(())}, "is no tensor of real"),
    (lambda: in_diffusers(picture_vae()) | {"quant_conv.bias": torch.full((8,), torch.nan)}, "quant_conv.bias: holds values that are no"),
])
def test_another_vae_is_refused_by_name(weights: Callable[[], dict[str, Tensor]], says: str, backbone: Path, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "vae", weights())
    said = message(backbone, folder, tmp_path / "out")
    assert said.startswith(f"{folder / 'diffusion_pytorch_model.safetensors'}: ") and says in said


def test_a_config_that_nests_without_end_is_refused(backbone: Path, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "vae", in_diffusers(picture_vae()))
    (folder / "config.json").write_text('{"a":' * 100_000)
    assert message(backbone, folder, tmp_path / "out").startswith(f"{folder / 'config.json'}: could not be read (")


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.half() for key, tensor in weights.items()}


def test_weights_of_16_bits_are_read_and_stored_in_32(backbone: Path, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "vae", halved(in_diffusers(picture_vae())))
    stored = load_file(published.convert(backbone, folder, tmp_path / "out", heads=HEADS) / "vae/rgb/codec.safetensors")
    assert all(torch.equal(tensor, halved(picture_vae())[key].float()) for key, tensor in stored.items())


@pytest.mark.parametrize(("change", "says"), [
    ({"norm.bias": torch.full((32,), torch.inf)}, "norm.bias: holds values that are no numbers"),
    ({"norm.bias": torch.zeros(32).to_sparse()}, "'norm.bias' is no tensor of real numbers"),
])
def test_a_backbone_that_no_file_of_ours_holds_is_named(change: dict[str, Tensor], says: str, tmp_path: Path) -> None:
    torch.save(released_backbone(table=THUMBNAILS) | change, tmp_path / FILE)
    said = message(tmp_path / FILE, authors_file(tmp_path), tmp_path / "out")
    assert said.startswith(f"{tmp_path / FILE}: ") and says in said


def test_a_file_that_is_damaged_or_not_there_is_named(backbone: Path, tmp_path: Path) -> None:
    folder = folder_of_today(tmp_path / "vae")
    file = folder / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:5], b"", (10**15).to_bytes(8, "little") + whole[8:]):
        file.write_bytes(damaged)
        assert message(backbone, folder, tmp_path / "out").startswith(f"{file}: refused")
    file.unlink()
    said = message(backbone, folder, tmp_path / "out")
    for part in (f"{file}: there is no such file", "autoencoder_kl_ema.pth", "stabilityai/sd-vae-ft-ema"):
        assert part in said


def test_the_backbone_says_which_vaes_it_needs(backbone: Path, tmp_path: Path) -> None:
    """The ten of COP-GEN do not serve COP-GEN-Beta's backbone, nor its one theirs."""
    torch.save(released_backbone(), tmp_path / "500000_nnet_ema.pth")
    file = authors_file(tmp_path)
    said = message(tmp_path / "500000_nnet_ema.pth", file, tmp_path / "out")
    assert "model-50-ema.pth: there is no such file" in said and "mespinosami/copgen-vaes" in said
    weights = released_backbone(table=THUMBNAILS)
    torch.save(weights | {"pos_embed": weights["pos_embed"][:, 1:]}, tmp_path / "odd.pth")
    assert "pos_embed has 1027 tokens, released models have 834 (copgen-base)" in message(tmp_path / "odd.pth", file, tmp_path / "out")


# --- the hub ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(backbone: Path, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    (tmp_path / "beta").mkdir()
    (tmp_path / "beta" / FILE).symlink_to(backbone)
    vaes = folder_of_2022(tmp_path / "vae")
    torch.save({}, vaes / "diffusion_pytorch_model.bin")               # the hub has it in both formats
    (vaes / "README.md").write_text("")
    with hub_of({"mespinosami/COP-GEN-Beta": tmp_path / "beta", VAES: vaes}, REVISIONS) as served:
        yield served


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_caches(NAME, tmp_path, monkeypatch)


def test_it_is_fetched_by_its_name_and_converted_once(hub: tuple[str, list[str]], caches: Path, converted: Path) -> None:
    endpoint, requests = hub
    folder = published.fetch(NAME, endpoint=endpoint)
    record = record_of(folder)
    assert folder == caches / NAME and record["name"] == NAME and record["notes"]["revisions"] == REVISIONS
    assert list(record["notes"]["converted from"]) == [FILE, "diffusion_pytorch_model.safetensors"]
    assert (folder / "vae/rgb/codec.safetensors").read_bytes() == (converted / "vae/rgb/codec.safetensors").read_bytes()
    got = sorted(request.rpartition("/")[2] for request in requests if request.startswith("GET") and "/resolve/" in request)
    assert got == ["config.json", "diffusion_pytorch_model.safetensors", FILE]                 # no more than is needed

    requests.clear()
    assert published.fetch(NAME, endpoint=endpoint) == folder and requests == []
    assert CopGen.from_pretrained(NAME).name == NAME


def test_without_a_network_every_file_and_the_command_are_named(caches: Path) -> None:
    with pytest.raises(ValueError) as error:
        published.fetch(NAME, endpoint="http://127.0.0.1:9")
    for part in (f"{FILE} of mespinosami/COP-GEN-Beta", "diffusion_pytorch_model.safetensors (of stabilityai/sd-vae-ft-ema, or the "
                 "authors' autoencoder_kl_ema.pth)", f"copgen convert --backbone {FILE} --vaes FOLDER --out {caches / NAME}"):
        assert part in str(error.value)
    assert not caches.exists()


def test_generate_takes_it_by_its_name_from_a_picture_to_pictures(hub: tuple[str, list[str]], caches: Path, tmp_path: Path) -> None:
    published.fetch(NAME, endpoint=hub[0])
    rows, columns = np.mgrid[:256, :256]
    Image.fromarray(np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)).save(tmp_path / "s1.webp", lossless=True)
    asked = ["--want", "DEM,S2L2A", "--samples", "2", "--steps", "1"]
    words = ["--input", f"S1RTC={tmp_path / 's1.webp'}", *asked, "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, ["generate", "--model", NAME, *words])
    assert said.exit_code == 0, said.output
    drawn = sorted((tmp_path / "out").rglob("*_thumbnail.png"))
    assert [picture.name for picture in drawn] == ["DEM_thumbnail.png", "S2L2A_thumbnail.png"] * 2
    for picture in drawn:
        with Image.open(picture) as opened:
            assert (opened.size, opened.mode) == ((256, 256), "RGB")
