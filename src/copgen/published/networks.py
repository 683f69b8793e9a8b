"""How do released tensors become networks of ours? Strictly: each has one place, and none is left over."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.modalities import TABLE, Table
from copgen.published.diffusers import from_diffusers
from copgen.published.released import SYSTEMS, network_order
from copgen.store import fill

SCALES = {row: vae.scaling_factor for system in SYSTEMS for vae in system.vaes.values() for row in vae.rows}


def backbone(state_dict: Mapping[str, Tensor], heads: int = 16, table: Table = TABLE) -> UViT:
    """Our backbone filled strictly with released weights; width and depth are read off the tensors.

    Raises ValueError for weights that are not a COP-GEN backbone's over this table.
    """
    length, width = positions_of(state_dict)
    weights = checked(state_dict, "a COP-GEN backbone", {"norm.weight": 1})
    if length != table.sequence_length:
        raise ValueError(f"pos_embed has {length} tokens, these {len(table.rows)} modalities have {table.sequence_length}")
    halves = {int(match[1]) for key in weights if (match := re.match(r"in_blocks\.(\d+)\.", key))}
    if heads < 1:
        raise ValueError(f"{heads} heads: at least 1 is needed")
    with torch.device("meta"):
        network = UViT(table, BackboneConfig(width, 2 * len(halves), heads))
    fill(network, dict(renamed(weights, table)), "released backbone")
    return network.eval()


def positions_of(state_dict: Mapping[str, object]) -> tuple[int, int]:
    """Tokens and width of a released backbone; ValueError for weights of something else."""
    length, width = checked(state_dict, "a COP-GEN backbone", {"pos_embed": 3})["pos_embed"].shape[-2:]
    return length, width


def renamed(weights: Mapping[str, Tensor], table: Table) -> Iterator[tuple[str, Tensor]]:
    """Released keys, numbered, to ours, named; the position table is cut into each row's own."""
    order = network_order(table)
    for key, tensor in weights.items():
        if (match := re.fullmatch(r"patch_embeds\.(\d+)\.proj\.(weight|bias)", key)) and int(match[1]) < len(order):
            yield f"embed.{order[int(match[1])]}.{match[2]}", tensor
        elif (match := re.fullmatch(r"decoder_preds\.(\d+)\.(weight|bias)", key)) and int(match[1]) < len(order):
            yield f"head.{order[int(match[1])]}.{match[2]}", tensor
        elif key != "pos_embed":
            yield key, tensor
    positions = weights["pos_embed"].reshape(table.sequence_length, -1)            # all time tokens, then each modality's patches
    clocks, patches = positions[: len(order)], positions[len(order) :].split([table.tokens(row) for row in order])
    for i, row in enumerate(order):
        yield f"position.{row}", torch.cat([clocks[i : i + 1], patches[i]])


def codec(state_dict: Mapping[str, Tensor], row: str, scaling_factor: float | None = None, table: Table = TABLE) -> KLCodec:
    """The released VAE of a row of the table, filled strictly; sizes are read off the tensors.

    Converted weights, a raw training checkpoint or a file of the diffusers library. Raises ValueError for weights that are not such a
    VAE's, or another row's.
    """
    row = image_row(row, table)
    needed = {"encoder.conv_in.weight": 4, "encoder.conv_out.weight": 4, "encoder.down.0.block.0.conv1.weight": 4}
    weights = checked(from_diffusers(inference_weights(state_dict)), f"the VAE of {row}", needed)
    width, channels = weights["encoder.conv_in.weight"].shape[:2]
    if channels != table[row].channels:
        raise ValueError(f"{row}: these weights have {channels} channels, the row has {table[row].channels}; they are another row's")
    levels = sorted({int(match[1]) for key in weights if (match := re.match(r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight", key))})
    multipliers = tuple(len(weights[f"encoder.down.{level}.block.0.conv1.weight"]) // width for level in levels)
    blocks = len([key for key in weights if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", key)])
    config = CodecConfig(channels, len(weights["encoder.conv_out.weight"]) // 2, width, multipliers, blocks)
    if (has := (config.latent_channels, config.stride)) != (needs := (table.latent_channels, table.stride)):
        raise ValueError(f"{row}: these weights have {has[0]} latent channels and stride {has[1]}, the model needs {needs[0]} and "
                         f"{needs[1]}; they are another model's")
    with torch.device("meta"):
        network = KLCodec(config, SCALES[row] if scaling_factor is None else scaling_factor)
    fill(network, weights, f"released VAE of {row}")
    return network.eval()


def image_row(name: str, table: Table) -> str:
    rows = table.select(name)
    if len(rows) != 1 or rows[0] not in table.images:
        raise ValueError(f"{name}: a VAE is one row's; name one of {', '.join(table.images)}")
    return rows[0]


def checked(weights: Mapping[str, object], whose: str, needed: Mapping[str, int]) -> dict[str, Tensor]:
    """The weights, all of them arrays of numbers, those that sizes are read off with that many dimensions; else ValueError with the first
    key.
    """
    for key, dimensions in needed.items():
        tensor = weights.get(key)
        if not isinstance(tensor, Tensor) or tensor.ndim != dimensions or not all(tensor.shape):
            raise ValueError(f"no tensor {key!r} of {dimensions} dimensions: these are not the weights of {whose}; take the released file")
    tensors = {key: tensor for key, tensor in weights.items()
               if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.ndim and tensor.layout is torch.strided}
    if strange := [key for key in weights if key not in tensors]:
        raise ValueError(f"{strange[0]!r} is no tensor of real numbers: these are not the weights of {whose}; take the released file")
    return tensors


def inference_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged autoencoder of a raw training checkpoint; converted weights come back as they are."""
    nested = state_dict.get("ema")
    if not isinstance(nested, Mapping):
        return dict(state_dict)
    averaged = {key.removeprefix("ema_model."): tensor for key, tensor in nested.items() if key.startswith("ema_model.")}
    return {key: tensor for key, tensor in averaged.items() if not key.startswith("loss.")}


def place_as_published(vector: Tensor) -> tuple[float, float]:
    """Latitude and longitude of a generated vector [3] the authors' way, for comparisons: not brought to length 1 first, z clipped."""
    x, y, z = (float(value) for value in vector)
    return math.degrees(math.asin(min(max(z, -1.0), 1.0))), math.degrees(math.atan2(y, x))
