"""A process that runs the real `sync` and can be killed at any moment of it.

In: the module of a store's client as argument, a JSON line a sync on stdin: index, target, when to die: before its
n-th call of a function, or so long after it. Out: a JSON line each, {"status": exit code or minus the signal, "calls":
how many there were}. Every sync is a process of its own, forked from one that has its imports done: a kill hits the
work, not Python's start.
Not here: what is killed when, and what has to hold afterwards (stores/test_kills.py).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from embedcli.errors import EmbedcliError
from embedcli.index.generations import Index
from embedcli.report import Report
from embedcli.stores.target import parse_target
from embedcli.vault.disk import Disk
from embedcli.verbs.sync import sync


class Calls:
    """Counts the calls of the thread that syncs, of C too, and kills this process at one of them: the same one on a
    fast machine and on a slow one."""

    def __init__(self, die_at: int | None, late_s: float) -> None:
        self.count = 0
        self._die_at = die_at
        self._late_s = late_s

    def __call__(self, _frame: object, event: str, _argument: object) -> None:
        if event not in ("call", "c_call"):
            return
        self.count += 1
        if self.count == self._die_at:
            self._die()

    def _die(self) -> None:
        if not self._late_s:
            os.kill(os.getpid(), signal.SIGKILL)
        timer = threading.Timer(self._late_s, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()


def _child(order: dict[str, Any]) -> int:
    for name in order.get("imports", ()):
        importlib.import_module(name)
    index, calls = Index(Path(order["index"]), disk=Disk()), Calls(order.get("die_at"), order.get("late_s", 0.0))
    sys.setprofile(calls)
    try:
        done = sync(index, parse_target(order["target"], index=Path("notes")), report=Report(quiet=True))
    except EmbedcliError as error:
        print(f"{error}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    finally:
        sys.setprofile(None)
    result = Path(order["result"])
    unfinished = result.with_suffix(".part")  # the kill may come between the opening of a file and its first byte
    unfinished.write_text(json.dumps({"did": done.did, "calls": calls.count}))
    unfinished.replace(result)
    return 0


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        Path(order["result"]).unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _child(order)
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        result = Path(order["result"])
        said = json.loads(result.read_text()) if result.exists() else {}
        print(json.dumps({"status": status, **said}), flush=True)


if __name__ == "__main__":
    main()
