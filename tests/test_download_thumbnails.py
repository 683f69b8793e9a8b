"""Thumbnails come without their bands at a fraction of the bytes; bands and thumbnails come to each other later, and none is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import serve
from made_archive import BANDS, CELL, EAST, PLAIN, Made, make_hub
from typer.testing import CliRunner

from copgen.cli import app
from copgen.download import Request, download, verify
from copgen.download.report import Report
from copgen.download.traffic import Patience
from copgen.majortom.cells import cells, nominal_ground

QUICK = Patience(tries=6, first=0.002, longest=0.01, obeyed=0.01)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_hub(tmp_path_factory.mktemp("made") / "hub", (CELL, EAST), passes=PLAIN, content="grain", troubles=False)


def fetched(out: Path, made: Made, **asked: object) -> Report:
    return download(Request(out, cells=(CELL, EAST), hub=str(made.folder), **asked), patience=QUICK)            # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bands and thumbnails, fetched together; read it, don't write to it."""
    out = tmp_path_factory.mktemp("whole") / "archive"
    assert fetched(out, made).complete == 2
    return out


def files_of(root: Path) -> dict[str, bytes]:
    """What is visible of an archive, but for its index, which says how each file came."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and ".copgen" not in path.parts and path.name != "index.parquet"}


def corners(root: Path) -> list[tuple[str, float, float]]:
    return [(one["crs"], one["left"], one["top"]) for one in pq.read_table(root / "index.parquet").to_pylist()]


def test_only_thumbnails_take_only_their_bytes(made: Made, whole: Path, tmp_path: Path) -> None:
    with serve(made.folder) as server:
        report = download(Request(tmp_path / "a", cells=(CELL, EAST), hub=server.url, bands=False), patience=QUICK)
    files = files_of(tmp_path / "a")
    assert report.code == 0 and files == {name: data for name, data in files_of(whole).items() if name.endswith("thumbnail.png")}
    assert len(files) == 2 * len(BANDS) and report.traffic["bytes_of_wanted_columns"] < 0.02 * sum(map(len, files_of(whole).values()))
    assert cells(tmp_path / "a") == [EAST, CELL] and verify(tmp_path / "a") == (2, [])
    squares = [nominal_ground(cell) for cell in (EAST, CELL)]
    assert corners(tmp_path / "a") == [(square.crs.to_string(), square.left, square.top) for square in squares]
    again = fetched(tmp_path / "a", made, bands=False)
    assert (again.complete, again.skipped) == (0, 2)


def test_bands_come_to_thumbnails_and_thumbnails_to_bands(made: Made, whole: Path, tmp_path: Path) -> None:
    for name, first, second in (("a", {"bands": False}, {}), ("b", {"thumbnails": False}, {"bands": False})):
        fetched(tmp_path / name, made, **first)
        assert files_of(tmp_path / name) != files_of(whole)
        report = fetched(tmp_path / name, made, **second)
        assert (report.complete, report.code) == (2, 0) and files_of(tmp_path / name) == files_of(whole)
        assert verify(tmp_path / name) == (2, []) and corners(tmp_path / name) == corners(whole)
        assert fetched(tmp_path / name, made).skipped == fetched(tmp_path / name, made, bands=False).skipped == 2


def test_thumbnails_that_are_fetched_do_not_cost_bands(made: Made, whole: Path, tmp_path: Path) -> None:
    """One band broken and one thumbnail gone: only the thumbnail is asked for, and the bands that are whole stay."""
    out = Path(shutil.copytree(whole, tmp_path / "a"))
    broken, gone = (next(out.glob(f"Core-S2L2A/618U/{CELL}/*/{name}")) for name in ("B04.tif", "thumbnail.png"))
    broken.write_bytes(bytes(broken.stat().st_size))                 # which only its hash tells
    gone.unlink()
    assert fetched(out, made, bands=False).complete == 1 and gone.is_file()
    assert {*files_of(whole)} - {*files_of(out)} == {str(broken.relative_to(out))}
    assert fetched(out, made).complete == 1 and files_of(out) == files_of(whole) and verify(out) == (2, [])


def test_a_row_without_a_thumbnail_is_told_and_stops_no_other(made: Made, tmp_path: Path) -> None:
    hub = Path(shutil.copytree(made.folder, tmp_path / "hub"))
    path = next((hub / "Core-DEM" / "images").glob("*.parquet"))
    table = pq.read_table(path)
    rows = [{**row, "thumbnail": None if row["grid_cell"] == CELL else row["thumbnail"]} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path, row_group_size=1)
    report = download(Request(tmp_path / "a", cells=(CELL, EAST), hub=str(hub), bands=False), patience=QUICK)
    assert (report.complete, report.failures, report.code) == (1, 1, 1)
    assert "has no thumbnail" in report.failed["an image can't be read"][0][1]
    assert cells(tmp_path / "a") == [EAST]
    report = download(Request(tmp_path / "b", cells=(CELL,), hub=str(hub)), patience=QUICK)      # with bands it is none of their matter
    assert report.code == 0 and not list((tmp_path / "b").glob("Core-DEM/618U/*/*/thumbnail.png"))
    assert download(Request(tmp_path / "b", cells=(CELL,), hub=str(hub)), patience=QUICK).skipped == 1


@pytest.mark.parametrize(("words", "said"), [
    (["--no-thumbnails"], "--only-thumbnails and --no-thumbnails: nothing is left"),
    (["--lulc", "map.tif,year=2021"], "--only-thumbnails and --lulc"),
])
def test_what_contradicts_itself_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["download", "--cells", CELL, "--out", f"{tmp_path}/a", "--only-thumbnails", *words])
    assert isinstance(done.exception, ValueError) and said in str(done.exception) and not (tmp_path / "a").exists()


def test_the_command_says_what_it_would_take(made: Made, tmp_path: Path) -> None:
    sizes = []
    for words in ([], ["--only-thumbnails"]):
        done = CliRunner().invoke(app, ["download", "--cells", CELL, "--hub", str(made.folder), "--out", f"{tmp_path}/a", "--dry-run",
                                        *words])
        assert done.exit_code == 0, done.output
        sizes.append(float(done.output.partition("takes about ")[2].split()[0]))
    assert 0 <= sizes[1] < 0.02 * sizes[0]
