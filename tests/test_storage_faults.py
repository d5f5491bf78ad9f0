"""What a run does when the disk is full, read-only, torn or of the wrong kind, and when the index is held by another.

After each fault the next run gets out of it, and the index equals the one that met no fault.
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
from pathlib import Path

import pytest

from embedcli.errors import Locked, StorageError
from embedcli.index import lock
from embedcli.index.disk import Disk
from embedcli.index.generations import Index
from embedcli.index.lock import STALE_S, Lock
from embedcli.models import resolve
from embedcli.reading import rows
from embedcli.records import Source, stat_of
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
from tests.unprivileged import as_nobody
from tests.workshop import Workshop, words

SMALL_CHECKPOINTS = {"checkpoint_bytes": 1, "checkpoint_every_s": 0.0}


def fill(shop: Workshop) -> None:
    for number in range(10):
        shop.write(f"part-{number % 3}/file-{number:02d}.txt", words(60, number))


def reference(shop: Workshop) -> list[tuple[object, ...]]:
    """The content of an index made of the same folder on a sound disk."""
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
def test_a_disk_that_is_full_is_exit_14_and_the_next_run_gets_out_of_it(
    shop: Workshop, what: str, room_bytes: int
) -> None:
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


def test_a_disk_that_is_full_half_way_costs_only_what_was_not_checkpointed(shop: Workshop) -> None:
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


def test_on_a_full_disk_what_was_stored_is_still_named(shop: Workshop) -> None:
    """The reserve makes room for the line of a shard that is on the disk already."""
    fill(shop)
    disk = DiskFull("journal.jsonl", 100)
    shop.ingest(disk=disk)
    assert disk.refused
    assert shop.content() == reference(shop)


def test_a_full_disk_leaves_the_generation_before_as_it_was(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    before = shop.content()
    shop.write("part-0/file-00.txt", words(60, 50))
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/manifest.json"))
    assert shop.content() == before
    assert shop.ingest().generation == 2, "nobody has seen that one"
    assert shop.content() == reference(shop)


def test_a_disk_that_is_full_while_a_reader_spools_is_exit_14_and_no_fault_of_the_source(
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
    assert not list(spool.iterdir()), "what was written of it is gone"
    assert work(task, lambda _: None, with_forms=True).table().num_rows > 100


# ---- fsync, write and rename


def test_an_fsync_that_fails_once_has_the_file_written_anew(shop: Workshop) -> None:
    fill(shop)
    for nth in (0, 3, 6):
        shop.write("part-0/file-00.txt", words(60, 60 + nth))
        shop.ingest(disk=FsyncFails(1, after=nth))
    assert shop.content() == reference(shop)


def test_a_write_that_is_torn_once_is_written_anew(shop: Workshop) -> None:
    fill(shop)
    disk = TornWrite("part.parquet")
    shop.ingest(disk=disk)
    assert disk.left == 0
    assert shop.content() == reference(shop)


@pytest.mark.parametrize(
    "step", ["", "staging begun", "shard stored", "after journal", "generation written", "before swap"]
)
def test_a_disk_that_fails_for_ever_is_exit_14_and_loses_nothing(shop: Workshop, step: str) -> None:
    fill(shop)
    with pytest.raises(StorageError, match="Input/output error"):
        shop.ingest(disk=FailsFrom(step), **SMALL_CHECKPOINTS)
    assert not (shop.index / "current").exists()
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)


@pytest.mark.parametrize("what", ["part.parquet", "generations/N", "current", "N.tmp/manifest.json"])
def test_a_rename_that_fails_publishes_nothing_and_the_next_run_does(shop: Workshop, what: str) -> None:
    fill(shop)
    with pytest.raises(StorageError) as caught:
        shop.ingest(disk=RenameFails(what, error=errno.EACCES))
    assert "Permission denied" in str(caught.value)
    assert not (shop.index / "current").exists()
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)


# ---- filesystems of other kinds


def test_a_read_only_index_is_exit_14_with_a_word_on_the_filesystem(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    before = shop.content()
    shop.write("new.txt", words(20, 70))
    with pytest.raises(StorageError) as caught:
        shop.ingest(disk=ReadOnly())
    assert "read-only" in caught.value.hint
    assert shop.content() == before


def test_an_index_without_the_right_to_write_is_exit_14(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    shop.write("new.txt", words(20, 70))
    folders = [path for path in (shop.index, *shop.index.rglob("*")) if path.is_dir() and not path.is_symlink()]
    for path in folders:
        path.chmod(0o555)

    def night() -> None:
        with pytest.raises(StorageError, match="Permission denied") as caught:
            shop.ingest()
        assert "chown" in caught.value.hint

    as_nobody(shop.docs.parent, night)
    for path in folders:
        path.chmod(0o755)
    assert shop.ingest().generation == 2


def test_without_hard_links_shards_are_copied_and_that_is_said(shop: Workshop) -> None:
    fill(shop)
    shop.ingest(disk=NoHardLinks())
    shop.write("new.txt", words(60, 71))
    shop.ingest(disk=NoHardLinks())
    assert any("without hard links: each generation is a whole copy" in line for line in shop.report.said)
    assert shop.content() == reference(shop)
    shards = list((shop.index / "generations").glob("*/vectors/*.parquet"))
    assert len(shards) > len({path.name for path in shards}), "one is in both generations"
    assert {path.stat().st_nlink for path in shards} == {1}


def test_an_index_on_another_filesystem_than_the_temporary_folder(shop: Workshop) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == shop.docs.stat().st_dev:
        pytest.skip("there is no other filesystem here")
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
    path.unlink()  # the other links of the file stay sound
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "overwritten":
        middle = len(data) // 2
        path.write_bytes(data[: middle - 200] + b"\0" * 400 + data[middle + 200 :])


@pytest.mark.parametrize("how", ["cut", "overwritten", "missing"])
def test_a_damaged_shard_does_not_stop_a_run_and_its_documents_come_back(shop: Workshop, how: str) -> None:
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


def test_a_torn_tail_of_the_journal_is_passed_over(shop: Workshop) -> None:
    fill(shop)
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"), **SMALL_CHECKPOINTS)
    journal = next((shop.index / "staging").glob("*/journal.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-40])
    shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert shop.content() == reference(shop)
    assert not any((shop.index / "staging").iterdir())


def test_a_file_that_vanishes_between_walk_and_reading_is_news_and_gone_the_next_night(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    lost = shop.write("part-1/lost.txt", words(20, 90))
    assert shop.ingest(stop_signal=VanishingFile(lost)).generation == 2
    shop.ingest()
    assert "part-1/lost.txt" not in shop.documents()
    assert shop.content() == reference(shop)


def test_keys_of_a_shard_that_are_lost_cost_vectors_and_no_row(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    for path in (shop.index / "keys").iterdir():
        path.write_bytes(b"torn")
    shop.write("part-0/file-00.txt", words(60, 91))
    shop.ingest()
    assert shop.content() == reference(shop)


class FsyncsFolders(Recording):
    """Recording that hears of the folders too."""

    def fsync_folder(self, folder: Path) -> None:
        self.at(f"fsync {folder.name}")
        super().fsync_folder(folder)


def test_before_the_swap_every_folder_that_it_needs_is_on_the_disk(shop: Workshop) -> None:
    fill(shop)
    disk = FsyncsFolders()
    shop.ingest(disk=disk)
    before = disk.done[: disk.done.index("point current")]
    assert {"fsync vectors", "fsync keys", "fsync generations"} <= set(before)
    assert disk.done[disk.done.index("point current") :].count("fsync index") == 1


def test_the_order_of_a_publish_is_shards_then_documents_then_manifest_then_swap(shop: Workshop) -> None:
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
    assert not {name for name in removed if "loose" not in name}, "nothing old goes"


# ---- the lock


HOLDER = """
import sys, time
from pathlib import Path
from embedcli.index.lock import Lock
with Lock(Path(sys.argv[1]), network=False, warn=print):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(index: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its stdin ends."""
    command = [sys.executable, "-c", HOLDER, str(index)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_an_index_held_by_a_live_process_is_exit_11_and_says_by_whom(shop: Workshop) -> None:
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
    data = {"host": host, "pid": 7, "since": "2026-01-01T00:00:00+00:00", "nonce": f"abc:{count}"}
    (index / "lock").write_text(json.dumps(data))


def test_a_foreign_nonce_that_stands_still_for_ten_minutes_is_broken_with_a_warning(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock, warnings = ClockJumps(), list[str]()
    with Lock(tmp_path, network=True, warn=warnings.append, clock=clock, sleep=clock.sleep) as held:
        assert clock.now >= STALE_S
        assert held.held()
    assert "waiting" in warnings[0] and "`other`" in warnings[-1] and "has not moved for 10 minutes" in warnings[-1]


def test_a_foreign_nonce_that_moves_is_a_run(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock = ClockJumps(lambda now: foreign(tmp_path, 2) if now > 300 else None)
    with (
        pytest.raises(Locked, match="pid 7 on `other`"),
        Lock(tmp_path, network=True, warn=lambda _: None, clock=clock, sleep=clock.sleep),
    ):
        pass
    assert clock.now < STALE_S


def test_a_lock_of_a_dead_process_of_this_host_is_taken_at_once_on_a_network_too(tmp_path: Path) -> None:
    foreign(tmp_path, host=os.uname().nodename)
    with Lock(tmp_path, network=True, warn=pytest.fail, sleep=lambda _: pytest.fail("nothing to wait for")):
        pass


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP])
def test_without_flock_the_lock_file_is_watched_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refused)
    warnings: list[str] = []
    with Lock(tmp_path, network=False, warn=warnings.append) as held:
        assert held.held() and "without flock" in warnings[0]
        clock = ClockJumps(lambda _: held._beat())
        with (
            pytest.raises(Locked, match=f"pid {os.getpid()} on"),
            Lock(tmp_path, network=False, warn=warnings.append, clock=clock, sleep=clock.sleep),
        ):
            pass
        assert held.held()


def test_a_beat_that_fails_is_no_end_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    with Lock(tmp_path, network=True, warn=pytest.fail) as held:
        before = (tmp_path / "lock").read_bytes()
        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
            time.sleep(0.1)
            assert (tmp_path / "lock").read_bytes() == before
        time.sleep(0.1)
        assert (tmp_path / "lock").read_bytes() != before
        assert held.held()


def test_a_lock_of_a_dead_container_under_another_host_name_is_taken_on_a_local_disk(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    foreign(shop.index)
    shop.write("new.txt", words(20, 100))
    assert shop.ingest().generation == 2


def test_a_foreign_lock_that_is_released_is_taken_at_once(tmp_path: Path) -> None:
    foreign(tmp_path)
    clock = ClockJumps(lambda _: (tmp_path / "lock").write_text("") and None)
    with Lock(tmp_path, network=True, warn=lambda _: None, clock=clock, sleep=clock.sleep):
        assert clock.now < 60


def test_a_lock_file_that_cannot_be_read_at_this_moment_is_not_released(tmp_path: Path) -> None:
    """The other host is just writing: half a line is no release."""
    foreign(tmp_path)
    whole = (tmp_path / "lock").read_text()
    clock = ClockJumps(lambda now: (tmp_path / "lock").write_text(whole[:20]) and None)
    with Lock(tmp_path, network=True, warn=lambda _: None, clock=clock, sleep=clock.sleep):
        assert clock.now >= STALE_S


def test_a_beat_never_leaves_the_lock_file_empty(tmp_path: Path) -> None:
    with Lock(tmp_path, network=False, warn=pytest.fail) as held:
        done = threading.Event()
        seen: list[bytes] = []

        def look() -> None:
            while not done.is_set():
                seen.append((tmp_path / "lock").read_bytes())

        reader = threading.Thread(target=look)
        reader.start()
        for _ in range(200):
            held._beat()
        done.set()
        reader.join()
    assert all(json.loads(data or b"null") for data in seen)


class OtherHostTakesOver(Disk):
    """Just before our publish another host, whose flock did not see ours, has the lock (and maybe published)."""

    def __init__(self, shop: Workshop, *, publishes: bool) -> None:
        self.shop = shop
        self.publishes = publishes

    def step(self, name: str) -> None:
        if name == "generation written":
            (self.shop.index / "lock").unlink()  # what it locked is not what we locked
            if self.publishes:
                self.shop.ingest()
            else:
                foreign(self.shop.index)


@pytest.mark.parametrize("publishes", [True, False])
def test_of_two_hosts_without_a_working_flock_one_publishes_and_the_other_is_exit_11(
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
    """See host_driver.py."""

    def __init__(self, name: str, shop: Workshop) -> None:
        command = [
            sys.executable,
            str(Path(__file__).with_name("host_driver.py")),
            name,
            str(shop.docs),
            str(shop.index),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def goes_on(self) -> int:
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        code = int(self.says())
        self.process.communicate()
        return code


def test_of_two_hosts_the_one_that_stood_still_too_long_is_exit_11_and_the_other_publishes(shop: Workshop) -> None:
    """Two processes on a share without flock; the first is frozen, as by a pause of its virtual machine."""
    fill(shop)
    shop.ingest()
    shop.write("new.txt", words(20, 100))
    frozen = Host("frozen", shop)
    assert frozen.says() == "ready"
    refused = Host("refused", shop)
    assert refused.says() == "11", "as long as the first moves its lock"
    refused.process.communicate()
    frozen.process.send_signal(signal.SIGSTOP)
    second = Host("second", shop)
    assert second.says() == "ready"
    frozen.process.send_signal(signal.SIGCONT)
    assert frozen.goes_on() == 11
    assert second.goes_on() == 0
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
    assert lock.on_network(tmp_path / "link/index", mounts), "where it leads counts, not where it lies"


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *((kind, True) for kind in ("nfs", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "beegfs", "virtiofs")),
        *((f"fuse.{kind}", True) for kind in ("ceph-fuse", "sshfs", "rclone", "juicefs", "s3fs", "glusterfs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fuseblk")),
    ],
)
def test_what_lies_on_other_hosts_is_known_by_its_filesystem(tmp_path: Path, kind: str, network: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:40 / /mnt/share rw - {kind} there rw\n")
    assert lock.on_network(Path("/mnt/share/index"), mounts) is network
