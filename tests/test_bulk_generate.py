"""Samples of many cells are those of each alone, whoever draws them; what is there is kept, what is refused is told."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from made_archive import CELL, EAST, SOUTH, make_archive

from copgen import job as jobs
from copgen.bulk.generate import Bulk, Report, Square, generate, squares_of
from copgen.files import held
from copgen.job import Job
from copgen.modalities import TABLE

pytestmark = pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning")
CELLS = (CELL, EAST, SOUTH)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cells with everything."""
    return make_archive(tmp_path_factory.mktemp("bulk") / "archive", CELLS).folder


@pytest.fixture
def job(archive: Path, tiny_model: Path, tmp_path: Path) -> Job:
    """One network call a sample, and only the wanted row drawn."""
    return Job(tmp_path / "out", model=str(tiny_model), archive=archive, given="DEM,LULC", want="S2L2A_60m,S1RTC", seed=5, steps=1,
               absent="drop", device="cpu")


def files(folder: Path) -> dict[str, bytes]:
    """Every file but the records, which say when and by what command."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def record(folder: Path, cell: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / cell / "run.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def drawn(job: Job, **settings: Any) -> Report:
    return generate(Bulk(job, **settings))


def test_each_cell_is_the_job_that_it_would_be_alone(job: Job, tmp_path: Path) -> None:
    report = drawn(replace(job, samples=2))
    assert (report.squares, report.kept, report.drawn, report.refused) == (3, 0, 3, {})
    for cell in CELLS:
        jobs.run(replace(job, samples=2, cell=cell, out=tmp_path / "alone"))
        assert record(job.out, cell) == record(tmp_path / "alone", cell)
    assert files(job.out) == {**files(tmp_path / "alone"), "failed.jsonl": b""}
    samples = [(job.out / CELL / f"sample-00{k}" / "S2L2A_60m.tif").read_bytes() for k in range(2)]
    assert samples[0] != samples[1] and not (job.out / CELL / "sample-002").exists()


def test_samples_depend_neither_on_the_workers_nor_on_the_order(job: Job, tmp_path: Path) -> None:
    drawn(job, cells=CELLS)
    drawn(replace(job, out=tmp_path / "other"), cells=CELLS[::-1], workers=2)
    assert files(job.out) == files(tmp_path / "other") and len(files(job.out)) == 3 * 3 + 1
    assert all(record(job.out, cell) == record(tmp_path / "other", cell) for cell in CELLS)


def test_what_is_finished_is_kept_and_what_is_half_done_is_done_again(job: Job) -> None:
    drawn(job)
    before, folder = files(job.out), job.out / EAST
    (folder / "run.json").unlink()
    (folder / "sample-000" / "S1RTC.tif").write_bytes(b"half")
    (folder / "sample-000" / ".S1RTC.tif.77.part").write_bytes(b"left by a worker that was killed")
    times = {cell: (job.out / cell / "run.json").stat().st_mtime_ns for cell in (CELL, SOUTH)}
    calls: list[tuple[int, int]] = []
    report = generate(Bulk(job), progress=lambda *counts: calls.append(counts))
    assert (report.squares, report.kept, report.drawn) == (3, 2, 1) and calls == [(3, 3)]
    assert files(job.out) == before
    assert times == {cell: (job.out / cell / "run.json").stat().st_mtime_ns for cell in (CELL, SOUTH)}
    (folder / "run.json").write_bytes((folder / "run.json").read_bytes()[:100])
    assert drawn(job).drawn == 1 and record(job.out, EAST)["scene"] == EAST
    (folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"{EAST}/run\.json: is there already, and does not say what drew it"):
        drawn(job)


@pytest.mark.parametrize(("change", "says"), [
    ({"seed": 6}, "drawn with seed 5, not 6"), ({"samples": 2}, "drawn with samples 1, not 2"),
    ({"given": "DEM"}, "drawn with given DEM,LULC"), ({"reuse": 2}, "drawn with reuse 1, not 2"),
])
def test_samples_of_another_request_are_not_taken_for_this_ones(job: Job, change: dict[str, Any], says: str) -> None:
    drawn(job, cells=(CELL,))
    with pytest.raises(ValueError, match=re.escape(says)):
        drawn(replace(job, **change), cells=(CELL,))
    report = drawn(replace(job, **change, overwrite=True), cells=(CELL,))
    assert (report.kept, report.drawn) == (0, 1) and drawn(replace(job, **change), cells=(CELL,)).kept == 1


def test_what_only_the_samples_that_are_there_were_asked_for_is_named(job: Job) -> None:
    drawn(replace(job, reuse=2), cells=(CELL,))
    with pytest.raises(ValueError, match="drawn with reuse 2, not 1"):
        drawn(job, cells=(CELL,))


def test_samples_of_other_weights_are_not_taken_for_these(job: Job, tiny_model: Path, tmp_path: Path) -> None:
    drawn(job, cells=(CELL,))
    model = shutil.copytree(tiny_model, tmp_path / "model")
    assert drawn(replace(job, model=str(model)), cells=(CELL,)).kept == 1           # the same weights somewhere else
    shutil.copy(model / "vae" / "s2l1c_60m" / "codec.safetensors", tmp_path / "spare")
    (model / "vae" / "s2l1c_60m" / "codec.safetensors").write_bytes(b"not needed here")
    assert drawn(replace(job, model=str(model)), cells=(CELL,)).kept == 1
    with (model / "backbone.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="drawn with other weights"):
        drawn(replace(job, model=str(model)), cells=(CELL,))


def test_what_is_refused_is_told_and_does_not_stop_the_others(job: Job, archive: Path, tmp_path: Path) -> None:
    root = shutil.copytree(archive, tmp_path / "archive")
    shutil.rmtree(root / "Core-LULC" / EAST.partition("_")[0] / EAST.partition("_")[2])
    height = root / "Core-DEM" / SOUTH.partition("_")[0] / SOUTH / "id" / "DEM.tif"
    with rasterio.open(height, "r+") as file:
        file.nodata = -32768
        file.write(np.full((1, file.height, file.width), -32768, file.dtypes[0]))
    cells = (CELL, EAST, "1U_1R", SOUTH)
    report = drawn(replace(job, archive=root), cells=cells)
    assert (report.squares, report.drawn, dict(report.refused)) == (4, 1, {"not there": 1, "no product": 1, "no data": 1})
    lines = [json.loads(line) for line in report.failed.read_text().splitlines()]
    assert [(line["cell"], line["patch"], line["reason"]) for line in lines] == [
        ("1U_1R", None, "not there"), (SOUTH, None, "no data"), (EAST, None, "no product")]
    assert "LULC" in lines[2]["detail"] and "100.00%" in lines[1]["detail"] and str(root) not in report.failed.read_text()
    assert sorted(path.name for path in job.out.iterdir()) == [CELL, "failed.jsonl"]
    shutil.copytree(archive, root, dirs_exist_ok=True)
    report = drawn(replace(job, archive=root), cells=cells)                          # as after a download
    assert (report.kept, report.drawn, dict(report.refused)) == (1, 2, {"not there": 1}) and report.failed.read_text().count("\n") == 1


def test_what_is_suspicious_in_many_cells_is_told_once_with_a_count(job: Job, archive: Path, tmp_path: Path) -> None:
    root = shutil.copytree(archive, tmp_path / "archive")
    for k, cell in enumerate((CELL, EAST)):
        cirrus, = (root / "Core-S2L1C").glob(f"*/{cell}/*/B10.tif")
        with rasterio.open(cirrus, "r+") as file:
            file.write(file.read() + np.uint16(1000 + k))
    report = drawn(replace(job, archive=root, given="S2L1C", want="DEM"), cells=(CELL, EAST))
    (text, count), = report.warned.items()
    assert text.startswith("the offset of 1000 of processing baseline 04.00 seems to be still there") and count == report.drawn == 2


def test_a_cell_can_be_drawn_patch_by_patch(job: Job, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{CELL}_{i}_{j}" for i in range(6) for j in range(6)]
    assert [str(one) for one in squares_of(archive, Bulk(job, (CELL,), "all"), TABLE)] == names
    monkeypatch.setattr("copgen.bulk.generate.patches_a_side", lambda _: 2)          # the rest would take as long again, eight times
    assert drawn(job, cells=(CELL,), patches="all").drawn == 4
    assert sorted(path.name for path in job.out.iterdir() if path.is_dir()) == [f"{CELL}_{i}_{j}" for i in (0, 1) for j in (0, 1)]
    jobs.run(replace(job, cell=CELL, patch=(1, 0), out=tmp_path / "alone"))
    assert files(job.out / f"{CELL}_1_0") == files(tmp_path / "alone" / f"{CELL}_1_0")


def test_what_cannot_be_written_stops_the_run(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes, calls = jobs.write_all.__globals__["write_bytes"], []

    def full(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) > 5 and path.parent != job.out:
            raise OSError(28, "No space left on device")
        write_bytes(path, data)

    monkeypatch.setattr("copgen.files.write_bytes", full)
    with pytest.raises(ValueError, match=r"(?s)^618U_29L: .*No space left on device.*free some space"):
        drawn(job, cells=CELLS)
    monkeypatch.undo()
    report = drawn(job, cells=CELLS)
    assert (report.kept, report.drawn) == (1, 2)


def test_a_folder_has_one_run_at_a_time(job: Job) -> None:
    """Another would take what a worker is writing for what a killed one left."""
    with held(job.out):
        with pytest.raises(ValueError, match="out: another run writes to it; wait until it has ended"):
            drawn(job, cells=(CELL,))
        assert list(job.out.iterdir()) == []
    assert not job.out.exists()                  # it was made for nothing
    assert drawn(job, cells=(CELL,)).drawn == 1


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"address": "127.0.0.1:1"}, {"engine": "spark"}])
def test_a_run_that_draws_nothing_leaves_the_word_of_the_one_before(job: Job, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"workers|engine"):
        drawn(job, cells=(CELL,), **wrong)
    assert not job.out.exists()
    assert drawn(job, cells=("0U_0R",)).refused == {"not there": 1}
    before = files(job.out)
    with pytest.raises(ValueError, match=r"workers|engine"):
        drawn(job, cells=("0U_0R",), **wrong)
    assert files(job.out) == before and b"not there" in before["failed.jsonl"]


@pytest.mark.parametrize(("change", "cells", "says"), [
    ({"archive": None}, (), "need --archive"), ({"cell": CELL}, (), "neither --cell"), ({"patch": (0, 0)}, (), "use --patches"),
    ({"archive": Path("nowhere")}, (), "is no folder"), ({"given": "date"}, (), "no layer with pixels"),
    ({"want": "DEM"}, (), "both given"), ({"given": None}, (), "needs --given"), ({"samples": 0}, (), "--samples 0"),
    ({"want": "S2L2B"}, (), "S2L2B"), ({}, ("london",), "cell 'london'"), ({}, (), "no cell is named"),
    ({"place": "1,2", "want": "place"}, (), "both given"), ({"model": "no-such"}, (), "no-such"),
])
def test_what_is_wrong_everywhere_is_refused_before_anything_is_written(
        job: Job, change: dict[str, Any], cells: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        drawn(replace(job, **change), cells=cells)
    assert not job.out.exists()


def test_an_archive_without_cells_says_so(job: Job, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no cells"):
        drawn(replace(job, archive=tmp_path / "empty"))


def test_a_damaged_codec_is_refused_before_drawing(job: Job, tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "vae" / "s1rtc" / "codec.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^[^\n]*s1rtc/codec\.safetensors: is missing, damaged"):
        drawn(replace(job, model=str(model)))


def test_a_square_is_called_as_its_scene_is() -> None:
    assert [str(Square(CELL)), str(Square(CELL, (5, 0)))] == [CELL, f"{CELL}_5_0"]


def test_thumbnails_of_every_patch_lie_where_the_patches_are(archive: Path, tiny_thumbnails: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "out", model=str(tiny_thumbnails), archive=archive, given="DEM", want="S1RTC", steps=1, absent="drop",
              device="cpu")
    report = drawn(job, cells=(CELL,), patches="all")
    assert (report.squares, report.drawn, report.refused) == (16, 16, {})
    with rasterio.open(next((archive / "Core-S2L2A").rglob(f"{CELL}/*/B04.tif"))) as file:
        whole, crs = file.transform, file.crs
    for i in range(4):
        for j in range(4):
            with rasterio.open(job.out / f"{CELL}_{i}_{j}" / "sample-000" / "S1RTC_thumbnail.tif") as file:
                assert file.crs == crs and file.transform == whole @ whole.translation(22 + 256 * j, 22 + 256 * i)    # of the middle 1024
    alone = jobs.run(replace(job, cell=CELL, patch=(2, 1), out=tmp_path / "alone"))
    assert files(alone.folder) == files(job.out / f"{CELL}_2_1")
    middle = jobs.run(replace(job, cell=CELL, out=tmp_path / "middle"))
    assert middle.given.footprint is not None and middle.given.footprint.transform(10) == whole @ whole.translation(406, 406)
