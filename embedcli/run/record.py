"""The record of all that does not change while a run works.

In: what was asked, what is known and planned, the model. Out: a Run.
Not here: each of these (looking/survey.py, settings.py), what changes while the run works (begin_work.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcli.config import IndexSettings, Options, Rules
from embedcli.errors import Stopped
from embedcli.fingerprints import Fingerprints
from embedcli.run.pace.time_limit import TimeLimit
from embedcli.run.settings import rules_of, settle_settings

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.lock import Hold
    from embedcli.models.folder import Model
    from embedcli.report import Report
    from embedcli.run.known import Known
    from embedcli.run.looking.survey import Survey
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


def settle_run(found: Survey) -> Run:
    """The record of the run, with its model. Raises UsageError (exit 2), ModelUnavailable and Mismatch (exit 12)."""
    start, known = found.start, found.known
    model = start.tools.resolve(start.asked, known.memory.settings)
    settings, prints = settle_settings(start.asked, known.memory, model, start.tools.device_kind(start.asked))
    return Run(
        index=start.index, asked=start.asked, known=known, scopes=found.scopes, plan=found.plan, model=model,
        settings=settings, fingerprints=prints, tools=start.tools, report=start.report, lock=start.lock,
        time=TimeLimit.of(
            start.tools.seconds_left, sources=known.table.num_rows + found.plan.tasks.count, state=start.index.state
        ),
    )  # fmt: skip
