"""A run that was killed and went on is the run that never stopped, whatever happened to it; its faults end in one sentence."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same, assert_same_run, last_checkpoint
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen.training.averages import Average
from copgen.training.loop import Objective, Optimisation, Paused, Player, Progress, train
from copgen.training.metrics import Sums

HOW = Optimisation(steps=20, batch=4, learning_rate=0.05, decay_power=1.0, warm_up=3, ema=0.9, clip=1.0, seed=3)
SAMPLES = 10


class Killed(BaseException):
    pass


class Line(Objective):
    """Fit y = sum(x); `at` is called with the count of this process's steps and may do anything, also to the loss."""

    def __init__(self, at: Callable[[int, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3))
        self.norm = nn.BatchNorm1d(3)            # weights that are not floating point, too
        self.at, self.steps = at, 0

    def forward(self, numbers: NDArray[np.int64], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        self.steps += 1
        x = torch.randn(len(numbers), 3, generator=generator) + torch.from_numpy(numbers)[:, None]
        y = self.norm(x) @ self.weight
        error = (y - x.sum(1)).square().mean()
        if self.at:
            error = self.at(self.steps, error + 0 * y.sum())
        return error, {"half": error / 2}


def killed_at(step: int) -> Callable[[int, Tensor], Tensor]:
    def at(now: int, error: Tensor) -> Tensor:
        if now == step:
            raise Killed
        return error

    return at


def run(folder: Path, how: Optimisation = HOW, at: Callable[[int, Tensor], Tensor] | None = None, **options) -> dict[str, Tensor]:
    return train({"line": Player(Line(at))}, SAMPLES, how, folder, **{"save_every": 6, "log_every": 2, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("stop_at", [1, 7, 12, 20])
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path, stop_at: int) -> None:
    average = run(tmp_path / "straight")
    with pytest.raises(Killed):
        run(tmp_path / "killed", at=killed_at(stop_at))
    assert_same(run(tmp_path / "killed", resume=True), average)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_a_run_killed_again_and_again_still_ends_the_same(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    for stop_at in (9, 3, 8, 5):
        with pytest.raises(Killed):
            run(tmp_path / "killed", at=killed_at(stop_at), resume=True)
    run(tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_a_line_of_the_log_that_was_half_full_when_the_run_was_killed_is_filled_up(tmp_path: Path) -> None:
    run(tmp_path / "straight", log_every=5)
    with pytest.raises(Killed):
        run(tmp_path / "killed", log_every=5, at=killed_at(9))       # saved at 6, between the lines of 5 and 10
    run(tmp_path / "killed", log_every=5, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_going_on_from_the_end_changes_nothing(tmp_path: Path) -> None:
    average = run(tmp_path)
    before = files(tmp_path)
    assert_same(run(tmp_path, resume=True), average)
    assert files(tmp_path) == before


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"holds a run already; go on with --resume or choose another folder"):
        run(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_saves_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    def at(now: int, error: Tensor) -> Tensor:
        if now == 9:
            os.kill(os.getpid(), number)
        return error

    before = signal.getsignal(number)
    with pytest.raises(Paused, match=r"paused: stopped at step 9 of 20 and saved; go on with --resume") as pause:
        run(tmp_path / "paused", at=at)
    assert pause.value.code == 128 + number and signal.getsignal(number) == before
    assert last_checkpoint(tmp_path / "paused")["step"] == 9
    run(tmp_path / "paused", resume=True)
    run(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path / "paused")


@pytest.mark.parametrize("step", [5, 12])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_numbers_that_are_none_stop_the_run_and_spare_its_checkpoint(tmp_path: Path, step: int, what: str, clip: float | None) -> None:
    def at(now: int, error: Tensor) -> Tensor:
        if now != step:
            return error
        return error * float("nan") if what == "loss" else error + (error * 0).sqrt()       # 0, with an infinite slope

    how = replace(HOW, clip=clip)
    left = "there is no checkpoint yet" if step < 6 else "the checkpoint of step 6 is intact: go on from it with --resume"
    with pytest.raises(ValueError, match=rf"the {what} of step {step} is (nan|inf); {left}"):
        run(tmp_path / "bad", how, at)
    if step > 6:
        state = last_checkpoint(tmp_path / "bad")
        assert state["step"] == 6
        for tensors in (state["average"], state["players"]["line"]["objective"]):
            assert all(tensor.isfinite().all() for tensor in tensors.values())
    run(tmp_path / "bad", how, resume=True)
    run(tmp_path / "straight", how)
    assert_same_run(tmp_path / "straight", tmp_path / "bad")


class Other(Line):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.zeros(1))


def test_a_checkpoint_of_another_network_is_refused_and_kept(tmp_path: Path) -> None:
    run(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoints: does not fit this run"):
        train({"line": Player(Other())}, SAMPLES, HOW, tmp_path, resume=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("damage", ["truncated", "empty", "half a write"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path, damage: str) -> None:
    run(tmp_path / "straight")
    run(tmp_path / "damaged", stop=14)
    path = tmp_path / "damaged" / "checkpoints" / "14.pt"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:-500], "empty": b"", "half a write": data[: len(data) // 2] + bytes(len(data) // 2)}[damage])
    with pytest.warns(UserWarning, match=r"14.pt: is damaged \(.+\); trying the one before it"):
        run(tmp_path / "damaged", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "damaged")


def test_without_any_whole_checkpoint_nothing_is_begun_anew(tmp_path: Path) -> None:
    run(tmp_path, stop=7)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    before = files(tmp_path)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"none of its 2 checkpoints can be read; delete the folder"):
        run(tmp_path, resume=True)
    assert files(tmp_path) == before


def test_the_newest_checkpoints_stay_and_one_a_period(tmp_path: Path) -> None:
    run(tmp_path, save_every=2, keep_every=8)
    assert sorted(int(path.stem) for path in (tmp_path / "checkpoints").iterdir()) == [8, 16, 18, 20]


def test_previews_are_drawn_from_the_averaged_weights_once_a_period(tmp_path: Path) -> None:
    seen: list[int] = []

    def preview(step: int, average: Mapping[str, Tensor]) -> bytes | None:
        assert_same(dict(average), last_checkpoint(tmp_path)["average"])
        seen.append(step)
        return f"picture {step}".encode() if step < 20 else None

    run(tmp_path, save_every=4, keep_every=8, preview=preview)
    assert seen == [8, 16, 20]
    assert files(tmp_path / "previews") == {"8.png": b"picture 8", "16.png": b"picture 16"}


def test_the_log_has_a_line_for_every_so_many_steps_and_the_last(tmp_path: Path) -> None:
    reports: list[Progress] = []
    run(tmp_path, replace(HOW, steps=7), report=reports.append)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 7] == [report.step for report in reports]
    assert {report.steps for report in reports} == {7}
    assert all(float(row["half"]) == pytest.approx(float(row["loss"]) / 2, rel=1e-4) for row in rows)
    for report in reports:
        assert report.left == pytest.approx((7 - report.step) * HOW.batch / report.speed)


def test_tensorboard_has_a_curve_a_loss(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(Killed):
        run(tmp_path, at=killed_at(12))
    run(tmp_path, resume=True)
    events = loader.EventAccumulator(str(tmp_path)).Reload()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "half"):
        curve = events.Scalars(f"loss/{name}")
        assert [event.step for event in curve] == [int(row["step"]) for row in rows] == list(range(2, 21, 2))
        assert [event.value for event in curve] == pytest.approx([float(row[name]) for row in rows], rel=1e-5)


def test_a_training_stopped_early_is_the_beginning_of_the_whole(tmp_path: Path) -> None:
    whole, stopped = run(tmp_path / "whole"), run(tmp_path / "parts", stop=5)
    assert not torch.equal(whole["weight"], stopped["weight"])
    assert_same(run(tmp_path / "parts", resume=True), whole)


def test_a_step_to_stop_at_is_one_of_the_schedule(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop 0: is a step of the schedule"):
        run(tmp_path, stop=0)


def test_the_learning_rate_grows_then_decays_to_its_floor() -> None:
    how = Optimisation(steps=100, learning_rate=1.0, final_learning_rate=0.1, decay_power=1.0, warm_up=10)
    assert how.rate(0) == pytest.approx(0.1)
    assert how.rate(4) == pytest.approx(0.5 * 0.96)
    assert how.rate(50) == pytest.approx(0.5)
    assert how.rate(75) == pytest.approx(0.25)
    assert how.rate(95) == how.rate(99) == how.rate(1000) == 0.1
    constant = Optimisation(steps=100, learning_rate=2e-4, warm_up=0)
    assert {constant.rate(step) for step in range(100)} == {2e-4}
    square = Optimisation(steps=100, learning_rate=1.0, decay_power=2.0, warm_up=0)
    assert square.rate(50) == pytest.approx(0.25)


# The average


def followed(how: Optimisation, steps: int) -> tuple[float, int]:
    """The average of a weight and of a count that are 0, 1, 2, ... after each step."""
    line = Line()
    with torch.no_grad():
        line.weight.zero_()
    average = Average(line, how)
    for step in range(steps):
        with torch.no_grad():
            line.weight.fill_(float(step))
        assert line.norm.num_batches_tracked is not None
        line.norm.num_batches_tracked.fill_(step)
        average.update(step)
    return float(average.state["weight"][0]), int(average.state["norm.num_batches_tracked"])


@pytest.mark.parametrize("ema_how", ["growing", "constant"])
def test_the_average_follows_its_formula(ema_how: str) -> None:
    how, value = Optimisation(ema=0.8, ema_how=ema_how), 0.0
    for step in range(60):
        keep = min(0.8, (1 + step) / (10 + step)) if ema_how == "growing" else 0.8
        value = keep * value + (1 - keep) * step
    assert followed(how, 60) == (pytest.approx(value, rel=1e-5), 59)
    assert value == pytest.approx(59 - 0.8 / 0.2, abs=0.1)                            # a line is followed keep / (1 - keep) behind


def test_the_published_average_waits_then_follows_at_every_tenth_step() -> None:
    """The released VAEs': copies until 1011 steps are done, then 0.8686 at 1021, 0.995 from 3831 on (steps counted after increment)."""
    how = Optimisation(ema=0.995, ema_how="published")
    average = Average(Line(), how)
    done = {1: 0.0, 2: 1.0, 1011: 0.0, 1012: 1.0, 1020: 1.0, 1021: 0.8686, 1031: 1 - 31 ** (-2 / 3), 3831: 0.995, 3832: 1.0, 400_001: 0.995}
    for step, kept in done.items():
        assert average.kept(step - 1) == pytest.approx(kept, abs=1e-4), step
    assert followed(how, 1020)[0] == 1010.0
    assert followed(how, 1021)[0] == pytest.approx(1010 + (1 - 0.8686) * 10, abs=1e-3)


# Several players


class Doubler(Objective):
    """Learns to give twice what its partner gives; the partner learns to be doubled to 1."""

    def __init__(self, partner: Doubler | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.2))
        self.partner = (partner,)                # used, not moved: not one of its modules
        self.needed: list[bool] = []

    def forward(self, numbers: NDArray[np.int64], generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        (partner,) = self.partner
        if partner is None:
            return (self.weight - 0.5).square(), {"seen": torch.rand((), generator=generator)}
        self.needed.append(partner.weight.requires_grad)
        return (self.weight - 2 * partner.weight).square() + 0 * torch.rand((), generator=generator), {}


def pair(starts: int = 0, how: Optimisation | None = None) -> dict[str, Player]:
    first = Doubler()
    return {"first": Player(first), "second": Player(Doubler(first), how, starts)}


def test_players_take_turns_and_move_only_their_own_weights(tmp_path: Path) -> None:
    players = pair()
    train(players, SAMPLES, replace(HOW, steps=150, betas=(0.8, 0.9), weight_decay=0.0), tmp_path)
    first, second = (player.objective for player in players.values())
    assert first.weight.item() == pytest.approx(0.5, abs=0.02) and second.weight.item() == pytest.approx(1.0, abs=0.05)
    assert isinstance(second, Doubler) and not any(second.needed)
    with (tmp_path / "metrics.csv").open() as file:
        assert next(csv.reader(file)) == ["step", "loss", "seen", "second.loss"]


def test_a_player_that_starts_later_stays_as_it_was_until_then(tmp_path: Path) -> None:
    players = pair(starts=7)
    train(players, SAMPLES, HOW, tmp_path, stop=7, log_every=2)
    assert players["second"].objective.weight.item() == pytest.approx(0.2)
    players = pair(starts=7)
    train(players, SAMPLES, HOW, tmp_path, resume=True, log_every=2)
    assert players["second"].objective.weight.item() > 0.3
    with (tmp_path / "metrics.csv").open() as file:
        rows = {int(row["step"]): row["second.loss"] for row in csv.DictReader(file)}
    assert rows[6] == "" and float(rows[8]) > 0


def test_each_player_has_its_own_optimiser(tmp_path: Path) -> None:
    still = replace(HOW, learning_rate=0.0, weight_decay=0.0)
    players = pair(how=still)
    train(players, SAMPLES, HOW, tmp_path)
    assert players["second"].objective.weight.item() == pytest.approx(0.2) and players["first"].objective.weight.item() > 0.3


def test_players_go_on_bit_for_bit(tmp_path: Path) -> None:
    train(pair(starts=4), SAMPLES, HOW, tmp_path / "straight", save_every=6)
    train(pair(starts=4), SAMPLES, HOW, tmp_path / "parts", save_every=6, stop=9)
    train(pair(starts=4), SAMPLES, HOW, tmp_path / "parts", save_every=6, resume=True)
    assert_same(last_checkpoint(tmp_path / "straight"), last_checkpoint(tmp_path / "parts"))


# Clipping and what a chunk lacks


def test_gradients_are_clipped_before_the_step(tmp_path: Path) -> None:
    """Adam's first moments after one step are (1 - beta) times the gradient, whose norm is at most the clip."""
    norms = {}
    for clip in (None, 1e-3):
        run(tmp_path / str(clip), replace(HOW, clip=clip, steps=1))
        moments = last_checkpoint(tmp_path / str(clip))["players"]["line"]["optimiser"]["state"]
        norms[clip] = float(torch.stack([state["exp_avg"].norm() for state in moments.values()]).norm()) / (1 - HOW.betas[0])
    assert norms[None] > 1 and norms[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_what_is_absent_is_left_out_of_a_loss_in_the_log() -> None:
    sums = Sums()
    sums.add({"a": torch.tensor([1.0, float("nan"), 3.0]), "b": torch.tensor(float("nan")), "c": torch.tensor(2.0)})
    sums.add({"a": torch.tensor([8.0]), "b": torch.tensor(float("nan")), "c": torch.tensor(4.0)})
    means = sums.means()
    assert means["a"] == 4 and means["c"] == 3 and np.isnan(means["b"])
