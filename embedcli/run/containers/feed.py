"""The tasks for the reading processes: sources, and the records of containers in batches.

In: the tasks of the plan, what the splitter finds in a container. Out: tasks that the threads of the pool pull; for
each container, after its last batch, its end.
Not here: splitting (reading/splitter.py), reading (reading/rows.py), what becomes of what was read (ended.py).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import UnreadableSource
from embedcli.index import documents
from embedcli.index.tables.mapped import passing
from embedcli.reading.containers.known import Known, KnownFiles
from embedcli.reading.splitter import Answer, Split, Whole
from embedcli.records import Record, Source, SourceKey
from embedcli.run.containers.members import Members
from embedcli.run.tasks import AnyTask, ContainerEnd, LastSeen, RecordTask, Task
from embedcli.sources.containers import RuleBook

if TYPE_CHECKING:
    from embedcli.sources.containers import Asked
    from embedcli.sources.roots import Scopes

Ints = npt.NDArray[np.int64]

APART = " (record)"
"""What the id of a record ends with if a file has the path that it would have."""


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
        rows, is_inside = members.around(container.key)
        if container.taken:  # files have these paths now
            shadowing = pa.array([f"{container.path}#{name}" for name in container.taken])
            is_inside = is_inside & ~np.asarray(pc.is_in(rows.column("path"), value_set=shadowing))
        self._taken = container.taken
        has_text = members.have_text(rows)
        self._members = members
        self._rows = rows
        self._numbers = np.flatnonzero(is_inside & has_text).astype(np.uint32)
        """Of the records with text among the `rows`; their places are those in this array."""
        self._bad = {prior.path: prior for prior in members.seen(documents.chosen(rows, is_inside & ~has_text))}
        self._bad_by_content = {(prior.sha256, prior.reason): prior for prior in self._bad.values()}
        self._adding = adding
        self._met: set[str] = set()
        self._changed = 0

    @property
    def _count(self) -> int:
        """How many records with text the index knows."""
        return self._numbers.size

    def _at(self, places: slice | Sequence[int] | Ints, columns: Sequence[str]) -> pa.Table:
        """What the index knows of records with text, by their places."""
        return documents.taken(self._rows.select(columns), self._numbers[places])

    def write(self, folder: Path, name: str, source: Source, *, read_all: bool) -> KnownFiles | None:
        if not self._count:
            return None
        known = self._known(len(source.path) + 1, read_all=read_all)
        return KnownFiles.write(folder, name, known, count=self._count)

    def _known(self, skip: int, *, read_all: bool) -> Iterator[Known]:
        """What is not as it should be is read again, whatever it holds."""
        starts = range(0, self._count, documents.PART_ROWS)
        columns = ["path", "status", "sha256"]
        parts = (self._at(slice(first, first + documents.PART_ROWS), columns) for first in starts)
        for part in passing(parts, lambda part: int(part.nbytes)):
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
        priors = self._members.seen(self._at(places, documents.SCHEMA.names))
        return tuple(
            next(priors) if record.prior >= 0 else self._prior_of_bad(container.record(record).path, record)
            for record in records
        )

    def _paths(self) -> list[str]:
        paths: list[str] = self._at(slice(None), ["path"]).column("path").to_pylist()
        return paths

    def _prior_of_bad(self, path: str, record: Record) -> LastSeen | None:
        """A line that cannot be read may have moved."""
        if path in self._bad:
            self._met.add(path)
        return self._bad_by_content.get((record.digest, record.problem)) or self._bad.get(path)

    def end(self, task: Task, whole: Whole, batches: int) -> ContainerEnd:
        root_id = task.source.root_id
        lost = [] if self._adding else self._at(whole.left, ["path"]).column("path").to_pylist()
        left = frozenset((root_id, path) for path in lost)
        cleared = frozenset((root_id, path) for path in self._bad.keys() - self._met)
        known = self._count
        unchanged = known - len(whole.left) - self._changed
        return ContainerEnd(task, whole, batches, left, cleared, known=known, unchanged=unchanged)

    def without_records(self, task: Task, error: UnreadableSource, batches: int) -> ContainerEnd:
        """Of one that cannot be read. What it had stays, but not where it is empty: it lost all its records."""
        if error.reason != "empty" or self._adding:
            return ContainerEnd(task, error, batches)
        left, cleared = (
            frozenset((task.source.root_id, path) for path in paths) for paths in (self._paths(), self._bad)
        )
        return ContainerEnd(task, error, batches, left, cleared, known=len(left))
