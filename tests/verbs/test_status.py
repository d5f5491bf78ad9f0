"""The promises of `status`, with the real `ingest` over a fake engine."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from embedcli.cli.texts.status import status_lines
from embedcli.errors import InputError, Locked, NoIndex, StorageError
from embedcli.index import lock
from embedcli.vault.disk import Disk
from embedcli.verbs import verify
from embedcli.verbs.edits import forget, rollback
from embedcli.verbs.status import status
from tests.faults import DiskFull
from tests.published import dead_pid, filled, hold, index_of, put, rewrite_documents, silent, two_roots
from tests.workshop import Workshop, words


def test_status_counts_the_sources_and_chunks_of_the_generation(shop: Workshop) -> None:
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    filled(shop)
    found = status(index_of(shop))
    assert (found.generation, found.complete, found.chunks) == (1, True, len(shop.rows()))
    assert found.sources == {"total": 7, "failed": 1, "indexed": 6}
    assert found.roots[0] == {"path": str(shop.docs), "include": (), "exclude": (), "gitignore": False, "sources": 7}
    assert found.older == {"read": 0, "chunk": 0}
    assert found.runs[0]["chunks"]["embedded"] == found.chunks
    assert found.running is None


def test_status_counts_documents_of_an_earlier_reader(kept: Workshop) -> None:
    rewrite_documents(
        kept,
        lambda table: put(
            put(table, "read_fingerprint", lambda values: ["earlier"] * 2 + values[2:]),
            "chunk_fingerprint",
            lambda values: ["earlier"] * 3 + values[3:],
        ),
    )
    assert status(index_of(kept)).older == {"read": 2, "chunk": 3}


def test_status_shows_the_run_in_progress_with_the_time_it_still_needs(kept: Workshop) -> None:
    file = hold(kept)
    progress = {"documents": 3, "documents_total": 9, "chunks": 12, "tokens": 700, "tokens_per_s": 50.0, "eta_s": 90.0}
    written = kept.index / "state" / "progress.json"
    written.write_text(json.dumps({"pid": os.getpid(), "phase": "embedding", **progress}))
    with file.open() as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        running = status(index_of(kept), clock=lambda: written.stat().st_mtime + 30).running
    assert running is not None
    assert (running["pid"], running["documents"], running["eta_s"]) == (os.getpid(), 3, 60.0)
    written.write_text(json.dumps({"pid": 1, "phase": "embedding", **progress}))
    with file.open() as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        running = status(index_of(kept)).running
    assert running is not None
    assert "phase" not in running, "the progress was written by an earlier run"


def test_status_never_takes_the_lock(kept: Workshop) -> None:
    file = hold(kept)
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    with file.open() as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        status(index_of(kept))
        verify.verify(index_of(kept))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_the_lock_of_a_killed_run_is_not_shown_as_a_run(kept: Workshop) -> None:
    hold(kept, pid=dead_pid())
    assert status(index_of(kept)).running is None


def test_another_process_with_the_pid_of_a_killed_run_is_not_shown_as_a_run(kept: Workshop, tmp_path: Path) -> None:
    inode = hold(kept).stat().st_ino
    locks = tmp_path / "locks"
    for pid, locked, alive in ((1, inode, False), (os.getpid(), inode, True), (os.getpid(), inode + 1, False)):
        locks.write_text(f"1: FLOCK  ADVISORY  WRITE {pid} 08:01:{locked} 0 EOF\n2: -> ...\n")
        holder = lock.read_holder(kept.index, locks=locks)
        assert holder is not None and holder.alive is alive, "a lock on another file is not of this run"


def test_status_of_a_first_run_that_has_published_nothing(shop: Workshop) -> None:
    shop.index.mkdir()
    hold(shop, host="far-away")
    found = status(index_of(shop))
    assert (found.generation, found.running is not None) == (None, True)
    assert "none yet" in "\n".join(status_lines(found))


def test_status_shows_why_a_run_failed_and_how_many_documents_it_had_finished(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(150, number))
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"), checkpoint_every_s=0.0)
    found = status(index_of(shop))
    text = "\n".join(status_lines(found))
    assert (found.generation, found.waiting) == (None, 4)
    assert "exit 14: cannot write" in text and "4 documents were finished by an interrupted run" in text
    with pytest.raises(NoIndex, match="has published nothing yet") as caught:
        rollback.rollback(index_of(shop), warn=silent)
    assert "continue with `embedcli ingest" in caught.value.hint
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert status(index_of(shop)).waiting == 0


def test_what_waits_is_what_the_next_run_goes_on_with(shop: Workshop) -> None:
    """Two rebuilds that did not end: a plain run continues the second one."""
    for number in range(4):
        shop.write(f"{number}.txt", words(150, number))
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    for max_tokens in (48, 40):
        with pytest.raises(StorageError):
            shop.ingest(
                disk=DiskFull("N.tmp/documents.parquet"), checkpoint_every_s=0.0, rebuild=True, max_tokens=max_tokens
            )
    assert status(index_of(shop)).waiting == 4
    assert shop.ingest().generation == 2 and status(index_of(shop)).settings["max_tokens"] == 40


def test_the_history_has_the_exit_code_of_a_bug_and_of_each_error(kept: Workshop) -> None:
    def bug() -> None:
        raise ZeroDivisionError

    kept.docs = kept.index.parent / "docs"
    kept.write("new.txt", words(20, 5))
    with pytest.raises(ZeroDivisionError):
        kept.ingest(kept.docs, stop_signal=bug)
    with pytest.raises(InputError):
        kept.ingest(kept.docs / "nowhere")
    with hold(kept).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Locked):
            kept.ingest()
    assert [run["exit_code"] for run in status(index_of(kept)).runs] == [11, 15, 1, 0]
    text = "\n".join(status_lines(status(index_of(kept))))
    assert "exit 1: a bug in embedcli" in text and "exit 15: " in text and "exit 11: " in text


def test_the_progress_says_publishing_during_the_publish(shop: Workshop) -> None:
    phases: list[str] = []

    class Looking(Disk):
        def step(self, name: str) -> None:
            if name == "generation written":
                phases.append(json.loads((shop.index / "state/progress.json").read_bytes())["phase"])

    shop.write("a.txt", words(50))
    shop.ingest(disk=Looking())
    assert phases == ["publishing"]


def test_torn_lines_of_the_history_are_skipped(kept: Workshop) -> None:
    with (kept.index / "state" / "runs.jsonl").open("a") as file:
        file.write('{"ended_at": "2026')
    assert [run["generation"] for run in status(index_of(kept)).runs] == [1]


def test_the_history_lists_verbs_too(shop: Workshop) -> None:
    _, other = two_roots(shop)
    forget.forget(index_of(shop), str(other), warn=silent)
    rollback.rollback(index_of(shop), warn=silent)
    runs = status(index_of(shop)).runs
    assert [run.get("verb") for run in runs] == ["rollback", "forget", None]
