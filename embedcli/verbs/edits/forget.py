"""`forget`: remove a root, or what lies below a folder of it, from the index.

In: an index and the path of a root, or of a folder or a source below one. Out: the next generation without its
documents; its files are not touched, and its vectors are reused if it is ingested again soon.
Not here: locking and publishing (change.py), the text on the screen (cli/upkeep.py).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from embedcli.errors import quoted
from embedcli.index.generations import Index
from embedcli.records import Root, printable
from embedcli.report import Say
from embedcli.sources.filters import EMBEDCLIIGNORE
from embedcli.urls import absolute, is_url
from embedcli.verbs.edits.change import Done, changing, known_part, ops
from embedcli.verbs.edits.new_place import without


def forget(index: Index, path: str, *, warn: Say) -> Done:
    """Publish the next generation without a root and its documents, or without the documents of a part of a root.
    Raises InputError for a path that is neither."""
    with changing(index, "forget", warn) as change:
        table = change.documents()
        root, below, there = known_part(change.current, path, table)
        gone = table.filter(pa.array(there))
        change.publish(
            roots=list(_roots(change.current.roots, root, below)),
            table=table.filter(pa.array(~there)),
            changed=ops(gone, change.current, "removed"),
        )
        place = absolute(path)
        if below and root.selection is None and (is_url(place) or os.path.lexists(place)):
            shown = printable(os.fsencode(place))
            warn(f"`{shown}` is still there, and the next run reads it again; {_kept_out(root, below)}")
        return change.done(gone)


def _kept_out(root: Root, below: str) -> str:
    """How the next runs leave out what lies at this path below the root, and nothing else: a line in an ignore file,
    for `--exclude` would take the place of the patterns that are remembered, and hold for other roots too."""
    pattern = "/" + re.sub(r"([\\*?[]| $)", r"\\\1", below)
    bare = pattern.removesuffix("\\ ")
    if is_url(root.path) or pattern.splitlines() != [pattern] or bare != bare.rstrip():  # as ignore files are read
        return "remove it, or leave it out with a pattern of `--exclude`"
    ignore_file = quoted(os.path.join(root.path, EMBEDCLIIGNORE))
    # a line of its own, also where the file does not end in one
    return f"`printf '\\n%s\\n' {quoted(pattern)} >> {ignore_file}` leaves it out"


def _roots(roots: Sequence[Root], leaving: Root, below: str) -> Iterator[Root]:
    """The roots that stay; one that loses a part does not go on selecting it."""
    for root in roots:
        if root.id != leaving.id:
            yield root
        elif below:
            yield dataclasses.replace(root, selection=without(root.selection, below))
