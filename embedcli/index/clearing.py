"""Removing the files that no reader and no resumed run needs.

In: an index, how many generations to keep. Out: a smaller folder; a folder is renamed to `.trash-N` before it is
deleted.
Not here: publishing (publish.py).
"""

from __future__ import annotations

from contextlib import suppress

from embedcli.index.generations import Index
from embedcli.index.leftovers import run_folders
from embedcli.index.publish import finish_changes
from embedcli.paths import exists, matching

RETIRED_KEPT_S = 3600.0
BUILDING_KEPT_S = 3600.0
"""A search, which takes no lock, may be writing a sidecar now."""
CHANGES_KEPT_S = 90 * 86400.0


def clear(index: Index, *, keep: int) -> None:
    """Remove trash, half-written and old generations, and files that belong to a shard which no longer exists."""
    unfinished = (
        (index.folder, ".trash-*"), (index.generations, ".trash-*"), (index.generations, "*.tmp"),
        (index.staging, ".trash-*"),
        (index.keys, ".*.tmp"), (index.state, ".*.tmp"), (index.changes, ".*.tmp"),
    )  # fmt: skip
    for folder, pattern in unfinished:
        for path in matching(folder, pattern):
            index.disk.remove(path)
    for path in run_folders(index.staging):
        if not exists(path / "run.json"):
            index.disk.remove(path)
    finish_changes(index)
    _clear_retired(index, keep)
    needed = {path.stem for path in matching(index.generations, "*/vectors/*.parquet")}
    of_shards = [
        *matching(index.keys, "part-*.npy"), *matching(index.state / "damaged", "part-*"),
        *matching(index.cache, "part-*.search"),
    ]  # fmt: skip
    for path in of_shards:
        if path.stem not in needed:
            index.disk.remove(path)
    for path in [*matching(index.cache, "*.building"), *matching(index.cache, ".*.tmp")]:
        with suppress(FileNotFoundError):  # a search has just given it its name
            if index.clock() - path.stat().st_mtime > BUILDING_KEPT_S:
                index.disk.remove(path)
    for path in matching(index.changes, "*.parquet")[:-1]:  # the name of the last one keeps the highest used number
        if index.clock() - path.stat().st_mtime > CHANGES_KEPT_S:
            index.disk.remove(path)
    index.disk.collect()


def _clear_retired(index: Index, keep: int) -> None:
    """Remove generations that are not kept and stopped being current an hour ago; none while no generation is."""
    chain = [generation.number for generation in index.ancestors()]
    for path in index.generations.iterdir() if chain else ():
        young = index.clock() - path.stat().st_mtime < RETIRED_KEPT_S
        if path.name.isdigit() and int(path.name) not in chain[:keep] and not young:
            index.disk.remove(path)
