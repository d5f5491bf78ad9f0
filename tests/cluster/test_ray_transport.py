"""Ray's workers, with a real `ray start` on this machine: what is killed changes nothing and leaves nothing behind.

In: a cluster of two machines in a folder of its own (tests/ray_cluster.py), engines of a fixed speed. Not here: what
becomes of slices and answers (test_coordinator.py), the flag (tests/cli/test_workers.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.index.mirror.test_mirror import Machine
from tests.ray_cluster import REPOSITORY, RayCluster
from tests.workshop import UNFINISHED, Workshop, words

pytest.importorskip("ray", reason="the extra `ray` is not installed")

DRIVER = Path(__file__).parents[1] / "ray_driver.py"
GIVEN_UP_S = 300.0


class Clusters:
    """A cluster for one test after the other, in whatever order; `lost` machines are those that are gone for good."""

    def __init__(self) -> None:
        self._opened: contextlib.ExitStack | None = None
        self.lost = 0

    def with_machines(self, count: int) -> RayCluster:
        if self._opened is None or 2 - self.lost < count:
            self.close()
            self._opened, self.lost = contextlib.ExitStack(), 0
            self._cluster = self._opened.enter_context(RayCluster([1, 1]))
        return self._cluster

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    found = Clusters()
    yield found
    found.close()


@pytest.fixture
def cluster(clusters: Clusters) -> RayCluster:
    """Of two machines."""
    return clusters.with_machines(2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, Any]:
    shop = Workshop(tmp_path_factory.mktemp("ray"), index="alone")
    for number in range(40):
        shop.write(f"{number:03d}.txt", words(100, seed=number))
    shop.write("unfinished.txt", UNFINISHED)
    shop.ingest()
    return shop, shop.content()


class RayRun:
    """A run in a process of its own that has joined the cluster."""

    def __init__(self, cluster: RayCluster, shop: Workshop, index: str, **order: Any) -> None:
        self.shop = Workshop(shop.docs.parent, index=index)
        self._waits = shop.docs.parent / f"{Path(index).name}-waits"
        self._waits.mkdir()
        order = {"folder": str(shop.docs.parent), "index": index, "flags": {"checkpoint_every_s": 0.5}, **order}
        order["double"] = {"gate": self._waits / "gate", "held": self._waits / "held", **order["double"]}
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(order, default=str)], env=cluster.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_until_stored(self) -> None:
        """Until both workers have stored something, of which neither goes on before the other; the run cannot end."""
        give_up_s = time.monotonic() + GIVEN_UP_S
        while len(list(self._waits.glob("gate/*"))) < 2:
            assert self.process.poll() is None and time.monotonic() < give_up_s, self.end()
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Let it end."""
        (self._waits / "held").touch()
        try:
            said = self.process.communicate(timeout=GIVEN_UP_S)[0]
        finally:
            self.process.kill()
        return self.process.returncode, said


@pytest.fixture
def begin(cluster: RayCluster, corpus: tuple[Workshop, Any]) -> Iterator[Callable[..., RayRun]]:
    runs: list[RayRun] = []

    def make(index: str, **order: Any) -> RayRun:
        runs.append(RayRun(cluster, corpus[0], index, **order))
        return runs[-1]

    yield make
    for run in runs:
        run.process.kill()
        run.process.communicate()


def seconds_until_gone(pids: Callable[[], list[int]]) -> float:
    started_s = time.monotonic()
    while pids() and time.monotonic() - started_s < GIVEN_UP_S:
        time.sleep(0.1)
    assert not pids()
    return time.monotonic() - started_s


SLOW = {"tokens_per_s": 2_000.0, "reading_processes": True}


def test_the_index_of_rays_workers_is_that_of_one_process(
    begin: Callable[..., RayRun], cluster: RayCluster, corpus: tuple[Workshop, Any], tmp_path: Path
) -> None:
    """And the processes that they start are as if they were started by hand."""
    facts_file = tmp_path / "facts"
    run = begin("ray", double={**SLOW, "facts_file": facts_file})
    run.wait_until_stored()
    readers = [_status_of(pid) for pid in cluster.ours()]
    status, said = run.end()
    assert status == 0, said
    assert run.shop.content() == corpus[1]
    assert said.count(" is ready: float32 on cpu") == 2
    facts = [json.loads(line) for line in facts_file.read_text().splitlines()]
    raylet_oom = Path(f"/proc/{cluster.raylets()[0]}/oom_score_adj").read_text().strip()
    assert len({fact["pid"] for fact in facts}) == 2
    assert {fact["omp"] for fact in facts} == {None} and {fact["nice"] for fact in facts} == {os.nice(0)}
    assert {fact["oom"] for fact in facts} == {raylet_oom}
    assert readers and {int(status["SigBlk"], 16) for status in readers} == {0}
    seconds_until_gone(cluster.workers)
    seconds_until_gone(cluster.ours)


def test_rays_workers_on_hosts_of_their_own_write_an_index_in_a_vault(
    begin: Callable[..., RayRun], corpus: tuple[Workshop, Any], tmp_path: Path
) -> None:
    url = f"file://{tmp_path / 'vault'}"
    double = {"hosts": tmp_path / "hosts", "gate": None, "held": None}
    run = begin(url, machine=str(tmp_path / "here"), double=double)
    status, said = run.end()
    assert status == 0, said
    reader = Machine(corpus[0].docs.parent, "reader", url)
    assert reader.content() == corpus[1] and not reader.stored("staging")
    assert list((tmp_path / "hosts").glob("*/workers/mirrors/*"))


def _status_of(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {"SigBlk": "0"}


def test_an_actor_that_is_killed_is_replaced_and_changes_nothing(
    begin: Callable[..., RayRun], cluster: RayCluster, corpus: tuple[Workshop, Any]
) -> None:
    run = begin("actor", double=SLOW)
    run.wait_until_stored()
    victim = cluster.workers()[0]
    os.kill(victim, signal.SIGKILL)
    status, said = run.end()
    assert status == 0, said
    assert " is lost: " in said and run.shop.content() == corpus[1]
    print([line for line in said.splitlines() if " is lost: " in line])
    seconds_until_gone(cluster.workers)
    seconds_until_gone(cluster.ours)


def test_a_stop_keeps_what_rays_workers_have_in_hand(
    begin: Callable[..., RayRun], cluster: RayCluster, corpus: tuple[Workshop, Any]
) -> None:
    """Ray would have a program leave at SIGTERM."""
    run = begin("stopped", double=SLOW)
    run.wait_until_stored()
    run.process.send_signal(signal.SIGTERM)
    status, said = run.end()
    assert status == 143, said
    seconds_until_gone(cluster.workers)
    run.shop.ingest()
    assert run.shop.content() == corpus[1]


def test_after_the_run_itself_is_killed_nothing_is_left_and_a_plain_run_goes_on(
    begin: Callable[..., RayRun], cluster: RayCluster, corpus: tuple[Workshop, Any]
) -> None:
    run = begin("driver", double=SLOW)
    run.wait_until_stored()
    run.process.kill()
    run.end()
    took_s = max(seconds_until_gone(cluster.workers), seconds_until_gone(cluster.ours))
    print(f"all workers and their children were gone after {took_s:.1f} s")
    rows = sum(row["chunks"] for row in corpus[0].documents().values())
    run.shop.ingest()
    assert any("that an earlier run had finished" in line for line in run.shop.report.said)
    assert run.shop.embedded - 18 < rows
    assert run.shop.content() == corpus[1]


def test_the_run_of_the_readme_works_on_the_cluster_that_its_lines_start(cluster: RayCluster, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "samples", tmp_path / "docs")
    line = cluster.ingest.replace("/shared", str(tmp_path)).replace("embedcli", f"{sys.executable} -m embedcli", 1)
    ran = subprocess.run(
        f"{line.partition('#')[0]} --dim 128", shell=True, env=cluster.environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "generation 1: 11 new; 76 chunks" in ran.stderr and " is ready: " in ran.stderr


def test_a_machine_that_is_lost_changes_nothing_and_its_workers_end(
    begin: Callable[..., RayRun], clusters: Clusters, cluster: RayCluster, corpus: tuple[Workshop, Any]
) -> None:
    """The cluster has one machine less then."""
    run = begin("raylet", double=SLOW)
    run.wait_until_stored()
    clusters.lost += 1
    os.kill(cluster.raylets()[-1], signal.SIGKILL)
    status, said = run.end()
    assert status == 0, said
    assert " is lost: " in said and run.shop.content() == corpus[1]
    seconds_until_gone(cluster.workers)
    seconds_until_gone(cluster.ours)


NOTICE = """
import time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from embedcli.cluster import ray_transport

ray_transport.connect()
ray_transport.NOTICE_S = 0.1
workers = ray_transport.RayTransport(most=1, cpus=1, gpus=0)
while not (arrived := workers.arrived()):
    time.sleep(0.1)
before = set(workers.draining())
spot = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
deadline_ms = int(time.time() * 1000) + 600_000
assert GcsClient(address=ray_transport.ray.get_runtime_context().gcs_address).drain_node(
    arrived[0].node, spot, "a test", deadline_ms
)[0]
while not workers.draining():
    time.sleep(0.1)
print(before, set(workers.draining()) == {arrived[0].name})
workers.close()
"""


def test_ray_says_which_workers_are_on_a_machine_that_is_about_to_go(clusters: Clusters) -> None:
    """Ray starts nothing on such a machine any more."""
    environment = clusters.with_machines(1).environment
    clusters.lost = 2
    command = [sys.executable, "-c", NOTICE]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GIVEN_UP_S)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n")[0] == "set() True"
