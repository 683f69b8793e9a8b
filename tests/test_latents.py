"""A folder of latents is counted, checked and shown; what is wrong with it is found and said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, tiny_codec
from made_archive import CELL, EAST, make_archive
from safetensors.numpy import load_file, save_file

from copgen import geoparquet
from copgen.bulk.encode import Codecs, encode_archive
from copgen.bulk.patches import read_patches
from copgen.latents.check import verify
from copgen.latents.look import info
from copgen.latents.show import choose, decoded, sample
from copgen.model import CopGen
from copgen.scene import Scene
from copgen.shards import PRESENT, open_shards, write_shards
from copgen.training.encode import encode
from copgen.training.sources import Scenes

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")          # rasterio's own
ROWS = ("place", "date", "dem", "s2l2a_60m")


@pytest.fixture(scope="module")
def codecs(tiny_model: Path) -> Codecs:
    return Codecs.of(CopGen.from_pretrained(tiny_model), ROWS)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells, one without heights."""
    root = tmp_path_factory.mktemp("archives") / "archive"
    make_archive(root, (CELL, EAST), content="grain")
    shutil.rmtree(root / "Core-DEM" / EAST.split("_")[0] / EAST)
    return root


@pytest.fixture(scope="module")
def latents(archive: Path, codecs: Codecs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_archive(archive, codecs, tmp_path_factory.mktemp("latents") / "latents", cells_per_shard=1).folder


@pytest.fixture
def copy(latents: Path, tmp_path: Path) -> Path:
    return shutil.copytree(latents, tmp_path / "latents")


# Counting


def test_the_spread_of_known_moments_is_found(tmp_path: Path) -> None:
    """Means of standard deviation 3 about 1 and variances of 4 are latents of variance 13, whatever the log-variance of absent ones."""
    random = np.random.default_rng(0)

    def make(numbers: range) -> dict[str, np.ndarray]:
        mean = 1 + 3 * random.standard_normal((len(numbers), 2, 8, 8))
        moments = np.concatenate([mean, np.full_like(mean, np.log(4))], axis=1).astype(np.float16)
        there = np.arange(len(numbers))[:, None] % 2 == [0, 2]                       # every second sample has heights, none has radar
        return {"dem": moments * there[:, :1, None, None], "s1rtc": moments * 0, PRESENT: there.astype(np.uint8)}

    write_shards(tmp_path, 600, make, per_shard=250, meta={"kind": "moments", "rows": ["dem", "s1rtc"], "incomplete": True})
    found = info(tmp_path)
    assert found.samples == 600 and found.shards == 3 and found.looked_at == 600 and found.having == {"dem": 300, "s1rtc": 0}
    assert list(found.spread) == ["dem"] and found.cells is None and found.dates is None and found.rejected is None
    spread = found.spread["dem"]
    np.testing.assert_allclose(spread.mean, 1, atol=0.1)
    np.testing.assert_allclose(spread.std, np.sqrt(13), rtol=0.02)
    assert spread.scaling_factor == pytest.approx(13**-0.5, rel=0.02) and spread.model_factor is None
    assert spread.kl == pytest.approx((9 + 1 + 4 - 1 - np.log(4)) / 2, rel=0.02)


def test_what_an_archive_gave_is_counted(latents: Path, codecs: Codecs) -> None:
    found = info(latents, codecs, most=20)
    assert (found.samples, found.shards, found.cells, found.rejected, found.looked_at) == (72, 2, 2, 0, 20)
    assert found.having == {"place": 72, "date": 72, "dem": 36, "s2l2a_60m": 72} and found.dates == ("2021-06-09", "2021-06-09")
    assert found.bytes == sum(path.stat().st_size for path in latents.glob("*.safetensors"))
    assert {spread.model_factor for spread in found.spread.values()} == {0.5} and set(found.spread) == {"dem", "s2l2a_60m"}


def test_the_same_samples_are_looked_at_again(latents: Path) -> None:
    one, two, other = (info(latents, most=5, seed=seed).spread["s2l2a_60m"].kl for seed in (3, 3, 4))
    assert one == two != other


def test_other_things_than_moments_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, lambda numbers: {"dem": np.zeros((len(numbers), 1, 4, 4))}, per_shard=2, meta={"kind": "layers"})
    for look in (info, verify):
        with pytest.raises(ValueError, match="moments"):
            look(tmp_path)
    with pytest.raises(ValueError, match="holds no latents"):
        verify(tmp_path / "nowhere")


def test_at_least_one_sample_is_looked_at(latents: Path) -> None:
    with pytest.raises(ValueError, match="0 samples to look at"):
        info(latents, most=0)


# Checking


def test_a_whole_folder_has_nothing_wrong(latents: Path, codecs: Codecs) -> None:
    seen: list[tuple[int, int]] = []
    verdict = verify(latents, codecs, progress=lambda *done: seen.append(done))
    assert (verdict.shards, verdict.samples, verdict.problems) == (2, 72, ()) and seen == [(1, 2), (2, 2)]


def test_a_folder_that_is_from_no_archive_is_checked_too(scene: Scene, tmp_path: Path) -> None:
    table = TINY.subset(["place", "date", "s2l2a_60m"])
    encode(Scenes("hills", [scene] * 3, table), {"s2l2a_60m": tiny_codec(2)}, table, tmp_path, per_shard=2)
    assert verify(tmp_path).problems == () and verify(tmp_path).samples == 3
    (tmp_path / "shard-00001.safetensors").write_bytes(b"")
    (problem,) = verify(tmp_path).problems
    assert problem.file.name == "shard-00001.safetensors" and problem.way_out == "delete it, and run the command that wrote it again"


def changed(name: str, change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    """What changes the arrays of a shard."""
    def spoil(folder: Path) -> None:
        arrays = {row: array.copy() for row, array in load_file(folder / name).items()}
        change(arrays)
        save_file(arrays, folder / name)
    return spoil


def put(row: str, place: tuple[int, ...], value: float) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda arrays: arrays[row].__setitem__(place, value)


def reindexed(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "counts": [35, 37]}))


def emptied(folder: Path) -> None:
    table = geoparquet.read(folder / "index.parquet")
    geoparquet.write(folder / "index.parquet", table.slice(0, 50))


def said_otherwise(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "meta": {**index["meta"], "rejected": 3}}))


def exchanged(folder: Path) -> None:
    for row in ("dem", "s2l2a_60m", "place", "date", PRESENT):
        changed(SECOND, lambda arrays, row=row: arrays[row].__setitem__([3, 4], arrays[row][[4, 3]]))(folder)


FIRST, SECOND = "shard-00000.safetensors", "shard-00001.safetensors"          # EAST, which lacks heights, and CELL


@pytest.mark.parametrize(("spoil", "file", "what"), [
    (lambda folder: (folder / SECOND).unlink(), SECOND, "damaged or gone"),
    (lambda folder: (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-9]), SECOND, "damaged or gone"),
    (changed(SECOND, put("dem", (3, 0, 0, 0), np.nan)), SECOND, "dem holds what is no number"),
    (changed(FIRST, put("dem", (3, 0, 0, 0), 1)), FIRST, "dem is not all zeros where it is absent"),
    (changed(SECOND, put(PRESENT, (3, 2), 0)), SECOND, "dem is not all zeros"),
    (changed(SECOND, put("place", (0, 0, 0), 0)), SECOND, "place holds what is no place"),
    (changed(SECOND, put("dem", (3, 0, 0, 0), 0.5)), SECOND, "its hash is another"),
    (exchanged, SECOND, "its hash is another"),
    (said_otherwise, "index.json", "not what the shards' records add up to"),
    (changed(SECOND, lambda arrays: arrays.pop("dem")), SECOND, "lacks dem"),
    (changed(SECOND, lambda arrays: arrays.update(dem=arrays["dem"][:, :4])), SECOND, r"dem is \[4, 8, 8\], and \[16, 8, 8\]"),
    (changed(SECOND, lambda arrays: arrays.update({row: array[1:] for row, array in arrays.items()})), SECOND, "holds 35 samples"),
    (reindexed, FIRST, "holds 36 samples, and index.json says 35"),
    (lambda folder: shutil.copy(folder / FIRST, folder / SECOND), SECOND, "has other rows than its records say"),
    (lambda folder: shutil.copy(folder / "shard-00000.parquet", folder / "shard-00001.parquet"), SECOND, "other rows|other cells"),
    (lambda folder: (folder / "shard-00001.parquet").unlink(), SECOND, "shard-00001.parquet: is no Parquet file, or damaged or gone"),
    (lambda folder: (folder / "shard-00001.parquet").write_bytes(b"PAR1"), SECOND, "is no Parquet file"),
    (lambda folder: (folder / "index.json").unlink(), "index.json", "the folder is not finished"),
    (lambda folder: (folder / "index.parquet").unlink(), "index.parquet", "is missing"),
    (emptied, "index.parquet", "not what the shards' records add up to"),
    (lambda folder: shutil.copy(folder / "index.parquet", folder / "rejected.parquet"), "rejected.parquet", "add up to"),
])
def test_what_is_wrong_is_found_and_what_is_said_mends_it(copy: Path, archive: Path, codecs: Codecs, spoil: Callable[[Path], object],
                                                          file: str, what: str) -> None:
    spoil(copy)
    problems = verify(copy, codecs).problems
    assert problems[0].file == copy / file
    assert re.search(what, problems[0].what), problems[0].what
    for problem in problems:
        for name in (problem.file.name, *re.findall(r"shard-\d{5}\.parquet", problem.way_out)):
            if "delete" in problem.way_out:
                (copy / name).unlink(missing_ok=True)
    encode_archive(archive, codecs, copy, cells_per_shard=1)
    assert verify(copy, codecs).problems == ()


def test_codecs_that_did_not_make_the_latents_are_named(latents: Path, codecs: Codecs, tiny_model: Path) -> None:
    others = Codecs(codecs.table, {**codecs.folders, "dem": tiny_model / "vae" / "s1rtc"})
    (problem,) = verify(latents, others).problems
    assert problem.file == tiny_model / "vae" / "s1rtc" / "codec.safetensors" and "is not the codec" in problem.what


# Showing


def test_samples_are_decoded_to_what_their_codecs_keep_of_the_layers(latents: Path, archive: Path, codecs: Codecs,
                                                                     tiny_model: Path) -> None:
    shards = open_shards(latents)
    (one,) = choose(shards, [36 + 13], None, 8)
    assert (one.cell, one.patch, one.name) == (CELL, 13, f"{CELL} patch 13")
    (scene,) = decoded(shards, codecs, [one])
    real = read_patches(archive, CELL, codecs.table)[13].scene
    direct = CopGen.from_pretrained(tiny_model).reconstruct(real)
    assert list(scene.layers) == list(ROWS) and str(scene["date"][0]) == str(real["date"][0])
    np.testing.assert_allclose(scene["place"], real["place"], atol=1e-4)
    np.testing.assert_allclose(scene["s2l2a_60m"], direct["s2l2a_60m"], rtol=0.02, atol=30)


def test_a_sheet_shows_patches_beside_their_real_layers(latents: Path, archive: Path, codecs: Codecs, tmp_path: Path) -> None:
    sheets = {}
    wanted: dict[str, Any] = {"numbers": {"numbers": [0, 71]}, "cell": {"cell": CELL}, "all": {},
                              "real": {"cell": CELL, "archive": archive}}
    for name, settings in wanted.items():
        sheets[name] = sample(latents, codecs, path=tmp_path / f"{name}.png", scale=1, **settings)
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert sheets["cell"].size == sheets["all"].size == sheets["real"].size and sheets["numbers"].width < sheets["cell"].width
    assert np.asarray(sheets["cell"]).std() > 5
    with pytest.raises(ValueError, match="exists already"):
        sample(latents, codecs, path=tmp_path / "all.png")


def test_samples_that_are_not_there_are_refused(latents: Path, codecs: Codecs, tiny_model: Path, tmp_path: Path) -> None:
    for match, settings in (("holds the samples 0 to 71", {"numbers": [72]}), ("no sample is of cell", {"cell": "0U_0R"}),
                            ("not by both", {"cell": CELL, "numbers": [0]})):
        with pytest.raises(ValueError, match=match):
            sample(latents, codecs, **settings)
    others = Codecs(codecs.table, {**codecs.folders, "dem": tiny_model / "vae" / "s1rtc"})
    with pytest.raises(ValueError, match="is not the codec that made the moments"):
        sample(latents, others)
    folder = shutil.copytree(latents, tmp_path / "latents")
    (folder / "index.parquet").unlink()
    assert sample(folder, codecs, numbers=[3], scale=1).height > 100
    with pytest.raises(ValueError, match=r"has no index\.parquet"):
        sample(folder, codecs, cell=CELL)
