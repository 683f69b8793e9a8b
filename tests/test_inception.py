"""The FID's Inception-v3 makes the features that the public implementations make, takes its own weights alone, and any picture's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from copgen.evaluation.features import open_feature
from copgen.evaluation.inception import Inception, corner_resized, resized


def formula(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights from whole numbers alone, so that every program has the same; they let a picture through to the end."""
    made = {}
    for i, key in enumerate(sorted(state)):
        tensor = state[key]
        if key.endswith("num_batches_tracked"):
            continue
        j = torch.arange(tensor.numel(), dtype=torch.int64)
        value = ((((j + 1) * 2654435761 + i * 40503) % 2**32 * 69069 + 12345) % 2**32).double() / 2**31 - 1      # in -1..1
        if tensor.ndim > 1:
            value = value * (6 / tensor[0].numel()) ** 0.5
        elif key.endswith(("running_var", "bn.weight")):
            value = 1 + 0.2 * value
        else:
            value = 0.1 * value
        made[key] = value.reshape(tensor.shape).float()
    return made


def pictures() -> np.ndarray:
    """Two pictures [2, 3, 64, 64] in 0..1 of whole levels: waves, and a ramp with a corner."""
    y, x = np.mgrid[:64, :64]
    waves = np.stack([127.5 + 127.5 * np.sin(0.2 * x * (k + 1) + 0.1 * y) for k in range(3)])
    ramp = np.stack([np.maximum(3 * x - 2 * y + 40 * k, 0) for k in range(3)])
    return np.floor(np.clip([waves, ramp], 0, 255)).astype(np.float32) / 255


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(formula(Inception().state_dict()), path)
    return path


PLACES = (0, 400, 700, 1000, 1400, 1900)
GOLDEN = {
    "inception": [[8.13241, 0.0, 7.782413, 0.0, 0.4980553, 14.40805],
                  [6.412878, 0.0, 7.064868, 0.0, 0.7094251, 11.72128]],
    "inception-tf": [[8.350216, 0.0, 7.739897, 0.0, 0.4715869, 14.70896],
                     [6.408548, 0.0, 7.04055, 0.0, 0.7088032, 11.71122]],
}


@pytest.mark.parametrize("name", ["inception", "inception-tf"])
def test_the_features_are_those_of_the_public_implementations(weights: Path, name: str) -> None:
    """Numbers that pytorch-fid 0.3.0 (inception) and torch-fidelity 0.4.0 (inception-tf) made of these weights and pictures."""
    found = open_feature(f"{name}:{weights}").call(pictures())
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found[:, PLACES], GOLDEN[name], rtol=1e-4)


def test_it_has_the_parameters_of_the_public_file() -> None:
    network = Inception()
    assert sum(one.numel() for one in network.parameters()) - sum(one.numel() for one in network.fc.parameters()) == 21_785_568
    assert network.fc.weight.shape == (1008, 2048) and not any(one.requires_grad for one in network.parameters())


def test_pictures_of_any_size_become_299_pixels_wide_in_two_ways() -> None:
    """TensorFlow's takes pixel i at i x H / 299, pytorch-fid's at the middle of that part; of their own size both leave all as it is."""
    ramp = torch.arange(598.0)[None, None, None].expand(1, 1, 598, 598)
    assert torch.equal(corner_resized(ramp)[0, 0, 0], torch.arange(299.0) * 2)
    assert torch.allclose(resized(ramp)[0, 0, 0], torch.arange(299.0) * 2 + 0.5)
    own = torch.rand(1, 3, 299, 299)
    assert torch.allclose(resized(own), own) and torch.equal(corner_resized(own), own)
    assert corner_resized(torch.rand(1, 3, 100, 40)).shape == (1, 3, 299, 299)


@pytest.mark.parametrize(("change", "says"), [
    (lambda state: state.pop("Mixed_6b.branch7x7_2.conv.weight"), "has no Mixed_6b.branch7x7_2.conv.weight"),
    (lambda state: state.update({"AuxLogits.fc.weight": torch.zeros(1)}), "has AuxLogits.fc.weight, which this network lacks"),
    (lambda state: state.update({"fc.weight": torch.zeros(1000, 2048)}), r"fc.weight has shape \[1000, 2048\], expected \[1008, 2048\]"),
])
def test_other_weights_are_refused_with_where_the_right_ones_are(weights: Path, tmp_path: Path, change: Any, says: str) -> None:
    state = {key: tensor.half() for key, tensor in load_file(weights).items()}
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=f"{says}.*pt_inception-2015-12-05-6726825d.pth"):
        open_feature(f"inception:{tmp_path / 'w.safetensors'}")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="refused, not a file of plain tensors"):
        open_feature(f"inception:{tmp_path / 'w.pth'}")
