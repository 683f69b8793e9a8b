"""A table with places is a file that the GeoParquet 1.1 specification allows, comes back as it was, and is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
shapely = pytest.importorskip("shapely")

from copgen import geoparquet  # noqa: E402
from copgen.majortom import grid  # noqa: E402

GEOMETRIES = {"Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection"}


def places(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.uniform(-180, 180, count), random.uniform(-90, 90, count)


def table(count: int = 1000, seed: int = 0):
    lon, lat = places(count, seed)
    return pa.table({"cell": grid.cell_at(lat, lon).tolist(), "patch": pa.array(np.arange(count) % 36, pa.uint8()),
                     "date": pa.array(np.arange(count).astype("datetime64[D]")), "geometry": geoparquet.points(lon, lat)})


def tiles() -> np.ndarray:
    """Outlines of images: in the middle of a zone, across the antimeridian and beside it."""
    left = np.array([400_000.0, 820_000.0, 158_000.0])
    rings = grid.tile_rings(left, np.full(3, 1_100_000.0), ["EPSG:32631", "EPSG:32660", "EPSG:32601"])
    assert rings[1, :, 0].max() > 180 or rings[2, :, 0].min() < -180
    return rings


def assert_allowed(path: Path) -> dict:
    """What the specification asks of the metadata and the columns, as far as it can be seen from outside; the metadata."""
    file = pq.ParquetFile(path)
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert set(geo) == {"version", "primary_column", "columns"} and geo["version"] == "1.1.0"
    assert geo["primary_column"] in geo["columns"]
    for name, column in geo["columns"].items():
        place = file.schema.names.index(name)                          # at the root of the schema, not nested and not repeated
        assert file.schema.column(place).physical_type == "BYTE_ARRAY" and file.schema.column(place).max_repetition_level == 0
        assert column["encoding"] == "WKB" and set(column["geometry_types"]) <= GEOMETRIES
        assert column.get("edges", "planar") in ("planar", "spherical") and "crs" not in column       # absent: OGC:CRS84
        shapes = shapely.from_wkb(file.read([name])[name].to_numpy())  # ISO WKB that another reader understands
        assert {shape.geom_type for shape in shapes} == set(column["geometry_types"])
        assert shapely.is_valid(shapes).all()
        if len(shapes):
            assert column["bbox"] == pytest.approx(shapely.total_bounds(shapes), abs=0) and len(column["bbox"]) == 4
        for shape in shapes:                                           # counterclockwise, as `orientation` of others may ask
            assert all(part.exterior.is_ccw for part in getattr(shape, "geoms", [shape]) if part.geom_type == "Polygon")
    return geo


def test_points_are_wkb_and_come_back() -> None:
    lon, lat = places(1000)
    array = geoparquet.points(lon, lat)
    shapes = shapely.from_wkb(array.to_numpy(zero_copy_only=False))
    assert np.array_equal(shapely.get_coordinates(shapes), np.stack([lon, lat], axis=-1))
    assert array.to_pylist() == shapely.to_wkb(shapely.points(lon, lat)).tolist()
    for part in (array, array.slice(7, 500), pa.chunked_array([array.slice(0, 3), array.slice(3)]), array.slice(0, 0)):
        back = geoparquet.places(part)
        expected = shapely.get_coordinates(shapely.from_wkb(part.to_numpy(zero_copy_only=False))) if len(part) else np.zeros((0, 2))
        assert np.array_equal(np.stack(back, axis=-1), expected)
    assert len(geoparquet.points([], [])) == 0


def test_polygons_are_whole_on_the_map() -> None:
    rings = tiles()
    shapes = shapely.from_wkb(geoparquet.polygons(rings).to_numpy(zero_copy_only=False))
    for ring, shape in zip(rings, shapes, strict=True):
        crosses = np.abs(ring[:, 0]).max() > 180
        assert shape.geom_type == ("MultiPolygon" if crosses else "Polygon") and shapely.is_valid(shape)
        assert np.all(np.abs(shapely.bounds(shape)) <= [180, 90, 180, 90])
        assert shape.area == pytest.approx(shapely.polygons(ring).area) and shape.area < 0.02
    jumping = np.array([[[179.9, 1], [-179.9, 1], [-179.9, 2], [179.9, 2], [179.9, 1]]])
    there, back = (shapely.from_wkb(geoparquet.polygons(ring)[0].as_py()) for ring in (jumping, jumping[:, ::-1]))
    assert there.equals(back) and there.area == pytest.approx(0.2) and len(there.geoms) == 2
    assert len(geoparquet.polygons(np.zeros((0, 5, 2)))) == 0


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    whole = table()
    path = geoparquet.write(tmp_path / "deep" / "index.parquet", whole, notes={"rows": ["dem"], "commit": "abc"})
    assert_allowed(path)
    assert geoparquet.read(path).equals(whole)
    assert geoparquet.read(path, ["patch", "cell"]).column_names == ["patch", "cell"]
    coded = geoparquet.read(path, ["cell"], coded=["cell"])["cell"]
    assert pa.types.is_dictionary(coded.type) and coded.to_pylist() == whole["cell"].to_pylist()
    about = geoparquet.describe(path)
    assert (about.rows, about.columns, about.geometry) == (1000, ("cell", "patch", "date", "geometry"), "geometry")
    assert about.notes == {"rows": ["dem"], "commit": "abc"} and about.geo["columns"]["geometry"]["geometry_types"] == ["Point"]


def test_pieces_make_the_same_table(tmp_path: Path) -> None:
    whole = table(2500)
    one = geoparquet.write(tmp_path / "one.parquet", whole)
    several = geoparquet.write(tmp_path / "several.parquet", (whole.slice(k, 1000) for k in range(0, 2500, 1000)))
    assert geoparquet.read(several).equals(whole) and assert_allowed(several) == assert_allowed(one)
    assert pq.ParquetFile(several).num_row_groups == 3
    assert np.array_equal(geoparquet.read_places(several), geoparquet.places(whole["geometry"]))
    again = geoparquet.write(tmp_path / "again.parquet", whole)
    assert again.read_bytes() == one.read_bytes()


def test_shapes_other_than_points(tmp_path: Path) -> None:
    shapes = geoparquet.polygons(tiles())
    tables = pa.table({"cell": ["1U_1R", "2U_2L", "3U_3R"], "footprint": shapes})
    path = geoparquet.write(tmp_path / "tiles.parquet", tables, geometry="footprint")
    assert assert_allowed(path)["columns"]["footprint"]["geometry_types"] == ["MultiPolygon", "Polygon"]
    with pytest.raises(ValueError, match="not all points"):
        geoparquet.places(geoparquet.read(path)["footprint"])


def test_tables_may_be_empty_or_without_places(tmp_path: Path) -> None:
    empty = geoparquet.write(tmp_path / "empty.parquet", table(0))
    assert_allowed(empty)
    assert geoparquet.read(empty).num_rows == 0
    plain = geoparquet.write(tmp_path / "plain.parquet", pa.table({"cell": ["1U_1R"]}), geometry=None)
    assert geoparquet.describe(plain).geometry is None and not geoparquet.describe(plain).geo


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Iterator:
        yield table(100)
        raise RuntimeError("the source broke off")

    path = tmp_path / "new" / "index.parquet"
    with pytest.raises(RuntimeError, match="broke off"):
        geoparquet.write(path, pieces())
    assert not path.parent.exists()
    geoparquet.write(path, table(10))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="broke off"):
        geoparquet.write(path, pieces())
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["index.parquet"]
    with pytest.raises(ValueError, match="exists already"):
        geoparquet.write(path, table(10), overwrite=False)


def test_what_is_no_table_of_places_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    refusals = [
        ([], "no table"), ([table(3), table(3).drop(["date"])], "one schema"), (pa.table({"cell": ["a"]}), "geometry column 'geometry'"),
        (pa.table({"geometry": ["POINT (1 2)"]}), "of WKB"), (pa.table({"geometry": [b"nonsense"]}), "no WKB geometry"),
    ]
    for tables, said in refusals:
        with pytest.raises(ValueError, match=said):
            geoparquet.write(path, tables)
    assert not list(tmp_path.iterdir())
    for lon, lat in ((181, 0), (0, 91), (np.nan, 0), (0, np.inf)):
        with pytest.raises(ValueError, match="is no place"):
            geoparquet.points([0, lon], [0, lat])


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = geoparquet.write(tmp_path / "index.parquet", table())
    with pytest.raises(ValueError, match=r"no column colour; there are cell, patch"):
        geoparquet.read(path, ["cell", "colour"])
    with pytest.raises(ValueError, match="has no places"):
        geoparquet.read_places(geoparquet.write(tmp_path / "plain.parquet", pa.table({"cell": ["1U_1R"]}), geometry=None))
    path.write_bytes(path.read_bytes()[:-100])
    for name in ("index.parquet", "absent.parquet"):
        for ask in (geoparquet.read, geoparquet.describe):
            with pytest.raises(ValueError, match=f"{name}: is no Parquet file, or damaged or gone"):
                ask(tmp_path / name)
    for said in (b"{", b'{"version": "9.0", "primary_column": "cell", "columns": {"cell": {}}}',
                 b'{"version": "1.1.0", "primary_column": "where", "columns": {"where": {}}}'):
        odd = pa.table({"cell": ["1U_1R"]}).replace_schema_metadata({b"geo": said})
        pq.write_table(odd, tmp_path / "odd.parquet")
        with pytest.raises(ValueError, match=r"metadata \(geo\)"):
            geoparquet.describe(tmp_path / "odd.parquet")
