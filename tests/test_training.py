"""A run that was killed and went on is the run that never stopped; and what is trained learns."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, filled, tiny_codec
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from copgen import diffusion
from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.modalities import Table
from copgen.shards import Shards, write_shards
from copgen.store import load_codec
from copgen.training.backbone import channel_weights, clean_rows, drawn_latents, train_backbone
from copgen.training.encode import encode
from copgen.training.loop import Optimisation, batch_of, train, update_average
from copgen.training.recipe import BackboneTraining, CodecSizes, CodecTraining, Geometry, Recipe
from copgen.training.sources import Stored, Worlds, open_source, packed_layers
from copgen.training.vae import kl, measured_scaling_factor, pixel_reader, train_vae, turned

HOW = Optimisation(steps=20, batch=4, learning_rate=0.05, decay_power=1.0, warm_up=3, ema=0.9, clip=1.0, seed=3)
SAMPLES = 10


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3))
        self.norm = nn.BatchNorm1d(3)                                                # weights that are not floating point, too

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) @ self.weight


class Killed(BaseException):
    pass


def line_loss(stop_at: int | None = None, nan_at: int | None = None, wild_at: int | None = None) -> Callable:
    """Fit y = sum(x); optionally killed, without a number or without a gradient at the n-th step of this process."""
    steps = 0

    def loss(network: nn.Module, numbers: NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Killed
        x = torch.randn(len(numbers), 3, generator=generator) + torch.from_numpy(numbers)[:, None]
        error = (network(x) - x.sum(1)).square().mean()
        if steps == wild_at:
            error = error + (network(x).sum() * 0).sqrt()                            # 0, with an infinite slope
        return error * (float("nan") if steps == nan_at else 1.0), {"half": error / 2}

    return loss


def run(folder: Path, how: Optimisation = HOW, loss: Callable | None = None, **options) -> tuple[Line, dict[str, Tensor]]:
    network = Line()
    return network, train(network, loss or line_loss(), SAMPLES, how, folder, save_every=6, log_every=2, **options)


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    a, b = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other))
    assert a["step"] == b["step"]
    for part in ("network", "average"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part]), part
    for key, state in a["optimiser"]["state"].items():
        assert all(torch.equal(value, b["optimiser"]["state"][key][name]) for name, value in state.items())


@pytest.mark.parametrize("stop_at", [1, 7, 12, 20])
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path, stop_at: int) -> None:
    network, average = run(tmp_path / "straight")
    with pytest.raises(Killed):
        run(tmp_path / "killed", loss=line_loss(stop_at=stop_at))
    resumed, resumed_average = run(tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
        assert torch.equal(average[name], resumed_average[name]), name


def test_a_run_killed_again_and_again_still_ends_the_same(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    for stop_at in (9, 3, 8, 5):
        with pytest.raises(Killed):
            run(tmp_path / "killed", loss=line_loss(stop_at=stop_at), resume=True)
    run(tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_going_on_from_the_end_changes_nothing(tmp_path: Path) -> None:
    _, average = run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    _, again = run(tmp_path, resume=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert all(torch.equal(average[name], again[name]) for name in average)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"holds a run already; go on with --resume or choose another folder"):
        run(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("step", [5, 12])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_numbers_that_are_none_stop_the_run_and_spare_its_checkpoint(tmp_path: Path, step: int, what: str, clip: float | None) -> None:
    how, bad = replace(HOW, clip=clip), line_loss(nan_at=step) if what == "loss" else line_loss(wild_at=step)
    with pytest.raises(ValueError, match=rf"the {what} of step {step} is (nan|inf); the last checkpoint is intact"):
        run(tmp_path / "bad", how, bad)
    if step > 6:
        state = torch.load(tmp_path / "bad" / "checkpoint.pt", weights_only=True)
        assert state["step"] == 6
        assert all(tensor.isfinite().all() for part in ("network", "average") for tensor in state[part].values())
    run(tmp_path / "bad", how, resume=True)
    run(tmp_path / "straight", how)
    assert_same_run(tmp_path / "straight", tmp_path / "bad")


@pytest.mark.parametrize("damage", ["truncated", "empty", "another network"])
def test_a_checkpoint_that_does_not_fit_is_refused_and_kept(tmp_path: Path, damage: str) -> None:
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    if damage == "another network":
        with pytest.raises(ValueError, match=r"checkpoint.pt: does not fit this run"):
            train(nn.Linear(3, 1), line_loss(), SAMPLES, HOW, tmp_path, resume=True)
    else:
        path.write_bytes(path.read_bytes()[: 200 if damage == "truncated" else 0])
        data = path.read_bytes()
        with pytest.raises(ValueError, match=r"checkpoint.pt: does not fit this run"):
            run(tmp_path, resume=True)
        assert path.read_bytes() == data


def test_the_log_has_a_line_for_every_so_many_steps_and_the_last(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    run(tmp_path, replace(HOW, steps=7), report=lambda step, of, losses, speed: reports.append((step, of)))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 7] == [step for step, _ in reports]
    assert {of for _, of in reports} == {7}
    assert all(float(row["half"]) == pytest.approx(float(row["loss"]) / 2, rel=1e-4) for row in rows)


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


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 3))
def test_every_epoch_sees_every_sample_once(samples: int, batch: int, seed: int) -> None:
    how = Optimisation(batch=batch, seed=seed)
    seen = np.concatenate([batch_of(samples, how, step) for step in range(-(-3 * samples // batch))])
    for epoch in range(3):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))
    np.testing.assert_array_equal(batch_of(samples, how, 2), batch_of(samples, how, 2))


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = [batch_of(50, Optimisation(batch=50, seed=seed), step).tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_average_follows_its_formula() -> None:
    network = Line()
    average = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    value = 0.0
    for step in range(60):
        with torch.no_grad():
            network.weight.fill_(float(step))
        network.norm.num_batches_tracked.fill_(step)
        update_average(average, network, 0.8, step)
        keep = min(0.8, (1 + step) / (10 + step))
        value = keep * value + (1 - keep) * step
        assert average["weight"].tolist() == pytest.approx([value] * 3, rel=1e-5)
        assert average["norm.num_batches_tracked"] == step
    assert value == pytest.approx(59 - 0.8 / 0.2, abs=0.1)                            # a line is followed keep / (1 - keep) behind


# Codecs


QUICK = Optimisation(steps=30, batch=8, learning_rate=3e-3, warm_up=3, weight_decay=0.0, betas=(0.9, 0.98), ema=0.9)
RECIPE = Recipe("tiny", Geometry(patch=4), BackboneConfig(32, 2, 2), CodecSizes(8, (1, 2), blocks=1, stem=4, groups=4, attention=False),
                train_vae=CodecTraining(QUICK, kl_weight=1e-4), train=BackboneTraining(QUICK, clean_conditions=0.5))
WORLDS = 8


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Layers of a few synthetic worlds."""
    worlds = Worlds(0, WORLDS, TINY)
    folder = tmp_path_factory.mktemp("layers")
    meta = {"kind": "layers", "source": worlds.name}
    return Stored(write_shards(folder, WORLDS, lambda numbers: packed_layers(worlds, TINY, numbers), per_shard=4, meta=meta), TINY)


@pytest.fixture(scope="module")
def moments(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return encode(stored, CODECS, TINY, tmp_path_factory.mktemp("moments"), per_shard=4)


CODECS = {name: tiny_codec(TINY[name].channels) for name in TINY.images}
FACTORS = {name: codec.scaling_factor for name, codec in CODECS.items()}


@pytest.mark.parametrize("row", ["dem", "s2l2a_60m"])
def test_a_codec_learns_and_is_left_in_its_folder(stored: Stored, row: str, tmp_path: Path) -> None:
    codec = train_vae(row, RECIPE, stored, tmp_path)
    torch.manual_seed(RECIPE.train_vae.how.seed)
    untrained = KLCodec(RECIPE.codec_config(row)).eval()
    pixels = pixel_reader(row, RECIPE, stored)(np.arange(WORLDS))

    @torch.no_grad()
    def error(one: KLCodec) -> float:
        mean, _ = one.moments(pixels).chunk(2, 1)
        return float((one.decode(mean * one.scaling_factor) - pixels).abs().mean())

    assert error(codec) < 0.5 * error(untrained)
    loaded = load_codec(tmp_path)
    assert loaded.config == codec.config == RECIPE.codec_config(row)
    assert loaded.scaling_factor == codec.scaling_factor
    assert error(loaded) == error(codec)


def test_a_codecs_training_goes_on_bit_for_bit(stored: Stored, tmp_path: Path) -> None:
    short = replace(RECIPE, train_vae=CodecTraining(replace(QUICK, steps=3)))
    one = train_vae("s2l2a_60m", short, stored, tmp_path / "one")
    again = train_vae("s2l2a_60m", short, stored, tmp_path / "again")
    resumed = train_vae("s2l2a_60m", short, stored, tmp_path / "one", resume=True)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]) and torch.equal(tensor, resumed.state_dict()[name]), name
    assert one.scaling_factor == again.scaling_factor == resumed.scaling_factor
    recipe = (tmp_path / "one" / "recipe.json").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run already"):
        train_vae("dem", RECIPE, stored, tmp_path / "one")
    assert (tmp_path / "one" / "recipe.json").read_bytes() == recipe


def test_rows_without_a_grid_have_no_codec_to_train(stored: Stored, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"date needs no codec; those that do are dem, lulc"):
        train_vae("date", RECIPE, stored, tmp_path / "date")
    assert not (tmp_path / "date").exists()


def test_a_turned_square_is_one_of_eight_and_all_come_up() -> None:
    square = torch.arange(18.0).reshape(1, 2, 3, 3)
    ways = {tuple(turn.flatten().tolist()) for turn in turned(square.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))}
    eight = [torch.rot90(part, k, (-2, -1)) for k in range(4) for part in (square, square.flip(-1))]
    assert ways == {tuple(turn.flatten().tolist()) for turn in eight}
    assert len(ways) == 8


def test_the_divergence_from_a_standard_normal_is_known() -> None:
    assert kl(torch.zeros(2, 4, 3, 3)) == 0
    mean, log_variance = torch.full((1, 1, 1, 2), 3.0), torch.full((1, 1, 1, 2), 2.0)
    assert kl(torch.cat([mean, log_variance], 1)) == pytest.approx(2 * 0.5 * (9 + np.exp(2) - 1 - 2), rel=1e-6)


def test_the_scaling_factor_brings_draws_to_unit_variance() -> None:
    """Latents of deviation 3 with a posterior of deviation 4: together 5."""
    class Known(KLCodec):
        def moments(self, pixels: Tensor) -> Tensor:
            return torch.cat([3 * pixels, torch.full_like(pixels, 2 * float(np.log(4)))], 1)

    def pixels(numbers: NDArray[np.int64]) -> Tensor:
        return torch.stack([torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(int(n))) for n in numbers])

    known = Known(RECIPE.codec_config("s1rtc"))
    factor = measured_scaling_factor(known, pixels, samples=100)
    assert factor == pytest.approx(1 / 5, rel=0.01)
    assert factor == measured_scaling_factor(known, pixels, samples=100)


# The backbone


def fixed_loss(network: UViT, moments: Shards, table: Table) -> float:
    generator = torch.Generator().manual_seed(99)
    x0 = drawn_latents(moments, table, FACTORS, np.arange(WORLDS), generator)
    n = diffusion.draw_times(x0, WORLDS, generator)
    eps = {row: torch.randn(z.shape, generator=generator) for row, z in x0.items()}
    with torch.no_grad():
        predicted = network(diffusion.noised(x0, eps, n), {row: steps.float() for row, steps in n.items()})
    return float(diffusion.loss(predicted, eps)[0].mean())


def test_the_backbone_learns(moments: Shards, tmp_path: Path) -> None:
    trained = train_backbone(RECIPE, moments, CODECS, tmp_path)
    torch.manual_seed(RECIPE.train.how.seed)
    untrained = UViT(TINY, RECIPE.backbone).eval()
    assert fixed_loss(trained, moments, TINY) < 0.9 * fixed_loss(untrained, moments, TINY)
    assert not trained.training
    with (tmp_path / "metrics.csv").open() as file:
        header = next(csv.reader(file))
    assert header == ["step", "loss", *TINY.names]


def test_the_backbones_training_goes_on_bit_for_bit(moments: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(RECIPE, train=BackboneTraining(replace(QUICK, steps=4), clean_conditions=0.5))
    monkeypatch.setattr("copgen.training.backbone.train", lambda *args, **options: train(*args, **options, save_every=2, log_every=1))
    train_backbone(short, moments, CODECS, tmp_path / "straight")

    def killed(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train_backbone(short, moments, CODECS, tmp_path / "killed", report=killed)
    train_backbone(short, moments, CODECS, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def shortcut_codec(channels: int) -> KLCodec:
    """One whose channels' parts in the pixels are of sizes 1, 1/2, ... 1/8."""
    codec = KLCodec(CodecConfig(channels, width=8, multipliers=(1, 2), blocks=1, stem=4, groups=4, attention=False, shortcut=True), 0.5)
    filled(codec, 0)
    assert codec.synthesis is not None
    with torch.no_grad():
        codec.synthesis.weight.fill_(1)
        codec.synthesis.weight /= torch.arange(1, 9).view(-1, 1, 1, 1)
    return codec


@pytest.fixture(scope="module")
def shortcuts() -> dict[str, KLCodec]:
    return {name: shortcut_codec(TINY[name].channels) for name in TINY.images}


def test_channels_are_weighted_by_what_they_show_with_a_mean_of_1(shortcuts: dict[str, KLCodec]) -> None:
    for codec in shortcuts.values():
        weights = channel_weights(codec)
        assert weights.shape == (8, 1, 1) and float(weights.mean()) == pytest.approx(1)
        assert (weights / weights[0]).flatten().tolist() == pytest.approx([1 / k for k in range(1, 9)])


def first_losses(recipe: Recipe, shards: Shards, codecs: Mapping[str, KLCodec], folder: Path) -> dict[str, float]:
    """What the first step of a training says: nothing has been learnt, and the same is drawn whatever the weighting."""
    train_backbone(replace(recipe, train=replace(recipe.train, how=replace(QUICK, steps=1))), shards, codecs, folder)
    with (folder / "metrics.csv").open() as file:
        return {key: float(value) for key, value in next(csv.DictReader(file)).items() if key != "step"}


def test_a_backbone_learns_with_natural_channels(moments: Shards, shortcuts: dict[str, KLCodec], tmp_path: Path) -> None:
    recipe = replace(RECIPE, train=BackboneTraining(QUICK, clean_conditions=0.5, channels="natural"))
    trained = train_backbone(recipe, moments, shortcuts, tmp_path / "run")
    torch.manual_seed(recipe.train.how.seed)
    assert fixed_loss(trained, moments, TINY) < 0.95 * fixed_loss(UViT(TINY, recipe.backbone).eval(), moments, TINY)
    with pytest.raises(ValueError, match="only a codec with a shortcut"):
        train_backbone(recipe, moments, CODECS, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_velocitys_error_is_the_noises_over_alpha_squared(moments: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one time for all, so that the factor is known."""
    monkeypatch.setattr("copgen.training.backbone.draw_times", lambda rows, batch, generator: {
        row: torch.full((batch,), 700) for row in rows})
    noise, velocity = (first_losses(replace(RECIPE, train=BackboneTraining(weighting=weighting)), moments, CODECS, tmp_path / weighting)
                       for weighting in ("noise", "velocity"))
    alpha, _ = diffusion.SCHEDULE.alpha_sigma(700.0)
    assert alpha < 0.5 and all(velocity[key] == pytest.approx(noise[key] / alpha**2, rel=1e-3) for key in noise)


def test_moments_of_another_table_are_refused(moments: Shards, stored: Stored, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dem has moments \[16, 8, 8\], the recipe's table \[8, 8, 8\]; encode with"):
        train_backbone(replace(RECIPE, table=Geometry(patch=4, latent_channels=4)), moments, CODECS, tmp_path / "run")
    with pytest.raises(ValueError, match=r"place has moments \[2\]"):
        train_backbone(RECIPE, stored.shards, CODECS, tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds moments, not layers"):
        open_source(str(moments.folder), TINY)
    assert not (tmp_path / "run").exists()


def test_drawn_latents_are_of_about_unit_variance_and_certain_rows_exact(moments: Shards, stored: Stored) -> None:
    first, second = (drawn_latents(moments, TINY, FACTORS, np.arange(3), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    layers = stored.layers(TINY.names, range(3))
    for row in TINY.names:
        assert first[row].shape == (3, *TINY.latent_shape(row))
        if TINY[row].is_image:
            assert not torch.equal(first[row], second[row])
        else:
            np.testing.assert_array_equal(first[row], TINY[row].scale.to_model(layers[row]))


@given(st.integers(0, 1000))
def test_rows_given_clean_are_any_but_never_all(seed: int) -> None:
    clean = torch.stack(list(clean_rows(TINY, 64, 1.0, torch.Generator().manual_seed(seed)).values()), 1)
    assert not clean.all(dim=1).any()
    assert clean.any()
    assert not torch.stack(list(clean_rows(TINY, 64, 0.0, torch.Generator().manual_seed(seed)).values())).any()


def test_a_chance_of_clean_rows_is_kept() -> None:
    clean = torch.stack(list(clean_rows(TINY, 4000, 0.5, torch.Generator().manual_seed(0)).values()), 1)
    assert 0.35 < clean.any(dim=1).float().mean() < 0.5
    per_row = clean.float().mean(0)
    assert (per_row - per_row.mean()).abs().max() < 0.05                             # no row is preferred
