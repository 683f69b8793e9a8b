"""A split is the same for the same seed everywhere, and blocks keep test cells apart from training cells."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from copgen.majortom import grid, splits
from copgen.majortom.splits import Split, blocked, leakage, read_split, shuffled, write_split


@pytest.fixture(scope="module")
def cells() -> list[str]:
    """A square of 120 x 120 degrees on both sides of the equator, thinned, and all cells around the south pole."""
    lat, lon = (values.ravel() for values in np.meshgrid(np.linspace(-60, 60, 130), np.linspace(-60, 60, 130)))
    pole = [cell for row in range(-1002, -992) for cell in grid.names_of(np.array(row), np.arange(grid.columns_of(np.array(row))))]
    dense = grid.cell_at(*(values.ravel() for values in np.meshgrid(np.linspace(30, 40, 112), np.linspace(5, 25, 180))))
    return sorted({*grid.cell_at(lat, lon).tolist(), *dense.tolist(), *map(str, pole)})


def dense(cells: list[str]) -> list[str]:
    lat, lon = grid.centre_of(cells)
    return [cell for cell, inside in zip(cells, (lat > 30) & (lat < 40) & (lon > 5) & (lon < 25), strict=True) if inside]


def test_the_shuffle_is_pythons_own_on_sorted_cells() -> None:
    names = ["1U_2R", "10U_2R", "2U_1L", "38D_378R", "618U_30L", "618U_31L", "0U_0R", "1D_1L", "3D_7R", "4D_9L"]
    order = sorted(names)
    random.seed(42)
    random.shuffle(order)
    split = shuffled(names)
    assert split.train == tuple(sorted(order[:9])) and split.test == (order[9],)
    assert shuffled(reversed(names)) == split == shuffled(names + names)
    assert shuffled(names, seed=1).test != split.test or shuffled(names, seed=2).test != split.test


@pytest.mark.parametrize("split", [shuffled, blocked, lambda cells, **more: blocked(cells, margin=0, **more)])
def test_every_cell_is_in_one_list(cells: list[str], split) -> None:
    parts = split(cells, seed=3)
    assert sorted([*parts.train, *parts.test, *parts.between]) == cells
    assert all(list(part) == sorted(part) for part in (parts.train, parts.test, parts.between))
    assert split(reversed(cells), seed=3) == parts and split(cells, seed=4).test != parts.test
    assert abs(len(parts.test) / len(cells) - 0.1) < 0.03


def test_blocks_do_not_depend_on_which_cells_there_are(cells: list[str]) -> None:
    whole = blocked(cells, seed=5)
    some = set(random.Random(0).sample(cells, len(cells) // 3))
    part = blocked(some, seed=5)
    for name in ("train", "test", "between"):
        assert set(getattr(part, name)) == some & set(getattr(whole, name))


def test_the_blocks_of_a_seed_stay_what_they_are() -> None:
    """Golden: nobody who downloads more cells next year may train on what was tested on."""
    cells = ["618U_30L", "573U_120R", "38D_378R", "637U_59R", "282D_485L", "0U_0R", "1001U_3R", "1002D_0R", "622U_36L", "500U_1R"]
    chosen = splits.Blocks(42, 0.5, 20)
    assert chosen.tested(*grid.numbers_of(cells)).astype(int).tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 1, 0]


def test_neighbours_leak_by_shuffle_but_not_by_blocks(cells: list[str]) -> None:
    names = dense(cells)
    assert len(names) > 15_000
    assert leakage(shuffled(names)) > 0.99
    touching = blocked(names, seed=1, margin=0)
    assert 0.05 < leakage(touching) < 0.3 and not touching.between         # those on the rims of blocks of 20 x 20 cells
    for margin in (1, 3):
        apart = blocked(names, seed=1, margin=margin)
        assert leakage(apart) == 0 and apart.test == touching.test and apart.between
    assert leakage(Split(("1U_1R",), ("2U_1R", "9U_9R"))) == 0.5 and leakage(Split((), ())) == 0


def test_no_image_of_a_training_cell_shows_ground_of_a_test_cells() -> None:
    """Images reach 340 m beyond their cells and are turned against them: some overlap whose cells don't touch."""
    shapely = pytest.importorskip("shapely")
    names = np.unique(grid.cell_at(*(values.ravel() for values in np.meshgrid(np.arange(50, 53, 0.04), np.arange(2, 8, 0.05)))))

    def images(cells: tuple[str, ...]) -> NDArray[Any]:
        zones = [f"EPSG:{32600 + int((lon + 180) // 6) + 1}" for lon in grid.centre_of(cells)[1]]
        return np.asarray(shapely.polygons(grid.tile_rings(*grid.tile_corners(cells, zones), zones)))

    split = blocked(names.tolist(), seed=1, train=0.7)
    train, test = images(split.train), images(split.test)
    assert len(train) > 500 < len(test) and not shapely.STRtree(train).query(test, predicate="intersects").size
    assert shapely.intersects(*images(("556U_28R", "557U_29R"))) and leakage(Split(("556U_28R",), ("557U_29R",))) == 1


def test_nothing_leaks_at_the_poles_or_across_the_antimeridian() -> None:
    rows = [*range(-1002, -985), *range(985, 1002)]
    poles = [cell for row in rows for cell in grid.names_of(np.array(row), np.arange(grid.columns_of(np.array(row)))).tolist()]
    strip = np.unique(grid.cell_at(*(values.ravel() for values in np.meshgrid(np.linspace(-20, 60, 900), np.linspace(179, 181, 25)))))
    for cells in (poles, strip.tolist()):
        for seed in range(3):
            assert leakage(blocked(cells, seed, train=0.5, block=10)) == 0
        assert leakage(blocked(cells, 0, train=0.5, block=10, margin=0)) > 0.1


def test_a_margin_is_as_wide_as_it_says(cells: list[str]) -> None:
    split = blocked(dense(cells), seed=1, margin=3)
    train, test = (np.stack(grid.centre_of(part), axis=-1) for part in (split.train, split.test))
    for lat, lon in test[::50]:
        north, east = np.abs(train[:, 0] - lat) / grid.HEIGHT, np.abs(train[:, 1] - lon) * np.cos(np.radians(lat)) / grid.HEIGHT
        assert np.maximum(north, east).min() > 2.9                         # cells, from centre to centre


def test_blocks_are_about_square_and_chosen_as_often_as_asked() -> None:
    chosen = splits.Blocks(7, 0.8, 10)
    assert abs(chosen.test.mean() - 0.2) < 0.01
    band = (np.arange(grid.SOUTH, grid.NORTH + 1) - grid.SOUTH) // 10
    width = 2 * np.pi * grid.RADIUS * np.cos(np.radians((band * 10 + 5 + grid.SOUTH) * grid.HEIGHT)) / chosen.columns[band]
    usual = np.abs(np.arange(grid.SOUTH, grid.NORTH + 1)) < 900
    assert np.all(np.abs(width[usual] - 100) < 5)                          # km


def test_lists_come_back_from_the_disk(cells: list[str], tmp_path: Path) -> None:
    split = blocked(cells, seed=9)
    files = write_split(tmp_path / "split", split)
    assert {file.name for file in files} == {"train.txt", "test.txt", "between.txt", "split.json"}
    assert (tmp_path / "split" / "test.txt").read_text() == "".join(f"{cell}\n" for cell in split.test)
    again = read_split(tmp_path / "split")
    assert (again.train, again.test, again.between) == (split.train, split.test, split.between) and again.how["seed"] == 9
    with pytest.raises(ValueError, match="exists already"):
        write_split(tmp_path / "split", split)
    write_split(tmp_path / "split", shuffled(cells), overwrite=True)


def test_lists_of_others_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("# Edinburgh\n618U_31L, 618U_30L  # and west of it\n\n619U_30L\r\n")
    (tmp_path / "test.txt").write_text("38D_378R")
    assert read_split(tmp_path) == Split(("618U_30L", "618U_31L", "619U_30L"), ("38D_378R",))
    (tmp_path / "test.txt").write_text("618U_30L")
    with pytest.raises(ValueError, match="618U_30L is in two"):
        read_split(tmp_path)
    (tmp_path / "test.txt").write_text("here")
    with pytest.raises(ValueError, match=r"test\.txt: cell 'here'"):
        read_split(tmp_path)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(ValueError, match=r"test\.txt: no list"):
        read_split(tmp_path)


def test_nonsense_is_refused() -> None:
    for wrong in ({"train": 1.5}, {"block": 0}, {"margin": -1}, {"block": 5, "margin": 6}):
        with pytest.raises(ValueError, match=r"needed|at least one"):
            blocked(["618U_30L"], **wrong)
    with pytest.raises(ValueError, match="two names mean one cell"):
        shuffled(["0U_2004L", "0U_2004R"])
