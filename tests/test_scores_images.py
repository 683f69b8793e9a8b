"""What must hold of images' scores: the published numbers worked by hand and by torchmetrics, and spectra that are known."""

import numpy as np
import pytest

from copgen.scores.images import (
    RANGES,
    averaged,
    decibels_of,
    psnr,
    published_scaled,
    radial_spectrum,
    spectral_slope,
    ssim,
)
from copgen.synthetic.fields import fields, stream


def waves(shape, a, b, c):
    """An image by a formula, partly below 0 and above 1."""
    i, j = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    return 0.5 + 0.3 * np.sin(a * i + b * j) + 0.2 * np.cos(c * i * j)


# --- the published conventions (reference 7.1), by hand -----------------------------------------------------------------------------

def test_published_scaling_is_by_the_truths_own_range():
    """The truth spans 100 to 300 DN: 100 becomes 0, 200 becomes 0.5, 300 becomes 1; what was made is cut off at 0 and 1."""
    truth, made = np.array([[100.0, 200], [300, 200]]), np.array([[50.0, 250], [400, 200]])
    x, y = published_scaled(made, truth)
    assert y.tolist() == [[0, 0.5], [1, 0.5]] and x.tolist() == [[0, 0.75], [1, 0.5]]
    # one of four pixels is off by a quarter of the range: MSE 0.0625 / 4 = 0.015625 = 2^-6, and 60 log10(2) = 18.06 dB
    assert ((x - y) ** 2).mean() == 0.015625
    assert psnr(x, y) == pytest.approx(18.0618, abs=1e-4) == decibels_of(0.015625)
    # unscaled the same error is (50^2 + 50^2 + 100^2) / 4 = 3750 DN^2 of 10000^2: 44.26 dB
    assert psnr(made, truth, RANGES["S2L2A"].width) == pytest.approx(10 * np.log10(1e8 / 3750))


def test_published_scaling_of_a_flat_truth_divides_by_a_millionth():
    flat = np.full((2, 2), 7.0)
    x, y = published_scaled(np.array([[7.0, 7 + 5e-7], [8, 6]]), flat)
    assert y.tolist() == [[0, 0], [0, 0]]
    assert x.ravel() == pytest.approx([0, 0.5, 1, 0], abs=1e-6)                                  # half a millionth, cut off, cut off


def test_published_scaling_is_of_each_image_by_itself():
    truth = np.stack([waves((8, 8), 0.3, 0.2, 0.01) * factor for factor in (1, 1000)])
    made = truth[None] * np.array([1.0, 1.1])[:, None, None, None]
    x, y = published_scaled(made, truth)
    assert x.shape == (2, 2, 8, 8) and y.shape == (2, 8, 8)
    np.testing.assert_allclose(x[:, 0], x[:, 1])
    np.testing.assert_allclose(y.min((1, 2)), 0)


def test_published_psnr_is_of_the_pooled_error_and_not_a_mean_of_psnrs():
    """Two images of errors 0.1 and 0.001: the pooled error is 0.0505, 12.97 dB, while their own 10 and 30 dB average to 20."""
    assert decibels_of([0.1, 0.001]) == pytest.approx([10, 30])
    assert decibels_of((0.1 + 0.001) / 2) == pytest.approx(12.9671, abs=1e-4)


# --- SSIM and PSNR ------------------------------------------------------------------------------------------------------------------

# StructuralSimilarityIndexMeasure(data_range=...) of torchmetrics 1.6.3 in float64
@pytest.mark.parametrize(("shape", "width", "expected"), [((32, 32), 1, 0.56070716), ((48, 40), 1, 0.42841172),
                                                          ((32, 32), 2, 0.64318502), ((48, 40), 2, 0.50233114)])
def test_ssim_is_torchmetrics_number(shape, width, expected):
    x, y = waves(shape, 0.31, 0.17, 0.013), waves(shape, 0.29, 0.20, 0.011)
    assert ssim(x, y, width) == pytest.approx(expected, abs=2e-7) == ssim(y, x, width)


def test_single_precision_is_enough_for_ssim_and_psnr():
    """Also where the level is a hundred times the contrast, which squares of the values themselves would lose."""
    x, y = (5000 + 50 * waves((48, 48), *numbers) for numbers in ((0.31, 0.17, 0.013), (0.29, 0.20, 0.011)))
    for width in (100, 10_000):
        single = ssim(x.astype(np.float32), y.astype(np.float32), width)
        assert single.dtype == np.float64 and single == pytest.approx(ssim(x, y, width), abs=1e-5)
        assert psnr(x.astype(np.float32), y.astype(np.float32), width) == pytest.approx(psnr(x, y, width), abs=1e-4)
    assert published_scaled(x.astype(np.float32), y.astype(np.float32))[0].dtype == np.float32


def test_ssim_of_flat_images_is_its_formula():
    """Without any variance the second factor is 1: (2 a b + c1) / (a^2 + b^2 + c1), c1 = 0.01^2."""
    a, b = np.full((16, 16), 0.2), np.full((16, 16), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_of_many_is_each_ones_and_scales_with_the_range():
    truth = np.stack([waves((16, 16), 0.3 * k, 0.2, 0.02) for k in (1, 2, 3)])
    made = truth[None] + np.random.default_rng(0).normal(0, [[[[0.05]]], [[[0.2]]]], (2, 3, 16, 16))
    found = ssim(made, truth)
    assert found.shape == (2, 3) and (found[0] > found[1]).all() and (found < 1).all()
    assert found[1, 2] == pytest.approx(float(ssim(made[1, 2], truth[2])))
    np.testing.assert_allclose(ssim(10_000 * made, 10_000 * truth, 10_000), found)
    with pytest.raises(ValueError, match="5 x 5 pixels: SSIM mirrors 5"):
        ssim(np.zeros((5, 5)), np.zeros((5, 5)))


def test_psnr_of_a_known_error_and_of_a_copy():
    truth = waves((8, 8), 0.3, 0.2, 0.01)
    assert psnr(truth + 0.1, truth) == pytest.approx(20) and psnr(truth + 5, truth, width=50) == pytest.approx(20)
    assert psnr(truth, truth) == 100
    assert RANGES["S1RTC"].clip([-60, -12, 30]).tolist() == [-40, -12, 10] and RANGES["DEM"].clip([-5, 9000]).tolist() == [-5, 9000]


# --- spectra ------------------------------------------------------------------------------------------------------------------------

def test_white_noise_has_its_variance_at_every_frequency_whatever_the_pixels():
    noise = 3 * np.random.default_rng(0).standard_normal((200, 32, 32)) + 50
    for resolution in (10, 60):
        frequency, power = radial_spectrum(noise, resolution)
        assert frequency[0] == 1 / (32 * resolution) and frequency[-1] == 1 / (2 * resolution)
        assert power.mean(0)[2:] == pytest.approx(np.full(14, 9 * resolution**2), rel=0.1)
        assert spectral_slope(noise, resolution).mean() == pytest.approx(0, abs=0.1)


def test_a_wave_is_found_at_its_length():
    x = np.arange(96) * 10.0
    wave = np.sin(2 * np.pi * x / 80)[None] + 0 * x[:, None]                                    # 80 m: 12 a side
    frequency, power = radial_spectrum(np.stack([wave, wave.T]), 10)
    assert (frequency[power.argmax(-1)] == 1 / 80).all()
    np.testing.assert_allclose(power[0], power[1], rtol=1e-9, atol=1e-9 * power.max())
    assert power[:, 11].sum() > 100 * np.delete(power, [9, 10, 11, 12, 13], axis=1).sum()


@pytest.mark.parametrize("slope", [1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("side", [32, 96, 192])
def test_a_power_law_field_has_its_exponent(slope, side):
    made = np.stack([fields(stream(seed, "spectrum"), side, 2, slope) for seed in range(12)])
    assert spectral_slope(made, 10).mean() == pytest.approx(-slope, abs=0.2 if side < 64 else 0.1)


def test_slope_does_not_depend_on_level_contrast_or_pixel_and_is_unknown_of_flat_fields():
    one = fields(stream(5, "spectrum"), 64, 1, 3.0)[0].astype(np.float64)
    expected = float(spectral_slope(one, 10))
    assert [float(spectral_slope(x, 10)) for x in (7 * one, one + 300, one[::-1], one.T)] == pytest.approx([expected] * 4, abs=1e-6)
    assert float(spectral_slope(one, 60)) == pytest.approx(expected)
    assert np.isnan(spectral_slope(np.stack([np.full((16, 16), level) for level in (0, 0.1, 4321.1)]), 10)).all()
    assert spectral_slope(averaged(np.repeat(np.repeat(one, 2, 0), 2, 1), 2), 20) == pytest.approx(expected)


def test_speckle_flattens_and_blur_steepens():
    made = np.stack([fields(stream(seed, "spectrum"), 96, 1, 2.0)[0] for seed in range(6)])
    noisy = made + 0.5 * np.random.default_rng(0).standard_normal(made.shape)
    blurred = (made + np.roll(made, 1, 1) + np.roll(made, 1, 2) + np.roll(made, (1, 1), (1, 2))) / 4
    assert spectral_slope(blurred, 10).mean() + 0.3 < spectral_slope(made, 10).mean() < spectral_slope(noisy, 10).mean() - 0.3
    with pytest.raises(ValueError, match="16 x 8 pixels"):
        radial_spectrum(np.zeros((16, 8)), 10)
