"""A Ray cluster on the loopback of this machine, in a folder of its own, which leaves no process behind.

In: the cores of each of its machines. Out: the environment of a program that joins it; its processes, by the mark that
all of them inherit. `ray stop` would end every Ray of the machine, so they are ended by their ids.
Not here: any expectation.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.help_texts import typed
from tests.ports import free_port

REPOSITORY = Path(__file__).parent.parent
LINES = typed("ingest", "ray ", "ray://")
"""The lines of `embedcli ingest --help`: how the head starts, how the others join it, and the run."""
RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
MARK = "EMBEDCLI_TEST_RAY"


class RayCluster:
    """The `ray start` of the help once for each machine. `machines` gives their cores; the first one is the head, and
    has the cards."""

    def __init__(self, machines: Sequence[int], *, cards: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="er"))  # short: sockets lie in it
        self.mark = secrets.token_hex(8)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.environment = {
            **os.environ, MARK: self.mark, "RAY_ADDRESS": self.address, "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "20000",
        }  # fmt: skip
        self.environment.pop("OMP_NUM_THREADS", None)
        head, other, self.ingest = LINES
        ours = [f"--ray-client-server-port={free_port()}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
        self._start(head.replace("6379", str(port)), [*ours, f"--num-gpus={cards}"], machines[0])
        for cores in machines[1:]:
            self._start(other.replace("first:6379", self.address), ["--num-gpus=0"], cores)

    def _start(self, line: str, arguments: Sequence[str], cores: int) -> None:
        """Run a line of the help, with what keeps this cluster apart from others."""
        words = shlex.split(line, comments=True)
        assert words[:2] == ["ray", "start"]
        here = [f"--num-cpus={cores}", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000"]
        command = [*RAY, *words[1:], *arguments, *here, "--disable-usage-stats"]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while pids := self.pids():
            for pid in pids:
                _kill(pid)
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self, wanted: Callable[[str], bool] = lambda _: True) -> list[int]:
        """The processes of the cluster and of the programs that joined it, whose command line is wanted; no zombies."""
        return [pid for pid, line in _marked(f"{MARK}={self.mark}".encode()) if wanted(line)]

    def workers(self) -> list[int]:
        """The processes of actors."""
        return self.pids(lambda line: "ray::Actor" in line)

    def raylets(self) -> list[int]:
        return self.pids(lambda line: "/raylet/raylet" in line.split(" ")[0])

    def ours(self) -> list[int]:
        """The children of actors: processes that read, engine hosts."""
        return self.pids(lambda line: "from embedcli." in line)


def _marked(mark: bytes) -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append((int(folder.name), line))
        except OSError:
            continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
