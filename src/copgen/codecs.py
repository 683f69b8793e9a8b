"""Which codecs has a model, and what is read of them? The half that is needed, when it is needed, in as few bits as its layer bears."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from copgen.codec import HALVES, Codec, Half, Identity, KLCodec, kept_in
from copgen.memory import Need
from copgen.modalities import Modality, Table
from copgen.scaling import Decibel, EightBit, Legend, Linear
from copgen.store import check_codec, load_codec, state_of

# Bits of the significand that a decoder's inner layers need, so that their rounding moves a layer by less than a tenth of what the codec
# itself loses (benchmarks/codecs.py). Of every other scale all that float32 has: heights are the exponential of what is decoded. An
# encoder needs 11: with 8 its means move by several times the posterior's own spread.
BITS = {Legend: 8, Decibel: 8, Linear: 11, EightBit: 11}
ENCODER = 11
NARROW = ((torch.float16, 11), (torch.bfloat16, 8))                    # as quick as each other where the processor multiplies them
NATIVE = {torch.float16: ("_is_amx_fp16_supported",), torch.bfloat16: ("_is_avx512_bf16_supported", "_is_amx_tile_supported")}
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
# Bytes that a half computes in, for every pixel of its first grid and unit of its width: measured as the growth of a process's peak,
# rounded up; what is freed in small pieces can't all be used again. Beside it the convolution at hand has its weights in the processor's
# own order: at most a quarter of all.
WORK = {torch.float16: 48, torch.bfloat16: 48, torch.float32: 56}

Key = tuple[str, Half, torch.dtype]
State = tuple[int, int, int]


@dataclass(frozen=True)
class Use:
    """How codecs are used.

    exact: float32 throughout, as codecs are trained; else inner layers are in 16 bits where the row's scale bears it and the processor
    multiplies them natively. GPUs stay in float32. keep: what was read stays for the next use.
    """

    exact: bool = True
    keep: bool = True


class Codecs:
    """The codecs of a model's folder."""

    def __init__(self, folder: Path, table: Table, names: Mapping[str, str], device: torch.device) -> None:
        self.folder, self.table, self.names, self.device = folder, table, names, device
        self._known: dict[str, KLCodec] = {}     # sizes alone
        self._states: dict[str, list[State]] = {}                                      # of their files, when they became known
        self._whole: dict[str, KLCodec] = {}
        self._halves: dict[Key, KLCodec] = {}
        self._coming: dict[Key, Future[KLCodec]] = {}

    def whole(self, row: str) -> Codec:
        """The codec of a row in float32, both halves; rows may share one."""
        if not self.table[row].is_image:
            return Identity()
        self.known(row)
        if (name := self.names[row]) not in self._whole:
            self._whole[name] = self.checked(name, load_codec(self.path(name)))
        return self._whole[name]

    def known(self, row: str) -> KLCodec:
        """The codec of a row without its weights; ValueError where its file or its sizes are wrong, without reading the weights."""
        name = self.names[row]
        if name not in self._known:
            known = check_codec(self.path(name))
            self._states[name] = self.states(name)
            self._known[name] = known
        config = self._known[name].config
        has = config.channels, config.stride, config.latent_channels
        needs = self.table[row].channels, self.table.stride, self.table.latent_channels
        if has != needs:                         # of every row: one may fit a codec that another shares and does not
            raise ValueError(f"{self.folder}: codec {name} has {has[0]} channels, stride {has[1]} and {has[2]} latent channels; "
                             f"row {row} needs {needs[0]}, {needs[1]} and {needs[2]}; convert or train the model again")
        return self._known[name]

    def scaling_factor(self, row: str) -> float:
        return self.known(row).scaling_factor if self.table[row].is_image else Identity.scaling_factor

    def moments(self, row: str, pixels: Tensor, use: Use) -> tuple[Tensor, str]:
        """A row's moments [1, 2z, h, w] of pixels [1, C, H, W], and the precision they were computed in: none of a row without a grid."""
        if not self.table[row].is_image:
            return Identity().moments(pixels), ""
        return self.computed(row, "encoder", lambda codec: codec.moments(pixels), use)

    def decode(self, row: str, latents: Tensor, use: Use) -> tuple[Tensor, str]:
        """A row's pixels [1, C, H, W] of scaled latents [1, z, h, w], and the precision they were computed in, as `moments`."""
        if not self.table[row].is_image:
            return latents, ""
        return self.computed(row, "decoder", lambda codec: codec.decode(latents), use)

    def computed(self, row: str, half: Half, compute: Callable[[KLCodec], Tensor], use: Use) -> tuple[Tensor, str]:
        """What a codec's half makes; again in float32 where it comes out as no number: fp16 ends at 65504."""
        for dtype in dict.fromkeys((self.inner(row, half, use), torch.float32)):
            with full_float32():
                made = compute(self.half(row, half, dtype))
            if not use.keep:
                self.forget()
            if made.isfinite().all():
                break
        return made, NAMES[dtype]

    def inner(self, row: str, half: Half, use: Use) -> torch.dtype:
        return torch.float32 if use.exact or self.device.type != "cpu" else narrowest(self.table[row], half)

    def half(self, row: str, half: Half, dtype: torch.dtype) -> KLCodec:
        """Half of a row's codec: read now, unless it is there or on its way."""
        self.known(row)
        key = self.names[row], half, dtype
        if dtype == torch.float32 and key[0] in self._whole:
            return self._whole[key[0]]
        if key not in self._halves:
            coming = self._coming.pop(key, None)
            self._halves[key] = self.read(key) if coming is None else coming.result()
        return self._halves[key]

    @contextmanager
    def ahead(self, rows: Iterable[str], use: Use) -> Iterator[None]:
        """Read the decoders of these rows beside whatever is computed inside; nothing where they are not kept.

        What is not begun at the end, as after an error, is not read; what failed is told to whoever decodes with it, and tried again later.
        """
        keys = self.keys(rows, "decoder", use) if use.keep else []
        reader = ThreadPoolExecutor(1, "codecs")
        mine = {key: reader.submit(self.read, key) for key in keys if key not in self._halves and key not in self._coming}
        self._coming |= mine
        try:
            yield
        finally:
            for key in mine:
                self._coming.pop(key, None)
            reader.shutdown(wait=False, cancel_futures=True)

    def keys(self, rows: Iterable[str], half: Half, use: Use) -> list[Key]:
        images = [row for row in rows if self.table[row].is_image and self.known(row)]
        return list(dict.fromkeys((self.names[row], half, self.inner(row, half, use)) for row in images))

    def make_room(self, given: Iterable[str], wanted: Iterable[str], use: Use) -> None:
        """Forget all but what these rows need, and that, too, where it is not kept."""
        self.forget(but=[*self.keys(given, "encoder", use), *self.keys(wanted, "decoder", use)] if use.keep else [])

    def forget(self, but: Iterable[Key] = ()) -> None:
        """Give back the memory of all that was read."""
        self._halves = {key: self._halves[key] for key in but if key in self._halves}
        self._whole.clear()

    def read(self, key: Key) -> KLCodec:
        name, half, dtype = key
        return self.checked(name, load_codec(self.path(name), half, dtype))

    def checked(self, name: str, codec: KLCodec) -> KLCodec:
        """A codec just read, on its device; ValueError where it isn't the one that became known: halves of two fit no sample."""
        if self.states(name) != self._states[name]:
            raise ValueError(f"{self.path(name)}: was replaced after the model was opened; open the model again")
        return codec.to(self.device).requires_grad_(False)

    def states(self, name: str) -> list[State]:
        return [state_of(self.path(name) / file) for file in ("codec.json", "codec.safetensors")]

    def path(self, name: str) -> Path:
        return self.folder / "vae" / name

    def need(self, row: str, half: Half, use: Use) -> Need:
        """What half of a row's codec takes; nothing for a row without a grid."""
        if not self.table[row].is_image:
            return Need(0, 0)
        codec, dtype = self.known(row), self.inner(row, half, use)
        weights = sum(weight.numel() * kept_in(name, dtype).itemsize for name, weight in codec.state_dict().items()
                      if name.partition(".")[0] in HALVES[half])
        pixels, config = self.table.side(row) ** 2, codec.config
        grid = WORK[dtype] * config.width * pixels // config.stem**2
        return Need(weights, grid + weights // 4 + 16 * config.channels * pixels)


def narrowest(row: Modality, half: Half) -> torch.dtype:
    """The quickest arithmetic of this processor that has the bits which the row's scale needs."""
    needed = max(BITS.get(type(row.scale), 24), ENCODER if half == "encoder" else 0)
    return next((dtype for dtype, bits in NARROW if bits >= needed and native(dtype)), torch.float32)


def native(dtype: torch.dtype) -> bool:
    """Whether the processor itself multiplies numbers of 16 bits; oneDNN also accepts them where they must be emulated."""
    return any(getattr(torch.cpu, test, lambda: False)() for test in NATIVE[dtype])


def full_float32() -> AbstractContextManager[None]:
    """Convolutions on a GPU with all of float32's digits: TF32's ten bits are metres of height."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
