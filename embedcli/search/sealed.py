"""Arrays in one file that is memory-mapped and never believed: a part is checked before it is used for the first time.

In: named arrays, and what the file is about. Out: the file, with a sum for each page; Arrays back out of it. A search
that needs a hundredth of a file reads and checks a hundredth of it. The sums find what disks and memory do to a file;
the sha256 at its end, which `verify` compares, finds everything.
Not here: which arrays there are (sidecars.py), what is done about damage (searcher.py).
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from embedcli.errors import DamagedIndex, quoted

PAGE = 4096
ALIGNED = 64
LARGE = 16 * PAGE
"""An array of this size begins with a page, so that a row is on as few pages as can be."""
PAGES_AT_ONCE = 4096
SUMS_DIGEST, WHOLE_DIGEST = 16, 32
TAIL = SUMS_DIGEST + WHOLE_DIGEST

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class DamagedCache(DamagedIndex):
    """A page of the file is not as it was written. Searches build the file again, so nobody is shown this."""

    def __init__(self, path: str) -> None:
        Exception.__init__(self, path)

    @property
    def path(self) -> Path:
        return Path(self.args[0])

    @property
    def hint(self) -> str:
        return f"`rm {quoted(self.path)}`: the next search makes it again"

    def __str__(self) -> str:
        return f"`{self.path}` is damaged"


class Arrays:
    """Named arrays, in memory or in a file."""

    def __init__(self, arrays: Mapping[str, np.ndarray], file: _File | None = None) -> None:
        self._arrays = arrays
        self._file = file

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def whole(self, name: str) -> np.ndarray:
        """All of an array. Raises DamagedCache, as the others do."""
        return self.part(name, 0, len(self._arrays[name]))

    def part(self, name: str, start: int, stop: int) -> np.ndarray:
        """The items, or rows, from `start` up to `stop`."""
        part = self._arrays[name][start:stop]
        if self._file is not None and part.size:
            self._file.check(*self._file.span_of(part))
        return part

    def rows(self, name: str, rows: Ints) -> np.ndarray:
        """Some rows of an array, copied."""
        array = self._arrays[name]
        if self._file is not None and rows.size and array.size:
            first, _ = self._file.span_of(array)
            starts = first + rows * array.strides[0]
            self._file.check_pages(starts // PAGE, (starts + array.strides[0] - 1) // PAGE)
        return array[rows]

    def release(self, name: str) -> None:
        """Give back the memory of the pages of an array that were read: the kernel keeps 64 kB for each row, and in a
        program that lives long it would soon be all of them. They stay in the kernel's cache."""
        array = self._arrays[name]
        if self._file is not None and array.size:
            self._file.release(*self._file.span_of(array))


class _File:
    """A file of arrays, and which of its pages are known to be as they were written."""

    def __init__(self, path: Path, mapped: mmap.mmap, pages: int) -> None:
        self.path = path
        self._mapped = mapped
        self._pages = np.frombuffer(mapped, np.uint64, pages * PAGE // 8).reshape(pages, -1)
        self._sums = np.frombuffer(mapped, np.uint64, pages, pages * PAGE)
        self._sound = np.zeros(pages, np.bool_)
        written = mapped[pages * (PAGE + 8) : pages * (PAGE + 8) + SUMS_DIGEST]
        if _digest_of(self._sums) != written:
            raise DamagedCache(str(path))

    def span_of(self, part: np.ndarray) -> tuple[int, int]:
        """Where the bytes of a contiguous part of an array begin and end in the file."""
        start = int(part.ctypes.data - self._pages.ctypes.data)
        return start, start + part.nbytes

    def check(self, start: int, stop: int) -> None:
        """Raise DamagedCache unless the bytes from `start` up to `stop` lie on pages that are as they were written."""
        for first in range(start // PAGE, -(-stop // PAGE), PAGES_AT_ONCE):
            pages = slice(first, min(first + PAGES_AT_ONCE, -(-stop // PAGE)))
            if not self._sound[pages].all():
                self._compare(pages)

    def check_pages(self, first: Ints, last: Ints) -> None:
        """The same of some pages, given as ranges that are at most one longer than the shortest."""
        pages = np.unique(np.concatenate([first + more for more in range(int((last - first).max()) + 1)]))
        pages = pages[pages <= last.max()]
        pages = pages[~self._sound[pages]]
        for start in range(0, pages.size, PAGES_AT_ONCE):
            self._compare(pages[start : start + PAGES_AT_ONCE])

    def _compare(self, pages: slice | Ints) -> None:
        if not np.array_equal(self._pages[pages].sum(axis=1), self._sums[pages]):
            raise DamagedCache(str(self.path))
        self._sound[pages] = True

    def release(self, start: int, stop: int) -> None:
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        if stop > first:
            self._mapped.madvise(mmap.MADV_DONTNEED, first, stop - first)

    def header(self) -> dict[str, Any]:
        self.check(0, PAGE)
        header = json.loads(bytes(self._pages[0]))
        return header if isinstance(header, dict) else {}

    def array(self, kind: str, shape: list[int], at: int) -> np.ndarray:
        return np.frombuffer(self._mapped, kind, int(np.prod(shape)), at).reshape(shape)


def _digest_of(sums: Words) -> bytes:
    return hashlib.blake2b(sums.tobytes(), digest_size=SUMS_DIGEST).digest()


# ---- writing


def write(sink: BinaryIO, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """A page with a header, the arrays, the sum of each page so far, the digest of the sums, that of all before it."""
    places: dict[str, Any] = {}
    at = PAGE
    for name, array in arrays.items():
        step = PAGE if array.nbytes >= LARGE else ALIGNED
        at = -(-at // step) * step
        places[name] = [array.dtype.str, list(array.shape), at]
        at += array.nbytes
    summing = _Summing(sink)
    summing.write(json.dumps({**about, "arrays": places}).encode().ljust(PAGE))
    for name, array in arrays.items():
        summing.write(bytes(places[name][2] - summing.size))
        summing.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    summing.write(bytes(-summing.size % PAGE))
    summing.end()


class _Summing:
    """Passes bytes on, and sums up each page of them."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._whole = hashlib.sha256()
        self._sums: list[Words] = []
        self._begun = b""
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        self._pass_on(data)
        self.size += len(data)
        missing = -len(self._begun) % PAGE
        begun, rest = self._begun + bytes(data[:missing]), data[missing:]
        self._begun = begun if len(begun) % PAGE else b""
        pages = len(rest) // PAGE
        whole = (begun if begun and not self._begun else b"", rest[: pages * PAGE])
        for part in filter(len, whole):
            self._sums.append(np.frombuffer(part, np.uint64).reshape(-1, PAGE // 8).sum(axis=1))
        self._begun += bytes(rest[pages * PAGE :])

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._sink.write(data)
        self._whole.update(data)

    def end(self) -> None:
        sums = np.concatenate(self._sums)
        self._pass_on(sums.tobytes())
        self._pass_on(_digest_of(sums))
        self._sink.write(self._whole.digest())


# ---- reading


def load(path: Path, about: Mapping[str, Any]) -> Arrays | None:
    """The arrays of a file that says of itself what `about` says; None where there is none, or it is not whole."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        opened = _File(path, mapped, _pages_of(len(mapped)))
        header = opened.header()
        if {name: header[name] for name in about} != about:
            return None
        arrays = {name: opened.array(*place) for name, place in header["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, DamagedCache):
        return None
    return Arrays(arrays, opened)


def _pages_of(size_bytes: int) -> int:
    """How many pages a file of this size has. Raises ValueError."""
    pages, rest = divmod(size_bytes - TAIL, PAGE + 8)
    if pages < 1 or rest:
        raise ValueError("no file of arrays has this size")
    return pages


def is_as_written(path: Path) -> bool:
    """Whether every byte of a file is that which was written. Raises OSError."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        left = path.stat().st_size - WHOLE_DIGEST
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            whole.update(data)
            left -= len(data)
        return file.read() == whole.digest()
