"""What a run speaks of: the roots named or remembered, and how they lie in each other.

In: what was asked, the roots that the index remembers. Out: the roots after this run, and the parts of them to walk.
Not here: walking them (walk.py), what is done about what is found there (run/plan.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from embedcli.config import Options
from embedcli.errors import InputError, UsageError
from embedcli.records import Root, digest, printable
from embedcli.sources import walk

_PART = re.compile(r"[^/]+")


@dataclass(frozen=True)
class Scope:
    """A root, or a folder or file below it, that this run speaks of."""

    root: Root
    below: str = ""

    def holds(self, path: str) -> bool:
        return not self.below or inside(path, self.below)


@dataclass(frozen=True)
class Scopes:
    """Every root of the index after this run, in the order of documents.parquet, and what this run speaks of."""

    roots: tuple[Root, ...]
    scopes: tuple[Scope, ...]
    absorbed: frozenset[str]
    absorbed_paths: tuple[str, ...]


def settle_roots(asked: Options, known: Sequence[Root], *, everything: bool) -> Scopes:
    """The roots named, or the remembered ones, and both where `everything` is made anew.

    A SOURCE belongs to the outermost known root that holds it, also where its name leads there by a link.

    Raises InputError for a source that does not exist, UsageError for filters on a part of a root, for the index
    itself, and for roots that are the same folder, or one in the other, under two paths.
    """
    named = [walk.root_of(path) for path in asked.sources]
    for new in named:
        _refuse_index(new, asked)
    named = _by_known_names(named, known)
    remembered = [_still_there(root, asked) for root in known] if everything or not named else []
    meant = {root.path for root in named or remembered}  # what the filters are for
    roots = {root.path: root for root in known}
    ids = {root.id for root in known}
    scopes: dict[Scope, None] = {}
    for new in sorted([*named, *remembered], key=lambda root: len(root.path)):
        root = _holder(roots, new.path) or _with_own_id(new, ids)
        below = printable(os.fsencode(new.path[len(root.path) :].strip("/")))
        roots[root.path] = _filtered(root, asked, below) if new.path in meant else root
        scopes[Scope(roots[root.path], below)] = None
    absorbed = {path: root.id for path, root in roots.items() if _holder(roots, path) is not root}
    kept = tuple(root for path, root in roots.items() if path not in absorbed)
    _refuse_doubled(kept, asked)
    return Scopes(kept, tuple(_uncovered(scopes)), frozenset(absorbed.values()), tuple(absorbed))


def _holder(roots: Mapping[str, Root], path: str) -> Root | None:
    """The outermost of the roots, by their paths, that holds what lies at `path`."""
    above = (roots.get(place) for place in _from_the_top(path))
    return next((root for root in above if root is not None and _holds(root, path)), None)


def _from_the_top(path: str) -> Iterator[str]:
    """`/`, `/a` and `/a/b` for `/a/b`; the empty path, `a` and `a/b` for `a/b`."""
    yield path[: path.startswith("/")]
    yield from (path[: part.end()] for part in _PART.finditer(path))


def _by_known_names(named: Sequence[Root], known: Sequence[Root]) -> list[Root]:
    """The same places as the roots reach them that are known, or named beside them: a link gives a folder two paths."""
    roots = {root.path: root for root in known}
    places = {os.path.realpath(root.path): root for root in known}
    found: list[Root] = []
    for real, new in sorted(((os.path.realpath(root.path), root) for root in named), key=lambda pair: len(pair[0])):
        way = None if _holder(roots, new.path) else next((way for _, way in _ways_to(places, real)), None)
        new = new if way is None else walk.root_of(way)
        roots.setdefault(new.path, new)
        places.setdefault(real, new)
        found.append(new)
    return found


def _ways_to(places: Mapping[str, Root], real: str) -> Iterator[tuple[Root, str]]:
    """The roots, by their real paths, whose walk comes to this one, the outermost first, with the path by which it
    does."""
    for place in _from_the_top(real):
        root = places.get(place)
        if root is not None:
            below = real[len(place) :].lstrip("/")
            way = os.path.join(root.path, below) if below else root.path
            if _holds(root, way):
                yield root, way


def _with_own_id(new: Root, taken: set[str]) -> Root:
    """A root that was moved keeps the id of the path where it was: what is there now is another root."""
    while new.id in taken:
        new = replace(new, id=digest(new.path, new.id))
    taken.add(new.id)
    return new


def _refuse_doubled(roots: Sequence[Root], asked: Options) -> None:
    """Also what was well last night: a link may lead elsewhere now, and a filter may be lifted."""
    reals = [(os.path.realpath(root.path), root) for root in roots]
    places = dict(reals)
    for real, root in reals:
        for other, way in _ways_to(places, real):
            if other is not root:
                shown, twice = (printable(os.fsencode(path)) for path in (root.path, way))
                raise UsageError(
                    f"the root `{shown}` is also `{twice}`, by a link: its documents would be there twice",
                    f"`embedcli forget {shown} --index {asked.index}`, then the same command again: the vectors that"
                    " are known are used again",
                )


def _uncovered(scopes: Iterable[Scope]) -> Iterator[Scope]:
    """Without those that lie in another one."""
    parts = {(scope.root.id, scope.below) for scope in scopes}
    for scope in scopes:
        above = list(_from_the_top(scope.below))[:-1]
        if not any((scope.root.id, below) in parts for below in above):
            yield scope


def _refuse_index(root: Root, asked: Options) -> None:
    if inside(os.path.realpath(root.path), os.path.realpath(asked.index)):
        raise UsageError(
            f"`{printable(os.fsencode(root.path))}` is the index itself, or in it", "name the folder of the documents"
        )


def _still_there(root: Root, asked: Options) -> Root:
    """The remembered root as if it were named. Raises InputError where it is no more."""
    try:
        return walk.root_of(root.path)
    except InputError as error:
        shown = printable(os.fsencode(root.path))
        raise InputError(
            f"a root of this index is not there: `{shown}`",
            f"mount it; if it is elsewhere now, `embedcli moved {shown} NEW --index {asked.index}`;"
            f" if it is to leave the index, `embedcli forget {shown} --index {asked.index}`",
        ) from error


def _holds(root: Root, path: str) -> bool:
    """Whether what lies at `path` is a source of the root, or a folder of such: a root holds what its walk reaches."""
    return path == root.path or (inside(path, root.path) and walk.reaches(root, path))


def inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _filtered(root: Root, asked: Options, below: str) -> Root:
    """The root with the filters asked for; those that it has where nothing was said."""
    if below and any((asked.include, asked.exclude, asked.gitignore is not None)):
        raise UsageError(
            f"filters are remembered for a whole root, and `{below}` is a part of `{root.path}`",
            f"name the root: `embedcli ingest {root.path} --index {asked.index} ...`",
        )
    return replace(
        root,
        include=_patterns(asked.include, root.include),
        exclude=_patterns(asked.exclude, root.exclude),
        gitignore=root.gitignore if asked.gitignore is None else asked.gitignore,
    )


def _patterns(asked: tuple[str, ...], remembered: tuple[str, ...]) -> tuple[str, ...]:
    """An empty pattern is how one forgets those that are remembered."""
    return tuple(filter(None, asked)) if asked else remembered
