"""Major TOM's grid: names and places are each other's inverse everywhere, and patches lie where their pixels do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from copgen.majortom import grid
from copgen.modalities import TABLE, Table

latitudes, longitudes = st.floats(-90, 90), st.floats(-1000, 1000)


def places(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform on the sphere."""
    random = np.random.default_rng(seed)
    return np.degrees(np.arcsin(random.uniform(-1, 1, count))), random.uniform(-180, 180, count)


def every_cell(row: int) -> np.ndarray:
    """The names of a row, from the west."""
    count = int(grid.columns_of(np.array(row)))
    return grid.names_of(np.array(row), np.arange(count) - count // 2)


def published_names(row: int) -> tuple[list[str], np.ndarray]:
    """Names and west edges of a row, from the west, as the published grid makes them; its rounding names what begins at 180 degrees."""
    lat = row * 180 / 2004
    count = math.ceil(2 * math.pi * 6378.137 * math.cos(lat * math.pi / 180) / 10)
    west = np.sort(np.mod(np.linspace(-180, 180, count + 1)[:-1], 360) - 180)
    zero = int(np.flatnonzero(west == 0)[0])
    columns = [f"{zero - k}L" for k in range(zero)] + [f"{k}R" for k in range(count - zero)]
    return [f"{abs(row)}{'U' if row >= 0 else 'D'}_{column}" for column in columns], west


def test_known_cells() -> None:
    lat, lon = grid.centre_of(["573U_120R", "618U_30L"])
    assert np.allclose(lat, [51.512, 55.5539], atol=5e-5) and np.allclose(lon, [17.3728, -4.6784], atol=5e-5)
    assert grid.cell_at(lat, lon).tolist() == ["573U_120R", "618U_30L"]
    assert grid.ROWS == 2004 and grid.columns_of(np.array([0, 1001, -1002])).tolist() == [4008, 7, 1]
    assert str(grid.cell_at(55.5539, -4.6784)) == "618U_30L"           # one place, one name


def test_places_lie_in_their_cells() -> None:
    lat, lon = places(100_000, 1)
    cells = grid.cell_at(lat, lon)
    south, west = grid.point_of(cells)
    rows, _ = grid.numbers_of(cells)
    assert np.all((south <= lat) & (lat < south + grid.HEIGHT))
    assert np.all((lon - west) % 360 < 360 / grid.columns_of(rows))


def test_names_come_back_from_points_and_centres() -> None:
    cells = np.unique(grid.cell_at(*places(30_000, 2)))
    for where in (grid.point_of, grid.centre_of):
        lat, lon = where(cells)
        assert np.array_equal(grid.cell_at(lat, lon), cells)
        assert np.all((lon >= -180) & (lon < 180))
        assert np.array_equal(grid.cell_at(lat, lon + 720), cells) or where is grid.point_of       # a corner moves by a rounding
    assert np.array_equal(grid.names_of(*grid.numbers_of(cells)), cells)


@pytest.mark.parametrize("row", [0, 1, -1, 500, -501, 946, -946, 1000, 1001, -1001, -1002])
def test_a_row_goes_once_around_the_earth(row: int) -> None:
    cells = every_cell(row)
    assert len(set(cells.tolist())) == len(cells)
    for where in (grid.point_of, grid.centre_of):
        assert np.array_equal(grid.cell_at(*where(cells)), cells)
    west = np.sort(grid.point_of(cells)[1])
    assert np.allclose(np.diff(west), 360 / len(cells)) and 0.0 in west
    assert grid.names_of(np.array(row), np.array(len(cells))) == grid.names_of(np.array(row), np.array(0))


def test_names_are_the_published_ones() -> None:
    """To the rounding that calls a cell at the antimeridian R in twelve of the published rows, and L elsewhere."""
    named_east = 0
    for row in range(-1001, 1002):
        names, west = published_names(row)
        some = slice(None) if row % 20 == 0 else slice(-1, None)
        ours = grid.cell_at(np.full(len(west), (row + 0.5) * grid.HEIGHT)[some], west[some] + 90 / len(west))
        assert ours.tolist() == names[some]
        named_east += bool(abs(row * grid.HEIGHT) <= grid.PUBLISHED and names[-1].endswith(f"_{len(west) / 2:g}R"))
    assert named_east == 12
    assert grid.point_of("0U_2004L")[1] == grid.point_of("0U_2004R")[1] == -180


def test_edges_belong_to_the_north_and_the_east() -> None:
    lat, lon = [0, -1e-12, 0, 0, 90, -90], [0, 0, -1e-12, 360, 0, 123]
    assert grid.cell_at(lat, lon).tolist() == ["0U_0R", "1D_0R", "0U_1L", "0U_0R", "1001U_0R", "1002D_0R"]


def test_longitudes_wrap() -> None:
    assert len({str(grid.cell_at(12.3, lon)) for lon in (180, -180, 540)}) == 1
    assert str(grid.cell_at(12.3, 190)) == str(grid.cell_at(12.3, -170))
    odd = next(row for row in range(500, 510) if grid.columns_of(np.array(row)) % 2)
    lat, name = (odd + 0.5) * grid.HEIGHT, every_cell(odd)[-1]
    assert name.endswith("R") and {str(grid.cell_at(lat, lon)) for lon in (179.99, 180, -179.99)} == {name}    # on both sides


@settings(deadline=None)
@given(latitudes, longitudes)
def test_any_place_has_a_cell_with_a_name(lat: float, lon: float) -> None:
    name = str(grid.cell_at(lat, lon))
    assert grid.checked_cell(name) == name and str(grid.cell_at(*grid.point_of(name))) == name


def test_published_cells_keep_away_from_the_poles() -> None:
    lat, _ = grid.point_of(["946U_0R", "947U_0R", "946D_0R", "947D_0R"])
    assert grid.is_published(["946U_0R", "947U_0R", "946D_0R", "947D_0R"]).tolist() == (np.abs(lat) <= 85).tolist() == [True, False] * 2


@pytest.mark.parametrize("name", ["", "618U", "618U_30", "618u_30l", "0618U_30L", "0D_3R", "3U_0L", "618U_30L ", "618U_30L\n", "٣U_1R",
                                  "-3U_1R", "618U_30L/..", "61800U_30L"])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="such as 618U_30L"):
        grid.point_of(["618U_30L", name])


@pytest.mark.parametrize(("name", "said"), [("1002U_0R", "1002D to 1001U"), ("1003D_0R", "1002D to 1001U"), ("0U_2005L", "2004L to 2003R"),
                                            ("1001U_4R", "3L to 3R"), ("1002D_1R", "0L to 0R")])
def test_cells_that_there_are_not_are_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grid.centre_of(name)


@pytest.mark.parametrize("place", [(90.1, 0), (-91, 0), (math.nan, 0), (0, math.nan), (0, math.inf)])
def test_what_is_no_place_is_refused(place: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="LAT,LON"):
        grid.cell_at([0, place[0]], [0, place[1]])


def test_no_cells_are_no_cells() -> None:
    assert grid.cell_at([], []).shape == (0,) and grid.point_of([])[0].shape == (0,)


@pytest.mark.parametrize("cell", ["618U_30L", "0U_2004L", "1001U_3R", "1002D_0R", "900U_0R"])
def test_neighbours_are_the_cells_that_touch(cell: str) -> None:
    """Against all cells of the rows beside: those whose edges meet or overlap on the circle."""
    rows, columns = (values.reshape(1) for values in grid.numbers_of(cell))
    found = {str(grid.names_of(row, column)[0]) for row, column, there in grid.around(rows, columns) if there[0]}
    west, width = grid.point_of(cell)[1], 360 / grid.columns_of(rows)[0]
    touching = set()
    for row in range(max(rows[0] - 1, grid.SOUTH), min(rows[0] + 1, grid.NORTH) + 1):
        others = every_cell(row)
        apart = (grid.point_of(others)[1] - west + 1e-9) % 360           # how far east of our west edge the other's begins
        touching |= set(others[(apart <= width + 2e-9) | (apart + 360 / len(others) >= 360)].tolist())
    assert found == touching and cell in found


@pytest.mark.parametrize("gap", [1e-9, 0.15])
def test_neighbours_are_neighbours_of_each_other(gap: float) -> None:
    rows, columns = grid.numbers_of(grid.cell_at(np.linspace(-90, 90, 4000), np.linspace(-180, 900, 4000) % 360))
    names = grid.names_of(rows, columns)
    for row, column, there in grid.around(rows, columns, gap=gap):
        mutual = np.zeros(len(names), bool)
        for back_row, back_column, back in grid.around(row, column, gap=gap):
            mutual |= back & (grid.names_of(back_row, back_column) == names)
        assert (mutual | ~there).all(), names[there & ~mutual]


# --- patches ------------------------------------------------------------------------------------------------------------------------

def test_patches_start_on_every_grid_at_the_same_metre() -> None:
    assert grid.patch_offsets().tolist() == [0, 1920, 3840, 5760, 7680, 8760]
    last = {10: 876, 20: 438, 30: 292, 60: 146}
    for row in TABLE.images:
        starts, resolution = grid.patch_starts(row), TABLE[row].resolution
        assert resolution and starts[-1] == last[resolution] and np.array_equal(starts * resolution, grid.patch_offsets())
        assert starts[-1] + TABLE.side(row) == grid.TILE // resolution in (1068, 534, 356, 178)
    with pytest.raises(ValueError, match="no grid"):
        grid.patch_starts("place")
    odd = replace(TABLE["dem"], resolution=50)
    with pytest.raises(ValueError, match="would cut its pixels of 50 m"):
        grid.patch_starts("dem", Table(rows=(odd,), footprint=2000))


def tiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """North-west corners and CRSs of the images of cells in many zones."""
    cells = np.unique(grid.cell_at(*places(200, 3)))
    lat, lon = grid.point_of(cells)
    keep = np.abs(lat) < 80
    codes = np.array([f"EPSG:{(32600 if a >= 0 else 32700) + int((b + 180) // 6) + 1}" for a, b in zip(lat[keep], lon[keep], strict=True)])
    return *grid.tile_corners(cells[keep], codes), codes


def test_real_images_lie_where_their_cells_name_says(samples: Path) -> None:
    """TerraMesh cuts the images of a cell into 4 x 4 squares 2640 m apart, column first in the file's name."""
    files = sorted((samples / "S2L2A").glob("*.tif"))
    assert len(files) == 3
    for file in files:
        row, column, i, j = file.stem.split("_")
        with rasterio.open(file) as dataset:
            left, top = grid.tile_corners(f"{row}_{column}", str(dataset.crs))
            assert np.allclose([dataset.transform.c, dataset.transform.f], [left[0] + 2640 * int(i), top[0] - 2640 * int(j)], atol=0.01)


def test_real_images_were_rounded_to_the_nearest_of_their_own_pixels(samples: Path) -> None:
    """TerraMesh keeps them as they were cut, larger pixels repeated: its 60 m lie beside its 10 m by as much as corners were rounded."""
    for file in sorted((samples / "S2L2A").glob("*.tif")):
        with rasterio.open(file) as dataset:
            large, small = dataset.read([1, 2]).astype(float)          # B01 and B02
            crs = str(dataset.crs)
        left, top = (float(corner[0]) for corner in grid.tile_corners("_".join(file.stem.split("_")[:2]), crs))
        origin = 1e7 if crs.startswith("EPSG:327") else 0.0            # the pixels of Sentinel-2 count from the equator
        east = round(left / 60) * 60 - round(left / 10) * 10
        north = round((top - origin) / 60) * 60 + origin - round(top / 10) * 10
        right, down = shift_between(small, large)
        assert east and north and right == east / 10 and abs(down + north / 10) <= 1, file.stem


def shift_between(small: np.ndarray, large: np.ndarray, most: int = 3) -> tuple[int, int]:
    """Columns and rows by which blocks of 6 x 6 pixels must be moved over one image to look most like the blocks of the other."""
    def alike(right: int, down: int) -> float:
        inner = np.roll(small, (-down, -right), (0, 1))[6:216, 6:216].reshape(35, 6, 35, 6).mean((1, 3)), large[6:216:6, 6:216:6]
        slopes = [np.concatenate([np.diff(image, axis=axis).ravel() for axis in (0, 1)]) for image in inner]
        return float(np.corrcoef(*slopes)[0, 1])

    return max(((x, y) for x in range(-most, most + 1) for y in range(-most, most + 1)), key=lambda place: alike(*place))


def test_patch_centres_are_where_the_middle_pixels_are() -> None:
    left, top, codes = tiles()
    lat, lon = grid.patch_centres_at(left, top, codes)
    assert lat.shape == lon.shape == (len(left), 6, 6) and len(set(codes.tolist())) > 50
    for k in (0, 17, len(left) - 1):
        for i, j in ((0, 0), (5, 2), (3, 5)):
            down, right = grid.patch_offsets()[[i, j]]
            (x,), (y,) = transform(CRS.from_string(codes[k]), CRS.from_epsg(4326), [left[k] + right + 960], [top[k] - down - 960])
            assert math.isclose(lon[k, i, j], x, abs_tol=1e-12) and math.isclose(lat[k, i, j], y, abs_tol=1e-12)
    assert np.all(np.diff(lat[:, ::5, 0], axis=1) < 0)                 # row 0 is in the north


def test_patch_centres_by_the_metadata_are_those_by_the_file() -> None:
    left, top, codes = tiles()
    centre = [transform(CRS.from_string(code), CRS.from_epsg(4326), [x + grid.TILE / 2], [y - grid.TILE / 2])
              for x, y, code in zip(left, top, codes, strict=True)]
    lon, lat = (np.array([one[i][0] for one in centre]) for i in (0, 1))
    for by_file, by_metadata in zip(grid.patch_centres_at(left, top, codes), grid.patch_centres(lat, lon, codes), strict=True):
        assert np.allclose(by_file, by_metadata, atol=1e-9)            # a tenth of a millimetre
    one_crs = grid.patch_centres(lat[:1], lon[:1], codes[0])
    assert one_crs[0].shape == (1, 6, 6)


def test_the_published_centres_are_hundreds_of_metres_off() -> None:
    """It divides the cell by six; images are larger than cells, turned against them, and their last patch overlaps the one before."""
    cells = np.unique(grid.cell_at(*places(200, 3)))
    cells = cells[np.abs(grid.point_of(cells)[0]) < 80]
    south, west = grid.point_of(cells)
    width = 360 / grid.columns_of(grid.numbers_of(cells)[0])
    published_lat = south[:, None] + (5.5 - np.arange(6)) * grid.HEIGHT / 6
    published_lon = west[:, None] + (np.arange(6) + 0.5) * width[:, None] / 6
    lat, lon = grid.patch_centres_at(*tiles())
    north = np.abs(published_lat[:, :, None] - lat) * 111_195
    east = np.abs((published_lon[:, None, :] - lon + 180) % 360 - 180) * 111_195 * np.cos(np.radians(lat))
    off = np.hypot(north, east)
    assert 500 < np.median(off) < 700 and 1100 < off.max() < 1500
    by_row = np.median(north, axis=(0, 2))       # on the flat: 10340 - start - 960 m against (5.5 - row) / 6 of 10 km
    assert np.allclose(by_row, [213, 40, 293, 547, 800, 213], atol=60)


def test_outlines_are_closed_and_count_on_beyond_the_antimeridian() -> None:
    ring = grid.tile_rings([400_000.0], [5_600_040.0], "EPSG:32630")[0]
    assert np.array_equal(ring[0], ring[-1]) and ring[0, 0] < ring[1, 0] and ring[1, 1] < ring[2, 1]
    (x,), (y,) = transform(CRS.from_epsg(4326), CRS.from_epsg(32660), [179.99], [10])
    ring = grid.tile_rings([x], [y], "EPSG:32660")[0]
    assert np.ptp(ring[:, 0]) < 0.2 and ring[:, 0].max() > 180


def test_a_crs_without_metres_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CRS EPSG:4326.*in metres"):
        grid.patch_centres(55.5, -4.7, "EPSG:4326")
