"""From noise to latents and back: the schedule, what training minimises, and the solvers that draw. No Earth in it.

Time t runs over the training steps, 0 (clean) to 1000 (noise), and may be a fraction. Every set of latents is a mapping of rows, each
row a tensor [B, ...]; the rows that are drawn share one time, the others stand at their own. The letters are those of DPM-Solver++
(arXiv 2211.01095): x_t = alpha x_0 + sigma eps, lam = log(alpha / sigma), D = the predicted x_0, h = a step in lam.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from copgen.quality import QUALITIES, check_quality

Latents = Mapping[str, Tensor]
Backbone = Callable[[dict[str, Tensor], dict[str, Tensor]], Latents]     # latents, times [B] in 0..1000 -> predicted noise
Denoiser = Callable[[Latents, float], dict[str, Tensor]]                 # x_t, t -> predicted x_0
Progress = Callable[[int, int], object]                                  # calls done, calls in all


@dataclass(frozen=True)
class Schedule:
    """How much signal is left at time t: betas whose roots are evenly spaced, and log alpha linear between the steps.

    The released weights were trained and drawn with it; below step 1 and above the last it goes on along its outermost segments.
    """

    steps: int = 1000
    first: float = 0.00085                       # beta of step 1
    last: float = 0.0120                         # beta of step `steps`

    @cached_property
    def knots(self) -> list[float]:
        """log alpha after steps 1, 2, ...: half the sum of log(1 - beta)."""
        roots = torch.linspace(self.first**0.5, self.last**0.5, self.steps, dtype=torch.float64)
        return (torch.log1p(-(roots**2)).cumsum(0) / 2).tolist()

    def log_alpha(self, t: float) -> float:
        n = min(max(math.floor(t), 1), self.steps - 1)
        left, right = self.knots[n - 1 : n + 1]
        return left + (t - n) * (right - left)

    def alpha_sigma(self, t: float) -> tuple[float, float]:
        if t <= 0:
            return 1.0, 0.0
        log_alpha = self.log_alpha(t)
        return math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha))

    def alpha_sigma_of(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """`alpha_sigma` of a tensor of times in 0..steps, float32, same shape; time 0 is clean: 1 and 0."""
        knots = torch.tensor([0.0, *self.knots], dtype=torch.float64, device=times.device)
        n = times.double().floor().clamp(0, self.steps - 1).long()
        log_alpha = torch.lerp(knots[n], knots[n + 1], times.double() - n)
        return log_alpha.exp().float(), (-torch.expm1(2 * log_alpha)).sqrt().float()

    def lam(self, t: float) -> float:
        """Half the log of the signal-to-noise ratio; falls as t grows."""
        log_alpha = self.log_alpha(t)
        return log_alpha - 0.5 * math.log(-math.expm1(2 * log_alpha))

    def time_of(self, lam: float) -> float:
        """The inverse of `lam`."""
        log_alpha = -0.5 * (math.log1p(math.exp(-2 * abs(lam))) + max(-2 * lam, 0.0))
        n = min(max(bisect_left(self.knots, -log_alpha, key=lambda knot: -knot), 1), self.steps - 1)
        left, right = self.knots[n - 1 : n + 1]
        return n + (log_alpha - left) / (right - left)


SCHEDULE = Schedule()


@cache
def schedule_to(last: float) -> Schedule:
    """The schedule with another last beta.

    The published one ends with alpha 0.07: a fifteenth of the signal, and of its coarse structure, which noise averages away, far more than
    that. A network reads it there, and when drawing starts from pure noise it reads what is not there, rather than listen to a weak
    condition. With 0.025 alpha ends at 0.006 (compare Lin et al., arXiv 2305.08891). Only velocities can be predicted that far out.
    """
    return Schedule(last=last)


# Training


def draw_times(rows: Iterable[str], batch: int, generator: torch.Generator | None = None,
               schedule: Schedule = SCHEDULE) -> dict[str, Tensor]:
    """A training step for every row and sample, each its own: int64 [batch], evenly from 1 to the last."""
    return {row: torch.randint(1, schedule.steps + 1, (batch,), generator=generator) for row in rows}


def noised(x0: Latents, eps: Latents, n: Mapping[str, Tensor], schedule: Schedule = SCHEDULE) -> dict[str, Tensor]:
    """x_n = alpha_n x_0 + sigma_n eps, every row at its own integer steps n [B]; n = 0 leaves it clean."""
    log_alpha = torch.tensor([0.0, *schedule.knots], dtype=torch.float64)
    alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def at(coefficients: Tensor, n: Tensor, x: Tensor) -> Tensor:
        return coefficients.to(x.device)[n].to(x.dtype).view(-1, *[1] * (x.ndim - 1))

    return {row: at(alpha, n[row], x) * x + at(sigma, n[row], x) * eps[row] for row, x in x0.items()}


def loss(predicted: Latents, eps: Latents) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean squared error of the noise, summed over the rows unweighted: [B]; and row by row, each [B]."""
    rows = {row: (predicted[row].to(e.dtype) - e).square().flatten(1).mean(1) for row, e in eps.items()}
    return torch.stack(list(rows.values())).sum(0), rows


# Drawing


@torch.no_grad()
def sample(backbone: Backbone, noise: Latents, given: Latents, solver: str = "published", steps: int = 50, *,
           absent: Latents | None = None, denoise: bool | None = None, schedule: Schedule = SCHEDULE,
           progress: Progress | None = None) -> dict[str, Tensor]:
    """Latents of exactly the rows in `noise`, drawn from it given the others.

    noise: row -> standard normal [B, ...]; its dtype is the solver's (float32 at least), whatever the backbone returns.
    given: row -> clean latents [B, ...], shown at time 0 at every call.
    absent: row -> one fixed noise [B, ...], shown at the last time: rows neither given nor drawn.
    steps: the network calls, all of them: a last denoising is one of them.
    denoise: end on the predicted x_0 rather than at t = 1, where a little noise is left; None is the solver's own habit.
    """
    check_solver(solver)
    if steps < 1:
        raise ValueError(f"steps = {steps}: a solver calls the network at least once, so steps is 1 or more")
    if not noise:
        raise ValueError("noise has no rows, so there is nothing to draw; it needs one at least")
    absent = absent or {}
    for a, b, said in (given, noise, "given and drawn"), (given, absent, "given and absent"), (absent, noise, "absent and drawn"):
        if both := a.keys() & b.keys():
            raise ValueError(f"{', '.join(sorted(both))}: both {said}; a row is one of the two")
    batches = {row: len(x) for part in (noise, given, absent) for row, x in part.items()}
    if len(set(batches.values())) > 1:
        raise ValueError(f"every row needs the same number of samples, got {batches}")
    method = SOLVERS[solver]
    x = {row: z.to(torch.promote_types(z.dtype, torch.float32)) for row, z in noise.items()}
    denoiser = joint_denoiser(counted(backbone, steps, progress), given, absent, schedule)
    return method.solve(denoiser, x, schedule, steps, method.denoises if denoise is None else denoise)


def joint_denoiser(backbone: Backbone, given: Latents, absent: Latents, schedule: Schedule = SCHEDULE) -> Denoiser:
    """x_t of the rows drawn -> their x_0; the given stand clean at time 0, the absent are noise at the last time."""

    def denoise(x: Latents, t: float) -> dict[str, Tensor]:
        alpha, sigma = schedule.alpha_sigma(t)
        like = next(iter(x.values()))
        at = {**dict.fromkeys(given, 0.0), **dict.fromkeys(absent, float(schedule.steps)), **dict.fromkeys(x, t)}
        eps = backbone({**given, **absent, **x}, {row: like.new_full(like.shape[:1], time) for row, time in at.items()})
        return {row: (x[row] - sigma * eps[row].to(x[row].dtype)) / alpha for row in x}

    return denoise


def counted(backbone: Backbone, total: int, progress: Progress | None) -> Backbone:
    if progress is None:
        return backbone
    done = 0

    def call(latents: dict[str, Tensor], times: dict[str, Tensor]) -> Latents:
        nonlocal done
        eps = backbone(latents, times)
        done += 1
        progress(done, total)
        return eps

    return call


def published_fault(backbone: Backbone, absent: Latents, generator: torch.Generator) -> Backbone:
    """The released code's way with rows neither given nor drawn, for comparisons: new noise at every call, labelled clean."""

    def call(latents: dict[str, Tensor], times: dict[str, Tensor]) -> Latents:
        fresh = {row: torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device) for row, z in absent.items()}
        return backbone({**latents, **fresh}, {**times, **dict.fromkeys(fresh, torch.zeros_like(next(iter(times.values()))))})

    return call


def mix(*terms: tuple[float, Latents]) -> dict[str, Tensor]:
    """A linear combination of latents, row by row: all that a solver does between two calls."""
    (c, first), *rest = terms
    total = {row: c * z for row, z in first.items()}
    for c, latents in rest:
        total = {row: z + c * latents[row] for row, z in total.items()}
    return total


# Solvers: (denoiser, x at t = 1000, schedule, network calls, end on a denoising) -> x


def published(D: Denoiser, x: Latents, schedule: Schedule, calls: int, denoise: bool) -> dict[str, Tensor]:
    """DPM-Solver++ third-order singlestep "fast" on a uniform time grid: the released models' own."""
    calls -= denoise
    t = [schedule.steps + i * (1 - schedule.steps) / calls for i in range(calls)] + [1.0] if calls else [schedule.steps]
    i = 0
    for order in singlestep_orders(calls):
        x = singlestep(D, x, t[i : i + order + 1], schedule)
        i += order
    return D(x, t[-1]) if denoise else dict(x)


def singlestep_orders(calls: int) -> list[int]:
    """Steps of order 3, and at the end what is left over; of `calls` network calls in all."""
    threes, left = divmod(calls, 3)
    return [3] * (threes - 1) + [2, 1] if left == 0 and calls else [3] * threes + [left] if calls else []


def singlestep(D: Denoiser, x: Latents, t: Sequence[float], schedule: Schedule) -> dict[str, Tensor]:
    """One step of order 1, 2 or 3 from t[0] to t[-1], its inner nodes the times between (DPM-Solver++ section 4, algorithm 1)."""
    lam = [schedule.lam(time) for time in t]
    (alpha, sigma), order, h = zip(*map(schedule.alpha_sigma, t), strict=True), len(t) - 1, lam[-1] - lam[0]
    D0 = D(x, t[0])
    if order == 1:
        return mix((sigma[1] / sigma[0], x), (-alpha[1] * math.expm1(-h), D0))
    r1 = (lam[1] - lam[0]) / h
    x1 = mix((sigma[1] / sigma[0], x), (-alpha[1] * math.expm1(-r1 * h), D0))
    D1 = D(x1, t[1])
    phi1 = math.expm1(-h)
    if order == 2:
        c = -alpha[2] * phi1 * 0.5 / r1
        return mix((sigma[2] / sigma[0], x), (-alpha[2] * phi1 - c, D0), (c, D1))
    r2 = (lam[2] - lam[0]) / h
    c = alpha[2] * r2 / r1 * (math.expm1(-r2 * h) / (r2 * h) + 1)
    x2 = mix((sigma[2] / sigma[0], x), (-alpha[2] * math.expm1(-r2 * h) - c, D0), (c, D1))
    D2 = D(x2, t[2])
    c = alpha[3] / r2 * (phi1 / h + 1)
    return mix((sigma[3] / sigma[0], x), (-alpha[3] * phi1 - c, D0), (c, D2))


def default(D: Denoiser, x: Latents, schedule: Schedule, calls: int, denoise: bool) -> dict[str, Tensor]:
    """Third-order multistep, predicted, then corrected by the next call, on a warped log-SNR grid, ended by a denoising.

    UniPC's scheme (arXiv 2302.04867, algorithms 1 to 3, p = 3) with three changes, tuned together: D is a polynomial in `bend(lam)`
    rather than lam, and integrated exactly; D moves along when the corrector moves x; the grid is `warped`. What it reaches, and where
    it falls short of `published`, is in benchmarks/solvers.py.
    """
    t = warped(schedule, calls + 1 - denoise)
    lam = [schedule.lam(time) for time in t]
    known: list[tuple[float, Latents]] = []                         # the newest three (lam, D), newest first
    start: Latents = x                                              # where the step to the present x began
    for i in range(calls):
        D_i = D(x, t[i])
        known = [(lam[i], D_i), *known[:2]]
        if i > 0:
            alpha, _ = schedule.alpha_sigma(t[i])
            corrected = multistep(start, known, lam[i - 1], lam[i])
            move = mix((1.0, corrected), (-1.0, x))
            known[0] = lam[i], mix((1.0, D_i), (RESPONSE * alpha, move))
            x = corrected
        if i + 1 < len(t):
            start, x = x, multistep(x, known, lam[i], lam[i + 1])
    return dict(known[0][1]) if denoise else dict(x)


# Four numbers tuned on Gaussians and mixtures of their own seeds (never those reported), at 12 to 15 calls.
CENTRE = -0.8                                    # the lam around which the grid is finest: the modes of a mixture part here
WIDTH = 1.4                                      # within about this far of it the grid is uniform in lam, beyond it is geometric
BEND = 0.75                                      # polynomials in the alpha that belongs to BEND * lam
RESPONSE = 0.8                                   # dD/dx in units of alpha, which is what it is for data of unit variance


def warped(schedule: Schedule, points: int) -> list[float]:
    """Times from the last step to step 1, uniform in asinh((lam - CENTRE) / WIDTH)."""
    first, last = (math.asinh((schedule.lam(t) - CENTRE) / WIDTH) for t in (schedule.steps, 1))
    inner = [first + i / (points - 1) * (last - first) for i in range(1, points - 1)]
    return [float(schedule.steps), *(schedule.time_of(CENTRE + WIDTH * math.sinh(u)) for u in inner), 1.0][:points]


def bend(lam: float) -> float:
    """The variable in which D is nearly a low polynomial: with BEND = 1 it is alpha, and D of Gaussian unit data a multiple of it."""
    return (1 + math.exp(-2 * BEND * lam)) ** -0.5


def multistep(x: Latents, known: Sequence[tuple[float, Latents]], s: float, t: float) -> dict[str, Tensor]:
    """From lam s to lam t: sigma_t / sigma_s x + sigma_t * integral of e^lam D, D the polynomial in `bend` through what is known.

    The exact solution of the diffusion ODE but for the polynomial (DPM-Solver++ equation 8); a predictor where the newest of the
    known is at s, a corrector where it is at t.
    """
    (_, sigma_s), (alpha_t, sigma_t) = alpha_sigma_of(s), alpha_sigma_of(t)
    weights = [0.0] * len(known)
    knots = [bend(lam) for lam, _ in known]
    for z, w in gauss_legendre():
        lam = (s + t) / 2 + z * (t - s) / 2
        for j, basis in enumerate(lagrange(knots, bend(lam))):
            weights[j] += w * (t - s) / 2 * alpha_t * math.exp(lam - t) * basis       # sigma_t e^lam = alpha_t e^(lam - t)
    return mix((sigma_t / sigma_s, x), *((weight, D) for weight, (_, D) in zip(weights, known, strict=True)))


def alpha_sigma_of(lam: float) -> tuple[float, float]:
    return (1 + math.exp(-2 * lam)) ** -0.5, (1 + math.exp(2 * lam)) ** -0.5


def lagrange(knots: Sequence[float], u: float) -> list[float]:
    return [math.prod((u - b) / (a - b) for b in knots if b != a) for a in knots]


@cache
def gauss_legendre(order: int = 16) -> list[tuple[float, float]]:
    """Nodes and weights on [-1, 1] (Golub and Welsch 1969): eigenvalues of the Legendre polynomials' recurrence."""
    k = torch.arange(1, order, dtype=torch.float64)
    side = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(side.diag(1) + side.diag(-1))
    return list(zip(nodes.tolist(), (2 * vectors[0] ** 2).tolist(), strict=True))


@dataclass(frozen=True)
class Solver:
    """A way from noise to latents, whether it ends on a denoising unless told otherwise, and the calls it takes unless told."""

    solve: Callable[[Denoiser, Latents, Schedule, int, bool], dict[str, Tensor]]
    denoises: bool
    steps: int

    @property
    def doc(self) -> str:
        return (self.solve.__doc__ or "").splitlines()[0]


SOLVERS = {"default": Solver(default, denoises=True, steps=QUALITIES["default"].steps),
           "published": Solver(published, denoises=False, steps=50)}


def default_steps(solver: str) -> int:
    """The network calls that a solver takes when nobody says how many; ValueError for a solver that isn't there."""
    check_solver(solver)
    return SOLVERS[solver].steps


def check_solver(solver: str) -> None:
    if solver not in SOLVERS:
        raise ValueError(f"no solver is called {solver!r}; there are: {', '.join(SOLVERS)}")


def way(quality: str = "default", solver: str = "default", steps: int | None = None) -> tuple[str, int]:
    """The solver and its network calls: those of a quality, or those named in place of the default quality's.

    Raises ValueError for a quality or solver that isn't there, and for a solver or steps beside a quality that has others.
    """
    check_quality(quality)
    calls = default_steps(solver) if steps is None else steps
    if quality == "default":
        return solver, calls
    own = QUALITIES[quality]
    if solver not in ("default", own.solver) or steps not in (None, own.steps):
        raise ValueError(f"quality {quality} is {own.steps} calls of solver {own.solver}, and {calls} of {solver} are asked for, too; "
                         "leave out the quality, or solver and steps")
    return own.solver, own.steps


def quality_of(solver: str, steps: int) -> str | None:
    """The quality that so many calls of a solver are; None where they are none."""
    return next((name for name, one in QUALITIES.items() if (one.solver, one.steps) == (solver, steps)), None)
