"""Rows of an evaluation made by hand, for tests of what is made of them."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from copgen.evaluation.arrays import Results

COLUMNS = ("cell", "protocol", "given", "seed", "modality", "band", "statistic", "value", "weight")
PRODUCTS = ("place", "date", "DEM", "LULC", "cloud_mask", "S1RTC", "S2L1C", "S2L2A")


def given_all_but(*products):
    return "+".join(one for one in PRODUCTS if one not in products)


@dataclass
class Made:
    """Rows that are added one statistic at a time."""

    rows: list = field(default_factory=list)

    def add(self, cell, statistic, value, weight=1.0, *, seed=None, modality="DEM", band="", protocol="all-minus-target", given=None):
        given = given_all_but(modality) if given is None else given
        self.rows.append((cell, protocol, given, seed, modality, band, statistic, float(value), float(weight)))

    def frame(self):
        found = pd.DataFrame(self.rows, columns=list(COLUMNS)).astype({"seed": "Int32"})
        return found.astype(dict.fromkeys(("cell", "protocol", "given", "modality", "band", "statistic"), "category"))

    def results(self, name="nano", **meta):
        return Results(self.frame(), name, meta)


def errors(made, cell, seed, truth, drawn, **where):
    """The published statistics of one band image, computed from the pixels."""
    off = drawn - truth
    low, high = truth.min(), truth.max()
    scaled = [np.clip((one - low) / max(high - low, 1e-6), 0, 1) for one in (drawn, truth)]
    for statistic, value in (("absolute error", np.abs(off).mean()), ("squared error", (off**2).mean()),
                             ("published absolute error", np.abs(off).mean() / 1e4), ("published squared error", (off**2).mean() / 1e8),
                             ("published scaled squared error", ((scaled[0] - scaled[1]) ** 2).mean())):
        made.add(cell, statistic, value, truth.size, seed=seed, **where)


def classes(made, cell, seed, truth, drawn, **where):
    """Shares of pixels of each pair of codes that occurs."""
    pairs, counts = np.unique(np.stack([truth.ravel(), drawn.ravel()]), axis=1, return_counts=True)
    for (a, b), count in zip(pairs.T, counts, strict=True):
        made.add(cell, f"hits:{a}:{b}", count / truth.size, truth.size, seed=seed, **where)


def places_of(cells, apart=10.0):
    """Cells so far apart that each is a block of its own."""
    return {cell: [-60 + apart * (k % 12), -170 + 13.7 * k] for k, cell in enumerate(cells)}
