"""Models on disk: a JSON of what they are beside safetensors; nothing that runs on load.

A model folder holds `copgen.json` (format, name, licence, geometry, rows, backbone sizes, which codec each row uses),
`backbone.safetensors` and, for every codec, `vae/<name>/codec.json` and `vae/<name>/codec.safetensors`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import HALVES, CodecConfig, Half, KLCodec, laid_out
from copgen.config import dump, parse
from copgen.files import json_bytes, write_all, write_json
from copgen.modalities import Modality, Table, table_with

FORMAT = 1
RECORD = "copgen.json"
BACKBONE = "backbone.safetensors"
SPAN = 2**26                                     # bytes of weights that are cast at once


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


def load_codec(folder: Path, half: Half | None = None, dtype: torch.dtype = torch.float32) -> KLCodec:
    """The codec of a folder, or the half of it that encodes or decodes, its inner layers in `dtype` and laid out for it (`laid_out`).

    Raises ValueError for files that are missing, damaged or of another size, in either half.
    """
    codec = empty_codec(folder)
    load_weights(codec, folder / "codec.safetensors", parts=None if half is None else HALVES[half],
                 cast=lambda name, weight: laid_out(name, weight, dtype))
    return (codec if half is None else codec.only(half)).eval()


def check_codec(folder: Path) -> KLCodec:
    """A codec without its weights, whose file's header says that they are there; ValueError as `load_codec`."""
    codec, path = empty_codec(folder), folder / "codec.safetensors"
    check_fit(codec, stored_shapes(path), str(path))
    return codec


def empty_codec(folder: Path) -> KLCodec:
    record = codec_record(folder)
    with torch.device("meta"):
        return KLCodec(record.config, record.scaling_factor)


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


def load_weights(network: nn.Module, path: Path, dtype: torch.dtype = torch.float32, *,
                 cast: Callable[[str, Tensor], Tensor] | None = None, parts: Collection[str] | None = None) -> None:
    """Fill a network from a safetensors file; ValueError for a file that is damaged or replaced meanwhile, or as `fill`.

    cast: a weight's name and the weight as stored -> as it is wanted, instead of `dtype`. parts: the modules of the network that are
    filled; of the others only the shapes are looked at.

    The file is mapped. Weights stored in `dtype` stay where they are, as pages of the file that processes share, so a file in use may be
    replaced (as all writers here do, by renaming) but not written into; others are cast a few at a time, so that at most SPAN bytes of
    the file are in memory beside the network.
    """
    try:
        before = state_of(path)
        shapes = stored_shapes(path)
        check_fit(network, shapes, str(path))    # before anything is read: the weights of another model may not fit into memory
        weights: dict[str, Tensor] = {}
        wanted = {name: 4 * math.prod(shape) for name, shape in shapes.items() if parts is None or name.partition(".")[0] in parts}
        for names in spans(wanted):
            with safe_open(path, framework="pt") as file:                              # a map of its own, gone when its weights are cast
                weights |= {name: cast(name, file.get_tensor(name)) if cast else file.get_tensor(name).to(dtype) for name in names}
        if state_of(path) != before:             # maps of two files may be of two models
            raise ValueError(f"{path}: was replaced while it was read; read it again")
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    network.load_state_dict(weights, strict=parts is None, assign=True)


def stored_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every weight in a safetensors file, from its header; ValueError for a file that is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: is missing, damaged or no safetensors file ({error}); copy or convert the model again")


def state_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written into."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def spans(sizes: Mapping[str, int], most: int = SPAN) -> Iterator[list[str]]:
    """Names in lists of at most `most` bytes together, or of one."""
    names: list[str] = []
    held = 0
    for name, size in sizes.items():
        if names and held + size > most:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    if names:
        yield names


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights strictly; ValueError that names the first that is missing, extra or of another shape."""
    check_fit(network, {name: tensor.shape for name, tensor in weights.items()}, source)
    network.load_state_dict(dict(weights), assign=True)


def check_fit(network: nn.Module, shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """ValueError that names the first weight that is missing, extra or of another shape."""
    wanted = network.state_dict()
    if missing := sorted(set(wanted) - set(shapes)):
        raise ValueError(f"{source}: {counted(missing)} missing, first {missing[0]}; these are weights of another model or size")
    if extra := sorted(set(shapes) - set(wanted)):
        raise ValueError(f"{source}: {counted(extra)} not this model's, first {extra[0]}; these are of another model or size")
    for name, shape in shapes.items():
        if list(shape) != list(wanted[name].shape):
            raise ValueError(f"{source}: {name} has shape {list(shape)}, expected {list(wanted[name].shape)}; "
                             "these are weights of another size")


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
