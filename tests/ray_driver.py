"""A process that runs the real `ingest` over Ray's workers with a fake engine of a fixed speed.

In: one JSON object as argument: docs, index, flags, what the workers are like (tests/cluster_doubles.py); where the
index is in a vault `machine`, the cache of the run; the cluster by RAY_ADDRESS. Out: the report on stderr, the exit
code.
Not here: what is killed meanwhile, and what has to hold afterwards (tests/cluster/test_ray_transport.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from embedcli.cluster.on_ray import RayWorkforce  # noqa: E402
from embedcli.config import NO_CARD_FLAGS, NO_CPU_FLAGS, Workers, index_folder  # noqa: E402
from embedcli.errors import EmbedcliError  # noqa: E402
from embedcli.run.tools import Tools, listen  # noqa: E402
from tests.cluster_doubles import Double  # noqa: E402
from tests.workshop import Lines, Workshop  # noqa: E402


class Force(RayWorkforce):
    """Ray's workers with the tools of the double."""

    def __init__(self, double: Double, most: int | None) -> None:
        super().__init__(Workers(1, most), "auto", NO_CARD_FLAGS, NO_CPU_FLAGS)
        self.double = double

    @property
    def tools_there(self) -> Callable[..., Tools]:
        return self.double.tools


class Shown(Lines):
    def _write(self, text: str, *, show: bool) -> None:
        print(text, file=sys.stderr, flush=True)


def main(order: dict[str, Any]) -> int:
    given = order.get("double", {})
    paths = {name: Path(given[name]) for name in ("facts_file", "hosts", "held", "gate") if given.get(name)}
    workforce = Force(Double(**{**given, **paths}), order.get("most"))
    shop = Workshop(Path(order["folder"]), index=order["index"])
    if order.get("machine"):
        shop.index = index_folder(order["index"], {"EMBEDCLI_CACHE": order["machine"]})
    try:
        summary = shop.ingest(workforce=workforce, stop_signal=listen(), report=Shown(), **order.get("flags", {}))
    except EmbedcliError as error:
        print(f"exit {error.exit_code}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return summary.exit_code


if __name__ == "__main__":
    status = main(json.loads(sys.argv[1]))
    sys.stderr.flush()
    os._exit(status) if status < 0 else sys.exit(status)
