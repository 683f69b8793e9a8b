"""Truths about the schedule, the noising and the solvers; Gaussian data's exact denoiser makes the answers known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from copgen import diffusion
from copgen.diffusion import SCHEDULE, SOLVERS, draw_times, joint_denoiser, loss, noised, published_fault, sample, schedule_to

Call = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


def gaussian(mean: float, std: float, schedule: diffusion.Schedule = SCHEDULE) -> Call:
    """The exact backbone of independent N(mean, std^2) numbers: eps = sigma (x - alpha mean) / (alpha^2 std^2 + sigma^2)."""

    def eps(x: Tensor, t: float) -> Tensor:
        alpha, sigma = schedule.alpha_sigma(t)
        return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    return lambda latents, times: {row: eps(x, times[row][0].item()) for row, x in latents.items()}


def gaussian_solution(noise: Tensor, mean: float, std: float, t: float = 1.0, schedule: diffusion.Schedule = SCHEDULE) -> Tensor:
    """Where the ODE takes the noise: the score (x - alpha mean) / sqrt(alpha^2 std^2 + sigma^2) never changes on the way."""
    (alpha_T, sigma_T), (alpha, sigma) = schedule.alpha_sigma(1000), schedule.alpha_sigma(t)
    score = (noise - alpha_T * mean) / math.hypot(alpha_T * std, sigma_T)
    return alpha * mean + math.hypot(alpha * std, sigma) * score


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# The schedule and training


@any_of(st.floats(0.5, 1000), st.sampled_from([0.0120, 0.025]))
def test_time_and_log_snr_are_inverses(t: float, last: float) -> None:
    schedule = schedule_to(last)
    assert schedule.time_of(schedule.lam(t)) == pytest.approx(t, rel=1e-9)


def test_a_later_end_leaves_less_of_the_signal_and_the_default_solver_still_solves() -> None:
    """Alpha falls from 0.068 to 0.006; 40 calls on a Gaussian then end where the ODE does."""
    schedule, noise = schedule_to(0.025), normal(4, 8)
    assert SCHEDULE.alpha_sigma(1000)[0] > 0.06 > 0.01 > schedule.alpha_sigma(1000)[0]
    x = sample(gaussian(0.5, 0.8, schedule), {"a": noise}, {}, "default", 40, denoise=False, schedule=schedule)["a"]
    assert (x - gaussian_solution(noise, 0.5, 0.8, schedule=schedule)).abs().max() < 1e-3


@any_of(st.floats(0.5, 1000))
def test_variance_is_preserved_and_lam_is_the_log_of_the_ratio(t: float) -> None:
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-12)
    assert SCHEDULE.lam(t) == pytest.approx(math.log(alpha / sigma), abs=1e-9)


def test_alpha_is_the_product_of_what_every_step_leaves() -> None:
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    for n in (1, 2, 500, 1000):
        assert SCHEDULE.alpha_sigma(n)[0] == pytest.approx((1 - betas[:n]).prod().sqrt().item(), rel=1e-12)


def test_noising_takes_every_row_and_sample_to_its_own_step() -> None:
    x0, eps = {"a": normal(3, 8, 2, 2), "b": normal(3, 1, 1, 3)}, {"a": normal(3, 8, 2, 2, seed=1), "b": normal(3, 1, 1, 3, seed=2)}
    n = {"a": torch.tensor([0, 1, 1000]), "b": torch.tensor([500, 0, 7])}
    x = noised(x0, eps, n)
    for row in x0:
        for k, step in enumerate(n[row].tolist()):
            alpha, sigma = SCHEDULE.alpha_sigma(step) if step else (1.0, 0.0)
            torch.testing.assert_close(x[row][k], alpha * x0[row][k] + sigma * eps[row][k])


def test_the_exact_denoiser_undoes_the_noising() -> None:
    x0, eps = {"a": normal(4, 3)}, {"a": normal(4, 3, seed=1)}
    x = noised(x0, eps, {"a": torch.full((4,), 321)})
    torch.testing.assert_close(joint_denoiser(lambda latents, times: eps, {}, {})(x, 321.0)["a"], x0["a"])


def test_the_loss_is_each_rows_mean_summed_over_rows_however_large() -> None:
    eps = {"large": normal(5, 8, 24, 24), "small": normal(5, 1, 1, 3)}
    total, rows = loss({"large": eps["large"] + 2, "small": eps["small"] - 3}, eps)
    torch.testing.assert_close(rows["large"], torch.full((5,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(total, torch.full((5,), 13.0, dtype=torch.float64))


def test_training_times_are_every_rows_own_and_run_from_1_to_1000() -> None:
    n = draw_times(["a", "b"], 20_000, torch.Generator().manual_seed(0))
    assert (n["a"].min(), n["a"].max(), n["b"].min(), n["b"].max()) == (1, 1000, 1, 1000)
    assert abs(torch.corrcoef(torch.stack([n["a"], n["b"]]).double())[0, 1]) < 0.03


# Every solver


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("denoise", [None, True, False])
def test_steps_are_the_network_calls_and_each_is_reported(solver: str, denoise: bool | None) -> None:
    calls: list[float] = []
    ticks: list[tuple[int, int]] = []

    def backbone(latents: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
        calls.append(times["a"][0].item())
        return latents

    for steps in range(1, 21):
        calls.clear()
        ticks.clear()
        x = sample(backbone, {"a": normal(2, 3)}, {}, solver, steps, denoise=denoise, progress=lambda *tick: ticks.append(tick))
        assert x["a"].isfinite().all() and len(calls) == steps
        assert ticks == [(done, steps) for done in range(1, steps + 1)]
        assert calls == sorted(calls, reverse=True) and calls[0] == 1000 and calls[-1] >= 1


def test_the_orders_of_fast_use_every_call() -> None:
    assert [diffusion.singlestep_orders(n) for n in range(7)] == [[], [1], [2], [2, 1], [3, 1], [3, 2], [3, 2, 1]]
    assert diffusion.singlestep_orders(50) == [3] * 16 + [2]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.0, 0.05)])
def test_gaussian_data_go_where_the_closed_form_says(solver: str, mean: float, std: float) -> None:
    noise = normal(50, 4)
    x = sample(gaussian(mean, std), {"a": noise}, {}, solver, 300, denoise=False)["a"]
    # even spacing in time leaves the last step of `published` large in lam: it closes in slowly
    assert (x - gaussian_solution(noise, mean, std)).square().mean().sqrt() < (5e-3 if solver == "published" else 2e-6)


def test_the_default_is_of_third_order() -> None:
    def error(steps: int) -> float:
        x = sample(gaussian(0.5, 0.8), {"a": normal(20, 4)}, {}, "default", steps, denoise=False)["a"]
        return (x - gaussian_solution(normal(20, 4), 0.5, 0.8)).abs().max().item()

    assert 2.6 < math.log2(error(160) / error(320)) < 3.4


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_singlestep_is_of_its_order(order: int) -> None:
    def error(steps: int) -> float:
        first, last = SCHEDULE.lam(1000), SCHEDULE.lam(1)
        t = [SCHEDULE.time_of(first + i / steps * (last - first)) for i in range(steps + 1)]
        x = {"a": normal(20, 4)}
        for i in range(0, steps, order):
            x = diffusion.singlestep(joint_denoiser(gaussian(0.5, 0.8), {}, {}), x, t[i : i + order + 1], SCHEDULE)
        return (x["a"] - gaussian_solution(normal(20, 4), 0.5, 0.8)).abs().max().item()

    assert order - 0.4 < math.log2(error(120) / error(240)) < order + 0.4


def test_the_default_at_15_beats_published_at_51_on_gaussians_of_any_width() -> None:
    for std in (0.05, 0.1, 0.2, 0.5, 1.0, 1.5):
        backbone, noise = gaussian(0.3, std), {"a": normal(100, 4)}
        alpha, sigma = SCHEDULE.alpha_sigma(1)
        x = gaussian_solution(noise["a"], 0.3, std)
        truth = (x - sigma**2 * (x - alpha * 0.3) / (alpha**2 * std**2 + sigma**2)) / alpha
        ours, theirs = sample(backbone, noise, {}, "default", 15)["a"], sample(backbone, noise, {}, "published", 51, denoise=True)["a"]
        assert (ours - truth).square().mean() < (theirs - truth).square().mean() / 4


@pytest.mark.parametrize("solver", SOLVERS)
def test_moving_and_scaling_the_data_moves_and_scales_the_samples(solver: str) -> None:
    """In x: the data's mean enters as alpha mean, which every solver integrates exactly, being exact for a constant x_0."""
    noise, shift = normal(6, 4), 2.5
    alpha_T, _ = SCHEDULE.alpha_sigma(1000)
    centred = sample(gaussian(0, 0.6), {"a": noise}, {}, solver, 9, denoise=True)["a"]
    moved = sample(gaussian(shift, 0.6), {"a": noise + alpha_T * shift}, {}, solver, 9, denoise=True)["a"]
    torch.testing.assert_close(moved, centred + shift)
    twice = sample(gaussian(0, 0.6), {"a": 2 * noise}, {}, solver, 9, denoise=True)["a"]    # this denoiser is linear
    torch.testing.assert_close(twice, 2 * centred)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_does_not_depend_on_its_batch_nor_its_row_on_the_mapping(solver: str) -> None:
    def backbone(latents: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
        return {row: torch.tanh(x) + 1e-3 * times[row].view(-1, 1) for row, x in latents.items()}

    a, b = normal(5, 3), normal(5, 4, seed=1)
    both = sample(backbone, {"a": a, "b": b}, {}, solver, 8)
    joined = sample(backbone, {"ab": torch.cat([a, b], 1)}, {}, solver, 8)["ab"]
    assert torch.equal(torch.cat([both["a"], both["b"]], 1), joined)
    assert torch.equal(sample(backbone, {"b": b[2:3]}, {}, solver, 8)["b"], both["b"][2:3])


@settings(max_examples=25, deadline=None)
@any_of(steps=st.integers(1, 30), solver=st.sampled_from(list(SOLVERS)), denoise=st.booleans())
def test_data_that_are_one_point_are_found_by_a_denoising_in_any_number_of_calls(steps: int, solver: str, denoise: bool) -> None:
    noise = normal(3, 2)
    x = sample(gaussian(1.7, 0.0), {"a": noise}, {}, solver, steps, denoise=denoise)["a"]
    torch.testing.assert_close(x, torch.full_like(x, 1.7) if denoise else gaussian_solution(noise, 1.7, 0.0))


# What the backbone is shown


def test_given_stand_clean_at_0_and_absent_are_one_noise_at_1000() -> None:
    seen: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def backbone(latents: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((latents, times))
        return {row: x.bfloat16() for row, x in latents.items()}

    noise, dem, place = (normal(2, *shape, dtype=torch.float32) for shape in ((8, 3, 3), (8, 2, 2), (1, 1, 3)))
    x = sample(backbone, {"s1rtc": noise}, {"dem": dem}, "default", 6, absent={"place": place})
    assert x.keys() == {"s1rtc"} and x["s1rtc"].dtype == torch.float32      # whatever the backbone returns
    for latents, times in seen:
        assert latents["dem"] is dem and latents["place"] is place
        assert times["dem"].tolist() == [0, 0] and times["place"].tolist() == [1000, 1000] and times["s1rtc"].shape == (2,)


def test_the_published_fault_shows_new_noise_labelled_clean_at_every_call() -> None:
    seen: list[Tensor] = []

    def backbone(latents: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
        assert times["b"].tolist() == [0, 0]
        seen.append(latents["b"])
        return latents

    faulty = published_fault(backbone, {"b": normal(2, 3)}, torch.Generator().manual_seed(0))
    sample(faulty, {"a": normal(2, 3)}, {}, "published", 4)
    assert len({tuple(z.flatten().tolist()) for z in seen}) == 4


@pytest.mark.parametrize(("change", "said"), [
    ({"steps": 0}, "steps = 0"), ({"solver": "euler"}, "no solver is called 'euler'; there are: default, published"),
    ({"given": {"a": torch.zeros(2, 3)}}, "a: both given and drawn"), ({"given": {"b": torch.zeros(3, 3)}}, "same number of samples"),
    ({"noise": {}}, "nothing to draw"),
])
def test_what_cannot_be_drawn_is_said(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sample(gaussian(0, 1), **{"noise": {"a": torch.zeros(2, 3)}, "given": {}, **change})    # type: ignore[arg-type]


def test_the_schedule_of_a_tensor_is_the_schedule() -> None:
    times = torch.tensor([1.0, 1.5, 20.98, 500.0, 999.9, 1000.0])
    alpha, sigma = SCHEDULE.alpha_sigma_of(times)
    for k, t in enumerate(times.tolist()):
        assert (alpha[k].item(), sigma[k].item()) == pytest.approx(SCHEDULE.alpha_sigma(t), rel=1e-6)
    assert [value.item() for value in SCHEDULE.alpha_sigma_of(torch.zeros(()))] == [1.0, 0.0]
