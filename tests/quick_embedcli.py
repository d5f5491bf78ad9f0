"""The program with an engine that needs no torch: for tests of the program, which would else wait for imports.

In: the arguments of `embedcli`. Out: what `embedcli` does; vectors depend on the ids alone. It can be held (held.py)
while its model is `loading`, before it is `reading`, and before it answers `list N` of its work. With QUICK_TIME its
`--time-limit` is of seconds that the engine would take, and nobody waits for them.
Not here: the engine itself; tests that are about vectors, loading or memory run `python -m embedcli`.
"""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from embedcli.cli import main  # noqa: E402
from embedcli.models.folder import Model  # noqa: E402
from tests.fake_engines import FakeEngine  # noqa: E402
from tests.held import after, hold  # noqa: E402

TOKENS_PER_S = float(os.environ.get("QUICK_TOKENS_PER_S", "8000"))
PROBE_ROWS = 18
"""An engine that opens is given the probe set, nine texts, alone and together."""


class QuickEngine(FakeEngine):
    """As slow as a small model on a CPU."""

    vocabulary = None
    rows = lists = 0
    spent_s = 0.0

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        self.lists += self.rows >= PROBE_ROWS
        self.rows += len(rows)
        return after(f"list {self.lists}", lambda: self._answer(rows))

    def _answer(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        work_s = sum(row.size for row in rows) / TOKENS_PER_S
        if "QUICK_TIME" not in os.environ:
            time.sleep(work_s)
        elif self.lists:
            QuickEngine.spent_s += work_s
        return super().submit(rows).result()


def open_engine(model: Model, *, dim: int, device: str, threads: int | None = None) -> QuickEngine:
    hold("loading")
    return QuickEngine(dim=dim, depth=1)


def count_seconds_of_the_engine() -> None:
    """So that a night has as much time for work on any machine."""
    from embedcli.cli import nightly

    def seconds_left(_: str | None, time_limit: str | None) -> Callable[[], float]:
        limit_s = nightly.duration_s(time_limit or "")
        return lambda: limit_s - QuickEngine.spent_s

    nightly.seconds_left = seconds_left


def hold_readers() -> None:
    """Hold the run when its readers are there and have no task yet."""
    from embedcli.run import tools

    make_tools = tools.make_tools

    def holding(*arguments: Any, **named: Any) -> tools.Tools:
        """The program has read its flags: what is imported now starts threads as in a run that is not held."""
        from embedcli.run.containers.feed import Feed

        tasks = Feed.tasks

        def held(feed: Feed, planned: Iterator[Any]) -> Iterator[Any]:
            hold("reading")
            yield from tasks(feed, planned)

        Feed.tasks = held  # type: ignore[method-assign]
        return make_tools(*arguments, **named)

    tools.make_tools = holding


if __name__ == "__main__":
    if os.environ.get("HOLD_AT") == "reading":
        hold_readers()
    if "QUICK_TIME" in os.environ:
        count_seconds_of_the_engine()
    sys.modules["openvino"] = None  # type: ignore[assignment]  # the engine that would be used where it is installed
    sys.modules["embedcli.engines.torch_engine"] = types.ModuleType("embedcli.engines.torch_engine")
    sys.modules["embedcli.engines.torch_engine"].open_engine = open_engine  # type: ignore[attr-defined]
    main.main()
