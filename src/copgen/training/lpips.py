"""How different do two images look? LPIPS (Zhang et al., arXiv 1801.03924) by VGG-16, in plain torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copgen.published import read_weights

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))                # VGG-16's convolutions by their index in torchvision
WIDTHS = (64, 128, 256, 512, 512)                # of a stage's features, which are taken before it is halved
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)                     # from [-1, 1] to what VGG was trained on
DROPPED = 0.5                                    # share of features that the published training loses once its dropout is on
WHERE = ("the convolutions are in torchvision's vgg16-397923af.pth (its models.vgg16 with IMAGENET1K_V1 fetches it), the heads in vgg.pth "
         "of the lpips package (lpips/weights/v0.1), and the raw training checkpoint model-50.pt of any VAE of mespinosami/copgen-vaes "
         "holds both: name such a folder or file, or switch the term off with train_vae.perceptual = \"off\"")


class Perceptual(nn.Module):
    """The distance of two images in the features of a network that knows photographs. Frozen, and never in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        channels = 3
        for stage, width in zip(STAGES, WIDTHS, strict=True):
            for index in stage:
                self.convolutions[str(index)] = nn.Conv2d(channels, width, 3, padding=1)
                channels = width
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(1, width, 1, 1)) for width in WIDTHS)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Perceptual:
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """One distance a sample [B] of images [B, C, H, W] in [-1, 1], the mean over `triplets` of their bands.

        dropout: drop half of the features before the heads, as the published training does after its first checkpoint.
        """
        with torch.no_grad():                    # x is data: nothing learns through it
            of_x = list(self._features(triplets(x).flatten(0, 1)))
        distance = torch.zeros((), dtype=x.dtype, device=x.device)
        for head, a, b in zip(self.heads, of_x, self._features(triplets(y).flatten(0, 1)), strict=True):
            difference = (unit_length(a) - unit_length(b)).square()
            if dropout is not None:
                difference = difference * kept(difference, dropout)
            distance = distance + (difference * head).sum(1).mean((1, 2))
        return distance.view(len(x), -1).mean(1)

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        x = (x - self.shift) / self.scale
        for number, stage in enumerate(STAGES):
            if number:
                x = F.max_pool2d(x, 2)
            for index in stage:
                x = F.relu(self.convolutions[str(index)](x))
            yield wide(x)


def triplets(x: Tensor) -> Tensor:
    """The bands [B, C, H, W] as images of three [B, T, 3, H, W], as published.

    One band is repeated and two get an empty third; more than three go in threes, the last three once more where some are left over.
    """
    channels = x.shape[1]
    if channels == 1:
        return x.expand(-1, 3, -1, -1)[:, None]
    if channels == 2:
        return F.pad(x, (0, 0, 0, 0, 0, 1))[:, None]
    starts = [*range(0, channels - 2, 3), *([channels - 3] if channels % 3 else [])]
    return torch.stack([x[:, start : start + 3] for start in starts], 1)


def wide(x: Tensor) -> Tensor:
    """At least float32: what autocast made narrow is too coarse for sums and differences."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit_length(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def kept(like: Tensor, generator: torch.Generator) -> Tensor:
    """A mask that keeps the expectation; drawn on the generator's device, so that a run is the same on any."""
    mask = torch.rand(like.shape, generator=generator, device=generator.device) >= DROPPED
    return mask.to(like) / (1 - DROPPED)


# Weights


def load_perceptual(path: Path) -> Perceptual:
    """The network with the weights in `path`: a raw VAE checkpoint, VGG-16's file with vgg.pth beside it, or a folder of either.

    Raises ValueError that says where to get what is missing.
    """
    weights: dict[str, Tensor] = {}
    for file in candidates(path):
        weights |= dict(renamed(read_weights(file)))
    network = Perceptual()
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(weights))
    if missing:
        what = "no VGG-16 convolutions and no heads" if len(missing) == len(wanted) else (
            "no linear heads" if all(key.startswith("heads") for key in missing) else f"no {missing[0]}")
        raise ValueError(f"{path}: {what} of LPIPS in there; {WHERE}")
    for key, tensor in wanted.items():
        if weights[key].shape != tensor.shape:
            raise ValueError(f"{path}: {key} has shape {list(weights[key].shape)}, expected {list(tensor.shape)}; {WHERE}")
    network.load_state_dict({key: weights[key].float() for key in wanted})
    return network


def candidates(path: Path) -> list[Path]:
    """The files that may hold the weights; ValueError for a path that isn't there."""
    if path.is_dir():
        pairs = [*sorted(path.glob("vgg16*.pth")), *sorted(path.glob("vgg.pth"))]
        return pairs if len(pairs) > 1 else [*sorted(path.glob("model-*.pt")), *sorted(path.glob("*/model-*.pt"))][:1] or pairs
    if not path.is_file():
        raise ValueError(f"perceptual = {str(path)!r}: there is no such file or folder; {WHERE}")
    beside = path.parent / "vgg.pth"
    return [path, beside] if re.fullmatch(r"vgg16.*\.pth", path.name) and beside.is_file() else [path]


def renamed(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of any of the three layouts by our names; what is not LPIPS's is left out."""
    nested = state.get("model")                  # a raw VAE checkpoint
    for key, tensor in (nested if isinstance(nested, Mapping) else state).items():
        if match := re.fullmatch(r"(?:loss\.perceptual_loss\.net\.slice\d|features)\.(\d+)\.(weight|bias)", key):
            yield f"convolutions.{match[1]}.{match[2]}", tensor
        elif match := re.fullmatch(r"(?:loss\.perceptual_loss\.)?lin(\d)\.model\.1\.weight", key):
            yield f"heads.{match[1]}", tensor
