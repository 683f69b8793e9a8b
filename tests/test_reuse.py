"""Truths about reuse: what it computes and what it leaves, when it changes nothing, and how little it loses with nano."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, filled

from copgen import CopGen, Scene
from copgen.backbone import BackboneConfig, UViT
from copgen.call import Call
from copgen.diffusion import sample
from copgen.job import Job, check_settings
from copgen.model import gaussian
from copgen.synthetic import world

DRAWN = ("lulc", "dem")
STILL = ("place", "s1rtc", "s2l2a_20m")


def network(**changes) -> UViT:
    backbone = filled(UViT(TINY, BackboneConfig(width=32, depth=4, heads=2, **changes)), seed=0).double()
    assert isinstance(backbone, UViT)
    return backbone


def seen(seed: int, rows: tuple[str, ...] = (*STILL, *DRAWN)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {row: torch.randn(2, *TINY.latent_shape(row), generator=generator, dtype=torch.float64) for row in rows}


def at(time: float) -> dict[str, torch.Tensor]:
    return dict.fromkeys(DRAWN, torch.full((2,), time))


def still_of(latents: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, float]]:
    return {row: (latents[row], 1000.0 if row == "s1rtc" else 0.0) for row in STILL}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("changes", [{}, {"canvas": 16, "prediction": "velocity"}])
def test_a_short_call_of_what_the_whole_one_saw_says_the_same(changes: dict) -> None:
    backbone, latents = network(**changes), seen(1)
    call = Call(backbone, DRAWN, still_of(latents), reuse=2)
    whole, short = (call(latents, at(700.0)) for _ in range(2))
    assert all(torch.allclose(short[row], whole[row], rtol=1e-6, atol=1e-7) for row in DRAWN)


def test_short_calls_see_the_others_as_they_were_at_the_last_whole_one() -> None:
    """The same by hand: every block is shown the still tokens that it was shown at the whole call."""
    backbone, before, now = network(), seen(1), seen(2, DRAWN)
    call = Call(backbone, DRAWN, still_of(before), reuse=3)
    call({row: before[row] for row in DRAWN}, at(900.0))
    found = call(now, at(400.0))
    drawn = [row for row in TINY.names if row in DRAWN]
    n = sum(1 + TINY.tokens(row) for row in drawn)
    blocks = [*backbone.in_blocks, backbone.mid_block, *backbone.out_blocks]

    def through(latents: dict[str, torch.Tensor], time: float, shown: list[torch.Tensor] | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens = [backbone.tokens(row, latents[row], at(time)[row]) for row in drawn]
        x, skips, inputs = torch.cat([*tokens, *call.tokens], dim=1), [], []
        for number, block in enumerate(blocks):
            if shown is not None:
                x = torch.cat([x[:, :n], shown[number]], dim=1)
            inputs.append(x[:, n:])
            if number > len(backbone.in_blocks):
                skip = skips.pop()
                joined = block.norm1(block.skip_linear(torch.cat([x, skip], dim=-1)))
                x = block.norm2(joined + block.attn(joined))
                x = block.norm3(x + block.mlp(x))
            else:
                x = block(x)
            if number < len(backbone.in_blocks):
                skips.append(x if shown is None else torch.cat([x[:, :n], shown[number + 1]], dim=1))
        return backbone.norm(x), inputs

    _, shown = through(before, 900.0, None)
    x, _ = through(now, 400.0, shown)
    for row, part in zip(drawn, x[:, :n].split([1 + TINY.tokens(row) for row in drawn], dim=1), strict=True):
        assert torch.allclose(found[row], backbone.unpatchify(row, part[:, 1:]), rtol=1e-9, atol=1e-10)
    assert not torch.allclose(found["dem"], Call(backbone, DRAWN, still_of(before))(now, at(400.0))["dem"], rtol=1e-3)


@pytest.mark.parametrize("canvas", [0, 16])
def test_only_whole_calls_compute_what_stands_still(canvas: int) -> None:
    backbone, latents = network(canvas=canvas), seen(1)
    lengths: list[int] = []
    backbone.mid_block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    call = Call(backbone, DRAWN, still_of(latents), reuse=3)
    for _ in range(7):
        call(latents, at(500.0))
    short, rest = (sum(1 + TINY.tokens(row) for row in rows) for rows in (DRAWN, STILL))
    assert lengths == [short + rest, short, short, short + rest, short, short, short + rest]


def test_reuse_of_one_call_and_reuse_of_nothing_change_nothing() -> None:
    backbone, latents = network(), seen(1)
    for still, reuse in ((still_of(latents), 1), ({}, 4)):
        plain, other = Call(backbone, DRAWN, still), Call(backbone, DRAWN, still, reuse)
        for time in (900.0, 500.0, 100.0):
            x = seen(int(time), DRAWN)
            one, two = plain(x, at(time)), other(x, at(time))
            assert all(torch.equal(one[row], two[row]) for row in DRAWN)
    with pytest.raises(ValueError, match="reuse 0: every so many network calls are whole"):
        Call(backbone, DRAWN, {}, reuse=0)


def test_a_sample_says_how_it_was_drawn_and_does_not_depend_on_its_neighbours(tiny_model: Path) -> None:
    model = CopGen.from_pretrained(tiny_model, device="cpu", precision="fp32")
    given = Scene({"dem": np.full((1, 64, 64), 100, np.float32)}, table=TINY)
    whole = model.generate(given, "S1RTC", seeds=[4], steps=4)[0]
    two = model.generate(given, "S1RTC", seeds=[3, 4], steps=4, reuse=2)
    alone = model.generate(given, "S1RTC", seeds=[4], steps=4, reuse=2)[0]
    assert np.array_equal(two[1]["s1rtc"], alone["s1rtc"]) and not np.array_equal(alone["s1rtc"], whole["s1rtc"])
    assert (whole.notes["reuse"], alone.notes["reuse"]) == (1, 2)
    with pytest.raises(ValueError, match="reuse -1"):
        model.generate(given, "S1RTC", reuse=-1)


def test_a_request_tells_of_reuse_where_there_is_any(tmp_path: Path) -> None:
    assert "reuse" not in Job(tmp_path).request and Job(tmp_path, reuse=3).request["reuse"] == 3
    with pytest.raises(ValueError, match="reuse 0"):
        check_settings(Job(tmp_path, reuse=0))


def test_with_nano_every_third_call_whole_is_nearer_to_all_of_them_than_fewer_calls_are() -> None:
    """Ten whole calls take longer than fifteen, each third of them whole (benchmarks/reuse.py), and are farther off."""
    model = CopGen.from_pretrained("nano", device="cpu", precision="fp32")
    truth = world(12_000_777, model.table)
    given = model.encode(truth.only([row for row in truth.layers if row != "s1rtc"]))
    noise = {"s1rtc": gaussian([0], "s1rtc", model.table.latent_shape("s1rtc"))}

    def drawn(calls: int, reuse: int) -> torch.Tensor:
        call = Call(model.backbone, ["s1rtc"], {row: (z, 0.0) for row, z in given.items()}, reuse)
        return sample(call, noise, given, "default", calls, schedule=model.backbone.config.schedule)["s1rtc"]

    right = drawn(15, 1)
    error = {way: (drawn(*way) - right).square().mean().sqrt() for way in ((15, 3), (10, 1))}
    assert 0 < error[15, 3] < 0.7 * error[10, 1]
