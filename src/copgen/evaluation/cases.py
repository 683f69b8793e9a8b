"""Where does the truth come from? Squares of ground with what was observed there, and what else could have been.

A case is one square with its observation: every layer that is known of it. Further true observations that agree with given layers
(`others`) are there for worlds of the synthetic Earth, by `copgen.synthetic.resample`, and for the benchmark's many acquisitions.

| text | the cases |
|---|---|
| `worlds:64`, `worlds:64@10000000` | so many worlds from this seed on; without one from a seed that no training draws |
| `archive:ROOT` | the cells of an archive in Major TOM's layout, each the square in its middle |
| `squares:FOLDER` | the squares in the middle of FOLDER/<product>/<name>.tif, as TerraMesh keeps cells |
| `pictures:FOLDER` | the thumbnails FOLDER/S2L2A_thumbnail/<name>.png, as the published preparation of data leaves them |
| `benchmark:FOLDER` | the cells of the published stochastic benchmark, `copgen.evaluation.benchmark` |

Options follow after commas: `worlds:64,resampling=all`, `archive:ROOT,cells=test.txt,patches=all,offset=named`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np

from copgen import __version__
from copgen.bulk.patches import patches_a_side
from copgen.evaluation.sources import fingerprint, folder_in, one_of, options_of, whole_number
from copgen.majortom import cells as majortom
from copgen.majortom.splits import read_cells as listed_cells
from copgen.modalities import TABLE, Table
from copgen.reading import CopgenWarning, read_scene
from copgen.reading.pictures import format_of
from copgen.scene import Scene
from copgen.synthetic import world
from copgen.synthetic.resample import Known, resample
from copgen.training.codec_report import cell_files
from copgen.training.codec_report import read_cell as read_square
from copgen.writing import is_picture, picture_name

UNSEEN = 10_000_000                              # trainings draw far smaller seeds: another world, another place
MOST_WORLDS = 1_000_000                          # every one has a name and a task for each condition
OTHERS = 0                                       # the draw of what else could have been observed; generators take other draws
KINDS = ("worlds", "archive", "squares", "pictures", "benchmark")
Resampling = Literal["none", "exact", "bank", "all"]


class Cases(Protocol):
    """Squares of ground by name, with what is known of them."""

    def names(self) -> Sequence[str]:
        """The cases' names, in a fixed order."""
        ...

    def observation(self, name: str) -> Scene:
        """What was observed; ValueError, in one sentence, for a case that cannot be read."""
        ...

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        """Up to `count` further true observations that agree with the given rows; [] where there are none."""
        ...

    def record(self) -> dict[str, Any]:
        """What these cases are, ready for JSON: two runs with the same record have the same truth."""
        ...


def open_cases(text: str, table: Table = TABLE) -> Cases:
    """The cases that a text names (see above), with the rows of the table; ValueError, naming the text and the way out."""
    kind, colon, rest = text.strip().partition(":")
    if not colon or kind not in KINDS or not rest:
        raise ValueError(f"cases {text!r}: expected one of worlds:COUNT, archive:ROOT, squares:FOLDER, pictures:FOLDER and "
                         "benchmark:FOLDER")
    if kind == "worlds":
        return open_worlds(text, rest, table)
    if kind == "archive":
        return open_archive(text, rest, table)
    if kind == "squares":
        return Squares(folder_in(options_of(rest, (), f"cases {kind}")[0], f"cases {kind}", "PRODUCT/<name>.tif"), table)
    if kind == "pictures":
        return open_pictures(options_of(rest, (), f"cases {kind}")[0], table)
    from copgen.evaluation.benchmark import BenchmarkCases  # here, as only this kind needs pyarrow

    return BenchmarkCases(folder_in(options_of(rest, (), f"cases {kind}")[0], f"cases {kind}", "real/data/*.parquet"), table)


# --- the synthetic Earth ------------------------------------------------------------------------------------------------------------

@dataclass
class Resampled:
    """Draws of what else could have been observed, and word of those that could not be had.

    how: up to which cost it is tried. `exact`: given layers whose causes are given too, where every draw is exact. `bank`: DEM and
    LULC, or a date, without a place, which first takes a bank of worlds (about 45 s, once a process). `all`: any given layers, where
    every case takes 128 candidates, and the draws are alike only. `none`: never.
    refused: why there are no draws, by given rows and case.
    """

    how: Resampling = "bank"
    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, case: Scene, given: Sequence[str], count: int, draw: int) -> list[Scene]:
        """`count` draws given these rows, the same ones whatever the count; [] where they cannot be had. ValueError for no world."""
        if "synthetic seed" not in case.notes:
            raise ValueError(f"{case.name}: is no world of the synthetic Earth, so what else could have been observed there cannot be "
                             "drawn; use --cases worlds:COUNT")
        rows = case.table.select(given)
        if count < 1:
            return []
        try:
            if not self.tries(rows, case.table):
                raise ValueError(f"given {', '.join(rows) or 'nothing'}: takes resampling={needed(rows, case.table)}, "
                                 f"and {self.how} is set")
            return resample(case, rows, count, draw=draw, date=day_of(case, rows)).scenes
        except ValueError as error:
            self.tell(case, rows, str(error))
            return []

    def tries(self, rows: tuple[str, ...], table: Table) -> bool:
        """Whether draws given these rows are not dearer than is set."""
        costs = get_args(Resampling)
        return costs.index(needed(rows, table)) <= costs.index(self.how)

    def tell(self, case: Scene, rows: tuple[str, ...], why: str) -> None:
        """Keep the reason, and warn of it."""
        self.refused["+".join(rows) or "nothing", case.name] = why
        warnings.warn(f"{case.name}: cannot be drawn again: {why}", CopgenWarning, stacklevel=3)


@lru_cache(maxsize=256)
def needed(rows: tuple[str, ...], table: Table) -> Resampling:
    """The cheapest way to draw a world again given these rows; the same for all worlds, so it is asked of a small one."""
    known = Known.of(0, rows, replace(table, footprint=240), None)
    return "exact" if known.closed else "all" if known.rest else "bank"


def day_of(case: Scene, rows: Sequence[str]) -> np.datetime64 | None:
    """The day on which a world is to be looked at, if not on its own; ValueError where another given row is not the world's own."""
    own = made(int(case.notes["synthetic seed"]), case.table)
    swapped = [row for row in rows if row in case and not np.array_equal(case[row], own[row])]
    if strange := [row for row in swapped if row != "date"]:
        raise ValueError(f"{', '.join(strange)} of another world: nothing is known of such a mixture")
    return case["date"][0] if swapped else None


@lru_cache(maxsize=4)
def made(seed: int, table: Table) -> Scene:
    return world(seed, table)


@dataclass
class Worlds:
    """Worlds of the synthetic Earth, of which any number of further observations can be drawn."""

    count: int
    first: int = UNSEEN
    table: Table = TABLE
    resampled: Resampled = field(default_factory=Resampled)

    def names(self) -> Sequence[str]:
        return [f"world-{seed:06d}" for seed in range(self.first, self.first + self.count)]

    def observation(self, name: str) -> Scene:
        found = re.fullmatch(r"world-(\d{6,})", name)
        if not found or not self.first <= int(found[1]) < self.first + self.count:
            raise ValueError(f"case {name!r}: there are world-{self.first:06d} to world-{self.first + self.count - 1:06d}")
        return made(int(found[1]), self.table)

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        return self.resampled(self.observation(name), given, count, OTHERS)

    def record(self) -> dict[str, Any]:
        return {"source": "worlds", "first": self.first, "count": self.count, "rows": list(self.table.names),
                "footprint": self.table.footprint, "resampling": self.resampled.how, "copgen": __version__}


def open_worlds(text: str, rest: str, table: Table) -> Worlds:
    if drawn := [row.name for row in table.rows if row.drawing]:
        raise ValueError(f"cases {text!r}: {drawn[0]} is a picture of a whole cell, which worlds are too small for; write cells (copgen "
                         "synthesize --archive ROOT) and take archive:ROOT")
    said, options = options_of(rest, ("resampling",), "cases worlds")
    count, at, first = said.partition("@")
    how = cast(Resampling, one_of(options.get("resampling", "bank"), get_args(Resampling), f"cases {text!r}: resampling"))
    worlds = whole_number(count, f"cases {text!r}: count", 1)
    if worlds > MOST_WORLDS:
        raise ValueError(f"cases {text!r}: at most {MOST_WORLDS:,} worlds are evaluated at once; ask for fewer, or for others (@SEED) next")
    return Worlds(worlds, whole_number(first, f"cases {text!r}: first seed") if at else UNSEEN, table, Resampled(how))


# --- real places --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Squares:
    """Real squares as TerraMesh keeps its cells: FOLDER/<product>/<name>.tif. One observation each."""

    folder: Path
    table: Table = TABLE

    def names(self) -> Sequence[str]:
        return [Path(name).stem for name in cell_files(self.folder, self.table)]

    def observation(self, name: str) -> Scene:
        files = cell_files(self.folder, self.table)
        if f"{name}.tif" not in files:
            raise ValueError(f"case {name!r}: there are {', '.join(Path(file).stem for file in files)} in {self.folder}")
        return read_square(files[f"{name}.tif"], self.table)

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        return []

    def record(self) -> dict[str, Any]:
        files = [path for paths in cell_files(self.folder, self.table).values() for path in paths]
        return {"source": "squares", **fingerprint(self.folder, files)}


@dataclass(frozen=True)
class Pictures:
    """Pictures without a place, by name and row: those of one name show one square. One observation each."""

    folder: Path
    table: Table
    files: Mapping[str, Mapping[str, Path]]

    def names(self) -> Sequence[str]:
        return list(self.files)

    def observation(self, name: str) -> Scene:
        if name not in self.files:
            raise ValueError(f"case {name!r}: there is no such picture in {self.folder}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CopgenWarning)           # that pictures of one name are believed to show one square
            return read_scene([f"{row}={path},as=thumbnail" for row, path in self.files[name].items()], table=self.table, name=name)

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        return []

    def record(self) -> dict[str, Any]:
        return {"source": "pictures", **fingerprint(self.folder, [path for rows in self.files.values() for path in rows.values()])}


def open_pictures(said: str, table: Table) -> Pictures:
    """The pictures of a folder by the rows that are pictures; ValueError where there are none."""
    drawn = {Path(picture_name(row)).stem: row.name for row in table.rows if is_picture(row)}
    root = folder_in(said, "cases pictures", "S2L2A_thumbnail/<name>.png and so on")
    files: dict[str, dict[str, Path]] = {}
    for folder, row in drawn.items():
        for path in sorted(root.glob(f"{folder}/*")):
            if path.is_file() and format_of(path):
                files.setdefault(path.stem, {})[row] = path
    if not files:
        wanted = f"folders {', '.join(drawn)} with PNG, WebP or JPEG" if drawn else "pictures, and none of the generator's rows is one"
        raise ValueError(f"cases pictures {said!r}: there are none; {wanted} are needed")
    return Pictures(root, table, dict(sorted(files.items())))


@dataclass(frozen=True)
class Archive:
    """Cells of Major TOM's layout on disk, each the square in its middle or all its patches. One observation each."""

    root: Path
    table: Table = TABLE
    listed: tuple[str, ...] | None = None        # None: all that are there
    patches: Literal["middle", "all"] = "middle"
    offset: majortom.Offset = 0

    @cached_property
    def cells(self) -> Sequence[str]:
        return majortom.cells(self.root) if self.listed is None else self.listed

    def names(self) -> Sequence[str]:
        if self.patches == "middle":
            return self.cells
        side = range(patches_a_side(self.table))
        return [f"{cell}_{i}_{j}" for cell in self.cells for i in side for j in side]

    def observation(self, name: str) -> Scene:
        """All products that can be read; those that cannot are named, with the reason, in the notes under `left out`."""
        found = re.fullmatch(r"([^_]+_[^_]+)(?:_(\d+)_(\d+))?", name)
        if not found:
            raise ValueError(f"case {name!r}: cells are named like 618U_30L, and their patches like 618U_30L_0_5")
        patch = (int(found[2]), int(found[3])) if found[2] else None
        there = list(majortom.products(self.root, found[1], self.table))
        try:
            return self.read(found[1], there, patch)
        except ValueError as error:
            if len(there) == 1:
                raise
            return self.readable(found[1], there, patch, error)

    def read(self, cell: str, given: Sequence[str], patch: tuple[int, int] | None) -> Scene:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CopgenWarning)         # which are in the scene's notes, too
            return majortom.read_cell(self.root, cell, given=given, table=self.table, patch=patch, offset=self.offset)

    def readable(self, cell: str, there: Sequence[str], patch: tuple[int, int] | None, whole: ValueError) -> Scene:
        """The products that can be read one by one; the square depends on the cell alone."""
        faults: dict[str, str] = {}
        for product in there:
            try:
                self.read(cell, [product], patch)
            except ValueError as error:
                faults[product] = str(error)
        if not faults or len(faults) == len(there):
            raise whole
        scene = self.read(cell, [product for product in there if product not in faults], patch)
        return scene.with_layers(scene.layers, **{"left out": faults})

    def others(self, name: str, given: Sequence[str], count: int) -> list[Scene]:
        return []

    def record(self) -> dict[str, Any]:
        files = [file for cell in self.cells for product in majortom.found_products(self.root, cell, self.table).values()
                 for file in ([product.path] if product.path.is_file() else product.path.glob("*.tif"))]
        return {"source": "archive", "cells": len(self.cells), "patches": self.patches, "offset": self.offset,
                **fingerprint(self.root, files)}


def open_archive(text: str, rest: str, table: Table) -> Archive:
    said, options = options_of(rest, ("cells", "patches", "offset"), "cases archive")
    root = folder_in(said, "cases archive", "Core-S2L2A, Core-S1RTC and so on")
    listed = listed_cells(Path(options["cells"]).expanduser()) if "cells" in options else None
    patches = cast(Literal["middle", "all"], one_of(options.get("patches", "middle"), ("middle", "all"), f"cases {text!r}: patches"))
    offset: majortom.Offset = "named" if options.get("offset") == "named" else whole_number(
        options.get("offset", "0"), f"cases {text!r}: offset (named, or)")
    archive = Archive(root, table, listed, patches, offset)
    if not archive.cells:
        raise ValueError(f"cases {text!r}: no cells of Major TOM's layout are named or there; name the folder that holds Core-S2L2A and "
                         "so on")
    return archive
