"""Memory: how much to use at once, and keeping what was freed (giving it back costs a CPU more than its arithmetic)."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch

# glibc's names for these settings (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP = 2**31 - 1  # bytes of free memory at the top of the heap before any is given back: 2 GB


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks instead of returning them to the system at every step.

    By default each activation above 32 MB is mapped afresh and its pages are cleared one by one, step after
    step. This is a setting of the whole process, made once; up to 2 GB of freed memory then stay with it.
    Elsewhere (musl, macOS, Windows) nothing is done.

    Returns:
        whether the setting was made.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # a C library without it
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _KEEP) and mallopt(_M_TOP_PAD, 64 << 20))


def values_at_once(device: torch.device) -> int:
    """How many image values one call of a model should take.

    Larger batches fall out of a CPU's cache, or make the allocator return memory; a GPU wants them larger.
    """
    return 1_250_000 if device.type == "cpu" else 64_000_000
