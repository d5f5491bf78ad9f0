"""A run or verb that is killed, at each operation of the write order or at random, loses and duplicates nothing.

The result is compared with an index made from scratch of the same tree. 200 kills are at random moments, with
EMBEDCLI_TESTS_LONG=1 2,000. Not here: kills of the program as a user starts it (test_regressions.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

from embedcli.index import documents, state
from embedcli.index.clearing import clear
from embedcli.index.generations import Index
from embedcli.vault.disk import Disk
from embedcli.verbs.verify import verify
from tests.crash_driver import BATCH_ROWS
from tests.workshop import LONG_AGO_NS, follow, words

DRIVER = Path(__file__).with_name("crash_driver.py")
LONG = os.environ.get("EMBEDCLI_TESTS_LONG") == "1"
KILLS = 2_000 if LONG else 200
"""How many kills are at random moments."""
SIGKILLED = -9
SLOW_BATCH_S = 0.02
FLAGS = {
    "dim": 16, "max_tokens": 64, "checkpoint_bytes": 1, "checkpoint_every_s": 0.0,
    "max_gone_percent": 100.0,  # most files can get another name between two complete runs
}  # fmt: skip


class Corpus:
    """Two roots of tiny files with random but seeded edits.

    Every edit is new text, so that a row that is embedded twice can be recognised.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.roots = [folder / "one"]
        self.second = folder / "two"
        self.texts = 0
        for _ in range(14):
            self.add()

    def add(self) -> None:
        root = self.chance.choice(self.roots)
        self._write(root / f"{self.chance.choice('abc')}/{self.texts:04d}.txt")

    def add_long(self) -> None:
        """A file of many batches: in between the engine has answered for a part of it."""
        self._write(self.roots[0] / f"long/{self.texts:04d}.txt", 600)

    def _write(self, path: Path, count: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.texts += 1
        path.write_text(words(count or self.chance.choice((20, 20, 120)), self.texts))
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + self.texts))

    def files(self) -> list[Path]:
        return sorted(path for root in self.roots for path in root.rglob("*.txt"))

    def add_root(self) -> None:
        self.roots = [*self.roots, self.second]
        for number in range(3):
            self._write(self.second / f"{number}.txt")

    def edit(self) -> None:
        """Rewrite two files; sometimes also add, delete or rename one."""
        for path in self.chance.sample(self.files(), 2):
            self._write(path)
        for change in self.chance.sample((self.add, self._delete, self._rename), self.chance.randint(0, 2)):
            change()

    def _delete(self) -> None:
        files = self.files()
        if len(files) > 12:
            self.chance.choice(files).unlink()

    def _rename(self) -> None:
        path = self.chance.choice(self.files())
        self.texts += 1
        path.rename(path.with_name(f"{self.texts:04d}-renamed.txt"))


class Runs:
    """Sends orders to the driver, which forks a process for each run, and counts how many rows were embedded twice."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.index = folder / "index"
        self.process = process
        self.log = folder / "embedded.log"
        self.repeated: list[int] = []
        self.seconds = 0.0
        self.last_status = 0

    def run(self, corpus: Corpus, *, index: Path | None = None, **order: Any) -> int:
        before = self._repeats()
        index = index or self.index
        log = self.log if index == self.index else self.folder / "reference.log"
        sources = [str(root) for root in corpus.roots]
        whole = {"sources": sources, "index": str(index), "flags": FLAGS, "log": str(log), "max_tokens": 64, **order}
        assert self.process.stdin and self.process.stdout
        print(json.dumps(whole), file=self.process.stdin, flush=True)
        reply = json.loads(self.process.stdout.readline())
        status, self.seconds = int(reply["status"]), float(reply["seconds"])
        self.repeated.append(self._repeats() - before)
        self.last_status = status
        return status

    def _repeats(self) -> int:
        lines = Counter(self.log.read_text().split()) if self.log.exists() else Counter[str]()
        return lines.total() - len(lines)

    def record(self, corpus: Corpus, **order: Any) -> list[str]:
        """The operations of a run that is not killed."""
        assert self.run(corpus, record=str(self.folder / "record"), **order) == 0
        return (self.folder / "record").read_text().splitlines()


def rows_of(index: Path) -> dict[str, dict[str, Any]]:
    table = ds.dataset(sorted((index / "current/vectors").glob("*.parquet")), format="parquet").to_table()
    rows = table.drop_columns(["changed_in"]).to_pylist()
    assert len({row["chunk_id"] for row in rows}) == len(rows), "a chunk has two rows"
    return {row["chunk_id"]: row for row in rows}


def documents_of(index: Path) -> list[dict[str, Any]]:
    """documents.parquet with the stats seen since, without the places of the rows, which may differ."""
    opened = Index(index, disk=Disk())
    number = opened.current_number()
    assert number is not None
    table = documents.amend(opened.documents(number), state.read_seen(opened.state, number))
    rows: list[dict[str, Any]] = table.drop_columns(["shard", "first_row"]).to_pylist()
    return rows


def assert_as_from_scratch(runs: Runs, corpus: Corpus, **flags: Any) -> None:
    """Complete a run; rows and documents must equal those of an index that was never interrupted."""
    assert runs.run(corpus, flags={**FLAGS, **flags}) == 0
    scratch = runs.folder / "scratch"
    assert runs.run(corpus, index=scratch, flags={**FLAGS, **flags}) == 0
    ours, theirs = rows_of(runs.index), rows_of(scratch)
    assert ours.keys() == theirs.keys()
    for chunk_id, row in ours.items():
        expected = theirs[chunk_id]
        assert np.allclose(row.pop("vector"), expected.pop("vector"), atol=1e-5)
        assert row == expected
    assert documents_of(runs.index) == documents_of(scratch)
    shutil.rmtree(scratch)
    assert follow(runs.index) == ours.keys(), "a loader that applied every change has the same chunks"
    assert not any((runs.index / "staging").iterdir()), "no folder of a killed run is left"
    assert not list((runs.index / "generations").glob("*.tmp"))


@contextmanager
def driver(folder: Path) -> Iterator[Runs]:
    command = [sys.executable, str(DRIVER), "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Runs(folder, process)
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with driver(tmp_path) as found:
        yield found


@contextmanager
def watched(index: Path) -> Iterator[None]:
    """Meanwhile a second process reads `index`; it must never see a mixed or torn generation."""
    command = [sys.executable, str(DRIVER), "watch", str(index)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield
        seen = json.loads(process.communicate("")[0])
    print(f"reader: {seen['polls']} reads, {seen['scans']} scans, {seen['missed']} missed files at a swap,"
          f" {len(seen['generations'])} generations")  # fmt: skip
    assert not seen["wrong"]
    assert seen["polls"] and seen["scans"]


def test_runs_killed_at_every_named_operation_lose_and_duplicate_nothing(runs: Runs, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, seed=1)
    names = set(runs.record(corpus))
    corpus.edit()
    names |= set(runs.record(corpus))
    assert {"step shard merged", "step before swap", "point current", "append N/journal.jsonl"} <= names
    left = sorted(names - {"rename N/probe.npy"})  # in staging, where only a first run writes it
    with watched(runs.index):
        for attempt in range(6):
            if attempt > 1 and not left:
                break
            corpus.edit()
            left = [name for name in left if not _killed_at(name, runs, corpus)]
            assert_as_from_scratch(runs, corpus)
            if not attempt:
                corpus.add_root()
    print(f"{len(names)} operations, rows embedded again after each kill: {runs.repeated}")
    assert not left


def _killed_at(name: str, runs: Runs, corpus: Corpus) -> bool:
    """Kill a run at the operation `name`, sometimes after another edit; returns whether it was killed."""
    if runs.last_status == 0 or corpus.chance.random() < 0.5:
        corpus.edit()
    return runs.run(corpus, **coming_to(name, corpus), reading_processes=True) == SIGKILLED


def coming_to(name: str, corpus: Corpus) -> dict[str, Any]:
    """An order of a run that is killed at the operation `name`. Where that stores a part of a document the run finds
    a long one, and an engine that waits until each part is stored."""
    order: dict[str, Any] = {"kill": [name, 1]}
    if "loose" in name:
        corpus.add_long()
        order["in_step"] = True
    return order


def test_runs_killed_at_random_moments_lose_and_duplicate_nothing(runs: Runs, tmp_path: Path) -> None:
    corpus, chance = Corpus(tmp_path, seed=2), random.Random(3)
    runs.record(corpus)
    corpus.edit()
    operations = len(runs.record(corpus))  # of a later run: the first one has more
    longest_s, killed, tried = runs.seconds, 0, 0
    with watched(runs.index):
        while killed < KILLS:
            tried += 1
            if len(corpus.roots) == 1 and killed > KILLS // 2:
                corpus.add_root()
            if runs.last_status == 0 or chance.random() < 0.5:
                corpus.edit()
            by_operation = chance.random() < 0.6
            killed += (
                runs.run(corpus, kill=[None, chance.randint(1, operations)])
                if by_operation
                else runs.run(corpus, kill_after_s=chance.uniform(0.0, longest_s))
            ) == SIGKILLED
            assert runs.last_status in (0, SIGKILLED)
            if tried % 50 == 49:
                assert_as_from_scratch(runs, corpus)
            assert tried < 4 * KILLS, "most runs ended before they were killed"
        assert_as_from_scratch(runs, corpus)
    print(
        f"{killed} kills in {tried} runs, rows embedded again: {sum(runs.repeated)},"
        f" at most {max(runs.repeated)} after a kill"
    )


def test_a_kill_costs_what_was_embedded_since_the_last_checkpoint(runs: Runs, tmp_path: Path) -> None:
    """Here each list has a checkpoint of its own. When one is due, by the clock, run/test_checkpoints.py says."""
    corpus = Corpus(tmp_path, seed=4)
    for _ in range(80):
        corpus.add()
    for checkpoint in (5, 2):
        assert runs.run(corpus, kill=["append N/journal.jsonl", checkpoint], in_step=True) == SIGKILLED
    assert runs.run(corpus, in_step=True) == 0
    rows = len(rows_of(runs.index))
    print(f"of {rows} rows embedded again in each run: {runs.repeated}")
    assert sum(runs.repeated) <= 2 * BATCH_ROWS < rows / 10, "a kill costs the list that was not stored yet"


def test_a_rebuild_killed_at_random_moments_is_continued_by_a_plain_run(runs: Runs, tmp_path: Path) -> None:
    corpus, chance = Corpus(tmp_path, seed=5), random.Random(6)
    runs.record(corpus)
    before = rows_of(runs.index)
    with watched(runs.index):
        order: dict[str, Any] = {"flags": {**FLAGS, "max_tokens": 32, "rebuild": True}, "in_step": True}
        assert runs.run(corpus, kill=["append N/journal.jsonl", 2], **order) == SIGKILLED
        order = {"flags": {**FLAGS, "max_tokens": None}}
        for _ in range(12):
            if runs.run(corpus, kill=[None, chance.randint(1, 30)], **order) == SIGKILLED:
                assert Index(runs.index, disk=Disk()).current_number() == 2 or rows_of(runs.index) == before
        assert_as_from_scratch(runs, corpus, max_tokens=32)


def test_a_first_run_with_early_publishes_killed_at_random_moments_loses_nothing(runs: Runs, tmp_path: Path) -> None:
    corpus, chance = Corpus(tmp_path, seed=7), random.Random(8)
    flags = {**FLAGS, "publish_every_s": 0.05}
    assert runs.run(corpus, flags=flags, kill=["point current", 2], batch_s=SLOW_BATCH_S) == SIGKILLED
    with watched(runs.index):
        for _ in range(15):
            runs.run(corpus, flags=flags, kill=[None, chance.randint(1, 60)])
            if chance.random() < 0.3:
                corpus.edit()
        assert_as_from_scratch(runs, corpus)


@pytest.mark.parametrize("verb", ["moved", "forget", "rollback"])
def test_a_verb_killed_at_any_operation_has_done_everything_or_nothing(runs: Runs, tmp_path: Path, verb: str) -> None:
    corpus = Corpus(tmp_path, seed=9)
    corpus.add_root()
    runs.record(corpus)
    corpus.edit()
    runs.record(corpus)
    two, elsewhere = corpus.second, tmp_path / "elsewhere"
    shutil.copytree(two, elsewhere)
    arguments = {"moved": [str(two), str(elsewhere)], "forget": [str(two)], "rollback": []}[verb]
    snapshot = shutil.copytree(runs.index, tmp_path / "snapshot", symlinks=True)
    before = rows_of(runs.index)
    operations = runs.record(corpus, verb=[verb, *arguments])
    after = rows_of(runs.index)
    assert after != before
    for n in range(1, len(operations) + 1):
        shutil.rmtree(runs.index)
        shutil.copytree(snapshot, runs.index, symlinks=True)
        assert runs.run(corpus, verb=[verb, *arguments], kill=[None, n]) == SIGKILLED
        done = n > operations.index("rename index/current") + 1
        assert rows_of(runs.index) == (after if done else before), operations[n - 1]
        if not done:
            assert runs.run(corpus, verb=[verb, *arguments]) == 0
        opened = Index(runs.index, disk=Disk())
        clear(opened, keep=2)  # a run begins with this
        assert rows_of(runs.index) == after and follow(runs.index) == after.keys()
        assert verify(opened).damage == []
