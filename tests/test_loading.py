"""Weights are read without a second copy in memory, a file that changes meanwhile is noticed, and nothing slow is imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from copgen.store import SPAN, load_weights, spans

LAYERS, WIDTH = 32, 1024                         # 64 MiB in 16 bits
ONE_COPY = 2 * LAYERS * WIDTH * WIDTH


def network(layers: int = 2, width: int = 4) -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))


def stored(path: Path, layers: int = 2, width: int = 4, dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    save_file({f"{k}.weight": torch.randn(width, width, generator=generator).to(dtype) for k in range(layers)}, path)
    return path


GROWTH = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_loading import LAYERS, WIDTH, load_file, load_weights, network

def memory(what):
    return 1024 * int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])

torch.set_num_threads(1)
path, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
whole = network(LAYERS, WIDTH)
before = memory("VmHWM"), memory("RssAnon")
load_weights(whole, path, dtype)
print(json.dumps([memory("VmHWM") - before[0], memory("RssAnon") - before[1]]))
assert all(torch.equal(whole.state_dict()[name], weight.to(dtype)) for name, weight in load_file(path).items())
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process's peak memory")
def test_cast_weights_are_in_memory_once_and_others_stay_in_their_file(tmp_path: Path) -> None:
    path = stored(tmp_path / "weights", LAYERS, WIDTH)

    def grown(dtype: str) -> tuple[int, int]:
        command = [sys.executable, "-c", GROWTH, str(path), dtype, str(Path(__file__).parent)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peak, own = json.loads(said)
        return peak, own

    peak, own = grown("bfloat16")
    some = 2**23                                 # what Python and libraries take meanwhile
    assert ONE_COPY < own < ONE_COPY + some
    assert peak < ONE_COPY + SPAN // 2 + some    # 16 bits: half of what a span is in 32
    assert grown("float16")[1] < some            # as stored: pages of the file


def test_a_file_that_is_replaced_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path, other = stored(tmp_path / "weights"), stored(tmp_path / "other", seed=1)

    def cast(name: str, weight: torch.Tensor) -> torch.Tensor:
        if other.exists():
            other.replace(path)
        return weight.float()

    with pytest.raises(ValueError, match=r"weights: was replaced while it was read; read it again"):
        load_weights(network(), path, cast=cast)
    load_weights(network(), path, cast=cast)


def test_weights_in_use_stay_what_they_were_when_their_file_is_replaced(tmp_path: Path) -> None:
    path, whole = stored(tmp_path / "weights", dtype=torch.float32), network()
    load_weights(whole, path)
    before = {name: weight.clone() for name, weight in load_file(path).items()}
    stored(tmp_path / "other", dtype=torch.float32, seed=1).replace(path)
    assert all(torch.equal(whole.state_dict()[name], weight) for name, weight in before.items())


def test_another_models_weights_are_refused_before_any_is_read(tmp_path: Path) -> None:
    def cast(name: str, weight: torch.Tensor) -> torch.Tensor:
        raise AssertionError(f"{name} was read")

    with pytest.raises(ValueError, match=r"0\.weight has shape \[4, 4\], expected \[5, 5\]"):
        load_weights(network(width=5), stored(tmp_path / "weights"), cast=cast)


def test_spans_hold_every_name_once_and_no_more_than_allowed() -> None:
    sizes = dict(zip("abcdefg", (3, 9, 1, 4, 4, 4, 20), strict=True))
    found = list(spans(sizes, most=12))
    assert [name for names in found for name in names] == list(sizes)
    assert all(len(names) == 1 or sum(sizes[name] for name in names) <= 12 for names in found)
    assert len(found) == 4                       # a b | c d e | f | g: no fewer would do in this order
    assert not list(spans({}))


def test_reading_a_model_imports_neither_compilers_nor_what_draws_and_tabulates() -> None:
    slow = ("torch._dynamo", "sympy", "matplotlib", "pandas", "scipy", "diffusers")
    code = ("import sys; from copgen import CopGen; model = CopGen.from_pretrained('nano', device='cpu'); model.backbone; "
            f"model.codec('dem'); print([name for name in {slow!r} if name in sys.modules])")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout.strip() == "[]"
