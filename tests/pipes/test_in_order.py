"""Texts go through the engine in a bounded stream and come out in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from embedcli.engines.contract import Refusal
from embedcli.engines.feeder import Feeder
from embedcli.errors import EngineError
from embedcli.pipes.in_order import InOrder, Pending
from embedcli.pipes.prepare import Part, Prepared
from embedcli.pipes.texts import Text
from tests.fake_engines import KILLER, EngineHoldsBack, EngineReturnsNaN, FakeEngine, vector

DIM = 16


class Given:
    """A source that has everything at once, a batch of `size` texts a call; `taken` counts batches."""

    def __init__(self, numbers: Sequence[int], *, size: int = 10) -> None:
        self._left = [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]
        self.taken = 0

    @property
    def done(self) -> bool:
        return not self._left

    def get(self, timeout: float) -> list[Text]:
        self.taken += 1
        return [Text("", number, str(number)) for number in self._left.pop(0)]


def ids_of(number: int) -> np.ndarray:
    """Of other lengths than the order, as the feeder sorts by length."""
    return np.arange(number, number + 1 + number * 7 % 20, dtype=np.uint32)


def prepare(batch: Sequence[Text]) -> list[Prepared]:
    return [Prepared(text, (Part(ids_of(text.number), 0, 0),)) for text in batch]


def opened(engine: FakeEngine, **seams: int) -> Callable[[], Feeder]:
    return lambda: Feeder(lambda: engine, on_open=lambda _: None, report=print, **seams)


def stream_of(source: Given, open_feeder: Callable[[], Feeder], *, dim: int = DIM) -> InOrder:
    return InOrder(source, prepare, open_feeder, dim=dim, stop_if_asked=lambda: None)


def run(stream: InOrder) -> list[Pending]:
    try:
        return [pending for ready in stream for pending in ready]
    finally:
        stream.close()


def test_vectors_come_in_the_order_of_the_texts_whatever_the_batches() -> None:
    engine = FakeEngine(batch_tokens=64, batch_rows=4)
    found = run(stream_of(Given(range(500)), opened(engine, look_ahead_tokens=256)))
    assert [pending.prepared.text.number for pending in found] == list(range(500))
    for pending in found:
        assert np.allclose(pending.answers[0], vector(ids_of(pending.prepared.text.number), DIM), atol=1e-6)
    assert max(map(len, engine.log)) > 1


def test_a_text_that_comes_again_while_it_is_awaited_is_sent_once() -> None:
    engine = FakeEngine()
    found = run(stream_of(Given([3] * 50, size=50), opened(engine)))
    assert len(found) == 50 and sum(map(len, engine.log)) == 1
    assert all(np.allclose(pending.answers[0], vector(ids_of(3), DIM), atol=1e-6) for pending in found)


class AllHeldBack(EngineHoldsBack):
    """Answers nothing until it is let go."""

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        with self._lock:
            if self._let_go:
                return FakeEngine.submit(self, rows)
            self._held.append((Future(), rows))
            return self._held[-1][0]


@pytest.mark.parametrize(("look_ahead_tokens", "dim", "most_batches"), [(1_000, DIM, 60), (1 << 20, 1 << 24, 103)])
def test_the_look_ahead_is_bounded(look_ahead_tokens: int, dim: int, most_batches: int) -> None:
    """By its tokens, and where vectors are wide by their number. An engine that answers nothing stops the reading."""
    engine, source = AllHeldBack(dim=DIM, log=[]), Given(range(5_000))
    seen: list[int] = []

    def look() -> None:
        seen.append(source.taken)
        if seen[-20:].count(source.taken) == 20:
            engine.let_go()

    stream = InOrder(source, prepare, opened(engine, look_ahead_tokens=look_ahead_tokens), dim=dim, stop_if_asked=look)
    taken_when_stopped = 0
    count = 0
    for ready in stream:
        taken_when_stopped = taken_when_stopped or source.taken
        count += len(ready)
    stream.close()
    assert (count, source.taken) == (5_000, 500) and 1 < taken_when_stopped <= most_batches


class Talks:
    """A source that gives its second text when the vector of the first is out, and not before."""

    def __init__(self) -> None:
        self.seen = threading.Event()
        self._given = 0
        self.done = False

    def get(self, timeout: float) -> list[Text]:
        if self._given == 1 and not self.seen.is_set():
            return []
        self._given += 1
        self.done = self._given > 2
        return [] if self.done else [Text("", self._given, "")]


def test_the_first_vector_leaves_before_the_last_text_is_read() -> None:
    source = Talks()
    stream = InOrder(source, prepare, opened(FakeEngine()), dim=DIM, stop_if_asked=lambda: None)
    found: list[int] = []
    for ready in stream:
        found += [pending.prepared.text.number for pending in ready]
        source.seen.set()
    stream.close()
    assert found == [1, 2]


def test_a_vector_that_is_not_sound_is_a_refusal_in_its_place() -> None:
    def with_killer(batch: Sequence[Text]) -> list[Prepared]:
        killed = np.array([5, KILLER], np.uint32)
        return [Prepared(text, (Part(killed if text.number == 4 else ids_of(text.number), 0, 0),)) for text in batch]

    stream = InOrder(Given(range(9)), with_killer, opened(EngineReturnsNaN()), dim=DIM, stop_if_asked=lambda: None)
    found = [pending.answers[0] for pending in run(stream)]
    assert found[4] == Refusal("bad_vector")
    rest = np.stack([answer for answer in found if not isinstance(answer, Refusal) and answer is not None])
    assert len(rest) == 8 and np.allclose(np.linalg.norm(rest, axis=1), 1, atol=1e-6)


def test_texts_without_parts_need_no_engine() -> None:
    def nothing(batch: Sequence[Text]) -> list[Prepared]:
        return [Prepared(text, problem="empty") for text in batch]

    def never() -> Feeder:
        raise AssertionError("no text needs a vector")

    stream = InOrder(Given(range(25)), nothing, never, dim=DIM, stop_if_asked=lambda: None)
    assert [pending.prepared.text.number for pending in run(stream)] == list(range(25))


def test_an_engine_that_does_not_start_ends_the_stream() -> None:
    def broken() -> FakeEngine:
        raise EngineError("the double does not start")

    stream = stream_of(Given(range(5)), lambda: Feeder(broken, on_open=lambda _: None, report=print))
    with pytest.raises(EngineError, match="does not start"):
        run(stream)
