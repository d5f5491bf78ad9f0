"""`embedcli verify` on the command line.

In: flags. Out: each damaged file on stdout, with `--json` one object; a note for the next run; exit 3 for damage.
Not here: looking for damage (verbs/verify.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli.app import AsJson, Debug, MakeTools, print_json, tools_maker
from embedcli.cli.flags import IndexArgument, IndexFolder, opened_index
from embedcli.config import Options
from embedcli.errors import EmbedcliError, StorageError, quoted
from embedcli.report import many, one_line, say, say_warning

if TYPE_CHECKING:
    from embedcli.columns import Floats
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.verbs.verify import Verdict

Engine = Annotated[str, typer.Option(help="With --probe: auto, sglang or torch.")]
Device = Annotated[str | None, typer.Option(help="With --probe: cpu, cuda or mps; default: the device of the index.")]


def verify(
    context: typer.Context,
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    probe: Annotated[bool, typer.Option("--probe", help="Also embed the probe set and compare its vectors.")] = False,
    engine: Engine = "auto",
    device: Device = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look for damage in every file and row; exit 3 if there is any."""
    from embedcli.index import lock
    from embedcli.verbs.verify import verify

    opened = opened_index(index, index_option)
    holder = lock.read_holder(opened.folder)
    busy = holder is not None and holder.alive is not False
    verdict = verify(opened, run_is_under_way=busy)
    _warn_of_rights(opened, verdict)
    printed = _report_damage(opened, verdict, as_json)  # before the engine is started: it may fail or hang
    if probe:
        _compare_engine(opened, verdict, _prober(tools_maker(context), opened.folder, engine, device))
    _print_verdict(verdict, as_json, printed=printed, probed=probe)
    raise typer.Exit(verdict.exit_code)


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


def _report_damage(index: Index, verdict: Verdict, as_json: bool) -> int:
    """Print the damage, note it for the next run, and say what repairs it; returns how many items were printed."""
    from embedcli.index import state

    if not as_json:
        _print_damage(verdict, after=0)
    if verdict.damaged_shards:
        hint = f"`embedcli ingest --index {quoted(index.folder)}` reads the documents of damaged shards again"
        try:
            state.note_damaged(index.state, verdict.damaged_shards, index.disk)
        except StorageError as error:
            say_warning(f"cannot note the damage, so the next run will not repair it: {error}")
            hint = error.hint
        say(f"\nhint: {hint}")
    elif any(item.file.endswith("/documents.parquet") for item in verdict.damage):
        say(f"\nhint: {index.way_back(verdict.generation)}")
    return len(verdict.damage)


def _warn_of_rights(index: Index, verdict: Verdict) -> None:
    from embedcli.verbs.rights import openness

    told, mend = openness(index, index.read(verdict.generation))
    if told:
        say_warning(f"{told}: {mend}")


def _compare_engine(index: Index, verdict: Verdict, probe: Callable[[Generation], Floats]) -> None:
    from embedcli.verbs.verify import compare_engine

    try:
        compare_engine(index, verdict, probe)
    except EmbedcliError as error:
        if not verdict.damage:
            raise
        say_warning(f"the probe set was not compared: {error}")


def _print_damage(verdict: Verdict, *, after: int) -> None:
    for damage in verdict.damage[after:]:
        print(f"{one_line(damage.file)}: {damage.problem}", flush=True)


def _print_verdict(verdict: Verdict, as_json: bool, *, printed: int, probed: bool) -> None:
    if as_json:
        print_json({"exit_code": verdict.exit_code, **verdict.to_json()})
        return
    _print_damage(verdict, after=printed)
    if not verdict.damage:
        cosine = f", probe set {verdict.probe_cosine:.4f}" if verdict.probe_cosine is not None else ""
        none = ", the index has no probe set yet" if probed and not cosine else ""
        print(
            f"generation {verdict.generation} is undamaged: {many(verdict.shards, 'shard')},"
            f" {many(verdict.rows, 'row')}, {many(verdict.sources, 'source')}{cosine}{none}"
        )
