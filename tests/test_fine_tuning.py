"""Going on from a model: what was learnt is kept to the bit, what is new starts as nothing, what does not fit is refused."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch import nn

from copgen.backbone import BackboneConfig, UViT
from copgen.training.backbone import start_from, told

PLAIN = BackboneConfig(32, 2, 2)


def test_a_backbone_of_another_size_is_no_beginning() -> None:
    with pytest.raises(ValueError, match="does not fit this recipe's backbone"):
        start_from(UViT(TINY, PLAIN), UViT(TINY, replace(PLAIN, width=64)))


def predictions(network: UViT, rows: tuple[str, ...] = TINY.names, time: float = 500.0, **other: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = {row: torch.randn(2, *TINY.latent_shape(row), generator=generator) for row in TINY.names} | other
    with torch.no_grad():
        return network({row: latents[row] for row in rows}, {row: torch.full((2,), time) for row in rows})


def test_a_canvas_starts_as_if_it_were_not_there_and_any_rows_will_do() -> None:
    init, canvas = UViT(TINY, PLAIN), UViT(TINY, replace(PLAIN, canvas=16, canvas_blocks=1))
    assert {name.split(".")[0] for name in start_from(canvas, init)} == {"canvas"}
    for rows in (TINY.names, ("dem",), ("date",), ("place", "s2l1c_60m", "s1rtc")):
        before, after = predictions(init, rows), predictions(canvas, rows)
        assert set(after) == set(rows) and all(torch.equal(before[row], after[row]) for row in rows)


def test_on_a_canvas_every_image_row_sees_the_others_at_the_same_place() -> None:
    """With the transformer's part silenced, a change in one corner of one row moves the same corner of the others, and no other."""
    network = UViT(TINY, replace(PLAIN, canvas=16, canvas_blocks=1))
    for head in network.head.values():
        nn.init.zeros_(head.weight)
    assert network.canvas is not None
    for layer in network.canvas.leave.values():
        nn.init.normal_(layer.weight)
    nn.init.normal_(network.canvas.straight.mix.weight)
    for block in network.canvas.blocks:
        nn.init.zeros_(block.conv_out.weight)    # whose norm looks at the whole grid
    changed = torch.randn(2, *TINY.latent_shape("s2l1c_10m"), generator=torch.Generator().manual_seed(5))
    still = changed.clone()
    changed[..., :3, :3] += 5
    one, other = predictions(network, s2l1c_10m=still), predictions(network, s2l1c_10m=changed)
    for row in TINY.images:
        moved = (one[row] - other[row]).abs().amax((0, 1)) > 1e-6
        side = len(moved)
        assert moved[0, 0] and not moved[-(side // 2):, -(side // 2):].any(), row


def test_rows_of_one_model_only_are_left_as_they_are_or_out() -> None:
    few = UViT(TINY.subset(("place", "dem", "s1rtc", "s2l2a_10m")), PLAIN)
    many = UViT(TINY, PLAIN)
    fresh = {name: tensor.clone() for name, tensor in many.state_dict().items()}
    new = start_from(many, few)
    assert "new rows date, lulc, cloud_mask" in told(many, new) and "new parts" not in told(many, new)
    state = many.state_dict()
    assert torch.equal(state["embed.dem.weight"], few.state_dict()["embed.dem.weight"])
    assert torch.equal(state["embed.lulc.weight"], fresh["embed.lulc.weight"])
    assert torch.equal(state["mid_block.mlp.fc1.weight"], few.state_dict()["mid_block.mlp.fc1.weight"])
    assert start_from(few, many) == []


def test_rows_that_both_have_keep_their_map_on_a_canvas_whatever_the_others_are() -> None:
    """With the new rows' part of the map silent, rows that both models have are predicted from each other as before."""
    config = replace(PLAIN, canvas=16, canvas_blocks=1)
    few, many = UViT(TINY.subset(("place", "dem", "s1rtc", "s2l2a_10m")), config), UViT(TINY, config)
    assert few.canvas is not None and many.canvas is not None
    nn.init.normal_(few.canvas.straight.mix.weight)
    assert "new rows date, lulc, cloud_mask" in told(many, start_from(many, few))
    rows = few.table.names
    before, after = predictions(few, rows), predictions(many, rows)
    assert all(torch.allclose(before[row], after[row], atol=1e-5) for row in rows)
    back = UViT(few.table, config)
    assert start_from(back, many) == [] and all(torch.equal(few.state_dict()[name], tensor) for name, tensor in back.state_dict().items())


@pytest.mark.parametrize("other", [{"heads": 4}, {"prediction": "velocity"}])
def test_weights_that_would_mean_something_else_are_refused(other: dict) -> None:
    """Their sizes are the same."""
    with pytest.raises(ValueError, match=f"--init: its backbone has {next(iter(other))} = "):
        start_from(UViT(TINY, PLAIN), UViT(TINY, replace(PLAIN, **other)))
