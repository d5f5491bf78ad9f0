"""`ingest --dry-run`: what a run would do and how long it would take, without an engine and without a change.

In: what was asked, the index, its sources. Out: a Forecast. Of the index only the lock is touched.
Not here: the run itself (ingest.py), counting (run/pace/forecast.py), printing (cli/nightly.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from embedcli.errors import UsageError
from embedcli.index import lock
from embedcli.run.begin import Start, check_asked, index_of
from embedcli.run.looking.survey import nothing_to_do, survey
from embedcli.run.pace.forecast import Counting, Forecast
from embedcli.run.pace.measured import measured
from embedcli.run.record import settle_run

if TYPE_CHECKING:
    from embedcli.config import Options
    from embedcli.index.generations import Index
    from embedcli.report import Report
    from embedcli.run.tools import Tools


def dry_run(asked: Options, *, tools: Tools, report: Report) -> Forecast:
    """Look, plan, read and chunk. Raises EmbedcliError as a run would, and UsageError for a stream.

    The time limit of `tools` ends the reading.
    """
    if asked.stream is not None:
        raise UsageError("`--dry-run` would use up a stream of records", "write it to a file, and name that")
    started_s = time.monotonic()
    index = index_of(asked, tools, report)
    check_asked(index, asked)
    forecast = Forecast(index.shown)
    with closing(report), _locked(index, report) as held:
        found = survey(Start(index, asked, tools, report, held))
        if not found.in_time:
            return forecast
        forecast.count_plan(found.plan)
        if nothing_to_do(found):
            forecast.complete, forecast.expected_s = True, time.monotonic() - started_s
            return forecast
        run = settle_run(found)
        forecast.complete = Counting(run, forecast).read()
    if forecast.complete:
        before = measured(index.state, run.fingerprints.model)
        forecast.expect(before, so_far_s=time.monotonic() - started_s)
    return forecast


@contextmanager
def _locked(index: Index, report: Report) -> Iterator[lock.Hold]:
    """Hold the lock, so that no run changes the index meanwhile; a folder that is not there is not made."""
    if not index.is_begun:
        yield lock.no_hold(index.folder, report.warn)
        return
    with lock.hold(index.folder, index.disk, report.warn) as held:
        yield held
