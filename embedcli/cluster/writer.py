"""Where a worker stores what it finishes: a folder of its own in that of the run, under a name that no other has.

In: the run of the worker, its job. Out: the owners of its work.
Not here: the record of its run (worker_run.py), what is stored there (index/staging.py).
"""

from __future__ import annotations

import re
import secrets
import socket
from typing import TYPE_CHECKING

from embedcli.index.known_vectors import KnownVectors
from embedcli.index.staging import Staging
from embedcli.run.begin_work import Work, work_of
from embedcli.run.memory import map_large_buffers
from embedcli.run.pace.remaining import Remaining
from embedcli.run.tally import Tally

if TYPE_CHECKING:
    from embedcli.cluster.job import Job
    from embedcli.index.outcomes import Outcomes
    from embedcli.run.record import Run


def begin_writer(run: Run, job: Job, outcomes: Outcomes) -> Work:
    """The worker's own folder, and every vector that is known; `outcomes` gets what is stored. Raises StorageError."""
    map_large_buffers()
    folder = run.index.staging / job.run
    staging = Staging.begin_writer(folder, writer_name(), job.header, dim=run.settings.dim, disk=run.index.disk)
    vectors = KnownVectors(dim=run.settings.dim, folder=staging.folder)
    for item in run.known.leftovers:
        item.lend_unread(vectors)
    nothing_left = Remaining(run.plan.tasks, {})
    return work_of(run, staging, outcomes, vectors, Tally.of(run.plan), nothing_left, reference=job.reference)


def writer_name() -> str:
    """The name of this host and a nonce: no two writers have the same."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:40]
    return f"{host}-{secrets.token_hex(4)}"
