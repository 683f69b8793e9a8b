"""Which files hold the land cover of a place and a year? One raster, a template of paths or addresses, or what a STAC catalogue finds.

Placeholders of a template: {year} and {next_year}; {cell}, {row} and {column} of Major TOM; {zone} and {band}, the UTM zone in two digits
and the latitude band's letter, as in 30U (Esri's and Impact Observatory's annual maps: `{zone}{band}_{year}0101-{next_year}0101.tif`);
{square}, the south-west corner of the square of three degrees, as in N54W006 (ESA WorldCover's files). A cell that reaches into several
zones or squares has a file of each. What fills a placeholder is computed here, never taken from what somebody else wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import numpy as np
import rasterio
import requests
from rasterio.errors import RasterioIOError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from copgen.download.hub import quiet_session
from copgen.majortom.grid import checked_cell
from copgen.reading.squares import WGS84, warp
from copgen.scene import Footprint

PLACEHOLDERS = ("year", "next_year", "cell", "row", "column", "zone", "band", "square")
FIRST_YEAR, LAST_YEAR = 1980, 2100
REACH = 8                                        # years that the nearest map may be away
ITEMS = 200                                      # of a catalogue's answer, at most
CONNECT, SILENCE = 10, 60                        # seconds
PAUSE = 0.3                                      # seconds after the first try, twice as long after each more
NETWORK = {                                      # GDAL's, wherever a map is opened
    "GDAL_HTTP_MAX_RETRY": 5, "GDAL_HTTP_RETRY_DELAY": 0.5, "GDAL_HTTP_CONNECTTIMEOUT": CONNECT, "GDAL_HTTP_TIMEOUT": SILENCE,
    "GDAL_HTTP_RETRY_CODES": "ALL", "GDAL_HTTP_NETRC": "NO", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/", "GDAL_VRT_ENABLE_PYTHON": "NO",
}
Box = tuple[float, float, float, float]          # west, south, east, north, in degrees


@dataclass(frozen=True)
class Found:
    """The files of one year that may show a place."""

    files: tuple[str, ...]
    year: int
    driver: str | None = None                    # the only one of GDAL's that may open them, if not any


class Source(Protocol):
    """Where land cover comes from."""

    @property
    def codes(self) -> str:
        """The legend of its maps: esri, worldcover or index."""
        ...

    def find(self, cell: str, where: Footprint, year: int) -> Found:
        """The maps of a cell, of the nearest year that there is; ValueError if there is none."""
        ...


def parse_source(text: str) -> Source:
    """`SOURCE[,codes=esri|worldcover|index][,year=YYYY]` with a raster, VRT, URL, template, or `stac:URL#collection[:asset]` as source.

    A catalogue may also be a local file of items (`stac:items.json#collection`). `codes` says which legend the maps have, `year` of which
    year a map without a placeholder for it is. Raises ValueError for an option or placeholder that there is not.
    """
    options: dict[str, str] = {}
    while match := re.fullmatch(r"(.+),(\w+)=([^,/]*)", text):
        text, key, options[key] = match[1], match[2], match[3]
    if strange := set(options) - {"codes", "year"}:
        raise ValueError(f"land cover {text}: takes no option {', '.join(sorted(strange))}; it takes codes and year")
    codes, year = options.get("codes", "esri").lower(), checked_year(options["year"]) if "year" in options else None
    if codes not in ("esri", "worldcover", "index"):
        raise ValueError(f"land cover {text}: codes={codes} is not known; codes is one of esri, worldcover, index")
    if text.startswith("stac:"):
        match = re.fullmatch(r"stac:([^#]+)#([\w.-]+)(?::([\w.-]+))?", text)
        if not match or (match[1].startswith("/vsi")):
            raise ValueError(f"land cover {text}: a catalogue is given as stac:URL#collection or stac:URL#collection:asset")
        return Catalogue(match[1], match[2], match[3] or "", codes)
    return Maps(text, codes, year, placeholders_of(text))


def checked_year(text: str, option: str = "land cover: year=") -> int:
    """The year itself; ValueError, naming the option, for what is none."""
    if not re.fullmatch(r"\d{4}", text) or not FIRST_YEAR <= int(text) <= LAST_YEAR:
        raise ValueError(f"{option}{text}: is no year of {FIRST_YEAR}..{LAST_YEAR}, such as 2021")
    return int(text)


def placeholders_of(text: str) -> frozenset[str]:
    """The placeholders of a template; ValueError for others, and for braces that are none."""
    try:
        fields = [(name, form, conversion) for _, name, form, conversion in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"land cover {text}: its braces are no placeholders ({error}); write {{{{ and }}}} for braces") from None
    for name, form, conversion in fields:
        if name not in PLACEHOLDERS or form or conversion:
            there = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise ValueError(f"land cover {text}: {{{name}}} is no placeholder; there are {there}")
    return frozenset(name for name, _, _ in fields)


# --- rasters and templates ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Maps:
    """A raster, or a template of the names of several."""

    text: str
    codes: str = "esri"
    year: int | None = None
    placeholders: frozenset[str] = frozenset()

    def find(self, cell: str, where: Footprint, year: int) -> Found:
        """The files that are there: of the nearest year that has all that the cell's square touches, else the nearest that has any."""
        if not self.placeholders & {"year", "next_year"}:
            names = self.names(cell, where, year)
            files = [name for name in names if is_there(name)] if self.placeholders else names
            if files:
                return Found(tuple(files), self.year or year_in(self.text) or year)
            raise ValueError(f"land cover {self.text}: has no file for cell {cell}, such as {names[0]}; check the template")
        part: Found | None = None
        for near in sorted(range(year - REACH, year + REACH + 1), key=lambda one: (abs(one - year), one)):
            names = self.names(cell, where, near)
            files = [name for name in names if is_there(name)]
            if len(files) == len(names):
                return Found(tuple(files), near)
            part = part or (Found(tuple(files), near) if files else None)
        if part:
            return part
        raise ValueError(f"land cover {self.text}: has no file for cell {cell} within {REACH} years of {year}, such as "
                         f"{self.names(cell, where, year)[0]}; check the template")

    def names(self, cell: str, where: Footprint, year: int) -> list[str]:
        """The template filled for each zone and square that a cell's square touches, that of most of it first."""
        row, column = checked_cell(cell).split("_")
        fixed: Mapping[str, str] = {"year": str(year), "next_year": str(year + 1), "cell": cell, "row": row, "column": column}
        found: dict[str, int] = {}
        for lat, lon in places(where):
            name = self.text.format(**fixed, zone=f"{zone_at(lat, lon):02d}", band=band_at(lat), square=square_at(lat, lon))
            found[name] = found.get(name, 0) + 1
        return sorted(found, key=lambda name: -found[name])


def year_in(name: str) -> int | None:
    """The only year that a file's name holds, None for none and for several."""
    years = set(re.findall(r"(?<!\d)(?:19[89]|20\d)\d(?!\d)", Path(urlsplit(name).path).name))
    return int(years.pop()) if len(years) == 1 else None


def places(where: Footprint, steps: int = 9) -> list[tuple[float, float]]:
    """Latitudes and longitudes (-180..180) of a lattice over a square, its edges included."""
    left, bottom, right, top = where.bounds
    x, y = np.meshgrid(np.linspace(left, right, steps), np.linspace(bottom, top, steps))
    lons, lats = warp(where.crs, WGS84, x.ravel(), y.ravel())
    return list(zip(lats.tolist(), ((lons + 180) % 360 - 180).tolist(), strict=True))


def band_at(lat: float) -> str:
    """The letter of the military grid's latitude band."""
    return "CDEFGHJKLMNPQRSTUVWX"[min(max(int((lat + 80) // 8), 0), 19)]


def zone_at(lat: float, lon: float) -> int:
    """The military grid's zone: UTM's, but for the south-west of Norway and for Svalbard."""
    if 56 <= lat < 64 and 3 <= lon < 12:
        return 32
    if 72 <= lat < 84 and 0 <= lon < 42:
        return 31 + 2 * int((lon + 3) // 12)
    return int((lon + 180) // 6) % 60 + 1


def square_at(lat: float, lon: float, size: int = 3) -> str:
    south, west = (int(degrees // size) * size for degrees in (lat, lon))
    return f"{'NS'[south < 0]}{abs(south):02d}{'EW'[west < 0]}{abs(west):03d}"


def is_there(name: str) -> bool:
    """Whether a file is there; ValueError if its server doesn't say."""
    if urlsplit(name).scheme in ("http", "https"):
        return is_served(name)
    if name.startswith("/vsi") or "://" in name:
        try:
            with rasterio.Env(**NETWORK), rasterio.open(name):
                return True
        except RasterioIOError:
            return False
    return Path(name).is_file()


@lru_cache(maxsize=65_536)                       # neighbouring cells ask for the same files
def is_served(address: str) -> bool:
    """Whether a server has a file: 200 or 206 to a request for its first byte, or a refusal as servers give for what is not there."""
    try:
        with patient_session() as session, session.get(address, headers={"Range": "bytes=0-0"}, stream=True,
                                                       timeout=(CONNECT, SILENCE)) as answer:
            status = answer.status_code
    except requests.RequestException as error:
        raise ValueError(f"{address.split('?')[0]}: no answer came ({type(error).__name__}); check the address or try again") from error
    if status in (200, 206):
        return True
    if status in (403, 404, 410):                # stores of objects answer 403 for what is not there to those who may not list it
        return False
    raise ValueError(f"{address.split('?')[0]}: the server answered {status}; check the address, or try again later")


def patient_session() -> requests.Session:
    session = quiet_session(1)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=patience()))
    return session


def patience() -> Retry:
    return Retry(total=6, backoff_factor=PAUSE, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)


# --- catalogues ---------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Catalogue:
    """A STAC API, or a local file of items; a collection in it, and the asset that is the map ('' where there is only one)."""

    address: str
    collection: str
    asset: str = ""
    codes: str = "esri"

    @property
    def is_remote(self) -> bool:
        return urlsplit(self.address).scheme in ("http", "https")

    def find(self, cell: str, where: Footprint, year: int) -> Found:
        """The files of the items that touch the square, of the nearest year that has any."""
        boxes = boxes_of(where)
        items = [item for box in boxes for item in self.items(box, year)]
        if not any(year_of(item) == year for item in items):
            items = [item for box in boxes for item in self.items(box, None)]
        years = {found for item in items if (found := year_of(item)) is not None and FIRST_YEAR <= found <= LAST_YEAR}
        if not years:
            raise ValueError(f"{self.address}: collection {self.collection} has no item with a date over cell {cell}; "
                             f"check the collection's name and what it covers")
        near = min(years, key=lambda one: (abs(one - year), one))
        chosen = sorted((item for item in items if year_of(item) == near), key=lambda item: str(item.get("id")))
        files = tuple(dict.fromkeys(self.file_of(item) for item in chosen))
        return Found(files, near, "GTiff")       # no virtual rasters from catalogues: they could point elsewhere

    def items(self, box: Box, year: int | None) -> list[dict[str, Any]]:
        found = searched(self.address, self.collection, box, year) if self.is_remote else listed(Path(self.address), self.collection)
        return [item for item in found if touches(item.get("bbox"), box)]

    def file_of(self, item: Mapping[str, Any]) -> str:
        """The address of an item's map: by http(s), or of a local catalogue in its folder; ValueError for anything else."""
        name, assets = f"{self.address}: item {item.get('id')}", item.get("assets") or {}
        keys = [self.asset] if self.asset else [key for key, one in assets.items() if "data" in (one.get("roles") or ())] or list(assets)
        if len(keys) != 1 or keys[0] not in assets:
            raise ValueError(f"{name} has the assets {', '.join(assets) or '(none)'}; say which one is the map: "
                             f"stac:URL#{self.collection}:ASSET")
        href = str(assets[keys[0]].get("href", ""))
        if re.search(r"[\x00-\x20]", href):
            raise ValueError(f"{name}: its address {href!r} holds blanks or control characters; correct the catalogue")
        if not self.is_remote and not urlsplit(href).scheme:
            folder = Path(self.address).resolve().parent
            file = (folder / href).resolve()
            if file.is_relative_to(folder):
                return str(file)
            raise ValueError(f"{name}: its file {href} lies outside {folder}, where the catalogue is; move it there, or give a template")
        own = next((str(link.get("href")) for link in item.get("links") or () if link.get("rel") == "self"), self.address)
        address = urljoin(own if urlsplit(own).scheme in ("http", "https") else self.address, href)
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise ValueError(f"{name}: its address {href} is not of http or https, and others are not followed from a catalogue")
        return address


def boxes_of(where: Footprint) -> list[Box]:
    """A square's bounds in degrees: two where it lies across the antimeridian."""
    lats, lons = (np.array(values) for values in zip(*places(where), strict=True))
    south, north = float(lats.min()), float(lats.max())
    if np.ptp(lons) < 180:
        return [(float(lons.min()), south, float(lons.max()), north)]
    return [(float(lons[lons > 0].min()), south, 180.0, north), (-180.0, south, float(lons[lons < 0].max()), north)]


def touches(bbox: Any, box: Box) -> bool:
    """Whether an item's bounds (four numbers, or six with heights) touch a box; items without any might."""
    if not bbox:
        return True
    try:
        west, south, east, north = (float(bbox[k]) for k in ((0, 1, 2, 3) if len(bbox) == 4 else (0, 1, 3, 4)))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"a STAC item's bbox {bbox!r} is no list of four or six numbers; correct the catalogue") from error
    across = east < west                         # of an item across the antimeridian
    beside = (box[2] < west and box[0] > east) if across else (box[2] < west or box[0] > east)
    return not (beside or box[3] < south or box[1] > north)


def year_of(item: Mapping[str, Any]) -> int | None:
    """The year in which what an item shows begins."""
    properties = item.get("properties") or {}
    found = re.match(r"(\d{4})-\d\d-\d\d", str(properties.get("start_datetime") or properties.get("datetime") or ""))
    return int(found[1]) if found else None


def searched(address: str, collection: str, box: Box, year: int | None) -> Iterator[dict[str, Any]]:
    """The items of an API in a box and a year, or of all years."""
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

    when = None if year is None else f"{year}-01-01T00:00:00Z/{year}-12-31T23:59:59Z"
    try:
        client = Client.open(address, stac_io=StacApiIO(timeout=(CONNECT, SILENCE), max_retries=patience()))
        search = client.search(method="GET", collections=[collection], bbox=list(box), datetime=when, max_items=ITEMS, limit=100)
        yield from search.items_as_dicts()
    except Exception as error:                   # of four libraries, each with classes of its own
        raise ValueError(f"{address}: no search of collection {collection} succeeded ({str(error)[:200] or type(error).__name__}); "
                         f"check that it is the address of a STAC API") from error


def listed(file: Path, collection: str) -> Iterator[dict[str, Any]]:
    """The items of a local item collection (a GeoJSON FeatureCollection) that are of a collection, or don't say of which."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: is no file of STAC items that can be read ({error}); give a GeoJSON FeatureCollection") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
        raise ValueError(f"{file}: is no collection of STAC items; give a GeoJSON FeatureCollection")
    return (one for one in features if one.get("collection", collection) == collection)
