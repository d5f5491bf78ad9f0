"""How long a run may still take: until its time is over it begins no work that it cannot finish and publish.

In: what tells the seconds that are left (`Tools.seconds_left`), the history of the index. Out: the
seconds that are left for work.
Not here: reading the flags (cli/nightly.py), what is published when the time is over (end_early.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedcli.run.pace.measured import published_in_s

CHECKPOINT_S = 2.0
SECONDS_A_SOURCE = 2e-5
"""Writing a table of documents of a million rows takes 10 to 20 seconds."""

MOST_RESERVED = 0.25


class OutOfTime(Exception):
    """The time is over before the run knew what there is to do."""


@dataclass(frozen=True)
class TimeLimit:
    """`reserve_s`: what the last checkpoint and the publish may take; no work is done in it."""

    seconds_left: Callable[[], float]
    reserve_s: float = 0.0

    @classmethod
    def of(cls, seconds_left: Callable[[], float], *, sources: int, state: Path) -> TimeLimit:
        """The limit of a run over an index of so many sources, whose history lies in `state`."""
        wanted_s = CHECKPOINT_S + max(1.5 * published_in_s(state), sources * SECONDS_A_SOURCE)
        return cls(seconds_left, min(wanted_s, MOST_RESERVED * max(0.0, seconds_left())))

    def left_for_work(self) -> float:
        return self.seconds_left() - self.reserve_s

    def is_over(self) -> bool:
        """Whether it is time for the last checkpoint."""
        return self.left_for_work() <= 0
