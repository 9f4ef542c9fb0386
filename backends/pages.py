"""Freed memory stays with the process, for programs that allocate the same big arrays every step.

glibc maps big arrays one by one and gives them back when they are freed; the page faults of the next
ones cost a training step 6 to 10 % of its time.
"""

import contextlib
import ctypes
import sys

__all__ = ["keep_freed_pages"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MOST = 2**30


def keep_freed_pages():
    """Ask the C library not to return memory until the process ends; returns whether it agreed.

    The setting is the whole process's: for a program to choose, not for a library. Where the C
    library is not glibc nothing happens.

    Examples
    --------
    >>> keep_freed_pages() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, _MOST) and mallopt(_TRIM_THRESHOLD, 2 * _MOST - 1))
    return False
