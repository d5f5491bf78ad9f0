"""The counts of a run, kept as each source is finished.

In: the plan, then finished sources. Out: counts, the progress that is shown.
Not here: the summary at the end (summary.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedcli.records import SourceKey
from embedcli.report import Progress
from embedcli.run.outcome import is_news, is_same

if TYPE_CHECKING:
    from embedcli.index.outcomes import Outcome
    from embedcli.run.gone import Moved
    from embedcli.run.pending import Ended
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

    def add(self, ended: Ended, outcome: Outcome) -> None:
        self.embedded += ended.embedded
        self.reused += ended.reused
        self.replaced["sources"] += ended.replaced > 0
        self.replaced["characters"] += ended.replaced
        self.adopt(ended.task, outcome)

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
