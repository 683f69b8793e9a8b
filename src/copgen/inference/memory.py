"""Memory that is used again and again at every call, kept by the process rather than given back and asked for anew."""

from __future__ import annotations

import ctypes

BELOW = 2**25                                    # the most that glibc takes


def keep_memory(large_too: bool = False) -> bool:
    """Let glibc keep freed memory: else each large tensor costs a page fault every 4 kB, about a fifth of a step's time on a CPU.

    large_too: blocks above 32 MiB as well, which otherwise go back to the system, as weights do that nobody needs any more.
    Returns whether that took effect; elsewhere than on Linux with glibc it does not.
    """
    trim_threshold, mmap_threshold, no_mappings = -1, -3, -4       # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX of glibc's malloc.h
    try:
        libc = ctypes.CDLL(None)
        kept = libc.mallopt(no_mappings, 0) if large_too else libc.mallopt(mmap_threshold, BELOW)
        return bool(kept and libc.mallopt(trim_threshold, 2**31 - 1))
    except (OSError, AttributeError, TypeError):
        return False
