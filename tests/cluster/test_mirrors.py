"""A run over workers with its index in a vault: each worker has a mirror apart, and what it stores is in the vault.

In: workers in threads and in processes, a vault in a folder and in a bucket; runs and workers that are killed or
suspended at named operations. Not here: the same in a shared folder (test_coordinator.py, test_kills.py).
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embedcli.config import index_folder, mirrored_url, workers_folder
from embedcli.errors import Locked, StorageError
from embedcli.index.mirror.mirror import Mirror
from embedcli.vault.lease import Borrowed
from embedcli.vault.opened import open_vault
from embedcli.vault.stubs import fetched
from tests.cluster.test_coordinator import COMPARED, fill, lets_go, state_of
from tests.cluster.test_kills import BOTH, LONG, SIGKILLED, WORKERS, Runs, driven, operations_of
from tests.cluster_doubles import Double, Processes, ProcessHandle, Threads
from tests.index.mirror.test_mirror import Machine, OtherMachinePublishes
from tests.s3 import S3
from tests.workshop import UNFINISHED, Workshop, words

PUT_SHARD = "step put vectors/part.parquet"


class Site(Machine):
    """A machine that can also be asked for the documents of the index."""

    def documents(self) -> dict[str, dict[str, Any]]:
        self.opened()
        table = pq.read_table(fetched(self.index / "current" / "documents.parquet"))
        return {row["path"]: row for row in table.to_pylist()}


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an index in either kind of vault."""
    if request.param == "folder":
        return f"file://{tmp_path / 'vault'}"
    s3: S3 = request.getfixturevalue("s3")
    return f"{s3.bucket()}/idx"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'vault'}"


@pytest.fixture(autouse=True)
def workers_of_machine_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in threads are on the machine on which `one` runs."""
    monkeypatch.setenv("EMBEDCLI_CACHE", str(tmp_path / "one"))


@pytest.fixture
def alone(tmp_path: Path) -> tuple[Workshop, Any]:
    """A corpus, and what a run in one process makes of it in a folder."""
    shop = Workshop(tmp_path, index="alone")
    fill(shop, 16)
    shop.write("unfinished.txt", UNFINISHED)
    summary = shop.ingest().to_json()
    return shop, {name: summary[name] for name in COMPARED}


def test_the_workers_of_a_machine_have_a_mirror_in_which_no_run_works(url: str, tmp_path: Path) -> None:
    here, there = ({"EMBEDCLI_CACHE": str(tmp_path / name)} for name in ("here", "there"))
    mirror = index_folder(url, here)
    assert mirrored_url(workers_folder(mirror, here)) == url and workers_folder(mirror, here) != mirror
    assert workers_folder(mirror, there) == workers_folder(index_folder(url, there), there)
    assert workers_folder(tmp_path / "idx", here) == tmp_path / "idx", "a folder is shared"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_index_of_workers_in_a_vault_is_that_of_one_process(
    alone: tuple[Workshop, Any], anywhere: str, tmp_path: Path, count: int
) -> None:
    one, two = Site(tmp_path, "one", anywhere), Site(tmp_path, "two", anywhere)
    summary = one.ingest(workforce=Threads(count)).to_json()
    assert {name: summary[name] for name in COMPARED} == alone[1]
    assert state_of(two) == state_of(alone[0]) and two.verified() == []
    assert not one.stored("staging") and not list((one.index / "staging").iterdir())
    mirror = workers_folder(one.index)
    assert mirror.is_dir() and not list(mirror.glob("staging/*/writer-*")), "what is in the vault is not kept here too"


def test_workers_on_hosts_of_their_own_share_nothing_but_the_vault(
    alone: tuple[Workshop, Any], anywhere: str, tmp_path: Path
) -> None:
    one, two, hosts = Site(tmp_path, "one", anywhere), Site(tmp_path, "two", anywhere), tmp_path / "hosts"
    one.ingest(workforce=Processes(2, Double(hosts=hosts)))
    assert len(list(hosts.glob("*/workers/mirrors/*"))) == 2
    assert state_of(two) == state_of(alone[0]) and two.verified() == []
    assert not one.stored("staging")


def test_what_is_published_on_the_way_over_workers_in_a_vault_is_whole(
    alone: tuple[Workshop, Any], url: str, tmp_path: Path
) -> None:
    one, two, held = Site(tmp_path, "one", url), Site(tmp_path, "two", url), tmp_path / "held"
    summary = one.ingest(
        workforce=Threads(2, Double(tokens_per_s=4_000.0, held=held)), publish_every_s=0.4,
        stop_signal=lets_go(held, (one.index / "current").exists),
    )  # fmt: skip
    assert summary.generation and summary.generation > 1
    assert state_of(two) == state_of(alone[0]) and two.verified() == []
    assert not one.stored("staging")


def test_a_night_over_workers_takes_the_vectors_of_another_machine_from_the_vault(
    alone: tuple[Workshop, Any], url: str, tmp_path: Path
) -> None:
    shop, log = alone[0], tmp_path / "log"
    one, two = Site(tmp_path, "one", url), Site(tmp_path, "two", url)
    one.ingest(workforce=Threads(2, Double(log_file=log)))
    first = set(log.read_text().splitlines())
    log.unlink()
    shop.write("0/000.txt", words(80, seed=777))
    (shop.docs / "1/001.txt").rename(shop.docs / "1/moved.txt")
    (shop.docs / "2/002.txt").unlink()
    expected = shop.ingest().to_json()
    found = two.ingest(workforce=Processes(2, Double(log_file=log, hosts=tmp_path / "hosts"))).to_json()
    assert {name: found[name] for name in COMPARED} == {name: expected[name] for name in COMPARED}
    assert state_of(one) == state_of(shop) and two.verified() == []
    new = set(log.read_text().splitlines()) - first
    assert 0 < len(new) < len(first) / 4
    assert two.ingest().idle


def test_documents_and_index_may_both_be_in_a_bucket(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket()
    for number in range(12):
        open_vault(bucket).put_new(f"docs/{number:02d}.txt", words(60, seed=number).encode())
    source: Any = f"{bucket}/docs"
    alone, one, two = Workshop(tmp_path, index="alone"), *(Site(tmp_path, n, f"{bucket}/idx") for n in ("one", "two"))
    alone.ingest(source)
    assert one.ingest(source, workforce=Processes(2, Double(hosts=tmp_path / "hosts"))).exit_code == 0
    assert state_of(two) == state_of(alone) and two.verified() == []
    assert len(two.documents()) == 12 and not one.stored("staging")
    assert two.ingest(workforce=Threads(2)).idle


# ---- workers that come back


class Suspended:
    """A run over a worker that is suspended just before it stores a shard, then taken for lost, and replaced."""

    def __init__(self, site: Site, hosts: Path) -> None:
        double = Double(url=site.url, hosts=hosts, once=hosts.with_name("once"), stop_at=(PUT_SHARD, 1))
        self.site = site
        self.force = Processes(1, double)

    @property
    def worker(self) -> ProcessHandle:
        (found,) = [handle for handle in self.force.handles if handle.is_cut_off]
        return found

    def ingest(self, **flags: Any) -> None:
        over = threading.Event()
        watch = threading.Thread(target=self._cut_off, args=(over,))
        watch.start()
        try:
            self.site.ingest(workforce=self.force, **flags)
        finally:
            over.set()
            watch.join()

    def _cut_off(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            for handle in self.force.handles:
                if handle.is_suspended:
                    handle.cut_off("suspended")
                    return

    def comes_back(self) -> None:
        """It goes on where it was, and is refused; what is in the vault stays as it is."""
        worker, before = self.worker, self.site.stored()
        os.kill(worker.process.pid, signal.SIGCONT)
        with pytest.raises(Locked, match="has ended, or has lost its lease"):
            for _ in range(24):  # each waits for seconds
                worker.collect()
        assert self.site.stored() == before


@pytest.fixture
def suspended(url: str, tmp_path: Path) -> Iterator[Suspended]:
    found = Suspended(Site(tmp_path, "one", url), tmp_path / "hosts")
    yield found
    for handle in found.force.handles:
        handle.end()


def test_a_worker_that_comes_back_after_its_run_has_ended_stores_nothing(
    alone: tuple[Workshop, Any], suspended: Suspended
) -> None:
    suspended.ingest()
    assert any("is lost: suspended" in line for line in suspended.site.report.said)
    suspended.comes_back()
    assert not suspended.site.stored("staging")
    assert state_of(suspended.site) == state_of(alone[0]) and suspended.site.verified() == []


def test_a_worker_that_comes_back_after_another_run_has_the_lease_stores_nothing(
    alone: tuple[Workshop, Any], suspended: Suspended, tmp_path: Path
) -> None:
    two = Site(tmp_path, "two", suspended.site.url)

    def publish_elsewhere() -> None:
        two.ingest(two.docs, disk=Mirror(two.index, two.vault, lease_s=0.5), dim=16, max_tokens=64)
        suspended.comes_back()
        assert not two.stored("staging"), "the other run has adopted it"

    with pytest.raises(Locked) as lost:
        suspended.ingest(disk=OtherMachinePublishes(suspended.site, publish_elsewhere))
    assert lost.value.exit_code == 11 and two.pointer().fence == 2
    assert state_of(two) == state_of(alone[0]) and two.verified() == []


def test_a_worker_that_does_not_see_the_vault_of_its_run_says_so(tmp_path: Path) -> None:
    vault = open_vault(f"file://{tmp_path / 'not mounted'}")
    with pytest.raises(StorageError, match="there is no index in"):
        Borrowed(vault, fence=1).check()


# ---- kills


class VaultRuns(Runs):
    """Each fresh index is in a vault of its own, each run on a machine of its own, and each worker on another one."""

    vaults = machines = 0

    @property
    def url(self) -> str:
        return f"file://{self.folder / f'v{self.vaults}'}"

    def site(self) -> Site:
        self.machines += 1
        return Site(self.folder, f"m{self.machines}", self.url)

    def fresh(self) -> None:
        super().fresh()
        self.vaults += 1

    def run(self, *, workers: int = WORKERS, index: str = "", **order: Any) -> int:
        self.machines += 1
        return super().run(workers=workers, index=index or self.url, machine=f"m{self.machines}", **order)

    def double(self, **fields: Any) -> dict[str, Any]:
        return super().double(url=self.url, hosts=self.folder / "hosts", **fields)

    def assert_as_alone(self) -> None:
        site = self.site()
        assert state_of(site) == self.expected
        assert not site.stored("staging"), "nothing of a killed run is left"
        assert site.verified() == []

    @property
    def is_published(self) -> bool:
        return any(item.key == "current.json" for item in open_vault(self.url).list())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultRuns]:
    with driven(VaultRuns, tmp_path_factory.mktemp("kills")) as found:
        yield found


@pytest.fixture(scope="module")
def operations(runs: VaultRuns) -> tuple[list[str], list[str]]:
    """What the workers and what the run do, by name."""
    by_workers, by_run = operations_of(runs)
    return by_workers, [name for name in by_run if not name.startswith("step runs/")]  # the history, after everything


def go_on(runs: VaultRuns, workers: int) -> None:
    """A plain run, or one with workers, goes on."""
    if not workers:
        return runs.go_on_alone()
    published = runs.is_published
    status = runs.run(workers=workers, double=runs.double(), flags={"dim": 16, "max_tokens": 64})
    assert status == 3 or (published and status == 0)


def test_a_worker_that_is_killed_at_any_operation_on_a_vault_changes_nothing(
    runs: VaultRuns, operations: tuple[list[str], list[str]]
) -> None:
    """By default at what it stores in the vault: the others are as in a folder."""
    names = [name for name in operations[0] if LONG or re.search(r"put |journal/|^step writer/", name)]
    assert {PUT_SHARD, "step put keys/part.npy", "step journal/N.jsonl"} <= set(names)
    for name in names:
        runs.kill_a_worker(name, workers=1)


def test_a_run_that_is_killed_at_any_operation_on_a_vault_is_finished_elsewhere(
    runs: VaultRuns, operations: tuple[list[str], list[str]]
) -> None:
    """In turn by a plain run and by one with workers, each time on a machine that has nothing."""
    names = [name for name in operations[1] if LONG or re.search(r"carry N/|journal|swap|put generations|remove", name)]
    assert {"step before swap", "step swapped", "append N/journal.jsonl", "carry N/part.parquet"} <= set(names)
    for turn, name in enumerate(names):
        runs.fresh()
        assert runs.run(double=runs.double(), kill=[name, 1]) == SIGKILLED, name
        go_on(runs, workers=WORKERS * (turn % 2))
        runs.assert_as_alone()


def test_workers_and_a_run_on_a_vault_that_are_both_killed_at_random_lose_nothing(
    runs: VaultRuns, operations: tuple[list[str], list[str]]
) -> None:
    for seed in range(BOTH):
        if runs.kill_both(seed) == SIGKILLED:
            go_on(runs, workers=WORKERS * (seed % 2))
        runs.assert_as_alone()


def test_what_workers_of_a_killed_run_have_stored_is_adopted_hours_later(runs: VaultRuns) -> None:
    """Although nothing but their own journals names it, and objects that nobody needs go after an hour."""
    runs.fresh()
    assert runs.run(double=runs.double(), kill=["append N/journal.jsonl", 1]) == SIGKILLED
    site = runs.site()
    root = Path(site.url.removeprefix("file://"))
    for item in list(site.vault.list()):
        if item.key != "lease.json":
            os.utime(root / item.key, (time.time() - 7200, time.time() - 7200))
    flags = {"dim": 16, "max_tokens": 64}
    assert runs.run(workers=0, kill=["step staging begun", 1], flags=flags) == SIGKILLED, "it has removed what may go"
    runs.go_on_alone()
    assert "that an earlier run had finished" in runs.said.read_text()
    runs.assert_as_alone()
