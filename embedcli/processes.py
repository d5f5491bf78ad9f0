"""What the supervisors of our child processes share: starting one, messages to and fro, its death, its last words.

In: the function that the child runs, a socket, an open log. Out: a process that dies with its parent; whole messages;
the end of what the child wrote. The children import this module before anything else, and one of them forks afterwards:
it imports nothing that starts a thread, and only light parts of the standard library.
Not here: what is sent, and what a death means (reading/process.py, engines/sglang/process.py).
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping

PR_SET_PDEATHSIG = 1

HEAD_BYTES = 8
"""A message is its length in so many bytes, little-endian, then itself."""


# ---- on the parent's side


def spawn(
    module: str, function: str, channel: socket.socket, *, stdin: int, output: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a Python that calls `module.function(descriptor of the channel, our process id)`, in a session of its own.

    It runs `python -c` with our `sys.path`, so it imports that module and never our `__main__`. `stdin` is Popen's;
    `output` is the descriptor that the child's stdout and stderr go to. Raises OSError.
    """
    path = f"import sys; sys.path[:] = {sys.path!r}"
    code = f"{path}; from {module} import {function}; {function}({channel.fileno()}, {os.getpid()})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=(channel.fileno(),),
        start_new_session=True,
        env=dict(environment),
    )


def last_words(log: int, *, most_bytes: int, since_byte: int = 0) -> bytes:
    """The end of what a process wrote to the open file `log`: at most so many bytes, nothing before `since_byte`."""
    size_bytes = os.fstat(log).st_size
    start = max(since_byte, size_bytes - most_bytes)
    return os.pread(log, max(0, size_bytes - start), start)


# ---- on the child's side


def ignore_stops() -> None:
    """SIGINT and SIGTERM may reach every process of a stopped service: the parent decides when its child ends.

    A mask that the parent had is lifted: Ray blocks SIGINT in its workers, and it would be blocked in all that follow.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def die_with(parent_pid: int) -> None:
    """Let the kernel kill this process as soon as its parent is gone (on Linux); end now if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


# ---- on both sides


def send_message(channel: socket.socket, *parts: bytes | bytearray) -> None:
    """Send the parts as one message. Raises OSError when the other side is gone."""
    channel.sendall(sum(map(len, parts)).to_bytes(HEAD_BYTES, "little"))
    for part in parts:
        channel.sendall(part)


def receive_message(channel: socket.socket) -> bytearray | None:
    """The next message, or None when the other side is gone."""
    head = receive(channel, HEAD_BYTES)
    return None if head is None else receive(channel, message_bytes(head))


def message_bytes(head: bytes | bytearray) -> int:
    """The length of the message that follows this head."""
    return int.from_bytes(head, "little")


def receive(channel: socket.socket, size_bytes: int, *, wait: Callable[[], None] | None = None) -> bytearray | None:
    """So many bytes, or None when the other side is gone. `wait`, called before each part, may raise to give up."""
    data = bytearray(size_bytes)
    view = memoryview(data)
    while view:
        if wait is not None:
            wait()
        try:
            count = channel.recv_into(view)
        except OSError:
            return None
        if not count:
            return None
        view = view[count:]
    return data
