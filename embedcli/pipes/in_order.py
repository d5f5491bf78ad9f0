"""Texts through the engine: read ahead, prepared, fed to the Feeder that `ingest` uses, and out in the order given.

In: a reader of texts, what prepares them, an opener of a Feeder. Out: batches of texts whose every part has its answer,
the first ones long before the last text is read.
Not here: reading (texts.py), tokens (prepare.py), checks and restarts (engines/feeder.py), writing (output.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import numpy as np

from embedcli.engines.contract import Answer
from embedcli.engines.feeder import Feeder
from embedcli.pipes.prepare import Prepared
from embedcli.pipes.texts import Text

PENDING_BYTES = 64 << 20
"""Vectors that may wait for an earlier text's vector: the bound of memory where texts are short and vectors wide."""

ANSWER_WAIT_S = 0.02
TEXT_WAIT_S = 0.2


class Source(Protocol):
    """Batches of texts (texts.Ahead, or a double)."""

    done: bool

    def get(self, timeout: float) -> list[Text]: ...


@dataclass(slots=True)
class Pending:
    """A text on its way: an answer for each part, None as long as it is awaited; `lacks` counts those."""

    prepared: Prepared
    answers: list[Answer | None] = field(default_factory=list)
    lacks: int = 0


class InOrder:
    """Iterate to embed. Raises what the Feeder and the source raise. Close it in any case."""

    def __init__(
        self,
        source: Source,
        prepare: Callable[[Sequence[Text]], list[Prepared]],
        open_feeder: Callable[[], Feeder],
        *,
        dim: int,
        stop_if_asked: Callable[[], None],
    ) -> None:
        """`open_feeder` is called when the first text needs a vector."""
        self._source = source
        self._prepare = prepare
        self._open_feeder = open_feeder
        self._stop_if_asked = stop_if_asked
        self._most_parts = max(1024, PENDING_BYTES // (4 * dim))
        self._feeder: Feeder | None = None
        self._flushed = False
        self._queue: deque[Pending] = deque()
        self._parts = 0
        self._awaited: dict[bytes, list[tuple[Pending, int]]] = {}

    def __iter__(self) -> Iterator[list[Pending]]:
        while self._queue or not self._source.done:
            self._stop_if_asked()
            took = self._take() if self._has_room else False
            if self._source.done and self._feeder is not None and not self._flushed:
                self._feeder.flush()
                self._flushed = True
            self._collect(0.0 if took else ANSWER_WAIT_S)
            if ready := list(self._ready()):
                yield ready

    def close(self) -> None:
        """End the engine; no batch is waited for."""
        if self._feeder is not None:
            self._feeder.close(abort=True)

    @property
    def tokens(self) -> int:
        """Tokens embedded so far."""
        return self._feeder.statistics.tokens if self._feeder is not None else 0

    @property
    def _has_room(self) -> bool:
        """Whether another batch may be read: else it would only cost memory."""
        full = self._feeder is not None and self._feeder.full
        return not self._source.done and not full and self._parts < self._most_parts

    def _take(self) -> bool:
        """Send the next texts that have come; wait for them where nothing else is to be done."""
        batch = self._source.get(0.0 if self._queue else TEXT_WAIT_S)
        for prepared in self._prepare(batch) if batch else ():
            pending = Pending(prepared, [None] * len(prepared.parts), len(prepared.parts))
            self._queue.append(pending)
            self._parts += pending.lacks
            for number, part in enumerate(prepared.parts):
                self._ask(pending, number, part.ids)
        return bool(batch)

    def _ask(self, pending: Pending, number: int, ids: np.ndarray) -> None:
        """A text that comes again while its vector is awaited is not sent again."""
        if self._feeder is None:
            self._feeder = self._open_feeder()
        key = blake2b(ids.tobytes(), digest_size=16).digest()
        places = self._awaited.setdefault(key, [])
        if not places:
            self._feeder.add(key, ids)
        places.append((pending, number))

    def _collect(self, timeout: float) -> None:
        if self._feeder is None:
            return
        for key, answer in self._feeder.finished(timeout):
            for pending, number in self._awaited.pop(key):
                pending.answers[number] = answer
                pending.lacks -= 1

    def _ready(self) -> Iterator[Pending]:
        """The first texts of the queue, as far as they are complete."""
        while self._queue and not self._queue[0].lacks:
            pending = self._queue.popleft()
            self._parts -= len(pending.answers)
            yield pending
