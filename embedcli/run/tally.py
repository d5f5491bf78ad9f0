"""The counts of a run, kept as each source is finished.

In: the plan, then finished sources. Out: counts, the progress that is shown.
Not here: the summary at the end (summary.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedcli.index.staging import Finished, FinishedRecords
from embedcli.records import SourceKey
from embedcli.report import Progress
from embedcli.run.outcome import is_news, is_same

if TYPE_CHECKING:
    from embedcli.index.outcomes import Outcome
    from embedcli.run.looking.gone import Moved
    from embedcli.run.pending import Ended, PendingRecords
    from embedcli.run.plan import Plan
    from embedcli.run.tasks import Task


@dataclass
class Tally:
    """The counts of a run so far, over all generations that it publishes.

    `news`: sources that had not failed the same way before, be it under another name (`moved`).
    """

    progress: Progress
    news: set[SourceKey]
    moved: Mapping[SourceKey, Moved]
    changed: int = 0
    unchanged: int = 0
    new: int = 0
    moved_here: int = 0
    """How many of the `new` sources are moved ones."""
    embedded: int = 0
    reused: int = 0
    bytes_rewritten: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage of the work, as in the Summary."""
    replaced: dict[str, int] = field(default_factory=lambda: {"sources": 0, "characters": 0})
    """Of what this run has read: bytes that are not text, each read as U+FFFD."""

    @classmethod
    def of(cls, plan: Plan) -> Tally:
        """What the plan counts before anything is read."""
        progress = Progress(documents_total=plan.tasks.count, bytes_total=plan.tasks.size_bytes)
        new = plan.new - plan.tasks.new
        return cls(progress, set(plan.news), plan.moved, changed=plan.changed, unchanged=plan.unchanged, new=new)

    def add(self, ended: Ended, finished: Finished | FinishedRecords) -> None:
        from embedcli.run.pending import PendingRecords  # with the tokenizer, which a run without work does not load

        self.embedded += ended.embedded
        self.reused += ended.reused
        if isinstance(ended, PendingRecords):
            self._add_records(ended)
            return
        assert isinstance(finished, Finished)
        self.unchanged += ended.unchanged
        self.replaced["sources"] += ended.replaced > 0
        self.replaced["characters"] += ended.replaced
        self.adopt(ended.task, finished.outcome)

    def _add_records(self, ended: PendingRecords) -> None:
        """Records without a fault: none of them is news."""
        read, priors = ended.documents, ended.task.priors
        known = [
            (prior, sha256)
            for place, sha256 in zip(read.column("place").to_pylist(), read.column("sha256").to_pylist(), strict=True)
            if (prior := priors[place]) is not None
        ]
        same = sum((prior.sha256, prior.status, prior.reason) == (sha, "indexed", None) for prior, sha in known)
        self.unchanged, self.changed = self.unchanged + same, self.changed + len(known) - same
        self.new += read.num_rows - len(known)
        replaced = np.asarray(read.column("replaced"))
        self.replaced["sources"] += int((replaced > 0).sum())
        self.replaced["characters"] += int(replaced.sum())
        self.progress.chunks += int(np.asarray(read.column("chunks")).sum())

    def take(self, part: Tally) -> None:
        """Add the counts of a part of the run, which a worker of a cluster kept."""
        for name in ("changed", "unchanged", "new", "moved_here", "embedded", "reused"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        for name in ("documents", "bytes_read", "chunks"):
            setattr(self.progress, name, getattr(self.progress, name) + getattr(part.progress, name))
        for name, count in part.replaced.items():
            self.replaced[name] += count
        self.news |= part.news

    def adopt(self, task: Task, outcome: Outcome) -> None:
        """Count a source that this run, or one that was killed, has finished."""
        if task.prior is not None:
            same = is_same(outcome, task.prior)
            self.unchanged, self.changed = self.unchanged + same, self.changed + (not same)
        else:
            self.new += 1
            self.moved_here += task.key in self.moved
        if is_news(outcome, task.prior or self.moved.get(task.key)):
            self.news.add(outcome.key)
        if task.source.container is None:
            self.progress.documents += 1
            self.progress.bytes_read += task.size_bytes
        self.progress.chunks += outcome.row.chunks if outcome.row else 0
