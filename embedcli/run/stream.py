"""Sources stream through the readers, the known vectors and the engine, and come out as whole documents.

In: the record of a run and the owners of its work. Out: after each pass the documents that became whole and the sources
that were refused, perhaps none. A run that is stopped, that loses its engine, or whose time is over, gives what was in
hand before it ends.
Not here: which sources (plan.py), the processes that read (readers.py), what becomes of a document
(outcome.py), storing it (checkpoints.py), how the engine is kept alive (engines/feeder.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from embedcli.errors import EngineError, Stopped, UnreadableSource
from embedcli.reading.rows import Holder, Read, ReadRecords, Result
from embedcli.report import Pace
from embedcli.run.containers.ended import OpenContainers, read_by_themselves
from embedcli.run.containers.members import Members
from embedcli.run.readers import reading
from embedcli.run.tasks import AnyTask, Contained, ContainerEnd, Refused, Task

if TYPE_CHECKING:
    from embedcli.reading.pool import Pool
    from embedcli.run.begin_work import Work
    from embedcli.run.pending import Ended
    from embedcli.run.record import Run

MOST_PENDING = 1024
"""Documents waiting for vectors: many may wait for one vector that is on its way already."""


@contextmanager
def stream(run: Run, work: Work) -> Iterator[Iterator[list[Ended]]]:
    """The reading processes and the engine, for as long as the context lasts. Raises EmbedcliError."""
    if len(work.adopted) == run.plan.tasks.count:  # nothing to start a reader for
        yield iter(())
        return
    with stream_tasks(run, work, (task for task in run.plan.tasks if task.key not in work.adopted)) as passes:
        yield passes


@contextmanager
def stream_tasks(run: Run, work: Work, tasks: Iterator[Task]) -> Iterator[Iterator[list[Ended]]]:
    """The same for these tasks, which may come while the context lasts: they are pulled by threads of the pool."""
    members = Members(run.known.table)
    with reading(run, tasks, members=members, spool_folder=work.checkpoints.staging.folder) as pool:
        containers = OpenContainers(members, run.rules, run.plan, run.report.warn)
        try:
            yield _Stream(run, work, pool, containers).passes()
        finally:
            work.embedder.close(abort=True)


class _Stream:
    """One loop: take a reading, give its chunks to the engine, collect the documents that are whole."""

    def __init__(self, run: Run, work: Work, pool: Pool[AnyTask, Result], containers: OpenContainers) -> None:
        self._containers = containers
        self._run = run
        self._pending = work.pending
        self._embedder = work.embedder
        self._progress = work.tally.progress
        self._seconds = work.tally.seconds
        self._started_s = time.monotonic()
        self._pool = pool
        self._remaining = work.remaining
        self._warned_of_language = False

    def passes(self) -> Iterator[list[Ended]]:
        self._progress.phase = "reading"
        try:
            while not (self._pool.done and not self._pending.waiting):
                self._run.stop_if_asked("finishing the batch in hand")
                if self._run.time.is_over():
                    yield self._in_hand(within_s=max(0.0, self._run.time.seconds_left()))
                    return
                yield self._pass()
        except (Stopped, EngineError):
            yield self._in_hand()
            raise

    def _pass(self) -> list[Ended]:
        """Read one source if there is room, and collect what the engine has finished."""
        pending = self._pending.waiting
        may_read = pending < MOST_PENDING and not self._embedder.full and not self._pool.done
        ended: list[Ended] = []
        if may_read:
            outcome = self._pool.get(0.005 if pending else 0.2)
            if outcome is not None:
                ended += self._take(*outcome)
        if self._pool.done:
            self._seconds.setdefault("reading", time.monotonic() - self._started_s)
            self._embedder.flush()
        for document in self._pending.collect(0.0 if may_read else 0.05):
            ended += self._containers.ended(document)
        self._progress.tokens = self._embedder.tokens
        self._progress.tokens_left = self._pending.tokens.asked - self._progress.tokens + self._remaining.tokens
        self._seconds |= self._embedder.seconds
        self._progress.pace = Pace(self._seconds["embedding"], self._pending.tokens.read)
        return ended

    def _take(self, task: AnyTask, result: Result | UnreadableSource) -> list[Ended]:
        if isinstance(task, ContainerEnd):
            self._remaining.note(task.container, to_embed=0)
            return self._containers.end(task)
        before = self._pending.tokens.asked
        if isinstance(task, Task):
            assert not isinstance(result, ReadRecords)
            ended = self._read(task, Read(result) if isinstance(result, UnreadableSource) else result[0])
            self._remaining.note(task, to_embed=self._pending.tokens.asked - before)
            return ended
        self._containers.batch(task)
        if isinstance(result, ReadRecords):
            documents = result.documents_table()
            for uri, share in zip(
                *(documents.column(name).to_pylist() for name in ("uri", "latin_share")), strict=True
            ):
                self._warn_of_language(uri, share)
            self._pending.take_records(task, documents, result.table())
        ended = []
        for one, read in read_by_themselves(task, result):
            ended += self._read(one, read)
        to_embed = self._pending.tokens.asked - before
        self._remaining.note_part(task.container, size_bytes=task.size_bytes, to_embed=to_embed)
        return ended

    def _read(self, task: Task, read: Read) -> list[Ended]:
        """A source, and what is inside it: each goes on alone."""
        own = read.own
        refused = own.reason if isinstance(own, UnreadableSource) else None
        inside = self._containers.of_file(task, [name for name, _ in read.members], refused=refused)
        ended: list[Ended] = []
        if isinstance(own, UnreadableSource):
            ended += self._containers.ended(Refused(task, own.reason, own.sha256))
        elif isinstance(own, Holder):
            ended += self._containers.ended(Contained(task, own.stat, own.sha256, reason="portfolio"))
        else:
            self._warn_of_language(task.source.uri, own.latin_share)
            self._pending.take(task, own)
        for member, (_, inner) in zip(inside, read.members, strict=True):
            ended += self._read(member, inner)
        return ended

    def _in_hand(self, *, within_s: float | None = None) -> list[Ended]:
        """Collect what the engine still finishes: wait for its batches in flight, at most `within_s` seconds, but not
        while the model is being loaded."""
        self._embedder.close(abort=self._progress.loading, within_s=within_s)
        with suppress(EngineError):  # the error that ended the run, raised a second time
            documents = self._pending.collect(0.0)
            return [ended for document in documents for ended in self._containers.ended(document)]
        return []

    def _warn_of_language(self, uri: str, latin_share: float) -> None:
        if self._warned_of_language or not self._run.model.english or latin_share >= 0.9:
            return
        self._warned_of_language = True
        self._run.report.line(
            f"note: `{self._run.settings.model}` is an English model, and over a tenth of the letters of"
            f" `{uri}` (the first such source) are outside Latin;"
            " Qwen/Qwen3-Embedding-0.6B knows a hundred languages"
        )
