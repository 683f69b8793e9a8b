"""The backbone: a U-ViT over the tokens of all modalities, one diffusion time a modality, parameters keyed by modality name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from copgen.diffusion import SCHEDULE
from copgen.modalities import Table


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of a U-ViT; the defaults are the paper's base model."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    width: int = 1024
    depth: int = 20                              # in-blocks plus out-blocks; a middle block comes on top
    heads: int = 16
    positions: Literal["random", "ground"] = "random"   # how position embeddings start: the paper's noise, or metres on the ground
    # what the heads give: the noise, as in the paper, or the velocity alpha eps - sigma x_0 (Salimans and Ho, arXiv 2202.00512), from which
    # the noise is made. A small network can't copy nearly pure noise well enough: the x_0 of a noise prediction errs by 15 times there.
    prediction: Literal["noise", "velocity"] = "noise"
    refine: int = 0                              # width of a small convolution over each image row's grid after its head; 0: none
    beside: bool = False                         # whether that convolution also sees the rows of the same grid, faded as they are noisy

    def __post_init__(self) -> None:
        if self.width > 2**14 or self.depth > 2**9:
            raise ValueError(f"backbone width {self.width}, depth {self.depth}: at most {2**14} and {2**9} make sense")
        if self.heads < 1 or self.width < 4 or self.width % 4 or self.width % self.heads:
            raise ValueError(f"backbone width {self.width}: must be a multiple of 4 and of the {self.heads} heads")
        if self.depth < 2 or self.depth % 2:
            raise ValueError(f"backbone depth {self.depth}: must be even and at least 2 (half before, half after the middle block)")


class UViT(nn.Module):
    """Noise predictions for every row given, by Bao et al.'s U-ViT with post-norm blocks (arXiv 2209.12152; COP-GEN section 3.3).

    `forward(latents, times)`: latents by row name, [B, *latent_shape]; times by row name, float [B] in 0..1000, 0 being clean. Any
    subset of the table's rows may be given: rows left out are not in the sequence. Returns noise predictions of the same shapes.
    """

    def __init__(self, table: Table, config: BackboneConfig | None = None) -> None:
        super().__init__()
        self.table, self.config = table, config or BackboneConfig()
        config = self.config
        self.activation_checkpointing = False
        width, names = config.width, table.names
        self.embed = nn.ModuleDict({name: patch_embedding(table, name, width) for name in names})
        # a row's first position is its time token's, the others its patches', row-major from the north-west
        self.position = nn.ParameterDict({name: torch.empty(1 + table.tokens(name), width) for name in names})
        half = config.depth // 2
        self.in_blocks = nn.ModuleList(Block(width, config.heads) for _ in range(half))
        self.mid_block = Block(width, config.heads)
        self.out_blocks = nn.ModuleList(Block(width, config.heads, skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        self.head = nn.ModuleDict({name: nn.Linear(width, values_per_token(table, name)) for name in names})
        images = [name for name in names if table[name].is_image and self.config.refine]
        beside = {name: [other for other in images if config.beside and other != name
                         and table.latent_shape(other) == table.latent_shape(name)] for name in images}
        self.refine = nn.ModuleDict({name: Refinement(table.latent_shape(name)[0], config.refine, beside[name]) for name in images})
        self.apply(initialise)
        for name in names:
            nn.init.trunc_normal_(self.position[name], std=0.02)
            if config.positions == "ground" and table[name].is_image:
                with torch.no_grad():
                    self.position[name][1:] += ground_positions(table, name, width)

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.weight.dtype

    def forward(self, latents: Mapping[str, Tensor], times: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [name for name in self.table.names if name in latents]
        if strange := set(latents) - set(names):
            raise ValueError(f"the backbone has no rows {sorted(strange)}; it has {', '.join(self.table.names)}")
        tokens = [self.tokens(name, latents[name], times[name]) for name in names]
        x = self.trunk(torch.cat(tokens, dim=1))                                   # [B, all tokens, D]
        parts = x.split([part.shape[1] for part in tokens], dim=1)
        heads = {name: self.unpatchify(name, part[:, 1:]) for name, part in zip(names, parts, strict=True)}
        shown = {name: faded(latents[name], times[name]) for name in names if self.config.beside and name in self.refine}
        heads |= {name: layer(latents[name], heads[name], times[name], shown) for name, layer in self.refine.items() if name in heads}
        return heads if self.config.prediction == "noise" else {name: noise_of(heads[name], latents[name], times[name]) for name in names}

    def tokens(self, name: str, latent: Tensor, time: Tensor) -> Tensor:
        """One row's tokens [B, 1 + tokens, D]: its time, then its patches, each with its position."""
        patches = self.embed[name](latent.to(self.dtype)).flatten(2).transpose(1, 2)
        clock = time_embedding(time, self.config.width).to(patches.dtype)[:, None]
        return torch.cat([clock, patches], dim=1) + self.position[name]

    def trunk(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.in_blocks:
            x = self._run(block, x)
            skips.append(x)
        x = self._run(self.mid_block, x)
        for block in self.out_blocks:
            x = self._run(block, x, skips.pop())
        return self.norm(x)

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if self.activation_checkpointing and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def unpatchify(self, name: str, tokens: Tensor) -> Tensor:
        values = self.head[name](tokens)                                           # [B, h/p * w/p, p * p * C]
        channels, height, width = self.table.latent_shape(name)
        p = self.table.patch_of(name)
        grid = values.reshape(-1, height // p, width // p, p, p, channels)         # channel fastest
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)


class Refinement(nn.Module):
    """What a head of few, large patches misses: a few convolutions over the row's grid, across the borders of its patches."""

    def __init__(self, channels: int, width: int, beside: Iterable[str] = (), clock: int = 32) -> None:
        super().__init__()
        self.beside = nn.ModuleDict({name: nn.Conv2d(channels, width, 3, padding=1, bias=False) for name in beside})
        for layer in self.beside.values():
            nn.init.zeros_(layer.weight)         # type: ignore[arg-type]
        self.clock = nn.Linear(clock, width)
        self.conv_in = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.conv_mid = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)     # a head starts as if it stood alone
        nn.init.zeros_(self.conv_out.bias)       # type: ignore[arg-type]

    def forward(self, latent: Tensor, head: Tensor, time: Tensor, shown: Mapping[str, Tensor]) -> Tensor:
        clock = self.clock(time_embedding(time, self.clock.in_features).to(head.dtype))[:, :, None, None]
        h = self.conv_in(torch.cat([latent.to(head.dtype), head], dim=1)) + clock
        for name, layer in self.beside.items():
            if name in shown:
                h = h + layer(shown[name].to(head.dtype))
        h = F.silu(h)
        return head + self.conv_out(F.silu(self.conv_mid(h)))


class Block(nn.Module):
    """Post-norm transformer block; with `skip`, first joined by a linear layer to the output of its mirror block."""

    def __init__(self, width: int, heads: int, skip: bool = False) -> None:
        super().__init__()
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width) if skip else None
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.skip_linear is not None and self.norm1 is not None and skip is not None:
            x = self.norm1(self.skip_linear(torch.cat([x, skip], dim=-1)))
        x = self.norm2(x + self.attn(x))
        return self.norm3(x + self.mlp(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(batch, length, width))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over [B, heads, length, head width]."""
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):   # on a CPU the fused kernel's backward takes longer than all the rest of a step
        return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def time_embedding(time: Tensor, width: int) -> Tensor:
    """[B] in 0..1000 -> [B, width]: cosines, then sines, of the time at frequencies from 1 down to 1/10000."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angle = time.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def noise_of(velocity: Tensor, latent: Tensor, time: Tensor) -> Tensor:
    """The noise in x_t from its velocity: eps = sigma x_t + alpha v; float32."""
    alpha, sigma = (value.view(-1, *[1] * (latent.ndim - 1)) for value in SCHEDULE.alpha_sigma_of(time))
    return sigma * latent.float() + alpha * velocity.float()


def faded(latent: Tensor, time: Tensor) -> Tensor:
    """A latent by how much signal is in it: itself when clean, next to nothing when it is noise."""
    return latent * SCHEDULE.alpha_sigma_of(time)[0].view(-1, *[1] * (latent.ndim - 1)).to(latent.dtype)


def patch_embedding(table: Table, name: str, width: int) -> nn.Conv2d:
    patch, resolution = table.patch_of(name), table[name].resolution
    if resolution and table.footprint % (resolution * table.stride * patch):
        raise ValueError(f"{name}: {table.footprint} m is not a whole number of tokens "
                         f"({resolution} m a pixel, {table.stride} pixels a latent, {patch} latents a token)")
    return nn.Conv2d(table.latent_shape(name)[0], width, kernel_size=patch, stride=patch)


def values_per_token(table: Table, name: str) -> int:
    return table.patch_of(name) ** 2 * table.latent_shape(name)[0]


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def ground_positions(table: Table, name: str, width: int) -> Tensor:
    """Waves of a patch's centre in metres [tokens, width]: patches over the same ground start alike, whatever their row's grid."""
    side = round(table.tokens(name) ** 0.5)
    centre = (torch.arange(side) + 0.5) * 2 * math.pi / side
    waves = torch.arange(1, width // 4 + 1) / 4                                   # up to some sixteenth of the square for width 256
    one = torch.cat([(centre[:, None] * waves).cos(), (centre[:, None] * waves).sin()], dim=-1)    # [side, D/2]
    south, east = one[:, None].expand(side, side, -1), one[None].expand(side, side, -1)
    return 0.2 * torch.cat([south, east], dim=-1).reshape(side * side, width)
