"""The feeder loses no chunk and embeds none twice, whatever the engine does."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from embedcli.engines import feeder_thread
from embedcli.engines.contract import Answer, Engine, OpenEngine, Refusal
from embedcli.engines.feeder import Feeder
from embedcli.errors import EmbedcliError, EngineDied, EngineError, EngineOutOfMemory, StorageError
from tests.fake_engines import (
    KILLER,
    EngineDiesOfKiller,
    EngineDiesOnBatch,
    EngineDiesWhileSending,
    EngineHangsOnKiller,
    EngineOutOfMemoryAbove,
    EngineRepeatsItself,
    EngineReturnsNaN,
    FakeEngine,
    Log,
    in_turn,
    vector,
)

Rows = dict[bytes, np.ndarray]


class JumpingClock:
    """A clock that is `step_s` later each time it is read: an hour of silence passes at once."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def hurried_clock() -> float:
    """A minute of silence is over in 0.6 s: longer than a busy machine stalls."""
    return 100 * time.monotonic()


def rows_of(count: int, *, killers: tuple[int, ...] = (), tokens: int | None = None, seed: int = 0) -> Rows:
    source = random.Random(seed)
    rows = {}
    for number in range(count):
        ids = np.array(source.choices(range(5_000), k=tokens or source.randint(2, 60)), np.uint32)
        ids[0] = number
        ids[1] = KILLER if number in killers else 5_001
        rows[number.to_bytes(8, "big")] = ids
    return rows


@contextmanager
def feeder_of(
    open_engine: OpenEngine,
    *,
    on_open: Callable[[Engine], None] = lambda engine: None,
    report: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = lambda: 0.0,
    look_ahead_tokens: int | None = None,
) -> Iterator[Feeder]:
    feeder = Feeder(open_engine, on_open=on_open, report=report, clock=clock, look_ahead_tokens=look_ahead_tokens)
    try:
        yield feeder
    finally:
        feeder.close(abort=True)


class OpensWhenAllowed:
    """Opens only when all rows are there, so that the batches do not depend on how threads take turns."""

    def __init__(self, open_engine: Callable[[], FakeEngine]) -> None:
        self.open_engine = open_engine
        self.allowed = threading.Event()

    def __call__(self) -> FakeEngine:
        assert self.allowed.wait(60)
        return self.open_engine()


def drain(feeder: Feeder, keys: Collection[bytes]) -> dict[bytes, Answer]:
    """The answers to these keys, which have been added and not yet collected."""
    answers: dict[bytes, Answer] = {}
    deadline = time.monotonic() + 60
    while len(answers) < len(keys):
        assert time.monotonic() < deadline
        for key, answer in feeder.finished(10.0):
            assert key not in answers, "answered twice"
            answers[key] = answer
    return answers


def embed_all(feeder: Feeder, rows: Rows, opener: OpensWhenAllowed | None = None) -> dict[bytes, Answer]:
    """An `opener` opens when all rows wait: no list is short for want of rows."""
    for key, ids in rows.items():
        feeder.add(key, ids)
    if opener is not None:
        opener.allowed.set()
    feeder.flush()
    return drain(feeder, rows)


def assert_sound(answers: dict[bytes, Answer], rows: Rows, *, but: dict[int, str] | None = None) -> None:
    expected = {number.to_bytes(8, "big"): reason for number, reason in (but or {}).items()}
    assert answers.keys() == rows.keys()
    for key, answer in answers.items():
        if key in expected:
            assert answer == Refusal(expected[key])
        else:
            assert isinstance(answer, np.ndarray) and answer.dtype == np.float32
            np.testing.assert_allclose(answer, vector(rows[key], 16), atol=1e-6)


def test_every_chunk_gets_its_own_vector() -> None:
    rows = rows_of(2_000)
    opener = OpensWhenAllowed(FakeEngine)
    with feeder_of(opener) as feeder:
        assert_sound(embed_all(feeder, rows, opener), rows)
        statistics = feeder.statistics
    assert statistics.chunks == 2_000
    assert statistics.tokens == sum(ids.size for ids in rows.values())
    assert statistics.padding < 0.05
    assert statistics.duplicates_accepted == 0


def test_chunks_are_accepted_while_the_engine_loads_until_the_look_ahead_is_full() -> None:
    opener = OpensWhenAllowed(FakeEngine)
    rows = rows_of(50, tokens=10)
    with feeder_of(opener, look_ahead_tokens=400) as feeder:
        for number, (key, ids) in enumerate(rows.items()):
            assert feeder.full == (number >= 40)
            feeder.add(key, ids)
        assert feeder.finished(0.0) == []
        opener.allowed.set()
        feeder.flush()
        assert_sound(drain(feeder, rows), rows)
        assert not feeder.full


def test_a_single_chunk_is_embedded_without_a_flush() -> None:
    rows = rows_of(1)
    with feeder_of(FakeEngine) as feeder:
        feeder.add(*next(iter(rows.items())))
        assert_sound(drain(feeder, rows), rows)


def test_equal_keys_are_embedded_once() -> None:
    log: Log = []
    rows = rows_of(20)
    with feeder_of(lambda: FakeEngine(log=log)) as feeder:
        for key, ids in [*rows.items(), *rows.items()]:
            feeder.add(key, ids)
        assert_sound(embed_all(feeder, rows), rows)
    assert sum(len(lengths) for lengths in log) == 20


def test_on_open_checks_every_engine_before_it_gets_a_chunk() -> None:
    seen: list[tuple[Engine, int]] = []
    log: Log = []
    opener = in_turn(lambda: EngineDiesOnBatch(2, log=log), lambda: FakeEngine(log=log))
    rows = rows_of(200)
    with feeder_of(opener, on_open=lambda engine: seen.append((engine, len(log)))) as feeder:
        assert_sound(embed_all(feeder, rows), rows)
    assert [type(engine) for engine, _ in seen] == [EngineDiesOnBatch, FakeEngine]
    assert seen[0][1] == 0
    assert isinstance(seen[0][0], FakeEngine) and seen[0][0].closed


@pytest.mark.parametrize(
    "error", [EngineError("another model", "the hint"), StorageError("the disk is full", "a hint")]
)
def test_an_error_of_on_open_reaches_only_the_caller_and_closes_the_engine(error: EmbedcliError) -> None:
    """The thread prints nothing; the error may be a disk that cannot store the probe set."""
    engine = FakeEngine()

    def refuse(_: Engine) -> None:
        raise error

    with feeder_of(lambda: engine, on_open=refuse) as feeder:
        with pytest.raises(type(error), match=error.args[0]):
            drain_forever(feeder)
        with pytest.raises(type(error), match=error.args[0]):
            feeder.add(b"key", np.array([1], np.uint32))
    assert engine.closed


def drain_forever(feeder: Feeder) -> None:
    feeder.add(b"never answered", np.array([1], np.uint32))
    while True:
        feeder.finished(10.0)


@pytest.mark.parametrize("first", [lambda: EngineDiesOnBatch(3), EngineDiesWhileSending])
def test_after_a_death_no_chunk_is_lost_and_none_embedded_twice(first: Callable[[], FakeEngine]) -> None:
    rows = rows_of(600)
    with feeder_of(in_turn(first, FakeEngine)) as feeder:
        assert_sound(embed_all(feeder, rows), rows)
        assert feeder.statistics.restarts == 1


class EngineCounts(FakeEngine):
    """Answers from another thread, and notes how many batches it has at each `submit`."""

    def __init__(self, together: list[int]) -> None:
        super().__init__()
        self.together = together
        self.unanswered: list[Future[np.ndarray]] = []
        self.worker = ThreadPoolExecutor(1)

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        self.unanswered = [future for future in self.unanswered if not future.done()]
        future = self.worker.submit(lambda: np.stack([vector(row, self.dim) for row in rows]))
        self.unanswered.append(future)
        self.together.append(len(self.unanswered))
        return future

    def close(self) -> None:
        self.worker.shutdown()


def test_the_batches_of_a_dead_engine_are_sent_one_at_a_time() -> None:
    together: list[int] = []
    rows = rows_of(600)
    opener = OpensWhenAllowed(in_turn(lambda: EngineDiesOnBatch(1), lambda: EngineCounts(together)))
    with feeder_of(opener) as feeder:
        for key, ids in rows.items():
            feeder.add(key, ids)
        opener.allowed.set()
        feeder.flush()
        assert_sound(drain(feeder, rows), rows)
    assert together[:4] == [1] * 4


@pytest.mark.parametrize("engine", [EngineDiesOfKiller, EngineHangsOnKiller])
def test_one_killer_among_eight_batches_is_found_and_all_others_get_vectors(
    engine: type[FakeEngine],
) -> None:
    rows = rows_of(8 * 256, killers=(1_000,), tokens=8)
    with feeder_of(lambda: engine(batch_tokens=4_096, depth=8), clock=hurried_clock) as feeder:
        assert_sound(embed_all(feeder, rows), rows, but={1_000: "engine_killed"})
        assert feeder.statistics.restarts <= 6


def test_five_killers_are_set_aside_and_the_sixth_ends_the_run() -> None:
    rows = rows_of(100, killers=(3, 30, 50, 70, 90))
    killed = dict.fromkeys((3, 30, 50, 70, 90), "engine_killed")
    with feeder_of(EngineDiesOfKiller) as feeder:
        assert_sound(embed_all(feeder, rows), rows, but=killed)
    rows = rows_of(100, killers=(3, 30, 50, 70, 90, 99))
    with feeder_of(EngineDiesOfKiller) as feeder, pytest.raises(EngineError, match="more than `5`"):
        embed_all(feeder, rows)


def test_a_chunk_that_was_merely_last_in_flight_gets_no_strike() -> None:
    rows = rows_of(1)
    with feeder_of(in_turn(lambda: EngineDiesOnBatch(1), FakeEngine)) as feeder:
        assert_sound(embed_all(feeder, rows), rows)


def test_three_restarts_without_progress_end_the_run_and_keep_what_was_done() -> None:
    def open_never() -> FakeEngine:
        raise EngineDied("no driver")

    opener = OpensWhenAllowed(in_turn(lambda: EngineDiesOnBatch(2), open_never))
    rows = rows_of(400)
    answers: dict[bytes, Answer] = {}
    with feeder_of(opener) as feeder:
        for key, ids in rows.items():
            feeder.add(key, ids)
        opener.allowed.set()
        with pytest.raises(EngineError, match="3 times without progress: no driver") as caught:
            while True:
                answers |= dict(feeder.finished(10.0))
    assert caught.value.exit_code == 13
    assert answers
    assert_sound(answers, {key: rows[key] for key in answers})


def test_an_engine_that_is_slow_but_answers_in_time_is_not_killed() -> None:
    late: Future[np.ndarray] = Future()
    sent = threading.Event()

    class Late(FakeEngine):
        def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
            sent.set()
            return late

    clock = JumpingClock(0.0)
    rows = rows_of(1, tokens=50)
    with feeder_of(Late, clock=clock) as feeder:
        feeder.add(*next(iter(rows.items())))
        assert sent.wait(60)
        clock.now_s = 59.0
        assert feeder.finished(0.0) == []
        late.set_result(np.stack([vector(ids, 16) for ids in rows.values()]))
        assert_sound(drain(feeder, rows), rows)
        assert feeder.statistics.restarts == 0


class EngineNeverAnswers(FakeEngine):
    """An engine on a card; `sent` is set as soon as it has a batch."""

    device = "cuda"

    def __init__(self) -> None:
        super().__init__(batch_tokens=32_768, depth=8, padded=False)
        self.sent = threading.Event()

    def embed(self, rows: Sequence[np.ndarray]) -> None:
        self.sent.set()


def test_a_card_that_never_answered_is_given_up_after_ten_minutes() -> None:
    """The slowest CPU would be allowed far longer for as many tokens."""
    silent = EngineNeverAnswers()
    clock = JumpingClock(0.0)
    rows = rows_of(300, tokens=512)
    opener = OpensWhenAllowed(in_turn(lambda: silent, FakeEngine))
    with feeder_of(opener, clock=clock) as feeder:
        for key, ids in rows.items():
            feeder.add(key, ids)
        opener.allowed.set()
        assert silent.sent.wait(60)
        clock.now_s = 599.0
        assert feeder.finished(0.3) == [] and feeder.statistics.restarts == 0
        clock.now_s = 601.0
        feeder.flush()
        assert_sound(drain(feeder, rows), rows)
        assert feeder.statistics.restarts == 1


def test_a_batch_that_hangs_is_not_hidden_by_those_that_are_answered() -> None:
    """As happens when one of two cards hangs."""
    clock = JumpingClock(0.0)
    rows = rows_of(5, tokens=2_000)
    rows[bytes(8)] = np.array([KILLER, 1], np.uint32)
    log: Log = []
    answers: dict[bytes, Answer] = {}
    with feeder_of(in_turn(lambda: EngineHangsOnKiller(log=log), FakeEngine), clock=clock) as feeder:
        for number, (key, ids) in enumerate(rows.items()):
            feeder.add(key, ids)
            wait_for(lambda: bool(log))
            while len(answers) < number:
                answers |= dict(feeder.finished(10.0))
            clock.now_s += 20.0
        assert_sound(answers | drain(feeder, rows.keys() - answers.keys()), rows)
        assert feeder.statistics.restarts == 1


def test_close_does_not_wait_for_an_engine_that_is_still_opening() -> None:
    opening, go_on, judged = threading.Event(), threading.Event(), []
    late = FakeEngine()

    def open_late() -> FakeEngine:
        opening.set()
        assert go_on.wait(60)
        return late

    opener = in_turn(lambda: EngineDiesOnBatch(1), open_late)
    with feeder_of(opener, on_open=judged.append) as feeder:
        feeder.add(*next(iter(rows_of(1).items())))
        assert opening.wait(60)
        feeder.close(abort=False)
        assert not late.closed
        go_on.set()
        feeder.close(abort=False)
        wait_for(lambda: late.closed)
    assert len(judged) == 1, "an engine that nobody waits for is closed without a check"


@pytest.mark.parametrize("engine", [FakeEngine, EngineHangsOnKiller])
def test_close_returns_when_the_engine_is_closed_and_not_before(engine: type[FakeEngine]) -> None:
    """A process that ends while its engine is half closed would leave files and processes behind."""

    class ClosesSlowly(engine):  # type: ignore[misc,valid-type]
        def close(self) -> None:
            time.sleep(0.3)
            super().close()

    log: Log = []
    opened = ClosesSlowly(log=log)
    with feeder_of(lambda: opened) as feeder:
        feeder.add(*next(iter(rows_of(1, killers=(0,)).items())))
        wait_for(lambda: bool(log))
        feeder.close(abort=True)
        assert opened.closed


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Memory that other processes use.


def no_room() -> FakeEngine:
    raise EngineOutOfMemory("others hold the card")


def test_a_restart_waits_for_memory_that_another_process_took() -> None:
    lines: list[str] = []
    rows = rows_of(100)
    opener = in_turn(lambda: EngineDiesOnBatch(1), *[no_room] * 6, FakeEngine)
    with feeder_of(opener, clock=JumpingClock(20.0), report=lines.append) as feeder:
        assert_sound(embed_all(feeder, rows), rows)
    assert lines[1:] == ["the engine waits for memory: others hold the card"] * 6


def test_a_restart_waits_ten_minutes_and_no_longer() -> None:
    clock = JumpingClock(20.0)
    opener = in_turn(lambda: EngineDiesOnBatch(1), no_room)
    with feeder_of(opener, clock=clock) as feeder, pytest.raises(EngineOutOfMemory, match="others hold the card"):
        drain_forever(feeder)
    assert 600 < clock.now_s < 800


def test_a_first_start_without_memory_fails_at_once() -> None:
    clock = JumpingClock(1.0)
    with feeder_of(no_room, clock=clock) as feeder, pytest.raises(EngineOutOfMemory, match="others hold the card"):
        drain_forever(feeder)
    assert clock.now_s < 60


def test_a_chunk_that_fitted_before_is_not_set_aside_when_memory_runs_out() -> None:
    """Another process took the memory: the run ends and can be continued, no chunk is to blame."""
    rows = rows_of(200, tokens=40)
    with feeder_of(lambda: EngineOutOfMemoryAbove(0)) as feeder:
        for key, ids in rows.items():
            feeder.add(key, ids)
        feeder.flush()
        with pytest.raises(EngineError, match="3 times without progress: the double is out of memory"):
            while True:
                assert feeder.finished(10.0) == []


def test_out_of_memory_halves_the_budget_without_a_strike() -> None:
    log: Log = []
    rows = rows_of(400, tokens=40)
    opener = OpensWhenAllowed(lambda: EngineOutOfMemoryAbove(300, log=log))
    with feeder_of(opener) as feeder:
        assert_sound(embed_all(feeder, rows, opener), rows)
        assert feeder.statistics.restarts <= 4
    assert max(len(lengths) for lengths in log[-40:]) == 6


class AnswersWhenTold(FakeEngine):
    """Answers nothing while it `holds`."""

    holds = False

    def __init__(self, log: Log) -> None:
        super().__init__(log=log)
        self.held: list[tuple[Future[np.ndarray], Sequence[np.ndarray]]] = []
        self.lock = threading.Lock()

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        with self.lock:
            if not self.holds:
                return super().submit(rows)
            self.held.append((Future(), rows))
            return self.held[-1][0]

    def let_go(self) -> None:
        with self.lock:
            self.holds = False
        for future, rows in self.held:
            future.set_result(super().submit(rows).result())


def test_a_full_batch_is_sent_while_another_one_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as it is there: the look-ahead is far from full, no answer comes, and the thread looks at no clock."""
    monkeypatch.setattr(feeder_thread, "WATCH_S", 3_600.0)
    engine = AnswersWhenTold([])
    engine.holds = True
    rows = rows_of(1 + engine.batch_tokens // 32, tokens=32)
    with feeder_of(lambda: engine) as feeder:
        (first, ids), *others = rows.items()
        feeder.add(first, ids)
        wait_for(lambda: len(engine.held) == 1)
        for key, ids in others:
            feeder.add(key, ids)
        wait_for(lambda: len(engine.held) == 2)
        assert sum(len(row) for row in engine.held[1][1]) == engine.batch_tokens
        engine.let_go()
        feeder.flush()
        assert_sound(drain(feeder, rows), rows)


def test_ten_clean_minutes_double_the_budget_again() -> None:
    log: Log = []
    first = lambda: EngineOutOfMemoryAbove(600, log=log)  # noqa: E731
    second = AnswersWhenTold(log)
    rows = rows_of(2_000, tokens=32)
    clock = JumpingClock(1.0)
    with feeder_of(in_turn(first, lambda: second), clock=clock) as feeder:
        for key, ids in list(rows.items())[:1_000]:
            feeder.add(key, ids)
        answers = drain(feeder, list(rows)[:1_000])
        clock.now_s += 700
        second.holds = True  # until all others wait: no list is short for want of rows
        for key, ids in list(rows.items())[1_000:]:
            feeder.add(key, ids)
        second.let_go()
        feeder.flush()
        assert_sound(answers | drain(feeder, rows.keys() - answers.keys()), rows)
    assert 32 in {len(lengths) for lengths in log[len(log) // 2 :]}


def test_a_single_chunk_that_does_not_fit_is_set_aside() -> None:
    """It is longer than every chunk that ever fitted."""
    rows = rows_of(40, tokens=20) | {(99).to_bytes(8, "big"): np.arange(3_000, dtype=np.uint32)}
    with feeder_of(lambda: EngineOutOfMemoryAbove(2_500)) as feeder:
        assert_sound(embed_all(feeder, rows), rows, but={99: "engine_killed"})


def test_a_vector_that_is_bad_only_in_a_batch_is_computed_again_alone() -> None:
    rows = rows_of(100, killers=(7, 8))
    with feeder_of(lambda: EngineReturnsNaN(only_in_company=True)) as feeder:
        assert_sound(embed_all(feeder, rows), rows)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0.0, 1.1])
def test_a_vector_that_is_bad_alone_too_is_a_refusal(wrong: float) -> None:
    rows = rows_of(100, killers=(7, 8))
    with feeder_of(lambda: EngineReturnsNaN(wrong=wrong)) as feeder:
        assert_sound(embed_all(feeder, rows), rows, but={7: "bad_vector", 8: "bad_vector"})


def test_a_norm_that_is_off_by_bfloat16_rounding_is_corrected() -> None:
    rows = rows_of(10, killers=(7,))
    with feeder_of(lambda: EngineReturnsNaN(wrong=1.005)) as feeder:
        assert_sound(embed_all(feeder, rows), rows)


def test_the_vector_of_another_chunk_is_noticed_and_computed_again() -> None:
    rows = rows_of(100, killers=(7, 50))
    with feeder_of(EngineRepeatsItself) as feeder:
        assert_sound(embed_all(feeder, rows), rows)
        assert feeder.statistics.duplicates_accepted == 0


def test_equal_vectors_that_stay_equal_alone_are_accepted_and_counted() -> None:
    rows = rows_of(100, killers=(7, 50))
    with feeder_of(lambda: EngineRepeatsItself(alone_too=True)) as feeder:
        answers = embed_all(feeder, rows)
        assert feeder.statistics.duplicates_accepted == 1
    same = [np.asarray(answers[number.to_bytes(8, "big")]) for number in (7, 50)]
    np.testing.assert_array_equal(np.stack(same[:1]), np.stack(same[1:]))


def test_ids_that_no_engine_takes_never_reach_one_and_cost_only_their_chunk() -> None:
    lines: list[str] = []
    log: Log = []
    bad = {
        100: np.zeros(5_000, np.uint32),
        101: np.empty(0, np.uint32),
        102: np.array([3, 10_000], np.uint32),
    }
    rows = rows_of(50) | {number.to_bytes(8, "big"): ids for number, ids in bad.items()}
    with feeder_of(lambda: FakeEngine(log=log), report=lines.append) as feeder:
        assert_sound(embed_all(feeder, rows), rows, but=dict.fromkeys(bad, "bad_tokens"))
    assert {0, 5_000}.isdisjoint(length for lengths in log for length in lengths)
    for problem in ("5000 tokens, 4096 at most", "no tokens", "token id 10000 of 10000"):
        assert f"a chunk is left out: {problem}; `embedcli status --failed` names its source" in lines


def test_close_gives_the_answers_of_the_batches_in_flight() -> None:
    rows = rows_of(10)
    with feeder_of(FakeEngine) as feeder:
        for key, ids in rows.items():
            feeder.add(key, ids)
        answers = dict(feeder.finished(10.0))
        feeder.close(abort=False)
        answers |= dict(feeder.finished(0.0))
        assert answers
        assert_sound(answers, {key: rows[key] for key in answers})
