"""Several cards as one engine: the death of one is not the end of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from embedcli.engines.contract import Engine, Refusal
from embedcli.engines.feeder import Feeder
from embedcli.engines.nvml import Card
from embedcli.engines.several_cards import CardsEngine, open_on_all
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from tests.fake_engines import (
    CARDS,
    KILLER,
    EngineDiesOfKiller,
    EngineOutOfMemoryAbove,
    EngineTilts,
    FakeEngine,
    vector,
)


class PatientEngine(FakeEngine):
    """Answers when the test says so, or dies with all batches that it has."""

    def __init__(self) -> None:
        super().__init__(depth=2)
        self.waiting: list[tuple[Sequence[np.ndarray], Future[np.ndarray]]] = []
        self.dead = False

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        future: Future[np.ndarray] = Future()
        if self.dead:
            future.set_exception(EngineDied("dead before"))
        else:
            self.waiting.append((rows, future))
        return future

    def answer_all(self) -> None:
        waiting, self.waiting = self.waiting, []
        for rows, future in waiting:
            future.set_result(np.stack([vector(row, self.dim) for row in rows]))

    def die(self, error: EngineDied) -> None:
        waiting, self.waiting, self.dead = self.waiting, [], True
        for _, future in waiting:
            future.set_exception(error)


def row(token: int, length: int = 1) -> np.ndarray:
    return np.full(length, token, np.uint32)


def cards_of(*engines: FakeEngine, said: list[str] | None = None) -> CardsEngine:
    """One card for each engine; none comes back."""
    of_card = dict(zip(CARDS, engines, strict=False))
    warn = said.append if said is not None else lambda _: None
    return open_on_all(list(of_card), lambda card, stop: of_card[card], warn=warn, revive_after_s=1e6)


def test_each_batch_goes_to_the_card_with_the_fewest_tokens_to_do() -> None:
    one, two = PatientEngine(), PatientEngine()
    both = cards_of(one, two)
    for length in (100, 30, 30, 30, 30):
        both.submit([row(1, length)])
    assert [len(rows[0]) for rows, _ in one.waiting] == [100]
    assert [len(rows[0]) for rows, _ in two.waiting] == [30, 30, 30, 30]
    assert both.depth == 4


def test_the_batches_of_a_dead_card_are_answered_by_the_others() -> None:
    one, two = PatientEngine(), PatientEngine()
    said: list[str] = []
    both = cards_of(one, two, said=said)
    futures = [both.submit([row(token)]) for token in range(6)]
    one.die(EngineDied("fell off the bus"))
    two.answer_all()
    for token, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(0), vector(row(token), 16)[None])
    assert said == ["card 0 is lost, 1 at work: fell off the bus"]
    later = both.submit([row(9)])
    two.answer_all()
    assert later.result(0).shape == (1, 16)


def test_a_batch_with_which_two_cards_died_fails() -> None:
    one, two, three = PatientEngine(), PatientEngine(), PatientEngine()
    cards = cards_of(one, two, three)
    futures = [cards.submit([row(token)]) for token in range(3)]
    one.die(EngineDied("first"))
    moved = two if len(two.waiting) == 2 else three
    moved.die(EngineDied("second"))
    assert isinstance(futures[0].exception(0), EngineDied)
    (three if moved is two else two).answer_all()
    assert all(future.exception(0) is None for future in futures[1:])


def test_a_batch_that_was_alone_in_flight_fails_at_the_first_death() -> None:
    one, two = PatientEngine(), PatientEngine()
    both = cards_of(one, two)
    future = both.submit([row(KILLER)])
    one.die(EngineDied("of the batch"))
    assert isinstance(future.exception(0), EngineDied) and not two.waiting


def test_a_batch_that_ran_out_of_memory_fails_at_once() -> None:
    both = cards_of(EngineOutOfMemoryAbove(10), EngineOutOfMemoryAbove(10))
    assert isinstance(both.submit([row(1, 11)]).exception(0), EngineOutOfMemory)


def test_every_batch_fails_when_no_card_is_left() -> None:
    one = PatientEngine()
    alone = cards_of(one)
    one.die(EngineDied("gone"))
    assert isinstance(alone.submit([row(1)]).exception(0), EngineDied)
    assert isinstance(alone.submit([row(1)]).exception(0), EngineDied)


def test_close_closes_every_card_and_later_batches_fail() -> None:
    one, two = PatientEngine(), PatientEngine()
    both = cards_of(one, two)
    both.close()
    assert one.closed and two.closed
    assert isinstance(both.submit([row(1)]).exception(0), EngineDied)


def test_the_chunk_that_kills_cards_is_found_and_all_others_are_embedded() -> None:
    lines: list[str] = []

    def open_cards() -> Engine:
        return cards_of(EngineDiesOfKiller(), EngineDiesOfKiller())

    feeder = Feeder(open_cards, on_open=lambda _: None, report=lines.append)
    rows = [row(token, 8) for token in range(1, 400)] + [row(KILLER, 8)]
    for number, one in enumerate(rows):
        feeder.add(b"%d" % number, one)
    feeder.flush()
    answers: dict[bytes, object] = {}
    while len(answers) < len(rows):
        answers |= dict(feeder.finished(10.0))
    feeder.close(abort=False)
    assert answers.pop(b"399") == Refusal("engine_killed")
    assert all(isinstance(answer, np.ndarray) for answer in answers.values())


# Starting.


def starter(
    *engines: FakeEngine | EngineError, answered: threading.Event, beside: FakeEngine | None = None
) -> Callable[[Card, threading.Event], Engine]:
    """Gives the engines of card 0 one after the other; the other card is sound.

    Card 0 comes back once the other one has `answered`: its vectors are compared with that answer.
    """
    left = list(engines)

    def start(card: Card, stop: threading.Event) -> Engine:
        if card.index == 0 and len(left) < len(engines):
            assert answered.wait(60)
        engine = left.pop(0) if card.index == 0 else beside or FakeEngine()
        if isinstance(engine, EngineError):
            raise engine
        return engine

    return start


def test_a_card_that_does_not_start_is_left_out() -> None:
    said: list[str] = []
    engine = open_on_all(
        CARDS[:2], starter(EngineError("no kernel"), answered=threading.Event()), warn=said.append, revive_after_s=1e6
    )
    assert engine.submit([row(1)]).result(0).shape == (1, 16)
    assert said == ["card 0 is left out, 1 at work: no kernel"]
    engine.close()


def test_cards_of_which_none_starts_raise_the_first_error() -> None:
    def start(card: Card, stop: threading.Event) -> Engine:
        raise EngineError(f"card {card.index} is broken")

    with pytest.raises(EngineError, match="card 0 is broken"):
        open_on_all(CARDS[:2], start, warn=print)


# Coming back.


def test_a_dead_card_is_started_again_and_works_beside_the_others() -> None:
    said: list[str] = []
    answered = threading.Event()
    dead, beside, back = PatientEngine(), PatientEngine(), FakeEngine(depth=7)
    start = starter(dead, EngineDied("not yet"), back, answered=answered, beside=beside)
    both = open_on_all(CARDS[:2], start, warn=said.append, revive_after_s=0.01)
    futures = [both.submit([row(token)]) for token in range(4)]
    dead.die(EngineDied("fell off the bus"))
    beside.answer_all()
    assert all(future.result(0).shape == (1, 16) for future in futures)
    answered.set()
    wait_for(lambda: len(said) == 2)
    assert said == ["card 0 is lost, 1 at work: fell off the bus", "card 0 is back, 2 at work"]
    assert dead.closed and both.depth == 2 + 7
    both.submit([row(9)])
    assert both.submit([row(10)]).result(0).shape == (1, 16), "the patient one would not have answered"
    both.close()
    assert back.closed


def test_a_card_of_8_bits_comes_back_with_vectors_that_differ_by_as_much_as_such_vectors_do() -> None:
    """Batches of another make-up differ in fp8 by more than in bfloat16."""
    back, answered, said = EngineTilts(0.9977, precision="fp8", alone=True), threading.Event(), list[str]()
    start = starter(EngineError("not at first"), back, answered=answered)
    both = open_on_all(CARDS[:2], start, warn=said.append, revive_after_s=0.01)
    both.submit([row(1), row(2)]).result(0)
    answered.set()
    wait_for(lambda: len(said) == 2)
    assert said[1] == "card 0 is back, 2 at work"
    both.close()


def test_a_card_that_comes_back_with_other_vectors_does_not_work() -> None:
    class Other(FakeEngine):
        def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([-vector(one, self.dim) for one in rows])

    other, sound, answered = Other(), FakeEngine(), threading.Event()
    engines = starter(EngineError("not at first"), other, sound, answered=answered)
    said: list[str] = []
    both = open_on_all(CARDS[:2], engines, warn=said.append, revive_after_s=0.01)
    both.submit([row(1), row(2)]).result(0)
    answered.set()
    wait_for(lambda: len(said) == 2)
    assert other.closed and not sound.closed and other.log == [[1, 1]]
    both.close()


def test_close_gives_up_the_start_of_a_card() -> None:
    starting = threading.Event()

    def start(card: Card, stop: threading.Event) -> Engine:
        if card.index == 0 and not starting.is_set():
            starting.set()
            raise EngineError("not at first")
        if card.index == 0:
            assert stop.wait(60)
            raise EngineDied("given up")
        return FakeEngine()

    both = open_on_all(CARDS[:2], start, warn=lambda _: None, revive_after_s=0.01)
    wait_for(starting.is_set)
    both.close()
    assert not any(reviver.is_alive() for reviver in both._revivers.all_threads())


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
