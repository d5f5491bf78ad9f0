"""The socket, the loop of uvicorn, and the end: the first signal answers what was asked, the second leaves at once.

In: a host and a port; what makes the application. Out: requests answered until a signal or an error ends it.
Not here: the application (app.py).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from embedcli.errors import UsageError

BACKLOG = 2048
DRAIN_S = 60
"""How long requests that are being answered are waited for at the end."""

KEEP_ALIVE_S = 75


def is_local(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return host.casefold() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"`--host {host}` is not an address: {error}", "leave `--host` out") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise _cannot_listen(host, port, error) from error
    return found


def _cannot_listen(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} of `{host}` is in use", "name another one with `--port`; 0 takes a free one")
    if error.errno == errno.EACCES:
        return UsageError(f"this user may not open port {port}", "name one above 1023 with `--port`")
    return UsageError(f"cannot listen at `{host}`, port {port}: {error.strerror}", "leave `--host` out")


class Server(uvicorn.Server):
    """`stop` may be called in the loop."""

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn, which raises the signal again when all is done: then all is well, and the exit code is 0."""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, _: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + number)
        self.stop()


def run(make_application: Callable[[Callable[[], None]], ASGIApp], sock: socket.socket) -> None:
    """Serve until a signal comes or the application calls the function that it is made with."""
    config = uvicorn.Config(
        lambda: make_application(lambda: server.stop()),
        factory=True,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = Server(config)
    server.run(sockets=[sock])
