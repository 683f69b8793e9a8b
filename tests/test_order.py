"""Every epoch sees every sample once, in an order that seed and position alone settle; shards that lie together are read together."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copgen.config import dump
from copgen.shards import starts_of
from copgen.training.loop import Optimisation
from copgen.training.order import order_of
from copgen.training.recipe import CodecSizes, Recipe
from copgen.training.run_folder import start_run

COUNTS = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any)
MIXED = st.one_of(st.none(), st.integers(1, 14))


@given(COUNTS, MIXED, st.integers(1, 40), st.integers(0, 3))
def test_every_epoch_sees_every_sample_once(counts: list[int], mixed: int | None, batch: int, seed: int) -> None:
    order, samples = order_of(np.array(counts), seed, mixed), sum(counts)
    seen = np.concatenate([order(step * batch, (step + 1) * batch) for step in range(-(-3 * samples // batch))])
    for epoch in range(3):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples].tolist()) == list(range(samples))


@given(COUNTS, MIXED, st.integers(0, 200), st.integers(1, 50))
def test_an_order_is_the_same_wherever_one_begins(counts: list[int], mixed: int | None, first: int, length: int) -> None:
    whole, resumed = order_of(np.array(counts), 5, mixed), order_of(np.array(counts), 5, mixed)
    np.testing.assert_array_equal(resumed(first, first + length), whole(0, first + length)[first:])


@pytest.mark.parametrize("mixed", [None, 4])
def test_epochs_and_seeds_have_their_own_order(mixed: int | None) -> None:
    orders = [order_of(np.full(10, 5), seed, mixed)(50 * epoch, 50 * (epoch + 1)).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_what_shuffles_everything_has_the_order_that_runs_were_started_with() -> None:
    """A permutation an epoch from (seed, 1, epoch), position by position."""
    first, second = (np.random.default_rng([3, 1, epoch]).permutation(10).tolist() for epoch in (0, 1))
    assert order_of(10, 3)(8, 14).tolist() == first[8:] + second[:4]
    assert order_of(np.array([4, 6]), 3)(0, 20).tolist() == first + second


def test_only_so_many_shards_are_in_use_at_a_time() -> None:
    counts = np.random.default_rng(0).integers(5, 15, 60)
    order, shard = order_of(counts, 0, 8), np.repeat(np.arange(60), counts)
    seen = shard[order(0, int(counts.sum()))]
    first, last = np.array([np.flatnonzero(seen == k)[[0, -1]] for k in range(60)]).T
    in_use = [int(((first <= position) & (position <= last)).sum()) for position in range(len(seen))]
    assert max(in_use) <= 2 * 8 - 1 and np.median(in_use) >= 6


def test_a_batch_holds_samples_of_as_many_shards_as_chance_would_put_there() -> None:
    """Of m shards alike, a batch of b has m (1 - (1 - 1/m)^b), here 28.6 of 32; what a shard's samples share averages out as over m."""
    shards, size, mixed, batch = 320, 100, 32, 70
    order, shard = order_of(np.full(shards, size), 1, mixed), np.repeat(np.arange(shards), size)
    value = np.random.default_rng(0).standard_normal(shards)                         # a region's own
    batches = [shard[order(k * batch, (k + 1) * batch)] for k in range(shards * size // batch)]
    distinct = np.mean([len(np.unique(one)) for one in batches])
    assert distinct == pytest.approx(mixed * (1 - (1 - 1 / mixed) ** batch), abs=0.7)
    spread = np.std([value[one].mean() for one in batches])
    print(f"distinct shards a batch of {batch}: {distinct:.1f} of {mixed}; deviation of a batch's mean {spread:.3f}, "
          f"by {mixed} shards and {batch} samples {np.sqrt(1 / mixed + 1 / batch):.3f}, all shuffled {np.sqrt(1 / batch):.3f}")
    assert spread < 1.2 * np.sqrt(1 / mixed + 1 / batch)


def test_the_whole_earth_opens_and_jumps_in_no_time_and_little_memory() -> None:
    """36.6 million patches in 64 thousand shards: megabytes by the number of shards, milliseconds at any position."""
    counts = np.full(63_593, 576)
    tracemalloc.start()
    began = time.perf_counter()
    order = order_of(counts, 0, 64)
    places = np.random.default_rng(0).integers(0, 10**10, 20)
    found = [order(int(place), int(place) + 4096) for place in places]
    took, (_, peak) = (time.perf_counter() - began) / len(places), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{counts.sum():,} samples: {1e3 * took:.1f} ms a jump, {peak / 2**20:.1f} MiB")
    assert all(len(one) == 4096 and one.min() >= 0 and one.max() < starts_of(counts)[-1] for one in found)
    assert took < 0.1 and peak < 20 * 2**20


def test_a_run_started_before_there_was_a_choice_goes_on(tmp_path: Path) -> None:
    """What its record does not say is the order that it has; another one makes another run."""
    line = {"backbone": dump(Optimisation())}
    before = {"backbone": {key: value for key, value in line["backbone"].items() if key != "shards_mixed"}}
    start_run(tmp_path, False, before)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "5.pt").touch()
    start_run(tmp_path, True, line)
    with pytest.raises(ValueError, match=r"was started with backbone.shards_mixed = None, not 64"):
        start_run(tmp_path, True, {"backbone": dump(Optimisation(shards_mixed=64))})


def test_a_run_started_before_a_key_with_a_default_goes_on(tmp_path: Path) -> None:
    """A record that lacks a key says its default, at whatever depth."""
    recipe = replace(Recipe("old"), codec_of={"dem": CodecSizes(width=8)})
    record = dump(recipe)
    del record["backbone"]["last_beta"], record["train"]
    start_run(tmp_path, False, {"data": "a", **record})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "5.pt").touch()
    with pytest.raises(ValueError, match=r"was started with backbone.last_beta = 0.012, not 0.03; resume it"):
        other = replace(recipe, backbone=replace(recipe.backbone, last_beta=0.03))
        start_run(tmp_path, True, {"data": "a", **dump(other)}, defaults=dump(Recipe("")))
    with pytest.raises(ValueError, match=r"was started with name = 'old', not 'new'"):
        start_run(tmp_path, True, {"data": "a", **dump(replace(recipe, name="new"))}, defaults=dump(Recipe("")))
    start_run(tmp_path, True, {"data": "a", **dump(recipe)}, defaults=dump(Recipe("")))


def test_a_number_of_shards_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="shards_mixed 0: is 1 or more, or left out to shuffle everything"):
        Optimisation(shards_mixed=0)
