"""The story of a run: plan, read, chunk, reuse, embed, check, write, publish. The page to read first.

In: what the user asked for. Out: the next generation of the index, or nothing where nothing changed, and a Summary.
Whatever ends the run half-way leaves the last checkpoint in `staging/`, from which the next one goes on.
Not here: any of the stages themselves; they do not know one another, and only this module knows their order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from embedcli.config import Options
from embedcli.errors import DamagedShard, EmbedcliError, InputError, StorageError
from embedcli.index import lock, state
from embedcli.index.generations import Index
from embedcli.index.manifest import Generation
from embedcli.report import Report, Summary
from embedcli.run import plan
from embedcli.run.begin import opened
from embedcli.run.known import Before, base_table, look
from embedcli.run.plan import Plan
from embedcli.run.settings import nothing_to_do, rules_of, settle
from embedcli.run.summary import summarise
from embedcli.run.tools import Tools
from embedcli.sources.roots import Scopes, settle_scopes

FOLDERS_TOLD = 5


def ingest(asked: Options, *, tools: Tools, report: Report) -> Summary:
    """Bring the index up to date with its sources. Raises EmbedcliError; what was finished is then checkpointed."""
    index = Index(asked.index, disk=tools.disk, warn=report.warn)
    index.check()
    summary = Summary(str(index.folder), exit_code=1)  # a bug, unless it ends otherwise
    with _remembered(index, summary):
        known = look(index, asked, report)
        settle_scopes(asked, known.roots, everything=known.rebuilding)  # a source that is not there: touch nothing
        with opened(index, report) as held:
            try:
                _run_past_damage(index, asked, tools, report, held, summary)
            finally:
                report.close()
    if summary.idle:
        report.line(f"{summary.sources['unchanged']:,} unchanged, nothing to do")
    return summary


@contextmanager
def _remembered(index: Index, summary: Summary) -> Iterator[None]:
    """A run is a line of the history, be it refused, failed or a bug; not where it made no index."""
    started = time.monotonic()
    error = ""
    try:
        yield
    except EmbedcliError as raised:
        summary.exit_code, error = raised.exit_code, str(raised)
        raise
    finally:
        summary.elapsed_s = round(time.monotonic() - started, 3)
        line = {"ended_at": datetime.now(UTC).isoformat(timespec="seconds"), **summary.to_json(), "error": error}
        with suppress(StorageError):
            if index.state.is_dir():
                state.append_run(index.state, line, index.disk)


def _run_past_damage(
    index: Index, asked: Options, tools: Tools, report: Report, held: lock.Lock, summary: Summary
) -> None:
    """A shard found damaged on the way is noted, and the run begun again: its documents are then read anew."""
    met: set[str] = set()
    while True:
        known = look(index, asked, report, quiet=True)
        scopes = settle_scopes(asked, known.roots, everything=known.rebuilding)
        try:
            return _run(index, asked, known, scopes, tools, report, held, summary)
        except DamagedShard as error:
            if error.name in met:
                raise
            met.add(error.name)
            report.warn(f"{error}; its documents are read again")
            state.note_damaged(index.state, {error.name}, tools.disk)


def _run(
    index: Index, asked: Options, known: Before, scopes: Scopes, tools: Tools, report: Report, held: lock.Lock,
    summary: Summary,
) -> None:  # fmt: skip
    number = known.current.number if known.current else None
    index.clear(keep=asked.keep_generations)
    damaged = index.damaged(known.current) if known.current else set()
    base, remembered = base_table(index, known, damaged)
    rules = rules_of(asked, known)
    mounts = known.current.mounts if known.current else {}
    tonight = plan.make(base, scopes, mounts, rules, say=report.looking)
    if elsewhere := plan.read_elsewhere(tonight, base, damaged):
        report.line(f"{elsewhere:,} documents of damaged shards are read again, wherever they lie")
    report.line(tonight.walked.line())
    for folder, why in sorted(tonight.unlisted.items())[:FOLDERS_TOLD]:
        report.warn(f"`{folder}` {why}: what the index has of it stays as it is")
    if tonight.tasks.count + len(tonight.outcomes) + base.num_rows == 0:
        raise InputError(
            f"no files found in {', '.join(f'`{scope.root.path}`' for scope in scopes.scopes)}",
            "check the path; hidden files and what `--include`, `--exclude`, `.embedcliignore` leave out do not count",
        )
    if tonight.excluded and not (tonight.unchanged or tonight.tasks.count or tonight.outcomes):
        raise InputError(
            f"the filters leave none of {len(tonight.excluded):,} known sources; nothing was changed",
            "mend `--include` and `--exclude`; an empty pattern, `''`, forgets those that are remembered",
        )
    if nothing_to_do(tonight, known, scopes, asked) and not damaged:
        state.write_seen(index.state, number, [*remembered, *tonight.seen], tools.disk) if tonight.seen else None
        assert known.current is not None
        for item in known.leftovers if tonight.whole else ():
            tools.disk.remove(item.folder)
        _summarise_unchanged(summary, known.current, base, tonight, asked)
        return
    from embedcli.run.stream import Embedding  # half a second of imports, and only where there is work

    model = tools.resolve(asked, known.settings)
    settings, prints = settle(asked, known, model, tools.device_kind(asked))
    embedding = Embedding(
        index=index, asked=asked, known=known, scopes=scopes, plan=tonight, base=base, remembered=remembered,
        rules=rules, model=model, settings=settings, fingerprints=prints, tools=tools, report=report, held=held,
    )  # fmt: skip
    embedding.run(summary)


def _summarise_unchanged(summary: Summary, current: Generation, base: Any, tonight: Plan, asked: Options) -> None:
    summarise(summary, generation=current, plan=tonight, table=base, moved=0, news=0, strict=asked.strict)
    summary.model, summary.dim = current.settings.model, current.settings.dim
    summary.fingerprint = current.fingerprints.model
