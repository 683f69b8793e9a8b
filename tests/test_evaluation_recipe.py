"""What a recipe asks: nothing is given and scored, nothing is asked twice, and the paper's counts are the paper's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from copgen.config import dump, parse
from copgen.evaluation.recipe import NotHere, Protocol, Question, Recipe, conditions, load_recipe, named
from copgen.modalities import TABLE

PAPER, SMALL, REFERENCE = (load_recipe(REPOSITORY / "recipes" / f"{name}.toml")
                           for name in ("evaluate", "evaluate-small", "evaluate-reference"))
TARGETS = {"DEM", "LULC", "S1RTC", "S2L1C", "S2L2A", "place", "date"}


def products(rows: tuple[str, ...]) -> set[str]:
    return {TABLE[row].product for row in rows}


def only(protocol: Protocol) -> Question:
    question, = protocol.questions(0, 4)
    return question


def test_the_paper_s_counts() -> None:
    found = conditions(PAPER, TABLE, TABLE.names)
    assert {one.samples for one in found if one.protocol in ("all-minus-target", "given", "without S2L2A", "without S2L1C")} == {36}
    assert [one.samples for one in found if one.protocol == "places"] == [50]
    ladder = [one for one in found if one.protocol == "narrowing"]
    assert [one.samples for one in ladder] == [25] * 6
    assert ladder[0].given_name == "DEM+cloud_mask" and all(set(one.given) < set(more.given) for one, more in pairwise(ladder))
    steps = [set(more.given) - set(one.given) for one, more in pairwise(ladder)]
    assert [named(tuple(step)) for step in steps] == ["LULC", "S1RTC", "date", "place", "S2L1C"]
    assert {one.scored for one in ladder} == {("s2l2a_10m", "s2l2a_20m", "s2l2a_60m")}
    swaps = {one.protocol: one for one in found if one.swap}
    assert {*swaps} == {"swap date", "swap place", "swap DEM", "swap LULC"} and {one.samples for one in swaps.values()} == {25}
    values = [one.values for one in PAPER.protocols if one.values]
    assert [len(one) for one in values] == [9, 9] and [*values[0]] == [*values[1]]
    assert str(values[0]["362D_1427R"]) == "2020-02-01" and values[1]["362D_1427R"] == (-76.98, 49.21)


@pytest.mark.parametrize("recipe", [PAPER, SMALL], ids=["paper", "small"])
def test_every_target_is_asked_alone_and_with_every_other_left_out(recipe: Recipe) -> None:
    found = conditions(recipe, TABLE, TABLE.names)
    alone = [one for one in found if one.protocol == "all-minus-target"]
    assert [len(products(one.scored)) for one in alone] == [1] * 7 and set.union(*(products(one.scored) for one in alone)) == TARGETS
    pairs = {frozenset(products(one.scored)) for one in found if one.protocol == "leave-one-out"}
    assert len(pairs) == 21 and set.union(*map(set, pairs)) == TARGETS
    for one in [*alone, *(one for one in found if one.protocol == "leave-one-out")]:
        assert set(one.given) == set(TABLE.names) - set(one.scored) and "cloud_mask" in one.given
    infilling, = (one for one in found if one.protocol == "infilling")
    assert infilling.given_name == "s2l1c_10m" and len(infilling.scored) == 11
    for target, absent in (("S2L1C", "S2L2A"), ("S2L2A", "S2L1C")):
        one, = (one for one in found if one.protocol == f"without {absent}")
        assert products(one.scored) == {target} and not {target, absent} & products(one.given)


@given(st.sets(st.sampled_from(TABLE.names)), st.sampled_from([PAPER, SMALL]))
@settings(max_examples=60, deadline=None)
def test_whatever_a_case_has_nothing_is_asked_that_it_lacks_nor_twice(rows: set[str], recipe: Recipe) -> None:
    found = conditions(recipe, TABLE, sorted(rows))
    for one in found:
        assert one.scored and {*one.given, *one.scored} <= rows and not {*one.given} & {*one.scored}
        assert list(one.given) == sorted(one.given, key=TABLE.names.index)
        assert one.swap is None or set(TABLE.select(one.swap)) <= set(one.given)
    asked = [(one.protocol, one.given_name) for one in found]
    assert len(asked) == len(set(asked))


def test_what_a_case_lacks_is_not_given_but_what_is_listed_must_be_there() -> None:
    lacking = [row for row in TABLE.names if row != "cloud_mask"]
    assert "cloud_mask" not in only(Protocol("all", without=(("DEM",),))).condition(TABLE, lacking).given
    with pytest.raises(NotHere, match="has no cloud_mask, which is given"):
        only(Protocol("some", given=(("DEM", "cloud_mask"),))).condition(TABLE, lacking)
    with pytest.raises(NotHere, match="has no cloud_mask, which is left out"):
        only(Protocol("all", without=(("DEM", "cloud_mask"),))).condition(TABLE, lacking)
    with pytest.raises(NotHere, match="has no DEM, which is scored"):
        only(Protocol("some", given=(("LULC",),), scored=("DEM",))).condition(TABLE, ["lulc"])
    small = TABLE.subset(["dem", "s2l2a_60m"])
    assert only(Protocol("all", without=(("DEM",),))).condition(small, TABLE.names).given == ("s2l2a_60m",)


def test_names_of_what_is_given() -> None:
    assert named(()) == "nothing" and named(("lulc", "dem")) == "DEM+LULC"
    assert named(("s2l1c_10m", "s2l1c_60m", "s2l2a_10m", "s2l2a_20m", "s2l2a_60m")) == "s2l1c_10m+s2l1c_60m+S2L2A"
    assert only(Protocol("unconditional", given=((),))).condition(TABLE, TABLE.names).given_name == "nothing"


def test_cells_are_the_first_and_those_named_before_others() -> None:
    names = [f"cell{k}" for k in range(6)]
    assert Protocol("x", given=(("DEM",),)).cells_of(names) == names
    assert Protocol("x", given=(("DEM",),), cells=2).cells_of(names) == names[:2]
    assert Protocol("x", given=(("DEM",),), cells=3, first=("cell5", "elsewhere", "cell2")).cells_of(names) == ["cell0", "cell2", "cell5"]
    swap = Protocol("x", given=(("DEM", "place"),), swap="place", cells=1, values={"cell4": (1.0, 2.0)})
    assert swap.cells_of(names) == ["cell4"] and swap.cells_of(names[:3]) == ["cell0"]


def test_seeds_are_the_same_for_all_conditions_of_a_recipe() -> None:
    recipe = Recipe((Protocol("a", given=(("DEM",),), samples=3), Protocol("b", without=(("DEM",),))), samples=5, first_seed=7)
    assert [list(one.seeds) for one in conditions(recipe, TABLE, TABLE.names)] == [[7, 8, 9], [7, 8, 9, 10, 11]]


def test_a_recipe_comes_back_from_its_json() -> None:
    assert parse(Recipe, dump(PAPER), "plan.json") == PAPER


BASE = '[[protocols]]\nname = "x"\n'


@pytest.mark.parametrize(("text", "says"), [
    ("samples = 4\nprotocols = []", "no protocols"),
    (BASE, "exactly one of given, without and pairs"),
    (BASE + 'given = [["DEM"]]\nwithout = [["LULC"]]', "exactly one of given, without and pairs"),
    (BASE + 'given = [["DEM"]]\nsamples = 0', "samples is 0, at least 1"),
    (BASE + 'given = [["DEM"]]\ncells = 0', "cells is 0, at least 1"),
    ("samples = 0\n" + BASE + 'given = [["DEM"]]', "samples 0, first_seed 0, truths 16"),
    ("first_seed = 2147483640\nsamples = 9\n" + BASE + 'given = [["DEM"]]', "rows hold seeds up to 2147483647"),
    (BASE + 'given = [["DEN"]]', "no modality or product is called 'DEN'; there are the products"),
    (BASE + 'given = [["DEM"]]\nscored = ["S2L2B"]', "no modality or product is called 'S2L2B'"),
    (BASE + 'given = [["DEM", "LULC"]]\nscored = ["LULC", "S1RTC"]', r"x \(given DEM, LULC\): lulc is scored and given"),
    (BASE + 'without = [["DEM"]]\nscored = ["S1RTC"]', r"x \(without DEM\): s1rtc is scored and given"),
    (BASE + "without = [[]]", "nothing is left to draw"),
    (BASE + 'given = [["DEM"]]\nswap = "date"', "date is swapped and not given"),
    (BASE + 'given = [["DEM"]]\nvalues = {a = 2020-01-01}', "values are for a swap of place or date"),
    (BASE + 'given = [["DEM", "date"]]\nswap = "date"\nvalues = {a = "Tuesday"}', r"values\.a"),
    (BASE + 'given = [["DEM"], ["dem"]]', "given DEM is asked twice"),
    (BASE + 'givn = [["DEM"]]', "givn"),
])
def test_mistakes_are_named_with_the_file(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)mine\.toml: .*{says}"):
        load_recipe(tmp_path / "mine.toml")


def test_swap_values_are_typed() -> None:
    day = only(Protocol("x", given=(("DEM", "date"),), swap="date", values={"a": np.datetime64("2020-01-01").astype(object)}))
    assert day.name == "x date" and day.condition(TABLE, TABLE.names).protocol == "x date"


def test_the_references_are_asked_what_the_small_recipe_asks() -> None:
    small = {(one.name, one.words, one.samples) for one in SMALL.questions}
    assert {(one.name, one.words, one.samples) for one in REFERENCE.questions} <= small
