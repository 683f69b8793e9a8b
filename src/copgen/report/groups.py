"""Which conditions does a report speak of? Those under which most was drawn; each alone, or all of a protocol whose targets differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from copgen.evaluation import asked
from copgen.evaluation.arrays import Group, Results
from copgen.evaluation.asked import scored


@dataclass(frozen=True)
class Condition:
    """Conditions that are looked at as one, and how they are called."""

    title: str
    group: Group                                 # of all generators: none has another's rows of it beside its own
    modalities: tuple[str, ...]


def conditions_of(runs: Sequence[Results]) -> list[Condition]:
    """What was asked and drawn more than once, the most telling first: the protocol `given`, then by tiles and modalities."""
    single = [condition_of(runs, one) for one in asked.conditions(runs)]
    by_protocol: dict[str, list[Condition]] = {}
    for one in single:
        by_protocol.setdefault(one.group[0].protocol, []).append(one)
    found = [one for protocol, ones in by_protocol.items() for one in pooled(runs, protocol, ones) if judgeable(runs, one)]
    return sorted(found, key=lambda one: (one.group[0].protocol != "given", -size(runs, one)))


def condition_of(runs: Sequence[Results], one: asked.Condition) -> Condition:
    group = tuple(dict.fromkeys(part for members in one.groups for part in members))
    given = f"given {one.given.replace('+', ', ')}"
    return Condition(given if one.protocol == "given" else f"{one.protocol}, {given}", group, drawn(runs, group))


def pooled(runs: Sequence[Results], protocol: str, ones: Sequence[Condition]) -> list[Condition]:
    """One condition of all of a protocol where each is asked for something else; otherwise as they are."""
    everything = [name for one in ones for name in one.modalities]
    if len(ones) < 2 or len(set(everything)) < len(everything):
        return list(ones)
    group = tuple(part for one in ones for part in one.group)
    return [Condition(f"{protocol}, each target given the rest", group, drawn(runs, group))]


def drawn(runs: Sequence[Results], group: Group) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for run in runs for name in run.modalities(group) if any(scored(run, one, name) for one in group)))


def size(runs: Sequence[Results], one: Condition) -> int:
    """How many tiles have how many modalities."""
    return sum(len(run.cells_of(one.group, name)) for run in runs for name in one.modalities)


def judgeable(runs: Sequence[Results], one: Condition) -> bool:
    """Whether a generator drew several samples of anything, so that there is a distribution."""
    return any(name.startswith(("rank:", "reliability:", "energy score")) for run in runs for modality in one.modalities
               for name in run.statistics(one.group, modality))
