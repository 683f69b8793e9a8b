"""How fast is a sample, what does it lose, and how near is that to the machine's limit? All of it as tables of one run.

    python benchmarks/sampling.py                       # base size with random weights, which take as long as any: some 10 minutes
    python benchmarks/sampling.py --before              # and the plain path beside it: no kernels, no packed weights, float32 codecs
    python benchmarks/sampling.py --before SRC          # samples of an earlier version, whose sources lie in SRC, in place of that
    python benchmarks/sampling.py --profile             # and where the time of a call and of a sample goes
    python benchmarks/sampling.py --size nano --quick   # a try in under a minute

Peak: the product of 834 x 1024 x 4096 (on a GPU 8192 cubed) in the network's precision, measured between the calls, so that both meet the
same load. Calls: all rows drawn, before and after by turns; a share of the peak counts the operations of the plain network, 535.67 GFLOP
at base, though less is computed. Errors: nano's, since those of random weights mean nothing: distance of the latents from those of 200
calls in float32, the mean over synthetic worlds and noises that no solver was tuned on. Samples: a process a task (one_sample.py), cold
with its files out of the page cache, then warm. The frontier joins the seconds of this run to these errors. README.md says more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stages import Done, apart
from torch import Tensor
from training import Peak, forward_operations, timed

from copgen import diffusion
from copgen.backbone import UViT
from copgen.call import Call
from copgen.codec import CodecConfig, KLCodec
from copgen.inference import kernels
from copgen.modalities import TABLE
from copgen.model import CopGen, Precision, gaussian, pick_precision
from copgen.quality import QUALITIES
from copgen.store import load_backbone, save_model

HERE = Path(__file__).parent
TASKS = {"S2L2A -> S1RTC, DEM, LULC": ("S2L2A", "S1RTC,DEM,LULC"), "DEM, LULC -> S2L2A": ("DEM,LULC", "S2L2A"), "nothing -> all": ("", "")}
COUNTS = (6, 8, 10, 12, 15, 20, 30, 50)          # calls of the default solver
PUBLISHED = ("published", 51)                    # the published 50, and a last denoising
CONVERGED = ("default", 200)
GOALS = {"sample": 15.0, "memory": 3.0, "help": 0.3, "nano": 8.0, "first call": 3.0, "share": 0.8, "share on a GPU": 0.6}
WAYS = {"": {}, "reuse 3": {"reuse": 3}, "int8": {"precision": "int8"}}           # of computing: settings of generate
Network = Callable[[dict[str, Tensor], dict[str, Tensor]], Mapping[str, Tensor]]


def random_model(folder: Path) -> Path:
    """A model folder of the paper's sizes, filled at random and stored in 16 bits."""
    torch.manual_seed(0)
    codecs = {row: KLCodec(CodecConfig(TABLE[row].channels, TABLE.latent_channels), 0.5) for row in TABLE.images}
    save_model(folder, "base", "", UViT(TABLE), codecs, half=True, notes={"weights": "random: samples mean nothing"})
    return folder


# --- calls --------------------------------------------------------------------------------------------------------------------------

def network_of(model: CopGen, precision: Precision) -> Network:
    """The network as all rows are drawn by it."""
    return Call(model.backbone_in(precision), model.table.names, {})


def plain_network(model: CopGen, dtype: torch.dtype) -> Network:
    with kernels.plain():
        network = load_backbone(model.folder, model.record, model.table, dtype).to(model.device).requires_grad_(False)

    def plain(latents: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
        with kernels.plain():
            return network(latents, times)

    return plain


@torch.no_grad()
def calls(model: CopGen, ways: Mapping[str, Mapping[str, Any]], batches: Sequence[int], rounds: int, before: bool) -> None:
    """Print seconds and shares of the peak a call."""
    table, dtype = model.table, model.backbone.dtype
    networks = {name or "default": network_of(model, how.get("precision", "auto")) for name, how in ways.items() if "reuse" not in how}
    networks |= {"before": plain_network(model, dtype)} if before else {}
    operations = forward_operations(table, model.record.backbone)
    peak, lowest, gpu = Peak(model.device, dtype, tokens=table.sequence_length), 1.0, model.device.type == "cuda"
    print(f"\n## A network call: {table.sequence_length} tokens, {operations / 1e9:.2f} GFLOP a sample\n")
    print("| samples a call | " + " | ".join(f"{name}: seconds | share of the peak" for name in networks) + " | before / first |")
    print("|--:|" + "--:|--:|" * len(networks) + "--:|")
    for batch in batches:
        latents = {row: torch.randn(batch, *table.latent_shape(row), device=model.device) for row in table.names}
        times = {row: torch.full((batch,), 500.0, device=model.device) for row in table.names}
        found = alternated(networks, latents, times, peak, rounds, batch * operations)
        first = next(iter(found.values()))
        lowest = min(lowest, first[1]) if (batch >= 8 if gpu else batch <= 4) else lowest
        more = f"{found['before'][0] / first[0]:.2f}" if before else ""
        cells = [f"{seconds:.3f} | {share:.1%}" for seconds, share in found.values()]
        print(f"| {batch} | " + " | ".join([*cells, more]) + " |", flush=True)
    best = statistics.median(peak.found)
    print(f"\npeak: {best / 1e9:.0f} GFLOP/s, {peak.shape}, {str(dtype).removeprefix('torch.')}, median of {len(peak.found)} between the "
          f"calls ({min(peak.found) / 1e9:.0f} .. {max(peak.found) / 1e9:.0f}); floor of a call at batch 1: {operations / best:.3f} s; "
          f"lowest share at batch {'8 and more' if gpu else '1 to 4'}: "
          + (met("share on a GPU" if gpu else "share", lowest, 2) if model.name != "nano" else f"{lowest:.2f}, the goal being base's"))


def alternated(networks: Mapping[str, Network], latents: dict[str, Tensor], times: dict[str, Tensor], peak: Peak, rounds: int,
               operations: int) -> dict[str, tuple[float, float]]:
    """Medians over rounds of each network's seconds and share of the peak just before and after it, by turns."""
    seconds, shares = {name: [] for name in networks}, {name: [] for name in networks}
    for network in networks.values():
        network(latents, times)                  # kernels are chosen, memory is taken
    best = [peak.measure()]
    for _ in range(rounds):
        for name, network in networks.items():
            seconds[name].append(timed(peak.a.device, lambda network=network: network(latents, times)))
            best.append(peak.measure())
            shares[name].append(operations / seconds[name][-1] / statistics.mean(best[-2:]))
    return {name: (statistics.median(seconds[name]), statistics.median(shares[name])) for name in networks}


def met(goal: str, value: float, digits: int = 1) -> str:
    """A goal and whether it is met; shares are to be exceeded, all others not to be."""
    reached = value >= GOALS[goal] if goal.startswith("share") else value <= GOALS[goal]
    return f"goal {GOALS[goal]:.{digits}f}, {'met' if reached else 'MISSED'} ({value:.{digits}f})"


# --- errors -------------------------------------------------------------------------------------------------------------------------

@torch.no_grad()
def errors(ways: Mapping[str, Mapping[str, Any]], counts: Sequence[int], worlds: int, samples: int) -> dict[tuple[str, str, int], float]:
    """Print nano's errors by way of computing, solver and calls; return them."""
    from quality import TASKS as STUDIED
    from quality import UNSEEN
    from solvers import distance

    from copgen.synthetic import world

    model, task = CopGen.from_pretrained("nano", device="cpu"), "S1RTC, DEM, LULC given S2L2A"
    known, solvers = model.table.select(STUDIED[task][0]), [*(("default", count) for count in counts), PUBLISHED]
    found: dict[tuple[str, str, int], list[float]] = {}
    for k in range(worlds):
        given = {row: z.expand(samples, *z.shape[1:]) for row, z in model.encode(world(UNSEEN + k, model.table).only(known)).items()}
        right = drawn(model, given, samples, *CONVERGED, precision="fp32")
        for name, settings in {"fp32": {"precision": "fp32"}, **ways}.items():
            for solver in solvers:
                latents = drawn(model, given, samples, *solver, **settings)
                found.setdefault((name, *solver), []).append(distance(latents, right)[0])
    means = {key: statistics.mean(values) for key, values in found.items()}
    print(f"\n## Calls against error: nano, {task}, {worlds} synthetic worlds, {samples} samples each\n")
    named = {(one.solver, one.steps): name for name, one in QUALITIES.items()}
    auto = pick_precision("auto", model.device)
    print("| solver and calls | fp32 | " + " | ".join(name or auto for name in ways) + " | quality |")
    print("|---|--:|" + "--:|" * len(ways) + "---|")
    for solver, steps in solvers:
        label = f"published {steps - 1} + 1" if (solver, steps) == PUBLISHED else f"{solver} {steps}"
        print(f"| {label} | " + " | ".join(f"{means[name, solver, steps]:.4f}" for name in ("fp32", *ways))
              + f" | {named.get((solver, steps), '')} |", flush=True)
    return means


def drawn(model: CopGen, given: Mapping[str, Tensor], samples: int, solver: str, steps: int, *, precision: Precision = "auto",
          reuse: int = 1) -> dict[str, Tensor]:
    """The latents of seeds 0, 1, ... of every row that isn't given, each with a last denoising."""
    backbone = model.backbone_in(precision)
    noise = {row: gaussian(range(samples), row, model.table.latent_shape(row)) for row in model.table.names if row not in given}
    call = Call(backbone, list(noise), {row: (z, 0.0) for row, z in given.items()}, reuse)
    return diffusion.sample(call, noise, given, solver, steps, denoise=True, schedule=backbone.config.schedule)


# --- samples ------------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Sample:
    """Seconds of a sample's parts, of a whole process, and gigabytes of its peak."""

    before: float                                # reading weights, encoding
    calls: float
    after: float                                 # decoding
    call: float
    gigabytes: float

    @property
    def seconds(self) -> float:
        return self.before + self.calls + self.after

    @classmethod
    def of(cls, lines: Sequence[Done], name: str) -> Sample:
        """The quickest of those of a name: other work on the machine only adds."""
        values: dict[str, list[float]] = {}
        for line in lines:
            if line.name.startswith(f"{name} "):
                values.setdefault(line.name.removeprefix(f"{name} "), []).append(line.seconds or 0)
        best = min(range(len(values["call"])), key=lambda k: sum(values[part][k] for part in ("before", "calls", "after")))
        memory = max(line.gigabytes or 0 for line in lines if line.name.startswith(f"{name} "))
        return cls(*(values[part][best] for part in ("before", "calls", "after", "call")), memory)


def in_a_process(folder: Path, given: str, want: str, options: argparse.Namespace, settings: Mapping[str, Any],
                 before: str | None) -> list[Done]:
    """The lines of benchmarks/one_sample.py, from the plain path where `before` is `plain`, or from the sources that it names."""
    command = [sys.executable, str(HERE / "one_sample.py"), "--model", str(folder), "--given", given, "--want", want, "--lines",
               "--repeats", str(options.repeats), "--device", options.device, "--began", str(time.time())]
    command += ["--threads", str(options.threads)] if options.threads else []
    command += ["--set", *(f"{name}={value}" for name, value in settings.items())] if settings else []
    command += ["--plain"] if before == "plain" else []
    with environment(PYTHONPATH=before if before not in (None, "plain") else None,
                     COPGEN_KERNELS="off" if before == "plain" else None):
        return apart(command, folder)


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Variables that processes started inside see."""
    kept = {name: os.environ.get(name) for name, value in values.items() if value is not None}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def samples(folder: Path, options: argparse.Namespace, ways: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Sample]]:
    """Print seconds and memory of the three tasks; return the warm ones by way of computing and task."""
    print(f"\n## A sample, {QUALITIES['default'].steps} calls, in a process of its own: seconds, and GB at its peak\n")
    print("| task | way | cold: start to files | to the first call | GB | warm | encode | calls | decode | a call | GB |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    warm: dict[str, dict[str, Sample]] = {name: {} for name in ways}
    paths = [(name, settings, None) for name, settings in ways.items()] + ([("before", {}, options.before)] if options.before else [])
    for task, (given, want) in list(TASKS.items())[: 1 if options.quick else None]:
        for path, settings, before in paths:
            if settings.get("reuse", 1) > 1 and not given:                 # nothing stands still
                continue
            lines = in_a_process(folder, given, want, options, settings, before)
            took = {line.name: line.seconds or 0 for line in lines}
            cold, one = Sample.of(lines, "cold"), Sample.of(lines, "warm")
            warm.setdefault(path, {})[task] = one
            print(f"| {task} | {path or 'default'} | {took['to disk']:.2f} | {took['first call']:.2f} | {cold.gigabytes:.2f} | "
                  f"{one.seconds:.2f} | {one.before:.2f} | {one.calls:.2f} | {one.after:.2f} | {one.call:.3f} | {one.gigabytes:.2f} |",
                  flush=True)
    first = next(iter(TASKS))
    one = warm[""][first]
    print(f"\n{first}, warm: seconds {met('sample', one.seconds)}; GB {met('memory', one.gigabytes)}")
    if "before" in warm:
        print("before / default, warm: " + "; ".join(f"{task} {warm['before'][task].seconds / warm[''][task].seconds:.2f}"
                                                     for task in warm["before"]))
    return warm


# --- start --------------------------------------------------------------------------------------------------------------------------

def start(folder: Path, size: str, tries: int) -> None:
    """Print how long commands take from their beginning."""
    print(f"\n## Start: seconds of a process, the best of {tries}, files in the page cache\n\n| what | seconds | goal |\n|---|--:|---|")
    with tempfile.TemporaryDirectory() as out:
        generate = ["generate", "--model", "nano", "--out", out, "--overwrite"]
        for goal, what, words in (("help", "copgen --help", ["--help"]), ("nano", "copgen generate, nano, all rows to files", generate)):
            best = min(seconds_of([sys.executable, "-m", "copgen.cli", *words]) for _ in range(tries))
            print(f"| {what} | {best:.2f} | {met(goal, best)} |", flush=True)
    code = ("import sys, torch; from copgen.model import CopGen; from copgen.call import Call; torch.set_grad_enabled(False); "
            "b = CopGen(sys.argv[1]).backbone; r = b.table.names; "
            "Call(b, r, {})({n: torch.zeros(1, *b.table.latent_shape(n)) for n in r}, {n: torch.zeros(1) for n in r})")
    best = min(seconds_of([sys.executable, "-c", code, str(folder)]) for _ in range(tries))
    print(f"| {size}: weights read and a first network call made | {best:.2f} | {met('first call', best)} |", flush=True)


def seconds_of(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


# --- the frontier -------------------------------------------------------------------------------------------------------------------

def frontier(warm: Mapping[str, Mapping[str, Sample]], means: Mapping[tuple[str, str, int], float], path: Path, size: str) -> None:
    """Seconds of the first task at every number of calls, from its parts, against nano's errors: print and draw them."""
    from frontier import Point, draw

    task = next(iter(TASKS))
    named = {(one.solver, one.steps): name for name, one in QUALITIES.items()}
    lines: dict[str, list[Point]] = {}
    for way, tasks in warm.items():
        one = tasks[task]
        for (computed, solver, count), error in means.items():
            if computed == ("" if way == "before" else way) and (solver == "default" or way in ("", "before")):
                seconds = one.before + count * one.calls / QUALITIES["default"].steps + one.after
                said = named.get((solver, count), "") if not way else ""
                lines.setdefault(f"{solver} solver{way and ', '}{way}", []).append(Point(seconds, error, count, said))
    print(f"\n## The frontier: {task}, {size}: seconds, and error (nano)\n\n| | " + " | ".join(lines) + " |\n|---|" + "---|" * len(lines))
    for count in sorted({point.calls for points in lines.values() for point in points}):
        cells = [next((f"{point.seconds:.1f} s, {point.error:.4f}" for point in points if point.calls == count), "")
                 for points in lines.values()]
        print(f"| {count} calls | " + " | ".join(cells) + " |")
    print(f"\n{draw(lines, f'{task}, {size}, {where()}', path, (GOALS['sample'], means['', *PUBLISHED]))}")


def where() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"


# --- profile ------------------------------------------------------------------------------------------------------------------------

class Recorded:
    """The compiled kernels, each call of which the profiler sees."""

    def __init__(self, library: object) -> None:
        self.library = library

    def __getattr__(self, name: str) -> Callable[..., object]:
        def recorded(*arguments: object) -> object:
            with torch.profiler.record_function(name):
                return getattr(self.library, name)(*arguments)

        return recorded


@torch.no_grad()
def profile(model: CopGen) -> None:
    """Print where the time of a call goes, and of a sample of the first task."""
    from one_sample import scene_of

    if (library := kernels.library()) is not None:
        recorded = Recorded(library)
        kernels.ready = lambda: recorded         # type: ignore[assignment, return-value]
    table, call = model.table, network_of(model, "auto")
    latents = {row: torch.randn(1, *table.latent_shape(row), device=model.device) for row in table.names}
    times = {row: torch.full((1,), 500.0, device=model.device) for row in table.names}
    given, want = next(iter(TASKS.values()))
    scene = scene_of(model, given)
    for what, work in (("a call, all rows drawn", lambda: call(latents, times)),
                       (f"a sample, {next(iter(TASKS))}", lambda: model.generate(scene, want))):
        work()
        print_profile(what, work, model.device)


def print_profile(what: str, work: Callable[[], object], device: torch.device, most: int = 14) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=kinds) as found:
        began = time.perf_counter()
        timed(device, work)
        seconds = time.perf_counter() - began
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: getattr(event, own), reverse=True)
    print(f"\n## Where the time of {what} goes ({seconds:.3f} s while profiled)\n\n| operation | times | ms | share |\n|---|--:|--:|--:|")
    for event in events[:most]:
        print(f"| `{event.key}` | {event.count} | {getattr(event, own) / 1e3:.1f} | {getattr(event, own) / 1e6 / seconds:.1%} |")
    rest = seconds - sum(getattr(event, own) for event in events[:most]) / 1e6
    print(f"| all else, Python among it | | {1e3 * rest:.1f} | {rest / seconds:.1%} |", flush=True)


# --- the run ------------------------------------------------------------------------------------------------------------------------

def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["base", "nano"], default="base")
    parser.add_argument("--model", type=Path, default=None, help="a model folder of that size; left out: base is made in a temporary one")
    parser.add_argument("--before", nargs="?", const="plain", default=None, metavar="SRC",
                        help="the plain path beside it, or the samples of an earlier version, whose sources are named")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5, help="calls of each kind that are timed")
    parser.add_argument("--repeats", type=int, default=2, help="warm samples a process, the quicker of which counts")
    parser.add_argument("--worlds", type=int, default=3, help="worlds that errors are the means over")
    parser.add_argument("--only", nargs="+", choices=["calls", "errors", "samples", "start"], default=None, help="these parts alone")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--plot", type=Path, default=None, help="where the frontier is drawn, such as docs/frontier.png")
    parser.add_argument("--quick", action="store_true", help="little of everything: a try, and no figure to quote")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.repeats, options.worlds = 2, 1, 1
    return options


def main() -> None:
    options = options_of()
    if options.threads:
        torch.set_num_threads(options.threads)
    parts = options.only or ["calls", "errors", "samples", "start"]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        nano = CopGen.from_pretrained("nano").folder
        folder = options.model or (nano if options.size == "nano" else random_model(Path(temporary) / "base"))
        model = CopGen(folder, device=options.device)
        print(f"{model.name}, {pick_precision('auto', model.device)}, {where()}, load {os.getloadavg()[0]:.1f} before; torch "
              f"{torch.__version__}; kernels {'compiled' if kernels.library() else 'none'}"
              + ("; a try, and no figure to quote" if options.quick else ""), flush=True)
        integers = model.device.type == "cpu" and kernels.library() is not None
        ways = {name: how for name, how in WAYS.items() if how.get("precision") != "int8" or integers} if not options.quick else {"": {}}
        if "calls" in parts:
            batches = (1, 2) if options.quick else (1, 2, 4, 8, 16) if model.device.type == "cuda" else (1, 2, 4, 8)
            calls(model, ways, batches, options.rounds, options.before is not None)
        if options.profile:
            profile(model)
        del model                                # its memory is for the samples' processes
        counts, seeds = ((6, 15), 1) if options.quick else (COUNTS, 2)
        means = errors(ways, counts, options.worlds, seeds) if "errors" in parts else {}
        warm = samples(folder, options, ways) if "samples" in parts else {}
        if means and warm:
            frontier(warm, means, options.plot or Path(temporary) / "frontier.png", options.size)
        if "start" in parts:
            start(folder, options.size, 1 if options.quick else 3)
    print(f"\n{time.perf_counter() - began:.0f} s in all, load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
