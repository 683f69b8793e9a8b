"""Which samples did the published code leave on disk? Its run folders, and those of its TerraMind baseline.

    FOLDER/input_<what was given>_output_<what was drawn>_seed_<N>/         products, or all of them single rows
        generations/Core-S2L2A/<row>/<cell>/<product id>/B02.tif            one file a band; S1RTC vv.tif, vh.tif; DEM DEM.tif;
                                                                            cloud_mask.tif among the bands of S2L1C
        generations/Core-LULC/<row>/<column>/<row>_<column>_<year>.tif
        lat_lon.csv, timestamp.csv                                          a line a cell

With several samples a run there are `<band>_sample_<k>.tif` and lines `<cell>_sample_<k>`; the file without a number is then their mean,
which is no sample and is passed over. FOLDER is the folder of runs, or one run. All runs that were given the same count together: their
samples are numbered by seed, then k, and the samples asked for are the first so many of them.

The square is the middle of the cell: pixel (size - patch) // 2 of every image, 4380 m from its corner, which is the middle of
`archive:ROOT`. The georeference of these files is that of the whole image, 4380 m off, and is not looked at. Images finer than the row
(TerraMind's, all at 10 m) are averaged. The rows named by `blind` are left out when what was given is compared:
`published:PATH,blind=date+cloud_mask` for a generator that never sees them.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.evaluation.folders import rows_named
from copgen.evaluation.pixels import at_side, raster_at, sound
from copgen.evaluation.recipe import EXCHANGED
from copgen.evaluation.sources import fingerprint
from copgen.majortom.grid import CELL
from copgen.modalities import TABLE, Modality, Table
from copgen.reading import CopgenWarning
from copgen.scene import Scene, parse_date

BASES = {"lat_lon": "place", "timestamps": "date", "coords": "place",        # the published names -> products
         "DEM": "DEM", "LULC": "LULC", "cloud_mask": "cloud_mask", "S1RTC": "S1RTC", "S2L1C": "S2L1C", "S2L2A": "S2L2A"}
RUN = re.compile(r"input_(.*?)_?output_(.+)_seed_(\d{1,9})")
MASK_IN = {"cloud_mask": "S2L1C"}                # the folder that a product shares with another
NUMBERED = re.compile(r"(.+)_sample_(\d{1,6})")
MOST_LINES = 1_000_000


@dataclass(frozen=True)
class Run:
    """One run folder: the rows that were given and drawn, and its seed."""

    path: Path
    given: frozenset[str]
    drawn: frozenset[str]
    seed: int

    @property
    def generations(self) -> Path:
        return self.path / "generations"

    @cached_property
    def numbers(self) -> tuple[int | None, ...]:
        """The numbers of its samples; (None,) where there is one that has none. By the first of its folders that holds images."""
        for folder in sorted(self.generations.glob("Core-*/*/*")):
            found = {NUMBERED.fullmatch(file.stem) for file in folder.rglob("*.tif")}
            if found:
                return tuple(sorted({int(one[2]) for one in found if one})) or (None,)
        lines = [NUMBERED.fullmatch(cell) for cell in (*self.places, *self.dates)]
        return tuple(sorted({int(one[2]) for one in lines if one})) or (None,)

    @cached_property
    def places(self) -> dict[str, list[str]]:
        return self.table("lat_lon")

    @cached_property
    def dates(self) -> dict[str, list[str]]:
        return self.table("timestamp")

    def table(self, name: str) -> dict[str, list[str]]:
        """The lines of a CSV by their first column; {} where there is none."""
        for path in (self.path / f"{name}.csv", self.generations / f"{name}.csv"):
            if path.is_file():
                return dict(lines_of(path))
        return {}


def lines_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, line in enumerate(csv.reader(file)):
                if number > MOST_LINES:
                    raise ValueError(f"more than {MOST_LINES:,} lines")
                if number and line:
                    yield line[0], line[1:]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: is no table of places or dates ({error}); copy it again") from error


def open_runs(path: Path, table: Table = TABLE, blind: str = "") -> Runs:
    """The runs in a folder, or the one that it is; ValueError where there are none."""
    folders = [path] if RUN.fullmatch(path.name) else sorted(one for one in path.iterdir() if one.is_dir() and RUN.fullmatch(one.name))
    runs = [run_of(folder, table) for folder in folders]
    if not runs:
        raise ValueError(f"{path}: holds no run folders of the published layout; they are called like "
                         "input_DEM_LULC_output_S1RTC_S2L2A_seed_20")
    unseen = frozenset(rows_named(blind, table, path)) if blind else frozenset()
    return Runs(path, tuple(sorted(runs, key=lambda run: (run.seed, run.path.name))), table, unseen)


def run_of(folder: Path, table: Table) -> Run:
    found = RUN.fullmatch(folder.name)
    assert found
    return Run(folder, *rows_in(found[1], found[2], folder, table), int(found[3]))


def rows_in(given: str, drawn: str, where: Path, table: Table) -> tuple[frozenset[str], frozenset[str]]:
    """The rows of names joined by `_`, some of which hold one themselves: published names of products, or all of them of rows.

    Both texts are read one way: `S2L1C_cloud_mask` is two products, or the row of the mask alone.
    """
    of_products = {name: frozenset(table.called(product)) for name, product in BASES.items()}
    of_rows = {row.released_as: frozenset([row.name]) for row in table.rows}
    for names in (of_products, of_rows):
        rows = spelled(given, names), spelled(drawn, names)
        if rows[0] is not None and rows[1] is not None:
            return rows[0], rows[1]
    odd = next((text for text in (given, drawn) if spelled(text, of_products) is None), drawn)
    raise ValueError(f"{where}: {odd!r} in its name is not made of the published names {', '.join(BASES)}; rename or move the folder")


def spelled(text: str, names: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """The rows of all names in a text; None where something in it is no name."""
    rows: frozenset[str] = frozenset()
    while text:
        name = next((name for name in names if text == name or text.startswith(f"{name}_")), None)
        if name is None:
            return None
        rows, text = rows | names[name], text[len(name) + 1:]
    return rows


@dataclass(frozen=True)
class Runs:
    """Samples of the published layout as a generator."""

    path: Path
    runs: tuple[Run, ...]
    table: Table = TABLE
    blind: frozenset[str] = frozenset()

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        """The first len(seeds) samples of a cell, under these seeds; what a run did not draw is left out."""
        if not CELL.fullmatch(case.name) or EXCHANGED in case.notes:      # neither parts of cells nor other cells' layers are known there
            return []
        runs = [run for run in self.runs if run.given - self.blind == set(given) - self.blind and run.drawn & set(want)]
        there = sorted({(run.seed, number or 0) for run in runs for number in run.numbers})
        found = []
        for seed, (published, number) in zip(seeds, there, strict=False):
            layers: dict[str, NDArray[Any]] = {}
            for run in runs:                     # one output a run, as the published protocols have it, or many
                if run.seed == published and number in {one or 0 for one in run.numbers}:
                    layers |= read_run(run, case, want, None if run.numbers == (None,) else number)
            if layers:
                found.append(self.scene(case, layers, seed, published, number))
        return found

    def scene(self, case: Scene, layers: dict[str, NDArray[Any]], seed: int, published: int, number: int) -> Scene:
        try:
            return case.with_layers({row: layers[row] for row in case.table.names if row in layers}, seed=seed,
                                    **{"published seed": published, "published sample": number})
        except ValueError as error:
            raise ValueError(f"{self.path}: seed {published}, {case.name}: {error}") from error

    def record(self) -> dict[str, Any]:
        files = [file for run in self.runs for file in (*run.path.glob("*.csv"), *run.generations.rglob("*.csv"),
                                                        *run.generations.rglob("*.tif"))]
        return {"source": "published", "name": self.path.name, "runs": len(self.runs), "blind": sorted(self.blind),
                **fingerprint(self.path, files)}


def read_run(run: Run, case: Scene, want: Sequence[str], number: int | None) -> dict[str, NDArray[Any]]:
    """The wanted rows of one sample of a run at a cell, as far as they are there."""
    name = case.name if number is None else f"{case.name}_sample_{number}"
    layers: dict[str, NDArray[Any]] = {}
    for row in (case.table[name] for name in want if name in run.drawn):
        if row.is_image:
            image = read_row(run, case, row, "" if number is None else f"_sample_{number}")
        else:
            line = (run.places if row.name == "place" else run.dates).get(name)
            image = None if line is None else vector(row.name, line, run.path)
        if image is not None:
            layers[row.name] = image
    return layers


def vector(row: str, line: Sequence[str], where: Path) -> NDArray[Any]:
    """A place of `lat,lon` or a date of `day,month,year`."""
    try:
        if row == "place":
            lat, lon = (float(text) for text in line[:2])
            return np.array([lat, (lon + 180) % 360 - 180])
        day, month, year = (int(float(text)) for text in line[:3])
        return parse_date(f"{year:04d}-{month:02d}-{day:02d}")
    except ValueError as error:
        raise ValueError(f"{where}: {row} {','.join(line)[:80]!r} is none ({error}); lat,lon or day,month,year is needed") from error


def read_row(run: Run, case: Scene, row: Modality, suffix: str) -> NDArray[Any] | None:
    """All bands of a row at the row's own resolution, in its unit; None where it was not drawn at this cell."""
    files = {band: band_file(run, case.name, row, band, suffix) for band in row.bands}
    there = {band: file for band, file in files.items() if file is not None}
    if not there:
        return None
    if missing := [band for band in row.bands if band not in there]:
        warnings.warn(f"{run.path}: {case.name} lacks {', '.join(missing)} of {row.name}, which counts as not drawn", CopgenWarning,
                      stacklevel=2)
        return None
    return np.concatenate([read_image(there[band], row, case.table.side(row.name)) for band in row.bands])


def band_file(run: Run, cell: str, row: Modality, band: str, suffix: str) -> Path | None:
    """The file of a band; ValueError where there are several."""
    up, right = cell.split("_")
    folder = run.generations / f"Core-{MASK_IN.get(row.product, row.product)}" / up
    if row.product == "LULC":                    # whose year is not known
        found = sorted(file for file in (folder / right).glob("*.tif") if re.fullmatch(rf"{cell}_\d{{4}}{suffix}", file.stem))
    else:
        found = sorted((folder / cell).glob(f"*/{band}{suffix}.tif"))
    if len(found) > 1:
        raise ValueError(f"{found[0]}: there is also {found[1].relative_to(folder)}, of the same cell and band; leave one of the two")
    return found[0] if found else None


def read_image(file: Path, row: Modality, side: int) -> NDArray[Any]:
    with raster_at(file) as dataset:
        if dataset.count != 1:
            raise ValueError(f"{file}: has {dataset.count} bands; the published layout has one a file")
        values = sound(dataset.read(), row, None if row.legend else dataset.nodata, str(file))
    return at_side(values, side, row, str(file))
