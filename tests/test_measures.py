"""What must hold of measures of distributions: what stands beside them is what a perfect generator of as many samples and truths has."""

import numpy as np
import pytest
from made_rows import Made

from copgen.evaluation.kept import Ensemble
from copgen.evaluation.measures import calibration_measures, influence_measures, set_measures
from copgen.evaluation.metrics import Measured
from copgen.evaluation.recipe import Condition
from copgen.evaluation.statistics import statistics
from copgen.modalities import Table
from copgen.scene import Scene

SMALL = Table(footprint=480)


def numbers(made, choose, modality="DEM"):
    """Every measure by name: what was measured, and what is perfect; None where nothing is known."""
    results = made.results()
    measured = Measured(results, tuple(results.asked), modality, draws=20)
    found = {one.metric.name: (one.number(measured), one.reference(measured)) for one in choose(results, measured.group, modality)}
    return {name: tuple(one and one.value for one in both) for name, both in found.items()}


def test_cells_that_lack_one_of_two_statistics_are_not_in_their_ratio():
    """Of one sample there is an error of the mean and no spread; how far the truth moves is known of one cell alone."""
    made = Made()
    for cell, skill, spread in (("a", 4.0, 1.0), ("b", 60.0, None)):
        made.add(cell, "skill", skill, 10, band="DEM")
        if spread is not None:
            made.add(cell, "spread", spread, 10, band="DEM")
    assert numbers(made, calibration_measures)["spread / skill of pixels"] == (0.5, 1)
    made = Made()
    for cell, true in (("a", 16.0), ("b", None)):
        made.add(cell, "moved", 2.0, 10, band="DEM")
        made.add(cell, "spread", 4.0, 10, band="DEM")
        if true is not None:
            made.add(cell, "true moved", true, 10, band="DEM")
    assert numbers(made, influence_measures)["moved / spread"] == pytest.approx((0.5**0.5, 2))


def of_cells(draw, cells, samples, truths):
    """Rows of heights, each the level that is drawn all over the tile."""
    made, rng = Made(), np.random.default_rng(3)
    for k in range(cells):
        levels = draw(rng, samples, truths)
        scenes = [Scene({"dem": np.full((1, 16, 16), level)}, name=f"c{k}", table=SMALL) for level in levels]
        drawn = [one.with_layers(one.layers, seed=seed) for seed, one in enumerate(scenes[truths:])]
        for one in statistics(Ensemble(Condition("p", (), ("dem",), samples), scenes[0], scenes[1:truths], drawn, "a generator")):
            made.add(f"c{k}", one.statistic, one.value, one.weight, seed=one.seed, band=one.band)
    return made


def test_a_perfect_generator_has_what_stands_beside_its_sets():
    """Of 18 samples and 6 truths the nearest neighbour is a sample three times in four, whichever one looks at."""
    made = of_cells(lambda rng, samples, truths: 500 + rng.standard_normal(samples + truths), 60, 18, 6)
    found = numbers(made, set_measures)
    accuracy, perfect = found["nn accuracy"]
    assert perfect == pytest.approx((18 * 17 + 6 * 5) / (24 * 23)) and accuracy == pytest.approx(perfect, abs=0.03) and accuracy > 0.55
    assert found["mmd"][1] == 0 and abs(found["mmd"][0]) < 0.05
    assert found["wasserstein"][0] > 0.2 and found["wasserstein"][1] is None                    # of two finite sets it is above 0


def test_ranks_of_tiles_with_many_truths_are_flat_for_a_perfect_generator_and_told_for_a_narrow_one():
    name = "ranks of tiles: chi-square / degrees of freedom"
    for wide, low, high in ((1, 0.5, 1.6), (0.6, 2.5, np.inf)):
        made = of_cells(lambda rng, samples, truths, wide=wide: 500 + np.concatenate(
            [rng.standard_normal(truths), wide * rng.standard_normal(samples)]), 30, 12, 12)
        found = numbers(made, calibration_measures)
        assert low < found[name][0] < high and found[name][1] == 1
        assert (found["ranks of tiles: p of flat ones"][0] < 0.01) == (wide < 1)
