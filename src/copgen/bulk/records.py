"""What became of each patch? Records beside every shard; of all shards together the index of samples, and what was rejected.

A patch that is in a shard has one record without a reason. Every fault of a product over a patch is a record with one, whether the patch
is in the shard without that product or not in it at all.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from copgen import geoparquet

INDEX, REJECTED = "index.parquet", "rejected.parquet"
DIGEST = "sha256"                                # in the notes of a shard's records: of its arrays
AT_ONCE = 100_000                                # records that are in memory at one time, and about a row group of the index


@dataclass(frozen=True)
class Record:
    """A patch in a shard: its place and date, its row of the shard, what it has. Or a fault: the product, the reason, the sentence.

    `modalities` has bit k set where row k of the table is there; `no_data` is the largest share of a layer that was filled or is
    unlabelled.
    """

    cell: str
    patch: int
    lat: float | None = None
    lon: float | None = None
    date: datetime.date | None = None
    row: int | None = None
    modalities: int | None = None
    no_data: float | None = None
    warnings: str | None = None
    product: str | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass
class Tally:
    """What records add up to."""

    samples: int = 0
    rejected: int = 0                            # patches that are in no shard
    rows: Counter[str] = field(default_factory=Counter)          # samples that have this row
    reasons: Counter[str] = field(default_factory=Counter)       # patches that have a fault of this kind, in a shard or not
    warned: int = 0                              # samples that came with a warning
    warning: str | None = None                   # the first


def beside(folder: Path, k: int) -> Path:
    """Where the records of the k-th shard are."""
    return folder / f"shard-{k:05d}.parquet"


def schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    return pa.schema({"cell": text, "patch": pa.int16(), "lat": pa.float64(), "lon": pa.float64(), "date": pa.date32(), "row": pa.int32(),
                      "modalities": pa.int32(), "no_data": pa.float32(), "warnings": text, "product": text, "reason": text, "detail": text})


def write_records(path: Path, records: Sequence[Record], digest: str) -> None:
    """The records of one shard, and the hash of its arrays, whole or not at all; the same records give the same bytes."""
    import pyarrow as pa

    columns = {name: [getattr(record, name) for record in records] for name in schema().names}
    geoparquet.write(path, pa.table(columns, schema()), geometry=None, notes={DIGEST: digest})


def read_records(path: Path) -> Any:
    """The records of one shard as a table of pyarrow's; ValueError for a file that is damaged, gone or something else."""
    try:
        table = geoparquet.read(path)
    except ValueError as error:                  # a shard that is there with its records is not made again: one of them has to go
        raise ValueError(f"{path}: is no Parquet file, or damaged or gone; delete it and run copgen encode again") from error
    if table.schema != schema():
        raise ValueError(f"{path}: has the columns {', '.join(table.schema.names)}, which are not those of a shard's records; "
                         "delete it and run copgen encode again")
    return table


def write_index(folder: Path, shards: int, rows: Sequence[str], notes: Mapping[str, Any]) -> Tally:
    """The index of samples, in the order of their numbers, and what was rejected, from the records of all shards; and what they add up to.

    The index is GeoParquet, a point at the centre of each patch. Its notes say which row of the table each bit of `modalities` is. What
    was rejected has no geometry, and no `row` where the patch is in no shard.
    """
    tally = Tally()
    notes = {**notes, "rows": list(rows)}
    geoparquet.write(folder / REJECTED, (faults_of(table, tally) for table in numbered(folder, shards)), geometry=None, notes=notes)
    geoparquet.write(folder / INDEX, (samples_of(table, rows, tally) for table in numbered(folder, shards)), notes=notes)
    return tally


def samples_of(table: Any, rows: Sequence[str], tally: Tally) -> Any:
    """The index's part of some records, counted into the tally."""
    import pyarrow.compute as pc

    table = table.filter(pc.is_null(table["reason"]))
    bits, warnings = table["modalities"].to_numpy(), table["warnings"].drop_null()
    tally.samples += len(table)
    tally.rows.update({row: int((bits >> k & 1).sum()) for k, row in enumerate(rows)})
    tally.warned += len(warnings)
    tally.warning = tally.warning or (warnings[0].as_py() if len(warnings) else None)
    points = geoparquet.points(table["lon"].to_numpy(), table["lat"].to_numpy())
    return table.select(["cell", "patch", "date", "shard", "row", "modalities", "no_data", "warnings"]).append_column("geometry", points)


def faults_of(table: Any, tally: Tally) -> Any:
    """The rejected part of some records, counted into the tally."""
    import pyarrow.compute as pc

    table = table.filter(pc.is_valid(table["reason"]))
    tally.reasons.update(patches_of(table, "reason")["reason"].to_pylist())
    tally.rejected += len(patches_of(table.filter(pc.is_null(table["row"]))))
    return table.select(["cell", "patch", "product", "reason", "detail", "shard", "row"])


def patches_of(table: Any, *also: str) -> Any:
    """Each patch once, or once with each value of another column."""
    return table.group_by(["cell", "patch", *also]).aggregate([])


def numbered(folder: Path, shards: int) -> Iterator[Any]:
    """The records of some shards at a time, those of a shard together, with the shard's number."""
    import pyarrow as pa

    some: list[Any] = []
    for k in range(shards):
        table = read_records(beside(folder, k))
        some.append(table.append_column("shard", pa.array(np.full(len(table), k, np.int32))))
        if sum(map(len, some)) >= AT_ONCE or k == shards - 1:
            yield pa.concat_tables(some)
            some = []
