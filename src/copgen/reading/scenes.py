"""From inputs to a scene: where the bands are, one square, the layers cut to it, the place, the date and the provenance."""

from __future__ import annotations

import datetime
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.files import sha256
from copgen.modalities import TABLE, Modality, Table
from copgen.reading import squares
from copgen.reading.acquired import carries_offset, days_said, possible, scene_day
from copgen.reading.bandfiles import Found, find_bands, find_thumbnail
from copgen.reading.drawn import Drawer, Kept, Reader, levels
from copgen.reading.pictures import Bare, describe_picture, is_picture, no_tile, times_of
from copgen.reading.rasters import Grid, Raster, read_window
from copgen.reading.resampling import fill_nearest, resample, touched
from copgen.reading.units import OFFSET_WAY_OUT, Quantity, check_options, offset_of, quantity_of
from copgen.scaling import EightBit
from copgen.scene import Footprint, Scene, checked_date, checked_place, parse_date, parse_place

OPTIONS = ("bands", "unit", "codes", "offset", "as")
FORMS = ("thumbnail", "layer")                   # what as= may say that the file of a drawn row holds
MOST_FILLED = 0.05                               # the largest share of a layer that `fill` may make up
MUCH_COARSER = 1.5                               # from this ratio of pixel sizes on, interpolation is worth a warning

Place = str | NDArray[Any] | Sequence[float] | None
Date = str | datetime.date | np.datetime64 | NDArray[Any] | None


class CopgenWarning(UserWarning):
    """Something in the input is suspicious, but not wrong enough to stop."""


class NoData(ValueError):
    """A square lacks more of its pixels than may be made up."""


@dataclass(frozen=True)
class Input:
    """What a user gives: a product (or row, or released key), where its raster or folder is, and what is to be known about it."""

    product: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())


Plans = Sequence[tuple[Input, Found | Bare]]


@dataclass(frozen=True)
class Piece:
    """Bands of one row that lie in one file, over the square and a little more."""

    bands: tuple[str, ...]
    raster: Raster
    grid: Grid
    values: NDArray[np.float64]                  # [n, h, w], as stored
    inside: NDArray[np.bool_]                    # [h, w]: the pixels that the square touches


def parse_input(text: str) -> Input:
    """`PRODUCT=PATH[,key=value...]` -> Input; options are bands, unit, codes, offset and as. A path may hold commas and equals signs."""
    product, equals, rest = text.partition("=")
    if not (product.strip() and equals and rest.strip()):
        raise ValueError(f"input {text!r}: expected PRODUCT=PATH[,key=value...], such as S2L2A=scene.tif or LULC=lulc.tif,codes=index")
    options: dict[str, str] = {}
    while not is_there(Path(rest).expanduser()):
        found = re.fullmatch(r"(.+),\s*([A-Za-z][\w-]*)=([^,/\\]*)", rest)
        if not found:
            break
        rest, key, value = found.group(1), found.group(2).lower(), found.group(3).strip()
        if key not in OPTIONS:
            raise ValueError(f"input {text!r}: no option is called {key!r}; there are {', '.join(OPTIONS)}")
        if key in options or not value:
            raise ValueError(f"input {text!r}: {key} is {'given twice' if key in options else 'empty'}; write {key}=VALUE once")
        options[key] = value
    return Input(product.strip(), Path(rest.strip()), dict(reversed(options.items())))


def is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:                              # such as a name that is too long for one
        return False


def read_scene(
    inputs: Sequence[Input | str], *, table: Table = TABLE, window: tuple[float, float] | None = None, tile: tuple[int, int] | None = None,
    place: Place = None, date: Date = None, fill: bool = False, name: str | None = None,
) -> Scene:
    """The layers of the inputs over one square of ground, each on its own grid, with the place and the date where they can be found.

    An input may be the text that `parse_input` takes. The scene's CRS is the first input's (its UTM zone if that one is geographic).
    The square is the middle of the first input, or at `window` (easting, northing of its top left corner in the scene's CRS). `place`
    and `date` override what the files say; "none" leaves them out. `fill` makes up to 5 % of missing pixels from the nearest. Warnings
    are CopgenWarning, and in the scene's notes.

    A row of thumbnails is read from a picture, of a larger one the middle (a georeferenced one as any raster), or drawn from the layer
    behind it: the option as=thumbnail or as=layer says which, where a file does not. Pictures without a place are believed to show the
    square of the others; with no others the scene has no footprint. `tile` (row, column) is one of `tiles_of` instead of the middle.

    Raises ValueError, in one sentence with the file and the way out, for whatever can't be read as what it is said to be.
    """
    plans = planned(parsed(inputs), table)
    square, called = square_under(plans, table, window, tile), name or scene_name(plans[0][0].path)
    return read_onto(square, plans, table=table, tile=tile, place=place, date=date, fill=fill,
                     name=called if tile is None else f"{called}_{tile[0]}_{tile[1]}")


def tiles_of(inputs: Sequence[Input | str], *, table: Table = TABLE) -> list[tuple[int, int]]:
    """The tiles, by row from the north and column from the west, that all inputs show: they divide the middle of the first raster, and
    of every picture without a place. ValueError as `read_scene`, and where inputs are divided into different numbers of tiles.
    """
    plans = planned(parsed(inputs), table)
    divided: list[tuple[Path, set[tuple[int, int]]]] = [
        (bare.picture.path, set(bare.corners(table.side(bare.row.name)))) for _, bare in plans if isinstance(bare, Bare)]
    located = [found for _, found in plans if isinstance(found, Found)]
    if located:
        first = located[0].first
        there = squares.tiles(first, squares.scene_crs(first), table.footprint, corner_step(table))
        rasters = [file.raster for found in located for file in found.bands.values()]
        divided.append((first.path, {place for place, square in there.items() if all(squares.covers(one, square) for one in rasters)}))
    for path, places in divided:
        if not places or places != divided[0][1]:
            other = f"and {divided[0][0]} other ones" if places else f"of {table.footprint} m"
            raise ValueError(f"{path}: has {len(places)} tiles {other}; give inputs that show the same ground, {table.footprint} m or more")
    return sorted(divided[0][1])


def parsed(inputs: Sequence[Input | str]) -> list[Input]:
    return [parse_input(one) if isinstance(one, str) else one for one in ([inputs] if isinstance(inputs, str) else inputs)]


def square_under(plans: Plans, table: Table, window: tuple[float, float] | None, tile: tuple[int, int] | None) -> Footprint | None:
    """The square of the first input that has a place; None where none has."""
    if window is not None and tile is not None:
        raise ValueError(f"tile {tile[0]},{tile[1]} and a window are both given; give one of them")
    first = next((found.first for _, found in plans if isinstance(found, Found)), None)
    if first is None:
        if window is not None:
            raise ValueError(f"{plans[0][0].path}: is a picture without a place, where no window can lie; leave --window out, or give a "
                             f"georeferenced layer too")
        return None
    crs = squares.scene_crs(first)
    if tile is None:
        return squares.choose(first, crs, table.footprint, corner_step(table), window)
    there = squares.tiles(first, crs, table.footprint, corner_step(table))
    if tile not in there:
        raise ValueError(no_tile(first.path, tile, there))
    return there[tile]


def scene_name(path: Path) -> str:
    """What a scene of this input is called: the file's or folder's name without its ending.

    It becomes a folder itself, so it is a plain name also where the path is `.` or `..`, or the file `...tif`.
    """
    place = Path(os.path.abspath(path))          # noqa: PTH100 - resolve() would follow links
    return next((one.stem for one in (place, *place.parents) if one.stem.strip(".")), "scene")


def corner_step(table: Table) -> int:
    """Metres between the corners that a square may have, so that no native pixel of a stacked file is cut: 60 m."""
    return math.lcm(*(table[row].resolution or 1 for row in table.images))


def planned(inputs: Sequence[Input], table: Table = TABLE) -> list[tuple[Input, Found | Bare]]:
    """Each input with where its bands are; ValueError for none, an option it doesn't take, a missing band, a row given twice."""
    if not inputs:
        raise ValueError("no input is given; at least one raster is needed, such as --input S2L2A=scene.tif")
    plans = [(one, plan(one, table)) for one in inputs]
    seen: dict[str, Path] = {}
    for one, found in plans:
        for row in found.rows:
            if row.name in seen:
                raise ValueError(f"{row.name} is given twice, by {seen[row.name]} and {one.path}; give each layer once")
            seen[row.name] = one.path
    return plans


def read_onto(
    square: Footprint | None, plans: Plans, *, table: Table = TABLE, tile: tuple[int, int] | None = None, place: Place = None,
    date: Date = None, fill: bool = False, name: str = "scene",
) -> Scene:
    """The layers of planned inputs over a square that is known already, None where only pictures are given; else as `read_scene`."""
    warned: list[str] = []
    filled: dict[str, Any] = {}
    layers: dict[str, NDArray[Any]] = {}
    when, days = date_layer(date, plans)
    extra = {"place": place_layer(place, square), "date": when}
    for one, found in plans:
        if isinstance(found, Bare):
            layers[found.row.name] = found.layer(table.side(found.row.name), tile)
            if square is not None:
                warned.append(f"{one.path}: has no place, and is believed to show the square of the georeferenced inputs")
        elif square is not None:
            layers |= read_layers(one, found, square, MOST_FILLED if fill else 0, warned, filled)
    layers |= {key: value for key, value in extra.items() if value is not None and key in table.by_name}
    for message in warned:
        warnings.warn(message, CopgenWarning, stacklevel=3)
    notes: dict[str, Any] = {
        "inputs": [provenance(one, found) for one, found in plans], "dates": days, "filled": filled, "warnings": warned,
    }
    if tile is not None:
        notes["tile"] = list(tile)
    if square is not None:
        notes["square"] = {"crs": squares.label(square.crs), "left": square.left, "top": square.top, "side": square.side}
    return Scene({key: layers[key] for key in table.names if key in layers}, square, name, table, notes)


def plan(one: Input, table: Table) -> Found | Bare:
    """Where the input's bands are, or which picture it is, with its options checked, before any pixel is read."""
    rows = [table[name] for name in table.select(one.product)]
    unknown = [key for key in one.options if key not in OPTIONS]
    if unknown:
        raise ValueError(f"{one.product}: no option is called {unknown[0]!r}; there are {', '.join(OPTIONS)}")
    if len({row.product for row in rows}) != 1:
        raise ValueError(f"input {one.product!r}: one product or row is needed; there are {', '.join(table.products)}")
    listed = one.options["bands"].split(":") if "bands" in one.options else ()
    if rows[0].drawing is not None:
        return plan_drawn(one, rows, table, listed)
    if rows[0].is_image:
        check_options(one.product, rows, one.options)
    return find_bands(one.product, one.path, table, listed)


def plan_drawn(one: Input, rows: Sequence[Modality], table: Table, listed: Sequence[str]) -> Found | Bare:
    """The same of a row of thumbnails: a picture, colours on the ground, or the layer that they are drawn from."""
    form, options = one.options.get("as"), {key: value for key, value in one.options.items() if key != "as"}
    if form not in (None, *FORMS):
        raise ValueError(f"{one.product}: as={form} is not known; as is one of {', '.join(FORMS)}")
    if form != "layer" and not one.path.is_dir() and is_picture(one.path):
        if options:
            raise ValueError(f"{one.path}: is a picture, which takes no option {next(iter(options))}=; leave it out")
        picture = describe_picture(one.path)
        return Bare(rows[0], picture, times_of(picture, rows[0]))
    found = find_thumbnail(one.product, one.path, table, listed, form)
    check_options(one.product, [found.held(row) for row in found.rows], options)
    return found


# --- the layers of one input --------------------------------------------------------------------------------------------------------

def read_layers(
    one: Input, found: Found, square: Footprint, most: float, warned: list[str], filled: dict[str, Any], read: Reader = read_window,
    kept: Kept | None = None,
) -> dict[str, NDArray[Any]]:
    """The input's layers on the square's grids. Missing data and units are settled on the file's own pixels, before any resampling.

    `most` is the share of missing pixels up to which they are filled; `warned` and `filled` are added to. `read` gets the windows, as
    `read_window` does: who reads many squares of one file may keep its pixels, and in `kept` the images that were drawn of them.
    """
    quantity = quantity_of(found.held(found.rows[0]))
    pieces = {row.name: [settled(piece, row, quantity, square, most, filled) for piece in read_pieces(row, found, square, read)]
              for row in found.rows}
    samples = {band: piece.values[k][piece.inside] for parts in pieces.values() for piece in parts for k, band in enumerate(piece.bands)}
    warned += quantity.check(str(one.path), samples, one.options) + name_warnings(one, found) + [
        message for row in found.rows for piece in pieces[row.name] for message in size_warnings(piece, found.held(row), square)]
    kept = {} if kept is None else kept
    return {row.name: on_square(row, pieces[row.name], quantity, one.options, square) if found.held(row) is row else
            Drawer(row, found, quantity, one.options, read, kept, warned).thumbnail(square) for row in found.rows}


def read_pieces(row: Modality, found: Found, square: Footprint, read: Reader = read_window) -> list[Piece]:
    """A row's bands as stored, file by file."""
    held, pieces = found.held(row), []
    for raster, bands in found.files(row):
        squares.require_inside(raster, square)
        window = squares.window_over(raster, square)
        codes = held.legend.codes if held.legend else None
        values, valid = read(raster, [found.bands[band].index for band in bands], window, classes=codes, scaled=quantity_of(held).scaled)
        grid = raster.grid.from_pixel(window.col_off, window.row_off)
        inside = touched(grid, window.height, window.width, square)
        pieces.append(Piece(bands, raster, grid, np.where(valid, values, np.nan), inside))
    return pieces


def settled(piece: Piece, row: Modality, quantity: Quantity, square: Footprint, most: float, filled: dict[str, Any]) -> Piece:
    """The piece with no value missing, or NoData saying how much is missing and where. Outside the square, the nearest is taken."""
    missing = np.asarray((~np.isfinite(piece.values) | quantity.is_missing(piece.values)).any(axis=0))
    bad = missing & piece.inside
    share = float(bad.sum() / piece.inside.sum())
    if bad.any():
        where = squares.in_words(squares.bounds_of(bad, piece.grid, square.crs))
        amount = f"{share:.2%} ({bad.sum()} pixel{'s' if bad.sum() > 1 else ''})"
        if share > most:
            way_out = ("choose another square with --window EASTING,NORTHING" if share > MOST_FILLED else
                       "choose another square with --window EASTING,NORTHING, or fill from the nearest pixels with --fill")
            limit = f" (--fill makes up at most {most:.0%})" if most else ""
            raise NoData(f"{piece.raster.path}: {amount} of the square has no data in {', '.join(piece.bands)}, within {where}"
                         f"{limit}; {way_out}")
        filled.setdefault(row.name, []).append({"file": piece.raster.path.name, "bands": list(piece.bands), "share": share,
                                                "pixels": int(bad.sum())})
    values = fill_nearest(piece.values, ~missing) if missing.any() else piece.values
    return Piece(piece.bands, piece.raster, piece.grid, values, piece.inside)


def on_square(row: Modality, pieces: Iterable[Piece], quantity: Quantity, options: Mapping[str, str], square: Footprint) -> NDArray[Any]:
    """One layer [bands, H, W] in the table's unit, on the row's own grid."""
    assert row.resolution is not None
    target = Grid(square.crs, square.transform(row.resolution))
    side = round(square.side / row.resolution)
    planes: dict[str, NDArray[np.float64]] = {}
    for piece in pieces:
        values = resample(quantity.convert(piece.values, options), piece.grid, target, side, classes=row.legend is not None)
        planes |= dict(zip(piece.bands, values, strict=True))
    layer = np.stack([planes[band] for band in row.bands])
    return levels(layer) if isinstance(row.scale, EightBit) else layer.astype(np.uint8 if row.legend else np.float32)


def name_warnings(one: Input, found: Found) -> list[str]:
    """What names and metadata say against the user: another product, or an offset that isn't stated."""
    product, rasters = found.rows[0].product, [file.raster for file in found.bands.values()]
    contradiction = next((said for raster in rasters if (said := other_product(raster, product))), None)
    warned = [f"{one.path}: is given as {product}, but {contradiction}"] if contradiction else []
    takes_offset = "offset" in quantity_of(found.held(found.rows[0])).options
    if not takes_offset or offset_of(str(one.path), one.options):
        return warned
    if any(carries_offset(raster.path, raster.tags) for raster in rasters):
        warned.append(f"{one.path}: its product name is of processing baseline 04.00 or later, whose digital numbers carry an offset of "
                      f"1000; {OFFSET_WAY_OUT}")
    elif any(round(file.raster.offsets[file.index - 1] / file.raster.scales[file.index - 1]) == -1000 for file in found.bands.values()):
        warned.append(f"{one.path}: by its own scale and offset, its digital numbers carry an offset of 1000; {OFFSET_WAY_OUT}")
    return warned


def other_product(raster: Raster, product: str) -> str | None:
    """What a file's path or descriptions say it is, if that is a near relative of what it is given as."""
    path = "/".join(raster.path.parts[-4:])
    level = re.search(r"S2[A-Z]_MSI(L1C|L2A)_", path)
    if level and product in ("S2L1C", "S2L2A") and not product.endswith(level.group(1)):
        return f"its product name says {level.group(1)}"
    if product == "S2L2A" and any((text or "").upper() in ("B10", "B10_CIRRUS") for text in raster.descriptions):
        return "it has a band B10, which only L1C has"
    ground_range = re.search(r"S1[A-Z]_[A-Z0-9]{2}_GRD", path) and "rtc" not in path.lower()
    if product == "S1RTC" and (ground_range or any("sigma0" in (text or "").lower() for text in raster.descriptions)):
        return "its name says sigma-naught of ground range data (GRD), which lies about 1 dB lower: use terrain-corrected gamma-naught"
    return None


def size_warnings(piece: Piece, row: Modality, square: Footprint) -> list[str]:
    """Pixels so large that the layer is made up by interpolation."""
    first_col, first_row, last_col, last_row = squares.square_in_pixels(piece.raster, square)
    metres = square.side / max(min(last_col - first_col, last_row - first_row), 1e-9)
    native = (row.source or row).resolution      # a thumbnail of heights is drawn at theirs, as published
    if native is None or metres < MUCH_COARSER * native:
        return []
    return [f"{piece.raster.path}: its pixels of {metres:.3g} m are interpolated to the {row.resolution} m of {row.name}"]


# --- place, date and provenance -----------------------------------------------------------------------------------------------------

def place_layer(place: Place, square: Footprint | None) -> NDArray[np.float64] | None:
    """Latitude and longitude: as stated, else the square's centre; None for "none", and for no square."""
    if place is None:
        return None if square is None else checked_place(np.array(square.centre))
    if isinstance(place, str):
        return None if place.strip().lower() == "none" else parse_place(place)
    return checked_place(np.asarray(place, np.float64).reshape(2))


def date_layer(date: Date, plans: Plans) -> tuple[NDArray[np.datetime64] | None, dict[str, str]]:
    """The day: as stated, else from the files; None for "none" or where no file says. And what the files said, by product."""
    if date is not None:
        if isinstance(date, str):
            return (None if date.strip().lower() == "none" else parse_date(date.strip())), {}
        return checked_date(np.asarray(date, "datetime64[D]").reshape(1)), {}
    located = [(found, row) for _, found in plans if isinstance(found, Found) for row in found.rows]
    firsts = [(row.product, found.bands[found.held(row).bands[0]].raster) for found, row in located]
    days = days_said((product, raster.path, raster.tags) for product, raster in firsts)
    when = scene_day(days)
    return (None if when is None else np.array([when], "datetime64[D]")), possible(days)


def provenance(one: Input, found: Found | Bare) -> dict[str, Any]:
    """What is kept about an input: file names and hashes, the bands' places and the options."""
    if isinstance(found, Bare):
        picture = {"format": found.picture.format, "width": found.picture.width, "height": found.picture.height}
        return {"product": one.product, "path": one.path.name, "rows": [found.row.name], "sha256": sha256(one.path), "picture": picture,
                "options": dict(one.options)}
    files = {file.raster.path: sha256(file.raster.path) for file in found.bands.values()}
    return {
        "product": one.product, "path": one.path.name, "rows": [row.name for row in found.rows],
        "sha256": next(iter(files.values())) if len(files) == 1 else {path.name: digest for path, digest in files.items()},
        "bands": {band: f"{file.raster.path.name}:{file.index}" for band, file in found.bands.items()}, "options": dict(one.options),
    }
