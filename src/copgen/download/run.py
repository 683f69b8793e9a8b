"""How do the cells of a request come into an archive? Planned, fetched side by side, each whole or absent; run again, it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from copgen.download.choice import Choice, Criteria, Pick, choose
from copgen.download.fetch import Landcover, Refused, Untold, Work, columns_of, fetch_cell, standing
from copgen.download.hub import open_hub, origin
from copgen.download.index import NAME, write_index
from copgen.download.landcover import add_land_cover
from copgen.download.maps import parse_source
from copgen.download.metadata import Rows, fetch_metadata, read_metadata
from copgen.download.records import Archive, Full, OtherChoice, Record, broken
from copgen.download.remote import Hub, Unanswered
from copgen.download.report import Report, reason_of
from copgen.download.request import Request
from copgen.download.rows import Footers, ranges_of
from copgen.download.sources import THUMBNAIL, chosen_sources
from copgen.download.traffic import Patience, Stopped

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]       # what, how much is done, of how much
SAMPLED = 3                                      # cells whose footers an estimate is made from
HOPELESS = 12                                    # cells in a row without an answer: the server is gone
INDEX_EVERY = 256                                # new cells, or a quarter of all


def download(request: Request, *, progress: Progress | None = None, say: Say | None = None, dry_run: bool = False,
             patience: Patience | None = None) -> Report:
    """Bring the cells of a request into its archive; with `dry_run`, only say what that would take.

    Faults of one cell don't stop the others: they are in the report. An interrupt (Ctrl-C) ends the run early and leaves the archive
    whole. Raises ValueError for what concerns all: a folder that can't be written, a hub that isn't there, a full disk.
    """
    began, stop, report = time.monotonic(), threading.Event(), Report()
    archive, say = Archive(request.out), say or (lambda text: None)
    landcover = landcover_of(request)
    hub = open_hub(request.hub, revision=request.revision, connections=request.connections, patience=patience, stop=stop)
    try:
        with archive.locked():
            choice, rows = planned(request, archive, hub, report, progress, say)
            footers = Footers(hub, archive.hidden / "footers")
            commits = {name: one.commit for name, one in rows.items()}
            work = Work(archive, footers, request.thumbnails, request.bands, commits, landcover)
            if dry_run:
                report.estimate = estimate(work, choice, report)
            else:
                fetch_all(work, choice, request, report, stop, progress, say)
    except KeyboardInterrupt:                    # before the cells
        stop.set()
        report.interrupted = True
    finally:
        hub.close()
        report.traffic, report.seconds = hub.traffic.summary(), time.monotonic() - began
    return report


def planned(
    request: Request, archive: Archive, hub: Hub, report: Report, progress: Progress | None, say: Say
) -> tuple[Choice, dict[str, Rows]]:
    """Which products of which cells are to be there."""
    filters, rows = request.filters(), {}
    allowed = origins(hub)
    for source in chosen_sources(request.products):
        path, file = fetch_metadata(hub, source, archive.hidden / "metadata", progress)
        one = rows[source.product] = read_metadata(path, source, filters, allowed, file.commit)
        report.rows_left_out[source.product] = one.counts
        report.notes += one.notes
        said = "".join(f"; {count} {why}" for why, count in one.counts.items())
        say(f"{source.repository}: {one.table.num_rows} rows may be taken{said}")
    for note in report.notes:
        say(note)
    choice = choose(rows, request.criteria, filters.cells)
    report.cells, report.left_out = len(choice), choice.left_out
    return choice, rows


def origins(hub: Hub) -> frozenset[tuple[str, str, int | None]]:
    """Where metadata may point to: the Hugging Face hub, or what is read in its place."""
    from huggingface_hub import constants

    default = getattr(constants, "_HF_DEFAULT_ENDPOINT", constants.ENDPOINT)
    return frozenset(origin(address) for address in (default, constants.ENDPOINT, hub.base))


def landcover_of(request: Request) -> Landcover | None:
    if request.lulc is None:
        return None
    source, year = parse_source(request.lulc), request.lulc_year
    return lambda root, cell, overwrite: add_land_cover(root, cell, source, year=year, overwrite=overwrite)


# --- fetching -----------------------------------------------------------------------------------------------------------------------

def fetch_all(work: Work, choice: Choice, request: Request, report: Report, stop: threading.Event, progress: Progress | None,
              say: Say) -> None:
    """Fetch the cells side by side, as many at once as there are connections, so that memory holds no more than these."""
    again, unanswered = rechooser(choice, request.criteria), 0
    with indexing(work.archive), ThreadPoolExecutor(request.connections) as pool:
        try:
            for cell, future in finished(pool, work, choice, again, request.connections + 2):
                unanswered = note_outcome(report, cell, future, unanswered, say)
                if unanswered >= HOPELESS:
                    report.given_up = f"the server left {unanswered} cells in a row without an answer; run the same command again later"
                    break
                if progress:
                    progress("cells", report.complete + report.skipped + report.failures, report.cells)
                if report.complete and report.complete % max(INDEX_EVERY, report.cells // 4) == 0:
                    write_index(work.archive)
        except KeyboardInterrupt:
            report.interrupted = True
        finally:
            stop.set()                           # what is under way is withdrawn
            pool.shutdown(wait=True, cancel_futures=True)


def finished(pool: ThreadPoolExecutor, work: Work, choice: Choice, again: Callable[[str, Refused], Mapping[str, Pick]], most: int
             ) -> Iterator[tuple[str, Future[Record | None]]]:
    """Cells as they are done; no more than `most` are begun and not yet looked at."""
    waiting: dict[Future[Record | None], str] = {}
    for picks in choice.picks(choice.by_place()):
        cell = next(iter(picks.values())).cell
        waiting[pool.submit(fetch_cell, work, picks, again)] = cell
        if len(waiting) >= most:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future
    while waiting:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield waiting.pop(future), future


def note_outcome(report: Report, cell: str, future: Future[Record | None], unanswered: int, say: Say) -> int:
    """Count what became of a cell; returns how many in a row the server left without an answer."""
    try:
        record = future.result()
    except (Full, Stopped):
        raise
    except ValueError as error:
        report.failed.setdefault(reason_of(error), []).append((cell, str(error)))
        say(f"{cell}: {error}")
        return unanswered + 1 if isinstance(error, Unanswered) else 0
    if record is None:
        report.skipped += 1
        return unanswered
    report.complete += 1
    report.notes += [f"{cell}: {note}" for note in record.notes]
    for note in record.notes:
        say(f"{cell}: {note}")
    return 0


@contextmanager
def indexing(archive: Archive) -> Iterator[None]:
    """The archive's index is written at the end, whatever the end, and where that of an earlier run was not."""
    try:
        yield
    finally:
        if archive.unindexed.exists() or not (archive.root / NAME).is_file():
            write_index(archive)
            archive.unindexed.unlink(missing_ok=True)


def rechooser(choice: Choice, criteria: Criteria) -> Callable[[str, Refused], Mapping[str, Pick]]:
    """The choice for one cell without the rows of metadata that told wrongly."""
    def again(cell: str, refused: Refused) -> Mapping[str, Pick]:
        rows = {name: replace(one, table=without(one.table.filter(pc.equal(one.table["cell"], cell)), name, refused))
                for name, one in choice.rows.items()}
        found = choose(rows, criteria, (cell,))
        if not len(found):
            why = ", ".join(found.left_out)
            raise Untold(f"cell {cell}: its parquet rows are of other cells or products than the metadata tell, and without these there is "
                         f"{why}")
        return next(found.picks())

    return again


def without(table: Any, product: str, refused: Refused) -> Any:
    wrong = {(id_, file, row) for name, id_, file, row in refused if name == product}
    rows = zip(*(table[name].to_pylist() for name in ("id", "file", "row")), strict=True)
    return table.filter(pa.array([one not in wrong for one in rows], pa.bool_()))


# --- looking ------------------------------------------------------------------------------------------------------------------------

def estimate(work: Work, choice: Choice, report: Report) -> int:
    """Bytes that are still to be fetched, by the footers of a few cells' files."""
    missing: list[dict[str, Pick]] = []
    for picks in choice.picks():
        record = work.archive.record(next(iter(picks.values())).cell)
        try:
            left = standing(work.archive, record, picks, False, work.bands)
        except OtherChoice:
            continue                             # told when it is fetched
        report.skipped += not left
        if left:
            missing.append({name: picks[name] for name in left})
    sizes = []
    for k in np.unique(np.linspace(0, len(missing) - 1, SAMPLED).round().astype(int)) if missing else ():
        sizes.append(sum(size_of(work, pick) for pick in missing[k].values()))
    return round(float(np.mean(sizes)) * len(missing)) if sizes else 0


def size_of(work: Work, pick: Pick) -> int:
    source, columns = columns_of(pick.product, work.thumbnails, work.bands)
    file, metadata = work.footers.of(f"{source.repository}/{pick.file}")
    ranges = ranges_of(metadata, pick.row, columns, frozenset({THUMBNAIL}), file.size, work.footers.hub.address(file.name))
    return sum(stop - start for start, stop in ranges.values())


def verify(root: Path, progress: Progress | None = None) -> tuple[int, list[str]]:
    """The number of cells recorded in an archive, and what of their files isn't as it was fetched (by sha256)."""
    archive = Archive(root)
    if not archive.hidden.is_dir():
        raise ValueError(f"{root}: holds no records of a download, so there is nothing to verify it by")
    count, wrong = 0, []
    for record in archive.records():
        wrong += [what for taken in record.taken.values() for what in broken(archive.root, taken, thorough=True)]
        count += 1
        if progress:
            progress("cells verified", count, count)
    return count, wrong
