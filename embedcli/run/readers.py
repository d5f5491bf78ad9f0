"""The reading processes of a run, and the one that splits containers, at work on the tasks.

In: the record of the run, tasks. Out: a pool that gives what was read of each of them.
Not here: what is done with it (stream.py), reading (reading/rows.py), the processes themselves (reading/pool.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.cores import usable_cores
from embedcli.reading.pool import Pool
from embedcli.reading.process import Limits
from embedcli.reading.rows import ReadingWork, Result
from embedcli.reading.splitter import Splitter, SplittingWork
from embedcli.run.containers.feed import Feed
from embedcli.run.containers.members import Members
from embedcli.run.tasks import AnyTask, Task
from embedcli.urls import is_url

if TYPE_CHECKING:
    from embedcli.run.plan import Plan
    from embedcli.run.record import Run

FETCHING_PROCESSES = 8
MOST_FETCHING_PROCESSES = 32
DOCUMENTS_EACH = 8
"""For fewer it does not pay to start a process."""


@contextmanager
def reading(
    run: Run, tasks: Iterator[Task], *, members: Members, spool_folder: Path
) -> Iterator[Pool[AnyTask, Result]]:
    """The reading processes and the one that splits containers, at work on the tasks, which are those of the plan or
    some of them. `spool_folder`: where the rows of a long document lie until they are taken."""
    make_pool = run.tools.make_pool or Pool
    with ExitStack() as stack:
        splitter = (run.tools.make_splitter or Splitter)(SplittingWork(spool_folder))
        stack.callback(splitter.end)
        pool = stack.enter_context(
            make_pool(
                _work(run, spool_folder), processes=_processes(run.plan), limits=Limits(),
                size_of=attrgetter("size_bytes"), message_of=attrgetter("message"), parts_of=attrgetter("parts"),
            )
        )  # fmt: skip
        stack.callback(splitter.close)  # before the pool is closed: one of its threads may wait for an answer
        feed = Feed(
            run.plan.scopes, members, splitter.answers, folder=spool_folder, read_all=run.rules.read_all,
            marked=run.plan.marked,
        )  # fmt: skip
        pool.feed(feed.tasks(tasks))
        yield pool


def _work(run: Run, spool_folder: Path) -> ReadingWork:
    """How a source is read."""
    return ReadingWork(
        model_folder=run.model.folder,
        prompt=run.model.prompt,
        max_tokens=run.settings.max_tokens,
        overlap=run.settings.overlap,
        keep_text=not run.settings.no_text,
        model_fingerprint=run.fingerprints.model,
        spool_folder=spool_folder,
        max_file_bytes=run.settings.max_file_bytes,
    )


def _processes(plan: Plan) -> int:
    """Reading processes: they wait for the engine most of the time, and leave a core to the parent. What lies in a
    bucket they wait for too, and then more of them share the cores: of 400 small documents that each came after 50 ms 8
    processes read 42 a second on two busy cores, one process 9."""
    for_cores = max(1, min(16, usable_cores() - 1))
    if not any(is_url(scope.root.path) for scope in plan.scopes.scopes):
        return for_cores
    fetching = min(MOST_FETCHING_PROCESSES, max(FETCHING_PROCESSES, 2 * for_cores))
    return max(for_cores, min(fetching, plan.tasks.count // DOCUMENTS_EACH))
