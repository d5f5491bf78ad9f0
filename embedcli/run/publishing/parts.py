"""What the next generation is made of: its table of documents, its shards, its probe set, its settings.

In: the record of the run, the owners of its work. Out: the next table, and the draft that index/publish.py writes.
Not here: whether there is anything to publish (publish.py), which rows those are (index/next_table.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from embedcli.engines.probe import Reference
from embedcli.index import damage, documents, next_table
from embedcli.index.damage import Left
from embedcli.index.publish import Draft
from embedcli.models import resolve

if TYPE_CHECKING:
    from embedcli.index.next_table import NextTable
    from embedcli.index.shards import Shard
    from embedcli.records import SourceKey
    from embedcli.run.begin_work import Work
    from embedcli.run.record import Run


def left_over(run: Run, work: Work, known: Mapping[str, Shard], dropped: Collection[SourceKey]) -> Left:
    """The documents of damaged shards that this run could not read again. They are news in every run until it can."""
    if run.known.rebuilding or not run.known.damaged:
        return Left()
    anew = documents.keys(work.checkpoints.outcomes.rows)
    left = damage.left_over(run.known.table, {*anew, *dropped}, run.known.damaged, known)
    work.tally.news |= left.waiting | left.lost
    if left.waiting:
        run.report.warn(f"{len(left.waiting):,} documents of damaged shards cannot be read now: they stay as they are")
    if left.lost:
        run.report.warn(f"the rows of {len(left.lost):,} documents are lost, since their shards are")
    return left


def table_of_next(
    run: Run, work: Work, left: Left, known: Mapping[str, Shard], dropped: Collection[SourceKey]
) -> NextTable:
    outcomes = work.checkpoints.outcomes
    return next_table.edit(
        damage.without_rows(run.known.table, left.lost),
        documents.without(outcomes.rows, left.held),
        [mark for mark in outcomes.marks if mark.key not in left.lost],
        dropped=set(dropped) - left.held,
        seen=[*run.known.seen, *run.plan.seen],
        shards=known,
        damaged=run.known.damaged | work.keyless,
        roots=[root.id for root in run.scopes.roots],
        rebuilding=run.known.rebuilding,
        folder=work.checkpoints.staging.folder,
    )


def draft_of(run: Run, work: Work, table: NextTable, known: Mapping[str, Shard], *, complete: bool) -> Draft:
    no_engine_yet = Reference(np.zeros((0, run.settings.dim), np.float32), run.settings.max_tokens)
    reference = work.embedder.reference or no_engine_yet
    return Draft(
        number=work.checkpoints.number,
        complete=complete,
        settings=run.settings,
        fingerprints=run.fingerprints,
        roots=run.scopes.roots,
        mounts=run.plan.mounts,
        query=resolve.query_recipe(
            run.model, run.settings.dim, quantization=run.settings.quantization, precisions=_precisions(run, work)
        ),
        probe=reference.vectors,
        probe_max_tokens=reference.max_tokens,
        table=table.table,
        changes=table.changes,
        shards=known,
    )


def _precisions(run: Run, work: Work) -> set[str]:
    """Those in which the vectors of the index were computed, as far as its manifests tell."""
    current = run.known.current
    same_model = current is not None and current.fingerprints.model == run.fingerprints.model
    return {*work.embedder.precisions, *(current.query.get("precisions", ()) if current and same_model else ())}
