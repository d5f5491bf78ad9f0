"""TODO verbs.rollback."""

from __future__ import annotations

import time

import pyarrow as pa

from embedcli.errors import DamagedShard, StorageError, UsageError
from embedcli.index import changes
from embedcli.index.generations import Index, current_of
from embedcli.index.publish import finish_changes, point_back
from embedcli.report import Say
from embedcli.verbs.change import Done, done, locked


def rollback(index: Index, *, to: int | None = None, warn: Say) -> Done:
    """Make the parent, or generation `to`, the current one again: of the current one nothing is needed but its shards.

    Raises UsageError when it is not on disk, StorageError when it is not whole.
    """
    started = time.monotonic()
    index.check()
    if not index.numbers():
        current_of(index)
    with locked(index, warn) as held:
        finish_changes(index)
        current = index.linked_number()
        target = _way_back(index, to)
        table = index.documents(target, ["rows"])
        told = _changes_back(index, current, target, warn)
        point_back(index, target, expected=current, changes=told, lock_held=held.held)
        return done(index, "rollback", (target, current), table, started, warn)


def _way_back(index: Index, to: int | None) -> int:
    """The generation to go back to, whole on disk. Without `to` the current one's manifest has to be read."""
    current = index.linked_number() if to is not None else index.current_number()
    target = index.read(current).parent if to is None and current is not None else to
    others = [number for number in index.numbers() if number != current]
    lacking = {number: index.lacks(number) for number in others}
    whole = [number for number in others if not lacking[number]]
    kept = (
        f"whole are {', '.join(map(str, whole))}: `embedcli rollback --to N --index {index.folder}`"
        if whole
        else "no other one is kept whole"
    )
    if target is not None and target == current:
        raise UsageError(f"generation {target} is current already", kept)
    if target is None or target not in others:
        what = "its parent" if to is None else f"generation {to}"
        raise UsageError(
            f"cannot roll back: generation {current} is current and {what} is not kept in `{index.folder}`", kept
        )
    if lacking[target]:
        raise StorageError(f"cannot roll back to generation {target}: {lacking[target]}", kept)
    return target


def _changes_back(index: Index, current: int | None, target: int, warn: Say) -> pa.Table:
    """What a loader of `changes/` has to do; none where the rows of the current generation cannot be read."""
    now, then = (
        sorted(index.path(number).glob("vectors/*.parquet")) if number is not None else []
        for number in (current, target)
    )
    try:
        if now:
            return changes.between(now, then)
    except DamagedShard as error:
        warn(str(error))
    warn("what changes is not told in `changes/`: whoever follows it has to load the index anew")
    return changes.SCHEMA.empty_table()
