"""Truths about qualities: a name stands for a solver and its calls, more of them come closer, and what contradicts itself is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from copgen import CopGen, Scene
from copgen.diffusion import SCHEDULE, SOLVERS, quality_of, sample, way
from copgen.job import Job, check_settings
from copgen.quality import QUALITIES


def test_qualities_are_ordered_and_the_default_is_the_solvers_own() -> None:
    calls = [QUALITIES[name].steps for name in ("fast", "default", "reference")]
    assert calls == sorted(set(calls)) and set(QUALITIES) == {"fast", "default", "reference"}
    assert all(one.solver in SOLVERS for one in QUALITIES.values())
    assert way() == ("default", SOLVERS["default"].steps)


def test_a_better_quality_is_nearer_to_where_the_noise_goes() -> None:
    """Two clusters at -1 and 1: the reference is far nearer to 1000 calls than the default, and that nearer than fast."""

    def two(latents: dict[str, torch.Tensor], times: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, (alpha, sigma) = latents["x"], SCHEDULE.alpha_sigma(times["x"][0].item())
        variance = 0.01 * alpha**2 + sigma**2
        centre = torch.tanh(alpha * x / variance)                                  # which of the two, as x says
        x0 = (0.01 * alpha * x + sigma**2 * centre) / variance
        return {"x": (x - alpha * x0) / sigma}

    noise = {"x": torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    right = sample(two, noise, {}, "default", 1000)["x"]
    error = {name: (sample(two, noise, {}, *way(name))["x"] - right).abs().mean().item() for name in QUALITIES}
    assert error["reference"] < 0.05 * error["default"] and error["default"] < 0.7 * error["fast"]


def test_steps_and_solver_choose_in_place_of_the_default_quality_and_contradict_another() -> None:
    assert way("default", "published") == ("published", 50) and way(steps=7) == ("default", 7)
    fast = QUALITIES["fast"]
    assert way("fast") == way("fast", fast.solver, fast.steps) == (fast.solver, fast.steps)
    with pytest.raises(ValueError, match=f"quality fast is {fast.steps} calls of solver default, and 30 of default are asked for"):
        way("fast", steps=30)
    with pytest.raises(ValueError, match=r"quality reference is .* and 50 of published are asked for, too; leave out the quality"):
        way("reference", "published")
    with pytest.raises(ValueError, match="quality 'best': choose fast, default, reference"):
        way("best")
    with pytest.raises(ValueError, match="no solver is called 'euler'"):
        way("fast", "euler")


def test_the_quality_of_a_sample_is_told_by_its_solver_and_calls() -> None:
    assert [quality_of(*way(name)) for name in QUALITIES] == list(QUALITIES)
    assert quality_of("published", 50) is None and quality_of("default", 7) is None


def test_a_quality_draws_what_its_calls_draw_and_is_noted(tiny_model: Path) -> None:
    model = CopGen(tiny_model, device="cpu", precision="fp32")
    (named,) = model.generate(None, "DEM", seeds=[3], quality="fast")
    (told,) = model.generate(None, "DEM", seeds=[3], steps=QUALITIES["fast"].steps)
    assert np.array_equal(named["dem"], told["dem"])
    assert named.notes == told.notes and (named.notes["quality"], named.notes["steps"]) == ("fast", QUALITIES["fast"].steps)
    assert model.generate(None, "DEM", steps=2)[0].notes["quality"] is None
    with pytest.raises(ValueError, match="quality fast is"):
        model.generate(Scene(), "DEM", quality="fast", solver="published")


def test_a_request_names_a_quality_only_where_it_is_another() -> None:
    """Folders of earlier versions go on: what they were asked for says nothing of quality."""
    assert "quality" not in Job(Path("out")).request
    assert Job(Path("out"), quality="fast").request["quality"] == "fast"


def test_a_job_is_refused_before_any_file_is_opened() -> None:
    for settings in ({"quality": "best"}, {"quality": "fast", "steps": 3}, {"quality": "reference", "solver": "published"}):
        with pytest.raises(ValueError, match="quality"):
            check_settings(Job(Path("out"), **settings))


def test_help_tells_what_each_quality_takes() -> None:
    from copgen.cli import app

    text = " ".join(CliRunner().invoke(app, ["generate", "--help"], terminal_width=200).output.replace("│", " ").split())
    for name, one in QUALITIES.items():
        assert f"{name} ({one.steps} network calls a sample)" in text


def test_a_generator_takes_a_quality(tiny_model: Path) -> None:
    from copgen.evaluation.generators import open_generator

    told = f"{tiny_model},steps={QUALITIES['fast'].steps}"
    assert open_generator(f"{tiny_model},quality=fast", device="cpu").record() == open_generator(told, device="cpu").record()
    with pytest.raises(ValueError, match="quality fast is"):
        open_generator(f"{tiny_model},quality=fast,steps=3", device="cpu")
