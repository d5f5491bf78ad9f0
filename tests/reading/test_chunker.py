"""chunker.py: limits, coverage, identity of the ids and locality, for four kinds of tokenizer."""

from __future__ import annotations

import random
import re
import statistics
import time
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_for_tests import TEXTS, metaspace, minilm, small_qwen, true_qwen

from embedcli.errors import UsageError
from embedcli.models.tokenizer import Tokens
from embedcli.reading.chunker import page_span, section_at, split
from embedcli.reading.together import Together
from embedcli.records import Chunk, Document

KINDS = ["minilm", "small_qwen", "prompted", "metaspace", "true_qwen"]
PARTS = [
    *TEXTS,
    "<|endoftext|>",
    "[CLS]",
    "<s>",
    "\n",
    "\n\n",
    " ",
    "\u3000",
    ".",
    "。",
    "👨‍👩‍👧‍👦👍🏽🏳️‍🌈",
    "กำลัง",
    "a" * 90,
]
Chosen = Callable[[str], Tokens]
texts = st.lists(st.tuples(st.sampled_from(PARTS), st.integers(1, 12)), max_size=14).map(
    lambda parts: unicodedata.normalize("NFC", "".join(part * count for part, count in parts))
)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Chosen:
    folder = tmp_path_factory.mktemp("tokenizers")
    by_kind = {
        "minilm": minilm(),
        "small_qwen": small_qwen(folder / "plain"),
        "prompted": small_qwen(folder / "prompted", prompt="query: "),
        "metaspace": metaspace(folder / "metaspace"),
        "true_qwen": true_qwen(),
    }

    def choose(kind: str) -> Tokens:
        tokens = by_kind[kind]
        if tokens is None:
            pytest.skip("EMBEDCLI_QWEN_TOKENIZER names no folder with a tokenizer.json")
        return tokens

    return choose


def chunks_of(text: str, tokens: Tokens, max_tokens: int, overlap: int) -> list[Chunk]:
    """The chunks, after a check of all that is promised of every chunk."""
    chunks = list(split(Document(text), tokens, max_tokens=max_tokens, overlap=overlap))
    position = 0
    for chunk in chunks:
        assert chunk.char_start <= chunk.core_start == position < chunk.char_end
        fed = tokens.row(tokens.whole(text[chunk.char_start : chunk.char_end]))
        assert fed.tolist() == list(chunk.token_ids)
        assert len(chunk.token_ids) <= max_tokens
        position = chunk.char_end
    assert position == len(text)
    return chunks


@pytest.mark.parametrize("kind", KINDS)
def test_cores_cover_the_text_and_ids_are_its_tokens_within_any_limit(kind: str, chosen: Chosen) -> None:
    tokens = chosen(kind)

    @settings(deadline=None, max_examples=25)
    @given(texts, st.one_of(st.integers(16, 80), st.integers(16, 32_768)), st.floats(0, 1))
    def holds(text: str, max_tokens: int, share: float) -> None:
        most = min(max_tokens // 4, max_tokens - tokens.overhead - 8)
        if most >= 0:
            chunks_of(text, tokens, max_tokens, int(share * most))

    holds()


def essay(paragraphs: int, seed: int) -> str:
    choose = random.Random(seed)
    words = [word for text in TEXTS for word in text.split()]
    return "\n\n".join(
        " ".join(choose.choice(words) for _ in range(choose.randrange(8, 60))) for _ in range(paragraphs)
    )


def test_a_paragraph_in_front_of_a_thousand_chunks_changes_at_most_five(chosen: Chosen) -> None:
    changed = []
    for seed in range(3):
        text = essay(1_600, seed)
        before = chunks_as_text(text, chosen("small_qwen"))
        after = chunks_as_text(essay(1, seed + 100) + "\n\n" + text, chosen("small_qwen"))
        assert len(before) >= 1_000
        changed.append(len(set(after) - set(before)))
    assert statistics.median(changed) <= 5


def chunks_as_text(text: str, tokens: Tokens) -> list[str]:
    chunks = split(Document(text), tokens, max_tokens=128, overlap=0)
    return [text[chunk.char_start : chunk.char_end] for chunk in chunks]


@pytest.mark.parametrize("text", ["灯台守船数", "ab9", "\n", " ", "\t \n", "👨‍👩‍👧‍👦", "a\u0301\u0302"])
@pytest.mark.parametrize("kind", ["minilm", "small_qwen", "metaspace"])
def test_a_stretch_without_safe_places_is_cut_and_stays_exact(kind: str, text: str, chosen: Chosen) -> None:
    chunks_of(unicodedata.normalize("NFC", text * (80_000 // len(text))), chosen(kind), 4_096, 64)


def test_random_han_longer_than_a_piece_crosses_its_seam_exactly(chosen: Chosen) -> None:
    choose = random.Random(7)
    chunks_of(
        "".join(choose.choice("灯塔看守人数着船只有一艘迟到") for _ in range(140_000)),
        chosen("small_qwen"),
        8_192,
        0,
    )


def test_an_overlap_moves_starts_but_no_core_when_the_budget_is_the_same(chosen: Chosen) -> None:
    tokens, text = chosen("small_qwen"), essay(60, 1)
    plain = chunks_of(text, tokens, 128, 0)
    overlapping = chunks_of(text, tokens, 160, 32)
    assert [chunk.core_start for chunk in plain] == [chunk.core_start for chunk in overlapping]
    assert all(chunk.char_start < chunk.core_start for chunk in overlapping[1:])


def test_overlap_reaches_back_in_a_text_without_blanks(chosen: Chosen) -> None:
    chunks = chunks_of("灯塔看守人数着船只" * 200, chosen("small_qwen"), 128, 32)
    assert statistics.mean(chunk.char_start < chunk.core_start for chunk in chunks[1:]) > 0.9


def test_cuts_prefer_heading_then_blank_line_then_line_then_sentence_then_word(chosen: Chosen) -> None:
    tokens = chosen("minilm")
    for mark in ("\n\n", "\n", ". ", " "):
        text = ("word " * 9 + "word" + mark) * 8
        ends = [text[: chunk.char_end] for chunk in chunks_of(text, tokens, 32, 0)[:-1]]
        assert all(end.endswith(mark.rstrip(" ") or "word") for end in ends), mark
    text = "word " * 18 + "\n\nword Head\n" + "word " * 30
    heading = text.index("Head")
    document = Document(text, sections=((heading, "Head"),))
    first = next(split(document, tokens, max_tokens=32, overlap=0))
    assert first.char_end == heading


WORDS = "pump valve seal water pressure motor handle tank filter cable "


def manual(*, marks: Callable[[str, int], str], seed: int = 1) -> Document:
    """Chapters whose heading stands right over that of their first part, in any kind of mark-up."""
    choose = random.Random(seed)
    text, sections = "", []
    for chapter in range(40):
        for level, name in ((2, f"Chapter {chapter}"), (3, f"Part {chapter}.1"), (3, f"Part {chapter}.2")):
            sections.append((len(text), name))
            text += marks(name, level)
            if level == 3:
                text += WORDS * choose.randrange(1, 9) + "end.\n\n"
    return Document(text, sections=tuple(sections))


MARKS: dict[str, Callable[[str, int], str]] = {
    "atx": lambda name, level: f"{'#' * level} {name}\n\n",
    "tight": lambda name, level: f"{'#' * level} {name}\n",
    "underlined": lambda name, level: f"{name}\n{'=-~'[level - 1] * len(name)}\n\n",
    "over and under": lambda name, level: f"{'=' * 12}\n{name}\n{'=' * 12}\n\n",
    "plain": lambda name, level: f"{name}\n\n\n",
}


@pytest.mark.parametrize("max_tokens", [72, 128, 256])
@pytest.mark.parametrize("kind", MARKS)
def test_no_chunk_ends_in_a_heading_or_within_one(kind: str, max_tokens: int, chosen: Chosen) -> None:
    document = manual(marks=MARKS[kind])
    for chunk in list(split(document, chosen("minilm"), max_tokens=max_tokens, overlap=0))[:-1]:
        last = max((offset for offset, _ in document.sections if offset < chunk.char_end), default=0)
        under = document.text[last : chunk.char_end]
        assert WORDS.split()[0] in under, under


def test_a_heading_longer_than_a_chunk_is_cut_like_any_text(chosen: Chosen) -> None:
    text = "".join(f"# heading {number}\n" for number in range(60)) + "text"
    sections = tuple((match.start(), "h") for match in re.finditer("#", text))
    chunks = list(split(Document(text, sections=sections), chosen("minilm"), max_tokens=24, overlap=0))
    assert [chunk.core_start for chunk in chunks[1:]] == [chunk.char_end for chunk in chunks[:-1]]
    assert all(len(chunk.token_ids) <= 24 for chunk in chunks)


TABLES = {
    "pipes": "| Part | Price |\n|------|------:|\n",
    "bare": "Part | Price\n--- | ---\n",
    "grid": "+------+-------+\n| Part | Price |\n+======+=======+\n",
    "org": "|------+-------|\n| Part | Price |\n|------+-------|\n",
}


@pytest.mark.parametrize("before", range(10, 60, 5))
@pytest.mark.parametrize("kind", TABLES)
def test_no_cut_parts_the_header_of_a_table_from_its_first_row(kind: str, before: int, chosen: Chosen) -> None:
    row = "pump | 12\n" if kind == "bare" else "| pump | 12 |\n"
    text = "seal\n" * before + "\n" + TABLES[kind] + row * 30
    header = text.index(TABLES[kind])
    for chunk in chunks_of(text, chosen("minilm"), 64, 0):
        assert not header < chunk.char_end <= header + len(TABLES[kind]), text[: chunk.char_end]


def test_rows_of_a_table_are_parted_even_where_each_has_a_line_under_it(chosen: Chosen) -> None:
    text = "| Part | Price |\n|------+-------|\n" + "| pump | 12 |\n|------+-------|\n" * 60
    assert max(len(chunk.token_ids) for chunk in chunks_of(text, chosen("minilm"), 128, 0)) > 64
    assert len(chunks_of(text, chosen("minilm"), 128, 0)) > 5


@pytest.mark.parametrize("hostile", ["|-", "|-\n", "a|b\n-|-\n", "+=+\n", "|\n+=+\n", "# a\n", "=\n"])
def test_time_is_linear_in_hostile_tables_and_headings(hostile: str) -> None:
    text = hostile * (300_000 // len(hostile))
    sections = tuple((place, "h") for place in range(0, len(text), len(hostile)))
    start_s = time.process_time()
    Together(Document(text, sections=sections)).spans(1_000, 2_000)
    assert time.process_time() - start_s < 30


def test_the_blank_between_two_chunks_belongs_to_the_second(chosen: Chosen) -> None:
    text = "seventeen ships were late " * 200
    assert all(text[chunk.core_start] == " " for chunk in chunks_of(text, chosen("small_qwen"), 64, 0)[1:])


def test_no_cut_parts_a_character_from_its_marks_and_joiners(chosen: Chosen) -> None:
    text = "👩\u200d🚀👍🏽❤\ufe0f" * 300
    for chunk in chunks_of(text, chosen("small_qwen"), 64, 0)[1:]:
        assert text[chunk.core_start] in "👩👍❤"


def test_an_empty_document_has_no_chunks(chosen: Chosen) -> None:
    assert list(split(Document(""), chosen("minilm"), max_tokens=64, overlap=0)) == []


def test_ids_are_an_array_of_uint32(chosen: Chosen) -> None:
    (chunk,) = split(Document("one"), chosen("minilm"), max_tokens=64, overlap=0)
    assert isinstance(chunk.token_ids, np.ndarray) and chunk.token_ids.dtype == np.uint32


@pytest.mark.parametrize(("max_tokens", "overlap"), [(9, 0), (16, 5), (64, -1), (128, 33)])
def test_limits_without_room_are_refused_before_the_first_chunk(max_tokens: int, overlap: int, chosen: Chosen) -> None:
    with pytest.raises(UsageError, match=str(max_tokens)):
        split(Document("text"), chosen("minilm"), max_tokens=max_tokens, overlap=overlap)


PAGED = Document("one\n\ntwo\n\nthree", pages=((1, 0), (3, 5), (4, 10)), sections=((5, "A"), (10, "A > B")))


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [(0, 15, (1, 4)), (0, 5, (1, 1)), (3, 8, (3, 3)), (5, 10, (3, 3)), (4, 12, (3, 4)), (3, 5, (1, 1))],
)
def test_pages_are_those_of_the_visible_text(start: int, end: int, pages: tuple[int, int]) -> None:
    assert page_span(PAGED, start, end) == pages


def test_a_document_without_pages_has_none() -> None:
    assert page_span(replace(PAGED, pages=()), 0, 15) == (None, None)


def test_section_is_the_one_in_force_at_the_first_visible_character() -> None:
    assert [section_at(PAGED, position) for position in (0, 3, 5, 9, 14)] == [
        None,
        "A",
        "A",
        "A > B",
        "A > B",
    ]
