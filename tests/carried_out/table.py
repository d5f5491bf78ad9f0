"""A table of hints: the state in which a hint is given, the command that gives it, what the hint tells to type.

In: rows, and tests that say which hints they carry out. Out: each row run, and every hint that has a test.
Not here: the rows (test_hints.py and the other files of this folder), the states (hint_states.py).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.hint_states import State, places
from tests.workshop import Workshop

Command = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., None])
CARRIED: set[str] = set()
"""The hints that a test of its own carries out."""


@dataclass(frozen=True)
class Row:
    """`hint` with {names} of places; `ways`: each a list of commands. `retold`: the hint is printed, not raised.

    `codes`: the exit codes with which the last command of a way may end.
    """

    hint: str
    state: State
    command: str
    ways: Sequence[Sequence[str]]
    retold: bool = False
    codes: Sequence[int] = (0, 3)


@dataclass(frozen=True)
class InShell:
    """What a command in the shell has done, as the command line of a test tells it."""

    exit_code: int
    output: str
    exception: None = None


def carries_out(*hints: str) -> Callable[[F], F]:
    """Mark a test that makes the state of these hints and types what they say."""
    CARRIED.update(hints)
    return lambda test: test


def code_of(ran: Any) -> int:
    return int(getattr(ran.exception, "exit_code", ran.exit_code))


def type_in(line: str, shop: Workshop, command: Command) -> Any:
    """A command as it is pasted into a shell."""
    line = line.format(**places(shop))
    if line.startswith("embedcli "):
        return command(*shlex.split(line)[1:])
    ran = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, timeout=240)
    return InShell(ran.returncode, (ran.stdout + ran.stderr).decode("utf-8", "replace"))


def cases(rows: Sequence[Row]) -> dict[str, Any]:
    """The arguments of `parametrize`: each way of each row. Their hints are carried out by that test."""
    CARRIED.update(row.hint for row in rows)
    found = [(row, way) for row in rows for way in row.ways]
    return {
        "argnames": ("row", "way"),
        "argvalues": found,
        "ids": [ascii(f"{row.hint[:60]} -> {way[-1][:60]}") for row, way in found],
    }


def carry_out(row: Row, way: Sequence[str], shop: Workshop, command: Command) -> None:
    row.state(shop)
    assert_given(row.hint, type_in(row.command, shop, command), shop, retold=row.retold)
    for line in way:
        ran = type_in(line, shop, command)
        assert code_of(ran) in row.codes if line is way[-1] else code_of(ran) in (0, 3), ran.exception or ran.output


def assert_given(hint: str, ran: Any, shop: Workshop, *, retold: bool = False) -> None:
    expected = filled(hint, shop)
    if retold or isinstance(ran, InShell):
        assert expected in " ".join(ran.output.split()), ran.output
    else:
        assert getattr(ran.exception, "hint", ran.output) == expected, ran.output


def filled(hint: str, shop: Workshop) -> str:
    for name, place in places(shop).items():
        hint = hint.replace(f"{{{name}}}", place)
    return hint


def assert_types_what_it_names(row: Row) -> None:
    for word in words_to_type(row.hint):
        assert word in typed(row), word


def words_to_type(hint: str) -> list[str]:
    """Commands and flags that a hint names."""
    pieces = re.findall(r"`([^`]+)`", hint)
    starts = ("-", "embedcli", "chmod", "ls")
    return [word for piece in pieces for word in piece.split() if word.startswith(starts) and word not in ("-a", "-")]


def typed(row: Row) -> str:
    return " ".join([row.command, *(line for way in row.ways for line in way)])
