"""The stage that looks: what the index knows, which roots a run covers, what is there, and what there is to do.

In: an index that is open, and what was asked. Out: one frozen record of all that is known before a model is chosen.
Nothing is changed: a dry run looks in the same way.
Not here: each of these (known.py, sources/lists.py, compare.py), the settings of a run (settings.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.config import Options
from embedcli.errors import InputError, quoted
from embedcli.records import printable
from embedcli.report import Largest, Report
from embedcli.run.begin import Start
from embedcli.run.known import Known, look
from embedcli.run.looking.compare import compare
from embedcli.run.looking.elsewhere import read_elsewhere
from embedcli.run.pace.time_limit import OutOfTime
from embedcli.run.plan import Plan
from embedcli.run.settings import rules_of
from embedcli.sources.lists import settle_sources
from embedcli.sources.roots import Scopes
from embedcli.urls import absolute

FOLDERS_SHOWN = 5


@dataclass(frozen=True)
class Survey:
    """What is known before a model is chosen.

    `in_time`: whether the changes are known; where the time was over before, the plan is empty.
    """

    start: Start
    known: Known
    scopes: Scopes
    plan: Plan
    in_time: bool = True


def survey(start: Start) -> Survey:
    """Look at the index and at its sources. Raises NoIndex (exit 10), Mismatch (exit 12), InputError (exit 15)."""
    asked = start.asked
    known = look(start.index, asked)  # the current generation, what killed runs left, what is damaged
    scopes = settle_sources(asked, known.roots, everything=known.rebuilding)  # roots, or parts of them, to walk
    try:
        plan = make_plan(known, scopes, asked, start.report, start.is_over)  # exit 15 where too much is gone
    except OutOfTime:
        return Survey(start, known, scopes, Plan.empty(), in_time=False)
    return Survey(start, known, scopes, plan)


def nothing_to_do(found: Survey) -> bool:
    """Whether the current generation already is what this run would publish."""
    known, scopes, plan, asked = found.known, found.scopes, found.plan, found.start.asked
    current = known.current
    if current is None or not current.complete or known.rebuilding or known.damaged or known.lacks_probe:
        return False
    same_roots = current.roots == scopes.roots and all(
        tuple(current.mounts.get(root.id, ())) == plan.mounts.get(root.id, ()) for root in scopes.roots
    )
    named = asked.model is None or asked.model == current.settings.model
    same_size = asked.max_file_bytes in (None, current.settings.max_file_bytes)
    return same_roots and named and same_size and not (plan.tasks.count or plan.outcomes or plan.dropped)


def make_plan(
    known: Known, scopes: Scopes, asked: Options, report: Report, is_over: Callable[[], bool] = lambda: False
) -> Plan:
    """Compare what the walk finds with what the index knows, and report what is to be done.

    Raises InputError (exit 15) when too much is gone, or when nothing is left to index, and OutOfTime when the time
    `is_over` before the walk is: then nothing is to be done.
    """
    rules = rules_of(asked, known.memory, rebuilding=known.rebuilding)
    mounts = known.current.mounts if known.current else {}
    walked = Largest(every=report.verbose)
    plan = compare(known.table, scopes, mounts, rules, walked=walked, say=report.looking, is_over=is_over)
    if elsewhere := read_elsewhere(plan, known.table, known.damaged):
        report.line(f"{elsewhere:,} documents of damaged shards are read again, wherever they lie")
    report.line(plan.walked.line())
    for why, count in scopes.left_out.items():
        report.warn(f"{count:,} names of the list are {why}")
    for folder in [*scopes.bare_folders, *plan.bare_folders][:FOLDERS_SHOWN]:
        shown = printable(os.fsencode(folder))
        report.warn(f"the list has the folder `{shown}` and nothing in it: name its files, or the folder as a SOURCE")
    fresh = plan.folders_with_news()
    for folder, why in sorted(plan.unlisted.items(), key=lambda found: (found[0] not in fresh, found))[:FOLDERS_SHOWN]:
        forget = f"`embedcli forget {quoted(folder)} --index {quoted(asked.shown_index)}`"
        report.warn(
            f"`{folder}` {why}: what the index has of it stays as it is; if it is gone for good: {forget}",
            is_news=folder in fresh,
        )
    for pattern in dict.fromkeys(plan.unmatched):
        report.warn(f"the pattern `{pattern}` of `--include` or `--exclude` matches nothing")
    for folder, _ in asked.max_gone_of:
        if not _is_known(folder, known.table, scopes):
            report.warn(f"`{folder}` of `--max-gone` is no folder that the index has sources of")
    for folder, lost in sorted(plan.frozen.items()):
        report.warn(
            f"`{folder}`: {lost} of its indexed sources are gone; they stay in the index, stale."
            f" If they were deleted: `--max-gone {quoted(f'{folder}=100')}`",
            is_news=folder in fresh,
        )
    _check_not_empty(plan, known.table)
    return plan


def _is_known(place: str, table: pa.Table, scopes: Scopes) -> bool:
    """Whether the index has sources at or below an absolute path, typed as it is or as messages show it, or it stands
    for a stream."""
    uris = table.column("uri")
    for shown in dict.fromkeys((printable(os.fsencode(place)), place)):
        if pc.any(pc.or_(pc.equal(uris, shown), pc.starts_with(uris, f"{shown.rstrip('/')}/"))).as_py():
            return True
    return any(root.stream and absolute(root.path) == place for root in scopes.roots)


def _check_not_empty(plan: Plan, table: pa.Table) -> None:
    if plan.tasks.count + len(plan.outcomes) + table.num_rows == 0:
        places = ", ".join(f"`{scope.root.path}`" for scope in plan.scopes.scopes) or "the list"
        raise InputError(
            f"no files found in {places}",
            "check the path; hidden files and what `--include`, `--exclude`, `.embedcliignore` leave out do not count",
        )
    if plan.excluded and not (plan.unchanged or plan.tasks.count or plan.outcomes):
        raise InputError(
            f"the filters leave none of {len(plan.excluded):,} known sources; nothing was changed",
            "mend `--include` and `--exclude`; an empty pattern, `''`, forgets those that are remembered",
        )
