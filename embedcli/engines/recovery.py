"""What an engine's death means for the batches that were in it: which are suspected, cut in parts, or set aside.

In: the batches in flight when the engine died, hung or ran out of memory. Out: the batches to send again, one at a
time; the chunks set aside; the token budget of a batch; EngineError when another restart makes no sense.
Not here: noticing the death, restarting, sending (feeder_thread.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from embedcli.engines.contract import Engine, batch_cost, pack
from embedcli.engines.probe import PROBE_LONGEST_TOKENS
from embedcli.errors import EngineError

CUT_INTO = 8
SET_ASIDE_LIMIT = 5
RESTARTS_LIMIT = 3
CLEAN_S = 600.0


@dataclass(frozen=True, slots=True)
class Queued:
    """One chunk on its way to the engine: the caller's key, and its token ids (uint32 [tokens])."""

    key: bytes
    ids: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Chunks that the engine gets in one call.

    A `suspect` was in an engine that died; a `second_look` is one chunk whose vector is in doubt. Both are sent alone.
    """

    chunks: tuple[Queued, ...]
    kind: Literal["ordinary", "suspect", "second_look"] = "ordinary"

    @property
    def tokens(self) -> int:
        return sum(chunk.ids.size for chunk in self.chunks)

    def cost(self, *, padded: bool) -> int:
        return batch_cost([chunk.ids.size for chunk in self.chunks], padded=padded)


class Recovery:
    """The failures of one run so far. Only the feeder's thread uses it."""

    def __init__(self, *, report: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._restarts = 0
        self._set_aside = 0
        self._halvings = 0
        self._most_answered_tokens = PROBE_LONGEST_TOKENS  # every engine that gets here has embedded the probe set
        self._clean_since = 0.0

    @property
    def cautious(self) -> bool:
        """Whether batches go one at a time: after an out of memory, since SGLang would join them into larger ones."""
        return self._halvings > 0

    def budget_tokens(self, engine: Engine) -> int:
        """The most tokens of one batch now; ten minutes without an out of memory double it, up to the engine's own."""
        if self._halvings and self._clock() - self._clean_since >= CLEAN_S:
            self._halvings -= 1
            self._clean_since = self._clock()
            self._report("ten minutes without running out of memory: batches are doubled")
        return max(1, engine.batch_tokens >> self._halvings)

    def pack(self, chunks: Sequence[Queued], engine: Engine) -> list[Batch]:
        """Batches of these chunks, each within the present budget."""
        packed = pack(
            [chunk.ids.size for chunk in chunks],
            batch_tokens=self.budget_tokens(engine),
            batch_rows=engine.batch_rows,
            padded=engine.padded,
        )
        return [Batch(tuple(chunks[index] for index in indices)) for indices in packed]

    def note_answer(self, batch: Batch) -> None:
        """The engine answered this batch."""
        self._most_answered_tokens = max(self._most_answered_tokens, batch.tokens)
        self._note_progress()

    def _note_progress(self) -> None:
        """A batch was answered, or a suspect is smaller than it was."""
        self._restarts = 0

    def count_restart(self, cause: EngineError) -> None:
        """Note one more restart. Raises EngineError after three restarts without progress between them."""
        self._restarts += 1
        if self._restarts > RESTARTS_LIMIT:
            raise EngineError(
                f"the engine was restarted {RESTARTS_LIMIT} times without progress: {cause}",
                cause.hint or "run the same command again: it goes on where it stopped",
            ) from cause
        self._report(f"the engine is restarted: {cause}")

    def after_death(self, batches: Sequence[Batch]) -> tuple[list[Batch], list[Queued]]:
        """(batches to send alone, chunks set aside). Only a batch that was sent alone gets a strike."""
        if self._was_alone(batches):
            return self._strike(batches[0])
        return [_suspect(batch) for batch in batches], []

    def after_out_of_memory(self, batches: Sequence[Batch], engine: Engine) -> tuple[list[Batch], list[Queued]]:
        """Like after_death, but a batch that can still be split gets no strike: the budget is halved.

        Nor does a chunk that fitted before: another process has taken the memory.
        """
        self._clean_since = self._clock()
        if self._was_alone(batches) and len(batches[0].chunks) == 1:
            fits = batches[0].tokens <= self._most_answered_tokens
            return ([*batches], []) if fits else self._strike(batches[0])
        largest = max(batch.cost(padded=engine.padded) for batch in batches)
        self._halvings += 1
        while 1 < largest <= self.budget_tokens(engine):
            self._halvings += 1
        self._report(f"out of memory: batches of {self.budget_tokens(engine):,} tokens from now on")
        again = self.repack(batches, engine)
        if len(again) > len(batches):
            self._note_progress()
        return [_suspect(batch) for batch in again], []

    def repack(self, batches: Sequence[Batch], engine: Engine) -> list[Batch]:
        """Split each batch so that its parts are within the present budget; the parts keep its kind."""
        return [replace(part, kind=batch.kind) for batch in batches for part in self.pack(batch.chunks, engine)]

    def _was_alone(self, batches: Sequence[Batch]) -> bool:
        """Whether one batch was sent alone, and is not merely the last one of several that is still unanswered."""
        return len(batches) == 1 and batches[0].kind != "ordinary"

    def _strike(self, suspect: Batch) -> tuple[list[Batch], list[Queued]]:
        """Cut the batch that killed the engine in eight; set its chunk aside where it holds only one."""
        self._note_progress()
        count = len(suspect.chunks)
        if count > 1:
            size = -(-count // CUT_INTO)
            cuts = [suspect.chunks[start : start + size] for start in range(0, count, size)]
            return [Batch(cut, "suspect") for cut in cuts], []
        self._set_aside += 1
        if self._set_aside > SET_ASIDE_LIMIT:
            raise EngineError(
                f"the engine died of more than `{SET_ASIDE_LIMIT}` single chunks: the engine is at fault, not they",
                "run the same command again: it goes on where it stopped",
            )
        self._report(f"a chunk of {suspect.tokens:,} tokens kills the engine and is set aside")
        return [], [suspect.chunks[0]]


def _suspect(batch: Batch) -> Batch:
    return batch if batch.kind == "second_look" else replace(batch, kind="suspect")
