"""Codecs: pixels in [-1, 1] to moments, moments to latents, latents back to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Codec(Protocol):
    """What the model needs of a row's codec. `scaling_factor` brings its latents to about unit variance."""

    scaling_factor: float

    def moments(self, pixels: Tensor) -> Tensor:
        """Pixels [B, C, H, W] in [-1, 1] -> mean and log-variance of the unscaled latents, [B, 2z, h, w]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, z, h, w] -> pixels [B, C, H, W], nominally in [-1, 1]."""
        ...


class Identity:
    """The codec of rows that need none (place, date): the latent is the vector itself, certain."""

    scaling_factor = 1.0

    def moments(self, pixels: Tensor) -> Tensor:
        return torch.cat([pixels, torch.full_like(pixels, CERTAIN)], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return latents


CERTAIN = -torch.inf                             # the log-variance of a value that is known exactly


def draw(moments: Tensor, scaling_factor: float, noise: Tensor | None = None) -> Tensor:
    """Scaled latents from moments [B, 2z, h, w]: the posterior's mean, or a draw from it when standard normal `noise` is given."""
    mean, log_variance = moments.chunk(2, dim=1)                                  # [B, z, h, w] each
    if noise is not None:
        certain = log_variance == CERTAIN
        spread = torch.exp(0.5 * log_variance.clamp(-30, 20)).masked_fill(certain, 0)
        mean = mean + spread * noise
    return mean * scaling_factor


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of one KL-VAE; the defaults are the paper's (section 3.2.1), stride 8."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    channels: int                                # of the pixels: bands, or classes
    latent_channels: int = 8
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # of the width, a level; every level but the last halves the grid
    blocks: int = 2                              # residual blocks a level in the encoder, one more in the decoder
    stem: int = 1                                # pixels along a side that the first layer folds into one
    groups: int = 32
    attention: bool = True                       # in the middle
    shortcut: bool = False                       # a linear map of blocks beside the networks, which then learn what it misses

    def __post_init__(self) -> None:
        sizes = (self.channels, self.latent_channels, self.width, self.blocks, self.stem, self.groups, *self.multipliers)
        if max(*sizes, 2 ** len(self.multipliers)) > 2**14 or self.blocks > 64:
            raise ValueError(f"codec sizes {sizes}: none above {2**14}, nor more than 64 blocks, makes sense")
        if min(sizes) < 1 or not self.multipliers or any(self.width * m % self.groups for m in (1, *self.multipliers)):
            raise ValueError(f"codec of width {self.width} x {self.multipliers}, {self.groups} groups: all sizes are 1 or more, "
                             "every level's width a multiple of the groups")

    @property
    def stride(self) -> int:
        return self.stem * 2 ** (len(self.multipliers) - 1)


Half = Literal["encoder", "decoder"]
HALVES: dict[Half, tuple[str, ...]] = {          # what each consists of, where a codec has it
    "encoder": ("encoder", "quant_conv", "analysis"), "decoder": ("decoder", "post_quant_conv", "synthesis")}


def kept_in(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a codec's weight is in when the networks' inner layers are in `dtype`.

    The rest is in float32: what pixels and latents go through first and last, the shortcut, and each network's last norm and convolution,
    so that no result is rounded to 16 bits. And the encoder's first: see `moments`.
    """
    network, _, layer = name.partition(".")
    if name.startswith("encoder.conv_in.") or network not in HALVES:
        return torch.float32
    return torch.float32 if layer.startswith(("norm_out.", "conv_out.")) else dtype


def laid_out(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A codec's weight as it is computed with when the networks' inner layers are in `dtype`: of 16 bits channels last, which processors
    convolve fastest."""
    if (kept := kept_in(name, dtype)) == torch.float32:
        return weight.to(kept)
    return weight.to(kept, memory_format=torch.channels_last if weight.ndim == 4 else torch.preserve_format, copy=True)


class KLCodec(nn.Module):
    """A KL-regularised autoencoder (Rombach et al., arXiv 2112.10752) with its latent scaling factor.

    Parameter names are those that latent-diffusion code uses everywhere, so that released files load without a map.
    """

    def __init__(self, config: CodecConfig, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.config, self.scaling_factor = config, scaling_factor
        z = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1)
        self.post_quant_conv = nn.Conv2d(z, z, 1)
        side = config.stride
        self.analysis = nn.Conv2d(config.channels, z, side, side) if config.shortcut else None
        self.synthesis = nn.ConvTranspose2d(z, config.channels, side, side) if config.shortcut else None

    def only(self, half: Half) -> KLCodec:
        """This codec without its other half, which has then no weights and can't be called."""
        for name in HALVES["decoder" if half == "encoder" else "encoder"]:
            delattr(self, name)
        return self

    def moments(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.quant_conv.weight.dtype)
        moments = self.quant_conv(self.encoder(pixels))
        if self.analysis is None:
            return moments
        mean, log_variance = moments.chunk(2, dim=1)
        # never in 16 bits: with AMX, oneDNN 3.12 (torch 2.13) gets some convolutions wrong whose squares don't overlap
        with torch.autocast(pixels.device.type, enabled=False):
            return torch.cat([mean + self.analysis(pixels), log_variance], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.post_quant_conv.weight.dtype) / self.scaling_factor
        pixels = self.decoder(self.post_quant_conv(latents))
        return pixels if self.synthesis is None else pixels + self.synthesis(latents)

    @torch.no_grad()
    def start_from_principal_components(self, pixels: Tensor, log_variance: float = -5.0) -> None:
        """Make a codec with a shortcut the block PCA of `pixels` [B, C, H, W], whitened; the networks start at nothing."""
        if self.analysis is None or self.synthesis is None or self.synthesis.bias is None or self.analysis.bias is None:
            raise ValueError("only a codec with a shortcut can start from principal components")
        z, side = self.config.latent_channels, self.config.stride
        blocks = F.unfold(pixels.double(), side, stride=side).transpose(1, 2).flatten(0, 1)        # [blocks, C * side * side]
        middle = pixels.double().mean((0, 2, 3))                                                   # one value a channel
        centre = middle.repeat_interleave(side * side)
        variance, axes = torch.linalg.eigh((blocks - centre).T @ (blocks - centre) / len(blocks))
        spread = variance[-z:].clamp(min=1e-12).sqrt()
        axes = axes[:, -z:]
        shape = self.analysis.weight.shape
        self.analysis.weight.copy_((axes / spread).T.reshape(shape))
        self.analysis.bias.copy_(-(centre @ axes) / spread)
        self.synthesis.weight.copy_((axes * spread).T.reshape(shape))
        self.synthesis.bias.copy_(middle)
        for layer in (self.encoder.conv_out, self.decoder.conv_out, self.quant_conv):
            nn.init.zeros_(layer.bias)           # type: ignore[arg-type]
        nn.init.zeros_(self.decoder.conv_out.weight)
        nn.init.zeros_(self.encoder.conv_out.weight)
        self.quant_conv.bias[z:] = log_variance  # type: ignore[index]

    def natural_factors(self, least: float = 0.1) -> Tensor:
        """How large each channel's part of the pixels is [z], the largest 1 and none below `least`: by the shortcut's synthesis."""
        if self.synthesis is None:
            raise ValueError("only a codec with a shortcut knows how large its channels' parts are")
        size = self.synthesis.weight.detach().flatten(1).norm(dim=1)
        return (size / size.max()).clamp(min=least)


class Encoder(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        kernel, stride, padding = (3, 1, 1) if config.stem == 1 else (config.stem, config.stem, 0)
        self.conv_in = nn.Conv2d(config.channels, config.width, kernel, stride, padding)
        self.down = nn.ModuleList()
        inside = config.width
        for level, width in enumerate(widths):
            blocks = [ResBlock(inside if j == 0 else width, width, config.groups) for j in range(config.blocks)]
            self.down.append(Level(blocks, downsample=Downsample(width) if level < len(widths) - 1 else None))
            inside = width
        self.mid = Middle(inside, config)
        self.norm_out = nn.GroupNorm(config.groups, inside, eps=1e-6)
        self.conv_out = nn.Conv2d(inside, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x.to(self.conv_in.weight.dtype)).to(self.mid.block_1.conv1.weight.dtype)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x).to(self.conv_out.weight.dtype))))


class Decoder(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        inside = widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, inside, 3, padding=1)
        self.mid = Middle(inside, config)
        levels: list[Level] = []
        for level, width in reversed(list(enumerate(widths))):
            blocks = [ResBlock(inside if j == 0 else width, width, config.groups) for j in range(config.blocks + 1)]
            levels.insert(0, Level(blocks, upsample=Upsample(width) if level > 0 else None))
            inside = width
        self.up = nn.ModuleList(levels)          # index 0 is full resolution, run last
        self.norm_out = nn.GroupNorm(config.groups, inside, eps=1e-6)
        self.conv_out = nn.Conv2d(inside, config.channels * config.stem**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(config.stem)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z.to(self.conv_in.weight.dtype)))
        for level in reversed(self.up):
            x = level(x)
        return self.unfold(self.conv_out(F.silu(self.norm_out(x.to(self.conv_out.weight.dtype)))))


class Level(nn.Module):
    def __init__(self, blocks: list[ResBlock], downsample: nn.Module | None = None, upsample: nn.Module | None = None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class Middle(nn.Module):
    def __init__(self, width: int, config: CodecConfig) -> None:
        super().__init__()
        self.block_1 = ResBlock(width, width, config.groups)
        self.attn_1 = SelfAttention(width, config.groups) if config.attention else nn.Identity()
        self.block_2 = ResBlock(width, width, config.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class ResBlock(nn.Module):
    def __init__(self, inside: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inside, eps=1e-6)
        self.conv1 = nn.Conv2d(inside, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if inside != width:
            self.nin_shortcut = nn.Conv2d(inside, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class SelfAttention(nn.Module):
    """One head over all positions of the grid, 1 x 1 convolutions around it."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))    # [B, 1, HW, C]
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(seen)


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))                                   # right and bottom only, as published


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
