"""Every vault keeps the contract: a folder, obstore's store in memory, and an S3 server in a process of its own.

Not here: an index in a vault (index/mirror/test_mirror.py).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcli.errors import Locked, StorageError
from embedcli.vault.buckets import open_bucket
from embedcli.vault.contract import IMPOSSIBLE, Overtaken, Vault, check_conditions
from embedcli.vault.folder import FolderVault
from embedcli.vault.objects import ObjectVault
from embedcli.vault.opened import open_vault
from tests.s3 import S3, Proxy, Request, proxied
from tests.vault_driver import look, publish

DRIVER = Path(__file__).parent.parent / "vault_driver.py"
KILLS = 200 if os.environ.get("EMBEDCLI_TESTS_LONG") == "1" else 6
THREADS = 8
INCREMENTS = 5


@pytest.fixture(params=["folder", "memory", "s3"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    if request.param == "folder":
        return FolderVault(tmp_path / "vault")
    if request.param == "memory":
        from obstore.store import MemoryStore

        return ObjectVault(MemoryStore(), "memory://")
    server: S3 = request.getfixturevalue("s3")
    return open_vault(f"{server.bucket()}/idx")


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    """A vault that other processes reach too."""
    if request.param == "folder":
        return open_vault(f"file://{tmp_path / 'vault'}")
    server: S3 = request.getfixturevalue("s3")
    return open_vault(f"{server.bucket()}/idx")


def test_what_was_put_is_read_whole_and_in_parts(vault: Vault, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"from a file")
    version = vault.put_new("a/b.bin", b"0123456789")
    vault.put_new("a/c", file)
    assert vault.read("a/b.bin") == (b"0123456789", version)
    assert vault.read_range("a/b.bin", 2, 5) == b"234" and vault.read_range("a/b.bin", 8, 99) == b"89"
    assert vault.read("a/c")[0] == b"from a file"
    found = vault.stat("a/b.bin")
    assert (found.key, found.size_bytes, found.version) == ("a/b.bin", 10, version)
    assert abs(found.modified - time.time()) < 60


def test_a_key_is_put_once(vault: Vault) -> None:
    version = vault.put_new("k", b"first")
    assert vault.put_new("k", b"first") == version, "the same again, as after an answer that was lost"
    with pytest.raises(Overtaken):
        vault.put_new("k", b"second")
    assert vault.read("k") == (b"first", version)


def test_a_swap_succeeds_from_the_expected_version_alone(vault: Vault) -> None:
    first = vault.swap("p", None, b"1")
    second = vault.swap("p", first, b"2")
    for stale in (None, first, IMPOSSIBLE):
        with pytest.raises(Overtaken) as overtaken:
            vault.swap("p", stale, b"3")
    assert overtaken.value.exit_code == Locked.exit_code == 11
    assert vault.read("p") == (b"2", second)
    vault.remove(["p"])
    with pytest.raises(Overtaken):
        vault.swap("p", second, b"3")


def test_a_listing_is_of_whole_names_and_nothing_missing_is_an_error_to_remove(vault: Vault) -> None:
    for key in ("a/b/1", "a/b/2", "a/bc", "d"):
        vault.put_new(key, key.encode())
    assert sorted(item.key for item in vault.list("a/b")) == ["a/b/1", "a/b/2"]
    assert {item.key: item.size_bytes for item in vault.list()} == {"a/b/1": 5, "a/b/2": 5, "a/bc": 4, "d": 1}
    vault.remove(["a/b/1", "never there"])
    assert [item.key for item in vault.list("a/b")] == ["a/b/2"] and list(vault.list("nowhere")) == []


def test_what_is_not_there_is_a_file_not_found(vault: Vault) -> None:
    calls: list[Callable[[], object]] = [
        lambda: vault.read("x"), lambda: vault.stat("x"), lambda: vault.read_range("x", 0, 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(FileNotFoundError):
            call()


def test_of_writers_at_once_each_swap_counts_once(vault: Vault) -> None:
    vault.put_new("count", b"0")

    def count() -> None:
        for _ in range(INCREMENTS):
            while True:
                data, version = vault.read("count")
                try:
                    # a swap to equal bytes would look like one's own after a lost answer, so there is a name in it
                    value = int(data.split()[0]) + 1
                    vault.swap("count", version, f"{value} {threading.get_ident()} {time.time_ns()}".encode())
                    break
                except Overtaken:
                    continue

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vault.read("count")[0].split()[0] == str(THREADS * INCREMENTS).encode()


def test_a_store_that_heeds_conditions_is_found_to_and_left_as_it_was(vault: Vault) -> None:
    check_conditions(vault)
    assert list(vault.list()) == []


@pytest.mark.parametrize("strip", [{"if-match", "if-none-match"}, {"if-match"}, {"if-none-match"}])
def test_a_store_without_conditional_writes_is_refused_before_anything_is_written(
    s3: S3, strip: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(Proxy(s3, strip=frozenset(strip))) as deaf:
        vault = vault_by(deaf, s3.bucket(), monkeypatch)
        with pytest.raises(StorageError, match="does not heed conditional writes") as refused:
            check_conditions(vault)
        assert refused.value.exit_code == 14 and list(vault.list()) == []


def vault_by(server: S3, url: str, monkeypatch: pytest.MonkeyPatch) -> Vault:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return ObjectVault(open_bucket(f"{url}/idx", retries=2), f"{url}/idx")


def test_a_conditional_put_whose_answer_is_lost_has_succeeded(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_put(request: Request) -> bool:
        return request.method == "PUT" and request.is_conditional

    proxy = Proxy(s3, lose=is_put)
    with proxied(proxy) as lossy:
        vault = vault_by(lossy, s3.bucket(), monkeypatch)
        for number in range(1, 4):
            assert publish(vault, "one") == number and look(vault) == number
        assert proxy.lost >= 3 * 4
        stale = vault.stat("current.json").version
        assert publish(vault, "two") == 4
        with pytest.raises(Overtaken):
            vault.swap("current.json", stale, b"late")
        assert look(vault) == 4


def test_a_conditional_put_that_did_not_arrive_is_made_again(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Request] = []

    def conflict_once(request: Request) -> tuple[int, bytes] | None:
        if request.method == "PUT" and not any(request.path == other.path for other in refused):
            refused.append(request)
            return 409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"
        return None

    with proxied(Proxy(s3, before=conflict_once)) as busy:
        vault = vault_by(busy, s3.bucket(), monkeypatch)
        assert publish(vault, "one") == 1 and look(vault) == 1
        assert len(refused) == 4


def test_two_writers_killed_at_random_lose_tear_and_mix_no_generation(shared: Vault) -> None:
    chance = random.Random(1)
    seen = [0]
    wrong: list[BaseException] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                seen.append(look(shared))
            except BaseException as error:  # noqa: BLE001 - whatever it was, the test has to fail
                wrong.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    told: list[int] = []
    try:
        for kill in range(KILLS):
            told += _killed(shared.url, f"{kill}-a", f"{kill}-b", after_s=chance.uniform(0.2, 1.0))
    finally:
        ended.set()
        reader.join()
    assert not wrong and seen == sorted(seen), "no reader met a torn or mixed generation, or an older one again"
    assert len(told) == len(set(told)), "no number was published twice"
    last = look(shared)
    assert told and max(told) <= last <= len(told) + 2 * KILLS, "a writer may be killed before it says what it did"
    print(f"{2 * KILLS} kills, {last} generations, {len(seen)} readings")


def _killed(url: str, *writers: str, after_s: float) -> list[int]:
    """What writers said that were killed once one of them has published, and a while later."""
    processes = [
        subprocess.Popen([sys.executable, str(DRIVER), url, name], stdout=subprocess.PIPE, text=True)
        for name in writers
    ]
    assert processes[0].stdout
    first = processes[0].stdout.readline()
    time.sleep(after_s)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]
    return [int(line) for line in [first, *lines] if line.strip()]
