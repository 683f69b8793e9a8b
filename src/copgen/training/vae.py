"""Training of one row's codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.codec import KLCodec, draw
from copgen.config import dump
from copgen.store import save_codec
from copgen.training.loop import Report, start_run, train
from copgen.training.recipe import Recipe
from copgen.training.sources import Source


def train_vae(row: str, recipe: Recipe, source: Source, folder: Path, *, resume: bool = False, report: Report | None = None) -> KLCodec:
    """Train one row's codec and leave it in `folder` (codec.json, codec.safetensors), its scaling factor measured.

    row: a row with a grid. source: the samples; each is turned and mirrored at random, as a codec knows no north.
    """
    table = recipe.modalities
    if not table[row].is_image:
        raise ValueError(f"{row} needs no codec; those that do are {', '.join(table.images)}")
    how = recipe.train_vae.how
    torch.manual_seed(how.seed)
    codec = KLCodec(recipe.codec_config(row))
    pixels = pixel_reader(row, recipe, source)
    if codec.config.shortcut:
        codec.start_from_principal_components(pixels(np.arange(min(len(source), 256))))

    def loss(network: nn.Module, numbers: NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, KLCodec)
        x = turned(cropped(pixels(numbers), recipe.train_vae.crop, generator), generator)
        moments = network.moments(x)
        noise = torch.randn(moments.chunk(2, 1)[0].shape, generator=generator)
        y = network.decode(draw(moments.float(), 1.0, noise)).float()
        reconstruction = ((x - y).abs() + (x - y).square()).flatten(1).sum(1).mean()
        divergence = kl(moments.float())
        parts = {"reconstruction": (x - y).abs().mean(), "kl": divergence}
        return reconstruction + recipe.train_vae.kl_weight * divergence, parts

    start_run(folder, resume, {"row": row, "data": source.name, **dump(recipe)})
    average = train(codec, loss, len(source), how, folder, resume=resume, report=report)
    codec.load_state_dict(average)
    codec.eval()
    codec.scaling_factor = measured_scaling_factor(codec, pixels, len(source), seed=how.seed)
    save_codec(codec, folder)
    return codec


def pixel_reader(row: str, recipe: Recipe, source: Source) -> Callable[[NDArray[np.int64]], Tensor]:
    """Sample numbers -> pixels [B, C, H, W] in [-1, 1]."""
    scale = recipe.modalities[row].scale
    return lambda numbers: torch.from_numpy(scale.to_model(source.layers([row], [int(n) for n in numbers])[row]))


def cropped(x: Tensor, side: int | None, generator: torch.Generator) -> Tensor:
    """A random window of `side` pixels of each sample, the whole where that is smaller."""
    if side is None or side >= x.shape[-1]:
        return x
    starts = torch.randint(0, x.shape[-1] - side + 1, (len(x), 2), generator=generator).tolist()
    return torch.stack([sample[:, top : top + side, left : left + side] for sample, (top, left) in zip(x, starts, strict=True)])


def turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each sample in one of the eight orientations of a square."""
    ways = torch.randint(0, 8, (len(x),), generator=generator).tolist()
    oriented = [torch.rot90(sample, way % 4, (-2, -1)) for sample, way in zip(x, ways, strict=True)]
    return torch.stack([sample.flip(-1) if way >= 4 else sample for sample, way in zip(oriented, ways, strict=True)])


def kl(moments: Tensor) -> Tensor:
    """Divergence of the posterior from the standard normal, summed over elements, mean over samples."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()


@torch.no_grad()
def measured_scaling_factor(codec: KLCodec, pixels: Callable[[NDArray[np.int64]], Tensor], samples: int, seed: int = 0,
                            count: int = 500) -> float:
    """One over the standard deviation of posterior draws, all elements pooled, over `count` samples (as published)."""
    generator = torch.Generator().manual_seed(seed)
    numbers = np.random.default_rng([seed, 2]).permutation(samples)[:count]
    latents = []
    for part in np.array_split(numbers, max(len(numbers) // 16, 1)):
        moments = codec.moments(pixels(part))
        latents.append(draw(moments, 1.0, torch.randn(moments.chunk(2, 1)[0].shape, generator=generator)))
    return float(1 / torch.cat(latents).std())


