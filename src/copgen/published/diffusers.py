"""What does the diffusers library call the tensors of the same autoencoder, and does its config.json say that it is the same?"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from copgen.store import read_json

MARK = "encoder.down_blocks.0.resnets.0.conv1.weight"     # a key that only its files have
# Its names -> ours; the attention's as they are now, and as they were when the files were made that are still on the hub.
NAMES = (
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.(?:to_q|query)\.", ".mid.attn_1.q."),
    (r"\.mid_block\.attentions\.0\.(?:to_k|key)\.", ".mid.attn_1.k."),
    (r"\.mid_block\.attentions\.0\.(?:to_v|value)\.", ".mid.attn_1.v."),
    (r"\.mid_block\.attentions\.0\.(?:to_out\.0|proj_attn)\.", ".mid.attn_1.proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
UP = re.compile(r"^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers\.0)\.")       # counted from the coarsest, ours from the finest
PARTS = {"resnets": "block", "upsamplers.0": "upsample"}
# What the weights don't tell: other values have weights of the same shapes and mean another network.
FIXED = {"_class_name": "AutoencoderKL", "act_fn": "silu", "norm_num_groups": 32, "shift_factor": None, "latents_mean": None,
         "latents_std": None}


def is_diffusers(weights: Mapping[str, object]) -> bool:
    return MARK in weights


def from_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of diffusers' AutoencoderKL under our keys; other weights come back as they are. ValueError for a tensor named twice."""
    if not is_diffusers(weights):
        return dict(weights)
    last = max((int(match[1]) for key in weights if (match := UP.match(key))), default=0)
    renamed: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        ours = UP.sub(lambda match: f"decoder.up.{last - int(match[1])}.{PARTS[match[2]]}.", key)
        for pattern, name in NAMES:
            ours = re.sub(pattern, name, ours)
        if ours in renamed:
            raise ValueError(f"{key!r} is there twice, under an older name, too; take the file as its makers released it")
        pointwise = ".mid.attn_1." in ours and isinstance(tensor, Tensor) and tensor.ndim == 2     # a linear map is a convolution of 1 x 1
        renamed[ours] = tensor[:, :, None, None] if pointwise else tensor
    return renamed


def check_config(path: Path, scaling_factor: float) -> None:
    """ValueError where a config.json says of its autoencoder what makes it another one; a file that isn't there says nothing."""
    if not path.is_file():
        return
    said: dict[str, Any] = read_json(path)
    for key, value in {**FIXED, "scaling_factor": scaling_factor}.items():
        if said.get(key, value) != value:
            raise ValueError(f"{path}: {key} is {reprlib.repr(said[key])}, the model was trained with {value!r}; this is another "
                             "autoencoder's: take the released one")
