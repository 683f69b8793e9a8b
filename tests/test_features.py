"""What must hold of features: torchvision's numbers from its weights, refusals that say what to fetch, and thumbnails that find copies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from copgen.evaluation.features import open_feature, rgb, thumbnails
from copgen.evaluation.networks import AlexPerceptual, ResNet50
from copgen.scores.sets import copying, mean_of_pairs
from copgen.synthetic import world
from copgen.training.lpips import Perceptual

SIDE = 96


def formula(state):
    """Weights that anybody can write down: waves, of about the size that training gives them."""
    made = {}
    for number, (key, tensor) in enumerate((key, tensor) for key, tensor in state.items() if not key.endswith("num_batches_tracked")):
        wave = torch.sin((0.7 + 0.01 * (number % 89)) * torch.arange(tensor.numel(), dtype=torch.float64) + number)
        if key.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif tensor.ndim == 1:
            wave = 1 + 0.2 * wave if key.endswith("weight") else 0.1 * wave
        else:
            wave = wave * (2 * len(tensor) / tensor.numel()) ** 0.5
        made[key] = wave.reshape(tensor.shape).float()
    return made


def images():
    """Two pictures of waves [2, 3, 96, 96] in 0..1."""
    i = np.arange(SIDE, dtype=np.float64)
    waves = [0.5 + 0.5 * np.sin(0.1 * (c + 1) * i[:, None] + 0.07 * i[None] * (n + 1)) for n in range(2) for c in range(3)]
    return np.stack(waves).reshape(2, 3, SIDE, SIDE).astype(np.float32)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("resnet") / "resnet50-0676ba61.pth"
    torch.save(formula(ResNet50().state_dict()), path)
    return path


def alex_files(folder: Path) -> list[Path]:
    """torchvision's file, and the heads' as the lpips package has them."""
    network = AlexPerceptual()
    convolutions = {key.removeprefix("convolutions."): tensor for key, tensor in network.state_dict().items() if key.startswith("conv")}
    waves = {f"features.{key}": tensor for key, tensor in formula(convolutions).items()}
    torch.save({**waves, "classifier.1.bias": torch.zeros(8)}, folder / "alexnet-owt-7be5be79.pth")
    heads = [torch.sin(torch.arange(head.shape[1], dtype=torch.float64) + k).abs().float().view(head.shape) / 10
             for k, head in enumerate(network.heads)]
    torch.save({f"lin{k}.model.1.weight": head for k, head in enumerate(heads)}, folder / "alex.pth")
    return [folder / "alexnet-owt-7be5be79.pth", folder / "alex.pth"]


# --- ResNet-50 ----------------------------------------------------------------------------------------------------------------------

def test_resnet50_has_the_published_number_of_parameters_and_names():
    network = ResNet50()
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_557_032
    keys = set(network.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer3.5.bn3.bias", "layer4.2.conv3.weight"} <= keys
    assert len(keys) == 320 and "layer1.1.downsample.0.weight" not in keys


def test_resnet50_makes_torchvisions_features(resnet_file):
    """The golden numbers are torchvision 0.29's resnet50 with the same weights, images and resizing."""
    feature = open_feature(f"resnet50:{resnet_file}")
    vectors = feature.call(images())
    assert (feature.name, feature.kind, vectors.shape, vectors.dtype) == ("resnet50", "vectors", (2, 2048), np.float64)
    np.testing.assert_allclose(vectors[:, :4], [[0.4708, 0.2095, 0.2730, 0.0024], [0.4668, 0.2045, 0.2704, 0.0090]], atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [12.2233, 12.1177], atol=2e-3)
    assert np.linalg.norm(vectors[0] - vectors[1]) == pytest.approx(0.1651, abs=5e-4)
    np.testing.assert_allclose(feature.call(images()[1:]), vectors[1:], atol=1e-5)               # of each image alone


def test_resnet50_reads_safetensors_and_says_what_it_read(resnet_file, tmp_path):
    weights = torch.load(resnet_file, weights_only=True)
    save_file({**weights, "bn1.num_batches_tracked": torch.tensor(0)}, tmp_path / "resnet.safetensors")
    one, other = (open_feature(f"resnet50:{path}") for path in (resnet_file, tmp_path / "resnet.safetensors"))
    np.testing.assert_array_equal(one.call(images()[:1]), other.call(images()[:1]))
    assert list(one.record["weights"]) == ["resnet50-0676ba61.pth"] and len(one.record["weights"]["resnet50-0676ba61.pth"]) == 64


@pytest.mark.parametrize(("change", "message"), [
    ({"fc.bias": None}, r"has no fc\.bias \(1 weights are missing\); torchvision's resnet50"),
    ({"layer5.0.conv1.weight": torch.zeros(1)}, r"has layer5\.0\.conv1\.weight, which this network lacks"),
    ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1\.weight has shape \[64, 3, 3, 3\], expected \[64, 3, 7, 7\]"),
])
def test_other_weights_than_resnet50s_are_refused(change, message, resnet_file, tmp_path):
    weights = {**torch.load(resnet_file, weights_only=True), **change}
    torch.save({key: tensor for key, tensor in weights.items() if tensor is not None}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=message):
        open_feature(f"resnet50:{tmp_path / 'wrong.pth'}")


def test_files_that_are_not_there_or_hold_code_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        open_feature(f"resnet50:{tmp_path / 'nowhere.pth'}")
    torch.save({"fc.bias": Path("code")}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="refused, not a file of plain tensors"):
        open_feature(f"resnet50:{tmp_path / 'code.pth'}")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        open_feature(f"resnet50:{tmp_path / 'torn.safetensors'}")


@pytest.mark.parametrize("text", ["vgg16:x.pth", "inception", "resnet50", "lpips", "lpips:a,b,c", "thumbnails:x", ""])
def test_only_what_there_is_can_be_asked_for(text):
    with pytest.raises(ValueError, match=r"there are thumbnails, inception:FILE, inception-tf:FILE, resnet50:FILE and lpips:FILE"):
        open_feature(text)


# --- LPIPS --------------------------------------------------------------------------------------------------------------------------

def test_lpips_by_alexnet_is_that_of_torchvisions_features(tmp_path):
    """The golden number is made of the five features of torchvision 0.29's alexnet with the same weights."""
    feature = open_feature("lpips:" + ",".join(map(str, alex_files(tmp_path))))
    one, other = images()
    there, back, same = (feature.call(a[None], b[None]) for a, b in ((one, other), (other, one), (one, one)))
    assert there == pytest.approx([0.0742474], abs=2e-6) and back == pytest.approx(there) and same == [0]
    assert (feature.name, feature.kind, feature.record["network"]) == ("lpips", "distance", "AlexNet")
    assert mean_of_pairs(feature.call, [one, other, one]) == pytest.approx(2 / 3 * there[0])


def test_lpips_by_vgg_is_named_so(tmp_path):
    network = Perceptual()
    weights = {f"features.{key.removeprefix('convolutions.')}": tensor for key, tensor in network.state_dict().items() if key[0] == "c"}
    torch.save(formula(weights), tmp_path / "convolutions.pth")
    torch.save({f"lin{k}.model.1.weight": torch.ones_like(head) / 100 for k, head in enumerate(network.heads)}, tmp_path / "linear.pth")
    feature = open_feature(f"lpips:{tmp_path / 'convolutions.pth'},{tmp_path / 'linear.pth'}")
    distance = feature.call(images()[:1], images()[1:])
    assert (feature.name, feature.record["network"]) == ("lpips-vgg", "VGG-16") and distance.shape == (1,) and distance[0] > 0


def test_lpips_says_what_is_missing(tmp_path):
    convolutions, heads = alex_files(tmp_path)
    with pytest.raises(ValueError, match=r"no convolutions in there; for AlexNet give torchvision's alexnet"):
        open_feature(f"lpips:{heads}")
    with pytest.raises(ValueError, match=r"has no heads\.0 \(5 weights are missing\)"):
        open_feature(f"lpips:{convolutions}")


# --- thumbnails ---------------------------------------------------------------------------------------------------------------------

def test_thumbnails_are_block_means_without_level_and_contrast():
    blocks = np.random.default_rng(0).random((2, 3, 8, 8)) / 2
    large = np.repeat(np.repeat(blocks, 12, 2), 12, 3)
    vectors = thumbnails(large)
    flat = blocks.reshape(2, -1)
    np.testing.assert_allclose(vectors, (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True))
    np.testing.assert_allclose(thumbnails(0.3 * large + 0.2), vectors)
    assert np.abs(thumbnails(0.5 + 1e-5 * large)).max() < 0.01                                   # flat images are alike
    assert open_feature("thumbnails").call(large).shape == (2, 192)


def test_thumbnails_find_a_copy_of_a_world_under_noise():
    scenes = [world(seed, side=960) for seed in range(12)]
    pictures = np.stack([rgb(scene) for scene in scenes])
    noisy = np.clip(1.1 * pictures[:4] + 0.02 * np.random.default_rng(0).standard_normal(pictures[:4].shape), 0, 1)
    training, held_out = thumbnails(pictures[:6]), thumbnails(pictures[6:])
    assert copying(thumbnails(noisy), training, held_out).nearer.tolist() == [1] * 4
    assert copying(thumbnails(noisy), held_out, training).nearer.tolist() == [0] * 4


def test_rgb_is_reflectance_cut_off_at_one():
    scene = world(3, side=960)
    picture = rgb(scene)
    red = scene["s2l2a_10m"][scene.table["s2l2a_10m"].bands.index("B04")]
    np.testing.assert_allclose(picture[0], np.clip(red / 10_000, 0, 1), rtol=1e-6)
    assert picture.shape == (3, 96, 96) and rgb(scene.without("S2L2A")) is None and rgb(scene, "S2L1C") is not None
