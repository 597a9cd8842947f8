"""Freed memory stays with the process for a while, so that the same tensors need not be mapped again at each call.

A forward pass frees and asks for the same megabytes over and over.  glibc gives such blocks back to the system at once
and the system clears each page before it gives it out again, which takes a tenth of a prefill's time.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Blocks up to the largest size that glibc takes from its heap, and so much of freed memory at its end, stay.
LARGEST_BLOCK, LARGEST_REST = 32 * 2**20, 256 * 2**20


def keep_freed_memory() -> None:
    """Have glibc keep up to 256 MiB that were freed; other systems' libraries are left as they are."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, LARGEST_REST)
