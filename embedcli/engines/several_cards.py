"""Several engines of one model, one a card, as one engine: one queue feeds them, each batch goes to the idlest.

In: the cards, and how the engine of one is started. Out: an Engine. When one dies its batches go to the others, once.
A batch fails with EngineDied when a second engine dies with it, or when it was the only batch in flight: then the batch
is to blame. It fails with EngineOutOfMemory at once, since the other cards have no more memory. The lost card is
started again beside the others, and works with them as soon as it gives the vectors that they give.
Not here: how an engine is started (sglang/engine.py), which chunk is to blame (recovery.py), starting all engines anew
(feeder_thread.py).
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
from embedcli.engines.probe import PROBE_TIMEOUT_S, compare_probe, least_agreement
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.report import Say

REVIVE_AFTER_S = 60.0
"""The pause doubles after each try that failed: a card that is broken for good costs little."""

StartOn = Callable[[Card, threading.Event], Engine]
"""Start the engine of a card. Raises EngineError where it does not start, and soon once the event is set."""


@dataclass(slots=True, eq=False)
class _Batch:
    """One batch on its way: the token ids of its chunks. `moved` once an engine died with it."""

    chunks: Sequence[np.ndarray]
    moved: bool = False
    answer: Future[np.ndarray] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return sum(ids.size for ids in self.chunks)


@dataclass(slots=True, eq=False)
class _Worker:
    """A card at work, and the batches that its engine has."""

    card: Card
    engine: Engine
    batches: set[_Batch] = field(default_factory=set)

    @property
    def load(self) -> int:
        return sum(batch.tokens for batch in self.batches)


def open_on_all(
    cards: Sequence[Card], start: StartOn, *, warn: Say, revive_after_s: float = REVIVE_AFTER_S
) -> CardsEngine:
    """Start one engine a card, all at the same time. A card on which none starts is tried again beside the others.

    Raises the first card's EngineError where no card has an engine.
    """
    workers: list[_Worker] = []
    absent: dict[Card, EngineError] = {}
    for card, starting in [(card, _begin(start, card)) for card in cards]:
        try:
            workers.append(_Worker(card, starting.result()))
        except EngineError as error:
            absent[card] = error
    if not workers:
        raise next(iter(absent.values()))
    crew = _Crew(workers)
    revivers = _Revivers(crew, start, warn=warn, after_s=revive_after_s)
    for card, reason in absent.items():
        revivers.revive(card, f"card {card.index} is left out, {len(workers)} at work: {reason}")
    return CardsEngine([worker.engine for worker in workers], crew, revivers)


def _begin(start: StartOn, card: Card) -> Future[Engine]:
    """Start in a thread that does not keep the process alive, as the threads of an executor would."""
    starting: Future[Engine] = Future()

    def run() -> None:
        try:
            starting.set_result(start(card, threading.Event()))
        except Exception as error:  # noqa: BLE001 - whoever waits for the result gets the exception, whatever it is
            starting.set_exception(error)

    threading.Thread(target=run, name="embedcli-card", daemon=True).start()
    return starting


class _Crew:
    """Which cards work, and which batches each of them has. One lock guards both; no engine is called with it held."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._lock = threading.Lock()
        self._workers = list(workers)
        self._engines = [worker.engine for worker in workers]
        self._last_answer: tuple[Sequence[np.ndarray], np.ndarray] | None = None
        self.closed = threading.Event()

    @property
    def depth(self) -> int:
        with self._lock:
            return max(1, sum(worker.engine.depth for worker in self._workers))

    def assign(self, batch: _Batch) -> _Worker | None:
        """Give the batch to the card with the fewest tokens to do; None where no card works, or all is closed."""
        with self._lock:
            idlest = min(self._workers, key=lambda worker: worker.load, default=None)
            if idlest is None or self.closed.is_set():
                return None
            idlest.batches.add(batch)
            return idlest

    def note_answer(self, worker: _Worker, batch: _Batch, vectors: np.ndarray) -> None:
        with self._lock:
            worker.batches.discard(batch)
            self._last_answer = batch.chunks, vectors

    def remove(self, worker: _Worker) -> tuple[bool, bool, int]:
        """Take a dead engine's card from work. (whether it still worked, whether its only batch was the only one in
        flight at all, how many cards are left)."""
        with self._lock:
            first = worker in self._workers
            if first:
                self._workers.remove(worker)
            alone = first and len(worker.batches) == 1 and not any(other.batches for other in self._workers)
            return first, alone, len(self._workers)

    def opened(self, engine: Engine) -> tuple[Sequence[np.ndarray], np.ndarray] | None:
        """Note an engine that `close` must close; returns the last batch that another one answered, and its vectors."""
        with self._lock:
            self._engines.append(engine)
            return self._last_answer

    def add(self, worker: _Worker) -> int:
        """The card works with the others from now on; returns how many they are."""
        with self._lock:
            self._workers.append(worker)
            return len(self._workers)

    def close(self) -> list[Engine]:
        """No card gets a batch any more; returns every engine that was ever opened."""
        with self._lock:
            self.closed.set()
            return list(self._engines)


class _Revivers:
    """The threads that start lost cards again."""

    def __init__(self, crew: _Crew, start: StartOn, *, warn: Say, after_s: float) -> None:
        self._crew = crew
        self._start = start
        self._warn = warn
        self._after_s = after_s
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def revive(self, card: Card, why: str, *, dead: Engine | None = None) -> None:
        """Start the card again, beside the others, until it works or all is closed."""
        with self._lock:
            if self._crew.closed.is_set():
                return
            thread = threading.Thread(target=self._revive, args=(card, dead), name="embedcli-card", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._warn(why)

    def all_threads(self) -> list[threading.Thread]:
        """Those to wait for, once the crew is closed."""
        with self._lock:
            return list(self._threads)

    def _revive(self, card: Card, dead: Engine | None) -> None:
        if dead is not None:
            dead.close()
        pause_s = self._after_s
        while not self._crew.closed.wait(pause_s) and not self._is_back(card):
            pause_s *= 2

    def _is_back(self, card: Card) -> bool:
        try:
            engine = self._start(card, self._crew.closed)
        except EngineError:
            return False
        last_answer = self._crew.opened(engine)
        if self._crew.closed.is_set() or last_answer is None or not _agrees(engine, *last_answer):
            engine.close()
            return False
        working = self._crew.add(_Worker(card, engine))
        self._warn(f"card {card.index} is back, {working} at work")
        return True


class CardsEngine:
    """All cards as one engine. `engines` are those that started at once: what they have in common is its own."""

    def __init__(self, engines: Sequence[Engine], crew: _Crew, revivers: _Revivers) -> None:
        first = engines[0]
        self.dim = first.dim
        self.max_tokens = min(engine.max_tokens for engine in engines)
        self.vocabulary = first.vocabulary
        self.device = first.device
        self.precision = first.precision
        self.batch_tokens = min(engine.batch_tokens for engine in engines)
        self.batch_rows = first.batch_rows
        self.padded = first.padded
        self._crew = crew
        self._revivers = revivers

    @property
    def depth(self) -> int:
        return self._crew.depth

    def submit(self, batch: Sequence[np.ndarray]) -> Future[np.ndarray]:
        sent = _Batch(batch)
        self._send(sent, EngineDied("no card is left"))
        return sent.answer

    def close(self) -> None:
        closers = [threading.Thread(target=engine.close) for engine in self._crew.close()]
        for closer in closers:
            closer.start()
        for thread in [*closers, *self._revivers.all_threads()]:
            thread.join()

    def _send(self, batch: _Batch, otherwise: EngineError) -> None:
        """Send the batch to the idlest card; it fails with `otherwise` where there is none."""
        worker = self._crew.assign(batch)
        if worker is None:
            batch.answer.set_exception(otherwise)
        else:
            worker.engine.submit(batch.chunks).add_done_callback(partial(self._collect, worker, batch))

    def _collect(self, worker: _Worker, batch: _Batch, done: Future[np.ndarray]) -> None:
        error = done.exception()
        if error is None:
            self._crew.note_answer(worker, batch, done.result())
            batch.answer.set_result(done.result())
        elif isinstance(error, EngineDied) and not self._is_guilty(worker, batch, error):
            batch.moved = True
            self._send(batch, error)
        else:
            batch.answer.set_exception(error)

    def _is_guilty(self, worker: _Worker, batch: _Batch, error: EngineDied) -> bool:
        """Whether the batch is to blame for the death. The first batch that fails takes the card from work."""
        first, alone, left = self._crew.remove(worker)
        if first and left:
            lost = f"card {worker.card.index} is lost, {left} at work: {error}"
            self._revivers.revive(worker.card, lost, dead=worker.engine)
        return alone or batch.moved or isinstance(error, EngineOutOfMemory)


def _agrees(engine: Engine, chunks: Sequence[np.ndarray], vectors: np.ndarray) -> bool:
    """Whether the engine gives the vectors that another one gave for this batch."""
    try:
        now, sound = check_vectors(engine.submit(chunks).result(PROBE_TIMEOUT_S))
    except (EngineError, FutureTimeout):
        return False
    cosine = compare_probe(now, check_vectors(vectors)[0])
    return bool(sound.all()) and cosine >= least_agreement(engine.precision, engine.dim)
