"""The golden numbers: what the released code gives with formula-filled weights, and those formulas."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from copgen import published
from copgen.codec import CodecConfig, KLCodec
from copgen.modalities import TABLE, THUMBNAILS
from copgen.training.adversarial import PatchGAN
from copgen.training.lpips import STAGES, WIDTHS, Perceptual, renamed

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "cop-gen-tiny.json").read_text())
ARRAYS = np.load(HERE / "vae-and-beta.npz")
LOSS = {                                         # the released training's, in float64
    "likelihood": 4695.3909865756, "mean error": 1.1463356900819, "kl": 48.8296856847, "adversarial": -0.3154615648,
    "weight": 288.8596158007, "total before": 4695.3910354053, "total after": 4604.2669289908, "hinge": 1.0966989573,
    "logits of real": 0.1220636502,
}
STARTS = 50_001                                  # the step from which its discriminator counts
NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "norm3.weight", "norm_out.weight")

SMALL = replace(THUMBNAILS, footprint=640)       # COP-GEN-Beta's four rows of 64 x 64 pixels: latents of 4 x 8 x 8
DIFFUSERS = {                                    # of its VAE in full size, by diffusers 0.42.1 in float64: mean, spread, first and last
    "moments": (-0.00388986214163, 0.06645602143706, (-0.031774088976, -0.027501995217, -0.021080837184, -0.002175265438),
                (-0.015897600015, -0.001522287458, 0.004984249445, -0.003183120323)),
    "decoded": (0.01435907255199, 0.2242019021633, (0.093192729071, 0.00800809724, 0.160847817194, 0.3097830494),
                (-0.41547823436, -0.325826901339, 0.026751814289, -0.134620814343)),
}


def wave(shape, frequency, phase=0.0, dtype=torch.float32):
    return torch.sin(frequency * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape).to(dtype)


def cosine(shape, frequency, phase=0.0):
    return wave(shape, frequency, phase + math.pi / 2)


def filled_first(shapes, amplitude):
    """Weights by the formula of cop-gen-tiny.json: a wave whose phase is the key's rank; norms around 1."""
    return {key: (amplitude * wave(shapes[key], 0.37, 1.3 * rank, torch.float64) + key.endswith(NORMS)).float()
            for rank, key in enumerate(sorted(shapes))}


def filled_second(shapes, dtype=torch.float32):
    """Weights by the formula of vae-and-beta.npz."""
    weights = {}
    for rank, key in enumerate(sorted(shapes)):
        vector = len(shapes[key]) == 1
        values = (0.1 if vector else 0.05) * wave(shapes[key], 1.7, 0.37 * (rank + 1), torch.float64)
        weights[key] = (values + (vector and key.endswith("weight"))).to(dtype)
    return weights


def backbone_shapes(table, width, depth):
    """The tensors of a released backbone file, by its own keys."""
    shapes = {"pos_embed": (1, table.sequence_length, width), "norm.weight": (width,), "norm.bias": (width,)}
    for i, row in enumerate(published.network_order(table)):
        z, p = table.latent_shape(row)[0], table.patch_of(row)
        shapes |= {f"patch_embeds.{i}.proj.weight": (width, z, p, p), f"patch_embeds.{i}.proj.bias": (width,),
                   f"decoder_preds.{i}.weight": (p * p * z, width), f"decoder_preds.{i}.bias": (p * p * z,)}
    for block in [f"{side}_blocks.{j}" for side in ("in", "out") for j in range(depth // 2)] + ["mid_block"]:
        outer = block.startswith("out")
        norms = ("norm1", "norm2", "norm3") if outer else ("norm2", "norm3")
        shapes |= {f"{block}.{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
        shapes |= {f"{block}.attn.qkv.weight": (3 * width, width), f"{block}.attn.proj.weight": (width, width),
                   f"{block}.attn.proj.bias": (width,), f"{block}.mlp.fc1.weight": (4 * width, width),
                   f"{block}.mlp.fc1.bias": (4 * width,), f"{block}.mlp.fc2.weight": (width, 4 * width), f"{block}.mlp.fc2.bias": (width,)}
        if outer:
            shapes |= {f"{block}.skip_linear.weight": (width, 2 * width), f"{block}.skip_linear.bias": (width,)}
    return shapes


def codec_shapes(config):
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in KLCodec(config).state_dict().items()}


def tiny_backbone():
    """Our backbone with the golden fill, its golden inputs and times."""
    golden = GOLDEN["backbone_tiny"]
    weights = filled_first(backbone_shapes(TABLE, golden["embed_dim"], golden["depth"]), 0.2)
    order = published.ORDER
    latents = {row: cosine((2, *TABLE.latent_shape(row)), 0.11, j) for j, row in enumerate(order)}
    times = {row: torch.tensor(golden["t"][j]) for j, row in enumerate(order)}
    return published.backbone(weights, heads=golden["num_heads"]), latents, times


def tiny_codec():
    golden = GOLDEN["vae_tiny"]
    config = CodecConfig(golden["ddconfig"]["in_channels"], width=golden["ddconfig"]["ch"])
    return published.codec(filled_first(codec_shapes(config), 0.05), "s2l1c_60m", scaling_factor=golden["scale_factor_for_decode"])


def radar_weights():
    """The full-size VAE of two bands."""
    return filled_second(codec_shapes(CodecConfig(2)))


def tiny_beta():
    return published.backbone(filled_second(backbone_shapes(SMALL, 64, 4)), heads=4, table=SMALL)


def picture_weights():
    """The full-size VAE of pictures."""
    return filled_second(codec_shapes(CodecConfig(3, THUMBNAILS.latent_channels)))


def picture_codec(weights):
    """That VAE in float64; its moments and what it makes of latents, of the golden waves."""
    codec = published.codec(weights, "dem_thumbnail", table=THUMBNAILS).double()
    return codec, {"moments": codec.moments(wave((1, 3, 32, 32), 0.013, dtype=torch.float64)),
                   "decoded": codec.decode(wave((1, 4, 4, 4), 0.05, dtype=torch.float64))}


def from_diffusers(made):
    """The largest difference from diffusers' numbers, which are written with twelve digits."""
    return max(float((part.flatten()[at] - torch.tensor(golden, dtype=torch.float64)).abs().max())
               for name, part in made.items() for at, golden in ((slice(4), DIFFUSERS[name][2]), (slice(-4, None), DIFFUSERS[name][3])))


def perceptual_weights():
    """LPIPS's, by the keys of a released training checkpoint less their prefix, in float64; heads are positive."""
    shapes, inside = {}, 3
    for number, (stage, width) in enumerate(zip(STAGES, WIDTHS, strict=True)):
        shapes[f"lin{number}.model.1.weight"] = (1, width, 1, 1)
        for index in stage:
            shapes |= {f"net.slice{number + 1}.{index}.weight": (width, inside, 3, 3), f"net.slice{number + 1}.{index}.bias": (width,)}
            inside = width
    return {key: tensor.abs() if key.startswith("lin") else tensor for key, tensor in filled_second(shapes, torch.float64).items()}


def perceptual():
    network = Perceptual().double()
    network.load_state_dict(dict(renamed({f"loss.perceptual_loss.{key}": tensor for key, tensor in perceptual_weights().items()})))
    return network


def loss_inputs():
    """What the golden loss is of: the truth, what a last layer makes, its weights, the moments and a discriminator; all float64."""
    judge = PatchGAN(4).double()
    shapes = {key: tuple(tensor.shape) for key, tensor in judge.named_parameters()}
    judge.load_state_dict(filled_second(shapes, torch.float64), strict=False)      # its running statistics stay as they begin
    last = wave((4, 8, 3, 3), 1.7, 0.37, torch.float64).mul(0.05).requires_grad_()
    made = torch.nn.functional.conv2d(wave((2, 8, 32, 32), 0.021, dtype=torch.float64), last, padding=1)
    return {"x": wave((2, 4, 32, 32), 0.013, dtype=torch.float64), "y": made, "moments": wave((2, 16, 4, 4), 0.11, dtype=torch.float64),
            "last": last, "discriminator": judge}


def difference(tensor, golden):
    """The largest difference from a golden summary: first and last numbers, sums relative to the sum of magnitudes."""
    flat = tensor.double().flatten()
    assert list(tensor.shape) == golden["shape"]
    parts = [(flat[:8] - torch.tensor(golden["first8"], dtype=torch.float64)).abs().max()]
    if "last4" in golden:
        parts.append((flat[-4:] - torch.tensor(golden["last4"], dtype=torch.float64)).abs().max())
    parts.append(abs(flat.abs().sum() - golden["abs_sum"]) / golden["abs_sum"])
    parts.append(abs(flat.sum() - golden["sum"]) / golden["abs_sum"])
    return float(max(parts))
