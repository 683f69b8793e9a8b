"""How do released files become a model folder? Nothing in them is run; their tensors say what they are; all is written or nothing."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from copgen.codec import KLCodec
from copgen.files import sha256, write_all, write_whole
from copgen.published.diffusers import check_config, is_diffusers
from copgen.published.networks import backbone, codec, positions_of
from copgen.published.released import LICENCE, MODELS, System, Vae
from copgen.store import BACKBONE, codec_files, record_of, save_record, weight_bytes

HEADER = 8                                       # bytes of a safetensors file that give the length of its JSON, which comes next


def convert(backbone_file: Path, vaes: Path, out: Path, *, name: str | None = None, heads: int | None = None,
            notes: Mapping[str, object] | None = None) -> Path:
    """Released files to a model folder of ours, which appears whole or not at all.

    backbone_file: `..._nnet_ema.pth`; its tokens say which VAEs it needs. vaes: the folder that holds them as released, or the file where
    it is one. heads: only for sizes that were never released. Raises ValueError for files that are missing or do not fit.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; choose another folder or remove it")
    weights = read_weights(backbone_file)
    with naming(backbone_file):
        system, known, usual = recognise(weights)
    files = {codec_name: find_vae(vaes, vae, system) for codec_name, vae in system.vaes.items()}
    with naming(backbone_file):
        network = backbone(weights, usual if heads is None else heads, system.table)
    with new_folder(out) as part:
        with naming(backbone_file):
            whole = weight_bytes(network.state_dict(), torch.float32)
        write_whole(part / BACKBONE, whole)
        del whole                                # a gigabyte
        parts = {}
        for codec_name, path in files.items():
            network_of_rows = read_vae(path, system.vaes[codec_name], system)
            with naming(path):
                stored = codec_files(network_of_rows, part / "vae" / codec_name, torch.float32)
            write_all(stored)
            parts[codec_name] = part_hashes(network_of_rows)
        inside = vaes if vaes.is_dir() else vaes.parent
        others = {path.relative_to(inside).as_posix(): path for path in files.values()}
        own = backbone_file.name if backbone_file.name not in others else f"backbone {backbone_file.name}"
        sources = {said: sha256(path) for said, path in {own: backbone_file, **others}.items()}
        record = record_of(name or known or out.name, LICENCE, system.table, network.config,
                           {row: codec_name for codec_name, vae in system.vaes.items() for row in vae.rows},
                           notes={"converted from": sources, "codec parts": parts, **(notes or {})})
        save_record(record, part)
    return out


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth, .bin or safetensors file, told by its first bytes. Nothing in it is run: a file with anything but tensors and
    plain values is refused.
    """
    try:
        if is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
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


def is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(HEADER + 1)
    return start[HEADER:] == b"{" and int.from_bytes(start[:HEADER], "little") <= path.stat().st_size - HEADER


def recognise(weights: Mapping[str, Tensor]) -> tuple[System, str | None, int]:
    """Of a released backbone's weights: the system, told by the tokens; the model's name and heads, told by the width as well.

    A width that was never released has no name, and 16 heads. Raises ValueError for tokens that no released model has.
    """
    tokens, width = positions_of(weights)
    alike = {name: released for name, released in MODELS.items() if released.system.table.sequence_length == tokens}
    if not alike:
        known = ", ".join(f"{released.system.table.sequence_length} ({name})" for name, released in MODELS.items())
        raise ValueError(f"pos_embed has {tokens} tokens, released models have {known}; take a released file")
    for name, released in alike.items():
        if released.config.width == width:
            return released.system, name, released.config.heads
    return next(iter(alike.values())).system, None, 16


def find_vae(place: Path, vae: Vae, system: System) -> Path:
    """The weight file of a VAE under a folder laid out as released, or the file itself where a system has one VAE; ValueError that says
    which file goes where.
    """
    if place.is_file() and len(system.vaes) == 1:
        return place
    candidates = [place / file for file in vae.files]
    for path in candidates:
        if path.is_file():
            return path
    raise ValueError(f"{candidates[0]}: there is no such file (nor {', '.join(path.name for path in candidates[1:])} beside it); the VAEs "
                     f"of this backbone are those of {system.source}")


def read_vae(path: Path, vae: Vae, system: System) -> KLCodec:
    """A released VAE from its file; ValueError that names the file for one that isn't the right one."""
    weights = read_weights(path)
    if is_diffusers(weights):
        check_config(path.parent / "config.json", vae.scaling_factor)
    with naming(path):
        return codec(weights, vae.rows[0], table=system.table)


def part_hashes(network: KLCodec) -> dict[str, str]:
    """Hashes of what encodes and of what decodes: they say whether files of two formats, or of two trainings, hold the same encoder."""
    parts = {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "post_quant_conv.")}
    state = {key: tensor.detach().float().contiguous().numpy() for key, tensor in network.state_dict().items()}
    hashes = {}
    for part, starts in parts.items():
        digest = hashlib.sha256()
        for key in sorted(key for key in state if key.startswith(starts)):
            digest.update(f"{key} {state[key].shape}".encode())
            digest.update(state[key].data)
        hashes[part] = digest.hexdigest()
    return hashes


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write in, which becomes `out` when all is well and is gone if not; ValueError where the disk refuses."""
    try:
        ground = next(folder for folder in out.absolute().parents if folder.exists())      # other folders are made when all is well
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=ground))
    except OSError as error:
        raise ValueError(f"{out}: could not be made ({error.strerror or error}); choose another folder") from error
    try:
        yield part
        part.chmod(0o755)
        out.parent.mkdir(parents=True, exist_ok=True)
        part.rename(out)
    except OSError as error:
        raise ValueError(f"{out}: could not be written ({error.strerror or error}); nothing was left behind") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors in here are about this file, and say so."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
