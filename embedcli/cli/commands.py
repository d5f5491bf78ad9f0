"""The commands of the program, each loaded only when somebody calls it: every start pays for what is imported.

In: a name. Out: the command as Typer makes it of the function with that name; its help ends with the text of its file
in data/help. Not here: the functions (a file for each group of them), values of their flags (group.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

LISTED = {
    "ingest": ("ingest", "Bring an index up to date with its sources."),
    "config": ("config", "Show the settings of `ingest` as they would count now, and where each comes from."),
    "bench": ("machine", "Measure the speed of this machine and estimate hours for a corpus."),
    "doctor": ("doctor", "Check what a run needs from this machine."),
    "pull": ("machine", "Download a model, so that later runs need no network."),
    "embed": ("pipes", "Embed texts from stdin, one a line, and write their vectors to stdout."),
    "rows": ("pipes", "Write the rows of an index to stdout."),
    "shards": (
        "pipes",
        "Print where the Parquet files of the current generation are, a line each, for DuckDB, Polars and others.",
    ),
    "recut": ("recut", "Write the vectors narrower or in fewer bits, without an engine."),
    "search": ("search", "Find passages, by meaning and by words."),
    "serve": (
        "serve",
        "Serve vectors over HTTP, as OpenAI's API does, and the searches of an INDEX, with a page at `/`.",
    ),
    "status": ("status", "Show the index, its last runs and the run in progress."),
    "sync": ("sync", "Make a vector database hold the current generation: only what changed is written and deleted."),
    "changes": (
        "sync",
        "Print what changed since a call before, as rows to write and ids to delete, for any other database.",
    ),
    "moved": (
        "upkeep",
        "Give a root, or a part of one, another path: uris change, vectors stay; of a whole root also ids.",
    ),
    "forget": ("upkeep", "Remove a root, or a part of one, and its documents from the index; its files stay."),
    "rollback": ("upkeep", "Make an older generation the current one again."),
    "unlock": ("upkeep", "Clear a lock that a dead host left on a network filesystem."),
    "verify": ("verify", "Look for damage in every file and row; exit 3 if there is any."),
    "version": ("app", "Print the version."),
}
"""By name: the file of the command's function, and the first sentence of its docstring, which the listing shows."""


class Commands(Mapping[str, Any]):
    """All commands by name. `prepare` is called with each command when it is loaded."""

    def __init__(self, prepare: Callable[[Any], None]) -> None:
        self._prepare = prepare
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            file, _ = LISTED[name]
            function = getattr(import_module(f"embedcli.cli.{file}"), name)
            self._loaded[name] = command = _made_of(function, name)
            self._prepare(command)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(LISTED)

    def __len__(self) -> int:
        return len(LISTED)


class Command(TyperCommand):
    """A command whose help goes on after its flags with examples and details: the file of its name in data/help, as it
    is. The file is read only when the help is shown."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from importlib.resources import files

        text = files("embedcli") / "data" / "help" / f"{self.name}.txt"
        if text.is_file():
            formatter.write("\n" + text.read_text("utf-8"))


def _made_of(function: Callable[..., None], name: str) -> Any:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command(name, cls=Command)(function)
    return typer.main.get_command(app)
