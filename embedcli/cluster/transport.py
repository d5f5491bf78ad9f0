"""How a coordinator reaches its workers: the contract of Ray's transport, and of those that the tests use.

In: a method's name and the bytes of its message. Out: a future of the bytes of the reply, or WorkerLost.
Not here: what is said (messages.py), Ray (ray_transport.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from embedcli.run.tools import Tools


class WorkerLost(Exception):
    """A worker is gone, or cannot be reached: a belief, since it may go on for minutes. The text is the reason."""


class Handle(Protocol):
    """One worker, as the coordinator sees it."""

    @property
    def name(self) -> str:
        """Where it runs, for people, and part of the name of its folder: letters, digits, `-`."""
        ...

    def call(self, method: str, message: bytes) -> Future[bytes]:
        """Call a method of the worker. The future fails with WorkerLost when the worker is gone."""
        ...

    def kill(self) -> None:
        """End the worker at once, if it can be reached. It may be called twice."""
        ...


class Transport(Protocol):
    """The workers of one run."""

    def arrived(self) -> list[Handle]:
        """The workers that have come since the last call."""
        ...

    def draining(self) -> Collection[str]:
        """The names of the workers whose machine is about to go: it is being drained, or will be taken away."""
        ...

    def replace(self) -> None:
        """A worker was lost, or has to leave: ask for another."""
        ...

    def close(self) -> None:
        """End whatever still runs."""
        ...


class Workforce(Protocol):
    """What `Tools.workforce` is: where workers come from."""

    least: int
    wait_s: float
    """With fewer than `least` workers for so long the run ends."""

    tools_there: Callable[..., Tools]
    """Makes the tools of a worker, there: run.tools.make_tools with its engine and flags. It travels as a pickle."""

    def start(self, device: str) -> Transport:
        """Ask for the workers, on this kind of device. Raises EngineError where there is no cluster."""
        ...
