"""Removing the objects that no reader and no resumed run needs; only the holder of the lease does this.

In: a mirror that is up to date, and its pointer. Out: a smaller vault.
Invariant: an object that any generation of the pointer, or the staging folder of any run, names stays; any other one
goes only when it is so old that no reader of a generation that was dropped, and no writer, can still want it.
Not here: which generations are kept (index/clearing.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from embedcli.index.mirror.pointer import Pointer
from embedcli.index.mirror.refresh import shard_names
from embedcli.paths import matching
from embedcli.vault.contract import Stored, Vault

RUNS_KEPT = 100
ROOMS = ("generations", "vectors", "keys", "changes", "staging")


def collect(folder: Path, vault: Vault, pointer: Pointer, *, old: float) -> None:
    """Remove what is not needed and was stored before `old`, and the lines of history but the last ones."""
    needed = set(_needed(folder, pointer))
    stored = [item for room in ROOMS for item in vault.list(room)]
    vault.remove(item.key for item in stored if item.modified < old and not _is_needed(item, needed))
    runs = sorted(item.key for item in vault.list("state/runs"))
    vault.remove(runs[:-RUNS_KEPT])


def _is_needed(item: Stored, needed: set[str]) -> bool:
    first, _, rest = item.key.partition("/")
    return item.key in needed or item.key.rpartition("/")[0] in needed or f"{first}/{rest.split('/')[0]}" in needed


def _needed(folder: Path, pointer: Pointer) -> Iterator[str]:
    """Keys, and folders of which everything is needed: of a run in `staging/` what its writers have stored too."""
    yield from pointer.changes.values()
    for number, place in pointer.generations.items():
        yield place.folder
        yield from _objects(shard_names(folder, number))
    for run in (folder / "staging").iterdir():
        yield f"staging/{run.name}"
        parts = [*matching(run, "part-*.parquet"), *matching(run, "*/part-*.parquet")]  # those of its writers too
        yield from _objects(path.stem for path in parts)


def _objects(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from (f"vectors/{name}.parquet", f"keys/{name}.npy")
