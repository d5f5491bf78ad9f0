"""Several cards as one engine: the death of one is not the end of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from embedcli.card import Card
from embedcli.engine import Engine
from embedcli.engine_cards import CardsEngine
from embedcli.engine_sglang import start_on_all
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.feeding import Feeder
from tests.engines import KILLER, EngineDiesOfKiller, EngineOutOfMemoryAbove, FakeEngine, vector


class PatientEngine(FakeEngine):
    """Answers when told to, or dies with all it has."""

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


def test_each_list_goes_to_the_idlest_card() -> None:
    one, two = PatientEngine(), PatientEngine()
    both = CardsEngine([one, two])
    for length in (100, 30, 30, 30, 30):
        both.submit([row(1, length)])
    assert [len(rows[0]) for rows, _ in one.waiting] == [100]
    assert [len(rows[0]) for rows, _ in two.waiting] == [30, 30, 30, 30]
    assert both.depth == 4


def test_the_lists_of_a_dead_card_are_answered_by_the_others() -> None:
    one, two = PatientEngine(), PatientEngine()
    said: list[str] = []
    both = CardsEngine([one, two], say=said.append)
    futures = [both.submit([row(token)]) for token in range(6)]
    one.die(EngineDied("fell off the bus"))
    two.answer_all()
    for token, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(0), vector(row(token), 16)[None])
    assert said == ["a card is lost, 1 left: fell off the bus"]
    later = both.submit([row(9)])
    two.answer_all()
    assert later.result(0).shape == (1, 16)


def test_a_list_that_sees_two_cards_die_is_told() -> None:
    one, two, three = PatientEngine(), PatientEngine(), PatientEngine()
    cards = CardsEngine([one, two, three])
    futures = [cards.submit([row(token)]) for token in range(3)]
    one.die(EngineDied("first"))
    moved = two if len(two.waiting) == 2 else three
    moved.die(EngineDied("second"))
    assert isinstance(futures[0].exception(0), EngineDied)
    (three if moved is two else two).answer_all()
    assert all(future.exception(0) is None for future in futures[1:])


def test_a_list_that_was_alone_is_told_at_the_first_death() -> None:
    one, two = PatientEngine(), PatientEngine()
    both = CardsEngine([one, two])
    future = both.submit([row(KILLER)])
    one.die(EngineDied("of the list"))
    assert isinstance(future.exception(0), EngineDied) and not two.waiting


def test_out_of_memory_is_told_at_once() -> None:
    both = CardsEngine([EngineOutOfMemoryAbove(10), EngineOutOfMemoryAbove(10)])
    assert isinstance(both.submit([row(1, 11)]).exception(0), EngineOutOfMemory)


def test_no_card_left_is_told() -> None:
    one = PatientEngine()
    alone = CardsEngine([one])
    one.die(EngineDied("gone"))
    assert isinstance(alone.submit([row(1)]).exception(0), EngineDied)
    assert isinstance(alone.submit([row(1)]).exception(0), EngineDied)


def test_close_closes_every_card_and_answers_what_is_waiting() -> None:
    one, two = PatientEngine(), PatientEngine()
    both = CardsEngine([one, two])
    both.close()
    assert one.closed and two.closed
    assert isinstance(both.submit([row(1)]).exception(0), EngineDied)


def test_the_one_chunk_that_kills_cards_is_found_and_all_others_are_embedded() -> None:
    lines: list[str] = []

    def open_cards() -> Engine:
        return CardsEngine([EngineDiesOfKiller(), EngineDiesOfKiller()])

    feeder = Feeder(open_cards, on_open=lambda _: None, report=lines.append)
    rows = [row(token, 8) for token in range(1, 400)] + [row(KILLER, 8)]
    for number, one in enumerate(rows):
        feeder.add(b"%d" % number, one)
    feeder.flush()
    answers: dict[bytes, object] = {}
    while len(answers) < len(rows):
        answers |= dict(feeder.finished(10.0))
    feeder.close(abort=False)
    assert answers.pop(b"399") == "engine_killed"
    assert all(isinstance(answer, np.ndarray) for answer in answers.values())


# Starting.

CARDS = [Card(index, f"GPU-{index}", "a card", (9, 0), 8, 8, "580", (13, 0)) for index in range(2)]


def opener(*, failing: set[int]) -> Callable[[Card], Engine]:
    def start(card: Card) -> Engine:
        if card.index in failing:
            raise EngineError(f"card {card.index} is broken")
        return FakeEngine()

    return start


def test_a_card_that_does_not_start_is_left_out() -> None:
    said: list[str] = []
    engine = start_on_all(CARDS, opener(failing={0}), say=said.append)
    assert engine.submit([row(1)]).result(0).shape == (1, 16)
    assert said == ["card 0 is left out: card 0 is broken"]


def test_cards_of_which_none_starts_raise_the_first_error() -> None:
    with pytest.raises(EngineError, match="card 0 is broken"):
        start_on_all(CARDS, opener(failing={0, 1}), say=None)
