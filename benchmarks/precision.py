"""What do fewer bits save, and what do they cost? Seconds of a network call, errors and the distribution drawn in fp32, bf16 and int8.

`python benchmarks/precision.py [--model nano] [--places 6] [--worlds 12] [--samples 8] [--calls 15] [--rounds 9]`

Seconds: a call of the base size with weights as they are initialised, the precisions taking turns, beside the linear layers of a block.

Error: root mean square difference of a sample from the one in fp32, at the same calls and noise, beside what the solver itself is off at
these calls (fp32 against 200 calls); on worlds that no training draws and on the real cells of COPGEN_SAMPLES, where there are any.

Distribution: as in benchmarks/quality.py, what bf16 and int8 add to the figures of fp32, paired over worlds, each with its 95 % interval.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from quality import CONVERGED, SAMPLES, TASKS, UNSEEN, Numbers, Problem, Results, cells, compared, distribution, errors, unit
from solvers import distance
from torch import Tensor
from torch.nn import functional as F

from copgen import scores
from copgen.backbone import UViT
from copgen.call import Call
from copgen.inference import kernels
from copgen.inference.linear import PackedLinear, lay_out
from copgen.inference.memory import keep_memory
from copgen.modalities import TABLE
from copgen.model import CopGen, Precision
from copgen.synthetic import world

FEWER: tuple[Precision, ...] = ("bf16", "int8")
TOKENS = 834


# --- seconds ------------------------------------------------------------------------------------------------------------------------

def alternating(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median milliseconds of each, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(every) for name, every in taken.items()}


def laid_out(exact: UViT, integers: bool) -> UViT:
    network = UViT(exact.table, exact.config).bfloat16().eval().requires_grad_(False)
    network.load_state_dict(exact.state_dict())
    for block in network.blocks if integers else []:
        lay_out(block, integers=True)
    lay_out(network)
    return network


def print_layers(rounds: int) -> None:
    print(f"| layer, {TOKENS} tokens | torch, bf16: ms | bf16: ms | int8: ms | TOP/s | times as fast |\n|---|---|---|---|---|---|")
    for name, width, outs in (("qkv", 1024, 3072), ("proj", 1024, 1024), ("fc1", 1024, 4096), ("fc2", 4096, 1024), ("skip", 2048, 1024)):
        layer, x = torch.nn.Linear(width, outs).bfloat16(), torch.randn(TOKENS, width).bfloat16()
        packed, integers = PackedLinear(layer), PackedLinear(layer, integers=True)
        ms = alternating({"torch": lambda: F.linear(x, layer.weight, layer.bias), "bf16": lambda: packed(x),  # noqa: B023 - called at once
                          "int8": lambda: integers(x)}, 3 * rounds)                                           # noqa: B023
        print(f"| {name}, {width} to {outs} | {ms['torch']:.2f} | {ms['bf16']:.2f} | {ms['int8']:.2f} | "
              f"{2e-9 * TOKENS * width * outs / ms['int8']:.2f} | {ms['bf16'] / ms['int8']:.2f} |")


def print_calls(rounds: int) -> None:
    exact = UViT(TABLE).eval().requires_grad_(False)
    networks = {"bf16": laid_out(exact, False), "int8": laid_out(exact, True)}
    latents = {row: torch.randn(1, *TABLE.latent_shape(row)) for row in TABLE.names}
    times = {row: torch.full((1,), 500.0) for row in TABLE.names}
    truth = exact(latents, times)
    print("\n| a call, base size | ms | times as fast | weights MB | error of the noise, relative RMS |\n|---|---|---|---|---|")
    still = {row: (latents[row], 0.0) for row in TABLE.select("S2L2A")}
    drawn = [row for row in TABLE.names if row not in still]
    calls = {name: Call(network, drawn, still) for name, network in networks.items()}
    ms = alternating({name: lambda call=call: call(latents, times) for name, call in calls.items()}, rounds)   # type: ignore[misc]
    for name, network in networks.items():
        held, off = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())), relative(network(latents, times), truth)
        print(f"| {name} | {ms[name]:.0f} | {ms['bf16'] / ms[name]:.2f} | {held / 1e6:.0f} | {off:.4f} |")


def relative(found: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    off, whole = (torch.cat([part.float().ravel() for part in parts]) for parts in
                  ([found[row] - truth[row] for row in truth], list(truth.values())))
    return float(off.norm() / whole.norm())


# --- errors -------------------------------------------------------------------------------------------------------------------------

def measured_errors(model: CopGen, truth: object, task: str, calls: int) -> dict[str, Numbers]:
    """By precision, and of the solver itself."""
    def drawn(precision: Precision, way: tuple[str, int]) -> tuple[dict[str, Tensor], dict]:
        problem = Problem.of(model, precision, truth, task, range(2))                                         # type: ignore[arg-type]
        latents = problem.draw(way)
        return latents, problem.layers(latents)

    way = "default", calls
    same = drawn("fp32", way)
    pairs = {"the solver": (same, drawn("fp32", CONVERGED["error"])), **{name: (drawn(name, way), same) for name in FEWER}}
    return {name: {"latents": distance(a[0], b[0])[0], **errors(model.table, a[1], b[1])} for name, (a, b) in pairs.items()}


def print_errors(model: CopGen, places: Mapping[str, object], where: str, calls: int) -> None:
    print(f"\n## Error at {calls} calls, {where}\n")
    for task in TASKS:
        found = [measured_errors(model, truth, task, calls) for truth in places.values()]
        keys = list(found[0]["the solver"])
        print(f"| {task} | " + " | ".join(f"{key.removeprefix('error ')}{unit(model, key)}" for key in keys) + " |")
        print("|---|" + "---|" * len(keys))
        for name in found[0]:
            figures = [scores.over_places(scores.mean, [one[name][key] for one in found]) for key in keys]
            print(f"| {name} | " + " | ".join(f"{figure:.2g}" for figure in figures) + " |")
        print(flush=True)


def print_distribution(model: CopGen, worlds: int, samples: int, calls: int) -> None:
    print(f"\n## Distribution at {calls} calls: of fp32, and what fewer bits add (95 % interval, paired over {worlds} worlds)\n")
    results: Results = {task: {} for task in TASKS}
    for seed in range(UNSEEN, UNSEEN + worlds):
        truth = world(seed, model.table)
        for task, by_place in results.items():
            problems = {name: Problem.of(model, name, truth, task, range(samples)) for name in ("fp32", *FEWER)}
            layers = {name: problem.layers(problem.draw(("default", calls))) for name, problem in problems.items()}
            by_place[str(seed)] = {("converged" if name == "fp32" else name): distribution(problems[name], made, layers["fp32"])
                                   for name, made in layers.items()}
    of = {name: compared(results, name) for name in FEWER}
    print("| task | measure | fp32 | " + " | ".join(FEWER) + " |\n|---|---|---|" + "---|" * len(FEWER))
    for k, one in enumerate(of["int8"]):
        what = one.what if one.what == "spread/skill" else f"{one.what}{unit(model, 'error ' + one.product)}"
        print(f"| {one.task} | {one.product} {what} | {one.converged:.3g} | " + " | ".join(
            f"{of[name][k].more:+.2g}{' worse' if of[name][k].worse else ''}" for name in FEWER) + " |")
    for name in FEWER:
        adjusted, worse = scores.holm([one.more.p for one in of[name]]), [one.worse for one in of[name]]
        sure = sum(bad and p < 0.05 for bad, p in zip(worse, adjusted, strict=True))
        print(f"\n{name}: worse than fp32 in {sum(worse)} of {len(worse)} comparisons, {sure} by Holm's correction")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--places", type=int, default=6, help="worlds of the errors, two noises each; 0: no errors")
    parser.add_argument("--worlds", type=int, default=12, help="of the distribution; 0: none")
    parser.add_argument("--samples", type=int, default=8, help="at each of those")
    parser.add_argument("--calls", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=9, help="of the timings; 0: none")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if kernels.library() is None:
        parser.error("int8 needs a CPU with AMX and GCC beside it")
    keep_memory()
    if options.rounds:
        print_layers(options.rounds)
        print_calls(options.rounds)
    model = CopGen.from_pretrained(options.model, device="cpu")
    if options.places:
        print_errors(model, {str(k): world(UNSEEN + k, model.table) for k in range(options.places)}, "worlds", options.calls)
        if SAMPLES.is_dir():
            print_errors(model, cells(SAMPLES, model.table), "real cells", options.calls)
    if options.worlds:
        print_distribution(model, options.worlds, options.samples, options.calls)


if __name__ == "__main__":
    main()
