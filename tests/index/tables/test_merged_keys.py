"""Sorted keys, made one array from several: as a stable sort of all of them would, a range at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from embedcli.index.tables import gathered, merged_keys
from embedcli.index.tables.merged_keys import SideBySide, merged


def part(seed: int, count: int, most: int) -> SideBySide:
    keys = np.sort(np.random.default_rng(seed).integers(0, most, count, np.uint64, endpoint=True))
    return keys, np.full(count, seed, np.uint32)


@pytest.mark.parametrize("most", [3, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("at_once", [1, 10, 1 << 16])
def test_it_is_what_a_stable_sort_of_all_gives(
    at_once: int, most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(merged_keys, "RANGE_KEYS", at_once)
    parts = [part(seed, count, most) for seed, count in enumerate((40, 0, 1, 77))]
    keys, others = merged(parts, tmp_path)
    order = np.argsort(np.concatenate([one[0] for one in parts]), kind="stable")
    np.testing.assert_array_equal(keys, np.concatenate([one[0] for one in parts])[order], strict=True)
    np.testing.assert_array_equal(others, np.concatenate([one[1] for one in parts])[order], strict=True)


def test_of_many_keys_a_range_is_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr(merged_keys, "RANGE_KEYS", 1 << 12)
    parts = [part(seed, 100_000, (1 << 64) - 1) for seed in range(8)]
    tracemalloc.start()
    keys, _ = merged(parts, tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert keys.size == 800_000 and most < 1_000_000
