"""The made hub answers as a hub does, and fails as it is told to."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import requests
from hub_server import COMMIT, Faults, Hub, serve
from made_archive import BANDS, CELL, EAST, L2A, PASSES, REAL, Made, make_archive, make_hub

from copgen.majortom import read_cell
from copgen.modalities import TABLE

FILE = bytes(range(256)) * 40
FILES = "/files/images/some.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "some.bin").write_bytes(FILE)
    return tmp_path


def get(hub: Hub, path: str = FILES, **headers: str) -> requests.Response:
    return requests.get(hub.url + path, headers={key.replace("_", "-"): value for key, value in headers.items()}, timeout=5)


def test_ranges_are_those_of_the_file(folder: Path) -> None:
    with serve(folder) as hub:
        assert get(hub).content == FILE and get(hub).status_code == 200
        for span, part in (("0-9", FILE[:10]), ("300-", FILE[300:]), ("-7", FILE[-7:]), ("10000-99999", FILE[10000:])):
            answer = get(hub, Range=f"bytes={span}")
            assert answer.status_code == 206 and answer.content == part
            first = FILE.rfind(part) if span != "0-9" else 0
            assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(FILE)}"
        assert get(hub, Range="bytes=10240-").status_code == 416
        assert get(hub, "/files/../test_secret").status_code == get(hub, "/files/none").status_code == 404
        assert hub.requests == 9 and hub.by_path[FILES][0] == 7
        assert hub.bytes == sum(one.sent for one in hub.log) == 2 * len(FILE) + 10 + len(FILE) - 300 + 7 + len(FILE) - 10000 + 2 * 15


def test_what_is_the_same_is_not_sent_again(folder: Path) -> None:
    with serve(folder) as hub:
        head = requests.head(hub.url + FILES, timeout=5)
        etag = head.headers["ETag"]
        assert head.headers["Content-Length"] == str(len(FILE)) and not head.content
        same = get(hub, If_None_Match=etag)
        assert same.status_code == 304 and not same.content
        assert get(hub, If_Match='"other"').status_code == 412 and get(hub, If_Match=etag, Range="bytes=0-1").status_code == 206
        assert get(hub, If_Range='"other"', Range="bytes=0-1").status_code == 200
        (folder / "images" / "some.bin").write_bytes(FILE[::-1])
        assert get(hub, If_None_Match=etag).content == FILE[::-1]


def test_the_token_is_for_the_hub_and_files_come_from_elsewhere(folder: Path) -> None:
    (folder / "Core-DEM" / "images").mkdir(parents=True)
    (folder / "Core-DEM" / "images" / "part.parquet").write_bytes(FILE)
    path = "/datasets/Major-TOM/Core-DEM/resolve/main/images/part.parquet"
    with serve(folder, token="secret", redirects=True) as hub:
        assert get(hub, path).status_code == 401
        answer = get(hub, path, Authorization="Bearer secret", Range="bytes=5-9")
        assert answer.content == FILE[5:10] and answer.url.startswith(hub.content_url)
        away, there = hub.log[-2:]
        assert (away.status, away.at_content, away.headers["Authorization"]) == (302, False, "Bearer secret")
        assert (there.status, there.at_content) == (206, True) and "Authorization" not in there.headers
        assert answer.history[0].headers["X-Repo-Commit"] == COMMIT
        assert answer.history[0].headers["X-Linked-Size"] == str(len(FILE))


def seen(hub: Hub) -> str:
    """What a careless client makes of one answer."""
    try:
        answer = get(hub, Range="bytes=100-199")
    except requests.RequestException as error:
        return "reset" if "reset" in str(error).lower() or "aborted" in str(error).lower() else "broken"
    span = answer.headers.get("Content-Range", "")
    return f"{answer.status_code} {len(answer.content)} {span.partition('/')[0]} {answer.content == FILE[100:200]}"


@pytest.mark.parametrize(("kind", "expected"), [
    ("reset", "reset"), ("reset_midway", "reset"), ("429", "429 16  False"), ("503", "503 16  False"), ("500", "500 16  False"),
    ("403", "403 16  False"), ("truncated", "broken"), ("short", "206 50 bytes 100-149 False"), ("long", "206 107 bytes 100-206 False"),
    ("shifted", "206 100 bytes 99-198 False"), ("whole", "200 10240  False"), ("flipped", "206 100 bytes 100-199 False"),
    ("page", "200 52  False"), ("slow", "206 100 bytes 100-199 True"),
])
def test_every_fault_is_what_it_is_called_and_the_next_answer_is_right(folder: Path, kind: str, expected: str) -> None:
    with serve(folder, Faults(script={2: kind}, retry_after="3")) as hub:
        right = "206 100 bytes 100-199 True"
        assert seen(hub) == right
        got = seen(hub)
        assert got == expected or (kind == "reset_midway" and got == "broken")
        assert seen(hub) == right and hub.injected == {kind: 1}


def test_a_slow_down_says_when_to_come_again(folder: Path) -> None:
    with serve(folder, Faults(script={1: "429", 2: "503"}, retry_after="7")) as hub:
        assert get(hub).headers["Retry-After"] == "7" == get(hub).headers["Retry-After"]


def test_chance_is_the_same_in_any_order_and_ends(folder: Path) -> None:
    def run(order: list[int], threads: int) -> dict[str, Counter[str]]:
        faults = Faults(rates={"503": 0.3, "429": 0.3}, seed=5, again=2)
        with serve(folder, faults) as hub:
            def ask(some: list[int]) -> None:
                for k in some:
                    while get(hub, Range=f"bytes={k}-{k + 9}").status_code != 206:
                        pass
            workers = [threading.Thread(target=ask, args=(order[k::threads],)) for k in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert max(Counter(one.range for one in hub.log).values()) <= 3
            return {span: Counter(one.fault for one in hub.log if one.range == span) for span in {one.range for one in hub.log}}

    once = run(list(range(30)), 1)
    assert once == run(list(range(29, -1, -1)), 3)
    injected = sum(count for counts in once.values() for fault, count in counts.items() if fault)
    assert 15 < injected < 60


def test_a_file_changes_under_its_reader(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "new.bin"
    other.write_bytes(FILE[:100])
    with serve(folder, Faults(changes={"some.bin": (2, other)})) as hub:
        first, second, third = get(hub), get(hub), get(hub, Range="bytes=0-9")
        assert first.content == second.content == FILE and first.headers["ETag"] == second.headers["ETag"]
        assert third.headers["Content-Range"] == "bytes 0-9/100" and third.headers["ETag"] != first.headers["ETag"]


def test_a_connection_is_kept_for_many_requests(folder: Path) -> None:
    with serve(folder) as hub:
        connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=5)
        for k in range(5):
            connection.request("GET", FILES, headers={"Range": f"bytes={k}-{k}"})
            assert connection.getresponse().read() == FILE[k:k + 1]
        connection.close()


def test_faults_that_there_are_not_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="there are reset"), serve(folder, Faults(rates={"fire": 1.0})):
        pass


# --- the parquet files in it --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_hub(tmp_path_factory.mktemp("hub"), (CELL, EAST))


def test_every_product_is_one_row_group(made: Made) -> None:
    assert made.products
    for one in made.products:
        file = pq.ParquetFile(made.folder / f"Core-{one.source}" / one.file)
        assert file.num_row_groups == file.metadata.num_rows
        row = file.read_row_group(one.row).to_pylist()[0]
        assert row["grid_cell"] == one.cell and (one.source == "DEM" or row["product_id"] == one.id)
        assert {band: row[band] for band in BANDS[one.source]} == one.bands


def test_the_metadata_hold_every_product_and_the_known_troubles(made: Made) -> None:
    for source in BANDS:
        rows = pq.read_table(made.folder / f"Core-{source}" / "metadata.parquet").to_pylist()
        true = [one for one in made.products if one.source == source]
        assert len(rows) == len(true) + (3 if source.startswith("S2") else 2)
        assert sum("EPSG:EPSG:" in row["crs"] for row in rows) == 1
        places = Counter((row["grid_cell"], row.get("product_id", "id"), row["parquet_url"][-12:], row["parquet_row"]) for row in rows)
        for one in true:
            assert places.pop((one.cell, one.id, one.file[-12:], one.row)) >= 1
        assert len(places) == 1                  # only the one that points to another product's row is left


# --- and on disk --------------------------------------------------------------------------------------------------------------------

def test_an_archive_holds_the_same_files_as_the_parquet(made: Made, tmp_path: Path) -> None:
    for one in make_archive(tmp_path, (CELL,), passes=PASSES).products:
        folder = tmp_path / f"Core-{one.source}" / "618U" / CELL / one.id
        (same,) = [other for other in made.products if (other.source, other.cell, other.id) == (one.source, CELL, one.id)]
        assert same.bands == one.bands == {band: (folder / f"{band}.tif").read_bytes() for band in one.bands}
    assert len(read_cell(tmp_path, CELL, given=TABLE.images).layers) == 12


@pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning")
def test_a_real_cell_is_real_in_its_middle(samples: Path, tmp_path: Path) -> None:
    make_archive(tmp_path, REAL, content="real", samples=samples)
    for cell in REAL:
        scene = read_cell(tmp_path, cell, given=TABLE.images)
        assert scene.footprint is not None and len(scene.layers) == 12
        file = next((samples / "S2L2A").glob(f"{cell}_*.tif"))
        with rasterio.open(file) as dataset:
            stack, left, top = dataset.read(), dataset.transform.c, dataset.transform.f
        assert abs(scene.footprint.left - left - 120) < 1 and abs(scene.footprint.top - top + 120) < 1
        for name in ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m"):
            factor = (TABLE[name].resolution or 0) // 10
            for k, band in enumerate(TABLE[name].bands):
                repeated = scene[name][k].repeat(factor, 0).repeat(factor, 1)
                assert np.array_equal(repeated, stack[L2A.index(band), 12:204, 12:204])
