"""Where do the samples come from? A model, files that any generator wrote, or the two forecasters between which all others lie.

| text | the generator |
|---|---|
| `nano`, a model's name or folder | a model of ours; `nano,quality=fast,precision=fp32`, `nano,steps=30,solver=published`, `nano,reuse=3` |
| `folder:PATH` | what `copgen generate` wrote, or another generator in the same files: `copgen.evaluation.folders` |
| `published:PATH` | run folders of the published code or its TerraMind baseline: `copgen.evaluation.published_runs` |
| `benchmark:PATH,config=copgen` | the samples in the stochastic benchmark's parquet files: `copgen.evaluation.benchmark` |
| `kept:EVALUATION` | what an earlier evaluation drew and kept, to be scored again |
| `perfect` | true resamplings of a synthetic world: what no generator can beat |
| `collapsed` | their mean, for every seed: right on the average, and without any spread |
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from copgen import __version__
from copgen.diffusion import way
from copgen.evaluation.again import Kept
from copgen.evaluation.cases import Resampled, Resampling
from copgen.evaluation.folders import open_folder
from copgen.evaluation.published_runs import open_runs
from copgen.evaluation.sources import folder_in, one_of, options_of, whole_number
from copgen.modalities import TABLE, Modality, Table
from copgen.model import Absent, CopGen, Posterior, Precision, check_choice, pick_precision
from copgen.scene import Scene
from copgen.writing import RadarUnit

FILES = ("folder", "published", "benchmark", "kept")
BLOCK = 64                                       # seeds whose resamplings are numbered together
COLLAPSED = -2                                   # its draws; those of `perfect` are 1, 2, ... and of the cases' others 0
MEANS = 8                                        # that are kept, some megabytes each
CAUSES = (("place", "dem", "lulc"), ("place",), ())
Layers = dict[str, NDArray[Any]]


class Generator(Protocol):
    """Whatever draws samples of the rows that are wanted from those that are given."""

    @property
    def table(self) -> Table:
        """The rows that it knows, and its square."""
        ...

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        """A scene a seed (notes["seed"]) with the wanted rows; there may be fewer, and they may lack rows.

        `case` holds the observation; of it only the given rows, the square and the name are used. Ask for all seeds of a condition at
        once. Raises ValueError, in one sentence, for samples that are there and cannot be read.
        """
        ...

    def record(self) -> dict[str, Any]:
        """What it is, ready for JSON: two generators with the same record give the same samples."""
        ...


def open_generator(text: str, table: Table | None = None, *, device: str = "auto") -> Generator:
    """The generator that a text names (see above). `table` is that of samples in files (None: as they say); a model has its own.

    Raises ValueError, naming the text and the way out.
    """
    kind, colon, rest = text.strip().partition(":")
    if colon and kind in FILES:
        return open_files(kind, rest, table)
    name, options = options_of(text, ("resampling", "draws", *MODEL_OPTIONS), "generator")
    if name in ("perfect", "collapsed"):
        return open_forecaster(text, name, options, table or TABLE)
    if strange := [key for key in options if key not in MODEL_OPTIONS]:
        raise ValueError(f"generator {text!r}: a model takes no {strange[0]}; it takes {', '.join(MODEL_OPTIONS)}")
    return Model.opened(text, name, options, device)


def open_files(kind: str, rest: str, table: Table | None) -> Generator:
    """A generator of samples that are on disk already."""
    what = f"generator {kind}"
    if kind == "folder":
        said, options = options_of(rest, ("given", "s1_unit"), what)
        unit = one_of(options.get("s1_unit", "linear"), get_args(RadarUnit), f"{what}: s1_unit")
        return open_folder(folder_in(said, what, "<case>/run.json"), table, options.get("given"), cast(RadarUnit, unit))
    if kind == "kept":
        return Kept.opened(folder_in(options_of(rest, (), what)[0], what, "plan.json and samples/"))
    if kind == "published":
        said, options = options_of(rest, ("blind",), what)
        return open_runs(folder_in(said, what, "input_..._output_..._seed_N"), table or TABLE, options.get("blind", ""))
    from copgen.evaluation.benchmark import open_samples  # here, as only this kind needs pyarrow

    said, options = options_of(rest, ("config",), what)
    return open_samples(folder_in(said, what, "copgen/data/*.parquet"), table or TABLE, options.get("config", "copgen"))


def open_forecaster(text: str, name: str, options: dict[str, str], table: Table) -> Generator:
    takes = ("resampling",) if name == "perfect" else ("resampling", "draws")
    if strange := [key for key in options if key not in takes]:
        raise ValueError(f"generator {text!r}: {name} takes no {strange[0]}; it takes {', '.join(takes)}")
    how = cast(Resampling, one_of(options.get("resampling", "bank"), get_args(Resampling), f"generator {text!r}: resampling"))
    if name == "perfect":
        return Perfect(table, Resampled(how))
    return Collapsed(table, Resampled(how), whole_number(options.get("draws", "16"), f"generator {text!r}: draws", 1))


# --- a model ------------------------------------------------------------------------------------------------------------------------

MODEL_OPTIONS = ("quality", "steps", "solver", "precision", "device", "absent", "posterior", "reuse")


@dataclass
class Model:
    """A model of ours, one sample a seed as `copgen generate` draws it."""

    model: CopGen
    steps: int
    solver: str
    absent: Absent
    posterior: Posterior
    reuse: int = 1

    @classmethod
    def opened(cls, text: str, name: str, options: dict[str, str], device: str) -> Model:
        precision = options.get("precision", "auto")
        absent, posterior = options.get("absent", "joint"), options.get("posterior", "mean")
        for what, value, choices in (("precision", precision, get_args(Precision)), ("absent", absent, get_args(Absent)),
                                     ("posterior", posterior, get_args(Posterior))):
            check_choice(f"generator {text!r}: {what}", value, choices)
        calls = whole_number(options["steps"], f"generator {text!r}: steps", 1) if "steps" in options else None
        solver, steps = way(options.get("quality", "default"), options.get("solver", "default"), calls)
        reuse = whole_number(options.get("reuse", "1"), f"generator {text!r}: reuse", 1)
        model = CopGen.from_pretrained(name, device=options.get("device", device), precision=cast(Precision, precision))
        return cls(model, steps, solver, cast(Absent, absent), cast(Posterior, posterior), reuse)

    @property
    def table(self) -> Table:
        return self.model.table

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        wanted = [row for row in want if row in self.table.by_name]
        if not wanted:
            return []
        known = case.only([row for row in given if row in self.table.by_name])
        return self.model.generate(known, wanted, seeds=list(seeds), steps=self.steps, solver=self.solver, absent=self.absent,
                                   posterior=self.posterior, reuse=self.reuse)

    def record(self) -> dict[str, Any]:
        model = self.model
        precision = pick_precision(model.precision, model.device)
        return {"source": "model", "name": model.name, "sha256": model.weights_sha256(), "parameters": model.parameters(),
                "rows": list(model.table.names), "solver": self.solver, "steps": self.steps, "precision": precision,
                "absent": self.absent, "posterior": self.posterior, "copgen": __version__,
                **({"reuse": self.reuse} if self.reuse > 1 else {})}


# --- between the two --------------------------------------------------------------------------------------------------------------

@dataclass
class Perfect:
    """True resamplings of a synthetic world given the given rows: other draws than the cases' others, of the same distribution."""

    table: Table = TABLE
    resampled: Resampled = field(default_factory=Resampled)

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        """A sample depends on the world, the given rows and its seed; [] where `Resampled` refuses, which its `refused` tells."""
        drawn: dict[int, Scene] = {}
        for block in sorted({seed // BLOCK for seed in seeds}):
            numbers = {seed % BLOCK: seed for seed in seeds if seed // BLOCK == block}
            found = self.resampled(case, given, max(numbers) + 1, 1 + block)
            drawn |= {seed: found[number] for number, seed in numbers.items() if number < len(found)}
        return [with_seed(case, drawn[seed], want, seed) for seed in seeds if seed in drawn]

    def record(self) -> dict[str, Any]:
        return {"source": "perfect", "name": "perfect", "rows": list(self.table.names), "resampling": self.resampled.how,
                "copgen": __version__}


def with_seed(case: Scene, drawn: Scene, want: Sequence[str], seed: int) -> Scene:
    """The wanted rows of a draw as a sample of the case; on the case's ground, where a place that is not given is another."""
    return case.with_layers({row: drawn[row] for row in want if row in drawn}, seed=seed)


@dataclass
class Collapsed:
    """The mean of true resamplings, the same for every seed: what a network that minimises squared errors comes to.

    The mean is over the model's units, in which such a network is trained: digital numbers, decibels and the logarithm of heights; of
    classes, the most frequent one; of places, the direction of the mean unit vector; of dates, the circular mean of the day of the year
    and the mean year. Where the world cannot be drawn again given all that is given, as many of place, date, DEM and LULC are kept as
    makes the draws exact.
    """

    table: Table = TABLE
    resampled: Resampled = field(default_factory=Resampled)
    draws: int = 16
    means: dict[Hashable, Layers] = field(default_factory=dict, repr=False)

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        mean = next(filter(None, (self.mean(case, rows) for rows in self.kept(case, given))), {})
        layers = {row: mean[row] for row in want if row in mean}
        return [case.with_layers(layers, seed=seed) for seed in seeds if layers]

    def mean(self, case: Scene, rows: tuple[str, ...]) -> Layers:
        """The mean of all rows given these; {} where it cannot be had. Some are kept: a case's conditions often come one after another."""
        key = case.notes.get("synthetic seed"), rows, tuple(case[row].tobytes() for row in rows)
        if key not in self.means:
            found = self.resampled(case, rows, self.draws, COLLAPSED)
            if not found:
                return {}
            self.means[key] = {row: mean_layer(case.table[row], np.stack([one[row] for one in found])) for row in found[0].layers}
            if len(self.means) > MEANS:
                del self.means[next(iter(self.means))]
        return self.means[key]

    def kept(self, case: Scene, given: Sequence[str]) -> list[tuple[str, ...]]:
        """What is tried to be kept: the given rows where that is not too dear, then those of them that hold all of their causes."""
        rows = case.table.select(given)
        causes = next(some for some in CAUSES if set(some) <= set(rows))
        exact = case.table.select([*causes, *(["date"] if causes and "date" in rows else [])])
        return [rows, exact] if self.resampled.tries(rows, case.table) else [exact]

    def record(self) -> dict[str, Any]:
        return {"source": "collapsed", "name": "collapsed", "rows": list(self.table.names), "resampling": self.resampled.how,
                "draws": self.draws, "copgen": __version__}


def mean_layer(row: Modality, layers: NDArray[Any]) -> NDArray[Any]:
    """The mean [...] of layers [n, ...] in the model's units, as a layer in physical units; ties between classes go to the first."""
    return np.asarray(row.scale.to_physical(row.scale.to_model(layers).mean(0)))
