"""The index of words, however it is cut and sorted: for each term the rows that hold it, as counted text by text."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from embedcli.index.tables import gathered
from embedcli.search import postings
from embedcli.search.postings import Builder, Postings, build
from embedcli.search.sealed import Arrays
from embedcli.search.words import term_hash, terms

SMALL = {"PART_BYTES": 50, "SORTED_TERMS": 8, "SORTED_RANKS": 3, "MOST_REMEMBERED": 4}
"""What is bounded for the memory's sake, so small that each bound is met."""


def texts_of(count: int, *, words: int = 60, seed: int = 0) -> list[str]:
    chance = np.random.default_rng(seed)
    drawn = (chance.zipf(1.3, chance.integers(0, 12)) % words for _ in range(count))
    return [" ".join(f"Wort-{number}" for number in numbers.tolist()) for numbers in drawn]


def counted(texts: list[str]) -> dict[int, dict[int, int]]:
    """By the hash of each term: how often each row has it."""
    found: dict[int, dict[int, int]] = {}
    for row, text in enumerate(texts):
        for term, count in Counter(terms(text)).items():
            found.setdefault(term_hash(term), {})[row] = min(count, postings.MOST_OFTEN)
    return found


def read_back(arrays: dict[str, np.ndarray]) -> dict[int, dict[int, int]]:
    words = Postings(Arrays(arrays))
    found: dict[int, dict[int, int]] = {}
    for term in np.unique(arrays["terms"]).tolist():
        rows = found.setdefault(term, {})
        for posting in words.of(term):
            rows |= {posting.first + row: 1 for row in posting.once.tolist()}
            rows |= dict(zip((posting.first + posting.more.astype(int)).tolist(), posting.often.tolist(), strict=True))
    return found


@pytest.mark.parametrize("block_rows", [1, 37, 1 << 16])
def test_the_rows_of_every_term_are_those_that_hold_it(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*texts_of(200), "", "often " * 300]
    at_once = build(texts, block_rows=block_rows)
    assert read_back(at_once) == counted(texts)
    for name, bound in SMALL.items():
        monkeypatch.setattr(postings, name, bound)
    in_parts = build(texts, block_rows=block_rows)
    assert in_parts.keys() == at_once.keys()
    for name, array in at_once.items():
        np.testing.assert_array_equal(in_parts[name], array, strict=True)


def test_texts_are_split_where_those_of_a_query_are() -> None:
    """At every white space of Unicode, and nowhere else."""
    texts = [f"a{chr(code)}b" for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    apart = pc.list_value_length(pc.utf8_split_whitespace(pa.array(texts))).to_pylist()
    assert apart == [len(text.split()) for text in texts]


def test_a_row_without_text_has_no_terms() -> None:
    builder = Builder()
    for texts in (["one two", None, " two\ttwo "], [None], []):
        builder.add(pa.array([None, *texts, None], pa.string())[1:-1])
    arrays = builder.arrays()
    assert read_back(arrays) == counted(["one two", "", "two two", ""])
    assert arrays["lengths"].tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""]])
def test_texts_without_words_have_rows_and_no_terms(texts: list[str]) -> None:
    arrays = build(texts)
    assert Postings(Arrays(arrays)).rows == len(texts) and not arrays["terms"].size
    assert arrays["once_starts"].tolist() == arrays["more_starts"].tolist() == [0]


def test_a_block_of_too_many_different_terms_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "BLOCK_DISTINCT", 30)
    monkeypatch.setattr(postings, "PART_BYTES", 1)
    texts = texts_of(300, words=200)
    arrays = build(texts)
    sizes = [after[1] - before[1] for before, after in pairwise(arrays["blocks"].tolist())]
    assert len(sizes) > 3 and all(size >= 30 for size in sizes[:-1]) and max(sizes) < 30 + 2 * 12
    assert read_back(arrays) == counted(texts)


def test_of_a_block_four_bytes_a_term_are_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what is sorted at once, and what is not in a file yet."""
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr(postings, "SORTED_TERMS", 1 << 16)
    text = " ".join(f"w{number}" for number in range(100))
    tracemalloc.start()
    builder = Builder(folder=tmp_path)
    for _ in range(20):
        builder.add(pa.array([text] * 1_000))
    arrays = builder.arrays()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert arrays["once"].size == 2_000_000
    assert most < 2_000_000 * 6 + 8_000_000
