"""How do players take turns within a step, and what of them is stored?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from copgen.training.ahead import Chunk, Task
from copgen.training.averages import Average
from copgen.training.launch import check_compiler, numbers_of
from copgen.training.metrics import Sums
from copgen.training.order import Order
from copgen.training.run_folder import Checkpoints, State
from copgen.training.sharding import Touching, gathered, laid_out, whole_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from copgen.training.loop import Optimisation, Player


class Game:
    """The players of a run, set up on this process's device, with their optimisers and the first one's average."""

    def __init__(self, fabric: Fabric, players: Mapping[str, Player], how: Optimisation, checkpoints: Checkpoints) -> None:
        if how.compile:
            check_compiler()
        self.fabric, self.how, self.checkpoints, self.sums = fabric, how, checkpoints, Sums()
        self.seats = [Seat(fabric, name, player, how) for name, player in players.items()]
        self.average = Average(self.seats[0].objective, how)
        self.readers = [seat.objective.reader for seat in self.seats]

    def tasks(self, order: Order, first: int, last: int) -> Iterator[Task]:
        """What this process reads for steps first..last - 1, turn by turn."""
        how, mine = self.how, range(self.fabric.global_rank, self.how.chunks, self.fabric.world_size)
        for step in range(first, last):
            chunks = np.split(order(step * how.batch, (step + 1) * how.batch), how.chunks)
            yield from (Task(seat, chunks[k], seed_of(how.seed, step, k)) for seat in self.playing(step) for k in mine)

    def playing(self, step: int) -> list[int]:
        return [k for k, seat in enumerate(self.seats) if step >= seat.starts]

    def play(self, chunks: Iterator[Chunk], step: int) -> None:
        """One step: each player's turn, then the average. ValueError for samples that can't be read and for losses that are no number."""
        for k in self.playing(step):
            seat = self.seats[k]
            for other in self.seats:
                other.hold_still(other is not seat)
            try:
                loss, norm = seat.turn(self.fabric, chunks, step, self.how, self.sums, "" if k == 0 else f"{seat.name}.")
            except ValueError as error:
                raise ValueError(f"{error}; {self.checkpoints.way_on()}") from error
            for what, value in (("loss", loss), ("gradient", norm)):
                if not math.isfinite(value):
                    raise ValueError(f"{self.checkpoints.folder.parent}: the {what} of step {step + 1} is {value}; "
                                     f"{self.checkpoints.way_on()}, with a lower learning rate or in fp32")
            seat.optimiser.step()
        self.average.update(step)

    def means(self) -> dict[str, float]:
        """The losses since the last call, over all processes."""
        self.sums.reduce(lambda tensor: total(self.fabric, tensor))
        means, self.sums = self.sums.means(), Sums()
        return means

    def state(self, step: int) -> State:
        """All that a run is, whole and on the CPU of the first process; the others have to ask for it as well."""
        first = self.fabric.is_global_zero
        self.sums.reduce(lambda tensor: total(self.fabric, tensor))
        state = {"step": step, "average": gathered(self.average.state, first), "sums": gathered(self.sums.sums, first),
                 "players": {seat.name: seat.state(first) for seat in self.seats}}
        if not first:
            self.sums = Sums()                   # they are the first process's now
        return state

    def restore(self) -> int:
        """Go back to the newest checkpoint: its step; 0 without any. ValueError for one of other networks."""
        state = self.checkpoints.load(first=self.fabric.is_global_zero)
        self.fabric.barrier()                    # before the first process may write or remove any
        if state is None:
            return 0
        try:
            for seat in self.seats:
                seat.restore(state["players"][seat.name])
            self.average.restore(state["average"])
            if self.fabric.is_global_zero:
                self.sums.sums = {name: pair.to(self.fabric.device) for name, pair in state["sums"].items()}
            return int(state["step"])
        except Exception as error:
            raise ValueError(f"{self.checkpoints.folder}: does not fit this run ({error}); use the recipe that it was started with"
                             ) from error


class Seat:
    """A player on this process's device."""

    def __init__(self, fabric: Fabric, name: str, player: Player, how: Optimisation) -> None:
        self.name, self.starts, self.objective, self.how = name, player.starts, player.objective, player.how or how
        self.objective.train()
        if how.precision == "fp64":
            self.objective.double()
        if how.compile:
            self.objective.compile_networks()
        self.forward = fabric.setup_module(Touching(self.objective))
        self.moved = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self.optimiser: Any = fabric.setup_optimizers(torch.optim.AdamW(
            self.moved, lr=self.how.learning_rate, betas=self.how.betas, weight_decay=self.how.weight_decay, fused=True))

    def hold_still(self, still: bool) -> None:
        """While another plays, its loss may pass through this one, whose weights it does not move."""
        for parameter in self.moved:
            parameter.requires_grad_(not still)

    def turn(self, fabric: Fabric, chunks: Iterator[Chunk], step: int, how: Optimisation, sums: Sums, prefix: str) -> tuple[float, float]:
        """Gradients over this process's chunks, averaged over all, and clipped: the loss and the gradient's norm before clipping."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.how.rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        mine = how.chunks // fabric.world_size
        for chunk in islice(chunks, mine):
            with fabric.no_backward_sync(self.forward, enabled=len(losses) + 1 < mine), numbers_of(how.precision):
                loss, parts = self.forward(chunk, step)
                fabric.backward(loss / mine)
            losses.append(loss.detach())
            sums.add({f"{prefix}loss": loss, **{prefix + name: part for name, part in parts.items()}})
        loss, norm = torch.stack([total(fabric, torch.stack(losses).sum()) / how.chunks, self.clipped(fabric)]).tolist()
        return loss, norm

    def clipped(self, fabric: Fabric) -> Tensor:
        """The norm of all gradients before they are clipped, where they are to be."""
        if self.how.clip is None:
            return whole_of(nn.utils.get_total_norm([parameter.grad for parameter in self.moved if parameter.grad is not None]))
        norm = fabric.clip_gradients(self.forward, self.optimiser, max_norm=self.how.clip, error_if_nonfinite=False)
        assert norm is not None
        return whole_of(norm)

    def state(self, keep: bool) -> State:
        return {"objective": gathered(self.objective.state_dict(), keep), "optimiser": gathered(self.optimiser.state_dict(), keep)}

    def restore(self, state: State) -> None:
        live, moments = self.objective.state_dict(), state["optimiser"]["state"]
        self.objective.load_state_dict({name: laid_out(tensor, live[name]) if name in live else tensor
                                        for name, tensor in state["objective"].items()})
        shared = {number: {name: laid_out(value, self.moved[number]) if value.ndim else value for name, value in values.items()}
                  for number, values in moments.items()}
        self.optimiser.load_state_dict({**state["optimiser"], "state": shared})


def seed_of(seed: int, step: int, chunk: int) -> int:
    return int(np.random.SeedSequence([seed, step, chunk]).generate_state(1, np.uint64)[0] >> 1)


def total(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum over the processes."""
    summed = fabric.all_reduce(tensor, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed
