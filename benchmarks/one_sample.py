"""How long does one sample take in a process of its own, from its start to files on disk, and then with weights in memory?

What benchmarks/sampling.py starts, once a task; by hand `python benchmarks/one_sample.py --given S2L2A --want S1RTC,DEM,LULC`. Given
layers are random numbers in their physical units: they take as long as any. The parts of a sample are read from the times of its network
calls: what comes before the first (reading weights, encoding), the calls, and what comes after the last (decoding). It runs with earlier
versions of the package, too: with PYTHONPATH at their sources.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stages import READY, Done, as_text, measured, show

if TYPE_CHECKING:
    from copgen.model import CopGen
    from copgen.scene import Scene


class Parts:
    """Times of a sample's network calls, from which its parts follow."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def tick(self, calls: int, of: int, done: int, samples: int) -> None:
        if done < samples:                       # a last tick tells that all is decoded
            self.times.append(time.perf_counter())

    def done(self, name: str) -> Iterator[Done]:
        """Seconds of the whole, of the parts, and of one call; a sample of one call has no call apart from what comes before it."""
        end, (start, first, *_), last = time.perf_counter(), self.times, self.times[-1]
        between = [after - before for before, after in zip(self.times[1:], self.times[2:], strict=False)]
        call = statistics.median(between) if between else 0.0
        yield Done(f"{name} before", "", first - call - start)
        yield Done(f"{name} calls", str(len(self.times) - 1), last - first + call)
        yield Done(f"{name} after", "", end - last)
        yield Done(f"{name} call", "", call)


def scene_of(model: CopGen, given: str) -> Scene:
    """Layers of random numbers in physical units."""
    import numpy as np

    from copgen.scene import Scene

    random, table = np.random.default_rng(0), model.table
    layers = {}
    for row in table.select(given) if given else ():
        pixels = random.uniform(-1, 1, table.pixel_shape(row)).astype(np.float32)
        layers[row] = table[row].scale.to_physical(pixels)
    return Scene(layers, table=table)


def stage(options: argparse.Namespace) -> Iterator[Done]:
    yield READY
    from copgen.model import CopGen

    if options.plain:                            # with COPGEN_KERNELS=off in the environment, all that is left of what makes it quick
        import torch

        import copgen.codecs

        copgen.codecs.narrowest = lambda *_: torch.float32
    model = CopGen.from_pretrained(options.model, device=options.device)
    scene = scene_of(model, options.given)
    how: dict[str, Any] = {"steps": options.calls, "solver": options.solver, **dict(map(setting, options.set))}

    def run(parts: Parts) -> Sequence[Scene]:
        return model.generate(scene, options.want or None, progress=parts.tick, **how)

    parts = Parts()
    sample, = run(parts)
    if options.began:
        yield Done("first call", "since the process began", time.time() - options.began - (time.perf_counter() - parts.times[1]))
    yield from parts.done("cold")
    with tempfile.TemporaryDirectory() as folder:
        sample.save(folder)
        if options.began:
            yield Done("to disk", "since the process began", time.time() - options.began)
    for _ in range(options.repeats):
        parts = Parts()
        run(parts)
        yield from parts.done("warm")


def setting(text: str) -> tuple[str, int | str]:
    name, _, value = text.partition("=")
    return name, int(value) if value.isdigit() else value


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--given", default="")
    parser.add_argument("--want", default="")
    parser.add_argument("--solver", default="default")
    parser.add_argument("--calls", type=int, default=None)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of generate")
    parser.add_argument("--repeats", type=int, default=2, help="samples with weights in memory, after the first")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--plain", action="store_true", help="codecs in float32")
    parser.add_argument("--began", type=float, default=None, help="when the process was started, seconds since 1970")
    parser.add_argument("--lines", action="store_true", help="print what benchmarks/stages.py reads")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    done = measured(lambda: stage(options))
    if options.lines:
        print(as_text(done))
    else:
        for line in done:
            show(line)


if __name__ == "__main__":
    main()
