"""`embedcli serve` over a double of an engine, in a process of its own.

In: the fault of the engine, then the arguments of `embedcli`. Out: what `embedcli` does.
Not here: the client (serving/client.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import embedcli.run.tools  # noqa: E402
from embedcli.cli import main  # noqa: E402
from embedcli.config import IndexSettings  # noqa: E402
from embedcli.errors import EngineDied, EngineError  # noqa: E402
from embedcli.models.folder import Model  # noqa: E402
from embedcli.run.tools import Tools, listen  # noqa: E402
from embedcli.serving import server  # noqa: E402
from tests.fake_engines import KILLER, EngineDiesOfKiller, FakeEngine  # noqa: E402
from tests.held import later  # noqa: E402
from tests.workshop import _resolve  # noqa: E402


class Holds(FakeEngine):
    """Answers nothing with a killer in it until the file `go` is there; makes `held` when it has such a batch."""

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        if not any(KILLER in row for row in rows):
            return super().submit(rows)
        Path("held").touch()
        return later(lambda: self._when_let_go(rows))

    def _when_let_go(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        while not Path("go").exists():
            time.sleep(0.01)
        return super().submit(rows).result()


class DiesOnce(FakeEngine):
    """The first of its kind dies of a killer; the next one opens when the file `go` is there."""

    opened = 0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if DiesOnce.opened:
            while not Path("go").exists():
                time.sleep(0.01)
        DiesOnce.opened += 1
        self.number = DiesOnce.opened

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        if self.number == 1 and any(KILLER in row for row in rows):
            raise EngineDied("the double died")
        return super().embed(rows)


class GivesUp(FakeEngine):
    """Once it has died of a killer, no other opens until the file `go` is there."""

    has_died = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if GivesUp.has_died and not Path("go").exists():
            raise EngineError("the double does not open")

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        if not Path("go").exists() and any(KILLER in row for row in rows):
            GivesUp.has_died = True
            raise EngineDied("the double died")
        return super().embed(rows)


class NeverOpens(FakeEngine):
    def __init__(self, **_: Any) -> None:
        raise EngineError("the double does not open", "try another double")


class OpensLate(FakeEngine):
    """When the file `go` is there."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        while not Path("go").exists():
            time.sleep(0.01)


ENGINES: dict[str, type[FakeEngine]] = {
    "sound": FakeEngine,
    "dies-of-killer": EngineDiesOfKiller,
    "holds": Holds,
    "holds-too-long": Holds,
    "dies-once": DiesOnce,
    "gives-up": GivesUp,
    "never-opens": NeverOpens,
    "opens-late": OpensLate,
}


def make_tools(_: str, say: object, **__: object) -> Tools:
    def open_engine(model: Model, settings: IndexSettings, device: str) -> FakeEngine:
        engine = ENGINES[FAULT](dim=settings.dim)
        engine.vocabulary = None
        return engine

    return Tools(_resolve, lambda _: "cpu", open_engine, stop_signal=listen())


if __name__ == "__main__":
    FAULT = sys.argv.pop(1)
    embedcli.run.tools.make_tools = make_tools  # type: ignore[assignment]
    if FAULT == "holds-too-long":
        server.DRAIN_S = 1  # in place of a minute
    main.main()
