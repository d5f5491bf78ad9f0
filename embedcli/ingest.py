"""The story of a run: look, plan, read, chunk, reuse, embed, check, store, publish. The page to read first.

In: what the user asked for. Out: the next generation of the index, or nothing where nothing changed, and a Summary.
Whatever ends the run half-way leaves its last checkpoint in `staging/`, from which the next run goes on.
Not here: the stages themselves (run/); they do not know one another, only this module knows their order.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from embedcli.index.clearing import clear
from embedcli.index.damage import mend_probe
from embedcli.index.mirror.place import open_index
from embedcli.report import Report, Summary
from embedcli.run.begin import again_past_damage, check_asked, history_line, opened
from embedcli.run.known import look
from embedcli.run.pace.time_limit import OutOfTime
from embedcli.run.plan import make_plan
from embedcli.run.record import nothing_to_do, settle_run
from embedcli.run.summary import finish_too_late, finish_unchanged, summarise
from embedcli.sources.lists import settle_sources
from embedcli.sources.streams import spooled

if TYPE_CHECKING:
    from embedcli.config import Options
    from embedcli.index.generations import Index
    from embedcli.index.lock import Hold
    from embedcli.run.record import Run
    from embedcli.run.tools import Tools


def ingest(asked: Options, *, tools: Tools, report: Report) -> Summary:
    """Bring the index up to date with its sources. Raises EmbedcliError; what was finished is then checkpointed."""
    index = open_index(asked.index, disk=tools.disk, warn=report.warn)
    index.check()  # a folder of somebody else gets no history either
    summary = Summary(index.shown, exit_code=1)  # a bug, unless the run ends otherwise
    with history_line(index, summary), closing(report):
        check_asked(index, asked)  # refuses before a folder is made
        with opened(index, report, asked.mode) as lock, spooled(asked, index.staging) as asked:
            again_past_damage(lambda: _run(index, asked, tools, report, lock, summary), index, report)
    return summary


def _run(index: Index, asked: Options, tools: Tools, report: Report, lock: Hold, summary: Summary) -> None:
    def is_over() -> bool:
        return tools.seconds_left() <= 0

    clear(index, keep=asked.keep_generations)
    mend_probe(index)
    with summary.timed("looking"):
        known = look(index, asked)  # the current generation, what killed runs left, what is damaged
        scopes = settle_sources(asked, known.roots, everything=known.rebuilding)  # roots, or parts of them, to walk
        try:
            plan = make_plan(known, scopes, asked, report, is_over)  # new, changed, gone ...; exit 15: too much is gone
        except OutOfTime:
            plan = None
    if plan is None:
        return finish_too_late(index, known, None, asked, report, summary)
    if nothing_to_do(plan, known, scopes, asked):
        return finish_unchanged(index, known, plan, asked, report, summary)
    if is_over():
        return finish_too_late(index, known, plan, asked, report, summary)

    model = tools.resolve(asked, known.memory.settings)
    run = settle_run(
        index=index,
        asked=asked,
        known=known,
        scopes=scopes,
        plan=plan,
        model=model,
        tools=tools,
        report=report,
        lock=lock,
    )
    _embed(run, summary)


def _embed(run: Run, summary: Summary) -> None:
    """The half of the story that needs a reader or an engine."""
    # half a second of imports, and only where there is work
    from embedcli.run.begin_work import begin
    from embedcli.run.outcome import outcome_of
    from embedcli.run.pace.end_early import end_early
    from embedcli.run.publish import clear_staging, publish, publish_so_far, publish_timer
    from embedcli.run.stream import stream
    from embedcli.search.complete import complete

    if run.tools.workforce is not None:  # workers do the same with slices of the plan, and this run adopts it
        from embedcli.cluster.coordinator import stream_over_workers as stream

    work = begin(run)  # free space, the staging folder, what killed runs had finished, every vector that is known
    publish_is_due = publish_timer(run)
    with work.checkpoints, stream(run, work) as passes:
        for documents in passes:  # read, chunked, known vectors reused, the rest embedded: whole now, or refused
            for document in documents:
                finished = outcome_of(document, run.rules, run.fingerprints, changed_in=work.checkpoints.number)
                work.checkpoints.add(finished)
                work.tally.add(document, finished)
            work.checkpoints.write_if_due()
            if publish_is_due():
                run = publish_so_far(run, work)
            run.report.progress(work.tally.progress)
    with summary.timed("publishing"):
        if work.tally.progress.documents_left:  # the time is over: the next run does the rest
            published = end_early(run, work)
        else:
            published = publish(run, work, complete=run.is_whole, dropped=run.plan.dropped)
            clear_staging(run)
            complete(run.index)  # the cache of searches: disposable, so whatever fails is a warning
    summarise(summary, run, work, published)
