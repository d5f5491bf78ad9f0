"""No part of a damaged file of arrays is ever given out, and what is sound is read without the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedcli.search import sealed
from embedcli.search.sealed import PAGE, Arrays, DamagedCache
from tests.published import spoil

ABOUT = {"sidecar": 7}


def some_arrays() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    return {
        "small": np.arange(5, dtype=np.uint16),
        "none": np.zeros((0, 8), np.float32),
        "table": chance.standard_normal((3_000, 24), np.float32),
        "odd": chance.integers(0, 255, 10_001).astype(np.uint8),
        "flags": chance.integers(0, 2, 70_000).astype(np.int64),
    }


def stored(path: Path, arrays: dict[str, np.ndarray] | None = None) -> Path:
    with path.open("wb") as sink:
        sealed.write(sink, ABOUT, some_arrays() if arrays is None else arrays)
    return path


def loaded(path: Path) -> Arrays:
    found = sealed.load(path, ABOUT)
    assert found is not None
    return found


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = loaded(stored(tmp_path / "file"))
    for name, array in some_arrays().items():
        np.testing.assert_array_equal(found.whole(name), array)
        assert found.whole(name).dtype == array.dtype
        rows = np.array([0, len(array) - 1, len(array) // 2]) if len(array) else np.zeros(0, np.int64)
        np.testing.assert_array_equal(found.rows(name, rows), array[rows])
        np.testing.assert_array_equal(found.part(name, 2, 4_444), array[2:4_444])
    assert sealed.is_as_written(tmp_path / "file")


def test_every_flipped_bit_is_met_by_who_reads_there_and_by_nobody_else(tmp_path: Path) -> None:
    """One bit in every page of the file, and more of them: all arrays are read; what comes back is never wrong."""
    arrays = some_arrays()
    path = stored(tmp_path / "file")
    size = path.stat().st_size
    chance = np.random.default_rng(1)
    places = [*range(PAGE // 2, size, PAGE), *chance.integers(0, size, 200).tolist(), size - 1, size - 33]
    for at in places:
        spoil(path, at=at)
        assert not sealed.is_as_written(path), at
        found = sealed.load(path, ABOUT)
        refused = [] if found is None else [name for name in arrays if not comes_back(found, name, arrays[name])]
        assert found is None or refused or is_padding(path, at), at
        spoil(path, at=at)
    assert sealed.is_as_written(path)


def comes_back(found: Arrays, name: str, array: np.ndarray) -> bool:
    try:
        np.testing.assert_array_equal(found.whole(name), array)
        np.testing.assert_array_equal(found.rows(name, np.arange(len(array))), array)
    except DamagedCache:
        return False
    return True


def is_padding(path: Path, at: int) -> bool:
    """Whether no array is at this place: the whole digest alone, at the very end of the file, is not needed here."""
    return at >= path.stat().st_size - sealed.WHOLE_DIGEST


def test_rows_on_sound_pages_are_read_from_a_damaged_file(tmp_path: Path) -> None:
    table = some_arrays()["table"]
    path = stored(tmp_path / "file")
    at = path.read_bytes().index(table[1_500].tobytes())
    spoil(path, at=at)
    found = loaded(path)
    far = np.array([0, 1_000, 2_000, 2_999])
    np.testing.assert_array_equal(found.rows("table", far), table[far])
    for read in (
        lambda: found.rows("table", np.array([3, 1_500])), lambda: found.whole("table"),
        lambda: found.part("table", 1_400, 1_501),
    ):  # fmt: skip
        with pytest.raises(DamagedCache, match="file` is damaged"):
            read()


def test_a_page_that_lies_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    path = stored(tmp_path / "file")
    data = bytearray(path.read_bytes())
    data[5 * PAGE : 6 * PAGE], data[8 * PAGE : 9 * PAGE] = data[8 * PAGE : 9 * PAGE], data[5 * PAGE : 6 * PAGE]
    path.write_bytes(data)
    assert not sealed.is_as_written(path)
    assert not comes_back(loaded(path), "table", some_arrays()["table"])


def test_zeros_in_the_place_of_a_page_are_found(tmp_path: Path) -> None:
    path = stored(tmp_path / "file")
    data = bytearray(path.read_bytes())
    data[5 * PAGE : 6 * PAGE] = bytes(PAGE)
    path.write_bytes(data)
    assert not comes_back(loaded(path), "table", some_arrays()["table"])


def test_a_row_that_lies_on_two_pages_is_checked_on_both(tmp_path: Path) -> None:
    """Rows of 24 floats do not end with a page, and the last row of one page goes on on the next."""
    table = some_arrays()["table"]
    path = stored(tmp_path / "file")
    start = path.read_bytes().index(table[0].tobytes())
    row = (PAGE - start % PAGE) // 96
    for place in (start + row * 96, start + row * 96 + 95):
        spoil(path, at=place)
        with pytest.raises(DamagedCache):
            loaded(path).rows("table", np.array([row]))
        spoil(path, at=place)
    loaded(path).rows("table", np.array([row]))
