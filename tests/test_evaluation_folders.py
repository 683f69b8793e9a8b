"""Samples come back from files as they were drawn, up to the files' own rounding, whoever wrote them; what is not whole is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from made_archive import CELL, geotiff, make_archive
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin

from copgen import job as jobs
from copgen.evaluation.cases import open_cases
from copgen.evaluation.folders import as_ensemble, open_folder
from copgen.evaluation.generators import Generator, open_generator
from copgen.evaluation.kept import Ensemble
from copgen.evaluation.recipe import Condition
from copgen.evaluation.statistics import statistics
from copgen.evaluation.worker import with_others
from copgen.job import Job
from copgen.modalities import LULC_LEGEND, TABLE
from copgen.reading import CopgenWarning
from copgen.scene import Footprint, Scene

pytestmark = [pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning"),
              pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
              pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]          # rasterio's own
GIVEN = ("place", "date", "dem", "lulc")
WANT = tuple(row for row in TABLE.names if row not in GIVEN)


def made_scene(name: str = CELL, seed: int = 0, left: float = 500_000.0, top: float = 6_200_000.0) -> Scene:
    """All rows by formula: whole digital numbers, powers that float32 holds, codes of the legend."""
    rng, layers = np.random.default_rng(seed), {}
    for row in TABLE.rows:
        shape = TABLE.layer_shape(row.name)
        if row.legend:
            layers[row.name] = rng.choice(row.legend.codes, shape)
        elif row.is_image:
            top_value = {"S1RTC": 0.4, "DEM": 900.0}.get(row.product, 9000)
            values = rng.uniform(0.001 if row.product == "S1RTC" else 1, top_value, shape)
            layers[row.name] = np.rint(values) if row.product.startswith("S2") else values
    layers |= {"place": np.array([10.5 + seed, -20.25]), "date": np.array([f"2021-03-0{1 + seed}"], "datetime64[D]")}
    return Scene(layers, Footprint(CRS.from_epsg(32630), left, top), name)


def assert_near(found: Scene, drawn: Scene) -> None:
    """Equal to what files keep: half a digital number, six digits of a power in dB, millionths of a degree; all else exactly."""
    assert set(found.layers) == set(drawn.layers)
    for row in found.layers:
        if row == "date" or TABLE[row].legend:
            np.testing.assert_array_equal(found[row], drawn[row])
        elif TABLE[row].product.startswith("S2"):
            np.testing.assert_allclose(found[row], np.clip(drawn[row], 1, 65535), atol=0.5)
        else:
            np.testing.assert_allclose(found[row], drawn[row], rtol=2e-6, atol=5e-7)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        work()
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


# --- ours ---------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("drawn") / "archive", (CELL,)).folder


@pytest.fixture(scope="module")
def out(archive: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of `copgen generate` at one cell, under two conditions, one of them with radar in dB."""
    out = tmp_path_factory.mktemp("out")
    job = Job(out / "a", model=str(tiny_model), archive=archive, cell=CELL, given="DEM,LULC", samples=2, seed=5, steps=1, device="cpu")
    jobs.run(job)
    jobs.run(replace(job, out=out / "b", given="DEM,LULC,S2L2A", s1_unit="dB"))
    return out


@pytest.mark.parametrize("more", [(), ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m")])
def test_samples_from_a_folder_are_those_that_the_model_draws(archive: Path, out: Path, tiny_model: Path, more: tuple[str, ...]) -> None:
    case = open_cases(f"archive:{archive}").observation(CELL)
    given, want = (*GIVEN, *more), [row for row in WANT if row not in more]
    found = open_generator(f"folder:{out}").samples(case, given, want, [6, 5, 7])
    drawn = open_generator(f"{tiny_model},steps=1", device="cpu").samples(case, given, want, [6, 5])
    assert [one.notes["seed"] for one in found] == [6, 5]                        # 7 was not drawn
    for one, other in zip(found, drawn, strict=True):
        assert_near(one, other)
        assert one.footprint == case.footprint


def test_a_condition_or_case_that_was_not_drawn_has_no_samples(archive: Path, out: Path) -> None:
    case, folder = open_cases(f"archive:{archive}").observation(CELL), open_generator(f"folder:{out}")
    assert folder.samples(case, ("dem", "lulc"), ["s1rtc"], [5]) == []
    assert case.footprint is not None
    elsewhere = replace(case, name="1U_1R", footprint=replace(case.footprint, left=case.footprint.left + 60))
    assert folder.samples(elsewhere, GIVEN, ["s1rtc"], [5]) == []
    assert len(folder.samples(replace(case, name="our town"), GIVEN, ["s1rtc"], [5])) == 1        # known by its square
    assert folder.samples(case, GIVEN, ["s1rtc"], [5]) != []
    other_day = case.with_layers({**case.layers, "date": np.array(["2019-01-01"], "datetime64[D]")})
    assert folder.samples(other_day, GIVEN, ["s1rtc"], [5]) == []                # drawn given another date
    assert set(folder.samples(case, GIVEN, ["s1rtc", "cloud_mask"], [5])[0].layers) == {"s1rtc", "cloud_mask"}


def test_samples_of_another_square_are_refused(archive: Path, out: Path) -> None:
    case, folder = open_cases(f"archive:{archive}").observation(CELL), open_generator(f"folder:{out}")
    assert case.footprint is not None
    moved = replace(case, footprint=replace(case.footprint, left=case.footprint.left + 60))
    assert "draw them for the case's own square" in refused(lambda: folder.samples(moved, GIVEN, ["s1rtc"], [5]))


def test_samples_that_were_given_other_files_are_refused(archive: Path, out: Path, tmp_path: Path) -> None:
    root = shutil.copytree(archive, tmp_path / "archive")
    path = next(root.glob(f"Core-DEM/*/{CELL}/*/DEM.tif"))
    path.write_bytes(path.read_bytes() + b"\0")
    case = open_cases(f"archive:{root}").observation(CELL)
    assert "was given another DEM file" in refused(lambda: open_generator(f"folder:{out}").samples(case, GIVEN, ["s1rtc"], [5]))


def test_a_model_that_was_given_more_than_the_case_knows_is_read(archive: Path, out: Path) -> None:
    """The files of what it was given are looked at, also those of products that the case's own table lacks."""
    case = open_cases(f"archive:{archive}", TABLE.subset(["s1rtc"])).observation(CELL)
    for one in open_folder(out).drawn:
        one.check(case)


def test_two_samples_of_one_seed_are_refused(archive: Path, out: Path, tmp_path: Path) -> None:
    case = open_cases(f"archive:{archive}").observation(CELL)
    for name in ("a", "c"):
        shutil.copytree(out / "a", tmp_path / name)
    assert "a second sample of seed 5" in refused(lambda: open_generator(f"folder:{tmp_path}").samples(case, GIVEN, ["s1rtc"], [5]))


def test_a_folders_record_tells_its_files_apart(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "out")
    before = open_generator(f"folder:{out}").record()
    assert before == open_generator(f"folder:{copy}").record() and before["name"] == "tiny"
    path = copy / "a" / CELL / "sample-001" / "S1RTC.tif"
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_generator(f"folder:{copy}").record() != before


def test_samples_of_no_ground_are_everybodys(tiny_model: Path, tmp_path: Path) -> None:
    jobs.run(Job(tmp_path, model=str(tiny_model), want="S2L2A_60m", steps=1, absent="drop", device="cpu"))
    folder = open_generator(f"folder:{tmp_path}")
    for name in ("here", "there"):
        assert len(folder.samples(made_scene(name), (), ["s2l2a_60m"], [0])) == 1
    assert folder.samples(made_scene(), ("place",), ["s2l2a_60m"], [0]) == []


def test_one_scenes_folder_opens_as_an_ensemble(archive: Path, out: Path) -> None:
    ensemble = as_ensemble(out / "b" / CELL)
    assert set(ensemble.condition.given) == {*GIVEN, "s2l2a_10m", "s2l2a_20m", "s2l2a_60m"} and ensemble.generator == "tiny"
    assert [one.notes["seed"] for one in ensemble.samples] == [5, 6] and set(ensemble.condition.scored) == {"cloud_mask", "s1rtc", *(
        row for row in TABLE.names if TABLE[row].product == "S2L1C")}
    truth = open_cases(f"archive:{archive}").observation(CELL)
    np.testing.assert_allclose(ensemble.observation["place"], truth["place"], atol=1e-9)
    assert ensemble.observation["date"] == truth["date"] and set(ensemble.observation.layers) == {"place", "date"}
    beside = as_ensemble(out / "b" / CELL, truth)
    assert beside.observation is truth
    np.testing.assert_array_equal(beside.samples[0]["s1rtc"], ensemble.samples[0]["s1rtc"])
    assert "has no run.json" in refused(lambda: as_ensemble(out))


def test_scores_of_a_folder_are_those_of_the_model_up_to_the_rounding_of_files(archive: Path, out: Path, tiny_model: Path) -> None:
    case = open_cases(f"archive:{archive}").observation(CELL)
    want = ("cloud_mask", "s1rtc", "s2l2a_60m")
    drawn = open_generator(f"{tiny_model},steps=1", device="cpu").samples(case, GIVEN, want, [5, 6])
    drawn = [one.with_layers({**one.layers, "s2l2a_60m": np.maximum(one["s2l2a_60m"], 1)}) for one in drawn]     # as 0 is no data
    condition = Condition("given", GIVEN, want, 2, first_seed=5)
    found = open_generator(f"folder:{out}").samples(case, GIVEN, want, [5, 6])
    scored = [{(row.seed, row.modality, row.band, row.statistic): row.value
               for row in statistics(Ensemble(condition, case, [], samples, "tiny"))} for samples in (drawn, found)]
    assert scored[0].keys() == scored[1].keys() and len(scored[0]) > 100
    for key, value in scored[0].items():
        if key[1] == "S2L2A" and key[3] in ("mean", "error", "absolute error", "error of mean", "crps"):
            assert abs(scored[1][key] - value) <= 0.5, key
        elif key[1] in ("S1RTC", "cloud_mask"):
            assert scored[1][key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


# --- any other generator's ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def plain(tmp_path: Path) -> tuple[Scene, Path]:
    """A scene as a sample of itself, without a record."""
    scene = made_scene()
    scene.save(tmp_path / "DEM+LULC" / CELL / "sample-003")
    return scene, tmp_path


def test_any_generator_can_be_scored_by_writing_the_same_files(plain: tuple[Scene, Path]) -> None:
    scene, root = plain
    drawn = open_generator(f"folder:{root}").samples(scene, ("dem", "lulc"), [row for row in TABLE.names if row not in GIVEN[2:]], [0, 3])
    assert [one.notes["seed"] for one in drawn] == [3]
    assert_near(drawn[0], scene.without("dem,lulc"))
    assert open_generator(f"folder:{root}").samples(scene, ("dem",), ["s1rtc"], [3]) == []
    alone = open_generator(f"folder:{root / 'DEM+LULC'},given=DEM+LULC")
    assert len(alone.samples(scene, ("dem", "lulc"), ["s1rtc"], [3])) == 1


def test_radar_in_decibels_says_so_or_is_said_to_be(tmp_path: Path) -> None:
    scene = made_scene()
    scene.save(tmp_path / "nothing" / CELL / "sample-000", s1_unit="dB")
    drawn = open_generator(f"folder:{tmp_path}").samples(scene, (), ["s1rtc"], [0])[0]
    np.testing.assert_allclose(drawn["s1rtc"], scene["s1rtc"], rtol=1e-5)
    folder = tmp_path / "nothing" / CELL / "sample-000"
    (folder / "S1RTC.tif").unlink()
    for band, values in zip(("vv", "vh"), 10 * np.log10(scene["s1rtc"]), strict=True):       # one file a band, without a unit
        (folder / f"S1RTC_{band}.tif").write_bytes(plain_tiff(values[None]))
    drawn = open_generator(f"folder:{tmp_path},s1_unit=dB").samples(scene, (), ["s1rtc"], [0])[0]
    np.testing.assert_allclose(drawn["s1rtc"], scene["s1rtc"], rtol=1e-4)


def plain_tiff(values: NDArray[Any], descriptions: tuple[str, ...] = (), **profile: Any) -> bytes:
    """A GeoTIFF without a place on Earth."""
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype=values.dtype, count=len(values), height=values.shape[1], width=values.shape[2],
                         transform=from_origin(0, 0, 10, 10), **profile) as dataset:
            dataset.write(values)
            if descriptions:
                dataset.descriptions = descriptions
        return bytes(memory.getbuffer())


def test_bands_are_found_by_their_names_and_finer_pixels_are_averaged(tmp_path: Path) -> None:
    scene, folder = made_scene(), tmp_path / "nothing" / CELL / "sample-000"
    folder.mkdir(parents=True)
    swapped = scene["s2l2a_10m"][::-1].astype(np.uint16)
    (folder / "S2L2A_10m.tif").write_bytes(plain_tiff(swapped, ("B08", "B02", "B03", "B04")))
    for k, band in enumerate(TABLE["s2l2a_60m"].bands):                          # at 10 m, each pixel 36 times with a checker of ±3
        fine = np.kron(scene["s2l2a_60m"][k], np.ones((6, 6))) + 3 * (-1.0) ** np.add.outer(np.arange(192), np.arange(192))
        (folder / f"S2L2A_{band}.tif").write_bytes(plain_tiff(fine[None].astype(np.float32)))
    heights = np.kron(scene["dem"][0], np.ones((3, 3)))[None].astype(np.float32)
    (folder / "DEM.tif").write_bytes(plain_tiff(heights))
    drawn = open_generator(f"folder:{tmp_path}").samples(scene, (), ["dem", "s2l2a_10m", "s2l2a_60m", "s1rtc"], [0])[0]
    np.testing.assert_array_equal(drawn["s2l2a_10m"], scene["s2l2a_10m"])
    np.testing.assert_allclose(drawn["s2l2a_60m"], scene["s2l2a_60m"], atol=1e-3)
    np.testing.assert_allclose(drawn["dem"], scene["dem"], rtol=1e-6)
    assert "s1rtc" not in drawn


def big_header() -> bytes:
    """A GeoTIFF of 30,000 x 30,000 pixels in some hundred bytes, as it says."""
    data, one_short = plain_tiff(np.zeros((1, 8, 8), np.uint8)), b"\x01\x03\x00\x01\x00\x00\x00"
    for tag in (b"\x00", b"\x01"):               # width and height
        data = data.replace(tag + one_short + (8).to_bytes(2, "little"), tag + one_short + (30_000).to_bytes(2, "little"))
    return data


@pytest.mark.parametrize(("row", "data", "said"), [
    ("s1rtc", b"no raster at all", "is not a raster that is read here"),
    ("s1rtc", b"<VRTDataset rasterXSize='192'></VRTDataset>", "is not a raster that is read here"),
    ("s1rtc", plain_tiff(np.ones((2, 192, 192), np.float32))[:5000], "is truncated or damaged"),
    ("s1rtc", plain_tiff(np.ones((3, 192, 192), np.float32)), "has 3 bands, not the 2 of vv, vh"),
    ("s1rtc", plain_tiff(np.full((2, 192, 192), np.nan, np.float32)), "100.00% of its pixels have no data"),
    ("s1rtc", plain_tiff(np.full((2, 192, 192), -32768, np.float32), nodata=-32768), "100.00% of its pixels have no data"),
    ("s1rtc", plain_tiff(np.ones((2, 100, 100), np.float32)), "100 x 100 pixels; s1rtc needs 192 x 192"),
    ("s1rtc", plain_tiff(np.ones((2, 96, 96), np.float32)), "96 x 96 pixels; s1rtc needs 192 x 192"),
    ("s1rtc", plain_tiff(np.ones((2, 192, 192), np.complex64)), "holds complex numbers"),
    ("lulc", plain_tiff(np.full((1, 192, 192), 3, np.uint8)), "are not in the legend"),
    ("lulc", plain_tiff(np.full((1, 384, 384), 255, np.uint8)), "holds codes that the legend of lulc has not"),
    ("dem", big_header(), "cut it to the square first"),
    ("dem", geotiff(np.ones((64, 64), np.float32), Footprint(CRS.from_epsg(32630), 0.0, 0.0)), "write it with the case's square"),
])
def test_files_that_are_no_sample_are_refused_in_a_sentence(tmp_path: Path, row: str, data: bytes, said: str) -> None:
    file = tmp_path / "nothing" / CELL / "sample-000" / f"{TABLE[row].product}.tif"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    message = refused(lambda: open_generator(f"folder:{tmp_path}").samples(made_scene(), (), [row], [0]))
    assert said in message and "sample-000" in message


@pytest.mark.parametrize(("name", "text", "said"), [
    ("run.json", "{", "could not be read"), ("run.json", "[]", "expected keys and values"), ("run.json", '{"scene": "x"}', "given"),
    ("run.json", '{"scene": "x", "given": {}, "samples": [{"folder": "../../secret", "seed": 0}]}', "is no folder of a sample"),
    ("sample-000/place_and_date.geojson", '{"features": []}', "no place and date as GeoJSON"),
    ("sample-000/place_and_date.geojson", '{"features": [{"geometry": null, "properties": {"date": "2021-02-30"}}]}', "2021-02-30"),
    ("sample-000/place_and_date.geojson", '{"features": [{"geometry": {"coordinates": [0, 91]}, "properties": {}}]}', "latitude lies in"),
])
def test_damaged_texts_are_refused_in_a_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    folder = tmp_path / "nothing" / CELL
    (folder / "sample-000").mkdir(parents=True)
    (folder / name).write_text(text)
    message = refused(lambda: open_generator(f"folder:{tmp_path}").samples(made_scene(), (), ["place", "date"], [0]))
    assert said in message and str(folder) in message


def test_half_a_row_and_a_folder_of_another_name_are_refused(plain: tuple[Scene, Path], tmp_path: Path) -> None:
    scene, root = plain
    folder = root / "DEM+LULC" / CELL / "sample-003"
    (folder / "S1RTC.tif").unlink()
    (folder / "S1RTC_vv.tif").write_bytes(plain_tiff(np.ones((1, 192, 192), np.float32)))
    assert "lacks vh" in refused(lambda: open_generator(f"folder:{root}").samples(scene, ("dem", "lulc"), ["s1rtc"], [3]))
    (root / "DEM+LULC").rename(root / "given heights")
    assert "should say what is given" in refused(lambda: open_generator(f"folder:{root}"))
    assert "holds no samples" in refused(lambda: open_generator(f"folder:{root / 'given heights' / CELL / 'sample-003'}"))


# --- the published layout -----------------------------------------------------------------------------------------------------------

def write_run(root: Path, name: str, scene: Scene, suffix: str = "", *, fine: bool = False) -> None:
    """A scene as the published code leaves it: a file a band, float32, under the whole image's corner."""
    folder, square = root / name / "generations", scene.footprint
    assert square is not None
    up, right = scene.name.split("_")
    for row in (scene.table[name] for name in scene.layers if scene.table[name].is_image):
        for band, values in zip(row.bands, scene[row.name].astype(np.float32), strict=True):
            step = (row.resolution or 10) // 10 if fine else 1
            image = np.kron(values, np.ones((step, step), np.float32))
            place = f"{up}/{right}/{scene.name}_2021" if row.product == "LULC" else f"{up}/{scene.name}/product/{band}"
            file = folder / f"Core-{'S2L1C' if row.product == 'cloud_mask' else row.product}" / f"{place}{suffix}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(geotiff(image, replace(square, left=square.left - 4380, top=square.top + 4380)))
    lines = {"lat_lon.csv": ("tile_id,lat,lon", "place", lambda x: f"{x[0]},{x[1]}"),
             "timestamp.csv": ("tile_id,day,month,year", "date", lambda x: ",".join(str(int(part)) for part in str(x[0]).split("-")[::-1]))}
    for file_name, (head, row_name, text) in lines.items():
        if row_name in scene:
            path = root / name / file_name
            path.parent.mkdir(exist_ok=True)
            before = path.read_text() if path.exists() else head + "\n"
            path.write_text(before + f"{scene.name}{suffix},{text(scene[row_name])}\n")


def products(scene: Scene, *names: str) -> Scene:
    return scene.only(",".join(names))


def published(root: Path, *options: str) -> Generator:
    return open_generator(",".join([f"published:{root}", *options]))


def test_published_runs_are_samples_by_their_seeds(tmp_path: Path) -> None:
    want = ("LULC", "S2L1C", "S2L2A", "cloud_mask", "date", "place")
    for seed in (20, 100, 21):
        drawn = products(made_scene(seed=seed % 7), *want)
        write_run(tmp_path, f"input_DEM_S1RTC_output_LULC_S2L1C_S2L2A_cloud_mask_lat_lon_timestamps_seed_{seed}", drawn)
    case = made_scene()
    rows = TABLE.select(want)
    found = published(tmp_path).samples(case, ("dem", "s1rtc"), rows, range(4))
    assert [one.notes["seed"] for one in found] == [0, 1, 2]                     # 20, 21 and 100, in this order
    assert [one.notes["published seed"] for one in found] == [20, 21, 100]
    for one, seed in zip(found, (20, 21, 100), strict=True):
        assert_near(one, products(made_scene(seed=seed % 7), *want))
        assert one.footprint == case.footprint                                   # not the files' own, which is 4380 m off
    assert published(tmp_path).samples(case, ("dem",), rows, range(4)) == []
    assert published(tmp_path).samples(replace(case, name=f"{CELL}_0_1"), ("dem", "s1rtc"), rows, range(4)) == []
    assert published(tmp_path).record()["runs"] == 3


def test_several_samples_of_a_run_count_and_their_mean_does_not(tmp_path: Path) -> None:
    name = "input_DEM_LULC_output_S1RTC_lat_lon_seed_7"
    for number in range(3):
        write_run(tmp_path, name, products(made_scene(seed=number), "S1RTC", "place"), f"_sample_{number}")
    write_run(tmp_path, name, products(made_scene(seed=6), "S1RTC", "place"))    # as the mean stands beside them
    found = published(tmp_path / name).samples(made_scene(), ("dem", "lulc"), ("place", "s1rtc"), [3, 4])
    assert [(one.notes["seed"], one.notes["published sample"]) for one in found] == [(3, 0), (4, 1)]
    for number, one in enumerate(found):
        assert_near(one, products(made_scene(seed=number), "S1RTC", "place"))


def test_land_cover_is_of_its_own_cell_and_sample(tmp_path: Path) -> None:
    """Cells of one column share a name in the published evaluator; here they do not. Its files end in a year, or a year and a number."""
    name = "input_DEM_output_LULC_seed_1"
    row, column = CELL.split("_")
    for number in (0, 1, 10):
        write_run(tmp_path, name, products(made_scene(seed=number % 9), "LULC"), f"_sample_{number}")
    write_run(tmp_path, name, products(made_scene(f"{int(row[:-1]) + 1}U_{column}", seed=5), "LULC"), "_sample_0")
    found = published(tmp_path).samples(made_scene(), ("dem",), ("lulc",), range(5))
    assert len(found) == 3 and set(np.unique(found[0]["lulc"])) <= set(LULC_LEGEND.codes)
    for one, seed in zip(found, (0, 1, 1), strict=True):
        np.testing.assert_array_equal(one["lulc"], made_scene(seed=seed)["lulc"])


def test_runs_of_a_generator_that_draws_one_product_at_a_time_at_10_m(tmp_path: Path) -> None:
    for product in ("DEM", "S2L2A"):
        write_run(tmp_path, f"input_LULC_lat_lon_output_{product}_seed_4", products(made_scene(), product), fine=True)
    case, given = made_scene(), ("place", "date", "lulc", "cloud_mask")
    want = ("dem", "s2l2a_10m", "s2l2a_20m", "s2l2a_60m")
    assert published(tmp_path).samples(case, given, want, [0]) == []
    found = published(tmp_path, "blind=date+cloud_mask").samples(case, given, want, [0])
    assert_near(found[0], products(case, "DEM", "S2L2A"))


def test_runs_named_by_rows_are_of_these_rows(tmp_path: Path) -> None:
    case = made_scene()
    write_run(tmp_path, "input_DEM_DEM_S2L2A_B01_B09_output_S1RTC_vh_vv_S2L2A_B02_B03_B04_B08_seed_4", products(case, "s1rtc", "s2l2a_10m"))
    assert published(tmp_path).samples(case, ("dem",), ("s1rtc", "s2l2a_10m"), [0]) == []
    found = published(tmp_path).samples(case, ("dem", "s2l2a_60m"), ("s1rtc", "s2l2a_10m"), [0])
    assert_near(found[0], products(case, "s1rtc", "s2l2a_10m"))


def test_a_runs_name_is_read_in_products_or_in_rows_but_not_in_both(tmp_path: Path) -> None:
    """`S2L1C_cloud_mask` is the released key of the mask, and the names of two products."""
    case = made_scene()
    write_run(tmp_path, "input_S2L1C_cloud_mask_output_S2L2A_B01_B09_seed_4", products(case, "s2l2a_60m"))
    assert len(published(tmp_path).samples(case, ("cloud_mask",), ("s2l2a_60m",), [0])) == 1
    write_run(tmp_path, "input_S2L1C_cloud_mask_output_DEM_seed_4", products(case, "DEM"))
    assert len(published(tmp_path).samples(case, ("cloud_mask", *TABLE.select("S2L1C")), ("dem",), [0])) == 1


def test_one_sample_of_a_run_is_not_counted_as_often_as_another_run_has_samples(tmp_path: Path) -> None:
    write_run(tmp_path, "input_DEM_output_S1RTC_seed_4", products(made_scene(), "S1RTC"))
    for number in range(3):
        write_run(tmp_path, "input_DEM_output_LULC_seed_4", products(made_scene(seed=number), "LULC"), f"_sample_{number}")
    found = published(tmp_path).samples(made_scene(), ("dem",), ("lulc", "s1rtc"), range(4))
    assert [set(one.layers) for one in found] == [{"lulc", "s1rtc"}, {"lulc"}, {"lulc"}]


@pytest.mark.parametrize("product", ["DEM", "date"])
def test_samples_on_disk_were_not_drawn_from_another_cases_layer(tmp_path: Path, product: str) -> None:
    case, given, want = made_scene(), ("date", "dem"), ("s1rtc",)
    products(case, "S1RTC").save(tmp_path / "ours" / "DEM+date" / CELL / "sample-000")
    write_run(tmp_path / "runs", "input_DEM_timestamps_output_S1RTC_seed_4", products(case, "S1RTC"))
    other = with_others(case, product, {row: made_scene(seed=1)[row] for row in TABLE.select(product)})
    for generator in (open_generator(f"folder:{tmp_path / 'ours'}"), published(tmp_path / "runs")):
        assert len(generator.samples(case, given, want, [0])) == 1 and generator.samples(other, given, want, [0]) == []


def test_a_swapped_date_is_found_where_the_record_says_it(archive: Path, out: Path) -> None:
    """And of another product nothing is said: samples of the case's own DEM are none of another's."""
    case, generator = open_cases(f"archive:{archive}").observation(CELL), open_generator(f"folder:{out}")
    drawn = generator.drawn[0]                   # type: ignore[attr-defined]
    assert drawn.fits(case, drawn.given)
    assert not drawn.fits(with_others(case, "DEM", {"dem": case["dem"] + 1}), drawn.given)


def test_the_unit_of_a_folders_radar_is_in_its_record(tmp_path: Path) -> None:
    products(made_scene(), "S1RTC").save(tmp_path / "nothing" / CELL / "sample-000")
    assert open_generator(f"folder:{tmp_path}").record() != open_generator(f"folder:{tmp_path},s1_unit=dB").record()
    one = tmp_path / "nothing"
    assert open_generator(f"folder:{one},given=nothing").record() != open_generator(f"folder:{one},given=DEM").record()


def test_a_row_without_all_its_bands_counts_as_not_drawn_and_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, "input_DEM_output_S2L1C_seed_4", products(made_scene(), "S2L1C"))
    next(tmp_path.rglob("B10.tif")).unlink()
    with pytest.warns(CopgenWarning, match="lacks B10 of s2l1c_60m"):
        found = published(tmp_path).samples(made_scene(), ("dem",), TABLE.select("S2L1C"), [0])
    assert set(found[0].layers) == {"s2l1c_10m", "s2l1c_20m"}


def test_published_folders_that_cannot_be_understood_are_refused(tmp_path: Path) -> None:
    assert "holds no run folders" in refused(lambda: published(tmp_path))
    (tmp_path / "input_DEM_output_Soil_seed_1").mkdir()
    assert "'Soil' in its name is not made of" in refused(lambda: published(tmp_path))
    shutil.rmtree(tmp_path / "input_DEM_output_Soil_seed_1")
    run = tmp_path / "input_DEM_output_lat_lon_seed_1"
    run.mkdir()
    (run / "lat_lon.csv").write_text(f"tile_id,lat,lon\n{CELL},north,2\n")
    assert "lat,lon or day,month,year is needed" in refused(lambda: published(tmp_path).samples(made_scene(), ("dem",), ("place",), [0]))
    (run / "lat_lon.csv").write_bytes(b"\xff\xfe\0\0")
    assert "is no table of places or dates" in refused(lambda: published(tmp_path).samples(made_scene(), ("dem",), ("place",), [0]))


def test_records_are_plain_data(out: Path, tmp_path: Path) -> None:
    write_run(tmp_path, "input_DEM_output_lat_lon_seed_1", products(made_scene(), "place"))
    for generator in (open_generator(f"folder:{out}"), published(tmp_path)):
        assert json.loads(json.dumps(generator.record())) == generator.record()
