"""Our own questions, asked of MiniLM's own index: codes and words are found as written, the rest by what it means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from embedcli.search import searcher
from embedcli.search.searcher import Searcher
from tests.bench_search import opened_questions, right
from tests.questions.questions import QUESTIONS, is_right, write_documents


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return opened_questions(tmp_path_factory.mktemp("questions"))


def test_each_question_has_one_right_passage(tmp_path: Path) -> None:
    write_documents(tmp_path)
    passages = [path.read_text() for path in tmp_path.iterdir()]
    assert [sum(is_right(question, passage) for passage in passages) for question in QUESTIONS] == [1] * 80
    assert Counter(question.kind for question in QUESTIONS) == {"exact": 30, "paraphrase": 30, "mixed": 20}


def test_the_first_hit_of_hybrid_is_right_for_codes_and_for_paraphrases(finder: Searcher) -> None:
    counts = right(finder, "hybrid")
    assert counts["exact"] >= 28 and counts["paraphrase"] >= 24 and counts["exact"] + counts["paraphrase"] >= 50
    assert counts["mixed"] >= 18


def test_neither_half_alone_is_as_good(finder: Searcher) -> None:
    """Else the questions would not tell a good fusion from none."""
    assert right(finder, "vector")["exact"] <= 24 and right(finder, "words")["paraphrase"] <= 12


def test_a_model_whose_range_of_cosines_is_not_known_is_fused_by_rank(
    finder: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searcher, "cosine_share", lambda _: None)
    counts = right(finder, "hybrid")
    assert counts["exact"] >= 28 and counts["paraphrase"] >= 24
    assert all(0 < hit.score <= 1 for hit in finder.search(QUESTIONS[0].text).hits)
