"""What the walks find against what the index knows -> what is new, changed, unchanged, moved, gone, excluded, stale.

In: the scopes of the run and the documents of the current generation, both in walk order, joined as they stream by.
Out: a Plan. Nothing is written and no source is parsed here; a known file whose stat differs is digested, so that a
`touch` costs no reading.
Not here: which roots the run covers (sources/roots.py), one of them (join.py), telling of it (survey.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.config import Rules
from embedcli.errors import InputError
from embedcli.index import documents
from embedcli.index.documents import Mark
from embedcli.records import Root, if_trusted
from embedcli.report import Largest
from embedcli.run.looking.again import due_again, due_inside
from embedcli.run.looking.elsewhere import keep_apart, orphans
from embedcli.run.looking.gone import digested, find_moves, freeze
from embedcli.run.looking.join import Join
from embedcli.run.looking.missing import mended
from embedcli.run.plan import Plan
from embedcli.run.tasks import LastSeen, Task, TaskList, last_seen, last_seen_rows
from embedcli.sources.roots import Scope, Scopes, inside

DIGESTED_AT_ONCE = 256


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
        due_inside=due_inside(base, rules),
        mounts={root.id: tuple(mounts.get(root.id, ())) for root in scopes.roots},
    )
    suspects = TaskList(seen)
    for scope in scopes.scopes:
        priors = partial(_priors, seen, known, scope)
        Join(plan, scope, priors, mounts.get(scope.root.id, ()), rules, suspects).run(say, is_over)
    _check_absorbed(plan)
    for root_id in scopes.absorbed:
        plan.absorbed |= {(root_id, prior.path) for prior in _priors(seen, known, Scope(Root(root_id, "")))}
    _judge_gone(plan, base, known, rules, is_over)
    plan.gone |= orphans(scopes, base)
    for leaving in (plan.gone, plan.excluded, plan.absorbed):
        leaving |= documents.members(base, leaving)
    _digest_suspects(plan, suspects, rules, say, is_over)
    keep_apart(plan, base, known)
    return plan


def _priors(seen: pa.Table, known: pa.Table, scope: Scope) -> Iterator[LastSeen]:
    """What the index knows of a scope, in walk order; `known`: its files."""
    mine = pc.equal(known.column("root"), scope.root.id)
    if scope.listed is not None:
        mine = pc.and_(mine, pc.is_in(known.column("path"), value_set=scope.listed))
    for prior in last_seen_rows(seen.filter(mine)):
        if scope.holds(prior.path):
            yield prior


def _check_absorbed(plan: Plan) -> None:
    """Documents of a root that a wider root takes over are read again below it: refuse while they cannot be seen."""
    for path in plan.scopes.absorbed_paths:
        hidden = [folder for folder in plan.unlisted if inside(path, folder) or inside(folder, path)]
        if hidden:
            raise InputError(
                f"`{hidden[0]}` cannot be listed, and its documents were to move to a wider root", mended(path)
            )


def _judge_gone(plan: Plan, base: pa.Table, known: pa.Table, rules: Rules, is_over: Callable[[], bool]) -> None:
    """Recognise moved sources first. The others that are gone leave the index, unless their folder lost too much.
    `known`: the files of `base`, a row for each row of `plan.tasks.seen`."""
    if not plan.gone:
        return
    gone = documents.taken(base, documents.positions(base, plan.gone))
    plan.moved = find_moves(gone, plan.tasks, is_over)
    lost = plan.gone - {moved.key for moved in plan.moved.values()}
    frozen = freeze(base, lost, plan.scopes.roots, rules, new_of=plan.new_of)
    plan.frozen = dict(frozen.folders)
    plan.gone -= frozen.keys
    numbers = documents.positions(known, frozen.keys)
    keys = documents.keys(documents.taken(known.select(["root", "path"]), numbers))
    for key, prior in zip(keys, last_seen_rows(documents.taken(plan.tasks.seen, numbers)), strict=True):
        plan.keep(key, prior, why="vanished")


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
    if sha256 is not None and sha256 == prior.sha256 and not due_again(prior, rules):
        plan.unchanged += 1 + prior.members
        trusted = stat if task.source.is_object else if_trusted(stat, time.time_ns())
        plan.seen.append(Mark(task.key, asdict(trusted)))
    else:
        plan.tasks.add(task.source, prior)
