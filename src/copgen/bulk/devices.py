"""On what does a worker compute? A GPU of its own where there are any, else one thread of the processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from copgen.engines import Engine
from copgen.model import pick_device


def gpus_for(device: str, engine: Engine) -> float | None:
    """What `copgen.engines.run` is to give each worker; a cluster may have GPUs where this process has none."""
    return 0 if device == "cpu" or (engine == "local" and pick_device(device).type == "cpu") else None


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, one thread: sums that several share come out otherwise with another number of them."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
