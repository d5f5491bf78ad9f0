"""Formulas in MathML -> words on one line, for handlers that have other elements to read too.

In: the calls of a parser for the elements of a formula. Out: its text, `(a+b)/2`. Not here: formulas in pages (html.py)
and in Word documents (docx.py), where a formula stands (odf.py).
"""

from __future__ import annotations

from functools import partial

from embedcli.reading.office.xml_events import Attributes, End, Start, attribute, pass_over
from embedcli.reading.text.fractions import Fractions

_TOKENS = ("mi", "mn", "mo", "mtext", "ms")
_HOLDERS = (
    *("math", "semantics", "mrow", "mstyle", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder", "mover"),
    *("munderover", "mmultiscripts", "mfenced", "menclose", "mpadded", "mtable", "mtr", "mtd", "mspace"),
)
_APART = frozenset({"mtd", "mspace"})


class Formula:
    """The formula that is open, if any; how it is written for the program that made it is no text of it."""

    def __init__(self) -> None:
        self._open: list[str] = []  # elements
        self._counts: list[int] = []  # of the elements that have begun in each of them
        self._brackets: list[str] = []  # that the elements with brackets end with
        self._words: list[str] = []
        self._fractions = Fractions()

    def starts(self) -> dict[str, Start]:
        found: dict[str, Start] = {name: partial(self._start, name) for name in (*_TOKENS, *_HOLDERS)}
        return {**found, **dict.fromkeys(("annotation", "annotation-xml", "mphantom"), pass_over)}

    def ends(self) -> dict[str, End]:
        return {name: partial(self._end, name) for name in (*_TOKENS, *_HOLDERS)}

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def text(self, characters: str) -> None:
        """White space beside the elements of text is only how the source is laid out."""
        if self._open[-1] in _TOKENS:
            self._words.append(characters if self._open[-1] == "mtext" else characters.strip())

    def take(self) -> str:
        """The text of the formula that has ended."""
        words, self._words = self._words, []
        return " ".join("".join(words).split())

    def _start(self, name: str, attributes: Attributes) -> None:
        if self._open:
            self._counts[-1] += 1
            if self._open[-1] == "mfrac":
                self._fractions.begin(self._words)
            elif self._open[-1] == "mfenced" and self._counts[-1] > 1:
                self._words.append(",")
        if name == "mfenced":
            brackets = attribute(attributes, "open"), attribute(attributes, "close")
            self._words.append("(" if brackets[0] is None else brackets[0])
            self._brackets.append(")" if brackets[1] is None else brackets[1])
        self._open.append(name)
        self._counts.append(0)

    def _end(self, name: str) -> None:
        self._open.pop()
        self._counts.pop()
        if name == "mfenced":
            self._words.append(self._brackets.pop())
        if name in _APART:
            self._words.append(" ")
        if self._open and self._open[-1] == "mfrac":
            self._fractions.end(self._words, "/" if self._counts[-1] == 1 else "")
