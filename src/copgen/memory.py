"""What fits into memory? Samples of a batch, codecs that are kept, and what the system can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Need:
    """Bytes that half of a codec takes: as long as it is kept, and beside that while it computes."""

    weights: int
    work: int


@dataclass(frozen=True)
class Plan:
    """How samples are drawn so that they fit: how many in a batch, and whether codecs are kept or read again for every use."""

    at_once: int
    keep: bool


def plan(network: int, each: int, codecs: Sequence[Need], *, most: int, max_memory: int | None, device: torch.device) -> Plan:
    """The largest batch whose peak fits, of `most` samples.

    network: bytes of its weights; each: bytes that one sample takes in a call. max_memory: what weights and work may take together; None
    is half of what is free for the batch, beside the weights. Raises ValueError where one sample doesn't fit.
    """
    work = max((codec.work for codec in codecs), default=0)
    if max_memory is None:
        return Plan(int(min(max((free_memory(device) // 2 - work) // each, 1), most)), keep=True)
    least = network + max([each, *(codec.weights + codec.work for codec in codecs)])
    if max_memory < least:
        raise ValueError(f"max memory {max_memory / 2**20:.0f} MiB: one sample needs about {least / 2**20:.0f} MiB, "
                         f"{network / 2**20:.0f} MiB of them for the backbone's weights")
    at_once = int(min((max_memory - network) // each, most))
    kept = network + sum(codec.weights for codec in codecs) + max(at_once * each, work)
    return Plan(at_once, keep=kept <= max_memory)


def free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(available_memory(), memory_limit())


def available_memory() -> int:
    """What the system could give without swapping; 4 GiB where it doesn't say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30


def memory_limit() -> int:
    """What a container leaves this process, where there is one."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text()) - int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):                # no container, or "max"
        return 2**63
