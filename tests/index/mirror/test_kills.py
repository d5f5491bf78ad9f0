"""Runs on several machines that are killed while they write an index into a vault lose and duplicate nothing.

Not here: the same in a folder (tests/test_crash.py), whose corpus and driver these tests use.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.config import index_folder
from embedcli.errors import NoIndex
from embedcli.index.mirror.place import open_index
from embedcli.vault.opened import open_vault
from embedcli.verbs.shards import shards
from embedcli.verbs.verify import verify
from tests.crash_driver import BATCH_ROWS
from tests.s3 import S3
from tests.test_crash import SIGKILLED, Corpus, Runs, coming_to, driver, rows_of

LONG = os.environ.get("EMBEDCLI_TESTS_LONG") == "1"
KILLS = 200 if LONG else 12
OPERATIONS = 1_000 if LONG else 10
"""At how many of the named operations a run is killed, beside those around the swap."""
SWAP = {"step swapped", "point current", "step before swap", "append N/journal.jsonl", "step N/manifest.json"}
LOOK_S = 0.05


class Fleet:
    """Machines that share sources and a vault. One whose mirror was lost is a new machine."""

    def __init__(self, runs: Runs, url: str) -> None:
        self.runs = runs
        self.url = url
        self.log = runs.folder / "fleet.log"
        self.chance = random.Random(11)
        self.machines = [self.mirror(f"machine-{number}") for number in range(3)]

    def mirror(self, name: str) -> Path:
        return index_folder(self.url, {"EMBEDCLI_CACHE": str(self.runs.folder / name)})

    def run(self, corpus: Corpus, machine: int | None = None, **order: Any) -> int:
        index = self.machines[self.chance.randrange(3) if machine is None else machine]
        if self.chance.random() < 0.2:
            shutil.rmtree(index, ignore_errors=True)
        return self.runs.run(corpus, index=index, log=str(self.log), **order)

    @property
    def embedded(self) -> Counter[str]:
        """How often each row was embedded, on any machine."""
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()

    def assert_as_from_scratch(self, corpus: Corpus) -> None:
        assert self.run(corpus) == 0
        scratch = self.runs.folder / "scratch"
        assert self.runs.run(corpus, index=scratch) == 0
        found, expected = rows_in(self.url, self.mirror("new")), rows_of(scratch)
        assert found.keys() == expected.keys()
        for chunk_id, row in expected.items():
            row.pop("vector"), found[chunk_id].pop("vector")
            assert found[chunk_id] == row
        shutil.rmtree(scratch)
        assert not list(open_vault(self.url).list("staging")), "nothing of a killed run is left"


def rows_in(url: str, mirror: Path) -> dict[str, dict[str, Any]]:
    """The rows that are published, as another machine reads them from the vault."""
    vault = open_vault(url)
    listed = shards(open_index(mirror))
    tables = [pq.read_table(pa.BufferReader(vault.read(uri.removeprefix(f"{url}/"))[0])) for uri in listed.shards]
    rows = pa.concat_tables(tables).drop_columns(["changed_in"]).to_pylist()
    assert len({row["chunk_id"] for row in rows}) == len(rows), "a chunk has two rows"
    return {row["chunk_id"]: row for row in rows}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with driver(tmp_path) as found:
        yield found


@pytest.fixture
def fleet(runs: Runs, tmp_path: Path) -> Fleet:
    """The vault is a folder, which is quicker: that a bucket keeps the same contract is shown in vault/."""
    return Fleet(runs, f"file://{tmp_path / 'vault'}")


@pytest.fixture
def s3_fleet(s3: S3, tmp_path: Path) -> Iterator[Fleet]:
    with driver(tmp_path) as runs:  # which starts with the environment that reaches the server
        yield Fleet(runs, f"{s3.bucket()}/idx")


@contextmanager
def watched(url: str, mirror: Path) -> Iterator[None]:
    """Meanwhile another machine reads whatever is current: each time a whole generation, never an older one again."""
    seen, wrong, ended = [0], list[BaseException](), threading.Event()

    def read() -> None:
        while not ended.wait(LOOK_S):
            try:
                listed = shards(open_index(mirror))
                seen.append(listed.generation)
                rows_in(url, mirror)
            except NoIndex:
                continue
            except BaseException as error:  # noqa: BLE001 - whatever it was, the test has to fail
                wrong.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()
    assert not wrong and seen == sorted(seen)
    print(f"reader: {len(seen) - 1} readings, {len(set(seen)) - 1} generations")


def test_runs_killed_at_named_operations_are_continued_on_any_machine(fleet: Fleet, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, seed=21)
    names = set(recorded(fleet, corpus))
    corpus.edit()
    names |= set(recorded(fleet, corpus))
    assert names >= SWAP, sorted(names)
    left = sorted(names - {"rename N/probe.npy"})  # in staging, where only a first run writes it
    left = sorted(SWAP.union(fleet.chance.sample(left, min(OPERATIONS, len(left)))))
    with watched(fleet.url, fleet.mirror("reader")):
        for attempt in range(6):
            if attempt > 1 and not left:
                break
            for name in list(left):
                corpus.edit()
                if fleet.run(corpus, **coming_to(name, corpus)) == SIGKILLED:
                    left.remove(name)
            fleet.assert_as_from_scratch(corpus)
    assert not left


def recorded(fleet: Fleet, corpus: Corpus) -> list[str]:
    record = fleet.runs.folder / "record"
    assert fleet.run(corpus, 0, record=str(record)) == 0
    return [name for name in record.read_text().splitlines() if not name.startswith("step runs/")]


def test_runs_killed_at_random_moments_lose_and_duplicate_nothing(s3_fleet: Fleet, tmp_path: Path) -> None:
    fleet = s3_fleet
    corpus = Corpus(tmp_path, seed=22)
    recorded(fleet, corpus)
    corpus.edit()
    operations = len(recorded(fleet, corpus))
    killed = 0
    with watched(fleet.url, fleet.mirror("reader")):
        for tried in range(4 * KILLS):
            corpus.edit()
            killed += fleet.run(corpus, kill=[None, fleet.chance.randint(1, operations)], in_step=True) == SIGKILLED
            assert fleet.runs.last_status in (0, SIGKILLED)
            if tried % 20 == 19 or killed == KILLS:
                fleet.assert_as_from_scratch(corpus)
            if killed == KILLS:
                break
    assert killed == KILLS
    assert verify(open_index(fleet.mirror("checker"))).damage == []
    again = fleet.embedded.total() - len(fleet.embedded)
    print(f"{killed} kills, {again} of {len(fleet.embedded)} rows embedded again")
    assert again <= killed * BATCH_ROWS, "a kill costs the list that was not stored yet"


def test_a_kill_on_one_machine_is_continued_on_another_without_embedding_again(fleet: Fleet, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, seed=23)
    for _ in range(60):  # many more than six checkpoints hold
        corpus.add()
    assert fleet.run(corpus, 0, kill=["append N/journal.jsonl", 6], in_step=True) == SIGKILLED
    journals = [item.key for item in open_vault(fleet.url).list("staging") if "/journal/" in item.key]
    assert len(journals) == 5, "each checkpoint is an object"
    before = fleet.embedded.total()
    assert fleet.run(corpus, 1) == 0
    again = fleet.embedded.total() - len(fleet.embedded)
    print(f"of {len(fleet.embedded)} rows {before} were embedded before the kill, {again} of them again")
    assert before < len(fleet.embedded) and again <= BATCH_ROWS < before, "what was stored is not embedded again"
    fleet.assert_as_from_scratch(corpus)
