"""One writer at a time over machines that share nothing but a vault: a lease that its holder renews by swaps.

In: a vault; who we are. Out: the lease as a context, or Locked (exit 11), which names its holder. Each holder has a
higher `fence` than all before it.
Invariant: a foreign lease is taken over only after it stood still for `lease_s` of our own clock; the swap of the
lease's object decides between two that try.
Not here: one writer at a time on one machine (index/lock.py), what the lease protects (index/mirror/).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from embedcli.errors import Locked, StorageError
from embedcli.vault.contract import Overtaken, Vault, Version, check_conditions

KEY = "lease.json"
LEASE_S = 600.0
BEATS = 20
"""How often a lease is renewed in the time for which it lasts: every 30 s."""


@dataclass(frozen=True)
class Term:
    """What `lease.json` says. `owner`: the mirror that holds it, empty when it was released; `beat` is a nonce."""

    fence: int = 0
    owner: str = ""
    host: str = ""
    pid: int = 0
    since: str = ""
    beat: str = ""

    def dumps(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def read_term(vault: Vault) -> tuple[Term, Version | None]:
    """Who holds the lease; an empty Term where nobody ever did. One that cannot be read is held by somebody unknown."""
    try:
        data, version = vault.read(KEY)
    except FileNotFoundError:
        return Term(), None
    try:
        return Term(**json.loads(data)), version
    except (ValueError, TypeError):
        return Term(owner="unknown", host="unknown"), version


@dataclass(frozen=True)
class Borrowed:
    """The lease of a run as its workers on other machines see it: the run holds it under this `fence`."""

    vault: Vault
    fence: int

    def check(self) -> None:
        """Raise Locked where the run has ended or another one holds the lease, StorageError where there is no lease."""
        term, version = read_term(self.vault)
        if version is None:
            raise StorageError(
                f"there is no index in `{self.vault.url}`, as seen from here",
                "every worker has to reach the same vault",
            )
        if not term.owner or term.fence != self.fence:
            raise Locked(
                f"the run of this worker has ended, or has lost its lease of `{self.vault.url}`: nothing is stored for"
                " it any more",
                "run the same command again: finished documents are kept",
            )


def release(
    vault: Vault, *, warn: Callable[[str], None], lease_s: float = LEASE_S, sleep: Callable[[float], None] = time.sleep
) -> Term | None:
    """Release the lease of a run that is dead; returns whose it was, None where nobody has it. Raises Locked while it
    is renewed."""
    term, version = read_term(vault)
    if version is None or not term.owner:
        return None
    wait_s = 1.5 * lease_s / BEATS
    warn(f"waiting {wait_s:.0f} s to see whether the run on `{term.host}` is alive")
    sleep(wait_s)
    try:
        vault.swap(KEY, version, Term(term.fence).dumps())
    except Overtaken as error:
        raise Locked(
            f"index `{vault.url}` is locked by a run that is alive: pid {term.pid} on `{term.host}` since {term.since}",
            f"stop the run on `{term.host}` with `kill {term.pid}`: finished documents are kept",
        ) from error
    return term


class Lease:
    """`owner` is a name of this working copy: what an earlier process of it left needs no waiting, since on one machine
    a lock keeps the living away. `clock` and `sleep` are seams."""

    def __init__(
        self,
        vault: Vault,
        owner: str,
        *,
        warn: Callable[[str], None],
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._vault = vault
        self._warn = warn
        self._lease_s = lease_s
        self._clock = clock
        self._sleep = sleep
        self._term = Term(0, owner, socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        self._version: Version | None = None
        self._beating = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    @property
    def fence(self) -> int:
        return self._term.fence

    def __enter__(self) -> Self:
        before, self._version = read_term(self._vault)
        if self._version is None:
            check_conditions(self._vault)
        elif before.owner not in ("", self._term.owner):
            before = self._outwait(before)
        self._term = replace(self._term, fence=before.fence + 1)
        try:
            self._beat()
        except Overtaken as error:
            raise self._locked(read_term(self._vault)[0]) from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._thread.join()
        with suppress(Overtaken, StorageError):
            self._vault.swap(KEY, self._version, Term(self._term.fence).dumps())

    def held(self) -> bool:
        """Whether the lease is still ours: renewed now, by a swap. Raises StorageError."""
        try:
            self._beat()
        except Overtaken:
            return False
        return True

    def now(self) -> float:
        """The time by the clock of the vault, a moment ago. Raises StorageError, Overtaken."""
        self._beat()
        return self._vault.stat(KEY).modified

    def _beat(self) -> None:
        with self._beating:
            self._term = replace(self._term, beat=secrets.token_hex(8))
            try:
                self._version = self._vault.swap(KEY, self._version, self._term.dumps())
            except Overtaken:
                found, version = read_term(self._vault)
                if replace(found, beat=self._term.beat) != self._term:
                    raise
                self._version = self._vault.swap(KEY, version, self._term.dumps())  # an earlier beat of ours was stored

    def _keep_beating(self) -> None:
        while not self._released.wait(self._lease_s / BEATS):
            try:
                self._beat()
            except Overtaken:
                return  # `held` tells the run before it publishes
            except StorageError:
                continue  # the next beat may succeed

    def _outwait(self, first: Term) -> Term:
        """Wait until the lease stood still: its run is dead. Raises Locked when it is renewed meanwhile."""
        since = self._clock()
        self._warn(
            f"a run on `{first.host}` has the lease of `{self._vault.url}`: waiting up to"
            f" {self._lease_s / 60:.0f} minutes to see if it lives"
        )
        while self._clock() - since < self._lease_s:
            self._sleep(self._lease_s / BEATS / 3)
            now, version = read_term(self._vault)
            if version != self._version:
                self._version = version
                if now.owner:
                    raise self._locked(now)
                return now
        self._warn(f"took over the lease of a run on `{first.host}`: it gave no sign of life")
        return first

    def _locked(self, holder: Term) -> Locked:
        return Locked(
            f"index `{self._vault.url}` is locked by another run: pid {holder.pid} on `{holder.host}`"
            f" since {holder.since}",
            "wait for it to end, then run the same command again",
        )
