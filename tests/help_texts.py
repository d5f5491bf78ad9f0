"""What `--help` of a command says after its flags, and the lines of shell in it.

In: the name of a command. Out: its text; each line that begins with `$ `, with those that a backslash joins to it.
Not here: running them (test_readme.py and what it names).
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "embedcli/data/help"
WITH_A_TEXT = sorted(path.stem for path in FOLDER.iterdir())


def text_of(command: str) -> str:
    return (FOLDER / f"{command}.txt").read_text()


def typed(command: str, *marks: str) -> list[str]:
    """All lines, or those with one of the marks in them."""
    lines = re.findall(r"^ *\$ ((?:.*\\\n)*.*)$", text_of(command), re.MULTILINE)
    return [line for line in lines if not marks or any(mark in line for mark in marks)]
