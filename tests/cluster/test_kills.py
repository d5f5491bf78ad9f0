"""Workers and the run itself are really killed, at each operation on the disk: nothing is lost, doubled or paid twice.

In: the real `ingest` over workers in processes (tests/cluster_driver.py). The result is compared with a run in one
process. Not here: what becomes of messages (test_coordinator.py), Ray (test_ray_transport.py).
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from embedcli.index.generations import Index
from embedcli.vault.disk import Disk
from embedcli.verbs.verify import verify
from tests.cluster.test_coordinator import fill, state_of
from tests.workshop import UNFINISHED, Workshop

DRIVER = Path(__file__).parents[1] / "cluster_driver.py"
SIGKILLED = -9
WORKERS = 2
LONG = os.environ.get("EMBEDCLI_TESTS_LONG") == "1"
BOTH = 100 if LONG else 4
FLAGS = {"checkpoint_every_s": 0.05}


class Runs:
    """Orders to the driver, each over a fresh index of the same documents."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process
        self.shop = Workshop(folder, index="alone")
        fill(self.shop, 16)
        self.shop.write("unfinished.txt", UNFINISHED)
        self.shop.ingest()
        self.expected = state_of(self.shop)
        self.said = folder / "said"

    def run(self, *, workers: int = WORKERS, index: str = "index", **order: Any) -> int:
        assert self.process.stdin and self.process.stdout
        whole = {"folder": self.folder, "index": index, "workers": workers, "flags": FLAGS, "said": self.said, **order}
        print(json.dumps(whole, default=str), file=self.process.stdin, flush=True)
        return int(json.loads(self.process.stdout.readline())["status"])

    def fresh(self) -> None:
        shutil.rmtree(self.folder / "index", ignore_errors=True)
        for name in ("read", "once", "held"):
            (self.folder / name).unlink(missing_ok=True)

    def double(self, **fields: Any) -> dict[str, Any]:
        return {"tokens_per_s": 20_000.0, "read_log": self.folder / "read", **fields}

    def assert_as_alone(self) -> None:
        shop = Workshop(self.folder, index="index")
        assert state_of(shop) == self.expected
        assert not list((shop.index / "staging").iterdir())
        assert verify(Index(shop.index, disk=Disk())).damage == []

    @property
    def is_published(self) -> bool:
        return (self.folder / "index" / "current").exists()

    def go_on_alone(self) -> None:
        """A plain run: it reads at most two slices a worker again, and what holds other documents."""
        read = set((self.folder / "read").read_text().splitlines()) if (self.folder / "read").exists() else set()
        published = self.is_published
        status = self.run(workers=0, flags={"dim": 16, "max_tokens": 64})
        assert status == 3 or (published and status == 0), "the broken file is news, once"
        adopted = re.search(r"going on with (\d+) documents?", self.said.read_text())
        again = len(read) - int(adopted[1] if adopted else 0)
        holders, largest = 2, 20 // (4 * WORKERS) + 1
        assert published or again <= 2 * WORKERS * largest + holders

    def in_parts(self, **fields: Any) -> dict[str, Any]:
        """Workers of which one stores a document in parts, however fast they are: UNFINISHED waits for that."""
        return self.double(held=self.folder / "held", go_when_loose=True, **fields)

    def kill_a_worker(self, name: str, **order: Any) -> None:
        """Of one that is killed at an operation the run makes up for itself."""
        self.fresh()
        workers = self.in_parts if "loose" in name else self.double
        status = self.run(double=workers(kill_at=[name, 1], once=self.folder / "once"), **order)
        assert status == 3, f"{name}: {self.said.read_text()}"
        self.assert_as_alone()
        assert " is lost: " in self.said.read_text(), f"no worker came to `{name}`"

    def kill_both(self, seed: int) -> int:
        """A worker and the run, each at a random operation; returns the status of the run, which may end first."""
        chance = random.Random(seed)
        self.fresh()
        status = self.run(
            double=self.double(kill_at=[None, chance.randint(2, 30)], once=self.folder / "once"),
            kill=[None, chance.randint(10, 60)],
        )
        assert status in (SIGKILLED, 3), self.said.read_text()
        return status


AnyRuns = TypeVar("AnyRuns", bound=Runs)


@contextmanager
def driven(kind: type[AnyRuns], folder: Path) -> Iterator[AnyRuns]:
    """Runs in a folder, forked from one process that has its imports done."""
    command = [sys.executable, str(DRIVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield kind(folder, process)
        assert process.stdin
        process.stdin.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with driven(Runs, tmp_path_factory.mktemp("kills")) as found:
        yield found


@pytest.fixture(scope="module")
def operations(runs: Runs) -> tuple[list[str], list[str]]:
    """What the workers and what the run do on the disk, by name."""
    return operations_of(runs)


def operations_of(runs: Runs) -> tuple[list[str], list[str]]:
    runs.fresh()
    by_workers, by_run = runs.folder / "workers", runs.folder / "run"
    assert runs.run(double=runs.in_parts(record=by_workers), record=by_run) == 3
    runs.assert_as_alone()
    return sorted(set(by_workers.read_text().splitlines())), sorted(set(by_run.read_text().splitlines()))


def test_a_worker_that_is_killed_at_any_operation_changes_nothing(
    runs: Runs, operations: tuple[list[str], list[str]]
) -> None:
    names = operations[0]
    loose = {"rename writer/loose.npy", "remove writer/loose.vectors.npy"}
    assert {"step shard stored", "append writer/journal.jsonl", "step staging begun"} | loose <= set(names)
    for name in names:
        runs.kill_a_worker(name)


def test_a_run_that_is_killed_at_any_operation_is_finished_by_a_plain_one(
    runs: Runs, operations: tuple[list[str], list[str]]
) -> None:
    """By default at those in the staging folder and at the swap: the others are as in a run without workers."""
    names = [name for name in operations[1] if LONG or re.search(r"N/|swap|journal|stored", name)]
    assert {"step before swap", "append N/journal.jsonl", "carry N/part.parquet"} <= set(names)
    for name in names:
        runs.fresh()
        assert runs.run(double=runs.double(), kill=[name, 1]) == SIGKILLED, name
        runs.go_on_alone()
        runs.assert_as_alone()


def test_workers_and_a_run_that_are_both_killed_at_random_lose_nothing(
    runs: Runs, operations: tuple[list[str], list[str]]
) -> None:
    for seed in range(BOTH):
        if runs.kill_both(seed) == SIGKILLED:
            runs.go_on_alone()
        runs.assert_as_alone()
