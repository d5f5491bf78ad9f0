"""`embedcli verify` on the command line.

In: flags. Out: each damaged file on stdout, with `--json` one object; a note for the next run; exit 3 for damage.
Not here: the words (texts/verify.py), looking for damage (verbs/verify.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli.app import AsJson, Debug, tools_maker
from embedcli.cli.flags import IndexArgument, IndexFolder, opened_index
from embedcli.cli.texts.verify import hints_of, print_damage, print_verdict
from embedcli.errors import EmbedcliError, StorageError
from embedcli.report import say, say_warning

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
    from embedcli.index.mirror.place import first_hand

    with first_hand(opened_index(index, index_option)) as opened:
        verdict = _verify(opened, context, probe=probe, engine=engine, device=device, as_json=as_json)
    raise typer.Exit(verdict.exit_code)


def _verify(
    opened: Index, context: typer.Context, *, probe: bool, engine: str, device: str | None, as_json: bool
) -> Verdict:
    from embedcli.index import lock
    from embedcli.verbs.verify import verify

    holder = lock.holder_of(opened.folder, opened.disk)
    busy = holder is not None and holder.alive is not False
    verdict = verify(opened, run_is_under_way=busy)
    _warn_of_rights(opened, verdict)
    printed = _report_damage(opened, verdict, as_json)  # before the engine is started: it may fail or hang
    if probe:
        from embedcli.verbs.probed_again import prober

        make_tools = tools_maker(context)
        _compare_engine(opened, verdict, prober(lambda: make_tools(engine, say), opened.folder, device))
    print_verdict(verdict, as_json, printed=printed, probed=probe)
    return verdict


def _report_damage(index: Index, verdict: Verdict, as_json: bool) -> int:
    """Print the damage, note it for the next run, and say what repairs it; returns how many items were printed."""
    if not as_json:
        print_damage(verdict, after=0)
    unnoted = _note_for_the_next_run(index, verdict)
    for hint in hints_of(index, verdict, unnoted):
        say(f"\nhint: {hint}")
    return len(verdict.damage)


def _note_for_the_next_run(index: Index, verdict: Verdict) -> StorageError | None:
    """Note the damaged shards; returns why that could not be done."""
    from embedcli.index import state

    try:
        if verdict.damaged_shards:
            state.note_damaged(index.state, verdict.damaged_shards, index.disk)
    except StorageError as error:
        say_warning(f"cannot note the damage, so the next run will not repair it: {error}")
        return error
    return None


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
