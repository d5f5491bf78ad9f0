"""What a worker has to know of the run that it works for, before it gets its first slice.

In: the record of the run, the owners of its work. Out: a Job, which travels once to each worker, some kilobytes.
Not here: what the worker makes of it (worker_run.py). What both can read for themselves is not sent: the documents and
the keys of the index lie on the filesystem that they share, or in a vault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from embedcli import __version__

if TYPE_CHECKING:
    from embedcli.config import IndexSettings, Options
    from embedcli.engines.probe import Reference
    from embedcli.fingerprints import Fingerprints
    from embedcli.index.staging import RunHeader
    from embedcli.records import SourceKey
    from embedcli.run.begin_work import Work
    from embedcli.run.known import Memory
    from embedcli.run.record import Run
    from embedcli.run.tools import Tools
    from embedcli.sources.roots import Scopes

WITNESSES = 16


@dataclass(frozen=True)
class Job:
    """`run`: the name of its folder in `staging/`, below which the worker makes its own. `fence`: of the lease under
    which the run writes; 0 for an index in a folder. `leftovers`: folders of killed runs, whose vectors it may take.
    `witnesses`: files that it must see, with their sizes; none of what is in a bucket."""

    make_tools: Callable[..., Tools]
    asked: Options
    run: str
    fence: int
    header: RunHeader
    memory: Memory
    damaged: frozenset[str]
    leftovers: frozenset[str]
    scopes: Scopes
    marked: frozenset[SourceKey]
    settings: IndexSettings
    fingerprints: Fingerprints
    device: str
    reference: Reference | None
    seconds_left: float
    witnesses: tuple[tuple[str, int], ...]


def job_of(run: Run, work: Work) -> Job:
    """The job as it stands now: it changes with a publish on the way and with the first engine."""
    staging = work.checkpoints.staging
    return Job(
        make_tools=run.tools.workforce.tools_there,
        asked=dataclasses.replace(run.asked, sources=(), listed=None, model=run.settings.model, device=run.device),
        run=staging.folder.name,
        fence=run.index.disk.fence,
        header=staging.header,
        memory=run.known.memory,
        damaged=run.known.damaged,
        leftovers=frozenset(item.folder.name for item in run.known.leftovers),
        scopes=run.scopes,
        marked=frozenset(run.plan.marked),
        settings=run.settings,
        fingerprints=run.fingerprints,
        device=run.device,
        reference=work.embedder.reference,
        seconds_left=run.time.left_for_work(),
        witnesses=_witnesses(run),
    )


def _witnesses(run: Run) -> tuple[tuple[str, int], ...]:
    """Some files spread over the plan: a worker that sees none of them lacks the share that they lie on."""
    step = max(1, run.plan.tasks.count // WITNESSES)
    chosen = islice(run.plan.tasks, 0, WITNESSES * step, step)
    return tuple((task.source.file, task.size_bytes) for task in chosen if not task.source.is_object)


VERSION = __version__
"""Sent beside the job, and compared before it is unpickled: another version may not know what is in it."""
