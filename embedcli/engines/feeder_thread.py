"""The thread of a feeder: it opens the engine, sends batches, collects answers, and after a death opens another engine.

In: the state that it shares with the caller (feeder_state.py). Out: answers in that state; at its end the exception
that ended it. Only this thread calls the engine.
Not here: who is suspected after a death (recovery.py), which vectors are doubted (second_look.py).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack

import numpy as np

from embedcli.engines.contract import Engine, OpenEngine, Refusal, ids_problem
from embedcli.engines.feeder_state import FeederState
from embedcli.engines.recovery import Batch, Queued, Recovery
from embedcli.engines.second_look import SecondLooks
from embedcli.errors import EmbedcliError, EngineDied, EngineOutOfMemory

MEMORY_WAIT_S, MEMORY_LOOK_S = 600.0, 20.0
"""How long a restart waits for memory that another process took meanwhile, and how often it tries."""

WATCH_S = 0.1
"""How often the thread looks at the clock while nothing happens."""


class EngineOwner:
    """The owner of the engine. It opens, closes and waits for no engine while it holds the lock of the state."""

    def __init__(
        self,
        state: FeederState,
        open_engine: OpenEngine,
        *,
        on_open: Callable[[Engine], None],
        report: Callable[[str], None],
        clock: Callable[[], float],
        seconds_left: Callable[[], float],
    ) -> None:
        self._state = state
        self._open_engine = open_engine
        self._on_open = on_open
        self._report = report
        self._clock = clock
        self._seconds_left = seconds_left
        self._recovery = Recovery(report=report, clock=clock)
        self._second_looks = SecondLooks()

    def run(self) -> None:
        """The thread's life: one engine after the other, until the caller closes or no engine can go on."""
        stage = self._state.stage
        try:
            while (engine := self._open()) is not None and not self._finished_with(engine):
                pass
        except EmbedcliError as error:
            stage.failure = error
        finally:
            with self._state.lock:
                # any other exception is a bug: Python shows it here, and the caller's next call raises it
                stage.failure = stage.failure or sys.exception()
                stage.ended = True
                self._state.lock.notify_all()

    # Opening.

    def _open(self) -> Engine | None:
        """A ready engine, or None once the caller has closed. EngineDied on the way counts as a restart.

        Where the device has no room, wait for it, except at the first start: then somebody is there to make room.
        """
        give_up_s = self._clock() + MEMORY_WAIT_S
        while self._may_open():
            try:
                return self._open_once()
            except EngineOutOfMemory as error:
                if not self._state.meter.statistics.restarts or self._clock() >= give_up_s:
                    raise
                self._report(f"the engine waits for memory: {error}")
                self._pause(MEMORY_LOOK_S)
            except EngineDied as error:
                if not self._state.stage.closing:
                    self._recovery.count_restart(error)
            finally:
                with self._state.lock:
                    self._state.stage.opening = False
        return None

    def _pause(self, seconds: float) -> None:
        until_s = self._clock() + seconds
        with self._state.lock:
            while not self._state.stage.closing and self._clock() < until_s:
                self._state.lock.wait(WATCH_S)

    def _may_open(self) -> bool:
        with self._state.lock:
            self._state.stage.opening = not self._state.stage.closing
            return self._state.stage.opening

    def _open_once(self) -> Engine | None:
        with ExitStack() as unless_ready:
            engine = self._open_engine()
            unless_ready.callback(engine.close)
            if self._state.stage.closing:
                return None
            self._on_open(engine)
            unless_ready.pop_all()
        return engine

    # Feeding.

    def _finished_with(self, engine: Engine) -> bool:
        """Feed until the caller closes (True) or the engine died (False: open another)."""
        state = self._state
        with state.lock:
            now_s = self._clock()
            state.meter.begin(now_s)
            state.pace.begin(now_s)
            state.waiting.batch_tokens = engine.batch_tokens
        try:
            while self._step(engine):
                pass
            return True
        except EngineDied as error:
            with state.lock:
                self._condemn(engine, error)
                state.meter.note_restart()
            if not state.stage.closing:
                self._recovery.count_restart(error)
            return state.stage.closing
        finally:
            engine.close()

    def _step(self, engine: Engine) -> bool:
        """Collect what is answered, or else send what may be sent, or else wait; False when the caller closed."""
        state = self._state
        with state.lock:
            state.meter.note_time(self._clock(), busy=bool(state.batches.in_flight))
            done = state.batches.done()
            if not done:
                to_send = [] if state.stage.closing else self._next_batches(engine)
                if not to_send:
                    return self._wait(engine)
        # answers first: the exception of a failed batch condemns all that are then in flight
        for batch, future in sorted(done, key=lambda pair: pair[1].exception() is not None):
            self._collect(engine, batch, future.result())
        if not done:
            self._send(engine, to_send)
        return True

    def _wait(self, engine: Engine) -> bool:
        stage = self._state.stage
        if stage.closing and (stage.aborting or not self._state.batches.in_flight):
            return False
        self._check_hang(engine)
        self._state.lock.wait(WATCH_S)
        return True

    def _next_batches(self, engine: Engine) -> list[Batch]:
        """Suspects and second looks go alone, before anything else; otherwise up to `depth` batches are in flight."""
        batches = self._state.batches
        if batches.alone:
            return [] if batches.in_flight or not self._in_time(batches.alone[0].tokens) else [batches.alone.popleft()]
        depth = 1 if self._recovery.cautious else engine.depth
        if any(batch.kind != "ordinary" for batch in batches.in_flight) or len(batches.in_flight) >= depth:
            return []
        if not batches.packed and self._state.waiting and self._may_pack(depth):
            batches.packed.extend(self._recovery.pack(self._take_waiting(engine), engine))
        return batches.next_to_send(depth, self._in_time)

    def _in_time(self, tokens: int) -> bool:
        """Whether the engine answers so many tokens in the time that is left, if it is as fast as before."""
        return self._state.pace.answer_s(tokens) <= self._seconds_left()

    def _take_waiting(self, engine: Engine) -> list[Queued]:
        """The chunks that wait, without those that no engine takes: these get their answer here."""
        chunks = self._state.waiting.take()
        problems = {chunk.key: problem for chunk in chunks if (problem := ids_problem(chunk.ids, engine))}
        for problem in dict.fromkeys(problems.values()):
            self._report(f"a chunk is left out: {problem}; `embedcli status --failed` names its source")
        self._state.answers.add((key, Refusal("bad_tokens")) for key in problems)
        self._state.lock.notify_all()
        return [chunk for chunk in chunks if chunk.key not in problems]

    def _may_pack(self, depth: int) -> bool:
        """A full look-ahead packs best, but the device never waits for one."""
        enough = self._state.stage.flushing or self._state.waiting.full
        return enough or len(self._state.batches.in_flight) <= depth // 2

    def _send(self, engine: Engine, batches: Sequence[Batch]) -> None:
        state = self._state
        for batch in batches:
            with state.lock:
                now_s = self._clock()
                if not state.batches.in_flight:
                    state.pace.begin(now_s)
                future = _submit(engine, [chunk.ids for chunk in batch.chunks])
                state.batches.send(batch, future, now_s)
            future.add_done_callback(self._wake)

    def _wake(self, _: Future[np.ndarray]) -> None:
        with self._state.lock:
            self._state.lock.notify_all()

    def _collect(self, engine: Engine, batch: Batch, delivered: np.ndarray) -> None:
        if delivered.shape != (len(batch.chunks), engine.dim):
            raise EngineDied(f"the engine gave {list(delivered.shape)} for {len(batch.chunks)} chunks")
        judged = self._second_looks.judge(batch, delivered)
        self._recovery.note_answer(batch)
        state = self._state
        with state.lock:
            del state.batches.in_flight[batch]
            state.pace.note_answer(batch.tokens, self._clock())
            state.batches.alone.extend(judged.second_looks)
            state.answers.add(judged.answers)
            state.meter.note_batch(engine, batch, judged.duplicates_accepted)
            state.lock.notify_all()

    # Deaths.

    def _check_hang(self, engine: Engine) -> None:
        """Each batch has a time limit of its own: a card that hangs is not hidden by another card that answers."""
        now_s = self._clock()
        for sent in self._state.batches.in_flight.values():
            if now_s - sent.at_s > self._state.pace.patience_s(engine.device, sent.tokens):
                raise EngineDied(f"the engine has not answered for {now_s - sent.at_s:.0f} s")

    def _condemn(self, engine: Engine, error: EngineDied) -> None:
        """The engine is dead: its batches are to be sent again, one at a time or smaller."""
        batches = self._state.batches
        lost, batches.in_flight = list(batches.in_flight), {}
        if isinstance(error, EngineOutOfMemory):
            again, aside = self._recovery.after_out_of_memory(lost, engine) if lost else ([], [])
            later = self._recovery.repack([*batches.alone], engine)
            batches.packed = deque(self._recovery.repack([*batches.packed], engine))
        else:
            (again, aside), later = self._recovery.after_death(lost), list(batches.alone)
        batches.alone = deque([*again, *later])
        self._state.answers.add((chunk.key, Refusal("engine_killed")) for chunk in aside)
        self._state.lock.notify_all()


def _submit(engine: Engine, batch: list[np.ndarray]) -> Future[np.ndarray]:
    """Submit; where the engine dies of it, the future has the exception: one path for both kinds of death."""
    try:
        return engine.submit(batch)
    except EngineDied as error:
        future: Future[np.ndarray] = Future()
        future.set_exception(error)
        return future
