"""What does it take to fetch one cell out of large parquet files, and what do faults of the server cost?

`python benchmarks/download.py [--rows 60] [--rate 0.3]` makes parquet files in Major TOM's schema (`--rows` cells of images of real size,
14 MB each), serves them on this machine as the hub does, sent on to a content network, and prints: requests and bytes for one cell, by
source, next to the size of the files; and a table of runs in which each kind of fault meets `--rate` of the requests.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import made_archive
from hub_server import KINDS, Faults, Hub, serve

from copgen.download import Report, Request, download, verify
from copgen.download.traffic import Patience

QUICK = Patience(first=0.01, longest=0.1)        # the server is on this machine: nobody is spared by waiting
CELLS = 4                                        # of a run with faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60, help="cells in each parquet file")
    parser.add_argument("--rate", type=float, default=0.3, help="share of the requests that a fault meets")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = make_large(folder / "hub", asked.rows)
        one_cell(folder, cells[len(cells) // 2])
        faults(folder, cells[:CELLS], asked.rate)


def make_large(hub: Path, rows: int) -> list[str]:
    """One file a source; the images of all cells are those of one, which nobody looks at here."""
    cells = [f"618U_{k}L" for k in range(30, 30 + rows)]
    for one in made_archive.products(made_archive.CELL, made_archive.PLAIN, "grain"):
        folder = hub / f"Core-{one.source}"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        placed = [replace(one, cell=cell, part=1, row=k) for k, cell in enumerate(cells)]
        pq.write_table(pa.Table.from_pylist([made_archive.metadata_of(row, True) for row in placed]), folder / "metadata.parquet")
        columns = {**({} if one.source == "DEM" else {"product_id": one.id}), "thumbnail": one.thumbnail, **one.bands}
        table = pa.Table.from_pylist([{"grid_cell": "", **columns}])
        with pq.ParquetWriter(folder / placed[0].file, table.schema) as writer:
            for cell in cells:
                writer.write_table(table.set_column(0, "grid_cell", [[cell]]))
    return cells


def one_cell(folder: Path, cell: str) -> None:
    with serve(folder / "hub", redirects=True) as server:
        report = download(Request(folder / "one", cells=(cell,), hub=server.url), patience=QUICK)
        again = download(Request(folder / "one", cells=(cell,), hub=server.url), patience=QUICK)
        print(f"one cell out of {len(list((folder / 'hub').glob('*/images/*')))} parquet files\n")
        print(f"{'source':12}{'file, bytes':>16}{'sent, bytes':>14}{'requests':>10}")
        for source in sorted((folder / "hub").iterdir()):
            size = sum(path.stat().st_size for path in source.glob("images/*"))
            asked = [counts for path, counts in server.by_path.items() if source.name in path and "metadata" not in path]
            print(f"{source.name:12}{size:16,}{sum(sent for _, sent in asked):14,}{sum(count for count, _ in asked):10}")
    print()
    print(*report.lines(), sep="\n")
    print(f"again: {again.traffic['requests']} requests, {again.traffic['bytes']} bytes")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB (the making of the files included)\n")


def faults(folder: Path, cells: list[str], rate: float) -> None:
    print(f"{CELLS} cells, each kind of fault at {rate:.0%} of the requests\n")
    print(f"{'fault':14}{'injected':>9}{'complete':>9}{'identical':>10}{'requests':>9}{'sent':>15}{'wasted':>15}{'times':>7}{'seconds':>8}")
    truth: dict[str, bytes] = {}
    for kind in ("none", *KINDS, "all"):
        rates = {"none": {}, "all": {one: rate / len(KINDS) for one in KINDS}}.get(kind, {kind: rate})
        out, began = folder / f"faults_{kind}", time.monotonic()
        with serve(folder / "hub", Faults(rates=rates, seed=5, pause=0.2), redirects=True) as server:
            report = download(Request(out, cells=tuple(cells), hub=server.url), patience=QUICK)
            files = {str(path.relative_to(out)): path.read_bytes() for path in out.glob("Core-*/**/*.*") if path.is_file()}
            truth = truth or files
            line(kind, server, report, files == truth and not verify(out)[1], time.monotonic() - began)
    print("\nsent: bytes of the bodies that the server began (of a whole file, little was on the line when the connection was closed)")


def line(kind: str, server: Hub, report: Report, identical: bool, seconds: float) -> None:
    wasted = server.bytes - sum(report.traffic["bytes_by_purpose"].values()) + report.traffic["bytes_wasted"]
    print(f"{kind:14}{server.injected.total():9}{report.complete:6} of {CELLS}{'yes' if identical else 'NO':>7}{server.requests:9}"
          f"{server.bytes:15,}{wasted:15,}{server.bytes / (server.bytes - wasted):7.2f}{seconds:8.1f}", flush=True)
    for why, some in report.failed.items():
        print(f"    {why}: {some}")


if __name__ == "__main__":
    main()
