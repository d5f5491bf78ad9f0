"""What an engine's death means for the lists that were in it: who is suspected, cut, set aside.

In: the lists in flight when the engine died, hung or ran out of memory. Out: the lists to send again, one at
a time; the rows set aside; the token budget; EngineError when it makes no sense to go on.
Not here: noticing the death, restarting, sending (feeder.py).
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
class Row:
    """One row on its way. `key` is the caller's."""

    key: bytes
    ids: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows sent to the engine as one list.

    A suspect was in an engine that died; a second look is one row whose vector was doubted. Both go alone.
    """

    rows: tuple[Row, ...]
    kind: Literal["list", "suspect", "second_look"] = "list"

    @property
    def tokens(self) -> int:
        return sum(row.ids.size for row in self.rows)

    def cost(self, *, padded: bool) -> int:
        return batch_cost([row.ids.size for row in self.rows], padded=padded)


class Recovery:
    """The memory of one run's failures. Used by the feeder's thread alone."""

    def __init__(self, *, report: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._restarts = 0
        self._set_aside = 0
        self._halvings = 0
        self._most_answered_tokens = PROBE_LONGEST_TOKENS  # no engine gets here that did not embed that
        self._clean_since = 0.0

    @property
    def cautious(self) -> bool:
        """After an out of memory one list at a time: an engine that batches anew (SGLang) keeps to it too."""
        return self._halvings > 0

    def budget_tokens(self, engine: Engine) -> int:
        """The token budget of one list now; ten clean minutes double it, up to the engine's own."""
        if self._halvings and self._clock() - self._clean_since >= CLEAN_S:
            self._halvings -= 1
            self._clean_since = self._clock()
            self._report("ten minutes without running out of memory: batches are doubled")
        return max(1, engine.batch_tokens >> self._halvings)

    def pack(self, rows: Sequence[Row], engine: Engine) -> list[Batch]:
        """The rows as lists within the budget of now."""
        packed = pack(
            [row.ids.size for row in rows],
            batch_tokens=self.budget_tokens(engine),
            batch_rows=engine.batch_rows,
            padded=engine.padded,
        )
        return [Batch(tuple(rows[index] for index in batch)) for batch in packed]

    def note_answer(self, batch: Batch) -> None:
        """A list came back."""
        self._most_answered_tokens = max(self._most_answered_tokens, batch.tokens)
        self._note_progress()

    def _note_progress(self) -> None:
        """A list came back, or a suspect is smaller than it was."""
        self._restarts = 0

    def count_restart(self, cause: EngineError) -> None:
        """One more start; EngineError after three that led nowhere."""
        self._restarts += 1
        if self._restarts > RESTARTS_LIMIT:
            raise EngineError(
                f"the engine was restarted {RESTARTS_LIMIT} times without progress: {cause}",
                cause.hint or "run the same command again: it goes on where it stopped",
            ) from cause
        self._report(f"the engine is restarted: {cause}")

    def after_death(self, lists: Sequence[Batch]) -> tuple[list[Batch], list[Row]]:
        """(lists to send alone, rows set aside). A strike falls only on a list that was alone."""
        if self._was_alone(lists):
            return self._strike(lists[0])
        return [_suspect(batch) for batch in lists], []

    def after_out_of_memory(self, lists: Sequence[Batch], engine: Engine) -> tuple[list[Batch], list[Row]]:
        """The same, but no list is guilty that can be made smaller: half the budget, without a strike.

        Nor is a row for which there was room before: others have taken the memory.
        """
        self._clean_since = self._clock()
        if self._was_alone(lists) and len(lists[0].rows) == 1:
            fits = lists[0].tokens <= self._most_answered_tokens
            return ([*lists], []) if fits else self._strike(lists[0])
        largest = max(batch.cost(padded=engine.padded) for batch in lists)
        self._halvings += 1
        while 1 < largest <= self.budget_tokens(engine):
            self._halvings += 1
        self._report(f"out of memory: batches of {self.budget_tokens(engine):,} tokens from now on")
        again = self.repack(lists, engine)
        if len(again) > len(lists):
            self._note_progress()
        return [_suspect(batch) for batch in again], []

    def repack(self, lists: Sequence[Batch], engine: Engine) -> list[Batch]:
        """Each list within the budget of now, of its kind as before."""
        return [replace(smaller, kind=batch.kind) for batch in lists for smaller in self.pack(batch.rows, engine)]

    def _was_alone(self, lists: Sequence[Batch]) -> bool:
        """Sent alone, not merely the last to be back."""
        return len(lists) == 1 and lists[0].kind != "list"

    def _strike(self, suspect: Batch) -> tuple[list[Batch], list[Row]]:
        self._note_progress()
        count = len(suspect.rows)
        if count > 1:
            size = -(-count // CUT_INTO)
            cuts = [suspect.rows[start : start + size] for start in range(0, count, size)]
            return [Batch(cut, "suspect") for cut in cuts], []
        self._set_aside += 1
        if self._set_aside > SET_ASIDE_LIMIT:
            raise EngineError(
                f"the engine died of more than `{SET_ASIDE_LIMIT}` single chunks: it is the engine, not they",
                "run the same command again: it goes on where it stopped",
            )
        self._report(f"a chunk of {suspect.tokens:,} tokens kills the engine and is set aside")
        return [], [suspect.rows[0]]


def _suspect(batch: Batch) -> Batch:
    return batch if batch.kind == "second_look" else replace(batch, kind="suspect")
