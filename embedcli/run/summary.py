"""What a run came to: its news, and the Summary of what was published.

In: tonight's plan, the outcomes, the table published. Out: counts and an exit code.
Not here: how they are printed (cli/, report.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents
from embedcli.records import TROUBLED, SourceKey
from embedcli.report import Summary
from embedcli.run.plan import Plan

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation
_TROUBLED = pa.array(TROUBLED)


def summarise(
    summary: Summary,
    *,
    generation: Generation,
    plan: Plan,
    table: pa.Table,
    moved: int,
    news: int,
    strict: bool,
) -> None:
    """Fill in what does not depend on the engine, and the exit code. `table` is that of the sources."""
    by_status = documents.count_by(table, "status")
    summary.generation, summary.complete = generation.number, generation.complete
    summary.sources = source_counts(plan, by_status, moved=moved)
    summary.chunks["total"] = generation.counts["chunks"]
    summary.tokens["total"] = generation.counts["tokens"]
    summary.failures_new = news
    summary.failures = documents.count_by(table.filter(pc.is_in(table.column("status"), _TROUBLED)), "reason")
    summary.skipped = count_skipped(table)
    troubled = sum(by_status.get(name, 0) for name in TROUBLED)
    summary.exit_code = 3 if news or (strict and troubled) else 0


def count_skipped(table: pa.Table) -> dict[str, dict[str, int]]:
    """How many sources were skipped, by reason and by the suffix of their names (`no suffix` for those without)."""
    rows = table.filter(pc.equal(table.column("status"), "skipped")).select(["reason", "path"])
    counts: dict[str, Counter[str]] = {}
    for reason, path in zip(rows.column("reason").to_pylist(), rows.column("path").to_pylist(), strict=True):
        counts.setdefault(reason, Counter())[PurePosixPath(path).suffix.lower() or "no suffix"] += 1
    return {reason: dict(sorted(counts[reason].items())) for reason in sorted(counts)}


def source_counts(plan: Plan, by_status: Mapping[str, int], *, moved: int) -> dict[str, int]:
    return {
        "new": plan.new - moved,
        "changed": plan.changed,
        "moved": moved,
        "unchanged": plan.unchanged,
        "gone": len(plan.gone) - moved,
        "failed": by_status.get("failed", 0),
        "stale": by_status.get("stale", 0),
        "partial": by_status.get("partial", 0),
        "skipped": by_status.get("skipped", 0),
        "excluded": len(plan.excluded),
    }


def count_moved(base: pa.Table, gone: Iterable[SourceKey], rows: pa.Table) -> int:
    """Sources that are gone under one name and new under another, byte for byte."""
    gone_keys = set(gone)
    if not gone_keys:
        return 0
    left = Counter(base.take(documents.positions(base, gone_keys)).column("sha256").to_pylist())
    came = Counter(documents.parted(rows, base)[1].column("sha256").to_pylist())
    return (left & came).total()
