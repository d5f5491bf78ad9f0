"""A terminal's output reads as the terminal shows it; `col -b` is the reference for backspaces."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcli.reading.text.terminal import as_shown

COL = shutil.which("col")


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (
            "\x1b[2m2024-05-01\x1b[0m \x1b[31mERROR\x1b[0m pump 3 \x1b[1;33mstalled\x1b[m",
            "2024-05-01 ERROR pump 3 stalled",
        ),
        ("\x1b[38;5;196mred\x1b[48:2::1:2:3m \x1b[?25lhidden\x1b[?25h", "red hidden"),
        ("\x1b[2K\x1b[1Gdone\n\x1b[2K\x1b[Gnext", "done\nnext"),
        ("\x1b]0;user@host: ~\x07$ ls", "$ ls"),
        ("\x1b]8;;https://example.org\x1b\\a link\x1b]8;;\x1b\\ here", "a link here"),
        ("\x1bPq#0;2\n#1~~\x1b\\after an image", "after an image"),
        ("\x1bktitle\x1b\\text", "text"),
        ("\x1b(Bplain\x1b)0\x1b#8 \x1b=\x1b>\x1b7\x1b8\x1bMtext\x1bc", "plain text"),
        ("\x9b31mred\x9b0m", "red"),
        ("[ok]\x1b[60Gdone", "[ok] done"),
        ("name\x1b[10Cvalue", "name value"),
        ("top\x1b[2;1Hbottom\x1b[Bbelow", "top\nbottom\nbelow"),
        ("\x1b[1mH\x1b[0m\bH", "H"),
    ],
)
def test_escape_sequences_go_whole_and_part_what_they_parted(output: str, shown: str) -> None:
    assert as_shown(output) == shown


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("N\bNA\bAM\bME\bE", "NAME"),
        ("list _\bd_\bi_\br", "list dir"),
        ("_\bb\bb_\bo\bo", "bo"),
        ("+\bo item", "o item"),
        ("10%\b\b\b20%\b\b\b99%", "99%"),
        ("|\b/\b-\b\\\b done", " done"),
        ("helo\b \blo", "hello"),
        ("\b\bstart", "start"),
        ("first\n\bsecond", "first\nsecond"),
        ("漢\b漢字\b\b字", "漢字"),
        ("e\u0301\be\u0301", "e\u0301"),
        ("end\b", "end"),
    ],
)
def test_a_backspace_takes_back_its_character(output: str, shown: str) -> None:
    assert as_shown(output) == shown


@pytest.mark.skipif(COL is None, reason="there is no `col`")
@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["a", "B", "_", "7", "\b", "\b\b", "x\bx", "_\by"]), max_size=30).map("".join))
def test_backspaces_read_as_col_shows_them(line: str) -> None:
    done = subprocess.run(["col", "-b"], input=line + "\n", capture_output=True, text=True, check=True)
    assert as_shown(line) == done.stdout.removesuffix("\n")


def test_other_text_is_returned_as_it_is() -> None:
    text = "colours are written as [31m, and ‹quotes› are quotes\n"
    assert as_shown(text) is text


@pytest.mark.parametrize(
    "hostile",
    ["\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b[1", "\b", "a\b", "a\b\b", "漢\b\b", "\x1b[\b", "\x1b(", "\x9b1"],
)
def test_time_is_linear_in_hostile_output(hostile: str) -> None:
    start_s = time.process_time()
    as_shown(hostile * (400_000 // len(hostile)))
    assert time.process_time() - start_s < 30
