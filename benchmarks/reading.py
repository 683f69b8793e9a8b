"""How fast are samples read for training? Functions for `benchmarks/data.py`: folders to read from, and rates cold and warm.

    python benchmarks/reading.py [--folder FOLDER]       # moments of the paper's table, 60 MB a shard; made up where none are named

What is timed is what a training waits for: moments read in the order of the recipe, latents drawn from them, times and noise, through
`copgen.training.ahead`. Cold means that the system was asked to forget the files' pages first.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from copgen.diffusion import SCHEDULE
from copgen.modalities import TABLE, Table
from copgen.shards import Shards, finish, open_shards, write_shard
from copgen.training.ahead import Reader, Task, reading
from copgen.training.denoising import Noising
from copgen.training.order import order_of
from copgen.training.recipe import BackboneTraining


@dataclass(frozen=True)
class Rate:
    """Samples a second; milliseconds of processors a sample, of this process, which is to compute meanwhile, and with its readers; and of
    all of them the most memory in MB: of their own, and of mapped files."""

    samples: float
    waiting: float
    processors: float
    own: float
    mapped: float


def rate(shards: Shards, table: Table, *, workers: int, shards_mixed: int | None, cold: bool, noise: bool = True, batch: int = 64,
         seconds: float = 5.0) -> Rate:
    """How fast chunks of `batch` samples come. noise: as the backbone's training is shown them, else the stored arrays alone."""
    (forget if cold else remember)(shards)
    before, own = spent(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN), spent(resource.RUSAGE_SELF)
    chunks = tasks(shards, shards_mixed, batch)
    reader = noising(shards, table) if noise else (lambda numbers, generator: tensors(shards, table, numbers))
    with reading([reader], chunks, workers, "fp32") as found:
        next(found)                              # the processes are there
        began, count, most = time.perf_counter(), 0, np.zeros(2)     # the processors' time has that first one, too
        while (took := time.perf_counter() - began) < seconds and count * batch < len(shards):
            next(found)
            count += 1
            if count % 10 == 1:
                most = np.maximum(most, memory())
    used = (spent(resource.RUSAGE_SELF) - own, spent(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) - before)
    return Rate(count * batch / took, *(1e3 * seconds / ((count + 1) * batch) for seconds in used), *most.tolist())


def tasks(shards: Shards, shards_mixed: int | None, batch: int) -> Iterator[Task]:
    order, step = order_of(shards.counts, 0, shards_mixed), 0
    while True:
        yield Task(0, order(step * batch, (step + 1) * batch), step)
        step += 1


def noising(shards: Shards, table: Table) -> Reader:
    return Noising(shards, table, dict.fromkeys(table.images, 0.5), BackboneTraining(), SCHEDULE)


def tensors(shards: Shards, table: Table, numbers: np.ndarray) -> dict[str, torch.Tensor]:
    return {row: torch.from_numpy(array) for row, array in shards.read(table.names, numbers).items()}


def forget(shards: Shards) -> None:
    """Ask the system to drop the files' pages from its cache; it needs no rights, and files that nobody maps."""
    for path in shards.folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(shards: Shards) -> None:
    """Have all of the files in the system's cache, as far as it has room."""
    for path in shards.folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(2**22):
                pass


def spent(*whose: int) -> float:
    """Seconds of processors, of this process or those that it started and that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


def memory() -> np.ndarray:
    """MB of this process and those that it started: their own with what they pass on, and of mapped files; shared pages count once."""
    found = np.zeros(2)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpid() not in (int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])):
                continue
            sizes = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
        except OSError:
            continue
        anonymous, files, passed_on = (int(sizes[name].split()[0]) / 1024 for name in ("Pss_Anon", "Pss_File", "Pss_Shmem"))
        found += [anonymous + passed_on, files]
    return found


def made_up(folder: Path, table: Table = TABLE, shards: int = 16, each: int = 576) -> Shards:
    """Shards of moments of nothing in particular; each is different, as a compressing or deduplicating disk would notice."""
    for k in range(shards):
        rng, arrays = np.random.default_rng(k), {}
        for row in table.names:
            z, height, width = table.latent_shape(row)
            shape = (each, 2 * z, height, width) if table[row].is_image else (each, z, height, width)
            arrays[row] = rng.standard_normal(shape, np.float32).astype(np.float16 if table[row].is_image else np.float32)
        write_shard(folder, k, arrays)
    return finish(folder, [each] * shards, {"kind": "moments", "rows": list(table.names), "patch": table.patch})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="shards of moments")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--mixed", type=int, default=8, help="shards that are mixed, beside everything")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        shards = open_shards(options.folder) if options.folder else made_up(Path(temporary))
        table = TABLE.subset(shards.meta["rows"])
        size = sum(path.stat().st_size for path in shards.folder.glob("*.safetensors")) / len(shards)
        print(f"{len(shards)} samples of {size / 1e3:.0f} kB in {len(shards.counts)} shards\n")
        print("| what | order | readers | cache | samples/s | MB/s | ms a sample of the training's | with readers' | own MB | mapped MB |")
        print("|---|---|--:|---|--:|--:|--:|--:|--:|--:|")
        for noise in (False, True):
            for mixed in (None, options.mixed):
                for workers in (0, 1, 2):
                    for cold in (True, False):
                        found = rate(shards, table, workers=workers, shards_mixed=mixed, cold=cold, noise=noise, seconds=options.seconds)
                        print(f"| {'with noise' if noise else 'read'} | {f'{mixed} shards mixed' if mixed else 'everything'} | {workers} | "
                              f"{'cold' if cold else 'warm'} | {found.samples:.0f} | {found.samples * size / 1e6:.0f} | "
                              f"{found.waiting:.2f} | {found.processors:.2f} | {found.own:.0f} | {found.mapped:.0f} |", flush=True)


if __name__ == "__main__":
    main()
