"""Fractions of formulas, as they are written on one line: `1/2`, `(a+b)/2`.

In: the words of a text, as a reader gathers them. Out: the same words, each part of a fraction as one of them. Without
a sign between them the parts would be one number, 12.
Not here: which elements are the parts (the readers of office formats).
"""

from __future__ import annotations


class Fractions:
    """Those that are open: a part may hold others."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        """Where among the words the open parts begin."""

    def begin(self, words: list[str]) -> None:
        """What comes next is the upper or the lower part of a fraction."""
        self._begins.append(len(words))

    def end(self, words: list[str], sign: str) -> None:
        """The part ends, and `sign` follows it. It is in brackets where it is more than a word."""
        if self._begins:
            begins = self._begins.pop()
            part = "".join(words[begins:]).strip()
            words[begins:] = [(part if part.isalnum() else f"({part})") + sign]
