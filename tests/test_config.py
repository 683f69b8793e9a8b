"""A recipe is read as it is written or refused with file, key and value."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY

from copgen.backbone import UViT
from copgen.codec import CodecConfig
from copgen.config import dump, load, parse
from copgen.modalities import TABLE
from copgen.training.loop import Optimisation
from copgen.training.recipe import CodecSizes, Recipe, read_recipe

RECIPES = sorted(path for path in (REPOSITORY / "recipes").glob("*.toml") if not path.stem.startswith("evaluate"))   # of models
TEXT = """
name = "small"
[table]
patch = 4
[backbone]
width = 32
depth = 2
heads = 2
[codec]
width = 8
multipliers = [1, 2]
stem = 4
groups = 4
[train.how]
steps = 7
betas = [0.9, 0.98]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_makes_a_model(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    for row in recipe.modalities.images:
        assert recipe.codec_config(row).stride == recipe.table.stride
    assert recipe.backbone.width % recipe.backbone.heads == 0


def test_there_is_a_recipe_for_the_bundled_model() -> None:
    assert "nano" in [path.stem for path in RECIPES]


def test_what_is_written_is_what_is_read(recipe: Path) -> None:
    read = read_recipe(recipe)
    assert read.modalities == TINY
    assert (read.backbone.width, read.backbone.depth, read.backbone.heads) == (32, 2, 2)
    assert read.codec == CodecSizes(width=8, multipliers=(1, 2), stem=4, groups=4)
    assert read.codec_config("lulc") == CodecConfig(10, 8, 8, (1, 2), 2, 4, 4)
    assert read.train.how.betas == (0.9, 0.98) and read.train.how.steps == 7
    assert read.train_vae.how.batch == Recipe("x").train_vae.how.batch               # what is not written is the paper's


def test_a_recipe_that_says_nothing_is_the_papers() -> None:
    paper = Recipe("paper")
    assert paper.modalities == TABLE
    assert paper.codec_config("s1rtc") == CodecConfig(2)
    how = paper.train.how
    assert (how.steps, how.batch, how.learning_rate, how.warm_up) == (500_000, 4096, 2e-4, 5000)
    assert (paper.train_vae.how.learning_rate, paper.train_vae.kl_weight) == (5e-6, 1e-6)


def test_what_is_dumped_can_be_read_again(recipe: Path) -> None:
    read = read_recipe(recipe, ("codec_of.dem.width=4", "codec_of.dem.multipliers=[1,2]", "codec_of.dem.stem=4", "codec_of.dem.groups=4"))
    assert parse(Recipe, dump(read), "again") == read


@pytest.mark.parametrize("called", ["dem", "DEM", "DEM_DEM"])
def test_a_rows_own_codec_may_be_called_by_any_of_its_names(recipe: Path, called: str) -> None:
    sizes = "width = 16\nmultipliers = [1, 2]\nstem = 4\ngroups = 4\n"
    recipe.write_text(f"{TEXT}\n[codec_of.{called}]\n{sizes}")
    assert read_recipe(recipe).codec_config("dem").width == 16
    assert read_recipe(recipe).codec_config("lulc").width == 8


def test_a_products_codec_is_its_rows(recipe: Path) -> None:
    recipe.write_text(f"{TEXT}\n[codec_of]\nS2L2A = {{width = 16, multipliers = [1, 2], stem = 4, groups = 4}}\n"
                      "s2l2a_60m = {width = 4, multipliers = [1, 2], stem = 4, groups = 4}\n")
    read = read_recipe(recipe)
    assert [read.codec_config(row).width for row in ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m", "s2l1c_60m")] == [16, 16, 4, 8]


@pytest.mark.parametrize(("override", "value"), [
    ("train.how.steps=9", 9),
    ("train.how.steps = 1_000", 1000),
    ("train_vae.how.learning_rate=1e-3", 1e-3),
    ("train_vae.how.betas=[0.5, 0.6]", (0.5, 0.6)),
    ("name=other", "other"),
    ('name="a b"', "a b"),
    ("backbone.positions=ground", "ground"),
    ("codec.attention=false", False),
])
def test_an_override_changes_one_value(recipe: Path, override: str, value: object) -> None:
    found: object = read_recipe(recipe, (override,))
    for key in override.partition("=")[0].strip().split("."):
        found = getattr(found, key)
    assert found == value
    assert recipe.read_text() == TEXT


@pytest.mark.parametrize(("override", "message"), [
    ("train.how.stepz=9", r"small.toml: train.how.stepz: Unexpected keyword argument \(got 9\)"),
    ("trian.how.steps=9", r"small.toml: trian: Unexpected"),
    ("train.how.steps=many", r"small.toml: train.how.steps: .*valid integer.*\(got 'many'\)"),
    ("train.how.steps=0", r"small.toml: train.how: .*steps 0, batch \d+: both are 1 or more"),
    ("train.how.batch=-1", r"batch -1: both are 1 or more"),
    ("train.how.precision=fp16", r"train.how.precision: Input should be 'fp32', 'bf16' or 'fp64' \(got 'fp16'\)"),
    ("train.how.betas=[0.9]", r"train.how.betas"),
    ("backbone.heads=5", r"small.toml: backbone: .*width 32: must be a multiple"),
    ("backbone.depth=3", r"depth 3: must be even"),
    ("codec.stem=2", r"recipe small: the codec of dem has stride 4, the table 8"),
    ("table.stride=16", r"the codec of dem has stride 8, the table 16"),
    ("codec.groups=3", r"a multiple of the groups"),
    ("codec_of.nope.width=8", r"no modality or product is called 'nope'"),
    ("name.first=x", r"--set name.first=x: name is a value, not a section"),
    ("train.how.steps", r"--set train.how.steps: expected key.path=value"),
])
def test_an_override_that_cannot_be_is_refused(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe, (override,))


@pytest.mark.parametrize(("text", "message"), [
    ("", r"small.toml: name: "),
    ("name = 3", r"small.toml: name: Input should be a valid string \(got 3\)"),
    ("name = ", r"small.toml: could not be read \("),
    ('name = "a"\nname = "b"', r"small.toml: could not be read \("),
    ('name = "a"\nsteps = 3', r"small.toml: steps: Unexpected keyword argument"),
    ('name = "a"\n[train]\nhow = 3', r"small.toml: train.how"),
])
def test_a_recipe_that_cannot_be_is_refused(recipe: Path, text: str, message: str) -> None:
    recipe.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.toml: there is no such file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary.toml: could not be read"):
        read_recipe(tmp_path / "binary.toml")
    with pytest.raises(ValueError, match=r"could not be read"):
        read_recipe(tmp_path)


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "how.json"
    path.write_text('{"steps": 3, "betas": [0.5, 0.6]}')
    assert load(Optimisation, path) == Optimisation(steps=3, betas=(0.5, 0.6))
    path.write_text("[1]")
    for overrides in ((), ("steps=4",)):
        with pytest.raises(ValueError, match=r"how.json: expected keys and values, got list"):
            load(Optimisation, path, overrides)


@pytest.mark.parametrize(("override", "row"), [("table.patch=8", "s2l1c_20m"), ("table.patch=3", "dem"), ("table.footprint=2000", "dem")])
def test_a_square_that_tokens_do_not_fill_is_refused(recipe: Path, override: str, row: str) -> None:
    read = read_recipe(recipe, (override,))
    with pytest.raises(ValueError, match=rf"{row}: \d+ m is not a whole number of tokens"):
        UViT(read.modalities, read.backbone)


@pytest.mark.parametrize("name, batch", [("base", 4096), ("base-as-run", 1024)])
def test_the_papers_recipe_is_the_papers(name: str, batch: int) -> None:
    """Section 3.3.2, and the batch that the published code amounts to; nothing of what goes beyond it is on."""
    recipe = read_recipe(REPOSITORY / "recipes" / f"{name}.toml")
    how, train = recipe.train.how, recipe.train
    assert recipe.modalities == TABLE and recipe.modalities.sequence_length == 834
    assert (recipe.backbone.width, recipe.backbone.depth, recipe.backbone.heads) == (1024, 20, 16)
    assert (how.steps, how.batch, how.learning_rate, how.weight_decay, how.betas) == (500_000, batch, 2e-4, 0.03, (0.99, 0.99))
    assert (how.warm_up, how.ema, how.clip, how.rate(4999), how.rate(400_000)) == (5000, 0.9999, None, 2e-4, 2e-4)
    assert (train.modality_dropout, train.clean_conditions, train.shared_times, train.weights) == (0.0, 0.0, 0.0, "uniform")
    assert (train.weighting, train.channels, recipe.backbone.prediction, recipe.backbone.canvas) == ("noise", "uniform", "noise", 0)
