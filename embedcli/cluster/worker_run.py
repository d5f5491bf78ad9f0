"""The run of a worker: the record of a run that never publishes, made from a job.

In: a Job, a report. Out: the Run. Raises EmbedcliError where this machine is not like that of the job.
Not here: whether it is (same_machine.py), where the worker stores (writer.py), what it does (worker.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from embedcli.cluster.same_machine import check_folders, check_same
from embedcli.config import workers_folder
from embedcli.index.leftovers import leftovers
from embedcli.index.lock import no_hold
from embedcli.index.mirror.place import open_index
from embedcli.run.known import Known, known_documents
from embedcli.run.pace.time_limit import TimeLimit
from embedcli.run.plan import Plan
from embedcli.run.record import Run
from embedcli.run.tasks import TaskList

if TYPE_CHECKING:
    from embedcli.cluster.job import Job
    from embedcli.index.generations import Index
    from embedcli.report import Report


def open_run(job: Job, report: Report, stop_signal: Callable[[], int | None]) -> Run:
    """The record of the run, as it is on this machine."""
    ends_s = time.monotonic() + job.seconds_left
    tools = job.make_tools(
        report.line, warn=report.warn, stop_signal=stop_signal, seconds_left=lambda: ends_s - time.monotonic()
    )
    asked = dataclasses.replace(job.asked, index=workers_folder(job.asked.index))
    index = open_index(asked.index, disk=tools.disk, warn=report.warn)
    index.disk.join(job.fence, job.run, job.leftovers)
    check_folders(job, index)
    model = tools.resolve(asked, job.settings)
    check_same(job, model)
    known = _known(job, index)
    plan = Plan(job.scopes, TaskList(known.table), marked=set(job.marked))
    return Run(
        index=index, asked=asked, known=known, scopes=job.scopes, plan=plan, model=model, settings=job.settings,
        fingerprints=job.fingerprints, tools=tools, report=report,
        lock=no_hold(index.folder, report.warn),
        time=TimeLimit(tools.seconds_left),
    )  # fmt: skip


def _known(job: Job, index: Index) -> Known:
    current = index.current()
    damaged = job.damaged if current is not None else frozenset()
    table, seen = known_documents(index, current, damaged)
    found = tuple(item for item in leftovers(index.staging) if item.folder.name in job.leftovers)
    return Known(
        current, found, job.memory, job.scopes.roots,
        rebuilding=job.header.rebuild, damaged=damaged, table=table, seen=tuple(seen),
    )  # fmt: skip
