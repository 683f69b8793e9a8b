"""What must hold of every estimator: the known answers of benchmarks/estimators.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import estimators


@pytest.mark.parametrize("group", estimators.GROUPS)
def test_the_known_answer_is_found(group):
    rows = list(estimators.GROUPS[group]())
    assert rows and not [row for row in rows if not row.holds]


def test_a_missed_answer_is_told(monkeypatch, capsys):
    monkeypatch.setattr(estimators, "GROUPS", {"one": lambda: [estimators.Row("mean", "of 1 and 2", 1.5, 1.6, 0.05)]})
    monkeypatch.setattr(sys, "argv", ["estimators.py"])
    assert estimators.main() == 1
    assert "MISSED" in capsys.readouterr().out
    assert not estimators.Row("a", "b", "none", 0.0, 9).holds and not estimators.Row("a", "b", 1.0, float("nan"), 9).holds
