"""The backbone: a U-ViT over the tokens of all modalities, one diffusion time a modality, parameters keyed by modality name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from copgen.diffusion import SCHEDULE, Schedule, schedule_to
from copgen.inference.kernels import add_norm, attention
from copgen.inference.linear import two_layers
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
    last_beta: float = SCHEDULE.last             # where the schedule ends: see schedule_to
    canvas: int = 0                              # width of convolutions over all image rows on one grid after the heads; 0: none
    canvas_blocks: int = 3

    def __post_init__(self) -> None:
        if self.width > 2**14 or self.depth > 2**9:
            raise ValueError(f"backbone width {self.width}, depth {self.depth}: at most {2**14} and {2**9} make sense")
        if self.heads < 1 or self.width < 4 or self.width % 4 or self.width % self.heads:
            raise ValueError(f"backbone width {self.width}: must be a multiple of 4 and of the {self.heads} heads")
        if self.depth < 2 or self.depth % 2:
            raise ValueError(f"backbone depth {self.depth}: must be even and at least 2 (half before, half after the middle block)")
        if not SCHEDULE.first < self.last_beta < 1:
            raise ValueError(f"backbone last_beta {self.last_beta}: must lie between {SCHEDULE.first} and 1")

    @property
    def schedule(self) -> Schedule:
        """The schedule that it is trained and drawn with."""
        return schedule_to(self.last_beta)


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
        self.canvas = Canvas(table, self.config.canvas, self.config.canvas_blocks) if self.config.canvas else None
        self.apply(initialise)
        for name in names:
            nn.init.trunc_normal_(self.position[name], std=0.02)
            if config.positions == "ground" and table[name].is_image and not self.position[name].is_meta:
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
        heads, config = heads if self.canvas is None else self.canvas(latents, heads, times), self.config
        return heads if config.prediction == "noise" else {
            name: noise_of(heads[name], latents[name], times[name], config.schedule) for name in names}

    @property
    def blocks(self) -> list[nn.Module]:
        """All transformer blocks, in the order in which tokens go through them."""
        return [*self.in_blocks, self.mid_block, *self.out_blocks]

    def tokens(self, name: str, latent: Tensor, time: Tensor) -> Tensor:
        """One row's tokens [B, 1 + tokens, D]: its time, then its patches, each with its position."""
        patches = patches_of(self.embed[name], latent.to(self.dtype))
        clock = time_embedding(time, self.config.width).to(patches.dtype)[:, None]
        return torch.cat([clock, patches], dim=1) + self.position[name]

    def trunk(self, x: Tensor, wanted: int | None = None, kept: Kept | None = None) -> Tensor:
        """Tokens [B, N, D] through all blocks; of the last one only the first `wanted` tokens leave, which is less to do.

        kept: what a call with more tokens kept, these being its first; or of a call with as many or none, where this one keeps its own.
        """
        skips: list[Tensor] = []
        for block in self.in_blocks:
            x = self._run(block, x, None, None, kept)
            skips.append(x)
        x = self._run(self.mid_block, x, None, None, kept)
        for number, block in enumerate(self.out_blocks, 1):
            x = self._run(block, x, skips.pop(), wanted if number == len(self.out_blocks) else None, kept)
        return add_norm(self.norm, x)

    def _run(self, block: nn.Module, *inputs: Tensor | int | Kept | None) -> Tensor:
        if self.activation_checkpointing and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def unpatchify(self, name: str, tokens: Tensor) -> Tensor:
        values = self.head[name](tokens)                                           # [B, h/p * w/p, p * p * C]
        channels, height, width = self.table.latent_shape(name)
        p = self.table.patch_of(name)
        grid = values.reshape(-1, height // p, width // p, p, p, channels)         # channel fastest
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)


class Canvas(nn.Module):
    """What few, large tokens miss: convolutions over all image rows on the finest latent grid, which correct every head's prediction.

    Rows of coarser grids are repeated onto it and averaged back. All rows of a square lie on the same ground, so what one row shows at
    a place tells the others what to show there. A row's noise says how much of it to believe: its time scales what it brings in.
    """

    def __init__(self, table: Table, width: int, blocks: int, clock: int = 32) -> None:
        super().__init__()
        images = {name: table.latent_shape(name) for name in table.images}
        side = max(shape[1] for shape in images.values())
        if uneven := [name for name, shape in images.items() if side % shape[1]]:
            raise ValueError(f"backbone canvas: the latent grid of {uneven[0]} does not divide the finest, {side}; set canvas = 0")
        self.clock_width = clock
        self.factor = {name: side // shape[1] for name, shape in images.items()}
        self.enter = nn.ModuleDict({name: nn.Conv2d(2 * z, width, 3, padding=1) for name, (z, _, _) in images.items()})
        self.clock = nn.ModuleDict({name: nn.Linear(clock, 2 * width) for name in images})
        self.blocks = nn.ModuleList(CanvasBlock(width) for _ in range(blocks))
        self.leave = nn.ModuleDict({name: nn.Conv2d(width, z, 3, padding=1) for name, (z, _, _) in images.items()})
        self.straight = Straight({name: z for name, (z, _, _) in images.items()}, clock)
        for layer in self.leave.values():        # heads start as if they stood alone
            nn.init.zeros_(layer.weight)         # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)           # type: ignore[arg-type]

    def forward(self, latents: Mapping[str, Tensor], heads: Mapping[str, Tensor], times: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shown = [name for name in self.enter if name in heads]
        if not shown:
            return dict(heads)
        h = sum((self.brought(name, latents[name], heads[name], times[name]) for name in shown), start=torch.zeros(()))
        for block in self.blocks:
            h = block(h)
        h = F.silu(h)
        onto = {name: repeated(latents[name].to(h.dtype), self.factor[name]) for name in shown}
        straight = self.straight(onto, {name: self.embedded(times[name], h.dtype) for name in shown})
        pooled = {factor: pool(h, factor) for factor in {self.factor[name] for name in shown}}
        return {**heads, **{name: heads[name] + self.leave[name](pooled[self.factor[name]]) + pool(straight[name], self.factor[name])
                            for name in shown}}

    def embedded(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        return time_embedding(time, self.clock_width).to(dtype)

    def brought(self, name: str, latent: Tensor, head: Tensor, time: Tensor) -> Tensor:
        """What one row brings to the canvas [B, width, side, side]."""
        scale, shift = self.clock[name](self.embedded(time, head.dtype))[..., None, None].chunk(2, dim=1)
        x = self.enter[name](torch.cat([latent.to(head.dtype), head], dim=1)) * (1 + scale) + shift
        return repeated(x, self.factor[name])


class Straight(nn.Module):
    """A linear map from every row's latent to every row's prediction at the same place, faded in and out by the rows' times.

    What L1C says of L2A is nearly a line a band: without this, a network of nonlinear layers takes most of a short training to find it.
    """

    def __init__(self, channels: Mapping[str, int], clock: int) -> None:
        super().__init__()
        self.channels = dict(channels)
        total = sum(channels.values())
        self.fade_in = nn.ModuleDict({name: nn.Linear(clock, z) for name, z in channels.items()})
        self.fade_out = nn.ModuleDict({name: nn.Linear(clock, z) for name, z in channels.items()})
        self.mix = nn.Conv2d(total, total, 1)
        nn.init.zeros_(self.mix.weight)
        assert self.mix.bias is not None
        nn.init.zeros_(self.mix.bias)

    def forward(self, latents: Mapping[str, Tensor], clocks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latents [B, z, side, side] and embedded times [B, clock] of the rows that are there -> additions to their predictions."""
        some = next(iter(latents.values()))
        nothing = {name: some.new_zeros(len(some), z, *some.shape[2:]) for name, z in self.channels.items() if name not in latents}
        faded = {name: z * (1 + self.fade_in[name](clocks[name]))[..., None, None] for name, z in latents.items()}
        mixed = self.mix(torch.cat([(faded | nothing)[name] for name in self.channels], dim=1)).split(list(self.channels.values()), dim=1)
        by_name = dict(zip(self.channels, mixed, strict=True))
        return {name: by_name[name] * (1 + self.fade_out[name](clocks[name]))[..., None, None] for name in latents}

    def mix_from(self, other: Straight) -> dict[str, Tensor]:
        """The state of the map with another's weights between the rows that both have."""
        both = [name for name, z in self.channels.items() if other.channels.get(name) == z]
        here, there = self.places(both), other.places(both)
        mine, theirs = ({name: tensor.detach().clone() for name, tensor in one.mix.state_dict().items()} for one in (self, other))
        mine["weight"][here[:, None], here] = theirs["weight"][there[:, None], there]
        mine["bias"][here] = theirs["bias"][there]
        return mine

    def places(self, names: Sequence[str]) -> Tensor:
        """The numbers of these rows' channels among those of all."""
        starts = dict(zip(self.channels, accumulate(self.channels.values(), initial=0), strict=False))
        return torch.tensor([starts[name] + k for name in names for k in range(self.channels[name])], dtype=torch.long)


def repeated(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")


def pool(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.avg_pool2d(x, factor)


class CanvasBlock(nn.Module):
    def __init__(self, width: int, groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.silu(self.conv_in(F.silu(self.norm(x)))))


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

    def forward(self, x: Tensor, skip: Tensor | None = None, wanted: int | None = None, kept: Kept | None = None) -> Tensor:
        if self.skip_linear is not None and self.norm1 is not None and skip is not None:
            x = add_norm(self.norm1, self.skip_linear(torch.cat([x, skip], dim=-1)))
        x = add_norm(self.norm2, x[:, :wanted].contiguous(), self.attn(x, wanted, kept))
        return add_norm(self.norm3, x, self.mlp(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, wanted: int | None = None, kept: Kept | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x) if kept is None else self.among(self.qkv(x), kept)
        q, k, v = qkv.view(batch, -1, 3, self.heads, width // self.heads).unbind(2)
        return self.proj(attend(q[:, : wanted or length], k, v).reshape(batch, -1, width))

    def among(self, qkv: Tensor, kept: Kept) -> Tensor:
        """These tokens' queries, keys and values in front of those of the rest that were kept, or kept themselves where they are all."""
        whole = kept.get(self)
        if whole is None or whole.shape[1] <= qkv.shape[1]:
            kept[self] = qkv
            return qkv
        whole[:, : qkv.shape[1]] = qkv
        return whole


Kept = dict[Attention, Tensor]                   # queries, keys and values [B, N, 3 D] of every block


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over [B, length, heads, head width]."""
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        return attention(q, k, v)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with torch.autocast("cpu", enabled=False):   # on a CPU the fused kernel's backward takes longer than all the rest of a step
        return (torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1), dim=-1) @ v).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return two_layers(self.fc1, self.fc2, x)


def time_embedding(time: Tensor, width: int) -> Tensor:
    """[B] in 0..1000 -> [B, width]: cosines, then sines, of the time at frequencies from 1 down to 1/10000."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angle = time.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def noise_of(velocity: Tensor, latent: Tensor, time: Tensor, schedule: Schedule = SCHEDULE) -> Tensor:
    """The noise in x_t from its velocity: eps = sigma x_t + alpha v; float32."""
    alpha, sigma = (value.view(-1, *[1] * (latent.ndim - 1)) for value in schedule.alpha_sigma_of(time))
    return sigma * latent.float() + alpha * velocity.float()


def patches_of(embed: nn.Module, latent: Tensor) -> Tensor:
    """A convolution whose patches do not overlap, [B, C, h, w] -> [B, patches, D], as the matrix product that it is.

    In bf16 on processors with AMX, oneDNN 3.12 (torch 2.13) returns nonsense for some of these convolutions: 4 x 4 of 16 channels is one.
    """
    weight = embed.weight
    assert isinstance(weight, Tensor)
    folded = F.pixel_unshuffle(latent, weight.shape[-1]).flatten(2).transpose(1, 2)          # [B, patches, C * p * p]
    return F.linear(folded, weight.flatten(1), embed.bias)           # type: ignore[arg-type]


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
