"""Hyphens at line ends of a PDF: which go with the break, and which stay.

In: pages as the PDF reader gave them, where U+0002 stands for a hyphen and the line end behind it. Out: pages with
words put together again. Not here: all other clean-up (clean.py).

A hyphen goes only where it broke a word. It stays before a capital or a digit (COVID-19, Smith-Jones), behind a single
letter (T-shirt), within an address, and before a conjunction, there with a blank (pre- and post-war). The document's
own spelling elsewhere wins over these rules, as it knows its words best.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

CUT = "\x02"
"""A hyphen at a line end together with that line end."""

LONGEST_PART = 100
"""Characters looked at on each side of a cut: longer ones are no words, and time stays linear."""

MOST_SEARCHED = 30
"""Words: to search a page for more takes longer than to go through all words that it has."""

_CONJUNCTIONS = frozenset(
    ("and", "or", "nor", "und", "oder", "bzw", "sowie", "bis", "als", "en", "of", "och", "eller", "og", "és", "vagy")
    + ("et", "ou")
)
"""Not `a`, `y`, `to` or `ja`, which end words as well."""

_LETTERS = r"[^\W\d_]"
_CUT = re.compile(CUT)
_DRAWN_CUT = re.compile(r"(?<=\w)[\u2010\u2011\xad][ \t]*+(?:\r\n|\r|\n)(?=\w)")
_HYPHEN = re.compile(f"-(?=({_LETTERS}{{1,100}}+))")
_WORD = re.compile(f"{_LETTERS}++")
_LETTERS_RUN = re.compile(f"{_LETTERS}*+")
_RUN = re.compile(r"\S*+")
_MAIL = re.compile(r"@[\w.-]*\.[a-z]{2}")
_FILE_NAME = re.compile(r"^[(\[\"'<]?~?/|[a-z]\.[a-z]{2}|--")
"""A path, a name with a suffix, an option."""


@dataclass(frozen=True, slots=True)
class Spellings:
    """How a document spells, elsewhere, the words that line ends cut: lower case, `first-second`.

    `hyphenated` are never spelled in one word, `joined` are.
    """

    hyphenated: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()


NO_SPELLINGS = Spellings()


def mark_cuts(text: str) -> str:
    """The text with U+0002 also for those hyphens at line ends that pdfium leaves; any other U+00AD is a hyphen.

    Nobody draws an invisible hyphen: a font may give that code to the glyph of the visible one.
    """
    if "\u2010" in text or "\u2011" in text or "\xad" in text:
        return _DRAWN_CUT.sub(CUT, text).replace("\xad", "-")
    return text


class _Cut(NamedTuple):
    """What stands on each side of a line end, and the letters of it that touch the hyphen."""

    left: str
    right: str
    first: str
    second: str

    @property
    def pair(self) -> str:
        return f"{self.first}-{self.second}".lower()

    @property
    def is_capitalised(self) -> bool:
        """Script, as in PostScript; not NATIONAL, which may be any word in a heading."""
        return self.second[0].isupper() and not self.second.isupper()

    @property
    def is_single(self) -> bool:
        """One letter that no apostrophe binds to a word before it: the T of T-shirt."""
        return len(self.first) == 1 and self.left[-2:-1] not in ("'", "\u2019")

    @property
    def around(self) -> str:
        """All that stands between the blanks around the cut."""
        return f"{_start(_RUN, self.left[::-1])[::-1]}-{_start(_RUN, self.right)}"


def find_spellings(pages: Sequence[str]) -> Spellings:
    """What the other lines of the document say about the words that line ends cut.

    Of 100 cut words 76 occur joined elsewhere, and 3 only with a hyphen.
    """
    cuts: set[str] = set()
    doubtful: set[str] = set()
    for page in pages:
        for mark in _CUT.finditer(page):
            if cut := _cut(page, mark.start(), mark.end()):
                cuts.add(cut.pair)
                if _is_doubtful(cut):
                    doubtful.add(f"{cut.first}-{cut.second}" if cut.is_capitalised else cut.pair)
    if not cuts:
        return NO_SPELLINGS
    spelled = cuts.intersection(_hyphenated(pages, {pair.partition("-")[2] for pair in cuts}))
    joined = _joined(pages, spelled | doubtful)
    return Spellings(frozenset(spelled - joined), frozenset(joined))


def _joined(pages: Sequence[str], pairs: set[str]) -> set[str]:
    """Those of the pairs, in lower case, that occur as one word; pairs with capitals only in this very form."""
    wanted = {pair: pair.replace("-", "") for pair in pairs}  # of several pairs one word may be cut in several places
    words = set(wanted.values())
    lower = {word for word in words if word.islower()}
    found = _words_of(pages, words - lower) | _words_of(map(str.lower, pages), lower)
    return {pair.lower() for pair, word in wanted.items() if word in found}


def _words_of(pages: Iterable[str], words: set[str]) -> set[str]:
    """Those of the words that the pages have."""
    left = set(words)
    for page in pages:
        if not left:
            break
        if len(left) > MOST_SEARCHED:
            left.difference_update(_WORD.findall(page))
        else:
            left -= {word for word in left if word in page and _has_word(page, word)}
    return words - left


def _has_word(page: str, word: str) -> bool:
    """Whether it stands anywhere without a letter on either side."""
    start = page.find(word)
    while start >= 0:
        end = start + len(word)
        if not _WORD.match(page[start - 1 : start]) and not _WORD.match(page[end : end + 1]):
            return True
        start = page.find(word, end)
    return False


def _hyphenated(pages: Iterable[str], seconds: Set[str]) -> Iterator[str]:
    """Lower-case pairs of those words with a hyphen within a line whose part behind it is one of `seconds`."""
    for page in pages:
        for hyphen in _HYPHEN.finditer(page.replace("\u2010", "-").replace("\u2011", "-")):
            if hyphen[1].lower() in seconds:
                at = hyphen.start()
                first = _start(_LETTERS_RUN, page[max(at - LONGEST_PART, 0) : at][::-1])
                if first:
                    yield f"{first[::-1]}-{hyphen[1]}".lower()


def join_words(text: str, spellings: Spellings) -> str:
    """The text without U+0002: each is a hyphen, a hyphen and a blank, or nothing."""
    if CUT not in text:
        return text
    return _CUT.sub(lambda mark: _between(_cut(text, mark.start(), mark.end()), spellings), text)


def _cut(text: str, start: int, end: int) -> _Cut | None:
    """The cut at these places, if it stands between letters."""
    left, right = text[max(start - LONGEST_PART, 0) : start], text[end : end + LONGEST_PART]
    if not left[-1:].isalpha() or not right[:1].isalpha():
        return None
    return _Cut(left, right, _start(_LETTERS_RUN, left[::-1])[::-1], _start(_LETTERS_RUN, right))


def _start(pattern: re.Pattern[str], text: str) -> str:
    return pattern.match(text)[0]  # type: ignore[index]  # it matches nothing at the least


def _between(cut: _Cut | None, spellings: Spellings) -> str:
    if cut is None or cut.pair in spellings.hyphenated:
        return "-"
    return "" if cut.pair in spellings.joined and _is_doubtful(cut) else _keeps(cut)


def _is_doubtful(cut: _Cut) -> bool:
    """Whether what the rules keep apart may yet be one broken word: thou-sand, INTER-NATIONAL, Post-Script."""
    return _keeps(cut) != "" and not _is_net_address(cut.around)


def _is_net_address(around: str) -> bool:
    return "://" in around or "www." in around or ("@" in around and _MAIL.search(around) is not None)


def _keeps(cut: _Cut) -> str:
    """What stands between the parts by the rules alone: `-`, `- `, or nothing."""
    initial = cut.right[0]
    if initial.upper() == initial.lower():  # a script without capitals
        return ""
    if initial.isupper() or cut.is_single or (len(cut.first) > 1 and cut.first.isupper()):
        return "-"
    around = cut.around
    if _is_net_address(around) or _FILE_NAME.search(around):
        return "-"
    return "- " if cut.second in _CONJUNCTIONS else ""
