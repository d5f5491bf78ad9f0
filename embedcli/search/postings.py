"""The index of words of one shard: for every term the rows that hold it, and how often.

In: the texts of a shard's rows. Out: flat numpy arrays, in blocks of at most 65,536 rows so that a row is 16 bits; and
the postings of a term back out of them.
Not here: scores, which need the counts of all shards (bm25.py); where the arrays are stored (sidecars.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index.tables.gathered import Gathered
from embedcli.search.sealed import Arrays
from embedcli.search.words import run_terms, term_hash

BLOCK_ROWS = 1 << 16
BLOCK_TERMS = 8_000_000
"""A block with so many terms, with repetitions, is full: 32 MB."""
BLOCK_DISTINCT = 1 << 18
"""A block with so many different terms is full: 50 MB."""
LONGEST_REMEMBERED = 40
MOST_REMEMBERED = 1 << 18
PART_BYTES = 1 << 20
"""Texts of so many bytes are split at once, and Python sees each different run among them once. A block is found to be
full after a part, so it may be larger by the terms of one."""
SORTED_TERMS = 1 << 20
SORTED_RANKS = 1 << 16
"""The most terms, with repetitions, and the most different ones that are sorted at once: with the row a rank among so
many is 32 bits."""
MOST_OFTEN = 255
"""A term counts this often in a row at most, which changes no score by more than a thousandth."""

_ROW_BITS = np.uint8(16)
_ROWS = ("once", "more")
_COUNTED = ("lengths", "terms", *_ROWS)
"""The arrays whose sizes say where a block ends."""
_KINDS: dict[str, type[np.generic]] = {
    "terms": np.uint64,
    "once_starts": np.uint32,
    "once": np.uint16,
    "more_starts": np.uint32,
    "more": np.uint16,
    "often": np.uint8,
    "lengths": np.uint32,
}
"""The arrays in the order in which they lie in a file."""

Ints = npt.NDArray[np.int64]


class _Vocabulary(dict[str, tuple[int, ...]]):
    """A run of text without white space -> the numbers of its terms, remembered: most runs occur again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}

    def __missing__(self, run: str) -> tuple[int, ...]:
        numbers = self.numbers
        found = tuple([numbers.setdefault(term, len(numbers)) for term in run_terms(run)])
        if len(run) <= LONGEST_REMEMBERED:
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[run] = found
        return found


class _Block:
    """Rows that are being counted. Of their terms with repetitions 4 bytes each are in memory."""

    def __init__(self) -> None:
        self._vocabulary = _Vocabulary()
        self._parts: list[npt.NDArray[np.uint32]] = []
        self._terms = 0
        self.lengths: list[int] = []

    def add(self, texts: pa.StringArray) -> None:
        """Count these texts, one a row, none of them null."""
        split = pc.utf8_split_whitespace(texts)
        runs = pc.dictionary_encode(split.flatten())
        terms_of = [self._vocabulary[run] for run in runs.dictionary.to_pylist()]
        numbers = np.fromiter(chain.from_iterable(terms_of), np.uint32)
        counts = np.fromiter(map(len, terms_of), np.int64, len(terms_of))
        which = runs.indices.to_numpy()
        sizes = counts[which]
        stops = np.append(0, np.cumsum(sizes))  # where the terms of each run end, after a 0
        firsts = (np.cumsum(counts) - counts)[which] - stops[:-1]
        part = numbers[np.repeat(firsts, sizes) + np.arange(stops[-1])]
        self._parts.append(part)
        self._terms += part.size
        self.lengths.extend(np.diff(stops[split.offsets.to_numpy()]).tolist())

    @property
    def is_full(self) -> bool:
        return self._terms >= BLOCK_TERMS or len(self._vocabulary.numbers) >= BLOCK_DISTINCT

    def write(self, into: Mapping[str, Gathered]) -> list[int]:
        """Add the arrays of this block: terms by their hashes, ascending; for each the rows that hold it once, and
        those that hold it more often. Returns how many items went into those of _COUNTED."""
        hashes = np.fromiter(map(term_hash, self._vocabulary.numbers), np.uint64, len(self._vocabulary.numbers))
        order = np.argsort(hashes)
        rank = np.empty(order.size, np.uint32)
        rank[order] = np.arange(order.size, dtype=np.uint32)
        for part in self._parts:
            part[:] = rank[part]
        rows = np.repeat(np.arange(len(self.lengths), dtype=np.uint16), self.lengths)
        found = {name: 0 for name in _ROWS}
        counts = np.zeros(order.size, np.int64)
        for part in self._parts:
            counts += np.bincount(part, minlength=order.size)
        for first, stop in _ranges(counts):
            pairs, often = _counted(self._pairs(rows, first, stop))
            for name, chosen in (("once", often == 1), ("more", often > 1)):
                bounds = np.arange(stop - first, dtype=np.uint64) << _ROW_BITS
                starts = np.searchsorted(pairs[chosen], bounds.astype(np.uint32))
                into[f"{name}_starts"].add((starts + found[name]).astype(np.uint32))
                into[name].add(pairs[chosen].astype(np.uint16))
                found[name] += int(np.count_nonzero(chosen))
            into["often"].add(np.minimum(often[often > 1], MOST_OFTEN).astype(np.uint8))
        for name, count in found.items():
            into[f"{name}_starts"].add(np.array([count], np.uint32))
        into["terms"].add(hashes[order])
        into["lengths"].add(np.array(self.lengths, np.uint32))
        return [len(self.lengths), order.size, *found.values()]

    def _pairs(self, rows: npt.NDArray[np.uint16], first: int, stop: int) -> npt.NDArray[np.uint32]:
        """The terms of the ranks from `first` up to `stop`, with repetitions, each with its row."""
        found = []
        start = 0
        for ranks in self._parts:
            inside = np.flatnonzero((ranks >= first) & (ranks < stop))
            found.append((ranks[inside] - np.uint32(first) << _ROW_BITS) | rows[start + inside])
            start += ranks.size
        return np.concatenate(found)


def _ranges(counts: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of ranks that are sorted at once; `counts`: how often the term of each rank occurs."""
    ends = np.cumsum(counts)
    first = 0
    while first < counts.size:
        stop = min(_stop(ends, first, SORTED_TERMS), first + SORTED_RANKS)
        yield first, stop
        first = stop


def _stop(ends: Ints, first: int, most: int) -> int:
    """Where a range from `first` stops that sums to `most` at most, or is one item; `ends` are sums from the start."""
    before = ends[first - 1] if first else 0
    return max(first + 1, int(np.searchsorted(ends, before + most, side="right")))


def _counted(pairs: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], Ints]:
    """The pairs, sorted, each once, and how often each was there."""
    pairs.sort()
    is_first = np.ones(pairs.size, np.bool_)
    is_first[1:] = pairs[1:] != pairs[:-1]
    first = np.flatnonzero(is_first)
    return pairs[first], np.diff(np.append(first, pairs.size))


class Builder:
    """The arrays of the texts of a shard, however many they are: block after block is counted and written."""

    def __init__(self, *, folder: Path | None = None, block_rows: int = BLOCK_ROWS) -> None:
        """`block_rows` is at most BLOCK_ROWS. What does not fit into memory lies in files of the folder."""
        self._block_rows = block_rows
        self._block = _Block()
        self._gathered = {name: Gathered(folder) for name in _KINDS}
        for name, kind in _KINDS.items():
            self._gathered[name].add(np.zeros(0, kind))
        self._blocks = [[0] * len(_COUNTED)]

    def add(self, texts: pa.StringArray) -> None:
        """Texts [rows]; one that is null has no words. Raises StorageError."""
        texts = texts.fill_null("")
        ends = np.cumsum(pc.binary_length(texts).to_numpy(), dtype=np.int64)
        first = 0
        while first < len(texts):
            stop = min(_stop(ends, first, PART_BYTES), first + self._block_rows - len(self._block.lengths))
            self._block.add(texts.slice(first, stop - first))
            first = stop
            if len(self._block.lengths) == self._block_rows or self._block.is_full:
                self._close_block()

    def _close_block(self) -> None:
        sizes = self._block.write(self._gathered)
        self._blocks.append([before + size for before, size in zip(self._blocks[-1], sizes, strict=True)])
        self._block = _Block()

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of all blocks, one after another; `blocks` [blocks + 1, 4] has where each block begins in them."""
        self._close_block()
        whole = {name: gathered.array() for name, gathered in self._gathered.items()}
        return {**whole, "blocks": np.array(self._blocks, np.int64)}


def build(texts: Iterable[str], *, block_rows: int = BLOCK_ROWS) -> dict[str, np.ndarray]:
    """The arrays of these texts, in memory."""
    builder = Builder(block_rows=block_rows)
    builder.add(pa.array(list(texts), pa.string()))
    return builder.arrays()


@dataclass(frozen=True, slots=True)
class Posting:
    """The rows of one block that hold a term, counted from row `first` of the shard; `often` goes with `more`."""

    first: int
    once: npt.NDArray[np.uint16]
    more: npt.NDArray[np.uint16]
    often: npt.NDArray[np.uint8]

    @property
    def count(self) -> int:
        return self.once.size + self.more.size


class Postings:
    """The postings of one shard, over arrays that may be memory-mapped. Raises DamagedCache."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._blocks = [tuple(bounds) for bounds in arrays.whole("blocks").tolist()]
        self.lengths = arrays.whole("lengths")
        self.rows = int(self.lengths.size)
        self.total_length = int(self.lengths.sum(dtype=np.int64))

    def of(self, term: int) -> Iterator[Posting]:
        """A posting for each block that holds the term."""
        for number, (block, following) in enumerate(pairwise(self._blocks)):
            terms = self._arrays.part("terms", block[1], following[1])
            at = int(np.searchsorted(terms, np.uint64(term)))
            if at < terms.size and int(terms[at]) == term:
                place = block[1] + number + at  # a block has one start more than it has terms
                once, more = (
                    _span(self._arrays, name, place, begin) for name, begin in zip(_ROWS, block[2:], strict=True)
                )
                part = self._arrays.part
                yield Posting(block[0], part("once", *once), part("more", *more), part("often", *more))


def _span(arrays: Arrays, name: str, place: int, begin: int) -> tuple[int, int]:
    start, stop = arrays.part(f"{name}_starts", place, place + 2).tolist()
    return begin + start, begin + stop
