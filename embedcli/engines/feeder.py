"""Keeps an engine busy, checks its vectors, and outlives its death.

In: the token ids of chunks under the caller's keys, while the engine may still be loading. Out: for each key its
vector, or a Refusal (`bad_tokens`, `bad_vector`, `engine_killed`). One thread owns the engine; `add` never waits.
Not here: what that thread does (feeder_thread.py), what both sides share (feeder_state.py), which batch is suspected
after a death (recovery.py), which vectors are doubted (second_look.py), the vectors of earlier runs (run/pending.py).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import numpy as np

from embedcli.config import FEEDER_THREAD
from embedcli.engines.contract import Answer, Engine, OpenEngine
from embedcli.engines.feeder_state import FeederState, Statistics
from embedcli.engines.feeder_thread import EngineOwner
from embedcli.engines.recovery import Queued

LOOK_AHEAD_TOKENS = 1 << 18
"""1 MiB of ids: 100 batches of a CPU to sort by length, 16 of a GPU."""


class Feeder:
    """The caller's side. Every method but `close` raises what ended the thread, EmbedcliError or a bug."""

    def __init__(
        self,
        open_engine: OpenEngine,
        *,
        on_open: Callable[[Engine], None],
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        seconds_left: Callable[[], float] = lambda: math.inf,
        look_ahead_tokens: int | None = None,
    ) -> None:
        """`on_open` checks each engine before it gets a batch; `report` takes lines for people. No batch is sent that
        the engine, as fast as it has been so far, would not answer in the seconds that are left."""
        self._state = FeederState(look_ahead_tokens=look_ahead_tokens or LOOK_AHEAD_TOKENS)
        owner = EngineOwner(
            self._state, open_engine, on_open=on_open, report=report, clock=clock, seconds_left=seconds_left
        )
        self._thread = threading.Thread(target=owner.run, name=FEEDER_THREAD, daemon=True)
        self._thread.start()

    def add(self, key: bytes, ids: np.ndarray) -> None:
        """Embed this chunk, unless an answer for its key is already awaited. `ids`: uint32 [tokens]."""
        state = self._state
        with state.lock:
            state.stage.raise_failure()
            if not state.answers.expect(key):
                return
            if state.waiting.add(Queued(key, ids)) or not state.batches.in_flight:
                state.lock.notify_all()

    @property
    def full(self) -> bool:
        """Whether enough chunks wait, or enough answers: adding more only costs memory."""
        with self._state.lock:
            self._state.stage.raise_failure()
            return self._state.waiting.full or self._state.answers.full

    @property
    def statistics(self) -> Statistics:
        with self._state.lock:
            return self._state.meter.statistics

    def finished(self, timeout: float) -> list[tuple[bytes, Answer]]:
        """Collect the answers since the last call, waiting up to `timeout` seconds for the first."""
        state = self._state
        with state.lock:
            state.lock.wait_for(
                lambda: state.answers.any_ready or state.stage.ended or state.answers.all_collected, timeout
            )
            if not state.answers.any_ready:
                state.stage.raise_failure()
            return state.answers.collect()

    def flush(self) -> None:
        """Say that no more chunks will be added: the last ones are sent without waiting for a full look-ahead."""
        with self._state.lock:
            self._state.stage.raise_failure()
            self._state.stage.flushing = True
            self._state.lock.notify_all()

    def close(self, abort: bool, *, within_s: float | None = None) -> None:
        """End the thread and close the engine. Without `abort` the batches in flight are waited for, at most `within_s`
        seconds; `finished` still gives their answers.

        While an engine is still opening there is nothing in flight: do not wait, the thread closes it as soon as it is
        ready. While one is closing, do wait: a half-closed engine leaves files and processes behind.
        """
        stage = self._state.stage
        with self._state.lock:
            stage.closing = True
            stage.aborting = stage.aborting or abort
            self._state.lock.notify_all()
            opening = stage.opening
        if opening:
            return
        self._thread.join(within_s)
        with self._state.lock:
            stage.aborting = True
            self._state.lock.notify_all()
        self._thread.join()
