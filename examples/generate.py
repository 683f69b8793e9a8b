"""Land cover and terrain of a place in; what Sentinel-2 and Sentinel-1 might have seen there out."""

import sys
from pathlib import Path

from copgen import CopGen
from copgen.synthetic import world


def main(out: Path, steps: int | None = None) -> None:
    place = world(10_000_007)                    # or copgen.read_scene([...]) of your own GeoTIFFs
    model = CopGen.from_pretrained("nano")
    samples = model.generate(place.only("DEM, LULC, date"), want="S2L2A, S1RTC", seeds=range(3), steps=steps)
    for sample in samples:
        sample.save(out / f"seed-{sample.notes['seed']}", overwrite=True)
    blue = ", ".join(f"{sample['s2l2a_10m'][2].mean():.0f}" for sample in samples)
    print(f"mean B02 of three samples: {blue} DN; the world's own: {place['s2l2a_10m'][2].mean():.0f} DN")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/example"))
