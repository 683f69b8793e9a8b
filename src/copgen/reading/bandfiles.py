"""Which band of which file holds a band of the table? By descriptions, by file names, by the user's list, or by the usual order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from copgen.modalities import Modality, Table
from copgen.reading.rasters import Raster, describe

SUFFIXES = (".tif", ".tiff", ".jp2")
S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
USUAL_ORDER = {                                  # product -> the order of a stack without names, if it has this many bands
    "S2L2A": tuple(band for band in S2_BANDS if band != "B10"),
    "S2L1C": S2_BANDS,
    "S1RTC": ("vv", "vh"),
}
S2_NAME = re.compile(r"(?<![A-Za-z0-9])B0?(\d{1,2})(A?)(?![A-Za-z0-9])", re.IGNORECASE)
S1_NAME = re.compile(r"(?<![A-Za-z0-9])(vv|vh)(?![A-Za-z0-9])", re.IGNORECASE)
COMMON_NAMES = {                                 # the STAC electro-optical extension's and its users'
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06", "rededge3": "B07",
    "nir": "B08", "nir08": "B8A", "nir09": "B09", "cirrus": "B10", "swir16": "B11", "swir22": "B12",
}


@dataclass(frozen=True)
class BandFile:
    """One band: which one of which raster, counted from 1."""

    raster: Raster
    index: int


@dataclass(frozen=True)
class Found:
    """The rows of an input whose bands are all there, and where each band is: the row's own, or those that a thumbnail is drawn from."""

    rows: tuple[Modality, ...]
    bands: Mapping[str, BandFile]

    @property
    def first(self) -> Raster:
        return self.bands[self.held(self.rows[0]).bands[0]].raster

    def held(self, row: Modality) -> Modality:
        """What the files hold of a row: itself, or of a thumbnail that is yet to be drawn the layer behind it."""
        return row if row.source is None or row.bands[0] in self.bands else row.source

    def files(self, row: Modality) -> list[tuple[Raster, tuple[str, ...]]]:
        """The rasters with what is held of a row, and the bands in each."""
        found: dict[Path, list[str]] = {}
        for band in self.held(row).bands:
            found.setdefault(self.bands[band].raster.path, []).append(band)
        return [(self.bands[bands[0]].raster, tuple(bands)) for bands in found.values()]


def find_bands(asked: str, path: Path, table: Table, listed: Sequence[str] = ()) -> Found:
    """Where the bands of a product or row are, in one stacked file or a folder of files; ValueError if one is missing or ambiguous."""
    rows = tuple(table[name] for name in table.select(asked))
    if not all(row.is_image for row in rows):
        raise ValueError(f"{asked}: is not read from a file; state it with --{rows[0].name}")
    product = rows[0].product
    if path.is_dir():
        if listed:
            raise ValueError(f"{path}: bands= names the bands of one file, and this is a folder; give the file instead")
        candidates = in_folder(path, product, table)
    else:
        raster = describe(path)
        candidates = in_file(raster, product, table, listed)
    return complete(asked, path, rows, candidates)


def find_thumbnail(asked: str, path: Path, table: Table, listed: Sequence[str] = (), form: str | None = None) -> Found:
    """Where a drawn row is: the colours of a georeferenced picture, or the bands of the layer that it is to be drawn from.

    `form` says which ("thumbnail" or "layer"); None: a file of 8 bits and three or four bands is a picture, and so is one that we wrote.
    """
    rows = tuple(table[name] for name in table.select(asked))
    raster = None if path.is_dir() else describe(path)
    if form == "thumbnail" or (form is None and raster is not None and is_drawn(raster, rows[0])):
        if raster is None:
            raise ValueError(f"{path}: as=thumbnail takes one file with red, green and blue, and this is a folder; give the file instead")
        return complete(asked, path, rows, colours_in(raster, rows[0], listed))
    return replace(find_bands(rows[0].product, path, table.sources, listed), rows=rows)


def is_drawn(raster: Raster, row: Modality) -> bool:
    return raster.tags.get("COPGEN_UNIT") == row.unit or (raster.count in (3, 4) and set(raster.dtypes) == {"uint8"})


def colours_in(raster: Raster, row: Modality, listed: Sequence[str]) -> dict[str, list[BandFile]]:
    """By the user's list, by descriptions, else the first three bands; grey is all three."""
    in_order = {band: [BandFile(raster, k if raster.count >= len(row.bands) else 1)] for k, band in enumerate(row.bands, 1)}
    return by_list(raster, row.bands, listed) if listed else by_description(raster, row.bands) or in_order


def complete(asked: str, path: Path, rows: tuple[Modality, ...], candidates: Mapping[str, list[BandFile]]) -> Found:
    """One file for every band of the rows, or ValueError with the way out."""
    missing = [band for row in rows for band in row.bands if band not in candidates]
    if missing:
        there = [f"{row.name}={path.name}" for row in rows if not set(row.bands) & set(missing)]
        have = ", ".join(candidates) or "none that is recognised"
        way_out = (f"give only the rows that are complete: {', '.join(there)}" if there
                   else "name the file's bands with bands=NAME:NAME:... or add the missing ones")
        raise ValueError(f"{path}: {asked} needs the bands {', '.join(missing)} too, and there are {have}; {way_out}")
    bands = {band: best(path, band, row, candidates[band]) for row in rows for band in row.bands}
    return Found(rows, bands)


def best(path: Path, band: str, row: Modality, found: Sequence[BandFile]) -> BandFile:
    """Of several files with one band, that of the row's own pixel size, else the finest; ValueError if two are equally good."""
    if len(found) == 1:
        return found[0]
    ranked = sorted(found, key=lambda one: rank(one, row))
    if rank(ranked[0], row) == rank(ranked[1], row):
        names = " and ".join(f"{one.raster.path.name} (band {one.index})" for one in ranked[:2])
        way_out = "leave only one of them there" if path.is_dir() else "name the bands with bands=NAME:NAME:..."
        raise ValueError(f"{path}: {band} is in both {names}; {way_out}")
    return ranked[0]


def rank(one: BandFile, row: Modality) -> tuple[bool, float]:
    size = round(max(one.raster.pixel_size), 6)
    return size != row.resolution, size


# --- a stacked file -----------------------------------------------------------------------------------------------------------------

def in_file(raster: Raster, product: str, table: Table, listed: Sequence[str]) -> dict[str, list[BandFile]]:
    """Band name -> where it may be in one file."""
    wanted = bands_of(product, table)
    if listed:
        return by_list(raster, wanted, listed)
    named = by_description(raster, wanted)
    if named:
        return named
    if len(wanted) == 1 and raster.count == 1:
        return {wanted[0]: [BandFile(raster, 1)]}
    order = USUAL_ORDER.get(product, wanted)
    if raster.count == len(order) and len(order) > 1:
        return {band: [BandFile(raster, k)] for k, band in enumerate(order, 1)}
    in_name = name_in(raster.path.stem, wanted) if raster.count == 1 else None
    if in_name:
        return {in_name: [BandFile(raster, 1)]}
    without = " (is B10 missing? then give rows, such as s2l1c_10m, with their names)" if raster.count == len(order) - 1 > 10 else ""
    raise ValueError(
        f"{raster.path}: has {raster.count} band{'s' if raster.count > 1 else ''} without names that are recognised, and {product} "
        f"without names is {len(order)} ({':'.join(order)}){without}; name them in the file's order with bands=NAME:NAME:..."
    )


def by_list(raster: Raster, wanted: Sequence[str], listed: Sequence[str]) -> dict[str, list[BandFile]]:
    if len(listed) != raster.count:
        raise ValueError(f"{raster.path}: bands= names {len(listed)} bands and the file has {raster.count}; name each in the file's order, "
                         f"with any other word for one that is not needed")
    return gathered((name_in(word, wanted), BandFile(raster, k)) for k, word in enumerate(listed, 1))


def gathered(pairs: Iterable[tuple[str | None, BandFile]]) -> dict[str, list[BandFile]]:
    found: dict[str, list[BandFile]] = {}
    for name, band in pairs:
        if name is not None:
            found.setdefault(name, []).append(band)
    return found


def bands_of(product: str, table: Table) -> tuple[str, ...]:
    return tuple(band for row in table.rows if row.product == product for band in row.bands)


def by_description(raster: Raster, wanted: Sequence[str]) -> dict[str, list[BandFile]]:
    """Bands by their descriptions; one that is a band's name to the letter wins over those that only hold it."""
    described = [(text.strip(), BandFile(raster, k)) for k, text in enumerate(raster.descriptions, 1) if text]
    exact = gathered((next((band for band in wanted if band.lower() == text.lower()), None), one) for text, one in described)
    return gathered((name_in(text, wanted), one) for text, one in described) | exact


def name_in(text: str, wanted: Sequence[str]) -> str | None:
    """The band that a description or a file's stem names; None if it names none of those wanted, or several."""
    whole = next((band for band in wanted if band.lower() == text.strip().lower()), None)
    if whole:
        return whole
    plain = text.replace("_", " ")
    numbered = {f"B{int(digits)}A" if letter else f"B{int(digits):02d}" for digits, letter in S2_NAME.findall(plain)}
    polarised = {name.lower() for name in S1_NAME.findall(plain)}
    common = {COMMON_NAMES[word] for word in re.split(r"[^a-z0-9]+", text.lower()) if word in COMMON_NAMES}
    named = (numbered or polarised or common) & set(wanted)
    return named.pop() if len(named) == 1 else None


# --- a folder -----------------------------------------------------------------------------------------------------------------------

def in_folder(path: Path, product: str, table: Table) -> dict[str, list[BandFile]]:
    """Band name -> the files of a folder that hold it. Files that begin with another product's name are another product's."""
    files = rasters_under(path)
    own = [file for file in files if starts_with(file, product)] or [
        file for file in files if not any(starts_with(file, other) for other in table.products if other != product)]
    wanted = bands_of(product, table)
    if not own:
        raise ValueError(f"{path}: holds no GeoTIFF or JPEG 2000 of {product}; give a file, or a folder of one file a band")
    found: dict[str, list[BandFile]] = {}
    for file in own:
        for band, places in in_member(file, wanted, alone=len(own) == 1).items():
            found.setdefault(band, []).extend(places)
    return found


def rasters_under(path: Path) -> list[Path]:
    """A folder's rasters; those of a Sentinel-2 product as it is downloaded (.SAFE) lie deeper."""
    try:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        deeper = [file for inside in ("GRANULE/*/IMG_DATA/*", "GRANULE/*/IMG_DATA/R*m/*", "R*m/*") for file in path.glob(inside)]
        return files or sorted(file for file in deeper if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ValueError(f"{path}: this folder can't be listed ({error.strerror}); check its permissions") from error


def in_member(file: Path, wanted: Sequence[str], alone: bool) -> dict[str, list[BandFile]]:
    raster = describe(file)
    named = by_description(raster, wanted)
    if named or raster.count != 1:
        return named
    name = name_in(file.stem, wanted) or next((band for band in wanted if starts_with(file, band)), None)
    if name is None and alone and len(wanted) == 1:
        name = wanted[0]
    return {name: [BandFile(raster, 1)]} if name else {}


def starts_with(file: Path, word: str) -> bool:
    return re.match(re.escape(word) + r"(?![A-Za-z0-9])", file.stem, re.IGNORECASE) is not None
