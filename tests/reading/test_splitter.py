"""The process that splits containers: what kills it costs one container, and the run goes on.

Not here: what it makes of a container (containers/), the run (run/test_containers.py).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedcli.errors import UnreadableSource
from embedcli.reading import splitter as module
from embedcli.reading.splitter import Split, Splitter, SplittingWork, Whole
from embedcli.records import Record, RecordRule, Source, stat_of
from embedcli.sources.containers import Asked
from tests.workshop import Workshop, words


@pytest.fixture
def splitter(tmp_path: Path) -> Iterator[Splitter]:
    made = Splitter(SplittingWork(tmp_path))
    yield made
    made.close()
    made.end()


def container(path: Path, count: int) -> Split:
    path.write_text("".join(json.dumps({"id": n, "text": f"text {n}"}) + "\n" for n in range(count)))
    return Split(Source("root", path.name, str(path), stat_of(path.stat())), Asked(RecordRule(), False), None)


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def test_batches_come_one_by_one_and_end_with_the_whole(splitter: Splitter, tmp_path: Path) -> None:
    *batches, whole = splitter.answers(container(tmp_path / "a.jsonl", 1_000))
    records = [record for batch in batches if isinstance(batch, tuple) for record in batch]
    assert [record.id for record in records] == [str(n) for n in range(1_000)] and len(batches) > 5
    assert isinstance(records[0], Record) and isinstance(whole, Whole) and (whole.good, whole.bad) == (1_000, {})


def test_a_container_that_kills_the_process_is_told_and_the_next_one_is_split(
    splitter: Splitter, tmp_path: Path
) -> None:
    answers = splitter.answers(container(tmp_path / "a.jsonl", 1_000))
    next(answers)
    (child,) = children()
    os.kill(child.pid, signal.SIGSEGV)
    with pytest.raises(UnreadableSource) as caught:
        list(answers)
    assert caught.value.reason == "reader_crashed"
    assert len(list(splitter.answers(container(tmp_path / "b.jsonl", 10)))) == 2


def test_after_its_end_nothing_is_started_any_more(splitter: Splitter, tmp_path: Path) -> None:
    splitter.close()
    with pytest.raises(UnreadableSource):
        list(splitter.answers(container(tmp_path / "a.jsonl", 10)))
    assert children() == []


def test_only_the_first_bad_lines_are_named_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BAD_LINES", 5)
    split = container(tmp_path / "a.jsonl", 3)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{torn\n" * 20)
    work = SplittingWork(tmp_path)
    first, last = (work(request, lambda _: None, with_forms=True) for request in (split, None))
    assert isinstance(first, tuple) and len([one for one in first if one.problem]) == 5
    assert isinstance(last, Whole) and (last.good, last.bad) == (3, {"not_json": 20})


def test_real_processes_read_records_in_a_run(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, reading_processes=True)
    shop.write("a.jsonl", "".join(json.dumps({"id": n, "text": words(8, n)}) + "\n" for n in range(300)))
    shop.write("b.txt", words(8, 1_000))
    assert shop.ingest().sources["new"] == 302 and len(shop.rows()) == 301
    assert shop.ingest().idle
