"""What workers have stored is adopted by the run.

In: the answers of workers, the folders of lost ones. Out: the documents are in the staging folder and counted. What
workers have finished is what a killed run leaves, so adopting it is what the next run would do.
Not here: hearing the workers and giving them more (coordinator.py), what is given to whom (slices.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from embedcli.cluster.messages import Answer, owner_of
from embedcli.errors import InputError, StorageError
from embedcli.index.leftovers import finished_by
from embedcli.index.outcomes import Stored
from embedcli.run.adoption import adoptable

if TYPE_CHECKING:
    from embedcli.cluster.crew import Member
    from embedcli.cluster.slices import Slices
    from embedcli.index.outcomes import Outcome
    from embedcli.index.shards import Shard
    from embedcli.records import SourceKey
    from embedcli.run.begin_work import Work
    from embedcli.run.record import Run
    from embedcli.run.tasks import Task

LOOK_S = 0.5
NOT_SEEN = {"vanished", "permission"}

VISIBLE_S = 10.0
"""How long a file that a worker has stored may take to be seen here: NFS remembers for seconds what is not there."""


class Adopter:
    """Takes over what is stored of slices."""

    def __init__(self, run: Run, work: Work, slices: Slices) -> None:
        self._run = run
        self._work = work
        self._slices = slices

    def doubt(self, answer: Answer) -> InputError | None:
        """Why the worker that gave the answer cannot be believed; None where it can."""
        tasks = self._slices.tasks_of(answer.slice_id)
        missed = tasks.keys() & {outcome.key for outcome in answer.stored.outcomes if outcome.reason in NOT_SEEN}
        unseen = next((tasks[key] for key in missed if _is_here(tasks[key])), None)
        if unseen is None:
            return None
        return InputError(f"`{unseen.source.uri}` is not there for it, but here", "mount the sources on its machine")

    def adopt(self, member: Member, answer: Answer) -> bool:
        """Take over what is stored of a slice; False where it is closed. Raises StorageError."""
        tasks = self._slices.tasks_of(answer.slice_id)
        outcomes = [_as_seen_here(outcome, tasks) for outcome in answer.stored.outcomes]
        ended = tasks.keys() & {outcome.key for outcome in outcomes}
        done = self._slices.answer(member.name, answer.slice_id, set(ended), writer=member.writer)
        if done is None:
            return False
        member.has_answered = True
        stored = Stored(outcomes, answer.stored.records)
        self._work.checkpoints.adopt(stored, self._seen_here(member, answer.shards))
        self._work.tally.take(answer.tally)
        self._run.plan.gone |= answer.gone
        self._run.plan.cleared |= answer.cleared
        tokens = {o.key: o.row.tokens for o in outcomes if o.row is not None}
        for task in done:
            self._work.remaining.note(task, to_embed=tokens.get(task.key, 0))
        return True

    def _seen_here(self, member: Member, shards: Sequence[Shard]) -> dict[str, Shard]:
        """What a worker has stored, as it lies on this machine. Raises StorageError where it is not to be seen."""
        index = self._run.index
        folder = index.staging / member.writer
        here = {shard.name: dataclasses.replace(shard, folder=folder, keys_folder=folder) for shard in shards}
        for shard in here.values():
            index.disk.expect(shard.path, shard.size_bytes, shard.sha256)
            index.disk.expect(shard.keys_path, None, shard.keys_sha256)
        _wait_until_visible(here.values())
        return here

    def adopt_from(self, member: Member, number: int) -> set[SourceKey]:
        """Take over what a lost worker had stored and not answered, as a run takes over from one that was killed; what
        it stored for a generation that is published by now has the wrong number in its rows."""
        if member.facts is None or member.number != number:
            return set()
        wanted = {task.key: task for task in adoptable(self._run, self._slices.alone_with(member.name))}
        folder = self._run.index.staging / member.writer
        self._run.index.disk.update(folder)
        shards, outcomes = finished_by(folder, wanted)
        outcomes = [_as_seen_here(outcome, wanted) for outcome in outcomes]
        self._work.checkpoints.adopt(Stored(outcomes, []), shards)
        for outcome in outcomes:
            self._work.tally.adopt(wanted[outcome.key], outcome)
            self._work.remaining.note(wanted[outcome.key], to_embed=0)
        return {outcome.key for outcome in outcomes}


def _is_here(task: Task) -> bool:
    """Whether this machine can open a source that a worker did not find or might not open."""
    looked_at = task.source.problem is None and not task.source.is_object
    return looked_at and os.access(task.source.file, os.R_OK)


def _as_seen_here(outcome: Outcome, tasks: dict[tuple[str, str], Task]) -> Outcome:
    """The outcome with the stat that the walk found, if size and time are the same: another machine may give a file
    another inode and ctime, and the next walk is here. A change that this hides has another stat at that walk."""
    task = owner_of(outcome.key, tasks)
    here, there = task.source.stat if task else None, outcome.stat
    if here is None or there is None or outcome.row is None or not there.ctime_ns:
        return outcome
    if (here.size, here.mtime_ns) != (there.size, there.mtime_ns):
        return outcome
    row = outcome.row.replace(ctime_ns=here.ctime_ns, inode=here.inode)
    return dataclasses.replace(outcome, stat=here, row=row)


def _wait_until_visible(shards: Iterable[Shard]) -> None:
    """Raise StorageError where a shard that a worker has stored does not come to be seen here."""
    give_up_s = time.monotonic() + VISIBLE_S
    for shard in shards:
        while not _is_visible(shard):
            if time.monotonic() > give_up_s:
                raise StorageError(
                    f"`{shard.path}`, which a worker has stored, is not to be seen here",
                    "the index has to lie on a filesystem that every worker shares",
                )
            time.sleep(LOOK_S)


def _is_visible(shard: Shard) -> bool:
    with contextlib.suppress(OSError), shard.path.open("rb") as file, shard.keys_path.open("rb"):
        return os.fstat(file.fileno()).st_size == shard.size_bytes
    return False
