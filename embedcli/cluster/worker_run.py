"""The run of a worker: the record and the owners of a run that never publishes, made from a job.

In: a Job, a report. Out: the Run and its Work, whose staging folder is the worker's own. Raises EmbedcliError where
this machine has another version or model, or does not see the index or the sources.
Not here: what is done with them (worker.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable

from embedcli.cluster.job import Job
from embedcli.errors import InputError, Mismatch, StorageError
from embedcli.index.generations import Index
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.leftovers import leftovers
from embedcli.index.lock import Hold, Lock
from embedcli.index.mirror.place import open_index
from embedcli.index.outcomes import Outcomes
from embedcli.index.staging import Staging
from embedcli.models.folder import Model
from embedcli.report import Report
from embedcli.run.begin_work import Work, work_of
from embedcli.run.known import Known, known_documents
from embedcli.run.memory import map_large_buffers
from embedcli.run.pace.remaining import Remaining
from embedcli.run.pace.time_limit import TimeLimit
from embedcli.run.plan import Plan
from embedcli.run.record import Run
from embedcli.run.settings import fingerprints_of
from embedcli.run.tally import Tally
from embedcli.run.tasks import TaskList


def open_run(job: Job, report: Report, stop_signal: Callable[[], int | None]) -> Run:
    """The record of the run, as it is on this machine. It holds no lock: were it to publish, it would be refused."""
    _check_folders(job)
    ends_s = time.monotonic() + job.seconds_left
    tools = job.make_tools(
        report.line, warn=report.warn, stop_signal=stop_signal, seconds_left=lambda: ends_s - time.monotonic()
    )
    index = open_index(job.asked.index, disk=tools.disk, warn=report.warn)
    model = tools.resolve(job.asked, job.settings)
    _check_same(job, model)
    known = _known(job, index)
    plan = Plan(job.scopes, TaskList(known.table), marked=set(job.marked))
    return Run(
        index=index, asked=job.asked, known=known, scopes=job.scopes, plan=plan, model=model, settings=job.settings,
        fingerprints=job.fingerprints, tools=tools, report=report,
        lock=Hold(Lock(index.folder, network=False, warn=report.warn), lambda: False),
        time=TimeLimit(tools.seconds_left),
    )  # fmt: skip


def begin_writer(run: Run, job: Job, outcomes: Outcomes) -> Work:
    """The worker's own folder, and every vector that is known; `outcomes` gets what is stored. Raises StorageError."""
    map_large_buffers()
    staging = Staging.begin_writer(job.folder, writer_name(), job.header, dim=run.settings.dim, disk=run.index.disk)
    vectors = KnownVectors(dim=run.settings.dim)
    for item in run.known.leftovers:
        item.lend_unread(vectors)
    nothing_left = Remaining(run.plan.tasks, {})
    return work_of(run, staging, outcomes, vectors, Tally.of(run.plan), nothing_left, reference=job.reference)


def writer_name() -> str:
    """The name of this host and a nonce: no two writers have the same."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:40]
    return f"{host}-{secrets.token_hex(4)}"


def _check_folders(job: Job) -> None:
    """Raise StorageError or InputError where this machine does not see what the run sees."""
    if not (job.folder / "run.json").is_file():
        raise StorageError(
            f"`{job.folder}` is not there: the index has to lie on a filesystem that every worker shares",
            "mount it under the same path on every machine",
        )
    if job.witnesses and not any(_sees(file, size) for file, size in job.witnesses):
        raise InputError(
            f"`{job.witnesses[0][0]}` and other sources are not there, or have another size",
            "mount the sources under the same path on every machine",
        )


def _sees(file: str, size: int) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(file).st_size == size
    return False


def _check_same(job: Job, model: Model) -> None:
    """Raise Mismatch where this machine would make other vectors, cuts or texts."""
    here = fingerprints_of(model, job.settings)
    if here != job.fingerprints:
        what = next(
            name for name in ("model", "chunk", "read") if getattr(here, name) != getattr(job.fingerprints, name)
        )
        raise Mismatch(
            f"`{model.name}` is another model there: its fingerprint `{what}` is {getattr(here, what)},"
            f" that of the run is {getattr(job.fingerprints, what)}",
            "fetch the same model on every machine: `embedcli pull`",
        )


def _known(job: Job, index: Index) -> Known:
    current = index.current()
    damaged = job.damaged if current is not None else frozenset()
    table, seen = known_documents(index, current, damaged)
    found = tuple(item for item in leftovers(index.staging) if item.folder.name in job.leftovers)
    return Known(
        current, found, job.memory, job.scopes.roots,
        rebuilding=job.header.rebuild, damaged=damaged, table=table, seen=tuple(seen),
    )  # fmt: skip
