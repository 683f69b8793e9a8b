"""Which samples lie in a folder? Those of `copgen generate`, and those of any generator that keeps to the same files.

`copgen generate` leaves OUT/<case>/run.json and OUT/<case>/sample-000/...; the record says what was given, on which square, and which
seed a sample has. Several runs, such as one a condition, may lie below one folder, each in a folder of its own.

Another generator needs no record. What is given is then the name of a folder, products or rows joined by `+`, or `nothing`:

    FOLDER/DEM+LULC/618U_30L/sample-000/S2L2A_10m.tif

(or FOLDER/618U_30L/sample-000/... with `folder:FOLDER,given=DEM+LULC`). The case's folder has the case's name; the number of a sample is
its seed. A sample holds, for every row that was drawn, either one GeoTIFF as we write it, its bands in the table's order or named by
their descriptions, or one file a band:

| product | files of a row | files of a band | unit |
|---|---|---|---|
| S2L2A, S2L1C | `S2L2A_10m.tif`, `S2L2A_20m.tif`, `S2L2A_60m.tif` | `S2L2A_B04.tif` | digital numbers |
| S1RTC | `S1RTC.tif` | `S1RTC_vv.tif` | linear power; dB where the file's unit or `,s1_unit=dB` says so |
| DEM | `DEM.tif` | | metres |
| LULC, cloud_mask | `LULC.tif`, `cloud_mask.tif` | | the codes of the legend |
| thumbnails | `S2L2A_thumbnail.tif`, or `.png`, `.webp`, `.jpeg` without a place | | levels of 0 to 255 |
| place, date | `place_and_date.geojson` | | a point, and `date` in its properties |

over the case's square: at the row's own resolution, or finer by a whole number, whose blocks are averaged. A product or row that is not
there was not drawn. Files keep what was drawn up to their rounding: half a digital number, and those below 1 as 1, as 0 is no data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from copgen.config import load
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.pixels import at_side, band_indexes, in_power, raster_at, sound
from copgen.evaluation.recipe import EXCHANGED, SWAPPED_BY_VALUE, Condition, named
from copgen.evaluation.sources import fingerprint
from copgen.job import RECORD
from copgen.modalities import TABLE, TABLES, Modality, Table, table_with
from copgen.reading.pictures import read_picture
from copgen.reading.squares import same_crs
from copgen.scene import Footprint, Scene, parse_date
from copgen.writing import PLACE_AND_DATE, PictureKind, RadarUnit, is_picture, picture_name, raster_name

DEPTHS = ("", "*/", "*/*/", "*/*/*/")            # of cases below a folder
SAMPLE = re.compile(r"sample-(\d{1,9})")
NEAR = 0.01                                      # metres that edges of one square may differ by: rounding in texts
SAME_PLACE = 1e-5                                # degrees, the same of places: a metre
Layers = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SampleNote:
    folder: str
    seed: int


@dataclass(frozen=True)
class SquareNote:
    crs: str
    left: float
    top: float
    side: float


@dataclass(frozen=True)
class RunNote:
    """What is read of a run.json."""

    scene: str
    given: dict[str, Any]
    samples: tuple[SampleNote, ...]
    square: SquareNote | None = None
    s1_unit: Literal["linear", "dB"] = "linear"
    model: dict[str, Any] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    solver: str | None = None
    calls: int | None = None
    sources: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """The samples of one case under one set of given rows, and where they lie."""

    folder: Path
    case: str
    given: tuple[str, ...]
    samples: tuple[tuple[int, Path], ...]        # by seed
    note: RunNote | None = None
    s1_unit: RadarUnit = "linear"

    def fits(self, case: Scene, given: Sequence[str]) -> bool:
        """Whether these are samples of this case and condition.

        A case is known by its name or its square; samples of no ground, as no pixels were given, are everybody's. Those of a case with
        another's layers are known by what a record says of place and date; of other layers nothing tells.
        """
        exchanged = case.notes.get(EXCHANGED)
        if set(self.given) != set(given) or (
                exchanged and (self.note is None or exchanged["product"] not in SWAPPED_BY_VALUE)):
            return False
        groundless = self.note is not None and self.note.square is None and not any(row.is_image for row in table_of(self.given).rows)
        return (self.case == case.name or groundless or self.lies_at(case) is True) and self.values_agree(case)

    def values_agree(self, case: Scene) -> bool:
        """Whether place and date, where given, are the case's."""
        said = {} if self.note is None else self.note.given
        place, date = said.get("place"), said.get("date")
        other_place = isinstance(place, list) and "place" in case and np.abs(place - case["place"]).max() > SAME_PLACE
        other_day = isinstance(date, str) and "date" in case and date != str(case["date"][0])
        return not other_place and not other_day

    def lies_at(self, case: Scene) -> bool | None:
        """Whether their square is the case's; None where one of the two is not known."""
        square, mine = None if self.note is None else self.note.square, case.footprint
        if square is None or mine is None:
            return None
        apart = max(abs(square.left - mine.left), abs(square.top - mine.top), abs(square.side - mine.side))
        return apart <= NEAR and same_crs(crs_of(square.crs, self.folder), mine.crs)

    def check(self, case: Scene) -> None:
        """ValueError where they lie on another square than the case's, or were given other files of a product than it was read from."""
        mine, square = case.footprint, self.note and self.note.square
        if self.lies_at(case) is False and mine and square:
            raise ValueError(f"{self.folder / RECORD}: its samples lie on a square at {square.left:.2f}, {square.top:.2f} ({square.crs}), "
                             f"and case {case.name} lies at {mine.left:.2f}, {mine.top:.2f} ({mine.crs.to_string()}); draw them for the "
                             "case's own square")
        known = table_with(case.table.names)     # the model may have been given what the case's table lacks
        read, drawn = hashes_in(case.notes, known), hashes_in(self.note.sources if self.note else {}, known)
        if other := [name for name in read if drawn.get(name, read[name]) != read[name]]:
            raise ValueError(f"{self.folder / RECORD}: was given another {other[0].split()[0]} file than case {case.name} was read from; "
                             "draw the samples from the case's own files")


def table_of(rows: Sequence[str]) -> Table:
    """The rows of the table that has them, in their order."""
    return table_with(rows).subset(rows)


def hashes_in(notes: Mapping[str, Any], table: Table) -> dict[str, str]:
    """The hashes of the files that a scene was read from, by the product and the file's name."""
    found: dict[str, str] = {}
    inputs = notes.get("inputs")
    for one in inputs if isinstance(inputs, list) else []:
        said = one.get("sha256")
        files = said if isinstance(said, dict) else {one.get("path"): said}
        found |= {f"{table[table.select(str(one.get('product')))[0]].product} {name}": str(digest) for name, digest in files.items()}
    return found


def crs_of(text: str, where: Path) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise ValueError(f"{where}: {text[:80]!r} is no coordinate reference system") from error


@dataclass(frozen=True)
class Folder:
    """Samples on disk as a generator."""

    path: Path
    drawn: tuple[Drawn, ...]
    table: Table = TABLE

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        """The samples of these seeds that are there; [] for a case or a condition that was not drawn."""
        found: dict[int, tuple[Path, Drawn]] = {}
        for one in self.drawn:
            if one.fits(case, given):
                one.check(case)
                for seed, path in one.samples:
                    if seed in found:
                        raise ValueError(f"{path}: a second sample of seed {seed} for the same case and given layers, beside "
                                         f"{found[seed][0]}; leave one of the two")
                    found[seed] = path, one
        return [scene for seed in seeds if seed in found and (scene := read_sample(*found[seed], case, want, seed)).layers]

    def record(self) -> dict[str, Any]:
        notes = [one.note for one in self.drawn if one.note is not None]
        models = {json.dumps(note.model, sort_keys=True): note.model for note in notes}
        how = sorted({(note.solver or "", note.calls or 0) for note in notes})
        files = [path for one in self.drawn for path in [*one.folder.glob("sample-*/*"), *one.folder.glob(RECORD)] if path.is_file()]
        return {"source": "folder", "name": ", ".join(sorted({str(one.get("name")) for one in models.values()})) or self.path.name,
                "models": list(models.values()), "solvers": [list(one) for one in how],
                "without a record": sorted({f"given {named(one.given)}, radar in {one.s1_unit}" for one in self.drawn if one.note is None}),
                **fingerprint(self.path, files)}


def open_folder(path: Path, table: Table | None = None, given: str | None = None, s1_unit: RadarUnit = "linear") -> Folder:
    """The samples in a folder, found but not read; ValueError where there are none, and for a record that is damaged.

    table: None is the one whose files lie there.
    """
    table = table or table_in(path)
    noted = [with_record(file, table) for depth in DEPTHS for file in sorted(path.glob(depth + RECORD))]
    known = {one.folder for one in noted}
    plain = [one for one in without_record(path, table, given, s1_unit) if one.folder not in known]
    found = tuple(one for one in (*noted, *plain) if one.samples)
    if not found:
        raise ValueError(f"{path}: holds no samples; name a folder that `copgen generate --out` wrote, or one with "
                         "<given>/<case>/sample-000/<row>.tif in it, such as DEM+LULC/618U_30L/sample-000/S2L2A_10m.tif")
    return Folder(path, found, table)


def table_in(path: Path) -> Table:
    """The table that a row's file in some sample is of; COP-GEN's where none tells."""
    names = {table: {Path(raster_name(row)).stem for row in table.rows if row.is_image} for table in TABLES.values()}
    stems = (file.stem for depth in DEPTHS for file in path.glob(f"{depth}sample-*/*"))
    return next((table for stem in stems for table, known in names.items() if stem in known), TABLE)


def with_record(file: Path, table: Table) -> Drawn:
    note = load(RunNote, file)
    if wrong := [one.folder for one in note.samples if not SAMPLE.fullmatch(one.folder)]:
        raise ValueError(f"{file}: {wrong[0]!r} is no folder of a sample; they are called sample-000 and so on")
    given = table.select(known) if (known := [row for row in note.given if row in table_with(table.names).by_name]) else ()
    there = tuple((one.seed, file.parent / one.folder) for one in note.samples if (file.parent / one.folder).is_dir())
    return Drawn(file.parent, note.scene, given, there, note, note.s1_unit)


def without_record(path: Path, table: Table, given: str | None, s1_unit: RadarUnit) -> list[Drawn]:
    """Folders of cases below folders that say what is given; or the cases themselves where that is said already."""
    pattern = "*/sample-*" if given is not None else "*/*/sample-*"
    folders = sorted({sample.parent for sample in path.glob(pattern) if sample.is_dir()})
    found = []
    for folder in folders:
        if not (folder / RECORD).exists():
            samples = tuple(sorted((int(number[1]), one) for one in folder.iterdir() if (number := SAMPLE.fullmatch(one.name))))
            said = given if given is not None else folder.parent.name
            found.append(Drawn(folder, folder.name, rows_named(said, table, folder), samples, None, s1_unit))
    return found


def rows_named(text: str, table: Table, where: Path) -> tuple[str, ...]:
    """`DEM+LULC` -> rows; `nothing` -> none."""
    try:
        return () if text == "nothing" else table.select(text.split("+"))
    except ValueError as error:
        raise ValueError(f"{where}: {text!r} should say what is given, as DEM+LULC or nothing: {error}") from error


def as_ensemble(folder: Path | str, truth: Scene | None = None, table: Table | None = None) -> Ensemble:
    """The samples that one `copgen generate` left in OUT/<case>, for figures, beside the truth where it is known.

    Without a `truth` the observation is what the record says of the square: the place and the date that were given. Raises ValueError for
    a folder without such a record, and for a truth that lies on another square.
    """
    path = Path(folder)
    if not (path / RECORD).is_file():
        raise ValueError(f"{path}: has no {RECORD}; name the folder of one case that `copgen generate` left in its --out")
    table = table or (truth.table if truth else table_in(path))
    drawn = with_record(path / RECORD, table)
    case = ground_of(drawn, table) if truth is None else truth
    drawn.check(case)
    note = drawn.note
    wanted = table.select(note.wanted) if note and note.wanted else tuple(row for row in table.names if row not in drawn.given)
    samples = [read_sample(place, drawn, case, wanted, seed) for seed, place in drawn.samples]
    scored = tuple(row for row in wanted if any(row in one for one in samples))
    condition = Condition("generate", drawn.given, scored, len(samples), first_seed=min((seed for seed, _ in drawn.samples), default=0))
    return Ensemble(condition, case, [], samples, str(note.model.get("name", path.name)) if note else path.name)


def ground_of(drawn: Drawn, table: Table) -> Scene:
    """The square of a record as a scene, with the place and date that were given."""
    assert drawn.note is not None
    said, square = drawn.note.given, drawn.note.square
    layers: Layers = {}
    if isinstance(said.get("place"), list):
        layers["place"] = np.asarray(said["place"], np.float64)
    if isinstance(said.get("date"), str):
        layers["date"] = parse_date(said["date"])
    ground = None if square is None else Footprint(crs_of(square.crs, drawn.folder), square.left, square.top, square.side)
    return Scene(layers, ground, drawn.case, table)


# --- one sample ---------------------------------------------------------------------------------------------------------------------

def read_sample(folder: Path, drawn: Drawn, case: Scene, want: Sequence[str], seed: int) -> Scene:
    """The wanted rows that a sample has, on the case's ground."""
    layers = {name: layer for name in want if case.table[name].is_image
              and (layer := read_layer(folder, case.table[name], case, drawn.s1_unit)) is not None}
    layers |= {name: layer for name, layer in read_place_and_date(folder / PLACE_AND_DATE).items() if name in want}
    try:
        return case.with_layers({name: layers[name] for name in case.table.names if name in layers}, seed=seed)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_layer(folder: Path, row: Modality, case: Scene, s1_unit: RadarUnit) -> NDArray[Any] | None:
    """A row of a sample in its unit, from its own file or from one a band; None where there is neither."""
    side = case.table.side(row.name)
    if (whole := folder / raster_name(row)).is_file():
        return read_bands(whole, row, row.bands, side, case, s1_unit)
    pictures = [folder / picture_name(row, kind) for kind in get_args(PictureKind) if is_picture(row)]
    if drawn := next((picture for picture in pictures if picture.is_file()), None):
        return at_side(read_picture(drawn), side, row, str(drawn))
    files = {band: folder / f"{row.product}_{band}.tif" for band in row.bands}
    there = [band for band, file in files.items() if file.is_file()]
    if not there:
        return None
    if missing := [band for band in row.bands if band not in there]:
        raise ValueError(f"{folder}: {row.name} has {', '.join(there)} and lacks {', '.join(missing)}; a row is drawn with all its bands")
    return np.concatenate([read_bands(files[band], row, (band,), side, case, s1_unit) for band in row.bands])


def read_bands(path: Path, row: Modality, bands: Sequence[str], side: int, case: Scene, s1_unit: RadarUnit) -> NDArray[Any]:
    with raster_at(path) as dataset:
        check_ground(dataset, path, case)
        values = dataset.read(band_indexes(dataset, bands, str(path)))
        units = [str(unit) for unit in dataset.units if unit]
        decibels = "db" in units[0].lower() if units else s1_unit == "dB"
        values = in_power(sound(values, row, dataset.nodata, str(path)), row, decibels)
    return at_side(values, side, row, str(path))


def check_ground(dataset: Any, path: Path, case: Scene) -> None:
    """ValueError for a file that says where it lies, and lies elsewhere than the case."""
    square: Footprint | None = case.footprint
    if square is None or dataset.crs is None:
        return
    left, bottom, right, top = dataset.bounds
    apart = max(abs(one - other) for one, other in zip((left, bottom, right, top), square.bounds, strict=True))
    if apart > NEAR or not same_crs(dataset.crs, square.crs):
        raise ValueError(f"{path}: lies at {left:.2f}, {top:.2f} ({dataset.crs.to_string()}), and case {case.name} at {square.left:.2f}, "
                         f"{square.top:.2f} ({square.crs.to_string()}); write it with the case's square, or without a CRS")


def read_place_and_date(path: Path) -> Layers:
    """Place and date of a sample's GeoJSON, as far as it has them; ValueError for one that is damaged."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > 2**20:
            raise ValueError("larger than 1 MiB")
        feature = json.loads(path.read_text(encoding="utf-8"))["features"][0]
        geometry, date = feature["geometry"], feature["properties"].get("date")
        layers: Layers = {} if date is None else {"date": parse_date(str(date))}
        if geometry is not None:
            lon, lat = (float(degrees) for degrees in geometry["coordinates"][:2])
            layers["place"] = np.array([lat, lon])
        return layers
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: holds no place and date as GeoJSON ({error}); one point with a date as YYYY-MM-DD is needed") from error
