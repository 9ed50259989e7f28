"""How the C library deals with the memory of large photos."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["return_large_blocks"]

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 2**20


def return_large_blocks() -> bool:
    """Give blocks of 1 MiB and more back to the system as soon as they are freed.

    glibc otherwise keeps up to 200 MB for each thread that has ever decoded a photo of 50 million
    pixels, in case that it needs them again. Where another C library is used, nothing is changed.

    Returns:
        Whether it is so now.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1
