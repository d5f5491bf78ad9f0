"""How many threads an engine gets: what was asked, what the environment says, what the control group grants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcli.cores import engine_threads, usable_cores

CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A folder with the files of /proc and /sys that say what a control group grants."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "100000 100000\n"}),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "90000 100000\n"}),
        (
            "1:cpu,cpuacct:/docker/1\n0::/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        ),
    ],
)
def test_a_quota_of_one_core_is_one_thread(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert usable_cores(machine(tmp_path, cgroup, files)) == 1


@pytest.mark.skipif(CORES < 2, reason="there is one core")
def test_a_quota_of_one_and_a_half_cores_is_two_threads(tmp_path: Path) -> None:
    assert usable_cores(machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"})) == 2


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "nonsense\n"}),
        ("4:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}),
        ("3:memory:/x\n", {}),
    ],
)
def test_without_a_quota_every_core_of_the_affinity_counts(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert usable_cores(machine(tmp_path, cgroup, files)) == usable_cores(tmp_path / "empty") == CORES


@pytest.mark.skipif(sys.platform != "linux", reason="there is no affinity")
def test_an_affinity_of_one_core_is_one_thread() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from embedcli.cores import usable_cores; print(usable_cores())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"


@pytest.mark.parametrize(("stated", "threads"), [("3", 3), ("2,1", 2), ("", CORES), ("many", CORES), ("0", 1)])
def test_omp_num_threads_counts_where_nothing_was_asked(stated: str, threads: int) -> None:
    assert engine_threads(None, {"OMP_NUM_THREADS": stated}) in (threads, usable_cores() if threads == CORES else 0)
    assert engine_threads(7, {"OMP_NUM_THREADS": stated}) == 7
