"""The backbone is keyed by name: rows come and go without a word to the others, and samples of a batch don't meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_backbone
from torch import Tensor

from copgen.backbone import BackboneConfig, UViT, ground_positions, noise_of, patches_of, time_embedding
from copgen.diffusion import SCHEDULE, schedule_to
from copgen.modalities import Modality, Table
from copgen.scaling import Linear
from copgen.store import fill

SMALL = TINY.subset(["place", "dem", "s2l1c_60m", "s2l2a_20m"])


def inputs(table: Table, batch: int = 2, seed: int = 0, rows: Iterable[str] | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    latents = {name: torch.randn(batch, *table.latent_shape(name), generator=generator) for name in table.names}
    times = {name: torch.rand(batch, generator=generator) * 1000 for name in table.names}
    keep = table.names if rows is None else tuple(rows)
    return {name: latents[name] for name in keep}, {name: times[name] for name in keep}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance)


def test_predictions_have_the_shapes_of_the_latents() -> None:
    latents, times = inputs(TINY)
    for name, prediction in tiny_backbone()(latents, times).items():
        assert prediction.shape == latents[name].shape
        assert prediction.isfinite().all() and prediction.std() > 0


def test_a_thirteenth_row_adds_only_its_own_parameters() -> None:
    ndvi = Modality("ndvi", "NDVI", ("NDVI",), Linear(10_000), 20)
    old = tiny_backbone(TINY)
    new = tiny_backbone(replace(TINY, rows=(*TINY.rows, ndvi)))
    missing, extra = new.load_state_dict(old.state_dict(), strict=False)
    assert extra == []
    assert sorted(missing) == ["embed.ndvi.bias", "embed.ndvi.weight", "head.ndvi.bias", "head.ndvi.weight", "position.ndvi"]
    before, after = old.state_dict(), new.state_dict()
    assert all(after[name].shape == before[name].shape for name in before)
    latents, times = inputs(TINY)
    assert_same(new(latents, times), old(latents, times), 0)                        # and changes nothing where it is left out


def test_a_row_removed_takes_only_its_own_parameters() -> None:
    weights = tiny_backbone(TINY).state_dict()
    rest = UViT(TINY.subset(set(TINY.names) - {"lulc"}), BackboneConfig(32, 2, 2))
    fill(rest, {name: tensor for name, tensor in weights.items() if ".lulc" not in name}, "fewer")


def test_the_order_of_names_does_not_matter() -> None:
    backbone = tiny_backbone(TINY)
    latents, times = inputs(TINY)
    turned = backbone(dict(reversed(latents.items())), dict(sorted(times.items())))
    assert_same(backbone(latents, times), turned, 0)


def test_the_order_of_the_tables_rows_does_not_matter() -> None:
    """A sequence has no order but that of its positions: another order of the same rows is the same function."""
    one = tiny_backbone(TINY)
    other = UViT(replace(TINY, rows=TINY.rows[::-1]), BackboneConfig(32, 2, 2)).eval()
    other.load_state_dict(one.state_dict())
    latents, times = inputs(TINY)
    assert_same(one(latents, times), other(latents, times))


@pytest.mark.parametrize("rows", [("dem",), ("place", "s2l2a_20m"), ("place", "dem", "s2l1c_60m")])
def test_rows_left_out_are_as_if_the_model_had_none(rows: tuple[str, ...]) -> None:
    whole = tiny_backbone(SMALL)
    part = UViT(SMALL.subset(rows), BackboneConfig(32, 2, 2)).eval()
    weights = whole.state_dict()
    part.load_state_dict({name: weights[name] for name in part.state_dict()})
    latents, times = inputs(SMALL, rows=rows)
    assert_same(whole(latents, times), part(latents, times), 0)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    backbone = tiny_backbone()
    latents, times = inputs(TINY, batch=5)
    together = backbone(latents, times)
    for k in range(5):
        alone = backbone({name: z[k : k + 1] for name, z in latents.items()}, {name: t[k : k + 1] for name, t in times.items()})
        assert_same({name: z[k : k + 1] for name, z in together.items()}, alone)


@pytest.mark.parametrize("moved", SMALL.names)
def test_every_rows_time_and_latent_matters_to_every_row(moved: str) -> None:
    backbone = tiny_backbone(SMALL)
    latents, times = inputs(SMALL)
    before = backbone(latents, times)
    for changed in (backbone(latents, {**times, moved: times[moved] + 100}), backbone({**latents, moved: -latents[moved]}, times)):
        for name in SMALL.names:
            assert (changed[name] - before[name]).abs().max() > 1e-3, name


def test_time_embedding_has_cosines_then_sines_from_1_down_to_almost_1e_4() -> None:
    embedded = time_embedding(torch.tensor([0.0, 1.0, 1000.0]), 8)
    frequency = 10.0 ** -np.arange(4)                                               # 10000^(-k/4)
    expected = [[*np.cos(t * frequency), *np.sin(t * frequency)] for t in (0, 1, 1000)]
    torch.testing.assert_close(embedded, torch.tensor(np.array(expected), dtype=torch.float32), rtol=0, atol=1e-5)
    assert embedded[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_patches_come_back_where_they_came_from() -> None:
    """One token changed by its head changes one square of p x p latents, row-major from the north-west."""
    backbone = tiny_backbone(TINY)
    side, p = 24 // 4, 4
    for token in (0, 1, side, side * side - 1):
        tokens = torch.zeros(1, side * side, 32)
        at_rest = backbone.unpatchify("lulc", tokens)
        tokens[0, token] = 1
        changed = (backbone.unpatchify("lulc", tokens) != at_rest).any(1)[0]
        south, east = divmod(token, side)
        expected = torch.zeros(24, 24, dtype=torch.bool)
        expected[south * p : (south + 1) * p, east * p : (east + 1) * p] = True
        assert torch.equal(changed, expected)


def test_ground_positions_are_alike_over_the_same_ground() -> None:
    """An image token's nearest position in another row's grid is the one over its own ground."""
    table = Table(patch=1)
    ten, sixty = ground_positions(table, "s2l2a_10m", 64), ground_positions(table, "s2l2a_60m", 64)    # 24 x 24 and 4 x 4
    nearest = torch.cdist(sixty, ten).argmin(1)
    south, east = nearest // 24, nearest % 24
    assert torch.equal(south // 6 * 4 + east // 6, torch.arange(16))


def test_recomputed_activations_give_the_same_gradients() -> None:
    backbone = tiny_backbone(SMALL).train()
    latents, times = inputs(SMALL)
    gradients = []
    for recompute in (False, True):
        backbone.activation_checkpointing = recompute
        backbone.zero_grad()
        torch.stack([z.square().sum() for z in backbone(latents, times).values()]).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == len(list(backbone.parameters()))                    # every parameter has a part in it
    assert_same(*gradients, tolerance=0)


def test_half_precision_is_close() -> None:
    latents, times = inputs(TINY)
    exact = tiny_backbone()(latents, times)
    half = tiny_backbone().bfloat16()(latents, times)
    for name, prediction in half.items():
        assert prediction.dtype == torch.bfloat16
        assert (prediction - exact[name]).std() < 0.05 * exact[name].std()


def test_a_time_is_not_rounded_to_the_weights_precision() -> None:
    """bfloat16 has no 999: the clock is computed in float32 and only then cast."""
    for name, prediction in tiny_backbone(SMALL).bfloat16()(*inputs(SMALL)).items():
        assert prediction.isfinite().all(), name
    close = time_embedding(torch.tensor([999.0, 1000.0]), 32)
    assert (close[0] - close[1]).abs().max() > 0.5


@pytest.mark.parametrize(("sizes", "message"), [
    ({"width": 30, "heads": 2}, "width 30: must be a multiple of 4 and of the 2 heads"),
    ({"width": 32, "heads": 3}, "width 32: must be a multiple"),
    ({"width": 0, "heads": 2}, "width 0"),
    ({"width": 32, "heads": 0}, "heads"),
    ({"width": 32, "heads": 2, "depth": 3}, "depth 3: must be even"),
    ({"width": 32, "heads": 2, "depth": 0}, "depth 0: must be even and at least 2"),
])
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**sizes)


def test_a_row_that_the_table_lacks_is_refused() -> None:
    latents, times = inputs(TINY)
    with pytest.raises(ValueError, match=r"the backbone has no rows \['lulc'.*it has place, dem"):
        tiny_backbone(SMALL)({name: latents[name] for name in ("dem", "lulc", "s1rtc")}, times)


@pytest.mark.parametrize("last", [0.0120, 0.025])
def test_the_noise_of_a_velocity_is_the_noise(last: float) -> None:
    schedule = schedule_to(last)
    x0, eps = torch.randn(3, 8, 4, 4, dtype=torch.float64), torch.randn(3, 8, 4, 4, dtype=torch.float64)
    times = torch.tensor([1.0, 500.5, 1000.0])
    alpha, sigma = (torch.tensor([schedule.alpha_sigma(float(t))[k] for t in times]).view(-1, 1, 1, 1) for k in (0, 1))
    found = noise_of(alpha * eps - sigma * x0, alpha * x0 + sigma * eps, times, schedule)
    assert (found - eps).abs().max() < 1e-5


def test_a_velocity_backbone_gives_noise_in_float32_whatever_its_weights() -> None:
    """With heads at 0 the velocity is 0, so the noise is sigma x_t: nearly all of x_t at the last time, none of a clean row."""
    backbone = UViT(TINY, BackboneConfig(32, 2, 2, prediction="velocity")).to(torch.bfloat16)
    with torch.no_grad():
        for head in backbone.head.values():
            head.weight.zero_()
        latents = {row: torch.randn(1, *TINY.latent_shape(row)) for row in TINY.names}
        out = backbone(latents, {row: torch.tensor([0.0 if row == "dem" else 1000.0]) for row in TINY.names})
    assert not out["dem"].any()
    assert out["lulc"].dtype == torch.float32
    assert (out["lulc"] - SCHEDULE.alpha_sigma(1000.0)[1] * latents["lulc"]).abs().max() < 1e-5


@pytest.mark.parametrize(("channels", "patch", "side"), [(16, 4, 24), (16, 4, 28), (8, 2, 12), (3, 1, 1)])
def test_patches_are_a_convolution_also_where_bf16_convolutions_are_wrong(channels, patch, side):
    torch.manual_seed(0)
    embed, latent = torch.nn.Conv2d(channels, 64, patch, patch).bfloat16(), torch.randn(2, channels, side, side).bfloat16()
    exact = embed.double()(latent.double()).flatten(2).transpose(1, 2)
    found = patches_of(embed.bfloat16(), latent)
    assert torch.allclose(patches_of(embed.double(), latent.double()), exact)
    assert float(((found - exact).square().mean() / exact.square().mean()).detach()) < 2**-16   # bf16's rounding is 2^-9 of a number
