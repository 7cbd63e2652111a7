"""How this process holds the memory that its arrays lie in."""

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h
_KEPT_BYTES = 1 << 30


@functools.cache
def keep_freed() -> None:
    """From now on freed memory waits for the next array and does not go back to the system.

    For work that allocates the same large arrays again and again: fresh pages cost it a fifth of
    its time. On Linux's usual C library; elsewhere nothing changes.
    """
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):
            allocator.mallopt(_MMAP_MAX, 0)
            allocator.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
