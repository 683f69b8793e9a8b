"""How much of a layer survives its codec? Errors in physical units, beside trivial codecs of the same size."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from copgen import scores
from copgen.codec import Codec, KLCodec, draw
from copgen.codecs import full_float32
from copgen.config import parse
from copgen.modalities import Modality, Table
from copgen.model import CopGen
from copgen.reading import CopgenWarning, read_scene
from copgen.scaling import Decibel, EightBit, Legend, Linear, LogHeight
from copgen.scene import Scene
from copgen.store import load_codec, read_json
from copgen.training.recipe import Geometry, Recipe
from copgen.training.sources import Scenes, Source, Worlds, having
from copgen.training.trivial import BlockMajority, fit_block_pca

Errors = dict[str, float]
AT_ONCE = 16                                     # samples that go through a codec together
LEAST_WITH_OFFSET = 900                          # DN in B10, which without the offset of 1000 holds 10 to 60
HILLY = 100.0                                    # metres of relief (5th to 95th percentile) from which errors are measured against it


# Errors


def reconstruction_errors(codec: Codec, row: Modality, layers: NDArray) -> Errors:
    """What is lost when layers [B, bands, H, W] in physical units go through a codec and back; see `errors`."""
    return errors(row, layers, reconstructed(codec, row, layers))


@torch.no_grad()
def reconstructed(codec: Codec, row: Modality, layers: NDArray) -> NDArray:
    """Layers [B, bands, H, W] in physical units through a codec and back, by the posteriors' means."""
    like = codec.decoder.conv_out.weight if isinstance(codec, KLCodec) else torch.zeros(())
    made = []
    for part in np.split(layers, range(AT_ONCE, len(layers), AT_ONCE)):
        pixels = torch.from_numpy(row.scale.to_model(part)).to(like)
        with full_float32():
            made.append(codec.decode(draw(codec.moments(pixels), codec.scaling_factor)).float().cpu().numpy())
    return row.scale.to_physical(np.concatenate(made))


def errors(row: Modality, truth: NDArray, made: NDArray) -> Errors:
    """The errors of layers [B, bands, H, W] against the truth, in the row's unit; radar in dB.

    All rows but classes: mae, rmse (both over all elements) and the rmse of each band. Reflectance and pictures: psnr in dB, 0..1 or 0..255
    being its range, the mean over places. Heights: percent_of_relief, the rmse of a place over its 5th to 95th percentile, the mean over
    places where that is above 100 m. Classes: accuracy and iou, the mean over the classes that the truth has of intersection over union,
    in percent.
    """
    match row.scale:
        case Legend() as legend:
            return class_errors(legend, truth, made)
        case Decibel() as radar:
            return continuous_errors(row, decibels(truth, radar.floor), decibels(made, radar.floor))
        case LogHeight():
            return continuous_errors(row, truth, made) | relief_errors(truth, made)
        case Linear() as linear:
            return continuous_errors(row, truth, made) | {"psnr": psnr(truth, made, linear.full_scale)}
        case EightBit():
            return continuous_errors(row, truth, made) | {"psnr": psnr(truth, made, 255)}
    raise ValueError(f"{row.name} has no grid, and so no codec whose errors could be measured")


def continuous_errors(row: Modality, truth: NDArray, made: NDArray) -> Errors:
    off = made.astype(np.float64) - truth
    bands = {f"rmse {band}": float(np.sqrt((off[:, k] ** 2).mean())) for k, band in enumerate(row.bands)} if len(row.bands) > 1 else {}
    return {"mae": float(np.abs(off).mean()), "rmse": float(np.sqrt((off**2).mean())), **bands}


def decibels(power: NDArray, floor: float) -> NDArray[np.float64]:
    return 10 * np.log10(np.maximum(np.asarray(power, np.float64), floor))


def squared(truth: NDArray, made: NDArray) -> NDArray[np.float64]:
    """The mean squared error of each place."""
    return np.asarray(((made.astype(np.float64) - truth) ** 2).mean(axis=(1, 2, 3)))


def psnr(truth: NDArray, made: NDArray, full_scale: float) -> float:
    """Peak signal-to-noise ratio in dB, the mean over places; what is exact to a tenth of a digital number counts as that."""
    return float((10 * np.log10(full_scale**2 / np.maximum(squared(truth, made), 0.01))).mean())


def relief_errors(truth: NDArray, made: NDArray) -> Errors:
    low, high = np.percentile(truth, (5, 95), axis=(1, 2, 3))
    hilly = high - low > HILLY
    share = 100 * np.sqrt(squared(truth, made))[hilly] / (high - low)[hilly]
    return {"percent_of_relief": float(share.mean()), "hilly_places": int(hilly.sum())} if hilly.any() else {}


def class_errors(legend: Legend, truth: NDArray, made: NDArray) -> Errors:
    table = scores.confusion(truth, made, legend.codes)
    hits, there = np.diag(table), table.sum(1) > 0
    union = table.sum(0) + table.sum(1) - hits
    return {"accuracy": float(100 * scores.accuracy(table)), "iou": float(100 * (hits[there] / union[there]).mean())}

# The report


@dataclass(frozen=True)
class Codecs:
    """Codecs to be looked at, their table, and the data that they were trained on where that is known."""

    name: str
    table: Table
    by_row: Mapping[str, Codec]
    trained_on: tuple[str, ...] = ()


def open_codecs(model: str, rows: str | None = None) -> Codecs:
    """The codecs of a model (a name or a folder), of a folder of codecs (`FOLDER/<row>`), or of one run of `copgen train-vae`.

    rows: rows or products; None is all that there are. Raises ValueError where there are none, and for a row that isn't there.
    """
    folder = Path(model)
    if (folder / "codec.json").is_file():
        return of_runs(model, [folder], rows)
    if runs := sorted(path.parent for path in folder.glob("*/codec.json")):
        return of_runs(model, runs, rows)
    whole = CopGen.from_pretrained(model)
    wanted = tuple(row for row in (whole.table.select(rows) if rows else whole.table.names) if whole.table[row].is_image)
    return Codecs(whole.name, whole.table, {row: whole.codec(row) for row in wanted}, data_in(whole.record.notes))


def of_runs(name: str, folders: Sequence[Path], rows: str | None) -> Codecs:
    """Codecs as `copgen train-vae` leaves them, each with its recipe beside it."""
    records = {folder: read_json(folder / "recipe.json") for folder in folders}
    first = records[folders[0]]
    geometry = parse(Geometry, first.get("table", {}), f"{folders[0] / 'recipe.json'}: table")
    recipe = Recipe(name, geometry, shared_codec=str(first.get("shared_codec", "")))
    table = recipe.modalities
    found = {row: folder for folder, record in records.items() for row in recipe.coded_by(str(record.get("row")))}
    wanted = table.select(rows) if rows else tuple(row for row in table.names if row in found)
    if missing := [row for row in wanted if row not in found]:
        raise ValueError(f"{name}: no codec of {', '.join(missing)} in there; there are those of {', '.join(sorted(found))}")
    data = tuple(dict.fromkeys(str(records[found[row]].get("data")) for row in wanted))
    codecs = {folder: load_codec(folder) for folder in dict.fromkeys(found[row] for row in wanted)}
    return Codecs(name, table, {row: codecs[found[row]] for row in wanted}, data)


def data_in(notes: Any) -> tuple[str, ...]:
    """What a model's notes call the source of its data, at any depth."""
    if not isinstance(notes, Mapping):
        return ()
    return tuple(str(value) for key, value in notes.items() if key == "source") + tuple(
        name for value in notes.values() for name in data_in(value))


def shared_worlds(one: str, other: str) -> bool:
    """Whether two sources by these names have places in common, as far as names tell: ranges of seeds that overlap, or one name."""
    ranges = [[(int(low), int(high)) for low, high in re.findall(r"synthetic:(\d+)\.\.(\d+)", name)] for name in (one, other)]
    return one == other or any(a < d and c < b for a, b in ranges[0] for c, d in ranges[1])


def read_cells(folder: Path, table: Table) -> Scenes:
    """Real cells as TerraMesh keeps them, FOLDER/<product>/<cell>.tif: radar in dB, land cover as indices, all on one 10 m grid.

    Each is the square in its middle, with the products that are there. Sentinel-2's offset is subtracted from L1C where band B10, in which
    nothing at the ground is seen, shows that it is still there. Raises ValueError for a folder without such files.
    """
    return Scenes(f"cells of {folder.name}", [read_cell(paths, table) for paths in cell_files(folder, table).values()], table)


def cell_files(folder: Path, table: Table) -> dict[str, list[Path]]:
    """The files of every cell in FOLDER/<product>/<cell>.tif, by the file's name; ValueError where there are none."""
    found: dict[str, list[Path]] = {}
    for product in table.products:
        for path in folder.glob(f"{product}/*.tif"):
            found.setdefault(path.name, []).append(path)
    if not found:
        raise ValueError(f"--cells {folder}: no files FOLDER/<product>/<cell>.tif in there; products are {', '.join(table.products)}")
    return dict(sorted(found.items()))


def read_cell(paths: Sequence[Path], table: Table) -> Scene:
    stated = {"S1RTC": ",unit=dB", "LULC": ",codes=index"}

    def read(options: Mapping[str, str]) -> Scene:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CopgenWarning)                         # of bands that are stored finer than they are
            texts = [f"{path.parent.name}={path}{options.get(path.parent.name, '')}" for path in paths]
            return read_scene(texts, table=table, name=paths[0].stem)

    scene = read(stated)
    cirrus = scene["s2l1c_60m"][table["s2l1c_60m"].bands.index("B10")] if "s2l1c_60m" in scene else np.zeros(1)
    return read({**stated, "S2L1C": ",offset=1000"}) if np.percentile(cirrus, 1) >= LEAST_WITH_OFFSET else scene


def codec_report(codecs: Codecs, places: Source, others: Source, *, each: bool = False, most: int = 128,
                 tick: Callable[[int, int], object] | None = None) -> dict[str, Any]:
    """The errors of every codec at these places, beside trivial ones of the same size fitted on others; plain data, ready for JSON.

    each: of every place by itself, too. most: how many places are looked at, and fitted on. Raises ValueError where the places are also
    fitted on, and where they have none of the rows; data that has these places and that a codec was trained on is told under "seen".
    """
    if shared_worlds(places.name, others.name):
        raise ValueError(f"--fit {others.name}: has places of {places.name}, where errors are measured; fit on others")
    (truth, names), (fitted, _) = (first_layers(source, tuple(codecs.by_row), most) for source in (places, others))
    if not truth:
        raise ValueError(f"{places.name}: has none of the rows {', '.join(codecs.by_row)}")
    rows: dict[str, Any] = {}
    for number, (name, layers) in enumerate(truth.items()):
        if name not in fitted:
            raise ValueError(f"--fit {others.name}: has no {name}; fit on data that has it")
        row, codec = codecs.table[name], codecs.by_row[name]
        rows[name] = row_report(codec, trivial_codecs(codec, row, fitted[name]), row, layers, names[name] if each else ())
        if tick:
            tick(number + 1, len(truth))
    seen = [name for name in codecs.trained_on if shared_worlds(name, places.name)]
    return {"model": codecs.name, "places": places.name, "fitted on": others.name, "seen": seen, "rows": rows}


def first_layers(source: Source, rows: Sequence[str], most: int) -> tuple[dict[str, NDArray], dict[str, list[str]]]:
    """The layers of the first places that have a row, by row, and the places' names; rows that no place has are left out."""
    if not source.incomplete:                    # a world is made once for all its rows
        numbers = range(min(most, len(source)))
        return dict(source.layers(rows, numbers)), {row: [place_name(source, k) for k in numbers] for row in rows}
    there = source.present(rows, range(len(source)))
    having_it = {row: having(source, row)[:most].tolist() for k, row in enumerate(rows) if there[:, k].any()}
    return ({row: source.layers([row], numbers)[row] for row, numbers in having_it.items()},
            {row: [place_name(source, k) for k in numbers] for row, numbers in having_it.items()})


def place_name(source: Source, number: int) -> str:
    match source:
        case Scenes(scenes=scenes):
            return scenes[number].name
        case Worlds(first=first):
            return f"seed {first + number}"
        case _:
            return f"no. {number}"


def trivial_codecs(codec: Codec, row: Modality, layers: NDArray) -> dict[str, Codec]:
    """Block PCA with as many coefficients as the codec has latent channels, and for classes the commonest of a block."""
    assert isinstance(codec, KLCodec)
    side = codec.config.stride
    parts = (torch.from_numpy(row.scale.to_model(part)) for part in np.split(layers, range(AT_ONCE, len(layers), AT_ONCE)))
    found: dict[str, Codec] = {"block PCA": fit_block_pca(parts, side, codec.config.latent_channels)}
    return found | ({"block majority": BlockMajority(row.channels, side)} if row.legend else {})


def row_report(codec: Codec, trivial: Mapping[str, Codec], row: Modality, layers: NDArray, names: Sequence[str] = ()) -> dict[str, Any]:
    """The errors of a codec and of trivial ones; with names of the places, of each of them, too."""
    found: dict[str, Any] = {"count": len(layers), "unit": unit_of(row), "codecs": {}}
    for what, one in {"codec": codec, **trivial}.items():
        made = reconstructed(one, row, layers)
        each = [{"place": name, **errors(row, layers[k : k + 1], made[k : k + 1])} for k, name in enumerate(names)]
        found["codecs"][what] = {"all": errors(row, layers, made), **({"each": each} if each else {})}
    return found


def unit_of(row: Modality) -> str:
    """The unit of a row's errors."""
    return "%" if row.legend else "dB" if isinstance(row.scale, Decibel) else row.unit.split(" ")[0]
