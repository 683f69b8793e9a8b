"""Every example runs."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def ran(name: str, *given: object) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*given, steps=2)


def test_every_example_is_run() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == ["beta", "generate"]


def test_layers_of_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran("generate", tmp_path)
    assert "B02" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("*.tif"))) == 12


@pytest.mark.parametrize("product", [None, "S1RTC", "DEM"])
def test_pictures_of_pictures(product: str | None, tiny_thumbnails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(tmp_path / "given.webp", lossless=True)
    ran("beta", tmp_path, str(tiny_thumbnails), [f"{product}={tmp_path / 'given.webp'}"] if product else [])
    assert "levels of 255" in capsys.readouterr().out
    assert len(list(tmp_path.glob("seed-*/S2L2A_thumbnail.png"))) == 4 and (tmp_path / "sheet.png").is_file()
