#!/usr/bin/env bash
# Ray 2.60.0, seen 2026-11-30: `ray.kill(actor)` sends SIGKILL to the processes that the actor has started, also to one in a
# session of its own, before the actor itself is gone. A helper that is to tidy up when its parent dies (it watches a pipe,
# or asks for a signal) never gets to it, while it does where the actor's process is killed from outside. What such a helper
# would remove (a folder, shared memory) has to be found and removed by the next one.
# Output seen: by ray.kill: started
#              by SIGKILL: started, parent is gone
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check ray==2.60.0
HOME="$place" RAY_TMPDIR="$place" "$place/venv/bin/python" - "$place" <<'PY'
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ray

CHILD = """
import select, sys
def note(words):
    with open(sys.argv[1], "a") as file:
        file.write(words + "\\n")
note("started")
hang_up = select.poll()
hang_up.register(0, 0)
while not hang_up.poll(50):
    pass
note("parent is gone")
"""
place = Path(sys.argv[1])
ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level="error")


@ray.remote(num_cpus=1, max_restarts=0)
class Actor:
    def start(self, name):
        command = [sys.executable, "-c", CHILD, name]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return os.getpid()


def told(way):
    actor, file = Actor.remote(), place / way
    pid = ray.get(actor.start.remote(str(file)))
    while not file.exists():
        time.sleep(0.05)
    time.sleep(0.5)
    ray.kill(actor) if way == "ray.kill" else os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    words = file.read_text().split("\n")[:-1]
    print(f"by {way}: {', '.join(words)}")
    return words


found = [told("ray.kill"), told("SIGKILL")]
ray.shutdown()
assert found == [["started"], ["started", "parent is gone"]], "the helper gets to it now"
PY
