"""Training of the backbone on stored moments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.backbone import UViT
from copgen.codec import KLCodec, draw
from copgen.config import dump
from copgen.diffusion import SCHEDULE, draw_times, loss, noised
from copgen.modalities import Table
from copgen.shards import Shards
from copgen.training.loop import Report, start_run, train
from copgen.training.recipe import Recipe


def train_backbone(recipe: Recipe, shards: Shards, codecs: Mapping[str, KLCodec], folder: Path, *, init: UViT | None = None,
                   resume: bool = False, stop: int | None = None, report: Report | None = None) -> UViT:
    """Train the backbone as the paper's section 3.3 does: independent times, noise prediction, squared errors summed over rows.

    codecs: of every row with a grid, those that made the moments. Moments are drawn from afresh at every step.
    init: a backbone to go on from; what this recipe's has more starts as if there were no init, what differs in size is refused.
    """
    table, how = recipe.modalities, recipe.train.how
    scaling_factors = {row: codec.scaling_factor for row, codec in codecs.items()}
    roots = {row: channel_weights(codec).sqrt() for row, codec in codecs.items()} if recipe.train.channels == "natural" else {}
    check_moments(shards, table)
    torch.manual_seed(how.seed)
    network = UViT(table, recipe.backbone)
    if init is not None:
        start_from(network, init)

    def step_loss(model: nn.Module, numbers: NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        x0 = drawn_latents(shards, table, scaling_factors, numbers, generator)
        n = draw_times(x0, len(numbers), generator)
        clean = clean_rows(table, len(numbers), recipe.train.clean_conditions, generator)
        n = {row: steps.masked_fill(clean[row], 0) for row, steps in n.items()}
        eps = {row: torch.randn(z.shape, generator=generator) for row, z in x0.items()}
        predicted = model(noised(x0, eps, n), {row: steps.float() for row, steps in n.items()})
        _, rows = loss({row: e * roots.get(row, 1) for row, e in predicted.items()}, {row: e * roots.get(row, 1) for row, e in eps.items()})
        if recipe.train.weighting == "velocity":
            rows = {row: error / SCHEDULE.alpha_sigma_of(n[row])[0] ** 2 for row, error in rows.items()}
        counted = {row: error * ~clean[row] for row, error in rows.items()}        # nothing to predict where nothing was added
        return torch.stack(list(counted.values())).sum(0).mean(), {row: mean_of(rows[row], ~clean[row]) for row in rows}

    start_run(folder, resume, {"data": dict(shards.meta), **dump(recipe)})
    network.load_state_dict(train(network, step_loss, len(shards), how, folder, resume=resume, stop=stop, report=report))
    return network.eval()


def start_from(network: UViT, init: UViT) -> list[str]:
    """Copy the weights of another backbone; the names of those that stay new. ValueError for one of another size."""
    fresh, given = network.state_dict(), init.state_dict()
    if unfit := [name for name, tensor in given.items() if name not in fresh or fresh[name].shape != tensor.shape]:
        raise ValueError(f"--init: {unfit[0]} does not fit this recipe's backbone; use a recipe of the same sizes")
    network.load_state_dict({**fresh, **given})
    return [name for name in fresh if name not in given]


def channel_weights(codec: KLCodec) -> Tensor:
    """Each channel's weight [z, 1, 1], their mean 1."""
    size = codec.natural_factors()
    return (size / size.mean()).view(-1, 1, 1)


def check_moments(shards: Shards, table: Table) -> None:
    """ValueError for shards of something else, or of latents of another size."""
    for row, array in shards.read(table.names, np.array([0])).items():
        z, height, width = table.latent_shape(row)
        expected = (2 * z, height, width) if table[row].is_image else (z, height, width)
        if array.shape[1:] != expected:
            raise ValueError(f"{shards.folder}: {row} has moments {list(array.shape[1:])}, the recipe's table {list(expected)}; "
                             "encode with this recipe's codecs first (copgen encode)")


def drawn_latents(shards: Shards, table: Table, scaling_factors: Mapping[str, float], numbers: NDArray[np.int64],
                  generator: torch.Generator) -> dict[str, Tensor]:
    """Scaled latents drawn from the stored posteriors; place and date as they are."""
    latents = {}
    for row, array in shards.read(table.names, numbers).items():
        stored = torch.from_numpy(array).float()
        if table[row].is_image:
            noise = torch.randn(stored.chunk(2, 1)[0].shape, generator=generator)
            stored = draw(stored, scaling_factors[row], noise)
        latents[row] = stored
    return latents


def clean_rows(table: Table, batch: int, chance: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Which rows of which samples are given clean: with `chance`, each row with a probability drawn per sample, never all."""
    used = torch.rand(batch, generator=generator) < chance
    share = torch.rand(batch, 1, generator=generator)
    given = (torch.rand(batch, len(table.rows), generator=generator) < share) & used[:, None]
    given &= ~given.all(dim=1, keepdim=True)
    return dict(zip(table.names, given.unbind(1), strict=True))


def mean_of(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
