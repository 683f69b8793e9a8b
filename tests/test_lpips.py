"""LPIPS: the same number from each layout that people have its weights in, and refusals that say where to get them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from copgen.training.lpips import STAGES, Perceptual, load_perceptual, triplets


def wave(shape: tuple[int, ...], frequency: float) -> Tensor:
    return torch.sin(frequency * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape).float()


def formula_weights() -> dict[str, Tensor]:
    """Waves, by the keys of the published checkpoints less their common prefix."""
    stage = {str(index): number for number, stage in enumerate(STAGES) for index in stage}
    weights = {}
    for key, tensor in Perceptual().state_dict().items():
        kind, index, *rest = key.split(".")
        values = 0.05 * wave(tuple(tensor.shape), 1.7 + 0.01 * int(index))
        if kind == "heads":
            weights[f"lin{index}.model.1.weight"] = values.abs()
        else:
            weights[f"net.slice{stage[index] + 1}.{index}.{rest[0]}"] = values
    return weights


def save_raw(folder: Path) -> Path:
    """As in a training checkpoint of the published code, which holds much besides."""
    weights = {f"loss.perceptual_loss.{key}": tensor for key, tensor in formula_weights().items()}
    extra = {"encoder.conv_in.weight": torch.zeros(1), "loss.logvar": torch.zeros(()), "loss.discriminator.main.0.bias": torch.zeros(64),
             "loss.perceptual_loss.scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    torch.save({"step": 500_000, "model": weights | extra, "ema": {}, "scaler": None}, folder / "model-50.pt")
    return folder / "model-50.pt"


def save_pair(folder: Path, features: bool = True, heads: bool = True) -> Path:
    """torchvision's file with its classifier, and the heads' file beside it."""
    weights = formula_weights()
    if features:
        vgg = {f"features.{key.split('.', 2)[2]}": tensor for key, tensor in weights.items() if key.startswith("net")}
        torch.save({**vgg, "classifier.0.bias": torch.zeros(8)}, folder / "vgg16-397923af.pth")
    if heads:
        torch.save({key: tensor for key, tensor in weights.items() if key.startswith("lin")}, folder / "vgg.pth")
    return folder / "vgg16-397923af.pth"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Perceptual:
    return load_perceptual(save_raw(tmp_path_factory.mktemp("raw")))


def test_every_layout_gives_the_same_number(tmp_path: Path) -> None:
    for name in ("raw", "nested", "pair"):
        (tmp_path / name / "DEM_64x64").mkdir(parents=True)
    layouts = [save_raw(tmp_path / "raw"), tmp_path / "raw", save_pair(tmp_path / "pair"), tmp_path / "pair"]
    save_raw(tmp_path / "nested" / "DEM_64x64")
    x, y = wave((1, 3, 32, 32), 0.013), wave((1, 3, 32, 32), 0.017)
    distances = [load_perceptual(path)(x, y) for path in (*layouts, tmp_path / "nested")]
    assert all(torch.equal(distance, distances[0]) for distance in distances) and distances[0] > 0


def test_one_band_is_repeated_two_get_an_empty_third_and_more_go_in_threes() -> None:
    def bands(count: int) -> list[list[int]]:
        x = torch.arange(1, count + 1).view(1, count, 1, 1).float()
        return triplets(x)[0, :, :, 0, 0].int().tolist()

    assert bands(1) == [[1, 1, 1]]
    assert bands(2) == [[1, 2, 0]]
    assert bands(3) == [[1, 2, 3]]
    assert bands(4) == [[1, 2, 3], [2, 3, 4]]
    assert bands(6) == [[1, 2, 3], [4, 5, 6]]
    assert bands(10) == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [8, 9, 10]]


def test_it_is_a_distance_that_only_the_reconstruction_learns_from(network: Perceptual) -> None:
    x, y = (wave((2, 4, 32, 32), f).requires_grad_() for f in (0.013, 0.4))
    assert network(x, x).abs().max() == 0
    there, back = network(x, y), network(y, x)
    torch.testing.assert_close(there, back)
    torch.testing.assert_close(network(x[1:], y[1:]), there[1:])                      # of each sample alone
    there.sum().backward()
    assert x.grad is None and y.grad is not None and y.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_drops_features_only_when_asked_and_keeps_the_expectation(network: Perceptual) -> None:
    x, y = (wave((1, 3, 32, 32), f) for f in (0.013, 0.4))
    clean = network(x, y)
    assert not network.train().training and torch.equal(network(x, y), clean)        # as published it is switched on by train()
    dropped = torch.stack([network(x, y, torch.Generator().manual_seed(seed)) for seed in range(40)])
    assert torch.equal(dropped[3], network(x, y, torch.Generator().manual_seed(3)))
    assert dropped.std() > 0 and abs(dropped.mean() - clean) < 4 * dropped.std() / 40**0.5


@pytest.mark.parametrize(("features", "heads", "what"), [(True, False, "no linear heads"), (False, True, r"no convolutions\.0\.bias"),
                                                         (False, False, "no VGG-16 convolutions and no heads")])
def test_what_is_missing_is_named_with_where_to_get_it(tmp_path: Path, features: bool, heads: bool, what: str) -> None:
    save_pair(tmp_path, features, heads)
    with pytest.raises(ValueError, match=rf"{what} of LPIPS in there; .*vgg16-397923af\.pth.*vgg\.pth.*model-50\.pt.*perceptual = \"off\""):
        load_perceptual(tmp_path)


def test_a_path_that_is_not_there_other_weights_and_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no such file or folder; .*vgg\.pth of the lpips package"):
        load_perceptual(tmp_path / "nowhere")
    torch.save({"model": {}, "what": Path("code")}, tmp_path / "model-50.pt")
    with pytest.raises(ValueError, match=r"model-50\.pt: refused, not a file of plain tensors"):
        load_perceptual(tmp_path)
    save_pair(tmp_path)
    vgg = torch.load(tmp_path / "vgg16-397923af.pth", weights_only=True)
    torch.save(vgg | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(ValueError, match=r"convolutions\.0\.weight has shape \[64, 1, 3, 3\], expected \[64, 3, 3, 3\]"):
        load_perceptual(tmp_path)
