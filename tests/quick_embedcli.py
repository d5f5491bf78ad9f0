"""The program with an engine that needs no torch: for tests of the program, which would else wait for imports.

In: the arguments of `embedcli`. Out: what `embedcli` does; vectors depend on the ids alone.
Not here: the engine itself; tests that are about vectors, loading or memory run `python -m embedcli`.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from embedcli.cli import main  # noqa: E402
from embedcli.models.folder import Model  # noqa: E402
from tests.fake_engines import FakeEngine  # noqa: E402

LOADS_S = 1.2
TOKENS_PER_S = 8_000


class QuickEngine(FakeEngine):
    """As slow as a small model on a CPU, or a signal would come too late."""

    vocabulary = None

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        time.sleep(sum(row.size for row in rows) / TOKENS_PER_S)
        return super().submit(rows)


def open_engine(model: Model, *, dim: int, device: str, threads: int | None = None) -> QuickEngine:
    time.sleep(LOADS_S)
    return QuickEngine(dim=dim, depth=1)


if __name__ == "__main__":
    sys.modules["openvino"] = None  # type: ignore[assignment]  # the engine that would be used where it is installed
    sys.modules["embedcli.engines.torch_engine"] = types.ModuleType("embedcli.engines.torch_engine")
    sys.modules["embedcli.engines.torch_engine"].open_engine = open_engine  # type: ignore[attr-defined]
    main.main()
