"""Models on disk: a JSON of what they are beside safetensors; nothing that runs on load.

A model folder holds `copgen.json` (format, name, licence, geometry, rows, backbone sizes, which codec each row uses),
`backbone.safetensors` and, for every codec, `vae/<name>/codec.json` and `vae/<name>/codec.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.config import dump, parse
from copgen.files import json_bytes, write_all, write_json
from copgen.modalities import Modality, Table, table_with

FORMAT = 1
RECORD = "copgen.json"
BACKBONE = "backbone.safetensors"


@dataclass(frozen=True)
class ModelRecord:
    """What copgen.json says of a model."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: str
    licence: str
    footprint: int
    stride: int
    patch: int
    latent_channels: int
    rows: list[dict[str, Any]]
    backbone: BackboneConfig
    codecs: dict[str, str]                       # row -> the name of its codec's folder under vae/
    format: int = FORMAT
    notes: dict[str, Any] = field(default_factory=dict)

    def table(self, source: str) -> Table:
        """The table of this model; ValueError that names what differs from this version's rows."""
        for size in ("footprint", "stride", "patch", "latent_channels"):
            if getattr(self, size) < 1:
                raise ValueError(f"{source}: {size} is {getattr(self, size)}, at least 1 is needed; copy or convert the model again")
        names = [str(row.get("name")) for row in self.rows]
        try:
            table = table_with(names)
        except ValueError as error:
            raise ValueError(f"{source}: {error}; copy or convert the model again, or update copgen") from error
        for name, row in zip(names, self.rows, strict=True):
            ours = describe(table[name])
            for key in sorted(ours.keys() | row.keys()):
                if ours.get(key) != row.get(key):
                    raise ValueError(f"{source}: row {name} has {key} = {row.get(key)!r}, this version's table {ours.get(key)!r}; "
                                     "the model was made for another table")
        return replace(table.subset(names), footprint=self.footprint, stride=self.stride, patch=self.patch,
                       latent_channels=self.latent_channels)


@dataclass(frozen=True)
class CodecRecord:
    """What codec.json says of a codec."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    scaling_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    config: CodecConfig


def describe(row: Modality) -> dict[str, Any]:
    """A row as plain data: what a model was trained with, hence what must agree when it is loaded."""
    said = {"name": row.name, "product": row.product, "bands": row.bands, "unit": row.unit, "resolution": row.resolution,
            "scale": kind_of(row.scale)}
    if row.drawing is not None:
        said["drawing"] = kind_of(row.drawing)
    plain: dict[str, Any] = json.loads(json.dumps(said))
    return plain


def kind_of(one: Any) -> dict[str, Any]:
    """A scaling or a drawing as plain data."""
    return {"kind": type(one).__name__, **asdict(one)}


def record_of(name: str, licence: str, table: Table, backbone: BackboneConfig, codecs: Mapping[str, str],
              notes: Mapping[str, Any] | None = None) -> ModelRecord:
    """The record of a model of this table."""
    return ModelRecord(name, licence, table.footprint, table.stride, table.patch, table.latent_channels,
                       [describe(row) for row in table.rows], backbone, dict(codecs), notes=dict(notes or {}))


def save_record(record: ModelRecord, folder: Path) -> None:
    """copgen.json; written last, so that a folder without it is not a model yet. ValueError if it can't be written."""
    write_json(folder / RECORD, dump(record))


def load_record(folder: Path) -> ModelRecord:
    """What a model folder's copgen.json says; ValueError for one that is missing, damaged, of another format, or odd in any key."""
    data = read_json(folder / RECORD)
    if (number := data.get("format", FORMAT)) != FORMAT:                           # before its other keys, which that format may change
        raise ValueError(f"{folder / RECORD}: format {number}, this version reads {FORMAT}; convert the model again or update copgen")
    record = parse(ModelRecord, data, str(folder / RECORD))
    for row, codec in record.codecs.items():
        if not is_plain(codec):                                                    # it becomes a path
            raise ValueError(f"{folder / RECORD}: the codec of {row} is called {codec!r}; a plain name is needed")
    return record


def is_plain(name: str) -> bool:
    """Whether a name may become a folder's: letters, digits, - and _."""
    return name.replace("_", "").replace("-", "").isalnum()


def save_model(folder: Path, name: str, licence: str, backbone: UViT, codecs: Mapping[str, KLCodec], *, half: bool = False,
               name_of: Callable[[str], str] = str, notes: Mapping[str, Any] | None = None) -> None:
    """A model folder, whole or not at all; `half` stores weights in 16 bits. A model that was there stays until all is written.

    codecs: of every row with a grid. name_of: row -> what its codec's folder is called; rows of one name share the codec.

    Raises ValueError for weights that a file can't hold, and for a folder that can't be written.
    """
    dtype = torch.float16 if half else torch.float32
    names = {row: name_of(row) for row in codecs}
    record = record_of(name, licence, backbone.table, backbone.config, names, notes=notes)
    files = {folder / BACKBONE: weight_bytes(backbone.state_dict(), dtype)}
    for called, codec in {names[row]: codec for row, codec in codecs.items()}.items():
        files |= codec_files(codec, folder / "vae" / called, dtype)
    write_all({**files, folder / RECORD: json_bytes(dump(record))}, overwrite=True)


def load_backbone(folder: Path, record: ModelRecord, table: Table, dtype: torch.dtype = torch.float32) -> UViT:
    """The backbone of a model folder in `dtype`; ValueError for weights that are missing, damaged or of another size."""
    with torch.device("meta"):                   # no time is lost on random weights
        backbone = UViT(table, record.backbone)
    load_weights(backbone, folder / BACKBONE, dtype)
    return backbone.eval()


def save_codec(codec: KLCodec, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """codec.json and codec.safetensors in `folder`, both or none; ValueError for weights that a file can't hold, or a full disk."""
    write_all(codec_files(codec, folder, dtype), overwrite=True)


def codec_files(codec: KLCodec, folder: Path, dtype: torch.dtype) -> dict[Path, bytes]:
    """The bytes of a codec's two files; ValueError as `weight_bytes`."""
    return {folder / "codec.safetensors": weight_bytes(codec.state_dict(), dtype),
            folder / "codec.json": json_bytes(dump(CodecRecord(codec.scaling_factor, codec.config)))}


def load_codec(folder: Path) -> KLCodec:
    """The codec of a folder, in float32; ValueError for files that are missing, damaged or of another size."""
    record = codec_record(folder)
    with torch.device("meta"):
        codec = KLCodec(record.config, record.scaling_factor)
    load_weights(codec, folder / "codec.safetensors")
    return codec.eval()


def codec_record(folder: Path) -> CodecRecord:
    """What a codec's folder says of it, without its weights; ValueError for a file that is missing or damaged."""
    return parse(CodecRecord, read_json(folder / "codec.json"), str(folder / "codec.json"))


def weight_bytes(weights: Mapping[str, Tensor], dtype: torch.dtype) -> bytes:
    """A safetensors file; ValueError for weights that are no numbers, or too large for the type."""
    cast = {name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
            for name, tensor in weights.items()}
    if wrong := [name for name, tensor in cast.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{wrong[0]}: holds values that are no numbers in {dtype}; nothing is saved: store it in 32 bits, or make it anew")
    return save(cast)


def load_weights(network: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Fill a network from a safetensors file; ValueError for a file that is damaged, or as `fill`."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: is missing, damaged or no safetensors file ({error}); copy or convert the model again") from error
    fill(network, {name: tensor.to(dtype) for name, tensor in weights.items()}, str(path))


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights strictly; ValueError that names the first that is missing, extra or of another shape."""
    wanted = network.state_dict()
    if missing := sorted(set(wanted) - set(weights)):
        raise ValueError(f"{source}: {counted(missing)} missing, first {missing[0]}; these are weights of another model or size")
    if extra := sorted(set(weights) - set(wanted)):
        raise ValueError(f"{source}: {counted(extra)} not this model's, first {extra[0]}; these are of another model or size")
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{source}: {name} has shape {list(tensor.shape)}, expected {list(wanted[name].shape)}; "
                             "these are weights of another size")
    network.load_state_dict(dict(weights), assign=True)


def counted(names: Sequence[str]) -> str:
    return "1 weight is" if len(names) == 1 else f"{len(names)} weights are"


def read_json(path: Path) -> dict:
    """The JSON object in a file; ValueError for a file that is missing, or holds something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file, so {path.parent} is not a model folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: could not be read ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return record
