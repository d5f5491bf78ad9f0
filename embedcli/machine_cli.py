"""The verbs that look at the machine: doctor.

In: flags. Out: lines on stdout (`--json`: one object), an exit code. Not here: the looking (doctor.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli.config import index_folder
from embedcli.errors import EmbedcliError

if TYPE_CHECKING:
    from embedcli.doctor import Line
    from embedcli.generations import Generation

WIDTH = 15
Start = Callable[[Path, str | None], str]
"""(index, model) -> a line on the engine that was started and embedded the probe set. Raises EmbedcliError."""


def register(app: typer.Typer, start: Start) -> None:
    """Add the verbs to the program; `start` is what `doctor --start` does."""

    @app.command()
    def doctor(
        index: Annotated[str | None, typer.Argument(help="The index, also one still to be made.")] = None,
        model: Annotated[
            str | None, typer.Option(help="Look for this model; else the index's, else the default.")
        ] = None,
        start_engine: Annotated[
            bool, typer.Option("--start", help="Start the engine and embed the probe set too.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    ) -> None:
        """Look at all that a run needs from this machine; each line is well, or says what to type."""
        from embedcli.doctor import ENGINE, Line, examine

        folder = index_folder(index)
        current = _current(folder)
        name = model or (current.settings.model if current else None)
        commit = current.settings.commit if current and not model else None
        lines = []
        for line in examine(
            folder, model=name, commit=commit, device=current.settings.device_kind if current else None
        ):
            lines.append(line)
            if not as_json:
                _print(line)
        if start_engine and not any(line.code == ENGINE for line in lines):
            lines.append(_started(lambda: start(folder, name), Line, ENGINE))
            if not as_json:
                _print(lines[-1])
        code = next((line.code for line in lines if line.code), 0)
        if as_json:
            print(json.dumps({"exit_code": code, "lines": [dataclasses.asdict(line) for line in lines]}))
        raise typer.Exit(code)


def _current(folder: Path) -> Generation | None:
    from embedcli.disk import Disk
    from embedcli.generations import Index

    index = Index(folder, disk=Disk())
    return index.current() if folder.exists() and index.current_number() is not None else None


def _started(start: Callable[[], str], line: Any, code: int) -> Line:
    try:
        return line("engine", start())  # type: ignore[no-any-return]
    except EmbedcliError as error:
        return line("engine", str(error), False, error.hint, code)  # type: ignore[no-any-return]


def _print(line: Line) -> None:
    mark = "ok   " if line.well else "amiss"
    print(f"{mark} {line.what:<{WIDTH}} {line.found}" + (f"\n      {'':<{WIDTH}} {line.mend}" if line.mend else ""))
    sys.stdout.flush()
