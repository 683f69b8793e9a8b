"""How fast do cells become latents, and latents come to a training?

`python benchmarks/data.py [--folder DIR] [--shards 8]` prints one line a stage, each a process of its own:
- encoding a synthetic cell (36 patches, all rows) with nano's codecs, and a patch with codecs of the paper's size: patches a second, the
  operations of the encoders, and the share of the best fp32 matrix product measured in between, on one thread, by its own time;
- encoding cells, a shard each, with one process and with two;
- reading shards of the paper's size in the order of a training, cold and warm, by no process beside and by two: as they are, and drawn and
  noised as for a training step; memory is that of all processes, with the parts of files that are mapped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from stages import READY, Done, apart, as_text, head, measured, show

MIXED = 4                                        # shards whose samples are shuffled together
ALIKE, ROUNDS = 6, 2                             # cells for two processes, and how often each has a try


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where cells and shards are made and kept; temporary if not given")
    parser.add_argument("--shards", type=int, default=8, help="shards to read from, of 60 MB each")
    parser.add_argument("--stage", choices=STAGES, default=None, help="one stage alone, on a folder that has what it needs")
    options = parser.parse_args()
    if options.stage:
        print(as_text(measured(partial(STAGES[options.stage], options.folder, options.shards))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        head()
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--shards", str(options.shards)]
            for done in apart(command, folder / "shards" if stage.endswith("cold") else folder / "none"):
                show(done)


# --- encoding -------------------------------------------------------------------------------------------------------------------------

def make_cells(folder: Path, shards: int) -> Iterator[Done]:
    """A synthetic cell, and the same under the names of other cells."""
    from copgen.synthetic.cells import cell_of, write_cell

    cell, root = cell_of(0), folder / "archive"
    yield READY
    files = write_cell(root, cell, 0)
    yield Done("draw a synthetic cell", f"{cell}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB")
    row, _, column = cell.partition("_")
    for k in range(1, ALIKE):
        for file in files:
            path = str(file.relative_to(root)).replace(cell, f"{row}_{k}R").replace(f"/{column}/", f"/{k}R/")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / path)


def encode_nano(folder: Path, shards: int) -> Iterator[Done]:
    """A cell as `copgen encode` does it, and what of it was the reading."""
    import torch

    from copgen.bulk.encode import Codecs, Encoder, How, Task
    from copgen.bulk.patches import read_patches
    from copgen.majortom.cells import cells
    from copgen.model import CopGen

    torch.set_num_threads(1)
    root, out = folder / "archive", folder / "alone"
    out.mkdir(exist_ok=True)
    encoder = Encoder(root, out, Codecs.of(CopGen.from_pretrained("nano", device="cpu")), How(batch=1), "cpu")
    cell = cells(root)[0]
    operations = sum(encoder_operations(encoder.codecs[row], *encoder.table.pixel_shape(row)) for row in encoder.table.images)
    yield READY
    start = time.process_time()
    patches = len(read_patches(root, cell, encoder.table))
    reading = time.process_time() - start
    yield Done("read a cell", f"{patches / reading:.1f} patches/s", reading)
    before, (seconds, made), after = best_product(), timed(lambda: encoder(Task(0, (cell,)))), best_product()
    yield Done("encode a cell, nano's codecs", told(made, seconds, operations, np.mean([before, after])), seconds)
    within = seconds - reading
    yield Done("  without the reading", told(made, within, operations, np.mean([before, after])), within)


def encode_base(folder: Path, shards: int) -> Iterator[Done]:
    """One patch by codecs of the paper's size, row by row; weights are random, which takes as long."""
    import torch

    from copgen.bulk.patches import read_patches
    from copgen.codec import CodecConfig, KLCodec
    from copgen.codecs import full_float32
    from copgen.majortom.cells import cells
    from copgen.modalities import TABLE
    from copgen.training.encode import stored_moments

    torch.set_num_threads(1)
    root = folder / "archive"
    patch = read_patches(root, cells(root)[0], TABLE)[14].scene
    yield READY
    all_seconds, all_operations, peaks = 0.0, 0, [best_product()]
    for row in TABLE.images:
        codec = KLCodec(CodecConfig(TABLE[row].channels)).requires_grad_(False)
        pixels = TABLE[row].scale.to_model(patch[row])[None].astype(np.float32)
        with full_float32():
            seconds, _ = timed(lambda codec=codec, pixels=pixels: stored_moments(codec, pixels))
        peaks.append(best_product())
        all_seconds, all_operations = all_seconds + seconds, all_operations + encoder_operations(codec, *TABLE.pixel_shape(row))
    yield Done("encode a patch, the paper's codecs", told(1, all_seconds, all_operations, statistics.mean(peaks)), all_seconds)


def told(patches: int, seconds: float, operations: int, peak: float) -> str:
    rate = patches * operations / seconds
    return (f"{patches / seconds:.3g} patches/s, {operations / 1e9:.4g} GFLOP a patch, {rate / 1e9:.3g} GFLOP/s, "
            f"{rate / peak:.0%} of the product's {peak / 1e9:.3g}")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of this process's own time, and what was made."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def best_product() -> float:
    """Operations a second of the best fp32 matrix product, on this thread."""
    import torch
    from training import Peak

    return Peak(torch.device("cpu"), torch.float32).measure()


def encoder_operations(codec: Any, channels: int, height: int, width: int) -> int:
    """Of one patch, counted by torch without computing anything."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from copgen.codec import KLCodec

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        KLCodec(codec.config).moments(torch.zeros(1, channels, height, width))
    return int(counter.get_total_flops())


def two_processes(folder: Path, shards: int) -> Iterator[Done]:
    """Cells, a shard each, by one process and by two in turn; the best of some rounds, and their own time, as others use the machine."""
    from copgen.bulk.encode import Codecs
    from copgen.model import CopGen

    codecs = Codecs.of(CopGen.from_pretrained("nano", device="cpu"))
    yield READY
    rounds = {workers: [seconds_a_cell(folder, codecs, workers) for _ in range(ROUNDS)] for workers in (1, 2)}
    (wall, own), (wall_of_two, own_of_two) = (np.min(rounds[workers], axis=0) for workers in (1, 2))
    yield Done("encode, 1 and 2 processes",
               f"{36 / wall:.3g} and {36 / wall_of_two:.3g} patches/s: {wall / wall_of_two / 2:.0%} of twice the "
               f"speed at a load of {os.getloadavg()[0]:.1f}; {own / own_of_two:.0%} by the processes' own time")


def seconds_a_cell(folder: Path, codecs: Any, workers: int) -> tuple[float, float]:
    """On the wall and of all processes together, from when each has done a cell: their start is not counted, it is soon past."""
    from copgen.bulk.encode import How, encode_archive

    clocks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(dir=folder) as out:
        encode_archive(folder / "archive", codecs, Path(out), cells_per_shard=1, how=How(batch=1), device="cpu", workers=workers,
                       progress=lambda done, of: clocks.append((time.perf_counter(), own_seconds())))
    begun, ended = clocks[workers], clocks[-1]   # the first says that none is done
    cells = len(clocks) - 1 - workers
    return (ended[0] - begun[0]) / cells, (ended[1] - begun[1]) / cells


def own_seconds() -> float:
    """Of this process and those beside it."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children()))


# --- reading --------------------------------------------------------------------------------------------------------------------------

def make_shards(folder: Path, shards: int) -> Iterator[Done]:
    from reading import made_up

    yield READY
    there = made_up(folder / "shards", shards=shards)
    yield Done("write shards", f"{shards} of {there.counts[0]} samples of {sample_bytes(there):,.0f} bytes")


def read(folder: Path, shards: int, *, mixed: int | None, noise: bool, workers: int, cold: bool) -> Iterator[Done]:
    """Samples in a training's order; the files are out of the page cache, or have been read before."""
    import torch
    from reading import rate

    from copgen.modalities import TABLE
    from copgen.shards import open_shards

    torch.set_num_threads(1)
    there = open_shards(folder / "shards")
    if not cold:
        for path in there.folder.iterdir():
            path.read_bytes()
    yield READY
    found = rate(there, TABLE, workers=workers, shards_mixed=mixed, cold=cold, noise=noise)
    name = f"{'read, noise' if noise else 'read'}; {'by shards' if mixed else 'all over'}; {workers} beside; {'cold' if cold else 'warm'}"
    speed = f"{found.samples:,.0f} samples/s, {found.samples * sample_bytes(there) / 1e6:,.0f} MB/s"
    yield Done(name, speed, None, (found.own + found.mapped) / 1024)


def sample_bytes(there: Any) -> float:
    files = list(there.folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / len(there)


READINGS = {
    f"read-{'shards' if mixed else 'all'}-{'noise' if noise else 'plain'}-{workers}-{'cold' if cold else 'warm'}":
        partial(read, mixed=mixed, noise=noise, workers=workers, cold=cold)
    for (mixed, noise), workers, cold in product([(MIXED, False), (None, False), (MIXED, True)], (0, 2), (True, False))
}
STAGES: dict[str, Callable[[Path, int], Iterator[Done]]] = {
    "cells": make_cells, "nano": encode_nano, "base": encode_base, "two": two_processes, "shards": make_shards, **READINGS,
}


if __name__ == "__main__":
    main()
