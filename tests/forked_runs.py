"""Runs that are killed: each in a process of its own, forked from one that has its imports done.

In: a JSON line a run on stdin; `kill_after_s` in it: when to kill the run. Out: a JSON line a run on stdout,
{"status": exit code or minus the signal, "seconds": how long it took}.
Not here: what a run does (crash_driver.py, cluster_driver.py).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

Run = Callable[[dict[str, Any]], int]


def serve(run: Run) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if not child:
            _exit_with(run, order)
        killer = threading.Timer(order.get("kill_after_s") or 1e6, os.kill, (child, signal.SIGKILL))
        killer.daemon = True
        killer.start()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        killer.cancel()
        print(json.dumps({"status": status, "seconds": time.monotonic() - started}), flush=True)


def _exit_with(run: Run, order: dict[str, Any]) -> None:
    status = 1
    try:
        status = run(order)
    except BaseException:  # noqa: BLE001 - whatever it was, the parent wants to read it
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)
