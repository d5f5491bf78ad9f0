"""Text -> the same text without runs of data: base64, hexadecimal dumps, minified code, arrays of numbers.

In: cleaned text. Out: the text without them, and how many were left out. Not here: what a document with such a gap is
called (blocks.py, formats.py).

A run is over 2,000 characters without a blank; or a line as long with hardly any; or as many in full lines of base64
with nothing else between them, as mail programs and certificates fold it. It is data if its characters are those of
data: Chinese or Thai text, which has no blanks either, is not ASCII; a ruler of `=` has no variety; letters of a
language without the blanks between its words, and paths of files, have less variety than data has.
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
LEAST_FOLDED_ENTROPY = 5.2
"""Paths of files stand on lines of such characters too."""
MOST_BLANKS = 1 / 25
"""Of a line of minified code; written code has one in eight characters."""

_RUN = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
_LINE = re.compile(rf"[^\n]{{{LONGEST_WORD + 1},}}")
_FOLDED = re.compile(
    r"(?:^[ \t]{0,8}[A-Za-z0-9+/_=-]{60,1000}[ \t]*(?:\n|\Z)){3,}"
    r"(?:[ \t]{0,8}(?:[A-Za-z0-9+/_-]{16,59}|[A-Za-z0-9+/_-]{1,58}=)=?[ \t]*$)?",
    re.MULTILINE,
)
_NUMERIC = "0123456789abcdefABCDEF,.;:+-"
_NOT_NUMERIC = str.maketrans("", "", _NUMERIC)


def without_data(text: str) -> tuple[str, int]:
    """The text without its runs of data, and their number; the lines on both sides stay apart."""
    if not _may_hold_data(text):
        return text, 0
    count = 0

    def replace(run: re.Match[str]) -> str:
        nonlocal count
        if run.end() - run.start() <= LONGEST_WORD or not _is_data(run[0]):
            return run[0]
        count += 1
        return "\n" if "\n" in run[0] else ""

    for pattern in (_RUN, _LINE, _FOLDED):
        text = pattern.sub(replace, text)
    return text, count


def _may_hold_data(text: str) -> bool:
    """A look at 200 characters of each 1,000: a run covers one of them, where words or lines are long. Without this
    every text would cost a search at each of its words."""
    starts = range(0, len(text), PROBE_EVERY) if len(text) > LONGEST_WORD else ()
    return any(len(text[start : start + PROBE_CHARACTERS].split()) <= MOST_WORDS_IN_PROBE for start in starts)


def _is_data(run: str) -> bool:
    sample = run[:SAMPLE_CHARACTERS]
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
