"""Which metadata rows may be taken and which products are chosen: known answers on made metadata, also from strangers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from copgen.download.choice import ABSENT, choose, nearest_in_time
from copgen.download.hub import origin
from copgen.download.metadata import Filters, read_metadata
from copgen.download.request import Request, box_in, percents_in, span_in
from copgen.download.sources import SOURCES

ALLOWED = frozenset([origin(constants.ENDPOINT)])
CELL, OTHER = "618U_30L", "618U_29L"


def s2(level, time, tile="30UUG", orbit=80, made="20230630T060036", baseline="0500"):
    return f"S2A_MSIL{level}_{time}_N{baseline}_R{orbit:03d}_T{tile}_{made}"


def s1(time):
    return f"S1A_IW_GRDH_1SDV_{time}_{time}_044001_0540A9_rtc"


def row(product, id_="id", cell=CELL, *, cloud=0.0, nodata=0.0, lat=55.6, lon=-4.6, part=1, at=0, **more):
    said = {"grid_cell": cell, "centre_lat": lat, "centre_lon": lon, "nodata": nodata, "crs": "EPSG:EPSG:32630",
            "parquet_url": f"{constants.ENDPOINT}/datasets/Major-TOM/Core-{product}/resolve/main/images/part_{part:05d}.parquet",
            "parquet_row": at}
    said |= {"product_id": id_} if product != "DEM" else {}
    return said | ({"cloud_cover": cloud} if product.startswith("S2") else {}) | more


def read(folder: Path, product, rows, filters=None):
    path = folder / f"{product}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return read_metadata(path, SOURCES[product], filters or Filters(), ALLOWED)


def chosen(folder, rows, criteria="closest", filters=None, asked=None):
    found = choose({product: read(folder, product, some, filters) for product, some in rows.items()}, criteria, asked)
    return {next(iter(picks.values())).cell: {name: pick.id for name, pick in picks.items()} for picks in found.picks()}, found.left_out


PASSES = {
    "S2L2A": [row("S2L2A", s2("2A", "20210610T112119"), cloud=3, at=0), row("S2L2A", s2("2A", "20210715T112111"), cloud=1, at=1),
              row("S2L2A", s2("2A", "20200801T112109"), cloud=0.1, at=2)],
    "S2L1C": [row("S2L1C", s2("1C", "20210610T112119", made="20210610T133000", baseline="0301"), cloud=2, at=0),
              row("S2L1C", s2("1C", "20210610T112119", tile="30UVG"), cloud=0, at=1),
              row("S2L1C", s2("1C", "20200801T112109"), cloud=0.1, at=2), row("S2L1C", s2("1C", "20210730T112119"), cloud=5, at=3)],
    "S1RTC": [row("S1RTC", s1("20210604T063141"), at=0), row("S1RTC", s1("20210613T180522"), at=1),
              row("S1RTC", s1("20200806T063144"), at=2)],
    "DEM": [row("DEM")],
}


def test_closest_takes_one_datatake_and_tile_and_the_nearest_radar_image(tmp_path):
    found, left_out = chosen(tmp_path, PASSES)
    assert found == {CELL: {"S2L2A": s2("2A", "20210610T112119"),
                            "S2L1C": s2("1C", "20210610T112119", made="20210610T133000", baseline="0301"),
                            "S1RTC": s1("20210613T180522"), "DEM": "id"}}
    assert not left_out


def test_the_newest_and_the_clearest_are_each_sources_own(tmp_path):
    newest, _ = chosen(tmp_path, PASSES, "latest")
    assert newest[CELL] == {"S2L2A": s2("2A", "20210715T112111"), "S2L1C": s2("1C", "20210730T112119"),
                            "S1RTC": s1("20210613T180522"), "DEM": "id"}
    clearest, _ = chosen(tmp_path, PASSES, "least-cloudy")
    assert clearest[CELL] == {"S2L2A": s2("2A", "20200801T112109"), "S2L1C": s2("1C", "20210610T112119", tile="30UVG"),
                              "S1RTC": s1("20210613T180522"), "DEM": "id"}


def test_a_cell_without_a_pair_is_left_out_and_counted(tmp_path):
    rows = {"S2L2A": [row("S2L2A", s2("2A", "20210610T112119"))], "S2L1C": [row("S2L1C", s2("1C", "20210610T112119", orbit=81))]}
    assert chosen(tmp_path, rows) == ({}, {"no S2L1C and S2L2A of one datatake and tile": (CELL,)})
    assert set(chosen(tmp_path, rows, "latest")[0]) == {CELL}


def test_a_cell_is_there_only_with_all_products_asked_for(tmp_path):
    rows = {"S2L2A": [row("S2L2A", s2("2A", "20210610T112119"), cell) for cell in (CELL, OTHER)],
            "S1RTC": [row("S1RTC", s1("20210613T180522"), cell, nodata=0.2 * (cell == CELL)) for cell in (CELL, "0U_0R")]}
    found, left_out = chosen(tmp_path, rows, filters=Filters(nodata=0.1))
    assert not found
    assert left_out == {"no S2L2A on the hub": ("0U_0R",), "no S1RTC on the hub": (OTHER,), "no S1RTC that passes the filters": (CELL,)}
    _, left_out = chosen(tmp_path, rows, filters=Filters(cells=(CELL, "1U_1R")), asked=(CELL, "1U_1R"))
    assert left_out == {"no S2L2A on the hub": ("1U_1R",)}


@pytest.mark.parametrize(("products", "expected"), [
    (("S2L2A", "S1RTC"), {"S2L2A": s2("2A", "20210610T112119"), "S1RTC": s1("20210613T180522")}),
    (("S2L2A", "S2L1C"), {"S2L2A": s2("2A", "20200801T112109"), "S2L1C": s2("1C", "20200801T112109")}),
    (("S1RTC", "DEM"), {"S1RTC": s1("20210613T180522"), "DEM": "id"}),
    (("DEM",), {"DEM": "id"}),
])
def test_closest_with_fewer_products(tmp_path, products, expected):
    assert chosen(tmp_path, {name: PASSES[name] for name in products})[0] == {CELL: expected}


def test_the_order_of_rows_changes_nothing(tmp_path):
    twice = {name: [*some, *({**one, "parquet_row": 9} for one in some)] for name, some in PASSES.items()}
    expected = chosen(tmp_path, twice)
    for seed in range(5):
        order = np.random.default_rng(seed)
        assert chosen(tmp_path, {name: [some[k] for k in order.permutation(len(some))] for name, some in twice.items()}) == expected


def test_of_equal_gaps_the_clearer_is_taken(tmp_path):
    rows = {"S2L2A": [row("S2L2A", s2("2A", "20210610T000000"), cloud=3), row("S2L2A", s2("2A", "20210614T000000"), cloud=2, at=1)],
            "S1RTC": [row("S1RTC", s1("20210612T000000"))]}
    assert chosen(tmp_path, rows)[0][CELL]["S2L2A"] == s2("2A", "20210614T000000")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=12), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50))))
def test_the_nearest_in_time_is_the_nearest(radar, optical):
    codes, times = np.array(radar, np.int64).reshape(-1, 2).T
    code, time = np.array(optical, np.int64).reshape(-1, 2).T
    best, gap = nearest_in_time(codes, times, code, time)
    for k, (c, t) in enumerate(optical):
        known = sorted((abs(when - t), when, i) for i, (where, when) in enumerate(radar) if where == c)
        assert (best[k], gap[k]) == (known[0][2], known[0][0]) if known else best[k] == ABSENT


def test_a_box_may_cross_the_antimeridian(tmp_path):
    rows = [row("DEM", cell=f"0U_{k}R", lat=lat, lon=lon) for k, (lat, lon) in enumerate(
        [(0, 179.9), (0, -179.9), (0, 178.9), (0, -178.9), (5, 180), (5.1, 179.9), (0, 0), (-5, 179)])]
    found = chosen(tmp_path, {"DEM": rows}, filters=Filters(bbox=(179, -5, -179, 5)))[0]
    assert set(found) == {"0U_0R", "0U_1R", "0U_4R", "0U_7R"}
    found = chosen(tmp_path, {"DEM": rows}, filters=Filters(bbox=(-179, -5, 179, 5)))[0]
    assert set(found) == {"0U_2R", "0U_3R", "0U_6R", "0U_7R"}


def test_both_ends_of_dates_and_clouds_count(tmp_path):
    times = ["20210609T235959", "20210610T000000", "20210611T235959", "20210612T000000"]
    rows = [row("S2L2A", s2("2A", time), cell=f"0U_{k}R", cloud=10) for k, time in enumerate(times)]
    dates = (np.datetime64("2021-06-10"), np.datetime64("2021-06-11"))
    one = read(tmp_path, "S2L2A", rows, Filters(dates=dates, cloud_cover=(10, 10)))
    assert sorted(one.table["cell"].to_pylist()) == ["0U_1R", "0U_2R"] and one.counts == {"outside of the dates": 2}
    assert read(tmp_path, "S2L2A", rows, Filters(cloud_cover=(0, 9.99))).counts == {"too cloudy": 4}


def test_what_is_no_number_passes_no_filter(tmp_path):
    rows = [row("S2L2A", s2("2A", "20210610T112119"), cloud=cloud, nodata=nodata, at=k)
            for k, (cloud, nodata) in enumerate([(np.nan, 0.0), (None, 0.0), (1.0, np.nan), (1.0, None), (1.0, 0.0)])]
    one = read(tmp_path, "S2L2A", rows, Filters(cloud_cover=(0, 100), nodata=0.0))
    assert one.table["row"].to_pylist() == [4]


HOSTILE = [
    ({"grid_cell": "../../etc"}, "cell's name"), ({"grid_cell": "618U_30L/.."}, "cell's name"), ({"grid_cell": ""}, "cell's name"),
    ({"grid_cell": None}, "cell's name"), ({"grid_cell": "618U_30L\n"}, "cell's name"),
    ({"product_id": "../../../home/.ssh"}, "product id"), ({"product_id": ".."}, "product id"), ({"product_id": ""}, "product id"),
    ({"product_id": None}, "product id"), ({"product_id": s2("2A", "20210610T112119") + "/x"}, "product id"),
    ({"product_id": s2("2A", "20210610T112119") + "\n"}, "product id"), ({"product_id": s2("1C", "20210610T112119")}, "product id"),
    *(({"parquet_url": url}, "address") for url in (
        "https://evil.example/datasets/Major-TOM/Core-S2L2A/resolve/main/images/part_00001.parquet",
        "file:///datasets/Major-TOM/Core-S2L2A/resolve/main/images/part_00001.parquet",
        f"{constants.ENDPOINT}/datasets/Major-TOM/Core-S2L1C/resolve/main/images/part_00001.parquet",
        f"{constants.ENDPOINT}/datasets/Major-TOM/Core-S2L2A/resolve/main/../../../x.parquet",
        f"{constants.ENDPOINT}/datasets/Major-TOM/Core-S2L2A/resolve/main/images/.hidden/x.parquet",
        f"{constants.ENDPOINT}:8443/datasets/Major-TOM/Core-S2L2A/resolve/main/images/part_00001.parquet",
        f"{constants.ENDPOINT}:port/datasets/Major-TOM/Core-S2L2A/resolve/main/images/part_00001.parquet",
        constants.ENDPOINT.replace("://", "://me:secret@") + "/datasets/Major-TOM/Core-S2L2A/resolve/main/images/part_00001.parquet",
        "", None)),
    ({"parquet_row": -1}, "row number"), ({"parquet_row": 2**40}, "row number"), ({"parquet_row": None}, "row number"),
    ({"centre_lat": np.nan}, "place"), ({"centre_lon": np.inf}, "place"),
]


@pytest.mark.parametrize(("wrong", "why"), HOSTILE, ids=lambda one: str(one)[:60])
def test_rows_of_strangers_are_refused_and_counted(tmp_path, wrong, why):
    good = row("S2L2A", s2("2A", "20210610T112119"))
    one = read(tmp_path, "S2L2A", [{**good, **wrong}, good])
    assert one.table["id"].to_pylist() == [good["product_id"]]
    assert [count for reason, count in one.counts.items() if why in reason] == [1] and why in one.notes[0]


def test_ids_without_a_baseline_are_ids_too(tmp_path):
    """As another archive of Sentinel-2 writes them."""
    rows = {level: [row(level, s2(level[2:].removeprefix("L"), "20210610T112119").replace("_N0500", ""))] for level in ("S2L1C", "S2L2A")}
    found, left_out = chosen(tmp_path, rows)
    assert not left_out and found[CELL]["S2L2A"] == "S2A_MSIL2A_20210610T112119_R080_T30UUG_20230630T060036"


def test_rows_that_are_there_twice_count_once_and_the_worse_holds(tmp_path):
    good = row("S2L2A", s2("2A", "20210610T112119"), cloud=2)
    one = read(tmp_path, "S2L2A", [good, {**good, "cloud_cover": 7.0}, good, {**good, "parquet_row": 5}])
    assert [(r["row"], r["cloud"]) for r in one.table.to_pylist()] == [(0, 7.0), (5, 2.0)]
    assert "2 metadata rows are there again" in one.notes[0] and "another place in the files" in one.notes[1]


@pytest.mark.parametrize("missing", ["grid_cell", "product_id", "cloud_cover", "parquet_url", "parquet_row", "centre_lat", "nodata"])
def test_metadata_without_a_column_are_none(tmp_path, missing):
    wrong = row("S2L2A", s2("2A", "20210610T112119"))
    del wrong[missing]
    with pytest.raises(ValueError, match=rf"S2L2A\.parquet: has no column {missing}"):
        read(tmp_path, "S2L2A", [wrong])


def test_what_is_no_metadata_is_said(tmp_path):
    path = tmp_path / "metadata.parquet"
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ValueError, match=r"metadata\.parquet: can't be read as metadata of Core-DEM"):
        read_metadata(path, SOURCES["DEM"], Filters(), ALLOWED)
    pq.write_table(pa.Table.from_pylist([row("DEM", parquet_row="seven")]), path)
    with pytest.raises(ValueError, match="can't be read as metadata"):
        read_metadata(path, SOURCES["DEM"], Filters(), ALLOWED)


def test_no_rows_are_no_cells(tmp_path):
    empty = {name: read(tmp_path, name, some, Filters(bbox=(100, 0, 101, 1))) for name, some in PASSES.items()}
    for criteria in ("closest", "latest", "least-cloudy"):
        assert len(choose(empty, criteria)) == 0
        assert choose(empty, criteria, (CELL,)).left_out == {"no S2L2A on the hub": (CELL,)}


def test_requests_are_checked_before_anything_is_fetched(tmp_path):
    refusals = {
        "which cells": {}, "by one of": {"cells": (CELL,), "bbox": (0, 0, 1, 1)}, "1U_99999L|no cell": {"cells": ("1U_99999L",)},
        "names no cell": {"cells": ()}, "south < north": {"bbox": (0, 5, 1, 4)}, "west and east": {"bbox": (0, 0, 200, 1)},
        "ends before": {"cells": (CELL,), "dates": ("2021-02-01", "2021-01-01")}, "calendar day": {"cells": (CELL,), "dates": ("a", "b")},
        "cloud-cover": {"cells": (CELL,), "cloud_cover": (10, 0)}, "nodata": {"cells": (CELL,), "nodata": float("nan")},
        "criteria newest": {"cells": (CELL,), "criteria": "newest"}, "S2L3": {"cells": (CELL,), "products": ("S2L3",)},
        "--lulc takes it": {"cells": (CELL,), "products": ("LULC",)}, "connections 0": {"cells": (CELL,), "connections": 0},
        "--dates 2021..2022: date '2021'": {"cells": (CELL,), "dates": ("2021", "2022")},
        "--lulc-year 18: is no year": {"cells": (CELL,), "lulc": "map.tif", "lulc_year": 18},
        r"wrong\.txt: cell 'name'": {"cells_file": tmp_path / "wrong.txt"}, "without --lulc": {"cells": (CELL,), "lulc_year": 2021},
        "no list of cells could be read": {"cells_file": tmp_path / "none.txt"},
    }
    (tmp_path / "wrong.txt").write_text(f"name\n{CELL}\n")
    for message, given_ in refusals.items():
        with pytest.raises(ValueError, match=message):
            Request(tmp_path, **given_)


def test_what_a_command_line_says_is_read(tmp_path):
    (tmp_path / "cells.txt").write_text(f"\ufeff{CELL}, {OTHER}\r\n# two, and the byte order mark of an editor\n\n{CELL}\n")
    assert Request(tmp_path, cells_file=tmp_path / "cells.txt").asked() == (OTHER, CELL)
    assert box_in("179,-5,-179,5") == (179, -5, -179, 5) and percents_in("0..10") == (0, 10)
    assert span_in("2020-01-01..2021-01-01", "--dates") == ("2020-01-01", "2021-01-01")
    for wrong in (lambda: box_in("1,2,3"), lambda: percents_in("10"), lambda: span_in("2020", "--dates")):
        with pytest.raises(ValueError, match="takes"):
            wrong()
