"""The codec's loss adds up to what the paper says, its opponent plays fair, and both learn. (The published numbers: parity/.)"""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, last_checkpoint
from numpy.typing import NDArray
from PIL import Image
from test_lpips import save_pair, save_raw
from torch import Tensor
from torch.nn import functional as F

from copgen.backbone import BackboneConfig
from copgen.codec import CodecConfig, KLCodec
from copgen.scene import Scene
from copgen.shards import write_shards
from copgen.training import codec_loss
from copgen.training.adversarial import LARGEST_WEIGHT, PatchGAN, adaptive_weight, hinge
from copgen.training.codec_loss import CodecObjective, DiscriminatorObjective, cross_entropy, planes
from copgen.training.launch import has_compiler
from copgen.training.loop import Optimisation
from copgen.training.lpips import load_perceptual
from copgen.training.recipe import CodecSizes, CodecTraining, Geometry, Recipe, read_recipe
from copgen.training.sources import Scenes, Worlds, meta_of, packed_layers
from copgen.training.vae import cropped, magnified, train_vae, turned

RECIPES = Path(__file__).parent.parent / "recipes"
START = 50_001                                   # the published step at which the discriminator joins


def wave(shape: tuple[int, ...], frequency: float, phase: float = 0.0) -> Tensor:
    return torch.sin(frequency * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape)


@pytest.fixture
def given() -> dict:
    """What a loss is of: a last layer, what it makes, the truth, the moments and a discriminator."""
    torch.manual_seed(0)
    last = (0.05 * wave((4, 8, 3, 3), 1.7, 0.37)).requires_grad_()
    return {"x": wave((2, 4, 32, 32), 0.013), "y": F.conv2d(wave((2, 8, 32, 32), 0.021), last, padding=1),
            "moments": wave((2, 16, 4, 4), 0.11), "last": last, "discriminator": PatchGAN(4).double()}


def test_the_discriminator_counts_from_its_step_on(given: dict) -> None:
    how, generator = CodecTraining(adversarial_from=START), torch.Generator()
    before, quiet = codec_loss.codec_loss(**given, how=how, step=START - 1, generator=generator)
    after, parts = codec_loss.codec_loss(**given, how=how, step=START, generator=generator)
    assert quiet["adversarial"] == quiet["adversarial_weight"] == 0 and parts["adversarial_weight"] > 0
    assert float((after - before).detach()) == pytest.approx(float((parts["adversarial_weight"] * parts["adversarial"]).detach()))


def test_lpips_counts_once_an_element_and_its_features_are_dropped_only_on_demand(given: dict, tmp_path: Path) -> None:
    """And only from the published training's first checkpoint on."""
    perceptual = load_perceptual(save_raw(tmp_path)).double()
    given["discriminator"] = None
    plain = CodecTraining(perceptual="here", perceptual_weight=0.5)
    dropping = replace(plain, published=("lpips_dropout",))

    def loss(how: CodecTraining, step: int, judged: bool = True) -> tuple[float, dict[str, Tensor]]:
        total, parts = codec_loss.codec_loss(**given, how=how, step=step, generator=torch.Generator().manual_seed(0),
                                             perceptual=perceptual if judged else None)
        return float(total.detach()), parts

    without, _ = loss(plain, 0, judged=False)
    with_it, parts = loss(plain, 0)
    assert with_it - without == pytest.approx(0.5 * 4 * 32 * 32 * float(parts["perceptual"].detach()), rel=1e-6) and with_it > without
    assert loss(dropping, 9_999)[0] == with_it == loss(plain, 10_000)[0]
    assert loss(dropping, 10_000)[0] not in (with_it, without)


def test_halved_losses_are_half_and_only_on_demand(given: dict) -> None:
    how, generator = CodecTraining(adversarial_from=0), torch.Generator()
    whole, half = (codec_loss.codec_loss(**given, how=one, step=0, generator=generator)[0].detach()
                   for one in (how, replace(how, published=("halved_losses",))))
    assert half == whole / 2


def test_the_adversarial_term_pulls_at_the_last_weights_as_hard_as_the_reconstruction() -> None:
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    one, other = 3 * last.sum(), 50 * last[0]
    assert float(adaptive_weight(one, other, last)) == pytest.approx(3 * 2**0.5 / 50, rel=1e-4)
    assert float(adaptive_weight(one * 1e9, other, last)) == LARGEST_WEIGHT
    assert float(adaptive_weight(one, 0 * other, last)) == LARGEST_WEIGHT               # a judge that says nothing divides by 1e-4


def test_the_discriminator_has_the_published_tensors() -> None:
    judge = PatchGAN(4)
    assert sum(p.numel() for p in judge.parameters()) == 2_766_657
    norms = {f"main.{k}.{name}" for k in (3, 6, 9) for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert set(judge.state_dict()) == norms | {f"main.{k}.weight" for k in (0, 2, 5, 8, 11)} | {"main.0.bias", "main.11.bias"}
    sides = {side: judge(torch.zeros(1, 4, side, side)).shape[-2:] for side in (192, 96, 64, 32, 24)}
    assert sides == {192: (22, 22), 96: (10, 10), 64: (6, 6), 32: (2, 2), 24: (1, 1)}


def test_the_hinge_is_content_with_logits_beyond_one() -> None:
    assert hinge(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -7.0])) == 0
    assert hinge(torch.tensor([0.0]), torch.tensor([0.5])) == (1 + 1.5) / 2


# Classes


def class_planes(classes: NDArray[np.int64] | Tensor, count: int) -> Tensor:
    return 2 * F.one_hot(torch.as_tensor(classes), count).movedim(-1, 1).float() - 1


def test_cross_entropy_is_minus_the_log_of_the_true_classes_share() -> None:
    x = class_planes(torch.tensor([[[0, 2], [1, 1]]]), 3)
    assert cross_entropy(x, torch.zeros_like(x)) == pytest.approx(4 * math.log(3), rel=1e-6)
    certain = math.log(1 + 2 * math.exp(-2 * codec_loss.SHARPNESS))
    assert cross_entropy(x, x) == pytest.approx(4 * certain, rel=1e-4)                  # planes of -1 and 1 are all but certain
    assert cross_entropy(x, 3 * x) < cross_entropy(x, x) < cross_entropy(x, -x)


def test_logits_stand_for_planes_between_minus_one_and_one_with_the_same_largest() -> None:
    y = torch.randn(2, 10, 5, 5, generator=torch.Generator().manual_seed(0))
    shown = planes(y)
    assert shown.min() >= -1 and shown.max() <= 1
    assert torch.equal(shown.argmax(1), y.argmax(1))
    torch.testing.assert_close(shown.sum(1), torch.full((2, 5, 5), 2.0 - 10))           # as one-hot planes do
    assert (planes(class_planes(y.argmax(1), 10)) - class_planes(y.argmax(1), 10)).abs().max() < 0.01


# What the codec is shown


def test_mirrored_crops_are_as_they_are_or_mirrored() -> None:
    square = torch.arange(18.0).reshape(1, 2, 3, 3)
    seen = turned(square.expand(50, -1, -1, -1), torch.Generator().manual_seed(0), mirrored_only=True)
    ways = {tuple(turn.flatten().tolist()) for turn in seen}
    assert ways == {tuple(way.flatten().tolist()) for way in (square, square.flip(-1))}


def test_magnified_classes_are_soft_at_edges_and_still_add_up() -> None:
    x = class_planes(torch.from_numpy(np.kron([[0, 1], [2, 3]], np.ones((16, 16), int)))[None], 4)
    big = magnified(x.expand(12, -1, -1, -1), torch.Generator().manual_seed(0))
    assert big.shape == (12, 4, 32, 32) and big.min() >= -1 and big.max() <= 1
    torch.testing.assert_close(big.sum(1), torch.full((12, 32, 32), 2.0 - 4), atol=1e-4, rtol=0)
    assert ((big == 1).sum(1) == 1).float().mean() > 0.8                                # 1068 / 32 times larger: edges are rare
    assert not torch.equal(big[0], big[1])


def test_a_crop_is_a_window_of_its_own_sample() -> None:
    x = torch.arange(4 * 100.0).reshape(4, 1, 10, 10)
    for k, window in enumerate(cropped(x, 4, torch.Generator().manual_seed(1))):
        top, left = divmod(int(window[0, 0, 0]) - 100 * k, 10)
        assert torch.equal(window, x[k, :, top : top + 4, left : left + 4])
    assert cropped(x, None, torch.Generator()) is x and cropped(x, 10, torch.Generator()) is x


# Training


QUICK = Optimisation(steps=30, batch=4, learning_rate=3e-3, warm_up=3, weight_decay=0.0, betas=(0.9, 0.98), ema=0.9)
RECIPE = Recipe("tiny", Geometry(patch=4), BackboneConfig(32, 2, 2), CodecSizes(8, (1, 2), blocks=1, stem=4, groups=4, attention=False),
                train_vae=CodecTraining(QUICK, kl_weight=1e-4))


def made(row: str, random: np.random.Generator) -> NDArray:
    """A layer of smooth waves, plausible in its unit."""
    shape, legend = TINY.layer_shape(row), TINY[row].legend
    across, down = np.meshgrid(*[np.linspace(0, 6, shape[-1])] * 2)
    smooth = 0.5 + 0.5 * np.stack([np.sin(across * random.uniform(0.5, 1.5) + down * random.uniform(-1, 1)) for _ in range(shape[0])])
    if legend:
        return np.asarray(legend.codes)[(smooth * (legend.classes - 1)).astype(int)]
    return 10 + 500 * smooth if row == "dem" else 200 + 4000 * smooth


TINY_RECIPE = """
name = "tiny"
table.patch = 4
codec = {width = 8, multipliers = [1, 2], blocks = 1, stem = 4, groups = 4, attention = false}
[train_vae]
adversarial_from = 2
kl_weight = 1e-4
how = {steps = 5, batch = 4, micro_batch = 2, learning_rate = 1e-3, warm_up = 0, precision = "fp64", clip = 1.0}
"""
SCENES = [Scene({row: made(row, np.random.default_rng([seed, k])) for k, row in enumerate(("dem", "lulc", "s2l2a_60m"))}, table=TINY)
          for seed in range(6)]
SOURCE = Scenes("made", SCENES, TINY)


def recipe(**settings: object) -> Recipe:
    return replace(RECIPE, train_vae=replace(RECIPE.train_vae, **settings))


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_with_all_its_terms_a_codec_learns_and_shows_what_it_makes(tmp_path: Path) -> None:
    save_pair(tmp_path)
    how = replace(QUICK, steps=24, precision="bf16", clip=1.0)
    run = tmp_path / "run"
    train_vae("s2l2a_60m", recipe(how=how, perceptual=str(tmp_path), perceptual_weight=0.01, adversarial_from=20), SOURCE, run)
    last = metrics(run)[-1]
    assert {"loss", "reconstruction", "kl", "perceptual", "adversarial", "adversarial_weight", "discriminator.loss",
            "discriminator.logits_real", "discriminator.logits_made"} <= set(last)
    assert all(math.isfinite(float(value)) for value in last.values())
    assert float(last["adversarial_weight"]) > 0 and float(last["discriminator.loss"]) > 0
    assert float(metrics(run)[0]["reconstruction"]) > float(last["reconstruction"])
    with Image.open(run / "previews" / "24.png") as picture:
        assert picture.size[0] > 6 * 192


def test_turns_with_a_discriminator_go_on_bit_for_bit(tmp_path: Path) -> None:
    plan = recipe(how=replace(QUICK, steps=6), adversarial_from=2)
    one, again = (train_vae("s2l2a_60m", plan, SOURCE, tmp_path / name) for name in ("one", "again"))
    train_vae("s2l2a_60m", recipe(how=replace(QUICK, steps=4), adversarial_from=2), SOURCE, tmp_path / "short")
    resumed = train_vae("s2l2a_60m", plan, SOURCE, tmp_path / "short", resume=True)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]) and torch.equal(tensor, resumed.state_dict()[name]), name
    without = train_vae("s2l2a_60m", recipe(how=replace(QUICK, steps=6)), SOURCE, tmp_path / "without")
    assert not all(torch.equal(tensor, one.state_dict()[name]) for name, tensor in without.state_dict().items())


def test_each_turn_moves_its_own_weights_and_sees_the_same_crops() -> None:
    codec, judge, seen = KLCodec(CodecConfig(2, width=8, multipliers=(1, 2), blocks=1, stem=4, groups=4)), PatchGAN(2), []
    how = CodecTraining(adversarial_from=0)

    def pixels(numbers: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        seen.append(torch.rand(len(numbers), 2, 32, 32, generator=generator))
        return seen[-1]

    codecs_turn, judges_turn = CodecObjective(codec, pixels, how, discriminator=judge), DiscriminatorObjective(judge, codec, pixels, how)
    assert {id(p) for p in codecs_turn.parameters()} == {id(p) for p in codec.parameters()}
    assert {id(p) for p in judges_turn.parameters()} == {id(p) for p in judge.parameters()}
    for turn in (codecs_turn, judges_turn):
        generator = torch.Generator().manual_seed(5)
        turn(turn.reader(np.arange(3), generator), generator, 0)[0].backward()
        assert all(p.grad is not None for p in turn.parameters())
        codec.zero_grad()
        judge.zero_grad()
    assert torch.equal(*seen)
    generator = torch.Generator().manual_seed(5)
    judges_turn(judges_turn.reader(np.arange(3), generator), generator, 0)[0].backward()
    assert all(p.grad is None for p in codec.parameters())


def test_the_papers_recipe_is_the_papers() -> None:
    whole = read_recipe(RECIPES / "paper-vae.toml")
    plan, how = whole.train_vae, whole.train_vae.how
    assert (how.steps, how.batch, how.betas, how.weight_decay, how.clip, how.ema) == (500_000, 16, (0.9, 0.999), 0.01, 1.0, 0.995)
    assert (plan.kl_weight, plan.perceptual_weight, plan.adversarial_weight, plan.adversarial_from) == (1e-6, 1.0, 0.5, START)
    assert plan.published == () and plan.reconstruction == "regression" and plan.perceptual != "off"
    assert how.rate(0) == 5e-6 and how.rate(250_000) == pytest.approx(5e-6 * 0.5**0.95)
    assert how.rate(408_120) > 1e-6 == how.rate(408_122) == how.rate(499_999)            # the floor's published step, 0.2 of the start
    for name in whole.modalities.images:
        assert whole.codec_config(name) == CodecConfig(whole.modalities[name].channels)


def test_classes_are_learnt_by_either_reconstruction(tmp_path: Path) -> None:
    for kind in ("regression", "cross_entropy"):
        train_vae("lulc", recipe(how=replace(QUICK, steps=25), reconstruction=kind, crop=32), SOURCE, tmp_path / kind)
        rows = metrics(tmp_path / kind)
        assert float(rows[-1]["reconstruction"]) < 0.8 * 1.0
    continuous = [train_vae("dem", recipe(how=replace(QUICK, steps=2), reconstruction=kind), SOURCE, tmp_path / f"dem {kind}").state_dict()
                  for kind in ("regression", "cross_entropy")]
    assert all(torch.equal(tensor, continuous[1][name]) for name, tensor in continuous[0].items())      # not a class row: regressed


def test_what_could_only_fail_later_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"s2l2a_60m: crops of 16 pixels have no patch .* 24 have"):
        train_vae("s2l2a_60m", recipe(crop=16, adversarial_from=9), SOURCE, tmp_path / "run")
    with pytest.raises(ValueError, match=r"no such file or folder; .*model-50\.pt of any VAE"):
        train_vae("dem", recipe(perceptual=str(tmp_path / "nowhere")), SOURCE, tmp_path / "run")
    with pytest.raises(ValueError, match=r"lpips_dropout with perceptual = off"):
        recipe(published=("lpips_dropout",))
    assert not (tmp_path / "run").exists()


def test_samples_that_lack_the_row_are_not_trained_on(tmp_path: Path) -> None:
    some = Scenes("made", [SCENES[0].only("dem"), SCENES[1], SCENES[2].only("dem"), SCENES[3]], TINY)
    have = Scenes("made", [SCENES[1], SCENES[3]], TINY)
    plan = recipe(how=replace(QUICK, steps=3, batch=2))
    one, other = (train_vae("s2l2a_60m", plan, source, tmp_path / name) for name, source in (("some", some), ("have", have)))
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert one.scaling_factor == other.scaling_factor
    with pytest.raises(ValueError, match="made: no sample has lulc"):
        train_vae("lulc", plan, Scenes("made", [SCENES[0].only("dem")], TINY), tmp_path / "none")


def test_two_processes_give_one_processs_codec_with_a_discriminator_too(tmp_path: Path) -> None:
    """Chunks are judged by themselves, whoever holds them: in float64 the weights agree to rounding."""
    write_shards(tmp_path / "layers", 6, lambda numbers: packed_layers(SOURCE, TINY, numbers), per_shard=6, meta=meta_of(SOURCE, TINY))
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE)
    for devices in (1, 2):
        done = subprocess.run([sys.executable, "-m", "copgen.cli", "train-vae", "s2l2a_60m", "--recipe", "tiny.toml", "--data", "layers",
                               "--out", str(devices), "--devices", str(devices), "--accelerator", "cpu"],
                              cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
    states = [last_checkpoint(tmp_path / name)["players"] for name in ("1", "2")]
    for player in ("codec", "discriminator"):
        one, two = (state[player]["objective"] for state in states)
        trained = [name for name in one if "running" not in name and "tracked" not in name]       # statistics that no training uses
        furthest = max(float((one[name] - two[name]).abs().max()) for name in trained)
        print(f"one process against two, {player}, float64: {furthest:.1e}")
        assert len(trained) > 10 and furthest < 1e-9
    assert metrics(tmp_path / "1")[-1].keys() == metrics(tmp_path / "2")[-1].keys()


@pytest.mark.long
@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler")
def test_a_compiled_codec_is_balanced_against_its_discriminator(tmp_path: Path) -> None:
    train_vae("s2l2a_60m", recipe(how=replace(QUICK, steps=3, compile=True), adversarial_from=1), SOURCE, tmp_path)
    assert float(metrics(tmp_path)[-1]["adversarial_weight"]) > 0


def test_a_kept_encoder_gives_the_latents_it_gave(tmp_path: Path) -> None:
    quick = CodecTraining(Optimisation(steps=3, batch=2, learning_rate=1e-2, warm_up=1))
    plan = Recipe("tiny", Geometry(patch=4), codec=CodecSizes(8, (1, 2), blocks=1, stem=4, groups=4, attention=False), train_vae=quick)
    worlds = Worlds(0, 4, TINY)
    first = train_vae("dem", plan, worlds, tmp_path / "first")
    kept = replace(plan, train_vae=replace(quick, encoder="kept"))
    with pytest.raises(ValueError, match="needs a codec to keep it from"):
        train_vae("dem", kept, worlds, tmp_path / "none")
    first.scaling_factor = 3.0
    second = train_vae("dem", kept, worlds, tmp_path / "second", init=first)
    pixels = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(first.moments(pixels), second.moments(pixels)) and first.scaling_factor == second.scaling_factor
        assert not torch.equal(first.decode(torch.ones(1, 8, 8, 8)), second.decode(torch.ones(1, 8, 8, 8)))
    with pytest.raises(ValueError, match="a recipe of the same sizes"):
        train_vae("lulc", kept, worlds, tmp_path / "other", init=first)


def test_what_a_codec_is_trained_to_decode_does_not_depend_on_its_scaling_factor() -> None:
    """The decoder divides by it, so a codec that goes on from another one sees latents as they will be used."""
    torch.manual_seed(0)
    codec = KLCodec(CodecConfig(1, width=8, multipliers=(1, 2), blocks=1, stem=4, groups=4, attention=False)).eval()
    x, made = torch.randn(2, 1, 32, 32), []
    for factor in (1.0, 3.0):
        codec.scaling_factor = factor
        with torch.no_grad():
            made.append(codec_loss.seen_through(codec, x, torch.Generator().manual_seed(1))[1])
    torch.testing.assert_close(made[0], made[1])
