"""stdin, which a shell may have closed, and which `nohup` leaves open for writing only.

In: nothing. Out: the stream, or an error before anything is done.
Not here: what is read from it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from typing import BinaryIO

from embedcli.errors import InputError


def readable_stdin() -> BinaryIO:
    """Raises InputError (exit 15)."""
    if sys.stdin is None or sys.stdin.closed:
        raise _unreadable("closed")
    with suppress(OSError):  # a stream that stands in its place may have no descriptor
        if fcntl.fcntl(sys.stdin.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            raise _unreadable("open for writing only")
    return sys.stdin.buffer


def _unreadable(problem: str) -> InputError:
    return InputError(
        f"cannot read stdin: it is {problem}", "give it a pipe, or a file with `< FILE` behind the command"
    )
