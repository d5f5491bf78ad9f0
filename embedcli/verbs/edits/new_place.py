"""Where NEW of `moved` lies: in which root, under which path below it.

In: the roots of an index, what is moved, the new path. Out: a Place, or InputError for a path that cannot hold it.
Not here: changing the rows (moved.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embedcli.errors import InputError, quoted
from embedcli.index import documents
from embedcli.index.manifest import Generation
from embedcli.records import Root, digest, from_printable_path, printable, shown_path
from embedcli.sources import walk
from embedcli.sources.roots import below_root, inside
from embedcli.urls import is_url, real


@dataclass(frozen=True)
class Place:
    """`root` and `prefix`: the root in which the documents lie now, and the path below it that stands for `below`, the
    path that they had; `roots`: all roots of the index then; `forget`: the command that forgets where they were."""

    root: Root
    prefix: str
    below: str
    roots: Sequence[Root]
    forget: str

    def path_of(self, path: str) -> str:
        """The path below the new root of what had `path` below the old one."""
        rest = path[len(self.below) + 1 :] if self.below else path
        return "/".join(filter(None, (self.prefix, rest)))

    def refuse_doubled(self, others: pa.Table) -> None:
        """Raise InputError where `others`, the documents that do not move, have one in the new place already."""
        below = f"{self.prefix}/"
        for root, path in documents.keys(others) if self.below else ():
            if root == self.root.id and (path == self.prefix or path.startswith(below)):
                raise InputError(
                    f"the index has sources there already, `{path}` in `{shown_path(self.root)}` the first",
                    f"if they are the same, forget where they were: {self.forget}",
                )


def new_place(index: Path, current: Generation, old: tuple[Root, str], new: str, table: pa.Table) -> Place:
    """Where `old`, a root and a path below it, lies at NEW; `table` holds its documents. Raises InputError."""
    root, below = old
    if root.stream:
        raise InputError(f"`{root.path}` came as a stream, and has no path", "name a folder or a file first")
    place = walk.root_of(new)
    path = "/".join(filter(None, (root.path, os.fsdecode(from_printable_path(below)))))
    if place.path == path:
        raise InputError(
            f"it is already at `{shown_path(place)}`", "name the new path second: `embedcli moved OLD NEW`"
        )
    forget = f"`embedcli forget {quoted(path)} --index {quoted(index)}`"
    holder = _holder(current.roots, place.path) if below else None
    if holder is None:
        _refuse_overlap(current, root, below, place, index)
    _refuse_other_kind(root, below, path, place, table)
    if not below:
        renamed = dataclasses.replace(root, path=place.path)
        return Place(renamed, "", "", [renamed if other.id == root.id else other for other in current.roots], forget)
    left = dataclasses.replace(root, selection=without(root.selection, below))
    roots = [left if other.id == root.id else other for other in current.roots]
    if holder is None:
        added = _like(root, place, {other.id for other in roots})
        return Place(added, "", below, [*roots, added], forget)
    prefix = below_root(holder, place.path)
    home = next(other for other in roots if other.id == holder.id)
    if home.selection is not None and os.path.isdir(place.path):
        home = dataclasses.replace(home, selection=(*home.selection, prefix))
    return Place(home, prefix, below, [home if other.id == home.id else other for other in roots], forget)


def _holder(roots: Sequence[Root], path: str) -> Root | None:
    """The innermost root below whose folder `path` lies."""
    holding = [
        root
        for root in roots
        if not root.stream
        and root.path != path
        and inside(path, root.path)
        and (is_url(path) or os.path.isdir(root.path))
    ]
    return max(holding, key=lambda root: len(root.path), default=None)


def _refuse_overlap(current: Generation, root: Root, below: str, place: Root, index: Path) -> None:
    shown = shown_path(place)
    for other in current.roots:
        pairs = (other.path, place.path), (real(other.path), real(place.path))
        if (
            not other.stream
            and (below or other.id != root.id)
            and any(inside(one, two) or inside(two, one) for one, two in pairs)
        ):
            old = os.path.join(root.path, below) if below else root.path
            raise InputError(
                f"`{shown}` and the root `{shown_path(other)}` overlap",
                f"`embedcli forget {quoted(old)} --index {quoted(index)}`, then"
                f" `embedcli ingest {quoted(shown)} --index {quoted(index)}`: known vectors are reused",
            )
    if below and not is_url(place.path) and not os.path.isdir(place.path):
        raise InputError(
            f"`{shown}` is a file outside every root",
            f"`embedcli ingest {quoted(shown)} --index {quoted(index)}` reads it: known vectors are reused",
        )


def _refuse_other_kind(root: Root, below: str, path: str, place: Root, table: pa.Table) -> None:
    """A folder cannot have become a file, nor a file a folder; a root that is a file keeps its name, which its
    document has as its path."""
    if not table.num_rows:
        return
    single = table.column("uri")[0].as_py() == printable(os.fsencode(path))
    name, new_name = (printable(os.fsencode(os.path.basename(one))) for one in (path, place.path))
    stays_single = single if is_url(place.path) else os.path.isfile(place.path)  # of a bucket nothing is asked
    if single != stays_single or (single and not below and name != new_name):
        what = "it" if below else "the root"
        kind = f"a file called `{name}`" if single else "a folder"
        raise InputError(f"{what} is {kind}, and `{shown_path(place)}` is not", "name the new path of the root itself")


def without(selection: tuple[str, ...] | None, below: str) -> tuple[str, ...] | None:
    """A selection without the folders at or below `below`."""
    return None if selection is None else tuple(folder for folder in selection if not inside(folder, below))


def _like(root: Root, place: Root, taken: set[str]) -> Root:
    """The new root of a folder that was below `root`, with those of its filters that say the same there: a pattern with
    a slash in it counts from its root."""
    id_ = place.id
    while id_ in taken:  # a root that was moved away keeps the id of its old path
        id_ = digest(place.path, id_)
    include, exclude = _anywhere(root.include), _anywhere(root.exclude)
    include = include if len(include) == len(root.include) else ()
    return dataclasses.replace(root, id=id_, path=place.path, selection=None, include=include, exclude=exclude)


def _anywhere(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(pattern for pattern in patterns if "/" not in pattern.rstrip("/"))
