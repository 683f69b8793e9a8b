"""Cases are the truth as it is: the world of a seed, the square of a cell; what else is true agrees with what is given."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_archive import CELL, EAST, make_archive
from made_rasters import LEFT, TOP, numbers, power, raster

from copgen.evaluation.cases import Archive, Resampled, Squares, Worlds, needed, open_cases
from copgen.majortom.cells import read_cell
from copgen.modalities import TABLE
from copgen.reading import CopgenWarning
from copgen.scene import Scene
from copgen.synthetic import world

pytestmark = [pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning"),
              pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]          # rasterio's own
SMALL = replace(TABLE, footprint=240)            # 24 x 24 pixels of 10 m: quick, and all that is tested is there
CAUSES = ("place", "date", "dem", "lulc")


def same(one: Scene, other: Scene) -> bool:
    return tuple(one.layers) == tuple(other.layers) and all(np.array_equal(one[row], other[row]) for row in one.layers)


def test_a_world_is_the_world_of_its_seed() -> None:
    cases = open_cases("worlds:3@12", SMALL)
    assert list(cases.names()) == ["world-000012", "world-000013", "world-000014"]
    assert same(cases.observation("world-000013"), world(13, SMALL)) and cases.observation("world-000013").name == "world-000013"
    assert open_cases("worlds:2", SMALL).names()[0] == "world-10000000"          # which no training draws


def test_other_truths_agree_with_what_is_given_and_are_others() -> None:
    cases = open_cases("worlds:1@31", SMALL)
    truth, others = cases.observation("world-000031"), cases.others("world-000031", CAUSES, 3)
    assert len(others) == 3
    for other in others:
        assert all(np.array_equal(other[row], truth[row]) for row in CAUSES)
        assert not np.array_equal(other["s1rtc"], truth["s1rtc"])
    assert same(cases.others("world-000031", CAUSES, 2)[1], others[1])           # whatever the count
    assert cases.others("world-000031", CAUSES, 0) == []


@pytest.mark.parametrize(("given", "cost"), [
    ((), "exact"), (("place",), "exact"), (("place", "date"), "exact"), (("place", "dem", "lulc"), "exact"), (CAUSES, "exact"),
    (("dem", "lulc"), "bank"), (("date", "dem", "lulc"), "bank"), (("date",), "bank"),
    (("dem",), "all"), (("place", "dem"), "all"), ((*CAUSES, "s1rtc"), "all"), (("s2l2a_10m",), "all"),
])
def test_what_further_truths_cost_is_known_before_they_are_drawn(given: tuple[str, ...], cost: str) -> None:
    assert needed(TABLE.select(given), SMALL) == cost


def test_truths_that_are_not_to_be_had_are_told() -> None:
    cases = Worlds(1, 31, SMALL, Resampled("exact"))
    with pytest.warns(CopgenWarning, match="takes resampling=all, and exact is set"):
        assert cases.others("world-000031", ["s2l2a_10m"], 4) == []
    assert list(cases.resampled.refused) == [("s2l2a_10m", "world-000031")]
    narrow = Resampled("all")                    # weights of so much that is given leave no candidate
    with pytest.warns(CopgenWarning, match="effective sample size"):
        assert narrow(world(12, SMALL), [row for row in SMALL.names if row != "s2l2a_60m"], 4, 0) == []


def test_a_swapped_date_is_looked_at_on_that_day_and_other_swaps_are_refused() -> None:
    truth, day = world(8, SMALL), np.array(["2021-04-01"], "datetime64[D]")
    resampled = Resampled("exact")
    drawn = resampled(truth.with_layers({**truth.layers, "date": day}), CAUSES, 2, 5)
    assert [one["date"][0] for one in drawn] == [day[0], day[0]] and np.array_equal(drawn[0]["lulc"], truth["lulc"])
    assert not np.array_equal(drawn[0]["s2l2a_10m"], resampled(truth, CAUSES, 1, 5)[0]["s2l2a_10m"])
    with pytest.warns(CopgenWarning, match="dem of another world"):
        assert resampled(truth.with_layers({**truth.layers, "dem": world(9, SMALL)["dem"]}), CAUSES, 2, 5) == []


def test_real_squares_are_no_worlds() -> None:
    with pytest.raises(ValueError, match="is no world of the synthetic Earth"):
        Resampled()(Scene(name="field", table=SMALL), (), 1, 0)


# --- real places --------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("cases") / "archive", (CELL, EAST)).folder


def test_a_cell_of_an_archive_is_the_square_in_its_middle(archive: Path, tmp_path: Path) -> None:
    cases = open_cases(f"archive:{archive}")
    assert sorted(cases.names()) == sorted([CELL, EAST]) and cases.others(CELL, (), 4) == []
    seen = cases.observation(CELL)
    assert tuple(seen.layers) == TABLE.names and seen.name == CELL
    assert same(seen, read_cell(archive, CELL, given=TABLE.products[2:]))
    (tmp_path / "cells.txt").write_text(f"{EAST}  # one\n")
    assert list(open_cases(f"archive:{archive},cells={tmp_path / 'cells.txt'}").names()) == [EAST]


def test_all_patches_of_a_cell_can_be_cases(archive: Path) -> None:
    cases = open_cases(f"archive:{archive},patches=all")
    names = cases.names()
    assert len(names) == 2 * 36 and names[0].endswith("_0_0") and names[35].endswith("_5_5")
    assert same(cases.observation(f"{CELL}_5_0"), read_cell(archive, CELL, given=TABLE.products[2:], patch=(5, 0)))


def test_a_product_that_cannot_be_read_is_left_out_and_named(archive: Path, tmp_path: Path) -> None:
    root = shutil.copytree(archive, tmp_path / "archive")
    next(root.glob(f"Core-S1RTC/*/{CELL}/*/vv.tif")).write_bytes(b"II*\0 cut off")
    scene = open_cases(f"archive:{root}").observation(CELL)
    assert "s1rtc" not in scene and {"dem", "lulc", "s2l2a_60m", "s2l1c_10m"} <= set(scene.layers)
    assert list(scene.notes["left out"]) == ["S1RTC"] and "vv.tif" in scene.notes["left out"]["S1RTC"]


def test_squares_are_read_as_terramesh_keeps_them(tmp_path: Path) -> None:
    decibels = 10 * np.log10(power(2))
    raster(tmp_path / "S1RTC" / "here.tif", decibels.astype(np.float32), names=("vv", "vh"))
    raster(tmp_path / "LULC" / "here.tif", (numbers(1) % 10).astype(np.uint8))
    cases = open_cases(f"squares:{tmp_path}")
    assert list(cases.names()) == ["here"] and cases.others("here", (), 3) == []
    seen = cases.observation("here")
    assert set(seen.layers) == {"place", "lulc", "s1rtc"} and seen.footprint is not None
    assert (seen.footprint.left - LEFT, TOP - seen.footprint.top) == (180.0, 180.0)                # nearest to the middle on 60 m
    np.testing.assert_allclose(seen["s1rtc"], power(2)[:, 18:210, 18:210], rtol=1e-5)
    with pytest.raises(ValueError, match="case 'there': there are here"):
        cases.observation("there")


def test_the_same_record_is_the_same_truth(archive: Path, tmp_path: Path) -> None:
    root = shutil.copytree(archive, tmp_path / "archive")
    assert open_cases(f"archive:{root}").record() == open_cases(f"archive:{archive}").record()
    before = Archive(root).record()
    path = next(root.glob("Core-DEM/*/*/*/DEM.tif"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")                              # of the same size
    assert Archive(root).record() != before
    assert open_cases("worlds:2@5", SMALL).record() != open_cases("worlds:2@6", SMALL).record()


def test_real_samples_can_be_cases(samples: Path) -> None:
    cases = Squares(samples)
    scene = cases.observation(cases.names()[0])
    assert {"dem", "lulc", "s1rtc", "s2l1c_60m", "s2l2a_10m"} <= set(scene.layers)


@pytest.mark.parametrize(("text", "said"), [
    ("worlds", "expected one of worlds:COUNT"), ("planets:3", "expected one of worlds:COUNT"), ("worlds:", "expected one of"),
    ("worlds:100000000000", "at most 1,000,000 worlds"),
    ("worlds:0", "a whole number is needed, 1 or larger"), ("worlds:many", "count 'many'"), ("worlds:3@-1", "first seed '-1'"),
    ("worlds:3,seed=4", "no option is called 'seed'; it takes resampling"), ("worlds:3,resampling=some", "choose none, exact, bank or all"),
    ("worlds:3,resampling=all,resampling=bank", "resampling is given twice"), ("archive:nowhere", "there is no such folder"),
    ("squares:nowhere", "there is no such folder"), ("benchmark:nowhere", "there is no such folder"),
])
def test_a_text_that_names_no_cases_is_refused_with_the_way_out(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        open_cases(text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_folders_without_cases_are_refused(tmp_path: Path) -> None:
    for kind, said in (("archive", "no cells of Major TOM's layout"), ("squares", "no files FOLDER/<product>/<cell>.tif")):
        with pytest.raises(ValueError, match=said):
            open_cases(f"{kind}:{tmp_path}").names()


def test_a_path_may_hold_commas_and_equals_signs(archive: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a,b=c"
    shutil.copytree(archive, odd)
    assert open_cases(f"archive:{odd},patches=middle").names() == open_cases(f"archive:{odd}").names() != []
