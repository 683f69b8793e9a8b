"""Do 36.6 million patches fit? Everything that handles their index, at full size: time and memory of each stage.

`python benchmarks/scale.py [--cells 1017469] [--folder DIR]` makes the index that `copgen encode` would leave of so many cells with land,
36 patches each, with true centres, in shards of 16 cells; then it opens, splits, shuffles and resumes it. Every stage is a process of its
own. Goals: an index opens in 10 s within 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stages import READY, Done, apart, as_text, head, measured, show

CELLS, PATCHES, CELLS_PER_SHARD = 1_017_469, 36, 16
AT_ONCE = 200 * CELLS_PER_SHARD                  # cells of a row group, as copgen.bulk.records writes them
BATCH = 512                                      # samples of a training step
MOST_SECONDS, MOST_GIGABYTES = 10.0, 2.0         # of opening
COLUMNS = ("cell", "patch", "date", "shard", "row", "modalities", "no_data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--folder", type=Path, default=None, help="where the index is made and kept; a temporary folder if not given")
    parser.add_argument("--stage", choices=STAGES, default=None, help="one stage alone, on a folder that has what it needs")
    options = parser.parse_args()
    if options.stage:
        print(as_text(measured(partial(STAGES[options.stage], options.folder, options.cells))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{options.cells:,} cells, {options.cells * PATCHES:,} patches; load {os.getloadavg()[0]:.1f}")
        head()
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--cells", str(options.cells)]
            for done in apart(command, folder):
                met = "met" if (done.seconds or 0) <= MOST_SECONDS and (done.gigabytes or 0) <= MOST_GIGABYTES else "missed"
                show(done, f"; goal of {MOST_SECONDS:g} s and {MOST_GIGABYTES:g} GB: {met}" if stage == "open" else "")


# --- stages ---------------------------------------------------------------------------------------------------------------------------

def make_cells(folder: Path, count: int) -> Iterator[Done]:
    import numpy as np
    from global_land_mask import globe

    from copgen.majortom import grid

    yield READY
    rows = np.repeat(np.arange(grid.SOUTH, grid.NORTH + 1), grid.COLUMNS)
    columns = np.concatenate([np.arange(number) - number // 2 for number in grid.COLUMNS])
    lat, lon = (rows + 0.5) * grid.HEIGHT, grid.wrapped((columns + 0.5) * 360 / grid.columns_of(rows))
    land = np.flatnonzero((np.abs(lat) < 80) & (lat > -60) & globe.is_land(np.clip(lat, -89.9, 89.9), lon))
    some = np.sort(np.random.default_rng(0).permutation(land)[:count])
    names = grid.names_of(rows[some], columns[some])
    (folder / "cells.txt").write_text("\n".join(sorted(names.tolist())) + "\n")
    yield Done("name the cells of the land", f"{len(land):,} of {len(rows):,} cells of the grid, {len(names):,} kept")
    random = np.random.default_rng(1)
    lat, lon = np.degrees(np.arcsin(random.uniform(-1, 1, 1_000_000))), random.uniform(-180, 180, 1_000_000)
    cells = grid.cell_at(lat, lon)
    again = all(np.array_equal(grid.cell_at(*where(cells)), cells) for where in (grid.point_of, grid.centre_of))
    inside = np.all((grid.point_of(cells)[0] <= lat) & (lat < grid.point_of(cells)[0] + grid.HEIGHT))
    yield Done("a million random places", f"to cells, to points and centres and back: {'all' if again and inside else 'NOT all'} the same")


def write(folder: Path, count: int) -> Iterator[Done]:
    from copgen import geoparquet

    names = (folder / "cells.txt").read_text().split()
    yield READY
    path = geoparquet.write(folder / "index.parquet", tables(names), notes={"rows": ["dem"]})
    yield Done("write the index", f"{path.stat().st_size / 1e6:,.0f} MB, {geoparquet.describe(path).rows:,} rows")


def tables(names: list[str]) -> Iterator[Any]:
    """The index a row group at a time, with true centres by the cells' names; some patches lack a row or a few pixels."""
    import numpy as np
    import pyarrow as pa

    from copgen import geoparquet
    from copgen.majortom import grid

    for first in range(0, len(names), AT_ONCE):
        cells = np.array(names[first:first + AT_ONCE])
        south, west = grid.point_of(cells)
        zone = ((west + 180) // 6).astype(int) % 60 + 1
        codes = [f"EPSG:{(32600 if lat >= 0 else 32700) + number}" for lat, number in zip(south, zone, strict=True)]
        lat, lon = grid.patch_centres_at(*grid.tile_corners(cells, codes), codes)
        random, rows = np.random.default_rng(first), len(cells) * PATCHES
        number = first * PATCHES + np.arange(rows)
        yield pa.table({
            "cell": pa.array(cells.tolist()).take(pa.array(np.repeat(np.arange(len(cells)), PATCHES))),
            "patch": pa.array(np.tile(np.arange(PATCHES), len(cells)), pa.int16()),
            "date": pa.array(np.repeat(random.integers(17_500, 20_000, len(cells)), PATCHES).astype("datetime64[D]")),
            "shard": pa.array(number // (PATCHES * CELLS_PER_SHARD), pa.int32()),
            "row": pa.array(number % (PATCHES * CELLS_PER_SHARD), pa.int32()),
            "modalities": pa.array(np.where(random.random(rows) < 0.9, 4095, 4063), pa.int32()),
            "no_data": pa.array(np.where(random.random(rows) < 0.95, 0, random.random(rows) / 50), pa.float32()),
            "warnings": pa.nulls(rows, pa.string()), "geometry": geoparquet.points(lon.ravel(), lat.ravel()),
        })


def collect(folder: Path, count: int) -> Iterator[Done]:
    """What `copgen encode` does at its end, for a few shards: their records become the index."""
    from datetime import date

    from copgen.bulk.records import Record, beside, write_index, write_records
    from copgen.majortom import grid

    few = 50
    names = (folder / "cells.txt").read_text().split()[:few * CELLS_PER_SHARD]
    lat, lon = (values.tolist() for values in grid.centre_of(names))
    for k in range(few):
        first = k * CELLS_PER_SHARD
        write_records(beside(folder, k), [
            Record(names[first + i], n, lat[first + i], lon[first + i], date(2020, 1, 1), i * PATCHES + n, 4095, 0.0)
            for i in range(CELLS_PER_SHARD) for n in range(PATCHES)
        ], "0" * 64)                            # there are no arrays
    kept = (folder / "index.parquet").rename(folder / "kept.parquet")
    yield READY
    start = time.perf_counter()
    tally = write_index(folder, few, ["dem"], {})
    seconds = time.perf_counter() - start
    whole = seconds * count / len(names) / 60
    yield Done(f"collect {few} shards' records", f"{tally.samples:,} rows; {whole:.1f} minutes for all at this rate", seconds)
    kept.replace(folder / "index.parquet")
    for k in range(few):
        beside(folder, k).unlink()


def open_index(folder: Path, count: int) -> Iterator[Done]:
    from copgen import geoparquet

    geoparquet.arrow()
    yield READY
    table = geoparquet.read(folder / "index.parquet", COLUMNS, coded=["cell"])
    yield Done("open all but the centres, cold", f"{table.nbytes / 1e9:.2f} GB of {len(COLUMNS)} columns")
    places = geoparquet.read_places(folder / "index.parquet")
    yield Done("  the centres beside it, cold", f"{len(places[0]):,} longitudes and latitudes")


def split(folder: Path, count: int) -> Iterator[Done]:
    from copgen.majortom.splits import blocked, leakage, shuffled

    names = (folder / "cells.txt").read_text().split()
    yield READY
    for name, make in (("shuffled", lambda: shuffled(names)), ("blocked", lambda: blocked(names)),
                       ("blocked, no margin", lambda: blocked(names, margin=0))):
        parts = make()
        shares = ", ".join(f"{len(part) / len(names):.1%}" for part in (parts.train, parts.test, parts.between))
        yield Done(f"split: {name}", f"train, test, between: {shares}")
        yield Done("  its leakage", f"{leakage(parts):.1%} of the test cells touch a training cell")


def choose(folder: Path, count: int) -> Iterator[Done]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from copgen import geoparquet
    from copgen.majortom.splits import blocked

    test = pa.array(blocked((folder / "cells.txt").read_text().split()).test)
    yield READY
    column = geoparquet.read(folder / "index.parquet", ["cell"], coded=["cell"])["cell"].unify_dictionaries()
    tested = pc.is_in(column.chunk(0).dictionary, value_set=test).to_numpy(zero_copy_only=False)
    chosen = np.concatenate([tested[chunk.indices.to_numpy()] for chunk in column.chunks])
    yield Done("find the samples of the test cells", f"{chosen.sum():,} of {len(chosen):,}")


def orders(folder: Path, count: int) -> Iterator[Done]:
    import numpy as np

    from copgen.training.order import order_of

    samples = count * PATCHES
    counts = np.full(-(-count // CELLS_PER_SHARD), PATCHES * CELLS_PER_SHARD)
    counts[-1] = samples - counts[:-1].sum()
    far = samples + samples // 2                 # half-way through the second epoch
    yield READY
    for name, mixed in (("over 100 shards at a time", 100), ("over everything", None)):
        order = order_of(counts, 7, mixed)
        order(0, BATCH)
        yield Done(f"shuffle {name}", "to the first batch")
        order_of(counts, 7, mixed)(far, far + BATCH)
        yield Done("  resume", f"at sample {far:,}, from nothing")
        for k in range(1000):
            order(k * BATCH, (k + 1) * BATCH)
        yield Done("  a thousand batches", f"of {BATCH}")


def open_folder(folder: Path, count: int) -> Iterator[Done]:
    import numpy as np

    from copgen.shards import INDEX, name_of, open_shards

    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    number = -(-count // CELLS_PER_SHARD)
    for k in range(number):
        (shards / name_of(k)).touch()
    counts = np.full(number, PATCHES * CELLS_PER_SHARD)
    (shards / INDEX).write_text(json.dumps({"samples": int(counts.sum()), "counts": counts.tolist(), "meta": {}}))
    yield READY
    opened = open_shards(shards)
    yield Done("open the folder of shards", f"{len(opened.counts):,} shards")


STAGES: dict[str, Callable[[Path, int], Iterator[Done]]] = {
    "cells": make_cells, "write": write, "collect": collect, "open": open_index, "split": split, "choose": choose,
    "orders": orders, "folder": open_folder,
}


if __name__ == "__main__":
    main()
