"""A codec folds a stride of pixels into a latent and back; what it stores is a distribution, and drawing from it is exact."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_codec

from copgen.codec import CERTAIN, CodecConfig, Identity, KLCodec, draw
from copgen.modalities import TABLE

SIZES = [
    {"width": 8, "multipliers": (1, 1, 2, 2), "blocks": 1, "groups": 4},
    {"width": 8, "multipliers": (1, 2), "blocks": 2, "stem": 4, "groups": 4, "attention": False},
    {"width": 8, "multipliers": (1, 2, 2), "blocks": 1, "stem": 2, "groups": 2},
    {"width": 8, "multipliers": (1,), "blocks": 1, "stem": 8, "groups": 8},
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["dem", "lulc", "s2l2a_20m", "s2l2a_60m"])
def test_latents_have_the_tables_shape_however_a_stride_of_8_is_made(sizes: dict, name: str) -> None:
    config = CodecConfig(TABLE[name].channels, **sizes)
    assert config.stride == TABLE.stride
    codec = KLCodec(config).eval()
    pixels = torch.randn(1, *TABLE.pixel_shape(name))
    with torch.no_grad():
        moments = codec.moments(pixels)
        z, height, width = TABLE.latent_shape(name)
        assert moments.shape == (1, 2 * z, height, width)
        assert codec.decode(draw(moments, 1.0)).shape == pixels.shape


@torch.no_grad()
def test_a_codec_is_a_function_and_samples_of_a_batch_do_not_meet() -> None:
    codec, pixels = tiny_codec(4), torch.randn(3, 4, 96, 96, generator=torch.Generator().manual_seed(0))
    moments = codec.moments(pixels)
    assert torch.equal(moments, codec.moments(pixels))
    latents = draw(moments, codec.scaling_factor)
    decoded = codec.decode(latents)
    for k in range(3):
        torch.testing.assert_close(codec.moments(pixels[k : k + 1])[0], moments[k], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(codec.decode(latents[k : k + 1])[0], decoded[k], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_scaling_factor_is_taken_out_again_before_decoding() -> None:
    codec, pixels = tiny_codec(2), torch.randn(1, 2, 32, 32)
    moments = codec.moments(pixels)
    decoded = []
    for factor in (0.25, 1.0, 4.0):                                                 # powers of two: exact
        codec.scaling_factor = factor
        decoded.append(codec.decode(draw(moments, factor)))
    assert torch.equal(decoded[0], decoded[1])
    assert torch.equal(decoded[0], decoded[2])


def test_a_draw_is_mean_plus_deviation_times_noise_scaled() -> None:
    mean, deviation, noise = torch.tensor([[[[3.0]], [[-1.0]]]]), torch.tensor([[[[2.0]], [[0.5]]]]), torch.tensor([[[[1.5]], [[-2.0]]]])
    moments = torch.cat([mean, 2 * deviation.log()], dim=1)
    assert draw(moments, 0.5).flatten().tolist() == [1.5, -0.5]
    torch.testing.assert_close(draw(moments, 0.5, noise).flatten(), torch.tensor([3.0, -1.0]))


def test_draws_have_the_moments_that_were_stored() -> None:
    moments = torch.tensor([0.7, -0.2, 0.4, -3.0]).view(1, 4, 1, 1).expand(1, 4, 200, 200)
    drawn = draw(moments, 2.0, torch.randn(1, 2, 200, 200, generator=torch.Generator().manual_seed(0))).flatten(2)[0]
    torch.testing.assert_close(drawn.mean(1), torch.tensor([1.4, -0.4]), rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.std(1), 2 * (torch.tensor([0.4, -3.0]) / 2).exp(), rtol=0.02, atol=0)


def test_what_is_certain_stays_itself_and_what_is_extreme_stays_finite() -> None:
    vector, noise = torch.tensor([[[[0.1, -0.9, 0.3]]]]), torch.full((1, 1, 1, 3), 5.0)
    moments = Identity().moments(vector)
    assert (moments.chunk(2, 1)[1] == CERTAIN).all()
    assert torch.equal(draw(moments, Identity.scaling_factor, noise), vector)
    assert torch.equal(Identity().decode(vector), vector)
    wild = torch.cat([torch.zeros(1, 1, 1, 2), torch.tensor([[[[1e4, -1e4]]]])], dim=1)
    assert draw(wild, 1.0, torch.ones(1, 1, 1, 2)).isfinite().all()


@torch.no_grad()
def test_a_decoder_sees_the_ground_where_it_is() -> None:
    """Fully convolutional but for its norms: a change in the north-west latent changes the north-west most."""
    codec = tiny_codec(1)
    latents = torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    other = latents.clone()
    other[..., 0, 0] += 1
    change = (codec.decode(other) - codec.decode(latents)).abs()[0, 0]
    assert change[:16, :16].mean() > 20 * change[48:, 48:].mean()


@torch.no_grad()
def test_principal_components_lose_what_the_smallest_ones_hold() -> None:
    """The best that eight numbers a block can do (Eckart and Young): the squared error is the sum of the variances left out."""
    random = torch.Generator().manual_seed(0)
    blocks = torch.randn(600, 12, generator=random) @ torch.randn(12, 2 * 64, generator=random) / 12 + 0.3      # of rank 12
    pixels = blocks.reshape(6, 10, 10, 2, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(6, 2, 80, 80)
    codec = with_shortcut(2)
    codec.start_from_principal_components(pixels)
    mean, log_variance = codec.moments(pixels).chunk(2, 1)
    flat = mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat @ flat.T / flat.shape[1], torch.eye(8), rtol=0, atol=1e-3)                  # whitened
    assert (log_variance == -5).all()
    centred = (blocks - pixels.mean((0, 2, 3)).repeat_interleave(64)).double()
    variance = torch.linalg.eigvalsh(centred.T @ centred / len(centred))
    error = (codec.decode(mean) - pixels).square().sum() / len(blocks)
    assert float(error) == pytest.approx(float(variance[:-8].sum()), rel=1e-3)


def with_shortcut(channels: int) -> KLCodec:
    return KLCodec(CodecConfig(channels, width=8, multipliers=(1, 2), blocks=1, stem=4, groups=4, attention=False, shortcut=True)).eval()


def test_natural_factors_are_the_roots_of_the_components_variances() -> None:
    """Blocks of eight independent patterns, the k-th of deviation k: what is added to or taken from a pixel is as large as that."""
    random = torch.Generator().manual_seed(0)
    patterns = torch.linalg.qr(torch.randn(64, 8, generator=random)).Q                             # orthonormal
    amounts = torch.linalg.qr(torch.randn(1600, 9, generator=random)).Q
    amounts = torch.linalg.qr(amounts - amounts.mean(0)).Q[:, :8] * 1600**0.5                      # uncorrelated, of variance 1, mean 0
    deviations = torch.arange(1.0, 9.0)
    blocks = (amounts * deviations) @ patterns.T
    pixels = blocks.reshape(1, 40, 40, 8, 8).permute(0, 1, 3, 2, 4).reshape(1, 1, 320, 320)
    codec = with_shortcut(1)
    codec.start_from_principal_components(pixels)
    torch.testing.assert_close(codec.natural_factors(least=0.0), deviations / 8, rtol=0, atol=0.02)


def test_natural_factors_are_at_most_1_and_never_nothing() -> None:
    codec = with_shortcut(3)
    assert codec.synthesis is not None
    with torch.no_grad():
        codec.synthesis.weight[2] = 0
    factors = codec.natural_factors()
    assert factors.shape == (8,) and factors.max() == 1 and factors.min() == factors[2] == pytest.approx(0.1)


def test_a_codec_without_a_shortcut_has_no_principal_components() -> None:
    with pytest.raises(ValueError, match="only a codec with a shortcut"):
        tiny_codec(1).start_from_principal_components(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match="only a codec with a shortcut"):
        tiny_codec(1).natural_factors()


@pytest.mark.parametrize("sizes", [
    {"width": 10}, {"width": 0}, {"multipliers": ()}, {"multipliers": (1, 0)}, {"groups": 0}, {"stem": 0}, {"blocks": 0}])
def test_sizes_that_cannot_be_are_refused(sizes: dict) -> None:
    with pytest.raises(ValueError, match=r"codec of width .* groups: all sizes are 1 or more"):
        CodecConfig(3, **sizes)


def test_the_shortcut_is_right_where_convolutions_in_bf16_are_wrong():
    torch.manual_seed(0)
    codec = KLCodec(CodecConfig(channels=12, latent_channels=16, width=16, multipliers=(1, 2), blocks=1, stem=4, groups=8, shortcut=True,
                                attention=False))
    assert codec.analysis is not None
    pixels = torch.randn(1, 12, 96, 96)
    exact = codec.moments(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        found = codec.moments(pixels)
    off = (found.float() - exact).square().mean() / codec.analysis(pixels).square().mean()
    assert float(off.detach().sqrt()) < 0.02
