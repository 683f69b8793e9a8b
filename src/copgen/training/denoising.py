"""What does the backbone minimise? The error of the noise in every row, each at a time of its own, and what goes beyond the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.backbone import UViT
from copgen.codec import KLCodec, draw
from copgen.diffusion import Schedule, draw_times, noised
from copgen.modalities import Table
from copgen.shards import Mixed, Shards
from copgen.training.loop import Objective
from copgen.training.recipe import BackboneTraining, RowWeights

Masks = Mapping[str, Tensor]                     # bool [B] by row


@dataclass(frozen=True)
class Noised:
    """What the network is shown of a chunk, x at times n, and what it is to say of it, eps, with an error where it is counted."""

    x: Mapping[str, Tensor]
    eps: Mapping[str, Tensor]
    n: Tensor                                    # int64 [rows, B], as x has the rows: one tensor, as each has its price to pass on
    counted: Tensor                              # bool [rows, B]


@dataclass(frozen=True, eq=False)
class Noising:
    """Samples' numbers and a generator -> latents drawn from what is stored of them, with noise: all that needs no network."""

    shards: Shards | Mixed
    table: Table
    scaling_factors: Mapping[str, float]
    how: BackboneTraining
    schedule: Schedule

    def __call__(self, numbers: NDArray[np.int64], generator: torch.Generator) -> Noised:
        rows = rows_shown(self.table, self.how.modality_dropout, generator)
        x0 = drawn_latents(self.shards, self.table, self.scaling_factors, numbers, generator, rows)
        present = present_rows(self.shards, rows, numbers)
        n, counted = self.times(present, generator)
        eps = {row: torch.randn(z.shape, generator=generator) for row, z in x0.items()}
        x = noised(x0, eps, n, self.schedule)
        x = {row: torch.where(present[row].view(-1, *[1] * (z.ndim - 1)), z, eps[row]) for row, z in x.items()}
        return Noised(x, eps, torch.stack([n[row] for row in x]), torch.stack([counted[row] for row in x]))

    def times(self, present: Masks, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each row's steps [B], 0 where it is given clean and the last where it is absent; and where its error counts."""
        rows, batch, how = list(present), len(next(iter(present.values()))), self.how
        n = draw_times(rows, batch, generator)
        if how.shared_times:
            (one,) = draw_times(["all"], batch, generator).values()
            shared = torch.rand(batch, generator=generator) < how.shared_times
            n = {row: torch.where(shared, one, steps) for row, steps in n.items()}
        clean = clean_rows(self.table, rows, batch, how.clean_conditions, generator)
        clean = {row: clean[row] & present[row] for row in rows}
        n = {row: steps.masked_fill(clean[row], 0).masked_fill(~present[row], self.schedule.steps) for row, steps in n.items()}
        return n, {row: present[row] & ~clean[row] for row in rows}                # nothing to predict where nothing was added


class Denoising(Objective):
    """The paper's section 3.3: squared errors of the noise, a mean a row, summed over rows.

    Beyond it, as the recipe says: rows that a sample lacks, or that are left out of a chunk, cost nothing; some rows are given clean, as in
    sampling; noised rows may share their time; rows and channels may have weights.
    """

    def __init__(self, network: UViT, how: BackboneTraining, shards: Shards | Mixed, codecs: Mapping[str, KLCodec]) -> None:
        super().__init__()
        self.network, self.how, self.table = network, how, network.table
        self.reader = Noising(shards, self.table, {row: codec.scaling_factor for row, codec in codecs.items()}, how,
                              network.config.schedule)
        self.channels = {row: channel_weights(codec) for row, codec in codecs.items()} if how.channels == "natural" else {}
        self.weights = row_weights(self.table, how.weights)
        # log variances of Kendall et al. (arXiv 1705.07115): they start at 0, the uniform weights
        self.spread = nn.ParameterDict({row: torch.zeros(1) for row in self.table.names} if how.weights == "learned" else {})

    def forward(self, shown: Noised, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(self.network.parameters()).device
        x, eps = ({row: tensor.to(device) for row, tensor in part.items()} for part in (shown.x, shown.eps))
        n, masks = (dict(zip(x, part.to(device), strict=True)) for part in (shown.n, shown.counted))
        predicted = self.network(x, {row: steps.float() for row, steps in n.items()})
        errors = {row: self.error(row, predicted[row], eps[row], n[row]) for row in x}
        parts = {row: torch.full((shown.n.shape[1],), torch.nan, device=device) for row in self.table.names}
        parts |= {row: error.detach().masked_fill(~masks[row], torch.nan) for row, error in errors.items()}
        return self.weighted(errors, masks), parts

    def error(self, row: str, predicted: Tensor, eps: Tensor, n: Tensor) -> Tensor:
        """The mean squared error of one row [B], in float32 and more."""
        squared = (predicted.to(eps.dtype) - eps).square()
        if row in self.channels:
            squared = squared * self.channels[row].to(eps.device)
        error = squared.flatten(1).mean(1)
        return error / self.network.config.schedule.alpha_sigma_of(n)[0] ** 2 if self.how.weighting == "velocity" else error

    def weighted(self, errors: Mapping[str, Tensor], counted: Masks) -> Tensor:
        """One number of the rows' errors [B], each counted where its mask says so."""
        means = {row: (error * counted[row]).mean() for row, error in errors.items()}
        if not self.spread:
            return torch.stack([self.weights[row] * mean for row, mean in means.items()]).sum()
        # Kendall et al.'s weights: an error is divided by what it usually is, which must not shrink where nothing is counted
        return torch.stack([torch.exp(-self.spread[row]) * mean + self.spread[row] * counted[row].float().mean()
                            for row, mean in means.items()]).sum()


def row_weights(table: Table, weights: RowWeights) -> dict[str, float]:
    """Each row's weight in the loss. `per_token` gives a token of every row the same, their mean over rows 1."""
    if isinstance(weights, Mapping):
        return dict.fromkeys(table.names, 1.0) | {row: weight for name, weight in weights.items() for row in table.select(name)}
    if weights == "per_token":
        mean = sum(table.tokens(row) for row in table.names) / len(table.names)
        return {row: table.tokens(row) / mean for row in table.names}
    return dict.fromkeys(table.names, 1.0)


def rows_shown(table: Table, chance: float, generator: torch.Generator) -> tuple[str, ...]:
    """The rows of one chunk: with `chance`, those of a random set of modalities, one image at least; the others are not in the sequence.

    Leaving rows out of the sequence for a whole chunk, rather than showing noise in some samples, makes the rest exactly what
    sampling with `absent="drop"` shows, and saves their tokens.
    """
    products = table.products
    used, share = torch.rand(2, generator=generator).tolist()
    left_out = torch.rand(len(products), generator=generator) < share
    images = list(dict.fromkeys(table[row].product for row in table.images)) or list(products)
    one = images[int(torch.randint(len(images), (), generator=generator))]
    if used >= chance:
        return table.names
    kept = {product for k, product in enumerate(products) if product == one or not left_out[k]}
    return tuple(row for row in table.names if table[row].product in kept)


def clean_rows(table: Table, rows: Iterable[str], batch: int, chance: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Which rows of which samples are given clean [B]: with `chance`, modalities with a probability drawn per sample, never all."""
    rows = list(rows)
    products = list(dict.fromkeys(table[row].product for row in rows))
    used = torch.rand(batch, generator=generator) < chance
    share = torch.rand(batch, 1, generator=generator)
    given = (torch.rand(batch, len(products), generator=generator) < share) & used[:, None]
    given &= ~given.all(dim=1, keepdim=True)
    return {row: given[:, products.index(table[row].product)] for row in rows}


def channel_weights(codec: KLCodec) -> Tensor:
    """Each channel's weight [z, 1, 1], their mean 1."""
    size = codec.natural_factors()
    return (size / size.mean()).view(-1, 1, 1)


def drawn_latents(shards: Shards | Mixed, table: Table, scaling_factors: Mapping[str, float], numbers: NDArray[np.int64],
                  generator: torch.Generator, rows: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Scaled latents drawn from the stored posteriors; place and date as they are."""
    latents = {}
    for row, array in shards.read(tuple(rows or table.names), numbers).items():
        stored = torch.from_numpy(array).float()
        if table[row].is_image:
            noise = torch.randn(stored.chunk(2, 1)[0].shape, generator=generator)
            stored = draw(stored, scaling_factors[row], noise)
        latents[row] = stored
    return latents


def present_rows(shards: Shards | Mixed, rows: Sequence[str], numbers: NDArray[np.int64]) -> dict[str, Tensor]:
    """Which samples have which rows, [B] each."""
    return dict(zip(rows, torch.from_numpy(shards.present(rows, numbers)).unbind(1), strict=True))
