"""INDEX.md's rules of retry, night after night: what is tried again, how often, and what waits for a change.

Not here: which fault gives which reason (test_hostile_sources.py, test_feeding.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedcli import models
from embedcli.errors import EngineDied
from tests.engines import FakeEngine
from tests.pdf_files import lines, pdf
from tests.workshop import Workshop, words

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
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What opens an engine that dies of zebras."""
    monkeypatch.setattr(EngineDiesOfZebras, "deaths", 0)
    model = models.resolve("minilm", report=lambda _: None)
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
