"""`status`: the current generation of an index, its sources by status, the last runs and the run in progress.

In: an index. Out: an IndexStatus, from the files of the current generation, `state/` and the lock file. Nothing is
written and no lock is taken, so that it works during a run.
Not here: looking for damage (verify.py), the flags (cli/status.py), the text on the screen (cli/texts/status.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedcli import fingerprints
from embedcli.index import documents
from embedcli.index.generations import Index, current_of
from embedcli.index.leftovers import count_waiting
from embedcli.index.lock import holder_of
from embedcli.index.manifest import Generation
from embedcli.index.state import last_runs, read_progress
from embedcli.records import TROUBLED, shown_path

RUNS_SHOWN = 5


@dataclass(frozen=True)
class IndexStatus:
    """The result of `status`.

    `older`: how many documents an earlier version read or cut; `running`: the lock and the progress of a run;
    `waiting`: how many finished documents interrupted runs have left in `staging/`, None during a run.
    """

    index: str
    generation: int | None = None
    parent: int | None = None
    complete: bool = False
    created_at: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    roots: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    tokens: int = 0
    bytes: int = 0
    older: dict[str, int] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    running: dict[str, Any] | None = None
    waiting: int | None = None


def status(index: Index, *, clock: Callable[[], float] = time.time) -> IndexStatus:
    """Collect the status of an index. Raises NoIndex where there is neither a generation nor a run."""
    index.check()
    running = _running(index, clock)
    waiting = None if running else count_waiting(index.staging)
    current = index.current() if running or waiting else current_of(index)
    beside: dict[str, Any] = {"runs": last_runs(index.state, RUNS_SHOWN), "running": running, "waiting": waiting}
    if current is None:
        return IndexStatus(index.shown, **beside)
    table = index.documents(
        current.number, ["root", "status", "reason", "rows", "chunk_fingerprint", "read_fingerprint"]
    )
    by_root = documents.count_by(table, "root")
    return IndexStatus(
        index.shown,
        generation=current.number,
        parent=current.parent,
        complete=current.complete,
        created_at=current.created_at,
        settings=current.settings.to_json(),
        roots=[
            {"path": shown_path(root), "include": root.include, "exclude": root.exclude, "gitignore": root.gitignore,
             "sources": by_root.get(root.id, 0)}
            for root in current.roots
        ],
        sources={"total": table.num_rows, **documents.count_by(table, "status")},
        reasons=documents.count_by(table, "reason"),
        chunks=current.counts["chunks"],
        tokens=current.counts["tokens"],
        bytes=current.counts["bytes"],
        older=_older(table, current),
        **beside,
    )  # fmt: skip


def _older(table: pa.Table, current: Generation) -> dict[str, int]:
    """How many documents `--reread` would read or cut differently, because an earlier version made their rows."""
    now = {
        "read": fingerprints.read_fingerprint(fingerprints.READ_VERSION),
        "chunk": fingerprints.chunk_fingerprint(
            current.settings.tokenizer_digest, max_tokens=current.settings.max_tokens,
            overlap=current.settings.overlap, boundary_version=fingerprints.BOUNDARY_VERSION,
        ),
    }  # fmt: skip
    with_rows = table.filter(pc.greater(table.column("rows"), 0))
    return {
        name: with_rows.num_rows - documents.count_by(with_rows, f"{name}_fingerprint").get(fingerprint, 0)
        for name, fingerprint in now.items()
    }


def _running(index: Index, clock: Callable[[], float]) -> dict[str, Any] | None:
    """The run that holds the lock, with its last written progress; the ETA is corrected to the present time."""
    holder = holder_of(index.folder, index.disk)
    if holder is None or holder.alive is False:
        return None
    progress, age_s = read_progress(index.state), 0.0
    with suppress(OSError):
        age_s = clock() - (index.state / "progress.json").stat().st_mtime
    if progress.get("pid") != holder.pid:
        progress = {}  # an earlier run wrote it
    elif progress["eta_s"] is not None:
        progress["eta_s"] = round(max(0.0, progress["eta_s"] - age_s), 1)
    return {**dataclasses.asdict(holder), **progress}


def troubled(index: Index, *, reason: str | None = None) -> pa.Table:
    """status, reason and uri of the sources that failed, are partial or stale; with `reason`, of all that have it."""
    current = current_of(index)
    table = index.documents(current.number, ["status", "reason", "uri"])
    if reason is not None:
        return table.filter(pc.equal(table.column("reason"), reason))
    return table.filter(pc.is_in(table.column("status"), value_set=pa.array(TROUBLED)))
