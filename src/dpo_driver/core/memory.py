"""What the C library does with memory that was freed. Called when a run or a training opens; standard library only."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back to the system at once.

    Training and generation on a CPU free and ask for the same megabytes thousands of times a minute; glibc returns each
    large block to the system, and every page of it then costs a fault again: 15 to 40 % of the time, measured. False
    where the C library has no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, _MOST) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
