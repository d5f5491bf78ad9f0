"""Right-to-left text: what pdfium turns round although it should not, and what it does not although it should.

In: the characters of a page with their places. Out: edits, or the text with its mixed lines in the order in which they
are read. Not here: anything else (text.py).

pdfium cuts a line where its direction changes and turns each right-to-left part round, its brackets too. A number
after a Latin word, a bracket between two directions: these it puts in the wrong part. So a line of both directions is
put together anew from left to right, as it is drawn, and from that as the Unicode Bidirectional Algorithm (UAX 9) would
have read it, bracket pairs included (rule N0). Brackets have the code that the producer gave them, which is that of
their shape or that of their meaning: the page votes.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

from embedcli.reading.pdf.broken import blanks, lines_of, looks_broken, rows
from embedcli.reading.pdf.glyphs import Glyphs

_ARABIC_LETTERS = re.compile("[\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f\u08a0-\u08c7]{2,}")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_PAIRS = "()[]{}«»‹›<>≤≥"
_MIRRORED = {one: other for a, b in zip(_PAIRS[::2], _PAIRS[1::2], strict=True) for one, other in ((a, b), (b, a))}
_BRACKETS = "()[]{}"
"""Those that UAX 9 takes in pairs."""
_COMPARING = "<>", "≤≥"
"""Those that are no brackets."""
_MIXED = re.compile(rf"[{re.escape(_PAIRS)}]|[^\W\d_\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
"""What a line of right-to-left text holds if its order may be wrong: a bracket, or a letter of the other direction."""

Direction = Literal["L", "R"]


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


# ---- lines of both directions


@dataclass
class _Token:
    """What is drawn at one place: a character with its marks, a ligature, a number.

    `kind`: L or R for a letter of that direction, E for a number, N for all else. `code`: of a character that is
    mirrored in right-to-left text, as the producer gave it.
    """

    text: str
    at: float
    kind: str
    code: str = ""
    partner: int = -1


Meaning = Literal["shape", "use", "other"]
"""What a page's codes of mirrored characters are: that of what is drawn; that of how it is used, which in right-to-left
text is the other one of its pair; or the other one wherever it is used, for a font has one code for a glyph, that of
its first use."""
_TURNED: dict[Meaning, str] = {"shape": "R", "use": "", "other": "L"}
"""The direction of the text in which the code is not what is meant, but the other one of its pair."""


@dataclass
class _Line:
    """A line in the order in which it is read; `levels`: the direction in which each token is."""

    tokens: list[_Token] = field(default_factory=list)
    levels: list[Direction] = field(default_factory=list)

    def text(self, meanings: Mapping[str, Meaning]) -> str:
        """`meanings`: of each mirrored character."""
        return "".join(
            token.text if not token.code
            else _MIRRORED[token.code] if level == _TURNED[meanings[token.code]]
            else token.code
            for token, level in zip(self.tokens, self.levels, strict=True)
        )  # fmt: skip


class _Row(NamedTuple):
    """What stands on one line of the page: mostly a single line of pdfium's, as indices."""

    parts: Sequence[Sequence[int]]
    blanks: Sequence[float] = ()
    """Where between characters of different or the same part."""


def in_reading_order(glyphs: Glyphs, pieces: Sequence[str]) -> str:
    """The text of a page, of which `pieces` has what stands for each character, with its mixed lines mended."""
    lines = [_Row([line]) for line in lines_of(pieces)]
    if looks_broken(glyphs):
        lines = [_Row([part.inked for part in row], list(blanks(row))) for row in rows(glyphs, lines_of(pieces))]
    texts = ["".join(pieces[index] for part in line.parts for index in part) for line in lines]
    is_mixed = [
        len(line.parts) > 1 or bool(_RIGHT_TO_LEFT.search(text) and _MIXED.search(text))
        for line, text in zip(lines, texts, strict=True)
    ]
    if not any(is_mixed):
        return "\r\n".join(texts)
    page_is_right = _is_right("".join(texts))
    mended = {
        number: _mended(glyphs, pieces, line, page_is_right=page_is_right)
        for number, line in enumerate(lines)
        if is_mixed[number]
    }
    meanings = _meanings(list(mended.values()))
    return "\r\n".join(mended[number].text(meanings) if number in mended else text for number, text in enumerate(texts))


def _is_right(text: str) -> bool:
    """Whether as many letters are read from right to left as from left to right, or more."""
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(bool(_RIGHT_TO_LEFT.match(letter)) for letter in letters) >= len(letters)


def _mended(glyphs: Glyphs, pieces: Sequence[str], line: _Row, *, page_is_right: bool) -> _Line:
    tokens = [token for part in line.parts for token in _tokens(glyphs, pieces, part)]
    tokens += [_Token(" ", at, "N") for at in line.blanks]
    parts = [kind for kind, _ in groupby(token.kind for token in tokens if token.kind in "LR")]
    base: Direction = "R" if page_is_right or parts.count("R") > parts.count("L") else "L"
    drawn = _with_numbers(sorted(tokens, key=lambda token: token.at))
    _pair(drawn)
    return _read(drawn, base)


def _kind(character: str) -> str:
    found = unicodedata.bidirectional(character)
    return {"L": "L", "R": "R", "AL": "R", "EN": "E", "AN": "E"}.get(found, "N")


def _tokens(glyphs: Glyphs, pieces: Sequence[str], line: Sequence[int]) -> list[_Token]:
    """In pdfium's order, which tells of each mirrored character whether pdfium has turned it round."""
    tokens: list[_Token] = []
    kinds = [_kind(pieces[index][0]) for index in line]
    parts = [kind for kind, _ in groupby(kinds)]
    turns = parts.count("R") > parts.count("L")
    for index, kind in zip(line, kinds, strict=True):
        turns = turns if kind in "EN" else kind == "R"
        piece, x, y = pieces[index], *glyphs.origin(index)
        at = glyphs.turned(x, y, x, y).start
        is_mark = unicodedata.category(piece[0])[0] == "M"
        if tokens and (is_mark or (kind == "R" == tokens[-1].kind and at == tokens[-1].at)):
            tokens[-1].text += piece
        else:
            code = (_MIRRORED[piece] if turns else piece) if piece in _MIRRORED else ""
            tokens.append(_Token(piece, at, kind, code))
    return tokens


def _with_numbers(drawn: Sequence[_Token]) -> list[_Token]:
    """Digits that stand together, with the single signs between them, as one token."""
    tokens: list[_Token] = []
    for position, token in enumerate(drawn):
        last = tokens[-1] if tokens else None
        behind = drawn[position + 1].kind if position + 1 < len(drawn) else ""
        is_sign = token.text in _SIGNS and behind == "E"
        if last is not None and last.kind == "E" and (is_sign or token.kind == "E"):
            tokens[-1] = _Token(last.text + token.text, last.at, "E")
        else:
            tokens.append(token)
    return tokens


_SIGNS = ".,:/\u00a0\u066b\u066c"
"""Single ones between digits belong to the number (rule W4)."""


def _pair(drawn: Sequence[_Token]) -> None:
    """Tell each bracket its partner. Which of two is the opening one is not known yet, so they only have to differ."""
    waiting: list[int] = []
    for position, token in enumerate(drawn):
        if not token.code or token.code not in _BRACKETS:
            continue
        if waiting and drawn[waiting[-1]].code == _MIRRORED[token.code]:
            token.partner = waiting.pop()
            drawn[token.partner].partner = position
        else:
            waiting.append(position)


def _read(drawn: list[_Token], base: Direction) -> _Line:
    """Tokens as they are drawn from left to right, in the order in which they are read where the line is in direction
    `base`."""
    other: Direction = "L" if base == "R" else "R"
    if other == "R":  # from here on parts of the other direction are read from the first to the last
        drawn = drawn[::-1]
        for token in drawn:
            token.partner = len(drawn) - 1 - token.partner if token.partner >= 0 else -1
    line = _Line()
    end = len(drawn)
    starts = dict(_parts(drawn, base, other))
    position = 0
    parts: list[tuple[Sequence[_Token], Direction]] = []
    while position < end:
        stop = starts.get(position, position)
        parts.append((drawn[position : stop + 1], other if position in starts else base))
        position = stop + 1
    for tokens, direction in reversed(parts):
        line.tokens += tokens
        line.levels += [direction] * len(tokens)
    return line


def _parts(drawn: Sequence[_Token], base: Direction, other: Direction) -> Iterator[tuple[int, int]]:
    """First and last token of each part in the other direction: from a letter to a letter, or to a number where these
    are Latin; and to the end of a pair of brackets that follows a letter and holds none of the line's own direction
    (rules W7, N0, N1)."""
    position = 0
    while position < len(drawn):
        if drawn[position].kind != other:
            position += 1
            continue
        last = reached = position
        while reached + 1 < len(drawn) and drawn[reached + 1].kind != base:
            reached += 1
            token = drawn[reached]
            if token.kind == other or token.kind == "E" and other == "L":
                last = reached
            elif token.partner > reached:
                inside = [one.kind for one in drawn[reached + 1 : token.partner]]
                if base in inside:
                    break
                reached = token.partner
                last = reached if {other, "E"} & set(inside) else last
        yield position, last
        position = last + 1


def _meanings(lines: Sequence[_Line]) -> dict[str, Meaning]:
    """What the codes of the page's mirrored characters are: what makes the most pairs of them, or as many, and more of
    them embrace their word. What does not tell this of itself is as the others are."""
    there = {token.code for line in lines for token in line.tokens}
    pairs = [pair for pair in map("".join, zip(_PAIRS[::2], _PAIRS[1::2], strict=True)) if there & set(pair)]
    found: dict[str, Meaning] = {}
    goodness: dict[Meaning, list[tuple[int, int]]] = {}
    for meaning in _TURNED:
        texts = [line.text(dict.fromkeys(_MIRRORED, meaning)) for line in lines]
        goodness[meaning] = [_goodness(texts, pair) for pair in pairs]
    of_all = {meaning: tuple(map(sum, zip(*each, strict=True))) for meaning, each in goodness.items()}
    for number, pair in enumerate(pairs):
        found |= dict.fromkeys(pair, max(_TURNED, key=lambda meaning: (goodness[meaning][number], of_all[meaning])))
    return found


def _goodness(lines: Iterable[str], pair: str) -> tuple[int, int]:
    """How many brackets of this pair have a partner; and of those between a blank and a word, how many more embrace the
    word than turn away from it."""
    found = [_of_line(line, pair) for line in lines if pair[0] in line or pair[1] in line]
    return sum(paired for paired, _ in found), sum(embracing for _, embracing in found)


def _of_line(text: str, pair: str) -> tuple[int, int]:
    if pair in _COMPARING:
        return 0, 0
    open_ones = paired = embracing = 0
    for bracket in re.finditer(f"[{re.escape(pair)}]", text):
        opens, before, behind = bracket[0] == pair[0], text[: bracket.start()][-1:], text[bracket.end() :][:1]
        paired += 2 if not opens and open_ones else 0
        open_ones = open_ones + 1 if opens else max(0, open_ones - 1)
        space_before = not before or before.isspace() or before in _MIRRORED
        space_behind = not behind or not behind.isalnum()
        if space_before != space_behind:
            embracing += 1 if opens == space_before else -1
    return paired, embracing
