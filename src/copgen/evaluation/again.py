"""What did an earlier evaluation draw? The samples that it kept, to be scored again without being drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from copgen.evaluation.kept import Ensemble, read_ensemble
from copgen.evaluation.recipe import EXCHANGED
from copgen.evaluation.rows import read_plan
from copgen.evaluation.sources import fingerprint
from copgen.modalities import TABLE, Table, table_with
from copgen.scene import Scene


@dataclass
class Kept:
    """The generator of an earlier evaluation, as far as its samples were kept (`--keep`). Each sample has the seed it was drawn with."""

    folder: Path
    plan: dict[str, Any]
    table: Table = TABLE
    files: dict[str, list[Path]] = field(default_factory=dict)       # by case

    @classmethod
    def opened(cls, folder: Path) -> Kept:
        """ValueError for a folder that is no evaluation, and for one that kept nothing."""
        files: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("samples/*/*.safetensors")):
            files.setdefault(path.stem, []).append(path)
        if not files:
            raise ValueError(f"{folder}: keeps no samples; evaluate with --keep and as many cases as shall be scored again")
        plan = read_plan(folder)                 # of samples in files it does not say the rows
        rows = plan["generator"].get("rows") or read_ensemble(next(iter(files.values()))[0]).observation.table.names
        return cls(folder, plan, table_with(rows).subset(rows), files)

    def samples(self, case: Scene, given: Sequence[str], want: Sequence[str], seeds: Sequence[int]) -> list[Scene]:
        """Those samples of the case that were drawn from these given layers, of which some row is wanted."""
        found: dict[int, Scene] = {}
        for path in self.files.get(case.name, ()):
            for sample in drawn_from(read_ensemble(path), case, tuple(given)):
                layers = {row: sample[row] for row in want if row in sample}
                seed = sample.notes["seed"]
                if seed in seeds and len(layers) > (len(found[seed].layers) if seed in found else 0):    # the first that has most of them
                    found[seed] = case.with_layers(layers, **sample.notes)
        return [found[seed] for seed in seeds if seed in found]

    def record(self) -> dict[str, Any]:
        files = [path for paths in self.files.values() for path in paths]
        return {**self.plan["generator"], "kept in": self.plan["recipe"], "kept": fingerprint(self.folder, files)}


def drawn_from(ensemble: Ensemble, case: Scene, given: tuple[str, ...]) -> list[Scene]:
    """The samples that were drawn from a case's layers, its own or with another case's in their place; [] for those of other layers."""
    if ensemble.condition.given != given:
        return []
    differing = [row for row in given if row in ensemble.observation and (ensemble.observation[row] != case[row]).any()]
    if not differing:
        return ensemble.samples
    exchanged = case.notes.get(EXCHANGED)
    if exchanged is None or {case.table[row].product for row in differing} != {exchanged["product"]}:
        return []
    return [sample for sample in ensemble.swapped if sample.notes.get(EXCHANGED) == exchanged]
