"""BM25 is that of one index, to the last bit, however its rows are cut into shards; checked against plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from embedcli.search import postings
from embedcli.search.bm25 import K1, B, Words
from embedcli.search.postings import Postings, build
from embedcli.search.sealed import Arrays
from embedcli.search.words import terms
from tests.workshop import words as made_up

QUERIES = ["aa be", "qu-12 aa aa", "zz no-such-word xy", "b c d e f g h i j"]


def corpus(count: int = 600) -> list[str]:
    """Texts of all lengths, none among them, over few words, so that many hold a word often."""
    chance = np.random.default_rng(5)
    known = [f"{a}{b}" for a in "abqxz" for b in "aeuyz"] + ["qu-12", "東京タワー", "b", "c"]
    return [" ".join(chance.choice(known, size)) for size in chance.integers(0, 60, count)]


def indexed(texts: Sequence[str], **options: int) -> Postings:
    return Postings(Arrays(build(texts, **options)))


def scores(texts: Sequence[str], cuts: Sequence[int], query: str, *, block_rows: int = 65_536) -> np.ndarray:
    bounds = [0, *sorted(cuts), len(texts)]
    parts = [texts[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    words = Words([indexed(part, block_rows=block_rows) for part in parts])
    return words.score(list(dict.fromkeys(terms(query)))).scores


def plain(texts: Sequence[str], query: str) -> tuple[list[float], float]:
    """BM25 as the books have it, and the most that the query can get."""
    documents = [Counter(terms(text)) for text in texts]
    average = sum(map(Counter.total, documents)) / len(documents)
    found, possible = [0.0] * len(texts), 0.0
    for term in dict.fromkeys(terms(query)):
        holding = sum(term in document for document in documents)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        possible += idf * (K1 + 1)
        for row, document in enumerate(documents):
            tf = document[term]
            found[row] += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * document.total() / average))
    return found, possible


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_those_of_plain_python(query: str) -> None:
    texts = corpus()
    expected, possible = plain(texts, query)
    words = Words([indexed(texts[:250]), indexed(texts[250:])])
    scored = words.score(list(dict.fromkeys(terms(query))))
    np.testing.assert_allclose(scored.scores, expected, rtol=1e-5, atol=1e-6)
    assert scored.possible == pytest.approx(possible)
    np.testing.assert_allclose(scored.coverage(np.arange(len(texts))), np.array(expected) / possible, atol=1e-6)


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_equal_to_the_last_bit_however_the_rows_are_cut(query: str) -> None:
    texts = corpus()
    whole = scores(texts, [], query)
    assert whole.any()
    chance = np.random.default_rng(1)
    for count in (1, 2, 7, 40):
        cuts = chance.integers(0, len(texts), count).tolist()
        np.testing.assert_array_equal(scores(texts, cuts, query), whole)
    np.testing.assert_array_equal(scores(texts, [100], query, block_rows=37), whole)


def test_scores_go_with_their_texts_when_the_rows_are_in_another_order() -> None:
    texts = corpus()
    order = np.random.default_rng(2).permutation(len(texts))
    shuffled = scores([texts[i] for i in order], [50, 300], QUERIES[1])
    np.testing.assert_array_equal(shuffled, scores(texts, [], QUERIES[1])[order])


def test_the_words_of_a_query_in_another_order_give_the_same_scores() -> None:
    words = Words([indexed(corpus())])
    forth, back = words.score(["aa", "be", "qu-12"]).scores, words.score(["qu-12", "be", "aa"]).scores
    np.testing.assert_array_equal(forth, back)


def test_a_text_without_words_and_a_shard_without_rows_score_nothing() -> None:
    words = Words([indexed([]), indexed(["", "aa"]), indexed([])])
    assert words.score(["aa"]).scores.tolist() == [0.0, pytest.approx(words.score(["aa"]).scores[1])]
    assert Words([]).score(["aa"]).scores.size == 0


def test_a_query_of_words_that_are_nowhere_has_no_coverage() -> None:
    words = Words([indexed(corpus())])
    scored = words.score(["nowhere", "neither"])
    assert not scored.scores.any() and scored.possible > 0


def test_rows_that_hold_every_word() -> None:
    texts = corpus()
    words = Words([indexed(texts[:100]), indexed(texts[100:], block_rows=64)])
    expected = [{"aa", "qu-12"} <= set(terms(text)) for text in texts]
    assert words.holding(["aa", "qu-12"]).tolist() == expected and any(expected) and not all(expected)
    assert words.holding([]).all()


def test_more_rows_than_sixteen_bits_number() -> None:
    """The last row of a shard of 65,537 is in its second block."""
    texts = ["aa"] * postings.BLOCK_ROWS + ["bb aa"]
    words = Words([indexed(texts)])
    assert np.flatnonzero(words.score(["bb"]).scores).tolist() == [postings.BLOCK_ROWS]
    assert words.score(["aa"]).scores.all()


def test_an_index_of_words_takes_less_than_210_bytes_a_chunk() -> None:
    """Of 80 words a chunk, drawn as in a language: the n-th word is n times as rare as the first."""
    chance = np.random.default_rng(0)
    known = np.array(made_up(20_000).replace(".", "").split())
    rare = 1 / np.arange(1, len(known) + 1)
    texts = [" ".join(drawn) for drawn in chance.choice(known, (4_000, 80), p=rare / rare.sum())]
    size = sum(array.nbytes for array in build(texts).values())
    assert size / len(texts) <= 210
