"""How does a cell come into the archive? Its rows read, what they hold checked, its files staged and given their places together."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from copgen.download.choice import Pick
from copgen.download.landcover import LandCover
from copgen.download.records import Archive, File, OtherChoice, Record, Taken, broken, write_staged
from copgen.download.rows import Footers, Row, read_row
from copgen.download.sources import SOURCES, THUMBNAIL, Source
from copgen.files import sha256
from copgen.majortom.cells import nominal_ground
from copgen.majortom.grid import TILE
from copgen.reading.acquired import scene_day

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG = b"\x89PNG\r\n\x1a\n"
TRIES = 3                                        # of a row whose bytes came complete and can't be decoded
PLAUSIBLE = 0.1                                  # by which an image's side may differ from a cell's
MOST_PIXELS = 1 << 22                            # of a block of an image, or of a thumbnail: who claims more is after the memory

Refused = frozenset[tuple[str, str, str, int]]   # metadata rows that told wrongly: product, id, file, row
Rechoose = Callable[[str, Refused], Mapping[str, Pick]]
Landcover = Callable[[Path, str, bool], LandCover]               # archive, cell, whether to write it anew


class Contradicted(Exception):
    """A row of the files says that it is another cell or product than the metadata tell."""

    def __init__(self, pick: Pick, cell: str, id_: str) -> None:
        super().__init__(f"metadata tell that row {pick.row} of Core-{pick.product}/{pick.file} is {pick.cell} {pick.id}, the row itself "
                         f"says {cell:.40} {id_:.120}")
        self.pick = pick


class Unreadable(ValueError):
    """The bytes of a row are no images of its cell."""


class Untold(ValueError):
    """Metadata that contradict the files leave nothing to choose."""


@dataclass(frozen=True)
class Frame:
    """Where an image lies: CRS, corner and metres a pixel."""

    crs: str
    left: float
    top: float
    resolution: float


@dataclass
class Work:
    """What fetching needs, the same for all cells."""

    archive: Archive
    footers: Footers
    thumbnails: bool = True
    bands: bool = True
    commits: Mapping[str, str] = field(default_factory=dict)         # product -> commit of the repository
    landcover: Landcover | None = None


def standing(archive: Archive, record: Record | None, picks: Mapping[str, Pick], landcover: bool, bands: bool = True) -> list[str]:
    """The products of a cell that are still to be fetched, whole or in part; `OtherChoice` if the archive has another one of a product.

    Without `bands` only the thumbnail counts; with them it may be absent, as not every row has one.
    """
    missing, there = [], record.taken if record else {}
    for product, pick in picks.items():
        taken, needed = there.get(product), names_of(SOURCES[product], bands)
        asked = {Path(file.path).name: file for file in taken.files if bands or Path(file.path).name in needed} if taken else {}
        if taken is None or broken(archive.root, replace(taken, files=tuple(asked.values()))):
            missing.append(product)
        elif taken.id != pick.id:
            raise OtherChoice(f"{archive.root / taken.place}: an earlier request chose this {product}, this one chooses {pick.id}; move "
                              f"the cell's folders away, or choose another --out")
        elif not asked.keys() >= set(needed):
            missing.append(product)
    lulc = there.get("LULC")
    if landcover and (lulc is None or broken(archive.root, lulc)):
        missing.append("LULC")
    return missing


def fetch_cell(work: Work, picks: Mapping[str, Pick], rechoose: Rechoose) -> Record | None:
    """Bring a cell into the archive; None if all of it is there already.

    Where a row contradicts the metadata, the row is believed: `rechoose` gives the next choice without that metadata row. Raises
    ValueError for whatever keeps the cell from being complete; nothing of it is left then but what was there before.
    """
    cell = next(iter(picks.values())).cell
    before = work.archive.record(cell)
    refused: Refused = frozenset(before.refused) if before else frozenset()
    notes = list(before.notes) if before else []
    if refused:
        picks = rechoose(cell, refused)
    missing = standing(work.archive, before, picks, work.landcover is not None, work.bands)
    if not missing:
        return None
    with work.archive.staging(cell) as staged:
        fetched: dict[str, tuple[Pick, Taken, Frame | None]] = {}
        while True:
            try:
                for product, pick in picks.items():
                    if product in missing and (product not in fetched or fetched[product][0] != pick):
                        fetched[product] = (pick, *fetch_product(work, pick, staged, before.taken.get(product) if before else None))
                break
            except Contradicted as contradiction:
                pick = contradiction.pick
                notes.append(str(contradiction))
                refused |= {(pick.product, pick.id, pick.file, pick.row)}
                picks = rechoose(cell, refused)
        record = recorded(cell, before, {name: (taken, frame) for name, (_, taken, frame) in fetched.items()})
        record = replace(record, refused=tuple(sorted(refused)), notes=tuple(dict.fromkeys(notes)))
        work.archive.commit(record)
    if "LULC" in missing:                        # on the grid of what is there now
        record = with_landcover(work, record)
        work.archive.write(record)
    return record


def fetch_product(work: Work, pick: Pick, staged: Path, before: Taken | None = None) -> tuple[Taken, Frame | None]:
    """One product's files in the staging folder, with those of an earlier run; and where they lie, if bands are fetched."""
    source, columns = columns_of(pick.product, work.thumbnails, work.bands)
    name = f"{source.repository}/{pick.file}"
    row, frame = sound_row(work.footers, name, pick, columns, source)
    files = {f"{band}.tif": row.values[band] for band in source.columns if band in columns}
    files |= {f"{THUMBNAIL}.png": row.values[THUMBNAIL]} if row.values.get(THUMBNAIL) else {}
    place = f"{source.repository}/{pick.cell.split('_')[0]}/{pick.cell}/{pick.id}"
    written = write_staged(staged, place, {**kept_files(work.archive.root, before, place), **files})
    sensed = None if pick.sensed is None else f"{np.datetime64(pick.sensed, 's')}Z"
    taken = Taken(pick.id, place, written, None if pick.day is None else str(pick.day), sensed, pick.cloud, pick.nodata,
                  f"{name} row {pick.row}", row.file.etag, row.file.commit or work.commits.get(pick.product, ""))
    return taken, frame


def kept_files(root: Path, before: Taken | None, place: str) -> dict[str, bytes]:
    """The files of a product that are whole: its folder is replaced as a whole, and what was not asked for now stays."""
    if before is None or before.place != place:
        return {}
    whole = (file for file in before.files if not broken(root, replace(before, files=(file,)), thorough=True))
    return {Path(file.path).name: (root / file.path).read_bytes() for file in whole}


def columns_of(product: str, thumbnails: bool, bands: bool = True) -> tuple[Source, tuple[str, ...]]:
    """A product's source, and the columns that are read of a row."""
    source = SOURCES[product]
    named = ("grid_cell", *(("product_id",) if source.id_pattern else ()))
    return source, (*named, *(source.columns if bands else ()), *((THUMBNAIL,) if thumbnails else ()))


def names_of(source: Source, bands: bool) -> tuple[str, ...]:
    """The files that a product must have."""
    return tuple(f"{band}.tif" for band in source.columns) if bands else (f"{THUMBNAIL}.png",)


def sound_row(footers: Footers, name: str, pick: Pick, columns: tuple[str, ...], source: Source) -> tuple[Row, Frame | None]:
    """A row that is what the metadata tell and whose images can be read; fetched again where they can't, in case bytes were damaged."""
    what, bands = f"{footers.hub.address(name)}, row {pick.row}", set(source.columns) <= set(columns)
    for left in reversed(range(TRIES)):
        row = read_row(footers, name, pick.row, columns, optional=(THUMBNAIL,) if bands else ())
        said = named(row, pick)
        try:
            if said != (pick.cell, pick.id):
                footers.waste(row, "contradiction")
                if named(read_row(footers, name, pick.row, columns[:1 + bool(source.id_pattern)]), pick) == said:
                    raise Contradicted(pick, *said)          # twice: no bit was damaged on the way
                continue
            if not bands and not row.values[THUMBNAIL]:
                raise Unreadable(f"{what}: has no thumbnail")
            check_thumbnail(row.values.get(THUMBNAIL), what)
            return row, frame_of(row.values, source, what) if bands else None
        except Unreadable:
            footers.waste(row, "unreadable")
            if not left:
                raise
    raise Unreadable(f"{what}: says something else each time it is read")


def named(row: Row, pick: Pick) -> tuple[str, str]:
    return str(row.values["grid_cell"]), str(row.values.get("product_id", pick.id))


def recorded(cell: str, before: Record | None, fetched: Mapping[str, tuple[Taken, Frame | None]]) -> Record:
    """The cell's record with what was fetched now and before; its date is halfway between its radar and its optical day."""
    taken = {**(before.taken if before else {}), **{name: one for name, (one, _) in fetched.items()}}
    taken = {name: taken[name] for name in (*SOURCES, "LULC") if name in taken}
    date = scene_day({name: np.datetime64(one.day, "D") for name, one in taken.items() if one.day})
    frames = {name: frame for name, (_, frame) in fetched.items() if frame is not None}
    frame = next((frames[name] for name in SOURCES if name in frames and name != "S1RTC"), next(iter(frames.values()), None))
    if before and before.crs and (frame is None or "S2L2A" not in frames):
        crs, left, top = before.crs, before.left, before.top
    elif frame is not None:
        crs, left, top = frame.crs, frame.left, frame.top
    else:                                        # thumbnails don't say where they are
        square = nominal_ground(cell)
        crs, left, top = square.crs.to_string(), square.left, square.top
    return Record(cell, taken, crs, left, top, None if date is None else str(date))


def with_landcover(work: Work, record: Record) -> Record:
    """The record with a land cover that was made on the grid of what is in the archive."""
    assert work.landcover is not None
    root, before = work.archive.root, record.taken.get("LULC")
    made = work.landcover(root, record.cell, before is not None)
    paths = [path for path in (made.path, made.path.with_name(f"{made.path.name}.aux.xml")) if path.is_file()]
    files = tuple(File(path.relative_to(root).as_posix(), path.stat().st_size, sha256(path)) for path in paths)
    lulc = Taken(made.path.stem, files[0].path, files, source=", ".join(made.maps))
    return replace(record, taken={**record.taken, "LULC": lulc})


# --- what images must be ------------------------------------------------------------------------------------------------------------

def frame_of(values: Mapping[str, Any], source: Source, what: str) -> Frame:
    """Where a product's images lie, finest first; `Unreadable` unless all are whole images of one square of a cell's size."""
    frames = {band: check_image(values[band], band, source.resolutions[band], what) for band in source.columns}
    finest = min(frames, key=lambda band: frames[band].resolution)
    for band, frame in frames.items():
        apart = max(abs(frame.left - frames[finest].left), abs(frame.top - frames[finest].top))
        if frame.crs != frames[finest].crs or apart > source.resolutions[band]:
            raise Unreadable(f"{what}: {band} lies elsewhere than {finest} of the same row")
    return frames[finest]


def check_image(data: Any, band: str, resolution: int, what: str) -> Frame:
    if not isinstance(data, bytes) or data[:4] not in TIFF:
        raise Unreadable(f"{what}: {band} is no GeoTIFF")
    try:
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            crs, transform, shape = dataset.crs, dataset.transform, dataset.shape
            side = [pixels * step for pixels, step in zip(shape, (-transform.e, transform.a), strict=True)]
            if dataset.count != 1 or not all(abs(one - TILE) <= PLAUSIBLE * TILE for one in side):
                raise Unreadable(f"{what}: {band} has {dataset.count} bands of {side[1]:g} x {side[0]:g} m; a cell's images have one of "
                                 f"{TILE} m")
            if crs is None or not crs.is_projected or abs(transform.a - resolution) > 0.01 * resolution:
                raise Unreadable(f"{what}: {band} has pixels of {transform.a:g} m in {crs}; {resolution} m in a CRS of metres are expected")
            if math.prod(dataset.block_shapes[0]) > MOST_PIXELS:
                raise Unreadable(f"{what}: {band} is cut into blocks of {dataset.block_shapes[0]} pixels, more than the image has")
            dataset.read(1)                      # whether all of it can be decoded
    except (RasterioError, ValueError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(f"{what}: {band} can't be read ({error})") from error
    epsg = crs.to_epsg()
    return Frame(f"EPSG:{epsg}" if epsg else crs.to_wkt(), transform.c, transform.f, transform.a)


def check_thumbnail(data: Any, what: str) -> None:
    from PIL import Image

    if data is None:
        return
    try:
        if not isinstance(data, bytes) or not data.startswith(PNG):
            raise Unreadable(f"{what}: its thumbnail is no PNG")
        if int.from_bytes(data[16:20]) * int.from_bytes(data[20:24]) > MOST_PIXELS:      # width and height, which come first
            raise Unreadable(f"{what}: its thumbnail says that it has more than {MOST_PIXELS:,} pixels")
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(f"{what}: its thumbnail can't be read ({error})") from error
