"""The paper's tables, the tables of distributions, and the formats they are written in."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from made_rows import PRODUCTS, Made, classes, given_all_but, places_of

from copgen import scores
from copgen.evaluation.arrays import results_of
from copgen.evaluation.asked import conditions
from copgen.evaluation.distribution import best_table, distribution_tables
from copgen.evaluation.formats import Column, Number, Table, comma_separated, latex, markdown, save, terminal
from copgen.evaluation.rows import Rows
from copgen.evaluation.tables import paper_tables, printed_numbers

CELLS = [f"c{k}" for k in range(6)]
OF_IMAGES = ("published absolute error", "published squared error", "published ssim", "published scaled squared error", "absolute error")
OF_PRODUCT = {"place": ("kilometres",), "date": ("days", "months", "days of year", "same month", "same year"), "LULC": (), "cloud_mask": ()}


def line(made, modality, statistic, values, **where):
    """A statistic of every cell and seed."""
    for (c, seed), value in np.ndenumerate(np.asarray(values, float)):
        made.add(CELLS[c], statistic, value, 10, seed=seed, modality=modality, **where)


def whole(name="nano", shift=0.0, seeds=4):
    """Rows for every table: errors of each image product, classes, places and dates, with nothing and with one product more left out."""
    rng = np.random.default_rng(3)
    made = Made()
    for target in PRODUCTS:
        for removed in ("", *(one for one in PRODUCTS if one != target)):
            where = {"given": given_all_but(target, removed), "protocol": "leave-one-out" if removed else "all-minus-target"}
            values = rng.uniform(1, 2, (len(CELLS), seeds)) + shift + 0.1 * bool(removed)
            for c in range(len(CELLS)):
                made.add(CELLS[c], "samples", 1, seeds, modality=target, **where)
            if target in ("LULC", "cloud_mask"):
                for (c, seed), _ in np.ndenumerate(values):
                    classes(made, CELLS[c], seed, rng.choice([1, 2], 40), rng.choice([1, 2], 40), modality=target, **where)
            for statistic in OF_PRODUCT.get(target, OF_IMAGES):
                line(made, target, statistic, values, **where)
    return made.results(name, places=places_of(CELLS), generator={"name": name, "parameters": {"backbone": 6_600_000, "codecs": 1_200_000}})


@pytest.fixture(scope="module")
def tables():
    made = paper_tables([whole("nano"), whole("other", shift=0.5)], paper=True, sane=False, draws=100)
    return {table.name: table for table in made}


def cells_of(table, target, condition, metric):
    return next(row for row in table.rows if row[:2] == (target, condition) and row[2].startswith(metric))[3:]


# The paper's structure


def test_every_line_that_the_paper_prints_is_there(tables):
    named = {"place": "LatLon"}
    for number, target, removed, metric, *_ in printed_numbers():
        if number < 9:
            condition = f"w/o {named.get(removed, removed)}" if removed else "Full Context"
            lines = [row for row in tables[f"table-{number}"].rows if row[:2] == (named.get(target, target), condition)]
            assert lines, (number, target, removed, metric)
    assert len(tables) == 7


def test_what_the_paper_prints_stands_beside_the_metric_it_belongs_to(tables):
    dem = cells_of(tables["table-5"], "DEM", "Full Context", "MAE")
    assert (dem[4].value, dem[4].std, dem[5].value, dem[6].value, dem[7].value) == (301.79, 260.49, 26.80, 159.96, 145.62)
    assert [str(one) for one in dem[4:]] == ["301.79 ± 260.49", "26.80", "159.96 ± 515.97", "145.62"]
    place = cells_of(tables["table-8"], "LatLon", "w/o S2L1C", "Median km")
    assert [(one.value, one.std) for one in place[2:]] == [(456, 19), (41, 5)]
    twice = [row for row in tables["table-3"].rows if row[0] == "S2L1C" and row[2].startswith("PSNR")]
    assert [(row[1], row[5].value) for row in twice] == [("Full Context", 21.16), ("w/o S2L2A", 13.92)]


def test_numbers_of_the_tables_are_the_metrics(tables):
    results = whole()
    group = tuple(one for one in results.asked if one.protocol == "all-minus-target" and one.given == given_all_but("place"))
    away = results.values(group, "place", "kilometres").value[:, :, 0]
    mean, best = cells_of(tables["table-5"], "LatLon", "Full Context", "Mean km")[:2]
    assert (mean.value, mean.std, best.value) == pytest.approx((away.mean(), away.mean(1).std(), away.min(1).mean()))
    run = cells_of(tables["table-6"], "LatLon", "Full Context", "Mean km")[0]
    assert (run.value, run.std) == pytest.approx((away.mean(), away.mean(0).std()))
    assert cells_of(tables["table-3"], "LatLon", "Full Context", "Mean km")[0] == best and best.low < best.value < best.high


def test_arrows_bold_notes_and_counts(tables):
    table = tables["table-6"]
    first, second = cells_of(table, "DEM", "Full Context", "MAE")[:2]
    assert first.best and not second.best
    assert next(row[2] for row in table.rows if row[2].startswith("SSIM")).endswith("↑")
    assert next(row[2] for row in table.rows if row[2].startswith("Std km")) == "Std km"
    assert any("Top-3" in note for note in table.notes)
    assert table.counts.headings == ("generator", "of", "tiles", "samples a tile", "seeds", "samples missing")
    assert {row[0]: row[2:] for row in table.counts.rows} == {"nano": (6, "4", 4, 0), "other": (6, "4", 4, 0)}


def test_missing_samples_are_counted():
    made = Made()
    line(made, "DEM", "published absolute error", [[1, 2, 3], [1, 2, 3]])
    for cell, share in (("c0", 1.0), ("c1", 0.75)):
        made.add(cell, "samples", share, 4)
    table = paper_tables([made.results(expected=4, finished=3, failed=1)], [6])[0]
    assert table.counts.rows == (("nano", "DEM (Full Context)", 2, "3 to 4", 3, 1),)
    assert any("3 of 4 parts are finished, 1 failed" in note for note in table.notes)


def test_both_conventions_are_named():
    made = Made()
    for statistic in ("published scaled squared error", "psnr", "absolute error"):
        line(made, "S2L2A", statistic, [[0.1, 0.2]], band="B02", given=given_all_but("S2L2A"))
    names = [row[2] for row in paper_tables([made.results()], [6])[0].rows if row[2].startswith("PSNR")]
    assert names == ["PSNR (published: pooled, each band's own min-max) ↑", "PSNR (10000 DN, mean over images) ↑"]


def test_parameters_of_every_model(tables):
    table = tables["table-9"]
    assert table.headings == ("Parameters (millions)", "nano", "other", "COP-GEN (paper)", "TerraMind (paper)")
    assert [row[0] for row in table.rows] == ["Backbone", "Codecs"]
    assert [one.value for one in table.rows[0][1:]] == [6.6, 6.6, 286.99, 237.62]


def test_a_table_that_is_not_the_papers_is_refused():
    with pytest.raises(ValueError, match="table 10: there are the paper's tables 3 to 9"):
        paper_tables([whole()], [10])


def test_rows_of_several_runs_become_results_of_each():
    frames = []
    for name, value in (("a", 1.0), ("b", 2.0)):
        made = Made()
        line(made, "DEM", "published absolute error", [[value]])
        frames.append(made.frame().assign(generator=pd.Categorical([name], categories=["a", "b"])))
    metas = [{"generator": {"name": "x"}, "places": {"c0": [1.0, 2.0]}}, {"generator": {"name": "x"}}]
    found = results_of(Rows(pd.concat(frames), {"runs": metas}))
    assert [one.name for one in found] == ["a", "b"] and found[0].places.tolist() == [[1.0, 2.0]]
    assert [row[3].value for row in [paper_tables([one], [6])[0].rows[0] for one in found]] == [1.0, 2.0]


# Distributions


def ensembles(narrow=1.0, members=9, cells=40, seed=0):
    """Rows of ensembles with standard deviation `narrow` of truths that have 1, ranks of pixels and of tiles."""
    rng = np.random.default_rng(seed)
    made = Made()
    for c in range(cells):
        drawn, truth = narrow * rng.normal(size=(members, 200)), rng.normal(size=200)
        spread, skill = (one.mean() for one in scores.spread_and_error(drawn, truth))
        shares = scores.rank_counts(scores.ranks(drawn, truth, rng), members) / 200
        tile = scores.rank_counts(scores.ranks(drawn[:, :1], truth[:1], rng), members)
        for statistic, value in {"crps": scores.crps(drawn, truth).mean(), "spread": spread, "skill": skill,
                                 **{f"rank:{k}:{members}": one for k, one in enumerate(shares)},
                                 **{f"tile rank:{k}:{members}": one for k, one in enumerate(tile)}}.items():
            made.add(f"c{c}", statistic, value, 200, band="DEM", given="LULC", protocol="given")
        made.add(f"c{c}", "absolute error", 1, 200, seed=0, band="DEM", given="LULC", protocol="given")
    return made.results(f"x{narrow}", places=places_of([f"c{c}" for c in range(cells)], apart=3.0))


def measured(table, name, generator=0):
    row = next(row for row in table.rows if row[3] == name)
    return row[4 + 2 * generator : 6 + 2 * generator]


def test_calibration_tells_narrow_and_wide_from_perfect_ones():
    table = distribution_tables([ensembles(), ensembles(0.4), ensembles(2.5)], ["calibration"], draws=200)[0]
    held = [measured(table, "80% range holds, pixels", k) for k in range(3)]
    assert all(perfect.value == pytest.approx(0.8) for _, perfect in held)
    assert held[0][0].low < 0.8 < held[0][0].high
    assert held[1][0].high < 0.6 and held[2][0].low > 0.95
    ratio = [measured(table, "spread / skill of pixels", k) for k in range(3)]
    assert all(perfect.value == 1 for _, perfect in ratio) and ratio[0][0].low < 1 < ratio[0][0].high
    assert ratio[1][0].high < 0.6 and ratio[2][0].low > 1.5
    for what in ("pixels", "tiles"):
        bent = [measured(table, f"ranks of {what}: dispersion (above 0 too narrow, below too wide)", k)[0] for k in range(3)]
        assert bent[0].low < 0 < bent[0].high and bent[1].low > 0 > bent[2].high
        assert abs(measured(table, f"ranks of {what}: bias (above 0 too low, below too high)")[0].value) < 0.3


def test_calibration_of_rows_is_that_of_the_arrays():
    results = ensembles(0.7, cells=5)
    group = tuple(results.asked)
    table = distribution_tables([results], ["calibration"], draws=50)[0]
    for name, statistic in (("CRPS of pixels ↓", "crps"),):
        assert measured(table, name)[0].value == pytest.approx(results.values(group, "DEM", statistic).value.mean())
    spread, skill = (results.values(group, "DEM", one).value.mean() for one in ("spread", "skill"))
    assert measured(table, "spread / skill of pixels")[0].value == pytest.approx(np.sqrt(spread / skill))
    counts = np.stack([one.total.sum((1, 2)) for one in results.family(group, "DEM", "rank").values()], -1).sum(0)
    assert measured(table, "50% range holds, pixels")[0].value == pytest.approx(scores.coverage(counts, 0.5)[0])
    tiles = np.stack([one.value.sum((1, 2)) for one in results.family(group, "DEM", "tile rank").values()], -1).sum(0)
    test = scores.rank_test(tiles)
    chi = measured(table, "ranks of tiles: chi-square / degrees of freedom")[0]
    assert chi.value == pytest.approx(test.chi_square / 9)
    assert measured(table, "ranks of tiles: p of flat ones")[0].value == pytest.approx(test.p)


def test_reliability_of_rows_is_that_of_the_arrays():
    rng = np.random.default_rng(5)
    made, cases, hits = Made(), np.zeros((3, 7)), np.zeros((3, 7))
    for c in range(4):
        truth, drawn = rng.choice([1, 2], 300), rng.choice([1, 2], (6, 300), p=[0.3, 0.7])
        n, true = scores.reliability_counts(drawn, truth, [1, 2, 5])
        cases, hits = cases + n, hits + true
        for i, k in np.argwhere(n):
            made.add(f"c{c}", f"reliability:{[1, 2, 5][i]}:{k}:6", true[i, k] / n[i, k], n[i, k], modality="LULC")
    table = distribution_tables([made.results(places=places_of(CELLS))], ["calibration"], draws=50)[0]
    found, perfect = measured(table, "expected calibration error (ECE) ↓")
    assert found.value == pytest.approx(scores.calibration_error(cases, hits))
    assert perfect.value == pytest.approx(scores.calibration_error(*scores.perfect_reliability(cases))) and perfect.value < found.value
    reliable, resolved, uncertain = scores.brier_parts(cases, hits)
    assert measured(table, "Brier score ↓")[0].value == pytest.approx(reliable - resolved + uncertain)


def test_sets_and_consistency_stand_beside_what_the_truth_has():
    made = Made()
    for cell, value in (("c0", 0.2), ("c1", 0.4)):
        for statistic, number in (("intra distance", value), ("truth intra distance", 1.0), ("nn accuracy", 0.9),
                                  ("lpips intra distance", 3.0), ("lpips truth intra distance", 5.0)):
            made.add(cell, statistic, number, modality="S2L2A")
        made.add(cell, "consistency NDVI of trees, ratio", value, 100, seed=0, modality="")
        made.add(cell, "truth consistency NDVI of trees, ratio", 0.8, 300, modality="")
    sets, consistency = distribution_tables([made.results(places=places_of(CELLS))], ["sets", "consistency"])
    assert [one.value for one in measured(sets, "intra distance")] == pytest.approx([0.3, 1.0])
    assert [one.value for one in measured(sets, "lpips intra distance")] == pytest.approx([3.0, 5.0])
    assert [one.value for one in measured(sets, "nn accuracy")] == pytest.approx([0.9, 0.5])
    assert [one.value for one in measured(consistency, "NDVI of trees, ratio")] == pytest.approx([0.3, 0.8])


def test_texture_is_compared_cell_by_cell():
    made = Made()
    for cell, truth in (("c0", -3.0), ("c1", -1.0), ("c2", -2.0)):
        made.add(cell, "truth slope", truth, band="DEM")
        for seed, off in enumerate((0.4, 0.6)):
            made.add(cell, "slope", truth + off, seed=seed, band="DEM")
    table = distribution_tables([made.results(places=places_of(CELLS))], ["calibration"], draws=50)[0]
    slope, true = measured(table, "spectral slope")
    off, none = measured(table, "spectral slope, samples less truth")
    assert (slope.value, true.value, off.value, none.value) == pytest.approx((-1.5, -2.0, 0.5, 0.0))
    assert off.high - off.low < 1e-9 < slope.high - slope.low


def test_influence_is_in_units_of_the_spread():
    made = Made()
    for cell in ("c0", "c1"):
        for band, moved in (("B02", 4.0), ("B03", 12.0)):
            for statistic, value in (("moved", moved), ("spread", 2.0), ("true moved", 2 * moved)):
                made.add(cell, statistic, value, 50, modality="S2L2A", band=band, protocol="swap date", given="DEM+LULC+date")
    table = distribution_tables([made.results()], ["influence"])[0]
    assert [one.value for one in measured(table, "moved / spread")] == pytest.approx([2.0, np.sqrt(8)])


def test_best_of_n_falls_with_n_and_is_the_mean_over_subsets():
    made = Made()
    line(made, "place", "kilometres", [[4, 1, 3, 2], [8, 6, 7, 9]])
    table = best_table([made.results()])
    rows = [row for row in table.rows if row[3].startswith("Mean km")]
    assert [row[4] for row in rows] == [1, 2, 4]
    assert [row[5].value for row in rows] == pytest.approx([5.0, np.mean([10 / 6, 6 + 4 / 6]), 3.5])


def test_generators_stand_side_by_side_where_one_knows_no_dates():
    both = []
    for name, given in (("ours", given_all_but("DEM")), ("other", given_all_but("DEM", "date", "cloud_mask"))):
        made = Made()
        line(made, "DEM", "published absolute error", [[1, 2]], given=given)
        both.append(made.results(name))
    found = conditions(both)
    assert len(found) == 1 and all(found[0].groups)
    table = paper_tables(both, [6])[0]
    assert len(table.rows) == 1 and all(isinstance(one, Number) for one in table.rows[0][3:])
    assert [row[1] for row in table.counts.rows] == ["DEM (Full Context)", "DEM (Full Context; not given: Date, Cloud mask)"]


# Formats


TABLE = Table("t", "A 50 % title & more", (Column("Target"), Column("Best", "x_1"), Column("Std", "x_1")),
              (("DEM | m", Number(301.79, 295.2, 307.9, best=True), None), ("LULC", Number(0.0412, std=0.0031), Number(float("nan")))),
              ("A note: 5 < 6",), Table("t-counts", "Counts", (Column("tiles"),), ((12,),)))


def test_numbers_have_as_many_digits_as_make_sense():
    assert str(Number(301.79, 295.2, 307.9, 9.48)) == "302 ± 9 [295, 308]"
    assert str(Number(0.0412, std=0.0031)) == "0.0412 ± 0.0031"
    assert str(Number(16.83)) == "16.8" and str(Number(1.5e-7)) == "1.50e-07" and str(Number(0.0)) == "0.00"
    assert str(Number(float("nan"))) == "–" and str(Number(-1e-17, -2e-17, 1e-16)) == "0.00 [0.00, 0.00]"
    assert str(Number(26.8, printed=2)) == "26.80" and str(Number(-0.001, -0.5, 0.5)) == "-0.001 [-0.500, 0.500]"


def test_markdown_has_titles_notes_counts_and_bold():
    text = markdown(TABLE)
    assert text.startswith("## A 50 % title & more\n\n| Target | x_1: Best | x_1: Std |\n| --- | --: | --: |\n")
    assert "| DEM \\| m | **302 [295, 308]** |  |" in text and "- A note: 5 < 6" in text and "### Counts" in text
    lines = [one for one in text.splitlines() if one.startswith("|")]
    assert len({one.replace("\\|", "").count("|") for one in lines[:4]}) == 1


def test_csv_keeps_every_digit():
    found = pd.read_csv(io.StringIO(comma_separated(TABLE)), comment="#")
    assert list(found.columns) == ["Target", "x_1: Best", "x_1: Best low", "x_1: Best high", "x_1: Best std", "x_1: Std"]
    assert found["x_1: Best"].tolist() == [301.79, 0.0412] and found["x_1: Best std"][1] == 0.0031
    assert next(csv.reader(io.StringIO(comma_separated(TABLE.counts)))) == ["tiles"]


def test_latex_is_escaped_and_has_a_cell_a_column():
    text = latex(TABLE)
    assert r"\caption{A 50 \% title \& more}" in text and r"\multicolumn{2}{c}{x\_1}" in text and r"\cmidrule(lr){2-3}" in text
    assert r"\textbf{302 [295, 308]}" in text and r"0.0412 $\pm$ 0.0031" in text and r"5 $<$ 6" in text
    body = [one for one in text.splitlines() if one.endswith(r"\\") and "multicolumn" not in one]
    assert {one.replace(r"\&", "").count("&") for one in body[:3]} == {2}
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


def test_the_terminal_shows_every_cell():
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal(TABLE))
    text = console.export_text()
    assert all(word in text for word in ("302 [295, 308]", "0.0412 ± 0.0031", "A note", "tiles 12"))


def test_tables_are_written_whole(tmp_path):
    made = save([TABLE], tmp_path)
    assert sorted(path.name for path in made) == ["t-counts.csv", "t.csv", "t.md", "t.tex"]
    with pytest.raises(ValueError, match="format 'pdf': there are md, csv, tex"):
        save([TABLE], tmp_path, ["pdf"])


def test_a_row_needs_a_cell_a_column():
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Table("t", "", (Column("a"), Column("b")), (("x",),))
