"""The disk of a mirror: the folder in which this machine works on an index that lies in a vault.

In: the same calls as of any disk. Out: files in the mirror, and what other machines need of them as objects: whatever
a call makes durable is in the vault when the call returns, so the write order of the index holds there as it does in a
folder: shards before the journal that names them, a generation before the pointer, the swap before anything goes.
A worker of a cluster has a mirror too, in which it may write into its folder below that of the run, and nothing else.
Invariant: a generation becomes current in the vault, by one conditional swap of the pointer under the lease, before it
does in the mirror; a mirror that is lost costs bytes, never rows.
Not here: which files make an index (index/), the other direction (refresh.py).
"""

from __future__ import annotations

import fcntl
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from embedcli.errors import EmbedcliError, StorageError, storage_errors
from embedcli.index.lock import on_network, published_elsewhere
from embedcli.index.mirror import collect, refresh
from embedcli.index.mirror.keys import SEEN, Keys, journal_key, run_key
from embedcli.index.mirror.pointer import KEY, Place, Pointer
from embedcli.paths import exists
from embedcli.vault.contract import Overtaken, Vault, Version
from embedcli.vault.disk import Disk, Written
from embedcli.vault.lease import LEASE_S, Borrowed, Lease, Term, read_term, release
from embedcli.vault.stubs import Stub, make_stub

RETIRED_KEPT_S = 3600.0
"""By the clock of the vault: readers of other machines may still be fetching the shards of such a generation."""

REFRESH_S = 30.0
CLOSED = 0o700
"""The mode of a mirror: it holds the text of all sources of the index."""


class Mirror(Disk):
    def __init__(self, folder: Path, vault: Vault, *, lease_s: float = LEASE_S) -> None:
        self.folder = folder
        self.vault = vault
        self._lease_s = lease_s
        self._keys = Keys(folder)
        self._lease: Lease | None = None
        self._borrowed: Borrowed | None = None
        self._pointer = Pointer()
        self._version: Version | None = None
        self._manifests: dict[int, str] = {}
        self._announced: dict[int, tuple[int, str]] = {}
        self._journals: Counter[str] = Counter()
        self._refreshed_s = -REFRESH_S

    def shown(self, folder: Path) -> str:
        return self.vault.url

    def uri(self, shard: Path) -> str:
        return f"{self.vault.url}/{self._keys.of(shard)}"

    # ---- from the vault

    def refresh(self) -> None:
        """Bring the mirror up to date for a reader, at most every half a minute. Raises NoIndex, StorageError."""
        if time.monotonic() - self._refreshed_s < REFRESH_S:
            return
        self._refreshed_s = time.monotonic()  # of an attempt that fails too: a server must not wait at every search
        if not exists(self.folder) and not refresh.is_begun(self.vault):
            return
        super().make_folder(self.folder, CLOSED)
        with self._alone():  # the pointer that is read here is not older than what the mirror has
            refresh.generations(self.folder, self.vault, refresh.read_pointer(self.vault)[0])
            super().make_folder(self.folder / "generations")  # an index, even if nothing was published yet
            refresh.state(self.folder, self.vault)

    @contextmanager
    def leased(self, warn: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
        """Hold the lease, with the mirror up to date; yields what says whether the lease is still held."""
        with ExitStack() as stack:
            try:
                lease = stack.enter_context(Lease(self.vault, self._new_owner(), warn=warn, lease_s=self._lease_s))
            except EmbedcliError:
                if not exists(self.folder / "generations"):
                    super().remove(self.folder / "state")  # where there is no index there is no history
                raise
            self._lease = lease
            self._pointer, self._version = refresh.read_pointer(self.vault)
            with self._alone():
                refresh.as_writer(self.folder, self.vault, self._pointer)
            try:
                yield lease.held
            finally:
                self._lease = None

    def leaseholder(self) -> Term | None:
        term, _ = read_term(self.vault)
        return term if term.owner not in ("", self._owner(self._known_id())) else None

    def release(self, warn: Callable[[str], None], sleep: Callable[[float], None]) -> Term | None:
        return release(self.vault, warn=warn, lease_s=self._lease_s, sleep=sleep)

    def _owner(self, mirror_id: str) -> str:
        """The name of this mirror for the lease. A machine that was cloned has another host name, but the same id."""
        return f"{mirror_id}@{socket.gethostname()}"

    def _new_owner(self) -> str:
        mirror_id = self._known_id() or secrets.token_hex(8)
        path = self.folder / "state" / "id"
        with storage_errors(path):
            path.parent.mkdir(exist_ok=True)
            path.write_text(mirror_id)
        return self._owner(mirror_id)

    def _known_id(self) -> str:
        """Empty where there is none yet, and where other machines mount the same mirror."""
        with suppress(OSError):
            return "" if on_network(self.folder) else (self.folder / "state" / "id").read_text()
        return ""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time changes which generations are in the mirror: readers do, too."""
        path = self.folder / "state" / "refresh.lock"
        with storage_errors(path):
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    # ---- a run and its workers on other machines

    @property
    def fence(self) -> int:
        return 0 if self._lease is None else self._lease.fence

    def join(self, fence: int, run: str, leftovers: Collection[str]) -> None:
        self._borrowed = Borrowed(self.vault, fence)
        self._borrowed.check()
        with self._alone():  # other workers of this machine join, too
            refresh.as_worker(self.folder, self.vault, run, leftovers)

    def update(self, writer: Path) -> None:
        with self._alone():
            refresh.staged(writer, self.vault, "/".join(self._keys.parts(writer)))

    def expect(self, path: Path, size_bytes: int | None, sha256: str) -> None:
        if not exists(path):
            super().make_folder(path.parent)
            with storage_errors(path):
                make_stub(path, Stub(self.vault.url, str(self._keys.of(path)), size_bytes, sha256))

    def leave(self, writer: Path) -> None:
        with suppress(StorageError):
            super().remove(writer)  # all that it has stored is in the vault

    # ---- into the vault

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> Written:
        written = super().write(path, fill)
        key = self._keys.of(path)
        if key is not None:
            self._put(key, path)
            match self._keys.parts(path):
                case ("generations", building, "manifest.json"):
                    self._manifests[int(building.split(".")[0])] = written.sha256
                case ("changes", name):
                    number, target = map(int, name.split(".when-"))
                    self._announced[number] = target, key
        return written

    def _put(self, key: str, content: Path | bytes) -> None:
        self.step(f"put {key}")
        if self._borrowed is not None:
            self._borrowed.check()  # what is stored at this very moment all the same is named by nobody, and collected
        if key != SEEN:
            self.vault.put_new(key, content)
            return
        version = refresh.version_of(self.vault, SEEN)
        refresh.remember_seen(self.folder, self.vault.swap(SEEN, version, Path(self.folder, SEEN).read_bytes()))

    def append(self, path: Path, data: bytes) -> None:
        super().append(path, data)
        match self._keys.parts(path):
            case ("staging", *parts, "journal.jsonl"):
                room = "/".join(parts)
                self._journals[room] += 1
                self._put(journal_key(room, self._journals[room]), data)
            case ("state", "runs.jsonl"):
                self._put(run_key(time.time_ns()), data)

    def point(self, link: Path, target: str) -> None:
        number = int(Path(target).name)
        if self._keys.parts(link) == ("current",) and self._lease is not None:
            self._publish(number, self._lease)
            self.step("swapped")
        with self._alone():
            super().point(link, target)

    def _publish(self, number: int, lease: Lease) -> None:
        """Make generation `number` current in the vault. Raises Locked (exit 11), StorageError."""
        place = self._pointer.generations.get(number)
        if place is None:
            place = Place(self._keys.folder_of(number), self._manifests[number])
        for lost in refresh.store_lost(self.folder, self.vault, number):
            raise StorageError(
                f"`{self._keys.of(lost)}` is missing in `{self.vault.url}`: was it deleted? Nothing was published",
                "run the same command again: the documents of that shard are read again",
            )
        changes = {n: key for n, (target, key) in self._announced.items() if target == number}
        try:
            self._swap(self._pointer.at(number, place, changes, now=lease.now(), fence=lease.fence))
        except Overtaken as error:
            raise published_elsewhere(self.vault.url) from error

    def _swap(self, pointer: Pointer) -> None:
        self._version = self.vault.swap(KEY, self._version, pointer.dumps())
        self._pointer = pointer

    # ---- what goes

    def remove(self, path: Path) -> None:
        parts = self._keys.parts(path)
        if self._lease is not None:
            self._remove_stored(parts, self._lease)
        elif self._borrowed is not None and len(parts) == 4 and parts[0] == "staging":  # a file of this writer
            self.vault.remove(["/".join(parts)])
        super().remove(path)

    def _remove_stored(self, parts: tuple[str, ...], lease: Lease) -> None:
        match parts:
            case ("staging", run):
                found = [item.key for item in self.vault.list(f"staging/{run}")]
                self.vault.remove([f"staging/{run}/run.json", *found])  # without that one the others are nothing
            case ("staging", run, "journal.jsonl"):
                self.vault.remove([item.key for item in self.vault.list(f"staging/{run}/journal")])
            case ("staging", run, name):
                self.vault.remove([f"staging/{run}/{name}"])
            case ("state", "damaged", name):
                self.vault.remove([f"state/damaged/{name}"])
            case ("generations", name) if name.isdigit():
                place = self._pointer.generations.get(int(name))
                if place and place.retired_at is not None and lease.now() - place.retired_at > RETIRED_KEPT_S:
                    self._swap(self._pointer.without(generation=int(name)))
            case ("generations", name) if name.endswith(".tmp") and name[:1].isdigit():
                self._keys.forget(int(name.split(".")[0]))
            case ("changes", name) if name.endswith(".parquet"):
                self._swap(self._pointer.without(change=int(name.split(".")[0])))

    def collect(self) -> None:
        """Remove the objects that nobody needs. Only under the lease. Raises StorageError, Overtaken."""
        if self._lease is not None:
            old = self._lease.now() - RETIRED_KEPT_S - self._lease_s
            collect.collect(self.folder, self.vault, self._pointer, old=old)
