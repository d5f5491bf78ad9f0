"""Records against those that the index has: new, changed, twice, left; and what that takes of memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedcli.index.tables import gathered
from embedcli.reading.containers import known
from embedcli.reading.containers.known import KnownFiles, KnownRecords
from embedcli.records import Record, digest


def record(name: str, text: str = "text", line: int = 0) -> Record:
    return Record(name, digest(text), text, line=line)


def opened(folder: Path, records: Sequence[Record]) -> KnownRecords:
    parts = [records[:3], records[3:]]
    stored = (([one.id for one in part], [one.digest for one in part]) for part in parts)
    return KnownRecords(KnownFiles.write(folder, "a", stored, count=len(records)))


def sifted(records: KnownRecords, came: Iterable[Record]) -> list[tuple[str, str | None, int]]:
    return [(one.id, one.problem, one.prior) for one in records.sift(list(came))]


def test_only_new_and_changed_records_come_through_and_the_others_are_met(tmp_path: Path) -> None:
    records = opened(tmp_path, [record(str(n)) for n in range(6)])
    came = [record("4"), record("2", "changed"), record("new"), record("0")]
    assert sifted(records, came) == [("2", None, 2), ("new", None, -1)]
    assert records.left.tolist() == [1, 3, 5]


def test_a_record_without_a_digest_is_read_again(tmp_path: Path) -> None:
    records = KnownRecords(KnownFiles.write(tmp_path, "a", [(["0", "1"], [record("0").digest, None])], count=2))
    assert sifted(records, [record("0"), record("1")]) == [("1", None, 1)]


@pytest.mark.parametrize("recent", [2, 7, 1_000])
def test_an_id_that_comes_again_is_a_duplicate_however_long_ago_it_came(
    recent: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against a set of all ids."""
    monkeypatch.setattr(known, "RECENT", recent)
    generator = random.Random(recent)
    records = opened(tmp_path, [record(str(n)) for n in range(50)])
    seen: set[str] = set()
    for _ in range(100):
        batch = [record(str(generator.randrange(400)), line=n + 1) for n in range(9)]
        again = []
        for one in batch:
            again += [f"line {one.line}"] if one.id in seen else []
            seen.add(one.id)
        assert [name for name, problem, _ in sifted(records, batch) if problem == "duplicate_id"] == again


def test_equal_texts_without_ids_are_numbered_across_batches(tmp_path: Path) -> None:
    records = KnownRecords(None)
    first = digest("text")
    assert sifted(records, [record(""), record("")]) == [(first, None, -1), (f"{first}-2", None, -1)]
    assert sifted(records, [record("")]) == [(f"{first}-3", None, -1)]


@pytest.mark.parametrize("recent", [1, 1_000])
def test_mails_with_one_id_are_numbered_past_the_ids_that_others_have(
    recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "RECENT", recent)
    records = KnownRecords(None)
    came = [Record(name, digest(name, n), data=b"Mail") for n, name in enumerate(["a/b", "a/b-2", "a/b", "a/b-2"])]
    assert sifted(records, came[:2]) == [("a/b", None, -1), ("a/b-2", None, -1)]
    assert sifted(records, came[2:]) == [("a/b-3", None, -1), ("a/b-2-2", None, -1)]


def test_an_id_with_a_slash_is_known_by_the_way_it_stands_in_a_path(tmp_path: Path) -> None:
    records = KnownRecords(KnownFiles.write(tmp_path, "a", [(["a%2Fb"], [digest("text")])], count=1))
    assert sifted(records, [record("a/b")]) == [] and not records.left.size


@pytest.mark.parametrize("in_files", [False, True])
def test_a_new_record_takes_few_bytes_of_memory_or_none(
    in_files: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(known, "RECENT", 1 << 12)
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 1 << 16)
    records = KnownRecords(None, tmp_path if in_files else None)
    tracemalloc.start()
    for first in range(0, 100_000, 500):
        list(records.sift([record(str(n)) for n in range(first, first + 500)]))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < (1 if in_files else 16) * 100_000 + known.RECENT * 150
    assert np.count_nonzero(records.left) == 0 and list(tmp_path.iterdir()) == []
    assert [problem for _, problem, _ in sifted(records, [record("7"), record("99_999")])] == ["duplicate_id", None]
