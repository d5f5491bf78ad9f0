"""Text -> the terms under which it is found, the same for a chunk and for a query.

In: text. Out: terms (folded words, whole compounds, n-grams of scripts without blanks between words), their 64-bit
hashes, and the spans of a text that a query's terms cover.
Not here: counting and scoring terms (postings.py, bm25.py), which rows hold a phrase (phrases.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from hashlib import blake2b

WORDS_VERSION = 1
"""Must be raised with every change that gives a text other terms: the indexes of words are then built again."""

PAIRS = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af"
"""Han, kana and Hangul, as a regex class: indexed by two characters."""
TRIPLES = "\u0e01-\u0e3e\u0e40-\u0e4e\u0e80-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
"""Thai, Lao, Burmese and Khmer: indexed by three characters."""
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
)
"""Marks that belong to a word, though Python's \\w does not know them."""
_SIGNS = "§¶$\u00a2-\u00a5\u0e3f\u20a0-\u20cf"
_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-") | {0x2019: "'"}
_WORD = f"(?:[^\\W_{PAIRS}{TRIPLES}]|[{_MARKS}])+"
_JOINT = r"(?:[-./_:@'&+#~\\]+|(?<=[0-9]),(?=[0-9]))"

_DROPPED = re.compile(
    "[\u00ad\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u200b-\u200f\u2060\ufeff]"
)
"""Accents of Latin, Greek and Cyrillic, points of Hebrew and Arabic, tatweel, and what has no width."""
_word = re.compile(_WORD)
_piece = re.compile(
    f"(?P<pairs>[{PAIRS}]+)|(?P<triples>[{TRIPLES}]+)|(?P<sign>[{_SIGNS}])"
    f"|(?P<compound>(?:(?<!\\w)[.#@](?=\\w))?{_WORD}(?:{_JOINT}{_WORD})*(?:\\+\\+|[+#](?!\\w))?)"
)


def fold(text: str) -> str:
    """Letters without case, width and accents; kana keep their voicing marks, Thai and Indic scripts all marks."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text.translate(_DASHES)).casefold())
    return unicodedata.normalize("NFC", _DROPPED.sub("", apart))


def terms(text: str) -> Iterator[str]:
    """Every term of a text, in its order, with repetitions."""
    for run in text.split():
        yield from run_terms(run)


def run_terms(run: str) -> Iterator[str]:
    """The terms of a run without white space: `AB-12.` gives ab, 12, ab-12."""
    folded = fold(run)
    if folded.isascii() and folded.isalnum():
        yield folded
        return
    for match in _piece.finditer(folded):
        piece = match.group()
        if match.lastgroup == "compound":
            yield from compound_terms(piece)
        else:
            yield from grams(piece, _SIZES[match.lastgroup or ""])


_SIZES = {"pairs": 2, "triples": 3, "sign": 1}


def compound_terms(piece: str) -> Iterator[str]:
    """The words of a compound, and the compound where it is more than one word."""
    words = _word.findall(piece)
    yield from words
    if words != [piece]:
        yield piece


def grams(run: str, size: int) -> Iterator[str]:
    """Every `size` characters in a row; a shorter run is one term."""
    for start in range(max(1, len(run) - size + 1)):
        yield run[start : start + size]


def pieces(folded: str) -> Iterator[tuple[str, str]]:
    """The pieces of a folded text, with their kinds: compound, pairs, triples, sign."""
    for match in _piece.finditer(folded):
        yield match.group(), match.lastgroup or ""


def words_of(compound: str) -> list[str]:
    return _word.findall(compound)


def term_hash(term: str) -> int:
    """64 bits: among ten million different terms two are equal with a chance of 1 in 370,000."""
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def spans(text: str, wanted: Collection[str]) -> list[tuple[int, int]]:
    """Half-open, ascending spans of `text` that the `wanted` terms cover, without overlaps."""
    found: list[tuple[int, int]] = []
    for match in _piece.finditer(text):
        for start, stop in _covered(match, wanted):
            if found and start <= found[-1][1]:
                found[-1] = (found[-1][0], max(stop, found[-1][1]))
            else:
                found.append((start, stop))
    return found


def _covered(match: re.Match[str], wanted: Collection[str]) -> Iterator[tuple[int, int]]:
    piece, start = match.group(), match.start()
    if fold(piece) in wanted:
        yield match.span()
    elif match.lastgroup == "compound":
        for word in _word.finditer(piece):
            if fold(word.group()) in wanted:
                yield start + word.start(), start + word.end()
    else:
        size = _SIZES[match.lastgroup or ""]
        for at in range(max(1, len(piece) - size + 1)):
            if fold(piece[at : at + size]) in wanted:
                yield start + at, start + min(len(piece), at + size)
