"""On which day was it acquired? From a file's `datetime` tag or the product name in its path, as calendar dates."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from copgen.scene import parse_date

Said = np.datetime64 | ValueError                # a day, or why what a file says is none

OPTICAL = ("S2L2A", "S2L1C", "cloud_mask")       # whose day comes first
PRODUCT_NAMES = (                                # each with the first day of acquisition
    re.compile(r"S2[A-Z]_MSIL(?:1C|2A)_(\d{8})T\d{5,6}"),
    re.compile(r"S1[A-Z]_[A-Z0-9]{2}_[A-Z0-9]{3,4}_[A-Z0-9]{4}_(\d{8})T\d{6}"),
    re.compile(r"(?<![A-Za-z0-9])T\d\d[A-Z]{3}_(\d{8})T\d{6}"),         # a band's file in a Sentinel-2 product
    re.compile(r"(?<!\d)(\d{8})T\d{6}_\d{8}T\d{6}_T\d\d[A-Z]{3}"),     # Earth Engine's names
)
# processing baseline 04.00 and later: the product's digital numbers carry an offset of 1000
LATE_BASELINE = re.compile(r"_N(?:0[4-9]|[1-9]\d)\d\d(?:_|$|\.)")


def acquisition_day(path: Path, tags: Mapping[str, str]) -> np.datetime64 | None:
    """The day in the tags, else in the name of the file or of a folder around it; None where there is none.

    Raises ValueError, naming the file, for one that is no calendar day.
    """
    tagged = next((value for key, value in tags.items() if key.lower() == "datetime"), None)
    try:
        if tagged is not None:
            return np.datetime64(parse_date(day_of(tagged))[0], "D")
        named = day_in_name(path)
        return None if named is None else np.datetime64(parse_date(named)[0], "D")
    except ValueError as error:
        where = "tag datetime" if tagged is not None else "product name"
        raise ValueError(f"{path}: its {where} is impossible: {error}; correct it, or state --date YYYY-MM-DD or --date none") from error


def day_of(text: str) -> str:
    """`YYYY-MM-DD` of a day or an ISO time stamp, also `YYYYMMDD` and TIFF's `YYYY:MM:DD`; with a time zone, the day in UTC."""
    text = re.sub(r"^(\d{4}):?(\d\d):?(\d\d)(?!\d)", r"\1-\2-\3", text.strip())
    if re.search(r"[T ]\d\d:?\d\d.*[+-]\d\d:?\d\d$", text):
        return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(datetime.UTC).date().isoformat()
    return re.split(r"[T ]", text, maxsplit=1)[0]


def day_in_name(path: Path) -> str | None:
    """`YYYY-MM-DD` (unchecked) from a Sentinel product name, the innermost part of the path that holds one."""
    for part in reversed(path.parts[-4:]):
        for pattern in PRODUCT_NAMES:
            if found := pattern.search(part):
                digits = found.group(1)
                return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return None


def midpoint(one: np.datetime64, other: np.datetime64) -> np.datetime64:
    """The day halfway, the earlier of two."""
    early, late = min(one, other), max(one, other)
    return early + (late - early) // 2


def days_said(files: Iterable[tuple[str, Path, Mapping[str, str]]]) -> dict[str, Said]:
    """What the first file of each product that says a day says, from (product, path, tags)."""
    days: dict[str, Said] = {}
    for product, path, tags in files:
        try:
            said: Said | None = acquisition_day(path, tags)
        except ValueError as error:
            said = error
        if said is not None:
            days.setdefault(product, said)
    return days


def possible(days: Mapping[str, Said]) -> dict[str, str]:
    """The days that are some, as text by product."""
    return {product: str(day) for product, day in days.items() if not isinstance(day, ValueError)}


def scene_day(days: Mapping[str, Said]) -> np.datetime64 | None:
    """One day for a scene from those of its products.

    Halfway between radar and optical where both are known (the released weights' rule), else the optical, else the radar's, else a
    land cover's, unless that one only says its year. A height model's date says nothing about the scene. Raises the ValueError of a
    day that would be used and is none; others are passed over.
    """
    optical = next((days[product] for product in OPTICAL if product in days), None)
    used = [day for day in (optical, days.get("S1RTC")) if day is not None]
    if not used:
        used = [day for product, day in days.items() if product != "DEM" and not is_year_mark(day)][:1]
    known = [believed(day) for day in used]
    return midpoint(known[0], known[-1]) if known else None


def believed(said: Said) -> np.datetime64:
    if isinstance(said, ValueError):
        raise said
    return said


def is_year_mark(said: Said) -> bool:
    """1 January and 31 December date annual maps."""
    return not isinstance(said, ValueError) and str(said)[5:] in ("01-01", "12-31")


def carries_offset(path: Path, tags: Mapping[str, str]) -> bool:
    """Whether the product name, in the path or the tags, is of processing baseline 04.00 or later."""
    names = [text for text in tags.values() if text.startswith("S2")]
    return any(LATE_BASELINE.search(text) for text in (*path.parts, *names))
