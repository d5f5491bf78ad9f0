"""Hyphens at line ends of a PDF: which go with the break, and which stay.

In: pages as the PDF reader gave them, where U+0002 stands for a hyphen and the line end behind it. Out: pages with
words put together again. Not here: all other clean-up (clean.py).

A hyphen goes only where it broke a word. It stays before a capital or a digit (COVID-19, Smith-Jones), behind a single
letter (T-shirt), within an address, and before a conjunction, there with a blank (pre- and post-war). The document's
own spelling elsewhere wins over these rules, as it knows its words best.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

CUT = "\x02"
"""A hyphen at a line end together with that line end."""

LONGEST_PART = 100
"""Characters looked at on each side of a cut: longer ones are no words, and time stays linear."""

_CONJUNCTIONS = frozenset(
    ("and", "or", "nor", "und", "oder", "bzw", "sowie", "bis", "als", "en", "of", "och", "eller", "og", "és", "vagy")
    + ("et", "ou")
)
"""Not `a`, `y`, `to` or `ja`, which end words as well."""

_LETTERS = r"[^\W\d_]"
_CUT = re.compile(CUT)
_DRAWN_CUT = re.compile(r"(?<=\w)[\u2010\u2011\xad][ \t]*+(?:\r\n|\r|\n)(?=\w)")
_HYPHEN = re.compile(f"-(?={_LETTERS})")
_WORD = re.compile(f"{_LETTERS}++")
_FIRST_LETTERS = re.compile(rf"{_LETTERS}*+")
_FIRST_RUN = re.compile(r"\S*+")
_NET_ADDRESS = re.compile(r"@[\w.-]*\.[a-z]{2}|://|\bwww\.")
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


def find_spellings(pages: Sequence[str]) -> Spellings:
    """What the other lines of the document say about the words that line ends cut.

    Of 100 cut words 76 occur joined elsewhere, and 3 only with a hyphen.
    """
    cut: set[str] = set()
    doubtful: set[str] = set()
    for page in pages:
        for left, right in _cuts(page):
            pair = _pair(left, right)
            cut.add(pair)
            if _is_doubtful(left, right):
                doubtful.add(pair)
    if not cut:
        return NO_SPELLINGS
    spelled = cut & set(_hyphenated(pages))
    wanted = {pair.replace("-", ""): pair for pair in spelled | doubtful}
    joined = set()
    for page in pages if wanted else ():
        lower = page.lower()
        near = {word for word in wanted if word in lower}  # few, and found far sooner than every word of the page
        for word in near & set(_WORD.findall(lower)) if near else ():
            joined.add(wanted.pop(word))
    return Spellings(frozenset(spelled - joined), frozenset(joined))


def join_words(text: str, spellings: Spellings) -> str:
    """The text without U+0002: each is a hyphen, a hyphen and a blank, or nothing."""
    if CUT not in text:
        return text
    parts: list[str] = []
    end = 0
    for cut in _CUT.finditer(text):
        left, right = text[max(cut.start() - LONGEST_PART, 0) : cut.start()], text[cut.end() : cut.end() + LONGEST_PART]
        parts += (text[end : cut.start()], _between(left, right, spellings))
        end = cut.end()
    return "".join((*parts, text[end:]))


def _between(left: str, right: str, spellings: Spellings) -> str:
    if not left[-1:].isalpha() or not right[:1].isalpha():
        return "-"
    pair = _pair(left, right)
    if pair in spellings.hyphenated:
        return "-"
    return "" if pair in spellings.joined and _is_doubtful(left, right) else _keeps(left, right)


def _is_doubtful(left: str, right: str) -> bool:
    """Whether what the rules keep apart may yet be one broken word: thou-sand, INTER-NATIONAL."""
    second = _first(_FIRST_LETTERS, right)
    is_word = second.islower() or (second.isupper() and _last_letters(left).isupper())
    return is_word and _keeps(left, right) != "" and not _NET_ADDRESS.search(_around(left, right))


def _keeps(left: str, right: str) -> str:
    """What stands between two parts of letters by the rules alone: `-`, `- `, or nothing."""
    if right[0].upper() == right[0].lower():  # a script without capitals
        return ""
    first, second = _last_letters(left), _first(_FIRST_LETTERS, right)
    if right[0].isupper() or _is_single(left) or (len(first) > 1 and first.isupper()):
        return "-"
    around = _around(left, right)
    if _NET_ADDRESS.search(around) or _FILE_NAME.search(around):
        return "-"
    return "- " if second in _CONJUNCTIONS else ""


def _around(left: str, right: str) -> str:
    """All that stands between the blanks around a cut."""
    return f"{_first(_FIRST_RUN, left[::-1])[::-1]}-{_first(_FIRST_RUN, right)}"


def _is_single(left: str) -> bool:
    """One letter that no apostrophe binds to a word before it: the T of T-shirt."""
    return len(_last_letters(left)) == 1 and left[-2:-1] not in ("'", "\u2019")


def _cuts(page: str) -> Iterator[tuple[str, str]]:
    """What stands on each side of the cuts between letters."""
    for cut in _CUT.finditer(page):
        if page[cut.start() - 1 : cut.start()].isalpha() and page[cut.end() : cut.end() + 1].isalpha():
            yield page[max(cut.start() - LONGEST_PART, 0) : cut.start()], page[cut.end() : cut.end() + LONGEST_PART]


def _pair(left: str, right: str) -> str:
    return f"{_last_letters(left)}-{_first(_FIRST_LETTERS, right)}".lower()


def _last_letters(text: str) -> str:
    return _first(_FIRST_LETTERS, text[::-1])[::-1]


def _first(pattern: re.Pattern[str], text: str) -> str:
    return pattern.match(text)[0]  # type: ignore[index]  # it matches nothing at the least


def _hyphenated(pages: Iterable[str]) -> Iterator[str]:
    """Lower-case pairs of all words with a hyphen within a line."""
    for page in pages:
        for hyphen in _HYPHEN.finditer(page):
            at = hyphen.start()
            if page[at - 1 : at].isalpha():
                yield _pair(page[max(at - LONGEST_PART, 0) : at], page[at + 1 : at + LONGEST_PART])
