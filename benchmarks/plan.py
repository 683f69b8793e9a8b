"""What would all 36.6 million patches take? Bytes from the table, hours from rates that were measured here and the ratio of peaks.

`python benchmarks/plan.py [--samples DIR]` prints the tables of docs/scale.md. Every figure is one of: derived (from the table of rows and
the grid), measured (MEASURED below, what benchmarks/data.py, reading.py and training.py printed), or scaled (measured, times a ratio of
peaks or of cores: what it would be if the other machine reached the same share of its peak). Nothing was run on a GPU.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import rasterio
from rasterio.io import MemoryFile

from copgen.majortom.grid import TILE, patch_offsets
from copgen.modalities import TABLE

CELLS = 1_017_469
PATCHES = len(patch_offsets()) ** 2
SAMPLES = Path(os.environ.get("COPGEN_SAMPLES", Path(__file__).parents[2] / "shared" / "data" / "terramesh"))
STORED = {"S2L2A": "uint16", "S2L1C": "uint16", "S1RTC": "float32", "DEM": "float32", "LULC": "uint8", "cloud_mask": "uint8"}
MASKS = 2                                        # the cloud mask lies beside both levels of Sentinel-2

# One thread of this machine, an Intel Xeon with AMX; peaks are those of the matrix product in the same run.
MEASURED = {
    "product, fp32": 168e9, "product, bf16": 1.22e12,                    # operations a second
    "encode, base": 0.166, "encode, nano": 15.2,                         # patches a second: the codecs alone, and all of it
    "read cells": 44.8, "read latents": 1400.0,                          # patches a second; samples a second, drawn and noised
    "train, base": 0.267,                                                # samples a second, bf16
}
PEAK = {"fp32": 67e12, "bf16": 989e12}           # of one H100 SXM, by its data sheet: fp32 without and bf16 with tensor cores, dense
NETWORK = 1e9 / 8                                # bytes a second, assumed
STEPS, BATCH = 500_000, 4096                     # of recipes/base.toml
TRAIN, SAMPLE = 3 * 535.67e9, 50 * 535.67e9 + 1981e9        # operations: a training step of one sample; 50 calls, and decoding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="TerraMesh cells, by which the compression of images is reckoned")
    options = parser.parse_args()
    print(f"{CELLS:,} cells x {PATCHES} patches = {CELLS * PATCHES:,} patches\n")
    stored = images(options.samples)
    print()
    stages(stored)


# --- bytes ----------------------------------------------------------------------------------------------------------------------------

def images(samples: Path) -> float:
    """Print what a cell's images take by product, and return all of it, compressed where it can be measured."""
    print("| product | bands | MB a cell, plain | with DEFLATE |\n|---|--:|--:|--:|")
    plain, packed = {}, {}
    for product, kind in STORED.items():
        copies = MASKS if product == "cloud_mask" else 1
        rows = [TABLE[row] for row in TABLE.select(product)]
        plain[product] = copies * sum(len(row.bands) * (TILE // row.resolution) ** 2 for row in rows) * np.dtype(kind).itemsize / 1e6
        packed[product] = plain[product] * share_left(samples / product, product)
        print(f"| {product} | {copies * sum(len(row.bands) for row in rows)} | {plain[product]:.2f} | {packed[product]:.2f} |")
    print(f"| all | | {sum(plain.values()):.2f} | {sum(packed.values()):.2f} |")
    return sum(packed.values()) * 1e6


def share_left(folder: Path, product: str) -> float:
    """What DEFLATE leaves of three real cells' bands at their own resolution; 1 where there are none."""
    sizes = np.zeros(2)
    for file in sorted(folder.glob("*.tif")):
        with rasterio.open(file) as dataset:
            every = dataset.read()
        for k, band in enumerate(bands_in(product)):
            row = next(TABLE[name] for name in TABLE.select(product) if band in TABLE[name].bands)
            values = every[k, ::row.resolution // 10, ::row.resolution // 10]           # TerraMesh repeats the pixels of coarse bands
            values = (10 ** (values / 10) if product == "S1RTC" else values).astype(STORED[product])
            sizes += values.nbytes, deflated(values)
    return float(sizes[1] / sizes[0]) if sizes[0] else 1.0


def bands_in(product: str) -> list[str]:
    """In the order of TerraMesh's files."""
    bands = [band for name in TABLE.select(product) for band in TABLE[name].bands]
    return sorted(bands, key=lambda band: band.replace("B8A", "B08A")) if product.startswith("S2") else bands


def deflated(values: np.ndarray) -> int:
    predictor = 3 if values.dtype.kind == "f" else 2 if values.itemsize > 1 else 1
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype, compress="deflate",
                         predictor=predictor) as dataset:
            dataset.write(values, 1)
        return len(memory.read())


def latent_bytes() -> int:
    """Of one patch in a shard: moments in 16 bits, place and date in 32, and a byte a row for whether it is there."""
    shapes = {row: TABLE.latent_shape(row) for row in TABLE.names}
    return sum(2 * 2 * int(np.prod(shapes[row])) if TABLE[row].is_image else 4 * int(np.prod(shapes[row])) for row in shapes) + len(shapes)


# --- hours ----------------------------------------------------------------------------------------------------------------------------

def stages(stored: float) -> None:
    """Print what the images and latents take, and how long each stage on one, eight and 64 of its units."""
    every, m = CELLS * PATCHES, MEASURED
    gpu = {"encode": m["encode, base"] * PEAK["fp32"] / m["product, fp32"], "train": m["train, base"] * PEAK["bf16"] / m["product, bf16"]}
    draw = gpu["train"] * TRAIN / SAMPLE
    print(f"on disk: images {CELLS * stored / 1e12:.1f} TB, latents {every * latent_bytes() / 1e12:.2f} TB "
          f"({latent_bytes():,} bytes a patch)\n")
    print("| stage | rate of one unit | one unit | 8 | 64 |\n|---|---|--:|--:|--:|")
    line("download at 1 Gbit/s", f"{NETWORK / stored:.2f} cells/s a link", CELLS / (NETWORK / stored))
    line("read cells, convert", f"{m['read cells']:.0f} patches/s a core", every / m["read cells"])
    line("encode, nano's codecs, cores", f"{m['encode, nano']:.1f} patches/s a core", every / m["encode, nano"])
    line("encode, the paper's codecs, cores", f"{m['encode, base']:.3f} patches/s a core", every / m["encode, base"])
    line("encode, the paper's codecs, GPUs", f"{gpu['encode']:.0f} patches/s a GPU", every / gpu["encode"])
    line("train base, one epoch, GPUs", f"{gpu['train']:.0f} samples/s a GPU", every / gpu["train"])
    line(f"train base, {STEPS:,} steps of {BATCH}, GPUs", f"{gpu['train']:.0f} samples/s a GPU", STEPS * BATCH / gpu["train"])
    line("draw one sample of every patch, GPUs", f"{draw:.1f} samples/s a GPU", every / draw)
    print(f"\na GPU's encoding needs {gpu['encode'] / m['read cells']:.1f} cores that read cells; its training "
          f"{gpu['train'] / m['read latents']:.1f} cores that read latents, {gpu['train'] * latent_bytes() / 1e6:.0f} MB/s")


def line(stage: str, rate: str, seconds: float) -> None:
    print(f"| {stage} | {rate} | {lasting(seconds)} | {lasting(seconds / 8)} | {lasting(seconds / 64)} |")


def lasting(seconds: float) -> str:
    for unit, name in ((365.25 * 86_400, "years"), (86_400, "days"), (3600, "hours")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 60:.3g} minutes"


if __name__ == "__main__":
    main()
