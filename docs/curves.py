"""Makes docs/curves.png from the metrics.csv of a run, or of several that went on from each other: a loss curve a modality.

    python docs/curves.py work-nano/run/metrics.csv
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from copgen.drawing import GREY, INK, PAPER, RULE, Canvas

COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194), (127, 127, 127),
           (188, 189, 34), (23, 190, 207), (20, 20, 20), (90, 130, 90))
LEFT, TOP, WIDTH, HEIGHT, LEAST, MOST = 60, 30, 640, 360, 0.1, 2.0


def main(paths: list[Path], kept: list[int]) -> None:
    rows, steps = [], np.zeros(0)
    for path, until in zip(paths, kept, strict=True):
        with path.open() as file:
            new = [row for row in csv.DictReader(file) if int(row["step"]) <= until]
        steps = np.concatenate([steps, (steps[-1] if len(steps) else 0) + np.array([float(row["step"]) for row in new])])
        rows += new
    names = [name for name in rows[0] if name not in ("step", "loss")]
    canvas = Canvas(Image.new("RGB", (2 * (LEFT + WIDTH + 120), 2 * (TOP + HEIGHT + 40)), PAPER), 2)
    for value in (0.1, 0.2, 0.5, 1.0, 2.0):
        canvas.line([at(0, value), at(1, value)], RULE, 0.5)
        canvas.text(LEFT - 8, at(0, value)[1], f"{value:g}", 10, GREY, "rm")
    for share in (0, 0.25, 0.5, 0.75, 1):
        canvas.text(at(share, LEAST)[0], TOP + HEIGHT + 8, f"{share * steps[-1]:.0f}", 10, GREY, "ma")
    canvas.text(LEFT, 8, "mean squared error of the velocity by modality, mean of 100 steps; against the step", 11, INK)
    ends = []
    for name, colour in zip(names, COLOURS, strict=False):
        values = smoothed(np.array([float(row[name]) for row in rows]))
        canvas.line([at(step / steps[-1], value) for step, value in zip(steps, values, strict=True)], colour, 1.2)
        ends.append((at(1, values[-1])[1], name, colour))
    below = 0.0
    for y, name, colour in sorted(ends):
        below = max(y, below + 12)
        canvas.text(LEFT + WIDTH + 8, below, name, 10, colour, "lm")
    canvas.image.save(Path(__file__).with_suffix(".png"), optimize=True)


def at(share: float, value: float) -> tuple[float, float]:
    """Where on the paper a share of the steps and a loss are; losses on a logarithmic axis."""
    height = np.log(np.clip(value, LEAST, MOST) / LEAST) / np.log(MOST / LEAST)
    return LEFT + share * WIDTH, TOP + (1 - float(height)) * HEIGHT


def smoothed(values: np.ndarray, window: int = 5) -> np.ndarray:
    """Running means, NaN left out."""
    return np.array([np.nanmean(values[max(k - window + 1, 0): k + 1]) for k in range(len(values))])


if __name__ == "__main__":
    named = [argument.partition("@") for argument in sys.argv[1:]]                 # FILE, or FILE@STEP: up to a step
    main([Path(name) for name, _, _ in named], [int(step or 10**9) for _, _, step in named])
