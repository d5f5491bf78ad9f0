"""The files of a list, each given to the root that it belongs to.

In: what was asked, the roots that the index remembers. Out: Scopes; of a list, the paths of its files in walk order.
A file belongs to the known root that holds it, else with the rest of the list to a selection of the folder that they
have in common. Not here: reading the list (filelist.py), roots that are named (roots.py), the walk (walk.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.config import Options
from embedcli.errors import InputError, UsageError
from embedcli.records import Root
from embedcli.sources import walk
from embedcli.sources.filters import Filter
from embedcli.sources.roots import (
    NO_FILTERS,
    Scope,
    Scopes,
    any_filter,
    below_root,
    from_the_top,
    home_of,
    inside,
    refuse_doubled,
    settle_roots,
    with_own_id,
)
from embedcli.sources.streams import with_streams

BATCH = 65536
IN_INDEX = "in the index itself"
FILTERED = "left out by the filters of their root"


def settle_sources(asked: Options, known: Sequence[Root], *, everything: bool) -> Scopes:
    """The roots of a run and what of them it covers, be it named, remembered or in a list. Raises as settle_roots."""
    streams = [root for root in known if root.stream]
    known = [root for root in known if not root.stream]
    scopes = settle_roots(asked, known, everything=everything)
    if asked.stream is not None or streams:
        scopes = with_streams(scopes, asked, streams, everything=everything)
    if asked.listed is not None and any_filter(asked):
        raise UsageError(
            "filters are for folders, and `--files-from` names files",
            NO_FILTERS,
        )
    if asked.listed is None:
        return scopes
    if next(iter(asked.listed), None) is None:
        raise InputError(
            "the list of files is empty; nothing was changed",
            "look at what the command says that makes the list; if there may be nothing to do, leave the run out then",
        )
    return _Lists(asked, scopes, known).scopes(asked.listed)


class _Lists:
    """Sorts the names of a list by their roots; those of one folder have the same root, so it is found once."""

    def __init__(self, asked: Options, scopes: Scopes, known: Sequence[Root]) -> None:
        self._asked = asked
        self._before = scopes
        self._roots = {root.path: root for root in scopes.roots if not root.stream}
        self._streams = tuple(root for root in scopes.roots if root.stream)
        self._known = known
        self._home_of: dict[str, Root | str | None] = {}
        self._single: dict[str, Scope] = {}
        self._paths: dict[str, _Paths] = {}
        self._rest = _Paths()
        self._folders: list[str] = []
        self._left_out: Counter[str] = Counter()

    def scopes(self, listed: Iterable[str]) -> Scopes:
        for file in listed:
            folder = os.path.dirname(file)
            if folder not in self._home_of:
                self._home_of[folder] = self._find_home(folder)
            home = self._home_of[folder]
            if isinstance(home, Root):
                self._paths.setdefault(home.path, _Paths()).add(below_root(home, file))
            elif home:
                self._left_out[home] += 1
            elif file in self._roots and not os.path.isdir(file):
                self._single[file] = Scope(self._roots[file])
            elif not os.path.isdir(file):
                self._rest.add(file)
            else:
                self._folders.append(file)
        self._give_rest()
        return self._scopes()

    def _find_home(self, folder: str) -> Root | str | None:
        """The root that holds the files of a folder, why they are left out, or None where no root holds them."""
        if inside(os.path.realpath(folder), os.path.realpath(self._asked.index)):
            return IN_INDEX
        above = (root for root in self._roots.values() if root.selection is None and inside(folder, root.path))
        whole = min((root for root in above if os.path.isdir(root.path)), key=lambda r: len(r.path), default=None)
        if whole is not None:
            return whole if walk.reaches(whole, folder) else FILTERED
        return home_of(self._roots, os.path.join(folder, "x"))

    def _give_rest(self) -> None:
        """What no known root holds is a selection of the folder that it has in common."""
        files = self._rest.taken()
        if not len(files):
            return
        folder = _common_folder(files)
        root = self._roots.get(folder)
        if root is None:
            ids = {root.id for root in self._known}
            root = replace(with_own_id(walk.root_of(folder), ids), selection=())
            self._roots[folder] = root
        paths = self._paths.setdefault(folder, _Paths())
        for batch in files.chunks:
            for file in batch.to_pylist():
                paths.add(below_root(root, os.fsdecode(file)))

    def _scopes(self) -> Scopes:
        known = {root.path for root in self._known}
        scopes = self._single | {scope.root.path: scope for scope in self._before.scopes if scope.is_whole}
        for path, found in self._paths.items():
            root = self._roots[path]
            paths = self._selected(root, _in_walk_order(found.taken()))
            if path not in scopes:
                scopes[path] = Scope(root, listed=paths, new=path not in known)
            elif root.selection is not None:
                scopes[path] = replace(scopes[path], named=frozenset(paths.to_pylist()))
        roots = tuple(self._roots.values())
        refuse_doubled(roots, self._asked)
        return replace(
            self._before, roots=(*roots, *self._streams), scopes=tuple(scopes.values()), left_out=+self._left_out,
            bare_folders=tuple(self._bare_folders()),
        )  # fmt: skip

    def _bare_folders(self) -> Iterator[str]:
        """Folders in the list of which it names nothing: `find docs` names each folder, and then what is in it."""
        named = {above for folder in self._home_of for above in from_the_top(folder)} if self._folders else set()
        yield from (folder for folder in self._folders if folder not in named and walk.has_entries(folder))

    def _selected(self, root: Root, paths: pa.Array) -> pa.Array:
        """Of a whole root those that its filters let through."""
        if root.selection is not None:
            return paths
        filters = Filter(root)
        kept = pa.array([not filters.leaves_out(path) for path in paths.to_pylist()], pa.bool_())
        self._left_out[FILTERED] += len(paths) - (pc.sum(kept).as_py() or 0)
        return paths.filter(kept)


class _Paths:
    """Paths, kept as Arrow arrays: a million Python strings would take 200 MB."""

    def __init__(self) -> None:
        self._batches: list[pa.Array] = []
        self._open: list[bytes] = []

    def add(self, path: str) -> None:
        self._open.append(os.fsencode(path))
        if len(self._open) == BATCH:
            self._close()

    def _close(self) -> None:
        self._batches.append(pa.array(self._open, pa.binary()))
        self._open = []

    def taken(self) -> pa.ChunkedArray:
        self._close()
        return pa.chunked_array(self._batches, pa.binary())


def _in_walk_order(paths: pa.ChunkedArray) -> pa.Array:
    """Sorted by path component, each once: NUL sorts before any character of a name."""
    unique = paths.unique().cast(pa.string())
    order = pc.sort_indices(pc.replace_substring(unique, "/", "\0"))
    return unique.take(order)


def _common_folder(files: pa.ChunkedArray) -> str:
    folder: str | None = None
    for batch in files.chunks:
        folders = {os.path.dirname(file) for file in batch.to_pylist()}
        if folders:
            common = os.fsdecode(os.path.commonpath(folders))
            folder = common if folder is None else os.path.commonpath([folder, common])
    return folder or "/"
