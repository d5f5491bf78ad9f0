"""What became of one source: its row in the table of documents, or a mark on the row it has.

In: a source, what the index knew of it, how its reading or embedding ended. Out: an Outcome, and whether it is news.
Not here: storing it (index/staging.py), publishing it (publish.py).
"""

from __future__ import annotations

from embedcli.config import Rules
from embedcli.index.documents import DocumentRow, Mark
from embedcli.index.outcomes import Outcome
from embedcli.records import SKIP_REASONS, TROUBLED, Source, Stat
from embedcli.run.tasks import LastSeen, tried


def refused(source: Source, prior: LastSeen | None, reason: str, rules: Rules, *, sha256: str | None = None) -> Outcome:
    """A source without rows tonight: failed or skipped; with rows of a good reading before, stale."""
    stat = source.stat or Stat(0, 0, 0, 0)
    attempts = prior.attempts + 1 if prior is not None and prior.reason == reason and prior.is_of(stat) else 1
    if prior is not None and prior.rows and reason not in SKIP_REASONS and not rules.rebuilding:
        columns = {"status": "stale", "reason": reason, "attempts": attempts, "tried": tried(source.stat)}
        return Outcome(source.stat, mark=Mark(source.key, columns))
    row = DocumentRow.of(
        source, stat, sha256=sha256, read_fingerprint=rules.read_fingerprint, reason=reason, attempts=attempts,
        status="skipped" if reason in SKIP_REASONS else "failed",
    )  # fmt: skip
    return Outcome(source.stat, row=row)


def is_news(outcome: Outcome, prior: LastSeen | None) -> bool:
    """Exit 3 is for what had not gone wrong the same way before."""
    if outcome.row is not None:
        status, reason = outcome.row.status, outcome.row.reason
    elif outcome.mark is not None:
        status, reason = outcome.mark.columns["status"], outcome.mark.columns["reason"]
    return status in TROUBLED and (prior is None or (prior.status, prior.reason) != (status, reason))


def is_same(outcome: Outcome, prior: LastSeen) -> bool:
    """Whether a source that was read again came out as it was: the same bytes, and the same said of them."""
    if outcome.row is not None:
        row = outcome.row
        same_bytes = row.sha256 == prior.sha256
        if row.sha256 is None:  # what could not be read has no digest
            same_bytes = same_bytes and row.stat == prior.stat
        return same_bytes and (row.status, row.reason) == (prior.status, prior.reason)
    assert outcome.mark is not None
    return (outcome.mark.columns["status"], outcome.mark.columns["reason"]) == (prior.status, prior.reason)
