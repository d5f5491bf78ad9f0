"""The mirror brought up to date with the vault: by small files, and by stubs of what is fetched when it is read.

In: the folder of the mirror, its vault, the pointer. Out: the generations that the pointer names, their change lists,
the notes of `state/`; for a writer also what killed runs of any machine have left in `staging/`.
Invariant: the mirror never says more than the vault does: what a killed process left in it that was not published, or
was dropped since, goes before a writer begins.
Not here: the other direction, and who may call this when (mirror.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from embedcli.errors import NoIndex, StorageError, storage_errors
from embedcli.index.leftovers import run_folders
from embedcli.index.mirror.keys import SEEN
from embedcli.index.mirror.pointer import KEY, Place, Pointer
from embedcli.index.staging import WRITER, read_journal_line
from embedcli.paths import exists, is_link, matching
from embedcli.vault.contract import Stored, Vault, Version
from embedcli.vault.disk import Disk, digest_of
from embedcli.vault.stubs import Stub, fetched, is_stub, make_stub

OURS = {"lease.json", "generations", "vectors", "keys", "changes", "staging", "state"}
YOUNG_S = 3600.0
RUNS_FETCHED = 20
"""How many lines of the history are fetched at once, each an object: those that `status` and estimates look at."""


def read_pointer(vault: Vault) -> tuple[Pointer, Version | None]:
    """Raises NoIndex where the vault holds something else, or a pointer that this version cannot read."""
    try:
        data, version = vault.read(KEY)
    except FileNotFoundError:
        stranger = next((item.key for item in vault.list() if not _is_ours(item.key)), None)
        if stranger is not None:
            raise NoIndex(
                f"`{vault.url}` is not an index: it holds `{stranger}`", "name an empty or a new prefix with `--index`"
            ) from None
        return Pointer(), None
    try:
        return Pointer.loads(data), version
    except ValueError as error:
        raise NoIndex(
            f"cannot read `{KEY}` of `{vault.url}`: {error}", "upgrade with `pip install --upgrade embedcli`"
        ) from error


def is_begun(vault: Vault) -> bool:
    """Whether a generation was published, or a first run has stored something."""
    return read_pointer(vault)[0].number is not None or any(True for _ in vault.list("staging"))


def _is_ours(key: str) -> bool:
    name = key.split("/")[0]
    return name in OURS or name.startswith("probe-")


def as_writer(folder: Path, vault: Vault, pointer: Pointer) -> None:
    """What a reader needs, and what a run goes on with. Nobody else may write to the mirror. Raises StorageError."""
    with storage_errors(folder):
        for path in matching(folder / "changes", "*.when-*"):
            path.unlink()  # the pointer knows what became of it
        for path in matching(folder / "generations", "[0-9]*"):
            if path.name.isdigit() and int(path.name) not in pointer.generations:
                Disk().remove(path)
    generations(folder, vault, pointer)
    if pointer.number is not None:
        for path in store_lost(folder, vault, pointer.number):
            path.unlink(missing_ok=True)  # so that the run sees the damage, and reads the documents again
    state(folder, vault)
    _seen(folder, vault)
    _staging(folder, vault)


# ---- generations


def generations(folder: Path, vault: Vault, pointer: Pointer) -> None:
    """Every generation of the pointer, and `current`. Raises StorageError.

    One whose manifest the vault has lost is left out: `current` may point to nothing, as in a folder, so that a
    rollback can go to another one.
    """
    with storage_errors(folder):
        if pointer.number is None:
            return _forget(folder)
        for name in ("generations", "keys", "changes"):
            (folder / name).mkdir(exist_ok=True)
        for number, place in pointer.generations.items():
            if not _is_here(folder, number, place):
                with suppress(_Lost):
                    _make(folder, vault, number, place)
        _change_lists(folder, vault, pointer)
        _drop(folder, pointer)
        target = f"generations/{pointer.number:06d}"
        if not is_link(folder / "current") or os.readlink(folder / "current") != target:
            Disk().point(folder / "current", target)


def _forget(folder: Path) -> None:
    """Somebody has emptied the vault: what was published is no more."""
    if is_link(folder / "current"):
        (folder / "current").unlink()
        for name in ("generations", "changes", "keys", "cache", "staging"):
            Disk().remove(folder / name)
        (folder / "generations").mkdir()


def _drop(folder: Path, pointer: Pointer) -> None:
    """Remove the generations that the pointer does not name any more, and what only their shards needed. A young one
    may be just about to be published."""
    dropped = [
        path
        for path in matching(folder / "generations", "[0-9]*")
        if path.name.isdigit() and int(path.name) not in pointer.generations
        and time.time() - path.stat().st_mtime > YOUNG_S
    ]  # fmt: skip
    for path in dropped:
        Disk().remove(path)
    if dropped:
        needed = {path.stem for path in matching(folder / "generations", "*/vectors/part-*.parquet")}
        for path in [*matching(folder / "keys", "part-*.npy"), *matching(folder / "cache", "part-*.search")]:
            if path.stem not in needed:
                path.unlink()


def _is_here(folder: Path, number: int, place: Place) -> bool:
    try:
        return digest_of(folder / "generations" / f"{number:06d}" / "manifest.json") == place.manifest_sha256
    except FileNotFoundError:
        return False


def _make(folder: Path, vault: Vault, number: int, place: Place) -> None:
    """The folder of a generation: its manifest, shards that other generations have as well, stubs of all others."""
    room, final = folder / "state" / "refreshing", folder / "generations" / f"{number:06d}"
    if exists(final):
        Disk().remove(final)
    shutil.rmtree(room, ignore_errors=True)
    (room / "vectors").mkdir(parents=True)
    key = f"{place.folder}/manifest.json"
    manifest = _read(vault, key)
    if hashlib.sha256(manifest).hexdigest() != place.manifest_sha256:
        raise _damaged(vault, key)
    (room / "manifest.json").write_bytes(manifest)
    data = json.loads(manifest)
    for name, file in data["files"].items():
        make_stub(room / name, Stub(vault.url, f"{place.folder}/{name}", file["bytes"], file["sha256"]))
    known = {path.name: path for path in matching(folder / "generations", "[0-9]*/vectors/part-*.parquet")}
    known |= {path.name: path for path in matching(folder / "staging", "*/part-*.parquet")}
    for shard in data["shards"]:
        _make_shard(folder, room, vault, shard, known.get(Path(shard["key"]).name))
    room.rename(final)
    if place.retired_at is not None:
        os.utime(final, (place.retired_at, place.retired_at))


def _make_shard(folder: Path, room: Path, vault: Vault, shard: dict[str, str | int], known: Path | None) -> None:
    path = room / str(shard["key"])
    try:
        if known is None:
            raise FileNotFoundError
        os.link(known, path)
    except OSError:
        make_stub(path, Stub(vault.url, str(shard["key"]), int(shard["bytes"]), str(shard["sha256"])))
    keys = folder / "keys" / f"{path.stem}.npy"
    if not exists(keys):
        make_stub(keys, Stub(vault.url, f"keys/{path.stem}.npy", None, str(shard["keys_sha256"])))


def _change_lists(folder: Path, vault: Vault, pointer: Pointer) -> None:
    """Stubs with the time at which the list was stored, for it is kept 90 days from then; and no others: the content of
    one that the pointer does not name any more cannot be fetched."""
    for path in matching(folder / "changes", "[0-9]*.parquet"):
        if path.stem.isdigit() and int(path.stem) not in pointer.changes:
            path.unlink()
    missing = {
        key: path for n, key in pointer.changes.items() if not exists(path := folder / "changes" / f"{n:06d}.parquet")
    }
    times = {item.key: item.modified for item in vault.list("changes")} if missing else {}
    for key, path in missing.items():
        make_stub(path, Stub(vault.url, key, None))
        if key in times:
            os.utime(path, (times[key], times[key]))


# ---- what the current generation needs is in the vault


def shard_names(folder: Path, number: int) -> list[str]:
    """The shards of a generation of the mirror, by its manifest; none where that is lost, for nobody can read it."""
    file = folder / "generations" / f"{number:06d}" / "manifest.json"
    if not exists(file):
        return []
    manifest = json.loads(file.read_bytes())
    return [Path(shard["key"]).stem for shard in manifest["shards"]]


def store_lost(folder: Path, vault: Vault, number: int) -> list[Path]:
    """Store again what the vault has lost of a generation and the mirror has; returns the files whose content nobody
    has."""
    sizes = {item.key: item.size_bytes for room in ("vectors", "keys") for item in vault.list(room)}
    vectors = folder / "generations" / f"{number:06d}" / "vectors"
    lost = []
    for name in shard_names(folder, number):
        for key, path in (
            (f"vectors/{name}.parquet", vectors / f"{name}.parquet"),
            (f"keys/{name}.npy", folder / "keys" / f"{name}.npy"),
        ):
            here = exists(path) and not is_stub(path)
            if key in sizes and (not here or sizes[key] == path.stat().st_size):
                continue
            if here:
                vault.remove([key])
                vault.put_new(key, path)
            else:
                lost.append(path)
    return lost


# ---- state and staging


def state(folder: Path, vault: Vault) -> None:
    """The notes of damaged shards, and the last lines of the history of runs."""
    keys = [item.key for item in vault.list("state")]
    with storage_errors(folder / "state"):
        damaged = folder / "state" / "damaged"
        noted = {Path(key).name for key in keys if key.startswith("state/damaged/")}
        damaged.mkdir(exist_ok=True)
        for path in damaged.iterdir():
            if path.name not in noted:
                path.unlink()
        for name in noted:
            (damaged / name).touch()
        _history(folder, vault, sorted(key for key in keys if key.startswith("state/runs/")))


def _history(folder: Path, vault: Vault, keys: list[str]) -> None:
    """`runs.jsonl`, of the lines that the vault has and that were fetched before."""
    lines = folder / "state" / "runs"
    lines.mkdir(exist_ok=True)
    kept = {Path(key).name for key in keys}
    for path in lines.iterdir():
        if path.name not in kept:
            path.unlink()
    for key in keys[-RUNS_FETCHED:]:
        if not exists(lines / Path(key).name):
            (lines / Path(key).name).write_bytes(_read(vault, key))
    _replace(folder / "state" / "runs.jsonl", (path.read_bytes() for path in sorted(lines.iterdir())))


def version_of(vault: Vault, key: str) -> Version | None:
    try:
        return vault.stat(key).version
    except FileNotFoundError:
        return None


def remember_seen(folder: Path, version: Version) -> None:
    (folder / "state" / "seen.version").write_text(version)


def _seen(folder: Path, vault: Vault) -> None:
    """The stats that were seen since the last publish, where another machine has written them."""
    version = version_of(vault, SEEN)
    with storage_errors(folder / "state"):
        with suppress(FileNotFoundError):
            if (folder / "state" / "seen.version").read_text() == version:
                return
        if version is not None:
            _replace(folder / SEEN, [_read(vault, SEEN)])
            remember_seen(folder, version)


def _staging(folder: Path, vault: Vault) -> None:
    """What killed runs have left, those of other machines too: journals, and stubs of the shards that they name."""
    with storage_errors(folder / "staging"):
        for run, items in _runs(folder, vault).items():
            _run(folder / "staging" / run, vault, items)


def as_worker(folder: Path, vault: Vault, run: str, leftovers: Collection[str]) -> None:
    """The folder of a run that goes on elsewhere, and those of killed runs: of them a worker takes vectors. Other
    workers of this machine may be writing below the same folder. Raises StorageError."""
    with storage_errors(folder / "staging"):
        runs = _runs(folder, vault)
        for path in matching(folder / "staging", ".trash-*"):
            Disk().remove(path)
        for name in runs.keys() & set(leftovers):
            _run(folder / "staging" / name, vault, runs[name])
        (folder / "staging" / run).mkdir(exist_ok=True)
        _header(folder / "staging" / run, vault)


def staged(room: Path, vault: Vault, prefix: str) -> None:
    """One folder of a writer, whose objects are below `prefix`. Raises StorageError."""
    with storage_errors(room):
        room.mkdir(parents=True, exist_ok=True)
        _room(room, vault, list(vault.list(prefix)))


def _runs(folder: Path, vault: Vault) -> dict[str, list[Stored]]:
    """The objects of each run that is something. What this machine has of runs that are no more goes: another machine
    has gone on with them."""
    found: dict[str, list[Stored]] = {}
    for item in vault.list("staging"):
        found.setdefault(item.key.split("/")[1], []).append(item)
    (folder / "staging").mkdir(exist_ok=True)
    for path in run_folders(folder / "staging"):
        if path.name not in found:
            Disk().remove(path)
    return {run: items for run, items in found.items() if any(item.key == _header_key(run) for item in items)}


def _run(room: Path, vault: Vault, items: list[Stored]) -> None:
    """The folder of a run, with those of its writers; `run.json` comes last: without it the folder is nothing."""
    room.mkdir(exist_ok=True)
    parts: dict[str, list[Stored]] = {}
    for item in items:
        part = item.key.split("/")[2]
        parts.setdefault(part if part.startswith(WRITER) else "", []).append(item)
    for part, stored in sorted(parts.items()):
        (room / part).mkdir(exist_ok=True)
        _room(room / part, vault, [item for item in stored if item.key != _header_key(room.name)])
    _header(room, vault)


def _header_key(run: str) -> str:
    return f"staging/{run}/run.json"


def _header(room: Path, vault: Vault) -> None:
    if not exists(room / "run.json"):
        _replace(room / "run.json", [_read(vault, _header_key(room.name))])


def _room(room: Path, vault: Vault, items: list[Stored]) -> None:
    """A folder in which a run or a writer has written: its journal, stubs of the shards it names, loose vectors."""
    items.sort(key=lambda item: item.key)
    journal = [item for item in items if "/journal/" in item.key]
    path = room / "journal.jsonl"
    if sum(item.size_bytes for item in journal) > (path.stat().st_size if exists(path) else 0):
        _replace(path, [_read(vault, item.key) for item in journal])
        for line in path.read_bytes().splitlines(keepends=True):
            with suppress(ValueError):  # damaged: what runs make of it is no business of ours
                _make_staged(room, vault, read_journal_line(line).get("shard"))
    for item in items:
        name = Path(item.key).name
        if item not in journal and not exists(room / name):
            with suppress(FileNotFoundError):  # loose vectors that a writer has just stored in a shard
                make_stub(room / name, Stub(vault.url, item.key, item.size_bytes))
                fetched(room / name)


def _make_staged(room: Path, vault: Vault, shard: dict[str, str | int] | None) -> None:
    if shard is None:
        return
    path = room / f"{shard['name']}.parquet"
    if not exists(path):
        make_stub(path, Stub(vault.url, f"vectors/{path.name}", int(shard["size_bytes"]), str(shard["sha256"])))
    keys = path.with_suffix(".npy")
    if not exists(keys):
        make_stub(keys, Stub(vault.url, f"keys/{keys.name}", None, str(shard["keys_sha256"])))


# ---- small things


def _read(vault: Vault, key: str) -> bytes:
    try:
        return vault.read(key)[0]
    except FileNotFoundError as error:
        raise _damaged(vault, key) from error


class _Lost(StorageError):
    """An object is missing or damaged: another machine has removed it meanwhile, or the vault has lost it."""


def _damaged(vault: Vault, key: str) -> _Lost:
    return _Lost(f"`{key}` in `{vault.url}` is missing or damaged", "run the same command again")


def _replace(path: Path, parts: Iterable[bytes]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.writelines(parts)
    temporary.rename(path)
