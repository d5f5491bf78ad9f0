"""Right-to-left text: what pdfium turns round although it should not.

In: the characters of a page, or its text. Out: edits, or the mended text. Not here: anything else (text.py).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

from embedcli.reading.pdf.glyphs import Glyphs

_ARABIC_LETTERS = re.compile("[\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f\u08a0-\u08c7]{2,}")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_BRACKETS = {**dict(zip("()[]{}«»‹›", ")(][}{»«›‹", strict=True))}
_OPENING = "([{«‹"
_BRACKET = re.compile("[()\\[\\]{}«»‹›]")


def turned_ligatures(glyphs: Glyphs) -> Iterator[tuple[int, int, str]]:
    """One glyph that stands for several letters (lam-alef): pdfium turns them round with the rest of the line."""
    for run in _ARABIC_LETTERS.finditer(glyphs.text):
        origins = [glyphs.origin(index) for index in range(*run.span())]
        start = 0
        for end in range(1, len(origins) + 1):
            if end < len(origins) and origins[end] == origins[start]:
                continue
            letters = run[0][start:end]
            if len(letters) > 1 and not _is_in_order(letters):
                yield run.start() + start, run.start() + end, letters[::-1]
            start = end


def _is_in_order(letters: str) -> bool:
    """Whether these are the letters of a ligature of Unicode, in its order: those pdfium spells by itself, rightly."""
    return letters in _ligatures() and letters[::-1] not in _ligatures()


@functools.cache
def _ligatures() -> frozenset[str]:
    spelled = (unicodedata.normalize("NFKC", chr(code)) for code in (*range(0xFB50, 0xFE00), *range(0xFEF5, 0xFEFD)))
    return frozenset(letters for letters in spelled if len(letters) > 1)


def turned_brackets(text: str) -> str:
    """The page with brackets turned round where its producer had done so already, and pdfium once more.

    They then stand the wrong way about the words: `)word(`. The page's brackets vote, as one producer wrote it.
    """
    if text.isascii() or not _RIGHT_TO_LEFT.search(text):
        return text
    lines = text.split("\r\n")
    found = [_brackets_of(line) for line in lines]
    votes = sum(vote for brackets in found for _, vote in brackets)
    if votes >= 0:
        return text
    for number, brackets in enumerate(found):
        characters = list(lines[number])
        for index, _ in brackets:
            characters[index] = _BRACKETS[characters[index]]
        lines[number] = "".join(characters)
    return "\r\n".join(lines)


def _brackets_of(line: str) -> list[tuple[int, int]]:
    """Index of each bracket in right-to-left surroundings, and 1 where it embraces its word, -1 where it turns away."""
    if not _RIGHT_TO_LEFT.search(line):
        return []
    found = []
    for bracket in _BRACKET.finditer(line):
        before, behind = line[: bracket.start()], line[bracket.end() :]
        if _is_left_to_right(before, behind):
            continue
        space_before = not before or before[-1].isspace() or before[-1] in _BRACKETS
        space_behind = not behind or not behind[0].isalnum()
        vote = 0 if space_before == space_behind else 1 if (bracket[0] in _OPENING) == space_before else -1
        found.append((bracket.start(), vote))
    return found


def _is_left_to_right(before: str, behind: str) -> bool:
    """Between Latin words pdfium turns nothing round."""
    strong = [next((c for c in text if c.isalpha()), "") for text in (reversed(before), behind)]
    return all(letter and not _RIGHT_TO_LEFT.match(letter) for letter in strong)
