"""What commands share: options that mean the same everywhere, and text from the command line into values."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from copgen.quality import QUALITIES

if TYPE_CHECKING:
    from copgen.majortom.cells import Offset
    from copgen.training.launch import Devices

Resume = Annotated[bool, typer.Option("--resume", help="Go on from the folder's newest checkpoint.")]
DeviceCount = Annotated[int, typer.Option("--devices", help="Devices a node: GPUs, or processes of a CPU.")]
Nodes = Annotated[int, typer.Option(help="Nodes, under torchrun or SLURM, which start a process a device.")]
Strategy = Annotated[str, typer.Option(help="On several devices: ddp copies the weights to each, fsdp shares them out.")]
Accelerator = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16, in place of the recipe's.")]
EngineName = Annotated[str, typer.Option("--engine", help="local: processes of this machine; ray: a Ray cluster (copgen[ray]).")]
Address = Annotated[str | None, typer.Option(help="Of a running Ray cluster; left out: one is started on this machine for as long.")]
ArchiveOffset = Annotated[str, typer.Option(help=(
    "To take off an archive's Sentinel-2 DN: a number, or `named`: 1000 off products of baseline 04.00 and later, by their names."))]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
CellsFile = Annotated[Path | None, typer.Option(help="A text file with one cell a line; # begins a comment.")]
Workers = Annotated[int, typer.Option(help="Processes a device that read data ahead; the run is the same for any number.")]
QualityName = Annotated[str, typer.Option("--quality", help=(
    "; ".join(f"{name} ({one.steps} network calls a sample): {one.said}" for name, one in QUALITIES.items()) + "."))]
NAMES = "rows, products or released keys, comma-separated; `copgen modalities --model MODEL` lists them"


def pair(option: str, text: str | None, kind: Callable[[str], Any]) -> Any:
    """`A,B` -> (A, B)."""
    if text is None:
        return None
    parts = text.split(",")
    try:
        first, second = (kind(part) for part in parts)
    except ValueError:
        raise ValueError(f"{option} {text}: expected two numbers with a comma between them") from None
    return first, second


def one_of(option: str, value: str, *choices: str) -> Any:
    if value not in choices:
        raise ValueError(f"{option} {value}: choose {', '.join(choices)}")
    return value


def at_precision(section: str, precision: str | None) -> tuple[str, ...]:
    """The override of a recipe's precision."""
    return (f"{section}.how.precision={one_of('--precision', precision, 'fp32', 'bf16')}",) if precision else ()


def devices_of(count: int, nodes: int, strategy: str, accelerator: str) -> Devices:
    from copgen.training.launch import Devices

    return Devices(count, nodes, one_of("--strategy", strategy, "auto", "ddp", "fsdp"),
                   one_of("--accelerator", accelerator, "auto", "cpu", "cuda"))


def codec_folder(text: str) -> Path:
    """The folder with one codec a row, or one for several: as it is named, or that of a model."""
    from copgen.model import CopGen

    folder = Path(text)
    if folder.is_dir() and not (folder / "copgen.json").is_file():
        return folder
    return CopGen.from_pretrained(text, device="cpu").folder / "vae"


def listed(text: str) -> tuple[str, ...]:
    """`A,B` -> ("A", "B")."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def offset_in(text: str) -> Offset:
    with suppress(ValueError):
        if text == "named" or math.isfinite(float(text)):
            return "named" if text == "named" else float(text)
    raise ValueError(f"--offset {text}: takes a number of DN, such as 1000, or named")


def exactly_one(rows: tuple[str, ...], word: str) -> tuple[str, ...]:
    if len(rows) != 1:
        raise ValueError(f"{word}: these are {len(rows)} rows ({', '.join(rows)}); name one")
    return rows


def size(option: str, text: str | None) -> int | None:
    """`2GB`, `500MB`, `1.5GiB` or bytes -> bytes."""
    if text is None:
        return None
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    number = text.rstrip("BbKkMmGgIi")
    unit = text[len(number) :].upper()
    try:
        return int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"{option} {text}: expected a size such as 2GB or 500MB") from None
