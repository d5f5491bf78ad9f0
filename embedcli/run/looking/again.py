"""Which known sources are read again although nobody changed them, and which are not although their stat differs.

In: a source as the walk found it, what the index knows of it, the rules of the run. Out: yes or no.
Not here: joining the two (join.py), digesting what may have changed (compare.py).
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.config import Rules
from embedcli.index import documents
from embedcli.records import MOMENT_REASONS, RETRY_REASONS, TROUBLED, Source, SourceKey
from embedcli.run.tasks import LastSeen

MAX_ATTEMPTS = 4
"""A source that failed for a reason of RETRY_REASONS is read in four runs: once, and in the next three."""


def is_as_seen(source: Source, prior: LastSeen) -> bool:
    """Whether a source has its stat of before. An object with the same size and ETag has the same bytes, whenever they
    were written."""
    stat = source.stat
    if prior.is_of(stat) or stat is None or not source.is_object or prior.status == "stale":
        return prior.is_of(stat)
    return stat.inode != 0 and (prior.size, prior.inode) == (stat.size, stat.inode)


def was_only_unseen(source: Source, prior: LastSeen, rules: Rules) -> bool:
    """Whether a source is stale for no other reason than that its folder or bucket could not be seen, and is still what
    was read last. A night without a network must not cost the reading of all that lies in a bucket."""
    unseen = prior.status == "stale" and prior.tried is None and not prior.lacking
    if not unseen or rules.rehash or rules.retry_failed or prior.read_fingerprint != rules.read_fingerprint:
        return False
    return prior.stat == source.stat


def due_again(prior: LastSeen, rules: Rules) -> bool:
    """Whether this run reads an unchanged file again because of the way in which its last reading failed."""
    if prior.status not in ("failed", "partial", "skipped", "stale"):
        return False
    if rules.retry_failed:
        return True
    if prior.reason in MOMENT_REASONS:
        return True
    if prior.reason in RETRY_REASONS and prior.attempts < MAX_ATTEMPTS:
        return True
    return prior.read_fingerprint != rules.read_fingerprint or prior.reason == "too_large"


def due_inside(base: pa.Table, rules: Rules) -> set[SourceKey]:
    """The sources that are read again because of the way in which a document inside them failed."""
    failed = pc.and_(pc.is_valid(base.column("container")), pc.is_in(base.column("status"), pa.array(TROUBLED)))
    if not rules.retry_failed:
        again = pc.is_in(base.column("reason"), pa.array(sorted(RETRY_REASONS)))
        failed = pc.and_(failed, pc.and_(again, pc.less(base.column("attempts"), MAX_ATTEMPTS)))
    return documents.holders(base, documents.keys(base.filter(failed)))
