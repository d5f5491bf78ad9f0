"""Test doubles of engines, each with one fault, about ten lines each.

In: rows. Out: vectors that depend on the ids alone, or the fault of the double's name. They answer at once, in the
feeder's own thread. `killer` rows are those that hold the id KILLER.
Not here: the openers; a test says how many engines there are and how each of them fails.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from embedcli.engines.nvml import Card
from embedcli.errors import EngineDied, EngineOutOfMemory

KILLER = 7_777
KILLER_WORD = "likes"
"""The word that MiniLM's tokenizer makes a killer of."""

PROBE_LISTS = 10
"""The lists of the probe set, which every engine gets first."""

CARDS = [Card(index, f"GPU-{index}", "a card", (9, 0), 8, 8, "580", (13, 0)) for index in range(3)]
"""For engines that look at no card."""

Log = list[list[int]]
"""The lengths of each list submitted, over all engines of a test."""


def vector(ids: np.ndarray, dim: int) -> np.ndarray:
    """The prefix of a fixed state of 384, at unit length."""
    seed = hashlib.blake2b(np.asarray(ids, np.int64).tobytes(), digest_size=8).digest()
    state = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(384, np.float32)[:dim]
    return state / np.linalg.norm(state)


class FakeEngine:
    """Sound in every way."""

    max_tokens = 4_096
    vocabulary: int | None = 10_000
    device = "cpu"
    precision = "float32"

    def __init__(
        self,
        *,
        dim: int = 16,
        batch_tokens: int = 1_024,
        batch_rows: int = 256,
        padded: bool = True,
        depth: int = 4,
        log: Log | None = None,
    ) -> None:
        self.dim = dim
        self.batch_tokens = batch_tokens
        self.batch_rows = batch_rows
        self.padded = padded
        self.depth = depth
        self.log: Log = log if log is not None else []
        self.closed = False

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        self.log.append([row.size for row in rows])
        future: Future[np.ndarray] = Future()
        try:
            answer = self.embed(rows)
        except EngineDied as error:
            future.set_exception(error)
        else:
            if answer is not None:
                future.set_result(answer)
        return future

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        """None: no answer, ever."""
        return np.array([vector(row, self.dim) for row in rows]).reshape(len(rows), self.dim)

    def close(self) -> None:
        self.closed = True


class EngineOfDigests(FakeEngine):
    """Sound, and so fast that what is measured is not the engine; of at most 64 dimensions."""

    vocabulary = None

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        self.log.clear()  # it would grow with the rows
        digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=self.dim).digest() for row in rows)
        vectors = np.frombuffer(digests, np.uint8).reshape(len(rows), self.dim).astype(np.float32) + 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class EngineDiesOnBatch(FakeEngine):
    """Dies of its n-th list, whatever it holds; `n` counts from 1."""

    def __init__(self, n: int, *, log: Log | None = None) -> None:
        super().__init__(log=log)
        self.lists_left = n

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        self.lists_left -= 1
        if self.lists_left <= 0:
            raise EngineDied("the double died")
        return super().embed(rows)


class EngineDiesWhileSending(FakeEngine):
    """The pipe is broken: `submit` itself raises."""

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        raise EngineDied("the pipe is broken")


class EngineDiesOfKiller(FakeEngine):
    """Dies of any list with a killer in it."""

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        if any(KILLER in row for row in rows):
            raise EngineDied("the double died of a killer")
        return super().embed(rows)


class EngineHangsOnKiller(FakeEngine):
    """Never answers a list with a killer in it."""

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        return None if any(KILLER in row for row in rows) else super().embed(rows)


class EngineHoldsBack(FakeEngine):
    """Answers a list with a killer in it when it is let go, and not before: whatever waits for it cannot be over."""

    def __init__(self, *, dim: int, log: Log) -> None:
        super().__init__(dim=dim, batch_rows=1, log=log)
        self.vocabulary = None
        self._held: list[tuple[Future[np.ndarray], Sequence[np.ndarray]]] = []
        self._let_go = False
        self._lock = threading.Lock()

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        with self._lock:
            if self._let_go or not any(KILLER in row for row in rows):
                return super().submit(rows)
            self._held.append((Future(), rows))
            return self._held[-1][0]

    def let_go(self) -> None:
        with self._lock:
            self._let_go = True
            held, self._held = self._held, []
        for future, rows in held:  # without the lock: whoever waits may submit the next list at once
            future.set_result(super().submit(rows).result())


class EngineWaits(FakeEngine):
    """Answers one row after the other, each as soon as `may` says so of the number of rows that it has answered before,
    the probe set not counted. It waits in a thread of its own: meanwhile the run goes on."""

    vocabulary = None

    def __init__(self, *, dim: int, may: Callable[[int], bool], log: Log | None = None) -> None:
        super().__init__(dim=dim, batch_rows=1, depth=1, log=log)
        self._may = may
        self._lists = self._answered = 0

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        self._lists += 1
        if self._lists <= PROBE_LISTS:
            return super().submit(rows)
        future: Future[np.ndarray] = Future()
        threading.Thread(target=self._answer, args=(future, rows), daemon=True).start()
        return future

    def _answer(self, future: Future[np.ndarray], rows: Sequence[np.ndarray]) -> None:
        while not self._may(self._answered):
            if self.closed:
                return
            time.sleep(0.005)
        self._answered += 1
        future.set_result(super().submit(rows).result())


class EngineOutOfMemoryAbove(FakeEngine):
    """Runs out of memory on a list that costs more than `tokens`."""

    def __init__(self, tokens: int, *, batch_tokens: int = 1_024, log: Log | None = None) -> None:
        super().__init__(batch_tokens=batch_tokens, log=log)
        self.tokens = tokens

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        if len(rows) * max(row.size for row in rows) > self.tokens:
            raise EngineOutOfMemory("the double is out of memory")
        return super().embed(rows)


class EngineReturnsNaN(FakeEngine):
    """Killers get NaN; with `only_in_company` they are well when alone."""

    def __init__(self, *, dim: int = 16, only_in_company: bool = False, wrong: float = float("nan")) -> None:
        super().__init__(dim=dim)
        self.only_in_company = only_in_company
        self.wrong = wrong

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        vectors = np.stack([vector(row, self.dim) for row in rows])
        if len(rows) > 1 or not self.only_in_company:
            vectors[[KILLER in row for row in rows]] *= self.wrong
        return vectors


class EngineRepeatsItself(FakeEngine):
    """Killers get the vector of the first row of their list; with `alone_too` one vector for all of them."""

    def __init__(self, *, alone_too: bool = False) -> None:
        super().__init__()
        self.alone_too = alone_too

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        same = vector(np.array([KILLER]), self.dim) if self.alone_too else vector(rows[0], self.dim)
        return np.stack([same if KILLER in row else vector(row, self.dim) for row in rows])


class EngineDiffersInBatches(FakeEngine):
    """What a wrong attention mask does."""

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.stack([vector(row if len(rows) == 1 else row[:-1], self.dim) for row in rows])


class EngineTilts(FakeEngine):
    """Its vectors of two texts or more at once (`alone`: of one text too) have this cosine with a sound engine's."""

    def __init__(self, cosine: float, *, precision: str, alone: bool = False, dim: int = 16) -> None:
        super().__init__(dim=dim)
        self.precision = precision
        self._cosine, self._alone = cosine, alone

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        tilts = self._alone or len(rows) > 1
        return np.stack([tilted(vector(row, self.dim), self._cosine if tilts else 1.0) for row in rows])


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 [rows, dim], each row of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def tilted(sound: np.ndarray, cosine: float) -> np.ndarray:
    """A vector of unit length that has this cosine with the sound one."""
    aside = np.roll(sound, 1) - sound * (np.roll(sound, 1) @ sound)
    return (cosine * sound + np.sqrt(1 - cosine**2) * aside / np.linalg.norm(aside)).astype(np.float32)


def in_turn(*engines: Callable[[], FakeEngine]) -> Callable[[], FakeEngine]:
    """An opener: each call opens the next, the last one for ever."""
    left = list(engines)

    def open_next() -> FakeEngine:
        return left.pop(0)() if len(left) > 1 else left[0]()

    return open_next
