"""What does an archive hold? `index.parquet`, one row a cell, made from the cells' records: any GIS opens it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from copgen import geoparquet
from copgen.download.records import Archive, Record, Taken
from copgen.download.sources import OPTICAL, RADAR, SOURCES
from copgen.majortom.grid import tile_rings

NAME = "index.parquet"
PIECE = 4096                                     # rows at a time
FILE = pa.struct([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])
NAMES = {product: product.lower() for product in (*SOURCES, "LULC")}
SCHEMA = pa.schema([
    ("cell", pa.string()), ("date", pa.date32()),
    *((f"{name}_id", pa.string()) for name in NAMES.values()),
    *((f"{NAMES[product]}_time", pa.timestamp("s", "UTC")) for product in SOURCES if SOURCES[product].id_pattern),
    ("radar_after_optical_hours", pa.float64()),             # S1RTC less S2L2A (or S2L1C)
    ("levels_apart_hours", pa.float64()),                    # S2L2A less S2L1C: 0 for one datatake
    *((f"{NAMES[product]}_cloud_cover", pa.float64()) for product in OPTICAL),
    ("crs", pa.string()), ("left", pa.float64()), ("top", pa.float64()),
    ("files", pa.list_(FILE)),
    *((f"{NAMES[product]}_from", pa.string()) for product in NAMES),
    *((f"{NAMES[product]}_etag", pa.string()) for product in SOURCES),
    *((f"{NAMES[product]}_commit", pa.string()) for product in SOURCES),
    ("notes", pa.list_(pa.string())),
    ("geometry", pa.binary()),
])


def write_index(archive: Archive) -> Path:
    """Write `index.parquet` of all records, whole or not at all.

    Geometry is the outline of a cell's images in longitude and latitude, in two parts where it crosses the antimeridian.
    """
    return geoparquet.write(archive.root / NAME, tables(archive.records()), notes={
        "what": "an archive of Major TOM cells", "files": "relative to this file",
        "date": "halfway between the days of the radar and the optical images"})


def tables(records: Iterable[Record]) -> Iterator[Any]:
    records, first = iter(records), True
    while (some := list(islice(records, PIECE))) or first:
        left, top, crs = ([getattr(one, what) for one in some] for what in ("left", "top", "crs"))
        rings = tile_rings(left, top, crs) if some else np.zeros((0, 5, 2))
        rows = [row_of(one) for one in some]
        yield pa.Table.from_pylist(rows, schema=SCHEMA).set_column(len(SCHEMA) - 1, SCHEMA.field("geometry"), geoparquet.polygons(rings))
        first = False


def row_of(record: Record) -> dict[str, Any]:
    taken = record.taken
    times = {product: time_of(one) for product, one in taken.items()}
    optical = next((times[product] for product in OPTICAL if times.get(product) is not None), None)
    row: dict[str, Any] = {"cell": record.cell, "date": None if record.date is None else np.datetime64(record.date, "D").item(),
                           "radar_after_optical_hours": apart(times.get(RADAR), optical),
                           "levels_apart_hours": apart(times.get("S2L2A"), times.get("S2L1C")),
                           "crs": record.crs, "left": record.left, "top": record.top, "notes": list(record.notes),
                           "files": [vars(file) for one in taken.values() for file in one.files]}
    for product, one in taken.items():
        name, time = NAMES[product], times[product]
        said = {"id": one.id, "time": None if time is None else time.item(), "cloud_cover": one.cloud_cover, "from": one.source,
                "etag": one.etag, "commit": one.commit}
        row |= {f"{name}_{key}": value for key, value in said.items() if f"{name}_{key}" in SCHEMA.names}
    return row


def time_of(taken: Taken) -> np.datetime64 | None:
    return np.datetime64(taken.sensed.removesuffix("Z"), "s") if taken.sensed else None


def apart(late: np.datetime64 | None, early: np.datetime64 | None) -> float | None:
    return None if late is None or early is None else float((late - early) / np.timedelta64(1, "s") / 3600)
