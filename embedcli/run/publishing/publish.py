"""What was finished becomes the next generation, at the end of a run and, until the first complete one, on the way.

In: the record of the run, the owners of its work. Out: the generation that is current now, and its table of documents.
Not here: the end of a run whose time is over (pace/end_early.py), what a generation is made of (parts.py), writing it
(index/publish.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from embedcli.index import documents, state
from embedcli.index.change_lists import incomplete
from embedcli.index.publish import publish as next_generation
from embedcli.run.known import table_of
from embedcli.run.publishing.own_staging import begin_staging, clear_staging, new_outcomes
from embedcli.run.publishing.parts import draft_of, left_over, table_of_next
from embedcli.run.publishing.recipe import mend_recipe
from embedcli.run.publishing.refusals import none_readable, refuse_losing_all, refuse_losing_rebuild

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation
    from embedcli.records import SourceKey
    from embedcli.run.begin_work import Work
    from embedcli.run.record import Run

FIRST_PUBLISH_EVERY_S = 3600.0


@dataclass(frozen=True)
class Published:
    """The generation that is current after the run (None: there is none yet), and its documents."""

    generation: Generation | None
    table: pa.Table


def publish_timer(run: Run) -> Callable[[], bool]:
    """Returns a function that says whether it is time to publish the finished documents: True once in each interval.

    Only until the first complete generation, and never while documents of two settings would be mixed, or those of a
    root with those of a wider root that takes it over; nor while those of a damaged shard, which is kept or goes as a
    whole, are not all read again.
    """
    complete = run.known.current is not None and run.known.current.complete
    asked = run.asked.publish_every_s
    every_s = FIRST_PUBLISH_EVERY_S if asked is None else asked
    if run.known.rebuilding or complete or run.scopes.absorbed or run.known.damaged or not every_s:
        return lambda: False
    last_s = time.monotonic()

    def is_due() -> bool:
        nonlocal last_s
        due = time.monotonic() - last_s >= every_s
        last_s = time.monotonic() if due else last_s
        return due

    return is_due


def publish_so_far(run: Run, work: Work) -> Run:
    """Publish the whole documents finished so far; returns the record under which the run goes on."""
    checkpoints = work.checkpoints
    checkpoints.save()
    if not documents.any_rows(checkpoints.outcomes.rows):
        return run
    run.report.line(f"publishing {len(checkpoints.outcomes):,} documents; the rest follows")
    phase = work.tally.progress.phase
    current = publish(run, work, complete=False, dropped=()).generation
    assert current is not None
    work.tally.progress.phase = phase
    known = dataclasses.replace(run.known, current=current, table=table_of(run.index, current), lacks_probe=False)
    run = dataclasses.replace(run, known=known)
    staging = begin_staging(run)
    checkpoints.go_on(staging, new_outcomes(run, staging))
    return run


def publish_all(run: Run, work: Work) -> Published:
    """Publish what a run that had time for everything has finished, and remove what it was collected in."""
    published = publish(run, work, complete=run.is_whole, dropped=run.plan.dropped)
    clear_staging(run)
    return published


def publish(run: Run, work: Work, *, complete: bool, dropped: Collection[SourceKey]) -> Published:
    """Make what was finished the next generation, less what is `dropped`; the current one stays where no row and no
    document's status changed. Raises StorageError, Locked, and InputError where nothing can be read."""
    current, outcomes, staging = run.known.current, work.checkpoints.outcomes, work.checkpoints.staging
    shards_known = {**(current.shards if current else {}), **staging.shards}
    left = left_over(run, work, shards_known, dropped)
    table = table_of_next(run, work, left, shards_known, dropped)
    if table.untold or left.lost:
        run.report.warn("`changes/` does not name every row of a damaged shard: loaders have to load everything again")
        table = dataclasses.replace(table, changes=incomplete(table.changes))
    material = table.material or bool(left.lost) or run.known.lacks_probe
    if current is not None and not material and _same_header(run, current, complete):
        state.write_seen(run.index.state, current.number, table.seen, run.index.disk)
        mend_recipe(run.index, current, run.report)
        return Published(current, table.table)
    refuse_losing_rebuild(run, outcomes)
    if not documents.any_rows(table.table):
        if current is not None:
            refuse_losing_all(run, table.table)
        elif complete:
            staging.remove()
            raise none_readable(table.table)
    if run.known.lacks_probe and work.embedder.reference is None:
        work.embedder.make_reference()
    work.tally.progress.phase = "publishing"
    run.report.progress(work.tally.progress, at_once=True)
    draft = draft_of(run, work, table, shards_known, complete=complete)
    generation, written = next_generation(
        run.index, draft, parent=run.known.parent, lock_held=run.lock.held, seconds_left=run.time.seconds_left
    )
    work.tally.bytes_rewritten += written
    return Published(generation, table.table)


def _same_header(run: Run, current: Generation, complete: bool) -> bool:
    same = current.roots == run.scopes.roots and current.mounts == run.plan.mounts
    names = ("model", "commit", "max_file_bytes")  # the rest would make other vectors
    same_settings = all(getattr(current.settings, name) == getattr(run.settings, name) for name in names)
    return same and same_settings and current.complete == complete
