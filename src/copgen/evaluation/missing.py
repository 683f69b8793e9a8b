"""Which pixels of a layer are not known? A scene has no holes, so what was filled to make it whole is a note beside its layers."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen.scene import Scene

NOTE = "no data"                                 # the note's key: by row, pixels that nothing is known of
Mask = NDArray[np.bool_]


def no_data_note(missing: Mapping[str, Mask]) -> dict[str, dict[str, str]]:
    """The note of layers that were filled, from true where nothing is known ([bands, H, W], by row); whole layers are left out of it.

    It is plain JSON: `scene.with_layers(layers, **no_data_note(missing))`.
    """
    packed = {row: base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode() for row, mask in missing.items() if mask.any()}
    return {NOTE: packed} if packed else {}


def unknown(scene: Scene, row: str) -> Mask | None:
    """Where nothing is known of a layer, [bands, H, W]; None where all is known."""
    packed: Any = scene.notes.get(NOTE, {}).get(row)
    if packed is None:
        return None
    shape = scene.table.layer_shape(row)
    count = int(np.prod(shape))
    bits = zlib.decompressobj().decompress(base64.b64decode(packed), -(-count // 8))     # no more than a layer's, whatever a file says
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).reshape(shape).astype(bool)
