"""A difference between two generators is told apart from luck: found where it is, not where it is not, over the cells that both have."""

import numpy as np
import pytest
from made_rows import Made, classes, given_all_but, places_of

from copgen import scores
from copgen.evaluation.compare import NOTHING_SHOWN, compare, comparisons

CELLS = [f"c{k:02d}" for k in range(30)]
PLACES = places_of(CELLS, apart=3.0)


def generator(name, away, *, cells=CELLS, statistic="published absolute error", modality="DEM", band="DEM", given=None):
    """Rows of one statistic [cells, seeds]."""
    made = Made()
    for (c, seed), value in np.ndenumerate(away):
        made.add(cells[c], statistic, value, 10, seed=seed, modality=modality, band=band, given=given)
    return made.results(name, places=PLACES)


def hard_cells(seed=0, seeds=4):
    """How hard cells are differs much more than generators do."""
    rng = np.random.default_rng(seed)
    return rng.lognormal(3, 1, (len(CELLS), 1)) + 0 * rng.normal(size=(len(CELLS), seeds)), rng


def verdicts(table):
    return {row[3]: row[-1] for row in table.rows}


def test_a_small_difference_is_found_under_large_ones_between_cells():
    level, rng = hard_cells()
    a, b = (level * factor * rng.uniform(0.97, 1.03, level.shape) for factor in (1.0, 1.1))
    table = compare(generator("a", a), generator("b", b))
    assert verdicts(table)["MAE (published: m, pooled)"] == "A better"
    assert verdicts(compare(generator("b", b), generator("a", a)))["MAE (published: m, pooled)"] == "B better"
    row = table.rows[0]
    assert row[4] == 30 and row[7].value == pytest.approx(a.mean() - b.mean()) and row[7].high < 0
    assert (row[5].value, row[6].value) == pytest.approx((a.mean(), b.mean()))


def test_luck_is_no_difference():
    level, rng = hard_cells()
    a, b = (level * rng.uniform(0.9, 1.1, level.shape) for _ in range(2))
    table = compare(generator("a", a), generator("b", b))
    assert set(verdicts(table).values()) == {NOTHING_SHOWN}
    assert "2 comparisons: A better in 0, B better in 0, no difference shown in 2" in table.notes[0]


def test_of_many_comparisons_few_are_false():
    """Of 40 tables of equal generators, chance gives a verdict in about one of twenty."""
    false = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = [Made(), Made()]
        for one in made:
            for cell in CELLS:
                for statistic in ("published absolute error", "published squared error", "published ssim", "ssim", "psnr"):
                    one.add(cell, statistic, rng.normal(5), 10, seed=0, modality="DEM", band="DEM")
        table = compare(*(one.results(name, places=PLACES) for one, name in zip(made, "ab", strict=True)), draws=400)
        assert len(table.rows) == 5
        false += any(row[-1] != NOTHING_SHOWN for row in table.rows)
    assert false <= 6


def test_what_is_best_of_n_need_not_be_best_on_average():
    """A wide generator has the better best sample and the worse mean one: both are said."""
    rng = np.random.default_rng(4)
    wide, narrow = rng.uniform(0, 10, (30, 8)), rng.uniform(3.9, 4.1, (30, 8))
    told = verdicts(compare(*(generator(name, away, statistic="kilometres", modality="place", band="")
                              for name, away in (("wide", wide), ("narrow", narrow)))))
    assert told["Mean km"] == "B better" and told["Mean km, best of 8"] == "A better"


def test_the_difference_is_that_of_scores_paired():
    level, rng = hard_cells()
    a, b = (level * rng.uniform(0.9, 1.1, level.shape) for _ in range(2))
    one = comparisons(generator("a", a), generator("b", b))[0][0]
    labels = scores.blocks(*np.array([PLACES[cell] for cell in CELLS]).T)
    direct = scores.paired(lambda total: total / len(CELLS), [a.mean(1)], [b.mean(1)], blocks=labels)
    assert (one.difference.value, one.difference.low, one.difference.high) == pytest.approx((direct.value, direct.low, direct.high))


def test_holm_counts_every_comparison():
    level, rng = hard_cells()
    a, b = (level * factor * rng.uniform(0.9, 1.1, level.shape) for factor in (1, 1.03))
    found = comparisons(generator("a", a), generator("b", b))[0]
    single = [scores.paired(lambda total: total, [x], [y], blocks=scores.blocks(*np.array(list(PLACES.values())).T)).p
              for x, y in ((a.mean(1), b.mean(1)), (a.min(1), b.min(1)))]
    assert sorted(one.p for one in found) == pytest.approx(sorted(scores.holm(single)))


def test_only_cells_of_both_are_compared():
    level, rng = hard_cells()
    a, b = level * rng.uniform(0.9, 1.1, level.shape), level[5:] * 1.5
    table = compare(generator("a", a), generator("b", b, cells=CELLS[5:]))
    assert table.rows[0][4] == 25 and table.rows[0][5].value == pytest.approx(a[5:].mean())
    assert "5 cells of a are not among those of b and are left out" in table.notes


def test_only_bands_of_both_are_compared():
    made = {"a": Made(), "b": Made()}
    for name, bands in (("a", ("B02", "B10")), ("b", ("B02",))):
        for cell in CELLS:
            for band in bands:
                made[name].add(cell, "published absolute error", 5.0 if band == "B10" else 1.0, 10, seed=0, modality="S2L1C", band=band)
    a, b = (one.results(name, places=PLACES) for name, one in made.items())
    table = compare(a, b)
    assert (table.rows[0][5].value, table.rows[0][6].value) == (1.0, 1.0) and table.rows[0][-1] == NOTHING_SHOWN
    assert "S2L1C: only a has B10; left out" in table.notes


def test_classes_of_other_codes_compare():
    rng = np.random.default_rng(0)
    made = [Made(), Made()]
    for cell in CELLS:
        truth = rng.choice([1, 2], 60)
        classes(made[0], cell, 0, truth, np.where(rng.uniform(size=60) < 0.9, truth, 7), modality="LULC")
        classes(made[1], cell, 0, truth, np.where(rng.uniform(size=60) < 0.5, truth, 11), modality="LULC")
    table = compare(*(one.results(name, places=PLACES) for one, name in zip(made, "ab", strict=True)))
    assert set(verdicts(table).values()) == {"A better"}


def test_nothing_in_common_is_refused():
    a = generator("a", np.ones((30, 1)))
    b = generator("b", np.ones((30, 1)), given=given_all_but("DEM", "LULC"))
    with pytest.raises(ValueError, match="a and b have no metric of the same condition"):
        compare(a, b)


def test_one_block_shows_nothing():
    made = [Made(), Made()]
    for k, one in enumerate(made):
        for cell in CELLS:
            one.add(cell, "published absolute error", 1 + k, 10, seed=0, modality="DEM", band="DEM")
    table = compare(*(one.results("ab"[k], places={cell: [1.0, 1.0] for cell in CELLS}) for k, one in enumerate(made)))
    assert table.rows[0][-1] == NOTHING_SHOWN and table.rows[0][7].low is None


def test_more_samples_alone_are_no_better():
    """A range covers the more, the more samples there are; a fair score does not know how many there were."""
    def of(name, samples, covered):
        rng, made = np.random.default_rng(len(name)), Made()
        for cell in CELLS:
            made.add(cell, "samples", 1, samples)
            made.add(cell, "range coverage", covered + 0.01 * rng.normal(), 1, band="DEM")
            made.add(cell, "crps", rng.normal(5), 10, band="DEM")
        return made.results(name, places=PLACES)

    table = compare(of("many", 16, 0.9), of("few", 8, 0.8))
    assert verdicts(table) == {"CRPS of pixels": NOTHING_SHOWN}
    assert any("samples of a tile: many 16, few 8" in note for note in table.notes)
    assert verdicts(compare(of("many", 16, 0.9), of("few", 16, 0.8)))["range coverage"] == "A better"
