"""A host of its own on a share without flock: it runs `ingest` up to the swap, waits there for a line, and goes on.

In: its name, the corpus, the index, and for how many seconds it watches another host's lock before it takes it; a line
on stdin to go on with, and before it perhaps `freeze`: it is suspended before its next beat. Out: `ready` when all but
the swap is done, then the exit code. Its beats are short.
Not here: what becomes of two of them (test_storage_faults.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
import threading
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from embedcli.errors import EmbedcliError  # noqa: E402
from embedcli.index import lock  # noqa: E402
from embedcli.vault.disk import Disk  # noqa: E402
from tests.workshop import Workshop  # noqa: E402


class Freezes(lock.Lock):
    """Between a look at the lock file and the beat after it would be too late: that beat would be written when the
    process goes on, over the lock of the host that has taken over."""

    frozen = threading.Event()

    def held(self) -> bool:
        if self.frozen.is_set() and threading.current_thread() is not threading.main_thread():
            self.frozen.clear()
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return super().held()


class WaitsBeforeTheSwap(Disk):
    def step(self, name: str) -> None:
        if name == "generation written":
            print("ready", flush=True)
            while sys.stdin.readline() == "freeze\n":
                Freezes.frozen.set()


def no_flock(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def main(name: str, docs: str, index: str, patience_s: str) -> None:
    fcntl.flock, socket.gethostname = no_flock, lambda: name  # type: ignore[assignment]
    lock.BEAT_S, lock.STALE_S, lock.Lock = 0.05, float(patience_s), Freezes  # type: ignore[misc]
    shop = Workshop(Path(index).with_name(name))
    shop.docs, shop.index = Path(docs), Path(index)
    try:
        print(shop.ingest(disk=WaitsBeforeTheSwap()).exit_code, flush=True)
    except EmbedcliError as error:
        print(error.exit_code, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
