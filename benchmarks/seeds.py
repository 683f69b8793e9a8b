"""Is a sample the same alone, in a batch, and with other rows wanted?

`python benchmarks/seeds.py [--model nano]` prints the largest differences in float32 and bfloat16, for S2L2A (DN), S1RTC (dB) and LULC
(share of pixels of another class), given elevation and date of a synthetic world.
"""

from __future__ import annotations

import argparse

import numpy as np

from copgen import CopGen, Scene
from copgen.synthetic import world


def difference(row: str, one: Scene, other: Scene) -> float:
    a, b = one[row], other[row]
    if row == "lulc":
        return float((a != b).mean())
    if row == "s1rtc":
        a, b = 10 * np.log10(a), 10 * np.log10(b)
    return float(np.abs(a.astype(np.float64) - b).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    model = CopGen.from_pretrained(options.model)
    given = world(10_000_100, model.table).only("DEM, date")
    print(f"{model.name}: largest difference of seed 5 alone from seed 5 ...")
    print(f"{'precision':>9}  {'':24} {'S2L2A (DN)':>11} {'S1RTC (dB)':>11} {'LULC (share)':>13}")
    for precision in ("fp32", "bf16"):
        alone = model.generate(given, "S2L2A, S1RTC, LULC", seeds=[5], precision=precision)[0]
        others = {
            "in a batch of 8": model.generate(given, "S2L2A, S1RTC, LULC", seeds=range(8), precision=precision)[5],
            "with all rows wanted": model.generate(given, None, seeds=[5], precision=precision)[0],
            "in a batch, all wanted": model.generate(given, None, seeds=[7, 5, 3], precision=precision)[1],
        }
        for what, other in others.items():
            s2 = max(difference(row, alone, other) for row in ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m"))
            s1, lulc = difference("s1rtc", alone, other), difference("lulc", alone, other)
            print(f"{precision:>9}  {what:24} {s2:11.4f} {s1:11.5f} {lulc:13.6f}")


if __name__ == "__main__":
    main()
