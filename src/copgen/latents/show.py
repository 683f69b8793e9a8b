"""What do latents show? Some patches of a folder, decoded and side by side, each beside its real layers where the archive is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from copgen import __version__, geoparquet
from copgen.bulk.encode import Codecs
from copgen.bulk.patches import Limits, Which, read_patches
from copgen.bulk.records import INDEX, REJECTED
from copgen.codec import draw
from copgen.drawing import INK, PAPER, Canvas, fitting
from copgen.files import write_whole
from copgen.latents.look import open_moments
from copgen.majortom.cells import Offset
from copgen.reading.scenes import MOST_FILLED
from copgen.scene import Scene
from copgen.shards import Shards
from copgen.sheet import MARGIN, SHOWN, drawn, grid, planned, png
from copgen.store import load_codec


@dataclass(frozen=True)
class Shown:
    """One sample: its number, what it is called, and where the index says it is from."""

    number: int
    name: str
    cell: str | None = None
    patch: int | None = None


def sample(folder: Path, codecs: Codecs, *, numbers: Sequence[int] = (), cell: str | None = None, archive: Path | None = None,
           path: Path | None = None, overwrite: bool = False, scale: int = 2) -> Image.Image:
    """A sheet of some samples, decoded from their posteriors' means: of these numbers, of a cell, or from all over the folder.

    At most eight are shown, or four beside their real layers in `archive`; of more, some at equal distances. With a `path` the sheet is
    written as PNG. Raises ValueError for a number or cell that isn't there, for other codecs than those that made the latents, and for a
    folder that can't say where its samples are from where that is needed.
    """
    shards = open_moments(folder)
    if differing := codecs.differing(shards.meta.get("codecs", {})):
        raise ValueError(f"{differing[0]}: is not the codec that made the moments in {folder}; name the model that did")
    chosen = choose(shards, numbers, cell, SHOWN // 2 if archive else SHOWN)
    scenes = decoded(shards, codecs, chosen)
    columns = [(one.name, scene) for one, scene in zip(chosen, scenes, strict=True)]
    if archive:
        offset = shards.meta.get("how", {}).get("offset", 0)
        real = [real_scene(archive, codecs, one, offset, shards.meta.get("patches", "all")) for one in chosen]
        columns = [both for (name, made), there in zip(columns, real, strict=True)
                   for both in ((f"{name}, real", there), (f"{name}, decoded", made))]
    image = sheet(f"{folder.name}: {len(chosen)} of {len(shards)} samples", columns, scale)
    if path is not None:
        write_whole(path, png(image), overwrite=overwrite)
    return image


def choose(shards: Shards, numbers: Sequence[int], cell: str | None, most: int) -> list[Shown]:
    """Which samples are shown, with what the folder's index says of them."""
    import pyarrow.compute as pc

    index = geoparquet.read(shards.folder / INDEX, ["cell", "patch"], coded=["cell"]) if (shards.folder / INDEX).is_file() else None
    if cell is not None:
        if numbers:
            raise ValueError(f"cell {cell}: samples are chosen by numbers or by a cell, not by both; leave one out")
        if index is None:
            raise ValueError(f"{shards.folder}: has no {INDEX}, so nobody knows where its samples are from; choose samples by number")
        numbers = np.flatnonzero(pc.equal(index["cell"], cell)).tolist()
        if not numbers:
            raise ValueError(f"{shards.folder}: no sample is of cell {cell}; {REJECTED} says what became of its patches, if it was encoded")
    if wrong := [number for number in numbers if not 0 <= number < len(shards)]:
        raise ValueError(f"sample {wrong[0]}: {shards.folder} holds the samples 0 to {len(shards) - 1}")
    wanted = np.asarray(numbers or range(len(shards)))
    some = wanted[np.unique(np.linspace(0, len(wanted) - 1, min(most, len(wanted))).round().astype(int))]
    return [shown(int(number), index) for number in some]


def shown(number: int, index: Any) -> Shown:
    if index is None:
        return Shown(number, f"sample {number}")
    cell, patch = index["cell"][number].as_py(), index["patch"][number].as_py()
    return Shown(number, f"{cell} patch {patch}", cell, patch)


@torch.no_grad()
def decoded(shards: Shards, codecs: Codecs, chosen: Iterable[Shown]) -> list[Scene]:
    """The layers of some samples, from the means of their posteriors."""
    table, numbers = codecs.table, np.array([one.number for one in chosen])
    there, stored = shards.present(table.names, numbers), shards.read(table.names, numbers)
    layers: list[dict[str, Any]] = [{} for _ in numbers]
    for k, row in enumerate(table.names):
        codec = load_codec(codecs.folders[row]) if table[row].is_image else None
        for n in np.flatnonzero(there[:, k]):
            pixels = stored[row][n]
            if codec:
                moments = torch.from_numpy(pixels[None]).float()
                pixels = codec.decode(draw(moments, codec.scaling_factor))[0].numpy()
            layers[n][row] = table[row].scale.to_physical(pixels)
    return [Scene(found, None, one.name, table) for found, one in zip(layers, chosen, strict=True)]


def real_scene(archive: Path, codecs: Codecs, one: Shown, offset: Offset, which: Which) -> Scene:
    if one.cell is None:
        raise ValueError(f"{one.name}: its folder has no {INDEX}, so nobody knows where it is from; leave --archive out")
    patches = read_patches(archive, one.cell, codecs.table, limits=Limits(MOST_FILLED, 1.0), offset=offset, which=which)
    return next(patch.scene for patch in patches if patch.number == one.patch)


def sheet(title: str, columns: Sequence[tuple[str, Scene]], scale: int = 2) -> Image.Image:
    """Scenes of different places side by side, a line a layer; what a scene lacks is an empty frame."""
    scenes = [scene for _, scene in columns]
    rows = drawn(scenes[0].table, {name for scene in scenes for name in scene.layers})
    plan = replace(planned(None, scenes, None), samples=scenes[:1], columns=columns, rows=rows)
    canvas = Canvas(Image.new("RGB", (round(plan.width * scale), (240 + len(rows) * (plan.tile + 60)) * scale), PAPER), scale)
    canvas.text(MARGIN, MARGIN - 4, title, fitting(title, 26, plan.width - 2 * MARGIN), INK)
    y = grid(canvas, plan, MARGIN + 44)
    canvas.line([(MARGIN, y), (plan.width - MARGIN, y)])
    canvas.text(MARGIN, y + 8, f"copgen {__version__} · Layers decoded from the means of stored moments.", 10)
    return canvas.image.crop((0, 0, canvas.image.width, round((y + MARGIN + 18) * scale)))
