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
from collections.abc import Iterator
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

    def host(self) -> str:
        return os.uname().nodename

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
        self._coming: list[tuple[Any, Future[str]]] = []
        self._handles: list[RayHandle] = []
        for _ in range(most):
            self.replace()

    def replace(self) -> None:
        actor = self._actor.remote()
        self._coming.append((actor, actor.host.remote().future()))

    def arrived(self) -> list[Handle]:
        """One that does not start arrives too: the first call tells why it is lost."""
        done = [pair for pair in self._coming if pair[1].done()]
        self._coming = [pair for pair in self._coming if pair not in done]
        new = [RayHandle(f"{_host(host)}-{next(self._numbers)}", actor) for actor, host in done]
        self._handles += new
        return list(new)

    def close(self) -> None:
        for handle in self._handles:
            handle.kill()
        for actor, _ in self._coming:
            ray.kill(actor)
        self._coming = []


class RayHandle:
    """One actor."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
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


def _host(answer: Future[str]) -> str:
    try:
        return re.sub(r"[^A-Za-z0-9]+", "-", answer.result())
    except RayError:
        return "unknown"


def _last_line(error: RayError) -> str:
    """Ray's messages end with the cause, less guesses: what a process died of, or what its start raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].partition(" Some common causes")[0]
