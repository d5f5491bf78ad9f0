"""The texts of all requests through one Feeder: packed into the same batches, and given back to whoever asked.

In: rows of token ids, request by request, from coroutines of one event loop. Out: the answer for each row. Requests
take turns, row by row, so that a single text never waits for a list of thousands; a request whose client has left gives
up its place. When an engine dies, the Feeder opens another and nobody notices but new requests, which are told to
come again; when the Feeder gives up, every request is told so, and another Feeder is opened a little later.
Not here: who waits for what (waiting.py), checks and restarts (engines/feeder.py), tokens (served.py).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from embedcli.engines.contract import Answer, Engine, OpenEngine
from embedcli.engines.feeder import Feeder
from embedcli.errors import EmbedcliError
from embedcli.report import Say
from embedcli.serving.answers import Problem
from embedcli.serving.waiting import Book, Load, Request

AHEAD_BATCHES = 8
"""How many batches of rows the Feeder has to sort by length. More would pad less, but a new request waits for all."""

WAKE_S = 0.2
LOADING_S, RESTARTING_S = 10, 15
"""When a client should come again while the engine is being opened."""

PAUSES_S = (5.0, 15.0, 60.0)
"""Between a Feeder that gave up and the next one."""


class Batcher:
    """Made and awaited in the event loop. Its stage is `loading`, `ready`, `restarting` or `failed`."""

    def __init__(
        self,
        open_engine: OpenEngine,
        check: Callable[[Engine], None],
        *,
        queue_tokens: int,
        say: Say,
        on_end: Callable[[BaseException], None],
    ) -> None:
        """`on_end` is called in the loop where no engine can be opened at first, or with a bug."""
        self._open_engine = open_engine
        self._check = check
        self._say = say
        self._on_end = on_end
        self._queue_tokens = queue_tokens
        self._loop = asyncio.get_running_loop()
        self._book = Book()
        self._feeder = self._make_feeder()
        self._thread = threading.Thread(target=self._run, name="embedcli-batcher", daemon=True)
        self._thread.start()

    @property
    def load(self) -> Load:
        with self._book.lock:
            return self._book.load()

    async def embed(self, rows: Sequence[np.ndarray]) -> list[Answer]:
        """The answer for each row of token ids (uint32). Raises Problem 429, 503. Cancelled, it leaves its place."""
        book = self._book
        request = Request(
            rows, self._loop.create_future(), [None] * len(rows), sum(row.size for row in rows), lacks=len(rows)
        )
        with book.lock:
            self._admit(request)
            book.add(request)
            book.fill(self._feeder)
        try:
            return await request.future
        finally:
            with book.lock:
                book.forget(request)

    def retire(self) -> None:
        """Take no new requests: another batcher will."""
        with self._book.lock:
            self._book.stage.retired = True

    def close(self) -> None:
        """End the engine; nothing is waited for."""
        with self._book.lock:
            self._book.closing = True
            self._book.lock.notify_all()
        self._feeder.close(abort=True)
        self._thread.join()

    def _admit(self, request: Request) -> None:
        book = self._book
        if book.closing or book.stage.retired or book.stage.name != "ready":
            raise _not_ready("loading" if book.stage.retired else book.stage.name, book.stage.detail)
        if book.tokens and book.tokens + request.tokens > self._queue_tokens:
            raise Problem(
                429,
                f"{book.tokens:,} tokens are waiting, {self._queue_tokens:,} may (`--max-queue`)",
                code="queue_full",
                retry_after_s=book.seconds_of(book.tokens),
            )

    def _make_feeder(self) -> Feeder:
        return Feeder(self._open, on_open=self._opened, report=self._say)

    def _open(self) -> Engine:
        with self._book.lock:
            stage = self._book.stage
            if stage.name == "ready":
                stage.name, stage.restarts = "restarting", stage.restarts + 1
        return self._open_engine()

    def _opened(self, engine: Engine) -> None:
        self._check(engine)
        with self._book.lock:
            self._book.ahead_tokens = AHEAD_BATCHES * engine.batch_tokens
            self._book.stage.name = "ready"

    # The thread: what the Feeder answers.

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            while not self._book.closing:
                end = self._collect()
                if end is not None and not self._begin_again(end):
                    break
        finally:
            end = sys.exception() or end
            self._give(self._book.fail_all())
            if end is not None and not self._book.closing:
                self._call(self._on_end, end)

    def _collect(self) -> EmbedcliError | None:
        """Collect until the end (None), or until the Feeder gives up."""
        book = self._book
        while True:
            with book.lock:
                if not book.awaited and not book.closing:
                    book.lock.wait(WAKE_S)
                if book.closing:
                    return None
            try:
                answers = self._feeder.finished(WAKE_S if book.awaited else 0.0)
            except EmbedcliError as error:
                return error
            with book.lock:
                done = book.take(answers)
                book.fill(self._feeder)
            self._give(done)

    def _begin_again(self, error: EmbedcliError) -> bool:
        """Tell every request, wait a little, and open a Feeder; False where there was never an engine."""
        book = self._book
        with book.lock:
            stage = book.stage
            first = stage.name == "loading"
            stage.name, stage.detail = "failed", str(error)
            failed = book.fail_all()
            pause_s = PAUSES_S[min(stage.failures, len(PAUSES_S) - 1)]
            stage.failures, stage.restarts = stage.failures + 1, stage.restarts + 1
        self._give(failed)
        if first:
            return False
        self._say(f"the engine does not start again: {error}; another try in {pause_s:.0f} s")
        with book.lock:
            book.lock.wait_for(lambda: book.closing, pause_s)
            if not book.closing:
                stage.name = "restarting"
                self._feeder = self._make_feeder()
        return True

    def _give(self, done: Iterable[Request]) -> None:
        requests = list(done)
        if requests:
            self._call(_resolve, requests, self._book.stage.detail)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _resolve(requests: Sequence[Request], detail: str) -> None:
    """In the loop: each gets its answers, or the reason why there are none."""
    for request in requests:
        if request.future.done():
            continue
        if request.lacks:
            request.future.set_exception(_not_ready("failed", detail))
        else:
            request.future.set_result([answer for answer in request.answers if answer is not None])


def _not_ready(state: str, detail: str) -> Problem:
    sentences = {
        "loading": "the model is being loaded",
        "restarting": "the engine is being started again",
        "failed": f"there is no engine at the moment: {detail}",
    }
    after_s = LOADING_S if state == "loading" else RESTARTING_S
    return Problem(
        503, sentences.get(state, "the server is being stopped"), code="engine_not_ready", retry_after_s=after_s
    )
