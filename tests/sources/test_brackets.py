"""Sets in brackets, and patterns that are none, mean what git has them mean; `git check-ignore` is the reference."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from embedcli.errors import UsageError
from embedcli.sources.brackets import take_out_sets
from embedcli.sources.filters import compile_patterns, verdict

NAMES = ["a", "b", "5", "a5", "5a", "a b", "Z", "z", "a-b", "-", "^", "!", "a]", "[a]", "a.txt", "5.txt", "x/a", "x/5"]
NAMES += ["x/y/5.txt", "_", "a\\", "\\", "a*", "*", " ", "a ", "tab\t", "A1", "deadbeef", "#a", "!a", "d", "1"]
CLASSES = ["alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit"]
PATTERNS = [f"[[:{name}:]]" for name in CLASSES] + [f"*[![:{name}:]]*" for name in CLASSES]
PATTERNS += [
    "[[:digit:]].txt",
    "**/[[:digit:]]*",
    "[[:lower:][:digit:]_]",
    "[^[:alpha:]]",
    "[[:digit:]]/",
    "x/[[:digit:]]",
]
PATTERNS += [
    "[[:foo:]]",
    "[[:DIGIT:]]",
    "[[:digit:]",
    "[:digit:]",
    "[[:digit:]-z]",
    "[[.a.]]",
    "[[=a=]]",
    "[a-[:digit:]]",
]
PATTERNS += [
    "!",
    "!!",
    "!*",
    "\\",
    "a\\",
    "*\\",
    "[\\",
    "[",
    "[]",
    "[!]",
    "[a",
    "[a-",
    "[z-a]",
    "[]a]*",
    "[!]a]*",
    "[a-]",
    "[-a]",
]
PATTERNS += [
    "[\\]]",
    "[a\\]]*",
    "[a\\-z]",
    "[\\a-\\z]",
    "[[]a]",
    "[+--]",
    "x[/]a",
    "[^!]",
    "[!^]",
    "[\\^]",
    "\\[a]",
    "[ ]",
    "\\!a",
    "#a",
]
PARTS = [
    "[",
    "]",
    "!",
    "^",
    "-",
    "\\",
    "a",
    "z",
    "5",
    "*",
    "?",
    "/",
    "[:digit:]",
    "[[:upper:]]",
    ":",
    "[a-z]",
    "[!a]",
    "**",
    ".txt",
    " ",
]


def selected(pattern: str) -> set[str]:
    """The names that the walk would leave out, entering one folder after the other."""
    patterns = compile_patterns([pattern])
    return {name for name in NAMES if any(verdict(patterns, entry) for entry in entries(name))}


def entries(name: str) -> list[str]:
    return [name[: i + 1] for i, letter in enumerate(name) if letter == "/"] + [name]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_patterns_select_what_git_selects(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    choose = random.Random(4)
    made = ["".join(choose.choice(PARTS) for _ in range(choose.randrange(1, 6))) for _ in range(300)]
    for pattern in PATTERNS + made:
        (tmp_path / ".gitignore").write_text(pattern + "\n")
        asked = ["git", "-C", str(tmp_path), "check-ignore", "-z", "--stdin", "--no-index"]
        answer = subprocess.run(asked, input="\0".join(NAMES), capture_output=True, text=True, check=False)
        assert answer.returncode in {0, 1}, answer.stderr
        assert selected(pattern) == set(filter(None, answer.stdout.split("\0"))), pattern


@pytest.mark.parametrize("pattern", ["!", "a\\", "[", "[a", "[]", "[[:foo:]]", "*.[ch"])
def test_a_pattern_that_can_match_nothing_is_refused_in_a_flag(pattern: str) -> None:
    with pytest.raises(UsageError, match="`--exclude` is no pattern"):
        compile_patterns([pattern], flag="--exclude")
    assert compile_patterns([pattern]) == []


def test_a_letter_of_another_script_is_one_letter() -> None:
    patterns = compile_patterns(["[é-ü].txt", "?.md"])
    assert verdict(patterns, "ö.txt") and verdict(patterns, "日.md")


def test_a_pattern_without_sets_is_left_as_it_is() -> None:
    assert take_out_sets("a/**/*.txt") == ("a/**/*.txt", {})
    assert take_out_sets("\\[a]") == ("\\[a]", {})
