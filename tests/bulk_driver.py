"""`python bulk_driver.py ARCHIVE OUT MODEL STEPS ENGINE WORKERS [ADDRESS]`: draws every patch, by a process that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from copgen.bulk.generate import Bulk, generate
from copgen.job import Job

if __name__ == "__main__":
    archive, out, model, steps, engine, workers, *address = sys.argv[1:]
    job = Job(out=Path(out), model=model, archive=Path(archive), given="DEM,LULC", want="S2L2A", samples=1, seed=3, steps=int(steps),
              device="cpu")
    bulk = Bulk(job, patches="all", engine=engine, workers=int(workers),  # type: ignore[arg-type]
                address=address[0] if address else None, tries=50)
    print(generate(bulk))
