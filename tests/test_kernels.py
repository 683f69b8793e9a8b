"""The kernels for processors with AMX are the exact sums, rounded once; a network that uses them is the network."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import needs_amx
from torch import nn
from torch.nn import functional as F

from copgen.backbone import BackboneConfig, UViT
from copgen.call import Call
from copgen.inference import kernels
from copgen.inference.linear import PackedLinear, lay_out, two_layers
from copgen.modalities import TABLE

ROUNDING = 2**-8                                 # of a number in bf16: half a step is 2^-9 of it


def bf16(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape) * scale).bfloat16()


def assert_rounded(found: torch.Tensor, exact: torch.Tensor, slack: float = 0.0) -> None:
    """Within one rounding to bf16 of what is exact, and `slack` for what is rounded on the way."""
    error = (found.double() - exact).abs()
    assert bool((error <= exact.abs() * ROUNDING + slack).all()), float(error.max())


@pytest.fixture(autouse=True)
def alike():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@needs_amx
def test_the_kernels_are_there():
    assert kernels.library() is not None


@needs_amx
@pytest.mark.parametrize(("batch", "queries", "keys", "heads"),
                         [(1, 834, 834, 16), (2, 100, 100, 4), (1, 37, 37, 2), (1, 1, 1, 1), (3, 5, 64, 2), (1, 33, 833, 3)])
def test_attention_is_softmax_attention(batch, queries, keys, heads):
    q, k, v = (bf16(batch, length, 3, heads, 64)[:, :, which] for which, length in enumerate((queries, keys, keys)))
    exact = F.scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    # weights are rounded to bf16 before the values are summed: each errs by 2^-9 of itself, so a sum by less than that of its terms
    assert_rounded(kernels.attention(q, k, v), exact, slack=2**-9 * float(v.abs().max()))
    with kernels.plain():
        library = kernels.attention(q, k, v)
    error, same = ((out.double() - exact).square().mean().sqrt() for out in (kernels.attention(q, k, v), library))
    assert error < 1.1 * same + 1e-9


@needs_amx
def test_attention_to_equal_keys_is_the_mean_and_to_one_large_key_its_value():
    v, alike = bf16(1, 50, 1, 64), torch.ones(1, 50, 1, 64).bfloat16()
    assert_rounded(kernels.attention(bf16(1, 4, 1, 64), alike, v), v.double().mean(1, keepdim=True), slack=0.01)
    q, k = torch.ones(1, 4, 1, 64).bfloat16(), torch.zeros(1, 50, 1, 64).bfloat16()
    k[:, 17] = 300                               # a score of 2400, beside which e^0 is nothing, and which would overflow alone
    assert torch.equal(kernels.attention(q, k, v), v[:, 17:18].expand(1, 4, 1, 64))


@needs_amx
@pytest.mark.parametrize(("rows", "width", "outs"),
                         [(834, 1024, 96), (7, 96, 64), (33, 32, 32), (50, 1056, 96), (1, 2080, 32), (900, 64, 64)])
def test_products_are_exact_sums_rounded_once(rows, width, outs):
    x, weight, bias = bf16(rows, width), bf16(outs, width, scale=width**-0.5), bf16(outs)
    exact, packed = F.linear(x.double(), weight.double(), bias.double()), kernels.pack(weight, bias)
    assert_rounded(kernels.linear(x, packed), exact, slack=1e-5)
    assert_rounded(kernels.linear(x, kernels.pack(weight)), exact - bias.double(), slack=1e-5)
    assert_rounded(kernels.linear(x, packed, gelu=True), F.gelu(exact), slack=1e-5)


@needs_amx
@pytest.mark.parametrize("rows", [1, 32, 33, 47, 450, 834])
def test_two_layers_are_one_after_the_other(rows):
    first, second, x = nn.Linear(128, 1120).bfloat16(), nn.Linear(1120, 128).bfloat16(), bf16(2, rows, 128)
    one, two = PackedLinear(first), PackedLinear(second)
    between = kernels.linear(x, one.parts, gelu=True)
    assert torch.equal(two_layers(one, two, x), two(between))
    assert_rounded(two_layers(one, two, x), second(F.gelu(first(x))).double(), slack=0.01)


@needs_amx
def test_gelu_is_right_for_every_number_of_bf16():
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = x[x.isfinite() & (x.abs() < 1e30)]
    rows = x[: len(x) // 32 * 32].view(-1, 32)
    one = kernels.linear(rows, kernels.pack(torch.eye(32).bfloat16()), gelu=True)
    assert_rounded(one, F.gelu(rows.double()), slack=1e-6)


@needs_amx
@pytest.mark.parametrize("width", [16, 1024, 1040])
def test_add_norm_is_the_norm_of_the_sum(width):
    norm = nn.LayerNorm(width).bfloat16()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, y = bf16(2, 37, width, scale=3), bf16(2, 37, width)
    exact = F.layer_norm(x.double() + y.double(), (width,), norm.weight.double(), norm.bias.double())
    assert_rounded(kernels.add_norm(norm, x, y), exact, slack=1e-5)
    assert_rounded(kernels.add_norm(norm, x), F.layer_norm(x.double(), (width,), norm.weight.double(), norm.bias.double()), slack=1e-5)


@needs_amx
def test_what_is_no_number_stays_none():
    x = bf16(40, 64)
    x[3, 5] = float("nan")
    out = kernels.linear(x, kernels.pack(bf16(32, 64)))
    assert out.isnan().any(1).nonzero().flatten().tolist() == [3]
    assert kernels.attention(*(x.view(1, 40, 1, 64),) * 3).isnan().any()


@needs_amx
@pytest.mark.parametrize("rows", [70, 834])
def test_the_number_of_threads_changes_nothing(rows):
    x, packed, q = bf16(rows, 2048), kernels.pack(bf16(256, 2048)), bf16(1, rows, 3, 5, 64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((kernels.linear(x, packed), kernels.attention(*q.unbind(2))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def network(**changes) -> UViT:
    """A backbone of a few rows, its weights larger than training starts with, so that every layer matters."""
    table = TABLE.subset(["place", "date", "dem", "lulc", "s1rtc"])
    backbone = UViT(table, BackboneConfig(**{"width": 128, "depth": 4, "heads": 2, **changes}))
    for weight in backbone.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return backbone.eval().requires_grad_(False)


def seen(backbone: UViT, batch: int = 1) -> tuple[dict, dict]:
    names, shape_of = backbone.table.names, backbone.table.latent_shape
    return {row: torch.randn(batch, *shape_of(row)) for row in names}, {row: torch.full((batch,), 400.0) for row in names}


@needs_amx
def test_a_network_laid_out_errs_no_more_than_bf16_does():
    exact = network()
    plain, quick = network(), network()
    for one in (plain, quick):
        one.load_state_dict(exact.state_dict())
        one.bfloat16()
    lay_out(quick)
    assert sum(isinstance(layer, PackedLinear) for layer in quick.modules()) > 20
    latents, times = seen(exact, batch=2)
    with kernels.plain():
        library = plain(latents, times)
    truth, found = exact(latents, times), quick(latents, times)
    error, same = (sum((out[row] - truth[row]).square().mean() for row in truth) for out in (found, library))
    assert 0 < error < 1.5 * same


@pytest.mark.parametrize("changes", [{}, {"prediction": "velocity"}, {"canvas": 16}, {"canvas": 16, "prediction": "velocity"}])
@pytest.mark.parametrize("drawn", [("lulc", "dem"), ("date",), ("place", "date", "dem", "lulc", "s1rtc")])
def test_a_call_is_the_backbone(changes, drawn):
    backbone = network(**changes).double()
    latents, times = seen(backbone, batch=2)
    still = {row: (latents[row], 0.0 if row != "s1rtc" else 1000.0) for row in latents if row not in drawn}
    times |= {row: torch.full((2,), time) for row, (_, time) in still.items()}
    exact = backbone(latents, times)
    found = Call(backbone, drawn, still)({row: latents[row] for row in drawn}, {row: times[row] for row in drawn})
    assert set(found) == set(drawn)
    for row in drawn:
        assert torch.allclose(found[row].double(), exact[row].double(), rtol=1e-5, atol=1e-6), row


def test_rows_that_a_call_does_not_know_are_refused():
    with pytest.raises(ValueError, match=r"no rows \['snow'\]; it has place, date, dem"):
        Call(network(), ["snow"], {})


def test_without_kernels_all_is_torch(tmp_path):
    script = ("import torch; from copgen.inference import kernels; from copgen.inference.linear import lay_out\n"
              "torch.set_grad_enabled(False); layer = torch.nn.Sequential(torch.nn.Linear(64, 64).bfloat16()); lay_out(layer)\n"
              "ones = torch.ones(1, 4, 1, 64).bfloat16()\n"
              "print(kernels.library(), type(layer[0]).__name__, kernels.attention(ones, ones, ones).sum().item())")
    for environment in ({"COPGEN_KERNELS": "off"}, {"CXX": "no-such-compiler", "PATH": str(tmp_path)}):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **environment})
        assert done.stdout.split() == ["None", "Linear", "256.0"] and not done.stderr


@needs_amx
def test_a_cache_that_cannot_be_trusted_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("COPGEN_CACHE", str(tmp_path / "cache"))
    compiler = kernels.gcc()
    here = kernels.compiled(compiler)
    assert here.parent == tmp_path / "cache" / "kernels" and kernels.compiled(compiler) == here
    here.parent.chmod(0o777)                     # anybody could put a library there
    assert kernels.compiled(compiler).parent != here.parent


def answering(tmp_path, body: str) -> dict[str, str]:
    """An environment whose compiler is a script that says it is GCC, then does this."""
    fake = tmp_path / "g++"
    fake.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo 'Free Software Foundation' && exit 0\n{body}\n")
    fake.chmod(0o755)
    return {**os.environ, "CXX": str(fake), "COPGEN_CACHE": str(tmp_path / "cache")}


@needs_amx
def test_a_compiler_that_fails_is_told_and_torch_goes_on(tmp_path):
    script = "from copgen.inference import kernels; print(kernels.library())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env=answering(tmp_path, "echo 'no such flag' >&2; exit 1"))
    assert done.stdout.strip() == "None" and "could not be compiled" in done.stderr and "no such flag" in done.stderr


def integers_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in 8 bits: integers up to 127, and what one is."""
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    return (x.float() * torch.where(scale > 0, 1 / scale, 0.0)).round().double(), scale.double()


@needs_amx
@pytest.mark.parametrize(("rows", "width", "outs"),
                         [(834, 1024, 96), (7, 128, 64), (33, 64, 32), (50, 2112, 96), (1, 4096, 32), (900, 64, 64)])
def test_products_in_8_bits_are_exact_sums_of_integers(rows, width, outs):
    x, weight, bias = bf16(rows, width), bf16(outs, width, scale=width**-0.5), bf16(outs)
    (a, one), (b, other) = integers_of(x), integers_of(weight)
    exact = (a @ b.T) * one * other.T + bias.double()
    packed = kernels.pack(weight, bias, integers=True)
    assert_rounded(kernels.linear(x, packed), exact, slack=1e-5)
    assert_rounded(kernels.linear(x, packed, gelu=True), F.gelu(exact), slack=1e-5)
    assert_rounded(kernels.linear(x, kernels.pack(weight, integers=True)), exact - bias.double(), slack=1e-5)
    # what is lost: half a step a factor, independent of each other, so as the root of the sum of their squares
    lost = kernels.linear(x, packed).double() - F.linear(x.double(), weight.double(), bias.double())
    step = (one * weight.double().norm(dim=1)) ** 2 / 12 + (other.T * x.double().norm(dim=1, keepdim=True)) ** 2 / 12
    assert lost.square().mean() < 1.3 * step.mean() + 2**-18 * exact.square().mean()


@needs_amx
def test_a_token_in_8_bits_is_the_same_whatever_lies_beside_it():
    layer, x = PackedLinear(nn.Linear(256, 64).bfloat16(), integers=True), bf16(100, 256)
    x[1] *= 1000                                 # a tensor's one scale would leave nothing of the others
    for rows in (1, 40, 100):
        assert torch.equal(layer(x[:rows].contiguous()), layer(x)[:rows])


@needs_amx
def test_8_bits_of_nothing_are_nothing_and_of_no_number_none():
    layer, x = kernels.pack(bf16(32, 64), integers=True), bf16(40, 64)
    x[2], x[3, 5], x[4, 5], x[5] = 0, float("nan"), float("inf"), 1e-38
    out = kernels.linear(x, layer)
    assert not out[2].any() and not out[5].any()
    assert (~out.isfinite()).any(1).nonzero().flatten().tolist() == [3, 4]
    nothing = kernels.pack(torch.zeros(32, 64).bfloat16(), integers=True)
    assert not kernels.linear(bf16(3, 64), nothing).any()


@needs_amx
@pytest.mark.parametrize("rows", [1, 47, 834])
def test_two_layers_in_8_bits_are_one_after_the_other(rows):
    first, second, x = nn.Linear(128, 2112).bfloat16(), nn.Linear(2112, 128).bfloat16(), bf16(rows, 128)
    one, two = PackedLinear(first, integers=True), PackedLinear(second, integers=True)
    assert torch.equal(two_layers(one, two, x), two(kernels.linear(x, one.parts, gelu=True)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(two_layers(one, two, x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_compiler_that_cannot_be_started_is_none(tmp_path, monkeypatch):
    broken = tmp_path / "g++"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernels.gcc.__wrapped__() is None


@needs_amx
def test_threads_that_compile_at_once_do_not_take_each_others_files(tmp_path, monkeypatch):
    for name, value in answering(tmp_path, 'for last; do :; done; exec > "$last"; echo begun; sleep 0.2; echo whole').items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(kernels.compiled, [os.environ["CXX"]] * 4))
    assert len(set(found)) == 1 and found[0].read_text() == "begun\nwhole\n" and list(found[0].parent.iterdir()) == [found[0]]


@needs_amx
def test_a_damaged_file_in_the_cache_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("COPGEN_CACHE", str(tmp_path))
    path = kernels.compiled(kernels.gcc())
    path.write_bytes(path.read_bytes()[:100])
    assert kernels.library.__wrapped__() is not None


@needs_amx
def test_where_no_cache_can_be_kept_nothing_is_left(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    script = "from copgen.inference import kernels; print(kernels.library() is not None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env={**os.environ, "COPGEN_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)})
    assert done.stdout.strip() == "True" and [path.name for path in tmp_path.iterdir()] == ["cache"]


@needs_amx
@pytest.mark.parametrize("integers", [False, True])
def test_packed_layers_refuse_what_they_would_misread(integers):
    layer, x = PackedLinear(nn.Linear(64, 32).bfloat16(), integers=integers), bf16(3, 64)
    for wrong in (x.float(), bf16(3, 96)):
        with pytest.raises(ValueError, match="it takes bf16 on the CPU without gradients"):
            layer(wrong)
    with torch.enable_grad(), pytest.raises(ValueError, match="load the backbone in fp32"):
        layer(x.clone().requires_grad_())
    with pytest.raises(ValueError, match="load the backbone in fp32"):
        layer.float()(x) if not integers else layer.bfloat16()(x)
