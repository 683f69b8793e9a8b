"""What is trained learns, and goes on bit for bit where it was killed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_run, filled, tiny_codec
from numpy.typing import NDArray
from torch import Tensor

from copgen import diffusion
from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.modalities import Table
from copgen.shards import Shards, write_shards
from copgen.store import load_codec
from copgen.training.backbone import train_backbone
from copgen.training.codec_loss import kl
from copgen.training.denoising import channel_weights, drawn_latents
from copgen.training.encode import encode
from copgen.training.loop import Optimisation, Progress, train
from copgen.training.recipe import BackboneTraining, CodecSizes, CodecTraining, Geometry, Recipe
from copgen.training.sources import Stored, Worlds, open_source, packed_layers
from copgen.training.vae import Coded, measured_scaling_factor, train_vae, turned

# Codecs


class Killed(BaseException):
    pass


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
    pixels = Coded([RECIPE.modalities[row]], stored).pixels(np.arange(WORLDS))

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

    def killed(progress: Progress) -> None:
        if progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train_backbone(short, moments, CODECS, tmp_path / "killed", report=killed)
    train_backbone(short, moments, CODECS, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_a_backbones_training_does_not_go_on_with_other_samples(moments: Shards, tmp_path: Path) -> None:
    """Their order would be another; but a record from before it said how many there are is taken at its word."""
    short = replace(RECIPE, train=BackboneTraining(replace(QUICK, steps=2)))
    train_backbone(short, moments, CODECS, tmp_path, stop=1)
    with pytest.raises(ValueError, match=rf"was started with data.samples = {WORLDS}, not {moments.counts[0]}; resume it with the recipe"):
        train_backbone(short, replace(moments, counts=moments.counts[:1]), CODECS, tmp_path, resume=True)
    record = json.loads((tmp_path / "recipe.json").read_text())
    del record["data"]["samples"], record["data"]["shards"], record["backbone"]["last_beta"]
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    train_backbone(short, moments, CODECS, tmp_path, resume=True)


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
    monkeypatch.setattr("copgen.training.denoising.draw_times", lambda rows, batch, generator: {
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
