"""A run whose time is over publishes what is whole, in time; the next run does the rest, and embeds nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcli.config import IndexSettings
from embedcli.engines.probe import PROBE_TEXTS
from embedcli.engines.several_cards import open_on_all
from embedcli.index.generations import Index
from embedcli.models.folder import Model
from embedcli.vault.disk import Disk
from embedcli.verbs.verify import verify
from tests.fake_engines import CARDS, PROBE_LISTS, FakeEngine
from tests.faults import ReaderHangs
from tests.workshop import Lines, Workshop, follow, words

Seconds = Callable[[], float]

PROBE_ROWS = 2 * (len(PROBE_TEXTS) + 1)
"""An engine that opens is given the probe set alone and together."""


class Countdown:
    """The time of a run, in looks at the clock instead of seconds: over when the run has looked `looks` times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> float:
        self.looks -= 1
        return 1_000.0 if self.looks > 0 else 0.0


def over_when(done: Callable[[], bool]) -> Seconds:
    """The time of a run: plenty, and as soon as `done` says so only what the last checkpoint and publish may take.
    When the run has heard so, it has a minute for what is in flight: how long that takes is up to the machine."""
    over, heard = list[bool](), list[bool]()

    def seconds_left() -> float:
        if not over and done():
            over.append(True)
        if heard and threading.current_thread() is threading.main_thread():
            return FOR_EVER_S
        heard.extend(over if threading.current_thread() is threading.main_thread() else ())
        return 1.9 if over else 1_000.0

    return seconds_left


class SlowEngine(FakeEngine):
    """A worker takes `row_s` for each row of 64 tokens, one list after another; `keys` are the rows that it was given,
    without the probe set."""

    vocabulary = None

    def __init__(
        self, *, dim: int, row_s: float, keys: list[bytes], time_of_run: TimeOfTheEngine | None = None
    ) -> None:
        super().__init__(dim=dim, batch_rows=4, depth=2)
        self.row_s = row_s
        self.keys = keys
        self._time_of_run = time_of_run or TimeOfTheEngine(0.0)
        self._turn = threading.Lock()
        self._rows = 0

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        future: Future[np.ndarray] = Future()
        threading.Thread(target=self._answer, args=(rows, future), daemon=True).start()
        return future

    def _answer(self, rows: Sequence[np.ndarray], future: Future[np.ndarray]) -> None:
        with self._turn:
            if self.closed:
                return
            if self._rows >= PROBE_ROWS:
                self._time_of_run.begins()
                self.keys += [row.tobytes() for row in rows]
                work_s = self.row_s * sum(row.size for row in rows) / 64
                time.sleep(work_s)
                self._time_of_run.ends(work_s)
            self._rows += len(rows)
            future.set_result(self.embed(rows))


@pytest.fixture
def keys() -> list[bytes]:
    """Every row that an engine of the test was given."""
    return []


def slow(
    keys: list[bytes], row_s: float = 0.02, time_of_run: TimeOfTheEngine | None = None
) -> Callable[[Model, IndexSettings, str], SlowEngine]:
    return lambda _, settings, __: SlowEngine(dim=settings.dim, row_s=row_s, keys=keys, time_of_run=time_of_run)


class TimeGoesOn:
    """The time of a run, half a second, which goes on when it is told to and not before: what came until then is in
    time on any machine."""

    def __init__(self) -> None:
        self._ends_s: float | None = None

    def go_on(self) -> None:
        self._ends_s = self._ends_s or time.monotonic() + 0.5

    def __call__(self) -> float:
        return 0.5 if self._ends_s is None else self._ends_s - time.monotonic()


class TimeOfTheEngine:
    """The time of a run as its engine spends it: what a busy machine makes of the seconds of a list does not count, nor
    does what comes before the first one. Where the engine waits, the time goes on as ever."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds
        self._idle_since_s: float | None = None

    def begins(self) -> None:
        left_s = self()
        self._idle_since_s = None  # first, so that whoever asks meanwhile hears too much rather than too little
        self._left_s = left_s

    def ends(self, worked_s: float) -> None:
        self._left_s, self._idle_since_s = self._left_s - worked_s, time.monotonic()

    def __call__(self) -> float:
        since_s = self._idle_since_s
        return self._left_s - (0.0 if since_s is None else time.monotonic() - since_s)


FOR_EVER_S = 60.0
"""Longer than any of these runs takes on a busy machine: what is not ended by its limit takes longer."""


def repeated(keys: list[bytes]) -> int:
    """How many rows were given to engines more than once."""
    return len(keys) - len(set(keys))


def same_as_without_a_limit(shop: Workshop) -> bool:
    """Whether the index holds what one run without a limit makes of the same files, and so does a loader."""
    other = Workshop(shop.docs.parent, index="other")
    other.ingest()
    return other.content() == shop.content() and follow(shop.index) == shop.ids()


def test_whole_documents_are_published_and_the_rest_is_what_the_next_run_does(
    shop: Workshop, keys: list[bytes]
) -> None:
    for number in range(40):
        shop.write(f"{number:02}.txt", words(20, number))
    first = shop.ingest(open_engine=slow(keys), seconds_left=over_when(lambda: len(keys) > 9), checkpoint_every_s=0.0)
    assert (first.exit_code, first.complete, first.generation) == (0, False, 1)
    assert 0 < first.sources["new"] < 40 and first.left["sources"] == 40 - first.sources["new"]
    assert first.left["bytes"] == sum(
        path.stat().st_size for path in shop.docs.iterdir() if path.name not in shop.documents()
    )
    assert any("left for the next run" in line for line in shop.report.said)
    assert len(shop.documents()) == first.sources["new"]
    second = shop.ingest(open_engine=slow(keys))
    assert second.complete and second.sources["new"] == first.left["sources"] and not any(second.left.values())
    assert repeated(keys) == 0
    assert same_as_without_a_limit(shop)
    assert not list((shop.index / "staging").iterdir())


def test_a_document_of_many_chunks_is_embedded_over_several_nights_and_no_chunk_twice(
    shop: Workshop, keys: list[bytes]
) -> None:
    shop.write("book.txt", words(4_000))
    shop.write("note.txt", words(20, 1))
    nights, complete = 0, False
    while not complete:
        nights += 1
        enough = len(keys) + 50
        complete = shop.ingest(
            shop.docs, open_engine=slow(keys, 0.005), checkpoint_every_s=0.0,
            seconds_left=over_when(lambda: len(keys) > enough),  # noqa: B023 - it is called at once
        ).complete  # fmt: skip
    assert nights > 2 and repeated(keys) == 0
    assert same_as_without_a_limit(shop)


def test_a_slow_engine_ends_in_time_and_computes_nothing_in_vain(shop: Workshop, keys: list[bytes]) -> None:
    """No list is sent that would not be answered in time: half a second each, here."""
    for number in range(10):
        shop.write(f"{number}.txt", words(120, number))
    complete, nights = False, 0
    while not complete:
        nights, had = nights + 1, len(keys)
        left = TimeOfTheEngine(4.0)
        engine = slow(keys, 0.1, left)
        complete = shop.ingest(shop.docs, open_engine=engine, seconds_left=left).complete
        assert len(keys) > had
    assert nights > 1
    assert repeated(keys) == 0


def test_an_engine_that_hangs_does_not_hold_the_run_beyond_its_time(shop: Workshop) -> None:
    left = TimeGoesOn()

    class Hangs(FakeEngine):
        vocabulary = None

        def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
            if len(self.log) <= PROBE_LISTS:
                return super().embed(rows)
            left.go_on()
            return None

    shop.write("a.txt", words(100))
    started_s = time.monotonic()
    summary = shop.ingest(open_engine=lambda _, settings, __: Hangs(dim=settings.dim), seconds_left=left)
    assert time.monotonic() - started_s < FOR_EVER_S
    assert (summary.exit_code, summary.complete, summary.generation) == (0, False, None)
    assert summary.left["sources"] == 1
    assert shop.ingest(dim=None, max_tokens=None).complete, "the roots are remembered"


def test_a_model_that_is_still_loading_does_not_hold_the_run_beyond_its_time(shop: Workshop) -> None:
    model = NeverLoads()
    shop.write("a.txt", words(100))
    started_s = time.monotonic()
    summary = shop.ingest(open_engine=model.open_engine, seconds_left=model.seconds_left)
    elapsed_s = time.monotonic() - started_s
    model.let_go.set()
    assert elapsed_s < FOR_EVER_S and not summary.complete


class NeverLoads:
    """A model during whose loading the time goes on."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.seconds_left = TimeGoesOn()

    def open_engine(self, _: object, settings: IndexSettings, __: str) -> FakeEngine:
        self.seconds_left.go_on()
        self.let_go.wait(FOR_EVER_S)
        return FakeEngine(dim=settings.dim)


def test_a_time_limit_that_starting_uses_up_says_so_each_time(shop: Workshop) -> None:
    """Nothing is ever finished like this, so it is news: `--quiet` tells it too."""
    shop.write("a.txt", words(60))
    shop.ingest()
    shop.write("b.txt", words(60, 1))

    for _ in range(2):
        model = NeverLoads()
        told: list[str] = []
        report = Lines()
        report.news = told.append  # type: ignore[method-assign]
        flags: dict[str, Any] = {"open_engine": model.open_engine, "seconds_left": model.seconds_left}
        assert shop.ingest(report=report, **flags).left["sources"] == 1
        model.let_go.set()
        (line,) = told
        assert "the time was over before a document was finished, after " in line and "`--time-limit`" in line
        assert "of looking for changes" in line and "of loading the model, which was not ready" in line
    assert shop.ingest().complete


def test_looking_for_changes_that_takes_all_the_time_is_news(shop: Workshop) -> None:
    shop.write("a.txt", words(60))
    shop.ingest()
    shop.write("b.txt", words(60, 1))
    told: list[str] = []
    report = Lines()
    report.news = told.append  # type: ignore[method-assign]
    shop.ingest(seconds_left=lambda: -1.0, report=report)
    (line,) = told
    assert "before the changes were known, after 0 s of looking for them" in line and "`--time-limit`" in line


def test_several_cards_stop_in_time_and_no_batch_is_lost(shop: Workshop, keys: list[bytes]) -> None:
    def open_engine(_: object, settings: IndexSettings, __: str) -> Any:
        return open_on_all(
            CARDS, lambda _card, _stop: SlowEngine(dim=settings.dim, row_s=0.02, keys=keys), warn=pytest.fail
        )

    for number in range(30):
        shop.write(f"{number:02}.txt", words(120, number))
    first = shop.ingest(open_engine=open_engine, seconds_left=over_when(lambda: len(keys) > 60))
    assert not first.complete and first.left["sources"] > 0
    assert shop.ingest(open_engine=open_engine).complete
    assert repeated(keys) == 0
    assert same_as_without_a_limit(shop)


@pytest.mark.parametrize("looks", range(1, 40, 3))
def test_whenever_the_time_is_over_the_next_run_completes_the_index(shop: Workshop, looks: int) -> None:
    """At each look at the clock: while walking, digesting, reading, embedding."""
    for number in range(6):
        shop.write(f"{number}.txt", words(80, number))
    summary = shop.ingest(seconds_left=Countdown(looks), checkpoint_every_s=0.0)
    assert summary.exit_code == 0
    assert shop.ingest(shop.docs, **({} if summary.generation else {"dim": 16, "max_tokens": 64})).complete
    assert same_as_without_a_limit(shop)


@pytest.mark.parametrize("looks", range(1, 40, 3))
def test_changes_moves_and_losses_of_a_night_out_of_time_are_those_of_the_next(
    shop: Workshop, keys: list[bytes], looks: int
) -> None:
    for number in range(12):
        shop.write(f"{number:02}.txt", words(80, number))
    shop.ingest(open_engine=slow(keys, 0.0))
    for number in range(4):
        shop.write(f"{number:02}.txt", words(80, number + 100))
    (shop.docs / "moved").mkdir()
    for number in (5, 6, 7):
        (shop.docs / f"{number:02}.txt").rename(shop.docs / f"moved/{number:02}.txt")
    (shop.docs / "08.txt").unlink()
    os.utime(shop.docs / "09.txt", (1, 1))
    held = {row["chunk_digest"] for row in shop.rows() if row["path"] in ("05.txt", "06.txt", "07.txt")}
    night = shop.ingest(open_engine=slow(keys, 0.0), seconds_left=Countdown(looks), checkpoint_every_s=0.0)
    assert night.exit_code == 0
    assert held <= {row["chunk_digest"] for row in shop.rows()}, "a moved document is never missing"
    assert shop.ingest(open_engine=slow(keys, 0.0)).complete
    assert repeated(keys) <= 8, "the time was over at once: what was in flight is lost, and no more"
    assert same_as_without_a_limit(shop) and "moved/05.txt" in shop.documents() and "08.txt" not in shop.documents()


def test_a_deadline_that_has_passed_changes_nothing_and_leaves_no_new_index(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    summary = shop.ingest(seconds_left=lambda: -60.0)
    assert (summary.exit_code, summary.complete, summary.generation) == (0, False, None)
    assert not shop.index.exists()
    shop.ingest()
    before = shop.content()
    shop.write("a.txt", words(30, 1))
    late = shop.ingest(seconds_left=lambda: -60.0, require_complete=True)
    assert (late.exit_code, late.complete, late.generation) == (3, False, 1)
    assert shop.content() == before and shop.ingest().sources["changed"] == 1


def test_a_night_without_changes_is_complete_even_with_a_second_left(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    summary = shop.ingest(seconds_left=lambda: 1.0, require_complete=True)
    assert (summary.exit_code, summary.complete) == (0, True)


def test_what_is_left_is_exit_3_only_where_completeness_is_required(shop: Workshop, keys: list[bytes]) -> None:
    for number in range(12):
        shop.write(f"{number:02}.txt", words(120, number))
    flags: dict[str, Any] = {"open_engine": slow(keys), "checkpoint_every_s": 0.0}
    required = shop.ingest(seconds_left=over_when(lambda: len(keys) > 20), require_complete=True, **flags)
    assert (required.exit_code, required.complete) == (3, False)
    assert shop.ingest(require_complete=True, **flags).exit_code == 0


def test_readers_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the reading phase: a reader that is busy with a file is ended, and its file is what the next run reads."""
    shop = Workshop(tmp_path, reading_processes=True)
    shop.write("fault.txt", words(30))
    started_s = time.monotonic()
    with monkeypatch.context() as hanging:
        hanging.setattr("embedcli.run.readers.ReadingWork", ReaderHangs)
        summary = shop.ingest(seconds_left=over_when((shop.docs.parent / "hangs").exists))
    assert time.monotonic() - started_s < FOR_EVER_S
    assert summary.exit_code == 0 and not summary.complete
    assert shop.ingest(shop.docs, dim=16, max_tokens=64).complete


def test_a_rebuild_out_of_time_is_continued_and_readers_keep_the_old_generation(
    shop: Workshop, keys: list[bytes]
) -> None:
    for number in range(12):
        shop.write(f"{number:02}.txt", words(120, number))
    shop.ingest()
    before = shop.content()
    late = shop.ingest(
        rebuild=True, max_tokens=32, open_engine=slow(keys), checkpoint_every_s=0.0,
        seconds_left=over_when(lambda: len(keys) > 40),
    )  # fmt: skip
    assert (late.exit_code, late.complete, late.generation) == (0, False, 1)
    assert shop.content() == before
    assert shop.ingest(open_engine=slow(keys)).complete
    assert max(row["token_count"] for row in shop.rows()) <= 32
    assert repeated(keys) == 0


def test_documents_of_a_damaged_shard_wait_for_a_run_that_has_the_time(shop: Workshop, keys: list[bytes]) -> None:
    for number in range(12):
        shop.write(f"{number:02}.txt", words(120, number))
    shop.ingest()
    (part,) = (shop.index / "current/vectors").glob("*.parquet")
    part.unlink()
    shutil.rmtree(shop.index / "keys")
    opened = Index(shop.index, disk=Disk())
    assert verify(opened).damage
    late = shop.ingest(open_engine=slow(keys), seconds_left=over_when(lambda: len(keys) > 20), checkpoint_every_s=0.0)
    assert not late.complete and not any(row["status"] == "failed" for row in shop.documents().values())
    assert shop.ingest(open_engine=slow(keys)).complete
    assert same_as_without_a_limit(shop)


class TimeGoesBy(Disk):
    """`over` as soon as a generation begins to be written."""

    over = False

    def make_folder(self, folder: Path, mode: int | None = None, *, must_be_new: bool = False) -> None:
        self.over = self.over or folder.name == "vectors"
        super().make_folder(folder, mode, must_be_new=must_be_new)


def test_shards_are_not_merged_when_there_is_no_time_for_it(shop: Workshop) -> None:
    for number in range(9):
        shop.write(f"{number}.txt", words(60, number))
        disk = TimeGoesBy()
        shop.ingest(disk=disk, seconds_left=lambda: 0.0 if disk.over else 1_000.0)  # noqa: B023 - it is called at once
    assert len(list((shop.index / "current/vectors").iterdir())) == 9
    shop.write("9.txt", words(60, 9))
    shop.ingest()
    assert len(list((shop.index / "current/vectors").iterdir())) < 9, "eight of a kind become one"


@pytest.mark.parametrize("looks", range(5, 60, 9))
def test_a_container_out_of_time_is_completed_by_the_next_run(shop: Workshop, keys: list[bytes], looks: int) -> None:
    records = [{"id": str(number), "text": words(60, number)} for number in range(30)]
    shop.write("log.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    shop.write("note.txt", words(60, 99))
    late = shop.ingest(open_engine=slow(keys, 0.0), seconds_left=Countdown(looks), checkpoint_every_s=0.0)
    assert late.exit_code == 0
    again = {} if late.generation else {"dim": 16, "max_tokens": 64}
    assert shop.ingest(shop.docs, open_engine=slow(keys, 0.0), **again).complete
    assert repeated(keys) <= 8, "the time was over at once: what was in flight is lost, and no more"
    assert same_as_without_a_limit(shop)
