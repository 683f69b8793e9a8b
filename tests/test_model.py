"""What is drawn depends on the seed, what is given and the settings: not on the company a sample is drawn in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, needs_amx
from rasterio.crs import CRS
from safetensors.torch import load_file, save_file

from copgen import diffusion
from copgen.codec import Identity
from copgen.diffusion import default_steps
from copgen.inference import kernels
from copgen.inference.linear import PackedLinear
from copgen.modalities import Table
from copgen.model import MOST_AT_ONCE, CopGen, gaussian
from copgen.scene import Footprint, Scene, checked
from copgen.synthetic import world

STEPS = 3


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> CopGen:
    return CopGen.from_pretrained(tiny_model, device="cpu", precision="fp32")


@pytest.fixture
def in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU draws one sample at a time, a GPU many at once: as if this were one."""
    monkeypatch.setitem(MOST_AT_ONCE, "cpu", 16)


def assert_same(one: Scene, other: Scene, rows: str | None = None) -> None:
    """The same layers: within 2 DN, a few metres, a thousandth of a decade; classes the same but where two are equally likely."""
    names = one.layers if rows is None else one.table.select(rows)
    for name in names:
        a, b = one[name], other[name]
        if name == "date" or TINY[name].legend:
            assert (a == b).mean() > 0.999, name
        else:
            absolute, relative = {"dem": (0.1, 1e-3), "s1rtc": (1e-5, 1e-3), "place": (1e-3, 0)}.get(name, (2, 0))
            np.testing.assert_allclose(a, b, rtol=relative, atol=absolute, err_msg=name)


def differ(one: Scene, other: Scene, name: str) -> bool:
    return not np.allclose(one[name].astype(float), other[name].astype(float), rtol=1e-2, atol=1)


@pytest.mark.usefixtures("in_batches")
def test_a_seed_alone_is_the_seed_in_a_batch_in_any_order(model: CopGen, scene: Scene) -> None:
    given = scene.only("DEM,LULC,place")
    seeds = [7, 0, 123_456_789_012, 3]
    together = model.generate(given, seeds=seeds, steps=STEPS)
    backwards = model.generate(given, seeds=seeds[::-1], steps=STEPS)
    for seed, sample, other in zip(seeds, together, backwards[::-1], strict=True):
        (alone,) = model.generate(given, seeds=[seed], steps=STEPS)
        assert sample.notes["seed"] == other.notes["seed"] == alone.notes["seed"] == seed
        assert_same(sample, alone)
        assert_same(sample, other)


def test_a_sample_does_not_depend_on_what_else_is_wanted(model: CopGen, scene: Scene) -> None:
    given = scene.only("DEM,S1RTC")
    (everything,) = model.generate(given, seeds=[5], steps=STEPS)
    for want in ("S2L2A", "lulc,place", "date"):
        (some,) = model.generate(given, want, seeds=[5], steps=STEPS)
        assert tuple(some.layers) == TINY.select(want)
        assert_same(some, everything, want)


def test_the_same_call_gives_the_same_bits(model: CopGen, scene: Scene) -> None:
    one, two = (model.generate(scene.only("S2L1C"), seeds=[1], steps=STEPS)[0] for _ in range(2))
    for name in one.layers:
        np.testing.assert_array_equal(one[name], two[name])


def test_a_seed_asked_twice_is_drawn_twice_alike(model: CopGen) -> None:
    one, two = model.generate(None, "dem", seeds=[3, 3], steps=STEPS)
    np.testing.assert_allclose(one["dem"], two["dem"], rtol=1e-4)


def test_seeds_and_conditions_make_a_difference(model: CopGen, scene: Scene) -> None:
    given = scene.only("DEM,LULC")
    a, b = model.generate(given, "S2L2A,S1RTC", seeds=[0, 1], steps=STEPS)
    flat = scene.without(scene.table.names).with_layers({"dem": np.full((1, 64, 64), 5.0), "lulc": scene["lulc"]})
    (c,) = model.generate(flat, "S2L2A,S1RTC", seeds=[0], steps=STEPS)
    for name in a.layers:
        assert differ(a, b, name) and differ(a, c, name), name


@pytest.mark.parametrize(("given", "want", "expected"), [
    (None, None, TINY.names),
    ("", "DEM", ("dem",)),
    ("place,date", None, tuple(name for name in TINY.names if name not in ("place", "date"))),
    ("s2l1c_10m", "S2L1C_B01_B09_B10,s2l1c_20m", ("s2l1c_20m", "s2l1c_60m")),           # band infilling
    ("S2L1C", "S2L2A", ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m")),
    ("S2L2A", "place,date", ("place", "date")),
    ("S2L1C,S2L2A,DEM,S1RTC,place,date,cloud_mask", None, ("lulc",)),
])
@pytest.mark.parametrize("absent", ["joint", "noise", "drop"])
def test_any_layers_in_any_others_out(model: CopGen, scene: Scene, given: str | None, want: str | None, expected, absent) -> None:
    conditions = None if given is None else scene.only(given)
    (sample,) = model.generate(conditions, want, steps=2, absent=absent)
    assert tuple(sample.layers) == expected
    for name, layer in sample.layers.items():                                        # of the rows' types and ranges
        assert layer.dtype == checked(TINY, name, layer).dtype
        np.testing.assert_array_equal(checked(TINY, name, layer), layer)
    assert sample.notes["given"] == ([] if conditions is None else list(conditions.layers))


def test_an_empty_scene_is_no_scene(model: CopGen) -> None:
    assert_same(model.generate(None, "DEM", steps=STEPS)[0], model.generate(Scene(), "DEM", steps=STEPS)[0])


def test_ground_name_and_notes_are_kept(model: CopGen, scene: Scene) -> None:
    ground = Footprint(CRS.from_epsg(32630), 500_000, 6_200_000)
    given = Scene({"dem": scene["dem"]}, ground, "tile", notes={"file": "dem.tif"})
    (sample,) = model.generate(given, "lulc", seeds=[4], steps=STEPS, solver="published", absent="drop", posterior="sample")
    assert (sample.footprint, sample.name) == (ground, "tile")
    settings = {"file": "dem.tif", "seed": 4, "model": "tiny", "solver": "published", "steps": STEPS, "absent": "drop",
                "posterior": "sample", "precision": "fp32", "batch": 1, "given": ["dem"]}
    assert settings.items() <= sample.notes.items()
    assert given.notes == {"file": "dem.tif"} and list(given.layers) == ["dem"]


@pytest.mark.parametrize(("given", "call", "message"), [
    ("DEM,LULC", {"want": "LULC,S1RTC"}, "^lulc: both given and wanted"),
    ("s2l1c_10m", {"want": "S2L1C"}, "s2l1c_10m: both given and wanted"),
    (",".join(TINY.names), {}, "nothing is wanted: every row is given"),
    ("DEM", {"want": ""}, "nothing is wanted"),
    ("DEM", {"want": []}, "nothing is wanted"),
    ("DEM", {"want": "S2L2B"}, "no modality or product is called 'S2L2B'"),
    ("DEM", {"steps": 0}, "steps = 0: .* 1 or more"),
    ("DEM", {"steps": -3}, "steps = -3"),
    ("DEM", {"seeds": []}, "0 samples: at least one seed"),
    ("DEM", {"seeds": [3, -1]}, "seed -1: seeds are whole numbers, 0 or larger"),
    ("DEM", {"solver": "euler"}, "no solver is called 'euler'; there are: .*published"),
    ("DEM", {"precision": "fp8"}, "precision 'fp8': choose auto, bf16, fp32 or int8"),
    ("DEM", {"absent": "maybe"}, "absent 'maybe': choose joint, noise or drop"),
    ("DEM", {"posterior": "median"}, "posterior 'median': choose mean or sample"),
    ("DEM", {"max_memory": 1000}, "max memory 0 MiB: one sample needs about"),
    ("DEM", {"max_memory": 0}, "max memory 0 MiB"),
])
def test_a_call_that_cannot_be_is_refused(model: CopGen, scene: Scene, given: str, call: dict, message: str) -> None:
    calls = []
    with pytest.raises(ValueError, match=message):
        model.generate(scene.only(given), **call, progress=lambda *counts: calls.append(counts))
    assert not calls


def test_a_scene_of_another_footprint_is_refused(model: CopGen) -> None:
    with pytest.raises(ValueError, match="a square of 2560 m; model tiny sees 1920 m"):
        model.generate(Scene(table=Table(footprint=2560)), "DEM")


def test_a_scene_of_the_released_table_fits_a_model_with_larger_patches(model: CopGen, scene: Scene) -> None:
    """Patches divide latents; the ground is the same."""
    other = Scene({"dem": scene["dem"]}, table=Table(patch=2))
    assert_same(model.generate(other, "lulc", steps=STEPS)[0], model.generate(scene.only("dem"), "lulc", steps=STEPS)[0])


@pytest.mark.parametrize("absent", ["noise", "drop"])
def test_rows_left_out_are_quicker_and_another_distribution(model: CopGen, scene: Scene, absent, monkeypatch) -> None:
    seen: list[set[str]] = []
    sample = diffusion.sample

    def watched(backbone, *args, **options):
        def call(latents, times):
            seen.append(set(latents))
            assert all((times[row] == 0).all() == (row == "dem") for row in latents)
            assert all((times[row] == 1000).all() for row in latents if row not in ("dem", "lulc"))
            return backbone(latents, times)
        return sample(call, *args, **options)

    monkeypatch.setattr(diffusion, "sample", watched)
    given = scene.only("dem")
    (one, two), (alone,) = (model.generate(given, "lulc", seeds=seeds, steps=STEPS, absent=absent) for seeds in ([0, 1], [0]))
    assert all(rows == (set(TINY.names) if absent == "noise" else {"dem", "lulc"}) for rows in seen)
    assert_same(one, alone)
    assert not np.array_equal(one["lulc"], two["lulc"])
    monkeypatch.undo()
    assert not np.array_equal(one["lulc"], model.generate(given, "lulc", steps=STEPS)[0]["lulc"])


def test_a_posteriors_draw_is_not_its_mean_and_is_of_the_sample_alone(model: CopGen, scene: Scene) -> None:
    given = scene.only("DEM,S2L2A")
    mean = model.generate(given, "S1RTC", seeds=[0, 1], steps=STEPS)
    drawn = model.generate(given, "S1RTC", seeds=[0, 1], steps=STEPS, posterior="sample")
    (alone,) = model.generate(given, "S1RTC", seeds=[1], steps=STEPS, posterior="sample")
    assert not np.allclose(mean[1]["s1rtc"], drawn[1]["s1rtc"], rtol=1e-3)
    assert_same(alone, drawn[1])


def test_place_and_date_are_given_as_they_are_whatever_the_posterior(model: CopGen, scene: Scene) -> None:
    given = scene.only("place,date")
    a, b = (model.generate(given, "dem", steps=STEPS, posterior=posterior)[0] for posterior in ("mean", "sample"))
    np.testing.assert_array_equal(a["dem"], b["dem"])


def test_only_the_codecs_that_a_call_needs_are_read(tiny_model: Path, scene: Scene) -> None:
    model = CopGen(tiny_model, device="cpu", precision="fp32")
    assert not model.codecs._halves and not model._backbones
    model.generate(scene.only("DEM,place"), "LULC,date", steps=1)
    assert {key[:2] for key in model.codecs._halves} == {("dem", "encoder"), ("lulc", "decoder")}
    model.generate(None, "place", steps=1)
    assert len(model.codecs._halves) == 2 and not model.codecs._whole
    assert isinstance(model.codec("place"), Identity)


def test_generated_places_are_on_earth_and_dates_in_the_calendar(model: CopGen) -> None:
    for sample in model.generate(None, "place,date", seeds=range(20), steps=2):
        lat, lon = sample["place"]
        assert -90 <= lat <= 90 and -180 <= lon <= 180
        assert np.datetime64("1950-01-01") <= sample["date"][0] <= np.datetime64("2050-12-31")


@pytest.mark.usefixtures("in_batches")
@pytest.mark.parametrize("solver", ["default", "published"])
@pytest.mark.parametrize("memory", [None, "two samples"])
def test_progress_counts_every_call_once_and_ends_at_the_total(model: CopGen, solver: str, memory: str | None) -> None:
    counts: list[tuple[int, int, int, int]] = []
    model.generate(None, "date", seeds=range(5), steps=4, solver=solver, max_memory=memory and room_for(model, 2),
                   progress=lambda *count: counts.append(count))
    calls, of, samples, of_samples = (list(column) for column in zip(*counts, strict=True))
    assert set(of) == {5 * 4} and set(of_samples) == {5}
    assert calls == sorted(calls) and samples == sorted(samples)
    assert (calls[-1], samples[-1]) == (20, 5)
    assert len(counts) == 4 * (1 if memory is None else 3) + 1


def room_for(model: CopGen, samples: int) -> int:
    """The smallest memory, to a KiB, that takes this many samples of the date at once."""
    def fits(kibibytes: int) -> bool:
        try:
            return model._plan((), ("date",), model.backbone, kibibytes << 10, 1).at_once >= samples
        except ValueError:
            return False

    return next(kibibytes << 10 for kibibytes in range(1, 10_000) if fits(kibibytes))


@pytest.mark.usefixtures("in_batches")
def test_chunks_give_the_samples_of_one_batch(model: CopGen, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    given = scene.only("S2L1C")
    whole = model.generate(given, "S2L2A,LULC", seeds=range(5), steps=STEPS, posterior="sample")
    batches: list[int] = []
    sample = diffusion.sample
    monkeypatch.setattr(diffusion, "sample",
                        lambda *args, **options: (batches.append(len(args[1]["lulc"])), sample(*args, **options))[1])
    monkeypatch.setitem(MOST_AT_ONCE, "cpu", 2)
    chunks = model.generate(given, "S2L2A,LULC", seeds=range(5), steps=STEPS, posterior="sample")
    assert batches == [2, 2, 1]
    for one, other in zip(whole, chunks, strict=True):
        assert_same(one, other)


def test_another_process_draws_the_same_sample(model: CopGen, tmp_path: Path) -> None:
    """Whatever Python's hashes are salted with."""
    script = f"""if True:
        import numpy as np
        from copgen.model import CopGen
        model = CopGen.from_pretrained({str(model.folder)!r}, device="cpu", precision="fp32")
        samples = model.generate(None, "S2L2A,date", seeds=[3, 2**70], steps={STEPS})
        np.savez({str(tmp_path / "sample.npz")!r}, **samples[1].layers)
    """
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"})
    with np.load(tmp_path / "sample.npz") as layers:
        assert_same(Scene(dict(layers)), model.generate(None, "S2L2A,date", seeds=[2**70], steps=STEPS)[0])


def test_noise_is_standard_normal_and_of_its_own_for_every_seed_and_row() -> None:
    noise = gaussian(range(400), "lulc", (8, 8, 8))
    assert noise.mean().abs() < 0.01 and (noise.std() - 1).abs() < 0.01
    flat = torch.cat([noise[:40].flatten(1), gaussian(range(40), "dem", (8, 8, 8)).flatten(1),
                      gaussian(range(40), "lulc/posterior", (8, 8, 8)).flatten(1)])
    off = torch.corrcoef(flat) - torch.eye(120)
    assert off.abs().max() < 0.25                                                   # 512 numbers each: 5 sigma is 0.22


def test_the_noise_of_a_seed_is_the_same_in_every_version() -> None:
    """A change here changes every sample that anybody ever drew."""
    torch.testing.assert_close(gaussian([0], "dem", (3,))[0], torch.tensor([-0.7734, 0.0781, -1.0619]), rtol=0, atol=1e-4)


def test_more_seeds_are_drawn_as_fewer() -> None:
    assert torch.equal(gaussian([9, 1, 5], "dem", (4,))[1:], gaussian([1, 5], "dem", (4,)))


def test_the_published_solver_has_the_published_steps() -> None:
    assert default_steps("published") == 50
    assert default_steps("default") <= 15


def test_bfloat16_is_near_float32(model: CopGen, scene: Scene) -> None:
    given = scene.only("DEM,S2L1C,place")
    exact, half = (model.generate(given, "S2L2A", seeds=[0], steps=STEPS, precision=precision)[0] for precision in ("fp32", "bf16"))
    assert half.notes["precision"] == "bf16" and exact.notes["precision"] == "fp32"
    for name in exact.layers:
        assert half[name].dtype == np.float32
        assert 0 < np.abs(half[name] - exact[name]).mean() < 0.1 * exact[name].std(), name


@needs_amx
def test_8_bits_err_as_bfloat16_does_and_a_sample_is_its_seeds() -> None:
    nano = CopGen.from_pretrained("nano", device="cpu")
    given = world(10_000_001, nano.table).only("DEM,LULC")
    exact, half, eight = (nano.generate(given, "S2L2A", seeds=[3], steps=STEPS, precision=precision)[0]
                          for precision in ("fp32", "bf16", "int8"))
    assert eight.notes["precision"] == "int8"
    assert all(isinstance(layer, PackedLinear) and layer.scales is not None for block in nano.backbone_in("int8").blocks
               for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2))
    for name in eight.table.select("S2L2A"):
        off, same = (np.abs(one[name] - exact[name]).mean() for one in (eight, half))
        assert 0 < off < 3 * same and off < 0.05 * exact[name].std(), name
    many = nano.generate(given, "S2L2A,S1RTC", seeds=[8, 3], steps=STEPS, precision="int8")
    assert all(np.array_equal(many[1][name], eight[name]) for name in eight.layers)


def test_8_bits_are_refused_where_the_processor_has_no_tiles(model: CopGen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    with pytest.raises(ValueError, match="precision int8: is for a CPU with AMX and GCC beside it, which this is not; use auto"):
        model.generate(None, "DEM", steps=1, precision="int8")


@pytest.mark.usefixtures("in_batches")
def test_a_batch_in_bfloat16_moves_a_sample_by_a_hundredth_of_its_spread_at_most(model: CopGen, scene: Scene) -> None:
    """Measured, of eight and one at a time: 0.4 % of a layer's standard deviation on average, 0.6 % of its classes."""
    given = scene.only("DEM,place")
    together = model.generate(given, "S2L2A,LULC", seeds=range(8), steps=STEPS, precision="bf16")
    for seed in (0, 7):
        (alone,) = model.generate(given, "S2L2A,LULC", seeds=[seed], steps=STEPS, precision="bf16")
        assert (alone.notes["batch"], together[seed].notes["batch"]) == (1, 8)
        assert (alone["lulc"] == together[seed]["lulc"]).mean() > 0.98
        for name in alone.table.select("S2L2A"):
            assert np.abs(alone[name] - together[seed][name]).mean() < 0.01 * alone[name].std(), name


@pytest.mark.parametrize(("file", "want"), [("backbone.safetensors", "LULC"), ("vae/lulc/codec.safetensors", "LULC"),
                                            ("backbone.safetensors", "date")])
def test_a_model_that_makes_no_numbers_says_so(tiny_model: Path, tmp_path: Path, file: str, want: str) -> None:
    """A class is always the largest of its planes, also of planes that are no numbers: that may not pass."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    save_file({name: tensor * torch.nan for name, tensor in load_file(folder / file).items()}, folder / file)
    with pytest.raises(ValueError, match=rf"model tiny: {want.lower()} came out as no number"):
        CopGen(folder, precision="fp32").generate(None, want, steps=1)


def test_a_reconstruction_is_the_codecs_round_trip(model: CopGen, scene: Scene) -> None:
    back = model.reconstruct(scene)
    assert back.layers.keys() == scene.layers.keys()
    np.testing.assert_array_equal(back["date"], scene["date"])
    np.testing.assert_allclose(back["place"], scene["place"], atol=1e-5)
    latents = model.encode(scene)
    assert {name: tuple(z.shape[1:]) for name, z in latents.items()} == {name: TINY.latent_shape(name) for name in TINY.names}


def test_networks_are_left_as_they_were(model: CopGen, scene: Scene) -> None:
    weights: Mapping[str, torch.Tensor] = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    model.generate(scene.only("DEM"), "LULC", steps=STEPS)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.backbone.state_dict().items())
    assert not model.backbone.training and not any(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize(("device", "message"), [("tpu", "device 'tpu': choose auto, cpu or cuda"), ("", "device ''")])
def test_a_device_that_is_none_is_refused(tiny_model: Path, device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CopGen(tiny_model, device=device)
