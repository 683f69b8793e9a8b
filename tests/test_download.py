"""Cells come into an archive byte for byte, whole or not at all, with no more bytes than their columns take; run again, it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import made_archive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from hub_server import KINDS, Faults, serve
from made_archive import CELL, EAST, make_hub
from made_rasters import raster
from rasterio.transform import from_origin

from copgen import geoparquet
from copgen.download import Request, download, verify
from copgen.download.fetch import Unreadable, check_image, check_thumbnail
from copgen.download.records import Archive, Full
from copgen.download.rows import coalesced
from copgen.download.traffic import Patience
from copgen.majortom import read_cell

QUICK = Patience(tries=6, first=0.002, longest=0.01, obeyed=0.01)
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two cells at several times, in small files, with what is wrong in the real metadata."""
    return make_hub(tmp_path_factory.mktemp("made") / "hub", (CELL, EAST), rows_per_part=3)


@pytest.fixture(scope="module")
def grainy(tmp_path_factory):
    """Four cells with images of real size."""
    cells = (CELL, EAST, "618U_28L", "618U_27L")
    folder = tmp_path_factory.mktemp("grainy") / "hub"
    return make_hub(folder, cells, passes=made_archive.PLAIN, content="grain", rows_per_part=40, troubles=False)


def files_of(root: Path) -> dict[str, bytes]:
    """What is visible of an archive, but for its index."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and ".copgen" not in path.parts and path.name != "index.parquet"}


def fetched(request: Request, **how):
    return download(request, patience=QUICK, **how)


def index_of(root: Path) -> list[dict]:
    return pq.read_table(root / "index.parquet").to_pylist()


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """Both cells, from a folder: what every other way must come to."""
    out = tmp_path_factory.mktemp("whole") / "archive"
    report = fetched(Request(out, cells=(CELL, EAST), hub=str(made.folder)))
    assert (report.complete, report.failures, report.code) == (2, 0, 0)
    return out


def test_files_are_those_of_the_parquet_rows(made, whole):
    for cell in (CELL, EAST):
        for source, day in (("S2L2A", "2021-06-10"), ("S2L1C", "2021-06-10"), ("S1RTC", "2021-06-13"), ("DEM", "")):
            folder = whole / f"Core-{source}" / "618U" / cell
            one = next(one for one in made.of(source, cell, day) if (folder / one.id).is_dir())
            assert [path.name for path in folder.iterdir()] == [one.id]
            bands = {path.stem: path.read_bytes() for path in (folder / one.id).glob("*.tif")}
            assert bands == {band: data for band, data in one.bands.items() if band != "compressed"}
            assert (folder / one.id / "thumbnail.png").read_bytes() == one.thumbnail
    assert read_cell(whole, CELL, given=["S2L2A", "S1RTC", "DEM"])["date"][0] == np.datetime64("2021-06-11")


def test_the_index_says_what_was_paired_and_what_is_there(whole):
    about = geoparquet.describe(whole / "index.parquet")
    assert (about.rows, about.geometry) == (2, "geometry")
    east, west = index_of(whole)
    assert (east["cell"], west["cell"]) == (EAST, CELL)
    for one in (east, west):
        assert str(one["date"]) == "2021-06-11" and one["levels_apart_hours"] == 0 and one["s2l2a_id"].split("_")[2] == "20210610T112119"
        assert one["radar_after_optical_hours"] == pytest.approx(3 * 24 + 6 + 44 / 60 + 3 / 3600)
        assert len(one["files"]) == 14 + 15 + 3 + 2 and one["crs"] == "EPSG:32630"
        assert one["s2l2a_etag"] and one["s2l2a_from"].startswith("Core-S2L2A/images/part_0000")
        place = shapely.from_wkb(one["geometry"])
        assert 110 < place.area * 111.2**2 * np.cos(np.radians(55.5)) < 118     # km^2: 10.68 squared
    assert verify(whole) == (2, [])


def test_one_cell_of_a_large_parquet_takes_its_columns_and_no_more(grainy, tmp_path):
    with serve(grainy.folder) as server:
        report = fetched(Request(tmp_path / "a", cells=("618U_28L",), hub=server.url))
        images = {path: sent for path, (_, sent) in server.by_path.items() if "/images/" in path}
        sizes = {path: (grainy.folder / path.split("/")[3] / path.partition("main/")[2]).stat().st_size for path in images}
    traffic = report.traffic
    assert traffic["ratio"] <= 1.1 and traffic["bytes_wasted"] == 0
    assert traffic["bytes"] == server.bytes and traffic["requests"] == server.requests
    some = [one for one in grainy.products if one.cell == "618U_28L"]
    columns = sum(len(data) for one in some for band, data in one.bands.items() if band != "compressed")
    assert traffic["bytes_of_wanted_columns"] < 1.01 * columns
    assert sum(images.values()) < 1.1 * columns + 4 * 2**16 < 0.4 * sum(sizes.values())
    assert traffic["requests"] <= 4 * 2 + 4 * 3


def test_gaps_are_bridged_only_where_they_cost_less_than_a_request():
    assert coalesced([(4, 10), (10, 1000)]) == [(4, 1000)]
    assert coalesced([(0, 1000), (1020, 2000)]) == [(0, 2000)]
    assert coalesced([(0, 1000), (1500, 2000)]) == [(0, 1000), (1500, 2000)]
    random = np.random.default_rng(1)
    for _ in range(50):
        edges = np.sort(random.choice(10**6, 12, replace=False)).reshape(-1, 2).tolist()
        found = coalesced([tuple(pair) for pair in edges])
        wanted = sum(stop - start for start, stop in edges)
        assert sum(stop - start for start, stop in found) <= 1.1 * wanted
        assert all(any(start <= a and b <= stop for start, stop in found) for a, b in edges)


def test_what_is_there_is_not_fetched_again(made, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    with serve(made.folder) as server:
        first = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
        assert (first.complete, first.skipped) == (0, 2) and not [path for path in server.by_path if "/images/" in path]
        server.clear()
        (tmp_path / "a/index.parquet").unlink()
        second = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
        assert second.skipped == 2 and server.bytes == 0 and [one.status for one in server.log] == [304] * 4
    assert files_of(tmp_path / "a") == files_of(whole) and index_of(tmp_path / "a") == index_of(whole)       # made anew of the records


def test_real_cells_come_through(samples, tmp_path):
    cell = made_archive.REAL[0]
    made = make_hub(tmp_path / "hub", (cell,), content="real", samples=samples, troubles=False)
    with serve(made.folder, Faults(rates={"truncated": 0.3}), redirects=True) as server:
        report = fetched(Request(tmp_path / "a", cells=(cell,), hub=server.url))
    assert report.complete == 1 and report.traffic["ratio"] <= 1.1
    days = [np.datetime64(one.time, "D") for source in ("S2L2A", "S1RTC") for one in made.of(source, cell)]
    scene = read_cell(tmp_path / "a", cell, given=["S2L2A", "S1RTC", "DEM"])
    assert scene["date"][0] == min(days) + (max(days) - min(days)) // 2
    for one in made.products:
        folder = tmp_path / "a" / f"Core-{one.source}" / cell.split("_")[0] / cell / one.id
        assert {path.stem: path.read_bytes() for path in folder.glob("*.tif")} == {
            band: data for band, data in one.bands.items() if band != "compressed"}


def test_only_what_is_missing_or_damaged_is_fetched(made, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    path = next((tmp_path / "a/Core-S1RTC/618U" / CELL).glob("*/vv.tif"))
    path.write_bytes(b"short")
    shutil.rmtree(tmp_path / "a/Core-DEM/618U" / EAST)
    wrong = verify(tmp_path / "a")[1]
    assert len(wrong) == 3 and any("vv.tif: has 5 bytes" in one for one in wrong) and any("is missing" in one for one in wrong)
    with serve(made.folder) as server:
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
        assert {one.path.split("/")[3] for one in server.log if "/images/" in one.path} == {"Core-S1RTC", "Core-DEM"}
    assert report.complete == 2 and files_of(tmp_path / "a") == files_of(whole) and verify(tmp_path / "a") == (2, [])


def test_a_file_of_the_same_size_and_another_content_is_found_by_its_hash(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    path = next((tmp_path / "a/Core-DEM/618U" / CELL).glob("*/DEM.tif"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert [one.partition(":")[2] for one in verify(tmp_path / "a")[1]] == [" has another content than when it was fetched"]


def test_products_may_come_one_after_another(made, whole, tmp_path):
    for products in (("S2L2A", "S2L1C", "S1RTC"), ("S2L2A", "S2L1C", "S1RTC", "DEM")):
        fetched(Request(tmp_path / "a", cells=(CELL, EAST), products=products, hub=str(made.folder)))
    assert files_of(tmp_path / "a") == files_of(whole)
    assert index_of(tmp_path / "a") == index_of(whole)


def test_another_choice_in_the_same_archive_is_refused(made, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    report = fetched(Request(tmp_path / "a", cells=(CELL,), criteria="latest", hub=str(made.folder)))
    (why, [(cell, sentence)]), = report.failed.items()
    assert why == "an earlier request chose another product" and cell == CELL and "choose another --out" in sentence and report.code == 1
    assert files_of(tmp_path / "a") == files_of(whole)


def test_files_that_no_download_wrote_are_never_replaced(made, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    shutil.rmtree(tmp_path / "a/.copgen")
    again = fetched(Request(tmp_path / "a", cells=(CELL,), hub=str(made.folder)))        # the same files: they are taken over
    assert again.complete == 1 and files_of(tmp_path / "a") == files_of(whole)
    shutil.rmtree(tmp_path / "a/.copgen")
    path = next((tmp_path / "a/Core-DEM/618U" / CELL).glob("*/DEM.tif"))
    path.write_bytes(b"my own")
    report = fetched(Request(tmp_path / "a", cells=(CELL,), hub=str(made.folder)))
    assert report.failures == 1 and "wasn't written by a download" in next(iter(report.failed.values()))[0][1]
    assert path.read_bytes() == b"my own" and not list((tmp_path / "a/.copgen/staged").iterdir())


def test_the_row_is_believed_where_metadata_contradict_it(tmp_path):
    made = make_hub(tmp_path / "hub", passes=made_archive.PLAIN, troubles=False, rows_per_part=1)
    rows = pq.read_table(tmp_path / "hub/Core-S1RTC/metadata.parquet").to_pylist()
    liar = {**rows[0], "product_id": rows[0]["product_id"].replace("20210608", "20210610")}      # nearer, if it were true
    pq.write_table(pa.Table.from_pylist([liar, *rows]), tmp_path / "hub/Core-S1RTC/metadata.parquet")
    said: list[str] = []
    request = Request(tmp_path / "a", cells=(CELL,), hub=str(tmp_path / "hub"))
    report = fetched(request, say=said.append)
    assert report.complete == 1 and any("the row itself says" in line for line in said)
    assert index_of(tmp_path / "a")[0]["s1rtc_id"] == made.of("S1RTC")[0].id
    assert "the row itself says" in index_of(tmp_path / "a")[0]["notes"][0]
    assert fetched(request).skipped == 1                             # and it is remembered
    pq.write_table(pa.Table.from_pylist([liar]), tmp_path / "hub/Core-S1RTC/metadata.parquet")
    report = fetched(Request(tmp_path / "b", cells=(CELL,), hub=str(tmp_path / "hub")))
    assert list(report.failed) == ["the metadata contradict the files"] and not files_of(tmp_path / "b")


# --- faults -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("403", "flipped")])
def test_faults_change_nothing_of_the_archive(made, whole, tmp_path, kind):
    with serve(made.folder, Faults(rates={kind: 0.4}, seed=3), redirects=bool(KINDS.index(kind) % 2)) as server:
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url, connections=3))
        assert server.injected[kind] >= 3
    assert (report.complete, report.failures) == (2, 0)
    assert files_of(tmp_path / "a") == files_of(whole) and verify(tmp_path / "a") == (2, [])


def test_all_faults_together(made, whole, tmp_path):
    rates = {kind: 0.04 for kind in KINDS if kind not in ("403", "flipped")}
    with serve(made.folder, Faults(rates=rates, seed=1, again=4)) as server:
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
        assert len(server.injected) >= 4 and report.complete == 2
    assert files_of(tmp_path / "a") == files_of(whole)


@pytest.mark.parametrize("only", ["metadata", "images"])
def test_damaged_bytes_are_noticed_where_anything_tells(made, whole, tmp_path, only):
    """A hash tells of metadata; of images a decoder may, not of every bit: here it does."""
    with serve(made.folder, Faults(script={2: "flipped", 4: "flipped"}, only=only)) as server:
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url, connections=1))
        assert server.injected["flipped"] == 2
    assert report.complete == 2 and files_of(tmp_path / "a") == files_of(whole)


def test_a_file_that_changes_under_a_cached_footer_is_read_anew(made, whole, tmp_path):
    hub = tmp_path / "hub"
    shutil.copytree(made.folder, hub)
    image = hub / "Core-S2L2A/images/part_00001.parquet"
    other = hub / "other.parquet"
    table = pq.read_table(image)
    wider = table.add_column(0, "extra", pa.array([b"x" * 999] * len(table)))
    pq.write_table(wider, other, row_group_size=1)
    for redirects in (False, True):
        out = tmp_path / f"a{redirects}"
        with serve(hub, Faults(changes={"S2L2A/resolve/main/images/part_00001.parquet": (1, other)}), redirects=redirects) as server:
            report = fetched(Request(out, cells=(CELL, EAST), hub=server.url))
        assert report.complete == 2 and files_of(out) == files_of(whole)
        assert report.traffic["retries"].get("changed", 0) == (0 if redirects else 1)


def test_a_footer_on_disk_is_dropped_when_its_file_was_changed(made, whole, tmp_path):
    hub, out = tmp_path / "hub", tmp_path / "a"
    shutil.copytree(made.folder, hub)
    with serve(hub) as server:
        fetched(Request(out, cells=(EAST,), hub=server.url))
        for image in hub.glob("Core-*/images/*.parquet"):
            table = pq.read_table(image)
            pq.write_table(table.select(table.column_names[::-1]), image, row_group_size=1)
        server.clear()
        report = fetched(Request(out, cells=(CELL, EAST), hub=server.url))
    assert report.complete == 1 and report.skipped == 1 and report.traffic["retries"].get("changed", 0) >= 1
    assert files_of(out) == files_of(whole)


def test_who_claims_gigabytes_gets_none(tmp_path):
    thumbnail = made_archive.png("x")
    check_thumbnail(thumbnail, "x")
    with pytest.raises(Unreadable, match="thumbnail says that it has more than"):
        check_thumbnail(thumbnail[:16] + struct.pack(">II", 60_000, 60_000) + thumbnail[24:], "x")
    place = from_origin(400_000, 6_000_000, 30, 30)
    with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", width=356, height=356, count=1, dtype="uint8", crs="EPSG:32630",
                       transform=place, tiled=True, blockxsize=4096, blockysize=4096, compress="deflate") as image:
        image.write(np.ones((356, 356), np.uint8), 1)
    with pytest.raises(Unreadable, match=r"DEM is cut into blocks of \(4096, 4096\) pixels"):
        check_image((tmp_path / "x.tif").read_bytes(), "DEM", 30, "x")


@pytest.mark.parametrize(("sound", "damaged"), [
    (b"\x25\x02\x18\x09thumbnail", b"\x25\x00\x18\x09thumbnail"),    # optional -> required: pyarrow ends the process where it is asked
    (b"\x18\x03DEM", b"\x18\x03\xffEM"),
], ids=["levels", "name"])
def test_a_damaged_footer_is_of_its_cells_alone_and_not_kept(made, tmp_path, sound, damaged):
    hub = tmp_path / "hub"
    shutil.copytree(made.folder, hub)
    one, = made.of("DEM", CELL)
    path = hub / "Core-DEM" / one.file
    good = path.read_bytes()
    assert sound in good and all(other.file == one.file for other in made.of("DEM", EAST))
    path.write_bytes(good.replace(sound, damaged, 1))
    os.utime(path, (1, 1))
    process = start(tmp_path / "a", str(hub), (CELL,))
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "failed, a row can't be decoded: 1" in said, said + errors
    path.write_bytes(good)
    os.utime(path, (1, 1))                       # the same to who looks from outside: damaged on the way
    assert fetched(Request(tmp_path / "a", cells=(CELL,), hub=str(hub))).complete == 1


def test_faults_of_one_cell_are_not_the_others(made, whole, tmp_path):
    hub = tmp_path / "hub"
    shutil.copytree(made.folder, hub)
    one = next(one for one in made.of("DEM", EAST))
    table = pq.read_table(hub / "Core-DEM" / one.file).to_pylist()
    table[one.row]["DEM"] = b"GIF89a, no GeoTIFF"
    pq.write_table(pa.Table.from_pylist(table), hub / "Core-DEM" / one.file, row_group_size=1)
    with serve(hub) as server:
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
    assert (report.complete, report.failures, report.code) == (1, 1, 1)
    assert "DEM is no GeoTIFF" in report.failed["an image can't be read"][0][1] and any("failed" in line for line in report.lines())
    assert files_of(tmp_path / "a") == {name: data for name, data in files_of(whole).items() if CELL in name}
    shutil.rmtree(hub)
    shutil.copytree(made.folder, hub)
    with serve(hub) as server:                   # mended on the hub, it goes on
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
    assert (report.complete, report.skipped) == (1, 1) and files_of(tmp_path / "a") == files_of(whole)


def test_a_server_that_is_gone_ends_the_run(made, tmp_path):
    with serve(made.folder, Faults(rates={"503": 1}, again=10**6, only="images")) as server:
        report = fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))
        assert list(report.failed) == ["the server did not answer as asked"] and report.failures == 2 and report.code == 1
    with pytest.raises(ValueError, match="no answer came"):
        fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url))


def test_a_full_disk_is_a_sentence_and_ends_the_run(made, tmp_path, monkeypatch):
    import errno

    from copgen.download import records

    def full(path, data):
        if path.suffix == ".tif":
            path.write_bytes(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(records, "write_bytes", full)
    with pytest.raises(Full, match="free some space"):
        fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=str(made.folder)))
    assert not files_of(tmp_path / "a") and not list((tmp_path / "a/.copgen/staged").iterdir())


# --- kills --------------------------------------------------------------------------------------------------------------------------

FETCH = """
import sys
from pathlib import Path
from copgen.download import Request, download
from copgen.download.traffic import Patience
report = download(Request(Path(sys.argv[1]), cells=tuple(sys.argv[3:]), hub=sys.argv[2], connections=2), patience=Patience(first=0.01))
print(*report.lines(), sep="\\n")
raise SystemExit(report.code)
"""


def start(out: Path, url: str, cells) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", FETCH, str(out), url, *cells], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def storm(made, out: Path, cells, delays, kind: signal.Signals, pause: float = 0.03) -> int:
    """Start, end by a signal, again and again; then to the end. How many runs the signal met at work."""
    met = 0
    with serve(made.folder, Faults(rates={"slow": 1}, again=10**6, pause=pause)) as server:
        for delay in delays:
            process, seen = start(out, server.url, cells), server.requests
            while server.requests < seen + 5 and process.poll() is None:         # it has begun
                time.sleep(0.01)
            time.sleep(delay)
            met += process.poll() is None
            process.send_signal(kind)
            process.communicate(timeout=60)
            for path in out.glob("Core-*/*/*/*"):                                # a folder that shows is whole
                expected = {f"{band}.tif" for band in made_archive.BANDS[path.parts[-4][5:]] if band != "compressed"} | {"thumbnail.png"}
                assert {file.name for file in path.iterdir()} == expected
        process = start(out, server.url, cells)
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, said + errors
    print(f"{met} met it at work")
    return met


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_was_killed_goes_on(made, whole, tmp_path, kind):
    assert storm(made, tmp_path / "a", (CELL, EAST), (0.0, 0.25), kind) >= 1
    assert files_of(tmp_path / "a") == files_of(whole) and verify(tmp_path / "a") == (2, [])
    assert not list((tmp_path / "a/.copgen/staged").iterdir())


@pytest.mark.long
def test_a_storm_of_kills(grainy, tmp_path):
    cells = tuple(dict.fromkeys(one.cell for one in grainy.products))
    fetched(Request(tmp_path / "whole", cells=cells, hub=str(grainy.folder)))
    delays = np.random.default_rng(0).uniform(0, 1.0, 25)
    assert storm(grainy, tmp_path / "a", cells, delays, signal.SIGKILL, pause=0.1) >= 5      # slow enough that many find it at work
    assert files_of(tmp_path / "a") == files_of(tmp_path / "whole") and verify(tmp_path / "a") == (4, [])


@pytest.mark.parametrize("renamed", [0, 1, 2, 4])
def test_a_kill_between_two_renamings_is_made_good(made, whole, tmp_path, monkeypatch, renamed):
    out, count = tmp_path / "a", 0
    rename = Path.rename

    class Killed(BaseException):
        pass

    def counted(path, target):
        nonlocal count
        if count == renamed:
            raise Killed
        count += 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", counted)
    monkeypatch.setattr("copgen.download.records.shutil.rmtree", lambda *args, **kwargs: None)     # the dead tidy nothing up
    if renamed < 4:
        with pytest.raises(Killed):
            fetched(Request(out, cells=(CELL,), hub=str(made.folder), connections=1))
    else:
        fetched(Request(out, cells=(CELL,), hub=str(made.folder), connections=1))
    monkeypatch.undo()
    with Archive(out).locked():
        assert Archive(out).record(CELL) is not None
    assert verify(out) == (1, []) and files_of(out) == {name: data for name, data in files_of(whole).items() if CELL in name}


def test_an_index_that_a_killed_run_did_not_write_is_written(made, whole, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(archive):
        raise Killed

    fetched(Request(tmp_path / "a", cells=(CELL,), hub=str(made.folder)))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("copgen.download.run.write_index", killed)
        fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=str(made.folder)))
    assert len(index_of(tmp_path / "a")) == 1
    assert fetched(Request(tmp_path / "a", cells=(CELL, EAST), hub=str(made.folder))).skipped == 2
    assert index_of(tmp_path / "a") == index_of(whole)


def test_one_run_at_a_time(made, tmp_path):
    with Archive(tmp_path / "a").locked(), pytest.raises(ValueError, match="a: another run writes to it; wait until it has ended"):
        fetched(Request(tmp_path / "a", cells=(CELL,), hub=str(made.folder)))


# --- land cover ---------------------------------------------------------------------------------------------------------------------

def test_land_cover_joins_the_cell(made, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    corner = index_of(whole)[1]
    raster(tmp_path / "map.tif", np.full((500, 500), 5, np.uint8), left=corner["left"] + 3000, top=corner["top"] - 3000, crs=corner["crs"])
    request = Request(tmp_path / "a", cells=(CELL, EAST), lulc=f"{tmp_path}/map.tif,year=2021", hub=str(made.folder))
    report = fetched(request)
    assert (report.complete, report.failures) == (1, 1) and report.failed["other"][0][0] == EAST         # the map doesn't show it
    east, west = index_of(tmp_path / "a")
    assert (west["lulc_id"], east["lulc_id"]) == (f"{CELL}_2021", None) and "map.tif" in west["lulc_from"]
    assert any(file["path"] == f"Core-LULC/618U/30L/{CELL}_2021.tif" for file in west["files"])
    assert (read_cell(tmp_path / "a", CELL, given=["LULC"])["lulc"] == 5).all()
    assert fetched(request).skipped == 1 and verify(tmp_path / "a") == (2, [])
    (tmp_path / f"a/Core-LULC/618U/30L/{CELL}_2021.tif").write_bytes(b"torn")
    assert fetched(request).complete == 1 and verify(tmp_path / "a") == (2, [])


# --- the rest -----------------------------------------------------------------------------------------------------------------------

def test_a_dry_run_fetches_no_image_and_estimates_their_bytes(grainy, tmp_path):
    request = Request(tmp_path / "a", bbox=(-180, -85, 180, 85), hub=str(grainy.folder))
    plan = fetched(request, dry_run=True)
    assert plan.cells == 4 and not files_of(tmp_path / "a") and "columns" not in plan.traffic["bytes_by_purpose"]
    report = fetched(request)
    assert plan.estimate == pytest.approx(report.traffic["bytes_of_wanted_columns"], rel=0.02)
    assert fetched(request, dry_run=True).estimate == 0


def test_metadata_are_fetched_once_and_go_on_where_they_broke_off(made, tmp_path, monkeypatch):
    from copgen.download import metadata

    monkeypatch.setattr(metadata, "PIECE", 1000)
    with serve(made.folder, Faults(script={4: "403", 5: "403", 6: "403"})) as server:
        request = Request(tmp_path / "a", cells=(CELL,), products=("DEM",), hub=server.url)
        size = (made.folder / "Core-DEM/metadata.parquet").stat().st_size
        with pytest.raises(ValueError, match="answered 403"):
            fetched(request)
        got = sum(one.sent for one in server.log if one.status == 206) - 1
        assert 0 < got < size
        server.faults = Faults()
        server.clear()
        fetched(request)
        assert sum(one.sent for one in server.log if "metadata" in one.path) == size - got + 1


def test_what_metadata_do_not_know_is_not_made_up(tmp_path):
    make_hub(tmp_path / "hub", passes=made_archive.PLAIN, troubles=False)
    for source in ("S2L2A", "S2L1C"):
        path = tmp_path / f"hub/Core-{source}/metadata.parquet"
        rows = [{**one, "cloud_cover": float("nan"), "nodata": None} for one in pq.read_table(path).to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    request = Request(tmp_path / "a", cells=(CELL,), hub=str(tmp_path / "hub"))
    assert fetched(request).left_out == {"no S2L2A that passes the filters": (CELL,)}
    assert fetched(request).code == 1            # what was asked for is not there
    assert fetched(replace(request, cloud_cover=None, nodata=None)).complete == 1
    assert index_of(tmp_path / "a")[0]["s2l2a_cloud_cover"] is None


def test_a_record_leads_nowhere_else(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    path = tmp_path / f"a/.copgen/records/618U/{CELL}.json"
    path.write_text(path.read_text().replace("Core-DEM/618U", "Core-DEM/../../618U"))
    with pytest.raises(ValueError, match=r"618U_30L\.json: is no record of a cell .* is no place in an archive"):
        verify(tmp_path / "a")


def test_reports_speak(made, tmp_path):
    report = fetched(Request(tmp_path / "a", cells=(CELL, "1U_1R"), hub=str(made.folder), connections=1))
    text = "\n".join(report.lines())
    assert "1 cells have all products: 1 fetched, 0 there already, 0 failed" in text and "left out, no S2L2A on the hub: 1 (1U_1R)" in text
    assert "requests" in text and report.notes and report.rows_left_out["S2L2A"]
    json.dumps(report.traffic)
    nowhere = fetched(Request(tmp_path / "a", bbox=(0, 0, 1, 1), hub=str(made.folder)))
    assert nowhere.code == 1 and any("knows no cell there" in line and "--bbox W,S,E,N" in line for line in nowhere.lines())


def test_cells_on_the_antimeridian_have_a_place_on_both_sides(tmp_path):
    from copgen.majortom.grid import cell_at

    cell = str(cell_at(-17.0, 179.999))
    make_hub(tmp_path / "hub", (cell,), passes=made_archive.PLAIN, troubles=False)
    fetched(Request(tmp_path / "a", bbox=(179.5, -18, -179.5, -16), products=("S2L2A",), hub=str(tmp_path / "hub")))
    (one,) = index_of(tmp_path / "a")
    shape = shapely.from_wkb(one["geometry"])
    assert one["cell"] == cell and shape.bounds[0] >= -180 and shape.bounds[2] <= 180
    assert sum(part.area for part in getattr(shape, "geoms", [shape])) * 111.2**2 * np.cos(np.radians(17)) == pytest.approx(114, rel=0.02)
