"""Stubs: files whose content comes when it is read, whatever dies or runs beside it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embedcli.errors import StorageError
from embedcli.vault.contract import Vault
from embedcli.vault.disk import digest_of
from embedcli.vault.opened import open_vault
from embedcli.vault.stubs import HEADER_BYTES, Stub, fetched, is_stub, make_stub

SIZES = [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 3 * HEADER_BYTES + 7]


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return open_vault(f"file://{tmp_path / 'vault'}")


def stored(vault: Vault, size_bytes: int) -> tuple[Stub, bytes]:
    data = np.random.default_rng(size_bytes).bytes(size_bytes)
    key = f"data-{size_bytes}"
    vault.put_new(key, data)
    file = Path(vault.url.removeprefix("file://"), key)
    return Stub(vault.url, key, size_bytes, digest_of(file)), data


@pytest.mark.parametrize("piece_bytes", [1000, HEADER_BYTES, 1 << 20])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_stub_has_the_size_and_gets_the_content(
    vault: Vault, tmp_path: Path, size_bytes: int, piece_bytes: int
) -> None:
    stub, data = stored(vault, size_bytes)
    path = tmp_path / "file"
    make_stub(path, stub)
    assert path.stat().st_size == size_bytes and is_stub(path) == (size_bytes >= HEADER_BYTES)
    assert fetched(path, piece_bytes=piece_bytes).read_bytes() == data and not is_stub(path)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_stub_of_unknown_size_gets_the_content(vault: Vault, tmp_path: Path, size_bytes: int) -> None:
    stub, data = stored(vault, size_bytes)
    make_stub(tmp_path / "file", Stub(stub.url, stub.key, None, stub.sha256))
    assert is_stub(tmp_path / "file") and fetched(tmp_path / "file").read_bytes() == data


def test_every_hard_link_of_a_stub_gets_the_content(vault: Vault, tmp_path: Path) -> None:
    stub, data = stored(vault, 9_000)
    make_stub(tmp_path / "one", stub)
    os.link(tmp_path / "one", tmp_path / "two")
    fetched(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == data


def test_a_stub_takes_no_room(vault: Vault, tmp_path: Path) -> None:
    make_stub(tmp_path / "file", Stub(vault.url, "k", 1 << 30, "0" * 64))
    assert (tmp_path / "file").stat().st_blocks * 512 <= 64 << 10


def test_damage_and_loss_in_the_vault_leave_the_stub_and_are_errors_of_the_file(vault: Vault, tmp_path: Path) -> None:
    stub, _ = stored(vault, 9_000)
    for wrong in (Stub(stub.url, stub.key, 9_000, "0" * 64), Stub(stub.url, "missing", 9_000, stub.sha256)):
        path = tmp_path / wrong.key
        make_stub(path, wrong)
        with pytest.raises(OSError):
            fetched(path)
        assert is_stub(path)


def test_a_full_disk_is_no_damage(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub, _ = stored(vault, 9_000)
    make_stub(tmp_path / "file", stub)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        fetched(tmp_path / "file")
    monkeypatch.undo()
    assert is_stub(tmp_path / "file")


def test_threads_that_fetch_the_same_stub_at_once_all_read_the_content(vault: Vault, tmp_path: Path) -> None:
    stub, data = stored(vault, 200_000)
    path = tmp_path / "file"
    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            path.unlink(missing_ok=True)
            make_stub(path, stub)
            read = threads.map(lambda _: fetched(path).read_bytes(), range(4))
            assert list(read) == [data] * 4
