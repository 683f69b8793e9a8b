"""How long do codecs take in 32 and in 16 bits, and by how much do 16 bits move a layer, beside what the codec itself loses?

    python benchmarks/codecs.py                       # nano's codecs, times and errors on worlds, under a minute on two cores
    python benchmarks/codecs.py --cells FOLDER        # errors on real cells, too: FOLDER/<product>/<cell>.tif as TerraMesh has them
    python benchmarks/codecs.py --model FOLDER        # the same of any model
    python benchmarks/codecs.py --size full           # times alone, of codecs of the paper's size with random weights

A row passes in a precision where decoding in it differs from decoding in float32 by less than a tenth of the codec's own error:
`copgen.codecs.BITS` is what comes of it. Encoding is measured by how far means move, against the posterior's own spread and against what
rounding latents to bf16 would do, which a backbone in bf16 does anyway.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copgen.codec import CodecConfig, KLCodec, draw, laid_out
from copgen.codecs import NAMES, narrowest
from copgen.modalities import TABLE, Modality, Table
from copgen.training.codec_report import Codecs, errors, first_layers, open_codecs, read_cells, unit_of
from copgen.training.sources import Worlds

PRECISIONS = (torch.bfloat16, torch.float16)
FIRST, PLACES = 10_000_000, 4                    # worlds that no codec was trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--size", choices=("model", "full"), default="model")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    peaks = {dtype: peak(dtype) for dtype in (torch.float32, *PRECISIONS)}
    print(f"{torch.get_num_threads()} threads; a product of 834 x 1024 x 4096: "
          + ", ".join(f"{NAMES[dtype]} {rate:.0f} GFLOP/s" for dtype, rate in peaks.items()))
    if arguments.size == "full":
        print_times(TABLE, {row: KLCodec(CodecConfig(TABLE[row].channels)) for row in ("s2l2a_10m", "s2l2a_20m", "dem", "s2l2a_60m")})
        return
    codecs = open_codecs(arguments.model)
    print_times(codecs.table, {row: codec for row, codec in codecs.by_row.items() if isinstance(codec, KLCodec)})
    sources = {"worlds": Worlds(FIRST, FIRST + PLACES, codecs.table)}
    if arguments.cells:
        sources["cells"] = read_cells(arguments.cells, codecs.table)
    for name, source in sources.items():
        layers, _ = first_layers(source, codecs.table.images, PLACES)
        print_errors(name, codecs, layers)


# --- times --------------------------------------------------------------------------------------------------------------------------

def print_times(table: Table, codecs: dict[str, KLCodec]) -> None:
    """Seconds of every row's halves: as codecs are, and with inner layers in 16 bits."""
    print("\n| row | side | half | fp32 s | " + " | ".join(f"{NAMES[dtype]} s | times as fast" for dtype in PRECISIONS) + " |")
    print("|---|---|---|---|" + "---|---|" * len(PRECISIONS))
    for row, codec in codecs.items():
        pixels = torch.randn(1, *table.pixel_shape(row))
        latents = torch.randn(1, codec.config.latent_channels, *(side // codec.config.stride for side in pixels.shape[2:]))
        made = {dtype: inside(codec, dtype) for dtype in (torch.float32, *PRECISIONS)}
        for half, compute in (("encode", lambda one, x=pixels: one.moments(x)), ("decode", lambda one, z=latents: one.decode(z))):
            took = fastest({dtype: (lambda one=one, compute=compute: compute(one)) for dtype, one in made.items()})
            exact = took[torch.float32]
            print(f"| {row} | {pixels.shape[-1]} | {half} | {exact:.3f} | "
                  + " | ".join(f"{took[dtype]:.3f} | {exact / took[dtype]:.1f}" for dtype in PRECISIONS) + " |", flush=True)


def fastest(ways: dict[torch.dtype, Callable[[], object]], rounds: int = 3) -> dict[torch.dtype, float]:
    """The least seconds of each, taken in turns so that all see the same machine, after one turn that isn't counted."""
    took: dict[torch.dtype, list[float]] = {dtype: [] for dtype in ways}
    for _ in range(rounds + 1):
        for dtype, way in ways.items():
            began = time.perf_counter()
            way()
            took[dtype].append(time.perf_counter() - began)
    return {dtype: min(seconds[1:]) for dtype, seconds in took.items()}


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of one large product."""
    a, b = torch.randn(834, 1024).to(dtype), torch.randn(4096, 1024).to(dtype)
    seconds = fastest({dtype: lambda: torch.nn.functional.linear(a, b)}, rounds=20)[dtype]
    return 2 * 834 * 1024 * 4096 / seconds / 1e9


def inside(codec: KLCodec, dtype: torch.dtype) -> KLCodec:
    """A copy of a codec with its inner layers in `dtype`."""
    made = copy.deepcopy(codec).eval()
    made.load_state_dict({name: laid_out(name, weight, dtype) for name, weight in codec.state_dict().items()}, assign=True)
    return made


# --- errors -------------------------------------------------------------------------------------------------------------------------

def print_errors(name: str, codecs: Codecs, layers: dict[str, NDArray]) -> None:
    print(f"\n{name}, up to {PLACES} places: differences from float32, decoded / encoded in 16 bits\n")
    titles = [f"{NAMES[dtype]}: {what}" for dtype in PRECISIONS
              for what in ("decoded, off by", "share of own", "encoded, off in spreads", "off in roundings to bf16", "share of own")]
    print(f"| row | unit | codec's own error | {' | '.join(titles)} | taken |\n|---|---|---|{'---|' * len(titles)}---|")
    for row, truth in layers.items():
        codec = codecs.by_row[row]
        assert isinstance(codec, KLCodec)
        own, cells = row_errors(codec, codecs.table[row], truth)
        taken = NAMES[narrowest(codecs.table[row], "decoder")]
        print(f"| {row} | {unit_of(codecs.table[row])} | {own:.3g} | {' | '.join(cells)} | {taken} |", flush=True)


def row_errors(codec: KLCodec, row: Modality, truth: NDArray) -> tuple[float, list[str]]:
    """What a codec loses, and a cell of the table for each number."""
    pixels = torch.from_numpy(np.asarray(row.scale.to_model(truth)))
    moments = in_parts(codec.moments, pixels)
    mean, log_variance = moments.chunk(2, dim=1)
    spread, rounded = torch.exp(0.5 * log_variance.clamp(-30, 20)), mean.bfloat16().float()

    def layer(one: KLCodec, latents: Tensor) -> NDArray:
        return row.scale.to_physical(in_parts(one.decode, latents).numpy())

    latents = draw(moments, codec.scaling_factor)
    exact = layer(codec, latents)
    own, cells = off(row, truth, exact), []
    for dtype in PRECISIONS:
        narrow = inside(codec, dtype)
        decoded = off(row, exact, layer(narrow, latents))
        moved = in_parts(narrow.moments, pixels).chunk(2, dim=1)[0]
        encoded = off(row, exact, layer(codec, moved * codec.scaling_factor))
        cells += [f"{decoded:.3g}", share(decoded, own), f"{rms((moved - mean) / spread):.2f}",
                  f"{rms(moved - mean) / rms(rounded - mean):.2f}", share(encoded, own)]
    return own, cells


def in_parts(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([compute(one) for one in x.split(1)])


def off(row: Modality, truth: NDArray, made: NDArray) -> float:
    """Root mean square error in the row's unit; the share of pixels of another class in percent."""
    found = errors(row, truth, made)
    return 100 - found["accuracy"] if row.legend else found["rmse"]


def share(part: float, whole: float) -> str:
    return f"{part / whole:.4f}" if whole else "-"


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


if __name__ == "__main__":
    main()
