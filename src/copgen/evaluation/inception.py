"""Which network makes the features of the FID? Inception-v3 as in TensorFlow's model of 2015-12-05, in plain torch.

Szegedy et al. 2016 (arXiv 1512.00567) with the names of torchvision's weights, and with what that model differs in: averages that leave out
the padding, a maximum in place of the average in the last block, and 1008 classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INCEPTION_PIXELS = 299                           # the side that every image is brought to
CLASSES = 1008
EPSILON = 1e-3                                   # of the batch norms
PARAMETERS = 23_850_960                          # with the classes, 21,785,568 without
Size = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU; it keeps the size unless `stride` or `valid` say otherwise."""

    def __init__(self, channels: int, width: int, kernel: Size, stride: int = 1, valid: bool = False) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid else (sides[0] // 2, sides[1] // 2)
        self.conv = nn.Conv2d(channels, width, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """The mean of the 3 x 3 neighbours that are there."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35 pixels (figure 5 of the paper)."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Convolution(channels, 48, 1), Convolution(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 64, 1), Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(average(x))], 1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(channels, 384, 3, 2, valid=True)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 64, 1), Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17 x 17 pixels, with filters of 1 x 7 and 7 x 1 (figure 6)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        across, down = (1, 7), (7, 1)
        self.branch1x1 = Convolution(channels, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Convolution(channels, width, 1), Convolution(width, width, across)
        self.branch7x7_3 = Convolution(width, 192, down)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Convolution(channels, width, 1), Convolution(width, width, down)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Convolution(width, width, across), Convolution(width, width, down)
        self.branch7x7dbl_5 = Convolution(width, 192, across)
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average(x))], 1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Convolution(channels, 192, 1), Convolution(192, 320, 3, 2, valid=True)
        self.branch7x7x3_1, self.branch7x7x3_2 = Convolution(channels, 192, 1), Convolution(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Convolution(192, 192, (7, 1)), Convolution(192, 192, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8 x 8 pixels (figure 7); the last of the network takes the largest of the neighbours, not their mean."""

    def __init__(self, channels: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Convolution(384, 384, (1, 3)), Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 448, 1), Convolution(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Convolution(384, 384, (1, 3)), Convolution(384, 384, (3, 1))
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.last else average(x)
        return torch.cat([self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single), self.branch3x3dbl_3a(double),
                          self.branch3x3dbl_3b(double), self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Inception-v3 up to its average pool: images [n, 3, H, W] in 0..1, of any size -> features [n, 2048]. Frozen.

    Images become 299 x 299 as in pytorch-fid, or (`as_published`) as in TensorFlow's own graph and in torch-fidelity, by which
    COP-GEN-Beta was evaluated: then pixels are not moved by half of their size, and levels are divided by 128.
    """

    def __init__(self, as_published: bool = False) -> None:
        super().__init__()
        self.as_published = as_published
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Convolution(3, 32, 3, 2, valid=True), Convolution(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Convolution(32, 64, 3), Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (BlockC(768, width) for width in (128, 160, 160, 192))
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = BlockD(768), BlockE(1280, last=False), BlockE(2048, last=True)
        self.fc = nn.Linear(2048, CLASSES)       # in the file; its classes are of no use here
        assert sum(one.numel() for one in self.parameters()) == PARAMETERS
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = (255 * corner_resized(images) - 128) / 128 if self.as_published else 2 * resized(images) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def resized(images: Tensor) -> Tensor:
    """To 299 x 299, bilinearly."""
    return F.interpolate(images, (INCEPTION_PIXELS, INCEPTION_PIXELS), mode="bilinear", align_corners=False)


def corner_resized(images: Tensor) -> Tensor:
    """The same as TensorFlow 1 does it: pixel i is taken at i * H / 299, so that the upper left corner is a pixel's own."""
    height, width = (between(side).to(images) for side in images.shape[-2:])
    return height @ images @ width.T


def between(side: int) -> Tensor:
    """The weights [299, side] of the two pixels that each new one lies between."""
    at = torch.arange(INCEPTION_PIXELS, dtype=torch.float64) * (side / INCEPTION_PIXELS)
    low = at.long()
    eye = torch.eye(side, dtype=torch.float64)
    share = (at - low)[:, None]
    return eye[low] * (1 - share) + eye[torch.clamp(low + 1, max=side - 1)] * share
