"""The commands that look after an index: status, verify, moved, forget, rollback, unlock.

In: argv. Out: text for 80 columns, or with `--json` one object, on stdout; what a verb did on stderr.
Not here: the verbs themselves (verbs/), the exit codes of errors (main.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli.cli.app import AsJson, Debug, MakeTools, app, tools_maker
from embedcli.cli.flags import IndexArgument, IndexFolder, index_of
from embedcli.config import Options
from embedcli.errors import EmbedcliError, StorageError
from embedcli.records import REASONS, from_printable
from embedcli.report import many, say

if TYPE_CHECKING:
    from embedcli.columns import Floats
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.verbs.change import Done
    from embedcli.verbs.verify import Verdict

Reason = Annotated[str | None, typer.Option(help="With --failed: only sources with this reason.")]
Null = Annotated[bool, typer.Option("--null", "-0", help="With --failed: only paths, each ended by NUL.")]
Engine = Annotated[str, typer.Option(help="With --probe: auto, sglang or torch.")]
Device = Annotated[str | None, typer.Option(help="With --probe: cpu, cuda or mps; the index's own otherwise.")]


@app.command()
def verify(
    context: typer.Context,
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    probe: Annotated[bool, typer.Option("--probe", help="Embed the probe set and compare.")] = False,
    engine: Engine = "auto",
    device: Device = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look for damage in every file and row; exit 3 where there is some."""
    from embedcli.index import lock
    from embedcli.verbs.verify import verify

    opened = _index(index, index_option)
    holder = lock.read_holder(opened.folder)
    busy = holder is not None and holder.alive is not False
    verdict = verify(opened, run_is_under_way=busy)
    told = _tell_damage(opened, verdict, as_json)  # before the engine, which may not start, or hang
    if probe:
        _compare_engine(opened, verdict, _prober(tools_maker(context), opened.folder, engine, device))
    _print_verdict(verdict, as_json, told=told, probed=probe)
    raise typer.Exit(verdict.exit_code)


@app.command()
def status(
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    failed: Annotated[bool, typer.Option("--failed", help="List what failed, is partial or stale.")] = False,
    reason: Reason = None,
    null: Null = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tell how the index stands, and what runs."""
    from embedcli.cli import status_text
    from embedcli.verbs.status import status, troubled

    _check_flags(failed=failed, reason=reason, null=null, as_json=as_json)
    opened = _index(index, index_option)
    if failed:
        _print_troubled(troubled(opened, reason=reason).to_pylist(), null=null, as_json=as_json)
        return
    found = status(opened)
    if as_json:
        _print_json({"exit_code": 0, **dataclasses.asdict(found)})
    else:
        print("\n".join(status_text.status_lines(found)))


@app.command()
def moved(
    old: Annotated[str, typer.Argument(help="A root as the index knows it.")],
    new: Annotated[str, typer.Argument(help="Where it is now.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Give a root another path: uris change, ids and vectors stay."""
    from embedcli.verbs.moved import moved

    done = moved(_index(None, index), old, new, warn=_warn)
    _print_done(done, as_json, f"{_concerned(done)} under another uri, none embedded")


@app.command()
def forget(
    root: Annotated[str, typer.Argument(help="A root as the index knows it.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove a root and its documents from the index; its files stay."""
    from embedcli.verbs.forget import forget

    done = forget(_index(None, index), root, warn=_warn)
    _print_done(done, as_json, f"{_concerned(done)} forgotten")


@app.command()
def rollback(
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    to: Annotated[int | None, typer.Option(help="A generation that is kept; the parent otherwise.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make an older generation the current one again."""
    from embedcli.verbs.rollback import rollback

    done = rollback(_index(index, index_option), to=to, warn=_warn)
    kept = f"; {done.before} is kept for an hour" if done.before is not None else ""
    _print_done(done, as_json, f"is current again{kept}")


@app.command()
def unlock(
    index: IndexArgument = None, index_option: IndexFolder = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Clear a lock that a dead host left on a network filesystem."""
    from embedcli.cli.status_text import when
    from embedcli.verbs.unlock import unlock

    opened = _index(index, index_option)
    holder = unlock(opened, warn=_warn)
    if as_json:
        held_by = {"host": holder.host, "pid": holder.pid, "since": holder.since} if holder else None
        _print_json({"exit_code": 0, "index": str(opened.folder), "held_by": held_by})
    if holder is None:
        say(f"index `{opened.folder}` is not locked")
    else:
        who = (
            f"of pid {holder.pid} on `{holder.host}` since {when(holder.since)}"
            if holder.pid
            else "that nobody can read"
        )
        say(f"cleared the lock {who}")


# ---- what the verbs are made with


def _index(argument: str | None, option: str | None) -> Index:
    from embedcli.index.disk import Disk
    from embedcli.index.generations import Index

    return Index(index_of(argument, option), disk=Disk(), warn=_warn)


def _check_flags(*, failed: bool, reason: str | None, null: bool, as_json: bool) -> None:
    if (reason is not None or null) and not failed:
        raise typer.BadParameter("goes with --failed only", param_hint="-0" if null else "--reason")
    if null and as_json:
        raise typer.BadParameter("does not go with --json", param_hint="-0")
    if reason is not None and reason not in REASONS:
        raise typer.BadParameter(f"`{reason}` is not one of {', '.join(sorted(REASONS))}", param_hint="--reason")


def _prober(make_tools: MakeTools, folder: Path, engine: str, device: str | None) -> Callable[[Generation], Floats]:
    def embed(generation: Generation) -> Floats:
        from embedcli.engines.probe import probe, probe_set
        from embedcli.models.tokenizer import load_tokenizer

        settings = dataclasses.replace(generation.settings, max_tokens=generation.probe_max_tokens)
        tools = make_tools(engine, say)
        model = tools.resolve(Options(index=folder), settings)
        opened = tools.open_engine(model, settings, device or settings.device_kind)
        try:
            tokens = load_tokenizer(model.folder, prompt=model.prompt)
            return probe(opened, probe_set(tokens.row_of, settings.max_tokens))
        finally:
            opened.close()

    return embed


# ---- what is printed


def _warn(text: str) -> None:
    say(f"warning: {text}")


def _concerned(done: Done) -> str:
    return f"{many(done.sources, 'source')}, {many(done.chunks, 'chunk')}"


def _print_json(data: Mapping[str, Any]) -> None:
    print(json.dumps(data))


def _print_done(done: Done, as_json: bool, text: str) -> None:
    if as_json:
        _print_json({"exit_code": 0, **dataclasses.asdict(done)})
    say(f"generation {done.generation}: {text}")


def _tell_damage(index: Index, verdict: Verdict, as_json: bool) -> int:
    """Print the damage, note it for the next run, and say what heals it; returns how much was printed."""
    from embedcli.index import state

    if not as_json:
        _print_damage(verdict, 0)
    if verdict.damaged_shards:
        try:
            state.note_damaged(index.state, verdict.damaged_shards, index.disk)
        except StorageError as error:
            _warn(f"the damage cannot be noted, so that the next run does not know of it: {error}")
        say(f"\nhint: `embedcli ingest --index {index.folder}` reads the documents of what is damaged again")
    elif any(item.file.endswith("/documents.parquet") for item in verdict.damage):
        say(f"\nhint: {index.way_back(verdict.generation)}")
    return len(verdict.damage)


def _compare_engine(index: Index, verdict: Verdict, probe: Callable[[Generation], Floats]) -> None:
    from embedcli.verbs.verify import compare_engine

    try:
        compare_engine(index, verdict, probe)
    except EmbedcliError as error:
        if not verdict.damage:
            raise
        _warn(f"the probe set was not compared: {error}")


def _print_damage(verdict: Verdict, told: int) -> None:
    from embedcli.report import one_line

    for damage in verdict.damage[told:]:
        print(f"{one_line(damage.file)}: {damage.problem}", flush=True)


def _print_verdict(verdict: Verdict, as_json: bool, *, told: int, probed: bool) -> None:
    if as_json:
        _print_json({"exit_code": verdict.exit_code, **verdict.to_json()})
        return
    _print_damage(verdict, told)
    if not verdict.damage:
        cosine = f", probe set {verdict.probe_cosine:.4f}" if verdict.probe_cosine is not None else ""
        none = ", no probe set to compare with yet" if probed and not cosine else ""
        print(
            f"generation {verdict.generation} is sound: {many(verdict.shards, 'shard')},"
            f" {many(verdict.rows, 'row')}, {many(verdict.sources, 'source')}{cosine}{none}"
        )


def _print_troubled(rows: list[dict[str, Any]], *, null: bool, as_json: bool) -> None:
    from embedcli.report import one_line

    if null:
        sys.stdout.buffer.write(b"".join(from_printable(row["uri"]) + b"\0" for row in rows))
        return
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    counts = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    if as_json:
        _print_json({"exit_code": 0, "reasons": counts, "sources": rows})
        return
    for reason, count in counts.items():
        print(f"{count:>9,} {reason}")
    print("" if rows else "nothing failed")
    order = list(counts)
    for row in sorted(rows, key=lambda row: order.index(row["reason"])):
        print(f"{row['status']:<8} {row['reason']:<14} {one_line(row['uri'])}")
