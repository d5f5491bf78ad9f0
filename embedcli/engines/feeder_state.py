"""What the caller of a feeder and its thread share, behind one lock: each part has one owner here.

In: chunks that were added, batches that were packed, sent and answered. Out: which chunks wait, which answers are
ready, how long an answer may take, what was done so far. Every part is used with `FeederState.lock` held.
Not here: the caller's side (feeder.py), the engine's side (feeder_thread.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from embedcli.engines.contract import Answer, Engine
from embedcli.engines.recovery import Batch, Queued

UNCOLLECTED_ANSWERS = 8_192
HANG_S = 60.0
HANG_FACTOR = 10
SLOWEST_TOKENS_PER_S = 50.0
"""Taken as the speed until the first batch is answered: a large model on a small CPU."""

FIRST_ANSWER_S = 600.0
"""The most time that a card gets for its first batch: it embedded the probe set a moment ago."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch that the engine has: since when, and how many tokens the engine had then, this batch included."""

    future: Future[np.ndarray]
    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the feeder did so far. `padding` is the share of the device's tokens that were none of ours."""

    tokens: int = 0
    chunks: int = 0
    batches: int = 0
    device_tokens: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    duplicates_accepted: int = 0
    restarts: int = 0

    @property
    def padding(self) -> float:
        return 1.0 - self.tokens / self.device_tokens if self.device_tokens else 0.0


class Waiting:
    """The chunks that wait to be packed into batches."""

    def __init__(self, look_ahead_tokens: int) -> None:
        self._look_ahead_tokens = look_ahead_tokens
        self.batch_tokens = look_ahead_tokens
        """Of the engine, once there is one."""
        self._chunks: list[Queued] = []
        self._tokens = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, chunk: Queued) -> bool:
        """Returns whether there is work for the thread: one more full batch, or enough to be packed well."""
        batches = self._tokens // self.batch_tokens
        self._chunks.append(chunk)
        self._tokens += chunk.ids.size
        return self.full or self._tokens // self.batch_tokens > batches

    @property
    def full(self) -> bool:
        """Whether enough chunks wait to be sorted by length and packed well."""
        return self._tokens >= self._look_ahead_tokens

    def take(self) -> list[Queued]:
        """All of them; none waits any more."""
        chunks, self._chunks, self._tokens = self._chunks, [], 0
        return chunks


class Batches:
    """The batches that were packed (`packed`), those that must be sent alone (`alone`), those that the engine has."""

    def __init__(self) -> None:
        self.packed: deque[Batch] = deque()
        self.alone: deque[Batch] = deque()
        self.in_flight: dict[Batch, Sent] = {}

    def send(self, batch: Batch, future: Future[np.ndarray], at_s: float) -> None:
        tokens = batch.tokens + sum(other.tokens for other in self.in_flight)
        self.in_flight[batch] = Sent(future, at_s, tokens)

    def done(self) -> list[tuple[Batch, Future[np.ndarray]]]:
        """The batches in flight that the engine has answered, or failed."""
        return [(batch, sent.future) for batch, sent in self.in_flight.items() if sent.future.done()]

    def next_to_send(self, depth: int, in_time: Callable[[int], bool]) -> list[Batch]:
        """As many packed batches as may be sent, so that `depth` are in flight; `in_time` tells of so many tokens in
        flight whether they are answered before the time is over."""
        sent: list[Batch] = []
        tokens = sum(batch.tokens for batch in self.in_flight)
        while self.packed and len(self.in_flight) + len(sent) < depth:
            tokens += self.packed[0].tokens
            if not in_time(tokens):
                break
            sent.append(self.packed.popleft())
        return sent


class Answers:
    """The answers that the caller has not collected, and the keys of all chunks that it still awaits an answer for."""

    def __init__(self) -> None:
        self._awaited: set[bytes] = set()
        self._ready: list[tuple[bytes, Answer]] = []

    def expect(self, key: bytes) -> bool:
        """Note that the caller awaits an answer for this key; False if it already does."""
        if key in self._awaited:
            return False
        self._awaited.add(key)
        return True

    def add(self, answers: Iterable[tuple[bytes, Answer]]) -> None:
        self._ready += answers

    @property
    def any_ready(self) -> bool:
        return bool(self._ready)

    @property
    def all_collected(self) -> bool:
        return not self._awaited

    @property
    def full(self) -> bool:
        """Whether the caller should collect before it adds more."""
        return len(self._ready) >= UNCOLLECTED_ANSWERS

    def collect(self) -> list[tuple[bytes, Answer]]:
        ready, self._ready = self._ready, []
        self._awaited.difference_update(key for key, _ in ready)
        return ready


class Pace:
    """How fast the engine answers: from it follows how long the feeder waits before it takes the engine for dead."""

    def __init__(self) -> None:
        self._last_answer_s = 0.0
        self._answered_tokens = 0
        self._answering_s = 0.0  # without the silence of engines that died

    def begin(self, now_s: float) -> None:
        """From now on the engine has something to answer."""
        self._last_answer_s = now_s

    def note_answer(self, tokens: int, now_s: float) -> None:
        self._answered_tokens += tokens
        self._answering_s += now_s - self._last_answer_s
        self._last_answer_s = now_s

    def answer_s(self, tokens: int) -> float:
        """How long so many tokens in flight take, by the answers so far; 0 before the first."""
        return tokens * self._answering_s / self._answered_tokens if self._answered_tokens else 0.0

    def patience_s(self, device: str, tokens: int) -> float:
        """How long a batch may stay unanswered when the engine got it with `tokens` tokens in flight."""
        if self._answered_tokens:
            return max(HANG_S, HANG_FACTOR * tokens * self._answering_s / self._answered_tokens)
        patience_s = max(HANG_S, HANG_FACTOR * tokens / SLOWEST_TOKENS_PER_S)
        return min(patience_s, FIRST_ANSWER_S) if device.startswith("cuda") else patience_s


class Meter:
    """Counts what was done, and how long the device was busy and idle."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._looked_at_s = 0.0

    def begin(self, now_s: float) -> None:
        """An engine is ready: loading it counts neither as busy nor as idle."""
        self._looked_at_s = now_s

    def note_time(self, now_s: float, *, busy: bool) -> None:
        """Count the time since the last call as busy or idle."""
        elapsed_s, self._looked_at_s = now_s - self._looked_at_s, now_s
        old = self.statistics
        if busy:
            self.statistics = replace(old, busy_s=old.busy_s + elapsed_s)
        else:
            self.statistics = replace(old, idle_s=old.idle_s + elapsed_s)

    def note_restart(self) -> None:
        self.statistics = replace(self.statistics, restarts=self.statistics.restarts + 1)

    def note_batch(self, engine: Engine, batch: Batch, duplicates_accepted: int) -> None:
        """Count an answered batch; the chunk of a second look was counted at its first."""
        old, first_look = self.statistics, batch.kind != "second_look"
        self.statistics = replace(
            old,
            tokens=old.tokens + (batch.tokens if first_look else 0),
            chunks=old.chunks + (len(batch.chunks) if first_look else 0),
            batches=old.batches + 1,
            device_tokens=old.device_tokens + batch.cost(padded=engine.padded),
            duplicates_accepted=old.duplicates_accepted + duplicates_accepted,
        )


@dataclass(slots=True)
class Stage:
    """How far the feeder's life has got. The caller sets the first three, the thread the others."""

    flushing: bool = False
    """No more chunks will be added: do not wait for a full look-ahead."""
    closing: bool = False
    aborting: bool = False
    """Close without waiting for the batches in flight."""
    opening: bool = False
    ended: bool = False
    failure: BaseException | None = None
    """What ended the thread; the caller's next call raises it."""

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure


class FeederState:
    """All of it, and the lock. Whoever changes what the other side waits for notifies the lock."""

    def __init__(self, *, look_ahead_tokens: int) -> None:
        self.lock = threading.Condition()
        self.waiting = Waiting(look_ahead_tokens)
        self.batches = Batches()
        self.answers = Answers()
        self.pace = Pace()
        self.meter = Meter()
        self.stage = Stage()
