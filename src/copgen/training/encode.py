"""Layers to moments: the training set of the backbone, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from copgen.codec import KLCodec
from copgen.files import sha256
from copgen.modalities import Table
from copgen.shards import Mixed, Shards, write_shards
from copgen.store import load_codec
from copgen.training.recipe import Recipe
from copgen.training.sources import Source, presence


def encode(source: Source, codecs: Mapping[str, KLCodec], table: Table, folder: Path, *, per_shard: int = 256,
           made_by: Mapping[str, str] | None = None, progress: Callable[[int, int], object] | None = None) -> Shards:
    """Write moments of all samples as shards (float16; place and date as their float32 vectors); shards that exist are kept.

    made_by: the hashes of the codecs' weights, so that a training can check that it has the same.
    """
    meta = {"kind": "moments", "source": source.name, "rows": list(table.names), "patch": table.patch, "codecs": dict(made_by or {})}
    meta |= {"incomplete": True} if source.incomplete else {}
    return write_shards(folder, len(source), lambda numbers: moments_of(source, codecs, table, numbers), per_shard=per_shard,
                        meta=meta, progress=progress)


def codecs_of(recipe: Recipe, folder: Path) -> dict[str, KLCodec]:
    """The codec of every row with a grid, from the folder that has them by name; one that rows share is read once."""
    names = {row: recipe.codec_name(row) for row in recipe.modalities.images}
    read = {name: load_codec(folder / name) for name in dict.fromkeys(names.values())}
    return {row: read[name] for row, name in names.items()}


def check_codecs(shards: Shards | Mixed, codec_folder: Path, name_of: Callable[[str], str] = str) -> None:
    """ValueError where moments were made by other codecs than those in the folder; name_of: row -> its codec's name there."""
    for part in shards.parts:
        for row, made_by in part.meta.get("codecs", {}).items():
            path = codec_folder / name_of(row) / "codec.safetensors"
            if not path.is_file() or sha256(path) != made_by:
                raise ValueError(f"{path}: is not the codec that made the moments in {part.folder}; name the folder of those that did, "
                                 "or encode again")


def moments_of(source: Source, codecs: Mapping[str, KLCodec], table: Table, numbers: range, batch: int = 16) -> dict[str, NDArray[Any]]:
    layers = source.layers(table.names, list(numbers))
    out: dict[str, NDArray[Any]] = {}
    for row, values in layers.items():
        parts = [table[row].scale.to_model(part) for part in np.array_split(values, max(len(values) // batch, 1))]
        if row in codecs:
            parts = [stored_moments(codecs[row], part) for part in parts]
        out[row] = np.concatenate(parts)
    return {**out, **presence(source, table, numbers)}


@torch.no_grad()
def stored_moments(codec: KLCodec, pixels: NDArray[np.floating]) -> NDArray[np.float16]:
    """Moments [n, 2z, h, w] as shards hold them: log-variances cut to what 16 bits hold, a mean beyond that infinite."""
    place = codec.quant_conv.weight.device
    mean, log_variance = codec.moments(torch.from_numpy(pixels).to(place)).chunk(2, dim=1)
    most = torch.finfo(torch.float16).max
    return np.asarray(torch.cat([mean, log_variance.clamp(-most, most)], dim=1).half().cpu())
