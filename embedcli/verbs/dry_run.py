"""`ingest --dry-run`: what a run would do and how long it would take, without an engine and without a change.

In: what was asked, the index, its sources. Out: a Forecast with the exact number of tokens: the sources are read and
cut as in a run, and every chunk is looked up among the known vectors. Of the index only the lock is touched.
Not here: the run itself (ingest.py), printing (cli/nightly.py).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcli.errors import Stopped, UnreadableSource
from embedcli.index import lock, shards
from embedcli.index.generations import Index
from embedcli.index.known_vectors import KnownVectors
from embedcli.reading.rows import Holder, Read, Reading
from embedcli.run.begin import check_asked
from embedcli.run.containers import Members
from embedcli.run.known import look
from embedcli.run.measured import Measured, measured
from embedcli.run.plan import make_plan
from embedcli.run.record import nothing_to_do
from embedcli.run.settings import settle_settings
from embedcli.run.tasks import ContainerEnd, RecordTask, Task, last_seen_rows
from embedcli.run.time_limit import OutOfTime
from embedcli.sources.lists import settle_sources
from embedcli.sources.streams import spooled

if TYPE_CHECKING:
    from embedcli.config import IndexSettings, Options
    from embedcli.fingerprints import Fingerprints
    from embedcli.models.folder import Model
    from embedcli.report import Report
    from embedcli.run.known import Known
    from embedcli.run.plan import Plan
    from embedcli.run.tasks import AnyTask
    from embedcli.run.tools import Tools


@dataclass
class Forecast:
    """What a run would do. `bytes`: of the sources that it would read; `expected_s`: None where no run on this machine
    has been measured; `complete`: whether the time sufficed to read them all.

    `unreadable`: by reason, of those that it would read.
    """

    index: str
    complete: bool = False
    sources: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    chunks: dict[str, int] = field(default_factory=lambda: {"embedded": 0, "reused": 0})
    tokens: dict[str, int] = field(default_factory=lambda: {"embedded": 0, "reused": 0})
    tokens_per_s: float | None = None
    expected_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"exit_code": 0, "dry_run": True, **dataclasses.asdict(self)}


def dry_run(asked: Options, *, tools: Tools, report: Report) -> Forecast:
    """Look, plan, read and chunk. Raises EmbedcliError as a run would; the time limit of `tools` ends the reading."""
    started_s = time.monotonic()
    index = Index(asked.index, disk=tools.disk, warn=report.warn)
    index.check()
    check_asked(index, asked)
    forecast = Forecast(str(index.folder))
    with closing(report), _locked(index, report), _spooled(asked) as asked:
        known = look(index, asked)
        scopes = settle_sources(asked, known.roots, everything=known.rebuilding)
        try:
            plan = make_plan(known, scopes, asked, report, lambda: tools.seconds_left() <= 0)
        except OutOfTime:
            return forecast
        _count_plan(forecast, plan)
        if nothing_to_do(plan, known, scopes, asked):
            forecast.complete, forecast.expected_s = True, time.monotonic() - started_s
            return forecast
        model = tools.resolve(asked, known.memory.settings)
        settings, prints = settle_settings(asked, known.memory, model, tools.device_kind(asked))
        counting = _Counting(index, known, settings, prints, forecast)
        read_all = asked.reread or known.rebuilding
        forecast.complete = counting.read(plan, model, tools, report, read_all=read_all)
    if forecast.complete:
        _expect(forecast, measured(index.state, prints.model), so_far_s=time.monotonic() - started_s)
    return forecast


@contextmanager
def _locked(index: Index, report: Report) -> Iterator[None]:
    """Hold the lock, so that no run changes the index meanwhile; a folder that is not there is not made."""
    if not index.generations.exists():
        yield
        return
    with lock.Lock(index.folder, network=lock.on_network(index.folder), warn=report.warn):
        yield


@contextmanager
def _spooled(asked: Options) -> Iterator[Options]:
    with tempfile.TemporaryDirectory(prefix="embedcli-") as folder, spooled(asked, Path(folder)) as complete:
        yield complete


def _count_plan(forecast: Forecast, plan: Plan) -> None:
    moved = len(plan.moved)
    forecast.bytes = plan.tasks.size_bytes
    forecast.sources = {
        "new": plan.new - moved,
        "changed": plan.changed,
        "moved": moved,
        "unchanged": plan.unchanged,
        "gone": len(plan.gone) - moved,
        "excluded": len(plan.excluded),
    }


class _Counting:
    """Counts the chunks whose vectors neither the index nor a killed run nor an earlier source of this run has."""

    def __init__(
        self, index: Index, known: Known, settings: IndexSettings, prints: Fingerprints, forecast: Forecast
    ) -> None:
        self._forecast = forecast
        self._unreadable: Counter[str] = Counter()
        self._members = Members(known.table)
        self._settings = settings
        self._prints = prints
        self._library = KnownVectors(dim=settings.dim)
        self._on_their_way: set[bytes] = set()
        for shard in index.kept_shards():
            if shard.name not in known.damaged:
                self._library.add(shard)
        for item in known.leftovers:
            for shard in item.load()[0].values():
                self._library.add(shard, one_of_many=True)
            for keys, vectors in item.loose():
                self._library.add_loose(keys, vectors)

    def read(self, plan: Plan, model: Model, tools: Tools, report: Report, *, read_all: bool) -> bool:
        """Read the sources of the plan and count; False where the time was over before. Raises Stopped."""
        from embedcli.run.stream import readers, reading_work

        done = 0
        with tempfile.TemporaryDirectory(prefix="embedcli-") as folder:
            work = reading_work(model, self._settings, self._prints, spool_folder=Path(folder))
            tasks = iter(plan.tasks)
            with readers(tools, work, plan.scopes, self._members, tasks, read_all=read_all) as pool:
                while not pool.done and tools.seconds_left() > 0:
                    if (number := tools.stop_signal()) is not None:
                        raise Stopped(number)
                    returned = pool.get(0.2)
                    if returned is None:
                        continue
                    done += not isinstance(returned[0], RecordTask)
                    report.looking(f"reading: {done:,} of {plan.tasks.count:,} documents")
                    self._count(*returned)
        self._forecast.unreadable = dict(sorted(self._unreadable.items()))
        return done == plan.tasks.count

    def _count(self, task: AnyTask, result: tuple[Read, ...] | UnreadableSource) -> None:
        if isinstance(task, ContainerEnd):
            self._count_container(task)
        elif isinstance(task, Task):
            self._count_source(task, Read(result) if isinstance(result, UnreadableSource) else result[0])
        else:
            reads = [Read(result)] * len(task.tasks) if isinstance(result, UnreadableSource) else result
            for record, read in zip(task.tasks, reads, strict=True):
                self._forecast.sources["new"] += record.prior is None
                self._count_source(record, read)

    def _count_container(self, end: ContainerEnd) -> None:
        """A container that is known counts as changed even where only its order is another."""
        self._forecast.sources["changed"] += end.container.prior is not None
        self._forecast.sources["unchanged"] += end.unchanged
        self._forecast.sources["gone"] += end.lost
        if isinstance(end.result, UnreadableSource):
            self._unreadable[end.result.reason] += 1

    def _count_source(self, task: Task, read: Read) -> None:
        own = read.own
        if task.prior is not None:
            reason = None if isinstance(own, Holder) else own.reason
            same = task.prior.sha256 == own.sha256 and task.prior.reason == reason
            self._forecast.sources["unchanged" if same else "changed"] += 1
        if isinstance(own, UnreadableSource):
            self._unreadable[own.reason] += 1
        elif isinstance(own, Reading):
            self._count_chunks(own)
        known = {prior.path: prior for prior in last_seen_rows(self._members.of(task.key))} if read.members else {}
        for name, inner in read.members:
            member = task.source.member(name)
            self._forecast.sources["new"] += member.path not in known
            self._count_source(Task(member, known.get(member.path)), inner)

    def _count_chunks(self, reading: Reading) -> None:
        table = reading.table()
        keys: list[bytes] = table.column("key").to_pylist()
        found = self._library.take(shards.keys_of(keys), np.empty((len(keys), self._settings.dim), np.float32))
        for key, tokens, known in zip(keys, table.column("token_count").to_pylist(), found.tolist(), strict=True):
            what = "reused" if known or key in self._on_their_way else "embedded"
            self._on_their_way.add(key)
            self._forecast.chunks[what] += 1
            self._forecast.tokens[what] += tokens


def _expect(forecast: Forecast, before: Measured, *, so_far_s: float) -> None:
    """How long the run takes: it reads while the engine embeds, and what this one took it takes as well."""
    forecast.tokens_per_s = before.tokens_per_s
    tokens = forecast.tokens["embedded"]
    if not tokens:
        forecast.expected_s = so_far_s + before.publishing_s
    elif before.tokens_per_s:
        embedding_s = before.loading_s + tokens / before.tokens_per_s
        forecast.expected_s = max(so_far_s, embedding_s) + before.publishing_s
