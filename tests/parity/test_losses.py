"""The codecs' training loss and LPIPS against numbers that the released code gives with formula-filled weights."""

import numpy as np
import pytest
import torch
from golden import ARRAYS, LOSS, STARTS, loss_inputs, perceptual, wave

from copgen.training.adversarial import hinge
from copgen.training.codec_loss import codec_loss, regression
from copgen.training.recipe import CodecTraining


def test_the_loss_is_the_released_trainings():
    given, how = loss_inputs(), CodecTraining(adversarial_from=STARTS)
    likelihood = regression(given["x"], given["y"]).mean().item()
    before, _ = codec_loss(**given, how=how, step=STARTS - 1, generator=torch.Generator())
    after, parts = codec_loss(**given, how=how, step=STARTS, generator=torch.Generator())
    assert likelihood == pytest.approx(LOSS["likelihood"], rel=1e-12)
    assert likelihood / given["x"][0].numel() == pytest.approx(LOSS["mean error"], rel=1e-12)
    assert parts["kl"].item() == pytest.approx(LOSS["kl"], rel=1e-11)
    assert parts["adversarial"].item() == pytest.approx(LOSS["adversarial"], abs=1e-10)
    assert parts["adversarial_weight"].item() == pytest.approx(LOSS["weight"], rel=1e-11)
    assert before.item() == pytest.approx(LOSS["total before"], rel=1e-12)
    assert after.item() == pytest.approx(LOSS["total after"], rel=1e-12)


def test_the_discriminators_loss_is_the_released_trainings():
    given = loss_inputs()
    real, made = (given["discriminator"](image.detach()) for image in (given["x"], given["y"]))
    assert hinge(real, made).item() == pytest.approx(LOSS["hinge"], abs=1e-10)
    assert real.mean().item() == pytest.approx(LOSS["logits of real"], abs=1e-10)


@pytest.fixture(scope="module")
def network():
    return perceptual()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 10])
def test_lpips_gives_the_released_numbers(network, channels):
    x, y = (wave((2, channels, 32, 32), frequency, dtype=torch.float64) for frequency in (0.013, 0.017))
    np.testing.assert_allclose(network(x, y), ARRAYS[f"lpips_n{channels}"], rtol=1e-12)
