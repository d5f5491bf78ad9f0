"""The staging folder of a run: begun before the first document, removed once what was in it is published.

In: the record of the run. Out: a Staging and the Outcomes beside it; after the publish a smaller `staging/`.
Not here: what is written into it (index/staging.py, checkpoints.py), a run whose time is over (pace/end_early.py).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from embedcli.index.clearing import clear
from embedcli.index.leftovers import run_folders
from embedcli.index.outcomes import Outcomes
from embedcli.index.staging import RunHeader, Staging
from embedcli.run.memory import give_back

if TYPE_CHECKING:
    from embedcli.index.leftovers import Leftover
    from embedcli.run.record import Run


def begin_staging(run: Run) -> Staging:
    """A new folder for what this run finishes until its next publish. Raises StorageError."""
    header = RunHeader(
        number=run.index.next_number(),
        parent=run.known.parent,
        settings=run.settings.to_json(),
        fingerprints=dataclasses.asdict(run.fingerprints),
        rebuild=run.known.rebuilding,
        roots=[dataclasses.asdict(root) for root in run.scopes.roots],
    )
    return Staging.begin(run.index.staging, header, dim=run.settings.dim, disk=run.index.disk)


def new_outcomes(run: Run, staging: Staging) -> Outcomes:
    """What will be finished until the next publish."""
    return Outcomes([root.id for root in run.scopes.roots], staging.folder)


def clear_staging(run: Run) -> None:
    """Remove the staging folders of this run and of killed runs, once the new generation is current."""
    others = {item.folder for item in run.known.leftovers if not _covers(run, item)}
    for path in run_folders(run.index.staging):
        if path not in others:  # the vectors of work on other roots are taken by a later run
            run.index.disk.remove(path)
    clear(run.index, keep=run.asked.keep_generations)
    give_back()


def _covers(run: Run, item: Leftover) -> bool:
    """Whether this run covered every root that a killed run covered."""
    roots = {root["id"] for root in item.header.roots}
    return run.plan.whole and (run.known.current is not None or roots <= {root.id for root in run.scopes.roots})
