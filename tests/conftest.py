"""What several test files share: a model small enough to draw from in a fraction of a second, and the real samples."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torch import nn

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.inference import kernels
from copgen.modalities import THUMBNAILS, Table
from copgen.scene import Scene
from copgen.store import save_model

torch.set_num_threads(1)                         # the tests are small, and other work may share the cores

TINY = Table(patch=4)
TINY_THUMBNAILS = replace(THUMBNAILS, patch=8)
REPOSITORY = Path(__file__).parent.parent
needs_amx = pytest.mark.skipif(not kernels.can_run() or kernels.gcc() is None, reason="the kernels need a processor with AMX and GCC")


def filled(network: nn.Module, seed: int) -> nn.Module:
    """Weights of normal size from a seed alone, so that a network's output depends on all its inputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0        # norms
            parameter.copy_(centre + torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return network.eval()


def tiny_codec(channels: int, seed: int = 0, latent_channels: int = 8) -> KLCodec:
    config = CodecConfig(channels, latent_channels, width=8, multipliers=(1, 2), blocks=1, stem=4, groups=4, attention=False)
    codec = filled(KLCodec(config, scaling_factor=0.5), seed)
    assert isinstance(codec, KLCodec)
    return codec


def tiny_backbone(table: Table = TINY, seed: int = 0) -> UViT:
    backbone = filled(UViT(table, BackboneConfig(width=32, depth=2, heads=2)), seed)
    assert isinstance(backbone, UViT)
    return backbone


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of all twelve rows (222 tokens, width 32) with random weights; read it, don't write to it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    codecs = {name: tiny_codec(TINY[name].channels, seed) for seed, name in enumerate(TINY.images)}
    save_model(folder, "tiny", "Apache-2.0", tiny_backbone(), codecs, notes={"what": "random weights, for tests"})
    return folder


@pytest.fixture(scope="session")
def tiny_thumbnails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of thumbnails (68 tokens) with random weights and one codec for all; read it, don't write to it."""
    folder, codec = tmp_path_factory.mktemp("models") / "tiny-thumbnails", tiny_codec(3, latent_channels=4)
    save_model(folder, "tiny-thumbnails", "Apache-2.0", tiny_backbone(TINY_THUMBNAILS), dict.fromkeys(TINY_THUMBNAILS.images, codec),
               name_of=lambda row: "rgb")
    return folder


@pytest.fixture(scope="session")
def dem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of heights over one square of 1920 m."""
    path = tmp_path_factory.mktemp("inputs") / "hill.tif"
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", count=1, height=64, width=64, crs="EPSG:32630",
                       transform=from_origin(500_070, 6_199_950, 30, 30)) as file:
        file.write(np.add.outer(np.arange(64), np.arange(64)).astype(np.float32)[None] + 10)
    return path


@pytest.fixture(scope="session")
def scene() -> Scene:
    """All twelve layers, plausible in every unit, from a seed."""
    random = np.random.default_rng(7)
    layers: dict[str, np.ndarray] = {"place": np.array([55.95, -3.19]), "date": np.array(["2021-07-23"], "datetime64[D]")}
    for name in TINY.images:
        shape, legend = TINY.layer_shape(name), TINY[name].legend
        smooth = np.add.outer(*[np.linspace(0, 1, shape[-1])] * 2)[None] / 2 * random.uniform(0.5, 1, (shape[0], 1, 1))
        if legend:
            layers[name] = np.asarray(legend.codes)[(smooth * (legend.classes - 1)).astype(int)]
        elif name == "dem":
            layers[name] = 10 + 300 * smooth
        else:
            layers[name] = (0.01 + 0.2 * smooth) * (1 if name == "s1rtc" else 10_000) * random.uniform(0.8, 1.2, shape)
    return Scene(layers, name="hills", table=TINY)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real TerraMesh cells, which is not in the repository."""
    folder = Path(os.environ.get("COPGEN_SAMPLES", REPOSITORY.parent / "shared" / "data" / "terramesh"))
    if not folder.is_dir():
        pytest.skip(f"no real samples in {folder}; COPGEN_SAMPLES says where they are")
    return folder


def last_checkpoint(folder: Path) -> dict:
    """The newest checkpoint of a run's folder."""
    return torch.load(max((folder / "checkpoints").glob("*.pt"), key=lambda path: int(path.stem)), weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    """Metrics as written, and every tensor of the newest checkpoints bit for bit."""
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert_same(last_checkpoint(one), last_checkpoint(other))


def assert_same(one: object, other: object, where: str = "state") -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}.{key}")
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor) and torch.equal(one, other), where
    else:
        assert one == other, where
