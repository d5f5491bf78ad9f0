"""Text -> the same text without runs of data: base64, hexadecimal dumps, minified code, arrays of numbers.

In: cleaned text. Out: the text without them, and how many were left out. Not here: what a document with such a gap is
called (blocks.py, formats.py).

A run is over 2,000 characters without a blank; or a line as long with hardly any; or as many in full lines of base64
or uuencode with nothing else between them, as mail programs and certificates fold it; or in the lines of a dump, as
`hexdump`, `xxd`, `od -x` and programmers of chips write them. It is data if its characters are those of data: Chinese
or Thai text, which has no blanks either, is not ASCII; a ruler of `=` has no variety; letters of a language without the
blanks between its words, and paths of files, have less variety than data has; decimal numbers in columns no letters.
"""

from __future__ import annotations

import math
import re
from collections import Counter

LONGEST_WORD = 2_000
PROBE_EVERY = 1_000
PROBE_CHARACTERS = 200
MOST_WORDS_IN_PROBE = 8
SAMPLE_CHARACTERS = 20_000
LEAST_ASCII = 0.9
LEAST_ENTROPY = 4.7
"""Bits a character. English without its blanks has 4.2, in mixed case 4.5; minified code 4.9, base64 5.5 to 6."""
LEAST_NUMERIC = 0.8
LEAST_NUMERIC_ENTROPY = 2.5
LEAST_UUENCODED_ENTROPY = 3.0
LEAST_FOLDED_ENTROPY = 5.2
"""Paths of files stand on lines of such characters too."""
LEAST_HEXADECIMAL_IN_PROBE = 0.65
"""Digits and blanks of a dump, its column of characters aside; of English text 0.45."""
LEAST_LETTERS_IN_DUMP = 0.08
"""Of the digits: a to f are six of sixteen, and rarer where there are many zeros."""
MOST_BLANKS = 1 / 25
"""Of a line of minified code; written code has one in eight characters."""

_RUN = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
_LINE = re.compile(rf"[^\n]{{{LONGEST_WORD + 1},}}")
_FOLDED = re.compile(
    r"(?:^[ \t]{0,8}[A-Za-z0-9+/_=-]{60,1000}[ \t]*(?:\n|\Z)){3,}"
    r"(?:[ \t]{0,8}(?:[A-Za-z0-9+/_-]{16,59}|[A-Za-z0-9+/_-]{1,58}=)=?[ \t]*$)?",
    re.MULTILINE,
)
_UUENCODED = re.compile(  # which begins with a letter, since a search for that is quick
    r"M(?<=^M)[!-`]{60}[ \t]*\n(?:^M[!-`]{60}[ \t]*(?:\n|\Z)){2,}(?:^[!-L][!-`]{1,60}[ \t]*$)?", re.MULTILINE
)


def _dump_line(groups: str, digits: str) -> str:
    """An offset, groups of digits and perhaps their characters; or a record of a format for the memory of chips."""
    address, characters = r"(?:0x)?[0-9a-fA-F]{4,16}:?", r"(?:[ \t]{1,50}\S[^\n]{0,40})?[ \t]*"
    return rf"^[ \t]{{0,8}}(?:{address}(?:[ \t]{{1,4}}[0-9a-fA-F]{{2,8}}){groups}{characters}|[:S][0-9A-F]{digits})"


_DUMP = re.compile(
    rf"(?:{_dump_line('{8,32}', '{24,600}')}(?:\n|\Z)){{3,}}(?:{_dump_line('{1,31}', '{8,600}')}$)?", re.M
)
_HEXADECIMAL_OR_BLANK = b"0123456789abcdefABCDEF \t\n"
_HEXADECIMAL_LETTER = re.compile("[a-fA-F]")
_HEXADECIMAL = re.compile("[0-9a-fA-F]")
_NUMERIC = "0123456789abcdefABCDEF,.;:+-"
_NOT_NUMERIC = str.maketrans("", "", _NUMERIC)


def without_data(text: str) -> tuple[str, int]:
    """The text without its runs of data, and their number; the lines on both sides stay apart."""
    patterns = _worth_a_search(text)
    if not patterns:
        return text, 0
    count = 0

    def replace(run: re.Match[str]) -> str:
        nonlocal count
        if run.end() - run.start() <= LONGEST_WORD or not _is_data(run):
            return run[0]
        count += 1
        return "\n" if "\n" in run[0] else ""

    for pattern in patterns:
        text = pattern.sub(replace, text)
    return text, count


def _worth_a_search(text: str) -> list[re.Pattern[str]]:
    """By a look at 200 characters of each 1,000: a run covers one of them, where words or lines are long, or digits.
    Without this every text would cost a search at each of its words."""
    starts = range(0, len(text), PROBE_EVERY) if len(text) > LONGEST_WORD else ()
    probes = [text[start : start + PROBE_CHARACTERS] for start in starts]
    has_long_words = any(len(probe.split()) <= MOST_WORDS_IN_PROBE for probe in probes)
    has_dump = any(_is_hexadecimal(probe) for probe in probes)
    return [*((_RUN, _LINE, _FOLDED, _UUENCODED) if has_long_words else ()), *((_DUMP,) if has_dump else ())]


def _is_hexadecimal(probe: str) -> bool:
    others = probe.encode("utf-8", "surrogatepass").translate(None, _HEXADECIMAL_OR_BLANK)
    return len(others) <= (1 - LEAST_HEXADECIMAL_IN_PROBE) * len(probe)


def _is_data(run: re.Match[str]) -> bool:
    sample = run[0][:SAMPLE_CHARACTERS]
    if run.re is _UUENCODED:
        return _entropy(sample) >= LEAST_UUENCODED_ENTROPY
    if run.re is _DUMP:
        return len(_HEXADECIMAL_LETTER.findall(sample)) >= LEAST_LETTERS_IN_DUMP * len(_HEXADECIMAL.findall(sample))
    if len(sample.encode("ascii", "ignore")) < LEAST_ASCII * len(sample):
        return False
    if sample.count(" ") + sample.count("\t") > MOST_BLANKS * len(sample):
        return False
    numeric = 1 - len(sample.translate(_NOT_NUMERIC)) / len(sample)
    if numeric >= LEAST_NUMERIC:
        return _entropy(sample) >= LEAST_NUMERIC_ENTROPY
    return _entropy(sample) >= (LEAST_FOLDED_ENTROPY if "\n" in sample else LEAST_ENTROPY)


def _entropy(text: str) -> float:
    """Of single characters, in bits."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
