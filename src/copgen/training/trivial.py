"""What would a codec that learnt nothing keep? Principal components of blocks, and the commonest class of a block."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from copgen.codec import CERTAIN


class BlockPCA:
    """A codec that keeps a few principal components of every block of pixels, all bands jointly."""

    scaling_factor = 1.0

    def __init__(self, centre: Tensor, axes: Tensor, side: int) -> None:
        self.centre, self.axes, self.side = centre, axes, side                     # [C * side * side], [C * side * side, z]

    def moments(self, pixels: Tensor) -> Tensor:
        blocks = F.unfold(pixels.double(), self.side, stride=self.side)            # [B, C * side * side, h * w]
        kept = self.axes.T @ (blocks - self.centre[:, None])
        kept = kept.unflatten(-1, [size // self.side for size in pixels.shape[-2:]])
        return torch.cat([kept, torch.full_like(kept, CERTAIN)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        blocks = self.axes @ latents.flatten(2) + self.centre[:, None]
        return F.fold(blocks, tuple(self.side * size for size in latents.shape[-2:]), self.side, stride=self.side)


class BlockMajority:
    """A codec of classes that keeps the commonest of every block."""

    scaling_factor = 1.0

    def __init__(self, classes: int, side: int) -> None:
        self.classes, self.side = classes, side

    def moments(self, pixels: Tensor) -> Tensor:
        kept = F.avg_pool2d(pixels, self.side).argmax(1, keepdim=True).to(pixels.dtype)
        return torch.cat([kept, torch.full_like(kept, CERTAIN)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        planes = F.one_hot(latents[:, 0].long(), self.classes).movedim(-1, 1).to(latents.dtype)
        return F.interpolate(2 * planes - 1, scale_factor=self.side, mode="nearest")


def fit_block_pca(parts: Iterable[Tensor], side: int, components: int) -> BlockPCA:
    """The principal components of all blocks of `side` x `side` pixels of parts [B, C, H, W]."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for pixels in parts:
        blocks = F.unfold(pixels.double(), side, stride=side).transpose(1, 2).flatten(0, 1)
        count, total, products = count + len(blocks), total + blocks.sum(0), products + blocks.T @ blocks
    if not count:
        raise ValueError("block PCA: there are no blocks to fit it on; give at least one place")
    centre = total / count
    _, axes = torch.linalg.eigh(products / count - torch.outer(centre, centre))
    return BlockPCA(centre, axes[:, -components:], side)
