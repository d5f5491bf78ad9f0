"""The leader of the engine host's group: it outlives nothing and lets nothing outlive the parent.

In: the socket that the host answers on, the parent's process id; file 0 is a pipe whose other end the parent
holds. Out: the host as its child, and the end of the whole group when the parent is gone or the host has ended.
It is tiny, so it hears at once, even while the host loads libraries for seconds; and it is needed, since
SGLang's processes live on without their parent until they have loaded. Not here: SGLang (engine_host.py).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import traceback

PR_SET_PDEATHSIG = 1
LOOK_MILLISECONDS = 500


def main(channel: int, parent_pid: int) -> None:
    """Fork before anything is imported that has threads. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_inheritable(channel, False)
    guard_pid = os.getpid()
    host_pid = os.fork()
    if host_pid:
        os.close(channel)
        _guard(host_pid, parent_pid)
    else:
        _die_with(guard_pid)
        _host(channel)


def _guard(host_pid: int, parent_pid: int) -> None:
    lifeline = select.poll()
    lifeline.register(0, 0)  # nothing is ever written: only its hang-up counts
    while os.getppid() == parent_pid and not lifeline.poll(LOOK_MILLISECONDS):
        if os.waitpid(host_pid, os.WNOHANG)[0]:
            break
    os.killpg(0, signal.SIGKILL)


def _die_with(guard_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard_pid:
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # SGLang's processes must not hold the lifeline
    os.close(nothing)


def _host(channel: int) -> None:
    status = 1
    try:
        from embedcli.engine_host import host

        host(socket.socket(fileno=channel))
        status = 0
    except BaseException:  # noqa: BLE001 - the log is all that is left of a host; the parent quotes its end
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # no atexit: SGLang's would wait
