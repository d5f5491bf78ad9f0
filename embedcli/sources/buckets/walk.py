"""A root in a bucket -> its sources, in the order of every walk.

In: a Root whose path is a URL, its filters. Out: Sources, as sources/walk.py gives them; what could not be seen beside
them. The bucket is listed once, from the first key to the last, and that listing is all or nothing: half of one would
make the other half look gone. Of the objects only ignore files are read.
Not here: the listing (listing.py), reading sources (fetched.py).

A folder is what stands before a `/` in keys. Left out without a message are hidden names, what the filters leave out,
indexes of this program, the empty objects whose keys end in `/`, which stand for folders, and the root's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from embedcli.errors import BucketError, InputError, quoted
from embedcli.records import COLD_STORAGE, Root, Source
from embedcli.sources.buckets.listing import Found, Listing, key_of
from embedcli.sources.buckets.open import bucket_of
from embedcli.sources.filters import Filter, hidden, ignore_names
from embedcli.sources.walk import WalkProblems, is_read_in_parts


def walk_bucket(
    root: Root, *, below: str, index: str | None = None, max_text_bytes: int, problems: WalkProblems
) -> Iterator[Source]:
    """The sources of a root, or of one folder or object `below` it, ascending by `path.split("/")`; not what lies in
    the `index` of this run, which may have no generation yet."""
    problems.ignore_files = set()  # of a bucket that does not answer nothing else is asked
    try:
        listing = _listed(root, below)
        problems.ignore_files = listing.ignore_files | _above(root, below)
    except BucketError as error:
        problems.note_unlisted(below, error)
        if below:
            yield _unseen(root, below, error)
        return
    if index is not None and _lies_in(index, root.path):
        listing.indexes.add(index[len(root.path) :].strip("/"))
    walk = _Walk(root, listing, problems)
    for source in walk.sources(max_text_bytes):
        if _lies_in(source.path, below):
            yield source
    if not below:
        problems.unmatched += walk.filters.unmatched
        if not len(listing):
            _refuse_object(root)


def _listed(root: Root, below: str) -> Listing:
    """Of a folder alone this lists also what has a longer name that begins like its own."""
    bucket, folder = bucket_of(root.path)
    prefix = f"{folder}/" if folder else ""
    return Listing(bucket.pages(prefix + key_of(below)), prefix=prefix)


def _above(root: Root, below: str) -> set[str]:
    """The ignore files of the folders above `below`, which its listing does not show."""
    folders = ["", *("/".join(below.split("/")[:depth]) for depth in range(1, below.count("/") + 1))] if below else []
    bucket, key = bucket_of(root.path)
    there = set()
    for path in (f"{folder}/{name}".lstrip("/") for folder in folders for name in ignore_names(root)):
        try:
            bucket.stat("/".join(filter(None, (key, key_of(path)))))
        except BucketError as error:
            if error.reason != "vanished":
                raise
        else:
            there.add(path)
    return there


def _lies_in(path: str, below: str) -> bool:
    return not below or path == below or path.startswith(f"{below}/")


def _refuse_object(root: Root) -> None:
    """Raise InputError for an object that was named like a folder."""
    bucket, key = bucket_of(root.path)
    try:
        there = bool(key) and bucket.stat(key) is not None
    except BucketError:
        return
    if there:
        folder, _, name = root.path.rpartition("/")
        raise InputError(
            f"`{root.path}` is an object; in a bucket a source is the whole bucket or a folder in it",
            f"name its folder: `embedcli ingest {quoted(folder)} --include {quoted(f'/{name}')}`",
        )


def _source(root: Root, found: Found, max_text_bytes: int) -> Source:
    too_large = found.stat.size > max_text_bytes and not is_read_in_parts(root, found.path)
    problem = COLD_STORAGE if found.is_cold else "too_large" if too_large else None
    return Source(root.id, found.path, f"{root.path}/{key_of(found.path)}", found.stat, problem)


def _unseen(root: Root, folder: str, error: BucketError) -> Source:
    """A folder that cannot be looked into, as one of the sources."""
    return Source(root.id, folder, f"{root.path}/{key_of(folder)}", None, error.reason)


class _Walk:
    """Where one walk stands: the folder of the last object, and the last folder that does not count."""

    def __init__(self, root: Root, listing: Listing, problems: WalkProblems) -> None:
        self.filters = Filter(root, note_matches=True, ignore_files=problems.ignore_files)
        self._root = root
        self._listing = listing
        self._problems = problems
        self._entered: list[str] = []
        self._closed = ""

    def sources(self, max_text_bytes: int) -> Iterator[Source]:
        """Those that count, in order."""
        if "" in self._listing.indexes or self._read_ignore_files("") is not None:
            return
        folder = ""
        for found in self._listing:
            if self._closed and found.path.startswith(self._closed):
                continue
            here, slash, name = found.path.rpartition("/")
            if here + slash != folder:
                unseen = self._come_to(here.split("/") if slash else [])
                if unseen is not None:
                    yield unseen
                folder = here + slash
                if self._closed and found.path.startswith(self._closed):
                    continue
            is_folder = not found.path or (not name and not found.stat.size)
            if not is_folder and not hidden(name) and not self.filters.leaves_file_out(found.path):
                yield _source(self._root, found, max_text_bytes)

    def _come_to(self, folders: list[str]) -> Source | None:
        """Enter these folders, one after the other. One that does not count is closed from then on; returns one that
        cannot be looked into."""
        kept = 0
        for entered, part in zip(self._entered, folders, strict=False):
            if entered != part:
                break
            kept += 1
        while len(self._entered) > kept:
            self.filters.leave("/".join(self._entered))
            self._entered.pop()
        for part in folders[kept:]:
            folder = "/".join([*self._entered, part])
            left_out = hidden(part) or self.filters.leaves_folder_out(folder) or folder in self._listing.indexes
            error = None if left_out else self._read_ignore_files(folder)
            if left_out or error is not None:
                self._closed = f"{folder}/"
                return None if error is None else _unseen(self._root, folder, error)
            self._entered.append(part)
        return None

    def _read_ignore_files(self, folder: str) -> BucketError | None:
        """Why those of a folder cannot be read, if so."""
        try:
            self.filters.enter(folder, f"{self._root.path}/{key_of(folder)}" if folder else self._root.path)
        except BucketError as error:
            self._problems.note_unlisted(folder, error)
            return error
        return None
