"""What the walk finds against what the index knows -> what is new, changed, unchanged, moved, gone, excluded, stale.

In: the roots of the run and the documents of the current generation, both in walk order, joined as they stream by.
Out: a Plan: sources to read, marks on known ones, keys that leave. Nothing is written and no source is parsed here;
a known file whose stat differs is digested, so that a `touch` costs no reading.
Not here: which roots the run covers (sources/roots.py), walking (sources/walk.py), reading (reading/rows.py), what
is stored (index/staging.py, index/generations.py).
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.config import Options, Rules, mirrored_url
from embedcli.errors import BucketError, InputError, quoted
from embedcli.index import documents
from embedcli.index.documents import Mark
from embedcli.index.outcomes import Outcome
from embedcli.records import (
    COLD_STORAGE,
    MOMENT_REASONS,
    RETRY_REASONS,
    SKIP_REASONS,
    TROUBLED,
    Root,
    Source,
    SourceKey,
    from_printable,
    if_trusted,
    printable,
    stat_of,
)
from embedcli.report import Largest, Report
from embedcli.run.gone import Moved, digested, find_moves, freeze
from embedcli.run.outcome import refused
from embedcli.run.pace.time_limit import OutOfTime
from embedcli.run.settings import rules_of
from embedcli.run.tasks import LastSeen, Task, TaskList, last_seen, last_seen_rows
from embedcli.sources.buckets.fetched import stat_of_object
from embedcli.sources.buckets.walk import walk_bucket
from embedcli.sources.containers import RuleBook
from embedcli.sources.filters import Filter
from embedcli.sources.roots import Scope, Scopes, inside
from embedcli.sources.walk import WalkProblems, walk, walk_list, walk_selection
from embedcli.urls import absolute, is_url

if TYPE_CHECKING:
    from embedcli.run.known import Known

MAX_ATTEMPTS = 4
"""A source that failed for a reason of RETRY_REASONS is read in four runs: once, and in the next three."""
TELL_EVERY = 1_000
FOLDERS_SHOWN = 5
LOOK_INTO = {
    "s3": "check its name, AWS_ENDPOINT_URL, AWS_REGION and the credentials",
    "gs": "check its name and GOOGLE_APPLICATION_CREDENTIALS",
}
"""What to do about a bucket that cannot be listed."""
DIGESTED_AT_ONCE = 256


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

    @property
    def new(self) -> int:
        return self.new_of.total()

    @property
    def whole(self) -> bool:
        """Whether this run covers every root of the index."""
        return {scope.root.id for scope in self.scopes.scopes if scope.is_whole} >= {
            root.id for root in self.scopes.roots if not root.stream
        }

    def keep(self, key: SourceKey, status: str, reason: str | None, rows: int, *, why: str) -> None:
        """A known source that cannot be seen keeps its rows, and is stale for the reason `why`."""
        if rows and (status, reason) != ("stale", why):
            self.outcomes.append(Outcome(None, mark=Mark(key, {"status": "stale", "reason": why})))
            self.changed += 1
            self.news.add(key)
        else:
            self.unchanged += 1

    @property
    def dropped(self) -> set[SourceKey]:
        return self.gone | self.cleared | self.excluded | self.absorbed


def make_plan(
    known: Known, scopes: Scopes, asked: Options, report: Report, is_over: Callable[[], bool] = lambda: False
) -> Plan:
    """Compare what the walk finds with what the index knows, and report what is to be done.

    Raises InputError (exit 15) when too much is gone, or when nothing is left to index, and OutOfTime when the time
    `is_over` before the walk is: then nothing is to be done.
    """
    rules = rules_of(asked, known.memory, rebuilding=known.rebuilding)
    mounts = known.current.mounts if known.current else {}
    walked = Largest(every=report.verbose)
    plan = compare(known.table, scopes, mounts, rules, walked=walked, say=report.looking, is_over=is_over)
    if elsewhere := _read_elsewhere(plan, known.table, known.damaged):
        report.line(f"{elsewhere:,} documents of damaged shards are read again, wherever they lie")
    report.line(plan.walked.line())
    for why, count in scopes.left_out.items():
        report.warn(f"{count:,} names of the list are {why}")
    for folder in [*scopes.bare_folders, *plan.bare_folders][:FOLDERS_SHOWN]:
        shown = printable(os.fsencode(folder))
        report.warn(f"the list has the folder `{shown}` and nothing in it: name its files, or the folder as a SOURCE")
    for folder, why in sorted(plan.unlisted.items())[:FOLDERS_SHOWN]:
        forget = f"`embedcli forget {quoted(folder)} --index {quoted(asked.shown_index)}`"
        report.warn(f"`{folder}` {why}: what the index has of it stays as it is; if it is gone for good: {forget}")
    for pattern in dict.fromkeys(plan.unmatched):
        report.warn(f"the pattern `{pattern}` of `--include` or `--exclude` matches nothing")
    for folder, _ in asked.max_gone_of:
        if not _is_known(folder, known.table, scopes):
            report.warn(f"`{folder}` of `--max-gone` is no folder that the index has sources of")
    for folder, lost in sorted(plan.frozen.items()):
        report.warn(
            f"`{folder}`: {lost} of its known sources are gone; they stay in the index, stale."
            f" If they were deleted: `--max-gone '{folder}=100'`"
        )
    _check_not_empty(plan, known.table)
    return plan


def _is_known(place: str, table: pa.Table, scopes: Scopes) -> bool:
    """Whether the index has sources at or below an absolute path, or it stands for a stream."""
    shown, uris = printable(os.fsencode(place)), table.column("uri")
    found = pc.or_(pc.equal(uris, shown), pc.starts_with(uris, f"{shown.rstrip('/')}/"))
    return pc.any(found).as_py() or any(root.stream and absolute(root.path) == place for root in scopes.roots)


def _check_not_empty(plan: Plan, table: pa.Table) -> None:
    if plan.tasks.count + len(plan.outcomes) + table.num_rows == 0:
        places = ", ".join(f"`{scope.root.path}`" for scope in plan.scopes.scopes) or "the list"
        raise InputError(
            f"no files found in {places}",
            "check the path; hidden files and what `--include`, `--exclude`, `.embedcliignore` leave out do not count",
        )
    if plan.excluded and not (plan.unchanged or plan.tasks.count or plan.outcomes):
        raise InputError(
            f"the filters leave none of {len(plan.excluded):,} known sources; nothing was changed",
            "mend `--include` and `--exclude`; an empty pattern, `''`, forgets those that are remembered",
        )


def compare(
    base: pa.Table,
    scopes: Scopes,
    mounts: Mapping[str, Sequence[str]],
    rules: Rules,
    *,
    walked: Largest | None = None,
    say: Callable[[str], None] = lambda _: None,
    is_over: Callable[[], bool] = lambda: False,
) -> Plan:
    """Join the walk of `scopes` with the table `base` (documents of the current generation, in walk order). `say` hears
    now and then how far it is. Raises InputError (exit 15) when too much is gone, and OutOfTime.
    """
    known = documents.files(base)
    seen = last_seen(known, documents.MemberCounts(base))
    plan = Plan(
        scopes,
        TaskList(seen),
        walked=walked or Largest(),
        due_inside=_due_inside(base, rules),
        mounts={root.id: tuple(mounts.get(root.id, ())) for root in scopes.roots},
    )
    suspects = TaskList(seen)
    for scope in scopes.scopes:
        priors = partial(_priors, seen, known, scope)
        _Join(plan, scope, priors, mounts.get(scope.root.id, ()), rules, suspects).run(say, is_over)
    _check_absorbed(plan)
    for root_id in scopes.absorbed:
        plan.absorbed |= {(root_id, prior.path) for prior in _priors(seen, known, Scope(Root(root_id, "")))}
    _judge_gone(plan, base, rules, is_over)
    plan.gone |= _orphans(scopes, base)
    for leaving in (plan.gone, plan.excluded, plan.absorbed):
        leaving |= documents.members(base, leaving)
    _digest_suspects(plan, suspects, rules, say, is_over)
    _keep_apart(plan, base, known)
    return plan


class _Join:
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
        self._old_mounts = mounts
        self._priors_again = priors
        self._priors = priors()
        self._missing: list[LastSeen] = []
        self._book, self._book_before = RuleBook(scope.root), RuleBook(scope.before or scope.root)

    def run(self, say: Callable[[str], None], is_over: Callable[[], bool]) -> None:
        problems = WalkProblems()
        found = self._walk(problems)
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
        self._judge_missing(problems)
        self._plan.unmatched += problems.unmatched

    def _walk(self, problems: WalkProblems) -> Iterator[Source]:
        root, rules = self._scope.root, self._rules
        if self._scope.stream is not None:
            return iter([self._scope.stream.source(root)])
        if is_url(root.path):
            return walk_bucket(
                root,
                below=self._scope.below,
                index=mirrored_url(rules.index),
                max_text_bytes=rules.max_file_bytes,
                problems=problems,
            )
        if self._scope.listed is not None:
            paths = iter_values(self._scope.listed)
            return walk_list(root, paths, max_text_bytes=rules.max_file_bytes, problems=problems)
        if root.selection is None:
            return walk(
                root,
                below=self._scope.below,
                skip_folder=rules.index,
                max_text_bytes=rules.max_file_bytes,
                problems=problems,
                places=self._plan.scopes.places,
            )
        files = {prior.path for prior in self._priors} | self._scope.named
        self._priors = self._priors_again()
        return walk_selection(
            root,
            files,
            skip_folder=rules.index,
            max_text_bytes=rules.max_file_bytes,
            problems=problems,
            places=self._plan.scopes.places,
        )

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
        if source.problem == COLD_STORAGE and prior.holds and _is_as_seen(source, prior):
            self._plan.unchanged += 1 + prior.members
        elif source.problem:
            self._problem(source, prior)
        elif rules.read_all or self._is_read_otherwise(source.path):
            self._plan.tasks.add(source, prior)
        elif _was_only_unseen(source, prior, rules):
            self._plan.outcomes.append(Outcome(None, mark=Mark(source.key, {"status": "indexed", "reason": None})))
            self._plan.changed += 1
        elif rules.rehash or not _is_as_seen(source, prior):
            digested = prior.sha256 is not None and prior.status != "stale"
            (self._suspects if digested else self._plan.tasks).add(source, prior)
        elif _due_again(prior, rules) or source.key in self._plan.due_inside:
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
        is_trouble = outcome.mark is not None or reason not in SKIP_REASONS
        if is_trouble and not same:
            self._plan.news.add((source.root_id, source.path))

    def _judge_missing(self, problems: WalkProblems) -> None:
        """Decide for each known source that the walk did not yield: excluded, stale (its folder is unseen), or gone."""
        visited = [mount for mount in self._old_mounts if self._scope.holds(mount)]
        lost = {mount: "io" for mount in visited if mount not in problems.mounts}
        unseen = lost | problems.unlisted
        filters = Filter(self._scope.root, ignore_files=problems.ignore_files)
        waited_for: set[str] = set()
        for prior in self._missing:
            key = (self._scope.root.id, prior.path)
            folder = next((folder for folder in unseen if not folder or prior.path.startswith(f"{folder}/")), None)
            if self._scope.root.selection is None and filters.leaves_out(prior.path):
                self._plan.excluded.add(key)
            elif folder is not None:
                waited_for.add(folder)
                self._stale(prior, unseen[folder])
            else:
                self._plan.gone.add(key)
        self._note_unseen(lost, problems, waited_for)
        self._plan.bare_folders += problems.bare_folders
        # a lost mount point is remembered as long as something below it waits for it
        mounts = {mount for mount in self._old_mounts if mount not in visited or mount in waited_for}
        self._plan.mounts[self._scope.root.id] = tuple(sorted(mounts | set(problems.mounts)))

    def _note_unseen(self, lost: Mapping[str, str], problems: WalkProblems, waited_for: Collection[str]) -> None:
        unlisted, told = problems.unlisted, problems.details
        reasons = {folder: "was a mount point and is none now" for folder in lost if folder in waited_for}
        reasons |= {
            folder: f"cannot be listed ({told.get(folder, reason)})"
            for folder, reason in unlisted.items()
            if reason != "vanished" or folder in told
        }
        reasons |= {folder: "vanished" for folder in unlisted if folder not in reasons and folder in waited_for}
        root = self._scope.root.path
        self._plan.unlisted |= {f"{root}/{folder}".rstrip("/"): why for folder, why in reasons.items()}
        if self._rules.rebuilding and waited_for:
            first = min(self._plan.unlisted)
            raise InputError(f"`{first}` {self._plan.unlisted[first]}, and a rebuild needs every source", mended(root))
        if "" in unlisted and not waited_for:
            look = LOOK_INTO.get(root.partition("://")[0], f"look at it with `ls -la '{root}'`")
            raise InputError(f"`{root}` {reasons.get('', 'vanished')}", look)

    def _stale(self, prior: LastSeen, reason: str) -> None:
        self._plan.keep((self._scope.root.id, prior.path), prior.status, prior.reason, prior.rows, why=reason)


def _is_as_seen(source: Source, prior: LastSeen) -> bool:
    """Whether a source has its stat of before. An object with the same size and ETag has the same bytes, whenever they
    were written."""
    stat = source.stat
    if prior.is_of(stat) or stat is None or not source.is_object or prior.status == "stale":
        return prior.is_of(stat)
    return stat.inode != 0 and (prior.size, prior.inode) == (stat.size, stat.inode)


def _was_only_unseen(source: Source, prior: LastSeen, rules: Rules) -> bool:
    """Whether a source is stale for no other reason than that its folder or bucket could not be seen, and is still what
    was read last. A night without a network must not cost the reading of all that lies in a bucket."""
    unseen = prior.status == "stale" and prior.tried is None and not prior.lacking
    if not unseen or rules.rehash or rules.retry_failed or prior.read_fingerprint != rules.read_fingerprint:
        return False
    return prior.stat == source.stat


def _due_again(prior: LastSeen, rules: Rules) -> bool:
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


def _due_inside(base: pa.Table, rules: Rules) -> set[SourceKey]:
    """The sources that are read again because of the way in which a document inside them failed."""
    failed = pc.and_(pc.is_valid(base.column("container")), pc.is_in(base.column("status"), pa.array(TROUBLED)))
    if not rules.retry_failed:
        again = pc.is_in(base.column("reason"), pa.array(sorted(RETRY_REASONS)))
        failed = pc.and_(failed, pc.and_(again, pc.less(base.column("attempts"), MAX_ATTEMPTS)))
    return documents.holders(base, documents.keys(base.filter(failed)))


def _priors(seen: pa.Table, known: pa.Table, scope: Scope) -> Iterator[LastSeen]:
    """What the index knows of a scope, in walk order; `known`: its files."""
    mine = pc.equal(known.column("root"), scope.root.id)
    if scope.listed is not None:
        mine = pc.and_(mine, pc.is_in(known.column("path"), value_set=scope.listed))
    for prior in last_seen_rows(seen.filter(mine)):
        if scope.holds(prior.path):
            yield prior


def _orphans(scopes: Scopes, base: pa.Table) -> set[SourceKey]:
    """Documents in a file that is gone, which a run that ended early had not read to its end: it has no row."""
    walked = {scope.root.id for scope in scopes.scopes if scope.is_whole and scope.stream is None}
    rows = documents.orphans(base).select(["root", "path", "container", "uri"]).to_pylist()
    gone = set()
    for row in rows:
        end = row["path"][len(row["container"]) :]
        file = os.fsdecode(from_printable(row["uri"].removesuffix(end)))
        if row["root"] in walked and not _is_there(file):
            gone.add((row["root"], row["path"]))
    return gone


def _is_there(file: str) -> bool:
    """Of a bucket that cannot be asked everything is there."""
    if not is_url(file):
        return os.path.lexists(file)
    try:
        stat_of_object(file)
    except BucketError as error:
        return error.reason != "vanished"
    return True


def iter_values(array: pa.Array) -> Iterator[str]:
    """The strings of an array, a batch at a time."""
    for start in range(0, len(array), TELL_EVERY):
        yield from array.slice(start, TELL_EVERY).to_pylist()


def _check_absorbed(plan: Plan) -> None:
    """Documents of a root that a wider root takes over are read again below it: refuse while they cannot be seen."""
    for path in plan.scopes.absorbed_paths:
        hidden = [folder for folder in plan.unlisted if inside(path, folder) or inside(folder, path)]
        if hidden:
            raise InputError(
                f"`{hidden[0]}` cannot be listed, and its documents were to move to a wider root", mended(path)
            )


def mended(place: str) -> str:
    """What to do about a place that cannot be listed."""
    what = "mend the access to the bucket" if is_url(place) else "mount it or mend its permissions"
    return f"{what}, then run the same command again"


def _judge_gone(plan: Plan, base: pa.Table, rules: Rules, is_over: Callable[[], bool]) -> None:
    """Recognise moved sources first. The others that are gone leave the index, unless their folder lost too much."""
    if not plan.gone:
        return
    gone = base.take(documents.positions(base, plan.gone))
    plan.moved = find_moves(gone, plan.tasks, is_over)
    lost = plan.gone - {moved.key for moved in plan.moved.values()}
    frozen = freeze(documents.files(base), lost, plan.scopes.roots, rules, new_of=plan.new_of)
    plan.frozen = dict(frozen.folders)
    plan.gone -= frozen.keys
    for row in gone.select(["root", "path", "status", "reason", "rows"]).to_pylist():
        if (row["root"], row["path"]) in frozen.keys:
            plan.keep((row["root"], row["path"]), row["status"], row["reason"], row["rows"], why="vanished")


def _digest_suspects(
    plan: Plan, suspects: TaskList, rules: Rules, say: Callable[[str], None], is_over: Callable[[], bool]
) -> None:
    """Digest the known files whose stat differs: a file with the same bytes is unchanged, whatever its times say.

    Those that are not digested before the time is over are left to be read, by the next run.
    """
    done = 0
    waiting = iter(suspects)
    while batch := list(islice(waiting, DIGESTED_AT_ONCE)):
        say(f"looking into files that may have changed: {done:,} of {suspects.count:,}")
        done += len(batch)
        for task, sha256 in digested(batch, is_over):
            _judge_suspect(plan, task, sha256, rules)


def _judge_suspect(plan: Plan, task: Task, sha256: str | None, rules: Rules) -> None:
    prior, stat = task.prior, task.source.stat
    assert prior is not None and stat is not None
    if sha256 is not None and sha256 == prior.sha256 and not _due_again(prior, rules):
        plan.unchanged += 1 + prior.members
        trusted = stat if task.source.is_object else if_trusted(stat, time.time_ns())
        plan.seen.append(Mark(task.key, asdict(trusted)))
    else:
        plan.tasks.add(task.source, prior)


def _read_elsewhere(plan: Plan, base: pa.Table, damaged: Collection[str]) -> int:
    """Add the sources of damaged shards that this run does not cover; returns how many. None of them counts as gone."""
    count = 0
    if not damaged:
        return count
    inside_damaged = documents.are_in_shards(base, damaged)
    holders = documents.holders(base, documents.keys(base.filter(inside_damaged)))
    mask = np.asarray(inside_damaged).copy()
    mask[documents.positions(base, holders)] = True
    mine = pa.array(mask[np.asarray(pc.is_null(base.column("container")))])
    rows = documents.files(base).filter(mine).select(["root", "path", "uri"]).to_pylist()
    for row, prior in zip(rows, last_seen_rows(plan.tasks.seen.filter(mine)), strict=True):
        covered = any(s.root.id == row["root"] and s.holds(row["path"]) for s in plan.scopes.scopes)
        source = None if covered or row["root"] in plan.scopes.absorbed else _source(row)
        if source is not None:
            plan.tasks.add(source, prior)
            count += 1
    return count


def _keep_apart(plan: Plan, base: pa.Table, files: pa.Table) -> None:
    """Read a source again if a new file has the path of a document inside it, which then gets another name."""
    known = files.filter(pc.match_substring(files.column("path"), "#"))
    plan.marked |= set(documents.keys(known)) - plan.dropped
    if not plan.marked:
        return
    shadowed = base.take(pa.array(documents.positions(base, plan.marked)))
    shadowed = shadowed.filter(pc.is_valid(shadowed.column("container")))
    if not shadowed.num_rows:
        return
    planned = {task.key for task in plan.tasks}
    again = documents.holders(base, documents.keys(shadowed)) - planned - plan.dropped
    places = pa.array(documents.positions(files, again))
    rows = files.take(places).select(["root", "path", "uri"]).to_pylist()
    for row, prior in zip(rows, last_seen_rows(plan.tasks.seen.take(places)), strict=True):
        source = _source(row)
        if source is not None:
            plan.tasks.add(source, prior)
            plan.unchanged -= 1 + prior.members


def _source(row: Mapping[str, str]) -> Source | None:
    file = os.fsdecode(from_printable(row["uri"]))
    try:
        if is_url(file):
            return Source(row["root"], row["path"], file, stat_of_object(file))
        found = os.stat(file)
    except OSError:
        return None
    return Source(row["root"], row["path"], file, stat_of(found)) if stat.S_ISREG(found.st_mode) else None
