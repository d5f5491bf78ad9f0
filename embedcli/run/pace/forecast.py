"""What a run would do and how long it would take: its sources are read and cut as in a run, and nothing is embedded.

In: the record of the run. Out: a Forecast with the exact number of tokens: every chunk is looked up among the known
vectors.
Not here: what changed (looking/survey.py), the verb (verbs/dry_run.py), printing (cli/nightly.py).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcli.errors import UnreadableSource
from embedcli.index import shards
from embedcli.index.known_vectors import KnownVectors
from embedcli.reading.rows import Read, Reading, ReadRecords
from embedcli.run.containers.ended import OpenContainers, read_by_themselves
from embedcli.run.containers.members import Members
from embedcli.run.readers import reading
from embedcli.run.tasks import AnyTask, Contained, ContainerEnd, RecordTask, Refused, Task

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcli.reading.rows import Result
    from embedcli.run.pace.measured import Measured
    from embedcli.run.pending import Ended
    from embedcli.run.plan import Plan
    from embedcli.run.record import Run


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

    def count_plan(self, plan: Plan) -> None:
        """What the walk found."""
        moved = len(plan.moved)
        self.bytes = plan.tasks.size_bytes
        self.sources = {
            "new": plan.new - moved,
            "changed": plan.changed,
            "moved": moved,
            "unchanged": plan.unchanged,
            "gone": len(plan.gone) - moved,
            "excluded": len(plan.excluded),
        }

    def expect(self, before: Measured, *, so_far_s: float) -> None:
        """How long the run takes: it reads while the engine embeds, and what this one took it takes as well."""
        self.tokens_per_s = before.tokens_per_s
        tokens = self.tokens["embedded"]
        if not tokens:
            self.expected_s = so_far_s + before.publishing_s
        elif before.tokens_per_s:
            embedding_s = before.loading_s + tokens / before.tokens_per_s
            self.expected_s = max(so_far_s, embedding_s) + before.publishing_s


class Counting:
    """Counts the chunks whose vectors neither the index nor a killed run nor an earlier source of this run has."""

    def __init__(self, run: Run, forecast: Forecast) -> None:
        self._run = run
        self._forecast = forecast
        self._library = KnownVectors(dim=run.settings.dim)
        self._on_their_way: set[bytes] = set()
        for shard in run.index.kept_shards():
            if shard.name not in run.known.damaged:
                self._library.add(shard)
        for item in run.known.leftovers:
            item.lend(item.load()[0], self._library)

    def read(self) -> bool:
        """Read the sources of the plan and count; False where the time was over before. Raises Stopped."""
        plan, tools, done = self._run.plan, self._run.tools, 0
        members = Members(self._run.known.table)
        containers = OpenContainers(members, self._run.rules, plan, self._run.report.warn)
        with (
            tempfile.TemporaryDirectory(prefix="embedcli-") as folder,
            reading(self._run, iter(plan.tasks), members=members, spool_folder=Path(folder)) as pool,
        ):
            while not pool.done and tools.seconds_left() > 0:
                tools.stop_if_asked()
                returned = pool.get(0.2)
                if returned is not None:
                    done += not isinstance(returned[0], RecordTask)
                    self._run.report.looking(f"reading: {done:,} of {plan.tasks.count:,} documents")
                    self._take(*returned, containers)
        self._forecast.sources["gone"] = len(plan.gone) - len(plan.moved)
        return done == plan.tasks.count

    def _take(self, task: AnyTask, result: Result | UnreadableSource, containers: OpenContainers) -> None:
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
        found = self._library.take(shards.keys_of(keys), np.empty((len(keys), self._run.settings.dim), np.float32))
        for key, tokens, known in zip(keys, table.column("token_count").to_pylist(), found.tolist(), strict=True):
            what = "reused" if known or key in self._on_their_way else "embedded"
            self._on_their_way.add(key)
            forecast.chunks[what] += 1
            forecast.tokens[what] += tokens
