"""What does the published stochastic benchmark hold? Sixteen dates of one place each, and what generators made of it, in parquet files.

Its layout (a dataset on the Hugging Face hub, `COP-GEN-Benchmark` of Major TOM's): `<config>/data/*.parquet` with the configs `real`,
`copgen` and `terramind`; a row is one image of Sentinel-2 L2A: `grid_cell`, `sample_id`, `date`, and twelve GeoTIFFs `B01` ... `B12`;
`metadata/benchmark_grid.json` has the corner of every cell, {cell: {ul_x, ul_y, crs}}.

As published: an image is cut to the 1920 m whose corner lies 4380 m east and south of the cell's (that of a 10,680 m tile), offsets
rounded to whole pixels and zeros where it does not reach; real images with less than 95 % of B02 other than zero are dropped, and cells
with fewer than two left; of COP-GEN's 33 samples a cell 16 are chosen by a hash of the cell's name. A band may be stored at its own
pixels or at 10 m; it comes back at its own. An image that is as large as the cut is the cut already, wherever it says that it lies.

Of the images of a cell the first (by its id) is the observation, the others are further true observations: of the place, so as long as
neither a date nor a band is given.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from copgen.config import parse
from copgen.evaluation.folders import crs_of
from copgen.evaluation.missing import no_data_note
from copgen.evaluation.pixels import MOST_BYTES, at_side, raster_in, sound
from copgen.evaluation.recipe import EXCHANGED
from copgen.evaluation.sources import fingerprint
from copgen.majortom.grid import TILE
from copgen.modalities import TABLE, Modality, Table
from copgen.reading.squares import same_crs
from copgen.scene import Footprint, Scene, parse_date

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
KEYS = ("grid_cell", "sample_id", "date")
PRODUCT = "S2L2A"
GRID = "metadata/benchmark_grid.json"
CHOSEN = 16                                      # samples of a cell that are looked at
LEAST_SEEN = 0.95                                # of B02's pixels other than zero
MOST_ROWS = 1_000_000
SEED = re.compile(r"seed_(\d{1,9})")


@dataclass(frozen=True)
class Corner:
    """The upper left corner of a cell's tile."""

    ul_x: float
    ul_y: float
    crs: str


@dataclass(frozen=True)
class Place:
    """Where an image is: its file, row group and row in that."""

    file: Path
    group: int
    row: int
    id: str
    date: str | None


@dataclass(frozen=True)
class Images:
    """The images of one config, found by their cells, read when asked for."""

    root: Path
    config: str
    table: Table = TABLE

    @property
    def files(self) -> list[Path]:
        found = sorted((self.root / self.config / "data").glob("*.parquet"))
        if not found:
            raise ValueError(f"{self.root}: has no {self.config}/data/*.parquet; name the folder that holds the benchmark, with its "
                             "configs real, copgen and terramind")
        return found

    @cached_property
    def places(self) -> Mapping[str, Sequence[Place]]:
        """The images of every cell, sorted by name and id. Reads three columns and no image."""
        found: dict[str, list[Place]] = {}
        for file in self.files:
            with opened(file) as parquet:
                if parquet.metadata.num_rows > MOST_ROWS:
                    raise ValueError(f"{file}: {parquet.metadata.num_rows} rows; at most {MOST_ROWS:,} are read")
                if lacking := [name for name in (*KEYS[:2], *BANDS) if name not in parquet.schema_arrow.names]:
                    raise ValueError(f"{file}: has no column {', '.join(lacking)}; the benchmark has {', '.join((*KEYS, *BANDS))}")
                for group in range(parquet.num_row_groups):
                    columns = [name for name in KEYS if name in parquet.schema_arrow.names]
                    for row, one in enumerate(parquet.read_row_group(group, columns=columns).to_pylist()):
                        place = Place(file, group, row, str(one["sample_id"]), None if one.get("date") is None else str(one["date"])[:10])
                        found.setdefault(str(one["grid_cell"]), []).append(place)
        return {cell: sorted(found[cell], key=lambda place: (natural(place.id), place.date or "")) for cell in sorted(found)}

    def read(self, places: Sequence[Place], bands: Sequence[str]) -> Iterator[tuple[Place, Mapping[str, bytes]]]:
        """The files of these bands of images, a row group at a time and an image at a time."""
        for file, group in sorted({(place.file, place.group) for place in places}):
            wanted = {place.row: place for place in places if (place.file, place.group) == (file, group)}
            with opened(file) as parquet:
                check_group(parquet, group, bands, file)
                for row, batch in enumerate(parquet.iter_batches(1, row_groups=[group], columns=list(bands))):
                    if row in wanted:
                        yield wanted[row], {band: blob(batch.column(band)[0].as_py(), f"{file}: {wanted[row].id} {band}") for band in bands}
                    if row >= max(wanted):
                        break

    def layers(self, blobs: Mapping[str, bytes], square: Footprint, what: str) -> dict[str, NDArray[Any]]:
        """The product's rows over the square, in digital numbers."""
        rows = [self.table[name] for name in self.table.select(PRODUCT)]
        return {row.name: np.stack([band_of(blobs[band], row, self.table, square, f"{what} {band}") for band in row.bands]) for row in rows}

    @cached_property
    def corners(self) -> Mapping[str, Corner]:
        path = self.root / GRID
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: the corners of the cells could not be read ({error}); the benchmark has this file") from error
        return parse(dict[str, Corner], said, str(path))

    def square(self, cell: str) -> Footprint:
        """The 1920 m of a cell that all are compared on."""
        if cell not in self.corners:
            raise ValueError(f"{self.root / GRID}: has no corner of cell {cell}; {len(self.corners)} cells have one")
        corner, inwards = self.corners[cell], (TILE - self.table.footprint) / 2
        return Footprint(crs_of(corner.crs, self.root / GRID), corner.ul_x + inwards, corner.ul_y - inwards, float(self.table.footprint))


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A parquet file that is read as it goes; ValueError for what is none, also where that shows only at reading."""
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as parquet:
            yield parquet
    except (OSError, pa.ArrowException) as error:
        said = (str(error).splitlines() or ["no reason is given"])[0]
        raise ValueError(f"{file}: is no parquet file, or damaged ({said}); download it again") from error


def check_group(parquet: Any, group: int, bands: Sequence[str], file: Path) -> None:
    """ValueError for images that would be larger than any can be, before they are unpacked."""
    told = parquet.metadata.row_group(group)
    columns = [told.column(k) for k in range(told.num_columns)]
    sizes = [column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] in bands]
    if max(sizes, default=0) > told.num_rows * MOST_BYTES:
        raise ValueError(f"{file}: row group {group} holds {max(sizes) / 2**20:.0f} MiB of one band in {told.num_rows} rows; "
                         f"{MOST_BYTES >> 20} MiB are the most for an image of one square")


def blob(value: Any, what: str) -> bytes:
    """The bytes of a column's value, which may be wrapped as the hub's libraries wrap images."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ValueError(f"{what}: holds no file; download it again")
    return data


def natural(text: str) -> list[tuple[int, str]]:
    """A key by which seed_2 comes before seed_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


# --- the cut ------------------------------------------------------------------------------------------------------------------------

def band_of(data: bytes, row: Modality, table: Table, square: Footprint, what: str) -> NDArray[np.float32]:
    """One band over the square, [H, W] at the row's own resolution."""
    with raster_in(data, what) as dataset:
        if dataset.count != 1:
            raise ValueError(f"{what}: has {dataset.count} bands; one is expected")
        sides = {table.side(row.name), table.footprint // 10}
        values = dataset.read() if dataset.width == dataset.height and dataset.width in sides else cut(dataset, square, what)
    return at_side(sound(values, row, None, what), table.side(row.name), row, what)[0].astype(np.float32)


def cut(dataset: Any, square: Footprint, what: str) -> NDArray[Any]:
    """The pixels [1, h, w] of an image from the square's corner on, offsets rounded, zeros outside, as published."""
    t = dataset.transform
    if dataset.crs is None or t.b or t.d or t.a <= 0 or abs(t.a + t.e) > 1e-6 * t.a:
        raise ValueError(f"{what}: {dataset.width} x {dataset.height} pixels without a place on the ground, north up; they cannot be cut "
                         "to the square")
    left, bottom, right, top = square.bounds
    if not same_crs(dataset.crs, square.crs):
        left, bottom, right, top = transform_bounds(square.crs, dataset.crs, left, bottom, right, top)
    side = round(square.side / t.a)
    if side < 1 or abs(side * t.a - square.side) > 1e-6 * square.side:
        raise ValueError(f"{what}: its pixels of {t.a:g} do not fill the {square.side:g} m of the square")
    col, row = round((left - t.c) / t.a), round((t.f - top) / t.a)
    whole = np.zeros((1, side, side), dataset.dtypes[0])
    up, down, west, east = max(row, 0), min(row + side, dataset.height), max(col, 0), min(col + side, dataset.width)
    if up < down and west < east:
        whole[:, up - row:down - row, west - col:east - col] = dataset.read(window=Window(west, up, east - west, down - up))
    return whole


# --- the truth ----------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BenchmarkCases:
    """The cells of the benchmark with their real images."""

    root: Path
    table: Table = TABLE
    images: Images = field(init=False)

    CONFIG: ClassVar[str] = "real"

    def __post_init__(self) -> None:
        if self.table.footprint != TABLE.footprint:
            raise ValueError(f"{self.root}: the benchmark's squares are of {TABLE.footprint} m, and the model sees "
                             f"{self.table.footprint} m; choose a model of this footprint")
        object.__setattr__(self, "images", Images(self.root, self.CONFIG, self.table))

    def names(self) -> Sequence[str]:
        """The cells with two real images or more that are not mostly zeros. Reads B02 of all: that of the whole benchmark takes a while."""
        return [cell for cell in self.images.places if len(self.kept(cell)) > 1]

    def kept(self, cell: str) -> list[Place]:
        """The real images of a cell with enough of B02."""
        places, square = self.images.places.get(cell, ()), self.images.square(cell)
        row = next(row for row in self.table.rows if row.product == PRODUCT and "B02" in row.bands)
        seen = {place for place, blobs in self.images.read(places, ["B02"])
                if (band_of(blobs["B02"], row, self.table, square, f"{cell} {place.id} B02") != 0).mean() >= LEAST_SEEN}
        return [place for place in places if place in seen]

    def observation(self, name: str) -> Scene:
        return real_scenes(self, name)[0]

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        free = not {"date", *self.table.select(PRODUCT)} & set(given)
        return list(real_scenes(self, name)[1:count + 1]) if free else []

    def record(self) -> dict[str, Any]:
        return {"source": "benchmark", **fingerprint(self.root, [*self.images.files, self.root / GRID])}


@lru_cache(maxsize=2)
def real_scenes(cases: BenchmarkCases, cell: str) -> tuple[Scene, ...]:
    """All real images of a cell that are kept, by their ids."""
    kept = cases.kept(cell)
    if len(kept) < 2:
        raise ValueError(f"case {cell!r}: {len(kept)} real images with at least {LEAST_SEEN:.0%} of B02 other than zero; two are needed")
    square = cases.images.square(cell)
    made = {place: cases.images.layers(blobs, square, f"{cell} {place.id}") for place, blobs in cases.images.read(kept, BANDS)}
    return tuple(real_scene(cases.table, cell, square, place, made[place]) for place in kept)


def real_scene(table: Table, cell: str, square: Footprint, place: Place, layers: dict[str, NDArray[Any]]) -> Scene:
    known: dict[str, NDArray[Any]] = {"place": np.array(square.centre)} | layers
    if place.date is not None:
        known["date"] = parse_date(place.date)
    unseen = no_data_note({row: layer == 0 for row, layer in layers.items()})
    return Scene({row: known[row] for row in table.names if row in known}, square, cell, table, {"sample": place.id, **unseen})


# --- the samples --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BenchmarkSamples:
    """The samples of one config as a generator. What was given to it is not written down: a place is its own, bands and dates were not."""

    images: Images

    @property
    def table(self) -> Table:
        return self.images.table

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        """The first len(seeds) of the samples that are looked at, under these seeds."""
        rows = [row for row in self.table.select(PRODUCT) if row in want]
        if not rows or EXCHANGED in case.notes or {"date", *self.table.select(PRODUCT)} & set(given):
            return []
        places = chosen(case.name, self.images.places.get(case.name, ()))[:len(seeds)]
        if not places:
            return []
        square = self.images.square(case.name)
        check_square(case, square)
        made = {place: self.images.layers(blobs, square, f"{case.name} {place.id}") for place, blobs in self.images.read(places, BANDS)}
        return [case.with_layers({row: made[place][row] for row in rows}, seed=seed, sample=place.id)
                for seed, place in zip(seeds, places, strict=False)]

    def record(self) -> dict[str, Any]:
        root = self.images.root
        return {"source": "benchmark", "name": self.images.config, **fingerprint(root, [*self.images.files, root / GRID])}


def check_square(case: Scene, square: Footprint) -> None:
    """ValueError where a case lies a pixel or more beside the benchmark's square, as those of the same name in another grid do."""
    mine = case.footprint
    if mine is not None and not (same_crs(mine.crs, square.crs) and max(abs(mine.left - square.left), abs(mine.top - square.top)) < 10):
        raise ValueError(f"case {case.name}: lies at {mine.left:.2f}, {mine.top:.2f} ({mine.crs.to_string()}), and the benchmark's samples "
                         f"at {square.left:.2f}, {square.top:.2f} ({square.crs.to_string()}); use --cases benchmark:FOLDER")


def open_samples(root: Path, table: Table = TABLE, config: str = "copgen") -> BenchmarkSamples:
    """The samples of a config; ValueError for one that is not there."""
    if not re.fullmatch(r"[\w-]+", config):
        raise ValueError(f"config={config}: a folder of the benchmark is needed, such as copgen or terramind")
    if config == BenchmarkCases.CONFIG:
        raise ValueError(f"config={config}: these are the truths themselves; name the samples of a model, such as copgen or terramind")
    images = Images(root, config, table)
    images.files                                 # noqa: B018 - refuses a folder without any
    return BenchmarkSamples(images)


def chosen(cell: str, places: Sequence[Place]) -> list[Place]:
    """The samples that the benchmark looks at: all, or of more than 16 with numbered seeds those that a hash of the cell's name chooses."""
    by_seed = {int(found[1]): place for place in places if (found := SEED.fullmatch(place.id))}
    if len(places) <= CHOSEN or len(by_seed) != len(places):
        return list(places[:CHOSEN])
    return [by_seed[seed] for seed in chosen_seeds(cell, sorted(by_seed))]


def chosen_seeds(cell: str, pool: Sequence[int], count: int = CHOSEN) -> list[int]:
    """The seeds of a cell that are looked at, as published (`copgen-benchmark/v1`): the same ones for everybody."""
    key = int.from_bytes(hashlib.sha256(f"copgen-benchmark/v1:{cell}".encode()).digest()[:8], "big")
    return sorted(random.Random(key).sample(sorted(pool), count))
