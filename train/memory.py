"""Memory that one training step frees, kept for the next one."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_MOST = (1 << 31) - 1  # an int
_USUAL = 32 << 20  # where glibc's own threshold for large blocks ends up; it trims at twice that


@contextmanager
def kept_memory() -> Iterator[None]:
    """Have this process keep the memory that it frees, until the end of the block.

    By default glibc gives large blocks back to the system. The next step asks for them again, and
    the system clears each page anew. Kept memory does not raise the peak, because each step needs
    the same. Only glibc can be asked for this; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _MOST)
    libc.mallopt(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        libc.malloc_trim(0)
