"""A training that is killed at any moment, also while it writes, goes on as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kill_storm
import pytest
import torch
from conftest import assert_same, assert_same_run


@pytest.mark.parametrize("steps, kills", [(25, 3), pytest.param(200, 40, marks=pytest.mark.long)])
def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path, steps: int, kills: int) -> None:
    command = [sys.executable, str(Path(kill_storm.__file__)), str(tmp_path), str(steps), str(kills), "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
    counts = json.loads(done.stdout.splitlines()[-1])
    print(f"kill -9: {counts['kills']} kills, {counts['during a write']} of them during a write; bit-identical at the end")
    assert counts["kills"] >= 0.75 * kills and (kills < 10 or counts["during a write"] > 0)
    finals = [torch.load(tmp_path / name / "final.pt", weights_only=True) for name in ("peace", "storm")]
    assert_same(finals[0], finals[1])
    assert_same_run(tmp_path / "peace", tmp_path / "storm")
