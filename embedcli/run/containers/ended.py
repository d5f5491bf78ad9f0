"""Containers that are read: each ends after all that is in it, so that no checkpoint names one that is not whole.

In: what was read of a source, the ends of documents and containers. Out: each source as it ends, in the order in which
it may be stored. What a container does not hold any more has left, unless it is so much that the guard keeps it.
Not here: their way to the readers (feed.py), vectors (pending.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedcli.errors import InputError, UnreadableSource, quoted
from embedcli.reading.rows import Read, ReadRecords
from embedcli.reading.splitter import MOST_BAD_LINES
from embedcli.records import SKIP_REASONS, Source, SourceKey
from embedcli.run.containers.members import Members
from embedcli.run.looking.gone import SMALLEST_GUARDED
from embedcli.run.pending import PendingRecords
from embedcli.run.tasks import Contained, ContainerEnd, LastSeen, RecordTask, Refused, Task
from embedcli.urls import absolute

if TYPE_CHECKING:
    from embedcli.config import Rules
    from embedcli.reading.rows import Result
    from embedcli.run.pending import Ended, EndedFile
    from embedcli.run.plan import Plan


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
