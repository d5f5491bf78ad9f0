"""`forget`: remove a root and its documents from the index.

In: an index and the path of a root. Out: the next generation without that root; its files are not touched, and its
vectors are reused if it is ingested again soon.
Not here: locking and publishing (change.py), the text on the screen (cli/upkeep.py).
"""

from __future__ import annotations

import pyarrow.compute as pc

from embedcli.index.generations import Index
from embedcli.report import Say
from embedcli.verbs.change import Done, changing, known_root, ops


def forget(index: Index, root: str, *, warn: Say) -> Done:
    """Publish the next generation without a root and its documents. Raises InputError for an unknown root."""
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
