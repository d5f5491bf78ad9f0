"""What a run speaks of: the roots named or remembered, and how they lie in each other.

In: what was asked, the roots that the index remembers. Out: the roots after this run, and the parts of them to walk.
Not here: walking them (sources.py), what is done about what is found there (plan.py).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from embedcli import sources
from embedcli.config import Asked
from embedcli.errors import InputError, UsageError
from embedcli.records import Root, printable


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


def settle_scopes(asked: Asked, known: Sequence[Root], *, everything: bool) -> Scopes:
    """The roots named, or the remembered ones, and both where `everything` is made anew.

    A SOURCE belongs to the outermost known root that holds it, by whatever links it is named.

    Raises InputError for a source that does not exist, UsageError for filters on a part of a root, for the index
    itself, and for a folder that holds what a root has by a link.
    """
    roots = {root.id: root for root in known}
    named: list[Root] = []
    for path in asked.sources:
        new = sources.root_of(path)
        _refuse_index(new, asked)
        named.append(_by_its_known_name(new, [*known, *named], asked))
    remembered = [_still_there(root, asked) for root in known] if everything or not named else []
    meant = {root.path for root in named or remembered}  # what the filters are for
    scopes: dict[Scope, None] = {}
    for new in sorted([*named, *remembered], key=lambda root: len(root.path)):
        root = next((root for root in roots.values() if _holds(root, new.path)), new)
        below = printable(os.fsencode(new.path[len(root.path) :].strip("/")))
        roots[root.id] = _filtered(root, asked, below) if new.path in meant else root
        scopes[Scope(roots[root.id], below)] = None
    chosen = [scope for scope in scopes if not any(_covers(other, scope) for other in scopes)]
    absorbed = {
        inner.id
        for inner in roots.values()
        if any(inner is not outer and _holds(outer, inner.path) for outer in roots.values())
    }
    kept = tuple(root for root in roots.values() if root.id not in absorbed)
    return Scopes(kept, tuple(chosen), frozenset(absorbed), tuple(roots[root_id].path for root_id in sorted(absorbed)))


def _refuse_index(root: Root, asked: Asked) -> None:
    if inside(os.path.realpath(root.path), os.path.realpath(asked.index)):
        raise UsageError(
            f"`{printable(os.fsencode(root.path))}` is the index itself, or in it", "name the folder of the documents"
        )


def _by_its_known_name(new: Root, known: Collection[Root], asked: Asked) -> Root:
    """The same place as a known root reaches it, where links give it two paths: no source is there twice."""
    if any(_holds(root, new.path) for root in known):
        return new
    real = replace(new, path=os.path.realpath(new.path))
    for root in known:
        place = os.path.realpath(root.path)
        if inside(real.path, place) and _holds(root, path := root.path + real.path[len(place) :]):
            return sources.root_of(path)
        if _holds(real, place) and not _holds(new, root.path):
            shown, inner = (printable(os.fsencode(path)) for path in (new.path, root.path))
            raise UsageError(
                f"`{shown}` holds the folder that the root `{inner}` is a link to: all of it would be there twice",
                f"`embedcli moved {inner} {printable(os.fsencode(place))} --index {asked.index}`, then the same again",
            )
    return new


def _still_there(root: Root, asked: Asked) -> Root:
    """The remembered root as if it were named. Raises InputError where it is no more."""
    try:
        return sources.root_of(root.path)
    except InputError as error:
        shown = printable(os.fsencode(root.path))
        raise InputError(
            f"a root of this index is not there: `{shown}`",
            f"mount it; if it is elsewhere now, `embedcli moved {shown} NEW --index {asked.index}`;"
            f" if it is to leave the index, `embedcli forget {shown} --index {asked.index}`",
        ) from error


def _holds(root: Root, path: str) -> bool:
    """Whether what lies at `path` is a source of the root, or a folder of such: a root holds what its walk reaches."""
    return path == root.path or (inside(path, root.path) and sources.reaches(root, path))


def inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _covers(other: Scope, scope: Scope) -> bool:
    return other.root.id == scope.root.id and other != scope and other.holds(scope.below or "\0")


def _filtered(root: Root, asked: Asked, below: str) -> Root:
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
