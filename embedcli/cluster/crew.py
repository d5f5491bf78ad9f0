"""The workers that are there: calls to them, and what comes back.

In: handles as they arrive (transport.py), slices. Out: events: a worker is ready, has something to say, cannot go on,
or is lost.
Not here: what is given to whom (slices.py), what is done about an event (coordinator.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from embedcli.cluster.job import VERSION, Job
from embedcli.cluster.messages import Collected, Facts, Slice, pack, unpack_reply
from embedcli.cluster.transport import Handle, Transport, WorkerLost
from embedcli.errors import EmbedcliError


@dataclass(eq=False)
class Member:
    """A worker, and its calls that have not returned. `number` and `run`: of the generation that its folder was begun
    for, and the name of that run's folder; `facts`: None until its engine is ready; `is_leaving`: it was told to stop,
    since its machine is about to go."""

    handle: Handle
    number: int
    run: str
    facts: Facts | None = None
    has_answered: bool = False
    is_leaving: bool = False
    calls: list[tuple[str, Future[bytes]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.handle.name

    @property
    def writer(self) -> str:
        """The folder in which it writes, by its name below `staging/`; empty until it is ready."""
        return f"{self.run}/{self.facts.writer}" if self.facts else ""


@dataclass(frozen=True)
class Ready:
    member: Member
    facts: Facts


@dataclass(frozen=True)
class Said:
    member: Member
    collected: Collected


@dataclass(frozen=True)
class LeftOut:
    """It cannot work for this run, or not any more: `error` says why."""

    member: Member
    error: EmbedcliError


@dataclass(frozen=True)
class Lost:
    member: Member
    reason: str


@dataclass(frozen=True)
class Leaving:
    """Its machine is about to go: it has been asked to store what is whole, and says so with its last words."""

    member: Member


Event = Ready | Said | LeftOut | Lost | Leaving


class Crew:
    """All members, from their arrival until they leave."""

    def __init__(self, transport: Transport, job: Callable[[], Job]) -> None:
        """`job` is asked for each worker: what it holds changes while the run goes on."""
        self._transport = transport
        self._job = job
        self.members: list[Member] = []

    @property
    def at_work(self) -> list[Member]:
        """Those whose engine is ready, and that get slices."""
        return [member for member in self.members if member.facts is not None and not member.is_leaving]

    def events(self, timeout_s: float) -> list[Event]:
        """What has happened; waits up to `timeout_s` seconds for something."""
        for handle in self._transport.arrived():
            job = self._job()
            member = Member(handle, job.header.number, job.run)
            self.members.append(member)
            self._call(member, "open", pack((VERSION, pack(job))))
        calls = [call for member in self.members for _, call in member.calls]
        if calls:
            wait(calls, timeout_s, FIRST_COMPLETED)
        else:
            time.sleep(timeout_s)
        events = [event for member in list(self.members) for event in self._of(member)]
        return [*events, *self._drained()]

    def _drained(self) -> Iterator[Leaving]:
        names = self._transport.draining()
        for member in [member for member in self.members if member.name in names and not member.is_leaving]:
            member.is_leaving = True
            self._ask_to_stop(member)
            yield Leaving(member)

    def offer(self, member: Member, one: Slice) -> None:
        self._call(member, "offer", pack(one))

    def leave(self, member: Member) -> None:
        """End a worker that is lost or left out. It may be alive, and may go on for a while."""
        if member in self.members:
            self.members.remove(member)
            member.handle.kill()

    def stop(self, within_s: float) -> Iterator[Event]:
        """Ask all to finish what is in hand, and yield what they still say, for `within_s` seconds at most."""
        give_up_s = time.monotonic() + within_s
        for member in list(self.members):
            self._ask_to_stop(member)
        while self.members and (left_s := give_up_s - time.monotonic()) > 0:
            calls = [call for member in self.members for _, call in member.calls]
            wait(calls, left_s, FIRST_COMPLETED)
            for member in list(self.members):
                for event in self._of(member):
                    if not isinstance(event, Said) or event.collected.ended:
                        self.leave(member)
                    yield event

    def _ask_to_stop(self, member: Member) -> None:
        self._call(member, "stop", b"")
        if member.facts is None:  # there is nothing in hand, and no engine yet that could be stopped
            self.leave(member)

    def replace(self) -> None:
        self._transport.replace()

    def _call(self, member: Member, method: str, message: bytes) -> None:
        member.calls.append((method, member.handle.call(method, message)))

    def _of(self, member: Member) -> Iterator[Event]:
        done = [call for call in member.calls if call[1].done()]
        member.calls = [call for call in member.calls if call not in done]
        for method, future in done:
            try:
                value = unpack_reply(future.result())
            except WorkerLost as lost:
                yield Lost(member, str(lost))
                return
            except EmbedcliError as error:
                yield LeftOut(member, error)
                return
            if method == "open":
                member.facts = value
                self._call(member, "collect", b"")
                yield Ready(member, value)
            elif method == "collect":
                if not value.ended:
                    self._call(member, "collect", b"")
                yield Said(member, value)
