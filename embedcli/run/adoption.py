"""What killed runs had finished is taken over, and not read again.

In: the record of the run, its staging folder. Out: the sources that are done, with their outcomes.
Not here: finding what killed runs left (known.py), taking it from their folders (index/leftovers.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedcli.index import leftovers
from embedcli.report import many
from embedcli.run.containers.feed import asked_of
from embedcli.sources.containers import RuleBook

if TYPE_CHECKING:
    from embedcli.index.known_vectors import KnownVectors
    from embedcli.index.outcomes import Outcome
    from embedcli.index.staging import Staging
    from embedcli.run.record import Run
    from embedcli.run.tasks import Task


def adopt(run: Run, staging: Staging, vectors: KnownVectors) -> list[tuple[Task, Outcome]]:
    """Take over what killed runs finished; if two of them finished the same source, the later run counts."""
    if not run.known.leftovers:
        return []
    wanted = {task.key: task for task in adoptable(run, run.plan.tasks)}
    stats = {key: task.source.stat for key, task in wanted.items()}
    adopted = leftovers.adopt(run.known.leftovers, stats, into=staging, library=vectors)
    if adopted:
        run.report.line(f"going on with {many(len(adopted), 'document')} that an earlier run had finished")
    return [(wanted[key], outcome) for key, outcome in adopted.items()]


def adoptable(run: Run, tasks: Iterable[Task]) -> Iterator[Task]:
    """Those of which an outcome says all: no source that holds documents, which may have left it."""
    books = {root.id: RuleBook(root) for root in run.scopes.roots}
    for task in tasks:
        if asked_of(books, task.source) is None and not (task.prior and task.prior.members):
            yield task
