"""The same backbone and solver over four equal modalities against the numbers of COP-GEN-Beta's released code (tiny weights)."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from copgen import diffusion, published
from copgen.modalities import REFLECTANCE, Modality, Table

ARRAYS = np.load(Path(__file__).parent / "vae-and-beta.npz")
NAMES = ("dem", "s1_rtc", "s2_l1c", "s2_l2a")
ROWS = tuple(Modality(name, name, ("R", "G", "B"), REFLECTANCE, 10, released_as=name) for name in NAMES)
THUMBNAILS = Table(ROWS, footprint=640, stride=8, patch=2, latent_channels=4)                     # latents of 4 x 8 x 8


def wave(shape, frequency):
    return torch.sin(frequency * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape).float()


@pytest.fixture(scope="module")
def backbone():
    width, tokens, halves = 64, THUMBNAILS.sequence_length, 2
    shapes = {"pos_embed": (1, tokens, width), "norm.weight": (width,), "norm.bias": (width,)}
    for i in range(4):
        shapes |= {f"patch_embeds.{i}.proj.weight": (width, 4, 2, 2), f"patch_embeds.{i}.proj.bias": (width,),
                   f"decoder_preds.{i}.weight": (16, width), f"decoder_preds.{i}.bias": (16,)}
    for block in [f"{side}_blocks.{j}" for side in ("in", "out") for j in range(halves)] + ["mid_block"]:
        out = block.startswith("out")
        shapes |= {f"{block}.{norm}.{kind}": (width,) for norm in ("norm1", "norm2", "norm3")[0 if out else 1 :] for kind in ("weight", "bias")}
        shapes |= {f"{block}.attn.qkv.weight": (3 * width, width), f"{block}.attn.proj.weight": (width, width),
                   f"{block}.attn.proj.bias": (width,), f"{block}.mlp.fc1.weight": (4 * width, width), f"{block}.mlp.fc1.bias": (4 * width,),
                   f"{block}.mlp.fc2.weight": (width, 4 * width), f"{block}.mlp.fc2.bias": (width,)}
        if out:
            shapes |= {f"{block}.skip_linear.weight": (width, 2 * width), f"{block}.skip_linear.bias": (width,)}
    weights = {}
    for i, key in enumerate(sorted(shapes)):
        shape = shapes[key]
        j = torch.arange(math.prod(shape), dtype=torch.float64)
        tensor = (0.05 if len(shape) > 1 else 0.1) * torch.sin(0.37 * (i + 1) + 1.7 * j).reshape(shape)
        weights[key] = (tensor + (len(shape) == 1 and key.endswith("weight"))).float()
    return published.backbone(weights, heads=4, table=THUMBNAILS)


def test_four_times_of_one_sequence(backbone):
    latents = {name: wave((2, 4, 8, 8), 0.013 * (i + 1)) for i, name in enumerate(NAMES)}
    times = {name: torch.full((2,), time) for name, time in zip(NAMES, (0.0, 500.5, 1000.0, 20.98), strict=True)}
    with torch.no_grad():
        out = backbone(latents, times)
    assert np.abs(np.stack([out[name].numpy() for name in NAMES]) - ARRAYS["beta_tiny_out_f32"]).max() < 5e-6


def test_a_joint_sample_of_three_given_the_fourth(backbone):
    """The released code itself moves by 1.5e-5 with another attention kernel."""
    noise = {name: 1.4 * wave((2, 256), 0.31 * (i + 1)).reshape(2, 4, 8, 8) for i, name in enumerate(NAMES[1:])}
    drawn = diffusion.sample(backbone, noise, {"dem": wave((2, 4, 8, 8), 0.013)}, solver="published", steps=50)
    flat = torch.cat([drawn[name].flatten(1) for name in NAMES[1:]], dim=1).numpy()
    assert np.abs(flat - ARRAYS["beta_tiny_joint_sample_f32"]).max() < 1e-4
