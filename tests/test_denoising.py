"""What the backbone minimises: what a sample lacks costs nothing, what is given is clean, and weights are what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_backbone, tiny_codec
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from copgen import diffusion
from copgen.backbone import BackboneConfig, UViT
from copgen.scene import Scene
from copgen.shards import PRESENT, Mixed, Shards, open_mixed, write_shards
from copgen.training.backbone import check_moments, train_backbone
from copgen.training.denoising import Denoising, clean_rows, drawn_latents, row_weights, rows_shown
from copgen.training.encode import check_codecs, encode
from copgen.training.loop import Optimisation
from copgen.training.recipe import BackboneTraining, CodecSizes, Geometry, Recipe
from copgen.training.sources import Scenes, Stored, having, meta_of, packed_layers

CODECS = {name: tiny_codec(TINY[name].channels) for name in TINY.images}
QUICK = Optimisation(steps=3, batch=4, learning_rate=1e-3, warm_up=1)
RECIPE = Recipe("tiny", Geometry(patch=4), BackboneConfig(32, 2, 2), CodecSizes(8, (1, 2), blocks=1, stem=4, groups=4, attention=False),
                train=BackboneTraining(QUICK))
BATCH = np.arange(4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moments(folder: Path, samples: int = 4, lacking: Mapping[int, tuple[str, ...]] | None = None, garbage: float = 0.0) -> Shards:
    """Moments of nothing in particular; `lacking` says which samples lack which rows, whose values are then `garbage`."""

    def make(numbers: range) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(7)
        arrays = {}
        for row in TINY.names:
            z, height, width = TINY.latent_shape(row)
            shape = (2 * z, height, width) if TINY[row].is_image else (z, height, width)
            arrays[row] = rng.standard_normal((samples, *shape)).astype(np.float32)
        present = np.ones((samples, len(TINY.names)), np.uint8)
        for sample, rows in (lacking or {}).items():
            for row in rows:
                arrays[row][sample], present[sample, TINY.names.index(row)] = garbage, 0
        return arrays | ({PRESENT: present} if lacking else {})

    meta = {"kind": "moments", "rows": list(TINY.names), "incomplete": bool(lacking)}
    return write_shards(folder, samples, make, per_shard=samples, meta=meta)


class Spy(UViT):
    """A backbone that remembers what it was shown."""

    def forward(self, latents: Mapping[str, Tensor], times: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.shown, self.times = dict(latents), dict(times)
        return super().forward(latents, times)


def played(objective: Denoising, numbers: np.ndarray, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of these samples, and its parts."""
    loss, parts = objective(objective.reader(numbers, generator), generator, 0)
    return loss, parts


def spy() -> Spy:
    network = Spy(TINY, BackboneConfig(32, 2, 2))
    network.load_state_dict(tiny_backbone().state_dict())
    return network


def test_with_all_else_off_the_loss_is_the_papers(tmp_path: Path) -> None:
    """Independent times from 1, squared errors of the noise, a mean a row, summed over rows: drawn here in the same order."""
    network, shards, generator = tiny_backbone(), moments(tmp_path), seeded()
    loss, parts = played(Denoising(network, BackboneTraining(), shards, CODECS), BATCH, seeded())
    rows = rows_shown(TINY, 0.0, generator)
    x0 = drawn_latents(shards, TINY, {row: codec.scaling_factor for row, codec in CODECS.items()}, BATCH, generator, rows)
    n = diffusion.draw_times(rows, len(BATCH), generator)
    clean_rows(TINY, rows, len(BATCH), 0.0, generator)
    eps = {row: torch.randn(z.shape, generator=generator) for row, z in x0.items()}
    predicted = network(diffusion.noised(x0, eps, n), {row: steps.float() for row, steps in n.items()})
    expected, by_row = diffusion.loss(predicted, eps)
    assert float(loss.detach()) == pytest.approx(float(expected.mean().detach()), rel=1e-6)
    assert all(torch.equal(parts[row], by_row[row].detach()) for row in TINY.names) and int(min(map(torch.min, n.values()))) >= 1


def test_every_part_of_a_mixture_is_checked(tmp_path: Path) -> None:
    """Parts encoded by different codecs share no latents, whatever is said of the first."""
    for name in ("a", "b"):
        meta = {"kind": "moments", "rows": list(TINY.names), "codecs": {"dem": name}}
        write_shards(tmp_path / name, 1, lambda numbers: {"dem": np.zeros((1, 4), np.float32)}, per_shard=1, meta=meta)
    with pytest.raises(ValueError, match="is not the codec that made the moments in"):
        check_codecs(open_mixed([f"{tmp_path}/a", f"{tmp_path}/b"]), tmp_path)
    small = write_shards(tmp_path / "c", 1, lambda numbers: {row: np.zeros((1, 2), np.float32) for row in TINY.names}, per_shard=1, meta={
        "kind": "moments"})
    with pytest.raises(ValueError, match=rf"{small.folder}: place has moments \[2\]"):
        check_moments(Mixed([moments(tmp_path / "whole"), small], [1, 1]), TINY)


def test_what_a_sample_lacks_is_noise_at_the_last_step_and_costs_nothing(tmp_path: Path) -> None:
    lacking = {0: ("s1rtc",), 2: ("date", "s1rtc")}
    found = []
    for garbage in (0.0, 1e6):
        objective = Denoising(spy(), RECIPE.train, moments(tmp_path / str(garbage), lacking=lacking, garbage=garbage), CODECS)
        loss, parts = played(objective, BATCH, seeded())
        loss.backward()
        network = objective.network
        assert isinstance(network, Spy)
        found.append((float(loss.detach()), [p.grad.clone() for p in network.parameters() if p.grad is not None], parts))
        assert (network.times["s1rtc"][[0, 2]] == 1000).all() and float(network.times["date"][2]) == 1000
        assert network.shown["s1rtc"][[0, 2]].abs().max() < 6                        # noise, whatever lay there
    (one, gradients, parts), (other, others, _) = found
    assert one == other and all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert parts["s1rtc"].isnan().tolist() == [True, False, True, False] and parts["date"].isnan().sum() == 1
    whole, _ = played(Denoising(spy(), RECIPE.train, moments(tmp_path / "whole"), CODECS), BATCH, seeded())
    assert one < float(whole.detach())


def test_without_any_row_of_a_kind_its_head_has_no_gradient(tmp_path: Path) -> None:
    objective = Denoising(spy(), RECIPE.train, moments(tmp_path, lacking=dict.fromkeys(range(4), ("lulc",))), CODECS)
    loss, parts = played(objective, BATCH, seeded())
    loss.backward()
    assert parts["lulc"].isnan().all()
    assert float(objective.network.head["lulc"].weight.grad.abs().max()) == 0 < float(objective.network.head["dem"].weight.grad.abs().max())


@given(st.integers(0, 500))
def test_a_chunk_shows_whole_modalities_and_at_least_one_image(seed: int) -> None:
    rows = rows_shown(TINY, 1.0, seeded(seed))
    products = {TINY[row].product for row in rows}
    assert rows == TINY.select(products) and any(TINY[row].is_image for row in rows)
    assert rows_shown(TINY, 0.0, seeded(seed)) == TINY.names


def test_modalities_are_left_out_of_the_sequence_as_often_as_asked_and_all_alike() -> None:
    drawn = [rows_shown(TINY, 0.5, seeded(seed)) for seed in range(2000)]
    assert 0.5 <= np.mean([rows == TINY.names for rows in drawn]) < 0.65             # some random sets are whole
    shares = [np.mean([TINY.select(product)[0] in rows for rows in drawn]) for product in TINY.products]
    assert max(shares) - min(shares) < 0.06


def test_rows_left_out_are_not_computed(tmp_path: Path) -> None:
    network = spy()
    objective = Denoising(network, replace(RECIPE.train, modality_dropout=1.0), moments(tmp_path), CODECS)
    generator = seeded(3)
    rows = rows_shown(TINY, 1.0, seeded(3))
    _, parts = played(objective, BATCH, generator)
    assert tuple(network.shown) == rows != TINY.names
    assert set(parts) == set(TINY.names) and {row for row in TINY.names if not parts[row].isnan().all()} == set(rows)


def test_noised_rows_share_a_time_as_in_sampling_and_given_ones_are_clean(tmp_path: Path) -> None:
    network = spy()
    shards = moments(tmp_path)
    played(Denoising(network, replace(RECIPE.train, shared_times=1.0, clean_conditions=1.0), shards, CODECS), BATCH, seeded(1))
    times = torch.stack(list(network.times.values()), 1)
    clean = times == 0
    assert clean.any() and not clean.all(dim=1).any()
    for sample in times:
        assert len(set(sample[sample > 0].tolist())) == 1
    played(Denoising(network, RECIPE.train, shards, CODECS), BATCH, seeded(1))
    independent = torch.stack(list(network.times.values()), 1)
    assert (independent > 0).all() and all(len(set(sample.tolist())) > 6 for sample in independent)


@given(st.integers(0, 1000))
def test_modalities_given_clean_are_any_but_never_all(seed: int) -> None:
    clean = clean_rows(TINY, TINY.names, 64, 1.0, seeded(seed))
    assert torch.equal(clean["s2l2a_10m"], clean["s2l2a_60m"])
    table = torch.stack(list(clean.values()), 1)
    assert table.any() and not table.all(dim=1).any()
    assert not torch.stack(list(clean_rows(TINY, TINY.names, 64, 0.0, seeded(seed)).values())).any()


def test_a_chance_of_clean_rows_is_kept() -> None:
    clean = torch.stack(list(clean_rows(TINY, TINY.names, 4000, 0.5, seeded()).values()), 1)
    assert 0.35 < clean.any(dim=1).float().mean() < 0.5
    per_row = clean.float().mean(0)
    assert (per_row - per_row.mean()).abs().max() < 0.05                             # no row is preferred


def test_weights_of_rows_are_what_they_are_called() -> None:
    assert set(row_weights(TINY, "uniform").values()) == {1.0}
    per_token = row_weights(TINY, "per_token")
    assert per_token["s2l2a_10m"] / per_token["date"] == pytest.approx(TINY.tokens("s2l2a_10m") / TINY.tokens("date"))
    assert sum(per_token.values()) == pytest.approx(len(TINY.names))
    named = row_weights(TINY, {"S2L2A": 2.0, "date": 3.0})
    assert [named[row] for row in ("s2l2a_10m", "s2l2a_60m", "date", "dem")] == [2.0, 2.0, 3.0, 1.0]


def test_weighted_losses_are_the_parts_times_their_weights(tmp_path: Path) -> None:
    shards = moments(tmp_path)
    for weights in ("uniform", "per_token", {"S1RTC": 0.0, "place": 5.0}):
        loss, parts = played(Denoising(tiny_backbone(), replace(RECIPE.train, weights=weights), shards, CODECS), BATCH, seeded())
        expected = sum(weight * float(parts[row].mean()) for row, weight in row_weights(TINY, weights).items())
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_learned_weights_start_uniform_and_come_to_rest_at_the_errors_logarithm(tmp_path: Path) -> None:
    objective = Denoising(tiny_backbone(), replace(RECIPE.train, weights="learned"), moments(tmp_path, lacking={0: ("s1rtc",)}), CODECS)
    loss, parts = played(objective, BATCH, seeded())
    assert float(loss.detach()) == pytest.approx(sum(float(part.nan_to_num().mean()) for part in parts.values()), rel=1e-5)
    with torch.no_grad():
        for row, spread in objective.spread.items():
            spread.copy_(parts[row].nanmean().log())
    rest, _ = played(objective, BATCH, seeded())
    rest.backward()
    assert all(abs(float(spread.grad)) < 1e-5 for spread in objective.spread.values())
    assert not any("spread" in name for name in objective.network.state_dict())      # a model does not carry them


@pytest.mark.parametrize("text, rule", [('modality_dropout = 1.5', "is a chance, from 0 to 1"), ('weights = {S2L9 = 1.0}', "S2L9"),
                                        ('weights = {S2L2A = -1.0}', "none may be negative"), ('weights = "much"', "weights")])
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, text: str, rule: str) -> None:
    from copgen.training.recipe import read_recipe

    (tmp_path / "r.toml").write_text(f'name = "x"\n[train]\n{text}\n')
    with pytest.raises(ValueError, match=rule):
        read_recipe(tmp_path / "r.toml")


def test_a_training_runs_on_everything_at_once(tmp_path: Path) -> None:
    """Whole worlds and real squares that lack most, dropout, clean rows, learned weights: finite, and the same twice."""
    moments(tmp_path / "whole")
    moments(tmp_path / "lacking", samples=2, lacking={0: ("s1rtc", "date"), 1: tuple(row for row in TINY.names if row != "s2l1c_10m")})
    mixed = open_mixed([f"{tmp_path}/whole", f"{tmp_path}/lacking:3"])
    assert isinstance(mixed, Mixed) and len(mixed) == 10
    recipe = replace(RECIPE, train=BackboneTraining(QUICK, modality_dropout=0.5, clean_conditions=0.5, shared_times=0.5, weights="learned"))
    runs = [train_backbone(recipe, mixed, CODECS, tmp_path / name).state_dict() for name in ("one", "two")]
    with Image.open(tmp_path / "one" / "previews" / "3.png") as preview:
        assert preview.width > 10 * 192 and len(preview.convert("RGB").getcolors(10**6) or ()) > 100
    assert all(torch.equal(runs[0][name], runs[1][name]) and runs[0][name].isfinite().all() for name in runs[0])


def test_mixed_shards_are_their_parts_one_after_the_other_as_often_as_asked(tmp_path: Path) -> None:
    whole, lacking = moments(tmp_path / "a"), moments(tmp_path / "b", samples=2, lacking={1: ("dem",)})
    mixed = Mixed([whole, lacking], [1, 2])
    for number, part, k in ((3, whole, 3), (4, lacking, 0), (5, lacking, 1), (7, lacking, 1)):
        read = mixed.read(("dem",), np.array([number]))["dem"]
        np.testing.assert_array_equal(read, part.read(("dem",), np.array([k]))["dem"])
    assert mixed.present(("dem", "lulc"), np.arange(8)).tolist() == [[True, True]] * 5 + [[False, True], [True, True], [False, True]]


def test_real_scenes_go_to_moments_with_what_they_lack(scene: Scene, tmp_path: Path) -> None:
    source = Scenes("two", [scene.only("place,S2L2A"), scene.only("S1RTC,date")], scene.table)
    write_shards(tmp_path / "layers", 2, lambda numbers: packed_layers(source, scene.table, numbers), per_shard=2,
                 meta=meta_of(source, scene.table))
    opened = open_mixed([f"{tmp_path}/layers"])
    assert isinstance(opened, Shards)
    stored = Stored(opened, scene.table)
    assert stored.incomplete and having(stored, "s1rtc").tolist() == [1] and having(stored, "s2l2a_60m").tolist() == [0]
    np.testing.assert_array_equal(stored.layers(["s1rtc"], [1])["s1rtc"][0], scene["s1rtc"])
    with pytest.raises(ValueError, match="no sample has dem"):
        having(stored, "dem")
    shards = encode(stored, CODECS, TINY, tmp_path / "moments")
    assert shards.present(TINY.names, np.arange(2)).tolist() == source.present(TINY.names, [0, 1]).tolist()
    loss, parts = played(Denoising(tiny_backbone(), RECIPE.train, shards, CODECS), np.arange(2), seeded())
    assert loss.isfinite() and parts["dem"].isnan().all() and parts["s1rtc"].isfinite().tolist() == [False, True]
