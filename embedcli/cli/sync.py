"""`embedcli sync` and `embedcli changes` on the command line.

In: argv. Out: `sync`: what was done, on stderr, with `--json` one object on stdout; `changes`: the changes on stdout,
and the number to remember on stderr.
Not here: the verbs (verbs/sync.py, verbs/changes.py), the stores (stores/).
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli.app import AsJson, Debug, print_json
from embedcli.cli.flags import IndexArgument, IndexFolder, index_of, one_of, opened_index
from embedcli.errors import UsageError
from embedcli.report import Report, many, say

if TYPE_CHECKING:
    from embedcli.verbs.sync import Synced

TargetArgument = Annotated[
    str,
    typer.Argument(help="The vector database: a URL, or its kind with a path or a URL; the kinds are listed below."),
]
Into = Annotated[str | None, typer.Option(help="The name of the table; default: the name of the index's folder.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Let this index take the place of another index that the table holds.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would be written and deleted.")]


def sync(
    target: TargetArgument,
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    into: Into = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a vector database hold the current generation: only what changed is written and deleted."""
    from embedcli.stores.target import parse_target
    from embedcli.verbs.sync import sync

    parsed = parse_target(target, index=index_of(index, index_option), into=into)
    with closing(Report()) as report:
        synced = sync(opened_index(index, index_option), parsed, replace=replace, dry_run=dry_run, report=report)
    if as_json:
        print_json({"exit_code": 0, **dataclasses.asdict(synced)})
    say(_told(synced))


def _told(synced: Synced) -> str:
    place = f"`{synced.table}` of `{synced.target}`"
    if synced.did == "unchanged":
        return f"generation {synced.generation} is in {place} already: {many(synced.rows, 'row')}"
    verb = "would be" if synced.dry_run else "was" if synced.upserts == 1 else "were"
    done = f"{many(synced.upserts, 'row')} {verb} written, {synced.deletes:,} deleted"
    return f"generation {synced.generation} to {place}: {done}, {many(synced.rows, 'row')} in all"


def changes(
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    since: Annotated[int, typer.Option(min=0, help="The number that the last call printed; 0 for every row.")] = 0,
    format: Annotated[str, typer.Option(help="jsonl, parquet or es-bulk.")] = "jsonl",
    debug: Debug = False,
) -> None:
    """Print what changed since a call before, as rows to write and ids to delete, for any other database."""
    from embedcli.stores import formats
    from embedcli.verbs.changes import changes_since

    one_of("--format", format, formats.FORMATS)
    if format == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", "write it to a file: `> changes.parquet`")
    delta = changes_since(opened_index(index, index_option), since)
    last = {"since": delta.since, "number": delta.number, "generation": delta.generation}
    sink = sys.stdout.buffer
    if format == "jsonl":
        formats.write_jsonl(sink, delta.rows(), delta.deletes, last=last)
    elif format == "es-bulk":
        formats.write_bulk(sink, delta.rows(), delta.deletes)
    else:
        formats.write_parquet(sink, delta.rows(), delta.deletes, dim=delta.dim, last=last)
    sink.flush()
    say(f"{many(delta.upserts, 'row')} to write, {len(delta.deletes):,} to delete; next time: `--since {delta.number}`")
