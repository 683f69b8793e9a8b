"""What do two folders of pictures hold, or two files of vectors? Collections for `datasets`, whoever made them.

Pictures are PNG, WebP or JPEG of any size. A name such as `618U_30L_3_v2.png` is the second sample of `618U_30L_3`, as the published code
writes them, and so is `618U_30L_3/sample-001/S2L2A_thumbnail.png`, as `copgen generate` does; pictures of one name in both folders are of
one cell.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from copgen.evaluation.datasets import Collection, Line, only_vectors
from copgen.evaluation.features import WHITE, Feature
from copgen.evaluation.folders import SAMPLE
from copgen.evaluation.stacks import Array
from copgen.job import SHEET
from copgen.modalities import TABLES
from copgen.reading.pictures import is_picture, read_picture
from copgen.writing import is_picture as is_picture_row
from copgen.writing import picture_name

SAMPLE_OF = re.compile(r"(\.png)?_v\d+$")        # what the published code adds to the name of what was given
VECTORS = (".npy", ".safetensors")
AT_ONCE = 16
ROWS = frozenset(Path(picture_name(row)).stem for table in TABLES.values() for row in table.rows if is_picture_row(row))
GIVEN = "vectors"                                # the name of a feature that came as a file


def lines_of_pair(real: Path, fake: Path, features: Sequence[Feature]) -> list[Line]:
    """The lines of two folders of pictures by every feature, or the one of two files of vectors.

    Raises ValueError where one is a folder and the other is not, for an empty folder, and for what cannot be read.
    """
    kinds = [one.suffix.lower() in VECTORS and one.is_file() for one in (real, fake)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"--real {real}, --fake {fake}: two folders of pictures or two files of vectors ({', '.join(VECTORS)}) are needed")
    if kinds[0]:
        if features:
            raise ValueError(f"{real}: holds vectors, which are features already; leave out --features {features[0].name}")
        made = [{GIVEN: numbered(vectors_in(one))} for one in (real, fake)]
    else:
        by_name = only_vectors(features)
        made = [of_pictures(pictures_in(one), by_name) for one in (real, fake)]
    what = GIVEN if kinds[0] else "pictures"
    return [Line(fake.name, f"beside {real.name}", "", what, name, made[0][name], made[1][name]) for name in made[0]]


def pictures_in(folder: Path) -> list[Path]:
    """All pictures in a folder and below it, by their names, without contact sheets; ValueError for none, and for those of several rows."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder of pictures; name one, or a file of vectors ({', '.join(VECTORS)})")
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SHEET and is_picture(path))
    if not found:
        raise ValueError(f"{folder}: holds no pictures; PNG, WebP and JPEG are read")
    if len(rows := sorted(ROWS & {part for path in found for part in (path.stem, path.parent.name)})) > 1:
        raise ValueError(f"{folder}: holds pictures of {', '.join(rows)}, which are no one set; name a folder of one alone")
    return found


def of_pictures(paths: Sequence[Path], features: Mapping[str, Feature]) -> dict[str, Collection]:
    """What every feature makes of pictures, a few in memory at a time."""
    cells = cells_of(paths)
    parts: dict[str, list[Array]] = {name: [] for name in features}
    for images in stacks(paths):
        for name, feature in features.items():
            parts[name].append(np.asarray(feature.call(images), np.float64))
    return {name: Collection(np.concatenate(found), cells) for name, found in parts.items()}


def stacks(paths: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    """Pictures [n, 3, H, W] in 0..1, in their order, those that follow each other and have one size together."""
    held: list[NDArray[np.uint8]] = []
    for path in paths:
        picture = read_picture(path)
        if held and (len(held) == AT_ONCE or picture.shape != held[0].shape):
            yield shares(held)
            held = []
        held.append(picture)
    yield shares(held)


def shares(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack(pictures).astype(np.float32) / np.float32(WHITE)


def cells_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """What each picture is of: its name less the sample's number, the folder around that of its sample, or else its whole path."""
    if all(SAMPLE.fullmatch(path.parent.name) for path in paths):
        return tuple(path.parent.parent.name for path in paths)
    names = [SAMPLE_OF.sub("", path.stem) for path in paths]
    return tuple(names) if len({path.stem for path in paths}) == len(paths) else tuple(map(str, paths))


def vectors_in(path: Path) -> Array:
    """Vectors [n, d] of a .npy or .safetensors; ValueError for what is damaged, is no such array or holds what is no number."""
    try:
        if path.suffix.lower() == ".npy":
            if zipfile.is_zipfile(path):         # an .npz under another name
                raise ValueError("holds several arrays; save one alone")
            # mapped, so that a header can't claim more than the file holds; there are no pickles in what can be mapped
            found: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        else:
            arrays = load_file(path)
            if len(arrays) != 1 and GIVEN not in arrays:
                raise ValueError(f"holds {', '.join(arrays)}; one array is needed, or one called {GIVEN}")
            found = arrays.get(GIVEN, next(iter(arrays.values())))
        if found.ndim != 2 or not found.size or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
            raise ValueError(f"holds {found.dtype} of shape {list(found.shape)}; finite numbers [n, d] are needed, a vector a line")
    except (OSError, EOFError, ValueError, TypeError, KeyError, OverflowError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path}: no vectors could be read ({reason}); save one array [n, d] with numpy.save") from error
    return np.array(found, np.float64)


def numbered(vectors: Array) -> Collection:
    return Collection(vectors, tuple(f"{k:09d}" for k in range(len(vectors))))
