"""Ray's side of the transport: actors as workers. The one door of ray.

In: how many workers, on what kind of device. Out: handles of those that Ray has started, each an actor in a process of
its own. Ray restarts and retries nothing: what is done about a lost worker is the coordinator's (coordinator.py).
Not here: what the flags say (on_ray.py), what an actor does (worker.py).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from embedcli.cluster.surroundings import as_started_by_hand, end_with
from embedcli.cluster.transport import Handle, WorkerLost
from embedcli.cluster.worker import Worker
from embedcli.errors import EngineError

START_HINT = (
    "start one with `ray start --head` here and `ray start --address HOST:6379` on the other machines; where Ray asks"
    " for a token, set RAY_AUTH_MODE alike for both"
)


KNOCK_S = 10.0
NOTICE_S = 2.0


def connect() -> None:
    """Join the cluster of this machine, or of RAY_ADDRESS. Raises EngineError where there is none."""
    if ray.is_initialized():
        return
    try:
        _knock(os.environ.get("RAY_ADDRESS", ""))
        with _signals_kept():
            ray.init(address="auto", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise EngineError(f"there is no Ray cluster to join: {error}", START_HINT) from error


def _knock(address: str) -> None:
    """Raise ConnectionError where nobody listens: Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), KNOCK_S).close()
        except OSError as error:
            raise ConnectionError(f"`{address}` does not answer ({error})") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray handles SIGTERM by leaving at once, but a run that is stopped stores what is in hand."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):  # not in the main thread: then Ray has set none either
                signal.signal(number, handler)


def nodes() -> list[dict[str, float]]:
    """What each machine of the cluster has, by Ray's names: `CPU`, `GPU`."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Actor:
    """A worker in a process of Ray's."""

    def __init__(self) -> None:
        raylet = int(os.environ["RAY_RAYLET_PID"])
        as_started_by_hand(raylet)
        self._worker = Worker()
        end_with(raylet, lambda: self._worker.last_asked_s)

    def place(self) -> tuple[str, str]:
        """The host, and the id that Ray has for it."""
        return os.uname().nodename, ray.get_runtime_context().get_node_id()

    def call(self, method: str, message: bytes) -> bytes:
        return self._worker.call(method, message)


class RayTransport:
    """Actors, as many as asked for: those that find no room wait for it, so that a cluster that can grow does."""

    CALLS_AT_A_TIME = 4

    def __init__(self, *, most: int, cpus: float, gpus: float) -> None:
        self._actor = ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD",
            max_concurrency=self.CALLS_AT_A_TIME,
        )(Actor)  # fmt: skip
        self._numbers = itertools.count(1)
        self._coming: list[tuple[Any, Future[tuple[str, str]]]] = []
        self._handles: list[RayHandle] = []
        self._notices = Notices()
        for _ in range(most):
            self.replace()

    def replace(self) -> None:
        actor = self._actor.remote()
        self._coming.append((actor, actor.place.remote().future()))

    def arrived(self) -> list[Handle]:
        """One that does not start arrives too: the first call tells why it is lost."""
        done = [pair for pair in self._coming if pair[1].done()]
        self._coming = [pair for pair in self._coming if pair not in done]
        new = [RayHandle(next(self._numbers), actor, *_place(place)) for actor, place in done]
        self._handles += new
        return list(new)

    def draining(self) -> Collection[str]:
        nodes = self._notices.nodes()
        return {handle.name for handle in self._handles if handle.node in nodes}

    def close(self) -> None:
        for handle in self._handles:
            handle.kill()
        for actor, _ in self._coming:
            ray.kill(actor)
        self._coming = []


class RayHandle:
    """One actor, on the machine that is a `node` for Ray."""

    def __init__(self, number: int, actor: Any, host: str, node: str) -> None:
        self.name = f"{host}-{number}"
        self.node = node
        self._actor = actor

    def call(self, method: str, message: bytes) -> Future[bytes]:
        reply: Future[bytes] = Future()
        self._actor.call.remote(method, message).future().add_done_callback(lambda done: _hand_on(done, reply))
        return reply

    def kill(self) -> None:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self._actor)


def _hand_on(done: Future[bytes], reply: Future[bytes]) -> None:
    try:
        reply.set_result(done.result())
    except RayError as error:
        reply.set_exception(WorkerLost(_last_line(error)))


def _place(answer: Future[tuple[str, str]]) -> tuple[str, str]:
    try:
        host, node = answer.result()
    except RayError:
        return "unknown", ""
    return re.sub(r"[^A-Za-z0-9]+", "-", host), node


class Notices:
    """Which machines are about to go: by `ray drain-node`, the autoscaler, SIGTERM to `ray start`, or a provider that
    takes a spot machine away. Ray has no public call for it; this is the one that its own libraries use."""

    def __init__(self) -> None:
        self._nodes: Collection[str] = ()
        self._asked_s = -NOTICE_S

    def nodes(self) -> Collection[str]:
        """The ids that Ray has for them; asked for now and then."""
        if time.monotonic() - self._asked_s >= NOTICE_S:
            self._asked_s = time.monotonic()
            with contextlib.suppress(AttributeError, RayError, RuntimeError):  # without notice a machine is just lost
                self._nodes = ray._private.state.state.get_draining_nodes()
        return self._nodes


def _last_line(error: RayError) -> str:
    """Ray's messages end with the cause, less guesses: what a process died of, or what its start raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].partition(" Some common causes")[0]
