"""A source, opened to be read: a file of this machine, or an object that was fetched out of its bucket.

In: a Source. Out: its bytes, and the Stat that they have. Raises UnreadableSource where it cannot be opened.
Not here: what is in it (formats.py, containers/), the requests (sources/buckets/).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from embedcli.errors import UnreadableSource
from embedcli.records import Beat, Source, Stat, if_trusted, reason_of, stat_of
from embedcli.sources.buckets.fetched import fetched

_DIGEST_BYTES = 16 << 20


@dataclass(frozen=True)
class SourceFile:
    """`stat` is from before the reading; `trusted` the one to store, with a ctime of 0 where the file was too young."""

    file: BinaryIO
    stat: Stat
    trusted: Stat
    is_object: bool

    def has_changed(self) -> bool:
        """Whether the file is another one now. An object was fetched whole, in one version."""
        return not self.is_object and stat_of(os.fstat(self.file.fileno())) != self.stat


@contextmanager
def opened(source: Source, *, folder: Path, beat: Beat) -> Iterator[SourceFile]:
    """`folder`: where a large object lies meanwhile."""
    try:
        if source.is_object:
            file, stat = fetched(source.file, source.stat, folder=folder, beat=beat)
            trusted = stat
        else:
            file = open(source.file, "rb")  # noqa: SIM115
            stat = stat_of(os.fstat(file.fileno()))
            trusted = if_trusted(stat, time.time_ns())
    except OSError as error:
        raise UnreadableSource(reason_of(error), str(error)) from error
    with file:
        yield SourceFile(file, stat, trusted, source.is_object)


def sha256_of(file: BinaryIO, size_bytes: int, beat: Beat) -> str:
    """The digest of the first `size_bytes`, its size when the reading began: a file may grow as fast as it is read."""
    state = hashlib.sha256()
    while block := file.read(min(_DIGEST_BYTES, size_bytes)):
        state.update(block)
        size_bytes -= len(block)
        beat(0)
    file.seek(0)
    return state.hexdigest()
