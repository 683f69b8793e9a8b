"""Land cover comes onto a cell's own grid: the right files, the right year, by majority, in Esri's codes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hub_server import Faults, Hub, serve
from made_archive import CELL, make_archive
from made_rasters import QUIET, raster
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform as warp_points

from copgen.download.landcover import add_land_cover, cell_square, cell_year, warped
from copgen.download.maps import band_at, boxes_of, is_served, parse_source, places, square_at, touches, zone_at
from copgen.majortom import read_cell
from copgen.majortom.cells import nominal_ground
from copgen.majortom.grid import cell_at
from copgen.modalities import LULC_LEGEND
from copgen.reading.units import WORLDCOVER
from copgen.scene import Footprint

pytestmark = QUIET
SIDE = 1068
CODES = np.array(LULC_LEGEND.codes[1:], np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    make_archive(root, (CELL,), lulc=False)
    return root


def patches(seed: int = 0, size: int = 12, side: int = SIDE) -> NDArray[np.uint8]:
    """Codes in blocks of some pixels."""
    blocks = np.random.default_rng(seed).choice(CODES, (side // size + 1,) * 2)
    return np.kron(blocks, np.ones((size, size), np.uint8))[:side, :side]


def over(path: Path, codes: NDArray[Any], where: Footprint, resolution: float, margin: int = 0, **more: Any) -> Path:
    """A map of a square, `margin` pixels more of class 1 around it."""
    wide = np.pad(codes, margin, constant_values=1)
    return raster(path, wide, resolution=resolution, left=where.left - margin * resolution, top=where.top + margin * resolution,
                  crs=where.crs.to_epsg(), **more)


def geographic(path: Path, codes: NDArray[Any], west: float, north: float, size: float, **more: Any) -> Path:
    return raster(path, codes, crs=4326, transform=from_origin(west, north, size, size), **more)


def longitudes(where: Footprint, row: int) -> list[float]:
    xs = where.left + 10 * (np.arange(SIDE) + 0.5)
    return list(warp_points(where.crs, CRS.from_epsg(4326), xs.tolist(), [where.top - 10 * (row + 0.5)] * SIDE)[0])


def pixels(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


# --- warping ------------------------------------------------------------------------------------------------------------------------

def test_a_map_on_the_cells_grid_comes_through_unchanged(archive: Path, tmp_path: Path) -> None:
    codes = patches()
    path = over(tmp_path / "map_2021.tif", codes, cell_square(archive, CELL), 10, margin=30)
    made = add_land_cover(archive, CELL, parse_source(str(path)))
    assert made.path == archive / "Core-LULC" / "618U" / "30L" / f"{CELL}_2021.tif"
    assert (made.year, made.asked, made.codes, made.unknown, made.maps) == (2021, 2021, "esri", 0.0, (str(path),))
    assert np.array_equal(pixels(made.path), codes)
    with rasterio.open(made.path) as written, rasterio.open(next(archive.glob("Core-S2L2A/*/*/*/B04.tif"))) as band:
        assert written.crs == band.crs and written.transform == band.transform and written.shape == band.shape
        assert written.nodata == 0 and written.dtypes == ("uint8",) and written.colormap(1)[5][:3] == LULC_LEGEND.colours[4]
    assert "flooded vegetation" in made.path.with_name(made.path.name + ".aux.xml").read_text()
    scene = read_cell(archive, CELL, given=["LULC", "DEM"])
    assert np.array_equal(scene["lulc"][0], codes[438:630, 438:630])


def test_finer_pixels_vote_and_coarser_ones_are_the_nearest(tmp_path: Path) -> None:
    where = nominal_ground(CELL)
    fine = np.random.default_rng(1).choice(CODES[:3], (SIDE * 4, SIDE * 4), p=[0.5, 0.3, 0.2])
    counts = np.stack([(fine == code).reshape(SIDE, 4, SIDE, 4).sum((1, 3)) for code in CODES[:3]])
    best, ahead = CODES[:3][counts.argmax(0)], np.diff(np.sort(counts, 0)[-2:], axis=0)[0] > 0
    got = warped([str(over(tmp_path / "fine.tif", fine, where, 2.5))], where, "esri")
    assert ahead.mean() > 0.8 and np.array_equal(got[ahead], best[ahead])
    coarse = patches(2, size=1, side=178)
    got = warped([str(over(tmp_path / "coarse.tif", coarse, where, 60, margin=2))], where, "esri")
    assert np.array_equal(got, coarse.repeat(6, 0).repeat(6, 1))


def test_classes_that_become_one_vote_together(tmp_path: Path) -> None:
    where = nominal_ground(CELL)
    block = np.array([[10, 10, 10, 10], [10, 10, 20, 20], [20, 30, 30, 30], [100] * 4], np.uint8)     # six of trees, ten of three others
    path = over(tmp_path / "fine.tif", np.tile(block, (SIDE, SIDE)), where, 2.5)
    assert set(np.unique(warped([str(path)], where, "worldcover"))) == {11}


def test_every_code_of_worldcover_is_translated_and_no_other(tmp_path: Path) -> None:
    where = nominal_ground(CELL)
    theirs = np.array(sorted(WORLDCOVER), np.uint8)[np.arange(SIDE) % len(WORLDCOVER)]
    path = over(tmp_path / "map.tif", np.broadcast_to(theirs, (SIDE, SIDE)), where, 10)
    ours = np.array([WORLDCOVER[int(code)] for code in theirs])
    assert np.array_equal(warped([str(path)], where, "worldcover"), np.broadcast_to(ours, (SIDE, SIDE)))
    with pytest.raises(ValueError, match=r"map.tif: holds the class codes 20, .*not among codes=esri.*add codes=worldcover"):
        warped([str(path)], where, "esri")
    strange = over(tmp_path / "strange.tif", np.full((SIDE, SIDE), 17, np.uint8), where, 10)
    for codes in ("esri", "worldcover", "index"):
        with pytest.raises(ValueError, match=rf"strange.tif: holds the class codes 17, which are not among codes={codes}"):
            warped([str(strange)], where, codes)


def test_no_data_stays_no_data_and_has_no_vote(archive: Path, tmp_path: Path) -> None:
    where = cell_square(archive, CELL)
    codes = patches()
    codes[:, :267] = 255
    path = over(tmp_path / "map.tif", codes, where, 10, nodata=255)
    made = add_land_cover(archive, CELL, parse_source(f"{path},year=2021"))
    assert made.unknown == 0.25 and np.array_equal(pixels(made.path), np.where(codes == 255, 0, codes))
    fine = np.zeros((SIDE * 2, SIDE * 2), np.uint8)
    fine[::2, ::2] = 5                           # one in four is known
    assert set(np.unique(warped([str(over(tmp_path / "fine.tif", fine, where, 5, nodata=0))], where, "esri"))) == {5}
    nowhere = geographic(tmp_path / "nowhere.tif", np.full((10, 10), 2, np.uint8), 100, 10, 0.1)
    empty = over(tmp_path / "empty.tif", np.zeros((SIDE, SIDE), np.uint8), where, 10)
    for path in (nowhere, empty):
        with pytest.raises(ValueError, match=f"shows nothing of cell {CELL}"):
            add_land_cover(archive, CELL, parse_source(str(path)), overwrite=True)


def test_a_cell_between_zones_is_sewn_together_its_own_zone_first(tmp_path: Path) -> None:
    cell = str(cell_at(50.03, 6.0))
    where = nominal_ground(cell)
    assert {zone_at(*place) for place in places(where)} == {31, 32}
    own = int(where.crs.to_epsg() or 0) % 100
    for zone in (31, 32):                        # each up to the meridian between them, as far as a straight edge goes
        x, y = warp_points(CRS.from_epsg(4326), CRS.from_epsg(32600 + zone), [6.0], [50.03])
        raster(tmp_path / "maps" / f"{zone}U_2021.tif", np.full((2400, 1200), 2 if zone == own else 5, np.uint8), crs=32600 + zone,
               left=round(x[0], -1) - (12_000 if zone == 31 else 0), top=round(y[0], -1) + 12_000)
    root = tmp_path / "archive"
    make_archive(root, (cell,), lulc=False)
    made = add_land_cover(root, cell, parse_source(str(tmp_path / "maps" / "{zone}{band}_{year}.tif")))
    codes = pixels(made.path)
    assert {Path(name).name for name in made.maps} == {"31U_2021.tif", "32U_2021.tif"}
    assert made.unknown < 0.05 and set(np.unique(codes)) <= {0, 2, 5}
    lons = np.array(longitudes(where, 534))
    for side, zone in ((lons < 5.99, 31), (lons > 6.01, 32)):            # a zone's own grid is turned against its edge
        assert side.any() and set(codes[534][side]) == {2 if own == zone else 5}
    with rasterio.open(tmp_path / "maps" / f"{own}U_2021.tif") as mine:
        inside = where.left + 10 * (np.arange(SIDE) + 0.5)
        inside = (inside > mine.bounds.left) & (inside < mine.bounds.right)
    assert set(codes[534][inside]) == {2}        # also where both maps show the ground


def test_a_map_of_the_world_is_read_across_the_antimeridian(tmp_path: Path) -> None:
    cell = str(cell_at(-16.5, 179.97))
    where = nominal_ground(cell)
    lons = [lon for _, lon in places(where)]
    assert max(lons) > 179.9 and min(lons) < -179.9                      # it lies on both sides
    world = np.full((1800, 3600), 9, np.uint8)
    world[:, :2], world[:, -2:] = 2, 5           # east of the antimeridian, and west of it
    got = warped([str(geographic(tmp_path / "world.tif", world, -180, 90, 0.1))], where, "esri")
    assert set(np.unique(got)) == {2, 5}
    assert np.array_equal(got[534], np.where(np.array(longitudes(where, 534)) > 0, 5, 2))
    assert len(boxes_of(where)) == 2 and {zone_at(*place) for place in places(where)} == {1, 60}


def test_worldcover_itself(samples: Path, tmp_path: Path) -> None:
    files = list((samples.parent / "worldcover").glob("*.tif"))
    if not files:
        pytest.skip(f"no WorldCover map in {samples.parent / 'worldcover'}")
    cell = str(cell_at(0.2625, 6.5875))          # the coast of an island
    root = tmp_path / "archive"
    make_archive(root, (cell,), lulc=False)
    template = files[0].name.replace("N00E006", "{square}")
    made = add_land_cover(root, cell, parse_source(f"{files[0].with_name(template)},codes=worldcover"))
    where, codes = cell_square(root, cell), pixels(made.path)
    assert made.year == 2021 and made.unknown < 0.5
    x, y = np.meshgrid(where.left + 10 * (np.arange(5, SIDE, 25) + 0.5), where.top - 10 * (np.arange(5, SIDE, 25) + 0.5))
    lons, lats = warp_points(where.crs, CRS.from_epsg(4326), x.ravel().tolist(), y.ravel().tolist())
    with rasterio.open(files[0]) as dataset:
        around = [dataset.read(1, window=((row - 2, row + 3), (col - 2, col + 3)))
                  for row, col in (dataset.index(lon, lat) for lon, lat in zip(lons, lats, strict=True))]
    flat = np.array([np.ptp(one) == 0 for one in around])
    theirs = np.array([WORLDCOVER[int(one[2, 2])] for one in around])
    ours = codes[5::25, 5::25].ravel()
    assert flat.mean() > 0.5 and np.array_equal(ours[flat], theirs[flat]) and (ours == theirs).mean() > 0.95


# --- which files --------------------------------------------------------------------------------------------------------------------

def test_the_nearest_year_is_taken_and_said(archive: Path, tmp_path: Path) -> None:
    where = cell_square(archive, CELL)
    assert cell_year(archive, CELL) == 2021
    for year, code in ((2017, 2), (2019, 5), (2023, 7), (2024, 8)):
        over(tmp_path / f"{CELL}_{year}.tif", np.full((SIDE, SIDE), code, np.uint8), where, 10)
    source = parse_source(str(tmp_path / "{cell}_{year}.tif"))
    for asked, year, code in ((None, 2019, 5), (2016, 2017, 2), (2023, 2023, 7), (2030, 2024, 8)):
        made = add_land_cover(archive, CELL, source, year=asked)
        assert (made.year, made.asked) == (year, asked or 2021) and set(np.unique(pixels(made.path))) == {code}
    with pytest.raises(ValueError, match=r"no file for cell 618U_30L within 8 years of 2040, such as .*618U_30L_2040.tif"):
        add_land_cover(archive, CELL, source, year=2040)


def test_what_is_there_is_kept_unless_overwritten(archive: Path, tmp_path: Path) -> None:
    where = cell_square(archive, CELL)
    path = over(tmp_path / "map_2020.tif", patches(0), where, 10)
    made = add_land_cover(archive, CELL, parse_source(str(path)))
    first = made.path.read_bytes()
    over(tmp_path / "map_2020.tif", patches(1), where, 10)
    assert add_land_cover(archive, CELL, parse_source(str(path))) == made and made.path.read_bytes() == first
    add_land_cover(archive, CELL, parse_source(str(path)), overwrite=True)
    assert np.array_equal(pixels(made.path), patches(1))
    over(tmp_path / "map_2020.tif", patches(0), where, 10)
    add_land_cover(archive, CELL, parse_source(str(path)), overwrite=True)
    assert made.path.read_bytes() == first       # the file depends on the map alone
    assert sorted(one.name for one in made.path.parent.iterdir()) == [made.path.name, made.path.name + ".aux.xml"]


def test_placeholders_have_the_values_of_the_cell(tmp_path: Path) -> None:
    where = nominal_ground(CELL)
    text = "{zone}{band}_{year}0101-{next_year}0101/{cell}/{row}/{column}/{square}.tif"
    assert parse_source(text).names(CELL, where, 2021) == ["30U_20210101-20220101/618U_30L/618U/30L/N54W006.tif"]       # type: ignore[attr-defined]
    assert [(zone_at(*place), band_at(place[0])) for place in ((60.4, 5.3), (78.2, 15.6), (-54.8, -68.3), (0.0, 179.9), (83.9, 20.9))] \
        == [(32, "V"), (33, "X"), (19, "F"), (60, "N"), (33, "X")]
    assert [square_at(*place) for place in ((55.5, -4.7), (-0.1, 0.1), (0.0, -180.0))] == ["N54W006", "S03E000", "N00W180"]


@pytest.mark.parametrize(("text", "said"), [
    ("maps/{country}.tif", "{country} is no placeholder; there are {year}"), ("maps/{year.real}.tif", "is no placeholder"),
    ("maps/{year!r}.tif", "is no placeholder"), ("maps/{year:>900}.tif", "is no placeholder"), ("maps/{}.tif", "is no placeholder"),
    ("maps/{year.tif", "its braces are no placeholders"), ("map.tif,codes=corine", "codes is one of esri, worldcover, index"),
    ("map.tif,year=21", "is no year of 1980..2100"), ("map.tif,bands=2", "takes no option bands"),
    ("stac:https://a.example", "stac:URL#collection"), ("stac:/vsizip/x.zip/items.json#lulc", "stac:URL#collection"),
    ("stac:https://a.example#lulc:map/../x", "stac:URL#collection"),
])
def test_sources_that_there_are_not_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_source(text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_cell_without_grid_or_date_is_refused(archive: Path, tmp_path: Path) -> None:
    for folder in archive.glob("Core-S*"):
        folder.rename(tmp_path / folder.name)
    path = over(tmp_path / "map_2020.tif", patches(), cell_square(archive, CELL), 10)
    with pytest.raises(ValueError, match="no product of cell 618U_30L on disk says its day"):
        add_land_cover(archive, CELL, parse_source(str(path)))
    assert add_land_cover(archive, CELL, parse_source(str(path)), year=2020).year == 2020        # on the grid of the heights
    (archive / "Core-DEM").rename(tmp_path / "Core-DEM")
    with pytest.raises(ValueError, match="download S2L2A first"):
        cell_square(archive, CELL)


# --- catalogues ---------------------------------------------------------------------------------------------------------------------

def item(where: Footprint, year: int, href: str, **more: Any) -> dict[str, Any]:
    west, south, east, north = boxes_of(where)[0]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Feature", "stac_version": "1.0.0", "id": f"map-{year}-{href[-9:]}", "collection": "lulc", "links": [],
            "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"datetime": None, "start_datetime": f"{year}-01-01T00:00:00Z", "end_datetime": f"{year + 1}-01-01T00:00:00Z"},
            "assets": {"map": {"href": href, "roles": ["data"]}, "look": {"href": "look.png", "roles": ["thumbnail"]}}, **more}


def items_file(path: Path, *items: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items), "links": []}))
    return path


def test_a_local_catalogue_finds_the_year_and_stays_in_its_folder(archive: Path, tmp_path: Path) -> None:
    where = cell_square(archive, CELL)
    for year, code in ((2018, 2), (2020, 5)):
        over(tmp_path / "maps" / f"{year}.tif", np.full((SIDE, SIDE), code, np.uint8), where, 10)
    rasterio.shutil.copy(tmp_path / "maps" / "2020.tif", tmp_path / "maps" / "virtual.vrt", driver="VRT")
    assert set(np.unique(warped([str(tmp_path / "maps" / "virtual.vrt")], where, "esri"))) == {5}     # named by the user, it is a map too
    far = item(nominal_ground("10U_10R"), 2021, "far.tif")
    other = item(where, 2021, "other.tif", collection="heights")
    file = items_file(tmp_path / "maps" / "items.json", item(where, 2018, "2018.tif"), item(where, 2020, "2020.tif"), far, other)
    made = add_land_cover(archive, CELL, parse_source(f"stac:{file}#lulc"))
    assert (made.year, made.asked) == (2020, 2021) and set(np.unique(pixels(made.path))) == {5}
    for href, said in (("../secret.tif", "lies outside"), ("/etc/passwd", "lies outside"), ("file:///etc/passwd", "not of http or https"),
                       ("/vsizip/a.zip/b.tif", "lies outside"), ("s3://bucket/a.tif", "not of http or https"),
                       ("https://", "not of http or https"), ("a b.tif", "blanks"), ("https://a.example/x\n.tif", "blanks")):
        items_file(file, item(where, 2021, href))
        with pytest.raises(ValueError, match=said):
            add_land_cover(archive, CELL, parse_source(f"stac:{file}#lulc"))
    (tmp_path / "maps" / "virtual.tif").write_text((tmp_path / "maps" / "virtual.vrt").read_text())
    items_file(file, item(where, 2021, "virtual.tif"))
    with pytest.raises(ValueError, match=r"virtual\.tif: can't be read as a map"):
        add_land_cover(archive, CELL, parse_source(f"stac:{file}#lulc"))
    items_file(file, {**item(where, 2021, "x.tif"), "assets": {"a": {"href": "a.tif"}, "b": {"href": "b.tif"}}})
    with pytest.raises(ValueError, match=r"has the assets a, b; say which one is the map: stac:URL#lulc:ASSET"):
        add_land_cover(archive, CELL, parse_source(f"stac:{file}#lulc"))
    with pytest.raises(ValueError, match="no item with a date over cell"):
        add_land_cover(archive, CELL, parse_source(f"stac:{file}#nothing"))
    for content in ("[]", "{", '{"features": 3}', '{"features": [3]}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"items\.json"):
            add_land_cover(archive, CELL, parse_source(f"stac:{file}#lulc"))


def stac_api(folder: Path, hub: Hub, *items: dict[str, Any]) -> str:
    """A root and a search that are files: what is asked of it does not matter to the answer."""
    core = "https://api.stacspec.org/v1.0.0"
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "made", "description": "made",
            "conformsTo": [f"{core}/core", f"{core}/item-search"],
            "links": [{"rel": "self", "href": f"{hub.url}/files/stac.json"}, {"rel": "root", "href": f"{hub.url}/files/stac.json"},
                      {"rel": "search", "href": f"{hub.url}/files/search.json", "type": "application/geo+json", "method": "GET"}]}
    (folder / "stac.json").write_text(json.dumps(root))
    items_file(folder / "search.json", *items)
    return f"{hub.url}/files/stac.json"


def test_an_api_is_asked_for_place_and_year(archive: Path, tmp_path: Path) -> None:
    where, folder = cell_square(archive, CELL), tmp_path / "served"
    over(folder / "maps" / "a.tif", patches(), where, 10)
    with serve(folder) as hub:
        address = stac_api(folder, hub, item(where, 2020, "maps/a.tif"), item(where, 2021, "maps/b.tif?signature=secret"))
        over(folder / "maps" / "b.tif", patches(3), where, 10)
        made = add_land_cover(archive, CELL, parse_source(f"stac:{address}#lulc:map"))
        assert made.year == 2021 and made.maps == (f"{hub.url}/files/maps/b.tif",) and np.array_equal(pixels(made.path), patches(3))
        assert b"secret" not in made.path.read_bytes()
        assert hub.by_path["/files/search.json"][0] == 1
        stac_api(folder, hub, item(where, 2021, "file:///etc/passwd"))
        with pytest.raises(ValueError, match="not of http or https"):
            add_land_cover(archive, CELL, parse_source(f"stac:{address}#lulc"), overwrite=True)
        with pytest.raises(ValueError, match=r"none\.json: no search of collection lulc succeeded"):
            add_land_cover(archive, CELL, parse_source(f"stac:{hub.url}/files/none.json#lulc"), overwrite=True)


# --- servers ------------------------------------------------------------------------------------------------------------------------

def test_a_template_of_addresses_reads_the_window_alone(archive: Path, tmp_path: Path) -> None:
    where, folder = cell_square(archive, CELL), tmp_path / "served"
    noise = np.random.default_rng(0).choice(CODES, (SIDE + 4000, SIDE + 4000)).astype(np.uint8)
    over(folder / "30U_2021.tif", noise, where, 10, tiled=True, compress="deflate", blockxsize=256, blockysize=256)
    with serve(folder) as hub:
        made = add_land_cover(archive, CELL, parse_source(f"{hub.url}/files/{{zone}}{{band}}_{{year}}.tif"))
        assert np.array_equal(pixels(made.path), noise[:SIDE, :SIDE])
        assert hub.bytes < (folder / "30U_2021.tif").stat().st_size / 4
        assert is_served(f"{hub.url}/files/30U_2021.tif") and not is_served(f"{hub.url}/files/30U_1999.tif")
        with pytest.raises(ValueError, match=r"none\.tif: is not there, says its server"):
            add_land_cover(archive, CELL, parse_source(f"{hub.url}/files/none.tif?key=1"), overwrite=True)


@pytest.mark.parametrize("kind", ["503", "429", "reset", "truncated", "reset_midway"])
def test_servers_may_stumble(archive: Path, tmp_path: Path, kind: str) -> None:
    where, folder = cell_square(archive, CELL), tmp_path / "served"
    over(folder / "2021.tif", patches(), where, 10, compress="deflate")
    with serve(folder, Faults(rates={kind: 0.5}, seed=2, again=1)) as hub:
        made = add_land_cover(archive, CELL, parse_source(f"{hub.url}/files/{{year}}.tif"))
        assert np.array_equal(pixels(made.path), patches()) and hub.injected[kind] >= 1


def test_a_server_that_does_not_answer_is_no_missing_year(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, folder = cell_square(archive, CELL), tmp_path / "served"
    over(folder / "2020.tif", patches(), where, 10)
    monkeypatch.setattr("copgen.download.maps.PAUSE", 0.0)
    always = Faults(rates={"503": 1.0}, only="2021", again=10**6)
    with serve(folder, always) as hub, pytest.raises(ValueError, match="the server answered 503"):
        add_land_cover(archive, CELL, parse_source(f"{hub.url}/files/{{year}}.tif"))
    assert not (archive / "Core-LULC").exists()


def test_boxes_touch_across_the_antimeridian() -> None:
    east, west = (179.9, -17.0, 180.0, -16.0), (-180.0, -17.0, -179.9, -16.0)
    for bbox, found in (([170, -20, 180, -10], [True, False]), ([177, -20, -179, -10], [True, True]), ([-180, -20, 0, -18], [False, False]),
                        ([-180, -20, 5, -180, -10, 9], [False, True]), (None, [True, True])):
        assert [touches(bbox, box) for box in (east, west)] == found
    with pytest.raises(ValueError, match="no list of four or six numbers"):
        touches(["a", 1, 2, 3], east)
    assert Counter(len(boxes_of(nominal_ground(cell))) for cell in (CELL, "0U_0R")) == {1: 2}
