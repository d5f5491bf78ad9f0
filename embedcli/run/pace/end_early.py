"""The end of a run whose time is over: whole documents are published, the rest is what the next run does.

In: the record of the run, the owners of its work. Out: the generation that is current now. Vectors of documents that
are not whole stay in `staging/`, so that no run computes them again.
Not here: when the time is over (time_limit.py), how a generation is published (publishing/publish.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.index import documents
from embedcli.index.clearing import clear
from embedcli.index.leftovers import run_folders, writer_folders
from embedcli.report import many
from embedcli.run.publishing.publish import Published, publish

if TYPE_CHECKING:
    from embedcli.records import SourceKey
    from embedcli.run.begin_work import Work
    from embedcli.run.record import Run
    from embedcli.vault.disk import Disk

_KEPT = re.compile(r"loose-.*|run\.json|probe\.npy")
_KEPT_OF_WRITER = re.compile(r"loose-.*|part-.*|journal\.jsonl")


def end_early(run: Run, work: Work) -> Published:
    """Publish the whole documents, if they can be published without the rest. Raises StorageError, Locked."""
    progress = work.tally.progress
    left, total = many(progress.documents_left, "document"), f"{progress.documents_total:,}"
    run.report.line(f"the time is over; {left} of {total} are left for the next run")
    gone = _safely_gone(run, work)
    if not _may_publish(run, work, gone):
        return Published(run.known.current, run.known.table)
    published = publish(run, work, complete=False, dropped=gone)
    leftovers = {item.folder for item in run.known.leftovers}
    for folder in run_folders(run.index.staging):
        if folder not in leftovers:
            _keep_unpublished(folder, work.checkpoints.staging.shards, run.index.disk)
    clear(run.index, keep=run.asked.keep_generations)
    return published


def _may_publish(run: Run, work: Work, gone: set[SourceKey]) -> bool:
    """Whether there is something to publish that does not need the rest.

    Two kinds of settings are never mixed, nor the documents of a root with those of the wider one that takes it over;
    and the documents of a damaged shard would count as lost if they were not read. What was finished then stays in
    `staging/`, as after a kill.
    """
    if run.known.rebuilding or run.scopes.absorbed or run.known.damaged:
        return False
    outcomes = work.checkpoints.outcomes
    if run.known.current is None:
        return documents.any_rows(outcomes.rows)
    return bool(len(outcomes) or gone)


def _safely_gone(run: Run, work: Work) -> set[SourceKey]:
    """The sources that leave the index: all that are gone, except moved sources whose new place is not indexed yet."""
    here = set(documents.keys(work.checkpoints.outcomes.rows)) | set(documents.keys(run.known.table))
    waiting = {moved.key for key, moved in run.plan.moved.items() if key not in here}
    waiting |= documents.members(run.known.table, waiting)
    return run.plan.dropped - waiting


def _keep_unpublished(folder: Path, published: Collection[str], disk: Disk) -> None:
    """Keep the vectors of documents that are not whole; all others are in the generation."""
    writers = [writer for writer in writer_folders(folder) if not _left_nothing(writer, published, disk)]
    paths = [path for path in folder.iterdir() if path not in writers]
    if not writers and not any(path.name.startswith("loose-") for path in paths):
        disk.remove(folder)
        return
    for path in paths:
        if not _KEPT.fullmatch(path.name):
            disk.remove(path)


def _left_nothing(writer: Path, published: Collection[str], disk: Disk) -> bool:
    """Remove from a writer's folder what is published; whether nothing that is of use is left. Its shards that the run
    did not adopt have the vectors of documents that were not whole either."""
    for path in writer.iterdir():
        if not _KEPT_OF_WRITER.fullmatch(path.name) or path.stem in published:
            disk.remove(path)
    return not any(path.name.startswith(("loose-", "part-")) for path in writer.iterdir())
