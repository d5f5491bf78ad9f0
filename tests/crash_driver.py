"""A process that runs the real `ingest` and verbs and can be killed; and one that reads the index all the while.

In: `serve`: a JSON line a run on stdin (the flags, where to die); `watch INDEX`: the index folder. Out: `serve`: a JSON
line a run on stdout, {"status": exit code or minus the signal}; `watch`: one at the end of stdin, what was seen.
Every run is a process of its own, forked from one that has its imports done: a kill costs the work, not Python's start.
For the same reason most runs read their sources themselves, where an order does not ask for reading processes.
Not here: what is killed when, and what has to hold afterwards (test_crash.py).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from embedcli.config import Options  # noqa: E402
from embedcli.engines.probe import probe_set  # noqa: E402
from embedcli.errors import EmbedcliError  # noqa: E402
from embedcli.index.generations import Index  # noqa: E402
from embedcli.ingest import ingest  # noqa: E402
from embedcli.models.folder import Model  # noqa: E402
from embedcli.run.tools import Tools  # noqa: E402
from embedcli.vault.disk import Disk  # noqa: E402
from tests.fake_engines import FakeEngine  # noqa: E402
from tests.faults import Recording, Watching, disk_of_a_run  # noqa: E402
from tests.forked_runs import serve  # noqa: E402
from tests.held import hold, later  # noqa: E402
from tests.workshop import Lines, ReadsHere, minilm  # noqa: E402

BATCH_ROWS = 4
BATCH_S = 0.004
LOOK_S = 0.001


class LoggingEngine(FakeEngine):
    """Slow, and every row it answers is a line of a file that outlives the process; the probe set is not work. It
    answers in threads of its own, one list after the other: meanwhile the run goes on, as over any engine.

    `durable` counts the checkpoints that are written: an engine in step with them gives no list before the one that it
    gave last is durable, however slow the disk is.
    """

    def __init__(self, dim: int, order: dict[str, Any], probe: frozenset[str], durable: Callable[[], int]) -> None:
        super().__init__(dim=dim, batch_rows=BATCH_ROWS, depth=1)
        self.vocabulary = None
        self.lists = 0
        self.log_file = Path(order["log"])
        self.batch_s = order.get("batch_s", BATCH_S)
        self.in_step = bool(order.get("in_step"))
        self.probe = probe
        self.durable = durable
        self._turn = threading.Lock()

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        lines = {digest for row in rows if (digest := _digest(row)) not in self.probe}
        self.lists += bool(lines)  # of work
        number = self.lists
        return later(lambda: self._answer(rows, sorted(lines), number))

    def _answer(self, rows: Sequence[np.ndarray], lines: Sequence[str], number: int) -> np.ndarray:
        with self._turn:
            time.sleep(self.batch_s)
            hold(f"list {number}")
            while self.in_step and lines and self.durable() < number - 1:
                time.sleep(LOOK_S)
            with self.log_file.open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))
            return super().submit(rows).result()


def _digest(row: np.ndarray) -> str:
    return hashlib.blake2b(np.asarray(row, np.uint32).tobytes(), digest_size=16).hexdigest()


def _open_engine(model: Model, dim: int, order: dict[str, Any], durable: Callable[[], int]) -> LoggingEngine:
    from embedcli.models.tokenizer import load_tokenizer

    row_of = load_tokenizer(model.folder, prompt=model.prompt).row_of
    max_tokens = order["flags"].get("max_tokens") or order["max_tokens"]
    return LoggingEngine(dim, order, frozenset(map(_digest, probe_set(row_of, max_tokens))), durable)


def _checkpoints(disk: Watching) -> Callable[[], int]:
    """What tells how many checkpoints are durable on this disk, from now on."""
    at, written = disk.at, list[str]()

    def note(name: str) -> None:
        at(name)
        if name == "step after journal":
            written.append(name)

    disk.at = note  # type: ignore[method-assign]
    return lambda: len(written)


def run(order: dict[str, Any]) -> int:
    """One run; `order`: sources, index, flags, log; kill: [operation or null, n] or null; record: a file or null;
    in_step: whether its engine waits for each checkpoint."""
    disk = disk_of_a_run(Path(order["index"]), order.get("kill"))
    try:
        status = _verb(order, disk) if "verb" in order else _ingest(order, disk)
    except EmbedcliError as error:
        print(f"exit {error.exit_code}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if order.get("record"):
        assert isinstance(disk, Recording)
        Path(order["record"]).write_text("\n".join(disk.done))
    return status


def _ingest(order: dict[str, Any], disk: Watching) -> int:
    durable = _checkpoints(disk)
    flags = {**order["flags"], "sources": tuple(order["sources"]), "index": Path(order["index"])}
    tools = Tools(
        resolve=lambda asked, memory: minilm(),
        device_kind=lambda _: "cpu",
        open_engine=lambda model, settings, _: _open_engine(model, settings.dim, order, durable),
        disk=disk,
        make_pool=None if order.get("reading_processes") else ReadsHere,
    )
    return ingest(Options(**flags), tools=tools, report=Lines()).exit_code


def _verb(order: dict[str, Any], disk: Disk) -> int:
    verb, *arguments = order["verb"]
    change = getattr(importlib.import_module(f"embedcli.verbs.edits.{verb}"), verb)
    change(Index(Path(order["index"]), disk=disk), *arguments, warn=print)
    return 0


# ---- the reader


def watch(index: Path) -> None:
    """Read again and again until stdin ends, and once more then; what no reader may ever see is an entry of `wrong`."""
    import duckdb

    os.nice(5)
    connection = duckdb.connect(config={"threads": 1})
    seen: dict[str, Any] = {"polls": 0, "scans": 0, "missed": 0, "generations": set(), "wrong": []}
    ended = False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], 0.1)[0])
        if (index / "current").exists():
            _read_resolved(index, seen)
            _scan_through_link(index, connection, seen)
    print(json.dumps({**seen, "generations": sorted(seen["generations"])}))


def _read_resolved(index: Path, seen: dict[str, Any]) -> None:
    """A reader that resolves `current` first never fails."""
    import pyarrow.parquet as pq

    folder = index / os.readlink(index / "current")
    number = int(folder.name)
    try:
        counts = json.loads((folder / "manifest.json").read_bytes())["counts"]
        tables = [pq.read_table(path) for path in sorted(folder.glob("vectors/*.parquet"))]
    except Exception as error:  # noqa: BLE001 - whatever a reader meets is the finding
        seen["wrong"].append(f"generation {number}: {error!r}")
        return
    seen["polls"] += 1
    seen["generations"].add(number)
    ids = [name for table in tables for name in table.column("chunk_id").to_pylist()]
    newest = max((max(t.column("changed_in").to_pylist(), default=0) for t in tables), default=0)
    if len(set(ids)) != len(ids) or len(ids) != counts["chunks"] or newest > number:
        seen["wrong"].append(f"generation {number}: {len(ids)} rows, {len(set(ids))} ids, {counts}, newest {newest}")


def _scan_through_link(index: Path, connection: Any, seen: dict[str, Any]) -> None:
    """One that globs through the link sees one generation whole; at the instant of a swap it may miss a file."""
    import duckdb

    before = _counts(index)
    query = "select count(*), count(distinct chunk_id), max(changed_in) from read_parquet(?)"
    try:
        rows, ids, newest = connection.execute(query, [str(index / "current/vectors/*.parquet")]).fetchone()
    except (duckdb.IOException, duckdb.HTTPException) as error:
        seen["missed"] += 1
        if "No such file" not in str(error) and "No files found" not in str(error):
            seen["wrong"].append(f"scan: {error!r}")
        return
    seen["scans"] += 1
    known = [before, _counts(index)]
    if rows != ids or not any(rows == chunks and (newest or 0) <= number for number, chunks in known):
        seen["wrong"].append(f"scan: {rows} rows, {ids} ids, newest {newest} in {known}")


def _counts(index: Path) -> tuple[int, int]:
    """Number and chunks of the generation that `current` points to."""
    folder = index / os.readlink(index / "current")
    return int(folder.name), json.loads((folder / "manifest.json").read_bytes())["counts"]["chunks"]


if __name__ == "__main__":
    watch(Path(sys.argv[2])) if sys.argv[1] == "watch" else serve(run)
