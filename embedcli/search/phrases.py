"""Phrases in quotes: which rows may hold one, by its words, and which do, by their text.

In: a phrase. Out: the terms that every row with the phrase has, and a pattern that its folded text matches.
Not here: reading texts (passages.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from embedcli.search.words import fold, grams, pieces, words_of

_SIZES = {"pairs": 2, "triples": 3}


def flat(text: str) -> str:
    """Folded, with single blanks: what phrases are compared in."""
    return " ".join(fold(text).split())


def required_terms(phrase: str) -> set[str]:
    """Terms of every text with the phrase. What is shorter than an n-gram may be part of a longer run: it requires
    nothing."""
    found: set[str] = set()
    for piece, kind in pieces(fold(phrase)):
        if kind == "compound":
            found.update(words_of(piece))
        elif kind == "sign":
            found.add(piece)
        elif len(piece) >= _SIZES[kind]:
            found.update(grams(piece, _SIZES[kind]))
    return found


def short_runs(text: str) -> tuple[str, ...]:
    """The words of a query of which each is shorter than an n-gram of its script, as a Chinese word of one character
    may be: no term finds them inside longer runs, so they are looked for as phrases. Else none."""
    found = list(pieces(fold(text)))
    is_short = all(kind in _SIZES for _, kind in found) and not required_terms(text)
    return tuple(piece for piece, _ in found) if is_short else ()


class Phrases:
    """Whole words only: `"art 5"` is not in `part 57`."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self.terms = set().union(*map(required_terms, phrases))
        self._patterns = [_pattern(phrase) for phrase in phrases]

    def are_in(self, text: str) -> bool:
        folded = flat(text)
        return all(pattern.search(folded) for pattern in self._patterns)


def _pattern(phrase: str) -> re.Pattern[str]:
    folded = flat(phrase)
    kinds = [kind for _, kind in pieces(folded)]
    before = r"(?<![^\W_])" if kinds and kinds[0] == "compound" and folded[0].isalnum() else ""
    after = r"(?![^\W_])" if kinds and kinds[-1] == "compound" and folded[-1].isalnum() else ""
    return re.compile(before + re.escape(folded) + after)
