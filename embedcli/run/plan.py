"""The plan of a run: what is new, changed, unchanged, moved, gone, excluded, stale.

In: one source after the other, from the stage that looks (looking/). Out: sources to read, marks on known ones, keys
that leave.
Not here: how that is found out (looking/compare.py), reading (reading/rows.py), what is stored (index/staging.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from embedcli.index import documents
from embedcli.index.documents import Mark
from embedcli.index.outcomes import Outcome
from embedcli.records import SourceKey
from embedcli.report import Largest
from embedcli.run.looking.gone import Moved, folders_of
from embedcli.run.tasks import NEVER, LastSeen, TaskList
from embedcli.sources.roots import Scopes


@dataclass
class Plan:
    """What this run has to do.

    `tasks` are read; `outcomes` need no reading; `dropped` sources leave the index; `seen` sources differ in their stat
    only.
    """

    scopes: Scopes
    tasks: TaskList
    outcomes: list[Outcome] = field(default_factory=list)
    seen: list[Mark] = field(default_factory=list)
    gone: set[SourceKey] = field(default_factory=set)
    cleared: set[SourceKey] = field(default_factory=set)
    """What stood for lines of records that could not be read, and that are there no more, or elsewhere."""
    moved: dict[SourceKey, Moved] = field(default_factory=dict)
    """New sources with the same bytes as a known source that is gone: the known source was moved."""
    frozen: dict[str, str] = field(default_factory=dict)
    """Folders, as absolute paths, that lost so many sources that their rows stay; and how many, in words."""
    excluded: set[SourceKey] = field(default_factory=set)
    absorbed: set[SourceKey] = field(default_factory=set)
    unlisted: dict[str, str] = field(default_factory=dict)
    """Folders that could not be looked into, as absolute paths, and why."""
    marked: set[SourceKey] = field(default_factory=set)
    """Files with a `#` in their path, which documents inside a container must not be taken for."""
    news: set[SourceKey] = field(default_factory=set)
    due_inside: set[SourceKey] = field(default_factory=set)
    """Sources with a document inside them that this run tries again."""
    new_of: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    unchanged: int = 0
    mounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    walked: Largest = field(default_factory=Largest)
    unmatched: list[str] = field(default_factory=list)
    """Patterns of filters that matched nothing."""
    bare_folders: list[str] = field(default_factory=list)
    """Folders in a list that names nothing in them."""

    @classmethod
    def empty(cls) -> Plan:
        """Nothing to do, in no root."""
        return cls(Scopes((), (), frozenset(), ()), TaskList(documents.empty()))

    @property
    def new(self) -> int:
        return self.new_of.total()

    @property
    def whole(self) -> bool:
        """Whether this run covers every root of the index."""
        return {scope.root.id for scope in self.scopes.scopes if scope.is_whole} >= {
            root.id for root in self.scopes.roots if not root.stream
        }

    def keep(self, key: SourceKey, prior: LastSeen, *, why: str) -> None:
        """A known source that cannot be seen keeps its rows, and is stale for the reason `why`."""
        self.unchanged += prior.members
        if prior.holds and (prior.status, prior.reason) != ("stale", why):
            columns = {"status": "stale", "reason": why}
            if prior.status == "skipped":  # a portfolio: only reading it again tells its status
                columns["tried"] = NEVER
            self.outcomes.append(Outcome(None, mark=Mark(key, columns)))
            self.changed += 1
            self.news.add(key)
        else:
            self.unchanged += 1

    def folders_with_news(self) -> set[str]:
        """The folders in which a source that is news lies, at any depth, by their absolute paths."""
        return folders_of(self.news, self.scopes.roots)

    @property
    def dropped(self) -> set[SourceKey]:
        return self.gone | self.cleared | self.excluded | self.absorbed
