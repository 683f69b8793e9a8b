"""How many network calls does a solver need? Errors against the converged solution, where the denoiser is known exactly.

    python benchmarks/solvers.py                 # Gaussians and mixtures of Gaussians in 1 to 64 dimensions, under two minutes
    python benchmarks/solvers.py --model nano    # a real model: nothing given, and half of its rows given

Data have about unit variance, as latents have. Converged: third-order singlestep (DPM-Solver++), 1000 calls, uniform log-SNR, float64,
from the same noise; at t = 1, and denoised there. (`published` itself, on its uniform time grid, is still some 4e-4 off with 1000.)

Two errors. Distance: the mean over samples of the RMS difference of a sample. RMS: over all samples at once. They part on mixtures:
noise next to the border of two modes ends in the wrong one with a probability of the size of the solver's error, so the distance
falls as fast as the error, the RMS only as its root, and in a finite sample by luck.

A case is a family, its error the mean over data sets drawn from it, and the data sets are counted singly beside it: on a single one
`published` can be right by chance (its error changes sign where clusters have a standard deviation of 0.13).

So there is no one N: by pooled distance it is about 14, by RMS, or on every data set singly, 20 to 32, depending on the seeds. The
pooled distance was chosen after seeing the other two, on seeds 3 and 4; seeds 201 to 208, looked at once and afterwards, agree with it.

The default's four constants were tuned by distance on seeds 100 to 107 of these same families; the seeds reported are others.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from copgen.diffusion import SCHEDULE, Denoiser, Latents, Schedule, joint_denoiser, mix, sample, singlestep, singlestep_orders

Backbone = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]
Draw = Callable[[str, int, bool], dict[str, Tensor]]             # solver, network calls, end on a denoising -> latents
COUNTS = range(6, 31)                                            # the calls tried for N


@dataclass(frozen=True)
class Mixture:
    """Gaussians with diagonal covariances: the noise in x_t is known in closed form."""

    name: str
    mean: Tensor                                                 # [K, d]
    std: Tensor                                                  # [K, d]
    weight: Tensor                                               # [K]

    def backbone(self, latents: dict[str, Tensor], times: dict[str, Tensor]) -> dict[str, Tensor]:
        x, (alpha, sigma) = latents["x"], SCHEDULE.alpha_sigma(times["x"][0].item())
        variance = alpha**2 * self.std**2 + sigma**2
        # log N(x; alpha mean, variance) of every component, up to a constant of the sample: [B, K]
        log_p = (x @ (alpha * self.mean / variance).T - (x * x) @ (0.5 / variance).T
                 - ((alpha * self.mean) ** 2 / variance + variance.log()).sum(1) / 2 + self.weight.log())
        p = log_p.softmax(1)
        x0 = x * (p @ (alpha * self.std**2 / variance)) + p @ (self.mean * sigma**2 / variance)
        return {"x": (x - alpha * x0) / sigma}


def families(seed: int) -> list[Mixture]:
    """One of each kind: Gaussians with standard deviations from 0.05 to 1, modes apart, overlapping, one-hot, on a few directions."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    def mixture(name: str, mean: Tensor, std: Tensor, weight: Tensor | None = None, unit: bool = False) -> Mixture:
        weight = torch.ones(len(mean), dtype=mean.dtype) if weight is None else weight
        weight = weight / weight.sum()
        if unit:                                                 # mean 0 and, over the dimensions, variance 1
            mean = mean - (weight[:, None] * mean).sum(0)
            scale = (weight[:, None] * (mean**2 + std**2)).sum(0).mean().sqrt()
            mean, std = mean / scale, std / scale
        return Mixture(name, mean, std, weight)

    cases = []
    for d in (1, 2, 16, 64):
        std = torch.logspace(math.log10(0.05), 0, d, dtype=torch.float64)[None] if d > 2 else uniform(math.log(0.05), 0, 1, d).exp()
        cases.append(mixture(f"gauss {d}", 0.5 * normal(1, d), std))
    cases.append(mixture("gauss 1 wide", torch.zeros(1, 1, dtype=torch.float64), uniform(0.8, 1.2, 1, 1)))
    cases.append(mixture("gauss 1 thin", torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 0.05, dtype=torch.float64)))
    for d, k in ((1, 3), (2, 5), (16, 8), (64, 10)):
        cases.append(mixture(f"apart {d}", normal(k, d), uniform(0.08, 0.2, k, d), uniform(0.3, 1, k), unit=True))
        cases.append(mixture(f"overlap {d}", normal(k, d), uniform(0.5, 1, k, d) * (1.5 if d > 10 else 1), uniform(0.3, 1, k), unit=True))
    for k in (4, 10):
        corners = 2 * torch.eye(k, dtype=torch.float64) - 1
        cases.append(mixture(f"one-hot {k}", corners, torch.full((k, k), 0.1, dtype=torch.float64), uniform(0.05, 1, k)))
    cases.append(mixture("manifold 64", normal(6, 4) @ normal(4, 64) / 2, uniform(math.log(0.05), math.log(0.6), 6, 64).exp(), unit=True))
    return cases


def converged(denoise: Denoiser, x: Latents, calls: int = 1000, schedule: Schedule = SCHEDULE) -> tuple[Latents, Latents]:
    """x at t = 1 and its denoising: third-order singlestep on a uniform log-SNR grid."""
    first, last = schedule.lam(schedule.steps), schedule.lam(1)
    t = [schedule.time_of(first + i / calls * (last - first)) for i in range(calls + 1)]
    i = 0
    for order in singlestep_orders(calls):
        x = singlestep(denoise, x, t[i : i + order + 1], schedule)
        i += order
    return x, denoise(x, 1.0)


def multistep_2m(denoise: Denoiser, x: Latents, calls: int, last: bool, schedule: Schedule) -> Latents:
    """DPM-Solver++(2M) on a uniform log-SNR grid, the usual quick solver, to compare with (arXiv 2211.01095, algorithm 2)."""
    first, end, n = schedule.lam(schedule.steps), schedule.lam(1), calls - last
    t = [schedule.time_of(first + i / n * (end - first)) for i in range(n + 1)]
    h, before = (end - first) / n, None
    for s, u in pairwise(t):
        (_, sigma_s), (alpha, sigma), D = schedule.alpha_sigma(s), schedule.alpha_sigma(u), denoise(x, s)
        x = mix((sigma / sigma_s, x), (-alpha * math.expm1(-h), D if before is None else mix((1.5, D), (-0.5, before))))
        before = D
    return denoise(x, 1.0) if last else x


def distance(x: Latents, y: Latents) -> tuple[float, float]:
    """Mean over samples of a sample's RMS difference; RMS over all. Rows count alike, however large."""
    squares = torch.stack([(x[row] - y[row]).double().square().flatten(1).mean(1) for row in x]).mean(0)
    return squares.sqrt().mean().item(), squares.mean().sqrt().item()


@dataclass(frozen=True)
class Problem:
    """One data set and the noises to start from, with the converged answers."""

    draw: Draw
    truth: tuple[Latents, Latents]                               # at t = 1; denoised

    def error(self, solver: str, calls: int, denoise: bool) -> tuple[float, float]:
        return distance(self.draw(solver, calls, denoise), self.truth[denoise])


Cases = dict[str, list[Problem]]


def problem(backbone: Backbone, noise: Latents, given: Latents, calls: int, schedule: Schedule = SCHEDULE) -> Problem:
    denoise = joint_denoiser(backbone, given, {}, schedule)

    @torch.no_grad()
    def draw(solver: str, calls: int, last: bool) -> dict[str, Tensor]:
        if solver == "2M":
            return dict(multistep_2m(denoise, noise, calls, last, schedule))
        return sample(backbone, noise, given, solver, calls, denoise=last, schedule=schedule)

    with torch.no_grad():
        return Problem(draw, converged(denoise, noise, calls, schedule))


def known_cases(seeds: Iterable[int], samples: int) -> Cases:
    cases: Cases = {}
    for seed in seeds:
        for mixture in families(seed):
            generator = torch.Generator().manual_seed(seed)
            noise = {"x": torch.randn(samples, mixture.mean.shape[1], generator=generator, dtype=torch.float64)}
            cases.setdefault(mixture.name, []).append(problem(mixture.backbone, noise, {}, 1000))
    return cases


def model_cases(name: str, samples: int, calls: int) -> Cases:
    """A model folder or bundled name: nothing given, and every other row given (as a converged sample has them)."""
    from copgen.model import CopGen  # only here: the rest needs no model

    model = CopGen.from_pretrained(name, device="cpu", precision="fp32")
    generator = torch.Generator().manual_seed(1)
    noise = {row: torch.randn(samples, *model.table.latent_shape(row), generator=generator) for row in model.table.names}
    schedule = model.backbone.config.schedule
    nothing = problem(model.backbone, noise, {}, calls, schedule)
    given = {row: nothing.truth[1][row] for row in model.table.names[::2]}
    half = problem(model.backbone, {row: z for row, z in noise.items() if row not in given}, given, calls, schedule)
    return {"none given": [nothing], "half given": [half]}


def pooled(errors: list[tuple[float, float]]) -> tuple[float, float]:
    """The errors of a case from those of its data sets: mean distance; root of the mean square."""
    return statistics.fmean(d for d, _ in errors), math.sqrt(statistics.fmean(r * r for _, r in errors))


def print_errors(cases: Cases) -> None:
    columns = [("published", 50, False), ("published", 51, True), *(("2M", n, True) for n in (10, 15, 20)),
               *(("default", n, True) for n in (8, 10, 12, 13, 15, 20)), *(("default", n, False) for n in (10, 13, 15, 20))]
    print("Distance to the converged solution. +: the last call is a denoising, and so is the converged solution's.")
    print(f"{'':13}{'published':>18}{'2M':>27}{'default':>90}")
    print(f"{'calls':13}" + "".join(f"{str(calls) + '+' * last:>9}" for _, calls, last in columns))
    for name, problems in cases.items():
        print(f"{name:13}" + "".join(f"{pooled([p.error(*column) for p in problems])[0]:9.1e}" for column in columns), flush=True)


def print_fewest(cases: Cases, last: bool) -> None:
    """The default against `published` at 50 calls, both with or both without a denoising (which is the 51st)."""
    goal = f"published 50{' + denoising' if last else ', neither denoised'}"
    single = sum(len(problems) for problems in cases.values())
    print(f"\nerror over that of {goal}: the worst, and how many are above 1 of {len(cases)} cases, of {single} data sets singly")
    print(f"{'calls':>8}{'distance':>18}{'RMS':>18}{'singly, distance':>22}")
    target = {name: [p.error("published", 50 + last, last) for p in problems] for name, problems in cases.items()}
    fewest: dict[str, int | None] = {}
    for calls in COUNTS:
        mine = {name: [p.error("default", calls, last) for p in problems] for name, problems in cases.items()}
        pairs = [(pooled(mine[name]), pooled(target[name])) for name in cases]
        ratios = {"distance": [a[0] / b[0] for a, b in pairs], "RMS": [a[1] / b[1] for a, b in pairs],
                  "distance on every data set singly": [a[0] / b[0] for n in cases for a, b in zip(mine[n], target[n], strict=True)]}
        above = {which: sum(ratio > 1 for ratio in some) for which, some in ratios.items()}
        fewest = {which: (fewest.get(which) or calls) if above[which] == 0 else None for which in ratios}
        print(f"{calls:>8}" + "".join(f"{max(some):12.2f} {f'({above[which]})':>5}" for which, some in ratios.items()), flush=True)
    for which, least in fewest.items():
        print(f"fewest calls at which default is no worse than {goal} on all cases, by {which}: {least or f'above {COUNTS[-1]}'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a bundled model or a model folder instead of the known cases")
    parser.add_argument("--samples", type=int, help="initial noises a data set (500; a model: 4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], help="of the known data sets; 100 to 107 were tuned on")
    parser.add_argument("--calls", type=int, default=300, help="of a model's converged solution")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    cases = (model_cases(options.model, options.samples or 4, options.calls) if options.model
             else known_cases(options.seeds, options.samples or 500))
    print_errors(cases)
    for last in (True, False):
        print_fewest(cases, last)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
