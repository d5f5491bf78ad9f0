"""Who waits for which row: the requests without an answer, the rows that the Feeder has, what was done so far.

In: requests, answers by key. Out: rows in turn, and the requests that have all of their answers. A `Book` is used with
its lock held, by the event loop and by the thread that collects answers.
Not here: the Feeder's life, and whoever is told (batcher.py).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from embedcli.engines.contract import Answer
from embedcli.engines.feeder import Feeder
from embedcli.errors import EmbedcliError

FIRST_AHEAD_TOKENS = 1 << 14
UNKNOWN_S = 10
"""What a client is told to wait while nobody knows how fast the engine is."""


@dataclass(slots=True, eq=False)
class Request:
    rows: Sequence[np.ndarray]
    future: asyncio.Future[list[Answer]]
    answers: list[Answer | None]
    tokens: int
    sent: int = 0
    lacks: int = 0


@dataclass(slots=True)
class Stage:
    """How far the engine is. `failures` counts Feeders that gave up without an answer in between."""

    name: str = "loading"
    detail: str = ""
    restarts: int = 0
    failures: int = 0
    retired: bool = False


@dataclass(slots=True)
class Awaited:
    """A row that the Feeder has, and each place that waits for it."""

    tokens: int
    places: list[tuple[Request, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """What waits now, and what was done so far."""

    state: str
    requests: int
    tokens: int
    tokens_done: int
    texts_done: int
    restarts: int


class Book:
    """Who waits for which row; used with the lock held. `tokens` are those of requests that have no answer yet."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.closing = False
        self.stage = Stage()
        self.ahead_tokens = FIRST_AHEAD_TOKENS
        self.tokens = 0
        self.awaited: dict[bytes, Awaited] = {}
        self._turns: deque[Request] = deque()
        self._open: set[Request] = set()
        self._inside_tokens = 0
        self._done = Done()

    def load(self) -> Load:
        done, stage = self._done, self.stage
        return Load(stage.name, len(self._open), self.tokens, done.tokens, done.texts, stage.restarts)

    def seconds_of(self, tokens: int) -> int:
        """How long so many tokens take, as fast as the engine was so far."""
        return max(1, min(600, round(tokens / self._done.rate))) if self._done.rate else UNKNOWN_S

    def add(self, request: Request) -> None:
        self._open.add(request)
        self.tokens += request.tokens
        self._turns.append(request)
        if not self.awaited:
            self._done.begin()
        self.lock.notify_all()

    def fill(self, feeder: Feeder) -> None:
        """Rows in turn, as many as the Feeder should have."""
        while self._turns and self._inside_tokens < self.ahead_tokens:
            request = self._turns.popleft()
            self._send(feeder, request)
            if request.sent < len(request.rows):
                self._turns.append(request)

    def _send(self, feeder: Feeder, request: Request) -> None:
        """A row that comes again while its vector is awaited is not sent again."""
        number, request.sent = request.sent, request.sent + 1
        ids = request.rows[number]
        key = blake2b(ids.tobytes(), digest_size=16).digest()
        awaited = self.awaited.get(key)
        if awaited is None:
            awaited = self.awaited[key] = Awaited(ids.size)
            self._inside_tokens += ids.size
            with suppress(EmbedcliError):  # the thread meets the same one, and tells everybody
                feeder.add(key, ids)
        awaited.places.append((request, number))

    def take(self, answers: Iterable[tuple[bytes, Answer]]) -> list[Request]:
        """Note answers; those requests that now have all of theirs."""
        done = []
        for key, answer in answers:
            awaited = self.awaited.pop(key)
            self._inside_tokens -= awaited.tokens
            self._done.add(awaited.tokens)
            for request, number in awaited.places:
                request.answers[number] = answer
                request.lacks -= 1
                if not request.lacks:
                    done.append(request)
        if done:
            self.stage.failures = 0
        return done

    def fail_all(self) -> list[Request]:
        failed = list(self._open)
        self._turns.clear()
        self.awaited.clear()
        self._inside_tokens = 0
        return failed

    def forget(self, request: Request) -> None:
        """It has its answer, or nobody waits for it; what the Feeder has of it is embedded."""
        self._open.remove(request)
        self.tokens -= request.tokens
        if request.sent < len(request.rows) and request in self._turns:
            self._turns.remove(request)


class Done:
    """What was answered, and how fast."""

    def __init__(self) -> None:
        self.tokens = 0
        self.texts = 0
        self.rate = 0.0
        self._since_s = 0.0
        self._tokens = 0

    def begin(self) -> None:
        """There is work after a time without."""
        self._since_s, self._tokens = time.monotonic(), 0

    def add(self, tokens: int) -> None:
        self.tokens += tokens
        self.texts += 1
        self._tokens += tokens
        elapsed_s = time.monotonic() - self._since_s
        self.rate = self._tokens / elapsed_s if elapsed_s > 0 else self.rate
