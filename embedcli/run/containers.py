"""Containers on their way through a run: their records go to the readers in batches, and they end with their last one.

In: the tasks of the plan; what was read of them. Out: tasks for the reading processes, those of records among them;
each source as it ends, a container after all that is in it, so that no checkpoint or publish names one that is not
whole. What a container does not hold any more has left, unless it is so much that the guard keeps it.
Not here: splitting (reading/splitter.py), reading (reading/rows.py), vectors (pending.py).
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import InputError, UnreadableSource, quoted
from embedcli.index import documents
from embedcli.index.tables.walk_order import places_of_roots
from embedcli.reading.containers.known import Known, KnownFiles
from embedcli.reading.rows import Read, ReadRecords
from embedcli.reading.splitter import MOST_BAD_LINES, Answer, Split, Whole
from embedcli.records import SKIP_REASONS, Record, Source, SourceKey
from embedcli.run.gone import SMALLEST_GUARDED
from embedcli.run.pending import PendingRecords
from embedcli.run.tasks import (
    AnyTask,
    Contained,
    ContainerEnd,
    LastSeen,
    RecordTask,
    Refused,
    Task,
    last_seen,
    last_seen_rows,
)
from embedcli.sources.containers import RuleBook
from embedcli.urls import absolute

if TYPE_CHECKING:
    from embedcli.config import Rules
    from embedcli.reading.rows import Result
    from embedcli.run.pending import Ended, EndedFile
    from embedcli.run.plan import Plan
    from embedcli.sources.containers import Asked
    from embedcli.sources.roots import Scopes

AFTER_MARK = chr(ord("#") + 1)
"""What is in `a` has paths from `a#` to before `a$`."""

APART = " (record)"
"""What the id of a record ends with if a file has the path that it would have."""

Ints = npt.NDArray[np.int64]


class Members:
    """The documents of the index that lie in others. `base` is in walk order: those in one source stand together."""

    def __init__(self, base: pa.Table) -> None:
        self._base = base

    def of(self, key: SourceKey) -> pa.Table:
        """What the index knows of the documents in one source: rows of `base`."""
        if key not in self._counts:
            return self._base.slice(0, 0)
        start, stop = self._roots[key[0]]
        bounds = [documents.components(f"{key[1]}{mark}") for mark in ("#", AFTER_MARK)]
        first, last = (bisect_left(range(stop), bound, lo=start, key=self._components) for bound in bounds)
        inside = self._base.slice(first, last - first)
        return documents.chosen(inside, np.asarray(pc.equal(inside.column("container"), key[1])))

    def seen(self, rows: pa.Table) -> Iterator[LastSeen]:
        """Rows of `base` as what was last seen of them."""
        return last_seen_rows(last_seen(rows, self._counts))

    def counts_of(self, rows: pa.Table) -> Ints:
        """How many documents are inside each of these."""
        return self._counts.of(rows)

    def keys_of(self, key: SourceKey) -> set[SourceKey]:
        """The documents in a source, and those in them."""
        direct = {(key[0], path) for path in self.of(key).column("path").to_pylist()}
        return direct.union(*(self.keys_of(inner) for inner in direct))

    def _components(self, row: int) -> str:
        return documents.components(self._base.column("path")[row].as_py())

    @cached_property
    def _counts(self) -> documents.MemberCounts:
        return documents.MemberCounts(self._base)

    @cached_property
    def _roots(self) -> dict[str, tuple[int, int]]:
        """Where the rows of each root are."""
        return {root: (first, end) for root, first, end in places_of_roots(self._base)}


# ---- into the readers


class Feed:
    """The tasks for the reading processes. Their threads pull them, one at a time."""

    def __init__(
        self,
        scopes: Scopes,
        members: Members,
        answers: Callable[[Split], Iterator[Answer]],
        *,
        folder: Path,
        read_all: bool,
        marked: Collection[SourceKey],
    ) -> None:
        """`marked`: files with a `#` in their path."""
        self._taken: dict[SourceKey, list[str]] = {}
        for root_id, path in marked:
            for end in (place.end() for place in re.finditer("#", path)):
                self._taken.setdefault((root_id, path[: end - 1]), []).append(path[end:])
        self._books = {root.id: RuleBook(root) for root in scopes.roots}
        self._adding = {scope.root.id for scope in scopes.scopes if scope.stream and not scope.stream.whole}
        self._members = members
        self._answers = answers
        self._folder = folder
        self._read_all = read_all
        self._names = itertools.count()

    def tasks(self, planned: Iterator[Task]) -> Iterator[AnyTask]:
        for task in planned:
            if task.key in self._taken:
                task = replace(task, source=replace(task.source, taken=tuple(self._taken[task.key])))
            asked = asked_of(self._books, task.source)
            if asked is None:
                yield task
            else:
                yield from self._split(task, asked)

    def _split(self, task: Task, asked: Asked) -> Iterator[AnyTask]:
        known = _Known(self._members, task.source, adding=task.source.root_id in self._adding)
        files = known.write(self._folder, f"known-{next(self._names)}", task.source, read_all=self._read_all)
        batches = 0
        try:
            for answer in self._answers(Split(task.source, asked, files)):
                if answer is None:
                    yield task
                elif isinstance(answer, Whole):
                    yield known.end(task, answer, batches)
                else:
                    batches += 1
                    records = tuple(self._apart(task.source, record) for record in answer)
                    yield RecordTask(task, records, known.priors(task.source, records))
        except UnreadableSource as error:
            yield known.without_records(task, error, batches)
        finally:
            if files is not None:
                files.remove()

    def _apart(self, container: Source, record: Record) -> Record:
        """The record, under another id where a file has the path that it would have."""
        while container.taken and container.record(record).path[len(container.path) + 1 :] in container.taken:
            record = record._replace(id=record.id + APART)
        return record


def asked_of(books: dict[str, RuleBook], source: Source) -> Asked | None:
    """How a source is read if it is a container; None for one that is a document, as far as its name says. A mailbox
    often has a name without a suffix."""
    book = books[source.root_id]
    asked = book.of(source.path)
    if asked is not None or source.is_object:  # to look into each object would cost a request for each
        return asked
    if "." not in source.path.rpartition("/")[2] and _begins_with_from(source.file):
        return book.default
    return asked


def _begins_with_from(file: str) -> bool:
    try:
        with open(file, "rb") as stream:
            return stream.read(5) == b"From "
    except OSError:
        return False


class _Known:
    """What the index knows of the documents in one container, as it is read."""

    def __init__(self, members: Members, container: Source, *, adding: bool) -> None:
        rows = members.of(container.key)
        if container.taken:  # files have these paths now
            shadowing = pa.array([f"{container.path}#{name}" for name in container.taken])
            rows = rows.filter(pc.invert(pc.is_in(rows.column("path"), value_set=shadowing)))
        self._taken = container.taken
        has_text = (np.asarray(rows.column("rows")) > 0) | (members.counts_of(rows) > 0)
        self._members = members
        self._rows = documents.chosen(rows, has_text)
        self._bad = {prior.path: prior for prior in members.seen(documents.chosen(rows, ~has_text))}
        self._bad_by_content = {(prior.sha256, prior.reason): prior for prior in self._bad.values()}
        self._adding = adding
        self._met: set[str] = set()
        self._changed = 0

    def write(self, folder: Path, name: str, source: Source, *, read_all: bool) -> KnownFiles | None:
        if not self._rows.num_rows:
            return None
        known = self._known(len(source.path) + 1, read_all=read_all)
        return KnownFiles.write(folder, name, known, count=self._rows.num_rows)

    def _known(self, skip: int, *, read_all: bool) -> Iterator[Known]:
        """What is not as it should be is read again, whatever it holds."""
        for part in documents.parts(self._rows.select(["path", "status", "sha256"])):
            paths, statuses, digests = (column.to_pylist() for column in part.columns)
            is_sound = [status == "indexed" and not read_all for status in statuses]
            yield (
                [self._id_of(path[skip:]) for path in paths],
                [digest if sound else None for digest, sound in zip(digests, is_sound, strict=True)],
            )

    def _id_of(self, shown: str) -> str:
        """The id under which a record comes that stands apart from a file (see `Feed`)."""
        while self._taken and (own := shown.removesuffix(APART)) != shown and own in self._taken:
            shown = own
        return shown

    def priors(self, container: Source, records: Sequence[Record]) -> tuple[LastSeen | None, ...]:
        """What the index knows of each of these records."""
        places = [record.prior for record in records if record.prior >= 0]
        if not places and not self._bad:
            return (None,) * len(records)
        self._changed += len(places)
        priors = self._members.seen(self._rows.take(pa.array(places, pa.int64())))
        return tuple(
            next(priors) if record.prior >= 0 else self._prior_of_bad(container.record(record).path, record)
            for record in records
        )

    def _prior_of_bad(self, path: str, record: Record) -> LastSeen | None:
        """A line that cannot be read may have moved."""
        if path in self._bad:
            self._met.add(path)
        return self._bad_by_content.get((record.digest, record.problem)) or self._bad.get(path)

    def end(self, task: Task, whole: Whole, batches: int) -> ContainerEnd:
        root_id = task.source.root_id
        lost = [] if self._adding else self._rows.column("path").take(pa.array(whole.left)).to_pylist()
        left = frozenset((root_id, path) for path in lost)
        cleared = frozenset((root_id, path) for path in self._bad.keys() - self._met)
        known = self._rows.num_rows
        unchanged = known - len(whole.left) - self._changed
        return ContainerEnd(task, whole, batches, left, cleared, known=known, unchanged=unchanged)

    def without_records(self, task: Task, error: UnreadableSource, batches: int) -> ContainerEnd:
        """Of one that cannot be read. What it had stays, but not where it is empty: it lost all its records."""
        if error.reason != "empty" or self._adding:
            return ContainerEnd(task, error, batches)
        left, cleared = (
            frozenset((task.source.root_id, path) for path in paths)
            for paths in (self._rows.column("path").to_pylist(), self._bad)
        )
        return ContainerEnd(task, error, batches, left, cleared, known=len(left))


# ---- and out of them


def read_by_themselves(task: RecordTask, result: Result | UnreadableSource) -> Iterator[tuple[Task, Read]]:
    """The records of a task that have a reading of their own: all but those that were read together."""
    if isinstance(result, ReadRecords):
        yield from ((task.task(place), read) for place, read in result.apart)
        return
    # one that killed its reader has the reason instead of a reading
    reads: Sequence[Read | UnreadableSource]
    reads = [result] * len(task.records) if isinstance(result, UnreadableSource) else result
    for place, read in enumerate(reads):
        yield task.task(place), Read(read) if isinstance(read, UnreadableSource) else read


@dataclass
class _Open:
    """A container some of whose documents are on their way."""

    task: Task
    waiting: int = 0
    batches: int = 0
    end: ContainerEnd | None = None
    own: EndedFile | None = None
    left: set[SourceKey] = field(default_factory=set)
    cleared: frozenset[SourceKey] = frozenset()


class OpenContainers:
    """Holds each container back until all that is in it has ended."""

    def __init__(self, members: Members, rules: Rules, plan: Plan, warn: Callable[[str], None]) -> None:
        """What is found to have left its container is added to what is `gone` by the plan, or `cleared`."""
        self._members = members
        self._rules = rules
        self._plan = plan
        self._warn = warn
        self._open: dict[SourceKey, _Open] = {}

    def of_file(self, task: Task, names: Sequence[str], *, refused: str | None) -> list[Task]:
        """A source was read, or `refused`: the tasks of the documents inside it, whose ends it waits for."""
        known = self._known(task.key)
        inside = [task.source.member(name) for name in names]
        if known or inside:
            stay = refused is not None and refused not in SKIP_REASONS
            left = set() if stay else known.keys() - {source.path for source in inside}
            opened = self._open[task.key] = _Open(task, waiting=len(inside))
            opened.left = {(task.source.root_id, path) for path in left}
        return [Task(source, known.get(source.path)) for source in inside]

    def _known(self, key: SourceKey) -> dict[str, LastSeen]:
        """By their paths, those of a run that ended early too, which knew nothing of the source that holds them."""
        return {prior.path: prior for prior in self._members.seen(self._members.of(key))}

    def batch(self, batch: RecordTask) -> None:
        """Some records of a container are read."""
        opened = self._opened(batch.container)
        opened.batches += 1
        opened.waiting += len(batch.records)

    def end(self, end: ContainerEnd) -> list[Ended]:
        """A container was read to its end; returns what has ended with it."""
        self._opened(end.container).end = end
        return self._close_if_whole(end.container.key)

    def ended(self, source: Ended) -> list[Ended]:
        """A source has ended: it and what ends with it, in the order in which they may be stored; nothing while it
        waits for what is inside it."""
        if isinstance(source, PendingRecords):
            return [source, *self._fewer(source.task.container.key, len(source.documents))]
        key = source.task.key
        if key in self._open:
            self._open[key].own = source
            return self._close_if_whole(key)
        return [source, *self._one_less(source.task.source)]

    def _opened(self, task: Task) -> _Open:
        return self._open.setdefault(task.key, _Open(task))

    def _one_less(self, source: Source) -> list[Ended]:
        return self._fewer((source.root_id, source.container or ""), 1)

    def _fewer(self, key: SourceKey, count: int) -> list[Ended]:
        """So many fewer documents of this container are on their way."""
        if key not in self._open:
            return []
        self._open[key].waiting -= count
        return self._close_if_whole(key)

    def _close_if_whole(self, key: SourceKey) -> list[Ended]:
        opened = self._open[key]
        if opened.end is not None and opened.own is None and opened.batches == opened.end.batches:
            opened.own = self._own(opened, opened.end)
        if opened.own is None or opened.waiting:
            return []
        del self._open[key]
        for left in opened.left:
            self._plan.gone |= {left, *self._members.keys_of(left)} - self._plan.marked
        self._plan.cleared |= opened.cleared
        return [opened.own, *self._one_less(opened.task.source)]

    def _own(self, opened: _Open, end: ContainerEnd) -> EndedFile:
        """What is stored of a container of records."""
        task, found = end.container, end.result
        if isinstance(found, UnreadableSource):
            if self._keeps(end):
                return Refused(task, "vanished", found.sha256)
            opened.left, opened.cleared = set(end.left), end.cleared
            return Refused(task, found.reason, found.sha256)
        reason = max(found.bad, key=lambda name: found.bad[name], default=None)
        if reason is not None and not found.good:  # the records look otherwise now, or were never any
            return Refused(task, reason, found.sha256, end.unchanged)
        if self._keeps(end):
            return Refused(task, "vanished", found.sha256, end.unchanged)
        opened.left, opened.cleared = set(end.left), end.cleared
        left_out = max(0, sum(found.bad.values()) - MOST_BAD_LINES)
        return Contained(task, found.stat, found.sha256, left_out, reason if left_out else None, end.unchanged)

    def _keeps(self, end: ContainerEnd) -> bool:
        """The guard: whether so many of the known records are gone that they stay. Raises InputError in a rebuild."""
        uri, place = end.container.source.uri, absolute(end.container.source.uri)
        percent = self._rules.percent_of(place)
        lost = len(end.left)
        too_many = end.known >= SMALLEST_GUARDED and lost * 100 > percent * end.known
        nothing_left = end.container.source.address is not None and lost == end.known and percent < 100
        if not lost or not (too_many or nothing_left):
            return False
        share = f"{lost:,} of {end.known:,}"
        if self._rules.rebuilding:
            raise InputError(
                f"{share} known records of `{uri}` are gone, and a rebuild needs every source",
                f"if they were deleted, add `--max-gone {quoted(f'{uri}=100')}`",
            )
        self._warn(
            f"`{uri}`: {share} of its known records are gone; they stay in the index."
            f" If they were deleted: `--max-gone {quoted(f'{uri}=100')}`"
        )
        return True
