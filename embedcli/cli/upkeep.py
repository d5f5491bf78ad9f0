"""The commands that change an index without a run: moved, forget, rollback, unlock.

In: argv. Out: what the verb did on stderr, with `--json` one object on stdout.
Not here: the verbs themselves (verbs/), the exit codes of errors (main.py).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli.app import AsJson, Debug, print_json
from embedcli.cli.flags import IndexArgument, IndexFolder, opened_index
from embedcli.report import many, say, say_warning

if TYPE_CHECKING:
    from embedcli.verbs.edits.change import Done


def moved(
    old: Annotated[str, typer.Argument(help="A root of the index, or a folder or source below one.")],
    new: Annotated[str, typer.Argument(help="Its new path.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Give a root, or a part of one, another path: uris change, vectors stay; of a whole root also ids."""
    from embedcli.verbs.edits.moved import moved

    done = moved(opened_index(None, index), old, new, warn=say_warning)
    _print_done(done, as_json, f"{_concerned(done)} have new uris, nothing was embedded")


def forget(
    path: Annotated[str, typer.Argument(help="A root of the index, or a folder or source below one.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove a root, or a part of one, and its documents from the index; its files stay."""
    from embedcli.verbs.edits.forget import forget

    done = forget(opened_index(None, index), path, warn=say_warning)
    _print_done(done, as_json, f"{_concerned(done)} forgotten")


def rollback(
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    to: Annotated[
        int | None, typer.Option(help="The number of the generation; default: the one before the current one.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make an older generation the current one again.

    This works even when the current generation or its symlink is damaged; then
    the default is the newest generation that is whole.
    """
    from embedcli.verbs.edits.rollback import rollback

    done = rollback(opened_index(index, index_option), to=to, warn=say_warning)
    old = f"; {done.before} is kept for an hour" if done.before is not None else ""
    told = f"; loaders follow by `changes/{done.changes:06d}.parquet`" if done.has_changes else ""
    _print_done(done, as_json, f"is current again{old}{told}")


def unlock(
    index: IndexArgument = None, index_option: IndexFolder = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Clear a lock that a dead host left on a network filesystem."""
    from embedcli.cli.texts.status import when
    from embedcli.verbs.edits.unlock import unlock

    opened = opened_index(index, index_option)
    holder = unlock(opened, warn=say_warning)
    if as_json:
        held_by = {"host": holder.host, "pid": holder.pid, "since": holder.since} if holder else None
        print_json({"exit_code": 0, "index": opened.shown, "held_by": held_by})
    if holder is None:
        say(f"index `{opened.shown}` is not locked")
    else:
        who = (
            f"of pid {holder.pid} on `{holder.host}` since {when(holder.since)}"
            if holder.pid
            else "file, which was damaged"
        )
        say(f"cleared the lock {who}")


def _concerned(done: Done) -> str:
    return f"{many(done.sources, 'source')}, {many(done.chunks, 'chunk')}"


def _print_done(done: Done, as_json: bool, text: str) -> None:
    if as_json:
        print_json({"exit_code": 0, **dataclasses.asdict(done)})
    say(f"generation {done.generation}: {text}")
