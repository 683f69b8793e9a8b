"""By what are pictures compared? Vectors of images, or distances between two, chosen by a text such as `resnet50:FILE`.

Images are [n, 3, H, W] in 0..1: red, green and blue as reflectances, not stretched, as the stochastic benchmark has them; of pictures,
as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from copgen.evaluation.inception import Inception
from copgen.evaluation.networks import ALEXNET, AlexPerceptual, ResNet50, with_weights
from copgen.files import sha256
from copgen.published import read_weights
from copgen.scaling import EightBit, Linear
from copgen.scene import Scene
from copgen.training.lpips import Perceptual, candidates, renamed

Images = NDArray[np.floating[Any]]
Vectors = NDArray[np.float64]
WHITE = 255                                      # of a picture's levels
BLOCKS = 8                                       # of a thumbnail along one side
FLAT = 0.01                                      # contrast below which a thumbnail isn't stretched further: noise is no structure
AT_ONCE = 16                                     # images in the network's memory together
RESNET = "torchvision's resnet50-0676ba61.pth has them (models.resnet50 with IMAGENET1K_V1 fetches it), and so may a .safetensors of it"
INCEPTION = ("pt_inception-2015-12-05-6726825d.pth of pytorch-fid's releases has them, TensorFlow's model converted, and so may a "
             ".safetensors of it")
LPIPS = ("for AlexNet give torchvision's alexnet-owt-7be5be79.pth and alex.pth of the lpips package (lpips/weights/v0.1), for VGG-16 "
         "vgg16-397923af.pth and vgg.pth")


@dataclass(frozen=True)
class Feature:
    """What pictures are compared by: `call` makes vectors [n, d] of images [n, 3, H, W], or distances [n] of two stacks, pair by pair."""

    name: str
    kind: Literal["vectors", "distance"]
    call: Callable[..., Vectors]
    record: dict[str, Any] = field(default_factory=dict)


def open_feature(text: str, device: str = "cpu") -> Feature:
    """`thumbnails`; `inception:FILE` and `inception-tf:FILE`; `resnet50:FILE`; `lpips:FILE` or `lpips:FILE,FILE`, AlexNet or VGG-16 being
    told by their weights.

    Nothing in the files is run. Raises ValueError for another name, a file that isn't there, and weights that don't fit, with where to
    get the right ones.
    """
    name, _, files = text.partition(":")
    paths = [Path(one) for one in files.split(",") if one]
    match name, len(paths):
        case "thumbnails", 0:
            return Feature(name, "vectors", thumbnails)
        case "inception" | "inception-tf", 1:
            return inception(paths[0], device, as_published=name == "inception-tf")
        case "resnet50", 1:
            return resnet50(paths[0], device)
        case "lpips", 1 | 2:
            return lpips(paths, device)
    raise ValueError(f"feature {text!r}: there are thumbnails, inception:FILE, inception-tf:FILE, resnet50:FILE and "
                     "lpips:FILE or lpips:FILE,FILE")


def rgb(scene: Scene, product: str = "S2L2A") -> NDArray[np.float32] | None:
    """Red, green and blue of a scene [3, H, W] in 0..1, reflectances of 1 and more being 1; None where it has no such bands."""
    for row in scene.table.rows:
        if row.product == product and row.name in scene and row.rgb and isinstance(row.scale, Linear | EightBit):
            bands = np.stack([scene[row.name][row.bands.index(band)] for band in row.rgb])
            full = row.scale.full_scale if isinstance(row.scale, Linear) else WHITE
            return np.clip(bands / np.float32(full), 0, 1).astype(np.float32)
    return None


def thumbnails(images: Images) -> Vectors:
    """The means of 8 x 8 blocks, each image's less their mean and over their standard deviation: [n, 192]. Needs no weights.

    For what places have in common that look alike from far away, as a copy does, whatever its brightness and contrast. A contrast below
    0.01 of the full range counts as 0.01, so that flat images are alike.
    """
    pixels = torch.from_numpy(np.asarray(images, np.float64))
    flat = nn.functional.adaptive_avg_pool2d(pixels, BLOCKS).flatten(1).numpy()
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(flat.std(1, keepdims=True), FLAT)


def inception(path: Path, device: str = "cpu", as_published: bool = False) -> Feature:
    """The 2048 features of the FID, images made 299 x 299 as in pytorch-fid, or (`as_published`) as in torch-fidelity."""
    network = with_weights(Inception(as_published), tensors(path), path, INCEPTION).to(device)

    def vectors(images: Images) -> Vectors:
        return batched(network, images, device=device)

    return Feature("inception-tf" if as_published else "inception", "vectors", vectors, {"weights": {path.name: sha256(path)}})


def resnet50(path: Path, device: str = "cpu") -> Feature:
    """The 2048 features before ResNet-50's classes, images made 224 x 224 and normalised as ImageNet's."""
    network = with_weights(ResNet50(), tensors(path), path, RESNET).to(device)

    def vectors(images: Images) -> Vectors:
        return batched(network, images, device=device)

    return Feature("resnet50", "vectors", vectors, {"weights": {path.name: sha256(path)}})


def lpips(paths: list[Path], device: str = "cpu") -> Feature:
    """LPIPS between two images: by AlexNet, as in the stochastic benchmark (`lpips`), or by VGG-16, as in the training (`lpips-vgg`)."""
    files = candidates(paths[0]) if len(paths) == 1 else paths
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= dict(renamed(tensors(file)))
    first = weights.get("convolutions.0.weight")
    if first is None:
        raise ValueError(f"{', '.join(map(str, files))}: no convolutions in there; {LPIPS}")
    is_alexnet = first.shape[-1] == ALEXNET[0].kernel
    empty: nn.Module = AlexPerceptual() if is_alexnet else Perceptual()
    network = with_weights(empty, weights, paths[0], LPIPS).to(device)

    def distance(a: Images, b: Images) -> Vectors:
        return batched(network, 2 * np.asarray(a) - 1, 2 * np.asarray(b) - 1, device=device)

    record = {"weights": {file.name: sha256(file) for file in files}, "network": "AlexNet" if is_alexnet else "VGG-16"}
    return Feature("lpips" if is_alexnet else "lpips-vgg", "distance", distance, record)


@torch.inference_mode()
def batched(network: nn.Module, *stacks: Images, device: str) -> Vectors:
    """What a network makes of stacks of images, a few at a time."""
    inputs = [torch.from_numpy(np.ascontiguousarray(stack, np.float32)) for stack in stacks]
    if not len(inputs[0]):
        raise ValueError("no images: at least one is needed")
    return torch.cat([network(*(part.to(device) for part in parts)).double().cpu()
                      for parts in zip(*(one.split(AT_ONCE) for one in inputs), strict=True)]).numpy()


def tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors or .pth file; ValueError for any other."""
    if path.suffix != ".safetensors":
        return read_weights(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable file of tensors ({error}); get it again") from error
