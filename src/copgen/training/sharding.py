"""Where is a tensor when several devices share it? FSDP lays weights out in shards; a checkpoint holds them whole, for any number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

CONTAINERS = (nn.ModuleList, nn.ModuleDict)


def units(network: nn.Module) -> Iterator[nn.Module]:
    """The parts that are gathered one after another: the outermost members of module lists, such as a backbone's blocks."""
    for child in network.children():
        if isinstance(network, nn.ModuleList) and not isinstance(child, CONTAINERS):
            yield child
        else:
            yield from units(child)


def shared_out(network: nn.Module, mesh: Any) -> nn.Module:
    """The network with its weights in shards over the devices (torch's FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    for unit in units(network):
        fully_shard(unit, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


def gathered(state: Any, keep: bool = True) -> Any:
    """A nest of dictionaries and lists with its tensors whole and on the CPU, or None for each of them unless `keep`.

    Every process has to call this, as gathering takes all of them; who has no use for the result saves its memory.
    """
    if isinstance(state, Tensor):
        whole = whole_of(state.detach())
        return whole.cpu() if keep else None
    if isinstance(state, dict):
        return {key: gathered(value, keep) for key, value in state.items()}
    return [gathered(value, keep) for value in state] if isinstance(state, list) else state


def laid_out(whole: Tensor, live: Tensor) -> Tensor:
    """A whole tensor as the living one is laid out: on its device, in its shards."""
    if not isinstance(live, DTensor):
        return whole.to(live.device)
    return distribute_tensor(whole.to(live.device, live.dtype), live.device_mesh, live.placements, src_data_rank=None)


def whole_of(value: Tensor) -> Tensor:
    """A tensor that may be spread over the devices, as a plain one."""
    return value.full_tensor() if isinstance(value, DTensor) else value


class Touching(nn.Module):
    """An objective whose parameters get a gradient, be it zero, also those of rows that a chunk leaves out.

    Else the shards of FSDP would disagree on what there is to add up. It asks every chunk to use all members of module lists.
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        inside = {id(parameter) for unit in units(objective) for parameter in unit.parameters()}
        self.loose = [(module, name) for module in objective.modules() for name, parameter in module.named_parameters(recurse=False)
                      if parameter.requires_grad and id(parameter) not in inside]

    def forward(self, chunk: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = self.objective(chunk.data, chunk.generator, step)
        return Untouched.apply(loss, *(getattr(module, name) for module, name in self.loose)), parts


class Untouched(torch.autograd.Function):
    """The first input as it is, the others with gradients of zero."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.like = [(parameter.shape, parameter.dtype, parameter.device) for parameter in parameters]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (gradients[0], *(torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.like))
