"""Makes docs/worlds.jpg: eight synthetic worlds that nano never saw, truth beside samples, for three ways of giving."""

from pathlib import Path

from PIL import Image

from copgen import CopGen
from copgen.drawing import INK, PAPER, TILE, Canvas
from copgen.pictures import Relief, picture
from copgen.synthetic import world

SEEDS = range(10_000_100, 10_000_108)
GIVEN = ("S2L1C", "DEM, LULC, place, date", "DEM")
GAP, TOP = 12, 40

if __name__ == "__main__":
    model = CopGen.from_pretrained("nano")
    titles = ["DEM", "LULC", "S2L2A, true", *(f"S2L2A | {given}" for given in GIVEN), "S1RTC, true", "S1RTC | DEM, S2L2A", "LULC | S2L2A"]
    step = TILE + GAP
    canvas = Canvas(Image.new("RGB", (step * len(titles) + GAP, TOP + step * len(SEEDS)), PAPER), 1)
    for column, title in enumerate(titles):
        canvas.text(GAP + column * step, 16, title, 12, INK)
    for line, seed in enumerate(SEEDS):
        truth = world(seed)
        relief = Relief.of([truth["dem"]], 30)
        l2a = [model.generate(truth.only(given), want="s2l2a_10m", seeds=[0], absent="drop")[0] for given in GIVEN]
        s1, = model.generate(truth.only("DEM, S2L2A"), want="S1RTC", seeds=[0], absent="drop")
        lulc, = model.generate(truth.only("S2L2A"), want="LULC", seeds=[0], absent="drop")
        tiles = [picture(truth, "dem", relief), picture(truth, "lulc"), picture(truth, "s2l2a_10m"),
                 *(picture(sample, "s2l2a_10m") for sample in l2a), picture(truth, "s1rtc"), picture(s1, "s1rtc"), picture(lulc, "lulc")]
        for column, tile in enumerate(tiles):
            canvas.paste(tile, GAP + column * step, TOP + line * step)
    canvas.image.save(Path(__file__).with_suffix(".jpg"), quality=82)
    print(canvas.image.size)
