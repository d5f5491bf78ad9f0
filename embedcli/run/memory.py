"""Memory of a long run: what is freed goes back to the system.

In: nothing. Out: glibc's malloc, configured once for this process, and Arrow with it; what it holds free, given back.
Not here: the readers' limits (reading/process.py).
"""

from __future__ import annotations

import contextlib
import ctypes

import pyarrow as pa

from embedcli.index.tables import mapped

MMAP_THRESHOLD_BYTES = 128 << 10
_M_MMAP_THRESHOLD = -3


def map_large_buffers() -> None:
    """Buffers of 128 KiB and more get pages of their own for good, which go when they are freed.

    By itself glibc raises that size to that of the largest buffer freed so far, up to 32 MiB: documents and vectors
    then lie among small objects, and the heap grows with the fragments (20 MB for each 100 MB of text). Elsewhere than
    on glibc nothing is done. Arrow's own allocator keeps what is freed too, in each of its threads.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def give_back() -> None:
    """Give back the free pages between small objects that are still in use, which are 30 MB after a publish, and those
    that were read of mapped files. Elsewhere than on glibc only the latter."""
    mapped.give_back()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
