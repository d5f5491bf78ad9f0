"""The index of words of one shard: for every term the rows that hold it, and how often.

In: the texts of a shard's rows. Out: flat numpy arrays, in blocks of at most 65,536 rows so that a row is 16 bits; and
the postings of a term back out of them.
Not here: scores, which need the counts of all shards (bm25.py); where the arrays are stored (sidecars.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from embedcli.search.sealed import Arrays
from embedcli.search.words import run_terms, term_hash

BLOCK_ROWS = 1 << 16
BLOCK_TERMS = 8_000_000
"""The most terms, with repetitions, that are sorted at once: 64 MB."""
LONGEST_REMEMBERED = 40
MOST_OFTEN = 255
"""A term counts this often in a row at most, which changes no score by more than a thousandth."""

_ROW_BITS = np.uint64(16)
_ROWS = ("once", "more")
_COUNTED = ("lengths", "terms", *_ROWS)
"""The arrays whose sizes say where a block ends."""

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
            self[run] = found
        return found


@dataclass
class _Block:
    """Rows that are being counted."""

    vocabulary: _Vocabulary = field(default_factory=_Vocabulary)
    numbers: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def add(self, text: str) -> None:
        before = len(self.numbers)
        self.numbers.extend(chain.from_iterable(map(self.vocabulary.__getitem__, text.split())))
        self.lengths.append(len(self.numbers) - before)

    def arrays(self) -> dict[str, np.ndarray]:
        """Terms by their hashes, ascending; for each the rows that hold it once, and those that hold it more often."""
        hashes = np.fromiter(map(term_hash, self.vocabulary.numbers), np.uint64, len(self.vocabulary.numbers))
        order = np.argsort(hashes)
        rank = np.empty(order.size, np.uint64)
        rank[order] = np.arange(order.size, dtype=np.uint64)
        rows = np.repeat(np.arange(len(self.lengths), dtype=np.uint64), self.lengths)
        pairs = (rank[np.array(self.numbers, np.int64)] << _ROW_BITS) | rows
        pairs.sort()
        first = np.flatnonzero(np.diff(pairs, prepend=np.uint64(1 << 63)))
        often = np.diff(np.append(first, pairs.size))
        pairs, is_once = pairs[first], often == 1
        bounds = np.arange(order.size + 1, dtype=np.uint64) << _ROW_BITS
        return {
            "terms": hashes[order],
            "once_starts": np.searchsorted(pairs[is_once], bounds).astype(np.uint32),
            "once": pairs[is_once].astype(np.uint16),
            "more_starts": np.searchsorted(pairs[~is_once], bounds).astype(np.uint32),
            "more": pairs[~is_once].astype(np.uint16),
            "often": np.minimum(often[~is_once], MOST_OFTEN).astype(np.uint8),
            "lengths": np.array(self.lengths, np.uint32),
        }


def build(texts: Iterable[str], *, block_rows: int = BLOCK_ROWS) -> dict[str, np.ndarray]:
    """The arrays of all blocks, one after another; `blocks` [blocks + 1, 4] has where each block begins in them.

    `block_rows` is at most BLOCK_ROWS.
    """
    done: list[dict[str, np.ndarray]] = []
    block = _Block()
    for text in texts:
        block.add(text)
        if len(block.lengths) == block_rows or len(block.numbers) >= BLOCK_TERMS:
            done.append(block.arrays())
            block = _Block()
    done.append(block.arrays())
    sizes = [[part[name].size for name in _COUNTED] for part in done]
    blocks = np.concatenate([np.zeros((1, len(_COUNTED)), np.int64), np.cumsum(np.array(sizes, np.int64), axis=0)])
    return {**{name: np.concatenate([part[name] for part in done]) for name in done[0]}, "blocks": blocks}


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
