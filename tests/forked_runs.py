"""Runs that are killed: each in a process of its own, forked from one that has its imports done and its model read.

In: a JSON line a run on stdin; `kill_after_s` in it: when to kill the run. Out: a JSON line a run on stdout,
{"status": exit code or minus the signal, "seconds": how long it took}.
Not here: what a run does (crash_driver.py, cluster_driver.py).
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import embedcli.index
import embedcli.run
import embedcli.search
from tests.workshop import minilm

Run = Callable[[dict[str, Any]], int]


def serve(run: Run) -> None:
    _get_ready()
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


def _get_ready() -> None:
    """Load what each of the runs would load: a third of what a small one computes."""
    minilm()
    for package in (embedcli.index, embedcli.run, embedcli.search):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def _exit_with(run: Run, order: dict[str, Any]) -> None:
    status = 1
    try:
        status = run(order)
    except BaseException:  # noqa: BLE001 - whatever it was, the parent wants to read it
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)
