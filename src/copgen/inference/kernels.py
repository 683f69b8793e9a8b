"""Attention, residual and norm, matrix products and GELU for processors with AMX: kernels.cpp, compiled on first use, or plain torch.

The C++ is compiled once by the machine's own GCC (under two seconds) and kept in the cache folder. Without GCC, on other processors, in
other precisions or with COPGEN_KERNELS=off in the environment, everything here is what torch does, to rounding.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copgen.files import cache_folder

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.cpp", "products.h", "tiles.h"))
# the least that the intrinsics need, named rather than -march=native: a cache may be shared by machines that differ
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-w", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl",
         "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8")
HEAD = 64                                        # values a head that the attention is written for
BLOCK = 32                                       # rows and columns that products go by
_enabled = True


@contextmanager
def plain() -> Iterator[None]:
    """What is called inside is plain torch."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can take these tensors: bf16 in memory, no gradients asked for, on a machine that can run them."""
    return (_enabled and not torch.is_grad_enabled() and all(t.dtype == torch.bfloat16 and t.device.type == "cpu" for t in tensors)
            and library() is not None)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over [B, length, heads, head width]; q may be shorter than k and v."""
    if not usable(q, k, v) or q.shape[-1] != HEAD or any(t.stride()[2:] != (HEAD, 1) for t in (q, k, v)):
        return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
    batch, queries, heads, width = q.shape
    out = torch.empty(q.shape, dtype=q.dtype)
    four = ctypes.c_ssize_t * 4
    samples, rows = (four(*(t.stride(axis) for t in (q, k, v, out))) for axis in (0, 1))
    ready().copgen_attention(*map(pointer, (q, k, v, out)), batch, heads, queries, k.shape[1], ctypes.c_float(width**-0.5), samples, rows)
    return out


def add_norm(norm: nn.LayerNorm, x: Tensor, y: Tensor | None = None) -> Tensor:
    """The layer norm of x + y [..., width]; of x where y is None."""
    terms = [x] if y is None else [x, y]
    if x.shape[-1] % 16 or not usable(*terms, norm.weight) or not all(t.is_contiguous() for t in terms):
        out: Tensor = norm(x if y is None else x + y)
        return out
    out = torch.empty_like(x)
    ready().copgen_add_norm(pointer(x), None if y is None else pointer(y), pointer(norm.weight), pointer(norm.bias), pointer(out),
                            x.numel() // x.shape[-1], x.shape[-1], ctypes.c_float(norm.eps))
    return out


@dataclass(frozen=True)
class Packed:
    """A linear layer's weights as `linear` reads them, bf16 or 8-bit integers with the scale of each output, and its bias."""

    weight: Tensor                               # [in * out]
    scales: Tensor | None                        # float32 [out]: what one is
    bias: Tensor | None                          # bf16 [out]


def pack(weight: Tensor, bias: Tensor | None = None, *, integers: bool = False) -> Packed:
    """Weights [out, in], multiples of 32 (in of 64 for integers), with the bias [out]."""
    values, scales = quantised(weight) if integers else (weight.contiguous(), None)
    packed = torch.empty(values.numel(), dtype=values.dtype)
    ready().copgen_pack(pointer(values), pointer(packed), values.shape[1] // (2 if integers else 1), values.shape[0])
    return Packed(packed, scales, bias)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, in] as integers up to 127 and what one is, float32 [out]."""
    scales = weight.float().abs().amax(1) / 127
    per_one = torch.where(scales > 0, 1 / scales, 0.0)
    return (weight.float() * per_one[:, None]).round().to(torch.int8), scales


def linear(x: Tensor, layer: Packed, *, gelu: bool = False) -> Tensor:
    """x [..., in] times packed weights, plus the bias, or the GELU of that: [..., out]."""
    width, outs = x.shape[-1], layer.weight.numel() // x.shape[-1]
    out = x.new_empty(*x.shape[:-1], outs)
    multiply(x.contiguous(), layer, out, x.numel() // width, width, outs, gelu=gelu)
    return out


def mlp(x: Tensor, first: Packed, second: Packed) -> Tensor:
    """The second layer of the GELU of the first of x [..., width]; what lies between is never put in order."""
    width = x.shape[-1]
    rows, hidden = x.numel() // width, first.weight.numel() // width
    between, out = x.new_empty(-(-rows // BLOCK) * BLOCK, hidden), torch.empty_like(x)
    multiply(x.contiguous(), first, between, rows, width, hidden, gelu=True, out_packed=True)
    multiply(between, second, out, rows, hidden, width, x_packed=True)
    return out


def multiply(x: Tensor, layer: Packed, out: Tensor, rows: int, width: int, outs: int, *, gelu: bool = False, x_packed: bool = False,
             out_packed: bool = False) -> None:
    check(x, layer, outs)
    weight, scales, bias = (None if part is None else pointer(part) for part in (layer.weight, layer.scales, layer.bias))
    ready().copgen_linear(pointer(x), weight, scales, bias, pointer(out), rows, width, outs, gelu, x_packed, out_packed)


def check(x: Tensor, layer: Packed, outs: int) -> None:
    """ValueError for what would be read as the numbers that it is not: a network that was cast or moved once its weights were packed."""
    kinds = x.dtype, layer.weight.dtype, layer.scales.dtype if layer.scales is not None else None
    if (kinds not in ((torch.bfloat16, torch.bfloat16, None), (torch.bfloat16, torch.int8, torch.float32)) or not x.is_cpu
            or not layer.weight.is_cpu or layer.weight.numel() != outs * x.shape[-1] or (torch.is_grad_enabled() and x.requires_grad)):
        raise ValueError(f"a packed layer of {layer.weight.numel()} weights, {kinds[1]}, was given {kinds[0]} {list(x.shape)} on "
                         f"{x.device}: it takes bf16 on the CPU without gradients; load the backbone in fp32 for anything else")


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def ready() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they can't run or be compiled, with a warning if they should have been."""
    if os.environ.get("COPGEN_KERNELS") == "off" or not can_run() or (compiler := gcc()) is None:
        return None
    try:
        found = loaded(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        warnings.warn(f"the kernels for this processor could not be compiled, so network calls take longer ({said}); "
                      "COPGEN_KERNELS=off leaves them out", stacklevel=2)
        return None
    return found if found.copgen_permitted() else None


def can_run() -> bool:
    """Whether the processor has tiles of bf16 and the vectors that go with them."""
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return platform.system() == "Linux" and platform.machine() == "x86_64" and all(getattr(torch.cpu, test, bool)() for test in tests)


@cache
def gcc() -> str | None:
    """A GCC with these instructions, which shares torch's threads; others bring threads of their own that fight for the cores."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "c++")):
        path = shutil.which(name)
        if path and "Free Software Foundation" in version(path):
            return path
    return None


def version(compiler: str) -> str:
    """What a compiler says of itself; nothing where it doesn't run or doesn't answer."""
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def loaded(compiler: str) -> ctypes.CDLL:
    """The shared library, compiled again if what the cache holds is damaged."""
    path = compiled(compiler)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)
        return ctypes.CDLL(str(compiled(compiler)))


def compiled(compiler: str) -> Path:
    """The shared library, compiled if it isn't in the cache; in a folder that nobody else may write to."""
    texts = [*(path.read_text(encoding="utf-8") for path in SOURCES), version(compiler), *FLAGS]
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
    try:
        folder = cache_folder() / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o022 and os.access(folder, os.W_OK)
    except (OSError, RuntimeError):              # RuntimeError: a user without a home
        mine = False
    if not mine:                                 # for this process alone
        folder = Path(tempfile.mkdtemp(prefix="copgen-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / f"{key}.so"
    if not library.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as own:                 # other processes and threads may be compiling it, too
            part = Path(own) / library.name
            subprocess.run([compiler, *FLAGS, str(SOURCES[0]), "-o", str(part)], check=True, capture_output=True, text=True, timeout=120)
            part.replace(library)
    return library
