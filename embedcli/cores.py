"""What an engine on the CPU has here: how many cores, threads that wait in a way of ours, and whether there is torch.

In: the process's affinity, the quota of its control group (Linux), OMP_NUM_THREADS. Out: a number of threads, how they
wait, and whether torch is installed.
Not here: what is done with them (engines/), the processes that read (run/readers.py).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath


def engine_threads(asked: int | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """The threads of an engine on the CPU: those asked for, else OMP_NUM_THREADS, else every core there is for us."""
    if asked is not None:
        return asked
    stated = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(stated)) if stated.isdecimal() else usable_cores()


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the threads of a torch that is not loaded yet sleep while they wait. By default they wait in a loop: beside a
    neighbour a run then costs 1.2 to 2 times its CPU time. Whoever has set OMP_WAIT_POLICY has chosen."""
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def has_torch() -> bool:
    """Whether torch can run a model here, and convert it for OpenVINO: to run a conversion needs neither package."""
    return find_spec("torch") is not None and find_spec("transformers") is not None


def usable_cores(root: Path = Path("/")) -> int:
    """The cores of this process's affinity, or fewer where its control group has a quota; 1.5 of a core are two
    threads, since one thread would leave half a core unused. `root` is where /proc and /sys lie."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The cores that each control group of this process grants, its own group and every one above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        groups = [path.lstrip("/"), *(str(parent).lstrip("/") for parent in PurePosixPath(path).parents)]
        if not controllers:
            yield from (quota for group in groups for mount in (mounts, mounts / "unified")
                        if (quota := _quota(mount / group / "cpu.max")))  # fmt: skip
        elif "cpu" in controllers.split(","):
            yield from (quota for group in groups for mount in (mounts / controllers, mounts / "cpu")
                        if (quota := _old_quota(mount / group)))  # fmt: skip


def _quota(file: Path) -> float | None:
    """`150000 100000`: so many microseconds of every so many; `max` for no limit."""
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota.isdecimal() else None


def _old_quota(group: Path) -> float | None:
    """The same in version 1 of control groups, in two files; -1 for no limit."""
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
