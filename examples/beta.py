"""Pictures in, pictures out: the thumbnail model (COP-GEN-Beta) from Python."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from copgen import CopGen, read_scene
from copgen.scene import Scene
from copgen.sheet import contact_sheet


def main(out: Path, model: str = "cop-gen-beta", inputs: Sequence[str] = (), steps: int | None = None) -> None:
    beta = CopGen.from_pretrained(model)

    # inputs: S1RTC=s1.webp, or S1RTC=s1.tif in physical units, of which the picture is made first; without any a place is made up
    place = read_scene(inputs, table=beta.table) if inputs else beta.generate(seeds=[0], steps=steps)[0]

    # one radar picture, several surfaces: what was not observed differs from seed to seed
    given = place.only("S1RTC") if "s1rtc_thumbnail" in place else place
    samples = beta.generate(given, want="S2L2A", seeds=range(4), steps=steps)
    for sample in samples:
        sample.save(out / f"seed-{sample.notes['seed']}", overwrite=True)
    contact_sheet(given, samples, out / "sheet.png", overwrite=True)

    # the atmosphere put in front of one of them, and taken away again
    above = beta.generate(samples[0], want="S2L1C", seeds=[0], steps=steps)[0]
    below = beta.generate(above, want="S2L2A", seeds=[0], steps=steps)[0]
    moved = np.abs(below["s2l2a_thumbnail"].astype(float) - samples[0]["s2l2a_thumbnail"]).mean()

    # a picture of an array, by Major TOM's recipe: the whole image is drawn (it stretches what it finds), then the square is cut out
    power = np.random.default_rng(0).gamma(4, [[[0.02]], [[0.005]]], (2, 1068, 1068))              # vv and vh, linear
    drawing = beta.table["s1rtc_thumbnail"].drawing
    side = beta.table.side("s1rtc_thumbnail")
    radar = Scene({"s1rtc_thumbnail": drawing.draw(power)[:, :side, :side]}, table=beta.table)
    heights = beta.generate(radar, want="DEM", steps=steps)[0]["dem_thumbnail"]
    print(f"there and back moves S2L2A by {moved:.1f} levels of 255; heights of speckle have a mean brightness of {heights.mean():.0f}")


if __name__ == "__main__":
    words = sys.argv[1:]
    main(Path(words[0] if words else "out/beta"), words[1] if len(words) > 1 else "cop-gen-beta", words[2:])
