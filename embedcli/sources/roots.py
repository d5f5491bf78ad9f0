"""Which roots a run covers: those that were named or are remembered, and how they lie in one another.

In: what was asked, the roots that the index remembers. Out: the roots after this run, and the parts of them to walk.
Not here: walking them (walk.py), what is done about what is found there (run/looking/).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from embedcli.config import Options
from embedcli.errors import InputError, UsageError, quoted
from embedcli.records import PLAIN_RULE, RecordRule, Root, Source, digest, printable, printable_path, stat_of
from embedcli.sources import walk
from embedcli.sources.filters import refuse_lists
from embedcli.urls import is_url, real

NO_FILTERS = "name the folder, or leave out `--include`, `--exclude`, `--gitignore` and `--records`"
"""The hint where filters were given for single files."""

_PART = re.compile(r"[^/]+")


@dataclass(frozen=True)
class StreamIn:
    """What came on stdin, spooled to a file; `whole`: it is all that there is under its name."""

    file: str
    whole: bool

    def source(self, root: Root) -> Source:
        return Source(root.id, root.path, self.file, stat_of(os.stat(self.file)), address=root.path)


@dataclass(frozen=True)
class Scope:
    """A root that this run covers, or a folder or file below it."""

    root: Root
    below: str = ""
    named: frozenset[str] = frozenset()
    """Of a selection: files that this run names, by their paths below the root."""
    listed: pa.Array | None = None
    """Paths below the root, in walk order: this run looks at these files alone."""
    stream: StreamIn | None = None
    before: Root | None = None
    """The root as the index remembers it, where its records are read otherwise now."""
    new: bool = False
    """Of a list: the index knows nothing of the root, so the list is all of it."""

    def holds(self, path: str) -> bool:
        return not self.below or inside(path, self.below)

    def is_all_of(self, root: Root) -> bool:
        """Of a stream: whether this run has all of it."""
        return self.root.id == root.id and self.stream is not None and self.stream.whole

    @property
    def is_whole(self) -> bool:
        """Whether the run looks at all that the index has of the root."""
        return not self.below and (self.listed is None or self.new)


@dataclass(frozen=True)
class Scopes:
    """Every root of the index after this run, in the order of documents.parquet, and which parts this run covers.

    `absorbed`: the ids of known roots that a wider root takes over; `absorbed_paths`: their paths.
    """

    roots: tuple[Root, ...]
    scopes: tuple[Scope, ...]
    absorbed: frozenset[str]
    absorbed_paths: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Names of a list that are no sources: why, and how many."""
    bare_folders: tuple[str, ...] = ()
    """Folders in a list that names nothing in them, though something is there."""

    @property
    def places(self) -> tuple[str, ...]:
        """The real paths of all roots on this machine."""
        return tuple(os.path.realpath(root.path) for root in self.roots if not (root.stream or is_url(root.path)))


def settle_roots(asked: Options, known: Sequence[Root], *, everything: bool) -> Scopes:
    """The roots named, or the remembered ones, and both where `everything` is made anew.

    A SOURCE belongs to the outermost known root that holds it, also where its name leads there by a link.

    Raises InputError for a source that does not exist, UsageError for filters on a part of a root, for the index
    itself, and for roots that are the same folder, or one in the other, under two paths.
    """
    named = [walk.root_of(path) for path in asked.sources]
    for new in named:
        _refuse_index(new, asked)
    named, files = _apart(_by_known_names(named, known), known)
    remembered = [_still_there(root, asked) for root in known] if everything or not asked.names_sources else []
    meant = {root.path for root in named or (() if files else remembered)}  # what the filters are for
    roots = {root.path: root for root in known}
    ids = {root.id for root in known}
    selected = _select(files, roots, ids, asked)
    scopes: dict[Scope, None] = {}
    for new in sorted([*named, *remembered], key=lambda root: len(root.path)):
        root = holder(roots, new.path)
        home = None if root is not None else home_of(roots, new.path)
        if home is not None:  # a folder in a selection becomes a whole part of it
            roots[home.path] = replace(home, selection=(*(home.selection or ()), below_root(home, new.path)))
            selected.setdefault(home.path, set())
            continue
        root = root or with_own_id(new, ids)
        if root.path == new.path and new in named:  # the folder itself: all of it from now on
            root = replace(root, selection=None)
        below = below_root(root, new.path)
        roots[root.path] = _filtered(root, asked, below) if new.path in meant else root
        changed = roots[root.path].records != root.records
        scopes[Scope(roots[root.path], below, before=root if changed else None)] = None
    absorbed = {path: root.id for path, root in roots.items() if holder(roots, path) is not root}
    kept = tuple(root for path, root in roots.items() if path not in absorbed)
    refuse_doubled(kept, asked)
    parts = [Scope(roots[path], named=frozenset(names)) for path, names in selected.items() if path not in absorbed]
    whole = [scope for scope in _uncovered(scopes) if scope.root.path not in selected]
    return Scopes(kept, (*whole, *parts), frozenset(absorbed.values()), tuple(absorbed))


# ---- files that are named one by one


def _apart(named: Sequence[Root], known: Sequence[Root]) -> tuple[list[Root], list[str]]:
    """The roots among what was named, and the single files that no root holds."""
    roots = {root.path: root for root in [*known, *(root for root in named if _is_folder(root.path))]}
    files = [root.path for root in named if not _is_folder(root.path) and holder(roots, root.path) is None]
    return [root for root in named if root.path not in set(files)], files


def _is_folder(place: str) -> bool:
    """In a bucket whatever is named counts as a folder."""
    return is_url(place) or os.path.isdir(place)


def _select(files: Sequence[str], roots: dict[str, Root], ids: set[str], asked: Options) -> dict[str, set[str]]:
    """Give each file to a selection: a known one whose folder it lies in, else a new one of the folder that the rest
    has in common. Returns what was named of each, by the path of its root; new ones are added to `roots`.

    A file in the very folder of a whole root is one that its filters leave out: it becomes a root of its own.
    """
    if files and any_filter(asked):
        raise UsageError(
            f"filters are for folders, and `{printable(os.fsencode(files[0]))}` is a file named by itself",
            NO_FILTERS,
        )
    selected: dict[str, set[str]] = {}
    rest: list[str] = []
    for file in files:
        home = home_of(roots, file)
        if home is None:
            rest.append(file)
        else:
            selected.setdefault(home.path, set()).add(below_root(home, _seen_from(home, file)))
    folder = os.path.commonpath([os.path.dirname(file) for file in rest]) if rest else ""
    if folder in roots:
        for file in rest:
            roots[file] = with_own_id(walk.root_of(file), ids)
            selected.setdefault(file, set()).add(below_root(replace(roots[file], path=folder), file))
    elif rest:
        root = replace(with_own_id(walk.root_of(folder), ids), selection=())
        roots[folder] = root
        selected.setdefault(folder, set()).update(below_root(root, file) for file in rest)
    return selected


def home_of(roots: Mapping[str, Root], path: str) -> Root | None:
    """The innermost selection in whose folder `path` lies, be it by way of symlinks; not one of that very folder."""
    place = real(path)
    homes = (
        root
        for root in roots.values()
        if root.selection is not None and root.path != path and inside(place, real(root.path))
    )
    return max(homes, key=lambda root: len(real(root.path)), default=None)


def _seen_from(home: Root, file: str) -> str:
    """The path by which a root reaches a file that was named by way of a symlink."""
    if inside(file, home.path):
        return file
    folder = os.path.relpath(os.path.realpath(os.path.dirname(file)), os.path.realpath(home.path))
    return os.path.normpath(os.path.join(home.path, folder, os.path.basename(file)))


def below_root(root: Root, path: str) -> str:
    """The path of a place below a root that holds it. In a bucket every `/` but the first counts."""
    rest = path[len(root.path) :]
    return printable_path(os.fsencode(rest[1:] if is_url(path) else rest.strip("/")))


# ---- which root holds what


def holder(roots: Mapping[str, Root], path: str) -> Root | None:
    """The outermost of the roots, by their paths, that holds what lies at `path`."""
    above = (roots.get(place) for place in from_the_top(path))
    return next((root for root in above if root is not None and _holds(root, path)), None)


def from_the_top(path: str) -> Iterator[str]:
    """`/`, `/a` and `/a/b` for `/a/b`; the empty path, `a` and `a/b` for `a/b`."""
    yield path[: path.startswith("/")]
    yield from (path[: part.end()] for part in _PART.finditer(path))


def _by_known_names(named: Sequence[Root], known: Sequence[Root]) -> list[Root]:
    """Replace each named path by the path under which a known root, or one named with it, reaches the same folder: a
    symlink gives one folder two paths."""
    roots = {root.path: root for root in known}
    places = {real(root.path): root for root in known}
    found: list[Root] = []
    for place, new in sorted(((real(root.path), root) for root in named), key=lambda pair: len(pair[0])):
        way = None if holder(roots, new.path) else next((way for _, way in _ways_to(places, place)), None)
        new = new if way is None else walk.root_of(way)
        roots.setdefault(new.path, new)
        places.setdefault(place, new)
        found.append(new)
    return found


def _ways_to(places: Mapping[str, Root], wanted: str) -> Iterator[tuple[Root, str]]:
    """Yield each root whose walk reaches the real path `wanted`, the outermost first, with the path that it takes."""
    for place in from_the_top(wanted):
        root = places.get(place)
        if root is not None:
            below = wanted[len(place) :].lstrip("/")
            way = os.path.join(root.path, below) if below else root.path
            if _holds(root, way):
                yield root, way


def with_own_id(new: Root, taken: set[str]) -> Root:
    """A root that was moved keeps the id of the path where it was: what is there now is another root."""
    while new.id in taken:
        new = replace(new, id=digest(new.path, new.id))
    taken.add(new.id)
    return new


def refuse_doubled(roots: Sequence[Root], asked: Options) -> None:
    """Refuse roots that reach the same folder, known ones too: a symlink or a filter may have changed."""
    reals = [(real(root.path), root) for root in roots]
    places = dict(reals)
    for place, root in reals:
        for other, way in _ways_to(places, place):
            if other is not root:
                shown, twice = (printable(os.fsencode(path)) for path in (root.path, way))
                raise UsageError(
                    f"the root `{shown}` is also `{twice}`, by a link: its documents would be there twice",
                    f"`embedcli forget {quoted(shown)} --index {quoted(asked.shown_index)}`, then the same command"
                    " again: the vectors that are known are used again",
                )


def _uncovered(scopes: Iterable[Scope]) -> Iterator[Scope]:
    """Yield the scopes that do not lie in another one."""
    parts = {(scope.root.id, scope.below) for scope in scopes}
    for scope in scopes:
        above = list(from_the_top(scope.below))[:-1]
        if not any((scope.root.id, below) in parts for below in above):
            yield scope


def _refuse_index(root: Root, asked: Options) -> None:
    if inside(real(root.path), real(asked.shown_index)):
        raise UsageError(
            f"`{printable(os.fsencode(root.path))}` is the index itself, or in it", "name the folder of the documents"
        )


def _still_there(root: Root, asked: Options) -> Root:
    """The remembered root, as if it had been named. Raises InputError when it does not exist any more."""
    try:
        return walk.root_of(root.path)
    except InputError as error:
        shown = printable(os.fsencode(root.path))
        raise InputError(
            f"a root of this index is not there: `{shown}`",
            f"mount it; if it is elsewhere now, `embedcli moved {quoted(shown)} NEW --index"
            f" {quoted(asked.shown_index)}`; if it is to leave the index, `embedcli forget {quoted(shown)} --index"
            f" {quoted(asked.shown_index)}`",
        ) from error


def _holds(root: Root, path: str) -> bool:
    """Whether what lies at `path` is a source of the root, or a folder of such: a root holds what its walk reaches."""
    if path == root.path:
        return True
    if root.selection is None:
        return inside(path, root.path) and walk.reaches(root, path)
    shown = below_root(root, path) if inside(path, root.path) else ""
    return any(inside(shown, folder) for folder in root.selection) and walk.reaches(root, path)


def inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _filtered(root: Root, asked: Options, below: str) -> Root:
    """The root with the filters that were asked for; where none were, it keeps its own."""
    refuse_lists(asked.include, flag="--include")
    refuse_lists(asked.exclude, flag="--exclude")
    if below and any_filter(asked):
        raise UsageError(
            f"filters are remembered for a whole root, and `{below}` is a part of `{root.path}`",
            f"name the root: `embedcli ingest {quoted(root.path)} --index {quoted(asked.shown_index)} ...`",
        )
    return replace(
        root,
        include=_patterns(asked.include, root.include),
        exclude=_patterns(asked.exclude, root.exclude),
        gitignore=root.gitignore if asked.gitignore is None else asked.gitignore,
        default_excludes=root.default_excludes if asked.default_excludes is None else asked.default_excludes,
        follow_links=root.follow_links if asked.follow_links is None else asked.follow_links,
        records=with_rules(root.records, asked.records),
    )


def with_rules(known: tuple[RecordRule, ...], asked: tuple[RecordRule, ...]) -> tuple[RecordRule, ...]:
    """The rules asked for behind the remembered ones of other patterns, which the plain rule forgets."""
    patterns = {rule.pattern for rule in asked}
    kept = () if PLAIN_RULE in asked else (rule for rule in known if rule.pattern not in patterns)
    return (*kept, *(rule for rule in asked if rule != PLAIN_RULE))


def any_filter(asked: Options) -> bool:
    switches = (asked.gitignore, asked.default_excludes, asked.follow_links)
    return bool(asked.include or asked.exclude or asked.records) or any(switch is not None for switch in switches)


def _patterns(asked: tuple[str, ...], remembered: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns asked for, else the remembered ones; an empty pattern forgets the remembered ones."""
    return tuple(filter(None, asked)) if asked else remembered
