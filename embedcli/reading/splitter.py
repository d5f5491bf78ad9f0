"""A container -> its Records that are new, changed or bad, a batch at a time, read in a process of their own.

In: a container to split, asked for batch by batch, so that memory stays flat. Out: batches, then what was found in all;
None for a file that is one document; UnreadableSource. Whoever reads the records as documents (rows.py) gets them from
the run, so every reading process has a part in the largest container.
Not here: the formats (containers/), the process (process.py), what is done about records that left (run/containers/).
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.errors import UnreadableSource
from embedcli.reading.containers.known import KnownFiles, KnownRecords
from embedcli.reading.containers.opened import records_in
from embedcli.reading.process import Child, Died, Hung, Limits
from embedcli.reading.source_file import opened, sha256_of
from embedcli.records import Beat, Record, Source, Stat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedcli.sources.containers import Asked

BATCH_RECORDS = 128
BATCH_BYTES = 1 << 20
LOOKED_AT_ONCE = 512
MOST_SLOW_BYTES = 64 << 20
MOST_BAD_LINES = 1_000
"""Bad lines of one container that are named; the rest is only counted."""


@dataclass(frozen=True)
class Split:
    """The request for the first batch of a container; those for the next ones are None."""

    source: Source
    asked: Asked
    known: KnownFiles | None


@dataclass(frozen=True)
class Whole:
    """What was found in a container, after its last batch. `left`: places of known records that are not in it any
    more; `bad`: how many lines could not be read, by reason."""

    stat: Stat
    sha256: str
    good: int
    bad: dict[str, int]
    left: NDArray[np.int64]


Answer = tuple[Record, ...] | Whole | None


@dataclass
class SplittingWork:
    """What the process does; between two requests it holds the container open."""

    spool_folder: Path
    _open: Iterator[Answer] | None = field(default=None, repr=False)

    def start(self) -> None:
        return

    def __call__(self, request: Split | None, beat: Beat, *, with_forms: bool) -> Answer:
        """The next batch, or what ends the container. Raises UnreadableSource."""
        if request is not None:
            self._open = _answers(request, beat, self.spool_folder)
        assert self._open is not None
        try:
            return next(self._open)
        except OSError as error:
            raise UnreadableSource("io", str(error)) from error


def _answers(request: Split, beat: Beat, spool_folder: Path) -> Iterator[Answer]:
    source = request.source
    with opened(source, folder=spool_folder, beat=beat) as open_source:
        sha256 = sha256_of(open_source.file, open_source.stat.size, beat)
        records = records_in(open_source.file, source.path, request.asked, spool_folder=spool_folder)
        if records is None:
            yield None
            return
        reading = _Reading(KnownRecords(request.known, spool_folder))
        yield from reading.batches(records, beat)
        if open_source.has_changed():
            raise UnreadableSource("changed_while_reading", source.file, sha256)
        yield reading.whole(open_source.trusted, sha256)


def _some(records: Iterator[Record]) -> list[Record]:
    """The next records: LOOKED_AT_ONCE of them, or fewer large ones."""
    found: list[Record] = []
    size = 0
    for record in islice(records, LOOKED_AT_ONCE):
        found.append(record)
        size += record.size_bytes
        if size >= BATCH_BYTES:
            break
    return found


class _Reading:
    """One reading of a container: what it has met so far."""

    def __init__(self, known: KnownRecords) -> None:
        self._known = known
        self._good = 0
        self._bad: Counter[str] = Counter()

    def batches(self, records: Iterator[Record], beat: Beat) -> Iterator[tuple[Record, ...]]:
        batch: list[Record] = []
        size = 0
        for record in self._sifted(records, beat):
            batch.append(record)
            size += record.size_bytes
            if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield tuple(batch)
                batch, size = [], 0
        if batch:
            yield tuple(batch)

    def _sifted(self, records: Iterator[Record], beat: Beat) -> Iterator[Record]:
        while looked_at := _some(records):
            beat(looked_at[-1].line)
            self._good += len(looked_at)
            for record in self._known.sift(looked_at):
                if record.problem:
                    self._good -= 1
                    self._bad[record.problem] += 1
                    if self._bad.total() > MOST_BAD_LINES:
                        continue
                yield record

    def whole(self, stat: Stat, sha256: str) -> Whole:
        return Whole(stat, sha256, self._good, dict(self._bad), self._known.left)


class Splitter:
    """The process that splits containers, from our side: started when there is the first one. `close` may be called by
    any thread; what is asked afterwards has no answers."""

    def __init__(self, work: SplittingWork) -> None:
        self._work = pickle.dumps((work, Limits()))
        self._child: Child | None = None
        self._closed = False

    def answers(self, split: Split) -> Iterator[Answer]:
        """Batches, and then a Whole; only None for a file that is one document. Raises UnreadableSource where it cannot
        be read, or kills the process."""
        answer = self._ask(split, split)
        while isinstance(answer, tuple):
            yield answer
            answer = self._ask(None, split)
        yield answer

    def close(self) -> None:
        self._closed = True
        if self._child is not None:
            self._child.kill()

    def _ask(self, request: Split | None, split: Split) -> Answer:
        if self._closed:
            raise UnreadableSource("io", "the run is ending")
        if self._child is None:
            self._child = Child(self._work, Limits())
        stat = split.source.stat
        try:
            self._child.wait_until_ready()
            reply, fat = self._child.ask(request, limits_of(stat.size if stat else 0), with_forms=True)
        except Hung as hung:
            self.end()
            raise UnreadableSource("timeout", str(hung)) from hung
        except Died as died:
            self.end()
            raise died.unreadable from died
        if isinstance(reply, UnreadableSource) or (fat and not isinstance(reply, tuple)):
            self.end()
        if isinstance(reply, UnreadableSource):
            raise reply
        answer: Answer = reply
        return answer

    def end(self) -> None:
        """Reap the process. No answer may be on its way."""
        if self._child is not None:
            self._child.end()
            self._child = None


def limits_of(size_bytes: int) -> Limits:
    """A batch takes no longer in a large container than in a small one, but the keys of its records take memory."""
    limits = Limits()
    return replace(limits.of(min(size_bytes, MOST_SLOW_BYTES)), memory_bytes=limits.memory_bytes + size_bytes // 2)
