"""Where does water run? Terrain whose valleys are those of its rivers, on cells of 30 m.

A rough surface is flooded from its lowest places (the priority flood of Barnes et al. 2014), which gives every cell the neighbour it drains
to, and with it the area above every cell. Heights then rise from the outlets with the slopes of rivers in balance, S ~ A^-theta (Flint
1974; theta about 0.45): flat along rivers, steep at their heads, as where water has cut for long.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from copgen.synthetic.fields import Array

CELL = 30.0                                                       # metres


@dataclass(frozen=True)
class Drainage:
    """A tree of cells [side * side]: the cell each drains to (itself for outlets), outlets first, and the area above in cells."""

    side: int
    below: NDArray[np.int64]
    order: NDArray[np.int64]
    area: NDArray[np.float64]
    filled: NDArray[np.float64]        # the surface with its hollows filled

    def climb(self, rise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of `rise` (one a cell) along each cell's way up from its outlet."""
        height, below = rise.tolist(), self.below.tolist()
        for cell in self.order.tolist():
            if below[cell] != cell:
                height[cell] += height[below[cell]]
        return np.array(height)

    def climb_from(self, rise: NDArray[np.float64], channel: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The same, beginning anew in every channel."""
        height, below = rise.tolist(), self.below.tolist()
        for cell, fresh in zip(self.order.tolist(), channel[self.order].tolist(), strict=True):
            height[cell] = 0.0 if fresh or below[cell] == cell else height[below[cell]] + height[cell]
        return np.array(height)

    def lengths(self) -> NDArray[np.float64]:
        """Metres from each cell to the one it drains to."""
        i, j = np.divmod(np.arange(self.side**2), self.side)
        to_i, to_j = np.divmod(self.below, self.side)
        return CELL * np.hypot(i - to_i, j - to_j)


def drained(surface: Array, sea: NDArray[np.bool_], outlets: int, rng: Generator, inflow: float = 0.0) -> Drainage:
    """The drainage of a square surface into its sea cells, or into its lowest border cells; `inflow` cells drain in at the far border."""
    side = surface.shape[0]
    heights = surface.ravel().tolist()
    border = np.zeros((side, side), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    starts = np.flatnonzero(sea)
    if not len(starts):
        edge = np.flatnonzero(border)
        starts = edge[np.argsort(surface.ravel()[edge])[: 1 + 3 * outlets : 3]]
    below, filled, order = flooded(heights, side, starts.tolist())
    tree = Drainage(side, np.array(below), np.array(order), np.ones(side * side), np.array(filled))
    area = np.ones(side * side)
    if inflow:
        far = tree.climb(np.where(tree.below == np.arange(side * side), 0.0, tree.lengths())) * border.ravel()
        area[np.argsort(far)[-1 - int(rng.integers(0, side))]] += inflow
    gathered = area.tolist()
    for cell in reversed(order):
        if below[cell] != cell:
            gathered[below[cell]] += gathered[cell]
    return Drainage(side, tree.below, tree.order, np.array(gathered), tree.filled)


def flooded(heights: list[float], side: int, starts: list[int]) -> tuple[list[int], list[float], list[int]]:
    """Cells in the order in which water rising from `starts` reaches them: where each drains to, its filled height, the order."""
    wide = side + 1                                                # one column of walls, and a row at either end, end the search
    inner = [wide * (1 + cell // side) + cell % side for cell in range(side * side)]
    below, filled = [0] * (wide * (side + 2) + 1), [0.0] * (wide * (side + 2) + 1)
    for cell, height in zip(inner, heights, strict=True):
        below[cell], filled[cell] = -1, height
    around = (-wide - 1, -wide, -wide + 1, -1, 1, wide - 1, wide, wide + 1)
    queue, order = [(heights[cell], inner[cell]) for cell in starts], []
    heapq.heapify(queue)
    for _, cell in queue:
        below[cell] = cell
    push, pop = heapq.heappush, heapq.heappop
    while queue:
        height, cell = pop(queue)
        order.append(cell)
        for step in around:
            other = cell + step
            if below[other] < 0:
                below[other] = cell
                if filled[other] < height:
                    filled[other] = height
                push(queue, (filled[other], other))
    outer = [(cell // wide - 1) * side + cell % wide for cell in range(len(below))]
    return [outer[below[cell]] for cell in inner], [filled[cell] for cell in inner], [outer[cell] for cell in order]
