"""The Typer application that every command registers with, and the output flags that all commands take.

In: argv, parsed by Typer. Out: `app`, and `output`, which `main` reads when it prints an error.
Not here: the commands (a file for each group of them), the exit codes of errors (main.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli import __version__
from embedcli.cli.output import output
from embedcli.cli.values.group import Group, keep_file

if TYPE_CHECKING:
    from embedcli.run.tools import Tools

MakeTools = Callable[..., "Tools"]
"""`embedcli.run.tools.make_tools`, or a double that a test passes as Typer's context object."""


app = typer.Typer(
    cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn folders of documents into a Parquet index of unit vectors; later runs embed only what changed.",
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
    config: Annotated[
        str | None,
        typer.Option(
            "--config", envvar="EMBEDCLI_CONFIG", show_envvar=True, metavar="FILE", callback=keep_file,
            expose_value=False,
            help="Values for flags that are not given, in TOML; default: embedcli.toml beside the index.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Has no options but `--version`: each command declares all of its flags, and gets `--config` from its Group."""


def version() -> None:
    """Print the version."""
    print(__version__)


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
    """The function that makes the tools of a run: the real one, or the double that a test passed to the application."""
    if context.obj is not None:
        given: MakeTools = context.obj
        return given
    from embedcli.run.tools import make_tools

    return make_tools


def print_json(data: Mapping[str, Any]) -> None:
    """The one JSON object of a command, on stdout."""
    print(json.dumps(data))
