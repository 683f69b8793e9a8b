"""One codec for several rows is trained on all of them, stored once, and found by each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_codec
from typer.testing import CliRunner

from copgen.backbone import BackboneConfig, UViT
from copgen.cli import app
from copgen.codec import CodecConfig, KLCodec
from copgen.config import dump, parse
from copgen.files import sha256
from copgen.modalities import TABLE, TABLES, THUMBNAILS
from copgen.model import CopGen
from copgen.scene import Scene
from copgen.shards import write_shards
from copgen.store import load_codec, save_model
from copgen.training.backbone import train_backbone
from copgen.training.codec_report import codec_report, errors, open_codecs
from copgen.training.encode import check_codecs, codecs_of, encode
from copgen.training.loop import Optimisation
from copgen.training.recipe import BackboneTraining, CodecSizes, CodecTraining, Geometry, Recipe, read_recipe
from copgen.training.sources import Scenes, meta_of, packed_layers
from copgen.training.vae import Coded, train_vae

QUICK = Optimisation(steps=12, batch=8, learning_rate=3e-3, warm_up=3, weight_decay=0.0, betas=(0.9, 0.98), ema=0.9)
SMALL = Geometry("thumbnails", footprint=320, patch=2, latent_channels=3)          # 32 x 32 pixels, 4 x 4 latents, 20 tokens
SIZES = CodecSizes(8, (1, 2), blocks=1, stem=4, groups=4, attention=False, shortcut=True)
RECIPE = Recipe("small", SMALL, BackboneConfig(32, 2, 2), SIZES, shared_codec="rgb",
                train_vae=CodecTraining(QUICK, kl_weight=1e-4), train=BackboneTraining(QUICK))
RECIPES = Path(__file__).parents[1] / "recipes"
TEXT = 'name = "small"\nshared_codec = "rgb"\n[table]\nof = "thumbnails"\n'


def pictures(seed: int, rows: tuple[str, ...] = THUMBNAILS.names) -> Scene:
    """Smooth pictures of other colours in every row."""
    random = np.random.default_rng(seed)
    ramp = np.add.outer(*[np.linspace(0, 1, 32)] * 2)[None] / 2
    layers = {row: (255 * np.clip(random.uniform(0, 1, (3, 1, 1)) * ramp + random.uniform(0, 0.3), 0, 1)).astype(np.uint8) for row in rows}
    return Scene(layers, name=f"no. {seed}", table=RECIPE.modalities)


SCENES = [pictures(seed) for seed in range(6)]
SOURCE = Scenes("pictures", SCENES, RECIPE.modalities, incomplete=False)


# The recipe


@pytest.mark.parametrize("of", TABLES)
def test_a_recipe_may_be_of_any_table(of: str) -> None:
    assert Recipe("x", Geometry(of)).modalities == TABLES[of]
    assert parse(Recipe, dump(Recipe("x", Geometry(of, patch=4))), "again").modalities == replace(TABLES[of], patch=4)


def test_runs_that_were_started_without_the_choice_of_a_table_are_of_the_first() -> None:
    """What a run's record lacks is filled in from a recipe that says nothing."""
    assert dump(Recipe(""))["table"] == {"of": "copgen", "footprint": 1920, "stride": 8, "patch": 2, "latent_channels": 8, "rows": []}
    assert Geometry() == Geometry("copgen", TABLE.footprint, TABLE.stride, TABLE.patch, TABLE.latent_channels)


def test_rows_have_a_codec_each_or_one_for_all() -> None:
    shared, own = RECIPE, replace(RECIPE, shared_codec="")
    assert {shared.codec_name(row) for row in THUMBNAILS.names} == {"rgb"} and shared.coded_by("rgb") == THUMBNAILS.names
    assert all(own.codec_name(row) == row and own.coded_by(row) == (row,) for row in THUMBNAILS.names)
    assert shared.coded_by("dem_thumbnail") == own.coded_by("rgb") == ()
    assert Recipe("x", shared_codec="all").coded_by("all") == TABLE.images         # not place and date


@pytest.mark.parametrize(("text", "message"), [
    (TEXT.replace("thumbnails", "nope"), r"small\.toml: table: .*of = 'nope': no table is called that; there are copgen, thumbnails"),
    (TEXT + "footprint = -640", r"small\.toml: table: .*footprint = -640: is above 0, or left out"),
    (TEXT.replace('"rgb"', '"../rgb"'), r"shared_codec = '../rgb' becomes a folder's name; choose letters"),
    (TEXT + "[codec_of.DEM]\nwidth = 64\n", r"codec_of.DEM and shared_codec = 'rgb': .* leave out one"),
    (TEXT.replace("thumbnails", "copgen"), r"the pixels of lulc are not of the kind of dem's; leave shared_codec out"),
])
def test_what_can_not_be_shared_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_the_recipe_of_the_released_model_says_and_does_what_was_done_to_it(tmp_path: Path) -> None:
    """Facts of its published code and files; a small network's optimiser and average are then as they say."""
    recipe = read_recipe(RECIPES / "beta.toml")
    how, network = recipe.train.how, recipe.backbone
    assert recipe.modalities == THUMBNAILS and (network.width, network.depth, network.heads) == (1024, 20, 16)
    assert network == BackboneConfig() and recipe.codec_config("dem_thumbnail") == CodecConfig(3, 4)       # nothing beyond the paper
    assert recipe.train == BackboneTraining(how, activation_checkpointing=True)
    assert (how.batch, how.steps, how.clip, how.decay_power, how.precision) == (2048, 500_000, None, 0, "bf16")
    assert [how.rate(step) for step in (0, 2499, 4999, 113_999)] == pytest.approx([4e-8, 1e-4, 2e-4, 2e-4])

    codecs = dict.fromkeys(THUMBNAILS.names, tiny_codec(3, latent_channels=3))
    moments = encode(SOURCE, codecs, RECIPE.modalities, tmp_path / "moments")
    short = replace(how, batch=4, micro_batch=2, save_every=1, keep_every=1)
    small = replace(recipe, table=SMALL, backbone=BackboneConfig(32, 2, 2), train=replace(recipe.train, how=short))
    train_backbone(small, moments, codecs, tmp_path / "run", stop=2)
    first, second = (torch.load(tmp_path / "run" / "checkpoints" / f"{step}.pt", weights_only=True) for step in (1, 2))
    player = second["players"]["backbone"]
    (group,) = player["optimiser"]["param_groups"]                       # biases and norms too
    assert len(group["params"]) == len(list(UViT(small.modalities, small.backbone).parameters()))
    assert (tuple(group["betas"]), group["weight_decay"], group["eps"]) == ((0.99, 0.99), 0.03, 1e-8)
    assert group["lr"] == pytest.approx(2 * 2e-4 / 5000)
    for name, average in second["average"].items():                      # constant from the first step on
        expected = 0.9999 * first["average"][name].double() + 1e-4 * player["objective"][name].double()
        assert torch.allclose(average.double(), expected, rtol=0, atol=1e-7)
    name = "network.norm.bias"                   # starts at 0: a quicker average would have moved ten times as far and more
    assert 0 < second["average"][name].abs().max() < 2e-4 * player["objective"][name].abs().max()


# Its training


def test_the_samples_are_one_rows_after_anothers() -> None:
    some = Scenes("some", [*SCENES[:2], pictures(9, ("s1rtc_thumbnail",)), SCENES[3]], RECIPE.modalities)
    rows = [THUMBNAILS["dem_thumbnail"], THUMBNAILS["s1rtc_thumbnail"]]
    samples = Coded(rows, some)
    assert samples.starts.tolist() == [0, 3, 7] and int(samples.counts.sum()) == 7
    assert samples.first(4).tolist() == [0, 1, 3, 4] and samples.first(100).tolist() == list(range(7))
    expected = [some.scenes[k]["dem_thumbnail"] for k in (0, 1, 3)] + [scene["s1rtc_thumbnail"] for scene in some.scenes]
    numbers = np.array([5, 0, 2, 2, 6, 3])
    assert np.array_equal(samples.pixels(numbers), np.stack([rows[0].scale.to_model(expected[k]) for k in numbers]))


def test_a_shared_codec_starts_as_the_principal_components_of_all_rows(tmp_path: Path) -> None:
    codec = train_vae("rgb", replace(RECIPE, train_vae=CodecTraining(replace(QUICK, steps=1, learning_rate=0.0))), SOURCE, tmp_path)
    expected = KLCodec(codec.config)
    expected.start_from_principal_components(torch.cat([Coded([row], SOURCE).pixels(np.arange(6)) for row in THUMBNAILS.rows]))
    for part in ("analysis", "synthesis"):
        assert torch.equal(getattr(codec, part).weight, getattr(expected, part).weight)


def test_a_codec_is_trained_by_the_name_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dem_thumbnail needs no codec; those that do are rgb"):
        train_vae("dem_thumbnail", RECIPE, SOURCE, tmp_path / "own")
    codec = train_vae("rgb", RECIPE, SOURCE, tmp_path / "rgb")
    assert (tmp_path / "rgb" / "previews" / f"{QUICK.steps}.png").is_file()
    shared = codecs_of(RECIPE, tmp_path)
    assert list(shared) == list(THUMBNAILS.names) and len(set(map(id, shared.values()))) == 1
    same = load_codec(tmp_path / "rgb").state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in codec.state_dict().items())


def test_the_errors_of_pictures_are_in_levels() -> None:
    truth = np.full((2, 3, 4, 4), 100, np.uint8)
    made = truth + np.array([0, 2, 4], np.uint8)[:, None, None]
    found = errors(THUMBNAILS["s2l2a_thumbnail"], truth, made)
    assert found["mae"] == 2 and found["rmse blue"] == 4
    assert found["psnr"] == pytest.approx(20 * np.log10(255 / np.sqrt(20 / 3)))


def test_a_report_looks_at_every_row_of_a_shared_codec(tmp_path: Path) -> None:
    train_vae("rgb", RECIPE, Scenes("pictures of training", SCENES, RECIPE.modalities), tmp_path / "rgb")
    here, others = Scenes("here", SCENES[:3], RECIPE.modalities), Scenes("others", SCENES[3:], RECIPE.modalities)
    for folder in (tmp_path, tmp_path / "rgb"):
        codecs = open_codecs(str(folder))
        assert len(set(map(id, codecs.by_row.values()))) == 1
        report = codec_report(codecs, here, others)
        assert list(report["rows"]) == list(THUMBNAILS.names) and report["rows"]["dem_thumbnail"]["unit"] == "8-bit"
        assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(open_codecs(str(tmp_path), "S2L2A").by_row) == ["s2l2a_thumbnail"]


def test_the_commands_know_it_by_its_name_and_by_its_rows(tmp_path: Path) -> None:
    """`copgen train-vae rgb`, and any row's name means the same; then `encode` and `train` find it."""
    write_shards(tmp_path / "layers", 6, lambda numbers: packed_layers(SOURCE, RECIPE.modalities, numbers), per_shard=6,
                 meta=meta_of(SOURCE, RECIPE.modalities))
    (tmp_path / "small.json").write_text(json.dumps(dump(RECIPE)))
    steps, recipe = "--set=train_vae.how.steps=2", ("--recipe", str(tmp_path / "small.json"))
    for name in ("rgb", "DEM"):
        run("train-vae", name, *recipe, "--data", tmp_path / "layers", "--out", tmp_path / name / "rgb", steps)
    assert sha256(tmp_path / "rgb" / "rgb" / "codec.safetensors") == sha256(tmp_path / "DEM" / "rgb" / "codec.safetensors")
    run("encode", *recipe, "--vaes", tmp_path / "rgb", "--data", tmp_path / "layers", "--out", tmp_path / "moments")
    run("train", *recipe, "--vaes", tmp_path / "rgb", "--latents", tmp_path / "moments", "--out", tmp_path / "run",
        "--set=train.how.steps=2")
    assert CopGen(tmp_path / "run" / "model").record.codecs == dict.fromkeys(THUMBNAILS.names, "rgb")


def run(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


# Its model


def test_rows_of_one_name_share_a_folder(tmp_path: Path) -> None:
    codec = tiny_codec(3, latent_channels=3)
    save_model(tmp_path / "m", "m", "CC0", UViT(RECIPE.modalities, RECIPE.backbone), dict.fromkeys(THUMBNAILS.names, codec),
               name_of=RECIPE.codec_name)
    assert [path.name for path in (tmp_path / "m" / "vae").iterdir()] == ["rgb"]
    model = CopGen(tmp_path / "m")
    assert model.table == RECIPE.modalities and len({id(model.codec(row)) for row in model.table.names}) == 1
    assert set(model.weights_sha256(["dem_thumbnail"])) == {"backbone.safetensors", "vae/rgb/codec.safetensors"}


def test_from_pictures_to_pictures(tmp_path: Path) -> None:
    """Codec, moments, backbone, model folder, samples: all that a recipe of thumbnails needs."""
    train_vae("rgb", RECIPE, SOURCE, tmp_path / "vae" / "rgb")
    codecs = codecs_of(RECIPE, tmp_path / "vae")
    made_by = dict.fromkeys(codecs, sha256(tmp_path / "vae" / "rgb" / "codec.safetensors"))
    moments = encode(SOURCE, codecs, RECIPE.modalities, tmp_path / "moments", per_shard=4, made_by=made_by)
    check_codecs(moments, tmp_path / "vae", RECIPE.codec_name)
    with pytest.raises(ValueError, match=r"dem_thumbnail/codec.safetensors: is not the codec that made the moments"):
        check_codecs(moments, tmp_path / "vae")
    network = train_backbone(RECIPE, moments, codecs, tmp_path / "run")
    save_model(tmp_path / "m", "m", "CC0", network, codecs, half=True, name_of=RECIPE.codec_name)
    model = CopGen(tmp_path / "m", precision="fp32")
    assert all(isinstance(codec, KLCodec) for codec in map(model.codec, THUMBNAILS.names))
    given = SCENES[0].only("s1rtc_thumbnail")
    one, two = model.generate(given, "S2L2A", seeds=[3, 4], steps=3)
    assert one["s2l2a_thumbnail"].dtype == np.uint8 and one["s2l2a_thumbnail"].shape == (3, 32, 32)
    assert not np.array_equal(one["s2l2a_thumbnail"], two["s2l2a_thumbnail"])
