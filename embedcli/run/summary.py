"""The summary of a run, filled in at its end.

In: the plan, each source as it is finished, what was published. Out: counts and an exit code.
Not here: how they are printed (cli/, report.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents, state
from embedcli.records import TROUBLED, SourceKey
from embedcli.report import Report, Summary, duration, many
from embedcli.run.plan import Plan
from embedcli.run.publishing.recipe import mend_recipe
from embedcli.run.tally import Tally

if TYPE_CHECKING:
    from embedcli.config import Options
    from embedcli.index.manifest import Generation
    from embedcli.run.begin_work import Work
    from embedcli.run.looking.survey import Survey
    from embedcli.run.publishing.publish import Published
    from embedcli.run.record import Run

_TROUBLED = pa.array(TROUBLED)
NEWS_NAMED = 100
MORE_TIME = "give a longer `--time-limit` or a later `--deadline`"


def summarise(summary: Summary, run: Run, work: Work, published: Published) -> None:
    """Fill in the summary of a run that had work."""
    tally = work.tally
    _describe(summary, published.generation, run.plan, tally, published.table, run.asked)
    summary.model, summary.dim, summary.fingerprint = run.settings.model, run.settings.dim, run.fingerprints.model
    summary.chunks |= {"embedded": tally.embedded, "reused": tally.reused}
    summary.tokens["embedded"] = tally.progress.tokens
    summary.seconds |= {name: round(value, 3) for name, value in tally.seconds.items()}
    summary.bytes_rewritten = tally.bytes_rewritten
    summary.replaced |= tally.replaced
    summary.tokens_per_s = round(tally.progress.tokens_per_s, 1)
    if summary.idle and not summary.left["sources"]:
        _say_unchanged(summary, run.report)
    read = tally.progress.documents - len(work.adopted)
    if summary.left["sources"] and not (read or tally.embedded or tally.reused or tally.progress.tokens):
        _say_no_progress(summary, tally, run.report)


def _say_no_progress(summary: Summary, tally: Tally, report: Report) -> None:
    """Every run with this little time would end like this one, so somebody has to know."""
    since = tally.progress.loading_since
    loading_s = summary.seconds.get("loading", 0.0) + (0.0 if since is None else time.monotonic() - since)
    parts = [f"{duration(summary.seconds['looking'])} of looking for changes"]
    if loading_s:
        parts.append(f"{duration(loading_s)} of loading the model{'' if since is None else ', which was not ready'}")
    report.news(f"the time was over before a document was finished, after {' and '.join(parts)}: {MORE_TIME}")


def finish_unchanged(found: Survey, summary: Summary) -> None:
    """Remember what was seen, and fill in the summary of a run without work."""
    index, known, plan = found.start.index, found.known, found.plan
    current = known.current
    assert current is not None
    if plan.seen:
        state.write_seen(index.state, current.number, [*known.seen, *plan.seen], index.disk)
    for item in known.leftovers if plan.whole else ():
        index.disk.remove(item.folder)
    mend_recipe(index, current, found.start.report)
    _describe(summary, current, plan, Tally.of(plan), known.table, found.start.asked)
    settings = current.settings
    summary.model, summary.dim, summary.fingerprint = settings.model, settings.dim, current.fingerprints.model
    _say_unchanged(summary, found.start.report)


def _say_unchanged(summary: Summary, report: Report) -> None:
    report.line(f"{summary.sources['unchanged']:,} unchanged, nothing to do")


def finish_too_late(found: Survey, summary: Summary) -> None:
    """Fill in the summary of a run whose time was over before it did anything."""
    known, plan, nothing = found.known, found.plan, Plan.empty()
    index, asked, report = found.start.index, found.start.asked, found.start.report
    if plan.seen and known.current is not None:
        state.write_seen(index.state, known.current.number, [*known.seen, *plan.seen], index.disk)
    _describe(summary, known.current, nothing, Tally.of(nothing), known.table, asked)
    summary.complete = False
    summary.exit_code = 3 if asked.require_complete else summary.exit_code
    looked = f"after {duration(summary.seconds['looking'])} of looking for them"
    if not found.in_time:
        report.news(f"the time was over before the changes were known, {looked}; nothing was changed: {MORE_TIME}")
        return
    summary.left = {"sources": plan.tasks.count, "bytes": plan.tasks.size_bytes}
    left = many(plan.tasks.count, "document")
    waiting = f"{left} are left for the next run"
    report.news(f"the time was over when the changes were known, {looked}; {waiting}: {MORE_TIME}")


def _describe(
    summary: Summary, generation: Generation | None, plan: Plan, tally: Tally, table: pa.Table, asked: Options
) -> None:
    """What does not depend on the engine, and the exit code. `table`: every document of the generation."""
    by_status = documents.count_by(table, "status")
    progress = tally.progress
    summary.left = {"sources": progress.documents_left, "bytes": progress.bytes_total - progress.bytes_read}
    if generation is not None:
        summary.generation = generation.number
        summary.complete = generation.complete and not progress.documents_left
        summary.chunks["total"] = generation.counts["chunks"]
        summary.tokens["total"] = generation.counts["tokens"]
    summary.sources = _source_counts(plan, tally, by_status)
    summary.indexed = by_status.get("indexed", 0)
    summary.skipped = _count_skipped(table)
    summary.failures_new = len(tally.news)
    summary.news = _first_news(table, tally.news)
    summary.failures = documents.count_by(table.filter(pc.is_in(table.column("status"), _TROUBLED)), "reason")
    troubled = sum(by_status.get(name, 0) for name in TROUBLED)
    wanting = asked.require_complete and not summary.complete
    summary.exit_code = 3 if tally.news or (asked.strict and troubled) or wanting else 0


def _first_news(table: pa.Table, news: Collection[SourceKey]) -> list[dict[str, str]]:
    """The first sources that are news, in walk order, as `--json` names them."""
    shown = table.select(["uri", "status", "reason"])
    rows = documents.taken(shown, documents.positions(table, news)[:NEWS_NAMED]).to_pylist()
    return [{name: row[name] or "" for name in ("uri", "status", "reason")} for row in rows]


def _count_skipped(table: pa.Table) -> dict[str, dict[str, int]]:
    """How many sources were skipped, by reason and by the suffix of their names (`no suffix` for those without)."""
    rows = table.filter(pc.equal(table.column("status"), "skipped")).select(["reason", "path"])
    counts: dict[str, Counter[str]] = {}
    for reason, path in zip(rows.column("reason").to_pylist(), rows.column("path").to_pylist(), strict=True):
        counts.setdefault(reason, Counter())[PurePosixPath(path).suffix.lower() or "no suffix"] += 1
    return {reason: dict(sorted(counts[reason].items())) for reason in sorted(counts)}


def _source_counts(plan: Plan, tally: Tally, by_status: Mapping[str, int]) -> dict[str, int]:
    return {
        "new": tally.new - tally.moved_here,
        "changed": tally.changed,
        "moved": tally.moved_here,
        "unchanged": tally.unchanged,
        "gone": len(plan.gone) - len(plan.moved),
        "failed": by_status.get("failed", 0),
        "stale": by_status.get("stale", 0),
        "partial": by_status.get("partial", 0),
        "skipped": by_status.get("skipped", 0),
        "excluded": len(plan.excluded),
    }
