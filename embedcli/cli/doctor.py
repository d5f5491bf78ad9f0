"""`embedcli doctor` on the command line.

In: flags. Out: a line on stdout for each check (`--json`: one object), the exit code of the first that failed.
Not here: the checks (verbs/doctor/).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli import flags
from embedcli.cli.app import AsJson, Debug, print_json, tools_maker
from embedcli.errors import EmbedcliError, Stopped
from embedcli.report import say

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.verbs.doctor.check import Line

WIDTH = 15


def doctor(
    context: typer.Context,
    index: Annotated[
        str | None, typer.Argument(metavar="[INDEX]", help="The folder of the index; it need not exist yet.")
    ] = None,
    index_option: flags.IndexFolder = None,
    model: Annotated[
        str | None, typer.Option(help="The model to look for; default: that of the index, else that of this machine.")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Also start the engine and embed the probe set.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check what a run needs from this machine.

    It looks at card, driver, model, caches and disk, with --start also at the engine. Each line is ok, or FAIL with the
    command that repairs it.
    """
    from embedcli.verbs.doctor.filesystem import rights
    from embedcli.verbs.doctor.machine import examine

    lines: list[Line] = []

    def report(line: Line) -> None:
        lines.append(line)
        if not as_json:
            _print(line)

    opened, current = flags.opened_index(index, index_option), None
    try:
        current = _current(opened)
    except EmbedcliError as error:
        report(_failed("index", error))
    for line in examine(opened.folder, model=model, settings=current.settings if current else None):
        report(line)
    if current is not None:
        report(rights(opened, current))
    if start and not any(line.code for line in lines):
        from embedcli.verbs.doctor.start_engine import start_engine

        tools = tools_maker(context)("auto", say, show_log=say if debug else None)
        report(_started(lambda: start_engine(opened.folder, model, tools)))
    code = next((line.code for line in lines if line.code), 0)
    if as_json:
        print_json({"exit_code": code, "lines": [dataclasses.asdict(line) for line in lines]})
    raise typer.Exit(code)


def _current(index: Index) -> Generation | None:
    return index.current() if index.is_there and index.current_number() is not None else None


def _started(start: Callable[[], str]) -> Line:
    from embedcli.verbs.doctor.check import Line

    try:
        return Line("engine", start())
    except Stopped:
        raise
    except EmbedcliError as error:
        return _failed("engine", error)


def _failed(what: str, error: EmbedcliError) -> Line:
    from embedcli.verbs.doctor.check import Line

    return Line(what, str(error), False, error.hint, error.exit_code)


def _print(line: Line) -> None:
    mark = "ok   " if line.well else "FAIL "
    print(f"{mark} {line.what:<{WIDTH}} {line.found}" + (f"\n      {'':<{WIDTH}} {line.mend}" if line.mend else ""))
    sys.stdout.flush()
