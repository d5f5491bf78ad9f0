"""Keeps an engine busy, doubts its vectors, and outlives its death.

In: rows under the caller's keys, while the engine may still be loading. Out: a vector for each key, or the
reason why there is none (`bad_tokens`, `bad_vector`, `engine_killed`). One thread owns the engine; `add` never
waits for it.
Not here: who is suspected after a death (recovery.py), which vectors are doubted (second_look.py), the vectors of
earlier runs (ingest.py).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from embedcli.engines.contract import Engine, OpenEngine, row_problem
from embedcli.engines.recovery import Batch, Recovery, Row
from embedcli.engines.second_look import Answer, SecondLooks
from embedcli.errors import EmbedcliError, EngineDied, EngineOutOfMemory

LOOK_AHEAD_TOKENS = 1 << 18
"""1 MiB of ids; 100 CPU batches to sort by length, 16 of a GPU."""

UNCOLLECTED_ROWS = 8_192
HANG_S = 60.0
HANG_FACTOR = 10
SLOWEST_TOKENS_PER_S = 50.0
"""Taken for the speed until the first list is back: a large model on a small CPU."""

FIRST_ANSWER_S = 600.0
"""Most that a card gets for its first list: it embedded the probe set a moment ago."""

MEMORY_WAIT_S, MEMORY_LOOK_S = 600.0, 20.0
"""How long, and how often, a restart looks for memory that others took meanwhile."""

WATCH_S = 0.1
"""How often the clock is looked at while nothing happens."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """When a list went to the engine, and the tokens that were then with it, its own included."""

    future: Future[np.ndarray]
    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the feeder did so far. `padding` is the share of the device's tokens that were none of ours."""

    tokens: int = 0
    rows: int = 0
    batches: int = 0
    device_tokens: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    duplicates_accepted: int = 0
    restarts: int = 0

    @property
    def padding(self) -> float:
        return 1.0 - self.tokens / self.device_tokens if self.device_tokens else 0.0


class Feeder:
    """See the module. Every attribute below the lock is the property of whoever holds it."""

    def __init__(
        self,
        open_engine: OpenEngine,
        *,
        on_open: Callable[[Engine], None],
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        look_ahead_tokens: int | None = None,
    ) -> None:
        self._open_engine = open_engine
        self._on_open = on_open
        self._report = report
        self._clock = clock
        self._look_ahead_tokens = look_ahead_tokens or LOOK_AHEAD_TOKENS
        self._recovery = Recovery(report=report, clock=clock)  # the thread's alone
        self._doubts = SecondLooks()  # the thread's alone
        self._lock = threading.Condition()
        self._known: set[bytes] = set()
        self._waiting: list[Row] = []
        self._waiting_tokens = 0
        self._packed: deque[Batch] = deque()
        self._alone: deque[Batch] = deque()
        self._in_flight: dict[Batch, _Sent] = {}
        self._done: list[tuple[bytes, Answer]] = []
        self._flushing = self._opening = self._closing = self._aborting = self._ended = False
        self._failure: BaseException | None = None
        self._statistics = Statistics()
        self._looked_at_s = self._last_answer_s = 0.0
        self._answered_tokens, self._answering_s = 0, 0.0  # without the silence of those that died
        self._thread = threading.Thread(target=self._main, name="embedcli-feeder", daemon=True)
        self._thread.start()

    # What the caller calls.

    def add(self, key: bytes, ids: np.ndarray) -> None:
        """Embed this row; a key that is queued, in flight or not yet collected is embedded once."""
        with self._lock:
            self._raise_failure()
            if key in self._known:
                return
            self._known.add(key)
            self._waiting.append(Row(key, ids))
            self._waiting_tokens += ids.size
            if self._waiting_tokens >= self._look_ahead_tokens or not self._in_flight:
                self._lock.notify_all()

    @property
    def full(self) -> bool:
        """Whether the look-ahead has enough: adding more only costs memory."""
        with self._lock:
            self._raise_failure()
            return self._waiting_tokens >= self._look_ahead_tokens or len(self._done) >= UNCOLLECTED_ROWS

    @property
    def outstanding(self) -> int:
        """Rows added and not yet collected."""
        with self._lock:
            self._raise_failure()
            return len(self._known)

    @property
    def statistics(self) -> Statistics:
        with self._lock:
            return self._statistics

    def finished(self, timeout: float) -> list[tuple[bytes, Answer]]:
        """The answers since the last call; waits up to `timeout` seconds for the first."""
        with self._lock:
            self._lock.wait_for(lambda: self._done or self._ended or not self._known, timeout)
            if not self._done:
                self._raise_failure()
            answers, self._done = self._done, []
            self._known.difference_update(key for key, _ in answers)
            return answers

    def flush(self) -> None:
        """No more rows come."""
        with self._lock:
            self._raise_failure()
            self._flushing = True
            self._lock.notify_all()

    def close(self, abort: bool) -> None:
        """End, and the engine is closed. Without `abort` the lists in flight are waited for; `finished` still gives
        their answers.

        An engine that is being opened has none: it is not waited for, and is closed when it comes. One that is being
        closed is: half closed, it would leave its traces behind when the process ends.
        """
        with self._lock:
            self._closing = True
            self._aborting = self._aborting or abort
            self._lock.notify_all()
            opening = self._opening
        if not opening:
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # What the thread does.

    def _main(self) -> None:
        try:
            while (engine := self._open()) is not None and not self._finished_with(engine):
                pass
        except EmbedcliError as error:
            self._failure = error
        finally:
            with self._lock:
                # Any other exception is a bug: shown here, and raised from the caller's next call.
                self._failure = self._failure or sys.exception()
                self._ended = True
                self._lock.notify_all()

    def _open(self) -> Engine | None:
        """A ready engine, None once the caller has closed. EngineDied on the way is a restart like any other.

        A device without room is waited for, except at the first start: then somebody is there to mend it.
        """
        give_up_s = self._clock() + MEMORY_WAIT_S
        while self._may_open():
            try:
                return self._open_once()
            except EngineOutOfMemory as error:
                if not self._statistics.restarts or self._clock() >= give_up_s:
                    raise
                self._report(f"the engine waits for memory: {error}")
                self._pause(MEMORY_LOOK_S)
            except EngineDied as error:
                if not self._closing:
                    self._recovery.count_restart(error)
            finally:
                with self._lock:
                    self._opening = False
        return None

    def _pause(self, seconds: float) -> None:
        until_s = self._clock() + seconds
        with self._lock:
            while not self._closing and self._clock() < until_s:
                self._lock.wait(WATCH_S)

    def _may_open(self) -> bool:
        with self._lock:
            self._opening = not self._closing
            return self._opening

    def _open_once(self) -> Engine | None:
        with ExitStack() as unless_ready:
            engine = self._open_engine()
            unless_ready.callback(engine.close)
            if self._closing:
                return None
            self._on_open(engine)
            unless_ready.pop_all()
        return engine

    def _finished_with(self, engine: Engine) -> bool:
        """Feed until the caller closes (True) or the engine died (False: open another)."""
        with self._lock:
            self._looked_at_s = self._last_answer_s = self._clock()
        try:
            while self._step(engine):
                pass
            return True
        except EngineDied as error:
            with self._lock:
                self._condemn(engine, error)
                self._statistics = replace(self._statistics, restarts=self._statistics.restarts + 1)
            if not self._closing:
                self._recovery.count_restart(error)
            return self._closing
        finally:
            engine.close()

    def _step(self, engine: Engine) -> bool:
        """Collect what is done, send what may be sent, or wait; False when the caller closed."""
        with self._lock:
            self._account()
            done = [(batch, sent.future) for batch, sent in self._in_flight.items() if sent.future.done()]
            if not done:
                to_send = [] if self._closing else self._next_lists(engine)
                if not to_send:
                    return self._wait(engine)
        for batch, future in sorted(done, key=lambda pair: pair[1].exception() is not None):
            self._collect(engine, batch, future.result())  # the sound ones first: a death condemns the rest
        if not done:
            self._send(engine, to_send)
        return True

    def _wait(self, engine: Engine) -> bool:
        if self._closing and (self._aborting or not self._in_flight):
            return False
        self._check_hang(engine)
        self._lock.wait(WATCH_S)
        return True

    def _next_lists(self, engine: Engine) -> list[Batch]:
        """Suspects go alone, and before anything else; otherwise up to `depth` lists are kept submitted."""
        if self._alone:
            return [] if self._in_flight else [self._alone.popleft()]
        depth = 1 if self._recovery.cautious else engine.depth
        if any(batch.kind != "list" for batch in self._in_flight) or len(self._in_flight) >= depth:
            return []
        if not self._packed and self._waiting and self._may_pack(depth):
            self._packed.extend(self._recovery.pack(self._take_waiting(engine), engine))
        count = min(depth - len(self._in_flight), len(self._packed))
        return [self._packed.popleft() for _ in range(count)]

    def _take_waiting(self, engine: Engine) -> list[Row]:
        """Those that wait, but for what no engine takes: that is answered here."""
        waiting, self._waiting, self._waiting_tokens = self._waiting, [], 0
        problems = {row.key: problem for row in waiting if (problem := row_problem(row.ids, engine))}
        for problem in dict.fromkeys(problems.values()):
            self._report(f"a chunk is left out: {problem}; `embedcli status --failed` names its source")
        self._done += [(key, "bad_tokens") for key in problems]
        self._lock.notify_all()
        return [row for row in waiting if row.key not in problems]

    def _may_pack(self, depth: int) -> bool:
        """A full look-ahead packs best, but the device never waits for one."""
        enough = self._flushing or self._waiting_tokens >= self._look_ahead_tokens
        return enough or len(self._in_flight) <= depth // 2

    def _send(self, engine: Engine, lists: Sequence[Batch]) -> None:
        for batch in lists:
            rows = [row.ids for row in batch.rows]
            with self._lock:
                now = self._clock()
                if not self._in_flight:
                    self._last_answer_s = now
                tokens = batch.tokens + sum(other.tokens for other in self._in_flight)
                self._in_flight[batch] = sent = _Sent(_submit(engine, rows), now, tokens)
            sent.future.add_done_callback(self._wake)

    def _wake(self, _: Future[np.ndarray]) -> None:
        with self._lock:
            self._lock.notify_all()

    def _collect(self, engine: Engine, batch: Batch, delivered: np.ndarray) -> None:
        if delivered.shape != (len(batch.rows), engine.dim):
            raise EngineDied(f"the engine gave {list(delivered.shape)} for {len(batch.rows)} rows")
        verdict = self._doubts.judge(batch, delivered)
        self._recovery.note_answer(batch)
        with self._lock:
            del self._in_flight[batch]
            now = self._clock()
            self._answered_tokens += batch.tokens
            self._answering_s += now - self._last_answer_s
            self._last_answer_s = now
            self._alone.extend(verdict.second_looks)
            self._done += verdict.answers
            self._count(engine, batch, verdict.duplicates_accepted)
            self._lock.notify_all()

    def _count(self, engine: Engine, batch: Batch, duplicates_accepted: int) -> None:
        old, first_look = self._statistics, batch.kind != "second_look"
        self._statistics = replace(
            old,
            tokens=old.tokens + (batch.tokens if first_look else 0),
            rows=old.rows + (len(batch.rows) if first_look else 0),
            batches=old.batches + 1,
            device_tokens=old.device_tokens + batch.cost(padded=engine.padded),
            duplicates_accepted=old.duplicates_accepted + duplicates_accepted,
        )

    def _account(self) -> None:
        now = self._clock()
        elapsed, self._looked_at_s = now - self._looked_at_s, now
        if self._in_flight:
            self._statistics = replace(self._statistics, busy_s=self._statistics.busy_s + elapsed)
        else:
            self._statistics = replace(self._statistics, idle_s=self._statistics.idle_s + elapsed)

    def _check_hang(self, engine: Engine) -> None:
        """Each list has its own time: one card that hangs is not hidden by another that answers."""
        now = self._clock()
        for sent in self._in_flight.values():
            if now - sent.at_s > self._patience_s(engine, sent.tokens):
                raise EngineDied(f"the engine has not answered for {now - sent.at_s:.0f} s")

    def _patience_s(self, engine: Engine, tokens: int) -> float:
        if self._answered_tokens:
            return max(HANG_S, HANG_FACTOR * tokens * self._answering_s / self._answered_tokens)
        patience_s = max(HANG_S, HANG_FACTOR * tokens / SLOWEST_TOKENS_PER_S)
        return min(patience_s, FIRST_ANSWER_S) if engine.device.startswith("cuda") else patience_s

    def _condemn(self, engine: Engine, error: EngineDied) -> None:
        """The engine is dead: its lists go one at a time, or smaller."""
        lists, self._in_flight = list(self._in_flight), {}
        if isinstance(error, EngineOutOfMemory):
            again, aside = self._recovery.after_out_of_memory(lists, engine) if lists else ([], [])
            later = self._recovery.repack([*self._alone], engine)
            self._packed = deque(self._recovery.repack([*self._packed], engine))
        else:
            (again, aside), later = self._recovery.after_death(lists), list(self._alone)
        self._alone = deque([*again, *later])
        self._done += [(row.key, "engine_killed") for row in aside]
        self._lock.notify_all()


def _submit(engine: Engine, rows: list[np.ndarray]) -> Future[np.ndarray]:
    """A death while sending is a death of what is sent: one path for both."""
    try:
        return engine.submit(rows)
    except EngineDied as error:
        future: Future[np.ndarray] = Future()
        future.set_exception(error)
        return future
