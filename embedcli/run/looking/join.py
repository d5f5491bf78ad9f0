"""The walk of one scope joined with what the index knows of it, in the order of their paths.

In: a scope, the known sources in it. Out: more in the plan; known sources whose stat differs are suspects, which are
digested before they count as changed.
Not here: the walk (walks.py), what was not found (missing.py), all scopes together (compare.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from embedcli.config import Rules
from embedcli.index.documents import Mark
from embedcli.index.outcomes import Outcome
from embedcli.records import COLD_STORAGE, Source
from embedcli.run.looking.again import due_again, is_as_seen, was_only_unseen
from embedcli.run.looking.missing import Missing
from embedcli.run.looking.walks import sources_of
from embedcli.run.outcome import is_news, refused
from embedcli.run.pace.time_limit import OutOfTime
from embedcli.run.plan import Plan
from embedcli.run.tasks import LastSeen, TaskList
from embedcli.sources.containers import RuleBook
from embedcli.sources.roots import Scope
from embedcli.sources.walk import WalkProblems

TELL_EVERY = 1_000


class Join:
    """Joins the walk of one scope with the known rows, in the order of their paths."""

    def __init__(
        self,
        plan: Plan,
        scope: Scope,
        priors: Callable[[], Iterator[LastSeen]],
        mounts: Sequence[str],
        rules: Rules,
        suspects: TaskList,
    ) -> None:
        self._plan = plan
        self._scope = scope
        self._rules = rules
        self._suspects = suspects
        self._judge = Missing(plan, scope, mounts, rebuilding=rules.rebuilding)
        self._priors_again = priors
        self._priors = priors()
        self._missing: list[LastSeen] = []
        self._book, self._book_before = RuleBook(scope.root), RuleBook(scope.before or scope.root)

    def run(self, say: Callable[[str], None], is_over: Callable[[], bool]) -> None:
        problems = WalkProblems()
        found = sources_of(
            self._scope, self._rules, problems, places=self._plan.scopes.places, known_files=self._known_files
        )
        prior = next(self._priors, None)
        for source in found:
            if is_over():
                raise OutOfTime
            parts = source.path.split("/")
            while prior is not None and prior.path.split("/") < parts:
                self._missing.append(prior)
                prior = next(self._priors, None)
            known = prior is not None and prior.path == source.path
            self._count(source, say, new=not known)
            if prior is not None and known:
                self._known(source, prior)
                prior = next(self._priors, None)
            else:
                self._new(source)
        self._missing += [] if prior is None else [prior, *self._priors]
        self._judge.judge(self._missing, problems)
        self._plan.unmatched += problems.unmatched

    def _known_files(self) -> set[str]:
        """What the index knows of the scope, by its paths."""
        files = {prior.path for prior in self._priors}
        self._priors = self._priors_again()
        return files

    def _count(self, source: Source, say: Callable[[str], None], *, new: bool) -> None:
        self._plan.walked.add(source, new=new)
        if "#" in source.path:
            self._plan.marked.add(source.key)
        if self._plan.walked.files % TELL_EVERY == 0:
            say(f"looking for changes: {self._plan.walked.files:,} files")

    def _new(self, source: Source) -> None:
        self._plan.new_of[source.root_id] += 1
        if source.problem:
            self._problem(source, None)
        else:
            self._plan.tasks.add(source, None)

    def _known(self, source: Source, prior: LastSeen) -> None:
        rules = self._rules
        if source.problem == COLD_STORAGE and prior.holds and is_as_seen(source, prior):
            self._plan.unchanged += 1 + prior.members
        elif source.problem:
            self._problem(source, prior)
        elif rules.read_all or self._is_read_otherwise(source.path):
            self._plan.tasks.add(source, prior)
        elif was_only_unseen(source, prior, rules):
            self._plan.outcomes.append(Outcome(None, mark=Mark(source.key, {"status": "indexed", "reason": None})))
            self._plan.changed += 1
            self._plan.unchanged += prior.members
        elif rules.rehash or not is_as_seen(source, prior):
            digested = prior.sha256 is not None and prior.status != "stale"
            (self._suspects if digested else self._plan.tasks).add(source, prior)
        elif due_again(prior, rules) or source.key in self._plan.due_inside:
            self._plan.tasks.add(source, prior)
        else:
            self._plan.unchanged += 1 + prior.members
            if source.is_object and source.stat is not None and not prior.is_of(source.stat):
                self._plan.seen.append(Mark(source.key, asdict(source.stat)))

    def _is_read_otherwise(self, path: str) -> bool:
        """Whether the fields of its records are others now, or all of them are here and no others."""
        stream, before = self._scope.stream, self._scope.before
        if stream is not None and stream.whole:
            return True
        return before is not None and self._book_before.of(path) != self._book.of(path)

    def _problem(self, source: Source, prior: LastSeen | None) -> None:
        """Record a source that the walk itself found unreadable."""
        reason = source.problem or ""
        same = prior is not None and prior.reason == reason and prior.status in ("failed", "skipped", "stale")
        if same and not self._rules.rebuilding:
            self._plan.unchanged += 1
            return
        outcome = refused(source, prior, reason, self._rules)
        self._plan.outcomes.append(outcome)
        self._plan.changed += prior is not None
        if is_news(outcome, prior) and not same:
            self._plan.news.add((source.root_id, source.path))
