"""TODO verbs.forget."""

from __future__ import annotations

import pyarrow.compute as pc

from embedcli.index.generations import Index
from embedcli.report import Say
from embedcli.verbs.change import Done, changing, known_root, ops


def forget(index: Index, root: str, *, warn: Say) -> Done:
    """Publish the next generation without a root and its documents. Raises InputError for a root unknown."""
    with changing(index, "forget", warn) as change:
        leaving = known_root(change.current, root)
        table = change.documents()
        mine = pc.equal(table.column("root"), leaving.id)
        gone = table.filter(mine)
        change.publish(
            roots=[other for other in change.current.roots if other.id != leaving.id],
            table=table.filter(pc.invert(mine)),
            changed=ops(gone, change.current, "removed"),
        )
        return change.done(gone)
