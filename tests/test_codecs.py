"""Half a codec is what the whole one does; 16 bits move a layer by what their rounding explains; only what is needed is read and kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_codec
from safetensors.torch import load_file, save_file

from copgen import codecs as codecs_module
from copgen import store
from copgen.codec import HALVES, CodecConfig, Half, KLCodec
from copgen.codecs import BITS, Codecs, Use, narrowest
from copgen.memory import Need, plan
from copgen.modalities import TABLE, THUMBNAILS
from copgen.model import CopGen
from copgen.scene import Scene
from copgen.store import check_codec, load_codec, save_codec

PAPER = CodecConfig(2, width=32)                 # the paper's form, a quarter of its width
FAST, EXACT = Use(exact=False), Use()
CPU = torch.device("cpu")
EPSILON = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}           # the largest relative rounding of a number


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of the paper's form, with weights of normal size."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    save_codec(KLCodec(PAPER, scaling_factor=0.5), folder)
    return folder


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies 16 bits of both kinds, whatever this one does."""
    monkeypatch.setattr(codecs_module, "native", lambda dtype: True)


def computed(codec: KLCodec, half: Half) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    config = codec.config
    shape = (1, config.channels, 64, 64) if half == "encoder" else (1, config.latent_channels, 64 // config.stride, 64 // config.stride)
    x = torch.randn(shape, generator=generator)
    with torch.no_grad():
        return codec.moments(x) if half == "encoder" else codec.decode(x)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("config", [PAPER, tiny_codec(3).config])
def test_a_half_gives_the_bits_of_the_whole(half: Half, config: CodecConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_codec(KLCodec(config, 0.7), tmp_path)
    one, whole = load_codec(tmp_path, half), load_codec(tmp_path)
    assert torch.equal(computed(one, half), computed(whole, half))
    assert set(one.state_dict()) == {name for name in whole.state_dict() if name.partition(".")[0] in HALVES[half]}
    with pytest.raises(AttributeError):
        computed(one, "decoder" if half == "encoder" else "encoder")


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(("change", "message"), [
    (lambda weights: weights.pop("decoder.conv_in.weight"), "1 weight is missing, first decoder.conv_in.weight"),
    (lambda weights: weights.pop("encoder.conv_in.weight"), "1 weight is missing, first encoder.conv_in.weight"),
    (lambda weights: weights.update({"encoder.more": torch.zeros(1)}), "not this model's, first encoder.more"),
    (lambda weights: weights.update({"quant_conv.weight": torch.zeros(3)}), r"quant_conv.weight has shape \[3\]"),
    (lambda weights: weights.update({"post_quant_conv.bias": torch.zeros(3)}), r"post_quant_conv.bias has shape \[3\]"),
])
def test_damage_in_either_half_is_refused_whichever_is_read(half: Half, change, message: str, folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "codec.safetensors")
    change(weights)
    save_file(weights, tmp_path / "codec.safetensors")
    (tmp_path / "codec.json").write_text((folder / "codec.json").read_text())
    for read in (lambda: load_codec(tmp_path, half), lambda: check_codec(tmp_path)):
        with pytest.raises(ValueError, match=message):
            read()


def roundings(config: CodecConfig, half: Half) -> int:
    """How many times numbers on the way through a half are rounded, one after another: a residual block's norms, activations,
    convolutions and sum; attention's norm, products and sum; a change of the grid."""
    levels, blocks = len(config.multipliers), config.blocks + (half == "decoder")
    return 7 * (levels * blocks + 2) + 6 * config.attention + (levels - 1) + 2


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_as_near_as_their_rounding(half: Half, dtype: torch.dtype, folder: Path) -> None:
    """Independent roundings of input, weight and output add up as a walk does: the error grows with the root of their number."""
    exact, narrow = computed(load_codec(folder, half), half), computed(load_codec(folder, half, dtype), half)
    assert narrow.dtype == torch.float32
    error = (narrow - exact).square().mean().sqrt() / exact.std()
    assert 0 < error < EPSILON[dtype] * roundings(PAPER, half) ** 0.5
    assert (narrow != narrow.to(dtype)).float().mean() > 0.5            # what comes out has more digits than what is inside


def test_three_more_bits_are_eight_times_nearer(folder: Path) -> None:
    exact = computed(load_codec(folder, "decoder"), "decoder")
    error = {dtype: (computed(load_codec(folder, "decoder", dtype), "decoder") - exact).square().mean().sqrt() for dtype in EPSILON}
    assert 5 < error[torch.bfloat16] / error[torch.float16] < 12


@pytest.mark.parametrize("dtype", EPSILON)
def test_first_and_last_layers_and_the_shortcut_keep_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    config = CodecConfig(1, width=8, multipliers=(1, 2), blocks=1, stem=4, groups=4, attention=False, shortcut=True)
    torch.manual_seed(0)
    save_codec(KLCodec(config), tmp_path)
    exact = {name for name, weight in load_codec(tmp_path, dtype=dtype).state_dict().items() if weight.dtype == torch.float32}
    modules = {".".join(name.split(".")[:-1]) for name in exact}
    assert modules == {"quant_conv", "post_quant_conv", "analysis", "synthesis", "encoder.conv_in",
                       *(f"{network}.{layer}" for network in HALVES for layer in ("norm_out", "conv_out"))}


@pytest.mark.usefixtures("halves")
def test_rows_are_computed_in_the_bits_that_their_scale_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {row: narrowest(TABLE[row], half) for half in HALVES for row in TABLE.images} == {
        row: torch.float32 if row == "dem" else torch.float16 for row in TABLE.images}
    assert {narrowest(THUMBNAILS[row], "decoder") for row in THUMBNAILS.images} == {torch.float16}
    monkeypatch.setattr(codecs_module, "native", lambda dtype: dtype == torch.bfloat16)
    coarse = {row for row in TABLE.images if narrowest(TABLE[row], "decoder") == torch.bfloat16}
    assert coarse == {"lulc", "cloud_mask", "s1rtc"} == {row for row in TABLE.images if BITS.get(type(TABLE[row].scale)) == 8}
    assert {narrowest(TABLE[row], "encoder") for row in TABLE.images} == {torch.float32}
    monkeypatch.setattr(codecs_module, "native", lambda dtype: False)
    assert {narrowest(TABLE[row], half) for half in HALVES for row in TABLE.images} == {torch.float32}


@pytest.mark.usefixtures("halves")
def test_numbers_too_large_for_sixteen_bits_are_computed_again(tmp_path: Path) -> None:
    """fp16 ends at 65504; a group norm behind it makes small numbers of large ones, in float32."""
    codec = tiny_codec(2)
    with torch.no_grad():
        codec.decoder.conv_in.weight.mul_(1e6)
    save_codec(codec, tmp_path / "vae" / "radar")
    folder = Codecs(tmp_path, TINY, {"s1rtc": "radar"}, CPU)
    latents = torch.randn(1, 8, 24, 24, generator=torch.Generator().manual_seed(0))
    (pixels, how), (exact, _) = (folder.decode("s1rtc", latents, use) for use in (FAST, EXACT))
    assert how == "fp32" and torch.equal(pixels, exact) and exact.isfinite().all()


# --- a model's codecs ---------------------------------------------------------------------------------------------------------------

@pytest.mark.usefixtures("halves")
@pytest.mark.parametrize("keep", [True, False])
def test_a_sample_is_the_same_whether_codecs_are_kept_or_not(keep: bool, tiny_model: Path, scene: Scene) -> None:
    model = CopGen(tiny_model, device="cpu", precision="bf16")
    given = scene.only("S2L2A,place")
    (free,) = model.generate(given, "S1RTC,DEM,date", steps=2)
    needs = [*(model.codecs.need(row, "encoder", FAST) for row in given.layers),
             *(model.codecs.need(row, "decoder", FAST) for row in ("s1rtc", "dem"))]
    model.codecs.forget()
    spare = sum(need.weights for need in needs) if keep else 0
    least = bisect_left(range(100_000), True, key=lambda kib: fits(model, given, kib << 10)) << 10
    (bound,) = model.generate(given, "S1RTC,DEM,date", steps=2, max_memory=least + spare)
    assert bool(model.codecs._halves) == keep
    for row in free.layers:
        np.testing.assert_array_equal(free[row], bound[row])
    assert free.notes["codecs"] == bound.notes["codecs"] == {
        **dict.fromkeys(("s2l2a_10m", "s2l2a_20m", "s2l2a_60m", "s1rtc"), "fp16"), "dem": "fp32"}


def fits(model: CopGen, given: Scene, memory: int) -> bool:
    try:
        return bool(model._plan(given.layers, ("s1rtc", "dem", "date"), model.backbone, memory, 1))
    except ValueError:
        return False


def test_in_fp32_codecs_are_computed_as_the_whole_ones_in_float32(tiny_model: Path, scene: Scene) -> None:
    model = CopGen(tiny_model, device="cpu", precision="fp32")
    (sample,) = model.generate(scene.only("DEM"), "LULC,S1RTC", steps=2)
    assert set(sample.notes["codecs"].values()) == {"fp32"} and sample.notes["codecs"].keys() == {"dem", "lulc", "s1rtc"}
    pixels = torch.from_numpy(TINY["dem"].scale.to_model(scene["dem"]))[None]
    with torch.no_grad():
        whole = load_codec(tiny_model / "vae" / "dem").moments(pixels)
    assert torch.equal(model.codecs.moments("dem", pixels, EXACT)[0], whole)


def test_only_needed_weights_are_read_and_decoders_beside_the_sampler(tiny_model: Path, scene: Scene,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str, bool]] = []
    original = store.load_codec

    def watched(folder: Path, half: Half, dtype: torch.dtype) -> KLCodec:
        read.append((folder.name, half, threading.current_thread() is threading.main_thread()))
        return original(folder, half, dtype)

    monkeypatch.setattr(codecs_module, "load_codec", watched)
    model = CopGen(tiny_model, device="cpu", precision="fp32")
    model.check(TINY.names)
    assert not read
    model.generate(scene.only("DEM,place"), "LULC,date", steps=1)
    model.generate(scene.only("DEM,place"), "LULC,S1RTC,date", seeds=[0, 1], steps=1)
    assert read == [("dem", "encoder", True), ("lulc", "decoder", False), ("s1rtc", "decoder", False)]


def test_a_damaged_decoder_is_refused_before_anything_is_drawn(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "vae" / "lulc" / "codec.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"lulc.*is missing, damaged or no safetensors file"):
        CopGen(folder, device="cpu").check(["lulc"])


@pytest.mark.parametrize("keep", [True, False])
def test_a_codec_that_is_replaced_after_it_was_looked_at_is_refused(keep: bool, tiny_model: Path, tmp_path: Path) -> None:
    """One of the same sizes would be taken in silence, one of others fit no layer."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    codecs = Codecs(folder, TINY, {"s1rtc": "s1rtc", "dem": "dem"}, CPU)
    codecs.known("s1rtc"), codecs.known("dem")
    for file in (folder / "vae" / "dem").iterdir():
        shutil.copy(file, tmp_path / "new")
        (tmp_path / "new").replace(folder / "vae" / "s1rtc" / file.name)
    use, latents = Use(keep=keep), torch.zeros(1, 8, 24, 24)
    for read in (lambda: codecs.decode("s1rtc", latents, use), lambda: codecs.whole("s1rtc")):
        with pytest.raises(ValueError, match=r"s1rtc: was replaced after the model was opened; open the model again"), \
                codecs.ahead(["s1rtc"], use):
            read()
    assert codecs.decode("dem", latents, use)[0].isfinite().all()


def test_what_fails_beside_the_sampler_is_told_once_and_what_is_not_begun_is_left(tiny_model: Path,
                                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    begun, stopped = threading.Event(), threading.Event()

    def broken(folder: Path, half: Half, dtype: torch.dtype) -> KLCodec:
        read.append(folder.name)
        begun.set()
        stopped.wait(10)
        raise ValueError(f"{folder.name} is damaged")

    monkeypatch.setattr(codecs_module, "load_codec", broken)
    codecs = CopGen(tiny_model, device="cpu").codecs
    rows, latents = ("lulc", "dem", "s1rtc"), torch.zeros(1, 8, 24, 24)
    with pytest.raises(KeyboardInterrupt), codecs.ahead(rows, EXACT):
        begun.wait(10)
        raise KeyboardInterrupt
    stopped.set()
    with pytest.raises(ValueError, match="dem is damaged"), codecs.ahead(["dem"], EXACT):
        codecs.decode("dem", latents, EXACT)
    monkeypatch.undo()
    with codecs.ahead(rows, EXACT):
        assert all(codecs.decode(row, latents, EXACT)[0].isfinite().all() for row in rows)
    assert read == ["lulc", "dem"]


def test_a_bound_counts_what_earlier_samples_left(tiny_model: Path, scene: Scene) -> None:
    model = CopGen(tiny_model, device="cpu", precision="bf16")
    model.generate(scene.only("DEM"), "LULC", steps=1)
    model.codec("dem")
    before = model._plan(["dem"], ["s1rtc"], model.backbone, None, 1)
    model.generate(scene.only("DEM"), "S1RTC", steps=1, max_memory=2**40)
    assert {name for name, *_ in model.codecs._halves} == {"dem", "s1rtc"} and not model.codecs._whole
    bf16, fp32 = (sum(weight.nbytes for weight in model.backbone_in(kind).parameters()) for kind in ("bf16", "fp32"))
    with pytest.raises(ValueError, match=f"{(bf16 + fp32) / 2**20:.0f} MiB of them for the backbone's weights"):
        model._plan(["dem"], ["s1rtc"], model.backbone, 1, 1)
    assert before.keep


# --- memory -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_half_takes_no_more_than_it_is_said_to(half: Half, precision: str, tmp_path: Path) -> None:
    """The growth of a process's resident memory at its peak, of a codec large enough to be seen beside Python's own."""
    table = TABLE.subset(["s1rtc"])
    torch.manual_seed(0)
    save_codec(KLCodec(CodecConfig(2, width=64)), tmp_path / "vae" / "s1rtc")
    script = f"""if True:
        import json, torch
        from pathlib import Path
        from copgen.codecs import Codecs, Use
        from copgen import codecs
        from copgen.modalities import TABLE
        torch.set_num_threads(1)
        codecs.native = lambda dtype: dtype == torch.{precision}
        def resident(key):
            return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key + ":"))
        made, use = Codecs(Path({str(tmp_path)!r}), TABLE.subset(["s1rtc"]), dict(s1rtc="s1rtc"), torch.device("cpu")), Use(exact=False)
        def compute(side):
            with torch.no_grad():
                if {half!r} == "encoder":
                    made.moments("s1rtc", torch.zeros(1, 2, side, side), use)
                else:
                    made.decode("s1rtc", torch.zeros(1, 8, side // 8, side // 8), use)
        compute(32)
        made.forget()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")                  # the peak counts from here
        compute(192)
        print(json.dumps(resident("VmHWM") - before))
    """
    took = json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    dtype = getattr(torch, precision)
    codecs = Codecs(tmp_path, table, {"s1rtc": "s1rtc"}, CPU)
    codecs.inner = lambda row, half, use: dtype                        # type: ignore[method-assign]
    need = codecs.need("s1rtc", half, FAST)
    said = need.weights + need.work
    assert 0.25 * said < took < 1.15 * said + 2**24                     # beside it what the first call of a library leaves


def test_a_plan_fits_its_memory() -> None:
    codecs = [Need(100, 30), Need(200, 10)]

    def planned(memory: int, most: int = 4):
        return plan(1000, 50, codecs, most=most, max_memory=memory, device=CPU)

    with pytest.raises(ValueError, match="max memory 0 MiB: one sample needs about"):
        planned(1209)
    for memory in range(1210, 2000):
        found = planned(memory)
        assert 1 <= found.at_once <= 4 and 1000 + 50 * found.at_once <= memory
        assert found.keep == (1000 + 300 + max(50 * found.at_once, 30) <= memory)
    assert planned(1210, most=1).at_once == 1 and not planned(1210).keep and planned(1999).keep
