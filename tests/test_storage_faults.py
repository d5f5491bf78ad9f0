"""What a run does when the disk is full, read-only, torn or lacks links, and when another run has locked the index.

After each fault the next run succeeds, and the index equals one that was made without faults.
"""

from __future__ import annotations

import copy
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcli.cli.main import main
from embedcli.errors import Locked, StorageError
from embedcli.index import lock
from embedcli.index.generations import Index
from embedcli.index.lock import STALE_S, Lock
from embedcli.models import resolve
from embedcli.reading import rows
from embedcli.records import Source, stat_of
from embedcli.vault.disk import Disk
from embedcli.verbs.verify import verify
from tests.faults import (
    ClockJumps,
    DiskFull,
    FailsFrom,
    FsyncFails,
    NoHardLinks,
    NoSymlinks,
    ReadOnly,
    Recording,
    RenameFails,
    TornWrite,
    VanishingFile,
    kind,
)
from tests.unprivileged import as_nobody, give_to_nobody, skip_unless_it_mounts
from tests.workshop import Workshop, words

SMALL_CHECKPOINTS = {"checkpoint_bytes": 1, "checkpoint_every_s": 0.0}


def fill(shop: Workshop) -> None:
    for number in range(10):
        shop.write(f"part-{number % 3}/file-{number:02d}.txt", words(60, number))


def reference(shop: Workshop) -> list[tuple[object, ...]]:
    """The content of an index made of the same folder without faults."""
    sound = Workshop(shop.docs.parent, index="sound")
    sound.ingest()
    return sound.content()


# ---- a full disk


@pytest.mark.parametrize(
    ("what", "room_bytes"),
    [
        ("part.parquet", 9_000),
        ("part.npy", 300),
        ("journal.jsonl", 3_000),
        ("N.tmp/documents.parquet", 100),
        ("N.tmp/manifest.json", 100),
        ("N/run.json", 5),
        ("N/reserve", 5),
    ],
)
def test_a_full_disk_is_exit_14_and_the_next_run_succeeds(shop: Workshop, what: str, room_bytes: int) -> None:
    fill(shop)
    disk = DiskFull(what, room_bytes, for_good=True)
    with pytest.raises(StorageError) as caught:
        shop.ingest(disk=disk, **SMALL_CHECKPOINTS)
    assert caught.value.exit_code == 14
    assert disk.refused and disk.refused[0].split("/")[-1] in kind(Path(str(caught.value).split("`")[1]))
    assert "free some space" in caught.value.hint
    assert not (shop.index / "current").exists()
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)
    assert not any((shop.index / "staging").iterdir())


def test_a_disk_that_fills_up_during_a_run_costs_no_checkpointed_work(shop: Workshop) -> None:
    fill(shop)
    with pytest.raises(StorageError, match="No space left"):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"), **SMALL_CHECKPOINTS)
    embedded = shop.embedded
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.embedded == embedded, "nothing is embedded again, not even the probe set"


def test_an_append_is_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    Disk().append(file, b"first\n")
    with pytest.raises(StorageError):
        DiskFull(room_bytes=3).append(file, b"second\n")
    assert file.read_bytes() == b"first\n"


def test_the_journal_still_names_a_stored_shard_when_the_disk_is_full(shop: Workshop) -> None:
    """Deleting the reserve makes room for the journal line of a shard that is already stored."""
    fill(shop)
    disk = DiskFull("journal.jsonl", 100)
    shop.ingest(disk=disk)
    assert disk.refused
    assert shop.content() == reference(shop)


def test_a_full_disk_does_not_change_the_current_generation(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    before = shop.content()
    shop.write("part-0/file-00.txt", words(60, 50))
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/manifest.json"))
    assert shop.content() == before
    assert shop.ingest().generation == 2, "no reader has seen the generation that failed"
    assert shop.content() == reference(shop)


def test_a_disk_that_is_full_while_a_reader_spools_is_a_storage_error_and_not_a_failed_source(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop.write("large.txt", words(20_000))
    monkeypatch.setattr(rows, "SPOOL_BYTES", 0)
    model = resolve.resolve("minilm", report=lambda _: None)
    spool = shop.docs.parent / "spool"
    spool.mkdir()
    work = rows.ReadingWork(model.folder, model.prompt, 64, 0, True, "fingerprint", spool)
    work.start()
    task = Source("root", "large.txt", str(path), stat_of(path.stat()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match=f"cannot write `{spool}"):
            work(task, lambda _: None, with_forms=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(spool.iterdir()), "the half-written file is deleted"
    (read,) = work(task, lambda _: None, with_forms=True)
    assert isinstance(read.own, rows.Reading) and read.own.table().num_rows > 100


# ---- fsync, write and rename


def test_a_file_whose_fsync_fails_once_is_written_again(shop: Workshop) -> None:
    fill(shop)
    for nth in (0, 3, 6):
        shop.write("part-0/file-00.txt", words(60, 60 + nth))
        shop.ingest(disk=FsyncFails(1, after=nth))
    assert shop.content() == reference(shop)


def test_a_file_whose_write_fails_once_is_written_again(shop: Workshop) -> None:
    fill(shop)
    disk = TornWrite("part.parquet")
    shop.ingest(disk=disk)
    assert disk.left == 0
    assert shop.content() == reference(shop)


@pytest.mark.parametrize(
    "step", ["", "staging begun", "shard stored", "after journal", "generation written", "before swap"]
)
def test_a_disk_that_keeps_failing_is_exit_14_and_loses_nothing(shop: Workshop, step: str) -> None:
    fill(shop)
    with pytest.raises(StorageError, match="Input/output error"):
        shop.ingest(disk=FailsFrom(step), **SMALL_CHECKPOINTS)
    assert not (shop.index / "current").exists()
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)


@pytest.mark.parametrize("what", ["part.parquet", "generations/N", "current", "N.tmp/manifest.json"])
def test_a_failed_rename_publishes_nothing_and_the_next_run_publishes(shop: Workshop, what: str) -> None:
    fill(shop)
    with pytest.raises(StorageError) as caught:
        shop.ingest(disk=RenameFails(what, error=errno.EACCES))
    assert "Permission denied" in str(caught.value)
    assert not (shop.index / "current").exists()
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)


# ---- filesystems that lack something


def test_a_read_only_filesystem_is_exit_14_and_named_in_the_hint(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    before = shop.content()
    shop.write("new.txt", words(20, 70))
    with pytest.raises(StorageError) as caught:
        shop.ingest(disk=ReadOnly())
    assert "read-only" in caught.value.hint
    assert shop.content() == before


def test_an_index_without_write_permission_is_exit_14(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    shop.write("new.txt", words(20, 70))
    folders = [path for path in (shop.index, *shop.index.rglob("*")) if path.is_dir() and not path.is_symlink()]
    for path in folders:
        path.chmod(0o555)

    def refused_run() -> None:
        with pytest.raises(StorageError, match="Permission denied") as caught:
            shop.ingest()
        assert caught.value.hint.startswith(("it belongs to `root`", "give yourself the right"))

    as_nobody(shop.docs.parent, refused_run)
    for path in folders:
        path.chmod(0o755)
    assert shop.ingest().generation == 2


def closed_to_its_owner(shop: Workshop, folder: str, action: Callable[[], None]) -> None:
    """Do something as a user who may not look into a folder of the index, as after a run with `sudo`."""
    give_to_nobody(shop.docs.parent)
    (shop.index / folder).chmod(0)
    as_nobody(shop.docs.parent, action)


@pytest.mark.parametrize("folder", ["state", "keys", "changes", "generations/000001/vectors"])
def test_a_part_of_an_index_that_may_not_be_looked_into_is_exit_14(shop: Workshop, folder: str) -> None:
    fill(shop)
    shop.ingest()
    shop.write("new.txt", words(20, 70))

    def refused_run() -> None:
        with pytest.raises(StorageError, match="Permission denied") as caught:
            shop.ingest()
        assert "`chmod -R u+rwX" in caught.value.hint

    closed_to_its_owner(shop, folder, refused_run)
    (shop.index / folder).chmod(0o755)
    last = json.loads((shop.index / "state/runs.jsonl").read_text().splitlines()[-1])
    assert last["exit_code"] == (0 if folder == "state" else 14)
    assert shop.ingest().generation == 2


@pytest.mark.parametrize(("verb", "folder"), [("status", "staging"), ("verify", "state"), ("verify", "changes")])
def test_a_command_that_may_not_look_into_a_part_of_an_index_says_so(
    shop: Workshop, verb: str, folder: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(shop)
    shop.ingest()
    monkeypatch.setattr(sys, "argv", ["embedcli", verb, str(shop.index)])

    def code() -> int | str | None:
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    def refused() -> None:
        assert code() == 14

    assert code() == 0, "and what is imported on the way has to be read by root"
    closed_to_its_owner(shop, folder, refused)
    said = capfd.readouterr().err
    assert f"error: cannot read or write `{shop.index / folder}" in said and "Traceback" not in said


def test_what_nfs_keeps_of_a_removed_folder_goes_with_the_next_run(tmp_path: Path) -> None:
    """A mount in the place of a file makes it as busy as NFS makes one that was removed while it was open."""
    skip_unless_it_mounts()
    folder, open_file = tmp_path / "staging/000001-a", tmp_path / "open"
    folder.mkdir(parents=True)
    for path in (open_file, folder / ".nfs00c0ffee", folder / "reserve"):
        path.touch()
    remove = f"from pathlib import Path; from embedcli.vault.disk import Disk; Disk().remove(Path({str(folder)!r}))"
    script = 'mount --bind "$1" "$2" && exec "$0" -c "$3"'
    ran = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, sys.executable, open_file, folder / ".nfs00c0ffee", remove],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    trash = tmp_path / "staging/.trash-000001-a"
    assert [path.name for path in trash.iterdir()] == [".nfs00c0ffee"] and not folder.exists()
    Disk().remove(trash)
    assert not trash.exists()


def test_without_hard_links_shards_are_copied_with_a_warning(shop: Workshop) -> None:
    fill(shop)
    shop.ingest(disk=NoHardLinks())
    shop.write("new.txt", words(60, 71))
    shop.ingest(disk=NoHardLinks())
    assert any("without hard links: each generation is a whole copy" in line for line in shop.report.said)
    assert shop.content() == reference(shop)
    shards = list((shop.index / "generations").glob("*/vectors/*.parquet"))
    assert len(shards) > len({path.name for path in shards}), "one shard is in both generations"
    assert {path.stat().st_nlink for path in shards} == {1}


def test_an_index_can_be_on_another_filesystem_than_the_temporary_folder(shop: Workshop) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == shop.docs.stat().st_dev:
        pytest.skip("this machine has no second filesystem")
    fill(shop)
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        there = copy.copy(shop)
        there.index = Path(folder) / "index"
        there.ingest(checkpoint_every_s=0.0)
        shop.write("new.txt", words(60, 72))
        there.ingest()
        assert there.content() == reference(shop)


def test_without_symlinks_an_index_is_refused_before_anything_is_embedded(shop: Workshop) -> None:
    fill(shop)
    with pytest.raises(StorageError, match="without symbolic links") as caught:
        shop.ingest(disk=NoSymlinks())
    assert "ext4" in caught.value.hint
    assert shop.embedded == 0 and not shop.index.exists()


# ---- damage


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()  # other hard links of the file stay undamaged
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "overwritten":
        middle = len(data) // 2
        path.write_bytes(data[: middle - 200] + b"\0" * 400 + data[middle + 200 :])


@pytest.mark.parametrize("how", ["cut", "overwritten", "missing"])
def test_a_damaged_shard_does_not_stop_a_run_and_its_documents_are_read_again(shop: Workshop, how: str) -> None:
    fill(shop)
    shop.ingest()
    shop.write("later.txt", words(60, 80))
    shop.ingest()
    shards = sorted((shop.index / "current/vectors").glob("*.parquet"), key=lambda path: path.stat().st_size)
    damage(shards[-1], how)
    shop.write("part-0/file-00.txt", words(60, 81))
    shop.ingest()
    shop.ingest(reread=True)
    assert shop.content() == reference(shop)


def test_a_torn_last_line_of_the_journal_is_skipped(shop: Workshop) -> None:
    fill(shop)
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"), **SMALL_CHECKPOINTS)
    journal = next((shop.index / "staging").glob("*/journal.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-40])
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)
    assert not any((shop.index / "staging").iterdir())


def test_a_file_that_vanishes_between_walk_and_reading_is_gone_after_the_next_run(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    lost = shop.write("part-1/lost.txt", words(20, 90))
    assert shop.ingest(stop_signal=VanishingFile(lost)).generation == 2
    shop.ingest()
    assert "part-1/lost.txt" not in shop.documents()
    assert shop.content() == reference(shop)


def test_lost_keys_of_a_shard_cost_embeddings_and_no_row(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    for path in (shop.index / "keys").iterdir():
        path.write_bytes(b"torn")
    shop.write("part-0/file-00.txt", words(60, 91))
    shop.ingest()
    assert shop.content() == reference(shop)


class FsyncsFolders(Recording):
    """A Recording that includes fsyncs of folders."""

    def fsync_folder(self, folder: Path) -> None:
        self.at(f"fsync {folder.name}")
        super().fsync_folder(folder)


def test_every_folder_that_a_generation_needs_is_fsynced_before_the_swap(shop: Workshop) -> None:
    fill(shop)
    disk = FsyncsFolders()
    shop.ingest(disk=disk)
    before = disk.done[: disk.done.index("point current")]
    assert {"fsync vectors", "fsync keys", "fsync generations"} <= set(before)
    assert disk.done[disk.done.index("point current") :].count("fsync index") == 1


def test_a_publish_writes_shards_then_documents_then_manifest_then_swaps(shop: Workshop) -> None:
    fill(shop)
    disk = Recording()
    shop.ingest(disk=disk, **SMALL_CHECKPOINTS)
    order = [name for name in disk.done if not name.startswith("step") or "before swap" in name]
    landmarks = [
        "rename N/part.parquet",
        "rename N/part.npy",
        "append N/journal.jsonl",
        "rename N.tmp/documents.parquet",
        "rename N.tmp/manifest.json",
        "rename generations/N",
        "point current",
    ]
    assert [order.index(name) for name in landmarks] == sorted(order.index(name) for name in landmarks)
    removed = {name for name in order[: order.index("point current")] if name.startswith("remove")}
    assert not {name for name in removed if "loose" not in name}, "no old file is removed before the swap"


# ---- the lock


HOLDER = """
import sys, time
from pathlib import Path
from embedcli.index.lock import Lock
with Lock(Path(sys.argv[1]), network=False, warn=print):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(index: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its stdin ends."""
    command = [sys.executable, "-c", HOLDER, str(index)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    assert process.stdout and process.stdout.readline() == "locked\n"
    return process


def test_an_index_locked_by_a_live_process_is_exit_11_and_names_the_process(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    with holder(shop.index) as process:
        shop.write("new.txt", words(20, 100))
        with pytest.raises(Locked) as caught:
            shop.ingest()
        assert process.stdin
        process.stdin.close()
    assert caught.value.exit_code == 11
    assert f"pid {process.pid} on `{os.uname().nodename}` since 20" in str(caught.value)
    assert shop.ingest().generation == 2


def test_a_lock_left_by_a_dead_process_is_taken(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    with holder(shop.index) as process:
        process.kill()
    assert json.loads((shop.index / "lock").read_text())["pid"] == process.pid
    shop.write("new.txt", words(20, 100))
    assert shop.ingest().generation == 2


def foreign(index: Path, count: int = 1, host: str = "other") -> None:
    """Write the lock file as a run on another host does; `count` is the number of its beat."""
    data = {"host": host, "pid": 7, "since": "2026-01-01T00:00:00+00:00", "nonce": f"abc:{count}"}
    (index / "lock").write_text(json.dumps(data))


def test_the_lock_of_another_host_is_taken_over_with_a_warning_after_ten_minutes_without_a_beat(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock, warnings = ClockJumps(), list[str]()
    with Lock(tmp_path, network=True, warn=warnings.append, clock=clock, sleep=clock.sleep) as acquired:
        assert clock.now >= STALE_S
        assert acquired.held()
    assert "waiting" in warnings[0] and "`other`" in warnings[-1] and "no sign of life for 10 minutes" in warnings[-1]


def test_the_lock_of_another_host_with_a_new_beat_is_exit_11(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock = ClockJumps(lambda now: foreign(tmp_path, 2) if now > 300 else None)
    with (
        pytest.raises(Locked, match="pid 7 on `other`"),
        Lock(tmp_path, network=True, warn=lambda _: None, clock=clock, sleep=clock.sleep),
    ):
        pass
    assert clock.now < STALE_S


def test_a_lock_of_a_dead_process_of_this_host_is_taken_at_once_even_on_a_network_filesystem(tmp_path: Path) -> None:
    foreign(tmp_path, host=os.uname().nodename)
    with Lock(tmp_path, network=True, warn=pytest.fail, sleep=lambda _: pytest.fail("nothing to wait for")):
        pass


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP])
def test_without_flock_the_lock_file_is_watched_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refused)
    warnings: list[str] = []
    with Lock(tmp_path, network=False, warn=warnings.append) as acquired:
        assert acquired.held() and "without flock" in warnings[0]
        clock = ClockJumps(lambda _: acquired._beat())
        with (
            pytest.raises(Locked, match=f"pid {os.getpid()} on"),
            Lock(tmp_path, network=False, warn=warnings.append, clock=clock, sleep=clock.sleep),
        ):
            pass
        assert acquired.held()


def test_a_beat_that_fails_is_retried_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    with Lock(tmp_path, network=True, warn=pytest.fail) as acquired:
        failed = threading.Semaphore(0)

        def pwrite(*_: object) -> int:
            failed.release()
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", pwrite)
            assert failed.acquire(timeout=60)
            before = (tmp_path / "lock").read_bytes()
            assert failed.acquire(timeout=60), "it beats on"
            assert (tmp_path / "lock").read_bytes() == before
        until = time.monotonic() + 60
        while (tmp_path / "lock").read_bytes() == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert acquired.held()


def test_the_lock_of_a_dead_container_with_another_host_name_is_taken_on_a_local_disk(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    foreign(shop.index)
    shop.write("new.txt", words(20, 100))
    assert shop.ingest().generation == 2


def test_a_lock_that_another_host_releases_is_taken_at_once(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock = ClockJumps(lambda _: (tmp_path / "lock").write_text("") and None)
    with Lock(tmp_path, network=True, warn=lambda _: None, clock=clock, sleep=clock.sleep):
        assert clock.now < 60


def test_a_half_written_lock_file_does_not_count_as_released(tmp_path: Path) -> None:
    """The other host may be writing its line at this moment."""
    foreign(tmp_path)
    whole = (tmp_path / "lock").read_text()
    clock = ClockJumps(lambda now: (tmp_path / "lock").write_text(whole[:20]) and None)
    with Lock(tmp_path, network=True, warn=lambda _: None, clock=clock, sleep=clock.sleep):
        assert clock.now >= STALE_S


def test_a_beat_never_leaves_the_lock_file_empty(tmp_path: Path) -> None:
    with Lock(tmp_path, network=False, warn=pytest.fail) as acquired:
        done = threading.Event()
        seen: list[bytes] = []

        def look() -> None:
            while not done.is_set():
                seen.append((tmp_path / "lock").read_bytes())

        reader = threading.Thread(target=look)
        reader.start()
        for _ in range(200):
            acquired._beat()
        done.set()
        reader.join()
    assert all(json.loads(data or b"null") for data in seen)


class OtherHostTakesOver(Disk):
    """Just before our publish another host takes the lock, as its flock does not see ours; it may publish too."""

    def __init__(self, shop: Workshop, *, publishes: bool) -> None:
        self.shop = shop
        self.publishes = publishes

    def step(self, name: str) -> None:
        if name == "generation written":
            (self.shop.index / "lock").unlink()  # so that the other host locks another file than we did
            if self.publishes:
                self.shop.ingest()
            else:
                foreign(self.shop.index)


@pytest.mark.parametrize("publishes", [True, False])
def test_without_a_working_flock_only_one_of_two_hosts_publishes_and_the_other_is_exit_11(
    shop: Workshop, publishes: bool
) -> None:
    fill(shop)
    shop.ingest()
    shop.write("new.txt", words(20, 100))
    with pytest.raises(Locked):
        shop.ingest(disk=OtherHostTakesOver(shop, publishes=publishes))
    (shop.index / "lock").unlink(missing_ok=True)
    shop.ingest()
    assert shop.content() == reference(shop)


class Host:
    """A process that plays another host: host_driver.py."""

    def __init__(self, name: str, shop: Workshop, *, patience_s: float = 600.0) -> None:
        command = [
            sys.executable,
            str(Path(__file__).with_name("host_driver.py")),
            name,
            str(shop.docs),
            str(shop.index),
            str(patience_s),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def freeze(self) -> None:
        """Suspend the host; returns when no beat comes any more."""
        assert self.process.stdin
        print("freeze", file=self.process.stdin, flush=True)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def finish(self) -> int:
        """Let the host do its swap; returns the exit code of its run."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        code = int(self.says())
        self.process.communicate()
        return code


def test_a_host_frozen_for_too_long_is_exit_11_and_the_host_that_took_over_publishes(shop: Workshop) -> None:
    """Two processes on a share without flock; the first is frozen, as if its virtual machine were paused."""
    fill(shop)
    shop.ingest()
    shop.write("new.txt", words(20, 100))
    frozen = Host("frozen", shop)
    assert frozen.says() == "ready"
    refused = Host("refused", shop)
    assert refused.says() == "11", "the first host still writes to its lock"
    refused.process.communicate()
    frozen.freeze()
    second = Host("second", shop, patience_s=0.5)
    assert second.says() == "ready"
    frozen.process.send_signal(signal.SIGCONT)
    assert frozen.finish() == 11
    assert second.finish() == 0
    assert shop.content() == reference(shop)
    assert verify(Index(shop.index, disk=Disk())).damage == []


def test_network_filesystems_are_recognised_by_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "22 21 0:40 / /mnt/share rw - nfs4 host:/share rw\n"
        "23 22 8:2 / /mnt/share/local rw - xfs /dev/sdb rw\n"
    )
    assert lock.on_network(Path("/mnt/share/index"), mounts)
    assert not lock.on_network(Path("/mnt/share/local/index"), mounts)
    assert not lock.on_network(Path("/home/index"), mounts)
    (tmp_path / "link").symlink_to("/mnt/share")
    assert lock.on_network(tmp_path / "link/index", mounts), "the target of a symlink counts"


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *((kind, True) for kind in ("nfs", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "beegfs", "virtiofs")),
        *((f"fuse.{kind}", True) for kind in ("ceph-fuse", "sshfs", "rclone", "juicefs", "s3fs", "glusterfs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fuseblk")),
    ],
)
def test_network_filesystems_are_recognised_by_their_type(tmp_path: Path, kind: str, network: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:40 / /mnt/share rw - {kind} there rw\n")
    assert lock.on_network(Path("/mnt/share/index"), mounts) is network
