"""Several engines of one model, one a card, as one engine: fed from one queue, each list to the idlest.

In: engines that are ready. Out: an Engine. When one dies its lists go to the others, once: a list that sees a
second engine die is told as EngineDied, and so is one that was alone with it, for then it is the list's doing.
Out of memory is told at once, since the other cards have no more of it.
Not here: starting them (engine_sglang.py), finding the guilty row, starting them anew (feeding.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from embedcli.engine import Engine
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory

Say = Callable[[str], None]


@dataclass(slots=True, eq=False)
class _List:
    """One list on its way."""

    rows: Sequence[np.ndarray]
    moved: bool = False
    answer: Future[np.ndarray] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return sum(row.size for row in self.rows)


class CardsEngine:
    """The lock guards who lives and who has what; no engine is called while it is held."""

    def __init__(self, engines: Sequence[Engine], *, say: Say | None = None) -> None:
        first = engines[0]
        self.dim = first.dim
        self.max_tokens = min(engine.max_tokens for engine in engines)
        self.vocabulary = first.vocabulary
        self.device = first.device
        self.batch_tokens = min(engine.batch_tokens for engine in engines)
        self.batch_rows = first.batch_rows
        self.padded = first.padded
        self.depth = sum(engine.depth for engine in engines)
        self._say = say
        self._engines = list(engines)
        self._lock = threading.Lock()
        self._living: dict[Engine, set[_List]] = {engine: set() for engine in engines}
        self._closing = False

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        one = _List(rows)
        self._send(one, EngineDied("no card is left"))
        return one.answer

    def close(self) -> None:
        with self._lock:
            self._closing = True
        closers = [threading.Thread(target=engine.close) for engine in self._engines]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()

    def _send(self, one: _List, otherwise: EngineError) -> None:
        """To the living engine with the fewest tokens to do; where there is none, the answer is `otherwise`."""
        with self._lock:
            idlest = min(self._living, key=lambda engine: _load(self._living[engine]), default=None)
            if idlest is not None and not self._closing:
                self._living[idlest].add(one)
        if idlest is None or self._closing:
            one.answer.set_exception(otherwise)
            return
        idlest.submit(one.rows).add_done_callback(lambda done: self._collect(idlest, one, done))

    def _collect(self, engine: Engine, one: _List, done: Future[np.ndarray]) -> None:
        error = done.exception()
        if error is None:
            with self._lock:
                self._living.get(engine, set()).discard(one)
            one.answer.set_result(done.result())
        elif isinstance(error, EngineDied) and not self._is_guilty(engine, one, error):
            one.moved = True
            self._send(one, error)
        else:
            one.answer.set_exception(error)

    def _is_guilty(self, engine: Engine, one: _List, error: EngineDied) -> bool:
        """Also buries the engine, the first time that one of its lists tells of its death."""
        with self._lock:
            company = self._living.pop(engine, None)
            alone = company is not None and len(company) == 1 and not any(self._living.values())
            left = len(self._living)
        if company is not None and self._say and left and not self._closing:
            self._say(f"a card is lost, {left} left: {error}")
        return alone or one.moved or isinstance(error, EngineOutOfMemory)


def _load(lists: set[_List]) -> int:
    return sum(one.tokens for one in lists)
