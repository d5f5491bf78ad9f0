"""All objects below a folder of a bucket, in the order of a walk.

In: the pages of a bucket. Out: paths with their stats, ascending by `path.split("/")`, which is not the order of the
keys: `a-b` comes before `a/b` there. A million objects take the bytes of their paths and 33 bytes each.
Not here: which of them are sources (walk.py).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.records import Stat, from_printable_path, printable_path
from embedcli.sources.buckets.contract import Page, object_stat
from embedcli.sources.filters import IGNORE_FILES

AT_ONCE = 8192
_IGNORE_FILES = tuple(name.encode() for name in IGNORE_FILES)
_OF_AN_INDEX = re.compile(rb"(?:(.*)/)?generations/[0-9][^/]*/(manifest\.json|documents\.parquet)", re.DOTALL)


class Found(NamedTuple):
    """An object: its path below the folder, as in Source, and its stat."""

    path: str
    stat: Stat
    is_cold: bool


class Listing:
    """What lies below a folder. Paths are kept with NUL for `/`, as which they sort like their components."""

    def __init__(self, pages: Iterable[Page], *, prefix: str) -> None:
        """`prefix`: how the keys begin, up to the folder and its `/`. Raises BucketError."""
        self._paths = bytearray()
        self._ends = array("q", [0])
        self._sizes, self._times, self._tags = array("q"), array("q"), array("Q")
        self._sorted = True
        self._cold = bytearray()
        self.ignore_files: set[str] = set()
        """Paths of the ignore files that there are."""
        self.indexes: set[str] = set()
        """Folders that are an index of this program."""
        parts_of_indexes: dict[str, set[bytes]] = {}
        skip, last = len(prefix.encode()), b""
        for page in pages:
            for key in page.keys:
                path = key[skip:]
                if b"%" in path:
                    path = printable_path(path).encode()
                if path.endswith(_IGNORE_FILES):
                    self.ignore_files.add(_shown(path))
                elif b"generations/" in path and (found := _OF_AN_INDEX.fullmatch(path)):
                    parts_of_indexes.setdefault(_shown(found[1] or b""), set()).add(found[2])
                path = path.replace(b"/", b"\0")
                self._sorted = self._sorted and last <= path
                last = path
                self._paths += path
                self._ends.append(len(self._paths))
            self._sizes.extend(page.sizes)
            self._times.extend(page.modified_s)
            self._tags.extend(page.tags)
            self._cold += bytes(key in page.cold for key in page.keys) if page.cold else bytes(len(page.keys))
        self.indexes = {folder for folder, parts in parts_of_indexes.items() if len(parts) == 2}

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Found]:
        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._paths)]
        paths = pa.Array.from_buffers(pa.large_binary(), len(self), buffers)
        order = None if self._sorted else pc.sort_indices(paths)
        for start in range(0, len(self), AT_ONCE):
            stop = min(start + AT_ONCE, len(self))
            numbers = range(start, stop) if order is None else order.slice(start, AT_ONCE).to_pylist()
            some = paths.slice(start, AT_ONCE) if order is None else paths.take(order.slice(start, AT_ONCE))
            for number, path in zip(numbers, some.to_pylist(), strict=True):
                stat = object_stat(self._sizes[number], self._times[number], self._tags[number])
                yield Found(_shown(path.replace(b"\0", b"/")), stat, bool(self._cold[number]))


def key_of(path: str) -> str:
    """The end of the key of an object, from its path below a folder."""
    return from_printable_path(path).decode("utf-8", "surrogateescape") if "%" in path else path


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
