"""How good should a sample be? Three answers in words, each a solver and its network calls; imports nothing, so that help is quick.

What is said of each is what benchmarks/quality.py printed for `nano`: the solver's error in latents at 2 worlds and 3 real cells, three
tasks each, geometric means (15 calls: 0.49 to 3.6 times that of the authors' 50 with a denoising); the distribution at 10 worlds of 4
samples. There neither CRPS nor Wasserstein distances differ from converged samples' beyond their intervals, from 6 calls on; but the
spread-to-skill ratio of S2L2A given DEM and LULC, or S1RTC, is below theirs (0.65, 0.69) by 0.05 and 0.07 at 10 calls (intervals 0.02 to
0.10), by 0.03 at 15 (0.01 to 0.05). It depends on the network: where the denoiser is known and smooth, 15 calls are well ahead of the
authors' 50 (benchmarks/solvers.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """A solver and the network calls it takes for a sample, to which time is proportional; what that is for, costs and loses."""

    solver: str
    steps: int                                   # a last denoising is one of them
    said: str


QUALITIES = {
    "fast": Quality("default", 10, "to look around, in two thirds of the default's time; an error 1.5 times as large, and optical samples "
                                   "of one place differ 8 to 10 % too little from each other"),
    "default": Quality("default", 15, "for work; an error like that of the authors' 50 calls with a denoising, optical samples differ 4 to "
                                      "5 % too little"),
    "reference": Quality("default", 200, "to compare with, in 13 times the default's time; about a tenth of that error"),
}


def check_quality(quality: str) -> None:
    """ValueError for a quality that isn't there."""
    if quality not in QUALITIES:
        raise ValueError(f"quality {quality!r}: choose {', '.join(QUALITIES)}")
