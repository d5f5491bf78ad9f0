"""A folder of documents, an index, and the real `ingest` with the real readers over a fake engine.

In: what a test does to the files and the flags it gives. Out: summaries, and the published rows as DuckDB's users
would read them: by the glob through `current`. Not here: any expectation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from embedcli.config import IndexSettings, Options
from embedcli.errors import Stopped, UnreadableSource
from embedcli.ingest import ingest
from embedcli.models import resolve
from embedcli.models.folder import Model
from embedcli.models.tokenizer import load_tokenizer
from embedcli.reading.rows import Read, ReadingWork
from embedcli.reading.splitter import Answer, Split, SplittingWork
from embedcli.report import Report, Summary
from embedcli.run.tasks import AnyTask
from embedcli.run.tools import Tools
from embedcli.vault.disk import Disk
from tests.fake_engines import KILLER_WORD, EngineHoldsBack, FakeEngine, Log

LONG_AGO_NS = 1_700_000_000_000_000_000


def words(count: int, seed: int = 0) -> str:
    """A paragraph of `count` made-up words."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return " ".join("".join(generator.choice(letters, size)) for size in generator.integers(2, 9, count)) + ".\n"


@dataclass
class Lines(Report):
    """A report that only remembers."""

    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(quiet=True)

    def _write(self, text: str, *, show: bool) -> None:
        self.said.append(text)


def wide_engine(model: Model, dim: int, device: str, log: Log) -> FakeEngine:
    """The fake engine, knowing every word of MiniLM's vocabulary."""
    engine = FakeEngine(dim=dim, log=log)
    engine.vocabulary = None
    return engine


class ReadsHere:
    """In place of the pool of reading processes: this process reads, one source at a time."""

    def __init__(self, work: ReadingWork, *, message_of: Callable[[AnyTask], Any], **_: object) -> None:
        self.work = work
        self.message_of = message_of
        self.done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tasks = iter(())

    def feed(self, tasks: Iterable[AnyTask]) -> None:
        self.work.start()
        self.tasks = iter(tasks)

    def get(self, timeout: float) -> tuple[AnyTask, tuple[Read, ...] | UnreadableSource] | None:
        task = next(self.tasks, None)
        self.done = task is None
        try:
            return None if task is None else (task, self.work(self.message_of(task), lambda _: None, with_forms=True))
        except UnreadableSource as error:
            return task, error


class SplitsHere:
    """In place of the process that splits containers."""

    def __init__(self, work: SplittingWork) -> None:
        self.work = work

    def answers(self, split: Split) -> Iterator[Answer]:
        request: Split | None = split
        while True:
            answer = self.work(request, lambda _: None, with_forms=True)
            yield answer
            if not isinstance(answer, tuple):
                return
            request = None

    def close(self) -> None:
        return

    def end(self) -> None:
        return


class Workshop:
    """`docs` is the corpus, `index` the index; `ingest(**flags)` runs, `embedded` counts rows sent to engines.

    Sources are read in this process, which spares half a second a run, unless there are to be `reading_processes`.
    """

    def __init__(self, folder: Path, *, index: str = "index", reading_processes: bool = False) -> None:
        self.make_pool: Callable[..., Any] | None = None if reading_processes else ReadsHere
        self.docs = folder / "docs"
        self.docs.mkdir(parents=True, exist_ok=True)
        self.index = folder / index
        self.log: Log = []
        self.report = Lines()

    def write(self, name: str, text: str | bytes, *, age_s: float = 100.0) -> Path:
        """A file, old enough for its stat to be trusted."""
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.age(path, age_s)
        return path

    def age(self, path: Path, age_s: float = 100.0) -> None:
        then = path.stat().st_mtime_ns - int(age_s * 1e9)
        os.utime(path, ns=(then, then))

    def ingest(
        self,
        *sources: Path,
        disk: Disk | None = None,
        open_engine: Callable[[Model, IndexSettings, str], Any] | None = None,
        stop_signal: Callable[[], int | None] = lambda: None,
        seconds_left: Callable[[], float] = lambda: math.inf,
        report: Lines | None = None,
        workforce: Any = None,
        **flags: Any,
    ) -> Summary:
        """Run with MiniLM's tokenizer, 16 dimensions and chunks of 64 tokens unless said otherwise."""
        self.report = report or Lines()
        new = not (self.index / "current").exists()
        defaults = {"dim": 16, "max_tokens": 64} if new else {}
        given = sources or ((self.docs,) if new and not {"listed", "stream"} & flags.keys() else ())
        asked = Options(index=self.index, sources=tuple(map(str, given)), **{**defaults, **flags})
        tools = Tools(
            resolve=_resolve,
            device_kind=lambda _: "cpu",
            open_engine=open_engine
            or (lambda model, settings, device: wide_engine(model, settings.dim, device, self.log)),
            stop_signal=stop_signal,
            seconds_left=seconds_left,
            disk=disk,
            make_pool=self.make_pool,
            make_splitter=SplitsHere if self.make_pool else None,
            workforce=workforce,
        )
        return ingest(asked, tools=tools, report=self.report)

    @property
    def embedded(self) -> int:
        """Rows sent to engines so far, the probe set included."""
        return sum(map(len, self.log))

    def rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Every row of the current generation, by document and position."""
        table = self.table()
        rows = (table.select(list(columns)) if columns else table).to_pylist()
        return rows

    def ids(self) -> set[str]:
        return set(self.table().column("chunk_id").to_pylist())

    def table(self) -> pa.Table:
        folder = self.index / "current" / "vectors"
        table = ds.dataset(sorted(folder.glob("*.parquet")), format="parquet").to_table()
        return table.sort_by([("path", "ascending"), ("chunk_index", "ascending")])

    def documents(self) -> dict[str, dict[str, Any]]:
        table = pq.read_table(self.index / "current" / "documents.parquet")
        return {row["path"]: row for row in table.to_pylist()}

    def content(self) -> list[tuple[Any, ...]]:
        """What must not depend on how often a run was killed: all but the generation in which a row changed."""
        return [
            (*(row[name] for name in row if name not in ("vector", "changed_in", "modified_at")), tuple(row["vector"]))
            for row in self.rows()
        ]


UNFINISHED = words(20, 99).replace(".", f" {KILLER_WORD}.")
"""A text whose vectors come only when `stopped_half_way` has stopped the run."""


def stopped_half_way(shop: Workshop, *sources: Path, when: Callable[[], bool] = lambda: True, **flags: Any) -> None:
    """A run that is told to stop once a document is stored and `when` says so. A source must be UNFINISHED: whatever is
    faster, there is something left to stop."""
    engines: list[EngineHoldsBack] = []

    def open_engine(model: Model, settings: IndexSettings, device: str) -> EngineHoldsBack:
        engines.append(EngineHoldsBack(dim=settings.dim, log=shop.log))
        return engines[-1]

    def signal_number() -> int | None:
        if not any(shop.index.glob("staging/*/part-*.parquet")) or not when():
            return None
        for engine in engines:
            engine.let_go()
        return 15

    with pytest.raises(Stopped) as stopped:
        shop.ingest(*sources, checkpoint_every_s=0.0, open_engine=open_engine, stop_signal=signal_number, **flags)
    assert stopped.value.exit_code == 143


def follow(index: Path) -> set[str]:
    """The chunks that a loader holds which applied every file of `changes/` in its order."""
    held: set[str] = set()
    for path in sorted((index / "changes").glob("*.parquet")):
        for change in pq.read_table(path).to_pylist():
            (held.discard if change["op"] == "removed" else held.add)(change["chunk_id"])
    return held


@cache
def minilm() -> Model:
    """The model of nearly every run of the tests, found once a process; its tokenizer is loaded then."""
    model = resolve.resolve("minilm", report=lambda _: None)
    load_tokenizer(model.folder)
    return model


def _resolve(asked: Options, memory: IndexSettings | None) -> Model:
    name = asked.model or (memory.model if memory else "minilm")
    return minilm() if name == "minilm" else resolve.resolve(name, report=lambda _: None)
