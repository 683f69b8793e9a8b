"""Which real squares does the bundled model see? Those of files whose licence is clear, cut to 1920 m, as layer shards.

    python runs/real_squares.py --samples ../shared/data --out build/real

- s2-100k (torchgeo/s2-100k by way of microsoft/satclip, MIT; Copernicus Sentinel data): 17 Sentinel-2 L2A patches of 256 x 256 pixels
  without dates. Their 20 m and 60 m bands are repeated to 10 m; where the blocks begin is found from the pixels, so that the native ones
  come back exactly, and squares begin where blocks do.
- mol-l1c-l2a (Open-EO/openeo-geotrellis-extensions, Apache-2.0; Copernicus Sentinel data): the four 10 m bands of one Sentinel-2 L1C scene
  of 2019-04-11. Its L2A is iCOR's and not the product's, and is left out.

None of these squares has all rows: they are incomplete tuples. The TerraMesh cells beside them are the test and are never read here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.warp import transform

from copgen.modalities import TABLE
from copgen.scene import Scene
from copgen.shards import write_shards
from copgen.training.sources import Scenes, meta_of, packed_layers

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
L2A_ROWS = {"s2l2a_10m": 1, "s2l2a_20m": 2, "s2l2a_60m": 6}
SIDE = TABLE.footprint // 10
OFFSET = 1000                                    # of processing baselines from 04.00 on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="folder with s2-100k and mol-l1c-l2a")
    parser.add_argument("--out", type=Path, required=True, help="folder for the layer shards")
    arguments = parser.parse_args()
    scenes = [*patches(arguments.samples / "s2-100k"), *mol(arguments.samples / "mol-l1c-l2a")]
    source = Scenes("real squares of s2-100k and mol-l1c-l2a", scenes)
    write_shards(arguments.out, len(scenes), lambda numbers: packed_layers(source, TABLE, numbers), per_shard=64,
                 meta=meta_of(source, TABLE))
    print(f"{len(scenes)} squares: {arguments.out}")


def patches(folder: Path) -> Iterator[Scene]:
    """Four squares a patch, overlapping by a quarter or so."""
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as file:
            pixels, place = file.read(), centre(file)
        if pixels.shape[0] != len(BANDS):
            raise ValueError(f"{path}: {pixels.shape[0]} bands instead of {len(BANDS)}; only whole L2A patches are used here")
        if pixels.min() > OFFSET:
            pixels = pixels - OFFSET
        bands = dict(zip(BANDS, np.clip(pixels, 1, 19_999).astype(np.float32), strict=True))
        top, left = first_block(np.stack([bands["B01"], bands["B09"]]), 6)
        for row in (top, top + 54):
            for column in (left, left + 54):
                layers = {name: np.stack([bands[band][row : row + SIDE : step, column : column + SIDE : step]
                                          for band in TABLE[name].bands]) for name, step in L2A_ROWS.items()}
                yield Scene({"place": place, **layers}, name=path.stem)


def first_block(pixels: NDArray[np.float32], size: int) -> tuple[int, int]:
    """Row and column at which blocks of size x size equal pixels begin; ValueError where the pixels are no such blocks."""
    starts = []
    for axis in (-2, -1):
        steps = (np.diff(pixels, axis=axis) != 0).any(axis=tuple(k for k in range(pixels.ndim) if k != pixels.ndim + axis))
        phases = {int(k + 1) % size for k in np.flatnonzero(steps)}
        if len(phases) > 1:
            raise ValueError(f"these pixels are not blocks of {size} x {size}: they change at {len(phases)} phases")
        starts.append(phases.pop() if phases else 0)
    return starts[0], starts[1]


def mol(folder: Path) -> Iterator[Scene]:
    """Squares of the one L1C scene."""
    bands = {}
    for band in TABLE["s2l1c_10m"].bands:
        with rasterio.open(folder / f"ref_input_S2_{band}.tif") as file:
            bands[band], place = np.clip(file.read(1), 1, 19_999).astype(np.float32), centre(file)
    height, width = bands["B02"].shape
    for row in range(0, height - SIDE + 1, SIDE):
        for column in range(0, width - SIDE + 1, (width - SIDE) // 2):
            layer = np.stack([bands[band][row : row + SIDE, column : column + SIDE] for band in TABLE["s2l1c_10m"].bands])
            yield Scene({"place": place, "date": np.array(["2019-04-11"], "datetime64[D]"), "s2l1c_10m": layer}, name="mol")


def centre(file: rasterio.DatasetReader) -> NDArray[np.float64]:
    """Latitude and longitude of a file's middle."""
    x, y = file.transform @ (file.width / 2, file.height / 2)
    (lon,), (lat,) = transform(file.crs, "EPSG:4326", [x], [y])
    return np.array([lat, lon])


if __name__ == "__main__":
    main()
