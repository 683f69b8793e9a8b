"""The same backbone, solver and VAE over the table of thumbnails against the numbers of COP-GEN-Beta's released code, and of diffusers."""

import numpy as np
import pytest
import torch
from golden import ARRAYS, DIFFUSERS, SMALL, backbone_shapes, from_diffusers, picture_codec, picture_weights, tiny_beta, wave
from made_released import in_diffusers

from copgen import diffusion, published
from copgen.backbone import BackboneConfig
from copgen.modalities import THUMBNAILS

FIRST, *REST = SMALL.names


def test_four_times_of_one_sequence():
    latents = {name: wave((2, 4, 8, 8), 0.013 * (i + 1)) for i, name in enumerate(SMALL.names)}
    times = {name: torch.full((2,), time) for name, time in zip(SMALL.names, (0.0, 500.5, 1000.0, 20.98), strict=True)}
    with torch.no_grad():
        out = tiny_beta()(latents, times)
    assert np.abs(np.stack([out[name].numpy() for name in SMALL.names]) - ARRAYS["beta_tiny_out_f32"]).max() < 5e-6


def test_a_joint_sample_of_three_given_the_fourth():
    """The released code itself moves by 1.5e-5 with another attention kernel."""
    noise = {name: 1.4 * wave((2, 256), 0.31 * (i + 1)).reshape(2, 4, 8, 8) for i, name in enumerate(REST)}
    drawn = diffusion.sample(tiny_beta(), noise, {FIRST: wave((2, 4, 8, 8), 0.013)}, solver="published", steps=50)
    flat = torch.cat([drawn[name].flatten(1) for name in REST], dim=1).numpy()
    assert np.abs(flat - ARRAYS["beta_tiny_joint_sample_f32"]).max() < 1e-4


def test_the_vae_gives_diffusers_numbers_from_the_authors_keys_and_from_diffusers():
    weights = picture_weights()
    with torch.no_grad():
        codec, made = picture_codec(weights)
    assert sum(tensor.numel() for tensor in weights.values()) == 83_653_863 and codec.scaling_factor == 0.18215
    assert from_diffusers(made) < 1e-11          # of what is written down; all of both tensors agree to 3e-16 and 1.3e-13
    for name, part in made.items():
        assert (part.mean().item(), part.std().item()) == pytest.approx(DIFFUSERS[name][:2], abs=1e-12)
    again = published.codec(in_diffusers(weights), "s2_l2a", table=THUMBNAILS).state_dict()
    assert again.keys() == weights.keys() and all(torch.equal(again[key], weights[key]) for key in weights)


def test_pictures_are_scaled_as_published_and_back():
    """torchvision's ToTensor, Normalize(0.5, 0.5) and save_image, written out."""
    scale, levels = THUMBNAILS["s2l2a_thumbnail"].scale, torch.arange(256, dtype=torch.uint8)
    published_pixels = (levels.float() / 255 - 0.5) / 0.5
    np.testing.assert_allclose(scale.to_model(levels.numpy()), published_pixels.numpy(), atol=6e-8, rtol=0)
    assert np.array_equal(scale.to_physical(scale.to_model(levels.numpy())), levels.numpy())
    decoded = 1.5 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    saved = decoded.add(1).mul(0.5).clamp(0, 1).mul(255).add(0.5).clamp(0, 255).to(torch.uint8)
    assert np.array_equal(scale.to_physical(decoded.numpy()), saved.numpy()) and {0, 255} <= set(saved.tolist())


def released_keys():
    """The tensors of nnet_ema_114000.pth, as they are in it."""
    shapes = {"pos_embed": (1, 1028, 1024), "norm.weight": (1024,), "norm.bias": (1024,)}
    for i in range(4):
        shapes |= {f"patch_embeds.{i}.proj.weight": (1024, 4, 2, 2), f"patch_embeds.{i}.proj.bias": (1024,),
                   f"decoder_preds.{i}.weight": (16, 1024), f"decoder_preds.{i}.bias": (16,)}
    for block in ["mid_block", *(f"{side}_blocks.{j}" for side in ("in", "out") for j in range(10))]:
        shapes |= {f"{block}.attn.qkv.weight": (3072, 1024), f"{block}.attn.proj.weight": (1024, 1024), f"{block}.attn.proj.bias": (1024,),
                   f"{block}.mlp.fc1.weight": (4096, 1024), f"{block}.mlp.fc1.bias": (4096,), f"{block}.mlp.fc2.weight": (1024, 4096),
                   f"{block}.mlp.fc2.bias": (1024,)}
        shapes |= {f"{block}.{norm}.{kind}": (1024,) for norm in ("norm2", "norm3") for kind in ("weight", "bias")}
        if block.startswith("out"):
            shapes |= {f"{block}.norm1.weight": (1024,), f"{block}.norm1.bias": (1024,), f"{block}.skip_linear.weight": (1024, 2048),
                       f"{block}.skip_linear.bias": (1024,)}
    return shapes


def test_the_released_files_290_tensors_each_have_a_place_and_leave_none_empty():
    shapes = released_keys()
    assert len(shapes) == 290 and shapes == backbone_shapes(THUMBNAILS, 1024, 20)
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}        # shapes alone: nothing of 1.1 GB is made
    network = published.backbone(weights, table=THUMBNAILS)
    assert network.config == BackboneConfig(1024, 20, 16)
    assert sum(p.numel() for p in network.parameters()) == sum(tensor.numel() for tensor in weights.values()) == 286_648_384
    del weights["out_blocks.9.skip_linear.weight"]
    with pytest.raises(ValueError, match=r"1 weight is missing, first out_blocks\.9\.skip_linear\.weight"):
        published.backbone(weights, table=THUMBNAILS)
