"""A process that runs the real `ingest` over workers in processes of their own, and can be killed.

In: a JSON line a run on stdin: docs, index, workers, flags, what its workers are like (Double), where it dies itself;
for an index in a vault its URL in place of `index`, and `machine`, the name of a cache folder.
Out: as from forked_runs.py.
Not here: what is killed when, and what has to hold afterwards (tests/cluster/test_kills.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from embedcli.config import index_folder  # noqa: E402
from embedcli.errors import EmbedcliError  # noqa: E402
from tests.cluster_doubles import Double, Processes, ProcessHandle  # noqa: E402
from tests.faults import Recording, disk_of_a_run  # noqa: E402
from tests.forked_runs import serve  # noqa: E402
from tests.workshop import Workshop  # noqa: E402


def run(order: dict[str, Any]) -> int:
    folder = Path(order["folder"])
    shop = Workshop(folder, index=order["index"])
    if order.get("machine"):
        shop.index = index_folder(order["index"], {"EMBEDCLI_CACHE": str(folder / order["machine"])})
    given = order.get("double", {})
    files = ("once", "log_file", "record", "read_log", "hosts", "held")
    paths = {name: Path(given[name]) for name in files if given.get(name)}
    double = Double(**{**given, **paths})
    disk = disk_of_a_run(shop.index, order.get("kill"))
    workforce = Processes(order["workers"], double) if order["workers"] else None
    if workforce is not None:
        workforce.forked = [ProcessHandle(f"fork-{number}", fork=True) for number in range(order["workers"] + 1)]
    try:
        status = shop.ingest(disk=disk, workforce=workforce, **order.get("flags", {})).exit_code
    except EmbedcliError as error:
        print(f"exit {error.exit_code}: {error}", file=sys.stderr, flush=True)
        status = error.exit_code
    if order.get("record") and isinstance(disk, Recording):
        Path(order["record"]).write_text("\n".join(disk.done))
    if order.get("said"):
        Path(order["said"]).write_text("\n".join(shop.report.said))
    return status


if __name__ == "__main__":
    serve(run)
