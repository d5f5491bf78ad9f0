"""The promises of status, verify, moved, forget, rollback and unlock, with the real `ingest` over a fake engine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from embedcli import keeper, keeper_cli, shards, standing, state, verifying
from embedcli.config import IndexSettings
from embedcli.disk import Disk
from embedcli.errors import EmbedcliError, EngineError, InputError, Locked, NoIndex, StorageError, UsageError
from embedcli.generations import CHANGES_KEPT_S, Index
from embedcli.ingest import Tools
from embedcli.lock import BEAT_S
from embedcli.models import Model
from embedcli.records import from_printable, printable
from embedcli.verifying import Damage
from tests.faults import DiskFull, KilledAt
from tests.workshop import Workshop, _resolve, wide_engine, words

NAMES = st.binary(min_size=1, max_size=24).filter(lambda name: b"\0" not in name and b"/" not in name)
TRICKY = st.text("aé%25F/", min_size=1).map(str.encode)


def silent(_: str) -> None:
    """No warning is expected."""


def index_of(shop: Workshop, **seams: Any) -> Index:
    return Index(shop.index, disk=Disk(), **seams)


def filled(shop: Workshop, count: int = 6) -> Workshop:
    for number in range(count):
        shop.write(f"part-{number % 2}/file-{number}.txt", words(150, number))
    shop.ingest()
    return shop


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return filled(Workshop(tmp_path_factory.mktemp("template")))


@pytest.fixture
def kept(template: Workshop, tmp_path: Path) -> Workshop:
    """A copy of a published index, for tests that do not touch its sources."""
    shop = Workshop(tmp_path / "kept")
    shop.docs.rmdir()
    shutil.copytree(template.index, shop.index, symlinks=True)
    shop.docs = template.docs
    return shop


def two_roots(shop: Workshop) -> tuple[Path, Path]:
    """`docs` and `more`, published together, so that one shard holds rows of both."""
    other = shop.docs.parent / "more"
    shop.write("../more/x.txt", words(150, 100))
    shop.write("../more/deep/y.txt", words(150, 101))
    shop.write("a.txt", words(150, 1))
    shop.write("b.txt", words(150, 2))
    shop.ingest(shop.docs, other)
    return shop.docs, other


def vectors(shop: Workshop) -> dict[str, tuple[float, ...]]:
    return {row["chunk_id"]: tuple(row["vector"]) for row in shop.rows()}


def changes(shop: Workshop, number: int) -> dict[str, set[str]]:
    rows = pq.read_table(shop.index / "changes" / f"{number:06d}.parquet").to_pylist()
    return {op: {row["chunk_id"] for row in rows if row["op"] == op} for op in {row["op"] for row in rows}}


def damage(shop: Workshop) -> list[Damage]:
    return verifying.verify(index_of(shop)).damage


# ---- names


@given(NAMES | TRICKY)
def test_a_printable_name_leads_back_to_its_bytes(name: bytes) -> None:
    assert from_printable(printable(name)) == name


# ---- moved


def test_moved_changes_uris_and_nothing_else(shop: Workshop) -> None:
    docs, other = two_roots(shop)
    before, had = shop.rows(), shop.embedded
    new = other.rename(shop.docs.parent / "elsewhere")
    done = keeper.moved(index_of(shop), str(other), str(new), warn=silent)
    assert (done.generation, done.before, done.sources) == (2, 1, 2)
    assert shop.embedded == had
    for old_row, row in zip(before, shop.rows(), strict=True):
        mine = old_row["uri"].startswith(f"{other}/")
        assert row["uri"] == (f"{new}/{row['path']}" if mine else old_row["uri"])
        assert row["changed_in"] == (2 if mine else 1)
        assert {**row, "uri": 0, "changed_in": 0} == {**old_row, "uri": 0, "changed_in": 0}
    assert {row["uri"] for row in shop.documents().values()} == {row["uri"] for row in shop.rows()}
    assert changes(shop, 2) == {"changed": {row["chunk_id"] for row in shop.rows() if row["changed_in"] == 2}}
    assert damage(shop) == []


def test_after_moved_a_plain_ingest_finds_everything_unchanged(shop: Workshop) -> None:
    filled(shop)
    new = shop.docs.rename(shop.docs.parent / "elsewhere")
    keeper.moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    summary = shop.ingest()
    assert (summary.generation, summary.sources["unchanged"]) == (2, 6)
    assert "6 unchanged, nothing to do" in shop.report.said


def test_a_moved_root_keeps_its_ids_for_ever(shop: Workshop) -> None:
    filled(shop)
    before = vectors(shop)
    new = shop.docs.rename(shop.docs.parent / "elsewhere")
    keeper.moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    shop.ingest(rebuild=True, dim=16, max_tokens=64)
    assert vectors(shop) == before


def test_moved_writes_names_as_the_walk_does(shop: Workshop) -> None:
    for name in (b"caf\xe9.txt", "café.txt".encode(), b"50%.txt", b"a%FF.txt", b"a\xff.txt", b"two\nlines.txt"):
        path = Path(os.fsdecode(os.fsencode(shop.docs) + b"/" + name))
        path.write_text(words(30, len(name)))
        shop.age(path)
    shop.ingest()
    new = shop.docs.rename(shop.docs.parent / "else%41where")
    keeper.moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    moved = {path: row["uri"] for path, row in shop.documents().items()}
    fresh = Workshop(shop.docs.parent / "fresh")
    fresh.ingest(new)
    assert moved == {path: row["uri"] for path, row in fresh.documents().items()}


def test_a_root_of_one_file_moves_under_its_own_name_only(shop: Workshop) -> None:
    file = shop.write("a.txt", words(50))
    shop.ingest(file)
    (shop.docs.parent / "new").mkdir()
    renamed = file.rename(shop.docs.parent / "new" / "b.txt")
    with pytest.raises(InputError, match=r"a file called `a\.txt`"):
        keeper.moved(index_of(shop), str(file), str(renamed), warn=silent)
    new = renamed.rename(renamed.with_name("a.txt"))
    keeper.moved(index_of(shop), str(file), str(new), warn=silent)
    assert {row["uri"] for row in shop.rows()} == {str(new)}
    assert shop.ingest().generation == 2


def test_moved_of_an_unknown_root_names_the_known_ones(kept: Workshop) -> None:
    with pytest.raises(InputError) as caught:
        keeper.moved(index_of(kept), str(kept.docs.parent), str(kept.docs), warn=silent)
    assert str(kept.docs) in caught.value.hint


@pytest.mark.parametrize("place", ["absent", "docs", "more", "more/deep", "."])
def test_moved_refuses_a_place_that_is_none(shop: Workshop, place: str) -> None:
    docs, _ = two_roots(shop)
    with pytest.raises(InputError):
        keeper.moved(index_of(shop), str(docs), str(shop.docs.parent / place), warn=silent)
    assert index_of(shop).current_number() == 1


@pytest.mark.parametrize("step", ["generation written", "before swap", "after swap"])
def test_a_verb_killed_on_the_way_leaves_a_whole_generation(shop: Workshop, step: str) -> None:
    filled(shop)
    new = shop.docs.parent / "elsewhere"
    shutil.copytree(shop.docs, new)
    with pytest.raises(KeyboardInterrupt):
        keeper.moved(Index(shop.index, disk=KilledAt(step)), str(shop.docs), str(new), warn=silent)
    assert index_of(shop).current_number() == (2 if step == "after swap" else 1)
    assert damage(shop) == [] or all(item.file.startswith("keys/") for item in damage(shop))
    if step != "after swap":
        keeper.moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    shop.ingest()
    assert {row["uri"].split("/part")[0] for row in shop.rows()} == {str(new)}
    assert damage(shop) == []
    assert [path.name for path in index_of(shop).generations.iterdir() if ".tmp" in path.name] == []


# ---- forget


def test_forget_takes_a_root_with_its_rows(shop: Workshop) -> None:
    docs, other = two_roots(shop)
    gone = {row["chunk_id"] for row in shop.rows() if row["uri"].startswith(f"{other}/")}
    kept = {id_: vector for id_, vector in vectors(shop).items() if id_ not in gone}
    done = keeper.forget(index_of(shop), str(other), warn=silent)
    assert (done.sources, done.chunks) == (2, len(gone))
    assert vectors(shop) == kept
    assert changes(shop, 2) == {"removed": gone}
    assert damage(shop) == []


def test_after_forget_ingest_does_not_walk_it(shop: Workshop) -> None:
    _, other = two_roots(shop)
    keeper.forget(index_of(shop), str(other), warn=silent)
    shop.write("../more/z.txt", words(20, 7))
    summary = shop.ingest()
    assert (summary.generation, summary.sources["new"], summary.sources["unchanged"]) == (2, 0, 2)


def test_forgetting_the_last_root_leaves_an_empty_generation_that_is_sound(kept: Workshop) -> None:
    schema = kept.table().schema
    keeper.forget(index_of(kept), str(kept.docs), warn=silent)
    assert kept.table().num_rows == 0
    assert kept.table().schema.equals(schema)
    assert damage(kept) == []
    assert standing.status(index_of(kept)).roots == []


def test_after_the_last_root_is_forgotten_a_plain_run_asks_for_one(kept: Workshop) -> None:
    keeper.forget(index_of(kept), str(kept.docs), warn=silent)
    with pytest.raises(InputError, match="has no roots any more") as caught:
        kept.ingest()
    assert f"--index {kept.index}" in caught.value.hint


def test_what_was_forgotten_comes_back_without_the_engine(shop: Workshop) -> None:
    filled(shop)
    before, had = vectors(shop), shop.embedded
    keeper.forget(index_of(shop), str(shop.docs), warn=silent)
    shop.ingest(shop.docs)
    assert vectors(shop) == before
    assert shop.embedded == had


# ---- rollback


def test_rollback_shows_the_generation_before_to_the_last_byte(shop: Workshop) -> None:
    filled(shop)
    before = shop.rows()
    shop.write("part-0/file-0.txt", words(150, 99))
    shop.ingest()
    assert shop.rows() != before
    done = keeper.rollback(index_of(shop), warn=silent)
    assert (done.generation, done.before) == (1, 2)
    assert shop.rows() == before
    assert damage(shop) == []


def test_after_rollback_the_next_ingest_takes_a_new_number_and_every_vector(shop: Workshop) -> None:
    filled(shop)
    shop.write("part-0/file-0.txt", words(150, 99))
    shop.ingest()
    newest, had = vectors(shop), shop.embedded
    keeper.rollback(index_of(shop), warn=silent)
    summary = shop.ingest()
    assert summary.generation == 4, "3 are the changes of the rollback"
    assert index_of(shop).read(4).parent == 1
    assert vectors(shop) == newest
    assert shop.embedded == had


def test_a_rolled_back_generation_is_kept_for_an_hour_and_can_be_had_again(shop: Workshop) -> None:
    filled(shop)
    shop.write("new.txt", words(20, 50))
    shop.ingest()
    os.utime(shop.index / "generations" / "000002", (0, 0))
    keeper.rollback(index_of(shop), warn=silent)
    index_of(shop).clear(keep=1)
    assert index_of(shop).numbers() == [1, 2]
    assert keeper.rollback(index_of(shop), to=2, warn=silent).generation == 2
    keeper.rollback(index_of(shop), warn=silent)
    index_of(shop, clock=lambda: time.time() + 3601).clear(keep=1)
    assert index_of(shop).numbers() == [1]


def test_a_number_is_never_used_again_however_long_nothing_is_published(shop: Workshop) -> None:
    filled(shop)
    shop.write("new.txt", words(20, 50))
    shop.ingest()
    keeper.rollback(index_of(shop), warn=silent)
    later = index_of(shop, clock=lambda: time.time() + CHANGES_KEPT_S + 3601)
    later.clear(keep=2)
    assert later.numbers() == [1]
    assert later.next_number() == 4


@pytest.mark.parametrize(
    ("to", "said"), [(None, "1 is current and its parent is not"), (1, "1 is current already"), (7, "7 is not kept")]
)
def test_rollback_refuses_what_is_not_kept(kept: Workshop, to: int | None, said: str) -> None:
    with pytest.raises(UsageError, match=f"generation {said}"):
        keeper.rollback(index_of(kept), to=to, warn=silent)


# ---- unlock, and the lock of the others


def hold(shop: Workshop, **fields: Any) -> Path:
    """A lock file as a run leaves it."""
    file = shop.index / "lock"
    held = {"host": socket.gethostname(), "pid": os.getpid(), "since": "2026-01-02T03:04:05+00:00", "nonce": "a:1"}
    file.write_text(json.dumps({**held, **fields}))
    return file


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


CHANGING: dict[str, Callable[[Workshop], object]] = {
    "moved": lambda shop: keeper.moved(index_of(shop), str(shop.docs), str(shop.docs.parent), warn=silent),
    "forget": lambda shop: keeper.forget(index_of(shop), str(shop.docs), warn=silent),
    "rollback": lambda shop: keeper.rollback(index_of(shop), warn=silent),
    "unlock": lambda shop: keeper.unlock(index_of(shop), warn=silent),
}


@pytest.mark.parametrize("verb", CHANGING)
def test_a_verb_that_writes_waits_for_no_live_run(kept: Workshop, verb: str) -> None:
    with hold(kept).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Locked, match=str(os.getpid())):
            CHANGING[verb](kept)
    assert index_of(kept).current_number() == 1


def test_unlock_clears_the_lock_of_a_dead_host_and_tells_whose_it_was(kept: Workshop) -> None:
    file = hold(kept, host="far-away", pid=12)
    watched: list[float] = []
    holder = keeper.unlock(index_of(kept), warn=lambda _: None, sleep=watched.append)
    assert holder is not None
    assert (holder.host, holder.pid, holder.alive) == ("far-away", 12, None)
    assert watched and watched[0] > BEAT_S
    assert file.read_bytes() == b""
    assert keeper.unlock(index_of(kept), warn=silent) is None


def test_unlock_leaves_a_lock_that_another_host_moves(kept: Workshop) -> None:
    file = hold(kept, host="far-away", pid=12)
    with pytest.raises(Locked, match="pid 12 on `far-away`"):
        keeper.unlock(
            index_of(kept), warn=lambda _: None, sleep=lambda _: hold(kept, host="far-away", nonce="a:2") and None
        )
    assert b"far-away" in file.read_bytes()


def test_unlock_clears_at_once_what_a_dead_process_of_this_host_left(kept: Workshop) -> None:
    file = hold(kept, pid=dead_pid())
    assert keeper.unlock(index_of(kept), warn=silent, sleep=lambda _: pytest.fail("nothing to wait for"))
    assert file.read_bytes() == b""


def test_unlock_clears_a_lock_file_that_nobody_can_read(kept: Workshop) -> None:
    file = kept.index / "lock"
    file.write_text('{"host": "oth')
    assert keeper.unlock(index_of(kept), warn=lambda _: None, sleep=lambda _: None)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("verb", [*CHANGING, "status", "verify"])
def test_a_folder_that_is_no_index_is_left_alone(shop: Workshop, verb: str) -> None:
    reading = {"status": standing.status, "verify": verifying.verify}
    with pytest.raises(NoIndex):
        reading[verb](index_of(shop)) if verb in reading else CHANGING[verb](shop)
    assert not shop.index.exists()


# ---- status


def test_status_tells_what_the_generation_holds(shop: Workshop) -> None:
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    filled(shop)
    found = standing.status(index_of(shop))
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
    assert standing.status(index_of(kept)).older == {"read": 2, "chunk": 3}


def test_status_shows_the_run_in_progress_and_what_is_left_of_it(kept: Workshop) -> None:
    file = hold(kept)
    progress = {"documents": 3, "documents_total": 9, "chunks": 12, "tokens": 700, "tokens_per_s": 50.0, "eta_s": 90.0}
    written = kept.index / "state" / "progress.json"
    written.write_text(json.dumps({"pid": os.getpid(), "phase": "embedding", **progress}))
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        running = standing.status(index_of(kept), clock=lambda: written.stat().st_mtime + 30).running
    assert running is not None
    assert (running["pid"], running["documents"], running["eta_s"]) == (os.getpid(), 3, 60.0)
    written.write_text(json.dumps({"pid": 1, "phase": "embedding", **progress}))
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        running = standing.status(index_of(kept)).running
    assert running is not None
    assert "phase" not in running, "that progress is an earlier run's"


def test_status_never_takes_the_lock(kept: Workshop) -> None:
    file = hold(kept)
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        standing.status(index_of(kept))
        verifying.verify(index_of(kept))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_the_lock_of_a_killed_run_is_no_run(kept: Workshop) -> None:
    hold(kept, pid=dead_pid())
    assert standing.status(index_of(kept)).running is None


def test_a_number_used_again_by_another_process_is_no_run(kept: Workshop, tmp_path: Path) -> None:
    inode = hold(kept).stat().st_ino
    locks = tmp_path / "locks"
    for pid, held, alive in ((1, inode, False), (os.getpid(), inode, True), (os.getpid(), inode + 1, False)):
        locks.write_text(f"1: FLOCK  ADVISORY  WRITE {pid} 08:01:{held} 0 EOF\n2: -> ...\n")
        holder = standing.read_holder(index_of(kept), locks=locks)
        assert holder is not None and holder.alive is alive, "another lock of that process is another run's"


def test_status_of_a_first_run_that_has_published_nothing(shop: Workshop) -> None:
    shop.index.mkdir()
    hold(shop, host="far-away")
    found = standing.status(index_of(shop))
    assert (found.generation, found.running is not None) == (None, True)
    assert "none yet" in "\n".join(standing.status_lines(found))


def test_status_tells_how_a_run_failed_and_what_it_had_finished(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(150, number))
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"), checkpoint_every_s=0.0)
    found = standing.status(index_of(shop))
    text = "\n".join(standing.status_lines(found))
    assert (found.generation, found.waiting) == (None, 4)
    assert "exit 14: cannot write" in text and "4 documents that a run which did not end had finished" in text
    with pytest.raises(NoIndex, match="has published nothing yet") as caught:
        keeper.rollback(index_of(shop), warn=silent)
    assert "go on with `embedcli ingest" in caught.value.hint
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert standing.status(index_of(shop)).waiting == 0


def test_a_bug_and_a_refusal_stand_in_the_history_as_what_they_are(kept: Workshop) -> None:
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
    assert [run["exit_code"] for run in standing.status(index_of(kept)).runs] == [11, 15, 1, 0]
    text = "\n".join(standing.status_lines(standing.status(index_of(kept))))
    assert "exit 1: a bug in embedcli" in text and "exit 15: " in text and "exit 11: " in text


def test_status_tells_of_the_publish_while_it_is_under_way(shop: Workshop) -> None:
    phases: list[str] = []

    class Looking(Disk):
        def step(self, name: str) -> None:
            if name == "generation written":
                phases.append(json.loads((shop.index / "state/progress.json").read_bytes())["phase"])

    shop.write("a.txt", words(50))
    shop.ingest(disk=Looking())
    assert phases == ["publishing"]


def test_torn_lines_of_the_history_are_passed_over(kept: Workshop) -> None:
    with (kept.index / "state" / "runs.jsonl").open("a") as file:
        file.write('{"ended_at": "2026')
    assert [run["generation"] for run in standing.status(index_of(kept)).runs] == [1]


def test_verbs_stand_in_the_history(shop: Workshop) -> None:
    _, other = two_roots(shop)
    keeper.forget(index_of(shop), str(other), warn=silent)
    keeper.rollback(index_of(shop), warn=silent)
    runs = standing.status(index_of(shop)).runs
    assert [run.get("verb") for run in runs] == ["rollback", "forget", None]


# ---- verify


def test_verify_of_a_sound_index_finds_nothing_night_after_night(shop: Workshop) -> None:
    filled(shop, 12)
    for night in range(3):
        shop.write(f"part-0/file-{2 * night}.txt", words(200, 1000 + night))
        (shop.docs / f"part-1/file-{2 * night + 1}.txt").unlink()
        shop.ingest()
        assert damage(shop) == []


def spoil(path: Path, *, at: int) -> None:
    """Turn one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()  # it may be a hard link
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["current/vectors/*.parquet", "current/documents.parquet", "current/probe.npy", "keys/*"]
)
def test_one_turned_bit_is_named_with_its_file(kept: Workshop, name: str) -> None:
    (file,) = kept.index.glob(name)
    for at in (0, file.stat().st_size // 2, -1):
        spoil(file, at=at)
        (found,) = damage(kept)
        assert found == Damage(str(file.resolve().relative_to(kept.index)), "its sha256 is not the one in the manifest")
        spoil(file, at=at)
    assert damage(kept) == []


@pytest.mark.parametrize(
    "name", ["current/vectors/*.parquet", "current/documents.parquet", "current/probe.npy", "keys/*"]
)
def test_a_missing_file_is_named(kept: Workshop, name: str) -> None:
    (file,) = kept.index.glob(name)
    expected = Damage(str(file.resolve().relative_to(kept.index)), "is missing")
    file.unlink()
    assert expected in damage(kept)


def test_a_torn_shard_is_named_with_its_size(kept: Workshop) -> None:
    (file,) = kept.index.glob("current/vectors/*.parquet")
    os.truncate(file, 100)
    (found,) = damage(kept)
    assert "it has 100 bytes, not" in found.problem


def test_files_that_belong_to_nothing_are_named(kept: Workshop) -> None:
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    shutil.copy(shard, shard.with_name("part-copy.parquet"))
    (kept.index / "keys" / "part-lost.npy").write_bytes(b"")
    assert [(Path(item.file).name, item.problem) for item in damage(kept)] == [
        ("part-copy.parquet", "is not in the manifest"),
        ("part-lost.npy", "belongs to no shard"),
    ]
    busy = verifying.verify(index_of(kept), run_is_under_way=True)
    assert [Path(item.file).name for item in busy.damage] == ["part-copy.parquet"], "a run may be about to name the key"


Rows = Callable[[pa.Table], pa.Table]


def rewritten(shop: Workshop, edit: Rows) -> list[str]:
    """What verify says of a shard that some other hand wrote, with a manifest that believes it."""
    manifest = shop.index / "current" / "manifest.json"
    data = json.loads(manifest.read_bytes())
    (file,) = shop.index.glob("current/vectors/*.parquet")
    pq.write_table(edit(pq.read_table(file, schema=shards.row_schema(16))), file)
    data["shards"][0] |= {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    data["counts"]["bytes"] = file.stat().st_size
    manifest.write_text(json.dumps(data))
    return [item.problem for item in damage(shop)]


def _sha256(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def put(table: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    field = table.schema.field(name)
    values = pa.array(change(table.column(name).to_pylist()), field.type)
    return table.set_column(table.schema.get_field_index(name), field, values)


def rewrite_documents(shop: Workshop, edit: Rows) -> None:
    """documents.parquet by some other hand, with a manifest that believes it."""
    file, manifest = shop.index / "current" / "documents.parquet", shop.index / "current" / "manifest.json"
    pq.write_table(edit(pq.read_table(file)), file)
    data = json.loads(manifest.read_bytes())
    data["files"]["documents.parquet"] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    manifest.write_text(json.dumps(data))


EDITS: dict[str, tuple[Rows, str]] = {
    "long vector": (
        lambda t: put(t, "vector", lambda v: [[x * 1.01 for x in v[0]], *v[1:]]),
        "1 vectors are not of unit",
    ),
    "nan": (lambda t: put(t, "vector", lambda v: [[float("nan")] * 16, *v[1:]]), "1 vectors are not finite"),
    "double": (lambda t: put(t, "chunk_id", lambda v: [v[0], v[0], *v[2:]]), "1 chunk_ids that occur"),
    "no id": (lambda t: put(t, "chunk_id", lambda v: ["", *v[1:]]), "not 32 hex"),
    "order": (lambda t: put(t, "chunk_index", lambda v: [v[1], v[0], *v[2:]]), "1 rows are not in the order"),
    "document": (lambda t: put(t, "doc_id", lambda v: ["0" * 32, *v[1:]]), "1 rows are not of the document"),
    "rows": (lambda t: t.slice(1), "rows, the manifest says"),
    "schema": (lambda t: t.drop_columns(["meta"]), "its schema is not that of the index"),
}


@pytest.mark.parametrize("name", EDITS)
def test_rows_that_cannot_be_are_counted(kept: Workshop, name: str) -> None:
    edit, expected = EDITS[name]
    (problem,) = rewritten(kept, edit)
    assert expected in problem


SOURCES: dict[str, tuple[Rows, list[str]]] = {
    "twice": (
        lambda t: pa.concat_tables([t, t.slice(5)]),
        ["has 7 sources, the manifest says 6", "has 1 sources twice"],
    ),
    "stranger": (
        lambda t: put(t, "root", lambda v: ["0" * 32, *v[1:]]),
        ["has 1 sources of roots that are not in the manifest"],
    ),
    "tokens": (lambda t: put(t, "tokens", lambda v: [v[0] + 1, *v[1:]]), ["tokens, the manifest says"]),
    "status": (
        lambda t: put(t, "status", lambda v: ["stale", *v[1:]]),
        ["has {'indexed': 5, 'stale': 1}, the manifest"],
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_that_cannot_be_are_counted(kept: Workshop, name: str) -> None:
    edit, expected = SOURCES[name]
    rewrite_documents(kept, edit)
    problems = [item.problem for item in damage(kept)]
    assert all(any(part in problem for problem in problems) for part in expected), problems


def test_what_lies_beside_a_generation_is_named(kept: Workshop) -> None:
    for name in ("000001/junk", "junk", "000001/vectors/part-copy.txt"):
        (kept.index / "generations" / name).write_text("x")
    (kept.index / "generations" / "000007").mkdir()
    (kept.index / "generations" / "000008.tmp").mkdir()
    assert damage(kept) == [
        Damage("generations/000001/vectors/part-copy.txt", "is not in the manifest"),
        Damage("generations/000001/junk", "is not in the manifest"),
        Damage("generations/000007/manifest.json", "cannot be read, so it is no way back"),
        Damage("generations/junk", "is no generation"),
    ]


def test_a_chunk_id_in_two_shards_is_found(shop: Workshop) -> None:
    ids = verifying._Ids()
    rows = pa.table({"chunk_id": [f"{number:032x}" for number in range(100)]})
    assert ids.add("one", rows)
    assert ids.add("two", rows.slice(90))
    assert ids.add("three", pa.table({"chunk_id": [f"{number:032x}" for number in range(100, 200)]}))
    assert ids.doubles() == {"two": 10}


def test_ranges_that_do_not_cover_a_shard_are_named(kept: Workshop) -> None:
    rewrite_documents(kept, lambda table: table.slice(1))
    problems = [item.problem for item in damage(kept)]
    assert any("its ranges do not cover the rows" in problem for problem in problems)
    assert "has 5 sources, the manifest says 6" in problems


def test_a_verb_that_meets_a_damaged_shard_says_so_and_changes_nothing(kept: Workshop) -> None:
    (file,) = kept.index.glob("current/vectors/*.parquet")
    file.write_bytes(b"nothing of a shard")
    with pytest.raises(StorageError, match="the current generation stays") as caught:
        keeper.forget(index_of(kept), str(kept.docs), warn=silent)
    assert "embedcli verify" in caught.value.hint
    assert index_of(kept).current_number() == 1


def test_probe_tells_an_engine_that_gives_other_vectors(kept: Workshop) -> None:
    stored = index_of(kept).probe(1)
    same, other = (verifying.verify(index_of(kept)) for _ in range(2))
    verifying.compare_engine(index_of(kept), same, lambda _: stored)
    assert (same.probe_cosine, same.damage) == (pytest.approx(1.0), [])
    verifying.compare_engine(index_of(kept), other, lambda _: np.roll(stored, 1, axis=0))
    assert [item.problem[:38] for item in other.damage] == ["the engine gives other vectors now: co"]


# ---- the command line


@pytest.fixture
def command(shop: Workshop) -> Callable[..., Any]:
    app = typer.Typer()

    def open_engine(model: Model, settings: IndexSettings, device: str, engine: str) -> Any:
        if engine == "broken":
            raise EngineError("the double does not start")
        return wide_engine(model, settings.dim, device, shop.log)

    def make_tools(engine: str, say: Callable[[str], None]) -> Tools:
        return Tools(_resolve, lambda _: "cpu", lambda *given: open_engine(*given, engine))

    keeper_cli.register(app, make_tools)
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


def test_every_verb_prints_one_json_object(shop: Workshop, command: Callable[..., Any]) -> None:
    _, other = two_roots(shop)
    new = other.rename(shop.docs.parent / "elsewhere")
    where = ("--index", shop.index, "--json")
    for arguments in (
        ("status",), ("status", "--failed"), ("verify",), ("verify", "--probe"), ("moved", other, new),
        ("forget", new), ("rollback",), ("unlock",),
    ):  # fmt: skip
        result = command(*arguments, *where)
        assert json.loads(result.stdout)["exit_code"] == result.exit_code == 0, (arguments, result.output)


def test_verify_exits_3_with_the_damage_and_0_with_one_line(kept: Workshop, command: Callable[..., Any]) -> None:
    sound = command("verify", kept.index)
    assert (sound.exit_code, sound.stdout.count("\n")) == (0, 1)
    (kept.index / "current" / "probe.npy").unlink()
    broken = command("verify", kept.index)
    assert (broken.exit_code, broken.stdout) == (3, "generations/000001/probe.npy: is missing\n")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_damage_is_told_and_noted_on_a_read_only_disk_and_beside_an_engine_that_does_not_start(
    kept: Workshop, command: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)
    told = command("verify", kept.index, "--probe", "--engine", "broken", *flags)
    assert told.exit_code == 3 and "its sha256 is not" in told.stdout
    assert "the probe set was not compared" in told.stderr and "embedcli ingest --index" in told.stderr
    assert state.read_damaged(kept.index / "state") == {shard.stem}
    shutil.rmtree(kept.index / "state")
    (kept.index / "state").write_text("no folder")
    again = command("verify", kept.index, *flags)
    assert again.exit_code == 3 and again.stdout == told.stdout
    assert "the damage cannot be noted" in again.stderr


def test_an_engine_that_does_not_start_is_its_own_error_where_nothing_is_damaged(
    kept: Workshop, command: Callable[..., Any]
) -> None:
    assert isinstance(command("verify", kept.index, "--probe", "--engine", "broken").exception, EngineError)


def test_damage_is_noted_beside_the_lock_of_a_dead_host(kept: Workshop, command: Callable[..., Any]) -> None:
    hold(kept, host="far-away")
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)
    assert command("verify", kept.index).exit_code == 3
    assert state.read_damaged(kept.index / "state") == {shard.stem}


@pytest.mark.parametrize("how", ["documents.parquet", "manifest.json", "current"])
def test_every_verb_that_reads_says_what_to_type_when_a_file_is_lost(
    shop: Workshop, command: Callable[..., Any], how: str
) -> None:
    filled(shop, 2)
    shop.write("new.txt", words(20, 5))
    shop.ingest()
    (shop.index / how if how == "current" else shop.index / "current" / how).unlink()
    for verb in (("status",), ("status", "--failed"), ("verify",)):
        result = command(*verb, shop.index)
        said = f"{result.stderr}{getattr(result.exception, 'hint', '')}"
        assert "embedcli rollback --to " in said, verb
        assert result.exit_code == 3 or isinstance(result.exception, EmbedcliError)


def test_a_probe_set_that_there_is_none_of_yet_is_not_called_compared(
    kept: Workshop, command: Callable[..., Any]
) -> None:
    file, manifest = kept.index / "current" / "probe.npy", kept.index / "current" / "manifest.json"
    np.save(file, np.zeros((0, 16), np.float32))
    data = json.loads(manifest.read_bytes())
    data["files"]["probe.npy"] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    manifest.write_text(json.dumps(data))
    assert "no probe set to compare with yet" in command("verify", kept.index, "--probe").stdout


def test_failed_paths_are_those_of_the_file_system(shop: Workshop, command: Callable[..., Any]) -> None:
    names = [b"caf\xe9.pdf", b"50%41.pdf", b"two\nlines.pdf", b"-dash.pdf"]
    for name in names:
        Path(os.fsdecode(os.fsencode(shop.docs) + b"/" + name)).write_bytes(b"%PDF-1.4 broken")
    filled(shop)
    result = command("status", shop.index, "--failed", "--reason", "damaged", "-0")
    paths = result.stdout_bytes.split(b"\0")
    assert sorted(paths) == sorted([b"", *(os.fsencode(shop.docs) + b"/" + name for name in names)])
    assert all(os.path.exists(path) for path in paths if path)
    listed = command("status", shop.index, "--failed").stdout.splitlines()
    assert listed[0].split() == ["4", "damaged"]
    assert len(listed) == 6, "a line's end in a name makes no line"


def test_status_fits_eighty_columns(kept: Workshop, command: Callable[..., Any]) -> None:
    lines = command("status", kept.index).stdout.splitlines()
    assert lines[1].startswith("generation 1, ")
    assert all(len(line) <= 80 or "/" in line for line in lines), "a path is never cut"


def test_the_reading_verbs_work_while_a_run_is_under_way_and_fit_eighty_columns(
    shop: Workshop, command: Callable[..., Any]
) -> None:
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    filled(shop)
    for number in range(40):
        shop.write(f"new/{number}.txt", words(60, 1000 + number))
    order = {
        "sources": [str(shop.docs)], "index": str(shop.index), "log": str(shop.docs.parent / "log"), "max_tokens": 64,
        "batch_s": 0.1, "flags": {"dim": 16, "max_tokens": 64, "checkpoint_every_s": 0.0},
    }  # fmt: skip
    driver = [sys.executable, str(Path(__file__).with_name("crash_driver.py")), "serve"]
    with subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        print(json.dumps(order), file=process.stdin, flush=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            running = standing.status(index_of(shop)).running
            if running and "phase" in running and list(shop.index.glob("staging/*/part-*.parquet")):
                break
            time.sleep(0.02)
        seen = [command(*verb, shop.index) for verb in (("status",), ("status", "--failed"), ("verify",))]
        assert standing.status(index_of(shop)).running, "it runs still"
        assert json.loads(process.stdout.readline())["status"] in (0, 3)
        process.stdin.close()
    assert [result.exit_code for result in seen] == [0, 0, 0]
    status, failed, verified = (result.stdout for result in seen)
    assert "running    pid " in status and " documents" in status and "generation 1, " in status
    assert "damaged" in failed and "bad.pdf" in failed
    assert verified.startswith("generation 1 is sound: 1 shard, ")
    for line in "".join(result.stdout for result in seen).splitlines():
        assert len(line) <= 80 or "/" in line, "a path is never cut"


@pytest.mark.parametrize(
    "flags", [("-0",), ("--reason", "no_text"), ("--failed", "--reason", "bad"), ("--failed", "-0", "--json")]
)
def test_flags_that_cannot_be_meant_are_exit_2(
    kept: Workshop, command: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    assert command("status", kept.index, *flags).exit_code == 2


@pytest.mark.parametrize("verb", ["status", "verify", "rollback", "unlock"])
def test_two_indexes_cannot_be_meant(kept: Workshop, command: Callable[..., Any], verb: str) -> None:
    error = command(verb, kept.index, "--index", kept.docs).exception
    assert isinstance(error, UsageError) and "are two indexes" in str(error)
    assert isinstance(command(verb, "").exception, UsageError), "nor is an empty one the one of this folder"
    if verb != "rollback":  # there is nothing to go back to
        assert command(verb, kept.index, "--index", kept.index).exit_code == 0


def test_errors_of_the_verbs_are_of_the_tree(kept: Workshop, command: Callable[..., Any]) -> None:
    for arguments in (("forget", "/no/root"), ("rollback",), ("moved", "/no/root", kept.docs)):
        assert isinstance(command(*arguments, "--index", kept.index).exception, EmbedcliError)
