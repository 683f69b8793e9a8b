"""What was a model trained on? Vectors of its training places, and of as many others, made once and kept beside the evaluation's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from copgen.evaluation.cases import Cases
from copgen.evaluation.many import Memory
from copgen.files import write_whole
from copgen.scene import Scene

MEMORY = "memory.safetensors"
PARTS = ("training", "held_out")


@dataclass(frozen=True)
class Looked:
    """The places to look at."""

    training: Cases
    held_out: Cases

    def record(self) -> dict[str, Any]:
        return {"training": self.training.record(), "held out": self.held_out.record()}


def looked_at(training: str | None, held_out: str | None, cases: Sequence[str], opened: Callable[[str], Cases]) -> Looked | None:
    """The places that texts name, None where none is named.

    Raises ValueError for one text without the other, and where a place is in two of training, held out and cases: then it is near for
    another reason, a case's samples to the case itself.
    """
    if not training and not held_out:
        return None
    if not training or not held_out:
        raise ValueError(f"training {training}, held out {held_out}: how near samples are to training places says something beside how "
                         "near they are to others only; name both or neither")
    found = Looked(opened(training), opened(held_out))
    known, held = (set(one.names()) for one in (found.training, found.held_out))
    out, of = f"held out {held_out}", f"training {training}"
    for what, places, among, others in ((out, held, "those trained on", known), (out, held, "the cases", cases),
                                        (of, known, "the cases", cases)):
        if both := sorted(places.intersection(others)):
            raise ValueError(f"{what}: {both[0]} ({len(both)} in all) is also among {among}; name others of their kind")
    return found


def write_memory(path: Path, looked: Looked, say: Callable[[str], object] = lambda _: None) -> None:
    """Look at all places, one at a time, unless the file is there; ValueError for one that can't be read."""
    if path.is_file():
        return
    say(f"looking at {len(looked.training.names())} training places and {len(looked.held_out.names())} others, once")
    memory = Memory.of(observations(looked.training), observations(looked.held_out))
    arrays = {f"{part}/{product}": vectors for part in PARTS for product, vectors in getattr(memory, part).items()}
    write_whole(path, save(arrays))


def observations(cases: Cases) -> Iterator[Scene]:
    return (cases.observation(name) for name in cases.names())


def read_memory(path: Path) -> Memory:
    """What `write_memory` wrote; ValueError for a file that is damaged or gone."""
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: is damaged or gone ({error}); delete it and evaluate again") from error
    named = {part: {name.partition("/")[2]: vectors for name, vectors in arrays.items() if name.startswith(f"{part}/")} for part in PARTS}
    return Memory(named["training"], named["held_out"])
