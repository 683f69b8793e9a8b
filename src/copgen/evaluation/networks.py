"""Which networks judge pictures? ResNet-50, and LPIPS by AlexNet, in plain torch with torchvision's names of their weights.

They have no weights of their own: whoever wants these features fetches the files. LPIPS by VGG-16 is in `copgen.training.lpips`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copgen.training.lpips import SCALE, SHIFT, unit_length

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = 224                                     # the side of what ResNet-50 was trained on
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))                       # width, blocks and stride of ResNet-50's four stages
EXPANSION = 4                                    # a block's output is so many times its width


class Layer(NamedTuple):
    """A convolution: its number in torchvision, then as nn.Conv2d has it."""

    number: int
    channels: int
    width: int
    kernel: int
    stride: int
    padding: int


ALEXNET = (Layer(0, 3, 64, 11, 4, 2), Layer(3, 64, 192, 5, 1, 2), Layer(6, 192, 384, 3, 1, 1), Layer(8, 384, 256, 3, 1, 1),
           Layer(10, 256, 256, 3, 1, 1))


class Bottleneck(nn.Module):
    """Three convolutions beside a short cut (He et al. 2016, arXiv 1512.03385), the stride in the 3 x 3 one as torchvision has it."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        wide = EXPANSION * width
        self.conv3, self.bn3 = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != wide:
            self.downsample = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(inside)) + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """ResNet-50 up to its average pool: images [n, 3, H, W] in 0..1 -> features [n, 2048]. Frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for number, (width, blocks, stride) in enumerate(STAGES, 1):
            stage = [Bottleneck(channels if k == 0 else EXPANSION * width, width, stride if k == 0 else 1) for k in range(blocks)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            channels = EXPANSION * width
        self.fc = nn.Linear(channels, 1000)      # in the file; its classes are of no use here
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
        x = F.interpolate(images, (PIXELS, PIXELS), mode="bilinear", align_corners=False)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1((x - mean) / std))), 3, 2, 1)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3))


class AlexPerceptual(nn.Module):
    """LPIPS (Zhang et al., arXiv 1801.03924) by AlexNet: the distance of images [n, 3, H, W] in -1..1, one a pair [n]. Frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict({str(one.number): nn.Conv2d(one.channels, one.width, one.kernel, one.stride, one.padding)
                                           for one in ALEXNET})
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(1, one.width, 1, 1)) for one in ALEXNET)
        self.requires_grad_(False)
        self.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.heads, self._features(a), self._features(b), strict=True)
        return sum(((unit_length(x) - unit_length(y)).square() * head).sum(1).mean((1, 2)) for head, x, y in pairs) + a.new_zeros(len(a))

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        shift, scale = (images.new_tensor(one).view(1, 3, 1, 1) for one in (SHIFT, SCALE))
        x = (images - shift) / scale
        for k, layer in enumerate(ALEXNET):
            x = F.max_pool2d(x, 3, 2) if k in (1, 2) else x
            x = F.relu(self.convolutions[str(layer.number)](x))
            yield x


def with_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path, where: str) -> nn.Module:
    """The network with exactly these weights; ValueError that names the first one too few, too many or of another shape, and says where
    to get them."""
    wanted = network.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}           # of training alone, and not in the oldest files
    if missing := sorted(set(wanted) - counters - set(weights)):
        raise ValueError(f"{path}: has no {missing[0]} ({len(missing)} weights are missing); {where}")
    if strange := sorted(set(weights) - set(wanted)):
        raise ValueError(f"{path}: has {strange[0]}, which this network lacks ({len(strange)} such weights); {where}")
    for key in set(wanted) - counters:
        if weights[key].shape != wanted[key].shape:
            raise ValueError(f"{path}: {key} has shape {list(weights[key].shape)}, expected {list(wanted[key].shape)}; {where}")
    network.load_state_dict({key: weights[key].float() if key not in counters else wanted[key] for key in wanted})
    return network
