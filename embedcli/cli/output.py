"""How the program prints an error, as the flags say that every command takes.

In: `--debug` and `--json`, as soon as they are read. Out: `output`, which `main` asks when a command ends by an error.
Not here: printing (main.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Output:
    """How the program prints an error: with a traceback (`--debug`), also as a JSON object (`--json`)."""

    debug: bool = False
    as_json: bool = False


output = Output()
