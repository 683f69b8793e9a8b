"""What a job is asked for, and what follows from it: seeds, what is given, what is wanted, what is refused first, what is recorded."""

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
from rasterio.crs import CRS

from copgen.job import Job, check_settings, given_scene, run, stated, wanted_rows
from copgen.modalities import TABLE
from copgen.scene import Footprint, Scene

HERE = Footprint(CRS.from_epsg(32630), 500_070, 6_199_950)


def test_sample_k_has_the_first_seed_plus_k() -> None:
    assert Job(Path("out"), seed=7, samples=3).seeds == [7, 8, 9]
    assert Job(Path("out")).seeds == [0]


@pytest.mark.parametrize(("settings", "says"), [
    ({"samples": 0}, "--samples 0"), ({"steps": 0}, "--steps 0"), ({"seed": -1}, "seed -1"), ({"solver": "rk4"}, "--solver rk4"),
    ({"place": "91,0"}, "latitude"), ({"place": "0,181"}, "longitude"), ({"place": "nan,0"}, "finite"), ({"place": "1,2,3"}, "LAT,LON"),
    ({"date": "2021-02-29"}, "2021-02-29"), ({"date": "1949-12-31"}, "1950-01-01"), ({"date": "23.7.2021"}, "YYYY-MM-DD"),
    ({"want": ""}, "--want"), ({"want": " , "}, "--want"), ({"window": (1.0, 2.0)}, "--window"),
    ({"archive": Path("a")}, "--cell"), ({"cell": "618U_30L"}, "--archive"), ({"given": "DEM"}, "--given"), ({"patch": (0, 0)}, "--patch"),
    ({"archive": Path("a"), "cell": "618U_30L"}, "--given"),
    ({"archive": Path("a"), "cell": "618U_30L", "given": "DEM", "inputs": ("DEM=x",)}, "--input and --archive"),
])
def test_settings_are_refused_before_any_file_is_opened(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        check_settings(replace(Job(Path("out")), **settings))


def test_good_settings_pass() -> None:
    check_settings(Job(Path("out"), place="-90,180", date="2020-02-29", samples=100, seed=2**70, steps=1, solver="published"))
    check_settings(Job(Path("out"), place="none", date="none"))
    check_settings(Job(Path("out"), archive=Path("a"), cell="618U_30L", given="DEM", patch=(0, 0)))


def test_what_is_stated_wins_over_the_files_and_what_is_wanted_is_not_given() -> None:
    assert stated("date", None, (), TABLE) is None                          # what the files say
    assert stated("date", "2021-07-23", (), TABLE) == "2021-07-23"
    assert stated("date", None, ("date",), TABLE) == stated("date", "none", ("date",), TABLE) == stated("date", "none", (), TABLE) == "none"
    with pytest.raises(ValueError, match="both given"):
        stated("date", "2021-07-23", ("date",), TABLE)
    images = TABLE.subset(TABLE.images)
    assert stated("date", None, (), images) is None
    with pytest.raises(ValueError, match="no row date"):
        stated("date", "2021-07-23", (), images)


def test_the_given_layers_are_those_of_the_files_and_the_place(dem: Path) -> None:
    job = Job(Path("out"), inputs=(f"DEM={dem}",), date="2021-07-23")
    scene = given_scene(job, TABLE)
    assert tuple(scene.layers) == ("place", "date", "dem") and scene.name == "hill"
    assert scene["place"] == pytest.approx(HERE.centre) and str(scene["date"][0]) == "2021-07-23"
    assert scene.footprint is not None and scene.footprint.bounds == HERE.bounds
    assert tuple(given_scene(replace(job, want="place,LULC"), TABLE).layers) == ("date", "dem")
    assert tuple(given_scene(replace(job, place="none", date="none"), TABLE).layers) == ("dem",)
    assert given_scene(replace(job, place="10,20"), TABLE)["place"].tolist() == [10, 20]
    assert tuple(given_scene(job, TABLE.subset(["date", "dem"])).layers) == ("date", "dem")


def test_nothing_given_is_an_empty_scene() -> None:
    scene = given_scene(Job(Path("out")), TABLE)
    assert not scene.layers and scene.footprint is None and scene.table == TABLE
    assert tuple(given_scene(Job(Path("out"), place="1,2", date="2021-07-23"), TABLE).layers) == ("place", "date")


def test_a_constant_layer_fills_the_square_beside_what_files_give(dem: Path) -> None:
    alone = given_scene(Job(out=Path("out"), constants=("LULC=trees",), place="10,20"), TABLE)
    assert alone.name == "place-LULC-trees" and alone.footprint is None and list(alone.layers) == ["place", "lulc"]
    assert (alone["lulc"] == 2).all() and alone["lulc"].shape == (1, 192, 192)
    beside = given_scene(Job(out=Path("out"), inputs=(f"DEM={dem}",), constants=("LULC=9",)), TABLE)
    assert beside.footprint is not None and (beside["lulc"] == 9).all() and "dem" in beside
    optical = given_scene(Job(out=Path("out"), constants=("S2L2A=1200",)), TABLE)
    assert [optical[row].shape[0] for row in optical.layers] == [4, 6, 2] and all((optical[row] == 1200).all() for row in optical.layers)


@pytest.mark.parametrize(("constant", "says"), [
    ("LULC=tree", r"lulc takes one of no data \(0\), water \(1\), trees \(2\)"), ("LULC=3", "takes one of"), ("DEM=high", "a number in m"),
    ("DEM=nan", "a number in m"), ("DEM=1e40", "a number in m"), ("=3", "takes PRODUCT=VALUE"),
    ("mean_timestamps=1", "takes PRODUCT=VALUE"), ("DEM", "takes PRODUCT=VALUE"), ("place=1", "takes PRODUCT=VALUE"), ("XYZ=1", "XYZ"),
])
def test_a_constant_that_means_nothing_is_refused(constant: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        given_scene(Job(out=Path("out"), constants=(constant,)), TABLE)


@pytest.mark.parametrize("constants", [("LULC=trees", "LULC=water"), ("S2L2A=900", "s2l2a_10m=800")])
def test_two_constants_of_one_layer_are_refused(constants: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="a layer is named twice; leave one of the two out"):
        given_scene(Job(Path("out"), constants=constants), TABLE)


def test_a_constant_is_not_given_twice(dem: Path) -> None:
    with pytest.raises(ValueError, match="dem is given by a file, too"):
        given_scene(Job(out=Path("out"), inputs=(f"DEM={dem}",), constants=("DEM=250",)), TABLE)


def test_wanted_is_what_is_named_or_all_that_is_not_given() -> None:
    scene = Scene({"dem": np.ones((1, 64, 64))})
    assert wanted_rows(Job(Path("out")), scene, TABLE) == tuple(row for row in TABLE.names if row != "dem")
    assert wanted_rows(Job(Path("out")), Scene(), TABLE) == TABLE.names
    assert wanted_rows(Job(Path("out"), want="S2L2A_B01_B09,S1RTC,date,s1rtc"), scene, TABLE) == ("date", "s1rtc", "s2l2a_60m")
    with pytest.raises(ValueError, match=r"^dem: both given and wanted"):
        wanted_rows(Job(Path("out"), want="DEM,LULC"), scene, TABLE)
    with pytest.raises(ValueError, match="every row is given"):
        wanted_rows(Job(Path("out")), scene, TABLE.subset(["dem"]))


def test_a_run_reports_its_calls_and_leaves_what_it_returns(dem: Path, tiny_model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[tuple[int, int, int, int]] = []
    job = Job(tmp_path, model=str(tiny_model), inputs=(f"DEM={dem}",), want="date,s2l2a_60m", samples=2, seed=3, steps=4)
    result = run(job, progress=lambda *counts: seen.append(counts), say=said.append)
    assert said == ["given: place, dem; wanted: date, s2l2a_60m"]
    assert seen[-1] == (8, 8, 2, 2) and [counts[0] for counts in seen] == sorted(counts[0] for counts in seen)
    assert result.folder == tmp_path / "hill" and result.sheet.is_file() and [path.name for path in result.samples] == [
        "sample-000", "sample-001"]
    assert json.loads((result.folder / "run.json").read_text()) == json.loads(json.dumps(result.record))
    for folder, scene in zip(result.samples, result.scenes, strict=True):
        with rasterio.open(folder / "S2L2A_60m.tif") as file:
            assert np.abs(file.read() - np.clip(scene["s2l2a_60m"], 1, 65535)).max() <= 0.5


def test_the_same_job_gives_the_same_record_but_for_its_time(dem: Path, tiny_model: Path, tmp_path: Path) -> None:
    records = []
    for k in range(2):
        job = Job(tmp_path / str(k), model=str(tiny_model), inputs=(f"DEM={dem}",), want="date", steps=1, absent="drop")
        records.append({key: value for key, value in run(job).record.items() if key != "seconds"})
    assert records[0] == records[1] and records[0]["absent"] == "drop" and records[0]["codecs"].keys() == {"dem"}
    assert (tmp_path / "0/hill/sample-000/place_and_date.geojson").read_bytes() == (
        tmp_path / "1/hill/sample-000/place_and_date.geojson").read_bytes()


def test_a_damaged_codec_is_refused_before_drawing(dem: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "vae" / "s1rtc" / "codec.safetensors").write_bytes(b"")
    monkeypatch.setattr("copgen.model.CopGen.generate", lambda *_, **__: pytest.fail("it began to draw"))
    with pytest.raises(ValueError, match=r"s1rtc/codec\.safetensors: is missing, damaged"):
        run(Job(tmp_path / "out", model=str(model), inputs=(f"DEM={dem}",), want="S1RTC"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_writing_fails(dem: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no sheet today")

    monkeypatch.setattr("copgen.job.contact_sheet", fails)
    with pytest.raises(RuntimeError):
        run(Job(tmp_path / "out", model=str(tiny_model), inputs=(f"DEM={dem}",), want="date", steps=1))
    assert not (tmp_path / "out").exists()
