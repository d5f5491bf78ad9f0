"""Files without names: what was read of them is not counted as memory of this process for ever."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest

from embedcli.index.tables import mapped as mapping
from embedcli.index.tables.mapped import give_back, mapped, passing

SIZE = 64 << 20


def resident_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


def test_pages_that_were_read_are_given_back_and_read_again(tmp_path: Path) -> None:
    file = mapped(tmp_path, lambda file: [file.write(bytes([n]) * (1 << 20)) for n in range(64)] and None)
    assert list(tmp_path.iterdir()) == []
    before = resident_bytes()
    assert sum(file[::4096]) == sum(range(64)) * 256 and resident_bytes() - before > SIZE // 2
    give_back()
    assert resident_bytes() - before < SIZE // 8
    assert sum(file[::4096]) == sum(range(64)) * 256


def test_what_is_read_for_one_part_after_another_is_never_in_memory_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "GIVE_BACK_BYTES", 4 << 20)
    file = mapped(tmp_path, lambda file: file.write(bytes(SIZE)) and None)
    before = most = resident_bytes()
    for part in passing((file[start : start + (1 << 20)] for start in range(0, SIZE, 1 << 20)), len):
        most = max(most, resident_bytes())
        assert len(part) == 1 << 20
    assert most - before < 8 << 20


def test_a_file_goes_with_its_mapping(tmp_path: Path) -> None:
    file = mapped(tmp_path, lambda file: file.write(b"x") and None)
    gone = weakref.ref(file)
    del file
    give_back()
    assert gone() is None
