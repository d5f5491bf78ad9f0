"""An array that comes in parts: the same in memory and in a file, of which nothing is left in the folder."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from embedcli.errors import StorageError
from embedcli.index.tables import gathered as gathering
from embedcli.index.tables.gathered import Gathered


@pytest.mark.parametrize("at_most", [0, 100, 1 << 20])
@pytest.mark.parametrize("shape", [(), (7,)])
def test_the_array_is_the_parts_one_after_another(
    at_most: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gathering, "IN_MEMORY_BYTES", at_most)
    parts = [np.random.default_rng(rows).standard_normal((rows, *shape)).astype(np.float32) for rows in (0, 3, 0, 9, 1)]
    gathered = Gathered(tmp_path)
    for part in parts:
        gathered.add(part)
    assert gathered.nbytes == sum(part.nbytes for part in parts)
    np.testing.assert_array_equal(gathered.array(), np.concatenate(parts), strict=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(), (7,)])
def test_an_array_without_items_has_its_kind(shape: tuple[int, ...], tmp_path: Path) -> None:
    gathered = Gathered(tmp_path)
    gathered.add(np.zeros((0, *shape), np.uint16))
    np.testing.assert_array_equal(gathered.array(), np.zeros((0, *shape), np.uint16), strict=True)


def test_a_part_that_is_no_piece_of_memory_is_added_as_it_reads() -> None:
    gathered = Gathered(None)
    gathered.add(np.arange(12).reshape(3, 4).T)
    np.testing.assert_array_equal(gathered.array(), np.arange(12).reshape(3, 4).T)


def test_a_large_array_takes_no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathering, "IN_MEMORY_BYTES", 1 << 16)
    tracemalloc.start()
    gathered = Gathered(tmp_path)
    for _ in range(100):
        gathered.add(np.zeros(10_000, np.uint64))
    array = gathered.array()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.nbytes == 8_000_000 and most < 500_000


def test_a_folder_that_is_not_there_is_a_storage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathering, "IN_MEMORY_BYTES", 0)
    with pytest.raises(StorageError):
        Gathered(tmp_path / "nowhere").add(np.zeros(1))
