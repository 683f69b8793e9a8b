"""Makes docs/demo.png: samples of nano for a synthetic world that it never saw, beside that world's own layers."""

from pathlib import Path

from copgen import CopGen
from copgen.sheet import contact_sheet
from copgen.synthetic import world

SEED = 10_000_007

if __name__ == "__main__":
    truth = world(SEED)
    given = truth.only("DEM, LULC, place, date")
    samples = CopGen.from_pretrained("nano").generate(given, want="s2l2a_10m, s2l2a_20m, S1RTC", seeds=range(4))
    sheet = contact_sheet(given, samples, real=truth.only("s2l2a_10m, s2l2a_20m, S1RTC"), scale=1)
    sheet.save(Path(__file__).with_suffix(".png"), optimize=True)
    print(sheet.size)
