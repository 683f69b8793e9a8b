"""All samples beside all truths: what is counted, what is perfect, and that folders, vectors and kept samples say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from copgen.evaluation.collections import lines_of_pair
from copgen.evaluation.datasets import HEADINGS, Collection, Collector, Line, lines_of_runs, measured, table_of
from copgen.evaluation.features import Feature, open_feature
from copgen.evaluation.kept import Ensemble, write_ensemble
from copgen.evaluation.recipe import Condition
from copgen.evaluation.rows import PLANNED
from copgen.files import write_json
from copgen.modalities import TABLE, THUMBNAILS
from copgen.scene import Scene

SMALL = replace(THUMBNAILS, footprint=160)       # 16 x 16 pixels
THUMBS = open_feature("thumbnails")
MEANS = Feature("means", "vectors", lambda images: images.mean((2, 3)))


def levels(seed: int, brightness: float = 128) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(brightness, 30, (3, 16, 16))
    return np.clip(noise, 0, 255).astype(np.uint8)


def scene(name: str, number: int, rows: Any = SMALL.names, **notes: Any) -> Scene:
    return Scene({row: levels(1000 * number + SMALL.names.index(row)) for row in rows}, None, name, SMALL, notes)


def ensemble(cell: int, given: tuple[str, ...], scored: tuple[str, ...], seeds: range, shared: bool = False) -> Ensemble:
    """Samples that depend on the cell and the seed, or (`shared`) on the seed alone."""
    case = scene(f"cell-{cell}", cell)
    drawn = [scene(case.name, 100 + (0 if shared else 10 * cell) + seed, scored, seed=seed) for seed in seeds]
    return Ensemble(Condition("single", given, scored, len(seeds)), case, [], drawn, "x")


def collected(ensembles: list[Ensemble], **more: Any) -> dict[tuple[str, str], Line]:
    collector = Collector({"means": MEANS}, **more)
    for one in ensembles:
        collector.add(one, "x")
    return {(line.given, line.product): line for line in collector.lines()}


def test_every_product_of_every_condition_is_a_line_of_all_cells() -> None:
    lines = collected([ensemble(cell, ("dem_thumbnail",), ("s1rtc_thumbnail", "s2l2a_thumbnail"), range(3)) for cell in range(5)])
    assert set(lines) == {("DEM", "S1RTC"), ("DEM", "S2L2A")}
    line = lines["DEM", "S2L2A"]
    assert line.real.cells == tuple(f"cell-{k}" for k in range(5))
    assert line.fake.cells == tuple(f"cell-{k}" for k in range(5) for _ in range(3))
    expected = levels(1000 * (100 + 10 * 4 + 2) + 3).mean((1, 2)) / 255             # the last cell's last sample, its fourth row
    assert line.fake.vectors[-1] == pytest.approx(expected, rel=1e-6)
    assert line.real.vectors[3] == pytest.approx(levels(3003).mean((1, 2)) / 255, rel=1e-6)


def test_of_each_cell_no_more_samples_are_looked_at_than_are_asked_for() -> None:
    ensembles = [ensemble(cell, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(3)) for cell in range(2)]
    few, every = (collected(ensembles, **how)["DEM", "S2L2A"].fake for how in ({"samples": 1}, {}))
    assert few.cells == ("cell-0", "cell-1") and np.array_equal(few.vectors, every.vectors[::3])


def test_a_cell_without_samples_is_no_truth_beside_others() -> None:
    ensembles = [ensemble(cell, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(2 if cell else 0)) for cell in range(3)]
    assert collected(ensembles)["DEM", "S2L2A"].real.cells == ("cell-1", "cell-2")


def test_of_nothing_given_a_seed_counts_once_and_all_truths_are_beside_it() -> None:
    """Its samples are the same in every cell; a cell that was asked for something else only is a truth, too."""
    ensembles = [ensemble(cell, (), ("s2l2a_thumbnail",), range(4), shared=True) for cell in range(2)]
    ensembles.append(ensemble(7, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(2)))
    lines = collected(ensembles)
    line = lines["nothing", "S2L2A"]
    assert line.fake.cells == tuple(f"seed {seed}" for seed in range(4)) and line.real.cells == ("cell-0", "cell-1", "cell-7")
    assert lines["DEM", "S2L2A"].real.cells == ("cell-7",)


def test_samples_that_are_the_truths_are_perfect_and_flat_ones_are_not() -> None:
    truths = np.random.default_rng(0).normal(size=(30, 4))
    cells = tuple(f"{k}" for k in range(30))
    same = measured(Line("x", "p", "g", "S2L2A", "f", Collection(truths, cells), Collection(truths, cells)))
    assert [same[name].value for name in HEADINGS if "KID" not in name] == pytest.approx([0, 0, 1, 1, 1], abs=1e-9)
    flat = measured(Line("x", "p", "g", "S2L2A", "f", Collection(truths, cells), Collection(np.zeros((30, 4)), cells)))
    assert flat["FID ↓"].value == pytest.approx((truths.mean(0) ** 2).sum() + truths.var(0, ddof=1).sum())
    assert flat["Precision ↑"].value == 1 and flat["Recall ↑"].value == flat["F-score ↑"].value == 0


def test_one_distribution_is_at_zero_within_the_ranges_once_the_bias_is_off() -> None:
    inside, plain = [], []
    for seed in range(20):
        chance = np.random.default_rng(seed)
        real, fake = chance.normal(size=(40, 5)), chance.normal(size=(80, 5))
        cells = tuple(f"{k:02d}" for k in range(40))
        found = measured(Line("x", "p", "g", "S2L2A", "f", Collection(real, cells), Collection(fake, tuple(np.repeat(cells, 2)))))
        inside += [found[name].low <= 0 <= found[name].high for name in ("FID less its bias ↓", "KID x 1000 ↓")]
        plain.append(found["FID ↓"].value)
    assert len(inside) == 40 and np.mean(inside) > 0.85 and min(plain) > 0.1


def test_fewer_vectors_than_coordinates_have_a_distance_whose_bias_is_not_known() -> None:
    """A jackknife would leave most of it: a perfect generator's 60 vectors in 192 coordinates were at 126, with a range of 3."""
    chance, cells = np.random.default_rng(0), tuple(f"{k:02d}" for k in range(30))
    for coordinates, known in ((29, True), (30, False)):
        real, fake = chance.normal(size=(30, coordinates)), chance.normal(size=(60, coordinates))
        found = measured(Line("x", "p", "g", "S2L2A", "f", Collection(real, cells), Collection(fake, tuple(np.repeat(cells, 2)))))
        assert found["FID less its bias ↓"].known == known and found["FID ↓"].known and found["FID ↓"].low is not None


def test_a_single_cell_has_numbers_and_no_ranges() -> None:
    line = collected([ensemble(0, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(9))])["DEM", "S2L2A"]
    found = measured(line)
    assert [name for name in HEADINGS if found[name].known] == ["Recall ↑"]          # of one truth there is no covariance and no ball
    assert all(number.low is None for number in found.values())


# --- files --------------------------------------------------------------------------------------------------------------------------

def folder_of(path: Path, pictures: dict[str, NDArray[np.uint8]], kind: str = "png") -> Path:
    path.mkdir()
    for name, picture in pictures.items():
        Image.fromarray(np.moveaxis(picture, 0, -1)).save(path / f"{name}.{kind}", lossless=True)
    return path


def test_folders_of_pictures_and_files_of_vectors_say_what_kept_samples_say(tmp_path: Path) -> None:
    ensembles = [ensemble(cell, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(2)) for cell in range(12)]
    line = collected(ensembles)["DEM", "S2L2A"]
    real = folder_of(tmp_path / "real", {one.observation.name: one.observation["s2l2a_thumbnail"] for one in ensembles}, "webp")
    fake = folder_of(tmp_path / "fake", {f"{one.observation.name}_v{k}": sample["s2l2a_thumbnail"]
                                         for one in ensembles for k, sample in enumerate(one.samples, 1)})
    found = lines_of_pair(real, fake, [MEANS])[0]
    assert sorted(found.fake.cells) == sorted(line.fake.cells) and set(found.real.cells) == set(line.real.cells)
    assert {name: number.text() for name, number in measured(found).items()} == {
        name: number.text() for name, number in measured(line).items()}
    np.save(tmp_path / "real.npy", found.real.vectors)
    save_file({"vectors": found.fake.vectors}, tmp_path / "fake.safetensors")
    again = lines_of_pair(tmp_path / "real.npy", tmp_path / "fake.safetensors", [])[0]
    assert measured(again)["FID ↓"].value == pytest.approx(measured(line)["FID ↓"].value)


@pytest.mark.parametrize(("real", "fake", "says"), [
    ("pictures", "v.npy", "two folders of pictures or two files of vectors"),
    ("pictures", "empty", "empty: holds no pictures"),
    ("pictures", "nothing", "nothing: there is no such folder"),
    ("v.npy", "line.npy", r"line.npy: no vectors could be read \(holds float64 of shape \[3\]"),
    ("v.npy", "bad.safetensors", "bad.safetensors: no vectors could be read"),
    ("v.npy", "several.npy", r"several.npy: no vectors could be read \(holds several arrays"),
    ("v.npy", "none.npy", r"none.npy: no vectors could be read \(holds float64 of shape \[0, 3\]"),
    ("v.npy", "objects.npy", "objects.npy: no vectors could be read"),
    ("v.npy", "claims.npy", r"claims.npy: no vectors could be read \(mmap length is greater than file size"),
    ("v.npy", "beyond.npy", "beyond.npy: no vectors could be read"),
    ("v.npy", "wide.npy", "vectors of 3 and of 4 coordinates"),
])
def test_what_cannot_be_compared_is_refused(tmp_path: Path, real: str, fake: str, says: str) -> None:
    folder_of(tmp_path / "pictures", {"a": levels(0)})
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "v.npy", np.zeros((4, 3)))
    np.save(tmp_path / "wide.npy", np.zeros((4, 4)))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, a=np.zeros((4, 3)))
    np.save(tmp_path / "line.npy", np.zeros(3))
    for name, many in (("claims", 10**9), ("beyond", 10**20)):         # terabytes by their headers, and nothing in them
        with (tmp_path / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (many, 2048)})
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=says):
        table_of(lines_of_pair(tmp_path / real, tmp_path / fake, [] if real == "v.npy" else [MEANS]))


def test_of_what_generate_wrote_the_samples_of_one_row_are_a_set(tmp_path: Path) -> None:
    """Contact sheets are none; samples of one scene are of one cell; two rows are no one set."""
    for name in ("a", "b"):
        for k in range(2):
            out = tmp_path / "out" / name / f"sample-{k:03d}"
            out.mkdir(parents=True)
            Image.fromarray(np.moveaxis(levels(k), 0, -1)).save(out / "S2L2A_thumbnail.png")
        Image.new("RGB", (64, 64)).save(tmp_path / "out" / name / "contact_sheet.png")
    real = folder_of(tmp_path / "real", {"a": levels(0), "b": levels(5)})
    line = lines_of_pair(real, tmp_path / "out", [MEANS])[0]
    assert line.real.cells == ("a", "b") and line.fake.cells == ("a", "a", "b", "b") and line.fake.vectors.shape == (4, 3)
    Image.fromarray(np.moveaxis(levels(9), 0, -1)).save(out / "DEM_thumbnail.png")
    with pytest.raises(ValueError, match=r"out: holds pictures of DEM_thumbnail, S2L2A_thumbnail, which are no one set"):
        lines_of_pair(real, tmp_path / "out", [MEANS])


def test_vectors_have_no_features_and_runs_of_two_tables_no_common_table(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((4, 3)))
    with pytest.raises(ValueError, match="holds vectors, which are features already; leave out --features means"):
        lines_of_pair(tmp_path / "v.npy", tmp_path / "v.npy", [MEANS])
    layers = replace(TABLE.subset(["dem", "s2l2a_10m"]), footprint=240)
    bands = np.ones((4, 24, 24), np.float32)
    other = Scene({"s2l2a_10m": bands}, None, "cell-0", layers, {"seed": 0})
    for name, one in (("beta", ensemble(0, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(2))),
                      ("base", Ensemble(Condition("single", ("dem",), ("s2l2a_10m",), 1), other, [], [other], "y"))):
        write_json(tmp_path / name / "plan.json", {**{key: {} for key in (*PLANNED, "expected")}, "generator": {"name": name}})
        write_ensemble(tmp_path / name / "samples" / "000" / "cell-0.safetensors", one)
        assert len(lines_of_runs([tmp_path / name], [MEANS])) == 1
    with pytest.raises(ValueError, match=r"base: is of other modalities, place, .* than .*beta; look at each by itself"):
        lines_of_runs([tmp_path / "beta", tmp_path / "base"], [MEANS])


def test_sets_need_features_that_make_vectors_and_samples_that_were_kept(tmp_path: Path) -> None:
    for features, says in (([], "no feature is named"), ([Feature("lpips", "distance", MEANS.call)], "makes distances of pairs")):
        with pytest.raises(ValueError, match=says):
            lines_of_runs([tmp_path], features)
    write_json(tmp_path / "plan.json", {**{key: {} for key in (*PLANNED, "expected")}, "generator": {"name": "x"}})
    with pytest.raises(ValueError, match="keeps no samples; evaluate with --keep"):
        lines_of_runs([tmp_path], [THUMBS])


def test_the_table_says_how_many_there_are_and_what_that_means() -> None:
    lines = collected([ensemble(cell, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(2)) for cell in range(6)])
    table = table_of(list(lines.values()))
    assert table.rows[0][:8] == ("x", "single", "DEM", "S2L2A", "means", 6, 6, 12)
    assert not any("lack rank" in note for note in table.notes)
    few = table_of(list(collected([ensemble(cell, ("dem_thumbnail",), ("s2l2a_thumbnail",), range(2)) for cell in range(3)]).values()))
    assert any("lack rank" in note and "means (3)" in note for note in few.notes)
