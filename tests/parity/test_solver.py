"""The schedule and the published solver give the numbers that the authors' code gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from copgen.diffusion import SCHEDULE, sample

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "cop-gen-tiny.json").read_text())
TOY = np.load(HERE / "vae-and-beta.npz")


@pytest.mark.parametrize("n", GOLDEN["schedule"])
def test_the_schedule_is_the_published_one(n: str) -> None:
    golden = GOLDEN["schedule"][n]
    alpha, sigma = SCHEDULE.alpha_sigma(int(n))
    # the authors' float32 takes 1 - alpha^2 where alpha is nearly 1: their sigma_1 is 1.3e-5 off the exact one
    assert alpha == pytest.approx(golden["alpha"], rel=1e-6)
    assert sigma == pytest.approx(golden["sigma"], rel=2e-5 if int(n) <= 2 else 5e-6)
    assert SCHEDULE.lam(int(n)) == pytest.approx(golden["lam"], abs=2e-5 if int(n) <= 2 else 5e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", GOLDEN["solver"]["runs"])
def test_final_latents_and_call_times_are_the_published_ones(steps: str, dtype: torch.dtype) -> None:
    golden, times = GOLDEN["solver"]["runs"][steps], []

    def backbone(latents: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        times.append(t["x"][0].item() / 1000)
        return {"x": 0.3 * latents["x"] + 0.2 * torch.sin(6 * t["x"][:, None] / 1000)}

    x = sample(backbone, {"x": torch.tensor(golden["x_T"], dtype=dtype).reshape(2, 5)}, {}, solver="published", steps=int(steps))["x"]
    np.testing.assert_allclose(x.flatten().numpy(), golden["result"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(times, golden["times"], rtol=0, atol=2e-7)


@pytest.mark.parametrize("steps", [10, 20, 25, 30, 50, 51])
def test_the_solver_of_cop_gen_beta_is_the_same(steps: int) -> None:
    def backbone(latents: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": 0.8 * torch.tanh(latents["x"]) + 0.1 * t["x"][:, None] / 1000}

    noise = torch.sin(0.7 * torch.arange(16, dtype=torch.float64)).float()[None]
    x = sample(backbone, {"x": noise}, {}, solver="published", steps=steps)["x"]
    np.testing.assert_allclose(x.numpy(), TOY[f"dpm_toy_{steps}"], rtol=1e-5, atol=1e-5)
