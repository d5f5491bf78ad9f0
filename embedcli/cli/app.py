"""The Typer application that every command registers with, and what the flags of all commands say of the output.

In: argv, by way of Typer. Out: `app`, and `output`, which `main` reads when it prints an error.
Not here: the commands (ingest.py, upkeep.py, machine.py), the exit codes of errors (main.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli import __version__

if TYPE_CHECKING:
    from embedcli.run.tools import Tools

MakeTools = Callable[..., "Tools"]
"""`embedcli.run.tools.make_tools`, or what a test puts in its place as Typer's context object."""


@dataclass
class Output:
    """How this invocation prints errors: with a traceback (`--debug`), as a JSON object too (`--json`)."""

    debug: bool = False
    as_json: bool = False


output = Output()

app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A folder of PDFs and text in, a Parquet index of unit vectors out, and tomorrow only what changed.",
)  # fmt: skip


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands live on the commands."""


def _set_debug(value: bool) -> bool:
    output.debug = value
    return value


def _set_json(value: bool) -> bool:
    output.as_json = value
    return value


AsJson = Annotated[
    bool, typer.Option("--json", callback=_set_json, is_eager=True, help="Print one JSON object on stdout.")
]
Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, is_eager=True, help="Show tracebacks.")]


def tools_maker(context: typer.Context) -> MakeTools:
    """What makes the seams of a run: the real one, or the double that a test gave to the application."""
    if context.obj is not None:
        given: MakeTools = context.obj
        return given
    from embedcli.run.tools import make_tools

    return make_tools
