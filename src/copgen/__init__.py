"""copgen: any layers of a place in, many physically plausible samples of any others out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["TABLE", "CopGen", "Footprint", "Scene", "Table", "__version__", "read_cell", "read_scene"]

if TYPE_CHECKING:
    from copgen.majortom import read_cell
    from copgen.modalities import TABLE, Table
    from copgen.model import CopGen
    from copgen.reading import read_scene
    from copgen.scene import Footprint, Scene

_HOME = {"CopGen": "copgen.model", "Scene": "copgen.scene", "Footprint": "copgen.scene", "TABLE": "copgen.modalities",
         "Table": "copgen.modalities", "read_scene": "copgen.reading", "read_cell": "copgen.majortom"}


def __getattr__(name: str) -> Any:               # importing torch takes seconds: only what is used is imported
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'copgen' has no attribute {name!r}")
