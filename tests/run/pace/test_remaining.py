"""How long a run still takes: by its tokens, for a megabyte of pictures is not a megabyte of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedcli.index import documents
from embedcli.index.documents import DocumentRow
from embedcli.records import Source, Stat
from embedcli.report import Pace, Progress
from embedcli.run.pace.remaining import Remaining, ratios_of
from embedcli.run.tasks import Task, TaskList, last_seen, last_seen_rows
from tests.workshop import UNFINISHED, Lines, Workshop, stopped_half_way, words

RECORDED = Path(__file__).parent / "recorded_run.jsonl"
"""What happened in a run over 90 files, 19 MB: texts, code, pages, and PDFs with many pictures or few, by the seconds
since its start. `kind`: a file was read; `embedded`: so many tokens in all."""


def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


def task_of(event: dict[str, Any], number: int) -> Task:
    return Task(Source("root", f"{number:03}{event['kind']}", "", Stat(event["bytes"], 0, 0, 0)), None)


def replayed() -> Iterator[tuple[float, Progress, int]]:
    """After each event of the recorded run: the second, the progress, how many files have been read."""
    recorded = events()
    tasks = [task_of(event, number) for number, event in enumerate(event for event in recorded if "kind" in event)]
    listed = TaskList(documents.empty())
    for task in tasks:
        listed.add(task.source, None)
    remaining = Remaining(listed, {})
    progress, asked, read = Progress(started=0.0, bytes_total=listed.size_bytes), 0, 0
    for event in recorded:
        if "kind" in event:
            remaining.note(tasks[read], to_embed=event["to_embed"])
            asked, read = asked + event["to_embed"], read + 1
        elif "ready" in event:
            progress.embedding_since = event["s"]
        else:
            progress.tokens = event["embedded"]
        progress.tokens_left = asked - progress.tokens + remaining.tokens
        yield event["s"], progress, read


def test_the_time_to_go_is_right_within_a_factor_of_a_half_after_a_tenth_of_a_mixed_corpus() -> None:
    end_s = events()[-1]["s"]
    wrong = [
        (now_s, told)
        for now_s, progress, _ in replayed()
        if end_s * 0.1 <= now_s <= end_s * 0.95
        and not (end_s - now_s) / 1.5 <= (told := progress.eta_at(now_s) or 0.0) <= (end_s - now_s) * 1.5
    ]
    assert wrong == []


def test_the_tokens_of_a_corpus_are_known_within_a_factor_of_a_half_when_a_fifth_of_it_is_read() -> None:
    total = events()[-1]["embedded"]
    found = [progress.tokens + progress.tokens_left for _, progress, read in replayed() if read >= 18]
    assert len(found) > 80 and all(total / 1.5 <= one <= total * 1.5 for one in found)
    assert found[-1] == pytest.approx(total, rel=0.001)


def test_after_a_stop_what_is_read_and_known_is_no_time_without_tokens() -> None:
    """Ten minutes of reading what an earlier run has embedded, 30 million tokens, then a minute of the engine."""
    run = Progress(started=0.0, embedding_since=0.0, tokens=60_000, tokens_left=600_000.0)
    run.pace = Pace(busy_s=60.0, tokens_read=30_060_000)
    assert run.eta_at(660.0) == pytest.approx(600 + 12, rel=0.01), "at the pace of the engine, and a little to read"


def test_where_the_engine_waits_for_the_readers_that_is_part_of_the_time_to_go() -> None:
    run = Progress(started=0.0, embedding_since=0.0, tokens=100_000, tokens_left=300_000.0)
    run.pace = Pace(busy_s=20.0, tokens_read=100_000)
    assert run.eta_at(100.0) == pytest.approx(300.0)


def test_documents_that_an_earlier_run_finished_are_not_bytes_that_this_one_read(shop: Workshop) -> None:
    for number in range(6):
        shop.write(f"{number}.txt", words(200, number))
    shop.write("slow.txt", UNFINISHED)
    stopped_half_way(shop)
    seen: list[tuple[int, int]] = []

    class Notes(Lines):
        def progress(self, progress: Progress, *, at_once: bool = False) -> None:
            seen.append((progress.bytes_read, progress.bytes_total))

    shop.write("slow.txt", words(20))
    shop.ingest(report=Notes())
    total = sum(path.stat().st_size for path in shop.docs.iterdir())
    assert seen[0][0] < total / 2 and seen[-1][0] == seen[-1][1] < total


def known_row(path: str, *, size: int, tokens: int) -> DocumentRow:
    return DocumentRow(
        "root", path, "", size, 0, 0, 0, "indexed", None, "", sha256="0", chunks=1, tokens=tokens, rows=1
    )


def test_of_known_files_the_tokens_of_last_time_count_and_the_share_that_had_to_be_embedded() -> None:
    base = documents.from_rows([known_row(f"{number:03}.txt", size=10, tokens=5_000) for number in range(100)])
    priors = list(last_seen_rows(last_seen(base, documents.MemberCounts(base))))
    listed = TaskList(last_seen(base, documents.MemberCounts(base)))
    tasks = [Task(Source("root", prior.path, "", prior.stat), prior) for prior in priors]
    for task in tasks:
        listed.add(task.source, task.prior)
    remaining = Remaining(listed, {})
    assert remaining.tokens == 500_000
    for task in tasks[:20]:
        remaining.note(task, to_embed=250)  # an edit each
    assert remaining.tokens == pytest.approx(80 * 250, rel=0.5)
    for task in tasks[20:]:
        remaining.note(task, to_embed=None)
    assert remaining.tokens == 0


def test_what_the_index_holds_of_a_kind_says_how_many_tokens_a_byte_it_has() -> None:
    base = documents.from_rows(
        [
            known_row("a/x.PDF", size=1_000_000, tokens=5_000),
            known_row("a.b/y.pdf", size=1_000_000, tokens=15_000),
            known_row("a.b/README", size=400_000, tokens=100_000),
            known_row("few.md", size=1_000, tokens=900),
        ]
    )
    assert ratios_of(base) == pytest.approx({".pdf": 0.01, "": 0.25})
    assert ratios_of(documents.empty()) == {}


def test_a_run_knows_at_its_end_that_nothing_is_left(shop: Workshop) -> None:
    """The progress that the run itself keeps, over new, edited, adopted and unreadable files."""
    for number in range(6):
        shop.write(f"{number}.txt", words(200, number))
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    assert last_progress(shop).tokens_left == pytest.approx(0, abs=0.01)
    shop.write("1.txt", words(200, 1) + "\n\n" + words(60, 9))
    shop.write("7.txt", words(200, 7))
    assert last_progress(shop).tokens_left == pytest.approx(0, abs=0.01)


def last_progress(shop: Workshop) -> Progress:
    class Keeps(Lines):
        kept = Progress()

        def progress(self, progress: Progress, *, at_once: bool = False) -> None:
            Keeps.kept = progress

    shop.ingest(report=Keeps())
    return Keeps.kept
