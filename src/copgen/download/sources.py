"""Which of Major TOM's repositories holds a product, and what of it is taken? Derived from the table of modalities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from copgen.modalities import TABLE

THUMBNAIL = "thumbnail"
NO_ID = "id"                                     # what stands for the product id of heights in the layout
S2_ID = (r"(?P<platform>S2[A-Z])_MSIL{level}_(?P<sensed>\d{{8}}T\d{{6}})(?:_N(?P<baseline>\d{{4}}))?_R(?P<orbit>\d{{3}})"
         r"_T(?P<tile>\d{{2}}[A-Z]{{3}})_(?P<made>\d{{8}}T\d{{6}})")
S1_ID = (r"(?P<platform>S1[A-Z])_[A-Z0-9]{2}_[A-Z0-9]{3,4}_[A-Z0-9]{4}_(?P<sensed>\d{8}T\d{6})_\d{8}T\d{6}_\d{6}_[0-9A-F]{6}"
         r"(?:_[A-Za-z0-9]{1,8}){0,3}")


@dataclass(frozen=True)
class Source:
    """One repository: a product and the columns of its files that become files of the archive."""

    product: str
    columns: tuple[str, ...]                     # bands
    resolutions: Mapping[str, int]               # metres a pixel of each
    id_pattern: str = ""                         # of product ids, with the groups `platform`, `sensed` and so on; "": there are none
    cloudy: bool = False                         # whether its metadata knows cloud cover

    @property
    def repository(self) -> str:
        return f"Core-{self.product}"

    def check_id(self, id_: str) -> bool:
        """Whether a product id is one, and so can become the name of a folder."""
        return re.fullmatch(self.id_pattern, id_, re.ASCII) is not None if self.id_pattern else id_ == NO_ID


def source(product: str, id_pattern: str = "", *, masked: bool = False) -> Source:
    rows = [TABLE[name] for name in TABLE.select(product)] + ([TABLE["cloud_mask"]] if masked else [])
    resolutions = {band: row.resolution or 0 for row in rows for band in row.bands}
    return Source(product, tuple(sorted(resolutions)), resolutions, id_pattern, cloudy=masked)


SOURCES = {one.product: one for one in (
    source("S2L2A", S2_ID.format(level="2A"), masked=True),
    source("S2L1C", S2_ID.format(level="1C"), masked=True),
    source("S1RTC", S1_ID),
    source("DEM"),
)}
OPTICAL = tuple(name for name, one in SOURCES.items() if one.cloudy)
RADAR = "S1RTC"


def chosen_sources(products: Iterable[str]) -> tuple[Source, ...]:
    """The sources of these products in the table's order; ValueError for one that Major TOM hasn't."""
    asked = list(dict.fromkeys(products))
    unknown = [name for name in asked if name not in SOURCES]
    if unknown or not asked:
        lulc = "; land cover is not among them: --lulc takes it from elsewhere" if "LULC" in unknown else ""
        raise ValueError(f"products {', '.join(unknown) or 'none'}: Major TOM has {', '.join(SOURCES)}{lulc}")
    return tuple(one for name, one in SOURCES.items() if name in asked)
