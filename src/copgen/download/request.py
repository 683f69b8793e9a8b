"""What is asked of a download? Places, products, dates, clouds; checked before anything is fetched."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from copgen.download.choice import CRITERIA, Criteria
from copgen.download.maps import checked_year
from copgen.download.metadata import Filters
from copgen.download.sources import SOURCES, chosen_sources
from copgen.majortom.grid import checked_cell
from copgen.majortom.splits import read_cells
from copgen.scene import parse_date


@dataclass(frozen=True)
class Request:
    """Which cells, of which products, chosen how, and where to. ValueError, naming the option, for what can't be.

    The cells are named (`cells`), listed in a file (`cells_file`, one a line, # begins a comment), or have their centre in `bbox` (west,
    south, east, north in degrees; west > east crosses the antimeridian). `dates` are days, both included; `cloud_cover` is in percent, of
    Sentinel-2 only; `nodata` is the largest share of an image without data (the published data set has none).
    """

    out: Path
    cells: tuple[str, ...] | None = None
    bbox: tuple[float, float, float, float] | None = None
    cells_file: Path | None = None
    products: tuple[str, ...] = tuple(SOURCES)
    dates: tuple[str, str] | None = None
    cloud_cover: tuple[float, float] | None = (0, 10)
    nodata: float | None = 0.0
    criteria: Criteria = "closest"
    lulc: str | None = None                      # a raster, VRT, URL template or STAC search
    lulc_year: int | None = None                 # None: the year of the cell's date
    hub: str | None = None                       # a URL or folder in place of the Hugging Face hub
    revision: str = "main"
    connections: int = 4
    thumbnails: bool = True
    bands: bool = True                           # False: only the thumbnails

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.cells, self.bbox, self.cells_file)) != 1:
            raise ValueError("which cells? Say it by one of --cells, --bbox and --cells-file")
        if self.criteria not in CRITERIA:
            raise ValueError(f"--criteria {self.criteria}: there are {', '.join(CRITERIA)}")
        if not 1 <= self.connections <= 64:
            raise ValueError(f"--connections {self.connections}: 1 to 64 are polite enough")
        if self.lulc_year is not None and self.lulc is None:
            raise ValueError(f"--lulc-year {self.lulc_year}: says nothing without --lulc SOURCE")
        if self.lulc_year is not None:
            checked_year(str(self.lulc_year), "--lulc-year ")
        if not self.bands and not self.thumbnails:
            raise ValueError("--only-thumbnails and --no-thumbnails: nothing is left to fetch; choose one of the two")
        if not self.bands and self.lulc is not None:
            raise ValueError(f"--only-thumbnails and --lulc {self.lulc}: land cover is made on the grid of the bands; leave one out")
        chosen_sources(self.products)
        self.filters()

    def filters(self) -> Filters:
        """What rows of metadata must be."""
        if self.bbox is not None:
            check_box(self.bbox)
        if self.cloud_cover is not None and not 0 <= self.cloud_cover[0] <= self.cloud_cover[1] <= 100:
            raise ValueError(f"--cloud-cover {self.cloud_cover[0]:g}..{self.cloud_cover[1]:g}: two percentages in 0..100 are needed, the "
                             f"smaller one first")
        if self.nodata is not None and not 0 <= self.nodata <= 1:
            raise ValueError(f"--nodata {self.nodata:g}: a share in 0..1 is needed")
        return Filters(self.asked(), self.bbox, None if self.dates is None else days(*self.dates), self.cloud_cover, self.nodata)

    def asked(self) -> tuple[str, ...] | None:
        """The cells named or listed, each once; None where a box is asked for."""
        if self.bbox is not None:
            return None
        found = read_cells(self.cells_file) if self.cells_file else tuple(dict.fromkeys(map(checked_cell, self.cells or ())))
        if not found:
            raise ValueError(f"{self.cells_file or '--cells'}: names no cell; cells are named by row and column, such as 618U_30L")
        return found


def check_box(box: tuple[float, float, float, float]) -> None:
    west, south, east, north = box
    text = ",".join(f"{edge:g}" for edge in box)
    if not all(math.isfinite(edge) for edge in box) or not (-90 <= south < north <= 90):
        raise ValueError(f"--bbox {text}: takes west,south,east,north in degrees, with south < north in -90..90")
    if not (-180 <= west <= 180 and -180 <= east <= 180) or west == east:
        raise ValueError(f"--bbox {text}: west and east lie in -180..180 and differ; west > east crosses the antimeridian")


def days(first: str, last: str) -> tuple[np.datetime64, np.datetime64]:
    try:
        start, stop = (parse_date(text)[0] for text in (first, last))
    except ValueError as error:
        raise ValueError(f"--dates {first}..{last}: {error}") from error
    if stop < start:
        raise ValueError(f"--dates {first}..{last}: ends before it begins")
    return np.datetime64(start, "D"), np.datetime64(stop, "D")


def box_in(text: str) -> tuple[float, float, float, float]:
    """The four numbers of `W,S,E,N`."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--bbox {text}: takes four numbers W,S,E,N in degrees, such as -5.0,55.5,-2.3,56.9") from error
    return west, south, east, north


def span_in(text: str, option: str) -> tuple[str, str]:
    """The two ends of `A..B`."""
    found = re.fullmatch(r"\s*(\S+?)\s*\.\.\s*(\S+?)\s*", text)
    if not found:
        raise ValueError(f"{option} {text}: takes two ends with two dots between, A..B")
    return found[1], found[2]


def percents_in(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, span_in(text, "--cloud-cover"))
    except ValueError as error:
        raise ValueError(f"--cloud-cover {text}: takes two percentages, such as 0..10") from error
    return low, high
