"""The backbone as one job sees it: what stays the same from call to call is computed once, what nobody asks for is not computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from copgen.backbone import Kept, UViT, noise_of


class Call:
    """`call(latents, times) -> noise` of the rows drawn, the others standing still; to rounding what the backbone itself gives.

    still: row -> its latents [B, ...] and its time, the same at every call: the given at 0, the absent at the last. Their tokens are made
    here. The last block and the heads work for the rows drawn alone, unless the backbone has a canvas, which reads all heads.

    reuse: only every so many calls, from the first on, are whole. In those between, only the tokens of the rows drawn go through the
    network; the others' keys and values, and what a canvas reads of them, are those of the last whole call. They change from call to call
    through what the rows drawn say to them alone, and slowly: an approximation, whose error and time are in benchmarks/reuse.py.
    """

    def __init__(self, backbone: UViT, drawn: Sequence[str], still: Mapping[str, tuple[Tensor, float]], reuse: int = 1) -> None:
        if strange := {*drawn, *still} - set(backbone.table.names):
            raise ValueError(f"the backbone has no rows {sorted(strange)}; it has {', '.join(backbone.table.names)}")
        self.backbone, self.still = backbone, dict(still)
        self.drawn = [name for name in backbone.table.names if name in drawn]
        self.times = {name: latent.new_full(latent.shape[:1], time, dtype=torch.float32) for name, (latent, time) in self.still.items()}
        self.tokens = [backbone.tokens(name, latent, self.times[name]) for name, (latent, _) in self.still.items()]
        self.headed = [*self.drawn, *(self.still if backbone.canvas is not None else ())]
        self.reuse, self.calls = check_reuse(reuse), 0
        self.kept: Kept | None = {} if reuse > 1 and self.still else None
        self.heads: dict[str, Tensor] = {}       # of the rows that stand still, at the last whole call

    def __call__(self, latents: Mapping[str, Tensor], times: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """latents, times [B] in 0..1000: of the rows drawn; those of the others are not looked at."""
        network, table = self.backbone, self.backbone.table
        whole = self.kept is None or self.calls % self.reuse == 0
        self.calls += 1
        tokens = [network.tokens(name, latents[name], times[name]) for name in self.drawn]
        headed = self.headed if whole else self.drawn
        lengths = [1 + table.tokens(name) for name in headed]
        x = network.trunk(torch.cat([*tokens, *(self.tokens if whole else ())], dim=1), sum(lengths), self.kept)   # the drawn come first
        heads = self.heads | {name: network.unpatchify(name, part[:, 1:])
                              for name, part in zip(headed, x.split(lengths, dim=1), strict=True)}
        self.heads = {name: heads[name] for name in self.headed if name in self.still}
        if network.canvas is not None:
            seen = {name: latent for name, (latent, _) in self.still.items()} | {name: latents[name] for name in self.drawn}
            heads = network.canvas(seen, heads, {**self.times, **{name: times[name] for name in self.drawn}})
        return {name: heads[name] if network.config.prediction == "noise" else
                noise_of(heads[name], latents[name], times[name], network.config.schedule) for name in self.drawn}


def check_reuse(reuse: int) -> int:
    if reuse < 1:
        raise ValueError(f"reuse {reuse}: every so many network calls are whole, so 1 (all of them) or more")
    return reuse
