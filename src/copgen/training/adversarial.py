"""Could this image be real? The PatchGAN that a codec is trained against, and how much it may say."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copgen.training.lpips import wide

LARGEST_WEIGHT = 1e4
SMALLEST_SIDE = 24                               # pixels: smaller images have no patch left to judge


class PatchGAN(nn.Module):
    """A judge of patches (Isola et al., arXiv 1611.07004): images [B, C, H, W] to one logit a patch, large for real ones.

    Parameter names are those of the published training checkpoints.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for inside, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
            layers.append(nn.Conv2d(inside, 2 * inside, 4, stride=stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(2 * inside), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))
        for layer in self.main:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return wide(self.main(x))


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss of its logits: zero where real ones are above 1 and made ones below -1."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """How much the adversarial loss may count to pull at the decoder's `last` weights as hard as the reconstruction does, at most 1e4.

    (Esser et al., arXiv 2012.09841, section 3.)
    """
    for_it, against_it = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial))
    return (for_it / (against_it + 1e-4)).clamp(0, LARGEST_WEIGHT)
