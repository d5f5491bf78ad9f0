"""The story of a run: look, plan, read, chunk, reuse, embed, check, store, publish. The page to read first.

In: what the user asked for. Out: the next generation of the index, or nothing where nothing changed, and a Summary.
Whatever ends the run half-way leaves its last checkpoint in `staging/`, from which the next run goes on.
Not here: the stages themselves (run/); they do not know one another, only this module knows their order.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from embedcli.report import Report, Summary
from embedcli.run.begin import Start, again_past_damage, check_asked, history_line, index_of, opened, tidy
from embedcli.run.looking.survey import nothing_to_do, survey
from embedcli.run.record import settle_run
from embedcli.run.summary import finish_too_late, finish_unchanged, summarise

if TYPE_CHECKING:
    from embedcli.config import Options
    from embedcli.run.record import Run
    from embedcli.run.tools import Tools


def ingest(asked: Options, *, tools: Tools, report: Report) -> Summary:
    """Bring the index up to date with its sources. Raises EmbedcliError; what was finished is then checkpointed."""
    index = index_of(asked, tools, report)  # a folder of somebody else gets no history either
    summary = Summary(index.shown, exit_code=1)  # a bug, unless the run ends otherwise
    with history_line(index, summary), closing(report):
        check_asked(index, asked)  # refuses before a folder is made
        with opened(index, asked, tools, report) as start:  # the lock is held
            again_past_damage(lambda: _run(start, summary), start)
    return summary


def _run(start: Start, summary: Summary) -> None:
    tidy(start)
    with summary.timed("looking"):
        found = survey(start)  # what the index knows, the roots to walk, what is new, changed, gone ...
    if not found.in_time:
        return finish_too_late(found, summary)
    if nothing_to_do(found):
        return finish_unchanged(found, summary)
    if start.is_over():
        return finish_too_late(found, summary)
    _embed(settle_run(found), summary)  # under which model and settings


def _embed(run: Run, summary: Summary) -> None:
    """The half of the story that needs a reader or an engine."""
    # imports that a run without work does not pay for
    from embedcli.run.begin_work import begin
    from embedcli.run.outcome import outcome_of
    from embedcli.run.pace.end_early import end_early
    from embedcli.run.publishing.publish import publish_all, publish_so_far, publish_timer
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
            published = publish_all(run, work)
            complete(run.index)  # the cache of searches: disposable, so whatever fails is a warning
    summarise(summary, run, work, published)
