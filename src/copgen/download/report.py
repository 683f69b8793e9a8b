"""What came of a download? Cells by what became of them, reasons, requests and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from copgen.download.fetch import Unreadable, Untold
from copgen.download.records import OtherChoice
from copgen.download.remote import Absent, Changed, Unanswered
from copgen.download.rows import Damaged

REASONS: dict[type[Exception], str] = {
    Absent: "a file is not there", Unanswered: "the server did not answer as asked", Changed: "a file was changed while it was read",
    Damaged: "a row can't be decoded", Unreadable: "an image can't be read", OtherChoice: "an earlier request chose another product",
    Untold: "the metadata contradict the files",
}


def reason_of(error: Exception) -> str:
    """Under which heading a cell's failure is counted."""
    return next((REASONS[kind] for kind in REASONS if isinstance(error, kind)), "other")


@dataclass
class Report:
    """What came of a request."""

    cells: int = 0                               # that have all products
    complete: int = 0                            # fetched now
    skipped: int = 0                             # that were there already
    failed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)   # reason -> cells and what happened
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)    # reason -> cells
    rows_left_out: dict[str, Mapping[str, int]] = field(default_factory=dict)    # product -> reason -> rows of metadata
    notes: list[str] = field(default_factory=list)
    traffic: Mapping[str, Any] = field(default_factory=dict)
    estimate: int | None = None                  # bytes that the cells will take, where only a plan was asked for
    seconds: float = 0.0
    interrupted: bool = False
    given_up: str = ""                           # why the run ended early

    @property
    def failures(self) -> int:
        return sum(len(cells) for cells in self.failed.values())

    @property
    def code(self) -> int:
        """The exit status: 0 if there are cells and all are whole, 130 if it was interrupted, else 1."""
        return 130 if self.interrupted else int(bool(self.failed or self.given_up or not self.cells))

    def lines(self) -> Iterator[str]:
        """The report in sentences."""
        yield (f"{self.cells} cells have all products: {self.complete} fetched, {self.skipped} there already, {self.failures} failed"
               + (f"; the rest is not fetched: {self.given_up}" if self.given_up else "; interrupted" if self.interrupted else ""))
        if not (self.cells or self.left_out or self.interrupted):
            yield "the hub knows no cell there; give another place, in degrees and in this order: --bbox W,S,E,N"
        for why, some in self.left_out.items():
            yield f"left out, {why}: {len(some)} ({', '.join(some[:3])}{', ...' if len(some) > 3 else ''})"
        for why, failures in self.failed.items():
            yield f"failed, {why}: {len(failures)}; {failures[0][0]}: {failures[0][1]}"
        if self.estimate is not None:
            yield f"fetching takes about {self.estimate / 1e6:.1f} MB"
        said = self.traffic
        if said:
            ratio = f", {said['ratio']:.3f} times the {said['bytes_of_wanted_columns']:,} of the columns" if said["ratio"] else ""
            kinds = ", ".join(f"{kind} {n}" for kind, n in said["retries"].items())
            of = ", ".join(f"{kind} {n:,}" for kind, n in said["bytes_by_purpose"].items())
            yield f"{said['requests']:,} requests, {said['bytes']:,} bytes received ({of}){ratio}; {said['bytes_wasted']:,} in vain"
            if kinds:
                yield f"tried again: {kinds}"
        yield f"{self.seconds:.1f} s"
