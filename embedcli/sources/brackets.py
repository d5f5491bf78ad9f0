"""The sets in brackets of a glob, as git's wildmatch reads them -> regular expressions.

In: a pattern in gitignore syntax. Out: the pattern with a letter of its own for each set, and what each stands for.
Not here: everything else that a pattern may hold (filters.py).
"""

from __future__ import annotations

import re

_FIRST_STAND_IN = 0xF0000
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t-\r ",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_NAMED = re.compile(r"\[:([^\]]*):\]")


def take_out_sets(pattern: str) -> tuple[str, dict[str, str]]:
    """ValueError for a set that is not closed or a class that does not exist: with it a pattern matches nothing."""
    if "[" not in pattern:
        return pattern, {}
    kept: list[str] = []
    sets: dict[str, str] = {}
    place = 0
    while place < len(pattern):
        if pattern[place] == "[":
            stand_in = chr(_FIRST_STAND_IN + len(sets))
            sets[stand_in], place = _set_at(pattern, place)
            kept.append(stand_in)
        else:
            width = 2 if pattern[place] == "\\" else 1
            kept.append(pattern[place : place + width])
            place += width
    return "".join(kept), sets


def _set_at(pattern: str, start: int) -> tuple[str, int]:
    """The expression for the set that begins at `start`, and where the pattern goes on after it."""
    place = start + 1
    negated = pattern[place : place + 1] in {"!", "^"}
    place += negated
    members: list[str] = []
    before = ""  # the letter that a range may begin with
    while pattern[place : place + 1] != "]" or not members:
        if named := _NAMED.match(pattern, place):
            members.append(_class_of(named[1]))
            before, place = "", named.end()
        elif before and pattern[place : place + 1] == "-" and pattern[place + 1 : place + 2] not in {"", "]"}:
            last, place = _letter_at(pattern, place + 1)
            members.append(f"{re.escape(before)}-{re.escape(last)}" if before <= last else "")
            before = ""
        else:
            before, place = _letter_at(pattern, place)
            members.append(re.escape(before))
    return f"(?!/)[{'^' * negated}{''.join(members)}]", place + 1


def _letter_at(pattern: str, place: int) -> tuple[str, int]:
    place += pattern[place : place + 1] == "\\"
    if place >= len(pattern):
        raise ValueError("a set that is not closed")
    return pattern[place], place + 1


def _class_of(name: str) -> str:
    if name not in _CLASSES:
        raise ValueError(f"no class `{name}`")
    return _CLASSES[name]
