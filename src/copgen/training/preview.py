"""What does a backbone in training draw? A few samples of every image row, from the same noise at every preview."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import KLCodec
from copgen.diffusion import sample
from copgen.drawing import INK, PAPER, TILE, Canvas
from copgen.modalities import Table
from copgen.pictures import render
from copgen.training.loop import Preview

SAMPLES, CALLS, GAP, TOP = 3, 15, 8, 24


def backbone_of(table: Table, config: BackboneConfig, average: Mapping[str, Tensor]) -> UViT:
    """A backbone of an objective's averaged weights: a new one, as the other's may lie in shards over the devices."""
    network = UViT(table, config)
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in average.items() if name.startswith("network.")})
    return network.eval()


def preview_of(table: Table, config: BackboneConfig, codecs: Mapping[str, KLCodec]) -> Preview:
    """Step and averaged weights -> a PNG of unconditional samples, on the CPU."""
    return lambda step, average: samples(backbone_of(table, config, average), codecs, f"step {step}, nothing given, {CALLS} calls")


@torch.no_grad()
def samples(network: UViT, codecs: Mapping[str, KLCodec], title: str) -> bytes:
    """A column a row of the table, a line a sample."""
    table, generator = network.table, torch.Generator().manual_seed(0)
    noise = {row: torch.randn(SAMPLES, *table.latent_shape(row), generator=generator) for row in table.names}
    latents = sample(network, noise, {}, "default", CALLS, schedule=network.config.schedule)
    step = TILE + GAP
    canvas = Canvas(Image.new("RGB", (GAP + step * len(table.images), 2 * TOP + step * SAMPLES), PAPER), 1)
    canvas.text(GAP, 4, title, 12, INK)
    for column, row in enumerate(table.images):
        canvas.text(GAP + column * step, TOP, row)
        layers = table[row].scale.to_physical(codecs[row].decode(latents[row]).float().numpy())
        for line, layer in enumerate(layers):
            canvas.paste(render(table[row], layer), GAP + column * step, 2 * TOP - GAP + line * step)
    buffer = io.BytesIO()
    canvas.image.save(buffer, "PNG")
    return buffer.getvalue()
