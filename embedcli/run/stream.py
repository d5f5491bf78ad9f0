"""The middle of the story: sources stream through readers, library and engine into staging, and out as a generation.

In: tonight's plan and the settled settings. Out: a published generation, a filled-in Summary; or an EmbedcliError
with everything finished so far checkpointed. One loop moves documents.
Not here: what the plan says (plan.py), how the engine is kept alive (engines/feeder.py), checkpoints (checkpoints.py),
what a generation is.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.config import Options, Rules
from embedcli.engines import probe
from embedcli.engines.contract import Engine
from embedcli.engines.feeder import Feeder
from embedcli.errors import EngineError, InputError, Stopped, StorageError, UnreadableSource
from embedcli.index import damage, documents, leftovers, next_table, shards, state
from embedcli.index.damage import Left
from embedcli.index.documents import DocumentRow, Mark
from embedcli.index.generations import Draft
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.leftovers import Leftover, run_folders
from embedcli.index.manifest import Generation
from embedcli.index.outcomes import Outcome, Outcomes
from embedcli.index.shards import Shard
from embedcli.index.staging import Finished, RunHeader, Staging
from embedcli.models import resolve
from embedcli.reading.pool import Pool
from embedcli.reading.process import Limits
from embedcli.reading.rows import Reading, ReadingWork
from embedcli.records import MOMENT_REASONS, RETRY_REASONS, SourceKey
from embedcli.report import Progress, Report, Summary, many
from embedcli.run.checkpoints import Checkpoints
from embedcli.run.known import Before, known_reference
from embedcli.run.memory import map_large_buffers
from embedcli.run.outcome import is_news, is_same, refused
from embedcli.run.pending import Assembly, Pending
from embedcli.run.plan import Plan
from embedcli.run.publish import FIRST_PUBLISH_EVERY_S
from embedcli.run.summary import count_moved, summarise
from embedcli.run.tasks import Task
from embedcli.run.tools import Tools
from embedcli.sources.roots import Scopes

if TYPE_CHECKING:
    from embedcli.config import IndexSettings
    from embedcli.fingerprints import Fingerprints
    from embedcli.index.generations import Index
    from embedcli.index.lock import Lock
    from embedcli.models.folder import Model

PROGRESS_EVERY_S = 5.0
MOST_PENDING = 1024
"""Documents waiting for vectors: many may wait for one that is on its way already."""


@dataclasses.dataclass
class Embedding:
    """One run that has work to do. `run` is the whole of it; the rest are its steps."""

    index: Index
    asked: Options
    known: Before
    scopes: Scopes
    plan: Plan
    base: pa.Table
    remembered: list[Mark]
    rules: Rules
    model: Model
    settings: IndexSettings
    fingerprints: Fingerprints
    tools: Tools
    report: Report
    held: Lock

    def __post_init__(self) -> None:
        self.library = KnownVectors(dim=self.settings.dim)
        self.outcomes = Outcomes()
        self.outcomes.add(self.plan.outcomes)
        self.progress = Progress(documents_total=self.plan.tasks.count, bytes_total=self.plan.tasks.size_bytes)
        self.embedded = {"embedded": 0, "reused": 0}
        self.replaced = {"sources": 0, "characters": 0}
        self.news = set(self.plan.news)
        self.feeder: Feeder | None = None
        self.reference = known_reference(
            self.index, self.known.current, self.known.leftovers,
            model_fingerprint=self.fingerprints.model, dim=self.settings.dim,
        )  # fmt: skip
        self.parent = self.known.current.number if self.known.current else None
        self.last_publish = time.monotonic()
        self.bytes_rewritten = 0
        self.table = self.base
        self.last_progress = 0.0
        self.warned_of_language = False
        self.damaged = self.index.damaged(self.known.current) if self.known.current else set[str]()
        self.keyless: set[str] = set()

    # ---- the story

    def run(self, summary: Summary) -> None:
        """Read, embed, store and publish. Raises EmbedcliError."""
        map_large_buffers()
        summary.model, summary.dim, summary.fingerprint = (
            self.settings.model,
            self.settings.dim,
            self.fingerprints.model,
        )
        new = self.known.current is None or self.known.rebuilding
        if new and self.settings.dim < self.model.width and not self.model.matryoshka:
            self.report.warn(
                f"`{self.settings.model}` was not trained to be cut: {self.settings.dim} of its {self.model.width}"
                " dimensions lose more than those of a Matryoshka model"
            )
        self.staging = self._begin_staging()
        adopted = self._adopt()
        self._check_space(adopted)
        for shard in self.index.kept_shards():
            if shard.name not in self.damaged and not self.library.add(shard):
                self.keyless.add(shard.name)
        self.assembly = Assembly(
            self.library, self._open_feeder, dim=self.settings.dim, spool_folder=self.staging.folder
        )
        with Checkpoints(self.staging, self.outcomes, self.assembly, self.library) as self.storing:
            try:
                self._stream(adopted)
            finally:
                self._close_feeder(abort=True)
        complete = self.plan.whole or (self.known.current is not None and self.known.current.complete)
        generation = self._publish(complete=complete, dropped=self.plan.dropped)
        self._clear()
        self._summarise(summary, generation)

    def _stream(self, adopted: set[SourceKey]) -> None:
        if len(adopted) == self.plan.tasks.count:
            return  # some left, some cannot be seen: nothing to start a reader for
        tasks = (task for task in self.plan.tasks if task.key not in adopted)
        self.progress.phase = "reading"
        make_pool = self.tools.make_pool or Pool
        with make_pool(
            self._work(), processes=_processes(), limits=Limits(), size_of=_size_of, message_of=lambda task: task.source
        ) as pool:
            pool.feed(tasks)
            try:
                self._loop(pool)
            except (Stopped, EngineError):
                self._save_what_is_finished()
                raise
        self.storing.save()

    def _loop(self, pool: Pool[Task, Reading]) -> None:
        flushed = False
        while not (pool.done and not self.assembly.pending):
            self._stop_if_asked()
            room = len(self.assembly.pending) < MOST_PENDING and (self.feeder is None or not self.feeder.full)
            if room and not pool.done:
                outcome = pool.get(0.005 if self.assembly.pending else 0.2)
                if outcome is not None:
                    self._take(*outcome)
            if pool.done and self.feeder is not None and not flushed:
                self.feeder.flush()
                flushed = True
            for document in self.assembly.collect(0.0 if room and not pool.done else 0.05):
                self._finish(document)
            self._keep_time()

    def _save_what_is_finished(self) -> None:
        """The lists in flight are waited for, unless the model is being loaded; then a last checkpoint."""
        self._close_feeder(abort=self.progress.loading)
        with suppress(EngineError):  # the one that ended the run, told again
            for document in self.assembly.collect(0.0):
                self._finish(document)
        self.storing.save()

    def _stop_if_asked(self) -> None:
        signal_number = self.tools.stop_signal()
        if signal_number is not None:
            self.report.line("stopping: finishing the batch in hand (a second signal leaves at once)")
            raise Stopped(signal_number)

    def _keep_time(self) -> None:
        now = time.monotonic()
        self.progress.tokens = self.feeder.statistics.tokens if self.feeder is not None else 0
        if self.storing.due(every_bytes=self.asked.checkpoint_bytes, every_s=self.asked.checkpoint_every_s):
            self.storing.checkpoint()
        if now - self.last_publish >= self._publish_every_s():
            self._publish_so_far()
        self.report.progress(self.progress)
        if now - self.last_progress >= PROGRESS_EVERY_S:
            self._tell_progress()

    def _tell_progress(self) -> None:
        self.last_progress = time.monotonic()
        state.write_progress(self.index.state, {"pid": os.getpid(), **self.progress.to_json()})

    # ---- beginning

    def _check_space(self, adopted: set[SourceKey]) -> None:
        """A rough estimate, before the model loads: text and vectors of everything that is to be read."""
        share = 1 - len(adopted) / max(1, self.plan.tasks.count)
        text_bytes = self.plan.tasks.text_bytes * share
        rows = text_bytes / (self.settings.max_tokens * 3)
        needed = (rows * self.settings.dim * 4 + text_bytes * 0.7) * 1.05
        free_bytes = self.tools.disk.free_bytes(self.index.folder)
        if needed > free_bytes:
            raise StorageError(
                f"this run needs about {needed / 1e9:.2f} GB in `{self.index.folder}`,"
                f" {free_bytes / 1e9:.2f} GB are free",
                "free some space, or put the index on another disk with `--index`",
            )

    def _begin_staging(self) -> Staging:
        header = RunHeader(
            number=self.index.next_number(),
            parent=self.parent,
            settings=self.settings.to_json(),
            fingerprints=dataclasses.asdict(self.fingerprints),
            rebuild=self.known.rebuilding,
            roots=[dataclasses.asdict(root) for root in self.scopes.roots],
        )
        return Staging.begin(self.index.staging, header, dim=self.settings.dim, disk=self.tools.disk)

    def _adopt(self) -> set[SourceKey]:
        """Take over what killed runs finished; a later run of theirs counts more."""
        wanted = {task.key: task for task in self.plan.tasks} if self.known.leftovers else {}
        stats = {key: task.source.stat for key, task in wanted.items()}
        adopted = leftovers.adopt(self.known.leftovers, stats, into=self.staging, library=self.library)
        for key, outcome in adopted.items():
            self._note(outcome, wanted[key])
        self.outcomes.add(adopted.values())
        if adopted:
            self.report.line(f"going on with {many(len(adopted), 'document')} that an earlier run had finished")
        return set(adopted)

    def _work(self) -> ReadingWork:
        return ReadingWork(
            model_folder=self.model.folder,
            prompt=self.model.prompt,
            max_tokens=self.settings.max_tokens,
            overlap=self.settings.overlap,
            keep_text=not self.settings.no_text,
            model_fingerprint=self.fingerprints.model,
            spool_folder=self.staging.folder,
        )

    # ---- the engine

    def _open_feeder(self) -> Feeder:
        """Called when the first vector has to be computed."""
        self.report.line(f"loading {self.settings.model} ({self.settings.dim} dimensions)")
        self.feeder = Feeder(self._open_engine, on_open=self._judge_engine, report=self.report.warn)
        return self.feeder

    def _open_engine(self) -> Engine:
        again = self.progress.embedding_since is not None
        self.progress.phase = "loading the model again" if again else "loading the model"
        self.progress.loading_since = time.monotonic()
        engine: Engine = self.tools.open_engine(self.model, self.settings, self._device())
        return engine

    def _device(self) -> str:
        return self.asked.device or self.settings.device_kind

    def _judge_engine(self, engine: Engine) -> None:
        from embedcli.models.tokenizer import load_tokenizer

        tokens = load_tokenizer(self.model.folder, prompt=self.model.prompt)
        new = self.reference is None
        self.reference = probe.judge(
            engine, self.reference, encode=tokens.row_of, max_tokens=self.settings.max_tokens, model=self.settings.model
        )
        if new:
            self.staging.keep_probe(self.reference.vectors)
        self.progress.phase, self.progress.loading_since = "embedding", None
        self.progress.embedding_since = self.progress.embedding_since or time.monotonic()

    def _close_feeder(self, *, abort: bool) -> None:
        if self.feeder is not None:
            self.feeder.close(abort=abort)

    # ---- documents

    def _take(self, task: Task, result: Reading | UnreadableSource) -> None:
        if isinstance(result, UnreadableSource):
            outcome = refused(task.source, task.prior, result.reason, self.rules)
            self._store(Finished(outcome, None, None), task)
            return
        if self.model.english and result.latin_share < 0.9 and not self.warned_of_language:
            self.warned_of_language = True
            self.report.warn(
                f"`{self.settings.model}` is an English model, and over a tenth of the letters of `{task.source.uri}`"
                " (the first such source) are outside Latin; Qwen/Qwen3-Embedding-0.6B knows a hundred languages"
            )
        self.replaced["sources"] += result.replaced > 0
        self.replaced["characters"] += result.replaced
        self.assembly.take(task, result)

    def _finish(self, document: Pending) -> None:
        """A document whose every chunk has a vector, or a reason why not."""
        task, bad = document.task, document.bad
        self.embedded["reused"] += document.reused
        self.embedded["embedded"] += document.embedded
        prior = task.prior
        whole_before = prior is not None and prior.rows and not prior.lacking
        if len(bad) == len(document.vectors) or (bad and whole_before and not self.known.rebuilding):
            reason = next(iter(bad.values()))
            outcome = refused(task.source, prior, reason, self.rules, sha256=document.reading.sha256)
            self._store(Finished(outcome, None, None), task)
            return
        keep = document.have if bad else None
        rows = shards.complete_rows(document.table, document.vectors, changed_in=self.staging.header.number, keep=keep)
        keys = document.keys[:, keep] if keep is not None else document.keys
        self._store(Finished(Outcome(document.reading.stat, self._row(document)), rows, keys), task)

    def _row(self, document: Pending) -> DocumentRow:
        reading, task = document.reading, document.task
        reason = next(iter(document.bad.values()), reading.reason)
        prior = task.prior
        same = prior is not None and (prior.reason, prior.sha256) == (reason, reading.sha256)
        return DocumentRow.of(
            task.source,
            reading.stat,
            sha256=reading.sha256,
            model_fingerprint=self.fingerprints.model,
            chunk_fingerprint=self.fingerprints.chunk,
            read_fingerprint=self.fingerprints.read,
            status="partial" if reading.pages_skipped or document.bad else "indexed",
            reason=reason,
            attempts=prior.attempts + 1 if prior is not None and same and reason in RETRY_REASONS else 1,
            pages=reading.pages,
            pages_skipped=reading.pages_skipped,
            chunks=reading.chunks,
            missing=tuple(sorted(document.bad)),
            tokens=reading.tokens,
        )

    def _store(self, item: Finished, task: Task) -> None:
        self.storing.add(item)
        self._note(item.outcome, task)

    def _note(self, outcome: Outcome, task: Task) -> None:
        stat = task.source.stat
        if task.prior is not None:
            same = is_same(outcome, task.prior)
            self.plan.unchanged, self.plan.changed = self.plan.unchanged + same, self.plan.changed + (not same)
        self.progress.documents += 1
        self.progress.bytes_read += stat.size if stat else 0
        self.progress.chunks += outcome.row.chunks if outcome.row else 0
        if is_news(outcome, task.prior):
            self.news.add(outcome.key)

    # ---- publishing

    def _publish_every_s(self) -> float:
        """Only until the first complete generation, and never while two kinds of settings would be mixed, or the
        documents of a root with those of the wider one that takes it over."""
        complete = self.known.current is not None and self.known.current.complete
        if self.known.rebuilding or complete or self.scopes.absorbed:
            return float("inf")
        asked = self.asked.publish_every_s
        return FIRST_PUBLISH_EVERY_S if asked is None else asked or float("inf")

    def _publish_so_far(self) -> None:
        """The whole documents finished so far become a generation; then the run goes on from it."""
        self.last_publish = time.monotonic()
        self.storing.save()
        if not any(documents.count_by(self.outcomes.rows, "shard")):
            return
        self.report.line(f"publishing {len(self.outcomes):,} documents; the rest follows")
        phase = self.progress.phase
        current = self._publish(complete=False, dropped=())
        self.progress.phase = phase
        self.known = dataclasses.replace(self.known, current=current)
        self.base = self.index.documents(current.number)
        self.parent, self.outcomes = current.number, Outcomes()
        self.staging = self._begin_staging()
        self.storing.go_on(self.staging, self.outcomes)

    def _publish(self, *, complete: bool, dropped: Collection[SourceKey]) -> Generation:
        """The next generation, less what is `dropped`; or the current one where no row and no document's status
        changed."""
        current = self.known.current
        known = {**(current.shards if current else {}), **self.staging.shards}
        left = self._left_over(known, dropped)
        edition = next_table.edit(
            damage.without_rows(self.base, left.lost),
            documents.without(self.outcomes.rows, left.held),
            [mark for mark in self.outcomes.marks if mark.key not in left.lost],
            dropped=set(dropped) - left.held,
            seen=[*self.remembered, *self.plan.seen],
            shards=known,
            damaged=self.damaged | self.keyless,
            roots=[root.id for root in self.scopes.roots],
            rebuilding=self.known.rebuilding,
        )
        self.table = edition.table
        if edition.untold or left.lost:
            self.report.warn("`changes/` does not name all that a damaged shard held: loaders have to load anew")
        material = edition.material or bool(left.lost)
        if current is not None and not material and self._same_header(current, complete):
            state.write_seen(self.index.state, current.number, edition.seen, self.tools.disk)
            return current
        if current is None and complete and not any(documents.count_by(edition.table, "shard")):
            raise self._none_readable(edition.table)
        self._refuse_losing_rebuild()
        self.progress.phase = "publishing"
        self.report.progress(self.progress)
        self._tell_progress()
        no_engine_yet = probe.Reference(np.zeros((0, self.settings.dim), np.float32), self.settings.max_tokens)
        reference = self.reference or no_engine_yet
        draft = Draft(
            number=self.staging.header.number,
            complete=complete,
            settings=self.settings,
            fingerprints=self.fingerprints,
            roots=self.scopes.roots,
            mounts=self.plan.mounts,
            query=resolve.query_recipe(self.model, self.settings.dim, quantization=self.settings.quantization),
            probe=reference.vectors,
            probe_max_tokens=reference.max_tokens,
            table=edition.table,
            changes=edition.changes,
            shards=known,
        )
        generation, written = self.index.publish(draft, parent=self.parent, lock_held=self.held.held)
        self.bytes_rewritten += written
        return generation

    def _left_over(self, known: Mapping[str, Shard], dropped: Collection[SourceKey]) -> Left:
        """What damaged shards held and could not be had anew: it is news every night, as long as it is so."""
        if self.known.rebuilding or not self.damaged:
            return Left()
        anew = documents.keys(self.outcomes.rows)
        left = damage.left_over(self.base, {*anew, *dropped}, self.damaged, known)
        self.news |= left.waiting | left.lost
        if left.waiting:
            self.report.warn(f"{len(left.waiting):,} documents of damaged shards cannot be read tonight: they stay so")
        if left.lost:
            self.report.warn(f"the rows of {len(left.lost):,} documents are lost with their shards")
        return left

    def _refuse_losing_rebuild(self) -> None:
        """A rebuild waits for what cannot be read tonight and could last night: its old rows would be lost."""
        if not self.known.rebuilding:
            return
        had_rows = self.base.filter(pc.greater(self.base.column("rows"), 0))
        reasons = self.outcomes.rows.column("reason")
        momentary = self.outcomes.rows.filter(pc.is_in(reasons, value_set=pa.array(sorted(MOMENT_REASONS))))
        lost = documents.parted(momentary, had_rows)[0].column("uri").to_pylist()
        if lost:
            raise InputError(
                f"{len(lost)} sources that had rows cannot be read now, `{lost[0]}` the first; nothing was changed",
                "mend their permissions or mount what is missing, then run the same command again",
            )

    def _same_header(self, current: Generation, complete: bool) -> bool:
        same = current.roots == self.scopes.roots and current.mounts == self.plan.mounts
        names = ("model", "commit", "max_file_bytes")  # the rest would make other vectors
        same_settings = all(getattr(current.settings, name) == getattr(self.settings, name) for name in names)
        return same and same_settings and current.complete == complete

    def _none_readable(self, table: pa.Table) -> InputError:
        self.staging.remove()
        reasons = ", ".join(f"{count} {reason}" for reason, count in documents.count_by(table, "reason").items())
        return InputError(
            f"none of the {table.num_rows} sources can be read: {reasons}",
            "what is only pictures needs OCR first" if "no_text" in reasons else "name sources that can be read",
        )

    def _clear(self) -> None:
        """Only now that the new generation is current does anything old go."""
        others = {item.folder for item in self.known.leftovers if not self._speaks_of(item)}
        for path in run_folders(self.index.staging):
            if path not in others:  # work on other roots, whose vectors a later run takes
                self.tools.disk.remove(path)
        self.index.clear(keep=self.asked.keep_generations)

    def _speaks_of(self, item: Leftover) -> bool:
        """Whether this run was about all that a killed one was about."""
        roots = {root["id"] for root in item.header.roots}
        return self.plan.whole and (self.known.current is not None or roots <= {root.id for root in self.scopes.roots})

    # ---- telling

    def _summarise(self, summary: Summary, generation: Generation) -> None:
        summarise(
            summary,
            generation=generation,
            plan=self.plan,
            table=self.table,
            moved=count_moved(self.base, self.plan.gone, self.outcomes.rows),
            news=len(self.news),
            strict=self.asked.strict,
        )
        summary.chunks |= self.embedded
        summary.replaced |= self.replaced
        summary.tokens["embedded"] = self.feeder.statistics.tokens if self.feeder is not None else 0
        summary.bytes_rewritten = self.bytes_rewritten
        summary.tokens_per_s = round(self.progress.tokens_per_s, 1)


def _processes() -> int:
    """Reading processes: they wait for the engine most of the time, and leave a core to the parent."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 2
    return max(1, min(16, cores - 1))


def _size_of(task: Task) -> int:
    return task.source.stat.size if task.source.stat else 0
