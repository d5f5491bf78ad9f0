"""The record of all that does not change while a run works, and whether there is any work.

In: what was asked, what the index knows, the plan, the model. Out: a Run.
Not here: each of these (known.py, plan.py, settings.py), what changes while the run works (begin_work.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcli.config import IndexSettings, Options, Rules
from embedcli.errors import Stopped
from embedcli.fingerprints import Fingerprints
from embedcli.run.pace.measured import published_in_s
from embedcli.run.pace.time_limit import TimeLimit
from embedcli.run.settings import rules_of, settle_settings

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.lock import Hold
    from embedcli.models.folder import Model
    from embedcli.report import Report
    from embedcli.run.known import Known
    from embedcli.run.plan import Plan
    from embedcli.run.tools import Tools
    from embedcli.sources.roots import Scopes


@dataclass(frozen=True)
class Run:
    """What does not change while a run works; a publish on the way goes on with another `known`."""

    index: Index
    asked: Options
    known: Known
    scopes: Scopes
    plan: Plan
    model: Model
    settings: IndexSettings
    fingerprints: Fingerprints
    tools: Tools
    report: Report
    lock: Hold
    time: TimeLimit

    def stop_if_asked(self, rest: str) -> None:
        """Raise Stopped where a signal has come, and say what is done before the end."""
        try:
            self.tools.stop_if_asked()
        except Stopped:
            self.report.line(f"stopping: {rest} (a second signal leaves at once)")
            raise

    @property
    def rules(self) -> Rules:
        return rules_of(self.asked, self.known.memory, rebuilding=self.known.rebuilding)

    @property
    def device(self) -> str:
        """The kind of device that this run embeds on."""
        return self.asked.device or self.settings.device_kind

    @property
    def is_whole(self) -> bool:
        """Whether what this run publishes holds every document of every root."""
        current = self.known.current
        return self.plan.whole or (current is not None and current.complete)


def nothing_to_do(plan: Plan, known: Known, scopes: Scopes, asked: Options) -> bool:
    """Whether the current generation already is what this run would publish."""
    current = known.current
    if current is None or not current.complete or known.rebuilding or known.damaged or known.lacks_probe:
        return False
    same_roots = current.roots == scopes.roots and all(
        tuple(current.mounts.get(root.id, ())) == plan.mounts.get(root.id, ()) for root in scopes.roots
    )
    named = asked.model is None or asked.model == current.settings.model
    same_size = asked.max_file_bytes in (None, current.settings.max_file_bytes)
    return same_roots and named and same_size and not (plan.tasks.count or plan.outcomes or plan.dropped)


def settle_run(
    *, index: Index, asked: Options, known: Known, scopes: Scopes, plan: Plan, model: Model, tools: Tools,
    report: Report, lock: Hold,
) -> Run:  # fmt: skip
    """The record of the run. Raises UsageError (exit 2) and Mismatch (exit 12)."""
    settings, prints = settle_settings(asked, known.memory, model, tools.device_kind(asked))
    return Run(
        index=index, asked=asked, known=known, scopes=scopes, plan=plan, model=model, settings=settings,
        fingerprints=prints, tools=tools, report=report, lock=lock,
        time=TimeLimit.of(
            tools.seconds_left, sources=known.table.num_rows + plan.tasks.count,
            published_in_s=published_in_s(index.state),
        ),
    )  # fmt: skip
