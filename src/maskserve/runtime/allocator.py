"""How the C library deals with large blocks of memory.

Where another one than glibc is used, nothing is changed.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_large_blocks", "return_large_blocks"]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_LARGE_BYTES = 2**20


def return_large_blocks() -> bool:
    """Give blocks of 1 MiB and more back to the system as soon as they are freed.

    glibc otherwise keeps up to 200 MB for each thread that has ever decoded a photo of 50 million
    pixels, in case that it needs them again.

    Returns:
        Whether it is so now.
    """
    return _set(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def keep_large_blocks() -> bool:
    """Keep what is freed for the next block, until the process ends.

    glibc otherwise gives large blocks back at once, and the system has to clear each page of the
    next one anew. A training step asks for gigabytes, a tensor at a time; on a virtual machine,
    steps of a light model on one core took 0.8 of the time when memory was kept.

    Returns:
        Whether it is so now.
    """
    return _set(_M_MMAP_MAX, 0) and _set(_M_TRIM_THRESHOLD, -1)


def _set(parameter: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(parameter, value) == 1
