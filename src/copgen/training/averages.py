"""What is left of a weight's past: the moving averages that a training returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from copgen.training.sharding import laid_out

if TYPE_CHECKING:
    from copgen.training.loop import Optimisation


class Average:
    """Exponential moving average of a network's weights; buffers that are no floating-point numbers are copied.

    `growing` forgets faster early on, so that short runs don't keep their random start; `constant` does not; `published` is the released
    VAEs': at every tenth step, a copy up to step 1011, then a decay that grows as 1 - (steps since 1000)^(-2/3).
    """

    def __init__(self, network: nn.Module, how: Optimisation) -> None:
        self.how, self.live = how, network.state_dict()
        self.state = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        self.floats = [name for name, tensor in self.live.items() if tensor.is_floating_point()]

    def kept(self, step: int) -> float:
        """The share of the old average that stays after a step, counted from 0."""
        match self.how.ema_how:
            case "growing":
                return min(self.how.ema, (1 + step) / (10 + step))
            case "constant":
                return self.how.ema
            case "published":
                if step % 10:
                    return 1.0
                return 0.0 if step <= 1010 else min(1 - (step - 999) ** (-2 / 3), self.how.ema)

    @torch.no_grad()
    def update(self, step: int) -> None:
        kept = self.kept(step)
        if kept < 1:
            torch._foreach_lerp_([self.state[name] for name in self.floats], [self.live[name] for name in self.floats], 1 - kept)
        for name in self.live.keys() - set(self.floats):
            self.state[name].copy_(self.live[name])

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state.items():
            tensor.copy_(laid_out(state[name], tensor))
