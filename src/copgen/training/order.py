"""In which order are samples seen? Every epoch all of them once, in a fresh order that is a function of seed and position alone.

So a run goes on at any position without a record of what was seen, whatever the number of processes and readers. Either everything is
shuffled, which takes 8 bytes a sample and reads one here and one there; or shards are, a few of which at a time have their samples shuffled
together: that takes memory for the shards only, and reads their files one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from copgen.shards import Numbers, starts_of

Order = Callable[[int, int], Numbers]            # the samples at positions first..last - 1, counted on across epochs


def order_of(counts: int | Numbers, seed: int, shards_mixed: int | None = None) -> Order:
    """The order of so many samples, or of shards with so many each.

    shards_mixed: how many shards have their samples shuffled together; None: all.
    """
    if shards_mixed is None:
        return everything(int(np.sum(counts)), seed)
    return by_shards(np.atleast_1d(np.asarray(counts, np.int64)), seed, shards_mixed)


def everything(samples: int, seed: int) -> Order:
    """One permutation of all samples an epoch."""

    @lru_cache(maxsize=2)
    def permutation(epoch: int) -> Numbers:
        return np.random.default_rng([seed, 1, epoch]).permutation(samples)

    def numbers(first: int, last: int) -> Numbers:
        return np.concatenate([permutation(epoch)[start:stop] for epoch, start, stop in within_epochs(samples, first, last)])

    return numbers


def by_shards(counts: Numbers, seed: int, mixed: int) -> Order:
    """Each epoch deals the shards out at random into groups of `mixed` or somewhat more, and shuffles the samples of a group.

    A batch holds samples of about as many shards as were mixed; what samples of a shard have in common, such as a region, is averaged
    over that many.
    """
    starts, groups = starts_of(counts), max(len(counts) // mixed, 1)
    borders = np.arange(groups + 1) * len(counts) // groups

    @lru_cache(maxsize=2)
    def dealt(epoch: int) -> tuple[Numbers, Numbers]:
        """The shards, a group's between two borders, and the position in the epoch at which each group begins."""
        shards = np.random.default_rng([seed, 3, epoch]).permutation(len(counts))
        return shards, starts_of(counts[shards])[borders]

    @lru_cache(maxsize=2)
    def shuffled(epoch: int, group: int) -> Numbers:
        shards = dealt(epoch)[0][borders[group] : borders[group + 1]]
        members = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards])
        return np.random.default_rng([seed, 4, epoch, group]).permutation(members)

    def numbers(first: int, last: int) -> Numbers:
        found = []
        for epoch, start, stop in within_epochs(int(starts[-1]), first, last):
            begins = dealt(epoch)[1]
            for group in range(int(np.searchsorted(begins, start, "right")) - 1, int(np.searchsorted(begins, stop))):
                found.append(shuffled(epoch, group)[max(start - begins[group], 0) : stop - begins[group]])
        return np.concatenate(found)

    return numbers


def within_epochs(samples: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """The epochs that positions first..last - 1 lie in, with the stretch of each."""
    for epoch in range(first // samples, -(-last // samples)):
        yield epoch, max(first - epoch * samples, 0), min(last - epoch * samples, samples)
