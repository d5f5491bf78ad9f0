"""What became of known sources that are not where they were: moved, gone, or frozen with their folder.

In: documents of the current generation, those that are gone, the new sources. Out: the moves; the sources that stay as
they are, because their folder lost more than `--max-gone` allows.
Not here: what the walk could not see (missing.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import InputError, quoted
from embedcli.index import documents
from embedcli.records import SourceKey
from embedcli.run.pace.time_limit import OutOfTime
from embedcli.sources.buckets.fetched import object_digest
from embedcli.urls import is_url

if TYPE_CHECKING:
    from embedcli.config import Rules
    from embedcli.records import Root
    from embedcli.run.tasks import Task

SMALLEST_GUARDED = 10
"""A folder of fewer sources with rows than this may lose them all."""
DIGEST_THREADS = 8

Folder = tuple[str, str]
"""The id of a root, and the path of a folder below it; the empty path is the root itself."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The old place of a moved source, and its status and reason there."""

    key: SourceKey
    status: str
    reason: str | None


@dataclass(frozen=True)
class Frozen:
    """Sources whose rows stay although they are gone, and their folders: absolute path -> in words, how many of the
    sources with rows there are gone."""

    keys: frozenset[SourceKey] = frozenset()
    folders: Mapping[str, str] = field(default_factory=dict)


# ---- moves


def find_moves(gone: pa.Table, tasks: Iterable[Task], is_over: Callable[[], bool]) -> dict[SourceKey, Moved]:
    """For each new source with the same bytes as a source that is `gone` (rows of documents): that source.

    Only new files of the size of a source that is gone are digested. Raises OutOfTime: without the moves nothing can
    be said of what is gone.
    """
    by_digest: dict[str, list[Moved]] = defaultdict(list)
    gone = gone.filter(gone.column("sha256").is_valid()).select(["root", "path", "status", "reason", "sha256", "size"])
    sizes: set[int] = set()
    for root, path, status, reason, sha256, size in zip(*(column.to_pylist() for column in gone.columns), strict=True):
        by_digest[sha256].append(Moved((root, path), status, reason))
        sizes.add(size)
    moved: dict[SourceKey, Moved] = {}
    candidates = (task for task in tasks if task.prior is None and _size(task) in sizes)
    for task, sha256 in digested(list(candidates), is_over):
        if sha256 is None and is_over():
            raise OutOfTime
        if found := by_digest.get(sha256 or ""):
            moved[task.key] = found.pop(0)
    return moved


def _size(task: Task) -> int:
    return task.source.stat.size if task.source.stat else -1


def digested(tasks: Collection[Task], is_over: Callable[[], bool]) -> Iterator[tuple[Task, str | None]]:
    """Each task with the digest of its file; None where it cannot be read, or the time was over before its turn."""

    def digest_of(task: Task) -> str | None:
        return None if is_over() else file_digest(task.source.file)

    with ThreadPoolExecutor(DIGEST_THREADS) as pool:
        yield from zip(tasks, pool.map(digest_of, tasks), strict=True)


def file_digest(file: str) -> str | None:
    """The sha256 of a file; None where it cannot be read."""
    try:
        if is_url(file):
            return object_digest(file)
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


# ---- the guard: an unmounted share is not an empty corpus


def freeze(
    base: pa.Table, lost: Collection[SourceKey], roots: Iterable[Root], rules: Rules, *, new_of: Mapping[str, int]
) -> Frozen:
    """Which of the sources that are `lost`, gone and not moved, stay in the index.

    `base`: the documents of the index; `new_of`: how many new sources each root has. Sources of which the index has no
    rows, pictures and scans say, count for nothing where others are left: with them nothing is lost.
    Raises InputError (exit 15) where nothing is left of a root, or a rebuild would lose rows.
    """
    if not lost:
        return Frozen()
    paths = {root.id: root.path for root in roots}
    files = documents.files(base)
    every, all_missing = _by_folder(_keys_of(files)), _by_folder(lost)
    for (root_id, folder), count in all_missing.items():
        if not folder and count == every[root_id, ""] and not new_of.get(root_id):
            _refuse_lost_root(paths[root_id], count, rules)
    guarded = with_rows(files, base)
    lost_rows = list(_keys_of(documents.taken(guarded, documents.positions(guarded, lost))))
    known, missing = _by_folder(_keys_of(guarded)), _by_folder(lost_rows)
    own = {folder for folder in missing if rules.own_percent(_path(paths, folder)) is not None}
    tripped = {
        folder
        for folder, count in _by_folder(lost_rows, apart=own).items()
        if known[folder] >= SMALLEST_GUARDED and count * 100 > rules.percent_of(_path(paths, folder)) * known[folder]
    }
    keys = frozenset(key for key in lost if any(above in tripped for above in _folders_of(key, apart=own)))
    folders = {_path(paths, folder): f"{missing[folder]:,} of {known[folder]:,}" for folder in _named(tripped, missing)}
    if rules.rebuilding and folders:
        path, share = min(folders.items())
        raise InputError(
            f"{share} indexed sources of `{path}` are gone, and a rebuild needs every source",
            f"mount what is missing, or if they were deleted, add `--max-gone {quoted(f'{path}=100')}`",
        )
    return Frozen(keys, folders)


def _refuse_lost_root(path: str, count: int, rules: Rules) -> None:
    if rules.percent_of(path) < 100:
        raise InputError(
            f"all {count:,} known sources of `{path}` are gone; nothing was changed",
            f"mount what is missing, or if they were deleted, run again with `--max-gone {quoted(f'{path}=100')}`",
        )


def _path(paths: dict[str, str], folder: Folder) -> str:
    return "/".join(filter(None, (paths[folder[0]], folder[1])))


def folders_of(keys: Iterable[SourceKey], roots: Iterable[Root]) -> set[str]:
    """The folders in which these sources lie, at any depth, by their absolute paths."""
    paths = {root.id: root.path for root in roots}
    return {_path(paths, folder) for folder in _by_folder(keys)}


def _keys_of(base: pa.Table) -> Iterator[SourceKey]:
    for batch in base.select(["root", "path"]).to_batches(max_chunksize=65536):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def with_rows(files: pa.Table, base: pa.Table) -> pa.Table:
    """The files that have rows, be they those of documents inside them, which `base` has too."""
    is_container = pc.is_in(files.column("path"), value_set=pc.unique(base.column("container").drop_null()))
    has_rows = pc.greater(files.column("rows"), 0)
    return documents.chosen(files, np.asarray(pc.or_(has_rows, is_container)))


def _by_folder(keys: Iterable[SourceKey], *, apart: Collection[Folder] = ()) -> Counter[Folder]:
    """How many of the sources lie in each folder, at any depth. Sources below a folder of `apart` count for that folder
    and the folders below it, not for those above it."""
    direct = Counter((root_id, path.rpartition("/")[0]) for root_id, path in keys)
    counts = Counter[Folder]()
    for (root_id, folder), count in direct.items():
        for above in _up_to(root_id, folder, apart):
            counts[above] += count
    return counts


def _folders_of(key: SourceKey, *, apart: Collection[Folder]) -> Iterator[Folder]:
    root_id, path = key
    return _up_to(root_id, path.rpartition("/")[0], apart)


def _up_to(root_id: str, folder: str, apart: Collection[Folder]) -> Iterator[Folder]:
    """A folder and those that it lies in, up to the first that is in `apart`."""
    for above in ancestors(folder):
        yield root_id, above
        if (root_id, above) in apart:
            return


def ancestors(folder: str) -> Iterator[str]:
    """`a/b`, `a` and the empty path for `a/b`."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def _named(tripped: Collection[Folder], missing: Counter[Folder]) -> Iterator[Folder]:
    """Of nested folders that lost the same sources only the innermost; of other nested folders the outermost."""
    inner_lost_all = {
        (root_id, above)
        for root_id, path in tripped
        for above in ancestors(path)
        if above != path and missing[root_id, above] == missing[root_id, path]
    }
    for folder in tripped:
        root_id, path = folder
        outer = ((root_id, above) for above in ancestors(path))
        outer_lost_more = any(other in tripped and missing[other] > missing[folder] for other in outer)
        if not outer_lost_more and folder not in inner_lost_all:
            yield folder
