"""`rollback`: make an older generation the current one again.

In: an index and the number of a generation on disk. Out: `current` pointing to it, and a change list for loaders. It
works even when the current generation or its link is damaged.
Not here: the swap itself (index/publish.py), the text on the screen (cli/upkeep.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa

from embedcli.errors import DamagedIndex, DamagedShard, StorageError, UsageError, quoted
from embedcli.index import changes
from embedcli.index.change_lists import incomplete, is_incomplete
from embedcli.index.generations import Index, current_of
from embedcli.index.publish import finish_changes, point_back
from embedcli.paths import matching
from embedcli.report import Say
from embedcli.verbs.edits.change import Done, done, locked


def rollback(index: Index, *, to: int | None = None, warn: Say) -> Done:
    """Make generation `to` the current one again; without `to`, the parent of the current one, or where that cannot be
    read the newest one that is whole.

    Raises UsageError when that generation is not on disk, StorageError when it is not complete.
    """
    started = time.monotonic()
    index.check()
    if not index.numbers():
        current_of(index)
    with locked(index, warn) as lock:
        finish_changes(index)
        current = index.linked_number()
        target = _target(index, to)
        table = index.documents(target, ["rows"])
        reverse = _changes_back(index, current, target, warn)
        number = point_back(index, target, expected=current, changes=reverse, lock_held=lock.held)
        has_changes = not is_incomplete(reverse)
        return done(index, "rollback", (target, current, number), table, started, warn, has_changes=has_changes)


def _target(index: Index, to: int | None) -> int:
    """The generation to go back to, complete on disk."""
    current = index.linked_number()
    others = [number for number in index.numbers() if number != current]
    lacking = {number: index.lacks(number) for number in others}
    whole = [number for number in others if not lacking[number]]
    target = to if to is not None else _before(index, whole)
    kept = (
        f"complete are {', '.join(map(str, whole))}: `embedcli rollback --to N --index {quoted(index.shown)}`"
        if whole
        else "no other generation is complete; `embedcli ingest --keep-generations N` keeps more of them"
    )
    if target is not None and target == current:
        raise UsageError(f"generation {target} is already the current one", kept)
    if target is None or target not in others:
        what = "its parent" if to is None else f"generation {to}"
        raise UsageError(
            f"cannot roll back: generation {current} is current and {what} is not kept in `{index.shown}`", kept
        )
    if lacking[target]:
        raise StorageError(f"cannot roll back to generation {target}: {lacking[target]}", kept)
    return target


def _before(index: Index, whole: Sequence[int]) -> int | None:
    """The parent of the current generation; where that cannot be read, the newest one that is whole. Raises
    DamagedIndex where there is none, and NoIndex where an older program cannot read the current one."""
    try:
        generation = index.current()
    except DamagedIndex:
        if not whole:
            raise
        return max(whole)
    return None if generation is None else generation.parent


def _changes_back(index: Index, current: int | None, target: int, warn: Say) -> pa.Table:
    """The changes from the current generation to `target`; empty, with a warning, where its rows cannot be read."""
    now, then = (
        matching(index.path(number) / "vectors", "*.parquet") if number is not None else []
        for number in (current, target)
    )
    try:
        if now:
            return changes.between(now, then)
    except DamagedShard as error:
        warn(str(error))
    warn("`changes/` does not have this change: a loader that follows it must load the whole index again")
    return incomplete(changes.SCHEMA.empty_table())
