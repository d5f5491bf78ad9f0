"""A root -> its sources, in one fixed order, a folder at a time.

In: a Root and its filters. Out: Sources sorted by path component, with the Stat that tells without reading
whether a file changed; beside them what the walk could not see. A folder that cannot be listed is itself one of the
Sources, with its problem: so the run reports it, and tries it again, like a file. The walk opens only ignore files.
Not here: what is new, gone or stale (run/looking/); which root a source belongs to (roots.py); reading (reading/).

The walk leaves out without a message: hidden names, what the filters leave out, links to folders (so that nothing
is doubled and no walk runs in circles) and the index itself.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedcli.errors import BucketError, InputError
from embedcli.records import (
    Root,
    Source,
    digest,
    from_printable_path,
    printable,
    printable_path,
    reason_of,
    stat_of,
)
from embedcli.sources.containers import RuleBook
from embedcli.sources.filters import Filter
from embedcli.urls import absolute, is_url, parted

_INDEX_FOLDERS = frozenset({"generations", "staging", "keys", "changes", "state"})

__all__ = ["Filter", "WalkProblems", "root_of", "walk", "walk_list", "walk_selection"]
READ_IN_PARTS = (".pdf", ".docx", ".docm", ".pptx", ".pptm", ".ppsx", ".odt", ".odp", ".odg", ".epub")
"""Files of which most may be pictures: their readers open what they need of them, so no size is too large. Nor is any
for a container, which is read as a stream."""


@dataclass(slots=True)
class WalkProblems:
    """What a walk could not see, as folders below the root; `""` is the root itself.

    `unlisted`: could not be listed, or its ignore file cannot be read, so nothing is known of what lies below; with
    the reason (`permission`, `io`, `vanished`). `mounts`: another device than its parent's, so an empty one may be
    an unmounted one.
    """

    unlisted: dict[str, str] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)
    bare_folders: list[str] = field(default_factory=list)
    """Of a list: folders of which it names nothing, though something is in them; as absolute paths."""
    unmatched: list[str] = field(default_factory=list)
    """Patterns of `--include` and `--exclude` that matched nothing in a whole root."""
    details: dict[str, str] = field(default_factory=dict)
    """Of folders that could not be listed: why, in words, where the reason does not say it all."""
    ignore_files: set[str] | None = None
    """In a bucket: the paths of all ignore files."""

    def note_unlisted(self, folder: str, error: BucketError) -> None:
        self.unlisted[folder] = error.reason
        self.details[folder] = error.text


def root_of(path: str) -> Root:
    """The root that a SOURCE argument names; links stay as they are in its path, and so in its id. Whether a bucket is
    there shows its walk."""
    place = absolute(path)
    shown = printable(os.fsencode(place))
    if is_url(place):
        return _root_in_bucket(place)
    try:
        os.stat(place if path else path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"source does not exist: `{shown if path else path}`",
            "check the path, or mount the folder it lies in",
        ) from error
    except OSError as error:
        raise InputError(
            f"source cannot be read: `{shown}` ({error.strerror})", f"look at it with `ls -ld '{shown}'`"
        ) from error
    return Root(id=digest(place), path=place)


def _root_in_bucket(url: str) -> Root:
    if not parted(url)[1]:
        raise InputError(f"`{url}` names no bucket", f"name one: `{url}BUCKET/FOLDER`")
    return Root(id=digest(url), path=url)


def walk(
    root: Root,
    *,
    below: str = "",
    skip_folder: Path | None,
    max_text_bytes: int,
    problems: WalkProblems,
    places: Collection[str] = (),
) -> Iterator[Source]:
    """The sources of a root, or of one folder or file `below` it, ascending by `path.split("/")`.

    `places`: the real paths of the roots; a root that does not follow links has those that lead elsewhere as sources
    with the problem `outside`.
    """
    yield from _Walk(
        root,
        below=tuple(below.split("/")) if below else (),
        skipped=_identity(skip_folder) if skip_folder else None,
        max_text_bytes=max_text_bytes,
        problems=problems,
        places=places,
    ).sources()


def walk_selection(
    root: Root,
    files: Iterable[str],
    *,
    skip_folder: Path | None,
    max_text_bytes: int,
    problems: WalkProblems,
    places: Collection[str] = (),
) -> Iterator[Source]:
    """The sources of a selection, ascending by `path.split("/")`: those of `files` (paths below the root) that are
    there, and everything below the folders of `root.selection`. A link that was named itself is always followed."""
    folders = [folder for folder in root.selection or () if os.path.isdir(_file_of(root, folder))]
    walks = [
        walk(
            root, below=folder, skip_folder=skip_folder, max_text_bytes=max_text_bytes, problems=problems, places=places
        )
        for folder in folders
    ]
    loose = (path for path in files if not any(path.startswith(f"{folder}/") for folder in folders))
    single = _Walk(root, below=(), skipped=None, max_text_bytes=max_text_bytes, problems=problems)
    named = (single.source(path, _file_of(root, path)) for path in sorted(set(loose), key=lambda path: path.split("/")))
    yield from heapq.merge(filter(None, named), *walks, key=lambda source: source.path.split("/"))


def walk_list(root: Root, paths: Iterable[str], *, max_text_bytes: int, problems: WalkProblems) -> Iterator[Source]:
    """The sources at these paths below a root, in the order given; what is not there has the problem `vanished`.
    Folders are none; one behind which nothing of it comes is noted."""
    walk = _Walk(root, below=(), skipped=None, max_text_bytes=max_text_bytes, problems=problems)
    folder = ""
    for path in paths:
        file = _file_of(root, path)
        source = walk.source(path, file)
        if folder and not path.startswith(f"{folder}/"):
            _note_bare(_file_of(root, folder), problems)
        folder = path if source is None and os.path.isdir(file) else ""
        if source is None and not folder:
            source = Source(root.id, path, file, None, "vanished")
        if source is not None:
            yield source
    if folder:
        _note_bare(_file_of(root, folder), problems)


def _note_bare(folder: str, problems: WalkProblems) -> None:
    if has_entries(folder):
        problems.bare_folders.append(folder)


def has_entries(folder: str) -> bool:
    """Whether there is anything in a folder, as far as one may look into it."""
    try:
        with os.scandir(folder) as entries:
            return any(entries)
    except OSError:
        return True


def _file_of(root: Root, path: str) -> str:
    return os.path.join(root.path, os.fsdecode(from_printable_path(path)))


def reaches(root: Root, path: str) -> bool:
    """Whether the walk of a root reaches this absolute path: no filter and no symlink to a folder lies on the way."""
    below = path[len(root.path.rstrip("/")) :].strip("/")
    if not below:
        return True
    if is_url(path):
        return Filter(root).comes_to(printable_path(os.fsencode(path[len(root.path) + 1 :])))
    folder = root.path
    for part in below.split("/"):
        folder = os.path.join(folder, part)
        if os.path.islink(folder) and os.path.isdir(folder):
            return False
    shown, filters = printable_path(os.fsencode(below)), Filter(root)
    return filters.comes_to(shown) if os.path.isdir(path) else not filters.leaves_out(shown)


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(slots=True)
class _Folder:
    """One folder's entries still to come, the next one last: only names, so that a million are small."""

    path: str
    directory: str
    device: int
    names: list[str]
    folders: set[str]
    links: set[str]
    odd: dict[str, str]


class _Walk:
    """One walk: a stack of the folders between the root and where it stands."""

    def __init__(
        self,
        root: Root,
        *,
        below: tuple[str, ...],
        skipped: tuple[int, int] | None,
        max_text_bytes: int,
        problems: WalkProblems,
        places: Collection[str] = (),
    ) -> None:
        self._root = root
        self._below = below
        self._skipped = skipped
        self._max_text_bytes = max_text_bytes
        self._problems = problems
        self._filter = Filter(root, note_matches=True)
        self._places = () if root.follow_links else places

    def sources(self) -> Iterator[Source]:
        if not os.path.isdir(self._root.path) and os.path.lexists(self._root.path):
            yield from self._single_file()
            return
        stack: list[_Folder] = []
        self._enter(stack, "", self._root.path, _parent_device(self._root.path))
        while stack:
            folder = stack[-1]
            if not folder.names:
                self._filter.leave(folder.path)
                stack.pop()
                continue
            name = folder.names.pop()
            path = f"{folder.path}/{name}" if folder.path else name
            file = f"{folder.directory}/{folder.odd.get(name, name) if folder.odd else name}"
            if name in folder.folders:
                if not self._filter.leaves_folder_out(path):
                    self._enter(stack, path, file, folder.device)
                    if self._problems.unlisted.get(path, "vanished") != "vanished":
                        yield Source(self._root.id, path, file, None, self._problems.unlisted[path])
            elif not self._filter.leaves_file_out(path):
                source = self.source(path, file)
                if source is not None:
                    yield self._left_outside(source) if name in folder.links else source
        if not self._below:
            self._problems.unmatched += self._filter.unmatched

    def _left_outside(self, link: Source) -> Source:
        """A link as it counts: one that leads out of every root is not looked at, unless the root follows links."""
        if not self._places or link.problem in ("broken_link", "not_a_file"):
            return link
        real = os.path.realpath(link.file)
        if any(real == place or real.startswith(f"{place.rstrip('/')}/") for place in self._places):
            return link
        return Source(link.root_id, link.path, link.file, None, "outside")

    def _single_file(self) -> Iterator[Source]:
        name = printable(os.fsencode(os.path.basename(self._root.path)))
        if self._below not in ((), (name,)) or self._filter.leaves_file_out(name):
            return
        source = self.source(name, self._root.path)
        if source is not None:
            yield source

    def _enter(self, stack: list[_Folder], path: str, directory: str, parent_device: int | None) -> None:
        """Put a folder on the stack, unless it is the index of this run or another one, or shows nothing of itself."""
        try:
            found = os.stat(directory)
            if (found.st_dev, found.st_ino) == self._skipped:
                return
            if parent_device is not None and found.st_dev != parent_device:
                self._problems.mounts.append(path)
            folder = self._list(path, directory, found.st_dev, depth=len(stack))
            if _is_an_index(folder):
                return
            self._filter.enter(path, directory)
        except OSError as error:
            self._problems.unlisted[path] = reason_of(error)
            return
        stack.append(folder)

    def _list(self, path: str, directory: str, device: int, *, depth: int) -> _Folder:
        folder = _Folder(path, directory, device, [], folders=set(), links=set(), odd={})
        only = self._below[depth] if depth < len(self._below) else None
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                if not name.isascii() or "%" in name:
                    shown = printable(os.fsencode(name))
                    if shown != name:
                        folder.odd[shown] = name
                        name = shown
                if only is not None and name != only:
                    continue
                folder.names.append(name)
                if entry.is_dir(follow_symlinks=False):
                    folder.folders.add(name)
                elif entry.is_symlink():
                    folder.links.add(name)
        folder.names.sort(reverse=True)
        return folder

    def source(self, path: str, file: str) -> Source | None:
        """The source at a path; None for a link to a folder, and for what vanished since it was listed."""
        root_id = self._root.id
        try:
            found = os.stat(file)
        except OSError as error:
            reason = reason_of(error)
            if reason != "permission" and os.path.islink(file):
                reason = "broken_link"
            return None if reason == "vanished" else Source(root_id, path, file, None, reason)
        if stat.S_ISDIR(found.st_mode):
            return None
        known = stat_of(found)
        if not stat.S_ISREG(found.st_mode):
            return Source(root_id, path, file, known, "not_a_file")
        too_large = found.st_size > self._max_text_bytes and not is_read_in_parts(self._root, path)
        return Source(root_id, path, file, known, "too_large" if too_large else None)


def is_read_in_parts(root: Root, path: str) -> bool:
    """Whether no size of a file is too large."""
    return path.lower().endswith(READ_IN_PARTS) or RuleBook(root).of(path) is not None


def _is_an_index(folder: _Folder) -> bool:
    """Whether a folder is an index of this program: it has its folders, and a generation or a run in progress."""
    if not folder.folders.issuperset(_INDEX_FOLDERS):
        return False
    marks = ("generations/[0-9]*/manifest.json", "staging/[0-9]*-*/run.json")
    return any(any(Path(folder.directory).glob(mark)) for mark in marks)


def _parent_device(path: str) -> int | None:
    identity = _identity(os.path.dirname(path))
    return identity[0] if identity else None
