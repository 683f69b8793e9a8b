"""What is a codec trained for? The paper's composite loss (section 3.2.1), and that of its opponent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from copgen.codec import KLCodec, draw
from copgen.training.adversarial import PatchGAN, adaptive_weight, hinge
from copgen.training.loop import Objective
from copgen.training.lpips import Perceptual, wide
from copgen.training.recipe import CodecTraining

Draw = Callable[[NDArray[np.int64], torch.Generator], Tensor]                      # sample numbers -> pixels [B, C, H, W] in [-1, 1]
Losses = dict[str, Tensor]
SHARPNESS = 4.0                                  # planes times this are logits: -1 and +1 are then a certainty of 0.997
FIRST_CHECKPOINT = 10_000                        # of the published training, after which its LPIPS drops features


class CodecObjective(Objective):
    """A codec's turn. Its judges are hidden from the optimiser: tuples are no submodules.

    A chunk of the batch is judged by itself, the adversarial term's weight and the statistics of the discriminator's norms included, so
    that several devices give what one gives with the same micro_batch.
    """

    def __init__(self, codec: KLCodec, pixels: Draw, how: CodecTraining, *, classes: bool = False, perceptual: Perceptual | None = None,
                 discriminator: PatchGAN | None = None) -> None:
        super().__init__()
        self.codec, self.reader, self.how, self.classes = codec, pixels, how, classes
        self.judges = (perceptual, discriminator)

    def forward(self, pixels: Tensor, generator: torch.Generator, step: int) -> tuple[Tensor, Losses]:
        last = self.codec.decoder.conv_out.weight
        x = pixels.to(last)
        moments, y = seen_through(self.codec, x, generator)
        perceptual, discriminator = self.judges
        return codec_loss(x, y, moments, self.how, last, step, generator, classes=self.classes,
                          perceptual=perceptual and perceptual.to(x), discriminator=discriminator)

    def compile_networks(self) -> None:
        decoder = self.codec.decoder
        for part in (self.codec.encoder, decoder.mid, *decoder.up):                # not its last layer: the adaptive weight differentiates
            part.compile()                                                         # that twice, which compiled code cannot


class DiscriminatorObjective(Objective):
    """The discriminator's turn: the same crops against fresh reconstructions, by the codec as it is after its own turn."""

    def __init__(self, discriminator: PatchGAN, codec: KLCodec, pixels: Draw, how: CodecTraining, *, classes: bool = False) -> None:
        super().__init__()
        self.discriminator, self.reader, self.how = discriminator, pixels, how
        self.by_class = classes and how.reconstruction == "cross_entropy"
        self.opponent = (codec,)

    def forward(self, pixels: Tensor, generator: torch.Generator, step: int) -> tuple[Tensor, Losses]:
        (codec,) = self.opponent
        x = pixels.to(codec.decoder.conv_out.weight)
        with torch.no_grad():
            moments, _ = posterior(codec, x, generator)                            # its noise was the codec's own turn's
            y = wide(codec.decode(draw(moments, codec.scaling_factor, noise_like(moments, generator))))
        real, made = self.discriminator(x), self.discriminator(planes(y) if self.by_class else y)
        loss = hinge(real, made)
        return halved(loss, self.how), {"logits_real": real.mean(), "logits_made": made.mean()}

    def compile_networks(self) -> None:
        """Nothing: the codec's adaptive weight differentiates through the discriminator twice, which compiled code cannot."""


def codec_loss(x: Tensor, y: Tensor, moments: Tensor, how: CodecTraining, last: Tensor, step: int, generator: torch.Generator, *,
               classes: bool = False, perceptual: Perceptual | None = None,
               discriminator: PatchGAN | None = None) -> tuple[Tensor, Losses]:
    """The loss of reconstructions y of pixels x [B, C, H, W] with their posteriors' moments, and its parts.

    All terms are sums over a sample's elements and means over samples; LPIPS counts once an element, as published. last: the decoder's
    last weights, by whose gradients the adversarial term is balanced. step: counted from 0.
    """
    by_class = classes and how.reconstruction == "cross_entropy"
    image = planes(y) if by_class else y
    error = (cross_entropy if by_class else regression)(x, y)
    parts = {"reconstruction": (x - image).abs().mean(), "kl": kl(moments)}
    if perceptual is not None:
        dropout = generator if "lpips_dropout" in how.published and step >= FIRST_CHECKPOINT else None
        distance = perceptual(x, image, dropout)
        error = error + how.perceptual_weight * distance * x[0].numel()
        parts["perceptual"] = distance.mean()
    likelihood = error.mean()
    total = likelihood + how.kl_weight * parts["kl"]
    if discriminator is not None:
        parts |= {"adversarial": torch.zeros_like(total), "adversarial_weight": torch.zeros_like(total)}
        if how.adversarial_from is not None and step >= how.adversarial_from:
            parts["adversarial"] = -discriminator(image).mean()
            parts["adversarial_weight"] = how.adversarial_weight * adaptive_weight(likelihood, parts["adversarial"], last)
            total = total + parts["adversarial_weight"] * parts["adversarial"]
    return halved(total, how), parts


def seen_through(codec: KLCodec, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The posteriors' moments, and what the codec makes of one draw from each."""
    moments, noise = posterior(codec, x, generator)
    return moments, wide(codec.decode(draw(moments, codec.scaling_factor, noise)))


def posterior(codec: KLCodec, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    moments = wide(codec.moments(x))
    return moments, noise_like(moments, generator)


def noise_like(moments: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal for one draw from posteriors; drawn on the CPU, so that every device draws the same."""
    return torch.randn(moments.chunk(2, 1)[0].shape, generator=generator).to(moments)


def regression(x: Tensor, y: Tensor) -> Tensor:
    """L1 + squared error, summed over a sample's elements: [B]."""
    return ((x - y).abs() + (x - y).square()).flatten(1).sum(1)


def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """Of planes y as logits against the classes of planes x, summed over a sample's pixels: [B]."""
    return F.cross_entropy(SHARPNESS * y, (x + 1) / 2, reduction="none").flatten(1).sum(1)


def planes(y: Tensor) -> Tensor:
    """Planes as logits -> the planes of -1 to +1 that they stand for; the largest stays the largest."""
    return 2 * (SHARPNESS * y).softmax(1) - 1


def kl(moments: Tensor) -> Tensor:
    """Divergence of the posterior from the standard normal, summed over elements, mean over samples."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()


def halved(loss: Tensor, how: CodecTraining) -> Tensor:
    return loss / 2 if "halved_losses" in how.published else loss
