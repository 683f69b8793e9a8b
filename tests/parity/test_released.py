"""Our backbone, codecs and scalings against numbers that the released code gives with formula-filled weights."""

import json
import math

import numpy as np
import pytest
import torch
from golden import ARRAYS, GOLDEN, backbone_shapes, cosine, difference, filled_first, radar_weights, tiny_backbone, tiny_codec, wave

from copgen import published
from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec, draw
from copgen.modalities import TABLE


@pytest.mark.parametrize("name", published.MODELS)
def test_a_released_size_has_exactly_the_released_parameters(name):
    released = published.MODELS[name]
    with torch.device("meta"):
        network = UViT(released.system.table, released.config)
    assert sum(p.numel() for p in network.parameters()) == released.parameters


@pytest.mark.parametrize("name", ["copgen-base", "cop-gen-beta"])
def test_the_vaes_have_exactly_the_released_parameters(name):
    """Ten of COP-GEN, one of COP-GEN-Beta; together they are of every image row, each of one."""
    system = published.MODELS[name].system
    table, vaes = system.table, system.vaes.values()
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in KLCodec(CodecConfig(table[vae.rows[0]].channels, table.latent_channels)).parameters())
                 for vae in vaes]
    assert sum(sizes) == system.parameters
    assert sorted(row for vae in vaes for row in vae.rows) == sorted(table.images)


def test_the_released_file_has_322_tensors():
    assert len(backbone_shapes(TABLE, 1024, 20)) == 322


def test_the_backbone_gives_the_released_numbers():
    network, latents, times = tiny_backbone()
    with torch.no_grad():
        out = network(latents, times)
    assert [published.KEYS[row] for row in published.ORDER] == GOLDEN["backbone_tiny"]["modalities"]
    for row in published.ORDER:
        assert difference(out[row], GOLDEN["backbone_tiny"]["outputs"][published.KEYS[row]]) < 1e-5


def test_the_backbone_reads_its_sizes_off_the_weights():
    network = published.backbone(filled_first(backbone_shapes(TABLE, 48, 6), 0.1), heads=3)
    assert network.config == BackboneConfig(48, 6, 3)


def test_the_vae_gives_the_released_numbers():
    golden, codec = GOLDEN["vae_tiny"], tiny_codec()
    assert codec.config == CodecConfig(golden["ddconfig"]["in_channels"], width=golden["ddconfig"]["ch"])
    with torch.no_grad():
        assert difference(codec.moments(cosine((2, 3, 32, 32), 0.07)), golden["moments"]) < 1e-5
        # the golden float32 numbers themselves lie 1.9e-5 from the float64 result
        assert difference(codec.decode(cosine((2, 8, 4, 4), 0.3)), golden["decoded"]) < 3e-5


@pytest.mark.parametrize(("dtype", "moments_within", "decode_within"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 2e-6, 1e-3)])
def test_the_full_size_vae_gives_the_released_arrays(dtype, moments_within, decode_within):
    """In float32 the released code itself differs from these by up to 5e-7 (moments) and 3.2e-4 (decode)."""
    codec = published.codec(radar_weights(), "s1rtc", scaling_factor=0.5).to(dtype)
    with torch.no_grad():
        moments = codec.moments(wave((1, 2, 64, 64), 0.013, dtype=dtype))
        decoded = codec.decode(wave((1, 8, 8, 8), 0.05, dtype=dtype))
    assert np.abs(moments.double().numpy() - ARRAYS["vae_moments_f64"]).max() < moments_within
    assert np.abs(decoded.double().numpy() - ARRAYS["vae_decode_f64"]).max() < decode_within


def test_a_raw_training_checkpoint_gives_its_averaged_weights():
    weights = radar_weights()
    raw = {"step": 500_000, "model": {}, "ema": {**{f"ema_model.{k}": v for k, v in weights.items()}, "initted": torch.ones(1),
           **{f"online_model.{k}": torch.zeros_like(v) for k, v in weights.items()}, "ema_model.loss.logvar": torch.zeros(())}}
    codec = published.codec(raw, "S1RTC_vh_vv")
    assert torch.equal(codec.encoder.conv_in.weight, weights["encoder.conv_in.weight"])
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
    smallest = 1e-9 if row == "s1rtc" else 1e-3
    assert scale.to_physical(np.array(golden["pre"], np.float32)) == pytest.approx(golden["post"], rel=2e-5, abs=smallest)


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
        vector = np.array(json.loads(text))
        assert published.place_as_published(torch.tensor(json.loads(text))) == pytest.approx(place, abs=1e-4)
        unit = vector / np.linalg.norm(vector)   # on which ours and the published decoding agree
        decoded = scale.to_physical(unit.reshape(1, 1, 3))
        assert decoded == pytest.approx(published.place_as_published(torch.tensor(unit)), abs=1e-4)
    for text, vector in GOLDEN["pre_post"]["latlon"].items():
        place = [float(x) for x in text.split(",")]
        assert scale.to_physical(np.array(vector).reshape(1, 1, 3)) == pytest.approx(place, abs=2e-3)      # float32, near a pole
