"""The output of a terminal saved to a file -> what the terminal would show.

In: text with escape sequences and backspaces, lines ending in `\\n`. Out: the text without them: a sequence goes
whole, and what is written over another character takes its place (`col -b`). Not here: other control characters
(clean.py).
"""

from __future__ import annotations

import re
import unicodedata

_STRING = r"[\]PX^_k]"
_ESCAPE = re.compile(
    rf"\x1b{_STRING}[^\x07\x1b]*(?:\x07|\x1b\\)"  # titles, links, images: up to their end mark
    r"|(?:\x1b\[|\x9b(?=[0-9;]))(?P<numbers>[0-?]*)[ -/]*(?P<final>[@-~])"  # colours, the cursor, erasing
    r"|\x1b[ -/]+[0-~]"  # character sets
    r"|\x1b[0-Z\\^-~]"
)
_RIGHT, _DOWN = "CGa`", "ABEFHdef"
"""The last letters of sequences that set the cursor elsewhere in its line, and in another one."""

_OVERSTRIKE = re.compile(r"[!-~]\x08(?=[!-~])")
_WIDE_OVERSTRIKE = re.compile(r"([^\x00-\x7f])\x08{1,2}(?=\1)")
_LINE_WITH_BACKSPACE = re.compile(r"[^\n]*\x08[^\n]*")


def as_shown(text: str) -> str:
    """Linear in the text; a text without escapes and backspaces is returned as it is."""
    if "\x1b" in text or "\x9b" in text:
        text = _ESCAPE.sub(_moved, text)
    if "\x08" in text:
        text = _WIDE_OVERSTRIKE.sub("", _OVERSTRIKE.sub("", text))
    return _LINE_WITH_BACKSPACE.sub(lambda line: _overwritten(line[0]), text) if "\x08" in text else text


def _moved(sequence: re.Match[str]) -> str:
    """What parts the words on either side of a sequence, if it sets the cursor elsewhere.

    Column 1 is left alone: it is where a line begins, or where it is written over.
    """
    final = sequence["final"] or ""
    if final in _DOWN and final:
        return "\n"
    return " " if final in _RIGHT and final and (final == "C" or sequence["numbers"] not in {"", "0", "1"}) else ""


def _overwritten(line: str) -> str:
    """The line after its backspaces: each sets the cursor back, and the next character is written over."""
    cells: list[str] = []
    cursor = 0
    for character in line:
        if character == "\x08":
            cursor = max(0, cursor - 1)
        elif unicodedata.combining(character) and cursor:
            cells[cursor - 1] += character
        else:
            cells[cursor : cursor + 1] = [character]
            cursor += 1
    return "".join(cells)
