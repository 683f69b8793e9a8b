"""Linear layers whose weights are laid out once for the processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copgen.inference import kernels


class PackedLinear(nn.Module):
    """A linear layer with its weights in the order in which tiles are filled: the same sums, for a processor with AMX alone."""

    packed: Tensor                               # [in_features * out_features]

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.register_buffer("packed", kernels.pack(layer.weight.detach()))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.packed, self.bias)


def two_layers(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """The second layer of the GELU of the first."""
    if isinstance(first, PackedLinear) and isinstance(second, PackedLinear):
        return kernels.mlp(x, first.packed, first.bias, second.packed, second.bias)
    out: Tensor = second(F.gelu(first(x)))
    return out


def lay_out(network: nn.Module) -> None:
    """Replace a network's linear layers, in place, by packed ones where they can be used."""
    with torch.no_grad():
        for module in list(network.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, nn.Linear) and kernels.usable(layer.weight) and not any(n % kernels.BLOCK for n in layer.weight.shape):
                    setattr(module, name, PackedLinear(layer))
