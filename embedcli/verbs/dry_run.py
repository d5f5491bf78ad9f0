"""`ingest --dry-run`: what a run would do and how long it would take, without an engine and without a change.

In: what was asked, the index, its sources. Out: a Forecast with the exact number of tokens: the sources are read and
cut as in a run, and every chunk is looked up among the known vectors. Of the index only the lock is touched.
Not here: the run itself (ingest.py), printing (cli/nightly.py).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcli.errors import UnreadableSource, UsageError
from embedcli.index import lock, shards
from embedcli.index.generations import Index
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.mirror.place import open_index
from embedcli.reading.rows import Read, Reading, ReadRecords
from embedcli.run.begin import check_asked
from embedcli.run.known import look
from embedcli.run.pace.measured import Measured, measured
from embedcli.run.pace.time_limit import OutOfTime
from embedcli.run.plan import make_plan
from embedcli.run.record import nothing_to_do
from embedcli.run.settings import rules_of, settle_settings
from embedcli.run.tasks import AnyTask, Contained, ContainerEnd, RecordTask, Refused, Task
from embedcli.sources.lists import settle_sources

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcli.config import IndexSettings, Options, Rules
    from embedcli.fingerprints import Fingerprints
    from embedcli.models.folder import Model
    from embedcli.reading.rows import Result
    from embedcli.report import Report
    from embedcli.run.containers import OpenContainers
    from embedcli.run.known import Known
    from embedcli.run.pending import Ended
    from embedcli.run.plan import Plan
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
    """Look, plan, read and chunk. Raises EmbedcliError as a run would, and UsageError for a stream.

    The time limit of `tools` ends the reading.
    """
    if asked.stream is not None:
        raise UsageError("`--dry-run` would use up a stream of records", "write it to a file, and name that")
    started_s = time.monotonic()
    index = open_index(asked.index, disk=tools.disk, warn=report.warn)
    index.check()
    check_asked(index, asked)
    forecast = Forecast(index.shown)
    with closing(report), _locked(index, report):
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
        rules = rules_of(asked, known.memory, rebuilding=known.rebuilding)
        counting = _Counting(index, known, rules, settings, prints, forecast)
        forecast.complete = counting.read(plan, model, tools, report)
    if forecast.complete:
        _expect(forecast, measured(index.state, prints.model), so_far_s=time.monotonic() - started_s)
    return forecast


@contextmanager
def _locked(index: Index, report: Report) -> Iterator[None]:
    """Hold the lock, so that no run changes the index meanwhile; a folder that is not there is not made."""
    if not index.generations.exists():
        yield
        return
    with lock.hold(index.folder, index.disk, report.warn):
        yield


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
        self,
        index: Index,
        known: Known,
        rules: Rules,
        settings: IndexSettings,
        prints: Fingerprints,
        forecast: Forecast,
    ) -> None:
        self._known = known
        self._rules = rules
        self._forecast = forecast
        self._settings = settings
        self._prints = prints
        self._library = KnownVectors(dim=settings.dim)
        self._on_their_way: set[bytes] = set()
        for shard in index.kept_shards():
            if shard.name not in known.damaged:
                self._library.add(shard)
        for item in known.leftovers:
            item.lend(item.load()[0], self._library)

    def read(self, plan: Plan, model: Model, tools: Tools, report: Report) -> bool:
        """Read the sources of the plan and count; False where the time was over before. Raises Stopped."""
        from embedcli.run.containers import Members, OpenContainers
        from embedcli.run.stream import reading, reading_work

        members, done = Members(self._known.table), 0
        containers = OpenContainers(members, self._rules, plan, report.warn)
        with tempfile.TemporaryDirectory(prefix="embedcli-") as folder:
            work = reading_work(model, self._settings, self._prints, spool_folder=Path(folder))
            tasks, read_all = iter(plan.tasks), self._rules.read_all
            with reading(tools, work, tasks, plan=plan, members=members, read_all=read_all) as pool:
                while not pool.done and tools.seconds_left() > 0:
                    tools.stop_if_asked()
                    returned = pool.get(0.2)
                    if returned is not None:
                        done += not isinstance(returned[0], RecordTask)
                        report.looking(f"reading: {done:,} of {plan.tasks.count:,} documents")
                        self._take(*returned, containers)
        self._forecast.sources["gone"] = len(plan.gone) - len(plan.moved)
        return done == plan.tasks.count

    def _take(self, task: AnyTask, result: Result | UnreadableSource, containers: OpenContainers) -> None:
        from embedcli.run.containers import read_by_themselves

        if isinstance(task, ContainerEnd):
            self._count_ended(containers.end(task))
        elif isinstance(task, RecordTask):
            containers.batch(task)
            if isinstance(result, ReadRecords):
                self._count_chunks(result.table())
                for read in result.documents_table().select(["place", "sha256"]).to_pylist():
                    self._count_ended(containers.ended(Refused(task.task(read["place"]), "", read["sha256"])))
            for one, alone in read_by_themselves(task, result):
                self._read(one, alone, containers)
        else:
            assert not isinstance(result, ReadRecords)
            self._read(task, Read(result) if isinstance(result, UnreadableSource) else result[0], containers)

    def _read(self, task: Task, read: Read, containers: OpenContainers) -> None:
        """A source, and what is inside it."""
        own, reason = read.own, None
        if isinstance(own, Reading):
            reason = own.reason
            self._count_chunks(own.table())
        elif isinstance(own, UnreadableSource):
            reason = own.reason
            self._forecast.unreadable[reason] = self._forecast.unreadable.get(reason, 0) + 1
        else:
            reason = "portfolio"
        refused = reason if isinstance(own, UnreadableSource) else None
        inside = containers.of_file(task, [name for name, _ in read.members], refused=refused)
        self._count_ended(containers.ended(Refused(task, reason or "", own.sha256)))
        for member, (_, inner) in zip(inside, read.members, strict=True):
            self._read(member, inner, containers)

    def _count_ended(self, ended: Iterable[Ended]) -> None:
        """New ones that are files of their own are counted already."""
        for source in ended:
            assert isinstance(source, Refused | Contained)  # nothing gets vectors here
            self._forecast.sources["unchanged"] += source.unchanged
            prior = source.task.prior
            if prior is not None:
                same = (prior.sha256, prior.reason) == (source.sha256, source.reason or None)
                self._forecast.sources["unchanged" if same else "changed"] += 1
            elif source.task.source.container is not None:
                self._forecast.sources["new"] += 1

    def _count_chunks(self, table: pa.Table) -> None:
        forecast = self._forecast
        keys: list[bytes] = table.column("key").to_pylist()
        found = self._library.take(shards.keys_of(keys), np.empty((len(keys), self._settings.dim), np.float32))
        for key, tokens, known in zip(keys, table.column("token_count").to_pylist(), found.tolist(), strict=True):
            what = "reused" if known or key in self._on_their_way else "embedded"
            self._on_their_way.add(key)
            forecast.chunks[what] += 1
            forecast.tokens[what] += tokens


def _expect(forecast: Forecast, before: Measured, *, so_far_s: float) -> None:
    """How long the run takes: it reads while the engine embeds, and what this one took it takes as well."""
    forecast.tokens_per_s = before.tokens_per_s
    tokens = forecast.tokens["embedded"]
    if not tokens:
        forecast.expected_s = so_far_s + before.publishing_s
    elif before.tokens_per_s:
        embedding_s = before.loading_s + tokens / before.tokens_per_s
        forecast.expected_s = max(so_far_s, embedding_s) + before.publishing_s
