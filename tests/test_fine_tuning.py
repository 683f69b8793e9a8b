"""Going on from a model: what was learnt is kept to the bit, what is new starts as nothing, what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import nn

from copgen.backbone import BackboneConfig, UViT
from copgen.training.backbone import start_from
from copgen.training.loop import Optimisation, train

PLAIN = BackboneConfig(32, 2, 2)


def test_a_refinement_starts_as_if_it_were_not_there() -> None:
    init, refined = UViT(TINY, PLAIN), UViT(TINY, replace(PLAIN, refine=8))
    new = start_from(refined, init)
    assert new and all(name.startswith("refine.") for name in new)
    latents = {row: torch.randn(2, *TINY.latent_shape(row)) for row in TINY.names}
    times = {row: torch.rand(2) * 1000 for row in TINY.names}
    with torch.no_grad():
        before, after = init(latents, times), refined(latents, times)
        assert all(torch.equal(before[row], after[row]) for row in TINY.names)
        nn.init.ones_(refined.refine["dem"].conv_out.bias)
        assert torch.allclose(refined(latents, times)["dem"], before["dem"] + 1)


def test_a_backbone_of_another_size_is_no_beginning() -> None:
    with pytest.raises(ValueError, match="does not fit this recipe's backbone"):
        start_from(UViT(TINY, PLAIN), UViT(TINY, replace(PLAIN, width=64)))


def test_a_training_stopped_early_is_the_beginning_of_the_whole(tmp_path: Path) -> None:
    how = Optimisation(steps=12, batch=4, learning_rate=1e-2, decay_power=1.0, warm_up=2)
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))

    def run(folder: str, **limits: int | bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        network = nn.Linear(3, 3)

        def loss(net: nn.Module, numbers: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
            return (net(data[numbers]) - data[numbers]).square().mean(), {}

        train(network, loss, len(data), how, tmp_path / folder, **limits)
        return network.state_dict()

    whole, stopped = run("whole"), run("parts", stop=5)
    assert not torch.equal(whole["weight"], stopped["weight"])
    assert torch.equal(whole["weight"], run("parts", resume=True)["weight"])


def test_rows_of_one_grid_see_each_other_and_a_clean_one_is_seen_whole() -> None:
    init, refined = UViT(TINY, replace(PLAIN, refine=8)), UViT(TINY, replace(PLAIN, refine=8, beside=True))
    assert start_from(refined, init) and set(refined.refine["s2l2a_20m"].beside) == {"s2l1c_20m"} and not refined.refine["dem"].beside
    nn.init.ones_(refined.refine["s2l2a_20m"].beside["s2l1c_20m"].weight)
    nn.init.ones_(refined.refine["s2l2a_20m"].conv_out.weight)
    latents = {row: torch.randn(1, *TINY.latent_shape(row)) for row in TINY.names}

    def change(time: float) -> float:
        """How much the L2A prediction moves with the L1C latent, past what the tokens carry."""
        times = {row: torch.full((1,), time if row == "s2l1c_20m" else 500.0) for row in TINY.names}
        with torch.no_grad():
            return float((refined(latents, times)["s2l2a_20m"] - init(latents, times)["s2l2a_20m"]).abs().mean())

    assert change(0.0) > 5 * change(1000.0)      # noise is faded to alpha, 0.07, of itself
