"""The guard: it leads the engine host's process group, and ends the whole group when the parent is gone.

In: the socket that the host answers on, the parent's process id; file 0 is a pipe whose other end the parent keeps.
Out: the host as its child, and the end of the whole group when the parent is gone or the host has ended. The guard is
tiny, so it notices at once, even while the host loads libraries for seconds; and it is needed, since SGLang's processes
outlive their parent until they have loaded. Not here: SGLang (host.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from embedcli.engines.sglang.wire import INSTANCE
from embedcli.processes import die_with, ignore_stops

LOOK_MILLISECONDS = 500
SCAN_S = 10.0
"""How often the group's processes are noted. Each time all of /proc is read: with a thousand processes twice a second
would cost a tenth of a core."""

END_TIMEOUT_S = 10.0
SHARED_MEMORY = Path("/dev/shm")

FOLDER = "embedcli-"
"""How the name of a host's folder begins."""
LOG = "host.log"


def main(channel: int, parent_pid: int) -> None:
    """Fork the host before anything is imported that starts threads. Never returns."""
    ignore_stops()
    os.set_inheritable(channel, False)
    guard_pid = os.getpid()
    host_pid = os.fork()
    if host_pid:
        os.close(channel)
        _guard(host_pid, parent_pid)
    else:
        die_with(guard_pid)
        _give_up_lifeline()
        _host(channel)


def _guard(host_pid: int, parent_pid: int) -> None:
    lifeline = select.poll()
    lifeline.register(0, 0)  # nothing is ever written: only its hang-up counts

    def parent_is_gone() -> bool:
        return bool(lifeline.poll(LOOK_MILLISECONDS)) or os.getppid() != parent_pid

    seen, scan_at_s = {host_pid}, time.monotonic() + SCAN_S
    while not (gone := parent_is_gone()) and not os.waitpid(host_pid, os.WNOHANG)[0]:
        if time.monotonic() > scan_at_s:
            seen |= group_members(os.getpid())
            scan_at_s = time.monotonic() + SCAN_S
    if gone or parent_is_gone():  # the host may have noticed before the guard that the parent is gone, and ended
        _tidy_up(seen)
    os.killpg(0, signal.SIGKILL)


def _tidy_up(seen: set[int]) -> None:
    """Do what the parent would have done, had it not been killed: end the group and remove what it left."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while (others := group_members(os.getpid()) - {os.getpid()}) and time.monotonic() < deadline:
        seen |= others
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    remove_traces(Path(os.environ["TMPDIR"]), seen)


def _give_up_lifeline() -> None:
    """Replace file 0 by /dev/null: SGLang's processes must not keep the lifeline open."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _host(channel: int) -> None:
    status = 1
    try:
        from embedcli.engines.sglang.host import host

        host(socket.socket(fileno=channel))
        status = 0
    except BaseException:  # noqa: BLE001 - the log is all that is left of a host; the parent quotes its end
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # no atexit: SGLang's would wait


# ---- used by the guard and by our side (process.py)


def wait_for_group(group: int, timeout_s: float) -> bool:
    """Wait until only zombies of the group are left: only then is the card's memory free. False after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while alive := group_members(group):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return not alive


def group_members(group: int) -> set[int]:
    """Process ids of the group that still run."""
    members = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # after the name in brackets: state, parent, group
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                members.add(int(folder.name))
    return members


def remove_traces(folder: Path, processes: Iterable[int]) -> None:
    """Remove the host's folder, and what its SGLang and these processes have left in shared memory."""
    left = [f"sglang_loads_{named.name.removeprefix(INSTANCE)}_*.shm" for named in folder.glob(f"{INSTANCE}*")]
    left += [f"sem.loky-{pid}-*" for pid in processes]  # semaphores, which a killed process cannot remove
    for trace in (trace for pattern in left for trace in SHARED_MEMORY.glob(pattern)):
        with contextlib.suppress(OSError):  # gone already, or another user's: process ids are reused
            if trace.stat().st_uid == os.getuid():
                trace.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def remove_traces_of_the_dead(base: Path) -> None:
    """Remove the folders in `base` of hosts after which nobody is left to tidy up: Ray, for one, kills a worker and its
    guard together. The processes of a host and its parent keep its log locked until the last of them is gone."""
    for log in base.glob(f"{FOLDER}*/{LOG}"):
        with contextlib.suppress(OSError):
            if log.parent.lstat().st_uid == os.getuid():
                with log.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_traces(log.parent, ())
