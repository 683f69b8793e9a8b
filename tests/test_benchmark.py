"""The benchmark's images are cut where it says, to the pixel; its filter and its choice of seeds are the published ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_archive import geotiff
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from copgen.evaluation.benchmark import BANDS, chosen_seeds
from copgen.evaluation.cases import Cases, open_cases
from copgen.evaluation.generators import open_generator
from copgen.evaluation.missing import unknown
from copgen.modalities import TABLE
from copgen.scene import Footprint, Scene

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")             # rasterio's own
CELL, OTHER = "143D_1481R", "95U_112R"
UTM = CRS.from_epsg(32756)
CORNER = (336_000.0, 8_580_000.0)                # ul_x, ul_y of CELL
ROWS = tuple(row for row in TABLE.rows if row.product == "S2L2A")
RESOLUTION = {band: row.resolution or 0 for row in ROWS for band in row.bands}


def pattern(easting: NDArray[Any], northing: NDArray[Any], band: str) -> NDArray[np.uint16]:
    """A digital number for every place on the ground, 1..9999: so that a pixel tells where it is from."""
    return (1 + (easting // 10 * 7 + northing // 10 * 13 + BANDS.index(band) * 500) % 9999).astype(np.uint16)


def image(band: str, *, resolution: int = 10, side: int = 1056, left: float = CORNER[0] + 140, top: float = CORNER[1] - 80,
          crs: CRS = UTM, dim: int = 0) -> bytes:
    """A band over a square, its corner `dim` DN darker; by default as large as the benchmark's, its corner beside the cell's."""
    middle = (np.arange(side) + 0.5) * resolution
    values = pattern(left + middle[None], top - middle[:, None], band) + np.uint16(dim)
    return geotiff(values, Footprint(crs, left, top, float(side * resolution)))


def bands_of(native: bool = False, **settings: Any) -> dict[str, bytes]:
    """All bands, at 10 m, or at their own pixels."""
    return {band: image(band, **({"resolution": RESOLUTION[band], "side": 10_560 // RESOLUTION[band]} if native else {}), **settings)
            for band in BANDS}


def write(root: Path, config: str, rows: list[dict[str, Any]], name: str = "part-0", group: int = 2) -> None:
    folder = root / config / "data"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=group)


def row(cell: str, number: int, bands: dict[str, bytes], date: str | None = None) -> dict[str, Any]:
    return {"grid_cell": cell, "sample_id": f"seed_{number}", "date": date or f"2021-{1 + number % 12:02d}-15", **bands}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty benchmark with two cells' corners."""
    (tmp_path / "metadata").mkdir()
    corners = {cell: {"ul_x": CORNER[0] + shift, "ul_y": CORNER[1], "crs": "EPSG:32756"} for cell, shift in ((CELL, 0), (OTHER, 20_000))}
    (tmp_path / "metadata" / "benchmark_grid.json").write_text(json.dumps(corners))
    return tmp_path


def expected(band: str, *, side: int = 192, left: float = CORNER[0] + 4380, top: float = CORNER[1] - 4380) -> NDArray[np.uint16]:
    """What stands at the square, by the same formula."""
    middle = (np.arange(side) + 0.5) * 1920 / side
    return pattern(left + middle[None], top - middle[:, None], band)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        work()
    assert "\n" not in str(error.value)
    return str(error.value)


def observed(cases: Cases, cell: str = CELL) -> dict[str, NDArray[Any]]:
    """Every band [H, W] of the observation."""
    scene = cases.observation(cell)
    return {band: scene[one.name][k] for one in ROWS for k, band in enumerate(one.bands)}


# --- the cut ------------------------------------------------------------------------------------------------------------------------

def test_bands_are_cut_4380_m_from_the_corner_of_the_cell(root: Path) -> None:
    """By hand: the image begins 140 m east and 80 m south of the cell, so its pixels 424.. and 430.. stand there."""
    write(root, "real", [row(CELL, k, bands_of()) for k in range(2)])
    found = observed(open_cases(f"benchmark:{root}"))
    for band in ("B04", "B03", "B02", "B08"):
        np.testing.assert_array_equal(found[band], expected(band))
    whole = pattern(CORNER[0] + 145 + np.arange(1056)[None] * 10, CORNER[1] - 85 - np.arange(1056)[:, None] * 10, "B02")
    np.testing.assert_array_equal(found["B02"], whole[430:622, 424:616])
    blocks = expected("B01").reshape(32, 6, 32, 6).mean((1, 3))                  # stored at 10 m, returned at 60 m
    np.testing.assert_allclose(found["B01"], blocks, rtol=1e-6)
    assert found["B05"].shape == (96, 96) and found["B09"].shape == (32, 32)


def test_bands_at_their_own_pixels_are_cut_on_these(root: Path) -> None:
    """On a corner that 60 m divide the cut is exact; the rounding of the offsets is to the band's own pixels."""
    left, top = CORNER[0] + 4380 - 60 * 70, CORNER[1] - 4380 + 60 * 71
    write(root, "real", [row(CELL, k, bands_of(native=True, left=left, top=top)) for k in range(2)])
    found = observed(open_cases(f"benchmark:{root}"))
    for band, side in (("B02", 192), ("B8A", 96), ("B01", 32)):
        np.testing.assert_array_equal(found[band], expected(band, side=side))


@pytest.mark.parametrize(("beside", "offset"), [(144.0, 424), (146.0, 423), (135.5, 424)])
def test_offsets_are_rounded_to_whole_pixels(root: Path, beside: float, offset: int) -> None:
    bands = bands_of()
    bands["B02"] = image("B02", left=CORNER[0] + beside)
    write(root, "real", [row(CELL, k, bands) for k in range(2)])
    left = CORNER[0] + beside + 10 * offset      # of the pixel that is nearest to the square's corner
    np.testing.assert_array_equal(observed(open_cases(f"benchmark:{root}"))["B02"], expected("B02", left=left))


def test_what_an_image_does_not_reach_is_zero(root: Path) -> None:
    bands = bands_of()
    bands["B03"] = image("B03", side=520)        # ends 5200 + 140 m east of the corner, 96 pixels into the square
    write(root, "real", [row(CELL, k, bands) for k in range(2)])
    band = observed(open_cases(f"benchmark:{root}"))["B03"]
    np.testing.assert_array_equal(band[:90, :96], expected("B03")[:90, :96])     # 5200 + 80 m south: 90 pixels
    assert not band[90:].any() and not band[:, 96:].any()


def test_an_image_in_another_zone_is_found_by_its_bounds(root: Path) -> None:
    zone = CRS.from_epsg(32755)
    left, _, _, top = transform_bounds(UTM, zone, CORNER[0] + 4380, CORNER[1] - 6300, CORNER[0] + 6300, CORNER[1] - 4380)
    bands = bands_of()
    bands["B02"] = image("B02", left=round(left) - 4000, top=round(top) + 4100, crs=zone)
    write(root, "real", [row(CELL, k, bands) for k in range(2)])
    expected_here = expected("B02", left=round(left), top=round(top))
    np.testing.assert_array_equal(observed(open_cases(f"benchmark:{root}"))["B02"], expected_here)


# --- the truth ----------------------------------------------------------------------------------------------------------------------

def test_the_first_image_is_observed_and_the_others_are_true_without_date_and_bands(root: Path) -> None:
    write(root, "real", [row(CELL, k, bands_of(dim=k)) for k in (10, 2, 1)])
    cases = open_cases(f"benchmark:{root}")
    scene, others = cases.observation(CELL), cases.others(CELL, ("place",), 5)
    assert scene.notes["sample"] == "seed_1" and str(scene["date"][0]) == "2021-02-15" and scene.footprint is not None
    assert (scene.footprint.left, scene.footprint.top) == (CORNER[0] + 4380, CORNER[1] - 4380)
    assert [one.notes["sample"] for one in others] == ["seed_2", "seed_10"]      # by number
    assert len(cases.others(CELL, (), 1)) == 1
    assert cases.others(CELL, ("date",), 5) == [] and cases.others(CELL, ("place", "s2l2a_60m"), 5) == []
    np.testing.assert_array_equal(others[1]["s2l2a_10m"] - scene["s2l2a_10m"], 9)


def dark(share: float) -> bytes:
    """B02 with this share of the square's pixels zero."""
    values = np.full((1056, 1056), 7, np.uint16)
    values[430:430 + round(192 * share), 424:616] = 0
    return geotiff(values, Footprint(UTM, CORNER[0] + 140, CORNER[1] - 80, 10_560.0))


def test_images_that_are_mostly_zeros_are_dropped_and_cells_with_one_left_skipped(root: Path) -> None:
    write(root, "real", [row(CELL, k, bands_of() | {"B02": dark(share)}) for k, share in enumerate((0.06, 0.0, 0.04))])
    shifted = {"left": CORNER[0] + 20_000}
    write(root, "real", [row(OTHER, k, bands_of(**shifted) | ({"B02": dark(1.0)} if k else {})) for k in range(2)], "part-1")
    cases = open_cases(f"benchmark:{root}")
    assert list(cases.names()) == [CELL]
    assert [one.notes["sample"] for one in (cases.observation(CELL), *cases.others(CELL, (), 9))] == ["seed_1", "seed_2"]
    assert "two are needed" in refused(lambda: cases.observation(OTHER))


def test_the_record_depends_on_the_files(root: Path) -> None:
    write(root, "real", [row(CELL, k, bands_of()) for k in range(2)])
    before = open_cases(f"benchmark:{root}").record()
    assert before == open_cases(f"benchmark:{root}").record()
    write(root, "real", [row(CELL, k, bands_of(dim=1)) for k in range(2)])
    assert open_cases(f"benchmark:{root}").record() != before


# --- the samples --------------------------------------------------------------------------------------------------------------------

def test_samples_are_the_cut_already(root: Path) -> None:
    """Generated images are as large as the square, and say that they lie at the whole image's corner."""
    write(root, "real", [row(CELL, k, bands_of()) for k in range(2)])
    generated = {band: image(band, resolution=RESOLUTION[band], side=1920 // RESOLUTION[band]) for band in BANDS}
    write(root, "copgen", [row(CELL, k, generated) for k in (4, 3, 11)])
    case = open_cases(f"benchmark:{root}").observation(CELL)
    generator = open_generator(f"benchmark:{root},config=copgen")
    found = generator.samples(case, ("place",), ["s2l2a_10m", "s2l2a_60m", "s1rtc"], [0, 1, 2, 3])
    assert [(one.notes["seed"], one.notes["sample"]) for one in found] == [(0, "seed_3"), (1, "seed_4"), (2, "seed_11")]
    assert set(found[0].layers) == {"s2l2a_10m", "s2l2a_60m"} and found[0].footprint == case.footprint
    np.testing.assert_array_equal(found[0]["s2l2a_10m"][2], expected("B02", left=CORNER[0] + 140, top=CORNER[1] - 80))
    assert generator.samples(case, ("date",), ["s2l2a_10m"], [0]) == []
    assert generator.samples(replace(case, name="1U_1R"), (), ["s2l2a_10m"], [0]) == []
    assert generator.record()["name"] == "copgen"


def test_samples_are_not_put_on_another_square_of_the_same_name(root: Path) -> None:
    write(root, "real", [row(CELL, k, bands_of()) for k in range(2)])
    write(root, "copgen", [row(CELL, 1, bands_of())])
    case, generator = open_cases(f"benchmark:{root}").observation(CELL), open_generator(f"benchmark:{root}")
    assert case.footprint is not None
    away = replace(case, footprint=replace(case.footprint, left=case.footprint.left + 60))
    assert len(generator.samples(case, (), ["s2l2a_10m"], [0])) == 1
    assert "lies at" in refused(lambda: generator.samples(away, (), ["s2l2a_10m"], [0]))
    before, grid = generator.record(), root / "metadata" / "benchmark_grid.json"
    grid.write_text(grid.read_text().replace("32756", "32755"))
    assert generator.record() != before


def test_zeros_of_the_truth_are_unknown_and_not_scored(root: Path) -> None:
    """By hand: B02 begins 50 m east of the square, so five of its columns were not seen."""
    write(root, "real", [row(CELL, k, {**bands_of(), "B02": image("B02", left=CORNER[0] + 4380 + 50)}) for k in range(2)])
    case = open_cases(f"benchmark:{root}").observation(CELL)
    hole = unknown(case, "s2l2a_10m")
    assert unknown(case, "s2l2a_60m") is None and hole is not None
    assert hole[2, :, :5].all() and not hole[2, :, 5:].any() and not hole[[0, 1, 3]].any()


def test_of_33_seeds_the_published_16_are_taken(root: Path) -> None:
    small = {band: image(band, side=192) for band in BANDS}
    write(root, "copgen", [row(CELL, k, small) for k in range(33)])
    case = Footprint(UTM, CORNER[0] + 4380, CORNER[1] - 4380)
    generator = open_generator(f"benchmark:{root}")
    found = generator.samples(Scene(footprint=case, name=CELL), (), ["s2l2a_60m"], range(36))
    assert [one.notes["sample"] for one in found] == [f"seed_{seed}" for seed in chosen_seeds(CELL, range(33))]


def test_the_choice_of_seeds_depends_on_the_cell_alone() -> None:
    first = chosen_seeds(CELL, range(33))
    assert first == chosen_seeds(CELL, list(range(33))[::-1]) == sorted(set(first)) and len(first) == 16
    assert first != chosen_seeds(OTHER, range(33)) and set(first) < set(range(33))


def test_the_choice_of_seeds_worked_by_hand() -> None:
    """Mersenne twister keyed by the first 8 bytes of SHA-256, then 16 cards of 33 by Fisher and Yates, by numpy's own twister."""
    key = int.from_bytes(hashlib.sha256(b"copgen-benchmark/v1:143D_1481R").digest()[:8], "big")
    twister = np.random.RandomState(np.array([key & 0xFFFFFFFF, key >> 32], np.uint32))

    def below(n: int) -> int:
        """A whole number below n: the twister's upper bits, thrown again until they are small enough."""
        while (drawn := int(twister.randint(0, 2**32, dtype=np.uint32)) >> (32 - n.bit_length())) >= n:
            pass
        return drawn

    cards, taken = list(range(33)), []
    for left in range(33, 17, -1):
        k = below(left)
        taken.append(cards[k])
        cards[k] = cards[left - 1]
    assert sorted(taken) == chosen_seeds("143D_1481R", range(33))


# --- hostile files ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("blob", "said"), [
    (b"", "is no GeoTIFF"), (b"GIF89a", "is no GeoTIFF"), (b"<VRTDataset/>", "is no GeoTIFF"),
    (image("B05")[:3000], "truncated or damaged"),
    (b"II*\0" + bytes(65 * 2**20), "64 MiB are the most"),
    (image("B05", resolution=7, side=400), "do not fill the 1920 m"),
    (geotiff(np.full((192, 192), np.nan, np.float32), Footprint(UTM, 0.0, 0.0)), "have no data"),
    (geotiff(np.ones((2700, 2700), np.uint8), Footprint(UTM, 0.0, 0.0, 27_000.0)), "cut it to the square first"),
])
def test_images_that_are_none_are_refused_in_a_sentence(root: Path, blob: bytes, said: str) -> None:
    write(root, "real", [row(CELL, k, bands_of() | {"B05": blob}) for k in range(2)])
    message = refused(lambda: open_cases(f"benchmark:{root}").observation(CELL))
    assert said in message and "B05" in message and CELL in message


def test_files_that_are_not_the_benchmarks_are_refused(root: Path) -> None:
    assert "has no real/data/*.parquet" in refused(lambda: open_cases(f"benchmark:{root}").names())
    assert "has no copgen/data/*.parquet" in refused(lambda: open_generator(f"benchmark:{root}"))
    assert "config=../real" in refused(lambda: open_generator(f"benchmark:{root},config=../real"))
    write(root, "real", [{"grid_cell": CELL, "sample_id": "seed_0"}])
    assert "has no column B01" in refused(lambda: open_cases(f"benchmark:{root}").names())
    (root / "real" / "data" / "part-0.parquet").write_bytes(b"PAR1 and nothing else")
    assert "is no parquet file" in refused(lambda: open_cases(f"benchmark:{root}").names())
    write(root, "real", [row(CELL, k, bands_of() | {"B02": bytes(130 * 2**20)}) for k in range(2)])      # two of 130 MiB, packed in one
    assert "64 MiB are the most" in refused(lambda: open_cases(f"benchmark:{root}").names())
    write(root, "real", [row(CELL, k, bands_of(dim=k)) for k in range(2)])
    damaged = bytearray((root / "real" / "data" / "part-0.parquet").read_bytes())
    at = len(damaged) // 2
    damaged[at:at + 4000] = b"x" * 4000
    (root / "real" / "data" / "part-0.parquet").write_bytes(damaged)
    message = refused(lambda: open_cases(f"benchmark:{root}").observation(CELL))
    assert "damaged" in message or "is no GeoTIFF" in message
    write(root, "real", [row(CELL, k, bands_of()) for k in range(2)])
    (root / "metadata" / "benchmark_grid.json").write_text('{"143D_1481R": {"ul_x": "west"}}')
    assert "benchmark_grid.json: 143D_1481R" in refused(lambda: open_cases(f"benchmark:{root}").names())
    small = replace(TABLE, footprint=960)
    assert "the model sees 960 m" in refused(lambda: open_cases(f"benchmark:{root}", small))


def test_the_truth_itself_is_not_taken_for_samples(tmp_path: Path) -> None:
    root = tmp_path / "benchmark"
    write(root, "real", [row(CELL, k, bands_of()) for k in range(2)])
    with pytest.raises(ValueError, match="config=real: these are the truths themselves"):
        open_generator(f"benchmark:{root},config=real")
