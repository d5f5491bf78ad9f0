"""The bytes of an object: whole, of one version, and gone from the disk whatever happens."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcli.errors import BucketError, StorageError
from embedcli.sources.buckets import fetched as module
from embedcli.sources.buckets.fetched import fetched, object_digest, object_text, stat_of_object
from tests.buckets import S3Bucket, bucket, writer  # noqa: F401

MIB = 1 << 20


def beats() -> tuple[list[int], object]:
    seen: list[int] = []
    return seen, seen.append


def test_a_large_object_comes_in_parts_each_of_the_version_of_the_first(bucket: S3Bucket, tmp_path: Path) -> None:  # noqa: F811
    data = os.urandom(20 * MIB + 5)
    bucket.put("a", data)
    seen: list[int] = []
    file, stat = fetched(f"{bucket.url}/a", None, folder=tmp_path, beat=seen.append)
    with file:
        assert file.read() == data and stat == stat_of_object(f"{bucket.url}/a")
    gets = [(asked_range, tag) for method, _, asked_range, tag in bucket.front.asked if method == "GET"]
    etag = f'"{hashlib.md5(data).hexdigest()}"'
    assert gets == [
        ("bytes=0-8388607", ""), ("bytes=8388608-16777215", etag), (f"bytes=16777216-{len(data) - 1}", etag)
    ]  # fmt: skip
    assert len(seen) >= 2, "a sign of life for each part"
    assert object_digest(f"{bucket.url}/a") == hashlib.sha256(data).hexdigest()


def test_an_object_that_changes_between_two_parts_is_not_mixed(bucket: S3Bucket, tmp_path: Path) -> None:  # noqa: F811
    bucket.put("a", b"1" * (9 * MIB))

    def change(method: str, path: str) -> None:
        if len(bucket.front.objects()) == 2:
            bucket.put("a", b"2" * (9 * MIB))

    bucket.front.before = change
    with pytest.raises(BucketError) as raised:
        fetched(f"{bucket.url}/a", None, folder=tmp_path, beat=lambda _: None)
    assert raised.value.reason == "changed_while_reading"


def test_an_empty_object_costs_no_request(bucket: S3Bucket, tmp_path: Path) -> None:  # noqa: F811
    bucket.put("a", b"")
    listed = stat_of_object(f"{bucket.url}/a")
    file, stat = fetched(f"{bucket.url}/a", listed, folder=tmp_path, beat=lambda _: None)
    assert file.read() == b"" and stat == listed and bucket.front.objects() == []
    assert object_text(f"{bucket.url}/a") == b"" and object_text(f"{bucket.url}/none") is None


def test_up_to_64_mib_stay_in_memory_and_more_is_a_file_without_a_name(
    bucket: S3Bucket,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert module.MEMORY_BYTES == 64 * MIB
    monkeypatch.setattr(module, "MEMORY_BYTES", 9 * MIB)
    for size, on_disk in ((9 * MIB, False), (9 * MIB + 1, True)):
        bucket.put("a", b"x" * size)
        file, _ = fetched(f"{bucket.url}/a", None, folder=tmp_path, beat=lambda _: None)
        with file:
            links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if exists(name)]
            assert any(link.startswith(str(tmp_path)) for link in links) == on_disk
            assert list(tmp_path.iterdir()) == []


def exists(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def test_a_kill_leaves_nothing_of_a_large_object(bucket: S3Bucket, tmp_path: Path) -> None:  # noqa: F811
    bucket.put("a", b"x" * (3 * MIB))
    code = (
        "import os, pathlib, signal, sys; from embedcli.sources.buckets import fetched as module\n"
        "module.MEMORY_BYTES = 1 << 20\n"
        "file, _ = module.fetched(sys.argv[1], None, folder=pathlib.Path(sys.argv[2]), beat=lambda _: None)\n"
        "print(file.fileno(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", code, f"{bucket.url}/a", str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == -9 and ran.stdout.strip().isdigit() and list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_fault_of_the_object(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(module, "MEMORY_BYTES", 1)
    bucket.put("a", b"text")
    with pytest.raises(StorageError):
        fetched(f"{bucket.url}/a", None, folder=Path("/nowhere"), beat=lambda _: None)
