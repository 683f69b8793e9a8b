"""The report: one page that opens anywhere, says what was measured, and tells a collapsed generator from a perfect one at a glance."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")
from made_rows import Made, places_of

from copgen.evaluation.arrays import Asked, Results
from copgen.evaluation.formats import Column, Number, Table
from copgen.evaluation.recipe import Condition
from copgen.evaluation.rows import PLAN, ROWS, Part, write_part, write_rows
from copgen.report import all_tables, report
from copgen.report.definitions import DEFINITIONS, definition
from copgen.report.groups import conditions_of
from copgen.report.html import VOID, Markup, cell, escaped, page, picture, table, tag
from copgen.report.verdict import Judged, from_distances, others, verdict
from copgen.scores import crps, reliability_counts
from copgen.scores.calibration import ranks

HOSTILE = '<script>alert("1")</script>&nano'
CELLS = [f"cell-{k:02d}" for k in range(24)]
MEMBERS = 8


def drawn(kind: str, seed: int = 0) -> list[tuple[str, tuple]]:
    """Rows of a generator by cell: `perfect` draws as the truth is drawn, `collapsed` always the mean."""
    rng = np.random.default_rng(seed + (kind == "collapsed"))
    truth_rng = np.random.default_rng(99)
    found = []
    for name in CELLS:
        centre = truth_rng.normal(1000, 400)
        truths = centre + 50 * truth_rng.normal(size=(MEMBERS, 1)) + 50 * truth_rng.normal(size=(MEMBERS, 64))
        samples = centre + 50 * rng.normal(size=(MEMBERS, 1)) + 50 * rng.normal(size=(MEMBERS, 64))
        samples = samples if kind == "perfect" else np.full_like(samples, centre)
        truth, tile = truths[0], samples.mean(1)

        def say(statistic: str, value: float, weight: float = 64, seed: int | None = None, band: str = "DEM", name: str = name) -> None:
            found.append((name, (seed, "DEM", band, statistic, float(value), float(weight))))

        for k, count in enumerate(np.bincount(ranks(samples, truth, rng), minlength=MEMBERS + 1)):
            say(f"rank:{k}:{MEMBERS}", count / 64)
        say("crps", crps(samples, truth).mean())
        say("tile crps", crps(tile, truth.mean()), 1)
        say("truth mean", truth.mean())
        say("spread", samples.var(0, ddof=1).mean() * (MEMBERS + 1) / MEMBERS)
        say("skill", ((samples.mean(0) - truth) ** 2).mean())
        say("intra distance", np.abs(tile[:, None] - tile).sum() / MEMBERS / (MEMBERS - 1), 1, band="")
        say("truth intra distance", np.abs(truths.mean(1)[:, None] - truths.mean(1)).sum() / MEMBERS / (MEMBERS - 1), 1, band="")
        for k in range(MEMBERS):
            say("absolute error", np.abs(samples[k] - truth).mean(), seed=k)
    return found


def evaluation(folder: Path, kind: str, name: str) -> Path:
    """The folder of an evaluation with such rows."""
    condition, rows, places = Condition("given", ("lulc",), ("dem",), MEMBERS), drawn(kind), places_of(CELLS)
    plan = {"generator": {"name": name, "source": "made", "sha256": {"a.safetensors": "0f" * 32}}, "cases": {"source": "made"},
            "recipe": {"samples": MEMBERS, "truths": 8, "protocols": []}, "features": [], "names": CELLS, "expected": len(CELLS)}
    folder.mkdir()
    (folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")
    parts = [Part(folder, 0, one) for one in CELLS]
    for part in parts:
        write_part(part, condition, [row for name, row in rows if name == part.cell], places[part.cell])
    write_rows(folder / ROWS, parts, {**plan, "failed": 1})
    (folder / "failed.jsonl").write_text(json.dumps({"cell": "cell-99", "condition": 0, "why": "<b>torn</b>"}) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two evaluations, and the page of both."""
    folder = tmp_path_factory.mktemp("report")
    runs = evaluation(folder / "perfect", "perfect", "perfect"), evaluation(folder / "collapsed", "collapsed", HOSTILE)
    return *runs, report(runs, folder / "out", title="A <i>title</i>", commands=["copgen evaluate run --set 'a<b'"])


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps what matters."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.said: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(name)
        found = dict(attributes)
        self.links += [str(found[key]) for key in ("src", "href", "action", "data", "srcset", "poster") if key in found]
        self.ids += [str(found["id"])] if "id" in found else []
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @classmethod
    def of(cls, content: str) -> Reader:
        reader = cls()
        reader.feed(content)
        reader.close()
        assert not reader.open
        return reader


# --- the page -----------------------------------------------------------------------------------------------------------------------

def test_the_page_is_whole_and_asks_nobody_for_anything(written):
    text = written[2].read_text(encoding="utf-8")
    reader = Reader.of(text)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids) and len(set(reader.ids)) == len(reader.ids)
    assert not reader.names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    style = text[text.index("<style>"):text.index("</style>")]
    assert not re.search(r"@import|url\(|http", style) and "default-src &#x27;none&#x27;" in text


def test_the_page_has_all_its_parts(written):
    reader = Reader.of(written[2].read_text(encoding="utf-8"))
    assert {"verdict", "making", "tables", "figures", "definitions", "figure-1"} <= set(reader.ids)
    said = "\n".join(reader.said)
    assert "Ranks of the truth, pixels: given LULC" in said and "Spread against skill: given LULC" in said
    assert "Conditions" in said and "copgen evaluate run --set 'a<b'" in said and "0f0f0f0f0f0f…" in said
    assert "cell-99, condition 0: <b>torn</b>" in said
    assert "Influence of what is given: no row says how far samples moved" in said         # what is not there, with the reason


def test_names_from_elsewhere_are_text(written):
    text = written[2].read_text(encoding="utf-8")
    assert "<script" not in text and "<i>title" not in text and "<b>torn" not in text
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;nano" in text
    assert HOSTILE in "".join(Reader.of(text).said)


def test_the_same_evaluations_give_the_same_bytes(written, tmp_path):
    perfect, collapsed, first = written
    assert report((perfect, collapsed), tmp_path / "again", title="A <i>title</i>",
                  commands=["copgen evaluate run --set 'a<b'"]).read_bytes() == first.read_bytes()


def test_what_is_no_evaluation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one evaluation"):
        report([], tmp_path)
    with pytest.raises(ValueError, match=r"nothing"):
        report([tmp_path / "nothing"], tmp_path)


# --- the verdict --------------------------------------------------------------------------------------------------------------------

def test_a_collapsed_generator_is_told_from_a_perfect_one_at_a_glance(written):
    runs = [Results(made_of(kind).frame(), kind, {"places": places_of(CELLS)}) for kind in ("perfect", "collapsed")]
    group = (Asked("given", "LULC"),)
    found = verdict(runs, group)
    signs = {name: [judged.sign for judged in properties.values()] for name, properties in found.items()}
    assert signs == {"perfect": ["good", "good", "good", "unknown"], "collapsed": ["good", "poor", "poor", "unknown"]}
    assert found["collapsed"]["Diversity"].value == 0 and found["perfect"]["Diversity"].value == pytest.approx(1, abs=0.15)
    assert found["perfect"]["Accuracy"].value > found["collapsed"]["Accuracy"].value
    squares = re.findall(r'<td class="(good|fair|poor|unknown)">', written[2].read_text(encoding="utf-8"))
    assert squares == signs["perfect"] + signs["collapsed"]


def made_of(kind: str) -> Made:
    made = Made()
    for name, (seed, modality, band, statistic, value, weight) in drawn(kind):
        made.add(name, statistic, value, weight, seed=seed, modality=modality, band=band, protocol="given", given="LULC")
    return made


def test_the_guess_is_the_score_of_all_other_tiles():
    values = np.random.default_rng(0).normal(size=7)
    assert others(values) == pytest.approx([float(crps(np.delete(values, k), values[k])) for k in range(7)])
    known = np.append(values, np.nan)
    assert others(known)[:7] == pytest.approx(others(values)) and np.isnan(others(known)[7])
    assert np.isnan(from_distances(np.zeros((2, 2)))).all()          # of two, neither has others


def test_classes_are_judged_by_brier_scores_and_misplaced_probability():
    made = Made()
    for k, name in enumerate(CELLS[:10]):
        share = 0.2 + 0.06 * k
        where = {"modality": "LULC", "protocol": "given", "given": "DEM"}
        for truth, size in ((1, share), (2, 1 - share)):             # always right, and always sure
            made.add(name, f"hits:{truth}:{truth}", size, 100, seed=0, **where)
            made.add(name, f"reliability:{truth}:2:2", 1.0, 100 * size, **where)
            made.add(name, f"reliability:{truth}:0:2", 0.0, 100 * (1 - size), **where)
        made.add(name, "fair brier", 0.0, 100, **where)
    found = verdict([made.results(places=places_of(CELLS))], (Asked("given", "DEM"),))["nano"]
    assert found["Accuracy"].value == pytest.approx(1) and found["Accuracy"].sign == "good"
    assert found["Calibration"].value == pytest.approx(0) and found["Calibration"].parts == {"LULC": pytest.approx(0)}


def misplaced(odds: list[float], said: list[float], members: int) -> Judged:
    """The calibration of a generator of classes that says them by `said`, where the truth is drawn by `odds`."""
    rng, made, codes = np.random.default_rng(1), Made(), list(range(len(odds)))
    for name in CELLS:
        truth, samples = rng.choice(codes, 400, p=odds), rng.choice(codes, (members, 400), p=said)
        cases, hits = reliability_counts(samples, truth, codes)
        for code, k in np.argwhere(cases):
            made.add(name, f"reliability:{code}:{k}:{members}", hits[code, k] / cases[code, k], cases[code, k], modality="LULC",
                     protocol="given", given="DEM")
        made.add(name, "hits:0:0", 1.0, 400, seed=0, modality="LULC", protocol="given", given="DEM")
    return verdict([made.results(places=places_of(CELLS))], (Asked("given", "DEM"),))["nano"]["Calibration"]


@pytest.mark.parametrize("members", [4, 16])
def test_classes_that_are_drawn_as_the_truth_is_are_calibrated_however_few_the_samples(members):
    found = misplaced([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], members)
    assert found.value < 0.03 and found.sign == "good"


def test_two_classes_that_are_wrong_in_opposite_ways_are_both_wrong():
    found = misplaced([0.9, 0.1], [0.5, 0.5], 8)
    assert found.value == pytest.approx(0.4, abs=0.02) and found.sign == "poor"


def test_of_one_sample_no_calibration_is_known():
    assert misplaced([0.9, 0.1], [0.5, 0.5], 1).sign == "unknown"
    made = Made()
    for name in CELLS:
        for k in range(2):
            made.add(name, f"rank:{k}:1", 0.5, 10, protocol="given", given="LULC")
    assert verdict([made.results(places=places_of(CELLS))], (Asked("given", "LULC"),))["nano"]["Calibration"].sign == "unknown"


@pytest.mark.parametrize(("spreads", "sign"), [((0.9, 1.1), "good"), ((0.0, 2.0), "fair"), ((0.4, 0.4), "poor")])
def test_a_layer_too_wild_does_not_make_up_for_one_too_alike(spreads, sign):
    made = Made()
    for name in CELLS:
        for modality, spread in zip(("S1RTC", "S2L2A"), spreads, strict=True):
            made.add(name, "intra distance", spread, modality=modality, protocol="given", given="LULC")
            made.add(name, "truth intra distance", 1.0, modality=modality, protocol="given", given="LULC")
    found = verdict([made.results(places=places_of(CELLS))], (Asked("given", "LULC"),))["nano"]["Diversity"]
    assert found.value == pytest.approx(np.mean(spreads)) and found.sign == sign


def test_generators_that_were_asked_for_other_things_have_tables_without_a_comparison():
    runs = []
    for name, given in (("a", "LULC"), ("b", "S1RTC")):
        made = Made()
        for tile in CELLS:
            made.add(tile, "published absolute error", 1.0, 10, seed=0, band="DEM", protocol="given", given=given)
        runs.append(made.results(name, places=places_of(CELLS)))
    names = [one.name for one in all_tables(runs)]
    assert "best-of-n" in names and not any(name.startswith("compare") for name in names)


def test_a_shift_of_physics_is_in_deviations_of_the_truth():
    made = Made()
    for k, name in enumerate(CELLS):
        where = {"modality": "LULC", "protocol": "given", "given": "DEM"}
        made.add(name, "hits:1:1", 1.0, 10, seed=0, **where)
        made.add(name, "truth consistency VV of water below land, dB", 8 + (-1) ** k, 10, **where)
        made.add(name, "consistency VV of water below land, dB", 7 + (-1) ** k, 10, seed=0, **where)
    found = verdict([made.results(places=places_of(CELLS))], (Asked("given", "DEM"),))["nano"]["Consistency"]
    assert found.value == pytest.approx(1) and found.sign == "poor"


# --- conditions and definitions -----------------------------------------------------------------------------------------------------

def test_targets_of_one_protocol_are_looked_at_together_and_others_alone():
    made = Made()
    for modality in ("DEM", "S1RTC"):
        for statistic, seed in ((f"rank:0:{MEMBERS}", None), ("absolute error", 0)):
            made.add("a", statistic, 1.0, modality=modality, seed=seed)
            made.add("a", statistic, 1.0, modality=modality, seed=seed, protocol="given", given="LULC")
            made.add("a", statistic, 1.0, modality=modality, seed=seed, protocol="ladder", given="LULC+date")
            made.add("a", statistic, 1.0, modality=modality, seed=seed, protocol="ladder", given="LULC+place")
    made.add("a", "moved", 1.0, protocol="swap date", given="LULC+date")
    found = conditions_of([made.results()])
    assert found[0].title == "given LULC" and sorted(one.title for one in found[1:]) == [
        "all-minus-target, each target given the rest", "ladder, given LULC, date", "ladder, given LULC, place"]
    together = next(one for one in found if one.title.startswith("all-minus-target"))
    assert len(together.group) == 2 and set(together.modalities) == {"DEM", "S1RTC"}


STATISTICS = (
    "error", "absolute error", "squared error", "published absolute error", "published squared error", "published scaled squared error",
    "published ssim", "ssim", "psnr", "mean", "slope", "truth mean", "truth slope", "hits:1:2", "kilometres", "days", "months",
    "same month", "same year", "days of year", "crps", "variance", "spread", "skill", "error of mean", "rank:3:16", "tile crps",
    "tile spread", "tile skill", "tile rank:0:16", "energy score", "variogram score", "reliability:1:3:16", "brier", "fair brier",
    "entropy", "spread km", "spread days", "nn accuracy", "truth nn accuracy",
    "precision", "recall", "intra distance", "truth intra distance", "mmd",
    "wasserstein", "range coverage", "pixel wasserstein", "resnet50 precision", "lpips intra distance",
    "consistency NDVI of trees, ratio", "truth consistency NDVI of trees, ratio", "moved", "true moved", "nearest training",
    "nearest held-out", "nearer training", "samples")


def test_every_statistic_has_one_definition():
    assert [name for name in STATISTICS if sum(one.means(name) for one in DEFINITIONS) != 1] == []
    assert definition("no such thing") is None


# --- HTML ---------------------------------------------------------------------------------------------------------------------------

def test_text_is_escaped_where_it_enters_and_only_once():
    assert tag("p", "a < b", tag("b", "c & d"), title='"x"') == '<p title="&quot;x&quot;">a &lt; b<b>c &amp; d</b></p>'
    assert escaped(escaped("<")) == "&lt;" and tag("br") == "<br>" and isinstance(tag("p"), Markup)
    Reader.of(page("<title>", [tag("p", "</p><script>")]).decode())


def test_a_table_shows_numbers_with_their_ranges():
    rows = (("x", Number(1.234, 1.1, 1.4, best=True)), ("y", None))
    one = Table("t", "A | title", (Column("<what>"), Column("n", "nano")), rows, ("a & b",))
    text = table(one)
    assert "&lt;what&gt;" in text and "a &amp; b" in text
    assert '<tr class="groups"><th colspan="1"></th><th colspan="1">nano</th></tr>' in text
    assert cell(one.rows[0][1]) == '<b>1.23</b><span class="range"> [1.10, 1.40]</span>'
    assert cell(Number(float("nan"))) == "–" and cell(None) == "" and cell(1234) == "1,234"
    Reader.of(text)


def test_a_picture_is_within_the_page():
    assert picture(b"\x89PNG", "a 'b'", 10) == '<img src="data:image/png;base64,iVBORw==" alt="a &#x27;b&#x27;" width="10">'
