"""Our backbone, codecs and scalings against numbers that the released code gives with formula-filled weights."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from copgen import published
from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec, draw
from copgen.modalities import TABLE

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "cop-gen-tiny.json").read_text())
ARRAYS = np.load(HERE / "vae-and-beta.npz")
NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "norm3.weight", "norm_out.weight")


def wave(shape, frequency, phase=0.0, dtype=torch.float32):
    return torch.sin(frequency * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape).to(dtype)


def filled(shapes, amplitude):
    """Weights by the formula of the golden numbers' first set: a wave whose phase is the key's rank."""
    weights = {}
    for rank, key in enumerate(sorted(shapes)):
        weights[key] = amplitude * wave(shapes[key], 0.37, 1.3 * rank, torch.float64)
        if key.endswith(NORMS):
            weights[key] += 1.0
    return {key: tensor.float() for key, tensor in weights.items()}


def released_shapes(width, depth):
    """The tensors of a released backbone file, by its own keys."""
    shapes = {"pos_embed": (1, TABLE.sequence_length, width), "norm.weight": (width,), "norm.bias": (width,)}
    for i, row in enumerate(published.ORDER):
        z, p = TABLE.latent_shape(row)[0], TABLE.patch_of(row)
        shapes |= {f"patch_embeds.{i}.proj.weight": (width, z, p, p), f"patch_embeds.{i}.proj.bias": (width,),
                   f"decoder_preds.{i}.weight": (p * p * z, width), f"decoder_preds.{i}.bias": (p * p * z,)}
    blocks = [f"{side}_blocks.{j}" for side in ("in", "out") for j in range(depth // 2)] + ["mid_block"]
    for block in blocks:
        norms = ("norm1", "norm2", "norm3") if block.startswith("out") else ("norm2", "norm3")
        shapes |= {f"{block}.{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
        shapes |= {f"{block}.attn.qkv.weight": (3 * width, width), f"{block}.attn.proj.weight": (width, width),
                   f"{block}.attn.proj.bias": (width,), f"{block}.mlp.fc1.weight": (4 * width, width), f"{block}.mlp.fc1.bias": (4 * width,),
                   f"{block}.mlp.fc2.weight": (width, 4 * width), f"{block}.mlp.fc2.bias": (width,)}
        if block.startswith("out"):
            shapes |= {f"{block}.skip_linear.weight": (width, 2 * width), f"{block}.skip_linear.bias": (width,)}
    return shapes


def assert_matches(tensor, golden, tolerance):
    flat = tensor.double().flatten()
    assert list(tensor.shape) == golden["shape"]
    assert flat[:8].tolist() == pytest.approx(golden["first8"], abs=tolerance)
    if "last4" in golden:
        assert flat[-4:].tolist() == pytest.approx(golden["last4"], abs=tolerance)
    assert float(flat.abs().sum()) == pytest.approx(golden["abs_sum"], rel=tolerance)
    assert float(flat.sum()) == pytest.approx(golden["sum"], abs=tolerance * golden["abs_sum"])


@pytest.mark.parametrize("name", published.MODELS)
def test_a_released_size_has_exactly_the_released_parameters(name):
    released = published.MODELS[name]
    with torch.device("meta"):
        network = UViT(TABLE, released.config)
    assert sum(p.numel() for p in network.parameters()) == released.parameters


def test_the_ten_vaes_have_exactly_the_released_parameters():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in KLCodec(CodecConfig(TABLE[row].channels)).parameters()) for row in TABLE.images]
    assert sum(sizes) == published.VAE_PARAMETERS


def test_the_released_file_has_322_tensors():
    assert len(released_shapes(1024, 20)) == 322


def test_the_backbone_gives_the_released_numbers():
    golden = GOLDEN["backbone_tiny"]
    network = published.backbone(filled(released_shapes(golden["embed_dim"], golden["depth"]), 0.2), heads=golden["num_heads"])
    latents, times = {}, {}
    for j, row in enumerate(published.ORDER):
        shape = (2, *TABLE.latent_shape(row))
        latents[row] = torch.cos(0.11 * torch.arange(math.prod(shape), dtype=torch.float64) + j).reshape(shape).float()
        times[row] = torch.tensor(golden["t"][j])
    with torch.no_grad():
        out = network(latents, times)
    assert [published.KEYS[row] for row in published.ORDER] == golden["modalities"]
    for row in published.ORDER:
        assert_matches(out[row], golden["outputs"][published.KEYS[row]], 1e-5)


def test_the_backbone_reads_its_sizes_off_the_weights():
    network = published.backbone(filled(released_shapes(48, 6), 0.1), heads=3)
    assert network.config == BackboneConfig(48, 6, 3)


def test_the_vae_gives_the_released_numbers():
    golden = GOLDEN["vae_tiny"]
    config = CodecConfig(golden["ddconfig"]["in_channels"], width=golden["ddconfig"]["ch"])
    weights = filled({key: tuple(tensor.shape) for key, tensor in KLCodec(config).state_dict().items()}, 0.05)
    codec = published.codec(weights, "s2l1c_60m", scaling_factor=golden["scale_factor_for_decode"])
    assert codec.config == config
    with torch.no_grad():
        moments = codec.moments(torch.cos(0.07 * torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)).reshape(2, 3, 32, 32).float())
        decoded = codec.decode(torch.cos(0.3 * torch.arange(2 * 8 * 4 * 4, dtype=torch.float64)).reshape(2, 8, 4, 4).float())
    assert_matches(moments, golden["moments"], 1e-5)
    assert_matches(decoded, golden["decoded"], 3e-5)   # the golden float32 numbers lie 1.9e-5 from the float64 ones


@pytest.fixture(scope="module")
def radar_vae():
    """The full-size two-band VAE, filled by the formula of the golden numbers' second set."""
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in KLCodec(CodecConfig(2)).state_dict().items()}
    weights = {}
    for i, key in enumerate(sorted(shapes)):
        amplitude = 0.05 if len(shapes[key]) > 1 else 0.1
        weights[key] = amplitude * wave(shapes[key], 1.7, 0.37 * (i + 1), torch.float64)
        if len(shapes[key]) == 1 and key.endswith("weight"):
            weights[key] += 1.0
    return {key: tensor.float() for key, tensor in weights.items()}


@pytest.mark.parametrize(("dtype", "moments_within", "decode_within"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 2e-6, 1e-3)])
def test_the_full_size_vae_gives_the_released_arrays(radar_vae, dtype, moments_within, decode_within):
    """In float32 the released code itself differs from these by up to 5e-7 (moments) and 3.2e-4 (decode)."""
    codec = published.codec(radar_vae, "s1rtc", scaling_factor=0.5).to(dtype)
    with torch.no_grad():
        moments = codec.moments(wave((1, 2, 64, 64), 0.013, dtype=dtype))
        decoded = codec.decode(wave((1, 8, 8, 8), 0.05, dtype=dtype))
    assert np.abs(moments.double().numpy() - ARRAYS["vae_moments_f64"]).max() < moments_within
    assert np.abs(decoded.double().numpy() - ARRAYS["vae_decode_f64"]).max() < decode_within


def test_a_raw_training_checkpoint_gives_its_averaged_weights(radar_vae):
    raw = {"step": 500_000, "model": {}, "ema": {**{f"ema_model.{k}": v for k, v in radar_vae.items()}, "initted": torch.ones(1),
           **{f"online_model.{k}": torch.zeros_like(v) for k, v in radar_vae.items()}, "ema_model.loss.logvar": torch.zeros(())}}
    codec = published.codec(raw, "S1RTC_vh_vv")
    assert torch.equal(codec.encoder.conv_in.weight, radar_vae["encoder.conv_in.weight"])
    assert codec.scaling_factor == 0.633804


def test_a_draw_from_moments_is_mean_plus_spread_times_noise():
    moments = torch.tensor([[[[2.0]], [[math.log(9.0)]]]])
    assert draw(moments, 0.5).item() == 1.0
    assert draw(moments, 0.5, torch.ones(1, 1, 1, 1)).item() == pytest.approx(2.5)


@pytest.mark.parametrize(("key", "row"), [("S1RTC_vh_vv", "s1rtc"), ("DEM_DEM", "dem"), ("S2L2A_B02_B03_B04_B08", "s2l2a_10m")])
def test_pixels_are_scaled_as_published(key, row):
    golden, scale = GOLDEN["pre_post"][key], TABLE[row].scale
    pre = scale.to_model(np.array(golden["raw"], np.float32))
    assert pre == pytest.approx(golden["pre"], rel=1e-6, abs=1e-6)
    # float32 resolves 1e-7 of the span, which the inverse of a logarithm multiplies
    assert scale.to_physical(np.array(golden["pre"], np.float32)) == pytest.approx(golden["post"], rel=2e-5, abs=1e-3 if row != "s1rtc" else 1e-9)


def test_dates_are_encoded_and_decoded_as_published():
    scale = TABLE["date"].scale
    for day, vector in GOLDEN["pre_post"]["dates"].items():
        assert scale.to_model(np.array([day], "datetime64[D]")).ravel() == pytest.approx(vector, abs=1e-7)
    for text, (day, month, year) in GOLDEN["pre_post"]["date_decode"].items():
        vector = np.array(json.loads(text.replace("(", "[").replace(")", "]")))
        assert str(scale.to_physical(vector.reshape(1, 1, 3))[0]) == f"{year:04d}-{month:02d}-{day:02d}"


def test_places_are_encoded_and_decoded_as_published():
    scale = TABLE["place"].scale
    for text, vector in GOLDEN["pre_post"]["latlon"].items():
        assert scale.to_model(np.array([float(x) for x in text.split(",")])).ravel() == pytest.approx(vector, abs=1e-7)
    for text, place in GOLDEN["pre_post"]["latlon_decode"].items():
        assert published.place_as_published(torch.tensor(json.loads(text))) == pytest.approx(place, abs=1e-4)
