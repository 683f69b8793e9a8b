"""The main job on three real cells: files in, samples out, the ground unmoved. Skipped where the samples are not there."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_rasters import L1C, L2A
from rasterio.windows import from_bounds

from copgen.job import Job, Result, run
from copgen.modalities import TABLE
from copgen.writing import raster_name

MODEL = "nano"
CELLS = ("38D_378R_2_3", "282D_485L_3_3", "637U_59R_1_3")
TASKS = {
    "terrain and land cover": (("DEM", "LULC"), "S2L2A,S1RTC"),
    "atmospheric correction": (("S2L1C",), "S2L2A"),
    "all the rest": (("S2L2A",), None),
}
OPTIONS = {"LULC": ",codes=index", "S1RTC": ",unit=dB"}
ORDER = {"S2L1C": L1C, "S2L2A": L2A}             # of the bands in a file


def offset_of(cell: str, product: str) -> int:
    """The L1C of one cell still carries Sentinel-2's offset."""
    return 1000 if product == "S2L1C" and cell.startswith("282D") else 0


def path_of(samples: Path, cell: str, product: str) -> Path:
    return samples / product / f"{cell}.tif"


def inputs(samples: Path, cell: str, products: tuple[str, ...]) -> tuple[str, ...]:
    """The cell's files as arguments."""
    offsets = {product: f",offset={offset_of(cell, product)}" for product in products if offset_of(cell, product)}
    return tuple(f"{product}={path_of(samples, cell, product)}{(OPTIONS | offsets).get(product, '')}" for product in products)


@pytest.mark.filterwarnings("ignore::copgen.reading.CopgenWarning")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("task", TASKS)
def test_samples_of_a_real_place_lie_on_its_ground(task: str, cell: str, samples: Path, tmp_path: Path) -> None:
    products, want = TASKS[task]
    result = run(Job(out=tmp_path, model=MODEL, inputs=inputs(samples, cell, products), want=want, steps=2))
    assert result.folder.name == cell and result.sheet.stat().st_size > 10_000
    assert_square_is_the_files(result, path_of(samples, cell, products[0]))
    for product in products:
        if product in ORDER and not offset_of(cell, product):
            assert_given_pixels_are_the_files(result, product, path_of(samples, cell, product))
    wanted = TABLE.select(want) if want else tuple(row for row in TABLE.names if row not in result.given)
    assert sorted(path.name for path in result.samples[0].glob("*.tif")) == sorted(
        raster_name(TABLE[row]) for row in wanted if TABLE[row].is_image)
    for row in wanted:
        if TABLE[row].is_image:
            assert_output_is_possible(result, row)
    sources = json.loads((result.folder / "run.json").read_text())["sources"]["inputs"]
    for product, source in zip(products, sources, strict=True):
        assert source["sha256"] == hashlib.sha256(path_of(samples, cell, product).read_bytes()).hexdigest()


def assert_square_is_the_files(result: Result, path: Path) -> None:
    """Its CRS, and a corner on its 60 m lattice."""
    square = result.given.footprint
    assert square is not None
    with rasterio.open(path) as file:
        assert square.crs == file.crs
        offset = (square.left - file.bounds.left, file.bounds.top - square.top)
    assert all(distance % 60 == pytest.approx(0, abs=1e-6) and 0 <= distance <= 320 for distance in offset)


def assert_given_pixels_are_the_files(result: Result, product: str, path: Path) -> None:
    """The 10 m bands, digital number for digital number."""
    square, row = result.given.footprint, TABLE[f"{product.lower()}_10m"]
    assert square is not None
    with rasterio.open(path) as file:
        window = from_bounds(*square.bounds, transform=file.transform).round_offsets().round_lengths()
        pixels = file.read([1 + ORDER[product].index(band) for band in row.bands], window=window)
    np.testing.assert_array_equal(result.given[row.name], pixels)


def assert_output_is_possible(result: Result, name: str) -> None:
    """On the square, named, and of values that the quantity can have."""
    square, row = result.given.footprint, TABLE[name]
    assert square is not None
    with rasterio.open(result.samples[0] / raster_name(row)) as file:
        assert file.crs == square.crs and tuple(file.bounds) == pytest.approx(square.bounds, abs=1e-6)
        assert file.descriptions[0] and file.units[0]
        values = file.read().astype(np.float64)
    assert values.shape == TABLE.layer_shape(name) and np.isfinite(values).all()
    if row.legend:
        assert set(np.unique(values)) <= set(row.legend.codes)
    elif row.product == "DEM":
        assert values.min() >= 0 and values.max() < 9000
    elif row.product == "S1RTC":
        assert values.min() > 0
    else:
        assert values.min() >= 1 and values.max() <= 65535 and values.std() > 0
