"""How long does a sample of COP-GEN-Beta take on this machine, and what share of its best matrix product is that?

`python benchmarks/beta.py [--calls 50] [--precision fp32 bf16] [--absent joint drop] [--threads N]`

The released sizes with random weights, which take as long as the released ones: S1RTC is given, DEM and S2L2A are wanted, by the published
solver, whose 50 network calls are the published setting. `joint` draws S2L1C as well and throws it away, `drop` leaves it out. Printed are
the seconds of a whole sample, from pictures to pictures, of a network call (the median) and of the codec (the rest); the operations of a
call, counted by torch; and their share of the product of 1028 x 1024 x 4096 in the same precision, each call's beside the products just
before and after it, so that other work on the machine counts as little as may be. With one thread, seconds are its own. With fewer calls
than 50 the sample's time is made of those of a call, and says so: a try, and no figure to quote.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from training import Peak, clock_of, forward_operations

from copgen import published
from copgen.backbone import UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.model import DTYPES, CopGen
from copgen.scene import Scene
from copgen.store import save_model

NAME, CALLS, ROUNDS = "cop-gen-beta", 50, 4          # matrix products between two calls
GIVEN, WANTED = "s1rtc_thumbnail", ("dem_thumbnail", "s2l2a_thumbnail")


def random_model(folder: Path) -> CopGen:
    """The released model's sizes, filled at random; stored in 16 bits, which is quicker and changes no time."""
    released = published.MODELS[NAME]
    table = released.system.table
    ((name, vae),) = released.system.vaes.items()
    torch.manual_seed(0)
    backbone, codec = UViT(table, released.config), KLCodec(CodecConfig(table[GIVEN].channels, table.latent_channels), vae.scaling_factor)
    for kind, network, known in (("backbone", backbone, released.parameters), ("VAE", codec, released.system.parameters)):
        has = sum(weights.numel() for weights in network.parameters())
        print(f"{kind}: {has:,} parameters, {'as released' if has == known else f'RELEASED {known:,}'}")
    save_model(folder, NAME, "", backbone, dict.fromkeys(table.images, codec), half=True, name_of=lambda row: name)
    return CopGen(folder)


class Clock:
    """Times the network calls of a sample, with matrix products between them, whose time is not the sample's."""

    def __init__(self, peak: Peak) -> None:
        self.peak, self.clock, self.seconds = peak, clock_of(peak.a.device), 0.0
        self.calls: list[float] = []

    def now(self) -> float:
        if self.peak.a.is_cuda:
            torch.cuda.synchronize()
        return self.clock()

    def tick(self, *_: int) -> None:
        """After a call: the next begins when the products are done."""
        self.seconds += (lasted := self.now() - self.began)
        self.calls.append(lasted)
        self.peak.measure()
        self.began = self.now()

    def sample(self, work: Callable[[Callable[..., None]], object]) -> None:
        self.began = self.now()
        work(self.tick)
        self.seconds += self.now() - self.began


def measure(model: CopGen, precision: str, absent: str, calls: int) -> None:
    table = model.table
    in_sequence = table.subset(row for row in table.names if absent == "joint" or row in (GIVEN, *WANTED))
    operations = forward_operations(in_sequence, model.record.backbone)
    picture = np.random.default_rng(0).integers(0, 256, table.layer_shape(GIVEN), dtype=np.uint8)
    given, how = Scene({GIVEN: picture}, table=table), {"precision": precision, "absent": absent, "solver": "published"}
    peak = Peak(model.device, DTYPES[precision], tokens=table.sequence_length, rounds=ROUNDS)
    model.generate(given, WANTED, steps=1, **how)                      # weights are read, kernels chosen
    clock = Clock(peak)
    clock.sample(lambda tick: model.generate(given, WANTED, steps=calls, progress=tick, **how))
    each = clock.calls[1:calls]                  # but the first, before which the given picture is encoded
    shares = [operations / seconds / statistics.mean(peak.found[k : k + 2]) for k, seconds in enumerate(each)]
    call, codec = statistics.median(each), clock.seconds - calls * statistics.mean(each)
    whole = clock.seconds if calls == CALLS else codec + CALLS * call
    print(f"{precision}, {absent}: {in_sequence.sequence_length} tokens, {operations / 1e9:.1f} GFLOP a call; a sample of {CALLS} calls "
          f"{'takes' if calls == CALLS else 'would take'} {whole:.1f} s: a call {call:.3f} s, the codec {codec:.1f} s; "
          f"{operations / call / 1e9:.1f} GFLOP/s, {statistics.median(shares):.0%} of the product's "
          f"{statistics.median(peak.found) / 1e9:.1f} ({peak.shape}); load {os.getloadavg()[0]:.1f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=CALLS, help="network calls that are timed, 2 or more")
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=["fp32", "bf16"])
    parser.add_argument("--absent", nargs="+", choices=["joint", "drop"], default=["joint", "drop"])
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args(arguments)
    if options.calls < 2:
        parser.error("--calls: 2 are needed to time one")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / NAME)
        where = torch.cuda.get_device_name() if model.device.type == "cuda" else f"{torch.get_num_threads()} threads"
        print(f"{where}, load {os.getloadavg()[0]:.1f} before")
        if options.calls < CALLS:
            print(f"only {options.calls} of {CALLS} calls were made: a try")
        for precision in options.precision:
            for absent in options.absent:
                measure(model, precision, absent, options.calls)


if __name__ == "__main__":
    main()
