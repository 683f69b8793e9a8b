"""The same backbone and solver over four equal modalities against the numbers of COP-GEN-Beta's released code (tiny weights)."""

import numpy as np
import torch
from golden import ARRAYS, THUMBNAILS, tiny_beta, wave

from copgen import diffusion

FIRST, *REST = THUMBNAILS.names


def test_four_times_of_one_sequence():
    latents = {name: wave((2, 4, 8, 8), 0.013 * (i + 1)) for i, name in enumerate(THUMBNAILS.names)}
    times = {name: torch.full((2,), time) for name, time in zip(THUMBNAILS.names, (0.0, 500.5, 1000.0, 20.98), strict=True)}
    with torch.no_grad():
        out = tiny_beta()(latents, times)
    assert np.abs(np.stack([out[name].numpy() for name in THUMBNAILS.names]) - ARRAYS["beta_tiny_out_f32"]).max() < 5e-6


def test_a_joint_sample_of_three_given_the_fourth():
    """The released code itself moves by 1.5e-5 with another attention kernel."""
    noise = {name: 1.4 * wave((2, 256), 0.31 * (i + 1)).reshape(2, 4, 8, 8) for i, name in enumerate(REST)}
    drawn = diffusion.sample(tiny_beta(), noise, {FIRST: wave((2, 4, 8, 8), 0.013)}, solver="published", steps=50)
    flat = torch.cat([drawn[name].flatten(1) for name in REST], dim=1).numpy()
    assert np.abs(flat - ARRAYS["beta_tiny_joint_sample_f32"]).max() < 1e-4
