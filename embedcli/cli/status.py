"""`embedcli status` on the command line.

In: flags. Out: the status for people or, with `--failed`, the sources that could not be read, on stdout; with `--json`
one object.
Not here: collecting the status (verbs/status.py), its text (texts/status.py).
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from typing import Annotated, Any

import typer

from embedcli.cli.app import AsJson, Debug, print_json
from embedcli.cli.flags import IndexArgument, IndexFolder, opened_index
from embedcli.records import REASONS, from_printable
from embedcli.report import one_line

Reason = Annotated[str | None, typer.Option(help="With --failed: only sources with this reason.")]
Null = Annotated[bool, typer.Option("--null", "-0", help="With --failed: print only paths, each ended by NUL.")]


def status(
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="List the sources that failed, are partial or stale.")
    ] = False,
    reason: Reason = None,
    null: Null = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the index, its last runs and the run in progress."""
    from embedcli.cli.texts.status import status_lines
    from embedcli.verbs.status import status, troubled

    _check_flags(failed=failed, reason=reason, null=null, as_json=as_json)
    opened = opened_index(index, index_option)
    if failed:
        _print_troubled(troubled(opened, reason=reason).to_pylist(), null=null, as_json=as_json)
        return
    found = status(opened)
    if as_json:
        print_json({"exit_code": 0, **dataclasses.asdict(found)})
    else:
        print("\n".join(status_lines(found)))


def _check_flags(*, failed: bool, reason: str | None, null: bool, as_json: bool) -> None:
    if (reason is not None or null) and not failed:
        raise typer.BadParameter("can only be used with --failed", param_hint="-0" if null else "--reason")
    if null and as_json:
        raise typer.BadParameter("cannot be combined with --json", param_hint="-0")
    if reason is not None and reason not in REASONS:
        raise typer.BadParameter(f"`{reason}` is not one of {', '.join(sorted(REASONS))}", param_hint="--reason")


def _print_troubled(rows: list[dict[str, Any]], *, null: bool, as_json: bool) -> None:
    if null:
        sys.stdout.buffer.write(b"".join(from_printable(row["uri"]) + b"\0" for row in rows))
        return
    found = Counter(row["reason"] for row in rows)
    counts = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    if as_json:
        print_json({"exit_code": 0, "reasons": counts, "sources": rows})
        return
    for reason, count in counts.items():
        print(f"{count:>9,} {reason}")
    print("" if rows else "nothing failed")
    order = list(counts)
    for row in sorted(rows, key=lambda row: order.index(row["reason"])):
        print(f"{row['status']:<8} {row['reason']:<14} {one_line(row['uri'])}")
