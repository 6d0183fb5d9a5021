"""How the C library keeps memory that was freed; only for a process that is ours."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_TRIM_THRESHOLD: Final = -1  # names and numbers as in glibc's malloc.h
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_KEPT: Final = 8 * 1024 * 1024
"""Bytes."""
_ARENAS: Final = 1
"""By default each thread that reads or writes files gets its own, and what it has freed is of no use to the others."""
_LARGEST_FROM_HEAP: Final = 1024 * 1024
"""Bytes: four of the pieces that bodies are read and written in."""
_OPERATORS_OWN: Final = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_ARENA_MAX",
    "GLIBC_TUNABLES",
)


def keep_freed_memory() -> bool:
    """Keeps up to 8 MiB of freed memory for what is allocated next, by whichever thread.

    Bodies pass in pieces of 256 KiB. By default glibc gives the memory of each back to the kernel, and takes it anew
    for the next one; then clearing pages costs as much as all copying together. Does nothing where the operator has
    chosen, and where the C library is another one.

    Returns:
        Whether it was done.
    """
    if any(name in os.environ for name in _OPERATORS_OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows
        return False
    chosen = ((_MMAP_THRESHOLD, _LARGEST_FROM_HEAP), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, _ARENAS))
    return all(mallopt(*each) for each in chosen)
