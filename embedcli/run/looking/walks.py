"""The sources of one scope, from whichever walk it takes: a folder, a bucket, a list, a selection, a stream.

In: a scope, the rules of the run. Out: its sources in walk order, and beside them what the walk could not see.
Not here: the walks (sources/walk.py, sources/buckets/walk.py), what is done with a source (join.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import pyarrow as pa

from embedcli.config import Rules, mirrored_url
from embedcli.records import Source
from embedcli.sources.buckets.walk import walk_bucket
from embedcli.sources.roots import Scope
from embedcli.sources.walk import WalkProblems, walk, walk_list, walk_selection
from embedcli.urls import is_url

READ_AT_ONCE = 1_000


def sources_of(
    scope: Scope,
    rules: Rules,
    problems: WalkProblems,
    *,
    places: Collection[str],
    known_files: Callable[[], set[str]],
) -> Iterator[Source]:
    """Walk the scope. `places`: the real paths of all roots; `known_files`: what the index knows of a selection."""
    root, most = scope.root, rules.max_file_bytes
    if scope.stream is not None:
        return iter([scope.stream.source(root)])
    if is_url(root.path):
        index = mirrored_url(rules.index)
        return walk_bucket(root, below=scope.below, index=index, max_text_bytes=most, problems=problems)
    if scope.listed is not None:
        return walk_list(root, _values(scope.listed), max_text_bytes=most, problems=problems)
    if root.selection is None:
        return walk(
            root, below=scope.below, skip_folder=rules.index, max_text_bytes=most, problems=problems, places=places
        )
    files = known_files() | scope.named
    return walk_selection(root, files, skip_folder=rules.index, max_text_bytes=most, problems=problems, places=places)


def _values(array: pa.Array) -> Iterator[str]:
    """The strings of an array, a batch at a time."""
    for start in range(0, len(array), READ_AT_ONCE):
        yield from array.slice(start, READ_AT_ONCE).to_pylist()
