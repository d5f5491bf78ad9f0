"""Several engines of one model, one a card, as one engine: fed from one queue, each list to the idlest.

In: the cards, and how the engine of one is started. Out: an Engine. When one dies its lists go to the others, once:
a list that sees a second engine die is told as EngineDied, and so is one that was alone with it, for then it is the
list's doing. Out of memory is told at once, since the other cards have no more of it. The card is started again
beside the others, and works with them once its vectors are theirs.
Not here: how an engine is started (sglang/engine.py), finding the guilty row, starting all anew (feeder.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from embedcli.engines.contract import Engine, check_vectors
from embedcli.engines.nvml import Card
from embedcli.engines.probe import PROBE_AGREEMENT, PROBE_TIMEOUT_S, compare_probe
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.report import Say

REVIVE_AFTER_S = 60.0
"""Twice as long after each try that failed: a card that is broken for good costs little."""

StartOn = Callable[[Card, threading.Event], Engine]
"""EngineError where it does not start, and soon, once the event is set."""


@dataclass(slots=True, eq=False)
class _List:
    """One list on its way."""

    rows: Sequence[np.ndarray]
    moved: bool = False
    answer: Future[np.ndarray] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return sum(row.size for row in self.rows)


@dataclass(slots=True, eq=False)
class _Worker:
    """A card at work, and the lists that are with it."""

    card: Card
    engine: Engine
    lists: set[_List] = field(default_factory=set)

    @property
    def load(self) -> int:
        return sum(one.tokens for one in self.lists)


def open_on_all(
    cards: Sequence[Card], start: StartOn, *, warn: Say, revive_after_s: float = REVIVE_AFTER_S
) -> CardsEngine:
    """One engine a card, started at the same time; a card on which it does not start is left to be tried again."""
    workers: list[_Worker] = []
    absent: dict[Card, EngineError] = {}
    for card, starting in [(card, _begin(start, card)) for card in cards]:
        try:
            workers.append(_Worker(card, starting.result()))
        except EngineError as error:
            absent[card] = error
    if not workers:
        raise next(iter(absent.values()))
    engine = CardsEngine(workers, start, warn=warn, revive_after_s=revive_after_s)
    for card, reason in absent.items():
        engine.revive(card, f"card {card.index} is left out, {len(workers)} at work: {reason}")
    return engine


def _begin(start: StartOn, card: Card) -> Future[Engine]:
    """In a thread that the end of the process does not wait for, as it would for those of an executor."""
    starting: Future[Engine] = Future()

    def run() -> None:
        try:
            starting.set_result(start(card, threading.Event()))
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for the result is told
            starting.set_exception(error)

    threading.Thread(target=run, name="embedcli-card", daemon=True).start()
    return starting


class CardsEngine:
    """The lock guards who works and who has what; no engine is called while it is held."""

    def __init__(self, workers: Sequence[_Worker], start: StartOn, *, warn: Say, revive_after_s: float) -> None:
        first = workers[0].engine
        self.dim = first.dim
        self.max_tokens = min(worker.engine.max_tokens for worker in workers)
        self.vocabulary = first.vocabulary
        self.device = first.device
        self.batch_tokens = min(worker.engine.batch_tokens for worker in workers)
        self.batch_rows = first.batch_rows
        self.padded = first.padded
        self._start = start
        self._warn = warn
        self._revive_after_s = revive_after_s
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._workers = list(workers)
        self._engines = [worker.engine for worker in workers]
        self._revivers: list[threading.Thread] = []
        self._last_answer: tuple[Sequence[np.ndarray], np.ndarray] | None = None
        self.depth = self._depth()

    def _depth(self) -> int:
        return max(1, sum(worker.engine.depth for worker in self._workers))

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        one = _List(rows)
        self._send(one, EngineDied("no card is left"))
        return one.answer

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            closers = [threading.Thread(target=engine.close) for engine in self._engines]
            revivers = self._revivers
        for closer in closers:
            closer.start()
        for thread in [*closers, *revivers]:
            thread.join()

    # Lists.

    def _send(self, one: _List, otherwise: EngineError) -> None:
        """To the engine with the fewest tokens to do; where there is none, the answer is `otherwise`."""
        with self._lock:
            idlest = min(self._workers, key=lambda worker: worker.load, default=None)
            if idlest is not None and not self._closed.is_set():
                idlest.lists.add(one)
        if idlest is None or self._closed.is_set():
            one.answer.set_exception(otherwise)
            return
        idlest.engine.submit(one.rows).add_done_callback(partial(self._collect, idlest, one))

    def _collect(self, worker: _Worker, one: _List, done: Future[np.ndarray]) -> None:
        error = done.exception()
        if error is None:
            with self._lock:
                worker.lists.discard(one)
                self._last_answer = one.rows, done.result()
            one.answer.set_result(done.result())
        elif isinstance(error, EngineDied) and not self._is_guilty(worker, one, error):
            one.moved = True
            self._send(one, error)
        else:
            one.answer.set_exception(error)

    def _is_guilty(self, worker: _Worker, one: _List, error: EngineDied) -> bool:
        """Also takes the card from work, the first time that one of its lists tells of its death."""
        with self._lock:
            first = worker in self._workers
            if first:
                self._workers.remove(worker)
                self.depth = self._depth()
            alone = first and len(worker.lists) == 1 and not any(other.lists for other in self._workers)
            left = len(self._workers)
        if first and left:
            self.revive(worker.card, f"card {worker.card.index} is lost, {left} at work: {error}", dead=worker.engine)
        return alone or one.moved or isinstance(error, EngineOutOfMemory)

    # Cards that are to come back.

    def revive(self, card: Card, told: str, *, dead: Engine | None = None) -> None:
        """Start the card again, beside the others, until it works or all is over."""
        with self._lock:
            if self._closed.is_set():
                return
            reviver = threading.Thread(target=self._revive, args=(card, dead), name="embedcli-card", daemon=True)
            self._revivers.append(reviver)
            reviver.start()
        self._warn(told)

    def _revive(self, card: Card, dead: Engine | None) -> None:
        if dead is not None:
            dead.close()
        pause_s = self._revive_after_s
        while not self._closed.wait(pause_s) and not self._is_back(card):
            pause_s *= 2

    def _is_back(self, card: Card) -> bool:
        try:
            engine = self._start(card, self._closed)
        except EngineError:
            return False
        with self._lock:
            self._engines.append(engine)
            last_answer = self._last_answer
        if self._closed.is_set() or last_answer is None or not _agrees(engine, *last_answer):
            engine.close()
            return False
        with self._lock:
            self._workers.append(_Worker(card, engine))
            self.depth = self._depth()
            working = len(self._workers)
        self._warn(f"card {card.index} is back, {working} at work")
        return True


def _agrees(engine: Engine, rows: Sequence[np.ndarray], vectors: np.ndarray) -> bool:
    """Whether an engine embeds a list as another one did."""
    try:
        now, sound = check_vectors(engine.submit(rows).result(PROBE_TIMEOUT_S))
    except (EngineError, FutureTimeout):
        return False
    return bool(sound.all()) and compare_probe(now, check_vectors(vectors)[0]) >= PROBE_AGREEMENT
