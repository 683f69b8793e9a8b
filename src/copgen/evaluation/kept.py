"""How is an ensemble kept? All that was drawn for one case under one condition, with its truth, as one safetensors file.

Arrays are named `observation/<row>` [bands, H, W] (place [2], date [1] in days since 1970), and `others/<row>`, `samples/<row>`,
`swapped/<row>` and `swapped_others/<row>`, one after another [n, ...]. All else is a JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from copgen.config import dump, parse
from copgen.evaluation.recipe import Condition
from copgen.files import json_bytes, write_whole
from copgen.modalities import Table, table_with
from copgen.scene import Footprint, Scene

KEY = "copgen"                                   # one alone: the order of several in a file would be chance
SETS = ("others", "samples", "swapped", "swapped_others")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Ensemble:
    """What a generator drew for a case, and what is true there.

    observation: the case with all that is known of it. others: further true observations that agree with what is given, [] where there
    are none. samples: with their seeds in the notes; fewer than the condition's where some are missing, each with the rows that were
    drawn. swapped: those with the same seeds given another case's layer, where the condition has a swap; swapped_others: true
    observations that agree with that, in the order of the others.
    """

    condition: Condition
    observation: Scene
    others: list[Scene]
    samples: list[Scene]
    generator: str
    swapped: list[Scene] = field(default_factory=list)
    swapped_others: list[Scene] = field(default_factory=list)


def write_ensemble(path: Path, ensemble: Ensemble) -> Path:
    """Keep an ensemble, whole or not at all; the same ensemble gives the same bytes. What is
    not scored is kept of the observation alone.

    Raises ValueError if it can't be written.
    """
    scored = set(ensemble.condition.scored)
    sets = {name: [replace(one, layers={row: layer for row, layer in one.layers.items() if row in scored})
                   for one in getattr(ensemble, name)] for name in SETS}
    arrays = {f"observation/{row}": numbers(layer) for row, layer in ensemble.observation.layers.items()}
    for name, scenes in sets.items():
        arrays |= {f"{name}/{row}": layers for row, layers in stacked(scenes).items()}
    table = ensemble.observation.table
    said = {
        "condition": dump(ensemble.condition), "generator": ensemble.generator,
        "table": {"rows": table.names, "footprint": table.footprint, "stride": table.stride, "patch": table.patch,
                  "latent_channels": table.latent_channels},
        "observation": record_of(ensemble.observation),
        **{name: [record_of(one) for one in scenes] for name, scenes in sets.items()},
    }
    return write_whole(path, save(arrays, {KEY: json_bytes(said).decode()}))


def read_ensemble(path: Path) -> Ensemble:
    """What `write_ensemble` kept; ValueError for a file that is missing, damaged or something else."""
    try:
        with safe_open(path, "numpy") as file:
            said = json.loads((file.metadata() or {})[KEY])
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
        rows = said["table"].pop("rows")
        table = replace(table_with(rows).subset(rows), **said["table"])
        sets = {name: unstacked(arrays, name, said.get(name, ()), table) for name in SETS}
        first = said["observation"]
        observation = scene_of({row: arrays[f"observation/{row}"] for row in first["rows"]}, first, table)
    except (OSError, SafetensorError, LookupError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no kept ensemble, or damaged or gone ({error}); delete it and evaluate again") from error
    return Ensemble(parse(Condition, said["condition"], str(path)), observation, generator=said["generator"], **sets)


def stacked(scenes: Sequence[Scene]) -> Arrays:
    """The layers of those scenes that have them, by row."""
    rows = dict.fromkeys(row for scene in scenes for row in scene.layers)
    return {row: np.stack([numbers(scene[row]) for scene in scenes if row in scene]) for row in rows}


def numbers(layer: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(layer.astype("datetime64[D]").astype(np.int64) if layer.dtype.kind == "M" else layer)


def unstacked(arrays: Mapping[str, NDArray[Any]], name: str, records: Sequence[Mapping[str, Any]], table: Table) -> list[Scene]:
    """The scenes of a set again: each takes the next layer of every row that it has."""
    taken, scenes = Counter[str](), []
    for record in records:
        scenes.append(scene_of({row: arrays[f"{name}/{row}"][taken[row]] for row in record["rows"]}, record, table))
        taken.update(record["rows"])
    return scenes


def record_of(scene: Scene) -> dict[str, Any]:
    """What a scene is besides its layers."""
    square = scene.footprint
    ground = square and {"crs": square.crs.to_wkt(), "left": square.left, "top": square.top, "side": square.side}
    return {"name": scene.name, "rows": list(scene.layers), "footprint": ground, "notes": dict(scene.notes)}


def scene_of(layers: Mapping[str, NDArray[Any]], record: Mapping[str, Any], table: Table) -> Scene:
    ground = record["footprint"]
    square = ground and Footprint(CRS.from_wkt(ground["crs"]), ground["left"], ground["top"], ground["side"])
    days = {row: layer.astype("datetime64[D]") for row, layer in layers.items() if row == "date"}
    return Scene({**layers, **days}, square, record["name"], table, record["notes"])
