"""The one door to the released weights: their names, orders, key maps and scale factors.

Facts are those of the published files (arXiv 2603.03239; 500,000 steps, EMA). Everything here gives our own modules back: a U-ViT
keyed by row name, KL codecs with their scaling factor.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.files import sha256
from copgen.modalities import TABLE, Table
from copgen.store import BACKBONE, fill, record_of, save_codec, save_record, save_weights

KEYS = {row.name: row.released_as for row in TABLE.rows}


def network_order(table: Table) -> tuple[str, ...]:
    """The rows as released weights number them: in the ASCII order of their keys, as the authors' configuration sorts them."""
    return tuple(sorted(table.names, key=lambda row: table[row].released_as))


ORDER = network_order(TABLE)

SCALING_FACTORS = {
    "dem": 0.404247, "lulc": 0.464794, "s1rtc": 0.633804, "cloud_mask": 0.557045,
    "s2l1c_60m": 0.565812, "s2l1c_10m": 0.772514, "s2l1c_20m": 0.765817,
    "s2l2a_60m": 0.571367, "s2l2a_10m": 0.853416, "s2l2a_20m": 0.567267,
}
VAE_FOLDERS = {
    "dem": "DEM_64x64_DEM_latent_8", "lulc": "LULC_192x192_LULC_latent_8", "s1rtc": "S1RTC_192x192_VV_VH_latent_8",
    "s2l1c_60m": "S2L1C_32x32_B1_9_10_latent_8", "s2l1c_10m": "S2L1C_192x192_B4_3_2_8_latent_8",
    "s2l1c_20m": "S2L1C_96x96_B5_6_7_8A_11_12_latent_8", "cloud_mask": "S2L1C_192x192_cloud_mask_latent_8",
    "s2l2a_60m": "S2L2A_32x32_B1_9_latent_8", "s2l2a_10m": "S2L2A_192x192_B4_3_2_8_latent_8",
    "s2l2a_20m": "S2L2A_96x96_B5_6_7_8A_11_12_latent_8",
}
VAE_REPOSITORY = "mespinosami/copgen-vaes"
VAE_FILES = ("model-50-ema.pth", "model-50.pt")  # converted, or the raw training checkpoint
LICENCE = "see the model's page on the Hugging Face hub"
PATIENCE = 10                                    # seconds to wait for the hub's first answer


@dataclass(frozen=True)
class Released:
    """A released backbone: where it is, and the sizes it must have."""

    repository: str | None                       # None: no public one is known
    file: str
    config: BackboneConfig
    parameters: int
    revision: str = "main"


MODELS = {
    "copgen-base": Released("mespinosami/copgen-base", "500000_nnet_ema.pth", BackboneConfig(1024, 20, 16), 286_986_562),
    "copgen-large": Released(None, "500000_nnet_ema.pth", BackboneConfig(1152, 28, 16), 501_092_674),
    "copgen-huge": Released(None, "500000_nnet_ema.pth", BackboneConfig(1536, 30, 24), 951_274_306),
}
VAE_PARAMETERS = 837_121_850                     # all ten


# Weights in memory


def backbone(state_dict: Mapping[str, Tensor], heads: int = 16, table: Table = TABLE) -> UViT:
    """Our backbone filled strictly with released weights; width and depth are read off the tensors.

    Raises ValueError for weights that are not a COP-GEN backbone's over this table.
    """
    weights = checked(state_dict, "a COP-GEN backbone", {"pos_embed": 3, "norm.weight": 1})
    length, width = weights["pos_embed"].shape[-2:]
    if length != table.sequence_length:
        raise ValueError(f"pos_embed has {length} tokens, these {len(table.rows)} modalities have {table.sequence_length}")
    halves = {int(match[1]) for key in weights if (match := re.match(r"in_blocks\.(\d+)\.", key))}
    if heads < 1:
        raise ValueError(f"{heads} heads: at least 1 is needed")
    with torch.device("meta"):
        network = UViT(table, BackboneConfig(width, 2 * len(halves), heads))
    fill(network, dict(renamed(weights, table)), "released backbone")
    return network.eval()


def renamed(weights: Mapping[str, Tensor], table: Table) -> Iterator[tuple[str, Tensor]]:
    """Released keys, numbered, to ours, named; the position table is cut into each row's own."""
    order = network_order(table)
    for key, tensor in weights.items():
        if (match := re.fullmatch(r"patch_embeds\.(\d+)\.proj\.(weight|bias)", key)) and int(match[1]) < len(order):
            yield f"embed.{order[int(match[1])]}.{match[2]}", tensor
        elif (match := re.fullmatch(r"decoder_preds\.(\d+)\.(weight|bias)", key)) and int(match[1]) < len(order):
            yield f"head.{order[int(match[1])]}.{match[2]}", tensor
        elif key != "pos_embed":
            yield key, tensor
    positions = weights["pos_embed"].reshape(table.sequence_length, -1)            # all time tokens, then each modality's patches
    clocks, patches = positions[: len(order)], positions[len(order) :].split([table.tokens(row) for row in order])
    for i, row in enumerate(order):
        yield f"position.{row}", torch.cat([clocks[i : i + 1], patches[i]])


def codec(state_dict: Mapping[str, Tensor], row: str, scaling_factor: float | None = None) -> KLCodec:
    """One row's released VAE, filled strictly: converted weights or a raw training checkpoint; sizes are read off the tensors.

    Raises ValueError for weights that are not such a VAE's, or another row's.
    """
    row = image_row(row)
    needed = {"encoder.conv_in.weight": 4, "encoder.conv_out.weight": 4, "encoder.down.0.block.0.conv1.weight": 4}
    weights = checked(inference_weights(state_dict), f"the VAE of {row}", needed)
    width, channels = weights["encoder.conv_in.weight"].shape[:2]
    if channels != TABLE[row].channels:
        raise ValueError(f"{row}: these weights have {channels} channels, the row has {TABLE[row].channels}; they are another row's")
    levels = sorted({int(match[1]) for key in weights if (match := re.match(r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight", key))})
    multipliers = tuple(len(weights[f"encoder.down.{level}.block.0.conv1.weight"]) // width for level in levels)
    blocks = len([key for key in weights if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", key)])
    config = CodecConfig(channels, len(weights["encoder.conv_out.weight"]) // 2, width, multipliers, blocks)
    with torch.device("meta"):
        network = KLCodec(config, SCALING_FACTORS[row] if scaling_factor is None else scaling_factor)
    fill(network, weights, f"released VAE of {row}")
    return network.eval()


def image_row(name: str) -> str:
    rows = TABLE.select(name)
    if len(rows) != 1 or rows[0] not in TABLE.images:
        raise ValueError(f"{name}: a VAE is one row's; name one of {', '.join(TABLE.images)}")
    return rows[0]


def checked(weights: Mapping[str, object], whose: str, needed: Mapping[str, int]) -> dict[str, Tensor]:
    """The weights, all of them numbers, those that sizes are read off with that many dimensions; else ValueError with the first key."""
    for key, dimensions in needed.items():
        tensor = weights.get(key)
        if not isinstance(tensor, Tensor) or tensor.ndim != dimensions or not all(tensor.shape):
            raise ValueError(f"no tensor {key!r} of {dimensions} dimensions: these are not the weights of {whose}; take the released file")
    tensors = {key: tensor for key, tensor in weights.items() if isinstance(tensor, Tensor) and tensor.is_floating_point()}
    if strange := [key for key in weights if key not in tensors]:
        raise ValueError(f"{strange[0]!r} is no tensor of real numbers: these are not the weights of {whose}; take the released file")
    return tensors


def inference_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged autoencoder of a raw training checkpoint; converted weights come back as they are."""
    nested = state_dict.get("ema")
    if not isinstance(nested, Mapping):
        return dict(state_dict)
    averaged = {key.removeprefix("ema_model."): tensor for key, tensor in nested.items() if key.startswith("ema_model.")}
    return {key: tensor for key, tensor in averaged.items() if not key.startswith("loss.")}


# Files


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth file. Nothing in it is run: a file with anything but tensors and plain values is refused."""
    try:
        with warnings.catch_warnings():          # torch's own, about unusual pickles
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))   # older files are no zip
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except Exception as error:                   # of many types, with advice to load it all the same: not repeated
        raise ValueError(f"{path}: refused, not a file of plain tensors (damaged, or with objects that may run code when they are loaded); "
                         "get the released file again") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path}: expected a table of named tensors, got {type(state).__name__}")
    return state


def convert(backbone_file: Path, vae_folder: Path, out: Path, *, name: str | None = None, heads: int | None = None,
            notes: Mapping[str, object] | None = None) -> Path:
    """Released files to a model folder of ours, which appears whole or not at all.

    backbone_file: `..._nnet_ema.pth`. vae_folder: holds the ten VAEs' folders as released. heads: only for sizes that were never
    released; base, large and huge are recognised. Raises ValueError for files that are missing or do not fit.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; choose another folder or remove it")
    vaes = {row: find_vae(vae_folder, row) for row in VAE_FOLDERS}
    weights = read_weights(backbone_file)
    known, config_heads = recognise(weights)
    with naming(backbone_file):
        network = backbone(weights, config_heads if heads is None else heads)
    try:
        ground = next(folder for folder in out.absolute().parents if folder.exists())      # other folders are made when all is well
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=ground))
    except OSError as error:
        raise ValueError(f"{out}: could not be made ({error.strerror or error}); choose another folder") from error
    try:
        save_weights(network.state_dict(), part / BACKBONE, torch.float32)
        for row, path in vaes.items():
            vae = read_weights(path)
            with naming(path):
                network_of_row = codec(vae, row)
            save_codec(network_of_row, part / "vae" / row)
        sources = {path.name if row == "backbone" else f"{VAE_FOLDERS[row]}/{path.name}": sha256(path)
                   for row, path in {"backbone": backbone_file, **vaes}.items()}
        record = record_of(name or known or out.name, LICENCE, TABLE, network.config, {row: row for row in vaes},
                           notes={"converted from": sources, **(notes or {})})
        save_record(record, part)
        part.chmod(0o755)
        out.parent.mkdir(parents=True, exist_ok=True)
        part.rename(out)
    except OSError as error:
        raise ValueError(f"{out}: could not be written ({error.strerror or error}); nothing was left behind") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors in here are about this file, and say so."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def recognise(weights: Mapping[str, Tensor]) -> tuple[str | None, int]:
    """The released name and the heads of weights of a released width; 16 heads for others."""
    table = weights.get("pos_embed")
    width = table.shape[-1] if isinstance(table, Tensor) and table.ndim else None
    for name, released in MODELS.items():
        if released.config.width == width:
            return name, released.config.heads
    return None, 16


def find_vae(folder: Path, row: str) -> Path:
    """The weight file of a row under a folder laid out as released; ValueError that says which file goes where."""
    candidates = [folder / VAE_FOLDERS[row] / file for file in VAE_FILES]
    for path in candidates:
        if path.is_file():
            return path
    raise ValueError(f"{candidates[0]}: there is no such file (nor {VAE_FILES[1]} beside it); the ten VAEs are those of {VAE_REPOSITORY}")


def cache_folder() -> Path:
    """Where converted models are kept: COPGEN_CACHE, else ~/.cache/copgen."""
    return Path(os.environ.get("COPGEN_CACHE") or Path.home() / ".cache" / "copgen")


def fetch(name: str, *, endpoint: str | None = None) -> Path:
    """The folder of a released model: fetched from the hub and converted on first use, then read from the cache.

    Raises ValueError that says which files to put where when the hub cannot be reached.
    """
    folder = cache_folder() / name
    if (folder / "copgen.json").is_file():
        return folder
    if folder.exists():
        raise ValueError(f"{folder}: exists and is no model (it has no copgen.json); remove it, or choose another cache with COPGEN_CACHE")
    released = MODELS[name]
    if released.repository is None:
        raise ValueError(f"{name}: no public repository is known that holds it; with its {released.file} and the VAEs of {VAE_REPOSITORY} "
                         f"on this machine run: copgen convert --backbone {released.file} --vaes FOLDER --out {folder}")
    try:
        weights, vaes, revisions = download(released.repository, released, endpoint)
    except Exception as error:                   # no network, a proxy, a renamed repository: the way out is the same
        raise ValueError(by_hand(name, released, folder, error)) from error
    try:
        return convert(weights, vaes, folder, name=name, notes={"revisions": revisions})
    except ValueError:
        if (folder / "copgen.json").is_file():   # another process was quicker
            return folder
        raise


def download(source: str, released: Released, endpoint: str | None) -> tuple[Path, Path, dict[str, str]]:
    """The backbone's file, the folder of the ten VAEs and each repository's revision; the hub's own cache is used."""
    from huggingface_hub import HfApi, hf_hub_download

    hub = HfApi(endpoint=endpoint)
    found = {repository: hub.model_info(repository, revision=revision, timeout=PATIENCE)
             for repository, revision in ((source, released.revision), (VAE_REPOSITORY, "main"))}
    revisions = {repository: str(info.sha) for repository, info in found.items()}
    there = {file.rfilename for file in found[VAE_REPOSITORY].siblings or ()}

    def file(repository: str, name: str) -> Path:
        return Path(hf_hub_download(repository, name, revision=revisions[repository], endpoint=endpoint))

    def vae(folder: str) -> Path:
        names = [f"{folder}/{name}" for name in VAE_FILES]                         # converted if it is there, else the raw checkpoint
        return file(VAE_REPOSITORY, next((name for name in names if name in there), names[0]))

    vaes = [vae(folder) for folder in VAE_FOLDERS.values()]
    return file(source, released.file), vaes[0].parent.parent, revisions


def by_hand(name: str, released: Released, folder: Path, error: Exception) -> str:
    reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
    return (f"{name}: could not be fetched from the hub ({reason}); without a network, put {released.file} of {released.repository} and "
            f"the folders {', '.join(sorted(VAE_FOLDERS.values()))} of {VAE_REPOSITORY}, each with its {VAE_FILES[0]}, on this machine "
            f"and run: copgen convert --backbone {released.file} --vaes FOLDER --out {folder}")


def place_as_published(vector: Tensor) -> tuple[float, float]:
    """Latitude and longitude of a generated vector [3] the authors' way, for comparisons: not brought to length 1 first, z clipped."""
    x, y, z = (float(value) for value in vector)
    return math.degrees(math.asin(min(max(z, -1.0), 1.0))), math.degrees(math.atan2(y, x))
