"""The command line as a user has it: what it writes, and one sentence and nothing written for whatever is wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from typer.testing import CliRunner

from copgen import __version__, published
from copgen.cli import app, main
from copgen.modalities import TABLE, THUMBNAILS

LEFT, TOP = 500_010.0, 6_200_010.0                # of the files: 2100 m, a little more than the square
SQUARE = (500_070.0, 6_199_950.0)                # the square's corner in them: the nearest 60 m to the centred one
S2L2A_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
OF_ROW = {
    "dem": ["DEM.tif"], "lulc": ["LULC.tif", "LULC.tif.aux.xml"], "cloud_mask": ["cloud_mask.tif", "cloud_mask.tif.aux.xml"],
    "s1rtc": ["S1RTC.tif"], "s2l1c_10m": ["S2L1C_10m.tif"], "s2l1c_20m": ["S2L1C_20m.tif"], "s2l1c_60m": ["S2L1C_60m.tif"],
    "s2l2a_10m": ["S2L2A_10m.tif"], "s2l2a_20m": ["S2L2A_20m.tif"], "s2l2a_60m": ["S2L2A_60m.tif"],
    "place": ["place_and_date.geojson"], "date": ["place_and_date.geojson"],
}


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def copgen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`copgen ...` within this process, as the console script runs it."""

    def call(*words: Any) -> Said:
        monkeypatch.setattr(sys, "argv", ["copgen", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Said(status, *capsys.readouterr())

    with warnings.catch_warnings():              # main changes how they are shown; and as in any process but pytest's:
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield call


def raster(path: Path, values: Any, metres: float, *, left: float = LEFT, top: float = TOP, crs: str | None = "EPSG:32630",
           bands: Sequence[str] = (), nodata: float | None = None, **tags: str) -> Path:
    values = np.asarray(values)
    values = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, count=len(values), height=values.shape[1], width=values.shape[2],
                       crs=crs, transform=from_origin(left, top, metres, metres), nodata=nodata) as file:
        file.write(values)
        file.descriptions = tuple(bands) or (None,) * len(values)
        file.update_tags(**tags)
    return path


def heights(side: int = 70) -> np.ndarray:
    return np.add.outer(np.linspace(10, 200, side), np.linspace(0, 100, side)).astype(np.float32)


def power(side: int = 210) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.01, 0.3, (2, side, side)).astype(np.float32)


def numbers(bands: int, side: int = 210) -> np.ndarray:
    return np.random.default_rng(2).integers(300, 4000, (bands, side, side)).astype(np.uint16)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one good file a product; read it, don't write to it."""
    folder = tmp_path_factory.mktemp("inputs")
    raster(folder / "hill.tif", heights(), 30)
    raster(folder / "lulc.tif", np.random.default_rng(0).choice([1, 2, 5, 11], (210, 210)).astype(np.uint8), 10)
    raster(folder / "s1.tif", power(), 10, bands=("vv", "vh"))
    raster(folder / "s2.tif", numbers(12), 10, bands=S2L2A_BANDS, datetime="2021-07-23")
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes and every folder below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def sentence(said: Said) -> str:
    """The one sentence of a refusal; it is all there is on both streams, and the exit status is 2."""
    assert (said.status, said.out) == (2, ""), said
    assert re.fullmatch(r"error: [^\n]+\n", said.err), said.err
    assert "Traceback" not in said.err and not re.search(r"[a-z)]\. [A-Z]", said.err), said.err
    return said.err.removeprefix("error: ").strip()


# --- bad input ----------------------------------------------------------------------------------------------------------------------

Make = Callable[[Path, Path], list[Any]]         # (a folder to make files in, the good inputs) -> the arguments


def given(product: str, **how: Any) -> Make:
    """One input made by `raster` as x.tif."""
    return lambda folder, _: ["--input", f"{product}={raster(folder / 'x.tif', **how)}", "--want", "cloud_mask"]


def words(text: str) -> Make:
    """Arguments as they are, {inputs} being the good inputs' folder and {here} one's own."""
    return lambda folder, good: text.format(inputs=good, here=folder).split()


def hole(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[..., 30:33, 30:33] = value
    return values


def truncated(folder: Path, good: Path) -> list[Any]:
    (folder / "x.tif").write_bytes((good / "s2.tif").read_bytes()[:200_000])
    return ["--input", f"S2L2A={folder / 'x.tif'}"]


def text_file(folder: Path, _: Path) -> list[Any]:
    (folder / "x.tif").write_text("not a raster")
    return ["--input", f"DEM={folder / 'x.tif'}"]


def bare(folder: Path, good: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(folder / "x.tif", "w", driver="GTiff", dtype="float32", count=1, height=70, width=70, crs="EPSG:32630") as file:
            file.write(heights()[None])
    return ["--input", f"DEM={folder / 'x.tif'}"]


def elsewhere(folder: Path, good: Path) -> list[Any]:
    there = raster(folder / "x.tif", np.ones((210, 210), np.uint8), 10, left=LEFT + 90_000)
    return ["--input", f"DEM={good / 'hill.tif'}", "--input", f"LULC={there}"]


BAD: dict[str, tuple[Make, str]] = {
    "unknown modality wanted": (words("--want S2L2B"), r"'S2L2B'; there are .*S2L2A.*s2l2a_10m"),
    "unknown modality given": (words("--input DSM={inputs}/hill.tif"), r"'DSM'; there are .*DEM"),
    "nothing named": (words("--want ,"), r"--want ',': names nothing.*leave it out"),
    "unknown model": (words("--model nanno --want DEM"), r"'nanno'.*there are .*copgen-base.*folder with copgen\.json"),
    "given and wanted": (words("--input DEM={inputs}/hill.tif --want DEM,LULC"), r"^dem: both given and wanted; leave it out"),
    "place given and wanted": (words("--place 10,20 --want place"), r"^place: both given \(--place 10,20\) and wanted; leave"),
    "given twice": (words("--input DEM={inputs}/hill.tif --input dem={inputs}/hill.tif"), r"dem is given twice.*hill\.tif.*once"),
    "missing bands": (given("S2L2A", values=numbers(3), metres=10, bands=("B02", "B03", "B04")), r"x\.tif: S2L2A needs the bands .*B08"),
    "wrong band count": (given("S2L2A", values=numbers(5), metres=10), r"x\.tif: has 5 bands .*12 .*bands=NAME"),
    "wrong bands=": (words("--input S2L2A={inputs}/s2.tif,bands=B02:B03"), r"s2\.tif: bands= names 2 bands and the file has 12"),
    "radar in dB": (given("S1RTC", values=10 * np.log10(power()), metres=10), r"x\.tif: .*negative.*unit=dB"),
    "reflectance 0..1": (given("S2L2A", values=(numbers(12) / 1e4).astype(np.float32), metres=10), r"x\.tif: .*0\.\.1.*unit=reflectance"),
    "median above 20000": (given("S2L2A", values=numbers(12) + 20_000, metres=10), r"x\.tif: the median .* above 20000"),
    "DN above 32767": (given("S2L2A", values=hole(numbers(12), 40_000), metres=10), r"x\.tif: B\w\w holds 40000, above the 32767"),
    "class codes": (given("LULC", values=np.full((210, 210), 80, np.uint8), metres=10), r"x\.tif: .*80.*codes=worldcover"),
    "unknown unit": (words("--input S1RTC={inputs}/s1.tif,unit=watts"), r"unit=watts is not known; unit is one of linear, dB"),
    "unknown option": (words("--input DEM={inputs}/hill.tif,codes=esri"), r"DEM: takes no option codes=esri"),
    "square outside the data": (words("--input DEM={inputs}/hill.tif --window 900000,5000000"), r"hill\.tif: does not overlap.*--window"),
    "square partly outside": (words("--input DEM={inputs}/hill.tif --window 500310,6200010"), r"hill\.tif: covers only a part .*--window"),
    "too small": (given("DEM", values=heights(30), metres=30), r"x\.tif: shows 900 x 900 m .*1920 x 1920 m is needed"),
    "no overlap": (elsewhere, r"x\.tif: does not overlap with the square .*EPSG:32630.*same place"),
    "CRS missing": (given("DEM", values=heights(), metres=30, crs=None), r"x\.tif: has no coordinate reference system.*assign"),
    "no geotransform": (bare, r"x\.tif: has no geotransform.*georeference"),
    "truncated GeoTIFF": (truncated, r"x\.tif: is truncated or damaged.*again"),
    "not a raster": (text_file, r"x\.tif: is not a raster .*convert"),
    "no such file": (words("--input DEM={here}/none.tif"), r"none\.tif: there is no such file"),
    "no path": (words("--input DEM"), r"'DEM': expected PRODUCT=PATH"),
    "NaN": (given("DEM", values=hole(heights(), np.nan), metres=30), r"x\.tif: 0\.22% \(9 pixels\).*within .*--fill"),
    "Sentinel-2 of 0": (given("S2L2A", values=hole(numbers(12), 0), metres=10), r"x\.tif: .*no data.*--fill"),
    "too much to fill": (
        lambda folder, good: [*given("DEM", values=np.where(np.arange(70) < 12, np.nan, heights()), metres=30)(folder, good), "--fill"],
        r"x\.tif: .*no data.*at most 5%"),
    "impossible date": (words("--date 2021-02-30"), r"'2021-02-30': expected a calendar day as YYYY-MM-DD"),
    "date with a time": (words("--date 2021-02-03T10:00"), r"'2021-02-03T10:00': expected a calendar day"),
    "impossible date in a file": (given("S2L2A", values=numbers(12), metres=10, datetime="2021-13-45"), r"x\.tif: .*datetime.*--date"),
    "latitude out of range": (words("--place 95,10"), r"95.*latitude lies in -90\.\.90"),
    "place is no number": (words("--place north,10"), r"'north,10': expected LAT,LON"),
    "no samples": (words("--samples 0"), r"--samples 0: at least 1"),
    "fewer samples": (words("--samples -3"), r"--samples -3: at least 1"),
    "no steps": (words("--steps 0"), r"--steps 0: at least 1"),
    "negative seed": (words("--seed -1"), r"seed -1: .*0 or larger"),
    "unknown solver": (words("--solver euler"), r"--solver euler: .*published"),
    "unknown precision": (words("--precision fp16"), r"--precision fp16: choose auto, bf16, fp32"),
    "unknown device": (words("--device tpu"), r"--device tpu: choose auto, cpu, cuda"),
    "unknown radar unit": (words("--s1-unit db"), r"--s1-unit db: choose linear, dB"),
    "no size": (words("--max-memory much"), r"--max-memory much: expected a size such as 2GB"),
    "endless size": (words("--max-memory infGB"), r"--max-memory infGB: expected a size such as 2GB"),
    "no pair": (words("--input DEM={inputs}/hill.tif --window 5"), r"--window 5: expected two numbers"),
    "window of nothing": (words("--window 5,5"), r"--window chooses a square from --input or --archive"),
    "archive without a cell": (words("--archive {here}"), r"--archive ROOT and --cell NAME belong together"),
    "archive without given": (words("--archive {here} --cell 618U_30L"), r"--archive needs --given"),
    "no archive there": (words("--archive {here}/none --cell 618U_30L --given DEM"), r"none: is no folder"),
    "empty archive": (words("--archive {here} --cell 618U_30L --given DEM"), r"holds nothing of cell 618U_30L"),
    "no cell": (words("--archive {here} --cell ../up --given DEM"), r"'\.\./up'.*such as 618U_30L"),
    "patch without an archive": (words("--patch 0,0"), r"--patch chooses a square from --input or --archive"),
    "given without an archive": (words("--given DEM"), r"--given chooses from an archive"),
    "input and archive": (words("--input DEM={inputs}/hill.tif --archive {here} --cell 618U_30L"), r"--input and --archive"),
    "released model with no way to get it": (words("--model copgen-base"), r"copgen convert --backbone 500000_nnet_ema\.pth"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(
    case: str, copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COPGEN_CACHE", str(tmp_path / "cache"))
    make, says = BAD[case]
    arguments = make(tmp_path, inputs)
    model = [] if "--model" in arguments else ["--model", tiny_model]
    before = tree(tmp_path)
    said = copgen("generate", *model, *arguments, "--steps", 1, "--out", tmp_path / "out") if "--steps" not in arguments else copgen(
        "generate", *model, *arguments, "--out", tmp_path / "out")
    assert re.search(says, sentence(said)), said.err
    assert tree(tmp_path) == before


def test_too_little_memory_is_refused(copgen: Command, tiny_model: Path, tmp_path: Path) -> None:
    said = copgen("generate", "--model", tiny_model, "--want", "date", "--max-memory", "1KB", "--out", tmp_path)
    assert said.status == 2 and re.search(r"^error: max memory .*one sample needs about", said.err.splitlines()[-1])
    assert not list(tmp_path.iterdir())


def test_every_row_given_leaves_nothing_to_generate(copgen: Command, inputs: Path, tmp_path: Path, subset_model: Path) -> None:
    said = copgen("generate", "--model", subset_model, "--input", f"DEM={inputs / 'hill.tif'}", "--out", tmp_path / "out")
    assert "every row is given" in sentence(said)
    said = copgen("generate", "--model", subset_model, "--date", "2021-07-23", "--out", tmp_path / "out")
    assert "the model has no row date" in sentence(said)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def subset_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of heights and places alone."""
    from conftest import TINY, tiny_backbone, tiny_codec

    from copgen.store import save_model

    folder = tmp_path_factory.mktemp("models") / "subset"
    save_model(folder, "subset", "Apache-2.0", tiny_backbone(TINY.subset(["place", "dem"])), {"dem": tiny_codec(1)})
    return folder


# --- where to write -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["file", "file/deep/out", "taken"])
def test_an_out_that_cannot_be_written_is_refused_before_the_work(
    out: str, copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "hill").write_text("in the way")          # where the scene's folder would be
    monkeypatch.setattr("copgen.model.CopGen.generate", lambda *_, **__: pytest.fail("it began to draw"))
    before = tree(tmp_path)
    said = copgen("generate", "--model", tiny_model, "--input", f"DEM={inputs / 'hill.tif'}", "--out", tmp_path / out)
    assert "not a folder" in sentence(said)
    assert tree(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc: a folder that even root cannot write to is needed")
def test_a_folder_that_even_root_cannot_write_to(copgen: Command, tiny_model: Path) -> None:
    said = copgen("generate", "--model", tiny_model, "--want", "date", "--steps", 1, "--out", "/proc/self/out")
    assert said.status == 2 and re.search(r"/proc/self.*(could not be written|can't be written)", said.err.splitlines()[-1])


def test_a_disk_that_fills_up_is_left_as_it_was(copgen: Command, tiny_model: Path, tmp_path: Path) -> None:
    """On a small disk of its own, mounted for the purpose."""
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path / "disk"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here (only root can)")
    try:
        said = copgen("generate", "--model", tiny_model, "--want", "S2L2A", "--steps", 1, "--out", tmp_path / "disk" / "out")
        assert said.status == 2 and re.search(r"^error: .*No space left on device.*free some space", said.err.splitlines()[-1])
        assert tree(tmp_path / "disk") == {}
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


def test_a_full_disk_without_one(copgen: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    said = copgen("generate", "--model", tiny_model, "--want", "S2L2A", "--steps", 1, "--out", tmp_path / "out")
    assert said.status == 2 and "free some space" in said.err.splitlines()[-1]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("words", "says"), [
    ("--archive {here} --offset nan", r"--offset nan: takes a number"), ("--archive {here} --cells", r"no cells to encode"),
    ("--archive {here} --workers 2", r"--workers 2: .*--devices 2"),
    ("--data synthetic:0..2 --cells 618U_30L", r"only an archive has cells"),
])
def test_what_encode_would_do_otherwise_than_meant_is_refused(words: str, says: str, copgen: Command, tiny_model: Path,
                                                              tmp_path: Path) -> None:
    arguments = words.format(here=tmp_path).split()
    empty = [""] if arguments[-1] == "--cells" else []          # not all cells
    said = copgen("encode", *arguments, *empty, "--model", tiny_model, "--out", tmp_path / "out")
    assert said.status == 2 and re.search(says, said.err.splitlines()[-1]), said
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("words", "says"), [
    ("--engine ray", "are for many cells"), ("--devices 2", "are for many cells"), ("--patches all", "are for many cells"),
    ("--address 127.0.0.1:1", "are for many cells"), ("--engine spark", "are for many cells"), ("--cells", "no cell is named"),
])
def test_what_is_for_many_cells_is_refused_for_one(words: str, says: str, copgen: Command, tiny_model: Path, tmp_path: Path) -> None:
    empty = [""] if words == "--cells" else []   # neither one square nor all cells
    archive = ["--cell", "618U_30L"] if words != "--cells" else []
    said = copgen("generate", "--model", tiny_model, "--archive", tmp_path, "--given", "DEM", "--want", "LULC", "--steps", 1,
                  "--out", tmp_path / "out", *archive, *words.split(), *empty)
    assert says in sentence(said)
    assert tree(tmp_path) == {}


# --- weights that are not what they should be ---------------------------------------------------------------------------------------


class Hostile:
    """What unpickling this would do: make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("which", ["backbone", "vae"])
def test_code_in_weights_to_convert_is_not_run(which: str, copgen: Command, tmp_path: Path) -> None:
    from test_published import released_backbone, released_vae

    mark = tmp_path / "ran"
    backbone, vaes = tmp_path / "backbone.pth", tmp_path / "vae"
    hostile = backbone if which == "backbone" else vaes / published.VAE_FOLDERS["dem"] / "model-50-ema.pth"
    torch.save(released_backbone(), backbone)
    for row, name in published.VAE_FOLDERS.items():
        (vaes / name).mkdir(parents=True)
        torch.save(released_vae("dem") if row == "dem" else {}, vaes / name / "model-50-ema.pth")
    torch.save({"pos_embed": Hostile(mark), "encoder.conv_in.weight": Hostile(mark)}, hostile)
    before = tree(tmp_path)
    said = copgen("convert", "--backbone", backbone, "--vaes", vaes, "--heads", 2, "--out", tmp_path / "new" / "model")
    assert sentence(said).startswith(f"{hostile}: refused")
    assert tree(tmp_path) == before and not mark.exists()


def test_weights_to_convert_that_are_not_there(copgen: Command, tmp_path: Path) -> None:
    said = copgen("convert", "--backbone", tmp_path / "none.pth", "--vaes", tmp_path, "--out", tmp_path / "model")
    assert re.search(r"none\.pth: there is no such file", sentence(said))
    assert tree(tmp_path) == {}


def edited(file: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))
    return edit


def cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:1000]) and None


def removed(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def swapped(folder: Path) -> None:
    shutil.copytree(folder / "vae" / "dem", folder / "vae" / "s1rtc", dirs_exist_ok=True)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "another row": (edited("copgen.json", lambda m: m["rows"][2].update(resolution=20)), r"copgen\.json: row dem has resolution = 20.*30"),
    "another band order": (edited("copgen.json", lambda m: m["rows"][9]["bands"].reverse()), r"row s2l2a_10m has bands = .*'B08', 'B02'"),
    "an unknown row": (edited("copgen.json", lambda m: m["rows"][2].update(name="dsm")), r"row 'dsm' is not in this version's table"),
    "a row less": (edited("copgen.json", lambda m: m["rows"].pop(0)), r"backbone\.safetensors: .*place"),
    "another format": (edited("copgen.json", lambda m: m.update(format=99)), r"format 99, this version reads 1"),
    "an unknown key": (edited("copgen.json", lambda m: m.update(run="rm -rf")), r"copgen\.json.*run"),
    "a codec outside": (edited("copgen.json", lambda m: m["codecs"].update(dem="../../dem")), r"codec of dem is called '\.\./\.\./dem'"),
    "no codec named": (edited("copgen.json", lambda m: m["codecs"].pop("dem")), r"no codec for dem"),
    "not JSON": (cut("copgen.json"), r"copgen\.json: could not be read"),
    "no record": (removed("copgen.json"), r"copgen\.json: there is no such file, so .* is not a model folder"),
    "another width": (edited("copgen.json", lambda m: m["backbone"].update(width=64)), r"backbone\.safetensors: .* shape .* another size"),
    "another depth": (edited("copgen.json", lambda m: m["backbone"].update(depth=4)), r"backbone\.safetensors: .* another model or size"),
    "another patch": (edited("copgen.json", lambda m: m.update(patch=2)), r"backbone\.safetensors: .* has shape .* another size"),
    "a patch of 0": (edited("copgen.json", lambda m: m.update(patch=0)), r"copgen\.json.*patch"),
    "0 heads": (edited("copgen.json", lambda m: m["backbone"].update(heads=0)), r"heads"),
    "truncated weights": (cut("backbone.safetensors"), r"backbone\.safetensors: is missing, damaged"),
    "no weights": (removed("backbone.safetensors"), r"backbone\.safetensors: is missing"),
    "a codec of another size": (edited("vae/dem/codec.json", lambda m: m["config"].update(width=16)), r"dem/codec\.safetensors: .*size"),
    "another row's codec": (swapped, r"codec s1rtc has 1 channels, .*; row s1rtc needs 2"),
    "a truncated codec": (cut("vae/s1rtc/codec.safetensors"), r"vae/s1rtc/codec\.safetensors: is missing, damaged"),
    "no codec": (removed("vae/s1rtc/codec.json"), r"vae/s1rtc/codec\.json: there is no such file"),
    "a codec with no factor": (edited("vae/dem/codec.json", lambda m: m.pop("scaling_factor")), r"codec\.json.*scaling_factor"),
    "a codec's factor in words": (edited("vae/dem/codec.json", lambda m: m.update(scaling_factor="one")), r"codec\.json.*scaling_factor"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_model_folder_that_is_broken_is_named(case: str, copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    break_it, says = BROKEN[case]
    model = shutil.copytree(tiny_model, tmp_path / "model")
    break_it(model)
    said = copgen("generate", "--model", model, "--input", f"DEM={inputs / 'hill.tif'}", "--want", "S1RTC", "--steps", 1,
                  "--out", tmp_path / "out")
    assert re.search(says, sentence(said)), said.err
    assert not (tmp_path / "out").exists()


# --- what is written ----------------------------------------------------------------------------------------------------------------


def test_generate_writes_exactly_what_it_says(copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = copgen("generate", "--model", tiny_model, "--input", f"DEM={inputs / 'hill.tif'}", "--input", f"s1rtc={inputs / 's1.tif'}",
                  "--date", "2021-07-23", "--want", "S2L2A,lulc,S2L1C_cloud_mask", "--samples", 2, "--seed", 7, "--steps", 2, "--out", out)
    assert said.status == 0, said.err
    rows = ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m", "lulc", "cloud_mask")
    assert names(out / "hill") == {"contact_sheet.png", "run.json", *(f"sample-00{k}/{name}" for k in (0, 1) for row in rows
                                                                     for name in OF_ROW[row])}
    assert [path.name for path in out.iterdir()] == ["hill"]
    assert str(out / "hill" / "contact_sheet.png") in said.out
    for row in rows:
        with rasterio.open(out / "hill" / "sample-001" / OF_ROW[row][0]) as file:
            assert file.crs.to_epsg() == 32630 and file.res == (TABLE[row].resolution,) * 2
            assert np.allclose(file.bounds, (SQUARE[0], SQUARE[1] - 1920, SQUARE[0] + 1920, SQUARE[1]), rtol=0, atol=1e-6)
            assert file.tags()["datetime"] == "2021-07-23" and file.tags()["COPGEN_SEED"] == "8"


def test_the_record_says_what_a_run_was(copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    copgen("generate", "--model", tiny_model, "--input", f"S2L2A={inputs / 's2.tif'}", "--want", "S1RTC", "--samples", 2, "--seed", 7,
           "--steps", 2, "--precision", "fp32", "--device", "cpu", "--out", tmp_path)
    record = json.loads((tmp_path / "s2" / "run.json").read_text(), parse_constant=lambda _: pytest.fail("not JSON"))
    assert record["copgen"] == __version__ and record["model"]["name"] == "tiny"
    used = ["backbone.safetensors", *(f"vae/{row}/codec.safetensors" for row in ("s1rtc", "s2l2a_10m", "s2l2a_20m", "s2l2a_60m"))]
    assert record["model"]["sha256"] == {name: hashlib.sha256((tiny_model / name).read_bytes()).hexdigest() for name in used}
    (source,) = record["sources"]["inputs"]
    assert source["path"] == "s2.tif" and source["sha256"] == hashlib.sha256((inputs / "s2.tif").read_bytes()).hexdigest()
    assert record["square"] == {"crs": "EPSG:32630", "left": SQUARE[0], "top": SQUARE[1], "side": 1920}
    assert [sample["seed"] for sample in record["samples"]] == [7, 8]
    assert (record["solver"], record["calls"], record["precision"]) == ("default", 2, "fp32")
    assert set(record["given"]) == {"place", "date", "s2l2a_10m", "s2l2a_20m", "s2l2a_60m"} and record["given"]["date"] == "2021-07-23"
    assert record["wanted"] == ["s1rtc"] and record["seconds"] > 0 and {"python", "torch", "rasterio"} <= set(record["versions"])
    assert record["command"][0] == "generate"


def read(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / name) as file:
        return file.read()


def test_sample_k_is_the_sample_of_seed_plus_k(copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = ("generate", "--model", tiny_model, "--input", f"DEM={inputs / 'hill.tif'}", "--want", "s2l2a_20m,LULC", "--steps", 3,
           "--precision", "fp32")
    assert copgen(*job, "--samples", 3, "--seed", 4, "--out", tmp_path / "many").status == 0
    seen = []
    for k in range(3):
        assert copgen(*job, "--seed", 4 + k, "--out", tmp_path / f"one{k}").status == 0
        alone, among = tmp_path / f"one{k}" / "hill" / "sample-000", tmp_path / "many" / "hill" / f"sample-00{k}"
        assert np.abs(read(alone, "S2L2A_20m.tif").astype(int) - read(among, "S2L2A_20m.tif")).max() <= 2
        assert (read(alone, "LULC.tif") == read(among, "LULC.tif")).mean() > 0.999
        seen.append(read(alone, "S2L2A_20m.tif").astype(int))
    assert np.abs(seen[0] - seen[1]).max() > 100                           # another seed is another sample


def test_want_left_out_is_everything_not_given(copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    said = copgen("generate", "--model", tiny_model, "--input", f"DEM={inputs / 'hill.tif'}", "--steps", 1, "--out", tmp_path)
    assert said.status == 0, said.err
    expected = {name for row, files in OF_ROW.items() if row not in ("dem", "place") for name in files}
    assert names(tmp_path / "hill" / "sample-000") == expected
    (point,) = json.loads((tmp_path / "hill/sample-000/place_and_date.geojson").read_text())["features"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", point["properties"]["date"])
    wanted = json.loads((tmp_path / "hill" / "run.json").read_text())["wanted"]
    assert wanted == [row for row in TABLE.names if row not in ("dem", "place")]


def test_nothing_given_is_unconditional(copgen: Command, tiny_model: Path, tmp_path: Path) -> None:
    said = copgen("generate", "--model", tiny_model, "--steps", 1, "--out", tmp_path)
    assert said.status == 0, said.err
    assert names(tmp_path / "unconditional" / "sample-000") == {name for files in OF_ROW.values() for name in files}
    record = json.loads((tmp_path / "unconditional" / "run.json").read_text())
    assert record["given"] == {} and record["square"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "unconditional" / "sample-000" / "DEM.tif") as file:
            assert file.crs is None              # nobody knows where it is


def given_by(copgen: Command, tmp_path: Path, *arguments: Any) -> dict[str, Any]:
    said = copgen("generate", *arguments, "--steps", 1, "--out", tmp_path / "given")
    assert said.status == 0, said.err
    (record,) = (tmp_path / "given").glob("*/run.json")
    given: dict[str, Any] = json.loads(record.read_text())["given"]
    shutil.rmtree(tmp_path / "given")
    return given


def test_place_and_date_are_given_as_asked(copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    s2 = ("--model", tiny_model, "--input", f"S2L2A={inputs / 's2.tif'}")
    found = given_by(copgen, tmp_path, *s2, "--want", "DEM")
    assert found["date"] == "2021-07-23" and found["place"] == pytest.approx([55.94, -2.98], abs=0.01)
    assert "date" not in given_by(copgen, tmp_path, *s2, "--want", "DEM", "--date", "none")
    assert "place" not in given_by(copgen, tmp_path, *s2, "--want", "DEM", "--place", "none")
    assert given_by(copgen, tmp_path, *s2, "--want", "DEM", "--date", "2020-02-29")["date"] == "2020-02-29"
    assert given_by(copgen, tmp_path, *s2, "--want", "DEM", "--place", "-33.9,18.4")["place"] == [-33.9, 18.4]
    assert {"place", "date"}.isdisjoint(given_by(copgen, tmp_path, *s2, "--want", "place,date"))
    assert {"place", "date"}.isdisjoint(given_by(copgen, tmp_path, *s2, "--want", "place,date", "--place", "none", "--date", "none"))
    alone = given_by(copgen, tmp_path, "--model", tiny_model, "--want", "DEM", "--place", "10,20", "--date", "2021-01-01")
    assert alone == {"place": [10, 20], "date": "2021-01-01"}


def test_an_impossible_day_in_a_file_is_no_matter_where_it_is_not_used(
    copgen: Command, tiny_model: Path, tmp_path: Path
) -> None:
    file = raster(tmp_path / "x.tif", numbers(12), 10, datetime="2021-13-45")
    for way_out in (["--date", "2021-07-23"], ["--date", "none"], ["--want", "date"]):
        want = [] if "--want" in way_out else ["--want", "S1RTC"]
        given_by(copgen, tmp_path, "--model", tiny_model, "--input", f"S2L2A={file}", *want, *way_out)


def test_what_is_there_is_only_replaced_on_purpose(copgen: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = ("generate", "--model", tiny_model, "--input", f"DEM={inputs / 'hill.tif'}", "--want", "date", "--steps", 1, "--out", tmp_path)
    assert copgen(*job, "--samples", 2).status == 0
    (tmp_path / "hill" / "sample-000" / "mine.txt").write_text("mine")
    (tmp_path / "other").write_text("mine")
    before = tree(tmp_path)
    assert re.search(r"exists already.*--overwrite", sentence(copgen(*job, "--seed", 9)))
    assert tree(tmp_path) == before

    assert copgen(*job, "--seed", 9, "--overwrite").status == 0
    after = tree(tmp_path)
    assert set(after) == set(before)                                       # also sample-001, which this run does not write
    changed = {name for name in before if before[name] != after[name]}
    assert {"hill/run.json", "hill/sample-000/place_and_date.geojson"} <= changed
    assert changed <= {"hill/run.json", "hill/sample-000/place_and_date.geojson", "hill/contact_sheet.png"}


@pytest.mark.parametrize("path", [".", "..", "../s2"])
def test_a_folder_of_bands_does_not_lead_out_of_out(
    path: str, copgen: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = tmp_path / "s2"
    for band, values in zip(S2L2A_BANDS, numbers(12), strict=True):
        raster(bands / f"{band}.tif", values, 10)
    (bands / "below").mkdir()
    monkeypatch.chdir(bands / "below" if path == ".." else bands)
    said = copgen("generate", "--model", tiny_model, "--input", f"S2L2A={path}", "--want", "date", "--steps", 1, "--out", tmp_path / "out")
    assert said.status == 0, said.err
    assert [found.relative_to(tmp_path).as_posix() for found in tmp_path.rglob("run.json")] == ["out/s2/run.json"]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cell of heights and radar in Major TOM's layout."""
    root = tmp_path_factory.mktemp("archive")
    product = "S1A_IW_GRDH_1SDV_20210723T063000_20210723T063025_038907_049736_rtc"
    raster(root / "Core-DEM/618U/618U_30L/id/DEM.tif", heights(356), 30)
    for band, values in zip(("vv", "vh"), power(1068), strict=True):
        raster(root / f"Core-S1RTC/618U/618U_30L/{product}/{band}.tif", values, 10)
    return root


def test_a_cell_of_an_archive(copgen: Command, archive: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = ("generate", "--model", tiny_model, "--archive", archive, "--cell", "618U_30L", "--steps", 1, "--out", tmp_path)
    assert copgen(*job, "--given", "DEM,S1RTC", "--want", "LULC,place,date").status == 0
    record = json.loads((tmp_path / "618U_30L" / "run.json").read_text())
    assert set(record["given"]) == {"dem", "s1rtc"} and record["wanted"] == ["place", "date", "lulc"]
    assert (record["square"]["left"], record["square"]["top"]) == (LEFT + 4380, TOP - 4380)
    assert names(tmp_path / "618U_30L" / "sample-000") == {*OF_ROW["lulc"], *OF_ROW["place"]}

    assert copgen(*job, "--given", "DEM", "--want", "LULC", "--patch", "0,5").status == 0
    record = json.loads((tmp_path / "618U_30L_0_5" / "run.json").read_text())
    assert (record["square"]["left"], record["square"]["top"]) == (LEFT + 10_680 - 1920, TOP)
    assert record["given"]["date"] == "2021-07-23"

    assert "6 x 6" in sentence(copgen(*job, "--given", "DEM", "--want", "LULC", "--patch", "6,0"))
    assert "no S2L2A" in sentence(copgen(*job, "--given", "S2L2A", "--want", "LULC"))
    assert "both given and wanted" in sentence(copgen(*job, "--given", "DEM", "--want", "DEM"))


# --- the other commands -------------------------------------------------------------------------------------------------------------


def in_a_process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "copgen.cli", *words], capture_output=True, text=True, timeout=120, check=False)


def test_the_version_and_a_refusal_in_a_process_of_their_own(tmp_path: Path) -> None:
    said = in_a_process("--version")
    assert (said.returncode, said.stdout, said.stderr) == (0, f"copgen {__version__}\n", "")
    said = in_a_process("generate", "--samples", "0", "--out", str(tmp_path / "out"))
    assert (said.returncode, said.stdout) == (2, "") and said.stderr == "error: --samples 0: at least 1 is needed\n"
    assert not list(tmp_path.iterdir())


def test_help_needs_nothing_heavy() -> None:
    """That is how it answers at once."""
    heavy = ("torch", "numpy", "rasterio", "rich", "safetensors", "huggingface_hub", "PIL")
    code = ("import sys; from copgen.cli import main; sys.argv = ['copgen', *sys.argv[1:]]\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)")
    for words in (["--help"], ["generate", "--help"], ["--version"]):
        said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=True)
        assert said.stderr.strip() == "[]" and said.stdout


def test_every_command_has_help() -> None:
    said = CliRunner().invoke(app, ["--help"])
    for command in ("modalities", "models", "generate", "convert", "synthesize", "train-vae", "encode", "train"):
        assert command in said.output
        help_text = CliRunner().invoke(app, [command, "--help"])
        assert help_text.exit_code == 0 and "--" in help_text.output


def test_an_unknown_option_is_exit_status_2(copgen: Command) -> None:
    for words in (["generate", "--colour", "red"], ["generate"], ["generate", "--out", "x", "--samples", "many"], ["paint"]):
        said = copgen(*words)
        assert said.status == 2 and "Traceback" not in said.err


def test_the_table_is_printed_whole(copgen: Command, tiny_model: Path) -> None:
    said = copgen("modalities")
    assert said.status == 0 and "834 tokens" in said.out
    for row in TABLE.rows:
        assert re.search(rf"\b{row.name}\b", said.out) and row.product in said.out and row.released_as in said.out
        assert " ".join(row.bands) in said.out
    assert "222 tokens" in copgen("modalities", "--model", tiny_model).out
    thumbnails = copgen("modalities", "--table", "thumbnails")
    assert thumbnails.status == 0 and "1028 tokens" in thumbnails.out
    for row in THUMBNAILS.rows:
        assert row.name in thumbnails.out and row.source is not None and " ".join(row.source.bands) in thumbnails.out
    assert "there are copgen, thumbnails" in sentence(copgen("modalities", "--table", "maps"))
    assert "give one of the two" in sentence(copgen("modalities", "--table", "copgen", "--model", tiny_model))


def test_models_are_listed(copgen: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPGEN_CACHE", str(tmp_path))
    shutil.copytree(tiny_model, tmp_path / "own")
    said = copgen("models")
    assert said.status == 0
    for part in ("own", "Apache-2.0", "copgen-base", "286,986,562", "mespinosami/copgen-base", "951,274,306", "copgen convert",
                 "cop-gen-beta", "286,648,384", "83,653,863", "mespinosami/COP-GEN-Beta"):
        assert part in said.out
    for broken in ("backbone.safetensors", "copgen.json"):                 # one that is broken does not hide the others
        (tmp_path / "own" / broken).write_text("{}")
        said = copgen("models")
        assert said.status == 0 and "copgen-base" in said.out and "own" in said.out and "broken: " in said.out
