"""The outcome of one source: its new row in the table of documents, or a mark on its old row.

In: a source, what the index knew of it, how its reading or embedding ended. Out: an Outcome, and whether it is news.
Not here: storing it (index/staging.py), publishing it (publishing/publish.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedcli.config import Rules
from embedcli.index import documents, shards
from embedcli.index.documents import DocumentRow, Mark
from embedcli.index.outcomes import Outcome
from embedcli.index.staging import Finished, FinishedRecords
from embedcli.records import MOMENT_REASONS, RETRY_REASONS, SKIP_REASONS, TROUBLED, Source, Stat, Status
from embedcli.run.tasks import Contained, LastSeen, Refused, tried

if TYPE_CHECKING:
    from embedcli.fingerprints import Fingerprints
    from embedcli.run.looking.gone import Moved
    from embedcli.run.pending import Ended, Pending, PendingRecords


def outcome_of(
    ended: Ended, rules: Rules, fingerprints: Fingerprints, *, changed_in: int
) -> Finished | FinishedRecords:
    """What to store of a document whose every chunk has a vector or a reason why not, or of a refused source.

    `changed_in`: the number of the next generation. A document with chunks that failed keeps the rows of its last
    version if that version was whole.
    """
    from embedcli.run.pending import PendingRecords  # with the tokenizer, which a run without work does not load

    if isinstance(ended, PendingRecords):
        return _records(ended, fingerprints, changed_in)
    if isinstance(ended, Contained):
        return Finished(Outcome(ended.stat, _container_row(ended, fingerprints)), None, None)
    if isinstance(ended, Refused):
        refusal = refused(ended.task.source, ended.task.prior, ended.reason, rules, sha256=ended.sha256)
        return Finished(refusal, None, None)
    task, bad = ended.task, ended.bad
    prior = task.prior
    whole_before = prior is not None and prior.rows and not prior.lacking
    if len(bad) == len(ended.vectors) or (bad and whole_before and not rules.rebuilding):
        reason = next(iter(bad.values()))
        outcome = refused(task.source, prior, reason, rules, sha256=ended.reading.sha256)
        return Finished(outcome, None, None)
    keep = ended.have if bad else None
    rows = shards.complete_rows(ended.table, ended.vectors, changed_in=changed_in, keep=keep)
    keys = ended.keys[:, keep] if keep is not None else ended.keys
    return Finished(Outcome(ended.reading.stat, _row(ended, fingerprints)), rows, keys)


def _records(ended: PendingRecords, fingerprints: Fingerprints, changed_in: int) -> FinishedRecords:
    container, read = ended.task.container.source, ended.documents
    assert container.stat is not None
    columns = {name: read.column(name) for name in ("path", "uri", "size", "sha256", "chunks", "tokens")} | {
        "root": container.root_id, "mtime_ns": container.stat.mtime_ns, "ctime_ns": 0, "inode": 0,
        "model_fingerprint": fingerprints.model, "chunk_fingerprint": fingerprints.chunk,
        "read_fingerprint": fingerprints.read, "status": "indexed", "rows": read.column("chunks"),
        "container": container.path,
    }  # fmt: skip
    chunks = np.asarray(read.column("chunks"))
    rows = shards.complete_rows(ended.table, ended.vectors, changed_in=changed_in, chunks=chunks)
    return FinishedRecords(documents.of_columns(read.num_rows, columns), rows, ended.keys)


def _container_row(ended: Contained, fingerprints: Fingerprints) -> DocumentRow:
    status: Status = "partial" if ended.left_out else "skipped" if ended.reason in SKIP_REASONS else "indexed"
    return DocumentRow.of(
        ended.task.source, ended.stat, sha256=ended.sha256, model_fingerprint=fingerprints.model,
        chunk_fingerprint=fingerprints.chunk, read_fingerprint=fingerprints.read, status=status, reason=ended.reason,
        pages_skipped=ended.left_out,
    )  # fmt: skip


def _row(ended: Pending, fingerprints: Fingerprints) -> DocumentRow:
    reading, prior = ended.reading, ended.task.prior
    reason = next(iter(ended.bad.values()), reading.reason)
    same = prior is not None and (prior.reason, prior.sha256) == (reason, reading.sha256)
    return DocumentRow.of(
        ended.task.source,
        reading.stat,
        sha256=reading.sha256,
        model_fingerprint=fingerprints.model,
        chunk_fingerprint=fingerprints.chunk,
        read_fingerprint=fingerprints.read,
        status="partial" if reading.pages_skipped or ended.bad else "indexed",
        reason=reason,
        attempts=prior.attempts + 1 if prior is not None and same and reason in RETRY_REASONS else 1,
        pages=reading.pages,
        pages_skipped=reading.pages_skipped,
        chunks=reading.chunks,
        missing=tuple(sorted(ended.bad)),
        tokens=reading.tokens,
    )


def refused(source: Source, prior: LastSeen | None, reason: str, rules: Rules, *, sha256: str | None = None) -> Outcome:
    """The outcome of a source that cannot be read: failed, skipped, or stale where it has rows of a good reading."""
    stat = source.stat or Stat(0, 0, 0, 0)
    attempts = prior.attempts + 1 if prior is not None and prior.reason == reason and prior.is_of(stat) else 1
    passes = reason not in SKIP_REASONS or reason in MOMENT_REASONS
    if prior is not None and prior.holds and passes and not rules.rebuilding:
        columns = {"status": "stale", "reason": reason, "attempts": attempts, "tried": tried(source.stat)}
        return Outcome(source.stat, mark=Mark(source.key, columns))
    row = DocumentRow.of(
        source, stat, sha256=sha256, read_fingerprint=rules.read_fingerprint, reason=reason, attempts=attempts,
        status="skipped" if reason in SKIP_REASONS else "failed",
    )  # fmt: skip
    return Outcome(source.stat, row=row)


def is_news(outcome: Outcome, prior: LastSeen | Moved | None) -> bool:
    """Whether a source failed, or went stale or partial, for a reason that it did not have before, or lost the text
    that it had: then the run exits with 3."""
    if outcome.row is not None:
        status, reason = outcome.row.status, outcome.row.reason
    elif outcome.mark is not None:
        status, reason = outcome.mark.columns["status"], outcome.mark.columns["reason"]
    if status == "skipped":  # whether links are followed is a setting; the text of a portfolio is that of its files
        return isinstance(prior, LastSeen) and prior.holds and reason not in ("outside", "portfolio")
    return status in TROUBLED and (prior is None or (prior.status, prior.reason) != (status, reason))


def is_same(outcome: Outcome, prior: LastSeen) -> bool:
    """Whether a source that was read again has the same bytes, status and reason as before."""
    if outcome.row is not None:
        row = outcome.row
        same_bytes = row.sha256 == prior.sha256
        if row.sha256 is None:  # a file that could not be read has no digest
            same_bytes = same_bytes and row.stat == prior.stat
        return same_bytes and (row.status, row.reason) == (prior.status, prior.reason)
    assert outcome.mark is not None
    return (outcome.mark.columns["status"], outcome.mark.columns["reason"]) == (prior.status, prior.reason)
