"""The main job on three real cells: files in, samples out, the ground unmoved. Skipped where the samples are not there."""

from pathlib import Path

import pytest
import rasterio

from copgen.job import Job, run

CELLS = ("38D_378R_2_3", "282D_485L_3_3", "637U_59R_1_3")
TASKS = {
    "terrain and land cover": (("DEM", "LULC"), "S2L2A,S1RTC"),
    "atmospheric correction": (("S2L1C",), "S2L2A"),
    "all the rest": (("S2L2A",), None),
}
OPTIONS = {"LULC": ",codes=index", "S1RTC": ",unit=dB"}


def inputs(samples: Path, cell: str, products: tuple[str, ...]) -> tuple[str, ...]:
    """The cell's files as arguments; the L1C of one cell still carries Sentinel-2's offset."""
    offset = {"S2L1C": ",offset=1000"} if cell.startswith("282D") else {}
    return tuple(f"{product}={samples / product / cell}.tif{(OPTIONS | offset).get(product, '')}" for product in products)


@pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("task", TASKS)
def test_samples_of_a_real_place_lie_on_its_ground(task: str, cell: str, samples: Path, tmp_path: Path) -> None:
    products, want = TASKS[task]
    result = run(Job(out=tmp_path, inputs=inputs(samples, cell, products), want=want, steps=2))
    square = result.given.footprint
    assert square is not None and result.sheet.stat().st_size > 10_000
    with rasterio.open(samples / products[0] / f"{cell}.tif") as first:
        assert square.crs == first.crs
        offset = (square.left - first.bounds.left, first.bounds.top - square.top)
        assert all(distance % 60 == pytest.approx(0, abs=1e-6) and 0 <= distance <= 320 for distance in offset)
    rasters = sorted(result.samples[0].glob("*.tif"))
    assert rasters
    for path in rasters:
        with rasterio.open(path) as dataset:
            assert dataset.crs == square.crs
            assert tuple(dataset.bounds) == pytest.approx(square.bounds, abs=1e-6)
            assert dataset.descriptions[0] and dataset.units[0]
