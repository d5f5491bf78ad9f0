"""Damage outside the rows of the current generation: manifests, older generations, change lists, the cache of searches.

In: an index and its current generation. Out: (file, problem) for each file that is not as it was written. A run may
clear files meanwhile: what is gone with its folder is no damage.
Not here: the rows and sources of the current generation (verify.py), what to do about damage (cli/verify.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedcli.index import change_lists, changes, state
from embedcli.index.generations import Index
from embedcli.index.manifest import Generation, is_as_written
from embedcli.paths import exists, matching
from embedcli.search import sidecars
from embedcli.vault.stubs import fetched

Found = tuple[Path, str]
OPS = pa.array(["added", "changed", "removed"])
LIST_MISSING = "is missing: loaders have to load everything again"
LEADS_ELSEWHERE = "is the newest and does not lead to the current generation: loaders have to load everything again"
"""The list of a rollback was lost, or a backup was copied over an index that had gone on."""


def problem_of(path: Path, size_bytes: int | None, sha256: str) -> str:
    """What is wrong with the bytes of a file, by what its manifest says; empty where nothing is."""
    try:
        with fetched(path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    sizes = f", and it has {size:,} bytes, not {size_bytes:,}" if size_bytes not in (None, size) else ""
    return f"its sha256 is not the one in the manifest{sizes}" if found != sha256 else ""


def in_manifest(index: Index, generation: Generation) -> Iterator[Found]:
    path = index.path(generation.number) / "manifest.json"
    if not is_as_written(json.loads(path.read_bytes())):
        yield path, "its sha256 is not that of its content"


def in_older(index: Index, current: Generation) -> Iterator[Found]:
    """The files of all other generations that can be read, but for those that are files of the current one too.

    Shards whose damage is noted are none: the run that made the current generation did without them, and after a
    rollback the next one does.
    """
    noted = state.read_damaged(index.state)
    checked = {_identity(shard.path) for shard in current.shards.values()}
    keys_checked = set(current.shards) | noted
    for number in index.numbers():
        other = index.readable(number) if number != current.number else None
        if other is None:
            continue
        found = [item for item in _in_generation(index, other, checked, keys_checked) if item[0].stem not in noted]
        if index.has(number):
            yield from found


def _in_generation(
    index: Index, generation: Generation, checked: set[tuple[int, int]], keys_checked: set[str]
) -> Iterator[Found]:
    with suppress(OSError):
        yield from in_manifest(index, generation)
    wanted = [(index.path(generation.number) / name, file) for name, file in generation.files.items()]
    for path, file in wanted:
        yield path, problem_of(path, file.size_bytes, file.sha256)
    for shard in generation.shards.values():
        if (identity := _identity(shard.path)) not in checked:
            checked.add(identity)
            yield shard.path, problem_of(shard.path, shard.size_bytes, shard.sha256)
        if shard.name not in keys_checked:
            keys_checked.add(shard.name)
            if exists(shard.keys_path):  # without them a vector is computed again, no more
                yield shard.keys_path, problem_of(shard.keys_path, None, shard.keys_sha256)


def _identity(path: Path) -> tuple[int, int]:
    """The same of all hard links to a file; one of its own for each that is not there."""
    try:
        found = path.stat()
    except OSError:
        return -1, hash(path)
    return found.st_dev, found.st_ino


def in_change_lists(index: Index, current: Generation) -> Iterator[Found]:
    paths = matching(index.changes, "[0-9]*.parquet")
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, _problem_of_list(path)
    with suppress(FileNotFoundError):
        if change_lists.newest_of(index, current.number) is None:
            expected = index.change_list(current.number)
            later = [path for path in paths if path.stem.isdigit() and path.stem > expected.stem]
            yield (later[-1], LEADS_ELSEWHERE) if later else (expected, LIST_MISSING)


def _problem_of_list(path: Path) -> str:
    try:
        with pq.ParquetFile(fetched(path), page_checksum_verification=True) as file:
            table = file.read()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {error}"
    if table.column_names != changes.SCHEMA.names:
        return "its columns are not those of a change list"
    ids, ops = (table.column(name).cast(pa.string()) for name in changes.SCHEMA.names)
    bad = pc.sum(pc.invert(pc.match_substring_regex(pc.fill_null(ids, ""), "^[0-9a-f]{32}$"))).as_py() or 0
    bad += pc.sum(pc.invert(pc.is_in(ops, value_set=OPS))).as_py() or 0
    return f"has {bad} ids or operations that no run writes" if bad else ""


def in_cache(index: Index, current: Generation) -> Iterator[Found]:
    for path in matching(index.cache, "part-*.search"):
        with suppress(FileNotFoundError):
            try:
                damaged = sidecars.is_damaged(path)
            except FileNotFoundError:
                raise
            except OSError as error:
                yield path, f"cannot be read: {error.strerror}"
                continue
            yield path, "its bytes are not those that were written" if damaged else ""
