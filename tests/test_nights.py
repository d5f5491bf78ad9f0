"""Night after night: what is tried again, how often, and what waits for a change; what is published and kept meanwhile.

Not here: which fault gives which reason (test_hostile_sources.py, engines/test_feeder.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedcli.errors import EngineDied, StorageError
from embedcli.index import state
from embedcli.index.clearing import clear
from embedcli.index.generations import Index
from embedcli.index.state import read_seen
from embedcli.models import resolve
from embedcli.vault.disk import Disk
from embedcli.verbs.edits import forget, rollback
from embedcli.verbs.verify import verify
from tests.fake_engines import EngineWaits, FakeEngine
from tests.faults import DiskFull, KilledAt, ReaderRefuses
from tests.pdf_files import lines, pdf
from tests.published import edit_manifest
from tests.workshop import Workshop, follow, words

TRUNCATED = b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"


class EngineDiesOfZebras(FakeEngine):
    """Dies of any list with the word in it, and counts the deaths."""

    vocabulary = None
    deaths = 0

    def __init__(self, zebra: int, *, dim: int) -> None:
        super().__init__(dim=dim)
        self.zebra = zebra

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        if any(self.zebra in row for row in rows):
            type(self).deaths += 1
            raise EngineDied("the double died of a zebra")
        return super().embed(rows)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What opens an engine that dies of zebras."""
    monkeypatch.setattr(EngineDiesOfZebras, "deaths", 0)
    model = resolve.resolve("minilm", report=lambda _: None)
    zebra = Tokenizer.from_file(str(model.folder / "tokenizer.json")).token_to_id("zebra")
    assert zebra is not None
    return lambda _, settings, __: EngineDiesOfZebras(zebra, dim=settings.dim)


def night(shop: Workshop, engine: Any, **flags: Any) -> tuple[bool, int]:
    """Whether the zebra was tried, and the exit code."""
    before = EngineDiesOfZebras.deaths
    summary = shop.ingest(open_engine=engine, **flags)
    return EngineDiesOfZebras.deaths > before, summary.exit_code


def test_a_killer_of_engines_is_tried_on_three_more_nights_and_then_waits(shop: Workshop, engine: Any) -> None:
    shop.write("good.txt", words(30))
    shop.write("killer.txt", "A zebra stood at the pump.\n")
    nights = [night(shop, engine) for _ in range(6)]
    assert nights == [(True, 3), (True, 0), (True, 0), (True, 0), (False, 0), (False, 0)]
    row = shop.documents()["killer.txt"]
    assert (row["status"], row["reason"]) == ("failed", "engine_killed")
    assert {row["path"] for row in shop.rows()} == {"good.txt"}

    assert night(shop, engine, strict=True) == (False, 3), "what is known is told to who asks"
    assert night(shop, engine, retry_failed=True)[0]
    assert not night(shop, engine)[0]

    shop.write("killer.txt", "A zebra stood at the other pump.\n")
    assert night(shop, engine)[0], "a change is tried"
    shop.write("killer.txt", "A horse stood at the pump.\n")
    assert night(shop, engine) == (False, 0)
    assert shop.documents()["killer.txt"]["status"] == "indexed"


RETRY = ("timeout", "out_of_memory", "reader_crashed")
REFUSED_AT = {
    **dict.fromkeys(RETRY, [1, 2, 3, 4]),
    **dict.fromkeys(("permission", "io", "vanished", "changed_while_reading"), [1, 2, 3, 4, 5, 6]),
    **dict.fromkeys(("password", "damaged", "no_text", "garbled", "not_text", "empty"), [1]),
}
"""On which of six nights a source is tried that fails for a reason and never changes."""


def test_every_reason_has_its_nights(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcli.run.readers.ReadingWork", ReaderRefuses)
    shop.write("good.txt", words(30))
    for reason in REFUSED_AT:
        shop.write(f"{reason}.txt", words(10))
    tried: dict[str, list[int]] = {reason: [] for reason in REFUSED_AT}
    for number in range(1, 7):
        summary = shop.ingest()
        for name in tried_tonight(shop):
            tried[name.removesuffix(".txt")].append(number)
        assert summary.exit_code == (3 if number == 1 else 0), "known trouble is no news"
    assert tried == REFUSED_AT
    known = {mark.key[1]: mark.columns["attempts"] for mark in read_seen(shop.index / "state", 1)}
    assert {f"{reason}.txt": len(REFUSED_AT[reason]) for reason in RETRY} == {
        name: count for name, count in known.items() if name.removesuffix(".txt") in RETRY
    }
    shop.ingest(retry_failed=True)
    assert len(tried_tonight(shop)) == len(REFUSED_AT), "--retry-failed tries them all"


def tried_tonight(shop: Workshop) -> list[str]:
    """What the reader refused since the last call."""
    log = shop.docs.parent / "refused.log"
    names = log.read_text().split() if log.exists() else []
    log.write_text("")
    return names


def test_what_a_killed_run_refused_is_not_tried_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcli.run.readers.ReadingWork", ReaderRefuses)
    shop.write("good.txt", words(30))
    for reason in ("timeout", "no_text"):
        shop.write(f"{reason}.txt", words(10))
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"))
    assert tried_tonight(shop) == ["no_text.txt", "timeout.txt"]
    assert shop.ingest(shop.docs, dim=16, max_tokens=64).failures == {"no_text": 1, "timeout": 1}
    assert tried_tonight(shop) == []


def test_a_failed_chunk_leaves_the_last_whole_version_as_it_was(shop: Workshop, engine: Any) -> None:
    shop.write("mixed.txt", words(60) + "\n\n" + words(60, seed=1))
    night(shop, engine)
    before = shop.rows()
    shop.write("mixed.txt", words(60) + "\nA zebra stood at the pump.\n\n" + words(60, seed=1))
    assert night(shop, engine) == (True, 3)
    row = shop.documents()["mixed.txt"]
    assert (row["status"], row["reason"]) == ("stale", "engine_killed")
    assert shop.rows() == before
    shop.write("mixed.txt", words(60) + "\nA horse stood at the pump.\n\n" + words(60, seed=1))
    night(shop, engine)
    assert shop.documents()["mixed.txt"]["status"] == "indexed" and shop.rows() != before


def test_a_damaged_file_waits_for_a_change_and_is_news_once(shop: Workshop, engine: Any) -> None:
    shop.write("good.txt", words(30))
    shop.write("bad.pdf", TRUNCATED)
    first, second = shop.ingest(), shop.ingest()
    assert (first.exit_code, second.exit_code) == (3, 0)
    assert second.sources["unchanged"] == 2 and second.generation == first.generation
    assert shop.documents()["bad.pdf"]["attempts"] == 1
    shop.write("bad.pdf", TRUNCATED + b"%")
    third = shop.ingest()
    assert shop.documents()["bad.pdf"]["reason"] == "damaged" and third.sources["unchanged"] == 1


def test_a_sound_document_edited_into_a_killer_is_stale_and_tried_on_three_more_nights(
    shop: Workshop, engine: Any
) -> None:
    shop.write("good.txt", words(30))
    shop.write("killer.txt", "A horse stood at the pump.\n")
    assert night(shop, engine) == (False, 0)
    rows = shop.content()
    shop.write("killer.txt", "A zebra stood at the pump.\n")
    nights = [night(shop, engine) for _ in range(6)]
    assert nights == [(True, 3), (True, 0), (True, 0), (True, 0), (False, 0), (False, 0)]
    assert shop.documents()["killer.txt"]["status"] == "stale" and shop.content() == rows
    assert night(shop, engine, retry_failed=True)[0]
    shop.write("killer.txt", "A zebra stood at the other pump.\n")
    assert [night(shop, engine)[0] for _ in range(2)] == [True, True], "a change begins the count anew"
    shop.write("killer.txt", "A horse stood at the pump.\n")
    assert night(shop, engine) == (False, 0)
    assert shop.documents()["killer.txt"]["status"] == "indexed" and shop.content() == rows


def test_a_sound_document_replaced_by_a_damaged_one_is_not_read_every_night(shop: Workshop, engine: Any) -> None:
    shop.write("a.pdf", "in fact a text\n")
    shop.write("b.txt", "in fact a text\n")
    shop.ingest()
    shop.write("b.txt", TRUNCATED)
    first, second = shop.ingest(), shop.ingest()
    assert (first.sources["changed"], first.sources["stale"], first.exit_code) == (1, 1, 3)
    assert (second.sources["unchanged"], second.exit_code) == (2, 0)
    assert "2 unchanged, nothing to do" in shop.report.said


def test_what_is_mended_counts_as_changed(shop: Workshop, engine: Any) -> None:
    shop.write("good.txt", words(30))
    shop.write("bad.pdf", TRUNCATED)
    shop.write("empty.txt", b"")
    assert shop.ingest().sources["new"] == 3
    shop.write("bad.pdf", pdf(lines(b"now a good one")))
    shop.write("empty.txt", "no more\n")
    summary = shop.ingest()
    assert (summary.sources["changed"], summary.sources["unchanged"]) == (2, 1)


def test_a_partial_document_keeps_its_sound_chunks_while_the_killer_is_tried(shop: Workshop, engine: Any) -> None:
    shop.write("mixed.txt", words(60) + "\nA zebra stood at the pump.\n\n" + words(60, seed=1))
    nights = [night(shop, engine) for _ in range(5)]
    assert nights == [(True, 3), (True, 0), (True, 0), (True, 0), (False, 0)]
    row = shop.documents()["mixed.txt"]
    assert (row["status"], row["reason"]) == ("partial", "engine_killed")
    assert row["rows"] == row["chunks"] - 1 == len(shop.rows()) > 1


# ---- what is published, and what is kept


Open = Callable[[Any, Any, str], EngineWaits]


def slowly(_: object, settings: Any, __: str) -> EngineWaits:
    def after_a_while(_: int) -> bool:
        time.sleep(0.05)
        return True

    return EngineWaits(dim=settings.dim, may=after_a_while)


def no_faster_than_it_publishes(shop: Workshop) -> Open:
    """Opens engines that answer two more rows for each generation that is there, and at first one."""

    def may(answered: int) -> bool:
        return answered <= 2 * len(list(shop.index.glob("generations/" + "[0-9]" * 6)))

    return lambda _, settings, __: EngineWaits(dim=settings.dim, may=may)


def of_one_chunk_each(shop: Workshop, count: int) -> None:
    for number in range(count):
        shop.write(f"{number}.txt", words(12, number))


def manifests(shop: Workshop) -> list[tuple[int, bool, int]]:
    """Number, complete, sources of each generation on disk."""
    opened = Index(shop.index, disk=Disk())
    found = [opened.read(number) for number in opened.numbers()]
    return [(one.number, one.complete, one.counts["sources"]) for one in found]


def test_a_first_run_publishes_what_is_whole_so_far_and_the_rest_when_it_is_done(shop: Workshop) -> None:
    of_one_chunk_each(shop, 8)
    engine = no_faster_than_it_publishes(shop)
    shop.ingest(open_engine=engine, publish_every_s=0.01, checkpoint_every_s=0.0)
    found = manifests(shop)
    assert [complete for _, complete, _ in found] == [*[False] * (len(found) - 1), True] and len(found) > 2
    sources = [count for _, _, count in found]
    assert sources == sorted(sources) and 0 < sources[0] < sources[-1] == 8
    assert follow(shop.index) == shop.ids()
    assert {row["changed_in"] for row in shop.rows()} <= {number for number, _, _ in found}
    assert verify(Index(shop.index, disk=Disk())).damage == []


def test_a_killed_first_run_that_had_published_goes_on_from_what_it_had(shop: Workshop) -> None:
    of_one_chunk_each(shop, 8)
    engine = no_faster_than_it_publishes(shop)
    with pytest.raises(KeyboardInterrupt):
        shop.ingest(open_engine=engine, disk=KilledAt("after swap", 2), publish_every_s=0.01, checkpoint_every_s=0.0)
    assert {complete for _, complete, _ in manifests(shop)} == {False}
    published = manifests(shop)[-1][2]
    summary = shop.ingest()
    assert summary.complete and summary.generation == 3 and published >= 2
    assert summary.chunks["total"] == 8 and summary.chunks["embedded"] <= 8 - published
    assert follow(shop.index) == shop.ids() and len(shop.documents()) == 8
    assert verify(Index(shop.index, disk=Disk())).damage == []


def test_as_many_generations_are_kept_as_asked_and_those_of_the_last_hour(shop: Workshop) -> None:
    shop.write("first.txt", words(30))
    for number in range(4):
        shop.write("night.txt", words(30, number))
        shop.ingest(keep_generations=3)
        for path in (shop.index / "generations").iterdir():
            os.utime(path, (1, 1))
    shop.write("night.txt", words(30, 9))
    shop.ingest(keep_generations=3)
    assert [number for number, _, _ in manifests(shop)] == [3, 4, 5]
    for path in (shop.index / "generations").iterdir():
        os.utime(path, (1, 1))
    shop.write("night.txt", words(30, 10))
    shop.ingest(keep_generations=1)
    assert [number for number, _, _ in manifests(shop)] == [5, 6], "one is kept, and what a reader may still read"


def test_a_killed_rebuild_is_continued_by_a_plain_run(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(100, number))
    shop.ingest()
    before = shop.rows()
    with pytest.raises(StorageError):
        shop.ingest(rebuild=True, max_tokens=32, disk=DiskFull("N.tmp/documents.parquet"), checkpoint_every_s=0.0)
    assert shop.rows() == before, "readers keep the old one"
    embedded = shop.embedded
    summary = shop.ingest()
    assert summary.generation == 2 and summary.chunks["embedded"] == 0
    assert shop.embedded == embedded
    assert max(row["token_count"] for row in shop.rows()) <= 32
    assert follow(shop.index) == shop.ids()


def test_what_a_killed_run_embedded_says_that_it_changed_in_the_generation_that_published_it(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(100, number))
    for disk in (DiskFull("N.tmp/documents.parquet"), KilledAt("before swap")):
        with pytest.raises((StorageError, KeyboardInterrupt)):
            shop.ingest(disk=disk, checkpoint_every_s=0.0)
    summary = shop.ingest(dim=None, max_tokens=None)
    assert {row["changed_in"] for row in shop.rows()} == {summary.generation} == {1}


def test_vectors_of_a_killed_run_are_used_under_another_number_too(shop: Workshop) -> None:
    """A verb took the number meanwhile: rows that bear it cannot be published as they are."""
    shop.write("a.txt", words(100))
    shop.write("../more/b.txt", words(100, 1))
    shop.ingest(shop.docs, shop.docs.parent / "more")
    shop.write("a.txt", words(100, 2))
    with pytest.raises(StorageError):
        shop.ingest(disk=DiskFull("N.tmp/documents.parquet"), checkpoint_every_s=0.0)
    embedded = shop.embedded
    opened = Index(shop.index, disk=Disk())
    clear(opened, keep=2)
    forget.forget(opened, str(shop.docs.parent / "more"), warn=pytest.fail)
    rollback.rollback(opened, warn=pytest.fail)
    summary = shop.ingest()
    assert summary.generation == 4 and shop.embedded == embedded
    assert {row["changed_in"] for row in shop.rows() if row["path"] == "a.txt"} == {4}


def test_documents_of_a_damaged_shard_are_read_once_and_published_together(shop: Workshop) -> None:
    for number in range(6):
        shop.write(f"{number}.txt", words(100, number))
    shop.ingest()
    edit_manifest(shop, lambda data: data.update(complete=False))  # as after a first run whose time was over
    (shard,) = shop.index.glob("current/vectors/*.parquet")
    data = bytearray(shard.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    shard.write_bytes(data)
    state.note_damaged(shop.index / "state", [shard.stem], Disk())
    summary = shop.ingest(open_engine=slowly, publish_every_s=0.01, checkpoint_every_s=0.0)
    assert (summary.exit_code, summary.complete) == (0, True)
    assert verify(Index(shop.index, disk=Disk())).damage == [] and len(shop.documents()) == 6
    assert shop.ingest().idle
