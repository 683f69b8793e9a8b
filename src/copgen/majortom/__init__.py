"""What is where in Major TOM? `grid` names the cells of the Earth, `splits` parts them, `cells` opens those on disk as scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["read_cell"]

if TYPE_CHECKING:
    from copgen.majortom.cells import read_cell


def __getattr__(name: str) -> Any:               # reading files takes rasterio, names of cells do not: only what is used is imported
    if name in __all__:
        from copgen.majortom import cells

        return getattr(cells, name)
    raise AttributeError(f"module 'copgen.majortom' has no attribute {name!r}")
