"""An evaluation of thumbnails is one of any layers: the same commands, errors in levels, and nothing that only other layers have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_evaluate_commands import ran, refused

from copgen.evaluation.arrays import results_of
from copgen.evaluation.asked import conditions
from copgen.evaluation.cases import open_cases
from copgen.evaluation.distribution import distribution_tables
from copgen.evaluation.features import rgb
from copgen.evaluation.folders import as_ensemble
from copgen.evaluation.generators import open_generator
from copgen.evaluation.kept import Ensemble, read_ensemble
from copgen.evaluation.metrics import metrics_of
from copgen.evaluation.recipe import Condition, NotHere, Protocol, Recipe, load_recipe
from copgen.evaluation.rows import read_rows
from copgen.evaluation.statistics import statistics
from copgen.evaluation.tables import paper_tables
from copgen.modalities import TABLE, THUMBNAILS
from copgen.report import report
from copgen.scene import Scene

RECIPES = Path(__file__).parents[1] / "recipes"
DRAWN = ("DEM", "S1RTC", "S2L1C", "S2L2A")
RECIPE = """
samples = 2
truths = 0
[[protocols]]
name = "unconditional"
given = [[]]
scored = ["S2L2A"]
samples = 5
cells = 1
[[protocols]]
name = "single"
given = [["S1RTC"]]
[[protocols]]
name = "all-minus-target"
without = [["DEM"], ["S2L2A"]]
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three squares as the published preparation leaves them: FOLDER/S2L2A_thumbnail/<cell>_<patch>.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for k, product in enumerate(DRAWN):
        (folder / f"{product}_thumbnail").mkdir()
        for cell in range(3):
            y, x = np.mgrid[:256, :256]
            wave = 100 + 20 * cell + 60 * np.sin((x + (k + 1) * y) / (9 + cell)) + np.random.default_rng([k, cell]).normal(0, 8, (256, 256))
            grey = Image.fromarray(np.clip(wave, 0, 255).astype(np.uint8))
            (grey if product == "DEM" else grey.convert("RGB")).save(folder / f"{product}_thumbnail" / f"618U_{cell}L_5.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_thumbnails: Path, pictures: Path) -> Path:
    """A random model of thumbnails on three squares, all samples kept."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "recipe.toml").write_text(RECIPE)
    said = ran("evaluate", "run", "--generator", f"{tiny_thumbnails},steps=1", "--cases", f"pictures:{pictures}", "--recipe",
               folder / "recipe.toml", "--out", folder / "run", "--keep", 3, "--device", "cpu")
    assert "10 ensembles: 10 done now, 0 before, 0 refused" in said
    return folder / "run"


def truth_and_samples(*levels: int) -> Ensemble:
    """A truth of level 10 and flat samples of these levels, in all four products."""
    case = Scene({row: np.full((3, 256, 256), 10, np.uint8) for row in THUMBNAILS.names}, None, "a", THUMBNAILS)
    drawn = [case.with_layers({row: np.full((3, 256, 256), level, np.uint8) for row in THUMBNAILS.names}, seed=k)
             for k, level in enumerate(levels)]
    return Ensemble(Condition("single", (), THUMBNAILS.names, len(drawn)), case, [], drawn, "x")


def test_errors_are_levels_with_a_sign_and_have_no_published_kin() -> None:
    rows = statistics(truth_and_samples(4, 30))
    found = {(row.statistic, row.seed): row.value for row in rows if row.modality == "S1RTC" and row.band == "green"}
    assert found["error", 0] == -6 and found["error", 1] == 20                       # 8 bits alone would say 250
    assert found["squared error", 0] == 36 and found["absolute error", 1] == 20
    assert found["psnr", 0] == pytest.approx(10 * np.log10(255**2 / 36))
    assert found["ssim", 1] == pytest.approx((2 * 10 * 30 + 6.5025) / (10**2 + 30**2 + 6.5025))     # of flat images, C1 = (0.01 x 255)^2
    assert {row.modality for row in rows} == set(DRAWN) and {row.band for row in rows} >= {"red", "green", "blue"}
    assert not any(row.statistic.startswith(("published", "consistency")) for row in rows)


def test_a_picture_is_its_own_red_green_and_blue() -> None:
    case = truth_and_samples(51).samples[0]
    for product in DRAWN:
        image = rgb(case, product)
        assert image is not None and image.dtype == np.float32 and image.min() == image.max() == np.float32(0.2)


def test_the_rows_become_tables_of_levels_a_page_and_sets(run: Path, tmp_path: Path) -> None:
    results = results_of(read_rows([run]))
    assert results[0].table == THUMBNAILS
    assert {one.shown for one in conditions(results)} == {"nothing", "S1RTC", "all but DEM", "all but S2L2A"}
    tables = {one.name: one for one in paper_tables(results, draws=20)}
    metrics = {str(row[2]) for name, one in tables.items() if name != "table-9" for row in one.rows}
    assert metrics and all("255" in one for one in metrics)
    assert not any("not given" in str(row) for one in tables.values() if one.counts for row in one.counts.rows)       # all four are
    assert {one.name for one in distribution_tables(results, draws=20)} == {"calibration"}
    said = ran("evaluate", "sets", run, "--features", "thumbnails", "--format", "csv", "--out", tmp_path / "tables")
    lines = [line.split(",") for line in said.splitlines() if line.startswith("tiny-thumbnails")]
    assert {(line[1], line[2], line[3], *line[5:8]) for line in lines} == {
        ("unconditional", "nothing", "S2L2A", "3", "3", "5"), ("single", "S1RTC", "DEM", "3", "3", "6"),
        ("single", "S1RTC", "S2L1C", "3", "3", "6"), ("single", "S1RTC", "S2L2A", "3", "3", "6"),
        ("all-minus-target", "S1RTC+S2L1C+S2L2A", "DEM", "3", "3", "6"), ("all-minus-target", "DEM+S1RTC+S2L1C", "S2L2A", "3", "3", "6")}
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["datasets.csv", "datasets.md", "datasets.tex"]
    page = report([run], tmp_path / "report", features=("thumbnails",), tables=[tables["table-6"]]).read_text()
    assert "All samples beside all truths" in page and "255 levels" in page and "reflectance, pooled" not in page


def test_kept_samples_of_pictures_are_scored_again_alike(run: Path, pictures: Path, tmp_path: Path) -> None:
    case = open_cases(f"pictures:{pictures}", THUMBNAILS).observation("618U_0L_5")
    again = open_generator(f"kept:{run}")
    assert again.table == THUMBNAILS
    drawn = again.samples(case, ("s1rtc_thumbnail",), ("dem_thumbnail",), range(2))
    kept = read_ensemble(run / "samples" / "001" / "618U_0L_5.safetensors")
    assert kept.observation.footprint is None and kept.observation.table.names == THUMBNAILS.names
    for one, other in zip(drawn, kept.samples, strict=True):
        assert one["dem_thumbnail"].dtype == np.uint8
        np.testing.assert_array_equal(one["dem_thumbnail"], other["dem_thumbnail"])


def test_what_generate_wrote_is_read_back_with_and_without_a_place(tiny_thumbnails: Path, pictures: Path, tmp_path: Path) -> None:
    source = pictures / "S1RTC_thumbnail" / "618U_1L_5.png"
    ran("generate", "--model", tiny_thumbnails, "--input", f"S1RTC={source}", "--want", "DEM,S2L2A", "--samples", 2, "--steps", 1,
        "--device", "cpu", "--out", tmp_path)
    case = open_cases(f"pictures:{pictures}", THUMBNAILS).observation("618U_1L_5")
    folder = open_generator(f"folder:{tmp_path}")
    drawn = folder.samples(case, ("s1rtc_thumbnail",), ("dem_thumbnail", "s2l2a_thumbnail"), range(2))
    direct = open_generator(f"{tiny_thumbnails},steps=1", device="cpu").samples(
        case, ("s1rtc_thumbnail",), ("dem_thumbnail", "s2l2a_thumbnail"), range(2))
    for one, other in zip(drawn, direct, strict=True):
        assert list(one.layers) == list(other.layers)
        for row, layer in one.layers.items():
            np.testing.assert_array_equal(layer, other[row], strict=True)
    elsewhere = open_cases(f"pictures:{pictures}", THUMBNAILS).observation("618U_2L_5")
    (tmp_path / "recipe.toml").write_text('samples = 2\ntruths = 0\n[[protocols]]\nname = "single"\ngiven = [["S1RTC"]]\n')
    for kind, source, out in (("folder", tmp_path / "618U_1L_5", "scored"), ("kept", tmp_path / "scored", "again")):
        ran("evaluate", "run", "--generator", f"{kind}:{source}", "--cases", f"pictures:{pictures}", "--recipe", tmp_path / "recipe.toml",
            "--out", tmp_path / out, "--keep", 3, "--device", "cpu")
        assert results_of(read_rows([tmp_path / out]))[0].table == THUMBNAILS
    assert folder.samples(elsewhere, ("s1rtc_thumbnail",), ("dem_thumbnail",), range(2)) == []       # another picture was given
    assert [set(one.layers) for one in as_ensemble(tmp_path / "618U_1L_5").samples] == [{"dem_thumbnail", "s2l2a_thumbnail"}] * 2


def test_cases_without_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "S2L2A_thumbnail").mkdir()
    (tmp_path / "S2L2A_thumbnail" / "a.png").write_text("no picture")
    for folder, table, says in ((tmp_path, THUMBNAILS, "there are none; folders DEM_thumbnail, S1RTC_thumbnail"),
                                (pictures, TABLE, "none of the generator's rows is one"), (tmp_path / "x", THUMBNAILS, "no such folder")):
        with pytest.raises(ValueError, match=says):
            open_cases(f"pictures:{folder}", table)
    assert "and not both" in refused("evaluate", "sets", "--real", pictures)


# --- recipes ------------------------------------------------------------------------------------------------------------------------

def test_the_recipe_of_beta_asks_for_every_way_between_the_four() -> None:
    recipe = load_recipe(RECIPES / "evaluate-beta.toml")
    asked = [question.condition(THUMBNAILS, THUMBNAILS.names) for question in recipe.questions]
    given = [frozenset(one.given) for one in asked]
    assert len(set(given)) == 1 + 4 + 6 + 4 == len(given)                              # every proper subset of the four
    for one in asked:
        assert set(one.given) | set(one.scored) == set(THUMBNAILS.names) and not set(one.given) & set(one.scored)
    assert [one.given_name for one in asked[:3]] == ["nothing", "DEM", "S1RTC"]


def test_a_recipe_of_products_is_for_either_table_and_says_what_a_generator_does_not_know() -> None:
    recipe = load_recipe(RECIPES / "evaluate.toml")
    reasons: list[Any] = []
    for question in recipe.questions:
        try:
            question.condition(THUMBNAILS, THUMBNAILS.names)
        except NotHere as reason:
            reasons.append(str(reason))
    assert "the generator knows no LULC" in reasons and len(reasons) < len(recipe.questions)
    condition = recipe.questions[0].condition(THUMBNAILS, THUMBNAILS.names)
    assert (condition.given_name, condition.scored) == ("S1RTC+S2L1C+S2L2A", ("dem_thumbnail",))


def test_words_of_different_tables_are_no_recipe() -> None:
    Recipe((Protocol("rows", given=(("s1rtc_thumbnail",),), scored=("dem_thumbnail",)),))
    with pytest.raises(ValueError, match="no modality or product is called 's1rtc_thumbnail'"):
        Recipe((Protocol("mixed", given=(("s1rtc_thumbnail", "LULC"),)),))


def test_pictures_have_metrics_of_levels_and_other_layers_their_own() -> None:
    assert [one.key for one in metrics_of("S2L2A", table=THUMBNAILS)] == ["mae-sane", "rmse-sane", "ssim-sane", "psnr-sane"]
    assert metrics_of("S2L2A", ["mae"], sane=False, table=THUMBNAILS)[0].convention == "levels of 255, mean over bands"
    assert {one.convention for one in metrics_of("S2L2A")} >= {"DN, mean over bands"}
