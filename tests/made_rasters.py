"""GeoTIFFs made for a test, and reading them as a user would."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin

from copgen.reading import CopgenWarning, parse_input, read_scene
from copgen.scene import Scene

LEFT, TOP = 500_020.0, 6_000_040.0
L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
L1C = (*L2A[:10], "B10", *L2A[10:])

QUIET = [pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning"),            # `warned` collects them where they matter
         pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),               # rasterio's own
         pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]


def raster(path: Path, values: NDArray[Any], *, resolution: float = 10, left: float = LEFT, top: float = TOP, crs: Any = 32630,
           names: tuple[str, ...] = (), tags: dict[str, str] | None = None, transform: Affine | None = None, **profile: Any) -> Path:
    values = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=len(values), dtype=values.dtype,
                       crs=crs if crs is None or isinstance(crs, str) else f"EPSG:{crs}",
                       transform=transform or from_origin(left, top, resolution, resolution), **profile) as dataset:
        dataset.write(values)
        if names:
            dataset.descriptions = names
        dataset.update_tags(**(tags or {}))
    return path


def numbers(bands: int, side: int = 224, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(100, 5000, (bands, side, side)).astype(np.uint16)


def power(bands: int = 2, side: int = 224, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).gamma(2, 0.05, (bands, side, side)).astype(np.float32)


def read(*texts: str, **settings: Any) -> Scene:
    return read_scene([parse_input(text) for text in texts], **settings)


def refused(*texts: str, **settings: Any) -> str:
    """The message of a refusal: one sentence."""
    with pytest.raises(ValueError) as error:
        read(*texts, **settings)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700
    return message


def warned(*texts: str, **settings: Any) -> tuple[Scene, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = read(*texts, **settings)
    messages = [str(one.message) for one in caught if isinstance(one.message, CopgenWarning)]
    assert scene.notes["warnings"] == messages
    return scene, messages
