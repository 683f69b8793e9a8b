"""A training that is killed at any moment goes on as if nothing had happened."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.long

RUN = """
import sys
from pathlib import Path
import torch
from copgen.training.loop import Optimisation, train

torch.set_num_threads(1)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 16))
data = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))

def loss(net, numbers, generator):
    x = data[numbers]
    error = (net(x + torch.randn(x.shape, generator=generator)) - x).square().mean()
    return error, {"error": error}

how = Optimisation(steps=600, batch=8, learning_rate=1e-3, decay_power=1.0, warm_up=10, clip=1.0, ema=0.99)
folder = Path(sys.argv[1])
average = train(network, loss, len(data), how, folder, resume=True, save_every=1, log_every=7)
torch.save({"network": network.state_dict(), "average": average}, folder / "final.pt")
"""
KILLS = 6


def run(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder)])


def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole).wait() == 0
    moments = random.Random(3)
    kills = 0
    while not (killed / "final.pt").exists():
        process = run(killed)
        if kills < KILLS:                        # a checkpoint is written at every step, so some kills fall into a write
            while not (killed / "checkpoint.pt").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(1.5, 4.0) if kills else moments.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            assert process.wait() == 0
    assert kills >= 2                            # how many fall before the end depends on the machine's speed
    one, other = (torch.load(folder / "final.pt", weights_only=True) for folder in (whole, killed))
    for part in ("network", "average"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    assert (whole / "metrics.csv").read_text() == (killed / "metrics.csv").read_text()
