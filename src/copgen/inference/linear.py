"""Linear layers whose weights are laid out once for the processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copgen.inference import kernels


class PackedLinear(nn.Module):
    """A linear layer with its weights in the order in which tiles are filled: the same sums, for a processor with AMX alone.

    integers: its weights and whatever it is given are rounded to 8 bits, weights by the largest magnitude of each output, what it is given
    by that of each token, and these are summed exactly.
    """

    packed: Tensor                               # [in_features * out_features]
    scales: Tensor | None                        # [out_features]: what one is

    def __init__(self, layer: nn.Linear, *, integers: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        made = kernels.pack(layer.weight.detach(), integers=integers)
        self.register_buffer("packed", made.weight)
        self.register_buffer("scales", made.scales)

    @property
    def parts(self) -> kernels.Packed:
        return kernels.Packed(self.packed, self.scales, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.parts)


def two_layers(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """The second layer of the GELU of the first."""
    if isinstance(first, PackedLinear) and isinstance(second, PackedLinear):
        return kernels.mlp(x, first.parts, second.parts)
    out: Tensor = second(F.gelu(first(x)))
    return out


def lay_out(network: nn.Module, *, integers: bool = False) -> None:
    """Replace a network's linear layers, in place, by packed ones where they can be used."""
    with torch.no_grad():
        for module in [one for one in network.modules() if not isinstance(one, nn.Linear)]:            # so that replaced layers go at once
            for name, layer in module.named_children():
                if isinstance(layer, nn.Linear) and can_be_packed(layer, integers):
                    setattr(module, name, PackedLinear(layer, integers=integers))


def can_be_packed(layer: nn.Linear, integers: bool) -> bool:
    step = 64 if integers else kernels.BLOCK
    return kernels.usable(layer.weight) and not layer.in_features % step and not layer.out_features % kernels.BLOCK
